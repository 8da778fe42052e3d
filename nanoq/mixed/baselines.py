"""What CMPQ, PMPQ and TDMPQ have to beat: chance, rounding errors, first and second order, and trying it out.

But for `random_scores`, each gives every part of the model a cost for every width, {part: {bits: cost}}, which is what
`integer_program` minimises. Costs estimate the growth of the loss, up to a factor that is the same for all parts, or
are measured.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanoq.lm.training import next_token_loss
from nanoq.mixed.parts import (
    Loss,
    check_data,
    check_draws,
    differentiating,
    for_each_part,
    gradients,
    mean_loss,
    parts_of,
    restoring_weights,
)
from nanoq.quant.calibrate import LayerStats, observe
from nanoq.quant.layers import linear_layers, weight_matrix
from nanoq.quant.recipe import Round
from nanoq.running import evaluating

BITS = (2, 3, 4, 8)
Costs = dict[str, dict[int, float]]


def random_scores(model: nn.Module, data: Tensor | None = None, *, unit: str = "block", seed: int = 0
                  ) -> dict[str, float]:
    """A number in 0..1 by chance for each part: what any method should beat."""
    generator = random.Random(seed)
    return {part: generator.random() for part in parts_of(model, unit)}


def weight_mse(
    model: nn.Module, data: Tensor | None = None, *, bits: tuple[int, ...] = BITS, unit: str = "block"
) -> Costs:
    """The squared rounding error of the weights, summed; it asks nothing of the data."""
    return _summed(model, bits, unit, lambda _, change: float(change.square().sum()))


def output_mse(
    model: nn.Module, data: Tensor, *, bits: tuple[int, ...] = BITS, unit: str = "block", batch: int = 16
) -> Costs:
    """The squared error of each layer's outputs on the data, trace(D G D^T), summed over the layers of a part."""
    stats = input_statistics(model, data, batch)
    return _summed(model, bits, unit, lambda name, change: float(stats[name].error_terms(change).sum()), stats)


def gptq_error(
    model: nn.Module, data: Tensor, *, bits: tuple[int, ...] = BITS, unit: str = "block",
    loss_fn: Loss = next_token_loss, batch: int = 16, **grid,
) -> Costs:
    """Half the squared error of each output after GPTQ, weighed by the mean squared gradient of the loss at it.

    The weights, the diagonal of the output's Fisher information, are what makes layers comparable. `grid` has fields
    of `Round`, as `group_size=64`; without, rows are rounded.
    """
    stats, fisher = input_statistics(model, data, batch), output_gradients(model, data, loss_fn, batch)

    def cost(name: str, change: Tensor) -> float:
        return float(0.5 * (fisher[name] * stats[name].error_terms(change).sum(1)).sum())
    return _summed(model, bits, unit, cost, stats, method="gptq", **grid)


def first_order(
    model: nn.Module, data: Tensor, *, bits: tuple[int, ...] = BITS, unit: str = "block",
    loss_fn: Loss = next_token_loss, batch: int = 16,
) -> Costs:
    """|<g, D>| for the gradient g of the loss and the rounding error D: the first term of Taylor's series (LLM-MQ)."""
    slope = gradients(model, data, linear_layers(model), loss_fn, batch)
    return _summed(model, bits, unit, lambda name, change: abs(float((slope[name].flatten(1) * change).sum())))


def hawq(
    model: nn.Module, data: Tensor, *, bits: tuple[int, ...] = BITS, unit: str = "block",
    loss_fn: Loss = next_token_loss, draws: int = 8, batch: int = 16, seed: int = 0,
) -> Costs:
    """Half the mean curvature of each layer's loss times its squared rounding error (HAWQ-V2, arXiv 1911.03852)."""
    trace = hessian_traces(model, data, loss_fn, draws, batch, seed)
    return _summed(model, bits, unit,
                   lambda name, change: 0.5 * trace[name] / change.numel() * float(change.square().sum()))


def leave_one_in(
    model: nn.Module, data: Tensor, *, bits: tuple[int, ...] = BITS, unit: str = "block",
    method: str = "nearest", metric: str = "loss", calibration: Tensor | None = None, loss_fn: Loss = next_token_loss,
    batch: int = 16,
) -> Costs:
    """The growth of the loss, or the KL divergence from the original predictions, when only this part is quantised.

    What the other scores predict; the truth as far as the damage of the parts adds up.

    Args:
        model: maps rows to logits.
        data: windows of tokens (N, T + 1).
        bits: widths to try.
        unit: "block" or "linear".
        method: of rounding, "nearest" or "gptq".
        metric: "loss" or "kl", which needs no labels and is never negative.
        calibration: windows that GPTQ fits; `data` itself by default.
        loss_fn: the loss, for the metric of that name.
        batch: rows in a forward pass.

    Raises:
        ValueError: if the metric is another one.
    """
    if metric not in ("loss", "kl"):
        raise ValueError(f"metric must be 'loss' or 'kl', not {metric!r}")
    check_data(data)
    measure = _divergence(model, data, batch) if metric == "kl" else lambda: mean_loss(model, data, loss_fn, batch)
    base = measure()
    fitted = data if calibration is None else calibration
    stats = input_statistics(model, fitted, batch) if method == "gptq" else {}
    parts = parts_of(model, unit)

    @torch.no_grad()
    def score(part: str) -> dict[int, float]:
        costs = {}
        with restoring_weights(parts[part]) as originals:
            for width in bits:
                spec = Round(method, bits=width)
                for name, layer in parts[part].items():
                    own = spec if method == "nearest" or name in stats else spec.uncalibrated()
                    weight = rounded(originals[name].float().flatten(1), own, stats.get(name))
                    layer.weight.copy_(weight.view_as(layer.weight))
                costs[width] = measure() - base
        return costs
    return for_each_part(parts, score, "leave one in")


@torch.no_grad()
def _divergence(model: nn.Module, data: Tensor, batch: int) -> Callable[[], float]:
    """Measures KL(predictions of now || those of then) a token; keeps the logits of all the data."""
    def logits() -> Iterator[Tensor]:
        return (model(rows[:, :-1]).flatten(0, -2) for rows in data.split(batch))

    def divergence(p: Tensor, q: Tensor) -> float:
        # In float64: the probabilities of float32 sum to 1 only so nearly that a small divergence comes out below 0.
        p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
        return float(F.kl_div(q, p, reduction="sum", log_target=True))

    @torch.no_grad()
    def measure() -> float:
        with evaluating(model):
            return sum(divergence(p, q) for p, q in zip(now, logits(), strict=True)) / sum(map(len, now))
    with evaluating(model):
        now = list(logits())
    return measure


def rounded(weight: Tensor, spec: Round, stats: LayerStats | None = None) -> Tensor:
    """What a spec makes of a weight (out, in)."""
    grid = spec.make_grid(weight, stats)
    return grid.decode(spec.round(weight, grid, stats))


def _summed(
    model: nn.Module, bits: tuple[int, ...], unit: str, cost: Callable[[str, Tensor], float],
    stats: dict[str, LayerStats] | None = None, **how,
) -> Costs:
    """The costs of the layers, given as cost(layer's name, rounding error), summed over each part; `how` is a `Round`.

    With `stats`, a layer that has none costs nothing: no token reaches it.
    """
    parts = parts_of(model, unit)

    def score(part: str) -> dict[int, float]:
        costs = {}
        for width in bits:
            spec = Round(bits=width, **how)
            costs[width] = 0.0
            for name, layer in parts[part].items():
                if stats is not None and name not in stats:
                    continue
                weight = weight_matrix(layer)
                costs[width] += cost(name, rounded(weight, spec, stats and stats[name]) - weight)
        return costs
    return for_each_part(parts, score, "rounding errors")


@torch.no_grad()
def input_statistics(model: nn.Module, data: Tensor, batch: int = 16) -> dict[str, LayerStats]:
    """The Gram matrix of each layer's inputs in the unquantised model, on windows of tokens (N, T + 1)."""
    check_data(data)
    with evaluating(model), observe(linear_layers(model)) as stats:
        for rows in data.split(batch):
            model(rows[:, :-1])
    return stats


def output_gradients(model: nn.Module, data: Tensor, loss_fn: Loss, batch: int = 16) -> dict[str, Tensor]:
    """The mean over tokens of the squared gradient, at each output of each layer, of the *sum* of the tokens' losses.

    A picture has one loss, and its squares are summed over all places of a convolution's output.

    Returns:
        {layer: (out,)}.
    """
    check_data(data)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, gradient: Tensor) -> None:
        if isinstance(layers[name], nn.Conv2d):
            losses, each = len(gradient), gradient.transpose(0, 1).flatten(1).T  # (N, out, H, W) -> (N * H * W, out)
        else:
            each = gradient.flatten(0, -2)
            losses = len(each)
        each = each.to(torch.promote_types(each.dtype, torch.float32))
        squares = (each * losses).square()  # the loss is the mean over the batch's tokens
        sums[name] = sums.get(name, 0) + squares.sum(0)
        counts[name] = counts.get(name, 0) + losses

    def hook(name: str):
        def on_output(_, __, output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(partial(note, name))
        return on_output

    layers = linear_layers(model)
    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        with differentiating(model, layers) as weights:
            for rows in data.split(batch):
                torch.autograd.grad(loss_fn(model, rows), weights, allow_unused=True)
    finally:
        for handle in hooks:
            handle.remove()
    return {name: sums[name] / counts[name] if name in sums else torch.zeros(len(weight_matrix(layer)))
            for name, layer in layers.items()}


def hessian_traces(
    model: nn.Module, data: Tensor, loss_fn: Loss = next_token_loss, draws: int = 8, batch: int = 16, seed: int = 0
) -> dict[str, float]:
    """The trace of the loss's Hessian for each layer's weight, by Hutchinson's estimator: the mean of v^T H v, v = ±1.

    One draw serves all layers: the products between different layers average to nothing.
    """
    check_data(data)
    check_draws(draws)
    layers = linear_layers(model)
    generator, traces = torch.Generator().manual_seed(seed), dict.fromkeys(layers, 0.0)
    # only plain attention can be differentiated twice
    with differentiating(model, layers) as weights, sdpa_kernel(SDPBackend.MATH):
        for _ in range(draws):
            signs = [(torch.randint(2, weight.shape, generator=generator) * 2.0 - 1).to(weight) for weight in weights]
            for rows in data.split(batch):
                loss = loss_fn(model, rows) * len(rows) / len(data)
                slopes = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
                along = sum((slope * sign).sum() for slope, sign in zip(slopes, signs, strict=True))
                curved = torch.autograd.grad(along, weights, materialize_grads=True)
                for name, product, sign in zip(layers, curved, signs, strict=True):
                    traces[name] += float((product * sign).sum()) / draws
    return traces
