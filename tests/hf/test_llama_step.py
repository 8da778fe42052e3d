"""A token of a Llama in loops of our own, against transformers."""

from itertools import islice

import pytest
import tiny
import torch
import transformers

from nanoq.hf import HFModel
from nanoq.hf.llama_step import ROOM, LlamaStep, fits
from nanoq.hf.tasks import Reader, stream_tokens
from nanoq.quant import Recipe, entropy_code, quantize_model, rotate, use_backend
from nanoq.quant.kernels import weight_only
from nanoq.quant.qlinear import QuantLinear

TOKENS = torch.randint(97, (6, 24), generator=torch.Generator().manual_seed(0))
LONG = 2 * ROOM + 40
FAMILIES = {  # class, and what differs from a small Llama
    "llama": ("LlamaForCausalLM", {}),
    "tied, biases": ("LlamaForCausalLM", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "one key for all": ("LlamaForCausalLM", {"num_key_value_heads": 1}),
    "wide heads": ("LlamaForCausalLM", {"head_dim": 12, "num_key_value_heads": 4}),
    "mistral": ("MistralForCausalLM", {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", {}),
} | {rope: ("LlamaForCausalLM", {"rope_parameters": {"rope_type": rope, "rope_theta": 1e4, "factor": 4.0} | more})
     for rope, more in (("linear", {}), ("yarn", {"original_max_position_embeddings": 16}),
                        ("llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                    "original_max_position_embeddings": 16}))}
RECIPES = {
    "int8": Recipe(bits=8, embeddings=8),
    "int4 in groups": Recipe(bits=4, group_size=8, embeddings=4),
    "int3, gptq, act_order": Recipe("gptq", bits=3, group_size=16, act_order=True),
    "k-means": Recipe(bits=3, grid="k-means"),
    "mixed": Recipe(bits=4, rules={"*.v_proj": Recipe(bits=16).default, "*.down_proj": Recipe(bits=2).default}),
}


def model_of(name="llama", **changes):
    """A small random model, with weights large enough that a wrong logit shows."""
    kind, more = FAMILIES[name]
    more = tiny.LLAMA | {"max_position_embeddings": LONG} | more | changes
    config = getattr(transformers, kind).config_class(**more)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)), alpha=0.2)
    return HFModel(model)


def assert_same(model, prompt=5, tokens=8):
    """The step's logits are those of transformers, after a prompt and after each token."""
    assert fits(model.model)
    with torch.inference_mode():
        ours, theirs = LlamaStep(model.model), Reader(model)
        pairs = [(ours.begin(TOKENS[0, :prompt]), theirs.begin(TOKENS[0, :prompt]))]
        pairs += [(ours(token), theirs(token)) for token in TOKENS.flatten()[:tokens].tolist()]
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert len({tuple(other.tolist()) for _, other in pairs}) == len(pairs)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(name):
    assert_same(model_of(name))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["llama", "tied, biases"])
def test_that_holds_for_quantised_models(name, recipe):
    model = model_of(name)
    quantize_model(model, RECIPES[recipe], TOKENS)
    assert_same(model)


def test_that_holds_for_kernels_that_were_chosen_entropy_coded_layers_and_turned_ones():
    chosen, coded, turned = model_of(), model_of(), model_of()
    for model in (chosen, coded):
        quantize_model(model, Recipe(bits=4, group_size=8))
    for layer in chosen.modules():
        if isinstance(layer, QuantLinear):
            use_backend(layer, weight_only(layer))
    entropy_code(coded)
    rotate(turned)
    quantize_model(turned, Recipe(bits=8))
    for model in (chosen, coded, turned):
        assert_same(model)


def test_a_text_that_outgrows_its_room_goes_on_as_before():
    model = model_of(rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    with torch.inference_mode():
        step, tokens = LlamaStep(model.model), TOKENS.flatten().repeat(4)[: ROOM + 30]
        step.begin(tokens[:3])
        for token in tokens[3:].tolist():
            logits = step(token)
        expected = model.model(input_ids=tokens[None]).logits[0, -1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert step.length == len(tokens)


def test_threads_give_the_same(monkeypatch):
    monkeypatch.setattr("nanoq.quant.kernels.backends.SERIAL", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = model_of()
        quantize_model(model, RECIPES["int4 in groups"])
        assert_same(model)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_text_is_the_same_with_the_step_and_without(monkeypatch):
    model = model_of(max_position_embeddings=40)
    quantize_model(model, Recipe(bits=4))
    texts = [list(stream_tokens(model, TOKENS[0, :4], 0.8, 10, 3))]
    monkeypatch.setattr("nanoq.hf.llama_step.fits", lambda model: False)
    texts.append(list(stream_tokens(model, TOKENS[0, :4], 0.8, 10, 3)))
    assert texts[0] == texts[1] and len(texts[0]) == 36  # up to the end of the context
    assert list(islice(stream_tokens(model, TOKENS[:2].flatten()[:40], 0.8, 10, 3), 2)) == []


@pytest.mark.parametrize("name", ["opt", "gpt2", "mistral", "qwen2", "qwen3", "gemma2", "phi3"])
def test_other_models_do_not_fit(name):
    assert not fits(tiny.make(name))


def test_a_llama_that_computes_something_else_does_not_fit():
    assert not fits(model_of(hidden_act="gelu").model)
    assert not fits(model_of().model.bfloat16())
    assert not fits(model_of().model.train())
    assert not fits(model_of(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}).model)
    for place in ("model.layers.1.mlp.up_proj", "model.layers.1", "model", "lm_head", ""):
        hooked = model_of().model
        hooked.get_submodule(place).register_forward_hook(lambda *_: None)
        assert not fits(hooked)
    integer = model_of()
    quantize_model(integer, Recipe(bits=8))
    use_backend(integer.blocks[0].mlp.up_proj, "w8a8")
    assert not fits(integer.model)
