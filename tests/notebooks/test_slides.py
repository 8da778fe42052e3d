"""The slides: the core of a notebook for a beamer, with the answers behind a key press and no network."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("slides", ROOT / "tools/slides.py")
slides = importlib.util.module_from_spec(specification)
specification.loader.exec_module(slides)


@pytest.fixture(scope="module")
def page():
    return slides.deck("04")


def test_every_section_of_the_core_has_its_slides_and_no_other(page):
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert list(dict.fromkeys(headings))[:2] == ["1 · Weights, codes, values", "2 · One scale for how many weights?"]
    assert headings[-1] == "Summary" and not {"Self-test", "Introduction"} & set(headings)
    assert not any(heading.startswith("Further") for heading in headings)


def test_an_answer_comes_after_what_came_out_and_a_key_press(page):
    parts = re.split("<section>", page)
    asked = next(place for place, part in enumerate(parts) if "Which share of the weights becomes 0?" in part)
    assert "Most of them" not in parts[asked] and "predict" in parts[asked]
    assert "<img" in parts[asked + 1] and "% of the weights become 0" in parts[asked + 1]
    assert re.search(r'class="answer fragment">.*Most of them', parts[asked + 1], re.S)


def test_a_solution_is_for_the_speaker_alone(page):
    exercise = next(part for part in page.split("<section>") if "def to_values(" in part)
    shown, notes = exercise.split('<aside class="notes">')
    assert "def to_values(codes, scale, zero_point):" in shown and "return" not in shown
    assert "return scale * (codes - zero_point)" in notes


def test_the_plan_of_the_kit_is_in_the_notes(page):
    notes = "".join(re.findall('<aside class="notes">(.*?)</aside>', page, re.S))
    assert "<strong>22 minutes.</strong>" in notes and "in pairs" in notes


def test_nothing_is_fetched_and_every_picture_has_words(page):
    assert not re.findall(r'(?:src|href)="https?:[^"]*\.(?:js|css|png)"', page)
    pictures = re.findall("<img [^>]*>", page)
    assert len(pictures) > 5 and all(re.match('<img alt="[^"]{20,}" src="data:', picture) for picture in pictures)
    assert "$" not in re.sub(r"<pre>.*?</pre>|data:[^\"]*", "", page, flags=re.S)  # formulas are MathML


def test_a_folder_has_all_that_is_needed(tmp_path):
    slides.write(tmp_path, ["00", "04"])
    assert {path.name for path in tmp_path.glob("*.html")} == {
        "00_start_here.html", "04_naive_rounding.html", "index.html"}
    for wanted in re.findall(r'"(reveal/[^"]*)"', (tmp_path / "04_naive_rounding.html").read_text()):
        assert (tmp_path / wanted).is_file(), wanted


@pytest.mark.parametrize("number", slides.NOTEBOOKS)
def test_every_notebook_has_slides(number):
    assert slides.deck(number).count("<section>") > 8
