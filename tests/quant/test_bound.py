import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.lm import GPT, GPTConfig
from nanoq.quant import (
    LayerStats,
    QuantLinear,
    Recipe,
    affine_grid,
    bits_at_bound,
    gptq,
    nearest,
    quantize_model,
    rate_bound,
)
from nanoq.quant.bound import bits_above_bound, weight_bits
from nanoq.quant.gptq_method import factored

CONFIG = GPTConfig(vocab_size=11, context=8, layers=1, heads=2, width=16)


def problem(rows=64, columns=32, seed=0, white=False):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    mix = torch.eye(columns) if white else torch.randn(columns, columns, generator=generator)
    mix = mix * torch.logspace(0, -2 * (not white), columns)
    stats = LayerStats.of(torch.randn(4096, columns, generator=generator).double() @ mix.double())
    return weight, stats


def test_white_inputs_give_the_rate_distortion_function_of_a_gaussian():
    weight, stats = problem(rows=2000, white=True)
    stats.gram = torch.eye(32, dtype=torch.float64)
    for bits in (0, 0.5, 1, 2, 3, 4):
        assert rate_bound(weight, stats, bits) == pytest.approx(2 ** (-2 * bits), rel=1e-6)
        assert bits_at_bound(weight, stats, 2 ** (-2 * bits)) == pytest.approx(bits, abs=1e-6)


@given(seed=st.integers(0, 1000), bits=st.floats(0.01, 8))
def test_both_directions_agree_and_more_bits_allow_less_error(seed, bits):
    weight, stats = problem(seed=seed)
    error = rate_bound(weight, stats, bits)
    assert bits_at_bound(weight, stats, error) == pytest.approx(bits, abs=1e-6)
    assert rate_bound(weight, stats, bits + 0.1) < error


def test_at_high_rates_it_can_be_read_off_gptqs_own_factor():
    weight, stats = problem(rows=500)
    _, _, diagonal, _ = factored(stats, 0.0)
    bits, n = 9, len(diagonal)
    energy = float(stats.error_terms(weight.double()).sum()) / len(weight)
    high = n * float(weight.double().square().mean()) * math.exp(2 * float(diagonal.log().mean())) * 2 ** (-2 * bits)
    assert rate_bound(weight, stats, bits) == pytest.approx(high / energy, rel=1e-6)


def test_reverse_water_filling_agrees_with_a_plain_one():
    weight, stats = problem()
    variances = torch.linalg.eigvalsh(stats.gram) * weight.double().square().mean()
    energy = float(stats.error_terms(weight.double()).sum()) / len(weight)
    for level in (1e-4, 1e-2, 0.3):
        rate = sum(max(0.0, 0.5 * math.log2(float(v) / level)) for v in variances) / len(variances)
        assert rate_bound(weight, stats, rate) == pytest.approx(sum(min(level, float(v)) for v in variances) / energy)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_gaussian_weights_stays_above_it(seed):
    weight, stats = problem(rows=400, seed=seed)
    grid = affine_grid(weight, 3)
    for codes in (nearest(weight, grid), gptq(weight, grid, stats)):
        layer = QuantLinear.from_codes(codes, grid)
        error = stats.output_error(weight, grid.decode(codes))
        assert bits_above_bound(layer, weight, stats, error) > 0.25  # no scalar quantiser with few values is nearer


def test_the_bits_of_a_layer_are_those_of_its_file():
    weight, _ = problem(64, 32)
    grid = affine_grid(weight, 4, granularity="group", group_size=16)
    layer = QuantLinear.from_codes(nearest(weight, grid), grid, bias=torch.zeros(64))
    assert weight_bits(layer) == 4 + (16 + 4) / 16
    assert weight_bits(torch.nn.Linear(8, 8)) == 16


def test_what_says_nothing_is_left_out_and_nonsense_is_an_error():
    weight, stats = problem()
    assert bits_at_bound(weight, stats, 0) == math.inf
    assert bits_above_bound(torch.nn.Linear(32, 64), weight, stats, 0.0) is None
    with pytest.raises(ValueError, match="at least 0"):
        rate_bound(weight, stats, -1)
    with pytest.raises(ValueError, match="do not fit"):
        rate_bound(weight[:, :5], stats, 1)


def test_reports_have_it():
    model = GPT(CONFIG, seed=0)
    rows = torch.arange(11).repeat(8)[:80].view(10, 8)
    reports = quantize_model(model, Recipe("gptq", bits=4), rows, bound=True)
    assert all(report.bits > 4 and report.bits_above_bound > 0 for report in reports)
    reports = quantize_model(GPT(CONFIG, seed=0), Recipe(bits=4), bound=True)  # without text there is none
    reports += quantize_model(GPT(CONFIG, seed=0), Recipe(bits=4), rows)
    assert all(report.bits > 4 and report.bits_above_bound is None for report in reports)


def test_a_layer_whose_outputs_are_all_zero_has_no_bound():
    weight, stats = problem()
    for call in (lambda: rate_bound(torch.zeros_like(weight), stats, 2), lambda: bits_at_bound(0 * weight, stats, 0.1)):
        with pytest.raises(ValueError, match="outputs are all 0"):
            call()
