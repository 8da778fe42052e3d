"""Exercises of notebook 05, ternary weights."""

import math

import torch

from nanoq.teach.checks import Exercise, Mistake

# ---- 05.mquant ----

# A third and two thirds of a normal distribution lie within so many standard deviations.
THIRD, TWO_THIRDS = (math.sqrt(2) * torch.erfinv(torch.tensor([1, 2], dtype=torch.float64) / 3)).tolist()


def _rms(weight):
    return weight.square().mean(1, keepdim=True).sqrt()


def _thirds(sigma, threshold=THIRD):
    return threshold * sigma, 2 * threshold * sigma


def _matrices(generator):
    spread = torch.tensor([[0.5], [1.0], [2.0]])
    return [(torch.randn(3, n, generator=generator) * spread + 0.2,) for n in (40, 200)]


# ---- 05.best_level, 05.fair_level: weights (n,) and a threshold ----


def _rows(generator):
    return [(torch.randn(n, generator=generator) + 0.3, t) for n, t in ((25, 0.4), (60, 0.8), (200, 1.1))]


def _above(weight, threshold):
    return weight.abs()[weight.abs() > threshold]


# ---- 05.lloyd: weights (n,) and a number of steps ----


def _lloyd(weight, steps, start=torch.max, share=0.5, mean=lambda w, t: _above(w, t).mean()):
    level = start(weight.abs())
    for _ in range(steps):
        level = mean(weight, share * level)
    return float(level)


# ---- 05.pack5 ----

PACK_CASES = [
    (torch.tensor([1, 0, 0, 0, 0]),),
    (torch.tensor([2, 1, 0, 2, 1]),),
    (torch.tensor([2, 2, 2, 2, 2, 0, 1, 2, 0, 0]),),
    (torch.tensor([1, 2, 0, 1, 1, 0, 0, 2, 1, 2, 2, 0, 0, 1, 0]),),
]


def _pack5(codes, factors=(1, 3, 9, 27, 81)):
    return (codes.view(-1, 5) * torch.tensor(factors)).sum(1).to(torch.uint8)


# ---- 05.operations ----

CODES = [
    (torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]]),),
    (torch.tensor([[2, 0, 0], [1, 0, 2], [1, 1, 1], [0, 0, 2]]),),
]

# ---- 05.gain: weights and what became of them, (n,) each ----


def _pairs(generator):
    cases = []
    for n, level in ((30, 0.8), (100, 1.5)):
        weight = torch.randn(n, generator=generator)
        cases.append((weight, level * weight.sign() * (weight.abs() > level / 2)))
    return cases


EXERCISES = [
    Exercise(
        id="05.zeros",
        reference=lambda largest: math.erf(largest / 2 / math.sqrt(2)),
        cases=[(2.9,), (3.4,), (4.3,)],
        mistakes=[
            Mistake(
                lambda largest: math.erf(largest / math.sqrt(2)),
                "that counts all weights up to the largest; from where on is a weight nearer to it than to 0?",
            ),
            Mistake(
                lambda largest: math.erf(largest / 2),
                "the square root of 2 is missing: erf is not yet the normal distribution.",
            ),
            Mistake(
                lambda largest: (1 + math.erf(largest / 2 / math.sqrt(2))) / 2,
                "that also counts the large negative weights, which become -level: both tails are cut.",
            ),
            Mistake(
                lambda largest: 1 - math.erf(largest / 2 / math.sqrt(2)),
                "that is the share that is *not* swallowed.",
            ),
        ],
    ),
    Exercise(
        id="05.worst_error",
        reference=lambda threshold, level, largest: max(threshold, abs(level - threshold), abs(largest - level)),
        cases=[(0.5, 1.0, 1.0), (1 / 3, 2 / 3, 1.0), (0.2, 0.4, 1.5), (0.9, 1.1, 1.2), (0.1, 0.8, 1.0)],
        mistakes=[
            Mistake(
                lambda threshold, level, largest: max(abs(level - threshold), abs(largest - level)),
                "the weights that become 0 are forgotten: how far off is the largest of them?",
            ),
            Mistake(
                lambda threshold, level, largest: max(threshold, abs(largest - level)),
                "a weight just above the threshold moves too, up to the level.",
            ),
            Mistake(
                lambda threshold, level, largest: max(threshold, abs(level - threshold)),
                "the largest weight is forgotten: it comes down to the level, or goes up to it.",
            ),
            Mistake(
                lambda threshold, level, largest: (threshold + abs(level - threshold) + abs(largest - level)) / 3,
                "an average hides what is asked for: the worst of the cases.",
            ),
        ],
    ),
    Exercise(
        id="05.mquant",
        reference=lambda weight: _thirds(_rms(weight)),
        cases=_matrices,
        mistakes=[
            Mistake(
                lambda weight: (THIRD * _rms(weight), THIRD * _rms(weight)),
                "the level equals the threshold: nearest rounding puts the threshold half-way to the level.",
            ),
            Mistake(
                lambda weight: (THIRD / math.sqrt(2) * _rms(weight), math.sqrt(2) * THIRD * _rms(weight)),
                "the square root of 2 is missing: t = sigma * sqrt(2) * erfinv(1/3).",
            ),
            Mistake(
                lambda weight: _thirds(_rms(weight), TWO_THIRDS),
                "erfinv(2/3) puts two thirds of the weights into zero's cell; one third belongs there.",
            ),
            Mistake(
                lambda weight: _thirds(weight.square().mean().sqrt()),
                "that is one threshold for the matrix: each row has a root mean square of its own.",
            ),
            Mistake(
                lambda weight: _thirds(_rms(weight)[:, 0]),
                "right numbers, wrong shape: with keepdim=True they fit (out, 1).",
            ),
            Mistake(
                lambda weight: _thirds(weight.std(1, keepdim=True)),
                "std subtracts the mean first; the three cells lie around 0, so take the root of the mean square.",
            ),
            Mistake(
                lambda weight: _thirds(weight.abs().mean(1, keepdim=True)),
                "that is the mean size; the formula wants the root mean square.",
            ),
        ],
    ),
    Exercise(
        id="05.best_level",
        reference=lambda weight, threshold: float(_above(weight, threshold).mean()),
        cases=_rows,
        mistakes=[
            Mistake(
                lambda weight, threshold: float(weight[weight.abs() > threshold].mean()),
                "positive and negative weights cancel there: average the sizes.",
            ),
            Mistake(
                lambda weight, threshold: float(_above(weight, threshold).sum() / len(weight)),
                "divided by all weights: those that became 0 have no say in the level.",
            ),
            Mistake(
                lambda weight, threshold: float(weight.abs().mean()),
                "the weights below the threshold become 0 whatever the level is: leave them out.",
            ),
            Mistake(
                lambda weight, threshold: 2 * threshold,
                "that is the level for which the threshold is best, not the best level for the threshold.",
            ),
            Mistake(
                lambda weight, threshold: float(weight[weight > threshold].mean()),
                "half of them are missing: the negative weights beyond the threshold share the level.",
            ),
            Mistake(
                lambda weight, threshold: float(_above(weight, threshold).square().mean().sqrt()),
                "that keeps the sum of the squares, but it is the squared *error* that should be least.",
            ),
        ],
    ),
    Exercise(
        id="05.lloyd",
        points=2,
        reference=_lloyd,
        cases=lambda generator: [(torch.randn(n, generator=generator) + 0.2, steps)
                                 for n, steps in ((50, 1), (200, 2), (1000, 30))],
        mistakes=[
            Mistake(
                lambda weight, steps: _lloyd(weight, steps, share=1.0),
                "the threshold is the level itself: the nearest of 0 and the level changes half-way between them.",
            ),
            Mistake(
                lambda weight, steps: _lloyd(weight, steps, mean=lambda w, t: _above(w, t).sum() / len(w)),
                "divided by all weights: the level is the mean of those above the threshold.",
            ),
            Mistake(
                lambda weight, steps: _lloyd(weight, steps, start=torch.mean),
                "that starts at the mean size; start at the largest, so that the path can be compared.",
            ),
            Mistake(
                lambda weight, steps: _lloyd(weight, steps - 1),
                "one step is missing.",
            ),
            Mistake(
                lambda weight, steps: _lloyd(weight, steps) / 2,
                "that is the threshold; the level is twice as large.",
            ),
            Mistake(
                lambda weight, steps: _lloyd(weight, steps, mean=lambda w, t: w[w > t].mean()),
                "the negative weights beyond the threshold share the level: use sizes.",
            ),
        ],
    ),
    Exercise(
        id="05.mse",
        reference=lambda level, share, total: 1 - 2 * level * total + level**2 * share,
        cases=[(0.8, 0.7, 0.75), (1.2, 0.5, 0.65), (2.0, 0.3, 0.5)],
        mistakes=[
            Mistake(
                lambda level, share, total: 1 - 2 * level * total + level**2,
                "level² counts only for the share of the weights that get the level.",
            ),
            Mistake(
                lambda level, share, total: 1 - level * total + level**2 * share,
                "the mixed term of a square comes twice.",
            ),
            Mistake(
                lambda level, share, total: level**2 * share - 2 * level * total,
                "the square of the weight itself is missing; its mean is 1 here.",
            ),
            Mistake(
                lambda level, share, total: 1 - 2 * level * total + level * share,
                "the last term has the level squared.",
            ),
            Mistake(
                lambda level, share, total: 1 - 2 * level * total * share + level**2 * share,
                "the sum runs over all weights, with 0 for those below: it holds the share already.",
            ),
        ],
    ),
    Exercise(
        id="05.expected",
        reference="c",
        mistakes=[
            Mistake("a", "look at the table: there are quantisers with a smaller mean squared error."),
            Mistake("b", "near it, but not at it: look for the lowest mean absolute error in the table."),
            Mistake("d", "that is TQuant; equal mass does not look at the largest weight at all."),
        ],
    ),
    Exercise(
        id="05.pack5",
        reference=_pack5,
        cases=PACK_CASES,
        dtype=torch.uint8,
        mistakes=[
            Mistake(
                lambda codes: _pack5(codes, (81, 27, 9, 3, 1)),
                "wrong order: here the first code is the lowest digit, as bits were in notebook 04.",
            ),
            Mistake(
                lambda codes: _pack5(codes, (1, 4, 16, 64, 256)),
                "that shifts by two bits for each code, and the fifth falls out of the byte: the base is 3.",
            ),
            Mistake(
                lambda codes: _pack5(codes, (1, 2, 4, 8, 16)),
                "base 2 has no digit 2: different codes would give the same byte.",
            ),
            Mistake(
                lambda codes: _pack5(codes, (0, 3, 6, 9, 12)),
                "3 * i is not 3 ** i: the lowest digit counts 1.",
            ),
            Mistake(
                lambda codes: (codes.view(5, -1) * torch.tensor([[1], [3], [9], [27], [81]])).sum(0).to(torch.uint8),
                "a byte holds five neighbours, codes 0 to 4, then 5 to 9: look at the order of the view.",
            ),
        ],
    ),
    Exercise(
        id="05.operations",
        reference=lambda codes: (len(codes), int((codes != 1).sum())),
        cases=CODES,
        mistakes=[
            Mistake(
                lambda codes: (0, int((codes != 1).sum())),
                "not quite free of multiplications: the level of each row is still to be applied, once.",
            ),
            Mistake(
                lambda codes: (codes.numel(), int((codes != 1).sum())),
                "those are the multiplications of a float product; here the level comes after the sum.",
            ),
            Mistake(
                lambda codes: (len(codes), codes.numel()),
                "a weight of 0 adds nothing: it is skipped.",
            ),
            Mistake(
                lambda codes: (len(codes), int((codes == 1).sum())),
                "those are the skipped ones.",
            ),
            Mistake(
                lambda codes: (len(codes), int((codes != 0).sum())),
                "code 0 stands for minus the level; which code stands for the value 0?",
            ),
            Mistake(
                lambda codes: (int((codes != 1).sum()), len(codes)),
                "the two numbers have changed places: multiplications first.",
            ),
        ],
    ),
    Exercise(
        id="05.gain",
        reference=lambda weight, rounded: float((rounded * weight).sum() / weight.square().sum()),
        cases=_pairs,
        mistakes=[
            Mistake(
                lambda weight, rounded: float(rounded.norm() / weight.norm()),
                "that ratio also counts the noise; only the part of the rounded row that points along w counts.",
            ),
            Mistake(
                lambda weight, rounded: float((rounded * weight).sum() / rounded.square().sum()),
                "that is the other regression, of w on the rounded row: divide by the squares of w.",
            ),
            Mistake(
                lambda weight, rounded: float((rounded * weight).sum() / (rounded.norm() * weight.norm())),
                "that is the cosine: it does not change with the level, but the gain does.",
            ),
            Mistake(
                lambda weight, rounded: float(rounded.abs().sum() / weight.abs().sum()),
                "that compares sizes; multiply each weight with what became of it.",
            ),
            Mistake(
                lambda weight, rounded: float((rounded * weight).mean()),
                "not yet a ratio: a row that stays as it is must have gain 1.",
            ),
        ],
    ),
    Exercise(
        id="05.fair_level",
        reference=lambda weight, threshold: float(weight.square().sum() / _above(weight, threshold).sum()),
        cases=_rows,
        mistakes=[
            Mistake(
                lambda weight, threshold: float(_above(weight, threshold).mean()),
                "that is the level of the least squared error, and it shrinks: set the gain to 1 and solve.",
            ),
            Mistake(
                lambda weight, threshold: float(
                    _above(weight, threshold).square().sum() / _above(weight, threshold).sum()),
                "the weights that became 0 are missing on top: their part of the signal has to be made up for.",
            ),
            Mistake(
                lambda weight, threshold: float(
                    (weight.square().sum() / len(_above(weight, threshold))).sqrt()),
                "that keeps the length of the row, noise and all; it is the part along w that should have gain 1.",
            ),
            Mistake(
                lambda weight, threshold: float(_above(weight, threshold).sum() / weight.square().sum()),
                "upside down.",
            ),
            Mistake(
                lambda weight, threshold: float(weight.square().sum() / weight.abs().sum()),
                "the sum below the fraction runs over the weights above the threshold only.",
            ),
        ],
    ),
]
