import json
from copy import deepcopy

import pytest
import torch

from nanoq.compress import (
    AdapterLinear,
    LowRankLinear,
    SparseLinear,
    SparseQuantLinear,
    add_adapters,
    compress_model,
    distillation,
    load_compressed,
    packing,
    pruning,
    remove_blocks,
    remove_heads,
    remove_neurons,
    save_compressed,
    thinning,
)
from nanoq.lm import GPT, CharTokenizer, GPTConfig, TrainConfig, train
from nanoq.lm.checkpoint import save_checkpoint
from nanoq.lm.train import next_token_loss
from nanoq.quant import LayerSpec, Recipe, linear_layers, load_quantized, quantize_model, save_quantized
from nanoq.store import Checkpoint
from nanoq.store import restored_layer as restored

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
    quantize_model(model, Recipe.uniform(3), TOKENS)
    add_adapters(model, 4, original, TOKENS)


CHANGES = {
    "sparse": (lambda m: compress_model(m, pruning("magnitude", 0.6)), SparseLinear),
    "sparse matrix": (lambda m: compress_model(m, pruning("sparsegpt", 0.6, "matrix"), TOKENS), SparseLinear),
    "2:4": (lambda m: compress_model(m, pruning("wanda", pattern="2:4"), TOKENS), SparseLinear),
    "sparse and 3 bits": (lambda m: compress_model(m, pruning(spec=LayerSpec(3)), TOKENS), SparseQuantLinear),
    "sparse and symmetric groups": (lambda m: compress_model(m, pruning(spec=LayerSpec(
        4, grid_options={"granularity": "group", "group_size": 16, "symmetric": True})), TOKENS), SparseQuantLinear),
    "sparse and nf4": (lambda m: compress_model(m, pruning(spec=LayerSpec(4, "nf4")), TOKENS), SparseQuantLinear),
    "low rank": (lambda m: compress_model(m, thinning(0.5), TOKENS), LowRankLinear),
    "adapters": (adapted, AdapterLinear),
    "heads": (lambda m: remove_heads(m, {0: [1]}), torch.nn.Linear),
    "blocks": (lambda m: remove_blocks(m, [0]), torch.nn.Linear),
    "neurons": (lambda m: remove_neurons(m, 0.25, TOKENS), torch.nn.Linear),
    "all of it": (lambda m: compress_model(remove_neurons(remove_heads(m, {1: [0]}), 0.5, TOKENS), pruning(), TOKENS),
                  SparseLinear),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_compressed_model_comes_back_bit_for_bit_and_is_smaller(name, tmp_path):
    start = checkpoint()
    whole = save_compressed(tmp_path / "whole", start)
    change, kind = CHANGES[name]
    change(start.model)
    dense_half(start.model)
    assert isinstance(start.model.blocks[0].mlp.up, kind)
    path = save_compressed(tmp_path / "small", start)
    loaded = load_compressed(path)
    assert torch.equal(loaded.model(TOKENS), start.model(TOKENS))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, path)]
    assert sizes[1] < 0.98 * sizes[0]
    again = save_compressed(tmp_path / "again", loaded)
    assert (again / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()


def test_the_file_of_a_sparse_model_has_a_bit_a_weight_and_two_bytes_for_each_that_stayed(tmp_path):
    model = compress_model(checkpoint().model, pruning("magnitude", 0.75))
    for name, layer in linear_layers(checkpoint().model).items():
        sparse = model.get_submodule(name)
        assert sparse.mask.numel() == layer.weight.numel() // 8
        assert sparse.values.numel() == layer.weight.numel() // 4 and sparse.values.dtype == torch.float16


def test_the_other_loaders_and_this_one(tmp_path):
    start = checkpoint()
    save_checkpoint(tmp_path / "plain", start.model, start.tokenizer)
    assert torch.equal(load_compressed(tmp_path / "plain").model(TOKENS), start.model(TOKENS))
    recipe = Recipe.uniform(3)
    start.card = json.loads((tmp_path / "plain/card.json").read_text())
    quantize_model(start.model, recipe)
    save_quantized(tmp_path / "3-bit", start, recipe)
    assert torch.equal(load_compressed(tmp_path / "3-bit").model(TOKENS), start.model(TOKENS))
    sparse = checkpoint()
    compress_model(sparse.model, pruning("magnitude"))
    save_compressed(tmp_path / "sparse", sparse)
    dense_half(sparse.model)
    assert torch.equal(load_quantized(tmp_path / "sparse").model(TOKENS), sparse.model(TOKENS))


def test_a_damaged_card_says_so(tmp_path):
    start = checkpoint()
    compress_model(start.model, pruning("magnitude"))
    path = save_compressed(tmp_path / "sparse", start)
    card = json.loads((path / "card.json").read_text())
    del card["model_sha256"]
    card["layers"]["blocks.0.mlp.up"]["kind"] = "knitted"
    (path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="no kind of layer 'knitted'"):
        load_compressed(path)


def test_each_block_is_changed_on_what_the_changed_ones_before_it_give():
    seen = {}

    def change(name, layer, stats):
        seen[name] = stats.gram
        with torch.no_grad():
            layer.weight.mul_(0.5)
        return layer
    compress_model(checkpoint().model, change, TOKENS)
    model = checkpoint().model
    with torch.no_grad():
        for layer in linear_layers(model).values():
            layer.weight.mul_(0.5)
        hidden = model.blocks[1].attention_norm(model.blocks[0](model.embed(TOKENS))).flatten(0, 1)
    assert torch.allclose(seen["blocks.1.attention.qkv"], hidden.T @ hidden / len(hidden), atol=1e-4)
    assert list(seen) == list(linear_layers(model))


def test_training_after_pruning_and_packing_what_is_left():
    model = compress_model(checkpoint().model, pruning("magnitude", 0.5, pack=False))
    dense_half(model)
    packed = compress_model(deepcopy(model), packing)
    assert torch.equal(packed(TOKENS), model(TOKENS))


def test_only_adapters_are_trained_and_they_start_where_the_packed_model_is():
    start = checkpoint()
    quantize_model(start.model, Recipe.uniform(2), TOKENS)
    wanted = start.model(TOKENS)
    packed = {name: buffer.clone() for name, buffer in start.model.named_buffers()}
    add_adapters(start.model, 4)
    assert torch.equal(start.model(TOKENS), wanted)
    trained = [name for name, p in start.model.named_parameters() if p.requires_grad]
    assert trained and all(".adapter." in name for name in trained)
    rows = TOKENS.flatten()
    config = TrainConfig(characters=60 * 8 * 16, optimizer="adamw", lr=1e-2, lr_rest=1e-3, warmup=5, valid_windows=2)
    before = next_token_loss(start.model, TOKENS).item()
    train(start.model, rows, rows, config)
    assert next_token_loss(start.model, TOKENS).item() < before - 0.1
    after = {name.replace(".base.", "."): buffer for name, buffer in start.model.named_buffers()}
    assert after.keys() == packed.keys() and all(torch.equal(packed[name], after[name]) for name in packed)


def test_a_correction_takes_away_error():
    start, rounded = checkpoint(), checkpoint()
    quantize_model(rounded.model, Recipe.uniform(2), TOKENS)
    wanted, before = start.model(TOKENS), rounded.model(TOKENS)
    add_adapters(rounded.model, 8, start.model, TOKENS)
    assert (rounded.model(TOKENS) - wanted).norm() < 0.8 * (before - wanted).norm()


@torch.no_grad()
def test_distillation_is_zero_for_the_teacher_itself_and_the_text_counts_by_its_share():
    model, other = checkpoint().model, GPT(CONFIG, seed=5).eval()
    assert float(distillation(model, temperature=2)(model, TOKENS)) == pytest.approx(0, abs=1e-6)
    assert float(distillation(model, share=0)(other, TOKENS)) == pytest.approx(float(next_token_loss(other, TOKENS)))
    assert float(distillation(model, share=1)(other, TOKENS)) > 0.1


def test_a_correction_stands_beside_sparse_codes_too(tmp_path):
    start, original = checkpoint(), checkpoint().model
    compress_model(start.model, pruning(spec=LayerSpec(3)), TOKENS)
    add_adapters(start.model, 2, original, TOKENS)
    dense_half(start.model)
    loaded = load_compressed(save_compressed(tmp_path, start))
    assert torch.equal(loaded.model(TOKENS), start.model(TOKENS))


@pytest.mark.parametrize("spec", [None, LayerSpec(4)])
def test_a_packed_layer_keeps_its_types(spec):
    model = compress_model(checkpoint().model, pruning(spec=spec), TOKENS)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for cast in (model.double(), model.float()):
        assert all(torch.equal(before[name], buffer) and before[name].dtype == buffer.dtype
                   for name, buffer in cast.named_buffers())
    layer = model.blocks[0].mlp.up
    assert layer(torch.ones(1, 32).bfloat16()).dtype == torch.bfloat16
    assert "128" in repr(layer) or spec is None


def test_values_that_are_not_those_of_the_mask_are_found(tmp_path):
    layer = SparseLinear.of(torch.eye(8))
    for values in (layer.values[:-1], torch.cat((layer.values, layer.values))):
        with pytest.raises(ValueError, match="values for the 8 weights of a mask"):
            restored(layer.layout, {"mask": layer.mask, "values": values}).check_values()


def test_nan_is_not_packed_and_what_float16_cannot_hold_is_kept_in_float32():
    weight = torch.eye(8)
    weight[0, 0] = 1e5
    assert torch.equal(SparseLinear.of(weight).dequantize(), weight)
    weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the weight holds NaN"):
        SparseLinear.of(weight)


def test_what_a_file_has_no_room_for_says_so(tmp_path):
    thin = checkpoint()
    compress_model(thin.model, thinning(0.5))
    with pytest.raises(ValueError, match="blocks.0.attention.qkv: the layer is thin already"):
        compress_model(thin.model, pruning("magnitude"))
    quantize_model(thin.model, Recipe.uniform(4))
    with pytest.raises(ValueError, match="blocks.0.attention.qkv.down is a packed layer within a thin one"):
        save_compressed(tmp_path, thin)
    with pytest.raises(ValueError, match="no linear layer in its blocks: was it pruned already"):
        quantize_model(compress_model(checkpoint().model, pruning("magnitude")), Recipe.uniform(4))


def test_what_cannot_be_compressed_says_why():
    with pytest.raises(ValueError, match="no method 'guess'"):
        pruning("guess")
    for options in ({"spec": LayerSpec(4), "pack": False}, {"spec": LayerSpec(16)}):
        with pytest.raises(ValueError, match="a spec is for weights that are rounded and packed"):
            pruning(**options)
    rounded = checkpoint()
    quantize_model(rounded.model, Recipe.uniform(3))
    for rank in (-1, 0, 33):
        with pytest.raises(ValueError, match=f"rank must be in 1..32 for a weight of shape .*, not {rank}"):
            add_adapters(deepcopy(rounded.model), rank)
    quantised = checkpoint()
    quantize_model(quantised.model, Recipe.uniform(3))
    for change in (pruning("magnitude"), thinning(0.5), packing):
        with pytest.raises(ValueError, match="blocks.0.attention.qkv: the layer is quantised already"):
            compress_model(quantised.model, change)
    with pytest.raises(ValueError, match="no linear layer in its blocks"):
        compress_model(compress_model(checkpoint().model, pruning("magnitude")), packing)
    with pytest.raises(ValueError, match="adapters stand beside packed layers"):
        add_adapters(checkpoint().model, 4)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\)"):
        thinning(1.0)
    with pytest.raises(ValueError, match="blocks.0.attention.qkv: the layer saw no calibration"):
        compress_model(checkpoint().model, pruning("wanda"))
