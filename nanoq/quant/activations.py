"""Quantised activations: the inputs of linear layers.

A weight is rounded once and can be rounded with care. An activation is rounded anew for every token, to the nearest
value and in no time, so what counts is its range: see `nanoq.quant.outliers`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nanoq.quant.grid import covering_range, evenly_spaced
from nanoq.quant.qlinear import PackedLayer
from nanoq.store import GEOMETRY


def fake_quantize_activations(x: Tensor, bits: int, granularity: str = "token", symmetric: bool = True) -> Tensor:
    """Round activations (..., width) to evenly spaced values that cover them; the result has the shape and type of x.

    Symmetric: the 2**bits - 1 values -m..m steps, with m = 2**(bits-1) - 1 of them up to max|x|. Asymmetric: 2**bits
    values from min(x, 0) to max(x, 0). Scales are not rounded to float16, unlike those of a weight: they are made anew
    for each input and stored nowhere. With "token" the result for a token
    depends on that token alone; with "tensor", on everything that is in the batch with it.

    Args:
        x: (..., width), finite.
        bits: 2 to 8.
        granularity: "token" (a scale for each vector of `width` numbers) or "tensor" (one for all).
        symmetric: whether the values lie evenly on both sides of 0.

    Raises:
        ValueError: if bits or granularity is out of its range, or x holds NaN or infinity.
    """
    check_rounding(bits, granularity, ("token", "tensor"))
    if not x.dim():
        raise ValueError("activations (..., width) are needed, not a single number")
    if not x.isfinite().all():
        raise ValueError("the activations hold NaN or infinity: look for it in the model's weights")
    if not x.numel():
        return x
    rows = x.reshape(1, -1) if granularity == "tensor" else x.reshape(-1, x.shape[-1])
    rows = rows if x.dtype == torch.float64 else rows.float()  # a range of float16 numbers may not fit float16
    grid = evenly_spaced(*covering_range(rows, symmetric), bits, symmetric, rows.shape[1], stored=False)
    return grid.decode(grid.encode(rows)).view(x.shape).to(x.dtype)


def check_rounding(bits: int, granularity: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless bits are 2 to 8 and the granularity is one of those known."""
    if bits not in range(2, 9):
        raise ValueError(f"bits must be in 2..8, not {bits!r}")
    if granularity not in known:
        raise ValueError(f"granularity must be one of {', '.join(known)}, not {granularity!r}")


@contextmanager
def activation_quantization(
    model: nn.Module, bits: int, granularity: str = "token", symmetric: bool = True
) -> Iterator[None]:
    """Round the input of every linear layer of the model's blocks, packed or not, while the block of code runs.

    Together with 8-bit weights this is W8A8. The product itself stays in floating point and gives what integers would:
    sum(x w) = scale_x scale_w sum(code_x code_w). Attention's own products, q k^T and that with v, are not rounded.

    Args:
        model: has `blocks`.
        bits: 2 to 8.
        granularity: "token" or "tensor", as in `fake_quantize_activations`.
        symmetric: as in `fake_quantize_activations`.

    Raises:
        ValueError: as `fake_quantize_activations`.
    """
    check_rounding(bits, granularity, ("token", "tensor"))
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args: fake_quantize_activations(args[0], bits, granularity, symmetric))
        for layer in model.blocks.modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, PackedLayer) and not layer.layout.keys() & set(GEOMETRY))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
