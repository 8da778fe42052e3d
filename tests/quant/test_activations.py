from copy import deepcopy
from functools import partial
from itertools import islice

import pytest
import torch
from torch import nn

import nanoq
from nanoq.compress import Prune, compress_model
from nanoq.lm import stream, tales, window_losses
from nanoq.lm.model import GPT, GPTConfig, KVCache
from nanoq.quant import Recipe, Round, Vector, linear_layers, quantize_model, sample_windows
from nanoq.quant.activations import activation_quantization, fake_quantize_activations
from nanoq.quant.kv_cache import QuantizedKVCache, StepwiseModel
from nanoq.quant.outliers import plant_outliers, smoothquant
from nanoq.quant.qlinear import PackedLayer

LINEAR = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
EVERY_LINEAR = [f"blocks.{i}.{name}" for i in (0, 1) for name in LINEAR]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_gpt(bias=False):
    model = GPT(GPTConfig(11, context=32, layers=2, heads=2, width=16, bias=bias), seed=3).eval()
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            # norms with gains and biases of their own, and predictions far from uniform
            parameter.mul_(5).add_(normal(*parameter.shape, seed=i), alpha=0.3)
    return model


@pytest.fixture
def model():
    return small_gpt()


@pytest.fixture
def tokens():
    return torch.randint(11, (6, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained():
    """The shipped model, windows to calibrate on, and the nats that another model loses to it on held-out text."""
    checkpoint, corpus = nanoq.load("tales-2.7m"), tales.build_corpus(100_000)
    test = checkpoint.tokenizer.encode(corpus.test)
    reference = window_losses(checkpoint.model, test, limit=4)
    calibration = sample_windows(checkpoint.tokenizer.encode(corpus.train), 256, 8)
    return checkpoint.model, calibration, lambda model: float((window_losses(model, test, limit=4) - reference).mean())


def close(a, b):
    """Whether logits, some of them as large as 12, are the same but for rounding in float32."""
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3)


# rounding


def test_a_token_by_hand():
    x = torch.tensor([[7.0, -3.4, 0.6, 0.0], [0.0, 0.14, -0.02, -0.07]])
    expected = torch.tensor([[7.0, -3.0, 1.0, 0.0], [0.0, 0.14, -0.02, -0.08]])
    assert torch.allclose(fake_quantize_activations(x, 4), expected)  # 4 bits: 7 steps each way, of 1 and of 0.02
    assert fake_quantize_activations(x, 4, "tensor").tolist() == [[7, -3, 1, 0], [0, 0, 0, 0]]


def test_an_asymmetric_range_ends_at_zero():
    x = torch.tensor([[0.0, 1.1, 2.0, 3.0], [-1.0, 0.2, 1.6, 2.0]])
    expected = torch.tensor([[0.0, 1.0, 2.0, 3.0], [-1.0, 0.0, 2.0, 2.0]])
    assert torch.allclose(fake_quantize_activations(x, 2, symmetric=False), expected)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["token", "tensor"])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_no_value_moves_by_more_than_half_a_step(bits, granularity, symmetric):
    x = normal(3, 5, 40) * 10.0 ** torch.arange(-7, 8).view(3, 5, 1)  # far below what a float16 scale could tell
    rows = x.flatten() if granularity == "tensor" else x
    low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
    extent = 2 * torch.maximum(-low, high) if symmetric else high - low
    step = extent / (2**bits - (2 if symmetric else 1))
    rounded = fake_quantize_activations(x, bits, granularity, symmetric)
    # An asymmetric grid is moved by up to half a step to hold zero, which may cut off as much at one end.
    assert ((rounded - x).abs() <= step * (0.5001 if symmetric else 1.0001)).all()
    if granularity == "token":
        assert max(len(row.unique()) for row in rounded.flatten(0, 1)) <= 2**bits


def test_a_token_is_rounded_alone():
    x = normal(2, 3, 16)
    x[0, 0] *= 1e-9  # another token's scale must not change how the rest is rounded
    rounded = fake_quantize_activations(x, 8)
    assert torch.equal(rounded[1, 2], fake_quantize_activations(x[1, 2], 8))
    assert torch.equal(rounded[0, 0], fake_quantize_activations(x[0, 0], 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_shape_and_type_stay_and_zeros_stay_zeros(dtype):
    x = torch.zeros(2, 0, 4, dtype=dtype), torch.zeros(2, 3, 4, dtype=dtype)
    for part in x:
        rounded = fake_quantize_activations(part, 8)
        assert rounded.dtype == dtype and torch.equal(rounded, part)


@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 1}, "bits must be in 2..8"), ({"bits": 16}, "bits must be in 2..8"),
    ({"granularity": "channel"}, "granularity must be one of token, tensor"),
    ({"x": torch.tensor([1.0, torch.nan])}, "the activations hold NaN"),
])
def test_what_cannot_be_rounded_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        fake_quantize_activations(**{"x": torch.ones(2), "bits": 8} | change)


def test_rounding_gives_what_a_product_of_integers_gives():
    x, weight = normal(7, 48), normal(5, 48, seed=1)
    sx, sw = x.abs().amax(1, keepdim=True) / 127, weight.abs().amax(1, keepdim=True) / 127
    integers = (x / sx).round().to(torch.int32) @ (weight / sw).round().to(torch.int32).T
    # a row of the weight is rounded as a token is
    product = fake_quantize_activations(x, 8) @ fake_quantize_activations(weight, 8).T
    assert torch.allclose(product, integers * sx * sw.T, rtol=1e-5, atol=1e-5)


# the linear layers of a model


@pytest.mark.parametrize("step", [None, Round(bits=8), Prune("magnitude"), [Prune("magnitude"), Round(bits=4)],
                                  Vector()], ids=["floats", "codes", "sparse", "sparse codes", "vectors"])
def test_every_linear_layer_sees_rounded_inputs_and_nothing_else_does(model, tokens, step):
    if step:
        compress_model(model, step, tokens)
    seen = {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, PackedLayer, nn.LayerNorm))}
    with activation_quantization(model, 3):
        for name, layer in layers.items():
            layer.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        model(tokens)
    levels = {name: max(len(row.unique()) for row in x.flatten(0, 1)) for name, x in seen.items()}
    assert sorted(name for name, count in levels.items() if count <= 7) == sorted(EVERY_LINEAR)


def test_after_the_block_nothing_is_rounded_even_after_an_error(model, tokens):
    before = model(tokens)
    with activation_quantization(model, 8):
        assert not torch.equal(model(tokens), before)
    assert torch.equal(model(tokens), before)
    with pytest.raises(ValueError, match="do not fit the model's context"), activation_quantization(model, 8):
        model(tokens.repeat(1, 2))
    assert torch.equal(model(tokens), before)


@pytest.mark.parametrize("options", [{"bits": 9}, {"bits": 8, "granularity": "row"}])
def test_a_wrong_setting_is_an_error_before_the_model_runs(model, options):
    with pytest.raises(ValueError, match="must be"), activation_quantization(model, **options):
        pass


# outliers, and smoothing


@pytest.mark.parametrize("bias", [False, True])
def test_outliers_leave_the_logits_as_they_are(tokens, bias):
    model = small_gpt(bias)
    before = model(tokens)
    plant_outliers(model, 3, 64.0)
    assert torch.equal(model(tokens), before)  # a power of two only changes exponents
    plant_outliers(model, 3, 50.0, seed=1)
    assert close(model(tokens), before)


@pytest.mark.parametrize("bias", [False, True])
def test_the_planted_channels_are_larger_by_the_factor(tokens, bias):
    model = small_gpt(bias)
    norms = {name: m for name, m in model.named_modules() if name.endswith(("attention_norm", "mlp_norm"))}
    original = {name: deepcopy(norm) for name, norm in norms.items()}
    chosen = plant_outliers(model, 3, 50.0)
    expected = torch.ones(16).index_fill(0, chosen, 50.0)
    x = normal(4, 16)
    assert len(norms) == 4 and len(chosen.unique()) == 3
    assert all(torch.allclose(norm(x), original[name](x) * expected) for name, norm in norms.items())


def test_the_seed_names_the_channels_and_leaves_the_global_random_state_alone(model):
    before = torch.get_rng_state()
    first, again, other = (plant_outliers(model, 5, 2.0, seed).tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"channels": 17}, {"channels": -1}, {"factor": 0.0}, {"factor": float("nan")}])
def test_outliers_that_cannot_be_planted_are_an_error(model, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        plant_outliers(model, **options)


@pytest.mark.parametrize("bias", [False, True])
def test_smoothing_leaves_the_logits_as_they_are(tokens, bias):
    model = small_gpt(bias)
    before = model(tokens)
    scales = smoothquant(model, tokens)
    assert close(model(tokens), before)
    assert set(scales) == {name for name in EVERY_LINEAR if name.endswith(("qkv", "up"))}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_scales_are_those_of_equation_4(model, tokens, alpha):
    block, weight = model.blocks[0], model.blocks[0].attention.qkv.weight.detach().clone()
    x = block.attention_norm(model.embed(tokens)).flatten(0, 1).detach()  # all of it, in one go
    expected = x.abs().amax(0) ** alpha / weight.abs().amax(0) ** (1 - alpha)
    scale = smoothquant(model, tokens.repeat(4, 1), alpha)["blocks.0.attention.qkv"]  # 24 windows: more than one batch
    assert torch.allclose(scale, expected)
    assert torch.allclose(block.attention.qkv.weight, weight * expected)
    if alpha == 0.5:  # activations and weight come to the same range
        x = block.attention_norm(model.embed(tokens)).flatten(0, 1)
        assert torch.allclose(x.abs().amax(0), block.attention.qkv.weight.abs().amax(0), rtol=1e-4)


def test_other_layers_are_left_alone_and_so_is_the_mode(model, tokens):
    before = deepcopy(model.train())
    smoothquant(model, tokens)
    assert model.training
    for name, layer in linear_layers(model).items():
        same = torch.equal(layer.weight, before.get_submodule(name).weight)
        assert same == name.endswith(("out", "down"))


def test_a_channel_without_a_range_keeps_its_scale(model, tokens):
    block = model.blocks[0]
    with torch.no_grad():
        block.attention_norm.weight[2] = 0
        block.mlp.up.weight[:, 5] = 0
    before = model(tokens)
    scales = smoothquant(model, tokens)
    assert scales["blocks.0.attention.qkv"][2] == 1 and scales["blocks.0.mlp.up"][5] == 1
    assert close(model(tokens), before)


@pytest.mark.parametrize(("change", "message"), [
    ({"alpha": 1.1}, "alpha must lie in 0..1"), ({"alpha": float("nan")}, "alpha must lie in 0..1"),
    ({"calibration": torch.zeros(0, 32, dtype=torch.long)}, "calibration must be tokens"),
    ({"calibration": torch.zeros(32, dtype=torch.long)}, "calibration must be tokens"),
])
def test_what_cannot_be_smoothed_is_an_error(model, tokens, change, message):
    with pytest.raises(ValueError, match=message):
        smoothquant(**{"model": model, "calibration": tokens} | change)


def test_a_nan_in_the_activations_is_named(model, tokens):
    with torch.no_grad():
        model.blocks[1].mlp_norm.weight[3] = torch.nan
    with pytest.raises(ValueError, match=r"the inputs of blocks\.1\.mlp\.up hold NaN"):
        smoothquant(model, tokens)


def test_a_quantised_model_is_not_rescaled(model, tokens):
    quantize_model(model, Recipe(bits=8))
    for rescale in (plant_outliers, partial(smoothquant, calibration=tokens)):
        with pytest.raises(ValueError, match=r"blocks\.0\.attention\.qkv is quantised already"):
            rescale(model)


def test_smoothing_undoes_planted_outliers_in_a_trained_model(trained):
    model, calibration, added_loss = trained

    def w8a8(model, granularity):
        model = deepcopy(model)
        quantize_model(model, Recipe(bits=8, symmetric=True))
        with activation_quantization(model, 8, granularity):
            return added_loss(model)

    planted = deepcopy(model)
    plant_outliers(planted, 4, 50.0)
    smoothed = deepcopy(planted)
    smoothquant(smoothed, calibration)
    assert abs(w8a8(model, "tensor")) < 0.01
    assert w8a8(planted, "tensor") > 0.3  # nats: hundreds of times as much
    assert 0.03 < w8a8(planted, "token") < w8a8(planted, "tensor")  # every token has the outliers
    assert abs(w8a8(smoothed, "tensor")) < 0.01


# the cache of keys and values


def read(cache, k, v, sizes):
    """Read tokens into both blocks of a cache, so many at a time; what the last call returned for the first."""
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        cache.extend(1, v[:, :, part], k[:, :, part])
        result = cache.extend(0, k[:, :, part], v[:, :, part])
        start += size
    return result


@pytest.mark.parametrize("keys", ["channel", "token"])
@pytest.mark.parametrize("sizes", [(37, 1), (1,) * 38, (5, 20, 12, 1), (16, 16, 6)])
def test_old_tokens_are_rounded_in_their_place_and_new_ones_exact(keys, sizes):
    k, v = normal(2, 3, 38, 6), normal(2, 3, 38, 6, seed=1)
    cache = QuantizedKVCache(2, 5, group=8, residual=4, key_granularity=keys, value_granularity="token")
    all_k, all_v = read(cache, k, v, sizes)
    assert cache.length == 38 and all_k.shape == all_v.shape == k.shape
    rounded = 32  # 37 tokens were there before the last; 4 and up to 7 of them stay as they are
    axis = 3 if keys == "token" else 2
    for old, new, along in ((k, all_k, axis), (v, all_v, 3)):
        assert torch.equal(new[:, :, rounded:], old[:, :, rounded:])
        groups = old[:, :, :rounded].unflatten(2, (-1, 8))  # (B, heads, groups, 8, head width)
        step = (groups.amax(along + 1, keepdim=True) - groups.amin(along + 1, keepdim=True)) / 31
        error = (new[:, :, :rounded].unflatten(2, (-1, 8)) - groups).abs()
        assert (error <= 0.52 * step + 0.002).all()  # scale and minimum are float16
        assert error.mean() > 0.1 * step.mean()


def test_all_tokens_of_a_channel_that_never_changes_are_kept():
    k = torch.full((1, 1, 16, 4), 3.0)
    assert torch.equal(read(QuantizedKVCache(2, 2, group=8, residual=0), k, k, (8, 7, 1))[0], k)


def test_how_the_tokens_arrive_does_not_matter():
    k, v = normal(1, 2, 30, 4), normal(1, 2, 30, 4, seed=1)
    first, *others = [read(QuantizedKVCache(2, 3, group=8, residual=2), k, v, sizes)
                      for sizes in ((1,) * 30, (8,) * 3 + (5, 1), (29, 1))]
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("bits", "length", "expected"), [
    (2, 7, 2 * 7 * 6 * 4),
    (2, 8, 6 * (2 + 4) + 8 * (2 + 4)),
    (3, 8, 6 * (3 + 4) + 8 * (3 + 4)),
    (8, 19, 2 * 6 * (8 + 4) + 16 * (6 + 4) + 2 * 3 * 6 * 4),
])
def test_the_bytes_are_those_of_codes_scales_minima_and_the_newest_tokens(bits, length, expected):
    """Of a block: 6 channels in groups of 8 tokens, tokens of 6 channels, float16 pairs, and the rest in float32."""
    x = normal(1, 1, length, 6)
    cache = QuantizedKVCache(2, bits, group=8, residual=0)
    read(cache, x, x, (length,))
    assert cache.bytes == 2 * expected


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_make_up_for_the_rounding_of_their_minimum(bits):
    x = 100.03 + torch.linspace(0, 1, 32).view(1, 1, 8, 4)  # float16 has 100 and 100.0625
    cache = QuantizedKVCache(2, bits, group=8, residual=0, value_granularity="channel")
    read(cache, x, x, (8,))
    rounded, _ = cache.extend(0, x[:, :, :0], x[:, :, :0])
    step = float(x[..., 0].max() - x[..., 0].min()) / (2**bits - 1)  # of every channel
    # Half a step, or at the end of the range what the minimum was rounded by; and a scale in float16.
    assert float((rounded - x).abs().max()) <= max(step / 2, 2**-5) + 2**-11 * step * 2**bits + 1e-5


def test_an_empty_cache_holds_nothing():
    cache = QuantizedKVCache(2, 4)
    assert (cache.length, cache.bytes) == (0, 0)


@torch.inference_mode()
def test_the_model_is_exact_until_a_group_is_full(model, tokens):
    exact = model.double()(tokens)  # in float32 the order in which an instruction set adds up shows in the fourth digit
    waiting = StepwiseModel(model, partial(QuantizedKVCache, bits=2, group=32, residual=0), step=1)
    assert torch.allclose(waiting(tokens), exact)
    rounded = StepwiseModel(model, partial(QuantizedKVCache, bits=2, group=8, residual=8), step=1)(tokens)
    assert torch.allclose(rounded[:, :16], exact[:, :16])
    assert not torch.allclose(rounded[:, 16:], exact[:, 16:], atol=1e-1)


@torch.inference_mode()
def test_a_step_that_divides_group_and_residual_gives_what_single_tokens_give(model, tokens):
    make_cache = partial(QuantizedKVCache, bits=3, group=8, residual=4)
    model.double()  # in float32 a key now and then lies so close to the middle of two codes that it goes either way
    one, two, four = (StepwiseModel(model, make_cache, step)(tokens) for step in (1, 2, 4))
    assert torch.allclose(one, two) and torch.allclose(one, four)


def test_reading_in_steps_keeps_the_mode_of_the_model(model, tokens):
    stream = tokens.flatten()
    assert torch.allclose(window_losses(StepwiseModel(model, KVCache, 7), stream), window_losses(model, stream))
    assert not model.training


def test_text_is_written_with_a_quantised_cache(model):
    def write(make_cache):
        prompt = torch.tensor([1, 2, 3])
        return list(islice(stream(model, prompt, temperature=0, make_cache=make_cache), 80))  # beyond the context of 32

    fine, coarse = (write(partial(QuantizedKVCache, bits=bits, group=4, residual=4)) for bits in (8, 2))
    assert fine[:6] == coarse[:6] == write(KVCache)[:6]  # the 6th is predicted from 8 tokens, none of them rounded yet
    assert fine != coarse


@pytest.mark.parametrize(("options", "message"), [
    ({"bits": 16}, "bits must be in 2..8"), ({"group": 0}, "group must be a whole number of at least 1"),
    ({"residual": -1}, "residual must be a whole number of at least 0"),
    ({"key_granularity": "tensor"}, "granularity must be one of channel, token"),
    ({"value_granularity": "row"}, "granularity must be one of channel, token"),
])
def test_a_cache_that_cannot_be_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        QuantizedKVCache(2, **{"bits": 4} | options)


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_keys_beyond_float16_are_an_error(value):
    k = torch.ones(1, 1, 4, 2)
    k[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match="keys or values hold NaN, infinity, or values beyond float16"):
        read(QuantizedKVCache(2, 4, group=4, residual=0), k, k, (4,))


def test_a_step_of_no_tokens_is_an_error(model):
    with pytest.raises(ValueError, match="step must be"):
        StepwiseModel(model, KVCache, 0)


@torch.inference_mode()
def test_keys_of_a_trained_model_are_better_rounded_along_channels(trained):
    model, calibration, _ = trained
    exact = KVCache(model.config.layers)
    model(calibration[:4], exact)
    errors = {}
    for granularity in ("channel", "token"):
        cache = QuantizedKVCache(model.config.layers, 2, residual=0, key_granularity=granularity)
        none = exact.keys[0][:, :, :0]
        for layer, (k, v) in enumerate(zip(exact.keys, exact.values, strict=True)):
            cache.extend(layer, k, v)
            rounded, _ = cache.extend(layer, none, none)
            errors[layer, granularity] = float((rounded - k).square().mean() / k.square().mean())
    assert all(errors[layer, "channel"] < 0.75 * errors[layer, "token"] for layer in range(model.config.layers))


def test_8_bits_cost_a_trained_model_nothing_and_2_bits_something(trained):
    model, _, added_loss = trained
    loss = {
        (bits, keys): added_loss(StepwiseModel(
            model, partial(QuantizedKVCache, bits=bits, residual=0, key_granularity=keys)))
        for bits, keys in ((8, "channel"), (2, "channel"), (2, "token"))
    }
    assert abs(loss[8, "channel"]) < 0.001
    assert 0.005 < loss[2, "channel"] < 0.5 * loss[2, "token"]


@pytest.mark.parametrize("values", [[6e4, -6e4, 1e3], [1.2e-7, -3e-7, 0.0]])
@pytest.mark.parametrize("symmetric", [True, False])
def test_float16_activations_of_any_size_are_rounded(values, symmetric):
    x = torch.tensor([values]).half()
    rounded = fake_quantize_activations(x, 8, symmetric=symmetric)
    assert rounded.dtype == torch.float16
    assert (rounded - x).float().abs().max() <= x.float().abs().max() / 100


def test_no_activations_are_no_error():
    assert fake_quantize_activations(torch.zeros(0, 5), 8, "tensor").shape == (0, 5)
