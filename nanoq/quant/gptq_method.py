"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) from one triangular factor and without an inverse.

The error that a rounded weight matrix Q adds to the layer's outputs is trace((W - Q) H (W - Q)^T), H the Hessian.
Factor H = C C^T with C upper triangular. Then the error is the squared norm of (W - Q) C, whose column k is

    (w_k - q_k) C_kk + sum over j < k of (w_j - q_j) C_jk,

and columns before k are rounded already. What makes it least is to round to nearest not w_k but

    w_k + sum over j < k of (w_j - q_j) C_jk / C_kk.

That is the whole algorithm. It gives the codes of the paper's algorithm 1, which updates the weights with rows of the
Cholesky factor of the inverse Hessian, and is Babai's nearest-plane algorithm on the lattice that C spans
(arXiv 2507.18553).

    algorithm 1                                 here
    H = 2 X X^T                                 `stats.gram`, X^T X of inputs X (tokens, in); the 2 cancels
    H + lambda I                                `stats.damped(damping)`
    Cholesky(H^-1)^T, upper triangular          C^-1, never made: H^-1 = C^-T C^-1
    its diagonal entry [H^-1]_kk                1 / C_kk
    W_:k, as updated so far                     `target`, the column k of it
    Q_:k                                        value of the codes in `codes`
    E_:k = (W_:k - Q_:k) / [H^-1]_kk            (target - value) C_kk, column k of `error` @ C
    W_:j -= E_:k [H^-1]_kj, for j > k           target_j += error_k C_kj / C_jj: `feedback`
    blocks of B columns, lazy updates           halves of halves, down to `LEAF` columns

`error` is W - Q with the W of before the sweep. QuIP's LDLQ (Chee et al. 2023, arXiv 2307.13304) has the same
`feedback` matrix. The algorithm as the paper prints it, line by line, is `classic_gptq` in tests/quant/references.py.

The sums are matrix products but for runs of `LEAF` columns, which a compiled loop goes through one by one. The first
call in a new installation compiles it, which takes a few seconds. How the time splits: the factor takes a tenth of it
in a layer with four times as many outputs as inputs, about a third in a square one, and two thirds in a layer with four
times as many inputs (benchmarks/gptq.py, one core); most of the rest is the matrix products. On a GPU, which factors
and walks where the weight is, the runs are a few tensor operations for each column.
"""

import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nanoq.compiled import compiled
from nanoq.numbers.blocks import nearest_code
from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import Grid, affine_grid, plain
from nanoq.quant.rounding import nearest

LEAF = 32  # columns that the compiled loop takes at once
ROWS = 64  # rows that it takes at once: LEAF * ROWS numbers stay in the fastest cache
TOKENS_PER_INPUT = 4  # fewer, and the damping decides more than the data


def gptq(
    weight: Tensor, grid: Grid, stats: LayerStats, *, damping: float = 0.01, act_order: bool = False, descent: int = 0,
) -> Tensor:
    """Round column after column, each to the nearest grid value once the errors before it are made up for.

    An input that was always zero in the calibration couples to no other, so its weights are simply rounded. A layer
    that saw only zeros is rounded to nearest as a whole, with a warning.

    Args:
        weight: (out, in).
        grid: of the weight; it stays fixed, also under `act_order`. Thresholds are left aside: nearest counts.
        stats: of the layer's inputs.
        damping: share of the mean diagonal that is added to the diagonal of the Hessian.
        act_order: whether to go from the column with the largest diagonal to that with the smallest.
        descent: rounds of coordinate descent afterwards, at most, which move one column at a time to its best values
            given all the others.

    Returns:
        int64 codes (out, in).

    Raises:
        ValueError: if the weight holds NaN, the grid or the statistics do not fit it, the statistics are empty, hold
            NaN or cannot be factored, or an option is negative.
    """
    check_problem(weight, stats, damping)
    grid.check_fits(weight)
    weight = weight.detach()
    if descent < 0:
        raise ValueError(f"descent must be a number of rounds, not {descent!r}")
    if not stats.gram.diagonal().any():
        warnings.warn("rounded to nearest, because every calibration input was zero", stacklevel=2)
        return nearest(weight, grid)
    order, feedback, _, used = factored(stats, damping, act_order, weight.device if weight.is_cuda else "cpu")
    sweep = (_ColumnSweep if feedback.is_cpu else _TensorSweep)(weight.to(feedback), grid, order)
    sweep.solve(feedback, sweep.weight.clone())
    if descent:
        hessian = stats.damped(used).to(feedback.device)[order[:, None], order]
        couplings = hessian / hessian.diagonal()  # H_jk / H_kk
        for _ in range(descent):
            before = sweep.codes.clone()
            sweep.descend(couplings)
            if torch.equal(sweep.codes, before):  # and so it would stay
                break
    return sweep.result().to(weight.device)


def dynamic_grid(
    weight: Tensor, bits: int, stats: LayerStats, *, group_size: int, damping: float = 0.01, symmetric: bool = False,
    search: str = "minmax",
) -> Grid:
    """The affine grid that GPTQ finds when it fits each group only as it comes to it.

    By then the weights of the group have taken over errors of the columns before it, and the grid covers what they are
    now. `gptq` on this grid is GPTQ with dynamic groups (the official code's default, but right where a group is
    smaller than a block, too).

    Args:
        weight: (out, in).
        bits: 2 to 8.
        stats: of the layer's inputs.
        group_size: columns in a group.
        damping: as in `gptq`, which has to be given the same.
        symmetric: as in `affine_grid`.
        search: as in `affine_grid`.

    Raises:
        ValueError: as `gptq` and `affine_grid` do.
    """
    options = {"granularity": "group", "group_size": group_size, "symmetric": symmetric, "search": search}
    grid = affine_grid(weight, bits, **options)
    weight = plain(weight)
    check_problem(weight, stats, damping)
    if not stats.gram.diagonal().any():
        return grid
    _, feedback, _, _ = factored(stats, damping)
    original = weight.cpu().T.to(feedback.dtype)  # (in, out)
    error, grids = torch.zeros_like(original), []
    for start in range(0, len(original), group_size):
        # what the columns of this group have become, and the grid that covers them
        cols = slice(start, start + group_size)
        taken_over = feedback[:start, cols].T @ error[:start]
        shared = share_errors(feedback[cols, cols], taken_over)
        grids.append(affine_grid((original[cols] + shared).T, bits, symmetric=symmetric, search=search))
        # round them, for the errors that the next groups take over
        sweep = _ColumnSweep(original[cols].T, grids[-1], torch.arange(len(shared)))
        sweep.solve(feedback[cols, cols], original[cols] + taken_over)
        error[cols] = sweep.error
    scale = torch.cat([part.scale for part in grids], dim=1).to(weight)
    zero_point = None if symmetric else torch.cat([part.zero_point for part in grids], dim=1).to(weight)
    return replace(grid, scale=scale, zero_point=zero_point)


def share_errors(feedback: Tensor, taken_over: Tensor) -> Tensor:
    """What free columns would move by to make up for the errors before them, all columns (columns, out).

    A column that is free takes no error of its own: each column of (W - Q) C is 0.

    Args:
        feedback: C_jk / C_kk of these columns, (columns, columns).
        taken_over: what the errors before them add to the aim of each, (columns, out).
    """
    return torch.linalg.solve_triangular(feedback.T, taken_over, upper=False, unitriangular=True)


def check_problem(weight: Tensor, stats: LayerStats | None, damping: float) -> None:
    """Raise a ValueError unless a sweep can begin with these, and warn of too few tokens."""
    if not damping >= 0:
        raise ValueError(f"damping must be a share of at least 0, not {damping!r}")
    check_calibration(weight, stats)
    enough = TOKENS_PER_INPUT * weight.shape[1]
    if stats.tokens < enough:
        warnings.warn(f"{stats.tokens} calibration tokens are few for {weight.shape[1]} inputs; take {enough} or more",
                      stacklevel=3)


def factored(stats: LayerStats, damping: float, act_order: bool = False, device: torch.device | str = "cpu"
             ) -> tuple[Tensor, Tensor, Tensor, float]:
    """The order of the columns (in,); C_jk / C_kk (in, in) of the factor C in that order, and C_kk (in,); the damping.

    The damping is what it took to factor. All are kept for the other layers that read the same input.
    """
    key = damping, act_order, str(device)
    if key not in stats.factored or stats.factored[key][0] is not stats.gram:
        order = stats.gram.diagonal().argsort(descending=True, stable=True).cpu() if act_order else None
        factor = _unit_factor(stats, order, damping, device)
        stats.factored[key] = stats.gram, torch.arange(len(stats.gram)) if order is None else order, *factor
    order, feedback, diagonal, used = stats.factored[key][1:]
    if used != damping:
        warnings.warn(f"the Hessian is singular at damping {damping:g}; using {used:g}", stacklevel=3)
    return order, feedback, diagonal, used


def _unit_factor(stats: LayerStats, order: Tensor | None, damping: float, device: torch.device | str
                 ) -> tuple[Tensor, Tensor, float]:
    """C_jk / C_kk (in, in) and C_kk (in,) of the upper triangular C with C C^T = H, and the damping that it took.

    torch factors into a lower triangle times its transpose; reversed in both directions that is an upper one.
    """
    for share in (damping, *(step for step in (0.01, 0.1, 1.0) if step > damping)):
        hessian = stats.damped(share).to(device)
        if order is not None:
            hessian = hessian[order[:, None], order]
        hessian = hessian.flip(0, 1)  # under the same name, as each copy may take a GB
        lower, failed = torch.linalg.cholesky_ex(hessian)
        del hessian
        if not failed:
            factor = lower.flip(0, 1)
            diagonal = factor.diagonal().clone()
            return factor.div_(diagonal), diagonal, share
    raise ValueError("the Hessian cannot be factored even at damping 1: are these the statistics of real inputs?")


class _ColumnSweep:
    """A weight matrix on its way to codes, in the order of the sweep; transposed, so that a column is contiguous.

    Attributes:
        weight: (in, out).
        error: (in, out), the weight minus its rounded value; 0 for columns that are not rounded yet.
        codes: (in, out).
    """

    def __init__(self, weight: Tensor, grid: Grid, order: Tensor):
        self.order, self.weight = order, weight.T[order].contiguous()
        self.error, self.codes = torch.zeros_like(self.weight), torch.empty_like(self.weight)
        groups, rows = grid.scale.shape[1], self.weight.shape[1]
        self.group = (order // grid.group_size if groups > 1 else torch.zeros_like(order)).numpy()
        self.scale, self.zero = (self._array(t.T.expand(groups, rows)) for t in (grid.scale, grid.zero_codes))
        self.codebook = self._array(torch.empty(0) if grid.codebook is None else grid.codebook)
        self.ends = self._array(torch.tensor([0, grid.levels - 1]))

    def solve(self, feedback: Tensor, target: Tensor, start: int = 0) -> None:
        """Round the columns from `start` on to `target` (columns, out), which is used up.

        The second half comes after the first, whose errors it takes over in one matrix product.
        """
        stop = start + len(target)
        if len(target) <= LEAF:
            self._round(feedback, target, start)
            return
        half = len(target) // 2
        middle = start + half
        self.solve(feedback, target[:half], start)
        target[half:].addmm_(feedback[start:middle, middle:stop].T, self.error[start:middle])
        self.solve(feedback, target[half:], middle)

    def descend(self, couplings: Tensor) -> None:
        """Move every column once to its best values given all the others; the error cannot grow."""
        for start in range(0, len(self.weight), LEAF):
            cols = slice(start, start + LEAF)
            target = self.weight[cols] + couplings[:, cols].T @ self.error - self.error[cols]
            self._round(couplings, target, start)

    def result(self) -> Tensor:
        """The codes as int64 (out, in), in the order of the weight."""
        codes = torch.empty_like(self.codes)
        codes[self.order] = self.codes
        return codes.T.long()

    def _round(self, feedback: Tensor, target: Tensor, start: int) -> None:
        cols = slice(start, start + len(target))
        _round_columns(self.weight[cols].numpy(), target.numpy(), feedback[cols, cols].contiguous().numpy(),
                       self.group[cols], self.scale, self.zero, self.codebook, self.ends, self.error[cols].numpy(),
                       self.codes[cols].numpy())

    def _array(self, values: Tensor) -> np.ndarray:
        return values.to(self.weight).contiguous().numpy()


class _TensorSweep(_ColumnSweep):
    """The same sweep by tensor code, which a GPU runs where the weight is."""

    def _round(self, feedback: Tensor, target: Tensor, start: int) -> None:
        for k, goal in enumerate(target, start):
            scale, zero = self.scale[self.group[k]], self.zero[self.group[k]]
            if len(self.codebook):
                code = nearest_code(goal / scale, self.codebook)
                value = self.codebook[code]
            else:
                code = (goal / scale).round_().add_(zero).clamp_(*self.ends)
                value = code - zero
            error = self.weight[k] - value * scale
            later = slice(k + 1, start + len(target))
            target[k + 1 - start :].addr_(feedback[k, later], error - self.error[k])
            self.error[k], self.codes[k] = error, code

    def _array(self, values: Tensor) -> Tensor:
        return values.to(self.weight).contiguous()


@compiled
def _round_columns(weight, target, feedback, group, scale, zero, codebook, ends, error, codes):
    """Round columns one by one and let every later one make up for what has changed in the error; all (columns, out).

    It does what `Grid.encode` and `Grid.decode` do, but for thresholds.
    """
    columns, rows = weight.shape
    middles = (codebook[1:] + codebook[:-1]) / 2
    zero_index = np.searchsorted(codebook, 0)
    buffer = np.empty((columns, ROWS), weight.dtype)
    change = np.empty(ROWS, weight.dtype)
    for first in range(0, rows, ROWS):
        count = min(ROWS, rows - first)
        buffer[:, :count] = target[:, first : first + count]
        for k in range(columns):
            scales, zeros = scale[group[k], first : first + count], zero[group[k], first : first + count]
            # round column k to the nearest value of its grid
            for r in range(count):
                unit = buffer[k, r] / scales[r]
                if len(codebook):
                    code = np.searchsorted(middles, unit)
                    if (code - zero_index) % 2:  # of two equally near values the one with the even code
                        code = np.searchsorted(middles, unit, side="right")
                    value = codebook[code]
                    codes[k, first + r] = code
                else:
                    code = min(max(np.rint(unit) + zeros[r], ends[0]), ends[1])
                    value = code - zeros[r]
                    codes[k, first + r] = code
                new = weight[k, first + r] - value * scales[r]
                change[r] = new - error[k, first + r]
                error[k, first + r] = new
            # let the columns after it make up for what has changed
            for later in range(k + 1, columns):
                factor = feedback[k, later]
                for r in range(count):
                    buffer[later, r] += factor * change[r]
