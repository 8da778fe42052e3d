"""The map of the course is true."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from nanoq.teach.course import COURSE, PARTS, course_map, course_table


def test_the_map_has_the_notebooks_that_are_there():
    there = {path.stem for path in Path(__file__).parents[2].glob("notebooks/source/[0-9][0-9]_*.py")}
    assert {notebook.slug for notebook in COURSE} == there


def test_the_course_is_numbered_and_needs_only_what_comes_before():
    assert [notebook.number for notebook in COURSE] == list(range(16))
    for notebook in COURSE:
        assert notebook.part in PARTS
        assert all(need < notebook.number for need in notebook.needs)
        assert all(COURSE[need].at[0] < notebook.at[0] for need in notebook.needs)  # arrows point to the right
    assert len({notebook.at for notebook in COURSE}) == len(COURSE)


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
