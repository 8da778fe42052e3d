"""What notebook 08 uses: loops that are compiled, fair races, and losses on the same windows."""

import numpy as np
import pytest
import torch

from nanoq.lm import GPT, GPTConfig
from nanoq.quant import nearest
from nanoq.teach import speed
from nanoq.teach.exercises.nb08 import _kernel


@pytest.fixture
def stored():
    layer = speed.random_layers(6, 16)[4]
    x = torch.randn(16, generator=torch.Generator().manual_seed(0))
    return speed.arrays(layer.codes, layer.grid.scale, layer.grid.zero_point, x), layer.dequantize() @ x


def test_both_compiled_loops_multiply_as_the_float_weight_does(stored):
    arguments, expected = stored
    for loop in speed.compiled(_kernel, "08.kernel", arguments):
        np.testing.assert_allclose(loop(*arguments), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_loop_that_numba_cannot_compile_is_replaced_and_that_is_said(stored, capsys):
    arguments, expected = stored

    def in_torch(packed, scale, zero, even, odd):
        return torch.from_numpy(_kernel(packed, scale, zero, even, odd))

    fast, _ = speed.compiled(in_torch, "08.kernel", arguments)
    assert "cannot compile your loop" in capsys.readouterr().out
    np.testing.assert_allclose(fast(*arguments), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_ratio_has_a_verdict_only_where_its_quartiles_agree():
    base = torch.full((4,), 2.0)
    assert str(speed.Ratio.of(base / 2, base)).startswith("2.00 times as fast (quartiles 2.00 and 2.00: faster)")
    assert "slower" in str(speed.Ratio.of(2 * base, base))
    assert "no clear winner" in str(speed.Ratio.of(torch.tensor([1.0, 1.0, 4.0, 4.0]), base))


def test_something_else_is_read_before_each_call_that_is_timed():
    order = []

    class Elsewhere:
        def sum(self):
            order.append("elsewhere")

    speed.measure_cold({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0, Elsewhere(), rounds=1)
    assert order == ["elsewhere", "a", "elsewhere", "b"] * 2  # once to warm up


def test_the_layers_of_the_race_are_the_same_weight_in_8_and_in_4_bits():
    layers = speed.random_layers(5, 32)
    assert {bits: layer.layout["bits"] for bits, layer in layers.items()} == {8: 8, 4: 4}
    coarse = layers[4].dequantize()
    assert (layers[8].dequantize() - coarse).abs().max() < 0.6 * layers[4].grid.scale.max()
    assert torch.equal(nearest(coarse, layers[4].grid), layers[4].unpacked().long())


def test_what_rounding_adds_is_paired_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = GPT(GPTConfig(11, layers=1, heads=2, width=8, context=32))
    tokens = torch.randint(11, (200,), generator=torch.Generator().manual_seed(1))
    losses = speed.Losses.of(model, tokens, 2)
    assert losses.added(model).mean == 0
    rounded = losses.with_activations(model, 2, weight_bits=8)
    assert rounded.low <= rounded.mean <= rounded.high and rounded.mean != 0
    assert losses.added(model).mean == 0


def test_a_cache_has_a_row_for_each_token():
    model = GPT(GPTConfig(11, layers=2, heads=2, width=8, context=32))
    assert speed.cache_of(model, torch.arange(5)).keys[1].shape == (1, 2, 5, 4)
