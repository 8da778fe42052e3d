"""Training recipes at equal budgets of characters, on the same model, data and validation windows.

    NANOQ_DATA=../shared/data python benchmarks/training.py published --characters 800000
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/training.py tuned

`published` trains four recipes as they stand, and writes data/results/training.csv and training.png. `tuned` gives
nanoGPT's recipe (AdamW, cosine) the best of three learning rates and two batches, chosen at half a million characters,
and trains it for two million with three seeds; and the course's recipe for a third, a fourth and a fifth of them. It
writes data/results/training_tuned.csv; rows that the file has are not trained again. Schedules are stretched to the
budget; warm-up is as published where it fits into a tenth of the steps.
"""

import argparse
from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import torch

from nanoq.files import data_dir, read_csv, write_csv
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
RATES, BATCHES, CHOOSE_AT, BUDGET = (1e-3, 2e-3, 4e-3), (8, 32), 500_000, 2_000_000
COLUMNS = ("recipe", "batch", "lr", "characters", "seed")  # of training_tuned.csv; valid_loss comes after them


class Texts:
    """A corpus as tokens."""

    def __init__(self, name: str):
        corpus = load_corpus(name)
        self.tokenizer = CharTokenizer.from_text(corpus.train)
        self.name = corpus.name
        self.splits = self.tokenizer.encode(corpus.train), self.tokenizer.encode(corpus.valid)

    def train(self, recipe: TrainConfig, dropout: float, evaluations: int) -> list[dict]:
        """The history of a new model of 2.7 million parameters, with the recipe's seed."""
        config = GPTConfig(self.tokenizer.vocab_size, dropout=dropout)
        steps = recipe.steps(config.context)
        recipe = replace(recipe, warmup=min(recipe.warmup, steps // 10), evaluate_every=max(1, steps // evaluations))
        torch.manual_seed(recipe.seed)
        return train(GPT(config), *self.splits, recipe)


def published(texts: Texts, characters: int) -> None:
    """Train every recipe as it stands and write the results."""
    rows = []
    for name, (recipe, dropout) in RECIPES.items():
        history = texts.train(replace(recipe, tokens=characters), dropout, 10)
        rows += [{"recipe": name, "corpus": texts.name, "threads": torch.get_num_threads(), **row} for row in history]
        print(name, history[-1], flush=True)
    write_csv(RESULTS / "training.csv", rows)
    plot(rows)


def tuned(texts: Texts) -> None:
    """The best of AdamW for a budget, and the course's recipe for shares of it."""
    path = RESULTS / "training_tuned.csv"
    rows = {tuple(row[key] for key in COLUMNS): row for row in (read_csv(path) if path.is_file() else [])}

    def loss(name: str, recipe: TrainConfig, characters: int, seed: int) -> float:
        what = name, recipe.batch, recipe.lr, characters, seed
        key = tuple(map(str, what))
        if key not in rows:
            recipe = replace(recipe, tokens=characters, seed=seed, precision="bf16", valid_windows=512)
            rows[key] = dict(zip(COLUMNS, what, strict=True)) | {
                "valid_loss": texts.train(recipe, 0.0, 1)[-1]["valid_loss"]}
            print(rows[key], flush=True)
            write_csv(path, list(rows.values()))
        return float(rows[key]["valid_loss"])

    choices = [replace(NANOGPT, lr=lr, batch=batch) for lr, batch in product(RATES, BATCHES)]
    best = min(choices, key=lambda recipe: loss("adamw", recipe, CHOOSE_AT, 0))
    for seed in range(3):
        for share in (5, 4, 3):
            loss("course", COURSE, BUDGET // share, seed)
        loss("adamw", best, BUDGET, seed)


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


def main() -> None:
    """One of the two jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("published", "tuned"))
    parser.add_argument("--characters", type=int, default=800_000, help="of published")
    parser.add_argument("--corpus", default="tinystories")
    arguments = parser.parse_args()
    texts = Texts(arguments.corpus)
    if arguments.job == "tuned":
        tuned(texts)
    else:
        published(texts, arguments.characters)


if __name__ == "__main__":
    main()
