import math

import pytest
import torch

from nanoq.lm import GPT, GPTConfig
from nanoq.mixed import (
    average_bits,
    budget_of,
    gptq_error,
    integer_program,
    mixed_recipe,
    packed_sizes,
    parts_of,
    recipe_of,
    total,
)
from nanoq.quant import QuantLinear, linear_layers, quantize_model


def small():
    return GPT(GPTConfig(11, context=8, layers=3, heads=2, width=10))


@pytest.mark.parametrize("unit", ["block", "linear"])
@pytest.mark.parametrize("spec", [{}, {"grid_options": {"granularity": "group", "group_size": 4}}, {"grid": "nf4"}])
def test_sizes_are_those_of_the_layers_of_a_quantised_model(unit, spec):
    widths = (4,) if spec.get("grid") else (2, 3, 4, 8)
    sizes = packed_sizes(small(), (*widths, 16), unit, **spec)
    for width in widths:
        model = small()
        quantize_model(model, recipe_of(dict.fromkeys(sizes, width), "nearest", **spec))
        packed = {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
        for part, names in parts_of(small(), unit).items():
            assert sizes[part][width] == sum(b.numel() * b.element_size() for n in names for b in packed[n].buffers())
    assert all(size[16] == 2 * sum(layer.weight.numel() for layer in parts_of(small(), unit)[part].values())
               for part, size in sizes.items())


def test_a_recipe_gives_each_part_its_width_and_leaves_the_rest():
    layers = list(linear_layers(small()))
    specs = recipe_of({"blocks.0": 8, "blocks.1.mlp.up": 3}, refit=True).resolve(layers)
    for name, spec in specs.items():
        expected = 8 if name.startswith("blocks.0.") else 3 if name == "blocks.1.mlp.up" else 16
        assert spec.bits == expected and (spec.bits == 16 or (spec.method, spec.refit) == ("gptq", True))
    with pytest.raises(ValueError, match="'blocks.7.\\*' names no layer"):
        recipe_of({"blocks.7": 8}).resolve(layers)


def test_ten_blocks_are_not_taken_for_the_first():
    model = GPT(GPTConfig(11, context=8, layers=11, heads=2, width=10))
    specs = recipe_of({f"blocks.{i}": 8 if i == 1 else 4 for i in range(11)}).resolve(list(linear_layers(model)))
    assert {name.split(".")[1] for name, spec in specs.items() if spec.bits == 8} == {"1"}


def test_a_budget_is_the_bytes_of_one_width_or_lies_between_two():
    sizes = packed_sizes(small(), (3, 4, 8), "linear")
    three, four = (total(sizes, dict.fromkeys(sizes, width)) for width in (3, 4))
    assert (budget_of(sizes, 3), budget_of(sizes, 4)) == (three, four)
    assert budget_of(sizes, 3.25) == three + (four - three) // 4
    assert budget_of({"one": {3: 10, 4: 13}, "two": {3: 1, 4: 5}}, 3.5) == 14  # half a byte more would be too many
    with pytest.raises(ValueError, match="a budget of 4.5 bits needs the sizes at 4 and 5 bits"):
        budget_of(sizes, 4.5)
    for bits in (math.nan, math.inf):
        with pytest.raises(ValueError, match="a budget needs a number of bits"):
            budget_of(sizes, bits)


def test_a_weight_that_no_grid_covers_is_named():
    model = small()
    with torch.no_grad():
        linear_layers(model)["blocks.1.mlp.up"].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"blocks.1.mlp.up: the weight holds NaN or infinity"):
        packed_sizes(model)


@pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
def test_a_mixed_recipe_predicts_less_loss_than_one_width_at_the_same_bytes():
    model = small()
    data = torch.randint(11, (12, 9), generator=torch.Generator().manual_seed(0))
    recipe = mixed_recipe(model, data, 3.5, refit=True)
    allocation = {name: spec.bits for name, spec in recipe.resolve(list(linear_layers(model))).items()}
    sizes, costs = packed_sizes(model, tuple(range(2, 9)), "linear"), gptq_error(
        model, data, bits=tuple(range(2, 9)), unit="linear")
    assert total(sizes, allocation) <= budget_of(sizes, 3.5)
    assert total(costs, allocation) < total(costs, dict.fromkeys(costs, 3))
    assert average_bits(allocation, {name: layer.weight.numel() for name, layer in linear_layers(model).items()}) > 3
    assert all(spec.refit for spec in recipe.rules.values()) and recipe.default.bits == 16
    with pytest.raises(ValueError, match="average_bits must be in 2..8, not 1.5"):
        mixed_recipe(model, data, 1.5)


@pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
def test_errors_are_predicted_on_the_grid_of_the_recipe():
    model, data = small(), torch.randint(11, (12, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # a row has to reach for the first column of these, and a group of 2 does not
        model.blocks[1].mlp.up.weight[:, 0] *= 100
    groups = {"group_size": 2}
    widths = tuple(range(2, 9))
    sizes = packed_sizes(model, widths, "linear", **groups)
    costs = gptq_error(model, data, bits=widths, unit="linear", **groups)
    best = integer_program(costs, sizes, budget_of(sizes, 4))
    found = mixed_recipe(model, data, 4, **groups).resolve(list(linear_layers(model)))
    assert {name: step.bits for name, step in found.items()} == best
    assert best != integer_program(gptq_error(model, data, bits=widths, unit="linear"), sizes, budget_of(sizes, 4))


def test_options_of_the_method_are_those_of_the_recipe():
    model, data = small(), torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(0))
    recipe = mixed_recipe(model, data, 4, method_options={"act_order": True})
    assert all(step.method_options == {"act_order": True} for step in recipe.rules.values())
