"""The table that runs through the course: every model on the same held-out windows, its size read from its file."""

import json
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor, nn

from nanoq.compress import load_compressed, save_compressed
from nanoq.files import atomic_path, write_csv, write_text
from nanoq.lm.checkpoint import load_checkpoint
from nanoq.lm.corpus import Corpus, corpus_of
from nanoq.lm.evaluate import paired_difference, perplexity, window_losses
from nanoq.quant import Recipe, load_quantized, quantize_model, sample_windows, save_quantized
from nanoq.store import WEIGHTS, Checkpoint, find_checkpoint
from nanoq.teach.plots import COLORS

CALIBRATION_WINDOWS = 128
NAMES = {"nearest": "naive", "gptq": "GPTQ"}


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
    """

    method: str
    bits: float
    average_bits: float
    bytes: int
    perplexity: float
    delta_nats: float
    ci_low: float
    ci_high: float


class Leaderboard:
    """Measures models against one checkpoint, whose own row comes first.

    Args:
        checkpoint: a shipped checkpoint's name or a folder.
        corpus: its training split gives the calibration text, its test split the held-out text. By default, or by
            name, as `corpus_of` loads it.
        windows: number of held-out windows, evenly spread over the test split; None for all of them.
        device: where the models run.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint` and `corpus_of`, and if a split is shorter than a window, or
            more than half of its characters are unknown to the checkpoint.
    """

    def __init__(self, checkpoint: str | Path, corpus: Corpus | str | Path | None = None, windows: int | None = 128,
                 device: str = "cpu"):
        self.reference: Checkpoint = load_checkpoint(checkpoint)
        self.reference.model.to(device)
        self.corpus = corpus if isinstance(corpus, Corpus) else corpus_of(self.reference.card, corpus)
        self.windows, self.device = windows, device
        self.held_out, training = (self.reference.tokenizer.encode_known(text, self.corpus.name)
                                   for text in (self.corpus.test, self.corpus.train))
        context = self.reference.model.config.context
        self.calibration = sample_windows(training, context, CALIBRATION_WINDOWS).to(device)
        self.rows: list[Row] = []
        self.losses: list[Tensor] = []  # of each row, a loss for each window
        size = (find_checkpoint(checkpoint) / WEIGHTS).stat().st_size
        self.add_model("float32", 32, self.reference.model, size)

    def add(self, method: str, bits: float, recipe: Recipe, folder: Path | str | None = None,
            asymmetric: bool = False) -> Row:
        """Quantise a copy of the model, save it (to `folder`), and measure what the file gives when it is loaded.

        `asymmetric` is that of `quantize_model`.
        """
        copy = deepcopy(self.reference)
        calibration = self.calibration if asymmetric or recipe.needs_calibration else None
        quantize_model(copy.model, recipe, calibration, asymmetric=asymmetric)
        return self.add_quantized(method, bits, copy, recipe, folder)

    def add_quantized(self, method: str, bits: float, checkpoint: Checkpoint, recipe: Recipe,
                      folder: Path | str | None = None) -> Row:
        """Save a checkpoint whose model is quantised already (to `folder`), and measure what the loaded file gives."""
        save = partial(save_quantized, checkpoint=checkpoint, recipe=recipe)
        return self._add_file(method, bits, folder, save, load_quantized)

    def add_compressed(self, method: str, bits: float, checkpoint: Checkpoint, folder: Path | str | None = None) -> Row:
        """Save a checkpoint compressed by `nanoq.compress` (to `folder`), and measure what the loaded file gives."""
        save = partial(save_compressed, checkpoint=checkpoint)
        return self._add_file(method, bits, folder, save, load_compressed)

    def _add_file(self, method: str, bits: float, folder: Path | str | None, save: Callable[[Path | str], Path],
                  load: Callable[[Path], Checkpoint]) -> Row:
        with tempfile.TemporaryDirectory() as temporary:
            path = save(folder or temporary)
            size = (path / WEIGHTS).stat().st_size
            model = load(path).model.to(self.device)
        return self.add_model(method, bits, model, size)

    def add_model(self, method: str, bits: float, model: nn.Module, size: int) -> Row:
        """Measure a model whose file has `size` bytes."""
        losses = window_losses(model, self.held_out, limit=self.windows)
        self.losses.append(losses)
        difference = paired_difference(losses, self.losses[0])
        average_bits = 8 * size / self.reference.model.parameter_count()
        paired = (difference.mean, difference.low, difference.high)
        self.rows.append(Row(method, bits, average_bits, size, perplexity(losses), *paired))
        return self.rows[-1]

    @property
    def caption(self) -> str:
        """What the numbers were measured on."""
        generated = " (generated text)" if self.corpus.floor is not None else ""
        context = self.reference.model.config.context
        count = f"{len(self.losses[0]):,} held-out windows of {context}"
        unknown = int((self.held_out == 0).sum())
        note = f"; {unknown:,} of {len(self.held_out):,} characters are unknown to the checkpoint" if unknown else ""
        return f"{self.corpus.name}{generated}: the same {count} for every row{note}"

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

    def cells(self) -> list[list[str]]:
        """The table as text: a header, then a line for each row."""
        return table_cells(self.rows)

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


def table_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Rows as text for any table: a header, then a line for each."""
    header = ["method", "bits", "bits/param", "bytes", "perplexity", "Δ nats", "95 % interval"]
    return [header] + [
        [row.method, str(row.bits), f"{row.average_bits:.2f}", f"{row.bytes:,}", f"{row.perplexity:.4f}",
         _signed(row.delta_nats),
         "–" if row.ci_low == row.ci_high else f"{_signed(row.ci_low)} … {_signed(row.ci_high)}"]
        for row in rows
    ]


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
    checkpoint: str | Path, corpus: str | Path | None = None, bits: Sequence[int] = (8, 4, 3, 2),
    methods: Sequence[str] = ("nearest", "gptq"), windows: int | None = 128, out: Path | str | None = None,
    device: str = "cpu",
) -> Leaderboard:
    """The main job: a checkpoint at every width by every method, and a float16 cast as the control.

    Args:
        checkpoint: a shipped checkpoint's name or a folder.
        corpus: what to calibrate and evaluate on; the corpus on the checkpoint's card by default.
        bits: widths of the codes.
        methods: names in `nanoq.quant.METHODS`.
        windows: held-out windows; None for the full split.
        out: a folder for the leaderboard and, in `models/`, for every quantised model.
        device: where the models run.
    """
    if not set(bits) <= set(range(2, 9)):
        raise ValueError(f"bits must be in 2..8, not {', '.join(map(str, bits))}; float16 is on the board anyway")
    jobs = [("float16", 16, Recipe.uniform(16))]
    jobs += [(NAMES.get(m, m), b, Recipe.uniform(b, m)) for m in methods for b in bits]
    board = Leaderboard(checkpoint, corpus, windows, device)
    for method, width, recipe in jobs:
        folder = Path(out) / "models" / recipe.default.label.replace(" ", "-") if out else None
        board.add(method, width, recipe, folder)
    if out:
        board.save(out)
    return board
