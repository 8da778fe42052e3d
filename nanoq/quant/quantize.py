"""The driver: a whole model through a recipe."""

import warnings
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.bound import bits_above_bound, weight_bits
from nanoq.quant.calibrate import LayerStats, check_calibration, check_inputs
from nanoq.quant.embeddings import pack_tables
from nanoq.quant.grid import check_weight
from nanoq.quant.layers import linear_layers, weight_matrix
from nanoq.quant.learned_rounding import BlockData
from nanoq.quant.online import HadamardLinear
from nanoq.quant.qlinear import QuantLayer, packed_layer
from nanoq.quant.recipe import BLOCK_METHODS, Recipe, Round, Step, is_blockwise, is_idle
from nanoq.quant.vector import VectorLinear
from nanoq.quant.visit import Stage, each_layer, stages
from nanoq.store import naming, stored


@dataclass(frozen=True)
class LayerReport:
    """What happened to one layer.

    Attributes:
        layer: its name in the model.
        step: what was done.
        output_error: mean squared error of its outputs over their mean square, on the calibration text; None without.
        bits: per weight that a file takes for it, with scales.
        bits_above_bound: how many of them a Gaussian model of the layer could do without at the same error
            (`nanoq.quant.bound`); None without calibration, and where that is not asked for or not worked out.
        warnings: what the method had to work around.
    """

    layer: str
    step: Step
    output_error: float | None
    bits: float
    bits_above_bound: float | None
    warnings: list[str]


@torch.no_grad()
def quantize_model(
    model: nn.Module, recipe: Recipe, calibration: Tensor | None = None, batch: int = 16, bound: bool = False,
) -> list[LayerReport]:
    """Carry out a recipe in place, block by block, each calibrated on the outputs of the changed ones before it.

    What is rounded becomes `QuantLinear` or `QuantConv2d`, what is pruned `SparseLinear` or `SparseConv2d`, and so on.
    Embedding tables and the head are packed if `recipe.embeddings` is 8 or 4; the blocks are then calibrated on what
    they give. Where anything is packed, everything else is rounded to float16, as it is stored, and goes on computing
    in its own type. The model is left in evaluation mode; `model.recipe` has the recipe as plain data, which files
    keep.

    Args:
        model: has `blocks`, each a module that maps hidden states to hidden states, and `embed`, which maps tokens or
            pictures to the hidden states that enter the first block; and `head`, from the last hidden states to logits,
            for methods that ask for gradients.
        recipe: what to do to each layer.
        calibration: what `embed` takes: tokens (windows, T) or pictures (N, channels, height, width). A method such as
            GPTQ needs it; with it every layer's error is reported.
        batch: windows or pictures that go through a block at once.
        bound: whether the reports have `bits_above_bound`, which wants the eigenvalues of each Gram matrix.

    Raises:
        ValueError: if the model is quantised already, the recipe names a layer that is not there, a weight holds NaN
            or does not fit its type, or a step needs calibration and there is none. After an error the model may be
            partly changed: load it again.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    steps = plan(model.eval(), recipe, calibration)
    for name in steps:
        with naming(name):
            check_weight(weight_matrix(model.get_submodule(name)))
    if recipe.embeddings != 16:
        pack_tables(model, recipe.embeddings)
    if any(step.packs for step in steps.values()) or not steps or recipe.embeddings != 16:
        round_others(model, set(steps))
    batches = [] if calibration is None or not steps else list(calibration.split(batch))
    blockwise = [step for step in steps.values() if is_blockwise(step)]
    if blockwise:
        _let_blocks_run_alone(model, batches[0][:1])
    fisher = output_fisher(model, batches) if any(s.method_options.get("fisher") for s in blockwise) else None
    reports = []
    original = recipe.match_original or bool(blockwise)
    for index, stage in enumerate(stages(model, batches, original, precision=recipe.precision)):
        reports += quantize_block(stage, steps, recipe, fisher and fisher[index], bound)
    model.recipe = recipe.to_json()
    return reports


def _let_blocks_run_alone(model: nn.Module, rows: Tensor) -> None:
    """Have the blocks of a model of transformers take hidden states alone, of rows as long as these."""
    if hasattr(model, "enter"):
        model.enter(rows)  # which proves that they can be run one after the other
    model.embed(rows)


def quantize_block(stage: Stage, steps: dict[str, Step], recipe: Recipe, fisher: list[Tensor] | None = None,
                   bound: bool = False) -> list[LayerReport]:
    """Carry out the steps, by their names in the model, of one block in place; `quantize_model` does it for each."""
    mine = {name.removeprefix(stage.prefix): step for name, step in steps.items() if name.startswith(stage.prefix)}
    alone, reports = [name for name, step in mine.items() if not is_blockwise(step)], []
    for name, layer, stats in each_layer(stage, alone, recipe.true_sequential, recipe.match_original):
        step = _without_text(name, steps[name]) if stage.calls and stats is None else steps[name]
        changed, report = quantize_layer(name, layer, step, stats, bound)
        stage.block.set_submodule(name.removeprefix(stage.prefix), changed)
        reports.append(report)
        del layer, stats  # which are large, while the next one's are gathered
    groups: dict[str, dict[str, Round]] = {}
    for name, step in mine.items():
        if is_blockwise(step):
            groups.setdefault(f"{step.method} {sorted(step.method_options.items())}", {})[name] = step
    for group in groups.values():
        reports += _together(stage, group, fisher, bound)
    return reports


def _without_text(name: str, step: Step) -> Step:
    """What is done to a layer that no text of the calibration reaches, with a warning if that is something else."""
    if not step.needs_calibration:
        return step
    step = step.uncalibrated()
    warnings.warn(f"{name}: no text of the calibration reaches it: {step.label}", stacklevel=4)
    return step


def check_unchanged(model: nn.Module) -> None:
    """Raise a ValueError if a layer of a model was quantised or compressed already."""
    for name, module in model.named_modules():
        if hasattr(module, "layout") and not isinstance(module, HadamardLinear):  # what that turns for is quantised
            what = "quantised" if isinstance(module, QuantLayer | VectorLinear) else "compressed"
            raise ValueError(f"the model is {what} already ({name} is a {type(module).__name__}): start from the "
                             "checkpoint that it was made from")


def plan(model: nn.Module, recipe: Recipe, calibration: Tensor | None) -> dict[str, Step]:
    """The step of each layer that `quantize_model` would change, when it can; no weight is read."""
    check_unchanged(model)
    layers = linear_layers(model)
    if not layers:
        raise ValueError("the model has no linear layer in its blocks")
    known = set(map(id, layers.values()))
    for name, layer in model.blocks.named_modules(remove_duplicate=False):
        if id(layer) in known and f"blocks.{name}" not in layers:
            raise ValueError(f"blocks.{name} is also a layer by another name, under which alone it would be changed: "
                             "give each block layers of its own")
    steps = {name: step for name, step in recipe.resolve(layers, other_names(model)).items() if not is_idle(step)}
    if calibration is None and (recipe.match_original or any(step.needs_calibration for step in steps.values())):
        raise ValueError("the recipe has a method that needs calibration: pass windows of training text")
    if calibration is not None and (calibration.dim() < 2 or not calibration.numel()):
        raise ValueError(f"calibration must be tokens (windows, T), not of shape {tuple(calibration.shape)}")
    return steps


def other_names(model: nn.Module) -> dict[str, list[str]]:
    """What the layers of the blocks are called otherwise.

    That is in the model of another package that this one is made of; and where a transform stands before them, without
    what says so.
    """
    inner = getattr(model, "model", None)
    names: dict[nn.Module, list[str]] = {}
    for name, module in inner.named_modules(remove_duplicate=False) if isinstance(inner, nn.Module) else ():
        names.setdefault(module, []).append(name)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, HadamardLinear):
            names.setdefault(module.base, []).append(name)
    return {name: names.get(layer, []) for name, layer in linear_layers(model).items()}


def _together(stage: Stage, steps: dict[str, Round], fisher: list[Tensor] | None, bound: bool) -> list[LayerReport]:
    """Quantise layers, by their names in the block, by a method that takes them all at once, with the same options."""
    block, prefix = stage.block, stage.prefix
    layers = {name: block.get_submodule(name) for name in steps}
    weights = {name: weight_matrix(layer) for name, layer in layers.items()}
    stats, grids, reports = stage.statistics(layers), {}, []
    for name, own in stats.items():
        with naming(prefix + name):
            check_calibration(weights[name], own)
            grids[name] = steps[name].make_grid(weights[name], own)
    targets = [given[0] if isinstance(given, tuple) else given for given in stage.targets]
    data, first = BlockData([call.hidden for call in stage.calls], targets, fisher), next(iter(steps.values()))
    codes = BLOCK_METHODS[first.method](block, grids, data, **first.method_options) if grids else {}
    codes, grids = codes if isinstance(codes, tuple) else (codes, grids)
    for name, step in steps.items():
        if name in grids:
            with naming(prefix + name):
                grid = step.refitted(weights[name], codes[name], grids[name], stats[name])
                layer = packed_layer(layers[name], codes[name], grid)
                report = _report(prefix + name, step, layer, weights[name], stats[name], [], bound)
        else:
            step = _without_text(prefix + name, step)
            layer, report = quantize_layer(prefix + name, layers[name], step, None, bound)
        block.set_submodule(name, layer)
        reports.append(report)
    return reports


@torch.no_grad()
def round_others(model: nn.Module, layers: set[str]) -> None:
    """Round every parameter but the weights of the named layers to what a file keeps of it."""
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") not in layers:
            parameter.copy_(stored(name, parameter))


def quantize_layer(
    name: str, layer: nn.Module, step: Step, stats: LayerStats | None = None, bound: bool = False
) -> tuple[nn.Module, LayerReport]:
    """Change one layer by a step; warnings of the method go into the report and are shown with the layer's name.

    Statistics that say what the inputs would be in the unquantised model (`LayerStats.cross`) make the step aim at the
    outputs there.

    Raises:
        ValueError: whatever is wrong with the layer, by its name.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with naming(name):
            weight = weight_matrix(layer)
            if stats:
                check_inputs(weight, stats)
            if stats and stats.cross is not None:
                weight = stats.target(weight)
                layer = _with_weight(layer, weight)
            changed = step(layer, stats)
    messages = list(dict.fromkeys(str(warning.message) for warning in caught))  # grid and method may say the same
    for message in messages:
        warnings.warn(f"{name}: {message}", stacklevel=2)
    return changed, _report(name, step, changed, weight, stats, messages, bound)


def _report(name: str, step: Step, layer: nn.Module, weight: Tensor, stats: LayerStats | None, messages: list[str],
            bound: bool) -> LayerReport:
    """What became of a weight (out, in)."""
    error = above = None
    if stats:
        error = stats.output_error(weight, dense_weight(layer))
        above = bits_above_bound(layer, weight, stats, error) if bound else None
    return LayerReport(name, step, error, weight_bits(layer), above, messages)


def _with_weight(layer: nn.Module, weight: Tensor) -> nn.Module:
    """A copy of a layer that has another weight matrix (out, in)."""
    other = copy(layer)
    other._parameters = layer._parameters | {"weight": nn.Parameter(weight.view_as(layer.weight), False)}
    return other


def dense_weight(layer: nn.Module) -> Tensor:
    """The weight matrix (out, in) of a layer of any kind, in float32."""
    return layer.dequantize() if hasattr(layer, "dequantize") else weight_matrix(layer)


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
            logits = model.head(hidden[-1]).flatten(0, -2).float()
            labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            gradients = torch.autograd.grad(loss, hidden[1:])
        for own, gradient in zip(fisher, gradients, strict=True):
            own.append(gradient.float().square())
    means = [sum(float(part.sum()) for part in own) / sum(part.numel() for part in own) for own in fisher]
    return [[part / mean for part in own] for own, mean in zip(fisher, means, strict=True)]
