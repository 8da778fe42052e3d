"""Entropy coding: whole numbers in as few bits as their frequencies allow, by rANS (Duda 2013, arXiv 1311.2540).

Codes of a matrix are not equally frequent: small ones are common. A coder that knows how common each is takes
-log2(p) bits for a code of probability p, and so the entropy for all of them, up to about a hundredth of a bit.

The probabilities are static. Each row and each column has a *class*, by the size of its codes in half octaves, and a
code's table is that of the sum of both. A table is a generalised Gaussian on the whole numbers, p(v) proportional to
2^-(|v| / s)^beta: two bytes for s and beta. Rare codes take an escape and nine raw bits. Tables are made of sums,
products, quotients and square roots alone, which every machine rounds alike, and then of whole numbers: a stream
decodes to the same codes everywhere.

A stream is uint8: a CRC-32 of what follows it; the length of the header; the header, by zlib: classes of rows and of
columns, s and beta of each table, the number of words in each run; and the words. A *run* of rows is coded by itself,
so that runs are decoded in parallel, with four interleaved states, so that a core works on four codes at a time.
"""

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nanoq.compiled import compiled

MOST = 255  # the largest symbol, and minus it the smallest
PRECISION, LOW = 12, 1 << 16  # a table's frequencies add up to 2**12; a state stays in LOW..LOW * 2**16 - 1
DIRECT = 126  # larger symbols are always escaped
ESCAPE, RAW = 2 * DIRECT + 1, 9  # the place of the escape in a table; the bits that follow it
RUN = 1 << 15  # codes that a run has at least
ROW_CLASSES, COLUMN_CLASSES = 8, 16
SHAPES, SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0), 96  # beta; s = 2**(j / 8 - 3)


def encode(symbols: Tensor) -> Tensor:
    """The stream of symbols, whole numbers in -255..255: int (rows, columns) -> uint8 (bytes,).

    Raises:
        ValueError: if they are no matrix of such numbers.
    """
    values = _checked(symbols)
    rows, columns, tables = _model(values)
    frequency = _bank()[0][tables]
    start = frequency.cumsum(1) - frequency
    words = [_encode_run(values[run], rows[run], columns, frequency, start) for run in _runs(*values.shape)]
    header = zlib.compress(b"".join([rows.tobytes(), columns.tobytes(), tables.astype("<u2").tobytes(),
                                     np.array([len(part) for part in words], "<u4").tobytes()]), 9)
    payload = len(header).to_bytes(4, "little") + header + b"".join(part.astype("<u2").tobytes() for part in words)
    return torch.frombuffer(bytearray(zlib.crc32(payload).to_bytes(4, "little") + payload), dtype=torch.uint8)


def decode(stream: Tensor, shape: tuple[int, int]) -> Tensor:
    """The symbols of a stream: uint8 (bytes,) -> int16 (rows, columns).

    Raises:
        ValueError: if the stream is damaged, or of another shape.
    """
    rows, columns, tables, lengths, words = _parts(stream, shape)
    slots, symbols = _slots(tables), np.empty(shape, np.int16)
    jobs, at = [], 0
    for run, length in zip(_runs(*shape), lengths, strict=True):
        jobs.append((words[at : at + length], rows[run], columns, slots, symbols[run]))
        at += length
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if not all(pool.map(lambda job: _decode_run(*job), jobs)):
            raise ValueError("the stream of its codes is damaged: a run does not end where it should")
    return torch.from_numpy(symbols)


def coded_bits(symbols: Tensor) -> float:
    """Bits that `encode` would take, to a few bytes, without coding: symbols as there."""
    values = _checked(symbols)
    rows, columns, counts = _histograms(values)
    best = (counts @ _bank()[1].T).min(1).sum()
    return float(best) + 8 * len(zlib.compress(rows.tobytes() + columns.tobytes(), 9)) + 16 * len(counts) + 160


# ---- the model ----


def _checked(symbols: Tensor) -> np.ndarray:
    if symbols.dim() != 2 or symbols.is_floating_point():
        raise ValueError(f"a matrix of whole numbers is coded, not {symbols.dtype} of shape {tuple(symbols.shape)}")
    if symbols.numel() and int(symbols.abs().max()) > MOST:
        raise ValueError(f"symbols must lie in -{MOST}..{MOST}, not {int(symbols.min())}..{int(symbols.max())}")
    return symbols.to(torch.int16).contiguous().cpu().numpy()


def _model(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes uint8 of rows and columns, and the table of each class: its number in the bank."""
    rows, columns, counts = _histograms(values)
    return rows, columns, (counts @ _bank()[1].T).argmin(1)


def _histograms(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes uint8 of rows and columns, and how often each class has each symbol, the escaped ones being one."""
    if not values.size:
        return np.zeros(len(values), np.uint8), np.zeros(values.shape[1], np.uint8), np.zeros((1, ESCAPE + 1))
    square = values.astype(np.float32) ** 2
    columns = _classes(square.mean(0), COLUMN_CLASSES)
    rows = _classes((square / 2.0 ** columns).mean(1), ROW_CLASSES)
    of = rows[:, None].astype(np.int64) + columns
    places = np.where(abs(values) > DIRECT, ESCAPE, values + DIRECT)
    counts = np.bincount((of * (ESCAPE + 1) + places).ravel(), minlength=(int(of.max()) + 1) * (ESCAPE + 1))
    return rows, columns, counts.reshape(-1, ESCAPE + 1).astype(np.float64)


def _classes(square: np.ndarray, most: int) -> np.ndarray:
    """Mean squares in octaves, which are half octaves of the size: 0..most - 1, the smallest being thrown together."""
    octaves = np.rint(np.log2(np.maximum(square, 1e-4)))
    return (octaves - max(octaves.min(), octaves.max() - most + 1)).clip(0).astype(np.uint8)


@cache
def _bank() -> tuple[np.ndarray, np.ndarray]:
    """All tables: frequencies int64 (tables, symbols), which add up to 2**PRECISION; and bits of each symbol.

    Only what IEEE 754 rounds exactly comes before whole numbers: no machine gets other frequencies.
    """
    # (|v| / s)**beta, by square roots
    size = np.abs(np.arange(-MOST, MOST + 1)).astype(np.float64)
    scale = np.ldexp(np.array(_EIGHTHS * (SCALES // 8)), np.arange(SCALES) // 8 - 3)
    x = size / scale[:, None]
    root = np.sqrt(x)
    fourth = np.sqrt(root)
    powers = np.stack([root, root * fourth, x, x * fourth, x * root, x * x, x * x * root, x * x * x])
    weight = _exp2_of_minus(np.minimum(powers, 60.0)).reshape(-1, len(size))

    # whole numbers: what is rare enough for the escape, and two slots more, is the escape's share
    share = np.floor(np.ldexp(weight, 36)).astype(np.int64)
    direct = share[:, MOST - DIRECT : MOST + DIRECT + 1]
    rest = share.sum(1) - direct.sum(1) + share.sum(1) // 2 ** (PRECISION - 1)
    ends = np.concatenate([direct, rest[:, None]], 1).cumsum(1)
    frequency = np.diff(ends * 2**PRECISION // ends[:, -1:], axis=1, prepend=0)

    bits = PRECISION - np.log2(np.where(frequency, frequency, 1.0))
    escaped = bits[:, ESCAPE:] + RAW
    bits = np.where(frequency > 0, bits, escaped)
    bits[:, ESCAPE:] = escaped
    return frequency, bits


_EIGHTHS = (1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096, 1.4142135623730951, 1.5422108254079407,
            1.681792830507429, 1.8340080864093424)  # 2**(k / 8)
_LN2 = 0.6931471805599453


def _exp2_of_minus(y: np.ndarray) -> np.ndarray:
    """2**-y for y >= 0 from products and sums alone: the exponential of what is behind the point as a series."""
    whole = np.floor(y)
    z = (whole - y) * _LN2
    series = np.ones_like(z)
    for n in range(16, 0, -1):
        series = series * z / n + 1.0
    return np.ldexp(series, -whole.astype(np.int64))


# ---- streams ----


def _runs(rows: int, columns: int) -> Iterator[slice]:
    """Rows that are coded together."""
    count = max(1, -(-RUN // max(columns, 1)))
    for first in range(0, rows, count):
        yield slice(first, min(first + count, rows))


def _parts(stream: Tensor, shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Classes of rows and columns, tables, lengths of the runs and words of a stream, checked."""
    data = stream.cpu().numpy().tobytes()
    payload, size = data[4:], int.from_bytes(data[4:8], "little")
    if len(data) < 8 or zlib.crc32(payload) != int.from_bytes(data[:4], "little"):
        raise ValueError("the stream of its codes is damaged: the CRC-32 differs")
    runs = len(list(_runs(*shape)))
    whole = sum(shape) + 2 * (ROW_CLASSES + COLUMN_CLASSES) + 4 * runs
    try:
        header = zlib.decompressobj().decompress(payload[4 : 4 + size], whole + 1)
    except zlib.error as error:
        raise ValueError(f"the header of the stream of its codes is damaged ({error})") from None
    rows, columns = (np.frombuffer(part, np.uint8) for part in (header[: shape[0]], header[shape[0] : sum(shape)]))
    classes = 1 + int(rows.max(initial=0)) + int(columns.max(initial=0))
    ends = sum(shape), sum(shape) + 2 * classes, sum(shape) + 2 * classes + 4 * runs
    if len(header) == ends[2] and not len(payload) % 2 ^ size % 2:
        tables, lengths = np.frombuffer(header[ends[0] : ends[1]], "<u2"), np.frombuffer(header[ends[1] :], "<u4")
        words = np.frombuffer(payload[4 + size :], "<u2")
        if lengths.sum() == len(words) and (lengths >= 8).all() and tables.max() < len(_bank()[0]):
            return rows, columns, tables, lengths.astype(np.int64), words
    raise ValueError(f"the stream of its codes is not one of {shape[0]} rows and {shape[1]} columns")


def _slots(tables: np.ndarray) -> np.ndarray:
    """What each remainder of a state means: uint32 (classes, 2**PRECISION): symbol << 24 | frequency << 12 | offset."""
    frequency, places = _bank()[0], np.arange(ESCAPE + 1)
    slots = np.empty((len(tables), 2**PRECISION), np.uint32)
    for row, table in zip(slots, tables, strict=True):
        own = frequency[table]
        offset = np.arange(2**PRECISION) - np.repeat(own.cumsum() - own, own)
        row[:] = np.repeat(places << 24 | own << PRECISION, own) | offset
    return slots


def _encode_run(values, rows, columns, frequency, start) -> np.ndarray:
    words = np.empty(2 * values.size + 8, np.uint16)
    return words[_encode_words(values, rows, columns, frequency, start, words) :]


@compiled(nogil=True)
def _put(state, frequency, start, words, at):
    """Take a symbol into a state, and a word out of it where it would grow too large; the words fill from the end."""
    if state >= frequency << (32 - PRECISION):
        at -= 1
        words[at] = state & 0xFFFF
        state >>= 16
    return ((state // frequency) << PRECISION) + state % frequency + start, at


@compiled(nogil=True)
def _encode_words(values, rows, columns, frequency, start, words):
    """Code a run from its last symbol to its first, column k by state k % 4; gives where the words begin."""
    at, states = len(words), np.full(4, LOW, np.int64)
    for r in range(len(values) - 1, -1, -1):
        for k in range(len(columns) - 1, -1, -1):
            table, value, state = rows[r] + columns[k], values[r, k], states[k % 4]
            place = value + DIRECT if abs(value) <= DIRECT and frequency[table, value + DIRECT] else ESCAPE
            if place == ESCAPE:
                state, at = _put(state, 1 << (PRECISION - RAW), (value + MOST) << (PRECISION - RAW), words, at)
            states[k % 4], at = _put(state, frequency[table, place], start[table, place], words, at)
    for state in states[::-1]:
        at -= 2
        words[at], words[at + 1] = state & 0xFFFF, state >> 16
    return at


@compiled(nogil=True)
def _take(state, slots, words, at):
    """The next symbol of a state, the state after it, and where the words go on."""
    slot = slots[state & 4095]
    place = np.int64(slot >> 24)
    state = np.int64((slot >> PRECISION) & 4095) * (state >> PRECISION) + np.int64(slot & 4095)
    if state < LOW and at < len(words):
        state = state << 16 | np.int64(words[at])
        at += 1
    if place != ESCAPE:
        return place - DIRECT, state, at
    place = (state & 4095) >> (PRECISION - RAW)
    state = (state >> PRECISION << (PRECISION - RAW)) + (state & ((1 << (PRECISION - RAW)) - 1))
    if state < LOW and at < len(words):
        state = state << 16 | np.int64(words[at])
        at += 1
    return place - MOST, state, at


@compiled(nogil=True)
def _decode_run(words, rows, columns, slots, symbols):
    """Fill in the symbols int16 (rows, columns) of a run; whether it ends as it has to: a damaged one does not."""
    at, whole = 8, len(columns) - len(columns) % 4
    a, b = np.int64(words[0]) | np.int64(words[1]) << 16, np.int64(words[2]) | np.int64(words[3]) << 16
    c, d = np.int64(words[4]) | np.int64(words[5]) << 16, np.int64(words[6]) | np.int64(words[7]) << 16
    for r in range(len(rows)):
        of, row = slots[rows[r] :], symbols[r]
        for k in range(0, whole, 4):
            row[k], a, at = _take(a, of[columns[k]], words, at)
            row[k + 1], b, at = _take(b, of[columns[k + 1]], words, at)
            row[k + 2], c, at = _take(c, of[columns[k + 2]], words, at)
            row[k + 3], d, at = _take(d, of[columns[k + 3]], words, at)
        if whole < len(columns):
            row[whole], a, at = _take(a, of[columns[whole]], words, at)
        if whole + 1 < len(columns):
            row[whole + 1], b, at = _take(b, of[columns[whole + 1]], words, at)
        if whole + 2 < len(columns):
            row[whole + 2], c, at = _take(c, of[columns[whole + 2]], words, at)
    return at == len(words) and a == LOW and b == LOW and c == LOW and d == LOW
