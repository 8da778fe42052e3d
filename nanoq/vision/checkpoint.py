"""The image classifier as a family of `nanoq.store`."""

from dataclasses import asdict

import torch
from torch import Tensor

from nanoq.store import FAMILIES, Checkpoint, Family
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
