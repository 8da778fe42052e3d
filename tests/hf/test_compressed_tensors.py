"""Files for compressed-tensors, which transformers loads with that package alone."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import make, make_tokenizer
from torch import nn

from nanoq.hf import HFModel
from nanoq.lm import GPT, GPTConfig
from nanoq.quant import Recipe, Round, export_compressed_tensors, quantize_model
from nanoq.quant.export import export_notes
from nanoq.store import Checkpoint

ROW, GROUP = {"symmetric": True}, {"symmetric": True, "granularity": "group", "group_size": 16}
FALCON = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 97}
TOKENS = torch.randint(3, 97, (3, 9), generator=torch.Generator().manual_seed(1))


def quantised(family, recipe, **changes):
    model = HFModel(make(family, **changes)).eval()
    quantize_model(model, recipe)
    return Checkpoint(model, make_tokenizer(), {})


def logits_of(folder):
    """What transformers computes with the files, in float32."""
    pytest.importorskip("compressed_tensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("options", [ROW, GROUP, {"symmetric": True, "granularity": "tensor"}],
                         ids=["row", "group", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_transformers_gives_the_same_logits(bits, options, tmp_path):
    checkpoint = quantised("llama", Recipe(bits=bits, grid_options=options))
    export_compressed_tensors(tmp_path, checkpoint)
    assert torch.equal(logits_of(tmp_path), checkpoint.model(TOKENS))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("the film").input_ids == [2, 4, 5]


@pytest.mark.parametrize("family", ["opt", "llama, tied", "qwen2", "qwen3", "mistral"])
def test_families_with_biases_and_tied_heads(family, tmp_path):
    checkpoint = quantised(family, Recipe(bits=4, grid_options=GROUP))
    export_compressed_tensors(tmp_path, checkpoint)
    assert torch.equal(logits_of(tmp_path), checkpoint.model(TOKENS))
    tensors = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in tensors) == (family not in ("opt", "llama, tied"))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16, torch.int32, torch.int64}


@pytest.mark.parametrize("family", ["t5", "modernbert"])
def test_classes_that_ask_for_weights_while_they_are_loaded_are_loaded_decoded(family, tmp_path):
    pytest.importorskip("compressed_tensors")
    checkpoint = quantised(family, Recipe(bits=4, grid_options=GROUP))
    export_compressed_tensors(tmp_path, checkpoint)
    assert any("transformers loads it with its weights decoded" in note
               for note in export_notes(checkpoint, "compressed-tensors"))
    inner = checkpoint.model.model
    model = HFModel(type(inner).from_pretrained(tmp_path, dtype=torch.float32))
    expected = checkpoint.model(TOKENS)
    assert (model(TOKENS) - expected).norm() < 5e-3 * expected.norm()  # weights are rounded to float16
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["quantization_config"].pop("dequantize")
    path.write_text(json.dumps(config))
    with pytest.raises(AttributeError, match="weight"):  # so that the entry goes when it is needed no more
        type(inner).from_pretrained(tmp_path)


def test_a_pooler_that_is_not_written_is_no_packed_layer_to_readers(tmp_path):
    pytest.importorskip("compressed_tensors")
    checkpoint = quantised("bert encoder", Recipe(bits=4, grid_options=ROW))
    export_compressed_tensors(tmp_path, checkpoint)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert config["ignore"] == ["pooler.dense"] and "dequantize" not in config
    model = transformers.BertModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert model.pooler.dense.weight.shape == (32, 32)
    assert torch.equal(model(TOKENS)[0], checkpoint.model(TOKENS))


def test_rows_that_do_not_fill_whole_words(tmp_path):
    checkpoint = quantised("llama", Recipe(bits=3, grid_options=ROW), intermediate_size=50)
    export_compressed_tensors(tmp_path, checkpoint)
    assert load_file(tmp_path / "model.safetensors")["model.layers.0.mlp.down_proj.weight_packed"].shape == (32, 5)
    assert torch.equal(logits_of(tmp_path), checkpoint.model(TOKENS))


def test_several_widths_are_groups_of_layers_by_name(tmp_path):
    recipe = Recipe(Round(bits=4, grid_options=GROUP), rules={
        "blocks.0.mlp.*": Round(bits=8, grid_options=ROW), "blocks.1.self_attn.v_proj": Round(bits=16)})
    checkpoint = quantised("llama", recipe)
    export_compressed_tensors(tmp_path, checkpoint)
    assert torch.equal(logits_of(tmp_path), checkpoint.model(TOKENS))
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    wide = next(group for group in config["config_groups"].values() if group["weights"]["num_bits"] == 8)
    assert wide["targets"] == [f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down")]
    assert config["ignore"] == ["model.layers.1.self_attn.v_proj", "lm_head"]


@pytest.mark.parametrize(("recipe", "message"), [
    (Recipe(bits=4), "has zero points, .* dequantize=True only: quantise it with symmetric=True"),
    (Recipe(bits=4, grid="nf4"), "has a codebook"),
    (Recipe(bits=4, grid_options=GROUP | {"group_size": 24}), "groups of 24 do not divide"),
    (Recipe(bits=16), "no layer of the model is quantised"),
], ids=["asymmetric", "codebook", "groups", "float"])
def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(recipe, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_compressed_tensors(tmp_path, quantised("llama", recipe))
    assert not list(tmp_path.iterdir())


def test_models_that_no_reader_takes_are_refused(tmp_path):
    gpt = GPT(GPTConfig(9, context=16, layers=1, heads=2, width=32))
    quantize_model(gpt, Recipe(bits=4, grid_options=ROW))
    for model, message in [(gpt, "is a GPT, which is no model of transformers"),
                           (nn.Linear(3, 3), "is a Linear, which is no model"),
                           (transformers.FalconForCausalLM(transformers.FalconConfig(**FALCON)), "class FalconLinear"),
                           (quantised("gpt2", Recipe(bits=4, grid_options=ROW)), "GPT2LMHeadModel, which keeps")]:
        with pytest.raises(ValueError, match=message):
            export_compressed_tensors(tmp_path, model)
    assert not list(tmp_path.iterdir())
