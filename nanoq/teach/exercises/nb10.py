"""Exercises of notebook 10, CMPQ."""

import math
from fractions import Fraction

import torch

from nanoq.teach.checks import Exercise, Mistake

# ---- 10.correlations ----


def _basis(x):
    return torch.linalg.svd(x, full_matrices=False)[0]


def _correlations(x, y):
    return torch.linalg.svdvals(_basis(x - x.mean(0)).T @ _basis(y - y.mean(0)))


def _unwhitened(x, y):
    return torch.linalg.svdvals((x - x.mean(0)).T @ (y - y.mean(0)) / (len(x) - 1))


def _scaled(x, y):
    x, y = ((side - side.mean(0)) / side.std(0) for side in (x, y))
    return torch.linalg.svdvals(x.T @ y / (len(x) - 1))


def _right(x, y):
    x, y = (torch.linalg.svd(side - side.mean(0), full_matrices=False)[2] for side in (x, y))
    width = min(x.shape[1], y.shape[1])
    return torch.linalg.svdvals(x[:, :width] @ y[:, :width].T)


def _sides(generator):
    cases = []
    for n, p, q in ((40, 3, 2), (60, 2, 4), (30, 3, 3)):
        x = torch.randn(n, p, generator=generator, dtype=torch.float64)
        y = x @ torch.randn(p, q, generator=generator, dtype=torch.float64)
        y = y + torch.randn(n, q, generator=generator, dtype=torch.float64)
        cases.append((3 * x + 5, y - 4))
    return cases


# ---- 10.forced ----


def _forced(n, p, q):
    room = n - 1
    return max(0, min(p, room) + min(q, room) - room)


# ---- 10.enough ----


def _enough(width, level):
    return math.ceil(width / _square(level) + 1)


def _square(level):
    """The square of a level as it is written: in floats that of 0.1 is a little more than 0.01."""
    return Fraction(str(level)) ** 2


# ---- 10.scores ----


def _scores(alike):
    count = len(alike)
    return 1 - (alike.sum(1) - alike.diagonal()) / (count - 1)


def _tables(generator):
    tables = []
    for count in (3, 6):
        half = torch.rand(count, count, generator=generator, dtype=torch.float64)
        tables.append((torch.triu(half, 1) + torch.triu(half, 1).T + torch.eye(count),))
    return tables


# ---- 10.clusters ----


def _by_mean(labels, scores, bits, least_first=False):
    mean = {c: sum(s for s, own in zip(scores, labels, strict=True) if own == c) / labels.count(c)
            for c in set(labels)}
    order = sorted(mean, key=mean.get, reverse=not least_first)
    width = dict(zip(order, sorted(bits, reverse=True), strict=True))
    return [width[c] for c in labels]


def _by_label(labels, scores, bits):
    return [sorted(bits, reverse=True)[c] for c in labels]


def _by_appearance(labels, scores, bits):
    order = list(dict.fromkeys(labels))
    return [sorted(bits, reverse=True)[order.index(c)] for c in labels]


def _by_size(labels, scores, bits):
    order = sorted(set(labels), key=labels.count, reverse=True)
    return [sorted(bits, reverse=True)[order.index(c)] for c in labels]


def _by_sum(labels, scores, bits):
    total = {c: sum(s for s, own in zip(scores, labels, strict=True) if own == c) for c in set(labels)}
    order = sorted(total, key=total.get, reverse=True)
    return [sorted(bits, reverse=True)[order.index(c)] for c in labels]


# ---- 10.ends ----


def _segments(scores, share, whole=round, summary=lambda part: sum(part) / len(part)):
    k = whole(share * len(scores))
    return tuple(summary(part) for part in (scores[:k], scores[k:-k], scores[-k:]))


def _overlapping(scores, share):
    k = round(share * len(scores))
    return tuple(sum(part) / len(part) for part in (scores[:k], scores, scores[-k:]))


EXERCISES = [
    Exercise(
        id="10.correlations",
        points=2,
        reference=_correlations,
        cases=_sides,
        mistakes=[
            Mistake(
                lambda x, y: torch.linalg.svdvals(_basis(x).T @ _basis(y)),
                "the columns are not centred: two means far from 0 look like a common signal.",
            ),
            Mistake(
                _unwhitened,
                "those are covariances: they grow with the size of the features. Compare orthonormal bases instead.",
            ),
            Mistake(
                _scaled,
                "each column was scaled, but columns of one side still overlap: only orthonormal bases tell angles.",
            ),
            Mistake(
                _right,
                "those are the right singular vectors, directions among features; the samples are in the left ones.",
            ),
            Mistake(
                lambda x, y: _correlations(x, y).square(),
                "those are squared; the singular values themselves are the cosines.",
            ),
            Mistake(
                lambda x, y: _correlations(x, y)[0],
                "only the first: all min(p, q) of them are asked for.",
            ),
            Mistake(
                lambda x, y: _correlations(x, y).mean(),
                "the mean comes later: return all min(p, q) of them.",
            ),
            Mistake(
                lambda x, y: _correlations(x, y).flip(0),
                "the largest comes first, as svdvals returns them.",
            ),
        ],
    ),
    Exercise(
        id="10.forced",
        reference=_forced,
        cases=[(4, 2, 2), (100, 60, 60), (100, 20, 20), (50, 30, 20), (50, 80, 10), (193, 192, 192)],
        mistakes=[
            Mistake(
                lambda n, p, q: max(0, min(p, n) + min(q, n) - n),
                "centring takes a dimension away: the columns live in n - 1 dimensions, not in n.",
            ),
            Mistake(
                lambda n, p, q: min(p, n - 1) + min(q, n - 1) - (n - 1),
                "where there is room for both, none is forced: the number is never below 0.",
            ),
            Mistake(
                lambda n, p, q: max(0, p + q - (n - 1)),
                "a side with more columns than dimensions spans no more than the dimensions there are.",
            ),
            Mistake(
                lambda n, p, q: min(p, q) if p + q > n - 1 else 0,
                "the spans share what does not fit beside each other, not all of the smaller one.",
            ),
            Mistake(
                lambda n, p, q: min(p, q),
                "that is how many correlations there are, not how many have to be 1.",
            ),
        ],
    ),
    Exercise(
        id="10.enough",
        reference=_enough,
        cases=[(192, 0.3), (192, 0.15), (768, 0.25), (64, 0.5), (10, 0.07)],
        mistakes=[
            Mistake(
                lambda width, level: math.ceil(width / level + 1),
                "the law is for the squared correlation: square the level.",
            ),
            Mistake(
                lambda width, level: math.ceil(2 * width / _square(level) + 1),
                "the widths do not add up: the law has max(p, q), here the width of either.",
            ),
            Mistake(
                lambda width, level: math.floor(width / _square(level) + 1),
                "rounded down: that many samples are one too few, unless it comes out even.",
            ),
            Mistake(
                lambda width, level: math.ceil(width / _square(level)),
                "a sample is lost to the mean: n - 1, not n.",
            ),
            Mistake(
                lambda width, level: width / level**2 + 1,
                "samples are whole: the smallest whole number that does it.",
            ),
        ],
    ),
    Exercise(
        id="10.path",
        reference=lambda size: 1 / math.sqrt(1 + size**2),
        cases=[(0.1,), (0.5,), (1.0,), (2.0,)],
        mistakes=[
            Mistake(
                lambda size: 1 / (1 + size**2),
                "that is the squared correlation: the share of the output's variance that is the input's.",
            ),
            Mistake(
                lambda size: 1 / (1 + size),
                "independent parts add as variances, not as standard deviations.",
            ),
            Mistake(
                lambda size: 1 / math.sqrt(1 + size),
                "size is a ratio of standard deviations: the variance that is added is its square.",
            ),
            Mistake(
                lambda size: size / math.sqrt(1 + size**2),
                "that is the correlation of the output with what the block adds; asked for is that with its input.",
            ),
            Mistake(
                lambda size: math.sqrt(1 + size**2),
                "above 1 no correlation can be: that is the output's standard deviation over the input's.",
            ),
        ],
    ),
    Exercise(
        id="10.scores",
        reference=_scores,
        cases=_tables,
        mistakes=[
            Mistake(
                lambda alike: 1 - alike.mean(1),
                "each block was also compared with itself: leave the diagonal out of the sum and of the count.",
            ),
            Mistake(
                lambda alike: 1 - (alike.sum(1) - alike.diagonal()) / len(alike),
                "the diagonal is gone from the sum, but still in the count.",
            ),
            Mistake(
                lambda alike: (alike.sum(1) - alike.diagonal()) / (len(alike) - 1),
                "that is how alike; the paper's score is high for a block that is unlike the others.",
            ),
            Mistake(
                lambda alike: 1 - (alike - 2 * torch.eye(len(alike), dtype=alike.dtype)).amax(1),
                "that is the likeness to the nearest other block; the score takes the mean over all others.",
            ),
            Mistake(
                lambda alike: (len(alike) - 1) - (alike.sum(1) - alike.diagonal()),
                "a sum: it grows with the number of blocks. Take the mean.",
            ),
        ],
    ),
    Exercise(
        id="10.floor",
        reference=lambda step: (-step / 2, step**2 / 3),
        rtol=1e-3,
        cases=[(1.0,), (0.1,), (2.0,)],
        mistakes=[
            Mistake(
                lambda step: (0.0, step**2 / 12),
                "that is rounding to the nearest value, whose error lies evenly between -step/2 and step/2.",
            ),
            Mistake(
                lambda step: (-step / 2, step**2 / 12),
                "that is the variance of the error; the mean square has the square of the bias on top.",
            ),
            Mistake(
                lambda step: (-step / 2, step**2 / 4),
                "that is the square of the bias alone; the spread around it comes on top.",
            ),
            Mistake(
                lambda step: (step / 2, step**2 / 3),
                "floor goes down: what comes back is below what was there.",
            ),
            Mistake(
                lambda step: (-step, step**2),
                "that is the worst case. The error lies evenly between -step and 0: take the means.",
            ),
        ],
    ),
    Exercise(
        id="10.clusters",
        points=2,
        reference=_by_mean,
        cases=[
            ([1, 0, 2, 2, 0], [0.2, 0.5, 0.9, 0.8, 0.4], (16, 8, 4)),
            ([0, 1, 1, 2, 1, 1], [0.9, 0.3, 0.31, 0.1, 0.29, 0.3], (16, 8, 4)),
            ([2, 1, 0, 2], [1.0, 7.0, 3.0, 1.5], (2, 4, 3)),
            ([1, 0, 1], [0.3, 0.9, 0.1], (4, 8)),
            ([3, 0, 1, 2, 3], [0.3, 0.2, 0.7, 0.5, 0.5], (16, 8, 4, 2)),
        ],
        mistakes=[
            Mistake(
                _by_label,
                "the label is taken for a rank; it only says which layers belong together.",
            ),
            Mistake(
                _by_appearance,
                "the cluster that comes first in the model gets the most bits; what counts is its scores.",
            ),
            Mistake(
                _by_size,
                "the largest cluster gets the most bits; what counts is how high its scores are.",
            ),
            Mistake(
                lambda labels, scores, bits: _by_mean(labels, scores, bits, least_first=True),
                "upside down: the cluster with the highest scores gets the most bits.",
            ),
            Mistake(
                _by_sum,
                "the sum of the scores makes a large cluster look sensitive: compare means.",
            ),
        ],
    ),
    Exercise(
        id="10.ends",
        reference=lambda scores, share: _segments(scores, share),
        cases=[
            ([1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0, 20.0], 0.3),
            ([4.0, 3.0, 1.0, 1.5, 2.5, 6.0], 0.3),
            ([5.0, 1.0, 2.0, 3.0, 1.0, 4.0, 6.0, 8.0, 2.0, 7.0], 0.2),
        ],
        mistakes=[
            Mistake(
                lambda scores, share: _segments(scores, share, summary=sum),
                "sums: the segments are not equally long. Take means.",
            ),
            Mistake(
                _overlapping,
                "the middle still holds both ends.",
            ),
            Mistake(
                lambda scores, share: _segments(scores, share, whole=math.floor),
                "rounded down: the task says to the nearest whole number.",
            ),
            Mistake(
                lambda scores, share: _segments(sorted(scores), share),
                "the scores were sorted: first and last mean places in the model, not in the ranking.",
            ),
            Mistake(
                lambda scores, share: _segments(scores, share, summary=max),
                "the largest of each segment; asked for are the means.",
            ),
        ],
    ),
    Exercise(
        id="10.encoder",
        reference="b",
        mistakes=[
            Mistake("a", "both kinds attend; the question is, to which positions."),
            Mistake("c", "residual paths are in both, and so are norms."),
            Mistake("d", "the shapes of the matrices are the same in both: nothing in them tells the mask."),
        ],
    ),
    Exercise(
        id="10.factor",
        reference=4,
        mistakes=[
            Mistake(1, "not any difference is enough: at equal scores a bit less costs more than a bit more gains."),
            Mistake(2, "a bit halves the step, but the cost goes with the power of the noise, the square of it."),
            Mistake(16, "that is two bits. The two blocks end two bits apart, but each of them moves by one."),
            Mistake(3, "compare 1/16 - 1/64, the price of one bit less, with 1/64 - 1/256, the gain of one bit more."),
        ],
    ),
]
