"""What a learner sees and can do in JupyterLab: the widgets of the course, clicked on and typed into."""

import re
from html import unescape
from io import BytesIO

import matplotlib.pyplot as plt
import pytest
from selenium.webdriver.common.keys import Keys

from nanoq.teach.compare import Comparison, compare_answers, first_divergence, load_contender
from nanoq.teach.widgets import BitExplorer

NOTEBOOKS = ("01_data_types", "05_ternary_operators", "16_playground")
CONTROLS = "button, input, select, textarea, [role=slider]"


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_page_has_no_errors_and_no_control_or_picture_without_a_name(pages, stem):
    page = pages(stem)
    assert page.errors() == []
    assert page.all(f":is({CONTROLS}, img)", page.widget())

    def nameless() -> list[str]:
        # What is out of the window has no names: the notebook may have moved since it was scrolled to.
        controls = page.all(f":is({CONTROLS}, img)", page.widget())
        return [control.get_attribute("outerHTML") for control in controls if not _name(control)]

    page.shows(nameless, [])


def _name(control) -> str:
    """What a control is called. ipywidgets does not tie a slider to its label, which stands beside it."""
    label = "./ancestor::*[contains(@class, 'widget-slider')]/label"
    return control.accessible_name or "".join(label.text for label in control.find_elements("xpath", label))


# ---- 01: the bit explorer ----


BITS = "button[title*=counts]"


class Bits:
    """The bit explorer on the page, and one of nanoq that is told to do the same."""

    def __init__(self, page):
        self.page, self.twin, box = page, BitExplorer("fp16", 3.14), page.widget()
        self.format, self.number = page.one("select", box), page.one("input", box)

    def check(self) -> None:
        """The page has to say what the twin says: the bits, each part in words, the value and its kind."""
        reading, twin = self.twin.reading, self.twin
        words = [f"{part} {text}" for part, text in reading.fields.items()]
        words += [reading.number, f"({reading.kind}; pattern 0x", f" = {twin.pattern})", twin.message]

        def shown():
            bits = "".join(self.page.texts(BITS))
            text = " ".join(self.page.texts(".widget-html-content")[-2:]).replace("−", "-")
            return bits, [word for word in words if word not in text]

        self.page.shows(shown, ("".join(map(str, twin.bits)), []))


@pytest.fixture
def bits(pages):
    explorer = Bits(pages("01_data_types"))
    explorer.format.send_keys(Keys.SPACE, "fp16", Keys.ENTER)  # Space: JupyterLab takes keys from a list that is shut
    explorer.page.enter(explorer.number, "3.14")
    explorer.page.press(Keys.ENTER)
    explorer.check()
    return explorer


def test_a_click_on_a_bit_changes_what_the_pattern_says(bits, tmp_path):
    assert bits.twin.reading.kind == "normal"
    for place, kind in ((0, "normal"), (1, "subnormal"), (15, "subnormal"), (1, "normal"), (2, "normal")):
        bits.page.all(BITS)[place].click()
        bits.twin.toggle(place)
        bits.check()
        assert bits.twin.reading.kind == kind
    bits.page.screenshot(tmp_path)


def test_bits_numbers_and_formats_need_no_mouse(bits):
    bits.page.press(Keys.TAB, Keys.TAB, Keys.ENTER)  # from the number over "previous" to "next"
    bits.twin.step(1)
    bits.check()
    bits.page.press(Keys.TAB, Keys.SPACE, Keys.TAB, Keys.TAB, Keys.SPACE)
    bits.twin.toggle(0)
    bits.twin.toggle(2)
    bits.check()
    bits.number.send_keys("0.1", Keys.ENTER)
    bits.twin.enter(0.1)
    bits.check()
    bits.format.send_keys(Keys.SPACE, "e4m3fn", Keys.ENTER)
    bits.twin.select("e4m3fn")
    bits.check()
    bits.page.enter(bits.number, "a tenth")
    bits.page.press(Keys.ENTER)
    bits.twin.message = "could not convert string to float: 'a tenth'"
    bits.check()
    # No key has gone to the notebook instead: it has the cells that it had, once JupyterLab has laid out the last.
    bits.page.shows(lambda: len(bits.page.all(".jp-CodeCell")), bits.page.cells)


# ---- 05: the threshold slider ----


def test_a_figure_follows_its_slider_and_comes_back_with_it(pages, tmp_path):
    page = pages("05_ternary_operators")
    page.one("[role=slider]", page.widget()).click()
    figures = {"0.60": page.image("img.widget-image")}
    for key, value in ((Keys.ARROW_RIGHT, "0.61"), (Keys.PAGE_UP, "0.66")):
        page.press(key)
        page.shows(lambda: page.texts(".widget-readout"), [value])
        page.until(lambda: page.image("img.widget-image") not in figures.values(), f"the figure at {value}")
        figures[value] = page.image("img.widget-image")
    page.screenshot(tmp_path)
    page.press(Keys.PAGE_DOWN, Keys.ARROW_LEFT)
    page.until(lambda: page.image("img.widget-image") == figures["0.60"], "the first figure")
    for png in figures.values():
        pixels = plt.imread(BytesIO(png), format="png")  # (height, width, colours)
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 0.05


# ---- 16: the playground ----

PROMPT = "The little dog was"
MODELS = ["float32", "RTN 8 bit", "GPTQ 2 bit"]


class Playground:
    """The playground on the page."""

    def __init__(self, page):
        self.page = page
        page.widget()

    def choose(self, names: list[str]) -> None:
        """Tick some models, and no others."""
        for box in self.page.all(".nanoq-models input"):
            if box.is_selected() != (box.accessible_name in names):
                box.click()

    def fill(self, **fields: object) -> None:
        """Type over what fields say."""
        for name, value in fields.items():
            self.page.enter(self.page.one(f".nanoq-{name} input"), str(value))
            self.page.press(Keys.TAB)

    def press(self, button: str, *words: str) -> str:
        """Press a button, and wait for a status with these words."""
        self.page.one(f"button.nanoq-{button}").click()
        return self.says(*words)

    def says(self, *words: str) -> str:
        """Wait for a status with these words."""
        return self.page.until(lambda: all(word in self.status() for word in words) and self.status(), words)

    def status(self) -> str:
        return self.page.texts(".nanoq-status")[0]

    def answers(self) -> dict[str, str]:
        """The HTML of each model's text so far, by the model's name."""
        rows = self.page.texts(".nanoq-answers tr:has(td)", "innerHTML")
        cells = (re.findall("<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in rows)
        return {name: text for name, *_, text in cells}


def plain(html: str) -> str:
    """A text as its model wrote it: no tags, and what a mark makes visible as it was."""
    return unescape(re.sub("<.*?>", "", html)).replace("␣", " ").replace("↵", "\n")


@pytest.fixture
def play(pages):
    playground = Playground(pages("16_playground"))
    playground.fill(prompt=PROMPT, temperature=1, seed=7)
    playground.choose(MODELS)
    return playground


def on_paper(length: int) -> Comparison:
    """What nanoq itself says of the same prompt, without a browser."""
    return compare_answers([load_contender("tales-2.7m")], PROMPT, temperature=1, seed=7, length=length)


def test_answers_stream_and_a_mark_shows_where_they_part(play, tmp_path):
    play.fill(length=150)
    play.press("go", "Writing")
    lengths = []

    def done() -> bool:
        lengths.append(len(plain(play.answers()[MODELS[0]])))
        return "Done: 150" in play.status()

    play.page.until(done, "150 characters")
    assert lengths == sorted(lengths) and len(set(lengths)) > 1
    answers = play.answers()
    texts = {name: plain(html) for name, html in answers.items()}
    assert list(texts) == MODELS and texts[MODELS[0]] == on_paper(150).text(MODELS[0])
    assert all(text.startswith(PROMPT) and len(text) == len(PROMPT) + 150 for text in texts.values())
    for name, html in answers.items():
        before, *marked = html.split("<mark")
        assert (len(plain(before)) if marked else None) == first_divergence([texts[MODELS[0]], texts[name]])
    assert "<mark" in answers[MODELS[2]]
    play.page.screenshot(tmp_path)


def test_surprise_and_next_characters_are_those_of_the_model(play):
    play.fill(length=50)
    play.press("go", "Done: 50")
    paper, length = on_paper(50), len(PROMPT) + 50
    bits = [float(title.removesuffix(" bits")) for title in play.page.texts(".nanoq-surprise span[title]", "title")]
    assert len(bits) == len(MODELS) * (length - 1)
    assert bits[: length - 1] == pytest.approx(paper.surprise(MODELS[0], MODELS[0]).tolist(), abs=0.06)
    position = int(play.page.texts(".nanoq-position .widget-readout")[0]) + 1
    play.page.one(".nanoq-position [role=slider]").send_keys(Keys.ARROW_RIGHT)
    play.page.shows(lambda: play.page.texts(".nanoq-next p")[0].split(",")[0], f"Position {position}")
    (likeliest,) = paper.next_characters(MODELS[0], MODELS[0], position, k=1)
    rows = play.page.texts(".nanoq-next tr:has(td)", "textContent")
    assert [row.split("‘")[0] for row in rows] == MODELS
    assert plain(rows[0]).startswith("{}‘{}’ {:.1%}".format(MODELS[0], *likeliest))


@pytest.mark.parametrize(("field", "value", "words"), [
    ("prompt", "", "prompt is empty"), ("prompt", "A ☃ sat", "☃"), ("temperature", -1, "temperature"),
    ("seed", -1, "seed"), ("length", 0, "length"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_in_one_line(play, field, value, words):
    play.fill(**{field: value})
    assert "\n" not in play.press("go", "Please", words)


def test_without_a_model_nothing_is_written(play):
    play.choose([])
    assert "\n" not in play.press("go", "Please", "at least one model")


def test_stop_stops_and_enter_starts_again(play):
    play.fill(length=900)
    play.press("go", "Writing", "of 900")
    written = int(play.press("stop", "Stopped").split()[2])
    assert 0 < written < 900
    assert {len(plain(html)) for html in play.answers().values()} == {len(PROMPT) + written}
    play.fill(length=20)
    play.page.one(".nanoq-prompt input").send_keys(Keys.ENTER)
    play.says("Done: 20 characters")
