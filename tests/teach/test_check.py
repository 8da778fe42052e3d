"""The check: what it says, and that it cannot be fooled or broken by an answer."""

import numpy as np
import pytest
import torch

from nanoq.teach.checks import CheckFailed, Exercise, Mistake, check, difference, judge

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


def rows(weight, bits):
    return weight.abs().amax(1) / (2 ** (bits - 1) - 1)


def forgets_to_return(weight, bits):
    rows(weight, bits)


def not_written(weight, bits):
    raise NotImplementedError


def half_a_stub(weight, bits):
    largest = ...
    return largest / (2 ** (bits - 1) - 1)


def changes_its_input(weight, bits):
    return rows(weight.abs_(), bits)


@pytest.mark.parametrize("answer", [None, ..., (..., ...), forgets_to_return, not_written, half_a_stub])
def test_a_stub_is_not_attempted(answer):
    assert judge(ROWS, answer) == (False, "– 99.rows: not attempted yet")


def test_right_answers():
    assert judge(ROWS, rows) == (True, "✓ 99.rows: correct")
    assert judge(LETTER, " B ") == (True, "✓ 99.letter: correct")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda w, b: w.abs().max(0).values / (2 ** (b - 1) - 1), "✗ 99.rows: the wrong axis."),
        (lambda w, b: w.reshape(5, 5), "✗ 99.rows: shapes that do not fit."),
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
    assert judge(LETTER, "d") == (False, "✗ 99.letter: expected 'b', got 'd'")
    assert judge(LETTER, rows) == (False, "✗ 99.letter: expected a value, got the function rows")


def test_an_answer_that_changes_its_input_does_not_spoil_the_exercise():
    judge(ROWS, changes_its_input)
    assert judge(ROWS, rows)[0]


def test_a_comparison_that_does_not_expect_this_answer_is_no_crash():
    near = Exercise("99.near", 3.0, [], compare=lambda want, got: "too far" if abs(want - got) > 1 else None)
    assert judge(near, 3.5)[0]
    assert judge(near, 5.0) == (False, "✗ 99.near: too far")
    assert judge(near, "three") == (False, "✗ 99.near: expected 3, got 'three'")


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
        (True, 1, "expected True, got 1"),
        (0.5, "0.5", "expected 0.5, got '0.5'"),
        ((1, 2), 1, "expected 2 values, got 1"),
        ((1, 2), (1, 2, 3), "expected 2 values, got 3"),
        ((1, torch.ones(2)), (1, torch.ones(3)), "value 1: expected shape (2,), got (3,)"),
        (torch.ones(2), [1.0, 1.0], "expected tensor([1, 1]), got [1.0, 1.0]"),
        (torch.tensor(0.5), torch.tensor(1.5), "expected 0.5, got 1.5"),
        (torch.zeros(3, 4), torch.eye(3, 4), "3 of 12 values differ, the first at [0, 0]: expected 0, got 1"),
        (torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4), "expected bool values, got float values"),
        (torch.zeros(3, 4), 1, "expected a tensor of shape (3, 4), got 1"),
    ],
)
def test_different(expected, got, said):
    assert difference(expected, got) == said


def test_check_prints_and_raises_only_when_strict(capsys, monkeypatch):
    monkeypatch.delenv("NANOQ_STRICT", raising=False)
    check("00.scale", ...)
    assert capsys.readouterr().out == "– 00.scale: not attempted yet\n"
    monkeypatch.setenv("NANOQ_STRICT", "1")
    check("00.scale", lambda weight: weight.abs().max() / 127)
    assert capsys.readouterr().out == "✓ 00.scale: correct\n"
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
