"""The lecturer's kit: what is generated on the page of a notebook, between the parts that are written by hand.

A page, `notebooks/teaching/NN_topic.md`, has three generated sections, each between two comments:

    <!-- generated: at a glance -->
    <!-- end -->

They say what the notebook's exercises, their recognised mistakes, and its measured cost are, so that a page cannot
disagree with the course. `python tools/build.py --kit` writes them.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from nanoq.numbers import FloatFormat
from nanoq.quant.grid import Grid
from nanoq.teach.checks import Exercise, Mistake, Outcome, exercises_of, gather, judge
from nanoq.teach.course import BY_NUMBER
from nanoq.teach.differences import Array, name_of

SECTIONS = ("at a glance", "points", "misconceptions")

CALL = re.compile(r"(?P<call>\w+\(.*?\))(?:: | (?=raised|changes))(?P<rest>.*)", re.DOTALL)
NAME = r"^check\(\s*[\"']{}[\"'],\s*(\w+)"


def refresh(page: str, number: str, source: str, cost: str) -> str:
    """Return a page with its generated sections as they should be.

    Args:
        page: Markdown, with the comments that begin and end each section.
        number: Of the notebook, "04".
        source: The notebook's source, which says what the learners' functions are called.
        cost: What running the notebook costs, in words.

    Raises:
        ValueError: If the page has no place for one of the sections, or two.
    """
    exercises = list(exercises_of(number).values())
    texts = at_a_glance(number, exercises, cost), points(exercises), misconceptions(exercises, source)
    for section, text in zip(SECTIONS, texts, strict=True):
        place = re.compile(rf"(<!-- generated: {section} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(place.findall(page)) != 1:
            raise ValueError(f"the page of notebook {number} needs one <!-- generated: {section} --> and <!-- end -->")
        page = place.sub(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page)
    return page


def at_a_glance(number: str, exercises: list[Exercise], cost: str) -> str:
    """What a lecturer has to know before anything else."""
    notebook = BY_NUMBER[int(number)]
    needs = ", ".join(BY_NUMBER[need].label for need in notebook.needs) or "nothing"
    link = f"[{notebook.slug}](../{notebook.slug}.ipynb), solved: [solutions](../solutions/{notebook.slug}.ipynb)"
    total = sum(exercise.points for exercise in exercises)
    return "\n".join([
        f"| question | {notebook.question} |", "|:--|:--|",
        f"| notebook | {link} |",
        f"| comes after | {needs} |",
        f"| running all of it | {cost} |",
        f"| exercises | {len(exercises)}, {total} points |",
    ])  # fmt: skip


def misconceptions(exercises: list[Exercise], source: str) -> str:
    """Every recognised mistake: what the check says to it, and a question that makes it visible."""
    tables = []
    for exercise in exercises:
        found = re.search(NAME.format(re.escape(exercise.id)), source, re.MULTILINE)
        name = found[1] if found else exercise.id[3:]
        lines = [f"**{exercise.id}** (`{name}`)", "", "| the check says | let them work out |", "|:--|:--|"]
        for mistake in exercise.mistakes:
            hint = mistake.hint.replace("**", r"\*\*")  # Python's power, not bold
            lines.append(f"| {_cell(hint)} | {_cell(probe(exercise, mistake, name))} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def probe(exercise: Exercise, mistake: Mistake, name: str) -> str:
    """What to ask a student who has made this mistake: the first case that shows it, with both results.

    A case of `Exercise.paper` if one shows it, otherwise one of the check's.
    """
    if exercise.diagnose:
        return "one matrix, read back and laid beside the original"
    if not callable(mistake.answer):
        return f"what would have to be true for **{mistake.answer}**? (right: {exercise.reference})"
    if said := on_paper(exercise, mistake, name):
        return said
    if exercise.call:
        return f"what both make of a small input: {_difference(exercise, mistake, name).removeprefix(f'{name}: ')}"
    call, rest = CALL.fullmatch(_difference(exercise, mistake, name)).group("call", "rest")
    if "the function" in call and rest.startswith(("expected True", "expected False")):
        tried = ", ".join(re.findall(r"the function _?(\w+)", call)).replace("_", " ")
        return f"what it says of the version *{tried}*: {rest}"
    if any(word in call for word in ("the function", "tensor of shape", "Grid(", "...")):
        return f"a case small enough for paper (on the check's: {rest})"
    return f"`{call}`: {rest}"


def on_paper(exercise: Exercise, mistake: Mistake, name: str) -> str:
    """The first of the exercise's paper cases that shows a mistake, with both results; empty if none does."""
    small = replace(exercise, cases=exercise.paper)
    right, theirs = (gather(small, answer).outcomes for answer in (exercise.reference, mistake.answer))
    for case, expected, got in zip(exercise.paper, right, theirs, strict=True):
        if said := _results(exercise, expected.value, got):
            return f"{_call(exercise, name, case)}: {said}"
    return ""


def _results(exercise: Exercise, expected: object, got: Outcome) -> str:
    """Both results of one call in words; empty if they agree."""
    if got.failure:
        return f"raised {got.failure.kind}: {got.failure.text}"
    if not (difference := exercise.differs(expected, got.value)):
        return ""
    return difference if exercise.compare else f"expected {short(expected)}, got {short(got.value)}"


def _call(exercise: Exercise, name: str, case: tuple) -> str:
    """A call as it would be written, with the names of its arguments where there are more than two."""
    names = [*inspect.signature(exercise.call or exercise.reference).parameters][bool(exercise.call):]
    values = [short(value) for value in case]
    if len(case) > 2:
        values = [f"{each}={value}" for each, value in zip(names, values, strict=False)]
    what = name_of(exercise.call).replace("_", " ") if exercise.call and not exercise.compare else ""  # " and slope"
    return f"`{name}({', '.join(values)})`{what}"


def short(value: object) -> str:
    """A value for the board: numbers with four digits, tensors and grids as lists, formats and functions by name."""
    if isinstance(value, Grid):
        return short(value.decode(torch.arange(value.levels).expand(len(value.scale), -1)))
    if isinstance(value, Array):
        return short(value.tolist())
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(short, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{short(key)}: {short(each)}" for key, each in value.items()) + "}"
    if isinstance(value, FloatFormat):
        return value.name
    if isinstance(value, nn.Module):
        return short({name: list(parameter.shape) for name, parameter in value.named_parameters()})
    if callable(value):
        return name_of(value).strip("_")
    if isinstance(value, float):
        tiny = 0 < abs(value) < 1e-17  # meant so: what rounding leaves of a zero is larger
        return f"{value if tiny else round(value, 6) + 0.0:.4g}"  # plus 0.0, so that no minus stands before a zero
    return str(value)


def _difference(exercise: Exercise, mistake: Mistake, name: str) -> str:
    """What a check that did not know this mistake would say, about the first case that shows it."""

    def answer(*arguments: object) -> object:
        return mistake.answer(*arguments)

    answer.__name__ = name
    _, line = judge(replace(exercise, mistakes=()), answer)
    return line.removeprefix(f"✗ {exercise.id}: ")


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def points(exercises: list[Exercise]) -> str:
    """What each exercise is worth; nbgrader's editions count the same."""
    lines = [f"| {exercise.id} | {exercise.points} |" for exercise in exercises]
    total = sum(exercise.points for exercise in exercises)
    return "\n".join(["| exercise | points |", "|:--|--:|", *lines, f"| **all** | **{total}** |"])
