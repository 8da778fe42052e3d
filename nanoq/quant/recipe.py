"""Recipes: what to do to a whole model, as data.

A *step* says what is done to one layer: `layer = step(layer, stats)`. `Round` is here, `Prune` and `LowRank` are in
`nanoq.compress`. A `Recipe` says which layer gets which step, or several in turn.
"""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from types import NoneType
from typing import Protocol, get_args

from torch import Tensor, nn

from nanoq.numbers.blocks import BLOCKS
from nanoq.quant.autoround import autoround
from nanoq.quant.block_ap import block_ap
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.embeddings import WIDTHS
from nanoq.quant.entropy_grid import BITS as CODED_BITS
from nanoq.quant.entropy_grid import entropy_coded_grid
from nanoq.quant.gptq_method import dynamic_grid, gptq
from nanoq.quant.grid import Grid, affine_grid, block_grid
from nanoq.quant.layers import weight_matrix
from nanoq.quant.learned_rounding import adaround, brecq
from nanoq.quant.nonuniform import input_kmeans_grid, kmeans_grid, power_law_grid, power_of_two_grid
from nanoq.quant.qlinear import packed_layer
from nanoq.quant.rounding import nearest, refit_scale, unit_gain
from nanoq.quant.searched_grids import hqq_grid, imatrix_grid
from nanoq.quant.ternary import CODE_BITS, ternary_grid

# A new method is one more function here. Grid makers are called as make(weight, bits, **grid_options), rounding
# methods as method(weight, grid, stats, **method_options). A parameter `stats` without a default means that calibration
# is needed; a grid maker with one is given it as the third argument. Methods that round all layers of a block together
# are called as method(block, grids, data, **method_options); one that learns the range, too, returns (codes, grids).
GRIDS: dict[str, Callable[..., Grid]] = {
    "affine": affine_grid, "affine-dynamic": dynamic_grid, "ternary": ternary_grid,
    "power-of-two": power_of_two_grid, "power-law": power_law_grid, "entropy-coded": entropy_coded_grid,
    "k-means": kmeans_grid, "k-means-input": input_kmeans_grid, "hqq": hqq_grid, "imatrix": imatrix_grid,
} | {name: partial(block_grid, fmt) for name, fmt in BLOCKS.items()}
METHODS: dict[str, Callable[..., Tensor]] = {"nearest": nearest, "gptq": gptq, "adaround": adaround}
BLOCK_METHODS: dict[str, Callable[..., dict[str, Tensor] | tuple[dict[str, Tensor], dict[str, Grid]]]] = {
    "brecq": brecq, "autoround": autoround, "block-ap": block_ap}


class Step(Protocol):
    """What to do to one layer. A class of steps is entered in `STEPS`; its fields are plain data, which cards keep.

    Attributes:
        label: a short name for a table.
        needs_calibration: whether it looks at the layer's inputs.
        packs: whether the layer that it gives is kept in a file in a way of its own, and not as float numbers.
    """

    label: str
    needs_calibration: bool
    packs: bool

    def __call__(self, layer: nn.Module, stats: LayerStats | None) -> nn.Module:
        """The layer to put in the place of this one."""

    def uncalibrated(self) -> "Step":
        """What to do instead to a layer that no calibration text reaches."""


@dataclass(frozen=True, init=False)
class Round:
    """Round the weights of a layer to a grid, and pack their codes.

    Attributes:
        bits: 2 to 8; 16 leaves the layer in float16.
        grid: a name in `GRIDS`.
        grid_options: keyword arguments of the grid, such as {"granularity": "group", "group_size": 64}.
        method: a name in `METHODS` or `BLOCK_METHODS`.
        method_options: keyword arguments of the method, such as {"act_order": True}.
        refit: how the scales are fitted once more to the codes that were chosen: True by least squares
            (`refit_scale`), "gain" so that no output shrinks (`unit_gain`), False not at all.
    """

    bits: int
    grid: str
    grid_options: dict
    method: str
    method_options: dict
    refit: bool | str
    packs = True

    def __init__(self, method: str = "nearest", bits: int | None = None, grid: str = "affine",
                 refit: bool | str = False,
                 grid_options: dict | None = None, method_options: dict | None = None, **options):
        """As in `Round("gptq", bits=4, group_size=64, act_order=True)`.

        Args:
            method: of rounding.
            bits: may be left out for a grid that has a width of its own, such as nf4.
            grid: of the values.
            refit: as above.
            grid_options: as above.
            method_options: as above.
            options: of the grid, of the method, or of both, by their names alone. A `group_size` makes groups.
        """
        for kind, table, name in (("grid", GRIDS, grid), ("method", METHODS | BLOCK_METHODS, method)):
            if not isinstance(name, str) or name not in table:
                raise ValueError(f"no {kind} {_shown(name)}: there are {', '.join(table)}")
        bits = own_bits(grid) if bits is None else bits
        if bits is None:
            raise ValueError(f"the grid '{grid}' needs bits: 2 to 8, or 16 to leave the layer in float16")
        if type(bits) is not int or (bits != 16 and bits not in range(2, 9)):
            raise ValueError(f"bits must be 16 or in 2..8, not {bits!r}")
        if refit not in (True, False, "gain") or isinstance(refit, int) != isinstance(refit, bool):
            raise ValueError(f"refit must be true, false or 'gain', not {_shown(refit)}")
        owners = {f"grid '{grid}'": GRIDS[grid], f"method '{method}'": (METHODS | BLOCK_METHODS)[method]}
        grid_options, method_options = _share_out(options, owners, (grid_options, method_options))
        fields = {"bits": bits, "grid": grid, "grid_options": grid_options, "method": method,
                  "method_options": method_options, "refit": refit}
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_walk()

    def _check_walk(self) -> None:
        """Raise a ValueError for a grid that is fitted along another walk than gptq would round along."""
        if self.grid in ("affine-dynamic", "entropy-coded") and self.method == "gptq":
            walks = [options.get("damping", 0.01) for options in (self.grid_options, self.method_options)]
            if self.method_options.get("act_order") or walks[0] != walks[1]:
                raise ValueError(f"the grid '{self.grid}' is fitted along one walk: gptq has to have the same damping, "
                                 "and no act_order")

    def make_grid(self, weight: Tensor, stats: LayerStats | None) -> Grid:
        """The grid of a weight (out, in)."""
        more = (stats,) if _needs_stats(GRIDS[self.grid]) else ()
        return GRIDS[self.grid](weight, self.bits, *more, **self.grid_options)

    def round(self, weight: Tensor, grid: Grid, stats: LayerStats | None) -> Tensor:
        """The codes of a weight (out, in) on its grid, for a method that rounds layer by layer."""
        return METHODS[self.method](weight, grid, stats, **self.method_options)

    def __call__(self, layer: nn.Module, stats: LayerStats | None = None) -> nn.Module:
        """The packed layer, for a method that rounds layer by layer; 16 bits leave it as it is."""
        if self.bits == 16:
            return layer
        if hasattr(layer, "rounded"):  # it is no `nn.Linear` any more, and knows best what of it is rounded
            return layer.rounded(self, stats)
        weight = weight_matrix(layer)
        grid = self.make_grid(weight, stats)
        codes = self.round(weight, grid, stats)
        return packed_layer(layer, codes, self.refitted(weight, codes, grid, stats))

    def refitted(self, weight: Tensor, codes: Tensor, grid: Grid, stats: LayerStats | None) -> Grid:
        """The grid of a weight (out, in) once its codes are chosen."""
        clipped = self.method == "gptq" and self.bits < 4 and self.grid_options.get("search") == "mse"
        if self.refit == "gain":
            return unit_gain(weight, codes, grid, stats)
        if clipped:
            warnings.warn("search='mse' with gptq below 4 bits lowers the layer's error and raises the model's loss, "
                          "because outputs shrink: refit='gain' corrects that, search='minmax' avoids it", stacklevel=3)
        return refit_scale(weight, codes, grid, stats) if self.refit else grid

    def uncalibrated(self) -> "Round":
        """The same grid, or that of its kind which looks at no inputs, rounded to nearest."""
        grid = _WITHOUT_INPUTS.get(self.grid, self.grid)
        options = {name: value for name, value in self.grid_options.items() if name in _options(GRIDS[grid])}
        return Round("nearest", self.bits, grid, self.refit, **options)

    @property
    def needs_calibration(self) -> bool:
        """Whether the method, or the grid, looks at the layer's inputs."""
        return self.bits != 16 and (
            self.blockwise or _needs_stats(METHODS[self.method]) or _needs_stats(GRIDS[self.grid]))

    @property
    def blockwise(self) -> bool:
        """Whether the method rounds all layers of a block together."""
        return self.method in BLOCK_METHODS

    @property
    def label(self) -> str:
        """A short name for a table, as "gptq 4 bit" or "gptq nf4"."""
        if self.bits == 16:
            return "float16"
        if self.grid == "entropy-coded":
            return f"{self.method} {self.grid_options['rate']:g} bit entropy-coded"
        return f"{self.method} {self.bits} bit" if self.grid == "affine" else f"{self.method} {self.grid}"


@dataclass(frozen=True)
class Chain:
    """Several steps, one after the other: each changes the layer that the one before it gave.

    A step may take the next one over and do both in one walk, as SparseGPT does: see `Prune.joined`.
    """

    steps: tuple[Step, ...]

    def __post_init__(self):
        if not self.steps:
            raise ValueError("a list of steps is empty: bits=16 leaves a layer as it is")
        if any(is_blockwise(step) for step in self.steps):
            raise ValueError("a method that rounds all layers of a block together takes no other step with it")

    def __call__(self, layer: nn.Module, stats: LayerStats | None = None) -> nn.Module:
        """The layer after all steps."""
        waiting = list(self.steps)
        while waiting:
            step = waiting.pop(0)
            both = step.joined(waiting[0]) if waiting and hasattr(step, "joined") else None
            if both:
                del waiting[0]
            layer = (both or step)(layer, stats)
        return layer

    def uncalibrated(self) -> "Chain":
        """The same, each step without calibration."""
        return Chain(tuple(step.uncalibrated() for step in self.steps))

    @property
    def packs(self) -> bool:
        """Whether the last layer is kept in a way of its own."""
        return self.steps[-1].packs

    @property
    def needs_calibration(self) -> bool:
        """Whether a step looks at the layer's inputs."""
        return any(step.needs_calibration for step in self.steps)

    @property
    def label(self) -> str:
        """As "sparsegpt 50 %, gptq 4 bit"."""
        return ", ".join(step.label for step in self.steps)


# By the `step` of what a card keeps; "round" where it names none. Other homes enter theirs when they are imported.
STEPS: dict[str, type] = {"round": Round}
_HOMES = ("nanoq.compress.steps", "nanoq.quant.vector")

# A grid that wants to see a layer's inputs, and what stands for it where none are seen.
_WITHOUT_INPUTS = {"affine-dynamic": "affine", "imatrix": "affine", "k-means-input": "k-means"}

# What an option may be, by its annotation; a whole number is a number, too, but true and false are none.
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a name", NoneType: "null"}


def _share_out(options: dict, owners: dict[str, Callable], named: Iterable[dict | None]) -> list[dict]:
    """The options of each owner: those that were named for it, and those of the others that it knows; checked."""
    known = {owner: _options(function) for owner, function in owners.items()}
    for option in options:
        if not any(option in own for own in known.values()):
            lists = "; ".join(f"the {owner} has {', '.join(own) or 'none'}" for owner, own in known.items())
            raise ValueError(f"no option '{option}': {lists}")
    shares = []
    for (owner, own), more in zip(known.items(), named, strict=True):
        if not isinstance(more, dict | None):
            raise ValueError(f"the options of the {owner} must be options and their values, not {_shown(more)}")
        share = {option: value for option, value in options.items() if option in own} | (more or {})
        if share.get("group_size") is not None and "granularity" in own:
            share = {"granularity": "group"} | share
        _check_options(owner, owners[owner], share)
        shares.append(share)
    return shares


def _options(function: Callable) -> dict[str, inspect.Parameter]:
    """The options of a grid or a method, by name: its keyword-only parameters."""
    return {parameter.name: parameter for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY}


def _check_options(owner: str, function: Callable, options: dict) -> None:
    """Raise a ValueError unless a grid or a method takes these options, with values of the types in its annotations."""
    known = _options(function)
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"{owner} has no option '{option}'; it has {', '.join(known) or 'none'}")
        annotation = known[option].annotation
        kinds = get_args(annotation) or (annotation,)
        if set(kinds) <= set(_KINDS) and not any(map(partial(_is_a, value), kinds)):
            raise ValueError(f"{owner} takes {' or '.join(_KINDS[kind] for kind in kinds)} for '{option}', not "
                             f"{_shown(value)}")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"{owner} needs the option '{option}'")


def _is_a(value: object, kind: type) -> bool:
    if kind is float:
        largest = sys.float_info.max
        return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _shown(value: object) -> str:
    """What a recipe says in the place of something else, at most a line of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _needs_stats(function: Callable) -> bool:
    stats = inspect.signature(function).parameters.get("stats")
    return stats is not None and stats.default is stats.empty


def own_bits(grid: str) -> int | None:
    """The width of a grid that has one of its own, as nf4 and ternary ones; None for others."""
    own = {"ternary": CODE_BITS, "entropy-coded": CODED_BITS}
    return own.get(grid) or (BLOCKS[grid].bits if grid in BLOCKS else None)


def has_seed(method: str) -> bool:
    """Whether a method draws at random, and has an option that says what."""
    methods = METHODS | BLOCK_METHODS
    return method in methods and "seed" in _options(methods[method])


def is_idle(step: Step) -> bool:
    """Whether a step leaves a layer as it is, in float16."""
    return isinstance(step, Round) and step.bits == 16


def is_blockwise(step: Step) -> bool:
    """Whether a step rounds all layers of a block together."""
    return isinstance(step, Round) and step.blockwise


def _as_step(steps: Step | Iterable[Step]) -> Step:
    """One step of several."""
    if not isinstance(steps, (list, tuple)):
        return steps
    return steps[0] if len(steps) == 1 else Chain(tuple(steps))


@dataclass(frozen=True, init=False)
class Recipe:
    """Which layer gets which step.

    Attributes:
        default: the step of layers that no rule names.
        rules: layer names, or patterns with * and ?, and their steps; the first match counts.
        true_sequential: whether a layer also sees what the changed layers before it *in its block* give it, for which
            the block runs once more for each of them (the official GPTQ code's option of that name).
        match_original: whether each layer is fitted to the outputs that it has in the *unquantised* model, rather than
            to its own on the inputs that it gets now (`LayerStats.target`). It goes with `true_sequential`: without,
            the layers of a block that share an input make up for the same errors, and it helped no model of the tests
            in the mean. Methods that round whole blocks always do so.
        embeddings: bits of the embedding tables and of the head outside the blocks: 16, which is float16, 8 or 4.
        precision: "fp32", or "bf16": products of matrices in bfloat16 while calibration text goes through the blocks,
            which is faster where the processor multiplies it. What is learned from the text is summed in float32.
    """

    default: Step
    rules: dict[str, Step]
    true_sequential: bool
    match_original: bool
    embeddings: int
    precision: str

    def __init__(self, *default: str | Step, rules: Mapping[str, Step | Iterable[Step]] | None = None,
                 true_sequential: bool = False, match_original: bool = False, embeddings: int = 16,
                 precision: str = "fp32", **options):
        """As in `Recipe("gptq", bits=4, group_size=64)`, `Recipe(grid="nf4")` or `Recipe(Prune(), Round("gptq", 4))`.

        Args:
            default: the name of a rounding method, with options for `Round`; or one step, or several in turn.
            rules: as above; a list of steps is done in turn.
            true_sequential: as above.
            match_original: as above.
            embeddings: as above.
            precision: as above.
            options: of `Round`, where `default` is a name or left out.
        """
        if not default or isinstance(default[0], str):
            default = (Round(*default, **options),)
        elif options:
            raise ValueError(f"the option '{next(iter(options))}' belongs to a step: give it to the step")
        rules = {} if rules is None else {pattern: _as_step(steps) for pattern, steps in rules.items()}
        if type(embeddings) is not int or embeddings not in WIDTHS:
            raise ValueError(f"embeddings must have 16, 8 or 4 bits, not {_shown(embeddings)}")
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', not {_shown(precision)}")
        fields = {"default": _as_step(default), "rules": rules, "true_sequential": true_sequential,
                  "match_original": match_original, "embeddings": embeddings, "precision": precision}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step of it."""
        return (self.default, *self.rules.values())

    @property
    def needs_calibration(self) -> bool:
        """Whether a step of the recipe looks at the layers' inputs."""
        return self.match_original or any(step.needs_calibration for step in self.steps)

    @property
    def label(self) -> str:
        """A short name for a table, as "gptq 4 bit" or "gptq 4 bit, mixed"."""
        kinds = dict.fromkeys(step.label for step in self.steps if not is_idle(step))
        first = self.default.label if not is_idle(self.default) else next(iter(kinds), self.default.label)
        return f"{first}, mixed" if len(kinds) > 1 else first

    def resolve(self, layers: Iterable[str], aliases: Mapping[str, Iterable[str]] | None = None) -> dict[str, Step]:
        """The step of each named layer.

        Args:
            layers: names in the model.
            aliases: other names of a layer that rules may use, such as those in the model of transformers.

        Raises:
            ValueError: if a rule names no layer.
        """
        names = {layer: (layer, *(aliases or {}).get(layer, ())) for layer in layers}
        for pattern in self.rules:
            if not any(fnmatchcase(name, pattern) for own in names.values() for name in own):
                raise ValueError(f"the recipe's '{pattern}' names no layer; there are {', '.join(names)}")
        return {layer: next((step for pattern, step in self.rules.items()
                             if any(fnmatchcase(name, pattern) for name in own)), self.default)
                for layer, own in names.items()}

    def to_json(self) -> dict:
        """The recipe as plain data, which `from_json` reads."""
        data = {"default": _to_json(self.default), "rules": {name: _to_json(step) for name, step in self.rules.items()}}
        data |= {name: True for name in _SWITCHES if getattr(self, name)}
        return data | {name: getattr(self, name) for name, usual in _USUAL.items() if getattr(self, name) != usual}

    @classmethod
    def from_json(cls, data: dict) -> "Recipe":
        """The recipe that `to_json` wrote, or that a file gives in the same form.

        Raises:
            ValueError: if it is not of that form.
        """
        try:
            if unknown := set(data) - {"default", "rules", *OF_ALL}:
                raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
            switches = {name: data[name] for name in _SWITCHES if name in data}
            if not all(isinstance(value, bool) for value in switches.values()):
                raise TypeError(f"{' and '.join(switches)} must be true or false")
            rules = {pattern: _from_json(step) for pattern, step in data.get("rules", {}).items()}
            others = {name: data[name] for name in _USUAL if name in data}
            return cls(_from_json(data["default"]), rules=rules, **others, **switches)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"not a recipe ({error}): it needs a 'default' with 'bits', and may have 'rules'"
            ) from None


_SWITCHES = ("true_sequential", "match_original")
_USUAL = {"embeddings": 16, "precision": "fp32"}
OF_ALL = (*_SWITCHES, *_USUAL)  # what a recipe says once for all layers


def _to_json(step: Step) -> dict | list[dict]:
    if isinstance(step, Chain):
        return [_to_json(each) for each in step.steps]
    name = next((name for name, kind in STEPS.items() if type(step) is kind), None)
    if name is None:
        raise ValueError(f"a {type(step).__name__} is in no card: enter its class in STEPS")
    return asdict(step) if name == "round" else {"step": name} | asdict(step)


def _from_json(data: dict | list) -> Step:
    if isinstance(data, list) and data:
        return _as_step([_from_json(each) for each in data])
    fields = dict(data)
    name = fields.pop("step", "round")
    for home in _HOMES:
        import_module(home)
    if not isinstance(name, str) or name not in STEPS:
        raise ValueError(f"no step {_shown(name)}: there are {', '.join(STEPS)}")
    return STEPS[name](**fields)
