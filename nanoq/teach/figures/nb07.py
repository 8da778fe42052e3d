"""The figures of notebook 07."""

from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.quant import Grid, nearest
from nanoq.teach.leaderboard import Row, plot_rows
from nanoq.teach.plots import COLORS, figure
from nanoq.teach.widgets import live_figure, show_widget

PAIR = torch.tensor([0.45, 0.40], dtype=torch.float64)  # the two weights of section 2
KINDS = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")


def _heat(axes: Axes, values: Tensor, limit: float) -> None:
    axes.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.grid(visible=False)


# ---- what a layer reads ----


def _inputs_alt(hessian: Tensor) -> str:
    energy = torch.linalg.eigvalsh(hessian).flip(0)
    enough = int((energy.cumsum(0) < 0.9 * energy.sum()).sum()) + 1
    return ("Left: heat map of how alike 48 of the inputs are, with strong positive and negative patches off the "
            f"diagonal. Right: share of the inputs' energy in the strongest directions; {enough} of {len(hessian)} "
            "reach the dashed line at 90 per cent.")


@figure(_inputs_alt)
def inputs(hessian: Tensor) -> Figure:
    """How alike the inputs of a layer are, and how few directions they take, from the mean (in, in) of x x^T."""
    sizes = hessian.diagonal().sqrt()
    alike = hessian / sizes / sizes[:, None]  # (in, in): 1 on the diagonal
    energy = torch.linalg.eigvalsh(hessian).flip(0)  # (in,), largest first
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    _heat(left, alike[:48, :48], 1)
    left.set(title="how alike 48 of the inputs are")
    fig.colorbar(left.images[0], ax=left, label="mean product, in units of their size")
    right.plot(range(1, len(hessian) + 1), 100 * energy.cumsum(0) / energy.sum())
    right.axhline(90, color="0.6", ls="--", lw=1)
    right.set(xlabel="directions, strongest first", ylabel="share of the inputs' energy (%)", ylim=(0, 103))
    return fig


# ---- two weights ----


def _pair_hessian(rho: float) -> Tensor:
    return torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)


def _pair_error(points: Tensor, rho: float) -> Tensor:
    """Output error of rounding the two weights to each of the points (n, 2): (n,)."""
    change = PAIR - points
    return ((change @ _pair_hessian(rho)) * change).sum(1)


def _pair_choice(rho: float) -> tuple[float, Tensor]:
    """The second weight's target once the first one is 0, and the two points: to nearest, and GPTQ's (2, 2)."""
    goal = float(PAIR[1] + PAIR[0] * rho)
    return goal, torch.tensor([[0, 0], [0, round(goal)]], dtype=torch.float64)


def _draw_ellipses(rho: float) -> Figure:
    fig, ax = plt.subplots(figsize=(7, 4.4))
    axis = torch.linspace(-1.5, 2.5, 161, dtype=torch.float64)
    values = _pair_error(torch.cartesian_prod(axis, axis), rho).view(161, 161).T
    ax.contour(axis, axis, values, levels=[0.05, 0.2, 0.5, 1, 2, 4], colors="0.7", linewidths=1)
    whole = torch.arange(-1.0, 3).double()
    ax.plot(*torch.cartesian_prod(whole, whole).T, "o", ms=5, color="0.35")
    goal, points = _pair_choice(rho)
    ax.axline(PAIR.tolist(), (float(PAIR[0]) - 1, float(PAIR[1]) + rho), color=COLORS["blue"], lw=1.5, ls="--",
              label="best second weight")
    ax.axvline(0, color=COLORS["sky"], lw=1, label="first weight 0")
    ax.plot(0, goal, "D", color=COLORS["blue"], ms=7, label=f"where they meet: {goal:.2f}")
    ax.plot(*PAIR, "*", ms=15, color=COLORS["black"], label="weight")
    for point, error, mark, size, color, name in zip(points, _pair_error(points, rho), "so", (12, 14),
                                                     ("vermillion", "green"), ("to nearest", "GPTQ"), strict=True):
        ax.plot(*point, mark, ms=size, mfc="none", mew=2, color=COLORS[color], label=f"{name}, error {error:.2f}")
    ax.set(xlabel="first weight", ylabel="second weight", title=f"correlation {rho:.2f}", xlim=(-1.4, 2.4),
           ylim=(-1.4, 2.4), aspect="equal")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def _ellipses_alt(rho: float) -> str:
    goal, points = _pair_choice(rho)
    plain, chosen = _pair_error(points, rho).tolist()
    return (f"Whole numbers on a grid, with ellipses of equal error around the weight at 0.45, 0.40; correlation "
            f"{rho:g}. A dashed line through the weight meets the line of first weight 0 at {goal:.2f}. GPTQ takes the "
            f"point 0, {int(points[1, 1])} nearest to that, with error {chosen:.2f}; the point nearest to the weight "
            f"is 0, 0, with error {plain:.2f}.")


@figure(_ellipses_alt)
def ellipses(rho: float) -> Figure:
    """The error around two weights whose inputs have this correlation, and what RTN and GPTQ choose."""
    return _draw_ellipses(rho)


def ellipse_slider() -> None:
    """The figure `ellipses` with a slider for the correlation."""
    slider = ipywidgets.FloatSlider(value=0.9, min=-0.95, max=0.95, step=0.05, description="correlation")
    show_widget(live_figure(_draw_ellipses, rho=slider), alt="A slider for the correlation of the two inputs redraws "
                "the figure above: it turns the ellipses, tilts the dashed line, and moves GPTQ's choice.")


# ---- column by column ----


def _errors_so_far(states: Tensor, hessian: Tensor) -> Tensor:
    change = states - states[0]  # (in + 1, out, in)
    return ((change @ hessian) * change).sum((1, 2))


def _nearest_so_far(states: Tensor, grid: Grid) -> Tensor:
    """The states (in + 1, out, in) of rounding to nearest, column by column."""
    weight = states[0]
    done = torch.arange(len(states))[:, None, None] > torch.arange(weight.shape[1])
    return torch.where(done, grid.decode(nearest(weight, grid)), weight)


def _walk_alt(states: Tensor, grid: Grid, hessian: Tensor) -> str:
    mine, plain = (_errors_so_far(walk, hessian) for walk in (states, _nearest_so_far(states, grid)))
    half = len(states) // 2
    return ("Left: heat map of one row. Each line is one step further; right of the diagonal the weights that are "
            "still free have moved, left of it they are settled and their colours stay. Right: the error of all "
            f"outputs against the columns rounded. GPTQ's grows slowly, to {mine[half]:.2f} after half of the columns "
            f"and {mine[-1]:.2f} at the end; that of rounding to nearest to {plain[half]:.2f} and {plain[-1]:.2f}.")


@figure(_walk_alt)
def walk(states: Tensor, grid: Grid, hessian: Tensor) -> Figure:
    """How errors are made up for: the weight before and after each column, (in + 1, out, in)."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(1, 1.1))
    moved = (states - states[0])[:, 0] / grid.scale[0]  # (in + 1, in), in steps
    _heat(left, moved, 0.75)
    left.plot([-0.5, moved.shape[1] - 0.5], [0.5, len(moved) - 0.5], color="black", lw=1)
    left.set(title="one row", xlabel="column", ylabel="columns rounded")
    fig.colorbar(left.images[0], ax=left, label="moved by (steps)")
    for name, way, color in (("rounding to nearest", _nearest_so_far(states, grid), "vermillion"),
                             ("GPTQ", states, "green")):
        right.plot(_errors_so_far(way, hessian), color=COLORS[color], label=name)
    right.set(title="all rows", xlabel="columns rounded", ylabel="error of the outputs so far", ylim=(0, None))
    right.legend()
    return fig


@figure(lambda factor, k: f"Left: heat map of the upper triangular factor with column {k} above the diagonal framed. "
        f"Right: bars of that column divided by its diagonal entry, with which the errors of columns 0 to {k - 1} "
        f"enter the target of column {k}; some are positive and some negative.")
def factor(factor: Tensor, k: int) -> Figure:
    """The factor C (in, in), and what errors of earlier columns add to the target of column k."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3))
    size = min(2 * k, len(factor))
    _heat(left, factor[:size, :size], float(factor[:size, :size].abs().max() / 4))
    left.add_patch(plt.Rectangle((k - 0.5, -0.5), 1, k, fill=False, ec=COLORS["vermillion"], lw=2))
    left.plot(k, k, "s", color=COLORS["vermillion"], ms=6)
    left.set(title=f"a corner of C: column {k} is marked", xlabel="k", ylabel="j")
    right.bar(range(k), factor[:k, k] / factor[k, k], color=COLORS["blue"])
    right.set(title=f"share of each error in target {k}", xlabel="column j")
    return fig


# ---- the whole model ----


def _by_kind(names: Sequence[str]) -> list[int]:
    return sorted(range(len(names)), key=lambda i: KINDS.index(names[i].split(".", 2)[2]))


def _shares_alt(names: Sequence[str], shares: dict) -> str:
    words = [f"{_label(key)}: from {values.min():.2f} to {values.max():.2f}" for key, values in shares.items()]
    return (f"Dot plot of output error over that of rounding to nearest, for {len(names)} matrices, ordered by kind. "
            f"{'; '.join(words)}. A dashed line marks 1.")


def _label(key: int | str) -> str:
    return f"{key} bits" if isinstance(key, int) else key


@figure(_shares_alt)
def shares(names: Sequence[str], shares: dict) -> Figure:
    """Output errors over those of rounding to nearest, (n,) for each width or name, by the kind of matrix."""
    fig, ax = plt.subplots(figsize=(7.5, 3.4))
    order = _by_kind(names)
    for (key, values), marker in zip(shares.items(), "os^D", strict=False):
        ax.plot(range(len(names)), values[order], marker, ms=5, label=_label(key))
    count = len(names) // len(KINDS)
    for edge in range(1, len(KINDS)):
        ax.axvline(edge * count - 0.5, color="0.8", lw=1)
    ax.axhline(1, color="0.4", ls="--", lw=1)
    ticks = [count * (place + 0.5) - 0.5 for place in range(len(KINDS))]
    ax.set(xticks=ticks, xticklabels=KINDS, ylabel="error ÷ RTN's")
    if max(float(values.max()) for values in shares.values()) > 1.5:
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, 1.1)
    ax.legend()
    return fig


def _board_alt(rows: Sequence[Row], caption: str) -> str:
    words = [f"{row.method}, {row.bits} bits: {row.bytes / 1e6:.2f} MB, {row.delta_nats:+.4f} nats"
             for row in rows if row.bits < 16]  # fmt: skip
    return f"Added loss on a logarithmic scale against the size of the file. {'; '.join(words)}."


@figure(_board_alt)
def board(rows: Sequence[Row], caption: str) -> Figure:
    """Rows of a leaderboard: added loss against bytes."""
    return plot_rows(rows, caption)


# ---- Further ----


@figure("Line plot on a log scale: relative output error against the share of weights set to zero, for the smallest "
        "weights and for OBS. OBS lies far below at every share.")  # fmt: skip
def pruning(sparsities: Sequence[float], errors: dict[str, Sequence[float]]) -> Figure:
    """Output errors at each sparsity, by rule."""
    fig, ax = plt.subplots(figsize=(7, 3))
    for (name, values), marker in zip(errors.items(), "os", strict=True):
        ax.plot([100 * sparsity for sparsity in sparsities], values, marker=marker, label=name)
    ax.set(xlabel="weights set to 0 (%)", ylabel="relative output error", yscale="log")
    ax.legend()
    return fig


@figure("Lattice points on vertical lines, each line's points shifted against the next, and a wall of equal bricks "
        "with a point in the middle of each. The weight lies in the shaded brick of GPTQ's point; the point that "
        "rounding to nearest takes is much further away.")  # fmt: skip
def wall(rho: float) -> Figure:
    """The lattice of two weights, Babai's bricks, and where the weight goes."""
    basis = torch.linalg.cholesky(_pair_hessian(rho).flip(0, 1)).flip(0, 1)  # (2, 2)
    fig, ax = plt.subplots(figsize=(6.4, 4.4))
    whole = torch.arange(-4.0, 5).double()
    points = torch.cartesian_prod(whole, whole) @ basis  # (81, 2)
    for corner in (points - basis.diagonal() / 2).tolist():
        ax.add_patch(plt.Rectangle(corner, *basis.diagonal(), fill=False, ec="0.8"))
    for line in whole.tolist():
        ax.axvline(line * float(basis[0, 0]), color=COLORS["sky"], lw=0.8)
    ax.plot(*points.T, "o", ms=4, color="0.35")
    plain, chosen = _pair_choice(rho)[1] @ basis
    shaded = tuple(chosen - basis.diagonal() / 2)
    ax.add_patch(plt.Rectangle(shaded, *basis.diagonal(), color=COLORS["green"], alpha=0.25))
    ax.plot(*(PAIR @ basis), "*", ms=15, color=COLORS["black"], label="weight")
    ax.plot(*chosen, "o", ms=12, mfc="none", mew=2, color=COLORS["green"], label="nearest plane = GPTQ")
    ax.plot(*plain, "s", ms=11, mfc="none", mew=2, color=COLORS["vermillion"], label="RTN")
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.3, 2.1), aspect="equal", xlabel="first coordinate of wC", ylabel="second")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


@figure("Scatter plot of 24 layers: the share of rounding to nearest's error that GPTQ leaves, measured at 4 bits on "
        "unseen text, against the share foretold from the inputs alone. The points lie along the dashed diagonal.")
def forecast(foretold: Sequence[float], measured: Tensor) -> Figure:
    """Foretold against measured shares of the error, (n,) both."""
    fig, ax = plt.subplots(figsize=(5, 3.6))
    ax.axline((0, 0), slope=1, color="0.6", ls="--", lw=1)
    ax.plot(foretold, measured, "o", ms=5)
    top = 1.1 * max(*foretold, float(measured.max()))
    ax.set(xlabel="foretold from the inputs", ylabel="measured", xlim=(0, top), ylim=(0, top), title="error ÷ RTN's")
    return fig


def _overfitting_alt(counts: Sequence[int], shares: Sequence[float], table: Sequence[Sequence[float]]) -> str:
    words = [f"with {count:,} tokens {row[0]:.2f} at the least damping and {row[-1]:.2f} at the most"
             for count, row in zip(counts, table, strict=True)]  # fmt: skip
    return f"Error on unseen text over that of rounding to nearest, against damping: {'; '.join(words)}."


@figure(_overfitting_alt)
def overfitting(counts: Sequence[int], shares: Sequence[float], table: Sequence[Sequence[float]]) -> Figure:
    """Errors on unseen text over those of RTN: a row for each number of tokens, a column for each damping."""
    fig, ax = plt.subplots(figsize=(7, 3.4))
    for count, values, marker in zip(counts, table, "os^D", strict=True):
        ax.plot(shares, values, marker=marker, label=f"{count:,} tokens")
    ax.axhline(1, color="0.4", ls="--", lw=1)
    ax.set(xscale="log", yscale="log", xlabel="damping (share of the mean diagonal)", ylabel="error ÷ RTN's")
    ax.set_yticks([0.5, 1, 2], ["0.5", "1", "2"])
    ax.minorticks_off()
    ax.legend(ncols=2)
    return fig


@figure("Line plot: output error over that of rounding to nearest against the correlation of neighbouring inputs, for "
        "the project's recursion and the repaired one. Up to 0.5 the two lie together; then the repaired one falls "
        "much faster.")  # fmt: skip
def hidden_bug(rhos: Sequence[float], scores: Sequence[Sequence[float]]) -> Figure:
    """Output errors of the project's recursion, of the repaired one and of RTN, a row for each correlation."""
    wrong, right, plain = torch.tensor(scores).T
    fig, ax = plt.subplots(figsize=(7, 3))
    ax.plot(rhos, wrong / plain, "s-", label="project")
    ax.plot(rhos, right / plain, "o-", label="repaired")
    ax.set(xlabel="correlation of neighbouring inputs", ylabel="error ÷ RTN's", ylim=(0, 1.1))
    ax.legend()
    return fig
