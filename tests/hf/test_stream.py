"""Quantising a folder block by block, from its files to new ones."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make, make_tokenizer

from nanoq.hf import HFCheckpoint, load_hf, save_hf_quantized
from nanoq.hf.stream import INDEX, quantize_folder
from nanoq.quant import Recipe, quantize_model
from nanoq.store import WEIGHTS

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
TOKENS = torch.randint(97, (6, 16), generator=torch.Generator().manual_seed(0))
NEAREST = Recipe.uniform(4)
GPTQ = Recipe.uniform(4, "gptq", grid_options={"granularity": "group", "group_size": 16})
ORDERED = Recipe.uniform(3, "gptq", method_options={"act_order": True})
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


def in_memory(source, out, recipe, batch=2, **options):
    """What `quantize_model` and `save` make of the same model, by the names of transformers."""
    checkpoint = load_hf(source)
    reports = quantize_model(checkpoint.model, recipe, TOKENS, batch, **options)
    save_hf_quantized(out, checkpoint, recipe)
    model = checkpoint.model
    blocks = next(name for name, module in model.model.named_modules() if module is model.blocks)
    def renamed(name):
        return f"{blocks}.{name.removeprefix('blocks.')}" if name.startswith("blocks.") else name.removeprefix("model.")
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
@pytest.mark.parametrize(("recipe", "options"), [
    (NEAREST, {}), (ORDERED, {}), (GPTQ, {"true_sequential": True}),
    (ORDERED, {"true_sequential": True, "asymmetric": True}),
], ids=["nearest", "act_order", "true_sequential", "asymmetric"])
@pytest.mark.parametrize("memory", [2**30, 0], ids=["in memory", "in files"])
def test_that_holds_for_every_option_wherever_hidden_states_are_kept(family, recipe, options, memory, sources, tmp_path):
    quantize_folder(sources(family), tmp_path / "streamed", recipe, TOKENS, 2, memory=memory, **options)
    assert_same(held(tmp_path / "streamed"), in_memory(sources(family), tmp_path / "whole", recipe, **options)[0])
