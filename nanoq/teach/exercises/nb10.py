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


# ---- 10.allocate ----


def _allocate(costs, sizes, budget, value=lambda gain, price: gain / price, stops=False, within=lambda price, left:
              price <= left, best=max):
    """Buy bit by bit; the options make a mistake of it."""
    chosen = {name: min(widths) for name, widths in sizes.items()}
    left = budget - sum(sizes[name][bits] for name, bits in chosen.items())
    while True:
        offers = []
        for name, bits in chosen.items():
            if bits + 1 in sizes[name]:
                price = sizes[name][bits + 1] - sizes[name][bits]
                if stops or within(price, left):
                    offers.append((value(costs[name][bits] - costs[name][bits + 1], price), name, price))
        if not offers:
            return chosen
        _, name, price = best(offers)
        if not within(price, left):
            return chosen
        chosen[name] += 1
        left -= price


def _one_bit_each(costs, sizes, budget):
    chosen = {name: min(widths) for name, widths in sizes.items()}
    left = budget - sum(sizes[name][bits] for name, bits in chosen.items())
    gains = {name: (costs[name][b] - costs[name][b + 1]) / (sizes[name][b + 1] - sizes[name][b])
             for name, b in chosen.items()}
    for name in sorted(gains, key=gains.get, reverse=True):
        price = sizes[name][chosen[name] + 1] - sizes[name][chosen[name]]
        if price <= left:
            chosen[name] += 1
            left -= price
    return chosen


def _layer_by_layer(costs, sizes, budget):
    chosen = {name: min(widths) for name, widths in sizes.items()}
    for name, widths in sizes.items():
        for bits in sorted(widths):
            if sum(sizes[other][width] for other, width in (chosen | {name: bits}).items()) <= budget:
                chosen[name] = bits
    return chosen


def _uniform(costs, sizes, budget):
    widths = next(iter(sizes.values()))
    return dict.fromkeys(sizes, max(b for b in widths if sum(size[b] for size in sizes.values()) <= budget))


def _tables_of_costs(generator):
    cases = []
    for layers, budget in ((3, 0.55), (6, 0.5), (8, 0.31)):
        sensitivity = torch.rand(layers, generator=generator) + 0.2
        weights = torch.randint(1, 5, (layers,), generator=generator) * 12
        names = [f"layer {i}" for i in range(layers)]
        costs = {name: {bits: float(s) * 4.0**-bits * int(n) ** 0.5 for bits in (2, 3, 4)}
                 for name, s, n in zip(names, sensitivity, weights, strict=True)}
        sizes = {name: {bits: int(n) * bits + 7 for bits in (2, 3, 4)} for name, n in zip(names, weights, strict=True)}
        low, high = (sum(size[bits] for size in sizes.values()) for bits in (2, 4))
        cases.append((costs, sizes, low + round(budget * (high - low))))
    exact = {"a": {2: 4.0, 3: 1.0, 4: 0.5}, "b": {2: 9.0, 3: 2.0, 4: 0.1}}
    cases.append((exact, {"a": {2: 20, 3: 30, 4: 40}, "b": {2: 40, 3: 60, 4: 80}}, 90))  # it comes out even
    return cases


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
        why="singular values measure angles between two spans, however long and skewed the columns are.",
        minutes=8,
        difficulty=2,
        hints=(
            "what has to be taken off each column first? Which factor of a thin SVD has orthonormal columns, "
            "one row per sample?",
            "`u = torch.linalg.svd(x - x.mean(0), full_matrices=False).U`, the same for `y`; multiply the two, "
            "and look at `torch.linalg.svdvals`.",
        ),
        points=2,
        reference=_correlations,
        cases=_sides,
        paper=[(torch.tensor([[2.0, 2.0], [2.0, 0.0], [0.0, 0.0], [0.0, -2.0]]),
                torch.tensor([[1.0, 3.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, 1.0]]))],
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
        why="with fewer samples than features two spans meet for lack of room, whatever the features mean.",
        minutes=5,
        difficulty=2,
        hints=(
            "after centring there are n - 1 dimensions. How many of them does each side fill? How much is too much?",
            "start with `room = n - 1`; a side fills `min(p, room)` of it.",
        ),
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
        why="chance depends on the samples per dimension, so twice the width wants twice the samples.",
        minutes=4,
        difficulty=1,
        hints=(
            "put the level, squared, in place of the mean of the squares, and solve for n.",
            "`width / level**2 + 1` is where the law gives exactly the level; samples are whole numbers.",
        ),
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
        why="what a block adds has to be large before its output looks unlike its input.",
        minutes=4,
        difficulty=2,
        hints=(
            "the output is x + d. What is its variance, if that of x is 1? What is the covariance of x and x + d?",
            "covariance 1, variances 1 and `1 + size**2`.",
        ),
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
        why="a mean over the others makes models of any depth comparable.",
        minutes=4,
        difficulty=1,
        hints=(
            "which entry of a row is a block with itself? How many others are left?",
            "begin with `alike.sum(1) - 1`.",
        ),
        reference=_scores,
        cases=_tables,
        paper=[(torch.tensor([[1.0, 0.8, 0.4], [0.8, 1.0, 0.6], [0.4, 0.6, 1.0]]),)],
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
        why="the mean square is variance plus squared bias, so floor costs four times as much as nearest.",
        minutes=4,
        difficulty=2,
        hints=(
            "where is the middle of the interval from -step to 0? And the mean of e² over it?",
            "mean square = variance + bias², and the variance of an even spread over one step is `step**2 / 12`.",
        ),
        reference=lambda step: (-step / 2, step**2 / 3),
        rtol=5e-3,  # a simulation will do
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
        why="a label only says which layers belong together, so the clusters have to be ranked by what is in them.",
        minutes=8,
        difficulty=2,
        hints=(
            "collect the scores of each label, and take their mean.",
            "`order = sorted(means, key=means.get, reverse=True)`; then pair it with `sorted(bits, reverse=True)`.",
        ),
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
        why="how a share is rounded to whole layers can decide what the comparison says.",
        minutes=4,
        difficulty=1,
        hints=(
            "how many layers are at an end? Slice the list in three.",
            "`k = round(share * len(scores))`; the middle is `scores[k:-k]`.",
        ),
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
        why="a causal mask lets no output depend on a later token.",
        minutes=2,
        difficulty=1,
        hints=(
            "what may a position of a decoder look at?",
            "change the last token: which outputs may change?",
        ),
        reference="b",
        mistakes=[
            Mistake("a", "both kinds attend; the question is, to which positions."),
            Mistake("c", "residual paths are in both, and so are norms."),
            Mistake("d", "the shapes of the matrices are the same in both: nothing in them tells the mask."),
        ],
    ),
    Exercise(
        id="10.factor",
        why="a bit less costs four times what a bit more saves, so small differences in score are not worth a change.",
        minutes=3,
        difficulty=2,
        hints=(
            "write down what the giver loses from 3 to 2 bits, and what the taker saves from 3 to 4, each for "
            "a score of 1.",
            "1/16 - 1/64 is the loss, 1/64 - 1/256 the saving: how many times does one hold the other?",
        ),
        reference=4,
        mistakes=[
            Mistake(1, "not any difference is enough: at equal scores a bit less costs more than a bit more gains."),
            Mistake(2, "a bit halves the step, but the cost goes with the power of the noise, the square of it."),
            Mistake(16, "that is two bits. The two blocks end two bits apart, but each of them moves by one."),
            Mistake(3, "compare 1/16 - 1/64, the price of one bit less, with 1/64 - 1/256, the gain of one bit more."),
        ],
    ),
    Exercise(
        id="10.allocate",
        why="costs that fall by less with every bit make the best next step good enough, nearly always.",
        points=3,
        minutes=12,
        difficulty=3,
        reference=lambda costs, sizes, budget: _allocate(costs, sizes, budget),
        cases=_tables_of_costs,
        paper=[({"a": {2: 8, 3: 2, 4: 1}, "b": {2: 8, 3: 4, 4: 2}},
                {"a": {2: 40, 3: 60, 4: 80}, "b": {2: 20, 3: 30, 4: 40}}, 80)],
        mistakes=[
            Mistake(
                lambda costs, sizes, budget: _allocate(costs, sizes, budget, value=lambda gain, price: gain),
                "the saving of a step is compared without its price: divide by the bytes that the step takes.",
            ),
            Mistake(
                lambda costs, sizes, budget: _allocate(costs, sizes, budget, stops=True),
                "the best step does not fit any more, but another layer's may: look only at steps that fit.",
            ),
            Mistake(
                lambda costs, sizes, budget: _allocate(costs, sizes, budget, within=lambda price, left: price < left),
                "a step that uses the budget up to the last byte fits as well.",
            ),
            Mistake(
                lambda costs, sizes, budget: _allocate(costs, sizes, budget, best=min),
                "that takes the step that saves least per byte.",
            ),
            Mistake(
                lambda costs, sizes, budget: {name: max(widths) for name, widths in sizes.items()},
                "every layer has its largest width, whatever that takes: the sum of the sizes must not be above the "
                "budget.",
            ),
            Mistake(
                _uniform,
                "that is the largest width which fits for all layers alike; here each layer has its own.",
            ),
            Mistake(
                _one_bit_each,
                "each layer got one step at most: after a step, look at all layers again, that one too.",
            ),
            Mistake(
                _layer_by_layer,
                "the first layers of the model take all they can get; the step that saves most per byte comes first.",
            ),
        ],
        hints=(
            "keep two things: the width of each layer, and the bytes that are left. In a loop, list all steps from "
            "`bits` to `bits + 1` that fit; take the best; end when the list is empty.",
            "`chosen = {name: min(widths) for name, widths in sizes.items()}`, then `while True:` with a list of "
            "tuples `(saving per byte, name)`, of which `max` takes the best.",
        ),
    ),
    Exercise(
        id="10.width",
        why="whole bytes may hold a few bits too many, never too few, so rounding down is right.",
        minutes=3,
        difficulty=1,
        reference=lambda stored, columns: 8 * stored // columns,
        cases=[(48, 192), (72, 192), (96, 192), (288, 768), (4, 10), (8, 8)],
        mistakes=[
            Mistake(
                lambda stored, columns: stored // columns,
                "that is in bytes; a byte has 8 bits.",
            ),
            Mistake(
                lambda stored, columns: 8 * stored / columns,
                "the last byte of a row may not be full: the width is a whole number, rounded down.",
            ),
            Mistake(
                lambda stored, columns: -(-8 * stored // columns),
                "rounded up; the last byte of a row may hold bits that are no code's.",
            ),
            Mistake(
                lambda stored, columns: 8 * columns // stored,
                "upside down: how many bits are there for each code?",
            ),
            Mistake(
                lambda stored, columns: 8 * (stored // columns),
                "rounded too early: count the bits first, then divide.",
            ),
        ],
        hints=(
            "how many bits has a row? How many codes share them?",
            "`8 * stored` bits for `columns` codes, rounded down to a whole number.",
        ),
    ),
]
