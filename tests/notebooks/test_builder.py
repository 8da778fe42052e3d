"""The builder, on a tiny notebook: what it makes of a source, and each thing that it refuses."""

import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearSolutions

from nanoq.teach.checks import Exercise, Mistake
from nanoq.teach.lecturer_pages import SECTIONS
from nanoq.teach.quiz import quiz

SOURCE = '''\
# %% [markdown]
# # Tiny
# {{colab}}
#
# {{cost_card}}

# %%
import matplotlib.pyplot as plt
import torch

from nanoq.progress import progress
from nanoq.teach import check, show

# %%
def scale(weight):
    """Return the scale."""
    ### BEGIN SOLUTION
    # the largest weight gets the largest code
    largest = weight.abs().max()
    return largest / 127
    ### END SOLUTION

# %%
check("00.scale", scale)

# %% tags=["measured"]
import time

time.perf_counter()

# %%
fig, ax = plt.subplots()
ax.plot([1, 2, 3])
show(fig, alt="A line rises from <1> to 3.")
print(sum(progress(range(4))))
'''

TOP_LEVEL = """\
### BEGIN SOLUTION answer = ...
# a comment is not counted

answer = "b"
### END SOLUTION
print(1)"""


@pytest.fixture(scope="module")
def built(build, tmp_path_factory):
    """A course of one notebook, built once for all tests of this module."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "source").mkdir()
    (folder / "source" / "00_tiny.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOQ_PROFILE", "lab")
        patch.setattr(build, "exercises_of", only_scale)
        assert build.main([], folder) == 0
    return folder


@pytest.fixture
def course(build, built, tmp_path, monkeypatch):
    """A copy of the built course, to be damaged."""
    monkeypatch.setattr(build, "exercises_of", only_scale)
    return shutil.copytree(built, tmp_path / "course")


def only_scale(notebook):
    """The exercises of notebook 00 as far as the tiny notebook uses them."""
    return {"00.scale": Exercise("00.scale", None, [Mistake(None, "")], points=2)} if notebook == "00" else {}


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# ---- the editions ----


def test_the_solved_edition_is_solved_and_the_student_edition_is_not(course):
    solved, student = read(course / "solutions/00_tiny.ipynb"), read(course / "00_tiny.ipynb")
    assert code_of(solved)[3].outputs[0].text.startswith("✓ 00.scale: correct\n  Why: ")
    assert code_of(student)[2].source.endswith('scale."""\n    return ...  # your code here (about 2 lines)')
    assert [cell.id for cell in solved.cells] == [cell.id for cell in student.cells]
    for notebook in (solved, student):
        nbformat.validate(notebook)
        assert code_of(notebook)[4].metadata.tags == ["measured", "nbval-ignore-output"]
    assert [cell.execution_count for cell in code_of(solved)] == [1, 2, 3, 4, 5, 6]
    assert code_of(solved)[5].outputs[-1].text == "6\n"  # and no progress bar on stderr
    assert not any(cell.outputs or cell.execution_count for cell in code_of(student))


def test_stubs_at_the_top_level(build):
    assert build.student_code(TOP_LEVEL) == "answer = ...  # your code here (about 1 line)\nprint(1)"
    assert build.solved_code(TOP_LEVEL).startswith("### BEGIN SOLUTION\n# a comment")
    assert build.assignment_code(TOP_LEVEL).startswith("answer = ...\n### BEGIN SOLUTION\n# a comment")
    assert build.student_code(f"{TOP_LEVEL}\n{TOP_LEVEL}").count("answer = ...  # your code here") == 2


def test_the_cost_is_measured_and_the_badge_links_to_the_notebook(course):
    for path in (course / "solutions/00_tiny.ipynb", course / "00_tiny.ipynb"):
        notebook = read(path)
        cost = notebook.metadata.nanoq.cost
        assert 0 < cost.minutes < 2 and 0.1 < cost.memory_gb < 2
        assert f"**Cost** {cost.minutes} minutes on {os.cpu_count()} CPU cores" in notebook.cells[0].source
        assert "nanoq-course/nanoq/blob/main/notebooks/00_tiny.ipynb" in notebook.cells[0].source
        assert "import nanoq" in notebook.cells[1].source


def test_the_alt_text_reaches_the_page(course):
    notebook = read(course / "solutions/00_tiny.ipynb")
    classic, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert 'alt="A line rises from &lt;1&gt; to 3."' in classic
    lab, _ = HTMLExporter().from_notebook_node(notebook)  # has no alt for pictures, so it is in the text
    assert "Figure in words</summary>A line rises from &lt;1&gt; to 3.</details>" in lab


def test_building_again_changes_only_what_is_measured(build, course):
    paths = [course / "solutions/00_tiny.ipynb", course / "00_tiny.ipynb"]
    before = [without_measurements(path) for path in paths]
    page = course / "teaching" / "00_tiny.md"
    page.parent.mkdir()
    page.write_text("".join(f"<!-- generated: {section} -->\n<!-- end -->\n" for section in SECTIONS))
    assert build.main(["00"], course) == 0
    assert before == [without_measurements(path) for path in paths]
    assert (course / "glossary.md").read_text().startswith("# Glossary")
    assert f"| running all of it | {read(paths[0]).metadata.nanoq.cost.minutes} minutes" in page.read_text()


def without_measurements(path):
    notebook = read(path)
    del notebook.metadata["nanoq"]
    notebook.cells[0].source = notebook.cells[5].outputs = ""
    return notebook


def test_the_bootstrap_never_replaces_torch_or_numpy(build, tmp_path):
    script = build.BOOTSTRAP.replace("import nanoq", "raise ImportError").replace("%pip install", "pass  #")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    kept = (tmp_path / "kept.txt").read_text().splitlines()
    assert sorted(line.split("==")[0] for line in kept) == ["numpy", "torch"]


def test_the_assignment_is_valid_for_nbgrader(build, course, tmp_path):
    assert build.main(["--assignments", str(tmp_path / "release")], course) == 0
    notebook = read(tmp_path / "release/00_tiny/00_tiny.ipynb")
    roles = {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader for cell in code_of(notebook)}
    assert roles["00-scale-solution-1"].solution and not roles["00-scale-solution-1"].locked
    assert roles["00-scale-check"].grade and roles["00-scale-check"].locked
    assert roles["00-scale-check"].points == 2
    given = [role for role in roles.values() if not role.solution and not role.grade]
    assert len(given) == 4 and all(role.locked for role in given)
    assert code_of(notebook)[3].source == f'{build.HIDDEN}check("00.scale", scale)'
    assert not any(cell.outputs for cell in code_of(notebook))
    MetadataValidator().validate_nb(notebook)
    released, _ = ClearSolutions().preprocess(notebook, {})
    assert "raise NotImplementedError()" in code_of(released)[2].source
    assert "largest" not in code_of(released)[2].source


def test_a_cohort_has_a_quiz_of_its_own(build, course, tmp_path):
    sheets = []
    for cohort in ("2027", "2028"):
        assert build.main(["--assignments", str(tmp_path / cohort), "--cohort", cohort], course) == 0
        notebook = read(tmp_path / cohort / "00_tiny/00_tiny.ipynb")
        MetadataValidator().validate_nb(notebook)
        questions = quiz(["00"], int(cohort))
        asked, answers, checks = (notebook.cells[-3 * len(questions) + k :: 3] for k in range(3))
        for question, text, answer, check in zip(questions, asked, answers, checks, strict=True):
            assert question.text in text.source and f'= "{question.key}"' in answer.source
            assert answer.metadata.nbgrader.solution and check.metadata.nbgrader.points == 1
            assert f'grade("{question.id}", {cohort}, ' in check.source and "HIDDEN" in check.source
        sheets.append([text.source for text in asked])
    assert sheets[0] != sheets[1]


def test_a_cohort_is_for_assignments(build, course, capsys):
    with pytest.raises(SystemExit):
        build.main(["--check", "--cohort", "1"], course)
    assert "--cohort goes with --assignments" in capsys.readouterr().err


def test_an_assignment_needs_a_built_notebook(build, course, capsys):
    (course / "solutions/00_tiny.ipynb").unlink()
    assert build.main(["--assignments", str(course / "release")], course) == 1
    assert "missing" in capsys.readouterr().err


# ---- what the builder refuses to run or to write ----


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# %%\nimport matplotlib", "# %%\n1 / 0\nimport matplotlib", "cell 3 raised ZeroDivisionError"),
        ("print(sum", "import sys; print('oh', file=sys.stderr); print(sum", "cell 7 writes to stderr: 'oh'"),
        ("print(sum", "import os; os._exit(1); print(sum", "the kernel died in cell 7"),
        ("return largest / 127", "return largest / 128", "cell 5 raised CheckFailed: ✗ 00.scale: the"),
    ],
)
def test_a_failed_build_leaves_the_old_editions(build, course, capsys, old, new, said):
    source = course / "source/00_tiny.py"
    source.write_text(SOURCE.replace(old, new))
    before = {path: path.read_bytes() for path in course.rglob("*.ipynb")}
    assert build.main([], course) == 1
    assert said in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in course.rglob("*.ipynb")}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# {{colab}}", "#", "no {{colab}} in the first cell"),
        ("# {{cost_card}}", "#", "no {{cost_card}}"),
        ("# # Tiny", "# # Tiny ![](picture.png)", "cell 1 has an image without alt text"),
        ("# # Tiny", '# # Tiny <img src="picture.png">', "cell 1 has an image without alt text"),
        ("import time\n", "import time\n" * 24, "cell 6 has 26 lines"),
        ("    ### END SOLUTION\n", "", "cell 4 has a solution marker without its partner"),
        ('"00.scale"', '"00.scal"', "cell 5 checks '00.scal', which is not registered"),
        ('check("00.scale", scale)', "", "exercise '00.scale' is registered but never checked"),
        ('check("00.scale", scale)', "", "cell 4 has a solution that no check follows"),
        ("import time\n", 'check("00.scale", scale)\n', "cell 6 checks '00.scale' without a solution"),
        ('check("00.scale", scale)', 'check("00.scale", 1)\n' * 2, "cell 5: a check has a cell of its own"),
        ('# %%\ncheck("00', 'check("00', "cell 4: a check has a cell of its own"),
        ("    ### BEGIN SOLUTION\n    # the", "### BEGIN SOLUTION\n    # the", "without a stub"),
    ],
)
def test_a_source_that_is_not_as_it_should_be(build, course, capsys, old, new, said):
    (course / "source/00_tiny.py").write_text(SOURCE.replace(old, new))
    assert build.main(["--check"], course) == 1
    assert said in capsys.readouterr().err
    assert build.main([], course) == 1  # and it is not built either


# ---- what --check finds in the committed editions ----


def stale(notebook):
    notebook.cells[2].source += "\n1"


def extra(notebook):
    notebook.cells.append(nbformat.v4.new_markdown_cell("by hand"))


def not_run(notebook):
    notebook.cells[3].execution_count = None


def run_twice(notebook):
    notebook.cells[2].execution_count = 7


def failed(notebook):
    notebook.cells[2].outputs.append(nbformat.v4.new_output("error", ename="KeyError", evalue="'x'"))


def warned(notebook):
    notebook.cells[2].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="Warning: old\n"))


def has_an_address(notebook):
    notebook.cells[2].outputs.append(nbformat.v4.new_output("stream", text="<object at 0x7f3a5c2d1e90>"))


def has_a_path(notebook):
    notebook.cells[2].outputs.append(nbformat.v4.new_output("display_data", {"text/plain": "/home/ada/x.py"}))


def has_a_date(notebook):
    notebook.cells[2].outputs.append(nbformat.v4.new_output("stream", name="stdout", text="1. gold  2026-11-30\n"))


def figure_without_words(notebook):
    del notebook.cells[6].outputs[0].metadata["image/png"]


def costless(notebook):
    del notebook.metadata["nanoq"]


def other_cost(notebook):
    notebook.metadata.nanoq.cost.minutes = 99.0


def quick_profile(notebook):
    notebook.metadata.nanoq.cost.profile = "ci"


DAMAGES = [
    (stale, "cell 3 is not what the source gives"),
    (extra, "cell 8 is not what the source gives"),
    (costless, "no cost measured"),
    (other_cost, "cell 1 is not what the source gives"),
    (quick_profile, "no cost measured with the profile lab"),
]
DAMAGED_OUTPUTS = [
    (not_run, "execution counts do not run from 1 to 6"),
    (run_twice, "execution counts do not run from 1 to 6"),
    (failed, "cell 3 shows KeyError: 'x'"),
    (warned, "cell 3 writes to stderr: 'Warning: old'"),
    (has_an_address, "cell 3 shows what differs on the next machine: ' at 0x7f3a5c2d1e90'"),
    (has_a_path, "cell 3 shows what differs on the next machine: '/home/ada/x.py'"),
    (has_a_date, "cell 3 shows a date, 2026-11-30, and is not tagged measured"),
    (figure_without_words, "cell 7 has a figure without alt text"),
]


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [("00_tiny.ipynb", *damage) for damage in (*DAMAGES, (run_twice, "cell 3 has been run"), (warned, "cell 3 has"))]
    + [("solutions/00_tiny.ipynb", *damage) for damage in DAMAGES + DAMAGED_OUTPUTS],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_edition(build, course, capsys, name, damage, said):
    notebook = read(course / name)
    damage(notebook)
    nbformat.write(notebook, course / name)
    assert build.main(["--check"], course) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(str(course / name)) and said in line


def test_a_stale_glossary(build, course, capsys):
    (course / "glossary.md").write_text("by hand")
    assert build.main(["--check"], course) == 1
    assert "glossary.md: not what nanoq/teach/glossary.py gives" in capsys.readouterr().err


def test_a_good_tree_passes(build, course, capsys):
    assert build.main(["--check"], course) == 0
    assert capsys.readouterr() == ("", "")


def test_a_missing_edition_and_one_without_a_source(build, course, capsys):
    (course / "00_tiny.ipynb").rename(course / "01_left_over.ipynb")
    assert build.main(["--check"], course) == 1
    missing, left_over = capsys.readouterr().err.splitlines()
    assert "00_tiny.ipynb: missing; run python tools/build.py 00" in missing
    assert "01_left_over.ipynb: has no source" in left_over


def test_a_number_that_is_not_there(build, course, capsys):
    assert build.main(["42"], course) == 1
    assert "no source 42_*.py" in capsys.readouterr().err


# ---- nbval, as the test suite runs it ----


def test_nbval_compares_all_that_is_not_measured(course):
    good, changed = course / "solutions/00_tiny.ipynb", course / "solutions/01_changed.ipynb"
    changed.write_text(good.read_text().replace('"6\\n"', '"7\\n"'))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--rootdir", course, "-q",
         "-p", "no:cacheprovider", good, changed],
        capture_output=True, text=True, cwd=course, env=os.environ | {"NANOQ_PROGRESS": "0"},
    )  # fmt: skip
    assert run.returncode == 1 and "1 failed, 11 passed" in run.stdout, run.stdout
    assert "FAILED solutions/01_changed.ipynb::Cell 5" in run.stdout


# ---- claims, and what is Further ----

FURTHER = """
# %% [markdown]
# ## Further · More
#
# **Adds** more.

# %%
more = 3

# %% [markdown]
# ## 2 · Rest
"""


def test_claims_are_in_the_solved_edition_alone(build, course, monkeypatch):
    monkeypatch.setenv("NANOQ_PROFILE", "lab")
    source = course / "source/00_tiny.py"
    source.write_text(SOURCE + '\n# %% tags=["claims"]\nassert scale(torch.tensor([127.0])) == 1\n')
    assert build.main(["00"], course) == 0
    assert "assert" in code_of(read(course / "solutions/00_tiny.ipynb"))[-1].source
    assert "assert" not in "".join(cell.source for cell in read(course / "00_tiny.ipynb").cells)
    assert build.main(["--check"], course) == 0
    source.write_text(source.read_text().replace("== 1", "== 2"))
    assert build.main(["00"], course) == 1


def test_an_exercise_cannot_stand_among_claims(build, course, capsys):
    changed = SOURCE.replace('# %%\ncheck(', '# %% tags=["claims"]\ncheck(')
    (course / "source/00_tiny.py").write_text(changed)
    assert build.main(["--check"], course) == 1
    assert "cell 5 has claims and an exercise" in capsys.readouterr().err


@pytest.mark.parametrize(("cell", "code"), [("print(1)", 0), ("print(more)", 1)])
def test_the_core_has_to_run_without_what_is_further(build, course, capsys, cell, code):
    (course / "source/00_tiny.py").write_text(f"{SOURCE}{FURTHER}\n# %%\n{cell}\n")
    assert build.main(["00"], course) == code
    assert ("the core must not need them" in capsys.readouterr().err) == bool(code)
