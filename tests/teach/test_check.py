"""The check: what it says, and that it cannot be fooled or broken by an answer."""

import dataclasses
import math
import signal
import time
import wsgiref
import xml
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from nanoq.teach import checks
from nanoq.teach.checks import CheckFailed, Exercise, Mistake, check, examine, judge
from nanoq.teach.differences import Form, difference


class Twin(torch.Tensor):
    """A tensor by another name."""


ROWS = Exercise(
    id="99.rows",
    reference=lambda weight, bits: weight.abs().amax(dim=1) / (2 ** (bits - 1) - 1),
    cases=[(torch.tensor([[1.0, -2.0, 0.5], [0.1, 0.2, -0.4]]), 8), (torch.eye(3, 2), 4)],
    mistakes=[
        Mistake(lambda weight, bits: weight.abs().amax(dim=0) / (2 ** (bits - 1) - 1), "the wrong axis."),
        Mistake(lambda weight, bits: weight.amax(dim=1) / (2 ** (bits - 1) - 1), "no absolute value."),
        Mistake(lambda weight, bits: weight + torch.ones(7), "shapes that do not fit."),
    ],
)
LETTER = Exercise("99.letter", reference="b", mistakes=[Mistake("a", "too few."), Mistake("c", "too many.")])


NUMBER = Exercise("99.number", reference=350.0, mistakes=[Mistake(175, "one byte each.")])


def rows(weight, bits):
    return weight.abs().amax(1) / (2 ** (bits - 1) - 1)


def forgets_to_return(weight, bits):
    rows(weight, bits)


def no_return_on_one_way(weight, bits):
    if bits == 8:
        return rows(weight, bits)


def one_way_to_write(weight, bits):
    return rows(weight, bits) if bits == 4 else ...


def untouched(weight, bits):
    """Scales of the rows."""


def unfinished(weight, bits):
    """Scales of the rows."""
    largest, top = ..., ...  # noqa: F841


def not_written(weight, bits):
    raise NotImplementedError


def half_a_stub(weight, bits):
    largest = ...
    return largest / (2 ** (bits - 1) - 1)


def changes_its_input(weight, bits):
    return rows(weight.abs_(), bits)


@pytest.mark.parametrize("answer", [None, ..., (..., ...), untouched, unfinished, not_written, half_a_stub])
def test_a_stub_is_not_attempted(answer):
    assert judge(ROWS, answer) == (False, "– 99.rows: not attempted yet")


def test_right_answers():
    assert judge(ROWS, rows) == (True, "✓ 99.rows: correct")
    assert judge(LETTER, " B ") == (True, "✓ 99.letter: correct")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda w, b: w.abs().max(0).values / (2 ** (b - 1) - 1), "✗ 99.rows: the wrong axis."),
        (lambda w, b: w + torch.zeros(8), "✗ 99.rows: shapes that do not fit."),
        (lambda w, b: w.reshape(5, 5), "raised RuntimeError: shape '[5, 5]' is invalid"),
        (lambda w, b: w.abs().numpy().max(0) / (2 ** (b - 1) - 1), "✗ 99.rows: the wrong axis."),
        (lambda w, b: (w.abs().amax(0) / (2 ** (b - 1) - 1)).tolist(), "✗ 99.rows: the wrong axis."),
        (lambda w, b: rows(w, b).numpy(), "the values are right; return a torch.Tensor of them: torch.from_numpy(...)"),
        (lambda w, b: rows(w, b).tolist(), "the values are right; return a torch.Tensor of them: torch.tensor(...)"),
        (lambda w, b: rows(w, b).tolist() if b == 8 else rows(w, b) + 1, "expected tensor([0.1429, 0.1429, 0])"),
        (forgets_to_return, "forgets_to_return returned None: `return` the value; printing it is not enough"),
        (no_return_on_one_way, "returned None: this branch of the function has no `return`"),
        (one_way_to_write, "returned ...: this branch of the function is not written yet"),
        (lambda w, b: F.relu(w), "name 'F' is not defined. It is not imported: add `import torch.nn.functional as F`"),  # noqa: F821
        (lambda w, b: ceil(b), "Write math.ceil, and add `import math` if it is missing"),  # noqa: F821
        (lambda w, b: xml.unheard_of, "module 'xml' has no attribute 'unheard_of'"),
        (lambda w, b: wsgiref.validate, "Is it not imported? Add `import wsgiref.validate`"),
        (lambda w, b: exit(), "raised SystemExit"),
        (lambda w, b: rows(w, b)[:1], "expected shape (2,), got (1,)"),
        (lambda w, b: rows(w, b).int(), "expected float values, got integer values"),
        (lambda w, b: 2 * rows(w, b), "expected tensor([0.01575, 0.00315]), got tensor([0.0315, 0.006299])"),
        (lambda w, b: unknown, "raised NameError: name 'unknown' is not defined"),  # noqa: F821
        (changes_its_input, "changes its argument number 1"),
        (0.5, "expected a function, got 0.5"),
    ],
)
def test_wrong_answers_get_their_hint_or_what_is_wrong(answer, said):
    passed, line = judge(ROWS, answer)
    assert not passed and line.startswith("✗ 99.rows: ") and said in line


def test_a_value_is_asked_for():
    assert judge(LETTER, "a") == (False, "✗ 99.letter: too few.")
    assert judge(NUMBER, rows) == (False, "✗ 99.number: expected a value, got the function rows")


@pytest.mark.parametrize("answer", ["b", "B", " b ", "b)", "(b)", "[b]", "b.", "'b'", "b) two of them", "b: two"])
def test_a_choice_takes_its_letter_however_it_is_written(answer):
    assert judge(LETTER, answer)[0]


@pytest.mark.parametrize("answer", ["d", "zzz", "", "ab", "a or b", 2, 0.5, True, ["b"], rows, "be"])
def test_a_choice_does_not_give_the_key_to_junk(answer):
    assert judge(LETTER, answer) == (False, "✗ 99.letter: answer with one letter in quotes, a, b or c")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0, "much too small: 0"),
        (-350, "much too small: -350"),
        (300.0, "too small: 300"),
        (np.float32(360), "too large: 360"),
        (torch.tensor([4000]), "much too large: 4000"),
        (math.inf, "much too large: inf"),
        (math.nan, "a number is wanted, got nan"),
        ("350 GB", "a number is wanted, got '350 GB'"),
        (True, "a number is wanted, got True"),
        ([1, 2], "a number is wanted, got [1, 2]"),
        (175, "one byte each."),
        (torch.tensor(175.0), "one byte each."),
    ],
)
def test_a_wrong_number_does_not_give_the_right_one_away(answer, said):
    assert judge(NUMBER, answer) == (False, f"✗ 99.number: {said}")
    assert judge(NUMBER, torch.tensor(350))[0]


def test_a_loop_without_end_is_stopped(monkeypatch):
    def swallows(weight, bits):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    monkeypatch.setattr(checks, "LIMIT", 0.2)
    passed, line = judge(ROWS, swallows)
    assert not passed and line.endswith("8) did not end within 0.2 seconds: is there a loop whose condition never "
                                        "becomes false?")
    assert judge(ROWS, rows)[0]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_timer_that_somebody_else_has_set_goes_on():
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        judge(ROWS, rows)
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_check_works_outside_the_main_thread():
    with ThreadPoolExecutor() as pool:
        assert pool.submit(judge, ROWS, rows).result() == (True, "✓ 99.rows: correct")


def test_the_reason_is_for_whoever_is_right(monkeypatch, capsys):
    exercise = dataclasses.replace(ROWS, why="each row has a largest weight of its own.")
    monkeypatch.setattr(checks, "find_exercise", lambda exercise_id: exercise)
    for answer, words in ((rows, ["✓ 99.rows: correct", "  Why: each row has a largest weight of its own."]),
                          (forgets_to_return, [])):  # fmt: skip
        check("99.rows", answer)
        said = capsys.readouterr().out.splitlines()
        assert ("Why" in "".join(said)) == bool(words) and said[: len(words)] == words


def test_the_second_wrong_try_gets_the_second_hint(capsys, monkeypatch):
    hinted = dataclasses.replace(ROWS, hints=("the idea.", "the first line."))
    monkeypatch.delenv("NANOQ_STRICT", raising=False)
    monkeypatch.setattr(checks, "find_exercise", lambda _: hinted)
    monkeypatch.setattr(checks, "_wrong_tries", Counter())

    def hint_for(answer):
        check("99.rows", answer)
        return capsys.readouterr().out.partition("\n")[2]

    known, unknown = ROWS.mistakes[0].answer, lambda w, b: 2 * rows(w, b)
    assert [hint_for(answer) for answer in (..., rows, known)] == ["", "", ""]
    assert hint_for(known) == "  Hint: the first line.\n"
    monkeypatch.setattr(checks, "_wrong_tries", Counter())
    assert [hint_for(unknown) for _ in range(3)] == ["  Hint: the idea.\n"] + ["  Hint: the first line.\n"] * 2
    assert hint_for(lambda w, b: rows(w, b).tolist()) == ""  # a matter of form: nothing to think about
    monkeypatch.setattr(checks, "_wrong_tries", Counter())
    assert [hint_for(lambda w, b: w.sise()) for _ in range(2)] == ["", "  Hint: the first line.\n"]  # a slip of the pen


def test_right_numbers_of_the_wrong_shape_get_no_hint_and_are_no_wrong_try(capsys, monkeypatch):
    monkeypatch.delenv("NANOQ_STRICT", raising=False)
    monkeypatch.setattr(checks, "_wrong_tries", Counter())

    def said(answer):
        check("05.tquant", answer)
        return capsys.readouterr().out

    def flat(w):
        return w.abs().amax(1) / 3, 2 * w.abs().amax(1) / 3

    for _ in range(3):
        assert "right numbers, wrong shape" in (out := said(flat)) and "Hint" not in out
    assert "Hint" not in said(lambda w: (w.abs().max() / 3, 2 * w.abs().max() / 3))  # a known mistake, the first time
    assert "Hint" in said(lambda w: (w.abs().max() / 3, 2 * w.abs().max() / 3))


def test_an_answer_that_equals_everything_is_not_right():
    class Yes:
        def __eq__(self, other):
            return True

    for expected in (3, 0.5, True, "x", (1, 2), torch.ones(3), torch.float16):
        assert difference(expected, Yes()) is not None
    assert difference((1, 2), [Yes(), Yes()]) is not None


def test_a_type_that_the_exercise_names_is_checked():
    packed = Exercise("99.packed", lambda codes: (codes.to(torch.uint8), 1.0), [], [(torch.tensor([1, 2]),)],
                      dtype=torch.uint8)  # fmt: skip
    verdict = examine(packed, lambda codes: (codes, 1.0))
    assert (verdict.kind, verdict.line) == (
        "form", "✗ 99.packed: <lambda>(tensor([1, 2])): the values are right, but they are int64, and uint8 is asked "
                "for: .to(torch.uint8)")
    assert examine(packed, lambda codes: (codes + 1, 1.0)).kind == "wrong"
    assert judge(packed, lambda codes: [codes.byte(), 1])[0]


def test_an_exercise_may_allow_more_room():
    rough = Exercise("99.rough", lambda x: x / 3, [], [(1.0,)], rtol=1e-2)
    assert judge(rough, lambda x: 0.334)[0] and not judge(rough, lambda x: 0.34)[0]


def test_an_answer_that_changes_its_input_does_not_spoil_the_exercise():
    judge(ROWS, changes_its_input)
    assert judge(ROWS, rows)[0]


def test_a_comparison_that_does_not_expect_this_answer_is_no_crash():
    near = Exercise("99.near", 3.0, [], compare=lambda want, got: "too far" if abs(want - got) > 1 else None)
    assert judge(near, 3.5)[0]
    assert judge(near, 5.0) == (False, "✗ 99.near: too large: 5")
    assert judge(near, "three") == (False, "✗ 99.near: a number is wanted, got 'three'")


def test_drawn_cases_are_the_same_each_time():
    drawn = Exercise(id="99.drawn", reference=torch.sum, mistakes=[],
                     cases=lambda generator: [(torch.rand(4, generator=generator),)])
    assert torch.equal(drawn.draw_cases()[0][0], drawn.draw_cases()[0][0])
    assert judge(drawn, lambda values: values.sum())[0]


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (7, 7.0),
        (7, torch.tensor(7)),
        (0.1, np.float32(0.1)),
        (float("nan"), float("nan")),
        (True, np.bool_(True)),
        ((1, "x"), [1, "X"]),
        (torch.tensor([1, 2]), torch.tensor([1, 2], dtype=torch.int8)),
        (torch.ones(2), torch.ones(2, requires_grad=True)),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan])),
        (torch.ones(2), torch.nn.Parameter(torch.ones(2))),
        (torch.ones(2), Twin(torch.ones(2))),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.ones(2), torch.ones(2, dtype=torch.long)),
        (0.1, Fraction(1, 10)),
        (0.1, Decimal("0.1")),
        (8, 2 ** (math.log(8) / math.log(2))),
        ((1, 1), torch.tensor([1, 1])),
        ((torch.ones(2), torch.zeros(2)), torch.eye(2).sum(0) * torch.tensor([[1.0], [0.0]])),
        ([0, 1, 2], range(3)),
        ([0.5, 1.5], np.array([0.5, 1.5])),
        ("abc", "ABC "),
    ],
)
def test_equal(expected, got):
    assert difference(expected, got) is None


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        (7, 8, "expected 7, got 8"),
        (7, torch.ones(3), "expected 7, got tensor([1, 1, 1])"),
        (1, True, "expected 1, got True"),
        (True, 0, "expected True, got 0"),
        (8, 8.00001, "expected 8, got 8.00001"),
        (0.5, "0.5", "expected 0.5, got '0.5'"),
        ((1, 2), 1, "expected 2 values, got 1"),
        ((1, 2), (1, 2, 3), "expected 2 values, got 3"),
        ((1, torch.ones(2)), (1, torch.ones(3)), "value 1: expected shape (2,), got (3,)"),
        (torch.ones(2), [1.0, 2.0], "expected tensor([1, 1]), got tensor([1, 2])"),
        (torch.ones(2), [1.0, "x"], "expected tensor([1, 1]), got [1.0, 'x']"),
        (torch.ones(2), [[1.0], [1.0, 2.0]], "expected tensor([1, 1]), got [[1.0], [1.0, 2.0]]"),
        ((1, torch.ones(2)), (2, [1.0, 1.0]), "value 0: expected 1, got 2"),
        ((torch.ones(2), 1), ([1.0, 1.0], 2), "value 1: expected 1, got 2"),
        (torch.tensor(0.5), torch.tensor(1.5), "expected 0.5, got 1.5"),
        (torch.zeros(3, 4), torch.eye(3, 4), "3 of 12 values differ, the first at [0, 0]: expected 0, got 1"),
        (torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4), "expected bool values, got float values"),
        (torch.zeros(3, 4), 1, "expected a tensor of shape (3, 4), got 1"),
    ],
)
def test_different(expected, got, said):
    assert difference(expected, got) == said
    assert not isinstance(difference(expected, got), Form)


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        (torch.ones(2), np.ones(2), "return a torch.Tensor of them: torch.from_numpy(...)"),
        (torch.ones(2, 2), [[1.0, 1.0], [1, 1]], "return a torch.Tensor of them: torch.tensor(...)"),
        (torch.ones(2, 2), (torch.ones(2), np.ones(2)), "return a torch.Tensor of them: torch.tensor(...)"),
        (torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), "their type is float and should be integer: .long()"),
        (torch.tensor([True, False]), torch.tensor([1, 0]), "their type is integer and should be bool: .bool()"),
        (torch.tensor([1.0, 0.0]), torch.tensor([True, False]), "their type is bool and should be float: .float()"),
        (True, 1, "True or False is wanted, not 1"),
        (3, [3], "the value is right; return it by itself, 3 instead of [3]"),
        ((1, torch.ones(2)), (1, np.ones(2)), "value 1: the values are right; return a torch.Tensor"),
    ],
)
def test_right_in_another_form(expected, got, said):
    assert said in difference(expected, got)
    assert isinstance(difference(expected, got), Form)


def test_check_prints_and_raises_only_when_strict(capsys, monkeypatch):
    monkeypatch.delenv("NANOQ_STRICT", raising=False)
    check("00.scale", ...)
    assert capsys.readouterr().out == "– 00.scale: not attempted yet\n"
    monkeypatch.setenv("NANOQ_STRICT", "1")
    check("00.scale", lambda weight: weight.abs().max() / 127)
    assert capsys.readouterr().out.startswith("✓ 00.scale: correct\n  Why: ")
    with pytest.raises(CheckFailed, match="– 00.scale: not attempted yet"):
        check("00.scale", ...)
    with pytest.raises(CheckFailed, match="✗ 00.scale: expected a function, got 3"):
        check("00.scale", 3)


def test_an_unknown_exercise():
    with pytest.raises(ValueError, match=r"no exercise '00.scal'. Did you mean .*00\.scale"):
        check("00.scal", 1)
    with pytest.raises(ValueError, match="Its notebook has no exercises"):
        check("77.scale", 1)


def test_a_reference_that_is_a_tensor_of_no_dimension_takes_a_number():
    assert difference(torch.tensor(0.5), 0.5) is None
    assert difference(torch.tensor(0.5), torch.tensor(0.5)) is None
    assert difference(torch.tensor(0.5), 0.6) is not None
    assert difference(torch.tensor([0.5]), torch.tensor(0.5)) is not None


# ---- classes of modules ----


class Halves(torch.nn.Module):
    """Two layers, one after the other."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = torch.nn.Linear(width, 2), torch.nn.Linear(2, width)

    def forward(self, x):
        return self.second(self.first(x))


def of_forward(forward):
    """The same module with another forward."""
    return type("Mine", (Halves,), {"forward": forward})


MODULES = Exercise(
    id="99.modules", reference=Halves, call=checks.with_weights,
    cases=[((3,), Halves(3).state_dict(), torch.eye(3))],
    mistakes=[Mistake(of_forward(lambda self, x: x + self.second(self.first(x))), "nothing is added.")],
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind", "line"),
    [
        (of_forward(lambda self, x: self.second(self.first.forward(x))), "right", "correct"),
        (of_forward(lambda self, x: self.second(self.first(x)) + x), "known", "nothing is added."),
        (of_forward(lambda self, x: self.second(2 * self.first(x))), "wrong", "Mine: 9 of 9 values differ"),
        (of_forward(lambda self, x: self.first(x)), "wrong", "Mine: expected shape (3, 3), got (3, 2)"),
        (of_forward(lambda self, x: self.third(x)), "broken", "Mine raised AttributeError"),
        (of_forward(lambda self, x: x.mul_(0)), "wrong", "Mine: 9 of 9 values differ"),
        (of_forward(lambda self, x: ...), "missing", "not attempted yet"),
        (Halves(3), "broken", "hand over the class itself, Halves, without brackets"),
        (lambda width: torch.nn.Linear(width, width), "broken", "Missing key(s) in state_dict"),
    ],
)
def test_a_class_of_modules_is_judged_by_what_it_does_with_given_weights(answer, kind, line):
    verdict = examine(MODULES, answer)
    assert verdict.kind == kind
    assert line in verdict.line
