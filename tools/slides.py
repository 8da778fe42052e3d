"""Slides of a notebook for its lecturer: reveal.js, with all that it needs beside it, so that no network is wanted.

    python tools/slides.py --out slides          # all notebooks; open slides/index.html
    python tools/slides.py --out slides 04 07

They are made of the solved edition and of the page in the lecturer's kit. They hold the core alone, in its order: what
is to be predicted, then on the next slide what came out, and the answer behind a key press; each picture; each
exercise; lists, tables and formulas of the text. The rest of the text, the minutes of the plan and the solutions are
speaker notes: press S. What is too long for one slide goes on on the next.
"""

import argparse
import html
import importlib.resources
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from math_core import LatexToMathML
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import learner  # noqa: E402

from nanoq.files import write_text  # noqa: E402
from nanoq.teach.course import COURSE  # noqa: E402

WORDS, LINES = 75, 14  # on a slide, and of printed output
LEFT_OUT = ("Introduction", "Self-test", learner.READING)
PREDICT = re.compile(re.escape(learner.PREDICT) + r"[^*]*\*\*")
SHOWN = re.compile(r"^(?:[-*|]|\d+\. |\$\$|```|<t)")  # lists, tables, formulas, code
STUB = re.compile(r'(?:class .*?\n)?def [^\n]*:\n(?:    """.*?"""\n)?', re.S)
LATEX = LatexToMathML()
NOTEBOOKS = {notebook.slug[:2]: notebook for notebook in COURSE}

PAGE = """<!DOCTYPE html>
<html lang="en-GB"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="reveal/dist/reveal.css"><link rel="stylesheet" href="reveal/dist/theme/white.css">
<style>
.reveal {{ font-size: 26px; }} .reveal h1 {{ font-size: 2em; }} .reveal h2 {{ font-size: 1.5em; }}
.reveal h1, .reveal h2, .reveal h3 {{ text-transform: none; }}
.reveal .slides {{ text-align: left; }} .reveal ul, .reveal ol {{ display: block; }}
.reveal img {{ display: block; margin: 0.3em auto; max-height: 18em; max-width: 100%; }}
.reveal pre {{ box-shadow: none; white-space: pre-wrap; font-size: 0.62em; width: 100%; }}
.reveal table {{ font-size: 0.8em; }}
.reveal .predict {{ border-left: 6px solid #0072B2; padding-left: 0.7em; }}
.reveal .answer {{ border-left: 6px solid #009E73; padding-left: 0.7em; }}
</style></head>
<body><div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/dist/reveal.js"></script><script src="reveal/plugin/notes/notes.js"></script>
<script>
function fit({{currentSlide: slide}}) {{ // what is too tall gets smaller letters
  for (let size = 95; slide.scrollHeight > 700 && size >= 50; size -= 5) slide.style.fontSize = size + '%';
}}
Reveal.initialize({{hash: true, slideNumber: true, width: 1000, height: 700, plugins: [RevealNotes]}});
Reveal.on('ready', fit);
Reveal.on('slidechanged', fit);
</script>
</body></html>
"""


@dataclass
class Slide:
    """HTML of a slide and of its notes."""

    body: str
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        notes = f'<aside class="notes">{"".join(self.notes)}</aside>' if self.notes else ""
        return f"<section>\n{self.body}\n{notes}</section>"


# ---- Markdown ----


def _formula(text: str, options: dict) -> str:
    return LATEX.convert_with_local_state(text, displaystyle=options["display_mode"])


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=_formula)


def to_html(text: str) -> str:
    """Turn a text into HTML; comments go, and so do links to places that a slide does not have beside it."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    return MARKDOWN.render(re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text))


def blocks(text: str) -> list[str]:
    """Split a text at its empty lines, but not within a formula, a fold or a fence."""
    found: list[str] = []
    whole = True
    for part in re.split(r"\n\s*\n", text.strip()):
        found = [*found, part] if whole else [*found[:-1], f"{found[-1]}\n\n{part}"]
        last = found[-1]
        whole = (last.count("$$") % 2 == 0 and last.count("```") % 2 == 0
                 and last.count("<details>") == last.count("</details>"))
    return found


# ---- from cells to slides ----


def outputs_of(cell: NotebookNode) -> list[str]:
    """What a cell has shown, for a slide each: a picture with its words; with the last, a few printed lines."""
    parts: list[str] = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
            parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">')
        elif output.output_type == "stream" and 0 < len(output.text.splitlines()) <= LINES:
            printed = f"<pre>{html.escape(output.text.rstrip())}</pre>"
            parts = [*parts[:-1], parts[-1] + printed] if parts else [printed]
    return parts


def spread(title: str, shown: Sequence[str], notes: Sequence[str]) -> Iterator[Slide]:
    """Put blocks of text on as many slides as they need; the notes are the first one's."""
    pages: list[list[str]] = [[]]
    for block in shown:
        if pages[-1] and learner.words(" ".join([*pages[-1], block])) > WORDS:
            pages.append([])
        pages[-1].append(block)
    for place, page in enumerate(pages):
        heading = f"<h2>{html.escape(title)}</h2>\n"
        yield Slide(heading + "\n".join(map(to_html, page)), list(notes) if place == 0 else [])


class _Deck:
    """The slides of one section, in the making."""

    def __init__(self, title: str, notes: Sequence[str]):
        self.title, self.notes = title, list(notes)
        self.slides: list[Slide] = []
        self.shown: list[str] = []
        self.predicting = False
        self.waiting: Slide | None = None  # what came out, for the answer to a prediction
        self.asked: Slide | None = None  # an exercise, for its function and its solution

    def flush(self) -> None:
        """Begin a new slide: what has gathered goes on one before it."""
        if self.shown or not self.slides:
            self.slides += spread(self.title, self.shown, self.notes)
            self.shown, self.notes = [], []

    def add(self, body: str) -> Slide:
        """Add a slide that stands alone, with the notes that have gathered."""
        self.flush()
        self.slides.append(Slide(body, self.notes))
        self.notes = []
        return self.slides[-1]

    def text(self, source: str) -> None:
        """Take in a cell of text, block by block."""
        before = ""
        for block in blocks(source):
            if answer := learner.FOLD.search(block):
                self.answer(answer[1])
            elif learner.PREDICT in block:
                self.predicting = True
                self.add(f'<h3>Predict</h3><div class="predict">{to_html(PREDICT.sub("", block))}</div>')
            elif learner.EXERCISE.search(block):
                self.asked = self.add(f"<h3>Exercise</h3>{to_html(learner.EXERCISE.sub('', block).lstrip(' ·.'))}")
            elif SHOWN.match(block) or not (self.shown or self.slides):
                leads = block.startswith("$$") and 0 < learner.words(before) <= WORDS and before not in self.shown
                self.shown += [before, block] if leads else [block]  # a formula, and what introduces it
            else:
                self.notes.append(to_html(block))
            before = block

    def answer(self, text: str) -> None:
        """Put an answer below what came out, to be shown on a key press."""
        words = f'<div class="answer fragment">{to_html(text.strip())}</div>'
        if self.waiting:
            self.waiting.body += words
        else:
            self.add(words)
        self.predicting, self.waiting = False, None

    def code(self, cell: NotebookNode) -> None:
        """Take in a cell of code: the solution of an exercise, or what it has shown."""
        if learner.CHECK.search(cell.source):
            return
        if self.asked:
            head = STUB.match(cell.source)
            self.asked.body += f"<pre>{html.escape(head[0])}</pre>" if head else ""
            self.asked.notes.append(f"<pre>{html.escape(cell.source)}</pre>")
            self.asked = None
        for shown in outputs_of(cell):
            if self.predicting or "<img" in shown:
                self.waiting = self.add(shown)
            else:
                self.notes.append(shown)


def section_slides(section: learner.Section, plan: dict[str, str]) -> list[Slide]:
    """The slides of a section, with what the plan says about it in the notes of the first."""
    number = re.match(r"\d+", section.title)
    deck = _Deck(section.title, [to_html(plan[number[0]])] if number and number[0] in plan else [])
    for place, cell in enumerate(section.cells):
        if cell.cell_type == "markdown":
            deck.text(cell.source.partition("\n")[2] if place == 0 else cell.source)
        elif learner.shown(cell):
            deck.code(cell)
    deck.flush()
    deck.slides[-1].notes += deck.notes
    return deck.slides


def read_plan(page: str) -> dict[str, str]:
    """What the kit's plan says of each section: {"1": "**20 minutes.** …"}."""
    rows = re.findall(r"^\| *(\d+) *\| *([^|]*?) *\| *(.*?) *\|$", page, re.MULTILINE)
    return {number: f"**{minutes} minutes.** {what}" for minutes, where, what in rows
            for number in re.findall(r"§(\d+)", where)}


def deck(number: str) -> str:
    """The page with all slides of a notebook."""
    course = NOTEBOOKS[number]
    solved = nbformat.read(ROOT / "notebooks/solutions" / f"{course.slug}.ipynb", 4)
    page = (ROOT / "notebooks/teaching" / f"{course.slug}.md").read_text(encoding="utf-8")
    aim = re.search(r"\*\*Aim\.\*\*.*?(?=\n\n)", page, re.S)
    before = page.partition("## Before the lab")[2].partition("\n## ")[0]
    front = Slide(f"<h1>{html.escape(course.label)}</h1>{to_html(course.question)}{to_html(aim[0]) if aim else ''}",
                  [to_html(before)])
    plan, stacks = read_plan(page), [[front]]
    for section in learner.sections(solved.cells):
        if not section.further and section.title not in LEFT_OUT:
            stacks.append(section_slides(section, plan))
    slides = "\n".join(f"<section>\n{''.join(map(str, stack))}\n</section>" for stack in stacks)
    return PAGE.format(title=html.escape(course.label), slides=slides)


def write(out: Path, numbers: Sequence[str]) -> None:
    """Write the decks, a list of them, and reveal.js into a folder."""
    reveal = importlib.resources.files("sphinx_revealjs") / "_static" / "revealjs"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(Path(str(reveal / part)), out / "reveal" / part, dirs_exist_ok=True)
    for number in numbers:
        write_text(out / f"{NOTEBOOKS[number].slug}.html", deck(number))
    links = "\n".join(f'<li><a href="{NOTEBOOKS[number].slug}.html">{html.escape(NOTEBOOKS[number].label)}</a></li>'
                      for number in numbers)
    write_text(out / "index.html", '<!DOCTYPE html><html lang="en-GB"><head><meta charset="utf-8"><title>Slides</title>'
               f"</head><body><h1>Slides</h1><ul>{links}</ul></body></html>\n")


def main() -> None:
    """Write the slides of the notebooks that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    arguments = parser.parse_args()
    if unknown := set(arguments.numbers) - set(NOTEBOOKS):
        parser.error(f"there is no notebook {unknown.pop()}; there are {', '.join(NOTEBOOKS)}")
    write(arguments.out, arguments.numbers or list(NOTEBOOKS))


if __name__ == "__main__":
    main()
