"""AWQ: scales that protect the weights that large inputs meet, hidden in the layer before; and clipped weights."""

import torch
from torch import Tensor, nn

from nanoq.lm.model import GPT
from nanoq.quant.calibrate import LayerStats, observe
from nanoq.quant.outliers import _layers_after_norms, _move_scale, check_windows, watch_sizes
from nanoq.quant.recipe import Round
from nanoq.quant.rounding import nearest

STEPS = 20


@torch.no_grad()
def awq(model: GPT, calibration: Tensor, step: Round, *, clip: bool = True, batch: int = 16) -> dict[str, float]:
    """AWQ (Lin et al. 2023, arXiv 2306.00978): make the weights larger that large inputs meet, before they are rounded.

    Column j of a weight is multiplied by s_j = mean|x_j|**r, and what gives x_j is divided by it: the norm before `qkv`
    and `up`, the rows of the values before `out`. Logits stay the same but for floating-point rounding. GELU stands
    before `down`, which is left as it is. Of r = 0, 1/20, ..., 19/20 each layer gets the one with the least error of
    its output when it is rounded to nearest on the grid of the step (the paper measures the block's output).

    Clipping then changes the model: each row is cut at 100 to 52.5 % of its range, or each group of it, whichever
    leaves the least error of what it adds to the output; queries and keys are left alone, as in the paper's code.

    Args:
        model: is changed in place, before its weights are quantised.
        calibration: tokens (windows, T).
        step: as what the weights will be rounded, as `Round(bits=4, group_size=64)`; its method is not used.
        clip: whether weights are clipped, too.
        batch: windows that go through the model at once.

    Returns:
        r of each layer that was scaled, by its name in the model.

    Raises:
        ValueError: if the step leaves the weights as they are, there is no calibration text, or the model is quantised
            or rotated.
    """
    if step.bits == 16:
        raise ValueError("the step has to round: 16 bits need no scales")
    check_windows(calibration)
    after_norms = _layers_after_norms(model)
    layers = {f"blocks.{i}.{name}": block.get_submodule(name) for i, block in enumerate(model.blocks)
              for name in ("attention.out", "attention.qkv", "mlp.up", "mlp.down")}
    stats, size = _inputs(model, layers, calibration, batch)
    powers = {}
    for name, layer in layers.items():
        if name.endswith("down"):
            continue
        powers[name], scale = best_power(layer.weight, step, stats[name], size[name])
        if name in after_norms:
            _move_scale(*after_norms[name], scale)
        else:
            _move_to_values(model.get_submodule(name.removesuffix(".out")), scale)
        # the layer reads x / s from now on
        stats[name].gram /= scale[:, None] * scale
    for name, layer in layers.items() if clip else ():
        rows = slice(2 * len(layer.weight) // 3 if name.endswith("qkv") else 0, None)
        layer.weight[rows] = clipped(layer.weight[rows], step, stats[name])
    return powers


def best_power(weight: Tensor, step: Round, stats: LayerStats, size: Tensor) -> tuple[float, Tensor]:
    """The power r in 0..19/20 with the least output error of a weight (out, in), and the scales (in,) that it gives.

    Args:
        weight: (out, in).
        step: whose grid the weight is rounded on.
        stats: of the layer's inputs.
        size: mean|x| of each input (in,).
    """
    found = []
    for power in (i / STEPS for i in range(STEPS)):
        scale = size.clamp(min=1e-4) ** power
        scale = scale / (scale.max() * scale.min()).sqrt()
        values = _rounded(weight * scale, step, _divided(stats, scale)) / scale
        found.append((float(stats.error_terms((values - weight).to(stats.gram)).sum()), power, scale))
    _, power, scale = min(found, key=lambda each: each[0])
    return power, scale


def clipped(weight: Tensor, step: Round, stats: LayerStats) -> Tensor:
    """The weight (rows, in) with each group of columns cut where its own share of the outputs has the least error."""
    width = step.grid_options.get("group_size") or weight.shape[1]
    best, least = weight, None
    for share in (1 - i / (2 * STEPS) for i in range(STEPS)):
        cut = torch.cat([part.clamp(share * part.amin(1, keepdim=True).clamp(max=0),
                                    share * part.amax(1, keepdim=True).clamp(min=0))
                         for part in weight.split(width, 1)], 1)
        change = (_rounded(cut, step, stats) - weight).to(stats.gram)
        error = torch.stack([((part @ stats.gram[start : start + width, start : start + width]) * part).sum(1)
                             for start, part in zip(range(0, weight.shape[1], width), change.split(width, 1),
                                                    strict=True)], 1)
        if least is None:
            least = error
        better = (error < least).repeat_interleave(width, 1)[:, : weight.shape[1]]
        best, least = torch.where(better, cut, best), torch.minimum(error, least)
    return best


def _rounded(weight: Tensor, step: Round, stats: LayerStats) -> Tensor:
    """The weight rounded to nearest on the grid of a step."""
    grid = step.make_grid(weight, stats)
    return grid.decode(nearest(weight, grid))


def _divided(stats: LayerStats, scale: Tensor) -> LayerStats:
    """The statistics of inputs that were divided by scales (in,)."""
    other = LayerStats(len(scale), stats.gram.dtype, stats.gram.device)
    other.gram, other.tokens = stats.gram / (scale[:, None] * scale), stats.tokens
    return other


def _move_to_values(attention: nn.Module, scale: Tensor) -> None:
    """Divide the values by scale (width,) and multiply the columns of `out` that read them."""
    qkv, out = attention.qkv, attention.out
    qkv.weight[-len(scale) :] /= scale[:, None]
    if qkv.bias is not None:
        qkv.bias[-len(scale) :] /= scale
    out.weight *= scale


def _inputs(model: GPT, layers: dict[str, nn.Linear], tokens: Tensor, batch: int
            ) -> tuple[dict[str, LayerStats], dict[str, Tensor]]:
    """The statistics of each layer's inputs over the tokens (windows, T), and mean|x| (in,)."""
    size = {name: torch.zeros_like(layer.weight[0]) for name, layer in layers.items()}

    def note(name: str, sizes: Tensor) -> None:
        size[name] += sizes.sum(0) / tokens.numel()
    with observe(layers) as stats:
        watch_sizes(model, layers, tokens, note, batch)
    return stats, size
