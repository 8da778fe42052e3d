"""Grids for entropy-coded codes: all whole numbers, with steps as long as a wished rate allows.

Where a file takes as many bits for a code as it is rare, a grid needs no ends: a finer step costs bits, a wider range
costs nothing. With GPTQ's walk that is entropy-constrained scalar quantisation, seen through the Hessian. The steps
of the columns may be equal, or follow WaterSIC (arXiv 2603.04956): c / C_kk in column k, C the factor of `gptq`, so
that all columns add the same error, and the rate at high resolution is 0.255 bits above the bound for every Hessian.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nanoq.numbers.blocks import PackedScales, fp8_scales
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.entropy_coding import coded_bits
from nanoq.quant.gptq_method import check_problem, factored, gptq
from nanoq.quant.grid import Grid, check_weight, plain, storable
from nanoq.quant.rounding import nearest

SPACINGS = ("watersic", "equal")
BITS, LEVELS = 8, 255  # of the decoded codes: -127..127
RATES = (0.1, 6.0)  # with more, an even grid of 8 bits is as good
CLOSE, MOST_TRIALS = 0.003, 12  # bits per weight
# Inputs a thousand times as large as others want steps so fine that codes would end, and inputs that are nearly 0 steps
# so coarse that e4m3 could not hold both. A column's largest weight is at most `REACH` steps, which leaves room for the
# errors that it takes over, and no step is longer than `COARSEST` largest weights.
REACH, COARSEST = 110, 8


def entropy_coded_grid(
    weight: Tensor, bits: int, stats: LayerStats | None, *, rate: float, spacing: str = "watersic",
    damping: float = 0.01,
) -> Grid:
    """Whole numbers times a step for each column, or one for all, that take `rate` bits per weight once coded.

    The step is searched by rounding with `gptq`; the rate is that of its codes, without the steps (8 bits per column).
    Without statistics the steps are equal and the rate is that of nearest codes.

    Args:
        weight: (out, in).
        bits: 8, of the decoded codes.
        stats: of the layer's inputs.
        rate: bits per weight of the coded file, 0.1 to 6.
        spacing: "watersic" or "equal".
        damping: as in `gptq`, which has to be given the same.

    Raises:
        ValueError: as `gptq` does, or if an option is out of its range, or the weight has so few numbers that the
            rate is out of reach.
    """
    if bits != BITS:
        raise ValueError(f"entropy-coded codes are decoded to {BITS} bits, not {bits!r}: what they take is the rate")
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"the rate must lie in {RATES[0]:g}..{RATES[1]:g} bits per weight, not {rate!r}")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, not {spacing!r}")
    check_weight(weight)
    weight, known = plain(weight), stats is not None and bool(stats.gram.diagonal().any())
    if known:
        check_problem(weight, stats, damping)
    relative = None
    if known and spacing == "watersic":
        _, _, diagonal, _ = factored(stats, damping)
        relative = (diagonal.log().mean() - diagonal.log()).exp().to(weight)  # c / C_kk, their geometric mean 1

    def coded(step: float) -> tuple[Grid, float]:
        grid = _grid(weight, step, relative)
        codes = gptq(weight, grid, stats, damping=damping) if known else nearest(weight, grid)
        return grid, coded_bits(codes - (LEVELS - 1) // 2) / weight.numel()

    if not weight.any():
        return coded(1.0)[0]
    if coded_bits(torch.zeros(weight.shape, dtype=torch.int16)) > rate * weight.numel():
        raise ValueError(f"a weight of {len(weight)} x {weight.shape[1]} is too small for {rate:g} bits per weight: "
                         "even codes that are all 0 take more. Give it another grid by a rule of the recipe")
    spread = float(weight.std(correction=0)) or float(weight.abs().max())
    return _search(coded, rate, spread * math.sqrt(2 * math.pi * math.e) * 2**-rate)


def _search(coded: Callable[[float], tuple[Grid, float]], rate: float, step: float) -> Grid:
    """The grid whose rate is nearest a wished one: secant steps on the logarithm of the step, then bisection."""
    best, finer, coarser = None, None, None
    for _ in range(MOST_TRIALS):
        grid, found = coded(step)
        if best is None or abs(found - rate) < abs(best[1] - rate):
            best = grid, found
        if abs(found - rate) < CLOSE:
            break
        if found > rate:
            finer = step
        else:
            coarser = step
        step = math.sqrt(finer * coarser) if finer and coarser else step * 2 ** (found - rate)
    return best[0]


def _grid(weight: Tensor, step: float, relative: Tensor | None) -> Grid:
    """The grid of a step, times `relative` (in,) where the columns have their own."""
    if relative is None:
        scale = storable(weight.new_full((1, 1), step))
        return Grid(BITS, LEVELS, scale, weight.shape[1], coded=True)
    largest = weight.abs().amax(0)
    steps = (step * relative).clamp(max=max(step, COARSEST * float(largest.max()))).maximum(largest / REACH)
    packed: PackedScales = fp8_scales(steps[None], 1.0)
    return Grid(BITS, LEVELS, packed.decode().to(weight), 1, packed_scale=packed, coded=True)
