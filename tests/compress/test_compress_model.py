import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from nanoq.compress import (
    AdapterLinear,
    LowRank,
    LowRankLinear,
    Prune,
    SparseLinear,
    SparseQuantLinear,
    add_adapters,
    compress_model,
    distillation,
    remove_blocks,
    remove_heads,
    remove_neurons,
)
from nanoq.lm import GPT, CharTokenizer, GPTConfig, TrainConfig, train
from nanoq.lm.training import next_token_loss
from nanoq.quant import QuantLinear, Recipe, Round, affine_grid, linear_layers, quantize_model
from nanoq.quant.visit import visit
from nanoq.store import Checkpoint, layer_from_layout, load, save

CHARACTERS = "abcdefghij"  # and one id for what is unknown
CONFIG = GPTConfig(vocab_size=11, context=16, layers=2, heads=2, width=32, bias=True)
TOKENS = torch.randint(11, (24, 16), generator=torch.Generator().manual_seed(1))


def checkpoint():
    model = GPT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return Checkpoint(model.eval(), CharTokenizer(CHARACTERS), {"characters": CHARACTERS, "config": {}})


def dense_half(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()


def adapted(model):
    original = deepcopy(model)
    quantize_model(model, Recipe(bits=3), TOKENS)
    add_adapters(model, 4, original, TOKENS)


CHANGES = {
    "sparse": (lambda m: compress_model(m, Prune("magnitude", 0.6)), SparseLinear),
    "sparse matrix": (lambda m: compress_model(m, Prune("sparsegpt", 0.6, "matrix"), TOKENS), SparseLinear),
    "2:4": (lambda m: compress_model(m, Prune("wanda", pattern="2:4"), TOKENS), SparseLinear),
    "sparse and 3 bits": (lambda m: compress_model(m, [Prune(), Round("gptq", bits=3)], TOKENS), SparseQuantLinear),
    "sparse and symmetric groups": (lambda m: compress_model(m, [Prune(), Round("gptq", bits=4, group_size=16,
        symmetric=True)], TOKENS), SparseQuantLinear),
    "sparse and nf4": (lambda m: compress_model(m, [Prune(), Round("gptq", grid="nf4")], TOKENS), SparseQuantLinear),
    "sparse, then nearest": (lambda m: compress_model(m, [Prune("magnitude"), Round(bits=4)]), SparseQuantLinear),
    "wanda, then gptq": (lambda m: compress_model(m, [Prune("wanda"), Round("gptq", bits=4)], TOKENS),
                         SparseQuantLinear),
    "low rank": (lambda m: compress_model(m, LowRank(0.5), TOKENS), LowRankLinear),
    "adapters": (adapted, AdapterLinear),
    "heads": (lambda m: remove_heads(m, {0: [1]}), torch.nn.Linear),
    "blocks": (lambda m: remove_blocks(m, [0]), torch.nn.Linear),
    "neurons": (lambda m: remove_neurons(m, 0.25, TOKENS), torch.nn.Linear),
    "all of it": (lambda m: compress_model(remove_neurons(remove_heads(m, {1: [0]}), 0.5, TOKENS), Prune(), TOKENS),
                  SparseLinear),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_compressed_model_comes_back_bit_for_bit_and_is_smaller(name, tmp_path):
    start = checkpoint()
    whole = save(tmp_path / "whole", start)
    change, kind = CHANGES[name]
    change(start.model)
    dense_half(start.model)
    assert isinstance(start.model.blocks[0].mlp.up, kind)
    path = save(tmp_path / "small", start)
    loaded = load(path)
    assert torch.equal(loaded.model(TOKENS), start.model(TOKENS))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, path)]
    assert sizes[1] < 0.98 * sizes[0]
    again = save(tmp_path / "again", loaded)
    assert (again / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()


def test_sparse_weights_that_are_not_rounded_stay_as_they_are():
    pruned = compress_model(checkpoint().model, Prune(), TOKENS)
    idle = compress_model(checkpoint().model, [Prune(), Round("gptq", bits=16)], TOKENS)
    assert torch.equal(pruned(TOKENS), idle(TOKENS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", CHANGES)
def test_a_model_of_any_type_is_compressed_to_about_the_same(name, dtype):
    plain, other = checkpoint().model, checkpoint().model.to(dtype)
    for model in (plain, other):
        CHANGES[name][0](model)
    assert other(TOKENS).dtype == dtype
    change, unit = (other(TOKENS) - plain(TOKENS)).detach().float(), plain(TOKENS).detach().std()
    assert change.abs().median() < 0.1 * unit


def test_the_file_of_a_sparse_model_has_a_bit_a_weight_and_two_bytes_for_each_that_stayed(tmp_path):
    model = compress_model(checkpoint().model, Prune("magnitude", 0.75))
    for name, layer in linear_layers(checkpoint().model).items():
        sparse = model.get_submodule(name)
        assert sparse.mask.numel() == layer.weight.numel() // 8
        assert sparse.values.numel() == layer.weight.numel() // 4 and sparse.values.dtype == torch.float16


def test_the_other_loaders_and_this_one(tmp_path):
    start = checkpoint()
    save(tmp_path / "plain", Checkpoint(start.model, start.tokenizer, {}))
    assert torch.equal(load(tmp_path / "plain").model(TOKENS), start.model(TOKENS))
    recipe = Recipe(bits=3)
    start.card = json.loads((tmp_path / "plain/card.json").read_text())
    quantize_model(start.model, recipe)
    save(tmp_path / "3-bit", start)
    assert torch.equal(load(tmp_path / "3-bit").model(TOKENS), start.model(TOKENS))
    sparse = checkpoint()
    compress_model(sparse.model, Prune("magnitude"))
    save(tmp_path / "sparse", sparse)
    dense_half(sparse.model)
    assert torch.equal(load(tmp_path / "sparse").model(TOKENS), sparse.model(TOKENS))


def test_a_damaged_card_says_so(tmp_path):
    start = checkpoint()
    compress_model(start.model, Prune("magnitude"))
    path = save(tmp_path / "sparse", start)
    card = json.loads((path / "card.json").read_text())
    del card["model_sha256"]
    card["layers"]["blocks.0.mlp.up"]["kind"] = "knitted"
    (path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="no kind of layer 'knitted'"):
        load(path)


def test_each_block_is_changed_on_what_the_changed_ones_before_it_give():
    seen = {}

    original = checkpoint().model
    for name, layer, stats in visit(original.eval(), [TOKENS], linear_layers(original)):
        seen[name] = stats.gram
        with torch.no_grad():
            layer.weight.mul_(0.5)
    model = checkpoint().model
    with torch.no_grad():
        for layer in linear_layers(model).values():
            layer.weight.mul_(0.5)
        hidden = model.blocks[1].attention_norm(model.blocks[0](model.embed(TOKENS))).flatten(0, 1)
    assert torch.allclose(seen["blocks.1.attention.qkv"], hidden.T @ hidden / len(hidden), atol=1e-4)
    assert list(seen) == list(linear_layers(model))


def test_training_after_pruning_and_packing_what_is_left():
    model = compress_model(checkpoint().model, Prune("magnitude", 0.5, pack=False))
    dense_half(model)
    packed = compress_model(deepcopy(model), Prune("magnitude", 0))
    assert torch.equal(packed(TOKENS), model(TOKENS))


def test_only_adapters_are_trained_and_they_start_where_the_packed_model_is():
    start = checkpoint()
    quantize_model(start.model, Recipe(bits=2), TOKENS)
    wanted = start.model(TOKENS)
    packed = {name: buffer.clone() for name, buffer in start.model.named_buffers()}
    add_adapters(start.model, 4)
    assert torch.equal(start.model(TOKENS), wanted)
    trained = [name for name, p in start.model.named_parameters() if p.requires_grad]
    assert trained and all(".adapter." in name for name in trained)
    rows = TOKENS.flatten()
    config = TrainConfig(tokens=60 * 8 * 16, optimizer="adamw", lr=1e-2, lr_rest=1e-3, warmup=5, valid_windows=2)
    before = next_token_loss(start.model, TOKENS).item()
    train(start.model, rows, rows, config)
    assert next_token_loss(start.model, TOKENS).item() < before - 0.1
    after = {name.replace(".base.", "."): buffer for name, buffer in start.model.named_buffers()}
    assert after.keys() == packed.keys() and all(torch.equal(packed[name], after[name]) for name in packed)


def test_a_correction_takes_away_error():
    start, rounded = checkpoint(), checkpoint()
    quantize_model(rounded.model, Recipe(bits=2), TOKENS)
    wanted, before = start.model(TOKENS), rounded.model(TOKENS)
    add_adapters(rounded.model, 8, start.model, TOKENS)
    assert (rounded.model(TOKENS) - wanted).norm() < 0.8 * (before - wanted).norm()


@torch.no_grad()
def test_distillation_is_zero_for_the_teacher_itself_and_the_text_counts_by_its_share():
    model, other = checkpoint().model, GPT(CONFIG, seed=5).eval()
    assert float(distillation(model, temperature=2)(model, TOKENS)) == pytest.approx(0, abs=1e-6)
    assert float(distillation(model, alpha=0)(other, TOKENS)) == pytest.approx(float(next_token_loss(other, TOKENS)))
    assert float(distillation(model, alpha=1)(other, TOKENS)) > 0.1


def test_a_correction_stands_beside_sparse_codes_too(tmp_path):
    start, original = checkpoint(), checkpoint().model
    compress_model(start.model, [Prune(), Round("gptq", bits=3)], TOKENS)
    add_adapters(start.model, 2, original, TOKENS)
    dense_half(start.model)
    loaded = load(save(tmp_path, start))
    assert torch.equal(loaded.model(TOKENS), start.model(TOKENS))


@pytest.mark.parametrize("more", [[], [Round("gptq", bits=4)]])
def test_a_packed_layer_keeps_its_types(more):
    model = compress_model(checkpoint().model, [Prune(), *more], TOKENS)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for cast in (model.double(), model.float()):
        assert all(torch.equal(before[name], buffer) and before[name].dtype == buffer.dtype
                   for name, buffer in cast.named_buffers())
    layer = model.blocks[0].mlp.up
    assert layer(torch.ones(1, 32).bfloat16()).dtype == torch.bfloat16
    assert "128" in repr(layer) or not more


def test_values_that_are_not_those_of_the_mask_are_found(tmp_path):
    layer = SparseLinear.from_weight(torch.eye(8))
    for values in (layer.values[:-1], torch.cat((layer.values, layer.values))):
        with pytest.raises(ValueError, match="values for the 8 weights of a mask"):
            layer_from_layout(layer.layout, {"mask": layer.mask, "values": values}).check_values()


def test_nan_is_not_packed_and_what_float16_cannot_hold_is_kept_in_float32():
    weight = torch.eye(8)
    weight[0, 0] = 1e5
    assert torch.equal(SparseLinear.from_weight(weight).dequantize(), weight)
    weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the weight holds NaN"):
        SparseLinear.from_weight(weight)


def test_what_a_file_has_no_room_for_says_so(tmp_path):
    thin = checkpoint()
    compress_model(thin.model, LowRank(0.5, whitened=False))
    for step in (Prune("magnitude"), Round(bits=4)):
        with pytest.raises(ValueError, match=r"compressed already \(blocks.0.attention.qkv is a LowRankLinear\)"):
            compress_model(thin.model, step)
    for steps in ([LowRank(0.5), Round(bits=4)], [Round(bits=4), Prune("magnitude")], [Prune(), LowRank(0.5)]):
        with pytest.raises(ValueError, match="a low-rank layer is not rounded|is not pruned|is given no low rank"):
            compress_model(checkpoint().model, steps, TOKENS)
    layer = thin.model.blocks[0].attention.qkv
    layer.down = QuantLinear.from_codes(torch.zeros(layer.down.weight.shape, dtype=torch.uint8), affine_grid(
        layer.down.weight.detach(), 4))
    with pytest.raises(ValueError, match="blocks.0.attention.qkv.down is a packed layer within a thin one"):
        save(tmp_path, thin)


def test_what_cannot_be_compressed_says_why():
    with pytest.raises(ValueError, match="no method 'guess'"):
        Prune("guess")
    for options in ({"sparsity": 1.0}, {"pattern": "4:2"}):
        with pytest.raises(ValueError, match="sparsity must lie|pattern must be"):
            Prune(**options)
    for step in (Round("adaround", bits=4), Round("gptq", bits=4, act_order=True), Round(bits=4, refit=True)):
        with pytest.raises(ValueError, match="a sparse layer is rounded by nearest or gptq"):
            compress_model(checkpoint().model, [Prune(), step], TOKENS)
    rounded = checkpoint()
    quantize_model(rounded.model, Recipe(bits=3))
    for rank in (-1, 0, 33):
        with pytest.raises(ValueError, match=f"rank must be in 1..32 for a weight of shape .*, not {rank}"):
            add_adapters(deepcopy(rounded.model), rank)
    quantised = checkpoint()
    quantize_model(quantised.model, Recipe(bits=3))
    for step in (Prune("magnitude"), LowRank(0.5, whitened=False)):
        with pytest.raises(ValueError, match="quantised already"):
            compress_model(quantised.model, step)
    with pytest.raises(ValueError, match="compressed already"):
        compress_model(compress_model(checkpoint().model, Prune("magnitude")), Prune("magnitude", 0))
    with pytest.raises(ValueError, match="adapters stand beside packed layers"):
        add_adapters(checkpoint().model, 4)
    with pytest.raises(ValueError, match=r"ratio must lie in \(0, 1\)"):
        LowRank(1.0)
    with pytest.raises(ValueError, match="needs calibration"):
        compress_model(checkpoint().model, Prune("wanda"))


@pytest.mark.parametrize("grid", ["k-means", "nf4", "affine"])
def test_what_is_pruned_is_0_on_a_grid_without_a_0_too(grid):
    layer = nn.Linear(16, 8)
    made = Recipe(Prune("magnitude", 0.5), Round("nearest", 4, grid)).default(layer, None)
    assert float((made.dequantize() == 0).float().mean()) >= 0.5
    assert torch.equal(made.dequantize() == 0, made.dequantize() * layer.weight == 0)
