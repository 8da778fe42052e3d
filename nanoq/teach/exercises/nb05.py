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


# ---- 05.trits: weights and thresholds to codes ----

TRITS_CASES = [
    (torch.tensor([-1.0, -0.4, 0.0, 0.3, 1.2]), 0.35),
    (torch.tensor([0.5, -0.5, 0.6, -2.0]), 0.5),  # on the threshold
    (torch.tensor([[0.4, -0.9, 0.1], [0.4, -0.9, 0.1]]), torch.tensor([[0.2], [0.7]])),
]


def _trits(weight, threshold):
    return 1 + (weight > threshold).long() - (weight < -threshold).long()


# ---- 05.best_level: a matrix (out, in) and thresholds (out, 1) ----


def _with_thresholds(generator):
    cases = []
    for n in (6, 40, 200):
        weight = torch.randn(3, n, generator=generator) * torch.tensor([[0.5], [1.0], [2.0]]) + 0.1
        cases.append((weight, weight.abs().amax(1, keepdim=True) * torch.tensor([[0.2], [0.3], [0.5]])))
    return cases


def _best_level(size=torch.abs, counted=lambda above, weight: above.sum(1, keepdim=True), power=1):
    """The mean size above the thresholds, or something like it."""

    def level(weight, threshold):
        above = weight.abs() > threshold
        return ((size(weight) ** power * above).sum(1, keepdim=True) / counted(above, weight)) ** (1 / power)

    return level


# ---- 05.tquant: a matrix (out, in) ----

TQUANT_CASES = [
    (torch.tensor([[0.3, -0.9, 0.6], [1.2, 0.1, -0.3]]),),
    (torch.tensor([[-3.0, 2.0, 0.5, 1.0]]),),
]


def _tquant(largest=lambda weight: weight.abs().amax(1, keepdim=True), threshold=1 / 3, level=2 / 3):
    return lambda weight: (threshold * largest(weight), level * largest(weight))


# ---- 05.fair_level: weights (n,) and a threshold ----


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


def _unpack5(stored, factors=(1, 3, 9, 27, 81)):
    return (stored.long()[:, None] // torch.tensor(factors) % 3).flatten()


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
        id="05.trits",
        minutes=4,
        difficulty=1,
        reference=_trits,
        cases=TRITS_CASES,
        dtype=torch.int64,
        mistakes=[
            Mistake(
                lambda weight, threshold: _trits(weight, threshold) - 1,
                "those are the values -1, 0, 1 in units of the level; a code is one more, so that none is negative.",
            ),
            Mistake(
                lambda weight, threshold: 1 + (weight >= threshold).long() - (weight <= -threshold).long(),
                "a weight on the threshold becomes 0: only what lies beyond it gets the level.",
            ),
            Mistake(
                lambda weight, threshold: (weight.abs() > threshold).long(),
                "the sign is lost: large negative weights have a code of their own.",
            ),
            Mistake(
                lambda weight, threshold: 1 - (weight > threshold).long() + (weight < -threshold).long(),
                "upside down: code 2 is for the large positive weights.",
            ),
            Mistake(
                lambda weight, threshold: (weight > threshold).long() + 2 * (weight < -threshold).long(),
                "code 0 stands for minus the level and code 1 for the value 0: count from below.",
            ),
            Mistake(
                lambda weight, threshold: 1 + weight.sign().long(),
                "the threshold is not used: small weights have to become 0, whose code is 1.",
            ),
            Mistake(
                lambda weight, threshold: 1 + (weight > threshold).long() - (weight < threshold).long(),
                "the lower cut lies at *minus* the threshold: small negative weights, and 0 itself, become 0.",
            ),
        ],
        hints=(
            "start with code 1 everywhere; one more where the weight is above the threshold, one less where it is "
            "below minus the threshold.",
            "`(weight > threshold).long()` is 1 where the weight is large and positive, and 0 elsewhere.",
        ),
        why="with zero point 1 the codes are whole numbers from 0 on, which a file can pack.",
    ),
    Exercise(
        id="05.tquant",
        minutes=4,
        difficulty=1,
        reference=_tquant(),
        cases=TQUANT_CASES,
        mistakes=[
            Mistake(
                _tquant(threshold=1 / 2, level=1.0),
                "that is the naive operator: its largest error is half the largest weight, and a third is possible.",
            ),
            Mistake(
                _tquant(threshold=1 / 3, level=1 / 3),
                "the level equals the threshold: three cells of equal length have their middles two thirds apart.",
            ),
            Mistake(
                _tquant(threshold=2 / 3, level=1 / 3),
                "the two have changed places: threshold first.",
            ),
            Mistake(
                _tquant(lambda weight: weight.abs().max()),
                "that is one threshold for the matrix: each row has a largest weight of its own.",
            ),
            Mistake(
                _tquant(lambda weight: weight.amax(1, keepdim=True)),
                "the largest weight may be a negative one: take the largest size.",
            ),
            Mistake(
                _tquant(lambda weight: weight.abs().amax(1)),
                "right numbers, wrong shape: with keepdim=True they fit (out, 1).",
            ),
            Mistake(
                _tquant(threshold=1 / 3, level=1.0),
                "a weight just above the threshold would move by two thirds: where is the middle of the outer cell?",
            ),
            Mistake(
                _tquant(threshold=1 / 4, level=1 / 2),
                "the largest weight would still move by half of itself, others by a quarter: make all three equal.",
            ),
        ],
        hints=(
            "the cells reach from minus the largest size to plus the largest size, and all three are equally long.",
            "`largest = weight.abs().amax(1, keepdim=True)`; the threshold is a third of it, and the level lies in the "
            "middle of the outer cell.",
        ),
        why="three cells of equal length are as good as it gets when only the worst weight counts.",
    ),
    Exercise(
        id="05.zeros",
        minutes=5,
        difficulty=2,
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
        hints=(
            "a weight becomes 0 if it is nearer to 0 than to the largest weight: up to which size is that?",
            "the share of normal weights with |w| <= x is `math.erf(x / math.sqrt(2))`.",
        ),
        why="the cell of 0 reaches half-way to the largest weight, and nearly all of a bell lies within that.",
    ),
    Exercise(
        id="05.worst_error",
        minutes=5,
        difficulty=2,
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
        hints=(
            "each cell has two ends; go through them: 0 and the threshold, the threshold and the largest weight.",
            "a weight of 0 is exact. That leaves three ends, and the largest of three errors: `max(…)`.",
        ),
        why="within a cell the error is a straight line away from its value, so it is largest at an end.",
    ),
    Exercise(
        id="05.mquant",
        minutes=5,
        difficulty=2,
        reference=lambda weight: _thirds(_rms(weight)),
        cases=_matrices,
        paper=[(torch.tensor([[1.0, -7.0], [1.0, 1.0]]),)],
        mistakes=[
            Mistake(
                lambda weight: (THIRD * _rms(weight), THIRD * _rms(weight)),
                "the level equals the threshold: nearest rounding puts the threshold half-way to the level.",
            ),
            Mistake(
                lambda weight: (THIRD / math.sqrt(2) * _rms(weight), math.sqrt(2) * THIRD * _rms(weight)),
                "the square root of 2 is missing: erf is asked for x / (sigma * sqrt(2)), not for x / sigma.",
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
            Mistake(
                lambda weight: _thirds(weight.abs().quantile(1 / 3, 1, keepdim=True), 1),
                "that is a third of these very weights; MQuant takes them for normal, and looks at the row's σ alone.",
            ),
            Mistake(
                lambda weight: (THIRD * _rms(weight), _best_level()(weight, THIRD * _rms(weight))),
                "that level is the best for the threshold; MQuant's own is twice the threshold.",
            ),
        ],
        hints=(
            "σ of a row is the root of the mean of its squares, and the formula for t is in the text.",
            "`weight.square().mean(1, keepdim=True).sqrt()` has the shape (out, 1); `torch.erfinv` wants a tensor.",
        ),
        why="a code says most when all three values are equally frequent.",
    ),
    Exercise(
        id="05.best_level",
        minutes=6,
        difficulty=2,
        reference=_best_level(),
        cases=_with_thresholds,
        paper=[(torch.tensor([[0.4, -1.0, 2.0], [0.2, 0.6, -0.8]]), torch.tensor([[0.5], [0.4]]))],
        mistakes=[
            Mistake(
                _best_level(size=lambda weight: weight),
                "positive and negative weights cancel there: average the sizes.",
            ),
            Mistake(
                _best_level(counted=lambda above, weight: weight.shape[1]),
                "divided by all weights: those that became 0 have no say in the level.",
            ),
            Mistake(
                lambda weight, threshold: weight.abs().mean(1, keepdim=True),
                "the weights below the threshold become 0 whatever the level is: leave them out.",
            ),
            Mistake(
                lambda weight, threshold: 2 * threshold,
                "that is the level for which the threshold is best, not the best level for the threshold.",
            ),
            Mistake(
                lambda weight, threshold: (weight * (weight > threshold)).sum(1, keepdim=True)
                / (weight > threshold).sum(1, keepdim=True),
                "half of them are missing: the negative weights beyond the threshold share the level.",
            ),
            Mistake(
                _best_level(power=2),
                "that keeps the sum of the squares, but it is the squared *error* that should be least.",
            ),
            Mistake(
                lambda weight, threshold: weight.abs()[weight.abs() > threshold].mean(),
                "that is one level for the matrix: weight.abs()[...] forgets the rows. Multiply by the mask instead.",
            ),
            Mistake(
                lambda weight, threshold: _best_level()(weight, threshold)[:, 0],
                "right numbers, wrong shape: with keepdim=True they fit (out, 1).",
            ),
        ],
        hints=(
            "set the derivative to zero: the level times the number of weights above the threshold is the sum of their "
            "sizes.",
            "`above = weight.abs() > threshold` is a mask of 0 and 1: multiply by it, then sum each row with "
            "`.sum(1, keepdim=True)`.",
        ),
        why="the mean is the number with the least squared error for the weights that share it.",
    ),
    Exercise(
        id="05.lloyd",
        minutes=8,
        difficulty=3,
        points=2,
        reference=_lloyd,
        cases=lambda generator: [(torch.randn(n, generator=generator) + 0.2, steps)
                                 for n, steps in ((50, 1), (200, 2), (1000, 30))],
        paper=[(torch.tensor([4.0, -3.0, 1.2, 0.2]), 1)],
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
        hints=(
            "keep the level in a variable, and replace it in each step.",
            "`size = weight.abs()`; in a step, the sizes above half the level are `size[size > level / 2]`.",
        ),
        why="each half-step can only lower the squared error, so the turns end at a place where both rules agree.",
    ),
    Exercise(
        id="05.mse",
        minutes=4,
        difficulty=2,
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
        hints=(
            "take the mean of the three terms one by one; the quantised weight is 0 below the threshold.",
            "the mean of ŵ w is the level times the total, that of ŵ² the level squared times the share.",
        ),
        why="the two integrals are all that an operator can change; the rest is the weights' own power.",
    ),
    Exercise(
        id="05.expected",
        minutes=2,
        difficulty=1,
        reference="c",
        mistakes=[
            Mistake("a", "look at the table: there are quantisers with a smaller mean squared error."),
            Mistake("b", "near it, but not at it: look for the lowest mean absolute error in the table."),
            Mistake("d", "that is TQuant; equal mass does not look at the largest weight at all."),
        ],
        hints=(
            "compare the places of the three lowest points in the figure with the dashed line.",
            "which of the three curves has its lowest point exactly at MQuant's threshold?",
        ),
        why="entropy asks how often a value is used, an error asks how far the weights are from it.",
    ),
    Exercise(
        id="05.pack5",
        minutes=6,
        difficulty=2,
        reference=_pack5,
        cases=PACK_CASES,
        dtype=torch.uint8,
        paper=[(torch.tensor([1, 2, 0, 0, 1, 2, 0, 0, 1, 0]),)],
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
        hints=(
            "`view(-1, 5)` puts five neighbours into a row; multiply each column with what its digit counts.",
            "the digits count `3 ** torch.arange(5)`; sum each row, and make the sums uint8 at the end.",
        ),
        why="hardly anything of the byte is wasted, as 3 ** 5 = 243 is just below 256.",
    ),
    Exercise(
        id="05.unpack5",
        minutes=6,
        difficulty=2,
        reference=_unpack5,
        cases=[(_pack5(codes),) for (codes,) in PACK_CASES],
        dtype=torch.int64,
        mistakes=[
            Mistake(
                lambda stored: _unpack5(stored, (81, 27, 9, 3, 1)),
                "wrong order: the first code is the lowest digit, the one that counts 1.",
            ),
            Mistake(
                lambda stored: _unpack5(stored, (1, 4, 16, 64, 256)),
                "those are shifts by two bits; the digits are to base 3.",
            ),
            Mistake(
                lambda stored: (stored.long()[:, None] // torch.tensor([1, 3, 9, 27, 81])).flatten(),
                "the higher digits are still there: keep the remainder after division by 3.",
            ),
            Mistake(
                lambda stored: (stored.long()[:, None] % 3 // torch.tensor([1, 3, 9, 27, 81])).flatten(),
                "the remainder comes too early: divide first, so that the digit you want is the lowest.",
            ),
            Mistake(
                lambda stored: (stored.long()[:, None] // torch.tensor([1, 3, 9, 27, 81]) % 3).T.flatten(),
                "all first codes, then all second ones: the five codes of a byte are neighbours.",
            ),
            Mistake(
                lambda stored: (stored.long()[:, None] // (3 * torch.arange(5)) % 3).flatten(),
                "3 * i is not 3 ** i: the digits count 1, 3, 9, 27 and 81.",
            ),
            Mistake(
                lambda stored: stored.long() % 3,
                "those are the first codes of each byte; where are the other four?",
            ),
        ],
        hints=(
            "digit i of a number to base 3: divide by 3**i without a remainder, then take the remainder after 3.",
            "`stored.long()[:, None]` has the shape (bytes, 1); divided by `3 ** torch.arange(5)` it has one column "
            "per digit.",
        ),
        why="division moves the digit you want to the lowest place, the remainder cuts off those above it.",
    ),
    Exercise(
        id="05.operations",
        minutes=3,
        difficulty=1,
        reference=lambda codes: (len(codes), int((codes != 1).sum())),
        cases=CODES,
        paper=[(torch.tensor([[0, 1, 2], [2, 1, 2]]),)],
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
        hints=(
            "the level of a row is applied once, after its sum.",
            "`len(codes)` rows, and one addition for each code that is not 1.",
        ),
        why="the level is common to a row, so it waits until the sum is done.",
    ),
    Exercise(
        id="05.gain",
        minutes=4,
        difficulty=2,
        reference=lambda weight, rounded: float((rounded * weight).sum() / weight.square().sum()),
        cases=_pairs,
        paper=[(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.0, -2.0, 2.0]))],
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
        hints=(
            "the part of the rounded row that points along the row is β w: which β leaves a rest at right angles "
            "to it?",
            "multiply both sides of ŵ = β w + e by w and sum: the sum of e w is 0.",
        ),
        why="it is the slope of the line through the origin that fits the rounded row to the row best.",
    ),
    Exercise(
        id="05.fair_level",
        minutes=5,
        difficulty=3,
        reference=lambda weight, threshold: float(weight.square().sum() / _above(weight, threshold).sum()),
        cases=_rows,
        paper=[(torch.tensor([1.0, -2.0, 3.0]), 1.5)],
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
        hints=(
            "write the gain of the rounded row with the level in it, set it to 1, and solve for the level.",
            "the sum of ŵ w is the level times the sum of the sizes above the threshold.",
        ),
        why="the right size costs some squared error, and the next layer counts on the size.",
    ),
]
