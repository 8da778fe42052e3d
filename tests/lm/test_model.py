import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoq.compress import Prune, compress_model
from nanoq.lm import GPT, GPTConfig, TrainConfig, stream, train, window_losses
from nanoq.lm.model import KVCache
from nanoq.quant import Recipe, quantize_model

TINY = GPTConfig(vocab_size=11, context=16, layers=2, heads=2, width=16)
TOKENS = torch.randint(11, (3, 16), generator=torch.Generator().manual_seed(1))


def tiny(seed=0, **changes):
    """A tiny model with weights large enough that a wrong logit shows."""
    model = GPT(GPTConfig(**{**vars(TINY), **changes}), seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)), alpha=0.3)
    return model


def plain_gpt(weights, tokens, heads):
    """Logits (B, T, V) by the textbook: explicit mask and softmax, no fused call, float64."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        x = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    T, C = tokens.shape[1], w["token_embedding.weight"].shape[1]
    x = w["token_embedding.weight"][tokens] + w["position_embedding.weight"][:T]
    layer = 0
    while f"blocks.{layer}.mlp.up.weight" in w:
        block = f"blocks.{layer}"
        q, k, v = linear(norm(x, f"{block}.attention_norm"), f"{block}.attention.qkv").split(C, dim=-1)
        outputs = []
        for head in range(heads):
            part = slice(head * C // heads, (head + 1) * C // heads)
            scores = q[..., part] @ k[..., part].mT / math.sqrt(C // heads)
            scores[:, torch.ones(T, T).triu(1).bool()] = -math.inf
            weight = scores.exp() / scores.exp().sum(-1, keepdim=True)
            outputs.append(weight @ v[..., part])
        x = x + linear(torch.cat(outputs, -1), f"{block}.attention.out")
        h = linear(norm(x, f"{block}.mlp_norm"), f"{block}.mlp.up")
        x = x + linear(h * 0.5 * (1 + torch.erf(h / math.sqrt(2))), f"{block}.mlp.down")
        layer += 1
    return norm(x, "final_norm") @ w["token_embedding.weight"].T


def test_logits_have_one_row_for_each_token():
    assert tiny()(TOKENS).shape == (3, 16, 11)


def test_the_default_model_has_the_student_projects_2_722_368_parameters():
    assert GPT(GPTConfig(vocab_size=86)).parameter_count() == 2_722_368


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_logits_equal_a_plain_implementation(bias):
    model = tiny(bias=bias)
    expected = plain_gpt(model.state_dict(), TOKENS, heads=2)
    torch.testing.assert_close(model.double()(TOKENS), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 15)))
@torch.inference_mode()
def test_reading_in_chunks_with_a_cache_gives_the_logits_of_one_pass(cuts):
    model, cache = tiny(), KVCache(TINY.layers)
    chunks = [model(TOKENS[:, a:b], cache) for a, b in pairwise([0, *sorted(cuts), 16])]
    assert cache.length == 16
    torch.testing.assert_close(torch.cat(chunks, dim=1), model(TOKENS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", [0, 7, 15])
@torch.inference_mode()
def test_a_token_changes_no_logit_before_it(position):
    model, changed = tiny(), TOKENS.clone()
    changed[:, position] = (changed[:, position] + 1) % 11
    before, after = model(TOKENS), model(changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert (before[:, position:] != after[:, position:]).any(-1).all()


def test_the_head_is_the_token_embedding():
    model = tiny()
    assert not any("head" in name for name in model.state_dict())
    x = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(0))
    before = model.head(x)
    with torch.no_grad():
        model.token_embedding.weight[3] *= 2
    torch.testing.assert_close(model.head(x)[..., 3], 2 * before[..., 3])


def test_more_tokens_than_the_context_are_an_error():
    with pytest.raises(ValueError, match="17 tokens do not fit the model's context of 16"):
        tiny()(torch.zeros(1, 17, dtype=torch.long))


@torch.inference_mode()
def test_more_tokens_than_a_cache_has_room_for_are_an_error():
    model, cache = tiny(), KVCache(TINY.layers)
    model(TOKENS[:, :15], cache)
    with pytest.raises(ValueError, match="17 tokens do not fit"):
        model(TOKENS[:, :2], cache)


@pytest.mark.parametrize(("changes", "message"), [
    ({"vocab_size": 0}, "vocab_size must be a positive integer, not 0"),
    ({"layers": -1}, "layers must be a positive integer"),
    ({"context": 2.5}, "context must be a positive integer"),
    ({"heads": "2"}, "heads must be a positive integer, not '2'"),
    ({"width": 15}, "width 15 is not divisible by 2 heads"),
    ({"bias": "yes"}, "bias must be true or false"),
    ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
    ({"dropout": math.nan}, r"dropout must lie in \[0, 1\)"),
])
def test_a_shape_that_is_no_model_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**vars(TINY), **changes})


def test_building_a_model_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    GPT(TINY)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_names_the_weights():
    first, same, other = (GPT(TINY, seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["token_embedding.weight"], other["token_embedding.weight"])


def test_layers_that_write_to_the_residual_stream_start_smaller():
    weights = GPT(GPTConfig(vocab_size=50, layers=8, width=64, heads=2)).blocks[0].mlp
    assert weights.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert weights.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)


@torch.inference_mode()
def test_dropout_acts_while_training_and_not_in_evaluation():
    model = tiny(dropout=0.5)
    assert torch.equal(model(TOKENS), tiny()(TOKENS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(model.train()(TOKENS), model(TOKENS))


WAYS = {  # in which tokens (N,) come into a model
    "logits": lambda model, tokens: model(tokens[None]),
    "losses": lambda model, tokens: window_losses(model, tokens, 8),
    "quantised": lambda model, tokens: quantize_model(model, Recipe("gptq", bits=4), tokens[None]),
    "pruned": lambda model, tokens: compress_model(model, Prune(), tokens[None]),
    "continued": lambda model, tokens: next(stream(model, tokens)),
    "trained on": lambda model, tokens: train(model, tokens.repeat(9), tokens, TrainConfig(tokens=16, batch=1)),
    "validated on": lambda model, tokens: train(model, tokens % 11, tokens, TrainConfig(tokens=16, batch=1)),
}


@pytest.mark.parametrize("token", [11, 50_000, -1])
@pytest.mark.parametrize("way", WAYS)
def test_a_token_beyond_the_vocabulary_is_an_error_that_names_it(way, token):
    tokens = torch.arange(9) % 11
    tokens[-1] = token  # the last one is a target only, where losses are measured
    with pytest.raises(ValueError, match=f"the token id {token} is not in the model's vocabulary of 11: the tokeniser"):
        WAYS[way](tiny(), tokens)


def test_the_last_token_of_a_vocabulary_belongs_to_it():
    assert tiny()(torch.tensor([[0, 10]])).isfinite().all()
