"""What the checkpoints of other programs have in common: names, what is not quantised, the files beside, reading."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nanoq.files import write_text
from nanoq.quant.embeddings import QuantEmbedding, QuantHead, packed_tables
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import INDEX, WEIGHTS, Checkpoint, as_float16, check_json, read_index, some

GENERATION = "generation_config.json"

# ---- writing ----


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        model: the module whose names are written; of a model of transformers that itself, not what nanoq makes of it.
        config: of a model of transformers, as config.json has it; None of any other.
        tokenizer: of transformers, if there is one.
        card: what is known of the model.
    """

    model: nn.Module
    config: dict | None
    tokenizer: object | None
    card: dict


def source_of(given: Checkpoint | nn.Module) -> Source:
    """The model of a checkpoint, of an `HFModel`, of transformers, or any other, as it is exported."""
    from nanoq.hf.model import HFModel  # nanoq.hf is made of nanoq.quant

    card, tokenizer, model = {}, None, given
    if isinstance(given, Checkpoint):
        card, tokenizer, model = given.card, given.tokenizer, given.model
    if isinstance(model, HFModel):
        model = model.model
    config = getattr(model, "config", None)
    if not hasattr(config, "to_json_string"):
        return Source(model, None, None, card)
    config = json.loads(config.to_json_string()) | {"architectures": [type(model).__name__]}
    return Source(model, config, tokenizer, card)


def quantised_layers(model: nn.Module) -> dict[str, QuantLinear]:
    """The quantised layers of a model's blocks, by name; packed embeddings and heads are not among them.

    Raises:
        ValueError: if one is of a kind that no other program knows, such as a pruned one.
    """
    packed = {name: module for name, module in model.named_modules()
              if hasattr(module, "layout") and not isinstance(module, (QuantEmbedding, QuantHead))}
    for name, layer in packed.items():
        if not isinstance(layer, QuantLinear):
            raise ValueError(f"{name} is a {type(layer).__name__}, which no file of another program holds: export a "
                             "model that was quantised, and neither pruned nor thinned")
    return packed


def grid_problem(layer: QuantLinear) -> str | None:
    """What keeps a layer out of the formats of evenly spaced codes, and the remedy, in words that follow "it"."""
    grid, n = layer.grid, layer.layout["in_features"]
    if grid.codebook is not None:
        return "has a codebook, and the format only evenly spaced values: quantise it on the grid 'affine'"
    if n % min(grid.group_size, n):
        return (f"has {n} inputs, which groups of {grid.group_size} do not divide: "
                "quantise it with a group size that does")
    if not torch.equal(grid.scale.half().float(), grid.scale):
        return "has scales that float16 cannot hold: leave it in float16, or scale its weights first"
    return None


def tied_names(model: nn.Module) -> set[str]:
    """Names under which a parameter appears once more."""
    return set(dict(model.named_parameters(remove_duplicate=False))) - set(dict(model.named_parameters()))


def plain_tensors(
    model: nn.Module, layers: dict[str, QuantLinear], stored: Callable[[str, Tensor], Tensor] = as_float16
) -> dict[str, Tensor]:
    """Everything that belongs to no quantised layer, a tied parameter once; floats as `stored`, in float16.

    Packed embeddings and heads that are not among the layers are decoded: few formats have a place for them.
    """
    tensors, tied = {}, tied_names(model)
    tables = {name: table for name, table in packed_tables(model).items() if name not in layers}
    within = {name for name, module in model.named_modules(remove_duplicate=False)
              if isinstance(module, (QuantEmbedding, QuantHead))}
    for name, tensor in model.state_dict().items():
        owner, _, field = name.rpartition(".")
        if name in tied or owner in layers or (owner in within and field != "bias"):
            continue
        tensors[name] = stored(name, tensor) if tensor.is_floating_point() else tensor
    tensors |= {f"{name}.weight": stored(f"{name}.weight", table.dequantize()) for name, table in tables.items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def as_transformers(source: Source, tensors: dict[str, Tensor], layers: dict[str, QuantLinear]) -> dict[str, Tensor]:
    """Plain tensors in the layout of the model's class in transformers, when it has them and the layers.

    The weights of GPT-2, which lie transposed there, are transposed.

    Raises:
        ValueError: if the model has other parts than its class, so that transformers could not read its file.
    """
    if source.config is None:
        return tensors
    like = sketch_of(source.model)
    known = like.state_dict().keys()
    written = tensors.keys() | {f"{name}.weight" for name in layers} | {
        f"{name}.bias" for name, layer in layers.items() if layer.bias is not None}
    lacking = {name for name in known - written - tied_names(like) if not name.startswith("pooler.")}
    if odd := (written - known) | lacking:
        raise ValueError(f"the model has other parts than the {type(source.model).__name__} of transformers, which "
                         f"therefore could not read its file: {some(odd)}")
    transposed = transposed_names(source.model)
    return {name: tensor.T.contiguous() if name in transposed else tensor for name, tensor in tensors.items()}


def sketch_of(model: nn.Module) -> nn.Module:
    """What transformers makes of the configuration of one of its models, without memory."""
    with torch.device("meta"):
        return type(model)(deepcopy(model.config))


def layers_apart(model: nn.Module) -> list[str]:
    """The linear layers that the model's class in transformers does not have, such as each expert of a mixture."""
    if not hasattr(getattr(model, "config", None), "to_json_string"):
        return []
    known = dict(sketch_of(model).named_modules())
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | QuantLinear)
            and name not in known]


def transposed_names(model: nn.Module) -> set[str]:
    """The weights that are (in, out) in a class of transformers, and (out, in) in a model that `HFModel` was made of.

    Those are the `Conv1D` of GPT-2, in whose places the model has linear layers.
    """
    if not hasattr(getattr(model, "config", None), "to_json_string"):
        return set()
    from transformers.pytorch_utils import Conv1D  # there is transformers where there is a model of it

    here = dict(model.named_modules())
    return {f"{name}.weight" for name, layer in sketch_of(model).named_modules()
            if isinstance(layer, Conv1D) and not isinstance(here.get(name), Conv1D)}


def write_beside(folder: Path, source: Source, block: dict | None) -> None:
    """Write the configuration, with a `quantization_config`, and the tokeniser's files beside a model's weights."""
    if source.config is None:
        return
    kept = {key: value for key, value in source.config.items() if key not in ("dtype", "torch_dtype")}
    config = kept | {"torch_dtype": "float16"} | ({"quantization_config": block} if block else {})
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_generation(folder, source.model)
    if source.tokenizer is not None:
        source.tokenizer.save_pretrained(folder)


def write_generation(folder: Path, model: nn.Module) -> None:
    """Write how a model generates, its end tokens among it, beside its weights."""
    if getattr(model, "generation_config", None) is not None:
        write_text(folder / GENERATION, model.generation_config.to_json_string())


# ---- reading ----


def read_json(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        ValueError: if it is none.
    """
    check_json(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); copy the checkpoint again") from None


def read_tensors(folder: Path, what: str) -> dict[str, Tensor]:
    """The tensors of `model.safetensors`, of the files that an index names, or of the only file there is.

    Raises:
        FileNotFoundError: if there is none; `what` is the name of the format for the message.
        ValueError: if a file is damaged, or it is not clear which file counts.
    """
    if (folder / WEIGHTS).is_file():
        return _read_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    found = [path for path in folder.glob("*.safetensors") if path.is_file()]
    if not found:
        raise FileNotFoundError(f"no *.safetensors in {folder}: give the folder of {what} checkpoint")
    if len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} *.safetensors and no {INDEX} that says which belong to the "
                         "model: fetch the checkpoint again")
    return _read_file(found[0])


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that is cut into several files: each from the file that the index names."""
    try:
        shards = read_index(folder)
    except ValueError as error:
        raise ValueError(f"{folder} cannot be read ({error}): fetch the checkpoint again") from None
    tensors = {}
    for file in sorted(set(shards.values())):
        if not (folder / file).is_file():
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


@torch.no_grad()
def fill(
    model: nn.Module, folder: Path, tensors: dict[str, Tensor], fields: tuple[str, ...],
    decode: Callable[[dict[str, Tensor | None], nn.Linear], QuantLinear],
) -> nn.Module:
    """Give a model the tensors of a checkpoint, in place: linear layers with codes become what `decode` says.

    Args:
        model: not quantised, of the structure that was exported.
        folder: of the checkpoint, for messages.
        tensors: of the checkpoint.
        fields: names of the tensors of a quantised layer, the one of its codes first.
        decode: makes a layer of its tensors by these names and "bias", None where one is missing, and of the linear
            layer that stands in its place.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: if a tensor does not fit the model; then it may have some of the values.
    """
    names = [key.removesuffix(f".{fields[0]}") for key in tensors if key.endswith(f".{fields[0]}")]
    if not names:
        raise ValueError(f"no layer in {folder} is quantised: there is no tensor named *.{fields[0]}")
    layers, modules = {}, dict(model.named_modules())
    for name in names:
        linear = modules.get(name)
        if not isinstance(linear, nn.Linear):
            found = "is not there" if linear is None else f"is a {type(linear).__name__}"
            raise ValueError(f"{name} is a quantised linear layer in {folder}, but {found} in the model: "
                             "make the model that was exported, without quantising it")
        own = {field: tensors.pop(f"{name}.{field}", None) for field in (*fields, "bias")}
        try:
            layers[name] = decode(own, linear).to(linear.weight.device)
        except ValueError as error:
            raise ValueError(f"{name} in {folder}: {error}") from None
    _load_plain(model, tensors, set(names), folder)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return model.eval()


def _load_plain(model: nn.Module, tensors: dict[str, Tensor], quantised: set[str], folder: Path) -> None:
    """Load what is not quantised; only tied names may be missing."""
    for name in transposed_names(model) & tensors.keys():
        tensors[name] = tensors[name].mT if tensors[name].dim() == 2 else tensors[name]
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the tensors of {folder} do not fit the model: {reason}") from None
    lacking = [name for name in missing if name.rpartition(".")[0] not in quantised and name not in tied_names(model)]
    if lacking or unexpected:
        raise ValueError(f"the tensors of {folder} are not those of the model: "
                         f"missing {some(lacking) or 'none'}; unknown {some(unexpected) or 'none'}")


def checked_bias(bias: Tensor | None, linear: nn.Linear) -> Tensor | None:
    """The bias of a quantised layer, when the linear layer in its place has one of that shape.

    Raises:
        ValueError: if it does not.
    """
    if linear.bias is None and bias is not None and not bias.any():
        return None  # AutoGPTQ wrote zeros for layers without a bias
    shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (bias, linear.bias)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the bias has the shape {shapes[0]}, and {shapes[1]} in the model: "
                         "the checkpoint belongs to another model")
    return bias
