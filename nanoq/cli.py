"""The command line: `nanoq compare`, `train`, `quantize`, `evaluate`, `export`, `generate`, `quiz` and so on.

torch takes seconds to import, and a command that only shows its help has no use for it. So the commands reach the rest
of the package as `nanoq.quant`, `nanoq.store` and so on, which are imported when they are first asked for.
"""

import io
import json
import math
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import psutil
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

import nanoq
from nanoq import __version__
from nanoq.files import check_file, check_folder, data_dir, write_csv, write_text

if TYPE_CHECKING:
    import torch

    from nanoq.lm import GPT, GPTConfig
    from nanoq.quant import Recipe
    from nanoq.store import Checkpoint

# What the help says without the modules that know it; a test compares both, and the defaults of `train`.
METHODS = "nearest, gptq, adaround, brecq, autoround, block-ap"
GRIDS = ("affine, affine-dynamic, ternary, power-of-two, power-law, entropy-coded, k-means, k-means-input, hqq, "
         "imatrix, mxfp4, mxfp8, nvfp4, nf4, nf4-dq")
SCORES = "magnitude, wanda, random"
FORMATS = "compressed-tensors, gptq, gguf"
KINDS = "causal-lm, seq2seq, masked-lm, encoder"


class _App(typer.Typer):
    """The commands, and an output that ends none of them in a traceback."""

    def __call__(self, *arguments, **options) -> None:
        """Run the command that the arguments name, and leave the program with its code."""
        for output in (sys.stdout, sys.stderr):
            if isinstance(output, io.TextIOWrapper):
                output.reconfigure(errors="replace")  # not every terminal knows a Δ
        code = 0
        for step in (partial(super().__call__, *arguments, **options), _flush):
            try:
                step()
            except SystemExit as end:
                code = end.code
            except OSError as error:  # of the output: what else can go wrong is reported by the commands
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
                enough = isinstance(error, BrokenPipeError)  # `nanoq generate | head` has what it wants
                if not code and not enough:
                    print(f"nanoq: the output cannot be written ({error.strerror})", file=sys.stderr)
                code = code or (1 if enough else 2)
        sys.exit(code)


def _flush() -> None:
    if sys.stdout:  # there is none where the caller has closed it
        sys.stdout.flush()


app = _App(
    help="Learn how neural networks are quantised: the course's package on the command line.",
    no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
)
console = Console()

ModelArgument = Annotated[str, typer.Argument(
    help="A shipped model's name (see `nanoq info`), a folder, or a model of the Hugging Face hub, as gpt2.")]
ResultOption = Annotated[Path, typer.Option(help="Folder for the smaller model.")]
ContextOption = Annotated[int | None, typer.Option(
    min=2, help="Tokens in a window; by default as many as the model can read, but at most 2048, and 128 for a masked "
                "language model.")]
CorpusOption = Annotated[str | None, typer.Option(
    help="tales, tinystories, wikitext-2 or a text file; by default the one that the checkpoint was trained on.")]
CalibrationOption = Annotated[str | None, typer.Option(
    help="What to calibrate on: tales, tinystories, wikitext-2 or a text file; by default what the checkpoint was "
         "trained on, and wikitext-2 for a model of the hub. For images digits, fashion-mnist or cifar-10.")]
CalibrationWindowsOption = Annotated[int | None, typer.Option(
    min=1, help="Windows of text, or images, to calibrate on, from the training split; by default 128, and of text for "
                "models of transformers 65,536 tokens.")]
CalibrationContextOption = Annotated[int | None, typer.Option(
    min=2, help="Tokens in a window; by default as many as the model can read, but at most 2048, and 128 for causal "
                "language models of transformers.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Windows that go through a block at once.")]
KindOption = Annotated[str | None, typer.Option(
    help=f"{KINDS}, for a model of transformers; by default what its configuration says.")]
WindowsOption = Annotated[int, typer.Option(min=2, help="Held-out windows, evenly spread over the test split.")]
FullOption = Annotated[bool, typer.Option("--full", help="Take every window of the test split.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
SeedOption = Annotated[int, typer.Option(
    min=0, max=2**32 - 1,
    help="Seed of the choice of windows, of a rotation, of methods that draw, of training and of sampling.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the model that --out holds.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the errors that a user can mend into one line and exit code 2; too little memory is one of them."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output has enough: click ends the program without a word
        raise
    except (MemoryError, RuntimeError, ValueError, OSError) as error:
        from nanoq.memory import out_of_memory

        shortage = out_of_memory(error)
        if not shortage and not isinstance(error, (ValueError, OSError)):
            raise
        _fail(" ".join(str(shortage or error).split()))


def _fail(message: str) -> NoReturn:
    print("nanoq:", message, file=sys.stderr)
    raise typer.Exit(2) from None


def _print_table(cells: list[list[str]], names: int, gap: int, caption: str | None = None) -> None:
    """Print a header and its lines, the first `names` columns to the left.

    One that is wider than the terminal runs over its edge: shortened numbers would be other numbers.
    """
    header, *lines = cells
    table = Table(caption=caption, box=None, padding=(0, gap, 0, 0), pad_edge=False, caption_justify="left")
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number < names else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    Console(width=max(console.width, needed), markup=False).print(table)


def _device(name: str) -> "torch.device":
    import torch

    if name != "auto":
        try:
            probe = torch.empty(0, device=name)
            probe.cpu()  # the device "meta" takes tensors and never gives them back
            return probe.device
        except (RuntimeError, AssertionError):  # torch asserts that it was built with CUDA
            raise ValueError(f"no device '{name}' on this machine; use --device auto") from None
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _weights(name: str) -> Path:
    """Where the weights of a checkpoint or a Hugging Face model lie; a file that is not there for one on the hub."""
    if nanoq.hf.is_hugging_face(name):
        return nanoq.hf.weights_file(name)
    return nanoq.store.find_checkpoint(name) / nanoq.store.WEIGHTS


def _check_out(out: Path, source: str | None = None, force: bool = False) -> None:
    """Look, before the work, whether a model may be written to a folder.

    Args:
        out: the folder; it need not be there.
        source: the model that is read to make one that may be made again, and may replace another such; None where a
            model is trained.
        force: whether any other model in `out` is to be replaced.

    Raises:
        ValueError: if the folder is that of the source, or holds a model that is not to be replaced.
    """
    from nanoq.hf.checkpoint import CONFIG
    from nanoq.lm.training import STATE
    from nanoq.store import CARD, WEIGHTS

    check_folder(out)
    foreign = source is not None and nanoq.hf.is_hugging_face(source)
    if source is not None and out.is_dir() and (folder := _weights(source).parent).is_dir() and folder.samefile(out):
        raise ValueError(f"--out {out} is the folder of the model that is read, which would be lost: name another one")
    if (out / CONFIG).exists() and not foreign:
        raise ValueError(f"--out {out} holds a model of transformers, whose {CONFIG} would stay: name another folder")
    held = [file for file in (WEIGHTS, CARD, CONFIG, STATE) if (out / file).exists()]
    if not held or force or (source is not None and _is_result(out)):
        return
    go_on = "" if source is not None or STATE not in held else "go on with its training by --resume, "
    raise ValueError(f"--out {out} holds a model already ({', '.join(held)}): {go_on}name another folder, or replace "
                     "it with --force")


def _is_result(folder: Path) -> bool:
    """Whether a folder holds what `nanoq quantize` or `nanoq prune` made of another model."""
    try:
        return not {"layers", "recipe"}.isdisjoint(nanoq.store.read_card(folder))
    except (OSError, ValueError):
        return False


def _command() -> str:
    """The command that made a model, for its card, without what it was to do with an earlier one."""
    return shlex.join(["nanoq", *(part for part in sys.argv[1:] if part not in ("--resume", "--force"))])


@app.command(epilog="Example: nanoq compare tinystories-2.7m --corpus my_stories.txt --out results")
def compare(
    checkpoint: ModelArgument = "tales-2.7m",
    corpus: CorpusOption = None,
    windows: WindowsOption = 128,
    full: FullOption = False,
    bits: Annotated[str, typer.Option(help="Widths to compare, 2 to 8.")] = "8,4,3,2",
    group_size: Annotated[int | None, typer.Option(help="Columns that share a scale; by default a whole row.")] = None,
    context: ContextOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for leaderboard.csv, .json, .png and the models.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Quantise a model to 8, 4, 3 and 2 bits, to nearest, by GPTQ and entropy-coded, and print the leaderboard."""
    with _one_line_errors():
        try:
            widths = [int(width) for width in bits.split(",")]
        except ValueError:
            raise ValueError(f"--bits takes numbers with commas between them, not '{bits}'") from None
        if out:
            check_folder(out)
            if _weights(checkpoint).resolve().is_relative_to((out / "models").resolve()):
                raise ValueError(f"{checkpoint} lies among the models that are written to {out}: name another folder")
        options = {} if group_size is None else {"group_size": group_size}
        board = nanoq.compare(checkpoint, corpus, bits=widths, windows=None if full else windows, out=out,
                              device=_device(device), context=context, **options)
    _print_table(board.cells(whole=True), names=1, gap=2, caption=board.caption)
    if out:
        print(f"wrote {out}/leaderboard.csv, .json, .png and {out}/models")


@app.command(epilog="Example: nanoq train tales --characters 2000000 --out runs/mine")
def train(
    corpus: Annotated[str, typer.Argument(help="tales, tinystories, wikitext-2 or a text file.")] = "tales",
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint and its history.")] = Path("runs/model"),
    characters: Annotated[int, typer.Option(help="Training characters to read in all.")] = 4_000_000,
    batch: Annotated[int, typer.Option(help="Sequences in a step.")] = 8,
    optimizer: Annotated[str, typer.Option(help="muon or adamw.")] = "muon",
    lr: Annotated[float, typer.Option(help="Peak learning rate of the block matrices.")] = 0.02,
    lr_rest: Annotated[float, typer.Option(help="Peak learning rate of everything else.")] = 3e-3,
    schedule: Annotated[str, typer.Option(help="linear or cosine.")] = "linear",
    warmup: Annotated[int, typer.Option(help="Steps of linear growth.")] = 50,
    precision: Annotated[str, typer.Option(
        help="fp32, or bf16 for matrix products: half as fast again where the processor multiplies it.")] = "fp32",
    evaluate_every: Annotated[int, typer.Option(help="Steps between saved states.")] = 100,
    layers: int = 6, heads: int = 6, width: int = 192, context: int = 256, dropout: float = 0.0,
    seed: SeedOption = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the state in --out.")] = False,
    force: ForceOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Train a GPT on a corpus. Ctrl-C saves; --resume goes on bit for bit."""
    with _one_line_errors():
        _check_out(out, force=force or resume)
        text = nanoq.lm.load_corpus(corpus)
        tokenizer = nanoq.lm.CharTokenizer.from_text(text.train)
        config = nanoq.lm.GPTConfig(tokenizer.vocab_size, context, layers, heads, width, dropout=dropout)
        model = _untrained(config, seed, _device(device))
        recipe = nanoq.lm.TrainConfig(tokens=characters, batch=batch, optimizer=optimizer, lr=lr, lr_rest=lr_rest,
                             schedule=schedule, warmup=warmup, precision=precision, evaluate_every=evaluate_every,
                             seed=seed)
        splits = tokenizer.encode(text.train), tokenizer.encode(text.valid)
        history = nanoq.lm.train(model, *splits, recipe, out, resume)
        step = history[-1]["step"] if history else 0
        if step < recipe.steps(context):
            print(f"stopped at step {step}; go on with --resume")
            raise typer.Exit(130)
        losses = nanoq.lm.window_losses(model, splits[1])
        card = {"corpus": corpus, "source": text.source, "licence": text.licence,
                "parameters": model.parameter_count(), "characters_seen": history[-1]["characters"],
                "seconds": history[-1]["seconds"], "validation_perplexity": round(nanoq.lm.perplexity(losses), 4),
                "command": _command()}
        nanoq.save(out, nanoq.Checkpoint(model, tokenizer, card))
    print(f"validation perplexity {nanoq.lm.perplexity(losses):.4f}; wrote {out}")


def _untrained(config: "GPTConfig", seed: int, device: "torch.device") -> "GPT":
    """The model to train, unless it cannot fit: where memory runs out little by little, the system ends the program."""
    count = config.layers * 12 * config.width**2 + (config.vocab_size + config.context) * config.width
    needed = count * (12 if device.type == "cpu" else 4)  # float32: weights, gradients, and one moment at the least
    there = psutil.virtual_memory().total
    if needed > there:
        raise ValueError(f"a model of {count:,} parameters needs {needed / 1e9:,.0f} GB of memory, and there are "
                         f"{there / 1e9:,.0f}: take a smaller --width, --context or number of --layers")
    return nanoq.lm.GPT(config, seed).to(device)


# Options of `quantize` that a recipe has its own words for.
_OF_RECIPES = ("bits", "average_bits", "rate", "spacing", "method", "grid", "group_size", "symmetric", "search",
               "damping", "act_order", "true_sequential", "match_original", "embeddings", "precision")


@app.command(epilog="Example: nanoq quantize tales-2.7m --bits 3 --method gptq --group-size 64 --out runs/gptq3")
def quantize(
    given_by: typer.Context,
    checkpoint: ModelArgument,
    out: ResultOption,
    bits: Annotated[int | None, typer.Option(help="2 to 8; by default 4, or what the grid has.")] = None,
    average_bits: Annotated[float | None, typer.Option(
        help="Mixed precision instead of --bits: as small as this width everywhere would be, each layer 2 to 8 bits by "
             "its GPTQ error.")] = None,
    rate: Annotated[float | None, typer.Option(
        help="Instead of --bits: bits per weight, as 2.25, of codes that are entropy-coded; the smallest files at a "
             "loss.")] = None,
    spacing: Annotated[str | None, typer.Option(help="With --rate: watersic or equal steps.")] = None,
    method: Annotated[str, typer.Option(help=f"{METHODS}.")] = "gptq",
    grid: Annotated[str | None, typer.Option(
        help=f"{GRIDS}; by default affine. The next three are for affine and affine-dynamic, which needs "
             "the first of them.")] = None,
    group_size: Annotated[int | None, typer.Option(
        help="Columns that share a scale; by default, or with -1, a whole row.")] = None,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="A grid without zero points.")] = False,
    search: Annotated[str | None, typer.Option(help="minmax or mse.")] = None,
    damping: Annotated[float | None, typer.Option(help="Share of the mean diagonal added to the Hessian's.")] = None,
    act_order: Annotated[bool, typer.Option("--act-order", help="gptq: columns with large inputs first.")] = False,
    true_sequential: Annotated[bool, typer.Option(
        "--true-sequential", help="Calibrate each layer on the quantised ones before it in its block.")] = False,
    match_original: Annotated[bool, typer.Option(
        "--match-original", help="Fit each layer to its outputs in the unquantised model.")] = False,
    embeddings: Annotated[int | None, typer.Option(
        help="Bits of embedding tables and heads: 16, 8 or 4; by default 8 for a causal language model of "
             "transformers, and 16 for others.")] = None,
    precision: Annotated[str, typer.Option(
        help="fp32, or bf16 for the matrix products of calibration: faster where the processor has them.")] = "fp32",
    rotate: Annotated[bool, typer.Option(
        "--rotate", help="Turn the model by a random Hadamard matrix first, which leaves what it computes alone: a GPT "
                         "of nanoq, or a model of transformers with the blocks of Llama.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="A JSON file with default and rules, for all the above.")] = None,
    stream: Annotated[bool | None, typer.Option(
        "--stream/--no-stream", help="For a model of transformers: one block in memory at a time, to the same result. "
                                     "The same command goes on where it was stopped. By default where free memory does "
                                     "not hold the model.")] = None,
    export: Annotated[str | None, typer.Option(
        help=f"Also write {FORMATS}, to the folder OUT-EXPORT beside OUT. Whether the format takes the "
             "quantised layers is looked at before the work.")] = None,
    corpus: CalibrationOption = None,
    windows: CalibrationWindowsOption = None,
    context: CalibrationContextOption = None,
    batch: BatchOption = 16,
    kind: KindOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Quantise a model, and write it as packed codes."""
    from nanoq.quant.export import check_export, count_parameters
    from nanoq.quant.recipe import is_blockwise
    from nanoq.verbs import recipe_for

    with _one_line_errors():
        given = {"grid": grid, "rate": rate, "spacing": spacing, "group_size": None if group_size == -1 else group_size,
                 "symmetric": symmetric or None, "search": search, "damping": damping, "act_order": act_order or None}
        options = {name: value for name, value in given.items() if value is not None}
        spare = [f"--{option.replace('_', '-')}" for option in _OF_RECIPES
                 if given_by.get_parameter_source(option).name == "COMMANDLINE"]
        if recipe and spare:
            raise ValueError(f"{recipe} says what to do to each layer: not with {', '.join(spare)}")
        if recipe:
            plan = first = _read_recipe(recipe)
            options = {}
        else:
            plan, first = method, recipe_for(method, bits, **options)  # what is wrong is said before the model is read
            options |= {"true_sequential": true_sequential, "match_original": match_original,
                        "precision": precision}
            options |= {} if embeddings is None else {"embeddings": embeddings}
        _check_out(out, checkpoint, force)
        beside = _check_beside(out, checkpoint, export, force)
        together = average_bits is not None or kind is not None or export or rotate
        blockwise = any(map(is_blockwise, first.steps))
        if stream is None and not together and not blockwise and (reason := nanoq.hf.beyond_memory(checkpoint)):
            print(f"{reason}: one block in memory at a time (--no-stream: all at once)")
            stream = True
        if stream:
            if together:
                raise ValueError("--stream takes none of --average-bits, --kind, --rotate and --export, which reads a "
                                 "whole model: run `nanoq export` on the folder")
            _stream(checkpoint, out, plan if recipe else partial(recipe_for, method, bits), options, corpus, windows,
                    context, batch, seed, _device(device))
            return
        loaded = _load(checkpoint, kind, device)
        parameters = count_parameters(loaded.model)
        for width in [] if export is None else [bits] if average_bits is None else range(2, 9):
            check_export(plan if recipe else recipe_for(method, width, **options), loaded, export)
        made = nanoq.quantize(loaded, plan, bits, average_bits=average_bits, data=corpus, windows=windows,
                              context=context, batch=batch, seed=seed, in_place=True, rotate=rotate, **options)
        _write(out, made, parameters)
        if export:
            _export(beside, made, export)
    if errors := {report.layer: report.output_error for report in made.reports if report.output_error is not None}:
        worst = max(errors, key=errors.get)
        print(f"largest output error: {errors[worst]:.4f} of the signal, in {worst}")


def _check_beside(out: Path, source: str, format: str | None, force: bool) -> Path | None:
    """The folder that an export goes to, if there is to be one, when it may be written there."""
    if format is None:
        return None
    nanoq.quant.export.format_named(format)
    out = out if out.name else out.resolve()  # "." has no name
    beside = out.with_name(f"{out.name}-{format}")
    _check_export_out(beside, source, force)
    return beside


def _stream(source: str, out: Path, plan: "Recipe | Callable[..., Recipe]", options: dict, corpus: str | None,
            windows: int | None, context: int | None, batch: int, seed: int, device: "torch.device") -> None:
    from nanoq.hf.stream import open_folder, quantize_opened  # not every user has transformers
    from nanoq.quant.embeddings import usual_width
    from nanoq.verbs import calibration_entry

    empty, weights = open_folder(source, device)
    parameters = empty.model.parameter_count()
    recipe = plan if isinstance(plan, nanoq.Recipe) else plan(**{"embeddings": usual_width(empty.model)} | options)
    task = nanoq.tasks.task_for(empty, corpus, context=context)
    calibration = task.calibration(windows, seed) if recipe.needs_calibration else None
    empty.card |= calibration_entry(corpus, calibration, seed)
    quantize_opened(empty, weights, out, recipe, calibration, batch, replace=True)  # which `_check_out` allows
    _say_size(out, nanoq.store.weight_files(out), parameters)


def _load(name: str, kind: str | None = None, device: str = "auto") -> "Checkpoint":
    loaded = nanoq.load(name, kind)
    loaded.model.to(_device(device))
    return loaded


def _write(out: Path, made: "Checkpoint", parameters: int, entropy: bool = False) -> None:
    """Save a model, and say how small it is."""
    _say_size(out, [nanoq.save(out, made, entropy=entropy) / nanoq.store.WEIGHTS], parameters)


def _say_size(out: Path, files: list[Path], parameters: int) -> None:
    size = sum(file.stat().st_size for file in files)
    print(f"wrote {out}: {size:,} bytes, {8 * size / parameters:.2f} bits a parameter")


@app.command(epilog="Example: nanoq prune tales-2.7m --sparsity 0.5 --bits 4 --out runs/sparse4")
def prune(
    checkpoint: ModelArgument,
    out: ResultOption,
    method: Annotated[str, typer.Option(help=f"{SCORES} or sparsegpt.")] = "sparsegpt",
    sparsity: Annotated[float, typer.Option(help="Share of the weights that becomes 0.")] = 0.5,
    pattern: Annotated[str, typer.Option(help="row, matrix, or 2:4 and its like, which has a sparsity of its own.")] =
        "row",
    bits: Annotated[int, typer.Option(help="Width of the weights that stay; 16 does not round them.")] = 16,
    corpus: CalibrationOption = None,
    windows: CalibrationWindowsOption = None,
    context: CalibrationContextOption = None,
    batch: BatchOption = 16,
    kind: KindOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Prune a model, round what stays, and write it without its zeros."""
    with _one_line_errors():
        _check_out(out, checkpoint, force)
        loaded = _load(checkpoint, kind, device)
        parameters = nanoq.quant.export.count_parameters(loaded.model)
        made = nanoq.prune(loaded, method, sparsity, pattern, bits, data=corpus, windows=windows, context=context,
                           batch=batch, seed=seed, in_place=True)
        _write(out, made, parameters)


def _read_recipe(path: Path) -> "Recipe":
    try:
        return nanoq.Recipe.from_json(json.loads(path.read_text(encoding="utf-8-sig")))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:  # RecursionError: nested without end
        raise ValueError(f"{path} is not JSON: {error}") from None


@app.command(epilog="Example: nanoq evaluate runs/gptq3 --full --against tales-2.7m")
def evaluate(
    checkpoint: ModelArgument,
    corpus: Annotated[str | None, typer.Option(
        help="tales, tinystories, wikitext-2 or a text file; by default what the checkpoint was trained on, and "
             "wikitext-2 for a model of the hub. For an encoder imdb or rotten-tomatoes; for images digits, "
             "fashion-mnist or cifar-10.")] = None,
    against: Annotated[str | None, typer.Option(
        help="Another model, as the original: the loss added to its, on the same windows.")] = None,
    windows: WindowsOption = 128,
    full: FullOption = False,
    context: ContextOption = None,
    kind: KindOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Perplexity, accuracy, bytes and speed of a model, quantised or not."""
    with _one_line_errors():
        loaded = _load(checkpoint, kind, device)
        other = None if against is None else _load(against, kind, device)
        found = nanoq.evaluate(loaded, corpus, windows=None if full else windows, context=context, against=other)
        if not math.isfinite(found.perplexity):
            raise ValueError(f"the losses of '{checkpoint}' are not finite: its weights are damaged, or its training "
                             "failed")
        file = _weights(checkpoint)
        # Shards where it is no file; none of a model on the hub.
        files = [file] if file.is_file() else nanoq.store.weight_files(file.parent)
    print(found)
    if files:
        print(f"{'file':20}{sum(file.stat().st_size for file in files):,} bytes")
    print(f"{'speed':20}{found.speed:,.0f} {found.unit}s per second")


@app.command(epilog='Example: nanoq generate tales-2.7m --prompt "Once upon a time" --temperature 0.7')
def generate(
    checkpoint: ModelArgument,
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "Once upon a time",
    length: Annotated[int, typer.Option(min=0, help="Characters to add; tokens for a model of transformers.")] = 400,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest each time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest only.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Continue a prompt, piece by piece."""
    with _one_line_errors():
        loaded = _load(checkpoint, device=device)
        print(prompt, end="", flush=True)
        for piece in nanoq.verbs.continuation(loaded, prompt, length, temperature, top_k, seed):
            print(piece, end="", flush=True)
    print()


@app.command(epilog="Example: nanoq corpus tinystories --write text")
def corpus(
    name: Annotated[str, typer.Argument(help="tales, tinystories, wikitext-2 or a text file.")] = "tales",
    write: Annotated[Path | None, typer.Option(help="Folder for train.txt, valid.txt and test.txt.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace such files in --write.")] = False,
) -> None:
    """Show a corpus: where it came from, the size of its splits, how it begins."""
    with _one_line_errors():
        files = {} if write is None else {split: write / f"{split}.txt" for split in ("train", "valid", "test")}
        if write:
            check_folder(write)
            if not force and (held := [file.name for file in files.values() if file.exists()]):
                raise ValueError(f"{write} holds {', '.join(held)} already: --force replaces them")
        text = nanoq.lm.load_corpus(name)
        for split, file in files.items():
            write_text(file, getattr(text, split))
    print(f"{text.name}: {text.source}; licence {text.licence}")
    for split in ("train", "valid", "test"):
        content = getattr(text, split)
        print(f"{split:6}{len(content):>12,} characters, {len(set(content))} different ones")
    if text.floor:
        print(f"floor of the test split: {text.floor:.4f} bits per character, perplexity {2**text.floor:.4f}")
    print(f"\n{text.train[:600]}…")


@app.command(epilog="Example: nanoq info tinystories-2.7m")
def info(checkpoint: Annotated[str | None, typer.Argument(help="A checkpoint's name or folder.")] = None) -> None:
    """The card of a checkpoint; without one, this machine and what is shipped."""
    with _one_line_errors():
        if checkpoint:
            foreign = nanoq.hf.is_hugging_face(checkpoint) and not nanoq.hf.is_quantized(checkpoint)
            card = nanoq.hf.describe(checkpoint) if foreign else nanoq.store.inspect(checkpoint)
            kinds = Counter(layout.get("kind", "quantised") for layout in card.get("layers", {}).values())
            card["layers"] = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "0 quantised"
            console.print_json(json.dumps(card))
            return
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"nanoq {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, GPU: {gpu}")
    print(f"NANOQ_DATA: {os.environ.get('NANOQ_DATA', 'not set')}")
    for card_path in sorted((data_dir() / "checkpoints").glob(f"*/{nanoq.store.CARD}")):
        card = json.loads(card_path.read_text(encoding="utf-8"))
        measure = "test accuracy" if "test_accuracy" in card else "validation perplexity"
        print(f"{card_path.parent.name:18} {card['parameters']:,} parameters, "
              f"{measure} {card[measure.replace(' ', '_')]} on {card['corpus']}")


@app.command(epilog="Example: nanoq quiz 04 07 --seed 2027 --key --out key.md")
def quiz(
    notebooks: Annotated[list[str], typer.Argument(help="Notebooks by number.")],
    seed: Annotated[int, typer.Option(help="The cohort: the same seed, the same sheet; another one, other numbers.")],
    key: Annotated[bool, typer.Option("--key", help="With the answers, and what each wrong one means.")] = False,
    out: Annotated[Path | None, typer.Option(help="Markdown file; without it, the terminal.")] = None,
) -> None:
    """A quiz about some notebooks, in Markdown: numbers from a seed, computed keys, wrong options that are known."""
    with _one_line_errors():
        from nanoq.teach import quiz as quizzes  # as in compare

        if out:
            check_file(out)
        sheet = quizzes.render(quizzes.quiz([number.zfill(2) for number in notebooks], seed), seed, key)
        if out:
            write_text(out, sheet)
    print(f"wrote {out}" if out else sheet)


@app.command(epilog="Example: nanoq judge entries --csv standings.csv")
def judge(
    folder: Annotated[Path, typer.Argument(help="With a folder for each participant, as `nanoq save` writes it.")],
    model: Annotated[str, typer.Option(help="The reference: a shipped model's name, or a folder.")] = "tales-2.7m",
    corpus: CorpusOption = None,
    windows: WindowsOption = 128,
    full: FullOption = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="File for the table.")] = None,
) -> None:
    """Judge the models of a competition: bytes and added loss, in three levels. Nothing in a folder is run."""
    with _one_line_errors():
        from nanoq.teach import judge as judging  # as in compare

        if csv:
            check_file(csv)
        entries = judging.judge(folder, model, corpus, None if full else windows)
        if csv:
            write_csv(csv, judging.rows(entries))
    _print_table(judging.cells(entries), names=3, gap=2, caption=judging.levels())
    if csv:
        print(f"wrote {csv}")


@app.command(epilog="Example: nanoq lab 07")
def lab(
    number: Annotated[int, typer.Argument(min=0, help="Which notebook to open.")] = 0,
    folder: Annotated[Path | None, typer.Option(
        help="Where to work: notebooks that are not there are copied, yours are left as they are. By default a "
             "checkout's own notebooks, and nanoq-course where there is no checkout.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
) -> None:
    """Open the course in JupyterLab."""
    with _one_line_errors():
        try:
            from jupyterlab.labapp import main as jupyter_lab
        except ImportError:
            raise ValueError("JupyterLab is not installed: pip install jupyterlab") from None
        from nanoq.teach.launch import find_notebook

        notebook = find_notebook(number, folder).resolve()
    # Not the notebook as an argument: the address that --no-browser prints would lead past it.
    place = [f"--ServerApp.root_dir={notebook.parent}", f"--LabApp.default_url=/lab/tree/{notebook.name}"]
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # as in a container, where JupyterLab would not start
    jupyter_lab([*place, *["--no-browser"] * no_browser, *["--allow-root"] * root])


@app.command(epilog="Example: nanoq doctor")
def doctor() -> None:
    """What would fail on this machine, a line each, and what to do about it; exit code 1 if something does."""
    from nanoq.doctor import doctor as examine  # it starts processes, and no other command needs it

    raise typer.Exit(0 if examine() else 1)


@app.command(epilog="Example: nanoq save runs/gptq4 --entropy --out runs/gptq4-coded")
def save(
    checkpoint: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    entropy: Annotated[bool, typer.Option(
        "--entropy", help="Entropy-code the codes of packed layers: a smaller file, and the same model.")] = False,
    force: ForceOption = False,
) -> None:
    """Write a model again, for what loads it with nanoq."""
    with _one_line_errors():
        _check_out(out, checkpoint, force)
        loaded = _load(checkpoint)
        _write(out, loaded, nanoq.quant.export.count_parameters(loaded.model), entropy)


@app.command(epilog="Example: nanoq export runs/opt-4bit --format gguf --out runs/opt-4bit-gguf")
def export(
    checkpoint: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    format: Annotated[str, typer.Option(help=f"{FORMATS}.")] = "compressed-tensors",
    force: ForceOption = False,
) -> None:
    """Write a quantised Hugging Face model as a file that transformers, vLLM or llama.cpp runs."""
    with _one_line_errors():
        _check_export_out(out, checkpoint, force)
        _export(out, _load(checkpoint), format)


def _check_export_out(out: Path, source: str, force: bool) -> None:
    """Look, before the work, whether an export may be written to a folder: as `_check_out`."""
    from nanoq.quant.export import GGUF_FILE
    from nanoq.store import CARD

    if (out / CARD).exists():
        raise ValueError(f"--out {out} holds a model of nanoq, whose {CARD} would stay: name another folder")
    if (out / GGUF_FILE).exists() and not force:
        raise ValueError(f"--out {out} holds {GGUF_FILE} already: name another folder, or replace it with --force")
    _check_out(out, source, force)


def _export(out: Path, checkpoint: "Checkpoint", format: str) -> None:
    """Write a quantised model for other programs, and say what there is to know of the file."""
    from nanoq.quant.export import count_parameters, export_model, export_notes

    file = export_model(out, checkpoint, format)
    _say_size(file, [file], count_parameters(checkpoint.model))
    for note in export_notes(checkpoint, format):
        print(note)
