"""Quantising a folder block by block, from its files to new ones."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from hostile import write_shards
from safetensors.torch import load_file, save_file
from tiny import make, make_tokenizer

import nanoq
from nanoq import store
from nanoq.compress import LowRank, Prune
from nanoq.files import sha256
from nanoq.hf import stream
from nanoq.hf.stream import INDEX, STATE, open_folder, quantize_folder
from nanoq.quant import LayerStats, Recipe, Round, Vector, export_model, processes, quantize_model
from nanoq.quant.quantize import quantize_block
from nanoq.store import CARD, WEIGHTS, save

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
TOKENS = torch.randint(97, (6, 16), generator=torch.Generator().manual_seed(0))
NEAREST = Recipe(bits=4)
GPTQ = Recipe("gptq", bits=4, group_size=16)
ORDERED = Recipe("gptq", bits=3, act_order=True)
MATCHED = {"true_sequential": True, "match_original": True}
GPTQ_MATCHED = Recipe("gptq", bits=4, group_size=16, **MATCHED)
MODELS = ["llama", "llama, tied", "opt", "opt, narrow embeddings", "opt-350m", "gpt2", "qwen3", "gptj", "gemma2",
          "cohere", "bloom", "bert", "roberta encoder"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of each family, in float32, in shards of 30 kB at most."""
    made = {}

    def source(family, dtype=torch.float32, **changes):
        key = family, dtype, *changes.items()
        if key not in made:
            made[key] = tmp_path_factory.mktemp("source")
            make(family, **changes).to(dtype).save_pretrained(made[key], max_shard_size="30KB")
        return made[key]
    return source


def held(folder):
    """Every tensor in a folder."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def in_memory(source, out, recipe, batch=2):
    """What `quantize_model` and `save` make of the same model, by the names of transformers."""
    checkpoint = nanoq.load(source)
    reports = quantize_model(checkpoint.model, recipe, TOKENS, batch)
    save(out, checkpoint)
    model = checkpoint.model
    names = {id(module): name for name, module in model.model.named_modules()}

    def renamed(name):
        first, number, *rest = name.split(".")
        return ".".join([names[id(model.blocks[int(number)])], *rest]) if first == "blocks" else name[len("model."):]

    tensors = held(out)
    if any(name.startswith("blocks.") for name in tensors):
        tensors = {renamed(name): tensor for name, tensor in tensors.items()}
    return tensors, reports


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("family", MODELS)
def test_a_streamed_folder_holds_bit_for_bit_what_quantising_in_memory_gives(family, sources, tmp_path):
    reports = quantize_folder(sources(family), tmp_path / "streamed", GPTQ, TOKENS, 2)
    expected, others = in_memory(sources(family), tmp_path / "whole", GPTQ)
    assert_same(held(tmp_path / "streamed"), expected)
    assert reports == others


@pytest.mark.parametrize("family", ["llama", "llama, tied", "opt", "gpt2"])
@pytest.mark.parametrize("recipe", [
    NEAREST, ORDERED, Recipe("gptq", bits=4, group_size=16, true_sequential=True),
    Recipe("gptq", bits=3, act_order=True, **MATCHED), Recipe(Prune(), Round("gptq", bits=4)),
    Recipe("gptq", bits=4, precision="bf16"),
], ids=["nearest", "act_order", "true_sequential", "match_original", "pruned", "bf16"])
@pytest.mark.parametrize("memory", [2**30, 0], ids=["in memory", "in files"])
def test_that_holds_for_every_option_wherever_hidden_states_are(family, recipe, memory, sources, tmp_path):
    quantize_folder(sources(family), tmp_path / "streamed", recipe, TOKENS, 2, memory=memory)
    assert_same(held(tmp_path / "streamed"), in_memory(sources(family), tmp_path / "whole", recipe)[0])


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folder_of_narrow_weights_gives_what_the_same_weights_give_in_float32(family, dtype, sources, tmp_path):
    quantize_folder(sources(family, dtype), tmp_path / "streamed", GPTQ, TOKENS, 2)
    assert_same(held(tmp_path / "streamed"), in_memory(sources(family, dtype), tmp_path / "whole", GPTQ)[0])


@pytest.mark.parametrize("family", [*MODELS, "bert encoder"])
@pytest.mark.parametrize("bits", [8, 4])
def test_embeddings_and_heads_are_packed_as_they_are_in_memory(family, bits, sources, tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        recipe = Recipe("gptq", bits=4, group_size=16, embeddings=bits)
        streamed, whole = (tmp_path / f"{name} {dtype}" for name in ("streamed", "whole"))
        quantize_folder(sources(family, dtype), streamed, recipe, TOKENS, 2)
        assert_same(held(streamed), in_memory(sources(family, dtype), whole, recipe)[0])
        ours, theirs = (json.loads((folder / CARD).read_text()) for folder in (streamed, whole))
        assert any(layout.get("kind") == "embedding" for layout in ours["layers"].values())
        assert ours | {"weights_sha256": None} == theirs | {"weights_sha256": None}
        model, other = (store.load(folder).model for folder in (streamed, whole))
        assert torch.equal(model(TOKENS), other(TOKENS))


def test_without_calibration_the_shards_hold_weights_rounded_to_nearest(sources, tmp_path):
    reports = quantize_folder(sources("opt"), tmp_path / "streamed", NEAREST)
    checkpoint = nanoq.load(sources("opt"))
    quantize_model(checkpoint.model, NEAREST)
    own = checkpoint.model.blocks[1].fc1
    assert torch.equal(held(tmp_path / "streamed")["model.decoder.layers.1.fc1.codes"], own.codes)
    assert [report.output_error for report in reports] == [None] * 12


def test_layers_that_stay_in_float16_or_have_rules_of_their_own_are_as_in_memory(sources, tmp_path):
    recipe = Recipe(Round(bits=3),
        rules={"*.q_proj": Round(bits=16), "blocks.1.*": Round("gptq", bits=4, refit=True)})
    quantize_folder(sources("llama"), tmp_path / "streamed", recipe, TOKENS, 2)
    assert_same(held(tmp_path / "streamed"), in_memory(sources("llama"), tmp_path / "whole", recipe)[0])


def test_methods_that_round_whole_blocks_are_refused(sources, tmp_path):
    with pytest.raises(ValueError, match="quantise in memory"):
        quantize_folder(sources("opt"), tmp_path / "out", Recipe("brecq", bits=4), TOKENS)


def test_a_whole_file_is_taken_as_well_as_shards_and_with_or_without_the_name_of_the_base(tmp_path):
    make("gpt2").save_pretrained(tmp_path / "plain")
    tensors = load_file(tmp_path / "plain" / WEIGHTS)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text((tmp_path / "plain/config.json").read_text())
    save_file({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()},
              tmp_path / "base" / WEIGHTS)
    for kind in ("plain", "base"):
        quantize_folder(tmp_path / kind, tmp_path / f"{kind} 4", NEAREST)
    assert_same(held(tmp_path / "base 4"), held(tmp_path / "plain 4"))


def test_of_a_whole_file_and_shards_beside_it_the_whole_file_counts_as_it_does_in_memory(tmp_path):
    source = tmp_path / "source"
    make("opt").save_pretrained(source)
    whole = (source / WEIGHTS).read_bytes()
    write_shards(source)
    for file in source.glob("model-*.safetensors"):
        save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}, file)
    (source / WEIGHTS).write_bytes(whole)
    quantize_folder(source, tmp_path / "out", NEAREST)
    expected = nanoq.quantize(nanoq.load(source), NEAREST)
    assert_same(nanoq.load(tmp_path / "out").model.state_dict(), expected.model.state_dict())


def test_a_shard_is_written_for_each_block_with_an_index_a_card_and_the_configuration(sources, tmp_path):
    make_tokenizer().save_pretrained(sources("llama"))
    quantize_folder(sources("llama"), tmp_path / "out", NEAREST)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert sorted(set(index["weight_map"].values())) == shards
    assert index["weight_map"]["model.layers.1.mlp.up_proj.codes"] == shards[2]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in held(tmp_path / "out").values())
    card = json.loads((tmp_path / "out" / CARD).read_text())
    assert card["weights_sha256"] == {shard: sha256(tmp_path / "out" / shard) for shard in shards}
    assert card["layers"]["model.layers.0.self_attn.q_proj"]["bits"] == 4
    assert Recipe.from_json(card["recipe"]) == NEAREST
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "tokenizer.json"} <= names
    assert STATE not in names


def killed(source, out, memory, at, when):
    """Quantise in a process that is killed before it does something, or after it has written a shard."""
    own = getattr(stream._Shards, when)

    def deadly(self, number, *rest):
        if when == "_write":
            own(self, number, *rest)
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if when != "_write":
            own(self, number, *rest)

    child = os.fork()  # which has all that takes long to import
    if not child:
        try:
            setattr(stream._Shards, when, deadly)
            quantize_folder(source, out, GPTQ_MATCHED, TOKENS, 2, memory=memory)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("memory", [2**30, 0], ids=["in memory", "in files"])
def test_a_killed_call_goes_on_with_the_first_block_that_has_no_shard(memory, tmp_path, monkeypatch):
    make("gpt2", n_layer=4).save_pretrained(tmp_path / "source")
    expected, reports = in_memory(tmp_path / "source", tmp_path / "whole", GPTQ_MATCHED)
    for at, when in ((1, "_write"), (1, "before"), (3, "_write"), (2, "after"), (3, "before")):
        killed(tmp_path / "source", tmp_path / "out", memory, at, when)
    quantised = []
    monkeypatch.setattr(stream, "quantize_block", lambda stage, *rest: (
        quantised.append(stage.prefix), quantize_block(stage, *rest))[1])
    again = quantize_folder(tmp_path / "source", tmp_path / "out", GPTQ_MATCHED, TOKENS, 2, memory=memory)
    assert quantised == ["blocks.3."]
    assert again == reports
    assert_same(held(tmp_path / "out"), expected)
    assert not list((tmp_path / "out").glob("*streaming*"))


def test_blocks_that_are_done_are_run_again_only_where_their_outputs_were_in_memory(tmp_path, monkeypatch):
    make("opt", num_hidden_layers=3).save_pretrained(tmp_path / "source")
    read = []
    load = stream._Weights.load
    monkeypatch.setattr(stream._Weights, "load", lambda self, index: (read.append(index), load(self, index))[1])
    for memory, expected in ((2**30, [0, 1, 2]), (0, [2])):
        out = tmp_path / f"out {memory}"
        killed(tmp_path / "source", out, memory, 2, "before")
        state = json.loads((out / STATE).read_text())
        assert state["done"] == 2
        read.clear()
        quantize_folder(tmp_path / "source", out, GPTQ_MATCHED, TOKENS, 2, memory=memory)
        assert read == expected


def test_the_beginning_of_another_model_is_refused(tmp_path):
    make("gpt2").save_pretrained(tmp_path / "source")
    make("gpt2", seed=1).save_pretrained(tmp_path / "other")
    killed(tmp_path / "source", tmp_path / "out", 0, 1, "before")
    job = {"source": tmp_path / "source", "recipe": GPTQ_MATCHED, "calibration": TOKENS, "batch": 2}
    changes = {"recipe": ORDERED, "calibration": TOKENS.flip(0), "batch": 3, "source": tmp_path / "other"}
    for key, value in changes.items():
        with pytest.raises(ValueError, match=rf"beginning of another model \({key} differ"):
            quantize_folder(out=tmp_path / "out", **job | {key: value})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": null}', "[" * 99_999])
def test_a_damaged_state_is_named_with_what_to_do(text, tmp_path):
    (tmp_path / STATE).write_text(text)
    with pytest.raises(ValueError, match=rf"{STATE} is damaged .*: remove {tmp_path}, and begin anew"):
        stream._state(tmp_path, {"batch": 1})


def test_a_folder_that_holds_a_model_is_never_written_to(sources, tmp_path):
    with pytest.raises(ValueError, match="is the folder of the model that is read"):
        quantize_folder(sources("opt"), sources("opt"), NEAREST)
    quantize_folder(sources("opt"), tmp_path / "out", NEAREST)
    with pytest.raises(ValueError, match="holds a model already"):
        quantize_folder(sources("opt"), tmp_path / "out", NEAREST)
    with pytest.raises(ValueError, match="is quantised already"):
        quantize_folder(tmp_path / "out", tmp_path / "again", NEAREST)


def test_what_does_not_fit_is_said_in_one_sentence_before_anything_is_written(tmp_path):
    make("llama").save_pretrained(tmp_path / "source")
    weights = tmp_path / "source" / WEIGHTS
    tensors = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    cases = {
        f"no {name}": tensors.keys() - {name},
        f"{name} is of shape": {name: torch.zeros(3, 3)},
        "NaN": {name: tensors[name] * torch.nan},
        "no file model.safetensors": None,
    }
    for message, change in cases.items():
        if change is None:
            weights.unlink()
        else:
            changed = {key: tensors[key] for key in change} if isinstance(change, set) else tensors | change
            save_file(changed, weights)
        with pytest.raises(ValueError, match=message):
            quantize_folder(tmp_path / "source", tmp_path / "out", NEAREST)
        assert not (tmp_path / "out").exists(), message


def test_tied_weights_that_differ_in_the_files_are_refused(tmp_path):
    make("llama, tied").save_pretrained(tmp_path / "source")
    tensors = load_file(tmp_path / "source" / WEIGHTS)
    table = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": table.clone()}, tmp_path / "source" / WEIGHTS)
    quantize_folder(tmp_path / "source", tmp_path / "out", NEAREST)
    assert "lm_head.weight" not in held(tmp_path / "out")
    save_file(tensors | {"lm_head.weight": table + 1}, tmp_path / "source" / WEIGHTS)
    with pytest.raises(ValueError, match="are tied and differ"):
        quantize_folder(tmp_path / "source", tmp_path / "other", NEAREST)


def test_no_more_than_one_block_is_filled_at_a_time(sources, tmp_path, monkeypatch):
    load, filled, loads = stream._Weights.load, [], []

    def counted(self, index):
        loads.append(index)
        filled.extend(p for block in self.blocks for p in block.parameters() if not p.is_meta)
        load(self, index)

    monkeypatch.setattr(stream._Weights, "load", counted)
    quantize_folder(sources("opt"), tmp_path / "out", GPTQ, TOKENS, 2)
    assert loads[-2:] == [0, 1]
    assert not filled


def test_a_model_without_weights_runs_with_its_blocks_filled_on_demand(sources):
    checkpoint, weights = open_folder(sources("opt"))
    model = checkpoint.model
    assert all(parameter.is_meta for parameter in model.blocks.parameters())
    assert model.model.get_input_embeddings().weight.dtype == torch.float16
    with weights.on_demand(), torch.no_grad():
        found = model(TOKENS)
    assert all(parameter.is_meta for parameter in model.blocks.parameters())
    assert torch.allclose(found, nanoq.load(sources("opt")).model(TOKENS), atol=1e-2)


SHARED = """
import sys, torch
from nanoq.hf.stream import quantize_folder
from nanoq.quant import Recipe
source, out = sys.argv[1:]
tokens = torch.randint(97, (6, 16), generator=torch.Generator().manual_seed(0))
for method in ("nearest", "gptq"):
    for match in (False, True):
        recipe = Recipe(method, bits=4, group_size=16, match_original=match)
        quantize_folder(source, f"{out}/{method}{match}", recipe, tokens, 2, memory=0)
"""


def test_two_processes_give_the_codes_of_one_up_to_the_order_of_summation(sources, tmp_path):
    """The means over each process's tokens are added in float32: their last bits differ, and a few codes with them."""
    (tmp_path / "shared.py").write_text(SHARED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               tmp_path / "shared.py", sources("llama"), tmp_path / "two"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for method in ("nearest", "gptq"):
        for match in (False, True):
            recipe = Recipe(method, bits=4, group_size=16, match_original=match)
            name = f"{method}{match}"
            reports = quantize_folder(sources("llama"), tmp_path / name, recipe, TOKENS, 2)
            one, two = held(tmp_path / name), held(tmp_path / "two" / name)
            codes = [key for key in one if key.endswith(".codes")]
            same = sum(float((one[key] == two[key]).float().mean()) for key in codes) / len(codes)
            assert same == 1 if name == "nearestFalse" else same > 0.98, name
            assert len(reports) == len(codes) == 14
            card = json.loads((tmp_path / "two" / name / CARD).read_text())
            assert card["weights_sha256"].keys() == {path.name for path in (tmp_path / name).glob("*.safetensors")}


def test_statistics_of_two_processes_are_those_of_all_their_inputs(monkeypatch):
    inputs, others = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = LayerStats.of(torch.cat([inputs[:10], others]))
    mine, theirs = {"a": LayerStats.of(inputs[:10])}, {"a": LayerStats.of(others), "b": LayerStats.of(others)}
    nobodys = {"idle": LayerStats(4)}

    def gather(shares, mine):
        shares[:] = [mine, {name: (own.tokens, 4, False) for name, own in theirs.items()}]

    added = iter(theirs.values())
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(processes.dist, "all_gather_object", gather)
    monkeypatch.setattr(processes.dist, "all_reduce", lambda mean: mean.add_(
        (own := next(added)).gram * (own.tokens / (40 if own is theirs["a"] else 30))))
    processes.share_statistics(mine)
    assert list(mine) == ["a", "b"]
    assert (mine["a"].tokens, mine["b"].tokens) == (40, 30) and mine["a"].state is not mine["b"].state
    assert torch.allclose(mine["a"].gram, whole.gram)
    assert torch.allclose(mine["b"].gram, theirs["b"].gram.float(), atol=1e-6)
    monkeypatch.setattr(processes.dist, "all_gather_object", lambda shares, mine: shares.__setitem__(
        slice(None), [mine, mine]))
    monkeypatch.setattr(processes.dist, "all_reduce", lambda mean: mean.mul_(2))
    processes.share_statistics(nobodys)  # a layer that is called without a token
    crossed = {"a": LayerStats(4)}  # here without a token, in another process with some and what matches them
    monkeypatch.setattr(processes.dist, "all_gather_object", lambda shares, mine: shares.__setitem__(
        slice(None), [{"a": (3, 4, True)}, mine]))
    processes.share_statistics(crossed)
    assert crossed["a"].cross is not None and crossed["a"].tokens == 3
    crossed["a"].cross = torch.ones(4, 4)  # here matched, in another process not
    monkeypatch.setattr(processes.dist, "all_gather_object", lambda shares, mine: shares.__setitem__(
        slice(None), [{"a": (3, 4, False)}, mine]))
    processes.share_statistics(crossed)
    assert crossed["a"].cross is None and crossed["a"].tokens == 6
    assert nobodys["idle"].tokens == 0 and not nobodys["idle"].gram.any()


@pytest.mark.parametrize("family", ["llama", "llama, tied", "opt", "gpt2", "gpt-neox", "mixtral", "qwen3 moe"])
def test_a_streamed_folder_is_loaded_as_any_other(family, sources, tmp_path):
    quantize_folder(sources(family), tmp_path / "streamed", ORDERED, TOKENS, 2)
    in_memory(sources(family), tmp_path / "whole", ORDERED)
    streamed, whole = store.load(tmp_path / "streamed"), store.load(tmp_path / "whole")
    assert torch.equal(streamed.model(TOKENS), whole.model(TOKENS))
    apart = ("weights_sha256", "source")
    assert {k: v for k, v in streamed.card.items() if k not in apart} == {
        k: v for k, v in whole.card.items() if k not in apart}


def test_a_model_in_the_place_of_the_result_goes_where_that_is_asked_for(sources, tmp_path):
    quantize_folder(sources("llama"), tmp_path, ORDERED, TOKENS, 2)
    expected = held(tmp_path)
    save(tmp_path, nanoq.load(sources("opt")))
    stream.quantize_opened(*open_folder(sources("llama")), tmp_path, ORDERED, TOKENS, 2, replace=True)
    found = held(tmp_path)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("steps", [
    (Prune("magnitude"),), (LowRank(0.5, whitened=False),), (Vector("e8p", feedback=False),),
    (Prune("magnitude"), Round(bits=4)),
], ids=["sparse", "thin", "vectors", "both"])
def test_layers_of_every_kind_are_streamed(steps, sources, tmp_path):
    recipe = Recipe(*steps, rules={"*.o_proj": Round(bits=4)})
    quantize_folder(sources("llama"), tmp_path / "streamed", recipe, TOKENS, 2)
    in_memory(sources("llama"), tmp_path / "whole", recipe)
    streamed, whole = store.load(tmp_path / "streamed"), store.load(tmp_path / "whole")
    assert torch.equal(streamed.model(TOKENS), whole.model(TOKENS))
    assert streamed.card["layers"] == whole.card["layers"]


def test_how_a_model_generates_goes_with_it(sources, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(sources("llama"), source)
    (source / "generation_config.json").write_text('{"eos_token_id": [5, 9], "do_sample": true, "top_k": 7}')
    quantize_folder(source, tmp_path / "streamed", NEAREST)
    save(tmp_path / "saved", nanoq.quantize(nanoq.load(source), NEAREST))
    export_model(tmp_path / "exported", nanoq.load(tmp_path / "saved"), "gptq")
    for name in ("streamed", "saved", "exported"):
        found = nanoq.load(tmp_path / name).model.model.generation_config
        assert (found.eos_token_id, found.do_sample, found.top_k) == ([5, 9], True, 7), name
        assert json.loads((tmp_path / name / "generation_config.json").read_text())["top_k"] == 7


def test_a_gpt_of_nanoq_is_not_streamed_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="'tales-2.7m' is no model of transformers"):
        quantize_folder("tales-2.7m", tmp_path, NEAREST)


def test_a_model_that_was_saved_unquantised_is_streamed(sources, tmp_path):
    save(tmp_path / "copy", nanoq.load(sources("llama")))
    quantize_folder(tmp_path / "copy", tmp_path / "out", NEAREST)
    assert nanoq.load(tmp_path / "out").card["layers"]
