"""The claims ledger: what counts as a number in prose, what guards it, and what --check says where nothing does."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SOURCE = """\
# %% [markdown]
# # Tiny
# {{colab}} {{cost_card}}
#
# ## 1 · First
#
# The loss is 0.73 nats.

# %%
loss = 0.7 + 0.03
assert loss < 0.75
print(loss)
"""


@pytest.fixture(scope="session")
def claims(build):
    return build.claims


@pytest.fixture
def root(tmp_path):
    """A repository with a file of results and a file of tests."""
    (tmp_path / "results.csv").write_text("name,loss,bytes\nnaive,0.18007,1234\nGPTQ,0.02951,10887800\n")
    (tmp_path / "test_it.py").write_text("def test_five():\n    assert 5 > 4\n\n\ndef test_table():\n    readme = 1\n")
    return tmp_path


def entries(claims, root, prose, *code):
    """The ledger of a notebook with one markdown cell between two headings and some code after it."""
    cells = [new_markdown_cell(f"# Title\n\n## 1 · Section\n\n{prose}"), *code]
    return list(claims.notebook_ledger(new_notebook(cells=cells), root / "x.py", root))


def numbers(claims, text):
    return [number.text for block in claims.blocks_of(text, "") for number, _ in block.numbers()]


# ---- what is a claim ----


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It costs 0.03 nats, 1,234 bytes, 90 % and 6.0e-8.", ["0.03", "1,234", "90", "6.0e-8"]),
        ("| a | 2.75 |\n| b | -0.5 |", ["2.75", "0.5"]),
        ("a third, 1/3, of 24 layers", ["1/3", "24"]),
        ("not `x = 3`, $4^5$, $$6$$ or 2<sup>-24</sup>, but 7", ["7"]),
        ("```\n8 bytes\n\n9 bytes\n```\n10 bytes", ["10"]),
        ("## 3 numbers\n4 numbers <!-- 5 numbers -->", ["4"]),
        ("[12 files](https://a.org/13) <img width=14>", ["12"]),
        ("1. first\n2. second of 17", ["17"]),
        ("- a) 128\n- b) none of 99\n  or 100\n- **so** 5", ["5"]),
        ("Is it 50 or 80? It is 60.", ["60"]),
        ("notebook 04, sections 2 and 3, equation (6), table 5, 04.qmax, **10 · CMPQ**, but 12 tables", ["12"]),
        ("section 3, 2.5 times", ["2.5"]),
        ("arXiv 2210.17323v2, 1993, 1936, Python 3.11, IEEE 754, but 1953.5 and 2048", ["1953.5", "2048"]),
        ("int8, W8A8, OPT-125M, fp16, 13B, 4 x 8-bit", ["4"]),
        ("at 8, 4, 3 and 2 bits, 8- and 4-bit, 32 bits to 8, 2\n  bits, widths 16, 8 and 4, {2, 3, 4, 8}, 3-means", []),
        ("1.6 bits, 0.9 bits a weight, 2.44 and 3 bits", ["1.6", "0.9", "2.44"]),
        ("the 2.7 M-parameter GPT, 1.3 billion parameters, 2:4, 0 and 1", []),
        ("0 % and 1 %, 0.04 and 1.0", ["0", "1", "0.04", "1.0"]),
        ("a 95 % interval of 95 % of them", ["95"]),
    ],
)
def test_what_is_a_claim(claims, text, found):
    assert numbers(claims, text) == found


# ---- what guards it without a word ----


@pytest.mark.parametrize(
    ("prose", "code", "kind"),
    [
        ("It is 3.67 times.", "assert round(x, 2) == 3.67", "assert"),
        ("It is 3.7 times.", "assert round(x, 2) == 3.67", ""),  # other digits: the author has to say where
        ("Read 12,800 windows.", "windows = 100 * 128", "setting"),
        ("More than 128 windows.", "windows = 128", ""),  # a bound is no setting
        ("Read 12 windows.", "ax.plot(x, lw=12)", ""),
        ("Read 12 windows.", "fig, ax = plt.subplots(figsize=(12, 3))", ""),
        ("It keeps 90 %.", "assert share > 0.9", "assert"),
        ("It has 32.7 MB.", "size = 32_700_000", "setting"),
        ("It has 32.8 MB.", "size = 32_700_000", ""),
        ("It has 2 million.", "size = 2", ""),
        ("It has 2 million.", "size = 2_000_000", "setting"),
        ("It has 1 %.", "size = 1", ""),
        ("It has 8 values.", "%matplotlib inline\n8", ""),
    ],
)
def test_the_code_of_the_section(claims, root, prose, code, kind):
    (entry,) = entries(claims, root, prose, new_code_cell(code))
    assert bool(entry.fault) == (not kind)
    assert f" {kind}: " in entry.guard or not kind


def test_only_outputs_that_are_compared_and_computed(claims, root):
    stream = new_output("stream", text="4.25 bits\n✓ 04.audit: correct\n")
    picture = new_output("display_data", {"image/png": "", "text/plain": "Bars of 7."})
    words = new_output("display_data", {"text/html": "<summary>Figure in words</summary>", "text/plain": "Bars of 9."})
    cell = new_code_cell("f()", outputs=[stream, picture, words])
    assert "output: 4.25 bits" in entries(claims, root, "It is 4.25.", cell)[0].guard
    assert entries(claims, root, "It is 7.", cell)[0].fault  # the words for a picture are typed
    assert entries(claims, root, "It is 9.", cell)[0].fault
    assert entries(claims, root, "It is 4.", cell)[0].fault  # the name of an exercise
    cell.metadata["tags"] = ["measured", "nbval-ignore-output"]
    assert entries(claims, root, "It is 4.25.", cell)[0].fault


def test_another_section_is_too_far_away(claims, root):
    setup, first, other = new_code_cell("a = 11"), new_code_cell("b = 12"), new_code_cell("c = 13")
    cells = [setup, new_markdown_cell("## 1\n\nWith 11, 12 and 13."), first, new_markdown_cell("Or 12.\n## 2"), other]
    ledger = list(claims.notebook_ledger(new_notebook(cells=cells), root / "x.py", root))
    assert [(entry.number, bool(entry.fault)) for entry in ledger] == [
        ("11", False), ("12", False), ("13", True), ("12", False)]  # fmt: skip


# ---- references ----


@pytest.mark.parametrize(
    ("prose", "fault"),
    [
        ("It is 255. <!-- claim: MATH 2**8 - 1 -->", ""),
        ("It is 6.02 dB. <!-- claim: MATH 20 * log10(2) -->", ""),
        ("It is 6.03 dB. <!-- claim: MATH 20 * log10(2) -->", "no guard for 6.03"),
        ("It is 6. <!-- claim: MATH 6 -->", "'6' is not arithmetic"),
        ("It is 6. <!-- claim: MATH open('x') -->", "not arithmetic on numbers"),
        ("It is 6. <!-- claim: MATH 6 / 0 -->", "division by zero"),
        ("It is 6. <!-- claim: MATH 9**9**9 -->", "math range error"),
        ("It costs 0.03. <!-- claim: FILE results.csv -->", ""),
        ("It costs 10.9 MB. <!-- claim: FILE results.csv -->", ""),
        ("It costs 0.04. <!-- claim: FILE results.csv -->", "no guard for 0.04"),
        ("It costs 0.03. <!-- claim: FILE gone.csv -->", "gone.csv cannot be read: FileNotFoundError"),
        ("It is 6.1 times. <!-- claim: FILE results.csv: 0.18007 / 0.02951 -->", ""),
        ("It is 6.1 times. <!-- claim: FILE results.csv: 0.18008 / 0.02951 -->", "0.18008 is not in results.csv"),
        ("It is 5. <!-- claim: TEST test_it.py::test_five -->", ""),
        ("It is 6. <!-- claim: TEST test_it.py::test_five -->", "no guard for 6"),
        ("It is 6. <!-- claim: TEST test_it.py::test_table -->", "no guard for 6"),  # good for a page only
        ("It is 5. <!-- claim: TEST test_it.py::test_six -->", "has no test 'test_six'"),
        ("It is 69.32. <!-- claim: SOURCE arXiv 2210.17323v2 table 5 -->", ""),
        ("It is 69.32. <!-- claim: SOURCE a paper -->", "names a paper by its arXiv id or year"),
        ("It is 5. <!-- claim: BOOK 5 -->", "a reference is MATH, FILE, TEST, CELL, SOURCE"),
        ("It is five. <!-- claim: MATH 2 + 3 -->", "guards no number beside it"),
        ("It is 5.\n\n<!-- claim: MATH 2 + 3 -->\n\n- Or 5.\n- Or 6. <!-- claim: MATH 2 * 3 -->", "no guard for 5"),
        ("<!-- claim: MATH 2 + 3;\n MATH 2 * 3 -->\n\n| 5 | 6 |\n|--|--|\n| 6 | 5 |", ""),
    ],
)
def test_references(claims, root, prose, fault):
    faults = " ".join(entry.fault for entry in entries(claims, root, prose) if entry.fault)
    assert fault in faults and bool(fault) == bool(faults)


def test_a_cell_by_its_words_or_its_id(claims, root):
    cell, other = new_code_cell("assert 0.8 < share", id="abc"), new_code_cell("f(3)  # share")

    def fault(prose):
        ledger = entries(claims, root, prose, new_markdown_cell("## 2"), cell, other)
        return " ".join(entry.fault for entry in ledger if entry.fault)

    assert fault("It keeps 80 %. <!-- claim: CELL abc -->") == ""
    assert fault("It is 3. <!-- claim: CELL f(3) -->") == ""
    assert fault("It keeps about 60 %. <!-- claim: CELL 0.8 < share -->") == ""  # bounded, and said so
    assert "no guard for 60" in fault("It keeps 60 %. <!-- claim: CELL 0.8 < share -->")
    assert "no guard for 30" in fault("It keeps about 30 %. <!-- claim: CELL 0.8 < share -->")
    assert "0 code cells have 'gone'" in fault("It is 3. <!-- claim: CELL gone -->")
    assert "2 code cells have 'share'" in fault("It is 3. <!-- claim: CELL share -->")


def test_the_pages_beside_the_notebooks(claims, root):
    assert list(claims.pages_ledger(root)) == []  # there are none
    (root / "data/results").mkdir(parents=True)
    (root / "data/results/README.md").write_text("All 41 of them.\n")
    (root / "README.md").write_text(
        "It has 4 parts.\n\n<!-- claim: TEST test_it.py::test_table -->\n\n| a | 4.39 |\n|--|--|\n| b | 2.44 |\n"
    )
    assert [(entry.number, bool(entry.fault)) for entry in claims.pages_ledger(root)] == [
        ("4", True), ("4.39", False), ("2.44", False), ("41", True)]  # fmt: skip


# ---- the commands ----


@pytest.fixture(scope="module")
def built(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository") / "notebooks"
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "00_tiny.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOQ_PROFILE", "lab")
        patch.setattr(build, "exercises_of", lambda notebook: {})
        assert build.main([], folder) == 0
    return folder


@pytest.fixture
def course(build, built, monkeypatch):
    """The built course; whatever a test changes is put back."""
    monkeypatch.setattr(build, "exercises_of", lambda notebook: {})
    before = {path: path.read_bytes() for path in built.rglob("*.*")}
    yield built
    for path, content in before.items():
        path.write_bytes(content)
    (built.parent / "README.md").unlink(missing_ok=True)


def rewrite(course, old, new):
    (course / "source" / "00_tiny.py").write_text(SOURCE.replace(old, new))


def outputs(course):
    return [[(cell.source, cell.outputs, cell.execution_count) for cell in notebook.cells if cell.cell_type == "code"]
            for notebook in (nbformat.read(path, 4) for path in sorted(course.rglob("*.ipynb")))]  # fmt: skip


def test_check_names_the_number_and_the_way_out(build, course, capsys):
    assert build.main(["--check"], course) == 0, capsys.readouterr().err
    rewrite(course, "0.73 nats", "0.73 nats, 41 % less")
    assert build.main(["--prose"], course) == 0
    assert build.main(["--check"], course) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{course / 'source' / '00_tiny.py'}: cell 1: no guard for 41; assert it")
    assert '"The loss is 0.73 nats, 41 % less"' in line


def test_check_reads_the_readme_unless_told_which_notebook(build, course, capsys):
    (course.parent / "README.md").write_text("All 41 of them.\n")
    assert build.main(["--check"], course) == 1
    assert "README.md: no guard for 41" in capsys.readouterr().err
    assert build.main(["--check", "00"], course) == 0


def test_the_ledger_is_printed(build, course, capsys):
    assert build.main(["--claims"], course) == 0
    where, number, guard, sentence = capsys.readouterr().out.strip().split("\t")
    assert where.endswith("00_tiny.py: cell 1") and number == "0.73" and sentence == "The loss is 0.73 nats"
    assert guard.startswith("CELL ") and guard.endswith(" output: 0.73")


def test_new_prose_is_taken_over_without_a_run(build, course, capsys):
    before = outputs(course)
    rewrite(course, "The loss is 0.73 nats.", "Only 0.73 nats.\n#\n# <!-- claim: MATH 0.7 + 0.03 -->\n#\n# Or 0.73.")
    assert build.main(["--prose"], course) == 0
    assert capsys.readouterr().out == "00_tiny: 2 editions with new prose\n"
    assert outputs(course) == before
    assert build.main(["--check"], course) == 0  # cost and badge included
    stamps = {path: path.stat().st_mtime_ns for path in course.rglob("*.ipynb")}
    assert build.main(["--prose"], course) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in course.rglob("*.ipynb")}  # nothing new, nothing written


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.75", "0.76"), ("# %%\nloss", '# %% tags=["measured"]\nloss'), ("loss = ", "1\n\n# %%\nloss = ")],
)
def test_changed_code_is_not_taken_over(build, course, capsys, old, new):
    rewrite(course, old, new)
    before = {path: path.read_bytes() for path in course.rglob("*.ipynb")}
    assert build.main(["--prose"], course) == 1
    assert "the code has changed; run python tools/build.py 00" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in course.rglob("*.ipynb")}


def test_prose_needs_a_built_notebook(build, course, capsys):
    (course / "00_tiny.ipynb").unlink()
    assert build.main(["--prose"], course) == 1
    assert "00_tiny.ipynb: missing; run python tools/build.py 00" in capsys.readouterr().err


def test_the_comments_are_not_seen(build, course):
    from nbconvert import HTMLExporter

    rewrite(course, "0.73 nats.", "0.73 nats. <!-- claim: MATH 0.7 + 0.03 -->")
    assert build.main(["--prose"], course) == 0
    page, _ = HTMLExporter().from_filename(course / "00_tiny.ipynb")
    assert "<p>The loss is 0.73 nats. <!-- claim: MATH 0.7 + 0.03 --></p>" in page
    assert "claim" in json.dumps(nbformat.read(course / "00_tiny.ipynb", 4).cells[0].source)
