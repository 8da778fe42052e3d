"""Grids whose values are not evenly spaced: powers of two, evenly spaced powers, and the k means of the weights.

A bell of weights has most of its mass near 0, where an even grid is no finer than anywhere else. The first two grids
are symmetric, have 0 among their values and reach to the largest |w| of each row or group; those of k-means need not.
"""

from dataclasses import replace

import torch
from torch import Tensor

from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import Grid, covering_range, plain, split_groups, storable

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


def kmeans_grid(
    weight: Tensor, bits: int, *, granularity: str = "channel", group_size: int | None = None, steps: int = 50
) -> Grid:
    """A codebook of the weights themselves: their 2**bits means by Lloyd's algorithm in one dimension.

    SqueezeLLM (Kim et al. 2023, arXiv 2306.07629) finds one for each row, and weighs weights by their squared
    gradients. A `Grid` has one codebook for the whole matrix, which is in units of a scale for each row or group: the
    largest |w| or the root mean square, whichever gives less error. The error of every weight counts the same;
    `input_kmeans_grid` weighs them by their inputs. Not done: weights by squared gradients, and single weights that
    stay in float.

    Args:
        weight: (out, in), finite.
        bits: 2 to 8.
        granularity: as in `affine_grid`.
        group_size: as in `affine_grid`.
        steps: of Lloyd's algorithm at most.

    Raises:
        ValueError: if an argument is out of its range or the weight holds NaN or infinity.
    """
    return _kmeans(weight, bits, torch.ones(weight.shape[-1]), granularity, group_size, steps)


def input_kmeans_grid(
    weight: Tensor, bits: int, stats: LayerStats, *, granularity: str = "channel", group_size: int | None = None,
    steps: int = 50,
) -> Grid:
    """As `kmeans_grid`, but the squared error of a weight counts as much as the mean square of its input.

    Args:
        weight: (out, in), finite.
        bits: 2 to 8.
        stats: of the layer's inputs.
        granularity: as in `affine_grid`.
        group_size: as in `affine_grid`.
        steps: of Lloyd's algorithm at most.

    Raises:
        ValueError: as `kmeans_grid` does, or if the statistics do not fit.
    """
    check_calibration(weight, stats)
    return _kmeans(weight, bits, stats.gram.diagonal(), granularity, group_size, steps)


def _kmeans(weight: Tensor, bits: int, columns: Tensor, granularity: str, group_size: int | None, steps: int) -> Grid:
    """The grid whose codebook has the least error of the weights, that of each column (in,) weighed."""
    _levels(bits)
    parts, group_size = split_groups(weight, granularity, group_size)
    weight, grids, errors = plain(weight), [], []
    columns = columns if columns.sum() > 0 else torch.ones_like(columns)
    for size in (lambda part: part.abs().amax(1, keepdim=True), lambda part: part.norm(dim=1, keepdim=True)
                 / part.shape[1] ** 0.5):
        found = torch.cat([size(part) for part in parts], dim=1)
        grid = Grid(bits, 2**bits, storable(torch.where(found > 0, found, 1.0)), group_size)
        wide = grid.over_columns(grid.scale, weight)
        importance = (wide.double() ** 2 * columns.to(wide.device).double()).expand(weight.shape)
        codebook = lloyd((weight / wide).double().flatten(), importance.flatten(), 2**bits, steps)
        grids.append(replace(grid, codebook=codebook.to(wide)))
        change = (grids[-1].decode(grids[-1].encode(weight)) - weight).double()
        errors.append(float((columns.to(change) * change.square()).sum()))
    return grids[errors.index(min(errors))]


def lloyd(values: Tensor, importance: Tensor, count: int, steps: int) -> Tensor:
    """The means, ascending (count,), that Lloyd's algorithm finds of values (n,) with an importance (n,).

    It starts where the cube root of the density would have it (Panter and Dite 1951), and stops where no mean moves. A
    mean to which no value is nearest stays where it is.
    """
    values, order = values.sort()
    weight = torch.cat((values.new_zeros(1), (importance[order] / importance.sum()).cumsum(0)))
    moment = torch.cat((values.new_zeros(1), (values * importance[order] / importance.sum()).cumsum(0)))

    # density over 1024 bins, and the means at even quantiles of its cube root
    bins = torch.linspace(0, 1, 1025, dtype=values.dtype, device=values.device)
    bins = values[0] + bins * (values[-1] - values[0])
    mass = weight[torch.searchsorted(values, bins, right=True)].diff().clamp(min=0) ** (1 / 3)
    share = mass.cumsum(0) / mass.sum().clamp(min=1e-30)
    wanted = (torch.arange(count, dtype=values.dtype, device=values.device) + 0.5) / count
    means = ((bins[:-1] + bins[1:]) / 2)[torch.searchsorted(share, wanted).clamp(max=1023)]

    for _ in range(steps):
        ends = torch.searchsorted(values, (means[1:] + means[:-1]) / 2)
        ends = torch.cat((ends.new_zeros(1), ends, ends.new_full((1,), len(values))))
        size = weight[ends].diff()
        moved = torch.where(size > 1e-15, moment[ends].diff() / size, means).sort().values
        if torch.equal(moved, means):
            break
        means = moved
    return means
