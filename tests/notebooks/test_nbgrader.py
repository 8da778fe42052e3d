"""The way of an assignment through nbgrader: build, release, hand in, grade, give feedback; and who tries to cheat.

The notebook is the real 00, with the quiz of a cohort. One student has everything right, one hands in what was
released, one has a right answer, a recognised mistake, an edited check, a deleted one, and a check of their own, and
one changes the modules that judge, and sends the lecturer a script. What else a submission may try is tried on an
assignment of two exercises; notebooks 01 and 04 go the whole way, too.
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

# What changes the process that the submission runs in.
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


def hand_in(course, student, answers, without=None, text="", name=NAME):
    """Put a submission where nbgrader looks for it: the released notebook with some cells changed, and one deleted."""
    notebook, cells = cells_of(course / "release" / name / f"{name}.ipynb")
    notebook.cells.append(nbformat.v4.new_markdown_cell(text))
    notebook.cells = [cell for cell in notebook.cells if cell is not cells.get(without)]
    for grade_id, code in answers.items():
        cells[grade_id].source = code
    folder = course / "submitted" / student / name
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


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
    }, without="00-saved-check")  # fmt: skip
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


def test_the_released_notebook_holds_neither_solutions_nor_keys(course, released):
    text, (_, cells) = released.read_text(encoding="utf-8"), cells_of(released)
    for hidden in ("BEGIN SOLUTION", "HIDDEN", "2**bits", "RuntimeError", "grade(", str(COHORT)):
        assert hidden not in "".join(cell.source for cell in cells.values()), hidden
    for question in QUESTIONS:
        assert question.text in "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
        solution = cells[f"quiz-{question.id.replace('.', '-')}-solution"].source
        assert solution.startswith("quiz_") and f'"{question.key}"' not in solution


def test_full_points_for_the_solved_edition(graded):
    assert graded["right"][0] == FULL


def test_the_released_notebook_runs_from_top_to_bottom(course, graded):
    notebook, _ = cells_of(course / "autograded" / "untouched" / NAME / f"{NAME}.ipynb")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    raised = [cell for cell in code if any(output.output_type == "error" for output in cell.outputs)]
    assert all(cell.execution_count for cell in code if cell not in raised)
    assert {cell.metadata.nbgrader.grade_id for cell in raised} == set(graded["untouched"][1])
    assert all("not attempted yet" in str(cell.outputs) for cell in raised)


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


# ---- submissions that want points without an answer, or that nobody else is graded ----

UNSTOPPABLE = """while True:
    try:
        while True:
            pass
    except BaseException:
        pass"""
RIGHT = "levels = lambda bits: 2**bits"
# By what they do: the first answer of a submission, whether its checks are tagged to be skipped, and what is left of
# the points for the first and the second answer. The second is right each time.
HOSTILE = {
    "right": (RIGHT, False, (1, 1)),
    "changes the judge": (PATCHES["00-levels-solution-1"], False, (0, 1)),
    "changes torch": ("import torch\ntorch.isclose = lambda *_, **__: torch.tensor(True)\nlevels = lambda bits: bits",
                      False, (0, 1)),
    "rewrites the cells that follow": ("get_ipython().input_transformers_post.append(lambda lines: ['pass'])", False,
                                       (0, 0)),
    "takes part in the way of answers": ("import nanoq.teach.handover as h\nh.hand_over = lambda *a: print('ok', *a)",
                                         False, (0, 0)),
    "hands over what it likes": ("import nanoq.teach.handover as h\nimport json\nh.json.dumps = lambda _: '['", False,
                                 (0, 0)),
    "tags the checks": ("levels = lambda bits: bits", True, (0, 1)),
    "loops": ("while True: pass", False, (0, 1)),
    "loops when it is called": ("def levels(bits):\n    while True: pass", False, (0, 1)),
    "loops for ever": (UNSTOPPABLE, False, (0, 0)),
    "ends the kernel": ("import os\nos._exit(0)", False, (0, 0)),
    "takes all memory": (f"x = bytearray(10**11)\n{RIGHT}", False, (0, 1)),
    "writes to stderr": ("import sys\ndef levels(bits):\n    print('!', file=sys.stderr)\n    return 2**bits", False,
                         (1, 1)),
}  # fmt: skip
if sys.platform != "linux":
    del HOSTILE["takes all memory"]  # no other system has a limit that Python can set for another process


def mini_assignment(build):
    """A notebook of two exercises, in its source edition."""
    roles = {"schema_version": 3, "task": False, "cell_type": "code"}
    cells = [nbformat.v4.new_code_cell("from nanoq.teach import check", metadata={
        "nbgrader": roles | {"grade_id": "given", "grade": False, "locked": True, "solution": False}})]
    for name, right in (("levels", RIGHT), ("bytes", "packed_size = lambda weights, bits: -(-weights * bits // 8)")):
        variable = right.split()[0]
        answer = roles | {"grade_id": name, "grade": False, "locked": False, "solution": True}
        check = roles | {"grade_id": f"{name}-check", "grade": True, "locked": True, "solution": False, "points": 1}
        cells += [
            nbformat.v4.new_code_cell(f"{variable} = ...\n### BEGIN SOLUTION\n{right}\n### END SOLUTION",
                                      metadata={"nbgrader": answer}),
            nbformat.v4.new_code_cell(f'{build.HIDDEN}check("00.{name}", {variable})', metadata={"nbgrader": check}),
        ]  # fmt: skip
    return nbformat.v4.new_notebook(cells=cells)


def mini_course(folder, build, notebooks):
    """A course with the mini assignment, released; and the right answers."""
    shutil.copy(notebooks / "teaching" / "nbgrader_config.py", folder)
    (folder / "source" / "mini").mkdir(parents=True)
    nbformat.write(mini_assignment(build), folder / "source" / "mini" / "mini.ipynb")
    nbgrader(folder, "generate_assignment", "mini", "--create")


def hand_in_mini(folder, student, first, tagged=False):
    """The mini assignment with this first answer, and a right second one."""
    notebook, cells = cells_of(folder / "release" / "mini" / "mini.ipynb")
    _, right = cells_of(folder / "source" / "mini" / "mini.ipynb")
    cells["levels"].source, cells["bytes"].source = first, right["bytes"].source
    for name in ("levels", "bytes") if tagged else ():
        cells[f"{name}-check"].metadata["tags"] = ["skip-execution", "raises-exception"]
    (folder / "submitted" / student / "mini").mkdir(parents=True)
    nbformat.write(notebook, folder / "submitted" / student / "mini" / "mini.ipynb")


def mini_scores(folder, student):
    """The points of the first and the second answer."""
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as book:
        (notebook,) = book.find_submission("mini", student).notebooks
        scores = {grade.name: grade.score for grade in notebook.grades}
        return scores["levels-check"], scores["bytes-check"]


def test_hostile_submissions_get_no_points_for_it_and_keep_nobody_waiting(build, notebooks, tmp_path):
    mini_course(tmp_path, build, notebooks)
    students = {f"s{place}": name for place, name in enumerate(HOSTILE)}
    for student, name in students.items():
        hand_in_mini(tmp_path, student, *HOSTILE[name][:2])
    nbgrader(tmp_path, "autograde", "mini", "--create", "--Execute.timeout=20")
    scores = {name: mini_scores(tmp_path, student) for student, name in students.items()}
    assert scores == {name: points for name, (_, _, points) in HOSTILE.items()}


def test_the_time_for_a_whole_notebook_ends(build, notebooks, tmp_path):
    mini_course(tmp_path, build, notebooks)
    hand_in_mini(tmp_path, "slow", f"{RIGHT}\nimport time\ntime.sleep(600)")
    config = tmp_path / "nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8").replace("notebook_timeout = 3600", "notebook_timeout = 15"))
    nbgrader(tmp_path, "autograde", "mini", "--create")
    assert mini_scores(tmp_path, "slow") == (0, 0)
    text = (tmp_path / "autograded" / "slow" / "mini" / "mini.ipynb").read_text(encoding="utf-8")
    assert "the 15 seconds for this notebook were over before this cell" in text


def test_nobody_gets_a_point_where_the_configuration_is_missing(build, notebooks, tmp_path):
    mini_course(tmp_path, build, notebooks)
    hand_in_mini(tmp_path, "right", RIGHT)
    (tmp_path / "nbgrader_config.py").unlink()
    nbgrader(tmp_path, "autograde", "mini", "--create", "--Execute.timeout=60")
    assert mini_scores(tmp_path, "right") == (0, 0)
    text = (tmp_path / "autograded" / "right" / "mini" / "mini.ipynb").read_text(encoding="utf-8")
    assert "copy nbgrader_config.py of the kit into the folder of the course" in text


def test_the_limits_of_the_kit_are_those_that_its_page_names(notebooks):
    config = PyFileConfigLoader("nbgrader_config.py", str(notebooks / "teaching")).load_config()
    assert (config.Execute.timeout, config.Mark.notebook_timeout, config.Mark.memory_gb) == (600, 3600, 8)
    page = " ".join((notebooks / "teaching" / "README.md").read_text(encoding="utf-8").split())
    assert "ten minutes for a cell, an hour for a notebook and 8 GB of memory" in page


# ---- two more notebooks, by all of nbgrader's steps ----


@pytest.mark.parametrize("name", ["01_data_types", "04_naive_rounding"])
def test_right_answers_get_all_points_and_untouched_notebooks_none(build, notebooks, tmp_path, name):
    number = name[:2]
    assert build.main([number, "--assignments", str(tmp_path / "source"), "--cohort", str(COHORT)]) == 0
    shutil.copy(notebooks / "teaching" / "nbgrader_config.py", tmp_path)
    nbgrader(tmp_path, "generate_assignment", name, "--create")
    _, source = cells_of(tmp_path / "source" / name / f"{name}.ipynb")
    right = {grade_id: cell.source for grade_id, cell in source.items() if cell.metadata.nbgrader.solution}
    for student, answers in (("right", right), ("untouched", {})):
        hand_in(tmp_path, student, answers, name=name)
    nbgrader(tmp_path, "autograde", name, "--create")
    nbgrader(tmp_path, "generate_feedback", name)
    full = sum(exercise.points for exercise in exercises_of(number).values()) + len(quiz([number], COHORT))
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        for student, points in (("right", full), ("untouched", 0)):
            submission = book.find_submission(name, student)
            lost = [grade.name for grade in submission.notebooks[0].grades if not grade.score]
            assert (submission.score, submission.max_score) == (points, full), (student, lost)
    page = (tmp_path / "feedback" / "untouched" / name / f"{name}.html").read_text(encoding="utf-8")
    assert page.count("not attempted yet") >= len(exercises_of(number))


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
