"""Exercises of notebook 01, data types."""

import math
from numbers import Real

import torch

from nanoq.teach.checks import Exercise, Mistake
from nanoq.teach.differences import Array, summary


def _exactly(expected: float, got: object) -> str | None:
    """Floats bit for bit: subnormals are too small for a tolerance."""
    if isinstance(got, Array):
        got = got.item()
    if isinstance(got, str) or not isinstance(got, Real):
        return f"a number is wanted, got {summary(got)}"
    if expected == got or (math.isnan(expected) and math.isnan(got)):
        return None
    return f"expected {expected!r}, got {got!r}"


# ---- 01.signed: a string of bits -> the number in two's complement ----


def _signed(weight):
    """The number whose first bit counts weight(number of bits), the others as usual."""
    return lambda digits: int(digits[0]) * weight(len(digits)) + int(digits[1:], 2)


# ---- 01.decode: a pattern of fp16 -> its value ----


def _decode(bias=15, hidden=1, low=1, below=0, over=1024, sign=-1, specials=True, nan=True, subnormals=True,
            signed=True, mask=31):
    """Decoding, with each of the things that can be forgotten."""

    def decode(pattern):
        field, fraction = pattern >> 10 & mask, pattern & 1023
        if specials and field == 31:
            if not signed:
                return math.nan if fraction else math.inf
            size = math.nan if nan and fraction else math.inf
        elif subnormals and field == 0:
            size = 2.0 ** (low - bias) * (below + fraction / over)
        else:
            size = 2.0 ** (field - bias) * (hidden + fraction / over)
        return (sign if pattern >> 15 else 1) * size

    return decode


class _Pattern(int):
    """Sixteen bits, which a check shows as such; an answer is given a copy, which is an integer like any other."""

    def __repr__(self) -> str:
        return f"0b{self:016b}"

    def __deepcopy__(self, memo: dict) -> int:
        return int(self)


PATTERNS = (0x3C00, 0xC248, 0x7BFF, 0x8100, 0x0001, 0x0000, 0x7C00, 0xFC00, 0x7E01, 0x4101)
DECODE_CASES = [(_Pattern(pattern),) for pattern in PATTERNS]


# ---- 01.largest ----


def _largest(exponent, mantissa, specials):
    bias = 2 ** (exponent - 1) - 1
    field, fraction = 2**exponent - 1, 2**mantissa - 1
    if specials == "ieee":
        field -= 1
    elif specials == "fn":
        fraction -= 1
    return 2.0 ** (field - bias) * (1 + fraction / 2**mantissa)


LARGEST_CASES = [(5, 10, "ieee"), (8, 7, "ieee"), (5, 2, "ieee"), (4, 3, "fn"), (2, 1, "none"), (3, 2, "none")]


# ---- 01.mxfp4: a block of weights in MXFP4 ----

PLACES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def _mxfp4(power=lambda largest: math.floor(math.log2(largest)) - 2, places=PLACES, back=True, sign=torch.sign,
           largest=lambda block: block.abs().max(), size=torch.abs):  # fmt: skip
    """A block in MXFP4, with each of the things that can go wrong."""

    def mxfp4(block):
        scale = 2.0 ** power(float(largest(block)))
        distances = (size(block)[:, None] / scale - places).abs()
        return places[distances.argmin(1)] * sign(block) * (scale if back else 1)

    return mxfp4


def _blocks(generator):
    """Blocks whose largest weight is negative, whose largest is just below a power of two, and a large one."""
    first, second, third = (0.1 * torch.randn(3, 32, generator=generator)).clamp(-0.24, 0.24)
    first[5], second[7], third[0] = -0.36, 0.245, 0.25
    return [(first,), (second,), (40 * third,)]


EXERCISES = [
    Exercise(
        id="01.signed",
        why="with a negative first bit, one adder serves positive and negative numbers alike.",
        minutes=4,
        difficulty=1,
        reference=_signed(lambda bits: -(2 ** (bits - 1))),
        cases=[("10001001",), ("01111111",), ("11111111",), ("10000000",), ("1010",), ("0111111111111",), ("10110",)],
        mistakes=[
            Mistake(lambda digits: int(digits, 2), "that is the unsigned reading: here the first bit counts negative."),
            Mistake(
                _signed(lambda bits: 2.0 ** -(bits - 1)),
                "2 to a negative power is a small fraction, 2^-7 = 1/128. The minus stands before the power.",
            ),
            Mistake(
                lambda digits: (-1) ** int(digits[0]) * int(digits[1:], 2),
                "that is sign and magnitude, as floats have it, with two zeros. In two's complement the first bit has "
                "a weight like every other, only negative.",
            ),
            Mistake(
                _signed(lambda bits: 1 - 2 ** (bits - 1)),
                "one too large: that is one's complement, in which all ones are a second zero.",
            ),
            Mistake(
                lambda digits: int(digits, 2) - 2 ** len(digits),
                "right for negative numbers only: where the first bit is 0, nothing is to be taken off.",
            ),
            Mistake(
                lambda digits: int(digits, 2) - 256 * int(digits[0]),
                "right for 8 bits only: the weight of the first bit follows from len(digits).",
            ),
            Mistake(
                _signed(lambda bits: -(2**bits)),
                "the first of n bits is bit n - 1, because the last is bit 0: its power is one lower.",
            ),
            Mistake(
                lambda digits: _signed(lambda bits: -(2 ** (bits - 1)))(digits[::-1]),
                "read from the wrong end: the first digit is the most significant one.",
            ),
        ],
        hints=(
            "the first digit has a weight like all others, only a negative one.",
            "split it: `int(digits[0])` counts `-2 ** (len(digits) - 1)`, and `int(digits[1:], 2)` is the rest.",
        ),
    ),
    Exercise(
        id="01.wrap",
        why="the adder keeps the last bits and cannot know more: whoever casts without a clamp gets this.",
        minutes=5,
        difficulty=2,
        reference=lambda total, bits: (total + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1),
        cases=[(150, 8), (100, 8), (128, 8), (-128, 8), (-129, 8), (1000, 8), (-700, 8), (9, 4), (-9, 4)],
        mistakes=[
            Mistake(
                lambda total, bits: max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, total)),
                "that is saturation, which an adder does only if it is asked to; the carry is simply lost here.",
            ),
            Mistake(
                lambda total, bits: total % 2**bits,
                "the right bits, read as unsigned: half of the remainders stand for negative numbers.",
            ),
            Mistake(
                lambda total, bits: total % 2**bits - 2 ** (bits - 1),
                "0 must stay 0: add 2**(bits - 1) before you take the remainder, then subtract it.",
            ),
            Mistake(
                lambda total, bits: total - 2**bits if total >= 2 ** (bits - 1) else total,
                "the circle has another side: a sum below the smallest number wraps as well, and some wrap twice.",
            ),
            Mistake(
                lambda total, bits: (total + 2 ** (bits - 1) - 1) % 2**bits - 2 ** (bits - 1) + 1,
                "look at the two ends, -2**(bits - 1) and 2**(bits - 1): there is one more on the negative side.",
            ),
            Mistake(
                lambda total, bits: (total + 128) % 256 - 128,
                "right for 8 bits only: use `bits`.",
            ),
        ],
        hints=(
            "adding or taking off `2**bits` changes none of the bits that are kept: go on until it is in range.",
            "shift the range to 0 … 2**bits - 1 by adding `2 ** (bits - 1)`, take `% 2**bits`, and shift back.",
        ),
    ),
    Exercise(
        id="01.decode",
        why="the four rules are those of every IEEE format; only the widths of the two fields differ.",
        minutes=10,
        difficulty=2,
        reference=_decode(),
        cases=DECODE_CASES,
        compare=_exactly,
        mistakes=[
            Mistake(_decode(hidden=0), "a normal number's fraction follows a 1 that is not stored: 1.fraction."),
            Mistake(_decode(sign=1), "the sign bit is not used: it turns the whole number over."),
            Mistake(_decode(bias=16), "the bias of fp16 is 15 = 2^4 - 1, so that field 15 means 2^0."),
            Mistake(
                _decode(subnormals=False),
                "field 0 has a rule of its own: no hidden 1. As you read it, there is no pattern for 0.",
            ),
            Mistake(
                _decode(low=0),
                "subnormals have the exponent of field 1, not of field 0: only then do they reach up to the smallest "
                "normal number without a gap.",
            ),
            Mistake(_decode(below=1), "the exponent is right, but field 0 has no hidden 1: it is 0.fraction."),
            Mistake(_decode(specials=False), "field 31, all ones, is no number: infinity or NaN."),
            Mistake(_decode(nan=False), "field 31 is infinity only if the fraction is 0."),
            Mistake(_decode(signed=False), "infinity has a sign, too: the sign bit counts in every row of the table."),
            Mistake(_decode(mask=63), "the sign bit is left in the exponent field: keep five bits, `& 31`."),
            Mistake(_decode(over=1), "the fraction bits come after the point: the last of them counts 1/1024, not 1."),
            Mistake(_decode(over=1023), "ten bits count in steps of 1/1024; 1023/1024 is the largest fraction, not 1."),
        ],
        hints=(
            "take the pattern apart first: 1 sign bit, 5 exponent bits, 10 fraction bits. Then there are three "
            "kinds of field.",
            "`sign, field, fraction = pattern >> 15, pattern >> 10 & 31, pattern & 1023`; then `if field == "
            "31`, `elif field == 0`, `else`.",
        ),
    ),
    Exercise(
        id="01.gap",
        why="integers are exact in a float as long as the last fraction bit is worth at most 1.",
        minutes=4,
        difficulty=2,
        reference=lambda mantissa: 2 ** (mantissa + 1) + 1,
        cases=[(23,), (10,), (7,), (3,), (1,)],
        mistakes=[
            Mistake(
                lambda mantissa: 2**mantissa + 1,
                "one binade too early: with the hidden 1 there is one more bit than the fraction has.",
            ),
            Mistake(
                lambda mantissa: 2 ** (mantissa + 1),
                "powers of two are always there: fraction 0. Look at its neighbour.",
            ),
            Mistake(
                lambda mantissa: 2 ** (mantissa + 1) - 1,
                "that one is all ones in binary, mantissa + 1 of them: just what the format has room for.",
            ),
            Mistake(
                lambda mantissa: 2 ** (mantissa + 2) + 1,
                "that one is missing too, but it is not the first.",
            ),
        ],
        hints=(
            "try a format with 1 fraction bit: which of 1, 2, 3, 4, 5 does it have?",
            "from `2 ** (mantissa + 1)` on the step is 2: what is the first number that is stepped over?",
        ),
    ),
    Exercise(
        id="01.largest",
        why="exponent bits buy range, fraction bits buy precision; a format is the choice between the two.",
        minutes=6,
        difficulty=2,
        reference=_largest,
        cases=LARGEST_CASES,
        compare=_exactly,
        mistakes=[
            Mistake(
                lambda e, m, specials: _largest(e, m, "ieee"),
                "only \"ieee\" gives the whole highest field away: in \"fn\" and \"none\" it holds numbers.",
            ),
            Mistake(
                lambda e, m, specials: _largest(e, m, "none"),
                "as if every pattern were a number: \"ieee\" keeps the highest field for infinity and NaN, "
                "\"fn\" the pattern of all ones for NaN.",
            ),
            Mistake(
                lambda e, m, specials: _largest(e, m, "ieee" if specials == "fn" else specials),
                "\"fn\" does not give its highest field away: of that field a single pattern, all ones, is no number.",
            ),
            Mistake(
                lambda e, m, specials: _largest(e, m, "none" if specials == "fn" else specials),
                "\"fn\" has one pattern that is no number, the one of all ones: the largest is the pattern before it.",
            ),
            Mistake(
                lambda e, m, specials: 2.0 ** math.floor(math.log2(_largest(e, m, specials))),
                "the exponent is right, the fraction is 0: there are larger ones in the same binade.",
            ),
            Mistake(
                lambda e, m, specials: 2 * _largest(e, m, specials),
                "twice too large: the bias is 2**(exponent - 1) - 1.",
            ),
            Mistake(
                lambda e, m, specials: 2.0 ** (math.floor(math.log2(_largest(e, m, specials))) + 1),
                "that is where the next binade would begin: the largest is one step below it, or two.",
            ),
        ],
        hints=(
            "the largest number has the highest field that still holds numbers, and in it the highest fraction.",
            "start from `field, fraction = 2**exponent - 1, 2**mantissa - 1`, and take one off field for "
            "\"ieee\", off fraction for \"fn\".",
        ),
    ),
    Exercise(
        id="01.mxfp4",
        why="one scale of eight bits for 32 weights costs a quarter of a bit each, and lets four bits reach any size.",
        minutes=10,
        difficulty=3,
        reference=_mxfp4(),
        cases=_blocks,
        paper=[(torch.tensor([-3.6, 1.3, 0.7]),)],  # its scale is 0.5
        mistakes=[
            Mistake(
                _mxfp4(power=lambda largest: math.log2(largest / 6)),
                "the scale has to be a power of two, as MXFP4 has no bits for others: take the floor of the logarithm.",
            ),
            Mistake(
                _mxfp4(power=lambda largest: math.floor(math.log2(largest))),
                "the largest weight lands between 1 and 2, and most of the values are never used: subtract 2 in the "
                "exponent.",
            ),
            Mistake(
                _mxfp4(power=lambda largest: math.ceil(math.log2(largest)) - 2),
                "rounded up: the largest weight lands between 2 and 4, where 4 and 6 are hardly ever used.",
            ),
            Mistake(
                _mxfp4(power=lambda largest: math.ceil(math.log2(largest / 6))),
                "with that scale nothing saturates, which is sensible, but it is not the rule of MXFP4: the exponent "
                "is the floor of log2 of the largest, less 2.",
            ),
            Mistake(
                _mxfp4(power=lambda largest: round(math.log2(largest)) - 2),
                "the logarithm is rounded to nearest; it has to be rounded down, with math.floor.",
            ),
            Mistake(_mxfp4(back=False), "those are the values of e2m1: multiply by the scale to get weights again."),
            Mistake(_mxfp4(sign=lambda block: 1), "the signs got lost: give each weight its own back."),
            Mistake(
                _mxfp4(size=lambda block: block),
                "negative weights all became 0: measure how far |w| is from each place, and give the sign back later.",
            ),
            Mistake(
                _mxfp4(places=torch.arange(8.0)),
                "rounded to whole numbers: e2m1 has the values in `places`, such as 0.5 and 1.5, and no 5 or 7.",
            ),
            Mistake(
                _mxfp4(largest=torch.max),
                "the largest weight may be a negative one: take the maximum of the absolute values.",
            ),
        ],
        hints=(
            "first the scale, from the largest absolute value. Then measure how far each |w|/s is from each place.",
            "`math.floor(math.log2(...)) - 2` is the exponent of the scale. `x[:, None] - places` has a row of 8 "
            "differences for each of the 32 numbers in x.",
        ),
    ),
]
