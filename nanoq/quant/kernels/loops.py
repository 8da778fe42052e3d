"""The compiled loops of the kernels: arrays in, sums out, and nothing of layers.

Packed codes lie in memory as words of four bytes, those of neighbouring rows side by side: uint32 (blocks, words, rows
of a block); `words_of` makes them of what `nanoq.quant.packing` gives, where each group takes `room` columns. A loop
over rows then runs in many lanes, whatever the width of a code and of a group: a lane loads a word and cuts eight codes
or more out of it, and no sum has to be collected from the lanes of a register, which for groups of 32 would take longer
than the products. A block is read from its first byte to its last.

numba makes int64 of every integer operation, and int64 vectorises badly: hence int32(...) around each of them.
Reassociation lets a sum run in many lanes at once; NaN and infinity keep their meaning.
"""

import numpy as np
from numba import prange

from nanoq.compiled import compiled

FAST = {"reassoc", "contract", "nsz"}
SERIAL = 2**19  # fewer multiplications than this take less time than starting a second thread
BLOCK = 2048  # rows whose sums lie in the nearest cache
COLUMNS = 64  # whose products are added one by one: sums of sums have smaller errors
_i32, _u32, _f32 = np.int32, np.uint32, np.float32


# ---- float weights ----


@compiled(fastmath=FAST)
def dot(weight, x):
    """Sum of weight * x: both float32 (n,)."""
    total = _f32(0)
    for k in range(len(weight)):
        total += weight[k] * x[k]
    return total


@compiled(fastmath=FAST)
def _dots(weight, x0, x1, x2, x3):
    """`dot` for four tokens, which share the loads of the weight."""
    a, b, c, d = _f32(0), _f32(0), _f32(0), _f32(0)
    for k in range(len(weight)):
        w = weight[k]
        a += w * x0[k]
        b += w * x1[k]
        c += w * x2[k]
        d += w * x3[k]
    return a, b, c, d


@compiled
def float_rows(weight, x, y):
    """Multiply x (tokens, in) by a float32 weight (out, in), into y (tokens, out)."""
    fours = len(x) // 4 * 4
    for r in range(len(weight)):
        for t in range(0, fours, 4):
            y[t, r], y[t + 1, r], y[t + 2, r], y[t + 3, r] = _dots(weight[r], x[t], x[t + 1], x[t + 2], x[t + 3])
        for t in range(fours, len(x)):
            y[t, r] = dot(weight[r], x[t])


# ---- codes: sums (rows,) of code * x over a few columns, whose codes are in words uint32 (rows,) ----


def words_of(packed: np.ndarray) -> np.ndarray:
    """Packed rows, uint8 (out, bytes), as the loops take them: uint32 (blocks, words, rows of a block)."""
    out, size = packed.shape
    blocks = -(-out // BLOCK)
    rows = -(-out // blocks)
    words = np.pad(packed, ((0, blocks * rows - out), (0, -size % 4))).view(_u32)
    return np.ascontiguousarray(words.reshape(blocks, rows, -1).transpose(0, 2, 1))


@compiled(fastmath=FAST)
def _four(word, bits, a, b, c, d):
    """The lowest four codes of a word times four numbers; the second and the fourth are divided by 2**bits before.

    Every second code is thus multiplied where it is, which saves a shift and is exact.
    """
    low, high, rest = _u32((1 << bits) - 1), _u32((1 << 2 * bits) - (1 << bits)), _u32(word >> _u32(2 * bits))
    return (_f32(_i32(word & low)) * a + _f32(_i32(word & high)) * b
            + _f32(_i32(rest & low)) * c + _f32(_i32(rest & high)) * d)


@compiled(fastmath=FAST)
def _add8(sums, p, q, x):
    """Two words of four codes each."""
    a, b, c, d, e, f, g, h = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for r in range(len(sums)):
        sums[r] += _four(p[r], 8, a, b, c, d) + _four(q[r], 8, e, f, g, h)


@compiled(fastmath=FAST)
def _add4(sums, p, x):
    """A word of eight codes."""
    a, b, c, d, e, f, g, h = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for r in range(len(sums)):
        sums[r] += _four(p[r], 4, a, b, c, d) + _four(_u32(p[r] >> _u32(16)), 4, e, f, g, h)


@compiled(fastmath=FAST)
def _add3(sums, p, q, shift, rest, x):
    """Eight codes, 24 bits from bit `shift` of one word on, which may end `rest` bits below the next word's bit 0."""
    a, b, c, d, e, f, g, h = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for r in range(len(sums)):
        word = _u32(_u32(p[r] >> shift) | _u32(q[r] << rest))
        sums[r] += _four(word, 3, a, b, c, d) + _four(_u32(word >> _u32(12)), 3, e, f, g, h)


@compiled(fastmath=FAST)
def _add2(sums, p, x):
    """A word of sixteen codes."""
    a, b, c, d, e, f, g, h = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    i, j, k, l, m, n, o, u = x[8], x[9], x[10], x[11], x[12], x[13], x[14], x[15]  # noqa: E741
    for r in range(len(sums)):
        word = p[r]
        sums[r] += (_four(word, 2, a, b, c, d) + _four(_u32(word >> _u32(8)), 2, e, f, g, h)
                    + _four(_u32(word >> _u32(16)), 2, i, j, k, l) + _four(_u32(word >> _u32(24)), 2, m, n, o, u))


@compiled
def _straddled(bits, column):
    """Where a code lies: its word, its first bit there, and how far the next word has to go up to meet it."""
    shift = column * bits % 32
    return column * bits // 32, _u32(shift), _u32(min(31, 32 - shift))


@compiled
def _add(sums, words, i, j, bits, first, last, x):
    """Codes of the columns first..last-1 of a group: words (words, rows), of which i..j-1; x (columns,) laid out."""
    if bits == 8:
        for k in range(first, last, 8):
            _add8(sums, words[k // 4, i:j], words[k // 4 + 1, i:j], x[k : k + 8])
    elif bits == 4:
        for k in range(first, last, 8):
            _add4(sums, words[k // 8, i:j], x[k : k + 8])
    elif bits == 2:
        for k in range(first, last, 16):
            _add2(sums, words[k // 16, i:j], x[k : k + 16])
    else:
        for k in range(first, last, 8):
            w, shift, rest = _straddled(bits, k)
            _add3(sums, words[w, i:j], words[min(w + 1, len(words) - 1), i:j], shift, rest, x[k : k + 8])


@compiled
def room(group, bits):
    """Columns that the codes of a group take: a multiple of what is added at once."""
    unit = 16 if bits == 2 else 8
    return (group + unit - 1) // unit * unit


@compiled
def _laid_out(x, group, bits):
    """Inputs x (tokens, in) in the places of their codes, 0 in those that a group leaves, and as `_four` takes them."""
    size, groups = room(group, bits), (x.shape[1] + group - 1) // group
    y = np.zeros((len(x), groups * size), _f32)
    for t in range(len(x)):
        for g in range(groups):
            part = x[t, g * group : (g + 1) * group]
            y[t, g * size : g * size + len(part)] = part
        for k in range(1, y.shape[1], 2):
            y[t, k] *= _f32(1 / (1 << bits))
    return y


@compiled(fastmath=FAST)
def _sum(x):
    total = _f32(0)
    for k in range(len(x)):
        total += x[k]
    return total


@compiled(fastmath=FAST)
def _add_scaled(y, sums, scale, zero, total):
    """What a group of columns gives: scale * (sum of code * x - zero * sum of x); the sums begin anew."""
    for r in range(len(y)):
        y[r] += scale[r] * (sums[r] - zero[r] * total)
        sums[r] = 0


@compiled
def weight_only_rows(first, last, codes, bits, scale, zero, group, x, y):
    """Rows first..last-1 of x (tokens, in) times codes, into y (tokens, out).

    codes uint32 (blocks, words, rows of a block); scale and zero float32 (groups, out), of `group` columns each.
    """
    rows, laid_out = codes.shape[2], _laid_out(x, group, bits)
    sums = np.zeros(rows, _f32)
    for b in range(first // rows, (last - 1) // rows + 1):
        i, j = max(first, b * rows), min(last, (b + 1) * rows)
        for t in range(len(x)):
            y[t, i:j] = 0
            for g in range(len(scale)):
                start, end = g * group, min((g + 1) * group, x.shape[1])
                for k in range(start, end, COLUMNS):
                    m = min(k + COLUMNS, end)
                    place = g * room(group, bits) + k - start
                    _add(sums[: j - i], codes[b], i - b * rows, j - b * rows, bits, place, place + m - k, laid_out[t])
                    _add_scaled(y[t, i:j], sums[: j - i], scale[g, i:j], zero[g, i:j], _sum(x[t, k:m]))


@compiled(parallel=True)
def weight_only_threads(threads, codes, bits, scale, zero, group, x, y):
    """All rows of the weight, in so many threads."""
    rows = y.shape[1]
    for i in prange(threads):
        weight_only_rows(rows * i // threads, rows * (i + 1) // threads, codes, bits, scale, zero, group, x, y)


# ---- codes as float weights ----


@compiled
def _decode(p, shift, mask, scale, zero, weight):
    for r in range(len(weight)):
        weight[r] = scale[r] * (_f32(_i32(_u32(p[r] >> shift) & mask)) - zero[r])


@compiled
def _decode3(p, q, shift, rest, scale, zero, weight):
    for r in range(len(weight)):
        word = _u32(_u32(p[r] >> shift) | _u32(q[r] << rest))
        weight[r] = scale[r] * (_f32(_i32(word & _u32(7))) - zero[r])


@compiled
def decode_columns(first, last, start, codes, bits, scale, zero, group, weight):
    """The columns of a weight from codes as above, into rows first..last-1 of weight, float32 (columns, out).

    Its row 0 is column `start`.
    """
    _, words, rows = codes.shape
    for k in range(first, last):
        g = (start + k) // group
        w, shift, rest = _straddled(bits, g * room(group, bits) + (start + k) % group)
        for b in range(len(codes)):
            i, j = b * rows, min((b + 1) * rows, weight.shape[1])
            p, s, z = codes[b, w, : j - i], scale[g, i:j], zero[g, i:j]
            if bits == 3:
                _decode3(p, codes[b, min(w + 1, words - 1), : j - i], shift, rest, s, z, weight[k, i:j])
            else:
                _decode(p, shift, _u32((1 << bits) - 1), s, z, weight[k, i:j])


@compiled(parallel=True)
def decode_threads(threads, start, codes, bits, scale, zero, group, weight):
    """All rows of `weight`, in so many threads."""
    n = len(weight)
    for i in prange(threads):
        decode_columns(n * i // threads, n * (i + 1) // threads, start, codes, bits, scale, zero, group, weight)


# ---- integer products ----


@compiled
def _integer_dot(codes, q):
    total = _i32(0)
    for k in range(len(codes)):
        total = _i32(total + _i32(_i32(codes[k]) * _i32(q[k])))
    return total


@compiled
def _integer_dots(codes, q0, q1, q2, q3):
    """`_integer_dot` for four tokens."""
    a, b, c, d = _i32(0), _i32(0), _i32(0), _i32(0)
    for k in range(len(codes)):
        code = _i32(codes[k])
        a = _i32(a + _i32(code * _i32(q0[k])))
        b = _i32(b + _i32(code * _i32(q1[k])))
        c = _i32(c + _i32(code * _i32(q2[k])))
        d = _i32(d + _i32(code * _i32(q3[k])))
    return a, b, c, d


@compiled
def integer_rows(first, last, codes, q, sums):
    """Rows first..last-1 of uint8 codes (rows, in) times int8 q (tokens, in), into int32 sums (rows, tokens)."""
    fours = len(q) // 4 * 4
    for r in range(first, last):
        for t in range(0, fours, 4):
            four = _integer_dots(codes[r], q[t], q[t + 1], q[t + 2], q[t + 3])
            for k in range(4):
                sums[r, t + k] = four[k]
        for t in range(fours, len(q)):
            sums[r, t] = _integer_dot(codes[r], q[t])


@compiled(parallel=True)
def integer_threads(threads, codes, q, sums):
    """All rows of the codes, in so many threads."""
    for i in prange(threads):
        integer_rows(len(codes) * i // threads, len(codes) * (i + 1) // threads, codes, q, sums)
