"""The figures of notebook 13, and the ratios of the CPTQuant paper that its bug hunt is about."""

import math
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nanoq.teach.plots import COLORS, figure
from nanoq.teach.showdown import Correlation, Measured, chance, plot_correlations, plot_showdown
from nanoq.teach.widgets import live_figure, show_widget

KINDS = {"attention.qkv": ("blue", "o"), "attention.out": ("vermillion", "D"), "mlp.up": ("green", "^"),
         "mlp.down": ("orange", "s")}  # fmt: skip
PARTS = [f"blocks.{block}.{kind}" for block in range(6) for kind in KINDS]
ROUNDINGS = {"gptq": ("blue", "o"), "nearest": ("vermillion", "s")}
BUDGETS = {2.5: ("vermillion", "o"), 3.0: ("blue", "s"), 3.5: ("orange", "D"), 4.0: ("green", "^")}
MIXED = (16, 8, 4)
# Compression ratios in table 2 of arXiv 2412.03599, with the widths that each model had; only those of which it is sure
# which cell they stood in.
TABLE_2 = {
    "FP16, OPT-1.3B, WikiText": (2.0, (16,)),
    "FP16, OPT-1.3B, IMDB": (2.35, (16,)),
    "PMPQ, mBERT, WikiText": (2.17, MIXED),
    "TDMPQ, OPT-1.3B, WikiText": (3.14, MIXED),
    "PMPQ, OPT-1.3B, WikiText": (3.85, MIXED),
    "CMPQ, OPT-1.3B, WikiText": (4.33, MIXED),
    "TDMPQ, OPT-1.3B, IMDB": (4.53, MIXED),
}


def short(parts: Sequence[str]) -> list[str]:
    """Names of matrices for the ticks of an axis: "0 qkv" of "blocks.0.attention.qkv"."""
    return [f"{part.split('.')[1]} {part.split('.')[-1]}" for part in parts]


def _color_of(part: str) -> str:
    return COLORS[next(color for kind, (color, _) in KINDS.items() if part.endswith(kind))]


# ---- the core ----


def _mixtures_alt(race: Sequence[Measured]) -> str:
    words = [f"{name} has {', '.join(f'{widths.count(bits)} at {bits} bits' for bits in sorted(set(widths)))}"
             for name, widths in _pair(race).items()]
    return f"The widths of {len(PARTS)} matrices in two models of equal size, a row each. {'; '.join(words)}."


def _pair(race: Sequence[Measured]) -> dict[str, tuple[int, ...]]:
    chosen = {row.method: row.widths for row in race if (row.budget, row.seed) == (2.5, 0)}
    return {"A": chosen["random"], "B": chosen["GPTQ error"]}


@figure(_mixtures_alt)
def which_is_chance(race: Sequence[Measured]) -> Figure:
    """Two mixtures of 2.5 bits from the rows of the race: one by chance, one by a score."""
    fig, ax = plt.subplots(figsize=(9, 2))
    _strip(ax, _pair(race), PARTS)
    return fig


def _strip(ax: Axes, lines: Mapping[str, Sequence[int]], parts: Sequence[str]) -> None:
    """Widths as a coloured table: a line for each name, a column for each matrix."""
    table = [[math.log2(width) for width in widths] for widths in lines.values()]
    ax.imshow(table, vmin=0.5, vmax=3.2, aspect="auto", cmap="cividis")
    for y, widths in enumerate(lines.values()):
        for x, width in enumerate(widths):
            ax.text(x, y, width, ha="center", va="center", color="white" if width < 4 else "black", size=9)
    ax.set(yticks=range(len(lines)), yticklabels=list(lines), xticks=range(len(parts)))
    ax.set_xticklabels(short(parts), rotation=90, size=8)
    ax.grid(visible=False)


def _correlations_alt(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    words = [f"{score}: " + ", ".join(f"{rounding} {sum(values) / len(values):+.2f}" for rounding, values in by.items())
             for score, by in found.items()]
    return ("Rank correlations of each score with the damage after GPTQ and after rounding to nearest, three dots "
            f"each. Means: {'; '.join(words)}. A grey band marks what random orders reach.")


@figure(_correlations_alt)
def correlations(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """{score: {rounding: [correlation for each draw]}} for 24 matrices."""
    fig, ax = plt.subplots(figsize=(7, 0.9 + 0.42 * len(found)))
    ax.axvspan(-chance(24), chance(24), color="0.9", zorder=0)
    ax.axvline(0, color="0.4", lw=1)
    for place, by in enumerate(found.values()):
        for shift, (rounding, values) in zip((-0.13, 0.13), by.items(), strict=True):
            color, marker = ROUNDINGS[rounding]
            ax.plot(values, [place + shift] * len(values), marker, color=COLORS[color], alpha=0.8,
                    label=f"damage by {rounding}" if place == 0 else None)
    ax.set(yticks=range(len(found)), yticklabels=list(found), xlim=(-1.04, 1.04), xlabel="rank correlation")
    ax.invert_yaxis()
    ax.legend(loc="lower left", fontsize=9)
    return fig


def _race_alt(ratios: Mapping[str, Mapping[float, Sequence[float]]]) -> str:
    words = [f"{method}: " + ", ".join(f"{min(values):.2f} to {max(values):.2f} at {budget:g} bits"
                                       for budget, values in by.items()) for method, by in ratios.items()]
    return ("Added loss over that of uniform widths at the same bytes, a dot for each draw, with a line at 1. "
            f"{'; '.join(words)}.")


@figure(_race_alt)
def race(ratios: Mapping[str, Mapping[float, Sequence[float]]]) -> Figure:
    """{method: {budget: [added loss over uniform's for each draw]}}."""
    fig, ax = plt.subplots(figsize=(7.5, 0.9 + 0.42 * len(ratios)))
    ax.axvline(1, color=COLORS["black"], ls="--", lw=1.2)
    for place, by in enumerate(ratios.values()):
        for shift, (budget, values) in zip((-0.15, 0.15, 0), by.items(), strict=False):
            color, marker = BUDGETS[budget]
            ax.plot(values, [place + shift] * len(values), marker, color=COLORS[color], alpha=0.8,
                    label=f"{budget:g} bits" if place == 0 else None)
    ax.set(yticks=range(len(ratios)), yticklabels=list(ratios), xscale="log",
           xlabel="added loss ÷ uniform's at the same bytes")
    ax.set_xticks([0.7, 1, 1.5, 2, 3], ["0.7", "1", "1.5", "2", "3"])
    ax.minorticks_off()
    ax.invert_yaxis()
    ax.legend(fontsize=9)
    return fig


def _claims_alt(judge: Callable[[float, int, tuple[int, ...]], bool]) -> str:
    words = [f"{label} {ratio}: " + ", ".join(f"{'possible' if judge(ratio, base, widths) else 'impossible'} over "
                                              f"float{base}" for base in (32, 16))
             for label, (ratio, widths) in TABLE_2.items()]
    return f"Published ratios as dots on the ranges that their widths can reach. {'; '.join(words)}."


@figure(_claims_alt)
def claims(judge: Callable[[float, int, tuple[int, ...]], bool]) -> Figure:
    """The ratios of `TABLE_2`: a cross where the learner's function finds them impossible, a dot where possible."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for ax, base in zip(axes, (32, 16), strict=True):
        for place, (ratio, widths) in enumerate(TABLE_2.values()):
            low, high = base / max(widths), base / min(widths)
            ax.plot([low, high], [place, place], color="0.75", lw=7, solid_capstyle="butt", zorder=0)
            ax.plot(low, place, "|", color="0.55", ms=10, zorder=0)
            fine = judge(ratio, base, widths)
            ax.plot(ratio, place, "o" if fine else "X", color=COLORS["blue" if fine else "vermillion"], ms=8)
        ax.set(title=f"over float{base}", xlabel="compression ratio", yticks=range(len(TABLE_2)), xlim=(0.8, 8.2))
    axes[0].set_yticklabels(list(TABLE_2))
    axes[0].invert_yaxis()
    return fig


def _left_alt(packed: Mapping[str, Sequence[float]], coded: Mapping[str, Sequence[float]]) -> str:
    words = [f"{method}: packed {sum(packed[method]) / len(packed[method]):.2f}, coded "
             f"{sum(values) / len(values):.2f}" for method, values in coded.items()]
    return f"Added loss over uniform's at the same bytes, packed and entropy-coded. Means: {'; '.join(words)}."


@figure(_left_alt)
def what_is_left(packed: Mapping[str, Sequence[float]], coded: Mapping[str, Sequence[float]]) -> Figure:
    """Added loss over uniform's, {method: [for each draw]}: packed codes of 2.5 bits, and coded ones of 2 bits."""
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 2.6), sharey=True)
    for ax, found, title in zip(axes, (packed, coded), ("packed, 2.5 bits", "entropy-coded, 2 bits"), strict=True):
        ax.axvline(1, color=COLORS["black"], ls="--", lw=1.2)
        for place, method in enumerate(coded):
            better = sum(found[method]) < len(found[method])
            ax.plot(found[method], [place] * len(found[method]), "o" if better else "X", alpha=0.8,
                    color=COLORS["blue" if better else "vermillion"])
        ax.set(title=title, xlabel="added loss ÷ uniform's", yticks=range(len(coded)), yticklabels=list(coded))
    axes[0].invert_yaxis()
    return fig


# ---- Further ----


@figure(lambda rows, caption: f"{caption}. Above: added loss against the size of the file on a logarithmic scale for "
        "three groups of methods, each with uniform (dashed) and random (dotted). Below: the same as a multiple of "
        "uniform's. The table beside it has the numbers.")  # fmt: skip
def whole_race(rows: Sequence[Measured], caption: str) -> Figure:
    """All methods and budgets; at 5 bits uniform alone, since nobody else was offered that width."""
    return plot_showdown([row for row in rows if row.method == "uniform" or row.budget != 5], caption)


def _all_alt(rows: Sequence[Correlation], caption: str) -> str:
    words = [f"{row.score} {row.rho:+.2f} ({row.low:+.2f} to {row.high:+.2f})" for row in rows]
    return f"{caption}: rank correlations of all scores with their intervals. {'; '.join(words)}."


@figure(_all_alt)
def all_scores(rows: Sequence[Correlation], caption: str) -> Figure:
    """Every score against one damage."""
    return plot_correlations(rows, caption)


def _spread_alt(table: Mapping[str, Mapping[int, float]], weights: Mapping[str, int]) -> str:
    dense = sorted(table[part][3] / weights[part] for part in table)
    inside = sum(0.5 < value / dense[len(dense) // 2] < 2 for value in dense)
    medians = [sorted(c[bits] / c[bits + 1] for c in table.values())[len(table) // 2] for bits in (2, 3)]
    return (f"Left: how many times the damage falls with one bit more, medians {medians[0]:.1f} from 2 to 3 bits and "
            f"{medians[1]:.1f} from 3 to 4, above the dashed line at 4. Right: damage per weight of each matrix over "
            f"the median, sorted; {inside} of {len(dense)} lie within a factor of two of it.")


@figure(_spread_alt)
def spread(table: Mapping[str, Mapping[int, float]], weights: Mapping[str, int]) -> Figure:
    """What a bit does to the damage {part: {bits: nats}}, and how far the damage per weight differs."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2), width_ratios=(1, 1.3))
    steps = {f"{bits} → {bits + 1}": [cost[bits] / cost[bits + 1] for cost in table.values()] for bits in (2, 3)}
    left.boxplot(steps.values(), tick_labels=list(steps), whis=(0, 100))
    left.axhline(4, color=COLORS["vermillion"], ls="--", label="law of 4")
    left.set(ylabel="damage falls by a factor of", xlabel="one bit more", ylim=(0, None))
    left.legend(fontsize=9)
    dense = sorted((table[part][3] / weights[part], part) for part in table)
    right.axvspan(0.5, 2, color="0.9")
    for kind, (color, marker) in KINDS.items():
        mine = [(value / dense[len(dense) // 2][0], place) for place, (value, part) in enumerate(dense)
                if part.endswith(kind)]
        right.plot(*zip(*mine, strict=True), marker, color=COLORS[color], label=kind)
    right.set(xscale="log", xlabel="damage per weight ÷ the median matrix's", yticks=[], ylabel="matrices, sorted")
    right.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    right.minorticks_off()
    right.legend(fontsize=8)
    return fig


@figure("Scatter plot on logarithmic axes: the added loss of each model of the race against the sum of its matrices' "
        "damages. The points follow the dashed diagonal at small damage and rise above it where the damage is large.")
def adds_up(predicted: Sequence[float], measured: Sequence[float]) -> Figure:
    """Sum of one-matrix damages against the real added loss of whole models, in nats."""
    fig, ax = plt.subplots(figsize=(4.6, 3.8))
    ax.plot(predicted, measured, "o", ms=4, color=COLORS["blue"], alpha=0.6)
    ax.axline((1e-2, 1e-2), slope=1, color="0.4", ls="--", label="they add up")
    ax.set(xscale="log", yscale="log", xlabel="sum of the damages (nats)", ylabel="added loss (nats)")
    ax.legend()
    return fig


def _depth_alt(cases: Mapping[str, Sequence[float]]) -> str:
    words = [f"{label}: the largest is block {max(range(len(values)), key=values.__getitem__)}, the smallest block "
             f"{min(range(len(values)), key=values.__getitem__)}" for label, values in cases.items()]
    return f"Bars of the measured damage of each block, from the first to the last. {'; '.join(words)}."


@figure(_depth_alt)
def over_depth(cases: Mapping[str, Sequence[float]]) -> Figure:
    """The damage of each block (nats), a panel for each case."""
    fig, axes = plt.subplots(1, len(cases), figsize=(9, 2.8))
    for ax, (label, values) in zip(axes, cases.items(), strict=True):
        ax.bar(range(len(values)), values, color=[COLORS[c] for c in ("blue", "blue", "sky", "sky", "green", "green")])
        ax.set(xlabel="block", xticks=range(len(values)), title=label)
    axes[0].set_ylabel("damage (nats)")
    return fig


def _near_alt(ratios: Sequence[float], claimed: float) -> str:
    below, above = max(r for r in ratios if r < claimed), min(r for r in ratios if r > claimed)
    return (f"Number line of the ratios that equal blocks can reach, as ticks. The published {claimed}, in red, lies "
            f"between {below:.3f} and {above:.3f}.")


@figure(_near_alt)
def near(ratios: Sequence[float], claimed: float) -> Figure:
    """The attainable ratios around one that was claimed."""
    fig, ax = plt.subplots(figsize=(7, 1.7))
    ax.vlines([r for r in ratios if 0.86 * claimed < r < 1.15 * claimed], 0, 1, color=COLORS["blue"], lw=1.5)
    ax.vlines(claimed, -0.25, 1.25, color=COLORS["vermillion"], lw=2)
    ax.text(claimed, 1.3, str(claimed), ha="center", color=COLORS["vermillion"])
    ax.set(ylim=(-0.25, 1.7), yticks=[], xlabel="ratio over float32 that 24 equal blocks can reach")
    return fig


def _budget_alt(bits: float, choose: Callable[[float], Mapping[str, int]]) -> str:
    widths = list(choose(bits).values())
    words = ", ".join(f"{widths.count(width)} at {width} bits" for width in sorted(set(widths)))
    return f"Bars of the widths of {len(widths)} matrices at a budget of {bits:g} bits, coloured by kind: {words}."


def _draw_budget(bits: float, choose: Callable[[float], Mapping[str, int]]) -> Figure:
    widths = choose(bits)
    fig, ax = plt.subplots(figsize=(8, 2.8))
    ax.bar(range(len(widths)), widths.values(), color=[_color_of(part) for part in widths])
    ax.set(ylabel="bits", title=f"budget {bits:g} bits", ylim=(0, 8.3), xticks=range(len(widths)))
    ax.set_xticklabels(short(list(widths)), rotation=90, size=8)
    return fig


@figure(_budget_alt)
def budget(bits: float, choose: Callable[[float], Mapping[str, int]]) -> Figure:
    """The widths that `choose(bits)` gives, a bar for each matrix."""
    return _draw_budget(bits, choose)


def budget_slider(choose: Callable[[float], Mapping[str, int]]) -> None:
    """`budget`, with a slider for the bits."""
    slider = ipywidgets.FloatSlider(value=2.5, min=2.1, max=6, step=0.1, description="budget")
    show_widget(live_figure(lambda bits: _draw_budget(bits, choose), bits=slider),
                alt="A slider for the budget from 2.1 to 6 bits; as it rises, matrices gain bits one by one.")
