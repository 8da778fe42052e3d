"""Whole models as GGUF: transformers loads them by llama.cpp's names, and finds the same model and the same tokens."""

import pytest
import torch
import transformers
from tiny import make, make_tokenizer
from tiny_tokenizers import VOCABULARY, byte_level, sentencepiece
from tokenizers import Regex, normalizers, pre_tokenizers
from torch import nn

import nanoq
from nanoq.files import data_dir
from nanoq.hf import HFModel
from nanoq.lm import GPT, GPTConfig
from nanoq.quant import Recipe, Round, export_gguf, export_model, quantize_model
from nanoq.quant.export import export_notes
from nanoq.quant.gguf_model import gguf_model_problem
from nanoq.quant.gguf_tokenizer import vocabulary_of
from nanoq.store import Checkpoint

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

SYMMETRIC = {"granularity": "group", "group_size": 32, "symmetric": True}
TEXTS = ["Once upon a time, there were 123 cats.", "don't  stop\n\n at  the\tend ", "Zoë's naïve 中文 🙂", "a", "  two"]
# What transformers cannot be told by a GGUF file, at its defaults: positions of GPT-2 and the size of a head of Qwen3.
FAMILIES = {"llama": {}, "llama, tied": {}, "mistral": {"sliding_window": None}, "qwen2": {"use_sliding_window": False},
            "qwen3": {"head_dim": 128}, "gpt2": {"n_positions": 1024}}
TOKENS = torch.randint(3, 97, (3, 9), generator=torch.Generator().manual_seed(1))


def quantised(family, recipe, tokenizer=None, **changes):
    model = HFModel(make(family, **FAMILIES[family] | {"vocab_size": VOCABULARY} | changes)).eval()
    quantize_model(model, recipe)
    return Checkpoint(model, tokenizer, {})


def loaded(path):
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def types_of(path):
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(("bits", "kind"), [(8, "Q8_0"), (4, "Q4_0"), (3, "Q4_0")])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_finds_the_same_logits(family, bits, kind, tmp_path):
    checkpoint = quantised(family, Recipe(bits=bits, grid_options=SYMMETRIC), byte_level())
    path = export_gguf(tmp_path / "model.gguf", checkpoint)
    assert torch.equal(loaded(path), checkpoint.model(TOKENS))
    types = types_of(path)
    assert set(types.values()) == {kind, "F16", "F32"}
    assert ("output.weight" in types) == (family not in ("llama, tied", "gpt2"))
    assert types["blk.0.attn_qkv.weight" if family == "gpt2" else "blk.0.attn_q.weight"] == kind


@pytest.mark.parametrize(("family", "changes", "unread"), [
    ("llama", {"attention_bias": True}, "that layers have biases"), ("llama", {"mlp_bias": True}, "biases"),
    ("qwen3", {"attention_bias": True}, "biases"), ("qwen3", {"head_dim": 16}, "the width of heads"),
    ("gpt2", {"n_positions": 64}, "the length of the context"), ("gpt2", {"n_inner": 96}, "the width of MLPs"),
])
def test_what_transformers_does_not_read_is_named_and_goes_with_the_configuration(family, changes, unread, tmp_path):
    checkpoint = quantised(family, Recipe(bits=4, grid_options=SYMMETRIC), byte_level(), **changes)
    with torch.no_grad():
        for name, parameter in checkpoint.model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter).half())
    path = export_model(tmp_path, checkpoint, "gguf")
    assert unread in (tmp_path / "README.md").read_text()
    config = checkpoint.model.model.config
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, config=config,
                                                              dtype=torch.float32)
    assert torch.equal(model.eval()(TOKENS).logits, checkpoint.model(TOKENS))
    with pytest.raises((RuntimeError, AssertionError)):  # the day when it is read this note goes
        assert torch.equal(loaded(path), checkpoint.model(TOKENS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_of_what_transformers_reads_has_no_notes(family):
    assert export_notes(quantised(family, Recipe(bits=4, grid_options=SYMMETRIC)), "gguf") == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_was_not_quantised_is_written_in_float16(family, tmp_path):
    model = make(family, **FAMILIES[family] | {"vocab_size": VOCABULARY})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
        expected = model(TOKENS).logits
    path = export_gguf(tmp_path / "model.gguf", Checkpoint(model, byte_level(), {}))  # and no HFModel was made of it
    assert set(types_of(path).values()) == {"F16", "F32"}
    assert torch.equal(loaded(path), expected)


def test_layers_that_no_type_holds_are_written_in_float16(tmp_path):
    recipe = Recipe(Round(bits=4, grid_options=SYMMETRIC), rules={
        "blocks.0.mlp.up_proj": Round(bits=8, group_size=32),
        "blocks.0.mlp.down_proj": Round(bits=4, grid="nf4"), "blocks.1.self_attn.q_proj": Round(bits=4, grid="affine")})
    checkpoint = quantised("llama", recipe, byte_level())
    path = export_gguf(tmp_path / "model.gguf", checkpoint)
    types = types_of(path)
    assert types["blk.0.ffn_up.weight"] == types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.1.attn_q.weight"] == "Q5_0" and types["blk.0.attn_q.weight"] == "Q4_0"
    torch.testing.assert_close(loaded(path), checkpoint.model(TOKENS), atol=1e-2, rtol=1e-2)


def test_biases_of_q_and_k_go_with_their_rows(tmp_path):
    checkpoint = quantised("llama", Recipe(bits=4, grid_options=SYMMETRIC), byte_level(), attention_bias=True)
    path = export_gguf(tmp_path / "model.gguf", checkpoint)
    assert any(name == "blk.0.attn_q.bias" for name in types_of(path))
    config = checkpoint.model.model.config
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, config=config,
                                                          dtype=torch.float32)
    assert torch.equal(model(TOKENS).logits, checkpoint.model(TOKENS))


@pytest.mark.parametrize(("rope", "expected"), [
    ({"rope_type": "linear", "factor": 2.0}, [2, 2, 2, 2]),
    # Wavelengths of 6.3, 63, 628 and 6283 tokens, of which those below 16 stay and those above 64 are stretched.
    ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 64}, [1, 1 / ((1 - 0.0062) / 8 + 0.0062), 8, 8]),
])
def test_scaled_positions_are_written_as_factors_of_the_frequencies(rope, expected, tmp_path):
    model = make("llama", vocab_size=VOCABULARY, rope_parameters=rope | {"rope_theta": 10000.0})
    path = export_gguf(tmp_path / "model.gguf", model)
    (factors,) = [tensor.data for tensor in gguf.GGUFReader(path).tensors if tensor.name == "rope_freqs.weight"]
    assert factors.tolist() == pytest.approx(expected, rel=1e-2)
    assert ["rope_freqs" in note for note in export_notes(model, "gguf")] == [True]


def test_the_header_says_what_llama_cpp_asks(tmp_path):
    checkpoint = quantised("llama", Recipe(bits=8, grid_options=SYMMETRIC), byte_level())
    path = export_gguf(tmp_path / "model.gguf", checkpoint, {"general.license": "mit"})
    fields = gguf.GGUFReader(path).fields
    found = {key: fields[key].contents() for key in fields if not key.startswith("GGUF")}
    expected = {
        "general.architecture": "llama", "general.file_type": 7, "general.license": "mit", "llama.context_length": 64,
        "llama.embedding_length": 32, "llama.block_count": 2, "llama.feed_forward_length": 64, "llama.vocab_size": 320,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 8,
        "llama.attention.key_length": 8, "llama.rope.freq_base": 10000.0, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": "{{ messages[0].content }}"}
    assert {key: found[key] for key in expected} == expected
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert len(found["tokenizer.ggml.tokens"]) == len(found["tokenizer.ggml.token_type"]) == VOCABULARY


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_transformers_finds_the_same_tokens_of_byte_level_bpe(pre, tmp_path):
    tokenizer = byte_level(pre)
    checkpoint = quantised("llama", Recipe(bits=4, grid_options=SYMMETRIC), tokenizer)
    path = export_gguf(tmp_path / "model.gguf", checkpoint)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in [*TEXTS, "<s>the <think>cat</s>"]:
        assert read(text).input_ids == tokenizer(text).input_ids
    assert gguf.GGUFReader(path).fields["tokenizer.ggml.pre"].contents() == pre


def test_transformers_finds_the_same_tokens_of_sentencepiece(tmp_path):
    tokenizer = sentencepiece()
    checkpoint = quantised("llama", Recipe(bits=4, grid_options=SYMMETRIC), tokenizer)
    path = export_gguf(tmp_path / "model.gguf", checkpoint)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in TEXTS[:4]:
        assert read(text, add_special_tokens=False).input_ids == tokenizer(text, add_special_tokens=False).input_ids
    types = gguf.GGUFReader(path).fields["tokenizer.ggml.token_type"].contents()
    assert types[:4] == [2, 3, 3, 6] and types[258:260] == [6, 1] and types[-1] == 5


def test_the_tokeniser_that_ships_has_a_vocabulary():
    assert (data_dir() / "checkpoints/opt-tales/tokenizer.json").is_file()
    tokenizer = nanoq.load("opt-tales").tokenizer
    vocabulary = vocabulary_of(tokenizer, 1024)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == 1024 and vocabulary.pre == "gpt-2"


def spoiled(change):
    tokenizer = byte_level()
    change(tokenizer.backend_tokenizer)
    return tokenizer


@pytest.mark.parametrize(("tokenizer", "message"), [
    (make_tokenizer(), "its model is WordLevel"),
    (spoiled(lambda core: setattr(core, "normalizer", normalizers.Lowercase())), "changes the text by Lowercase"),
    (spoiled(lambda core: setattr(core, "pre_tokenizer", pre_tokenizers.Whitespace())), "no byte-level BPE"),
    (spoiled(lambda core: setattr(core, "pre_tokenizer", pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("x"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]))),
     "by a rule that is not one of"),
    (spoiled(lambda core: core.add_tokens([f"<{i}>" for i in range(16)])), "tokens up to 325, and the model 320"),
    (object(), "not one of the package tokenizers"),
], ids=["words", "normalizer", "whitespace", "rule", "size", "other"])
def test_a_tokeniser_that_llama_cpp_does_not_have_is_refused(tokenizer, message, tmp_path):
    checkpoint = quantised("llama", Recipe(bits=4, grid_options=SYMMETRIC), tokenizer)
    with pytest.raises(ValueError, match=f"the tokeniser, a .*{message}.*export the model without it"):
        export_gguf(tmp_path / "model.gguf", checkpoint)
    assert not list(tmp_path.iterdir())
    path = export_gguf(tmp_path / "model.gguf", checkpoint.model)
    assert gguf.GGUFReader(path).fields["tokenizer.ggml.model"].contents() == "none"


@pytest.mark.parametrize(("family", "changes", "message"), [
    ("opt", {}, "is a OPTForCausalLM, and nanoq writes LlamaForCausalLM"),
    ("llama", {"hidden_act": "gelu"}, "the activation 'gelu', which llama.cpp's llama does not"),
    ("gpt2", {"activation_function": "gelu"}, "the activation 'gelu', which llama.cpp's gpt2 does not"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scales attention"),
    ("mistral", {}, "a sliding window of 4 tokens"),
    ("qwen2", {}, "a sliding window of 4 tokens"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "positions .'dynamic'"),
    ("qwen3", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "positions .'linear'"),
])
def test_models_that_llama_cpp_computes_otherwise_are_refused(family, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_gguf(tmp_path / "model.gguf", make(family, **changes))
    assert not list(tmp_path.iterdir())


def test_a_gpt_of_nanoq_is_no_gpt2_and_a_changed_model_is_none_either(tmp_path):
    assert "exact GELU (by erf)" in gguf_model_problem(GPT(GPTConfig(9, context=16, layers=1, heads=2, width=32)))
    model = make("llama")
    model.model.layers[0].self_attn.extra = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"no tensor model.layers.0.self_attn.extra.weight in this architecture"):
        export_gguf(tmp_path / "model.gguf", model)
