"""The figures of notebook 03."""

import math
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from nanoq.teach.figures.concepts import arrow, box, plus
from nanoq.teach.plots import COLORS, figure


@figure("Data flow through the GPT from left to right. Token ids (B, T) pick rows of the token table; rows of the "
        "position table are added, which gives the stream (B, T, C). It goes through the blocks, one after the other,"
        " and a norm, all of the same shape. The product with the token table, the same one again, gives logits (B, "
        "T, V), and softmax makes probabilities of the next character of them.")  # fmt: skip
def whole_gpt(layers: int = 6) -> Figure:
    """What happens to a batch of token ids on their way to probabilities, with all shapes."""
    fig, axes = plt.subplots(figsize=(9.6, 3.6))
    boxes = [
        (1.9, "token\nembedding\n(V, C)", False), (4.35, f"block 1\n…\nblock {layers}", True), (6.1, "norm", False),
        (7.8, "head\n= token\nembedding", False), (9.55, "softmax", False),
    ]  # fmt: skip
    for x, label, marked in boxes:
        box(axes, (x, 1.5), (1.15, 1.1), label, marked=marked)
    box(axes, (1.9, 0.1), (1.15, 1.1), "position\nembedding\n(T, C)")
    plus(axes, (3.0, 1.5))
    ends = ((0.75, 1.32), (2.48, 2.78), (3.22, 3.77), (4.93, 5.52), (6.68, 7.22), (8.38, 8.97), (10.13, 10.5))
    for start, end in ends:
        arrow(axes, (start, 1.5), (end, 1.5))
    axes.plot([2.48, 3.0], [0.1, 0.1], color="0.3", lw=1.5)
    arrow(axes, (3.0, 0.1), (3.0, 1.28))
    axes.text(0.68, 1.5, "tokens\n(B, T)", ha="right", va="center")
    axes.text(10.55, 1.5, "next\ncharacter", ha="left", va="center")
    for x, shape in ((3.5, "(B, T, C)"), (5.22, "(B, T, C)"), (6.95, "(B, T, C)"), (8.67, "(B, T, V)")):
        axes.text(x, 2.25, shape, ha="center", va="bottom", fontsize=9, color="0.35")
    axes.plot([1.9, 1.9, 7.8, 7.8], [2.06, 2.75, 2.75, 2.06], color=COLORS["blue"], lw=1.5, ls="--")
    axes.text(4.85, 2.8, "the same table", ha="center", va="bottom", fontsize=10, color=COLORS["blue"])
    axes.set(xlim=(-0.1, 11.4), ylim=(-0.5, 3.1))
    axes.axis("off")
    return fig


@figure("Curve of the loss, minus the logarithm of the probability that was given to the right character: very high "
        "near 0, falling steeply, and 0 at probability 1.")  # fmt: skip
def surprise() -> Figure:
    """What a question costs, against the probability that was given to the right answer."""
    fig, ax = plt.subplots(figsize=(6, 2.8))
    p = torch.linspace(0.01, 1, 200)
    ax.plot(p, -p.log())
    for given in (0.05, 0.5, 0.95):
        ax.plot(given, -math.log(given), "o", color=COLORS["vermillion"])
        ax.annotate(f"p = {given}", (given, -math.log(given)), xytext=(6, 8), textcoords="offset points")
    ax.set(xlabel="probability given to the character that came", ylabel="loss in nats", xlim=(0, 1.1))
    ax.set_title("The price of being surprised")
    return fig


def _letters(ax: Axes, word: str) -> None:
    """A character at each row and column."""
    ax.set_xticks(range(len(word)), word.replace(" ", "␣"))
    ax.set_yticks(range(len(word)), word.replace(" ", "␣"))
    ax.grid(visible=False)


@figure(lambda word: f"Square of {len(word)} by {len(word)} cells, one row and one column for each character of "
        f"'{word}'. The diagonal and all below it is blue: each place may read itself and what stands before it.")
def may_read(word: str) -> Figure:
    """Which place of a text may read which."""
    fig, ax = plt.subplots(figsize=(3.6, 3.6))
    ax.imshow(torch.ones(len(word), len(word)).tril(), cmap="Blues", vmin=0, vmax=1.6)
    ax.set(xlabel="is read", ylabel="reads", title="Blue: may be read")
    _letters(ax, word)
    return fig


@figure("Three heat maps, one row and one column for each character. First a score in each cell, then the same with "
        "the half above the diagonal left white, then weights: the first row has all its weight on itself, later rows"
        " share it out.")  # fmt: skip
def score_mask_softmax(word: str) -> Figure:
    """The three steps of attention, on random queries and keys of width 4."""
    q, k = torch.randn(2, len(word), 4, generator=torch.Generator().manual_seed(2))
    scores = q @ k.T / 2
    masked = scores.masked_fill(torch.ones(scores.shape).triu(1) == 1, -torch.inf)
    fig, axes = plt.subplots(1, 3, figsize=(9, 3.6))
    stages = {"1. score": scores, "2. mask": masked, "3. softmax": masked.softmax(-1)}
    for ax, (title, values) in zip(axes, stages.items(), strict=True):
        low, high = (0, 1) if title == "3. softmax" else scores.aminmax()
        ax.imshow(values.masked_fill(values.isinf(), torch.nan), vmin=low, vmax=high)
        ax.set_title(title)
        _letters(ax, word)
    return fig


@figure("Line plot of the loss on unseen text against the number of steps, with dashed lines for two models "
        "without a network and for the floor. It starts at the uniform line and falls, first fast, then slowly.")
def learning(history: Sequence[tuple[int, float]], levels: Mapping[str, float]) -> Figure:
    """The loss during training, and what it is to be compared with: {name: nats}."""
    fig, ax = plt.subplots(figsize=(7, 3.6))
    ax.plot(*zip(*history, strict=True), "o-", ms=3)
    for (name, level), color in zip(levels.items(), ("orange", "vermillion", "black"), strict=False):
        ax.axhline(level, color=COLORS[color], ls="--", lw=1.5)
        ax.text(1.01, level, name, color=COLORS[color], va="center", transform=ax.get_yaxis_transform())
    ax.set(xlabel="steps", ylabel="nats per character, unseen text", ylim=(0, None), title="Learning to predict")
    return fig


# ---- Further ----


@figure("U-shaped curve of the average cost in bits against the guessed probability; the lowest point, marked, lies "
        "at the true probability 0.75 and is well above zero.")  # fmt: skip
def cheapest_guess(guess: Tensor, cost: Tensor) -> Figure:
    """What a guessed probability costs in the long run, where the truth is 3 in 4."""
    fig, ax = plt.subplots(figsize=(6, 2.8))
    best = int(cost.argmin())
    ax.plot(guess, cost)
    ax.plot(guess[best], cost[best], "o", color=COLORS["vermillion"])
    ax.set(xlabel="guessed probability of the first outcome", ylabel="bits per choice", ylim=(0.5, 3))
    ax.set_title("The truth is the cheapest guess")
    return fig


@figure("Histogram of the spread between three scores of one and the same model. The true effect of int8, a line at "
        "the left, is smaller than most of the spreads; the published difference is a dashed line.")  # fmt: skip
def noise_and_effect(spreads: Tensor, effect: float, published: float) -> Figure:
    """How far apart one model's scores lie on windows drawn anew, against two differences; all in nats."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    ax.hist(1000 * spreads, bins=30, color=COLORS["sky"], label="one model, three draws: best to worst")
    ax.axvline(1000 * effect, color=COLORS["vermillion"], label="true effect of int8, at most")
    ax.axvline(1000 * published, color=COLORS["black"], ls="--", label="published, first table")
    ax.set(xlabel="difference in loss, thousandths of a nat", ylabel="how often", xlim=(0, None))
    ax.set(title="Noise, and what it hides", ylim=(0, 1.6 * ax.get_ylim()[1]))
    ax.legend(loc="upper right")
    return fig


@figure("Bars of the number of parameters in each part: the MLPs are longest, attention half as long; positions, "
        "characters and norms are tiny beside them.")  # fmt: skip
def parameters(sizes: Mapping[str, int]) -> Figure:
    """How many parameters each kind of part has."""
    fig, ax = plt.subplots(figsize=(7, 2.6))
    bars = ax.barh(list(sizes), [size / 1000 for size in sizes.values()], color=COLORS["blue"])
    ax.bar_label(bars, labels=[f"{size:,}" for size in sizes.values()], padding=3)
    ax.invert_yaxis()
    ax.set(xlabel="thousand parameters", xlim=(0, max(sizes.values()) / 850))
    ax.set_title(f"{sum(sizes.values()):,} parameters")
    return fig


@torch.no_grad()
def attention_patterns(model: nn.Module, tokens: Tensor) -> Tensor:
    """Attention weights of all heads of a GPT on tokens (1, T): (layers, heads, T, T)."""
    x, patterns = model.token_embedding(tokens) + model.position_embedding.weight[: tokens.shape[1]], []
    future = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1) == 1
    for block in model.blocks:
        qkv = block.attention.qkv(block.attention_norm(x))[0]  # (T, 3 C)
        q, k, _ = qkv.view(len(qkv), 3, block.attention.heads, -1).permute(1, 2, 0, 3)  # (heads, T, d) each
        patterns.append((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf).softmax(-1))
        x = block(x)
    return torch.stack(patterns)


@figure("Two attention tables of the model on the first words of a story. Left, the head that looks most at the "
        "character just before: bright cells along the line below the diagonal. Right, the head that looks furthest "
        "back.")  # fmt: skip
def two_heads(patterns: Tensor, text: str, near: tuple[int, int], far: tuple[int, int]) -> Figure:
    """What two heads, (layer, head) each, look at; patterns (layers, heads, T, T)."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 5))
    for ax, (layer, head), title in zip(axes, (near, far), ("nearest", "furthest"), strict=True):
        ax.imshow(patterns[layer, head], vmin=0)
        _letters(ax, text)
        ax.set(xlabel="is read", ylabel="reads", title=f"{title}: layer {layer}, head {head}")
    return fig


@figure("Line plot of the places computed against the number of new characters: without a cache the curve bends "
        "upwards, with a cache it is a nearly flat line.")  # fmt: skip
def work_of_writing(positions: Callable[[int, int, bool], int], prompt: int, new: int) -> Figure:
    """How many places go through the model, with a key-value cache and without; `positions(prompt, new, cached)`."""
    fig, ax = plt.subplots(figsize=(6, 3))
    counts = range(1, new + 1)
    for cached, label in ((False, "without: read all again"), (True, "with a cache")):
        ax.plot(counts, [positions(prompt, count, cached) for count in counts], label=label)
    ax.set(xlabel="new characters", ylabel="places computed", title="The work of writing")
    ax.legend()
    return fig
