"""What an answer did, from the process that ran it to the one that judges it: as JSON, which runs no code.

The first process is a submission's and may write what it likes; so whatever is read here is plain data or a ValueError.
"""

import base64
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import astuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from nanoq.files import atomic_path
from nanoq.teach.checks import Failure, Gathered, Outcome, find_exercise, gather
from nanoq.teach.differences import summary

LARGEST = 64 * 2**20  # bytes; the weights of notebook 04's capstone take 15 million
_DTYPE = re.compile(r"(?:b?float|u?int|complex|bool)\w*")
_NUMBER = re.compile(r"-?\d{1,4000}([./]\d{1,4000})?")  # without an exponent, which might be long


class Foreign:
    """A value of a kind that is not handed over; it equals nothing, and its `repr` is that of the original."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def hand_over(exercise_id: str | None, answer: object, path: str) -> None:
    """Run an answer on all that it is judged by, and write what it did; without an exercise the answer itself."""
    gathered = gather(find_exercise(exercise_id), answer) if exercise_id else Gathered(answer)
    outcomes = [(each.value, each.failure and astuple(each.failure), each.changed_argument)
                for each in gathered.outcomes]  # fmt: skip
    text = json.dumps(packed((gathered.value, gathered.name, gathered.body, outcomes)))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="ascii")


def take(path: Path) -> Gathered:
    """Read what `hand_over` has written, or somebody else.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not what `hand_over` writes.
    """
    try:
        value, name, body, outcomes = unpacked(json.loads(_content(path)))
        if not (name is None or isinstance(name, str)) or not isinstance(body, bool):
            raise ValueError("a name or a yes or no is wanted")
        return Gathered(value, name, body, tuple(_outcome(*each) for each in outcomes))
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever is wrong with it; RecursionError, too
        raise ValueError(f"what was handed over cannot be read ({type(error).__name__})") from None


def _outcome(value: object, failure: tuple | None, changed: int | None) -> Outcome:
    if failure is not None:
        failure = Failure(*failure)
        if list(map(type, astuple(failure))) != [str, str, str, bool, bool]:
            raise ValueError("a failure is three texts and two of yes or no")
    if type(changed) not in (int, type(None)):
        raise ValueError("the index of an argument is wanted")
    return Outcome(value, failure, changed)


def _content(path: Path) -> bytes:
    """A file that is one, and not too large: no link, and nothing that never ends."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            raise ValueError("no file, or one that is too large")
        return file.read(LARGEST)


# ---- values: None, yes and no, numbers and texts as JSON has them, all else as {kind: content} ----


def packed(value: object) -> object:
    """A value as JSON can hold it; of what cannot be handed over, what `summary` says."""
    try:
        if value is None:
            return None
        for kind in (bool, int, float, str):
            if isinstance(value, kind) and not isinstance(value, np.generic):
                return kind(value) if kind is not int or abs(value) < 10**4000 else {"foreign": "a very large number"}
        kind, pack = next((kind, pack) for kind, (types, pack, _) in KINDS.items() if isinstance(value, types))
        return {kind: pack(value)}
    except Exception:  # StopIteration: another kind; and a class of a learner's own may raise anything
        return {"foreign": _in_words(value)}


def _in_words(value: object) -> str:
    try:
        return str(summary(value))
    except Exception:
        return f"a {type(value).__name__}"


def unpacked(value: object) -> object:
    """What `packed` was given.

    Raises:
        Exception: Of any kind, if the value is not what `packed` gives.
    """
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise ValueError("a list without its kind")
        return value
    ((kind, content),) = value.items()
    return Foreign(str(content)) if kind == "foreign" else KINDS[kind][2](content)


def _tensor(content: list) -> torch.Tensor:
    name, shape, data = content
    if not _DTYPE.fullmatch(name) or not isinstance(getattr(torch, name), torch.dtype):
        raise ValueError("no type of numbers")
    data = bytearray(base64.b64decode(data, validate=True))
    flat = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return flat.view(getattr(torch, name)).view(shape)


def _of_tensor(value: torch.Tensor) -> list:
    plain = value.detach().as_subclass(torch.Tensor)
    flat = torch.empty(plain.numel(), dtype=plain.dtype).copy_(plain.flatten())  # whatever its strides and its device
    data = flat.view(torch.uint8).numpy().tobytes()
    return [str(plain.dtype).removeprefix("torch."), list(plain.shape), base64.b64encode(data).decode()]


def _array(content: list) -> np.ndarray:
    name, shape, data = content
    kind = np.dtype(name)
    if kind.kind not in "biufc":
        raise ValueError("no type of numbers")
    return np.frombuffer(base64.b64decode(data, validate=True), kind).reshape(shape).copy()


def _of_array(value: np.ndarray) -> list:
    if value.dtype.kind not in "biufc":
        raise ValueError("no numbers")
    return [value.dtype.str, list(value.shape), base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()]


def _all_packed(values: object) -> list:
    return [packed(each) for each in values]


def _of_number(value: Fraction | Decimal | str) -> str:
    text = str(value)
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number of a usual size")
    return text


def _number(kind: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: kind(_of_number(text))


KINDS: dict[str, tuple] = {
    "...": (type(...), lambda value: 0, lambda content: ...),
    "tuple": ((tuple, range), _all_packed, lambda content: tuple(map(unpacked, content))),
    "list": (list, _all_packed, lambda content: list(map(unpacked, content))),
    "dict": (dict, lambda value: [_all_packed(item) for item in value.items()],
             lambda content: {unpacked(key): unpacked(each) for key, each in content}),
    "bytes": ((bytes, bytearray), lambda value: base64.b64encode(value).decode(),
              lambda content: base64.b64decode(content, validate=True)),
    "tensor": (torch.Tensor, _of_tensor, _tensor),
    "scalar": (np.generic, lambda value: _of_array(np.asarray(value)), lambda content: _array(content)[()]),
    "array": (np.ndarray, _of_array, _array),
    "fraction": (Fraction, _of_number, _number(Fraction)),
    "decimal": (Decimal, _of_number, _number(Decimal)),
}  # fmt: skip
