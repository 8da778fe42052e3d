"""Evenly spaced grids whose scale and zero point are searched for: HQQ's, and llama.cpp's with an importance matrix.

Both begin with the grid from min to max and look for one with less error by their own measure. Files keep zero points
as whole numbers of `bits` bits, so both fit the scale to a zero point that was rounded; the originals keep a fractional
zero point or minimum beside the scale.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import Grid, affine_grid, plain, split_groups, storable

STRENGTH, GROWTH = 10.0, 1.01  # HQQ's beta, and its factor from step to step
CANDIDATES = tuple(-0.9 + 0.05 * j for j in range(36))  # levels to add to the range's, of llama.cpp's make_qkx3_quants


def hqq_grid(
    weight: Tensor, bits: int, *, granularity: str = "channel", group_size: int | None = None, norm: float = 0.7,
    steps: int = 20,
) -> Grid:
    """The asymmetric grid that HQQ's half-quadratic splitting finds (Badri and Shaji 2023), without data.

    It looks for the least sum of |w - s (code - z)|**norm, a norm that leaves outliers their errors. Those are split
    off as e = sign(r) relu(|r| - |r|**(norm - 1) / beta) of the residuals r, and z and s are fitted to w - e by least
    squares, in turns with the codes. HQQ leaves s at the range and moves a fractional z alone; here z is whole, so s
    moves, too. Residuals are counted in steps of the first grid, so that a weight twice as large gets a grid twice as
    large.

    Args:
        weight: (out, in), finite.
        bits: 2 to 8.
        granularity: as in `affine_grid`.
        group_size: as in `affine_grid`.
        norm: the exponent, in (0, 1].
        steps: of the splitting; each group keeps its best.

    Raises:
        ValueError: if an argument is out of its range or the weight holds NaN or infinity.
    """
    if not 0 < norm <= 1 or steps < 0:
        raise ValueError(f"norm must lie in (0, 1] and steps be at least 0, not {norm!r} and {steps!r}")
    start = affine_grid(weight, bits, granularity=granularity, group_size=group_size)

    def proposals(part: Tensor, scale: Tensor, zero: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        unit, beta = scale, STRENGTH
        for _ in range(steps):
            codes = _encode(part, scale, zero, start.levels)
            residual = (part - scale * (codes - zero)) / unit
            size = residual.abs().clamp(min=1e-8)
            goal = part - unit * residual.sign() * (size - size ** (norm - 1) / beta).relu()
            zero = (codes - goal / scale).mean(1, keepdim=True).round().clamp(0, start.levels - 1)
            scale = _fitted(goal, codes - zero, torch.ones_like(goal), scale)
            beta *= GROWTH
            yield scale, zero

    def error(part: Tensor, change: Tensor, _: slice) -> Tensor:
        return (change / part.abs().amax(1, keepdim=True).clamp(min=1e-30)).abs() ** norm
    return _searched(weight, start, granularity, lambda part, cols, *ends: proposals(part, *ends), error)


def imatrix_grid(
    weight: Tensor, bits: int, stats: LayerStats, *, granularity: str = "channel", group_size: int | None = None,
) -> Grid:
    """The asymmetric grid of llama.cpp's search with an importance matrix (make_qkx3_quants in ggml-quants.c).

    The squared error of weight x_i counts m_i sqrt(sigma**2 + x_i**2) times: m_i is the mean square of input i,
    sigma**2 that of the row. Each of 36 candidate steps, (high - low) / (2**bits - 1.9 + 0.05 j), gives codes, and
    weighted least squares gives the (scale, minimum) of those. llama.cpp keeps both, in 4 or 6 bits in blocks of 256;
    here the minimum becomes a whole zero point, and the scale is fitted once more to that.

    Args:
        weight: (out, in), finite.
        bits: 2 to 8.
        stats: of the layer's inputs.
        granularity: as in `affine_grid`.
        group_size: as in `affine_grid`.

    Raises:
        ValueError: if an argument is out of its range, the weight holds NaN or infinity, or the statistics do not fit.
    """
    check_calibration(weight, stats)
    start = affine_grid(weight, bits, granularity=granularity, group_size=group_size)
    importance = importance_of(plain(weight), stats)
    if granularity == "tensor":
        importance = importance.reshape(1, -1)

    def proposals(part: Tensor, cols: slice, scale: Tensor, zero: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        own, low, top = importance[:, cols], -scale * zero, start.levels - 1
        for more in CANDIDATES:
            step = scale * top / (top + more)
            codes = ((part - low) / step).round().clamp(0, top)
            fitted, least = _line(part, codes, own, step, low)
            whole = (-least / fitted).round().clamp(0, top)
            yield _fitted(part, _encode(part, fitted, whole, start.levels) - whole, own, fitted), whole

    return _searched(weight, start, granularity, proposals, lambda part, change, cols: importance[:, cols] * change**2)


def importance_of(weight: Tensor, stats: LayerStats) -> Tensor:
    """How much the squared error of each weight counts in `imatrix_grid`: (out, in), 1 in the mean."""
    spread = (weight.square().mean(1, keepdim=True) + weight.square()).sqrt()
    importance = stats.gram.diagonal().to(weight) * spread
    return importance / importance.mean().clamp(min=1e-30)


def _searched(
    weight: Tensor, start: Grid, granularity: str, proposals: Callable[..., Iterable[tuple[Tensor, Tensor]]],
    error: Callable[[Tensor, Tensor, slice], Tensor],
) -> Grid:
    """The start, or for each row of a group the scale and zero point (rows, 1) with the least error of the proposals.

    Args:
        weight: (out, in).
        start: its grid from min to max.
        granularity: of that.
        proposals: of the part (rows, columns), the columns that it is, and the scale and zero point to start from.
        error: of each weight, from the part, its change and the columns that it is.
    """
    parts, width = split_groups(weight, granularity, start.group_size if granularity == "group" else None)
    found = []
    for g, part in enumerate(parts):
        cols = slice(None) if len(parts) == 1 else slice(g * width, g * width + part.shape[1])
        best = start.scale[:, g : g + 1], start.zero_point[:, g : g + 1]
        least = torch.full_like(best[0], torch.inf)
        for scale, zero in (best, *proposals(part, cols, *best)):
            scale = storable(scale)
            change = scale * (_encode(part, scale, zero, start.levels) - zero) - part
            cost = error(part, change, cols).sum(1, keepdim=True)
            best = tuple(torch.where(cost < least, new, old) for new, old in zip((scale, zero), best, strict=True))
            least = torch.minimum(cost, least)
        found.append(best)
    scale, zero = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
    return replace(start, scale=storable(scale), zero_point=zero)


def _encode(part: Tensor, scale: Tensor, zero: Tensor, levels: int) -> Tensor:
    """Codes (rows, columns) of the nearest values."""
    return ((part / scale).round() + zero).clamp(0, levels - 1)


def _fitted(goal: Tensor, units: Tensor, importance: Tensor, old: Tensor) -> Tensor:
    """The scale (rows, 1) with the least weighted squared error of scale * units; the old one where that is none."""
    scale = (importance * units * goal).sum(1, keepdim=True) / (importance * units**2).sum(1, keepdim=True)
    return torch.where((scale > old / 10) & (scale < old * 10), scale, old)  # NaN goes to the old one


def _line(goal: Tensor, codes: Tensor, importance: Tensor, step: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and minimum (rows, 1), at most 0, of the weighted least squares line from codes to the goal."""
    total = importance.sum(1, keepdim=True)
    mean_code, mean_goal = ((importance * x).sum(1, keepdim=True) / total for x in (codes, goal))
    centred = codes - mean_code
    scale = (importance * centred * goal).sum(1, keepdim=True) / (importance * centred**2).sum(1, keepdim=True)
    usable = (scale > step / 10) & (scale < step * 10)
    scale = torch.where(usable, scale, step)
    return scale, torch.where(usable, (mean_goal - scale * mean_code).clamp(max=0), low)
