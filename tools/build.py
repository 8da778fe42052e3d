"""Turn each notebook source into its editions: student, solved, and an nbgrader assignment.

    python tools/build.py [NN ...]            build all notebooks, or those named
    python tools/build.py --check [NN ...]  verify the committed editions without running them
    python tools/build.py --prose [NN ...]  take over changed prose, and nothing else, without running them
    python tools/build.py --claims [NN ...]  list every number in prose with what guards it (see claims.py)
    python tools/build.py --kit [NN ...]  write the generated parts of the kit, notebooks/teaching/NN_topic.md
    python tools/build.py --assignments DIR  write the nbgrader source editions; with --cohort SEED, with a quiz

A source is `notebooks/source/NN_topic.py` in jupytext's py:percent format, fully solved. What an author writes in it:

Solutions. A region between two marker lines, in a code cell of its own; the next code cell checks it:

    # %%
    def scale(weight):
        ### BEGIN SOLUTION
        return weight.abs().max() / 127
        ### END SOLUTION

    # %%
    check("00.scale", scale)

The student edition holds a stub in place of the region: `return ...` where the region is indented. At the top
level (and where `return ...` would not do) the author writes the stub behind the marker:

    ### BEGIN SOLUTION largest = ...
    largest = 2**7 - 1
    ### END SOLUTION

Placeholders. `{{colab}}` in the first cell becomes the badge; a cell that installs nanoq on Colab follows it.
`{{cost_card}}` becomes the minutes and the memory that this program has measured, `{{time_card}}` the minutes that a
learner takes, section by section, and `{{self_test}}` up to five questions of the quiz, with folded answers.

Tags. `# %% tags=["measured"]` marks an output with times or measured floats: it is not compared by nbval.
`tags=["claims"]` marks a cell of assertions that the solved edition has and the student edition has not.

Further. A section `## Further · Title` can be skipped; its first line begins with `**Adds**`. It is folded, and what is
left without such sections, the core, is run once more, by itself.

Predictions. `**Before you run it.**` stands above the cell to be run, with `<details><summary>After you have run
it</summary> ... </details>` in the same markdown cell: the fold is moved below the cell to be run.

Exercises. `**Exercise 3.**` gets the difficulty and the minutes of the exercise that is checked next.

Terms. The first use of each term of `nanoq/teach/glossary.py` becomes a link to `notebooks/glossary.md`, which is
written here, in the notebook that explains it and in all later ones. Words that have an everyday sense
(`learner.EVERYDAY`) have to be *emphasised* to be taken for the term.

Limits. The notebooks of the course keep those of `learner.style_problems`.

Both editions are run in a fresh kernel, in the folder where they will lie, and have to run without an error
and without a word on stderr. Nothing is replaced unless all went well. The solved edition keeps its outputs; a student
edition has none.
"""

import argparse
import copy
import hashlib
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, zip_longest
from pathlib import Path

import claims
import jupytext
import learner
import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from nanoq.teach import lecturer_pages, quiz
from nanoq.teach.checks import exercises_of

REPOSITORY = "nanoq-course/nanoq"
MAX_CELL_LINES = 25
GLOSSARY = "glossary.md"  # in the folder of the student editions

REGION = re.compile(
    r"^(?P<indent> *)### BEGIN SOLUTION(?P<stub>.*)\n(?P<body>(?:.*\n)*?) *### END SOLUTION$", re.MULTILINE
)
IMAGE_WITHOUT_ALT = re.compile(r"!\[\s*\]\(|<img(?![^>]*\balt=[\"'][^\"'])[^>]*>")
# What differs on the next machine or in the next run, and so would fail nbval; and on the next day.
UNSTABLE = re.compile(r"(?:/home/|/root/|/Users/|/tmp/|[A-Z]:\\Users)\S*| at 0x[0-9a-fA-F]{6,}")
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")

BOOTSTRAP = f"""\
# Where nanoq is installed this does nothing. On Colab it installs nanoq with torch and numpy pinned to the
# versions that are there: replacing either under a running kernel breaks it.
try:
    import nanoq
except ImportError:
    from importlib.metadata import distributions
    from pathlib import Path
    kept = [f"{{d.name}}=={{d.version}}" for d in distributions() if d.name in ("torch", "numpy")]
    Path("kept.txt").write_text("\\n".join(kept))
    %pip install --quiet --constraint kept.txt 'nanoq[course] @ git+https://github.com/{REPOSITORY}'"""

# Before each check of an assignment, in the lecturer's copy and while it is graded, not in the student's. The checks
# are not run there: `nanoq.teach.marking` reads them, and judges in another process. Where it does not, nobody gets a
# point.
NOT_HERE = """\
raise RuntimeError("no check is run in a submission: copy nbgrader_config.py of the kit into the folder of the course")
"""

HIDDEN = f"""\
### BEGIN HIDDEN TESTS
{NOT_HERE}### END HIDDEN TESTS
"""

QUIZ_CHECK = f"""\
# graded when it has been handed in
### BEGIN HIDDEN TESTS
{NOT_HERE}grade("{{question}}", {{cohort}}, {{name}})
### END HIDDEN TESTS"""


class BuildError(Exception):
    """A notebook cannot be built or is not as it should be; the message has one line for each problem."""


# ---- source → editions ----


def read_source(source: Path) -> NotebookNode:
    """Read a py:percent source into a notebook: solved, not run, placeholders in place, stable cell ids."""
    cells = jupytext.read(source).cells
    cells.insert(1, new_code_cell(BOOTSTRAP))
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags + ["nbval-ignore-output"] * ("measured" in tags)} if tags else {}
    cells[1].metadata = {"jupyter": {"source_hidden": True}}
    cells = learner.arrange(cells)
    seen: Counter[str] = Counter()
    for cell in cells:
        # From the text, not the position: a new cell leaves the ids of all others as they were.
        cell.id = _digest(source.stem, cell.source, str(seen[cell.source]))
        seen[cell.source] += 1
    return new_notebook(cells=cells, metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    })


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def solved_code(code: str) -> str:
    """Return the code of a cell for the solved edition: as it is, without the stubs behind the markers."""
    return REGION.sub(r"\g<indent>### BEGIN SOLUTION\n\g<body>\g<indent>### END SOLUTION", code)


def student_code(code: str) -> str:
    """Return the code of a cell for the student edition: a stub in place of each solution."""

    def stub(region: re.Match) -> str:
        lines = [line for line in region["body"].splitlines() if line.strip() and line.strip()[0] != "#"]
        about = f"about {len(lines)} line{'s' * (len(lines) != 1)}"
        return f"{region['indent']}{region['stub'].strip() or 'return ...'}  # your code here ({about})"

    return REGION.sub(stub, code)


def assignment_code(code: str) -> str:
    """Return the code of a cell for nbgrader, which replaces the region but would leave its name unbound."""

    def bind(region: re.Match) -> str:
        stub = f"{region['indent']}{region['stub'].strip()}\n" if region["stub"].strip() else ""
        return stub + solved_code(region[0])

    return REGION.sub(bind, code)


def edition(template: NotebookNode, code: Callable[[str], str]) -> NotebookNode:
    """Return the template with `code` applied to each code cell; claims are for the solved edition alone."""
    notebook = copy.deepcopy(template)
    notebook.cells = [cell for cell in notebook.cells if code is solved_code or learner.shown(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = code(cell.source)
    return notebook


def fill_in(notebook: NotebookNode, source: Path, cost: dict, folder: str) -> None:
    """Fill the placeholders, rate the exercises, link the terms, and keep the cost in the metadata.

    `folder` leads from the notebook to the one that has the glossary.
    """
    number, exercises = source.stem[:2], exercises_of(source.stem[:2])
    cells = read_source(source).cells  # a stub is as long as it looks
    fillings = {
        "{{colab}}": colab_badge(source), "{{cost_card}}": cost_card(cost),
        "{{self_test}}": learner.self_test(cells, number),
        "{{time_card}}": learner.time_card(cells, exercises, number),
    }
    learner.rate_exercises(notebook.cells, exercises)
    learner.link_terms(notebook.cells, number, f"{folder}{GLOSSARY}")
    for cell in notebook.cells:
        for placeholder, text in fillings.items() if cell.cell_type == "markdown" else ():
            cell.source = cell.source.replace(placeholder, text)
    notebook.metadata["nanoq"] = {"cost": cost}


def colab_badge(source: Path) -> str:
    """Return the badge that opens the student edition on Colab."""
    url = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{source.stem}.ipynb"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({url})"


def cost_card(cost: dict) -> str:
    """Say what it costs to run a notebook, as measured by `execute`."""
    return (f"**Cost** {cost['minutes']} minutes on {cost['cores']} CPU cores, {cost['memory_gb']} GB of "
            f"memory (measured by the builder, profile {cost['profile']})")


def assignment(template: NotebookNode, source: Path, cost: dict, cohort: int | None = None) -> NotebookNode:
    """Return the nbgrader source edition: solutions between markers, graded checks, all other code locked."""
    notebook = edition(template, assignment_code)
    fill_in(notebook, source, cost, f"https://github.com/{REPOSITORY}/blob/main/notebooks/")
    exercises = exercises_of(source.stem[:2])
    waiting: list[NotebookNode] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if REGION.search(cell.source):
            waiting.append(cell)
        elif ids := learner.CHECK.findall(cell.source):
            slug = ids[0].replace(".", "-")
            for number, solution in enumerate(waiting, start=1):
                _grade(solution, f"{slug}-solution-{number}", solution=True)
            cell.source = HIDDEN + cell.source
            _grade(cell, f"{slug}-check", grade=True, locked=True, points=exercises[ids[0]].points)
            waiting = []
        else:
            _grade(cell, f"given-{cell.id}", locked=True)
    if cohort is not None:
        notebook.cells += quiz_cells(source.stem[:2], cohort)
    return notebook


def quiz_cells(number: str, cohort: int) -> list[NotebookNode]:
    """Return a cohort's quiz: each question, a cell for the letter, and one that grades it by drawing it anew."""
    questions = quiz.quiz([number], cohort) if number in quiz.numbers_with_questions() else []
    cells = [new_markdown_cell("## Quiz\n\nAnswer each question with a letter. Numbers are rounded to three digits.")]
    for place, question in enumerate(questions, start=1):
        name, slug = f"quiz_{place}", question.id.replace(".", "-")
        solution = f'{name} = ...\n### BEGIN SOLUTION\n{name} = "{question.key}"\n### END SOLUTION'
        answer, check = new_code_cell(solution), new_code_cell(
            QUIZ_CHECK.format(question=question.id, cohort=cohort, name=name))
        _grade(answer, f"quiz-{slug}-solution", solution=True)
        _grade(check, f"quiz-{slug}-check", grade=True, locked=True, points=1)
        cells += [new_markdown_cell(quiz.question_markdown(question, place)), answer, check]
    for place, cell in enumerate(cells):
        cell.id = _digest("quiz", number, str(place))
    return cells if questions else []


def _grade(cell: NotebookNode, grade_id: str, **role: object) -> None:
    roles = {"grade": False, "solution": False, "locked": False, "task": False} | role
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": grade_id, "cell_type": "code"} | roles


# ---- running ----


def execute(notebook: NotebookNode, path: Path, *, strict: bool) -> dict:
    """Run a notebook in place, in a fresh kernel, in the folder of `path`; return what it cost.

    Raises:
        BuildError: If a cell raises or the kernel dies.
    """
    profile = os.environ.get("NANOQ_PROFILE", "lab")
    records = tempfile.TemporaryDirectory()  # no attempt of earlier builds
    env = os.environ | {"NANOQ_PROGRESS": "0", "NANOQ_PROFILE": profile, "NANOQ_STRICT": str(int(strict)),
                        "NANOQ_RECORDS": records.name}
    client = NotebookClient(notebook, kernel_name="python3", timeout=None, record_timing=False,
                            store_widget_state=False, coalesce_streams=True,
                            extra_arguments=["--log-level=ERROR"])  # no warnings about its own transport
    start = time.perf_counter()
    with client.setup_kernel(env=env, cwd=str(path.parent)), peak_memory(client.km.provisioner.pid) as peak:
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                raise BuildError(f"{path}: cell {index + 1} raised {error.ename}: {error.evalue}") from None
            except DeadKernelError:
                raise BuildError(f"{path}: the kernel died in cell {index + 1}") from None
            _drop_widgets(cell)
    minutes = (time.perf_counter() - start) / 60
    return {"minutes": _round_up(minutes), "memory_gb": _round_up(peak[0] / 1e9), "cores": os.cpu_count(),
            "profile": profile}


@contextmanager
def peak_memory(pid: int) -> Iterator[list[int]]:
    """Watch a process and its children; the one value of the list is the peak of their resident bytes."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            with suppress(psutil.NoSuchProcess):  # a child, or the kernel itself, has just ended
                process = psutil.Process(pid)
                family = [process, *process.children(recursive=True)]
                peak[0] = max(peak[0], sum(p.memory_info().rss for p in family))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _round_up(value: float) -> float:
    return math.ceil(value * 10) / 10


def _drop_widgets(cell: NotebookNode) -> None:
    """Keep only the text of widgets: their state and random ids mean nothing to the next kernel."""
    for output in cell.get("outputs", []):
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


# ---- what can be wrong ----


def source_problems(template: NotebookNode, source: Path) -> Iterator[str]:
    """Say what is wrong with a source before it is run."""
    texts = [cell.source for cell in template.cells if cell.cell_type == "markdown"]
    if "{{colab}}" not in template.cells[0].source:
        yield f"{source}: no {{{{colab}}}} in the first cell"
    if not any("{{cost_card}}" in text for text in texts):
        yield f"{source}: no {{{{cost_card}}}} in any markdown cell"
    for number, cell in enumerate(template.cells, start=1):
        where = f"{source}: cell {number}"
        if cell.cell_type == "markdown":
            if IMAGE_WITHOUT_ALT.search(cell.source):
                yield f"{where} has an image without alt text"
        else:
            yield from _code_problems(cell.source, where)
    yield from _exercise_problems(template, source)
    exercises = exercises_of(source.stem[:2])
    yield from (f"{source}: {problem}" for problem in learner.style_problems(template, source.stem, exercises))


def _code_problems(code: str, where: str) -> Iterator[str]:
    lines = [line for line in code.splitlines() if "### BEGIN SOLUTION" not in line and "### END" not in line]
    if len(lines) > MAX_CELL_LINES:
        yield f"{where} has {len(lines)} lines; at most {MAX_CELL_LINES}, better 15"
    regions = list(REGION.finditer(code))
    if not len(regions) == code.count("### BEGIN SOLUTION") == code.count("### END SOLUTION"):
        yield f"{where} has a solution marker without its partner"
    if any(not region["indent"] and not region["stub"].strip() for region in regions):
        yield f"{where} has a solution at the top level without a stub: ### BEGIN SOLUTION name = ..."
    checks = len(learner.CHECK.findall(code))
    if checks > 1 or (checks and regions):
        yield f"{where}: a check has a cell of its own, after the cell with the solution"


def _exercise_problems(template: NotebookNode, source: Path) -> Iterator[str]:
    exercises = exercises_of(source.stem[:2])
    checked: list[str] = []
    solution = None
    for number, cell in enumerate(template.cells, start=1):
        if cell.cell_type == "code" and REGION.search(cell.source):
            solution = number
        if not learner.shown(cell) and (learner.CHECK.search(cell.source) or REGION.search(cell.source)):
            yield f"{source}: cell {number} has claims and an exercise; the student edition would lack it"
        for exercise_id in learner.CHECK.findall(cell.source) if cell.cell_type == "code" else []:
            if exercise_id not in exercises:
                yield f"{source}: cell {number} checks {exercise_id!r}, which is not registered"
            if solution is None or exercise_id in checked:
                yield f"{source}: cell {number} checks {exercise_id!r} without a solution before it, or again"
            checked.append(exercise_id)
            solution = None
    if solution is not None:
        yield f"{source}: cell {solution} has a solution that no check follows"
    for unused in sorted(exercises.keys() - set(checked)):
        yield f"{source}: exercise {unused!r} is registered but never checked"


def output_problems(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Say what is wrong with the outputs of an executed notebook."""
    code_cells = [(number, cell) for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]
    if [cell.execution_count for _, cell in code_cells] != list(range(1, len(code_cells) + 1)):
        yield f"{path}: execution counts do not run from 1 to {len(code_cells)}"
    for number, cell in code_cells:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{path}: cell {number} shows {output.ename}: {output.evalue}"
            elif output.get("name") == "stderr":
                yield f"{path}: cell {number} writes to stderr: {output.text.strip()[:200]!r}"
            elif unstable := UNSTABLE.search(_text(output)):
                yield f"{path}: cell {number} shows what differs on the next machine: {unstable[0]!r}"
            elif "measured" not in cell.metadata.get("tags", []) and (day := DATE.search(_text(output))):
                yield f"{path}: cell {number} shows a date, {day[0]}, and is not tagged measured"
            for kind in output.get("data", {}):
                if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt"):
                    yield f"{path}: cell {number} has a figure without alt text; use show(fig, alt=...)"


def _text(output: NotebookNode) -> str:
    data = output.get("data", {})
    return output.get("text", "") + data.get("text/plain", "") + data.get("text/html", "")


def _stale_cells(committed: NotebookNode, expected: NotebookNode, path: Path) -> Iterator[str]:
    """Say where a committed edition is not what its source gives; outputs aside."""
    have, want = ([(c.cell_type, c.source, c.metadata, c.id) for c in n.cells] for n in (committed, expected))
    for number, (old, new) in enumerate(zip_longest(have, want), start=1):
        if old != new:  # the first is enough: an inserted cell shifts all that follow
            yield f"{path}: cell {number} is not what the source gives; run python tools/build.py"
            return


# ---- commands ----


def editions_of(source: Path) -> dict[Path, Callable[[str], str]]:
    """Return where the solved and the student edition of a source lie, and what they do to its code."""
    folder = source.parent.parent
    name = f"{source.stem}.ipynb"
    return {folder / "solutions" / name: solved_code, folder / name: student_code}


def build(source: Path) -> dict:
    """Build and run both editions of a source; return the cost of the solved one.

    Raises:
        BuildError: If anything is wrong; the editions that were there are still there.
    """
    template = read_source(source)
    _demand(source_problems(template, source))
    cost, executed = {}, {}
    for path, code in editions_of(source).items():  # the solved edition comes first
        path.parent.mkdir(exist_ok=True)
        notebook = edition(template, code)
        if code is solved_code:
            cost = execute(notebook, path, strict=True)
            _demand(output_problems(notebook, path))
        else:
            _try_student_edition(notebook, path)
        fill_in(notebook, source, cost, folder_of(path))
        executed[path] = notebook
    for path, notebook in executed.items():
        write(notebook, path)
    return cost


def _try_student_edition(notebook: NotebookNode, path: Path) -> None:
    """Run the student edition, all that is Further after the rest, and take away what that has left in it."""
    in_order = learner.further_last(notebook)
    try:
        execute(in_order, path, strict=False)
    except BuildError as error:
        raise BuildError(f"{error} (Further sections were run last: the core must not need them)") from None
    _demand(output_problems(in_order, path))
    clear_outputs(notebook)


def folder_of(path: Path) -> str:
    """Return what leads from an edition to the folder of the student editions."""
    return "../" if path.parent.name == "solutions" else ""


def clear_outputs(notebook: NotebookNode) -> None:
    """Take away what running a notebook has left in it."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def check(source: Path) -> Iterator[str]:
    """Say what is wrong with a source and its committed editions, without running them."""
    template = read_source(source)
    yield from source_problems(template, source)
    for path, code in editions_of(source).items():
        if not path.exists():
            yield f"{path}: missing; run python tools/build.py {source.stem[:2]}"
            continue
        committed = nbformat.read(path, as_version=4)
        cost = committed.metadata.get("nanoq", {}).get("cost")
        if not cost or cost["profile"] != "lab":
            yield f"{path}: no cost measured with the profile lab in the metadata; rebuild it"
            continue
        expected = edition(template, code)
        fill_in(expected, source, cost, folder_of(path))
        yield from _stale_cells(committed, expected, path)
        if code is solved_code:
            yield from output_problems(committed, path)
            yield from claims.problems(ledger(source))
        else:
            yield from (f"{path}: {problem}" for problem in learner.student_problems(committed, source.stem))


def fresh_glossary(folder: Path) -> str:
    """Return the page with all terms, as it should be."""
    return learner.glossary_page([path.stem for path in sorted((folder / "source").glob("[0-9][0-9]_*.py"))])


def stale_glossary(folder: Path) -> Iterator[str]:
    """Say whether the page with all terms is not as it should be."""
    page = folder / GLOSSARY
    if not page.exists() or page.read_text(encoding="utf-8") != fresh_glossary(folder):
        yield f"{page}: not what nanoq/teach/glossary.py gives; run python tools/build.py --prose"


def orphans(folder: Path) -> Iterator[str]:
    """Name the notebooks that have no source."""
    for path in [*folder.glob("*.ipynb"), *folder.glob("solutions/*.ipynb")]:
        if not (folder / "source" / f"{path.stem}.py").exists():
            yield f"{path}: has no source"


def refresh_prose(source: Path) -> list[Path]:
    """Write the markdown of a source into its editions, with the outputs that are there; return what has changed.

    Raises:
        BuildError: If the code is not that which gave the outputs; nothing is written.
    """
    template = read_source(source)
    _demand(source_problems(template, source))
    refreshed = {}
    for path, code in editions_of(source).items():
        committed = _committed(path, source)
        notebook = edition(template, code)
        if _code_of(notebook) != _code_of(committed):
            raise BuildError(f"{path}: the code has changed; run python tools/build.py {source.stem[:2]}")
        fill_in(notebook, source, committed.metadata.nanoq.cost, folder_of(path))
        if code is solved_code:
            keep_outputs(notebook, committed)
        notebook.metadata = committed.metadata
        if notebook.cells != committed.cells:
            refreshed[path] = notebook
    for path, notebook in refreshed.items():
        write(notebook, path)
    return list(refreshed)


def _committed(path: Path, source: Path) -> NotebookNode:
    if not path.exists():
        raise BuildError(f"{path}: missing; run python tools/build.py {source.stem[:2]}")
    return nbformat.read(path, as_version=4)


def _code_of(notebook: NotebookNode) -> list[tuple]:
    return [(cell.id, cell.source, cell.metadata.get("tags")) for cell in notebook.cells if cell.cell_type == "code"]


def keep_outputs(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Give the code cells of a notebook the outputs that those with the same id have in an executed one."""
    ran = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.id in ran:
            cell.outputs, cell.execution_count = ran[cell.id].outputs, ran[cell.id].execution_count


def ledger(source: Path) -> Iterator[claims.Entry]:
    """Yield the ledger of claims: the prose and code of the source, with the outputs of the solved edition."""
    notebook = edition(read_source(source), solved_code)
    keep_outputs(notebook, _committed(next(iter(editions_of(source))), source))
    yield from claims.notebook_ledger(notebook, source, source.resolve().parents[2])


def write_assignment(source: Path, release: Path, cohort: int | None) -> None:
    """Write the nbgrader edition to `release/NN_topic/NN_topic.ipynb`; the notebook must have been built."""
    path = release / source.stem / f"{source.stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(assignment(read_source(source), source, _cost(source), cohort), path)


def _cost(source: Path) -> dict:
    return _committed(next(iter(editions_of(source))), source).metadata.nanoq.cost


def kit_page(source: Path) -> Path:
    """Return where the lecturer's page of a notebook lies."""
    return source.parent.parent / "teaching" / f"{source.stem}.md"


def fresh_kit_page(source: Path) -> str:
    """Return the lecturer's page with its generated parts as they should be; the notebook must have been built."""
    page = kit_page(source)
    if not page.exists():
        raise BuildError(f"{page}: missing; copy another one and write what is not generated")
    try:
        return lecturer_pages.refresh(
            page.read_text(encoding="utf-8"), source.stem[:2], source.read_text(encoding="utf-8"),
            cost_card(_cost(source)).removeprefix("**Cost** "))
    except ValueError as error:
        raise BuildError(f"{page}: {error}") from None


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a valid notebook whole or not at all."""
    nbformat.validate(notebook)
    unfinished = path.with_suffix(".unfinished")
    nbformat.write(notebook, unfinished)
    os.replace(unfinished, path)


def _demand(problems: Iterable[str]) -> None:
    if lines := list(problems):
        raise BuildError("\n".join(lines))


def _produce(source: Path, options: argparse.Namespace) -> None:
    if options.assignments:
        write_assignment(source, options.assignments, options.cohort)
    elif options.kit:
        kit_page(source).write_text(fresh_kit_page(source), encoding="utf-8")
    elif options.prose:
        print(f"{source.stem}: {len(refresh_prose(source))} editions with new prose")
    else:
        print(f"{source.stem}: {cost_card(build(source))}")
        if kit_page(source).exists():
            kit_page(source).write_text(fresh_kit_page(source), encoding="utf-8")  # which says the cost, too


def main(arguments: Sequence[str], folder: Path = Path(__file__).parents[1] / "notebooks") -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Build the editions of the notebooks from their sources.")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="notebooks by number; default: all")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="verify the editions without running them")
    what.add_argument("--prose", action="store_true", help="take over changed prose without running them")
    what.add_argument("--claims", action="store_true", help="list every number in prose with what guards it")
    what.add_argument("--kit", action="store_true", help="write the generated parts of the lecturer's kit")
    what.add_argument("--assignments", type=Path, metavar="DIR", help="write the nbgrader editions to DIR")
    parser.add_argument("--cohort", type=int, metavar="SEED", help="end each assignment with the quiz of this cohort")
    options = parser.parse_args(arguments)
    if options.cohort is not None and not options.assignments:
        parser.error("--cohort goes with --assignments")
    sources = {path.name[:2]: path for path in sorted((folder / "source").glob("[0-9][0-9]_*.py"))}
    try:
        _demand(f"{folder}: no source {number}_*.py" for number in options.numbers if number not in sources)
        chosen = [sources[number] for number in options.numbers or sources]
        pages = [] if options.numbers else claims.pages_ledger(folder.resolve().parent)
        if options.check:
            _demand(chain(*map(check, chosen), orphans(folder), stale_glossary(folder), claims.problems(pages)))
        elif options.claims:
            print(*chain(*map(ledger, chosen), pages), sep="\n")
        else:
            for source in chosen:
                _produce(source, options)
            if not (options.assignments or options.kit):
                (folder / GLOSSARY).write_text(fresh_glossary(folder), encoding="utf-8")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
