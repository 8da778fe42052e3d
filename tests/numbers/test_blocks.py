"""The oracles are published tables, torch's 8-bit casts, the bits of the largest numbers, and brute force."""

import math
from itertools import pairwise
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.numbers import BLOCKS, CODEBOOKS, FLOATS, PackedScales, normal_float
from nanoq.numbers.blocks import nearest_code

FLOATING = ["e2m1", "e3m2", "e2m3", "e4m3fn", "e5m2"]
FP8 = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def random_weight(seed=0, rows=8, columns=256, spread=0.0):
    """Draw a Gaussian matrix whose rows differ in size by e**spread or so."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * (spread * torch.randn(rows, 1, generator=generator)).exp()


def largest_of(weight, block):
    return torch.stack([part.abs().amax(1) for part in weight.split(block, dim=1)], dim=1)


def floor_log2(x):
    """Read the exponent field of float64, where the subnormals of float32 are normal."""
    return (x.double().view(torch.int64) >> 52) - 1023


def each(scales, weight, block):
    return scales.repeat_interleave(block, dim=1)[:, : weight.shape[1]]


# ---- codebooks ----


def test_nf4_is_the_published_table():
    table = [-1, -0.69619, -0.52507, -0.39492, -0.28444, -0.18477, -0.09105, 0,
             0.07958, 0.16093, 0.24611, 0.33792, 0.44071, 0.56262, 0.72296, 1]
    assert CODEBOOKS["nf4"].tolist() == pytest.approx(table, abs=6e-6)
    assert torch.equal(CODEBOOKS["nf4"], normal_float(4))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_normal_floats_are_quantiles_of_evenly_spaced_probabilities(bits):
    values, half = normal_float(bits).tolist(), 2 ** (bits - 1)
    assert len(values) == 2 * half
    assert (values[0], values[half - 1], values[-1]) == (-1, 0, 1)
    last = (1 - 1 / (4 * half) + 1 - 1 / (4 * half - 2)) / 2
    normal = NormalDist()
    probabilities = [normal.cdf(value * normal.inv_cdf(last)) for value in values]
    steps = [high - low for low, high in pairwise(probabilities)]
    assert steps == pytest.approx([(last - 0.5) / (half - 1)] * (half - 1) + [(last - 0.5) / half] * half, rel=1e-4)


@pytest.mark.parametrize(("name", "levels", "largest"), [
    ("e2m1", 15, 6), ("e3m2", 63, 28), ("e2m3", 63, 7.5), ("e4m3fn", 253, 448), ("e5m2", 247, 57344), ("nf4", 16, 1),
])
def test_codebooks_ascend_to_their_largest_value(name, levels, largest):
    codebook = CODEBOOKS[name]
    assert (len(codebook), codebook[-1].item(), codebook[0].item()) == (levels, largest, -largest)
    assert (codebook.diff() > 0).all()


@pytest.mark.parametrize("name", CODEBOOKS)
@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 2))
def test_the_nearest_code_is_that_of_brute_force(name, seed, factor):
    codebook = CODEBOOKS[name]
    units = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * factor * codebook[-1]
    distances = (units.double()[:, None] - codebook.double()).abs()
    codes = nearest_code(units, codebook)
    assert torch.equal(distances.gather(1, codes[:, None])[:, 0], distances.amin(1))


@pytest.mark.parametrize("name", FP8)
def test_halves_go_where_torch_casts_them(name):
    codebook = CODEBOOKS[name]
    ties = (codebook[1:] + codebook[:-1]) / 2
    assert torch.equal(codebook[nearest_code(ties, codebook)], ties.to(FP8[name]).float())


@pytest.mark.parametrize("name", FLOATING)
def test_halves_and_all_else_go_where_the_format_rounds_them(name):
    codebook = CODEBOOKS[name]
    ties = (codebook[1:] + codebook[:-1]) / 2
    x = torch.cat((ties, ties * 1.001, ties * 0.999, torch.linspace(-2, 2, 999) * codebook[-1]))
    assert torch.equal(codebook[nearest_code(x, codebook)], FLOATS[name].round(x, saturate=True))


def test_the_halves_of_e2m1_worked_out_by_hand():
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])  # to fraction bit 0
    even = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0])
    codebook = CODEBOOKS["e2m1"]
    assert torch.equal(codebook[nearest_code(ties, codebook)], even)
    assert torch.equal(codebook[nearest_code(-ties, codebook)], -even)


# ---- what they cost ----


@pytest.mark.parametrize(("name", "bits"), [
    ("mxfp4", 4.25), ("mxfp8", 8.25), ("nvfp4", 4.5), ("nf4", 4.5), ("nf4-dq", 4 + 8 / 64 + 32 / (64 * 256)),
])
def test_bits_per_weight_are_exact(name, bits):
    assert BLOCKS[name].bits_per_weight == bits


@pytest.mark.parametrize("name", BLOCKS)
def test_the_numbers_stored_take_the_bits_that_are_counted(name):
    fmt, weight = BLOCKS[name], random_weight(rows=64, columns=1024)
    scales, packed = fmt.scales(weight)
    assert scales.dtype == torch.float32
    bits = 32 * scales.numel()
    if packed is not None:
        assert packed.codes.dtype == torch.uint8
        shared = 0 if packed.coarse is None or len(packed.coarse) == 1 else 32 * len(packed.coarse)
        bits = 8 * packed.codes.numel() + shared
    assert len(fmt.codebook) <= 2**fmt.bits
    assert fmt.bits + bits / weight.numel() == fmt.bits_per_weight


# ---- scales ----


@pytest.mark.parametrize(("name", "top_exponent"), [("mxfp4", 2), ("mxfp8", 8)])
@given(seed=st.integers(0, 1000), power=st.integers(-140, 120))
def test_mx_scales_are_the_power_of_two_of_the_specification(name, top_exponent, seed, power):
    weight = random_weight(seed) * 2.0**power
    largest = largest_of(weight, 32)
    exponents = (floor_log2(largest) - top_exponent).clamp(-127, 127).where(largest > 0, -top_exponent)
    assert torch.equal(BLOCKS[name].scales(weight)[0].double(), 2.0 ** exponents.double())


@pytest.mark.parametrize(("largest", "exponent"), [
    (1.0, -2), (0.9999999, -3), (6.0, 0), (7.9999995, 0), (8.0, 1), (2.0**-125, -127), (2.0**-149, -127),
    (3.4e38, 125), (0.0, -2),
])
def test_mxfp4_scales_at_the_edges(largest, exponent):
    weight = torch.zeros(1, 32)
    weight[0, 7] = -largest
    _, scales = BLOCKS["mxfp4"].scales(weight)
    assert (scales.format, scales.coarse, scales.offset) == ("e8m0", None, None)
    assert scales.codes.tolist() == [[exponent + 127]]
    assert scales.decode().tolist() == [[2.0**exponent]]


@given(seed=st.integers(0, 1000), name=st.sampled_from(["mxfp4", "mxfp8"]))
def test_mx_elements_are_the_format_rounded_in_units_of_the_scale(seed, name):
    weight = random_weight(seed, spread=3.0)
    scale = each(2.0 ** (floor_log2(largest_of(weight, 32)) - {"mxfp4": 2, "mxfp8": 8}[name]).float(), weight, 32)
    if name == "mxfp8":
        units = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float()
    else:
        units = FLOATS["e2m1"].round(weight / scale, saturate=True)
    assert torch.equal(BLOCKS[name].round(weight), units * scale)


@pytest.mark.parametrize("scale", [2.0**-20, 1.0, 2.0**30])
def test_a_block_of_mxfp4_worked_out_by_hand(scale):
    weight = torch.zeros(1, 32)
    weight[0, :9] = torch.tensor([7.5, -6.01, 5.0, -3.5, 2.5, 1.75, 0.25, -0.26, 5.01])
    wanted = torch.zeros(1, 32)
    wanted[0, :9] = torch.tensor([6.0, -6.0, 4.0, -4.0, 2.0, 2.0, 0.0, -0.5, 6.0])  # 7.5 saturates, halves to even
    assert torch.equal(BLOCKS["mxfp4"].round(weight * scale), wanted * scale)


@pytest.mark.parametrize("factor", [1e-20, 1.0, 1e20])
def test_nvfp4_scales_are_torchs_e4m3_of_the_published_rule(factor):
    weight = random_weight(spread=2.0) * factor
    largest = largest_of(weight, 16)
    coarse = weight.abs().max() / (448 * 6)
    codes = (largest / (6 * coarse)).clamp(max=448).to(torch.float8_e4m3fn).view(torch.uint8).clamp(min=1)
    _, scales = BLOCKS["nvfp4"].scales(weight)
    assert torch.equal(scales.codes, codes)
    assert torch.equal(scales.coarse, coarse.view(1))
    assert torch.equal(scales.decode(), codes.view(torch.float8_e4m3fn).float() * coarse)


@given(seed=st.integers(0, 1000))
def test_the_largest_block_of_nvfp4_has_the_largest_scale(seed):
    weight = random_weight(seed, spread=2.0)
    place = largest_of(weight, 16).argmax()
    assert BLOCKS["nvfp4"].scales(weight)[1].codes.flatten()[place] == 0b0_1111_110  # 448
    assert BLOCKS["nvfp4"].round(weight).abs().max() == pytest.approx(weight.abs().max().item(), rel=1e-6)


def test_nf4_takes_the_largest_of_each_block_as_it_is():
    weight = random_weight(spread=2.0)
    scales, _ = BLOCKS["nf4"].scales(weight)
    assert torch.equal(scales, largest_of(weight, 64))
    units = weight.double() / each(scales, weight, 64).double()
    nearest = (units[..., None] - CODEBOOKS["nf4"].double()).abs().argmin(-1)
    assert torch.equal(BLOCKS["nf4"].round(weight), CODEBOOKS["nf4"][nearest] * each(scales, weight, 64))


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_scales_quantised_twice_are_off_by_half_an_ulp_of_e4m3(spread):
    weight = random_weight(rows=40, columns=1000, spread=spread)
    (_, scales), true = BLOCKS["nf4-dq"].scales(weight), largest_of(weight, 64)
    assert scales.offset.item() == pytest.approx(true.mean().item(), rel=1e-6)
    assert len(scales.coarse) == 3  # for 640 scales
    rest = (true - true.mean()).flatten()
    coarse = [part.abs().max().item() / 448 for part in rest.split(256)]
    assert scales.coarse.tolist() == pytest.approx(coarse, rel=1e-5)
    bound = rest.abs() / 16 + scales.coarse.repeat_interleave(256)[: len(rest)] * 2.0**-10
    assert ((scales.decode() - true).flatten().abs() <= bound + 1e-6 * true.max()).all()


def test_scales_that_are_quantised_twice_and_lost_are_pointed_out():
    weight = random_weight(rows=8, columns=256)
    weight[::2] /= 1000
    with pytest.warns(UserWarning, match="16 of 32 scales are too far below the mean"):
        BLOCKS["nf4-dq"].scales(weight)


def test_blocks_of_zeros_do_not_move_the_scales_of_the_others():
    weight = 2e-4 * random_weight(rows=64, columns=256)
    weight[:, :64] = 0
    rounded = BLOCKS["nf4-dq"].round(weight)
    assert torch.equal(rounded[:, 64:], BLOCKS["nf4-dq"].round(weight[:, 64:]))
    assert (rounded[:, :64] == 0).all()


@pytest.mark.filterwarnings("ignore:.*too far below the mean")
@pytest.mark.parametrize("name", ["mxfp4", "mxfp8", "nvfp4", "nf4-dq"])
@pytest.mark.parametrize("columns", [64, 300])
def test_packed_scales_are_positive_however_much_the_rows_differ(name, columns):
    weight = random_weight(columns=columns)
    weight[::2] *= 1e-6
    weight[2] = 0
    scales = BLOCKS[name].scales(weight)[0]
    assert scales.dtype == torch.float32
    assert scales.shape == (8, math.ceil(columns / BLOCKS[name].block))
    assert (scales > 0).all()
    assert BLOCKS[name].round(weight).isfinite().all()


def test_packed_scales_decoded_by_hand():
    codes = torch.tensor([[0x38, 0x40], [0x01, 0xC0]], dtype=torch.uint8)  # 1, 2, 2**-9, -2 in e4m3fn
    coarse, offset = torch.tensor([0.5]), torch.tensor([3.0])
    assert PackedScales("e4m3fn", codes[:1]).decode().tolist() == [[1, 2]]
    assert PackedScales("e4m3fn", codes, coarse, offset).decode().tolist() == [[3.5, 4], [3 + 2.0**-10, 2]]
    many = PackedScales("e4m3fn", torch.full((3, 100), 0x38, dtype=torch.uint8), torch.tensor([1.0, 7.0])).decode()
    assert many.flatten().tolist() == [1] * 256 + [7] * 44
    assert PackedScales("e8m0", torch.tensor([[0, 127, 254]], dtype=torch.uint8)).decode().tolist() == [
        [2.0**-127, 1, 2.0**127]]


# ---- rounding a matrix ----


@pytest.mark.parametrize("name", BLOCKS)
def test_a_short_last_block_is_one_that_is_padded_with_zeros(name):
    weight = random_weight(columns=150)
    padded = torch.nn.functional.pad(weight, (0, -150 % BLOCKS[name].block))
    rounded = BLOCKS[name].round(weight)
    assert rounded.shape == (8, 150)
    assert torch.equal(rounded, BLOCKS[name].round(padded)[:, :150])


@pytest.mark.parametrize("name", ["mxfp4", "mxfp8", "nf4"])
def test_blocks_know_nothing_of_each_other(name):
    weight = random_weight()
    changed = weight.clone()
    changed[3, 64:128] *= 1000
    same = torch.ones_like(weight, dtype=torch.bool)
    same[3, 64:128] = False
    assert torch.equal(BLOCKS[name].round(changed)[same], BLOCKS[name].round(weight)[same])


@pytest.mark.parametrize("name", BLOCKS)
def test_zeros_stay_zeros(name):
    weight = random_weight()
    weight[2, 64:128] = 0
    assert (BLOCKS[name].round(weight)[2, 64:128] == 0).all()
    assert (BLOCKS[name].round(torch.zeros(3, 70)) == 0).all()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("largest", [2.0**-149, 1e-40, 1e-37, 1e37, 3e38])
def test_the_ends_of_float32_stay_finite(name, largest):
    weight = random_weight()
    weight = weight / weight.abs().max() * largest
    assert BLOCKS[name].round(weight).isfinite().all()


@pytest.mark.parametrize("name", ["mxfp4", "mxfp8", "nf4"])
@given(seed=st.integers(0, 1000), power=st.integers(-140, 100))
def test_rounding_twice_is_rounding_once(name, seed, power):
    once = BLOCKS[name].round(random_weight(seed, rows=2, columns=100, spread=3.0) * 2.0**power)
    assert torch.equal(BLOCKS[name].round(once), once)


@given(seed=st.integers(0, 1000))
def test_rounding_twice_to_nvfp4_is_rounding_once_but_for_the_last_digit_of_its_float32_scale(seed):
    once = BLOCKS["nvfp4"].round(random_weight(seed))
    assert torch.allclose(BLOCKS["nvfp4"].round(once), once, rtol=3e-7, atol=0)


def test_rounding_twice_to_nvfp4_goes_further_where_the_scale_of_a_block_is_subnormal():
    weight = torch.zeros(1, 32)
    weight[0, 0], weight[0, 16] = 6 * 448, 9 * 2.0**-9  # the second scale is 1.5 * 2**-9, a tie, and becomes 2**-8
    once = BLOCKS["nvfp4"].round(weight)
    assert once[0, 16] == 4 * 2.0**-8  # 4.5 units become 4, whose scale would be 1.33 * 2**-9, so 2**-9
    assert BLOCKS["nvfp4"].round(once)[0, 16] == 6 * 2.0**-9


def test_rounding_twice_to_nf4_with_scales_quantised_twice_goes_further_as_the_mean_of_the_scales_has_moved():
    weight = random_weight()
    once = BLOCKS["nf4-dq"].round(weight)
    first, second = (BLOCKS["nf4-dq"].scales(x)[1].offset.item() for x in (weight, once))
    assert first != second
    assert not torch.equal(BLOCKS["nf4-dq"].round(once), once)
    assert torch.allclose(BLOCKS["nf4-dq"].round(once), once, atol=0.02 * once.abs().max().item())


@pytest.mark.parametrize("seed", range(3))
def test_errors_of_gaussian_weights_are_in_this_order(seed):
    weight = random_weight(seed, rows=128, columns=512)
    errors = [(BLOCKS[name].round(weight) - weight).square().mean() for name in ("mxfp8", "nf4", "nvfp4", "mxfp4")]
    assert errors == sorted(errors)
    assert errors[0] < 0.2 * errors[1]


def test_scales_quantised_twice_cost_next_to_nothing():
    weight = random_weight(rows=128, columns=512)
    once, twice = ((BLOCKS[name].round(weight) - weight).square().mean() for name in ("nf4", "nf4-dq"))
    assert twice == pytest.approx(once.item(), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_taken_and_float32_is_given(dtype):
    weight = random_weight().to(dtype)
    for fmt in BLOCKS.values():
        rounded = fmt.round(weight)
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded, fmt.round(weight.float()))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("weight", [
    torch.ones(5), torch.ones(2, 3, 4), torch.full((2, 2), torch.nan), torch.full((2, 2), torch.inf),
], ids=["vector", "three dimensions", "nan", "infinity"])
def test_what_is_no_matrix_of_numbers_is_an_error(name, weight):
    with pytest.raises(ValueError, match="matrix .* of finite numbers"):
        BLOCKS[name].round(weight)
