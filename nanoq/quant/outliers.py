"""SmoothQuant, and outliers for it to smooth.

In large language models a few channels of the activations are some ten times larger than the rest, always the same ones
(Dettmers et al. 2022, arXiv 2208.07339, section 4). `plant_outliers` gives a small model the same trouble, and
`smoothquant` takes it away.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nanoq.lm.model import GPT


def plant_outliers(model: GPT, channels: int = 4, factor: float = 50.0, seed: int = 0) -> Tensor:
    """Make the same few channels of every norm's output `factor` times larger, and leave what the model computes alone.

    The layer that reads a norm, `qkv` or `up`, has the matching columns of its weight divided by the factor: logits
    stay the same but for floating-point rounding. A model of some billion weights grows such channels by itself while
    it is trained; ours is too small to, so they are planted.

    Args:
        model: is changed in place.
        channels: how many.
        factor: positive.
        seed: of the choice of channels.

    Returns:
        The channels, int64 (channels,).

    Raises:
        ValueError: if there are not that many channels, the factor is not positive, or the model is quantised or
            rotated.
    """
    width = model.config.width
    if channels not in range(width + 1):
        raise ValueError(f"channels must be in 0..{width}, the model's width, not {channels!r}")
    if not 0 < factor < torch.inf:
        raise ValueError(f"factor must be a positive number, not {factor!r}")
    chosen = torch.randperm(width, generator=torch.Generator().manual_seed(seed))[:channels]
    for norm, layer in _layers_after_norms(model).values():
        scale = torch.ones_like(norm.weight)
        scale[chosen] = 1 / factor
        _move_scale(norm, layer, scale)
    return chosen


def smoothquant(model: GPT, calibration: Tensor, alpha: float = 0.5) -> dict[str, Tensor]:
    """SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): move the range of activations into the weights they meet.

    Channel j of a norm's output X is divided by s_j, column j of the weight W that reads it is multiplied by s_j:

        s_j = max|X_j|**alpha / max|W_j|**(1 - alpha)        (equation 4)

    Logits stay the same but for floating-point rounding. Only `qkv` and `up` read a norm that the division can be
    hidden in; the inputs of `out` and `down` stay as they are, as in the paper.

    Args:
        model: is changed in place, before its weights are quantised.
        calibration: tokens (windows, T) that show the range of the activations.
        alpha: 0 to 1: at 1 all channels of X get the same range, at 0 all columns of W.

    Returns:
        The scales s (width,) of each layer that was smoothed, by its name in the model.

    Raises:
        ValueError: if alpha is out of its range, there is no calibration text, or the model is quantised or rotated.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, not {alpha!r}")
    check_windows(calibration)
    pairs = _layers_after_norms(model)
    inputs = _largest_inputs(model, {name: layer for name, (_, layer) in pairs.items()}, calibration)
    scales = {}
    for name, (norm, layer) in pairs.items():
        columns = layer.weight.detach().abs().amax(0)
        scale = inputs[name] ** alpha / columns ** (1 - alpha)
        # An input that is never seen, or never read, has no range to balance.
        scales[name] = torch.where((inputs[name] > 0) & (columns > 0), scale, 1.0)
        _move_scale(norm, layer, scales[name])
    return scales


def check_windows(calibration: Tensor) -> None:
    """Raise a ValueError unless this is calibration text, tokens (windows, T)."""
    if calibration.dim() != 2 or not calibration.numel():
        raise ValueError(f"calibration must be tokens (windows, T), not of shape {tuple(calibration.shape)}")


def _layers_after_norms(model: GPT) -> dict[str, tuple[nn.LayerNorm, nn.Linear]]:
    """Each norm of the blocks with the one linear layer that reads it, by that layer's name in the model."""
    if not isinstance(model, GPT):
        kind = type(getattr(model, "model", model)).__name__
        raise ValueError(f"scales are moved in a GPT of nanoq, not in a {kind}")
    pairs = {}
    for i, block in enumerate(model.blocks):
        pairs[f"blocks.{i}.attention.qkv"] = block.attention_norm, block.attention.qkv
        pairs[f"blocks.{i}.mlp.up"] = block.mlp_norm, block.mlp.up
    if model.config.norm != "layer":
        raise ValueError("the norms of a rotated model have no weight to hide a scale in: rescale before `rotate`")
    for name, (_, layer) in pairs.items():
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is quantised already: rescale the model before its weights are rounded")
    return pairs


@torch.no_grad()
def _move_scale(norm: nn.LayerNorm, layer: nn.Linear, scale: Tensor) -> None:
    """Divide the norm's output by scale (width,) and multiply the columns that read it; layer(norm(x)) is unchanged."""
    norm.weight /= scale
    if norm.bias is not None:
        norm.bias /= scale
    layer.weight *= scale


def watch_sizes(model: GPT, layers: dict[str, nn.Linear], tokens: Tensor, note: Callable[[str, Tensor], None],
                batch: int) -> None:
    """Run a model on tokens (windows, T), and give `note` each layer's name and its inputs' magnitudes (N, in)."""
    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(_: nn.Module, args: tuple[Tensor]) -> None:
            note(name, args[0].flatten(0, -2).abs())

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    training = model.training
    try:
        model.eval()
        for rows in tokens.split(batch):
            model(rows)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _largest_inputs(
    model: GPT, layers: dict[str, nn.Linear], tokens: Tensor, batch: int = 16
) -> dict[str, Tensor]:
    """For each layer the largest magnitude of each of its inputs (in,) over the tokens (windows, T)."""
    largest = {name: torch.zeros_like(layer.weight[0]) for name, layer in layers.items()}

    def note(name: str, sizes: Tensor) -> None:
        largest[name] = torch.maximum(largest[name], sizes.amax(0))
    watch_sizes(model, layers, tokens, note, batch)
    for name, values in largest.items():
        if not values.isfinite().all():
            raise ValueError(f"the inputs of {name} hold NaN or infinity: look for it in the model's weights")
    return largest
