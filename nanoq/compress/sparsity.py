"""Pruning single weights: which ones become 0, and what the others do about it.

A *score* (magnitude, Wanda) says what each weight is worth, a *pattern* how the zeros may lie, and `mask` takes the
best within it. SparseGPT does more: it goes through the columns as GPTQ does, and the weights that stay make up for
those that went. With a grid they are rounded in the same walk.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.gptq_method import check_problem, factored, share_errors
from nanoq.quant.grid import Grid, check_weight
from nanoq.quant.layers import linear_layers

BLOCK = 128  # columns that SparseGPT chooses from at once


def magnitude(weight: Tensor, stats: LayerStats | None = None) -> Tensor:
    """|w|: (out, in) -> (out, in)."""
    return weight.abs()


def wanda(weight: Tensor, stats: LayerStats | None) -> Tensor:
    """|w_ij| times the norm of input j: (out, in) -> (out, in) (Sun et al. 2023, arXiv 2306.11695, equation 1)."""
    check_calibration(weight, stats)
    return weight.abs() * stats.gram.diagonal().sqrt()


def at_random(weight: Tensor, stats: LayerStats | None = None) -> Tensor:
    """The control: scores drawn with a fixed seed, (out, in) -> (out, in)."""
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight)


# A new score is one more function here, called with the weight (out, in) and the statistics of its inputs or None.
SCORES: dict[str, Callable[[Tensor, LayerStats | None], Tensor]] = {
    "magnitude": magnitude, "wanda": wanda, "random": at_random}


def mask(scores: Tensor, sparsity: float = 0.5, pattern: str = "row") -> Tensor:
    """Which weights stay: those with the highest scores, as many as the pattern says.

    Args:
        scores: (out, in).
        sparsity: share that goes, in [0, 1); for the patterns "row" and "matrix".
        pattern: "row" (the same number in each row), "matrix" (the least of the whole matrix), or "N:M" (N of each M
            neighbours stay; graphics cards multiply faster by 2:4).

    Returns:
        bool (out, in).

    Raises:
        ValueError: if the sparsity is out of range, or the pattern is none of these or does not fit.
    """
    check_pattern(sparsity, pattern)
    if pattern == "row":
        return _largest(scores, scores.shape[1] - round(sparsity * scores.shape[1]))
    if pattern == "matrix":
        flat = scores.reshape(1, -1)
        return _largest(flat, flat.shape[1] - round(sparsity * flat.shape[1])).view_as(scores)
    kept, of = n_of_m(pattern)
    if scores.shape[1] % of:
        raise ValueError(f"{scores.shape[1]} columns cannot be cut into groups of {of} for the pattern '{pattern}'")
    return _largest(scores.reshape(-1, of), kept).view_as(scores)


def check_pattern(sparsity: float, pattern: str) -> None:
    """Raise a ValueError for what `mask` does not know."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must lie in [0, 1), not {sparsity!r}")
    if pattern not in ("row", "matrix"):
        n_of_m(pattern)


def n_of_m(pattern: str) -> tuple[int, int]:
    """The two numbers of a pattern such as "2:4".

    Raises:
        ValueError: if it is not one.
    """
    kept, _, of = pattern.partition(":")
    if not (kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of)):
        raise ValueError(f"pattern must be 'row', 'matrix' or 'N:M' such as '2:4', not {pattern!r}")
    return int(kept), int(of)


def _largest(scores: Tensor, count: int) -> Tensor:
    """In each row the `count` largest, the first of equals: bool, in the shape of the scores."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :count], True)


def prune(
    weight: Tensor, stats: LayerStats | None = None, grid: Grid | None = None, *, method: str = "magnitude",
    sparsity: float = 0.5, pattern: str = "row",
) -> Tensor:
    """A weight (out, in) with zeros, by a method of `SCORES` or by "sparsegpt"; on a grid, if there is one.

    Raises:
        ValueError: if the weight holds NaN, there is no such method, or as `mask` and `sparsegpt` do.
    """
    check_weight(weight)
    check_method(method)
    if grid is not None:
        grid.check_fits(weight)
    if method == "sparsegpt":
        return sparsegpt(weight, stats, grid, sparsity=sparsity, pattern=pattern)
    weight = weight * mask(SCORES[method](weight, stats), sparsity, pattern)
    return weight if grid is None else grid.decode(grid.encode(weight))


def check_method(method: str) -> None:
    """Raise a ValueError for what `prune` does not know."""
    if method not in SCORES and method != "sparsegpt":
        raise ValueError(f"no method '{method}' to prune by: there are {', '.join([*SCORES, 'sparsegpt'])}")


def sparsegpt(
    weight: Tensor, stats: LayerStats | None, grid: Grid | None = None, *, sparsity: float = 0.5,
    pattern: str = "row", damping: float = 0.01, keep: Tensor | None = None,
) -> Tensor:
    """Prune column after column, the weights that stay making up for it (Frantar and Alistarh 2023, arXiv 2301.00774).

    It is the sweep of `nanoq.quant.gptq`: column k aims at w_k + sum over j < k of e_j C_jk / C_kk, e the errors.
    Which weights go is chosen for "N:M" group by group, for the other patterns within `BLOCK` columns, in each row or
    (as in the paper) in all of them together. When a group or block begins, its columns share the errors before it; to
    set a weight w of it to 0 then costs (w C_kk)**2.

    Args:
        weight: (out, in).
        stats: of the layer's inputs.
        grid: what the weights that stay are rounded to, in the same sweep; None leaves them as they are.
        sparsity: as in `mask`.
        pattern: as in `mask`.
        damping: share of the mean diagonal that is added to the diagonal of the Hessian.
        keep: bool (out, in), which weights stay, if that is settled already; sparsity and pattern do not count then.

    Returns:
        The pruned weight (out, in), in the type of the statistics, on the device of the weight.

    Raises:
        ValueError: as `mask` and `nanoq.quant.gptq` do.
    """
    check_problem(weight, stats, damping)
    if grid is not None:
        grid.check_fits(weight)
    mask(weight[:1], sparsity, pattern)  # says what is wrong with them before the work begins
    width = BLOCK if pattern in ("row", "matrix") else n_of_m(pattern)[1]
    if not stats.gram.diagonal().any():
        weight = weight.to(stats.gram) * (mask(weight.abs(), sparsity, pattern) if keep is None else keep)
        return weight if grid is None else grid.decode(grid.encode(weight))
    _, feedback, diagonal, _ = factored(stats, damping)
    device, weight = weight.device, weight.to(feedback)
    error, result = torch.zeros_like(weight), torch.empty_like(weight)
    for start in range(0, weight.shape[1], width):
        # which weights go
        cols = slice(start, start + width)
        taken_over = feedback[:start, cols].T @ error[:, :start].T
        shared = weight[:, cols] + share_errors(feedback[cols, cols], taken_over).T
        stay = mask((shared * diagonal[cols]).abs(), sparsity, pattern) if keep is None else keep[:, cols]
        # prune and round from left to right
        target = weight[:, cols] + taken_over.T
        for k in range(start, start + target.shape[1]):
            column = target[:, k - start] + error[:, start:k] @ feedback[start:k, k]
            if grid is not None:
                column = _rounded(column, grid, k)
            result[:, k] = column * stay[:, k - start]
            error[:, k] = weight[:, k] - result[:, k]
    return result.to(device)


def _rounded(column: Tensor, grid: Grid, k: int) -> Tensor:
    """Column k (out,) of a matrix, rounded to the nearest values of the matrix's grid."""
    group = k // grid.group_size if grid.scale.shape[1] > 1 else 0
    own = {name: getattr(grid, name)[:, group : group + 1].cpu() for name in ("scale", "zero_point", "threshold")
           if getattr(grid, name) is not None}
    grid = replace(grid, packed_scale=None, codebook=None if grid.codebook is None else grid.codebook.cpu(), **own)
    return grid.decode(grid.encode(column[:, None]))[:, 0]


@contextmanager
def kept_zeros(model: nn.Module) -> Iterator[nn.Module]:
    """While the block of code runs, every weight of the linear layers that is 0 now stays 0, however it is trained."""
    layers = linear_layers(model).values()
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _Zeros(layer.weight))
    try:
        yield model
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight")


class _Zeros(nn.Module):
    """Multiplies a weight by the mask of what was not 0 in it at first."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("mask", weight.detach() != 0)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its zeros, in the same shape."""
        return weight * self.mask
