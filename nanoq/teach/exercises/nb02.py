"""Exercises of notebook 02, downcasting."""

import math

import torch

from nanoq.numbers import FLOATS
from nanoq.teach.checks import Exercise, Mistake
from nanoq.teach.differences import difference

# ---- 02.bound: at most half a step, as a share of the number ----


def _bound(expected: float, got: object) -> str | None:
    """u, or the slightly sharper u / (1 + u): what is half a step off a power of two is itself a little above it."""
    if difference(expected / (1 + expected), got) is None:
        return None
    return difference(expected, got)


# ---- 02.losses: what a cast made unusable ----

CASTS = [
    (torch.tensor([1.0, 70000.0, 1e-9, 0.0]), torch.tensor([1.0, torch.inf, 0.0, 0.0])),
    (torch.tensor([torch.inf, -1e6, 3.0, -2e-9, 5e-9]), torch.tensor([torch.inf, -torch.inf, 3.0, 0.0, 0.0])),
    (torch.tensor([0.0, 0.0, 500.0, -0.001]), torch.tensor([0.0, 0.0, torch.nan, 0.0])),
    (torch.tensor([[1e5, 2e5], [1e-9, 1.0]]), torch.tensor([[torch.inf, torch.inf], [0.0, 1.0]])),
]


def _casts(overflowed, underflowed):
    return lambda before, after: (int(overflowed(before, after).sum()), int(underflowed(before, after).sum()))


def _over(before, after):
    return before.isfinite() & ~after.isfinite()


def _under(before, after):
    return (before != 0) & (after == 0)


# ---- 02.stuck: where a running sum stops ----


def _stuck(half=True, fraction=lambda bits: bits):
    def total(term, bits):
        power = 2.0 ** math.floor(math.log2(term))
        while term > power * 2.0 ** -fraction(bits) / (2 if half else 1):
            power *= 2
        return power

    return total


# ---- 02.kahan: a sum that carries its error along ----


def _half(x):
    """Round to float16."""
    return x.half().float()


def _bfloat(x):
    """Round to bfloat16."""
    return x.bfloat16().float()


def _float8(x):
    """Round to e4m3fn."""
    return x.to(torch.float8_e4m3fn).float()


def _kahan(sign=1, carry=True, round_total=True, compare_with_term=True, corrected=True, round_term=True):
    def total_of(terms, small):
        total = lost = torch.tensor(0.0)
        for plain in terms:
            term = plain - sign * lost if carry else plain
            term = small(term) if round_term else term
            new = small(total + term) if round_total else total + term
            term = term if corrected else plain
            lost = small(small(new - total) - term) if compare_with_term else small(new - total)
            total = new
        return float(total)

    return total_of


def _terms(generator):
    return [
        (torch.full((600,), 0.1).half().float(), _half),
        (_half(torch.rand(300, generator=generator)), _half),
        (_bfloat(torch.rand(200, generator=generator)), _bfloat),
        # a growth that is not a number of the type: each of the operations has to be rounded
        (_bfloat(torch.tensor([-0.1, 0.2324, 2.234, 54.25, 0.0752, -0.4023])), _bfloat),
        (_float8(torch.full((400,), 0.1)), _float8),  # here even the Kahan sum gets stuck
    ]


# ---- 02.to_int8 ----

MATRIX = torch.tensor([[13.5, 14.3, 8.5], [-4.7, -3.2, -6.4], [-0.4, 1.3, 3.2]])
WEIGHTS = [
    (MATRIX,),
    (torch.tensor([[-1.0, 0.996, 0.3, -0.47]]),),  # the largest is a negative one
    (torch.tensor([0.02, -0.0155, 0.0]),),
]


def _to_int8(scale_of, codes_of=lambda units: torch.round(units).clamp(-127, 127)):
    def quantise(weight):
        scale = float(scale_of(weight))
        return codes_of(weight / scale).to(torch.int8), scale

    return quantise


# ---- 02.scaled_cast ----


def _scaled(generator):
    negative = 0.05 * torch.randn(4, 32, generator=generator)
    negative[0, 0] = -0.4
    return [
        (negative, FLOATS["e4m3fn"]),
        (1e-3 * torch.randn(3, 16, generator=generator), FLOATS["e2m1"]),
        (3000 * torch.randn(40, generator=generator), FLOATS["e4m3fn"]),
    ]


def _scaled_cast(largest=lambda w: w.abs().max(), top=lambda fmt: fmt.max, back=True):
    def cast(weight, fmt):
        scale = largest(weight) / top(fmt)
        rounded = fmt.round(weight / scale)
        return rounded * scale if back else rounded

    return cast


EXERCISES = [
    Exercise(
        id="02.bound",
        why="half a step of the last bit, relative to a number whose leading bit is 1: a float's error grows "
        "with the number.",
        minutes=2,
        difficulty=1,
        reference=lambda fraction_bits: 2.0 ** -(fraction_bits + 1),
        cases=[(10,), (7,), (3,), (2,)],
        compare=_bound,
        mistakes=[
            Mistake(
                lambda fraction_bits: 2.0**-fraction_bits,
                "that is the whole step above 1; the nearest value is never further away than half of it.",
            ),
            Mistake(
                lambda fraction_bits: 2.0 ** -(fraction_bits + 2),
                "too small by a factor of two: nearest is off by half a step at most, not by a quarter.",
            ),
            Mistake(
                lambda fraction_bits: 10.0**-fraction_bits,
                "the fraction has binary digits: each halves the step, none takes a tenth of it.",
            ),
            Mistake(
                lambda fraction_bits: 2.0 ** (fraction_bits + 1),
                "wrong sign of the exponent: more bits make the error smaller.",
            ),
        ],
        hints=(
            "how far apart are neighbours just above 1, and how far off can the nearest be?",
            "the step above 1 is `2.0 ** -fraction_bits`; nearest is off by at most half of it.",
        ),
    ),
    Exercise(
        id="02.losses",
        why="the two are lost at opposite ends, and a scale moves both ends at once.",
        minutes=4,
        difficulty=2,
        reference=_casts(_over, _under),
        cases=CASTS,
        mistakes=[
            Mistake(
                _casts(lambda before, after: after.isinf(), _under),
                "isinf() misses NaN, which a format without infinity gives, and counts what was infinite before.",
            ),
            Mistake(
                _casts(lambda before, after: ~after.isfinite(), _under),
                "that counts numbers that were infinite before the cast as well: the cast did nothing to them.",
            ),
            Mistake(
                _casts(_over, lambda before, after: after == 0),
                "a 0 that was 0 before has lost nothing: count those that were something else.",
            ),
            Mistake(lambda before, after: _casts(_over, _under)(before, after)[::-1], "right numbers, wrong order."),
        ],
        hints=(
            "two masks of True and False, one for each kind of loss; then count what is True.",
            "`overflowed = before.isfinite() & ~after.isfinite()`, and the other mask compares with 0.",
        ),
    ),
    Exercise(
        id="02.stuck",
        why="once a term is less than half a step of the total, rounding takes all of it away.",
        minutes=7,
        difficulty=2,
        reference=_stuck(),
        cases=[(0.1, 10), (0.1, 7), (1.0, 10), (1.0, 7), (0.3, 3), (0.01, 3)],
        mistakes=[
            Mistake(
                lambda term, fraction_bits: max(1.0, _stuck()(term, fraction_bits)),
                "small terms stop below 1: powers of two go on there, so begin further down.",
            ),
            Mistake(
                _stuck(half=False),
                "one binade too early: a term of more than half a step still moves the total, by a whole step.",
            ),
            Mistake(
                _stuck(fraction=lambda bits: bits + 1),
                "one binade too late: the step above a power of two is that power times 2**-fraction_bits.",
            ),
            Mistake(
                lambda term, fraction_bits: term * 2.0 ** (fraction_bits + 1),
                "right size, but steps change at powers of two only: the first one that is not below this.",
            ),
            Mistake(
                lambda term, fraction_bits: 2.0 ** (fraction_bits + 1),
                "that is where adding 1 stops; a smaller term stops earlier.",
            ),
        ],
        hints=(
            "the step doubles at each power of two. When is `term` no more than half of it?",
            "start at a power of two not above the term, `power = 2.0 ** math.floor(math.log2(term))`, and "
            "double it while `term > power * 2.0 ** -fraction_bits / 2`.",
        ),
    ),
    Exercise(
        id="02.kahan",
        why="what rounding took from one sum is known exactly, so it can be given to the next.",
        minutes=9,
        difficulty=3,
        points=2,
        reference=_kahan(),
        cases=_terms,
        paper=[(torch.tensor([16.0, 1.0, 1.0, 1.0]), _float8),  # from 16 on this type has every second number,
               (torch.tensor([16.0, 1.0, 18.0, 7.0]), _float8)],  # and from 32 on every fourth
        mistakes=[
            Mistake(
                _kahan(carry=False),
                "that is the plain sum: what is lost has to be taken off the next term, or nobody ever uses it.",
            ),
            Mistake(
                _kahan(sign=-1),
                "wrong sign: lost is how much too large the total has become, so it is taken off the next term.",
            ),
            Mistake(
                _kahan(corrected=False),
                "what should have been added is the term after `lost` was taken off, not the one that came in.",
            ),
            Mistake(
                _kahan(round_total=False),
                "the total is not rounded: a machine with that type keeps every sum in it.",
            ),
            Mistake(
                _kahan(round_term=False),
                "term - lost is not rounded: that is an operation of the small type, too.",
            ),
            Mistake(
                _kahan(compare_with_term=False),
                "new - total is what has arrived; lost is how much that is more than the term.",
            ),
            Mistake(
                lambda terms, small: float(small(terms.sum())),
                "that adds up in float32 and rounds once, which is the better way where there is a float32 adder; "
                "here every sum has to be rounded.",
            ),
        ],
        hints=(
            "two numbers go through the loop, `total` and `lost`; every `+` and `-` stands in a `small(...)`.",
            "in the loop: `term = small(term - lost)`, then `new = small(total + term)`, then the new `lost` with a "
            "`small(...)` for each of its two `-`, then `total = new`.",
        ),
    ),
    Exercise(
        id="02.stochastic",
        why="the chance of going up is the fraction that is left, so the error is 0 on average and does not add up.",
        minutes=5,
        difficulty=2,
        reference=lambda x, step, u: torch.floor(x / step + u) * step,
        cases=[
            (torch.tensor([0.1, 0.3, 0.9, -0.2]), 1.0, torch.tensor([0.95, 0.5, 0.05, 0.1])),
            (torch.tensor([1.001, 1.001, 1.005]), 2.0**-7, torch.tensor([0.9, 0.1, 0.5])),
        ],
        mistakes=[
            Mistake(
                lambda x, step, u: torch.round(x / step + u) * step,
                "round() adds another half: the mean comes out half a step too high. What lies below x + u?",
            ),
            Mistake(
                lambda x, step, u: torch.floor(x / step + u),
                "that is the number of steps; multiply back.",
            ),
            Mistake(
                lambda x, step, u: torch.floor(x + u) * step,
                "u is a part of a step: measure x in steps first.",
            ),
            Mistake(
                lambda x, step, u: torch.trunc(x / step + u) * step,
                "cutting off goes towards 0, which for negative numbers is up: use floor.",
            ),
            Mistake(
                lambda x, step, u: torch.round(x / step) * step,
                "that is nearest: the random number has to decide.",
            ),
            Mistake(
                lambda x, step, u: (torch.floor(x / step) + (u < x / step - torch.floor(x / step))) * step,
                "the right probabilities, with a small u for up. Here a large one is: u has to reach what is missing "
                "to the step above.",
            ),
            Mistake(
                lambda x, step, u: (torch.floor(x / step) + (u >= x / step - torch.floor(x / step))) * step,
                "the missing part is what lies between x and the step above; you compare u with the part below x, so "
                "a number just above a step would mostly go up.",
            ),
        ],
        hints=(
            "measure x in steps: a whole number of them and a part. With which u does `x / step + u` reach the "
            "next whole number?",
            "`torch.floor(x / step + u)` is the number of steps.",
        ),
    ),
    Exercise(
        id="02.to_int8",
        why="round before the cast, because a cast cuts off; clamp before it, because a cast wraps around.",
        minutes=6,
        difficulty=2,
        reference=_to_int8(lambda w: w.abs().max() / 127),
        cases=WEIGHTS,
        dtype=torch.int8,
        paper=[(torch.tensor([[-12.7, 6.28, 0.96]]),)],
        mistakes=[
            Mistake(
                _to_int8(lambda w: w.abs().max() / 127, lambda units: units),
                "the cast alone cuts the fraction off, towards 0: round first.",
            ),
            Mistake(
                _to_int8(lambda w: w.abs().max() / 128, lambda units: torch.round(units).clamp(-128, 127)),
                "128 is not an int8: the largest number gets code 127.",
            ),
            Mistake(
                _to_int8(lambda w: w.abs().max() / 128),
                "128 is not an int8, so the largest number would be clamped: let it get code 127.",
            ),
            Mistake(
                _to_int8(lambda w: w.max() / 127),
                "the largest weight may be a negative one, which max() does not see: take the absolute values first.",
            ),
            Mistake(
                _to_int8(lambda w: w.abs().max() / 255),
                "255 is the number of codes; they lie on both sides of 0, so this scale clamps every large number.",
            ),
            Mistake(
                _to_int8(lambda w: 2 * w.abs().max() / 255),
                "nearly: from -127 to 127 there are 254 steps, not 255.",
            ),
            Mistake(
                lambda w: (_to_int8(lambda w: w.abs().max() / 127)(w)[0], (127 / w.abs().max()).item()),
                "right codes, but that is the scale upside down: codes times scale have to give the weight again.",
            ),
            Mistake(
                _to_int8(lambda w: 127 / w.abs().max()),
                "the scale is upside down: it is the size of one step.",
            ),
            Mistake(
                _to_int8(lambda w: w.max() / 127, lambda units: torch.round(units).clamp(-128, 127)),
                "the largest weight may be a negative one: take the maximum of the absolute values.",
            ),
            Mistake(
                _to_int8(lambda w: (w.max() - w.min()) / 255),
                "that step spans smallest to largest and needs a zero point; here 0 is code 0, and the largest size "
                "is code 127.",
            ),
            Mistake(
                lambda w: (torch.round(w).to(torch.int8), 1.0),
                "that is no scale at all: large numbers would not fit, and small ones become 0.",
            ),
        ],
        hints=(
            "in this order: scale, divide, round, clamp, cast.",
            "`scale = (weight.abs().max() / 127).item()`, then codes from `torch.round(weight / scale)`.",
        ),
    ),
    Exercise(
        id="02.bytes",
        why="scales are bytes like all others: count them before you compare.",
        minutes=2,
        difficulty=1,
        reference=lambda rows, columns, per_row: rows * columns + 4 * (rows if per_row else 1),
        cases=[(3, 3, False), (3, 3, True), (768, 192, True), (192, 768, False)],
        mistakes=[
            Mistake(
                lambda rows, columns, per_row: rows * columns,
                "those are the codes alone: without the scale nobody can read them.",
            ),
            Mistake(
                lambda rows, columns, per_row: rows * columns + (rows if per_row else 1),
                "a scale is a float32: four bytes, not one.",
            ),
            Mistake(
                lambda rows, columns, per_row: rows * columns + 4 * (columns if per_row else 1),
                "one scale for each row: count the rows, not the columns.",
            ),
            Mistake(
                lambda rows, columns, per_row: rows * columns + 4,
                "with per_row there are as many scales as rows.",
            ),
            Mistake(
                lambda rows, columns, per_row: 8 * rows * columns + 32 * (rows if per_row else 1),
                "those are bits; a byte has eight.",
            ),
        ],
        hints=(
            "one byte for each code; and how many scales are there?",
            "`rows * columns`, plus 4 bytes for each scale: `rows` of them or 1.",
        ),
    ),
    Exercise(
        id="02.scaled_cast",
        why="the scale puts the tensor where the format has its numbers; the cast alone cannot.",
        minutes=4,
        difficulty=2,
        reference=_scaled_cast(),
        cases=_scaled,
        paper=[(torch.tensor([[-1.2, 0.55, 0.27]]), FLOATS["e2m1"])],
        mistakes=[
            Mistake(lambda weight, fmt: fmt.round(weight), "no scale: that is the plain cast."),
            Mistake(
                _scaled_cast(back=False),
                "the scale has to be multiplied back: those are numbers of the format, not weights.",
            ),
            Mistake(
                _scaled_cast(top=lambda fmt: 1.0),
                "that takes the largest weight to 1 and leaves the format's upper range idle.",
            ),
            Mistake(
                _scaled_cast(largest=lambda w: w.max()),
                "the largest weight may be a negative one: take the maximum of the absolute values.",
            ),
            Mistake(
                _scaled_cast(top=lambda fmt: 127),
                "127 is int8's largest number; every format has its own.",
            ),
        ],
        hints=(
            "into the format's range, round, and back.",
            "`scale = weight.abs().max() / fmt.max`; round `weight / scale`, and do not forget the way back.",
        ),
    ),
]
