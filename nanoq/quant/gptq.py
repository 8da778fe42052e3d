"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) from one triangular factor and without an inverse.

The error that a rounded weight matrix Q adds to the layer's outputs is trace((W - Q) H (W - Q)^T), H the Hessian.
Factor H = C C^T with C upper triangular. Then the error is the squared norm of (W - Q) C, whose column k is

    (w_k - q_k) C_kk + sum over j < k of (w_j - q_j) C_jk,

and columns before k are rounded already. What makes it least is to round to nearest not w_k but

    w_k + sum over j < k of (w_j - q_j) C_jk / C_kk.

That is the whole algorithm. It gives the codes of the paper's algorithm 1, which updates the weights with rows of the
Cholesky factor of the inverse Hessian, and is Babai's nearest-plane algorithm on the lattice that C spans
(arXiv 2507.18553).
"""

import itertools
import warnings

import torch
from torch import Tensor

from nanoq.quant.calibrate import LayerStats
from nanoq.quant.grid import Grid

BLOCK = 32  # columns whose corrections are applied one by one; those of earlier blocks come in one matrix product


def gptq(weight: Tensor, grid: Grid, stats: LayerStats, *, damping: float = 0.01, act_order: bool = False) -> Tensor:
    """Round column after column, each to the nearest grid value once the errors before it are made up for.

    An input that was always zero in the calibration couples to no other, so its weights are simply rounded.

    Args:
        weight: (out, in).
        grid: of the weight; it stays fixed, also under `act_order`.
        stats: of the layer's inputs.
        damping: share of the mean diagonal that is added to the diagonal of the Hessian.
        act_order: whether to go from the column with the largest diagonal to that with the smallest.

    Returns:
        int64 codes (out, in).

    Raises:
        ValueError: if the statistics are empty, do not fit, hold NaN, or cannot be factored.
    """
    _check(weight, stats, damping)
    weight = weight.to(stats.gram.dtype)
    n = weight.shape[1]
    order = stats.gram.diagonal().argsort(descending=True, stable=True) if act_order else torch.arange(n)
    pull = _unit_factor(stats.gram[order][:, order], damping)  # (n, n): C_jk / C_kk above the diagonal
    groups = grid.groups()
    column_grids = [groups[k // grid.group_size if len(groups) > 1 else 0] for k in order.tolist()]

    original = weight.T[order].contiguous()  # (n, out): a column of the weight is a contiguous row
    target, error, codes = original.clone(), torch.empty_like(original), torch.empty_like(original)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        target[start:stop] += pull[:start, start:stop].T @ error[:start]
        for k in range(start, stop):
            code = column_grids[k].encode(target[k, :, None])
            codes[k] = code[:, 0]
            error[k] = original[k] - column_grids[k].decode(code)[:, 0]
            target[k + 1 : stop].addr_(pull[k, k + 1 : stop], error[k])
    result = torch.empty_like(codes)
    result[order] = codes
    return result.T.long()


def _check(weight: Tensor, stats: LayerStats | None, damping: float) -> None:
    if not damping >= 0:
        raise ValueError(f"damping must be a share of at least 0, not {damping!r}")
    if stats is None or stats.tokens == 0:
        raise ValueError("the layer saw no calibration input")
    if stats.gram.shape != (weight.shape[1],) * 2:
        raise ValueError(f"statistics of {len(stats.gram)} inputs do not fit a weight of shape {tuple(weight.shape)}")
    if not stats.gram.isfinite().all():
        raise ValueError("the calibration statistics hold NaN or infinity: look for it in the model's activations")
    if not stats.gram.any():
        raise ValueError("every calibration input of the layer was zero")


def _unit_factor(gram: Tensor, damping: float) -> Tensor:
    """C_jk / C_kk of the upper triangular C with C C^T = gram + damping; (n, n).

    torch factors into a lower triangle times its transpose; reversed in both directions that is an upper one.
    """
    identity = gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    steps = [damping] + [step for step in (0.01, 0.1, 1.0) if step > damping]
    for share, more in itertools.zip_longest(steps, steps[1:]):
        lower, failed = torch.linalg.cholesky_ex((gram + share * identity).flip(0, 1))
        if not failed:
            factor = lower.flip(0, 1)
            return factor / factor.diagonal()
        if more:
            warnings.warn(f"the Hessian is singular at damping {share:g}; using {more:g}", stacklevel=3)
    raise ValueError("the Hessian cannot be factored even at damping 1: are these the statistics of real inputs?")
