"""Training of the image classifier, a minute on one core: AdamW, warm-up and decay, random affine augmentation."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.progress import progress
from nanoq.vision.data import Images


@dataclass(frozen=True)
class ImageTrainConfig:
    """How to train. The defaults are the course's recipe.

    Attributes:
        epochs: times that every training picture is seen, up to the last few, which fill no batch.
        batch: pictures in a step.
        lr: peak learning rate; grows linearly over the first fifth of the steps, then falls linearly to zero.
        weight_decay: decoupled, on convolutions and matrices.
        shift: largest shift of a training picture, in pixels, in each direction.
        degrees: largest rotation of a training picture.
        scale: largest relative change of its size, in [0, 1).
        seed: of the order of the data and of shifts, rotations and sizes.
    """

    epochs: int = 20
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.05
    shift: float = 2.0
    degrees: float = 15.0
    scale: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch < 2:
            raise ValueError("epochs must be at least 1, and batch at least 2 (batch norm needs a spread)")
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale must lie in [0, 1), not {self.scale!r}")

    def lr_factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step of 0..steps-1."""
        return min((step + 1) / (0.2 * steps), (steps - step) / (0.8 * steps), 1.0)


def augment(pictures: Tensor, config: ImageTrainConfig, generator: torch.Generator) -> Tensor:
    """Shift, turn and zoom each picture (N, channels, H, W) at random; its border is continued outwards."""
    N, _, H, W = pictures.shape
    turn, zoom, right, down = 2 * torch.rand(4, N, generator=generator) - 1  # each uniform in [-1, 1)
    turn, zoom = turn * math.radians(config.degrees), 1 + config.scale * zoom
    # In the coordinates of affine_grid a picture reaches from -1 to 1: a pixel is 2 / W wide.
    rows = (torch.stack((zoom * turn.cos(), -zoom * turn.sin(), right * 2 * config.shift / W), dim=1),
            torch.stack((zoom * turn.sin(), zoom * turn.cos(), down * 2 * config.shift / H), dim=1))
    where = F.affine_grid(torch.stack(rows, dim=1), list(pictures.shape), align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(pictures, where, padding_mode="border", align_corners=False)


def train_classifier(
    model: nn.Module, pictures: Images, config: ImageTrainConfig,
    loss_fn: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
) -> list[dict]:
    """Train `model` in place and return its history, a row for each epoch: epoch, train_loss (nats) and seconds.

    The test split is not looked at. The model is left in evaluation mode.

    Args:
        model: maps pictures (N, channels, H, W) to logits (N, classes); what its `parameters()` give is trained.
        pictures: the training split and its labels are used.
        config: how to train.
        loss_fn: maps (model, pictures, labels) of a batch to a scalar; cross-entropy where it is None. Distillation
            passes its own.

    Raises:
        ValueError: if there are fewer training pictures than one batch, or the loss is no longer finite.
    """
    per_epoch = len(pictures.train) // config.batch
    if not per_epoch:
        raise ValueError(f"{len(pictures.train)} training pictures are less than one batch of {config.batch}")
    device, optimizer = next(model.parameters()).device, _make_optimizer(model, config)
    generator = torch.Generator().manual_seed(config.seed)
    started, step, history = time.perf_counter(), 0, []
    model.train()
    for epoch in progress(range(1, config.epochs + 1), desc="train", unit="epoch"):
        losses = []
        order = torch.randperm(len(pictures.train), generator=generator)[: per_epoch * config.batch]
        for rows in order.split(config.batch):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * config.lr_factor(step, per_epoch * config.epochs)
            batch = augment(pictures.train[rows], config, generator).to(device)
            loss = (loss_fn or _cross_entropy)(model, batch, pictures.train_labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
        mean = sum(losses) / len(losses)
        if not math.isfinite(mean):
            raise ValueError(f"the loss of epoch {epoch} is {mean}: train with a lower lr than {config.lr}")
        history.append({"epoch": epoch, "train_loss": round(mean, 5),
                        "seconds": round(time.perf_counter() - started, 1)})
    model.eval()
    return history


def _cross_entropy(model: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a batch, in nats a picture."""
    return F.cross_entropy(model(pictures), labels)


def _make_optimizer(model: nn.Module, config: ImageTrainConfig) -> torch.optim.Optimizer:
    """AdamW, with no decay on norms and biases."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW([
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ])
