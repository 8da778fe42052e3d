"""The figures of notebook 02."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.numbers import FLOATS
from nanoq.teach.plots import COLORS, FORMAT_COLORS, figure
from nanoq.teach.widgets import live_figure, show_widget

# ---- values and their errors ----


@figure("Five number lines from 0.24 to 0.51. The values of fp16 form a solid band, those of bf16 stand close "
        "together, e4m3fn and e5m2 have a few, e2m1 only 0.5. In each, a dot marks the value nearest to "
        "the dashed line.")  # fmt: skip
def around(number: float) -> Figure:
    """The values of five formats around a number between 0.24 and 0.51."""
    names = ("fp16", "bf16", "e4m3fn", "e5m2", "e2m1")
    fig, axes = plt.subplots(figsize=(7, 2.8))
    for row, name in enumerate(names):
        values = FLOATS[name].values()
        near = values[(values > 0.24) & (values < 0.51)]  # (n,)
        axes.plot(near, torch.full_like(near, row), "|", ms=16, mew=1, color=FORMAT_COLORS[name])
        axes.plot(FLOATS[name].round(number).item(), row, "o", ms=7, color="black")
    axes.axvline(number, color="0.4", ls="--", lw=1)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="value")
    axes.invert_yaxis()
    axes.grid(visible=False)
    return fig


@figure("Scatter plot on logarithmic axes: relative error against size for e5m2, e4m3fn, bf16 and fp16. Each "
        "cloud lies below its dashed bound at every size, except that e4m3fn rises above its own for "
        "numbers below about 0.016.")  # fmt: skip
def cast_errors(numbers: Tensor, bound: Callable[[int], float]) -> Figure:
    """The relative error of each of the numbers (n,) in four formats, with the bound for their fraction bits."""
    fig, axes = plt.subplots(figsize=(7, 3.4))
    for name in ("e5m2", "e4m3fn", "bf16", "fp16"):
        error = ((FLOATS[name].round(numbers) - numbers) / numbers).abs()  # (n,)
        axes.loglog(numbers.abs(), error.clamp(min=1e-7), ".", ms=3, color=FORMAT_COLORS[name], label=name)
        axes.axhline(float(bound(FLOATS[name].mantissa)), color=FORMAT_COLORS[name], lw=1, ls="--")
    axes.set(xlabel="size of the number", ylabel="relative error", ylim=(1e-6, 2))
    axes.legend(loc="lower left", ncols=4, markerscale=4)
    return fig


@figure("Number line with the last values of fp16, 65408, 65440, 65472 and 65504, which are 32 apart. 65536, in "
        "grey, would be next. From 65520 on, half-way, a shaded region marks what becomes infinity.")  # fmt: skip
def top_of_fp16() -> Figure:
    """Where the largest numbers of fp16 end and infinity begins."""
    top = torch.tensor([65408.0, 65440, 65472, 65504])
    fig, axes = plt.subplots(figsize=(7, 1.7))
    axes.plot(top, torch.zeros(4), "|", ms=26, mew=3, color=FORMAT_COLORS["fp16"])
    axes.plot(65536, 0, "|", ms=26, mew=3, color="0.6")
    axes.axvspan(65520, 65550, color=COLORS["vermillion"], alpha=0.25)
    axes.axvline(65520, color=COLORS["vermillion"], lw=1)
    labels = [(65504, 0.3, "65504\nlargest"), (65520, 1.1, "65520, half-way"), (65536, 0.3, "65536\nwould be next")]
    for x, y, text in labels:
        axes.annotate(text, (x, y), ha="center", va="bottom", fontsize=9)
    axes.set(yticks=[], xlim=(65400, 65550), ylim=(-0.5, 1.5), xlabel="fp16 near its end")
    axes.grid(visible=False)
    return fig


# ---- sums ----


def _sums_alt(totals: Mapping[str, Tensor]) -> str:
    ends = ", ".join(f"{name} at {float(values[-1]):g}" for name, values in totals.items())
    return ("Line plot on logarithmic axes: the total against the number of terms. The exact line keeps rising; "
            f"each of the others leaves it and becomes horizontal: {ends}.")


@figure(_sums_alt)
def sums_of_tenths(totals: Mapping[str, Tensor]) -> Figure:
    """The running totals (n,) of 0.1 + 0.1 + ... in several formats, beside the exact ones."""
    fig, axes = plt.subplots(figsize=(7, 3.6))
    count = torch.arange(1, len(next(iter(totals.values()))) + 1)
    axes.loglog(count, 0.1 * count, color="0.7", lw=5, label="exact")
    for name, values in totals.items():
        axes.loglog(count, values, color=FORMAT_COLORS[name], label=f"{name}: {values[-1]:g}")
    axes.set(xlabel="terms", ylabel="total")
    axes.legend()
    return fig


@figure("Mean relative error of sums in bf16 against their length: the naive sum rises from below one per cent to "
        "a half; pairwise, Kahan's and the one with an fp32 total stay below the dashed bound of a single rounding.")
def sum_errors(lengths: Sequence[int], errors: Mapping[str, Sequence[float]]) -> Figure:
    """The mean relative error of sums in bf16 against their length, a line for each way to add up."""
    fig, axes = plt.subplots(figsize=(7, 3.4))
    for (way, values), marker in zip(errors.items(), "osD^", strict=True):
        axes.loglog(lengths, values, marker=marker, label=way)
    axes.axhline(2.0**-8, color="0.6", ls="--", lw=1, label="bound of one rounding")
    axes.set(xlabel="terms", ylabel="mean relative error", xticks=lengths, xticklabels=lengths)
    axes.minorticks_off()
    axes.legend()
    return fig


@figure("Relative error of a matrix product against the length of its sums. With sums in the small type it rises, "
        "for bf16 and fp16 alike; with sums in fp32 it stays flat, at the error of rounding the factors.")  # fmt: skip
def product_errors(lengths: Sequence[int], errors: Mapping[tuple[str, str], Sequence[float]]) -> Figure:
    """The relative error of matrix products; the keys are (format of the factors, format of the sums)."""
    fig, axes = plt.subplots(figsize=(7, 3.4))
    for (factors, sums), values in errors.items():
        axes.loglog(lengths, values, "s--" if sums == "fp32" else "o-", color=FORMAT_COLORS[factors],
                    label=f"{factors} factors, {sums} sums")
    axes.set(xlabel="terms in each sum", ylabel="relative error of the product", xticks=lengths, xticklabels=lengths)
    axes.minorticks_off()
    axes.legend(fontsize=9)
    return fig


def _drift(curves: Mapping[str, Tensor], name: str, terms: int) -> Figure:
    fig, axes = plt.subplots(figsize=(7, 2.8))
    axes.plot(range(1, terms + 1), 100 * curves[name][:terms], color=FORMAT_COLORS[name])
    axes.axhline(100 * 2.0 ** -(FLOATS[name].mantissa + 1), color="0.6", ls="--", lw=1, label="one rounding")
    axes.set(xlabel="terms", ylabel="relative error (%)", ylim=(0, None))
    axes.set_title(f"{name}: after {terms} terms {100 * curves[name][terms - 1]:.1f} % are missing")
    axes.legend(loc="upper left")
    return fig


def _drift_alt(curves: Mapping[str, Tensor], name: str, terms: int) -> str:
    leaves = int((curves[name][:terms] > 0.02).nonzero()[0]) + 1
    return (f"Relative error in per cent of a naive sum in {name} against the number of terms: near 0 up to about "
            f"{leaves} terms, then rising to {100 * float(curves[name][terms - 1]):.0f} per cent at {terms}; "
            "dashed, the bound of one rounding.")


@figure(_drift_alt)
def drift(curves: Mapping[str, Tensor], name: str, terms: int) -> Figure:
    """The relative errors (n,) of a naive sum in one of several formats, up to a number of terms."""
    return _drift(curves, name, terms)


def drift_slider(curves: Mapping[str, Tensor]) -> None:
    """The figure `drift` with a choice of the format and a slider for the length."""
    most = len(next(iter(curves.values()))).bit_length() - 1
    show_widget(live_figure(
        lambda name, length: _drift(curves, name, 2**length),
        name=ipywidgets.Dropdown(options=list(curves), value="bf16", description="type"),
        length=ipywidgets.IntSlider(value=10, min=3, max=most, description="log₂ terms"),
    ), alt="A type to choose and a slider for the number of terms redraw the figure above: the relative error of "
           "a naive sum against its length.")  # fmt: skip


# ---- stochastic rounding ----


def _chance_alt(x: float, step: float) -> str:
    share = x / step % 1
    return (f"A number line with two neighbouring multiples of {step:g}. The number {x:g} lies {share:.0%} of the "
            f"way from the lower to the upper one. An arrow leads to the upper one, with probability p = "
            f"{share:.1f}, and one to the lower one, with probability {1 - share:.1f}. Below, a bar from 0 to 1 "
            f"for the random number u: from {1 - share:.1f} on, which is 1 - p, the number goes up.")


@figure(_chance_alt)
def chance(x: float, step: float) -> Figure:
    """Where stochastic rounding takes a number between two multiples of a step, and which random numbers do what."""
    low = x // step * step
    share = (x - low) / step
    fig, axes = plt.subplots(figsize=(7, 3))
    axes.plot([0, 1], [1, 1], color="0.5", lw=1.5)
    axes.plot([0, 1], [1, 1], "|", ms=22, mew=2.5, color="0.3", ls="")
    axes.plot(share, 1, "o", ms=9, color=COLORS["blue"])
    axes.text(share, 0.93, f"x = {x:g}", ha="center", va="top", color=COLORS["blue"])
    for end, color, word in ((0, "vermillion", f"down: 1 − p = {1 - share:.1f}"), (1, "green", f"up: p = {share:.1f}")):
        axes.annotate("", (end, 1.03), (share, 1.03), arrowprops={
            "arrowstyle": "-|>", "color": COLORS[color], "lw": 2, "connectionstyle": f"arc3,rad={0.35 - 0.7 * end}"})
        axes.text((end + share) / 2, 1.36, word, ha="center", va="bottom", color=COLORS[color])
        axes.text(end, 0.9, f"{low + end * step:g}", ha="center", va="top")
    axes.barh(0.45, 1 - share, 0.14, color=COLORS["vermillion"], alpha=0.5)
    axes.barh(0.45, share, 0.14, left=1 - share, color=COLORS["green"], alpha=0.5)
    axes.text((1 - share) / 2, 0.45, "down", ha="center", va="center")
    axes.text(1 - share / 2, 0.45, "up", ha="center", va="center")
    for place, word in ((0, "0"), (1 - share, "1 − p"), (1, "1")):
        axes.text(place, 0.35, word, ha="center", va="top")
    axes.text(-0.04, 0.45, "u", ha="right", va="center")
    axes.set(xlim=(-0.1, 1.1), ylim=(0.2, 1.52))
    axes.axis("off")
    return fig


@figure("A number that starts at 1 and gets 1,000 updates of 0.0005: exactly, it rises to 1.5. Rounded to nearest "
        "in bf16 it stays at 1 for ever; with stochastic rounding single runs climb in jumps around the exact "
        "line, and their mean follows it.")  # fmt: skip
def updates(paths: Tensor, update: float) -> Figure:
    """What becomes of a number: paths (steps, 1 + runs), the first rounded to nearest, the others stochastically."""
    fig, axes = plt.subplots(figsize=(7, 3))
    count = torch.arange(1, len(paths) + 1)
    axes.plot(count, 1 + update * count, color="0.7", lw=5, label="exact")
    axes.plot(count, paths[:, 1:4], color=COLORS["sky"], lw=0.8)
    runs = paths.shape[1] - 1
    mean_label = f"stochastic: mean of {runs}; thin: three of them"
    axes.plot(count, paths[:, 1:].mean(1), color=COLORS["blue"], label=mean_label)
    axes.plot(count, paths[:, 0], color=COLORS["vermillion"], label="nearest")
    axes.set(xlabel=f"updates of {update:g}", ylabel="value in bf16")
    axes.legend(fontsize=9)
    return fig


# ---- a scale ----


def _grids_alt(matrix: Tensor, scale: float) -> str:
    return (f"Two number lines with {matrix.numel()} weights above each, and a line from each weight to the value "
            f"to which it is rounded. Above, whole numbers, and slanting lines; below, a grid with a step of "
            f"{scale:.3f}, about {1 / scale:.0f} times as fine, and lines that look vertical.")


@figure(_grids_alt)
def two_grids(matrix: Tensor, scale: float) -> Figure:
    """Weights rounded to whole numbers, and to multiples of a scale."""
    fig, both = plt.subplots(2, 1, figsize=(7, 2.8), sharex=True)
    values = matrix.flatten()
    low, high = float(values.min()) - 0.8, float(values.max()) + 0.7
    for axes, name, step in zip(both, ("plain integers", "with a scale"), (1.0, float(scale)), strict=True):
        grid = step * torch.arange(int(low / step), int(high / step) + 1)
        axes.plot(grid, torch.zeros_like(grid), "|", ms=16, mew=1, color="0.6")
        axes.plot(values, torch.full_like(values, 0.3), "o", ms=5, color=COLORS["blue"])
        goals = torch.round(values / step) * step
        ends = torch.tensor([[0.3], [0.0]]).expand(2, len(values))
        axes.plot(torch.stack((values, goals)), ends, color=COLORS["vermillion"], lw=1.5)
        axes.set(yticks=[], ylim=(-0.3, 0.6), title=f"{name}: a step of {step:.4g}", xlim=(low, high))
        axes.grid(visible=False)
    return fig


# ---- a language model ----


@figure("Histogram of the binary logarithm of the sizes of all parameters, most of them between -10 and 0, with "
        "bars for the ranges of e2m1, which begins at -1, e4m3fn from -9, e5m2 from -16 and fp16 from beyond the "
        "left edge; all four go on beyond the right edge or near to it.")  # fmt: skip
def sizes_and_ranges(weights: Tensor) -> Figure:
    """How large the parameters (n,) of a model are, and where four formats begin and end."""
    fig, axes = plt.subplots(figsize=(7, 3))
    axes.hist(weights[weights != 0].abs().log2().numpy(), bins=120, range=(-20, 4), color="0.6")
    top = axes.get_ylim()[1]
    for height, name in enumerate(("e2m1", "e4m3fn", "e5m2", "fp16")):
        fmt, y = FLOATS[name], top * (1.05 + 0.14 * height)
        low, high = (max(-20.0, torch.tensor(x).log2().item()) for x in (fmt.min_subnormal, fmt.max))
        axes.plot([low, min(4, high)], [y, y], color=FORMAT_COLORS[name], lw=5, solid_capstyle="butt")
        axes.annotate(name, (low, y), xytext=(3, 4), textcoords="offset points", fontsize=9, annotation_clip=False)
    axes.set(xlabel="log₂ of a parameter's size", ylabel="how many", xlim=(-20, 4), ylim=(0, 1.65 * top))
    return fig
