"""Packed embedding tables and heads: what becomes of them in a model, in a file, and in files of others."""

import json
from copy import deepcopy

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import FAMILIES, LLAMA, make
from tiny_tokenizers import VOCABULARY, byte_level
from torch import nn

import nanoq
from nanoq.files import data_dir
from nanoq.hf import HFModel, encode
from nanoq.hf.tasks import stream_tokens
from nanoq.lm import GPT, CharTokenizer, GPTConfig, load_corpus, paired_difference, window_losses
from nanoq.quant import (
    Recipe,
    check_export,
    choose_backend,
    embeddings,
    export_model,
    import_gptq,
    quantize_model,
    unpack,
    use_backend,
)
from nanoq.quant.embeddings import QuantEmbedding, QuantHead, TiedHead, pack_tables, packed_tables
from nanoq.quant.export import FORMATS, count_parameters, export_notes
from nanoq.store import CARD, WEIGHTS, Checkpoint, layouts_of, load, save

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
TOKENS = torch.randint(4, 97, (6, 12), generator=torch.Generator().manual_seed(0))
CHARACTERS = "".join(map(chr, range(33, 129)))


def gpt():
    model = GPT(GPTConfig(97, 70, layers=2, heads=2, width=32)).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(8)
    return Checkpoint(model, CharTokenizer(CHARACTERS), {})


def gemma():
    """Whose lookup multiplies the rows."""
    config = LLAMA | {"head_dim": 8, "pad_token_id": 0, "sliding_window": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**config)).eval()
    return Checkpoint(HFModel(model).eval(), None, {})


def of_family(family):
    return gpt() if family == "gpt" else gemma() if family == "gemma3" else Checkpoint(
        HFModel(make(family)).eval(), None, {})


def packed(family, bits, method="nearest", width=4):
    checkpoint = of_family(family)
    quantize_model(checkpoint.model, Recipe(method, bits=width, embeddings=bits), TOKENS)
    return checkpoint


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["gpt", "gemma3", *FAMILIES])
def test_a_model_of_every_family_comes_back_bit_for_bit(family, bits, tmp_path):
    saved = packed(family, bits)
    loaded = load(save(tmp_path, saved, half=True))
    assert torch.equal(loaded.model(TOKENS), saved.model(TOKENS))
    assert layouts_of(loaded.model) == layouts_of(saved.model)
    assert any(isinstance(layer, QuantEmbedding) for layer in packed_tables(loaded.model).values())
    float16 = of_family(family)
    quantize_model(float16.model, Recipe(bits=4))
    difference = (saved.model(TOKENS) - float16.model(TOKENS)).norm() / float16.model(TOKENS).norm()
    assert 0 < difference < (0.05 if bits == 8 else 0.5)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_lookup_decodes_the_rows_that_it_is_asked_for_and_no_others(bits, monkeypatch):
    table = packed("gpt", bits).model.token_embedding
    seen = []
    monkeypatch.setattr(embeddings, "unpack", lambda codes, *rest: seen.append(len(codes)) or unpack(codes, *rest))
    rows = torch.tensor([[5, 90], [5, 0]])
    assert torch.equal(table(rows), table.dequantize()[rows]) and seen == [4]
    assert table(torch.empty(2, 0, dtype=torch.long)).shape == (2, 0, 32)


def test_an_id_that_a_table_does_not_have_is_an_error():
    model = packed("llama", 8).model
    table = model.model.get_input_embeddings()
    for token in (-1, table.num_embeddings):
        with pytest.raises((IndexError, RuntimeError)):
            table(torch.tensor([token]))
        with pytest.raises(ValueError, match="is not in the model.s vocabulary"):
            next(stream_tokens(model, torch.tensor([token]), 0.0, None, 0))
    ids = torch.tensor([3, 5])
    assert torch.equal(table(ids.to(torch.uint8)), table(ids))


def test_the_head_multiplies_by_the_codes_of_the_table_and_a_file_has_them_once(tmp_path):
    for family in ("opt", "bert", "llama, tied", "gemma3"):
        path = save(tmp_path / family, packed(family, 8), half=True)
        shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in load_file(path / WEIGHTS).values()]
        assert shapes.count(((97, 32), torch.uint8)) == 1 and ((97, 32), torch.float16) not in shapes
        model = load(path).model.model
        head = model.get_output_embeddings()
        assert isinstance(head, TiedHead) and head.table is model.get_input_embeddings()
        copied = deepcopy(model)
        assert copied.get_output_embeddings().table is copied.get_input_embeddings() is not head.table


@pytest.mark.parametrize("family", ["opt", "llama", "llama, tied", "gemma3"])
def test_from_pretrained_gives_the_same_logits(family, tmp_path):
    import nanoq.hf.quantizer  # noqa: F401 (which lets transformers read the folder)
    saved = packed(family, 8)
    save(tmp_path, saved)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(model.eval()(TOKENS).logits, saved.model(TOKENS))
        assert model.generate(TOKENS[:1, :4], max_new_tokens=3, do_sample=False).shape == (1, 7)
    assert isinstance(model.get_input_embeddings(), QuantEmbedding)


def test_a_head_of_its_own_has_its_own_codes(tmp_path):
    model = load(save(tmp_path, packed("llama", 8), half=True)).model.model
    assert isinstance(model.lm_head, QuantHead) and isinstance(model.model.embed_tokens, QuantEmbedding)
    assert not torch.equal(model.lm_head.codes, model.model.embed_tokens.codes)
    biased = load(save(tmp_path / "gptj", packed("gptj", 4), half=True)).model.model
    assert biased.lm_head.bias.abs().sum() > 0 and biased.lm_head.layout["kind"] == "head"


def test_a_bias_that_is_tied_stays_tied(tmp_path):
    model = load(save(tmp_path, packed("bert", 8), half=True)).model.model
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


def test_which_tables_are_packed():
    assert set(packed_tables(packed("gpt", 8).model)) == {"token_embedding", "position_embedding"}
    gpt2, opt = (packed_tables(packed(family, 8).model) for family in ("gpt2", "opt"))
    assert set(gpt2) == {"model.transformer.wte", "model.transformer.wpe"}
    assert set(opt) == {"model.model.decoder.embed_tokens"}  # its positions are looked up two rows further down
    bert = packed("bert", 8).model
    assert isinstance(bert.model.bert.embeddings.token_type_embeddings, nn.Embedding)  # of two rows
    assert packed_tables(packed("gpt", 16).model) == {}
    assert not any("blocks" in name for name in packed_tables(packed("llama", 8).model))


def test_tables_that_share_a_weight_and_multiply_it_differently_are_left_alone():
    model = gpt().model
    model.other = nn.Embedding(97, 32)
    model.other.weight = model.token_embedding.weight
    model.other.forward = lambda tokens: 2 * nn.Embedding.forward(model.other, tokens)
    pack_tables(model, 8)
    assert set(packed_tables(model)) == {"position_embedding"}
    del model.other.forward
    pack_tables(model, 8)
    assert model.other is model.token_embedding and isinstance(model.other, QuantEmbedding)


def test_the_bits_of_a_file(tmp_path):
    start = gpt()
    rows, width = 97 + 70, 32
    size = {bits: (save(tmp_path / str(bits), packed("gpt", bits), half=True) / WEIGHTS).stat().st_size
            for bits in (16, 8, 4)}
    assert size[16] - size[8] == pytest.approx(rows * (width - 2), abs=400)  # a scale a row
    assert size[8] - size[4] == pytest.approx(rows * width / 2, abs=400)  # here a group is a row
    assert count_parameters(packed("gpt", 4).model) == start.model.parameter_count()


def test_blocks_are_calibrated_on_what_the_packed_tables_give():
    asked = packed("gpt", 4, "gptq", 3).model
    before = gpt().model
    pack_tables(before, 4)
    decoded = gpt().model
    with torch.no_grad():
        for name in ("token_embedding", "position_embedding"):
            decoded.get_submodule(name).weight.copy_(before.get_submodule(name).weight)
    expected = deepcopy(decoded)
    quantize_model(expected, Recipe("gptq", bits=3), TOKENS)
    other = gpt().model
    quantize_model(other, Recipe("gptq", bits=3), TOKENS)
    codes = [torch.cat([block.mlp.down.unpacked() for block in m.blocks]) for m in (asked, expected, other)]
    assert (codes[0] != codes[1]).float().mean() < 0.01 < (codes[0] != codes[2]).float().mean()


@pytest.mark.parametrize("bits", [3, 32, True, "8", None, 8.0])
def test_other_widths_are_refused(bits):
    with pytest.raises(ValueError, match="embeddings must have 16, 8 or 4 bits, not"):
        Recipe(bits=4, embeddings=bits)


def test_a_recipe_keeps_its_embeddings_in_json_and_an_old_one_has_none():
    recipe = Recipe(bits=4, embeddings=8)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert Recipe.from_json({"default": {"bits": 4}}).embeddings == 16


@pytest.mark.parametrize("name", ["model.model.embed_tokens", "model.lm_head"])
def test_a_table_that_holds_nan_is_named(name):
    model = HFModel(make("llama"))
    model.get_submodule(name).weight.data[3, 3] = torch.nan
    with pytest.raises(ValueError, match=f"{name}: the weight holds NaN"):
        quantize_model(model, Recipe(bits=4, embeddings=8))


def test_rows_come_in_the_type_of_the_model():
    model = packed("gpt", 8).model
    kept = model.token_embedding.scale.clone()
    model.double()
    assert model(TOKENS).dtype == torch.float64 and torch.equal(model.token_embedding.scale, kept)
    assert model.token_embedding.scale.dtype == torch.float16
    assert model.float().token_embedding(TOKENS).dtype == torch.float32


def test_a_kernel_multiplies_by_the_head():
    model = packed("llama, tied", 8).model
    expected = model(TOKENS[:1, :3])
    assert "model.model.embed_tokens" in {report.layer for report in choose_backend(model, seconds=0.001)}
    use_backend(model.model.lm_head.table, "int8")
    torch.testing.assert_close(model(TOKENS[:1, :3]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("change", [
    {"factor": float("nan")}, {"factor": "2"}, {"bits": 4}, {"levels": 256}, {"in_features": 16}, {"group_size": 16},
    {"group_size": 0}, {"kind": "head"}, {"kind": "packed"}, {"kind": "sparse"},
], ids=str)
def test_a_layout_that_is_of_no_table_is_refused(change, tmp_path):
    path = save(tmp_path, packed("gpt", 8), half=True) / CARD
    card = json.loads(path.read_text())
    card["layers"]["token_embedding"].update(change)
    del card["model_sha256"]
    path.write_text(json.dumps(card))
    with pytest.raises(ValueError, match="do not fit its card: token_embedding: "):
        load(tmp_path)


def test_a_table_of_another_vocabulary_is_refused(tmp_path):
    checkpoint = packed("gpt", 8)
    small = packed("gpt", 8).model.token_embedding
    for name in ("codes", "scale"):
        setattr(small, name, getattr(small, name)[:80])
    checkpoint.model.token_embedding = small
    with pytest.raises(ValueError, match="token_embedding: it is another kind of layer"):
        save(tmp_path, checkpoint, half=True)


# ---- files of others ----

GROUPS = {"group_size": 32, "symmetric": True}


def exported(family, bits, format, folder, **changes):
    pytest.importorskip("gguf")
    checkpoint = Checkpoint(HFModel(make(family, vocab_size=VOCABULARY, **changes)).eval(), byte_level(), {})
    recipe = Recipe(bits=4, embeddings=bits, **GROUPS)
    check_export(recipe, checkpoint, format)
    quantize_model(checkpoint.model, recipe)
    check_export(None, checkpoint, format)
    check_export(layouts_of(checkpoint.model), checkpoint, format)
    export_model(folder, checkpoint, format)
    return checkpoint


@pytest.mark.parametrize(("bits", "kind"), [(8, "Q8_0"), (4, "Q4_0")])
@pytest.mark.parametrize(("family", "changes"), [("llama", {}), ("llama, tied", {}), ("gpt2", {"n_positions": 1024})],
                         ids=["llama", "llama, tied", "gpt2"])
def test_gguf_has_the_same_numbers(family, changes, bits, kind, tmp_path):
    pytest.importorskip("accelerate")
    checkpoint = exported(family, bits, "gguf", tmp_path, **changes)
    gguf = pytest.importorskip("gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["token_embd.weight"] == types.get("output.weight", kind) == kind
    assert types.get("position_embd.weight", "F32") == "F32"
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    with torch.no_grad():
        found = model.eval()(TOKENS).logits
    torch.testing.assert_close(found, checkpoint.model(TOKENS), atol=1e-5, rtol=1e-5)
    assert f"of {bits} bits" in (tmp_path / "README.md").read_text().split("| embeddings |")[1]


@pytest.mark.parametrize("family", ["llama", "llama, tied"])
@pytest.mark.parametrize("format", ["compressed-tensors", "gptq"])
def test_other_formats_have_tables_in_float16_and_say_so(format, family, tmp_path):
    checkpoint = exported(family, 8, format, tmp_path)
    tensors = load_file(tmp_path / FORMATS[format].file)
    assert tensors["model.embed_tokens.weight"].dtype == torch.float16 and not any("codes" in name for name in tensors)
    assert ("lm_head.weight" in tensors) == (family == "llama")
    assert "In float16, because the format has no place for their codes: " in export_notes(checkpoint, format)[0]
    if format == "gptq":
        found = import_gptq(tmp_path, HFModel(make(family, vocab_size=VOCABULARY)).eval())(TOKENS)
    else:
        pytest.importorskip("compressed_tensors")
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        with torch.no_grad():
            found = model(TOKENS).logits
    torch.testing.assert_close(found, checkpoint.model(TOKENS), atol=1e-2, rtol=1e-2)


# ---- what it costs ----


def test_8_bits_add_less_than_a_thousandth_of_a_nat_and_4_bits_more():
    assert (data_dir() / "checkpoints/opt-tales").is_dir()
    original = nanoq.load("opt-tales")
    tokens = encode(original.tokenizer, load_corpus("tales").test[:120_000])
    base, added = window_losses(original.model, tokens, limit=24), {}
    for bits in (8, 4):
        model = nanoq.load("opt-tales").model
        quantize_model(model, Recipe(bits=16, embeddings=bits))
        added[bits] = paired_difference(window_losses(model, tokens, limit=24), base)
    assert abs(added[8].mean) < 0.001 < added[4].low and added[4].mean < 0.05
