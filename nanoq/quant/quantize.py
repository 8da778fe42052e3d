"""The driver: a whole model through a recipe, to a file, and back."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.adaround import BlockData
from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import Grid, check_weight
from nanoq.quant.layers import linear_layers, weight_matrix
from nanoq.quant.qlinear import QuantLayer, packed_layer
from nanoq.quant.recipe import BLOCK_METHODS, Recipe, Round
from nanoq.quant.rounding import refit_scale
from nanoq.quant.visit import Stage, each_layer, stages
from nanoq.store import Checkpoint, load, naming, save, stored


@dataclass(frozen=True)
class LayerReport:
    """What happened to one layer.

    Attributes:
        layer: its name in the model.
        spec: what was done.
        output_error: mean squared error of its outputs over their mean square, on the calibration text; None without.
        warnings: what the method had to work around.
    """

    layer: str
    spec: Round
    output_error: float | None
    warnings: list[str]


@torch.no_grad()
def quantize_model(
    model: nn.Module, recipe: Recipe, calibration: Tensor | None = None, batch: int = 16,
    true_sequential: bool = False, asymmetric: bool = False,
) -> list[LayerReport]:
    """Quantise a model in place, block by block, each block calibrated on the outputs of the quantised ones before it.

    The layers that the recipe names become `QuantLinear` or `QuantConv2d`. Everything else, embeddings, norms and the
    tied head among it, is rounded to float16, as it is stored, and goes on computing in its own type. The model is left
    in evaluation mode.

    Args:
        model: has `blocks`, each a module that maps hidden states to hidden states, and `embed`, which maps tokens or
            pictures to the hidden states that enter the first block; and `head`, from the last hidden states to logits,
            for methods that ask for gradients.
        recipe: what to do to each layer.
        calibration: what `embed` takes: tokens (windows, T) or pictures (N, channels, height, width). A method such as
            GPTQ needs it; with it every layer's error is reported.
        batch: windows or pictures that go through a block at once.
        true_sequential: whether a layer also sees what the quantised layers before it *in its block* give it, for
            which the block runs once more for each of them (the official GPTQ code's option of that name).
        asymmetric: whether each layer is fitted to the outputs that it has in the *unquantised* model, rather than to
            its own on the inputs that it gets now (`LayerStats.target`). It goes with `true_sequential`: without, the
            layers of a block that share an input make up for the same errors, and it helped no model of the tests in
            the mean. Methods that round whole blocks always do so.

    Raises:
        ValueError: if the model is quantised already, the recipe names a layer that is not there, a weight holds NaN
            or does not fit its type, or a method needs calibration and there is none. After an error the model may be
            partly quantised: load it again.
    """
    specs = plan(model, recipe, calibration, asymmetric)
    for name in specs:
        with naming(name):
            check_weight(weight_matrix(model.get_submodule(name)))
    round_others(model.eval(), set(specs))
    batches = [] if calibration is None else list(calibration.split(batch))
    fisher = output_fisher(model, batches) if any(s.method_options.get("fisher") for s in specs.values()) else None
    reports = []
    for index, stage in enumerate(stages(model, batches, asymmetric or any(s.blockwise for s in specs.values()))):
        reports += quantize_block(stage, specs, true_sequential, asymmetric, fisher and fisher[index])
    return reports


def plan(model: nn.Module, recipe: Recipe, calibration: Tensor | None, asymmetric: bool = False
         ) -> dict[str, Round]:
    """The specs of the layers that `quantize_model` would quantise, after a look whether it can; no weight is read."""
    if any(isinstance(module, QuantLayer) for module in model.modules()):
        raise ValueError("the model is quantised already: start from the checkpoint that it was made from")
    layers = linear_layers(model)
    if not layers:
        raise ValueError("the model has no linear layer in its blocks: was it pruned already?")
    specs = {name: spec for name, spec in recipe.resolve(list(layers)).items() if spec.bits != 16}
    if calibration is None and (asymmetric or any(spec.needs_calibration for spec in specs.values())):
        raise ValueError("the recipe has a method that needs calibration: pass windows of training text")
    if calibration is not None and (calibration.dim() < 2 or not calibration.numel()):
        raise ValueError(f"calibration must be tokens (windows, T), not of shape {tuple(calibration.shape)}")
    return specs


def quantize_block(stage: Stage, specs: dict[str, Round], true_sequential: bool = False, asymmetric: bool = False,
                   fisher: list[Tensor] | None = None) -> list[LayerReport]:
    """Quantise the layers of one block, in place, as their specs, by name in the model, say; `quantize_model` does."""
    mine = {name.removeprefix(stage.prefix): spec for name, spec in specs.items() if name.startswith(stage.prefix)}
    alone, reports = [name for name, spec in mine.items() if not spec.blockwise], []
    for name, layer, stats in each_layer(stage, alone, true_sequential, asymmetric):
        spec = specs[name]
        if stage.calls and stats is None and spec.needs_calibration:
            warnings.warn(f"{name}: no text of the calibration reaches it; it is rounded to nearest", stacklevel=3)
            spec = Round(bits=spec.bits, grid=spec.grid, grid_options=spec.grid_options, refit=spec.refit)
        quantized, report = quantize_layer(name, layer, spec, stats)
        stage.block.set_submodule(name.removeprefix(stage.prefix), quantized)
        reports.append(report)
        del layer, stats  # which are large, while the next one's are gathered
    return reports + _together(stage, mine, fisher)


def _together(stage: Stage, specs: dict[str, Round], fisher: list[Tensor] | None) -> list[LayerReport]:
    """Quantise the layers of a block whose method takes them all at once, those with the same options together."""
    block, prefix = stage.block, stage.prefix
    waiting, reports = {name: spec for name, spec in specs.items() if spec.blockwise}, []
    while waiting:
        first = next(iter(waiting.values()))
        chosen = {name: spec for name, spec in waiting.items()
                  if (spec.method, spec.method_options) == (first.method, first.method_options)}
        layers = {name: block.get_submodule(name) for name in chosen}
        stats = stage.statistics(layers)
        data = BlockData([call.args[0] for call in stage.calls], stage.targets, fisher)
        weights, grids = {name: weight_matrix(layer) for name, layer in layers.items()}, {}
        for name, spec in chosen.items():
            with naming(prefix + name):
                check_calibration(weights[name], stats.get(name))
                grids[name] = spec.make_grid(weights[name], stats.get(name))
        codes = BLOCK_METHODS[first.method](block, grids, data, **first.method_options)
        for name, spec in chosen.items():
            del waiting[name]
            with naming(prefix + name):
                grid, error = _settle(weights[name], grids[name], codes[name], spec, stats.get(name))
            block.set_submodule(name, packed_layer(layers[name], codes[name], grid))
            reports.append(LayerReport(prefix + name, spec, error, []))
    return reports


def round_others(model: nn.Module, layers: set[str]) -> None:
    """Round every parameter but the weights of the named layers to what a file keeps of it."""
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") not in layers:
            parameter.copy_(stored(name, parameter))


def quantize_layer(
    name: str, layer: nn.Module, spec: Round, stats: LayerStats | None
) -> tuple[QuantLayer, LayerReport]:
    """Quantise one layer as its spec says; warnings of the method go into the report and are shown with its name.

    Raises:
        ValueError: whatever is wrong with the layer, by its name.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with naming(name):
            weight = weight_matrix(layer)
            if stats:
                weight = stats.target(weight)
            grid = spec.make_grid(weight, stats)
            codes = spec.round(weight, grid, stats)
            grid, error = _settle(weight, grid, codes, spec, stats)
    messages = list(dict.fromkeys(str(warning.message) for warning in caught))  # grid and method may say the same
    for message in messages:
        warnings.warn(f"{name}: {message}", stacklevel=2)
    return packed_layer(layer, codes, grid), LayerReport(name, spec, error, messages)


def _settle(
    weight: Tensor, grid: Grid, codes: Tensor, spec: Round, stats: LayerStats | None
) -> tuple[Grid, float | None]:
    """The grid to store, refitted if the spec says so, and the layer's error."""
    if spec.refit:
        grid = refit_scale(weight, codes, grid, stats)
    return grid, stats.output_error(weight, grid.decode(codes)) if stats else None


def output_fisher(model: nn.Module, batches: list[Tensor], seed: int = 0) -> list[list[Tensor]]:
    """Squared gradients of the model's loss at the output of each block, for each batch of calibration.

    The labels are drawn from the model's own predictions, which makes the mean of the squares the diagonal of the
    Fisher information, and needs no labels of the data. They are divided by their mean over a block's outputs.
    """
    generator = torch.Generator(batches[0].device).manual_seed(seed)
    fisher = [[] for _ in model.blocks]
    for rows in batches:
        with torch.enable_grad():
            hidden = [model.embed(rows).detach().requires_grad_()]
            for block in model.blocks:
                hidden.append(block(hidden[-1]))
            logits = model.head(hidden[-1]).flatten(0, -2)
            labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            gradients = torch.autograd.grad(loss, hidden[1:])
        for own, gradient in zip(fisher, gradients, strict=True):
            own.append(gradient.square())
    means = [sum(float(part.sum()) for part in own) / sum(part.numel() for part in own) for own in fisher]
    return [[part / mean for part in own] for own, mean in zip(fisher, means, strict=True)]


def save_quantized(folder: Path | str, checkpoint: Checkpoint, recipe: Recipe) -> Path:
    """Write a checkpoint whose model was quantised: packed codes with their grids, everything else in float16.

    The card keeps what it says of the training. `load_quantized` gives a model with the same logits, bit for bit.
    """
    return save(folder, checkpoint, half=True, recipe=recipe.to_json())


def load_quantized(name_or_path: str | Path) -> Checkpoint:
    """Load a checkpoint, quantised or not: `nanoq.store.load`."""
    return load(name_or_path)
