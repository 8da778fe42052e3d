"""Checkpoints: a folder with `model.safetensors` and `card.json`, checked against each other when they are read."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nanoq import __version__
from nanoq.files import atomic_path, data_dir, sha256
from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer

WEIGHTS, CARD = "model.safetensors", "card.json"


@dataclass
class Checkpoint:
    """A model, the tokeniser it was trained with, and the card that says how it came to be."""

    model: GPT
    tokenizer: CharTokenizer
    card: dict


def write_folder(folder: Path | str, tensors: dict[str, torch.Tensor], card: dict) -> Path:
    """Write tensors and their card, each file atomically.

    The card also gets the versions, the SHA-256 of the weights, and that of its own entries that a model is built from.
    """
    folder = Path(folder)
    json.dumps(card)  # what is no JSON must fail before the weights of an older card are replaced
    with atomic_path(folder / WEIGHTS) as path:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)
    versions = {"nanoq": __version__, "torch": torch.__version__, "python": platform.python_version()}
    card = card | {"versions": versions, "weights_sha256": sha256(folder / WEIGHTS)}
    card["model_sha256"] = _model_sha256(card)
    with atomic_path(folder / CARD) as path:
        path.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def _model_sha256(card: dict) -> str:
    """SHA-256 of what a model is built from: a damaged number of heads, say, would fit the weights and go unseen."""
    entries = {key: card.get(key) for key in ("config", "characters", "layers")}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def read_folder(name_or_path: str | Path, required: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], dict]:
    """Read and verify the tensors and card of a shipped checkpoint's name, or of a folder.

    Args:
        name_or_path: a folder, or the name of one in `data/checkpoints`.
        required: keys that the card must have.

    Raises:
        FileNotFoundError: if there is no such folder, or a file is missing in it.
        ValueError: if a file is truncated, foreign, or does not belong to the other.
    """
    folder = find_checkpoint(name_or_path)
    card = read_card(folder)
    missing = [key for key in (*required, "weights_sha256") if key not in card]
    if missing:
        foreign = ("; it is a model of transformers, for nanoq.hf.load_hf, nanoq quantize and nanoq evaluate"
                   if (folder / "config.json").is_file() else "")
        raise ValueError(f"{folder / CARD} is not a card of this kind: it lacks {', '.join(missing)}{foreign}")
    if card.get("model_sha256", _model_sha256(card)) != _model_sha256(card):
        raise ValueError(f"{folder / CARD} is damaged: its config, characters or layers are not what was written")
    if sha256(folder / WEIGHTS) != card["weights_sha256"]:
        raise ValueError(f"{folder / WEIGHTS} is damaged, or not the file of its card: the SHA-256 differs")
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, card  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is not a safetensors file ({error})") from None


def read_card(folder: Path) -> dict:
    """What the card in a folder says; nothing if it holds something else than entries.

    Raises:
        ValueError: if it is not JSON.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or JSON nested without end
        raise ValueError(f"{folder / CARD} is not a nanoq card ({error}); copy or train the checkpoint again") from None
    return card if isinstance(card, dict) else {}


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The folder of a shipped checkpoint's name, or the folder itself.

    Raises:
        FileNotFoundError: with the names that there are.
    """
    shipped = data_dir() / "checkpoints"
    for folder in (Path(name_or_path), shipped / name_or_path):
        if (folder / CARD).is_file() and (folder / WEIGHTS).is_file():
            return folder
    names = ", ".join(sorted(path.parent.name for path in shipped.glob(f"*/{CARD}"))) or "none"
    raise FileNotFoundError(
        f"no checkpoint at '{name_or_path}': give a folder with {WEIGHTS} and {CARD}, or a shipped name ({names})"
    )


def save_checkpoint(folder: Path | str, model: GPT, tokenizer: CharTokenizer, **facts) -> Path:
    """Write a model in its own precision, with its vocabulary; `facts` join the card (corpus, command, …)."""
    card = {"config": asdict(model.config), "characters": "".join(tokenizer.characters)}
    return write_folder(folder, model.state_dict(), card | facts)


def load_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """Load a shipped checkpoint by name, or any by folder.

    Raises:
        FileNotFoundError, ValueError: as `read_folder`, and if the weights do not fit the card's configuration.
    """
    tensors, card = read_folder(name_or_path, required=("config", "characters"))
    if card.get("layers"):
        raise ValueError(f"'{name_or_path}' is quantised or pruned: load it with nanoq.compress.load_compressed")
    model, tokenizer = build_model(card, name_or_path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights of '{name_or_path}' do not fit its configuration: {error}") from None
    return Checkpoint(model.eval(), tokenizer, card)


def build_model(card: dict, name: str | Path) -> tuple[GPT, CharTokenizer]:
    """An untrained model and the tokeniser that a card describes.

    Raises:
        ValueError: if the card's configuration or vocabulary is not one.
    """
    try:
        tokenizer = CharTokenizer(card["characters"])
        config = GPTConfig(**card["config"])
        if config.vocab_size != tokenizer.vocab_size:
            raise ValueError(f"{tokenizer.vocab_size} ids in the vocabulary, {config.vocab_size} in the configuration")
        return GPT(config), tokenizer
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: more weights than memory can hold
        raise ValueError(f"the card of '{name}' does not describe a model: {error}") from None
