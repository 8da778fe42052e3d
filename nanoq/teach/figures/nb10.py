"""The figures of notebook 10."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.mixed import RankCorrelation, canonical_correlations, expected_squared_correlation
from nanoq.teach.plots import COLORS, figure

# CMPQ's scores of the layers of OPT-125M, first to last: layer_sensitivitites_opt_125m_687.34.json of the authors'
# repository amitashnanda/Mixed_Precision_Quantization, November 2025.
OPT_125M = tuple(1e-5 * value for value in (2.83, 6.59, 14.07, 12.94, 9.74, 6.91, 6.72, 6.69, 6.87, 7.08, 7.13, 9.91))

KINDS = {"attention.qkv": "o", "attention.out": "s", "mlp.up": "^", "mlp.down": "D"}


def _first_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The directions, (p,) and (q,), along which two centred clouds correlate most; of length 1."""
    (u, s, v), (w, t, z) = (torch.linalg.svd(side, full_matrices=False) for side in (x, y))
    left, _, right = torch.linalg.svd(u.T @ w)
    pair = v.T @ (left[:, 0] / s), z.T @ (right[0] / t)
    return pair[0] / pair[0].norm(), pair[1] / pair[1].norm()


@figure(lambda x, y: "Left and middle: two elongated point clouds of the same samples, coloured alike, with an arrow "
        "through each that crosses the cloud rather than following its length. Right: the projections onto the two "
        f"arrows against each other, with a correlation of {float(canonical_correlations(x, y)[0]):.2f}.")
def clouds(x: Tensor, y: Tensor) -> Figure:
    """Two clouds (n, 2) of the same samples, their first canonical pair of directions, and the projections."""
    x, y = x - x.mean(0), y - y.mean(0)
    pair = _first_pair(x, y)
    seen = x @ pair[0], y @ pair[1]
    fig, axes = plt.subplots(1, 3, figsize=(9, 3.1))
    arrow = {"arrowstyle": "->", "lw": 2.5, "color": COLORS["vermillion"]}
    for ax, cloud, along, name in zip(axes, (x, y), pair, "xy", strict=False):
        ax.scatter(*cloud.T, c=seen[0], s=14)
        ax.annotate("", 3 * along, -3 * along, arrowprops=arrow)
        ax.set(title=f"cloud {name}", xlabel=f"${name}_1$", ylabel=f"${name}_2$", aspect="equal")
    axes[2].scatter(*seen, c=seen[0], s=14)
    rho = float(canonical_correlations(x, y)[0])
    axes[2].set(title=f"projections: correlation {rho:.2f}", xlabel="x along its arrow", ylabel="y along its arrow")
    return fig


def _chance_alt(found: Mapping[int, Tensor]) -> str:
    words = [f"with {each} samples per dimension up to {float(rho.max()):.2f}" for each, rho in found.items()]
    return ("Histograms of the canonical correlations of features that have nothing in common, one below the other: "
            f"{'; '.join(words)}. A dashed line marks the root mean square that the law gives.")


@figure(_chance_alt)
def chance(found: Mapping[int, Tensor]) -> Figure:
    """Correlations (d,) of independent features that are d wide, by the samples per dimension."""
    fig, axes = plt.subplots(len(found), 1, figsize=(7, 4), sharex=True)
    for ax, (each, rho) in zip(axes, found.items(), strict=True):
        ax.hist(rho.numpy(), bins=40, range=(0, 1), color=COLORS["blue"])
        law = expected_squared_correlation(each * len(rho), len(rho), len(rho)) ** 0.5
        ax.axvline(law, color=COLORS["orange"], ls="--", label="the law")
        ax.set(title=f"{each} samples per dimension", yticks=[], xlim=(0, 1.02))
    axes[0].legend(loc="upper left")
    axes[-1].set(xlabel="canonical correlation, with nothing in common")
    return fig


def _off_diagonal(table: Tensor) -> Tensor:
    return table[~torch.eye(len(table), dtype=torch.bool)]


def _likeness_alt(tables: Mapping[str, Tensor]) -> str:
    words = [f"{title}: from {_off_diagonal(table).min():.2f} to {_off_diagonal(table).max():.2f}, neighbours "
             f"{table.diagonal(1).mean():.2f} on average, the two ends {table[0, -1]:.2f}"
             for title, table in tables.items()]
    return f"Tables of how alike each two of the blocks are. {'; '.join(words)}."


@figure(_likeness_alt)
def likeness(tables: Mapping[str, Tensor]) -> Figure:
    """Tables (blocks, blocks) of likeness, side by side."""
    fig, axes = plt.subplots(1, len(tables), figsize=(3.6 * len(tables), 3.5))
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        _table(ax, table, vmin=0, vmax=1)
        ax.set(title=title, xlabel="block", ylabel="block", xticks=range(len(table)), yticks=range(len(table)))
    return fig


def _table(ax: Axes, table: Tensor, *, digits: str = ".2f", **options: object) -> None:
    """A table as colours, with its numbers written in."""
    ax.imshow(table, **options)
    strong = (table - table.min()) / (table.max() - table.min()).clamp(min=1e-9)
    for i in range(len(table)):
        for j in range(table.shape[1]):
            dark = 0.25 < strong[i, j] < 0.75 if "cmap" in options else table[i, j] > 0.6
            ax.text(j, i, format(float(table[i, j]), digits), ha="center", va="center", size=8,
                    color="black" if dark else "white")
    ax.grid(visible=False)


def _depth_alt(scores: Mapping[str, Sequence[float]]) -> str:
    words = [f"{label}: {', '.join(f'{float(score):.2f}' for score in values)}" for label, values in scores.items()]
    return f"CMPQ's scores from the first block to the last. {'; '.join(words)}."


@figure(_depth_alt)
def over_depth(scores: Mapping[str, Sequence[float]]) -> Figure:
    """Scores of the blocks, from the first to the last, for each label."""
    fig, ax = plt.subplots(figsize=(7, 3))
    for (label, values), marker in zip(scores.items(), "osD", strict=False):
        ax.plot(range(len(values)), [float(value) for value in values], marker=marker, label=label)
    ax.set(xlabel="block", ylabel="score", ylim=(0, None))
    ax.legend(loc="lower right")
    return fig


def _damage_alt(scores: Mapping[str, float], damage: Mapping[str, float], found: RankCorrelation) -> str:
    return (f"Damage of {len(scores)} matrices against their CMPQ score, one marker per kind. The attention.out "
            "matrices have high scores and do little damage; attention.qkv and mlp.up have low scores, and most of "
            f"them do more. The correlation of the two orders is {found.rho:+.2f} ({found.low:+.2f} to "
            f"{found.high:+.2f}).")


@figure(_damage_alt)
def damage_by_score(scores: Mapping[str, float], damage: Mapping[str, float], found: RankCorrelation) -> Figure:
    """What each matrix costs alone (nats of divergence), against its score, by kind."""
    fig, ax = plt.subplots(figsize=(7, 3.6))
    for kind, marker in KINDS.items():
        parts = [part for part in scores if part.endswith(kind)]
        ax.plot([scores[part] for part in parts], [1e3 * damage[part] for part in parts], marker, label=kind)
    ax.set(xlabel="CMPQ score", ylabel="damage alone (10⁻³ nats)", ylim=(0, None),
           title=f"correlation of the orders {found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f})")  # fmt: skip
    ax.legend(ncols=2)
    return fig


def _widths_alt(allocations: Mapping[str, Mapping[str, int]]) -> str:
    words = []
    for name, widths in allocations.items():
        counts = {bits: list(widths.values()).count(bits) for bits in sorted(set(widths.values()))}
        words.append(f"{name}: " + ", ".join(f"{count} at {bits} bits" for bits, count in counts.items()))
    return f"Which matrix gets how many bits, a row of squares for each allocation. {'; '.join(words)}."


@figure(_widths_alt)
def who_gets_what(allocations: Mapping[str, Mapping[str, int]]) -> Figure:
    """The widths of all parts, from the first of the model to the last, a row per allocation."""
    parts = list(next(iter(allocations.values())))
    table = torch.tensor([[widths[part] for part in parts] for widths in allocations.values()], dtype=torch.float64)
    fig, ax = plt.subplots(figsize=(9, 1.4 + 0.45 * len(table)))
    _table(ax, table, digits=".0f", vmin=1.6, vmax=6, cmap="cividis", aspect="auto")
    for text in ax.texts:
        text.set_color("white")
    names = [part.removeprefix("blocks.").replace("attention.", "").replace("mlp.", "") for part in parts]
    ax.set(yticks=range(len(table)), yticklabels=list(allocations), xticks=range(len(parts)))
    ax.set_xticklabels(names, rotation=60, ha="right", size=8)
    return fig


# ---- Further ----


def _plane(ax: Axes, first: Tensor, second: Tensor, color: str) -> None:
    """A piece of the plane through 0 that two vectors (3,) span."""
    sides = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    corners = sides[:, None, None] * first + sides[None, :, None] * second  # (2, 2, 3)
    ax.plot_surface(*corners.permute(2, 0, 1).numpy(), color=color, alpha=0.35)


def _arrow(ax: Axes, end: Tensor, color: str, name: str) -> None:
    ax.plot(*torch.stack([torch.zeros(3, dtype=torch.float64), end]).T.numpy(), color=color, lw=3)
    ax.text(*(1.12 * end).tolist(), name, color=color)


@figure("Left: a plane in three dimensions with a line above it at an angle of 32 degrees to its shadow on the plane. "
        "Right: two planes in three dimensions, which cross in a line that lies in both.")  # fmt: skip
def angles() -> Figure:
    """Four centred samples have three dimensions: two columns and one, and two columns and two."""
    axis = torch.eye(3, dtype=torch.float64)  # x1, x2 along the first two, [1, -1, 1, -1] along the third
    y = torch.tensor([2 / math.sqrt(2), 4 / math.sqrt(2), 2], dtype=torch.float64)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8), subplot_kw={"projection": "3d"})
    _plane(left, 3 * axis[0], 3 * axis[1], COLORS["blue"])
    _arrow(left, y, COLORS["vermillion"], "y")
    _arrow(left, y * torch.tensor([1, 1, 0]), COLORS["black"], "its shadow")
    _plane(right, 3 * axis[0], 3 * axis[1], COLORS["blue"])
    slanted = (axis[0] + axis[1]) / math.sqrt(2)
    _plane(right, 3 * slanted, 2 * axis[2] + axis[0] - axis[1], COLORS["orange"])
    _arrow(right, 3.6 * slanted, COLORS["vermillion"], "in both")
    for ax, title in ((left, "two columns, one column"), (right, "two columns, two columns")):
        ax.set(title=title, xlim=(-3, 3), ylim=(-3, 3), zlim=(-2.5, 2.5), box_aspect=(6, 6, 5))
        ax.set_axis_off()
        ax.view_init(22, -60)
    return fig


def _levels_alt(levels: Mapping[str, Tensor]) -> str:
    words = [f"{kind}: mean {float(rho.mean()):.2f}, first {float(rho[0]):.2f}" for kind, rho in levels.items()]
    return f"Two bar charts, of the mean and of the first canonical correlation of two blocks. {'; '.join(words)}."


@figure(_levels_alt)
def levels_of_chance(levels: Mapping[str, Tensor]) -> Figure:
    """The mean and the first of the correlations (d,) of two blocks, by how their tokens were matched."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
    tints = [COLORS["sky"]] * (len(levels) - 1) + [COLORS["blue"]]
    for ax, title, value in zip(axes, ("mean", "first"), (Tensor.mean, lambda rho: rho[0]), strict=True):
        ax.barh(list(levels), [float(value(rho)) for rho in levels.values()], color=tints)
        ax.set(title=f"{title} correlation", xlim=(0, 1.02))
    axes[0].invert_yaxis()
    return fig


@figure(lambda names, table: "Table of the correlations between the orders that several measures give to the blocks: "
        f"from {_off_diagonal(table).min():+.2f} to {_off_diagonal(table).max():+.2f}.")  # fmt: skip
def agreement(names: Sequence[str], table: Tensor) -> Figure:
    """How far each two of the measures put the blocks in the same order (measures, measures)."""
    fig, ax = plt.subplots(figsize=(5.6, 4.4))
    _table(ax, table, digits="+.2f", cmap="PuOr", vmin=-1, vmax=1)
    ax.set(xticks=range(len(names)), yticks=range(len(names)), title="do they rank the blocks alike?")
    ax.set_xticklabels(names, rotation=30, ha="right")
    ax.set_yticklabels(names)
    return fig


def _picture_alt(panels: Mapping[str, Sequence[float]]) -> str:
    words = [f"{title}: {len(values)} bars, the largest at block {max(range(len(values)), key=values.__getitem__)}, "
             f"{max(values) / min(values):.2f} times the smallest" for title, values in panels.items()]
    return f"Bar charts of CMPQ's sensitivities from the first block to the last. {'; '.join(words)}."


@figure(_picture_alt)
def picture_of_the_paper(panels: Mapping[str, Sequence[float]]) -> Figure:
    """Sensitivities of the blocks of several models, a panel for each."""
    fig, axes = plt.subplots(1, len(panels), figsize=(9, 2.9))
    for ax, (title, values), color in zip(axes, panels.items(), COLORS.values(), strict=False):
        ax.bar(range(len(values)), list(values), color=color)
        ax.set(title=title, xlabel="block")
    axes[0].set_ylabel("CMPQ score")
    return fig


def _rates_alt(rows: Sequence[Mapping[str, str]]) -> str:
    words = [f"{method} {min(found):.3f} to {max(found):.3f}" for method, found in _by_method(rows).items()]
    return f"Added loss in nats of each method, a dot with its interval for each of three draws: {'; '.join(words)}."


def _by_method(rows: Sequence[Mapping[str, str]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(float(row["delta_nats"]))
    return found


@figure(_rates_alt)
def true_costs(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Rows of mixed_rates.csv: the added loss with its interval, a row for each method."""
    methods = sorted(_by_method(rows), key=lambda method: sum(_by_method(rows)[method]))
    fig, ax = plt.subplots(figsize=(7, 3))
    for row in rows:
        at, low, high = (float(row[key]) for key in ("delta_nats", "ci_low", "ci_high"))
        place = methods.index(row["method"]) + 0.2 * (int(row["seed"]) - 1)
        color = COLORS["vermillion" if row["method"] == "uniform" else "blue"]
        ax.errorbar(at, place, xerr=[[at - low], [high - at]], fmt="o", ms=4, color=color)
    ax.set(yticks=range(len(methods)), yticklabels=methods, xlabel="added loss (nats), files of equal size")
    ax.invert_yaxis()
    return fig
