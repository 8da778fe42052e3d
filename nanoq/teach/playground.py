"""The playground: models that answer one prompt with the same luck, side by side, and what each thinks of the answers.

Everything that is shown is HTML from `Comparison`, which knows nothing of browsers; `playground` puts controls on it.
"""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import ipywidgets
import torch
from torch import Tensor

from nanoq.lm.generate import stream
from nanoq.lm.model import GPT
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.quant import Recipe
from nanoq.store import WEIGHTS, find_checkpoint, load
from nanoq.teach.leaderboard import NAMES

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # how a character that is not in the vocabulary is shown
LONGEST = 1000  # characters in an answer
LIKELIEST = 5  # characters shown of a distribution

_SETTLE = 0.2  # seconds: what was typed last may arrive after the Enter that followed it
_REFRESH = 0.1  # seconds between two pictures of what is being written
# Black on each of these, so that it can be read in a light and in a dark theme; and no colour is the only sign.
_MARK = "background:#E69F00;color:black"
_LEVELS = (
    (6, "background:#E0762A;color:black;font-weight:bold;text-decoration:underline double"),
    (3, "background:#F0B860;color:black;text-decoration:underline"),
    (1, "background:#FCE8CC;color:black"),
)
_LEGEND = "shaded from 1 bit on, underlined from 3, bold and underlined twice from 6"
_ROW = '\n<tr style="vertical-align:top"><th scope="row" style="white-space:nowrap;text-align:left">'
_TEXT = "font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;text-align:left;line-height:1.5"


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
        name: what to call it; by default what it is on the leaderboard, "float32" or "naive 4 bit".

    Raises:
        FileNotFoundError, ValueError: as `nanoq.load`.
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
        logits = model(window[None].to(next(model.parameters()).device))[0, done - start :]
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
                words = (f'{escape(text[:position])}<mark style="{_MARK}"><u>{_visible(text[position])}</u></mark>'
                         f"{escape(text[position + 1 :])}")
            speed = "–" if math.isnan(answer.speed) else f"{answer.speed:.0f}"
            body += (f'{_ROW}{escape(answer.contender.name)}</th><td>{answer.contender.bytes:,}</td>'
                     f'<td>{speed}</td><td style="{_TEXT}"><i>{escape(answer.prompt)}</i>{words}</td></tr>')
        return _table(["model", "bytes", "characters a second", "text (generated)"], body)

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
                words = [" or ".join(f"{_quoted(c)} {p:.1%}" for c, p in zip(found.characters, expected, strict=True))
                         for expected in found.expected]
            answered = self.surprise(first, name)[-len(self._answer(name).tokens) :]
            cells = [where, *words, f"{answered.mean():.2f}"]
            body += f'{_ROW}{escape(name)}</th>{_cells(cells)}</tr>'
        return _table(["model", f"leaves {first} at", f"there {first} expected", "and the model itself",
                       f"bits a character for {first}"], body)

    def surprise_html(self, author: str, readers: Sequence[str] | None = None) -> str:
        """A text once for each reader (by default, all), its characters shaded by what they cost the reader."""
        text, parts = self.text(author), [f"<p>Bits for each character of the text of {escape(author)}: {_LEGEND}.</p>"]
        for reader in readers or self.names:
            bits = self.surprise(reader, author).tolist()
            spans = "".join(_shaded(c, b) for c, b in zip(text[1:], bits, strict=True))
            worst = sorted(range(len(bits)), key=bits.__getitem__, reverse=True)[:3]
            named = ", ".join(f"{_quoted(text[i + 1])} at {i + 1} ({bits[i]:.1f})" for i in worst)
            mean = sum(bits) / max(len(bits), 1)
            parts.append(f"<p><b>{escape(reader)}</b>: mean {mean:.2f} bits; most for {named}</p>"
                         f'<div style="{_TEXT}">{escape(text[0])}{spans}</div>')
        return "".join(parts)

    def next_html(self, author: str, position: int) -> str:
        """What each model expects at a position of a text, likeliest first, with a bar of blocks for each."""
        text, body = self.text(author), ""
        for reader in self.names:
            cells = [f'{_quoted(c)} {p:.1%}<br><span aria-hidden="true">{"█" * round(10 * p) or "▏"}</span>'
                     for c, p in self.next_characters(reader, author, position)]
            body += f'{_ROW}{escape(reader)}</th>{_cells(cells, left=True)}</tr>'
        stands = f"there stands {_quoted(text[position])}" if position < len(text) else "the text ends"
        before = escape(text[max(0, position - 40) : position])
        title = f"<p>Position {position}, after <code>{before}</code>: {stands}.</p>"
        return title + _table(["model", *(f"number {i}" for i in range(1, LIKELIEST + 1))], body)


def _table(header: Sequence[str], body: str) -> str:
    head = "".join(f'<th scope="col" style="text-align:left">{escape(name)}</th>' for name in header)
    return f'<table style="border-spacing:10px 4px">\n<tr>{head}</tr>{body}\n</table>'


def _cells(cells: Sequence[str], left: bool = False) -> str:
    style = ' style="text-align:left"' if left else ""
    return "".join(f"<td{style}>{cell}</td>" for cell in cells)


def _quoted(character: str) -> str:
    return f"‘{_visible(character)}’"


def _visible(character: str) -> str:
    """A character as HTML, in which a blank and a line break can be seen."""
    return {" ": "␣", "\n": "↵"}.get(character, escape(character))


def _shaded(character: str, bits: float) -> str:
    style = next((f' style="{look}"' for least, look in _LEVELS if bits >= least), "")
    shown = "↵\n" if character == "\n" else escape(character)
    return f'<span title="{bits:.1f} bits"{style}>{shown}</span>'


# ---- the widget ----


def playground(contenders: Sequence[Contender], chosen: Sequence[str] | None = None) -> ipywidgets.VBox:
    """Controls on all of this, for the keyboard as much as for the mouse. Show it with `show_widget`.

    Args:
        contenders: the models that can be chosen.
        chosen: names of those that are chosen to begin with; by default the first three.

    Raises:
        ValueError: as `check_contenders`.
    """
    return Panel(contenders, chosen).box


class Panel:
    """The controls and the pages they fill.

    What is written is written in a thread of its own, so that the kernel goes on hearing the Stop button, whether the
    front end sends its messages to the kernel's main shell or to a subshell. No pyplot here: it is not safe in threads.
    """

    def __init__(self, contenders: Sequence[Contender], chosen: Sequence[str] | None = None):
        check_contenders(contenders)
        self.contenders = list(contenders)
        chosen = [one.name for one in contenders[:3]] if chosen is None else chosen
        self.comparison: Comparison | None = None
        self.stopped, self.thread = threading.Event(), None
        self._make_controls(chosen)
        self._make_pages()
        row = ipywidgets.Layout(flex_flow="row wrap")
        self.box = _named(ipywidgets.VBox([
            self.prompt, ipywidgets.HBox([self.temperature, self.seed, self.length], layout=row), self.models,
            ipywidgets.HBox([self.go, self.halt]), self.status, self.answers, self.divergence,
            self.whose, self.surprise, self.position, self.next]), "playground")

    def _make_controls(self, chosen: Sequence[str]) -> None:
        narrow, flow = ipywidgets.Layout(width="200px"), ipywidgets.Layout(flex_flow="row wrap")
        self.prompt = _named(ipywidgets.Text("Once upon a time", description="prompt",
                                             layout=ipywidgets.Layout(width="95%")), "prompt")
        self.temperature = _named(ipywidgets.FloatText(1.0, step=0.1, description="temperature", layout=narrow,
                                                     style={"description_width": "90px"}),
                                  "temperature")
        self.seed = _named(ipywidgets.IntText(1, description="seed", layout=narrow), "seed")
        self.length = _named(ipywidgets.IntText(150, description="characters", layout=narrow), "length")
        boxes = [ipywidgets.Checkbox(one.name in chosen, description=one.name, indent=False,
                                     layout=ipywidgets.Layout(width="140px")) for one in self.contenders]
        self.models = _named(ipywidgets.HBox(boxes, layout=flow), "models")
        self.go = _named(ipywidgets.Button(description="Write", tooltip="all chosen models go on from the prompt",
                                           button_style="primary"), "go")
        self.halt = _named(ipywidgets.Button(description="Stop", tooltip="stop writing, keep what there is"), "stop")
        # Text.on_submit, which does the same, is deprecated in favour of what would also start when Tab is pressed.
        self.prompt.on_msg(lambda _, content, buffers: content.get("event") == "submit" and self.start())
        self.go.on_click(lambda _: self.start())
        self.halt.on_click(lambda _: self.stopped.set())

    def _make_pages(self) -> None:
        self.status, self.answers, self.divergence, self.surprise, self.next = (
            _named(ipywidgets.HTML(), name) for name in ("status", "answers", "divergence", "surprise", "next"))
        self.whose = _named(ipywidgets.Dropdown(description="read text of", disabled=True), "whose")
        self.position = _named(ipywidgets.IntSlider(1, min=1, max=1, description="position", disabled=True,
                                                    layout=ipywidgets.Layout(width="95%")), "position")
        self.whose.observe(lambda _: self._show_surprise(), "value")
        self.position.observe(lambda _: self._show_next(), "value")
        self._say("Ready.")

    def _say(self, words: str) -> None:
        self.status.value = f'<div role="status">{escape(words)}</div>'

    def start(self) -> None:
        """Write anew with what the controls say; what is being written is stopped."""
        self.stopped.set()
        if self.thread:
            self.thread.join()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(self.stopped,), daemon=True)
        self.thread.start()

    def _run(self, stopped: threading.Event) -> None:
        stopped.wait(_SETTLE)
        boxes = zip(self.models.children, self.contenders, strict=True)
        try:
            rounds = write([one for box, one in boxes if box.value], self.prompt.value, seed=self.seed.value,
                           temperature=self.temperature.value, length=self.length.value)
        except ValueError as error:
            return self._say(f"Please change this: {error}.")
        answers, written, length, shown = [], 0, self.length.value, -math.inf
        for written, answers in enumerate(rounds, 1):
            if time.monotonic() > shown + _REFRESH:
                self.answers.value = Comparison(answers).answers_html()
                self._say(f"Writing: {written} of {length} characters.")
                shown = time.monotonic()
            if stopped.is_set():
                break
        self._finish(Comparison(answers))
        self._say(f"Stopped after {written} of {length} characters." if written < length
                  else f"Done: {length} characters each.")

    def _finish(self, comparison: Comparison) -> None:
        """Show all there is to say about answers that are complete; begin reading where the first model is left."""
        self.comparison = None  # until the controls fit the new one, there is nothing for them to show
        self.answers.value, self.divergence.value = comparison.answers_html(), comparison.divergence_html()
        answer = comparison.answers[0]
        found = [d.position for d in map(comparison.divergence, comparison.names) if d]
        self.position.max = len(comparison.text(comparison.names[0]))
        self.position.value = len(answer.prompt) + min(found, default=0)
        self.whose.options = comparison.names
        self.whose.value = comparison.names[0]
        self.position.disabled = self.whose.disabled = False
        self.comparison = comparison
        self._show_surprise()

    def _show_surprise(self) -> None:
        if self.comparison:
            self.surprise.value = self.comparison.surprise_html(self.whose.value)
            self._show_next()

    def _show_next(self) -> None:
        if self.comparison:
            self.next.value = self.comparison.next_html(self.whose.value, self.position.value)


def _named(widget: ipywidgets.Widget, name: str) -> ipywidgets.Widget:
    """The widget, with a class that a style sheet or a test can find it by."""
    widget.add_class(f"nanoq-{name}")
    return widget
