"""Mixed precision, every score against the measured damage, and every method against the others at equal bytes.

    OMP_NUM_THREADS=1 NANOQ_DATA=../shared/data python benchmarks/showdown.py tinystories
    OMP_NUM_THREADS=1 python benchmarks/showdown.py tales

Three draws of calibration text (seeds 0, 1, 2; `--seeds 1` for the first alone): the scores see 16 windows of it, GPTQ
64. Writes to data/results/NAME:

* `sensitivity.csv`: every score of every block and linear layer, and `damage …`, which is measured: the loss added on
  48 held-out windows, or the KL divergence from the original, when this part alone is quantised.
* `correlations.csv`: Spearman's correlation of each score, a mean over the seeds, with the damage, its 95 % interval
  for the layers as a sample, and the least and the greatest of the seeds.
* `showdown.csv`: the model that each score leads to under budgets of bytes (widths 2, 3, 4, 8; integer programming;
  GPTQ), read from its file and measured on 128 held-out windows; and the clusters {16, 8, 4} of CPTQuant, by block.
* `correlations.png` (damage of GPTQ at 3 bits, as KL) and `showdown.png`: the figures of the two.

Rows that a file has already are not measured again: an interrupted run goes on.
"""

import argparse
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
from torch import Tensor, nn

from nanoq.files import atomic_path, data_dir, read_csv, write_csv
from nanoq.lm.evaluate import windows
from nanoq.mixed import (
    MEASURES,
    average_bits,
    budget_of,
    cluster_bits,
    cmpq,
    costs_from_scores,
    first_order,
    gptq_error,
    hawq,
    integer_program,
    leave_one_in,
    output_mse,
    packed_sizes,
    parts_of,
    pmpq,
    random_scores,
    rank_correlation,
    recipe_of,
    tdmpq,
    total,
    weight_mse,
)
from nanoq.quant import sample_windows
from nanoq.teach import use_style
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.showdown import (
    Correlation,
    Measured,
    Sensitivity,
    plot_correlations,
    plot_showdown,
    read_rows,
    values_of,
)

WIDTHS, CLUSTERS = (2, 3, 4, 8), (16, 8, 4)
BUDGETS = (2.5, 3, 3.5, 4, 5)  # in bits: what a uniform model of that width takes, or the mean of its neighbours
SCORES = {  # name: method and its options
    "random": (random_scores, {}),
    "weight MSE": (weight_mse, {"bits": WIDTHS}),
    "output MSE": (output_mse, {"bits": WIDTHS}),
    "GPTQ error": (gptq_error, {"bits": WIDTHS}),
    "first order": (first_order, {"bits": WIDTHS}),
    "HAWQ-V2": (hawq, {"bits": WIDTHS, "draws": 4}),
    **{f"CMPQ, {measure}": (cmpq, {"measure": measure}) for measure in MEASURES},
    "PMPQ": (pmpq, {}),
    "PMPQ, accuracy": (pmpq, {"metric": "accuracy"}),
    "TDMPQ": (tdmpq, {"noise": "matched", "bits": 3, "draws": 2}),
    "TDMPQ, one draw": (tdmpq, {"draws": 1, "antithetic": False, "target": "first"}),
    "TDMPQ, inputs": (tdmpq, {"draws": 2, "target": "inputs"}),
    "leave-one-in loss": (leave_one_in, {"bits": WIDTHS}),
    "leave-one-in KL": (leave_one_in, {"bits": WIDTHS, "metric": "kl"}),
    "leave-one-in KL, GPTQ": (leave_one_in, {"bits": WIDTHS, "metric": "kl", "method": "gptq"}),
}
DAMAGE = [(method, metric) for method in ("gptq", "nearest") for metric in ("loss", "kl")]
PAPERS = {"CMPQ": "CMPQ, mean", "PMPQ": "PMPQ", "TDMPQ": "TDMPQ"}
CONTENDERS = ("random", "weight MSE", "output MSE", "GPTQ error", "first order", "HAWQ-V2", *PAPERS.values(),
              "leave-one-in KL", "leave-one-in KL, GPTQ")


class Table:
    """A CSV file that grows, and knows which rows it has."""

    def __init__(self, path: Path, key: tuple[str, ...]):
        self.path, self.key = path, key
        self.rows = read_csv(path) if path.is_file() else []
        self.done = {tuple(row[k] for k in key) for row in self.rows}

    def has(self, *key) -> bool:
        """Whether rows with this key are there."""
        return tuple(str(k) for k in key) in self.done

    def add(self, rows: list[dict]) -> None:
        """Add rows and write the file."""
        self.rows += [{k: str(v) for k, v in row.items()} for row in rows]
        self.done |= {tuple(row[k] for k in self.key) for row in self.rows}
        write_csv(self.path, self.rows)
        print(self.path.name, rows[-1], flush=True)


def measure_scores(table: Table, model: nn.Module, calibration: dict[int, Tensor], held_out: Tensor) -> None:
    """Every score with every seed, and the damage."""
    jobs = [(name, seed, partial(method, data=calibration[seed][:16], **options, **_seeded(method, seed)))
            for seed in calibration for name, (method, options) in SCORES.items()]
    jobs += [(f"damage {method} {metric}", 0, partial(leave_one_in, data=held_out, bits=(2, 3, 4), method=method,
                                                      metric=metric, calibration=calibration[0]))
             for method, metric in DAMAGE]
    for (name, seed, make), granularity in product(jobs, ("linear", "block")):
        if not table.has(granularity, name, seed):
            where = {"granularity": granularity, "score": name, "seed": seed}
            table.add([where | {"part": part, "bits": bits, "value": value}
                       for part, bits, value in _flat(make(model, unit=granularity))])


def _seeded(method: Callable, seed: int) -> dict[str, int]:
    """The seed for methods that draw; the others differ by their calibration text alone."""
    return {"seed": seed} if "seed" in inspect.signature(method).parameters else {}


def _flat(values: dict) -> Iterator[tuple[str, int | str, float]]:
    for part, value in values.items():
        for bits, cost in (value if isinstance(value, dict) else {"": value}).items():
            yield part, bits, cost


def correlations(rows: list[Sensitivity], seeds: Iterable[int]) -> Iterator[dict]:
    """Each score against each damage."""
    for granularity, (method, metric) in product(("linear", "block"), DAMAGE):
        damage = values_of(rows, granularity, f"damage {method} {metric}", 0)
        measured = {name: [values_of(rows, granularity, name, seed) for seed in seeds] for name in SCORES}
        for bits, name in product((2, 3, 4), SCORES):
            truth = {part: costs[bits] for part, costs in damage.items()}
            by_seed = [{part: value[bits] if isinstance(value, dict) else value for part, value in values.items()}
                       for values in measured[name]]
            mean = {part: sum(scores[part] for scores in by_seed) / len(by_seed) for part in truth}
            each = [rank_correlation(scores, truth).rho for scores in by_seed]
            found = rank_correlation(mean, truth)._asdict() | {"least": min(each), "greatest": max(each)}
            where = {"granularity": granularity, "rounding": method, "metric": metric, "bits": bits, "score": name}
            yield where | {key: round(value, 4) for key, value in found.items()}


def run_showdown(table: Table, board: Leaderboard, calibration: dict[int, Tensor],
                 rows: list[Sensitivity]) -> None:
    """Models at equal bytes, and CPTQuant's clusters at what bytes they come to."""
    model = board.reference.model
    sizes, blocks = packed_sizes(model, (2, 3, 4, 5, 8, 16), "linear"), packed_sizes(model, CLUSTERS)
    offered = {part: {width: size[width] for width in WIDTHS} for part, size in sizes.items()}
    for seed in calibration:
        board.calibration = calibration[seed]
        known: dict[tuple, dict] = {}  # one model may be the choice of several methods

        def measure(name: str, budget: float | str, allocation: dict[str, int], size: int, seed: int = seed,
                    known: dict = known) -> None:
            key = tuple(allocation.items())
            if key not in known:
                row = board.add(name, 0, recipe_of(allocation))
                known[key] = {"bytes": row.bytes, "perplexity": row.perplexity, "delta_nats": row.delta_nats,
                              "ci_low": row.ci_low, "ci_high": row.ci_high}
            table.add([{"method": name, "budget": budget, "seed": seed, "linear_bytes": size,
                        "average_bits": round(average_bits(allocation, _parameters(model, allocation)), 4)} | known[key]
                       | {"widths": " ".join(map(str, allocation.values()))}])

        for width in (2, 3, 4, 5):
            if not table.has("uniform", width, seed):
                measure("uniform", width, dict.fromkeys(sizes, width), budget_of(sizes, width))
        for name, budget in ((name, budget) for budget in BUDGETS for name in CONTENDERS):
            if not table.has(name, budget, seed):
                costs = values_of(rows, "linear", name, seed)
                if not isinstance(next(iter(costs.values())), dict):
                    costs = costs_from_scores(costs, WIDTHS)
                allocation = integer_program(costs, offered, budget_of(sizes, budget))
                measure(name, budget, allocation, total(offered, allocation))
        for name, source in PAPERS.items():
            if not table.has(f"{name}, 3-means", "", seed):
                allocation = cluster_bits(values_of(rows, "block", source, seed), CLUSTERS)
                measure(f"{name}, 3-means", "", allocation, total(blocks, allocation))


def _parameters(model: nn.Module, allocation: dict[str, int]) -> dict[str, int]:
    """Weights of each part that an allocation names."""
    parts = parts_of(model, "linear" if "blocks.0" not in allocation else "block")
    return {part: sum(layer.weight.numel() for layer in layers.values()) for part, layers in parts.items()}


def draw(folder: Path, caption: str) -> None:
    """The figures of the finished files."""
    use_style()
    shown = ("linear", "gptq", "kl", 3)
    found = [row for row in read_rows(folder / "correlations.csv", Correlation)
             if (row.granularity, row.rounding, row.metric, row.bits) == shown]
    figures = {
        "correlations.png": plot_correlations(found, f"{folder.name}: damage of GPTQ at 3 bits, one layer at a time"),
        "showdown.png": plot_showdown(read_rows(folder / "showdown.csv", Measured), caption),
    }
    for name, figure in figures.items():
        with atomic_path(folder / name) as path:
            figure.savefig(path, format="png", dpi=150)
        plt.close(figure)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("tinystories", "tales"))
    parser.add_argument("--seeds", type=int, default=3, help="draws of calibration text")
    arguments = parser.parse_args()
    name = arguments.corpus
    warnings.filterwarnings("ignore", message=".*samples are few|.*calibration tokens are few")
    board = Leaderboard(f"{name}-2.7m", windows=128)
    model, folder = board.reference.model, data_dir() / "results" / name
    tokens = board.reference.tokenizer.encode(board.corpus.train)
    calibration = {seed: sample_windows(tokens, model.config.context, 64, seed) for seed in range(arguments.seeds)}
    held_out = windows(board.held_out, model.config.context, 48)
    scores = Table(folder / "sensitivity.csv", ("granularity", "score", "seed"))
    measure_scores(scores, model, calibration, held_out)
    rows = read_rows(scores.path, Sensitivity)
    write_csv(folder / "correlations.csv", list(correlations(rows, calibration)))
    run_showdown(Table(folder / "showdown.csv", ("method", "budget", "seed")), board, calibration, rows)
    draw(folder, board.caption)


if __name__ == "__main__":
    main()
