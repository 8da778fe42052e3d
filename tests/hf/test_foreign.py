"""Folders that other programs have quantised: opened, measured, saved and exported as any other."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make, make_tokenizer
from torch import nn
from typer.testing import CliRunner

import nanoq
from nanoq.cli import app
from nanoq.hf import HFModel
from nanoq.hf import checkpoint as doors
from nanoq.quant import (
    QuantLinear,
    Recipe,
    Round,
    export_compressed_tensors,
    export_gptq,
    import_compressed_tensors,
    linear_layers,
    quantize_model,
)
from nanoq.store import WEIGHTS, Checkpoint

TOKENS = torch.randint(3, 97, (3, 9), generator=torch.Generator().manual_seed(1))
CASES = [("gptq", "opt"), ("gptq", "gpt2"), ("gptq", "llama, tied"), ("gptq", "bert encoder"),
         ("compressed-tensors", "opt"), ("compressed-tensors", "llama, tied"), ("compressed-tensors", "qwen3")]


def quantised(family, **options):
    model = HFModel(make(family)).eval()
    quantize_model(model, Recipe("nearest", **({"bits": 4, "group_size": 16, "symmetric": True} | options)))
    return Checkpoint(model, make_tokenizer(), {})


def write_awq(folder, family="llama"):
    """A file of random words in the place of each linear layer, and the model without them."""
    model, random = make(family), torch.Generator().manual_seed(0)
    model.save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name != "lm_head":
            out, n = layer.weight.shape
            words = partial(torch.randint, -2**31, 2**31, generator=random)
            del tensors[f"{name}.weight"]
            tensors |= {f"{name}.qweight": words((n, out // 8)).int(),
                        f"{name}.qzeros": words((n // 16, out // 8)).int(),
                        f"{name}.scales": torch.rand(n // 16, out, generator=random).half()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    edit(folder, {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"})


def edit(folder, block):
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": block}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("method", "family"), CASES)
def test_one_call_opens_what_was_exported(method, family, tmp_path):
    made = quantised(family)
    {"gptq": export_gptq, "compressed-tensors": export_compressed_tensors}[method](tmp_path / "in", made)
    loaded = nanoq.load(tmp_path / "in")
    assert torch.equal(loaded.model(TOKENS), made.model(TOKENS))
    assert all(isinstance(layer, QuantLinear) for name, layer in loaded.model.named_modules() if name in
               {name for name, layer in made.model.named_modules() if isinstance(layer, QuantLinear)})
    assert loaded.tokenizer("the film").input_ids == made.tokenizer("the film").input_ids
    again = nanoq.load(nanoq.save(tmp_path / "out", loaded))
    assert torch.equal(again.model(TOKENS), made.model(TOKENS))


def test_one_call_opens_awq(tmp_path):
    write_awq(tmp_path / "in")
    loaded = nanoq.load(tmp_path / "in")
    assert isinstance(loaded.model.blocks[1].mlp.up_proj, QuantLinear)
    expected = make("llama")
    for name, layer in loaded.model.model.named_modules():
        if isinstance(layer, QuantLinear):
            expected.get_submodule(name).weight.data = layer.dequantize()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.copy_(parameter.half() if parameter.dim() < 2 or len(parameter) == 97 else parameter)
        assert torch.allclose(loaded.model(TOKENS), expected(TOKENS).logits, atol=1e-4)
    again = nanoq.load(nanoq.save(tmp_path / "out", loaded))
    assert torch.equal(again.model(TOKENS), loaded.model(TOKENS))


def test_gptq_is_known_by_the_older_file_too(tmp_path):
    made = quantised("opt", symmetric=False)
    export_gptq(tmp_path, made)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(nanoq.load(tmp_path).model(TOKENS), made.model(TOKENS))


def test_a_quantised_model_of_the_hub_is_fetched(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    made = quantised("opt")
    export_gptq(tmp_path, made)
    fetch = doors._fetch
    monkeypatch.setattr(doors, "_fetch", lambda cls, place, **options: fetch(
        cls, str(tmp_path) if place == "owner/name" else place, **options))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(tmp_path))
    assert torch.equal(nanoq.load("owner/name").model(TOKENS), made.model(TOKENS))


@pytest.mark.parametrize(("block", "message"), [
    ({"quant_method": "bitsandbytes"}, "is 'bitsandbytes', and nanoq reads gptq, awq, compressed-tensors: load the"),
    ({"quant_method": None}, "quant_method is None, and nanoq reads"),
    ({"quant_method": "awq", "bits": 3}, "not of method 'awq', version 'gemm', 4 bits"),
    ({"quant_method": "compressed-tensors", "format": "float-quantized",
      "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "with float, float-quantized, not"),
    ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
        "group_0": {"weights": {"num_bits": 4, "type": "int"}, "input_activations": {"num_bits": 8}}}},
     "quantises activations or the cache, too"),
    ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": None}}}, "is damaged"),
    ({"quant_method": "compressed-tensors"}, "is damaged"),
])
def test_what_is_quantised_in_another_way_is_refused_in_one_sentence(block, message, tmp_path):
    write_awq(tmp_path)
    edit(tmp_path, block)
    with pytest.raises(ValueError, match=message) as caught:
        nanoq.load(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_kind_is_chosen_when_the_original_is_loaded(tmp_path):
    export_gptq(tmp_path, quantised("opt"))
    with pytest.raises(ValueError, match="it is quantised: a kind is chosen when the original is loaded"):
        nanoq.load(tmp_path, "encoder")


# ---- compressed-tensors, as other programs write it ----


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("options", [{}, {"group_size": 64}, {"granularity": "tensor"}], ids=["group", "row", "tensor"])
def test_every_width_and_granularity_comes_back(bits, options, tmp_path):
    model = HFModel(make("llama")).eval()
    how = {"granularity": "group", "group_size": 16} if not options else options | {"granularity": "tensor"} \
        if "granularity" in options else {}
    quantize_model(model, Recipe(bits=bits, grid_options={"symmetric": True} | how))
    export_compressed_tensors(tmp_path, model)
    loaded = import_compressed_tensors(tmp_path, HFModel(make("llama", seed=5)))
    assert torch.equal(loaded(TOKENS), model(TOKENS))


def test_several_widths_are_told_apart_by_their_tensors(tmp_path):
    model, even = HFModel(make("llama")).eval(), {"grid_options": {"symmetric": True}}
    quantize_model(model, Recipe(Round(bits=4, **even), rules={
        "blocks.0.mlp.*": Round(bits=8, **even), "blocks.1.self_attn.v_proj": Round(bits=16)}))
    export_compressed_tensors(tmp_path, model)
    assert torch.equal(nanoq.load(tmp_path).model(TOKENS), model(TOKENS))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_zero_points_and_sorted_columns_are_read_as_the_package_packs_them(bits, tmp_path):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    random, (out, n) = torch.Generator().manual_seed(bits), (12, 32)
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (out, n), generator=random).to(torch.int8)
    zero = torch.randint(-half, half, (out, 2), generator=random).to(torch.int8)
    scale, order = torch.rand(out, 2, generator=random).bfloat16(), torch.randperm(n, generator=random)
    group = (torch.arange(n, dtype=torch.int32) // 16)[order.argsort()]
    expected = scale.float()[:, group] * (codes.float() - zero.float()[:, group])
    tensors = {"weight_packed": helpers.pack_to_int32(codes, bits), "weight_scale": scale,
               "weight_zero_point": helpers.pack_to_int32(zero, bits, packed_dim=0).contiguous(),
               "weight_shape": torch.tensor([out, n]), "weight_g_idx": group}
    save_file({f"0.{name}": tensor for name, tensor in tensors.items()}, tmp_path / WEIGHTS)
    block = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": bits, "type": "int", "symmetric": False}}}}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": block}))
    layer = import_compressed_tensors(tmp_path, nn.Sequential(nn.Linear(n, out, bias=False)))[0]
    assert layer.order is not None
    assert torch.equal(layer.dequantize(), expected)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("weight_packed", torch.zeros(32, 5, dtype=torch.int32), "no weight of 32 x 32 in 4 bits"),
    ("weight_shape", torch.tensor([32, 31]), "no weight of 32 x 32 in 4 bits"),
    ("weight_scale", torch.full((32, 2), torch.nan), "'weight_scale' is missing, no float, or holds NaN"),
    ("weight_scale", torch.ones(31, 2), r"scales of the shape \(31, 2\) do not fit"),
    ("weight_scale", torch.ones(32, 3), r"scales of the shape \(32, 3\) do not fit"),
    ("weight_g_idx", torch.zeros(31, dtype=torch.int32), "'weight_g_idx' has the shape"),
    ("weight_g_idx", torch.zeros(32, dtype=torch.int32), "'g_idx' has groups of 32 columns"),
    ("weight_zero_point", torch.zeros(5, 2, dtype=torch.int32), "are no 4-bit zero points of 32 x 2"),
])
def test_damaged_tensors_are_refused_by_the_name_of_the_layer(name, value, message, tmp_path):
    export_compressed_tensors(tmp_path, quantised("llama"))
    tensors = load_file(tmp_path / WEIGHTS)
    layer = "model.layers.0.self_attn.q_proj"
    save_file(tensors | {f"{layer}.{name}": value}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=message) as caught:
        nanoq.load(tmp_path)
    assert layer in str(caught.value)


# ---- the command line ----


def test_the_commands_take_such_a_folder(tmp_path, monkeypatch):
    made = quantised("llama")
    folder, text = tmp_path / "gptq", tmp_path / "text.txt"
    export_gptq(folder, made)
    text.write_text("the film was good and the cat was bad . " * 300)
    monkeypatch.chdir(tmp_path)
    facts = json.loads(CliRunner().invoke(app, ["info", str(folder)]).stdout)
    assert facts["layers"] == f"{len(linear_layers(HFModel(make('llama'))))} gptq" and "parameters" not in facts
    result = CliRunner().invoke(app, ["evaluate", str(folder), "--corpus", str(text), "--context", "16"])
    expected = nanoq.evaluate(made, text, context=16)
    assert result.exit_code == 0 and f"{expected.perplexity:.4f} per token" in result.stdout
    result = CliRunner().invoke(app, ["quantize", str(folder), "--out", "again"])
    assert result.exit_code == 2 and "the model is quantised already" in result.stderr
    result = CliRunner().invoke(app, ["export", str(folder), "--format", "compressed-tensors", "--out", "other"])
    assert result.exit_code == 0, result.stderr
    assert torch.equal(nanoq.load(tmp_path / "other").model(TOKENS), made.model(TOKENS))
