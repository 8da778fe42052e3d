"""One `save` and one `load` for every family of models and every kind of layer; damage is in tests/test_hostile.py."""

import json
from copy import deepcopy

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nanoq.compress import LowRank, Prune, add_adapters, compress_model, remove_blocks, remove_heads, remove_neurons
from nanoq.files import sha256
from nanoq.hf import HFModel
from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.quant import QuantLinear, Recipe, Round, Vector, quantize_model, rotate
from nanoq.quant.qat import prepare_qat
from nanoq.quant.visit import visit
from nanoq.store import (
    CARD,
    FAMILIES,
    INDEX,
    WEIGHTS,
    Checkpoint,
    inspect,
    load,
    read_folder,
    renamed,
    save,
    write_folder,
)
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


MODELS = {"gpt": (gpt, TOKENS), "resnet": (resnet, PICTURES), "opt": (opt, TOKENS)}


def adapters(model, data):
    original = deepcopy(model)
    quantize_model(model, Recipe(bits=3), data)
    add_adapters(model, 4, original, data)


def sort_columns(model, data):
    quantize_model(model, Recipe(bits=4, group_size=8))
    for name, layer in list(model.named_modules()):
        if isinstance(layer, QuantLinear):
            order = torch.randperm(layer.layout["in_features"], generator=torch.Generator().manual_seed(3))
            model.set_submodule(name, QuantLinear.from_codes(layer.unpacked(), layer.grid, layer.bias, order))


def rotate_and_round(model, data):
    rotate(model, online=True)
    quantize_model(model, Recipe("gptq", bits=3), data)


ROUNDED = {
    "4 bits": lambda m, x: quantize_model(m, Recipe("gptq", bits=4), x),
    "ternary": lambda m, x: quantize_model(m, Recipe(bits=2, grid="ternary")),
    "nf4-dq": lambda m, x: quantize_model(m, Recipe(bits=4, grid="nf4-dq")),
    "4 bits, embeddings": lambda m, x: quantize_model(m, Recipe(bits=4, embeddings=8)),
    "qat": None,
}
CHANGED = {
    "pruned": lambda m, x: compress_model(m, Prune("magnitude"), x),
    "pruned, 4 bits": lambda m, x: compress_model(m, [Prune(), Round("gptq", bits=4)], x),
    "low rank": lambda m, x: compress_model(m, LowRank(0.5), x),
    "adapters": adapters,
    "sorted columns": sort_columns,
    "trellis": lambda m, x: quantize_model(m, Recipe(Vector("trellis", 3)), x),
    "e8p": lambda m, x: quantize_model(m, Recipe(Vector("e8p")), x),
}
GPT_ONLY = {
    "heads": lambda m, x: remove_heads(m, {0: [1]}),
    "blocks": lambda m, x: remove_blocks(m, [0]),
    "rotated": lambda m, x: rotate(m, online=True),
    "rotated, 3 bits": rotate_and_round,
    "neurons, 3 bits": lambda m, x: quantize_model(remove_neurons(m, 0.25, x), Recipe(bits=3)),
}
CASES = [(family, name, change) for family in MODELS for name, change in ROUNDED.items() if change]
CASES += [(family, name, change) for family in ("gpt", "opt") for name, change in CHANGED.items()]
CASES += [("gpt", name, change) for name, change in GPT_ONLY.items()]


@pytest.mark.parametrize(("family", "name", "change"), CASES, ids=lambda value: None if callable(value) else value)
def test_whatever_was_done_to_a_model_it_comes_back_bit_for_bit(family, name, change, tmp_path):
    make, data = MODELS[family]
    start = make()
    change(start.model, data)
    for parameter in start.model.parameters():
        parameter.data = parameter.data.half().float()  # as a file keeps them
    loaded = load(save(tmp_path, start, half=True, command="test"))
    assert type(loaded.model) is type(start.model)
    assert torch.equal(loaded.model(data), start.model.eval()(data))
    assert loaded.card["command"] == "test" and loaded.card.get("note") == start.card.get("note")
    assert not loaded.model.training and all(p.dtype == torch.float32 for p in loaded.model.parameters())


@pytest.mark.parametrize("family", MODELS)
def test_a_model_as_it_is_comes_back_in_its_own_precision_and_saves_to_the_same_bytes(family, tmp_path):
    make, data = MODELS[family]
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
    prepare_qat(start.model, Recipe(bits=4))
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


# ---- names in files ----


def before_names(folder, model):
    """Make a folder of what there is as the package wrote it before files had the names of transformers."""
    tensors, card = read_folder(folder)
    back = {there: here for here, there in FAMILIES["transformers"].names(model).items()}
    card["layers"] = {renamed(name, back): layout for name, layout in card["layers"].items()}
    for key in ("names", "model_sha256", "weights_sha256", "versions"):
        del card[key]
    write_folder(folder, {renamed(name, back): tensor for name, tensor in tensors.items()}, card)
    (folder / "config.json").unlink()


@pytest.mark.parametrize("change", [name for name, change in (ROUNDED | CHANGED).items() if change])
@pytest.mark.parametrize("family", ["opt", "gpt2", "bert encoder"])
def test_a_folder_from_before_the_names_loads_bit_for_bit(family, change, tmp_path):
    model = HFModel(tiny.make(family)).eval()
    (ROUNDED | CHANGED)[change](model, TOKENS)
    save(tmp_path, Checkpoint(model, None, {}), half=True)
    expected = load(tmp_path).model(TOKENS)
    before_names(tmp_path, model)
    assert "blocks.0" in " ".join(load_file(tmp_path / WEIGHTS)) and "names" not in inspect(tmp_path)
    loaded = load(tmp_path)
    assert torch.equal(loaded.model(TOKENS), expected)
    assert "names" in load(save(tmp_path / "again", loaded)).card


def test_files_have_the_names_of_the_model_of_transformers(tmp_path):
    start = opt()
    quantize_model(start.model, Recipe(bits=4))
    names = {name.rpartition(".")[0] for name in load_file(save(tmp_path, start) / WEIGHTS)}
    assert names < dict(start.model.model.named_modules()).keys() and "model.decoder.layers.1.fc2" in names
    assert load(tmp_path).card["layers"].keys() < names


def test_beginnings_of_names_are_replaced_and_different_names_stay_different():
    there = {"model": "", "blocks.0": "model.layers.0", "blocks.1": "blocks.1"}
    back = {"": "model", "model.layers.0": "blocks.0", "blocks.1": "blocks.1"}
    for here, other in (("model.lm_head.weight", "lm_head.weight"), ("blocks.0.fc1.bias", "model.layers.0.fc1.bias"),
                        ("model.model.norm.weight", "model.norm.weight"), ("blocks.1.fc1", "blocks.1.fc1"),
                        ("model.model.layers.10.x", "model.layers.10.x")):
        assert renamed(here, there) == other and renamed(other, back) == here
    odd = ["", ".", ".x", "x", "x.", "..", "model", "model.", "model..x", "blocks.0", "blocks.0."]
    assert len({renamed(name, back) for name in odd}) == len(odd)
    assert renamed("blocks.0.x", {}) == "blocks.0.x"


# ---- shards ----


def in_shards(folder, count=3):
    """Let the weights of a folder lie in shards."""
    tensors, card = load_file(folder / WEIGHTS), json.loads((folder / CARD).read_text())
    files = {name: f"model-{number % count + 1:05}-of-{count:05}.safetensors" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensor for name, tensor in tensors.items() if files[name] == file}, folder / file)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    card["weights_sha256"] = {file: sha256(folder / file) for file in sorted(set(files.values()))}
    (folder / CARD).write_text(json.dumps(card))
    return folder


@pytest.fixture
def sharded(tmp_path):
    start = opt()
    quantize_model(start.model, Recipe(bits=4))
    save(tmp_path / "whole", start)
    save(tmp_path / "shards", start)
    in_shards(tmp_path / "shards")
    return tmp_path / "shards"


def test_shards_are_read_as_one_file(sharded):
    whole = sharded.with_name("whole")
    assert torch.equal(load(sharded).model(TOKENS), load(whole).model(TOKENS))
    assert inspect(sharded)["layers"] == inspect(whole)["layers"]
    tensors, expected = read_folder(sharded)[0], read_folder(whole)[0]
    assert tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in tensors)
    for family in ("gpt", "resnet"):
        start = MODELS[family][0]()
        assert load(in_shards(save(sharded.with_name(family), start))).card["family"] == family


FIRST, SECOND = (f"model-0000{number}-of-00003.safetensors" for number in (1, 2))


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def edit_card(folder, change):
    card = json.loads((folder / CARD).read_text())
    change(card)
    (folder / CARD).write_text(json.dumps(card))


def swap(folder):
    """Two shards change places, and the card knows."""
    (folder / FIRST).rename(folder / "x")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "x").rename(folder / SECOND)
    edit_card(folder, lambda card: card.update(weights_sha256={name: sha256(folder / name)
                                                               for name in card["weights_sha256"]}))


@pytest.mark.parametrize(("damage", "said"), [
    (lambda folder: (folder / FIRST).unlink(), "model-00001-of-00003.safetensors is missing"),
    (lambda folder: (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-1]), "the SHA-256 differs"),
    (lambda folder: (folder / FIRST).write_bytes((folder / SECOND).read_bytes()), "the SHA-256 differs"),
    (lambda folder: (folder / INDEX).write_text("{"), "is no index of tensors"),
    (lambda folder: (folder / INDEX).write_text("[" * 99_999), "is no index of tensors"),
    (lambda folder: (folder / INDEX).write_text("[]"), "is no index of tensors"),
    (lambda folder: edit_index(folder, lambda index: index.update(weight_map=[])), "is no index of tensors"),
    (lambda folder: edit_index(folder, lambda index: index["weight_map"].update(x="../x.safetensors")), "no shards"),
    (lambda folder: edit_index(folder, lambda index: index["weight_map"].update(x=3)), "no shards"),
    (lambda folder: edit_index(folder, lambda index: index["weight_map"].popitem()), "elsewhere, or not at all"),
    (lambda folder: edit_index(folder, lambda index: index["weight_map"].update(x=FIRST)), "no file has .*: x"),
    (lambda folder: edit_index(folder, lambda index: index.update(
        weight_map={name: FIRST for name in index["weight_map"]})), "does not name model-00002-of-00003.safetensors"),
    (swap, "elsewhere, or not at all"),
    (lambda folder: edit_card(folder, lambda card: card["weights_sha256"].pop(FIRST)), "no file has"),
    (lambda folder: edit_card(folder, lambda card: card.update(weights_sha256={})), "no shards of weights"),
    (lambda folder: edit_card(folder, lambda card: card["weights_sha256"].update({"/x": ""})), "no shards of weights"),
    (lambda folder: edit_card(folder, lambda card: card["weights_sha256"].update({FIRST: None})), "SHA-256 differs"),
    (lambda folder: edit_card(folder, lambda card: card.update(weights_sha256="")), "model.safetensors is missing"),
])
def test_shards_that_are_damaged_are_refused_in_one_sentence(damage, said, sharded):
    damage(sharded)
    for read in (load, inspect):
        with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
            read(sharded)
        assert str(sharded) in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_in_one_file_replaces_one_in_shards_and_both_are_refused(sharded):
    whole = load(sharded.with_name("whole"))
    (sharded / WEIGHTS).write_bytes((sharded.with_name("whole") / WEIGHTS).read_bytes())
    with pytest.raises(ValueError, match=r"holds model\.safetensors beside the shards"):
        load(sharded)
    save(sharded, whole, half=True)
    assert sorted(path.name for path in sharded.iterdir()) == [CARD, "config.json", "generation_config.json", WEIGHTS]
    assert torch.equal(load(sharded).model(TOKENS), whole.model(TOKENS))


def test_a_folder_without_its_index_is_no_model(sharded):
    (sharded / INDEX).unlink()
    with pytest.raises(FileNotFoundError, match="no model at"):
        load(sharded)
