"""Ternary weights by every road: which operator, and what learned rounding and training with rounded weights give.

    OMP_NUM_THREADS=1 python benchmarks/ternary.py digits
    OMP_NUM_THREADS=1 python benchmarks/ternary.py hard
    OMP_NUM_THREADS=1 NANOQ_DATA=../shared/data python benchmarks/ternary.py gpt
    OMP_NUM_THREADS=1 NANOQ_DATA=../shared/data python benchmarks/ternary.py refit

`digits` trains the picture model with five seeds, makes each ternary by every method and operator, and writes
data/results/digits/ternary.csv; the network of seed 0 is the shipped checkpoint digits-resnet. `hard` does the same
with three seeds on pictures that are moved, turned and noisy, and writes data/results/digits/ternary_hard.csv. `gpt`
does it once to the shipped GPT, packed at 1.6 bits per weight and loaded from its file, and writes
data/results/tinystories/ternary.csv. `refit` makes the GPT ternary by every operator and method twice, with the
operator's own levels and with refitted ones, by seeds of the calibration text, and writes
data/results/tinystories/ternary_refit.csv. Rows that a file has already are not measured again: an interrupted run goes
on.

One scale per row; where a method calibrates, AdaRound and GPTQ fit the unquantised model's outputs
(`match_original`), as BRECQ always does. "refit" is the least-squares scale after rounding: of the weights without
data, of the layer's outputs with them. Stem, classifier, embeddings and norms stay float16.
"""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from nanoq.compress.distil import distillation_loss
from nanoq.files import data_dir, read_csv, write_csv
from nanoq.lm import GPT, TrainConfig, train
from nanoq.quant import Recipe, convert_qat, prepare_qat, quantize_model
from nanoq.store import Checkpoint, save
from nanoq.teach.leaderboard import Leaderboard, Row
from nanoq.vision import Images, ImageTrainConfig, ResNet, ResNetConfig, accuracy, load_images, train_classifier
from nanoq.vision.train import augment

DATA = data_dir()
OPERATORS = ("naive", "tquant", "mquant", "lloyd")
BITS = 1.58
METHODS = {  # name: method, its options, match_original, refit
    "data-free": ("nearest", {}, False, False),
    "data-free, refit": ("nearest", {}, False, True),
    "gptq": ("gptq", {}, True, False),
    "gptq, refit": ("gptq", {}, True, True),
    "adaround": ("adaround", {}, True, False),
    "adaround, refit": ("adaround", {}, True, True),
    "brecq": ("brecq", {"steps": 200, "batch": 8}, False, False),
    "brecq, refit": ("brecq", {"steps": 200, "batch": 8}, False, True),
}
COLUMNS = ("method", "bits", "average_bits", "bytes", "perplexity", "delta_nats", "ci_low", "ci_high")  # of a Row
NOISE = 1.5  # standard deviation of the noise on hard digits, in those of the pictures


def recipe_of(operator: str, method: str = "nearest", options: dict | None = None, match_original: bool = False,
              refit: bool = False, granularity: str = "channel") -> Recipe:
    """Every layer on a ternary grid."""
    grid = {"grid": "ternary", "grid_options": {"operator": operator, "granularity": granularity}}
    return Recipe(method, method_options=options, refit=refit, match_original=match_original, **grid)


def harder(pictures: Images, seed: int = 0) -> Images:
    """Every picture moved, turned and zoomed at random, under noise; three times the held-out ones."""
    generator = torch.Generator().manual_seed(seed)
    moved = ImageTrainConfig(shift=4.0, degrees=30.0, scale=0.3)

    def spoil(some: Tensor) -> Tensor:
        return augment(some, moved, generator) + NOISE * torch.randn(some.shape, generator=generator)

    return replace(pictures, name="hard digits", train=spoil(pictures.train),
                   test=spoil(pictures.test.repeat(3, 1, 1, 1)), test_labels=pictures.test_labels.repeat(3))


def digits(arguments: argparse.Namespace) -> None:
    """The picture model on plain digits, five seeds; the first one is shipped."""
    pictures, seeds = load_images(), arguments.seeds or 5
    path = DATA / "results" / "digits" / "ternary.csv"

    def ship(model: ResNet, measured: float) -> None:
        card = {"parameters": model.parameter_count(), "corpus": pictures.name, "source": pictures.source,
                "command": "python benchmarks/ternary.py digits", "test_accuracy": measured}
        save(DATA / "checkpoints" / "digits-resnet", Checkpoint(model, None, card))

    classify(pictures, path, seeds, ship)


def hard(arguments: argparse.Namespace) -> None:
    """The picture model on hard digits, three seeds."""
    classify(harder(load_images()), DATA / "results" / "digits" / "ternary_hard.csv", arguments.seeds or 3)


def classify(pictures: Images, path: Path, seeds: int, ship: Callable[[ResNet, float], None] | None = None) -> None:
    """Train the picture model with each seed, make it ternary in every way, and write what it reads correctly."""
    rows = read_rows(path)
    done = {(int(row["seed"]), row["method"], row["operator"]) for row in rows}
    wanted = [("float32", "")] + [(method, operator) for operator in OPERATORS for method in (*METHODS, "qat")]
    for seed in range(seeds):
        missing = [one for one in wanted if (seed, *one) not in done]
        if not missing:
            continue
        model, started = ResNet(ResNetConfig(), seed), time.perf_counter()
        train_classifier(model, pictures, ImageTrainConfig(seed=seed))
        for method, operator in missing:
            copy = deepcopy(model)
            if method != "float32":
                started, copy = time.perf_counter(), ternary_classifier(copy, pictures, method, operator, seed)
            share = accuracy(copy, pictures.test, pictures.test_labels)
            rows.append({"seed": seed, "method": method, "operator": operator, "accuracy": round(share, 6),
                         "seconds": round(time.perf_counter() - started, 1)})
            print(rows[-1], flush=True)
            write_csv(path, rows)
            if ship and seed == 0 and method == "float32":
                ship(model, share)


def ternary_classifier(model: ResNet, pictures: Images, name: str, operator: str, seed: int) -> ResNet:
    """The picture model after one method."""
    if name == "qat":
        return trained_digits(model, pictures, operator, seed)
    method, options, match, refit = METHODS[name]
    options = options | {"steps": 300, "batch": 32} if method == "brecq" else options
    quantize_model(model, recipe_of(operator, method, options, match, refit),
                   None if method == "nearest" else pictures.train[:512], 128)
    return model


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file of results; none if there is no file."""
    return read_csv(path) if path.is_file() else []


def trained_digits(model: ResNet, pictures: Images, operator: str, seed: int) -> ResNet:
    """Three epochs with ternary weights, from the trained ones, at a third of the learning rate."""
    prepare_qat(model, recipe_of(operator))
    train_classifier(model, pictures, ImageTrainConfig(epochs=3, lr=1e-3, seed=100 + seed))
    convert_qat(model)
    return model


def gpt(arguments: argparse.Namespace) -> None:
    """The shipped GPT."""
    board = Leaderboard("tinystories-2.7m", windows=arguments.windows)
    path = DATA / "results" / "tinystories" / "ternary.csv"
    rows = read_rows(path)
    done = {(row["method"], row["operator"]) for row in rows}

    def measure(method: str, operator: str, make: Callable[[], Row]) -> None:
        if (method, operator) in done:
            return
        started = time.perf_counter()
        row = asdict(make())
        seconds = round(time.perf_counter() - started, 1)
        rows.append({"operator": operator} | {column: row[column] for column in COLUMNS}
                    | {"seconds": seconds, "windows": len(board.losses[0])})
        print(rows[-1], flush=True)
        write_csv(path, rows)

    measure("float32", "", lambda: board.rows[0])
    measure("float16", "", lambda: board.add("float16", 16, Recipe(bits=16)))
    tuned = TrainConfig(tokens=arguments.steps * 8 * 256, lr=0.01, lr_rest=1e-3, warmup=20, evaluate_every=10**6,
                        seed=1)
    for operator in OPERATORS:
        measure("qat", operator, partial(add_trained, board, "qat", recipe_of(operator), tuned))
    for name, options in {"qat, learned scales": {"scales": "learned"}, "qat, distilled": {"teacher": True}}.items():
        measure(name, "lloyd", partial(add_trained, board, name, recipe_of("lloyd"), tuned, **options))
    # The weights of BitNet b1.58 from the first step on (activations stay float32), and its control: all float32.
    config = TrainConfig(tokens=arguments.scratch, evaluate_every=10**6)
    fresh = partial(GPT, board.reference.model.config, seed=1)
    measure("float16, from scratch", "", lambda: add_untouched(board, fresh(), config))
    bitnet = recipe_of("absmean", granularity="tensor")
    measure("bitnet, from scratch", "absmean",
            lambda: add_trained(board, "bitnet, from scratch", bitnet, config, model=fresh()))
    for operator in OPERATORS:
        for name in ("data-free", "data-free, refit", "gptq", "adaround", "brecq"):
            if (name, operator) != ("brecq", "naive"):
                recipe = recipe_of(operator, *METHODS[name])
                measure(name, operator, partial(board.add, name, BITS, recipe))


def refit(arguments: argparse.Namespace) -> None:
    """The shipped GPT with each operator's own levels and with refitted ones, on the same windows."""
    path = DATA / "results" / "tinystories" / "ternary_refit.csv"
    rows = read_rows(path)
    done = {(row["method"], row["operator"], int(row["seed"])) for row in rows}
    board = Leaderboard("tinystories-2.7m", windows=arguments.windows)
    for seed, name, operator in product(range(arguments.seeds or 3), METHODS, OPERATORS):
        wanted = name.startswith(tuple(arguments.methods.split(",")))
        if not wanted or (name, operator, seed) in done or (seed and name.startswith("data-free")):
            continue
        started, model = time.perf_counter(), deepcopy(board.reference.model)
        text = None if name.startswith("data-free") else board.task.calibration(seed=seed)
        quantize_model(model, recipe_of(operator, *METHODS[name]), text)
        row = board.add_model(name, BITS, model, size=0)
        rows.append({"method": name, "operator": operator, "seed": seed, "delta_nats": round(row.delta_nats, 5),
                     "ci_low": round(row.ci_low, 5), "ci_high": round(row.ci_high, 5),
                     "windows": len(board.losses[0]), "seconds": round(time.perf_counter() - started, 1)})
        print(rows[-1], flush=True)
        write_csv(path, rows)


def add_untouched(board: Leaderboard, model: GPT, config: TrainConfig) -> Row:
    """The row of a model trained in float32 and stored in float16."""
    encode = board.reference.tokenizer.encode
    train(model, encode(board.corpus.train), encode(board.corpus.valid), config)
    copy = replace(board.reference, model=model)
    quantize_model(model, Recipe(bits=16))
    return board.add_saved("float16, from scratch", 16, copy)


def add_trained(board: Leaderboard, name: str, recipe: Recipe, config: TrainConfig, scales: str = "recomputed",
                teacher: bool = False, model: GPT | None = None) -> Row:
    """The row of the GPT after training with rounded weights, from its own ones or from those of `model`."""
    copy = deepcopy(board.reference)
    copy.model = model or copy.model
    prepare_qat(copy.model, recipe, scales)
    encode = copy.tokenizer.encode
    train(copy.model, encode(board.corpus.train), encode(board.corpus.valid), config,
          loss_fn=distilled_from(board.reference.model) if teacher else None)
    convert_qat(copy.model)
    return board.add_saved(name, BITS, copy)


def distilled_from(teacher: GPT) -> Callable[[GPT, Tensor], Tensor]:
    """The loss of a student on windows (B, T + 1): how far its predictions are from the teacher's."""
    def loss(student: GPT, rows: Tensor) -> Tensor:
        with torch.no_grad():
            goal = teacher(rows[:, :-1])
        return distillation_loss(student(rows[:, :-1]), goal, rows[:, 1:])
    return loss


def main() -> None:
    """One of the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("digits", "hard", "gpt", "refit"))
    parser.add_argument("--seeds", type=int, help="of the picture model (5, hard: 3) or the calibration text (3)")
    parser.add_argument("--methods", default="", help="of refit: only those whose names begin so, parted by commas")
    parser.add_argument("--windows", type=int, default=512, help="held-out windows of the GPT")
    parser.add_argument("--steps", type=int, default=200, help="of training, 2,048 characters each")
    parser.add_argument("--scratch", type=int, default=600_000, help="characters of the runs from scratch")
    arguments = parser.parse_args()
    {"digits": digits, "hard": hard, "gpt": gpt, "refit": refit}[arguments.job](arguments)


if __name__ == "__main__":
    main()
