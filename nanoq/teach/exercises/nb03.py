"""Exercises of notebook 03, nanoGPT."""

import math

import torch
from torch import Tensor

from nanoq.teach.checks import Exercise, Mistake
from nanoq.teach.differences import difference


def _logits(*values: float) -> Tensor:
    return torch.tensor(values)


def _causal(T: int) -> Tensor:
    return torch.ones(T, T, dtype=torch.bool).tril()


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / q.shape[-1] ** 0.5


def _attention(q: Tensor, k: Tensor) -> Tensor:
    return _scores(q, k).masked_fill(~_causal(len(q)), -torch.inf).softmax(-1)


def _keep(logits: Tensor, k: int, filler: float = -torch.inf) -> Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[-1], filler)


def _impossible(expected: Tensor, got: object) -> str | None:
    """-1e9 is as impossible as minus infinity: its exp is 0 as well."""
    if isinstance(got, Tensor):
        got = got.masked_fill(got < -1e4, -torch.inf)
    return difference(expected, got)


EXERCISES = [
    Exercise(
        id="03.perplexity",
        reference=lambda losses: math.exp(losses.mean()),
        cases=[
            (torch.tensor([0.5, 1.5, 1.0]),),
            (torch.tensor([2.0, 0.1]),),
            (torch.tensor([0.3, 0.9, 0.4, 0.8], dtype=torch.float64),),
        ],
        mistakes=[
            Mistake(
                lambda losses: losses.exp().mean().item(),
                "first the mean, then exp: the mean of the exps lets one hard window outweigh many easy ones.",
            ),
            Mistake(
                lambda losses: 2 ** losses.mean().item(),
                "the losses are in nats (natural logarithm), so the base is e; 2 is the base for bits.",
            ),
            Mistake(
                lambda losses: math.exp(losses.sum()),
                "the sum grows with the length of the text; a perplexity is per character: take the mean.",
            ),
            Mistake(
                lambda losses: losses.mean().item(),
                "that is the mean loss itself; the perplexity is how many equally likely characters it stands for.",
            ),
            Mistake(
                lambda losses: math.exp(-losses.mean()),
                "upside down: that is the (geometric) mean probability of the right character, a number below one.",
            ),
        ],
        hints=(
            "e to the power of the mean loss.",
            "the mean first: `losses.mean()`, then `math.exp` of it.",
        ),
    ),
    Exercise(
        id="03.bits_per_char",
        reference=lambda loss, tokens, characters: loss * tokens / math.log(2) / characters,
        cases=[(1.0, 100, 100), (3.2, 250, 1000), (0.9, 1000, 1000), (2.5, 40, 172)],
        mistakes=[
            Mistake(
                lambda loss, tokens, characters: loss * tokens / characters,
                "still in nats: one nat is 1 / ln 2 bits, about one and a half.",
            ),
            Mistake(
                lambda loss, tokens, characters: loss * tokens * math.log(2) / characters,
                "the wrong way round: a bit is the smaller unit, so the number in bits has to be larger than in nats.",
            ),
            Mistake(
                lambda loss, tokens, characters: loss / math.log(2),
                "that is bits per token: right only where each token is one character. Spread them over characters.",
            ),
            Mistake(
                lambda loss, tokens, characters: loss * characters / math.log(2) / tokens,
                "tokens and characters are swapped: loss × tokens is all the text costs, then share it out.",
            ),
        ],
        hints=(
            "how many nats does the whole text cost? Change the unit, then share it out.",
            "`loss * tokens` nats in all; a nat is `1 / math.log(2)` bits; divide by `characters`.",
        ),
    ),
    Exercise(
        id="03.mask",
        reference=_causal,
        cases=[(1,), (3,), (6,)],
        mistakes=[
            Mistake(
                lambda T: torch.ones(T, T, dtype=torch.bool).triu(),
                "the wrong triangle: row t reads positions t, t+1, …, that is the future it is to predict.",
            ),
            Mistake(
                lambda T: torch.ones(T, T, dtype=torch.bool).tril(-1),
                "a position may read itself too; as it is, row 0 may read nothing, and its softmax is not a number.",
            ),
            Mistake(
                lambda T: torch.ones(T, T, dtype=torch.bool).triu(1),
                "that marks what is forbidden; here True means may be read.",
            ),
            Mistake(
                lambda T: torch.ones(T, T).tril(),
                "right triangle, but of numbers: a mask is a yes or a no, dtype=torch.bool.",
            ),
            Mistake(
                lambda T: torch.ones(T, T, dtype=torch.bool),
                "everything may read everything: in training the model would copy the next character.",
            ),
        ],
        hints=(
            "row t may read columns 0 … t: which triangle of a square is that?",
            "begin with `torch.ones(T, T, dtype=torch.bool)`, and keep the lower triangle with its diagonal.",
        ),
    ),
    Exercise(
        id="03.attention", points=2,
        reference=_attention,
        cases=lambda generator: [
            tuple(2 * torch.randn(T, width, generator=generator) for _ in "qk")
            for T, width in [(3, 8), (5, 2), (4, 16)]
        ],
        mistakes=[
            Mistake(
                lambda q, k: (q @ k.mT).masked_fill(~_causal(len(q)), -torch.inf).softmax(-1),
                "the scale is missing: without 1 / √width the scores grow with the width and the softmax saturates.",
            ),
            Mistake(
                lambda q, k: (q @ k.mT / q.shape[-1]).masked_fill(~_causal(len(q)), -torch.inf).softmax(-1),
                "divided by the width; it is its square root: a sum of n random products is of size √n, not n.",
            ),
            Mistake(
                lambda q, k: (q @ k.mT / len(q) ** 0.5).masked_fill(~_causal(len(q)), -torch.inf).softmax(-1),
                "the scale is the square root of the width of a query, not of the number of positions.",
            ),
            Mistake(
                lambda q, k: _scores(q, k).masked_fill(~_causal(len(q)), -torch.inf).softmax(0),
                "softmax along the wrong axis: each row (one reader) has to sum to one, and rows run along the last.",
            ),
            Mistake(
                lambda q, k: _scores(q, k).softmax(-1).masked_fill(~_causal(len(q)), 0.0),
                "masked after the softmax: the future has taken its share already, and the rows sum to less than one.",
            ),
            Mistake(
                lambda q, k: _scores(q, k).masked_fill(~_causal(len(q)), 0.0).softmax(-1),
                "masked with 0, and exp(0) = 1 is not nothing: a forbidden score has to be minus infinity.",
            ),
            Mistake(
                lambda q, k: _scores(q, k).softmax(-1),
                "the mask is missing: every position reads the whole text, the future too.",
            ),
            Mistake(
                lambda q, k: _scores(k, q).masked_fill(~_causal(len(q)), -torch.inf).softmax(-1),
                "queries and keys are swapped: the rows are the queries, which read, the columns the keys.",
            ),
        ],
        hints=(
            "scores, scale, mask, softmax: in this order.",
            "`scores = q @ k.mT / q.shape[-1] ** 0.5`; then `masked_fill` with minus infinity where reading is "
            "*not* allowed.",
        ),
    ),
    Exercise(
        id="03.block_parameters",
        reference=lambda width, heads: 12 * width**2 + 2 * width,
        cases=[(192, 6), (64, 4), (768, 12)],
        mistakes=[
            Mistake(
                lambda width, heads: 12 * width**2,
                "nearly: each of the two norms has one gain for each of the `width` channels.",
            ),
            Mistake(
                lambda width, heads: 11 * width**2 + 2 * width,
                "the output matrix of attention is missing: after q, k and v, a fourth mixes the heads' results.",
            ),
            Mistake(
                lambda width, heads: 8 * width**2 + 2 * width,
                "the MLP has two matrices, up and down, and each holds 4 · width² numbers.",
            ),
            Mistake(
                lambda width, heads: (3 * heads + 9) * width**2 + 2 * width,
                "the heads share one width, width / heads channels each: their number does not change the count.",
            ),
            Mistake(
                lambda width, heads: 12 * width**2 + 13 * width,
                "you counted biases; this model has none, neither in its linear layers nor in its norms.",
            ),
        ],
        hints=(
            "attention has four square matrices (query, key, value, output), the MLP two that are four times as "
            "large.",
            "`4 * width**2` for attention, `8 * width**2` for the MLP; then the two norms, of one gain for each "
            "channel.",
        ),
    ),
    Exercise(
        id="03.training_bytes",
        reference=lambda parameters: 16 * parameters,
        cases=[(1,), (1000,), (2_700_000,)],
        mistakes=[
            Mistake(
                lambda parameters: 4 * parameters,
                "that holds the weights only, which is enough to run the model, not to train it.",
            ),
            Mistake(
                lambda parameters: 8 * parameters,
                "weights and gradients: enough for plain gradient descent. AdamW remembers two more numbers for each.",
            ),
            Mistake(
                lambda parameters: 12 * parameters,
                "three numbers each: one is missing. Weight, gradient, and AdamW's two moments make four.",
            ),
            Mistake(
                lambda parameters: 4 * parameters * 32,
                "32 is the number of bits of a float; four floats of 4 bytes each.",
            ),
        ],
        hints=(
            "which four numbers are kept for each parameter?",
            "weight, gradient, and AdamW's two moments, four bytes each.",
        ),
    ),
    Exercise(
        id="03.temperature",
        reference=lambda logits, temperature: (logits / temperature).softmax(0),
        cases=[
            (_logits(2.0, 1.0, 0.0, -1.0), 0.5),
            (_logits(2.0, 1.0, 0.0, -1.0), 2.0),
            (_logits(-0.3, 0.7, 0.1), 0.8),
        ],
        mistakes=[
            Mistake(
                lambda logits, temperature: (logits * temperature).softmax(0),
                "the wrong way round: a high temperature has to flatten the logits, so divide by it.",
            ),
            Mistake(
                lambda logits, temperature: logits.softmax(0) / temperature,
                "divided after the softmax: the ratios stay as they were, and the sum is no longer one.",
            ),
            Mistake(
                lambda logits, temperature: logits.softmax(0) ** (1 / temperature),
                "the right ratios, but they do not sum to one: divide the logits before the softmax and it does both.",
            ),
            Mistake(
                lambda logits, temperature: logits.softmax(0),
                "the temperature is not used.",
            ),
            Mistake(
                lambda logits, temperature: (logits / temperature).exp(),
                "these are not probabilities yet: divide by their sum, which is what softmax does.",
            ),
        ],
        hints=(
            "the temperature changes the logits, and softmax makes probabilities of them.",
            "divide the logits by the temperature, then `.softmax(0)`.",
        ),
    ),
    Exercise(
        id="03.top_k",
        reference=_keep,
        compare=_impossible,
        cases=[
            (_logits(1.0, 3.0, 2.0, -1.0), 2),
            (_logits(0.5, -0.5, 0.1, 4.0, 2.0), 3),
            (_logits(-2.0, -1.0, -3.0), 1),
        ],
        mistakes=[
            Mistake(
                lambda logits, k: _keep(logits, k, 0.0),
                "0 is a logit like any other (and higher than a negative one): a forbidden one is minus infinity.",
            ),
            Mistake(
                lambda logits, k: logits.masked_fill(logits <= logits.topk(k).values[-1], -torch.inf),
                "one too few: the k-th largest logit itself is kept.",
            ),
            Mistake(
                lambda logits, k: logits.topk(k).values,
                "k values without their places: nobody knows any more which characters they belong to. Keep the shape.",
            ),
            Mistake(
                lambda logits, k: logits.masked_fill(logits > (-logits).topk(k).values[-1].neg(), -torch.inf),
                "these are the k smallest.",
            ),
        ],
        hints=(
            "how large is the k-th largest logit? Everything below it has to go.",
            "`logits.topk(k).values[-1]` is the smallest that stays; `masked_fill` the others with "
            "`-torch.inf`.",
        ),
    ),
    Exercise(
        id="03.positions",
        reference=lambda prompt, new, cached: prompt + new - 1 if cached else new * prompt + new * (new - 1) // 2,
        cases=[(10, 5, True), (10, 5, False), (1, 20, True), (3, 20, False), (7, 1, True)],
        mistakes=[
            Mistake(
                lambda prompt, new, cached: prompt + new if cached else new * prompt + new * (new - 1) // 2,
                "one too many with the cache: the last new character is written down and never read.",
            ),
            Mistake(
                lambda prompt, new, cached: prompt + new - 1 if cached else new * (prompt + new),
                "without the cache the text grows: the prompt for the first new character, one more for the next.",
            ),
            Mistake(
                lambda prompt, new, cached: prompt + new - 1 if cached else new * prompt,
                "without the cache the new characters are read again as well: each is one more for all that follow.",
            ),
            Mistake(
                lambda prompt, new, cached: new if cached else new * prompt + new * (new - 1) // 2,
                "a cache begins empty: the prompt has to be read once, which gives the first new character.",
            ),
            Mistake(
                lambda prompt, new, cached: prompt + new - 1 if cached else new * prompt + new * (new + 1) // 2,
                "off by one without the cache: the first new character comes out of the prompt alone.",
            ),
        ],
        hints=(
            "write down for prompt 3 and new 4 which places are computed for each new character.",
            "with a cache each place once, `prompt + new - 1` in all; without, `prompt` places for the first "
            "new character, `prompt + 1` for the second, …",
        ),
    ),
]
