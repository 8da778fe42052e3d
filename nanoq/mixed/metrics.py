"""What a mixed-precision model saves and what it loses, with the signs and ratios the right way up."""

import math
from typing import NamedTuple


def compression_ratio(original_bytes: float, quantized_bytes: float) -> float:
    """How many times smaller the model became: original / quantised, above 1 for one that shrank.

    CPTQuant (arXiv 2412.03599), equation 3, prints M_Q / M_O, which is below 1, over a table of 2 to 4.5. Say which
    original is meant: the same model has twice the ratio over float32 that it has over float16.

    Raises:
        ValueError: if a size is not a positive number.
    """
    _check_sizes(original_bytes, quantized_bytes)
    return original_bytes / quantized_bytes


def average_bits(allocation: dict[str, int], parameters: dict[str, int]) -> float:
    """Mean width of the weights of an allocation {layer: bits}, given the number of weights of each layer.

    An intention: scales, zero points and what is not quantised come on top.

    Raises:
        ValueError: if these are not the same layers, or a number is not positive.
    """
    if not allocation or allocation.keys() != parameters.keys():
        raise ValueError(f"the same layers are needed, not {list(allocation)} and {list(parameters)}")
    for name in allocation:
        if not (allocation[name] > 0 and parameters[name] > 0):
            raise ValueError(f"layer '{name}' has {parameters[name]} weights of {allocation[name]} bits")
    return sum(parameters[name] * bits for name, bits in allocation.items()) / sum(parameters.values())


class RankCorrelation(NamedTuple):
    """Spearman's correlation, and the ends of its 95 % interval."""

    rho: float
    low: float
    high: float


def rank_correlation(scores: dict[str, float], truth: dict[str, float]) -> RankCorrelation:
    """How well scores {layer: number} put layers in the order of a truth: Spearman's rho, -1 to 1.

    The interval is for layers as a sample of such layers: z = atanh(rho) has a standard error of
    sqrt((1 + rho**2 / 2) / (n - 3)) (Bonett and Wright 2000, Psychometrika 65). Six blocks show little: of their 720
    orders one in ten has a rho beyond 0.77, this way or that. At a rho of exactly 1 the formula has no width, which is
    not certainty.

    Raises:
        ValueError: if these are not the same layers, are fewer than 4, or have all the same score.
    """
    if scores.keys() != truth.keys() or len(scores) < 4:
        raise ValueError(f"the same layers are needed, at least 4, not {list(scores)} and {list(truth)}")
    for values in (scores.values(), truth.values()):
        if len(set(values)) == 1 or any(map(math.isnan, values)):
            raise ValueError("there is no order: all layers have the same score, or one has NaN")
    from scipy.stats import spearmanr  # slow to import

    rho = float(spearmanr(list(scores.values()), [truth[name] for name in scores]).statistic)
    if abs(rho) > 1 - 1e-12:
        return RankCorrelation(rho, rho, rho)
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (len(scores) - 3))
    return RankCorrelation(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half))


def _check_sizes(original_bytes: float, quantized_bytes: float) -> None:
    for size in (original_bytes, quantized_bytes):
        if not 0 < size < math.inf:
            raise ValueError(f"a size in bytes must be a positive number, not {size!r}")
