import json

import pytest
import torch

from nanoq.compress import LowRank, Prune
from nanoq.quant import GRIDS, METHODS, OPERATORS, LayerStats, Recipe, Round, affine_grid, nearest


def test_the_first_rule_that_matches_counts():
    rules = {"blocks.0.*": Round(bits=8), "blocks.*.mlp.*": Round(bits=3)}
    specs = Recipe(Round(bits=4), rules=rules).resolve(["blocks.0.mlp.up", "blocks.1.mlp.up", "blocks.1.attention.qkv"])
    assert [spec.bits for spec in specs.values()] == [8, 3, 4]


def test_a_rule_that_names_no_layer_is_an_error():
    with pytest.raises(ValueError, match=r"'blocks.9.\*' names no layer; there are blocks.0.mlp.up"):
        Recipe(Round(bits=4), rules={"blocks.9.*": Round(bits=8)}).resolve(["blocks.0.mlp.up"])


def test_a_recipe_survives_json():
    options = {"granularity": "group", "group_size": 64}
    default = Round("gptq", bits=4, act_order=True)
    recipe = Recipe(default, rules={"*.qkv": Round(bits=3, grid_options=options)})
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    lower = Recipe(bits=4, embeddings=8, precision="bf16")
    assert Recipe.from_json(json.loads(json.dumps(lower.to_json()))) == lower != Recipe(bits=4, embeddings=8)


@pytest.mark.parametrize("precision", ["bfloat16", "fp16", 16, None])
def test_an_unknown_precision_is_an_error_at_once(precision):
    with pytest.raises(ValueError, match="precision must be 'fp32' or 'bf16'"):
        Recipe(bits=4, precision=precision)


@pytest.mark.parametrize("data", [
    {}, [], {"default": 4}, {"default": {"bits": 4, "colour": "red"}}, {"default": {}},
    {"default": {"bits": 4}, "rule": {}},
])
def test_what_is_not_a_recipe_is_an_error(data):
    with pytest.raises(ValueError, match="not a recipe|no option 'colour'|needs bits"):
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
        Round(**spec)


@pytest.mark.parametrize(("spec", "message"), [
    ({"method": "gptq", "method_options": {"damping": "x"}}, "'gptq' takes a finite number for 'damping', not 'x'"),
    ({"method": "gptq", "method_options": {"damping": float("inf")}}, "a finite number for 'damping', not inf"),
    ({"method": "gptq", "method_options": {"damping": True}}, "a finite number for 'damping', not True"),
    ({"method": "gptq", "method_options": {"damping": 10**400}}, "a finite number for 'damping', not 1000"),
    ({"method": "gptq", "method_options": {"descent": 1.5}}, "a whole number for 'descent', not 1.5"),
    ({"method": "gptq", "method_options": {"act_order": 1}}, "true or false for 'act_order', not 1"),
    ({"method": "adaround", "method_options": {"steps": "x"}}, "a whole number for 'steps', not 'x'"),
    ({"grid": "ternary", "grid_options": {"operator": ["twn"]}}, r"a name for 'operator', not \['twn'\]"),
    ({"grid": "power-law", "grid_options": {"exponent": "x"}}, "a finite number or null for 'exponent', not 'x'"),
    ({"grid_options": {"group_size": True}}, "a whole number or null for 'group_size', not True"),
    ({"grid_options": {"granularity": {"a": list(range(99))}}}, "a name for 'granularity', not .{60}…$"),
    ({"grid_options": [1]}, r"the options of the grid 'affine' must be options and their values, not \[1\]"),
    ({"grid": ["affine"]}, r"no grid \['affine'\]: there are affine"), ({"method": None}, "no method None"),
    ({"refit": "x"}, "refit must be true, false or 'gain', not 'x'"), ({"refit": 1}, "refit must be true, false"),
])
def test_a_value_of_another_type_is_an_error_at_once(spec, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_json({"default": {"bits": 4} | spec})


def test_what_is_of_the_right_type_is_taken():
    assert Round("gptq", bits=4, damping=1, descent=10**9).needs_calibration
    assert Round(bits=4, grid="power-law", exponent=None, group_size=None).bits == 4


def test_an_option_without_an_annotation_may_be_anything(monkeypatch):
    def mine(weight, grid, stats=None, *, seed=0, order: "Any" = None):  # noqa: F821
        return nearest(weight, grid)
    monkeypatch.setitem(METHODS, "mine", mine)
    assert Round("mine", bits=4, seed="x", order=[1]).bits == 4


def test_only_methods_that_read_statistics_need_calibration():
    assert Recipe("gptq", bits=4).needs_calibration
    assert not Recipe(bits=4).needs_calibration
    assert not Recipe("gptq", bits=16).needs_calibration
    assert Recipe(Round(bits=4), rules={"*": Round("gptq", bits=4)}).needs_calibration


@pytest.mark.parametrize("options", [{"act_order": True}, {"damping": 0.1}])
def test_dynamic_groups_and_another_walk_do_not_go_together(options):
    with pytest.raises(ValueError, match="one walk"):
        Round("gptq", bits=4, grid="affine-dynamic", group_size=16, method_options=options)
    assert Round("gptq", bits=4, grid="affine-dynamic", group_size=16, damping=0.1).bits == 4


def test_an_option_that_a_grid_cannot_do_without_is_asked_for():
    with pytest.raises(ValueError, match="needs the option 'group_size'"):
        Round("gptq", bits=4, grid="affine-dynamic")


# ---- ternary grids, learned rounding, refitted scales ----


@pytest.mark.parametrize("spec", [
    Round(bits=2, grid="ternary", operator="twn", group_size=16, rescale=True),
    Round("adaround", bits=4, grid="nf4", steps=10, lr=0.1, warmup=0.5),
    Round("brecq", bits=3, fisher=True, batch=4, regularization=0.1, seed=3),
    Round("gptq", bits=2, grid="ternary", refit=True),
], ids=lambda spec: spec.method)
def test_a_recipe_of_any_method_survives_json(spec):
    recipe = Recipe(Round(bits=16), rules={"*": spec})
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_recipe_without_refit_is_one_from_before_there_was_any():
    assert Recipe.from_json({"default": {"bits": 4}}).default.refit is False


@pytest.mark.parametrize(("spec", "message"), [
    ({"bits": 2, "grid": "ternary", "grid_options": {"level": 1}}, "'ternary' has no option 'level'; it has operator"),
    ({"bits": 3, "method": "adaround", "method_options": {"fisher": True}}, "'adaround' has no option 'fisher'"),
    ({"bits": 3, "method": "brecq", "method_options": {"damping": 0.1}}, "'brecq' has no option 'damping'"),
    ({"bits": 3, "method": "magic"}, "there are nearest, gptq, adaround, brecq, autoround, block-ap"),
])
def test_options_of_another_method_are_an_error_at_once(spec, message):
    with pytest.raises(ValueError, match=message):
        Round(**spec)


def test_learned_rounding_needs_calibration_and_ternary_grids_do_not():
    assert Round("adaround", bits=3).needs_calibration and not Round("adaround", bits=3).blockwise
    assert Round("brecq", bits=3).needs_calibration and Round("brecq", bits=3).blockwise
    assert not Round("brecq", bits=16).needs_calibration
    assert not Round(bits=2, grid="ternary").needs_calibration
    assert Round(bits=3, grid="affine-dynamic", group_size=4).needs_calibration


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("method", ["nearest", "gptq", "adaround"])
def test_every_operator_goes_with_every_method(operator, method):
    weight, x = torch.randn(68, 8, generator=torch.Generator().manual_seed(0)).split([4, 64])
    stats = LayerStats.of(x)
    spec = Round(method, bits=2, grid="ternary", operator=operator,
        method_options={"steps": 2} if method == "adaround" else {})
    codes = spec.round(weight, spec.make_grid(weight, stats), stats)
    assert codes.dtype == torch.int64 and set(codes.unique().tolist()) <= {0, 1, 2}


def test_a_spec_makes_the_grid_and_the_codes_of_its_functions():
    weight, x = torch.randn(68, 8, generator=torch.Generator().manual_seed(0)).split([4, 64])
    spec, stats = Round(bits=3, symmetric=True), LayerStats.of(x)
    grid = spec.make_grid(weight, stats)
    assert torch.equal(grid.scale, affine_grid(weight, 3, symmetric=True).scale)
    assert torch.equal(spec.round(weight, grid, None), nearest(weight, grid))
    dynamic = Round("gptq", bits=3, grid="affine-dynamic", group_size=4)
    assert dynamic.make_grid(weight, stats).scale.shape == (4, 2)


def test_a_label_names_method_and_grid():
    assert Round("brecq", bits=16).label == "float16"
    assert Round("brecq", bits=3).label == "brecq 3 bit"
    assert Round("adaround", bits=2, grid="ternary").label == "adaround ternary"
    assert Round("brecq", bits=4, grid="nf4").label == "brecq nf4"


def test_a_ternary_spec_of_other_bits_says_so_when_it_meets_a_weight():
    with pytest.raises(ValueError, match="a ternary code has 2 bits, not 3"):
        Round(bits=3, grid="ternary").make_grid(torch.ones(2, 2), None)


BITS = {"ternary": 2, "mxfp8": 8, "entropy-coded": 8}
LAYER = torch.nn.Linear(16, 8)
STATS = LayerStats.of(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)))


OPTIONS = {"affine-dynamic": {"group_size": 8}, "entropy-coded": {"rate": 4.0}}


def spec_of(grid, method="nearest"):
    return Round(method, bits=BITS.get(grid, 4), grid=grid, grid_options=OPTIONS.get(grid, {}),
                 method_options={"steps": 50} if method == "adaround" else {})


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_parameter_is_as_good_as_its_values(grid, method):
    spec, codes = spec_of(grid, method), []
    for weight in (LAYER.weight, LAYER.weight.detach()):
        made = spec.make_grid(weight, STATS)
        assert not made.scale.requires_grad
        codes.append(spec.round(weight, made, STATS))
    assert torch.equal(*codes) and LAYER.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_weight_in_half_precision_has_the_grid_of_its_values(grid, dtype):
    weight = (torch.rand(8, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1).mul(6e4).to(dtype)
    spec, values = spec_of(grid), []
    for same in (weight, weight.float()):
        made = spec.make_grid(same, STATS)
        values.append(made.decode(spec.round(same, made, None)))
    assert torch.equal(*values) and values[0].isfinite().all()


@pytest.mark.parametrize(("size", "spec"), [
    (1e30, Round(bits=2, grid="ternary", operator="mquant")), (3.4e38, Round(bits=4)),
    (3.4e38, Round(bits=4, symmetric=True)), (3.4e38, Round(bits=2, grid="ternary", operator="twn")),
    (3.4e38, Round(bits=2, grid="ternary", operator="twn", rescale=True)),
])
def test_weights_that_overflow_are_an_error(size, spec):
    weight = torch.linspace(-1, 1, 16).repeat(8, 1) * size
    with pytest.raises(ValueError, match=r"the weights are too large: .* more than torch\.float32 holds"):
        spec.make_grid(weight, None)


def test_options_go_by_their_names_alone_to_the_grid_the_method_or_both():
    step = Round("gptq", bits=4, group_size=64, act_order=True)
    named = {"granularity": "group", "group_size": 64}
    assert step.grid_options == named and step.method_options == {"act_order": True}
    assert step == Round("gptq", bits=4, grid_options=named, act_order=True)
    both = Round("gptq", bits=4, grid="affine-dynamic", group_size=16, damping=0.2)
    assert both.grid_options["damping"] == both.method_options["damping"] == 0.2
    assert Round(grid="nf4").bits == 4 and Round(grid="ternary").bits == 2 and Round(bits=16).bits == 16
    with pytest.raises(ValueError, match=r"no option 'act_order': the grid 'affine' has symm.*'nearest' has none"):
        Round(bits=4, act_order=True)
    with pytest.raises(ValueError, match="the option 'group_size' belongs to a step"):
        Recipe(Round(bits=4), group_size=64)


@pytest.mark.parametrize("recipe", [
    Recipe(Prune("wanda", pattern="2:4")), Recipe(Prune(sparsity=0.4), Round("gptq", bits=3)),
    Recipe(LowRank(0.5), rules={"*.up": [Prune("magnitude", 0.7), Round(bits=4)], "*.down": Round(bits=8)}),
    Recipe("gptq", bits=4, true_sequential=True, match_original=True),
], ids=lambda recipe: recipe.label)
def test_any_steps_come_back_from_plain_data(recipe):
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_steps_that_a_card_cannot_keep_or_does_not_know_say_so():
    for name in (5, ["round"], {}):
        with pytest.raises(ValueError, match="no step .*: there are round"):
            Recipe.from_json({"default": {"step": name}, "rules": {}})
    with pytest.raises(ValueError, match="no step 'knit': there are round, .*prune, low-rank"):
        Recipe.from_json({"default": {"step": "knit"}})
    with pytest.raises(ValueError, match="not a recipe .*true_sequential must be true or false"):
        Recipe.from_json({"default": {"bits": 4}, "true_sequential": 1})
    with pytest.raises(ValueError, match="takes no other step with it"):
        Recipe(Prune(), Round("brecq", bits=4))
    with pytest.raises(ValueError, match="a function is in no card"):
        Recipe(lambda layer, stats: layer).to_json()


def test_rules_may_use_the_names_of_the_model_of_another_package():
    recipe = Recipe(bits=4, rules={"model.layers.0.*": Round(bits=8)})
    found = recipe.resolve(["blocks.0.up", "blocks.1.up"], {"blocks.0.up": ["model.layers.0.up"]})
    assert [step.bits for step in found.values()] == [8, 4]
    with pytest.raises(ValueError, match=r"'model.layers.0.\*' names no layer"):
        recipe.resolve(["blocks.0.up"])
