"""The notebooks of the course as they are committed."""

import pkgutil

import pytest

from nanoq.teach import exercises
from nanoq.teach.check import exercises_of


def test_the_committed_notebooks_are_what_their_sources_give(build, capsys):
    assert build.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("module", [module.name for module in pkgutil.iter_modules(exercises.__path__)])
def test_each_exercise_is_in_a_notebook(notebooks, module):
    number = module.removeprefix("nb")
    (source,) = (notebooks / "source").glob(f"{number}_*.py")
    for exercise_id in exercises_of(number):
        assert f'check("{exercise_id}"' in source.read_text()
