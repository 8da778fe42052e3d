"""Live figures, and the bit explorer: what its clicks do, what it says, and what is read where widgets do not run."""

import math

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from nanoq.numbers import FloatFormat, IntFormat
from nanoq.teach import widgets
from nanoq.teach.widgets import FORMATS, BitExplorer, bit_explorer, bit_figure, live_figure, read, show_widget

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(widgets, "display", lambda data, raw: outputs.append(data))
    return outputs


def texts(figure):
    found = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    return found


# ---- show_widget ----


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_widget_without_alt_text_is_refused(alt):
    with pytest.raises(ValueError, match="alt="):
        show_widget(ipywidgets.IntSlider(), alt=alt)


def test_a_widget_leaves_words_where_it_does_not_run(shown):
    slider = ipywidgets.IntSlider()
    show_widget(slider, alt="(live in Jupyter: a slider)")
    assert shown[0]["text/plain"] == "(live in Jupyter: a slider)"
    assert shown[0][VIEW]["model_id"] == slider.model_id


# ---- live_figure ----


def test_a_live_figure_follows_its_controls():
    drawn = []

    def draw(height, colour):
        drawn.append((height, colour))
        figure, axes = plt.subplots()
        axes.bar([0], [height], color=colour)
        return figure

    height = ipywidgets.IntSlider(value=3, min=1, max=9)
    colour = ipywidgets.Dropdown(options=["red", "blue"])
    box = live_figure(draw, height=height, colour=colour)
    row, picture = box.children
    first = bytes(picture.value)
    height.value = 8
    second = bytes(picture.value)
    colour.value = "blue"
    assert list(row.children) == [height, colour]
    assert drawn == [(3, "red"), (8, "red"), (8, "blue")]
    assert first.startswith(b"\x89PNG") and len({first, second, bytes(picture.value)}) == 3
    assert not plt.get_fignums()  # else the inline backend would draw them once more


# ---- reading a pattern ----


@pytest.mark.parametrize("name", [name for name, fmt in FORMATS.items() if fmt.bits <= 8])
def test_the_formula_is_the_value(name):
    fmt = FORMATS[name]
    for pattern in range(2**fmt.bits):
        reading = read(fmt, pattern)
        assert len(reading.parts) == len(reading.weights) == fmt.bits
        python = reading.formula.replace("^{", "**(").replace("}", ")").replace("\\times", "*") or "0"
        if math.isfinite(reading.value):
            assert eval(python) == reading.value == fmt.decode(pattern).item()
        else:
            assert reading.formula == "" and reading.kind in ("infinity", "NaN")


def test_the_weights_of_the_ones_add_up():
    reading = read(IntFormat(8), 0b10001001)
    assert reading.parts[0] == "sign" and reading.weights[0] == "-2^{7}"
    assert reading.formula == "-128 + 8 + 1" and reading.value == -119


@pytest.mark.parametrize(("pattern", "field", "formula", "kind"), [
    (0x4248, "field 16: 16 - 15 = 1", r"2^{16-15} \times (1 + 584/1024)", "normal"),
    (0x8003, "field 0: 1 - 15 = -14", r"-2^{1-15} \times (0 + 3/1024)", "subnormal"),
    (0x7C00, "field 31", "", "infinity"),
    (0x7C01, "field 31", "", "NaN"),
])
def test_what_fp16_says(pattern, field, formula, kind):
    reading = read(FORMATS["fp16"], pattern)
    assert (reading.fields["exponent"], reading.formula, reading.kind) == (field, formula, kind)


def test_a_format_without_sign_and_fraction():
    reading = read(FORMATS["e8m0"], 130)
    assert set(reading.fields) == {"exponent"} and reading.formula == "2^{130-127}" and reading.number == "8"


def test_numbers_are_written_as_they_are():
    fp32 = int(torch.tensor(0.1).view(torch.int32))
    assert read(FORMATS["fp32"], fp32).number == "0.10000000149011612"
    assert read(FORMATS["fp16"], 0x8000).number == "-0" and read(FORMATS["fp16"], 0x7BFF).number == "65504"


# ---- the explorer ----


def test_a_toggled_bit_changes_the_value():
    explorer = BitExplorer("fp16", 1.0)
    assert explorer.bits == [0, 0, 1, 1, 1, 1] + [0] * 10
    explorer.toggle(0)
    assert explorer.reading.value == -1 and explorer.message == "was 1"
    explorer.toggle(6)  # the first of the fraction
    assert explorer.reading.value == -1.5
    explorer.toggle(6)
    explorer.toggle(0)
    assert explorer.reading.value == 1


@pytest.mark.parametrize("place", [-1, 16])
def test_there_is_no_bit_beyond_the_ends(place):
    with pytest.raises(ValueError, match="bits 0..15"):
        BitExplorer("fp16").toggle(place)


def test_the_next_pattern_is_the_next_value():
    explorer = BitExplorer("bf16", 2.0)
    explorer.step(-1)
    assert explorer.reading.value == 2 - 2**-7
    explorer.step(2)
    assert explorer.reading.value == 2 + 2**-6


def test_after_the_last_pattern_comes_the_first():
    explorer = BitExplorer("int8", -1)
    explorer.step(1)
    assert explorer.pattern == 0
    explorer.step(-1)
    assert explorer.reading.value == -1


def test_an_entered_number_is_rounded():
    explorer = BitExplorer("e4m3fn")
    explorer.enter("0.1")
    assert explorer.reading.value == 0.1015625 and explorer.message == "0.1 has become 0.1015625"
    explorer.enter("nan")
    assert explorer.reading.kind == "NaN"
    integers = BitExplorer("int8", 1000)
    assert integers.reading.value == 127
    integers.enter("-inf")
    assert integers.reading.value == -128


@pytest.mark.parametrize(("format", "text"), [("fp16", "one"), ("e2m1", "nan"), ("e8m0", "-1"), ("int8", "nan")])
def test_what_cannot_be_entered_leaves_the_pattern(format, text):
    explorer = BitExplorer(format, 1.0)
    before = explorer.pattern
    with pytest.raises(ValueError):  # noqa: PT011
        explorer.enter(text)
    assert explorer.pattern == before


def test_another_format_takes_the_value_along():
    explorer = BitExplorer("fp32", 0.1)
    explorer.select("bf16")
    assert explorer.reading.value == 0.10009765625
    explorer.enter(-1)
    explorer.select("e8m0")
    assert explorer.pattern == 0 and "negative" in explorer.message


def test_an_unknown_format_is_named():
    with pytest.raises(ValueError, match="no format 'fp64'"):
        bit_explorer("fp64")
    with pytest.raises(ValueError, match="no format 'fp12'"):
        bit_figure("fp12", 0)


# ---- the buttons ----


def panel(format, value):
    box = bit_explorer(format, value)
    (choice, entry, back, forth), row = box.children[0].children, box.children[1]
    return box, choice, entry, back, forth, row


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_button_for_each_bit(name):
    box, _, _, _, _, row = panel(name, 1.0)
    buttons = [cell.children[0] for cell in row.children]
    assert "".join(b.description for b in buttons) == f"{BitExplorer(name, 1.0).pattern:0{FORMATS[name].bits}b}"
    assert "<b>1</b>" in box.children[2].value


def test_clicks_change_what_is_written():
    box, choice, entry, back, forth, row = panel("fp16", 1.0)
    buttons = [cell.children[0] for cell in row.children]
    off = buttons[0].style.button_color
    buttons[0].click()
    assert buttons[0].description == "1" and buttons[0].style.button_color != off
    assert "<b>−1</b>" in box.children[2].value
    forth.click()
    assert "−1.0009765625" in box.children[2].value and row.children[0].children[0] is buttons[0]
    back.click()
    back.click()
    assert "−0.99951171875" in box.children[2].value
    entry.value = "many"
    assert "many" in box.children[3].value and "−0.99951171875" in box.children[2].value
    entry.value = "3"
    assert "<b>3</b>" in box.children[2].value
    choice.value = "uint8"
    assert len(row.children) == 8 and "2 + 1 = <b>3</b>" in box.children[2].value


def test_the_same_number_can_be_entered_again():
    box, _, entry, _, forth, _ = panel("fp16", 1.0)
    entry.value = "3"
    forth.click()
    assert entry.value == "" and "<b>3</b>" not in box.children[2].value
    entry.value = "3"
    assert "<b>3</b>" in box.children[2].value and "3, exactly" in box.children[3].value


# ---- the picture ----


def test_a_picture_has_bits_weights_and_value():
    found = texts(bit_figure("int8", 0b10001001))
    assert found[0:16:2] == list("10001001") and found[1] == "$-2^{7}$"
    assert found[-1] == "$-128 + 8 + 1$ = −119"


def test_a_picture_of_a_float_names_its_parts():
    found = texts(bit_figure(FORMATS["fp16"], 0x8003))
    assert "sign\n−" in found and "exponent\nfield 0: 1 − 15 = −14" in found and "fraction\n3/1024" in found
    assert found[-1].endswith("(subnormal)")


def test_a_picture_of_any_format_can_be_drawn():
    custom = FloatFormat("e3m3", 3, 3)
    assert "infinity" in texts(bit_figure(custom, 0b0111000))[-1]
    assert len(texts(bit_figure("fp32", 0))) == 2 * 32 + 3 + 1
    with pytest.raises(ValueError, match=r"0..2\*\*4"):
        bit_figure("e2m1", 16)
