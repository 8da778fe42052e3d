"""Four training recipes at an equal budget of characters, on the same model, data and validation windows.

    NANOQ_DATA=../shared/data python benchmarks/training.py --characters 800000

writes data/results/training.csv and training.png. Schedules are stretched to the budget; warm-up is as published
where it fits into a tenth of the steps.
"""

import argparse
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

from nanoq.files import data_dir, write_csv
from nanoq.lm import GPT, CharTokenizer, GPTConfig, TrainConfig, load_corpus, train
from nanoq.teach.plots import COLORS, use_style

RESULTS = data_dir() / "results"
COURSE = TrainConfig()
# The student project (PAPERS 7): AdamW 5e-4, cosine to a tenth, batch 128, weight decay 0.1, dropout 0.1, no clipping.
STUDENT = TrainConfig(batch=128, optimizer="adamw", lr=5e-4, lr_rest=None, weight_decay=0.1, warmup=75,
                      schedule="cosine", clip=0)
# nanoGPT's config/train_shakespeare_char.py: AdamW 1e-3, beta2 0.99, batch 64, warm-up 100, dropout 0.2.
NANOGPT = TrainConfig(batch=64, optimizer="adamw", lr=1e-3, lr_rest=None, weight_decay=0.1, beta2=0.99, warmup=100,
                      schedule="cosine")
RECIPES = {
    "course: Muon, batch 8": (COURSE, 0.0),
    "course with AdamW 2e-3, batch 8": (replace(COURSE, optimizer="adamw", lr=2e-3, lr_rest=2e-3), 0.0),
    "nanoGPT: AdamW, batch 64": (NANOGPT, 0.2),
    "student project: AdamW, batch 128": (STUDENT, 0.1),
}


def main() -> None:
    """Train every recipe and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=800_000)
    parser.add_argument("--corpus", default="tinystories")
    arguments = parser.parse_args()
    corpus = load_corpus(arguments.corpus)
    tokenizer = CharTokenizer.from_text(corpus.train)
    splits = tokenizer.encode(corpus.train), tokenizer.encode(corpus.valid)
    rows = []
    for name, (recipe, dropout) in RECIPES.items():
        config = GPTConfig(tokenizer.vocab_size, dropout=dropout)
        steps = replace(recipe, tokens=arguments.characters).steps(config.context)
        recipe = replace(recipe, tokens=arguments.characters, warmup=min(recipe.warmup, steps // 10),
                         evaluate_every=max(1, steps // 10))
        history = train(GPT(config), *splits, recipe)
        rows += [{"recipe": name, "corpus": corpus.name, "threads": torch.get_num_threads(), **row} for row in history]
        print(name, history[-1], flush=True)
    write_csv(RESULTS / "training.csv", rows)
    plot(rows)


def plot(rows: list[dict]) -> None:
    """Validation loss against characters, a line for each recipe."""
    use_style()
    figure, axes = plt.subplots()
    for name, color, marker in zip(RECIPES, COLORS.values(), "osD^", strict=False):
        mine = [row for row in rows if row["recipe"] == name]
        axes.plot([r["characters"] / 1e6 for r in mine], [r["valid_loss"] for r in mine], color=color, marker=marker,
                  label=name)
    axes.set_xlabel("training characters (millions)")
    axes.set_ylabel("validation loss (nats a character)")
    axes.legend()
    figure.savefig(RESULTS / "training.png")


if __name__ == "__main__":
    main()
