"""Mixed precision where a layer may have any rate: entropy-coded layers, one budget, several ways to share it out.

    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/mixed_rates.py

writes data/results/tinystories/mixed_rates.csv, a row after each model; rows that the file has are not measured again.
Every layer gets a rate of `RATES`, 2 bits in the mean, by the integer program of `nanoq.mixed`. Its costs are the
divergences that each layer adds alone at each rate, measured on calibration text ("measured"), or worked out of one
score for each layer by the high-rate law, score * 4**-rate: the GPTQ error with Fisher information, and the scores of
CMPQ, PMPQ and TDMPQ. "uniform" gives 2 bits to all. Three draws of calibration text; held-out windows are the same for
all.
"""

import argparse
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from nanoq.files import data_dir, read_csv, write_csv
from nanoq.lm.evaluate import AgainstOriginal, row_losses
from nanoq.mixed import cmpq, gptq_error, integer_program, pmpq, tdmpq
from nanoq.quant import Recipe, Round, linear_layers, quantize_model, weight_matrix
from nanoq.teach.leaderboard import Leaderboard

MEAN, RATES, SEEDS = 2.0, (1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0), (0, 1, 2)
MEASURED = (1.25, 2.0, 3.0)  # rates at which a layer is tried; between them its divergence is a power of 2
SCORES = {
    "GPTQ error": lambda model, rows: {part: costs[3] * 4**3 for part, costs in gptq_error(
        model, rows, bits=(3,), unit="linear").items()},
    "CMPQ": lambda model, rows: cmpq(model, rows, unit="linear", measure="mean"),
    "PMPQ": lambda model, rows: pmpq(model, rows, unit="linear"),
    "TDMPQ": lambda model, rows: tdmpq(model, rows, unit="linear", noise="matched", bits=3, draws=2),
}


def coded(rate: float) -> Round:
    """The step of a layer."""
    return Round("gptq", grid="entropy-coded", rate=rate)


def measured_costs(model: nn.Module, calibration: Tensor) -> dict[str, dict[float, float]]:
    """What each layer alone costs at each rate, in nats of divergence."""
    watch, costs = AgainstOriginal(model), {}
    for name in linear_layers(model):
        logs = []
        for rate in MEASURED:
            copy = deepcopy(model)
            quantize_model(copy, Recipe(Round(bits=16), rules={name: coded(rate)}), calibration[:64])
            row_losses(copy, calibration[-16:], watch=watch)
            logs.append(watch.divergence().mean)
        tried, logs = torch.tensor(MEASURED), torch.tensor(logs).log2()
        costs[name] = {rate: 2 ** between(rate, tried, logs) for rate in RATES}
    return costs


def between(x: float, at: Tensor, values: Tensor) -> float:
    """The straight line between two neighbouring values."""
    i = min(max(int(torch.searchsorted(at, x)) - 1, 0), len(at) - 2)
    share = (x - float(at[i])) / float(at[i + 1] - at[i])
    return float(values[i] * (1 - share) + values[i + 1] * share)


def allocations(model: nn.Module, calibration: Tensor) -> dict[str, dict[str, float]]:
    """The rate of each layer by each method."""
    sizes = {name: weight_matrix(layer).numel() for name, layer in linear_layers(model).items()}
    costs = {"measured": measured_costs(model, calibration)}
    for method, score in SCORES.items():
        scores = score(model, calibration[:16])
        low = min(0.0, *scores.values())  # CMPQ's may be negative
        costs[method] = {name: {rate: (scores[name] - low) * 4**-rate for rate in RATES} for name in sizes}
    space = {name: {rate: round(size * rate) for rate in RATES} for name, size in sizes.items()}
    budget = round(MEAN * sum(sizes.values()))
    return {"uniform": dict.fromkeys(sizes, MEAN)} | {
        method: integer_program(table, space, budget) for method, table in costs.items()}


def main() -> None:
    """Measure what the file does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "tinystories" / "mixed_rates.csv")
    out, rows = parser.parse_args().out, []
    torch.set_num_threads(1)
    if out.is_file():
        rows = read_csv(out)
    board = Leaderboard("tinystories-2.7m", "tinystories")
    for seed in SEEDS:
        if any(int(row["seed"]) == seed for row in rows):
            continue
        board.calibration = board.task.calibration(128, seed)
        new = []
        for method, rates in allocations(board.reference.model, board.calibration).items():
            rules = {name: coded(rate) for name, rate in rates.items()}
            row = board.add(method, MEAN, Recipe(Round(bits=16), rules=rules, embeddings=8))
            new.append({"seed": seed} | asdict(row) | {"rates": " ".join(f"{rate:g}" for rate in rates.values())})
            print(f"{seed} {method}: {row.average_bits:.3f} bits, {row.delta_nats:+.4f}", flush=True)
        rows += new
        write_csv(out, rows)


if __name__ == "__main__":
    main()
