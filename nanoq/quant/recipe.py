"""Recipes: what to do to a whole model, as data."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from types import NoneType
from typing import get_args

from torch import Tensor

from nanoq.numbers.blocks import BLOCKS
from nanoq.quant.adaround import adaround, brecq
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.embeddings import WIDTHS
from nanoq.quant.gptq import dynamic_grid, gptq
from nanoq.quant.grid import Grid, affine_grid, block_grid
from nanoq.quant.rounding import nearest
from nanoq.quant.spaces import power_law_grid, power_of_two_grid
from nanoq.quant.ternary import ternary_grid

# A new method is one more function here. Grid makers are called as make(weight, bits, **grid_options), rounding
# methods as method(weight, grid, stats, **method_options). A parameter `stats` without a default means that calibration
# is needed; a grid maker with one is given it as the third argument. Methods that round all layers of a block together
# are called as method(block, grids, data, **method_options).
GRIDS: dict[str, Callable[..., Grid]] = {
    "affine": affine_grid, "affine-dynamic": dynamic_grid, "ternary": ternary_grid,
    "power-of-two": power_of_two_grid, "power-law": power_law_grid,
} | {name: partial(block_grid, fmt) for name, fmt in BLOCKS.items()}
METHODS: dict[str, Callable[..., Tensor]] = {"nearest": nearest, "gptq": gptq, "adaround": adaround}
BLOCK_METHODS: dict[str, Callable[..., dict[str, Tensor]]] = {"brecq": brecq}


@dataclass(frozen=True)
class LayerSpec:
    """How to quantise one layer.

    Attributes:
        bits: 2 to 8; 16 leaves the layer in float16.
        grid: a name in `GRIDS`.
        grid_options: keyword arguments of the grid, such as {"granularity": "group", "group_size": 64}.
        method: a name in `METHODS` or `BLOCK_METHODS`.
        method_options: keyword arguments of the method, such as {"act_order": True}.
        refit: whether the scales are fitted once more to the codes that were chosen, by `refit_scale`.
    """

    bits: int
    grid: str = "affine"
    grid_options: dict = field(default_factory=dict)
    method: str = "nearest"
    method_options: dict = field(default_factory=dict)
    refit: bool = False

    def __post_init__(self):
        if not isinstance(self.bits, int) or (self.bits != 16 and self.bits not in range(2, 9)):
            raise ValueError(f"bits must be 16 or in 2..8, not {self.bits!r}")
        for kind, table, name, options in (
            ("grid", GRIDS, self.grid, self.grid_options),
            ("method", METHODS | BLOCK_METHODS, self.method, self.method_options),
        ):
            if not isinstance(name, str) or name not in table:
                raise ValueError(f"no {kind} {_shown(name)}: there are {', '.join(table)}")
            if not isinstance(options, dict):
                raise ValueError(f"{kind}_options must be options and their values, not {_shown(options)}")
            _check_options(f"{kind} '{name}'", table[name], options)
        if not isinstance(self.refit, bool):
            raise ValueError(f"refit must be true or false, not {_shown(self.refit)}")
        if self.grid == "affine-dynamic" and self.method == "gptq":
            walks = [options.get("damping", 0.01) for options in (self.grid_options, self.method_options)]
            if self.method_options.get("act_order") or walks[0] != walks[1]:
                raise ValueError("dynamic groups are fitted along one walk: gptq has to have the same damping as the "
                                 "grid 'affine-dynamic', and no act_order")

    def make_grid(self, weight: Tensor, stats: LayerStats | None) -> Grid:
        """The grid of a weight (out, in)."""
        more = (stats,) if _needs_stats(GRIDS[self.grid]) else ()
        return GRIDS[self.grid](weight, self.bits, *more, **self.grid_options)

    def round(self, weight: Tensor, grid: Grid, stats: LayerStats | None) -> Tensor:
        """The codes of a weight (out, in) on its grid, for a method that rounds layer by layer."""
        return METHODS[self.method](weight, grid, stats, **self.method_options)

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
        return f"{self.method} {self.bits} bit" if self.grid == "affine" else f"{self.method} {self.grid}"


# What an option may be, by its annotation; a whole number is a number, too, but true and false are none.
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a name", NoneType: "null"}


def _check_options(owner: str, function: Callable, options: dict) -> None:
    """Look whether a grid or a method takes these options, and values of their types; annotations say which."""
    known = {parameter.name: parameter for parameter in inspect.signature(function).parameters.values()
             if parameter.kind is parameter.KEYWORD_ONLY}
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


@dataclass(frozen=True)
class Recipe:
    """Maps layer names to what is done to them.

    Attributes:
        rules: layer names, or patterns with * and ?, and their specs; the first match counts.
        default: the spec of layers that no rule names.
        embeddings: bits of the embedding tables and of the head outside the blocks: 16, which is float16, 8 or 4.
    """

    default: LayerSpec
    rules: dict[str, LayerSpec] = field(default_factory=dict)
    embeddings: int = 16

    def __post_init__(self):
        if type(self.embeddings) is not int or self.embeddings not in WIDTHS:
            raise ValueError(f"embeddings must have 16, 8 or 4 bits, not {_shown(self.embeddings)}")

    @classmethod
    def uniform(cls, bits: int, method: str = "nearest", **options) -> "Recipe":
        """The same for every layer; `options` are fields of `LayerSpec`."""
        return cls(LayerSpec(bits, method=method, **options))

    @property
    def needs_calibration(self) -> bool:
        """Whether a method of the recipe looks at the layers' inputs."""
        return any(spec.needs_calibration for spec in (self.default, *self.rules.values()))

    def resolve(self, layers: list[str]) -> dict[str, LayerSpec]:
        """The spec of each named layer.

        Raises:
            ValueError: if a rule names no layer.
        """
        for pattern in self.rules:
            if not any(fnmatchcase(layer, pattern) for layer in layers):
                raise ValueError(f"the recipe's '{pattern}' names no layer; there are {', '.join(layers)}")
        return {
            layer: next((spec for pattern, spec in self.rules.items() if fnmatchcase(layer, pattern)), self.default)
            for layer in layers
        }

    def to_json(self) -> dict:
        """The recipe as plain data, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> "Recipe":
        """The recipe that `to_json` wrote, or that a file gives in the same form.

        Raises:
            ValueError: if it is not of that form.
        """
        try:
            if unknown := set(data) - {"default", "rules", "embeddings"}:
                raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
            rules = {pattern: LayerSpec(**spec) for pattern, spec in data.get("rules", {}).items()}
            return cls(LayerSpec(**data["default"]), rules, data.get("embeddings", 16))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"not a recipe ({error}): it needs a 'default' with 'bits', and may have 'rules'"
            ) from None
