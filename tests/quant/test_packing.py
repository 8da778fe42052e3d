import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.quant import pack, packed_bytes, unpack


@given(bits=st.integers(1, 8), rows=st.integers(1, 4), count=st.integers(0, 50), seed=st.integers(0, 2**31))
def test_unpacking_gives_back_what_was_packed(bits, rows, count, seed):
    codes = torch.randint(2**bits, (rows, count), generator=torch.Generator().manual_seed(seed))
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, packed_bytes(count, bits))
    assert torch.equal(unpack(packed, bits, count).long(), codes)


@given(bits=st.integers(1, 8), data=st.data())
def test_the_layout_is_the_documented_stream_of_bits(bits, data):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=20))
    stream = [code >> k & 1 for code in codes for k in range(bits)]
    expected = [sum(bit << k for k, bit in enumerate(stream[i : i + 8])) for i in range(0, len(stream), 8)]
    assert pack(torch.tensor(codes), bits).tolist() == expected


def test_no_byte_is_wasted():
    assert packed_bytes(8, 3) == 3
    assert packed_bytes(192, 4) == 96
    assert packed_bytes(5, 3) == 2


@pytest.mark.parametrize("codes", [[4], [-1]])
def test_a_code_that_does_not_fit_is_an_error(codes):
    with pytest.raises(ValueError, match=r"0\.\.3"):
        pack(torch.tensor(codes), 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_integers_of_any_width_are_packed_alike(dtype):
    assert pack(torch.tensor([0, 7, 100]).to(dtype), 8).tolist() == [0, 7, 100]


def test_codes_that_are_no_integers_are_an_error():
    with pytest.raises(ValueError, match="integers"):
        pack(torch.tensor([1.0]), 4)


@pytest.mark.parametrize("bits", [0, 9, 2.5])
def test_bits_out_of_range_are_an_error(bits):
    with pytest.raises(ValueError, match="bits must be in"):
        pack(torch.tensor([0]), bits)


def test_rows_of_another_length_are_an_error():
    with pytest.raises(ValueError, match="10 codes of 4 bits take 5 bytes"):
        unpack(torch.zeros(4, dtype=torch.uint8), 4, 10)
