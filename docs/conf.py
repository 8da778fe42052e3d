"""The course as web pages that need no network: sphinx-build -M html . docs/_build -c docs -W --keep-going.

The source folder is the repository itself, so nothing is copied: the front page is README.md; then come the committed
student notebooks with the outputs of the solved ones, the teaching pages, and the package's docstrings.
"""

import functools
import html
import json
import re
import shutil
from binascii import a2b_base64
from hashlib import sha256
from inspect import isclass, isroutine
from pathlib import Path
from statistics import mean

import nbformat
from docutils import nodes
from math_core import LatexToMathML
from sphinx.application import Sphinx

from nanoq import __version__
from nanoq.files import read_results
from nanoq.quant.limits import quantizer_limits
from nanoq.teach.course import COURSE, PARTS
from nanoq.teach.widgets import FORMATS

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/nanoq-course/nanoq"
KIT = "notebooks/teaching/README"
LIMIT, MIXED_RATES = "tinystories/limit", "tinystories/mixed_rates"
LINK = re.compile(r"(?<=\]\()[^)\s#:]+")
# What a cell of a notebook shows with a kernel, and the figure that is played with without one.
PLAYED = {"figures.explorer(": "bits", "figures.threshold_slider(": "threshold", "figures.steps_slider(": "rate"}
FIGURE = re.compile(r"^\{\{figure (\w+)\}\}$", re.MULTILINE)
ROWS = re.compile(r"^\{\{rows (.*)\}\}$", re.MULTILINE)
RATES = re.compile(r"^\{\{rates (.*)\}\}$", re.MULTILINE)

project = "nanoq"
author = "the nanoq authors"
version = release = __version__
html_title = "nanoq"
language = "en-GB"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "data/README.md", "data/results/README.md",
                    "notebooks/*.ipynb", "notebooks/glossary.md", "notebooks/teaching/**.md",
                    "docs/api/*.md", "docs/interactive.md", "docs/methods.md", "docs/methods/*.md"]
exclude_patterns = [".*", "**/.*", "docs/_build", "notebooks/solutions", "notebooks/source"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = ["interactive.js"]
html_copy_source = False
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "",
                      "top_of_page_buttons": ["view"]}
html_math_renderer = "mathml"

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # scripts of a CDN; the pages show a widget's text instead
nb_render_markdown_format = "myst"  # an output's links to notebooks become links to pages
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

suppress_warnings = ["myst.header"]  # notebooks may step from # to ###

default_role = "code"  # docstrings have single backticks
autodoc_default_options = {"members": True, "imported-members": True}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
autosummary_generate = False


# ---- the order of the course ----


def contents() -> str:
    """The sidebar: the notebooks that are there by the parts of the course, then what is for reference."""
    parts = {part: [ROOT / f"notebooks/{notebook.slug}.ipynb" for notebook in COURSE if notebook.part == part]
             for part in PARTS}
    parts["teaching"] = [ROOT / f"{KIT}.md"]
    parts["methods"] = [ROOT / "docs/interactive.md", ROOT / "docs/methods.md", *sorted(ROOT.glob("docs/methods/*.md"))]
    parts["the package"] = sorted(ROOT.glob("docs/api/*.md"))
    behind = ("notebooks/glossary.md", "CONTRIBUTING.md", "data/README.md", "data/results/README.md")
    parts["behind it"] = [ROOT / page for page in behind]
    return "\n\n".join(_toctree(pages, part.capitalize()) for part, pages in parts.items())


def lectures() -> str:
    """The pages of the lecturer's kit, below its first one."""
    return _toctree([page for page in sorted(ROOT.glob("notebooks/teaching/*.md")) if page.stem != "README"])


def _toctree(pages: list[Path], caption: str = "") -> str:
    lines = "\n".join(f"/{page.relative_to(ROOT).with_suffix('').as_posix()}" for page in pages if page.exists())
    head = f":hidden:\n:caption: {caption}" if caption else ":hidden:"
    return f"```{{toctree}}\n{head}\n\n{lines}\n```"


def adapt(app: Sphinx, docname: str, source: list[str]) -> None:
    """Build the sidebar; lead links to what has no page, folders and solutions, to the repository."""
    if docname in (root_doc, KIT):
        source[0] += f"\n\n{contents() if docname == root_doc else lectures()}\n"
    page = Path(app.env.doc2path(docname))

    def linked(match: re.Match) -> str:
        path = (page.parent / match[0]).resolve()
        if path.is_dir() or path.parent == ROOT / "notebooks/solutions":
            return f"{REPOSITORY}/blob/main/{path.relative_to(ROOT).as_posix()}"
        return match[0]

    if page.suffix == ".md":
        source[0] = FIGURE.sub(lambda match: figure_of(match[1]), source[0])
        source[0] = ROWS.sub(lambda match: rows_of(match[1].split("; ")), source[0])
        source[0] = RATES.sub(lambda match: rates_of(match[1]), source[0])
        source[0] = LINK.sub(linked, source[0])
    elif page.suffix == ".ipynb":
        source[0] = nbformat.writes(with_outputs(page))


@functools.cache
def figure_of(kind: str) -> str:
    """A place that `static/interactive.js` fills, with the numbers that it needs."""
    values: dict = {}
    if kind == "bits":
        parts = {"bits": 0, "exponent": 0, "mantissa": 0, "bias": 0, "specials": "none", "signed": True}
        values = {name: {part: getattr(fmt, part, other) for part, other in parts.items()}
                  for name, fmt in FORMATS.items()}
    elif kind == "rate":
        values = {bits: {quantizer.name: quantizer.distortion for quantizer in quantizer_limits(bits)}
                  for bits in (1, 2, 3, 4)}
    data = html.escape(json.dumps(values))
    return f'<div data-figure="{kind}" data-format="fp16" data-number="3.14" data-values="{data}"></div>'


def rows_of(methods: list[str]) -> str:
    """The rows of methods on the limit's leaderboard as a table.

    Raises:
        ValueError: if there are no rows of one of them.
    """
    rows = read_results(LIMIT)
    lines = ["| method | bits | bits/param | added nats | 95 % interval | bits above the bound |",
             "|:--|--:|--:|--:|--:|--:|"]
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        if not mine:
            raise ValueError(f"{LIMIT} has no rows of {method!r}")
        for row in mine:
            numbers = {name: float(row[name]) for name in ("average_bits", "delta_nats", "ci_low", "ci_high")}
            above = f"{float(row['bits_above_bound']):.2f}" if row["bits_above_bound"] else "–"
            lines.append(f"| {method} | {row['bits']} | {numbers['average_bits']:.2f} | {numbers['delta_nats']:+.4f} | "
                         f"{numbers['ci_low']:+.4f} … {numbers['ci_high']:+.4f} | {above} |")
    return "\n".join(lines)


def rates_of(method: str) -> str:
    """What rates by a score are worth, as a table: means over the draws of calibration text, files of equal bytes.

    Raises:
        ValueError: if the file has no rows of it.
    """
    lines = ["| rates by | bits/param | added nats | lowest … highest |", "|:--|--:|--:|--:|"]
    for way in ("uniform", method, "measured"):
        mine = [row for row in read_results(MIXED_RATES) if row["method"] == way]
        if not mine:
            raise ValueError(f"{MIXED_RATES} has no rows of {way!r}")
        bits, added = ([float(row[name]) for row in mine] for name in ("average_bits", "delta_nats"))
        lines.append(f"| {way} | {mean(bits):.2f} | {mean(added):+.4f} | {min(added):+.4f} … {max(added):+.4f} |")
    return "\n".join(lines)


def with_outputs(page: Path) -> nbformat.NotebookNode:
    """A student edition with the outputs of the solved one, but for the verdicts of checks.

    What a reader is to predict is folded.
    """
    notebook = nbformat.read(page, 4)
    solved = {cell.id: cell for cell in nbformat.read(page.parent / "solutions" / page.name, 4).cells}
    predict = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            predict = "**Before you run it" in cell.source
        elif not cell.source.startswith("check("):
            cell.outputs = solved[cell.id].outputs
            cell.metadata.tags = cell.metadata.get("tags", []) + ["hide-output"] * predict
    for cell in notebook.cells:
        for call, kind in PLAYED.items() if cell.cell_type == "code" else ():
            if call in cell.source:
                cell.outputs = [*cell.outputs, nbformat.v4.new_output("display_data", {"text/html": figure_of(kind)})]
    return notebook


def copy_front_page(app: Sphinx, exception: Exception | None) -> None:
    """Let a web server and a reader find the front page under the name that they expect."""
    if exception is None and app.builder.name == "html":
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


# ---- pictures ----


def describe_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Give figures the alt text that `show` wrote, which myst-nb drops; put words in place of remote badges."""
    path = Path(doctree["source"])
    words = figure_texts(path.parent / "solutions" / path.name) if path.suffix == ".ipynb" else {}
    for image in list(doctree.findall(nodes.image)):
        if "://" in image["uri"]:
            image.replace_self(nodes.Text(image["alt"]))
        elif alt := words.get(Path(image["uri"]).stem):
            image["alt"] = alt


def figure_texts(path: Path) -> dict[str, str]:
    """The alt texts of a notebook's figures, by the hash of the picture: myst-nb names its files so."""
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
    return {sha256(a2b_base64(output.data["image/png"])).hexdigest(): output.metadata["image/png"]["alt"]
            for output in outputs if "image/png" in output.get("data", {})}


# ---- formulas: MathML, which browsers show without a script ----

LATEX = LatexToMathML(annotation=True)


def visit_math(translator: nodes.NodeVisitor, node: nodes.math) -> None:
    """Write a formula in a line."""
    translator.body.append(LATEX.convert_with_local_state(node.astext(), displaystyle=False))
    raise nodes.SkipNode


def visit_math_block(translator: nodes.NodeVisitor, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, scrolled sideways where the page is narrower."""
    formula = LATEX.convert_with_local_state(node.astext(), displaystyle=True)
    translator.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


# ---- the package ----


def list_names(app: Sphinx, what: str, name: str, module: object, options: object, lines: list[str]) -> None:
    """Begin the page of a folder with a table of its classes and functions, and what is in its tables."""
    if what != "module":
        return
    public = {name: getattr(module, name) for name in module.__all__}
    documented = [name for name, value in public.items() if isclass(value) or isroutine(value)]
    lines += ["", ".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in documented)]
    for name in sorted(public.keys() - documented):  # their docstrings would be those of dict and tuple
        value = public[name]
        words = ", ".join(f"`{key}`" for key in value) if isinstance(value, dict | tuple) else f"`{value}`"
        lines += ["", f".. py:data:: {name}", "", f"   {words}"]


def escape_bars(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Let |w| be an absolute value; reStructuredText would look for something to put in its place."""
    lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda match: match[1] or r"\|", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("source-read", adapt)
    app.connect("doctree-read", describe_pictures)
    app.connect("autodoc-process-docstring", list_names)
    app.connect("autodoc-process-docstring", escape_bars, priority=100)  # before napoleon
    app.connect("build-finished", copy_front_page)
