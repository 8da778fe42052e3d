"""Tests of the story generator: its language, its statistics, and the exactness of its floor."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from nanoq.lm import tales
from nanoq.lm.tales.english import comparative, gerund, past, plural, starts_with_vowel_sound
from nanoq.lm.tales.grammar import Chance, Grammar, Lexicon, Replay, Writer, parse

# Measured on the TinyStories excerpt (12,957 stories); letters in per mille of all letters, a to z.
REAL_DECILES = [4, 5, 6, 7, 9, 10, 11, 12, 14]
REAL_LETTERS = [
    91,
    18,
    19,
    58,
    124,
    16,
    19,
    67,
    60,
    2,
    13,
    44,
    29,
    61,
    70,
    20,
    0,
    46,
    57,
    95,
    25,
    7,
    27,
    2,
    32,
    1,
]
FIRST_MEGABYTE = "686729711f0de3497f1713064fd50aac492252802f10c32dc582b5d383eb98f2"


@cache
def sample(n: int = 3000) -> list[tales.Story]:
    return list(tales.stories(n))


def texts() -> list[str]:
    return [story.text for story in sample()]


def words(text: str) -> list[str]:
    return re.findall("[a-z']+", text.lower())


# The statistics of the text.


def test_mean_length():
    assert 824 * 0.9 < sum(map(len, texts())) / len(texts()) < 824 * 1.1


def test_openings():
    share = sum(t.startswith("Once upon a time") for t in texts()) / len(texts())
    comma = sum(t.startswith("Once upon a time,") for t in texts()) / len(texts())
    one_day = sum(t.startswith("One day, a little") for t in texts()) / len(texts())
    assert abs(share - 0.62) < 0.03 and abs(comma - 0.56) < 0.03 and abs(one_day - 0.07) < 0.03


def test_sentence_lengths():
    lengths = sorted(len(s.split()) for t in texts() for s in re.split(r'[.!?]+["\s]*', t) if s.strip())
    deciles = [lengths[len(lengths) * k // 10] for k in range(1, 10)]
    assert max(abs(a - b) for a, b in zip(deciles, REAL_DECILES, strict=True)) <= 1
    assert abs(sum(lengths) / len(lengths) - 8.8) < 0.5


def test_letter_frequencies():
    counts = Counter(c for t in texts() for c in t.lower() if c.isalpha())
    total = counts.total()
    distance = sum(abs(counts[chr(97 + k)] / total - REAL_LETTERS[k] / 1000) for k in range(26)) / 2
    assert distance < 0.06  # total variation


def test_quotes_and_paragraphs():
    assert abs(sum(t.count('"') for t in texts()) / len(texts()) - 4.6) < 1
    assert 1 < sum(t.count("\n") for t in texts()) / len(texts()) < 5


def test_vocabulary_has_a_long_tail():
    counts = Counter(w for t in texts() for w in words(t))
    assert len(counts) > 7000
    assert sum(c < 5 for c in counts.values()) > 1000
    assert sum(c for _, c in counts.most_common(100)) > 0.4 * counts.total()


def test_no_two_stories_share_long_runs():
    """An upper bound of the longest shared run: all positions that two stories' 8-grams have in common."""
    homes = defaultdict(list)
    lengths = []
    for k, text in enumerate(texts()):
        tokens = text.split()
        lengths.append(len(tokens))
        for gram in {tuple(tokens[i : i + 8]) for i in range(len(tokens) - 7)}:
            homes[gram].append(k)
    shared = Counter((a, b) for owners in homes.values() for i, a in enumerate(owners) for b in owners[i + 1 :])
    worst = max((n + 7) / min(lengths[a], lengths[b]) for (a, b), n in shared.items())
    assert worst < 0.4


# The grammar of the text.


@pytest.mark.parametrize(
    "pattern",
    [
        r"  ", r" \n", r"\n ", r"\n\n\n", r" [,.!?]", r"[,.!?][,.!?]", r"[{}\[\]|%^\\_=]", r"[.!?] [a-z]",
        r'(^|\s)"[a-z]', r"\b[Aa] ([ai]|e(?!u)|o(?!ne))\w+", r"\b[Aa]n [bcdfgjklmnpqrstvwxyz]\w*", r"\n[a-z]",
    ],
)  # fmt: skip
def test_no_mistake_of_form(pattern):
    found = [t[max(0, m.start() - 20) : m.end() + 20] for t in texts() if (m := re.search(pattern, t))]
    assert not found


def test_quotes_are_balanced_and_stories_end():
    for text in texts():
        assert text.count('"') % 2 == 0
        assert text[0].isupper() and text[-1] in '.!?"'
        assert all(c == "\n" or " " <= c <= "~" for c in text)


def test_pronouns_follow_the_person():
    people = {name: tales.tales_grammar().lexicons[name] for name in ("girl", "boy")}
    tale = "saw {A.his} dog. {A.he} hid. it saw {A.him}."
    rules = "@story\n{A=girl} " + tale + "\n{A=boy} " + tale
    grammar = Grammar(rules, people)
    stories = [grammar.derive(Chance(k)).text for k in range(20)]
    assert all(re.search(r"saw (her dog\. She hid\. It saw her|his dog\. He hid\. It saw him)\.", t) for t in stories)


@pytest.mark.parametrize(
    ("function", "word", "expected"),
    [
        (plural, "fox", "foxes"), (plural, "puppy", "puppies"), (plural, "wolf", "wolves"),
        (plural, "pair of boots", "pairs of boots"), (plural, "toy car", "toy cars"),
        (plural, "donkey", "donkeys"),
        (past, "hop", "hopped"), (past, "cry", "cried"), (past, "look at", "looked at"), (past, "find", "found"),
        (past, "unwrap", "unwrapped"), (past, "play", "played"), (past, "whisper", "whispered"),
        (gerund, "make", "making"), (gerund, "lie", "lying"), (gerund, "see", "seeing"), (gerund, "run", "running"),
        (comparative, "big", "bigger"), (comparative, "pretty", "prettier"), (comparative, "good", "better"),
        (comparative, "wonderful", "more wonderful"),
    ],
)  # fmt: skip
def test_inflection(function, word, expected):
    assert function(word) == expected


def test_vowel_sounds():
    assert all(map(starts_with_vowel_sound, ["apple", "hour", "umbrella", "unusual", "honest fox"]))
    assert not any(map(starts_with_vowel_sound, ["unicorn", "house", "useful key", "one", "eucalyptus"]))


# Determinism and the corpus.


def test_the_text_never_changes():
    text = tales.render(tales.stories(1250))[:1_000_000]
    assert len(text) == 1_000_000
    assert hashlib.sha256(text.encode()).hexdigest() == FIRST_MEGABYTE


def test_stories_are_independent_of_each_other():
    assert tales.generate_story(17) == sample()[17] == next(tales.stories(1, start=17))
    assert tales.generate_story(17, seed=1).text != sample()[17].text


def test_corpus_splits_by_story():
    corpus = tales.build_corpus(60_000, seed=3)
    parts = {"train": "", "valid": "", "test": ""}
    for k in range(200):
        parts[tales.split_of(k)] += tales.generate_story(k, 3).text + tales.SEPARATOR
    for split, text in parts.items():
        assert text.startswith(getattr(corpus, split))
    assert sum(len(getattr(corpus, s)) for s in parts) >= 60_000
    bits = defaultdict(float)
    count = sum(getattr(corpus, s).count("<|endoftext|>") for s in parts)
    for k in range(count):
        bits[tales.split_of(k)] += tales.generate_story(k, 3).bits
    assert corpus.bits == pytest.approx(dict(bits))
    assert corpus.floor("test") == pytest.approx(bits["test"] / len(corpus.test))
    assert corpus.perplexity_floor("test") == pytest.approx(2 ** corpus.floor("test"))


@pytest.mark.parametrize(
    "call",
    [
        lambda: tales.generate_story(-1),
        lambda: tales.generate_story(0, seed=-1),
        lambda: tales.build_corpus(0),
        lambda: tales.entropy(1),
        lambda: tales.build_corpus(1).floor("dev"),
        lambda: Grammar("@story\na\na", {}),
        lambda: Grammar("@story\n{nothing}", {}),
        lambda: Grammar("@story\n[a|b", {}),
        lambda: Lexicon("twins", ["a", "a"], [1, 1], {}),
        lambda: Lexicon("empty", [], [], {}),
    ],
)
def test_wrong_input_is_named(call):
    with pytest.raises(ValueError, match=r"\w{4}"):
        call()


# The floor.


def test_bits_are_the_product_of_the_probabilities():
    for k in range(50):
        writer = tales.derive_story(k)
        probability = [t.weights[i] / (t.total - sum(t.weights[e] for e in out)) for t, i, out in writer.trail]
        assert all(i not in out for _, i, out in writer.trail)
        assert writer.bits == pytest.approx(-sum(map(math.log2, probability)))
        assert tales.generate_story(k).choices == tuple((i, len(t)) for t, i, _ in writer.trail)


@pytest.mark.parametrize("name", ["once", "child_plot", "animal_plot", "breaks", "sizeadj", "adjs", "named"])
def test_choices_have_the_stated_frequencies(name):
    grammar = tales.tales_grammar()
    table = grammar.tables.get(name) or grammar.lexicons[name]
    counts = Counter(i for k in range(1500) for t, i, out in tales.derive_story(k).trail if t is table and not out)
    n = counts.total()
    expected = [n * w / table.total for w in table.weights]
    assert n > 300 and min(expected) > 3
    chi2 = sum((counts[i] - e) ** 2 / e for i, e in enumerate(expected))
    freedom = len(table) - 1
    assert abs(chi2 - freedom) < 4 * math.sqrt(2 * freedom) + 4


TINY = """
@story
3: the {x=pet} [saw|met^2] a [{size} |]{pet}{end}
1: no {x=pet} came{end}
@end
.
2: , and {x} ran.
"""


def tiny_grammar(rules: str = TINY) -> Grammar:
    pets = Lexicon("pet", ["cat", "owl", "dog"], [5, 2, 1], {})
    return Grammar(rules, {"pet": pets, "size": Lexicon("size", ["big", "old"], [2, 1], {})})


class AllChoices:
    """A source that walks through all derivations of a small grammar, one a run."""

    def __init__(self, path: list[int], pending: list[list[int]]):
        self.path, self.pending, self.at = path, pending, 0

    def choose(self, writer: Writer, table, form, excluded):
        allowed = [i for i in range(len(table)) if i not in excluded]
        if self.at == len(self.path):
            self.pending += [[*self.path, i] for i in allowed[1:]]
            self.path = [*self.path, allowed[0]]
        self.at += 1
        return self.path[self.at - 1]


def enumerate_all(grammar: Grammar) -> list[Writer]:
    pending, found = [[]], []
    while pending:
        found.append(grammar.derive(AllChoices(pending.pop(), pending)))
    return found


def test_a_tiny_grammar_enumerated_completely():
    everything = enumerate_all(tiny_grammar())
    assert math.fsum(2.0**-w.bits for w in everything) == pytest.approx(1)
    assert len({w.text for w in everything}) == len(everything)
    entropy = math.fsum(w.bits * 2.0**-w.bits for w in everything)
    drawn = [tiny_grammar().derive(Chance(k)).bits for k in range(4000)]
    mean = sum(drawn) / len(drawn)
    error = math.sqrt(sum((b - mean) ** 2 for b in drawn)) / len(drawn)
    assert abs(mean - entropy) < 4 * error


def test_entropy_estimate_agrees_with_itself():
    (a, error_a), (b, error_b) = tales.entropy(400, seed=5), tales.entropy(400, seed=6)
    assert abs(a - b) < 5 * math.hypot(error_a, error_b)
    assert 0.4 < a < 0.9


# Injectivity: two derivations never give the same text.


def test_parse_finds_exactly_the_recorded_derivation():
    for k in range(120):
        writer = tales.derive_story(k)
        found = list(parse(tales.tales_grammar(), writer.text))
        assert len(found) == 1
        assert [i for _, i, _ in found[0].trail] == [i for _, i, _ in writer.trail]
        assert found[0].bits == pytest.approx(writer.bits)


def test_parse_notices_ambiguity():
    twice = tiny_grammar("@story\na [big |]{pet}\na [{size} |]{pet}")
    assert len(list(parse(twice, "A big cat"))) == 2
    assert len(list(parse(twice, "An old cat"))) == 1
    assert not list(parse(twice, "A new cat"))


class ForceOne:
    """Chance, but choice number `at` takes the alternative `index`."""

    def __init__(self, number: int, at: int, index: int):
        self.chance, self.left, self.index = Chance(number), at, index

    def choose(self, writer, table, form, excluded):
        drawn = self.chance.choose(writer, table, form, excluded)
        self.left -= 1
        return self.index if self.left == -1 else drawn


def test_every_other_alternative_gives_another_text():
    """Same random stream, one choice forced; four alternatives at each choice of 40 stories."""
    grammar = tales.tales_grammar()
    for k in range(40):
        writer = tales.derive_story(k)
        for at, (table, chosen, excluded) in enumerate(writer.trail):
            others = [i for i in range(len(table)) if i != chosen and i not in excluded]
            for i in others[:: max(1, len(others) // 3)]:
                assert grammar.derive(ForceOne(k, at, i)).text != writer.text


def test_replay_repeats_a_story():
    writer = tales.derive_story(4)
    again = tales.tales_grammar().derive(Replay([i for _, i, _ in writer.trail], Chance(99)))
    assert again.text == writer.text and again.bits == writer.bits
