"""What a learner meets in a notebook: core and Further, minutes, limits, folds, links to the glossary, a self-test.

Pure functions on cells, for `build.py`, which says at its top what an author writes.
"""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from nanoq.teach import quiz
from nanoq.teach.checks import Exercise
from nanoq.teach.course import COURSE
from nanoq.teach.glossary import GLOSSARY

KEEP_LIMITS = {notebook.slug for notebook in COURSE}  # those of `style_problems`; a tiny notebook of a test need not
WORDS, CELLS, EXERCISES, MINUTES = 2200, 45, (5, 7), 90  # of a core
MEDIAN, LONGEST, WIDTH, PLOTTING = 4, 15, 88, 0.1  # lines of a code cell, characters of a line, share of lines
WORDS_PER_MINUTE, LINES_PER_MINUTE = 150, 8
READERS = 1.2  # what two fresh readers of 00 to 04 took, 379 minutes in all, over what the sums gave: 321
SELF_TEST_SEED, SELF_TEST_QUESTIONS = 0, (3, 5)  # no cohort has the seed 0: theirs are years
# Words that prose also uses in another sense: only an *emphasised* one is the term.
EVERYDAY = {"bit", "block", "code", "group", "head", "layer", "loss", "profile", "step", "token", "window"}

CHECK = re.compile(r"^check\(\s*[\"']([^\"']+)[\"']", re.MULTILINE)
FOLD = re.compile(r"<details><summary>After you have run it</summary>(.*?)</details>\n*", re.DOTALL)
PREDICT = "**Before you run it"
FURTHER, READING = "## Further · ", "Further reading"  # the second is a list of papers, and is not counted
EXERCISE = re.compile(r"\*\*Exercise ([\w.]+?)\.?\*\*")
SAME_NAME = re.compile(r"^(\w+) = use\([^,]+, \1\)", re.MULTILINE)
PLOT = re.compile(r"\b(?:plt|fig|ax|axes|figure|show)\b[.(\[]")
FIGURE = re.compile(r"\b(?:show|figures\.\w+|concepts\.\w+)\(")
NOT_PROSE = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$|^ *#+ [^\n]*|<!--.*?-->|<summary>.*?</summary>|<[^<>\n]*>"
    r"|!?\[[^\]]*\]\([^)]*\)|\{\{.*?\}\}", re.MULTILINE | re.DOTALL)


# ---- sections, core and Further ----


@dataclass
class Section:
    """What stands under one `## ` heading, or before the first."""

    title: str
    further: bool = False
    cells: list[NotebookNode] = field(default_factory=list)


def sections(cells: Sequence[NotebookNode]) -> list[Section]:
    """Return the sections of a notebook; a heading that counts begins its cell."""
    found = [Section("Introduction")]
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = cell.source.partition("\n")[0]
            found.append(Section(heading.removeprefix("## "), heading.startswith(FURTHER)))
        found[-1].cells.append(cell)
    return found


def further_last(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook of the same cells, those of Further sections after all others."""
    parts = sorted(sections(notebook.cells), key=lambda section: section.further)
    return NotebookNode(notebook | {"cells": [cell for section in parts for cell in section.cells]})


def arrange(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Fold Further sections in JupyterLab, and move each "After you have run it" below the cell that is to be run."""
    arranged: list[NotebookNode] = []
    waiting: list[NotebookNode] = []
    for cell in cells:
        arranged.append(cell)
        if cell.cell_type == "code":
            arranged += waiting
            waiting = []
            continue
        if cell.source.startswith(FURTHER):
            cell.metadata["jp-MarkdownHeadingCollapsed"] = True
        before, predict, after = cell.source.rpartition(PREDICT)
        if predict and (fold := FOLD.search(after)):
            waiting.append(new_markdown_cell(fold[0].strip()))
            cell.source = (before + predict + after[: fold.start()] + after[fold.end() :]).strip()
    return arranged + waiting


# ---- minutes ----


def words(text: str) -> int:
    """Count the words of a markdown text; comments, tags and the targets of links are none."""
    text = re.sub(r"<!--.*?-->|<[^<>\n]*>|\{\{.*?\}\}|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def given_code(cell: NotebookNode) -> list[str]:
    """Return the lines of code that a learner reads in a cell: none of a stub's, a check's, or of what is hidden."""
    hidden = "### BEGIN SOLUTION" in cell.source or CHECK.search(cell.source)
    if cell.cell_type != "code" or hidden or not shown(cell) or cell.metadata.get("jupyter", {}).get("source_hidden"):
        return []
    return [line for line in cell.source.splitlines() if line.strip()]


def shown(cell: NotebookNode) -> bool:
    """Say whether the student edition has the cell."""
    return "claims" not in cell.metadata.get("tags", [])


def minutes(section: Section, exercises: Mapping[str, Exercise], questions: int) -> int:
    """Return how long a learner takes for a section: reading, code, figures, exercises, questions; at least 1."""
    total = 0.0
    for cell in section.cells:
        if cell.cell_type == "markdown":
            total += words(cell.source) / WORDS_PER_MINUTE
            total += questions * ("{{self_test}}" in cell.source)
        elif shown(cell):
            total += len(given_code(cell)) / LINES_PER_MINUTE + len(FIGURE.findall(cell.source))
            total += sum(exercises[name].minutes for name in CHECK.findall(cell.source) if name in exercises)
    return max(1, round(READERS * total))


def time_card(cells: Sequence[NotebookNode], exercises: Mapping[str, Exercise], number: str) -> str:
    """Say how long a learner takes, in all and for each section."""
    questions = len(self_test_questions(cells, number))
    rows = [(section, minutes(section, exercises, questions)) for section in sections(cells)
            if section.title != READING]
    total, at_the_core = sum(time for _, time in rows), sum(time for section, time in rows if not section.further)
    core_only = "" if total == at_the_core else f"; the core alone takes {at_the_core}"
    lines = [f"| {section.title} | {time} |" for section, time in rows]
    return "\n".join([f"**Your time** about {total} minutes{core_only}", "",
                      "<details><summary>Section by section</summary>", "",
                      "| section | minutes |", "|:--|--:|", *lines, "", "</details>"])


def rate_exercises(cells: Sequence[NotebookNode], exercises: Mapping[str, Exercise]) -> None:
    """Say in the heading of each exercise how hard it is and how many minutes it takes, where that is known."""
    asked = None
    for cell in cells:
        if cell.cell_type == "markdown" and EXERCISE.search(cell.source):
            asked = cell
        elif cell.cell_type == "code" and asked and (ids := CHECK.findall(cell.source)):
            exercise, place = exercises.get(ids[0]), list(EXERCISE.finditer(asked.source))[-1]
            if exercise and exercise.minutes:
                rating = "●" * exercise.difficulty + "○" * (3 - exercise.difficulty)
                unit = "minute" if exercise.minutes == 1 else "minutes"
                rated = f"**Exercise {place[1]}** · {rating} · {exercise.minutes} {unit}."
                asked.source = asked.source[: place.start()] + rated + asked.source[place.end() :]
            asked = None


# ---- the self-test ----


def self_test_questions(cells: Sequence[NotebookNode], number: str) -> list[quiz.Question]:
    """Return the questions at the end of a notebook, always the same: those of its quiz, but no cohort's.

    They are about the exercises of the core; if there are fewer than three, also about those of Further sections.
    """
    if number not in quiz.numbers_with_questions():
        return []
    at_the_core = {name for section in sections(cells) if not section.further
                   for cell in section.cells for name in CHECK.findall(cell.source)}
    fewest, most = SELF_TEST_QUESTIONS
    questions = sorted(quiz.quiz([number], SELF_TEST_SEED), key=lambda question: question.id not in at_the_core)
    count = sum(question.id in at_the_core for question in questions)
    return questions[: min(max(count, fewest), most)]


def self_test(cells: Sequence[NotebookNode], number: str) -> str:
    """Return the self-test: each question with its answer folded away."""
    return "\n".join(
        f"{quiz.question_markdown(question, place)}\n<details><summary>Answer</summary>\n\n"
        f"{quiz.key_markdown(question)}\n</details>\n"
        for place, question in enumerate(self_test_questions(cells, number), 1))


# ---- the glossary ----


def anchor(term: str) -> str:
    """Return the name of a term's heading, as GitHub and Sphinx make it: "two's complement" is twos-complement."""
    return re.sub(r"[^\w -]", "", term.casefold()).replace(" ", "-")


def glossary_page(slugs: Sequence[str]) -> str:
    """Return the page that has all terms, each linked to the notebook that explains it; `slugs` are all notebooks."""
    home = {slug[:2]: slug for slug in slugs}
    parts = ["# Glossary", "<!-- written by tools/build.py from nanoq/teach/glossary.py -->"]
    for term in sorted(GLOSSARY, key=str.casefold):
        slug = home.get(GLOSSARY[term].home[:2])
        link = f"Explained in [notebook {slug[:2]}]({slug}.ipynb)." if slug else ""
        parts += [f"## {term}", f"{GLOSSARY[term].definition} {link}".strip()]
    return "\n\n".join(parts) + "\n"


def link_terms(cells: Sequence[NotebookNode], number: str, page: str) -> set[str]:
    """Link the first use of each term, in the notebook that explains it and in those after it; return those found."""
    linked = set()
    for term in sorted(GLOSSARY, key=len, reverse=True):  # "zero point" before a term that is part of it
        if GLOSSARY[term].home[:2] <= number and _link_first(cells, term, f"{page}#{anchor(term)}"):
            linked.add(term)
    return linked


def _link_first(cells: Sequence[NotebookNode], term: str, target: str) -> bool:
    plain = rf"(?<![\w-]){re.escape(term)}s?(?![\w-])"
    use = re.compile(rf"(?<=\*){plain}(?=\*)" if term in EVERYDAY else plain, re.IGNORECASE)
    for cell in cells:
        if cell.cell_type == "markdown":
            prose = NOT_PROSE.sub(lambda match: "\0" * len(match[0]), cell.source)
            if place := use.search(prose):
                start, end = place.span()
                cell.source = f"{cell.source[:start]}[{cell.source[start:end]}]({target}){cell.source[end:]}"
                return True
    return False


# ---- the limits ----


def style_problems(template: NotebookNode, stem: str, exercises: Mapping[str, Exercise]) -> Iterator[str]:
    """Say where a notebook of the course is not kind to its learner."""
    if stem not in KEEP_LIMITS:
        return
    yield from _placeholder_problems(template)
    yield from _core_problems(template, exercises, stem[:2])
    yield from _code_problems(template)
    yield from _section_problems(template)
    yield from _prediction_problems(template)
    for exercise in exercises.values():
        if not (exercise.minutes > 0 and 1 <= exercise.difficulty <= 3):
            yield f"exercise {exercise.id!r} has no minutes, or no difficulty from 1 to 3"
    homeless = {term for term in GLOSSARY if GLOSSARY[term].home[:2] == stem[:2]}
    for term in sorted(homeless - link_terms(deepcopy(template.cells), stem[:2], "")):
        yield f"the glossary says that {term!r} is explained here, but no text uses it"


def _placeholder_problems(template: NotebookNode) -> Iterator[str]:
    text = "\n".join(cell.source for cell in template.cells if cell.cell_type == "markdown")
    for name in ("{{time_card}}", "{{self_test}}"):
        if name not in text:
            yield f"no {name} in any markdown cell"


def _core_problems(template: NotebookNode, exercises: Mapping[str, Exercise], number: str) -> Iterator[str]:
    core = [section for section in sections(template.cells) if not section.further and section.title != READING]
    cells = [cell for section in core for cell in section.cells if shown(cell)]
    questions = len(self_test_questions(template.cells, number))
    if (taken := sum(minutes(section, exercises, questions) for section in core)) > MINUTES:
        yield f"the core takes {taken} minutes; at most {MINUTES}"
    count = sum(words(cell.source) for cell in cells if cell.cell_type == "markdown")
    asked = sum(len(CHECK.findall(cell.source)) for cell in cells if cell.cell_type == "code")
    if count > WORDS:
        yield f"the core has {count} words; at most {WORDS}"
    if len(cells) > CELLS:
        yield f"the core has {len(cells)} cells; at most {CELLS}"
    if not EXERCISES[0] <= asked <= EXERCISES[1]:
        yield f"the core has {asked} exercises; {EXERCISES[0]} to {EXERCISES[1]} are wanted"


def _code_problems(template: NotebookNode) -> Iterator[str]:
    given = [lines for cell in template.cells if (lines := given_code(cell))]
    everything = [line for lines in given for line in lines]
    if (middle := statistics.median(map(len, given))) > MEDIAN:
        yield f"the median code cell has {middle:g} lines; at most {MEDIAN}"
    for lines in given:
        if len(lines) > LONGEST:
            yield f"the code cell that begins {lines[0]!r} has {len(lines)} lines; at most {LONGEST}"
    for cell in template.cells[2:]:  # behind the title, and the cell for Colab
        for line in cell.source.splitlines() if cell.cell_type == "code" else ():
            if len(line) > WIDTH:
                yield f"a line of code has {len(line)} characters, at most {WIDTH}: {line.strip()[:40]!r}"
        if same := SAME_NAME.search(cell.source if cell.cell_type == "code" else ""):
            yield f"{same[0]!r}: give what use() returns another name, or the check is fed the course's answer"
    drawn = sum(bool(PLOT.search(line)) for line in everything)
    if drawn > PLOTTING * len(everything):
        yield f"{drawn} of {len(everything)} lines of code plot, more than {PLOTTING:.0%}: move them to teach/figures"


def _section_problems(template: NotebookNode) -> Iterator[str]:
    for cell in template.cells:
        if cell.cell_type == "markdown" and re.search(r"(?<=\n)## ", cell.source):
            yield f"a section begins in the middle of the cell {cell.source[:30]!r}; give it a cell of its own"
        if cell.cell_type == "markdown" and cell.source.startswith(FURTHER):
            _, _, text = cell.source.partition("\n")
            if not text.strip().startswith("**Adds**"):
                yield f"{cell.source.partition(chr(10))[0]!r} does not begin with what it **Adds**"


def _prediction_problems(template: NotebookNode) -> Iterator[str]:
    for place, cell in enumerate(template.cells):
        if cell.cell_type != "markdown" or PREDICT not in cell.source:
            continue
        following = template.cells[place + 1 : place + 3]
        answered = len(following) == 2 and following[1].source.startswith("<details><summary>After you have run it")
        if not answered or following[0].cell_type != "code":
            yield f"{cell.source[cell.source.index(PREDICT) :][:60]!r} has no cell to run with 'After you have run it'"


def student_problems(student: NotebookNode, stem: str) -> Iterator[str]:
    """Say what a learner should not see in a student edition: outputs, claims and alt texts."""
    for number, cell in enumerate(student.cells, start=1):
        if cell.cell_type != "code":
            continue
        if cell.outputs or cell.execution_count:
            yield f"cell {number} has been run; a learner runs it"
        if stem in KEEP_LIMITS and (spoiler := re.search(r"^\s*assert\b|\balt=", cell.source, re.MULTILINE)):
            yield f"cell {number} has {spoiler[0].strip()!r}; that belongs in a cell with the tag claims, or a figure"
