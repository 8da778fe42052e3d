"""The four roads to a small model, each on the shipped GPT: bytes of the file, loss added, and what training it took.

    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/roads.py tinystories

writes data/results/NAME/roads.csv, a row after each model; rows that the file has already are not measured again, so
that an interrupted run goes on. Every model is written to a file, loaded again, and measured on the same held-out
windows. "characters" is the training text read after the shipped model, or, for models that start anew (road "start",
and students "from scratch"), all that they ever read.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch

from nanoq.compress import (
    LowRank,
    Prune,
    add_adapters,
    block_influence,
    compress_model,
    distillation,
    head_importance,
    head_similarity,
    kept_zeros,
    make_student,
    remove_blocks,
    remove_heads,
    remove_neurons,
)
from nanoq.files import data_dir, read_csv, write_csv
from nanoq.lm import GPT, TrainConfig, train
from nanoq.lm.evaluate import windows
from nanoq.quant import Recipe, Round, quantize_model
from nanoq.store import Checkpoint
from nanoq.teach.leaderboard import Leaderboard

RETRAIN, START = 200_000, 800_000  # characters
QUIET = {"evaluate_every": 10**6, "valid_windows": 2}
TUNED = TrainConfig(tokens=RETRAIN, lr=0.005, lr_rest=6e-4, warmup=10, **QUIET)
SCRATCH = TrainConfig(tokens=START, **QUIET)
ADAPTERS = replace(TUNED, optimizer="adamw", lr=1e-3)


class Roads:
    """The table on its way: a leaderboard, and the rows that the file holds."""

    def __init__(self, name: str, count: int, out: Path):
        self.board = Leaderboard(f"{name}-2.7m", windows=count)
        self.out, self.rows = out, []
        if out.is_file():
            self.rows = read_csv(out)
        encode = self.board.reference.tokenizer.encode
        self.tokens, self.valid = encode(self.board.corpus.train), encode(self.board.corpus.valid)
        self.model, self.calibration = self.board.reference.model, self.board.calibration

    def add(self, road: str, method: str, make: Callable[[GPT], GPT | None], bits: float = 16, characters: int = 0):
        """Measure what `make` turns a copy of the model into, or gives in its place, unless the file has it."""
        if any((row["road"], row["method"]) == (road, method) for row in self.rows):
            return
        copy = deepcopy(self.board.reference)
        model = make(copy.model) or copy.model
        row = self.board.add_saved(method, bits, Checkpoint(model, copy.tokenizer, copy.card))
        facts = {"road": road, "characters": characters, "windows": len(self.board.losses[0])}
        self.rows.append(facts | asdict(row))
        write_csv(self.out, self.rows)
        print(f"{road:12} {method:44} {row.bytes:>10,} {row.delta_nats:+.4f}", flush=True)

    def train(self, model: GPT, config: TrainConfig, **options) -> GPT:
        """Train a model on the training text, in place."""
        train(model, self.tokens, self.valid, config, **options)
        return model

    def change(self, *arguments, bits: int = 16) -> Callable[[GPT], GPT]:
        """A `make` that prunes by `Prune` with these arguments, and rounds what stays."""
        steps = [Prune(*arguments)] if bits == 16 else [Prune(*arguments), Round("gptq", bits=bits)]
        return lambda model: compress_model(model, steps, self.calibration)

    def rounded(self, bits: int, method: str, grid: str = "affine") -> Callable[[GPT], GPT]:
        """A `make` that quantises."""
        def make(model: GPT) -> GPT:
            quantize_model(model, Recipe(method, bits=bits, grid=grid), self.calibration)
            return model
        return make


def quantisation(r: Roads) -> None:
    """The road of this course: grids and roundings."""
    for bits in (4, 3, 2):
        for grid in ("affine", "power-law", "power-of-two"):
            for method in ("nearest", "gptq"):
                r.add("quantise", f"{method} {grid} {bits} bit", r.rounded(bits, method, grid), bits)
    for method in ("nearest", "gptq"):
        r.add("quantise", f"{method} nf4", r.rounded(4, method, "nf4"), 4)


def weights(r: Roads) -> None:
    """Single weights: scores, patterns, sparsities."""
    for sparsity in (0.3, 0.5, 0.7):
        for method in ("random", "magnitude", "wanda", "sparsegpt"):
            r.add("prune", f"{method} {sparsity:.0%}", r.change(method, sparsity))
    for method in ("magnitude", "wanda", "sparsegpt"):
        r.add("prune", f"{method} 2:4", r.change(method, pattern="2:4"))
    for method in ("magnitude", "sparsegpt"):
        r.add("prune", f"{method} 50%, matrix", r.change(method, 0.5, "matrix"))


def structures(r: Roads) -> None:
    """Heads, neurons and blocks, by importance and by similarity."""
    rows = windows(r.valid, r.model.config.context, 16)
    importance, similarity = head_importance(r.model, rows), head_similarity(r.model, rows[:, :-1])
    for count in (6, 12):
        for name, worth in (("importance", importance), ("similarity", -similarity)):
            heads: dict[int, list[int]] = {}
            for place in worth.flatten().argsort()[:count].tolist():
                block, head = divmod(place, worth.shape[1])
                heads.setdefault(block, []).append(head)
            r.add("prune", f"{count} heads by {name}", lambda m, heads=heads: remove_heads(m, heads, r.calibration))
    for share in (0.25, 0.5):
        r.add("prune", f"{share:.0%} of neurons", lambda m, share=share: remove_neurons(m, share, r.calibration))
    for block in range(len(r.model.blocks)):
        r.add("prune", f"without block {block}", lambda m, block=block: remove_blocks(m, [block]))
    influence = block_influence(r.model, rows[:, :-1])
    least = min(range(len(influence)), key=influence.__getitem__)
    r.add("prune", f"least influential block ({least})", lambda m: remove_blocks(m, [least]))


def retrained(r: Roads) -> None:
    """Pruning with training after it, in between, and from the start."""
    def once(model: GPT, sparsity: float = 0.7, characters: int = RETRAIN) -> None:
        compress_model(model, Prune("magnitude", sparsity, "matrix", pack=False))
        with kept_zeros(model):
            r.train(model, replace(TUNED, tokens=characters))

    def stepwise(model: GPT) -> GPT:
        for sparsity in (0.3, 0.5, 0.6, 0.7):
            once(model, sparsity, RETRAIN // 4)
        return compress_model(model, Prune("magnitude", 0))

    def anew(method: str | None) -> GPT:
        model = GPT(r.model.config)
        if method is None:
            return r.train(model, SCRATCH)
        compress_model(model, Prune(method, 0.7, "matrix", pack=False))
        with kept_zeros(model):
            r.train(model, SCRATCH)
        return compress_model(model, Prune("magnitude", 0))

    r.add("prune", "magnitude 70%, matrix", r.change("magnitude", 0.7, "matrix"))
    r.add("prune", "magnitude 70%, matrix, retrained", lambda m: once(m) or compress_model(m, Prune("magnitude", 0)),
          characters=RETRAIN)
    r.add("prune", "magnitude 70%, matrix, in four steps", stepwise, characters=RETRAIN)
    r.add("prune", "50% of neurons, retrained",
          lambda m: r.train(remove_neurons(m, 0.5, r.calibration), TUNED), characters=RETRAIN)
    r.add("prune", "without block 4, retrained", lambda m: r.train(remove_blocks(m, [4]), TUNED), characters=RETRAIN)
    r.add("start", "dense", lambda _: anew(None), characters=START)
    for method in ("random", "magnitude"):
        r.add("start", f"{method} 70% before training", lambda _, method=method: anew(method), characters=START)


def thin(r: Roads) -> None:
    """Low rank, and thin corrections to a rounded model."""
    for share in (0.5, 0.75):
        for aware in (False, True):
            r.add("low rank", f"svd{', activation-aware' * aware} {share:.0%}",
                  lambda m, s=share, a=aware: compress_model(m, LowRank(s, a), r.calibration))
    r.add("low rank", "svd, activation-aware 50%, retrained",
          lambda m: r.train(compress_model(m, LowRank(0.5), r.calibration), TUNED), characters=RETRAIN)

    def healed(model: GPT, bits: int, from_error: bool, trained: bool) -> GPT:
        r.rounded(bits, "gptq")(model)
        start = (r.model, r.calibration) if from_error else ()
        add_adapters(model, 8, *start)
        return r.train(model, ADAPTERS) if trained else model

    for bits in (3, 2):
        for name, flags in (("correction of rank 8", (True, False)), ("LoRA of rank 8, trained", (False, True)),
                            ("correction of rank 8, trained", (True, True))):
            r.add("low rank", f"gptq {bits} bit, {name}", lambda m, b=bits, f=flags: healed(m, b, *f), bits,
                  RETRAIN * flags[1])


def distilled(r: Roads) -> None:
    """A student with half the blocks: where it starts, what it learns from, at which temperature."""
    small = replace(r.model.config, layers=3)
    r.add("distil", "3 blocks from scratch, text", lambda _: r.train(GPT(small), SCRATCH), characters=START)
    for temperature in (1, 2, 4):
        loss = distillation(r.model, temperature)
        r.add("distil", f"3 blocks from scratch, teacher, T = {temperature}",
              lambda _, loss=loss: r.train(GPT(small), SCRATCH, loss_fn=loss), characters=START)
    both = distillation(r.model, 1, alpha=0.5)
    r.add("distil", "3 blocks from scratch, teacher and text",
          lambda _: r.train(GPT(small), SCRATCH, loss_fn=both), characters=START)
    r.add("distil", "3 of the teacher's blocks", lambda m: make_student(m, 3))
    for name, options in (("text", {}), ("teacher, T = 1", {"loss_fn": distillation(r.model)})):
        r.add("distil", f"3 of the teacher's blocks, {name}",
              lambda m, options=options: r.train(make_student(m, 3), SCRATCH, **options), characters=START)


def together(r: Roads) -> None:
    """Two roads: zeros and fewer bits in one walk, or a smaller model and then fewer bits."""
    for bits in (4, 3):
        r.add("together", f"sparsegpt 50% and {bits} bit", r.change("sparsegpt", 0.5, bits=bits), bits)
        r.add("together", f"25% fewer neurons, gptq {bits} bit",
              lambda m, b=bits: r.rounded(b, "gptq")(remove_neurons(m, 0.25, r.calibration)), bits)

    @cache  # trained only if a row needs it, and once
    def student() -> GPT:
        return r.train(make_student(r.model, 3), SCRATCH, loss_fn=distillation(r.model))
    for bits in (8, 4, 3):
        r.add("together", f"3 blocks, teacher, gptq {bits} bit",
              lambda _, b=bits: r.rounded(b, "gptq")(deepcopy(student())), bits, START)


def main() -> None:
    """Walk all roads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("tinystories", "tales"))
    parser.add_argument("--windows", type=int, default=256, help="held-out windows")
    arguments = parser.parse_args()
    r = Roads(arguments.corpus, arguments.windows, data_dir() / "results" / arguments.corpus / "roads.csv")
    torch.set_num_threads(1)
    for road in (weights, structures, distilled, retrained, thin, quantisation, together):
        road(r)


if __name__ == "__main__":
    main()
