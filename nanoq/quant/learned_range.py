"""Evenly spaced grids that are learned together with the codes on them, for the least error of a block's output."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from nanoq.quant.grid import Grid
from nanoq.quant.learned_rounding import BlockData, BlockError

CHECKS = 20  # times that the error is measured on the same rows, to keep the best step


class LearnedRange:
    """A weight matrix on an evenly spaced grid, both as they are now; a subclass says what of them is learned.

    Attributes:
        weight: (out, in), as it is in the block.
        grid: as it is at the start.
    """

    def __init__(self, weight: Tensor, grid: Grid):
        if grid.codebook is not None or grid.packed_scale is not None or grid.threshold is not None or grid.coded:
            raise ValueError("the range is learned of evenly spaced values only: take the grid affine, hqq or imatrix")
        grid.check_fits(weight)
        self.weight, self.grid = weight.detach().to(grid.scale.dtype), grid

    def scaled(self) -> Grid:
        """The grid of now."""
        raise NotImplementedError

    def units(self, scale: Tensor) -> Tensor:
        """The weight of now in steps of a scale, both (out, in)."""
        raise NotImplementedError

    def codes(self, grid: Grid) -> Tensor:
        """The codes of now (out, in), as floats that a gradient goes through where they are not clipped."""
        units = self.units(grid.over_columns(grid.scale, self.weight))
        return (straight(units, torch.round) + grid.over_columns(grid.zero_codes, units)).clamp(0, grid.levels - 1)

    def __call__(self) -> Tensor:
        """The values of the codes (out, in)."""
        grid = self.scaled()
        codes = self.codes(grid)
        return (codes - grid.over_columns(grid.zero_codes, codes)) * grid.over_columns(grid.scale, codes)

    def hard(self) -> tuple[Tensor, Grid]:
        """The codes of now, int64, and the grid of now."""
        grid = self.scaled()
        detached = None if grid.zero_point is None else grid.zero_point.detach()
        return self.codes(grid).detach().long(), replace(grid, scale=grid.scale.detach(), zero_point=detached)


def descend(
    block: nn.Module, layers: dict[str, LearnedRange], data: BlockData, trained: list[Tensor],
    move: Callable[[int, tuple[Tensor, ...]], None], steps: int, batch: int, seed: int,
) -> tuple[dict[str, Tensor], dict[str, Grid]]:
    """Learn the layers of a block for the least mean squared error of its output, and keep the best step.

    The best is the one with the least error on the same 8 * `batch` rows, measured 20 times and before the first step;
    so nothing is worse than the start there.

    Args:
        block: maps hidden states to hidden states; is not changed.
        layers: by their names in the block.
        data: what the block reads and is to give.
        trained: what gradients are taken by.
        move: is called as move(step, gradients), to change `trained`.
        steps: how often.
        batch: sequences or pictures in a step.
        seed: of the order of the data.

    Returns:
        int64 codes (out, in) and the learned grid of each layer.
    """
    error, generator = BlockError(block, data), torch.Generator().manual_seed(seed)
    count = len(error.inputs)
    fixed = torch.randperm(count, generator=generator)[: 8 * batch]

    def found() -> tuple[float, dict[str, tuple[Tensor, Grid]]]:
        with torch.no_grad():
            hard = {name: own.hard() for name, own in layers.items()}
            return float(error({name: grid.decode(codes) for name, (codes, grid) in hard.items()}, fixed)), hard

    best = found()
    for step in range(steps):
        rows = torch.randint(count, (batch,), generator=generator)
        with torch.enable_grad():
            loss = error({name: own() for name, own in layers.items()}, rows)
            gradients = torch.autograd.grad(loss, trained, materialize_grads=True)  # the rows may reach no expert
        with torch.no_grad():
            move(step, gradients)
        if (step + 1) % max(steps // CHECKS, 1) == 0 or step + 1 == steps:
            best = min(best, found(), key=lambda each: each[0])
    return tuple({name: pair[i] for name, pair in best[1].items()} for i in (0, 1))


def straight(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The values of a function with the gradient of x."""
    return function(x.detach()) + (x - x.detach())
