"""Calibration: what the inputs of each layer look like on a little real text."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


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
        """The statistics of inputs (tokens, in)."""
        stats = cls(inputs.shape[-1], inputs.dtype, inputs.device)
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
        if not change.any():
            return 0.0
        return float(((change @ self.gram) * change).sum() / ((weight @ self.gram) * weight).sum())


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

    The names come in the order in which the layers ran. Layers that read the very same tensor, as queries, keys and
    values do, share one object.
    """
    stats: dict[str, LayerStats] = {}
    read: dict[str, Tensor] = {}  # what each object's first layer read last

    def note(name: str, x: Tensor) -> None:
        twin = next((other for other, tensor in read.items() if tensor is x and other != name), None)
        if twin:
            stats[name] = stats[twin]
            return
        stats.setdefault(name, LayerStats(x.shape[-1], device=x.device)).add(x)
        read[name] = x

    hooks = [layer.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
             for name, layer in layers.items()]
    try:
        yield stats
    finally:
        for hook in hooks:
            hook.remove()
