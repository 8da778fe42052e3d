"""Figures that everybody can read: Okabe-Ito colours, laptop size, and a text for every picture."""

import functools
import html
from collections.abc import Callable
from io import BytesIO

import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import display
from matplotlib.figure import Figure

# Okabe and Ito (2008): distinguishable with every common form of colour blindness. Their yellow is left out
# because it vanishes on white, and black comes last because the axes are black.
COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
}

# The colour of each number format, in every figure of every notebook.
FORMAT_COLORS = {
    "fp32": COLORS["blue"],
    "fp16": COLORS["orange"],
    "bf16": COLORS["green"],
    "e4m3fn": COLORS["vermillion"],
    "e5m2": COLORS["purple"],
    "e2m1": COLORS["sky"],
    "int8": COLORS["black"],
}

_STYLE = {
    "figure.figsize": (7, 4),
    "figure.dpi": 110,
    "figure.facecolor": "white",  # a dark JupyterLab theme would swallow black axes on transparent ground
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 12,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=list(COLORS.values())),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 2,
    "image.cmap": "cividis",  # perceptually uniform, and the same to colour-blind readers
}


def use_style() -> None:
    """Set the course's matplotlib style. Call it once, where a notebook imports its modules."""
    plt.rcParams.update(_STYLE)


def show(fig: Figure, *, alt: str) -> None:
    """Display a figure together with its text alternative, and close it.

    Args:
        fig: The figure.
        alt: What a reader who cannot see the figure has to know: the kind of plot, what is on the axes, and
            what it shows. One or two sentences.

    Raises:
        ValueError: If `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("show() needs alt=...: one or two sentences that tell what the figure shows.")
    png = BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None})  # no version: same figure, same bytes
    plt.close(fig)  # the inline backend draws every figure that is still open once more after the cell
    # `alt` in the metadata of the picture is where IPython and nbconvert's classic template look for it, but
    # JupyterLab 4.6 and nbconvert's lab template print every PNG without an alternative text: only HTML can
    # carry one there. The picture as HTML, <img src="data:...">, would double the size of the notebook, be
    # compared byte by byte by nbval, and be at the mercy of the sanitiser of GitHub's viewer. So the picture
    # stays a plain PNG, which is shown everywhere; its words follow in a folded block, read everywhere.
    display({"image/png": png.getvalue(), "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})
    folded = f"<details><summary>Figure in words</summary>{html.escape(alt)}</details>"
    display({"text/html": folded, "text/plain": alt}, raw=True)


def figure(alt: str | Callable[..., str]) -> Callable[[Callable[..., Figure]], Callable[..., None]]:
    """Decorate a function that draws, so that a notebook shows its figure, with its words, in one line.

    Args:
        alt: The text alternative, or a function that makes it of the arguments of the drawing function.

    Example:
        `@figure("A line rises.")` above `def rising(values):`, which returns a figure; then `rising([1, 2, 3])` in the
        notebook.
    """

    def decorate(draw: Callable[..., Figure]) -> Callable[..., None]:
        @functools.wraps(draw)  # so that `??` shows the code that draws
        def shown(*arguments: object, **options: object) -> None:
            words = alt(*arguments, **options) if callable(alt) else alt
            show(draw(*arguments, **options), alt=words)

        return shown

    return decorate
