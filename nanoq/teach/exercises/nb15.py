"""Exercises of notebook 15, real models."""

import math

import torch

from nanoq.teach.checks import Exercise, Mistake


def _draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- 15.channel_scales: a Conv1D ----


def _channel_scales(weight, bits):
    return weight.abs().amax(0) / (2 ** (bits - 1) - 1)


def _kept_in_memory(weight, bits):
    return weight.reshape(weight.shape[1], -1).abs().amax(1) / (2 ** (bits - 1) - 1)


def _convolutions(generator):
    shapes = ((4, 6), (6, 3), (5, 5))
    return [(_draw(*shape, generator=generator), bits) for shape, bits in zip(shapes, (8, 4, 3), strict=True)]


# ---- 15.ratio: OPT-125M, something small, opt-tales ----


def _ratio(weights, rows, others, bits):
    return 2 * (weights + others) / ((weights * bits + rows * (16 + bits)) / 8 + 2 * others)


_COUNTS = [(84_934_656, 82_944, 40_304_640, 8), (84_934_656, 82_944, 40_304_640, 4), (2_654_208, 10_368, 261_504, 4),
           (4096, 64, 1024, 3)]


# ---- 15.protocol ----


def _protocol(tokens, context):
    return tokens // context, tokens // context * (context - 1)


# ---- 15.bits_per_character ----


def _bits_per_character(nats, tokens, characters):
    return nats / math.log(2) * tokens / characters


# ---- 15.drift ----


def _drift(before, after):
    return float((after - before).square().sum() / (before - before.mean(0)).square().sum())


def _embeddings(generator):
    cases = []
    for count, width in ((6, 4), (9, 5)):
        before = 3 * _draw(width, generator=generator) + _draw(count, width, generator=generator)
        cases.append((before, before + 0.3 * _draw(count, width, generator=generator)))
    return cases


# ---- 15.flips ----


def _flips(lost, won, count):
    return math.sqrt(lost + won - (won - lost) ** 2 / count) / count


# ---- 15.gram_bytes: OPT-125M, OPT-1.3B, opt-tales ----


def _gram_bytes(width, inner):
    return 4 * (3 * width**2 + inner**2)


EXERCISES = [
    Exercise(
        id="15.channel_scales",
        reference=_channel_scales,
        cases=_convolutions,
        mistakes=[
            Mistake(lambda weight, bits: weight.abs().amax(1) / (2 ** (bits - 1) - 1),
                    "A scale for each input: right for nn.Linear, whose weight is (out, in). This one is (in, out)."),
            Mistake(_kept_in_memory,
                    "reshape keeps the order in memory and cuts it into other pieces; it does not exchange the axes. "
                    "The shape fits, the numbers are mixed up."),
            Mistake(lambda weight, bits: weight.abs().max() / (2 ** (bits - 1) - 1),
                    "One scale for the whole matrix. Each output should have its own."),
            Mistake(lambda weight, bits: weight.abs().amax(0) / 2 ** (bits - 1),
                    "The largest code of a symmetric grid is one less: the largest weight would be clamped."),
            Mistake(lambda weight, bits: weight.amax(0) / (2 ** (bits - 1) - 1),
                    "The largest weight is not the largest in size: a channel may have its peak below zero."),
        ],
    ),
    Exercise(
        id="15.ratio",
        reference=_ratio,
        cases=_COUNTS,
        mistakes=[
            Mistake(lambda weights, rows, others, bits: 16 / bits,
                    "So the width promises. Embeddings, biases, norms, scales and zero points are in the file too."),
            Mistake(lambda weights, rows, others, bits: 2 * weights / ((weights * bits + rows * (16 + bits)) / 8),
                    "Those are the quantised layers alone. The file holds all other parameters too, before and after."),
            Mistake(lambda weights, rows, others, bits: 2 * (weights + others) / (weights * bits / 8 + 2 * others),
                    "Nearly: each row brings its float16 scale and its zero point along."),
            Mistake(lambda weights, rows, others, bits: 2 * _ratio(weights, rows, others, bits),
                    "That is against float32. The question is about a float16 file, two bytes a parameter."),
            Mistake(lambda weights, rows, others, bits: 2 * (weights + others) / (
                        (weights * bits + rows * (16 + bits)) / 8 + 4 * others),
                    "You leave the other parameters in float32, four bytes each; they are stored in float16."),
            Mistake(lambda weights, rows, others, bits: 1 / _ratio(weights, rows, others, bits),
                    "Upside down: a model that shrank has a ratio above 1."),
            Mistake(lambda weights, rows, others, bits: 2 * (weights + others) / (
                        weights * bits / 8 + rows * (2 + bits) + 2 * others),
                    "Bits and bytes: the scale is 2 bytes, but the zero point is `bits` bits, not bytes."),
        ],
    ),
    Exercise(
        id="15.protocol",
        reference=_protocol,
        cases=[(341_469, 2048), (1000, 256), (512, 128), (7, 2)],
        mistakes=[
            Mistake(lambda tokens, context: (tokens // context, tokens // context * context),
                    "The windows are right. But the first token of each has nothing before it: nothing predicts it."),
            Mistake(lambda tokens, context: ((tokens - 1) // context, (tokens - 1) // context * context),
                    "That is `window_losses`: windows that share a token, so that each makes `context` predictions. "
                    "These share none."),
            Mistake(lambda tokens, context: (tokens - context + 1, (tokens - context + 1) * (context - 1)),
                    "Those are sliding windows, a new one at every token. These lie side by side."),
            Mistake(lambda tokens, context: (-(-tokens // context), -(-tokens // context) * (context - 1)),
                    "What does not fill a window is dropped, not rounded up."),
            Mistake(lambda tokens, context: (tokens // context, tokens - tokens // context),
                    "You predict the rest of the text too, which fills no window and is dropped."),
        ],
    ),
    Exercise(
        id="15.bits_per_character",
        reference=_bits_per_character,
        cases=[(1.2833, 1000, 2700), (0.49, 500, 500), (3.32, 341_469, 1_290_000)],
        mistakes=[
            Mistake(lambda nats, tokens, characters: nats * tokens / characters,
                    "That is nats per character. A bit is log(2) nats."),
            Mistake(lambda nats, tokens, characters: nats / math.log(2) * characters / tokens,
                    "The wrong way round: a token is several characters, so each of them has only a part of its bits."),
            Mistake(lambda nats, tokens, characters: nats / math.log(2),
                    "Those are bits per token. How many characters has a token here?"),
            Mistake(lambda nats, tokens, characters: math.exp(nats) * tokens / characters,
                    "A perplexity cannot be shared out among characters: information adds up, perplexity does not."),
            Mistake(lambda nats, tokens, characters: nats * math.log(2) * tokens / characters,
                    "To change nats into bits divide by log(2): the smaller unit gives the larger number."),
        ],
    ),
    Exercise(
        id="15.drift",
        reference=_drift,
        cases=_embeddings,
        mistakes=[
            Mistake(lambda before, after: float((after - before).square().sum() / before.square().sum()),
                    "You divide by the length of the embeddings. What all texts have in common tells none apart: take "
                    "their mean away below the line."),
            Mistake(lambda before, after: float(
                        (after - before).sum().square() / (before - before.mean(0)).square().sum()),
                    "Square before you add up: changes of opposite sign cancel."),
            Mistake(lambda before, after: math.sqrt(_drift(before, after)),
                    "That is the square root: the ratio of lengths, not of squared lengths."),
            Mistake(lambda before, after: float(
                        (after - before).square().sum() / (before - before.mean(1, keepdim=True)).square().sum()),
                    "The mean over the texts is to be taken away, a vector; yours is a number for each text."),
            Mistake(lambda before, after: float(
                        ((after - after.mean(0)) - (before - before.mean(0))).square().sum()
                        / (before - before.mean(0)).square().sum()),
                    "You centre what came after on its own mean: a move that all embeddings make is drift too."),
        ],
    ),
    Exercise(
        id="15.flips",
        reference=_flips,
        cases=[(20, 26, 600), (5, 5, 200), (30, 2, 1000), (3, 0, 40)],
        mistakes=[
            Mistake(lambda lost, won, count: abs(won - lost) / count,
                    "That is the difference itself, not how far chance can move it."),
            Mistake(lambda lost, won, count: math.sqrt(abs(won - lost)) / count,
                    "Texts that were lost and texts that were won both make it uncertain; they do not cancel here."),
            Mistake(lambda lost, won, count: math.sqrt(lost + won) / count,
                    "Close: that is the mean of the squares. For the variance take the square of the mean away."),
            Mistake(lambda lost, won, count: math.sqrt((lost + won) / count * (1 - (lost + won) / count) / count),
                    "That is the standard error of the *share of texts that flip*. The direction counts: each text "
                    "gives -1, 0 or +1."),
            Mistake(lambda lost, won, count: math.sqrt((lost + won - (won - lost) ** 2 / count) / count),
                    "That is the standard deviation of one text. The mean of many varies less."),
        ],
    ),
    Exercise(
        id="15.gram_bytes",
        reference=_gram_bytes,
        cases=[(768, 3072), (2048, 8192), (192, 768)],
        mistakes=[
            Mistake(lambda width, inner: 4 * (5 * width**2 + inner**2),
                    "Query, key and value read the same input: one Gram matrix serves all three."),
            Mistake(lambda width, inner: 4 * (4 * width**2 + 2 * width * inner),
                    "Those are the weights. A Gram matrix is (in, in), whatever the number of outputs."),
            Mistake(lambda width, inner: 4 * 4 * width**2,
                    "The second layer of the MLP has `inner` inputs: its matrix is (inner, inner), the largest."),
            Mistake(lambda width, inner: 3 * width**2 + inner**2,
                    "Those are numbers; each of them has 4 bytes in float32."),
            Mistake(lambda width, inner: 4 * (2 * width**2 + inner**2),
                    "One is missing: the inputs are those of attention, of its output projection, and of both layers "
                    "of the MLP."),
        ],
    ),
]
