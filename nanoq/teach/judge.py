"""The final capstone as a competition: folders that `nanoq.save` has written, judged by their bytes and their loss.

A folder is read, never run: a card and weights. That happens in a process of its own, with limited time and memory,
so that a hostile or damaged one costs its own place, and nobody else's.
"""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import torch

from nanoq.lm.evaluate import PairedDifference, paired_difference
from nanoq.lm.model import GPT
from nanoq.memory import limit_memory
from nanoq.store import CARD, Checkpoint, find_checkpoint, load, read_card, weight_files
from nanoq.tasks import task_for

MODEL = "tales-2.7m"
# Bytes of all files that are loaded, and added nats per character. GPTQ at 4 bits reaches bronze, with entropy-coded
# codes silver; gold takes WaterSIC's steps (data/results/tales/judge.csv, made by benchmarks/judge.py).
LEVELS = {"gold": (860_000, 0.09), "silver": (1_320_000, 0.02), "bronze": (1_520_000, 0.012)}
SECONDS, MEMORY_GB = 900, 8  # for one participant
SIZE = 2  # times the bytes of the reference: whatever is larger is not read
NAME = 40  # characters

_CHILD = "import sys; from nanoq.teach.judge import serve; serve(*sys.argv[1:])"
READY = "ready"


@dataclass(frozen=True)
class Entry:
    """What a participant has reached.

    Attributes:
        name: Of the folder, fit to be printed.
        level: A key of `LEVELS`, or "none".
        bytes: Of the card and the weights.
        delta: Added nats per character against the reference, on the same windows.
        problem: Why there is neither, in a sentence; empty if there is.
    """

    name: str
    level: str = "none"
    bytes: int | None = None
    delta: PairedDifference | None = None
    problem: str = ""


def judge(
    folder: Path | str, model: Path | str = MODEL, corpus: Path | str | None = None, windows: int | None = 128,
) -> list[Entry]:
    """Judge every subfolder, best first: by level, then bytes, then loss; what cannot be measured comes last.

    Args:
        folder: With a subfolder for each participant, as `nanoq.save` writes it. Hidden ones and files are left out.
        model: The reference: a shipped name or a folder, a GPT.
        corpus: What to measure on; by default what the card of the reference says.
        windows: How many held-out windows; None for all.

    Raises:
        FileNotFoundError: If there is no such model or corpus.
        ValueError: If there is no subfolder, or the reference is no GPT.
    """
    folder = Path(folder)
    if not folder.is_dir() or not (found := sorted(path for path in folder.iterdir() if _may_enter(path))):
        raise ValueError(f"no folder of a participant in {folder}: each has a folder of its own there")
    reference = load(model)
    if not isinstance(reference.model, GPT):
        raise ValueError(f"'{model}' is no GPT, and only those are judged")
    losses = task_for(reference, corpus, windows).losses(reference.model)
    largest = SIZE * sum(path.stat().st_size for path in files_of(find_checkpoint(model)))
    with _reader([str(model), None if corpus is None else str(corpus), windows]) as reader:
        return sorted((_judged(path, losses, reader, largest) for path in found), key=_place)


def _may_enter(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or path.is_symlink())


def _place(entry: Entry) -> tuple:
    if entry.delta is None:
        return len(LEVELS) + 1, 0, 0.0, entry.name
    return [*LEVELS, "none"].index(entry.level), entry.bytes, entry.delta.mean, entry.name


def level_of(size: int, added: float) -> str:
    """The best level that so many bytes with so many added nats reach."""
    return next((name for name, (most, nats) in LEVELS.items() if size <= most and added <= nats), "none")


def _judged(path: Path, losses: torch.Tensor, reader: "_Reader", largest: int) -> Entry:
    """The entry of one participant."""
    name = printable(path.name)
    try:
        size = _check_files(path, largest)
        mine = torch.tensor(reader.losses(path), dtype=torch.float64)
        if not mine.isfinite().all():
            raise ValueError("the loss is not finite")
        delta = paired_difference(mine, losses)
    except (ValueError, OSError) as error:
        return Entry(name, problem=printable(str(error).replace(f"{path.absolute()}", name), 200))
    return Entry(name, level_of(size, delta.mean), size, delta)


def printable(text: str, most: int = NAME) -> str:
    """A text for one line of a terminal or a cell of a table: nothing that either would take for a command."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def files_of(folder: Path) -> list[Path]:
    """What `nanoq.load` reads in a folder."""
    index = [path for path in [folder / "model.safetensors.index.json"] if path.is_file()]
    return [folder / CARD, *weight_files(folder), *index]


def _check_files(folder: Path, largest: int) -> int:
    """The bytes of a participant's files, when all are files, and not too large.

    Raises:
        ValueError: If they are not.
        OSError: If they cannot be looked at.
    """
    if folder.is_symlink() or any(path.is_symlink() for path in folder.iterdir()):
        raise ValueError("there is a link in place of a file or folder: copy what it leads to")
    if odd := [path.name for path in folder.iterdir() if not path.is_file()]:
        raise ValueError(f"{odd[0]} is no file: hand in what nanoq.save writes, and nothing else")
    if sum(path.stat().st_size for path in folder.iterdir()) > largest:
        raise ValueError(f"it has more than {largest:,} bytes, twice those of the reference")
    if not (folder / CARD).is_file() or not weight_files(folder):
        raise ValueError("it holds no model: hand in what nanoq.save writes")
    return sum(path.stat().st_size for path in files_of(folder))


class _Reader:
    """A process that reads and measures one model after another, and is replaced when it has ended or is too slow."""

    def __init__(self, task: list):
        self.task, self.process, self.lines = json.dumps(task), None, queue.Queue()

    def losses(self, folder: Path) -> list[float]:
        """The losses of a model.

        Raises:
            ValueError: In a sentence, if there are none.
            RuntimeError: If no process can be started.
        """
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(f"{json.dumps(str(folder.absolute()))}\n")
            self.process.stdin.flush()
            found = json.loads(self.lines.get(timeout=SECONDS))
            losses, problem = found["losses"], found["refused"]
        except queue.Empty:
            problem = f"it took more than {SECONDS} seconds"
            self.stop()
        except (OSError, ValueError, TypeError, KeyError):  # nothing, or no result
            problem = "the process that read it ended without a result"
            self.stop()
        if problem:
            raise ValueError(problem)
        return losses

    def start(self) -> None:
        """Start a process, and wait until it can read."""
        self.process = subprocess.Popen([sys.executable, "-c", _CHILD, self.task], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        limit_memory(self.process.pid, MEMORY_GB)
        self.lines = queue.Queue()
        threading.Thread(target=_pass_on, args=(self.process.stdout, self.lines), daemon=True).start()
        if self.lines.get().strip() != READY:
            self.stop()
            raise RuntimeError("no process could be started to read the models")

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
        self.process = None


@contextmanager
def _reader(task: list) -> Iterator[_Reader]:
    reader = _Reader(task)
    try:
        yield reader
    finally:
        reader.stop()


def _pass_on(output: TextIO, lines: queue.Queue) -> None:
    """Put every line of a process into a queue, and "" at its end."""
    with output:
        for line in output:
            lines.put(line)
    lines.put("")


def serve(task: str) -> None:
    """Read folders from standard input, and print the losses of each model, or why there are none, as JSON."""
    model, corpus, windows = json.loads(task)
    reference = load(model)
    measure = task_for(reference, corpus, windows)
    print(READY, flush=True)
    for line in sys.stdin:
        try:
            losses, problem = measure.losses(_checked(Path(json.loads(line)), reference).model).tolist(), ""
        except Exception as error:  # whatever a damaged model does is a sentence
            losses, problem = [], " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"losses": losses, "refused": problem}), flush=True)


def _checked(folder: Path, reference: Checkpoint) -> Checkpoint:
    """A participant's model, when it reads and predicts the same characters as the reference.

    Raises:
        ValueError: If it does not.
    """
    if read_card(folder).get("family", "gpt") != "gpt":
        raise ValueError("it is no GPT, as the reference is")
    mine = load(folder)
    if not isinstance(mine.model, GPT) or mine.tokenizer.characters != reference.tokenizer.characters:
        raise ValueError("it has other characters than the reference: their losses cannot be compared")
    if mine.model.config.context < reference.model.config.context:
        raise ValueError("it reads fewer characters at once than the reference")
    return mine


# ---- the table ----


def rows(entries: list[Entry]) -> list[dict]:
    """The entries as rows of a CSV file; nats per character."""
    return [{"place": place, "name": entry.name, "level": entry.level, "bytes": entry.bytes}
            | {f"added_{key}": value for key, value in (
                asdict(entry.delta) if entry.delta else dict.fromkeys(("mean", "low", "high"))).items()}
            | {"problem": entry.problem} for place, entry in enumerate(entries, start=1)]  # fmt: skip


def cells(entries: list[Entry]) -> list[list[str]]:
    """The entries as a table, its header first."""
    table = [["", "name", "level", "bytes", "added nats", "95 % interval"]]
    for place, entry in enumerate(entries, start=1):
        delta = entry.delta
        found = ["", "", entry.problem] if delta is None else [
            f"{entry.bytes:,}", f"{delta.mean:+.4f}", f"{delta.low:+.4f} to {delta.high:+.4f}"]
        table.append([str(place), entry.name, entry.level, *found])
    return table


def levels() -> str:
    """What each level asks for, in a line."""
    return "; ".join(f"{name}: at most {most:,} bytes and {nats:g} added nats" for name, (most, nats) in LEVELS.items())


def standings(entries: list[Entry]) -> str:
    """The table as text."""
    table = cells(entries)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, levels()])
