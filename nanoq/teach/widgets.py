"""Widgets that are still worth reading where widgets do not run: figures that follow a slider, bits to click on.

What a click on a bit does is in `BitExplorer`, which knows nothing of browsers; `bit_explorer` puts buttons on it, and
`bit_figure` draws the same as a picture.
"""

import html
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import ipywidgets
import matplotlib.pyplot as plt
import traitlets
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nanoq.numbers import FLOATS, FloatFormat, IntFormat
from nanoq.teach.plots import COLORS

FORMATS: dict[str, FloatFormat | IntFormat] = {
    **{name: fmt for name, fmt in FLOATS.items() if fmt.bits <= 32},
    **{fmt.name: fmt for fmt in (IntFormat(8), IntFormat(8, signed=False), IntFormat(4))},
}

_COLOR = {"sign": COLORS["vermillion"], "exponent": COLORS["blue"], "fraction": COLORS["green"],
          "integer": COLORS["green"]}
_PALE = {"sign": "#F8DFD1", "exponent": "#D3E5F1", "fraction": "#D0EEE5", "integer": "#D0EEE5"}
_WRAP = 20  # bits, beyond which their weights are written upright


def show_widget(widget: ipywidgets.Widget, *, alt: str) -> None:
    """Display a widget, with words in its place where widgets do not run (GitHub, nbconvert, PDF).

    Tag the cell "measured": the ids that a widget brings along are random.

    Args:
        widget: The widget.
        alt: What a reader without it has to know: what it does, and where to see the same without it.

    Raises:
        ValueError: If `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("show_widget() needs alt=...: what stands in the widget's place where widgets do not run.")
    display({**widget._repr_mimebundle_(), "text/plain": alt}, raw=True)


class _Picture(ipywidgets.Image):
    """An image that a screen reader can name. The front end shows no tooltip of a widget without a `description`."""

    description = traitlets.Unicode("").tag(sync=True)


def live_figure(draw: Callable[..., Figure], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Sliders and menus above a figure that follows them. Show it with `show_widget`, and the figure itself before it.

    A screen reader is told which figure it is, by the values of the controls.

    Args:
        draw: Makes the figure; called with the value of each control, by its name.
        controls: Widgets with a `value`.
    """
    picture = _Picture(format="png")

    def redraw(_=None) -> None:
        values = {name: control.value for name, control in controls.items()}
        png, figure = BytesIO(), draw(**values)
        figure.savefig(png, format="png")
        plt.close(figure)
        picture.value = png.getvalue()
        picture.tooltip = "Figure for " + ", ".join(f"{name} {value}" for name, value in values.items())

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    row = ipywidgets.HBox(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([row, picture])


@dataclass(frozen=True)
class Reading:
    """What a pattern says, part by part.

    Attributes:
        parts: of each bit from the first on: "sign", "exponent", "fraction" or "integer".
        weights: what each bit counts, in TeX: "-2^{7}" for the first of int8.
        fields: the parts in words, as {"exponent": "field 16: 16 - 15 = 1"}.
        formula: the sum or product that gives the value, in TeX; empty for infinity, NaN and an integer without a 1.
        value: float or int.
        kind: "zero", "subnormal", "normal", "infinity", "NaN" or "integer".
    """

    parts: list[str]
    weights: list[str]
    fields: dict[str, str]
    formula: str
    value: float | int
    kind: str

    @property
    def number(self) -> str:
        """The value in as many decimal digits as tell it from its neighbours in float64."""
        return _digits(self.value)


def _digits(number: float | int) -> str:
    return repr(number).removesuffix(".0")


def read(fmt: FloatFormat | IntFormat, pattern: int) -> Reading:
    """Read a pattern by hand, as one would on paper.

    Raises:
        ValueError: If the pattern has more bits than the format.
    """
    return _read_integer(fmt, pattern) if isinstance(fmt, IntFormat) else _read_float(fmt, pattern)


def _read_integer(fmt: IntFormat, pattern: int) -> Reading:
    value = int(fmt.decode(pattern))
    parts = ["integer"] * fmt.bits
    weights = [f"2^{{{i}}}" for i in reversed(range(fmt.bits))]
    terms = [str(2**i) for i in reversed(range(fmt.bits)) if pattern >> i & 1]
    if fmt.signed:
        parts[0], weights[0] = "sign", f"-{weights[0]}"
        terms[:1] = [f"-{terms[0]}"] if pattern >> fmt.bits - 1 else terms[:1]
    return Reading(parts, weights, {}, " + ".join(terms), value, "integer")


def _read_float(fmt: FloatFormat, pattern: int) -> Reading:
    sign, field, fraction = (int(part) for part in fmt.fields(pattern))
    parts = ["sign"] * fmt.signed + ["exponent"] * fmt.exponent + ["fraction"] * fmt.mantissa
    weights = ["\\pm"] * fmt.signed + [f"2^{{{i}}}" for i in reversed(range(fmt.exponent))]
    weights += [f"2^{{-{i}}}" for i in range(1, fmt.mantissa + 1)]
    kind, value = fmt.kind(pattern), float(fmt.decode(pattern))
    hidden = int(field > 0 or not fmt.subnormals)
    power = max(field, int(fmt.subnormals))
    fields = {"sign": "+-"[sign]} if fmt.signed else {}
    if kind in ("infinity", "NaN"):
        fields["exponent"], formula = f"field {field}", ""
    else:
        fields["exponent"] = f"field {field}: {power} - {fmt.bias} = {power - fmt.bias}"
        formula = f"{'-' * sign}2^{{{power}-{fmt.bias}}}"
        formula += f" \\times ({hidden} + {fraction}/{2**fmt.mantissa})" if fmt.mantissa else ""
    if fmt.mantissa:
        fields["fraction"] = f"{fraction}/{2**fmt.mantissa}"
    return Reading(parts, weights, fields, formula, value, kind)


class BitExplorer:
    """A pattern of a format that can be changed bit by bit, step by step, or by a number.

    Attributes:
        name: of the format, in `FORMATS`.
        pattern: its bits, as an integer.
        message: what the last change has to say.
    """

    def __init__(self, format: str = "fp16", value: float = 1.0):
        self.name, self.pattern, self.message = _known(format), 0, ""
        self.enter(value)

    @property
    def format(self) -> FloatFormat | IntFormat:
        """The format itself."""
        return FORMATS[self.name]

    @property
    def bits(self) -> list[int]:
        """The bits, first to last."""
        return [self.pattern >> i & 1 for i in reversed(range(self.format.bits))]

    @property
    def reading(self) -> Reading:
        """What the pattern says."""
        return read(self.format, self.pattern)

    def toggle(self, place: int) -> None:
        """Turn over one bit; place 0 is the first, which holds the sign.

        Raises:
            ValueError: If there is no such place.
        """
        if place not in range(self.format.bits):
            raise ValueError(f"{self.name} has bits 0..{self.format.bits - 1}, not {place!r}")
        before = self.reading.number
        self.pattern ^= 1 << self.format.bits - 1 - place
        self.message = f"was {before}"

    def step(self, patterns: int) -> None:
        """Go on by some patterns, or back; after the last comes the first."""
        before = self.reading.number
        self.pattern = (self.pattern + patterns) % 2**self.format.bits
        self.message = f"was {before}"

    def enter(self, number: float | str) -> None:
        """Take the pattern of the nearest value; an integer format saturates.

        Raises:
            ValueError: If it is no number, or the format has nothing for it; the pattern stays.
        """
        number = float(number)
        if isinstance(self.format, IntFormat):
            self.pattern = int(self.format.encode(self.format.saturate(number)))
        else:
            self.pattern = int(self.format.encode(number))
        exact = self.reading.value == number or math.isnan(number)
        self.message = _digits(number) + (", exactly" if exact else f" has become {self.reading.number}")

    def select(self, name: str) -> None:
        """Change the format and round the value to it; what it has nothing for becomes pattern 0.

        Raises:
            ValueError: If there is no such format.
        """
        before, self.name, self.pattern = self.reading.value, _known(name), 0
        try:
            self.enter(before)
        except ValueError as error:
            self.message = str(error)


def _known(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"no format {name!r}: there are {', '.join(FORMATS)}")
    return name


def bit_explorer(format: str = "fp16", value: float = 1.0) -> ipywidgets.VBox:
    """Bits to click on: sign, exponent, fraction and value follow. Show it with `show_widget`.

    Args:
        format: A name in `FORMATS`.
        value: What to begin with, rounded to the format.

    Raises:
        ValueError: If there is no such format, or it has nothing for the value.
    """
    return _Panel(BitExplorer(format, value)).box


class _Panel:
    """The buttons and lines around a `BitExplorer`."""

    def __init__(self, explorer: BitExplorer):
        self.explorer = explorer
        wide, narrow = ipywidgets.Layout(width="220px"), ipywidgets.Layout(width="100px")
        self.choice = ipywidgets.Dropdown(options=list(FORMATS), value=explorer.name, description="format", layout=wide)
        self.entry = ipywidgets.Text(placeholder="0.1, 1e5, inf ...", description="number", continuous_update=False,
                                     layout=wide)
        self.back = ipywidgets.Button(description="◀ previous", tooltip="the pattern before this one", layout=narrow)
        self.forth = ipywidgets.Button(description="next ▶", tooltip="the pattern after this one", layout=narrow)
        self.row = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.line, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        self.choice.observe(lambda change: self._do(explorer.select, change["new"]), "value")
        self.entry.observe(lambda change: change["new"].strip() and self._do(explorer.enter, change["new"]), "value")
        self.back.on_click(lambda _: self._do(explorer.step, -1))
        self.forth.on_click(lambda _: self._do(explorer.step, 1))
        top = ipywidgets.HBox([self.choice, self.entry, self.back, self.forth],
                              layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.box = ipywidgets.VBox([top, self.row, self.line, self.message])
        self._lay_out()

    def _do(self, change, argument) -> None:
        before = self.explorer.name
        if change != self.explorer.enter:
            self.entry.value = ""  # otherwise the same number, entered once more, would be no change
        try:
            change(argument)
        except ValueError as error:
            self.explorer.message = str(error)
        if self.explorer.name != before:
            self._lay_out()
        else:
            self._refresh()

    def _lay_out(self) -> None:
        """Make the buttons of a format."""
        reading, cells, self.buttons = self.explorer.reading, [], []
        for place, (part, weight) in enumerate(zip(reading.parts, reading.weights, strict=True)):
            button = ipywidgets.Button(layout=ipywidgets.Layout(width="26px", padding="0", margin="1px"),
                                       tooltip=f"{part}, counts {_plain(weight)}")
            button.on_click(lambda _, place=place: self._do(self.explorer.toggle, place))
            label = ipywidgets.HTML(f"<div style='font-size:10px;text-align:center;line-height:14px'>{_html(weight)}")
            last = place + 1 == len(reading.parts) or reading.parts[place + 1] != part
            cells.append(ipywidgets.VBox([button, label], layout=ipywidgets.Layout(margin=f"0 {8 * last}px 0 0")))
            self.buttons.append(button)
        self.row.children = cells
        self._refresh()

    def _refresh(self) -> None:
        """Write what the pattern says; the buttons stay, and with them the keyboard's focus."""
        explorer, reading = self.explorer, self.explorer.reading
        for button, bit, part in zip(self.buttons, explorer.bits, reading.parts, strict=True):
            button.description = str(bit)
            button.style.button_color = (_COLOR if bit else _PALE)[part]
            button.style.text_color = "white" if bit else "black"
            button.style.font_weight = "bold"
        fields = " &nbsp; ".join(f"<b style='color:{_COLOR[part]}'>{part}</b> {_html(text)}"
                                 for part, text in reading.fields.items())
        formula = f"{_html(reading.formula)} = " if reading.formula else ""
        title = _title(explorer.format)
        digits = -(-explorer.format.bits // 4)
        self.line.value = (
            f"{title} &nbsp; {fields}<br>{formula}<b>{_html(reading.number)}</b> &nbsp; ({reading.kind}; "
            f"pattern 0x{explorer.pattern:0{digits}X} = {explorer.pattern})")
        self.message.value = f"<span style='opacity:0.7'>{html.escape(explorer.message)}</span>"


def _html(tex: str) -> str:
    raised = re.sub(r"\^\{([^}]*)\}", r"<sup>\1</sup>", tex)
    return raised.replace("\\times", "×").replace("\\pm", "±").replace("-", "−")


def _title(fmt: FloatFormat | IntFormat) -> str:
    return f"{fmt.name}, bias {fmt.bias}" if isinstance(fmt, FloatFormat) else fmt.name


def _plain(tex: str) -> str:
    return re.sub(r"\^\{([^}]*)\}", r"^\1", tex).replace("\\pm", "+ or -")


def bit_figure(fmt: FloatFormat | IntFormat | str, pattern: int) -> Figure:
    """Draw a pattern: its bits in boxes coloured by part, what each counts beneath, and what it comes to.

    Args:
        fmt: The format, or its name in `FORMATS`.
        pattern: The bits, as an integer.

    Raises:
        ValueError: If there is no such format, or the pattern has more bits than it.
    """
    fmt = FORMATS[_known(fmt)] if isinstance(fmt, str) else fmt
    reading = read(fmt, pattern)
    fig, ax = plt.subplots(figsize=(7, 1.9 if reading.fields else 1.5))
    upright = fmt.bits > _WRAP
    gap, at, left, spans = 0.35 if upright else 0.2, [], 0.0, {}
    for place, part in enumerate(reading.parts):
        left += gap * (place > 0 and part != reading.parts[place - 1])
        at.append(left)
        spans.setdefault(part, [left, left])[1] = left + 1
        left += 1
    for place, (x, part, weight) in enumerate(zip(at, reading.parts, reading.weights, strict=True)):
        bit = pattern >> fmt.bits - 1 - place & 1
        ax.add_patch(Rectangle((x + 0.04, 0), 0.92, 1, fc=(_COLOR if bit else _PALE)[part], ec=_COLOR[part]))
        ax.text(x + 0.5, 0.5, str(bit), ha="center", va="center", weight="bold", family="monospace",
                size=11 if upright else 14, color="white" if bit else "black")
        ax.text(x + 0.5, -0.15, f"${weight}$", ha="center", va="top", size=8 if upright else 9, rotation=90 * upright)
    for part, text in reading.fields.items():
        start, end = spans[part]
        sign = part == "sign"
        ax.text(start if sign else (start + end) / 2, 1.2, f"{part}\n{text}".replace("-", "−"),
                ha="left" if sign else "center", va="bottom", size=10, color=_COLOR[part])
    formula = f"${reading.formula}$ = " if reading.formula else ""
    kind = "" if reading.kind == "integer" else f"   ({reading.kind})"
    ax.text(left / 2, -1.75 if upright else -1.15, f"{formula}{reading.number.replace('-', '−')}{kind}",
            ha="center", va="center", size=12)
    width = max(left, 10)
    bottom, top = -2.1 if upright else -1.6, 2.4 if reading.fields else 1.2
    ax.set(xlim=((left - width) / 2, (left + width) / 2), ylim=(bottom, top))
    ax.set_title(_title(fmt), loc="left", size=11, weight="bold")
    ax.axis("off")
    return fig
