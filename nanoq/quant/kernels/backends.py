"""Backends of a quantised layer: what each takes, and which is the fastest here."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.kernels.loops import integer_rows, integer_threads, weight_only_rows, weight_only_threads
from nanoq.quant.qlinear import QuantLinear
from nanoq.timing import measure

WEIGHT_ONLY = ("int8", "int4")
BACKENDS = ("dequantize", *WEIGHT_ONLY, "w8a8")
MOST_TOKENS = 64  # of a weight-only product: beyond, dequantising and a float product take less time
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_SERIAL = 2**16  # fewer multiplications than this take less time than starting a second thread
_LARGEST_CODE, _LARGEST_ACTIVATION = 255, 127
_MOST_COLUMNS = (2**31 - 1) // (_LARGEST_CODE * _LARGEST_ACTIVATION)  # whose sum of products fits int32


def _threads(multiplications: int) -> int:
    return 1 if multiplications < _SERIAL else torch.get_num_threads()


# ---- integer products ----


def numba_product(codes: Tensor, q: Tensor) -> Tensor:
    """uint8 (out, in) times int8 (tokens, in) -> exact sums, int32 (out, tokens)."""
    sums = torch.empty(len(codes), len(q), dtype=torch.int32)
    arrays = codes.numpy(), q.numpy(), sums.numpy()
    threads = _threads(codes.numel() * len(q))
    if threads == 1:
        integer_rows(0, len(codes), *arrays)
    else:
        integer_threads(threads, *arrays)
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
    """A layer's weight in the form that a product needs; `codes` is the layer's own buffer, not a copy.

    Attributes:
        backend: "int8", "int4" or "w8a8".
        in_features: columns of the weight.
        codes: packed, uint8 (out, bytes).
        scale: float32 (out, groups).
        zero: int32 (out, groups).
        group_bytes: bytes of a row that share a scale.
    """

    backend: str
    in_features: int
    codes: Tensor
    scale: Tensor
    zero: Tensor
    group_bytes: int

    def takes(self, x: Tensor) -> bool:
        """Whether it can multiply x (..., in): on the CPU, without gradients, and of a number of tokens that pays."""
        return (
            x.device.type == "cpu" and x.dtype in _FLOATS and x.shape[-1] == self.in_features
            and 0 < x.numel() // self.in_features <= (MOST_TOKENS if self.backend in WEIGHT_ONLY else math.inf)
            and not (x.requires_grad and torch.is_grad_enabled())
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (..., in) -> x W^T (..., out), in the type of x, computed in float32."""
        rows = x.detach().reshape(-1, self.in_features).float().contiguous()
        y = self._integer(rows) if self.backend == "w8a8" else self._weight_only(rows)
        return y.to(x.dtype).reshape(*x.shape[:-1], len(self.codes))

    def _weight_only(self, x: Tensor) -> Tensor:
        if self.backend == "int4":  # even columns, then odd ones: each half of a byte meets one piece of x
            x = F.pad(x, (0, self.in_features % 2)).unflatten(1, (-1, 2)).transpose(1, 2).flatten(1)
        y = torch.empty(len(self.codes), len(x))
        scale, zero = self.scale.numpy(), self.zero.numpy()
        arguments = self.codes.numpy(), scale, zero, self.group_bytes, x.numpy(), y.numpy()
        threads = _threads(len(self.codes) * x.numel())
        if threads == 1:
            weight_only_rows(0, len(self.codes), *arguments)
        else:
            weight_only_threads(threads, *arguments)
        return y.T

    def _integer(self, x: Tensor) -> Tensor:
        q, x_scale = quantize_per_token(x)
        sums = integer_product()(self.codes, q)  # (out, tokens)
        sums = sums - self.zero * q.sum(1, dtype=torch.int32)
        return (sums * self.scale).T * x_scale


def why_not(layer: QuantLinear, backend: str) -> str | None:
    """What keeps a layer from running on a backend, in words; None if nothing does."""
    bits, columns = layer.layout["bits"], layer.layout["in_features"]
    if backend == "dequantize":
        return None
    if layer.codebook is not None or "codebook" in layer.layout:
        return "its codes stand for a codebook, not for evenly spaced values"
    if bits != (needed := 4 if backend == "int4" else 8):
        return f"it has {bits} bits, not {needed}"
    if layer.codes.device.type != "cpu":
        return f"it is on {layer.codes.device}, not on the CPU"
    groups = layer.scale.shape[1]
    if backend == "int4" and groups > 1 and layer.layout["group_size"] % 2:
        return f"a group of {layer.layout['group_size']} columns ends within a byte"
    if backend == "w8a8" and groups > 1:
        return "an integer sum needs one scale a row, not one a group"
    if backend == "w8a8" and columns > _MOST_COLUMNS:
        return f"a sum over more than {_MOST_COLUMNS} columns could overflow int32"
    return None


def use_backend(layer: QuantLinear, backend: str) -> None:
    """Make a layer compute on a backend, one of `BACKENDS`; set it again after changing a buffer in place.

    Whatever a kernel does not take (a GPU tensor, an input that needs gradients, for "int8" and "int4" more than
    `MOST_TOKENS` tokens) still goes through the dequantised weight.

    Raises:
        ValueError: if there is no such backend, or the layer cannot run on it.
    """
    if backend not in BACKENDS:
        raise ValueError(f"no backend '{backend}': there are {', '.join(BACKENDS)}")
    if reason := why_not(layer, backend):
        raise ValueError(f"the layer cannot run on '{backend}': {reason}; 'dequantize' runs every layer")
    layer.kernel = None if backend == "dequantize" else _kernel(layer, backend)


def _kernel(layer: QuantLinear, backend: str) -> Kernel:
    grid, rows = layer.grid, len(layer.codes)
    width = layer.codes.shape[1]
    group_bytes = grid.group_size * grid.bits // 8 if grid.scale.shape[1] > 1 else width
    return Kernel(
        backend, layer.layout["in_features"], layer.codes, grid.scale.expand(rows, -1).contiguous(),
        grid.zero_codes.int().expand(rows, -1).contiguous(), group_bytes,
    )  # fmt: skip


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
        other = QuantLinear(layer.layout, dict(layer.named_buffers()) | {"bias": layer.bias})
        use_backend(other, backend)
        yield backend, functools.partial(other, x)
