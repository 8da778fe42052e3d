"""Sampling text from a model, one token at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from numbers import Integral, Real

import torch
from torch import Tensor

from nanoq.lm.model import GPT, KVCache
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.running import device_of

COLDEST = 1e-6  # below it, logits over the temperature would be infinite, and the likeliest is drawn anyway


def next_token(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """Draw one id (1,) from logits (V,); temperature 0 takes the likeliest.

    Raises:
        ValueError: if a logit is no number.
    """
    if not math.isfinite(logits.sum()) and not logits.isfinite().all():  # a sum is sooner made than a look at each
        raise ValueError("the model's logits hold NaN or infinity: its weights are damaged, or its training failed")
    if temperature < COLDEST:
        return logits.argmax(keepdim=True)
    if temperature != 1:
        logits = logits / temperature
    if top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(min(top_k, len(logits))).values[-1], -torch.inf)
    return torch.multinomial(logits.softmax(0), 1, generator=generator)


def check_sampling(temperature: float, top_k: int | None) -> None:
    """Raise a ValueError unless a token can be drawn with these."""
    if not isinstance(temperature, Real) or not temperature >= 0 or not (
            top_k is None or (isinstance(top_k, Integral) and top_k >= 1)):
        raise ValueError("temperature must not be negative, and top_k must be at least 1 and whole, not "
                         f"{temperature!r} and {top_k!r}")


def stream(
    model: GPT, prompt: Tensor, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0,
    make_cache: Callable[[int], KVCache] = KVCache,
) -> Iterator[int]:
    """Continue the tokens `prompt` (T,) without end, one id after another.

    Each token is read once, its keys and values kept in a cache. When the context is full, the later half of it is
    read again and the rest forgotten. `make_cache` makes an empty cache for a number of blocks.

    Raises:
        ValueError: if the prompt is empty or not (T,), temperature or top_k is out of range, or a logit is no number.
    """
    for (token,) in stream_batch(model, [prompt], temperature=temperature, top_k=top_k, seed=seed,
                                 make_cache=make_cache):
        yield token


@torch.inference_mode()
def stream_batch(
    model: GPT, prompts: Sequence[Tensor], *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0,
    make_cache: Callable[[int], KVCache] = KVCache,
) -> Iterator[list[int]]:
    """Continue several prompts, of any lengths, together: an id for each, without end.

    The first goes on as `stream` does with this seed, the second as with the next, and so on, as far as the rounding of
    sums leaves it.

    Raises:
        ValueError: as `stream`.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("the prompt is empty: give at least one character to go on from")
    if shapes := [tuple(prompt.shape) for prompt in prompts if prompt.dim() != 1]:
        raise ValueError(f"a prompt is a list of tokens, of shape (T,), not {shapes[0]}")
    check_sampling(temperature, top_k)
    context, reader = model.config.context, _reader(model, len(prompts), make_cache)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    histories = [prompt[-context:].tolist() for prompt in prompts]
    logits = [reader.begin(i, torch.tensor(history)) for i, history in enumerate(histories)]
    while True:
        tokens = [int(next_token(row, temperature, top_k, generator))
                  for row, generator in zip(logits, generators, strict=True)]
        yield tokens
        for i, history in enumerate(histories):
            if reader.lengths[i] == context:
                del history[: -(context // 2) or None]
                reader.begin(i, torch.tensor(history, dtype=torch.long))
            history.append(tokens[i])
        logits = reader(tokens)


def _reader(model: GPT, texts: int, make_cache: Callable[[int], KVCache]):
    """What reads tokens into caches: compiled loops, where they compute what the model does."""
    if make_cache is KVCache:
        from nanoq.quant.kernels.step import Step, fits  # numba is slow to import

        if fits(model):
            return Step(model, texts)
    return _Reader(model, texts, make_cache)


class _Reader:
    """Does what `nanoq.quant.kernels.step.Step` does for any model and any cache, a text after the other."""

    def __init__(self, model: GPT, texts: int, make_cache: Callable[[int], KVCache]):
        self.model, self.make_cache = model, make_cache
        self.device = device_of(model)
        self.caches: list[KVCache | None] = [None] * texts

    @property
    def lengths(self) -> list[int]:
        """Tokens read of each text."""
        return [cache.length for cache in self.caches]

    def begin(self, text: int, tokens: Tensor) -> Tensor | None:
        """Begin a text anew with tokens (T,): logits (V,) of what comes after them, None after none."""
        self.caches[text] = self.make_cache(self.model.config.layers)
        return self._read(text, tokens) if len(tokens) else None

    def __call__(self, tokens: list[int]) -> list[Tensor]:
        """Read one more token of each text: ids (B,) -> logits (V,) of each."""
        return [self._read(i, torch.tensor([token])) for i, token in enumerate(tokens)]

    def _read(self, text: int, tokens: Tensor) -> Tensor:
        return self.model(tokens[None].to(self.device), self.caches[text])[0, -1].float().cpu()


def generate(
    model: GPT, tokenizer: CharTokenizer, prompt: str, length: int = 200, *,
    temperature: float = 1.0, top_k: int | None = None, seed: int = 0,
    make_cache: Callable[[int], KVCache] = KVCache,
) -> str:
    """The prompt and `length` more characters, sampled as `stream` does."""
    return generate_batch(model, tokenizer, [prompt], length, temperature=temperature, top_k=top_k, seed=seed,
                          make_cache=make_cache)[0]


def generate_batch(model: GPT, tokenizer: CharTokenizer, prompts: Sequence[str], length: int = 200,
                   **options) -> list[str]:
    """Each prompt and `length` more characters, all in one go; `options` and errors are those of `stream_batch`."""
    rounds = stream_batch(model, [tokenizer.encode(prompt) for prompt in prompts], **options)
    texts = zip(*islice(rounds, length), strict=True) if length else [()] * len(prompts)
    return [prompt + tokenizer.decode(text) for prompt, text in zip(prompts, texts, strict=True)]
