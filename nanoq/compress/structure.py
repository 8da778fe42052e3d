"""Structured pruning: whole inputs of a layer, attention heads and blocks go, and the matrices become smaller.

What is left is an ordinary dense model, faster wherever the whole one runs. There are two ways to choose: by
*importance* (what is lost without it) and by *similarity* (what another one does as well).
"""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.lm.evaluate import row_losses
from nanoq.lm.model import GPT
from nanoq.quant.calibrate import LayerStats, observe
from nanoq.quant.online import HadamardLinear


@torch.no_grad()
def block_influence(model: nn.Module, tokens: Tensor) -> list[float]:
    """Of each block, 1 - the mean cosine of what enters and what leaves it (Men et al. 2024, arXiv 2403.03853, eq. 1).

    A block that hardly turns its input is called redundant: similarity, not loss.

    Args:
        model: has `embed` and `blocks`.
        tokens: windows (W, T).
    """
    hidden, influence = model.embed(tokens), []
    for block in model.blocks:
        left = block(hidden)
        influence.append(1 - float(F.cosine_similarity(hidden, left, dim=-1).mean()))
        hidden = left
    return influence


def remove_blocks(model: GPT, numbers: Iterable[int]) -> GPT:
    """Take blocks out of a GPT, in place.

    Raises:
        ValueError: if one is not there, or none would be left.
    """
    gone = set(numbers)
    if not gone < set(range(len(model.blocks))):
        raise ValueError(f"cannot remove blocks {sorted(gone)} of a model with blocks 0..{len(model.blocks) - 1}")
    model.blocks = nn.ModuleList(block for i, block in enumerate(model.blocks) if i not in gone)
    for i, block in enumerate(model.blocks):
        block.attention.layer = i
    model.config = replace(model.config, layers=len(model.blocks))
    return model


def remove_inputs(layer: nn.Linear, keep: Tensor, stats: LayerStats | None = None, damping: float = 0.01) -> nn.Linear:
    """A smaller layer that reads only the inputs `keep` (int64), and gives the nearest outputs if `stats` are given.

    The least-squares weight is W H[:, keep] H[keep, keep]^-1, which is Optimal Brain Surgeon with whole columns.
    """
    weight = layer.weight[:, keep]
    if stats is not None and stats.gram.diagonal().any():
        hessian = stats.damped(damping)
        outputs = layer.weight.to(hessian.dtype) @ hessian[:, keep]
        weight = torch.linalg.solve(hessian[keep][:, keep], outputs.T).T.to(layer.weight.dtype)
    return _linear(weight, layer.bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight, layer.bias = nn.Parameter(weight.detach().clone()), bias
    return layer


def _remaining_outputs(layer: nn.Linear, keep: Tensor) -> nn.Linear:
    """A smaller layer that gives only the outputs `keep` (int64)."""
    return _linear(layer.weight[keep], None if layer.bias is None else nn.Parameter(layer.bias[keep]))


@torch.no_grad()
def remove_heads(model: GPT, heads: dict[int, list[int]], tokens: Tensor | None = None) -> GPT:
    """Take attention heads {block: heads} out of a GPT, in place.

    With windows `tokens` (W, T) the output projection of each block is fitted anew, so that the heads that stay stand
    in for those that go.

    Raises:
        ValueError: if a block or a head is not there, or a block would have none left.
    """
    for number, gone in heads.items():
        if number not in range(len(model.blocks)):
            raise ValueError(f"no block {number} in a model with blocks 0..{len(model.blocks) - 1}")
        attention = model.blocks[number].attention
        width, inputs, there = attention.head_width, attention.out.in_features, range(attention.heads)
        if not set(gone) < set(there):
            raise ValueError(f"cannot remove heads {gone} of block {number} with heads 0..{there[-1]}")
        keep = (torch.tensor([h for h in there if h not in gone])[:, None] * width + torch.arange(width)).flatten()
        stats = _seen(model, f"blocks.{number}.attention.out", tokens)
        attention.out = remove_inputs(attention.out, keep, stats)
        rows = (torch.arange(3)[:, None] * inputs + keep).flatten()  # of queries, keys and values
        attention.qkv = _remaining_outputs(attention.qkv, rows)
    return model


@torch.no_grad()
def remove_neurons(model: GPT, ratio: float, tokens: Tensor) -> GPT:
    """Take a share of the hidden neurons out of every MLP of a GPT, in place, block by block.

    Those go whose output, times the norm of the weights that read it, is smallest; the rest is fitted anew.

    Raises:
        ValueError: if the ratio is not in [0, 1), or leaves a block without neurons; or a transform stands between
            neurons and the weights that read them.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must lie in [0, 1), not {ratio!r}")
    if any(isinstance(block.mlp.down, HadamardLinear) for block in model.blocks):
        raise ValueError("a Hadamard transform mixes the neurons before they are read: remove some before `rotate`")
    for number, block in enumerate(model.blocks):
        mlp = block.mlp
        stats = _seen(model, f"blocks.{number}.mlp.down", tokens)
        worth = stats.gram.diagonal().sqrt() * mlp.down.weight.norm(dim=0)
        if round(ratio * len(worth)) == len(worth):
            raise ValueError(f"block {number} would have none of its {len(worth)} neurons left")
        keep = worth.topk(len(worth) - round(ratio * len(worth))).indices.sort().values
        mlp.down = remove_inputs(mlp.down, keep, stats)
        mlp.up = _remaining_outputs(mlp.up, keep)
    return model


def _seen(model: nn.Module, name: str, tokens: Tensor | None) -> LayerStats | None:
    """The statistics of what one layer reads when the model reads windows (W, T)."""
    if tokens is None:
        return None
    with observe({name: model.get_submodule(name)}) as stats:
        for rows in tokens.split(16):
            model(rows)
    return stats[name]


@contextmanager
def without_head(model: GPT, block: int, head: int):
    """The model as it is without one head, while the block of code runs: its columns of the projection are 0."""
    attention = model.blocks[block].attention
    columns = attention.out.weight.detach()[:, head * attention.head_width : (head + 1) * attention.head_width]
    kept = columns.clone()
    columns.zero_()
    try:
        yield model
    finally:
        columns.copy_(kept)


def _heads(model: GPT) -> int:
    """The heads of each block.

    Raises:
        ValueError: if some were removed.
    """
    if any(block.attention.heads != model.config.heads for block in model.blocks):
        raise ValueError("heads were removed from the model already: ask the whole one which are worth keeping")
    return model.config.heads


@torch.no_grad()
def head_importance(model: GPT, rows: Tensor) -> Tensor:
    """The loss that each head's removal alone adds, in nats a token, on windows (W, T + 1): (blocks, heads).

    Removing one at a time is Michel et al. 2019 (arXiv 1905.10650, section 3.2).
    """
    base, heads = row_losses(model, rows).mean(), _heads(model)
    added = torch.zeros(len(model.blocks), heads)
    for block in range(len(model.blocks)):
        for head in range(heads):
            with without_head(model, block, head):
                added[block, head] = row_losses(model, rows).mean() - base
    return added


@torch.no_grad()
def head_similarity(model: GPT, tokens: Tensor) -> Tensor:
    """The largest |cosine| of what each head adds to the residual stream with what another head of its block adds.

    Args:
        model: a GPT.
        tokens: windows (W, T).

    Returns:
        (blocks, heads), 0 to 1; a head near 1 has a double.
    """
    rows, _ = [], _heads(model)
    for number, block in enumerate(model.blocks):
        attention = block.attention
        gram = _seen(model, f"blocks.{number}.attention.out", tokens).gram  # (width, width)
        weight = attention.out.weight.unflatten(1, (-1, attention.head_width))  # (out, heads, head_width)
        parts = gram.unflatten(0, (-1, attention.head_width)).unflatten(2, (-1, attention.head_width))
        inner = torch.einsum("oax,axby,oby->ab", weight, parts, weight)  # mean inner products of what heads add
        size = inner.diagonal().clamp(min=1e-30).sqrt()
        cosine = (inner / size / size[:, None]).abs().fill_diagonal_(0)
        rows.append(cosine.amax(1))
    return torch.stack(rows)
