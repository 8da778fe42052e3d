import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.quant import (
    GRIDS,
    Grid,
    QuantLinear,
    affine_grid,
    nearest,
    pack,
    pack_trits,
    packed_bytes,
    packing,
    ternary_grid,
    trit_bytes,
    unpack,
    unpack_trits,
)
from nanoq.store import layer_from_layout


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


# ---- five codes of three values to a byte ----


@given(rows=st.integers(1, 4), count=st.integers(0, 60), seed=st.integers(0, 2**31))
def test_unpacking_gives_back_the_trits_that_were_packed(rows, count, seed):
    codes = torch.randint(3, (rows, count), generator=torch.Generator().manual_seed(seed))
    packed = pack_trits(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, trit_bytes(count)) == (rows, -(-count // 5))
    unpacked = unpack_trits(packed, count)
    assert unpacked.dtype == torch.uint8 and torch.equal(unpacked.long(), codes)


@pytest.mark.parametrize(("rows", "count"), [(0, 3), (2, 0), (0, 0)])
def test_there_may_be_no_codes_of_three_values(rows, count):
    codes = torch.zeros(rows, count, dtype=torch.uint8)
    assert torch.equal(unpack_trits(pack_trits(codes), count), codes)


def test_every_byte_of_five_trits_is_another_one_and_all_of_them_come_back():
    digits = torch.cartesian_prod(*[torch.arange(3)] * 5)  # (243, 5)
    packed = pack_trits(digits)[:, 0]
    assert packed.long().sort().values.tolist() == list(range(243))
    assert torch.equal(unpack_trits(packed[:, None], 5).long(), digits)


def test_the_first_trit_is_the_lowest_digit():
    assert pack_trits(torch.tensor([1, 0, 0, 0, 0])).tolist() == [1]
    assert pack_trits(torch.tensor([0, 0, 0, 0, 2])).tolist() == [162]
    assert pack_trits(torch.tensor([2, 1, 0, 2, 1])).tolist() == [2 + 3 + 0 + 54 + 81]
    assert pack_trits(torch.tensor([2] * 5 + [1, 2])).tolist() == [242, 7]  # the rest of a row is zeros
    assert unpack_trits(torch.tensor([242, 7], dtype=torch.uint8), 7).tolist() == [2] * 5 + [1, 2]


def test_a_trit_takes_a_bit_and_six_tenths():
    assert [trit_bytes(count) for count in (0, 1, 5, 6, 10, 192, 768)] == [0, 1, 1, 2, 2, 39, 154]
    assert 8 * trit_bytes(4000) / 4000 == 1.6


def test_rows_of_trits_start_at_a_byte_in_any_number_of_dimensions():
    codes = torch.randint(3, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    packed = pack_trits(codes)
    assert packed.shape == (2, 3, 2)
    assert torch.equal(packed[1, 2], pack_trits(codes[1, 2]))
    assert torch.equal(unpack_trits(packed, 7).long(), codes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64])
def test_trits_of_any_integer_type_are_packed_alike(dtype):
    assert pack_trits(torch.tensor([2, 2, 2, 2, 2, 1]).to(dtype)).tolist() == [242, 1]


@pytest.mark.parametrize("codes", [torch.tensor([3]), torch.tensor([0, -1]), torch.tensor([1.0])])
def test_what_is_no_trit_is_an_error(codes):
    with pytest.raises(ValueError, match="0, 1 and 2"):
        pack_trits(codes)


@pytest.mark.parametrize(("packed", "count", "message"), [
    (torch.zeros(3, dtype=torch.uint8), 10, "10 codes of three values take 2 bytes of uint8 a row, not 3"),
    (torch.zeros(2, dtype=torch.uint8), 11, "take 3 bytes"),
    (torch.zeros(2, dtype=torch.int64), 10, "not 2 of torch.int64"),
    (torch.tensor([0, 243], dtype=torch.uint8), 10, "less than 243, not 243"),
])
def test_bytes_that_are_no_trits_are_an_error(packed, count, message):
    with pytest.raises(ValueError, match=message):
        unpack_trits(packed, count)


# ---- layers of three levels ----

THREE_LEVELS = {
    "ternary": lambda w: ternary_grid(w), "ternary with a threshold": lambda w: ternary_grid(w, operator="twn"),
    "ternary groups": lambda w: ternary_grid(w, granularity="group", group_size=16),
    "ternary tensor": lambda w: ternary_grid(w, granularity="tensor"),
    "symmetric affine": lambda w: affine_grid(w, 2, symmetric=True),
    "codebook": lambda w: Grid(2, 3, torch.ones(len(w), 1), w.shape[1], codebook=torch.tensor([-1.0, 0.0, 0.5])),
}


@pytest.mark.parametrize("make", THREE_LEVELS.values(), ids=THREE_LEVELS)
@pytest.mark.parametrize("width", [43, 40])
def test_a_layer_of_three_levels_is_packed_by_fives_and_restored_bit_for_bit(make, width):
    weight = torch.randn(6, width, generator=torch.Generator().manual_seed(0))
    grid = make(weight)
    codes, bias = nearest(weight, grid), torch.arange(6.0)
    layer = QuantLinear.from_codes(codes, grid, bias)
    assert layer.codes.shape == (6, trit_bytes(width))
    assert torch.equal(layer.unpacked().long(), codes)
    assert torch.equal(layer.dequantize(), grid.decode(codes))
    again = layer_from_layout(layer.layout, {name: tensor.clone() for name, tensor in layer.state_dict().items()})
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.dequantize(), layer.dequantize())
    assert torch.equal(again(x), layer(x)) and torch.equal(layer(x), x @ grid.decode(codes).T + bias)


def test_a_layer_of_four_levels_is_not_packed_by_fives():
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    grid = affine_grid(weight, 2)
    layer = QuantLinear.from_codes(nearest(weight, grid), grid)
    assert layer.codes.shape == (6, 10) and torch.equal(layer.dequantize(), grid.decode(nearest(weight, grid)))


def test_a_ternary_weight_takes_1_6_bits_and_its_scale_16_for_each_group():
    weight = torch.randn(64, 4000, generator=torch.Generator().manual_seed(0))
    groups = {"granularity": "group", "group_size": 80}
    for options, scales in (({}, 64), ({"granularity": "tensor"}, 1), (groups, 3200)):
        grid = GRIDS["ternary"](weight, 2, **options)
        layer = QuantLinear.from_codes(nearest(weight, grid), grid)
        stored = sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers())
        assert 8 * stored == 1.6 * weight.numel() + 16 * scales


def test_a_matrix_that_is_packed_in_parts_is_packed_as_a_whole_one(monkeypatch):
    codes = torch.randint(0, 8, (13, 21), generator=torch.Generator().manual_seed(0))
    whole = pack(codes, 3)
    for at_once in (1, 21, 50):
        monkeypatch.setattr(packing, "_AT_ONCE", at_once)
        assert torch.equal(pack(codes, 3), whole)
