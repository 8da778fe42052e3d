"""Exercise checks: right, wrong with a hint that fits the mistake, or not attempted yet.

An exercise is data. The reference solution says what is right and each `Mistake` is a wrong solution that
learners really write, so a check needs no code of its own: it runs the answer on the cases and compares what
comes out with what the reference and the mistakes give. Add one to `nanoq/teach/exercises/nbNN.py`:

    EXERCISES = [
        Exercise(
            id="04.qmax",
            reference=lambda bits: 2 ** (bits - 1) - 1,
            cases=[(8,), (4,), (2,)],
            mistakes=[
                Mistake(lambda bits: 2 ** (bits - 1), "One of the codes is zero: the largest is one less."),
                ...
            ],
        ),
    ]

The tests feed every registered exercise its reference, its mistakes and a stub: a new one is tested already.
"""

import copy
import difflib
import importlib.util
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch

MAX_VALUES_SHOWN = 8

Cases = Sequence[tuple]
Array = (torch.Tensor, np.ndarray)


class CheckFailed(AssertionError):
    """An answer did not pass while `NANOQ_STRICT=1`, that is in a graded or a solved notebook."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer worth recognising, and the hint for whoever gives it."""

    answer: object
    hint: str


def difference(expected: object, got: object) -> str | None:
    """Say in one clause how `got` differs from `expected`; None if they agree.

    Integers, booleans and strings have to be equal (strings up to case and outer blanks), floats within 1e-4
    relative or 1e-6 absolute. Tensors and arrays have to agree in shape and in kind (float, integer, bool),
    not in width: int8 codes equal the same int64 codes. Tuples and lists are compared value by value.
    """
    if isinstance(expected, Array) and not expected.shape:
        expected = expected.item()
    if isinstance(expected, Array):
        return _array_difference(expected, got)
    if isinstance(expected, (tuple, list)):
        return _sequence_difference(expected, got)
    if isinstance(got, Array) and math.prod(got.shape) == 1:
        got = got.item()  # a 0-d tensor is as good as a number, and the other way round
    return None if _equal_scalars(expected, got) else f"expected {_summary(expected)}, got {_summary(got)}"


def _equal_scalars(expected: object, got: object) -> bool:
    if isinstance(got, Array):
        return False  # several values; == would compare each of them
    if isinstance(expected, str) and isinstance(got, str):
        return expected.strip().casefold() == got.strip().casefold()
    if isinstance(expected, bool) != isinstance(got, (bool, np.bool_)):
        return False  # 1 == True in Python, but a number does not answer a yes-or-no question
    if isinstance(expected, float) and isinstance(got, Real):
        both_nan = math.isnan(expected) and math.isnan(got)
        return both_nan or math.isclose(expected, got, rel_tol=1e-4, abs_tol=1e-6)
    return expected == got


def _array_difference(expected: torch.Tensor | np.ndarray, got: object) -> str | None:
    if type(got) is not type(expected):
        return f"expected {_summary(expected)}, got {_summary(got)}"
    want, have = (torch.as_tensor(array).detach() for array in (expected, got))
    if have.shape != want.shape:
        return f"expected shape {tuple(want.shape)}, got {tuple(have.shape)}"
    if _kind(have) != _kind(want):
        return f"expected {_kind(want)} values, got {_kind(have)} values"
    if _kind(want) == "float":
        wrong = ~torch.isclose(have.double(), want.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
    else:
        wrong = have != want
    if not wrong.any():
        return None
    if want.numel() <= MAX_VALUES_SHOWN:
        return f"expected {_summary(want)}, got {_summary(have)}"
    first = tuple(wrong.nonzero()[0].tolist())
    return (f"{int(wrong.sum())} of {wrong.numel()} values differ, the first at {list(first)}: "
            f"expected {_summary(want[first].item())}, got {_summary(have[first].item())}")


def _sequence_difference(expected: Sequence, got: object) -> str | None:
    if not isinstance(got, (tuple, list)):
        return f"expected {len(expected)} values, got {_summary(got)}"
    if len(got) != len(expected):
        return f"expected {len(expected)} values, got {len(got)}"
    for i, (want, have) in enumerate(zip(expected, got, strict=True)):
        if message := difference(want, have):
            return f"value {i}: {message}"
    return None


def _kind(tensor: torch.Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "integer"


def _summary(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Array):
        name = "tensor" if isinstance(value, torch.Tensor) else "array"
        if math.prod(value.shape) > MAX_VALUES_SHOWN:
            return f"a {name} of shape {tuple(value.shape)}"
        values = np.asarray(value.tolist())
        return f"{name}({np.array2string(values, separator=', ', formatter={'float_kind': '{:.4g}'.format})})"
    if callable(value):
        return f"the function {_name(value)}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        id: Notebook number, dot, name: `"04.qmax"`.
        reference: The right answer: a function, or the value itself (for a quiz, the letter).
        mistakes: Wrong answers, each with its hint; at least three.
        cases: Arguments for each call of a function, or a function that draws them from a `torch.Generator`.
        points: What it is worth in the nbgrader edition.
        compare: `compare(expected, got)` returns None if they agree and a clause that says how they differ if
            they do not. Give one where more than one answer is right.
        minutes: How long a learner takes; 0 where nobody has said.
        difficulty: 1 to 3, shown as ●○○ to ●●●.
    """

    id: str
    reference: object
    mistakes: Sequence[Mistake]
    cases: Cases | Callable[[torch.Generator], Cases] = ()
    points: int = 1
    compare: Callable[[object, object], str | None] = difference
    minutes: int = 0
    difficulty: int = 1

    def draw_cases(self) -> Cases:
        """Return the cases, drawn with a seed that depends on the id alone if they are to be drawn."""
        if not callable(self.cases):
            return self.cases
        return self.cases(torch.Generator().manual_seed(zlib.crc32(self.id.encode())))

    def differs(self, expected: object, got: object) -> str | None:
        """Compare two results, whatever they are: a `compare` may not have thought of this `got`."""
        try:
            return self.compare(expected, got)
        except Exception:
            return f"expected {_summary(expected)}, got {_summary(got)}"


@dataclass(frozen=True)
class _Outcome:
    """What one call gave: a value or an exception, and whether it changed an argument."""

    value: object = None
    error: Exception | None = None
    changed_argument: int | None = None


def exercises_of(notebook: str) -> dict[str, Exercise]:
    """Return the exercises of a notebook (`"04"`) by id; empty if it has none."""
    name = f"nanoq.teach.exercises.nb{notebook}"
    if importlib.util.find_spec(name) is None:
        return {}
    return {exercise.id: exercise for exercise in importlib.import_module(name).EXERCISES}


def find_exercise(exercise_id: str) -> Exercise:
    """Return the exercise with this id, or raise a ValueError that lists the ids nearest to it."""
    exercises = exercises_of(exercise_id[:2])
    if exercise_id not in exercises:
        near = difflib.get_close_matches(exercise_id, exercises, cutoff=0.5) or exercises
        known = f"Did you mean {' or '.join(near)}?" if near else "Its notebook has no exercises."
        raise ValueError(f"There is no exercise {exercise_id!r}. {known}")
    return exercises[exercise_id]


def check(exercise_id: str, answer: object) -> None:
    """Check an answer and print one line: correct, wrong with a hint, or not attempted yet.

    Args:
        exercise_id: For example `"04.qmax"`.
        answer: The function or the value that the exercise asks for.

    Raises:
        ValueError: If there is no such exercise.
        CheckFailed: If the answer is wrong or missing and `NANOQ_STRICT=1`.
    """
    passed, line = judge(find_exercise(exercise_id), answer)
    if not passed and os.environ.get("NANOQ_STRICT") == "1":
        raise CheckFailed(line)
    print(line)


def judge(exercise: Exercise, answer: object) -> tuple[bool, str]:
    """Return whether `answer` solves the exercise, and the line that `check` prints about it."""
    if _is_stub(answer):
        return False, f"– {exercise.id}: not attempted yet"
    if callable(answer) != callable(exercise.reference):
        wanted = "a function" if callable(exercise.reference) else "a value"
        return False, f"✗ {exercise.id}: expected {wanted}, got {_summary(answer)}"
    cases = exercise.draw_cases() if callable(answer) else [()]
    got = _run(answer, cases)
    if _from_stub(got[0]):
        return False, f"– {exercise.id}: not attempted yet"
    problem = _first_problem(exercise, answer, cases, got)
    if problem is None:
        return True, f"✓ {exercise.id}: correct"
    hints = (m.hint for m in exercise.mistakes if _agree(exercise, _run(m.answer, cases), got))
    return False, f"✗ {exercise.id}: {next(hints, problem)}"


def _run(answer: object, cases: Cases) -> list[_Outcome]:
    """Call the answer on a copy of each case, so that no call can spoil the next."""
    if not callable(answer):
        return [_Outcome(answer)]
    outcomes = []
    for case in cases:
        args = copy.deepcopy(case)
        try:
            value, error = answer(*args), None
        except Exception as exception:  # whatever a learner's code raises is a wrong answer, not a crash
            value, error = None, exception
        changed = (i for i, arg in enumerate(args) if _is_data(arg) and difference(case[i], arg))
        outcomes.append(_Outcome(value, error, next(changed, None)))
    return outcomes


def _is_data(argument: object) -> bool:
    return isinstance(argument, (*Array, list))


def _is_stub(value: object) -> bool:
    """Whether this is what a stub leaves: nothing, `...`, or `a, b = ..., ...`."""
    return value is None or value is ... or (isinstance(value, tuple) and any(v is ... for v in value))


def _from_stub(outcome: _Outcome) -> bool:
    """Whether a function is still a stub: it returns one, or stops at a `...` that it cannot compute with."""
    if outcome.error is None:
        return _is_stub(outcome.value)
    return isinstance(outcome.error, NotImplementedError) or "ellipsis" in str(outcome.error)


def _first_problem(exercise: Exercise, answer: object, cases: Cases, got: list[_Outcome]) -> str | None:
    """Say what is wrong in the first case that is, without knowing the mistake."""
    for case, right, outcome in zip(cases, _run(exercise.reference, cases), got, strict=True):
        call = f"{_name(answer)}({', '.join(map(_summary, case))})" if callable(answer) else ""
        if outcome.error is not None:
            return f"{call} raised {type(outcome.error).__name__}: {outcome.error}"
        if message := exercise.differs(right.value, outcome.value):
            return f"{call}: {message}" if call else message
        if outcome.changed_argument is not None:
            return f"{call} changes its argument number {outcome.changed_argument + 1}; leave it as it was"
    return None


def _agree(exercise: Exercise, a: list[_Outcome], b: list[_Outcome]) -> bool:
    """Whether two answers do the same on every case: the same value, or the same kind of exception."""
    return all(
        type(x.error) is type(y.error) and (x.error is not None or exercise.differs(x.value, y.value) is None)
        for x, y in zip(a, b, strict=True)
    )
