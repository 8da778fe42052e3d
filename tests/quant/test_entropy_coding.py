import hashlib
import math
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.quant import entropy_coding
from nanoq.quant.entropy_coding import ESCAPE, LOW, MOST, PRECISION, RAW, coded_bits, decode, encode


def gaussian(rows, columns, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, columns, generator=generator) * spread).round().clamp(-MOST, MOST).int()


def entropy(symbols):
    share = torch.unique(symbols, return_counts=True)[1].double() / symbols.numel()
    return float(-(share * share.log2()).sum())


@given(rows=st.integers(0, 9), columns=st.integers(0, 9), kinds=st.integers(1, 20), most=st.integers(0, MOST),
       seed=st.integers(0, 2**31))
def test_any_symbols_come_back(rows, columns, kinds, most, seed):
    generator = torch.Generator().manual_seed(seed)
    alphabet = torch.randint(-most, most + 1, (kinds,), generator=generator)
    symbols = alphabet[torch.randint(kinds, (rows, columns), generator=generator)]
    assert torch.equal(decode(encode(symbols), (rows, columns)).long(), symbols)


@pytest.mark.parametrize("symbols", [
    gaussian(700, 333, 1.2), gaussian(300, 130, 1.2) * torch.linspace(0, 9, 130).int(), gaussian(9, 9, 90),
    gaussian(50, 70, 3) * torch.arange(50)[:, None] // 10, torch.zeros(200, 300, dtype=torch.int32),
    torch.full((3, 5), -MOST), torch.arange(-MOST, MOST + 1)[None],
], ids=["runs", "columns", "wide", "rows", "zeros", "escapes", "each"])
def test_matrices_of_all_kinds_come_back(symbols):
    stream = encode(symbols)
    assert torch.equal(decode(stream, tuple(symbols.shape)), symbols.to(torch.int16))
    assert abs(8 * len(stream) - coded_bits(symbols)) < 400 + 0.01 * coded_bits(symbols)


@pytest.mark.parametrize("spread", [0.3, 0.6, 1, 2, 5, 15])
def test_a_stream_is_within_a_hundredth_of_the_entropy(spread):
    symbols = gaussian(1000, 1000, spread)
    assert 8 * len(encode(symbols)) / symbols.numel() < 1.01 * entropy(symbols) + 0.01


def test_a_stream_knows_that_columns_and_rows_differ():
    symbols = torch.cat([gaussian(400, 200, 1.0), gaussian(400, 200, 8.0, seed=1)], dim=1)
    symbols[200:] = (symbols[200:] / 4).round().int()
    parts = [part for half in symbols.split(200) for part in half.split(200, 1)]
    own = sum(entropy(part) for part in parts) / 4
    assert entropy(symbols) > own + 0.3
    assert 8 * len(encode(symbols)) / symbols.numel() < own + 0.05


def test_all_machines_have_the_same_tables():
    frequency = entropy_coding._bank()[0]
    assert (frequency.sum(1) == 2**PRECISION).all()
    assert frequency.min() >= 0 and frequency[:, ESCAPE].min() >= 1 and frequency.max() < 2**PRECISION
    digest = hashlib.sha256(np.ascontiguousarray(frequency, "<i8").tobytes()).hexdigest()
    assert digest == "fb17ea8495c940b1b7ec5add8d74c25bf69ae040b247ca5e99f6add74604c38e"


def test_the_tables_are_the_distributions_that_the_text_names():
    frequency = entropy_coding._bank()[0].reshape(len(entropy_coding.SHAPES), entropy_coding.SCALES, -1)
    v = abs(np.arange(-entropy_coding.DIRECT, entropy_coding.DIRECT + 1))
    for shape, scale in ((0, 20), (2, 40), (5, 33), (7, 50)):
        p = 2.0 ** -((v / 2 ** (scale / 8 - 3)) ** entropy_coding.SHAPES[shape])
        assert np.abs(frequency[shape, scale, :-1] / 2**PRECISION - p / p.sum()).max() < 0.002


def plain_decode(stream, shape):
    """rANS as its paper has it: one symbol after the other, in whole numbers of any size."""
    rows, columns, tables, lengths, words = entropy_coding._parts(stream, shape)
    frequency, out, at = entropy_coding._bank()[0], [], 0
    for run, length in zip(entropy_coding._runs(*shape), lengths, strict=True):
        own = [int(word) for word in words[at : at + length]]
        at += length
        states = [own.pop(0) + (own.pop(0) << 16) for _ in range(4)]
        for row in rows[run]:
            for k, column in enumerate(columns):
                table = [int(count) for count in frequency[tables[row + column]]]
                slot, place, start = states[k % 4] % 2**PRECISION, 0, 0
                while slot >= start + table[place]:
                    start += table[place]
                    place += 1
                states[k % 4] = table[place] * (states[k % 4] >> PRECISION) + slot - start
                if states[k % 4] < LOW:
                    states[k % 4] = (states[k % 4] << 16) + own.pop(0)
                if place == ESCAPE:
                    width = 2 ** (PRECISION - RAW)
                    place = states[k % 4] % 2**PRECISION // width - MOST + entropy_coding.DIRECT
                    states[k % 4] = width * (states[k % 4] >> PRECISION) + states[k % 4] % width
                    if states[k % 4] < LOW:
                        states[k % 4] = (states[k % 4] << 16) + own.pop(0)
                out.append(place - entropy_coding.DIRECT)
        assert not own and states == [LOW] * 4
    return torch.tensor(out).view(shape)


@pytest.mark.parametrize("spread", [0.4, 3, 100])
def test_the_fast_decoder_agrees_with_a_plain_one(spread):
    symbols = gaussian(40, 37, spread)
    assert torch.equal(plain_decode(encode(symbols), (40, 37)), symbols.long())


@pytest.mark.parametrize("symbols", [torch.zeros(3), torch.zeros(2, 2), torch.full((2, 2), 256)])
def test_what_cannot_be_coded_is_an_error(symbols):
    with pytest.raises(ValueError, match="whole numbers is coded|symbols must lie in"):
        encode(symbols if symbols.max() == 0 else symbols.int())


def test_every_damaged_byte_is_named():
    symbols = gaussian(20, 30, 2)
    stream = encode(symbols)
    for at in range(len(stream)):
        damaged = stream.clone()
        damaged[at] ^= 1 << at % 8
        with pytest.raises(ValueError, match="stream of its codes"):
            decode(damaged, (20, 30))
    for length in (0, 3, 7, len(stream) - 1):
        with pytest.raises(ValueError, match="stream of its codes"):
            decode(stream[:length], (20, 30))
    for shape in ((30, 20), (20, 31), (0, 30), (600, 1)):
        with pytest.raises(ValueError, match="stream of its codes"):
            decode(stream, shape)


@given(at=st.integers(4, 400), value=st.integers(0, 255))
def test_a_stream_with_a_right_checksum_and_wrong_content_is_named(at, value):
    symbols = gaussian(20, 30, 2)
    data = bytearray(encode(symbols).numpy().tobytes())
    original = bytes(data)
    data[min(at, len(data) - 1)] = value
    data[:4] = zlib.crc32(bytes(data[4:])).to_bytes(4, "little")
    with nullcontext() if bytes(data) == original else pytest.raises(ValueError, match="stream of its codes"):
        decode(torch.frombuffer(data, dtype=torch.uint8), (20, 30))


def test_how_many_threads_decode_does_not_matter():
    symbols, before = gaussian(900, 400, 1.5), torch.get_num_threads()
    stream = encode(symbols)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(decode(stream, (900, 400)).int(), symbols)
    finally:
        torch.set_num_threads(before)


def test_the_limit_of_a_scalar_quantiser_with_entropy_coding_is_met():
    """A fine uniform quantiser of a Gaussian has a rate 0.2546 bits above the rate-distortion function."""
    values = torch.randn(1500, 1000, generator=torch.Generator().manual_seed(3))
    step = 0.25
    symbols = (values / step).round().int()
    error = float((symbols * step - values).square().mean())
    gap = 8 * len(encode(symbols)) / symbols.numel() - 0.5 * math.log2(1 / error)
    assert 0.25 < gap < 0.275
