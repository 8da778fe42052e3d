"""Picture models in files: the same folder of weights and card as a language model's."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from nanoq.store import FAMILIES, Checkpoint, Family, load, save
from nanoq.vision.model import ResNet, ResNetConfig


def _describe(checkpoint: Checkpoint) -> dict:
    return {"config": asdict(checkpoint.model.config)}


def _empty(card: dict, tensors: int) -> ResNet:
    config = ResNetConfig(**card["config"] | {"widths": tuple(card["config"]["widths"])})
    if config.blocks_per_stage * len(config.widths) > tensors:
        raise ValueError(f"{config.blocks_per_stage} blocks in a stage are more than a file of {tensors} tensors has")
    return ResNet(config, seed=None)


def _probe(model: ResNet) -> Tensor:
    return torch.zeros(1, model.config.channels, 4, 4)


FAMILIES["resnet"] = Family(ResNet, _describe, _empty, lambda card, folder: None, _probe)


def save_classifier(folder: Path | str, model: ResNet, **facts) -> Path:
    """Write a model, packed or in its own precision; `facts` join the card (data, command, ...)."""
    return save(folder, Checkpoint(model, None, {"parameters": model.parameter_count()}), **facts)


def load_classifier(name_or_path: str | Path) -> ResNet:
    """Load a shipped picture model by name, or any by folder, in evaluation mode.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, its weights do not fit its configuration, or it is no picture model.
    """
    model = load(name_or_path).model
    if not isinstance(model, ResNet):
        raise ValueError(f"'{name_or_path}' is not a picture model, but a {type(model).__name__}")
    return model
