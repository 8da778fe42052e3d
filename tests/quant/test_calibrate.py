import math

import pytest
import torch
from torch import nn

from nanoq.lm import paired_difference
from nanoq.quant import (
    LayerStats,
    Recipe,
    Round,
    affine_grid,
    gptq,
    linear_layers,
    nearest,
    observe,
    quantize_model,
    sample_windows,
    weight_matrix,
)
from nanoq.quant.layers import matrix_inputs


def inputs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_batches_of_any_size_give_the_mean_over_all_tokens():
    x = inputs(100, 8)
    stats = LayerStats(8)
    for part in (x[:10].view(2, 5, 8), x[10:11], x[11:]):
        stats.add(part)
    assert stats.tokens == 100
    assert torch.allclose(stats.gram, x.T @ x / 100, atol=1e-5)


def test_inputs_of_another_width_are_an_error():
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\) are wanted, not \(5, 4\)"):
        LayerStats(3).add(torch.randn(5, 4))


def test_the_output_error_is_that_of_the_layer():
    x, weight = inputs(500, 8), inputs(5, 8, seed=1)
    other = weight + 0.1 * inputs(5, 8, seed=2)
    expected = (x @ (other - weight).T).square().mean() / (x @ weight.T).square().mean()
    assert LayerStats.of(x).output_error(weight, other) == pytest.approx(float(expected), rel=1e-4)


def test_layers_that_read_the_same_tensor_share_their_statistics():
    layers = {name: nn.Linear(4, 4) for name in ("queries", "keys", "values", "out")}
    with observe(layers) as stats, torch.no_grad():
        for seed in range(3):
            x = inputs(10, 4, seed=seed)
            layers["out"](layers["queries"](x) + layers["keys"](x) + layers["values"](x))
    assert stats["queries"] is stats["keys"] is stats["values"]
    assert stats["queries"].tokens == stats["out"].tokens == 30
    assert list(stats) == ["queries", "keys", "values", "out"]
    both = torch.cat([inputs(10, 4, seed=seed) for seed in range(3)])
    assert torch.allclose(stats["keys"].gram, LayerStats.of(both).gram, atol=1e-6)


def test_a_layer_that_is_left_out_of_a_batch_shares_no_statistics_and_keeps_its_own():
    layers = {"first": torch.nn.Linear(6, 3), "second": torch.nn.Linear(6, 4)}
    batches = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0))
    with observe(layers) as stats, torch.no_grad():
        for number, x in enumerate(batches):
            layers["first"](x)
            if number != 1:
                layers["second"](x)
    assert torch.equal(stats["first"].gram, of_batches(batches).gram)
    assert torch.equal(stats["second"].gram, of_batches(batches[[0, 2, 3]]).gram)
    assert [stats[name].tokens for name in layers] == [32, 24]


def of_batches(batches):
    stats = LayerStats(batches.shape[-1])
    for x in batches:
        stats.add(x)
    return stats


def test_a_wide_gram_matrix_that_is_worked_out_in_bands_is_the_same():
    x = torch.randn(50, 1100, generator=torch.Generator().manual_seed(0))
    gram = of_batches(x.view(5, 10, -1)).gram
    torch.testing.assert_close(gram, x.T @ x / 50, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gram, gram.T)


def test_an_input_that_is_changed_in_place_is_another_input():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    x = inputs(10, 4)
    before, after = x.clone(), 2 * x + 1
    with observe({"first": first, "second": second}) as stats, torch.no_grad():
        first(x)
        x.mul_(2).add_(1)
        second(input=x)
    assert torch.allclose(stats["first"].gram, LayerStats.of(before).gram)
    assert torch.allclose(stats["second"].gram, LayerStats.of(after).gram)
    assert stats["first"] is not stats["second"]


def test_layers_that_read_different_numbers_of_inputs_share_nothing():
    layers = {"once": nn.Linear(4, 6), "twice": nn.Linear(4, 6)}
    x = torch.ones(8, 4)  # whose mean product is the same, however often it is read
    with observe(layers) as stats, torch.no_grad():
        for name in ("once", "twice", "twice"):
            layers[name](x)
    assert torch.equal(stats["once"].gram, stats["twice"].gram)
    assert (stats["once"].tokens, stats["twice"].tokens) == (8, 16)


def test_half_precision_inputs_are_added_up_in_float32():
    assert LayerStats.of(inputs(10, 4).half()).gram.dtype == torch.float32


def test_observing_sees_what_each_layer_sees_and_then_stops():
    first, second = nn.Linear(4, 6), nn.Linear(6, 3)
    model = nn.Sequential(first, nn.ReLU(), second)
    x = inputs(2, 7, 4)
    with observe({"first": first, "second": second}) as stats, torch.no_grad():
        model(x)
    hidden = first(x).relu().reshape(-1, 6)
    assert torch.allclose(stats["first"].gram, LayerStats.of(x.reshape(-1, 4)).gram, atol=1e-6)
    assert torch.allclose(stats["second"].gram, hidden.T @ hidden / 14, atol=1e-5)
    model(x)
    assert stats["first"].tokens == 14


def test_the_hooks_go_when_the_block_fails():
    layer = nn.Linear(4, 6)
    with pytest.raises(RuntimeError), observe({"layer": layer}):
        layer(inputs(2, 5))
    assert not layer._forward_pre_hooks


def test_sampled_windows_are_pieces_of_the_text_and_depend_on_the_seed():
    tokens = torch.arange(1000)
    windows = sample_windows(tokens, 16, count=50)
    assert windows.shape == (50, 16)
    assert (windows.diff(dim=1) == 1).all()
    assert torch.equal(windows, sample_windows(tokens, 16, count=50))
    assert not torch.equal(windows, sample_windows(tokens, 16, count=50, seed=1))


def test_every_piece_of_a_text_can_be_sampled():
    assert sample_windows(torch.arange(6), 4, count=100)[:, 0].unique().tolist() == [0, 1, 2]
    assert sample_windows(torch.arange(4), 4, count=2).tolist() == 2 * [[0, 1, 2, 3]]


def test_a_text_shorter_than_a_window_is_an_error():
    with pytest.raises(ValueError, match="15 tokens are too few"):
        sample_windows(torch.arange(15), 16)


# ---- convolutions, seen as products with a matrix ----

CONVOLUTIONS = {
    "3x3": {"kernel_size": 3, "padding": 1}, "no padding": {"kernel_size": 3}, "1x1": {"kernel_size": 1, "stride": 2},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilation": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "not square": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0), "dilation": (2, 1)},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_is_its_weight_matrix_times_every_patch(options, bias):
    layer = nn.Conv2d(3, 5, bias=bias, **options)
    x = inputs(2, 3, 7, 9)
    patches, weight = matrix_inputs(layer, x), weight_matrix(layer)
    assert weight.shape == (5, patches.shape[-1]) and weight.dtype == torch.float32 and not weight.requires_grad
    y = patches @ weight.T + (layer.bias if bias else 0)  # (N, positions, out)
    expected = layer(x)
    torch.testing.assert_close(y.transpose(1, 2).reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_a_linear_layer_is_its_weight_times_its_input():
    layer, x = nn.Linear(4, 6), inputs(2, 7, 4)
    assert matrix_inputs(layer, x) is x
    assert torch.equal(weight_matrix(layer), layer.weight.detach())


def test_observing_a_convolution_sees_its_patches():
    layer = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    x = inputs(4, 3, 8, 8)
    with observe({"conv": layer}) as stats, torch.no_grad():
        layer(x[:1])
        layer(x[1:])
    assert stats["conv"].tokens == 4 * 16
    assert torch.allclose(stats["conv"].gram, LayerStats.of(matrix_inputs(layer, x).reshape(-1, 27)).gram, atol=1e-5)
    other = weight_matrix(layer) + 0.1
    changed = nn.functional.conv2d(x, other.view(5, 3, 3, 3), layer.bias, 2, 1) - layer(x)
    mean = nn.functional.conv2d(x, layer.weight, None, 2, 1)
    expected = changed.square().mean() / mean.square().mean()
    assert stats["conv"].output_error(weight_matrix(layer), other) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("options", [
    {"groups": 2}, {"groups": 4}, {"padding": "same"}, {"padding": "valid"}, {"padding": 1, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "circular"},
], ids=str)
def test_convolutions_that_are_no_matrix_product_are_refused_by_their_names(options):
    layer = nn.Conv2d(4, 4, 3, **options)
    with pytest.raises(ValueError, match="only convolutions without groups, with zero padding given in numbers"):
        weight_matrix(layer)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Sequential(layer)])
            self.embed = nn.Identity()

    for calibration in (None, inputs(2, 4, 6, 6)):
        with pytest.raises(ValueError, match=r"blocks\.0\.0: only convolutions without groups"):
            quantize_model(Model(), Recipe(bits=4), calibration)


def test_a_refused_convolution_can_stay_as_it_is():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            refused = nn.Conv2d(4, 4, 3, groups=2, padding="same")
            self.blocks = nn.ModuleList([nn.Sequential(refused, nn.Conv2d(4, 4, 1))])
            self.embed = nn.Identity()

    model = Model()
    quantize_model(model, Recipe(Round(bits=4), rules={"blocks.0.0": Round(bits=16)}), inputs(2, 4, 6, 6))
    assert list(linear_layers(model)) == ["blocks.0.0"]


def test_gptq_on_a_convolution_beats_nearest_in_the_error_of_its_output():
    layer, logs = nn.Conv2d(4, 8, 3, padding=1, bias=False).requires_grad_(False), {gptq: [], nearest: []}
    for seed in range(12):
        layer.weight.copy_(inputs(8, 4, 3, 3, seed=100 + seed))
        x = nn.functional.avg_pool2d(inputs(8, 4, 14, 14, seed=seed), 3, 1)  # neighbouring pixels are alike
        weight, grid = weight_matrix(layer), affine_grid(weight_matrix(layer), 3)
        stats = LayerStats.of(matrix_inputs(layer, x).reshape(-1, 36))
        for method, found in logs.items():
            rounded = grid.decode(method(weight, grid, stats)).view(8, 4, 3, 3)
            found.append(float((nn.functional.conv2d(x, rounded, padding=1) - layer(x)).square().sum().log()))
    assert paired_difference(torch.tensor(logs[gptq]), torch.tensor(logs[nearest]) + math.log(0.6)).high < 0


# ---- the weight that makes up for the quantised layers before it ----


def paired(tokens=300, width=6, noise=0.3, dtype=torch.float64):
    """Statistics of inputs that stand for others, the inputs themselves, and those others."""
    original = inputs(tokens, width).to(dtype)
    now = original + noise * inputs(tokens, width, seed=1).to(dtype) * torch.linspace(0, 2, width, dtype=dtype)
    stats = LayerStats(width, dtype)
    stats.add(now[:100], original[:100])
    stats.add(now[100:], original[100:])
    return stats, now, original


def test_the_target_is_the_least_squares_solution():
    stats, now, original = paired()
    weight = inputs(4, 6, seed=2).double()
    torch.testing.assert_close(stats.cross, original.T @ now / 300)
    expected = torch.linalg.lstsq(now, original @ weight.T).solution.T
    torch.testing.assert_close(stats.target(weight, damping=1e-9), expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(expected, weight, atol=0.01)


def test_damping_draws_the_target_to_the_weight_like_inputs_that_did_not_change():
    stats, now, original = paired()
    weight = inputs(4, 6, seed=2).double()
    extra = (300 * 0.1 * stats.gram.diagonal().mean()) ** 0.5 * torch.eye(6, dtype=torch.float64)
    rows, goal = torch.cat((now, extra)), torch.cat((original, extra)) @ weight.T
    torch.testing.assert_close(stats.target(weight, damping=0.1), torch.linalg.lstsq(rows, goal).solution.T)
    far = [float((stats.target(weight, damping=d) - weight).norm()) for d in (1e-6, 0.1, 1.0, 10.0)]
    assert far == sorted(far, reverse=True) and far[-1] < 0.2 * far[0]


def test_without_damping_the_target_is_plain_least_squares():
    stats, now, original = paired()
    weight = inputs(4, 6, seed=2).double()
    expected = torch.linalg.lstsq(now, original @ weight.T).solution.T
    torch.testing.assert_close(stats.target(weight, damping=0.0), expected)


def test_inputs_that_did_not_change_leave_the_weight_alone():
    weight, x = inputs(4, 6, seed=2), inputs(100, 6)
    stats = LayerStats(6)
    stats.add(x, x)
    torch.testing.assert_close(stats.cross, stats.gram)
    torch.testing.assert_close(stats.target(weight), weight)
    assert LayerStats.of(x).target(weight) is weight  # nothing is known of other inputs


def test_inputs_that_are_always_zero_leave_their_weights_alone():
    weight, x = inputs(4, 6, seed=2), inputs(100, 6)
    now = x.clone()
    now[:, 2] = 0
    stats = LayerStats(6)
    stats.add(now, x)
    assert torch.allclose(stats.target(weight)[:, 2], weight[:, 2], atol=1e-5)
    nothing = LayerStats(6)
    nothing.add(torch.zeros(10, 6), x[:10])
    assert torch.equal(nothing.target(weight), weight)


def test_the_target_comes_nearest_to_the_original_outputs():
    stats, now, original = paired()
    weight = inputs(4, 6, seed=2).double()
    wanted = original @ weight.T

    def error(other):
        return float((now @ other.T - wanted).square().sum())

    best = stats.target(weight, damping=1e-6)
    assert error(best) < 0.95 * error(weight)
    for seed in range(5):
        assert error(best) < error(best + 0.01 * inputs(4, 6, seed=10 + seed).double())


def test_observing_pairs_each_input_with_that_of_the_original_layer():
    first, second = nn.Linear(4, 6), nn.Linear(4, 6)
    with observe({"layer": first}, {"layer": second}) as stats, torch.no_grad():
        for seed in range(3):
            second(inputs(10, 4, seed=seed))
            first(inputs(10, 4, seed=seed) + 1)
    original = torch.cat([inputs(10, 4, seed=seed) for seed in range(3)])
    assert stats["layer"].tokens == 30
    torch.testing.assert_close(stats["layer"].cross, original.T @ (original + 1) / 30)
    assert not first._forward_pre_hooks and not second._forward_pre_hooks


def test_layers_share_statistics_only_if_their_original_inputs_were_the_same_too():
    layers, originals = ({name: nn.Linear(4, 4) for name in "abc"} for _ in range(2))
    with observe(layers, originals) as stats, torch.no_grad():
        for name in "abc":
            originals[name](inputs(10, 4, seed=int(name == "c")))
        for name in "abc":
            layers[name](inputs(10, 4, seed=5))
    assert stats["a"] is stats["b"] and stats["a"] is not stats["c"]
