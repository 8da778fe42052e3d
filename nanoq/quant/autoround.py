"""AutoRound (Cheng et al. 2023, arXiv 2309.05516): rounding offsets and ranges learned by the sign of the gradient."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from nanoq.quant.grid import Grid, storable
from nanoq.quant.layers import weight_matrix
from nanoq.quant.learned_range import LearnedRange, descend, straight
from nanoq.quant.learned_rounding import BlockData


def autoround(
    block: nn.Module, grids: dict[str, Grid], data: BlockData, *, steps: int = 200, batch: int = 8,
    lr: float | None = None, learn_range: bool = True, seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Grid]]:
    """Learn offsets and ranges of all layers of a block together, for the least error of the block's output.

    A weight w becomes s (clip(round(w / s + v) + z, 0, levels - 1) - z) with an offset v in [-1/2, 1/2] of its own
    (equation 2); the ends of each range are multiplied by alpha and beta in [0, 1], from which s and z follow (equation
    3). Gradients go through the rounding as if it were not there, and each step moves every number by the learning rate
    against their sign. The learning rate falls in a line to 0. The best of the steps is kept, as `descend` has it.

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
    offsets = {name: Offsets(weight_matrix(block.get_submodule(name)), grid) for name, grid in grids.items()}
    trained = [parameter for own in offsets.values() for parameter in (own.v, *(own.ends if learn_range else ()))]
    rate = lr or 1 / steps

    def move(step: int, gradients: tuple[Tensor, ...]) -> None:
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter -= rate * (1 - step / steps) * gradient.sign()
        for own in offsets.values():
            own.clamp()
    return descend(block, offsets, data, trained, move, steps, batch, seed)


class Offsets(LearnedRange):
    """A weight matrix on a grid with an offset before each rounding and a share of each end of the range.

    Attributes:
        v: (out, in), in units of a step.
        ends: alpha and beta in the shape of the grid's scale; beta alone on a symmetric grid.
    """

    def __init__(self, weight: Tensor, grid: Grid):
        super().__init__(weight, grid)
        self.v = torch.zeros_like(self.weight).requires_grad_()
        count = 1 if grid.zero_point is None else 2
        self.ends = [torch.ones_like(grid.scale).requires_grad_() for _ in range(count)]

    def scaled(self) -> Grid:
        """The grid with its range as it is now."""
        grid = self.grid
        if grid.zero_point is None:
            return replace(grid, scale=straight(grid.scale * self.ends[0].clamp(min=0.01), storable))
        alpha, beta = self.ends
        low, high = -grid.zero_point * alpha, (grid.levels - 1 - grid.zero_point) * beta
        share = ((high - low) / (grid.levels - 1)).clamp(min=0.01)
        zero = straight(-low / share, lambda x: x.round().clamp(0, grid.levels - 1))
        return replace(grid, scale=straight(grid.scale * share, storable), zero_point=zero)

    def units(self, scale: Tensor) -> Tensor:
        """The weight in steps of a scale, with the offsets, all (out, in)."""
        return self.weight / scale + self.v

    def clamp(self) -> None:
        """Offsets back into [-1/2, 1/2], shares of the range into [0, 1]."""
        self.v.clamp_(-0.5, 0.5)
        for end in self.ends:
            end.clamp_(0, 1)
