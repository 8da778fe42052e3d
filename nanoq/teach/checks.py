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
import dis
import importlib.util
import math
import os
import re
import signal
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Real
from types import ModuleType

import torch
from torch import Tensor, nn

from nanoq.teach.differences import Array, Form, difference, name_of, no_number, summary, worst, wrong_dtype

SHAPE = "right numbers, wrong shape"  # what a mistake's hint begins with where nothing is left to think about
LIMIT = 10.0  # seconds for an answer's calls, all cases together

Cases = Sequence[tuple]

# Names that a learner uses without the import, and the import.
MODULES = "math torch numpy itertools functools statistics random operator struct collections fractions decimal copy"
IMPORTS = {module: f"import {module}" for module in MODULES.split()} | {
    "np": "import numpy as np", "F": "import torch.nn.functional as F", "nn": "from torch import nn",
    "Fraction": "from fractions import Fraction", "Decimal": "from decimal import Decimal",
    "deepcopy": "from copy import deepcopy", "Counter": "from collections import Counter",
}  # fmt: skip

# What a docstring, `pass`, `x = ...` and `a, b = ..., ...` are made of: a function of nothing else is still a stub.
STUB_OPERATIONS = {
    "RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "POP_TOP", "STORE_FAST", "UNPACK_SEQUENCE",
}  # fmt: skip


class CheckFailed(AssertionError):
    """An answer did not pass while `NANOQ_STRICT=1`, that is in a graded or a solved notebook."""


class Remark(str):
    """What is worth saying of an answer that is right; `Exercise.diagnose` may return one."""


class _TooLong(BaseException):
    """The answer's time is up. Not an Exception, so that an `except Exception` in the answer does not catch it."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer worth recognising, and the hint for whoever gives it."""

    answer: object
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        id: Notebook number, dot, name: `"04.qmax"`.
        reference: The right answer: a function, or the value itself. A single letter is the key of a multiple choice
            whose other options are the mistakes.
        mistakes: Wrong answers, each with its hint; at least three.
        cases: Arguments for each call of a function, or a function that draws them from a `torch.Generator`.
        call: `call(answer, *case)` says what an answer makes of a case, where that is not `answer(*case)`: for a class
            of modules, say, it builds one, loads weights and calls it (`with_weights`).
        points: What it is worth in the nbgrader edition.
        compare: `compare(expected, got)` returns None if they agree and a clause that says how they differ if
            they do not. Give one where more than one answer is right.
        rtol: How far a float may be off, relative to the right one: more for what is rounded or estimated on the way.
        dtype: The type that the exercise asks for by name: tensors that have it in the right answer must have it.
        number: Whether the exercise asks for Python numbers by name: a tensor of one element is none.
        hints: For whoever makes an unknown mistake: an idea, and from the second wrong try on how to begin.
        minutes: How long a learner takes; 0 where nobody has said.
        difficulty: 1 to 3, shown as ●○○ to ●●●.
        produce: Where an answer is more than one call: `produce(answer)` says what it does, as plain data.
        diagnose: `diagnose(produced)` says what is wrong with that, or returns None or a `Remark` if it is right,
            "" if it is not attempted. Both together take the place of cases and `compare`; a mistake is known if its
            hint is what is said.
        why: Why the right answer is as it is, or what it is good for: a sentence for whoever has it.
        paper: Cases of a few round numbers, at most 16, for the board: the lecturer's page shows each mistake on the
            first of them that tells it from the right answer. For exercises whose own cases are too large to print.
    """

    id: str
    reference: object
    mistakes: Sequence[Mistake]
    cases: Cases | Callable[[torch.Generator], Cases] = ()
    call: Callable[..., object] | None = None
    points: int = 1
    compare: Callable[[object, object], str | None] | None = None
    rtol: float = 1e-4
    dtype: torch.dtype | None = None
    number: bool = False
    hints: tuple[str, str] | tuple[()] = ()
    minutes: int = 0
    difficulty: int = 1
    produce: Callable[[object], object] | None = None
    diagnose: Callable[[object], str | None] | None = None
    why: str = ""
    paper: Cases = ()

    @property
    def choices(self) -> str:
        """The letters of a multiple choice; empty for every other exercise."""
        if not isinstance(self.reference, str) or len(self.reference) != 1:
            return ""
        return "".join(sorted({self.reference, *(str(mistake.answer) for mistake in self.mistakes)}))

    def draw_cases(self) -> Cases:
        """Return the cases, drawn with a seed that depends on the id alone if they are to be drawn."""
        if not callable(self.cases):
            return self.cases
        return self.cases(torch.Generator().manual_seed(zlib.crc32(self.id.encode())))

    def outcome(self, answer: Callable, case: tuple) -> object:
        """Return what an answer makes of a case."""
        return self.call(answer, *case) if self.call else answer(*case)

    def named(self, name: str, case: tuple) -> str:
        """Say which call of a function of this name is meant; of what `call` does with a class its name alone."""
        return name if self.call else f"{name}({', '.join(map(summary, case))})"

    def differs(self, expected: object, got: object) -> str | None:
        """Compare two results, whatever they are: a `compare` may not have thought of this `got`."""
        try:
            message = self.compare(expected, got) if self.compare else difference(expected, got, self.rtol)
            return message or (self.dtype and wrong_dtype(expected, got, self.dtype)) or (
                no_number(expected, got) if self.number else None)
        except Exception:
            return f"expected {summary(expected)}, got {summary(got)}"


@dataclass(frozen=True)
class Verdict:
    """What `check` thinks of an answer.

    Attributes:
        kind: `"right"`; `"wrong"`; `"known"`, wrong in a way that has a hint of its own; `"broken"`, stopped by an
            error or without a result; `"form"`, right values of the wrong type; or `"missing"`, not attempted.
        line: The line that is printed.
    """

    kind: str
    line: str


@dataclass(frozen=True)
class Failure:
    """An exception that a call has raised, in words.

    Attributes:
        kind: The name of its class.
        text: What it says.
        remedy: The import that is missing, where one is.
        stub: Whether it is what a stub raises.
        late: Whether the time was up.
    """

    kind: str
    text: str
    remedy: str = ""
    stub: bool = False
    late: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one call gave: a value or a failure, and the index of an argument that it changed."""

    value: object = None
    failure: Failure | None = None
    changed_argument: int | None = None


@dataclass(frozen=True)
class Gathered:
    """What an answer is, and what it does: all that is judged. It can be sent to another process.

    Attributes:
        value: The answer itself, where it is no function, or what `Exercise.produce` made of it.
        name: What a function is called; None for a value.
        body: Whether a function has more in it than a stub has.
        outcomes: What a function gave, case by case; fewer if the time was up.
    """

    value: object = None
    name: str | None = None
    body: bool = True
    outcomes: tuple[Outcome, ...] = ()


def with_weights(module: type[nn.Module], arguments: tuple, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Build a module, put weights into it, and return what it makes of `x`: a `call` for classes of modules.

    So the course's module and a learner's are compared with the same weights, whatever they begin with.

    Raises:
        TypeError: If `module` is no class, but what one has made.
    """
    if isinstance(module, nn.Module):
        raise TypeError(f"hand over the class itself, {type(module).__name__}, without brackets")
    built = module(*arguments)
    built.load_state_dict(weights)
    with torch.no_grad():
        return built.eval()(x)


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


_wrong_tries: Counter[str] = Counter()  # by exercise, in this session


def check(exercise_id: str, answer: object) -> None:
    """Check an answer and print one line: correct, wrong with a hint, or not attempted yet.

    A second line says why to whoever is right. Where an exercise has hints, it gives the first of them to whoever is
    wrong in a way that is not known, and the second to whoever has been wrong before; none for a matter of form.

    Args:
        exercise_id: For example `"04.qmax"`.
        answer: The function or the value that the exercise asks for.

    Raises:
        ValueError: If there is no such exercise.
        CheckFailed: If the answer is wrong or missing and `NANOQ_STRICT=1`.
    """
    exercise = find_exercise(exercise_id)
    verdict = examine(exercise, answer)
    if verdict.kind != "right" and os.environ.get("NANOQ_STRICT") == "1":
        raise CheckFailed(verdict.line)
    print(verdict.line)
    if verdict.kind == "right" and exercise.why:
        print(f"  Why: {exercise.why}")
    if verdict.kind in ("wrong", "known", "broken") and SHAPE not in verdict.line:
        again = _wrong_tries[exercise_id]
        _wrong_tries[exercise_id] += 1
        if exercise.hints and (again or verdict.kind == "wrong"):
            print(f"  Hint: {exercise.hints[min(again, 1)]}")


def judge(exercise: Exercise, answer: object) -> tuple[bool, str]:
    """Return whether `answer` solves the exercise, and the line that `check` prints about it."""
    verdict = examine(exercise, answer)
    return verdict.kind == "right", verdict.line


def examine(exercise: Exercise, answer: object) -> Verdict:
    """Judge an answer."""
    return assess(exercise, gather(exercise, answer))


def gather(exercise: Exercise, answer: object) -> Gathered:
    """Run an answer on all that it is judged by. Only this runs a learner's code."""
    if _is_stub(answer):
        return Gathered()
    if exercise.produce:
        return Gathered(exercise.produce(answer))
    if not callable(answer):
        return Gathered(answer)
    outcomes = _run(exercise, answer, exercise.draw_cases(), LIMIT) if callable(exercise.reference) else ()
    return Gathered(None, name_of(answer), _has_body(answer), tuple(outcomes))


def assess(exercise: Exercise, gathered: Gathered) -> Verdict:
    """Judge what an answer has done; none of it is run again."""
    value, name = gathered.value, gathered.name
    if exercise.diagnose:
        kind, message = _diagnose(exercise, value)
    elif name is None and _is_stub(value):
        kind, message = "missing", ""
    elif exercise.choices:
        kind, message = _choose(exercise, value)
    elif name is not None and callable(exercise.reference):
        kind, message = _try(exercise, gathered)
    elif name is not None or callable(exercise.reference):
        kind, message = "wrong", f"expected a value, got the function {name}" if name is not None else (
            f"expected a function, got {summary(value)}: hand over its name, without brackets")
    else:
        kind, message = _weigh(exercise, value)
    if kind == "missing":
        return Verdict(kind, f"– {exercise.id}: not attempted yet")
    return Verdict(kind, f"✓ {exercise.id}: correct{message}" if kind == "right" else f"✗ {exercise.id}: {message}")


def _choose(exercise: Exercise, answer: object) -> tuple[str, str]:
    """Multiple choice: c, "C", " c. " and "(c)" are all one answer, and nothing gives the key away."""
    found = re.fullmatch(r"[\s(\[\"']*([a-z])\s*(?:[).:,\]\"'].*)?", str(answer), re.IGNORECASE | re.DOTALL)
    letter = found[1].lower() if found else ""
    if not isinstance(answer, str) or letter not in [*exercise.choices]:
        *others, last = exercise.choices
        return "wrong", f'answer with one letter in quotes, {", ".join(others)} or {last}'
    hints = {mistake.answer: mistake.hint for mistake in exercise.mistakes}
    return ("right", "") if letter == exercise.reference else ("known", hints[letter])


def _diagnose(exercise: Exercise, produced: object) -> tuple[str, str]:
    """What is made of several functions, and says itself what is wrong."""
    message = "" if produced is None else exercise.diagnose(produced)
    if isinstance(message, Remark):
        return "right", f"; {message}"
    if not message:
        return ("right" if message is None else "missing"), ""
    return ("known" if message in {mistake.hint for mistake in exercise.mistakes} else "wrong"), message


def attempt(function: Callable, call: str, *args: object) -> tuple[object, str | None]:
    """Call a part of an answer; return what it returns, and what is wrong if it raises or does not end in a minute."""
    try:
        with _time_limit(6 * LIMIT):
            return function(*args), None
    except _TooLong:
        return None, f"{call} did not end within {6 * LIMIT:g} seconds; work on whole tensors, not weight by weight"
    except (Exception, SystemExit) as error:
        return None, f"{call} raised {type(error).__name__}: {error}{_remedy(error)}"


def _weigh(exercise: Exercise, answer: object) -> tuple[str, str]:
    """A plain value: what is wrong about it is said without the right one."""
    problem = exercise.differs(exercise.reference, answer)
    if problem is None:
        return "right", ""
    for mistake in exercise.mistakes:
        if exercise.differs(mistake.answer, answer) is None:
            return "known", mistake.hint
    if not isinstance(exercise.reference, Real):
        return "wrong", problem
    if isinstance(answer, Array) and math.prod(answer.shape) == 1:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, Real) or math.isnan(answer):
        return "wrong", f"a number is wanted, got {summary(answer)}"
    far = not exercise.reference / 3 < answer < exercise.reference * 3
    return "wrong", f"{'much ' * far}too {'small' if answer < exercise.reference else 'large'}: {summary(answer)}"


def _try(exercise: Exercise, gathered: Gathered) -> tuple[str, str]:
    """A function: what is wrong about what it did in all cases, and whether the mistake is known."""
    cases, got = exercise.draw_cases(), gathered.outcomes
    if all(_from_stub(outcome, gathered.body) for outcome in got):
        return "missing", ""
    problem = _first_problem(exercise, gathered.name, cases, got)
    if len(got) != len(cases):  # the time was up, or somebody made the outcomes up
        return "broken", problem or f"{gathered.name} was not called as often as it should be"
    if problem is None:
        return "right", ""
    said = [(m.hint, _unlike(exercise, _run(exercise, m.answer, cases), got)) for m in exercise.mistakes]
    exact = (hint for hint, unlike in said if unlike is None)
    alike = (hint for hint, unlike in said if isinstance(unlike, Form))
    if hint := next(exact, None) or (not isinstance(problem, Form) and next(alike, None)):
        return "known", hint
    if any(outcome.failure is not None or outcome.value is None for outcome in got):
        return "broken", problem
    return "form" if isinstance(problem, Form) else "wrong", problem


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` once so many seconds have passed; no limit where there are no signals (Windows, threads)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    handler = signal.signal(signal.SIGALRM, stop)
    before, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, before)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)


def _run(exercise: Exercise, answer: Callable, cases: Cases, seconds: float = math.inf) -> list[Outcome]:
    """Call the answer on a copy of each case, so that no call can spoil the next; fewer if the time is up.

    Whoever draws numbers gets the same ones each time, and so the same verdict.
    """
    outcomes = []
    try:
        with torch.random.fork_rng(devices=()), _time_limit(seconds) if seconds < math.inf else nullcontext():
            torch.manual_seed(0)
            for case in cases:
                outcomes.append(_call(exercise, answer, case))
    except _TooLong:
        outcomes.append(Outcome(failure=Failure("", "", late=True)))
    return outcomes


def _call(exercise: Exercise, answer: Callable, case: tuple) -> Outcome:
    args = copy.deepcopy(case)
    try:
        value, failure = exercise.outcome(answer, args), None
    except (Exception, SystemExit) as error:  # whatever a learner's code raises is a wrong answer, not a crash
        stub = isinstance(error, NotImplementedError) or "ellipsis" in str(error)
        value, failure = None, Failure(type(error).__name__, str(error), _remedy(error), stub)
    changed = (i for i, arg in enumerate(args) if _is_data(arg) and difference(case[i], arg))
    return Outcome(value, failure, next(changed, None))


def _is_data(argument: object) -> bool:
    return isinstance(argument, (*Array, list))


def _is_stub(value: object) -> bool:
    """Whether this is what a stub leaves: nothing, `...`, or `a, b = ..., ...`."""
    return value is None or value is ... or (isinstance(value, tuple) and any(v is ... for v in value))


def _from_stub(outcome: Outcome, body: bool) -> bool:
    """Whether a function is still a stub: it returns one, or stops at a `...` that it cannot compute with."""
    if outcome.failure is not None:
        return outcome.failure.stub
    return _is_stub(outcome.value) and not (outcome.value is None and body)


def _has_body(function: Callable) -> bool:
    """Whether there is more in it than a docstring and what stubs are made of."""
    code = getattr(function, "__code__", None)
    return code is None or any(step.opname not in STUB_OPERATIONS for step in dis.get_instructions(code)) or (
        any(isinstance(value, (int, float, str)) for value in code.co_consts[1:]))


def _first_problem(exercise: Exercise, name: str, cases: Cases, got: Sequence[Outcome]) -> str | None:
    """Say what is wrong in the first case that is, without knowing the mistake."""
    if all(outcome.value is None and outcome.failure is None for outcome in got):
        return f"{name} returned None: `return` the value; printing it is not enough"
    right = _run(exercise, exercise.reference, cases)
    return worst([
        _problem(exercise, exercise.named(name, case), expected.value, outcome)
        for case, expected, outcome in zip(cases, right, got, strict=False)
    ])


def _problem(exercise: Exercise, call: str, expected: object, outcome: Outcome) -> str | None:
    """Say what is wrong with one call."""
    failure = outcome.failure
    if failure and failure.late:
        return f"{call} did not end within {LIMIT:g} seconds: is there a loop whose condition never becomes false?"
    if failure:
        return f"{call} raised {failure.kind}: {failure.text}{failure.remedy}"
    if outcome.value is None:
        return f"{call} returned None: this branch of the function has no `return`"
    if outcome.value is ...:
        return f"{call} returned ...: this branch of the function is not written yet"
    if message := exercise.differs(expected, outcome.value):
        return type(message)(f"{call}: {message}")
    if outcome.changed_argument is not None:
        which = "" if exercise.call else f" number {outcome.changed_argument + 1}"
        return f"{call} changes its argument{which}; leave it as it was"
    return None


def _remedy(error: BaseException) -> str:
    """The import that is missing, where one is: `math` is not there, or `ceil` without its module."""
    name = getattr(error, "name", None) or ""
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        module = f"{error.obj.__name__}.{name}"
        return f". Is it not imported? Add `import {module}`" if _exists(module) else ""
    if not isinstance(error, NameError):
        return ""
    if name in IMPORTS:
        return f". It is not imported: add `{IMPORTS[name]}`"
    home = next((module.__name__ for module in (math, torch) if len(name) > 1 and hasattr(module, name)), None)
    return f". Write {home}.{name}, and add `import {home}` if it is missing" if home else ""


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _unlike(exercise: Exercise, a: Sequence[Outcome], b: Sequence[Outcome]) -> str | None:
    """Whether two answers do the same on every case: the same value, or the same exception; how not, if not."""
    return worst([_differ(exercise, x, y) for x, y in zip(a, b, strict=True)])


def _differ(exercise: Exercise, a: Outcome, b: Outcome) -> str | None:
    if a.failure is None and b.failure is None:
        return exercise.differs(a.value, b.value)
    texts = {each.failure and (each.failure.kind, re.sub(r"\d+", "", each.failure.text)) for each in (a, b)}
    return None if len(texts) == 1 else "another exception"
