"""Exercises of notebook 04, naive rounding."""

import math

import torch

from nanoq.teach import capstone
from nanoq.teach.checks import Exercise, Mistake

# ---- 04.codes: weights to codes ----

CODES_CASES = [
    (torch.tensor([-1.0, -0.26, 0.0, 0.3, 1.2]), 0.5, 2, 3),  # all of them fit
    (torch.tensor([-3.0, -0.2, 0.2, 3.0]), 0.1, 6, 4),  # both ends have to be clamped
    (torch.tensor([[0.4, -0.17], [0.31, -0.4]]), 0.25, 1, 2),
    (torch.tensor([0.25, 0.75, -0.25]), 0.5, 1, 3),  # halves go to the even neighbour before the zero point is added
]


def _codes(weight, scale, zero_point, bits):
    return (torch.round(weight / scale) + zero_point).clamp(0, 2**bits - 1).long()


# ---- 04.values: codes to weights ----

VALUES_CASES = [
    (torch.tensor([0, 3, 7]), 0.5, 2),
    (torch.tensor([[15, 0], [6, 8]]), torch.tensor([[0.1], [0.25]]), torch.tensor([[6], [8]])),
]


# ---- 04.best_share: the clipping search ----


def _shares():
    return torch.linspace(1, 0.2, 81).tolist()


def _best_share(cost, clamp=True, best=min):
    """The search with another cost of (error, scale), without the clamp, or with max for min."""

    def search(weight, bits):
        qmax = 2 ** (bits - 1) - 1

        def of(share):
            scale = share * weight.abs().max() / qmax
            codes = torch.round(weight / scale)
            codes = codes.clamp(-qmax, qmax) if clamp else codes
            return float(cost(codes * scale - weight, scale))

        return best(_shares(), key=of)

    return search


def _rows(generator):
    return [(torch.randn(n, generator=generator) * 0.1, bits) for n, bits in ((192, 3), (768, 2), (400, 4))]


# ---- 04.pack4 ----

PACK_CASES = [
    (torch.tensor([1, 2]),),
    (torch.tensor([15, 0, 7, 9]),),
    (torch.tensor([3, 12, 5, 10, 8, 1]),),
]


def _pack4(codes):
    return (codes[0::2] | codes[1::2] << 4).to(torch.uint8)


def _unpack4(stored):
    return torch.stack((stored & 15, stored >> 4), 1).flatten().long()


# ---- 04.standard_error ----


def _losses(generator):
    cases = []
    for n in (16, 50):
        hard = 1 + 0.3 * torch.randn(n, generator=generator)  # what makes a window hard is common to both models
        cases.append((hard + 0.02 + 0.01 * torch.randn(n, generator=generator), hard))
    return cases


EXERCISES = [
    Exercise(
        id="04.affine",
        why="a whole zero point puts the value 0 on the grid, and zeros stay zeros.",
        minutes=4,
        difficulty=2,
        number=True,
        reference=lambda low, high, bits: ((high - low) / (2**bits - 1), round(-low / ((high - low) / (2**bits - 1)))),
        cases=[(-1.0, 2.0, 2), (-0.3, 0.9, 4), (-0.9, 1.0, 8), (0.0, 0.5, 3), (-0.2, 1.0, 3)],
        mistakes=[
            Mistake(
                lambda low, high, bits: ((high - low) / 2**bits, round(-low / ((high - low) / 2**bits))),
                "off by one: 2**bits codes have one step fewer between them, as four fence posts have three gaps.",
            ),
            Mistake(
                lambda low, high, bits: ((high - low) / (2**bits - 1), round(-low * (high - low) / (2**bits - 1))),
                "the zero point is low/scale, not low*scale: count how many steps lie between low and 0.",
            ),
            Mistake(
                lambda low, high, bits: ((high - low) / (2**bits - 1), round(low / ((high - low) / (2**bits - 1)))),
                "wrong sign: low is negative, but the code of the value 0 lies above code 0.",
            ),
            Mistake(
                lambda low, high, bits: ((high - low) / (2**bits - 1), -low / ((high - low) / (2**bits - 1))),
                "the zero point is a code and has to be a whole number; only then is 0 itself on the grid.",
            ),
            Mistake(
                lambda low, high, bits: ((high - low) / (2**bits - 1), int(-low / ((high - low) / (2**bits - 1)))),
                "int() cuts off the fraction; the zero point too goes to the nearest whole number.",
            ),
            Mistake(
                lambda low, high, bits: ((high - low) / (2**bits - 1), 2 ** (bits - 1)),
                "the middle code is right only if the range is the same on both sides of 0: use low.",
            ),
        ],
        hints=(
            "how many *steps* lie between 2**bits values? And how many of them between `low` and 0?",
            "`scale = (high - low) / (2**bits - 1)`, and the zero point is `-low / scale`, rounded.",
        ),
    ),
    Exercise(
        id="04.codes",
        why="the clamp comes last, because only the sum of steps and zero point has to fit into the bits.",
        minutes=4,
        difficulty=2,
        reference=_codes,
        cases=CODES_CASES,
        dtype=torch.int64,
        mistakes=[
            Mistake(
                lambda w, s, z, b: torch.round(w / s + z).clamp(0, 2**b - 1).long(),
                "round first, then add the zero point: half-way numbers go to the even neighbour, and an odd zero "
                "point changes which that is.",
            ),
            Mistake(
                lambda w, s, z, b: (torch.round(w / s) + z).long(),
                "a clamp is missing: a code below 0 or above 2**bits - 1 does not fit into the bits.",
            ),
            Mistake(
                lambda w, s, z, b: (torch.floor(w / s) + z).clamp(0, 2**b - 1).long(),
                "floor goes to the grid value below, not to the nearest: up to a whole step wrong, always downwards.",
            ),
            Mistake(
                lambda w, s, z, b: ((w / s).long() + z).clamp(0, 2**b - 1),
                "turning a float into an integer cuts off its fraction, towards zero: round first.",
            ),
            Mistake(
                lambda w, s, z, b: (torch.round(w * s) + z).clamp(0, 2**b - 1).long(),
                "multiplied by the scale: how many steps of that size go into the weight?",
            ),
            Mistake(
                lambda w, s, z, b: torch.round(w / s).clamp(0, 2**b - 1).long() + z,
                "clamped too early: it is the code that has to fit, that is with the zero point added.",
            ),
            Mistake(
                lambda w, s, z, b: (torch.round(w / s) + z).clamp(0, 2**b).long(),
                "off by one: 2**bits codes that start at 0 end at 2**bits - 1.",
            ),
            Mistake(
                lambda w, s, z, b: (torch.round(w / s) + z).clamp(-(2 ** (b - 1)), 2 ** (b - 1) - 1).long(),
                "that is the range of signed codes; here they start at 0, and the zero point makes up for it.",
            ),
        ],
        hints=(
            "divide, round, add the zero point, clamp, make integers.",
            "`torch.round(weight / scale) + zero_point`, then `.clamp(0, 2**bits - 1)`.",
        ),
    ),
    Exercise(
        id="04.values",
        why="this line is all that a model needs to compute with codes.",
        minutes=2,
        difficulty=1,
        reference=lambda codes, scale, zero_point: scale * (codes - zero_point),
        cases=VALUES_CASES,
        mistakes=[
            Mistake(
                lambda codes, scale, zero_point: scale * codes,
                "the zero point is forgotten: its code has to give the value 0.",
            ),
            Mistake(
                lambda codes, scale, zero_point: scale * codes - zero_point,
                "the zero point is a code, not a value: take it off before you multiply.",
            ),
            Mistake(
                lambda codes, scale, zero_point: scale * (codes + zero_point),
                "wrong sign: adding the zero point made the code, so here it is taken off.",
            ),
            Mistake(
                lambda codes, scale, zero_point: (codes - zero_point) / scale,
                "upside down: to get codes you divided by the scale, so now multiply.",
            ),
        ],
        hints=(
            "undo what made the codes, last step first; rounding and clamping cannot be undone.",
            "begin with `codes - zero_point`.",
        ),
    ),
    Exercise(
        id="04.noise",
        why="an error that is even over one step has the variance of that step: one bit more divides it by four.",
        minutes=3,
        difficulty=1,
        reference=lambda low, high, bits: ((high - low) / (2**bits - 1)) ** 2 / 12,
        cases=[(-1.0, 1.0, 2), (-0.3, 0.9, 4), (0.0, 5.0, 8)],
        mistakes=[
            Mistake(
                lambda low, high, bits: (high - low) / (2**bits - 1) / 12,
                "a squared error goes with the square of the step.",
            ),
            Mistake(
                lambda low, high, bits: ((high - low) / 2**bits) ** 2 / 12,
                "off by one: 2**bits values have 2**bits - 1 steps between them.",
            ),
            Mistake(
                lambda low, high, bits: ((high - low) / (2**bits - 1)) ** 2 / 3,
                "that is floor's error, anywhere between 0 and a step; to the nearest it is at most half a step.",
            ),
            Mistake(
                lambda low, high, bits: (high - low) / (2**bits - 1) / math.sqrt(12),
                "that is the standard deviation of the error; the mean squared error is its square.",
            ),
        ],
        hints=(
            "an error spread evenly over one step has a variance of step² / 12.",
            "`step = (high - low) / (2**bits - 1)`.",
        ),
    ),
    Exercise(
        id="04.cast",
        why="an integer type has no clamp: it keeps the last bits.",
        minutes=2,
        difficulty=1,
        reference="c",
        mistakes=[
            Mistake("a", "128 is not an int8: the codes end at 127."),
            Mistake("b", "that would be a clamp, and nobody wrote one; a cast keeps the low eight bits and no more."),
            Mistake("d", "no: a cast is silent, which is what makes it a trap."),
        ],
        hints=(
            "which code does the largest weight get before the cast to int8?",
            "it is 128 = 0b1000_0000: a cast to int8 keeps these eight bits, and reads the first as negative.",
        ),
    ),
    Exercise(
        id="04.average_bits",
        why="the smaller the groups, the better the fit and the larger the share of scales.",
        minutes=5,
        difficulty=2,
        reference=lambda columns, bits, group_size: bits + math.ceil(columns / group_size) * (16 + bits) / columns,
        cases=[(192, 4, 64), (192, 3, 128), (768, 2, 32), (192, 8, 192), (160, 4, 128)],
        mistakes=[
            Mistake(
                lambda columns, bits, group_size: bits,
                "those are the codes alone: without their scales and zero points nobody can read them.",
            ),
            Mistake(
                lambda columns, bits, group_size: bits + math.ceil(columns / group_size) * bits / columns,
                "the scales are forgotten: 16 bits for each group.",
            ),
            Mistake(
                lambda columns, bits, group_size: bits + math.ceil(columns / group_size) * 16 / columns,
                "the zero points are forgotten: a code of its own for each group.",
            ),
            Mistake(
                lambda columns, bits, group_size: bits + math.ceil(columns / group_size) * (32 + bits) / columns,
                "the scales are stored in float16: 16 bits, not 32.",
            ),
            Mistake(
                lambda columns, bits, group_size: bits + (16 + bits) / group_size,
                "right if the groups come out even; a shorter last group pays for a whole scale. Count the groups.",
            ),
            Mistake(
                lambda columns, bits, group_size: bits + columns // group_size * (16 + bits) / columns,
                "the shorter last group is forgotten: 192 columns in groups of 128 make two groups.",
            ),
        ],
        hints=(
            "how many groups has the row, and what does each store besides its codes?",
            "`groups = math.ceil(columns / group_size)`, and each costs `16 + bits` bits, which `columns` "
            "weights share.",
        ),
    ),
    Exercise(
        id="04.best_share",
        why="clipping costs a few weights much, finer steps give all others a little: fewer bits move the "
        "best end inwards.",
        minutes=12,
        difficulty=3,
        points=2,
        reference=_best_share(lambda error, scale: error.square().sum()),
        cases=_rows,
        paper=[(torch.tensor([1.0, 0.6, 0.5]), 2)],  # all of them get code 1: their mean is best
        mistakes=[
            Mistake(
                _best_share(lambda error, scale: error.square().sum(), clamp=False),
                "a clamp is missing: without it the finest grid always wins, with codes that do not fit.",
            ),
            Mistake(
                _best_share(lambda error, scale: (error / scale).square().sum()),
                "the error is measured in steps, which makes wide steps look good: compare the weights, not the codes.",
            ),
            Mistake(
                _best_share(lambda error, scale: error.abs().max()),
                "that makes the largest error least; one clipped weight then decides. Sum the squares.",
            ),
            Mistake(
                _best_share(lambda error, scale: error.abs().sum()),
                "that makes the mean absolute error least; here it is the squared error that counts.",
            ),
            Mistake(
                _best_share(lambda error, scale: error.square().sum(), best=max),
                "that is the worst share: the least error is wanted.",
            ),
        ],
        hints=(
            "for each share: a scale, codes, values, squared error. Then the share of the smallest.",
            "`qmax = 2 ** (bits - 1) - 1`, `scale = share * weight.abs().max() / qmax`, and the codes have to "
            "be clamped to -qmax … qmax.",
        ),
    ),
    Exercise(
        id="04.pack4",
        why="no type has four bits, so two codes share a byte; that is where the file gets smaller.",
        minutes=5,
        difficulty=2,
        reference=_pack4,
        cases=PACK_CASES,
        dtype=torch.uint8,
        mistakes=[
            Mistake(
                lambda codes: (codes[0::2] << 4 | codes[1::2]).to(torch.uint8),
                "wrong nibble order: here the first code goes into the low four bits, the second into the high four.",
            ),
            Mistake(
                lambda codes: (codes[: len(codes) // 2] | codes[len(codes) // 2 :] << 4).to(torch.uint8),
                "a byte holds two neighbours, codes 0 and 1, then 2 and 3; not one from each half.",
            ),
            Mistake(
                lambda codes: (codes[0::2] | codes[1::2]).to(torch.uint8),
                "the two codes lie on top of each other: move the second one four bits up.",
            ),
            Mistake(
                lambda codes: (codes[0::2] + codes[1::2] * 15).to(torch.uint8),
                "off by one: four bits up is times 2**4 = 16, not times the largest code.",
            ),
            Mistake(
                lambda codes: codes.to(torch.uint8),
                "that is one code in each byte, half of it empty: two fit.",
            ),
        ],
        hints=(
            "take every second code from 0, and every second from 1: the one lies low in the byte, the other "
            "four bits higher.",
            "`codes[0::2]` and `codes[1::2] << 4`, put together with `|`, and made uint8 at the end.",
        ),
    ),
    Exercise(
        id="04.unpack4",
        why="what was packed comes back bit for bit; only rounding has lost anything.",
        minutes=4,
        difficulty=2,
        reference=_unpack4,
        cases=[(_pack4(codes),) for (codes,) in PACK_CASES],
        dtype=torch.int64,
        mistakes=[
            Mistake(
                lambda stored: torch.stack((stored >> 4, stored & 15), 1).flatten().long(),
                "wrong nibble order: the first code is in the low four bits of its byte.",
            ),
            Mistake(
                lambda stored: torch.cat((stored & 15, stored >> 4)).long(),
                "all low halves first, then all high ones: the two codes of a byte are neighbours.",
            ),
            Mistake(
                lambda stored: torch.stack((stored, stored >> 4), 1).flatten().long(),
                "the low code still has the high one above it: keep its last four bits alone.",
            ),
            Mistake(
                lambda stored: torch.stack((stored & 15, stored & 240), 1).flatten().long(),
                "the second code is still in the high half: move it four bits down.",
            ),
            Mistake(
                lambda stored: torch.stack((stored & 16, stored >> 4), 1).flatten().long(),
                "16 has a single bit; the mask of the low four bits is 15.",
            ),
            Mistake(
                lambda stored: (stored & 15).long(),
                "those are the first codes of each pair; where are the second ones?",
            ),
        ],
        hints=(
            "get all low halves and all high halves as two tensors; then alternate between them.",
            "`low = stored & 15` and `high = stored >> 4`; `torch.stack((low, high), 1)` has a pair in each row.",
        ),
    ),
    Exercise(
        id="04.capstone",
        why="nothing but the file reached the fresh model, so its bytes are the whole price.",
        minutes=30,
        difficulty=3,
        points=5,
        reference=capstone.round_trip(),
        produce=capstone.produce,
        diagnose=capstone.diagnose,
        mistakes=[
            Mistake(
                capstone.round_trip(packed=lambda codes: codes.to(torch.uint8), unpacked=lambda stored: stored),
                "the file has 2.69 MB, 8.1 bits per weight; 1.40 MB are allowed. That is a whole byte for each code: "
                "pack two into each.",
            ),
            Mistake(
                capstone.round_trip(packed=lambda codes: codes, unpacked=lambda stored: stored),
                "the file has 21.27 MB, 64.1 bits per weight; 1.40 MB are allowed. Are the codes int64? Pack two into "
                "each byte.",
            ),
            Mistake(
                capstone.round_trip(unpacked=lambda stored: torch.stack((stored >> 4, stored & 15), 1).flatten()),
                "in blocks.0.attention.qkv every two neighbours have changed places: which half of a byte is the first "
                "code?",
            ),
            Mistake(
                capstone.round_trip(values=lambda codes, scale, zero_point: scale * codes),
                "blocks.0.attention.qkv is too large by the zero point in every row: take it off the codes before you "
                "multiply",
            ),
            Mistake(
                capstone.round_trip(values=lambda codes, scale, zero_point: scale * (codes.byte() - zero_point)),
                "in blocks.0.attention.qkv some weights are 256 steps off: codes minus zero points wrap round in uint8",
            ),
            Mistake(
                capstone.round_trip(row_grid=capstone.matrix_grid),
                "all of blocks.0.attention.qkv has one grid: give each row a scale and a zero point of its own",
            ),
            Mistake(
                capstone.round_trip(row_grid=capstone.grid_from_zero),
                "blocks.0.attention.qkv has no negative weight left: without a zero point their codes are below 0. Add "
                "it in write, and take it off in read",
            ),
            Mistake(
                capstone.round_trip(wanted=lambda name: "mlp" in name),
                "after read(model, path) there is still NaN in blocks.0.attention.qkv and in 11 more matrices: fill "
                "the model that read is given",
            ),
        ],
        hints=(
            "do one matrix first, from weights to bytes and back, and compare it with the original.",
            "try the parts one by one: `my_unpack4(my_pack4(codes))` gives the codes back, in the old order; "
            "`my_values` of them is within half a step of the weights; scales and zero points come out of the file as "
            "they went in.",
        ),
    ),
    Exercise(
        id="04.standard_error",
        why="what makes a window hard is common to both models, and the difference is free of it.",
        minutes=4,
        difficulty=2,
        reference=lambda losses, reference: (losses - reference).std() / math.sqrt(len(losses)),
        cases=_losses,
        paper=[(torch.tensor([1.5, 2.1, 3.1, 4.1]), torch.tensor([1.0, 2.0, 3.0, 4.0]))],
        mistakes=[
            Mistake(
                lambda losses, reference: ((losses.var() + reference.var()) / len(losses)).sqrt(),
                "unpaired: that adds the two spreads as if each model had read its own text. Subtract first.",
            ),
            Mistake(
                lambda losses, reference: (losses - reference).std(),
                "that is the spread of one window; a mean of n windows is surer by the square root of n.",
            ),
            Mistake(
                lambda losses, reference: (losses - reference).std() / len(losses),
                "the spread of a mean falls with the square root of n, not with n.",
            ),
            Mistake(
                lambda losses, reference: losses.std() / math.sqrt(len(losses)),
                "that is the standard error of one model's loss; it is the difference that is asked for.",
            ),
            Mistake(
                lambda losses, reference: (losses - reference).std(correction=0) / math.sqrt(len(losses)),
                "a spread divided by n, numpy's default; that of a sample is divided by n - 1, as tensor.std() does "
                "(numpy: ddof=1).",
            ),
        ],
        hints=(
            "paired: subtract window by window, and only then ask how much the differences vary.",
            "`difference = losses - reference`; its spread divided by the root of the number of windows.",
        ),
    ),
    Exercise(
        id="04.audit",
        why="an optimiser's state is needed to go on training, never to run the model.",
        minutes=3,
        difficulty=1,
        reference="b",
        mistakes=[
            Mistake("a", "float64 weights would be 8 bytes per parameter: divide the file's size by their number."),
            Mistake("c", "weights and gradients would be 8 bytes per parameter: one number is still missing."),
            Mistake("d", "ten million characters would add 10 MB; the file is 12 bytes per parameter almost exactly."),
        ],
        hints=(
            "divide the bytes of the checkpoint by the number of parameters: which whole number is that, very "
            "nearly?",
            "about 12 bytes, that is three floats: the weight and two more. What does AdamW keep for each "
            "parameter?",
        ),
    ),
    Exercise(
        id="04.payload",
        why="codes, scales and what stays: a size is honest when it counts all three.",
        minutes=2,
        difficulty=1,
        reference=lambda weights, rows, rest: weights + 4 * rows + 4 * rest,
        cases=[(2_654_208, 10_368, 68_160), (1000, 10, 50)],
        mistakes=[
            Mistake(
                lambda weights, rows, rest: weights + 4 * rest,
                "the scales are forgotten: a float32 for each row.",
            ),
            Mistake(
                lambda weights, rows, rest: weights + 4 * rows,
                "the rest is forgotten: embeddings and norms stay in the file, as float32.",
            ),
            Mistake(
                lambda weights, rows, rest: weights + 4 * rows + rest,
                "the rest is not quantised: its parameters still take four bytes each, not one.",
            ),
            Mistake(
                lambda weights, rows, rest: 8 * weights + 32 * rows + 32 * rest,
                "those are bits; a byte has eight.",
            ),
            Mistake(
                lambda weights, rows, rest: (weights + 4 * rows + 4 * rest) / 1e6,
                "those are megabytes: bytes are asked for.",
            ),
        ],
        hints=(
            "what is stored for each code, for each row, and for each parameter of the rest?",
            "one byte, four bytes, four bytes.",
        ),
    ),
]
