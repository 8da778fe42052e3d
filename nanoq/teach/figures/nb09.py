"""The figures of notebook 09."""

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.files import read_results
from nanoq.quant import affine_grid
from nanoq.quant.limits import entropy_coded_scalar, even_grid, gaussian_distortion, lloyd_max
from nanoq.teach.figures.concepts import box
from nanoq.teach.plots import COLORS, figure
from nanoq.teach.widgets import live_figure, show_widget

LEVELS = (2, 3, 4, 8, 16)
RATES = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4)
MEASURED = ("average_bits", "delta_nats", "bits_above_bound")
LINES = {  # method of limit.csv -> its look
    "RTN, row": ("orange", "o-"), "GPTQ, row": ("blue", "s-"), "GPTQ, row, recoded": ("sky", "s--"),
    "GPTQ, equal steps": ("green", "D-"), "GPTQ, WaterSIC steps, in sequence": ("vermillion", "^-"),
    "trellis, L = 12": ("purple", "v-"), "AWQ, clipped, groups of 64": ("black", "x:"), "HQQ, groups of 64":
    ("black", "+:"), "AutoRound, groups of 64": ("black", "*-"), "E8P": ("purple", "P"),
}  # fmt: skip


# ---- section 1: what a bit can buy ----


def _plane(axes: Axes) -> None:
    """The limit and the curve of entropy-coded even steps: error against bits per number, for a Gaussian."""
    rates = [0.04 * i for i in range(106)]
    axes.plot(rates, [gaussian_distortion(rate) for rate in rates], color=COLORS["black"], label="limit: 2^(−2R)")
    axes.fill_between(rates, 1e-3, [gaussian_distortion(rate) for rate in rates], color="0.9")
    axes.plot(RATES, [entropy_coded_scalar(rate).distortion for rate in RATES], color=COLORS["green"],
              label="even steps, entropy-coded")
    axes.set(xlabel="bits per number", ylabel="mean squared error", yscale="log", xlim=(0, 4.2), ylim=(2e-3, 1.2))


@figure("Mean squared error on a log scale against bits per number. The limit is a straight line that falls by a "
        "factor of four per bit; below it nothing is possible. Even steps with entropy coding run a quarter of a bit "
        "to the right of it. Lloyd-Max levels and evenly spaced levels lie further right, the more so the more bits.")
def what_bits_buy(mine: Mapping[str, tuple[float, float]] | None = None) -> Figure:
    """Quantisers of a Gaussian against the limit; `mine` has (bits, mean squared error) of further points."""
    fig, axes = plt.subplots(figsize=(7.5, 4.2))
    _plane(axes)
    axes.plot([math.log2(n) for n in LEVELS], [lloyd_max(n)[1] for n in LEVELS], "s", ms=7, color=COLORS["blue"],
              label="Lloyd–Max levels")
    axes.plot([math.log2(n) for n in LEVELS], [even_grid(n)[1] for n in LEVELS], "x", ms=8, mew=2,
              color=COLORS["orange"], label="evenly spaced levels")
    for (name, (rate, error)), marker in zip((mine or {}).items(), "*PX", strict=False):
        axes.plot(rate, error, marker, ms=13, mfc="none", mew=2, color=COLORS["vermillion"], ls="", label=name)
    axes.legend(loc="lower left", fontsize=9)
    return fig


def _bell(step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of cells about all multiples of a step: their middles, the probability of each under N(0, 1), and its mean."""
    count = math.ceil(6 / step)
    middles = step * torch.arange(-count, count + 1, dtype=torch.float64)
    edges = torch.cat([middles - step / 2, middles[-1:] + step / 2])
    mass = torch.special.ndtr(edges).diff()
    density = (-edges.square() / 2).exp() / math.sqrt(2 * math.pi)
    return middles, mass, -density.diff() / mass.clamp(min=1e-300)


def _rate_and_error(step: float) -> tuple[float, float]:
    _, mass, mean = _bell(step)
    return float(-torch.special.xlogy(mass, mass).sum() / math.log(2)), float(1 - (mass * mean.square()).sum())


def _draw_steps(step: float) -> Figure:
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    middles, mass, _ = _bell(step)
    x = torch.linspace(-4, 4, 401)
    left.plot(x, (-x.square() / 2).exp() / math.sqrt(2 * math.pi), color=COLORS["black"])
    colors = [COLORS["sky"], COLORS["orange"]]
    for k, (middle, share) in enumerate(zip(middles.tolist(), mass.tolist(), strict=True)):
        if abs(middle) < 4:
            inside = torch.linspace(middle - step / 2, middle + step / 2, 20)
            left.fill_between(inside, (-inside.square() / 2).exp() / math.sqrt(2 * math.pi), color=colors[k % 2],
                              alpha=0.5, lw=0)
            if step >= 0.45:
                left.text(middle, 0.43, f"{-math.log2(share):.1f}", ha="center", fontsize=9)
    left.set(xlim=(-4, 4), ylim=(0, 0.48), xlabel="number", title=f"step {step:.2f}: bits of each code", yticks=[])
    rate, error = _rate_and_error(step)
    _plane(right)
    right.plot(rate, error, "*", ms=16, color=COLORS["vermillion"])
    right.set_title(f"{rate:.2f} bits, error {error:.3f}")
    right.legend(loc="lower left", fontsize=9)
    return fig


def _steps_alt(step: float) -> str:
    rate, error = _rate_and_error(step)
    return (f"Left: a bell cut into cells {step:g} wide, with the bits of each code above its cell: few in the "
            f"middle, many in the tails. Right: error against bits per number; a star marks this step at {rate:.2f} "
            f"bits and an error of {error:.3f}, on the curve of entropy-coded even steps.")


@figure(_steps_alt)
def steps_on_a_bell(step: float) -> Figure:
    """Even steps for a Gaussian: what each code takes, and what the step gives in bits and error."""
    return _draw_steps(step)


def steps_slider() -> None:
    """The figure `steps_on_a_bell` with a slider for the step."""
    show_widget(live_figure(
        _draw_steps, step=ipywidgets.FloatSlider(value=1.0, min=0.25, max=3.0, step=0.05, description="step"),
    ), alt="A slider for the step redraws the figure above: the cells under the bell grow or shrink, and the star runs "
           "along the curve of entropy-coded even steps.")  # fmt: skip


# ---- section 2: codes and codewords ----


def _counts(codes: Tensor) -> tuple[Tensor, Tensor]:
    values, counts = torch.unique(codes, return_counts=True)
    return values, counts / counts.sum()


def _histogram_alt(codes: Tensor, width: int) -> str:
    _, share = _counts(codes)
    own = float(-(share * share.log2()).sum())
    seen = share[_seen(share)]
    rare = f"; {len(share) - len(seen)} more codes are too rare to be seen" * (len(share) > len(seen))
    return (f"Bar chart of how often each code occurs: a bell. Above each of {len(seen)} bars stands what the code is "
            f"worth, from {-math.log2(float(seen.max())):.1f} bits in the middle to "
            f"{-math.log2(float(seen.min())):.1f} at the ends{rare}. A dashed line marks the share at which a code is "
            f"worth {width} bits. The mean is {own:.2f} bits.")


def _seen(share: Tensor) -> Tensor:
    """Which of the codes have a bar that can be seen; all, if they are few."""
    return (share > 0.001) | (len(share) < 20)


@figure(_histogram_alt)
def code_histogram(codes: Tensor, width: int) -> Figure:
    """How often each code occurs, and what it is worth in bits; packed codes take `width` bits each."""
    values, share = _counts(codes)
    fig, axes = plt.subplots(figsize=(8, 3.2))
    axes.bar(values, 100 * share, color=COLORS["sky"])
    top = 100 * float(share.max())
    for value, part, seen in zip(values.tolist(), share.tolist(), _seen(share).tolist(), strict=True):
        if seen:
            axes.text(value, 100 * part + 0.02 * top, f"{-math.log2(part):.1f}", ha="center", fontsize=8)
    axes.axhline(100 * 2.0**-width, color=COLORS["vermillion"], ls="--", label=f"worth {width} bits")
    axes.set(xlabel="code − zero point", ylabel="share (%)", ylim=(0, 1.15 * top), title="bits that each code is worth")
    axes.legend()
    return fig


def _tree(counts: Mapping[str, int]) -> dict:
    ties = itertools.count()
    heap = [(count, next(ties), {"name": name, "count": count}) for name, count in counts.items()]
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a + b, next(ties), {"count": a + b, "parts": (right, left)}))
    return heap[0][2]


@figure("A Huffman tree of five codes. The two rarest, 1 and 1, are joined to 2, that and the next rarest to 4, and so "
        "on to the root. Branches are labelled 0 and 1; the word of a code is read from the root down: 0 for the most "
        "frequent, then 10, 110, 1110 and 1111.")  # fmt: skip
def huffman_tree() -> Figure:
    """The tree of five codes with the counts 8, 4, 2, 1, 1, and their codewords."""
    fig, axes = plt.subplots(figsize=(8, 3.8))
    node, x, y, word = _tree({"a": 8, "b": 4, "c": 2, "d": 1, "e": 1}), 0.0, 0.0, ""
    waiting = [(node, x, y, word)]
    while waiting:
        node, x, y, word = waiting.pop()
        if "name" in node:
            box(axes, (x, y), (0.9, 0.55), f"{node['name']}: {node['count']}", marked=True)
            axes.text(x, y - 0.5, word, ha="center", va="center", family="monospace")
            continue
        axes.text(x, y, node["count"], ha="center", va="center", zorder=3,
                  bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "0.4"})
        parts = sorted(node["parts"], key=lambda part: part.get("name", "z"))
        for bit, part in enumerate(parts):
            at = (x - 1.1 if bit == 0 else x + 1.1, y - 1.0)
            axes.plot([x, at[0]], [y, at[1]], color="0.5", lw=1.5, zorder=1)
            axes.text((x + at[0]) / 2 + (-0.2 if bit == 0 else 0.2), (y + at[1]) / 2 + 0.1, bit, family="monospace")
            waiting.append((part, *at, word + str(bit)))
    axes.set(xlim=(-1.8, 5.1), ylim=(-4.8, 0.5), title="code: how often it occurs, and its word")
    axes.axis("off")
    return fig


# ---- section 3: no ends ----


def _usual_row(weight: Tensor) -> int:
    tops = weight.abs().amax(1)
    return int((tops - tops.median()).abs().argmin())


def _grids_alt(weight: Tensor, codes: Tensor, step: float) -> str:
    row = _usual_row(weight)
    return (f"Histogram of the {weight.shape[1]} weights of a usual row, and below it two grids: four values that are "
            f"{float(affine_grid(weight, 2).scale[row]):.3f} apart, as long as the range of the weights, but "
            "shifted by up to half a step, so that 0 is one of them; and "
            f"{len(codes[row].unique())} values that are {step:.3f} apart and may go on.")


@figure(_grids_alt)
def two_grids(weight: Tensor, codes: Tensor, step: float) -> Figure:
    """A usual row of a weight (out, in) with its packed grid of 2 bits, and the values of codes (out, in) of a step."""
    row, packed = _usual_row(weight), affine_grid(weight, 2)
    ended = packed.scale[row] * (torch.arange(4) - packed.zero_point[row])
    fig, axes = plt.subplots(figsize=(8, 3))
    axes.hist(weight[row].numpy(), bins=50, color=COLORS["sky"])
    top = axes.get_ylim()[1]
    for place, (name, values, color) in enumerate((
            ("2 bits per row, packed", ended, "orange"),
            ("equal steps, entropy-coded", step * codes[row].unique(), "green")), start=1):
        axes.plot(values, torch.full((len(values),), -0.16 * place * top), "|", ms=18, mew=3, color=COLORS[color],
                  label=name)
    axes.axhline(0, color="0.5", lw=1)
    axes.set(xlabel="weight", yticks=[], ylim=(-0.5 * top, 1.15 * top))
    axes.legend(loc="upper right", fontsize=9, markerscale=0.5)
    return fig


# ---- section 4: above the bound ----


def _above_alt(above: Mapping[str, Sequence[float]]) -> str:
    words = [f"{name} {sum(bits) / len(bits):.2f}" for name, bits in above.items()]
    return ("Bits above the bound, a dot per layer, a line for each method with its mean: " + ", ".join(words)
            + ". A dashed line marks 0.25, which any scalar quantiser pays at high rates.")


@figure(_above_alt)
def above_bound(above: Mapping[str, Sequence[float]]) -> Figure:
    """Bits above the bound of all layers, by method, the furthest first."""
    above = dict(sorted(above.items(), key=lambda item: -sum(item[1]) / len(item[1])))
    fig, axes = plt.subplots(figsize=(8, 0.8 + 0.55 * len(above)))
    for place, (bits, color) in enumerate(zip(above.values(), itertools.cycle(list(COLORS.values())[:6]))):
        axes.plot(bits, [place] * len(bits), "o", ms=6, alpha=0.5, color=color)
        axes.plot(sum(bits) / len(bits), place, "|", ms=22, mew=3, color=color)
    axes.axvline(math.log2(2 * math.pi * math.e / 12) / 2, color="0.4", ls="--", lw=1.2)
    axes.set(yticks=range(len(above)), yticklabels=list(above), xlabel="bits per weight above the bound",
             ylim=(len(above) - 0.5, -0.5), xlim=(0, None))
    return fig


def limit_rows() -> list[dict[str, str]]:
    """The shipped measurements on real TinyStories: data/results/tinystories/limit.csv."""
    return read_results("tinystories/limit")


@figure("Added loss on a log scale against bits per parameter of the whole file, real TinyStories. From above: "
        "rounding to nearest, then HQQ and AWQ, GPTQ, the same files recoded, which lie further left, AutoRound, the "
        "trellis, equal steps with entropy coding, and lowest WaterSIC in sequence. Every curve falls to the right.")
def the_board() -> Figure:
    """The methods of limit.csv, by bits per parameter of the whole file."""
    fig, axes = plt.subplots(figsize=(9.5, 4.6))
    rows = limit_rows()
    for method, (color, look) in LINES.items():
        mine = sorted((float(row["average_bits"]), float(row["delta_nats"])) for row in rows if row["method"] == method)
        axes.plot(*zip(*mine, strict=True), look, color=COLORS[color], label=method, ms=6)
    axes.set(xlabel="bits per parameter, whole file", ylabel="added loss (nats per character)", yscale="log",
             title="Real TinyStories, 128 windows, the same for all")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return fig
