"""Calibration: what the inputs of each layer look like on a little real text."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nanoq.quant.grid import check_weight


class LayerStats:
    """The mean of x x^T over the inputs x of a linear layer, which is all that the layer's output error depends on.

    For a change D of the weight the mean squared output error is trace(D gram D^T); 2 * gram is its Hessian for each
    row (GPTQ, Frantar et al. 2022, section 3.1).

    Attributes:
        gram: (in, in).
        tokens: number of inputs seen.
        factored: what `gptq` made of the Gram matrix, for the next layer that reads the same input.
    """

    def __init__(self, width: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        self.gram = torch.zeros(width, width, dtype=dtype, device=device)
        self.tokens = 0
        self.factored: dict = {}

    @classmethod
    def of(cls, inputs: Tensor) -> "LayerStats":
        """The statistics of inputs (tokens, in), in float64 for float64 and otherwise in float32."""
        dtype = torch.float64 if inputs.dtype == torch.float64 else torch.float32
        stats = cls(inputs.shape[-1], dtype, inputs.device)
        stats.add(inputs)
        return stats

    def add(self, inputs: Tensor) -> None:
        """Take in more inputs (..., in)."""
        x = inputs.reshape(-1, inputs.shape[-1]).to(self.gram.dtype)
        if not len(x):
            return
        self.factored.clear()
        self.tokens += len(x)
        # gram <- gram * old / new + x^T x / new, in place: a rank-k update
        self.gram.addmm_(x.T, x, beta=1 - len(x) / self.tokens, alpha=1 / self.tokens)

    def damped(self, share: float) -> Tensor:
        """The Gram matrix (in, in), with a share of its mean diagonal added to the diagonal."""
        gram = self.gram.clone()
        gram.diagonal().add_(share * self.gram.diagonal().mean())
        return gram

    def output_error(self, weight: Tensor, quantized: Tensor) -> float:
        """Mean squared error of the layer's outputs over their mean square, for both weights (out, in)."""
        weight = weight.to(self.gram.dtype)
        change = quantized.to(self.gram.dtype) - weight
        error = float(((change @ self.gram) * change).sum())
        return error and error / float(((weight @ self.gram) * weight).sum())


def check_calibration(weight: Tensor, stats: LayerStats | None) -> None:
    """Look whether a weight (out, in) can be rounded, and whether these can be the statistics of its inputs.

    Raises:
        ValueError: if the weight is not a matrix or holds NaN or infinity, or the statistics are missing, empty, do not
            fit, or hold NaN.
    """
    check_weight(weight)
    if stats is None or stats.tokens == 0:
        raise ValueError("the layer saw no calibration input")
    shape = tuple(weight.shape)
    if stats.gram.shape != (shape[1], shape[1]):
        raise ValueError(f"statistics of {len(stats.gram)} inputs do not fit a weight of shape {shape}")
    if not stats.gram.diagonal().isfinite().all():  # where every input that is not finite leaves its mark
        raise ValueError("the calibration statistics hold NaN or infinity: look for it in the model's activations")


def sample_windows(tokens: Tensor, context: int, count: int = 128, seed: int = 0) -> Tensor:
    """Random windows (count, context) of a token stream (N,): text to calibrate on, from the training split.

    Raises:
        ValueError: if the stream is shorter than one window.
    """
    if len(tokens) < context:
        raise ValueError(f"{len(tokens)} tokens are too few for a calibration window of {context}")
    starts = torch.randint(len(tokens) - context + 1, (count, 1), generator=torch.Generator().manual_seed(seed))
    return tokens[starts + torch.arange(context)]


@contextmanager
def observe(layers: dict[str, nn.Module]) -> Iterator[dict[str, LayerStats]]:
    """Gather the statistics of the inputs that the layers see while the block runs: {name: LayerStats}.

    The names come in the order in which the layers ran. Layers that turn out to have read the same, as queries, keys
    and values do, share one object in the end, and with it the factor that `gptq` makes of it.
    """
    stats: dict[str, LayerStats] = {}

    def note(name: str, x: Tensor) -> None:
        stats.setdefault(name, LayerStats(x.shape[-1], device=x.device)).add(x)

    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: note(name, args[0] if args else kwargs["input"]), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        yield stats
    finally:
        for hook in hooks:
            hook.remove()
        for i, name in enumerate(stats):
            twins = (other for other in list(stats.values())[:i] if _same(other, stats[name]))
            stats[name] = next(twins, stats[name])


def _same(a: LayerStats, b: LayerStats) -> bool:
    return a.tokens == b.tokens and torch.equal(a.gram, b.gram)
