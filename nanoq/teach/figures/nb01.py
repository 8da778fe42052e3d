"""The figures of notebook 01."""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.numbers import BLOCKS, CODEBOOKS, FLOATS, FloatFormat
from nanoq.teach.plots import COLORS, FORMAT_COLORS, figure
from nanoq.teach.widgets import FORMATS, bit_explorer, bit_figure, read, show_widget

# ---- bits ----


def _bits_in_words(name: str, pattern: int) -> str:
    reading = read(FORMATS[name], pattern)
    fields = "".join(f" {part.capitalize()}: {words}." for part, words in reading.fields.items())
    return (f"The bits {pattern:0{FORMATS[name].bits}b} in boxes, read as {name}; below each box stands what it counts."
            f"{fields} The value is {reading.number} ({reading.kind}).")


@figure(_bits_in_words)
def bits(name: str, pattern: int) -> Figure:
    """The bits of a pattern in boxes, what each counts in the format, and what it comes to."""
    return bit_figure(name, pattern)


def explorer(name: str, value: float) -> None:
    """The bits of a number as buttons, which show what a change of any bit does."""
    show_widget(bit_explorer(name, value), alt="(live in Jupyter: the bits of a number as buttons; sign, exponent, "
                "fraction and value follow, in any format. The picture above is a still of it.)")


def _on_circle(axes: Axes, pattern: float, radius: float, text: str, **style: object) -> tuple[float, float]:
    """Write at the place of a pattern on a clock with 16 hours, and return the place."""
    angle = math.pi / 2 - 2 * math.pi * pattern / 16
    place = radius * math.cos(angle), radius * math.sin(angle)
    axes.text(*place, text, ha="center", va="center", **style)
    return place


@figure("The 16 patterns of four bits on a circle, clockwise. Inside the bits, then the signed value, outside the "
        "unsigned one. On the right half the two agree, 0 to 7; on the left half they differ by 16: -8 to -1 against 8 "
        "to 15. From 7 one step clockwise leads to -8.")  # fmt: skip
def number_circle(signed: Callable[[str], int]) -> Figure:
    """All patterns of four bits, read as unsigned, and read by `signed`."""
    fig, axes = plt.subplots(figsize=(7, 5))
    for pattern in range(16):
        digits = f"{pattern:04b}"
        value = int(signed(digits))
        color = COLORS["vermillion" if value < 0 else "blue"]
        _on_circle(axes, pattern, 0.68, digits, family="monospace", size=9)
        _on_circle(axes, pattern, 0.95, f"{value}".replace("-", "−"), color=color, weight="bold", size=14)
        _on_circle(axes, pattern, 1.18, str(pattern), color="0.45")
    for cut, text, color in ((7.5, "signed: cut here", COLORS["vermillion"]), (15.5, "unsigned: cut here", "0.45")):
        ends = [_on_circle(axes, cut, radius, "") for radius in (0.8, 1.32)]
        axes.plot(*zip(*ends, strict=True), color=color, ls=":")
        _on_circle(axes, cut, 1.42, text, color=color)
    axes.annotate("", (0.3, 0.2), (-0.3, 0.2), arrowprops={"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.4"})
    axes.text(0, 0, "+1: one step\nclockwise", ha="center", va="center")
    axes.text(-2.1, 1.3, "outside: unsigned\nbold: signed\ninside: the bits", va="top")
    axes.set(xlim=(-2.1, 2.1), ylim=(-1.5, 1.5), aspect="equal")
    axes.axis("off")
    return fig


# ---- floats ----


@figure("Two number lines around zero. Without subnormals the values stop at a distance from zero, which leaves a hole "
        "with no zero in it. With subnormals, drawn in orange-red, values run through zero at an even distance.")
def near_zero() -> Figure:
    """The values of a toy float with 3 exponent and 2 fraction bits, without and with subnormals."""
    with_them = FloatFormat("toy", 3, 2, specials="none")
    without = FloatFormat("toy", 3, 2, specials="none", subnormals=False)
    fig, axes = plt.subplots(figsize=(7, 1.9))
    for y, fmt in enumerate((without, with_them)):
        values = fmt.values().unique()
        low = (values.abs() < fmt.min_normal) & fmt.subnormals
        for part, color in ((low, "vermillion"), (~low, "blue")):
            axes.plot(values[part], torch.full_like(values[part], y), "|", ms=22, mew=2.5, color=COLORS[color])
    axes.set(xlim=(-1.05, 1.05), ylim=(-0.6, 1.6), yticks=[0, 1], yticklabels=["without", "with subnormals"])
    axes.grid(visible=False)
    return fig


@figure("Two plots of the 127 positive values of e4m3fn over their patterns. Left, value: straight pieces of eight "
        "dots, from the second on each twice as steep as the one before. Right, logarithm of the value: nearly a "
        "straight line, except for the seven subnormal values at its lower end, which fall off steeply.")
def patterns_in_order() -> Figure:
    """All positive values of e4m3fn in the order of their patterns."""
    values = FLOATS["e4m3fn"].values()[: 2**7 - 1]  # (127,): from 0 on; the last pattern is NaN
    color = FORMAT_COLORS["e4m3fn"]
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    left.plot(values, ".", ms=4, color=color)
    left.set(xlabel="pattern", ylabel="value", title="e4m3fn: a larger step in each binade")
    right.plot(range(1, 127), values[1:].log2(), ".", ms=4, color=color)
    right.set(xlabel="pattern", ylabel="log₂ of the value", title="nearly a straight line")
    right.axvspan(0, 7.5, color="0.5", alpha=0.15, lw=0)
    right.text(10, -9, "subnormal", color="0.3")
    return fig


def _significant(fmt: FloatFormat, power: int) -> int:
    """Significant bits of a number of size 2**power: from its own power of two down to the ulp there."""
    return power - int(math.log2(fmt.ulp(2.0**power).item())) + 1


@figure("Significant bits against the size of a number as a power of two. Each float format is a ramp, its subnormals, "
        "and then a level line: fp32 at 24 bits from -149 to 127, bf16 equally far at 8 bits, fp16 at 11 bits from -24 "
        "to 15, e4m3fn at 4 bits, e5m2 at 3 bits. int8 is a ramp without a level.")
def how_far_and_how_fine() -> Figure:
    """How many significant bits a number of each size has, in each format."""
    fig, axes = plt.subplots(figsize=(7, 4))
    for name in ("fp32", "fp16", "bf16", "e4m3fn", "e5m2"):
        fmt, color = FLOATS[name], FORMAT_COLORS[name]
        powers = range(int(math.log2(fmt.min_subnormal)), math.frexp(fmt.max)[1])
        axes.plot(powers, [_significant(fmt, power) for power in powers], color=color)
        height = fmt.mantissa + 1 + {"e4m3fn": 0.3, "e5m2": -0.3}.get(name, 0)
        axes.text(powers[-1] + 3, height, name, color=color, va="center", weight="bold")
    axes.plot(range(7), range(1, 8), color=FORMAT_COLORS["int8"], ls="--")
    axes.text(8, 7.2, "int8", va="center", weight="bold")
    axes.set(xlabel="size of the number, as a power of two", ylabel="significant bits", ylim=(0, 26), xlim=(-155, 155),
             title="How far, and how fine")
    return fig


@figure("Number lines between -8 and 8. int4: 16 values evenly spaced. nf4 times 8: 16 values, denser near zero. e2m1: "
        "15 values, in groups whose spacing doubles. e2m3 and e3m2 with 63 values and e4m3fn with 253 are the same "
        "pattern refined, crowded near zero; e3m2 reaches to 28 and e4m3fn to 448.")
def number_lines() -> Figure:
    """Where the values of the small formats lie."""
    rows = {"int4": torch.arange(-8.0, 8), "nf4 × 8": 8 * CODEBOOKS["nf4"]}
    rows |= {name: CODEBOOKS[name] for name in ("e2m1", "e2m3", "e3m2", "e4m3fn")}
    fig, axes = plt.subplots(figsize=(7, 3.6))
    for y, (name, values) in enumerate(reversed(rows.items())):
        inside = values[values.abs() <= 8]
        axes.plot(inside, torch.full_like(inside, y), "|", ms=18, mew=1.2, color=FORMAT_COLORS.get(name, "0.35"))
        ends = f"{values.min():g} to {values.max():g}".replace("-", "−")
        axes.text(8.5, y, f"{len(values)} values,\n{ends}", va="center", size=9)
    axes.set(yticks=range(len(rows)), yticklabels=list(rows)[::-1], xlim=(-8.4, 12), ylim=(-0.6, 5.6),
             xticks=range(-8, 9, 2), title="Where the representable values lie, between −8 and 8")
    axes.grid(visible=False)
    return fig


# ---- blocks ----


@figure("Weights of a row as dots, in three blocks of 32. Thin lines across each block are the 15 values that it "
        "offers, dense near zero; a mark on one of them shows what each weight becomes. Above each block stands its "
        "scale, a power of two.")
def blocks(row: Tensor, mxfp4: Callable[[Tensor], Tensor]) -> Figure:
    """A row of 96 weights, the values that MXFP4 offers to each block, and what `mxfp4` makes of it."""
    fmt = BLOCKS["mxfp4"]
    scales, _ = fmt.scales(row[None])
    fig, axes = plt.subplots(figsize=(8, 3.6))
    for i, scale in enumerate(scales[0]):
        axes.hlines(fmt.codebook * scale, 32 * i - 0.5, 32 * i + 31.5, color=FORMAT_COLORS["e2m1"], lw=1)
        axes.text(32 * i + 15.5, 0.97, f"scale $2^{{{int(math.log2(scale))}}}$", ha="center", va="top",
                  transform=axes.get_xaxis_transform())
    rounded = torch.cat([torch.as_tensor(mxfp4(block)) for block in row.split(32)])  # (96,)
    axes.plot(row, "o", ms=4, color=COLORS["blue"], label="weight")
    axes.plot(rounded, "_", ms=7, mew=2, color=COLORS["vermillion"], label="in MXFP4")
    axes.set(xlabel="place in the row", ylabel="value", ylim=(None, 1.35 * float(row.max())))
    axes.grid(visible=False)
    axes.legend(ncols=2, loc="lower right")
    return fig


@figure("The S-shaped distribution function of the normal distribution. Sixteen horizontal lines at even steps of "
        "probability meet the curve; from there vertical lines lead down to the values of NF4, dense near zero and "
        "wide apart at both ends.")
def nf4_places(probability: Tensor) -> Figure:
    """How steps of probability (16,) become steps of value."""
    x, at = torch.linspace(-2.6, 2.6, 200, dtype=torch.float64), torch.special.ndtri(probability)
    fig, axes = plt.subplots(figsize=(7, 3.4))
    axes.plot(x, torch.special.ndtr(x), color="0.4")
    axes.hlines(probability, -2.6, at, color=COLORS["sky"], lw=1)
    axes.vlines(at, 0, probability, color=COLORS["blue"], lw=1.2)
    axes.plot(at, torch.zeros_like(at), "|", ms=16, mew=2.5, color=COLORS["vermillion"])
    axes.set(xlabel="weight (standard deviations)", ylabel="share of weights below", xlim=(-2.6, 2.6),
             ylim=(-0.04, 1), title="NF4: even steps of probability, uneven steps of value")
    axes.grid(visible=False)
    return fig


@figure("Bar chart of the share of normally distributed numbers that get each of the 16 NF4 codes. The middle codes "
        "stand above the dashed line of equal use, the outer ones fall off below it.")
def nf4_use(used: Tensor) -> Figure:
    """The share of the numbers that get each code of NF4, (16,)."""
    fig, axes = plt.subplots(figsize=(7, 2.4))
    axes.bar(range(16), used, color=COLORS["blue"])
    axes.axhline(1 / 16, color=COLORS["vermillion"], ls="--")
    axes.set(xlabel="code of NF4", ylabel="share of numbers", xticks=range(16),
             title="How often each code is used (dashed: equally)")
    return fig
