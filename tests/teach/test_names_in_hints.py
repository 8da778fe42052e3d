"""Whoever does what a hint or the text of an exercise says needs no import that the notebook does not have."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

from nanoq.teach.checks import exercises_of

SOURCES = sorted((Path(__file__).parents[2] / "notebooks" / "source").glob("[0-9]*.py"))
CHECK = re.compile(r"^check\(\s*[\"']([^\"']+)[\"']", re.MULTILINE)
IN_CODE = re.compile(r"`[^`\n]*`")
MODULE = re.compile(r"(?<![\w.])(math|torch|F|np|itertools|statistics)\.[a-z]")


def imports_of(code):
    """The names that imports at the top level of a cell bind."""
    lines = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    return {(alias.asname or alias.name).split(".")[0] for node in ast.parse(lines).body
            if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}


def advice(source):
    """(exercise id, what its text and its hints say, what is imported by then)."""
    imported, text = set(), ""
    exercises = exercises_of(source.name[:2])
    for cell in jupytext.read(source).cells:
        if cell.cell_type == "markdown":
            text = cell.source
        elif found := CHECK.search(cell.source):
            exercise = exercises[found[1]]
            yield found[1], "\n".join([text, *exercise.hints, *(m.hint for m in exercise.mistakes)]), set(imported)
        else:
            imported |= imports_of(cell.source)


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_modules_that_the_advice_names_are_imported(source):
    for exercise_id, said, imported in advice(source):
        named = {module for code in IN_CODE.findall(said) for module in MODULE.findall(code)}
        assert named <= imported, exercise_id
