"""The one way through a model: block by block, each seen on what the changed blocks before it give it.

Whoever goes along changes layers, or whole blocks, and puts them in place; `quantize_model` does.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor, nn

from nanoq.decoding import decoded_once
from nanoq.progress import progress
from nanoq.quant.calibrate import LayerStats, observe
from nanoq.store import some

DECODED = 2**27  # bytes of a block's decoded weights kept while the calibration text goes through it


class Visitable(Protocol):
    """A model of blocks, one after the other.

    `embed` maps tokens or pictures to what enters the first block. A model whose blocks want more than hidden states
    also has `enter` and `follow`, which give a `Call`; see `nanoq.hf.model`.
    """

    blocks: nn.ModuleList

    def embed(self, rows: Tensor) -> Tensor:
        """Inputs of the model -> hidden states that enter the first block."""


@dataclass(frozen=True)
class Call:
    """What a block is called with for one batch."""

    args: tuple
    kwargs: dict = field(default_factory=dict)

    def __call__(self, block: nn.Module):
        """Run the block."""
        return block(*self.args, **self.kwargs)

    @property
    def hidden(self) -> Tensor:
        """The hidden states (B, T, width) among it."""
        return self.args[0] if self.args else self.kwargs["hidden_states"]


@dataclass
class Stage:
    """A block on the way.

    Attributes:
        prefix: of the names of its layers, as "blocks.3.".
        block: itself.
        calls: what it is called with now, for each batch.
        originals: what it would be called with in the unquantised model; empty if nobody asked for it.
        unquantized: the block as it was before anybody changed it; None if nobody asked for it.
        share: puts together the statistics that several processes have gathered.
        precision: of products of matrices in the blocks, "fp32" or "bf16".
    """

    prefix: str
    block: nn.Module
    calls: Sequence[Call]
    originals: Sequence[Call]
    unquantized: nn.Module | None
    share: Callable[[dict[str, LayerStats]], None] | None = None
    precision: str = "fp32"

    @cached_property
    def targets(self) -> list:
        """What the unquantised block gives in the unquantised model, for each batch."""
        return list(self._run(self.unquantized, self.originals))

    def original_outputs(self) -> Iterator[object]:
        """The targets, one after the other if nobody has asked for all of them."""
        return iter(vars(self).get("targets") or self._run(self.unquantized, self.originals))

    def outputs(self) -> Iterator[object]:
        """What the block, as it is now, gives for each batch."""
        return self._run(self.block, self.calls)

    def _run(self, block: nn.Module, calls: Iterable[Call], run: Callable[[nn.Module, Call], object] | None = None
             ) -> Iterator[object]:
        for call in calls:
            with _in_bfloat16(call.hidden.device) if self.precision == "bf16" else nullcontext():
                output = run(block, call) if run else call(block)
            yield output

    def statistics(self, layers: dict[str, nn.Module], match_original: bool = False, first: bool = False
                   ) -> dict[str, LayerStats]:
        """What the inputs of some layers, by their names in the block, look like now: in the order in which they run.

        With `match_original` the statistics also say what each input would be in the unquantised model. Layers that
        are given no token have none. With `first` there are those of the layer that runs first, and of those after it
        that read the same input.
        """
        originals = {name: self.unquantized.get_submodule(name) for name in layers} if match_original else {}
        with (observe(layers if self.calls else {}, originals, self.share) as stats,
              _Reading(layers) as ours, _Reading(originals) as theirs):
            others = self._run(self.unquantized, self.originals, theirs) if match_original else repeat(None)
            for _ in zip(others, self._run(self.block, self.calls, ours), strict=False):
                if first and not self.share and _first(stats):  # other processes may have another first layer
                    ours.wanted = theirs.wanted = ours.wanted & set(_first(stats))
        return {name: stats[name] for name in (_first(stats) if first else stats) if stats[name].tokens}


class _Enough(Exception):
    """All that is wanted of a batch has been read: the way out of the block."""


class _Reading:
    """Runs a block for its layers to read their inputs, and no further where the run before has shown how far that is.

    Attributes:
        wanted: names of the layers that are to read.
    """

    def __init__(self, layers: dict[str, nn.Module]):
        self.wanted, self.times, self.once = set(layers), Counter(), False
        self.hooks = [layer.register_forward_pre_hook(partial(self._read, name)) for name, layer in layers.items()]

    def __enter__(self) -> "_Reading":
        return self

    def __exit__(self, *_) -> None:
        for hook in self.hooks:
            hook.remove()

    def __call__(self, block: nn.Module, call: Call) -> None:
        """Run the block: to its end unless each layer that is wanted read exactly once when that was done last."""
        self.times.clear()
        with suppress(_Enough):
            call(block)
            self.once = all(self.times[name] == 1 for name in self.wanted)

    def _read(self, name: str, *_) -> None:
        self.times[name] += 1
        if self.once and self.wanted <= self.times.keys():
            raise _Enough


def _first(stats: dict[str, LayerStats]) -> list[str]:
    """The first layer that was given tokens, and those that have read the same."""
    given = {name: own.state for name, own in stats.items() if own.tokens}
    return [name for name, state in given.items() if state is next(iter(given.values()))]


@contextmanager
def _in_bfloat16(device: torch.device) -> Iterator[None]:
    """Multiply matrices in bfloat16, those of statistics in float32, too, which are summed in float32 all the same."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Porter:
    """What happens around the blocks on the way through a model: this one has all of it in memory.

    Attributes:
        start: number of the block to begin with.
        share: see `Stage`.
    """

    start = 0
    share: Callable[[dict[str, LayerStats]], None] | None = None

    def before(self, index: int) -> None:
        """Get block `index` ready: now it is run, and changed."""

    def after(self, index: int) -> None:
        """Done with block `index`."""

    def enter(self, model: Visitable, batches: list[Tensor], original: bool) -> Sequence[Call]:
        """What the block to begin with is called with for each batch, in the model or in the original one."""
        enter, _ = _ways(model)
        return [enter(rows) for rows in batches]

    def follow(self, model: Visitable, batches: list[Tensor], index: int, calls: Sequence[Call],
               outputs: Iterator[object], original: bool) -> Sequence[Call]:
        """What the block after number `index` is called with for each batch, when its calls give these outputs."""
        _, follow = _ways(model)
        for number, output in enumerate(outputs):
            calls[number] = follow(calls[number], output)  # in place: two lists of hidden states may take a GB
        return calls


def stages(model: Visitable, batches: list[Tensor], original: bool = False, porter: Porter | None = None,
           precision: str = "fp32") -> Iterator[Stage]:
    """Each block in turn, on what the blocks before it, as whoever goes along has left them, give for the batches.

    Args:
        model: see `Visitable`; it should be in evaluation mode.
        batches: of what `embed` takes.
        original: whether the unquantised model is run as well.
        porter: what else happens at each block.
        precision: of products of matrices in the blocks, "fp32" or "bf16".
    """
    porter = porter or Porter()
    calls = porter.enter(model, batches, False)
    originals = porter.enter(model, batches, True) if original else []
    for index, block in enumerate(progress(model.blocks, desc="blocks", unit="block")):
        if index < porter.start:
            continue
        porter.before(index)
        unquantized = deepcopy(block) if original else None
        stage = Stage(f"blocks.{index}.", block, calls, originals, unquantized, porter.share, precision)
        yield stage
        if index + 1 < len(model.blocks):
            with decoded_once(block, DECODED):
                calls = porter.follow(model, batches, index, calls, stage.outputs(), False)
            if original:
                originals = porter.follow(model, batches, index, originals, stage.original_outputs(), True)
        stage.unquantized = None  # whoever goes along may still have the stage
        porter.after(index)


def _ways(model: Visitable) -> tuple[Callable[[Tensor], Call], Callable[[Call, object], Call]]:
    """How batches enter the first block, and how a call that gave something goes on to the next."""
    if hasattr(model, "follow"):
        return model.enter, model.follow
    return lambda rows: Call((model.embed(rows),)), lambda call, output: Call((output,))


def visit(model: Visitable, batches: list[Tensor], layers: Iterable[str], true_sequential: bool = False,
          match_original: bool = False) -> Iterator[tuple[str, nn.Module, LayerStats | None]]:
    """Each of the named layers with the statistics of its inputs; whoever goes along puts another one in its place.

    Args:
        model: as in `stages`.
        batches: as in `stages`; without any there are no statistics.
        layers: their names in the model.
        true_sequential: whether a layer also sees what the changed layers before it *in its block* give it, for which
            the block runs once more for each of them (the official GPTQ code's option of that name).
        match_original: whether the statistics also say what each input would be in the unquantised model.

    Raises:
        ValueError: if the model's blocks have no layer of a name.
    """
    names, there = list(layers), {f"blocks.{name}" for name, _ in model.blocks.named_modules()}
    if unknown := [name for name in names if name not in there]:
        raise ValueError(f"the blocks of the model have no layer {some(unknown)}")
    for stage in stages(model, batches, match_original):
        mine = [name.removeprefix(stage.prefix) for name in names if name.startswith(stage.prefix)]
        yield from each_layer(stage, mine, true_sequential, match_original)


def each_layer(stage: Stage, names: list[str], true_sequential: bool, match_original: bool
               ) -> Iterator[tuple[str, nn.Module, LayerStats | None]]:
    """`visit` within one block; the names are those in it."""
    waiting = {name: stage.block.get_submodule(name) for name in names}
    while waiting:
        now = stage.statistics(waiting, match_original, first=true_sequential)
        if not (true_sequential and now):
            now = {name: now.get(name) for name in waiting}
        for name in list(now):
            yield stage.prefix + name, waiting.pop(name), now.pop(name)
