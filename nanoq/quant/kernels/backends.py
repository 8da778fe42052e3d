"""Backends of a quantised layer: what each takes, and which is the fastest here."""

import functools
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.kernels.loops import (
    SERIAL,
    decode_columns,
    decode_threads,
    integer_rows,
    integer_threads,
    room,
    weight_only_rows,
    weight_only_threads,
    words_of,
)
from nanoq.quant.packing import pack
from nanoq.quant.qlinear import QuantLinear
from nanoq.timing import measure

WEIGHT_ONLY = {"int8": 8, "int4": 4, "int3": 3, "int2": 2}  # and bits of a code
BACKENDS = ("dequantize", *WEIGHT_ONLY, "w8a8")
MOST_TOKENS = 12  # of a weight-only product: beyond, decoding and a float product take less time
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_LARGEST_CODE, _LARGEST_ACTIVATION = 255, 127
_MOST_COLUMNS = (2**31 - 1) // (_LARGEST_CODE * _LARGEST_ACTIVATION)  # whose sum of products fits int32


def _run(loop: Callable, in_threads: Callable, count: int, multiplications: int, *arrays) -> None:
    """Run a loop over 0..count-1, or where it is worth them in threads.

    numba, when it starts its first thread, tells OpenMP how many there are, and so torch.
    """
    threads = 1 if multiplications < SERIAL else torch.get_num_threads()
    if threads == 1:
        loop(0, count, *arrays)
        return
    in_threads(threads, *arrays)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


# ---- integer products ----


def numba_product(codes: Tensor, q: Tensor) -> Tensor:
    """uint8 (out, in) times int8 (tokens, in) -> exact sums, int32 (out, tokens)."""
    sums = torch.empty(len(codes), len(q), dtype=torch.int32)
    _run(integer_rows, integer_threads, len(codes), codes.numel() * len(q), codes.numpy(), q.numpy(), sums.numpy())
    return sums


def torch_product(codes: Tensor, q: Tensor) -> Tensor:
    """The same by torch: exact only where `is_exact` says so, and slow on a processor without VNNI."""
    if codes.shape[1] == 1:  # torch 2.13's product leaves its output unwritten there
        return codes.int() * q.T.int()
    return torch._int_mm(codes, q.T)


def is_exact(product: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether an integer product is right on the inputs that overflow most easily; False where it is missing.

    Processors without VNNI add pairs of products in int16 (`vpmaddubsw`), which 2 * 255 * 127 does not fit: oneDNN and
    fbgemm then return a clipped sum.
    """
    values = torch.tensor([-128, -127, 127, 1], dtype=torch.int8)
    q = torch.cat([values[:, None].expand(4, 64), torch.randint(
        -128, 128, (4, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(0))])
    codes = torch.tensor([0, 127, 128, 254, 255], dtype=torch.uint8).repeat(4)[:, None].repeat(1, 64)
    try:
        return torch.equal(product(codes, q).long(), codes.long() @ q.long().T)
    except (AttributeError, RuntimeError):  # a torch without this product, or without uint8 in it
        return False


@functools.cache
def integer_product() -> Callable[[Tensor, Tensor], Tensor]:
    """The fastest exact product of this machine, measured once a process.

    On one thread: two that wait for each other on a busy machine would hide what is asked.
    """
    codes = torch.zeros(256, 512, dtype=torch.uint8)
    q = torch.zeros(64, 512, dtype=torch.int8)
    exact = [product for product in (numba_product, torch_product) if is_exact(product)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = measure({product: functools.partial(product, codes, q) for product in exact}, seconds=0.05)
    finally:
        torch.set_num_threads(threads)
    return min(times, key=times.get)


def quantize_per_token(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each token to -127..127 on its own scale: float32 (tokens, in) -> int8 (tokens, in), float32 (tokens, 1).

    A token that holds NaN or infinity gets a scale that is not finite, and so an output of NaN.
    """
    scale = x.abs().amax(1, keepdim=True) / _LARGEST_ACTIVATION
    steps = torch.where(scale > 0, x / scale, 0.0).round_().clamp_(-_LARGEST_ACTIVATION, _LARGEST_ACTIVATION)
    return torch.where(scale.isfinite(), steps, 0.0).to(torch.int8), torch.where(scale.isfinite(), scale, torch.nan)


# ---- kernels of a layer ----


@dataclass
class Kernel:
    """A layer's weight in the form that products with its codes need, which is a copy: the layer keeps its own.

    Attributes:
        backend: "int8", "int4", "int3" or "int2".
        in_features: columns of the weight.
        arrays: what the loops take: the codes, uint32 as `words_of` lays them out; bits of a code; scale and zero,
            float32 (groups, out); columns of a group.
    """

    backend: str
    in_features: int
    arrays: tuple[np.ndarray, int, np.ndarray, np.ndarray, int]

    @classmethod
    def of(cls, layer: QuantLinear, backend: str) -> Self:
        """The kernel of a layer that can run on the backend, as `why_not` says."""
        bits, columns, grid = WEIGHT_ONLY[backend], layer.layout["in_features"], layer.grid
        codes, groups = layer.codes, grid.scale.shape[1]
        group = grid.group_size if groups > 1 else columns
        size = room(group, bits)
        if groups > 1 and size > group:
            codes = F.pad(layer.unpacked(), (0, groups * group - columns)).unflatten(1, (groups, group))
            codes = pack(F.pad(codes, (0, size - group)).flatten(1), bits)
        elif bits != layer.layout["bits"] or layer.layout["levels"] == 3:
            codes = pack(layer.unpacked(), bits)
        codes = F.pad(codes, (0, groups * size * bits // 8 - codes.shape[1]))
        scale, zero = (values.float().expand(len(codes), -1).T.contiguous().numpy()
                       for values in (grid.scale, grid.zero_codes))
        return cls(backend, columns, (words_of(codes.numpy()), bits, scale, zero, group))

    @property
    def nbytes(self) -> int:
        """Bytes of the weight that a product reads: codes, scales and zero points."""
        return sum(part.nbytes for part in self.arrays if isinstance(part, np.ndarray))

    def takes(self, x: Tensor) -> bool:
        """Whether it can multiply x (..., in): on the CPU, and without gradients."""
        return _fits(x, self.in_features)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (..., in) -> x W^T (..., out), in the type of x, computed in float32."""
        rows = np.ascontiguousarray(x.detach().float().numpy()).reshape(-1, self.in_features)
        y = self.product(rows) if len(rows) <= MOST_TOKENS else self._decoded_product(rows)
        return torch.from_numpy(y.reshape(*x.shape[:-1], y.shape[1])).to(x.dtype)

    def product(self, x: np.ndarray) -> np.ndarray:
        """Multiply by the codes: x float32 (tokens, in) -> x W^T (tokens, out); fast for a few tokens."""
        out = self.arrays[2].shape[1]
        y = np.empty((len(x), out), np.float32)
        _run(weight_only_rows, weight_only_threads, out, x.size * out, *self.arrays, x, y)
        return y

    def _decoded_product(self, x: np.ndarray) -> np.ndarray:
        """The product with the float weight, made a few columns at a time: they are multiplied while in the cache."""
        out = self.arrays[2].shape[1]
        rows, y, columns = torch.from_numpy(x), torch.empty(len(x), out), -(-SERIAL // out)
        weight = np.empty((min(columns, self.in_features), out), np.float32)
        for k in range(0, self.in_features, columns):
            part = weight[: self.in_features - k]
            _run(decode_columns, decode_threads, len(part), part.size, k, *self.arrays, part)
            y.addmm_(rows[:, k : k + columns], torch.from_numpy(part), beta=int(k > 0))
        return y.numpy()


def _fits(x: Tensor, columns: int) -> bool:
    return (x.device.type == "cpu" and x.dtype in _FLOATS and x.shape[-1] == columns and x.numel() > 0
            and not (x.requires_grad and torch.is_grad_enabled()))


@dataclass
class IntegerKernel:
    """A layer's weight for products of integers; `codes` is the layer's own buffer, not a copy.

    Attributes:
        codes: uint8 (out, in).
        scale: float32 (out, 1).
        zero: int32 (out, 1).
    """

    backend = "w8a8"
    codes: Tensor
    scale: Tensor
    zero: Tensor

    @classmethod
    def of(cls, layer: QuantLinear) -> Self:
        """The kernel of a layer that can run on "w8a8"."""
        grid, rows = layer.grid, len(layer.codes)
        return cls(layer.codes, grid.scale.expand(rows, -1).contiguous(),
                   grid.zero_codes.int().expand(rows, -1).contiguous())

    def takes(self, x: Tensor) -> bool:
        """Whether it can multiply x (..., in): on the CPU, and without gradients."""
        return _fits(x, self.codes.shape[1])

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (..., in) -> x W^T (..., out), in the type of x, with x rounded to 8 bits."""
        q, x_scale = quantize_per_token(x.detach().reshape(-1, self.codes.shape[1]).float())
        sums = integer_product()(self.codes, q)  # (out, tokens)
        sums = sums - self.zero * q.sum(1, dtype=torch.int32)
        return ((sums * self.scale).T * x_scale).to(x.dtype).contiguous().view(*x.shape[:-1], len(self.codes))


def why_not(layer: QuantLinear, backend: str) -> str | None:
    """What keeps a layer from running on a backend, in words; None if nothing does."""
    bits, columns = layer.layout["bits"], layer.layout["in_features"]
    if backend == "dequantize":
        return None
    if layer.codebook is not None or "codebook" in layer.layout:
        return "its codes stand for a codebook, not for evenly spaced values"
    if backend != "int8" and bits != (needed := WEIGHT_ONLY.get(backend, 8)):
        return f"it has {bits} bits, not {needed}"
    if layer.codes.device.type != "cpu":
        return f"it is on {layer.codes.device}, not on the CPU"
    groups = layer.scale.shape[1]
    if backend == "w8a8" and groups > 1:
        return "an integer sum needs one scale a row, not one a group"
    if backend == "w8a8" and columns > _MOST_COLUMNS:
        return f"a sum over more than {_MOST_COLUMNS} columns could overflow int32"
    return None


def weight_only(layer: QuantLinear) -> str | None:
    """The backend that multiplies a layer by its codes as they are packed, or else by one a byte; None if none does."""
    return next((name for name in reversed(WEIGHT_ONLY) if why_not(layer, name) is None), None)


def use_backend(layer: QuantLinear, backend: str) -> None:
    """Make a layer compute on a backend, one of `BACKENDS`; set it again after changing a buffer in place.

    Whatever a kernel does not take (a GPU tensor, an input that needs gradients) still goes through the dequantised
    weight.

    Raises:
        ValueError: if there is no such backend, or the layer cannot run on it.
    """
    if backend not in BACKENDS:
        raise ValueError(f"no backend '{backend}': there are {', '.join(BACKENDS)}")
    if reason := why_not(layer, backend):
        raise ValueError(f"the layer cannot run on '{backend}': {reason}; 'dequantize' runs every layer")
    if backend == "dequantize":
        layer.kernel = None
    else:
        layer.kernel = IntegerKernel.of(layer) if backend == "w8a8" else Kernel.of(layer, backend)


# ---- the choice ----


@dataclass(frozen=True)
class BackendReport:
    """What was chosen for a layer.

    Attributes:
        layer: its name in the model; empty if the layer itself was given.
        backend: the fastest.
        seconds: shortest time of each backend that the layer can run on, and of "fp32": a float weight that is kept.
    """

    layer: str
    backend: str
    seconds: dict[str, float]

    @property
    def speedup(self) -> float:
        """How many times as fast as fp32."""
        return self.seconds["fp32"] / self.seconds[self.backend]

    def __str__(self) -> str:
        return f"{self.layer or 'layer'}: {self.backend}, {self.speedup:.2f} times as fast as fp32"


def choose_backend(
    model: nn.Module, tokens: int = 1, backends: tuple[str, ...] = ("dequantize", *WEIGHT_ONLY), seconds: float = 0.1
) -> list[BackendReport]:
    """Set every `QuantLinear` of a model, or one layer itself, to the backend that is fastest here, and say which.

    Layers of the same form are measured once. "fp32" is only compared with: a kept float weight is the memory that
    quantising saves.

    Args:
        model: on the CPU.
        tokens: how many the model will be given at once; 1 for generation of one text with a cache.
        backends: to choose from; "w8a8" rounds the activations too, so name it only if that is meant.
        seconds: of measuring for each form of layer; compiling the kernels comes on top.

    Raises:
        ValueError: if there is no quantised layer, an unknown backend, none that a layer can run on, or no token.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}
    if not layers:
        raise ValueError("the model has no QuantLinear: quantise it first, with quantize_model")
    if unknown := [name for name in backends if name not in BACKENDS]:
        raise ValueError(f"no backend '{unknown[0]}': there are {', '.join(BACKENDS)}")
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, not {tokens!r}")
    measured, reports = {}, []
    for name, layer in layers.items():
        form = (tuple(layer.codes.shape), tuple(layer.scale.shape), layer.zero_point is None, *layer.layout.items())
        possible = [backend for backend in backends if why_not(layer, backend) is None]
        if not possible:
            raise ValueError(f"{name or 'the layer'} runs on none of {', '.join(backends)}: add 'dequantize'")
        if form not in measured:
            measured[form] = _times(layer, possible, tokens, seconds)
        best = min(possible, key=measured[form].get)
        use_backend(layer, best)
        reports.append(BackendReport(name, best, measured[form]))
    return reports


def _times(layer: QuantLinear, backends: list[str], tokens: int, seconds: float) -> dict[str, float]:
    x = torch.randn(tokens, layer.layout["in_features"], generator=torch.Generator().manual_seed(0))
    return measure(dict(candidates(layer, backends, x)), seconds)


def candidates(layer: QuantLinear, backends: list[str], x: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The ways to compute a layer's output for x, by name; "fp32" first. The layer's own backend is left alone."""
    weight, bias = layer.dequantize(), None if layer.bias is None else layer.bias.detach()
    yield "fp32", lambda: F.linear(x, weight, bias)
    for backend in backends:
        other = copy(layer)
        use_backend(other, backend)
        yield backend, functools.partial(QuantLinear.forward, other, x)  # which of an embedding table is the head's
