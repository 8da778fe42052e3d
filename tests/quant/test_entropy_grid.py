import json
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.quant import (
    CodedLinear,
    LayerStats,
    QuantConv2d,
    QuantLinear,
    Recipe,
    Round,
    affine_grid,
    entropy_coded,
    entropy_coded_grid,
    gptq,
    nearest,
    quantize_model,
)
from nanoq.quant.bound import weight_bits
from nanoq.quant.entropy_coding import coded_bits
from nanoq.quant.gptq_method import factored
from nanoq.store import WEIGHTS, Checkpoint, layer_from_layout, load, read_card, save, write_folder


def problem(rows=256, columns=192, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = 0.02 * torch.randn(rows, columns, generator=generator)
    mix = torch.randn(columns, columns, generator=generator) * torch.logspace(0, -2, columns)
    return weight, LayerStats.of(torch.randn(4 * columns, columns, generator=generator) @ mix)


def error_of(grid, weight, stats):
    return stats.output_error(weight, grid.decode(gptq(weight, grid, stats)))


@pytest.mark.parametrize("spacing", ["watersic", "equal"])
@pytest.mark.parametrize("rate", [0.5, 1.4, 2, 3.2, 5])
def test_the_codes_take_the_wished_bits(rate, spacing):
    weight, stats = problem()
    grid = entropy_coded_grid(weight, 8, stats, rate=rate, spacing=spacing)
    codes = gptq(weight, grid, stats)
    layer = QuantLinear.from_codes(codes, grid)
    assert 8 * len(entropy_coded(layer).stream) / weight.numel() == pytest.approx(rate, abs=0.01)


def test_steps_of_watersic_add_the_same_error_in_every_column():
    weight, stats = problem()
    grid = entropy_coded_grid(weight, 8, stats, rate=3.0)
    _, _, diagonal, _ = factored(stats, 0.01)
    share = grid.scale[0] * diagonal
    assert share.max() / share.min() < 1.14  # one part of eight is what the steps are stored to
    assert entropy_coded_grid(weight, 8, stats, rate=3.0, spacing="equal").scale.shape == (1, 1)


def test_at_the_same_bits_it_has_about_half_the_error_of_an_even_grid_or_less():
    for seed in range(3):
        weight, stats = problem(seed=seed)
        even = affine_grid(weight, 3)
        before = error_of(even, weight, stats)
        equal, watersic = (error_of(entropy_coded_grid(weight, 8, stats, rate=3.0, spacing=spacing), weight, stats)
                           for spacing in ("equal", "watersic"))
        assert watersic < equal < 0.55 * before


def test_without_statistics_the_steps_are_equal_and_nearest_codes_have_the_rate():
    weight, _ = problem()
    grid = entropy_coded_grid(weight, 8, None, rate=2.5)
    assert grid.scale.shape == (1, 1)
    assert coded_bits(nearest(weight, grid) - 127) / weight.numel() == pytest.approx(2.5, abs=0.01)


def test_weights_of_zero_and_inputs_of_zero_have_a_grid():
    weight, stats = problem()
    grid = entropy_coded_grid(torch.zeros_like(weight), 8, stats, rate=2.0)
    assert not grid.decode(gptq(torch.zeros_like(weight), grid, stats)).any()
    silent = LayerStats.of(torch.zeros(1000, 192))
    assert entropy_coded_grid(weight, 8, silent, rate=2.0).scale.shape == (1, 1)


@pytest.mark.parametrize(("options", "message"), [
    ({"rate": 0}, "rate must lie in 0.1..6"), ({"rate": float("nan")}, "rate must lie"),
    ({"rate": 2.0, "spacing": "wide"}, "one of watersic, equal"),
])
def test_an_option_out_of_range_is_an_error(options, message):
    weight, stats = problem()
    with pytest.raises(ValueError, match=message):
        entropy_coded_grid(weight, 8, stats, **options)
    with pytest.raises(ValueError, match="what they take is the rate"):
        entropy_coded_grid(weight, 4, stats, rate=2.0)


def test_a_recipe_names_the_rate_and_keeps_to_one_walk():
    recipe = Recipe("gptq", grid="entropy-coded", rate=2.25)
    assert recipe.label == "gptq 2.25 bit entropy-coded"
    assert recipe.default.bits == 8
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    for more in ({"act_order": True}, {"method_options": {"damping": 0.5}}):
        with pytest.raises(ValueError, match="fitted along one walk"):
            Round("gptq", grid="entropy-coded", rate=2.25, **more)
    with pytest.raises(ValueError, match="needs the option 'rate'"):
        Round("gptq", grid="entropy-coded")


LAYERS = {
    "4 bits": lambda w: affine_grid(w, 4), "3 bits, groups": lambda w: affine_grid(
        w, 3, granularity="group", group_size=64),
    "symmetric": lambda w: affine_grid(w, 4, symmetric=True), "8 bits": lambda w: affine_grid(w, 8),
    "entropy-coded": lambda w: entropy_coded_grid(w, 8, problem()[1], rate=2.0),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_layer_recoded_is_smaller_and_the_same_bit_for_bit(make):
    weight, _ = problem()
    grid = make(weight)
    layer = QuantLinear.from_codes(nearest(weight, grid), grid, bias=torch.randn(256))
    coded = entropy_coded(layer)
    assert isinstance(coded, CodedLinear) and weight_bits(coded) < weight_bits(layer) - 0.05
    assert entropy_coded(coded) is coded
    assert torch.equal(coded.codes, layer.codes)
    assert torch.equal(coded.dequantize(), layer.dequantize())
    restored = layer_from_layout(json.loads(json.dumps(coded.layout)), dict(coded.state_dict()))
    x = torch.randn(3, 192)
    assert torch.equal(restored(x), layer(x))
    assert torch.equal(deepcopy(coded).half().dequantize(), layer.dequantize())


def test_a_convolution_is_recoded_too():
    conv = nn.Conv2d(32, 64, 3, padding=1)
    weight = torch.randn(64, 288, generator=torch.Generator().manual_seed(0))
    grid = affine_grid(weight, 4)
    layer = QuantConv2d.from_codes(nearest(weight, grid), grid, conv.bias, kernel_size=[3, 3], stride=[1, 1],
                                   padding=[1, 1], dilation=[1, 1])
    coded, x = entropy_coded(layer), torch.randn(2, 32, 5, 5)
    assert "stream" in coded.state_dict() and torch.equal(coded(x), layer(x))


def test_what_would_not_shrink_stays_packed():
    codes = torch.randint(16, (64, 64), generator=torch.Generator().manual_seed(0))
    grid = affine_grid(torch.randn(64, 64), 4)
    layer = QuantLinear.from_codes(codes, grid)
    assert entropy_coded(layer) is layer


def test_a_damaged_stream_is_named_when_a_folder_is_loaded(tmp_path):
    model = GPT(GPTConfig(vocab_size=12, context=8, layers=1, heads=2, width=32), seed=0)
    tokens = torch.arange(11).repeat(80)[:800].view(100, 8)
    reports = quantize_model(model, Recipe("gptq", grid="entropy-coded", rate=2.0), tokens)
    assert all(report.bits < 4 for report in reports)  # small layers: the header and the steps are half of it
    path = save(tmp_path / "model", Checkpoint(model, CharTokenizer("abcdefghijk"), {}))
    assert torch.equal(load(path).model(tokens[:4]), model(tokens[:4]))
    tensors = load_file(path / WEIGHTS)
    name = next(name for name in tensors if name.endswith("stream"))
    tensors[name][20] ^= 1
    card = {key: value for key, value in read_card(path).items() if not key.endswith("sha256")}
    write_folder(tmp_path / "damaged", tensors, card)
    with pytest.raises(ValueError, match=r"blocks\.0\..*the stream of its codes is damaged"):
        load(tmp_path / "damaged")


@pytest.mark.parametrize("size", [1e-4, 1e3])
def test_an_input_of_another_size_neither_clips_nor_spoils_the_steps_of_the_others(size):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        weight = 0.02 * torch.randn(256, 192, generator=generator)
        inputs = torch.randn(1000, 192, generator=generator)
        inputs[:, 5] *= size
        stats = LayerStats.of(inputs)
        equal, watersic = (error_of(entropy_coded_grid(weight, 8, stats, rate=3.0, spacing=spacing), weight, stats)
                           for spacing in ("equal", "watersic"))
        assert watersic < 1.1 * equal < 1.1 * error_of(affine_grid(weight, 3), weight, stats)


@pytest.mark.parametrize("shape", [(1, 16), (4, 4), (1, 1)])
@pytest.mark.parametrize("spacing", ["watersic", "equal"])
def test_a_weight_for_which_any_codes_take_more_than_the_rate_is_named(shape, spacing):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stats = LayerStats.of(torch.randn(200, shape[1], generator=torch.Generator().manual_seed(1)))
    for known in (stats, None):
        with pytest.raises(ValueError, match=f"a weight of {shape[0]} x {shape[1]} is too small"):
            entropy_coded_grid(weight, 8, known, rate=2.0, spacing=spacing)


def test_one_long_row_has_a_grid():
    weight, stats = problem(rows=1, columns=2000)
    grid = entropy_coded_grid(weight, 8, stats, rate=3.0)
    assert coded_bits(gptq(weight, grid, stats) - 127) / weight.numel() == pytest.approx(3.0, abs=0.05)
