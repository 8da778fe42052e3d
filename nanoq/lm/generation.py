"""Sampling text from a model, one token at a time."""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from nanoq.lm.model import GPT, KVCache
from nanoq.lm.tokenizer import CharTokenizer

COLDEST = 1e-6  # below it, logits over the temperature would be infinite, and the likeliest is drawn anyway


def next_token(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """Draw one id (1,) from logits (V,); temperature 0 takes the likeliest.

    Raises:
        ValueError: if a logit is no number.
    """
    if not logits.isfinite().all():
        raise ValueError("the model's logits hold NaN or infinity: its weights are damaged, or its training failed")
    if temperature < COLDEST:
        return logits.argmax(keepdim=True)
    logits = logits / temperature
    if top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(min(top_k, len(logits))).values[-1], -torch.inf)
    return torch.multinomial(logits.softmax(0), 1, generator=generator)


@torch.inference_mode()
def stream(
    model: GPT, prompt: Tensor, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0,
    make_cache: Callable[[int], KVCache] = KVCache,
) -> Iterator[int]:
    """Continue the tokens `prompt` (T,) without end, one id after another.

    Each token is read once, its keys and values kept in a cache. When the context is full, the later half of it is
    read again and the rest forgotten. `make_cache` makes an empty cache for a number of blocks.

    Raises:
        ValueError: if the prompt is empty, temperature or top_k is out of range, or a logit is no number.
    """
    if not len(prompt):
        raise ValueError("the prompt is empty: give at least one character to go on from")
    if not temperature >= 0 or (top_k is not None and top_k < 1):
        raise ValueError("temperature must not be negative, and top_k must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    context = model.config.context
    read, cache = prompt[-context:], make_cache(model.config.layers)
    history = read.tolist()
    while True:
        logits = model(read[None].to(next(model.parameters()).device), cache)[0, -1]
        token = next_token(logits.float().cpu(), temperature, top_k, generator)
        yield int(token)
        history.append(int(token))
        read = token
        if cache.length == context:
            history = history[-(context // 2 + 1) :]
            read, cache = torch.tensor(history), make_cache(model.config.layers)


def generate(
    model: GPT, tokenizer: CharTokenizer, prompt: str, length: int = 200, *,
    temperature: float = 1.0, top_k: int | None = None, seed: int = 0,
    make_cache: Callable[[int], KVCache] = KVCache,
) -> str:
    """The prompt and `length` more characters, sampled as `stream` does."""
    tokens = stream(model, tokenizer.encode(prompt), temperature=temperature, top_k=top_k, seed=seed,
                    make_cache=make_cache)
    return prompt + tokenizer.decode(islice(tokens, length))
