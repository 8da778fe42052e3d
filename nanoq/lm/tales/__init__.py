"""Simple children's stories from a probabilistic grammar whose every choice has a known probability.

Why that is useful: the information content of a story's derivation, -log2 of the product of the
probabilities of its choices, is known exactly. If no two derivations give the same text, it is also the
information content of the *text*, and its mean is the entropy of the source: no language model can, in
expectation, reach a lower cross-entropy. No real corpus offers such a floor.

Why two derivations do not give the same text:

* text is written strictly from left to right, and nothing is drawn that is not written at once: every
  name, trait and object is drawn by the very act of writing it, later mentions cost nothing;
* the words of a lexicon are pairwise distinct in every form that is drawn, and the alternatives of a choice
  are pairwise distinct templates; both are checked when the grammar is compiled;
* alternatives that could still meet (an optional adjective before a noun that itself starts with that
  adjective, two groups that share a word) are found by `grammar.parse`, which returns *every* derivation
  of a text by exhaustive search. The tests parse stories and demand exactly one derivation each.

The last step is a check of samples, not a proof for all texts. About one story in a thousand of the default
corpus still has a second derivation (a word that two groups share: "smelled of corn", a plant or a food).
The residue is one-sided: an ambiguous text has a little less information than its derivation, one or two
bits of some 380, so the floor is overstated by less than 0.01 per mille.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from .beats import BEATS, expand
from .grammar import Chance, Grammar, Writer
from .story_plots import PLOTS
from .words import read_lexicons

SEPARATOR = "\n<|endoftext|>\n"
"""What follows every story in a file, as in the TinyStories files."""

_STORIES_PER_SEED = 2**40


@dataclass(frozen=True)
class Story:
    """One story, and what it took to write it.

    text: the story, without the separator that follows it in a corpus.
    bits: information content of its derivation in bits, -log2 of the derivation's probability.
    choices: (index chosen, number of alternatives) for every choice, in order.
    """

    text: str
    bits: float
    choices: tuple[tuple[int, int], ...]

    @property
    def bits_per_char(self) -> float:
        """Bits per character of the text and the separator that follows it."""
        return self.bits / (len(self.text) + len(SEPARATOR))


@dataclass(frozen=True)
class Corpus:
    """Three splits of one text, and the information content of each in bits."""

    train: str
    valid: str
    test: str
    bits: dict[str, float]

    def floor(self, split: str) -> float:
        """The fewest bits per character that any model can reach on a split, in expectation."""
        if split not in self.bits:
            raise ValueError(f"no split {split!r}; there are {sorted(self.bits)}")
        return self.bits[split] / len(getattr(self, split))

    def perplexity_floor(self, split: str) -> float:
        """The lowest perplexity per character: 2 ** floor."""
        return 2.0 ** self.floor(split)


@cache
def tales_grammar() -> Grammar:
    """The grammar of the tales, compiled once."""
    return Grammar(expand(BEATS) + "\n" + PLOTS, read_lexicons())


def story_number(index: int, seed: int) -> int:
    """The number that seeds the random generator of one story of one corpus; no two share it."""
    if not 0 <= index < _STORIES_PER_SEED or seed < 0:
        raise ValueError(f"need 0 <= index < 2**40 and seed >= 0, got index={index}, seed={seed}")
    return seed * _STORIES_PER_SEED + index


def derive_story(index: int, seed: int = 0) -> Writer:
    """Story `index` of corpus `seed` with the full record of its derivation."""
    return tales_grammar().derive(Chance(story_number(index, seed)))


def generate_story(index: int, seed: int = 0) -> Story:
    """Story `index` of the endless corpus `seed`; needs no other story."""
    writer = derive_story(index, seed)
    choices = tuple((chosen, len(table)) for table, chosen, _ in writer.trail)
    return Story(writer.text, writer.bits, choices)


def stories(n: int, seed: int = 0, start: int = 0) -> Iterator[Story]:
    """Stories start, start + 1, ..., start + n - 1 of corpus `seed`."""
    return (generate_story(index, seed) for index in range(start, start + n))


def render(stories: Iterable[Story]) -> str:
    """The stories as one text, each followed by `SEPARATOR`."""
    return "".join(story.text + SEPARATOR for story in stories)


def split_of(index: int) -> str:
    """The split that story `index` belongs to: 5 % test, 5 % valid, 90 % train."""
    return {0: "test", 1: "valid"}.get(index % 20, "train")


def build_corpus(total_chars: int = 10_000_000, seed: int = 0) -> Corpus:
    """Stories 0, 1, 2, ... of corpus `seed` until there are at least `total_chars` characters."""
    if total_chars < 1:
        raise ValueError(f"total_chars must be positive, got {total_chars}")
    texts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    bits = dict.fromkeys(texts, 0.0)
    index = written = 0
    while written < total_chars:
        story, split = generate_story(index, seed), split_of(index)
        texts[split].append(story.text + SEPARATOR)
        bits[split] += story.bits
        written += len(texts[split][-1])
        index += 1
    return Corpus(**{split: "".join(parts) for split, parts in texts.items()}, bits=bits)


def entropy(n: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Mean bits per character (separators included) of stories, and its standard error.

    A Monte-Carlo estimate from the first `n` stories of corpus `seed`: a ratio of sums, with the
    standard error by the delta method.
    """
    if n < 2:
        raise ValueError(f"needs at least 2 stories, got {n}")
    pairs = [(story.bits, len(story.text) + len(SEPARATOR)) for story in stories(n, seed)]
    chars = sum(c for _, c in pairs)
    ratio = sum(b for b, _ in pairs) / chars
    variance = sum((b - ratio * c) ** 2 for b, c in pairs) / (n - 1)
    return ratio, math.sqrt(n * variance) / chars


__all__ = [
    "SEPARATOR", "Corpus", "Story", "build_corpus", "entropy", "generate_story", "render", "stories",
]  # fmt: skip
