"""The claims ledger: every number in prose, and what would fail if it were wrong.

A *claim* is a number in a markdown cell or in one of `PAGES`. It is *guarded* without a word if the same section
(from one `## ` heading to the next), or what comes before the first, has it in an `assert`, in an output that nbval
compares, or as a setting in its code (a number that is "about" or "more than" is not a setting). Otherwise a comment
in the same paragraph, list item or table says where to look; a comment that stands alone belongs to what follows it.
Two references in one comment are parted by a semicolon.

    <!-- claim: MATH 20 * log10(255 / 127) -->                  worked out here; has to give the number
    <!-- claim: FILE data/results/gptq.csv -->                   the number is in that file
    <!-- claim: FILE data/results/gptq.csv: 1.93 / 0.61 -->      worked out from numbers that are in that file
    <!-- claim: TEST tests/test_results.py::test_name -->        that test has the number, or reads the page
    <!-- claim: CELL assert share > 0.8 -->                      the one code cell with that id or those words
    <!-- claim: SOURCE arXiv 2210.17323v2 table 5 -->            a published figure

All of these round to the digits that the prose shows. If the prose says "about", "more than" or the like, a CELL may
also bound the number: its assert compares with a value at most a factor of two away. Not claims: what `SKIPPED` and
`NAMES` match (code, formulas, headings, link targets; references, years, widths in bits, names of models), numbers
in words, and a number with a letter before or after it, such as int8 or 13B.
"""

import ast
import math
import operator
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nbformat import NotebookNode

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
REFERENCE = re.compile(r"<!--\s*claim:(.*?)-->", re.DOTALL)
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
ITEM = re.compile(r" *(?:[-*+]|\d+[.)]|#+) ")
NUMBER = re.compile(r"(?<![\w.,])(?<![A-Za-z]-)\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+|/\d+)?(?!\w|[./]\w)")
SKIPPED = [re.compile(pattern, re.MULTILINE | re.DOTALL) for pattern in (
    r"`[^`]*`",  # code
    r"\$\$.*?\$\$|\$[^$]*\$|[\d.,]*<sup>[^<]*</sup>",  # formulas
    r"^ *#+ [^\n]*",  # headings
    r"\]\([^)]*\)|<[^<>]*>",  # link targets, tags
    r"\{\{.*?\}\}",  # placeholders of the builder
    r"^ *\d+[.)] ",  # numbers of a list
    r"^ *- [a-z]\) [^\n]*(?:\n +[^\n]*)*",  # answers to choose from, wrong ones among them
    r"(?:[^.:?!|]|[.:](?=\S))*\?",  # questions
)]
_MORE = r"(?:(?:,|,?\sand|,?\sor|\sto|–|-)\s?\(?\d\d?\b(?!\.\d)\)?)*"
_ALONE = r"(?<![\w.,])(?<![A-Za-z]-)"
_WIDTHS = r"\d\d?\b-?(?:(?:,|,?\sand|,?\sor|\sto|\sagainst|–|-)\s?\d\d?\b-?)*"
_THING = "(?:notebook|section|eq|equation|table|figure|algorithm|exercise|version|volume|seed|point|block|layer|place)"
NAMES = [re.compile(pattern) for pattern in (
    rf"(?i)\b(?:{_THING}\.?\s\(?\d+(?:\.\d+)*\)?|{_THING}s\s\(?\d+(?:\.\d+)*\)?{_MORE})",
    r"\b(?:Python|IEEE|CC BY) \d+(?:\.\d+)*",
    _ALONE + r"0\d\b" + _MORE + r"|(?:\*\*|\[)\d\d(?= ·|\*\*)",  # notebooks: 05 and 10 to 13
    _ALONE + r"(?:19\d|20[0-3])\d\b(?!\.\d)|\b\d{4}\.\d{4,5}\b",  # years, arXiv
    _ALONE + _WIDTHS + r"(?:\s+|-)?bits?\b(?:\s(?:down to|to|from|against)\s" + _WIDTHS + r"(?![\w.,]\d|\s?%))?",
    r"\bwidths?\s" + _WIDTHS + r"(?!\.\d)|\{\d\d?(?:, \d\d?)*\}",  # widths, as 8, 4- and 2-bit or {2, 3, 4, 8}
    _ALONE + r"\d+(?:\.\d+)?[\s-](?:M|million|B|billion)[\s-]?parameters?\b",  # models by size
    _ALONE + r"\d+(?::\d+|-means)\b",  # 2:4, 3-means
    _ALONE + r"95 %(?=\s(?:bootstrap\s)?(?:interval|confidence))",
    _ALONE + r"[01](?![\w.,/]\w|\s?(?:%|per cent))\b",  # nothing and one
)]
UNITS = {"%": 1e-2, "per cent": 1e-2, "kB": 1e3, "KiB": 2**10, "M": 1e6, "MB": 1e6, "MiB": 2**20, "million": 1e6,
         "GB": 1e9, "GiB": 2**30, "billion": 1e9}
UNIT = re.compile(rf"[\s-]?({'|'.join(sorted(UNITS, reverse=True))})(?!\w)")
HEDGE = re.compile(r"(?i)\b(about|around|roughly|nearly|almost|more than|less than|fewer than|at least|at most|up to|"
                   r"over|under|above|below|beyond|within)\b(?!,)[^.;]{0,40}$|[<>≈~]\s?[+−-]?$")
FUNCTIONS = {name: getattr(math, name) for name in ("sqrt", "log", "log2", "log10", "exp", "ceil", "floor", "comb")} | {
    "abs": abs, "min": min, "max": max, "round": round, "mean": lambda *values: statistics.mean(values),
    "stdev": lambda *values: statistics.stdev(values)}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
             ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: math.pow}
PAGES = ("README.md", "data/results/README.md")
HOW = "assert it in this section or say where it is: <!-- claim: MATH|FILE|TEST|CELL|SOURCE … --> (tools/claims.py)"


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a number with its guard, or what is wrong with a number or a reference."""

    where: str
    number: str
    sentence: str
    guard: str = ""
    fault: str = ""

    def __str__(self) -> str:
        return "\t".join((self.where, self.number, self.guard or f"FAULT: {self.fault}", self.sentence))


@dataclass(frozen=True)
class Number:
    """A number as prose shows it, 1/3 as well; `hedged` if words before it say that it is a bound or about right."""

    text: str
    unit: str = ""
    hedged: bool = False

    @property
    def value(self) -> float:
        """The number itself, without its unit."""
        whole, _, part = self.text.replace(",", "").partition("/")
        return float(whole) / float(part or 1)

    def equals(self, other: float) -> bool:
        """Say whether it is this value, in its unit or without."""
        return any(math.isclose(self.value * scale, abs(other), rel_tol=1e-9) for scale in self._scales())

    def rounds(self, other: float) -> bool:
        """Say whether the value, rounded to the digits shown, is this number."""
        if not re.fullmatch(r"[\d,]+(\.\d+)?", self.text):
            return any(math.isclose(self.value * scale, abs(other), rel_tol=0.05) for scale in self._scales())
        half = 0.5 * 10 ** -len(self.text.partition(".")[2]) * (1 + 1e-6)
        return any(abs(self.value - abs(other) / scale) <= half for scale in self._scales())

    def near(self, other: float) -> bool:
        """Say whether the value is at most a factor of two away."""
        return any(self.value * scale <= 2 * abs(other) <= 4 * self.value * scale for scale in self._scales())

    def _scales(self) -> tuple[float, ...]:
        if not self.unit:
            return (1,)
        # Code has 90 or 0.9 for 90 %, but not 1 for 1 %, nor 2 for 2 million.
        alone = self.unit not in ("million", "billion") and self.value != 1
        return (1, UNITS[self.unit]) if alone else (UNITS[self.unit],)


@dataclass(frozen=True)
class Evidence:
    """A number in a code cell: in an assert, in an output that nbval compares, a setting, or else an aside."""

    value: float
    how: str
    cell: str
    line: str

    def __str__(self) -> str:
        return f"CELL {self.cell} {self.how}: {self.line.strip()}"


@dataclass
class Block:
    """A paragraph, a list item or a table, with the references that belong to it."""

    where: str
    section: int
    text: str
    references: list[str]

    def numbers(self) -> Iterator[tuple[Number, str]]:
        """Yield each claim and its sentence."""
        prose = blanked(self.text)
        for match in NUMBER.finditer(prose):
            unit = UNIT.match(prose, match.end())
            hedged = bool(HEDGE.search(prose[: match.start()]))
            yield Number(match[0], unit[1] if unit else "", hedged), self._sentence(match)

    def _sentence(self, match: re.Match) -> str:
        starts = [end.end() for end in re.finditer(r"[.:?!]\s+|\n(?=\|)", self.text[: match.start()])]
        end = re.compile(r"[.:?!](\s|$)|\n\||$").search(self.text, match.end())
        return " ".join(self.text[starts[-1] if starts else 0 : end.start()].split())


@dataclass(frozen=True)
class Document:
    """What a reference may point at: the files below `root`, and the code cells of a notebook (none for a page)."""

    root: Path
    cells: Sequence[NotebookNode] = ()


# ---- prose → claims ----


def blanked(text: str) -> str:
    """Return the text with all that is no claim replaced by spaces, so that places stay what they were."""
    for pattern in SKIPPED:
        text = pattern.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
    for pattern in NAMES:
        text = pattern.sub(lambda match: "_" * len(match[0]), text)
    return text


def blocks_of(text: str, where: str, section: int = 0) -> Iterator[Block]:
    """Yield the blocks of a markdown text; each `## ` heading begins a section."""
    comments: list[str] = []

    def hide(match: re.Match) -> str:
        comments.append(match[0])
        return f"\0{len(comments) - 1}\0"

    waiting: list[str] = []
    for part in _parts(COMMENT.sub(hide, FENCE.sub("", text))):
        section += part.startswith("## ")
        inside = [REFERENCE.fullmatch(comments[int(place)]) for place in re.findall("\0(\\d+)\0", part)]
        waiting += [" ".join(words.split()) for found in inside if found for words in found[1].split(";")]
        if prose := re.sub("\0\\d+\0", "", part).strip():
            yield Block(where, section, prose, waiting)
            waiting = []
    if waiting:
        yield Block(where, section, "", waiting)


def _parts(text: str) -> Iterator[str]:
    part: list[str] = []
    for line in [*text.splitlines(), ""]:
        if part and (not line.strip() or ITEM.match(line) or part[0].startswith("#")):
            yield "\n".join(part)
            part = []
        if line.strip():
            part.append(line)


# ---- code → evidence ----


def evaluate(node: ast.AST) -> float:
    """Work out arithmetic on numbers, with the functions of `FUNCTIONS`.

    Raises:
        ValueError: If it is anything else.
    """
    match node:
        case ast.Expression(body):
            return evaluate(body)
        case ast.Constant(int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(ast.USub(), operand):
            return -evaluate(operand)
        case ast.BinOp(left, kind, right) if type(kind) in OPERATORS:
            return _calculate(OPERATORS[type(kind)], [evaluate(left), evaluate(right)])
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name), arguments, []) if name in FUNCTIONS:
            return _calculate(FUNCTIONS[name], [evaluate(argument) for argument in arguments])
    raise ValueError(f"{ast.unparse(node)!r} is not arithmetic on numbers")


def _calculate(function: Callable, values: Sequence[float]) -> float:
    try:
        return function(*values)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(str(error)) from None


def numbers_in(text: str, thousands: str = ",_") -> Iterator[float]:
    """Yield the numbers of a text without their signs; a comma between the fields of a table parts them."""
    for found in re.findall(rf"(?<![\w.])\d+(?:[{thousands}]\d{{3}}(?!\d))*(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\.?\w)", text):
        yield float(re.sub(r"[,_]", "", found))


def evidence_of(cell: NotebookNode) -> Iterator[Evidence]:
    """Yield the numbers of a code cell: those of its code, and of its outputs if nbval compares them."""
    lines = cell.source.splitlines()
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:  # a magic, such as %pip
        tree = ast.Module([], [])
    for value, how, line in _constants(tree, "setting"):
        yield Evidence(value, how, cell.id, lines[line - 1])
    if "nbval-ignore-output" in cell.metadata.get("tags", []):
        return
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        # The words for a picture are typed, not computed.
        described = "Figure in words" in data.get("text/html", "") or any(kind.startswith("image/") for kind in data)
        for line in (output.get("text", "") + data.get("text/plain", "") * (not described)).splitlines():
            yield from (Evidence(value, "output", cell.id, line) for value in numbers_in(line))


def _constants(node: ast.AST, how: str) -> Iterator[tuple[float, str, int]]:
    match node:
        case ast.Assert():
            how = "assert"
        case ast.Expr() | ast.Call(ast.Attribute(attr="subplots")):
            how = "aside"  # it draws or prints: the width of a line is no setting
        case ast.Constant() | ast.BinOp() | ast.Call():
            with suppress(ValueError):
                yield abs(evaluate(node)), how, node.lineno
    for child in ast.iter_child_nodes(node):
        yield from _constants(child, how)


# ---- references → guards ----


def _math(words: str, document: Document, number: Number) -> bool:
    return number.rounds(evaluate(_parse(words)))


def _parse(expression: str) -> ast.AST:
    with suppress(SyntaxError):
        tree = ast.parse(expression, mode="eval")
        if isinstance(tree.body, (ast.BinOp, ast.Call)):  # a number by itself says nothing of itself
            return tree
    raise ValueError(f"{expression!r} is not arithmetic on numbers")


def _file(words: str, document: Document, number: Number) -> bool:
    name, _, expression = words.partition(": ")
    text = _read(document.root / name)
    there = list(numbers_in(text, thousands="_" if name.endswith(".csv") else ",_"))
    if not expression:
        return any(map(number.rounds, there))
    for taken in re.findall(r"\d+\.\d+|\d{4,}", expression):
        if not any(map(Number(taken).rounds, there)):
            raise ValueError(f"{taken} is not in {name}")
    return _math(expression, document, number)


def _test(words: str, document: Document, number: Number) -> bool:
    name, _, test = words.partition("::")
    node = _functions(_read(document.root / name)).get(test)
    if node is None:
        raise ValueError(f"{name} has no test {test!r}")
    reads = not document.cells and re.search("(?i)readme|page", ast.unparse(node))
    return bool(reads) or any(number.rounds(value) for value, _, _ in _constants(node, ""))


@lru_cache  # a file of tests guards hundreds of numbers
def _functions(code: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}


def _cell(words: str, document: Document, number: Number) -> bool:
    found = [cell for cell in document.cells if cell.cell_type == "code" and (words == cell.id or words in cell.source)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} code cells have {words!r}; name one")
    there = list(evidence_of(found[0]))
    bounds = [item.value for item in there if item.how == "assert"] if number.hedged else []
    return any(number.rounds(item.value) for item in there) or any(map(number.near, bounds))


def _source(words: str, document: Document, number: Number) -> bool:
    if not re.search(r"\d{4}\.\d{4,5}|https?://|\b(?:19|20)\d\d\b|commit [0-9a-f]{7}|PAPERS", words):
        raise ValueError("a source names a paper by its arXiv id or year, a page by its address, or a commit")
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}") from None


GUARDS = {"MATH": _math, "FILE": _file, "TEST": _test, "CELL": _cell, "SOURCE": _source}


def holds(reference: str, document: Document, number: Number) -> bool:
    """Say whether a reference guards a number.

    Raises:
        ValueError: If the reference leads nowhere.
    """
    kind, _, words = reference.partition(" ")
    if kind not in GUARDS or not words:
        raise ValueError(f"a reference is {', '.join(GUARDS)} and words")
    return GUARDS[kind](words, document, number)


# ---- the ledger ----


def notebook_ledger(notebook: NotebookNode, source: Path, root: Path) -> Iterator[Entry]:
    """Yield the ledger of a solved notebook with its outputs; `root` is what file names start from."""
    blocks, sections, section = [], defaultdict(list), 0
    for position, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            blocks += blocks_of(cell.source, f"{source}: cell {position}", section)
            section = blocks[-1].section if blocks else 0
        else:
            sections[section] += evidence_of(cell)
    document = Document(root, notebook.cells)
    for block in blocks:
        yield from _entries(block, document, sections[block.section] + sections[0] * (block.section > 0))


def pages_ledger(root: Path) -> Iterator[Entry]:
    """Yield the ledger of those of `PAGES` that there are."""
    for path in filter(Path.exists, (root / name for name in PAGES)):
        for block in blocks_of(_read(path), str(path)):
            yield from _entries(block, Document(root), [])


def _entries(block: Block, document: Document, near: list[Evidence]) -> Iterator[Entry]:
    used = set()
    for number, sentence in block.numbers():
        guard = ""
        for reference in block.references:
            with suppress(ValueError):  # said below, once
                if holds(reference, document, number):
                    used.add(reference)
                    guard = guard or reference
        guard = guard or _nearby(number, near)
        fault = "" if guard else f"no guard for {number.text}; {HOW}"
        yield Entry(block.where, number.text, sentence, guard, fault)
    for reference in block.references:
        if reference not in used:
            yield Entry(block.where, "", " ".join(block.text.split())[:80], fault=_why(reference, document))


def _nearby(number: Number, near: list[Evidence]) -> str:
    for how in ("assert", "output") if number.hedged else ("assert", "output", "setting"):
        for item in near:
            if item.how == how and number.equals(item.value):
                return str(item)
    return ""


def _why(reference: str, document: Document) -> str:
    try:
        holds(reference, document, Number("0"))
    except ValueError as error:
        return f"claim: {reference}: {error}"
    return f"claim: {reference}: guards no number beside it"


def problems(entries: Iterator[Entry]) -> Iterator[str]:
    """Yield a line for each number without a guard and each reference that leads nowhere."""
    for entry in entries:
        if entry.fault:
            yield f"{entry.where}: {entry.fault}: \"{entry.sentence}\""
