"""The driver: a whole model through a recipe, to a file, and back."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nanoq.lm.checkpoint import Checkpoint, build_model, read_folder, write_folder
from nanoq.progress import progress
from nanoq.quant.calibrate import LayerStats, observe
from nanoq.quant.qlinear import QuantLinear, as_float16
from nanoq.quant.recipe import LayerSpec, Recipe


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
    spec: LayerSpec
    output_error: float | None
    warnings: list[str]


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that can be quantised: every `nn.Linear` of the model's blocks, by its name in the model."""
    return {f"blocks.{name}": layer for name, layer in model.blocks.named_modules() if isinstance(layer, nn.Linear)}


@torch.no_grad()
def quantize_model(
    model: nn.Module, recipe: Recipe, calibration: Tensor | None = None, batch: int = 16,
    true_sequential: bool = False,
) -> list[LayerReport]:
    """Quantise a model in place, block by block, each block calibrated on the outputs of the quantised ones before it.

    The layers that the recipe names become `QuantLinear`. Everything else, embeddings, norms and the tied head among
    it, is rounded to float16, as it is stored, and goes on computing in its own type. The model is left in evaluation
    mode.

    Args:
        model: has `blocks`, each a module that maps hidden states to hidden states, and `embed`, which maps tokens to
            the hidden states that enter the first block.
        recipe: what to do to each layer.
        calibration: tokens (windows, T). A method such as GPTQ needs it; with it every layer's error is reported.
        batch: windows that go through a block at once.
        true_sequential: whether a layer also sees what the quantised layers before it *in its block* give it, for
            which the block runs once more for each of them (the official code's option of that name).

    Raises:
        ValueError: if the model is quantised already, the recipe names a layer that is not there, a weight holds NaN
            or does not fit its type, or a method needs calibration and there is none. After an error the model may be
            partly quantised: load it again.
    """
    if any(isinstance(module, QuantLinear) for module in model.modules()):
        raise ValueError("the model is quantised already: start from the checkpoint that it was made from")
    layers = linear_layers(model)
    specs = {name: spec for name, spec in recipe.resolve(list(layers)).items() if spec.bits != 16}
    if calibration is None and any(spec.needs_calibration for spec in specs.values()):
        raise ValueError("the recipe has a method that needs calibration: pass windows of training text")
    if calibration is not None and (calibration.dim() != 2 or not calibration.numel()):
        raise ValueError(f"calibration must be tokens (windows, T), not of shape {tuple(calibration.shape)}")
    _round_the_rest(model.eval(), set(specs))
    hidden = [] if calibration is None else [model.embed(rows) for rows in calibration.split(batch)]
    reports = []
    for index, block in enumerate(progress(model.blocks, desc="quantize", unit="block")):
        waiting = {name: layers[name] for name in specs if name.startswith(f"blocks.{index}.")}
        while waiting:
            with observe(waiting if hidden else {}) as stats:
                for x in hidden:
                    block(x)
            first = next(iter(stats.values()), None) if true_sequential else None
            for name in [name for name in waiting if first is None or stats.get(name) is first]:
                quantized, report = quantize_layer(name, waiting.pop(name), specs[name], stats.pop(name, None))
                model.set_submodule(name, quantized)
                reports.append(report)
        if block is not model.blocks[-1]:
            hidden = [block(x) for x in hidden]
    return reports


def _round_the_rest(model: nn.Module, layers: set[str]) -> None:
    """Round every parameter but the weights of the named layers to float16."""
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") not in layers:
            parameter.copy_(as_float16(name, parameter))


def quantize_layer(
    name: str, layer: nn.Linear, spec: LayerSpec, stats: LayerStats | None
) -> tuple[QuantLinear, LayerReport]:
    """Quantise one layer as its spec says; warnings of the method go into the report and are shown with its name.

    Raises:
        ValueError: whatever is wrong with the layer, by its name.
    """
    weight = layer.weight.detach().float()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            grid = spec.make_grid(weight, stats)
            codes = spec.round(weight, grid, stats)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    messages = list(dict.fromkeys(str(warning.message) for warning in caught))  # grid and method may say the same
    for message in messages:
        warnings.warn(f"{name}: {message}", stacklevel=2)
    error = stats.output_error(weight, grid.decode(codes)) if stats else None
    return QuantLinear.from_codes(codes, grid, layer.bias), LayerReport(name, spec, error, messages)


def save_quantized(folder: Path | str, checkpoint: Checkpoint, recipe: Recipe) -> Path:
    """Write a checkpoint whose model was quantised: packed codes with their grids, everything else in float16.

    The card keeps what it says of the training. `load_quantized` gives a model with the same logits, bit for bit.
    """
    model = checkpoint.model
    parameters = dict(model.named_parameters())
    tensors = {name: t.half() if name in parameters else t for name, t in model.state_dict().items()}
    card = {key: value for key, value in checkpoint.card.items() if key != "validation_perplexity"}
    card["recipe"] = recipe.to_json()
    card["layers"] = {name: layer.layout for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    return write_folder(folder, tensors, card)


def load_quantized(name_or_path: str | Path) -> Checkpoint:
    """Load what `save_quantized` wrote, or a checkpoint in which no layer is quantised.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or its weights do not fit its card.
    """
    tensors, card = read_folder(name_or_path, required=("config", "characters"))
    model, tokenizer = build_model(card, name_or_path)
    try:
        for name, layout in card.get("layers", {}).items():
            own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
            layer = QuantLinear(layout, own)
            if layer.dequantize().shape != model.get_submodule(name).weight.shape:
                raise ValueError(f"the codes of {name} have another shape than its weight")
            model.set_submodule(name, layer)
        model.load_state_dict(tensors)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the weights of '{name_or_path}' do not fit its card: {error}") from None
    return Checkpoint(model.eval(), tokenizer, card)
