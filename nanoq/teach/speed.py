"""What notebook 08 uses and does not teach: fair races of programs and of layers, and what a machine can do at most."""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from numba.core.errors import NumbaError
from torch import Tensor, nn

from nanoq.lm import GPT, paired_difference, window_losses
from nanoq.lm.evaluate import PairedDifference
from nanoq.lm.generation import stream
from nanoq.lm.model import KVCache
from nanoq.progress import progress
from nanoq.quant import (
    QuantizedKVCache,
    QuantLinear,
    Recipe,
    StepwiseModel,
    activation_quantization,
    affine_grid,
    nearest,
    quantize_model,
)
from nanoq.quant.kernels import candidates, integer_product, use_backend
from nanoq.teach.checks import find_exercise
from nanoq.timing import measure

REORDERED = {"reassoc", "contract", "nsz"}  # sums of floats in any order; NaN and infinity keep their meaning
Times = dict[str, float]


def compiled(loop: Callable, exercise_id: str, example: Sequence[np.ndarray]) -> tuple[Callable, Callable]:
    """Compile a loop with numba, twice; say so and take the course's where numba cannot.

    Args:
        loop: works on numpy arrays and numbers, as the answer to the exercise does.
        exercise_id: whose reference is taken where `loop` cannot be compiled.
        example: arguments, with which it is called once.

    Returns:
        One that may add floats in another order, so that the processor can keep many partial sums; and one that keeps
        the order.
    """
    try:
        njit(loop)(*example)
    except NumbaError as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][:2]  # the second says what is wrong
        print(f"numba cannot compile your loop ({' '.join(reason)}), so the cells below use the course's.")
        loop = find_exercise(exercise_id).reference
    return njit(fastmath=REORDERED)(loop), njit(loop)


def arrays(packed: Tensor, scale: Tensor, zero: Tensor, x: Tensor) -> list[np.ndarray]:
    """What the kernel of the course takes: codes (rows, n / 2), scale and zero (rows,), even and odd columns (n / 2,).

    Args:
        packed: uint8 (rows, n / 2), two codes in a byte.
        scale: (rows,) or (rows, 1).
        zero: the zero points, of the same shape.
        x: (n,).
    """
    tensors = packed, scale.float().flatten(), zero.float().flatten(), x[0::2], x[1::2]
    return [np.ascontiguousarray(tensor.numpy()) for tensor in tensors]


# ---- races ----


def writing_times(models: Mapping[str, GPT], prompt: Tensor, length: int) -> dict[str, Tensor]:
    """Seconds per token of models that write `length` tokens each, a token each in turn: {name: (length,)}.

    Each is first in a turn as often as the others. A cache of our own makes `stream` call each layer as it is, and not
    the compiled step of the package.
    """
    streams = {name: stream(model, prompt, seed=1, make_cache=lambda blocks: KVCache(blocks))
               for name, model in models.items()}
    for one in streams.values():
        next(one)  # the prompt is read at once, which is another matter
    names, took = list(models), {name: [] for name in models}
    for i in progress(range(length), desc="write", unit="token"):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            next(streams[name])
            took[name].append(time.perf_counter() - start)
    return {name: torch.tensor(seconds) for name, seconds in took.items()}


@dataclass(frozen=True)
class Ratio:
    """How many times as fast: the median of the turns, and their quartiles."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Tensor, base: Tensor) -> "Ratio":
        """That of `seconds` (turns,) against `base` (turns,), turn by turn."""
        low, middle, high = (base / seconds).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        return cls(middle, low, high)

    def __str__(self) -> str:
        verdict = "faster" if self.low > 1 else "slower" if self.high < 1 else "no clear winner"
        return f"{self.middle:.2f} times as fast (quartiles {self.low:.2f} and {self.high:.2f}: {verdict})"


def print_ratios(took: Times, base: str) -> None:
    """Print how many times as fast as `base` each is, the fastest first."""
    for name, seconds in sorted(took.items(), key=lambda item: item[1]):
        print(f"{name:18} {took[base] / seconds:6.2f} times as fast as {base}")


def measure_cold(functions: Mapping[str, Callable], seconds: float, elsewhere: Tensor, rounds: int = 3) -> Times:
    """The shortest time of each function; before each call `elsewhere` is read, so that nothing else is in the cache.

    In a model a layer is not alone: before its turn comes again, all other layers have passed through the cache.
    """
    in_turn = {}
    for name, function in functions.items():
        in_turn |= {("elsewhere", name): elsewhere.sum, name: function}
    times = measure(in_turn, seconds, rounds)
    return {name: times[name] for name in functions}


def measure_products(
    layers: Mapping[int, QuantLinear], tokens: int, seconds: float, elsewhere: Tensor
) -> Times:
    """Times of one product with `tokens` tokens: of "fp32", "int8", "int4" and "w8a8".

    Args:
        layers: the same layer in 8 and in 4 bits.
        tokens: rows of the input.
        seconds: of measuring.
        elsewhere: as in `measure_cold`.
    """
    inputs = layers[4].layout["in_features"]
    batch = torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(tokens))
    ways = dict(candidates(layers[4], ["int4"], batch)) | dict(candidates(layers[8], ["int8", "w8a8"], batch))
    return measure_cold(ways, seconds, elsewhere, rounds=2)


# ---- a machine ----


@dataclass(frozen=True)
class Machine:
    """What a machine can do at most: bytes and operations per second, in float32 and in integers."""

    bandwidth: float
    rate: float
    integer_rate: float

    def top(self, name: str) -> float:
        """Operations per second of a kernel, "w8a8" or one that multiplies floats."""
        return self.integer_rate if name == "w8a8" else self.rate


def measure_machine(elsewhere: Tensor, side: int, seconds: float) -> Machine:
    """Measure it, with as many threads as torch may use.

    Args:
        elsewhere: float32, much larger than the cache; its size is divisible by 8192.
        side: of square matrices that fit the cache.
        seconds: of measuring.
    """
    square, target, ones = torch.randn(side, side), torch.empty_like(elsewhere), torch.ones(8192)
    whole = torch.full((side, side), 3, dtype=torch.uint8), torch.full((side, side), 5, dtype=torch.int8)
    took = measure({"read": lambda: F.linear(ones, elsewhere.view(-1, 8192)), "copy": lambda: target.copy_(elsewhere),
                    "float": lambda: square @ square, "integer": lambda: integer_product()(*whole)}, seconds)
    read, copy = elsewhere.nbytes / took["read"], 2 * elsewhere.nbytes / took["copy"]
    return Machine(max(read, copy), 2 * side**3 / took["float"], 2 * side**3 / took["integer"])


# ---- models and layers ----


def random_layers(out: int, inputs: int) -> dict[int, QuantLinear]:
    """A layer (out, inputs) of random weights in 8 and in 4 bits, by its bits: a product takes as long on noise."""
    weight = 0.02 * torch.randn(out, inputs, generator=torch.Generator().manual_seed(0))
    grids = {bits: affine_grid(weight, bits) for bits in (8, 4)}  # one per row
    return {bits: QuantLinear.from_codes(nearest(weight, grid), grid) for bits, grid in grids.items()}


@torch.inference_mode()
def cache_of(model: GPT, tokens: Tensor) -> KVCache:
    """What a model keeps of tokens (T,) that it has read."""
    cache = KVCache(model.config.layers)
    model(tokens[None], cache)
    return cache


def with_kernels(model: GPT, bits: int) -> GPT:
    """A quantised copy, rounded to nearest, whose layers compute with the kernel of its bits."""
    copy = deepcopy(model)
    quantize_model(copy, Recipe(bits=bits))
    for layer in copy.modules():
        if isinstance(layer, QuantLinear):
            use_backend(layer, f"int{bits}")
    return copy


@dataclass(frozen=True)
class Losses:
    """What rounding adds to the loss of a model, on the same held-out windows for all ways to round.

    Attributes:
        model: in float.
        tokens: held-out text.
        windows: how many of its windows count.
        reference: losses (windows,) of the model itself.
    """

    model: GPT
    tokens: Tensor
    windows: int
    reference: Tensor

    @classmethod
    def of(cls, model: GPT, tokens: Tensor, windows: int) -> "Losses":
        """Measure the model itself."""
        return cls(model, tokens, windows, window_losses(model, tokens, limit=windows))

    def added(self, other: nn.Module) -> PairedDifference:
        """What another model loses more than this one."""
        return paired_difference(window_losses(other, self.tokens, limit=self.windows), self.reference)

    def with_cache(self, bits: int, keys: str = "channel", hadamard: bool = False) -> PairedDifference:
        """Keys and values rounded as soon as they are 32 tokens old; `keys` is "channel" or "token"."""
        make = partial(QuantizedKVCache, bits=bits, residual=0, key_granularity=keys, hadamard=hadamard)
        return self.added(StepwiseModel(self.model, make))

    def with_activations(self, other: GPT, bits: int, weight_bits: int | None = None) -> PairedDifference:
        """Activations of a model rounded per token, and its weights too where their bits are given."""
        rounded = deepcopy(other)
        if weight_bits:
            quantize_model(rounded, Recipe(bits=weight_bits, symmetric=True))
        with activation_quantization(rounded, bits):
            return self.added(rounded)
