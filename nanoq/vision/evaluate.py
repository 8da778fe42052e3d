"""Accuracy, with the verdict on each picture kept, so that two models can be compared on the same pictures."""

import torch
from torch import Tensor, nn

from nanoq.decoding import decoded_once
from nanoq.progress import progress
from nanoq.running import device_of, evaluating


@torch.no_grad()
def correct(model: nn.Module, pictures: Tensor, labels: Tensor, batch: int = 500) -> Tensor:
    """Whether the model gives each picture its label: bool (N,).

    Args:
        model: maps pictures (N, channels, H, W) to logits (N, classes); is put into evaluation mode and back.
        pictures: float32 (N, channels, H, W).
        labels: int64 (N,).
        batch: pictures in a forward pass.

    Raises:
        ValueError: if there is no picture, or not a label for each.
    """
    if not len(pictures) or labels.shape != (len(pictures),):
        raise ValueError(f"need a label for each picture: {len(pictures)} pictures, labels {tuple(labels.shape)}")
    device = device_of(model)
    parts = progress(pictures.split(batch), desc="evaluate", unit="batch", leave=False, delay=1)
    with evaluating(model), decoded_once(model):
        answers = torch.cat([model(part.to(device)).argmax(1).cpu() for part in parts])
    return answers == labels.cpu()


def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Share of pictures that the model gives their label, in [0, 1]; arguments and errors as `correct`."""
    return correct(model, pictures, labels, batch).double().mean().item()
