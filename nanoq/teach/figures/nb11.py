"""The figures of notebook 11."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.mixed import rank_correlation
from nanoq.mixed.baselines import rounded
from nanoq.quant import Round, affine_grid
from nanoq.teach.figures import nb10
from nanoq.teach.plots import COLORS, figure

KINDS, who_gets_what = nb10.KINDS, nb10.who_gets_what


def _gone(weight: Tensor, kept: Tensor) -> float:
    """The share of the sum of squares that a mask takes away."""
    return float((weight * ~kept).square().sum() / weight.square().sum())


@figure(lambda weight, kept: "Left: histogram of the sizes of a matrix's weights, tallest near 0; the smallest, "
        f"{float((~kept).double().mean()):.0%} of them, are grey and lie left of a line. Right: a corner of the "
        f"matrix, blank where weights are cut. {_gone(weight, kept):.1%} of the sum of squares is gone.")  # fmt: skip
def cut(weight: Tensor, kept: Tensor) -> Figure:
    """Sizes of the weights (out, in) with those that a mask cuts in grey, and a corner of what is left."""
    sizes, bins = weight.abs(), torch.linspace(0, float(weight.abs().quantile(0.999)), 80).tolist()
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(3, 2))
    left.hist([sizes[~kept].numpy(), sizes[kept].numpy()], bins=bins, stacked=True, color=["0.75", COLORS["blue"]])
    left.axvline(float(sizes[kept].min()), color=COLORS["vermillion"], label="cut")
    left.set(xlabel="size of a weight", ylabel="how many",
             title=f"{float((~kept).double().mean()):.0%} of the weights are cut")
    left.legend()
    corner, limit = torch.where(kept, weight, math.nan)[:24, :32], 3 * float(weight.std())
    right.imshow(corner, cmap="PuOr", vmin=-limit, vmax=limit).cmap.set_bad("0.88")
    right.set(title=f"{_gone(weight, kept):.1%} of the squares gone", xticks=[], yticks=[])
    right.grid(visible=False)
    return fig


def _kind(name: str) -> str:
    """The kind of a matrix: attention.qkv of blocks.0.attention.qkv."""
    return name.split(".", 2)[2]


def _curves_alt(lost: Mapping[str, Mapping[float, float]]) -> str:
    top, second = sorted(lost, key=lambda name: max(lost[name].values()), reverse=True)[:2]
    level = max(lost[top])
    return (f"Left: loss added against sparsity for {len(lost)} matrices, a colour per kind. All are near 0 at first "
            f"and then turn up; at {level:g}, {top} adds {lost[top][level]:.2f} nats and the next, {second}, "
            f"{lost[second][level]:.2f}. Right: the values of {top} as bars, with their mean, the score, as a line.")


@figure(_curves_alt)
def curves(lost: Mapping[str, Mapping[float, float]]) -> Figure:
    """Damage by sparsity, {matrix: {level: nats}}: a line per matrix, and the matrix that loses most as bars."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 2))
    colors = dict(zip(KINDS, COLORS.values(), strict=False))
    for name, curve in lost.items():
        label = _kind(name) if name.startswith("blocks.0.") else None
        left.plot(list(curve), list(curve.values()), color=colors[_kind(name)], lw=1.2, marker=".", label=label)
    top = max(lost, key=lambda name: max(lost[name].values()))
    left.annotate(top, (max(lost[top]), max(lost[top].values())), xytext=(-8, -4), textcoords="offset points",
                  ha="right", va="center", size=9)
    left.set_yscale("symlog", linthresh=0.01)
    left.set(xlabel="sparsity", ylabel="loss added (nats)", title=f"{len(lost)} matrices")
    left.legend()
    heights = list(lost[top].values())
    right.bar(list(lost[top]), heights, width=0.12, color=COLORS["sky"])
    right.axhline(sum(heights) / len(heights), color=COLORS["vermillion"], ls="--", label="their mean: the score")
    right.set(xlabel="sparsity", title=f"{top}, linear axis")
    right.legend(loc="upper left")
    return fig


@figure(lambda weight, levels: "The relative squared error of cutting against sparsity: flat, then steep. Dashed lines "
        "lead from the error of rounding to the sparsity with the same error: "
        f"{', '.join(f'{bits} bits {level:.2f}' for bits, level in levels.items())}.")
def worth(weight: Tensor, levels: Mapping[int, float]) -> Figure:
    """The error of cutting a matrix by sparsity; that of rounding it, at the sparsity worth as much, {bits: level}."""
    squares = weight.square().sum()
    running = weight.flatten().square().sort().values.cumsum(0) / squares
    fig, ax = plt.subplots(figsize=(7, 3.2))
    ax.plot(torch.linspace(0, 1, 500), running[torch.linspace(0, len(running) - 1, 500).long()], label="cutting")
    for (bits, level), color in zip(levels.items(), ("vermillion", "orange", "green"), strict=False):
        error = float((rounded(weight, Round(bits=bits)) - weight).square().sum() / squares)
        line = [0, level, level], [error, error, 0]
        ax.plot(*line, ls="--", lw=1.5, color=COLORS[color], label=f"rounding to {bits} bits")
    ax.set(xlabel="sparsity", ylabel="relative squared error", xlim=(0, 1), ylim=(0, 1))
    ax.legend()
    return fig


def _truths_alt(scores: Mapping[str, float], truths: Mapping[str, Mapping[str, float]]) -> str:
    found = {title: rank_correlation(scores, truth) for title, truth in truths.items()}
    words = [f"{title}: correlation of the orders {one.rho:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
             for title, one in found.items()]
    return (f"Damage of {len(scores)} matrices against their PMPQ score, both logarithmic, a marker per kind, in two "
            f"panels. {'; '.join(words)}.")


@figure(_truths_alt)
def two_truths(scores: Mapping[str, float], truths: Mapping[str, Mapping[str, float]]) -> Figure:
    """What each matrix costs alone when it is rounded (nats of divergence), against its score; a panel per method."""
    fig, axes = plt.subplots(1, len(truths), figsize=(9, 3.6))
    for ax, (title, truth) in zip(axes, truths.items(), strict=True):
        for kind, marker in KINDS.items():
            parts = [part for part in scores if part.endswith(kind)]
            ax.plot([scores[part] for part in parts], [truth[part] for part in parts], marker, label=kind)
        first = max(scores, key=scores.get)
        ax.annotate(first.replace("blocks.", ""), (scores[first], truth[first]), xytext=(4, -14),
                    textcoords="offset points", ha="right", size=8)
        found = rank_correlation(scores, truth)
        ax.set(xscale="log", yscale="log", xlabel="PMPQ (nats)")
        ax.set_title(f"{title}: {found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f})", fontsize=10)
    axes[0].set_ylabel("damage of 3 bits (nats, KL)")
    axes[0].legend(fontsize=8)
    return fig


@figure("Two number lines with the weights of a row, the band that cutting half would empty, and the 8 values of the "
        "3-bit grid. Above, the grid covers the weights closely. Below, one weight is far out: the band is the same, "
        "and nearly all other weights fall to three values of the grid.")  # fmt: skip
def rows(row: Tensor, far: Tensor) -> Figure:
    """A row of weights (in,), and the same with one of them multiplied, each with its cut and its 3-bit grid."""
    fig, axes = plt.subplots(2, 1, figsize=(7, 3.4), sharex=True)
    for ax, values, title in zip(axes, (row, far), ("a row as it is", "one weight times 16"), strict=True):
        half = float(values.abs().median())
        ax.axvspan(-half, half, color=COLORS["sky"], alpha=0.35, label="half is cut")
        for value in affine_grid(values[None], 3).decode(torch.arange(8)[None])[0]:
            ax.axvline(value, color=COLORS["vermillion"], lw=1.5)
        ax.plot(values, torch.zeros_like(values), "o", ms=4, alpha=0.6, color=COLORS["blue"])
        ax.plot([], [], color=COLORS["vermillion"], label="3-bit grid")
        ax.set(yticks=[], title=title)
    axes[0].legend(loc="upper left", fontsize=9)
    return fig


Case = tuple[float, float]  # PMPQ score, damage of rounding


@figure(lambda moves: "Matrices by PMPQ score and damage of 3 bits, both logarithmic, an arrow from before to after: "
        + "; ".join(f"{name}, score {before[0]:.3f} to {after[0]:.3f}, damage {before[1]:.4f} to {after[1]:.4f}"
                    for name, (before, after) in moves.items()) + ".")  # fmt: skip
def moved(moves: Mapping[str, tuple[Case, Case]]) -> Figure:
    """Where two built models move a matrix: {what was done: (before, after)}."""
    fig, ax = plt.subplots(figsize=(6.5, 3.6))
    for (name, (before, after)), color in zip(moves.items(), COLORS.values(), strict=False):
        places = [(score, max(damage, 1e-5)) for score, damage in (before, after)]  # a logarithm has no zero
        ax.plot(*places[0], "o", ms=9, color=color)
        ax.plot(*places[1], "*", ms=15, color=color)
        ax.annotate("", places[1], places[0], arrowprops={"arrowstyle": "->", "color": "0.4"})
        ax.annotate(name, places[1], xytext=(9, 6), textcoords="offset points")
    ax.set(xscale="log", yscale="log", xlabel="PMPQ (nats)", ylabel="damage of 3 bits (nats)")
    ax.margins(0.35, 0.2)
    return fig


# ---- Further ----


@figure(lambda table: "Bars: the share of each matrix that is cut when one threshold cuts half of its block. "
        + "; ".join(f"{kind} {min(shares):.0%} to {max(shares):.0%}" for kind, shares in table.items()) + ".")
def shares_cut(table: Mapping[str, Sequence[float]]) -> Figure:
    """The share that is cut of each kind of matrix, block by block, {kind: shares}."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for j, (kind, shares) in enumerate(table.items()):
        ax.bar(torch.arange(len(shares)) + 0.2 * j - 0.3, [100 * share for share in shares], width=0.18, label=kind)
    ax.axhline(50, color="0.4", ls="--", lw=1)
    ax.set(xlabel="block", ylabel="cut (%)", ylim=(0, 100))
    ax.legend(ncols=4, loc="upper center", fontsize=9)
    return fig


@figure(lambda by_loss, by_hits: "Damage in units of its standard error against sparsity, the median over blocks: "
        f"by loss up to {max(by_loss.values()):.0f}, by accuracy up to {max(by_hits.values()):.0f}. A line marks 2.")
def two_rulers(by_loss: Mapping[float, float], by_hits: Mapping[float, float]) -> Figure:
    """How surely the loss and the accuracy see the damage, {level: standard errors}."""
    fig, ax = plt.subplots(figsize=(7, 3))
    ax.plot(list(by_loss), list(by_loss.values()), marker="o", label="loss")
    ax.plot(list(by_hits), list(by_hits.values()), marker="s", label="accuracy")
    ax.axhline(2, color="0.4", ls="--", lw=1)
    ax.set(xlabel="sparsity", ylabel="damage ÷ standard error")
    ax.legend()
    return fig


@figure(lambda panels: "Bars on a logarithmic scale: the PMPQ score of each block. " + "; ".join(
    f"{title}: the first {scores[0]:.2f}, the others {min(scores[1:]):.2f} to {max(scores[1:]):.2f}"
    for title, scores in panels.items()) + ".")
def over_depth(panels: Mapping[str, Sequence[float]]) -> Figure:
    """Scores of the blocks, first to last, of several models side by side."""
    fig, ax = plt.subplots(figsize=(7, 3))
    width = 0.8 / len(panels)
    for i, (title, scores) in enumerate(panels.items()):
        ax.bar(torch.arange(len(scores)) + i * width - 0.4 + width / 2, scores, width=width, label=title)
    ax.set(yscale="log", xlabel="block", ylabel="PMPQ (nats)")
    ax.legend()
    return fig


def _blocks_alt(scores: Mapping[str, float], damage: Mapping[str, float]) -> str:
    found, order = rank_correlation(scores, damage), sorted(scores, key=scores.get, reverse=True)
    return (f"Left: the PMPQ score of {len(scores)} blocks over the depth, logarithmic; the largest are {order[0]}, "
            f"{order[1]} and {order[2]}. Right: the damage of rounding each block to 3 bits against its score; the "
            f"correlation of the orders is {found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f}).")


@figure(_blocks_alt)
def blocks(scores: Mapping[str, float], damage: Mapping[str, float]) -> Figure:
    """Scores over the depth of a model, and the damage of 3 bits (nats of divergence) against them."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(3, 2))
    left.bar([part.rpartition(".")[2] for part in scores], list(scores.values()), color=COLORS["blue"])
    left.set(yscale="log", xlabel="block", ylabel="PMPQ (nats per token)")
    right.plot(list(scores.values()), [damage[part] for part in scores], "o", color=COLORS["blue"])
    found = rank_correlation(scores, damage)
    right.set(xscale="log", yscale="log", xlabel="PMPQ (nats per token)", ylabel="damage of 3 bits (nats, KL)",
              title=f"{found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f})")  # fmt: skip
    right.tick_params(axis="x", which="minor", labelbottom=False)  # they would overlap
    return fig


def _clusters_alt(scores: Mapping[str, float], choices: Mapping[str, Mapping[str, int]]) -> str:
    words = [f"{name}: {' '.join(str(bits) for bits in widths.values())}" for name, widths in choices.items()]
    return ("The same scores on a logarithmic axis, a row per way of grouping them, coloured by the bits they get. "
            f"First to last block, {'; '.join(words)}.")


@figure(_clusters_alt)
def clusters(scores: Mapping[str, float], choices: Mapping[str, Mapping[str, int]]) -> Figure:
    """The widths 16, 8 and 4 that several groupings give the same scores."""
    colors = {16: COLORS["vermillion"], 8: COLORS["orange"], 4: COLORS["blue"]}
    fig, axes = plt.subplots(len(choices), 1, figsize=(7, 3.6), sharex=True)
    for ax, (name, widths) in zip(axes, choices.items(), strict=True):
        _row_of_scores(ax, scores, {part: colors[bits] for part, bits in widths.items()})
        ax.set_title(name, loc="left", fontsize=10)
    for bits, color in colors.items():
        axes[0].plot([], [], "o", color=color, label=f"{bits} bits")
    axes[0].legend(ncols=3, loc="upper right", bbox_to_anchor=(1, 1.7))
    axes[-1].set_xlabel("PMPQ (nats, logarithmic axis)")
    return fig


def _row_of_scores(ax: Axes, scores: Mapping[str, float], colors: Mapping[str, str]) -> None:
    for part, score in scores.items():
        ax.plot(score, 0, "o", ms=9, color=colors[part])
        ax.text(score, 0.35, part.rpartition(".")[2], ha="center")
    ax.set(yticks=[], ylim=(-0.6, 1), xscale="log")
