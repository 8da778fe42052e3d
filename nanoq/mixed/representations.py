"""How alike two layers are: canonical correlations and CKA of what they put out on the same samples.

Features are float tensors (n, p): a row for each sample, a column for each feature. Every measure is 1 for features and
themselves, and ignores where the origin lies. All but CKA are well above 0 for features that have nothing to do with
each other unless there are many samples: `chance_level` says by how much.
"""

import math
import warnings
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

# Float32 features of rank r have singular values of about 1e-7 of the largest beyond r: the error of rounding them.
TOLERANCE = 1e-6
ENOUGH = 10  # samples for each direction: independent features then have canonical correlations of about 0.3


class Features:
    """Features (n, p), centred and divided by their largest entry, and factored once for any number of comparisons.

    Attributes:
        centred: float64 (n, p); constant columns are exactly 0.

    Raises:
        ValueError: if this is not a matrix of finite numbers, has fewer than 4 rows, or all rows are the same.
    """

    def __init__(self, x: Tensor):
        if x.dim() != 2 or x.shape[0] < 4 or not x.shape[1]:
            raise ValueError(f"features (n, p) of at least 4 samples are needed, not of shape {tuple(x.shape)}")
        if not x.isfinite().all():
            raise ValueError("the features hold NaN or infinity")
        if (x == x[0]).all():
            raise ValueError("the features are the same for every sample: nothing varies that could be compared")
        x = x.detach().double()
        x = x / x.abs().max()  # squares of squares stay within float64
        x = x - x[0]  # so that rounding the mean leaves nothing of a constant column
        self.centred = x - x.mean(0)

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """The thin singular value decomposition U (n, r), s (r,), V^T (r, p) of the centred features."""
        return torch.linalg.svd(self.centred, full_matrices=False)

    def rank(self, tolerance: float = TOLERANCE, energy: float | None = None) -> int:
        """How many singular directions count: those above tolerance * s_max, or as few as hold that share of sum s^2.

        Raises:
            ValueError: if the tolerance does not lie in 0..1, or the energy is not above 0 and at most 1.
        """
        if not 0 <= tolerance < 1 or (energy is not None and not 0 < energy <= 1):
            raise ValueError(f"tolerance must lie in 0..1 and energy in 0..1, not {tolerance!r} and {energy!r}")
        s = self.svd[1]
        rank = int((s > tolerance * s[0]).sum())
        if energy is None:
            return rank
        held = s[:rank].square().cumsum(0)
        return min(rank, 1 + int((held < energy * held[-1]).sum()))


def canonical_correlations(
    x: Tensor | Features, y: Tensor | Features, tolerance: float = TOLERANCE, energy: float | None = None
) -> Tensor:
    """Canonical correlations (Hotelling 1936) of x (n, p) and y (n, q), descending: float64 (min(rank x, rank y),).

    They are the cosines of the angles between the spans of the centred columns, svd(U_x^T U_y), where U are the left
    singular vectors (Björck and Golub 1973): no covariance is inverted. Invertible linear maps of x or y change
    nothing, as long as no direction gets lost in the tolerance.

    Args:
        x: (n, p).
        y: (n, q).
        tolerance: directions with singular values up to this share of the largest are dropped, as rounding error.
        energy: keep only as many directions of each as hold this share of its variance; SVCCA has 0.99 (Raghu et al.
            2017, arXiv 1706.05806).

    Raises:
        ValueError: as `Features` does, if the numbers of samples differ, or an argument is out of its range.
    """
    return _canonical(*_pair(x, y), tolerance, energy, stacklevel=3)[1]


def _canonical(
    x: Features, y: Features, tolerance: float = TOLERANCE, energy: float | None = None, stacklevel: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """The svd of U_x^T U_y: (rank x, k), (k,), (k, rank y), warning if the samples are too few to mean much."""
    p, q, n = x.rank(tolerance, energy), y.rank(tolerance, energy), len(x.centred)
    needed = ENOUGH * max(p, q)
    if n < needed:
        level = math.sqrt(expected_squared_correlation(n, p, q))
        warnings.warn(
            f"{n} samples are few for {max(p, q)} directions: independent features have canonical correlations of "
            f"{level:.2f} (root mean square). Take {needed} samples, or compare with chance_level",
            stacklevel=stacklevel,  # the caller of `similarity`
        )
    left, rho, right = torch.linalg.svd(x.svd[0][:, :p].T @ y.svd[0][:, :q], full_matrices=False)
    return left, rho.clamp(0, 1), right


def mean_cca(x: Features, y: Features) -> float:
    """The mean of the min(rank x, rank y) canonical correlations (Raghu et al. 2017, arXiv 1706.05806).

    Directions that were dropped do not count, not even as 0: a constant or repeated column changes nothing, and
    features of low rank have 1 with themselves. For full ranks it is the sum over min(p, q).
    """
    return float(_canonical(x, y)[1].mean())


def first_cca(x: Features, y: Features) -> float:
    """The largest canonical correlation: soon 1 for any two layers, and for independent ones with few samples."""
    return float(_canonical(x, y)[1][0])


def svcca(x: Features, y: Features) -> float:
    """The mean canonical correlation of the directions that hold 99 % of each variance (Raghu et al. 2017)."""
    return float(_canonical(x, y, energy=0.99)[1].mean())


def pwcca(x: Features, y: Features) -> float:
    """Canonical correlations weighted by how much of the features they carry (Morcos et al. 2018, arXiv 1806.05759).

    sum_i a_i rho_i / sum_i a_i with a_i = sum_j |<h_i, x_j>|, where h_i are the canonical variates and x_j the columns
    of the features with the lower rank. For equal ranks those are the first, so that the order matters.
    """
    if y.rank() < x.rank():
        x, y = y, x
    left, rho, _ = _canonical(x, y)
    _, s, columns = x.svd
    rank = x.rank()
    weight = (left.T @ (s[:rank, None] * columns[:rank])).abs().sum(1)  # h_i = U left_i, and X = U s V^T
    return float((weight * rho).sum() / weight.sum())


def cka(x: Features, y: Features) -> float:
    """Linear centred kernel alignment, debiased: 0 in the mean for independent features, and at times below.

    HSIC_1(x, y) / sqrt(HSIC_1(x, x) HSIC_1(y, y)) (Kornblith et al. 2019, arXiv 1905.00414; debiased as in Nguyen et
    al. 2020, arXiv 2010.15327). Rotations and a factor change nothing, other linear maps do; n may be
    below p.

    Raises:
        ValueError: if HSIC_1 of one with itself is 0: no two samples have anything in common.
    """
    own = []
    for side in (x, y):
        own.append(_hsic(side.centred, side.centred))
        if own[-1] <= 1e-12 * float((side.centred.T @ side.centred).square().sum()):
            raise ValueError("debiased CKA is not defined where no two samples have anything in common")
    return _hsic(x.centred, y.centred) / math.sqrt(own[0] * own[1])


def _hsic(x: Tensor, y: Tensor) -> float:
    """The unbiased HSIC_1 of Song et al. (2012, JMLR 13) for linear kernels of centred x, y, times n (n-3).

    With K = x x^T and L = y y^T without their diagonals a and b it is tr(K L) + (1'K1)(1'L1) / ((n-1)(n-2))
    - 2/(n-2) 1'K L 1. As the columns of x and y sum to 0, K 1 = -a and tr(K L) = ||x^T y||^2 - a'b: no n x n matrix.
    """
    n = len(x)
    a, b = x.square().sum(1), y.square().sum(1)
    return float((x.T @ y).square().sum() - n / (n - 2) * (a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2)))


MEASURES = {"mean": mean_cca, "first": first_cca, "pwcca": pwcca, "svcca": svcca, "cka": cka}


def similarity(x: Tensor | Features, y: Tensor | Features, measure: str = "mean") -> float:
    """How alike features x (n, p) and y (n, q) of the same samples are, by one of `MEASURES`.

    To compare many layers, pass `Features`: each is then factored once. All measures but "cka" warn of fewer than 10
    samples for each direction.

    Raises:
        ValueError: as `Features` does, if the numbers of samples differ, or there is no such measure.
    """
    _check_measure(measure)
    return MEASURES[measure](*_pair(x, y))


class Chance(NamedTuple):
    """What a measure gives for independent features: the mean, and what 95 % of the draws stay below."""

    mean: float
    upper: float


def chance_level(n: int, p: int, q: int, measure: str = "mean", draws: int = 100, seed: int = 0) -> Chance:
    """Simulate a measure on independent Gaussian features (n, p) and (n, q).

    A similarity says nothing unless it is above this. Samples that depend on each other, as the tokens of one text do,
    count for less than their number: the true level is then higher.

    Raises:
        ValueError: as `similarity` does, or if there is not a single draw.
    """
    _check_measure(measure)
    if draws < 1:
        raise ValueError(f"at least one draw is needed, not {draws!r}")
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(draws, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few samples, whose effect this measures
        for draw in range(draws):
            x, y = (torch.randn(n, width, generator=generator, dtype=torch.float64) for width in (p, q))
            values[draw] = similarity(x, y, measure)
    return Chance(float(values.mean()), float(values.quantile(0.95)))


def expected_squared_correlation(n: int, p: int, q: int) -> float:
    """The mean squared canonical correlation of independent Gaussian features (n, p) and (n, q): max(p, q) / (n - 1).

    A p-dimensional space and a random q-dimensional one among n - 1 dimensions, one being lost to the mean, have
    E ||Q_x^T Q_y||^2 = p q / (n - 1), spread over min(p, q) correlations. Never above 1: centred features have n - 1
    directions at most.

    Raises:
        ValueError: if there are fewer than 4 samples or no features.
    """
    _check_counts(n, p, q)
    p, q = min(p, n - 1), min(q, n - 1)
    return max(p, q) / (n - 1)


def wachter_edge(n: int, p: int, q: int) -> float:
    """The largest canonical correlation of independent Gaussian features (n, p) and (n, q), for large n, p and q.

    sqrt(g (1-h)) + sqrt(h (1-g)) with g = p / (n-1) and h = q / (n-1) (Wachter 1980, Annals of Statistics 8), which is
    2 sqrt(g (1-g)) for p = q; 1 from p + q = n - 1 on, where the two spans have to meet.

    Raises:
        ValueError: if there are fewer than 4 samples or no features.
    """
    _check_counts(n, p, q)
    if p + q >= n - 1:
        return 1.0
    g, h = p / (n - 1), q / (n - 1)
    return math.sqrt(g * (1 - h)) + math.sqrt(h * (1 - g))


def _pair(x: Tensor | Features, y: Tensor | Features) -> tuple[Features, Features]:
    x, y = (side if isinstance(side, Features) else Features(side) for side in (x, y))
    if len(x.centred) != len(y.centred):
        raise ValueError(f"the features must be of the same samples, not of {len(x.centred)} and {len(y.centred)}")
    return x, y


def _check_counts(n: int, p: int, q: int) -> None:
    if n < 4 or p < 1 or q < 1:
        raise ValueError(f"at least 4 samples and one feature of each are needed, not {n}, {p} and {q}")


def _check_measure(measure: str) -> None:
    if measure not in MEASURES:
        raise ValueError(f"no measure '{measure}': there are {', '.join(MEASURES)}")
