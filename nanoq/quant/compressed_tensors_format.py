"""compressed-tensors, `pack-quantized`, export and import: what vLLM serves, and transformers loads with one package.

A layer NAME with a weight (out, in) of B bits becomes three tensors, and NAME.bias if it has one:

    NAME.weight_packed  int32 (out, ceil(in * B / 32))  codes; a row is a little-endian stream of bits along the inputs
    NAME.weight_scale   float16 (out, groups)
    NAME.weight_shape   int64 (2,)                      out and in
    weight[o, i] = weight_scale[o, i // group_size] * (code[o, i] - 2**(B - 1))

`config.json` says in `config_groups` which layers have which bits and group size. That is a symmetric grid. Two more
tensors are read, and not written:

    NAME.weight_zero_point  int32 (ceil(out * B / 32), groups)  zero points; a column is a stream of bits, as the codes
    NAME.weight_g_idx       int32 (in,)                         the group of each input, where they are no neighbours

Release 0.20.1 loads a file with zero points only with `quantization_config=CompressedTensorsConfig(dequantize=True)`:
asymmetric grids are written as GPTQ files instead. 4 and 8 bits are read by every release; others, where codes lie
across the border of a word, are packed in this dense way since release 0.18 alone (pull request 732), and 0.16 and
older know 4 and 8 bits only. vLLM's kernels take 4 and 8 bits, and want one scheme for q, k and v, and for gate and up.

Some classes of transformers, T5 and Mamba among them, ask for `weight` of their layers while they are loaded, which
packed layers lack. `config.json` then says `"dequantize": true`, and transformers first decodes the weights, to
float16.

Source: compressed-tensors 0.20.1, `compressors/pack_quantized` and `quantization/quant_config.py`.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.embeddings import HEADS
from nanoq.quant.foreign import (
    as_transformers,
    checked_bias,
    fill,
    grid_problem,
    plain_tensors,
    quantised_layers,
    read_json,
    read_tensors,
    sketch_of,
    source_of,
    transposed_names,
    write_beside,
)
from nanoq.quant.gptq_format import checked_groups, is_symmetric, stored_grid, stored_zero_points
from nanoq.quant.packing import pack, packed_bytes, unpack
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import WEIGHTS, Checkpoint, save_tensors, some

EVERY_RELEASE = (4, 8)  # bits that all releases read
METHOD, FORMAT = "compressed-tensors", "pack-quantized"
FIELDS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")


def export_compressed_tensors(folder: Path | str, model: Checkpoint | nn.Module) -> Path:
    """Write a quantised model of transformers as `pack-quantized`; the quantised weights keep every bit.

    `AutoModelForCausalLM.from_pretrained(folder)` loads it where the package compressed-tensors is installed. Writes
    `model.safetensors`, `config.json` and, of a checkpoint with a tokeniser, its files. What is not quantised is
    written in float16, a tied parameter once.

    Args:
        folder: is made if it is not there.
        model: a checkpoint, an `HFModel` or a model of transformers, with `QuantLinear` layers on symmetric grids.

    Raises:
        ValueError: if it is no model of transformers, no layer is quantised, the format cannot hold one, or a parameter
            does not fit float16.
    """
    folder, source = Path(folder), source_of(model)
    if problem := compressed_tensors_model_problem(source.model):
        raise ValueError(f"the model cannot be written for compressed-tensors: it {problem}")
    layers = quantised_layers(source.model)
    if not layers:
        raise ValueError("no layer of the model is quantised: run nanoq.quant.quantize_model on it first")
    for name, layer in layers.items():
        if problem := compressed_tensors_problem(layer):
            raise ValueError(f"{name} cannot be written for compressed-tensors: it {problem}")
    tensors = as_transformers(source, plain_tensors(source.model, layers), layers)
    for name, layer in layers.items():
        tensors |= {f"{name}.{field}": tensor for field, tensor in _fields(layer).items()}
    save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    write_beside(folder, source, _quantization_config(source.model, layers))
    return folder


def compressed_tensors_model_problem(model: nn.Module) -> str | None:
    """What keeps a model as a whole out of the format, in words that follow "it"; None if nothing does."""
    if not hasattr(getattr(model, "config", None), "to_json_string"):
        return f"is a {type(model).__name__}, which is no model of transformers: only those are read by other programs"
    if transposed_names(model):
        return (f"is a {type(model).__name__}, which keeps its weights transposed in transformers, and "
                "compressed-tensors packs linear layers only: export it as gptq or gguf")
    odd = {type(layer).__name__ for layer in sketch_of(model).modules() if isinstance(layer, nn.Linear)} - {"Linear"}
    if odd:
        return f"has layers of the class {some(odd)}, which the package cannot stand in for: export it as gptq"
    return None


def loads_decoded(model: nn.Module, layers: Iterable[str]) -> bool:
    """Whether transformers can load a model only with the weights of these layers decoded.

    It initialises what a file lacks by code of the model's class, which in some classes reads `weight` of every layer.
    That code is run here, without memory, on a model whose layers have none.
    """
    with import_module("transformers.initialization").no_init_weights():
        like = sketch_of(model)
    for name in layers:
        like.get_submodule(name)._parameters.pop("weight")
    try:
        for tied in like.all_tied_weights_keys:
            like.get_parameter(tied)
        with suppress(RuntimeError, ValueError):  # code that needs numbers, of which there are none
            like.initialize_weights()
    except AttributeError:
        return True
    return False


def compressed_tensors_problem(layer: QuantLinear) -> str | None:
    """What keeps a layer out of the format, and the remedy, in words that follow "it"; None if nothing does."""
    if problem := grid_problem(layer):
        return problem
    if not is_symmetric(layer.grid):
        return ("has zero points, which release 0.20.1 of the package loads with dequantize=True only: quantise it "
                "with symmetric=True, or export it as gptq")
    if layer.order is not None:
        return "has groups of columns that are no neighbours, which the format dropped: export it as gptq"
    return None


def _fields(layer: QuantLinear) -> dict[str, Tensor]:
    """The tensors of one layer."""
    grid, shape = layer.grid, layer.weight_shape
    packed = pack(layer.unpacked() + stored_zero_points(grid)[1], grid.bits)  # (out, bytes)
    tensors = {
        "weight_packed": F.pad(packed, (0, -packed.shape[1] % 4)).view(torch.int32),
        "weight_scale": grid.scale.half().expand(shape[0], -1),
        "weight_shape": torch.tensor(shape),
    }
    if layer.bias is not None:
        tensors["bias"] = layer.bias.detach().half()
    return {field: tensor.cpu().contiguous() for field, tensor in tensors.items()}


def _quantization_config(model: nn.Module, layers: dict[str, QuantLinear]) -> dict:
    """What a reader has to know: a group for each scheme, with the names of its layers unless it is the only one."""
    schemes: dict[tuple[int, int | None], list[str]] = {}
    for name, layer in layers.items():
        grouped = layer.scale.shape[1] > 1
        schemes.setdefault((layer.layout["bits"], layer.layout["group_size"] if grouped else None), []).append(name)
    groups = {
        f"group_{index}": {
            "targets": ["Linear"] if len(schemes) == 1 else names,
            "input_activations": None, "output_activations": None,
            "weights": {
                "num_bits": bits, "type": "int", "symmetric": True, "strategy": "group" if group_size else "channel",
                "group_size": group_size, "dynamic": False, "actorder": None, "block_structure": None,
                "observer": "minmax", "observer_kwargs": {},
            },
        }
        for index, ((bits, group_size), names) in enumerate(schemes.items())
    }
    others = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, *HEADS))]
    others += [name for name, module in sketch_of(model).named_modules()  # such as a pooler, which `HFModel` drops
               if isinstance(module, nn.Linear) and name not in layers and name not in others]
    return {
        "quant_method": METHOD, "format": FORMAT, "quantization_status": "compressed",
        "config_groups": groups, "kv_cache_scheme": None, "global_compression_ratio": None,
        "ignore": others,
    } | ({"dequantize": True} if loads_decoded(model, layers) else {})


# ---- import ----


def import_compressed_tensors(folder: Path | str, model: Checkpoint | nn.Module) -> Checkpoint | nn.Module:
    """Load a `pack-quantized` checkpoint into a model: its quantised layers become `QuantLinear`, in place.

    The weights are those of the file, bit for bit in float32.

    Args:
        folder: has a `config.json` with a `quantization_config`, and safetensors files.
        model: not quantised, of the structure that was exported.

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or of another format of compressed-tensors, activations are to be quantised,
            too, or a tensor does not fit the model. After an error the model may have some of the file's values: make
            it again.
    """
    folder = Path(folder)
    decode = partial(_decode_layer, widths=_widths(folder))
    fill(source_of(model).model, folder, read_tensors(folder, f"a {METHOD}"), FIELDS, decode)
    return model


def _widths(folder: Path) -> dict[int, bool]:
    """The widths of the quantised layers, and whether those of a width are all symmetric."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    block = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(block, dict):
        raise FileNotFoundError(f"no config.json with a quantization_config in {folder}: give the folder of a {METHOD} "
                                "checkpoint")
    try:
        groups = [group | {"format": group.get("format") or block.get("format")}
                  for group in block["config_groups"].values()]
        found = sorted({str(group["format"]) for group in groups} | {str(group["weights"]["type"]) for group in groups})
        dynamic = any(group.get(part) for group in groups for part in ("input_activations", "output_activations"))
        widths: dict[int, bool] = {}
        for group in groups:
            bits, symmetric = group["weights"]["num_bits"], group["weights"].get("symmetric", True)
            widths[bits] = widths.get(bits, True) and bool(symmetric)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"the quantization_config in {folder} is damaged ({error!r:.80}): copy it again") from None
    if block.get("quant_method", METHOD) != METHOD or found != ["int", FORMAT]:
        raise ValueError(f"{folder} is a checkpoint of method '{block.get('quant_method')!s:.40}' with {some(found)}, "
                         f"not of {METHOD} with int, {FORMAT}: nanoq reads whole numbers of 2 to 8 bits")
    if dynamic or block.get("kv_cache_scheme"):
        raise ValueError(f"{folder} quantises activations or the cache, too, which nanoq would leave in float: take a "
                         "checkpoint whose weights alone are quantised")
    if not all(type(bits) is int and 2 <= bits <= 8 for bits in widths):
        raise ValueError(f"{folder} has weights of {some(map(str, widths))} bits: nanoq reads 2 to 8")
    return widths


def _decode_layer(own: dict[str, Tensor | None], linear: nn.Linear, widths: dict[int, bool]) -> QuantLinear:
    """The layer that the tensors of one layer stand for."""
    (out, n), scale = linear.weight.shape, _checked_scale(own["weight_scale"])
    bits, groups = _checked_bits(own, out, n, widths), scale.shape[1]
    if scale.shape[0] not in (1, out) or n % groups:
        raise ValueError(f"scales of the shape {tuple(scale.shape)} do not fit a weight of {out} x {n}: the checkpoint "
                         "belongs to another model, or is damaged")
    size, order = n // groups, None
    if own["weight_g_idx"] is not None:
        if own["weight_g_idx"].shape != (n,):
            raise ValueError(f"'weight_g_idx' has the shape {tuple(own['weight_g_idx'].shape)}, not ({n},)")
        size, order = checked_groups(own["weight_g_idx"], scale.T)
    codes, zero = _unpacked(own["weight_packed"], bits, n), torch.full_like(scale, 2 ** (bits - 1))
    if own["weight_zero_point"] is not None:
        zero = _checked_zero_points(own["weight_zero_point"], bits, (out, groups))
    elif not widths[bits]:
        raise ValueError("'weight_zero_point' is missing, and the configuration has an asymmetric grid of this width")
    grid, shift = stored_grid(bits, scale, size, zero, codes)
    codes = codes - shift if order is None else codes[:, order] - shift
    return QuantLinear.from_codes(codes, grid, checked_bias(own["bias"], linear), order)


def _checked_scale(scale: Tensor | None) -> Tensor:
    """The scales as float32 (rows, groups); a single one may have any shape."""
    if scale is None or not scale.is_floating_point() or not scale.isfinite().all():
        raise ValueError("'weight_scale' is missing, no float, or holds NaN or infinity: the checkpoint is damaged")
    scale = scale.view(1, 1) if scale.numel() == 1 else scale
    if scale.dim() != 2 or not scale.numel():
        raise ValueError(f"'weight_scale' has the shape {tuple(scale.shape)}, and should be (out, groups)")
    return scale.float().contiguous()


def _checked_bits(own: dict[str, Tensor | None], out: int, n: int, widths: dict[int, bool]) -> int:
    """The bits of a layer with `out` outputs and `n` inputs: of the configuration's widths the one that fits."""
    packed, shape = own["weight_packed"], own["weight_shape"]
    found = None if shape is None else tuple(shape.flatten().tolist())
    fitting = [bits for bits in widths if tuple(packed.shape) == (out, -(-n * bits // 32))]
    if packed.dtype != torch.int32 or found != (out, n) or len(fitting) != 1:
        raise ValueError(f"'weight_packed' is {str(packed.dtype).removeprefix('torch.')} of {tuple(packed.shape)} for "
                         f"a 'weight_shape' of {found}, which is no weight of {out} x {n} in {some(map(str, widths))} "
                         "bits: the checkpoint belongs to another model, or is damaged")
    return fitting[0]


def _checked_zero_points(words: Tensor, bits: int, shape: tuple[int, int]) -> Tensor:
    """Zero points float32 (out, groups) of their words, which are packed along the outputs."""
    if words.dtype != torch.int32 or tuple(words.shape) != (-(-shape[0] * bits // 32), shape[1]):
        raise ValueError(f"'weight_zero_point' is {str(words.dtype).removeprefix('torch.')} of {tuple(words.shape)}, "
                         f"which are no {bits}-bit zero points of {shape[0]} x {shape[1]}: the checkpoint is damaged")
    return _unpacked(words.T, bits, shape[0]).T.float().contiguous()


def _unpacked(words: Tensor, bits: int, count: int) -> Tensor:
    """Words int32 (rows, ceil(count * bits / 32)) -> uint8 codes (rows, count)."""
    stream = words.contiguous().view(torch.uint8)
    return unpack(stream[:, : packed_bytes(count, bits)].contiguous(), bits, count)
