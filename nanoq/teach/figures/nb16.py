"""The figures of notebook 16."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from IPython.display import HTML, display
from matplotlib.figure import Figure
from torch import Tensor

from nanoq.teach.compare import Answer, Comparison, Contender, compare_answers, first_divergence
from nanoq.teach.playground import playground
from nanoq.teach.plots import COLORS, figure
from nanoq.teach.widgets import show_widget


def _color(name: str) -> str:
    """The colour of a model by its method, as on the leaderboard."""
    return COLORS["orange" if "RTN" in name else "blue" if "GPTQ" in name else "green"]


def blind(named: Mapping[str, Contender], names: Sequence[str], prompt: str, length: int) -> None:
    """Texts of models under letters, each with a seed of its own, and below them which is whose, folded."""
    for seed, (letter, name) in enumerate(zip("ABCDE", names, strict=False), 11):
        (answer,) = compare_answers([named[name]], prompt, seed=seed, length=length).answers
        print(f"{letter}  {answer.text}\n")
    key = ", ".join(f"{letter} {name}" for letter, name in zip("ABCDE", names, strict=False))
    display(HTML(f"<details><summary>Answer</summary>{key}</details>"))


@figure(lambda p, q, u: f"Two lines from 0 to 1, each cut into {len(p)} pieces, one for each character. The second "
        "line's first piece is longer, so that all of its other pieces begin further to the right. A dashed line at "
        f"{u:g} meets another character in each.")
def laid_end_to_end(p: Tensor, q: Tensor, u: float) -> Figure:
    """Two distributions (V,) laid end to end, and where u falls."""
    fig, ax = plt.subplots(figsize=(7, 2))
    for y, weights in ((1, p), (0, q)):
        left = 0.0
        for letter, width, shade in zip("abcdefg", weights.tolist(), COLORS.values(), strict=False):
            ax.barh(y, width, left=left, height=0.6, color=shade, alpha=0.5, edgecolor="black")
            ax.text(left + width / 2, y, letter, ha="center", va="center")
            left += width
    ax.axvline(u, color="black", ls="--")
    ax.set(yticks=[0, 1], xlim=(0, 1), xlabel=f"dashed: u = {u}")
    ax.set_yticklabels(["model q", "model p"])
    ax.grid(visible=False)
    return fig


def _place(comparison: Comparison, name: str) -> int:
    """Where a model leaves the first one, in prompt and answer; the end of the prompt if it does not."""
    found = comparison.divergence(name)
    return len(comparison.answers[0].prompt) + (found.position if found else 0)


def _expected_alt(comparison: Comparison, name: str, k: int = 6) -> str:
    position = _place(comparison, name)
    best = [comparison.next_characters(reader, name, position, 2) for reader in (comparison.names[0], name)]
    words = [f"{reader} expects “{two[0][0]}” with {two[0][1]:.2f} and “{two[1][0]}” with {two[1][1]:.2f}"
             for reader, two in zip((comparison.names[0], name), best, strict=True)]
    return f"Bars of the {k} likeliest next characters where {name} leaves the other: {'; '.join(words)}."


@figure(_expected_alt)
def expected_where_they_part(comparison: Comparison, name: str, k: int = 6) -> Figure:
    """What two models expect where one leaves the other: the k characters that are likeliest for the first."""
    reference, position = comparison.names[0], _place(comparison, name)
    best = [character for character, _ in comparison.next_characters(reference, name, position, k)]
    encode = comparison.answers[0].contender.tokenizer.encode
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for shift, reader, color, hatch in ((-0.2, reference, "blue", ""), (0.2, name, "orange", "//")):
        chances = comparison.predicted(reader, name)[position - 1].exp2()
        heights = [float(chances[encode(character)[0]]) for character in best]
        ax.bar([i + shift for i in range(k)], heights, 0.4, label=reader, color=COLORS[color], hatch=hatch,
               edgecolor="white")  # fmt: skip
    ax.set_xticks(range(k), [f"“{character}”".replace("\n", "↵") for character in best])
    ax.set(ylabel="probability", title=f"after “…{comparison.text(name)[max(0, position - 24) : position]}”")
    ax.legend()
    return fig


def _surprise_alt(text: str, bits: Mapping[str, Sequence[float]], planted: range) -> str:
    inside = {name: sum(b[i - 1] for i in planted) / len(planted) for name, b in bits.items()}
    around = {name: (sum(b) - len(planted) * inside[name]) / (len(b) - len(planted)) for name, b in bits.items()}
    words = [f"{name} {around[name]:.1f} bits per character and {inside[name]:.1f} in the planted word"
             for name in bits]
    return f"Bits of surprise for each character around a planted word, a line for each model: {'; '.join(words)}."


@figure(_surprise_alt)
def surprise(text: str, bits: Mapping[str, Sequence[float]], planted: range) -> Figure:
    """Bits of each character but the first, (T - 1) for each reader, around a planted word."""
    start, end = max(1, planted.start - 26), min(len(text), planted.stop + 22)
    fig, ax = plt.subplots(figsize=(8, 3))
    for (name, b), color, marker in zip(bits.items(), ("blue", "green", "vermillion"), "osD", strict=True):
        ax.plot(range(start, end), b[start - 1 : end - 1], color=COLORS[color], marker=marker, ms=4, lw=1, label=name)
    ax.axvspan(planted.start - 0.5, planted.stop - 0.5, color="0.9")
    ax.set_xticks(range(start, end), list(text[start:end].replace(" ", "␣")), fontsize=9)
    ax.set(ylabel="surprise (bits)", title="grey: the planted word")
    ax.legend(ncols=3, loc="upper left")
    ax.set_ylim(0, 1.2 * max(max(b[start - 1 : end - 1]) for b in bits.values()))
    return fig


def play(contenders: Sequence[Contender], chosen: Sequence[str]) -> None:
    """The playground, with some of the models turned on."""
    show_widget(playground(contenders, chosen), alt="A prompt, temperature, seed, length and a choice of models; their "
                "answers, side by side; where they part; the surprise of each character, and what each model expected "
                "at any position.")  # fmt: skip


def _together(comparison: Comparison) -> dict[str, int]:
    """Characters that each answer shares with the first one before they part."""
    first, *others = comparison.answers
    found = {one.contender.name: first_divergence([first.tokens, one.tokens]) for one in others}
    return {name: len(first.tokens) if place is None else place for name, place in found.items()}


@figure(lambda comparison: "A bar for each model: the characters of its text that are the same as those of "
        f"{comparison.names[0]} with the same seed: " +
        ", ".join(f"{name} {count}" for name, count in _together(comparison).items()) + ".")
def shared(comparison: Comparison) -> Figure:
    """For how long each answer is the first one's, as bars."""
    together, length = _together(comparison), len(comparison.answers[0].tokens)
    fig, ax = plt.subplots(figsize=(7, 3.2))
    bars = ax.barh(list(together), list(together.values()), color=[_color(name) for name in together])
    ax.bar_label(bars, [f"{n}, to the end" if n == length else str(n) for n in together.values()], padding=4)
    ax.invert_yaxis()
    ax.set(xlabel=f"characters shared with {comparison.names[0]}", xlim=(0, 1.3 * length))
    return fig


def _lengths(chances: Mapping[str, Tensor]) -> dict[str, float]:
    return {kind: float(chance.cumprod(1).mean(0).sum()) for kind, chance in chances.items()}


@figure(lambda chances: "The probability that two models still write the same text, against characters written; "
        "expected characters together: " +
        ", ".join(f"{kind} {length:.0f}" for kind, length in _lengths(chances).items()) + ".")
def kinds_of_luck(chances: Mapping[str, Tensor]) -> Figure:
    """Probability to be together still, from that to agree on each character, (texts, characters) by kind of luck."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    looks = (("vermillion", "-."), ("orange", "--"), ("blue", "-"), ("black", ":"))
    for (kind, chance), (color, line) in zip(chances.items(), looks, strict=True):
        alive = chance.cumprod(1).mean(0)
        ax.plot(range(1, len(alive) + 1), alive, color=COLORS[color], ls=line,
                label=f"{kind}: {alive.sum():.1f} characters")
    ax.set(xlabel="characters written", ylabel="probability to be together", ylim=(0, 1.02))
    ax.legend()
    return fig


@figure(lambda x, y, names: f"Characters that a model writes together with float32 against the divergence it adds, for "
        f"{len(names)} models, on logarithmic axes: they lie along a falling line of slope minus one half.")
def law(x: Tensor, y: Tensor, names: Sequence[str]) -> Figure:
    """Characters until two texts part against the divergence; both (models,) as logarithms to base 10."""
    fig, ax = plt.subplots(figsize=(7, 3.8))
    ax.plot(10**x, 10 ** (y.mean() - 0.5 * (x - x.mean())), color="0.6", ls="--", label="slope −1/2")
    for name, a, b in zip(names, x.tolist(), y.tolist(), strict=True):
        below, marker = "RTN" in name, "o" if "RTN" in name else "s" if "GPTQ" in name else "D"
        ax.plot(10**a, 10**b, marker, ms=8, color=_color(name))
        ax.annotate(name, (10**a, 10**b), xytext=(-7, -13) if below else (8, 4), textcoords="offset points",
                    ha="right" if below else "left")  # two models may lie close together
    ax.set(xscale="log", yscale="log", xlabel="added divergence (nats per character)", ylabel="characters together")
    ax.margins(x=0.15, y=0.15)
    ax.legend()
    return fig


@figure(lambda answers: "Two rows of bars for the models: the size of the file, which falls with the bits, and "
        "characters per second on this machine: " +
        ", ".join(f"{one.contender.name} {one.speed:.0f}" for one in answers) + ".")
def speeds(answers: Sequence[Answer]) -> Figure:
    """Bytes of each model's file, and characters per second."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    names = [one.contender.name for one in answers]
    left.barh(names, [one.contender.bytes / 1e6 for one in answers], color=COLORS["blue"])
    right.barh(names, [one.speed for one in answers], color=COLORS["orange"])
    left.invert_yaxis()
    left.set(xlabel="file (MB)")
    right.set(xlabel="characters per second")
    return fig
