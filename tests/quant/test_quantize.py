import json
from copy import deepcopy
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nanoq.lm.checkpoint import WEIGHTS, Checkpoint, save_checkpoint
from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.numbers import BLOCKS
from nanoq.quant import (
    GRIDS,
    Grid,
    LayerSpec,
    LayerStats,
    QuantLinear,
    Recipe,
    affine_grid,
    linear_layers,
    load_quantized,
    nearest,
    pack,
    quantize_model,
    save_quantized,
)

RECIPES = {
    "nearest 8": Recipe.uniform(8),
    "nearest 2 symmetric": Recipe.uniform(2, grid_options={"symmetric": True}),
    "gptq 3": Recipe.uniform(3, "gptq"),
    "gptq 4 groups": Recipe.uniform(4, "gptq", grid_options={"granularity": "group", "group_size": 20},
                                    method_options={"act_order": True}),
    "tensor": Recipe.uniform(5, grid_options={"granularity": "tensor"}),
    "mixed": Recipe(LayerSpec(4), {"blocks.0.*": LayerSpec(8), "*.down": LayerSpec(16)}),
    "float16": Recipe.uniform(16),
} | {f"gptq {fmt.name}": Recipe.uniform(fmt.bits, "gptq", grid=fmt.name) for fmt in BLOCKS.values()}


@pytest.fixture
def checkpoint():
    tokenizer = CharTokenizer("abcdefgh")
    config = GPTConfig(tokenizer.vocab_size, context=16, layers=2, heads=2, width=32)
    model = GPT(config, seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # away from the near-uniform predictions of a new model
    return Checkpoint(model, tokenizer, {"config": asdict(config), "characters": "abcdefgh", "corpus": "none"})


@pytest.fixture
def tokens():
    return torch.randint(9, (12, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_saved_model_loads_with_the_same_logits_bit_for_bit(checkpoint, tokens, recipe, tmp_path):
    quantize_model(checkpoint.model, recipe, tokens)
    save_quantized(tmp_path, checkpoint, recipe)
    loaded = load_quantized(tmp_path)
    assert torch.equal(loaded.model(tokens), checkpoint.model(tokens))
    assert loaded.card["corpus"] == "none"
    assert Recipe.from_json(loaded.card["recipe"]) == recipe


@pytest.mark.parametrize("fmt", BLOCKS.values(), ids=BLOCKS)
def test_a_block_format_takes_its_bits_for_each_weight_and_no_more(fmt):
    weight = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
    grid = GRIDS[fmt.name](weight, fmt.bits)
    layer = QuantLinear.from_codes(nearest(weight, grid), grid)
    stored = sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers())
    once = {"nvfp4": 4, "nf4-dq": 4}.get(fmt.name, 0)  # one float32 for the whole matrix
    assert 8 * (stored - once) == fmt.bits_per_weight * weight.numel()
    assert torch.equal(layer.dequantize(), fmt.round(weight))


def test_a_codebook_without_a_name_is_stored():
    grid = Grid(2, 3, torch.ones(2, 1), 4, codebook=torch.tensor([-1.0, 0.0, 0.5]))
    layer = QuantLinear.from_codes(torch.tensor([[0, 1, 2, 2], [2, 0, 0, 1]]), grid)
    assert torch.equal(layer.dequantize(), torch.tensor([[-1.0, 0.0, 0.5, 0.5], [0.5, -1.0, -1.0, 0.0]]))
    assert torch.equal(layer.codebook, grid.codebook)


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_casting_a_model_leaves_the_quantised_weights_alone(checkpoint, tokens, cast):
    quantize_model(checkpoint.model, Recipe.uniform(4, grid="nf4"))
    layer = checkpoint.model.blocks[0].mlp.up
    weight = layer.dequantize()
    cast(checkpoint.model)
    assert torch.equal(layer.dequantize(), weight)
    assert checkpoint.model(tokens).dtype == checkpoint.model.token_embedding.weight.dtype


def test_a_bias_is_kept_in_float16(checkpoint, tokens, tmp_path):
    config = GPTConfig(9, context=16, layers=1, heads=2, width=32, bias=True)
    model = GPT(config)
    with torch.no_grad():
        model.blocks[0].mlp.up.bias.uniform_(-1, 1)
    biased = Checkpoint(model, checkpoint.tokenizer, checkpoint.card | {"config": asdict(config)})
    quantize_model(model, RECIPES["gptq 3"], tokens)
    save_quantized(tmp_path, biased, RECIPES["gptq 3"])
    assert load_file(tmp_path / WEIGHTS)["blocks.0.mlp.up.bias"].dtype == torch.float16
    assert torch.equal(load_quantized(tmp_path).model(tokens), model(tokens))


def test_every_linear_layer_of_the_blocks_is_quantised_and_nothing_else(checkpoint, tokens):
    names = set(linear_layers(checkpoint.model))
    reports = quantize_model(checkpoint.model, RECIPES["gptq 3"], tokens)
    quantised = {name for name, layer in checkpoint.model.named_modules() if isinstance(layer, QuantLinear)}
    assert len(names) == 8
    assert quantised == names == {report.layer for report in reports}
    assert not any(isinstance(layer, nn.Linear) for layer in checkpoint.model.modules())


def test_the_forward_pass_uses_the_quantised_weights(checkpoint, tokens):
    before = checkpoint.model(tokens)
    quantize_model(checkpoint.model, RECIPES["nearest 2 symmetric"])
    layer = checkpoint.model.blocks[0].mlp.up
    after = checkpoint.model(tokens)
    layer.scale.zero_()
    assert not torch.allclose(before, after, atol=1e-2)
    assert not torch.equal(after, checkpoint.model(tokens))


def test_what_is_left_is_rounded_to_float16(checkpoint):
    original = deepcopy(checkpoint.model)
    quantize_model(checkpoint.model, RECIPES["mixed"])
    for name, parameter in checkpoint.model.named_parameters():
        assert torch.equal(parameter, original.get_parameter(name).half().float())


def test_each_block_is_calibrated_on_the_outputs_of_the_quantised_ones_before_it(checkpoint, tokens):
    recipe = Recipe.uniform(2, "gptq")
    model, original = checkpoint.model, deepcopy(checkpoint.model)
    quantize_model(model, recipe, tokens, batch=5)
    entering = model.blocks[0](model.embed(tokens))  # the second block's input, after the quantised first one
    stats = LayerStats.of(model.blocks[1].attention_norm(entering).detach().reshape(-1, 32))
    weight = original.blocks[1].attention.qkv.weight.detach()
    grid = affine_grid(weight, 2)
    assert torch.equal(model.blocks[1].attention.qkv.codes, pack(recipe.default.round(weight, grid, stats), 2))


def test_true_sequential_calibrates_each_layer_on_the_quantised_ones_before_it(checkpoint, tokens):
    recipe = Recipe.uniform(2, "gptq")
    model, original = checkpoint.model, deepcopy(checkpoint.model)
    reports = quantize_model(model, recipe, tokens, true_sequential=True)
    assert [report.layer.split(".", 2)[2] for report in reports[:4]] == ["attention.qkv", "attention.out", "mlp.up",
                                                                         "mlp.down"]
    block = model.blocks[0]
    hidden = model.embed(tokens)
    hidden = hidden + block.attention(block.attention_norm(hidden))  # with quantised attention
    inner = nn.functional.gelu(block.mlp.up(block.mlp_norm(hidden)))
    weight = original.blocks[0].mlp.down.weight.detach()
    codes = recipe.default.round(weight, affine_grid(weight, 2), LayerStats.of(inner.detach().reshape(-1, 128)))
    assert torch.equal(block.mlp.down.codes, pack(codes, 2))


def test_gptq_has_less_error_than_nearest_in_every_layer(checkpoint, tokens):
    near = quantize_model(deepcopy(checkpoint.model), Recipe.uniform(3), tokens)
    best = quantize_model(deepcopy(checkpoint.model), Recipe.uniform(3, "gptq"), tokens)
    # A layer's inputs depend on how the blocks before it were rounded: compare within the first block.
    assert all(g.output_error < n.output_error for g, n in zip(best[:4], near[:4], strict=True))


def test_without_calibration_there_is_no_error_to_report(checkpoint):
    reports = quantize_model(checkpoint.model, Recipe.uniform(4))
    assert [report.output_error for report in reports] == [None] * 8


def test_a_method_that_needs_calibration_says_so(checkpoint):
    with pytest.raises(ValueError, match="needs calibration"):
        quantize_model(checkpoint.model, Recipe.uniform(4, "gptq"))


def test_a_broken_layer_is_named(checkpoint):
    with torch.no_grad():
        checkpoint.model.blocks[1].mlp.up.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.up: the weight holds NaN"):
        quantize_model(checkpoint.model, Recipe.uniform(4))


def test_warnings_of_a_method_are_reported_for_the_layer(checkpoint, tokens):
    recipe = Recipe.uniform(4, "gptq", method_options={"damping": 0.0})
    with pytest.warns(UserWarning, match=r"blocks\.\d\.\S+: the Hessian is singular"):
        reports = quantize_model(checkpoint.model, recipe, tokens[:1, :8])  # 8 tokens for 32 inputs
    assert any(report.warnings for report in reports)


def test_the_size_of_the_file_is_what_the_codes_take(checkpoint, tokens, tmp_path):
    sizes = {}
    for bits in (2, 3, 4, 8):
        copy = deepcopy(checkpoint)
        quantize_model(copy.model, Recipe.uniform(bits))
        sizes[bits] = (save_quantized(tmp_path / str(bits), copy, Recipe.uniform(bits)) / WEIGHTS).stat().st_size
    weights = sum(layer.weight.numel() for layer in linear_layers(checkpoint.model).values())
    rows = sum(len(layer.weight) for layer in linear_layers(checkpoint.model).values())
    for bits in (3, 4, 8):  # the header's length varies by a few characters
        assert sizes[bits] - sizes[2] == pytest.approx((weights + rows) * (bits - 2) / 8, abs=64)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_a_packed_layer_decodes_to_the_rounded_weight(bits, symmetric):
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    grid = affine_grid(weight, bits, symmetric=symmetric)
    decoded = QuantLinear.from_codes(nearest(weight, grid), grid).dequantize()
    assert torch.equal(decoded, grid.decode(nearest(weight, grid)))
    assert (decoded - weight).abs().max() <= 1.1 * grid.scale.max()


def test_a_layer_takes_inputs_of_any_float_type():
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)).half()
    grid = affine_grid(weight.float(), 4)
    layer = QuantLinear.from_codes(nearest(weight.float(), grid), grid, torch.ones(6))
    assert layer(torch.ones(2, 20, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_quantised_model_is_not_quantised_again(checkpoint):
    quantize_model(checkpoint.model, Recipe.uniform(4))
    with pytest.raises(ValueError, match="quantised already"):
        quantize_model(checkpoint.model, Recipe.uniform(2))


def test_what_float16_cannot_hold_is_named(checkpoint):
    with torch.no_grad():
        checkpoint.model.token_embedding.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"token_embedding\.weight holds NaN"):
        quantize_model(checkpoint.model, Recipe.uniform(4))


@pytest.mark.parametrize("shape", [(0, 16), (12, 0), (16,)])
def test_calibration_without_windows_is_an_error(checkpoint, shape):
    with pytest.raises(ValueError, match="calibration must be tokens"):
        quantize_model(checkpoint.model, Recipe.uniform(4), torch.zeros(shape, dtype=torch.long))


def test_a_card_that_is_no_json_leaves_the_old_checkpoint_whole(checkpoint, tokens, tmp_path):
    quantize_model(checkpoint.model, Recipe.uniform(4))
    save_quantized(tmp_path, checkpoint, Recipe.uniform(4))
    checkpoint.card["corpus"] = object()
    with pytest.raises(TypeError):
        save_quantized(tmp_path, checkpoint, Recipe.uniform(4))
    assert torch.equal(load_quantized(tmp_path).model(tokens), checkpoint.model(tokens))


def test_a_layer_computes_what_its_dequantised_weight_gives():
    weight = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    bias, x = torch.arange(5.0), torch.ones(2, 3, 11)
    grid = affine_grid(weight, 3)
    codes = nearest(weight, grid)
    layer = QuantLinear.from_codes(codes, grid, bias)
    assert torch.equal(layer.dequantize(), grid.decode(codes))
    assert torch.equal(layer(x), nn.functional.linear(x, grid.decode(codes), bias))
    assert "bits=3" in str(layer)


def test_an_unquantised_checkpoint_loads_too(checkpoint, tokens, tmp_path):
    save_checkpoint(tmp_path, checkpoint.model, checkpoint.tokenizer)
    assert torch.equal(load_quantized(tmp_path).model(tokens), checkpoint.model(tokens))


@pytest.mark.parametrize("change", [
    lambda card: card["layers"]["blocks.0.mlp.up"].update(bits=3),
    lambda card: card["layers"]["blocks.0.mlp.up"].update(in_features=16),
    lambda card: card["layers"].pop("blocks.0.mlp.up"),
    lambda card: card["layers"].update({"blocks.7.mlp.up": card["layers"]["blocks.0.mlp.up"]}),
    lambda card: card.update(layers=[1, 2]),
    lambda card: card["config"].update(width=64),
])
def test_a_card_that_does_not_fit_its_weights_is_an_error(checkpoint, tmp_path, change):
    quantize_model(checkpoint.model, Recipe.uniform(4))
    save_quantized(tmp_path, checkpoint, Recipe.uniform(4))
    card = json.loads((tmp_path / "card.json").read_text())
    change(card)
    del card["model_sha256"]  # as in a card that was written by hand
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="do not fit its card"):
        load_quantized(tmp_path)
