"""Models that answer one prompt with the same luck, side by side, and what each thinks of the answers.

Everything is numbers, or HTML for any browser; `nanoq.teach.playground` puts controls on it.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from nanoq.lm.generation import stream
from nanoq.lm.model import GPT
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.quant import Recipe
from nanoq.running import device_of
from nanoq.store import WEIGHTS, find_checkpoint, load
from nanoq.teach.leaderboard import NAMES
from nanoq.teach.markup import LEGEND, MARK, ROW, TEXT, cells_html, quoted, shaded, table, visible

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # how a character that is not in the vocabulary is shown
LONGEST = 1000  # characters in an answer
LIKELIEST = 5  # characters shown of a distribution


# ---- who writes ----


@dataclass(frozen=True, eq=False)
class Contender:
    """A model in the playground.

    Attributes:
        name: what it is called, "GPTQ 8 bit".
        model: maps tokens to logits.
        tokenizer: the same for all that stand side by side.
        bytes: size of its file.
    """

    name: str
    model: GPT
    tokenizer: CharTokenizer
    bytes: int


def load_contender(name_or_path: str | Path, name: str | None = None) -> Contender:
    """Load a shipped checkpoint by name, or from a folder what `nanoq train`, `quantize`, `prune` or `compare` wrote.

    Args:
        name_or_path: of the checkpoint.
        name: what to call it; by default what it is on the leaderboard, "float32" or "RTN 4 bit".

    Raises:
        FileNotFoundError, ValueError: as `nanoq.store.load`.
    """
    checkpoint = load(name_or_path)
    size = (find_checkpoint(name_or_path) / WEIGHTS).stat().st_size
    return Contender(name or _row_name(checkpoint.card), checkpoint.model, checkpoint.tokenizer, size)


def _row_name(card: dict) -> str:
    if "recipe" not in card:
        return "compressed" if card.get("layers") else "float32"
    method, _, rest = Recipe.from_json(card["recipe"]).label.partition(" ")
    return f"{NAMES.get(method, method)} {rest}".strip()


def check_contenders(contenders: Sequence[Contender]) -> None:
    """Refuse models that cannot stand side by side.

    Raises:
        ValueError: if there is none, two have one name, or their vocabularies differ, so that they cannot share luck.
    """
    if not contenders:
        raise ValueError("choose at least one model")
    names = [one.name for one in contenders]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two models are called {', '.join(sorted(twice))}: give each a name of its own")
    first = contenders[0]
    for one in contenders[1:]:
        if one.tokenizer.characters != first.tokenizer.characters:
            raise ValueError(f"{one.name} reads other characters than {first.name}: compare models of one vocabulary")


# ---- writing ----


@dataclass(eq=False)
class Answer:
    """What one model has written so far.

    Attributes:
        contender: the model.
        prompt: what it goes on from.
        tokens: ids of its characters.
        seconds: what each of them took.
    """

    contender: Contender
    prompt: str
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its characters, one for each token, without the prompt."""
        return "".join(self.contender.tokenizer.decode([token]) if token else UNKNOWN for token in self.tokens)

    @property
    def speed(self) -> float:
        """Characters a second; NaN before the second one, because the first includes the reading of the prompt."""
        return (len(self.seconds) - 1) / sum(self.seconds[1:]) if len(self.seconds) > 1 else math.nan


def write(
    contenders: Sequence[Contender], prompt: str, *, temperature: float = 1.0, seed: int = 0, length: int = 200
) -> Iterator[list[Answer]]:
    """Let all models go on from a prompt, one character each in turn: their answers so far, `length` times.

    All draw with the same random numbers, so that texts differ only where distributions do.

    Raises:
        ValueError: at once, if the models cannot be compared, the prompt is empty, longer than a context, or holds a
            character that the models do not know, or a number is out of range.
    """
    check_contenders(contenders)
    context = min(one.model.config.context for one in contenders)
    if not prompt:
        raise ValueError("the prompt is empty: type at least one character to go on from")
    if len(prompt) > context:
        raise ValueError(f"the prompt has {len(prompt)} characters, the models read {context}: shorten it")
    _check_known(contenders, prompt)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"the temperature must be 0 or more, not {temperature}")
    if not 1 <= length <= LONGEST:
        raise ValueError(f"the length must be 1 to {LONGEST} characters, not {length}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"the seed must be a whole number from 0 to 2^63 - 1, not {seed}")
    answers = [Answer(one, prompt) for one in contenders]
    streams = [stream(one.model, one.tokenizer.encode(prompt), temperature=temperature, seed=seed)
               for one in contenders]
    return _rounds(answers, streams, length)


def _check_known(contenders: Sequence[Contender], text: str) -> None:
    if unknown := contenders[0].tokenizer.unknown(text):
        raise ValueError(f"the models do not know {', '.join(f'‘{c}’' for c in unknown)}: leave that out")


def _rounds(answers: list[Answer], streams: list[Iterator[int]], length: int) -> Iterator[list[Answer]]:
    for _ in range(length):
        for answer, tokens in zip(answers, streams, strict=True):
            start = time.perf_counter()
            answer.tokens.append(next(tokens))
            answer.seconds.append(time.perf_counter() - start)
        yield answers


def compare_answers(contenders: Sequence[Contender], prompt: str, **options) -> "Comparison":
    """What all models answer to a prompt; `options` and errors are those of `write`."""
    *_, answers = write(contenders, prompt, **options)
    return Comparison(answers)


def compare_reading(contenders: Sequence[Contender], text: str) -> "Comparison":
    """What all models think of a given text; errors as in `write`, but it may be of any length."""
    check_contenders(contenders)
    if not text:
        raise ValueError("there is no text to read")
    _check_known(contenders, text)
    return Comparison([Answer(one, text) for one in contenders])


# ---- reading ----


def first_divergence(texts: Sequence[Sequence]) -> int | None:
    """The first position at which not all texts are the same; None if they agree to the end of the shortest."""
    together = enumerate(zip(*texts, strict=False))
    return next((position for position, characters in together if len(set(characters)) > 1), None)


@torch.inference_mode()
def predictions(model: GPT, tokens: Tensor) -> Tensor:
    """What a model expects after each token of a text (T,): log2 of probabilities, (T, V), at temperature 1.

    Beyond the context, each is made from those tokens that `stream` would still know.
    """
    context = model.config.context
    parts, start, done = [], 0, 0
    while done < len(tokens):
        window = tokens[start : start + context]
        logits = model(window[None].to(device_of(model)))[0, done - start :]
        parts.append(logits.float().cpu().log_softmax(-1) / math.log(2))
        done = start + len(window)
        start += context - context // 2
    return torch.cat(parts)


@dataclass(frozen=True)
class Divergence:
    """Where a model leaves the first one.

    Attributes:
        name: of the model.
        position: in the answers, from 0.
        characters: what the first model has written there, and what this one has.
        expected: probabilities of these two, as the first model had them and as this one had, at temperature 1.
    """

    name: str
    position: int
    characters: tuple[str, str]
    expected: tuple[tuple[float, float], tuple[float, float]]


class Comparison:
    """Answers of some models, or one text that all of them read; the first model is the one to compare with.

    Attributes:
        answers: of each model.
    """

    def __init__(self, answers: Sequence[Answer]):
        self.answers = list(answers)
        self.names = [answer.contender.name for answer in answers]
        self._predicted: dict[tuple[str, str], Tensor] = {}

    def _answer(self, name: str) -> Answer:
        if name not in self.names:
            raise ValueError(f"no answer of {name!r}: there are {', '.join(self.names)}")
        return self.answers[self.names.index(name)]

    def text(self, author: str) -> str:
        """Prompt and answer of a model, one character for each token."""
        return self._answer(author).prompt + self._answer(author).text

    def tokens(self, author: str) -> Tensor:
        """The ids of that text: (T,)."""
        answer = self._answer(author)
        prompt = answer.contender.tokenizer.encode(answer.prompt)
        return torch.cat([prompt, torch.tensor(answer.tokens, dtype=torch.int64)])

    def predicted(self, reader: str, author: str) -> Tensor:
        """What one model expects after each token of another's text, as `predictions` has it."""
        if (reader, author) not in self._predicted:
            model = self._answer(reader).contender.model
            self._predicted[reader, author] = predictions(model, self.tokens(author))
        return self._predicted[reader, author]

    def surprise(self, reader: str, author: str) -> Tensor:
        """Bits, -log2 p, that each character of a text but the first costs a reader: (T - 1,)."""
        return -self.predicted(reader, author)[:-1].gather(1, self.tokens(author)[1:, None])[:, 0]

    def next_characters(self, reader: str, author: str, position: int, k: int = LIKELIEST) -> list[tuple[str, float]]:
        """The k likeliest characters at a position of a text, and their probabilities, given what stands before.

        Raises:
            ValueError: if the position is not in 1..T; T is the character after the text.
        """
        predicted = self.predicted(reader, author)
        if position not in range(1, len(predicted) + 1):
            raise ValueError(f"the position must be in 1..{len(predicted)}, not {position!r}")
        best = predicted[position - 1].topk(min(k, predicted.shape[1]))
        decode = self._answer(author).contender.tokenizer.decode
        characters = [decode([token]) if token else UNKNOWN for token in best.indices.tolist()]
        return list(zip(characters, best.values.exp2().tolist(), strict=True))

    def divergence(self, name: str) -> Divergence | None:
        """Where a model leaves the first one; None if it does not."""
        first, own = self.answers[0], self._answer(name)
        position = first_divergence([first.tokens, own.tokens])
        if position is None:
            return None
        tokens = [first.tokens[position], own.tokens[position]]
        before = len(own.prompt) + position - 1
        first_expected, own_expected = (
            tuple(self.predicted(reader, name)[before, tokens].exp2().tolist()) for reader in (self.names[0], name))
        characters = first.text[position], own.text[position]
        return Divergence(name, position, characters, (first_expected, own_expected))

    def answers_html(self) -> str:
        """The answers as a table; the first character that is not the first model's is marked."""
        body = ""
        for answer in self.answers:
            position, text = first_divergence([self.answers[0].tokens, answer.tokens]), answer.text
            if position is None:
                words = escape(text)
            else:
                words = (f'{escape(text[:position])}<mark style="{MARK}"><u>{visible(text[position])}</u></mark>'
                         f"{escape(text[position + 1 :])}")
            speed = "–" if math.isnan(answer.speed) else f"{answer.speed:.0f}"
            body += (f'{ROW}{escape(answer.contender.name)}</th><td>{answer.contender.bytes:,}</td>'
                     f'<td>{speed}</td><td style="{TEXT}"><i>{escape(answer.prompt)}</i>{words}</td></tr>')
        return table(["model", "bytes", "characters a second", "text (generated)"], body)

    def divergence_html(self) -> str:
        """Where each model leaves the first, how likely both found the two characters, and how the text reads to it."""
        first = self.names[0]
        body = ""
        for name in self.names:
            found = self.divergence(name)
            if found is None:
                where = "–" if name == first else "same text"
                words = ["", ""]
            else:
                where = f"character {found.position + 1}"
                words = [" or ".join(f"{quoted(c)} {p:.1%}" for c, p in zip(found.characters, expected, strict=True))
                         for expected in found.expected]
            answered = self.surprise(first, name)[-len(self._answer(name).tokens) :]
            cells = [where, *words, f"{answered.mean():.2f}"]
            body += f'{ROW}{escape(name)}</th>{cells_html(cells)}</tr>'
        return table(["model", f"leaves {first} at", f"there {first} expected", "and the model itself",
                       f"bits a character for {first}"], body)

    def surprise_html(self, author: str, readers: Sequence[str] | None = None) -> str:
        """A text once for each reader (by default, all), its characters shaded by what they cost the reader."""
        text, parts = self.text(author), [f"<p>Bits for each character of the text of {escape(author)}: {LEGEND}.</p>"]
        for reader in readers or self.names:
            bits = self.surprise(reader, author).tolist()
            spans = "".join(shaded(c, b) for c, b in zip(text[1:], bits, strict=True))
            worst = sorted(range(len(bits)), key=bits.__getitem__, reverse=True)[:3]
            named = ", ".join(f"{quoted(text[i + 1])} at {i + 1} ({bits[i]:.1f})" for i in worst)
            mean = sum(bits) / max(len(bits), 1)
            parts.append(f"<p><b>{escape(reader)}</b>: mean {mean:.2f} bits; most for {named}</p>"
                         f'<div style="{TEXT}">{escape(text[0])}{spans}</div>')
        return "".join(parts)

    def next_html(self, author: str, position: int) -> str:
        """What each model expects at a position of a text, likeliest first, with a bar of blocks for each."""
        text, body = self.text(author), ""
        for reader in self.names:
            cells = [f'{quoted(c)} {p:.1%}<br><span aria-hidden="true">{"█" * round(10 * p) or "▏"}</span>'
                     for c, p in self.next_characters(reader, author, position)]
            body += f'{ROW}{escape(reader)}</th>{cells_html(cells, left=True)}</tr>'
        stands = f"there stands {quoted(text[position])}" if position < len(text) else "the text ends"
        before = escape(text[max(0, position - 40) : position])
        title = f"<p>Position {position}, after <code>{before}</code>: {stands}.</p>"
        return title + table(["model", *(f"number {i}" for i in range(1, LIKELIEST + 1))], body)
