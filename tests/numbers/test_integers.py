"""The oracles are Python's integers, struct, ctypes, numpy and torch's casts."""

import ctypes
import itertools
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.numbers import IntFormat

SMALL = [(bits, signed) for bits in range(1, 9) for signed in (True, False)]
TORCH = [(8, True, torch.int8), (8, False, torch.uint8), (16, True, torch.int16), (32, True, torch.int32)]
NUMPY = [(16, True, np.int16, np.uint16), (16, False, np.uint16, np.uint16), (32, True, np.int32, np.uint32),
         (32, False, np.uint32, np.uint32)]


@pytest.mark.parametrize(("bits", "signed"), SMALL)
def test_every_pattern_of_a_small_format_is_read_digit_by_digit(bits, signed):
    fmt = IntFormat(bits, signed)
    for pattern, number in enumerate(fmt.decode(torch.arange(2**bits)).tolist()):
        digits = f"{pattern:0{bits}b}"
        weights = [2**i for i in reversed(range(bits))]
        weights[0] *= -1 if signed else 1
        assert number == sum(weight for weight, digit in zip(weights, digits, strict=True) if digit == "1")
        assert fmt.encode(number) == pattern
        assert fmt.digits(number) == digits


@pytest.mark.parametrize(("bits", "signed", "smallest", "largest"), [
    (1, True, -1, 0), (2, True, -2, 1), (4, True, -8, 7), (4, False, 0, 15), (8, True, -128, 127), (8, False, 0, 255),
    (16, True, -32768, 32767), (32, True, -2147483648, 2147483647), (32, False, 0, 4294967295),
])
def test_ranges(bits, signed, smallest, largest):
    assert (IntFormat(bits, signed).min, IntFormat(bits, signed).max) == (smallest, largest)


@pytest.mark.parametrize(("bits", "signed", "number", "digits"), [
    (8, True, -119, "10001001"), (8, True, -10, "11110110"), (8, True, -128, "10000000"), (8, True, 127, "01111111"),
    (8, False, 255, "11111111"), (8, True, -1, "11111111"), (4, True, -8, "1000"), (2, True, -2, "10"),
])
def test_digits_worked_out_by_hand(bits, signed, number, digits):
    assert IntFormat(bits, signed).digits(number) == digits
    assert IntFormat(bits, signed).decode(int(digits, 2)) == number


@pytest.mark.parametrize(("bits", "signed", "kind", "unsigned"), NUMPY)
def test_wide_patterns_are_the_bits_in_memory(bits, signed, kind, unsigned):
    numbers = np.random.default_rng(0).integers(np.iinfo(kind).min, np.iinfo(kind).max, 10_000, kind, endpoint=True)
    numbers[:2] = np.iinfo(kind).min, np.iinfo(kind).max
    patterns, fmt = numbers.view(unsigned).astype(np.int64), IntFormat(bits, signed)
    assert fmt.encode(torch.from_numpy(numbers.astype(np.int64))).tolist() == patterns.tolist()
    assert fmt.decode(torch.from_numpy(patterns)).tolist() == numbers.tolist()


@given(number=st.integers(-(2**31), 2**31 - 1))
def test_struct_packs_the_same_digits(number):
    assert int(IntFormat(32).digits(number), 2).to_bytes(4, "little") == struct.pack("<i", number)


# ---- the ends of the range ----


@pytest.mark.parametrize(("bits", "signed", "dtype"), TORCH)
def test_wrap_does_what_torch_does_when_it_casts_integers(bits, signed, dtype):
    numbers = torch.randint(-(2**40), 2**40, (10_000,), generator=torch.Generator().manual_seed(0))
    numbers = torch.cat((numbers, torch.arange(-1000, 1000)))
    assert torch.equal(IntFormat(bits, signed).wrap(numbers), numbers.to(dtype).long())


@pytest.mark.parametrize(("bits", "signed"), SMALL)
def test_wrap_keeps_the_last_digits(bits, signed):
    fmt = IntFormat(bits, signed)
    for number in range(-600, 600):
        last = f"{number + 2**20:b}"[-bits:]  # a power of two above leaves the last digits as they are
        assert fmt.digits(fmt.wrap(number)) == last


def test_one_more_than_the_largest_wraps_to_the_smallest():
    assert IntFormat(8).wrap(torch.tensor([128, -129, 256, 127])).tolist() == [-128, 127, 0, 127]


@given(numbers=st.lists(st.floats(-1e6, 1e6) | st.integers(-2000, 2000).map(lambda n: n / 2), min_size=1),
       bits=st.integers(1, 16), signed=st.booleans())
def test_saturate_rounds_as_python_does_and_stops_at_the_ends(numbers, bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    wanted = [min(max(round(number), low), high) for number in numbers]
    assert IntFormat(bits, signed).saturate(torch.tensor(numbers, dtype=torch.float64)).tolist() == wanted


def test_saturate_rounds_halves_to_even_and_takes_infinity():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.5, 1e30, torch.inf, -torch.inf, -129.0])
    assert IntFormat(8).saturate(x).tolist() == [0, 2, 2, 0, -2, 127, 127, 127, -128, -128]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_saturate_takes_every_floating_point_type(dtype):
    x = torch.tensor([2.5, -300.0, 12.0], dtype=dtype)
    assert IntFormat(8).saturate(x).tolist() == [2, -128, 12]
    assert IntFormat(32).saturate(torch.tensor(torch.inf, dtype=dtype)) == 2**31 - 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize(("bits", "signed"), [(4, True), (8, True), (8, False), (16, True), (32, True)])
def test_saturate_takes_every_integer_type(bits, signed, dtype):
    fmt = IntFormat(bits, signed)
    numbers = torch.tensor([torch.iinfo(dtype).min, 0, 5, torch.iinfo(dtype).max], dtype=dtype)
    assert fmt.saturate(numbers).tolist() == [min(max(n, fmt.min), fmt.max) for n in numbers.tolist()]


# ---- addition ----


def carries_of(a, b, bits):
    """Compare the sum with the sum that has no carries: they differ where one came in."""
    return f"{(a ^ b ^ (a + b)) & 2**bits - 1:0{bits}b}"


@pytest.mark.parametrize(("bits", "signed"), [(3, True), (4, True), (4, False)])
def test_all_sums_of_a_small_format(bits, signed):
    fmt = IntFormat(bits, signed)
    for a, b in itertools.product(range(fmt.min, fmt.max + 1), repeat=2):
        sum_ = fmt.add(a, b)
        ua, ub = a % 2**bits, b % 2**bits
        assert sum_.carries == carries_of(ua, ub, bits)
        assert sum_.carry_out == (ua + ub >= 2**bits)
        assert int(sum_.total, 2) == (a + b) % 2**bits
        assert (int(sum_.a, 2), int(sum_.b, 2)) == (ua, ub)
        assert sum_.overflow == (not fmt.min <= a + b <= fmt.max)
        assert sum_.overflow or sum_.value == a + b


@given(a=st.integers(-128, 127), b=st.integers(-128, 127))
def test_int8_sums_are_those_of_c(a, b):
    assert IntFormat(8).add(a, b).value == ctypes.c_int8(a + b).value


@given(a=st.integers(0, 2**32 - 1), b=st.integers(0, 2**32 - 1))
def test_uint32_sums_are_those_of_c(a, b):
    sum_ = IntFormat(32, signed=False).add(a, b)
    assert (sum_.value, sum_.carry_out) == (ctypes.c_uint32(a + b).value, a + b >> 32)
    assert sum_.carries == carries_of(a, b, 32)


def test_a_signed_sum_overflows_where_the_last_two_carries_differ():
    for a, b in itertools.product(range(-8, 8), repeat=2):
        sum_ = IntFormat(4).add(a, b)
        assert sum_.overflow == (int(sum_.carries[0]) != sum_.carry_out)


def test_an_addition_is_written_as_on_paper():
    assert str(IntFormat(8).add(127, 1)) == (
        "  11111110  carries\n  01111111\n+ 00000001\n----------\n  10000000  = -128  (overflow)")
    assert str(IntFormat(4).add(-3, 5)).endswith("\n  0010  = 2")


# ---- names and errors ----


def test_names():
    assert [IntFormat(8).name, IntFormat(4, signed=False).name] == ["int8", "uint4"]


@pytest.mark.parametrize("bits", [0, 33, -1, 2.5])
def test_a_width_that_cannot_be_is_an_error(bits):
    with pytest.raises(ValueError, match="bits must be in 1..32"):
        IntFormat(bits)


@pytest.mark.parametrize(("fmt", "number"), [(IntFormat(8), 128), (IntFormat(8), -129), (IntFormat(4, False), -1)],
                         ids=str)
def test_a_number_that_does_not_fit_is_an_error(fmt, number):
    for method in (fmt.encode, fmt.digits, lambda n: fmt.add(0, n), lambda n: fmt.add(n, 0)):
        with pytest.raises(ValueError, match=f"{fmt.name} holds {fmt.min}..{fmt.max}"):
            method(number)


@pytest.mark.parametrize("pattern", [-1, 256])
def test_a_pattern_of_too_many_bits_is_an_error(pattern):
    with pytest.raises(ValueError, match="patterns of int8 lie in 0..255"):
        IntFormat(8).decode(pattern)


@pytest.mark.parametrize("method", ["encode", "decode", "wrap"])
@pytest.mark.parametrize("number", [0.5, float("nan")])
def test_what_is_not_whole_is_an_error(method, number):
    with pytest.raises(ValueError, match="only whole numbers have a pattern"):
        getattr(IntFormat(8), method)(torch.tensor([1.0, number]))


@pytest.mark.parametrize("method", ["encode", "decode", "wrap"])
@pytest.mark.parametrize("number", [float("inf"), float("-inf")])
def test_infinity_is_no_integer(method, number):
    with pytest.raises(ValueError, match="whole|holds|lie in"):
        getattr(IntFormat(8), method)(torch.tensor([1.0, number]))


def test_whole_floats_are_taken():
    assert IntFormat(8).encode(torch.tensor([-1.0, 5.0])).tolist() == [255, 5]


def test_nan_is_no_integer():
    with pytest.raises(ValueError, match="NaN is no integer"):
        IntFormat(8).saturate(torch.tensor([1.0, torch.nan]))


def test_python_numbers_are_read_in_full():
    assert IntFormat(32).saturate(16777217.0) == IntFormat(32).encode(16777217.0) == 16777217
    assert IntFormat(8).saturate(2.5000001) == 3
