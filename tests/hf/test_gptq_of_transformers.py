"""GPTQ files of models of transformers: under its names, with all that belongs into the folder."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import make, make_tokenizer
from torch import nn

from nanoq.compress import Prune, compress_model
from nanoq.hf import HFModel
from nanoq.quant import QuantLinear, Recipe, Round, export_gptq, import_gptq, quantize_model
from nanoq.store import Checkpoint

GROUPS = {"grid_options": {"granularity": "group", "group_size": 16}}
TOKENS = torch.randint(3, 97, (3, 9), generator=torch.Generator().manual_seed(1))


def quantised(family, recipe=None):
    model = HFModel(make(family)).eval()
    quantize_model(model, recipe or Recipe(bits=4, **GROUPS))
    return Checkpoint(model, make_tokenizer(), {})


@pytest.mark.parametrize("family", ["opt", "gpt2", "llama", "llama, tied", "qwen2", "bert"])
def test_a_checkpoint_is_written_under_the_names_of_transformers(family, tmp_path):
    checkpoint = quantised(family)
    for what, given in (("checkpoint", checkpoint), ("model", checkpoint.model), ("inner", checkpoint.model.model)):
        export_gptq(tmp_path / what, given)
    names = [set(load_file(tmp_path / what / "model.safetensors")) for what in ("checkpoint", "model", "inner")]
    assert names[0] == names[1] == names[2]
    assert not any("blocks." in name or name.endswith(".codes") for name in names[0])
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["architectures"] == [type(checkpoint.model.model).__name__]
    assert config["quantization_config"] == json.loads((tmp_path / "model/quantize_config.json").read_text())
    assert (tmp_path / "checkpoint/tokenizer.json").is_file() and not (tmp_path / "model/tokenizer.json").exists()
    loaded = import_gptq(tmp_path / "checkpoint", Checkpoint(HFModel(make(family, initializer_range=0.3)), None, {}))
    assert torch.equal(loaded.model(TOKENS), checkpoint.model(TOKENS))


def test_what_stays_float_in_a_gpt2_lies_as_transformers_has_it(tmp_path):
    recipe = Recipe(Round(bits=4, **GROUPS), rules={"blocks.0.attn.c_proj": Round(bits=16)})
    checkpoint = quantised("gpt2", recipe)
    export_gptq(tmp_path, checkpoint)
    name = "transformer.h.0.attn.c_proj.weight"
    tensor = load_file(tmp_path / "model.safetensors")[name]
    assert torch.equal(tensor.float(), make("gpt2").state_dict()[name].half().float())
    loaded = import_gptq(tmp_path, HFModel(make("gpt2")))
    assert isinstance(loaded.model.transformer.h[0].attn.c_proj, nn.Linear)
    assert isinstance(loaded.blocks[1].mlp.c_fc, QuantLinear)
    assert torch.equal(loaded(TOKENS), checkpoint.model(TOKENS))


def test_a_model_with_other_parts_than_its_class_is_refused(tmp_path):
    checkpoint = quantised("opt")
    checkpoint.model.blocks[0].self_attn.extra = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"other parts than the OPTForCausalLM .*self_attn\.extra\.bias"):
        export_gptq(tmp_path, checkpoint)
    pruned = HFModel(make("opt"))
    compress_model(pruned, Prune("magnitude"), TOKENS)
    with pytest.raises(ValueError, match="is a SparseLinear, which no file of another program holds"):
        export_gptq(tmp_path, pruned)
    assert list(tmp_path.iterdir()) == []
