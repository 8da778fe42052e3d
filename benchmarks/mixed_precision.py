"""One small GPT trained from the same start in several precisions, over several seeds.

    NANOQ_DATA=../shared/data python benchmarks/mixed_precision.py

writes data/results/mixed_precision.csv: a row for each run, with its loss on the same held-out windows, evaluated in
float32. "÷ 1024" divides the loss, and so every gradient, by 1024, as a batch 1024 times as large does to the gradient
of each token. In exact arithmetic AdamW would hardly notice.
"""

import argparse

import torch
import torch.nn.functional as F

from nanoq.files import data_dir, write_csv
from nanoq.lm import GPT, CharTokenizer, GPTConfig, load_corpus, window_losses
from nanoq.lm.training import batch_at
from nanoq.numbers import train_mixed

RESULTS = data_dir() / "results"
# name: (precision of the products, format of the stored weights, their rounding, divisor of the loss)
RUNS = {
    "fp32": ("fp32", "fp32", "nearest", 1),
    "bf16": ("bf16", "fp32", "nearest", 1),
    "fp16": ("fp16", "fp32", "nearest", 1),
    "fp16 + loss scaling": ("fp16 + loss scaling", "fp32", "nearest", 1),
    "fp8": ("fp8", "fp32", "nearest", 1),
    "fp16 ÷ 1024": ("fp16", "fp32", "nearest", 1024),
    "fp16 + loss scaling ÷ 1024": ("fp16 + loss scaling", "fp32", "nearest", 1024),
    "bf16, weights stored in bf16": ("bf16", "bf16", "nearest", 1),
    "bf16, weights stored in bf16, stochastic rounding": ("bf16", "bf16", "stochastic", 1),
}


def main() -> None:
    """Run everything and write a row after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="tinystories")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    corpus = load_corpus(arguments.corpus)
    tokenizer = CharTokenizer.from_text(corpus.train)
    config = GPTConfig(tokenizer.vocab_size, layers=4, heads=4, width=128, context=128)
    splits = tokenizer.encode(corpus.train), tokenizer.encode(corpus.valid)
    rows = []
    for seed in range(arguments.seeds):
        for name in RUNS:
            rows.append({"run": name, "corpus": corpus.name, "seed": seed, **one_run(name, config, splits, seed,
                                                                                     arguments.steps)})
            print(rows[-1], flush=True)
            write_csv(RESULTS / "mixed_precision.csv", rows)


def one_run(name: str, config: GPTConfig, splits: tuple, seed: int, steps: int, batch: int = 8) -> dict:
    """Train one model and return what came of it."""
    precision, store, rounding, divisor = RUNS[name]
    train_tokens, valid_tokens = splits

    def loss(model: GPT, rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()) / divisor

    model = GPT(config, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 20, 1 - step / steps))
    batches = [batch_at(train_tokens, step, batch, config.context, seed) for step in range(steps)]
    history = train_mixed(model, loss, batches, optimizer, precision, scheduler=decay, store=store,
                          rounding=rounding, seed=seed)
    return {
        "steps": steps,
        "characters": steps * batch * config.context,
        "valid_loss": round(float(window_losses(model, valid_tokens, limit=256).mean()), 5),
        "skipped": sum(step.skipped for step in history),
        "flushed": round(sum(step.flushed for step in history) / steps, 5),
        "lost_mean": round(sum(step.lost for step in history) / steps, 5),
        "lost_last_tenth": round(sum(step.lost for step in history[-steps // 10 :]) / (steps // 10), 5),
    }


if __name__ == "__main__":
    main()
