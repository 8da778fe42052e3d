import pytest
import torch

from nanoq.lm.model import GPT, GPTConfig
from nanoq.quant import LayerStats, Recipe, Round, affine_grid, awq, linear_layers, nearest, quantize_model
from nanoq.quant.awq_scaling import best_power, clipped
from nanoq.vision import ResNet, ResNetConfig

STEP = Round(bits=3, group_size=16)


def model_of(seed=0, bias=True):
    model = GPT(GPTConfig(11, context=16, layers=2, heads=2, width=32, bias=bias), seed=seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def tokens_of(seed=0):
    return torch.randint(11, (16, 16), generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [True, False])
def test_scales_alone_leave_the_logits_as_they_are(bias):
    model, tokens = model_of(bias=bias).double(), tokens_of()
    before, weight = model(tokens), model.blocks[0].attention.out.weight.clone()
    powers = awq(model, tokens, STEP, clip=False)
    assert set(powers) == {name for name in linear_layers(model) if not name.endswith("down")}
    assert any(powers.values()) and not torch.equal(model.blocks[0].attention.qkv.weight, weight)
    torch.testing.assert_close(model(tokens), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_layer_with_a_few_large_inputs_has_less_error_than_rounded_to_nearest(bits):
    step = Round(bits=bits, group_size=16)
    for seed in range(5):
        weight, x = normal(24, 64, seed=seed), normal(400, 64, seed=seed + 1)
        x[:, ::16] *= 20
        stats = LayerStats.of(x)
        power, scale = best_power(weight, step, stats, x.abs().mean(0))
        rounded = [made.decode(nearest(weight * s, made)) / s
                   for s in (scale, torch.ones(64))
                   for made in [affine_grid(weight * s, bits, granularity="group", group_size=16)]]
        errors = [stats.output_error(weight, values) for values in rounded]
        assert power > 0 and errors[0] < 0.7 * errors[1]


def test_inputs_of_one_size_need_no_scales():
    weight, stats = normal(8, 32), LayerStats.of(normal(200, 32))
    power, scale = best_power(weight, STEP, stats, torch.ones(32))
    assert power == 0 and torch.equal(scale, torch.ones(32))


def test_clipping_lowers_the_error_of_each_group_by_itself():
    ratios = []
    for seed in range(5):
        weight, stats = normal(16, 64, seed=seed) ** 3, LayerStats.of(normal(400, 64, seed=seed + 1))
        cut = clipped(weight, Round(bits=2, group_size=32), stats)
        assert (cut.abs() <= weight.abs()).all()
        errors = []
        for start in (cut, weight):
            grid = affine_grid(start, 2, granularity="group", group_size=32)
            change = grid.decode(nearest(start, grid)) - weight
            errors.append([float(((part @ stats.gram[k : k + 32, k : k + 32]) * part).sum())
                           for k, part in zip((0, 32), change.split(32, 1), strict=True)])
        assert all(less <= more for less, more in zip(*errors, strict=True))
        ratios.append(sum(errors[0]) / sum(errors[1]))
    assert sum(ratios) / len(ratios) < 0.9


def test_queries_and_keys_are_not_clipped():
    tokens = tokens_of()
    models = model_of(), model_of()
    awq(models[0], tokens, STEP, clip=False)
    awq(models[1], tokens, STEP)
    plain, cut = (model.blocks[0].attention.qkv.weight for model in models)
    assert torch.equal(plain[:64], cut[:64]) and not torch.equal(plain[64:], cut[64:])


def test_a_scaled_model_is_quantised_as_any_other_and_on_average_closer():
    gaps = []
    for seed in range(6):
        tokens, found = tokens_of(seed), []
        for scaled in (True, False):
            model = model_of(seed)
            before = model(tokens)
            if scaled:
                awq(model, tokens, STEP)
            quantize_model(model, Recipe(STEP), tokens)
            found.append(float((model(tokens) - before).square().mean()))
        gaps.append(found[0] / found[1])
    assert sum(gaps) / len(gaps) < 1


def test_what_cannot_be_scaled_is_an_error():
    with pytest.raises(ValueError, match="has to round"):
        awq(model_of(), tokens_of(), Round(bits=16))
    with pytest.raises(ValueError, match="calibration must be tokens"):
        awq(model_of(), tokens_of()[0], STEP)
    with pytest.raises(ValueError, match="in a GPT of nanoq, not in a ResNet"):
        awq(ResNet(ResNetConfig()), tokens_of(), STEP)
    model = model_of()
    quantize_model(model, Recipe(bits=4))
    with pytest.raises(ValueError, match="quantised already"):
        awq(model, tokens_of(), STEP)
