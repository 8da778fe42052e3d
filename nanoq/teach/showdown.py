"""The files that benchmarks/showdown.py writes, as typed rows, what notebook 13 reads from them, and two figures."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from scipy.stats import t as student

from nanoq.files import read_results
from nanoq.mixed import costs_from_scores
from nanoq.teach.plots import COLORS

WIDTHS = (2, 3, 4, 8)  # on offer in the race
RACERS = {  # the names of notebook 13 for some of the scores
    "random": "random", "CMPQ": "CMPQ, mean", "PMPQ": "PMPQ", "TDMPQ": "TDMPQ", "GPTQ error": "GPTQ error",
    "trying it out": "leave-one-in KL, GPTQ",
}  # fmt: skip


@dataclass(frozen=True)
class Sensitivity:
    """One number of `sensitivity.csv`: what a score says of a part; `bits` is None where it says it of all widths."""

    granularity: str
    score: str
    seed: int
    part: str
    bits: int | None
    value: float


@dataclass(frozen=True)
class Correlation:
    """One row of `correlations.csv`: a score against the damage of rounding each part alone.

    Attributes:
        granularity: "linear" or "block".
        rounding: of the damage, "gptq" or "nearest".
        metric: of the damage, "loss" or "kl".
        bits: of the damage.
        score: its name.
        rho, low, high: Spearman's correlation of the seeds' mean score, and its 95 % interval.
        least, greatest: of the correlations of the single seeds.
    """

    granularity: str
    rounding: str
    metric: str
    bits: int
    score: str
    rho: float
    low: float
    high: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Measured:
    """One row of `showdown.csv`: a model at a budget.

    Attributes:
        method: the score that its widths come from, or "uniform"; "..., 3-means" for clusters.
        budget: in bits: the bytes of a uniform model of that width; None for clusters, which have none.
        seed: of the calibration text.
        linear_bytes: of the quantised layers.
        average_bits: of their weights.
        bytes: of the whole file.
        perplexity, delta_nats, ci_low, ci_high: as on the leaderboard.
        widths: of the layers in the order of the model, of the blocks for clusters.
    """

    method: str
    budget: float | None
    seed: int
    linear_bytes: int
    average_bits: float
    bytes: int
    perplexity: float
    delta_nats: float
    ci_low: float
    ci_high: float
    widths: tuple[int, ...]


Kind = TypeVar("Kind", Sensitivity, Correlation, Measured)


def read_rows(path: Path | str, kind: type[Kind]) -> list[Kind]:
    """Read `sensitivity.csv`, `correlations.csv` or `showdown.csv` as `Sensitivity`, `Correlation` or `Measured`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its columns are others.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: benchmarks/showdown.py writes it")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        wanted = [field.name for field in fields(kind)]
        if reader.fieldnames != wanted:
            raise ValueError(f"{path.name} has the columns {reader.fieldnames}, not {wanted}")
        return [kind(*(_typed(row[field.name], field.type) for field in fields(kind))) for row in reader]


def _typed(text: str, kind: object) -> object:
    if kind == tuple[int, ...]:
        return tuple(map(int, text.split()))
    if kind in (int | None, float | None):
        return None if text == "" else (int if kind == int | None else float)(text)
    return kind(text)


def values_of(rows: Sequence[Sensitivity], granularity: str, score: str, seed: int = 0) -> dict:
    """A score as it was measured: {part: score}, or {part: {bits: cost}} where it has one for each width."""
    values: dict = {}
    for row in rows:
        if (row.granularity, row.score, row.seed) == (granularity, score, seed):
            if row.bits is None:
                values[row.part] = row.value
            else:
                values.setdefault(row.part, {})[row.bits] = row.value
    return values


def column(rows: Sequence[Sensitivity], score: str, seed: int = 0, bits: int = 3) -> list[float]:
    """A score, or a damage, of each matrix in the order of the model; at `bits` where it depends on the width."""
    table = values_of(rows, "linear", score, seed).values()
    return [value[bits] if isinstance(value, dict) else value for value in table]


def costs_of(rows: Sequence[Sensitivity], score: str, seed: int = 0) -> dict[str, dict[int, float]]:
    """What each matrix costs at each width, {part: {bits: cost}}: as measured, or score * 4**-bits."""
    table = values_of(rows, "linear", score, seed)
    return table if all(isinstance(value, dict) for value in table.values()) else costs_from_scores(table, WIDTHS)


def over_uniform(name: str) -> dict[str, list[float]]:
    """The added loss of each method over that of "uniform" with the same seed: {method: [a number for each seed]}.

    Args:
        name: a file of data/results with the columns method, seed and delta_nats, as "tinystories/mixed_rates".
    """
    rows = read_results(name)
    uniform = {row["seed"]: float(row["delta_nats"]) for row in rows if row["method"] == "uniform"}
    found: dict[str, list[float]] = {row["method"]: [] for row in rows if row["method"] != "uniform"}
    for row in rows:
        if row["method"] != "uniform":
            found[row["method"]].append(float(row["delta_nats"]) / uniform[row["seed"]])
    return found


# ---- correlations ----


def chance(parts: int) -> float:
    """What 95 % of the correlations of random orders of so many parts stay within, by Student's t; good from 10 on."""
    square = float(student.ppf(0.975, parts - 2)) ** 2
    return math.sqrt(square / (square + parts - 2))


def plot_correlations(rows: Sequence[Correlation], caption: str, parts: int = 24) -> Figure:
    """A dot for each score, its 95 % interval as a bar, the seeds' range as a thick one; best above.

    The shaded band is where 95 % of random orders of so many parts fall. A score whose bar crosses the line at 0 has
    not shown that it knows anything.

    Raises:
        ValueError: if there are no rows, or a score occurs twice: choose one damage first.
    """
    names = [row.score for row in rows]
    if not names or len(set(names)) < len(names):
        raise ValueError("one row for each score is needed: choose a granularity, rounding, metric and width")
    ordered = sorted(rows, key=lambda row: row.rho)
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.27 * len(rows)), constrained_layout=True)
    axes.axvspan(-chance(parts), chance(parts), color="0.9", zorder=0)
    axes.axvline(0, color="0.4", lw=1)
    for place, row in enumerate(ordered):
        color = COLORS["black"] if row.score == "random" else COLORS["blue" if row.low > 0 else
                                                                     "vermillion" if row.high < 0 else "orange"]
        marker = "o" if row.low > 0 else "X" if row.high < 0 else "s"
        axes.plot([row.low, row.high], [place, place], color=color, lw=1.3)
        axes.plot([row.least, row.greatest], [place, place], color=color, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(row.rho, place, marker, color=color, ms=7, mfc="white" if row.score == "random" else color)
    axes.set(yticks=range(len(ordered)), yticklabels=[row.score for row in ordered], xlim=(-1.04, 1.04),
             xlabel="rank correlation with the measured damage")
    axes.set_title(caption, fontsize=9)
    axes.grid(visible=False, axis="y")
    return figure


# ---- the showdown ----

CONTROLS = {"uniform": ("black", "s", "--"), "random": ("0.55", "x", ":")}
GROUPS = {  # a column each: not more lines than can be told apart
    "the paper's scores": ("CMPQ, mean", "PMPQ", "TDMPQ"),
    "rounding errors and slopes": ("weight MSE", "output MSE", "first order", "HAWQ-V2"),
    "what GPTQ leaves, and trying it out": ("GPTQ error", "leave-one-in KL", "leave-one-in KL, GPTQ"),
}
LOOKS = tuple(zip(("vermillion", "blue", "green", "purple"), "oD^v", strict=True))


def by_budget(rows: Sequence[Measured], method: str) -> dict[float, list[Measured]]:
    """The rows of a method under budgets: {budget: [a row for each seed]}, the smallest budget first."""
    mine = [row for row in rows if row.method == method and row.budget is not None]
    return {budget: [row for row in mine if row.budget == budget] for budget in sorted({row.budget for row in mine})}


def mean_delta(rows: Sequence[Measured]) -> float:
    """Added loss, the mean of rows."""
    return sum(row.delta_nats for row in rows) / len(rows)


def beats(rows: Sequence[Measured], method: str, other: str, budget: float) -> bool:
    """Whether a method is surely better than another: in every seed its interval ends before the other's begins.

    Strict: both intervals are of differences from the original on the same windows, so that their luck is shared and
    the difference of the two would be surer than either.

    Raises:
        ValueError: if one of them was not measured under this budget, or not with the same seeds.
    """
    mine, theirs = (by_budget(rows, name).get(budget, []) for name in (method, other))
    if not mine or {row.seed for row in mine} != {row.seed for row in theirs}:
        raise ValueError(f"'{method}' and '{other}' were not both measured at {budget} bits with the same seeds")
    return all(row.ci_high < next(r.ci_low for r in theirs if r.seed == row.seed) for row in mine)


def uniform_at(rows: Sequence[Measured], linear_bytes: float) -> float:
    """The added loss of uniform widths at any size: the mean of the seeds, its logarithm interpolated in bytes."""
    known = by_budget(rows, "uniform").values()
    sizes = [group[0].linear_bytes for group in known]
    return math.exp(np.interp(linear_bytes, sizes, [math.log(mean_delta(group)) for group in known]))


def plot_showdown(rows: Sequence[Measured], caption: str) -> Figure:
    """Added loss against the size of the file: a line through the mean of the seeds, a bar for the seeds' range.

    Above as it is; below as a multiple of what uniform widths lose at the same size, interpolated where no uniform
    model has it. The controls, uniform and random, are in every column. Clusters, which have no budget, are left out.
    """
    figure, grid = plt.subplots(2, len(GROUPS), figsize=(9, 6), sharex=True, sharey="row", constrained_layout=True)
    for column, (title, methods) in zip(grid.T, GROUPS.items(), strict=True):
        looks = CONTROLS | {method: (COLORS[color], marker, "-")
                            for method, (color, marker) in zip(methods, LOOKS, strict=False)}
        for method, (color, marker, line) in looks.items():
            _draw(column, rows, method, color=color, marker=marker, ls=line)
        column[0].set_title(title, fontsize=10)
        column[1].set_xlabel("size of the file (MB)")
        column[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=9)
    for axes, label in zip(grid[:, 0], ("added loss (nats)", "÷ uniform's added loss"), strict=True):
        axes.set_ylabel(label)
    for axes in grid.flat:
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    for axes in grid[1]:
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = grid[1, 0].get_ylim()
    grid[1, 0].set_yticks([tick for tick in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50) if low <= tick <= high])
    figure.suptitle(caption, fontsize=9)
    return figure


def _draw(column: np.ndarray, rows: Sequence[Measured], method: str, **look) -> None:
    """One method in a column of two axes."""
    groups = list(by_budget(rows, method).values())
    if not groups:
        return
    sizes = [sum(row.bytes for row in group) / len(group) / 1e6 for group in groups]
    for axes, relative in zip(column, (False, True), strict=True):
        scale = [uniform_at(rows, group[0].linear_bytes) if relative else 1 for group in groups]
        values = [[row.delta_nats / unit for row in group] for group, unit in zip(groups, scale, strict=True)]
        # rounded, the mean of equal numbers may lie just beyond them
        means = [min(max(sum(group) / len(group), min(group)), max(group)) for group in values]
        ends = [[mean - min(group) for mean, group in zip(means, values, strict=True)],
                [max(group) - mean for mean, group in zip(means, values, strict=True)]]
        axes.errorbar(sizes, means, yerr=ends, label=method, lw=1.5, ms=5, capsize=2, elinewidth=1, **look)
