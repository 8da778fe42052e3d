"""Rounding to nearest, the method that every other one is measured against; and scales that fit codes best."""

from dataclasses import replace

import torch
from torch import Tensor

from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import HALF, Grid, check_weight, storable


def nearest(weight: Tensor, grid: Grid, stats: LayerStats | None = None) -> Tensor:
    """The nearest grid value of each weight by itself: (out, in) -> int64 codes (out, in).

    It needs no `stats`. Halves go to the value an even number of steps from 0.
    """
    return grid.encode(weight).long()


def refit_scale(weight: Tensor, codes: Tensor, grid: Grid, stats: LayerStats | None = None) -> Grid:
    """The grid with the scales that give codes the least squared error of the layer's outputs, or else of the weights.

    For a row w with the codes' values u for a scale of 1, split by group into u_1, u_2, ..., and the Gram matrix G of
    the inputs, the scales s solve sum over h of (u_g G u_h) s_h = u_g G w, one equation for each group g. A scale that
    would come out negative or beyond float16 keeps its old value, and the others make the best of it.

    Args:
        weight: (out, in).
        codes: (out, in).
        grid: of the codes.
        stats: of the layer's inputs; without, the error of the weights counts.

    Raises:
        ValueError: if the grid keeps its scales in 8 bits, codes, grid or statistics do not fit the weight, or it or
            they hold NaN.
    """
    _check_refit(weight, codes, grid, stats)

    # the equations, row by row
    units = replace(grid, scale=torch.ones_like(grid.scale)).decode(codes).to(weight.dtype)
    parts = units[:, None] * _membership(grid, weight)  # (out, groups, in)
    seen = parts if stats is None else parts @ stats.gram.to(weight.dtype)
    square = seen @ parts.transpose(1, 2)  # (out, groups, groups)
    right = seen @ weight[:, :, None]  # (out, groups, 1)
    if len(grid.scale) == 1:
        square, right = square.sum(0, keepdim=True), right.sum(0, keepdim=True)

    # a group of zeros says nothing of its scale: a small ridge keeps the old one
    ridge = 1e-6 * square.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    square.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    old = grid.scale.to(weight)[:, :, None]
    right += ridge[:, None, None] * old

    # with the scales that are kept, the best of the others; ends because more are kept in every round
    kept = torch.zeros_like(old, dtype=torch.bool)
    while True:
        free = (~kept).to(weight)
        rest = square * free * free.transpose(1, 2) + torch.diag_embed(1 - free[:, :, 0])
        scale = torch.linalg.solve(rest, torch.where(kept, old, right - square @ (old * kept)))
        unusable = ~kept & ~((scale >= HALF.smallest_normal) & (scale <= HALF.max))
        if not unusable.any():
            return replace(grid, scale=storable(torch.where(kept, old, scale)[:, :, 0]))
        kept |= unusable


def unit_gain(weight: Tensor, codes: Tensor, grid: Grid, stats: LayerStats | None = None) -> Grid:
    """The grid with the scales of each row times what gives the row's output a gain of 1 towards the original's.

    The gain of a row q in the place of w is (q G w) / (w G w), G the Gram matrix of the inputs. Below 1 outputs shrink,
    and what shrinks in each layer adds up over the model. Clipping and least squares (`refit_scale`) shrink outputs,
    and have the least error of the layer nevertheless. A row whose gain is less than a tenth keeps its scales.

    Args:
        weight: (out, in).
        codes: (out, in).
        grid: of the codes.
        stats: of the layer's inputs; without, they count as white.

    Raises:
        ValueError: if the grid keeps its scales in 8 bits, or codes, grid or statistics do not fit the weight.
    """
    _check_refit(weight, codes, grid, stats)
    values = grid.decode(codes).to(weight.dtype)
    seen = weight if stats is None else weight @ stats.gram.to(weight.dtype)  # (out, in)
    energy, shared = (seen * weight).sum(1, keepdim=True), (seen * values).sum(1, keepdim=True)
    if len(grid.scale) == 1:
        energy, shared = energy.sum(0, keepdim=True), shared.sum(0, keepdim=True)
    factor = torch.where(shared > energy / 10, energy / shared, 1.0)
    return replace(grid, scale=storable(grid.scale * factor.to(grid.scale)))


def _check_refit(weight: Tensor, codes: Tensor, grid: Grid, stats: LayerStats | None) -> None:
    """Raise a ValueError unless the scales of these codes can be changed."""
    check_weight(weight)
    if stats is not None:
        check_calibration(weight, stats)
    grid.check_fits(weight)
    if codes.shape != weight.shape:
        raise ValueError(f"codes {tuple(codes.shape)} do not fit a weight of shape {tuple(weight.shape)}")
    if grid.packed_scale is not None:
        raise ValueError("a grid with scales in 8 bits has no room for refitted ones")


def _membership(grid: Grid, weight: Tensor) -> Tensor:
    """1 where a column (in,) belongs to a group, else 0: (groups, in)."""
    groups = grid.scale.shape[1]
    if groups == 1:
        return weight.new_ones(1, weight.shape[1])
    return (torch.arange(weight.shape[1]) // grid.group_size == torch.arange(groups)[:, None]).to(weight)

