"""Block-AP of EfficientQAT (Chen et al. 2024, arXiv 2407.11062): a block's weights, step sizes and zero points trained.

The other half of EfficientQAT, E2E-QP, trains step sizes end to end with the codes fixed: `nanoq.quant.tuning.tune`.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from nanoq.quant.grid import Grid, storable
from nanoq.quant.layers import weight_matrix
from nanoq.quant.learned_range import LearnedRange, descend, straight
from nanoq.quant.learned_rounding import BlockData


def block_ap(
    block: nn.Module, grids: dict[str, Grid], data: BlockData, *, steps: int = 200, batch: int = 8, lr: float = 0.01,
    lr_range: float = 0.01, seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Grid]]:
    """Train all layers of a block together, their grids too, for the least error of the block's output.

    A weight w becomes s (clip(round(w / s) + z, 0, levels - 1) - z), and w, s and z are all trained (section 3.2), by
    Adam with a cosine to 0; gradients go through the rounding as if it were not there. A weight may so end many steps
    from where it was, and not only at a neighbour as in AutoRound. Learning rates are relative: what is trained are w
    and s in units of the s that the grid starts with, and z in codes, so that a block of larger weights takes the same
    path. The official code has absolute ones, trains norms, too, and keeps the last step; here norms stay as they are,
    and the best step is kept, as `descend` has it.

    Args:
        block: maps hidden states to hidden states; is not changed.
        grids: of each layer to be rounded, by its name in the block; evenly spaced.
        data: what the block reads and is to give.
        steps: of Adam.
        batch: sequences or pictures in a step.
        lr: peak learning rate of the weights, in steps of the grid.
        lr_range: of the step sizes, as a share of the first ones, and of the zero points, in codes.
        seed: of the order of the data.

    Returns:
        int64 codes (out, in) and the trained grid of each layer.

    Raises:
        ValueError: if an option is out of its range, or a grid is not evenly spaced.
    """
    if steps < 1 or batch < 1 or not lr > 0 or lr_range < 0:
        raise ValueError("steps, batch and lr must be positive, and lr_range not below 0, not "
                         f"{steps!r}, {batch!r}, {lr!r} and {lr_range!r}")
    layers = {name: Trained(weight_matrix(block.get_submodule(name)), grid) for name, grid in grids.items()}
    weights, ranges = [own.latent for own in layers.values()], [part for own in layers.values() for part in own.range]
    groups = [{"params": weights, "lr": lr}, {"params": ranges, "lr": lr_range}]
    optimizer = torch.optim.Adam(groups, eps=1e-20)  # gradients of a small error are small
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def move(_: int, gradients: tuple[Tensor, ...]) -> None:
        for parameter, gradient in zip(weights + ranges, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        schedule.step()
    return descend(block, layers, data, weights + ranges, move, steps, batch, seed)


class Trained(LearnedRange):
    """A weight matrix and its grid as they are trained.

    Attributes:
        latent: (out, in), the weight in steps of the grid at the start.
        range: the scale over that at the start, and the zero point, in the shape of the grid's scale; on a symmetric
            grid the first alone.
    """

    def __init__(self, weight: Tensor, grid: Grid):
        super().__init__(weight, grid)
        self.first = grid.over_columns(grid.scale, self.weight)
        self.latent = (self.weight / self.first).requires_grad_()
        zero = [] if grid.zero_point is None else [grid.zero_point.clone().requires_grad_()]
        self.range = [torch.ones_like(grid.scale).requires_grad_(), *zero]

    def scaled(self) -> Grid:
        """The grid of now: its scales as a file keeps them, its zero points whole."""
        gain, *rest = self.range
        top = self.grid.levels - 1
        scale = straight(self.grid.scale * gain.clamp(min=0.01), storable)
        zero = straight(rest[0], lambda z: z.round().clamp(0, top)) if rest else None
        return replace(self.grid, scale=scale, zero_point=zero)

    def units(self, scale: Tensor) -> Tensor:
        """The weight of now in steps of a scale, both (out, in)."""
        return self.latent * (self.first / scale)
