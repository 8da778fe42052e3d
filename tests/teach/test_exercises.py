"""Every registered exercise, of every notebook: right, wrong in each known way, and untouched."""

import pkgutil

import pytest

from nanoq.teach import exercises
from nanoq.teach.checks import exercises_of, judge
from nanoq.teach.course import COURSE

NOTEBOOKS = sorted(module.name.removeprefix("nb") for module in pkgutil.iter_modules(exercises.__path__))
ALL = [(number, exercise) for number in NOTEBOOKS for exercise in exercises_of(number).values()]
every_exercise = pytest.mark.parametrize(("number", "exercise"), ALL, ids=[e.id for _, e in ALL])


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_ids_are_unique(number):
    module = __import__(f"nanoq.teach.exercises.nb{number}", fromlist=["EXERCISES"])
    assert len(exercises_of(number)) == len(module.EXERCISES) > 0


@every_exercise
def test_the_id_names_the_notebook_and_there_are_mistakes(number, exercise):
    assert exercise.id.startswith(f"{number}.")
    assert len(exercise.mistakes) >= 3
    assert exercise.points > 0
    assert not callable(exercise.reference) or len(exercise.draw_cases()) > 0


@every_exercise
def test_the_reference_is_correct(number, exercise):
    assert judge(exercise, exercise.reference) == (True, f"✓ {exercise.id}: correct")


@every_exercise
def test_each_mistake_gets_its_own_hint(number, exercise):
    said = [judge(exercise, mistake.answer) for mistake in exercise.mistakes]
    assert said == [(False, f"✗ {exercise.id}: {mistake.hint}") for mistake in exercise.mistakes]
    assert len(set(said)) == len(said)


@every_exercise
def test_a_stub_is_not_attempted(number, exercise):
    stub = (lambda *args: ...) if callable(exercise.reference) else ...
    assert judge(exercise, stub) == (False, f"– {exercise.id}: not attempted yet")


@pytest.mark.parametrize("number", [f"{notebook.number:02}" for notebook in COURSE])
def test_each_exercise_has_two_hints_and_a_reason(number):
    for exercise in exercises_of(number).values():
        idea, beginning = exercise.hints
        assert exercise.why[:1].islower() and exercise.why[-1] == ".", exercise.id
        assert idea != beginning and all(hint[-1] in ".?:…" for hint in exercise.hints), exercise.id
