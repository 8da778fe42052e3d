"""What an error says when memory has run out, whoever raises it."""

import errno
import re

import torch

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
