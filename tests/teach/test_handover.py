"""What goes from the process that runs an answer to the one that judges it: the same verdicts, and nothing but data."""

import json
import math
import os
import pickle
from decimal import Decimal
from fractions import Fraction

import judged
import numpy as np
import pytest
import torch
from test_exercises import ALL
from test_judged import TABLE, find

from nanoq.teach import checks, handover
from nanoq.teach.checks import assess, examine, find_exercise, gather
from nanoq.teach.differences import difference, summary
from nanoq.teach.handover import Foreign, hand_over, packed, take, unpacked

VALUES = [
    None, ..., True, 7, -0.0, math.nan, math.inf, 0.1, "ä", b"\0\xff", (1, [2.5, ("x",)]), range(3),
    {"a": 1, 2: (None,)}, Fraction(1, 3), Decimal("0.1"), np.float32(0.1), np.bool_(True),
    np.int8(3), np.arange(6).reshape(2, 3), np.ones(0), torch.arange(6).view(2, 3), torch.tensor(0.5),
    torch.ones(0, 3), torch.ones(2, dtype=torch.bfloat16),
    torch.ones(2).to(torch.float8_e4m3fn), torch.tensor([True, False]), torch.eye(3).T[:, 1:], torch.ones(2) * 1j,
    torch.as_strided(torch.ones(9), (1, 1), (5, 7)), torch.ones(3, requires_grad=True),
]  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(checks, "LIMIT", 2.0)


def sent(value):
    return unpacked(json.loads(json.dumps(packed(value))))


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_values_come_through_as_they_are(value):
    got = sent(value)
    assert summary(got) == summary(tuple(value) if isinstance(value, range) else value)
    assert type(got) is (tuple if isinstance(value, range) else type(value))
    if isinstance(value, torch.Tensor):
        assert got.dtype == value.dtype and got.shape == value.shape
        assert torch.equal(got.to(torch.complex64), value.to(torch.complex64))
    elif isinstance(value, (np.ndarray, np.generic)):
        assert got.dtype == value.dtype and np.array_equal(got, value)


class Rude:
    """Raises whatever it is asked."""

    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [{1, 2}, 10**5000, Rude(), (Rude(),), len, torch.nn.Linear(2, 2), object(),
                                   Decimal("1e99999"), Decimal("nan"), np.array([object()]), torch.float16],
                         ids=lambda value: type(value).__name__)  # fmt: skip
def test_other_values_come_as_words_that_equal_nothing(value):
    got = sent(value)
    assert isinstance(got[0] if isinstance(value, tuple) else got, Foreign) and len(summary(got)) <= 80
    assert all(difference(right, got) for right in (3, 0.5, True, "x", (1, 2), (3,), torch.ones(3), torch.ones(1)))


@pytest.mark.parametrize("title", TABLE)
def test_answers_get_the_verdict_they_get_in_one_process(title, tmp_path, monkeypatch, capsys):
    exercise = find(title)
    monkeypatch.setattr(handover, "find_exercise", lambda _: exercise)
    for _, code in TABLE[title]:
        if "torch.rand(" in code:  # another answer each time
            continue
        hand_over(exercise.id, eval(code, vars(judged)), tmp_path / "answer")
        assert assess(exercise, take(tmp_path / "answer")) == examine(exercise, eval(code, vars(judged))), code


@pytest.mark.parametrize("exercise", [exercise for _, exercise in ALL], ids=lambda exercise: exercise.id)
def test_right_answers_and_mistakes_get_the_verdict_they_get_in_one_process(exercise, tmp_path):
    for answer in [exercise.reference, *(mistake.answer for mistake in exercise.mistakes)]:
        gathered = gather(exercise, answer)
        assert assess(exercise, handed(gathered, tmp_path)) == assess(exercise, gathered)


def handed(gathered, folder):
    """What was gathered, through a file."""
    text = (gathered.value, gathered.name, gathered.body, [
        (each.value, each.failure and tuple(vars(each.failure).values()), each.changed_argument)
        for each in gathered.outcomes])  # fmt: skip
    (folder / "answer").write_text(json.dumps(packed(text)))
    return take(folder / "answer")


# ---- what nobody hands over by mistake ----

DAMAGED = {
    "nothing": "", "no JSON": "no", "half a file": '{"tuple": [1, ', "a number": "3", "too little": '{"tuple": [1]}',
    "without end": "[" * 100_000, "a dictionary in depth": '{"list": [' * 50_000, "a long number": "1" * 10_000,
    "an unknown kind": '{"tuple": [{"pickle": "x"}, null, true, {"list": []}]}',
    "an attribute of torch": '{"tuple": [{"tensor": ["load", [1], ""]}, null, true, {"list": []}]}',
    "a tensor that is larger than its bytes": '{"tuple": [{"tensor": ["float32", [1000000000], ""]}, null, true, '
                                              '{"list": []}]}',
    "objects": '{"tuple": [{"array": ["|O", [1], "AAAAAAAAAAA="]}, null, true, {"list": []}]}',
    "a power": '{"tuple": [{"fraction": "1e999999999"}, null, true, {"list": []}]}',
    "a name that is none": '{"tuple": [null, 3, true, {"list": []}]}',
    "an outcome that is none": '{"tuple": [null, "f", true, {"list": [{"tuple": [1, "error", null]}]}]}',
    "a pickle": pickle.dumps(print).decode("latin-1"),
}  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_what_hand_over_does_not_write_is_one_sentence(text, tmp_path):
    (tmp_path / "answer").write_text(text)
    with pytest.raises(ValueError, match="^what was handed over cannot be read"):
        take(tmp_path / "answer")


def test_no_link_no_pipe_no_folder_and_no_huge_file_is_read(tmp_path, monkeypatch):
    hand_over(None, "c", tmp_path / "answer")
    assert take(tmp_path / "answer").value == "c"
    (tmp_path / "link").symlink_to(tmp_path / "answer")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(ValueError, match="cannot be read"):
            take(tmp_path / name)
    monkeypatch.setattr(handover, "LARGEST", 10)
    with pytest.raises(ValueError, match="cannot be read"):
        take(tmp_path / "answer")
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "missing")


def test_outcomes_of_fewer_or_of_more_calls_are_not_right(tmp_path):
    exercise = find_exercise("00.levels")
    whole = gather(exercise, exercise.reference)
    assert assess(exercise, whole).kind == "right"
    for outcomes in (whole.outcomes[:1], whole.outcomes * 2):
        made_up = handed(checks.Gathered(None, "levels", True, outcomes), tmp_path)
        assert assess(exercise, made_up).kind == "broken"
    assert assess(exercise, checks.Gathered(None, "levels", True, ())).kind == "missing"
