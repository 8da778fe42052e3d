"""The playground: `nanoq.teach.compare` with controls, in a notebook."""

import math
import threading
import time
from collections.abc import Sequence
from html import escape

import ipywidgets

from nanoq.teach.compare import Comparison, Contender, check_contenders, write

_SETTLE = 0.2  # seconds: what was typed last may arrive after the Enter that followed it
_REFRESH = 0.1  # seconds between two pictures of what is being written


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
