"""The oracles are torch's and numpy's casts, the bits in memory, and exact fractions."""

import bisect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.numbers import FLOATS, FloatFormat, float_format

no_e8m0 = pytest.mark.skipif(FLOATS["e8m0"].dtype is None, reason="torch has no float8_e8m0fnu before 2.7")
SMALL = ["fp16", "bf16", "e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0", "e3m2", "e2m3", "e2m1"]
TORCH = [*SMALL[:6], pytest.param("e8m0", marks=no_e8m0)]
SIGNED = [name for name in FLOATS if name != "e8m0"]
E8M0_FROM = 2.0**-126  # between 2**-127 and this, torch 2.13 rounds the wrong way

finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(finite, st.floats(-8, 8), st.integers(-512, 512).map(lambda n: n / 64))
lists = st.lists(numbers, min_size=1, max_size=8).map(lambda x: torch.tensor(x, dtype=torch.float64))


def random_patterns(count, seed, dtype=np.uint32):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, count, dtype, endpoint=True)


def in_memory(x):
    """The bits of each number as an int64 of at least 0 (64-bit ones as they are)."""
    size = x.element_size()
    bits = x.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]).long()
    return bits if size == 8 else bits & 2 ** (8 * size) - 1


def values_in_torch(name):
    fmt = FLOATS[name]
    patterns = torch.arange(2**fmt.bits)
    return patterns.to(torch.uint8 if fmt.bits == 8 else torch.int16).view(fmt.dtype).double()


def same_bits(a, b):
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(in_memory(a)[~a.isnan()], in_memory(b)[~b.isnan()])


def assert_torch_casts_alike(x, name):
    fmt = FLOATS[name]
    if name == "e4m3fn":  # which some versions of torch saturate, others not: made certain by the clamp
        ours, theirs = fmt.encode(x, saturate=True), x.clamp(-448, 448).to(fmt.dtype)
    elif name == "e8m0":  # torch drops the sign of negative numbers, where ours raises
        x = x.abs()
        x = x[(x <= 2.0**-127) | (x >= E8M0_FROM) | x.isnan()]
        ours, theirs = fmt.encode(x), x.to(fmt.dtype)
    else:
        ours, theirs = fmt.encode(x), x.to(fmt.dtype)
    nan = theirs.float().isnan()
    assert torch.equal(fmt.decode(ours).isnan(), nan)
    assert torch.equal(ours[~nan], in_memory(theirs)[~nan])


# ---- against torch, numpy and the memory ----


@pytest.mark.parametrize("name", TORCH)
def test_every_pattern_means_what_torch_reads_in_it(name):
    assert same_bits(FLOATS[name].values(), values_in_torch(name))


@pytest.mark.parametrize("name", TORCH)
def test_every_value_is_encoded_as_the_pattern_it_came_from(name):
    values = values_in_torch(name)
    number = ~values.isnan()
    assert torch.equal(FLOATS[name].encode(values)[number], torch.arange(len(values))[number])


@pytest.mark.parametrize("name", TORCH)
def test_nan_stays_nan(name):
    fmt = FLOATS[name]
    pattern = fmt.encode(math.nan)
    assert values_in_torch(name)[pattern].isnan()
    assert fmt.decode(pattern).isnan()


@pytest.mark.parametrize("name", TORCH)
def test_ten_million_random_bit_patterns_are_cast_as_torch_casts_them(name):
    for seed in range(10):
        assert_torch_casts_alike(torch.from_numpy(random_patterns(1_000_000, seed).view(np.float32)), name)


@pytest.mark.parametrize("name", TORCH)
def test_numbers_in_the_range_are_cast_as_torch_casts_them(name):
    exponents = torch.from_numpy(np.random.default_rng(0).uniform(-30, 20, 200_000))
    signs = torch.from_numpy(np.random.default_rng(1).choice([-1.0, 1.0], 200_000))
    assert_torch_casts_alike((signs * 2**exponents).float(), name)


@pytest.mark.parametrize("name", TORCH)
def test_every_tie_and_its_neighbours_are_rounded_as_torch_does(name):
    values = values_in_torch(name)
    values = values[values.isfinite() & (values >= 0)].unique()
    beyond = 2 * values[-1] - values[-2] if name != "e8m0" else 2 * values[-1]
    middles = (values + torch.cat((values[1:], beyond[None]))) / 2
    if name == "e8m0":
        middles = middles[middles > E8M0_FROM]
    ties = middles.float()
    assert torch.equal(ties.double(), middles)  # ties indeed
    around = torch.cat((ties, ties.nextafter(torch.tensor(0.0)), ties.nextafter(torch.tensor(torch.inf))))
    assert_torch_casts_alike(torch.cat((around, -around)), name)


@pytest.mark.parametrize("name", ["fp32", "fp64"])
def test_whole_words_are_the_bits_in_memory(name):
    unsigned, floating = {"fp32": (np.uint32, np.float32), "fp64": (np.uint64, np.float64)}[name]
    fmt, words = FLOATS[name], random_patterns(200_000, 3, unsigned)
    words[:1000] %= unsigned(2**fmt.mantissa)  # subnormals
    words[:500] |= unsigned(2 ** (fmt.bits - 1))
    words[1000:1002] = 0, 2 ** (fmt.bits - 1)
    x = torch.from_numpy(words.view(floating))
    x = x[~x.isnan()]
    assert torch.equal(fmt.encode(x), in_memory(x))
    assert same_bits(fmt.decode(in_memory(x)), x.double())


def test_doubles_are_rounded_to_single_as_the_processor_rounds_them():
    x = torch.from_numpy(random_patterns(200_000, 4).view(np.float32)).double()
    x = x * (1 + torch.from_numpy(np.random.default_rng(5).uniform(-1e-7, 1e-7, len(x))))
    x = x[~x.isnan()]
    assert torch.equal(FLOATS["fp32"].encode(x), in_memory(x.float()))


def test_doubles_are_rounded_once_not_by_way_of_single_precision():
    x = 1 + 2.0**-11 + 2.0**-40  # in float32 it is the tie 1 + 2**-11, which goes down
    assert FLOATS["fp16"].round(x) == float(np.float64(x).astype(np.float16)) == 1 + 2.0**-10
    noise = np.random.default_rng(6).normal(size=100_000)
    assert torch.equal(FLOATS["fp16"].round(torch.from_numpy(noise)),
                       torch.from_numpy(noise.astype(np.float16).astype(np.float64)))


# ---- where ours and torch's differ ----


def test_e4m3fn_beyond_464_is_nan_by_the_standard_unless_it_saturates():
    x = torch.tensor([464.0, 464.1, 1e30, torch.inf])  # torch 2.13 makes 448 of all four
    assert FLOATS["e4m3fn"].round(x).nan_to_num(-1).tolist() == [448, -1, -1, -1]
    assert FLOATS["e4m3fn"].round(-x, saturate=True).tolist() == [-448] * 4


def test_e8m0_has_no_negative_numbers():
    with pytest.raises(ValueError, match="e8m0 has no negative numbers"):
        FLOATS["e8m0"].encode(torch.tensor([1.0, -1.0]))  # torch's cast makes 1 of -1


def test_e8m0_rounds_to_nearest_in_its_lowest_binade():
    x = torch.tensor([1.0, 1.2, 1.49, 1.51, 1.9, 2.0], dtype=torch.float64) * 2.0**-127
    assert FLOATS["e8m0"].encode(x).tolist() == [0, 0, 0, 1, 1, 1]  # torch 2.13 makes 1 of 1.2 and 1.49


def test_without_a_zero_what_is_too_small_becomes_the_smallest_value():
    x = torch.tensor([0.0, -0.0, 1e-45, 2.0**-128])
    for rounding in ("nearest", "zero", "stochastic"):
        assert FLOATS["e8m0"].encode(x, rounding).tolist() == [0] * 4


# ---- against exact fractions ----

WIDTHS = {  # exponent bits, fraction bits, pattern of the largest finite value, what lies beyond
    "tf32": (8, 10, 255 * 2**10 - 1, math.inf), "fp16": (5, 10, 31 * 2**10 - 1, math.inf),
    "bf16": (8, 7, 255 * 2**7 - 1, math.inf), "e5m2": (5, 2, 31 * 2**2 - 1, math.inf),
    "e4m3fn": (4, 3, 126, math.nan), "e3m2": (3, 2, 31, 28.0), "e2m3": (2, 3, 31, 7.5), "e2m1": (2, 1, 7, 6.0),
}


def exact(pattern, exponent, mantissa):
    field, fraction = divmod(pattern, 2**mantissa)
    size = Fraction(fraction + (2**mantissa if field else 0), 2**mantissa)
    return size * Fraction(2) ** (max(field, 1) - 2 ** (exponent - 1) + 1)


def oracle(x, name, rounding="nearest"):
    """Find the nearest value, or the next one toward zero, by bisection; halves go to the even pattern."""
    exponent, mantissa, last, beyond = WIDTHS[name]
    size, value = Fraction(abs(x)), lambda pattern: exact(pattern, exponent, mantissa)
    low = bisect.bisect_right(range(last + 1), size, key=value) - 1
    down, up = size - value(low), value(low + 1) - size
    pattern = low + (rounding == "nearest" and (up < down or (up == down and low % 2 == 1)))
    return math.copysign(float(value(pattern)) if pattern <= last else beyond, x)


@pytest.mark.parametrize("rounding", ["nearest", "zero"])
@pytest.mark.parametrize("name", WIDTHS)
@given(x=lists)
def test_the_value_is_the_nearest_of_all_or_the_next_toward_zero(name, rounding, x):
    wanted = torch.tensor([oracle(number, name, rounding) for number in x.tolist()], dtype=torch.float64)
    assert same_bits(FLOATS[name].round(x, rounding), wanted)


@pytest.mark.parametrize("name", ["e3m2", "e2m3", "e2m1"])
def test_small_formats_round_every_64th_of_a_unit_to_the_nearest_value(name):
    x = torch.arange(-40 * 64, 40 * 64 + 1, dtype=torch.float64) / 64
    assert FLOATS[name].round(x).tolist() == [oracle(number, name) for number in x.tolist()]


def test_tf32_cuts_thirteen_bits_off_float32():
    bits = torch.from_numpy(random_patterns(500_000, 8).view(np.int32))
    x = bits.view(torch.float32)
    bits = bits[~x.isnan()].long() & 0xFFFFFFFF
    nearest = bits + 0xFFF + (bits >> 13 & 1) & ~0x1FFF
    assert torch.equal(FLOATS["tf32"].encode(x[~x.isnan()]), nearest >> 13)


@given(exponent=st.integers(1, 10), mantissa=st.integers(0, 52), subnormals=st.booleans(), data=st.data())
def test_a_format_of_any_width_means_what_the_formula_says(exponent, mantissa, subnormals, data):
    fmt = FloatFormat("any", exponent, mantissa, specials="none", subnormals=subnormals)
    magnitude = data.draw(st.integers(0, 2 ** (exponent + mantissa) - 1))
    field, fraction = divmod(magnitude, 2**mantissa)
    if subnormals:
        size = exact(magnitude, exponent, mantissa)
    else:
        size = (1 + Fraction(fraction, 2**mantissa)) * Fraction(2) ** (field - 2 ** (exponent - 1) + 1)
    assert Fraction(fmt.decode(magnitude).item()) == size
    assert fmt.encode(float(size)) == magnitude


@pytest.mark.parametrize("wrong", [{"exponent": 11, "specials": "none"}, {"exponent": 4, "bias": 2000},
                                   {"exponent": 8, "bias": -900}])
def test_a_format_that_float64_cannot_hold_is_an_error(wrong):
    with pytest.raises(ValueError, match="beyond float64"):
        FloatFormat("too wide", mantissa=3, **wrong)


# ---- limits ----


@pytest.mark.parametrize(("name", "largest", "normal", "subnormal", "eps"), [
    ("fp64", 1.797693e308, 2.225074e-308, 4.94e-324, 2.22e-16), ("fp32", 3.402823e38, 1.175494e-38, 1.40e-45, 1.192e-7),
    ("tf32", 3.40e38, 1.18e-38, 2**-136, 9.77e-4), ("fp16", 65504, 6.104e-5, 5.96e-8, 9.77e-4),
    ("bf16", 3.389531e38, 1.175e-38, 9.18e-41, 7.81e-3), ("e4m3fn", 448, 2**-6, 2**-9, 0.125),
    ("e5m2", 57344, 2**-14, 2**-16, 0.25), ("e4m3fnuz", 240, 2**-7, 2**-10, 0.125),
    ("e5m2fnuz", 57344, 2**-15, 2**-17, 0.25), ("e8m0", 2.0**127, 2**-127, 2**-127, 1), ("e2m1", 6, 1, 0.5, 0.5),
    ("e3m2", 28, 0.25, 0.0625, 0.25), ("e2m3", 7.5, 1, 0.125, 0.125),
])
def test_limits_are_the_published_ones(name, largest, normal, subnormal, eps):
    fmt = FLOATS[name]
    assert [fmt.max, fmt.min_normal, fmt.eps] == pytest.approx([largest, normal, eps], rel=5e-3)
    assert fmt.min_subnormal == pytest.approx(subnormal, rel=5e-3, abs=0)


@pytest.mark.parametrize("name", ["fp64", "fp32", *TORCH])
def test_limits_are_exactly_those_of_torch(name):
    limits, fmt = torch.finfo(FLOATS[name].dtype), FLOATS[name]
    assert (fmt.max, fmt.min_normal, fmt.bits) == (limits.max, limits.tiny, limits.bits)


@pytest.mark.parametrize("name", TORCH)
def test_eps_is_the_distance_from_1_to_the_next_value_in_torch(name):
    values = values_in_torch(name)  # torch's own eps of e5m2fnuz and e8m0 is the distance below 1
    assert FLOATS[name].eps == values[values > 1].min() - 1


@pytest.mark.parametrize(("name", "count"), [
    ("fp16", 63487), ("bf16", 65279), ("e4m3fn", 253), ("e5m2", 247), ("e4m3fnuz", 255), ("e5m2fnuz", 255),
    ("e8m0", 255), ("e3m2", 63), ("e2m3", 63), ("e2m1", 15),
])
def test_the_number_of_distinct_finite_values(name, count):
    values = FLOATS[name].values()
    assert len(values[values.isfinite()].unique()) == count


def test_the_values_of_e2m1():
    assert FLOATS["e2m1"].values().tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]


@pytest.mark.parametrize(("name", "infinities", "nans"), [
    ("fp16", 2, 2046), ("e4m3fn", 0, 2), ("e5m2", 2, 6), ("e4m3fnuz", 0, 1), ("e8m0", 0, 1), ("e2m1", 0, 0),
])
def test_how_many_patterns_are_no_numbers(name, infinities, nans):
    fmt, values = FLOATS[name], FLOATS[name].values()
    assert (values.isinf().sum(), values.isnan().sum()) == (infinities, nans)
    assert (fmt.has_inf, fmt.has_nan) == (infinities > 0, nans > 0)


# ---- examples by hand ----


@pytest.mark.parametrize(("name", "third"), [
    ("fp32", 0.3333333432674408), ("fp16", 0.333251953125), ("bf16", 0.333984375), ("e4m3fn", 0.34375),
    ("e5m2", 0.3125),
])
def test_a_third(name, third):
    assert FLOATS[name].round(1 / 3) == third


@pytest.mark.parametrize(("name", "value", "digits"), [
    ("fp16", 1 / 3, "0 01101 0101010101"), ("fp16", 1.0, "0 01111 0000000000"), ("fp16", -0.0, "1 00000 0000000000"),
    ("fp16", 65519.0, "0 11110 1111111111"), ("fp16", 65520.0, "0 11111 0000000000"),
    ("fp16", 2.0**-24, "0 00000 0000000001"), ("bf16", math.pi, "0 10000000 1001001"),
    ("fp32", -0.15625, "1 01111100 01000000000000000000000"), ("fp64", -2.0, "1 10000000000 " + "0" * 52),
    ("tf32", 1 / 3, "0 01111101 0101010101"), ("e4m3fn", 448.0, "0 1111 110"), ("e5m2", -math.inf, "1 11111 00"),
    ("e4m3fnuz", 1.0, "0 1000 000"), ("e5m2fnuz", 1.0, "0 10000 00"), ("e3m2", 28.0, "0 111 11"),
    ("e2m3", 0.125, "0 00 001"), ("e2m1", -1.5, "1 01 1"), ("e8m0", 1.0, "01111111"),
    ("bf16", 3.4e38, "0 11111111 0000000"),
])
def test_digits_worked_out_by_hand(name, value, digits):
    fmt = FLOATS[name]
    assert fmt.digits(fmt.encode(value)) == digits
    assert fmt.digits(int(fmt.encode(value))) == digits


@pytest.mark.parametrize(("name", "pattern", "kind"), [
    ("fp16", 0x0000, "zero"), ("fp16", 0x8000, "zero"), ("fp16", 0x0001, "subnormal"), ("fp16", 0x83FF, "subnormal"),
    ("fp16", 0x0400, "normal"), ("fp16", 0x7BFF, "normal"), ("fp16", 0xFC00, "infinity"), ("fp16", 0x7C01, "NaN"),
    ("e4m3fn", 0x7E, "normal"), ("e4m3fn", 0x7F, "NaN"), ("e4m3fn", 0xFF, "NaN"), ("e4m3fnuz", 0x80, "NaN"),
    ("e4m3fnuz", 0x81, "subnormal"), ("e8m0", 0, "normal"), ("e8m0", 255, "NaN"), ("e2m1", 15, "normal"),
    ("fp64", 1, "subnormal"), ("fp64", -(2**63), "zero"),
])
def test_kinds_worked_out_by_hand(name, pattern, kind):
    assert FLOATS[name].kind(pattern) == kind


def test_fields_worked_out_by_hand():
    sign, field, fraction = FLOATS["fp16"].fields(torch.tensor([0xB555, 0x7C00, 0x0001]))
    assert (sign.tolist(), field.tolist(), fraction.tolist()) == ([1, 0, 0], [13, 31, 0], [0x155, 0, 1])
    assert [int(part) for part in FLOATS["fp64"].fields(-1)] == [1, 2047, 2**52 - 1]


# ---- the ends of the range ----


@pytest.mark.parametrize(("name", "number", "plain", "saturated"), [
    ("fp16", 1e6, math.inf, 65504), ("fp16", -math.inf, -math.inf, -65504), ("e5m2", 61440.0, math.inf, 57344),
    ("e5m2", 61439.0, 57344, 57344), ("e4m3fnuz", 300.0, math.nan, 240), ("e5m2fnuz", -math.inf, math.nan, -57344),
    ("e2m1", 100.0, 6, 6), ("e2m1", -math.inf, -6, -6), ("e8m0", math.inf, math.nan, 2.0**127),
    ("fp32", 1e300, math.inf, 3.4028234663852886e38),
])
def test_what_is_too_large(name, number, plain, saturated):
    fmt = FLOATS[name]
    assert fmt.round(number).item() == pytest.approx(plain, rel=0, abs=0, nan_ok=True)
    assert fmt.round(number, saturate=True) == saturated


@pytest.mark.parametrize("name", ["fp16", "e4m3fn", "e4m3fnuz", "e2m1"])
def test_cutting_off_never_leaves_the_range(name):
    x = torch.tensor([1e30, -1e30])
    assert FLOATS[name].round(x, "zero").tolist() == [FLOATS[name].max, -FLOATS[name].max]


def test_saturation_leaves_nan_alone():
    assert FLOATS["e4m3fn"].round(math.nan, saturate=True).isnan()


@pytest.mark.parametrize("name", ["e4m3fnuz", "e5m2fnuz"])
def test_what_would_be_negative_zero_becomes_zero_where_that_is_nan(name):
    assert FLOATS[name].encode(torch.tensor([-0.0, -1e-30])).tolist() == [0, 0]


# ---- properties ----


@pytest.mark.parametrize("name", FLOATS)
@given(x=lists)
def test_rounding_twice_is_rounding_once(name, x):
    fmt = FLOATS[name]
    once = fmt.round(x if fmt.signed else x.abs(), saturate=True)
    assert same_bits(fmt.round(once, saturate=True), once)


@pytest.mark.parametrize("name", FLOATS)
@given(x=lists)
def test_rounding_keeps_the_order(name, x):
    fmt = FLOATS[name]
    rounded = fmt.round((x if fmt.signed else x.abs()).sort().values, saturate=True)
    assert (rounded[1:] >= rounded[:-1]).all()


@pytest.mark.parametrize("name", SIGNED)
@given(x=lists)
def test_the_negative_is_rounded_to_the_negative(name, x):
    assert torch.equal(FLOATS[name].round(-x, saturate=True), -FLOATS[name].round(x, saturate=True))


@pytest.mark.parametrize("rounding", ["nearest", "zero", "stochastic"])
@pytest.mark.parametrize("name", SMALL)
def test_the_values_of_a_format_stay_as_they_are(name, rounding):
    values = FLOATS[name].values()
    values = values[~values.isnan()]
    assert same_bits(FLOATS[name].round(values, rounding), values)


@pytest.mark.parametrize("name", SIGNED)
@given(x=lists)
def test_toward_zero_never_grows(name, x):
    assert (FLOATS[name].round(x, "zero").abs() <= x.abs()).all()


@pytest.mark.parametrize(("name", "number", "low", "high"), [
    ("fp16", 1.0003, 1, 1 + 2**-10), ("bf16", -0.2001, -0.200195312500, -0.19921875), ("e4m3fn", 17.1, 16, 18),
    ("e5m2", 1e-5, 0, 2**-16), ("e2m1", 4.5, 4, 6), ("e2m3", -0.06, -0.125, 0), ("e8m0", 1.3, 1, 2),
])
def test_stochastic_rounding_is_right_in_the_mean(name, number, low, high):
    count = 40_000
    rounded = FLOATS[name].round(torch.full((count,), number, dtype=torch.float64), "stochastic",
                                 generator=torch.Generator().manual_seed(0))
    assert rounded.unique().tolist() == [low, high]
    share = (number - low) / (high - low)
    standard_error = (high - low) * math.sqrt(share * (1 - share) / count)
    assert abs(rounded.mean().item() - number) < 4 * standard_error


def test_stochastic_rounding_repeats_itself_with_the_same_generator():
    x = torch.linspace(-5, 5, 1000)
    first, second = (FLOATS["e2m1"].round(x, "stochastic", generator=torch.Generator().manual_seed(1))
                     for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", SMALL)
def test_an_ulp_is_the_distance_to_the_next_value(name):
    values = FLOATS[name].values()
    values = values[values.isfinite() & (values >= 0)].unique()
    inside = (values[1:] + 3 * values[:-1]) / 4
    assert torch.equal(FLOATS[name].ulp(values[:-1]), values.diff())
    assert torch.equal(FLOATS[name].ulp(-inside), values.diff())


@given(x=finite)
def test_the_ulp_of_a_double_is_what_python_says(x):
    assert FLOATS["fp64"].ulp(x) == math.ulp(x)


def test_there_is_no_ulp_where_there_is_no_number():
    ulp = FLOATS["fp16"].ulp(torch.tensor([torch.inf, -torch.inf, torch.nan, 65504, 65536]))
    assert ulp[:3].isnan().all()
    assert ulp[3:].tolist() == [32, 64]  # beyond the largest value it goes on doubling


# ---- types, shapes, names, errors ----


@pytest.mark.parametrize(("values", "dtype"), [
    (0.1, torch.float64), (torch.tensor(0.1, dtype=torch.float64), torch.float64), (torch.ones(2, 3), torch.float32),
    (torch.ones(4).half(), torch.float32), (torch.ones(0), torch.float32),
])
def test_rounding_keeps_the_shape_and_gives_single_or_double(values, dtype):
    rounded = FLOATS["e5m2"].round(values)
    assert (rounded.dtype, rounded.shape) == (dtype, torch.as_tensor(values).shape)


def test_formats_are_found_by_themselves_by_name_and_by_torch_type():
    assert float_format("bf16") is float_format(torch.bfloat16) is float_format(FLOATS["bf16"]) is FLOATS["bf16"]
    assert float_format(torch.float8_e4m3fn) is FLOATS["e4m3fn"]
    own = FloatFormat("e3m4", 3, 4)
    assert float_format(own) is own
    assert (own.bits, own.bias, own.max) == (8, 3, 15.5)


@no_e8m0
def test_e8m0_is_found_by_its_torch_type():
    assert float_format(torch.float8_e8m0fnu) is FLOATS["e8m0"]


@pytest.mark.parametrize("kind", ["fp15", "", torch.int8, torch.complex64, None])
def test_a_format_that_is_none_is_an_error(kind):
    with pytest.raises(ValueError, match="no floating-point format"):
        float_format(kind)


@pytest.mark.parametrize(("options", "message"), [
    ({"exponent": 0, "mantissa": 3}, "1 to 11 exponent bits"), ({"exponent": 12, "mantissa": 3}, "1 to 11 exponent"),
    ({"exponent": 8, "mantissa": 53}, "0 to 52 fraction bits"), ({"exponent": 8, "mantissa": -1}, "0 to 52 fraction"),
    ({"exponent": 4, "mantissa": 3, "specials": "inf"}, "specials must be one of"),
    ({"exponent": 4, "mantissa": 0}, "cannot be 'ieee'"),
    ({"exponent": 4, "mantissa": 3, "specials": "fnuz", "signed": False}, "cannot be 'fnuz'"),
])
def test_a_format_that_cannot_be_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        FloatFormat("odd", **options)


@pytest.mark.parametrize("name", ["e2m1", "e3m2", "e2m3"])
def test_nan_in_a_format_without_nan_is_an_error(name):
    with pytest.raises(ValueError, match=f"{name} has no NaN"):
        FLOATS[name].encode(torch.tensor([1.0, torch.nan]))


def test_an_unknown_rounding_is_an_error():
    with pytest.raises(ValueError, match="rounding must be one of nearest, zero, stochastic, not 'up'"):
        FLOATS["fp16"].round(1.0, "up")


@pytest.mark.parametrize(("name", "pattern"), [("e4m3fn", 256), ("e2m1", 16), ("fp16", -1), ("fp32", 2**32)])
def test_a_pattern_of_too_many_bits_is_an_error(name, pattern):
    for method in (FLOATS[name].decode, FLOATS[name].fields, FLOATS[name].digits, FLOATS[name].kind):
        with pytest.raises(ValueError, match=f"patterns of {name} lie in"):
            method(pattern)


@pytest.mark.parametrize("name", ["tf32", "fp32", "fp64"])
def test_lists_of_values_end_at_16_bits(name):
    with pytest.raises(ValueError, match="lists end at 16 bits"):
        FLOATS[name].values()


@pytest.mark.parametrize("name", ["fp64", "fp32", "bf16"])
def test_stochastic_rounding_leaves_what_the_format_has(name):
    x = torch.full((1000,), 1.5, dtype=torch.float64)
    assert torch.equal(FLOATS[name].round(x, "stochastic", generator=torch.Generator().manual_seed(0)), x)


def test_stochastic_rounding_is_right_where_float64_has_hardly_more_digits():
    fmt = FloatFormat("any", 8, 49)
    x = torch.full((200_000,), 1 + 2.0**-52, dtype=torch.float64)  # an eighth of a step above 1
    up = fmt.round(x, "stochastic", generator=torch.Generator().manual_seed(0)) > 1
    assert up.double().mean().item() == pytest.approx(1 / 8, abs=0.004)
