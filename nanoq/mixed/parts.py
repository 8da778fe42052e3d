"""What every sensitivity needs: the parts of a model, its loss, and a model that comes back as it was."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nanoq.lm.training import next_token_loss
from nanoq.progress import progress
from nanoq.quant.layers import linear_layers
from nanoq.running import evaluating

UNITS = ("block", "linear")
Loss = Callable[[nn.Module, Tensor], Tensor]


def parts_of(model: nn.Module, unit: str = "block") -> dict[str, dict[str, nn.Module]]:
    """The parts whose sensitivity is asked for, each with its layers: {part: {layer: module}}.

    "block" has parts blocks.0, blocks.1, ...; with "linear" every layer is a part of its own.

    Raises:
        ValueError: if the unit is another one, or there is no layer.
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}")
    layers = linear_layers(model)
    if not layers:
        raise ValueError("the model has no linear layer in its blocks")
    if unit == "linear":
        return {name: {name: layer} for name, layer in layers.items()}
    parts: dict[str, dict[str, nn.Module]] = {}
    for name, layer in layers.items():
        parts.setdefault(".".join(name.split(".")[:2]), {})[name] = layer
    return parts


def for_each_part(parts: dict[str, dict[str, nn.Module]], score: Callable[[str], float], desc: str) -> dict:
    """Score each part by name, in the order of the model. Under `torchrun` each process takes its share of them."""
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    scores = {name: score(name) for name in progress(list(parts)[rank::ranks], desc=desc, unit="part")}
    if ranks > 1:
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        shares = [None] * ranks
        dist.all_gather_object(shares, scores)
        scores = {name: value for share in shares for name, value in share.items()}
    return {name: scores[name] for name in parts}


@contextmanager
def restoring_weights(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Yield copies of the layers' weights, and put them back at the end, bit for bit, whatever happened."""
    originals = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    try:
        yield originals
    finally:
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight.copy_(originals[name])


@contextmanager
def differentiating(model: nn.Module, layers: dict[str, nn.Module]) -> Iterator[list[Tensor]]:
    """Yield the layers' weights in evaluation mode, with gradients, also for those that are frozen before and after."""
    weights = [layer.weight for layer in layers.values()]
    frozen = [weight for weight in weights if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            yield weights
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


@torch.no_grad()
def mean_loss(model: nn.Module, data: Tensor, loss_fn: Loss = next_token_loss, batch: int = 16) -> float:
    """The mean loss over the rows of `data` (N, ...), in evaluation mode; float64, summed in a fixed order.

    Raises:
        ValueError: if there are no rows, or it is NaN.
    """
    check_data(data)
    with evaluating(model):
        mean = sum(float(loss_fn(model, rows)) * len(rows) for rows in data.split(batch)) / len(data)
    if math.isnan(mean):
        raise ValueError("the loss is NaN: look for it in the model's weights or in the data")
    return mean


def gradients(
    model: nn.Module, data: Tensor, layers: dict[str, nn.Module], loss_fn: Loss = next_token_loss, batch: int = 16
) -> dict[str, Tensor]:
    """The gradient of the mean loss by each layer's weight; what is in `.grad` stays.

    Of an expert that no token reaches it is 0.
    """
    check_data(data)
    sums = dict.fromkeys(layers, 0.0)
    with differentiating(model, layers) as weights:
        for rows in data.split(batch):
            loss = loss_fn(model, rows) * len(rows) / len(data)
            for name, new in zip(layers, torch.autograd.grad(loss, weights, materialize_grads=True), strict=True):
                sums[name] = sums[name] + new.to(torch.promote_types(new.dtype, torch.float32))
    return sums


def check_data(data: Tensor) -> None:
    """Check that there is anything to measure on.

    Raises:
        ValueError: if there is not.
    """
    if data.dim() < 1 or not data.numel():
        raise ValueError(f"data must be rows such as token windows (N, T + 1), not of shape {tuple(data.shape)}")


def check_draws(draws: int) -> None:
    """Check that there is anything to average.

    Raises:
        ValueError: if there is not.
    """
    if draws < 1:
        raise ValueError(f"at least one draw is needed, not {draws!r}")
