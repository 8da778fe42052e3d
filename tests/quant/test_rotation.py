"""Hadamard matrices, models rotated by them, and Hadamard transforms that a model carries out while it runs."""

import math
from contextlib import nullcontext
from copy import deepcopy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoq.compress import Prune, add_adapters, remove_heads, remove_neurons
from nanoq.compress.layers import AdapterLinear
from nanoq.lm import (
    GPT,
    CharTokenizer,
    GPTConfig,
    load_corpus,
    paired_difference,
    window_losses,
)
from nanoq.lm.model import KVCache
from nanoq.quant import (
    HadamardLinear,
    QuantizedKVCache,
    Recipe,
    Round,
    StepwiseModel,
    activation_quantization,
    fake_quantize_activations,
    linear_layers,
    observe,
    plant_outliers,
    quantize_model,
    rotate,
    smoothquant,
)
from nanoq.quant.hadamard import RandomHadamard, core_size, hadamard_matrix, hadamard_transform
from nanoq.store import WEIGHTS, Checkpoint, layer_from_layout, load, read_folder, save, write_folder

KNOWN = [1, 2, 4, 8, 12, 16, 20, 24, 28, 36, 44, 52, 60, 100, 192, 244, 344, 576, 768]  # 52, 100: of fields of 25, 49
UNKNOWN = [0, -4, 3, 6, 10, 18, 92, 172, 13696]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", KNOWN)
def test_a_hadamard_matrix_has_orthogonal_rows_of_ones(n):
    matrix = hadamard_matrix(n)
    assert matrix.shape == (n, n) and set(matrix.unique().tolist()) <= {1.0, -1.0}
    assert torch.equal(matrix.double() @ matrix.double().T, n * torch.eye(n, dtype=torch.float64))


def test_the_widths_of_well_known_models_have_one():
    # gpt of the course, its MLP; SmolLM2-135M, Qwen2-0.5B, TinyLlama, Llama-2 7B and 13B, Mistral, Qwen2-7B
    widths = {192: 12, 768: 12, 576: 36, 1536: 12, 896: 28, 4864: 76, 5632: 44, 11008: 344, 13824: 108, 14336: 28,
              18944: 148, 2048: 1}
    assert {n: core_size(n) for n in widths} == widths


@pytest.mark.parametrize("n", UNKNOWN)
def test_a_size_without_a_construction_is_refused_by_its_number(n):
    with pytest.raises(ValueError, match=rf"{n}\b"):
        core_size(n)


@settings(max_examples=30, deadline=None)
@given(n=st.sampled_from(KNOWN), seed=st.integers(0, 10**6), rows=st.lists(st.integers(1, 3), max_size=2))
def test_the_fast_transform_is_the_product_with_the_matrix_and_its_transpose_undoes_it(n, seed, rows):
    x = torch.randn(*rows, n, dtype=torch.float64, generator=seeded(seed))
    y, matrix = hadamard_transform(x), hadamard_matrix(n).double() / math.sqrt(n)
    torch.testing.assert_close(y, x @ matrix)
    torch.testing.assert_close(hadamard_transform(x, transposed=True), x @ matrix.T)
    torch.testing.assert_close(hadamard_transform(y, transposed=True), x)


@settings(max_examples=30, deadline=None)
@given(n=st.sampled_from(KNOWN), seed=st.integers(0, 10**6))
def test_a_random_hadamard_keeps_lengths_and_its_inverse_undoes_it(n, seed):
    rotation = RandomHadamard.draw(n, seeded(seed))
    x = torch.randn(3, n, dtype=torch.float64, generator=seeded(seed + 1))
    y = rotation(x)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(rotation.inverse(y), x)
    assert torch.equal(RandomHadamard.draw(n, seeded(seed)).signs, rotation.signs)


def test_signs_spread_the_mean_that_a_hadamard_matrix_alone_gathers_in_one_coordinate():
    constant = torch.ones(1, 256)
    assert hadamard_transform(constant).abs().max() == pytest.approx(16)
    largest = [float(RandomHadamard.draw(256, seeded(seed))(constant).abs().max()) for seed in range(20)]
    assert max(largest) < 6  # of 256 numbers of about N(0, 1)


def test_a_random_hadamard_spreads_an_outlier_evenly():
    x = torch.zeros(192)
    x[7] = 50.0
    torch.testing.assert_close(RandomHadamard.draw(192, seeded(0))(x).abs(), torch.full((192,), 50 / math.sqrt(192)))


# ---- a rotated GPT ----

TOKENS = torch.randint(1, 11, (6, 16), generator=seeded(1))


def gpt(dtype=torch.float32, **changes):
    """A GPT whose norms have weights far from 1, and biases if there are any."""
    model = GPT(GPTConfig(11, 16, layers=2, heads=2, width=24, **changes)).eval()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(seed)))
    return model.to(dtype)


def rotated(model, **options):
    model = deepcopy(model)
    rotate(model, **options)
    return model


GPTS = {
    "as trained": gpt,
    "with biases": partial(gpt, bias=True),
    "with a head of its own": partial(gpt, bias=True, tied=False),
    "with outliers": lambda dtype=torch.float32: plant_outliers(model := gpt(dtype)) is not None and model,
    "without a head of attention": lambda dtype=torch.float32: remove_heads(gpt(dtype), {1: [0]}),
}


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("make", GPTS.values(), ids=GPTS)
@torch.no_grad()
def test_a_rotated_gpt_gives_the_same_logits(make, online):
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
        model = make(dtype)
        expected = model(TOKENS)
        found = rotated(model, seed=3, online=online)(TOKENS)
        assert expected.std() > 0.1 and found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@torch.no_grad()
def test_a_rotated_gpt_reads_from_a_cache_as_before():
    model = gpt(torch.float64)
    found = StepwiseModel(rotated(model, online=True), KVCache, step=4)(TOKENS)
    torch.testing.assert_close(found, model(TOKENS))


@torch.no_grad()
def test_rotation_changes_the_stream_and_takes_outliers_out_of_what_layers_read():
    model = gpt()
    plant_outliers(model, channels=1, factor=50.0)
    turned = rotated(model)
    with observe(linear_layers(model)) as before, observe(linear_layers(turned)) as after:
        model(TOKENS), turned(TOKENS)
    for name in ("blocks.0.attention.qkv", "blocks.1.mlp.up"):
        squares = [stats[name].gram.diagonal() for stats in (before, after)]
        ratios = [float(s.max() / s.mean()) for s in squares]
        assert ratios[0] > 20 and ratios[1] < 8
    assert not torch.allclose(model.blocks[0].mlp.down.weight, turned.blocks[0].mlp.down.weight, atol=0.1)


def test_outliers_in_the_weights_of_norms_leave_no_trace_in_a_rotated_model():
    plain, planted = gpt(torch.float64), gpt(torch.float64)
    plant_outliers(planted)
    assert not torch.allclose(plain.blocks[0].attention.qkv.weight, planted.blocks[0].attention.qkv.weight)
    for one, other in zip(rotated(plain).parameters(), rotated(planted).parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_a_rotation_costs_is_the_head_less_the_weights_of_the_norms():
    model = gpt()
    assert rotated(model).parameter_count() - model.parameter_count() == 11 * 24 - 5 * 24


def test_the_seed_decides_and_the_global_random_state_does_not_move():
    before = torch.get_rng_state()
    first, again, other = (rotated(gpt(), seed=seed).token_embedding.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def checkpoint(model):
    return Checkpoint(model, CharTokenizer("abcdefghij"), {})


@pytest.mark.parametrize("online", [False, True])
@torch.no_grad()
def test_a_rotated_gpt_is_saved_and_loaded_bit_for_bit(tmp_path, online):
    model = rotated(gpt(bias=True), online=online)
    loaded = load(save(tmp_path, checkpoint(model))).model
    assert loaded.config == model.config and torch.equal(loaded(TOKENS), model(TOKENS))
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_the_card_of_a_gpt_that_is_not_rotated_is_what_it_was(tmp_path):
    model = gpt()
    config = load(save(tmp_path, checkpoint(model))).card["config"]
    assert config == {"vocab_size": 11, "context": 16, "layers": 2, "heads": 2, "width": 24, "bias": False,
                      "dropout": 0.0}


RECIPES = {
    "gptq": Recipe("gptq", bits=3),
    "with tables": Recipe("gptq", bits=4, group_size=8, embeddings=8),
    "pruned": Recipe(Prune(), Round("gptq", bits=4)),
    "entropy-coded": Recipe("gptq", bits=8, grid="entropy-coded", rate=2.5),
    "a rule for the second matrix": Recipe("gptq", bits=4, rules={"*.mlp.down": Round("nearest", bits=8)}),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@torch.no_grad()
def test_a_rotated_and_quantised_gpt_with_online_transforms_is_a_file_that_loads_bit_for_bit(tmp_path, recipe):
    start = checkpoint(rotated(gpt(bias=True), online=True))
    quantize_model(start.model, recipe, TOKENS)
    down = start.model.blocks[0].mlp.down
    assert isinstance(down, HadamardLinear) and hasattr(down.base, "layout")
    loaded = load(save(tmp_path, start))
    assert torch.equal(loaded.model(TOKENS), start.model(TOKENS))
    assert loaded.card["layers"]["blocks.0.mlp.down"]["base"] == down.base.layout
    save(tmp_path / "again", loaded)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / WEIGHTS).read_bytes()


@torch.no_grad()
def test_an_adapter_beside_a_turned_layer_comes_back_too(tmp_path):
    original = rotated(gpt(), online=True)
    start = checkpoint(deepcopy(original))
    quantize_model(start.model, Recipe(bits=3), TOKENS)
    add_adapters(start.model, 4, original, TOKENS)
    for parameter in start.model.parameters():
        parameter.data = parameter.data.half().float()  # as a file keeps them
    assert isinstance(start.model.blocks[0].mlp.down.base, AdapterLinear)
    assert torch.equal(load(save(tmp_path, start)).model(TOKENS), start.model(TOKENS))


def test_a_rule_names_a_turned_layer_as_before():
    model = rotated(gpt(), online=True)
    reports = quantize_model(model, RECIPES["a rule for the second matrix"], TOKENS)
    assert {report.layer: report.step.bits for report in reports}["blocks.1.mlp.down.base"] == 8


def test_gptq_sees_turned_inputs_and_activations_are_rounded_after_the_turn():
    model = rotated(gpt(), online=True)
    layer, seen = model.blocks[0].mlp.down, []
    hook = layer.base.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    x = torch.randn(2, 3, 96, generator=seeded(5))
    y = layer(x)
    torch.testing.assert_close(seen[0], layer.turn(x))
    with activation_quantization(model, 4):
        layer(x)
    hook.remove()
    assert torch.equal(seen[1], fake_quantize_activations(layer.turn(x), 4))
    torch.testing.assert_close(y, x @ layer.turn.inverse(layer.base.weight).T)


@torch.no_grad()
def test_a_rotation_lowers_the_loss_of_rounded_activations_with_outliers():
    """Of the shipped model, whose activations are rounded to 6 bits a token, paired over windows of text."""
    loaded, corpus = load("tales-2.7m"), load_corpus("tales")
    text = loaded.tokenizer.encode(corpus.test[:20_000])
    plant_outliers(loaded.model)
    losses = []
    for model in (loaded.model, rotated(loaded.model, online=True)):
        with activation_quantization(model, 6):
            losses.append(window_losses(model, text, limit=16))
    assert paired_difference(losses[1], losses[0]).high < -0.5


# ---- what cannot be rotated ----


def test_a_rotated_or_quantised_model_is_not_rotated_again():
    with pytest.raises(ValueError, match="rotated already"):
        rotate(rotated(gpt()))
    model = gpt()
    quantize_model(model, Recipe(bits=4))
    with pytest.raises(ValueError, match="quantised, compressed or rotated already"):
        rotate(model)


def test_a_width_without_a_hadamard_matrix_is_named_and_nothing_is_changed():
    for shape, what in (({"width": 18, "heads": 1}, "residual stream: .* 18 rows"),
                        ({"width": 20, "heads": 2}, "attention head: .* 10 rows")):
        model = GPT(GPTConfig(11, 16, layers=1, **shape))
        before = deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=what):
            rotate(model)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model = remove_neurons(gpt(), 0.75, TOKENS)
    model = remove_neurons(model, 0.25, TOKENS)  # 18 are left
    rotate(deepcopy(model))
    with pytest.raises(ValueError, match="second matrix: .* 18 rows"):
        rotate(model, online=True)


def test_what_needs_the_weights_of_norms_says_that_it_comes_before_a_rotation():
    model = rotated(gpt(), online=True)
    for change in (plant_outliers, partial(smoothquant, calibration=TOKENS)):
        with pytest.raises(ValueError, match="rescale before `rotate`"):
            change(model)
    with pytest.raises(ValueError, match="remove some before `rotate`"):
        remove_neurons(model, 0.5, TOKENS)


@pytest.mark.parametrize("damage", [
    {"base": None}, {"base": {"kind": "hadamard", "base": {"kind": "dense"}}}, {"base": {"kind": "head"}}, {"base": 3}])
def test_a_damaged_layout_of_a_turned_layer_is_refused_by_its_name(tmp_path, damage):
    save(tmp_path, checkpoint(rotated(gpt(), online=True)))
    tensors, card = read_folder(tmp_path)
    card["layers"]["blocks.0.mlp.down"].update(damage)
    write_folder(tmp_path, tensors, card)
    with pytest.raises(ValueError, match=r"do not fit its card: blocks\.0\.mlp\.down: "):
        load(tmp_path)


def test_signs_that_are_missing_or_too_few_are_refused(tmp_path):
    save(tmp_path, checkpoint(rotated(gpt(), online=True)))
    tensors, card = read_folder(tmp_path)
    for signs in (None, torch.zeros(3, dtype=torch.uint8), torch.zeros(12, dtype=torch.int8)):
        changed = tensors | {"blocks.0.mlp.down.signs": signs} if signs is not None else {
            name: tensor for name, tensor in tensors.items() if name != "blocks.0.mlp.down.signs"}
        write_folder(tmp_path, changed, card)
        with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.down: its 'signs'"):
            load(tmp_path)


def test_a_turned_layer_of_a_file_has_inputs_that_a_hadamard_matrix_fits():
    for inputs, fits in ((24, True), (18, False)):
        tensors = {"base.weight": torch.empty(4, inputs, device="meta"),
                   "signs": torch.empty(3, dtype=torch.uint8, device="meta")}
        with nullcontext() if fits else pytest.raises(ValueError, match="18 rows"):
            layer_from_layout({"kind": "hadamard", "base": {"kind": "dense"}}, tensors)


# ---- the cache ----


@torch.no_grad()
def test_a_cache_that_turns_gives_back_what_it_was_given_as_long_as_nothing_is_rounded():
    cache = QuantizedKVCache(1, 4, group=4, residual=8, hadamard=True)
    k, v = torch.randn(2, 1, 2, 8, 12, dtype=torch.float64, generator=seeded(0))
    for found, expected in zip(cache.extend(0, k, v), (k, v), strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_a_turned_cache_keeps_a_token_with_an_outlier_better():
    k = torch.randn(1, 2, 64, 16, generator=seeded(0))
    k[..., 3] = 30 * torch.randn(1, 2, 64, generator=seeded(1))
    errors = []
    for hadamard in (False, True):
        cache = QuantizedKVCache(1, 4, group=4, residual=0, key_granularity="token", hadamard=hadamard)
        cache.extend(0, k, k)
        found, _ = cache.extend(0, k[:, :, :0], k[:, :, :0])
        errors.append((found - k).square().mean(-1).flatten())  # of each token of each head
    assert paired_difference(errors[1], errors[0]).high < 0
