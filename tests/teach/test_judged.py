"""What checks think of answers that learners give: those in `judged.py`, and every known answer in other forms."""

import copy
import re
from dataclasses import replace
from functools import partial

import judged
import numpy as np
import pytest
import torch
from test_exercises import ALL, NOTEBOOKS

from nanoq.teach import checks
from nanoq.teach.checks import examine, exercises_of

VERDICTS = {kind: {kind} for kind in ("right", "form", "known", "missing")} | {"wrong": {"wrong", "known", "broken"}}


def of_functions(exercise):
    """The exercise with the functions of a case that its `call` makes of the answers."""
    if exercise.call is None:
        return exercise
    mistakes = [replace(mistake, answer=partial(exercise.call, mistake.answer)) for mistake in exercise.mistakes]
    return replace(exercise, call=None, reference=partial(exercise.call, exercise.reference), mistakes=mistakes)


FUNCTIONS = [of_functions(exercise) for _, exercise in ALL if callable(exercise.reference)]
every_function = pytest.mark.parametrize("exercise", FUNCTIONS, ids=[e.id for e in FUNCTIONS])


def find(title):
    """The exercise of a title such as "levels", or "bytes of downcasting" where several notebooks have one."""
    name, _, topic = title.partition(" of ")
    found = [exercise for number in NOTEBOOKS for exercise in exercises_of(number).values()
             if exercise.id.partition(".")[2] == name and topic in exercises_module(number).__doc__]
    assert len(found) == 1, title
    return found[0]


def exercises_module(number):
    return __import__(f"nanoq.teach.exercises.nb{number}", fromlist=["EXERCISES"])


def table():
    """(title, [(verdict, code)]) of each exercise in the table."""
    for part in judged.TABLE.strip().split("\n\n"):
        title, *lines = re.sub(r"\n {12}", " ", part).splitlines()
        yield title, [line.split(maxsplit=1) for line in lines]


TABLE = dict(table())


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(checks, "LIMIT", 2.0)


@pytest.mark.parametrize("title", TABLE)
def test_answers_are_judged_as_they_should_be(title, capsys):
    exercise = find(title)
    said = [(wanted, code, examine(exercise, eval(code, vars(judged)))) for wanted, code in TABLE[title]]
    misjudged = [(wanted, code, verdict) for wanted, code, verdict in said if verdict.kind not in VERDICTS[wanted]]
    assert misjudged == []


def test_the_table_has_a_thousand_answers_to_nearly_all_exercises():
    assert len({find(title).id for title in TABLE}) > 0.9 * len(ALL)
    assert sum(map(len, TABLE.values())) >= 1000


# ---- other forms of an answer ----


class Tagged(torch.Tensor):
    """A subclass of Tensor."""


def numbers_only(value):
    return isinstance(value, (list, tuple)) and len({type(each) for each in value}) == 1 and all(
        isinstance(each, (int, float)) and not isinstance(each, bool) for each in value)


def when(fits, form):
    """The form for values that it fits, and for those parts of a tuple that it fits."""
    def of(value):
        if isinstance(value, tuple):
            return tuple(form(part) if fits(part) else part for part in value) if any(map(fits, value)) else None
        return form(value) if fits(value) else None
    return of


def is_tensor(value):
    return isinstance(value, torch.Tensor) and value.dim() > 0


def is_float_tensor(value):
    return is_tensor(value) and value.is_floating_point()


def is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


# What is accepted, and what is told: name -> what it makes of an outcome, None where it does not apply.
ACCEPTED = {
    "Parameter": when(is_float_tensor, lambda value: torch.nn.Parameter(value.detach())),
    "subclass": when(is_tensor, lambda value: value.detach().as_subclass(Tagged)),
    "double": when(is_float_tensor, lambda value: value.double()),
    "0-d tensor": when(lambda value: isinstance(value, (int, float)), lambda value: torch.tensor(
        value, dtype=torch.float64 if isinstance(value, float) else None)),
    "Python number": when(lambda value: isinstance(value, torch.Tensor) and not value.dim(), torch.Tensor.item),
    "numpy number": when(lambda value: isinstance(value, (bool, int, float)), lambda value: np.asarray(value)[()]),
    "float": when(is_integer, float),
    "list": lambda value: list(value) if isinstance(value, tuple) else None,
    "tuple": lambda value: tuple(value) if isinstance(value, list) else None,
    "rows": lambda value: torch.tensor(value, dtype=torch.float64) if numbers_only(value) else None,
    "another order": lambda value: dict(reversed(value.items())) if isinstance(value, dict) else None,
    "upper case": lambda value: value.upper() if isinstance(value, str) and value.islower() else None,
}
TOLD = {
    "array": when(is_tensor, lambda value: value.detach().numpy()),
    "nested lists": when(is_tensor, lambda value: value.tolist()),
    "floats": when(lambda value: is_tensor(value) and not value.is_floating_point(), lambda value: value.double()),
    "a number": when(lambda value: isinstance(value, bool), int),
}


class Returned:
    """An answer whose outcomes are put into another form, and whether that changed any of them."""

    def __init__(self, answer, form):
        self.answer, self.form, self.changed = answer, form, False

    def __call__(self, *args):
        value = self.answer(*args)
        other = self.form(value)
        self.changed |= other is not None and other is not value
        return value if other is None else other


def in_other_forms(exercise, answer, forms):
    """(form, verdict) of the answer in each of these forms that makes a difference to it."""
    for name, form in forms.items():
        returned = Returned(answer, form)
        verdict = examine(exercise, returned)
        if returned.changed:
            yield name, verdict


@every_function
def test_a_right_answer_is_right_in_other_forms(exercise):
    forms = {name: form for name, form in ACCEPTED.items() if not (exercise.number and name in ("0-d tensor", "rows"))}
    said = list(in_other_forms(exercise, exercise.reference, forms))
    assert len(said) >= 1
    assert [(form, verdict.line) for form, verdict in said if verdict.kind != "right"] == []


@pytest.mark.parametrize("exercise", [exercise for _, exercise in ALL if callable(exercise.reference)
                                      and exercise.call is None], ids=lambda exercise: exercise.id)
def test_a_right_answer_may_compute_in_double_precision(exercise):
    def in_double(*args):
        return exercise.reference(*(arg.double() if is_float_tensor(arg) else arg for arg in args))

    assert examine(exercise, in_double).kind == "right"


@every_function
def test_a_right_answer_of_another_type_is_told_which(exercise):
    for form, verdict in in_other_forms(exercise, exercise.reference, TOLD):
        told = "the values are right" in verdict.line or "True or False is wanted" in verdict.line
        assert verdict.kind in ("form", "known") and (told or verdict.kind == "known"), (form, verdict)


@pytest.mark.parametrize("exercise", [each for each in FUNCTIONS if each.number], ids=lambda exercise: exercise.id)
def test_a_tensor_is_told_that_a_python_number_is_asked_for(exercise):
    forms = {name: ACCEPTED[name] for name in ("0-d tensor", "rows")}
    said = list(in_other_forms(exercise, exercise.reference, forms))
    assert said and all(verdict.kind == "form" and "Python number" in verdict.line for _, verdict in said)


@every_function
def test_a_mistake_gets_its_hint_in_other_forms_too(exercise):
    forms = {name: (ACCEPTED | TOLD)[name] for name in ("0-d tensor", "list", "array")}
    for mistake in exercise.mistakes:
        for form, verdict in in_other_forms(exercise, mistake.answer, forms):
            assert verdict.kind == "form" or verdict.line.endswith(mistake.hint), (form, mistake.hint, verdict)


def test_the_forms_make_some_hundred_answers_more():
    forms = ACCEPTED | TOLD
    applied = sum(form(value) is not None for exercise in FUNCTIONS for form in forms.values()
                  for value in [exercise.reference(*copy.deepcopy(exercise.draw_cases()[0]))])
    assert applied >= 350
