"""The figures of notebook 05, and the three distributions whose ternary errors have a formula."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.quant.ternary import GAUSSIAN_THIRD
from nanoq.teach.plots import COLORS, figure
from nanoq.teach.widgets import live_figure, show_widget

NEAREST, BEST = "level = 2 × threshold", "level = the best for it"
KINDS = ("uniform", "normal", "Laplace")

# ---- one matrix, its three cells ----


def ternary(weight: Tensor, threshold: float | Tensor, level: float | Tensor) -> Tensor:
    """What becomes of weights: -level, 0 or level."""
    return level * weight.sign() * (weight.abs() > threshold)


def _masses(unit: Tensor, threshold: float) -> tuple[float, float, float]:
    """Shares of the weights below minus the threshold, between, and above."""
    low, high = float((unit < -threshold).float().mean()), float((unit > threshold).float().mean())
    return low, 1 - low - high, high


def _draw_cells(ax: Axes, unit: Tensor, threshold: float, level: float) -> None:
    """The histogram of weights (n,) in three cells, with the share and the length of each, and the three values."""
    top = float(unit.abs().max())
    bars = torch.histogram(unit, 141, range=(-top, top))
    middle, width = (bars.bin_edges[:-1] + bars.bin_edges[1:]) / 2, 2 * top / 141
    bounds, highest = (-top, -threshold, threshold, top), float(bars.hist.max())
    for number, mass in enumerate(_masses(unit, threshold)):
        left, right = bounds[number], bounds[number + 1]
        mine = (left < middle) & (middle <= right)
        ax.bar(middle[mine], bars.hist[mine], width, color=COLORS["sky" if number == 1 else "vermillion"])
        ax.text((left + right) / 2, 1.16 * highest, f"{100 * mass:.0f} %\nlength {right - left:.2f}",
                ha="center", va="center", fontsize=9)  # fmt: skip
    for value in (-level, 0, level):
        ax.axvline(value, color=COLORS["black"], lw=1.5, ls="--", ymax=0.76)
    ax.set(ylim=(0, 1.35 * highest), yticks=[], xlabel="weight (root mean squares); dashed: its three values")
    ax.set_title(f"threshold {threshold:.2f}, level {level:.2f}")


def _cells_alt(unit: Tensor, threshold: float, level: float) -> str:
    low, middle, high = _masses(unit, threshold)
    return (f"Histogram of the weights of one matrix, a bell that is cut at plus and minus {threshold:.2f}: "
            f"{100 * low:.0f} per cent of the weights become minus {level:.2f}, {100 * middle:.0f} per cent 0, and "
            f"{100 * high:.0f} per cent plus {level:.2f}. Dashed lines mark the three values.")


@figure(_cells_alt)
def cells(unit: Tensor, threshold: float, level: float) -> Figure:
    """The three cells of weights (n,), given in units of their root mean square."""
    fig, ax = plt.subplots(figsize=(8, 2.8))
    _draw_cells(ax, unit, threshold, level)
    return fig


def _level(unit: Tensor, threshold: float, rule: str) -> float:
    return 2 * threshold if rule == NEAREST else float(unit.abs()[unit.abs() > threshold].mean())


def three_errors(unit: Tensor, threshold: float, rule: str = NEAREST) -> tuple[float, float, float]:
    """Mean, mean squared and largest error of weights (n,) at a threshold."""
    error = (ternary(unit, threshold, _level(unit, threshold, rule)) - unit).abs()
    return float(error.mean()), float(error.square().mean()), float(error.max())


def thresholds(unit: Tensor) -> list[float]:
    """The thresholds at which the curves below are worked out: up to half of the largest weight."""
    return [0.05 * k for k in range(2, int(float(unit.abs().max()) / 2 / 0.05) + 1)]


def threshold_slider(unit: Tensor) -> None:
    """The three cells, and three errors against the threshold, with a slider for it and a choice of the level."""
    places = thresholds(unit)
    curves = {rule: [three_errors(unit, t, rule) for t in places] for rule in (NEAREST, BEST)}

    def draw(threshold: float, rule: str) -> Figure:
        fig, axes = plt.subplot_mosaic("AAA;BCD", figsize=(8, 5), height_ratios=(3, 2))
        _draw_cells(axes["A"], unit, threshold, _level(unit, threshold, rule))
        here = three_errors(unit, threshold, rule)
        for k, (key, name) in enumerate(zip("BCD", ("mean", "mean squared", "largest"), strict=True)):
            axes[key].plot(places, [errors[k] for errors in curves[rule]], color=COLORS["blue"])
            axes[key].plot(threshold, here[k], "o", color=COLORS["vermillion"])
            axes[key].set(title=f"{name} error {here[k]:.2f}", xlabel="threshold", ylim=(0, None))
        return fig

    show_widget(live_figure(
        draw,
        threshold=ipywidgets.FloatSlider(value=0.6, min=0.1, max=round(places[-1], 2), step=0.01,
                                         description="threshold", continuous_update=False),
        rule=ipywidgets.Dropdown(options=list(curves), description="rule"),
    ), alt="(live in Jupyter: a slider for the threshold and a choice of the rule for the level redraw the figure "
           "above, with the share and the length of each cell, and below it mean, mean squared and largest error "
           "against the threshold. Each is a valley, with its lowest point at another place.)")  # fmt: skip


@figure("Three valleys against the threshold, each with a dot at its lowest point: the mean error near 0.5, the mean "
        "squared error near 0.6, the largest error near 1.4, all in root mean squares of the weights.")  # fmt: skip
def valleys(unit: Tensor) -> Figure:
    """Mean, mean squared and largest error of weights (n,) against the threshold, level twice as high."""
    places = thresholds(unit)
    errors = torch.tensor([three_errors(unit, t) for t in places])  # (thresholds, 3)
    fig, axes = plt.subplots(1, 3, figsize=(8, 2.4))
    for ax, curve, name in zip(axes, errors.T, ("mean error (rms)", "mean squared error (rms²)", "largest error (rms)"),
                               strict=True):
        best = int(curve.argmin())
        ax.plot(places, curve, color=COLORS["blue"])
        ax.plot(places[best], curve[best], "o", color=COLORS["vermillion"])
        ax.set_title(name, fontsize=10)
        ax.set(xlabel="threshold (rms)", ylim=(0, None))
    return fig


# ---- TQuant, MQuant, bytes ----


@figure("Contour map of the largest error over threshold and level, both in units of the largest weight. It falls "
        "towards a single lowest point, marked TQuant, on the dashed line of rounding to nearest; the naive "
        "quantiser lies further up that line.")  # fmt: skip
def worst_errors() -> Figure:
    """The largest error of every ternary quantiser, in units of the largest weight."""
    t, a = torch.linspace(0, 1, 201)[None], torch.linspace(0, 1.2, 241)[:, None]  # (1, 201), (241, 1)
    worst = torch.stack([t.expand(241, 201), (a - t).abs(), (1 - a).abs().expand(241, 201)]).amax(0)
    fig, ax = plt.subplots(figsize=(7, 3.6))
    shade = ax.contourf(t[0], a[:, 0], worst, levels=torch.linspace(0.3, 1, 15).tolist(), extend="max")
    fig.colorbar(shade, label="largest error ÷ largest weight")
    ax.plot([0, 0.6], [0, 1.2], "--", color="white", lw=1)
    for name, where, color in (("naive", (1 / 2, 1), "orange"), ("TQuant", (1 / 3, 2 / 3), "vermillion")):
        ax.plot(*where, "o", ms=9, color=COLORS[color], mec="white")
        ax.annotate(name, where, textcoords="offset points", xytext=(9, -4), color="white", weight="bold")
    ax.set(xlabel="threshold ÷ largest weight", ylabel="level ÷ largest weight")
    ax.grid(visible=False)
    return fig


@figure("Normal density cut into three parts of equal area, one third each; dashed lines at 0 and at plus and minus "
        "twice the threshold are the three values, all of them well inside the bell.")  # fmt: skip
def equal_mass() -> Figure:
    """MQuant's cells and values on the normal density."""
    x = torch.linspace(-3.2, 3.2, 641)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    fig, ax = plt.subplots(figsize=(7, 2.6))
    bounds = (-4, -GAUSSIAN_THIRD, GAUSSIAN_THIRD, 4)
    for left, right, color in zip(bounds, bounds[1:], ("vermillion", "sky", "vermillion"), strict=False):
        cell = (x >= left) & (x <= right)
        ax.fill_between(x[cell], density[cell], color=COLORS[color], alpha=0.7)
        ax.text(min(max((left + right) / 2, -1.3), 1.3), 0.08, "1/3", ha="center", fontsize=13,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2})  # fmt: skip
    for value in (-2 * GAUSSIAN_THIRD, 0, 2 * GAUSSIAN_THIRD):
        ax.axvline(value, color=COLORS["black"], ls="--", lw=1.5)
    ax.set(xlabel="weight (σ)", ylabel="density")
    return fig


@figure("Five boxes, one per code, with the powers of three that they count: 1, 3, 9, 27 and 81. The codes 2, 1, 0, 2 "
        "and 1 give 2, 3, 0, 54 and 81, which makes 140, and so the byte 10001100.")  # fmt: skip
def five_in_a_byte() -> Figure:
    """How five codes share a byte."""
    codes = (2, 1, 0, 2, 1)
    fig, ax = plt.subplots(figsize=(8, 1.9))
    for at, code in enumerate(codes):
        ax.add_patch(plt.Rectangle((at, 0), 0.9, 0.9, facecolor=COLORS["sky" if at % 2 else "orange"], alpha=0.6))
        ax.text(at + 0.45, 0.45, code, ha="center", va="center", fontsize=15, family="monospace")
        ax.text(at + 0.45, 1.05, f"× {3**at}", ha="center", fontsize=10)
    total = sum(code * 3**at for at, code in enumerate(codes))
    ax.text(5.1, 0.45, f"= {total} = {total:08b} in a byte", va="center", fontsize=13, family="monospace")
    ax.set(xlim=(-0.1, 9.2), ylim=(-0.1, 1.4), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return fig


def _losses_alt(losses: Mapping[str, tuple[float, float]]) -> str:
    words = [f"{name} {own:.1f} with its own level and {best:.1f} with the best one"
             for name, (own, best) in losses.items()]
    return f"Pairs of bars, nats added to the loss of float32: {'; '.join(words)}."


@figure(_losses_alt)
def losses(added: Mapping[str, tuple[float, float]]) -> Figure:
    """Added loss in nats of each operator, with its own level and with the level of the least squared error."""
    fig, ax = plt.subplots(figsize=(7, 2.9))
    at = torch.arange(len(added))
    for shift, label, color in ((-0.2, "own level", "sky"), (0.2, "best level", "blue")):
        ax.bar(at + shift, [pair[int(shift > 0)] for pair in added.values()], 0.36, color=COLORS[color], label=label)
    ax.set_xticks(at, added)
    ax.set(ylabel="added loss (nats)")
    ax.legend()
    return fig


# ---- theory: three distributions with standard deviation 1 ----


def integrals(kind: str, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """P(|w| > t) and E[|w|; |w| > t] of a distribution in `KINDS`, in float64."""
    t = torch.as_tensor(t, dtype=torch.float64)
    if kind == "normal":
        return torch.erfc(t / math.sqrt(2)), 2 * torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
    if kind == "Laplace":
        b = math.sqrt(0.5)
        return torch.exp(-t / b), (t + b) * torch.exp(-t / b)
    end = math.sqrt(3)  # uniform from -√3 to √3
    t = t.clamp(max=end)
    return 1 - t / end, (end**2 - t.square()) / (2 * end)


def quality(kind: str, t: float | Tensor, a: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Share of zeros, mean squared and mean absolute error of a ternary quantiser with threshold t and level a."""
    a = torch.as_tensor(a, dtype=torch.float64)
    (i0, i1), whole = integrals(kind, t), integrals(kind, 0.0)[1]
    j0, j1 = integrals(kind, torch.maximum(a, torch.as_tensor(t)))  # beyond a, where w - a is positive
    absolute = (whole - i1) + (i1 - a * i0) + 2 * (a * (i0 - j0) - (i1 - j1))
    return 1 - i0, 1 - 2 * a * i1 + a.square() * i0, absolute


def quantile(kind: str, share: float) -> float:
    """Below which |w| a share of the weights lies."""
    if kind == "normal":
        return math.sqrt(2) * float(torch.erfinv(torch.tensor(share, dtype=torch.float64)))
    return -math.sqrt(0.5) * math.log(1 - share) if kind == "Laplace" else math.sqrt(3) * share


def usual_largest(kind: str, n: int) -> float:
    """The median of the largest |w| of n weights."""
    return quantile(kind, 0.5 ** (1 / n))


def lloyd_path(kind: str, level: float, turns: int) -> list[tuple[float, float]]:
    """Threshold and level after each half of a turn of Lloyd's algorithm, from a level on."""
    path = [(level / 2, level)]
    for _ in range(turns):
        i0, i1 = integrals(kind, path[-1][0])
        path += [(path[-1][0], float(i1 / i0)), (float(i1 / i0) / 2, float(i1 / i0))]
    return path


def chosen(kind: str, n: int) -> dict[str, tuple[float, float]]:
    """Threshold and level of each operator for a row of n weights."""
    largest, size = usual_largest(kind, n), float(integrals(kind, 0.0)[1])
    equal = quantile(kind, 1 / 3)
    i0, i1 = integrals(kind, 0.7 * size)
    return {"naive": (largest / 2, largest), "TQuant": (largest / 3, largest / 1.5),
            "MQuant": (GAUSSIAN_THIRD, 2 * GAUSSIAN_THIRD), "MQuant, true thirds": (equal, 2 * equal),
            "absmean": (size / 2, size), "TWN": (0.7 * size, float(i1 / i0)),
            "Lloyd": lloyd_path(kind, size, 500)[-1]}  # fmt: skip


def goals_of(t: Tensor) -> dict[str, Tensor]:
    """Mean squared error, mean error and entropy of the codes against the threshold, normal weights, level 2t."""
    share, squared, absolute = quality("normal", t, 2 * t)
    entropy = -(share * share.log2() + (1 - share) * ((1 - share) / 2).log2())
    return {"mean squared error": squared, "mean error": absolute, "1 ÷ entropy": 1 / entropy}


@figure("Mean squared error, mean error and one over entropy against the threshold, each divided by its best value. "
        "Their lowest points lie at 0.61, 0.51 and 0.43. The dashed line of MQuant goes through the last, where the "
        "mean error is a few per cent above its best, and the squared error more than a quarter.")  # fmt: skip
def goals() -> Figure:
    """Three things that a threshold may be best for, on normal weights and with rounding to nearest."""
    t = torch.linspace(0.15, 1.5, 1351, dtype=torch.float64)
    fig, ax = plt.subplots(figsize=(7, 3.4))
    for (label, curve), color in zip(goals_of(t).items(), ("blue", "green", "orange"), strict=True):
        ax.plot(t, curve / curve.min(), color=COLORS[color], label=label)
        ax.plot(t[curve.argmin()], 1, "o", color=COLORS[color])
    ax.axvline(GAUSSIAN_THIRD, color=COLORS["black"], ls="--", lw=1.5, label="MQuant")
    ax.set(xlabel="threshold (σ), level twice as high", ylabel="÷ its own best", ylim=(0.95, 1.9))
    ax.legend()
    return fig


@figure("Contour map of the mean squared error over threshold and level. Two curves, the best level for each threshold "
        "and the best threshold for each level, cross at the lowest point, marked Lloyd. A staircase leads there from "
        "the naive point far up. TWN lies next to Lloyd on the first curve; MQuant and absmean lie lower left, TQuant "
        "above.")  # fmt: skip
def error_map(n: int) -> Figure:
    """The squared error of every ternary quantiser on normal weights, with the operators' choices for n weights."""
    t = torch.linspace(0.02, 2, 199, dtype=torch.float64)[None]  # (1, 199)
    a = torch.linspace(0.4, 3.2, 281, dtype=torch.float64)[:, None]  # (281, 1)
    i0, i1 = integrals("normal", t[0])
    fig, ax = plt.subplots(figsize=(7, 4.4))
    error = quality("normal", t.expand(281, 199), a.expand(281, 199))[1]
    lines = ax.contour(t[0], a[:, 0], error, levels=[0.195, 0.21, 0.25, 0.3, 0.4, 0.6, 0.9], colors="0.7", linewidths=1)
    ax.clabel(lines, levels=lines.levels[2:], fontsize=8)
    ax.plot(t[0], i1 / i0, color=COLORS["green"], label="best level for the threshold")
    ax.plot(t[0], 2 * t[0], "--", color=COLORS["blue"], label="best threshold for the level")
    path = lloyd_path("normal", usual_largest("normal", n), 30)
    ax.plot(*zip(*path, strict=True), color=COLORS["black"], lw=1, label="Lloyd's way from naive")
    places = {"absmean": (-8, -13), "MQuant": (8, -4), "Lloyd": (8, -10), "TWN": (-30, 4)}
    for name, where in chosen("normal", n).items():
        if "true" not in name:
            ax.plot(*where, "o", color=COLORS["vermillion"])
            ax.annotate(name, where, textcoords="offset points", xytext=places.get(name, (8, -4)), fontsize=10)
    ax.set(xlabel="threshold (σ)", ylabel="level (σ)", ylim=(0.4, 3.2))
    ax.legend(loc="lower right")
    return fig


def over_lloyd(n: int) -> dict[str, dict[str, float]]:
    """By distribution and operator: the squared error, over Lloyd's, of rows of n weights."""
    errors = {kind: {name: float(quality(kind, *pair)[1]) for name, pair in chosen(kind, n).items()} for kind in KINDS}
    return {kind: {name: error / mine["Lloyd"] for name, error in mine.items()} for kind, mine in errors.items()}


@figure("Three bar charts: squared error of seven operators over the least, for uniform, normal and Laplace weights. "
        "Uniform: TQuant, MQuant with true thirds and Lloyd are all at 1. Normal: TQuant has about twice the least "
        "error, MQuant is a quarter above it. Laplace: naive is at three times the least, TQuant at twice, and MQuant "
        "with true thirds is far above MQuant by the normal formula.")  # fmt: skip
def shapes(n: int) -> Figure:
    """The squared error of each operator over Lloyd's, for three shapes of the weights."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True)
    for ax, (kind, ratio) in zip(axes, over_lloyd(n).items(), strict=True):
        colors = [COLORS["vermillion" if "MQuant" in name else "green" if name == "TQuant" else "blue"]
                  for name in ratio]
        ax.barh(list(ratio), list(ratio.values()), color=colors)
        ax.axvline(1, color="0.2", lw=1, ls="--")
        ax.set(title=kind, xlabel="squared error ÷ least", xlim=(0, 4))
    axes[0].invert_yaxis()
    return fig


@figure("Dot plot of the share of zeros in the 24 matrices of the GPT under naive ternary rounding: most above 90 per "
        "cent with one level per matrix, some ten per cent fewer with one level per row; the dashed line of the theory "
        "runs through the upper dots.")  # fmt: skip
def zero_shares(shares: Mapping[str, Sequence[float]], theory: float) -> Figure:
    """Shares of zeros, 0 to 1, of each matrix, by granularity, and what the normal distribution says."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for (label, mine), marker, color in zip(shares.items(), "os", ("vermillion", "blue"), strict=False):
        ax.plot([100 * share for share in mine], marker, color=COLORS[color], label=label)
    ax.axhline(100 * theory, color="0.4", ls="--", lw=1, label="theory, one level per matrix")
    ax.set(xlabel="matrix of the GPT, first to last", ylabel="zeros (%)", ylim=(75, 101))
    ax.legend(loc="lower right", ncols=3, fontsize=8)
    return fig


# ---- the second model ----


def _two_models_alt(added: Mapping[str, float], read: Mapping[str, float]) -> str:
    words = [f"{name} {added[name]:.1f} nats and {100 * read[name]:.0f} per cent" for name in added]
    return f"Two bar charts by operator, added loss of the GPT and share of digits read: {'; '.join(words)}."


@figure(_two_models_alt)
def two_models(added: Mapping[str, float], read: Mapping[str, float]) -> Figure:
    """By operator: nats added to the GPT's loss, and the share of digits that the picture model reads correctly."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.8), sharey=True)
    left.barh(list(added), list(added.values()), color=COLORS["blue"])
    left.set(title="GPT: worse →", xlabel="added loss (nats)")
    right.barh(list(read), [100 * share for share in read.values()], color=COLORS["green"])
    right.axvline(10, color="0.3", ls="--", lw=1)
    right.set(title="digits: better →", xlabel="read correctly (%); dashed: guessing", xlim=(0, 100))
    left.invert_yaxis()
    return fig


@figure("Left: share of digits read against a factor on all weights, with nothing rounded: nearly all at 1, most at "
        "0.9, and guessing at 0.6 and below; a star shows that with new statistics 0.6 is as good as 1. Right: added "
        "loss of the GPT, next to nothing between 0.8 and 1.4, and steep below 0.6. Dashed lines mark the gain of each "
        "operator; MQuant's is the lowest.")  # fmt: skip
def gains(factors: Sequence[float], read: Sequence[float], lost: Sequence[float], healed: float,
          marks: Mapping[str, float]) -> Figure:  # fmt: skip
    """What a factor on all weights does to both models, and the gains of the operators on the picture model."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    axes[0].plot(factors, [100 * value for value in read], "o-", color=COLORS["green"])
    axes[0].plot(0.6, 100 * healed, "*", ms=12, color=COLORS["black"])
    axes[0].annotate("statistics\nmeasured anew", (0.6, 100 * healed), textcoords="offset points", xytext=(-2, -28),
                     ha="right", fontsize=8)  # fmt: skip
    axes[0].set(ylabel="digits read (%)", ylim=(0, 128), yticks=range(0, 101, 20), title="digits")
    axes[1].plot(factors, lost, "o-", color=COLORS["blue"])
    axes[1].set(ylabel="added loss (nats)", ylim=(-0.1, 4.6), title="GPT")
    for ax in axes:
        for (name, gain), color in zip(marks.items(), ("purple", "sky", "vermillion", "orange"), strict=False):
            ax.axvline(gain, color=COLORS[color], ls="--", lw=1.5)
            ax.text(gain, ax.get_ylim()[1] * 0.98, name, rotation=90, ha="right", va="top", fontsize=9)
        ax.set(xlabel="all weights × this factor, nothing rounded", xlim=(0.35, 1.45))
    return fig


def _levels_alt(read: Mapping[str, Mapping[str, float]]) -> str:
    words = [f"{kind}: " + ", ".join(f"{name} {100 * share:.0f}" for name, share in mine.items())
             for kind, mine in read.items()]
    return f"Grouped bars, per cent of digits read by operator. {'. '.join(words)}."


@figure(_levels_alt)
def levels(read: Mapping[str, Mapping[str, float]]) -> Figure:
    """The share of digits read, by kind of level and by operator."""
    fig, ax = plt.subplots(figsize=(8, 3.2))
    for number, ((kind, mine), color) in enumerate(zip(read.items(), ("sky", "orange", "green"), strict=True)):
        at = torch.arange(len(mine)) + 0.27 * (number - 1)
        ax.bar(at, [100 * share for share in mine.values()], 0.25, color=COLORS[color], label=kind)
        ax.set_xticks(range(len(mine)), mine)
    ax.set(ylabel="digits read (%)", ylim=(0, 118), yticks=range(0, 101, 20))
    ax.legend(ncols=3, loc="upper center")
    return fig
