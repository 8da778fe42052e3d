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


def footprint_reduction(original_bytes: float, quantized_bytes: float) -> float:
    """How much of the size is gone, in percent: 100 (1 - quantised / original), below 0 for a model that grew.

    CPTQuant, equation 2, prints 100 (1 - M_O / M_Q), which is negative for every model that shrank.

    Raises:
        ValueError: if a size is not a positive number.
    """
    _check_sizes(original_bytes, quantized_bytes)
    return 100 * (1 - quantized_bytes / original_bytes)


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


def accuracy_drop(original: float, quantized: float) -> float:
    """Original minus quantised accuracy, all as shares of 0 to 1: below 0 where the quantised model is better.

    CPTQuant does not say whether its drops are shares or percent: 0.03 in the table is 0.3 in the text.

    Raises:
        ValueError: if an accuracy is not in 0..1.
    """
    for accuracy in (original, quantized):
        if not 0 <= accuracy <= 1:
            raise ValueError(f"an accuracy must be a share of 0 to 1, not {accuracy!r}")
    return original - quantized


def perplexity_increase(original: float, quantized: float) -> float:
    """Quantised minus original perplexity: above 0 where the model got worse. CPTQuant calls that a drop.

    Raises:
        ValueError: if a perplexity is not a number of at least 1.
    """
    for perplexity in (original, quantized):
        if not perplexity >= 1:
            raise ValueError(f"a perplexity is a number of at least 1, not {perplexity!r}")
    return quantized - original


def objective(loss: float, *, original_bytes: float, quantized_bytes: float, weight: float) -> float:
    """One score for loss and size, less being better: L + weight * R with R = quantised / original.

    CPTQuant, equation 4, which leaves R open and minimises nothing by it: a score to report. The weight, lambda there,
    is the loss that one would accept to get rid of the whole original size, in units of the loss.

    Raises:
        ValueError: if the loss or the weight is not finite, the weight is below 0, or a size is not positive.
    """
    if not math.isfinite(loss) or not 0 <= weight < math.inf:
        raise ValueError(f"a finite loss and a finite weight of at least 0 are needed, not {loss!r} and {weight!r}")
    return loss + weight / compression_ratio(original_bytes, quantized_bytes)


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
