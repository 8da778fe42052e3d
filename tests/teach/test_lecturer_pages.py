"""The lecturer's kit: every notebook has a page, plans add up, and what is generated is up to date."""

import ast
import inspect
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nanoq.numbers import FLOATS
from nanoq.quant import affine_grid
from nanoq.teach.checks import Exercise, Mistake, exercises_of, gather
from nanoq.teach.course import COURSE
from nanoq.teach.lecturer_pages import NAME, SECTIONS, misconceptions, on_paper, points, probe, refresh, short

ROOT = Path(__file__).parents[2]

EMPTY = "\n".join(f"<!-- generated: {section} -->\nold\n<!-- end -->\nby hand" for section in SECTIONS)


def test_a_page_keeps_what_is_written_by_hand():
    page = refresh(EMPTY, "00", 'check("00.levels", levels)', "a minute")
    assert "old" not in page and page.count("by hand") == len(SECTIONS)
    assert "| running all of it | a minute |" in page
    assert "**00.levels** (`levels`)" in page
    assert page == refresh(page, "00", 'check("00.levels", levels)', "a minute")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_page_without_a_place_for_a_section(section):
    with pytest.raises(ValueError, match=f"generated: {section}"):
        refresh(EMPTY.replace(section, "other"), "00", "", "")


@pytest.mark.parametrize(
    ("exercise", "said"),
    [
        (Exercise("04.qmax", lambda bits: 2 ** (bits - 1) - 1, [Mistake(lambda bits: 2**bits - 1, "")], [(0,), (4,)]),
         "`qmax(0)`: expected -0.5, got 0"),
        (Exercise("04.qmax", lambda bits: bits, [Mistake(lambda bits: bits if bits < 3 else 0, "")], [(2,), (3,)]),
         "`qmax(3)`: expected 3, got 0"),
        (Exercise("04.qmax", lambda bits: bits, [Mistake(lambda bits: bits / 0, "")], [(2,)]),
         "`qmax(2)`: raised ZeroDivisionError: division by zero"),
        (Exercise("04.qmax", lambda test: True, [Mistake(lambda test: False, "")], [(len,)]),
         "what it says of the version *len*: expected True, got False"),
        (Exercise("04.qmax", "b", [Mistake("a", "")]), "what would have to be true for **a**? (right: b)"),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_on_the_first_case_that_shows_it(exercise, said):
    assert probe(exercise, exercise.mistakes[0], "qmax") == said


def test_every_mistake_of_the_course_has_a_row_and_no_row_breaks_the_table():
    for notebook in COURSE:
        exercises = list(exercises_of(f"{notebook.number:02}").values())
        rows = [line for line in misconceptions(exercises, "").splitlines() if line.startswith("| ")]
        assert len(rows) == sum(1 + len(exercise.mistakes) for exercise in exercises)
        for row in rows:
            assert len(re.findall(r"(?<!\\)\|", row)) == 3, row
            assert "lambda" not in row and " at 0x" not in row, row


def test_points_are_those_of_the_exercises():
    total = sum(exercise.points for exercise in exercises_of("04").values())
    assert f"| **all** | **{total}** |" in points(list(exercises_of("04").values()))


# ---- paper cases ----

MOST_NUMBERS = 16  # in all arguments of a paper case
WITH_PAPER = [exercise for notebook in COURSE for exercise in exercises_of(f"{notebook.number:02}").values()
              if exercise.paper]
each_on_paper = pytest.mark.parametrize("exercise", WITH_PAPER, ids=lambda exercise: exercise.id)


def count(value):
    """How many numbers there are in an argument."""
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(map(count, value.values()))
    return sum(map(count, value)) if isinstance(value, (list, tuple)) else isinstance(value, (int, float))


def shown(exercise, mistake, case):
    """What the page says of a mistake if this is the only paper case."""
    return on_paper(replace(exercise, paper=[case]), mistake, "answer")


@each_on_paper
def test_a_paper_case_is_small(exercise):
    assert max(count(case) for case in exercise.paper) <= MOST_NUMBERS


@each_on_paper
def test_the_reference_takes_the_paper_cases(exercise):
    outcomes = gather(replace(exercise, cases=exercise.paper), exercise.reference).outcomes
    assert len(outcomes) == len(exercise.paper)
    for outcome in outcomes:
        assert outcome.failure is None and outcome.value is not None and outcome.changed_argument is None
        assert "nan" not in short(outcome.value) and "inf" not in short(outcome.value)


@each_on_paper
def test_paper_shows_every_mistake_and_no_case_is_superfluous(exercise):
    first = [next((i for i, case in enumerate(exercise.paper) if shown(exercise, mistake, case)), None)
             for mistake in exercise.mistakes]
    assert set(first) == set(range(len(exercise.paper)))  # and so not None


@each_on_paper
def test_both_results_look_different_as_they_are_printed(exercise):
    for mistake in exercise.mistakes:
        if both := re.search(r": expected (.*), got (.*)", on_paper(exercise, mistake, "answer")):
            assert both[1] != both[2], mistake.hint


@each_on_paper
def test_arguments_that_are_named_have_the_names_of_the_notebook(exercise):
    source = next((ROOT / "notebooks/source").glob(f"{exercise.id[:2]}_*.py")).read_text(encoding="utf-8")
    name = re.search(NAME.format(re.escape(exercise.id)), source, re.MULTILINE)[1]
    stub = next(node for node in ast.walk(ast.parse(source)) if getattr(node, "name", "") == name)
    if len(exercise.paper[0]) > 2:
        names = [*inspect.signature(exercise.call or exercise.reference).parameters][bool(exercise.call):]
        assert names[: len(stub.args.args)] == [argument.arg for argument in stub.args.args]


@pytest.mark.parametrize("notebook", COURSE, ids=lambda notebook: notebook.slug)
def test_no_page_leaves_it_to_the_lecturer_to_find_a_case_for_a_mistake(notebook):
    page = (ROOT / f"notebooks/teaching/{notebook.slug}.md").read_text(encoding="utf-8")
    assert "a case small enough for paper" not in page


def _double(weight, fmt, level):
    return 2 * weight


def _and_sum(answer, weight):
    return answer(weight), float(weight.sum())


@pytest.mark.parametrize(
    ("exercise", "said"),
    [
        (Exercise("04.twice", lambda x: 2 * x, [Mistake(lambda x: x**2, "")], paper=[(2.0,), (1 / 3,)]),
         "`twice(0.3333)`: expected 0.6667, got 0.1111"),
        (Exercise("04.twice", _double, [Mistake(lambda w, f, a: w, "")],
                  paper=[(torch.tensor([[-0.0, 1.0]]), FLOATS["e2m1"], 0.5)]),
         "`twice(weight=[[0, 1]], fmt=e2m1, level=0.5)`: expected [[0, 2]], got [[0, 1]]"),
        (Exercise("04.twice", lambda w: w + w, [Mistake(lambda w: w, "")], call=_and_sum, paper=[(torch.ones(2),)]),
         "`twice([1, 1])` and sum: expected ([2, 2], 2), got ([1, 1], 2)"),
        (Exercise("04.twice", lambda x: 2 * x, [Mistake(lambda x: x / 0, "")], paper=[(3,)]),
         "`twice(3)`: raised ZeroDivisionError: division by zero"),
        (Exercise("04.twice", lambda x: 2 * x, [Mistake(lambda x: x, "")], paper=[(3,)],
                  compare=lambda expected, got: None if expected == got else f"{expected - got} too few"),
         "`twice(3)`: 3 too few"),
        (Exercise("04.twice", lambda x: 2 * x, [Mistake(lambda x: x**2, "")], cases=[(5,)], paper=[(2,)]),
         "`twice(5)`: expected 10, got 25"),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_on_the_first_paper_case_that_shows_it(exercise, said):
    assert probe(exercise, exercise.mistakes[0], "twice") == said


def test_a_value_for_the_board_is_short():
    assert short(affine_grid(torch.tensor([[-1.0, 2.0], [0.0, 6.0]]), 2)) == "[[-1, 0, 1, 2], [0, 2, 4, 6]]"
    assert short({"a": {2: 0.123456}}) == "{a: {2: 0.1235}}"
    assert short((12345, True, _double, torch.tensor([True]))) == "(12345, True, double, [True])"
