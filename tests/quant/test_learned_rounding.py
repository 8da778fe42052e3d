import importlib
import itertools
import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from nanoq.lm import paired_difference
from nanoq.lm.model import GPT, GPTConfig
from nanoq.quant import (
    BLOCK_METHODS,
    GRIDS,
    BlockData,
    LayerStats,
    QuantConv2d,
    QuantLinear,
    Recipe,
    Round,
    SoftRounding,
    adaround,
    affine_grid,
    brecq,
    linear_layers,
    nearest,
    quantize_model,
    ternary_grid,
    weight_matrix,
)
from nanoq.quant.learned_rounding import penalty
from nanoq.vision import ResNet, ResNetConfig
from nanoq.vision.model import ResidualBlock

MAKERS = {
    "affine": lambda w: affine_grid(w, 3), "ternary": lambda w: ternary_grid(w),
    "ternary with a threshold": lambda w: ternary_grid(w, operator="twn"),
    "tquant": lambda w: ternary_grid(w, operator="tquant"), "nf4": lambda w: GRIDS["nf4"](w, 4),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(width, tokens=512, rho=0.5, seed=0):
    """AR(1) inputs (tokens, width): neighbours correlate by rho."""
    x = normal(tokens, width, seed=seed)
    for k in range(1, width):
        x[:, k] = rho * x[:, k - 1] + (1 - rho**2) ** 0.5 * x[:, k]
    return x


def problem(out=32, width=8, seed=0, rho=0.5, make=MAKERS["affine"]):
    weight = normal(out, width, seed=seed + 1)
    return weight, make(weight), LayerStats.of(correlated(width, rho=rho, seed=seed))


def errors(weight, grid, codes, stats):
    """The output error of each row."""
    change = (grid.decode(codes) - weight).to(stats.gram.dtype)
    return ((change @ stats.gram) * change).sum(1)


# ---- between two neighbours ----


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_it_starts_at_the_weight_or_at_the_end_of_the_grid(make, seed):
    weight = normal(5, 12, seed=seed)
    grid = make(weight)
    values, share = SoftRounding(weight, grid)()
    low, high = (grid.decode(torch.full_like(weight, code)) for code in (0, grid.levels - 1))
    torch.testing.assert_close(values, weight.clamp(low, high), rtol=1e-4, atol=1e-5)
    assert (share >= 0).all() and (share <= 1).all()
    codes = grid.neighbours(weight)
    nearer = torch.where(share >= 0.5, codes[1], codes[0]).long()
    sure = (share - 0.5).abs() > 1e-5
    assert torch.equal(SoftRounding(weight, grid).hard()[sure], nearer[sure])


@given(v=st.floats(-50, 50, width=32, allow_subnormal=False))
def test_the_share_is_the_stretched_sigmoid_of_the_papers(v):
    weight = normal(1, 3)
    soft = SoftRounding(weight, affine_grid(weight, 3))
    with torch.no_grad():
        soft.v.fill_(v)
    expected = min(1, max(0, 1.2 / (1 + math.exp(-v)) - 0.1))
    assert soft.share().tolist()[0] == pytest.approx([expected] * 3, abs=1e-5)
    codes = affine_grid(weight, 3).neighbours(weight)
    assert torch.equal(soft.hard(), codes[int(v >= 0)].long())
    assert soft.hard().dtype == torch.int64


def test_a_share_of_0_or_1_is_reached_at_finite_v():
    weight = normal(1, 1)
    soft = SoftRounding(weight, affine_grid(weight, 3))
    for v, share in ((2.5, 1), (-2.5, 0)):
        with torch.no_grad():
            soft.v.fill_(v)
        assert float(soft.share()) == share


def test_weights_beyond_the_ternary_level_are_frozen_at_it():
    weight = torch.tensor([[0.3, -0.2, 1.7, -2.0, 0.9, 1.0]])
    grid = ternary_grid(weight, operator="absmean")  # level 1.017
    soft = SoftRounding(weight, grid)
    values, _ = soft()
    values.square().sum().backward()
    frozen = weight.abs() > grid.scale
    assert frozen.tolist() == [[False, False, True, True, False, False]]
    assert (soft.v.grad[frozen] == 0).all() and (soft.v.grad[~frozen] != 0).all()
    for v in (-9.0, 9.0):
        with torch.no_grad():
            soft.v.fill_(v)
        assert soft.hard()[frozen].tolist() == [2, 0]
        assert soft()[0][frozen].tolist() == [float(grid.scale), -float(grid.scale)]
    codes = adaround(weight, grid, LayerStats.of(correlated(6)), steps=50)
    assert codes[frozen].tolist() == [2, 0]


def test_two_fifths_of_gaussian_weights_are_frozen_by_mquant_and_none_by_naive():
    weight = normal(100, 400)
    frozen = {}
    for operator in ("mquant", "naive"):
        lower, upper = ternary_grid(weight, operator=operator).neighbours(weight)
        frozen[operator] = float((lower == upper).double().mean())
    assert frozen["mquant"] == pytest.approx(0.389, abs=0.01)
    assert frozen["naive"] < 2 * 1 / 400


# ---- the penalty ----


def test_there_is_no_penalty_in_the_warm_up_or_on_weights_that_are_rounded():
    share = torch.tensor([0.0, 0.3, 0.5, 1.0])
    assert penalty(share, 0.0, 0.2) == 0 == penalty(share, 0.199, 0.2)
    assert float(penalty(share, 0.2, 0.2)) > 0
    for progress in (0.2, 0.5, 1.0):
        assert float(penalty(torch.tensor([0.0, 1.0]), progress, 0.2)) == 0
        assert float(penalty(torch.tensor([0.5]), progress, 0.2)) == 1
        values = [float(penalty(torch.tensor([s]), progress, 0.2)) for s in (0.5, 0.6, 0.8, 0.9, 1.0)]
        assert values == sorted(values, reverse=True)
        assert float(penalty(torch.tensor([0.3]), progress, 0.2)) == pytest.approx(
            float(penalty(torch.tensor([0.7]), progress, 0.2)))


def test_beta_falls_in_a_line_from_20_to_2():
    share = torch.tensor([0.9, 0.25])
    for progress, beta in ((0.2, 20), (0.4, 15.5), (0.6, 11), (1.0, 2)):
        expected = (2 - 0.8**beta - 0.5**beta) / 2
        assert float(penalty(share, progress, 0.2)) == pytest.approx(expected, rel=1e-5)
    assert float(penalty(share, 0.0, 0.0)) == pytest.approx((2 - 0.8**20 - 0.5**20) / 2, rel=1e-5)


# ---- AdaRound ----


def best_of_all(weight, grid, stats):
    """The least error of each row over every choice between neighbours."""
    lower, upper = grid.neighbours(weight)
    choices = torch.tensor(list(itertools.product((False, True), repeat=weight.shape[1])))
    return torch.stack([errors(weight, grid, torch.where(c, upper, lower).long(), stats) for c in choices]).amin(0)


@pytest.mark.parametrize(("name", "rho", "share"), [
    ("ternary", 0.5, 0.9), ("ternary", 0.9, 0.85), ("tquant", 0.5, 0.55), ("ternary with a threshold", 0.5, 0.5),
    ("affine", 0.9, 0.55), ("nf4", 0.9, 0.45),
])
def test_it_comes_near_the_best_of_all_roundings_on_short_rows(name, rho, share):
    weight, grid, stats = problem(out=640, make=MAKERS[name], rho=rho)
    best = best_of_all(weight, grid, stats)
    mine, near = (errors(weight, grid, codes, stats) for codes in (
        adaround(weight, grid, stats, steps=300), nearest(weight, grid)))
    assert (mine >= best * (1 - 1e-4)).all()
    assert paired_difference(mine, near - share * (near - best)).high < 0  # in the mean over rows


@pytest.mark.parametrize("name", ["affine", "ternary"])
def test_it_is_better_than_nearest_in_the_mean_even_where_there_is_little_to_gain(name):
    weight, grid, stats = problem(out=400, width=4, rho=0.1, make=MAKERS[name])
    mine, near = (errors(weight, grid, codes, stats) for codes in (
        adaround(weight, grid, stats, steps=200), nearest(weight, grid)))
    assert paired_difference(mine, near).high < 0


@pytest.mark.parametrize(("name", "limit"), [
    ("affine", 0.65), ("ternary", 0.4), ("ternary with a threshold", 0.6), ("tquant", 0.5), ("nf4", 0.75)])
def test_it_beats_nearest_by_far_on_correlated_inputs(name, limit):
    weight, grid, stats = problem(out=480, width=24, rho=0.9, make=MAKERS[name])
    mine, near = (errors(weight, grid, codes, stats) for codes in (
        adaround(weight, grid, stats, steps=500), nearest(weight, grid)))
    assert paired_difference(mine, limit * near).high < 0


@pytest.mark.parametrize("make", [*MAKERS.values(), lambda w: affine_grid(w, 3, granularity="group", group_size=5)],
                         ids=[*MAKERS, "groups"])
def test_every_code_is_one_of_the_two_neighbours(make):
    weight, grid, stats = problem(out=6, width=24, rho=0.9, make=make)
    codes = adaround(weight, grid, stats, steps=60)
    lower, upper = grid.neighbours(weight)
    assert codes.dtype == torch.int64 and codes.shape == weight.shape
    assert ((codes == lower) | (codes == upper)).all()


def test_its_penalty_is_weighed_against_an_error_that_is_1_for_rounding_to_nearest(monkeypatch):
    weight, grid, stats = problem(out=6, width=12, rho=0.9)
    near, losses = nearest(weight, grid), []

    def spy(rounding, error, *_):
        losses.append(error)
        return {name: soft.hard() for name, soft in rounding.items()}

    monkeypatch.setattr(importlib.import_module("nanoq.quant.learned_rounding"), "_learn", spy)
    adaround(weight, grid, stats)
    values = (grid.decode(near) + 0.01 * normal(6, 12)).requires_grad_()
    change = values - weight
    true = (change @ stats.gram * change).sum() / errors(weight, grid, near, stats).sum()
    torch.testing.assert_close(*(torch.autograd.grad(loss, values)[0] for loss in (losses[0]({"": values}), true)))


@pytest.mark.parametrize("power", [-20, -3, 10])
def test_the_scale_of_the_inputs_does_not_matter(power):
    weight, grid, _ = problem(out=6, width=12)
    x = correlated(12, rho=0.9)
    first, second = (adaround(weight, grid, LayerStats.of(factor * x), steps=100) for factor in (1.0, 2.0**power))
    assert torch.equal(first, second)
    assert not torch.equal(first, nearest(weight, grid))


def test_nor_does_the_scale_of_the_weights():
    weight, _, stats = problem(out=6, width=12, rho=0.9)
    first, second = (adaround(f * weight, ternary_grid(f * weight), stats, steps=100) for f in (1.0, 2.0**-6))
    assert torch.equal(first, second)


def test_it_gives_the_same_codes_every_time():
    weight, grid, stats = problem(out=6, width=12, rho=0.9)
    state, before = torch.get_rng_state(), weight.clone()
    assert torch.equal(adaround(weight, grid, stats, steps=60), adaround(weight, grid, stats, steps=60))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(weight, before)


def test_it_works_where_gradients_are_off():
    weight, grid, stats = problem(out=6, width=12, rho=0.9)
    with torch.no_grad():
        codes = adaround(weight, grid, stats, steps=60)
    assert torch.equal(codes, adaround(weight, grid, stats, steps=60))
    assert not torch.equal(codes, nearest(weight, grid))


@pytest.mark.parametrize("name", ["affine", "nf4"])
def test_it_works_in_float64(name):
    weight = normal(240, 12, seed=1)
    stats, double = (LayerStats.of(x) for x in (correlated(12), correlated(12).double()))
    grid = MAKERS[name](weight)
    single = adaround(weight, grid, stats, steps=300)
    for weights in (weight, weight.double()):
        codes = adaround(weights, grid, double, steps=300)
        assert (codes == single).double().mean() > 0.9
        mine, near = (errors(weight, grid, c, stats) for c in (codes, nearest(weight, grid)))
        assert paired_difference(mine, near).high < 0


def test_uncorrelated_inputs_leave_nothing_to_make_up_for():
    weight, grid, stats = problem(out=6, width=12)
    stats.gram = torch.diag(torch.linspace(1, 2, 12))
    sure = (SoftRounding(weight, grid).share() - 0.5).abs() > 0.1
    assert torch.equal(adaround(weight, grid, stats, steps=200)[sure], nearest(weight, grid)[sure])


def test_weights_on_the_grid_and_layers_that_saw_only_zeros_are_rounded_to_nearest():
    weight, grid, stats = problem(out=6, width=12)
    exact = grid.decode(nearest(weight, grid))
    assert torch.equal(grid.decode(adaround(exact, grid, stats, steps=50)), exact)
    stats.gram.zero_()
    assert torch.equal(adaround(weight, grid, stats), nearest(weight, grid))


@pytest.mark.parametrize(("break_it", "message"), [
    (lambda w, s: w.fill_(torch.nan), "the weight holds NaN or infinity"),
    (lambda w, s: setattr(s, "tokens", 0), "saw no calibration input"),
    (lambda w, s: setattr(s, "gram", s.gram[:5, :5]), "statistics of 5 inputs do not fit"),
    (lambda w, s: s.gram.fill_(torch.nan), "the calibration statistics hold NaN or infinity"),
])
def test_what_cannot_be_used_is_an_error_that_says_why(break_it, message):
    weight, grid, stats = problem(out=3)
    break_it(weight, stats)
    with pytest.raises(ValueError, match=message):
        adaround(weight, grid, stats)


def test_without_statistics_there_is_nothing_to_learn_from():
    weight, grid, _ = problem(out=3)
    with pytest.raises(ValueError, match="saw no calibration input"):
        adaround(weight, grid, None)


# ---- BRECQ ----


def gpt_block(seed=0):
    model = GPT(GPTConfig(9, context=8, layers=1, heads=2, width=16), seed=seed + 3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    block = model.blocks[0]
    return block, model.embed(torch.randint(9, (32, 8), generator=torch.Generator().manual_seed(seed))).detach()


def residual_block(seed=0):
    block = ResidualBlock(3, 5, 2)
    with torch.no_grad():
        for i, parameter in enumerate(block.parameters()):
            if parameter.dim() > 1:
                parameter.copy_(0.3 * normal(*parameter.shape, seed=100 * seed + i))
    return block.eval(), nn.functional.avg_pool2d(normal(32, 3, 10, 10, seed=seed), 3, 1)


BLOCKS = {"gpt": gpt_block, "resnet": residual_block}


def block_problem(kind, make, parts=3, **options):
    block, x = BLOCKS[kind](**options)
    grids = {name.removeprefix("blocks."): make(weight_matrix(layer))
             for name, layer in linear_layers(nn.ModuleDict({"blocks": block})).items()}
    with torch.no_grad():
        inputs = list(x.split(32 // parts))
        return block, grids, BlockData(inputs, [block(part) for part in inputs])


def block_error(block, grids, codes, data):
    own = {f"{name}.weight": grids[name].decode(own).view_as(block.get_submodule(name).weight)
           for name, own in codes.items()}
    with torch.no_grad():
        change = functional_call(block, own, torch.cat(data.inputs)) - torch.cat(data.targets)
    return float(change.square().sum())


def rounded_to_nearest(block, grids):
    return {name: nearest(weight_matrix(block.get_submodule(name)), grid) for name, grid in grids.items()}


@pytest.mark.parametrize(("kind", "name", "steps", "limit"), [
    ("gpt", "affine", 100, 0.9), ("gpt", "ternary", 60, 0.6), ("resnet", "affine", 100, 0.95),
    ("resnet", "ternary", 60, 0.75),
])
def test_blocks_are_nearer_to_their_targets_than_with_every_weight_at_its_nearest_in_the_mean(kind, name, steps, limit):
    errors = []
    for seed in range(12):
        block, grids, data = block_problem(kind, MAKERS[name], seed=seed)
        assert len(grids) == {"gpt": 4, "resnet": 3}[kind]
        codes = brecq(block, grids, data, steps=steps, lr=0.05)
        errors.append([block_error(block, grids, c, data) for c in (codes, rounded_to_nearest(block, grids))])
        for layer, grid in grids.items():
            lower, upper = grid.neighbours(weight_matrix(block.get_submodule(layer)))
            assert codes[layer].dtype == torch.int64 and ((codes[layer] == lower) | (codes[layer] == upper)).all()
    mine, near = torch.tensor(errors).log().T
    assert paired_difference(mine, near + math.log(limit)).high < 0


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_block_stays_as_it_is(kind):
    block, grids, data = block_problem(kind, MAKERS["ternary"])
    before = deepcopy(block.state_dict())
    inputs = [x.clone() for x in data.inputs]
    brecq(block, grids, data, steps=5, batch=4)
    assert before.keys() == block.state_dict().keys()
    assert all(torch.equal(block.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(p.grad is None and p.requires_grad for p in block.parameters())
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(inputs, data.inputs, strict=True))
    assert not block.training


def test_a_seed_gives_the_same_codes_and_the_split_into_batches_none_others():
    block, grids, data = block_problem("gpt", MAKERS["ternary"])
    joined = BlockData([torch.cat(data.inputs)], [torch.cat(data.targets)])
    state = torch.get_rng_state()
    first, same, whole, other = (brecq(block, grids, d, steps=30, batch=4, seed=seed)
                                 for d, seed in ((data, 0), (data, 0), (joined, 0), (data, 1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) and torch.equal(first[name], whole[name]) for name in grids)
    assert any(not torch.equal(first[name], other[name]) for name in grids)


@pytest.mark.parametrize("kind", BLOCKS)
def test_outputs_without_fisher_information_do_not_matter(kind):
    block, grids, data = block_problem(kind, MAKERS["ternary"])
    importance = [x.abs().round() for x in data.targets]  # many are 0
    other = [y + normal(*y.shape, seed=7) * (f == 0) for y, f in zip(data.targets, importance, strict=True)]
    first, second = (BlockData(data.inputs, targets, importance) for targets in (data.targets, other))

    def learn(data, fisher):
        codes = brecq(block, grids, data, steps=60, warmup=0.0, fisher=fisher)
        return torch.cat([codes[name].flatten() for name in grids])

    assert torch.equal(learn(first, True), learn(second, True))
    assert not torch.equal(learn(first, False), learn(second, False))
    assert not torch.equal(learn(first, True), learn(first, False))
    ones = BlockData(data.inputs, data.targets, [torch.full_like(y, 4.0) for y in data.targets])
    assert torch.equal(learn(ones, True), learn(data, False))


def test_some_layers_of_a_block_can_be_left_alone():
    block, grids, data = block_problem("gpt", MAKERS["ternary"])
    one = {"mlp.up": grids["mlp.up"]}
    codes = brecq(block, one, data, steps=100)
    assert set(codes) == {"mlp.up"}
    assert block_error(block, one, codes, data) < block_error(block, one, rounded_to_nearest(block, one), data)


def test_a_block_whose_weights_are_on_their_grids_keeps_them():
    block, grids, _ = block_problem("gpt", MAKERS["ternary"])
    near = rounded_to_nearest(block, grids)
    with torch.no_grad():
        for name, grid in grids.items():
            block.get_submodule(name).weight.copy_(grid.decode(near[name]))
        _, x = gpt_block()
        codes = brecq(block, grids, BlockData([x], [block(x)]), steps=50)
    assert all(torch.equal(codes[name], near[name]) for name in grids)


# ---- BRECQ in a whole model ----


@pytest.fixture
def model():
    model = GPT(GPTConfig(9, context=16, layers=2, heads=2, width=16), seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


@pytest.fixture
def tokens():
    return torch.randint(9, (40, 16), generator=torch.Generator().manual_seed(0))


def logit_error(model, original, tokens):
    with torch.no_grad():
        return float((model(tokens) - original(tokens)).square().mean())


def mixed(method):
    """GPTQ on one layer of each block, nearest on another, and two kinds of `method` on the rest."""
    steps = {"method_options": {"steps": 60}} if method == "brecq" else {}
    return Recipe(Round(method, bits=2, grid="ternary", **steps), rules={
        "*.qkv": Round("gptq", bits=4), "blocks.0.attention.out": Round(bits=8),
        "*.mlp.up": Round(method, bits=3, **steps), "blocks.1.attention.out": Round(bits=16)})


def test_methods_of_a_block_and_of_a_layer_can_be_mixed(model, tokens):
    original, near = deepcopy(model), deepcopy(model)
    reports = quantize_model(model, mixed("brecq"), tokens)
    quantize_model(near, mixed("nearest"), tokens)
    found = {report.layer: (report.step.label, model.get_submodule(report.layer).layout["bits"]) for report in reports}
    assert found == {
        "blocks.0.attention.qkv": ("gptq 4 bit", 4), "blocks.0.attention.out": ("nearest 8 bit", 8),
        "blocks.0.mlp.up": ("brecq 3 bit", 3), "blocks.0.mlp.down": ("brecq ternary", 2),
        "blocks.1.attention.qkv": ("gptq 4 bit", 4), "blocks.1.mlp.up": ("brecq 3 bit", 3),
        "blocks.1.mlp.down": ("brecq ternary", 2),
    }
    assert type(model.blocks[1].attention.out) is nn.Linear
    assert all(report.output_error > 0 for report in reports)
    assert logit_error(model, original, tokens) < 0.9 * logit_error(near, original, tokens)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_same_recipe_gives_the_same_model(model, tokens):
    other = deepcopy(model)
    state = torch.get_rng_state()
    for one in (model, other):
        quantize_model(one, mixed("brecq"), tokens)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(tokens), other(tokens))


def test_a_block_reads_the_quantised_model_and_is_to_give_what_the_unquantised_one_does(model, tokens, monkeypatch):
    original, seen = deepcopy(model), []

    def spy(block, grids, data, *, fisher=False, steps=0):
        linear = (nn.Linear, QuantLinear)
        kinds = {name: type(layer) for name, layer in block.named_modules() if isinstance(layer, linear)}
        seen.append((kinds, set(grids), data, steps))
        return rounded_to_nearest(block, grids)

    monkeypatch.setitem(BLOCK_METHODS, "brecq", spy)
    recipe = Recipe(Round("brecq", bits=2, fisher=True), rules={
        "*.qkv": Round(bits=2), "*.down": Round("brecq", bits=2, steps=7, fisher=True)})
    quantize_model(model, recipe, tokens, batch=15)
    assert [(grids, steps) for _, grids, _, steps in seen] == 2 * [
        ({"attention.out", "mlp.up"}, 0), ({"mlp.down"}, 7)]
    for kinds, *_ in seen[::2]:
        assert kinds == {"attention.qkv": QuantLinear, "attention.out": nn.Linear, "mlp.up": nn.Linear,
                         "mlp.down": nn.Linear}
    for kinds, *_ in seen[1::2]:
        assert kinds["mlp.up"] is QuantLinear and kinds["mlp.down"] is nn.Linear
    with torch.no_grad():
        for parameter in original.token_embedding.weight, original.position_embedding.weight:
            parameter.copy_(parameter.half())
        hidden = original.embed(tokens)
        first, now = original.blocks[0](hidden), model.blocks[0](hidden)
        second = original.blocks[1](first)
    for data, inputs, targets in zip((seen[0][2], seen[2][2]), (hidden, now), (first, second), strict=True):
        assert [len(part) for part in data.inputs] == [15, 15, 10] == [len(part) for part in data.fisher]
        assert torch.allclose(torch.cat(data.inputs), inputs, atol=1e-5)
        # Norms are rounded to float16, which is why this is not to the last bit.
        assert torch.allclose(torch.cat(data.targets), targets, atol=2e-3 * float(targets.abs().max()))
        assert torch.cat(data.fisher).shape == targets.shape
        assert float(torch.cat(data.fisher).mean()) == pytest.approx(1, rel=1e-3)


def test_there_is_no_fisher_information_where_nobody_asks_for_it(model, tokens, monkeypatch):
    seen = []
    monkeypatch.setitem(BLOCK_METHODS, "brecq", lambda block, grids, data: seen.append(data.fisher) or
                        rounded_to_nearest(block, grids))
    quantize_model(model, Recipe("brecq", bits=3), tokens)
    assert seen == [None, None]


def test_the_scales_of_a_block_can_be_refitted(model, tokens):
    plain, fitted = deepcopy(model), deepcopy(model)
    options = {"grid": "ternary", "method_options": {"steps": 20}}
    first = quantize_model(plain, Recipe("brecq", bits=2, **options), tokens)
    second = quantize_model(fitted, Recipe("brecq", bits=2, refit=True, **options), tokens)
    assert torch.equal(plain.blocks[0].mlp.up.codes, fitted.blocks[0].mlp.up.codes)
    assert all(s.output_error < f.output_error for s, f in zip(second[:4], first[:4], strict=True))


@pytest.mark.parametrize("fisher", [False, True])
def test_it_works_on_pictures(fisher):
    logs = {"brecq": [], "nearest": []}  # of the error of the logits of each model
    for seed in range(12):
        original = ResNet(ResNetConfig(classes=5, widths=(4, 6)), seed=seed).eval()
        pictures = nn.functional.avg_pool2d(normal(40, 1, 14, 14, seed=seed), 3, 1)
        for method, found in logs.items():
            options = {"method_options": {"steps": 30, "fisher": fisher}} if method == "brecq" else {}
            model = deepcopy(original)
            reports = quantize_model(model, Recipe(method, bits=2, grid="ternary", **options), pictures)
            assert len(reports) == 5 and all(isinstance(model.get_submodule(r.layer), QuantConv2d) for r in reports)
            assert all(parameter.grad is None for parameter in model.parameters())
            found.append(math.log(logit_error(model, original, pictures)))
    assert paired_difference(torch.tensor(logs["brecq"]), torch.tensor(logs["nearest"]) + math.log(0.8)).high < 0


def test_it_needs_calibration_and_says_so(model):
    with pytest.raises(ValueError, match="needs calibration"):
        quantize_model(model, Recipe("brecq", bits=3))


@pytest.mark.parametrize("method", ["brecq", "adaround", "nearest"])
def test_a_broken_layer_is_named_whatever_the_method(model, tokens, method):
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.up: the weight holds NaN"):
        quantize_model(model, Recipe(method, bits=3), tokens)


def test_a_grid_of_another_matrix_or_a_senseless_option_is_an_error():
    weight, stats = torch.randn(2, 8), LayerStats.of(torch.randn(50, 8))
    grid = ternary_grid(weight)
    with pytest.raises(ValueError, match="a grid of 3 rows does not fit"):
        adaround(weight, ternary_grid(torch.randn(3, 8)), stats)
    for options in ({"steps": 0}, {"steps": -1}, {"warmup": 1.0}, {"warmup": -0.1}):
        with pytest.raises(ValueError, match="steps must be at least 1, and warmup lie in"):
            adaround(weight, grid, stats, **options)
        with pytest.raises(ValueError, match="steps must be at least 1, and warmup lie in"):
            brecq(nn.Sequential(nn.Linear(8, 2)), {"0": grid}, BlockData([torch.randn(4, 8)], [torch.randn(4, 2)]),
                  **options)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        brecq(nn.Sequential(nn.Linear(8, 2)), {"0": grid}, BlockData([torch.randn(4, 8)], [torch.randn(4, 2)]), batch=0)


class Half(nn.Module):
    """A block that does not use one of its layers."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.used(x)


def test_a_layer_of_a_block_that_saw_no_calibration_is_named_and_rounded_to_nearest():
    model = nn.Module()
    model.blocks, model.embed = nn.ModuleList([Half()]), lambda x: x
    recipe = Recipe("brecq", bits=2, grid="ternary", steps=2)
    with pytest.warns(UserWarning, match=r"blocks\.0\.idle: no text of the calibration reaches it: nearest"):
        reports = quantize_model(model, recipe, torch.randn(6, 4))
    assert {report.layer: report.step.method for report in reports}["blocks.0.idle"] == "nearest"
