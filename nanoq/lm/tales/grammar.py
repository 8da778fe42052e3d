"""The engine: weighted tables, a template language, and a writer that knows the price of every choice.

A grammar is a set of named *rules* (each a weighted list of templates) and *lexicons* (weighted lists
of words with their inflected forms). The template language:

    plain text            is written as it stands
    [a^3|b|]              a choice; ``^3`` is a weight (1 if absent); alternatives are templates
    {rule}                one alternative of the rule
    {lexicon}             one word of the lexicon, {lexicon.form} in that form (``s``, ``ed``, ``ing``)
    {x=lexicon}           the same, and remembered as x; never a word remembered before in this story
    {x}  {x.form}         the remembered word again, e.g. {A.he} for the pronoun of the person A
    %                     no capital here, although a sentence seems to start ("Oh!" %she said)

The writer capitalises the starts of sentences and quotations and turns ``a`` into ``an`` by itself.
Text comes out strictly from left to right, so `parse` can find *every* derivation of a text.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from .english import starts_with_vowel_sound

Node = Callable[["Writer"], None]


class Table:
    """A weighted choice. `weights`: positive integers; `starts[form]`: how each alternative's text begins."""

    def __init__(self, name: str, weights: Sequence[int], starts: dict[str, list[str]]):
        if not weights or min(weights) < 1:
            raise ValueError(f"table {name!r}: needs alternatives with positive integer weights")
        self.name = name
        self.weights = list(weights)
        self.cumulative = list(accumulate(weights))
        self.total = self.cumulative[-1]
        self.starts = starts

    def __len__(self) -> int:
        return len(self.weights)

    def total_without(self, excluded: tuple[int, ...]) -> int:
        """Summed weight of the alternatives that are not excluded."""
        return self.total - sum(self.weights[i] for i in excluded)

    def locate(self, ticket: int, excluded: tuple[int, ...]) -> int:
        """The alternative that owns `ticket`, 0 <= ticket < total_without(excluded)."""
        for i in sorted(excluded):
            if ticket >= self.cumulative[i] - self.weights[i]:
                ticket += self.weights[i]
        return bisect_right(self.cumulative, ticket)


class Lexicon(Table):
    """A table of words. `forms[form][i]` is word i in that form; "" is the plain form."""

    def __init__(self, name: str, words: Sequence[str], weights: Sequence[int], forms: dict[str, list[str]]):
        if len(set(words)) != len(words):
            twice = sorted({w for w in words if words.count(w) > 1})
            raise ValueError(f"lexicon {name!r}: words written twice: {twice}")
        self.forms = {"": list(words), **forms}
        super().__init__(name, weights, self.forms)


class Mismatch(Exception):
    """Raised while parsing: the text written so far is not a beginning of the wanted text."""


class Source(Protocol):
    """Where choices come from: chance, a recording, or a text to be explained."""

    def choose(self, writer: Writer, table: Table, form: str, excluded: tuple[int, ...]) -> int:
        """The index of an alternative of `table` that is not excluded; it will be written in `form`."""
        ...


class Chance:
    """Draws from `random.Random(number).random()`, whose sequence Python guarantees for ever."""

    def __init__(self, number: int):
        self.random = random.Random(number).random

    def choose(self, writer: Writer, table: Table, form: str, excluded: tuple[int, ...]) -> int:
        """Draw an alternative with its probability."""
        if not excluded:
            return bisect_right(table.cumulative, int(self.random() * table.total))
        return table.locate(int(self.random() * table.total_without(excluded)), excluded)


class Replay:
    """Repeats recorded choices, then goes on with another source."""

    def __init__(self, recorded: Sequence[int], then: Source):
        self.recorded, self.then, self.at = list(recorded), then, 0

    def choose(self, writer: Writer, table: Table, form: str, excluded: tuple[int, ...]) -> int:
        """The next recorded alternative, or the other source's when there is none left."""
        if self.at >= len(self.recorded):
            return self.then.choose(writer, table, form, excluded)
        self.at += 1
        return self.recorded[self.at - 1]


class Explain:
    """Takes the first alternative that fits the wanted text and notes the others in `pending`."""

    def __init__(self, pending: list[list[int]]):
        self.pending = pending

    def choose(self, writer: Writer, table: Table, form: str, excluded: tuple[int, ...]) -> int:
        """The first alternative that fits the wanted text; Mismatch if there is none."""
        fitting = [i for i, start in enumerate(table.starts[form]) if i not in excluded and writer.would_fit(start)]
        if not fitting:
            raise Mismatch
        taken = [index for _, index, _ in writer.trail]
        self.pending.extend([*taken, i] for i in fitting[1:])
        return fitting[0]


class Writer:
    """The state of one story: its text, what it remembers, its choices and their information in bits."""

    def __init__(self, source: Source, wanted: str | None = None):
        self.source = source
        self.wanted = wanted
        self.text = ""
        self.bits = 0.0
        self.memory: dict[str, tuple[Lexicon, int]] = {}
        self.trail: list[tuple[Table, int, tuple[int, ...]]] = []
        self.article = False
        self.keep_small = False

    def choose(self, table: Table, form: str = "", excluded: tuple[int, ...] = ()) -> int:
        """Choose an alternative of `table` and charge -log2 of its probability."""
        index = self.source.choose(self, table, form, excluded)
        total = table.total_without(excluded) if excluded else table.total
        self.bits += math.log2(total / table.weights[index])
        self.trail.append((table, index, excluded))
        return index

    def remembered(self, lexicon: Lexicon) -> tuple[int, ...]:
        """The words of a lexicon that the story has already given a name to."""
        return tuple(i for lex, i in self.memory.values() if lex is lexicon)

    def finish(self, piece: str) -> str:
        """`piece` as it will stand: after its article, with its capital."""
        if self.article:
            return ("n " if starts_with_vowel_sound(piece) else " ") + piece
        if not self.keep_small and at_start(self.text):
            return piece[0].upper() + piece[1:]
        if piece[0] == " " and at_start(self.text + " "):
            return piece[:2].upper() + piece[2:]
        return piece

    def write(self, piece: str) -> None:
        """Append a piece of text; while parsing, stop as soon as it differs from the wanted text."""
        if not piece:
            return
        piece = self.finish(piece)
        if self.wanted is not None and not self.wanted.startswith(piece, len(self.text)):
            raise Mismatch
        self.text += piece
        self.article = self.keep_small = False

    def would_fit(self, start: str) -> bool:
        """Whether the wanted text can go on with `start`."""
        return not start or self.wanted is None or self.wanted.startswith(self.finish(start), len(self.text))


def at_start(text: str) -> bool:
    """Whether the next letter begins a sentence or a quotation."""
    last = text[-1:]
    if last == " ":
        return text[-2] in ".!?" or (text[-2] == '"' and text[-3] in ".!?")
    if last == '"':
        return text[-2:-1] in ("", " ", "\n")
    return last in ("", "\n")


class Grammar:
    """Rules and lexicons, compiled. `start` names the rule that a story is an instance of."""

    def __init__(self, rules: str, lexicons: dict[str, Lexicon], start: str = "story"):
        self.lexicons = lexicons
        self.lines = read_rules(rules)
        overlap = sorted(set(self.lines) & set(lexicons))
        if overlap:
            raise ValueError(f"both a rule and a lexicon: {overlap}")
        self.memory_names = set(re.findall(r"\{(\w+)=", rules))
        self.compiled: dict[str, Node] = {}
        self.tables: dict[str, Table] = {}
        for name in self.lines:
            self.compiled[name] = self.choice(name, self.lines[name])
        self.start = start

    def derive(self, source: Source, wanted: str | None = None) -> Writer:
        """Write one story with the choices of `source`."""
        writer = Writer(source, wanted)
        self.compiled[self.start](writer)
        return writer

    def choice(self, name: str, alternatives: list[tuple[int, str]]) -> Node:
        """A node that chooses among weighted templates."""
        texts = [text for _, text in alternatives]
        if len(set(texts)) != len(texts):
            raise ValueError(f"{name}: written twice: {[t for t in texts if texts.count(t) > 1][:1]}")
        nodes = [self.sequence(text, f"{name}/{i}") for i, text in enumerate(texts)]
        if len(nodes) == 1:
            return nodes[0]
        table = Table(name, [weight for weight, _ in alternatives], {"": [static_start(t) for t in texts]})
        self.tables[name] = table
        return lambda writer: nodes[writer.choose(table)](writer)

    def sequence(self, template: str, name: str) -> Node:
        """A node that writes a template's parts in order."""
        nodes = [self.part(part, f"{name}/{i}") for i, part in enumerate(split_parts(template))]
        if len(nodes) == 1:
            return nodes[0]

        def run(writer: Writer) -> None:
            for node in nodes:
                node(writer)

        return run

    def part(self, part: str, name: str) -> Node:
        """A node for one part: plain text, `%`, `[...]` or `{...}`."""
        if part[0] == "[":
            return self.choice(name, [read_weight(a) for a in split_bars(part[1:-1])])
        if part == "%":
            return keep_small
        if part[0] != "{":
            return plain_text(part)
        body, _, form = part[1:-1].partition(".")
        variable, _, body = body.rpartition("=")
        if body in self.lexicons:
            return draw(self.lexicons[body], form, variable)
        if variable:
            raise ValueError(f"{name}: {part} remembers something that is no lexicon")
        if body in self.lines:
            return lambda writer: self.compiled[body](writer)
        if body not in self.memory_names:
            raise ValueError(f"{name}: {part} is no rule, no lexicon and is never remembered")
        return recall(body, form)


def keep_small(writer: Writer) -> None:
    """`%`: the next letter stays as it is."""
    writer.keep_small = True


def plain_text(text: str) -> Node:
    """A node that writes `text`; an article at its end waits for the next word."""
    match = re.search(r"(?:^|(?<=[ \n\"]))([aA]) $", text)
    if not match:
        return lambda writer: writer.write(text)

    def run(writer: Writer) -> None:
        writer.write(text[:-1])
        writer.article = True

    return run


def draw(lexicon: Lexicon, form: str, variable: str) -> Node:
    """A node that writes a word and, if `variable` is not empty, remembers it."""
    if form not in lexicon.forms:
        raise ValueError(f"lexicon {lexicon.name!r} has no form {form!r}")
    if len(set(lexicon.forms[form])) != len(lexicon) and not variable:
        raise ValueError(f"lexicon {lexicon.name!r}: two words have the same {form!r} form")
    words = lexicon.forms[form]

    def run(writer: Writer) -> None:
        index = writer.choose(lexicon, form, writer.remembered(lexicon))
        if variable:
            writer.memory[variable] = lexicon, index
        writer.write(words[index])

    return run


def recall(variable: str, form: str) -> Node:
    """A node that writes a remembered word in some form."""

    def run(writer: Writer) -> None:
        lexicon, index = writer.memory[variable]
        writer.write(lexicon.forms[form][index])

    return run


def read_rules(text: str) -> dict[str, list[tuple[int, str]]]:
    """Parse ``@name`` headers followed by one alternative a line, each with an optional ``weight: ``.

    A line that begins with two spaces continues the line before it; The escape s is a space at either end.
    """
    rules: dict[str, list[tuple[int, str]]] = {}
    for line in re.sub(r"\n  ", " ", text).splitlines():
        if line.startswith("@"):
            if line[1:] in rules:
                raise ValueError(f"rule {line[1:]!r} is defined twice")
            current = rules.setdefault(line[1:], [])
        elif line.strip():
            match = re.match(r"(\d+):(?: |$)", line)
            weight, rest = (int(match[1]), line[match.end() :]) if match else (1, line)
            current.append((weight, with_capitals(rest.replace("\\s", " "))))
    return rules


def with_capitals(template: str) -> str:
    """Capitals for the starts of sentences and quotations inside a template's plain text."""
    return re.sub(r'([.!?]"? |")([a-z])', lambda match: match[1] + match[2].upper(), template)


def read_weight(alternative: str) -> tuple[int, str]:
    """``text^3`` -> (3, text)."""
    text, mark, weight = alternative.rpartition("^")
    return (int(weight), text) if mark and weight.isdigit() else (1, alternative)


def split_parts(template: str) -> list[str]:
    """Cut a template into plain text, `%`, `[...]` and `{...}`; an empty template has none."""
    parts, depth, begin = [], 0, 0
    for i, char in enumerate(template):
        if depth == 0 and char in "[{%":
            parts.append(template[begin:i])
            begin = i
        depth += (char in "[{") - (char in "]}")
        if depth == 0 and char in "]}%":
            parts.append(template[begin : i + 1])
            begin = i + 1
    if depth:
        raise ValueError(f"brackets do not match in {template!r}")
    return [p for p in [*parts, template[begin:]] if p]


def split_bars(body: str) -> list[str]:
    """Cut at the ``|`` that are not inside brackets."""
    pieces, depth, begin = [], 0, 0
    for i, char in enumerate(body):
        depth += (char in "[{") - (char in "]}")
        if char == "|" and depth == 0:
            pieces.append(body[begin:i])
            begin = i + 1
    return [*pieces, body[begin:]]


def static_start(template: str) -> str:
    """The plain text that a template begins with ("" if it begins with anything else)."""
    start = re.match(r"[^\[{%]*", template)[0]
    return re.sub(r"(?:^|(?<=[ \n\"]))([aA]) $", r"\1", start)


def parse(grammar: Grammar, text: str, limit: int = 200_000) -> Iterator[Writer]:
    """Every derivation of `text`, by depth-first search; ValueError after `limit` attempts."""
    pending: list[list[int]] = [[]]
    explain = Explain(pending)
    for _ in range(limit):
        if not pending:
            return
        try:
            writer = grammar.derive(Replay(pending.pop(), explain), wanted=text)
        except Mismatch:
            continue
        if writer.text == text:
            yield writer
    raise ValueError(f"gave up after {limit} attempts at a text of {len(text)} characters")
