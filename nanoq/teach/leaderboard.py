"""The table that runs through the course: every model on the same held-out windows, its size read from its file."""

import json
import math
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from html import escape
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor, nn

import nanoq
from nanoq.files import atomic_path, write_csv, write_text
from nanoq.hf.checkpoint import is_hugging_face
from nanoq.lm.corpus import Corpus
from nanoq.lm.evaluate import AgainstOriginal, paired_difference, perplexity
from nanoq.quant import Recipe, quantize_model
from nanoq.quant.embeddings import usual_width
from nanoq.quant.entropy_grid import RATES
from nanoq.quant.export import count_parameters
from nanoq.quant.recipe import OF_ALL
from nanoq.store import WEIGHTS, Checkpoint, find_checkpoint, load, save, weight_shape
from nanoq.tasks import task_for
from nanoq.teach.plots import COLORS

NAMES = {"nearest": "RTN", "gptq": "GPTQ"}
CODED = "entropy-coded"


@dataclass(frozen=True)
class Row:
    """One model on the leaderboard.

    Attributes:
        method: how its weights were chosen.
        bits: width of a code, 1.58 for ternary ones; 32 for the model as it was trained.
        average_bits: bits of its file for each parameter, with scales, zero points and all that was not quantised.
        bytes: size of its file.
        perplexity: on the held-out windows.
        delta_nats: mean loss minus the unquantised model's on the same windows, in nats a character.
        ci_low, ci_high: ends of the 95 % bootstrap interval of that difference.
        kl: mean Kullback-Leibler divergence of its predictions from the unquantised model's, in nats; None where it
            predicts nothing.
        top1: share of predictions whose likeliest class is the unquantised model's.
        bits_above_bound: mean over its weights of `LayerReport.bits_above_bound`; None where that is not worked out.
    """

    method: str
    bits: float
    average_bits: float
    bytes: int
    perplexity: float
    delta_nats: float
    ci_low: float
    ci_high: float
    kl: float | None = None
    top1: float | None = None
    bits_above_bound: float | None = None


class Leaderboard:
    """Measures models against one checkpoint, whose own row comes first.

    Args:
        checkpoint: what `nanoq.load` takes or gives: a GPT, an image classifier or a model of transformers.
        corpus: its training split gives what is calibrated on, its test split what is measured on: by default, or by
            name, as `nanoq.tasks.task_for` loads it.
        windows: number of held-out windows, evenly spread over the test split; None for all of them.
        device: where the models run.
        context: tokens in a window.
        bound: whether the rows of methods that look at no text say how far they are from the bound, too: it takes a
            pass of the calibration text through the model for each.

    Raises:
        FileNotFoundError, ValueError: as `nanoq.load` and `task_for`, and if a split is shorter than a window, or more
            than half of its characters are unknown to the checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint | str | Path, corpus: Corpus | str | Path | None = None,
                 windows: int | None = 128, device: str = "cpu", context: int | None = None, bound: bool = False):
        self.reference = checkpoint if isinstance(checkpoint, Checkpoint) else nanoq.load(checkpoint)
        self.reference.model.to(device)
        self.task = task_for(self.reference, corpus, windows, context)
        self.device = device
        self.bound = bound
        self.calibration = self.task.calibration().to(device)
        self.rows: list[Row] = []
        self.losses: list[Tensor] = []  # of each row, a loss for each window
        self.parameters = count_parameters(self.reference.model)
        self.watch = AgainstOriginal(self.reference.model)
        size = sum(4 * parameter.numel() for parameter in self.reference.model.parameters())
        if not isinstance(checkpoint, Checkpoint) and not is_hugging_face(checkpoint):
            size = (find_checkpoint(checkpoint) / WEIGHTS).stat().st_size
        self.add_model("float32", 32, self.reference.model, size)

    @property
    def corpus(self) -> Corpus:
        """The text of a GPT's task."""
        return self.task.corpus

    @property
    def windows(self) -> int | None:
        """How many held-out windows; None for all."""
        return self.task.windows

    @property
    def held_out(self) -> Tensor:
        """Tokens of the test split: int64 (N,)."""
        return self.task.held_out

    def add(self, method: str, bits: float, recipe: Recipe, folder: Path | str | None = None) -> Row:
        """Quantise a copy of the model, save it (to `folder`), and measure what the file gives when it is loaded."""
        copy = deepcopy(self.reference)
        text = self.calibration if self.bound or recipe.needs_calibration else None
        copy.reports = quantize_model(copy.model, recipe, text, bound=True)
        return self.add_saved(method, bits, copy, folder)

    def add_saved(self, method: str, bits: float, checkpoint: Checkpoint, folder: Path | str | None = None) -> Row:
        """Save a checkpoint that was quantised or compressed (to `folder`), and measure what the loaded file gives."""
        with tempfile.TemporaryDirectory() as temporary:
            path = save(folder or temporary, checkpoint, half=True)
            size = (path / WEIGHTS).stat().st_size
            model = load(path).model.to(self.device)
        return self.add_model(method, bits, model, size, _above_bound(checkpoint))

    def add_model(self, method: str, bits: float, model: nn.Module, size: int, above: float | None = None) -> Row:
        """Measure a model whose file has `size` bytes, and layers so many bits `above` the bound in the mean."""
        self.watch.begin()
        losses = self.task.losses(model, self.watch)
        divergence = self.watch.divergence()
        self.losses.append(losses)
        difference = paired_difference(losses, self.losses[0])
        average_bits = 8 * size / self.parameters
        paired = (difference.mean, difference.low, difference.high)
        predictions = (divergence.mean, divergence.top1) if divergence else (None, None)
        self.rows.append(Row(method, bits, average_bits, size, perplexity(losses), *paired, *predictions, above))
        return self.rows[-1]

    @property
    def caption(self) -> str:
        """What the numbers were measured on."""
        name, _, rest = self.task.caption(len(self.losses[0])).partition(": ")
        windows, sign, note = rest.partition("; ")
        return f"{name}: the same {windows} for every row{sign}{note}"

    def save(self, folder: Path | str) -> None:
        """Write leaderboard.csv, leaderboard.json and leaderboard.png."""
        folder = Path(folder)
        rows = [asdict(row) for row in self.rows]
        write_csv(folder / "leaderboard.csv", rows)
        write_text(folder / "leaderboard.json", json.dumps(rows, indent=1) + "\n")
        with atomic_path(folder / "leaderboard.png") as path:
            figure = self.plot()
            figure.savefig(path, format="png", dpi=150)
            plt.close(figure)

    def plot(self) -> Figure:
        """Loss added by each method against the size of its file; the interval as a bar."""
        return plot_rows(self.rows, self.caption)

    def cells(self, whole: bool = False) -> list[list[str]]:
        """The table as text: a header, then a line for each row."""
        return table_cells(self.rows, whole)

    def __repr__(self) -> str:
        lines = self.cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*table, self.caption])

    def _repr_html_(self) -> str:
        header, *lines = self.cells()
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
        return f"<table><caption>{escape(self.caption)}</caption><tr>{head}</tr>{body}</table>"


def table_cells(rows: Sequence[Row], whole: bool = False) -> list[list[str]]:
    """Rows as text for any table: a header, then a line for each; `whole` has what does not fit on a page, too."""
    header = ["method", "bits", "bits/param", "bytes", "perplexity", "Δ nats", "95 % interval"]
    more = ["KL", "same top 1", "above bound"] if whole else []
    return [header + more] + [
        [row.method, str(row.bits), f"{row.average_bits:.2f}", f"{row.bytes:,}", f"{row.perplexity:.4f}",
         _signed(row.delta_nats),
         "–" if row.ci_low == row.ci_high else f"{_signed(row.ci_low)} … {_signed(row.ci_high)}"]
        + ([_number(row.kl, ".5f"), _number(row.top1, ".2%"), _number(row.bits_above_bound, ".2f")] if whole else [])
        for row in rows
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _above_bound(checkpoint: Checkpoint) -> float | None:
    """Bits above the bound, in the mean over the weights of the layers where it was worked out."""
    layers = dict(checkpoint.model.named_modules())
    known = [(report.bits_above_bound, math.prod(weight_shape(layers[report.layer])))
             for report in checkpoint.reports if report.bits_above_bound is not None]
    return sum(bits * size for bits, size in known) / sum(size for _, size in known) if known else None


def _signed(value: float) -> str:
    """Five decimals with a sign, and no -0.00000."""
    return f"{round(value, 5) + 0.0:+.5f}"


def plot_rows(rows: Sequence[Row], caption: str) -> Figure:
    """Loss added against bytes on a symmetric logarithmic scale, a line for each method."""
    figure, axes = plt.subplots(figsize=(7, 4), constrained_layout=True)
    methods = list(dict.fromkeys(row.method for row in rows if row.bits < 16))
    for method, color, marker in zip(methods, cycle(COLORS.values()), cycle("osD^vPX*"), strict=False):
        mine = [row for row in rows if row.method == method]
        x, y = [row.bytes / 1e6 for row in mine], [row.delta_nats for row in mine]
        ends = [[row.delta_nats - row.ci_low for row in mine], [row.ci_high - row.delta_nats for row in mine]]
        axes.errorbar(x, y, yerr=ends, color=color, marker=marker, capsize=3, label=method)
        for row in mine:
            at = (row.bytes / 1e6, row.delta_nats)
            axes.annotate(f"{row.bits} bit", at, textcoords="offset points", xytext=(6, 4))
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.margins(x=0.1, y=0.1)
    axes.set_ylim(bottom=min(0, *(row.ci_low for row in rows)) * 1.5)
    axes.set_xlabel("size of the file (MB)")
    axes.set_ylabel("added loss (nats a character)")
    axes.set_title(caption, fontsize=9)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return figure


def compare(
    checkpoint: Checkpoint | str | Path, corpus: str | Path | None = None, bits: Sequence[int] = (8, 4, 3, 2),
    methods: Sequence[str] = ("nearest", "gptq", CODED), windows: int | None = 128, out: Path | str | None = None,
    device: str = "cpu", context: int | None = None, **options,
) -> Leaderboard:
    """The main job: a checkpoint at every width by every method, and a float16 cast as the control.

    Args:
        checkpoint: as in `Leaderboard`.
        corpus: as in `Leaderboard`.
        bits: widths of the codes.
        methods: names in `nanoq.quant.METHODS`, and "entropy-coded": GPTQ on whole numbers whose codes take `bits`
            in the mean (`nanoq.quant.entropy_grid`), for widths up to 6.
        windows: held-out windows; None for the full split.
        out: a folder for the leaderboard and, in `models/`, for every quantised model.
        device: where the models run.
        context: tokens in a window.
        options: of `Recipe`, as group_size=64; what a method or its grid does not know is an error.
    """
    if not set(bits) <= set(range(2, 9)):
        raise ValueError(f"bits must be in 2..8, not {', '.join(map(str, bits))}; float16 is on the board anyway")
    board = Leaderboard(checkpoint, corpus, windows, device, context, bound=True)
    options = {"embeddings": usual_width(board.reference.model)} | options
    jobs = [("float16", 16, Recipe(bits=16))]
    jobs += [(NAMES.get(m, m), b, Recipe(m, bits=b, **options)) for m in methods if m != CODED for b in bits]
    if CODED in methods:
        whole = {name: options[name] for name in OF_ALL if name in options}
        jobs += [(f"GPTQ, {CODED}", b, Recipe("gptq", grid=CODED, rate=float(b), **whole))
                 for b in bits if b <= RATES[1]]
    for method, width, recipe in jobs:
        folder = Path(out) / "models" / recipe.label.replace(" ", "-") if out else None
        board.add(method, width, recipe, folder)
    if out:
        board.save(out)
    return board
