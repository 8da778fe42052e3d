"""How far a rounded layer is from what its bits could do: the rate-distortion function of a Gaussian model of it.

The rows of a weight matrix are taken to be independent draws from N(0, s^2 I), s^2 the mean square of its weights, and
the error to be that of the layer's outputs, trace((W - Q) H (W - Q)^T). The least error at R bits per weight is then
given by reverse water-filling over the eigenvalues l_i of H (Cover and Thomas, Elements of Information Theory,
parallel Gaussian sources):

    D(t) = sum_i min(t, s^2 l_i),    R(t) = 1/n sum_i max(0, 1/2 log2(s^2 l_i / t)).

At high rates that is n s^2 det(H)^(1/n) 2^(-2R), and det(H) is the product of C_kk^2 of GPTQ's own factor. It is a
reference and not a floor: one matrix has no rate-distortion function; of all sources with a covariance the Gaussian is
the hardest; and rows have structure, so that a good code may lie below it. Scales, zero points and tables count as bits
of the code here.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nanoq.quant.calibrate import LayerStats, check_calibration

WIDEST = 2048  # inputs of a layer whose eigenvalues are worth the time
TRIALS = 100  # halvings


def rate_bound(weight: Tensor, stats: LayerStats, bits: float) -> float:
    """The least error of the outputs over their mean square that the model allows at `bits` per weight.

    Args:
        weight: (out, in).
        stats: of the layer's inputs.
        bits: per weight, at least 0.

    Raises:
        ValueError: if the bits are negative, weight and statistics do not fit, or the outputs are all 0.
    """
    if not bits >= 0:
        raise ValueError(f"bits must be at least 0, not {bits!r}")
    variances, energy = _source(weight, stats)
    level = _lowest(variances, lambda level: _rate(variances, level) < bits)
    return float(variances.clamp(max=level).sum() / energy)


def bits_at_bound(weight: Tensor, stats: LayerStats, error: float) -> float:
    """The bits per weight at which the model allows no less than an error of the outputs over their mean square.

    The inverse of `rate_bound`; infinite for an error of 0.
    """
    variances, energy = _source(weight, stats)
    if not error > 0:
        return float("inf")
    return float(_rate(variances, _lowest(variances, lambda level: variances.clamp(max=level).sum() > error * energy)))


def bits_above_bound(layer: nn.Module, weight: Tensor, stats: LayerStats, error: float) -> float | None:
    """Bits per weight that a changed layer takes beyond `bits_at_bound` of its error.

    None where that says nothing or costs too much: an error of 0, inputs that were all 0, more than `WIDEST` inputs.
    """
    if not error > 0 or weight.shape[1] > WIDEST or not stats.gram.diagonal().any():
        return None
    return weight_bits(layer) - bits_at_bound(weight, stats, error)


def weight_bits(layer: nn.Module) -> float:
    """Bits per weight that a file takes for the weight of a layer, scales and all; parameters in float16."""
    parameters = dict(layer.named_parameters())
    sizes = [2 * tensor.numel() if name in parameters else tensor.nbytes
             for name, tensor in layer.state_dict().items() if name != "bias"]
    shape = layer.weight_shape if hasattr(layer, "weight_shape") else layer.weight.flatten(1).shape
    return 8 * sum(sizes) / (shape[0] * shape[1])


def _source(weight: Tensor, stats: LayerStats) -> tuple[Tensor, Tensor]:
    """Variances (in,) of the parallel sources, and the mean square of a row's real outputs; both float64."""
    check_calibration(weight, stats)
    key, double = "eigenvalues", weight.double()
    if key not in stats.factored or stats.factored[key][0] is not stats.gram:
        stats.factored[key] = stats.gram, torch.linalg.eigvalsh(stats.gram.double()).clamp(min=0)
    energy = stats.error_terms(weight.to(stats.gram.dtype)).sum().double() / len(weight)
    if not energy > 0:
        raise ValueError("the layer's outputs are all 0, and there is nothing that bits could buy")
    return double.square().mean() * stats.factored[key][1], energy


def _lowest(variances: Tensor, enough: Callable[[Tensor], bool]) -> Tensor:
    """The lowest water level at which something that holds above it does hold; the largest variance if none is."""
    low, high = torch.zeros((), dtype=torch.float64), variances.max()
    for _ in range(TRIALS):
        level = (low + high) / 2
        low, high = (low, level) if enough(level) else (level, high)
    return high


def _rate(variances: Tensor, level: Tensor) -> Tensor:
    """R(t), in bits per weight."""
    return (variances / level).log2().clamp(min=0).mean() / 2
