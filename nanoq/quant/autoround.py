"""AutoRound (Cheng et al. 2023, arXiv 2309.05516): rounding offsets and ranges learned by the sign of the gradient."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from nanoq.quant.grid import Grid, storable
from nanoq.quant.layers import weight_matrix
from nanoq.quant.learned_rounding import BlockData, BlockError

CHECKS = 20  # times that the error is measured on the same rows, to keep the best step


def autoround(
    block: nn.Module, grids: dict[str, Grid], data: BlockData, *, steps: int = 200, batch: int = 8,
    lr: float | None = None, learn_range: bool = True, seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Grid]]:
    """Learn offsets and ranges of all layers of a block together, for the least error of the block's output.

    A weight w becomes s (clip(round(w / s + v) + z, 0, levels - 1) - z) with an offset v in [-1/2, 1/2] of its own
    (equation 2); the ends of each range are multiplied by alpha and beta in [0, 1], from which s and z follow (equation
    3). Gradients go through the rounding as if it were not there, and each step moves every number by the learning rate
    against their sign. The learning rate falls in a line to 0. The best of the steps is kept, by the error of the same
    rows, measured 20 times; so nothing is worse than rounding to nearest there.

    Args:
        block: maps hidden states to hidden states; is not changed.
        grids: of each layer to be rounded, by its name in the block; evenly spaced.
        data: what the block reads and is to give.
        steps: of the descent.
        batch: sequences or pictures in a step.
        lr: the first learning rate; None for 1 / steps.
        learn_range: whether alpha and beta are learned, too.
        seed: of the order of the data.

    Returns:
        int64 codes (out, in) and the grid with the learned range of each layer.

    Raises:
        ValueError: if an option is out of its range, or a grid is not evenly spaced.
    """
    if steps < 1 or batch < 1 or (lr is not None and not lr > 0):
        raise ValueError(f"steps, batch and lr must be positive, not {steps!r}, {batch!r} and {lr!r}")
    error, generator = BlockError(block, data), torch.Generator().manual_seed(seed)
    offsets = {name: Offsets(weight_matrix(block.get_submodule(name)), grid) for name, grid in grids.items()}
    trained = [parameter for own in offsets.values() for parameter in (own.v, *(own.ends if learn_range else ()))]
    count, rate = len(error.inputs), lr or 1 / steps
    fixed = torch.randperm(count, generator=generator)[: 8 * batch]

    def found() -> tuple[float, dict[str, tuple[Tensor, Grid]]]:
        with torch.no_grad():
            hard = {name: own.hard() for name, own in offsets.items()}
            return float(error({name: grid.decode(codes) for name, (codes, grid) in hard.items()}, fixed)), hard

    best = found()
    for step in range(steps):
        rows = torch.randint(count, (batch,), generator=generator)
        with torch.enable_grad():
            loss = error({name: own() for name, own in offsets.items()}, rows)
            gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter -= rate * (1 - step / steps) * gradient.sign()
            for own in offsets.values():
                own.clamp()
        if (step + 1) % max(steps // CHECKS, 1) == 0 or step + 1 == steps:
            best = min(best, found(), key=lambda each: each[0])
    return tuple({name: pair[i] for name, pair in best[1].items()} for i in (0, 1))


class Offsets:
    """A weight matrix on a grid with an offset before each rounding and a share of each end of the range.

    Attributes:
        v: (out, in), in units of a step.
        ends: alpha and beta in the shape of the grid's scale; beta alone on a symmetric grid.
    """

    def __init__(self, weight: Tensor, grid: Grid):
        if grid.codebook is not None or grid.packed_scale is not None or grid.threshold is not None or grid.coded:
            raise ValueError("autoround learns the range of evenly spaced values: take the grid affine, hqq or imatrix")
        grid.check_fits(weight)
        self.weight, self.grid = weight.detach().to(grid.scale.dtype), grid
        self.v = torch.zeros_like(self.weight).requires_grad_()
        count = 1 if grid.zero_point is None else 2
        self.ends = [torch.ones_like(grid.scale).requires_grad_() for _ in range(count)]

    def scaled(self) -> Grid:
        """The grid with its range as it is now."""
        grid = self.grid
        if grid.zero_point is None:
            return replace(grid, scale=_straight(grid.scale * self.ends[0].clamp(min=0.01), storable))
        alpha, beta = self.ends
        low, high = -grid.zero_point * alpha, (grid.levels - 1 - grid.zero_point) * beta
        share = ((high - low) / (grid.levels - 1)).clamp(min=0.01)
        zero = _straight(-low / share, lambda x: x.round().clamp(0, grid.levels - 1))
        return replace(grid, scale=_straight(grid.scale * share, storable), zero_point=zero)

    def codes(self, grid: Grid) -> Tensor:
        """The codes of now (out, in), as floats that a gradient goes through where they are not clipped."""
        units = self.weight / grid.over_columns(grid.scale, self.weight) + self.v
        return (_straight(units, torch.round) + grid.over_columns(grid.zero_codes, units)).clamp(0, grid.levels - 1)

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

    def clamp(self) -> None:
        """Offsets back into [-1/2, 1/2], shares of the range into [0, 1]."""
        self.v.clamp_(-0.5, 0.5)
        for end in self.ends:
            end.clamp_(0, 1)


def _straight(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The values of a function with the gradient of x."""
    return function(x.detach()) + (x - x.detach())
