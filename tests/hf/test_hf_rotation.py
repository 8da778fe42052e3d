"""Models of transformers with the blocks of Llama, rotated."""

from copy import deepcopy

import pytest
import tiny
import torch

from nanoq.hf import HFModel
from nanoq.quant import HadamardLinear, Recipe, export_gptq, quantize_model, rotate
from nanoq.store import WEIGHTS, Checkpoint, load, save

TOKENS = torch.randint(3, 97, (6, 16), generator=torch.Generator().manual_seed(1))
# Of each a family of tests/hf/tiny.py, and what is changed: shapes that published models have.
LLAMAS = {
    "llama": ("llama", {}),
    "llama, tied": ("llama, tied", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "smollm2: 9 heads, 3 of keys, tied": ("llama, tied", {
        "hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 96}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "qwen3, wide heads": ("qwen3", {"head_dim": 16}),
}
OTHERS = ["opt", "gpt2", "gptj", "gpt-neox", "bloom", "cohere", "gemma2", "phi3", "bert", "modernbert", "mixtral", "t5",
          "vit"]


def make(name, dtype=torch.float32):
    family, changes = LLAMAS[name]
    return HFModel(tiny.make(family, **changes).to(dtype)).eval()


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("name", LLAMAS)
@torch.no_grad()
def test_a_rotated_llama_gives_the_same_logits_also_block_by_block(name, online):
    # transformers computes norms in float32
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        model = make(name, dtype)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        expected = model(TOKENS)
        rotate(model, seed=2, online=online)
        assert expected.std() > 0.1 and all(parameter.dtype == dtype for parameter in model.parameters())
        allowed = tolerance * float(expected.abs().max())
        torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=allowed)
        hidden = model.embed(TOKENS)
        for block in model.blocks:
            hidden = block(hidden)
        torch.testing.assert_close(model.head(hidden), expected, rtol=0, atol=allowed)
        after = model.state_dict()
        changed = [key for key in before if key in after and not torch.allclose(before[key], after[key], atol=1e-3)]
        assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"} <= {key.split(".")[-2]
                                                                                   for key in changed}


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("recipe", [None, Recipe("gptq", bits=4, embeddings=8)], ids=["floats", "gptq"])
@pytest.mark.parametrize("name", ["llama, tied", "qwen3"])
@torch.no_grad()
def test_a_rotated_llama_is_saved_and_loaded_bit_for_bit(name, recipe, online, tmp_path):
    model = make(name)
    rotate(model, online=online)
    if recipe:
        quantize_model(model, recipe, TOKENS)
    loaded = load(save(tmp_path / "first", Checkpoint(model, None, {}))).model
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    assert isinstance(loaded.blocks[1].mlp.down_proj, HadamardLinear) == online
    save(tmp_path / "second", Checkpoint(loaded, None, {}))
    first, second = (tmp_path / folder / WEIGHTS for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


@torch.no_grad()
def test_from_pretrained_gives_a_rotated_and_quantised_llama_with_online_transforms(tmp_path):
    from transformers import AutoModelForCausalLM

    import nanoq.hf.quantizer  # noqa: F401 (which registers)

    model = make("llama, tied")
    rotate(model, online=True)
    quantize_model(model, Recipe("gptq", bits=4, group_size=32), TOKENS)
    save(tmp_path, Checkpoint(model, None, {}))
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(TOKENS)[0], model(TOKENS))


@torch.no_grad()
def test_a_rotated_llama_without_online_transforms_is_a_llama_for_other_programs(tmp_path):
    model = make("llama, tied")
    rotate(model)
    quantize_model(model, Recipe("gptq", bits=4, group_size=32, symmetric=True), TOKENS)
    export_gptq(tmp_path / "offline", Checkpoint(model, None, {}))
    turned = make("llama, tied")
    rotate(turned, online=True)
    quantize_model(turned, Recipe("gptq", bits=4, group_size=32, symmetric=True), TOKENS)
    with pytest.raises(ValueError, match="HadamardLinear, which no file of another program holds"):
        export_gptq(tmp_path / "online", Checkpoint(turned, None, {}))


@pytest.mark.parametrize("family", OTHERS)
def test_a_model_of_another_kind_is_refused_in_one_sentence_and_left_as_it_is(family):
    model = HFModel(tiny.make(family))
    before = deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"cannot be rotated exactly: only a GPT of nanoq can, and a causal") as error:
        rotate(model)
    assert "\n" not in str(error.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_parameter_that_nobody_knows_of_is_a_reason_to_refuse():
    model = make("llama")
    model.blocks[0].mlp.register_parameter("more", torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(ValueError, match=r"model\.layers\.0\.mlp\.more would be left over"):
        rotate(model)


def test_a_model_that_computes_something_else_when_it_is_rotated_is_named():
    model = make("llama")
    model.blocks[0].register_forward_hook(lambda *arguments: arguments[-1].clamp(-0.1, 0.1))
    with pytest.raises(ValueError, match="a rotated LlamaForCausalLM computes something else"):
        rotate(model)


def test_a_rotated_llama_has_weights_of_one_in_its_norms_and_no_tied_head():
    model = make("llama, tied")
    rotate(model)
    inner = model.model
    assert not inner.config.tie_word_embeddings and inner.lm_head.weight is not inner.model.embed_tokens.weight
    assert all((norm.weight == 1).all() for norm in inner.modules() if type(norm).__name__ == "LlamaRMSNorm")
