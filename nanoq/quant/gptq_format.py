"""The GPTQ checkpoint format, which GPTQModel, transformers and vLLM read: export, and import.

A layer NAME with a weight (out, in) of B bits becomes four tensors, and NAME.bias if it has one:

    NAME.qweight  int32 (in * B / 32, out)      codes; a column holds the codes of one output channel
    NAME.qzeros   int32 (groups, out * B / 32)  zero points; a row holds those of one group of inputs
    NAME.scales   float16 (groups, out)
    NAME.g_idx    int32 (in,)                   the group of each input
    weight[o, i] = scales[g_idx[i], o] * (code[i, o] - zero_point[g_idx[i], o])

Along `in` (codes) and `out` (zero points) the words are one little-endian stream of bits, the layout of
`nanoq.quant.packing`; 32 codes of 3 bits take three words, and two of them lie across a border.

There are two versions, and `checkpoint_format` says which. "gptq" stores zero_point - 1. That has no room for the zero
point 0, which an asymmetric grid has wherever no weight is negative: -1 becomes 2**B - 1, and readers disagree on what
that means (one adds 1 to each zero point, another to the whole word, so that a carry changes the neighbours). GPTQModel
therefore refuses asymmetric files of this version from other writers. "gptq_v2" stores the zero point itself; of the
readers, GPTQModel and vLLM (since pull request 26092) know it, AutoGPTQ does not. So asymmetric grids are written as
"gptq_v2", and symmetric ones, where nothing can wrap around, as "gptq", which every reader knows.

A reader that is told `sym` may ignore `qzeros` and take 2**(B-1) for the zero point (vLLM's Marlin kernels do). Our
symmetric grids have 2**B - 1 codes around (2**B - 2) / 2, so their codes are written one higher: the same weights, with
the zero point that readers expect, and code 0 never used.
"""

import json
import re
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nanoq import __version__
from nanoq.files import write_text
from nanoq.quant.embeddings import HEADS
from nanoq.quant.foreign import (
    Source,
    as_transformers,
    checked_bias,
    fill,
    grid_problem,
    plain_tensors,
    quantised_layers,
    read_json,
    read_tensors,
    source_of,
    write_beside,
)
from nanoq.quant.grid import Grid
from nanoq.quant.packing import pack, unpack
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import WEIGHTS, Checkpoint, save_tensors

BITS = (2, 3, 4, 8)
V1, V2 = "gptq", "gptq_v2"
QUANTIZE_CONFIG = "quantize_config.json"
FIELDS = {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16, "g_idx": torch.int32}


def export_gptq(
    folder: Path | str, model: Checkpoint | nn.Module, config: dict | None = None, *, damping: float = 0.01
) -> Path:
    """Write a quantised model as a GPTQ checkpoint; the quantised weights keep every bit.

    Writes `model.safetensors` and `quantize_config.json`; of a model of transformers, or with `config`, also a
    `config.json` that has the same block as `quantization_config`; and the files of the tokeniser that a checkpoint
    has. What is not quantised is written in float16, a tied parameter once. Layers that differ from the most common
    bits and group size, and linear layers that are not quantised, are listed under `dynamic`, which GPTQModel and vLLM
    read (vLLM runs q, k and v as one layer, so those have to agree).

    The format allows any group size; the kernels of its readers do not (GPTQModel's torch kernel takes -1 and the
    powers of two from 16 to 1024).

    Args:
        folder: is made if it is not there.
        model: has `QuantLinear` layers. A model of transformers, in an `HFModel` or a checkpoint or as it is, is
            written under the names of transformers; any other under its own, which a reader's model has to have, too.
        config: what config.json is to hold beside the block, where the model does not know it.
        damping: of the GPTQ that made the codes; readers only report it.

    Raises:
        ValueError: if no layer is quantised, the format cannot hold one, or a parameter does not fit float16.
    """
    folder, source = Path(folder), source_of(model)
    layers = quantised_layers(source.model)
    if not layers:
        raise ValueError("no layer of the model is quantised: run nanoq.quant.quantize_model on it first")
    for name, layer in layers.items():
        if problem := gptq_problem(layer):
            raise ValueError(f"{name} cannot be written in the GPTQ format: it {problem}")
    block = _quantization_block(source.model, layers, damping)
    tensors = as_transformers(source, plain_tensors(source.model, layers), layers)
    for name, layer in layers.items():
        tensors |= {f"{name}.{field}": tensor for field, tensor in _fields(layer, block["checkpoint_format"]).items()}
    text = json.dumps(block, indent=2) + "\n"
    if config is not None:
        source = Source(source.model, json.loads(json.dumps(config)), source.tokenizer, source.card)
    save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})  # transformers refuses a file without this entry
    write_text(folder / QUANTIZE_CONFIG, text)
    write_beside(folder, source, block)
    return folder


def import_gptq(folder: Path | str, model: Checkpoint | nn.Module) -> Checkpoint | nn.Module:
    """Load a GPTQ checkpoint of either version into a model: its quantised layers become `QuantLinear`, in place.

    The weights are those of the file, bit for bit in float32. Whether a layer is symmetric, its bits and its group size
    are read from its tensors. Where GPTQ sorted the columns before it made groups of them (`desc_act`), a layer keeps
    that order.

    Args:
        folder: has `quantize_config.json`, or a `config.json` with a `quantization_config`, and safetensors files.
        model: not quantised, of the structure that was exported.

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or of another format, a tensor does not fit the model, or the groups of a layer
            are of different sizes. After an error the model may have some of the file's values: make it again.
    """
    folder = Path(folder)
    decode = partial(_decode_layer, block=_read_block(folder))
    fill(source_of(model).model, folder, read_tensors(folder, "a GPTQ"), tuple(FIELDS), decode)
    return model


def gptq_problem(layer: QuantLinear) -> str | None:
    """What keeps a layer out of the format, and the remedy, in words that follow "it"; None if nothing does."""
    bits, (out, n) = layer.layout["bits"], layer.weight_shape
    if problem := grid_problem(layer):
        return problem
    if bits not in BITS:
        return f"has {bits} bits, and the format only 2, 3, 4 or 8: quantise it with those"
    if n * bits % 32 or out * bits % 32:
        return (f"is a weight of {out} x {n}, whose rows and columns of {bits} bits do not fill whole words of "
                "32 bits: leave it in float16")
    return None


def stored_zero_points(grid: Grid) -> tuple[Tensor, int]:
    """Zero points int64 (rows, groups) as a file has them, and by how much its codes are higher than ours."""
    if grid.zero_point is not None:
        return grid.zero_point.long(), 0
    middle = (grid.levels - 1) // 2
    shift = min(2 ** (grid.bits - 1) - middle, 2**grid.bits - grid.levels)
    return torch.full_like(grid.scale, middle + shift, dtype=torch.long), shift


def _fields(layer: QuantLinear, version: str) -> dict[str, Tensor]:
    """The tensors of one layer."""
    grid, (out, n) = layer.grid, layer.weight_shape
    zero, shift = stored_zero_points(grid)
    codes, groups = layer.unpacked() + shift, grid.scale.shape[1]
    group = torch.arange(n, dtype=torch.int32) // (n // groups)
    if layer.order is not None:
        place = layer.order.argsort().cpu()  # of each input among the columns
        codes, group = codes[:, place.to(codes.device)], group[place]
    tensors = {
        "qweight": _words(codes, grid.bits).T,
        "qzeros": _words(zero.expand(out, groups).T - (1 if version == V1 else 0), grid.bits),
        "scales": grid.scale.half().expand(out, groups).T,
        "g_idx": group,
    }
    if layer.bias is not None:
        tensors["bias"] = layer.bias.detach().half()
    return {field: tensor.cpu().contiguous() for field, tensor in tensors.items()}


def _words(codes: Tensor, bits: int) -> Tensor:
    """Codes (rows, n) -> int32 (rows, n * bits / 32)."""
    return pack(codes, bits).view(torch.int32)


def _codes(words: Tensor, bits: int) -> Tensor:
    """Words int32 (rows, n * bits / 32) -> uint8 codes (rows, n)."""
    stream = words.contiguous().view(torch.uint8)
    return unpack(stream, bits, stream.shape[1] * 8 // bits)


def _group_size(layer: QuantLinear) -> int:
    """Columns in a group, or -1 for a whole row."""
    groups = layer.grid.scale.shape[1]
    return -1 if groups == 1 else layer.layout["in_features"] // groups


def is_symmetric(grid: Grid) -> bool:
    """Whether every zero point in a file is 2**(bits-1), the one of the symmetric formats."""
    return bool((stored_zero_points(grid)[0] == 2 ** (grid.bits - 1)).all())


def _quantization_block(model: nn.Module, layers: dict[str, QuantLinear], damping: float) -> dict:
    """What a reader has to know, under the names that GPTQModel gives it."""
    symmetric = all(is_symmetric(layer.grid) for layer in layers.values())
    specs = {name: {"bits": layer.layout["bits"], "group_size": _group_size(layer)} for name, layer in layers.items()}
    common = dict(Counter(tuple(spec.items()) for spec in specs.values()).most_common(1)[0][0])
    dynamic = {f"+:^{re.escape(name)}$": spec for name, spec in specs.items() if spec != common}
    # Readers expect every linear layer of a block to be quantised, and no head.
    plain = [name for name, module in model.named_modules()
             if isinstance(module, (nn.Linear, *HEADS)) and name != "lm_head"]
    dynamic |= {f"-:^{re.escape(name)}$": {} for name in plain}
    return common | ({"dynamic": dynamic} if dynamic else {}) | {
        # Our own groups are neighbouring columns, in whatever order GPTQ went through them; imported ones need not be.
        "desc_act": any(layer.order is not None for layer in layers.values()),
        "sym": symmetric,
        "lm_head": False,
        "quant_method": "gptq",
        "checkpoint_format": V1 if symmetric else V2,
        "pack_dtype": "int32",
        "damp_percent": damping,
        "true_sequential": False,
        "meta": {"quantizer": [f"nanoq:{__version__}"]},
    }


def _read_block(folder: Path) -> dict:
    """The quantisation block of a folder, checked as far as the import depends on it."""
    block = None
    for name in (QUANTIZE_CONFIG, "config.json"):
        if block is None and (folder / name).is_file():
            block = read_json(folder / name)
            if name == "config.json" and isinstance(block, dict):
                block = block.get("quantization_config")
    if block is None:
        raise FileNotFoundError(f"no {QUANTIZE_CONFIG}, and no config.json with a quantization_config, in {folder}: "
                                "give the folder of a GPTQ checkpoint")
    method = block.get("quant_method", "gptq") if isinstance(block, dict) else type(block).__name__
    version = block.get("checkpoint_format", block.get("format", V1)) if isinstance(block, dict) else None
    if method != "gptq" or version not in (V1, V2):
        raise ValueError(f"{folder} is a checkpoint of method '{method}' and format '{version}', not of "
                         f"method 'gptq' and format '{V1}' or '{V2}': convert it with GPTQModel")
    return block | {"checkpoint_format": version}


def _decode_layer(own: dict[str, Tensor | None], linear: nn.Linear, block: dict) -> QuantLinear:
    """The layer that the tensors of one layer stand for."""
    out, n = linear.weight.shape
    bits = _checked_bits(own, out, n)
    group_size, order = checked_groups(own["g_idx"], own["scales"])
    zero = _codes(own["qzeros"], bits).T.float()  # (out, groups)
    if block["checkpoint_format"] == V1:
        if (zero == 2**bits - 1).any():
            raise ValueError("it stores a zero point that wrapped around, which readers of version 'gptq' take in "
                             "different ways: convert the checkpoint to 'gptq_v2' with the program that wrote it")
        if not block.get("sym") and (zero == 2 ** (bits - 1)).all():
            raise ValueError(f"every zero point is stored as {2 ** (bits - 1)}, which is how 'gptq_v2' writes a "
                             "symmetric grid: correct 'checkpoint_format' in the configuration")
        zero = zero + 1
    symmetric = bool((zero == 2 ** (bits - 1)).all())
    if block.get("sym") and not symmetric and "'sym'" not in str(block.get("dynamic")):  # it may say so for some layers
        raise ValueError(f"it is said to be symmetric, but has zero points other than {2 ** (bits - 1)}: correct 'sym' "
                         "or 'checkpoint_format' in the configuration")
    codes, scale = _codes(own["qweight"].T, bits), own["scales"].T.float().contiguous()
    grid, shift = stored_grid(bits, scale, group_size, zero, codes)
    codes = codes - shift if order is None else codes[:, order] - shift
    return QuantLinear.from_codes(codes, grid, checked_bias(own["bias"], linear), order)


def stored_grid(bits: int, scale: Tensor, group_size: int, zero: Tensor, codes: Tensor) -> tuple[Grid, int]:
    """Our grid for codes and zero points as a file has them, and by how much its codes are higher than ours.

    Args:
        bits: of a code.
        scale: float32 (rows, groups).
        group_size: columns in a group.
        zero: zero points, float32 (rows, groups).
        codes: uint8 (out, in).
    """
    if (zero == 2 ** (bits - 1)).all() and codes.min() > 0:
        return Grid(bits, 2**bits - 1, scale, group_size), 1
    return Grid(bits, 2**bits, scale, group_size, zero), 0


def _checked_bits(own: dict[str, Tensor | None], out: int, n: int) -> int:
    """The bits of a layer with `out` outputs and `n` inputs, when its tensors fit that and each other."""
    for field, dtype in FIELDS.items():
        if own[field] is None or own[field].dtype != dtype:
            raise ValueError(f"'{field}' is missing or not {str(dtype).removeprefix('torch.')}: the checkpoint is "
                             "incomplete or of another format")
    words, groups = (own[field].shape[0] if own[field].dim() else 0 for field in ("qweight", "scales"))
    bits = 32 * words // n
    expected = {"qweight": (n * bits // 32, out), "qzeros": (groups, out * bits // 32), "scales": (groups, out),
                "g_idx": (n,)}
    found = {field: tuple(own[field].shape) for field in expected}
    if bits not in BITS or found != expected or n * bits % 32 or out * bits % 32:
        raise ValueError(f"the shapes {found} are not those of a weight of {out} x {n} with 2, 3, 4 or 8 bits: the "
                         "checkpoint belongs to another model, or is damaged")
    if not own["scales"].isfinite().all():
        raise ValueError("the scales hold NaN or infinity: the checkpoint is damaged")
    return bits


def checked_groups(g_idx: Tensor, scales: Tensor) -> tuple[int, Tensor | None]:
    """Columns in a group, and the order (in,) that makes neighbours of a group's columns, None where they are."""
    size = max(int((g_idx == 0).sum()), 1)
    order = g_idx.argsort(stable=True)
    if not torch.equal(g_idx[order], torch.arange(len(g_idx), dtype=g_idx.dtype) // size):
        raise ValueError("its groups ('g_idx') are not of equal size, which a nanoq grid cannot hold: quantise it "
                         "again with groups of neighbouring columns, or with desc_act")
    if -(-len(g_idx) // size) != len(scales):
        raise ValueError(f"'g_idx' has groups of {size} columns, 'scales' has {len(scales)} groups: it is damaged")
    return size, None if torch.equal(g_idx[order], g_idx) else order
