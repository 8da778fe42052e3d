"""The one way through a model: block by block, each seen on what the changed blocks before it give it.

Whoever goes along changes layers, or whole blocks, and puts them in place; `quantize_model` and `compress_model` do.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn

from nanoq.progress import progress
from nanoq.quant.calibrate import LayerStats, observe
from nanoq.store import some


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


@dataclass
class Stage:
    """A block on the way.

    Attributes:
        prefix: of the names of its layers, as "blocks.3.".
        block: itself.
        calls: what it is called with now, for each batch.
        originals: what it would be called with in the unquantised model; empty if nobody asked for it.
        unquantized: the block as it was before anybody changed it; None if nobody asked for it.
    """

    prefix: str
    block: nn.Module
    calls: list[Call]
    originals: list[Call]
    unquantized: nn.Module | None

    @cached_property
    def targets(self) -> list:
        """What the unquantised block gives in the unquantised model, for each batch."""
        return [call(self.unquantized) for call in self.originals]

    def statistics(self, layers: dict[str, nn.Module], match_original: bool = False) -> dict[str, LayerStats]:
        """What the inputs of some layers, by their names in the block, look like now: in the order in which they run.

        With `match_original` the statistics also say what each input would be in the unquantised model.
        """
        originals = {name: self.unquantized.get_submodule(name) for name in layers} if match_original else {}
        with observe(layers if self.calls else {}, originals) as stats:
            for number, call in enumerate(self.calls):
                if match_original:
                    self.originals[number](self.unquantized)
                call(self.block)
        return stats


def stages(model: Visitable, batches: list[Tensor], original: bool = False) -> Iterator[Stage]:
    """Each block in turn, on what the blocks before it, as whoever goes along has left them, give for the batches.

    Args:
        model: see `Visitable`; it should be in evaluation mode.
        batches: of what `embed` takes.
        original: whether the unquantised model is run as well.
    """
    enter, follow = _ways(model)
    calls = [enter(rows) for rows in batches]
    originals = list(calls) if original else []
    for index, block in enumerate(progress(model.blocks, desc="blocks", unit="block")):
        stage = Stage(f"blocks.{index}.", block, calls, originals, deepcopy(block) if original else None)
        yield stage
        if block is not model.blocks[-1]:
            calls = [follow(call, call(block)) for call in calls]
            if original:
                originals = [follow(call, output) for call, output in zip(originals, stage.targets, strict=True)]


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
        stats = stage.statistics(waiting, match_original)
        first = next(iter(stats.values()), None) if true_sequential else None
        for name in [name for name in waiting if first is None or stats.get(name) is first]:
            yield stage.prefix + name, waiting.pop(name), stats.pop(name, None)
