"""The HTML of the playground: tables, and characters that can be seen and are shaded."""

from collections.abc import Sequence
from html import escape

# Black on each of these, so that it can be read in a light and in a dark theme; and no colour is the only sign.
MARK = "background:#E69F00;color:black"
_LEVELS = (
    (6, "background:#E0762A;color:black;font-weight:bold;text-decoration:underline double"),
    (3, "background:#F0B860;color:black;text-decoration:underline"),
    (1, "background:#FCE8CC;color:black"),
)
LEGEND = "shaded from 1 bit on, underlined from 3, bold and underlined twice from 6"
ROW = '\n<tr style="vertical-align:top"><th scope="row" style="white-space:nowrap;text-align:left">'
TEXT = "font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;text-align:left;line-height:1.5"


def table(header: Sequence[str], body: str) -> str:
    """A table with these column names, and a body of rows that each begin with `ROW`."""
    head = "".join(f'<th scope="col" style="text-align:left">{escape(name)}</th>' for name in header)
    return f'<table style="border-spacing:10px 4px">\n<tr>{head}</tr>{body}\n</table>'


def cells_html(cells: Sequence[str], left: bool = False) -> str:
    """Cells of a row, each HTML already."""
    style = ' style="text-align:left"' if left else ""
    return "".join(f"<td{style}>{cell}</td>" for cell in cells)


def quoted(character: str) -> str:
    """A character in quotation marks."""
    return f"‘{visible(character)}’"


def visible(character: str) -> str:
    """A character as HTML, in which a blank and a line break can be seen."""
    return {" ": "␣", "\n": "↵"}.get(character, escape(character))


def shaded(character: str, bits: float) -> str:
    """A character on a ground that says how many bits it costs."""
    style = next((f' style="{look}"' for least, look in _LEVELS if bits >= least), "")
    shown = "↵\n" if character == "\n" else escape(character)
    return f'<span title="{bits:.1f} bits"{style}>{shown}</span>'
