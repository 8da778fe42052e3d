"""The figures of notebook 04."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.quant import affine_grid
from nanoq.teach.leaderboard import Row
from nanoq.teach.plots import COLORS, figure

STRIPS = {  # codes that fill three bytes, by their width
    2: [1, 3, 0, 2, 2, 1, 3, 3, 0, 1, 2, 0], 3: [5, 2, 7, 0, 1, 6, 3, 4], 4: [9, 3, 15, 0, 7, 12], 8: [200, 7, 129],
}  # fmt: skip


@figure("Histogram of all weights: a bell around 0, most of it between -0.5 and 0.5, the shaded region in which "
        "round() gives 0. The integers -1 and 1 stand in its tails, -2 and 2 where hardly a weight is "
        "left.")  # fmt: skip
def integers(every: Tensor) -> Figure:
    """All weights (n,), and the integers next to them."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    ax.hist(every.numpy(), bins=300, range=(-2.6, 2.6), color=COLORS["blue"])
    for integer in (-2, -1, 0, 1, 2):
        ax.axvline(integer, color=COLORS["vermillion"], lw=2, ls="--")
    ax.axvspan(-0.5, 0.5, color=COLORS["vermillion"], alpha=0.08)
    ax.set(xlabel="weight", ylabel="how many", title="All weights, and the integers (dashed)")
    return fig


def _lines_alt(lines: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    words = [f"{title}: {len(weights)} weights go to the nearest of {len(values)} values and use "
             f"{len(_nearest(weights, values).unique())} of them" for title, (weights, values) in lines.items()]
    return f"Number lines, weights as dots above, grid values as marks below. {'; '.join(words)}."


def _nearest(weights: Tensor, values: Tensor) -> Tensor:
    return values[(weights[:, None] - values).abs().argmin(1)]  # (n,)


@figure(_lines_alt)
def number_lines(lines: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """For each title: weights (n,) above, grid values (m,) below, a line from each weight to the nearest value."""
    return _draw_lines(lines)


def _draw_lines(lines: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    fig, axes = plt.subplots(len(lines), 1, figsize=(7, 0.7 + 1.45 * len(lines)), sharex=True, squeeze=False)
    for ax, (title, (weights, values)) in zip(axes[:, 0], lines.items(), strict=True):
        heights = torch.tensor([[1.0], [0.0]]).expand(2, len(weights))
        ax.plot(torch.stack((weights, _nearest(weights, values))), heights, color="0.6", lw=0.8)
        ax.plot(weights, torch.ones_like(weights), "o", ms=4, color=COLORS["blue"])
        ax.plot(values, torch.zeros_like(values), "|", ms=18, mew=3, color=COLORS["vermillion"])
        ax.set(yticks=[0, 1], yticklabels=["grid", "weights"], ylim=(-0.4, 1.3), title=title)
        ax.grid(visible=False)
    return fig


@figure("Dot plot of the largest weight of each row of one matrix, in order. Most rows end well below the one marked "
        "row, whose largest weight sets the grid of the whole matrix.")  # fmt: skip
def row_maxima(matrix: Tensor) -> Figure:
    """The largest absolute weight of each row of a matrix (out, in), the largest of all marked."""
    tops = matrix.abs().amax(1)
    fig, ax = plt.subplots(figsize=(7, 2.6))
    ax.plot(tops, ".", ms=4)
    ax.plot(int(tops.argmax()), tops.max(), "o", color=COLORS["vermillion"], label="sets the grid of the matrix")
    ax.set(xlabel="row", ylabel="largest |weight|", ylim=(0, None))
    ax.legend()
    return fig


def _usual_lines(name: str, matrix: Tensor, bits: int) -> dict[str, tuple[Tensor, Tensor]]:
    tops = matrix.abs().amax(1)
    usual = int((tops - tops.median()).abs().argmin())  # a row in the middle of the field
    lines = {}
    for granularity, words in (("tensor", "one grid for the matrix"), ("channel", "one grid per row")):
        codes = torch.arange(2.0**bits).expand(len(matrix), -1)  # (out, 2**bits): every code there is
        values = affine_grid(matrix, bits, granularity=granularity).decode(codes)[usual]
        lines[f"a usual row of {name}, {words}"] = (matrix[usual, :80], values)
    return lines


@figure(lambda *matrix, **bits: _lines_alt(_usual_lines(*matrix, **bits)))
def usual_row(name: str, matrix: Tensor, bits: int) -> Figure:
    """An ordinary row of a matrix (out, in), on the grid of the matrix and on its own."""
    return _draw_lines(_usual_lines(name, matrix, bits))


def _bits(ax: Axes, codes: Sequence[int], bits: int) -> None:
    """One square for each bit of three bytes, coloured by code, with thick lines between bytes."""
    tints = [COLORS["sky"], COLORS["orange"]]
    for at in range(bits * len(codes)):
        code, bit = divmod(at, bits)
        ax.add_patch(plt.Rectangle((at, 0), 1, 1, facecolor=tints[code % 2], alpha=0.6, edgecolor="white"))
        ax.text(at + 0.5, 0.5, codes[code] >> bit & 1, ha="center", va="center", family="monospace")
        if bit == 0:
            ax.text(at + bits / 2, 1.12, f"{codes[code]}", ha="center", fontsize=9)
    ax.vlines([0, 8, 16, 24], -0.15, 1.15, color=COLORS["black"], lw=2.5)
    ax.set(xlim=(-0.2, 24.2), ylim=(-0.2, 1.6), xticks=[], yticks=[0.5], yticklabels=[f"{bits} bits"])
    ax.spines[:].set_visible(False)


@figure("Four strips of 24 bits in three bytes: twelve codes of 2 bits, eight of 3 bits, six of 4 bits, three of 8 "
        "bits. Each code is written above its bits, lowest bit first; 3-bit codes straddle the borders between bytes.")
def bit_strips() -> Figure:
    """How codes of 2, 3, 4 and 8 bits fill three bytes."""
    fig, axes = plt.subplots(len(STRIPS), 1, figsize=(8, 3.8))
    for ax, (bits, codes) in zip(axes, STRIPS.items(), strict=True):
        _bits(ax, codes, bits)
    return fig


@figure("Histograms of the rounding error in steps, one for each width, with a dashed line for the uniform density. At "
        "8 and 4 bits they are flat like it; at 2 bits there is a sharp peak in the middle.")  # fmt: skip
def error_histograms(errors: Mapping[int, Tensor]) -> Figure:
    """Rounding errors (n,) in steps, by the width of the codes."""
    fig, axes = plt.subplots(1, len(errors), figsize=(9, 2.4), sharey=True)
    for ax, (bits, error) in zip(axes, errors.items(), strict=True):
        ax.hist(error.flatten().numpy(), bins=50, range=(-0.5, 0.5), density=True, color=COLORS["blue"])
        ax.axhline(1, color=COLORS["vermillion"], ls="--")
        ax.set(title=f"{bits} bits", xlabel="error (steps)")
    axes[0].set_ylabel("density")
    return fig


@figure("Line plot on a log scale: relative squared error against all bits per weight, for 3-bit and 4-bit codes, "
        "from one grid per matrix over one per row to groups of 64, 32, 16 and 8. One grid per row costs hardly more "
        "and helps; small groups of 3-bit codes cost more than 4-bit codes with one grid per row, and are worse.")
def bought(points: Mapping[int, Mapping[str, tuple[float, float]]]) -> Figure:
    """By width and by granularity: bits per weight, and the relative squared error that they buy."""
    fig, ax = plt.subplots(figsize=(7, 3.6))
    for (bits, places), marker in zip(points.items(), "os", strict=True):
        ax.plot(*zip(*places.values(), strict=True), marker=marker, label=f"{bits}-bit codes")
    for name, place in points[3].items():
        ax.annotate(name, place, textcoords="offset points", xytext=(5, 5), fontsize=9)
    ax.set(xlabel="bits per weight, all counted", ylabel="relative squared error", yscale="log",
           title="Smaller groups or another bit?")
    ax.legend()
    return fig


@figure("Added loss with its interval against the size of the file, for variants of 3 bits and for plain 4 bits. "
        "Clipping lies straight below one grid per row; groups lie lower and further right; plain 4 bits is lowest, "
        "left of groups of 16.")  # fmt: skip
def variants(rows: Mapping[str, Row]) -> Figure:
    """Rows of a leaderboard by name; the one whose name begins with "plain" has a colour of its own."""
    fig, ax = plt.subplots(figsize=(8, 3.6))
    for name, row in rows.items():
        color = COLORS["orange" if name.startswith("plain") else "blue"]
        ends = [[row.delta_nats - row.ci_low], [row.ci_high - row.delta_nats]]
        ax.errorbar(row.bytes / 1e6, row.delta_nats, yerr=ends, fmt="o", capsize=3, color=color)
        place = (8, -11) if "clipped" in name else (8, 4)
        ax.annotate(name, (row.bytes / 1e6, row.delta_nats), textcoords="offset points", xytext=place)
    ax.set(xlabel="size of the file (MB)", ylabel="added loss (nats)", ylim=(0, None), xlim=(1.1, 1.65))
    return fig


@figure("Stacked bars of the files at 8, 4, 3 and 2 bits: codes shrink with the width, while embeddings and norms, "
        "scales, zero points and the header hardly change and become a visible share.")  # fmt: skip
def anatomy(files: Mapping[int, Mapping[str, int]]) -> Figure:
    """The bytes of files by width and by kind."""
    fig, ax = plt.subplots(figsize=(8, 2.8))
    names, start = [f"{bits} bits" for bits in files], [0.0] * len(files)
    for kind, color in zip(next(iter(files.values())), COLORS.values(), strict=False):
        size = [parts[kind] / 1e6 for parts in files.values()]
        ax.barh(names, size, left=start, color=color, label=kind)
        start = [a + b for a, b in zip(start, size, strict=True)]
    ax.set(xlabel="MB (10⁶ bytes)")
    ax.invert_yaxis()
    ax.legend(loc="lower right")
    return fig


@figure("Three bars: the training checkpoint of 32.7 MB, two thirds of which are AdamW's moments, the model in float32 "
        "with 10.9 MB, and the int8 model with 3.0 MB.")  # fmt: skip
def checkpoint_sizes(training: int, float32: int, int8: int) -> Figure:
    """The bytes of a training checkpoint, of its weights, and of the int8 model."""
    fig, ax = plt.subplots(figsize=(8, 2.2))
    ax.barh("training checkpoint", float32 / 1e6, color=COLORS["blue"], label="weights, float32")
    moments = (training - float32) / 1e6
    ax.barh("training checkpoint", moments, left=float32 / 1e6, color="0.8", label="AdamW's moments")
    ax.barh("model, float32", float32 / 1e6, color=COLORS["blue"])
    ax.barh("model, int8", int8 / 1e6, color=COLORS["orange"], label="int8, scales, rest")
    ax.invert_yaxis()
    ax.set(xlabel="MB (10⁶ bytes)")
    ax.legend(loc="lower right")
    return fig
