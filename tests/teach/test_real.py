"""What notebook 15 has around its models: empty ones, copies on codes, transposed matrices, a task of moods."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import nanoq
from nanoq.hf import HFModel
from nanoq.quant import QuantLinear, export_gguf, linear_layers
from nanoq.store import Checkpoint
from nanoq.teach import real
from nanoq.teach.real import (
    away_from,
    empty_models,
    mood_task,
    on_codes,
    read_by_transformers,
    small_llama,
    tell,
    turned_around,
)


def nearest(weight, grid, name):
    return grid.encode(weight).long()


@pytest.fixture
def checkpoint():
    cls = transformers.OPTForCausalLM
    torch.manual_seed(0)
    model = cls(cls.config_class(hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=1,
                                 num_attention_heads=2, vocab_size=31, max_position_embeddings=32)).eval()
    return Checkpoint(HFModel(model.half().float()), None, {})  # what files keep in float16 stays as it is


def test_empty_models_have_shapes_and_no_memory():
    models = empty_models()
    assert 6.7e9 < models["Llama 7B"].num_parameters() < 6.8e9
    assert all(parameter.is_meta for model in models.values() for parameter in model.parameters())


def test_a_copy_has_the_codes_that_it_was_told_and_the_original_is_as_it_was(checkpoint):
    named = []

    def codes_of(weight, grid, name):
        named.append(name)
        return nearest(weight, grid, name)

    changed = on_codes(checkpoint, codes_of)
    layers = linear_layers(checkpoint.model)
    assert len(named) == len(layers) == 6 and all(name.startswith("model.decoder.layers.0.") for name in named)
    for name in named:
        own, new = (each.model.model.get_submodule(name) for each in (checkpoint, changed))
        assert isinstance(new, QuantLinear) and type(own) is nn.Linear
        assert 0 < (own.weight - new.weight).abs().max() < own.weight.abs().max() / 7
    assert type(changed.model.model.lm_head) is nn.Linear


@pytest.mark.parametrize("codes_of", [lambda weight, grid, name: nearest(weight, grid, name)[:1],
                                      lambda weight, grid, name: None])  # fmt: skip
def test_codes_of_another_shape_or_none_are_named(checkpoint, codes_of):
    with pytest.raises(ValueError, match=r"k_proj: codes of shape \(\d+, \d+\) are wanted, not"):
        on_codes(checkpoint, codes_of)


def test_a_model_of_another_kind_is_named():
    with pytest.raises(ValueError, match="a model of transformers is wanted, not a GPT"):
        on_codes(nanoq.load("tales-2.7m"), nearest)


def test_transformers_reads_an_export_without_a_word(checkpoint, tmp_path, capsys):
    pytest.importorskip("compressed_tensors")
    changed = on_codes(checkpoint, nearest)
    nanoq.export(tmp_path, changed, "compressed-tensors")
    tokens = torch.arange(5, 15)[None]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    theirs = read_by_transformers(tmp_path)
    with torch.no_grad():
        assert torch.allclose(theirs(tokens).logits, changed.model(tokens), atol=1e-5)
    assert capsys.readouterr().err == "" and transformers.utils.logging.is_progress_bar_enabled() == bars


def test_without_the_package_the_remedy_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(real, "find_spec", lambda name: None)
    assert read_by_transformers(tmp_path) is None and "pip install" in capsys.readouterr().out


def test_square_matrices_are_turned_back_after_rounding(checkpoint):
    windows, shapes = torch.arange(24).view(2, 12), set()

    def as_it_is(weight, grid, name):
        shapes.add(tuple(weight.shape))
        return nearest(weight, grid, name)

    right, wrong = (turned_around(checkpoint, as_it_is, windows, wrong_way=way) for way in (False, True))
    assert shapes == {(16, 16)}
    assert right != wrong and abs(right / wrong - 1) < 0.1  # turned back, else the outputs would be others altogether


def test_transformers_and_llama_cpp_are_compared_with_the_model_whose_file_they_read(monkeypatch, tmp_path):
    model, tokens = small_llama(), torch.arange(3, 9)[None]
    ours, opened = model(tokens).detach(), []

    class Llama:
        def __init__(self, path, n_ctx, logits_all, verbose):
            assert logits_all
            self.scores = np.zeros((n_ctx + 3, ours.shape[-1]), np.float32)
            opened.append(path)

        def eval(self, tokens):
            self.scores[: len(tokens)] = 1.25 * ours[0]

        def close(self):
            opened.remove(str(file))

    file = export_gguf(tmp_path / "small.gguf", model)
    monkeypatch.setattr(real, "find_spec", lambda name: None)
    assert away_from(model, file, tokens) == {"transformers": pytest.approx(0, abs=1e-6)}
    monkeypatch.setattr(real, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Llama))
    assert away_from(model, file, tokens)["llama.cpp"] == pytest.approx(0.25) and not opened


def test_the_small_llama_is_quantised_and_always_the_same():
    models = [small_llama(), small_llama()]
    tokens = torch.arange(5, 15)[None]
    assert all(isinstance(layer, QuantLinear) for layer in models[0].model.model.layers[0].mlp.children()
               if hasattr(layer, "codes"))
    with torch.no_grad():
        assert torch.equal(models[0](tokens), models[1](tokens))


def test_what_was_added_is_told(capsys):
    tell("worse", torch.tensor([1.1, 2.1], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert "worse" in (line := capsys.readouterr().out) and "+0.1000 nats" in line


def test_moods_come_in_pairs_and_the_word_is_hidden():
    story = "Once there was a small cat who lived by the river and liked to sleep in the sun. She felt so {}. "
    texts, labels = mood_task((story.format("happy") + story.format("sad")) * 3, 4)
    assert labels == [1, 0, 1, 0] and len(texts) == 4
    assert not any("happy" in text[-10:] or "sad" in text[-10:] for text in texts)
