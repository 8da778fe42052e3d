"""The lecturer's kit: every notebook has a page, plans add up, and what is generated is up to date."""

import re

import pytest

from nanoq.teach.checks import Exercise, Mistake, exercises_of
from nanoq.teach.course import COURSE
from nanoq.teach.lecturer_pages import SECTIONS, misconceptions, points, probe, refresh

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
