"""The map of the course is true, and the notebooks say the same."""

import re
from itertools import groupby, pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyBboxPatch

from nanoq.teach.course import BY_NUMBER, COURSE, PARTS, course_map, course_table

ROOT = Path(__file__).parents[2]
SOURCES = {notebook.number: (ROOT / f"notebooks/source/{notebook.slug}.py").read_text(encoding="utf-8")
           for notebook in COURSE}
every_notebook = pytest.mark.parametrize("notebook", COURSE, ids=[notebook.slug for notebook in COURSE])


def ancestors(notebook):
    """The numbers of all notebooks that have to come before one."""
    return set(notebook.needs).union(*(ancestors(BY_NUMBER[need]) for need in notebook.needs))


def needed(source):
    """The numbers in the first sentence after "You need": "notebook 04", "notebooks 10 to 12", "05 and with it 04"."""
    sentence = re.search(r"\*\*You need\*\* (.*?\.)(?:\s|$)", source.replace("\n# ", " "))[1]
    numbers = {int(number) for number in re.findall(r"(?<!/)\b[01]\d\b", sentence)}
    for first, last in re.findall(r"\b([01]\d) to ([01]\d)\b", sentence):
        numbers |= set(range(int(first), int(last) + 1))
    return numbers


def test_the_map_has_the_notebooks_that_are_there():
    there = {path.stem for path in ROOT.glob("notebooks/source/[0-9][0-9]_*.py")}
    assert {notebook.slug for notebook in COURSE} == there


def test_the_course_is_in_order_and_needs_only_what_comes_before():
    assert all(one.number < next_one.number for one, next_one in pairwise(COURSE))
    assert [part for part, _ in groupby(notebook.part for notebook in COURSE)] == list(PARTS)
    for notebook in COURSE:
        assert all(need < notebook.number for need in notebook.needs)
        assert all(BY_NUMBER[need].at[0] < notebook.at[0] for need in notebook.needs)  # arrows point to the right


def test_a_box_hides_neither_an_arrow_nor_another_box():
    width, height = 0.72 / 2, 0.76 / 2
    for notebook in COURSE:
        for need in notebook.needs:
            (x0, y0), (x1, y1) = BY_NUMBER[need].at, notebook.at
            line = [(x0 + (x1 - x0) * t / 500, y0 + (y1 - y0) * t / 500) for t in range(501)]
            for other in set(COURSE) - {notebook, BY_NUMBER[need]}:
                x, y = other.at
                assert not any(abs(px - x) < width and abs(py - y) < height for px, py in line), (notebook, other)
    for a in COURSE:
        for b in set(COURSE) - {a}:
            assert abs(a.at[0] - b.at[0]) > 2 * width or abs(a.at[1] - b.at[1]) > 2 * height


@every_notebook
def test_a_notebook_says_what_it_needs_as_the_map_does(notebook):
    """It names every arrow that leads to it, but from 00, and nothing that the arrows do not lead to."""
    assert set(notebook.needs) - {0} <= needed(SOURCES[notebook.number]) <= ancestors(notebook)


@every_notebook
def test_a_notebook_has_one_name_everywhere(notebook):
    (heading,) = re.findall(r"(?m)^# # (.+)", SOURCES[notebook.number])
    assert heading == notebook.label or heading.startswith(f"{notebook.label}: ")
    page = (ROOT / f"notebooks/teaching/{notebook.slug}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {notebook.label}: ")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| [{notebook.label}](notebooks/{notebook.slug}.ipynb) |" in readme
    kit = (ROOT / "notebooks/teaching/README.md").read_text(encoding="utf-8")
    assert f"| {notebook.number:02} | {notebook.question} | [{notebook.name}]({notebook.slug}.md) |" in kit


def test_a_notebook_that_names_another_in_bold_gives_its_number_and_name():
    for source in SOURCES.values():
        for number, name in re.findall(r"\*\*(\d\d)(?: · (.+?))?\*\*", source):
            assert name == BY_NUMBER[int(number)].name, f"**{number} · {name}**"


def test_nobody_is_sent_to_a_notebook_that_is_not_there():
    for source in SOURCES.values():
        numbers = {int(number) for number in re.findall(r"(?i)\bnotebooks?\s(?:# )?(\d\d)\b", source)}
        assert numbers <= set(BY_NUMBER)


def test_the_map_has_a_box_for_each_notebook():
    figure = course_map()
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == len(COURSE)
    plt.close(figure)


def test_the_table_has_a_link_to_each_notebook():
    _, _, *lines = course_table().splitlines()
    assert len(lines) == len(COURSE)
    for notebook, line in zip(COURSE, lines, strict=True):
        assert line.count("|") == 4 and f"({notebook.slug}.ipynb)" in line
