"""Models as files that other programs run: which format takes which model, and a folder with all that belongs to it."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from nanoq import __version__
from nanoq.files import write_text
from nanoq.hub import local_file
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.compressed_tensors_format import (
    EVERY_RELEASE,
    compressed_tensors_model_problem,
    compressed_tensors_problem,
    export_compressed_tensors,
    loads_decoded,
)
from nanoq.quant.embeddings import HEAD, TABLE, packed_tables
from nanoq.quant.foreign import Source, layers_apart, quantised_layers, source_of
from nanoq.quant.gguf_format import BLOCK, block_type
from nanoq.quant.gguf_model import (
    block_tables,
    export_gguf,
    gguf_model_problem,
    has_scaled_positions,
    unread_by_transformers,
)
from nanoq.quant.gguf_tokenizer import vocabulary_of
from nanoq.quant.gptq_format import export_gptq, gptq_problem
from nanoq.quant.gptq_method import TOKENS_PER_INPUT
from nanoq.quant.grid import Grid
from nanoq.quant.layers import linear_layers, weight_matrix
from nanoq.quant.qlinear import PackedLayer, QuantLinear
from nanoq.quant.quantize import other_names
from nanoq.quant.recipe import Recipe, Round, is_idle
from nanoq.store import PACKED, WEIGHTS, Checkpoint, some, weight_shape

GGUF_FILE = "model.gguf"


class Format(NamedTuple):
    """What is known of a format.

    Attributes:
        export: writes a checkpoint to a folder.
        file: where the weights are.
        model_problem: what keeps a model from being run elsewhere, in words that follow "it", or None.
        layer_problem: the same of a quantised layer.
        use: how the file is loaded, in Markdown, with the names FOLDER and CLASS to be filled in.
    """

    export: Callable[[Path, Checkpoint], Path]
    file: str
    model_problem: Callable[[nn.Module], str | None]
    layer_problem: Callable[[QuantLinear], str | None]
    use: str


def _gptq_model_problem(model: nn.Module) -> str | None:
    if hasattr(getattr(model, "config", None), "to_json_string"):
        return None
    return f"is a {type(model).__name__}, which is no model of transformers: only those are read by other programs"


def _gguf_problem(layer: QuantLinear) -> str | None:
    if block_type(layer):
        return None
    return (f"is on a grid that no type of llama.cpp holds, and would be written in 16 bits: quantise it evenly "
            f"spaced, with symmetric=True and groups of {BLOCK} or a multiple")


FORMATS = {
    "compressed-tensors": Format(
        export_compressed_tensors, WEIGHTS, compressed_tensors_model_problem, compressed_tensors_problem,
        "`pip install transformers compressed-tensors`, then\n\n```python\nfrom transformers import CLASS\n\n"
        'model = CLASS.from_pretrained("FOLDER")\n```\n'),
    "gptq": Format(
        export_gptq, WEIGHTS, _gptq_model_problem, gptq_problem,
        "`pip install gptqmodel`, then\n\n```python\nfrom gptqmodel import GPTQModel\n\n"
        'model = GPTQModel.load("FOLDER")\n```\n\n'
        "`nanoq.load` reads the folder, too.\n"),
    "gguf": Format(
        lambda folder, checkpoint: export_gguf(folder / GGUF_FILE, checkpoint), GGUF_FILE, gguf_model_problem,
        _gguf_problem,
        f"With llama.cpp: `llama-cli -m FOLDER/{GGUF_FILE}`. With `pip install transformers gguf accelerate`:\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("FOLDER", gguf_file="{GGUF_FILE}")\n```\n'),
}


def export_model(folder: Path | str, checkpoint: Checkpoint, format: str) -> Path:
    """Write a quantised model of transformers for other programs, with a README.md that says what it is.

    Returns:
        The file of the weights.

    Raises:
        ValueError: if the format does not take the model, or one of its layers.
    """
    folder, kind, source = Path(folder), format_named(format), source_of(checkpoint)
    _check_model(source.model, format)
    kind.export(folder, checkpoint)
    write_text(folder / "README.md", model_card(source, format, folder))
    return folder / kind.file


def check_export(plan: Recipe | dict[str, dict] | None, model: Checkpoint | nn.Module, format: str) -> None:
    """Look whether a format will take what a recipe makes of a model, before the hours that it takes to make it.

    Args:
        plan: a recipe for a model that is not quantised; or layouts by layer, as a card has them under "layers", which
            do not show unusual scales, nor a codebook without a name; or None for a model that is quantised.
        model: a checkpoint, or a model as `quantize_model` takes it.
        format: a name in `FORMATS`.

    Raises:
        ValueError: if it will not, in one sentence that names the layers and the remedy. GGUF does take layers that are
            named here, but in 16 bits.
    """
    kind, source = format_named(format), source_of(model)
    _check_model(source.model, format)
    if odd := layers_apart(source.model):
        raise ValueError(f"the model cannot be exported as {format}: the {type(source.model).__name__} of transformers "
                         f"keeps in one parameter what lies in several layers here: {some(odd)}")
    if format == "gguf" and source.tokenizer is not None:
        vocabulary_of(source.tokenizer, source.model.get_input_embeddings().num_embeddings)
    reasons: dict[str, list[str]] = {}
    layers = 0
    for name, layer in _layers(plan, model.model if isinstance(model, Checkpoint) else model):
        layers += 1
        if problem := kind.layer_problem(layer):
            reasons.setdefault(problem, []).append(name)
    if not layers:
        raise ValueError("no layer is quantised: give a recipe that quantises one")
    if reasons:
        shown = "; ".join(f"{some(names)}: it {problem}" for problem, names in list(reasons.items())[:3])
        raise ValueError(f"{sum(map(len, reasons.values()))} of {layers} quantised layers do not fit {format}: {shown}")


def format_named(name: str) -> Format:
    """A format of `FORMATS`.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in FORMATS:
        raise ValueError(f"no format '{name}': there are {', '.join(FORMATS)}")
    return FORMATS[name]


def _check_model(model: nn.Module, format: str) -> None:
    if problem := FORMATS[format].model_problem(model):
        raise ValueError(f"the model cannot be exported as {format}: it {problem}")


def _layers(plan: Recipe | dict[str, dict] | None, model: nn.Module) -> Iterator[tuple[str, QuantLinear]]:
    """The layers that there will be, one at a time: their grids are right, their codes are not."""
    if plan is None:
        yield from quantised_layers(model).items()
    elif isinstance(plan, Recipe):
        layers = linear_layers(model)
        if not layers:
            raise ValueError("the model has no linear layer to quantise: of a quantised one give None for the recipe")
        for name, spec in plan.resolve(list(layers), other_names(model)).items():
            if not isinstance(spec, Round):
                raise ValueError(f"{name}: {spec.label} gives a layer that no file of another program holds")
            if not is_idle(spec):
                yield name, _planned(layers[name], spec)
    else:
        for name, layout in plan.items():
            if layout.get("kind") in (TABLE, HEAD):
                continue  # which every format takes, if only in float16
            if layout.get("kind", PACKED) != PACKED:
                raise ValueError(f"{name} is of the kind '{layout['kind']}', which no file of another program holds")
            yield name, _laid_out(layout, *weight_shape(model.get_submodule(name)))


@torch.no_grad()
def _planned(layer: nn.Module, spec: Round) -> QuantLinear:
    """A layer on the grid of its spec; what takes long to search for makes no difference to the kind of grid."""
    options = {key: value for key, value in spec.grid_options.items() if key != "search"}
    weight, grid_alone, stats = weight_matrix(layer), Round(bits=spec.bits, grid=spec.grid, grid_options=options), None
    if grid_alone.needs_calibration:
        stats = LayerStats(weight.shape[1])  # all 0: the kind of grid does not depend on what it sees
        stats.tokens = TOKENS_PER_INPUT * weight.shape[1]
    grid = grid_alone.make_grid(weight, stats)
    return QuantLinear.from_codes(torch.zeros(weight.shape, dtype=torch.uint8), grid)


def _laid_out(layout: dict, out: int, n: int) -> QuantLinear:
    """A layer with scales of 1; without a codebook, and with all codes in use, it has zero points."""
    groups = -(-n // layout["group_size"])
    scale, asymmetric = torch.ones(out, groups), layout["levels"] == 2 ** layout["bits"]
    codebook = torch.arange(layout["levels"]).float() if {"codebook", "scale_format"} & layout.keys() else None
    zero = torch.arange(out * groups).view(out, groups) % layout["levels"] if asymmetric else None
    grid = Grid(layout["bits"], layout["levels"], scale, layout["group_size"],
                zero.float() if zero is not None and codebook is None else None, codebook)
    return QuantLinear.from_codes(torch.zeros(out, n, dtype=torch.uint8), grid)


def export_notes(model: Checkpoint | nn.Module, format: str) -> list[str]:
    """What a user of the file has to know of its layers, in sentences."""
    inner = source_of(model).model
    layers = quantised_layers(inner)
    if format == "gguf":
        unfit = [name for name, layer in layers.items() if block_type(layer) is None]
        notes = [f"{len(unfit)} of {len(layers)} quantised layers are in 16 bits, because no type of llama.cpp holds "
                 f"their grid: {some(unfit)}."] if unfit else []
        notes += ["transformers does not read from a GGUF file that positions are scaled (rope_freqs); llama.cpp "
                  "does."] * has_scaled_positions(inner)
        if unread := unread_by_transformers(inner):
            notes.append(f"transformers does not read {' and '.join(unread)} from a GGUF file: give `from_pretrained` "
                         "the base model's configuration (`config=`).")
        return notes
    tables = packed_tables(inner)
    notes = [f"In float16, because the format has no place for their codes: {some(tables)}."] if tables else []
    odd = sorted({layer.layout["bits"] for layer in layers.values()} - set(EVERY_RELEASE))
    if format == "compressed-tensors" and odd:
        notes.append(f"Layers of {' and '.join(map(str, odd))} bits are read by compressed-tensors 0.18 or later, and "
                     "not by vLLM's kernels.")
    if format == "compressed-tensors" and loads_decoded(inner, layers):
        notes.append(f"transformers loads it with its weights decoded to float16, for which it takes as much memory as "
                     f"an unquantised {type(inner).__name__}: the class asks for them while it is loaded.")
    return notes


# ---- the card ----


def model_card(source: Source, format: str, folder: Path) -> str:
    """The README.md of an export: what is known of the model and its file, and nothing else."""
    name, card = type(source.model).__name__, source.card
    layers = quantised_layers(source.model)
    size = (folder / FORMATS[format].file).stat().st_size
    bits = 8 * size / count_parameters(source.model)
    origin, licence = card.get("source"), _licence(card)
    rows = {
        "base model": card.get("model") or origin,
        "architecture": name,
        "method": _method(card.get("recipe")),
        "quantised layers": _widths(layers),
        "embeddings": _widths(block_tables(source.model)) if format == "gguf" else None,
        "everything else": "float16, or float32 for vectors" if format == "gguf" else "float16",
        "file": f"{FORMATS[format].file}, {size:,} bytes, {bits:.2f} bits a parameter",
        "licence": licence or "not named by the source: see the base model",
        "written by": f"nanoq {__version__}, format {format}",
    }
    front = ["library_name: " + ("gguf" if format == "gguf" else "transformers"), f"tags: [nanoq, {format}]"]
    if origin and re.fullmatch(r"[\w.-]+/[\w.-]+", str(origin)) and not Path(str(origin)).exists():
        front.insert(0, f"base_model: {origin}")
    if licence and re.fullmatch(r"[a-z0-9.-]+", licence):  # the hub's identifiers
        front.insert(0, f"license: {licence}")
    table = "".join(f"| {key} | {str(value).replace('|', '/')} |\n" for key, value in rows.items() if value)
    use = FORMATS[format].use.replace("FOLDER", folder.name or ".").replace("CLASS", name)
    notes = "".join(f"\n{note}\n" for note in export_notes(source.model, format))
    head = "---\n" + "\n".join(front) + f"\n---\n\n# {folder.name}\n\n"
    return f"{head}|  |  |\n|:--|:--|\n{table}{notes}\n## Use\n\n{use}"


def count_parameters(model: nn.Module) -> int:
    """Numbers that a model has, weights in codes among them; a tied one counts once."""
    packed = sum(math.prod(layer.weight_shape) for layer in model.modules() if isinstance(layer, PackedLayer))
    return packed + sum(parameter.numel() for parameter in model.parameters())


def _widths(layers: dict[str, QuantLinear]) -> str:
    """As "12 of 4 bits in groups of 64, 2 of 8 bits by rows"; nothing of none."""
    kinds = Counter((layer.layout["bits"], layer.layout["group_size"] if layer.scale.shape[1] > 1 else None)
                    for layer in layers.values())
    return ", ".join(f"{count} of {bits} bits " + (f"in groups of {group}" if group else "by rows")
                     for (bits, group), count in kinds.most_common())


def _method(recipe: object) -> str | None:
    """The names of a recipe's specs, where a card keeps a recipe."""
    try:
        plan = Recipe.from_json(recipe)
    except ValueError:
        return None
    return ", ".join(dict.fromkeys(step.label for step in plan.steps))


def _licence(card: dict) -> str | None:
    """What the card says, or the front matter of the README.md that the source has."""
    if found := card.get("licence") or card.get("license"):
        return str(found)
    path = Path(str(card.get("source"))) / "README.md"
    path = path if path.is_file() else local_file(f"{card.get('source')}/README.md")
    if not path or not path.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8-sig", errors="replace"), re.DOTALL)
    found = front and re.search(r"^license:\s*['\"]?([\w.-]+)", front[1], re.MULTILINE)
    return found[1] if found else None
