from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nanoq.compress.distil import distillation_loss
from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.lm.training import TrainConfig, next_token_loss, train
from nanoq.quant import (
    FakeQuantizer,
    QuantConv2d,
    QuantLinear,
    Recipe,
    Round,
    activation_quantization,
    convert_qat,
    fake_quantize_activations,
    fake_quantizers,
    linear_layers,
    prepare_qat,
    quantize_model,
    weight_matrix,
)
from nanoq.store import Checkpoint, load, save
from nanoq.vision import Images, ImageTrainConfig, ResNet, ResNetConfig, train_classifier

SPECS = {
    "affine": Round(bits=3), "symmetric": Round(bits=4, symmetric=True),
    "groups": Round(bits=2, group_size=5),
    "tensor": Round(bits=3, granularity="tensor"),
    "ternary": Round(bits=2, grid="ternary"), "ternary with a threshold": Round(bits=2, grid="ternary",
        operator="twn"),
    "bitnet": Round(bits=2, grid="ternary", operator="absmean", granularity="tensor"),
    "nf4": Round(bits=4, grid="nf4"),
}
SCALES = ["recomputed", "learned"]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(spec):
    return Recipe(spec)


@pytest.fixture
def checkpoint():
    tokenizer = CharTokenizer("abcdefgh")
    config = GPTConfig(tokenizer.vocab_size, context=16, layers=2, heads=2, width=16)
    model = GPT(config, seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # away from the near-uniform predictions of a new model
    return Checkpoint(model, tokenizer, {"config": asdict(config), "characters": "abcdefgh"})


@pytest.fixture
def tokens():
    return torch.randint(9, (12, 16), generator=torch.Generator().manual_seed(0))


def others_rounded(model):
    """A copy of a prepared model whose parameters are in float16 but for latent weights and learned scales."""
    model = deepcopy(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "parametrizations" not in name:
                parameter.copy_(parameter.half())
    return model.eval()


# ---- what the forward pass sees, and what the backward pass does ----


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_the_forward_pass_sees_exactly_the_rounded_weight(spec, seed):
    weight = normal(6, 12, seed=seed)
    for learned in (False, True):
        quantizer = FakeQuantizer(spec, weight, learned)
        grid = quantizer.grid(weight)
        assert torch.equal(quantizer(weight), grid.decode(grid.encode(weight)))
    fresh = spec.make_grid(weight, None)
    assert torch.equal(FakeQuantizer(spec, normal(6, 12, seed=1), False)(weight), fresh.decode(fresh.encode(weight)))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_recomputed_grid_passes_every_gradient_on_as_it_is(spec):
    weight, gradient = normal(6, 12).requires_grad_(), normal(6, 12, seed=1)
    (FakeQuantizer(spec, weight, learned=False)(weight) * gradient).sum().backward()
    assert torch.equal(weight.grad, gradient)


def test_learned_scales_start_where_recomputed_ones_are():
    weight = normal(6, 12)
    for name, spec in SPECS.items():
        recomputed, learned = (FakeQuantizer(spec, weight, kind) for kind in (False, True))
        assert recomputed.scale is None and not list(recomputed.parameters())
        assert learned.scale.shape == (learned.start.scale.numel(),)
        if name != "ternary with a threshold":  # LSQ rounds to nearest
            torch.testing.assert_close(learned(weight), recomputed(weight), rtol=5e-4, atol=0)  # NF4's are in float32


@pytest.mark.parametrize("power", [-12, -30])
@pytest.mark.parametrize("name", ["affine", "symmetric", "ternary", "nf4"])
def test_that_holds_for_small_weights_too(name, power):
    weight = 2.0**power * normal(6, 12)
    recomputed, learned = (FakeQuantizer(SPECS[name], weight, kind) for kind in (False, True))
    torch.testing.assert_close(learned(weight), recomputed(weight), rtol=5e-4, atol=0)


# ---- LSQ ----


def test_the_gradients_of_lsq_by_hand():
    spec = Round(bits=3, symmetric=True)  # -3..3 times the scale
    weight = torch.tensor([[0.3, -0.7, 1.2, 2.0, -1.7, 0.0], [0.1, 0.2, -0.3, 0.4, 0.8, -1.6]], requires_grad=True)
    quantizer = FakeQuantizer(spec, weight, learned=True)
    with torch.no_grad():
        quantizer.scale.copy_(torch.tensor([0.5, 0.25]))
    gradient = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, -1.0, 1.0, -1.0, 2.0, 3.0]])
    value = quantizer(weight)
    # In units of the scale: 0.6 -1.4 2.4 4 -3.4 0 and 0.4 0.8 -1.2 1.6 3.2 -6.4
    assert value.tolist() == [[0.5, -0.5, 1.0, 1.5, -1.5, 0.0], [0.0, 0.25, -0.25, 0.5, 0.75, -0.75]]
    (value * gradient).sum().backward()
    inside = torch.tensor([[1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(weight.grad, gradient * inside)
    first = 1 * (1 - 0.6) + 2 * (-1 + 1.4) + 3 * (2 - 2.4) + 4 * 3 + 5 * -3 + 6 * 0
    second = 1 * (0 - 0.4) - 1 * (1 - 0.8) + 1 * (-1 + 1.2) - 1 * (2 - 1.6) + 2 * 3 + 3 * -3
    torch.testing.assert_close(quantizer.scale.grad, torch.tensor([first, second]) / (6 * 3) ** 0.5)


def test_a_grid_without_values_above_0_slows_its_scale_down_as_its_mirror_image_does():
    gradients = []
    for sign in (1, -1):
        weight = sign * torch.tensor([[0.3, 0.7, 1.2, 2.0, 1.7, 0.0]])
        quantizer = FakeQuantizer(Round(bits=3), weight, learned=True)
        (quantizer(weight) * sign * torch.arange(1.0, 7)).sum().backward()
        gradients.append(quantizer.scale.grad)
    torch.testing.assert_close(*gradients)


def lsq_gradients(weight, scale, zero, low, high, gradient, count):
    """Equations 2, 3 and 5 of LSQ, written out for each weight; scale and zero point of each weight."""
    by_weight, by_scale = torch.zeros_like(weight), torch.zeros_like(weight)
    end = float((high - zero).max())
    for at in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
        at = tuple(at)
        unit, first, last = float(weight[at] / scale[at]), float(low - zero[at]), float(high - zero[at])
        if unit < first or unit > last:
            by_scale[at] = first if unit < first else last
        else:
            by_weight[at], by_scale[at] = 1, round(unit) - unit
    return gradient * by_weight, gradient * by_scale / (count * end) ** 0.5


@pytest.mark.parametrize(("name", "count"), [
    ("affine", 12), ("symmetric", 12), ("ternary", 12), ("bitnet", 72), ("tensor", 72),
    ("ternary with a threshold", 12)])
def test_lsq_has_the_gradients_of_the_paper_on_every_evenly_spaced_grid(name, count):
    weight, gradient = normal(6, 12).requires_grad_(), normal(6, 12, seed=1)
    quantizer = FakeQuantizer(SPECS[name], weight, learned=True)
    with torch.no_grad():
        quantizer.scale.mul_(0.6)  # so that some weights lie outside
    grid = quantizer.grid(weight.detach())
    ones = torch.ones_like(gradient)
    by_weight, by_scale = lsq_gradients(
        weight.detach(), grid.scale.detach() * ones, grid.zero_codes * ones, 0, grid.levels - 1, gradient, count)
    (quantizer(weight) * gradient).sum().backward()
    assert (by_weight == 0).any() and (by_weight != 0).any()
    torch.testing.assert_close(weight.grad, by_weight)
    expected = by_scale.sum() if len(grid.scale) == 1 else by_scale.sum(1)
    torch.testing.assert_close(quantizer.scale.grad, expected.reshape(-1), rtol=1e-4, atol=1e-5)


def test_each_group_has_a_scale_with_a_gradient_of_its_own():
    weight, gradient = normal(2, 8).requires_grad_(), normal(2, 8, seed=1)
    quantizer = FakeQuantizer(Round(bits=3, group_size=4), weight, True)
    (quantizer(weight)[:, :4] * gradient[:, :4]).sum().backward()
    assert quantizer.scale.shape == (4,)
    assert (quantizer.scale.grad.view(2, 2)[:, 0] != 0).all() and (quantizer.scale.grad.view(2, 2)[:, 1] == 0).all()
    assert (weight.grad[:, 4:] == 0).all()


def test_lsq_on_a_codebook():
    weight, gradient = normal(2, 12).requires_grad_(), normal(2, 12, seed=1)
    quantizer = FakeQuantizer(SPECS["nf4"], weight, learned=True)
    with torch.no_grad():
        quantizer.scale.mul_(0.5)
    scale = quantizer.grid(weight.detach()).scale.detach()
    value = quantizer(weight)
    (value * gradient).sum().backward()
    unit = weight.detach() / scale
    inside = unit.abs() <= 1
    torch.testing.assert_close(weight.grad, gradient * inside)
    each = torch.where(inside, value.detach() / scale - unit, unit.sign())
    torch.testing.assert_close(quantizer.scale.grad, (gradient * each).sum(1) / 12**0.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_weights_of_one_sign_can_be_trained_with_learned_scales(sign):
    weight = (sign * normal(3, 8).abs()).requires_grad_()
    quantizer = FakeQuantizer(Round(bits=3), weight, learned=True)
    quantizer(weight).square().sum().backward()
    assert weight.grad.isfinite().all() and quantizer.scale.grad.isfinite().all()
    assert (quantizer.scale.grad != 0).any()


def test_a_scale_that_training_made_negative_is_as_small_as_can_be():
    weight = normal(3, 8).requires_grad_()
    quantizer = FakeQuantizer(Round(bits=3, symmetric=True), weight, learned=True)
    with torch.no_grad():
        quantizer.scale[1] = -0.5
    grid = quantizer.grid(weight.detach())
    assert (grid.scale > 0).all() and quantizer(weight).isfinite().all()
    assert quantizer(weight)[1].abs().max() < 1e-3


def test_learned_scales_are_what_a_file_holds_of_them():
    weight = normal(3, 8)
    quantizer = FakeQuantizer(Round(bits=3), weight, learned=True)
    with torch.no_grad():
        quantizer.scale.mul_(1.00037)
    scale = quantizer.grid(weight).scale.detach()
    assert torch.equal(scale.half().float(), scale) and not torch.equal(scale.flatten(), quantizer.scale)


# ---- whole models ----


def test_only_the_layers_of_the_recipe_are_prepared(checkpoint):
    recipe = Recipe(Round(bits=3), rules={"*.qkv": Round(bits=16), "blocks.1.mlp.*": SPECS["ternary"]})
    model = checkpoint.model
    original = deepcopy(model)
    assert prepare_qat(model, recipe, "learned") is model
    found = fake_quantizers(model)
    assert set(found) == {name for name in linear_layers(original) if not name.endswith("qkv")}
    assert {name: quantizer.spec for name, quantizer in found.items()} == {
        name: spec for name, spec in recipe.resolve(list(linear_layers(original))).items() if spec.bits != 16}
    for name, layer in linear_layers(original).items():
        if name in found:
            prepared = model.get_submodule(name)
            assert torch.equal(prepared.parametrizations.weight.original, layer.weight)
            grid = found[name].grid(layer.weight.detach())
            assert torch.equal(prepared.weight, grid.decode(grid.encode(layer.weight.detach())))
    trained = sum(parameter.numel() for parameter in model.parameters())
    scales = sum(quantizer.scale.numel() for quantizer in found.values())
    assert trained == original.parameter_count() + scales


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("name", SPECS)
def test_the_converted_model_has_the_prepared_ones_logits_bit_for_bit(checkpoint, tokens, name, scales, tmp_path):
    model = prepare_qat(checkpoint.model, uniform(SPECS[name]), scales)
    with torch.no_grad():  # as if it had been trained
        for index, parameter in enumerate(model.parameters()):
            parameter.mul_(1 + 0.02 * normal(*parameter.shape, seed=index))
        expected = others_rounded(model)(tokens)
        convert_qat(model.train())
        recipe = Recipe.from_json(model.recipe)
        assert not model.training and not fake_quantizers(model)
        assert {name for name, m in model.named_modules() if isinstance(m, QuantLinear)} == set(recipe.rules)
        assert torch.equal(model(tokens), expected)
        assert all(spec == SPECS[name] for spec in recipe.rules.values()) and recipe.default == Round(bits=16)
        save(tmp_path, checkpoint)
        loaded = load(tmp_path)
        assert torch.equal(loaded.model(tokens), expected)
        assert Recipe.from_json(loaded.card["recipe"]) == recipe


def test_an_untrained_model_converts_to_the_one_that_is_rounded_to_nearest(checkpoint, tokens):
    for spec in (SPECS["affine"], SPECS["ternary with a threshold"]):
        converted, rounded = deepcopy(checkpoint.model), deepcopy(checkpoint.model)
        convert_qat(prepare_qat(converted, uniform(spec)))
        quantize_model(rounded, uniform(spec))
        assert torch.equal(converted(tokens), rounded(tokens))


def test_a_bias_and_layers_that_stay_in_float16_are_converted_too(tokens):
    model = GPT(GPTConfig(9, context=16, layers=1, heads=2, width=16, bias=True), seed=1)
    with torch.no_grad():
        model.blocks[0].mlp.up.bias.uniform_(-1, 1)
    prepare_qat(model, Recipe(Round(bits=3), rules={"*.out": Round(bits=16)}), "learned")
    expected = others_rounded(model)(tokens)
    convert_qat(model)
    assert type(model.blocks[0].attention.out) is nn.Linear and model.blocks[0].mlp.up.bias is not None
    assert torch.equal(model(tokens), expected)


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("name", ["affine", "bitnet"])
def test_a_picture_model_converts_bit_for_bit_too(name, scales):
    model, pictures = ResNet(ResNetConfig(classes=3, widths=(4, 6)), seed=1), normal(5, 1, 12, 12)
    prepare_qat(model, uniform(SPECS[name]), scales)
    model(pictures)  # in training mode: moves the running means
    expected = others_rounded(model)(pictures)
    convert_qat(model)
    assert sum(isinstance(module, QuantConv2d) for module in model.modules()) == 5
    assert torch.equal(model(pictures), expected)


def test_a_prepared_model_can_be_copied_and_its_state_loaded(checkpoint, tokens):
    recipe = uniform(SPECS["affine"])
    model = prepare_qat(checkpoint.model, recipe, "learned")
    blank = prepare_qat(GPT(model.config, seed=9), recipe, "learned").eval()
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(copy(tokens), model(tokens))
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(tokens), model(tokens))
    # Zero points stay those of the weights that a model was prepared with, so that this needs a symmetric grid.
    symmetric = uniform(SPECS["symmetric"])
    first, second = (prepare_qat(GPT(model.config, seed=seed), symmetric, "learned").eval() for seed in (1, 2))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(tokens), second(tokens))
    assert blank.state_dict().keys() == model.state_dict().keys()


# ---- activations ----


def test_activations_are_rounded_for_each_token_and_pass_gradients(checkpoint):
    layer = prepare_qat(checkpoint.model, uniform(SPECS["ternary"]), activation_bits=4).blocks[0].mlp.up
    x, gradient = normal(3, 5, 16).requires_grad_(), normal(3, 5, 64, seed=1)
    y = layer(x)
    rounded = fake_quantize_activations(x.detach(), 4)
    assert not torch.equal(rounded, x)
    assert torch.equal(y, F.linear(rounded, layer.weight))
    (y * gradient).sum().backward()
    torch.testing.assert_close(x.grad, gradient @ layer.weight)
    torch.testing.assert_close(layer.parametrizations.weight.original.grad,
                               gradient.flatten(0, 1).T @ rounded.flatten(0, 1))


def test_the_packed_model_rounds_activations_only_when_asked(checkpoint, tokens):
    model = prepare_qat(checkpoint.model, uniform(SPECS["bitnet"]), activation_bits=8)
    with torch.no_grad():
        expected = others_rounded(model)(tokens)
        convert_qat(model)
        assert not torch.equal(model(tokens), expected)
        with activation_quantization(model, 8):
            assert torch.equal(model(tokens), expected)


def test_layers_in_float16_do_not_round_their_activations(checkpoint):
    recipe = Recipe(Round(bits=3), rules={"*.up": Round(bits=16)})
    layer = prepare_qat(checkpoint.model, recipe, activation_bits=2).blocks[0].mlp.up
    x = normal(3, 16)
    assert torch.equal(layer(x), F.linear(x, layer.weight))


# ---- training ----


def pattern(count, seed=0):
    """A text that repeats itself, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.arange(count) % 7
    noise = torch.rand(count, generator=generator) < 0.05
    return torch.where(noise, torch.randint(8, (count,), generator=generator), text)


QUICK = TrainConfig(tokens=40 * 8 * 16, batch=8, warmup=5, evaluate_every=20, valid_windows=8)


@pytest.mark.parametrize(("name", "scales", "activation_bits"), [
    ("affine", "recomputed", None), ("affine", "learned", None), ("bitnet", "recomputed", 8), ("ternary", "learned", 8),
    ("nf4", "learned", None)])
def test_a_prepared_language_model_learns(checkpoint, name, scales, activation_bits):
    model = GPT(checkpoint.model.config, seed=1)
    prepare_qat(model, uniform(SPECS[name]), scales, activation_bits)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    history = train(model, pattern(4000), pattern(500, seed=1), QUICK)
    assert history[-1]["valid_loss"] < 0.8 * 2.08 and history[-1]["train_loss"] < history[0]["train_loss"]
    latent = {name: parameter for name, parameter in model.named_parameters() if "parametrizations" in name}
    assert len(latent) == (16 if scales == "learned" else 8)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in latent.items())
    trained = next_token_loss(others_rounded(model), pattern(17 * 20, seed=2).view(20, 17))
    convert_qat(model)
    assert float(next_token_loss(model, pattern(17 * 20, seed=2).view(20, 17))) == pytest.approx(
        float(trained), rel=0 if activation_bits is None else 0.05)


def test_training_with_rounding_beats_rounding_after_training(checkpoint):
    model = GPT(checkpoint.model.config, seed=1)
    train(model, pattern(4000), pattern(500, seed=1), QUICK)
    rounded, trained = deepcopy(model), deepcopy(model)
    quantize_model(rounded, uniform(SPECS["ternary"]))
    prepare_qat(trained, uniform(SPECS["ternary"]))
    train(trained, pattern(4000), pattern(500, seed=1), QUICK)
    convert_qat(trained)
    rows = pattern(17 * 20, seed=2).view(20, 17)
    assert next_token_loss(trained, rows) < 0.9 * next_token_loss(rounded, rows)


def test_a_prepared_model_resumes_its_training_bit_for_bit(checkpoint, tmp_path):
    def fresh():
        return prepare_qat(GPT(checkpoint.model.config, seed=1), uniform(SPECS["symmetric"]), "learned")

    long = replace(QUICK, tokens=6 * 8 * 16, evaluate_every=2)
    whole, part = fresh(), fresh()
    train(whole, pattern(4000), pattern(500), long)

    def stop_after_four(model, rows, seen=[]):  # noqa: B006 (counts the steps)
        seen.append(rows)
        if len(seen) > 4:
            raise KeyboardInterrupt
        return next_token_loss(model, rows)

    with pytest.raises(KeyboardInterrupt):
        train(part, pattern(4000), pattern(500), long, out=tmp_path, loss_fn=stop_after_four)
    again = fresh()
    train(again, pattern(4000), pattern(500), long, out=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def stripes(count, seed):
    """Noisy pictures (count, 1, 12, 12) with horizontal, vertical or no stripes, and their labels."""
    labels = torch.arange(count) % 3
    wave = torch.sin(torch.arange(12) * 1.6)
    kinds = torch.stack((wave[:, None].expand(12, 12), wave[None].expand(12, 12), torch.zeros(12, 12)))
    return kinds[labels][:, None] + 0.4 * normal(count, 1, 12, 12, seed=seed), labels


@pytest.mark.parametrize("scales", SCALES)
def test_a_prepared_picture_model_learns(scales):
    model = prepare_qat(ResNet(ResNetConfig(classes=3, widths=(6, 8)), seed=1), uniform(SPECS["ternary"]), scales)
    pictures = Images("stripes", *stripes(120, 0), *stripes(60, 1), "made here")
    history = train_classifier(model, pictures, ImageTrainConfig(epochs=5, batch=10))
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    with torch.no_grad():
        expected = others_rounded(model)(pictures.test)
        convert_qat(model)
        assert torch.equal(model(pictures.test), expected)


# ---- distillation ----


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 1.0), (2.0, 0.7), (4.0, 0.5), (1.0, 0.0)])
def test_distillation_is_the_formula_of_the_paper(temperature, share):
    logits, teacher = normal(3, 4, 7).requires_grad_(), normal(3, 4, 7, seed=1)
    labels = torch.randint(7, (3, 4), generator=torch.Generator().manual_seed(2))
    p, q = ((x / temperature).softmax(-1) for x in (teacher, logits))
    divergence = (p * (p.log() - q.log())).sum(-1).mean()
    hard = -logits.log_softmax(-1).gather(-1, labels[..., None]).mean()
    loss = distillation_loss(logits, teacher, labels, temperature, share)
    torch.testing.assert_close(loss, share * temperature**2 * divergence + (1 - share) * hard)
    flat = distillation_loss(logits.flatten(0, 1), teacher.flatten(0, 1), labels.flatten(), temperature, share)
    torch.testing.assert_close(flat, loss)


def test_distillation_is_zero_for_equal_logits_and_has_the_gradient_of_the_softmaxes():
    logits, teacher = normal(4, 7).requires_grad_(), normal(4, 7, seed=1)
    labels = torch.zeros(4, dtype=torch.long)
    assert float(distillation_loss(logits, logits.detach() + 3, labels, 2.0)) == pytest.approx(0, abs=1e-5)
    assert float(distillation_loss(logits, teacher, labels)) > 0.01
    distillation_loss(logits, teacher, labels, temperature=3.0).backward()
    torch.testing.assert_close(logits.grad, 3 * ((logits / 3).softmax(1) - (teacher / 3).softmax(1)).detach() / 4)


def test_no_share_of_the_teacher_is_plain_cross_entropy():
    logits, labels = normal(4, 7), torch.tensor([0, 3, 6, 2])
    torch.testing.assert_close(distillation_loss(logits, normal(4, 7, seed=1), labels, 5.0, 0.0),
                               F.cross_entropy(logits, labels))


def test_a_prepared_model_can_be_trained_towards_a_teacher(checkpoint):
    teacher = GPT(checkpoint.model.config, seed=1)
    train(teacher, pattern(4000), pattern(500, seed=1), QUICK)
    student = prepare_qat(deepcopy(teacher), uniform(SPECS["ternary"]))
    rows = pattern(17 * 20, seed=2).view(20, 17)

    def distil(model, rows):
        with torch.no_grad():
            wanted = teacher(rows[:, :-1])
        return distillation_loss(model(rows[:, :-1]), wanted, rows[:, 1:], 2.0)

    before = float(distil(student, rows))
    train(student, pattern(4000), pattern(500, seed=1), QUICK, loss_fn=distil)
    assert float(distil(student, rows)) < 0.5 * before
    assert all(parameter.grad is None for parameter in teacher.parameters())


# ---- what cannot be done ----


@pytest.mark.parametrize(("spec", "message"), [
    (Round("gptq", bits=3), "rounds to nearest"), (Round("adaround", bits=3), "rounds to nearest"),
    (Round("brecq", bits=3), "rounds to nearest"), (Round(bits=3, refit=True), "no refit"),
    (Round(bits=3, grid="affine-dynamic", group_size=4), "a grid that needs no calibration"),
])
def test_a_recipe_that_training_cannot_follow_is_an_error_that_names_the_layer(checkpoint, spec, message):
    with pytest.raises(ValueError, match=rf"blocks\.1\.mlp\.up: training .*{message}"):
        prepare_qat(checkpoint.model, Recipe(Round(bits=3), rules={"blocks.1.mlp.up": spec}))
    assert not fake_quantizers(checkpoint.model)  # not even those before it


def test_scales_are_recomputed_or_learned(checkpoint):
    with pytest.raises(ValueError, match="scales must be one of recomputed, learned, not 'fixed'"):
        prepare_qat(checkpoint.model, uniform(SPECS["affine"]), "fixed")


def test_rules_may_use_the_names_of_the_model_within(checkpoint):
    outer = nn.Module()
    outer.model, outer.blocks = checkpoint.model, checkpoint.model.blocks
    checkpoint.model.layers = checkpoint.model.blocks
    prepare_qat(outer, Recipe(bits=16, rules={"layers.0.*": Round(bits=4)}))
    assert set(fake_quantizers(outer)) == {name for name in linear_layers(outer) if name.startswith("blocks.0.")}


def test_a_recipe_that_packs_embeddings_is_an_error(checkpoint):
    with pytest.raises(ValueError, match="embedding tables are trained as they are, and not packed: embeddings=8"):
        prepare_qat(checkpoint.model, Recipe(bits=4, embeddings=8))


def test_a_rule_that_names_no_layer_is_an_error(checkpoint):
    with pytest.raises(ValueError, match="names no layer"):
        prepare_qat(checkpoint.model, Recipe(Round(bits=3), rules={"blocks.7.*": Round(bits=4)}))


def test_a_model_that_was_not_prepared_cannot_be_converted(checkpoint):
    with pytest.raises(ValueError, match="prepare_qat comes first"):
        convert_qat(checkpoint.model)
    with pytest.raises(ValueError, match="prepare_qat comes first"):
        convert_qat(prepare_qat(checkpoint.model, Recipe(bits=16)))


@pytest.mark.parametrize("scales", SCALES)
def test_a_weight_that_became_nan_is_named(checkpoint, scales):
    model = prepare_qat(checkpoint.model, uniform(SPECS["affine"]), scales)
    with torch.no_grad():
        model.blocks[1].mlp.up.parametrizations.weight.original[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.up: the weight holds NaN"):
        convert_qat(model)


def test_a_model_is_not_prepared_twice(checkpoint):
    prepare_qat(checkpoint.model, uniform(SPECS["affine"]))
    with pytest.raises(ValueError, match="prepared already"):
        prepare_qat(checkpoint.model, uniform(SPECS["affine"]))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "nf4-dq"])
def test_scales_in_eight_bits_cannot_be_learned_but_recomputed(checkpoint, tokens, name):
    with pytest.raises(ValueError, match=r"blocks\.0\.attention\.qkv: .*8 bits"):
        prepare_qat(deepcopy(checkpoint.model), uniform(Round(bits=4, grid=name)), "learned")
    model = prepare_qat(checkpoint.model, uniform(Round(bits=4, grid=name)))
    expected = others_rounded(model)(tokens)
    convert_qat(model)
    assert torch.equal(model(tokens), expected)


@pytest.mark.parametrize("options", [
    {"groups": 2}, {"padding": "same"}, {"padding": "valid"}, {"padding": 1, "padding_mode": "reflect"}], ids=str)
def test_convolutions_that_cannot_be_packed_are_not_prepared(options):
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, **options))])
    before = weight_matrix(model.blocks[0][0]).clone()
    with pytest.raises(ValueError, match=r"blocks\.0\.1: only convolutions without groups"):
        prepare_qat(model, uniform(SPECS["affine"]))
    assert torch.equal(model.blocks[0][0].weight.flatten(1), before)  # nothing is half prepared
