import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.lm.training import TrainConfig, train
from nanoq.quant import CodedLinear, QuantEmbedding, QuantLinear, Recipe, Round, quantize_model, tune
from nanoq.quant.tuning import TunedLinear
from nanoq.store import Checkpoint, load, save

RECIPES = {
    "entropy-coded": Recipe("gptq", bits=8, grid="entropy-coded", rate=1.5),
    "entropy-coded, equal steps": Recipe("gptq", bits=8, grid="entropy-coded", rate=1.5, spacing="equal"),
    "groups with a zero point": Recipe("gptq", bits=2, group_size=5),
    "rows": Recipe("gptq", bits=3, symmetric=True),
    "order of the inputs": Recipe("gptq", bits=2, act_order=True),
    "ternary": Recipe(Round("nearest", bits=2, grid="ternary")),
    "nf4": Recipe(Round("nearest", bits=4, grid="nf4")),
}
CODED = RECIPES["entropy-coded"]


@pytest.fixture(scope="module")
def tokens():
    """A random walk over eight letters, which a model can learn something about."""
    moves = torch.randint(0, 2, (6000,), generator=torch.Generator().manual_seed(1))
    return 1 + (moves.cumsum(0) + torch.arange(6000) // 3) % 8


@pytest.fixture(scope="module")
def original(tokens):
    config = GPTConfig(CharTokenizer("abcdefgh").vocab_size, context=16, layers=2, heads=2, width=16, bias=True)
    model = GPT(config, seed=3)
    train(model, tokens[:4000], tokens[4000:], TrainConfig(tokens=32 * 16 * 60, batch=32, warmup=5, evaluate_every=60))
    return model.eval()


def quantised(original, tokens, recipe=CODED):
    model = deepcopy(original)
    quantize_model(model, recipe, tokens[:640].view(40, 16))
    return model


def packed(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}


@torch.no_grad()
def divergence(model, original, tokens):
    rows = tokens[4000:5600].view(100, 16)
    return float(F.kl_div(model(rows).log_softmax(-1), original(rows).log_softmax(-1), reduction="sum",
                          log_target=True)) / rows.numel()


def all_tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_predictions_on_held_out_text_come_nearer_to_those_of_the_original(original, tokens):
    before, shares = divergence(quantised(original, tokens), original, tokens), []
    for seed in range(3):
        model = quantised(original, tokens)
        tune(model, original, tokens[:4000], steps=60, seed=seed)
        shares.append(divergence(model, original, tokens) / before)
    assert sum(shares) / 3 < 0.9


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_codes_and_what_is_not_trained_stay_bit_for_bit_and_the_rest_moves(original, tokens, recipe):
    model = quantised(original, tokens, recipe)
    before = all_tensors(model)
    tune(model, original, tokens[:4000], steps=4, batch=4)
    after, moved = all_tensors(model), set()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert (after[name].dtype, after[name].shape) == (value.dtype, value.shape)
        if not torch.equal(after[name], value):
            moved.add(name.rpartition(".")[2])
    assert not moved & {"codes", "stream", "zero_point", "order"}
    assert moved >= {"weight", "bias"} and moved & {"scale", "scale_coarse"}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_layer_that_was_not_trained_yet_computes_what_the_quantised_one_does(original, tokens, recipe):
    for layer in packed(quantised(original, tokens, recipe)).values():
        x = torch.randn(3, layer.weight_shape[1], generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(TunedLinear(layer)(x), layer(x))
        torch.testing.assert_close(TunedLinear(layer).packed()(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("embeddings", [16, 8])
def test_the_file_gives_what_the_tuned_model_computes(original, tokens, embeddings, tmp_path):
    big = deepcopy(original)  # tables of fewer than 64 rows are not packed
    big.config = GPTConfig(**(vars(original.config) | {"context": 64}))
    big.position_embedding = torch.nn.Embedding(64, 16)
    model = quantised(big, tokens, Recipe("gptq", bits=8, grid="entropy-coded", rate=1.5, embeddings=embeddings))
    tune(model, big, tokens[:4000], steps=3, batch=4)
    assert isinstance(model.position_embedding, QuantEmbedding) == (embeddings == 8)
    assert all(isinstance(model.get_submodule(f"blocks.0.mlp.{name}"), CodedLinear) for name in ("up", "down"))
    save(tmp_path / "m", Checkpoint(model, CharTokenizer("abcdefgh"), {}))
    again, rows = load(tmp_path / "m").model.eval(), tokens[:64].view(1, 64)
    assert torch.equal(again(rows), model(rows))


def test_a_seed_gives_the_same_model_another_seed_another_one_and_the_original_stays(original, tokens):
    before, state, models = all_tensors(original), torch.get_rng_state(), []
    for seed in (0, 0, 1):
        models.append(quantised(original, tokens))
        tune(models[-1], original, tokens[:4000], steps=3, batch=4, seed=seed)
    same, again, other = map(all_tensors, models)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not all(torch.equal(same[name], other[name]) for name in same)
    assert all(torch.equal(value, before[name]) for name, value in all_tensors(original).items())
    assert not any(parameter.grad is not None for parameter in original.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("options", "message"), [
    ({"steps": 0}, "steps"), ({"batch": 0}, "steps"), ({"lr": 0.0}, "positive"), ({"lr": math.nan}, "positive")])
def test_options_out_of_their_range_are_named(original, tokens, options, message):
    with pytest.raises(ValueError, match=message):
        tune(quantised(original, tokens), original, tokens[:4000], **options)


def test_what_cannot_be_tuned_is_named(original, tokens):
    with pytest.raises(ValueError, match="quantise it first"):
        tune(deepcopy(original), original, tokens[:4000])
    with pytest.raises(ValueError, match="vocabulary"):
        tune(quantised(original, tokens), original, tokens[:4000] + 50)
    with pytest.raises(ValueError, match="only a GPT"):
        tune(torch.nn.Linear(2, 2), original, tokens[:4000])
