"""What a rotation is worth on the shipped GPT: rounded activations, a quantised KV cache, and GPTQ weights.

    OMP_NUM_THREADS=1 NANOQ_DATA=../shared/data python benchmarks/rotations.py

writes data/results/tinystories/rotations.csv. Each row is the loss that a setting adds to fp32 on held-out windows of
real TinyStories, and what it adds to the plain one of the same part, model and width, both with a 95 % interval of the
paired difference. Where signs or calibration text are drawn, three seeds were, and the losses of a window are their
mean; `spread` is the largest less the smallest of the three added losses.

- activations: inputs of all linear layers of the blocks, symmetric, a scale for each token; weights are not rounded.
  "planted": four channels of every norm's output fifty times as large. They lie in the norms' weights, which a
  rotation folds away, so that a rotated model has never had them; "every input" leaves the norms as they are and turns
  what each layer reads.
- cache: groups of 32 tokens, all of them rounded. "plain" has a range for the 32 numbers of each token of a head, for
  keys and values; "KIVI" has one for 32 tokens of each channel of the keys.
- weights: GPTQ, a scale for each row, 128 windows of training text; each file was loaded again before it was measured.

"rotated" is `rotate(model)`; "online" turns the inputs of the MLPs' second matrices as well.
"""

import argparse
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from nanoq.files import data_dir, write_csv
from nanoq.lm import GPT, load_corpus, paired_difference, window_losses
from nanoq.quant import (
    QuantizedKVCache,
    Recipe,
    StepwiseModel,
    activation_quantization,
    plant_outliers,
    quantize_model,
    rotate,
    sample_windows,
    smoothquant,
)
from nanoq.store import WEIGHTS, Checkpoint, load, save
from nanoq.teach.limit import turn_inputs

SEEDS = (0, 1, 2)
Rows = Iterator[tuple[str, str, int, list[Tensor], int | str]]  # part, setting, bits, losses of each seed, bytes


def main() -> None:
    """Measure every setting, print it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=128)
    windows = parser.parse_args().windows
    checkpoint, corpus = load("tinystories-2.7m"), load_corpus("tinystories")
    train, test = (checkpoint.tokenizer.encode(text) for text in (corpus.train, corpus.test))
    measure = partial(window_losses, tokens=test, limit=windows)
    reference, plain, rows = measure(checkpoint.model), {}, []
    for part, setting, bits, losses, size in chain(
            caches(checkpoint.model, measure), weights(checkpoint, train, measure),
            activations(checkpoint.model, train, measure)):
        mean = torch.stack(losses).mean(0)
        model, _, _ = setting.rpartition(", ")
        beside = plain.setdefault((part, model, bits), mean)
        delta, over = paired_difference(mean, reference), paired_difference(mean, beside)
        each = [float((loss - reference).mean()) for loss in losses]
        rows.append({"part": part, "setting": setting, "bits": bits, "windows": windows, "seeds": len(losses)}
                    | _interval("delta_nats", "ci", delta) | _interval("over_plain", "over", over)
                    | {"spread": round(max(each) - min(each), 5), "bytes": size})
        print(rows[-1], flush=True)
    write_csv(data_dir() / "results" / "tinystories" / "rotations.csv", rows)


def _interval(mean: str, ends: str, difference) -> dict[str, float]:
    return {mean: round(difference.mean, 5), f"{ends}_low": round(difference.low, 5),
            f"{ends}_high": round(difference.high, 5)}


def rotated(model: GPT, seed: int, online: bool) -> GPT:
    """A rotated copy."""
    model = deepcopy(model)
    rotate(model, seed, online)
    return model


def activations(model: GPT, train: Tensor, measure: Callable) -> Rows:
    """Each model at each width: plain, rotated, and smoothed."""
    planted = deepcopy(model)
    plant_outliers(planted)
    for name, start in (("as trained", model), ("planted", planted)):
        smooth = deepcopy(start)
        smoothquant(smooth, sample_windows(train, model.config.context, 32))
        variants = {"plain": [start]}
        if start is model:  # planted or not, a rotated model is the same: the norms' weights are gone
            variants |= {"rotated": [rotated(start, seed, False) for seed in SEEDS],
                         "online": [rotated(start, seed, True) for seed in SEEDS]}
        variants |= {"every input": [turned(start, seed) for seed in SEEDS], "SmoothQuant": [smooth]}
        for bits in (8, 6, 4, 3):
            for variant, models in variants.items():
                losses = []
                for one in models:
                    with activation_quantization(one, bits):
                        losses.append(measure(one))
                yield "activations", f"{name}, {variant}", bits, losses, ""


def turned(model: GPT, seed: int) -> GPT:
    """A copy whose layers each turn their own inputs."""
    model = deepcopy(model)
    turn_inputs(model, seed)
    return model


def caches(model: GPT, measure: Callable) -> Rows:
    """Each rule at each width."""
    for bits in (4, 3, 2):
        for rule, keys in (("token", "token"), ("KIVI", "channel")):
            for variant, hadamard in (("plain", False), ("Hadamard", True)):
                make = partial(QuantizedKVCache, bits=bits, residual=0, key_granularity=keys, hadamard=hadamard)
                yield "cache", f"{rule}, {variant}", bits, [measure(StepwiseModel(model, make))], ""


def weights(checkpoint: Checkpoint, train: Tensor, measure: Callable) -> Rows:
    """GPTQ at each width, of the model and of rotated ones."""
    model = checkpoint.model
    makers = {"plain": lambda seed: deepcopy(model), "rotated": lambda seed: rotated(model, seed, False),
              "online": lambda seed: rotated(model, seed, True)}
    for bits in (4, 3, 2):
        for variant, make in makers.items():
            losses = []
            for seed in SEEDS:
                start = Checkpoint(make(seed), checkpoint.tokenizer, {})
                quantize_model(start.model, Recipe("gptq", bits=bits),
                               sample_windows(train, model.config.context, 128, seed))
                with TemporaryDirectory() as folder:
                    losses.append(measure(load(save(folder, start)).model))
                    size = (Path(folder) / WEIGHTS).stat().st_size
            yield "weights", f"GPTQ, {variant}", bits, losses, size


if __name__ == "__main__":
    main()
