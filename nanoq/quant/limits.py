"""What quantisers can do at best for a Gaussian source: mean squared errors of numbers from N(0, 1), computed.

Every quantiser pays something for what it leaves aside. In order, at the same bits per number: the evenly spaced
levels, the best levels (Lloyd 1957, Max 1960), levels whose codes are entropy-coded, whole vectors at once, and the
limit that no code can pass (Shannon 1959), D(R) = 2^(-2R). The distance from it is given in bits: what a code takes
more than 1/2 log2(1 / D), which is the rate of the limit at its error.

For an endless lattice whose codes are entropy-coded, that is 1/2 log2(2 pi e G) at high rates, G the mean squared
distance from the nearest point, for each dimension and unit of volume (Conway and Sloane, Sphere Packings, Lattices and
Groups, chapter 21): `space_filling`. `nanoq.quant.bound` has the same limit for the weights of a layer.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from nanoq.quant.e8p import SCALE, SIZE, e8p_codes, e8p_points
from nanoq.quant.trellis import SCALES, STATE_BITS, one_mad, trellis_codes, trellis_values

# G: exact for the cube, for E8 (Conway and Sloane 1982) and for the sphere in endless dimensions, which no lattice
# beats; for the Leech lattice the number that they print.
SECOND_MOMENTS = {"cube": float(Fraction(1, 12)), "E8": float(Fraction(929, 12960)), "Leech": 0.065771,
                  "sphere": 1 / (2 * math.pi * math.e)}
REACH = 9.0  # deviations: what lies beyond has a probability of 2e-19


@dataclass(frozen=True)
class Quantizer:
    """What a quantiser does to N(0, 1).

    Attributes:
        name: for a table.
        rate: bits per number.
        distortion: mean squared error.
    """

    name: str
    rate: float
    distortion: float

    @property
    def gap(self) -> float:
        """Bits above the limit."""
        return self.rate - gaussian_rate(self.distortion)


def gaussian_distortion(rate: float) -> float:
    """The least mean squared error of N(0, 1) at `rate` bits per number: 2^(-2 rate)."""
    return 2.0 ** (-2 * rate)


def gaussian_rate(distortion: float) -> float:
    """The fewest bits per number of N(0, 1) at a mean squared error: the inverse."""
    return max(0.0, -math.log2(distortion) / 2)


def lloyd_max(levels: int, rounds: int = 10_000) -> tuple[Tensor, float, float]:
    """The best levels for N(0, 1), their mean squared error and the entropy of their codes in bits.

    Lloyd's iteration: thresholds halfway between levels, levels in the means of their cells. For a Gaussian it
    converges to the one best quantiser (Fleischer 1964).

    Args:
        levels: at least 1.
        rounds: at most.

    Returns:
        float64 levels (levels,), error, entropy.
    """
    values = torch.special.ndtri((torch.arange(levels, dtype=torch.float64) + 0.5) / levels)
    for _ in range(rounds):
        before, values = values, _cells((values[1:] + values[:-1]) / 2)[1]
        if (before - values).abs().max() < 1e-13:
            break
    mass, mean = _cells((values[1:] + values[:-1]) / 2)
    return values, _error(mass, mean, values), _entropy(mass)


def even_grid(levels: int) -> tuple[float, float]:
    """The step of the best evenly spaced levels for N(0, 1), symmetric about 0, and their mean squared error."""
    places = torch.arange(levels, dtype=torch.float64) - (levels - 1) / 2

    def error(step: float) -> float:
        values = step * places
        return _error(*_cells((values[1:] + values[:-1]) / 2), values)
    step = _minimum(error, 0.0, 8 / levels + 0.5)
    return step, error(step)


def entropy_coded_scalar(rate: float) -> Quantizer:
    """Even steps without end, a level in the mean of each cell, and ideal entropy coding, at `rate` bits in 0.01..8.

    The cells lie about all multiples of the step.

    Raises:
        ValueError: if the rate is another.
    """
    if not 0.01 <= rate <= 8:
        raise ValueError(f"the rate must lie in 0.01..8 bits, not {rate!r}")
    fine, coarse = 2.0**-9, REACH
    for _ in range(100):
        step = (fine + coarse) / 2
        mass, mean = _endless(step)
        fine, coarse = (step, coarse) if _entropy(mass) > rate else (fine, step)
    return Quantizer("entropy-coded scalar", rate, _error(mass, mean, mean))


def space_filling(second_moment: float) -> float:
    """Bits above the limit, at high rates, of an entropy-coded lattice: 1/2 log2(2 pi e G)."""
    return math.log2(2 * math.pi * math.e * second_moment) / 2


def measured_trellis(bits: int, seed: int = 0, sequences: int = 40, length: int = 256) -> Quantizer:
    """The trellis of `nanoq.quant.trellis` on draws of N(0, 1), rings of `length`."""
    source = torch.randn(sequences, length, generator=torch.Generator().manual_seed(seed))
    table = one_mad(STATE_BITS) * SCALES[bits]
    values = trellis_values(trellis_codes(source, table, bits), table, bits)
    return Quantizer(f"trellis, {2**STATE_BITS} states", bits, float((values - source).square().mean()))


def measured_e8p(seed: int = 0, vectors: int = 10_000) -> Quantizer:
    """E8P on draws of N(0, 1)."""
    source = torch.randn(vectors, SIZE, generator=torch.Generator().manual_seed(seed))
    return Quantizer("E8P", 2, float((e8p_points(e8p_codes(source * SCALE)) / SCALE - source).square().mean()))


def quantizer_limits(bits: int, seed: int = 0) -> list[Quantizer]:
    """All of them at 1 to 4 bits per number, from the worst to the limit; lattices as at high rates.

    Raises:
        ValueError: if the bits are others.
    """
    if bits not in SCALES:
        raise ValueError(f"bits must be in 1..4, not {bits!r}")
    known = {"evenly spaced": even_grid(2**bits)[1], "Lloyd-Max": lloyd_max(2**bits)[1],
             "limit": gaussian_distortion(bits)}
    known |= {f"{name}, entropy-coded, at high rates": gaussian_distortion(bits - space_filling(SECOND_MOMENTS[name]))
              for name in ("E8", "Leech")}
    found = [Quantizer(name, bits, distortion) for name, distortion in known.items()]
    found += [entropy_coded_scalar(bits), measured_trellis(bits, seed)]
    found += [measured_e8p(seed)] if bits == 2 else []
    return sorted(found, key=lambda quantizer: -quantizer.distortion)


# ---- cells of N(0, 1) ----


def _cells(thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """The probability and the mean of each cell between sorted thresholds (n,): float64 (n + 1,) each."""
    end = thresholds.new_full((1,), math.inf)
    low, high = torch.cat([-end, thresholds]), torch.cat([thresholds, end])
    mirrored = low > 0  # in the upper half probabilities are differences of those in the lower: nothing cancels
    mass = torch.where(mirrored, _below(-low) - _below(-high), _below(high) - _below(low))
    return mass, (_density(low) - _density(high)) / mass


def _endless(step: float) -> tuple[Tensor, Tensor]:
    """The same of cells about all multiples of a step that N(0, 1) reaches."""
    count = math.ceil(REACH / step)
    return _cells(step * (torch.arange(-count, count, dtype=torch.float64) + 0.5))


def _below(x: Tensor) -> Tensor:
    return torch.special.erfc(-x / math.sqrt(2)) / 2


def _density(x: Tensor) -> Tensor:
    return (-x * x / 2).exp() / math.sqrt(2 * math.pi)


def _error(mass: Tensor, mean: Tensor, values: Tensor) -> float:
    """E (x - value)^2 = 1 - 2 E(x value) + E(value^2)."""
    return float(1 - 2 * (mass * mean * values).sum() + (mass * values * values).sum())


def _entropy(mass: Tensor) -> float:
    return float(-torch.xlogy(mass, mass).sum() / math.log(2))


def _minimum(function, low: float, high: float) -> float:
    """Where a function with one minimum between two points has it: golden sections."""
    share = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        first, second = high - share * (high - low), low + share * (high - low)
        low, high = (low, second) if function(first) < function(second) else (first, high)
    return (low + high) / 2
