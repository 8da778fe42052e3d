"""Where nanoq keeps its files, and how it writes them so that an interruption never leaves half a file."""

import csv
import functools
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

STALE_SECONDS = 24 * 3600
_PACKAGE = Path(__file__).resolve().parent


def data_dir() -> Path:
    """The shipped `data/` folder: inside the package in a wheel, beside it in the repository."""
    inside = _PACKAGE / "data"
    return inside if inside.is_dir() else _PACKAGE.parent / "data"


def cache_dir() -> Path:
    """The folder for files that can be made again: `NANOQ_CACHE`, else one in the user's cache folder.

    If it cannot be made, or the user may not write to it, it is a temporary folder of the user's own. A folder that
    `NANOQ_CACHE` names and that is there counts even so: a classroom may share one that is full.
    """
    named = os.environ.get("NANOQ_CACHE")
    with suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        folder = Path(named or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nanoq")
        folder.mkdir(parents=True, exist_ok=True)
        if named or os.access(folder, os.W_OK | os.X_OK):
            return folder
    return private_dir()


@functools.cache
def private_dir() -> Path:
    """A temporary folder to which nobody else can write, the same one in each of the user's processes.

    Whoever makes the folder first could put machine code there that others run, so one that is not this user's, or is
    open to others, is not used: this process then gets a new one, for itself.

    Raises:
        FileNotFoundError: if there is no folder for temporary files.
    """
    try:
        shared = tempfile.gettempdir()
    except FileNotFoundError:
        raise FileNotFoundError("no folder here can be written to: let TMPDIR name one that can") from None
    user = os.getuid() if hasattr(os, "getuid") else None  # Windows has a temporary folder for each user
    folder = Path(shared, "nanoq" if user is None else f"nanoq-{user}")
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    about = folder.lstat() if os.path.lexists(folder) else None
    if about and stat.S_ISDIR(about.st_mode) and (user is None or (about.st_uid, about.st_mode & 0o077) == (user, 0)):
        return folder
    return Path(tempfile.mkdtemp(prefix="nanoq-"))


def place_matplotlib_cache() -> None:
    """Give matplotlib a folder for its list of fonts where it would find none, and complain in every process."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    place = next(path for path in (Path(base), *Path(base).absolute().parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        os.environ.setdefault("MPLCONFIGDIR", os.fspath(private_dir() / "matplotlib"))


def check_folder(folder: Path) -> None:
    """Look, before the work, whether files can be written to a folder, which need not be there yet.

    Raises:
        ValueError: if they cannot.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ValueError(f"{place} is a file: give a folder")
    if not os.access(place, os.W_OK):
        raise ValueError(f"no file can be written to {place}: give another folder")


def check_file(file: Path) -> None:
    """Look, before the work, whether a file can be written, which need not be there yet.

    Raises:
        ValueError: if it cannot.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder: give a file")
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is a device or a pipe, which would be replaced: give a file")
    check_folder(file.parent)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    An OSError that names no file gets this one's name. What a process that was killed left of the same file goes after
    a day: until then it may be another's who is writing, here or on another machine.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name without its content
        os.chmod(name, 0o644)  # mkstemp makes the file private; a checkpoint is to be shared
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk shows while writing, and then the system names no file
        raise


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of `path` that nobody has written to for a day."""
    for left in path.parent.glob(f".{escape(path.name)}.{'?' * 8}.tmp"):
        with suppress(OSError):  # another process was quicker, or it is another user's
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Write a text in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path | str, rows: list[dict]) -> None:
    """Write rows that have the same keys as a CSV file, with a header, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV file with a header: by column, as text."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_results(name: str) -> list[dict[str, str]]:
    """The rows of a shipped table of results, as "tinystories/limit": by column, as text."""
    return read_csv(data_dir() / "results" / f"{name}.csv")


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
