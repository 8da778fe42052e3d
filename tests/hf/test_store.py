"""One `save` and one `load` for every family of models and every kind of layer; damage is in tests/test_hostile.py."""

from copy import deepcopy

import pytest
import tiny
import torch
from torch import nn

from nanoq.compress import add_adapters, compress_model, pruning, remove_blocks, remove_heads, remove_neurons, thinning
from nanoq.hf import HFModel
from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.quant import LayerSpec, QuantLinear, Recipe, quantize_model
from nanoq.quant.qat import prepare_qat
from nanoq.quant.visit import visit
from nanoq.store import Checkpoint, load, save
from nanoq.vision import ResNet, ResNetConfig

TOKENS = torch.randint(1, 11, (12, 16), generator=torch.Generator().manual_seed(1))
PICTURES = torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(2))


def gpt():
    return Checkpoint(GPT(GPTConfig(11, 16, layers=2, heads=2, width=32, bias=True)).eval(),
                      CharTokenizer("abcdefghij"), {"note": "ä"})


def resnet():
    return Checkpoint(ResNet(ResNetConfig(widths=(4, 6))).eval(), None, {})


def opt():
    return Checkpoint(HFModel(tiny.make("opt")).eval(), None, {})


FAMILIES = {"gpt": (gpt, TOKENS), "resnet": (resnet, PICTURES), "opt": (opt, TOKENS)}


def adapters(model, data):
    original = deepcopy(model)
    quantize_model(model, Recipe.uniform(3), data)
    add_adapters(model, 4, original, data)


def sort_columns(model, data):
    quantize_model(model, Recipe.uniform(4, grid_options={"granularity": "group", "group_size": 8}))
    for name, layer in list(model.named_modules()):
        if isinstance(layer, QuantLinear):
            order = torch.randperm(layer.layout["in_features"], generator=torch.Generator().manual_seed(3))
            model.set_submodule(name, QuantLinear.from_codes(layer.unpacked(), layer.grid, layer.bias, order))


ROUNDED = {
    "4 bits": lambda m, x: quantize_model(m, Recipe.uniform(4, "gptq"), x),
    "ternary": lambda m, x: quantize_model(m, Recipe.uniform(2, grid="ternary")),
    "nf4-dq": lambda m, x: quantize_model(m, Recipe.uniform(4, grid="nf4-dq")),
    "4 bits, embeddings": lambda m, x: quantize_model(m, Recipe(LayerSpec(4), embeddings=8)),
    "qat": None,
}
CHANGED = {
    "pruned": lambda m, x: compress_model(m, pruning("magnitude"), x),
    "pruned, 4 bits": lambda m, x: compress_model(m, pruning(spec=LayerSpec(4)), x),
    "low rank": lambda m, x: compress_model(m, thinning(0.5), x),
    "adapters": adapters,
    "sorted columns": sort_columns,
}
GPT_ONLY = {
    "heads": lambda m, x: remove_heads(m, {0: [1]}),
    "blocks": lambda m, x: remove_blocks(m, [0]),
    "neurons, 3 bits": lambda m, x: quantize_model(remove_neurons(m, 0.25, x), Recipe.uniform(3)),
}
CASES = [(family, name, change) for family in FAMILIES for name, change in ROUNDED.items() if change]
CASES += [(family, name, change) for family in ("gpt", "opt") for name, change in CHANGED.items()]
CASES += [("gpt", name, change) for name, change in GPT_ONLY.items()]


@pytest.mark.parametrize(("family", "name", "change"), CASES, ids=lambda value: None if callable(value) else value)
def test_whatever_was_done_to_a_model_it_comes_back_bit_for_bit(family, name, change, tmp_path):
    make, data = FAMILIES[family]
    start = make()
    change(start.model, data)
    for parameter in start.model.parameters():
        parameter.data = parameter.data.half().float()  # as a file keeps them
    loaded = load(save(tmp_path, start, half=True, command="test"))
    assert type(loaded.model) is type(start.model)
    assert torch.equal(loaded.model(data), start.model.eval()(data))
    assert loaded.card["command"] == "test" and loaded.card.get("note") == start.card.get("note")
    assert not loaded.model.training and all(p.dtype == torch.float32 for p in loaded.model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_as_it_is_comes_back_in_its_own_precision_and_saves_to_the_same_bytes(family, tmp_path):
    make, data = FAMILIES[family]
    start = make()
    loaded = load(save(tmp_path / "first", start))
    assert torch.equal(loaded.model(data), start.model(data))
    save(tmp_path / "second", loaded)
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_a_loaded_model_can_be_trained_as_the_one_that_was_saved(tmp_path):
    start = gpt()
    loaded = load(save(tmp_path, start)).model
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in start.model.parameters()]
    loaded(TOKENS).square().mean().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_tied_weights_are_written_once_and_stay_tied(tmp_path):
    start = opt()
    model = load(save(tmp_path, start)).model.model
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    start = gpt()
    prepare_qat(start.model, Recipe.uniform(4))
    with pytest.raises(ValueError, match="missing: blocks"):
        save(tmp_path / "qat", start)
    start = gpt()
    start.model.blocks[0].mlp.up = nn.Sequential(start.model.blocks[0].mlp.up)
    with pytest.raises(ValueError, match=r"missing: blocks\.0\.mlp\.up"):
        save(tmp_path / "other", start)
    with pytest.raises(ValueError, match="a Linear is of no family that nanoq can save"):
        save(tmp_path / "linear", Checkpoint(nn.Linear(2, 2), None, {}))
    assert list(tmp_path.iterdir()) == []


def test_layers_of_other_sizes_have_to_fit_each_other(tmp_path):
    start = gpt()
    start.model.blocks[0].mlp.up = nn.Linear(32, 100)
    with pytest.raises(ValueError, match="do not fit its card"):
        load(save(tmp_path, start))


def test_a_card_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(tmp_path, gpt(), validation_perplexity=float("nan"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [torch.zeros(32), torch.arange(1, 33), torch.full((32,), -1)], ids=str)
def test_an_order_of_columns_that_is_none_is_refused(order, tmp_path):
    start = gpt()
    sort_columns(start.model, TOKENS)
    start.model.blocks[1].mlp.up.order = order.int()
    with pytest.raises(ValueError, match=r"blocks.1.mlp.up: its 'order' does not name each of 32 inputs once"):
        load(save(tmp_path, start))


def test_a_gpt_without_its_tokeniser_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="a GPT is saved with its tokeniser"):
        save(tmp_path, Checkpoint(gpt().model, None, {}))


def test_a_layer_that_is_not_there_is_named_before_the_walk():
    with pytest.raises(ValueError, match=r"no layer blocks\.0\.nothing, head"):
        next(visit(gpt().model, [TOKENS], ["blocks.0.nothing", "head", "blocks.0.mlp.up"]))
