import json

import pytest
import torch
from torch import nn

from nanoq.quant import BlockData, Recipe, Round, affine_grid, nearest, power_law_grid
from nanoq.quant.autoround import autoround


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(seed=0, bits=3, **options):
    """A block of two layers, their grids, and data; and the same for a held-out text."""
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 24)).requires_grad_(False)
    mix = normal(24, 24, seed=seed + 1) / 4 + torch.eye(24)
    inputs = normal(256, 6, 24, seed=seed + 2) @ mix
    options = {"granularity": "group", "group_size": 8} | options
    grids = {name: affine_grid(block[int(name)].weight, bits, **options) for name in "02"}
    return block, grids, BlockData([inputs[:192]], [block(inputs[:192])]), (inputs[192:], block(inputs[192:]))


def error(block, values, inputs, targets):
    own = {f"{name}.weight": value for name, value in values.items()}
    return float((torch.func.functional_call(block, own, inputs) - targets).square().mean())


def ratio(seed, held_out=False, **options):
    """Error of the block on what it learned from, or on other text, over that of rounding to nearest."""
    grid_options = {"symmetric": options.pop("symmetric", False)}
    block, grids, data, other = problem(seed, options.pop("bits", 3), **grid_options)
    rows = other if held_out else (data.inputs[0], data.targets[0])
    codes, learned = autoround(block, grids, data, **options)
    plain = {name: grid.decode(nearest(block[int(name)].weight, grid)) for name, grid in grids.items()}
    return error(block, {name: learned[name].decode(codes[name]) for name in codes}, *rows) / error(block, plain, *rows)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_has_less_error_than_nearest_also_on_text_that_it_never_saw(bits):
    ratios = [ratio(seed, held_out=True, bits=bits, steps=100) for seed in range(4)]
    assert sum(ratios) / len(ratios) < (0.97 if bits == 4 else 0.85)


def test_learned_ranges_help_at_two_bits_on_average():
    gains = [ratio(seed, bits=2, steps=100) / ratio(seed, bits=2, steps=100, learn_range=False) for seed in range(4)]
    assert sum(gains) / len(gains) < 0.95


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_best_step_is_kept_so_that_it_is_never_worse_than_nearest(symmetric):
    for seed in range(3):
        assert ratio(seed, steps=2, lr=50.0, batch=4, symmetric=symmetric) <= 1 + 1e-6


def test_offsets_move_a_weight_to_one_of_its_neighbours_only():
    block, grids, data, _ = problem(1)
    codes, learned = autoround(block, grids, data, steps=30, learn_range=False)
    for name, grid in grids.items():
        assert torch.equal(learned[name].scale, grid.scale) and torch.equal(learned[name].zero_point, grid.zero_point)
        low, high = grid.neighbours(block[int(name)].weight)
        assert ((codes[name] == low) | (codes[name] == high)).all()
        assert codes[name].dtype == torch.int64 and (codes[name] != nearest(block[int(name)].weight, grid)).any()


def test_learned_scales_and_zero_points_are_what_a_file_can_hold():
    block, grids, data, _ = problem(2, bits=2)
    _, learned = autoround(block, grids, data, steps=40)
    for name, grid in learned.items():
        assert torch.equal(grid.scale, grid.scale.half().float()) and (grid.scale <= 1.001 * grids[name].scale).all()
        assert torch.equal(grid.zero_point, grid.zero_point.round().clamp(0, 3)) and not grid.scale.requires_grad


def test_the_same_seed_gives_the_same_codes_and_the_block_stays_as_it_is():
    block, grids, data, _ = problem(3)
    before = block[0].weight.clone()
    first, second = (autoround(block, grids, data, steps=10, seed=4)[0] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first) and torch.equal(block[0].weight, before)


def test_what_it_cannot_do_is_an_error():
    block, grids, data, _ = problem()
    with pytest.raises(ValueError, match="evenly spaced"):
        autoround(block, {"0": power_law_grid(block[0].weight, 3)}, data)
    with pytest.raises(ValueError, match="must be positive"):
        autoround(block, grids, data, steps=0)


def test_a_recipe_with_it_survives_json():
    recipe = Recipe(Round("autoround", bits=2, group_size=16, steps=20, lr=0.01, learn_range=False))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert recipe.default.blockwise and recipe.default.needs_calibration
