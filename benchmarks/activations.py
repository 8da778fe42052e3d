"""What quantised activations and a quantised KV cache cost the shipped GPT, on generated text.

    python benchmarks/activations.py

writes data/results/activations.csv: for each setting the loss that it adds to fp32 on the same held-out windows of the
generated tales, with a 95 % interval of the paired difference. Weights are rounded to nearest, symmetric, with a scale
for each output channel; activations are symmetric, with a scale made anew for each token or each batch of 16 windows.
"outliers": four channels of every norm's output planted fifty times as large. The cache has groups of 32 tokens; its
bytes are those of one window of 256 tokens, against float32 in the first row of them.
"""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import product

import torch
from torch import Tensor

import nanoq
from nanoq.files import data_dir, write_csv
from nanoq.lm import GPT, load_corpus, paired_difference, perplexity, window_losses
from nanoq.lm.model import KVCache
from nanoq.quant import Recipe, quantize_model, sample_windows
from nanoq.quant.activations import activation_quantization
from nanoq.quant.kv_cache import QuantizedKVCache, StepwiseModel
from nanoq.quant.outliers import plant_outliers, smoothquant

RESULTS = data_dir() / "results"


def main() -> None:
    """Measure every setting, print it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=32)
    windows = parser.parse_args().windows
    checkpoint, corpus = nanoq.load("tales-2.7m"), load_corpus("tales")
    model, train = checkpoint.model, checkpoint.tokenizer.encode(corpus.train)
    test = checkpoint.tokenizer.encode(corpus.test)
    calibration = sample_windows(train, model.config.context, 32)
    reference = window_losses(model, test, limit=windows)
    rows = []
    for setting, losses, size in (*activations(model, calibration, test, windows), *caches(model, test, windows)):
        delta = paired_difference(losses, reference)
        rows.append({"setting": setting, "windows": windows, "perplexity": round(perplexity(losses), 4),
                     "delta_nats": round(delta.mean, 5), "ci_low": round(delta.low, 5),
                     "ci_high": round(delta.high, 5), "cache_bytes": size})
        print(rows[-1], flush=True)
    write_csv(RESULTS / "activations.csv", rows)


def activations(model: GPT, calibration: Tensor, test: Tensor, windows: int) -> Iterator[tuple[str, Tensor, str]]:
    """Each model at each width: as trained, with planted outliers, and smoothed after that."""
    planted = deepcopy(model)
    plant_outliers(planted)
    models = {"as trained": model, "outliers": planted}
    for alpha in (0.25, 0.5, 0.75):
        models[f"outliers, smoothed alpha {alpha}"] = deepcopy(planted)
        smoothquant(models[f"outliers, smoothed alpha {alpha}"], calibration, alpha)
    for (name, original), bits in product(models.items(), (8, 4)):
        quantized = deepcopy(original)
        quantize_model(quantized, Recipe(bits=bits, symmetric=True))
        for granularity in (None, "tensor", "token"):
            rounded = activation_quantization(quantized, bits, granularity) if granularity else nullcontext()
            with rounded:
                losses = window_losses(quantized, test, limit=windows)
            label = f"W{bits}A{bits} per {granularity}" if granularity else f"W{bits}"
            yield f"{name}: {label}", losses, ""


def caches(model: GPT, test: Tensor, windows: int) -> Iterator[tuple[str, Tensor, str]]:
    """A cache in float32, then one for each width and pair of granularities."""
    makers = {"cache float32": KVCache}
    for bits, keys, values in product((8, 4, 2), ("channel", "token"), ("channel", "token")):
        makers[f"cache {bits} bits: keys per {keys}, values per {values}"] = partial(
            QuantizedKVCache, bits=bits, residual=0, key_granularity=keys, value_granularity=values)
    makers["cache 2 bits: keys per channel, values per token, residual 32"] = partial(QuantizedKVCache, bits=2)
    for name, make_cache in makers.items():
        losses = window_losses(StepwiseModel(model, make_cache), test, limit=windows)
        yield name, losses, str(cache_bytes(model, make_cache(model.config.layers), test))


@torch.inference_mode()
def cache_bytes(model: GPT, cache: KVCache, test: Tensor) -> int:
    """Bytes that a cache holds after one window was read."""
    model(test[None, : model.config.context], cache)
    if isinstance(cache, QuantizedKVCache):
        return cache.bytes
    return sum(t.numel() * t.element_size() for t in (*cache.keys, *cache.values))


if __name__ == "__main__":
    main()
