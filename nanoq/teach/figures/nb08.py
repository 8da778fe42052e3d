"""The figures of notebook 08."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.lm.evaluate import PairedDifference
from nanoq.teach.plots import COLORS, figure, show
from nanoq.teach.speed import Machine, Ratio
from nanoq.teach.widgets import live_figure, show_widget

# Bits of a weight, colour and marker of each way to multiply.
STYLES = {"fp32": (32, "blue", "o"), "int8": (8, "orange", "s"), "int4": (4, "green", "^"), "w8a8": (8, "purple", "D")}
TYPICAL = (2048, 8192)  # outputs and inputs of the layer for which times are predicted


def _speeds_alt(took: Mapping[str, Tensor]) -> str:
    names = list(took)
    words = [f"{name} at {float(Ratio.of(took[name], took[names[0]]).middle):.2f} times the speed of {names[0]}"
             for name in names[1:]]
    return f"A bar of characters per second for each model: {'; '.join(words)}."


@figure(_speeds_alt)
def characters_per_second(took: Mapping[str, Tensor]) -> Figure:
    """The median speed of models, from the seconds (turns,) that each took per character."""
    fig, ax = plt.subplots(figsize=(7, 1.8))
    ax.barh(list(took), [1 / float(seconds.median()) for seconds in took.values()],
            color=list(COLORS.values())[: len(took)])
    ax.invert_yaxis()
    ax.set(xlabel="characters per second")
    return fig


@figure("Four bytes, each drawn as a high nibble on the left and a low nibble on the right. Arrows from x0, x1, x2 and "
        "so on: even columns point to the low nibble of a byte, odd columns to its high nibble.")  # fmt: skip
def nibbles(codes: Sequence[int]) -> Figure:
    """Codes of 4 bits, two in a byte, and the columns they meet."""
    fig, ax = plt.subplots(figsize=(7, 2.5))
    for j in range(len(codes) // 2):
        low, high = codes[2 * j : 2 * j + 2]
        for column, code, where, name, color in (
            (2 * j, low, 1, "low", "sky"), (2 * j + 1, high, 0, "high", "orange"),
        ):  # the low nibble is drawn on the right, as in a written number
            at = 2.4 * j + where
            ax.add_patch(plt.Rectangle((at, 0), 1, 1, facecolor=COLORS[color], alpha=0.6, edgecolor="white"))
            ax.text(at + 0.5, 0.5, f"{code:04b}", ha="center", va="center", family="monospace")
            ax.text(at + 0.5, 0.1, name, ha="center", fontsize=8)
            ax.annotate(f"$x_{column}$", (at + 0.5, 1.02), (2.4 * j + column % 2 + 0.5, 1.9), ha="center",
                        arrowprops={"arrowstyle": "->", "color": "0.4"})
        ax.text(2.4 * j + 1, -0.35, f"byte {j} = {low | high << 4}", ha="center", fontsize=10)
    ax.set(xlim=(-0.1, 1.2 * len(codes) - 0.2), ylim=(-0.6, 2.3))
    ax.axis("off")
    return fig


# ---- the roofline ----


def _reached(took: Mapping[int, Mapping[str, float]], name: str, tokens: int, shape: tuple[int, int]) -> float:
    """Billions of operations per second."""
    return 2 * shape[0] * shape[1] * tokens / took[tokens][name] / 1e9


def _roofline_alt(
    machine: Machine, took: Mapping[int, Mapping[str, float]], intensity: Callable[..., float], shape: tuple[int, int]
) -> str:
    words = [f"{name} {_reached(took, name, tokens, shape):.1f} with {tokens} token{'s' * (tokens > 1)}"
             for tokens in took for name in STYLES]
    return ("Roofline on logarithmic axes: billions of operations per second against operations per byte, a slope on "
            f"the left, a flat roof on the right from {machine.rate / machine.bandwidth:.1f} operations per byte on, "
            "dotted for integers. Hollow markers of one token lie at the left, filled ones of many tokens far to the "
            f"right: {', '.join(words)}.")


@figure(_roofline_alt)
def roofline(
    machine: Machine, took: Mapping[int, Mapping[str, float]], intensity: Callable[..., float], shape: tuple[int, int]
) -> Figure:
    """What a machine can reach, and what products with different numbers of tokens reach on it."""
    fig, ax = plt.subplots(figsize=(7, 4))
    at = torch.logspace(-0.7, 3.3, 200)  # operations per byte
    for top, line, label in ((machine.rate, "-", "float32"), (machine.integer_rate, ":", "integers")):
        reached = (at * machine.bandwidth).clamp(max=top) / 1e9
        ax.loglog(at, reached, line, color=COLORS["black"], label=f"roof, {label}")
    for name, (bits, color, marker) in STYLES.items():
        for tokens in took:
            place = float(intensity(*shape, tokens, bits)), _reached(took, name, tokens, shape)
            fill = "none" if tokens == min(took) else COLORS[color]
            ax.plot(*place, marker, ms=8, mec=COLORS[color], mfc=fill, label=name if fill != "none" else None)
    ax.set(xlabel="operations per byte", ylabel="billion operations per second",
           title=f"{shape[0]} × {shape[1]}: {min(took)} token (hollow), {max(took)} tokens (filled)")  # fmt: skip
    ax.legend(fontsize=9)
    return fig


def _times(machine: Machine, tokens: int, slower: float = 1) -> dict[str, float]:
    """The time that the roofline predicts for a product, float32's being 1."""
    out, inputs = TYPICAL
    taken = {}
    for name, (bits, _, _) in STYLES.items():
        moved = out * inputs * bits / 8 + 4 * tokens * (out + inputs)
        taken[name] = max(moved * slower / machine.bandwidth, 2 * out * inputs * tokens / machine.top(name))
    return {name: seconds / taken["fp32"] for name, seconds in taken.items()}


def _bars(ax: Axes, machine: Machine, tokens: int, slower: float = 1) -> None:
    times = _times(machine, tokens, slower)
    bars = ax.barh(list(times), list(times.values()), color=[COLORS[color] for _, color, _ in STYLES.values()])
    ax.bar_label(bars, [f"{value:.2f}" for value in times.values()], padding=4)
    ax.invert_yaxis()
    memory = f", memory {slower:g} times as slow" if slower != 1 else ""
    ax.set(xlim=(0, 1.4), xticks=[0, 0.5, 1], xlabel="predicted time, fp32 = 1",
           title=f"{tokens} token{'s' * (tokens > 1)}{memory}")  # fmt: skip


def predicted(machine: Machine) -> None:
    """Show what the roofline predicts at one token and at 256, and sliders for other numbers and slower memory."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
    for ax, tokens in zip(axes, (1, 256), strict=True):
        _bars(ax, machine, tokens)
    words = [f"{name} {one:.2f} and {_times(machine, 256)[name]:.2f}" for name, one in _times(machine, 1).items()]
    show(fig, alt="Two groups of bars, the time that the roofline predicts at one token and at 256, in units of "
         f"float32's: {', '.join(words)}.")  # fmt: skip

    def draw(tokens: int, slower: float) -> Figure:
        alone, ax = plt.subplots(figsize=(7, 2.6))
        _bars(ax, machine, tokens, slower)
        return alone

    sliders = {
        "tokens": ipywidgets.SelectionSlider(options=[2**k for k in range(11)], value=8, description="tokens"),
        "slower": ipywidgets.SelectionSlider(options=[0.1, 0.3, 1, 3, 10, 30], value=1, description="slower"),
    }
    show_widget(live_figure(draw, **sliders), alt="(live in Jupyter: sliders for the tokens of a batch and for the "
                "speed of the memory redraw the figure above: the time that the roofline predicts for each type.)")


# ---- the KV cache, and losses ----


def _steadiness(stored: Tensor) -> float:
    """The share of the numbers (tokens, channels) that have the sign of their channel's mean."""
    return float((stored.sign() == stored.mean(0).sign()).double().mean())


@figure(lambda keys, values: "Two heat maps, tokens by channels: keys and values of one head. In the keys many "
        "channels keep their sign over long runs of tokens, which shows as vertical stripes: "
        f"{100 * _steadiness(keys):.0f} % of the numbers have the sign of their channel's mean, against "
        f"{100 * _steadiness(values):.0f} % of the values.")  # fmt: skip
def keys_and_values(keys: Tensor, values: Tensor) -> Figure:
    """The keys and values (tokens, channels) of one head."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    for ax, name, stored in zip(axes, ("keys", "values"), (keys, values), strict=True):
        limit = float(stored.abs().quantile(0.99))
        ax.imshow(stored, aspect="auto", cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set(xlabel="channel", ylabel="token", title=f"{name} of one head")
        ax.grid(visible=False)
    return fig


def _loss_alt(rows: Mapping[str, PairedDifference]) -> str:
    words = [f"{name} {row.mean:+.4f} ({row.low:+.4f} to {row.high:+.4f})" for name, row in rows.items()]
    return f"Added loss in nats, a bar with its 95 % interval for each of {len(rows)} settings: {'; '.join(words)}."


@figure(_loss_alt)
def added_loss(rows: Mapping[str, PairedDifference]) -> Figure:
    """Added losses with their intervals, a bar for each."""
    fig, ax = plt.subplots(figsize=(7, 0.9 + 0.4 * len(rows)))
    for k, row in enumerate(rows.values()):
        ax.barh(k, 1000 * row.mean, color=COLORS["blue"])
        ax.plot([1000 * row.low, 1000 * row.high], [k, k], color=COLORS["black"], lw=1.5)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.set(xlabel="added loss (0.001 nats), with 95 % intervals")
    return fig
