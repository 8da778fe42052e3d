"""Export to compressed-tensors, `pack-quantized`: what vLLM serves, and transformers loads with one pip package.

A layer NAME with a weight (out, in) of B bits becomes three tensors, and NAME.bias if it has one:

    NAME.weight_packed  int32 (out, ceil(in * B / 32))  codes; a row is a little-endian stream of bits along the inputs
    NAME.weight_scale   float16 (out, groups)
    NAME.weight_shape   int64 (2,)                      out and in
    weight[o, i] = weight_scale[o, i // group_size] * (code[o, i] - 2**(B - 1))

`config.json` says in `config_groups` which layers have which bits and group size. That is a symmetric grid. Zero points
have a place in the format, too, but release 0.20.1 loads a file with them only with
`quantization_config=CompressedTensorsConfig(dequantize=True)`: asymmetric grids are refused here, and written as GPTQ
files. 4 and 8 bits are read by every release; others, where codes lie across the border of a word, are packed in this
dense way since release 0.18 alone (pull request 732), and 0.16 and older know 4 and 8 bits only. vLLM's kernels take 4
and 8 bits, and want one scheme for q, k and v, and for gate and up.

Some classes of transformers, T5 and Mamba among them, ask for `weight` of their layers while they are loaded, which
packed layers lack. `config.json` then says `"dequantize": true`, and transformers first decodes the weights, to
float16.

Source: compressed-tensors 0.20.1, `compressors/pack_quantized` and `quantization/quant_config.py`.
"""

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.embeddings import HEADS
from nanoq.quant.foreign import (
    as_transformers,
    grid_problem,
    plain_tensors,
    quantised_layers,
    sketch_of,
    source_of,
    transposed_names,
    write_beside,
)
from nanoq.quant.gptq_format import is_symmetric, stored_zero_points
from nanoq.quant.packing import pack
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import WEIGHTS, Checkpoint, save_tensors, some

EVERY_RELEASE = (4, 8)  # bits that all releases read


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
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": groups, "kv_cache_scheme": None, "global_compression_ratio": None, "ignore": others,
    } | ({"dequantize": True} if loads_decoded(model, layers) else {})
