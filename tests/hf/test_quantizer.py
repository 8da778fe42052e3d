"""`from_pretrained` of transformers gives the models that nanoq wrote, or refuses them."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_store import in_shards

import nanoq
import nanoq.hf.quantizer
from nanoq.compress import LowRank, Prune, add_adapters, compress_model
from nanoq.hf import HFModel
from nanoq.hf.checkpoint import KINDS
from nanoq.quant import QuantLinear, Recipe, Round, linear_layers, quantize_model
from nanoq.store import WEIGHTS, Checkpoint, load, save

TOKENS = torch.randint(4, 97, (16, 12), generator=torch.Generator().manual_seed(0))
AUTO = KINDS | {"classifier": "AutoModelForSequenceClassification"}


def write(folder, change, family="opt", **options):
    """The folder of a tiny model that something was done to."""
    model = HFModel(tiny.make(family))
    change(model)
    return save(folder, Checkpoint(model, tiny.make_tokenizer(), {}), **options)


def rounded(bits=4, **options):
    return lambda model: quantize_model(model, Recipe(bits=bits, **options))


def opened(folder, **options):
    """What transformers makes of a folder, and its report."""
    kind = load(folder).model.kind
    return getattr(transformers, AUTO[kind]).from_pretrained(folder, output_loading_info=True, **options)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_from_pretrained_gives_the_model_of_nanoq_bit_for_bit(family, tmp_path):
    write(tmp_path, rounded(), family)
    model, report = opened(tmp_path)
    expected = load(tmp_path).model
    assert torch.equal(model(input_ids=TOKENS)[0], expected(TOKENS)) and not any(report.values())
    layers = linear_layers(HFModel(tiny.make(family)))
    assert sum(isinstance(layer, QuantLinear) for layer in model.modules()) == len(layers)
    tied = [len({id(m.get_input_embeddings().weight), id(m.get_output_embeddings().weight)})
            for m in (model, expected.model) if m.get_output_embeddings() is not None]
    assert len(set(tied)) <= 1


def adapters(model):
    original = deepcopy(model)
    quantize_model(model, Recipe(bits=3))
    add_adapters(model, 4, original, TOKENS)


def narrow(model):
    """Every second neuron of a block goes."""
    for block in model.blocks:
        up, down = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)
        up.weight.data, up.bias.data = block.fc1.weight[::2], block.fc1.bias[::2]
        down.weight.data = block.fc2.weight[:, ::2]
        block.fc1, block.fc2 = up, down


KINDS_OF_LAYER = {
    "3 levels": rounded(2, grid="ternary"),
    "double quantisation": rounded(4, grid="nf4-dq"),
    "mixed": lambda model: quantize_model(
        model, Recipe(Round(bits=4), rules={"blocks.0.*": Round(bits=8), "blocks.1.*": Round(bits=16)})),
    "sparse": lambda model: compress_model(model, Prune("magnitude")),
    "sparse, 4 bits": lambda model: compress_model(model, [Prune("magnitude"), Round(bits=4)]),
    "low rank": lambda model: compress_model(model, LowRank(0.5, whitened=False)),
    "adapters": adapters,
    "narrow": narrow,
    "nothing": lambda model: None,
}


@pytest.mark.parametrize(("family", "kind"), [
    (family, kind) for family in ("opt", "gpt2") for kind in KINDS_OF_LAYER if (family, kind) != ("gpt2", "narrow")])
def test_from_pretrained_gives_every_kind_of_layer(family, kind, tmp_path):
    change = KINDS_OF_LAYER[kind]
    write(tmp_path, change, family)
    model, report = opened(tmp_path)
    assert torch.equal(model(input_ids=TOKENS)[0], load(tmp_path).model(TOKENS)) and not any(report.values())


def test_from_pretrained_reads_shards(tmp_path):
    write(tmp_path, rounded())
    expected = load(tmp_path).model(TOKENS)
    model, report = opened(in_shards(tmp_path))
    assert torch.equal(model(input_ids=TOKENS)[0], expected) and not any(report.values())


def test_what_from_pretrained_gave_goes_through_nanoq_again(tmp_path):
    write(tmp_path / "first", rounded(), "llama")
    model = HFModel(opened(tmp_path / "first")[0])
    assert torch.equal(model.head(model.blocks[1](model.blocks[0](model.embed(TOKENS)))), model(TOKENS))
    save(tmp_path / "second", Checkpoint(model, None, {}))
    for file in (WEIGHTS, "config.json"):
        assert (tmp_path / "second" / file).read_bytes() == (tmp_path / "first" / file).read_bytes()
    assert torch.equal(nanoq.load(write(tmp_path / "plain", lambda model: None)).model(TOKENS),
                       HFModel(tiny.make("opt"))(TOKENS))


CHILD = """
import sys
{imports}
import torch
from transformers import AutoConfig, AutoModelForCausalLM

tokens = torch.tensor([[4, 5, 6, 7]])
for folder in sys.argv[1:]:
    for options in ({{}}, {{"config": AutoConfig.from_pretrained(folder)}}):
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, **options)
            print(model(input_ids=tokens).logits.double().sum().item())
        except OSError as error:
            print(error)
"""


def in_a_child(imports, *folders):
    """What a fresh process makes of folders: for each, without and with its configuration, a sum or an error."""
    child = subprocess.run([sys.executable, "-c", CHILD.format(imports=imports), *folders],
                           capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_without_nanoq_transformers_refuses_the_folder_and_says_what_to_import(tmp_path):
    lines = in_a_child("", *(write(tmp_path / str(bits), rounded(bits)) for bits in (4, 8)))
    assert len(lines) == 4 and all("import nanoq.hf.quantizer before from_pretrained" in line for line in lines)


@pytest.mark.parametrize("imports", ["import nanoq.hf.quantizer", "import transformers; import nanoq.hf"])
def test_one_import_is_enough(imports, tmp_path):
    folder = write(tmp_path, rounded())
    total = load(folder).model(torch.tensor([[4, 5, 6, 7]])).double().sum().item()
    assert list(map(float, in_a_child(imports, folder))) == [total, total]


def test_importing_nanoq_does_not_import_transformers():
    code = "import sys, nanoq.hf, nanoq.verbs; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_the_configuration_says_what_is_stored(tmp_path):
    for name, dtype, change, options in (("quantised", "float16", rounded(), {}),
                                         ("as it is", "float32", lambda model: None, {}),
                                         ("bfloat16", "bfloat16", lambda model: model.bfloat16(), {}),
                                         ("in halves", "float16", lambda model: None, {"half": True})):
        config = json.loads((write(tmp_path / name, change, **options) / "config.json").read_text())
        assert config["dtype"] == dtype and config["architectures"] == ["OPTForCausalLM"]
        assert config["quantization_config"]["quant_method"] == "nanoq"
        assert opened(tmp_path / name, dtype=torch.float16)[0].dtype == torch.float32


def test_another_class_is_refused_in_one_sentence(tmp_path):
    write(tmp_path, rounded())
    for name in ("AutoModel", "AutoModelForSequenceClassification"):
        with pytest.raises(ValueError, match="cannot give .*: it is a OPTForCausalLM, not a OPT") as caught:
            getattr(transformers, name).from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)


def edit_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def edit_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


FC1 = "model.decoder.layers.0.fc1"


@pytest.mark.parametrize(("edit", "change"), [
    (edit_config, lambda config: config["quantization_config"].pop("layers")),
    (edit_config, lambda config: config["quantization_config"].update(layers=[1])),
    (edit_config, lambda config: config["quantization_config"]["layers"].pop(FC1)),
    (edit_config, lambda config: config["quantization_config"]["layers"][FC1].update(bits=3)),
    (edit_config, lambda config: config["quantization_config"]["layers"][FC1].update(kind="knitted")),
    (edit_config, lambda config: config.update(num_hidden_layers=3)),
    (edit_config, lambda config: config.update(architectures=None)),
    (edit_tensors, lambda tensors: tensors.pop(f"{FC1}.codes")),
    (edit_tensors, lambda tensors: tensors.pop("model.decoder.embed_tokens.weight")),
    (edit_tensors, lambda tensors: tensors.update({"model.decoder.layers.2.fc1.bias": torch.zeros(64)})),
    (edit_tensors, lambda tensors: tensors[f"{FC1}.bias"].fill_(torch.nan)),
])
def test_what_does_not_fit_is_refused_in_one_sentence(edit, change, tmp_path):
    write(tmp_path, rounded())
    edit(tmp_path, change)
    with pytest.raises(ValueError, match="from_pretrained cannot give the model in") as caught:
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_model_is_not_quantised_and_not_written_by_transformers(tmp_path):
    tiny.make("opt").save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="nanoq"):
        transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "plain", quantization_config=nanoq.hf.quantizer.NanoqConfig())
    write(tmp_path / "quantised", rounded())
    with pytest.raises(ValueError, match="nanoq"):
        opened(tmp_path / "quantised")[0].save_pretrained(tmp_path / "again")
