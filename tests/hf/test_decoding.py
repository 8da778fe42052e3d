"""Packed layers decode their weights once for an evaluation, which changes no bit of its result."""

from collections import Counter
from copy import deepcopy

import pytest
import torch
from test_store import MODELS, ROUNDED, TOKENS, adapters, rotate_and_round, sort_columns

import nanoq
from nanoq import decoding
from nanoq.compress import Prune, compress_model
from nanoq.decoding import DecodingLayer, decoded_once
from nanoq.lm.evaluate import AgainstOriginal, row_losses
from nanoq.quant import Recipe, Round, Vector, quantize_model
from nanoq.tasks import Images
from nanoq.vision.evaluate import correct

CHANGES = {
    **{name: change for name, change in ROUNDED.items() if change},
    "groups": lambda m, x: quantize_model(m, Recipe(bits=2, group_size=8)),
    "coded": lambda m, x: quantize_model(m, Recipe("gptq", bits=8, grid="entropy-coded", rate=2.0), x),
    "e8p": lambda m, x: quantize_model(m, Recipe(Vector("e8p")), x),
    "pruned": lambda m, x: compress_model(m, Prune("magnitude"), x),
    "pruned, 4 bits": lambda m, x: compress_model(m, [Prune(), Round("gptq", bits=4)], x),
    "adapters": adapters, "sorted columns": sort_columns, "rotated": rotate_and_round,
}
CASES = [("gpt", change) for change in CHANGES]
CASES += [("opt", change) for change in CHANGES if change != "rotated"]


def packed(family="gpt", change="4 bits"):
    checkpoint, data = MODELS[family][0](), MODELS[family][1]
    CHANGES[change](checkpoint.model, data)
    return checkpoint


def kept(model):
    return [layer for layer in model.modules() if isinstance(layer, DecodingLayer)
            and (layer._keeps or layer._weight is not None)]


@pytest.fixture
def decodings(monkeypatch):
    """How often each layer decodes its weight."""
    times, decoded = Counter(), DecodingLayer.decoded

    def counted(layer):
        times[layer] += layer._weight is None
        return decoded(layer)

    monkeypatch.setattr(DecodingLayer, "decoded", counted)
    return times


@pytest.mark.parametrize(("family", "change"), CASES)
def test_losses_are_the_same_bit_for_bit(family, change, monkeypatch):
    model = packed(family, change).model.eval()
    once = row_losses(model, TOKENS, batch=4)
    assert kept(model) == []
    monkeypatch.setattr(decoding, "LIMIT", 0)
    assert torch.equal(once, row_losses(model, TOKENS, batch=4))


def test_pictures_are_told_alike(monkeypatch):
    checkpoint, pictures = packed("resnet"), MODELS["resnet"][1]
    model, labels = checkpoint.model, torch.zeros(6, dtype=torch.long)
    task = Images(checkpoint, "digits", windows=300)
    task.images = type("Some", (), {"test": pictures, "test_labels": labels, "name": "some"})()
    once = task.outputs(model), correct(model, pictures, labels, batch=2)
    monkeypatch.setattr(decoding, "LIMIT", 0)
    again = task.outputs(model), correct(model, pictures, labels, batch=2)
    assert all(map(torch.equal, once, again)) and kept(model) == []


@pytest.mark.parametrize("family", ["gpt", "opt"])
def test_each_layer_decodes_once_for_all_windows(family, decodings):
    model = packed(family).model
    decodings.clear()  # what quantising took
    row_losses(model, TOKENS, batch=2)
    assert len(decodings) >= 8 and set(decodings.values()) == {1}
    decodings.clear()
    model(TOKENS), model(TOKENS)
    assert set(decodings.values()) == {2}  # after it as before


def test_pictures_take_one_decoding_of_each_layer(decodings):
    model, pictures = packed("resnet").model, MODELS["resnet"][1]
    decodings.clear()
    correct(model, pictures, torch.zeros(6, dtype=torch.long), batch=2)
    assert len(decodings) >= 3 and set(decodings.values()) == {1}


def test_no_more_than_the_limit_is_kept():
    model = packed().model
    sizes = [4 * layer.weight_shape[0] * layer.weight_shape[1] for layer in model.modules()
             if isinstance(layer, DecodingLayer)]
    for limit in (0, min(sizes), sum(sizes) // 2, sum(sizes)):
        with decoded_once(model, limit):
            model(TOKENS)
            used = sum(layer._weight.nbytes for layer in kept(model))
        assert limit - min(sizes) < used <= limit or used == limit == 0
        assert kept(model) == []


def test_weights_are_let_go_when_the_model_fails_and_by_whoever_kept_them_first():
    model = packed().model
    with pytest.raises(ValueError, match="vocabulary"):
        row_losses(model, TOKENS + 100)
    assert kept(model) == []
    with decoded_once(model):
        row_losses(model, TOKENS)
        assert len(kept(model)) == 8
    assert kept(model) == []


def test_a_copy_keeps_no_weight_for_longer():
    model = packed().model
    with decoded_once(model):
        model(TOKENS)
        copy = deepcopy(model)
        assert kept(model) and not kept(copy)
    assert torch.equal(copy(TOKENS), model(TOKENS))


def test_vectors_that_were_measured_can_be_trained_through():
    model = packed(change="e8p").model
    row_losses(model, TOKENS)
    hidden = model.token_embedding(TOKENS[:, :4]).detach().requires_grad_()
    model.blocks[0](hidden).sum().backward()
    assert hidden.grad.isfinite().all()


def test_new_codes_take_the_place_of_kept_weights():
    model, other = packed().model, packed(change="groups").model
    same = packed().model
    same.blocks[0].mlp.up.codes.bitwise_xor_(3)
    with decoded_once(model):
        before = model(TOKENS)
        model.load_state_dict(same.state_dict())
        assert torch.equal(model(TOKENS), same(TOKENS)) and not torch.equal(before, same(TOKENS))
    assert not torch.equal(other(TOKENS), before)


@pytest.mark.parametrize("predictions", [AgainstOriginal.KEPT, 0])
@pytest.mark.parametrize("family", ["gpt", "opt"])
def test_a_comparison_runs_each_model_once_for_each_window(family, predictions, monkeypatch):
    monkeypatch.setattr(AgainstOriginal, "KEPT", predictions)
    original, small = MODELS[family][0](), packed(family)
    task = nanoq.tasks.TokenText if family == "opt" else nanoq.tasks.CharacterText
    task = task.__new__(task)
    task.checkpoint, task.windows, task.context, task.unit, task.corpus = original, None, 15, "token", None
    task.held_out, task.outputs = TOKENS, lambda model, watch=None: row_losses(model, TOKENS, batch=4, watch=watch)
    task.caption, task.more = lambda count: "some", lambda outputs: {}
    seen = []
    for name, model in (("original", original.model), ("small", small.model)):
        model.register_forward_pre_hook(lambda _, rows, name=name: seen.extend([name] * len(rows[0])))
    found = task.evaluate(small.model, original.model)
    assert seen.count("original") == seen.count("small") == len(TOKENS)
    difference = row_losses(small.model, TOKENS, batch=4) - row_losses(original.model, TOKENS, batch=4)
    assert found.delta.mean == float(difference.mean())
