"""The pages of the lecturer's kit as they are committed."""

import re

import pytest

from nanoq.teach.checks import exercises_of
from nanoq.teach.course import COURSE

every_notebook = pytest.mark.parametrize("notebook", COURSE, ids=[notebook.slug for notebook in COURSE])


@pytest.fixture
def read(notebooks):
    """Return a function that gives a notebook's page and source."""

    def texts(notebook):
        page, source = notebooks / "teaching" / f"{notebook.slug}.md", notebooks / "source" / f"{notebook.slug}.py"
        return page.read_text(encoding="utf-8"), source.read_text(encoding="utf-8")

    return texts


def by_hand(page):
    """The page without its generated sections."""
    return re.sub(r"<!-- generated: .*?<!-- end -->", "", page, flags=re.DOTALL)


@every_notebook
def test_the_plan_adds_up_to_ninety_minutes(read, notebook):
    plan = by_hand(read(notebook)[0]).split("## Plan")[1].split("##")[0]
    assert sum(int(minutes) for minutes in re.findall(r"^\| (\d+) \|", plan, re.MULTILINE)) == 90
    assert "**Short of time?**" in plan and "**Homework.**" in plan


@every_notebook
def test_every_exercise_is_planned_and_none_is_made_up(read, notebook):
    number = f"{notebook.number:02}"
    plan = by_hand(read(notebook)[0])
    assert set(re.findall(rf"\b{number}\.[a-z]\w*", plan)) == set(exercises_of(number))


@every_notebook
def test_the_sections_are_those_of_the_notebook(read, notebook):
    page, source = read(notebook)
    assert set(re.findall(r"§(\d+)", page)) <= set(re.findall(r"^# ## (\d+) · ", source, re.MULTILINE))
    assert len(re.findall(r"§\d+", page)) >= 4


@every_notebook
def test_questions_say_what_a_good_answer_has(read, notebook):
    questions = by_hand(read(notebook)[0]).split("## Discussion")[1].split("## Rubric")[0]
    count = len(re.findall(r"^\d\. \*\*.+", questions, re.MULTILINE))
    assert 4 <= count <= 6 and questions.count("*Good:*") == count


@every_notebook
def test_the_rubric_has_levels_besides_points(read, notebook):
    rubric = by_hand(read(notebook)[0]).split("## Rubric")[1]
    assert re.findall(r"^\| (full|half|none) \|", rubric, re.MULTILINE) == ["full", "half", "none"]


@every_notebook
def test_the_generated_parts_are_up_to_date(build, notebooks, notebook):
    source = notebooks / "source" / f"{notebook.slug}.py"
    committed = build.kit_page(source).read_text(encoding="utf-8")
    assert rounded(committed) == rounded(build.fresh_kit_page(source)), "run python tools/build.py --kit"


def rounded(text):
    """The text with floats to three digits: the last ones of a matrix product are the processor's."""
    return re.sub(r"\d+\.\d{3,}(e-?\d+)?", lambda found: f"{float(found[0]):.3g}", text)


def test_the_readme_lists_every_page(notebooks):
    readme = (notebooks / "teaching" / "README.md").read_text(encoding="utf-8")
    for notebook in COURSE:
        assert re.search(rf"^\| {notebook.number:02} \| {re.escape(notebook.question)} \| \[.+\]\({notebook.slug}.md\)",
                         readme, re.MULTILINE)  # fmt: skip


def test_building_a_page_that_is_not_there_names_it(build, notebooks, tmp_path, capsys):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "00_start_here.py").write_text("")
    assert build.main(["--kit"], tmp_path) == 1
    assert "00_start_here.md: missing" in capsys.readouterr().err
