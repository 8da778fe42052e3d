"""Exercises of notebook 00, start here."""

import math

import torch

from nanoq.teach.checks import Exercise, Mistake

EXERCISES = [
    Exercise(
        id="00.levels",
        why="every further bit doubles the number of values; that is all that a bit can do.",
        minutes=1,
        difficulty=1,
        reference=lambda bits: 2**bits,
        cases=[(1,), (2,), (3,), (8,)],
        mistakes=[
            Mistake(
                lambda bits: 2 * bits,
                "each further bit doubles the number of values; it does not add two.",
            ),
            Mistake(
                lambda bits: 2**bits - 1,
                "that is the largest code. Codes start at 0, and 0 is a value too.",
            ),
            Mistake(
                lambda bits: bits**2,
                "the other way round: each bit is a choice of two, and the choices multiply.",
            ),
            Mistake(
                lambda bits: 2 ** (bits - 1),
                "a sign bit tells values apart as well: all the bits count.",
            ),
            Mistake(
                lambda bits: 2 ^ bits,
                "in Python ^ is not a power but a bitwise exclusive or; the power is **.",
            ),
        ],
        hints=(
            "write down all codes of 1, 2 and 3 bits, and count.",
            "one more bit doubles the number: a power of two, `return 2 ** ...`.",
        ),
    ),
    Exercise(
        id="00.bytes",
        why="files count whole bytes, so a last byte that is begun is paid in full.",
        minutes=3,
        difficulty=2,
        reference=lambda weights, bits: math.ceil(weights * bits / 8),
        cases=[(1000, 32), (1000, 4), (10, 3), (7, 2), (3, 3)],
        mistakes=[
            Mistake(
                lambda weights, bits: weights * bits,
                "those are bits; a byte has eight.",
            ),
            Mistake(
                lambda weights, bits: weights * bits * 8,
                "the wrong way: eight bits make one byte, so there are fewer bytes than bits.",
            ),
            Mistake(
                lambda weights, bits: weights * bits / 8,
                "a file has whole bytes: the last one is taken even if it is not full.",
            ),
            Mistake(
                lambda weights, bits: weights * bits // 8,
                "that cuts off the last byte where it is not full, and a weight with it: round up.",
            ),
            Mistake(
                lambda weights, bits: round(weights * bits / 8),
                "to the nearest: of 9 bits the last would be lost. Round up.",
            ),
            Mistake(
                lambda weights, bits: weights * math.ceil(bits / 8),
                "that gives each weight bytes of its own; packed, several small codes share a byte.",
            ),
            Mistake(
                lambda weights, bits: math.ceil(weights * bits / 8) / 1e6,
                "those are megabytes: bytes are asked for.",
            ),
        ],
        hints=(
            "how many bits are there altogether, and how many fit into a byte?",
            "begin with `weights * bits / 8`, and round up, for what is left over needs a byte too.",
        ),
    ),
    Exercise(
        id="00.scale",
        why="the scale is the size of a step: with it the largest weight fits, and no code is left unused at the end.",
        minutes=3,
        difficulty=2,
        reference=lambda weight: weight.abs().max() / 127,
        cases=[
            (torch.tensor([0.5, -1.0, 0.25]),),
            (torch.tensor([[3.0, -0.1], [0.2, -6.35]]),),
            (torch.tensor([-0.2, 0.9, 1.27]),),
        ],
        mistakes=[
            Mistake(
                lambda weight: weight.max() / 127,
                "the largest weight may be a negative one: take the maximum of the absolute values.",
            ),
            Mistake(
                lambda weight: weight.abs().max() / 128,
                "the largest int8 code is 127, not 128: the largest weight needs a code that does not exist.",
            ),
            Mistake(
                lambda weight: weight.abs().max() / 255,
                "255 is the number of codes from -127 to 127; from zero to the largest weight there are 127 steps.",
            ),
            Mistake(
                lambda weight: 127 / weight.abs().max(),
                "upside down: the scale is the step in the weight that one step of the code stands for.",
            ),
        ],
        hints=(
            "which weight has to get the code 127, or −127?",
            "the largest size, `weight.abs().max()`, is to be 127 steps.",
        ),
    ),
    Exercise(
        id="00.gpt3",
        why="size is weights times bits; everything that this course does works on the second factor.",
        minutes=2,
        difficulty=1,
        reference=lambda weights, bits: weights * bits / 8 / 1e9,
        cases=[(175e9, 16), (7e9, 4), (2.7e6, 3)],
        mistakes=[
            Mistake(
                lambda weights, bits: weights * 4 / 1e9,
                "that is fp32, four bytes per weight; these have `bits` bits.",
            ),
            Mistake(
                lambda weights, bits: weights / 1e9,
                "one byte per weight would be int8; these have `bits` bits.",
            ),
            Mistake(
                lambda weights, bits: weights * bits / 8 / 2**30,
                "that is the number of GiB, units of 2**30 bytes. A GB is 10**9 bytes.",
            ),
            Mistake(
                lambda weights, bits: weights * bits / 1e9,
                "those are gigabits: divide by the bits of a byte.",
            ),
            Mistake(
                lambda weights, bits: weights * bits / 8,
                "those are bytes; a GB has 10**9 of them.",
            ),
            Mistake(
                lambda weights, bits: weights * bits / 8 / 1e6,
                "those are megabytes, units of 10**6 bytes; a GB has 10**9.",
            ),
        ],
        hints=(
            "how many bytes is one number of `bits` bits?",
            "the weights, times the bytes of each, divided by the 10**9 bytes of a GB.",
        ),
    ),
    Exercise(
        id="00.saved",
        why="rounding changes values; only storing codes makes a file smaller.",
        minutes=1,
        difficulty=1,
        reference="c",
        mistakes=[
            Mistake("a", "16 values would fit into 4 bits, but nobody has packed them: each still takes its 32."),
            Mistake("b", "right about the speed, but a file of fp32 numbers has 4 bytes for each, whatever it is."),
            Mistake("d", "right about the file, but the product multiplies the same fp32 numbers; it sees no pattern."),
        ],
        hints=(
            "is the *type* of the numbers in the file another one?",
            "a tensor of fp32 has four bytes for each number, whatever the number is; and what multiplies it "
            "sees fp32.",
        ),
    ),
]
