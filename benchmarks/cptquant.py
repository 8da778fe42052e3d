"""The grid of CPTQuant's table 2 (arXiv 2412.03599): models by methods, what each costs on reviews and on WikiText-2.

Every number is measured here: sizes on the file, accuracies by one linear probe that is fitted to the unquantised
model, perplexities on GPTQ's protocol; of BERT and other masked language models, for which the paper does not say what
its "perplexity" is, the pseudo-perplexity (`nanoq.hf.masked_losses`). What the paper printed stands beside it where it
is known for certain.

    NANOQ_DATA=../shared/data python benchmarks/cptquant.py minilm opt-tales --epochs 1 --lr 2e-3

prints the table, and writes data/results/cptquant.csv or the file that `--out` names. "minilm-mlm" is MiniLM with a new
head for masks, which is trained with the rest of it in the passes over WikiText-2.
"""

import argparse
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nanoq
from nanoq.files import data_dir, write_csv
from nanoq.hf.model import HFModel
from nanoq.hf.tasks import (
    enclose_windows,
    features,
    fill_losses,
    fine_tune,
    gptq_losses,
    linear_probe,
    masked_losses,
    reviews,
    text_tokens,
    token_ids,
    wikitext,
)
from nanoq.lm.evaluate import evenly_spread, paired_difference
from nanoq.lm.training import TrainConfig, next_token_loss, train
from nanoq.mixed import cluster_bits, cmpq, compression_ratio, packed_sizes, parts_of, pmpq, recipe_of, tdmpq, total
from nanoq.quant import choose_backend, linear_layers, quantize_model
from nanoq.store import WEIGHTS, Checkpoint, layouts_of, save
from nanoq.tasks import EVERY, SHORT
from nanoq.timing import measure

MODELS = ("minilm", "opt-tales", "facebook/opt-125m", "facebook/opt-350m", "facebook/opt-1.3b", "facebook/opt-2.7b",
          "google-bert/bert-base-uncased", "google-bert/bert-base-multilingual-cased")
HEADED = "minilm-mlm"
METHODS = ("FP16", "INT8", "CMPQ", "PMPQ", "TDMPQ")
TASKS = ("imdb", "wikitext-2")
CLUSTERS = (16, 8, 4)
# The compression ratios of the paper's table 2, where there is no doubt which cell they stood in. Of its FP16 rows none
# is valid: a cast from 32 to 16 bits is exactly 2, and loses nothing that such tests could see.
PUBLISHED = {
    ("facebook/opt-350m", "wikitext-2"): {"CMPQ": 4.33, "PMPQ": 3.85, "TDMPQ": 3.14},
    ("facebook/opt-1.3b", "wikitext-2"): {"CMPQ": 4.33, "PMPQ": 3.85, "TDMPQ": 3.14, "FP16": 2.0},
    ("facebook/opt-2.7b", "wikitext-2"): {"CMPQ": 4.33, "TDMPQ": 3.14},
    ("facebook/opt-350m", "imdb"): {"PMPQ": 2.60},
    ("facebook/opt-1.3b", "imdb"): {"PMPQ": 2.60, "TDMPQ": 4.53, "FP16": 2.35},
    ("google-bert/bert-base-multilingual-cased", "wikitext-2"): {"PMPQ": 2.17},
}


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        windows: of WikiText-2, to evaluate on.
        context: most tokens in one of them; a masked language model gets at most `nanoq.tasks.SHORT`.
        reviews: to fit the probe on, and as many others to test it.
        length: most tokens of a review.
        rows: windows, or reviews, that the sensitivities see.
        epochs: passes over the task's training text before anything else; 0 measures the model as it is.
        lr: of AdamW, in passes over WikiText-2; small models want more.
    """

    windows: int = 64
    context: int = 512
    reviews: int = 400
    length: int = 128
    rows: int = 16
    epochs: int = 0
    lr: float = 5e-5


@dataclass(frozen=True)
class Task:
    """One column of the table for one model.

    Attributes:
        name: in `TASKS`.
        rows: what the sensitivities see, for `loss_fn`: (N, T + 1).
        loss_fn: the task's loss on rows.
        items: what is measured for a model, float64 (N,): 1 for each review that the probe gets right, or the loss of
            each window.
        number: what the mean of the items is as the task's number, an accuracy or a perplexity.
        chance: that number of a model which knows nothing but how frequent each label or token is.
    """

    name: str
    rows: Tensor
    loss_fn: Callable[[nn.Module, Tensor], Tensor]
    items: Callable[[nn.Module], Tensor]
    number: Callable[[float], float]
    chance: float


def table_rows(models: Sequence[str], tasks: Sequence[str] = TASKS, effort: Effort | None = None) -> Iterator[dict]:
    """Yield a row for every model, task and method: what was measured, or why it was not.

    The keys: model, task, method; base and value, an accuracy as a share or a perplexity, before and after; change, low
    and high, their difference with its 95 % interval, paired by reviews or windows: below 0 for accuracy that is lost,
    above 0 for a perplexity that got worse; chance, as in `Task`; cr_fp32 and cr_fp16, of the whole file, and
    cr_linear, of the layers alone against float32; speed, of all layers at one token against float32; widths of the
    blocks; published, a compression ratio; skipped, the reason, or "".

    Raises:
        ValueError: if there is no task of a name.
    """
    if unknown := set(tasks) - set(TASKS):
        raise ValueError(f"no task {', '.join(sorted(unknown))}: there are {', '.join(TASKS)}")
    effort = effort or Effort()
    for name in models:
        try:
            original = _load(name, effort)
        except (FileNotFoundError, ValueError) as error:
            yield from (_skipped(name, task, _first_sentence(error)) for task in tasks)
            continue
        sizes = packed_sizes(original.model, CLUSTERS)  # training changes no size
        for task_name in tasks:
            try:
                checkpoint = deepcopy(original)
                task = _TASKS[task_name](checkpoint, effort)
            except (FileNotFoundError, ValueError) as error:
                yield _skipped(name, task_name, _first_sentence(error))
                continue
            base = task.items(checkpoint.model)
            for method in METHODS:
                published = PUBLISHED.get((name, task_name), {}).get(method, "")
                found = _measured(checkpoint, task, method, base, sizes)
                yield ({"model": name, "task": task_name, "method": method} | found
                       | {"published": published, "skipped": ""})


def _load(name: str, effort: Effort) -> Checkpoint:
    if name != HEADED:
        return nanoq.load(name)
    if not effort.epochs:
        raise ValueError(f"the head of {HEADED} is new: train it with --epochs")
    checkpoint = nanoq.load("minilm")
    return Checkpoint(with_head(checkpoint.model), checkpoint.tokenizer, checkpoint.card)


def with_head(encoder: HFModel, seed: int = 0) -> HFModel:
    """A BERT that fills masks: an encoder, and a new head, whose last matrix is the encoder's embeddings."""
    from transformers import BertForMaskedLM  # slow to import

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(encoder.model.config)
    model.bert.load_state_dict(encoder.model.state_dict())
    return HFModel(model).eval()


def _skipped(model: str, task: str, reason: str) -> dict:
    blank = ("method", "base", "value", "change", "low", "high", "chance", "cr_fp32", "cr_fp16", "cr_linear", "speed",
             "widths", "published")
    return {"model": model, "task": task} | dict.fromkeys(blank, "") | {"skipped": reason}


def _first_sentence(error: Exception) -> str:
    return str(error).split(". ")[0].split(": connect")[0]


def _measured(
    checkpoint: Checkpoint, task: Task, method: str, base: Tensor, sizes: dict[str, dict[int, int]]
) -> dict:
    """Quantise a copy, write it, and measure it."""
    widths = allocation(checkpoint.model, task, method)
    copy, recipe = deepcopy(checkpoint), recipe_of(widths, "nearest")
    quantize_model(copy.model, recipe)
    with tempfile.TemporaryDirectory() as folder:
        size = (save(folder, copy) / WEIGHTS).stat().st_size
    found, mean = paired_difference(task.items(copy.model), base), float(base.mean())
    value, low, high = (task.number(mean + difference) for difference in (found.mean, found.low, found.high))
    original = task.number(mean)
    bytes32 = 4 * checkpoint.model.parameter_count()
    linear = compression_ratio(2 * sum(size[16] for size in sizes.values()), total(sizes, widths))
    return {"base": original, "value": value, "change": value - original, "low": low - original,
            "high": high - original, "chance": task.chance, "cr_fp32": compression_ratio(bytes32, size),
            "cr_fp16": compression_ratio(bytes32 / 2, size), "cr_linear": linear, "speed": speed(copy.model),
            "widths": " ".join(map(str, widths.values()))}


def allocation(model: nn.Module, task: Task, method: str) -> dict[str, int]:
    """The width of each block: one for all (FP16, INT8), or the clusters {16, 8, 4} of a sensitivity."""
    if method in ("FP16", "INT8"):
        return dict.fromkeys(parts_of(model), 16 if method == "FP16" else 8)
    options = {"CMPQ": {}, "PMPQ": {"loss_fn": task.loss_fn, "levels": (0.3, 0.6, 0.9)},
               "TDMPQ": {"loss_fn": task.loss_fn, "noise": "matched", "draws": 2}}[method]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*samples are few")  # the paper has no more of them
        return cluster_bits({"CMPQ": cmpq, "PMPQ": pmpq, "TDMPQ": tdmpq}[method](model, task.rows, **options), CLUSTERS)


def speed(model: nn.Module) -> float:
    """Time of all layers in float32 over that on their fastest exact backends, at one token.

    A layer in float16 computes in float32 here, and takes the time of that.
    """
    kept = linear_layers(model)
    times = [report.seconds for report in (choose_backend(model, seconds=0.02) if layouts_of(model) else [])]
    for layer in kept.values():
        x = torch.randn(1, layer.in_features, generator=torch.Generator().manual_seed(0))
        times.append(measure({"fp32": partial(layer, x)}, seconds=0.02))
    before = sum(each["fp32"] for each in times)
    after = 0.0
    for each in times:
        quantised = [time for backend, time in each.items() if backend != "fp32"]
        after += min(quantised, default=each["fp32"])
    return before / after


CAPTION = """drop: of a linear probe's accuracy on imdb; +ppl: perplexity added on wikitext-2; ± half the 95 % interval.
CR: float32 bytes / bytes of the file; half of it is the ratio to float16. speed: of all layers at one token.
paper: the ratio in its table 2, where it is known; * is not possible, for a cast to 16 bits is exactly 2."""


def format_table(rows: Sequence[dict]) -> list[list[str]]:
    """The rows as the paper lays them out, a header first: models by methods, both tasks side by side."""
    lines = [["model", "method", "drop", "CR", "paper", "+ppl", "CR", "paper", "speed"]]
    cells = {(row["model"], row["method"], row["task"]): row for row in rows if not row["skipped"]}
    for model, method in dict.fromkeys((model, method) for model, method, _ in cells):
        mine = [cells.get((model, method, task)) for task in TASKS]
        speeds = [f"{row['speed']:.2f}" for row in mine if row]
        lines.append([model.split("/")[-1], method, *(text for row in mine for text in _cells(row)), speeds[0]])
    return lines


def _cells(row: dict | None) -> list[str]:
    if row is None:
        return ["–"] * 3
    sign, half = -1 if row["task"] == "imdb" else 1, (row["high"] - row["low"]) / 2
    change = f"{sign * row['change'] + 0.0:+.3f} ± {half:.3f}"
    paper = f"{row['published']:.2f}" if row["published"] else "–"
    impossible = row["method"] == "FP16" and row["published"] not in ("", 2)
    return [change, f"{row['cr_fp32']:.2f}", paper + "*" * impossible]


# ---- the two tasks ----


def _imdb(checkpoint: Checkpoint, effort: Effort) -> Task:
    """Accuracy of a linear probe, fitted once, on the mean of the hidden states."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    data, length = reviews("imdb", effort.reviews, effort.reviews), min(effort.length, model.config.context)
    if effort.epochs:
        fine_tune(model, tokenizer, data.train, data.train_labels, epochs=effort.epochs, max_length=length)
    probe = linear_probe(features(model, tokenizer, data.train, max_length=length), data.train_labels)
    weight, bias = (torch.tensor(part, dtype=torch.float32)[0] for part in (probe.coef_, probe.intercept_))

    def loss_fn(model: HFModel, rows: Tensor) -> Tensor:
        """The probe's loss on reviews (N, T) of equal length, each followed by its label."""
        hidden = model.hidden(rows[:, :-1], torch.ones_like(rows[:, :-1])).mean(1)
        return F.binary_cross_entropy_with_logits(hidden @ weight + bias, rows[:, -1].float())

    labelled = zip(token_ids(tokenizer, data.train, length), data.train_labels, strict=True)
    longest = sorted(labelled, key=lambda pair: -len(pair[0]))[: effort.rows]
    shortest = len(longest[-1][0])
    rows = torch.tensor([[*ids[:shortest], label] for ids, label in longest])
    def right(model: HFModel) -> Tensor:
        found = probe.predict(features(model, tokenizer, data.test, max_length=length).numpy())
        return torch.tensor(found == data.test_labels, dtype=torch.float64)
    return Task("imdb", rows, loss_fn, right, float, 0.5)


def _wikitext(checkpoint: Checkpoint, effort: Effort) -> Task:
    """Perplexity, or pseudo-perplexity."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if model.kind == "masked-lm":
        return _masked_wikitext(model, tokenizer, effort)
    if model.kind != "causal-lm":
        raise ValueError(f"a model of kind '{model.kind}' predicts no next token, and so has no perplexity")
    context = min(effort.context, model.config.context)
    text, held_out = (wikitext(tokenizer, context, split) for split in ("train", "test"))
    if effort.epochs:
        tokens = text.flatten()
        train(model, tokens, held_out.flatten(),
              TrainConfig(tokens=effort.epochs * len(tokens), optimizer="adamw", lr=effort.lr, lr_rest=None,
                          evaluate_every=10**9))
    rows = text[evenly_spread(len(text), effort.rows)]
    return Task("wikitext-2", rows, next_token_loss,
                lambda model: gptq_losses(model, held_out, effort.windows, batch=4), math.exp,
                unigram(text, held_out[:, 1:]))


def _masked_wikitext(model: HFModel, tokenizer, effort: Effort) -> Task:
    """Pseudo-perplexity: of every 8th token, each masked by itself."""
    context = min(effort.context, SHORT, model.config.context)
    text, held_out = (enclose_windows(tokenizer, wikitext(tokenizer, context, split)) for split in ("train", "test"))
    tokens = text[text_tokens(tokenizer, text)]
    if effort.epochs:
        train_masked(model, tokenizer, tokens, effort)

    def loss_fn(model: HFModel, rows: Tensor) -> Tensor:
        """The loss where every 7th token is masked at once, which is nearly BERT's 15 %."""
        chosen = text_tokens(tokenizer, rows) & (torch.arange(rows.shape[1]) % 7 == 3)
        return fill_losses(model, tokenizer, rows, chosen).mean()

    measured = held_out[evenly_spread(len(held_out), effort.windows)]
    return Task("wikitext-2", text[evenly_spread(len(text), effort.rows)], loss_fn,
                lambda model: masked_losses(model, tokenizer, measured, EVERY), math.exp,
                unigram(tokens, measured[text_tokens(tokenizer, measured)]))


def train_masked(model: HFModel, tokenizer, tokens: Tensor, effort: Effort) -> None:
    """Train a masked language model in place on a text (N,), masking 15 % of the tokens, as BERT was trained.

    All of these become the mask token, for that is what stands there in the pseudo-perplexity. A head that is new
    starts with the frequencies of the tokens, which a bias would not learn in so few steps.
    """
    bias = model.model.get_output_embeddings().bias
    if not bias.any():
        with torch.no_grad():
            bias.copy_(log_frequencies(tokens, len(bias)))

    def loss_fn(model: HFModel, rows: Tensor) -> Tensor:
        rows = enclose_windows(tokenizer, rows[:, :-1])
        chosen = text_tokens(tokenizer, rows) & (torch.rand(rows.shape) < 0.15)  # the generator is seeded by `train`
        return fill_losses(model, tokenizer, rows, chosen).mean()

    train(model, tokens, tokens,
          TrainConfig(tokens=effort.epochs * len(tokens), batch=2, optimizer="adamw", lr=effort.lr, lr_rest=None,
                      precision="bf16", evaluate_every=10**9, valid_windows=1), loss_fn=loss_fn)


def unigram(text: Tensor, held_out: Tensor) -> float:
    """Perplexity of tokens for who knows only how often each occurs in a text."""
    size = int(max(text.max(), held_out.max())) + 1
    return math.exp(-log_frequencies(text, size).double()[held_out].mean())


def log_frequencies(text: Tensor, size: int) -> Tensor:
    """Of each of so many tokens the logarithm of its share of a text; each is taken to occur once more: (size,)."""
    counts = torch.bincount(text.flatten(), minlength=size) + 1
    return (counts / counts.sum()).log()


_TASKS = {"imdb": _imdb, "wikitext-2": _wikitext}


def main() -> None:
    """Measure the table, print it, write it, and say why what is missing is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS,
                        help="minilm, opt-tales, folders or names on the hub; by default these two and the paper's")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--windows", type=int, default=Effort.windows, help="of WikiText-2")
    parser.add_argument("--reviews", type=int, default=Effort.reviews, help="to fit the probe on, and as many to test")
    parser.add_argument("--epochs", type=int, default=0, help="passes over the task's training text before all else")
    parser.add_argument("--lr", type=float, default=Effort.lr, help="of AdamW, in passes over WikiText-2")
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "cptquant.csv")
    arguments = parser.parse_args()
    effort = Effort(arguments.windows, reviews=arguments.reviews, epochs=arguments.epochs, lr=arguments.lr)
    rows = []
    for row in table_rows(arguments.models, arguments.tasks, effort):
        rows.append(row)
        write_csv(arguments.out, rows)  # after each, for the last model may take hours
    for line in format_table(rows):
        print("{:24} {:6} {:>16} {:>6} {:>6} {:>20} {:>6} {:>6} {:>6}".format(*line))
    print(CAPTION)
    for row in rows:
        if row["skipped"]:
            print(f"left out: {row['model']} on {row['task']}: {row['skipped']}")


if __name__ == "__main__":
    main()
