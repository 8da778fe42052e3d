"""Ternary weights by every road: which operator, and what learned rounding and training with rounded weights give.

    OMP_NUM_THREADS=1 python benchmarks/ternary.py digits
    OMP_NUM_THREADS=1 NANOQ_DATA=../shared/data python benchmarks/ternary.py gpt

`digits` trains the picture model with five seeds, makes each ternary by every method and operator, and writes
data/results/digits/ternary.csv; the network of seed 0 is the shipped checkpoint digits-resnet. `gpt` does it once to
the shipped GPT, packed at 1.6 bits a weight and loaded from its file, and writes data/results/tinystories/ternary.csv.

A scale for each row; where a method calibrates, AdaRound and GPTQ fit the unquantised model's outputs
(`match_original`), as BRECQ always does. "refit" is the least-squares scale after rounding. Stem, classifier,
embeddings and norms stay float16.
"""

import argparse
import csv
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor, nn

from nanoq.compress.distil import distillation_loss
from nanoq.files import data_dir, write_csv
from nanoq.lm import GPT, TrainConfig, train
from nanoq.quant import Recipe, convert_qat, prepare_qat, quantize_model
from nanoq.store import Checkpoint, save
from nanoq.teach.leaderboard import Leaderboard, Row
from nanoq.vision import Images, ImageTrainConfig, ResNet, ResNetConfig, accuracy, load_images, train_classifier

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
}


def recipe_of(operator: str, method: str = "nearest", options: dict | None = None, match_original: bool = False,
              refit: bool = False, granularity: str = "channel") -> Recipe:
    """Every layer on a ternary grid."""
    grid = {"grid": "ternary", "grid_options": {"operator": operator, "granularity": granularity}}
    return Recipe(method, method_options=options, refit=refit, match_original=match_original, **grid)


def digits(arguments: argparse.Namespace) -> None:
    """Five seeds of the picture model."""
    pictures, rows = load_images(), []
    for seed in range(arguments.seeds):
        model = ResNet(ResNetConfig(), seed)

        def note(method: str, operator: str, net: nn.Module, started: float, seed: int = seed) -> None:
            rows.append({"seed": seed, "method": method, "operator": operator,
                         "accuracy": accuracy(net, pictures.test, pictures.test_labels),
                         "seconds": round(time.perf_counter() - started, 1)})
            print(rows[-1], flush=True)
            write_csv(DATA / "results" / "digits" / "ternary.csv", rows)

        started = time.perf_counter()
        train_classifier(model, pictures, ImageTrainConfig(seed=seed))
        note("float32", "", model, started)
        if seed == 0:
            card = {"parameters": model.parameter_count(), "corpus": pictures.name, "source": pictures.source,
                    "command": "python benchmarks/ternary.py digits", "test_accuracy": rows[-1]["accuracy"]}
            save(DATA / "checkpoints" / "digits-resnet", Checkpoint(model, None, card))
        for operator in OPERATORS:
            for name, (method, options, match, refit) in METHODS.items():
                started, copy = time.perf_counter(), deepcopy(model)
                options = options | {"steps": 300, "batch": 32} if method == "brecq" else options
                quantize_model(copy, recipe_of(operator, method, options, match, refit),
                               None if method == "nearest" else pictures.train[:512], 128)
                note(name, operator, copy, started)
            started, copy = time.perf_counter(), trained_digits(deepcopy(model), pictures, operator, seed)
            note("qat", operator, copy, started)


def trained_digits(model: ResNet, pictures: Images, operator: str, seed: int) -> ResNet:
    """Three epochs with ternary weights, from the trained ones, at a third of the learning rate."""
    prepare_qat(model, recipe_of(operator))
    train_classifier(model, pictures, ImageTrainConfig(epochs=3, lr=1e-3, seed=100 + seed))
    convert_qat(model)
    return model


def gpt(arguments: argparse.Namespace) -> None:
    """The shipped GPT. Rows that the file has already are not measured again: an interrupted run goes on."""
    board = Leaderboard("tinystories-2.7m", windows=arguments.windows)
    path, columns = DATA / "results" / "tinystories" / "ternary.csv", list(Row.__dataclass_fields__)
    rows = list(csv.DictReader(path.open())) if path.is_file() else []
    done = {(row["method"], row["operator"]) for row in rows}

    def measure(method: str, operator: str, make: Callable[[], Row]) -> None:
        if (method, operator) in done:
            return
        started = time.perf_counter()
        row = asdict(make())
        seconds = round(time.perf_counter() - started, 1)
        rows.append({"operator": operator} | {column: row[column] for column in columns}
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
    """One of the two jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("digits", "gpt"))
    parser.add_argument("--seeds", type=int, default=5, help="of the picture model")
    parser.add_argument("--windows", type=int, default=512, help="held-out windows of the GPT")
    parser.add_argument("--steps", type=int, default=200, help="of training, 2,048 characters each")
    parser.add_argument("--scratch", type=int, default=600_000, help="characters of the runs from scratch")
    arguments = parser.parse_args()
    {"digits": digits, "gpt": gpt}[arguments.job](arguments)


if __name__ == "__main__":
    main()
