"""The compiled loops of the kernels: arrays in, sums out, and nothing of layers.

numba makes int64 of every integer operation, and int64 vectorises badly: hence int32(...) around each of them.
Reassociation lets a sum run in many lanes at once; NaN and infinity keep their meaning.
"""

import numpy as np
from numba import prange

from nanoq.compiled import compiled

_FAST = {"reassoc", "contract", "nsz"}
_i32, _f32 = np.int32, np.float32
_LOW, _HIGH = np.int32(15), np.int32(4)  # the low nibble's mask, the high nibble's shift


@compiled
def _decode_int8(packed, scale, zero, out):
    """Float weights of codes with one scale: packed uint8 (n,) -> out float32 (n,)."""
    for j in range(len(packed)):
        out[j] = scale * _f32(_i32(_i32(packed[j]) - zero))


@compiled
def _decode_int4(packed, scale, zero, even, odd):
    """The same for two codes a byte: the low ones belong to even columns, the high ones to odd columns; (n,) each."""
    for j in range(len(packed)):
        byte = _i32(packed[j])
        even[j] = scale * _f32(_i32(_i32(byte & _LOW) - zero))
        odd[j] = scale * _f32(_i32(_i32(byte >> _HIGH) - zero))


@compiled(fastmath=_FAST)
def _dot_int8(packed, zero, x):
    """Sum of (code - zero) * x: packed uint8 (n,), x float32 (n,)."""
    total = _f32(0)
    for j in range(len(packed)):
        total += _f32(_i32(_i32(packed[j]) - zero)) * x[j]
    return total


@compiled(fastmath=_FAST)
def _dot_int4(packed, zero, even, odd):
    """The same for two codes a byte; even and odd columns of x, (n,) each."""
    total = _f32(0)
    for j in range(len(packed)):
        byte = _i32(packed[j])
        low, high = _i32(_i32(byte & _LOW) - zero), _i32(_i32(byte >> _HIGH) - zero)
        total += _f32(low) * even[j] + _f32(high) * odd[j]
    return total


@compiled(fastmath=_FAST)
def _dot(weight, x):
    total = _f32(0)
    for k in range(len(weight)):
        total += weight[k] * x[k]
    return total


@compiled(fastmath=_FAST)
def _dots(weight, x0, x1, x2, x3):
    """`_dot` for four tokens, which share the loads of the weight."""
    a, b, c, d = _f32(0), _f32(0), _f32(0), _f32(0)
    for k in range(len(weight)):
        w = weight[k]
        a += w * x0[k]
        b += w * x1[k]
        c += w * x2[k]
        d += w * x3[k]
    return a, b, c, d


@compiled
def _one_token_rows(first, last, packed, scale, zero, group, x, y):
    """Rows first..last-1 of the weight: packed uint8 (rows, n), `group` bytes to a scale; y (rows, tokens).

    x is (tokens, n), or for two codes a byte (tokens, 2 n): the even columns, then the odd ones. Here there is one
    token, and weights never leave the registers.
    """
    width = packed.shape[1]
    nibbles = x.shape[1] > width
    for r in range(first, last):
        y[r, 0] = 0
        for g in range(scale.shape[1]):
            i, j = g * group, min((g + 1) * group, width)
            codes, z = packed[r, i:j], zero[r, g]
            if nibbles:
                total = _dot_int4(codes, z, x[0, i:j], x[0, width + i : width + j])
            else:
                total = _dot_int8(codes, z, x[0, i:j])
            y[r, 0] += scale[r, g] * total


@compiled
def _many_token_rows(first, last, packed, scale, zero, group, x, y):
    """The same for more tokens: each row is decoded once, into the cache, and then multiplied by all of them."""
    tokens, width = len(x), packed.shape[1]
    fours, nibbles = tokens // 4 * 4, x.shape[1] > width
    weight = np.empty(x.shape[1], np.float32)
    for r in range(first, last):
        for g in range(scale.shape[1]):
            i, j = g * group, min((g + 1) * group, width)
            codes, s, z = packed[r, i:j], scale[r, g], zero[r, g]
            if nibbles:
                _decode_int4(codes, s, z, weight[i:j], weight[width + i : width + j])
            else:
                _decode_int8(codes, s, z, weight[i:j])
        for t in range(0, fours, 4):
            y[r, t], y[r, t + 1], y[r, t + 2], y[r, t + 3] = _dots(weight, x[t], x[t + 1], x[t + 2], x[t + 3])
        for t in range(fours, tokens):
            y[r, t] = _dot(weight, x[t])


@compiled
def weight_only_rows(first, last, packed, scale, zero, group, x, y):
    """Rows first..last-1 of a weight-only product, by the loop that fits the number of tokens; shapes as above."""
    if len(x) == 1:
        _one_token_rows(first, last, packed, scale, zero, group, x, y)
    else:
        _many_token_rows(first, last, packed, scale, zero, group, x, y)


@compiled(parallel=True)
def weight_only_threads(threads, packed, scale, zero, group, x, y):
    """All rows of the weight, in so many threads."""
    for i in prange(threads):
        first, last = len(packed) * i // threads, len(packed) * (i + 1) // threads
        weight_only_rows(first, last, packed, scale, zero, group, x, y)


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
