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
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nanoq import __version__
from nanoq.files import write_text
from nanoq.quant.grid import Grid
from nanoq.quant.packing import pack, unpack
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import WEIGHTS, as_float16, save_tensors, some

BITS = (2, 3, 4, 8)
V1, V2 = "gptq", "gptq_v2"
QUANTIZE_CONFIG, INDEX = "quantize_config.json", "model.safetensors.index.json"
FIELDS = {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16, "g_idx": torch.int32}


def export_gptq(folder: Path | str, model: nn.Module, config: dict | None = None, *, damping: float = 0.01) -> Path:
    """Write a quantised model as a GPTQ checkpoint; the quantised weights keep every bit.

    Writes `model.safetensors`, `quantize_config.json` and, with `config`, a `config.json` that has the same block as
    `quantization_config`. What is not quantised is written in float16, a tied parameter once. Layers that differ from
    the most common bits and group size, and linear layers that are not quantised, are listed under `dynamic`, which
    GPTQModel and vLLM read (vLLM runs q, k and v as one layer, so those have to agree).

    The format allows any group size; the kernels of its readers do not (GPTQModel's torch kernel takes -1 and the
    powers of two from 16 to 1024).

    Args:
        folder: is made if it is not there.
        model: has `QuantLinear` layers; names are written as they are, so a reader needs a model with the same names.
        config: of the Hugging Face model, `model.config.to_dict()`.
        damping: of the GPTQ that made the codes; readers only report it.

    Raises:
        ValueError: if no layer is quantised, the format cannot hold one, or a parameter does not fit float16.
    """
    folder = Path(folder)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}
    if not layers:
        raise ValueError("no layer of the model is quantised: run nanoq.quant.quantize_model on it first")
    for name, layer in layers.items():
        _check_layer(name, layer)
    block = _quantization_block(model, layers, damping)
    files = {QUANTIZE_CONFIG: block}
    if config is not None:
        kept = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
        files["config.json"] = kept | {"torch_dtype": "float16", "quantization_config": block}
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in files.items()}

    tensors = plain_tensors(model, layers)
    for name, layer in layers.items():
        tensors |= {f"{name}.{field}": tensor for field, tensor in _fields(layer, block["checkpoint_format"]).items()}
    save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})  # transformers refuses a file without this entry
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder


@torch.no_grad()
def import_gptq(folder: Path | str, model: nn.Module) -> nn.Module:
    """Load a GPTQ checkpoint of either version into a model: its quantised layers become `QuantLinear`, in place.

    The weights are those of the file, bit for bit in float32. Whether a layer is symmetric, its bits and its group size
    are read from its tensors.

    Args:
        folder: has `quantize_config.json`, or a `config.json` with a `quantization_config`, and safetensors files.
        model: not quantised, of the structure that was exported.

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or of another format, a tensor does not fit the model, or the groups of a layer
            are no neighbouring columns. After an error the model may have some of the file's values: make it again.
    """
    folder = Path(folder)
    block = _read_block(folder)
    tensors = _read_tensors(folder)
    names = [key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")]
    if not names:
        raise ValueError(f"no layer in {folder} is quantised: there is no tensor named *.qweight")
    layers, modules = {}, dict(model.named_modules())
    for name in names:
        linear = modules.get(name)
        if not isinstance(linear, nn.Linear):
            found = "is not there" if linear is None else f"is a {type(linear).__name__}"
            raise ValueError(f"{name} is a quantised linear layer in {folder}, but {found} in the model: "
                             "make the model that was exported, without quantising it")
        own = {field: tensors.pop(f"{name}.{field}", None) for field in (*FIELDS, "bias")}
        try:
            layers[name] = _decode_layer(own, linear, block)
        except ValueError as error:
            raise ValueError(f"{name} in {folder}: {error}") from None
    _load_plain(model, tensors, set(names), folder)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return model.eval()


def _check_layer(name: str, layer: QuantLinear) -> None:
    grid, (out, n) = layer.grid, (len(layer.codes), layer.layout["in_features"])
    problem = None
    if grid.codebook is not None:
        problem = "has a codebook, and the format only evenly spaced values: quantise it on the grid 'affine'"
    elif grid.bits not in BITS:
        problem = f"has {grid.bits} bits, and the format only 2, 3, 4 or 8: quantise it with those"
    elif n * grid.bits % 32 or out * grid.bits % 32:
        problem = (f"is a weight of {out} x {n}, whose rows and columns of {grid.bits} bits do not fill whole words of "
                   "32 bits: leave it in float16")
    elif n % min(grid.group_size, n):
        problem = (f"has {n} inputs, which groups of {grid.group_size} do not divide: "
                   "quantise it with a group size that does")
    elif not torch.equal(grid.scale.half().float(), grid.scale):
        problem = "has scales that float16 cannot hold: leave it in float16, or scale its weights first"
    if problem:
        raise ValueError(f"{name} cannot be written in the GPTQ format: it {problem}")


def stored_zero_points(grid: Grid) -> tuple[Tensor, int]:
    """Zero points int64 (rows, groups) as a file has them, and by how much its codes are higher than ours."""
    if grid.zero_point is not None:
        return grid.zero_point.long(), 0
    middle = (grid.levels - 1) // 2
    shift = min(2 ** (grid.bits - 1) - middle, 2**grid.bits - grid.levels)
    return torch.full_like(grid.scale, middle + shift, dtype=torch.long), shift


def _fields(layer: QuantLinear, version: str) -> dict[str, Tensor]:
    """The tensors of one layer."""
    grid, (out, n) = layer.grid, (len(layer.codes), layer.layout["in_features"])
    zero, shift = stored_zero_points(grid)
    codes = layer.unpacked() + shift
    groups = grid.scale.shape[1]
    tensors = {
        "qweight": _words(codes, grid.bits).T,
        "qzeros": _words(zero.expand(out, groups).T - (1 if version == V1 else 0), grid.bits),
        "scales": grid.scale.half().expand(out, groups).T,
        "g_idx": torch.arange(n, dtype=torch.int32) // (n // groups),
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
    plain = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    dynamic |= {f"-:^{re.escape(name)}$": {} for name in plain}
    return common | ({"dynamic": dynamic} if dynamic else {}) | {
        "desc_act": False,  # our groups are neighbouring columns, in whatever order GPTQ went through them
        "sym": symmetric,
        "lm_head": False,
        "quant_method": "gptq",
        "checkpoint_format": V1 if symmetric else V2,
        "pack_dtype": "int32",
        "damp_percent": damping,
        "true_sequential": False,
        "meta": {"quantizer": [f"nanoq:{__version__}"]},
    }


def _tied(model: nn.Module) -> set[str]:
    """Names under which a parameter appears once more."""
    return set(dict(model.named_parameters(remove_duplicate=False))) - set(dict(model.named_parameters()))


def plain_tensors(model: nn.Module, layers: dict[str, QuantLinear]) -> dict[str, Tensor]:
    """Everything that belongs to no quantised layer, floats in float16."""
    tensors, tied = {}, _tied(model)
    for name, tensor in model.state_dict().items():
        if name in tied or name.rpartition(".")[0] in layers:
            continue
        tensors[name] = as_float16(name, tensor) if tensor.is_floating_point() else tensor
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _read_block(folder: Path) -> dict:
    """The quantisation block of a folder, checked as far as the import depends on it."""
    block = None
    for name in (QUANTIZE_CONFIG, "config.json"):
        if block is None and (folder / name).is_file():
            try:
                block = json.loads((folder / name).read_text(encoding="utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{folder / name} is not JSON ({error}); copy the checkpoint again") from None
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


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of `model.safetensors`, of the files that an index names, or of the only file there is."""
    if (folder / WEIGHTS).is_file():
        return _read_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    found = [path for path in folder.glob("*.safetensors") if path.is_file()]
    if not found:
        raise FileNotFoundError(f"no *.safetensors in {folder}: give the folder of a GPTQ checkpoint")
    if len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} *.safetensors and no {INDEX} that says which belong to the "
                         "model: fetch the checkpoint again")
    return _read_file(found[0])


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that is cut into several files: each from the file that the index names."""
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8-sig"))["weight_map"]
        files = sorted(set(shards.values()))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} is no index of tensors ({error}); fetch the checkpoint again") from None
    tensors = {}
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / INDEX} names the file {file!r:.80}, which is not there: fetch it again")
        tensors |= {name: tensor for name, tensor in _read_file(folder / file).items() if shards.get(name) == file}
    if missing := shards.keys() - tensors.keys():
        raise ValueError(f"the files of {folder} lack what its index names: {some(missing)}; fetch them again")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error})") from None


def _decode_layer(own: dict[str, Tensor | None], linear: nn.Linear, block: dict) -> QuantLinear:
    """The layer that the tensors of one layer stand for."""
    out, n = linear.weight.shape
    bits = _checked_bits(own, out, n)
    group_size = _checked_group_size(own["g_idx"], own["scales"])
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
    if symmetric and codes.min() > 0:
        grid, codes = Grid(bits, 2**bits - 1, scale, group_size), codes - 1
    else:
        grid = Grid(bits, 2**bits, scale, group_size, zero)
    layer = QuantLinear.from_codes(codes, grid, _checked_bias(own["bias"], linear))
    return layer.to(linear.weight.device)


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


def _checked_group_size(g_idx: Tensor, scales: Tensor) -> int:
    """Columns in a group, when the groups are neighbouring columns."""
    size = max(int((g_idx == 0).sum()), 1)
    if not torch.equal(g_idx, torch.arange(len(g_idx), dtype=g_idx.dtype) // size):
        raise ValueError("its groups are not neighbouring columns ('desc_act' was on when it was quantised), which a "
                         "nanoq grid cannot hold: quantise it again without desc_act, or with static groups")
    if -(-len(g_idx) // size) != len(scales):
        raise ValueError(f"'g_idx' has groups of {size} columns, 'scales' has {len(scales)} groups: it is damaged")
    return size


def _checked_bias(bias: Tensor | None, linear: nn.Linear) -> Tensor | None:
    if linear.bias is None and bias is not None and not bias.any():
        return None  # AutoGPTQ wrote zeros for layers without a bias
    shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (bias, linear.bias)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the bias has the shape {shapes[0]}, and {shapes[1]} in the model: "
                         "the checkpoint belongs to another model")
    return bias


def _load_plain(model: nn.Module, tensors: dict[str, Tensor], quantised: set[str], folder: Path) -> None:
    """Load what is not quantised; only tied names may be missing."""
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the tensors of {folder} do not fit the model: {reason}") from None
    lacking = [name for name in missing if name.rpartition(".")[0] not in quantised and name not in _tied(model)]
    if lacking or unexpected:
        raise ValueError(f"the tensors of {folder} are not those of the model: "
                         f"missing {some(lacking) or 'none'}; unknown {some(unexpected) or 'none'}")
