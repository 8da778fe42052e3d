from itertools import islice

import pytest
import torch

from nanoq.lm import GPT, CharTokenizer, GPTConfig, generate, stream
from nanoq.lm.generation import next_token
from nanoq.lm.model import KVCache

TOKENIZER = CharTokenizer("abcdefghij")
PROMPT = TOKENIZER.encode("abc")


@pytest.fixture(scope="module")
def model():
    model = GPT(GPTConfig(vocab_size=11, context=16, layers=2, heads=2, width=16)).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(20)  # far from uniform, so that a wrong logit shows
        model.position_embedding.weight.mul_(20)
    return model


def take(model, count, prompt=PROMPT, **options):
    return list(islice(stream(model, prompt, **options), count))


@torch.inference_mode()
def uncached(model, count, choose):
    """What a loop without a cache writes while the text fits the context."""
    tokens = PROMPT.tolist()
    for _ in range(count):
        tokens.append(int(choose(model(torch.tensor([tokens]))[0, -1])))
    return tokens[len(PROMPT) :]


def test_a_seed_names_the_text(model):
    assert take(model, 30, seed=1) == take(model, 30, seed=1)
    assert take(model, 30, seed=1) != take(model, 30, seed=2)


def test_the_cache_changes_nothing_while_the_text_fits_the_context(model):
    generator = torch.Generator().manual_seed(4)
    expected = uncached(model, 13, lambda logits: (logits / 0.7).softmax(0).multinomial(1, generator=generator))
    assert take(model, 13, temperature=0.7, seed=4) == expected


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1e-40}, {"temperature": 1e-300}, {"top_k": 1}])
def test_temperature_0_and_top_1_take_the_likeliest(model, options):
    assert take(model, 13, **options) == uncached(model, 13, torch.argmax)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_draws_from_all_of_the_k_likeliest_and_from_no_other(k):
    logits = torch.tensor([0.3, 0.1, 0.5, -0.2, 0.4, 0.2])
    generator = torch.Generator().manual_seed(0)
    drawn = {int(next_token(logits, 1.0, k, generator)) for _ in range(200)}
    assert drawn == set(logits.topk(k).indices.tolist())


def test_a_top_k_beyond_the_vocabulary_restricts_nothing(model):
    assert take(model, 20, top_k=1000) == take(model, 20)


def test_temperature_sharpens():
    logits, generator = torch.tensor([0.0, 1.0]), torch.Generator().manual_seed(0)
    share = [sum(int(next_token(logits, t, None, generator)) for _ in range(500)) / 500 for t in (0.2, 5.0)]
    assert share[0] > 0.95 > 0.7 > share[1]


@pytest.mark.parametrize("context", [1, 2, 16])
def test_text_runs_on_past_the_context(context):
    model = GPT(GPTConfig(vocab_size=11, context=context, layers=1, heads=1, width=16)).eval()
    tokens = take(model, 3 * context + 5)
    assert len(tokens) == 3 * context + 5 and all(0 <= token < 11 for token in tokens)


@torch.inference_mode()
def test_after_the_context_is_full_its_later_half_is_what_the_model_knows(model):
    tokens = [*PROMPT.tolist(), *take(model, 14, temperature=0)]  # 16 read, the 17th predicted from all of them
    again = torch.tensor([tokens[-9:]])  # 8 of those 16, and the 17th
    assert take(model, 15, temperature=0)[-1] == int(model(again)[0, -1].argmax())


def test_only_the_end_of_a_long_prompt_is_read(model):
    long = torch.arange(40) % 11
    assert take(model, 10, prompt=long) == take(model, 10, prompt=long[-16:])


def test_generate_returns_the_prompt_and_the_asked_for_characters(model):
    tokens = take(model, 9, seed=3, temperature=0.5, top_k=4)
    assert generate(model, TOKENIZER, "abc", 9, seed=3, temperature=0.5, top_k=4) == "abc" + TOKENIZER.decode(tokens)


def test_the_cache_may_be_another_one(model):
    made = []

    def make_cache(layers):
        made.append(KVCache(layers))
        return made[-1]

    text = generate(model, TOKENIZER, "abc", 30, make_cache=make_cache)
    assert text == generate(model, TOKENIZER, "abc", 30)
    assert [(len(cache.keys), cache.length) for cache in made] == [(2, 16)] * 3  # 14 tokens, then 8 from each half


def test_an_empty_prompt_is_an_error(model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate(model, TOKENIZER, "")


def test_a_prompt_of_two_dimensions_is_an_error(model):
    with pytest.raises(ValueError, match=r"of shape \(T,\), not \(1, 3\)"):
        next(stream(model, torch.tensor([[1, 2, 3]])))


@pytest.mark.parametrize("options", [{"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": None},
                                     {"top_k": 0}, {"top_k": 2.5}])
def test_a_way_to_sample_that_is_none_is_an_error(model, options):
    with pytest.raises(ValueError, match="temperature must not be negative, and top_k must be at least 1"):
        take(model, 1, **options)


def test_a_model_that_gives_no_numbers_is_an_error():
    model = GPT(GPTConfig(vocab_size=11, context=16, layers=1, heads=1, width=16)).eval()
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match="the model's logits hold NaN or infinity"):
        take(model, 1)


def test_generating_leaves_the_global_random_state_alone(model):
    before = torch.get_rng_state()
    take(model, 5)
    assert torch.equal(torch.get_rng_state(), before)
