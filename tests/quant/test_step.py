from copy import deepcopy
from itertools import islice

import pytest
import torch
from torch import nn

from nanoq.compress import Prune, compress_model
from nanoq.compress.steps import LowRank
from nanoq.compress.structure import remove_blocks, remove_heads
from nanoq.lm import GPT, CharTokenizer, GPTConfig, generate, generate_batch, stream, stream_batch
from nanoq.lm.generation import _Reader
from nanoq.lm.model import KVCache
from nanoq.quant import Recipe, activation_quantization, entropy_code, quantize_model, rotate, use_backend
from nanoq.quant.kernels.step import Step, fits
from nanoq.quant.qlinear import QuantLinear

CONTEXT = 24
GROUP = {"granularity": "group", "group_size": 8}


def gpt(**changes):
    """A small model with weights large enough that a wrong logit shows."""
    model = GPT(GPTConfig(**{"vocab_size": 13, "context": CONTEXT, "layers": 3, "heads": 4, "width": 32} | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)), alpha=0.2)
    return model.eval()


TOKENS = torch.randint(13, (4, CONTEXT), generator=torch.Generator().manual_seed(1))


def rounded(recipe, model=None):
    model = model or gpt()
    quantize_model(model, recipe)
    return model


def rotated(model, **options):
    rotate(model, **options)
    return model


def coded(model):
    entropy_code(model)
    return model


def compressed(step):
    model = gpt()
    compress_model(model, step, TOKENS)
    return model


MODELS = {
    "float": gpt,
    "bias": lambda: gpt(bias=True),
    "one head": lambda: gpt(heads=1, width=20),
    "rotated": lambda: rotated(gpt()),
    "rotated online": lambda: rotated(gpt(), online=True),
    "rotated online, bias, 4 bits": lambda: rounded(Recipe(bits=4), rotated(gpt(bias=True), online=True)),
    **{f"{bits} bits": lambda bits=bits: rounded(Recipe(bits=bits)) for bits in range(2, 9)},
    "3 bits in groups, bias": lambda: rounded(Recipe(bits=3, grid_options=GROUP), gpt(bias=True)),
    "ternary": lambda: rounded(Recipe(bits=2, grid_options={"symmetric": True})),
    "nf4": lambda: rounded(Recipe(bits=4, grid="nf4")),
    "entropy-coded": lambda: coded(rounded(Recipe(bits=8))),
    "tables of 8 bits": lambda: rounded(Recipe(bits=8, embeddings=8), gpt(vocab_size=70)),
    "rotated, head of 4 bits": lambda: rounded(Recipe(bits=8, embeddings=4), rotated(gpt(vocab_size=70))),
    "pruned": lambda: compressed(Prune("magnitude", 0.5)),
    "low rank": lambda: compressed(LowRank(0.5)),
    "without heads": lambda: remove_heads(gpt(), {1: [0, 2]}),
    "without a block": lambda: remove_blocks(gpt(), [1]),
}


@pytest.mark.parametrize("texts", [1, 2, 4, 5])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_a_step_gives_the_models_logits_at_every_length(name, texts):
    model, reads = MODELS[name](), [(3 * i + 1) % 11 + 1 for i in range(texts)]
    assert fits(model)
    tokens = TOKENS[torch.arange(texts) % 4]
    step, expected = Step(model, texts), model(tokens)
    for i, count in enumerate(reads):
        torch.testing.assert_close(step.begin(i, tokens[i, :count]), expected[i, count - 1], rtol=1e-4, atol=1e-4)
    for extra in range(CONTEXT - max(reads)):
        at = [count + extra for count in reads]
        logits = step([int(tokens[i, t]) for i, t in enumerate(at)])
        assert step.lengths.tolist() == [t + 1 for t in at]
        torch.testing.assert_close(logits, expected[range(texts), at], rtol=1e-4, atol=1e-4)


def test_a_head_that_rounds_its_inputs_is_no_step():
    model = gpt(tied=False, vocab_size=64)
    quantize_model(model, Recipe(bits=8, embeddings=8))
    assert fits(model)
    use_backend(model.unembedding, "w8a8")
    assert not fits(model)


@torch.inference_mode()
def test_a_text_that_begins_with_nothing_read_or_begins_anew():
    model = gpt()
    step, expected = Step(model, 1), model(TOKENS[:1])[0]
    for _ in range(2):
        assert step.begin(0, TOKENS[0, :0]) is None
        for t in range(5):
            torch.testing.assert_close(step([int(TOKENS[0, t])])[0], expected[t], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["float", "4 bits", "rotated online"])
@pytest.mark.parametrize("context", [1, 2, 24])
def test_compiled_loops_write_the_text_of_the_model_itself_past_the_context(name, context, monkeypatch):
    monkeypatch.setitem(globals(), "CONTEXT", context)
    model = MODELS[name]()
    plain = islice(stream(model, TOKENS[0, :5], temperature=0.6, seed=2, make_cache=lambda n: KVCache(n)), 60)
    assert list(islice(stream(model, TOKENS[0, :5], temperature=0.6, seed=2), 60)) == list(plain)


def test_texts_that_are_written_together_are_those_that_are_written_alone():
    model, prompts = gpt(), [TOKENS[i, : 1 + 7 * i] for i in range(4)]
    together = list(islice(stream_batch(model, prompts, temperature=0.7, seed=3), 50))
    for i, prompt in enumerate(prompts):
        assert [row[i] for row in together] == list(islice(stream(model, prompt, temperature=0.7, seed=3 + i), 50))
    tokenizer, starts = CharTokenizer("abcdefghijkl"), ["a", "cab", "fade"]
    assert generate_batch(model, tokenizer, starts, 20, seed=5) == [
        generate(model, tokenizer, start, 20, seed=5 + i) for i, start in enumerate(starts)]
    assert generate_batch(model, tokenizer, starts, 0) == starts


def test_one_empty_prompt_among_others_is_an_error():
    for prompts in ([], [TOKENS[0], TOKENS[0, :0]]):
        with pytest.raises(ValueError, match="the prompt is empty"):
            next(stream_batch(gpt(), prompts))


class Louder(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def with_louder(model):
    louder = Louder(32, 128, bias=False)
    louder.load_state_dict(model.blocks[1].mlp.up.state_dict())
    model.blocks[1].mlp.up = louder


def on_integers(model):
    quantize_model(model, Recipe(bits=8))
    for layer in model.modules():
        if isinstance(layer, QuantLinear):
            use_backend(layer, "w8a8")


OTHERS = {
    "float64": lambda model: model.double(),
    "a layer that does more": with_louder,
    "rounded activations": on_integers,
    "a hook": lambda model: model.blocks[0].mlp.register_forward_hook(lambda *_: None),
    "dropout": lambda model: model.train(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_loops_do_not_compute_goes_through_the_model(name):
    model = gpt(dropout=0.1)
    assert fits(model)
    OTHERS[name](model)
    assert not fits(model)
    assert len(list(islice(stream(model, TOKENS[0, :3]), 4))) == 4


def test_activations_that_are_rounded_meanwhile_are_rounded_here_too():
    model = gpt()
    expected = deepcopy(model)
    with activation_quantization(model, 2):
        rounded = list(islice(stream(model, TOKENS[0, :3], temperature=0), 20))
    assert rounded != list(islice(stream(model, TOKENS[0, :3], temperature=0), 20))
    with activation_quantization(expected, 2), torch.inference_mode():
        assert rounded[0] == int(expected(TOKENS[:1, :3])[0, -1].argmax())


@torch.inference_mode()
def test_a_cache_moves_no_token_while_there_is_room_and_keeps_all_when_it_grows():
    cache, k = KVCache(1), torch.randn(2, 3, 200, 4, generator=torch.Generator().manual_seed(0))
    places = set()
    for t in range(200):
        keys, values = cache.extend(0, k[:, :, t : t + 1], -k[:, :, t : t + 1])
        places.add(keys.data_ptr())
    assert torch.equal(keys, k) and torch.equal(values, -k) and cache.length == 200
    assert len(places) <= 3
    assert isinstance(_Reader(gpt(), 1, KVCache).begin(0, TOKENS[0]), torch.Tensor)
