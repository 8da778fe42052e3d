"""Experts that transformers keeps in 3-D parameters: apart, quantised, saved and loaded."""

import warnings

import pytest
import torch
from tiny import MIXTURES, make

import nanoq
from nanoq.hf import HFModel
from nanoq.hf.model import left_out, outputs, prove
from nanoq.mixed import cmpq, first_order, gptq_error, hawq, leave_one_in, output_mse
from nanoq.quant import BLOCK_METHODS, QuantLinear, Recipe, Round, affine_grid, linear_layers, nearest, quantize_model
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


def with_two_idle_experts():
    """A mixture whose first block sends every token to experts 0 and 1."""
    model = HFModel(make("mixtral"))
    router = model.blocks[0].mlp.gate  # gives logits, weights and numbers of the experts of each token
    router.register_forward_hook(lambda _, args, found: (*found[:2], torch.tensor([0, 1]).expand_as(found[2])))
    return model


@pytest.mark.parametrize("step", [Round("gptq", bits=4), *(Round(method, bits=4, steps=2) for method in BLOCK_METHODS)],
                         ids=lambda step: step.method)
def test_an_expert_that_no_token_reaches_is_rounded_to_nearest_with_a_warning(step, tokens):
    model = with_two_idle_experts()
    experts = model.blocks[0].mlp.experts
    weight = experts.expert(3).down_proj.weight.detach().clone()
    with pytest.warns(UserWarning, match=r"blocks\.0\.mlp\.experts\.3\.down_proj: no text of the calibration"):
        quantize_model(model, Recipe(step), tokens)
    grid = affine_grid(weight, 4)
    assert torch.equal(experts.expert(3).down_proj.weight, grid.decode(nearest(weight, grid)))
    assert all(isinstance(layer, QuantLinear) for layer in linear_layers(model).values())


def test_experts_that_other_tokens_reach_once_the_model_is_quantised_are_fitted_to_their_own(tokens):
    model = HFModel(make("mixtral", num_local_experts=16))
    with pytest.warns(UserWarning, match=r"mlp\.experts\..*: other tokens reach them in the unquantised model"):
        reports = quantize_model(model, Recipe("gptq", bits=2, match_original=True), tokens)
    assert len(reports) == len(linear_layers(HFModel(make("mixtral", num_local_experts=16))))


@pytest.mark.parametrize("score", [output_mse, gptq_error, first_order, hawq], ids=lambda score: score.__name__)
def test_an_expert_that_no_token_reaches_is_not_sensitive(score, tokens):
    costs = score(with_two_idle_experts(), tokens, bits=(3,), unit="linear")
    for part, cost in costs.items():
        idle = part.startswith(("blocks.0.mlp.experts.2", "blocks.0.mlp.experts.3"))
        assert (cost[3] == 0) == idle, part


def test_mixed_precision_gives_an_expert_that_no_token_reaches_the_least(tokens):
    made = nanoq.quantize(Checkpoint(with_two_idle_experts(), None, {}), average_bits=4, data=tokens)
    steps = {report.layer: report.step for report in made.reports}
    assert {steps[f"blocks.0.mlp.experts.{number}.down_proj"].bits for number in (2, 3)} == {2}
    assert max(step.bits for step in steps.values()) > 4


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_an_expert_that_no_token_reaches_may_be_quantised_alone(method, tokens):
    costs = leave_one_in(with_two_idle_experts(), tokens, bits=(3,), unit="linear", method=method)
    assert costs["blocks.0.mlp.experts.3.down_proj"][3] == 0 != costs["blocks.0.mlp.experts.1.down_proj"][3]


def test_outputs_of_other_tokens_are_not_compared(tokens):
    with pytest.raises(ValueError, match=r"not all tokens reach blocks\.0\.mlp\.experts\.2\.down_proj.*take blocks"):
        cmpq(with_two_idle_experts(), tokens, unit="linear")
    assert len(cmpq(with_two_idle_experts(), tokens)) == 2


def test_files_with_fused_experts_are_read_without_a_warning_of_what_is_left_out(tokens, tmp_path):
    original = make("mixtral")
    expected = original(input_ids=tokens)[0].detach()
    original.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nanoq.load(tmp_path).model
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)
