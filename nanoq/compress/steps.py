"""Pruning and low rank as steps of a recipe, and adapters that heal a rounded model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from nanoq.compress.layers import (
    AdapterLinear,
    LowRankLinear,
    SparseQuantLayer,
    sparse_layer,
    sparse_quant_layer,
)
from nanoq.compress.lowrank import low_rank, rank_for
from nanoq.compress.sparsity import check_method, check_pattern, prune, sparsegpt
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.layers import weight_matrix
from nanoq.quant.qlinear import QuantLayer
from nanoq.quant.quantize import quantize_model
from nanoq.quant.recipe import STEPS, Recipe, Round, Step, is_idle
from nanoq.quant.visit import visit
from nanoq.store import geometry, naming, stored


@dataclass(frozen=True)
class Prune:
    """Set weights of a linear layer or a convolution, seen as a matrix (out, in), to 0, by `prune`.

    A convolution's matrix has a column for each channel and place of the kernel (`weight_matrix`). With a `Round` after
    it, what stays is rounded: by SparseGPT in the same walk.

    Attributes:
        method: a name in `SCORES`, or "sparsegpt".
        sparsity: as in `mask`.
        pattern: as in `mask`.
        pack: whether layers become sparse ones; otherwise they stay what they are, with zeros, to be trained or pruned
            on. With a sparsity of 0, what is 0 already is packed.
    """

    method: str = "sparsegpt"
    sparsity: float = 0.5
    pattern: str = "row"
    pack: bool = True

    def __post_init__(self):
        check_method(self.method)
        check_pattern(self.sparsity, self.pattern)

    def __call__(self, layer: nn.Module, stats: LayerStats | None = None) -> nn.Module:
        """The layer with zeros."""
        weight = _matrix(layer)
        pruned = prune(weight, stats, method=self.method, sparsity=self.sparsity, pattern=self.pattern)
        if self.pack:
            return sparse_layer(pruned, layer.bias, geometry(layer))
        with torch.no_grad():
            layer.weight.copy_(pruned.view_as(layer.weight))
        return layer

    def joined(self, step: object) -> "_PruneAndRound | None":
        """This and a `Round` in one walk, if it is SparseGPT and GPTQ."""
        gptq = isinstance(step, Round) and step.method == "gptq" and not is_idle(step) and not step.refit and not (
            step.method_options.keys() - {"damping"})
        return _PruneAndRound(self, step) if gptq and self.method == "sparsegpt" else None

    def uncalibrated(self) -> "Prune":
        """By magnitude."""
        return replace(self, method="magnitude")

    @property
    def needs_calibration(self) -> bool:
        """Whether the method looks at the layer's inputs."""
        return self.method in ("wanda", "sparsegpt")

    @property
    def packs(self) -> bool:
        """Whether zeros are left out of a file."""
        return self.pack

    @property
    def label(self) -> str:
        """As "sparsegpt 50 %" or "wanda 2:4"."""
        return f"{self.method} " + (self.pattern if ":" in self.pattern else f"{100 * self.sparsity:g} %")


@dataclass(frozen=True)
class _PruneAndRound:
    """SparseGPT with rounding in the same walk."""

    prune: Prune
    round: Round

    def __call__(self, layer: nn.Module, stats: LayerStats | None) -> SparseQuantLayer:
        weight = _matrix(layer)
        grid = self.round.make_grid(weight, stats)
        how = {"sparsity": self.prune.sparsity, "pattern": self.prune.pattern}
        pruned = sparsegpt(weight, stats, grid, **how, damping=self.round.method_options.get("damping", 0.01))
        return sparse_quant_layer(pruned, grid, layer.bias, geometry(layer))


@dataclass(frozen=True)
class LowRank:
    """Make two thin layers of one, by `low_rank`.

    Attributes:
        ratio: numbers of the two over those of the layer, in (0, 1).
        whitened: whether the outputs on the calibration text count, or the weights alone.
    """

    ratio: float
    whitened: bool = True
    packs: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio must lie in (0, 1), not {self.ratio!r}")

    def __call__(self, layer: nn.Module, stats: LayerStats | None = None) -> LowRankLinear:
        """The two layers."""
        weight = _weight(layer)
        factors = low_rank(weight, rank_for(weight.shape, self.ratio), stats if self.whitened else None)
        return LowRankLinear(*(stored("a factor", factor).float() for factor in factors), layer.bias)  # as in a file

    def uncalibrated(self) -> "LowRank":
        """By the weights alone."""
        return replace(self, whitened=False)

    @property
    def needs_calibration(self) -> bool:
        """Whether it looks at the layer's inputs."""
        return self.whitened

    @property
    def label(self) -> str:
        """As "low rank 50 %"."""
        return f"low rank {100 * self.ratio:g} %"


STEPS.update({"prune": Prune, "low-rank": LowRank})


def _matrix(layer: nn.Module) -> Tensor:
    """The weight matrix (out, in) of a linear layer or a convolution in float32."""
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise ValueError(f"a {type(layer).__name__} is not pruned: linear layers and convolutions are, before they are "
                         "rounded")
    return weight_matrix(layer)


def _weight(layer: nn.Module) -> Tensor:
    """The weight (out, in) of a linear layer in float32."""
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"a {type(layer).__name__} is given no low rank: linear layers are, before they are rounded")
    return layer.weight.detach().float()


def compress_model(model: nn.Module, steps: Step | Sequence[Step], calibration: Tensor | None = None) -> nn.Module:
    """Do the same to every layer, one step or several in turn: `quantize_model` that gives the model back."""
    quantize_model(model, Recipe(*(steps if isinstance(steps, Sequence) else [steps])), calibration)
    return model


@torch.no_grad()
def add_adapters(model: nn.Module, rank: int, original: nn.Module | None = None, calibration: Tensor | None = None,
                 batch: int = 16) -> nn.Module:
    """Put a low-rank correction beside each packed layer of a quantised model, in place; only these are left to train.

    Args:
        model: quantised by `nanoq.quant.quantize_model`.
        rank: of the corrections.
        original: the model before; the corrections then start at the best low-rank part of the rounding error
            (`AdapterLinear.beside`) instead of at 0.
        calibration: windows (W, T), so that "best" is meant for the outputs.
        batch: windows that go through a block at once.

    Raises:
        ValueError: if there is no quantised layer, or one has another shape in the original.
    """
    layers = [f"blocks.{name}" for name, layer in model.blocks.named_modules() if isinstance(layer, QuantLayer)]
    if not layers or any(isinstance(layer, AdapterLinear) for layer in model.modules()):
        raise ValueError("adapters stand beside packed layers: the model has none, or has adapters already")
    batches = [] if calibration is None else list(calibration.split(batch))
    for name, layer, stats in visit(model.eval(), batches, layers):
        with naming(name):
            target = None if original is None else _weight(original.get_submodule(name))
            model.set_submodule(name, AdapterLinear.beside(layer, rank, target, stats))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, AdapterLinear):
            module.adapter.requires_grad_(True)
    return model
