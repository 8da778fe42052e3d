"""Products with packed weights on the CPU, without making the float weight first.

At one token a linear layer does nothing but read its weight, so that fewer bytes are less time. Two kinds of kernel:

* Weight-only ("int8", "int4"): codes become small integers (code - zero point) in registers and are multiplied by
  float32 activations. The result is the dequantised product within float32 rounding: only the order of the sum and the
  place of the scale differ, y_r = sum over groups g of scale_rg * sum over k in g of (code_rk - zero_rg) x_k. For
  several tokens a row is decoded once, into the cache.
* W8A8 ("w8a8"): activations are rounded too, each token on its own symmetric scale, and both sides are multiplied as
  integers (ZeroQuant, Yao et al. 2022, arXiv 2206.01861). The int32 sums are exact; the rounding of
  the activations changes the result, so it is never chosen unless asked for.

`choose_backend` measures which is fastest here. The first call of a kernel compiles it, which takes some seconds;
`nanoq.compiled` says where the machine code is kept for the next process.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numba import prange
from torch import Tensor, nn

from nanoq.compiled import compiled
from nanoq.quant.qlinear import QuantLinear

WEIGHT_ONLY = ("int8", "int4")
BACKENDS = ("dequantize", *WEIGHT_ONLY, "w8a8")
MOST_TOKENS = 64  # of a weight-only product: beyond, dequantising and a float product take less time
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_SERIAL = 2**16  # fewer multiplications than this take less time than starting a second thread
_LARGEST_CODE, _LARGEST_ACTIVATION = 255, 127
_MOST_COLUMNS = (2**31 - 1) // (_LARGEST_CODE * _LARGEST_ACTIVATION)  # whose sum of products fits int32


# ---- compiled loops ----
# numba makes int64 of every integer operation, and int64 vectorises badly: hence int32(...) around each of them.
# Reassociation lets a sum run in many lanes at once; NaN and infinity keep their meaning.

_FAST = {"reassoc", "contract", "nsz"}
_i32, _f32 = np.int32, np.float32
_LOW, _HIGH = np.int32(15), np.int32(4)  # the low nibble's mask, the high nibble's shift


@compiled
def _decode_int8(packed, scale, zero, out):
    """Float weights of codes with one scale: packed uint8 (n,) -> out float32 (n,)."""
    for j in range(len(packed)):
        out[j] = scale * _f32(_i32(_i32(packed[j]) - zero))


@compiled
def _decode_int4(packed, scale, zero, even, odd):
    """The same for two codes a byte: the low ones belong to even columns, the high ones to odd columns; (n,) each."""
    for j in range(len(packed)):
        byte = _i32(packed[j])
        even[j] = scale * _f32(_i32(_i32(byte & _LOW) - zero))
        odd[j] = scale * _f32(_i32(_i32(byte >> _HIGH) - zero))


@compiled(fastmath=_FAST)
def _dot_int8(packed, zero, x):
    """Sum of (code - zero) * x: packed uint8 (n,), x float32 (n,)."""
    total = _f32(0)
    for j in range(len(packed)):
        total += _f32(_i32(_i32(packed[j]) - zero)) * x[j]
    return total


@compiled(fastmath=_FAST)
def _dot_int4(packed, zero, even, odd):
    """The same for two codes a byte; even and odd columns of x, (n,) each."""
    total = _f32(0)
    for j in range(len(packed)):
        byte = _i32(packed[j])
        low, high = _i32(_i32(byte & _LOW) - zero), _i32(_i32(byte >> _HIGH) - zero)
        total += _f32(low) * even[j] + _f32(high) * odd[j]
    return total


@compiled(fastmath=_FAST)
def _dot(weight, x):
    total = _f32(0)
    for k in range(len(weight)):
        total += weight[k] * x[k]
    return total


@compiled(fastmath=_FAST)
def _dots(weight, x0, x1, x2, x3):
    """`_dot` for four tokens, which share the loads of the weight."""
    a, b, c, d = _f32(0), _f32(0), _f32(0), _f32(0)
    for k in range(len(weight)):
        w = weight[k]
        a += w * x0[k]
        b += w * x1[k]
        c += w * x2[k]
        d += w * x3[k]
    return a, b, c, d


@compiled
def _one_token_rows(first, last, packed, scale, zero, group, x, y):
    """Rows first..last-1 of the weight: packed uint8 (rows, n), `group` bytes to a scale; y (rows, tokens).

    x is (tokens, n), or for two codes a byte (tokens, 2 n): the even columns, then the odd ones. Here there is one
    token, and weights never leave the registers.
    """
    width = packed.shape[1]
    nibbles = x.shape[1] > width
    for r in range(first, last):
        y[r, 0] = 0
        for g in range(scale.shape[1]):
            i, j = g * group, min((g + 1) * group, width)
            codes, z = packed[r, i:j], zero[r, g]
            if nibbles:
                total = _dot_int4(codes, z, x[0, i:j], x[0, width + i : width + j])
            else:
                total = _dot_int8(codes, z, x[0, i:j])
            y[r, 0] += scale[r, g] * total


@compiled
def _many_token_rows(first, last, packed, scale, zero, group, x, y):
    """The same for more tokens: each row is decoded once, into the cache, and then multiplied by all of them."""
    tokens, width = len(x), packed.shape[1]
    fours, nibbles = tokens // 4 * 4, x.shape[1] > width
    weight = np.empty(x.shape[1], np.float32)
    for r in range(first, last):
        for g in range(scale.shape[1]):
            i, j = g * group, min((g + 1) * group, width)
            codes, s, z = packed[r, i:j], scale[r, g], zero[r, g]
            if nibbles:
                _decode_int4(codes, s, z, weight[i:j], weight[width + i : width + j])
            else:
                _decode_int8(codes, s, z, weight[i:j])
        for t in range(0, fours, 4):
            y[r, t], y[r, t + 1], y[r, t + 2], y[r, t + 3] = _dots(weight, x[t], x[t + 1], x[t + 2], x[t + 3])
        for t in range(fours, tokens):
            y[r, t] = _dot(weight, x[t])


@compiled
def _weight_only_rows(first, last, packed, scale, zero, group, x, y):
    if len(x) == 1:
        _one_token_rows(first, last, packed, scale, zero, group, x, y)
    else:
        _many_token_rows(first, last, packed, scale, zero, group, x, y)


@compiled(parallel=True)
def _weight_only_threads(threads, packed, scale, zero, group, x, y):
    for i in prange(threads):
        first, last = len(packed) * i // threads, len(packed) * (i + 1) // threads
        _weight_only_rows(first, last, packed, scale, zero, group, x, y)


@compiled
def _integer_dot(codes, q):
    total = _i32(0)
    for k in range(len(codes)):
        total = _i32(total + _i32(_i32(codes[k]) * _i32(q[k])))
    return total


@compiled
def _integer_dots(codes, q0, q1, q2, q3):
    """`_integer_dot` for four tokens."""
    a, b, c, d = _i32(0), _i32(0), _i32(0), _i32(0)
    for k in range(len(codes)):
        code = _i32(codes[k])
        a = _i32(a + _i32(code * _i32(q0[k])))
        b = _i32(b + _i32(code * _i32(q1[k])))
        c = _i32(c + _i32(code * _i32(q2[k])))
        d = _i32(d + _i32(code * _i32(q3[k])))
    return a, b, c, d


@compiled
def _integer_rows(first, last, codes, q, sums):
    """Rows first..last-1 of uint8 codes (rows, in) times int8 q (tokens, in), into int32 sums (rows, tokens)."""
    fours = len(q) // 4 * 4
    for r in range(first, last):
        for t in range(0, fours, 4):
            four = _integer_dots(codes[r], q[t], q[t + 1], q[t + 2], q[t + 3])
            for k in range(4):
                sums[r, t + k] = four[k]
        for t in range(fours, len(q)):
            sums[r, t] = _integer_dot(codes[r], q[t])


@compiled(parallel=True)
def _integer_threads(threads, codes, q, sums):
    for i in prange(threads):
        _integer_rows(len(codes) * i // threads, len(codes) * (i + 1) // threads, codes, q, sums)


def _threads(multiplications: int) -> int:
    return 1 if multiplications < _SERIAL else torch.get_num_threads()


# ---- integer products ----


def numba_product(codes: Tensor, q: Tensor) -> Tensor:
    """uint8 (out, in) times int8 (tokens, in) -> exact sums, int32 (out, tokens)."""
    sums = torch.empty(len(codes), len(q), dtype=torch.int32)
    arrays = codes.numpy(), q.numpy(), sums.numpy()
    threads = _threads(codes.numel() * len(q))
    if threads == 1:
        _integer_rows(0, len(codes), *arrays)
    else:
        _integer_threads(threads, *arrays)
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


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
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
            _weight_only_rows(0, len(self.codes), *arguments)
        else:
            _weight_only_threads(threads, *arguments)
        return y.T

    def _integer(self, x: Tensor) -> Tensor:
        q, x_scale = quantize_activations(x)
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


def measure(functions: dict, seconds: float, rounds: int = 3) -> dict:
    """The shortest time of each function in seconds, as `time_in_turn` takes them."""
    return {name: min(times) for name, times in time_in_turn(functions, seconds, rounds).items()}


@torch.inference_mode()
def time_in_turn(functions: dict, seconds: float, rounds: int = 3) -> dict[object, list[float]]:
    """All times of each function, in seconds; they take turns, so that they share what else the machine does.

    It stops after `seconds`, but not before each was called once to warm up and `rounds` times to be timed.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    end, done = time.perf_counter() + seconds, 0
    while done < rounds or time.perf_counter() < end:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
        done += 1
    return times
