"""Calibration: what the inputs of each layer look like on a little real text."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nanoq.quant.grid import check_weight
from nanoq.quant.layers import matrix_inputs
from nanoq.store import some

BAND, NARROW = 256, 1024  # rows of a Gram matrix worked out at once, and the widest that is worked out whole


class LayerStats:
    """The mean of x x^T over the inputs x of a linear layer, which is all that the layer's output error depends on.

    For a change D of the weight the mean squared output error is trace(D gram D^T); 2 * gram is its Hessian for each
    row (GPTQ, Frantar et al. 2022, section 3.1).

    Attributes:
        gram: (in, in).
        cross: (in, in), the mean of y x^T, where y is the input that the layer would have in the unquantised model;
            None if that was not gathered.
        tokens: number of inputs seen.
        state, past: who is equal to whom: another object after each addition, and what it was before the last one.
        factored: what `gptq` made of the Gram matrix, for the next layer that reads the same input.
    """

    def __init__(self, width: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        self.gram = torch.zeros(width, width, dtype=dtype, device=device)
        self.cross: Tensor | None = None
        self.tokens = 0
        self.state: object | None = None
        self.past: object | None = None
        self.factored: dict = {}

    @classmethod
    def of(cls, inputs: Tensor) -> "LayerStats":
        """The statistics of inputs (tokens, in), in float64 for float64 and otherwise in float32."""
        dtype = torch.float64 if inputs.dtype == torch.float64 else torch.float32
        stats = cls(inputs.shape[-1], dtype, inputs.device)
        stats.add(inputs)
        return stats

    def add(self, inputs: Tensor, originals: Tensor | None = None) -> None:
        """Take in more inputs (..., in), and what each would be in the unquantised model; always both, or never.

        Raises:
            ValueError: if they have another width than the statistics.
        """
        if inputs.shape[-1:] != self.gram.shape[:1]:
            raise ValueError(f"inputs of shape (..., {len(self.gram)}) are wanted, not {tuple(inputs.shape)}")
        x = inputs.reshape(-1, inputs.shape[-1]).to(self.gram.dtype)
        if not len(x):
            return
        self.factored.clear()
        self.past, self.state = self.state, object()
        self.tokens += len(x)
        share = {"beta": 1 - len(x) / self.tokens, "alpha": 1 / self.tokens}
        width = len(self.gram)
        band = BAND if width > NARROW else width
        for start in range(0, width, band):  # gram * old / new + x^T x / new, in place
            rows = slice(start, start + band)
            self.gram[rows, start:].addmm_(x[:, rows].T, x[:, start:], **share)
            self.gram[rows.stop :, rows] = self.gram[rows, rows.stop :].T  # it is symmetric: half of it is worked out
        if originals is not None:
            self.cross = torch.zeros_like(self.gram) if self.cross is None else self.cross
            self.cross.addmm_(originals.reshape(x.shape).to(x.dtype).T, x, **share)

    def follow(self, other: "LayerStats") -> None:
        """Become equal to other statistics of the same width."""
        self.past, self.state = other.past, other.state
        self.tokens, self.cross = other.tokens, None if other.cross is None else other.cross.clone()
        self.gram.copy_(other.gram)
        self.factored.clear()

    def target(self, weight: Tensor, damping: float = 0.01) -> Tensor:
        """The weight (out, in) to be rounded: itself, or with `cross` that whose outputs are nearest the original ones.

        That is W (cross + d) (gram + d)^-1 by least squares, d the damping, a share of the mean diagonal, which
        draws it to W. A method that rounds it is asymmetric in the sense of AdaRound (Nagel et al. 2020,
        arXiv 2004.10568, equation 25): quantised inputs, original outputs. With `gptq` it has the aim of GPTAQ (Li et
        al. 2025, arXiv 2504.02692), whose columns make up for the mismatch of those before them alone and for a share
        alpha of it, and of Qronos (Zhang et al. 2025, arXiv 2505.11695), which corrects at its first column.
        """
        if self.cross is None or not self.gram.diagonal().sum() > 0:
            return weight
        goal = weight.to(self.gram.dtype) @ self.cross + damping * self.gram.diagonal().mean() * weight
        return torch.linalg.solve(self.damped(damping), goal.T).T.to(weight.dtype)  # the damped Gram is symmetric

    def damped(self, damping: float) -> Tensor:
        """The Gram matrix (in, in), with a share of its mean diagonal added to the diagonal."""
        gram = self.gram.clone()
        gram.diagonal().add_(damping * self.gram.diagonal().mean())
        return gram

    def error_terms(self, change: Tensor) -> Tensor:
        """What each weight's change (out, in) adds to the mean squared error of the outputs: (out, in).

        A row adds up to the error of its output, all of them to trace(change gram change^T); one may be negative.
        """
        return (change @ self.gram) * change

    def output_error(self, weight: Tensor, quantized: Tensor) -> float:
        """Mean squared error of the layer's outputs over their mean square, for both weights (out, in)."""
        weight = weight.to(self.gram.dtype)
        change = quantized.to(self.gram.dtype) - weight
        error = float(self.error_terms(change).sum())
        return error and error / float(self.error_terms(weight).sum())


def check_inputs(weight: Tensor, stats: LayerStats) -> None:
    """Raise a ValueError unless a weight (out, in) has as many inputs as the statistics."""
    if stats.gram.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(f"statistics of {len(stats.gram)} inputs do not fit a weight of shape {tuple(weight.shape)}")


def check_calibration(weight: Tensor, stats: LayerStats | None) -> None:
    """Look whether a weight (out, in) can be rounded, and whether these can be the statistics of its inputs.

    Raises:
        ValueError: if the weight is not a matrix or holds NaN or infinity, or the statistics are missing, empty, do not
            fit, hold NaN, or are too large to be computed with.
    """
    check_weight(weight)
    if stats is None or stats.tokens == 0:
        raise ValueError("the layer saw no calibration input")
    check_inputs(weight, stats)
    diagonal = stats.gram.diagonal()  # where every input that is not finite leaves its mark
    if not diagonal.double().sum() < torch.finfo(diagonal.dtype).max / 16:  # sums of it have to be finite, too
        raise ValueError("the calibration statistics hold NaN or infinity, or inputs whose squares leave the range of "
                         f"{str(diagonal.dtype).removeprefix('torch.')}: look for them in the model's activations")


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
def observe(layers: dict[str, nn.Module], originals: dict[str, nn.Module] | None = None,
            share: Callable[[dict[str, LayerStats]], None] | None = None) -> Iterator[dict[str, LayerStats]]:
    """Gather the statistics of the inputs that the layers see while the block runs: {name: LayerStats}.

    The names come in the order in which the layers ran. Layers that turn out to have read the same, as queries, keys
    and values do, share one object in the end, and with it the factor that `gptq` makes of it.

    An expert that other tokens reach in the unquantised model has no inputs there that match its own: its `cross` is
    None, with a warning.

    Args:
        layers: by name, linear layers and convolutions.
        originals: the same layers of the unquantised model, which is run on each batch before the other.
        share: is given the statistics in the end, to put them together with those of other processes.
    """
    stats: dict[str, LayerStats] = {}
    pairs, previous = _Pairs(originals or {}), _Read("", torch.empty(0), None)

    def note(name: str, x: Tensor) -> None:
        nonlocal previous
        own = stats.setdefault(name, LayerStats(x.shape[-1], device=x.device))
        read = _Read(name, x, pairs.match(name, x))
        if read.same_as(previous) and own.state is stats[previous.name].past:
            own.follow(stats[previous.name])  # which were equal to ours before it
        else:
            own.add(x, read.original)
            previous = read

    hooks = [_on_input(layer, functools.partial(pairs.put, name)) for name, layer in (originals or {}).items()]
    hooks += [_on_input(layer, functools.partial(note, name)) for name, layer in layers.items()]
    try:
        yield stats
    finally:
        for hook in hooks:
            hook.remove()
        for name in pairs.without(stats):
            stats[name].cross = None
        if share:
            share(stats)
        for i, name in enumerate(stats):
            twins = (other for other in list(stats.values())[:i] if _same(other, stats[name]))
            stats[name] = next(twins, stats[name])


class _Pairs:
    """What layers read of each batch in the unquantised model, until those that it is for read theirs."""

    def __init__(self, names: Iterable[str]):
        self.waiting: dict[str, list[Tensor]] = {name: [] for name in names}
        self.unmatched, self.taken = set(), False

    def put(self, name: str, x: Tensor) -> None:
        """Keep what a layer reads in the unquantised model."""
        if self.taken:  # another batch begins
            self._end_batch()
        self.waiting[name].append(x)

    def match(self, name: str, x: Tensor) -> Tensor | None:
        """What x is in the unquantised model; None if nobody asks, or other tokens reach the layer there."""
        self.taken = True
        if name not in self.waiting:
            return None
        original = self.waiting[name].pop(0) if self.waiting[name] else None
        if original is None or original.shape != x.shape:
            self.unmatched.add(name)
        return None if name in self.unmatched else original

    def without(self, stats: dict[str, LayerStats]) -> set[str]:
        """Those of the statistics that nothing matches, with a warning."""
        self._end_batch()
        found = stats.keys() & self.unmatched
        if found:
            warnings.warn(f"{some(found)}: other tokens reach them in the unquantised model, so they are fitted to "
                          "their own inputs", stacklevel=2)
        return found

    def _end_batch(self) -> None:
        self.taken = False
        for name, left in self.waiting.items():
            if left:
                self.unmatched.add(name)
                left.clear()


class _Read:
    """What a layer was given, and what it would be given in the unquantised model."""

    def __init__(self, name: str, x: Tensor, original: Tensor | None):
        self.name, self.x, self.original = name, x, original
        self.version = None if x.is_inference() else x._version  # of which inference tensors have none

    def same_as(self, other: "_Read") -> bool:
        """Whether it is the same tensor, and was not changed in place since."""
        return (self.x is other.x and self.version is not None and self.version == other.version
                and self.original is other.original)


def _on_input(layer: nn.Module, note: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `note` with what the layer's weight matrix is multiplied with, each time before the layer runs."""
    def hook(_, args: tuple, kwargs: dict) -> None:
        note(matrix_inputs(layer, args[0] if args else kwargs["input"]))
    return layer.register_forward_pre_hook(hook, with_kwargs=True)


def _same(a: LayerStats, b: LayerStats) -> bool:
    crosses = a.cross is b.cross if a.cross is None or b.cross is None else torch.equal(a.cross, b.cross)
    return a.tokens == b.tokens and torch.equal(a.gram, b.gram) and crosses
