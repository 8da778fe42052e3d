"""Experts that transformers keeps in 3-D parameters: apart, quantised, saved and loaded."""

import warnings

import pytest
import torch
from tiny import MIXTURES, make

import nanoq
from nanoq.hf import HFModel
from nanoq.hf.model import left_out, outputs, prove
from nanoq.quant import QuantLinear, Recipe, Round, affine_grid, linear_layers, nearest, quantize_model
from nanoq.quant.visit import stages
from nanoq.store import Checkpoint, load, save

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few", "ignore:.*no text of the calibration")


@pytest.fixture
def tokens():
    return torch.randint(4, 97, (6, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", MIXTURES)
@torch.no_grad()
def test_experts_apart_compute_what_they_computed_in_one_parameter(family, tokens):
    original = make(family)
    expected, sample = original(input_ids=tokens)[0], outputs(original)
    model = HFModel(original)
    prove(model, sample)
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)
    assert not any(parameter.dim() == 3 for parameter in model.parameters())
    assert sum(size for name, size in left_out(model).items() if "gate" not in name and "router" not in name) == 0


@pytest.mark.parametrize("family", MIXTURES)
def test_every_expert_is_quantised_saved_and_loaded_bit_for_bit(family, tokens, tmp_path):
    model = HFModel(make(family))
    count = len(linear_layers(model))
    quantize_model(model, Recipe("gptq", bits=4), tokens, batch=4)
    assert sum(isinstance(layer, QuantLinear) for layer in model.model.modules()) == count
    loaded = load(save(tmp_path, Checkpoint(model, None, {}))).model
    assert torch.equal(loaded(tokens), model(tokens))


@torch.no_grad()
def test_an_expert_is_calibrated_on_the_tokens_that_the_router_sends_to_it(tokens):
    model = HFModel(make("mixtral"))
    for stage in stages(model, [tokens]):
        seen = {}
        hook = stage.block.mlp.experts.register_forward_pre_hook(lambda _, args, seen=seen: seen.update(args=args))
        layers = {f"{number}.{name}": getattr(stage.block.mlp.experts.expert(number), name)
                  for number in range(4) for name in ("gate_proj", "up_proj", "down_proj")}
        stats = stage.statistics({f"mlp.experts.{name}": layer for name, layer in layers.items()})
        hook.remove()
        hidden, index, _ = seen["args"]
        for number in range(4):
            mine = hidden[(index == number).any(-1)]
            found = stats[f"mlp.experts.{number}.gate_proj"]
            assert found.tokens == len(mine) > 0
            torch.testing.assert_close(found.gram, mine.T @ mine / len(mine), rtol=1e-4, atol=1e-5)


def test_an_expert_that_no_token_reaches_is_rounded_to_nearest_with_a_warning(tokens):
    model = HFModel(make("mixtral"))
    experts = model.blocks[0].mlp.experts
    router = model.blocks[0].mlp.gate  # gives logits, weights and numbers of the experts of each token
    router.register_forward_hook(lambda _, args, found: (*found[:2], torch.tensor([0, 1]).expand_as(found[2])))
    weight = experts.expert(3).down_proj.weight.detach().clone()
    with pytest.warns(UserWarning, match=r"blocks\.0\.mlp\.experts\.3\.down_proj: no text of the calibration"):
        quantize_model(model, Recipe(Round("gptq", bits=4)), tokens)
    grid = affine_grid(weight, 4)
    assert torch.equal(experts.expert(3).down_proj.weight, grid.decode(nearest(weight, grid)))


def test_files_with_fused_experts_are_read_without_a_warning_of_what_is_left_out(tokens, tmp_path):
    original = make("mixtral")
    expected = original(input_ids=tokens)[0].detach()
    original.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nanoq.load(tmp_path).model
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)
