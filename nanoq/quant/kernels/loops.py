"""The compiled loops of the kernels: arrays in, sums out, and nothing of layers.

Packed codes lie in memory *column by column*: uint8 (bytes, out), the transpose of what `nanoq.quant.packing` makes of
a matrix. A loop over rows then runs in many lanes, whatever the width of a code and of a group, and no sum has to be
collected from the lanes of a register, which for groups of 32 would take longer than the products.

numba makes int64 of every integer operation, and int64 vectorises badly: hence int32(...) around each of them.
Reassociation lets a sum run in many lanes at once; NaN and infinity keep their meaning.
"""

import numpy as np
from numba import prange

from nanoq.compiled import compiled

FAST = {"reassoc", "contract", "nsz"}
SERIAL = 2**19  # fewer multiplications than this take less time than starting a second thread
BLOCK = 1024  # rows whose sums lie in the nearest cache
COLUMNS = 64  # whose products are added one by one: sums of sums have smaller errors
_i32, _f32 = np.int32, np.float32


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


# ---- codes: sums (rows,) of code * x over the columns of a few bytes, which are uint8 (rows,) each ----


@compiled(fastmath=FAST)
def _add8(sums, p, q, u, v, x):
    """Four bytes of one code each."""
    a, b, c, d = x[0], x[1], x[2], x[3]
    for r in range(len(sums)):
        sums[r] += _f32(p[r]) * a + _f32(q[r]) * b + _f32(u[r]) * c + _f32(v[r]) * d


@compiled(fastmath=FAST)
def _add8_one(sums, p, a):
    for r in range(len(sums)):
        sums[r] += _f32(p[r]) * a


@compiled(fastmath=FAST)
def _add4(sums, p, q, x):
    """Two bytes of two codes each."""
    a, b, c, d = x[0], x[1], x[2], x[3]
    for r in range(len(sums)):
        i, j = _i32(p[r]), _i32(q[r])
        sums[r] += (_f32(_i32(i & _i32(15))) * a + _f32(_i32(i >> _i32(4))) * b
                    + _f32(_i32(j & _i32(15))) * c + _f32(_i32(j >> _i32(4))) * d)


@compiled(fastmath=FAST)
def _add2(sums, p, x):
    """One byte of four codes."""
    a, b, c, d = x[0], x[1], x[2], x[3]
    for r in range(len(sums)):
        i = _i32(p[r])
        sums[r] += (_f32(_i32(i & _i32(3))) * a + _f32(_i32(_i32(i >> _i32(2)) & _i32(3))) * b
                    + _f32(_i32(_i32(i >> _i32(4)) & _i32(3))) * c + _f32(_i32(i >> _i32(6))) * d)


@compiled(fastmath=FAST)
def _add3(sums, p, q, u, x):
    """Three bytes of eight codes."""
    a, b, c, d, e, f, g, h = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for r in range(len(sums)):
        i = _i32(_i32(_i32(p[r]) | _i32(_i32(q[r]) << _i32(8))) | _i32(_i32(u[r]) << _i32(16)))
        sums[r] += (_f32(_i32(i & _i32(7))) * a + _f32(_i32(_i32(i >> _i32(3)) & _i32(7))) * b
                    + _f32(_i32(_i32(i >> _i32(6)) & _i32(7))) * c + _f32(_i32(_i32(i >> _i32(9)) & _i32(7))) * d
                    + _f32(_i32(_i32(i >> _i32(12)) & _i32(7))) * e + _f32(_i32(_i32(i >> _i32(15)) & _i32(7))) * f
                    + _f32(_i32(_i32(i >> _i32(18)) & _i32(7))) * g + _f32(_i32(i >> _i32(21))) * h)


@compiled
def _add(sums, codes, first, last, bits, x):
    """Codes of the columns first..last-1: codes uint8 (bytes, rows), x (columns,)."""
    if bits == 8:
        for k in range(first, last - 3, 4):
            _add8(sums, codes[k], codes[k + 1], codes[k + 2], codes[k + 3], x[k : k + 4])
        for k in range(last - (last - first) % 4, last):
            _add8_one(sums, codes[k], x[k])
    elif bits == 4:
        for k in range(first, last - 3, 4):
            _add4(sums, codes[k // 2], codes[k // 2 + 1], x[k : k + 4])
        if (last - first) % 4:
            _add4(sums, codes[last // 2 - 1], codes[last // 2 - 1], np.array([x[last - 2], x[last - 1], 0, 0], _f32))
    elif bits == 2:
        for k in range(first, last, 4):
            _add2(sums, codes[k // 4], x[k : k + 4])
    else:
        for k in range(first, last, 8):
            j = k // 8 * 3
            _add3(sums, codes[j], codes[j + 1], codes[j + 2], x[k : k + 8])


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
    """Rows first..last-1 of x (tokens, columns) times codes, into y (tokens, out).

    codes uint8 (bytes, out); scale and zero float32 (groups, out), of `group` columns each; x ends where the last byte
    does, or the last three at 3 bits.
    """
    sums = np.zeros(BLOCK, _f32)
    for i in range(first, last, BLOCK):
        j = min(i + BLOCK, last)
        for t in range(len(x)):
            y[t, i:j] = 0
            for g in range(len(scale)):
                end = min((g + 1) * group, x.shape[1])
                for k in range(g * group, end, COLUMNS):
                    m = min(k + COLUMNS, end)
                    _add(sums[: j - i], codes[:, i:j], k, m, bits, x[t])
                    _add_scaled(y[t, i:j], sums[: j - i], scale[g, i:j], zero[g, i:j], _sum(x[t, k:m]))


@compiled(parallel=True)
def weight_only_threads(threads, codes, bits, scale, zero, group, x, y):
    """All rows of the weight, in so many threads."""
    rows = codes.shape[1]
    for i in prange(threads):
        weight_only_rows(rows * i // threads, rows * (i + 1) // threads, codes, bits, scale, zero, group, x, y)


# ---- codes as float weights ----


@compiled
def _decode(p, shift, mask, scale, zero, weight):
    for r in range(len(weight)):
        weight[r] = scale[r] * (_f32(_i32(_i32(_i32(p[r]) >> shift) & mask)) - zero[r])


@compiled
def _decode3(p, q, u, shift, scale, zero, weight):
    for r in range(len(weight)):
        i = _i32(_i32(_i32(p[r]) | _i32(_i32(q[r]) << _i32(8))) | _i32(_i32(u[r]) << _i32(16)))
        weight[r] = scale[r] * (_f32(_i32(_i32(i >> shift) & _i32(7))) - zero[r])


@compiled
def decode_columns(first, last, codes, bits, scale, zero, group, weight):
    """The columns first..last-1 of a weight from codes as above, into float32 weight (columns, out)."""
    for k in range(first, last):
        s, z = scale[k // group], zero[k // group]
        if bits == 3:
            j = k // 8 * 3
            _decode3(codes[j], codes[j + 1], codes[j + 2], _i32(k % 8 * 3), s, z, weight[k])
        else:
            _decode(codes[k * bits // 8], _i32(k * bits % 8), _i32((1 << bits) - 1), s, z, weight[k])


@compiled(parallel=True)
def decode_threads(threads, codes, bits, scale, zero, group, weight):
    """All columns of the weight, in so many threads."""
    columns = len(weight)
    for i in prange(threads):
        decode_columns(columns * i // threads, columns * (i + 1) // threads, codes, bits, scale, zero, group, weight)


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
