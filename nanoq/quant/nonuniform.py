"""Grids that are evenly spaced in another space than the weights' own: in their logarithm, or in a power of them.

A bell of weights has most of its mass near 0, where an even grid is no finer than anywhere else. Both grids here are
symmetric, have 0 among their values and reach to the largest |w| of each row or group.
"""

import torch
from torch import Tensor

from nanoq.quant.grid import Grid, covering_range, split_groups, storable

EXPONENTS = tuple(step / 20 for step in range(6, 21))  # 0.3 to 1, of which the search takes the best


def power_of_two_grid(
    weight: Tensor, bits: int, *, granularity: str = "channel", group_size: int | None = None
) -> Grid:
    """The values 0 and ±2**-k of the largest, k = 0, 1, ...: a product with one is a shift.

    Zhou et al. 2017 (INQ, arXiv 1702.03044).

    Args:
        weight: (out, in), finite.
        bits: 2 to 8; of the 2**bits codes one is idle.
        granularity: as in `affine_grid`.
        group_size: as in `affine_grid`.

    Raises:
        ValueError: if an argument is out of its range or the weight holds NaN or infinity.
    """
    positive = 2.0 ** -torch.arange(_levels(bits) - 1, -1, -1, dtype=torch.float32)
    return _symmetric(weight, bits, positive, granularity, group_size)


def power_law_grid(
    weight: Tensor, bits: int, *, exponent: float | None = None, granularity: str = "channel",
    group_size: int | None = None,
) -> Grid:
    """The values whose power |w|**exponent is evenly spaced: PowerQuant (Yvinec et al. 2023, arXiv 2301.09858, eq. 4).

    Args:
        weight: (out, in), finite.
        bits: 2 to 8; of the 2**bits codes one is idle.
        exponent: in (0, 1]; 1 is the symmetric affine grid. None takes that of `EXPONENTS` with the least squared error
            of the weights.
        granularity: as in `affine_grid`.
        group_size: as in `affine_grid`.

    Raises:
        ValueError: if an argument is out of its range or the weight holds NaN or infinity.
    """
    if exponent is not None and not 0 < exponent <= 1:
        raise ValueError(f"exponent must lie in (0, 1], not {exponent!r}")
    count = _levels(bits)
    even = torch.arange(1, count + 1, dtype=torch.float32) / count
    grids = [_symmetric(weight, bits, even ** (1 / power), granularity, group_size)
             for power in (EXPONENTS if exponent is None else (exponent,))]
    return min(grids, key=lambda grid: float((grid.decode(grid.encode(weight)) - weight).square().sum()))


def _levels(bits: int) -> int:
    """Values above 0 of a symmetric grid."""
    if bits not in range(2, 9):
        raise ValueError(f"bits must be in 2..8, not {bits!r}")
    return 2 ** (bits - 1) - 1


def _symmetric(weight: Tensor, bits: int, positive: Tensor, granularity: str, group_size: int | None) -> Grid:
    """The grid of ascending values above 0, the last of them 1, their negatives and 0, scaled to the largest |w|."""
    parts, group_size = split_groups(weight, granularity, group_size)
    largest = torch.cat([covering_range(part, symmetric=True)[1] for part in parts], dim=1)
    codebook = torch.cat((-positive.flip(0), positive.new_zeros(1), positive)).to(weight.device)
    scale = storable(torch.where(largest > 0, largest, 1.0))
    return Grid(bits, len(codebook), scale, group_size, codebook=codebook)
