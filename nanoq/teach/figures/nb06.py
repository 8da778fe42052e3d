"""The figures of notebook 06."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.teach.plots import COLORS, figure


def _all_errors(weight: Tensor, lower: Tensor, upper: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Output errors of all roundings (2**n,), sorted, and that of rounding to nearest."""
    ups = torch.tensor(list(itertools.product((False, True), repeat=len(weight))))  # (2**n, n)
    near = torch.where(upper - weight <= weight - lower, upper, lower)
    changes = torch.cat((torch.where(ups, upper, lower), near[None])) - weight
    errors = ((changes @ gram) * changes).sum(1)
    return errors[:-1].sort().values, errors[-1]


def place_of_nearest(weight: Tensor, lower: Tensor, upper: Tensor, gram: Tensor) -> int:
    """On which place rounding to nearest comes among all roundings of a few weights (n,), by output error."""
    errors, near = _all_errors(weight, lower, upper, gram)
    return int((errors < near * (1 - 1e-6)).sum()) + 1


def _ways_alt(weight: Tensor, *rest: Tensor) -> str:
    place = place_of_nearest(weight, *rest)
    return (f"Curve of the output errors of all {2 ** len(weight)} roundings of {len(weight)} weights, sorted, on a "
            f"log scale. Rounding to nearest is marked, on place {place}, above the best one.")


@figure(_ways_alt)
def all_ways(weight: Tensor, lower: Tensor, upper: Tensor, gram: Tensor) -> Figure:
    """The output errors of all ways to round weights (n,) up or down, in order, nearest marked."""
    errors, near = _all_errors(weight, lower, upper, gram)
    place = place_of_nearest(weight, lower, upper, gram)
    fig, ax = plt.subplots(figsize=(7, 3))
    ax.plot(range(1, len(errors) + 1), errors / near, color=COLORS["sky"])
    ax.plot(place, 1, "s", color=COLORS["vermillion"], ms=9, label=f"nearest, place {place}")
    ax.plot(1, errors[0] / near, "o", color=COLORS["blue"], ms=9, label="best")
    ax.set(yscale="log", xlabel="place", ylabel="output error (nearest = 1)", title=f"All {len(errors)} roundings")
    ax.legend()
    return fig


@figure("Left: heat map of how alike the inputs are, from -1 to 1; many pairs are near 1 or -1. Right: the rounding "
        "errors of each weight in steps, for nearest, none longer than half a step, and for the best rounding, some "
        "of which are longer.")
def cancelling(alike: Tensor, near: Tensor, best: Tensor) -> Figure:
    """How alike the inputs are (n, n), and the errors of two roundings (n,) in steps."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3), width_ratios=(2, 3))
    image = left.imshow(alike, vmin=-1, vmax=1, cmap="PuOr")
    fig.colorbar(image, ax=left)
    left.set(title="how alike the inputs are", xticks=range(len(near)), yticks=range(len(near)))
    left.grid(visible=False)
    at = torch.arange(len(near))
    right.bar(at - 0.2, near, 0.38, color=COLORS["vermillion"], label="nearest")
    right.bar(at + 0.2, best, 0.38, color=COLORS["blue"], label="best")
    for half in (-0.5, 0.5):
        right.axhline(half, color="0.5", ls="--", lw=1)
    right.set(xlabel="weight", ylabel="error in steps", xticks=range(len(near)), ylim=(-1, 1))
    right.legend(ncols=2)
    return fig


def _along(at: int, values: Tensor, weight: Tensor, others: Tensor, gram: Tensor) -> Tensor:
    """Output error when one weight is `values` (n,), and the others are as given."""
    changes = (others - weight).repeat(len(values), 1)
    changes[:, at] = values - weight[at]
    return ((changes @ gram) * changes).sum(1)


@figure("Output error along one weight. Without rounding a parabola whose lowest point lies beside the trained value."
        " With rounding a staircase that meets the parabola at the grid values and is flat in between.")
def staircase(at: int, weight: Tensor, best: Tensor, step: float, gram: Tensor) -> Figure:
    """Output error against weight number `at`, the other weights (n,) rounded in the best way."""
    axis = torch.linspace(-2.2, 2.2, 881)  # in steps, around the weight
    free = weight[at] + step * axis
    rounded = best[at] + step * ((free - best[at]) / step).round()
    fig, ax = plt.subplots(figsize=(7, 3))
    ax.plot(axis, _along(at, free, weight, best, gram), "--", color=COLORS["orange"], label="the weight as it is")
    ax.plot(axis, _along(at, rounded, weight, best, gram), color=COLORS["blue"], label="the weight rounded")
    ax.axvline(0, color="0.4", lw=1)
    ax.set(xlabel="weight, in steps from its trained value", ylabel="output error", yticks=[], ylim=(0, None))
    ax.legend()
    return fig


@figure("Three curves against v from -7 to 7: the sigmoid, which nears 0 and 1 only far outside; the stretched one, "
        "from -0.1 to 1.1; and h, the stretched one cut off, exactly 0 left of -2.4 and exactly 1 right of 2.4.")
def rectified(h: Callable[[Tensor], Tensor]) -> Figure:
    """The sigmoid, stretched, and cut off as `h` does it."""
    v = torch.linspace(-7, 7, 561)
    fig, ax = plt.subplots(figsize=(7, 2.7))
    ax.plot(v, v.sigmoid(), "--", color=COLORS["orange"], label="sigmoid")
    ax.plot(v, 1.2 * v.sigmoid() - 0.1, ":", color="0.5", label="stretched")
    ax.plot(v, h(v), color=COLORS["blue"], label="h(v)")
    ax.set(xlabel="v", yticks=[0, 0.5, 1], title="Share of the way from the lower to the upper neighbour")
    ax.legend()
    return fig


@figure("The penalty against h at four moments. Soon after the warm-up it is a plateau that falls only next to 0 and "
        "1; the later, the further in the slope begins, until at the end it is a parabola.")
def penalties(penalty: Callable[[Tensor, float], Tensor]) -> Figure:
    """The penalty of one share, at four moments of the training."""
    shares = torch.linspace(0, 1, 201)
    fig, ax = plt.subplots(figsize=(7, 2.7))
    for progress, color in ((0.2, "sky"), (0.7, "blue"), (0.9, "orange"), (1.0, "vermillion")):
        ax.plot(shares, [float(penalty(h[None], progress)) for h in shares], color=COLORS[color],
                label=f"{100 * progress:.0f} % done")
    ax.set(xlabel="h", ylabel="penalty", ylim=(0, 1.1))
    ax.legend(loc="lower center")
    return fig


def _chosen_alt(shares: Tensor, strength: float) -> str:
    decided = 100 * float(((shares < 0.02) | (shares > 0.98)).float().mean())
    return (f"Histogram of h after training with the strength {strength:g}, on a log scale: {decided:.0f} % of the "
            "weights have chosen.")


@figure(_chosen_alt)
def chosen(shares: Tensor, strength: float) -> Figure:
    """Where the weights stand between their neighbours after training."""
    fig, ax = plt.subplots(figsize=(7, 1.6))
    ax.hist(shares.flatten(), bins=50, range=(0, 1), color=COLORS["blue"])
    ax.set(title=f"strength {strength:g}", xlabel="h", ylabel="weights", xticks=[0, 0.5, 1], yscale="log")
    return fig


@figure("Gradient against the latent weight for a goal of 0.3: a straight line without rounding; zero everywhere with"
        " rounding; a staircase around the line for straight-through, which is never zero and changes its sign at the"
        " threshold 0.5.")
def three_slopes() -> Figure:
    """The slope of (q - 0.3)**2 / 2 by a latent weight: not rounded, rounded, and straight through."""
    latent = torch.linspace(-1.4, 1.9, 661)
    fig, ax = plt.subplots(figsize=(7, 2.7))
    ax.plot(latent, latent - 0.3, "--", color=COLORS["orange"], label="without rounding")
    ax.plot(latent, 0 * latent, ":", color="0.4", label="with rounding: the truth")
    ax.plot(latent, latent.round() - 0.3, color=COLORS["blue"], label="straight through")
    ax.set(xlabel="latent weight", ylabel="gradient")
    ax.legend()
    return fig


@figure("Added loss of the GPT in three values, with 95 % intervals, on a log axis: a bar for each method and "
        "operator.")
def three_values(table: Mapping[tuple[str, str], Mapping[str, str]], ways: Sequence[tuple[str, str]]) -> Figure:
    """Added nats with their interval, from rows of a results file by method and operator, of some of them."""
    fig, ax = plt.subplots(figsize=(7, 0.8 + 0.28 * len(ways)))
    for place, way in enumerate(ways):
        value, low, high = (float(table[way][name]) for name in ("delta_nats", "ci_low", "ci_high"))
        ax.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", ms=5, capsize=3, color=COLORS["blue"])
    ax.set_yticks(range(len(ways)), [", ".join(filter(None, way)) for way in ways])
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="added loss (nats per character)", xticks=[0.1, 0.2, 0.5, 1, 2, 4], xlim=(0.1, 4))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    return fig


def _film(ax: Axes, path: Tensor, title: str) -> None:
    """A latent weight over the steps; where it is rounded up, the ground is shaded."""
    ax.bar(torch.arange(len(path))[path > 0.5], 1, 1.0, color=COLORS["orange"], alpha=0.4, lw=0)
    ax.plot(path, color=COLORS["blue"], lw=1.2)
    ax.axhline(0.5, color="0.3", ls="--", lw=1)
    ax.set(ylim=(0, 1), xlabel="step", title=title)


@figure("Films of a latent weight over the steps. Each climbs to the threshold at 0.5 and then jumps back and forth "
        "across it; shaded stretches, where it is rounded up, take the goal's share of the steps.")
def films(paths: Mapping[str, Tensor]) -> Figure:
    """Latent weights (steps,) by their titles."""
    fig, axes = plt.subplots(1, len(paths), figsize=(9, 2.5), sharey=True)
    for ax, (title, path) in zip(axes, paths.items(), strict=True):
        _film(ax, path, title)
    axes[0].set_ylabel("latent weight")
    return fig


@figure("Histograms of one layer's weights in units of the level, one for each operator, with the grid values -1, 0 "
        "and 1 dashed and the weights beyond them grey: none for naive, a few for TQuant, most for MQuant.")
def frozen(units: Mapping[str, Tensor]) -> Figure:
    """Weights in units of the level (n,), by operator; those that cannot move are grey."""
    fig, axes = plt.subplots(1, len(units), figsize=(9, 2.5), sharey=True)
    for ax, (operator, values) in zip(axes, units.items(), strict=True):
        for part, color in ((values.abs() <= 1.001, COLORS["blue"]), (values.abs() > 1.001, "0.5")):
            ax.hist(values[part].clamp(-3.4, 3.4), bins=69, range=(-3.45, 3.45), color=color)
        for value in (-1, 0, 1):
            ax.axvline(value, color="0.3", lw=1, ls="--")
        ax.set(title=operator, xlabel="weight ÷ level", yticks=[])
    return fig


@figure("Against w divided by s: the rounded weight with the steps -1, 0 and 1; the derivative by the scale, a saw "
        "tooth between -0.5 and 0.5 inside the grid and -1 or 1 beyond it; the derivative by the weight, 1 inside and"
        " 0 beyond.")
def scale_slopes() -> Figure:
    """LSQ's derivatives on a ternary grid."""
    x = torch.linspace(-2.2, 2.2, 881)
    inside = x.abs() <= 1
    fig, ax = plt.subplots(figsize=(7, 2.8))
    ax.plot(x, x.round().clamp(-1, 1), ":", color="0.5", label="rounded weight ÷ s")
    ax.plot(x, torch.where(inside, x.round() - x, x.sign()), color=COLORS["blue"], label="derivative by the scale")
    ax.plot(x, inside.float(), "--", color=COLORS["orange"], label="derivative by the weight")
    ax.set(xlabel="w ÷ s", yticks=[-1, -0.5, 0, 0.5, 1])
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


@figure("Bars: accuracy of the picture model right after ternary rounding, with the statistics of its norms measured "
        "again, and of the trained model. Measuring again alone brings it back nearly all the way.")
def control(accuracies: Mapping[str, float]) -> Figure:
    """Accuracies by what was done."""
    fig, ax = plt.subplots(figsize=(7, 1.8))
    ax.barh(list(accuracies), [100 * value for value in accuracies.values()], color=COLORS["blue"])
    ax.invert_yaxis()
    ax.set(xlabel="accuracy (%)", xlim=(0, 100))
    return fig


@figure("Histogram of the binary logarithm of the gradients' sizes. It lies far left in fp16's range, with a tail in "
        "the shaded region below -25 where fp16 has only 0; times 2 to the 16 it lies in the middle of the range, far"
        " from the end at 16.")
def gradients(sizes: Tensor) -> Figure:
    """Sizes of gradients (n,), none 0, next to fp16's range."""
    exponents = sizes.log2().numpy()
    fig, ax = plt.subplots(figsize=(7, 3))
    ax.hist(exponents, bins=150, range=(-45, 16), color=COLORS["blue"], alpha=0.75, label="gradients")
    ax.hist(exponents + 16, bins=150, range=(-45, 16), color=COLORS["orange"], alpha=0.6, label="times 2¹⁶")
    ax.axvspan(-45, -25, color=COLORS["vermillion"], alpha=0.12)
    ax.axvline(16, color="black")
    top = ax.get_ylim()[1]
    ax.text(-44, 1.08 * top, "become 0\nin fp16", fontsize=9)
    ax.text(16.5, 0.5 * top, "infinite", fontsize=9)
    ax.set(xlabel="log₂ of the size", ylabel="how many", xlim=(-45, 26), ylim=(0, 1.3 * top))
    ax.legend(loc="upper right")
    return fig


@figure("For each way to train, a dot for each seed: its held-out loss minus that of float32 with the same seed. fp16"
        " with the loss divided by 1024 and no scaling lies far right of all others, most of which lie near zero.")
def behind_float32(gaps: Mapping[str, Sequence[float]]) -> Figure:
    """Loss minus float32's with the same seed, by the way to train."""
    fig, ax = plt.subplots(figsize=(8, 3.2))
    for row, values in enumerate(gaps.values()):
        ax.plot(values, [row] * len(values), "o", ms=6, color=COLORS["blue"], alpha=0.8)
        ax.plot(math.fsum(values) / len(values), row, "|", ms=18, mew=3, color=COLORS["vermillion"])
    ax.axvline(0, color="black", lw=1)
    ax.set_xscale("symlog", linthresh=0.02)
    ax.set(yticks=range(len(gaps)), yticklabels=list(gaps), xlim=(None, 4), xlabel="loss minus fp32's (nats)")
    ax.tick_params(axis="y", labelsize=8)
    ax.minorticks_off()
    ax.invert_yaxis()
    return fig
