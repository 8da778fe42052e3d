"""The way of an assignment through nbgrader: build, release, hand in, grade, give feedback; and who tries to cheat.

The notebook is the real 00, with the quiz of a cohort. One student has everything right, one hands in what was
released, one has a right answer, a recognised mistake, an edited check, a deleted one, and a check of their own, and
one changes the modules that judge, and sends the lecturer a script.
"""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions
from traitlets.config import PyFileConfigLoader

from nanoq.teach.checks import exercises_of
from nanoq.teach.course import COURSE
from nanoq.teach.quiz import quiz

NAME, COHORT = "00_start_here", 2027
EXERCISES, QUESTIONS = exercises_of("00"), quiz(["00"], COHORT)
FULL = sum(exercise.points for exercise in EXERCISES.values()) + len(QUESTIONS)
CHEAT = 'import os\nos.environ["NANOQ_STRICT"] = "0"\ncheck = print\nscale = "no idea"'

PATCHES = {
    "00-levels-solution-1": """import sys, nanoq.teach
from nanoq.teach.exercises import nb00
sys.modules["nanoq.teach.checks"].judge = lambda exercise, answer: (True, "ok")
sys.modules["nanoq.teach.checks"]._first_problem = lambda *_: None
object.__setattr__(nb00.EXERCISES[0], "compare", lambda *_: None)
levels = lambda bits: bits""",
    "00-bytes-solution-1": "import nanoq.teach\nnanoq.teach.check = lambda *_: print('ok')\npacked_size = 1",
    "quiz-00-levels-solution": "import nanoq.teach.quiz as q\nq.grade = lambda *_: print('ok')\nquiz_1 = 'z'",
    "00-scale-solution-1": """from IPython.display import HTML, Javascript, display
display(HTML("<b>seen</b><script>alert('output')</script><img src=x onerror=alert('image')>"))
display(Javascript("alert('javascript')"))
scale = None""",
}
SCRIPT = "A **bold** answer <script>alert('text')</script> and <img src=x onerror=alert('inline')>, $a < b$."


def nbgrader(course, *arguments):
    """Run a command of nbgrader's in the folder of the course, as a lecturer does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic by its bare name
    env = os.environ | {"PATH": path, "JUPYTER_CONFIG_DIR": str(course / "no-config")}
    run = subprocess.run([sys.executable, "-m", "nbgrader", *arguments], cwd=course, env=env, text=True,
                         capture_output=True)  # fmt: skip
    assert run.returncode == 0, run.stderr


def cells_of(path):
    """A notebook, and its cells by the ids that nbgrader knows them by."""
    notebook = nbformat.read(path, as_version=4)
    return notebook, {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


@pytest.fixture(scope="module")
def course(build, notebooks, tmp_path_factory):
    """A course with one assignment, released."""
    folder = tmp_path_factory.mktemp("course")
    assert build.main(["00", "--assignments", str(folder / "source"), "--cohort", str(COHORT)]) == 0
    shutil.copy(notebooks / "teaching" / "nbgrader_config.py", folder)
    nbgrader(folder, "generate_assignment", NAME, "--create")
    return folder


@pytest.fixture(scope="module")
def released(course):
    return course / "release" / NAME / f"{NAME}.ipynb"


def hand_in(course, student, answers, without=None, text=""):
    """Put a submission where nbgrader looks for it: the released notebook with some cells changed, and one deleted."""
    notebook, cells = cells_of(course / "release" / NAME / f"{NAME}.ipynb")
    notebook.cells.append(nbformat.v4.new_markdown_cell(text))
    notebook.cells = [cell for cell in notebook.cells if cell is not cells.get(without)]
    for grade_id, code in answers.items():
        cells[grade_id].source = code
    folder = course / "submitted" / student / NAME
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{NAME}.ipynb")


@pytest.fixture(scope="module")
def graded(course):
    """The scores of four students: {student: (all, {cell: score})}; feedback is there, too."""
    _, source = cells_of(course / "source" / NAME / f"{NAME}.ipynb")
    right = {grade_id: cell.source for grade_id, cell in source.items() if cell.metadata.nbgrader.solution}
    hand_in(course, "right", right)
    hand_in(course, "untouched", {})
    hand_in(course, "mixed", {
        "00-levels-solution-1": right["00-levels-solution-1"],
        "00-bytes-solution-1": "def packed_size(weights, bits):\n    return weights * bits // 8",
        "00-gpt3-check": "print('all is well')",
        "00-scale-solution-1": CHEAT,
        "quiz-00-levels-solution": f'quiz_1 = "{QUESTIONS[0].key}"',
        "quiz-00-bytes-solution": f'quiz_2 = "{min(QUESTIONS[1].hints)}"',
    }, without="00-still_fp32-check")  # fmt: skip
    hand_in(course, "patches", PATCHES, text=SCRIPT)
    nbgrader(course, "autograde", NAME, "--create")
    nbgrader(course, "generate_feedback", NAME)
    scores = {}
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        for student in ("right", "untouched", "mixed", "patches"):
            submission = book.find_submission(NAME, student)
            (notebook,) = submission.notebooks
            assert submission.max_score == FULL and not submission.needs_manual_grade
            scores[student] = submission.score, {grade.name: grade.score for grade in notebook.grades}
    return scores


def test_the_released_notebook_runs_from_top_to_bottom(build, released):
    notebook, _ = cells_of(released)
    build.execute(notebook, released, strict=False)  # raises where a cell does
    printed = "".join(build._text(output) for cell in notebook.cells for output in cell.get("outputs", []))
    assert printed.count("not attempted yet") >= len(EXERCISES)


def test_the_released_notebook_holds_neither_solutions_nor_keys(course, released):
    text, (_, cells) = released.read_text(encoding="utf-8"), cells_of(released)
    for hidden in ("BEGIN SOLUTION", "HIDDEN", "2**bits", "NANOQ_STRICT = ", "teach.quiz", str(COHORT)):
        assert hidden not in "".join(cell.source for cell in cells.values()), hidden
    for question in QUESTIONS:
        assert question.text in "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
        solution = cells[f"quiz-{question.id.replace('.', '-')}-solution"].source
        assert solution.startswith("quiz_") and f'"{question.key}"' not in solution


def test_full_points_for_the_solved_edition(graded):
    assert graded["right"][0] == FULL


def test_no_points_for_an_untouched_notebook(graded):
    assert graded["untouched"] == (0, dict.fromkeys(graded["right"][1], 0))


def test_some_points_for_some_right_answers_and_none_for_tricks(graded):
    score, cells = graded["mixed"]
    earned = {name for name, points in cells.items() if points}
    assert earned == {"00-levels-check", "quiz-00-levels-check"}
    assert score == EXERCISES["00.levels"].points + 1


def test_no_points_for_modules_that_were_changed(graded):
    assert graded["patches"] == (0, dict.fromkeys(graded["right"][1], 0))


def test_feedback_runs_no_script_of_a_student(course, graded):
    page = (course / "feedback" / "patches" / NAME / f"{NAME}.html").read_text(encoding="utf-8")
    assert "<b>seen</b>" in page and "A <strong>bold</strong> answer" in page and "$a &lt; b$" in page
    for place in ("output", "text"):
        assert f"&lt;script&gt;alert('{place}')&lt;/script&gt;" in page and f"<script>alert('{place}')" not in page
    assert not re.search(r"<img[^>]*onerror", page) and "<script>alert" not in page.replace("\n", "")
    assert "alert('javascript')\n</script>" not in page


def mini_assignment(course):
    """A notebook of one exercise, in its source edition."""
    roles = {"schema_version": 3, "task": False, "cell_type": "code"}
    answer = roles | {"grade_id": "answer", "grade": False, "locked": False, "solution": True}
    check = roles | {"grade_id": "check", "grade": True, "locked": True, "solution": False, "points": 1}
    cells = [nbformat.v4.new_code_cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", metadata={"nbgrader": answer}),
             nbformat.v4.new_code_cell("assert x == 1", metadata={"nbgrader": check})]
    (course / "source" / "mini").mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), course / "source" / "mini" / "mini.ipynb")


def test_an_endless_loop_costs_its_own_points_and_nobody_elses(notebooks, tmp_path):
    shutil.copy(notebooks / "teaching" / "nbgrader_config.py", tmp_path)
    mini_assignment(tmp_path)
    nbgrader(tmp_path, "generate_assignment", "mini", "--create")
    for student, code in (("a", "while True: pass"), ("b", "x = 1")):
        folder = tmp_path / "submitted" / student / "mini"
        shutil.copytree(tmp_path / "release" / "mini", folder)
        notebook, cells = cells_of(folder / "mini.ipynb")
        cells["answer"].source = code
        nbformat.write(notebook, folder / "mini.ipynb")
    nbgrader(tmp_path, "autograde", "mini", "--create", "--Execute.timeout=4")
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        assert [book.find_submission("mini", student).score for student in "ab"] == [0, 1]
    config = PyFileConfigLoader("nbgrader_config.py", str(notebooks / "teaching")).load_config()
    assert config.Execute.timeout == 600


def test_feedback_has_the_hint_of_the_mistake(course, graded):
    page = html.unescape((course / "feedback" / "mixed" / NAME / f"{NAME}.html").read_text(encoding="utf-8"))
    assert "that cuts off the last byte where it is not full" in page
    assert QUESTIONS[1].hints[min(QUESTIONS[1].hints)] in page
    assert "not attempted yet" in page


# ---- every notebook, as far as nbgrader's own steps go without running anything ----


@pytest.mark.parametrize("number", [f"{notebook.number:02}" for notebook in COURSE])
def test_what_is_released_can_be_run_and_holds_no_solution(build, notebooks, number):
    (source,) = (notebooks / "source").glob(f"{number}_*.py")
    template = build.read_source(source)
    notebook = build.assignment(template, source, {"minutes": 1, "cores": 1, "memory_gb": 1, "profile": "lab"}, COHORT)
    MetadataValidator().validate_nb(notebook)
    config = PyFileConfigLoader("nbgrader_config.py", str(notebooks / "teaching")).load_config()
    for step in (ClearSolutions(config=config), ClearHiddenTests(config=config)):
        notebook, _ = step.preprocess(notebook, {})
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for text in code:
        assert "SOLUTION" not in text and "HIDDEN" not in text
        compile("\n".join(line.replace("%pip", "pass  #") for line in text.splitlines()), number, "exec")
    stubs = sum("...  # your code here" in text for text in code)
    assert stubs >= len(exercises_of(number)) + len(quiz([number], COHORT))
