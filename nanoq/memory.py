"""What an error says, whoever raises it: when memory has run out, and otherwise; and a limit for other processes."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

_WANTED = re.compile(r"allocate (\d[\d.]*) (\w+)")  # as torch says it, of any device, and numpy
_REMEDY = "take a smaller model, batch, context or text"


def out_of_memory(error: BaseException, purpose: str = "") -> MemoryError | None:
    """A MemoryError of one sentence for an error that says that memory has run out, and None for any other.

    Args:
        error: of any kind; torch has a RuntimeError for it, the system an OSError, and others say it in their texts.
        purpose: what needs the memory, and how much, as a clause.
    """
    said = str(error)
    if said.startswith("not enough memory"):
        return MemoryError(said)
    wanted = _WANTED.search(said)
    kinds = MemoryError, torch.OutOfMemoryError
    if not (wanted or isinstance(error, kinds) or getattr(error, "errno", None) == errno.ENOMEM
            or "Cannot allocate memory" in said):
        return None
    amount = f"{float(wanted[1]):,.15g} {wanted[2]} were asked for at once" if wanted else "it is full"
    return MemoryError("; ".join(filter(None, [f"not enough memory: {amount}", purpose, _REMEDY])))


def limit_memory(pid: int, gigabytes: float) -> None:
    """Limit what a process and its later children may ask for, each; only Linux has such a limit."""
    if hasattr(resource, "prlimit"):
        with suppress(ProcessLookupError):
            _, most = resource.prlimit(pid, resource.RLIMIT_DATA)
            limit = int(gigabytes * 1e9) if most == resource.RLIM_INFINITY else min(int(gigabytes * 1e9), most)
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


@contextmanager
def in_one_sentence(what: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn whatever goes wrong in the block of code, foreign code too, into a ValueError of one sentence.

    Args:
        what: is wrong, which the sentence begins with; the reason follows.
        passed: kinds of errors that are left as they are. Those that say that memory has run out become MemoryErrors.
    """
    try:
        yield
    except passed:
        raise
    except Exception as error:
        if shortage := out_of_memory(error):
            raise shortage from None
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{what}: {reason}") from None
