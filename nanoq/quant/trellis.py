"""A bit-shift trellis: K bits per number decide among 2^L values, L well above K (QTIP, Tseng et al. 2024, 2406.11235).

A sequence of numbers has a stream of K bits for each. The *state* of a number is the last L bits of the stream, up to
and with its own, and its value is an entry of a table of 2^L: neighbours share L - K bits, and a number has far more
values than 2^K to choose from. The streams are *tail-biting*: they are read as rings, so that the first states take the
last bits, and no bit is spent on a start.

The table is QTIP's 1MAD code: x = 34038481 s + 76625530 mod 2^32, and the sum of the four bytes of x, less its mean,
over its deviation: four uniform numbers add up to nearly a Gaussian one.

The closest sequence is found by Viterbi's algorithm. A step from state s to (s << K | k) mod 2^L forgets the first K
bits of s, so that the 2^K states after it all come from the same 2^K states before it: the best of these is searched
once for all of them, which makes a step two passes over 2^L numbers for any K. The best ring would take a search for
each of its 2^(L - K) starts. As in QTIP two are enough: one from the middle of the sequence to its middle, with a free
start, says which L - K bits the sequence begins with; the second is exact given these.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from nanoq.compiled import compiled

STATE_BITS, WIDTHS = 12, (1, 2, 3, 4)  # L; K
# By K: what the values are multiplied by for numbers from N(0, 1); the best of a search on such numbers.
SCALES = {1: 0.88, 2: 1.04, 3: 1.14, 4: 1.17}


@cache
def one_mad(state_bits: int) -> Tensor:
    """The values of the states 0..2**state_bits - 1, float32, of mean 0 and variance 1, nearly."""
    x = (torch.arange(2**state_bits) * 34038481 + 76625530) % 2**32
    total = sum((x >> shift) & 255 for shift in (0, 8, 16, 24))
    return ((total - 510) / 147.8005).float()


def trellis_codes(sequences: Tensor, table: Tensor, bits: int) -> Tensor:
    """The bits of each number of a ring that come nearly closest to sequences (N, T): uint8 (N, T), below 2**bits.

    Args:
        sequences: float, (N, T).
        table: of 2**L values.
        bits: K, per number; T K must be at least L.

    Raises:
        ValueError: if the sequences are too short for a state.
    """
    check_ring(sequences.shape[-1], bits, len(table).bit_length() - 1)
    codes = np.empty(tuple(sequences.shape), np.uint8)
    _encode(sequences.float().contiguous().numpy(), table.numpy(), bits, codes)
    return torch.from_numpy(codes)


def trellis_values(codes: Tensor, table: Tensor, bits: int) -> Tensor:
    """The values of rings of codes (N, T): float32 (N, T)."""
    return table[_states(codes, bits, len(table).bit_length() - 1)]


def check_ring(length: int, bits: int, state_bits: int) -> None:
    """Raise a ValueError unless rings of so many numbers have a state's bits."""
    if length * bits < state_bits:
        raise ValueError(f"a trellis of {state_bits} bits a state needs at least {-(-state_bits // bits)} outputs "
                         f"at {bits} bits, not {length}")


def _states(codes: Tensor, bits: int, state_bits: int) -> Tensor:
    """The state of each number of rings (N, T): the last bits of the stream, up to and with its own."""
    codes = codes.int()
    states = torch.zeros_like(codes)
    for back in range(-(-state_bits // bits)):
        states |= codes.roll(back, -1) << bits * back
    return states & (2**state_bits - 1)


@compiled(nogil=True)
def _encode(sequences, table, bits, codes):
    """Fill in the codes uint8 (N, T) of sequences float32 (N, T)."""
    count, length = sequences.shape
    came = np.empty((length, len(table) >> bits), np.uint8)
    states = np.empty(length, np.int64)
    overlap, middle = (len(table) >> bits) - 1, length // 2
    for i in range(count):
        turned = np.concatenate((sequences[i, middle:], sequences[i, :middle]))
        _viterbi(turned, table, bits, -1, came, states)
        begin = states[length - middle - 1] & overlap
        _viterbi(sequences[i], table, bits, begin, came, states)
        for t in range(length):
            codes[i, t] = states[t] & ((1 << bits) - 1)


@compiled(nogil=True)
def _viterbi(sequence, table, bits, begin, came, states):
    """Fill in the states (T,) of the closest sequence, and give its squared distance.

    Before the first number, and after the last, the low L - K bits of the state are `begin`, or anything if that is -1.
    """
    groups, branches = len(table) >> bits, 1 << bits
    cost = np.zeros(len(table), np.float32)
    best, new = np.zeros(groups, np.float32), np.empty(len(table), np.float32)
    if begin >= 0:
        best[:] = np.inf
        best[begin] = 0
    for t in range(len(sequence)):
        x = sequence[t]
        if t:
            origin = came[t]
            best[:] = cost[:groups]
            origin[:] = 0
            for branch in range(1, branches):  # of all states with the same low bits, the cheapest
                other = cost[branch * groups : (branch + 1) * groups]
                for g in range(groups):
                    closer = other[g] < best[g]
                    best[g] = other[g] if closer else best[g]
                    origin[g] = branch if closer else origin[g]
        for g in range(groups):
            for k in range(branches):
                gap = x - table[g * branches + k]
                new[g * branches + k] = best[g] + gap * gap
        cost, new = new, cost
    state = _last(cost, groups, branches, begin)
    distance = cost[state]
    for t in range(len(sequence) - 1, -1, -1):
        states[t] = state
        group = state >> bits
        state = group | np.int64(came[t, group]) * groups if t else group
    return distance


@compiled(nogil=True)
def _last(cost, groups, branches, begin):
    """The cheapest last state, of those that `begin` lets be."""
    if begin < 0:
        return np.argmin(cost)
    state = begin
    for branch in range(1, branches):
        if cost[branch * groups + begin] < cost[state]:
            state = branch * groups + begin
    return state
