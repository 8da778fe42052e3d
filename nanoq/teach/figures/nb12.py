"""The figures of notebook 12."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from nanoq.mixed import RankCorrelation
from nanoq.teach.plots import COLORS, figure

KINDS = {"attention.qkv": "o", "attention.out": "s", "mlp.up": "^", "mlp.down": "D"}
SLOPE, BEND, QUARTIC = -0.5, 1.0, 0.15
TINT = {16: "vermillion", 8: "orange", 4: "sky"}


def valley_loss(e: Tensor | float) -> Tensor | float:
    """Loss at a distance e from a trained weight that lies on the side of its valley."""
    return 1 + SLOPE * e + 0.5 * BEND * e**2 + QUARTIC * e**4


def _valley_alt(sigma: float) -> str:
    up, down = valley_loss(-sigma) - 1, valley_loss(sigma) - 1
    return ("Left: a valley whose bottom lies to the right of the trained weight. A step to the right changes the "
            "loss by "
            f"{down:+.2f}, one to the left by {up:+.2f}; the mean of the two, {(up + down) / 2:+.2f}, lies above the "
            f"trained "
            "weight. Right: growth against the size of the step. That of the step to the right is below zero at "
            "first; the "
            "mean of the pair follows a dotted parabola for small steps, and rises above it for large ones.")


@figure(_valley_alt)
def valley(sigma: float) -> Figure:
    """Left: a step of size sigma to each side. Right: what a step, a pair and the parabola say of every size."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    axis, sizes = torch.linspace(-1.6, 1.6, 161), torch.linspace(0, 1.5, 151)
    ends = [valley_loss(-sigma), valley_loss(sigma)]
    left.plot(axis, valley_loss(axis), color="0.5")
    left.plot([-sigma, sigma], ends, "o--", color=COLORS["orange"], lw=1, label="+e and −e")
    left.plot(0, sum(ends) / 2, "D", color=COLORS["blue"], label="their mean")
    left.plot(0, 1, "*", ms=13, color=COLORS["black"], label="trained weight")
    left.set(xlabel="change of the weight", ylabel="loss", ylim=(0.6, 4))
    left.legend(loc="upper center")
    right.plot(sizes, valley_loss(sizes) - 1, color=COLORS["orange"], label="growth at +e")
    pair = (valley_loss(sizes) + valley_loss(-sizes)) / 2 - 1
    right.plot(sizes, pair, color=COLORS["blue"], label="mean growth of +e and −e")
    right.plot(sizes, 0.5 * BEND * sizes**2, color="0.3", ls=":", label="½ σ² × bend")
    right.axvline(sigma, color="0.7", lw=1)
    right.set(xlabel="size of the step σ", ylabel="growth of the loss")
    right.legend()
    return fig


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """Independent Gaussian numbers, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bowl() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A quadratic loss of 50 weights (50, 1), trained to 0, with a slope there; and its Hessian (50, 50)."""
    slope, mix = gaussian(50, 1, seed=1), gaussian(50, 50, seed=2)
    hessian = mix @ mix.T / 50
    return lambda e: (slope * e).sum() + (e * (hessian @ e)).sum() / 2, hessian


def spread_and_mean(alone: Sequence[Mapping[str, float]], paired: Sequence[Mapping[str, float]],
                    name: str) -> tuple[float, float]:  # fmt: skip
    """Of one matrix: the root mean square of a single draw about the mean of the pairs, and that mean."""
    mean = sum(found[name] for found in paired) / len(paired)
    return (sum((found[name] - mean) ** 2 for found in alone) / len(alone)) ** 0.5, mean


def _draws_alt(growth: Mapping[float, tuple[Tensor, Tensor]]) -> str:
    words = [f"sigma {sigma:g}: standard deviation {float(single.std()):.1f} alone and {float(pair.std()):.2f} in pairs"
             for sigma, (single, pair) in growth.items()]
    return ("Histograms of the growth in units of its expectation, for single draws and for pairs, one panel per size "
            "of the "
            f"noise; all are centred at 1. {'; '.join(words)}.")


@figure(_draws_alt)
def draws(growth: Mapping[float, tuple[Tensor, Tensor]]) -> Figure:
    """Growth over its expectation of many single draws and of as many pairs, by the size of the noise."""
    fig, axes = plt.subplots(1, len(growth), figsize=(9, 2.9))
    for ax, (sigma, (single, pair)) in zip(axes, growth.items(), strict=True):
        reach = 3 * float(single.std())
        options = {"bins": 60, "range": (1 - reach, 1 + reach), "density": True, "alpha": 0.7}
        ax.hist(pair.numpy(), color=COLORS["blue"], label="pairs", **options)
        ax.hist(single.numpy(), color=COLORS["orange"], label="single draws", **options)
        ax.axvline(1, color="0.3", ls=":", lw=1)
        ax.set(title=f"σ = {sigma:g}", xlabel="growth ÷ expectation", yticks=[], yscale="log")
    axes[-1].legend(loc="upper right")
    return fig


def _seeds_alt(alone: Sequence[Mapping[str, float]], paired: Sequence[Mapping[str, float]]) -> str:
    (low, high), (least, most) = ((1e6 * min(min(found.values()) for found in scores),
                                   1e6 * max(max(found.values()) for found in scores)) for scores in (alone, paired))
    return (f"Growth of the loss for noise on each of {len(alone[0])} matrices, a line per seed, in millionths of a "
            f"nat. Left, single draws: the lines cross wildly, from {low:+.0f} to {high:+.0f}. Right, the same draws "
            f"in pairs: the lines lie close together, from {least:+.1f} to {most:+.1f}.")


@figure(_seeds_alt)
def seeds(alone: Sequence[Mapping[str, float]], paired: Sequence[Mapping[str, float]]) -> Figure:
    """The growth {matrix: nats} of each seed, by single draws and by the same draws in pairs."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for ax, scores, title in zip(axes, (alone, paired), ("single draws", "the same draws in pairs"), strict=True):
        for values in scores:
            ax.plot(range(len(values)), [1e6 * v for v in values.values()], "o-", ms=3, lw=1)
        ax.axhline(0, color="0.4", lw=1)
        ax.set(xlabel="matrix, from the first to the last", title=title)
    axes[0].set_ylabel("growth of the loss (10⁻⁶ nats)")
    return fig


def _shares_alt(shares: Mapping[int, Mapping[str, float]]) -> str:
    words = [f"{bits} bits: {min(found.values()):.0%} to {max(found.values()):.0%}" for bits, found in shares.items()]
    return ("What share of the typical change of the loss is first order, a thin line per matrix against the bits, "
            "and their "
            f"mean as a thick one. All rise. {'; '.join(words)}.")


@figure(_shares_alt)
def shares(shares: Mapping[int, Mapping[str, float]]) -> Figure:
    """{bits: {matrix: share of the first order}}."""
    fig, ax = plt.subplots(figsize=(6.5, 3.2))
    places = range(len(shares))
    for name in next(iter(shares.values())):
        ax.plot(places, [found[name] for found in shares.values()], color="0.7", lw=1)
    means = [sum(found.values()) / len(found) for found in shares.values()]
    ax.plot(places, means, "o-", color=COLORS["blue"], lw=3)
    ax.set(xticks=places, xticklabels=list(shares), xlabel="bits that the noise is matched to", ylim=(0, 1),
           ylabel="share of the first order")  # fmt: skip
    return fig


def _rounding_alt(scores: Mapping[int, Mapping[str, float]], real: Mapping[int, Mapping[str, float]],
                  bent: Mapping[str, float]) -> str:  # fmt: skip
    words = []
    for bits, found in real.items():
        below = sum(value < 0 for value in found.values())
        words.append(f"at {bits} bits {below} of {len(found)} matrices make the loss smaller")
    return ("Growth of the loss when one matrix is rounded, against the score, with a dashed diagonal and a marker for "
            f"each kind of matrix. Left and right: {'; '.join(words)}. In the middle, 3 bits without the slope term, "
            f"the dots lie along the diagonal; {sum(value < 0 for value in bent.values())} are below zero.")


@figure(_rounding_alt)
def rounding(scores: Mapping[int, Mapping[str, float]], real: Mapping[int, Mapping[str, float]],
             bent: Mapping[str, float]) -> Figure:  # fmt: skip
    """Score and growth, {bits: {matrix: nats}}, at 3 and 8 bits; `bent` is the growth at 3 bits without the slope."""
    fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.4))
    panels = {"3 bits": (3, real[3], 1e3), "3 bits, without the slope": (3, bent, 1e3), "8 bits": (8, real[8], 1e6)}
    for ax, (title, (bits, growth, unit)) in zip(axes, panels.items(), strict=True):
        _scatter(ax, scores[bits], growth, unit)
        ax.axhline(0, color="0.4", lw=1)
        power = "10⁻³" if bits == 3 else "10⁻⁶"
        ax.set(title=title, xlabel=f"score ({power} nats)")
    axes[0].set_ylabel("growth when rounded, same unit")
    axes[1].legend()
    return fig


def _scatter(ax: Axes, x: Mapping[str, float], y: Mapping[str, float], unit: float = 1.0) -> None:
    """One dot per matrix, a marker per kind, and the diagonal."""
    for kind, marker in KINDS.items():
        parts = [part for part in x if part.endswith(kind)]
        ax.plot([unit * x[part] for part in parts], [unit * y[part] for part in parts], marker, label=kind)
    ends = unit * min(x.values()), unit * max(x.values())
    ax.plot(ends, ends, color="0.6", ls="--", lw=1)


def _damage_alt(score: Mapping[str, float], damage: Mapping[str, Mapping[str, float]],
                found: Mapping[str, RankCorrelation]) -> str:  # fmt: skip
    words = [f"{method}: correlation of the orders {rho.rho:+.2f} ({rho.low:+.2f} to {rho.high:+.2f})"
             for method, rho in found.items()]
    return (f"Log-log scatter plots of the damage of {len(score)} matrices against their score, with a dashed "
            f"diagonal, one "
            f"panel per kind of rounding. {'; '.join(words)}. For nearest the dots follow the diagonal, for gptq most "
            f"are below.")


@figure(_damage_alt)
def damage(score: Mapping[str, float], damage: Mapping[str, Mapping[str, float]],
           found: Mapping[str, RankCorrelation]) -> Figure:  # fmt: skip
    """Damage alone, {rounding: {matrix: nats of divergence}}, against the score {matrix: nats}."""
    fig, axes = plt.subplots(1, len(damage), figsize=(9, 3.6), sharey=True)
    for ax, (method, costs) in zip(axes, damage.items(), strict=True):
        _scatter(ax, score, costs)
        rho = found[method]
        ax.set(xscale="log", yscale="log", xlabel="score (nats)",
               title=f"{method}: {rho.rho:+.2f} ({rho.low:+.2f} to {rho.high:+.2f})")  # fmt: skip
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("damage alone (nats of divergence)")
    axes[0].legend()
    return fig


# ---- Further ----


def _traces_alt(estimates: Mapping[str, Mapping[str, Tensor]]) -> str:
    words = [f"{name}: " + ", ".join(f"{way} {float(values.mean()):.1f} with a spread of {float(values.std()):.1f}"
                                     for way, values in ways.items()) for name, ways in estimates.items()]
    return f"Dots for the estimates of a trace, a panel for each matrix, a column for each way. {'; '.join(words)}."


@figure(_traces_alt)
def traces(estimates: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Estimates of the trace of a matrix's Hessian, {matrix: {way: (draws,)}}."""
    fig, axes = plt.subplots(1, len(estimates), figsize=(8.5, 3.2))
    for ax, (name, ways) in zip(axes, estimates.items(), strict=True):
        for i, (values, color) in enumerate(zip(ways.values(), COLORS.values(), strict=False)):
            ax.plot(torch.full_like(values, i), values, "o", ms=5, color=color, alpha=0.6)
        ax.set(xticks=range(len(ways)), title=name, xlim=(-0.5, len(ways) - 0.5))
        ax.set_xticklabels(list(ways))
    axes[0].set_ylabel("estimate of tr(H)")
    return fig


def _sweep_alt(found: Mapping[str, Mapping[float, float]], step: float) -> str:
    return ("Log-log plot of the growth of the loss against the size of the noise. Pairs follow the dotted parabola "
            "in the "
            f"middle. At the left, in float32, they leave it near one step of float32, {step:.0e} nats, while pairs "
            f"in float64 "
            "stay on it. At the right they rise above it. Single draws follow a flatter line on the left.")


@figure(_sweep_alt)
def sweep(found: Mapping[str, Mapping[float, float]], step: float) -> Figure:
    """|Growth| by the size of the noise over that of the weights: {what: {size: nats}}; one step of float32."""
    fig, ax = plt.subplots(figsize=(7.5, 3.8))
    for (label, values), style in zip(found.items(), (":", "^", "o", "s"), strict=True):
        ax.plot(list(values), [abs(value) for value in values.values()], style, ms=7, label=label)
    ax.axhline(step, color=COLORS["vermillion"], lw=1)
    ax.text(0.02, step * 1.4, "one step of float32", color=COLORS["vermillion"])
    ax.set(xscale="log", yscale="log", xlabel="noise ÷ root mean square of the weights", ylabel="|growth| (nats)")
    ax.legend(loc="upper left")
    return fig


def _order(scores: Mapping[str, float]) -> str:
    return " ".join(name.rpartition(".")[2] for name in sorted(scores, key=scores.get, reverse=True))


def _readings_alt(readings: Mapping[str, Mapping[str, float]]) -> str:
    words = [f"{label}: {_order(scores)}" for label, scores in readings.items()]
    return (f"Line plot of {len(readings)} scores of six blocks, each divided by its largest. The blocks from the "
            f"most to the "
            f"least sensitive: {'; '.join(words)}.")


@figure(_readings_alt)
def readings(readings: Mapping[str, Mapping[str, float]]) -> Figure:
    """Scores {block: value} by several readings of the paper, each over its largest."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    for (label, scores), marker in zip(readings.items(), "v^os", strict=False):
        most = max(map(abs, scores.values()))
        ax.plot(range(len(scores)), [score / most for score in scores.values()], marker=marker, label=label)
    ax.set(xlabel="block", ylabel="score ÷ its largest", ylim=(0, 1.45))
    ax.legend(loc="upper left", ncols=2)
    return fig


@figure(lambda hawq, scores: "Log-log scatter plot of the costs by TDMPQ with matched noise against those of HAWQ-V2, "
                             "at "
        f"{' and '.join(map(str, hawq))} bits. The dots lie along the dashed diagonal, those of the fewest bits above "
        f"it.")
def hawq(hawq: Mapping[int, Mapping[str, float]], scores: Mapping[int, Mapping[str, float]]) -> Figure:
    """Costs {bits: {matrix: nats}} by HAWQ-V2 and by TDMPQ."""
    fig, ax = plt.subplots(figsize=(5, 3.8))
    for (bits, costs), marker in zip(hawq.items(), "os^", strict=False):
        ax.plot(list(costs.values()), [scores[bits][name] for name in costs], marker, label=f"{bits} bits")
    every = [value for costs in hawq.values() for value in costs.values()]
    ax.plot([min(every), max(every)], [min(every), max(every)], color="0.6", ls="--", lw=1)
    ax.set(xscale="log", yscale="log", xlabel="HAWQ-V2 (nats)", ylabel="TDMPQ, matched noise (nats)")
    ax.legend()
    return fig


def _clusters_alt(scores: Mapping[str, float], widths: Mapping[str, int]) -> str:
    words = [f"block {name.rpartition('.')[2]} {score:.3f} nats, {widths[name]} bits" for name, score in scores.items()]
    return f"Bar chart of the sensitivity of six blocks, each bar with the width of its cluster: {'; '.join(words)}."


@figure(_clusters_alt)
def clusters(scores: Mapping[str, float], widths: Mapping[str, int]) -> Figure:
    """The sensitivity of each block, as the paper draws it, with the width of its cluster."""
    fig, ax = plt.subplots(figsize=(7, 3))
    for i, (name, score) in enumerate(scores.items()):
        ax.bar(i, score, color=COLORS[TINT[widths[name]]])
        ax.text(i, score, f"{widths[name]} bits", ha="center", va="bottom")
    ax.margins(y=0.15)
    ax.set(xlabel="block", ylabel="growth of the loss (nats)")
    return fig


def _real_alt(found: Mapping[str, RankCorrelation]) -> str:
    words = [f"{label} {rho.rho:+.2f} ({rho.low:+.2f} to {rho.high:+.2f})" for label, rho in found.items()]
    return ("Correlations of the orders with the damage at 3 bits of 24 matrices of the model of real TinyStories, "
            "dots with "
            f"intervals: {'; '.join(words)}.")


@figure(_real_alt)
def correlations(found: Mapping[str, RankCorrelation]) -> Figure:
    """Rank correlations with their intervals, a row for each label."""
    fig, ax = plt.subplots(figsize=(7, 0.8 + 0.35 * len(found)))
    for place, (label, rho) in enumerate(found.items()):
        color = COLORS["vermillion" if "gptq" in label else "blue"]
        ax.errorbar(rho.rho, place, xerr=[[rho.rho - rho.low], [rho.high - rho.rho]], fmt="o", color=color)
    ax.axvline(0, color="0.4", lw=1)
    ax.set(yticks=range(len(found)), yticklabels=list(found), xlabel="correlation of the orders", xlim=(-1, 1.02))
    ax.invert_yaxis()
    return fig


def _smollm2_alt(rows: Sequence[Mapping[str, str]]) -> str:
    pairs = [(float(row["plus"]) + float(row["minus"])) / 2 for row in rows]
    return (f"Noise matched to 3 bits on {len({row['part'] for row in rows})} blocks of SmolLM2-135M. "
            f"Left: growth "
            f"for single draws and for pairs; pairs from {min(pairs):.3f} to {max(pairs):.3f} nats. Right, log-log: "
            f"the damage "
            "of rounding each block to 3 bits against the mean pair.")


@figure(_smollm2_alt)
def smollm2(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Rows of noise_smollm2.csv: growth by block, alone and in pairs, and the damage against the pairs."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    parts = list(dict.fromkeys(row["part"] for row in rows))
    places = [int(part.rpartition(".")[2]) for part in parts]
    means = dict.fromkeys(parts, 0.0)
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        single = [float(row["plus"]) for row in own]
        pair = [(float(row["plus"]) + float(row["minus"])) / 2 for row in own]
        for part, value in zip(parts, pair, strict=True):
            means[part] += value * len(parts) / len(rows)
        first = seed == "0"
        left.plot(places, single, "^", ms=4, color=COLORS["orange"], label="single" if first else None)
        left.plot(places, pair, "o-", ms=4, lw=1, color=COLORS["blue"], label="pair" if first else None)
    costs = [next(float(row["damage"]) for row in rows if row["part"] == part) for part in parts]
    right.plot(list(means.values()), costs, "o", color=COLORS["vermillion"])
    left.axhline(0, color="0.4", lw=1)
    left.set(xlabel="block", ylabel="growth of the loss (nats)")
    left.legend()
    right.set(xscale="log", yscale="log", xlabel="mean pair (nats)", ylabel="damage (nats)")
    return fig
