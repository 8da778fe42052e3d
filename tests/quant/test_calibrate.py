import pytest
import torch
from torch import nn

from nanoq.quant import LayerStats, observe, sample_windows


def inputs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_batches_of_any_size_give_the_mean_over_all_tokens():
    x = inputs(100, 8)
    stats = LayerStats(8)
    for part in (x[:10].view(2, 5, 8), x[10:11], x[11:]):
        stats.add(part)
    assert stats.tokens == 100
    assert torch.allclose(stats.gram, x.T @ x / 100, atol=1e-5)


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


def test_a_text_shorter_than_a_window_is_an_error():
    with pytest.raises(ValueError, match="15 tokens are too few"):
        sample_windows(torch.arange(15), 16)
