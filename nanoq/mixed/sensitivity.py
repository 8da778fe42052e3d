"""The three sensitivities of CPTQuant (Nanda et al. 2024, arXiv 2412.03599): CMPQ, PMPQ and TDMPQ.

Each is a function `scores = method(model, data, ...)` that gives every part of the model, a block or a linear layer, a
number: the larger, the more bits it should get. `data` are rows that `loss_fn` takes, such as windows of tokens
(N, T + 1) for the next-token loss. The model is left as it was, bit for bit.

The paper is ambiguous in many places; where it says two things, each is an option, and the default is what the
formulas need to make sense. What is known of the scores' worth: notebook 13.
"""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nanoq.lm.training import next_token_loss
from nanoq.mixed.parts import (
    Loss,
    check_data,
    check_draws,
    for_each_part,
    mean_loss,
    parts_of,
    restoring_weights,
)
from nanoq.mixed.representations import Features, similarity
from nanoq.quant.grid import affine_grid
from nanoq.running import evaluating
from nanoq.store import some

LEVELS = tuple(level / 10 for level in range(1, 10))


def cmpq(
    model: nn.Module, data: Tensor, *, measure: str = "mean", features: str = "delta", unit: str = "block",
    samples: int = 4096, batch: int = 16,
) -> dict[str, float]:
    """CMPQ: how unlike all the others the outputs of a part are, 1 - the mean of similarity(part, other) (algorithm 1).

    The outputs of neighbouring blocks share the residual stream, on which each only adds a little, and any measure
    finds them nearly equal. "delta" therefore compares what each block adds.

    Args:
        model: has `embed` and `blocks`.
        data: windows of tokens (N, T + 1); the last token of each is not read.
        measure: one of `nanoq.mixed.MEASURES`; canonical correlations want 10 tokens for each feature.
        features: "delta" (a block's output minus its input) or "output"; a linear layer has only its output.
        unit: "block" or "linear".
        samples: tokens to compare, evenly spread.
        batch: windows in a forward pass.

    Raises:
        ValueError: if an argument is none of those named, or there are fewer than two parts.
    """
    if features not in ("delta", "output"):
        raise ValueError(f"features must be 'delta' or 'output', not {features!r}")
    parts = parts_of(model, unit)
    if len(parts) < 2:
        raise ValueError("similarity to the others needs at least two parts")
    seen = _outputs(model, data, list(parts), features == "delta" and unit == "block", batch)
    tokens = len(next(iter(seen.values())))
    rows = torch.linspace(0, tokens - 1, min(samples, tokens)).long()
    factored = {name: Features(output[rows]) for name, output in seen.items()}
    names = list(parts)
    with warnings.catch_warnings(record=True) as caught:  # one warning rather than one for each pair
        warnings.simplefilter("always")
        alike = {frozenset(pair): similarity(factored[pair[0]], factored[pair[1]], measure)
                 for pair in itertools.combinations(names, 2)}
    for message in list(dict.fromkeys(str(warning.message) for warning in caught))[:1]:
        warnings.warn(message, stacklevel=2)
    return {a: 1 - sum(alike[frozenset((a, b))] for b in names if b != a) / (len(names) - 1) for a in names}


@torch.no_grad()
def _outputs(model: nn.Module, data: Tensor, names: list[str], delta: bool, batch: int) -> dict[str, Tensor]:
    """What each module puts out, or adds to its input, for every token: {name: (tokens, width)}."""
    check_data(data)
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def hook(name: str):
        return lambda _, args, output: seen[name].append((output - args[0] if delta else output).flatten(0, -2))
    hooks = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with evaluating(model):
            for rows in data[:, :-1].split(batch):
                hidden = model.embed(rows)
                for block in model.blocks:
                    hidden = block(hidden)
    finally:
        for handle in hooks:
            handle.remove()
    counts = {name: sum(map(len, outputs)) for name, outputs in seen.items()}
    if unlike := [name for name, count in counts.items() if count != data[:, :-1].numel()]:
        raise ValueError(f"not all tokens reach {some(unlike)}, so that there is nothing to compare the outputs with: "
                         "take blocks as units")
    return {name: torch.cat(outputs) for name, outputs in seen.items()}


@torch.no_grad()
def pmpq(
    model: nn.Module, data: Tensor, *, levels: tuple[float, ...] = LEVELS, scope: str = "matrix",
    metric: str = "loss", unit: str = "block", loss_fn: Loss = next_token_loss, batch: int = 16,
) -> dict[str, float]:
    """PMPQ: how much worse the model becomes when the smallest weights of a part are set to 0 (algorithm 2).

    The mean over the sparsity levels s of what is lost when every |w| up to the s-quantile of its matrix is cut
    (equations 6 and 7).

    Args:
        model: has `blocks`.
        data: rows for `loss_fn`.
        levels: shares of weights to cut, in (0, 1).
        scope: "matrix" (a quantile for each matrix) or "block" (one for all matrices of the part).
        metric: "loss" (its increase in nats) or "accuracy" (the drop of the share of right next tokens, equation 8).
        unit: "block" or "linear".
        loss_fn: the loss, for the metric of that name.
        batch: rows in a forward pass.

    Raises:
        ValueError: if an argument is none of those named.
    """
    if scope not in ("matrix", "block") or metric not in ("loss", "accuracy"):
        raise ValueError("scope must be 'matrix' or 'block', and metric 'loss' or 'accuracy', "
                         f"not {scope!r} and {metric!r}")
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels must be shares between 0 and 1, not {levels!r}")
    parts = parts_of(model, unit)
    measure = loss_fn if metric == "loss" else token_errors
    base = mean_loss(model, data, measure, batch)

    def score(part: str) -> float:
        layers, damage = parts[part], 0.0
        with restoring_weights(layers) as originals:
            sizes = {name: weight.abs() for name, weight in originals.items()}
            whole = None if scope == "matrix" else torch.cat([size.flatten() for size in sizes.values()])
            for level in levels:
                for name, layer in layers.items():
                    cut = quantile(sizes[name] if whole is None else whole, level)
                    layer.weight.copy_(originals[name] * (sizes[name] > cut))
                damage += mean_loss(model, data, measure, batch) - base
        return damage / len(levels)
    return for_each_part(parts, score, "pmpq")


def quantile(values: Tensor, level: float) -> Tensor:
    """The value with the rank round(level * number of values), at least 1; `torch.quantile` stops at 2**24 values."""
    return values.flatten().kthvalue(max(1, round(level * values.numel()))).values


def token_errors(model: nn.Module, rows: Tensor) -> Tensor:
    """The share of wrong next tokens of windows (B, T + 1)."""
    return (model(rows[:, :-1]).argmax(-1) != rows[:, 1:]).double().mean()


@torch.no_grad()
def tdmpq(
    model: nn.Module, data: Tensor, *, noise: str = "relative", size: float = 0.01, bits: int = 4, target: str = "all",
    draws: int = 4, antithetic: bool = True, unit: str = "block", loss_fn: Loss = next_token_loss,
    batch: int = 16, seed: int = 0,
) -> dict[str, float]:
    """TDMPQ: how much the loss grows when noise is added to the weights of a part (equations 9 to 11).

    For noise of standard deviation sigma the expected growth is sigma**2 / 2 times the trace of the Hessian: the
    first-order term averages to nothing, and "antithetic" pairs +e and -e take it away draw by draw,
    (L(w + e) + L(w - e)) / 2 - L(w). The paper draws once, without a pair and without subtracting L(w).

    Args:
        model: has `blocks`.
        data: rows for `loss_fn`.
        noise: "relative" (sigma is `size` times the root mean square of a matrix) or "matched" (the error that
            rounding to `bits` has, sigma = step / sqrt(12) row by row).
        size: for relative noise.
        bits: for matched noise.
        target: "all" matrices of the part, the "first" one (the paper's), or its "inputs" (the paper's text), whose
            noise is relative to their own size.
        draws: of noise; pairs where they are antithetic.
        antithetic: whether each draw is used with both signs.
        unit: "block" or "linear".
        loss_fn: the loss.
        batch: rows in a forward pass.
        seed: of the noise.

    Raises:
        ValueError: if an argument is none of those named.
    """
    if noise not in ("relative", "matched") or target not in ("all", "first", "inputs"):
        raise ValueError("noise must be 'relative' or 'matched', and target 'all', 'first' or 'inputs', "
                         f"not {noise!r} and {target!r}")
    if target == "inputs" and noise != "relative":
        raise ValueError("noise on inputs is relative: there is no grid that it could match")
    check_draws(draws)
    parts = parts_of(model, unit)
    base = mean_loss(model, data, loss_fn, batch)
    order = {name: i for i, name in enumerate(parts)}
    signs = (1.0, -1.0) if antithetic else (1.0,)

    def grown(part: str, draw: int, sign: float) -> float:
        # A generator of its own for each part and draw: scores do not depend on which process computes them.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + order[part] * 1009 + draw)
        if target == "inputs":
            with noisy_inputs(model.get_submodule(part), sign * size, generator):
                return mean_loss(model, data, loss_fn, batch) - base
        layers = parts[part] if target == "all" else dict(list(parts[part].items())[:1])
        with restoring_weights(layers) as originals:
            for name, layer in layers.items():
                sigma = _sigma(originals[name], noise, size, bits)
                drawn = torch.randn(layer.weight.shape, generator=generator).to(layer.weight)
                layer.weight.add_(sign * sigma * drawn)
            return mean_loss(model, data, loss_fn, batch) - base

    def score(part: str) -> float:
        return sum(grown(part, draw, sign) for draw in range(draws) for sign in signs) / (draws * len(signs))
    return for_each_part(parts, score, "tdmpq")


def _sigma(weight: Tensor, noise: str, size: float, bits: int) -> Tensor:
    """Standard deviation of the noise on a weight, to be broadcast over it."""
    if noise == "relative":
        return size * weight.square().mean().sqrt()
    rows = weight.flatten(1)
    step = affine_grid(rows, bits).scale * rows.any(1, keepdim=True)  # the grid of a row of zeros makes no error
    return (step / 12**0.5).view(-1, *[1] * (weight.dim() - 1))


@contextmanager
def noisy_inputs(module: nn.Module, size: float, generator: torch.Generator) -> Iterator[None]:
    """While the block of code runs, add noise to what a module reads, relative to its root mean square."""
    def hook(_, args: tuple) -> tuple:
        noise = torch.randn(args[0].shape, generator=generator).to(args[0])
        return args[0] + size * args[0].square().mean().sqrt() * noise, *args[1:]
    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
