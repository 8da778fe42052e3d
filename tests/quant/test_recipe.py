import json

import pytest

from nanoq.quant import LayerSpec, Recipe


def test_the_first_rule_that_matches_counts():
    rules = {"blocks.0.*": LayerSpec(8), "blocks.*.mlp.*": LayerSpec(3)}
    specs = Recipe(LayerSpec(4), rules).resolve(["blocks.0.mlp.up", "blocks.1.mlp.up", "blocks.1.attention.qkv"])
    assert [spec.bits for spec in specs.values()] == [8, 3, 4]


def test_a_rule_that_names_no_layer_is_an_error():
    with pytest.raises(ValueError, match=r"'blocks.9.\*' names no layer; there are blocks.0.mlp.up"):
        Recipe(LayerSpec(4), {"blocks.9.*": LayerSpec(8)}).resolve(["blocks.0.mlp.up"])


def test_a_recipe_survives_json():
    options = {"granularity": "group", "group_size": 64}
    default = LayerSpec(4, method="gptq", method_options={"act_order": True})
    recipe = Recipe(default, {"*.qkv": LayerSpec(3, grid_options=options)})
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize("data", [
    {}, [], {"default": 4}, {"default": {"bits": 4, "colour": "red"}}, {"default": {}},
    {"default": {"bits": 4}, "rule": {}},
])
def test_what_is_not_a_recipe_is_an_error(data):
    with pytest.raises(ValueError, match="not a recipe"):
        Recipe.from_json(data)


@pytest.mark.parametrize(("spec", "message"), [
    ({"bits": 1}, "bits must be 16 or in 2..8"), ({"bits": 32}, "bits must be 16 or in 2..8"),
    ({"bits": 4.0}, "bits must be 16 or in 2..8"),
    ({"bits": 4, "grid": "hexagonal"}, "no grid 'hexagonal': there are affine"),
    ({"bits": 4, "method": "magic"}, "no method 'magic': there are nearest"),
    ({"bits": 4, "grid_options": {"groups": 64}}, "grid 'affine' has no option 'groups'; it has symmetric"),
    ({"bits": 4, "method_options": {"damping": 1}}, "method 'nearest' has no option 'damping'; it has none"),
])
def test_a_spec_that_cannot_be_carried_out_is_an_error_at_once(spec, message):
    with pytest.raises(ValueError, match=message):
        LayerSpec(**spec)


def test_only_methods_that_read_statistics_need_calibration():
    assert Recipe.uniform(4, "gptq").needs_calibration
    assert not Recipe.uniform(4).needs_calibration
    assert not Recipe.uniform(16, "gptq").needs_calibration
    assert Recipe(LayerSpec(4), {"*": LayerSpec(4, method="gptq")}).needs_calibration


@pytest.mark.parametrize("options", [{"act_order": True}, {"damping": 0.1}])
def test_dynamic_groups_and_another_walk_do_not_go_together(options):
    with pytest.raises(ValueError, match="one walk"):
        LayerSpec(4, "affine-dynamic", {"group_size": 16}, "gptq", options)
    assert LayerSpec(4, "affine-dynamic", {"group_size": 16, "damping": 0.1}, "gptq", {"damping": 0.1}).bits == 4


def test_an_option_that_a_grid_cannot_do_without_is_asked_for():
    with pytest.raises(ValueError, match="needs the option 'group_size'"):
        LayerSpec(4, "affine-dynamic", method="gptq")
