"""Exercises of notebook 16, the playground."""

import math

import torch

from nanoq.teach.checks import Exercise, Mistake

# ---- 16.shared ----


def _shared(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


# ---- 16.inverse_cdf, 16.race ----


def _distributions(generator):
    for size in (3, 5, 8):
        yield torch.rand(size, generator=generator, dtype=torch.float64).add(0.05)


def _lots(generator):
    lots = [(torch.tensor([0.5, 0.25, 0.25]), u) for u in (0.2, 0.6, 0.9, 0.5, 0.0)]
    for weights in _distributions(generator):
        lots += [(weights / weights.sum(), float(torch.rand((), generator=generator))) for _ in range(4)]
    return lots


def _races(generator):
    drawn = [(weights / weights.sum(), -torch.rand(len(weights), generator=generator, dtype=torch.float64).log())
             for weights in [*_distributions(generator), *_distributions(generator)]]
    near = torch.tensor([[0.6, 0.3, 0.1], [6.0, 3.5, 5.0]], dtype=torch.float64)  # where a difference names another one
    return [*drawn, tuple(near)]


# ---- 16.surprise ----


def _logits(generator):
    return [(3 * torch.randn(size, generator=generator), index) for size, index in ((3, 0), (6, 4), (9, 2))]


# ---- 16.speed ----

TIMES = [([0.2, 0.01, 0.01, 0.04],), ([0.5, 0.1, 0.3],), ([0.05, 0.02, 0.01, 0.03, 0.01],)]


EXERCISES = [
    Exercise(
        id="16.shared",
        why="behind the first difference each model goes on from its own words, and equal places mean nothing.",
        minutes=4,
        difficulty=1,
        reference=_shared,
        cases=[("the cat sat", "the cow sat"), ("a dog", "a dog"), ("xyz", "abc"), ("Tom was", "Tom"),
               ("abcabc", "abdabc"), ([5, 7, 7, 2], [5, 7, 1, 2])],
        mistakes=[
            Mistake(
                lambda a, b: sum(x == y for x, y in zip(a, b, strict=False)),
                "that counts every place at which the two agree. After the first difference they are two texts, and "
                "agree by accident.",
            ),
            Mistake(
                lambda a, b: _shared(a, b) + 1,
                "one too many: count the characters *before* the first difference.",
            ),
            Mistake(
                lambda a, b: max((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
                                 default=min(len(a), len(b))),
                "that is the last difference; stop at the first.",
            ),
            Mistake(
                lambda a, b: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0),
                "what if one is the beginning of the other, or both are the same? Then they share all of the shorter.",
            ),
            Mistake(
                lambda a, b: next(i for i in range(max(len(a), len(b)) + 1) if a[i] != b[i]),
                "an index ran over the end of the shorter text: two equal texts have no difference to find.",
            ),
        ],
        hints=(
            "how many places would you look at if one text is shorter, and when do you stop?",
            "a loop over the places of the shorter text that ends at the first difference; without one, its length.",
        ),
    ),
    Exercise(
        id="16.inverse_cdf",
        why="a uniform number falls on a piece with a probability equal to its length.",
        minutes=5,
        difficulty=2,
        reference=lambda p, u: int((p.cumsum(0) <= u).sum()),
        cases=_lots,
        mistakes=[
            Mistake(
                lambda p, u: int(p.argmax()),
                "u is not used: that is temperature 0, the likeliest every time.",
            ),
            Mistake(
                lambda p, u: int((p <= u).sum()),
                "the probabilities have to be laid end to end first: a running sum.",
            ),
            Mistake(
                lambda p, u: int((p.cumsum(0) <= u).sum()) + 1,
                "one too far: if no piece ends before u, u lies in piece number 0.",
            ),
            Mistake(
                lambda p, u: max(int((p.cumsum(0) <= u).sum()) - 1, 0),
                "that is the piece before. How many pieces end at or before u? That many come first.",
            ),
            Mistake(
                lambda p, u: int((p.cumsum(0) <= 1 - u).sum()),
                "counted from the other end: it draws as often, but it is not the same lot.",
            ),
            Mistake(
                lambda p, u: int(u * len(p)),
                "that divides the line into equal pieces: every character would be equally likely.",
            ),
        ],
        hints=(
            "where does each piece end? A running sum says so.",
            "the index is the number of pieces that end at or before u.",
        ),
    ),
    Exercise(
        id="16.race",
        why="of independent exponential waiting times the smallest belongs to each runner in proportion to its speed.",
        minutes=4,
        difficulty=1,
        reference=lambda p, waits: int((waits / p).argmin()),
        cases=_races,
        mistakes=[
            Mistake(
                lambda p, waits: int((waits / p).argmax()),
                "that is the last to arrive; the first wins.",
            ),
            Mistake(
                lambda p, waits: int((waits * p).argmin()),
                "multiplied: a likelier character has to arrive sooner, so its probability divides.",
            ),
            Mistake(
                lambda p, waits: int(waits.argmin()),
                "the waits alone know nothing of the model.",
            ),
            Mistake(
                lambda p, waits: int(p.argmax()),
                "the waits are not used: that is temperature 0.",
            ),
        ],
        hints=(
            "what does each runner take, and who of them arrives first?",
            "the waiting time divided by the probability; the index of the smallest.",
        ),
    ),
    Exercise(
        id="16.surprise",
        why="the mean of these bits over a text is the model's loss in bits, character by character.",
        minutes=4,
        difficulty=1,
        reference=lambda logits, index: float(-logits.log_softmax(0)[index] / math.log(2)),
        cases=_logits,
        mistakes=[
            Mistake(
                lambda logits, index: float(-logits.log_softmax(0)[index]),
                "those are nats: divide by ln 2 for bits.",
            ),
            Mistake(
                lambda logits, index: float(logits.log_softmax(0)[index] / math.log(2)),
                "the sign: a probability below 1 has a negative logarithm, and surprise is never negative.",
            ),
            Mistake(
                lambda logits, index: float(logits.softmax(0)[index]),
                "that is the probability. Surprise is -log2 of it.",
            ),
            Mistake(
                lambda logits, index: float(-logits[index] / math.log(2)),
                "a logit is a log-probability only after the softmax has made all of them sum to 1.",
            ),
            Mistake(
                lambda logits, index: float(-logits.log_softmax(0)[index] * math.log(2)),
                "from nats to bits one divides by ln 2, which makes the number larger.",
            ),
            Mistake(
                lambda logits, index: float(-(logits.log_softmax(0) * logits.softmax(0)).sum() / math.log(2)),
                "that is the mean surprise that the model expects, its entropy; asked for is this one character's.",
            ),
        ],
        hints=(
            "make probabilities of the logits first; which of them counts?",
            "`log_softmax`, the entry of the character, a minus, and from nats to bits.",
        ),
    ),
    Exercise(
        id="16.speed",
        why="a rate is a count divided by the total time of what is counted.",
        minutes=3,
        difficulty=1,
        reference=lambda seconds: (len(seconds) - 1) / sum(seconds[1:]),
        cases=TIMES,
        mistakes=[
            Mistake(
                lambda seconds: len(seconds) / sum(seconds),
                "the first time includes the reading of the prompt: leave it out, above and below the line.",
            ),
            Mistake(
                lambda seconds: len(seconds) / sum(seconds[1:]),
                "the first time is left out of the sum, its character not of the count.",
            ),
            Mistake(
                lambda seconds: sum(1 / s for s in seconds[1:]) / (len(seconds) - 1),
                "a mean of rates counts the quick characters too much: characters by *total* time.",
            ),
            Mistake(
                lambda seconds: sum(seconds[1:]) / (len(seconds) - 1),
                "seconds per character: turn it over.",
            ),
            Mistake(
                lambda seconds: (len(seconds) - 1) / sum(seconds),
                "the first character is left out of the count, its time not of the sum.",
            ),
        ],
        hints=(
            "which characters have a time that is only theirs?",
            "all but the first: their number, divided by the sum of their times.",
        ),
    ),
    Exercise(
        id="16.longer",
        why="a divergence is quadratic in small differences of probabilities, the chance to part is linear in them.",
        minutes=3,
        difficulty=2,
        reference=lambda times_less: math.sqrt(times_less),
        cases=[(100.0,), (4.0,), (2.5,)],
        mistakes=[
            Mistake(
                lambda times_less: times_less,
                "that would be a slope of -1. Read the slope from the figure.",
            ),
            Mistake(
                lambda times_less: 1 / math.sqrt(times_less),
                "less divergence, *longer* together.",
            ),
            Mistake(
                lambda times_less: times_less**2,
                "the divergence is about the square of the difference, and you have squared once more: take the root.",
            ),
            Mistake(
                lambda times_less: math.log2(times_less),
                "on two logarithmic axes a straight line is a power, not a logarithm.",
            ),
        ],
        hints=(
            "the slope of the line is -1/2: what does that say about the length if the divergence is divided by four?",
            "a straight line on two logarithmic axes is a power; the exponent is its slope.",
        ),
    ),
    Exercise(
        id="16.conclusion",
        why="a text is one draw, and another seed changes it more than int8 does.",
        minutes=2,
        difficulty=1,
        reference="c",
        mistakes=[
            Mistake("a", "two seeds of one model write different stories, too, and neither is worse for it."),
            Mistake("b", "one text is one draw, and little surprise is also what a dull text has: at temperature 0 it "
                         "is least. Which measure of notebook 04 does not depend on the draw?"),
            Mistake("d", "the same bits per character for one text is no proof of equality either: how wide is its "
                         "interval?"),
        ],
        hints=(
            "which of the four statements would also hold for two seeds of one model?",
            "look for the measurement that both models face alike, and that comes with an interval.",
        ),
    ),
]
