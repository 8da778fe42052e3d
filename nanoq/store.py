"""Models in folders: `model.safetensors` and `card.json`, checked against each other before anything is built.

A large model may lie in shards, `model-00001-of-00002.safetensors` and so on, with an index that says which tensor lies
in which, as transformers has it.

One `save` and one `load` for every family of models and every kind of layer. Both register themselves: a family in
`FAMILIES`, a kind of layer in `LAYERS`. A folder says in its card which family its model is of, and for each layer that
is not the family's own a *layout*: plain data from which, with the layer's tensors, it can be made again.

What a card says is not trusted. The model is first laid out without memory (on torch's device "meta") and compared with
the header of the weights, tensor by tensor; only then are weights read. `save` does the same with what it has written,
so that whatever can be saved can be loaded.
"""

import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nanoq import __version__
from nanoq.files import atomic_path, data_dir, sha256, write_text
from nanoq.memory import in_one_sentence

__all__ = ["CARD", "FAMILIES", "INDEX", "LAYERS", "WEIGHTS", "Checkpoint", "Family", "inspect", "load", "read_folder",
           "save"]

WEIGHTS, INDEX, CARD = "model.safetensors", "model.safetensors.index.json", "card.json"
LARGEST_JSON = 16_000_000  # bytes of a card, an index or a configuration: a parser takes thirty times as many
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool}  # fmt: skip
_MODEL = ("config", "characters", "layers", "family", "names")  # the entries of a card that a model is built from
_LATER = ("family", "names")  # of these, what older cards lack
_KINDS = {"config": dict, "characters": str, "layers": dict, "family": str, "names": str, "corpus": str}
_SHARD = re.compile(r"[\w-][\w.-]{,99}\.safetensors")  # in the folder itself


@dataclass
class Checkpoint:
    """A model, the tokeniser it was trained with, if any, and the card that says how it came to be.

    `reports` says of each layer what was done to it, where `nanoq.quantize` or `nanoq.prune` has just made the model.
    """

    model: nn.Module
    tokenizer: object | None
    card: dict
    reports: list = field(default_factory=list)


@dataclass(frozen=True)
class Family:
    """A kind of model that folders hold.

    Attributes:
        model: the class of its models.
        describe: gives the entries of a card that `empty` and `tokenizer` read, of a checkpoint.
        empty: makes the untrained model of a card; is given the number of tensors in the file, too, which bounds the
            number of layers. What it raises of a card that makes no sense becomes one sentence.
        tokenizer: makes the tokeniser of a card and a folder, or None.
        probe: the smallest input that the model takes.
        beside: writes other files that belong into the folder of a checkpoint, if there are any.
        names: gives of a model the beginnings of names that its files have others for: {in memory: in files}. A card
            with an entry `names` says that its file has them.
    """

    model: type[nn.Module]
    describe: Callable[[Checkpoint], dict]
    empty: Callable[[dict, int], nn.Module]
    tokenizer: Callable[[dict, Path], object | None]
    probe: Callable[[nn.Module], Tensor]
    beside: Callable[[Path, Checkpoint], None] = lambda folder, checkpoint: None
    names: Callable[[nn.Module], dict[str, str]] = lambda model: {}


FAMILIES: dict[str, Family] = {}
# By the `kind` of a layout: makes the layer of it and of its tensors, which have no memory yet. Whatever does not fit
# together is a ValueError.
LAYERS: dict[str, Callable[[dict, dict[str, Tensor]], nn.Module]] = {}
_HOMES = ("lm.checkpoint", "vision.checkpoint", "hf.checkpoint", "quant.qlinear", "quant.embeddings",
          "quant.online", "quant.vector", "compress.layers")  # that register
PACKED = "packed"  # the kind of a layout that names none


def _registered(table: dict, name: str, what: str):
    if name not in table:
        _register_all()
    if name not in table:
        raise ValueError(f"no {what} '{name:.40}': was the folder written by a newer nanoq?")
    return table[name]


def _register_all() -> None:
    for home in _HOMES:
        import_module(f"nanoq.{home}")


# ---- save ----


def save(folder: Path | str, checkpoint: Checkpoint, *, half: bool | None = None, **facts) -> Path:
    """Write a model of any family, with layers of any kind; `load` gives one with the same logits, bit for bit.

    That holds for float32 and for whatever `quantize_model` left. What is trained or taken out afterwards (adapters,
    heads, neurons) is rounded to float16 here, and what is in another type is loaded in float32.

    Args:
        folder: is made if it is not there.
        checkpoint: its card is kept, but for what was measured of the unquantised model.
        half: whether parameters are kept in float16, and in float32 where float16 would lose them; by default where a
            recipe was carried out, or a layer is not the family's own and no turned one in floats. Otherwise they are
            kept as they are.
        facts: join the card.

    Raises:
        ValueError: if the model is of no known family, holds something that could not be loaded again, or a parameter
            is not finite.
    """
    model, folder = checkpoint.model, Path(folder)
    _, family = _family_of(model)
    recipe = getattr(model, "recipe", None)  # what `quantize_model` has carried out
    card = card_for(checkpoint, recipe)
    layouts = _layouts(model, family, card)
    changed = recipe or any(layout.get("base") != {"kind": "dense"} for layout in layouts.values())
    half = bool(changed) if half is None else half

    if not half:  # or `stored` looks
        check_values(model)
    parameters, state = dict(model.named_parameters()), model.state_dict()  # tied ones by their first name
    kept = [key for key in (*parameters, *dict(model.named_buffers())) if key in state]
    names = family.names(model)
    tensors = {renamed(key, names): stored(key, state[key]) if half and key in parameters else state[key]
               for key in kept}
    own = {renamed(key, names): layout for key, layout in layouts.items()}
    if half:
        card = with_layers(card, own)
    elif layouts:
        card["layers"] = own
    _sketch(family, card, {key: tensor.to("meta") for key, tensor in tensors.items()})
    path = write_folder(folder, tensors, card | facts)
    family.beside(path, checkpoint)
    return path


def card_for(checkpoint: Checkpoint, recipe: dict | None) -> dict:
    """What the card of a written checkpoint says beside its own, but for layers and files; `recipe` is plain data."""
    name, family = _family_of(checkpoint.model)
    return checkpoint.card | {"family": name} | family.describe(checkpoint) | ({"recipe": recipe} if recipe else {})


def with_layers(card: dict, layouts: dict[str, dict]) -> dict:
    """The card of a model in float16, without what was measured of the unquantised one.

    Args:
        card: from `card_for`.
        layouts: of the layers that are not the family's own, by their names in the files.
    """
    return {key: value for key, value in card.items() if key != "validation_perplexity"} | {"layers": layouts}


def _family_of(model: nn.Module) -> tuple[str, Family]:
    _register_all()
    for name, family in FAMILIES.items():
        if isinstance(model, family.model):
            return name, family
    raise ValueError(f"a {type(model).__name__} is of no family that nanoq can save: there are {', '.join(FAMILIES)}")


def _layouts(model: nn.Module, family: Family, entries: dict) -> dict[str, dict]:
    """The layout of every layer that is not the family's own, by name."""
    with torch.device("meta"):
        whole = dict(family.empty(entries, len(model.state_dict())).named_modules())
    dense = {name: {"kind": "dense"} for name, layer in model.named_modules()
             if isinstance(layer, nn.Linear) and isinstance(whole.get(name), nn.Linear)
             and layer.weight.shape != whole[name].weight.shape}
    return layouts_of(model) | dense


def layouts_of(model: nn.Module) -> dict[str, dict]:
    """The layout of every layer that has one, by name, but for those within others, whose layouts have them."""
    own = {name: layer.layout for name, layer in model.named_modules() if hasattr(layer, "layout")}
    for name in (within := [name for name in own if any(name.startswith(f"{other}.") for other in own)]):
        if "base" not in own[name.rpartition(".")[0]]:
            raise ValueError(f"{name} is a packed layer within a thin one, which a file has no room for")
    return {name: layout for name, layout in own.items() if name not in within}


def renamed(name: str, beginnings: dict[str, str]) -> str:
    """A name of parts with dots between them, the longest of its beginnings that is in a table replaced.

    The beginning "" is that of every name, and what replaces one may be "". Different names stay different.
    """
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        head = ".".join(parts[:cut])
        if head and head in beginnings:
            return ".".join([*filter(None, [beginnings[head]]), *parts[cut:]])
    return f"{beginnings['']}.{name}" if beginnings.get("") else name


def stored(name: str, tensor: Tensor) -> Tensor:
    """What a file keeps of a parameter beside the packed layers: float16, or float32 where float16 would lose it.

    Raises:
        ValueError: if it holds NaN or infinity, by its name.
    """
    if not tensor.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")
    half = tensor.half()
    return half if _holds(half, tensor) else tensor.float()


def as_float16(name: str, tensor: Tensor) -> Tensor:
    """A parameter in float16, for a format that has nothing else.

    Raises:
        ValueError: if float16 cannot hold the tensor, by its name.
    """
    half = tensor.half()
    if not half.isfinite().all() or not _holds(half, tensor):
        raise ValueError(f"{name} holds NaN, infinity, or values that float16 cannot hold (65504 is its largest, "
                         "6e-8 its smallest)")
    return half


def _holds(half: Tensor, tensor: Tensor) -> bool:
    """Whether float16 keeps a tensor to its own relative precision: small values among large ones may vanish."""
    error = size = 0.0
    for ours, theirs in zip(half.flatten().split(2**22), tensor.flatten().split(2**22), strict=True):  # to save memory
        error += (ours.double() - theirs.double()).square().sum()
        size += theirs.double().square().sum()
    return bool(error <= size * 2**-20)


def save_tensors(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as a safetensors file, atomically.

    Raises:
        OSError: if they cannot be written; a full disk is an error of its own kind to safetensors.
    """
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {path} ({error}): make room, or write to another folder") from None


def write_folder(folder: Path | str, tensors: dict[str, Tensor], card: dict) -> Path:
    """Write tensors and their card, each file atomically; shards of a model that was there before go.

    Raises:
        ValueError: if the card holds what JSON does not, such as NaN.
    """
    folder = Path(folder)
    json.dumps(card, allow_nan=False)  # must fail before the weights of an older card are replaced
    save_tensors(folder / WEIGHTS, {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})
    write_card(folder, card, sha256(folder / WEIGHTS))
    if (folder / INDEX).is_file():
        with suppress(ValueError):
            for name in set(read_index(folder).values()):
                if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name):
                    (folder / name).unlink(missing_ok=True)
        (folder / INDEX).unlink()
    return folder


def write_card(folder: Path, card: dict, digests: str | dict[str, str]) -> None:
    """Write the card of weights that are written: one file with its SHA-256, or shards, each with its own.

    The card also gets the versions, and the SHA-256 of its own entries that a model is built from.
    """
    versions = {"nanoq": __version__, "torch": torch.__version__, "python": platform.python_version()}
    card = card | {"versions": versions, "weights_sha256": digests}
    card["model_sha256"] = _model_sha256(card)
    write_text(folder / CARD, json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _model_sha256(card: dict) -> str:
    """SHA-256 of what a model is built from: a damaged number of heads, say, would fit the weights and go unseen."""
    entries = {key: card.get(key) for key in _MODEL if key not in _LATER or key in card}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


# ---- load ----


def load(name_or_path: str | Path) -> Checkpoint:
    """Load what `save` wrote, by a folder or by the name of a shipped model; in evaluation mode.

    Raises:
        FileNotFoundError: if there is no such folder, or a file is missing in it.
        ValueError: if a file is truncated, foreign, or does not belong to the other; in one sentence.
    """
    folder, card = _checked_folder(name_or_path)
    with _fitting(folder):
        family = _registered(FAMILIES, _family_name(card), "family of models")
        shapes = shapes_in(folder, card)
        model, resized = _sketch(family, card, shapes)
        if not model.state_dict().keys() >= dict(model.named_buffers()).keys():  # some are computed, not kept
            model = family.empty(card, len(shapes))
            fit(model, family, card, shapes)
        own = _own_names(model, family, card)
        _fill(model, {renamed(name, own): tensor for name, tensor in _tensors_in(folder, card)})
        if resized:  # nothing but a run shows whether layers of other sizes fit each other
            with torch.no_grad():
                model.eval()(family.probe(model))
    return Checkpoint(model.eval(), family.tokenizer(card, folder), card)


def _fitting(folder: Path):
    """Turn whatever goes wrong with a folder's contents into a sentence that names it."""
    return in_one_sentence(f"the weights of '{folder}' do not fit its card", FileNotFoundError)


def _family_name(card: dict) -> str:
    """What the card says; those from before there were families tell by their entries."""
    if "family" in card:
        return card["family"]
    return "gpt" if "characters" in card else "resnet" if "widths" in card["config"] else "transformers"


def _sketch(family: Family, card: dict, shapes: dict[str, Tensor]) -> tuple[nn.Module, bool]:
    """The model of a card without memory, when it has the tensors that a file has; and what `fit` says.

    Raises:
        ValueError, and what a family raises of a card that makes no sense.
    """
    with torch.device("meta"):
        model = family.empty(card, len(shapes))
    return model, fit(model, family, card, shapes)


def fit(model: nn.Module, family: Family, card: dict, shapes: dict[str, Tensor]) -> bool:
    """Put the layers of a card into a model of its family, which then has the tensors that a file has.

    Args:
        model: as the family makes it; without memory, or what it holds is lost where a layer takes another's place.
        family: the model's.
        card: only its `layers` and `names` count.
        shapes: the file's tensors, without memory: names, shapes and kinds of number have to be those of the model.

    Returns:
        Whether a layer has another size than the family would give it.

    Raises:
        ValueError: if something does not fit.
    """
    names = family.names(model) if "names" in card else {}
    resized = _place_layers(model, card.get("layers") or {}, shapes, _reversed(names))
    state = {renamed(name, names): tensor for name, tensor in model.state_dict().items()}
    # The second names of tied ones may lack.
    first = {renamed(name, names) for name in (*dict(model.named_parameters()), *dict(model.named_buffers()))}
    for problem, wrong in (("missing", first.intersection(state) - shapes.keys()), ("unknown", shapes.keys() - state)):
        if wrong:
            raise ValueError(f"{problem}: {some(wrong)}")
    for name, found in shapes.items():
        if found.shape != state[name].shape or found.is_floating_point() != state[name].is_floating_point():
            raise ValueError(f"{name} is of shape {tuple(found.shape)} and {found.dtype} in the file, and of "
                             f"{tuple(state[name].shape)} and {state[name].dtype} in the model")
    return resized


def _own_names(model: nn.Module, family: Family, card: dict) -> dict[str, str]:
    """The beginnings of names in a file that a model has others for: {in the file: in memory}."""
    return _reversed(family.names(model)) if "names" in card else {}


def _reversed(names: dict[str, str]) -> dict[str, str]:
    return {there: here for here, there in reversed(names.items())}  # a block that is used twice by its first name


def _place_layers(model: nn.Module, layouts: dict, shapes: dict[str, Tensor], own: dict[str, str]) -> bool:
    """Put layers of layouts in their places, by names of the file; whether one is of another size than the family's."""
    resized = False
    if len(layouts) > len(shapes):
        raise ValueError(f"the card names {len(layouts)} layers, the file has {len(shapes)} tensors")
    parts = _parts(layouts, shapes)
    for name, layout in layouts.items():
        try:
            module = model.get_submodule(renamed(name, own))
        except AttributeError:
            raise ValueError(f"the model has no layer {name:.80}") from None
        if not isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)) or not isinstance(layout, dict):
            raise ValueError(f"{name:.80} is no layer that can be packed")
        with naming(name):
            layer, table = layer_from_layout(layout, parts[name]), isinstance(module, nn.Embedding)
            odd = {key: layout[key] for key in GEOMETRY if key in layout} != geometry(module)
            if odd or hasattr(layer, "stand_in") != table or (table and weight_shape(layer) != weight_shape(module)):
                raise ValueError("it is another kind of layer in the model than in the card")
        resized |= weight_shape(layer) != weight_shape(module)
        if table:
            layer.stand_in(model, module.weight)
        else:
            model.set_submodule(renamed(name, own), layer)
    return resized


def _parts(layers: Iterable[str], tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each layer, by their names in it."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in layers}
    for key, tensor in tensors.items():
        for name in (key.rsplit(".", cut)[0] for cut in (1, 2, 3, 4)):  # NAME.codes to NAME.base.adapter.up.weight
            if name in parts:
                parts[name][key.removeprefix(f"{name}.")] = tensor
                break
    return parts


def layer_from_layout(layout: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """The layer of a layout and of its tensors, of any kind."""
    return _registered(LAYERS, str(layout.get("kind", PACKED)), "kind of layer")(layout, tensors)


GEOMETRY = ("kernel_size", "stride", "padding", "dilation")


def geometry(layer: nn.Module) -> dict[str, list[int]]:
    """How a convolution goes over a picture; nothing for a linear layer."""
    return {name: list(getattr(layer, name)) for name in GEOMETRY} if isinstance(layer, nn.Conv2d) else {}


def weight_shape(layer: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a layer of any kind; the inputs of a convolution are those of one position."""
    own = isinstance(layer, (nn.Linear, nn.Conv2d, nn.Embedding))
    return tuple(layer.weight.flatten(1).shape) if own else layer.weight_shape


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Give a ValueError that is raised in the block of code the name of the layer that it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@torch.no_grad()
def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a model its tensors: parameters in float32, tied ones by all of their names; buffers as they are."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    filled = {name: nn.Parameter(tensors[name].float(), parameter.requires_grad)
              for name, parameter in model.named_parameters()}
    tied = {name: filled[first[id(parameter)]] for name, parameter in model.named_parameters(remove_duplicate=False)}
    model.load_state_dict(tensors | tied, strict=False, assign=True)
    check_values(model)


def check_values(model: nn.Module) -> None:
    """Look whether what a model was given from a file are numbers, and codes of its layers' grids.

    Raises:
        ValueError: if one is not, by its name.
    """
    state = model.state_dict()  # without buffers that are computed, which may hold infinity
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in state and tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity")
    for name, module in model.named_modules():
        if hasattr(module, "check_values"):
            with naming(name):
                module.check_values()


def inspect(name_or_path: str | Path) -> dict:
    """The card of what `save` wrote, when it describes the tensors of the file; their values are not read.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    folder, card = _checked_folder(name_or_path)
    with _fitting(folder):
        _sketch(_registered(FAMILIES, _family_name(card), "family of models"), card, shapes_in(folder, card))
    return card


# ---- folders ----


def read_folder(name_or_path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read and verify the tensors and the card of a shipped model's name, or of a folder.

    Raises:
        FileNotFoundError: if there is no such folder, or a file is missing in it.
        ValueError: if a file is truncated, foreign, or does not belong to the other.
    """
    folder, card = _checked_folder(name_or_path)
    return dict(_tensors_in(folder, card)), card


def _checked_folder(name_or_path: str | Path) -> tuple[Path, dict]:
    """The folder and its card, when the card is whole and vouches for the weights."""
    folder = find_checkpoint(name_or_path)
    card = read_card(folder)
    missing = [key for key in ("config", "weights_sha256") if key not in card]
    if missing:
        raise ValueError(f"{folder / CARD} is not the card of a saved model: it lacks {', '.join(missing)}")
    if card.get("model_sha256", _model_sha256(card)) != _model_sha256(card):
        raise ValueError(f"{folder / CARD} is damaged: its {', '.join(_MODEL)} are not what was written")
    for path, digest in _digests(folder, card).items():
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, which {CARD} names: copy the folder again")
        if sha256(path) != digest:
            raise ValueError(f"{path} is damaged, or not the file of its card: the SHA-256 differs")
    return folder, card


def _digests(folder: Path, card: dict) -> dict[Path, str]:
    """The files of a model's weights, and what their SHA-256 has to be."""
    digests = card["weights_sha256"]
    if not isinstance(digests, dict):
        return {folder / WEIGHTS: digests}
    if not digests or not all(map(_SHARD.fullmatch, digests)):
        raise ValueError(f"{folder / CARD} is damaged: 'weights_sha256' names files that are no shards of weights")
    if (folder / WEIGHTS).exists():  # which transformers would read
        raise ValueError(f"{folder} holds {WEIGHTS} beside the shards of its card: remove one, or write it again")
    return {folder / name: digests[name] for name in sorted(digests)}


def shapes_in(folder: Path, card: dict) -> dict[str, Tensor]:
    """The headers of a folder's weights: its tensors by name, without memory.

    Raises:
        ValueError: if they are damaged, or shards and their index do not say the same.
    """
    paths = list(_digests(folder, card))
    if paths == [folder / WEIGHTS]:
        return shapes_of(paths[0])
    shapes, files = {}, read_index(folder)
    if unnamed := {path.name for path in paths} - set(files.values()):
        raise ValueError(f"{INDEX} does not name {some(unnamed)}")
    for path in paths:
        found = shapes_of(path)
        if wrong := [name for name in found if files.pop(name, None) != path.name]:
            raise ValueError(f"{path.name} holds what {INDEX} has elsewhere, or not at all: {some(wrong)}")
        shapes |= found
    if files:
        raise ValueError(f"no file has what {INDEX} names: {some(files)}")
    return shapes


def read_index(folder: Path) -> dict[str, str]:
    """Which tensor lies in which of the shards in a folder.

    Raises:
        ValueError: if the index is missing, or no index.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{INDEX} is missing")
    check_json(path)
    try:
        files = json.loads(path.read_text(encoding="utf-8-sig"))["weight_map"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"{INDEX} is no index of tensors ({error!r:.80})") from None
    if not isinstance(files, dict) or not all(isinstance(name, str) and _SHARD.fullmatch(name)
                                              for name in files.values()):
        raise ValueError(f"{INDEX} is no index of tensors: it names files that are no shards")
    return files


def check_json(path: Path) -> None:
    """Look at a card, an index or a configuration before it is parsed.

    Raises:
        ValueError: if it is larger than any of them.
    """
    if (size := path.stat().st_size) > LARGEST_JSON:
        raise ValueError(f"{path} has {size:,} bytes, more than a card, an index or a configuration can have")


def _tensors_in(folder: Path, card: dict) -> Iterator[tuple[str, Tensor]]:
    for path in _digests(folder, card):
        yield from _tensors(path)


def read_card(folder: Path) -> dict:
    """What the card in a folder says.

    Raises:
        ValueError: if it is not JSON, or its entries are not of the kind that they have to be.
    """
    path = folder / CARD
    check_json(path)
    try:
        card = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or JSON nested without end
        raise ValueError(f"{path} is not a nanoq card ({error}); copy or train the model again") from None
    if not isinstance(card, dict):
        raise ValueError(f"{path} is not a nanoq card: it holds a {type(card).__name__}; copy or train the model again")
    for key, kind in _KINDS.items():
        if key in card and not isinstance(card[key], kind):
            raise ValueError(f"{path} is not a nanoq card: its '{key}' is a {type(card[key]).__name__}")
    return card


def shipped_names() -> list[str]:
    """What models come with nanoq."""
    return sorted(path.parent.name for path in (data_dir() / "checkpoints").glob(f"*/{CARD}"))


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The folder of a shipped model's name, or the folder itself.

    Raises:
        FileNotFoundError: with the names that there are.
    """
    shipped = data_dir() / "checkpoints"
    for folder in (Path(name_or_path), shipped / name_or_path):
        if (folder / CARD).is_file() and any((folder / file).is_file() for file in (WEIGHTS, INDEX)):
            return folder
    names = ", ".join(shipped_names()) or "none"
    raise FileNotFoundError(
        f"no model at '{name_or_path}': give a folder with {WEIGHTS} and {CARD}, or a shipped name ({names})"
    )


def weight_files(folder: Path) -> list[Path]:
    """The files that the weights in a folder lie in, whoever wrote it: one, or the shards of an index, or none.

    Raises:
        ValueError: if the index is no index.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [path for path in [folder / WEIGHTS] if path.is_file()]
    return [folder / name for name in sorted(set(read_index(folder).values()))]


@contextmanager
def _opened(path: Path) -> Iterator:
    """A safetensors file, whose header has been checked."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error})") from None


def shapes_of(path: Path) -> dict[str, Tensor]:
    """The header of a file: its tensors by name, without memory.

    Raises:
        ValueError: if it is damaged, or holds numbers of a type that nanoq does not read.
    """
    shapes = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            part = file.get_slice(name)
            if part.get_dtype() not in _TYPES:
                raise ValueError(f"{name} is of type {part.get_dtype()}, which nanoq does not read")
            shapes[name] = torch.empty(part.get_shape(), dtype=_TYPES[part.get_dtype()], device="meta")
    return shapes


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            yield name, file.get_tensor(name)


def some(names: Iterable[str], most: int = 5) -> str:
    """The first few of many names, in one line."""
    names = sorted(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"{name:.80}" for name in names[:most]) + more
