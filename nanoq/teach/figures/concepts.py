"""Three pictures of ideas that return throughout the course."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from nanoq.teach.plots import COLORS, figure

KEPT, QUANTISED = "0.93", "#FBE3C0"  # grey, and a light orange that black can be read on


def box(axes: Axes, at: tuple[float, float], size: tuple[float, float], label: str, *, marked: bool = False) -> None:
    """A box around `at` with its label; one that is marked has a colour and a thick edge."""
    (x, y), (width, height) = at, size
    axes.add_patch(FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=QUANTISED if marked else KEPT, edgecolor=COLORS["vermillion"] if marked else "0.4",
        lw=2.5 if marked else 1.2, zorder=2))  # fmt: skip
    axes.text(x, y, label, ha="center", va="center", zorder=3)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **look: object) -> None:
    """An arrow from `start` to `end`; `look` is what `arrowprops` takes."""
    style = {"arrowstyle": "-|>", "color": "0.3", "lw": 1.5, "shrinkA": 0, "shrinkB": 0} | look
    axes.annotate("", end, start, arrowprops=style, zorder=1)


def plus(axes: Axes, at: tuple[float, float]) -> None:
    """A plus in a circle around `at`: two streams are added."""
    axes.text(*at, "+", ha="center", va="center", fontsize=15, zorder=3,
              bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "0.3"})


def _lines_alt(weights: Sequence[float], scale: float, low: int, high: int, zero_point: int | None = None) -> str:
    zero = "" if zero_point is None else f" The zero point, {zero_point}, is the code of the value 0."
    ends = (low - (zero_point or 0) - 0.5) * scale, (high - (zero_point or 0) + 0.5) * scale
    inside = all(ends[0] <= weight <= ends[1] for weight in weights)
    clamped = "" if inside else " A weight beyond the last code goes to that one, which is called clamping."
    return (f"Two horizontal lines. On the upper one, real numbers, lie the weights {', '.join(map(str, weights))} as "
            f"dots; on the lower one the codes {low} to {high}, each below its value, {scale:g} apart: the scale. An "
            f"arrow leads from each weight to the nearest code.{clamped}{zero}")


@figure(_lines_alt)
def float_line_and_code_line(
    weights: Sequence[float], scale: float, low: int, high: int, zero_point: int | None = None
) -> Figure:
    """How weights become codes: divided by the scale, moved by the zero point (if there is one), rounded, clamped."""
    zero = zero_point or 0
    fig, axes = plt.subplots(figsize=(8, 3.2))
    value = {code: (code - zero) * scale for code in range(low, high + 1)}
    left, right = min(*weights, value[low]) - 0.6 * scale, max(*weights, value[high]) + 0.6 * scale
    for y, name in ((1, "weights"), (0, "codes")):
        axes.annotate("", (right, y), (left, y), arrowprops={"arrowstyle": "->", "color": "0.5", "lw": 1.5})
        axes.text(left - 0.15 * scale, y, name, ha="right", va="center")
    for code, x in value.items():
        axes.plot([x, x], [0.94, 1.06], color="0.5", lw=1.5)
        axes.text(x, 1.14, f"{x:g}", ha="center", va="bottom", color="0.35", fontsize=10)
        face = COLORS["green"] if zero_point is not None and code == zero else KEPT
        axes.text(x, 0, f"{code}", ha="center", va="center", zorder=4, color="white" if face != KEPT else "black",
                  bbox={"boxstyle": "circle,pad=0.25", "facecolor": face, "edgecolor": "0.4"})
    for weight in weights:
        code = min(max(round(weight / scale) + zero, low), high)
        clamped = not value[low] - scale / 2 <= weight <= value[high] + scale / 2
        color = COLORS["vermillion" if clamped else "blue"]
        axes.plot(weight, 1, "s" if clamped else "o", color=color, ms=8, zorder=5)
        arrow(axes, (weight, 0.95), (value[code], 0.17), color=color, ls="--" if clamped else "-")
        if clamped:
            axes.text(weight, 0.55, " clamped", color=color, ha="left", va="center", fontweight="bold")
    start, end = value[low], value[low + 1]
    axes.annotate("", (end, 1.42), (start, 1.42), arrowprops={"arrowstyle": "<->", "color": "black", "lw": 1.5})
    axes.text((start + end) / 2, 1.48, f"scale {scale:g}", ha="center", va="bottom")
    if zero_point is not None:
        axes.text(0, -0.26, f"zero point {zero_point}: the code of 0", ha="center", va="top", color=COLORS["green"],
                  fontweight="bold")
    axes.set(xlim=(left - 1.2 * scale, right + 1.1 * scale), ylim=(-0.55, 1.75))
    axes.axis("off")
    return fig


@figure("A block of the GPT from left to right. The stream x goes through a norm, the matrix attention.qkv, attention "
        "and the matrix attention.out, and is added to x; the sum goes through a norm, the matrix mlp.up, a GELU and "
        "the matrix mlp.down, and is added again. The four matrices are marked: they are quantised, and all else stays "
        "as it is.")  # fmt: skip
def gpt_block(width: int = 192) -> Figure:
    """One block of the GPT, with the four matrices that are quantised marked; the shapes are (out, in)."""
    fig, axes = plt.subplots(figsize=(9, 4.4))
    rows = (
        (1.7, ("norm", "attention.qkv", "attention", "attention.out"), ((3 * width, width), (width, width))),
        (0.0, ("norm", "mlp.up", "GELU", "mlp.down"), ((4 * width, width), (width, 4 * width))),
    )
    for y, names, shapes in rows:
        left = list(shapes)
        for x, name in zip((1.6, 3.4, 5.2, 7.0), names, strict=True):
            marked = "." in name
            label = f"{name}\n{' × '.join(map(str, left.pop(0)))}" if marked else name
            box(axes, (x, y), (1.5 if marked else 1.2, 0.7), label, marked=marked)
        for start, end in ((0.3, 1.0), (2.2, 2.65), (4.15, 4.6), (5.8, 6.25), (7.75, 8.27)):
            arrow(axes, (start, y), (end, y))
        plus(axes, (8.45, y))
        axes.plot([0.6, 0.6, 8.45], [y, y + 0.62, y + 0.62], color="0.3", lw=1.5, zorder=1)
        arrow(axes, (8.45, y + 0.62), (8.45, y + 0.22))
    axes.text(0.2, 1.7, "x", ha="right", va="center", fontsize=13)
    axes.plot([8.45, 8.45, 0.0, 0.0, 0.3], [1.5, 0.96, 0.96, 0.0, 0.0], color="0.3", lw=1.5, zorder=1)
    arrow(axes, (8.67, 0.0), (9.25, 0.0))
    axes.text(9.3, 0.0, "next\nblock", ha="left", va="center")
    for x, marked, label in ((1.9, True, "quantised"), (4.4, False, "is not quantised")):
        box(axes, (x - 0.35, -0.85), (0.5, 0.3), "", marked=marked)
        axes.text(x, -0.85, label, va="center")
    axes.set(xlim=(-0.2, 10.0), ylim=(-1.1, 2.5))
    axes.axis("off")
    return fig


@figure("Data flow through a QuantLinear. From the file come packed codes, scales and zero points. The codes are "
        "unpacked, the zero point is taken off and the difference multiplied by the scale: a float weight, made anew "
        "in every call. It multiplies the input x, the bias is added, and y comes out, all in float.")  # fmt: skip
def quant_linear() -> Figure:
    """What a layer with packed codes does when it is called."""
    fig, axes = plt.subplots(figsize=(9, 3.6))
    box(axes, (1.2, 1.6), (1.7, 0.75), "packed codes\nuint8", marked=True)
    box(axes, (3.7, 1.6), (1.5, 0.75), "codes\n0 … 2ᵇ − 1")
    box(axes, (7.6, 1.6), (2.1, 0.75), "weight, made anew\nfloat32 (out, in)")
    box(axes, (5.5, 2.75), (2.6, 0.55), "scales, zero points", marked=True)
    arrow(axes, (2.05, 1.6), (2.95, 1.6))
    axes.text(2.5, 1.68, "unpack", ha="center", va="bottom", fontsize=10)
    arrow(axes, (4.45, 1.6), (6.55, 1.6))
    arrow(axes, (5.5, 2.47), (5.5, 1.68))
    axes.text(5.5, 1.52, "(code − zero point)\n× scale", ha="center", va="top", fontsize=10)
    box(axes, (7.6, 0.3), (2.1, 0.6), "x @ weightᵀ + bias")
    arrow(axes, (7.6, 1.22), (7.6, 0.6))
    arrow(axes, (5.6, 0.3), (6.55, 0.3))
    axes.text(5.5, 0.3, "input x\nfloat (…, in)", ha="right", va="center")
    arrow(axes, (8.65, 0.3), (9.1, 0.3))
    axes.text(9.15, 0.3, "output y\nfloat\n(…, out)", ha="left", va="center")
    box(axes, (0.6, 0.3), (0.5, 0.3), "", marked=True)
    axes.text(0.95, 0.3, "in the file", va="center")
    axes.set(xlim=(0.2, 10.2), ylim=(-0.15, 3.15))
    axes.axis("off")
    return fig
