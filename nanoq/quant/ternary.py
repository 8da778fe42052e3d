"""Ternary grids: each weight is -a, 0 or a.

Two numbers make a ternary quantiser, the threshold t up to which a weight becomes 0, and the level a of the others.
What the operators differ in is what they ask of the two (Yvinec et al. 2023, arXiv 2306.17442, for the first three):

    naive    a = max|w|, t = a/2      the level covers the weights; zero's cell is twice as wide as the other two
    tquant   a = 2/3 max|w|, t = a/2  three cells of equal width: the least maximum error
    mquant   a = 2t, t such that a third of the weights lies in each cell: the most entropy
    twn      t = 0.7 mean|w|, a = mean of the |w| > t (Li et al. 2016, arXiv 1605.04711)
    absmean  a = mean|w|, t = a/2     (BitNet b1.58, Ma et al. 2024, arXiv 2402.17764)
    lloyd    the least mean squared error that any a and t give these weights (Lloyd 1982)
    l1       the least mean absolute error

For a given level the least error is at t = a/2, nearest; for a given threshold the least squared error is at the mean
of the |w| > t, which `rescale` takes for the level.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nanoq.quant.grid import Grid, split_groups, storable

# A third of a normal distribution lies within 0.4307 standard deviations of its mean.
GAUSSIAN_THIRD = math.sqrt(2) * float(torch.erfinv(torch.tensor(1 / 3, dtype=torch.float64)))
CODE_BITS = 2  # what a code of three levels takes as a whole number of bits; in a file five of them share a byte


def _naive(size: Tensor) -> tuple[Tensor, Tensor]:
    level = size.amax(1, keepdim=True)
    return level / 2, level


def _tquant(size: Tensor) -> tuple[Tensor, Tensor]:
    third = size.amax(1, keepdim=True) / 3
    return third, 2 * third


def _mquant(size: Tensor) -> tuple[Tensor, Tensor]:
    threshold = GAUSSIAN_THIRD * size.square().mean(1, keepdim=True).sqrt()
    return threshold, 2 * threshold


def _mquant_empirical(size: Tensor) -> tuple[Tensor, Tensor]:
    threshold = size.kthvalue(max(1, round(size.shape[1] / 3)), dim=1, keepdim=True).values
    return threshold, 2 * threshold


def _twn(size: Tensor) -> tuple[Tensor, Tensor]:
    threshold = 0.7 * size.mean(1, keepdim=True)
    return threshold, mean_above(size, threshold)


def _absmean(size: Tensor) -> tuple[Tensor, Tensor]:
    level = size.mean(1, keepdim=True)
    return level / 2, level


def _lloyd(size: Tensor) -> tuple[Tensor, Tensor]:
    """The best split of the sorted sizes: with the k largest at their mean, the squared error falls by sum**2 / k."""
    total = size.sort(dim=1, descending=True).values.cumsum(1)
    count = torch.arange(1, size.shape[1] + 1, device=size.device)
    best = (total.square() / count).argmax(1, keepdim=True)
    level = total.gather(1, best) / (best + 1)
    return level / 2, level


def _l1(size: Tensor) -> tuple[Tensor, Tensor]:
    """The same with the k largest at their median, around which they lie in two halves."""
    largest = size.sort(dim=1, descending=True).values
    total = torch.nn.functional.pad(largest.cumsum(1), (1, 0))  # sum of the k largest, for k = 0, 1, ...
    k = torch.arange(1, size.shape[1] + 1, device=size.device)
    upper, lower = k // 2, k - k // 2
    spread = total[:, upper] - (total[:, k] - total[:, lower])  # sum of |w - median| over the k largest
    best = (spread - total[:, k]).argmin(1, keepdim=True)
    level = largest.gather(1, best // 2)
    return level / 2, level


# Each maps sizes |w| (rows, columns) to thresholds and levels (rows, 1).
OPERATORS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "naive": _naive, "tquant": _tquant, "mquant": _mquant, "mquant-empirical": _mquant_empirical, "twn": _twn,
    "absmean": _absmean, "lloyd": _lloyd, "l1": _l1,
}


def ternary_grid(
    weight: Tensor, bits: int = CODE_BITS, *, operator: str = "mquant", granularity: str = "channel",
    group_size: int | None = None, rescale: bool = False,
) -> Grid:
    """The values -a, 0, a of each row, group or the whole of a weight matrix, as an operator chooses them.

    Args:
        weight: (out, in), finite.
        bits: 2, the whole bits of a code; recipes name the bits of every layer. A file takes 1.6 bits a weight.
        operator: a name in `OPERATORS`. "mquant" takes the thirds of a normal distribution with the weights' root mean
            square, "mquant-empirical" those of the weights themselves.
        granularity: "tensor", "channel" (levels for each row) or "group" (for each `group_size` columns of a row).
        group_size: columns in a group; for granularity "group" only.
        rescale: whether the level becomes the mean of the |w| above the operator's threshold.

    Raises:
        ValueError: if an argument is out of its range or the weight holds NaN or infinity.
    """
    if bits != CODE_BITS:
        raise ValueError(f"a ternary code has {CODE_BITS} bits, not {bits!r}")
    if operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, not {operator!r}")
    parts, group_size = split_groups(weight, granularity, group_size)
    sizes = [part.abs() for part in parts]
    pairs = [OPERATORS[operator](size) for size in sizes]
    if rescale:
        pairs = [(threshold, mean_above(size, threshold)) for size, (threshold, _) in zip(sizes, pairs, strict=True)]
    threshold, level = (torch.cat(values, dim=1) for values in zip(*pairs, strict=True))
    level = torch.where(threshold.isfinite(), level, threshold)  # above which there is nothing to average
    scale = storable(torch.where(level <= 0, 1.0, level))
    nearest = torch.allclose(threshold, level / 2, atol=0)
    return Grid(CODE_BITS, 3, scale, group_size, threshold=None if nearest else threshold)


def mean_above(size: Tensor, threshold: Tensor) -> Tensor:
    """The mean (rows, 1) of the sizes (rows, columns) above a threshold (rows, 1); 0 where none is."""
    above = size > threshold
    return (size * above).sum(1, keepdim=True) / above.sum(1, keepdim=True).clamp(min=1)
