"""The notebooks of the course as they are committed. nbval runs the solved editions besides."""

import pkgutil
from pathlib import Path

import nbformat
import pytest

from nanoq.teach import exercises
from nanoq.teach.checks import exercises_of

SOURCES = sorted((Path(__file__).parents[2] / "notebooks" / "source").glob("[0-9][0-9]_*.py"))


def test_the_committed_notebooks_are_what_their_sources_give(build, capsys):
    assert build.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_learner_can_run_the_student_edition_untouched_and_what_is_further_after_all_the_rest(build, source):
    path = source.parents[1] / f"{source.stem}.ipynb"
    notebook = build.learner.further_last(build.edition(build.read_source(source), build.student_code))
    build.execute(notebook, path, strict=False)  # raises where a cell does
    assert list(build.output_problems(notebook, path)) == []
    printed = "".join(build._text(output) for cell in notebook.cells for output in cell.get("outputs", []))
    assert printed.count("not attempted yet") >= len(exercises_of(source.stem[:2]))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_student_edition_has_no_outputs_and_no_spoilers(build, source):
    student = nbformat.read(source.parents[1] / f"{source.stem}.ipynb", 4)
    assert list(build.learner.student_problems(student, source.stem)) == []


@pytest.mark.parametrize("module", [module.name for module in pkgutil.iter_modules(exercises.__path__)])
def test_each_exercise_is_in_a_notebook(notebooks, module):
    number = module.removeprefix("nb")
    (source,) = (notebooks / "source").glob(f"{number}_*.py")
    for exercise_id in exercises_of(number):
        assert f'check("{exercise_id}"' in source.read_text()
