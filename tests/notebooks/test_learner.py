"""What a learner meets: folds, sections, minutes, links, limits, each on a few cells."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from nanoq.teach.checks import Exercise, exercises_of
from nanoq.teach.glossary import GLOSSARY

FOLD = "<details><summary>After you have run it</summary>\nEight.\n</details>"
EXERCISE = ["def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"], ['check("99.x", f)']
ASKED = {"99.x": Exercise("99.x", 1, (), minutes=6, difficulty=2)}


@pytest.fixture
def learner(build):
    return build.learner


def text(*cells):
    """Markdown cells of strings; code cells of strings in a list."""
    return [new_code_cell(cell[0]) if isinstance(cell, list) else new_markdown_cell(cell) for cell in cells]


def test_a_fold_is_moved_below_the_cell_that_is_to_be_run(learner):
    cells = learner.arrange(text(f"Intro\n\n**Before you run it.** How many?\n\n{FOLD}\n\nMore.", ["1"], "After"))
    assert [cell.source for cell in cells] == ["Intro\n\n**Before you run it.** How many?\n\nMore.", "1", FOLD, "After"]


def test_a_fold_that_stands_below_already_stays(learner):
    sources = ["**Before you run it.** How many?", ["1"], f"{FOLD}\n\n**Before you run it.** And now?", ["2"]]
    assert [cell.source for cell in learner.arrange(text(*sources))] == [
        source[0] if isinstance(source, list) else source for source in sources
    ]


def test_further_sections_are_folded_and_can_be_run_last(learner):
    cells = learner.arrange(text("# T", "## 1 · A", ["a"], "## Further · B\n\n**Adds** b.", ["b"], "## 2 · C", ["c"]))
    assert [cell.metadata.get("jp-MarkdownHeadingCollapsed", False) for cell in cells] == [
        False, False, False, True, False, False, False]  # fmt: skip
    last = learner.further_last(new_notebook(cells=cells)).cells
    assert [cell.source.partition("\n")[0] for cell in last] == [
        "# T", "## 1 · A", "a", "## 2 · C", "c", "## Further · B", "b"]  # fmt: skip
    assert all(cell in cells for cell in last)


def test_minutes_count_words_lines_figures_and_exercises(learner):
    claims = new_code_cell("assert True\n" * 80, metadata={"tags": ["claims"]})
    cells = [*text("## 1 · A\n\n" + "word " * 297, ["x = 1\n" * 16], ["figures.one(x)"], *EXERCISE), claims]
    (_, section) = learner.sections(cells)
    assert learner.minutes(section, ASKED, 0) == round(learner.READERS * (2 + 2 + 1 + 6))
    card = learner.time_card([*cells, *text("## Further · B\n\n" + "word " * 450)], ASKED, "99")
    assert "about 18 minutes; the core alone takes 14" in card and "| 1 · A | 13 |" in card


def test_words_are_what_is_read(learner):
    assert learner.words("# One two\n\n[three](http://a.b/c d) <!-- four --> **five** — <b>six</b> {{seven}}") == 5


def test_an_exercise_says_how_hard_it_is(learner):
    cells = text("Text.\n\n**Exercise 3.** Do it.", *EXERCISE, "**Exercise 4.** Not known.", ['check("99.y", f)'])
    learner.rate_exercises(cells, ASKED)
    assert cells[0].source == "Text.\n\n**Exercise 3** · ●●○ · 6 minutes. Do it."
    assert cells[3].source == "**Exercise 4.** Not known."


def test_the_self_test_is_always_the_same_and_asks_about_the_core_first(learner):
    cells = text("# T", ["check('04.values', f)"], ["check('04.codes', f)"], "## Further · A", ["check('04.noise', f)"])
    assert learner.self_test(cells, "04") == learner.self_test(cells, "04")
    asked = [question.id for question in learner.self_test_questions(cells, "04")]
    assert set(asked[:2]) == {"04.values", "04.codes"} and len(asked) == 3
    assert learner.self_test(cells, "04").count("<summary>Answer</summary>") == 3
    assert learner.self_test(cells, "99") == ""


@pytest.fixture
def terms(monkeypatch):
    """A glossary of four terms."""
    term = type(next(iter(GLOSSARY.values())))
    for name in list(GLOSSARY):
        monkeypatch.delitem(GLOSSARY, name)
    for name, home in (("zero point", "01"), ("point", "01"), ("code", "01"), ("late", "05")):
        monkeypatch.setitem(GLOSSARY, name, term(f"What {name} is.", home))


def test_the_first_use_of_a_term_becomes_a_link_and_no_other(learner, terms):
    cells = text("## The zero point\n\n`zero point`, [a zero point](x) and code.",
                 "Zero points are a **code**, a point, late. Zero point.", "A code and a point.")  # fmt: skip
    assert learner.link_terms(cells, "03", "g.md") == {"zero point", "code", "point"}
    assert [cell.source for cell in cells] == [
        "## The zero point\n\n`zero point`, [a zero point](x) and code.",
        "[Zero points](g.md#zero-point) are a **[code](g.md#code)**, a [point](g.md#point), late. Zero point.",
        "A code and a point.",
    ]


@pytest.mark.parametrize(("term", "name"), [("KV cache", "kv-cache"), ("two's complement", "twos-complement")])
def test_the_anchor_of_a_term_is_that_of_its_heading(learner, term, name):
    assert learner.anchor(term) == name


def test_a_term_is_not_linked_before_the_notebook_that_explains_it(learner, terms):
    cells = text("A zero point.")
    assert learner.link_terms(cells, "00", "g.md") == set() and cells[0].source == "A zero point."


def test_the_glossary_page_has_all_terms_in_order_and_their_homes(learner, terms):
    page = learner.glossary_page(["01_bits"])
    assert page.index("## code") < page.index("## late") < page.index("## point") < page.index("## zero point")
    assert "What code is. Explained in [notebook 01](01_bits.ipynb)." in page and "What late is.\n" in page


def good():
    """A notebook within the limits, as short as can be."""
    cells = text("# T\n{{time_card}}", ["the cell for Colab"], "## 1 · A\n\n**Before you run it.** What?", ["x = 1"],
                 FOLD, *EXERCISE * 5, "## Further · B\n\n**Adds** b.", "## Self-test\n\n{{self_test}}")
    cells[1].metadata = nbformat.from_dict({"jupyter": {"source_hidden": True}})
    return cells


def problems_of(learner, cells, exercises=ASKED):
    return "\n".join(learner.style_problems(new_notebook(cells=cells), "99_tiny", exercises))


@pytest.fixture
def limits(learner, monkeypatch):
    monkeypatch.setattr(learner, "KEEP_LIMITS", {"99_tiny"})


def test_a_notebook_within_all_limits_has_no_problem(learner, limits):
    assert problems_of(learner, good()) == ""


def test_a_notebook_that_is_not_of_the_course_may_be_as_it_is(learner):
    assert problems_of(learner, text("# T", ["x = 1  " + "#" * 200])) == ""


@pytest.mark.parametrize(
    ("place", "source", "said"),
    [
        (0, "# T", "no {{time_card}}"),
        (-1, "## Self-test", "no {{self_test}}"),
        (2, "## 1 · A\n\n" + "word " * 2201, "words; at most 2200"),
        (2, "Text\n\n## 1 · A", "a section begins in the middle"),
        (3, "x = 1\n" * 5, "the median code cell has 5 lines"),
        (3, "x = 1\n" * 16, "has 16 lines; at most 15"),
        (3, f"x = 1  {'#' * 82}", "has 89 characters, at most 88"),
        (3, "fig, ax = plt.subplots()", "1 of 1 lines of code plot"),
        (3, 'f = use("99.x", f)', "give what use() returns another name"),
        (4, "No fold.", "has no cell to run with 'After you have run it'"),
        (6, "f()", "the core has 4 exercises"),
        (-2, "## Further · B\n\nText.", "does not begin with what it **Adds**"),
    ],
)
def test_what_is_not_kind_to_a_learner_is_named(learner, limits, place, source, said):
    cells = good()
    cells[place].source = source
    assert said in problems_of(learner, cells)


def test_a_core_has_a_limit_of_cells(learner, limits):
    assert "the core has 46 cells" in problems_of(learner, good() + text(*["Text."] * 30))


def test_a_core_has_a_limit_of_minutes(learner, limits):
    slow = {"99.x": Exercise("99.x", 1, (), minutes=15, difficulty=2)}
    assert "minutes; at most 90" not in problems_of(learner, good(), slow | {"99.x": ASKED["99.x"]})
    assert "minutes; at most 90" in problems_of(learner, good(), slow)


def test_an_exercise_needs_minutes_and_a_difficulty(learner, limits):
    assert "'99.x' has no minutes" in problems_of(learner, good(), {"99.x": Exercise("99.x", 1, ())})


def test_a_term_that_is_at_home_here_is_used_here(learner, limits, terms, monkeypatch):
    monkeypatch.setitem(GLOSSARY, "lost", type(GLOSSARY["late"])("What lost is.", "99"))
    assert "'lost' is explained here, but no text uses it" in problems_of(learner, good())


@pytest.mark.parametrize("spoiler", ["assert x == 1", "    assert x", 'show(fig, alt="It rises.")'])
def test_a_student_edition_has_no_spoilers(learner, limits, spoiler):
    assert list(learner.student_problems(new_notebook(cells=text([spoiler])), "99_tiny"))
    assert not list(learner.student_problems(new_notebook(cells=text([spoiler])), "99_old"))
    ran = nbformat.v4.new_code_cell("1", execution_count=1)
    assert "has been run" in next(learner.student_problems(new_notebook(cells=[ran]), "99_old"))


def test_the_express_route_takes_45_minutes(build, learner, notebooks):
    stops = {"00": ("Introduction", "1", "2", "3", "4", "5"), "04": ("4",), "09": ("5",)}
    total = 0
    for number, wanted in stops.items():
        (source,) = notebooks.glob(f"source/{number}_*.py")
        found = learner.sections(build.read_source(source).cells)
        chosen = [section for section in found if not section.further and section.title.split(" ")[0] in wanted]
        assert len(chosen) == len(wanted)
        total += sum(learner.minutes(section, exercises_of(number), 0) for section in chosen)
    assert 30 < total <= 45 - 3  # for what the machine takes
