"""The blocks of a model of transformers, found and followed: which there are, in which order they run, on what.

Nothing is known of the classes. To see what a block is called with, the whole model runs, and the blocks before it give
what they gave before instead of computing: masks, positions and the states of an encoder are then those of the model.
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod

from torch import Tensor, nn

from nanoq.quant.layers import is_linear
from nanoq.quant.visit import Call
from nanoq.store import weight_shape

MODES = ({"keeps": "last", "direct": True}, {"keeps": "all", "direct": True}, {"keeps": "all", "direct": False},
         {"keeps": "none", "direct": False})
"""How blocks can be followed, the cheapest first. Of what blocks have given, there is given again: of each list the
last alone, which is enough where a block reads the one before it; each its own; or none, where blocks also write into
what they share, and run again. A block runs directly on what it was called with, or within its model, if it changes
that (as a cache)."""


def find_blocks(model: nn.Module, run: Callable[[], object] | None = None) -> list[str]:
    """The names of a model's blocks, in the order in which they first run: members of lists with linear layers.

    Args:
        model: of transformers.
        run: runs it. Without, the blocks are those of the list that holds most of the linear layers' weights, as if
            there were no other.

    Raises:
        ValueError: if there are none.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
             and any(map(weights_in, module)) and not any(isinstance(member, nn.Linear) for member in module)}
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks with linear layers: it is not supported")
    if run is None:
        best = max(lists, key=lambda name: weights_in(lists[name]))  # the first of equals, which is the outermost
        return [f"{best}.{index}" for index in range(len(lists[best]))]
    names = {id(member): f"{name}.{index}" for name, members in lists.items() for index, member in enumerate(members)
             if weights_in(member)}
    called = [names[key] for key in _called(model, names.keys(), run)]
    found = [name for name in called if not any(name.startswith(f"{other}.") for other in called)]
    if not found:
        raise ValueError(f"{type(model).__name__} runs no member of its lists of modules: it is not supported")
    return list(dict.fromkeys(found))


def weights_in(module: nn.Module) -> int:
    """How many weights its linear layers have, packed or not."""
    return sum(prod(weight_shape(layer)) for layer in module.modules()
               if is_linear(layer) or hasattr(layer, "weight_shape"))


def _called(model: nn.Module, wanted: Container[int], run: Callable[[], object]) -> list[int]:
    """The modules among those that are wanted that run: by their identities, in order."""
    order: list[int] = []
    hooks = [module.register_forward_pre_hook(lambda module, _: order.append(id(module)))
             for module in model.modules() if id(module) in wanted]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return order


@dataclass(frozen=True)
class BlockCall(Call):
    """What a block of a model of transformers is called with.

    Attributes:
        rows: the batch.
        index: of the block.
        settled: what all calls of blocks before this one have given.
    """

    rows: Tensor | None = None
    index: int = 0
    settled: list = field(default_factory=list)

    def __call__(self, block: nn.Module):
        """Run the block as its model does, past the hook that completes a call with hidden states alone."""
        return block.forward(*self.args, **self.kwargs)

    @property
    def beside(self) -> tuple[tuple, dict]:
        """The rest."""
        return self.args[1:], {name: value for name, value in self.kwargs.items() if name != "hidden_states"}


@dataclass(frozen=True)
class RepeatedCall(BlockCall):
    """What a block is called with that runs more than once, or within its model alone."""

    track: "Track | None" = None

    def __call__(self, block: nn.Module) -> "Outputs":
        """Run the block as often as its model does; it gives the outputs of all calls of blocks from its first on."""
        last = len(self.track.order) - 1 - self.track.order[::-1].index(self.index)
        settled = list(self.settled)
        self.track.replay(settled, self.rows, (self.index, block), until=last)
        return Outputs(settled[len(self.settled):])


class Outputs(list):
    """What several calls of blocks gave."""


class _Stop(Exception):
    """The call that was asked for has come, and is this exception's argument: the way out of the forward pass."""


@contextmanager
def _without_hooks(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Hide runs that only ask what blocks are called with from whoever looks at what modules give."""
    hooked = [(module, module._forward_pre_hooks, module._forward_hooks) for module in modules]
    try:
        for module, *_ in hooked:
            module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
        yield
    finally:
        for module, before, after in hooked:
            module._forward_pre_hooks, module._forward_hooks = before, after


class Track:
    """The way through the blocks of a model.

    Args:
        blocks: in the order in which they first run.
        lists: of each block the name of the list that it is in.
        run: runs the model on a batch.

    Attributes:
        order: the blocks' numbers in the order of all calls, from the first batch on.
        keeps: "last", "all" or "none", and
        direct: whether blocks run by themselves: see `MODES`.
    """

    def __init__(self, blocks: nn.ModuleList, lists: list[str], run: Callable[[Tensor], Tensor]):
        self.blocks, self.lists, self.run = blocks, lists, run
        self.order: list[int] = []
        self.keeps, self.direct = "last", True

    def call(self, rows: Tensor, index: int, settled: list) -> BlockCall:
        """What block `index` is called with for a batch, when the calls before it have given what is settled.

        Raises:
            ValueError: if the block does not run, or not after the block before it.
        """
        if not self.order:
            self.replay([], rows)
        if index not in self.order:
            raise ValueError(f"block {index} does not run on such a batch: the model is not supported")
        first, settled = self.order.index(index), list(settled)
        args, kwargs = self.replay(settled, rows, until=first, record=True)
        if self.order.count(index) > 1 or not self.direct:
            return RepeatedCall(args, kwargs, rows, index, settled, self)
        return BlockCall(args, kwargs, rows, index, settled)

    def after(self, call: BlockCall, output: object) -> list:
        """What is settled when the block of a call has given an output: all calls before the next block's first."""
        given = output if isinstance(output, Outputs) else [output]
        end = len(self.order) if call.index + 1 == len(self.blocks) else self.order.index(call.index + 1)
        settled = list(call.settled)
        for one in given[:end - len(settled)]:
            self._settle(settled, one)
        return settled

    def _settle(self, settled: list, output: object) -> None:
        """Add the output of the next call; it takes the places of those that are given again no more."""
        if self.order and self.keeps == "last":
            mine = self.lists[self.order[len(settled)]]
            settled[:] = [output if self.lists[self.order[n]] == mine else old for n, old in enumerate(settled)]
        settled.append(output)

    def replay(self, settled: list, rows: Tensor, instead: tuple[int, nn.Module] | None = None,
               until: int | None = None, record: bool = False) -> object:
        """Run the model on a batch: calls that are settled give what they gave, the others compute and are settled.

        Args:
            settled: outputs of the first calls; grows.
            rows: the batch.
            instead: the number of a block, and a module that computes in its place.
            until: the last call that is of interest; the model is left there.
            record: whether that one does not run.

        Returns:
            The model's outputs, or what the last call was called with if the model was left there.
        """
        calls: list[int] = []

        def stand_in(index: int, forward: Callable, /, *args, **kwargs) -> object:
            number = len(calls)
            calls.append(index)
            if self.order and self.order[number:number + 1] != [index]:
                raise ValueError(f"block {index} runs out of turn: the model is not supported")
            if record and number == until:
                raise _Stop(args, kwargs)
            if number < len(settled) and self.keeps != "none":
                return settled[number]
            output = forward(*args, **kwargs)
            if number >= len(settled):
                self._settle(settled, output)
            if number == until:
                raise _Stop(args, kwargs)
            return output

        silent = self.blocks if until is not None and not record else self.blocks.modules()
        with _without_hooks(silent), self._stand_ins(stand_in, instead):
            try:
                found = self.run(rows)
            except _Stop as stop:
                return stop.args
        self.order = self.order or calls
        return found

    @contextmanager
    def _stand_ins(self, stand_in: Callable, instead: tuple[int, nn.Module] | None) -> Iterator[None]:
        """Let another function compute for each block for a while; it is given the block's number and own `forward`."""
        try:
            for index, block in enumerate(self.blocks):
                own = instead[1] if instead and instead[0] == index else block
                block.forward = partial(stand_in, index, own.forward)
            yield
        finally:
            for block in self.blocks:
                block.__dict__.pop("forward", None)
