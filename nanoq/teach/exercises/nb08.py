"""Exercises of notebook 08, size is not speed."""

import numpy as np
import torch

from nanoq.teach.checks import Exercise, Mistake

# ---- 08.dot4: a row of packed nibbles times a vector ----


def _packed_rows(generator):
    cases = []
    for n, zero in ((4, 7), (16, 0), (64, 9)):
        packed = torch.randint(0, 256, (n // 2,), generator=generator).to(torch.uint8)
        cases.append((packed, 0.25, zero, torch.randn(n, generator=generator)))
    return cases


def _dot4(packed, scale, zero, x, low=slice(0, None, 2), high=slice(1, None, 2)):
    total = ((packed & 15).float() * x[low]).sum() + ((packed >> 4).float() * x[high]).sum()
    return scale * (total - zero * x.sum())


def _halves(packed, scale, zero, x):
    half = len(x) // 2
    return _dot4(packed, scale, zero, x, slice(0, half), slice(half, None))


def _wrapping(packed, scale, zero, x):
    low, high = (packed & 15) - zero, (packed >> 4) - zero
    return scale * ((low.float() * x[0::2]).sum() + (high.float() * x[1::2]).sum())


def _unshifted(packed, scale, zero, x):
    total = ((packed & 15).float() * x[0::2]).sum() + ((packed & 240).float() * x[1::2]).sum()
    return scale * (total - zero * x.sum())


# ---- 08.kernel: all rows, as a loop that numba compiles ----


def _kernel(packed, scale, zero, even, odd):
    y = np.zeros(len(packed), np.float32)
    x_sum = even.sum() + odd.sum()
    for r in range(len(packed)):
        total = np.float32(0)
        for j in range(len(even)):
            byte = packed[r, j]
            total += np.float32(byte & 15) * even[j] + np.float32(byte >> 4) * odd[j]
        y[r] = scale[r] * (total - zero[r] * x_sum)
    return y


def _matrices(generator):
    cases = []
    for rows, n in ((1, 4), (3, 8), (5, 12)):
        packed = torch.randint(0, 256, (rows, n // 2), generator=generator).to(torch.uint8)
        zero = torch.randint(3, 12, (rows,), generator=generator).float()
        x = torch.randn(2, n // 2, generator=generator)
        scale = torch.rand(rows, generator=generator) + 0.5
        cases.append(tuple(part.numpy() for part in (packed, scale, zero, *x)))
    return cases


def _called(answer, *case):
    """What a kernel returns, an array or a list, as a tensor."""
    y = answer(*case)
    return torch.tensor(np.asarray(y)) if isinstance(y, (np.ndarray, list, tuple)) else y


def _first_row_only(packed, scale, zero, even, odd):
    y = np.zeros(len(packed), np.float32)
    y[0] = _kernel(packed, scale, zero, even, odd)[0]
    return y


def _running(packed, scale, zero, even, odd):
    totals = np.cumsum(_kernel(packed, np.ones_like(scale), np.zeros_like(zero), even, odd))
    return (scale * (totals - zero * (even.sum() + odd.sum()))).astype(np.float32)


# ---- 08.hadamard: by doubling ----


def _hadamard(n, corner=-1):
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, corner * h], 1)])
    return h


def _tiled(n):
    h = torch.ones(n, n)
    h[n // 2 :, n // 2 :] = -1
    return h


# ---- 08.w8a8: integers in, floats out ----


def _integers(generator):
    cases = []
    for out, tokens, columns in ((3, 5, 40), (6, 1, 12)):
        codes = torch.randint(0, 256, (out, columns), generator=generator).to(torch.uint8)
        zero = torch.randint(100, 156, (out, 1), generator=generator)
        q = torch.randint(-127, 128, (tokens, columns), generator=generator).to(torch.int8)
        scales = (0.01 * torch.rand(n, 1, generator=generator) + 0.01 for n in (out, tokens))
        cases.append((codes, zero, *scales, q))
    return cases


def _w8a8_case(codes, zero, weight_scale, x_scale, q):
    """A case from lists, of the types that a kernel has."""
    return (torch.tensor(codes, dtype=torch.uint8), torch.tensor(zero), torch.tensor(weight_scale),
            torch.tensor(x_scale), torch.tensor(q, dtype=torch.int8))


def _w8a8(codes, zero, weight_scale, x_scale, q):
    sums = codes.long() @ q.long().T
    return ((sums - zero * q.long().sum(1)) * weight_scale).T * x_scale


def _narrow_sums(codes, zero, weight_scale, x_scale, q):
    sums = (codes.long() @ q.long().T).to(torch.int16).long()
    return ((sums - zero * q.long().sum(1)) * weight_scale).T * x_scale


# ---- 08.smooth ----


def _ranges(generator):
    cases = []
    for columns, alpha in ((4, 0.5), (7, 0.75)):
        x = torch.randn(30, columns, generator=generator) * torch.linspace(0.5, 20, columns)
        cases.append((x, torch.randn(9, columns, generator=generator), alpha))
    return cases


def _smooth(x, weight, alpha):
    return x.abs().amax(0) ** alpha / weight.abs().amax(0) ** (1 - alpha)


# ---- 08.kv_bytes ----


def _kv_bytes(layers, heads, width, bits, group, keys=1, values=1, twice=1):
    codes = 2 * width * bits / 8 if twice else width * bits / 8
    return layers * heads * (codes + keys * 4 * width / group + values * 4)


# ---- 08.word ----

WORDS = [(0x76543210,), (-1985229329,), (-1,), (1234567,)]


EXERCISES = [
    Exercise(
        id="08.dot4",
        why="the zero point is paid for once per row, so the inner sum has nothing but codes.",
        minutes=6,
        difficulty=2,
        hints=(
            "take the byte apart first: which four bits are `packed & 15`, and which are `packed >> 4`? Which "
            "columns of x does each of the two meet?",
            "two sums, `(packed & 15).float() * x[0::2]` and the like for the high nibbles; take off `zero * "
            "x.sum()` before you scale.",
        ),
        points=2,
        reference=_dot4,
        cases=_packed_rows,
        mistakes=[
            Mistake(
                lambda packed, scale, zero, x: _dot4(packed, scale, zero, x, slice(1, None, 2), slice(0, None, 2)),
                "the nibbles are swapped: the low four bits belong to the even columns, 0, 2, 4, ...",
            ),
            Mistake(
                _halves,
                "a byte holds two neighbouring columns; here its nibbles have met the first and the second half of x.",
            ),
            Mistake(
                lambda packed, scale, zero, x: _dot4(packed, scale, 0, x),
                "the zero point is missing: a code q stands for scale * (q - zero), not for scale * q.",
            ),
            Mistake(
                lambda packed, scale, zero, x: _dot4(packed, scale, 0, x) - scale * zero,
                "the zero point was taken off once; it has to come off every code, and each code has its own x.",
            ),
            Mistake(
                _wrapping,
                "uint8 has no negative numbers: 3 - 7 wrapped around to 252. Turn the codes into floats first.",
            ),
            Mistake(
                _unshifted,
                "the high nibble was masked but not moved: it still counts sixteen times too much.",
            ),
            Mistake(
                lambda packed, scale, zero, x: _dot4(packed, 1.0, zero, x),
                "the scale is missing.",
            ),
        ],
    ),
    Exercise(
        id="08.kernel",
        why="each code lives in a register from the byte to the sum, and never travels as a float.",
        minutes=10,
        difficulty=3,
        hints=(
            "two loops: over the rows, and within a row over its bytes. What is added to the row's sum for one byte, "
            "and what is done once per row?",
            "inside: `total += (byte & 15) * even[j]`, and the like for the high nibble; after the inner loop `y[r]` "
            "is the formula above.",
        ),
        points=3,
        reference=_kernel,
        cases=_matrices,
        call=_called,
        rtol=1e-3,
        mistakes=[
            Mistake(
                lambda packed, scale, zero, even, odd: _kernel(packed, scale, zero, odd, even),
                "the nibbles are swapped: the low four bits belong to the even columns, 0, 2, 4, ...",
            ),
            Mistake(
                lambda packed, scale, zero, even, odd: _kernel(packed, scale, 0 * zero, even, odd),
                "the zero point is missing: zero[r] times the sum of all of x comes off the row's sum.",
            ),
            Mistake(
                lambda packed, scale, zero, even, odd: _kernel(packed, scale, 0 * zero, even, odd) - scale * zero,
                "the zero point came off once; it comes off every code, so it meets the sum of x.",
            ),
            Mistake(
                lambda packed, scale, zero, even, odd: (
                    _kernel(packed, scale, 0 * zero, even, odd) - zero * (even.sum() + odd.sum())).astype(np.float32),
                "the zero point counts in steps as the codes do: take it off before the scale is multiplied.",
            ),
            Mistake(
                lambda packed, scale, zero, even, odd: _kernel(packed, np.ones_like(scale), zero, even, odd),
                "the scale is missing.",
            ),
            Mistake(
                lambda packed, scale, zero, even, odd: _kernel(packed, scale, zero, even, 16 * odd)
                + 15 * scale * zero * odd.sum(),
                "the high nibble was masked but not moved: it still counts sixteen times too much.",
            ),
            Mistake(
                lambda packed, scale, zero, even, odd: _kernel(packed, scale, zero, even, 0 * odd)
                - scale * zero * odd.sum(),
                "each byte has two codes: the high nibbles, and the odd columns, are missing.",
            ),
            Mistake(
                _first_row_only,
                "only the first row was written: a return inside the loop ends it.",
            ),
            Mistake(
                _running,
                "the sum goes on from row to row: begin each row with 0.",
            ),
        ],
    ),
    Exercise(
        id="08.bytes_moved",
        why="in small groups the scales weigh as much as the codes, and a kernel has to read them too.",
        minutes=5,
        difficulty=1,
        hints=(
            "four things travel: codes, what belongs to each group, x, and y. How many numbers is each, and of how "
            "many bytes?",
            "there are `out * columns // group_size` groups, with 8 bytes each; codes take `bits / 8` bytes.",
        ),
        reference=lambda out, columns, bits, group_size: (
            out * columns * bits / 8 + out * (columns / group_size) * 8 + 4 * (columns + out)
        ),
        cases=[(2048, 8192, 4, 64), (192, 768, 8, 192), (768, 192, 4, 32), (100, 64, 4, 16)],
        mistakes=[
            Mistake(
                lambda out, columns, bits, group_size: out * columns * bits / 8 + 4 * (columns + out),
                "the scales and zero points are forgotten: 8 bytes for every group of every row.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: (
                    out * columns * bits / 8 + out * (columns / group_size) * (2 + bits / 8) + 4 * (columns + out)
                ),
                "that is how a file stores scales and zero points; this kernel keeps both in float32.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: (
                    out * columns * bits + out * (columns / group_size) * 8 + 4 * (columns + out)
                ),
                "the codes were counted in bits: eight of them make a byte.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: (
                    out * columns * bits / 8 + out * (columns / group_size) * 4 + 4 * (columns + out)
                ),
                "four bytes for each group: a scale and a zero point are two numbers.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: (
                    out * columns * bits / 8 + out * (columns / group_size) * 8 + 4 * columns
                ),
                "the result is forgotten: y has to be written, too.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: (
                    out * columns * bits / 8 + (columns / group_size) * 8 + 4 * (columns + out)
                ),
                "the groups of one row were counted: every row has groups of its own.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: out * columns * bits / 8 + out * (columns / group_size) * 8,
                "x and y are forgotten: they are small here, but they have to be read and written too.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: out * columns * bits / 8 + out * 8 + 4 * (columns + out),
                "that is one scale per row: here every group of a row has one.",
            ),
            Mistake(
                lambda out, columns, bits, group_size: (
                    out * columns * (4 + bits / 8) + out * (columns / group_size) * 8 + 4 * (columns + out)
                ),
                "a float weight was counted too: the kernel never makes one, and that is its point.",
            ),
        ],
    ),
    Exercise(
        id="08.intensity",
        why="the weight is read once, however many tokens use it, so more tokens mean more work per byte.",
        minutes=4,
        difficulty=1,
        hints=(
            "operations on top, bytes below. Which of the bytes are there once, and which once per token?",
            "`2 * out * columns * tokens` operations; the bytes are those of the weight plus `4 * tokens * (columns "
            "+ out)`.",
        ),
        reference=lambda out, columns, tokens, bits: (
            2 * out * columns * tokens / (out * columns * bits / 8 + 4 * tokens * (columns + out))
        ),
        cases=[(2048, 8192, 1, 32), (2048, 8192, 256, 4), (192, 768, 16, 8)],
        mistakes=[
            Mistake(
                lambda out, columns, tokens, bits: (
                    out * columns * tokens / (out * columns * bits / 8 + 4 * tokens * (columns + out))
                ),
                "half of the work is missing: each weight is multiplied and then added, two operations.",
            ),
            Mistake(
                lambda out, columns, tokens, bits: (
                    2 * out * columns * tokens / (out * columns * bits + 4 * tokens * (columns + out))
                ),
                "the weight was counted in bits: operations per BYTE are asked for.",
            ),
            Mistake(
                lambda out, columns, tokens, bits: (
                    2 * out * columns * tokens / (tokens * (out * columns * bits / 8 + 4 * (columns + out)))
                ),
                "the weight was read anew for every token: in one product it is read once, and that is the point.",
            ),
            Mistake(
                lambda out, columns, tokens, bits: 2 * out * columns * tokens / (out * columns * bits / 8),
                "the activations are forgotten: every token is read and its result written, in float32.",
            ),
            Mistake(
                lambda out, columns, tokens, bits: (
                    (out * columns * bits / 8 + 4 * tokens * (columns + out)) / (2 * out * columns * tokens)
                ),
                "upside down: operations per byte, not bytes per operation.",
            ),
        ],
    ),
    Exercise(
        id="08.crossover",
        why="fewer bits leave less to wait for, so the processor is the bottleneck sooner.",
        minutes=5,
        difficulty=2,
        hints=(
            "look at one weight: how long does it take to read it, and how long to use it for `tokens` tokens?",
            "solve `bits / 8 / bandwidth == 2 * tokens / rate` for the tokens.",
        ),
        reference=lambda rate, bandwidth, bits: rate / bandwidth * bits / 16,
        cases=[(100e9, 10e9, 32), (100e9, 10e9, 4), (3e12, 200e9, 8)],
        mistakes=[
            Mistake(
                lambda rate, bandwidth, bits: rate / bandwidth * bits / 8,
                "a factor of two: each weight does two operations for each token, a product and a sum.",
            ),
            Mistake(
                lambda rate, bandwidth, bits: rate / bandwidth / (bits / 16),
                "upside down: with fewer bits there is less to wait for, so the processor is busy sooner.",
            ),
            Mistake(
                lambda rate, bandwidth, bits: rate / bandwidth * bits / 2,
                "the weight was counted in bits; the bandwidth is in bytes.",
            ),
            Mistake(
                lambda rate, bandwidth, bits: bandwidth / rate * bits / 16,
                "bandwidth and rate are swapped: set bytes / bandwidth equal to operations / rate.",
            ),
            Mistake(
                lambda rate, bandwidth, bits: rate / bandwidth,
                "that is the balance, in operations per byte; how many tokens bring a weight of these bits there?",
            ),
        ],
    ),
    Exercise(
        id="08.w8a8",
        why="neither scale depends on the summation index, so the sum itself has integers alone.",
        minutes=8,
        difficulty=2,
        hints=(
            "do the underbraced sum first, as a product of two integer matrices. What has to be taken off it, and "
            "which scale belongs to which side?",
            "`codes.long() @ q.long().T` is (out, tokens); `q.long().sum(1)` has one number per token; transpose at "
            "the end.",
        ),
        points=2,
        reference=_w8a8,
        cases=_integers,
        paper=[_w8a8_case([[12, 9], [10, 6]], [[10], [8]], [[0.5], [1.0]], [[0.1]], [[5, -2]]),
               _w8a8_case([[200, 100]], [[128]], [[0.1]], [[0.1]], [[127, 100]])],
        mistakes=[
            Mistake(
                lambda codes, zero, weight_scale, x_scale, q: ((codes.long() @ q.long().T) * weight_scale).T * x_scale,
                "the zero point is missing: zero * sum of q has to come off every sum.",
            ),
            Mistake(
                lambda codes, zero, weight_scale, x_scale, q: (
                    (codes.long() @ q.long().T - zero) * weight_scale).T * x_scale,
                "the zero point came off once; it comes off every code, so it meets the sum of that token's q.",
            ),
            Mistake(
                lambda codes, zero, weight_scale, x_scale, q: (
                    (codes.long() @ q.long().T - zero * q.shape[1]) * weight_scale).T * x_scale,
                "the zero point came off once for each column, as if every activation were 1: each has its own q.",
            ),
            Mistake(
                lambda codes, zero, weight_scale, x_scale, q: (
                    (codes.long() @ q.long().T - zero * q.long().sum(1)) * weight_scale).T,
                "still in steps of the activations: the scale of each token is missing.",
            ),
            Mistake(
                lambda codes, zero, weight_scale, x_scale, q: (
                    (codes.long() @ q.long().T - zero * q.long().sum(1)).T * x_scale),
                "still in steps of the weights: the scale of each row is missing.",
            ),
            Mistake(
                _narrow_sums,
                "the sums went through int16 and wrapped around: they need int32 at least.",
            ),
            Mistake(
                lambda codes, zero, weight_scale, x_scale, q: (
                    (codes.long() @ q.long().T - zero * q.long().sum(1)) * weight_scale) * x_scale.T,
                "right numbers, wrong way round: a row of the result belongs to a token.",
            ),
        ],
    ),
    Exercise(
        id="08.smooth",
        why="both sides get the same range at alpha 1/2, so neither has outliers that the other has not.",
        minutes=5,
        difficulty=1,
        hints=(
            "both maxima are over magnitudes, and per channel. Over which dimension of `x` and of `weight`?",
            "begin with `x.abs().amax(0) ** alpha`.",
        ),
        reference=_smooth,
        cases=_ranges,
        paper=[(torch.tensor([[-16.0, 1.0], [4.0, -0.5]]), torch.tensor([[1.0, -16.0], [0.5, 2.0]]), 0.75)],
        mistakes=[
            Mistake(
                lambda x, weight, alpha: x.abs().amax(0) ** (1 - alpha) / weight.abs().amax(0) ** alpha,
                "the exponents are swapped: alpha belongs to the activations. (At 0.5 nobody would notice.)",
            ),
            Mistake(
                lambda x, weight, alpha: weight.abs().amax(0) ** (1 - alpha) / x.abs().amax(0) ** alpha,
                "upside down: X is DIVIDED by s, so s has to be large where X is large.",
            ),
            Mistake(
                lambda x, weight, alpha: x.abs().amax(0) ** alpha / weight.abs().amax(0) ** alpha,
                "both exponents are alpha: what one side takes of the trouble, the other is spared. (At 0.5 nobody "
                "would notice.)",
            ),
            Mistake(
                lambda x, weight, alpha: x.amax(0) ** alpha / weight.amax(0) ** (1 - alpha),
                "the largest value may be a negative one: take the maximum of the absolute values.",
            ),
            Mistake(
                lambda x, weight, alpha: x.abs().mean(0) ** alpha / weight.abs().mean(0) ** (1 - alpha),
                "those are means (AWQ uses them, for another purpose); the scale of a grid follows the maximum.",
            ),
            Mistake(
                lambda x, weight, alpha: x.abs().max() ** alpha / weight.abs().amax(0) ** (1 - alpha),
                "one maximum for all of X: every channel has its own, over the tokens (dimension 0).",
            ),
            Mistake(
                lambda x, weight, alpha: x.abs().amax(0) ** alpha * weight.abs().amax(0) ** (1 - alpha),
                "the range of the weights divides: a column that is wide already should not get wider.",
            ),
        ],
    ),
    Exercise(
        id="08.kv_bytes",
        why="the scales are a fixed price, which weighs more the fewer bits a code has.",
        minutes=6,
        difficulty=2,
        hints=(
            "count one head of one block: the codes of a key, those of a value, and the share of the scales that "
            "each token pays.",
            "a channel's 4 bytes are shared by `group` tokens, and there are `width` channels; a value's 4 bytes "
            "belong to one token.",
        ),
        reference=lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group),
        cases=[(6, 6, 32, 4, 32), (6, 6, 32, 2, 32), (80, 8, 128, 4, 64), (12, 3, 64, 8, 128), (6, 6, 32, 3, 48)],
        mistakes=[
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group, 0, 0),
                "those are the codes alone: each group has a scale and a minimum, two bytes each.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group, 1, 1, twice=0),
                "keys AND values are kept: the codes count twice.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group, 1, 0),
                "the values are rounded too, with a scale and a minimum for each token of each head.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group) / heads,
                "every head keeps its own keys and values.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group) / layers,
                "every block has a cache of its own.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group, group, 1),
                "a group of tokens shares the scales of its channels: a token pays its part of them only.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group, 0.5, 0.5),
                "a scale and a minimum, in float16: that makes four bytes, not two.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group, 0.5, 1),
                "the minimum of the keys is forgotten: each channel of a group has two numbers, not one.",
            ),
            Mistake(
                lambda layers, heads, width, bits, group: _kv_bytes(layers, heads, width, bits, group, 1, 0.5),
                "the minimum of the values is forgotten: each token of a head has two numbers, not one.",
            ),
        ],
    ),
    Exercise(
        id="08.hadamard",
        why="two rows have as many signs in common as not, so they are orthogonal, and turning a vector takes "
        "additions alone.",
        minutes=5,
        difficulty=2,
        hints=(
            "start with a matrix of one 1, and double it as long as it is too small. What are its four quarters?",
            "begin with `h = torch.ones(1, 1)`; `torch.cat([h, h], 1)` puts two side by side, `torch.cat([a, b])` one "
            "above the other.",
        ),
        reference=_hadamard,
        cases=[(1,), (2,), (4,), (16,)],
        mistakes=[
            Mistake(
                lambda n: _hadamard(n) / n**0.5,
                "the entries are 1 and -1; the division by the root of n comes later, where vectors are turned.",
            ),
            Mistake(
                lambda n: _hadamard(n, corner=1),
                "all entries are 1: the quarter at the bottom right has the other sign.",
            ),
            Mistake(
                lambda n: -_hadamard(n),
                "all signs are turned: it starts with 1, and three of the quarters keep their sign.",
            ),
            Mistake(
                _tiled,
                "only the last quarter is negative here: each quarter is a Hadamard matrix itself.",
            ),
            Mistake(
                lambda n: _hadamard(2 * n),
                "doubled once too often: n rows, not 2 n.",
            ),
            Mistake(
                lambda n: _hadamard(n).flip(0),
                "upside down: the minus stands at the bottom right.",
            ),
        ],
    ),
    Exercise(
        id="08.word",
        why="shifts and masks ask for bits, whatever number the word as a whole stands for.",
        minutes=5,
        difficulty=2,
        hints=(
            "shift a code into the lowest four bits, and mask off what lies above it.",
            "for code k: `word >> 4 * k`, then what `& 15` leaves.",
        ),
        reference=lambda word: [word >> 4 * k & 15 for k in range(8)],
        cases=WORDS,
        mistakes=[
            Mistake(
                lambda word: [word >> 4 * k & 15 for k in reversed(range(8))],
                "the other way round: code 0 lies in the lowest four bits.",
            ),
            Mistake(
                lambda word: [word >> 4 * k for k in range(8)],
                "a mask is missing: of what is left after the shift, only the lowest four bits are the code.",
            ),
            Mistake(
                lambda word: [word >> k & 15 for k in range(8)],
                "the codes overlap: each lies four bits above the one before it, not one.",
            ),
            Mistake(
                lambda word: [abs(word) >> 4 * k & 15 for k in range(8)],
                "the sign of the word means nothing, but its bits do: abs() changes nearly all of them.",
            ),
            Mistake(
                lambda word: [word >> 8 * k & 255 for k in range(4)],
                "those are the four bytes; each holds two codes.",
            ),
        ],
    ),
]
