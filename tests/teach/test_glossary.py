"""Each term is explained before it is used, in the order of the course."""

import re
from pathlib import Path

import jupytext
import pytest

from nanoq.teach.course import BY_NUMBER, COURSE
from nanoq.teach.glossary import GLOSSARY

ROOT = Path(__file__).parents[2]
# Words that stand for something else as well: only where they are set in bold or italics are they the term.
EVERYDAY = {"group"}
SKIPPED = re.compile(r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<!--.*?-->|\]\([^)]*\)", re.DOTALL)
READING = re.compile(r"^## Further reading\n.*", re.DOTALL | re.MULTILINE)

# Terms that a notebook still uses too early; the list may only become shorter.
TOO_EARLY: dict[str, set[str]] = {}


def pieces(notebook):
    """The paragraphs, list items and table rows of a notebook's prose, without code, formulas and links' targets."""
    cells = jupytext.read(ROOT / f"notebooks/source/{notebook.slug}.py").cells
    for cell in cells:
        if cell.cell_type == "markdown":
            prose = SKIPPED.sub(" ", READING.sub("", cell.source))
            yield from re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. |\|))", prose)


def uses(term, text):
    """Whether a text uses a term."""
    plain = rf"(?<![\w-]){re.escape(term)}s?(?![\w-])"
    return bool(re.search(rf"(?<=\*){plain}(?=\*)" if term in EVERYDAY else plain, text, re.IGNORECASE))


def points_ahead(text, home):
    """Whether a text says that the matter belongs to a notebook to come: "notebook 07", "**07 · GPTQ**"."""
    return bool(re.search(rf"\b{home}\b", text))


def too_early(notebook):
    """The terms that a notebook uses before their home, in the order of the course, without pointing there."""
    later = [term for term, entry in GLOSSARY.items() if int(entry.home) > notebook.number]
    texts = list(pieces(notebook))
    return {term for term in later
            if any(uses(term, text) and not points_ahead(text, GLOSSARY[term].home) for text in texts)}


@pytest.mark.parametrize("notebook", COURSE, ids=[notebook.slug for notebook in COURSE])
def test_no_term_is_used_before_its_home(notebook):
    assert too_early(notebook) == TOO_EARLY.get(notebook.slug, set())


@pytest.mark.parametrize("term", GLOSSARY)
def test_a_term_is_used_where_it_is_at_home(term):
    assert any(uses(term, text) for text in pieces(BY_NUMBER[int(GLOSSARY[term].home)]))


def test_a_definition_is_one_plain_sentence():
    for term, entry in GLOSSARY.items():
        assert re.fullmatch(r"[A-Z][^.]{20,140}\.", entry.definition), term


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("Take GPTQ's Hessian.", True), ("two Hessians", True), ("the pre-Hessian days", False),
        ("a group", False), ("a **group**", True), ("zero points", True),
    ],
)  # fmt: skip
def test_a_term_is_found_as_a_word(text, used):
    terms = [term for term in ("Hessian", "group", "zero point") if uses(term, text)]
    assert bool(terms) == used


def test_a_term_is_no_surprise_where_its_notebook_is_named():
    assert points_ahead("The Hessian is the subject of notebook 07.", "07")
    assert points_ahead("**07 · GPTQ** uses a Hessian.", "07")
    assert not points_ahead("Its Hessian, as in notebook 04.", "07")
