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


def _kahan(sign=1, carry=True, round_total=True, compare_with_term=True, corrected=True):
    def total_of(terms, small):
        total = lost = torch.tensor(0.0)
        for plain in terms:
            term = small(plain - sign * lost) if carry else plain
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
        (_float8(torch.full((400,), 0.1)), _float8),  # here even the Kahan sum gets stuck
        # a growth that is not a number of the type: each of the operations has to be rounded
        (_bfloat(torch.tensor([-0.1, 0.2324, 2.234, 54.25, 0.0752, -0.4023])), _bfloat),
    ]


# ---- 02.slips and 02.to_int8: the matrix of the notes ----

MATRIX = torch.tensor([[13.5, 14.3, 8.5], [-4.7, -3.2, -6.4], [-0.4, 1.3, 3.2]])
CLAIMED = torch.tensor([[13, 4, 8], [-5, -3, -6], [0, 1, 4]])
SLIPS = [(MATRIX, CLAIMED), (torch.tensor([0.5, 1.5, 2.5, -0.5, -1.7]), torch.tensor([0, 1, 3, 0, -1]))]
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


# ---- 02.loss_scale ----

HISTORIES = [
    ([False] * 7, 1024.0, 3),
    ([True, True, False, False, False, False], 65536.0, 2),
    ([False, False, True, False, False, True, False, False, False], 8.0, 3),
]


def _loss_scale(reset=True, restart=True, up=2.0, down=0.5, late=0):
    def last(overflowed, scale, patience):
        good = 0
        for overflow in overflowed:
            if overflow:
                scale, good = scale * down, 0 if reset else good
                continue
            good += 1
            if good >= patience + late:
                scale, good = scale * up, 0 if restart else good
        return scale

    return last


# ---- 02.lost and 02.scaled_cast ----


def _updates(generator):
    cases = []
    for name, size in (("bf16", 0.001), ("fp16", 0.0001), ("e4m3fn", 0.01)):
        fmt = FLOATS[name]
        weight = fmt.round(torch.randn(200, generator=generator) * 0.1)
        update = size * torch.randn(200, generator=generator)
        update[::4] = 0
        cases.append((weight, update, fmt))
    return cases


def _lost(weight, update, fmt):
    still = fmt.round(weight + update) == weight
    return float((still & (update != 0)).sum() / (update != 0).sum())


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
        points=2,
        reference=_kahan(),
        cases=_terms,
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
            "in the loop: `term = small(term - lost)`, then `new = small(total + term)`, then the new `lost`, "
            "then `total = new`.",
        ),
    ),
    Exercise(
        id="02.slips",
        reference=lambda matrix, claimed: claimed != torch.round(matrix),
        cases=SLIPS,
        mistakes=[
            Mistake(
                lambda matrix, claimed: (claimed - matrix).abs() > 0.5,
                "half-way numbers have two nearest integers, but the rule picks one of them: the even one.",
            ),
            Mistake(
                lambda matrix, claimed: (claimed - matrix).abs() >= 0.5,
                "that marks every half-way number, but one of its two neighbours is the right one: the even one.",
            ),
            Mistake(
                lambda matrix, claimed: claimed != torch.floor(matrix + 0.5),
                "that sends halves up, as at school; torch and IEEE 754 send them to the even neighbour.",
            ),
            Mistake(
                lambda matrix, claimed: claimed != torch.trunc(matrix),
                "that cuts the fraction off, as a cast does: round to the nearest.",
            ),
            Mistake(
                lambda matrix, claimed: claimed == torch.round(matrix),
                "those are the right ones: mark the wrong ones.",
            ),
        ],
        hints=(
            "what should be there, and where is it not?",
            "`torch.round(matrix)` rounds halves to even: compare `claimed` with it.",
        ),
    ),
    Exercise(
        id="02.to_int8",
        reference=_to_int8(lambda w: w.abs().max() / 127),
        cases=WEIGHTS,
        dtype=torch.int8,
        mistakes=[
            Mistake(
                _to_int8(lambda w: w.abs().max() / 127, lambda units: units),
                "the cast alone cuts the fraction off, towards 0: round first.",
            ),
            Mistake(
                _to_int8(lambda w: w.abs().max() / 128, lambda units: torch.round(units).clamp(-128, 127)),
                "128 is not an int8: the largest number shall be code 127.",
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
                "right codes, but that is the scale upside down: codes times scale shall give the weight again.",
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
        id="02.intensity",
        reference=lambda out, width, batch, size: 2 * out * width * batch / (
            size * (out * width + width * batch + out * batch)),
        cases=[(1024, 1024, 1, 4), (1024, 1024, 512, 2), (100, 300, 7, 4)],
        mistakes=[
            Mistake(
                lambda out, width, batch, size: out * width * batch / (
                    size * (out * width + width * batch + out * batch)),
                "half of it: each weight costs a multiplication and an addition.",
            ),
            Mistake(
                lambda out, width, batch, size: 2 * out * width * batch / (
                    out * width + width * batch + out * batch),
                "those are operations for each number: a number has `size` bytes.",
            ),
            Mistake(
                lambda out, width, batch, size: 2 * out * width * batch / (size * out * width),
                "that moves the weights alone: the inputs have to be read as well, and the outputs written.",
            ),
            Mistake(
                lambda out, width, batch, size: 2 * out * width * batch / (size * (out * width + width * batch)),
                "the outputs are forgotten: they are written to memory.",
            ),
            Mistake(
                lambda out, width, batch, size: size * (out * width + width * batch + out * batch) / (
                    2 * out * width * batch),
                "upside down: operations for each byte are asked for.",
            ),
        ],
        hints=(
            "operations above the line, bytes below it.",
            "`2 * out * width * batch` operations; three matrices are moved: out × width, width × batch, out × "
            "batch.",
        ),
    ),
    Exercise(
        id="02.largest_batch",
        reference=lambda memory, parameters, each: max(0, (memory - 16 * parameters) // each),
        cases=[(1_000_000_000, 2_700_000, 60_000_000), (10**9, 10_000_000, 35_000_000), (400_000, 10_000, 30_000),
               (100_000, 10_000, 30_000)],
        mistakes=[
            Mistake(
                lambda memory, parameters, each: memory // each,
                "the model needs room as well: weights, gradients, and two moments.",
            ),
            Mistake(
                lambda memory, parameters, each: (memory - 4 * parameters) // each,
                "those are the weights alone: training also keeps a gradient and two moments of each.",
            ),
            Mistake(
                lambda memory, parameters, each: (memory - 12 * parameters) // each,
                "three numbers for each parameter, but there are four: weight, gradient, two moments.",
            ),
            Mistake(
                lambda memory, parameters, each: (memory - 16 * parameters) / each,
                "nobody trains on a part of a sequence: a whole number, and not one too many.",
            ),
            Mistake(
                lambda memory, parameters, each: -((16 * parameters - memory) // each),
                "rounded up: that one sequence too many does not fit.",
            ),
            Mistake(
                lambda memory, parameters, each: (memory - 16 * parameters) // each,
                "right where the model fits. Where it does not, the batch is not negative but 0.",
            ),
        ],
        hints=(
            "first take off what the model itself needs.",
            "`memory - 16 * parameters` is left; how many times does `each` fit into it, in whole numbers and "
            "not below 0?",
        ),
    ),
    Exercise(
        id="02.scaled_cast",
        reference=_scaled_cast(),
        cases=_scaled,
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
    Exercise(
        id="02.loss_scale",
        reference=_loss_scale(),
        cases=HISTORIES,
        mistakes=[
            Mistake(
                _loss_scale(reset=False),
                "an overflow starts the count anew: it is steps in a row that are asked for.",
            ),
            Mistake(
                _loss_scale(late=1),
                "one step late: after `patience` good steps it doubles, without waiting for one more.",
            ),
            Mistake(
                _loss_scale(restart=False),
                "after a doubling the count starts anew, or every further step would double.",
            ),
            Mistake(
                _loss_scale(up=0.5, down=2.0),
                "the wrong way round: an overflow says that the factor was too large.",
            ),
            Mistake(_loss_scale(up=1.0), "it never grows again: one bad batch would hold it down for good."),
            Mistake(_loss_scale(down=1.0), "after an overflow the factor has to fall, or the next step overflows too."),
        ],
        hints=(
            "go through the steps one by one, and keep a count of good ones in a row.",
            "`good = 0`, then for each step: an overflow halves the scale and sets `good = 0`; otherwise `good "
            "+= 1`, and at `patience` the scale doubles and the count starts anew.",
        ),
    ),
    Exercise(
        id="02.lost",
        reference=_lost,
        cases=_updates,
        mistakes=[
            Mistake(
                lambda w, u, fmt: float((fmt.round(w + u) == w).float().mean()),
                "updates of 0 wanted no change, so they cannot be lost: leave them out, above and below.",
            ),
            Mistake(
                lambda w, u, fmt: float(((fmt.round(w + u) == w) & (u != 0)).float().mean()),
                "the share of the updates other than 0: divide by their number, not by that of the weights.",
            ),
            Mistake(
                lambda w, u, fmt: float(((fmt.round(u) == 0) & (u != 0)).sum() / (u != 0).sum()),
                "the update by itself may well have a value in the format. It is the sum that is rounded.",
            ),
            Mistake(
                lambda w, u, fmt: float(((fmt.round(w + u) == w) & (u != 0)).sum()),
                "that is their number; their share is asked for.",
            ),
            Mistake(
                lambda w, u, fmt: 1 - _lost(w, u, fmt),
                "that is the share of the updates that arrived.",
            ),
        ],
        hints=(
            "which weights are still the same after the update, though the update was not 0?",
            "`wanted = update != 0`, and `fmt.round(weight + update) == weight` where nothing happened.",
        ),
    ),
    Exercise(
        id="02.stochastic",
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
]
