import json
import math

import pytest
import torch
from torch import nn

from nanoq.lm.evaluate import paired_difference
from nanoq.quant import BlockData, Recipe, Round, affine_grid, hqq_grid, nearest, power_law_grid
from nanoq.quant.autoround import autoround
from nanoq.quant.block_ap import Trained, block_ap
from nanoq.quant.grid import storable
from tests.quant.test_autoround import error, normal, problem


def errors(method, seed, held_out=False, grid_options=None, **options):
    """Mean squared errors of the block that a method gives and of rounding to nearest."""
    block, grids, data, other = problem(seed, **(grid_options or {}))
    rows = other if held_out else (data.inputs[0], data.targets[0])
    codes, learned = method(block, grids, data, **options)
    plain = {name: grid.decode(nearest(block[int(name)].weight, grid)) for name, grid in grids.items()}
    return error(block, {name: learned[name].decode(codes[name]) for name in codes}, *rows), error(block, plain, *rows)


def in_the_mean(pairs, limit=1.0):
    """Whether the first of each pair is less than `limit` times the second, by the interval of paired logarithms."""
    mine, theirs = torch.tensor(pairs).log().T
    return paired_difference(mine, theirs + math.log(limit)).high < 0


@pytest.mark.parametrize(("bits", "limit"), [(2, 0.6), (3, 0.75), (4, 0.9)])
def test_it_has_less_error_than_nearest_also_on_text_that_it_never_saw(bits, limit):
    assert in_the_mean([errors(block_ap, seed, True, {"bits": bits}, steps=100) for seed in range(6)], limit)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_best_step_is_kept_so_that_it_is_never_worse_than_nearest(symmetric, bits):
    for seed in range(3):
        grid_options = {"bits": bits, "symmetric": symmetric}
        mine, plain = errors(block_ap, seed, False, grid_options, steps=3, lr=30.0, lr_range=5.0, batch=24)
        assert mine <= plain * (1 + 1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", [{"granularity": "group", "group_size": 5}, {}, {"granularity": "tensor"}])
def test_it_starts_at_nearest_bit_for_bit(symmetric, granularity):
    weight = normal(6, 13) / 3
    grid = affine_grid(weight, 3, symmetric=symmetric, **granularity)
    own = Trained(weight, grid)
    codes, now = own.hard()
    assert torch.equal(codes, nearest(weight, grid)) and torch.equal(own(), grid.decode(codes))
    assert torch.equal(now.scale, grid.scale) and not now.scale.requires_grad
    assert (now.zero_point is None) == symmetric and (symmetric or torch.equal(now.zero_point, grid.zero_point))


def decoded(latent, gain, zero, first, top):
    """Values of a grid for each row, its codes and grid, and the gradients of sum(by_value * values), written out."""
    scale, whole = storable(first * gain), zero.round().clamp(0, top)
    unclipped = (latent * first / scale).round() + whole
    codes, inside = unclipped.clamp(0, top), (unclipped >= 0) & (unclipped <= top)

    def gradients(by_value):
        by_scale = codes - whole - inside * latent * first / scale
        return [by_value * inside * first, (by_value * by_scale).sum(1, keepdim=True) * first,
                -(by_value * ~inside * scale).sum(1, keepdim=True)]
    return (codes - whole) * scale, codes.long(), scale, whole, gradients


@pytest.mark.parametrize("bits", [2, 3])
def test_the_gradients_of_weights_scales_and_zero_points_are_the_written_out_ones(bits):
    weight, by_value = normal(6, 11).double(), normal(6, 11, seed=1).double()
    grid = affine_grid(weight, bits, search="mse")  # which clips
    own = Trained(weight, grid)
    with torch.no_grad():
        own.latent += 0.3 * normal(6, 11, seed=2)
        own.range[0] *= 1 + 0.2 * normal(6, 1, seed=3)
        own.range[1] += normal(6, 1, seed=4)
    values, codes, _, _, gradients = decoded(own.latent, *own.range, grid.scale, grid.levels - 1)
    assert torch.allclose(own(), values) and torch.equal(own.hard()[0], codes)
    mine = torch.autograd.grad((by_value * own()).sum(), [own.latent, *own.range])
    expected = gradients(by_value)
    assert all(torch.allclose(a, b) for a, b in zip(mine, expected, strict=True))
    assert (expected[0] == 0).any() and (expected[0] != 0).any() and all((part != 0).any() for part in expected[1:])


def reference(weight, bias, grid, x, y, steps, batch, lr, lr_range):
    """Block-AP of one layer with a grid for each row, its gradients written out and Adam by hand."""
    generator = torch.Generator().manual_seed(0)
    fixed = torch.randperm(len(x), generator=generator)[: 8 * batch]
    state = [weight / grid.scale, torch.ones_like(grid.scale), grid.zero_point.clone()]
    moments = [(torch.zeros_like(part), torch.zeros_like(part)) for part in state]
    best = None
    for step in range(steps + 1):
        values, *found, gradients = decoded(*state, grid.scale, grid.levels - 1)
        loss = float((x[fixed] @ values.T + bias - y[fixed]).square().mean())
        if best is None or loss < best[0]:
            best = loss, found
        if step == steps:
            return best[1]
        rows = torch.randint(len(x), (batch,), generator=generator)
        change = x[rows] @ values.T + bias - y[rows]
        by_value = 2 * change.flatten(0, -2).T @ x[rows].flatten(0, -2) / change.numel()
        rates = lr, lr_range, lr_range
        for part, gradient, (mean, square), rate in zip(state, gradients(by_value), moments, rates, strict=True):
            mean.mul_(0.9).add_(0.1 * gradient)
            square.mul_(0.999).add_(0.001 * gradient**2)
            falling = rate * (1 + math.cos(math.pi * step / steps)) / 2
            root = (square / (1 - 0.999 ** (step + 1))).sqrt()
            part -= falling * mean / (1 - 0.9 ** (step + 1)) / (root + 1e-20)


@pytest.mark.parametrize("seed", range(4))
def test_a_few_steps_are_those_of_a_plain_reference(seed):
    torch.manual_seed(seed)
    layer = nn.Linear(12, 7, dtype=torch.float64).requires_grad_(False)
    x = normal(40, 5, 12, seed=seed + 1).double()
    grid = affine_grid(layer.weight, 2)
    y = layer(x) + 0.2 * x @ normal(12, 7, seed=seed + 2).double()  # what other weights would give
    options = {"steps": 8, "batch": 8, "lr": 0.02, "lr_range": 0.01}
    data = BlockData([x[:15], x[15:]], [y[:15], y[15:]])
    codes, learned = block_ap(nn.Sequential(layer), {"0": grid}, data, **options)
    expected, scale, zero = reference(layer.weight, layer.bias, grid, x, y, **options)
    assert torch.equal(codes["0"], expected) and (expected != nearest(layer.weight, grid)).any()
    assert torch.allclose(learned["0"].scale, scale, rtol=1e-3) and torch.equal(learned["0"].zero_point, zero)
    assert not torch.equal(learned["0"].scale, grid.scale)


def test_it_fits_better_than_autoround_in_the_mean():
    for bits in (2, 3):
        assert in_the_mean([[errors(method, seed, True, {"bits": bits}, steps=100)[0]
                             for method in (block_ap, autoround)] for seed in range(6)])


def test_weights_go_as_far_as_the_targets_ask_where_autorounds_stop_at_a_neighbour():
    layer, x = nn.Linear(8, 6).requires_grad_(False), normal(128, 4, 8)
    grid = affine_grid(layer.weight, 4)
    y = layer(x) + x @ (2 * grid.scale * normal(6, 8, seed=1).sign()).T
    found = {}
    for method in (block_ap, autoround):
        options = {"steps": 200, "lr": 0.05} if method is block_ap else {"steps": 200, "learn_range": False}
        codes, learned = method(nn.Sequential(layer), {"0": grid}, BlockData([x], [y]), **options)
        found[method] = error(nn.Sequential(layer), {"0": learned["0"].decode(codes["0"])}, x, y)
    assert found[block_ap] < 0.2 * found[autoround]


def test_a_layer_of_larger_weights_takes_the_same_path():
    layer, x = nn.Linear(16, 8, bias=False).requires_grad_(False), normal(64, 3, 16)
    found = []
    for factor in (1.0, 2.0**-8, 2.0**6):
        scaled = nn.Linear(16, 8, bias=False).requires_grad_(False)
        scaled.weight.copy_(layer.weight * factor)
        grid = affine_grid(scaled.weight, 3)
        codes, learned = block_ap(nn.Sequential(scaled), {"0": grid}, BlockData([x], [scaled(x)]), steps=20)
        found.append((codes["0"], learned["0"].scale / factor, learned["0"].zero_point))
    assert all(torch.equal(mine, first) for other in found[1:] for mine, first in zip(other, found[0], strict=True))


@pytest.mark.parametrize("make", [affine_grid, hqq_grid])
def test_trained_grids_are_what_a_file_can_hold(make):
    block, _, data, _ = problem(2)
    grids = {name: make(block[int(name)].weight, 2, granularity="group", group_size=8) for name in "02"}
    codes, learned = block_ap(block, grids, data, steps=60, lr_range=0.1)
    for name, grid in learned.items():
        assert torch.equal(grid.scale, grid.scale.half().float()) and (grid.scale > 0).all()
        assert (grid.scale != grids[name].scale).any() and (grid.zero_point != grids[name].zero_point).any()
        assert torch.equal(grid.zero_point, grid.zero_point.round().clamp(0, 3)) and not grid.scale.requires_grad
        assert codes[name].dtype == torch.int64 and codes[name].min() >= 0 and codes[name].max() <= 3


def test_the_same_seed_gives_the_same_codes_and_the_block_stays_as_it_is():
    block, grids, data, _ = problem(3)
    before, state = block[0].weight.clone(), torch.get_rng_state()
    first, same, other = (block_ap(block, grids, data, steps=10, seed=seed)[0] for seed in (4, 4, 5))
    assert all(torch.equal(first[name], same[name]) for name in first) and torch.equal(block[0].weight, before)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in block.parameters())


def test_what_it_cannot_do_is_an_error():
    block, grids, data, _ = problem()
    with pytest.raises(ValueError, match="evenly spaced"):
        block_ap(block, {"0": power_law_grid(block[0].weight, 3)}, data)
    for options in ({"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr_range": -1.0}):
        with pytest.raises(ValueError, match="must be positive"):
            block_ap(block, grids, data, **options)


def test_a_recipe_with_it_survives_json():
    recipe = Recipe(Round("block-ap", bits=2, group_size=16, steps=20, lr=0.01, lr_range=0.001))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert recipe.default.blockwise and recipe.default.needs_calibration
