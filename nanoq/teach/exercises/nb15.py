"""Exercises of notebook 15, real models."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from nanoq.teach.checks import Exercise, Mistake


def _draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- two models that are small enough for a check ----


class Block(nn.Module):
    """Half a block: an MLP with a residual path; `down` reads rows of all tokens, as some classes do it."""

    def __init__(self, width: int):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        return x + self.down(self.up(x).relu().flatten(0, 1)).view_as(x)


class Small(nn.Module):
    """A language model whose head has a name, and the weight of the embedding or one of its own."""

    def __init__(self, head: str, tied: bool, width: int, vocabulary: int):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.add_module(head, nn.Linear(width, vocabulary, bias=False))
        self.head = head
        if tied:
            self.get_submodule(head).weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, vocabulary)."""
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.get_submodule(self.head)(hidden)


def _small_models(generator):
    models = []
    for kind in (("output", True, 4, 11), ("lm_head", False, 3, 7)):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            models.append(Small(*kind).double())
    return models


# ---- 15.layers ----


def _layers(model, wanted=lambda name, layer, tables: id(layer.weight) not in tables):
    """The linear layers that are `wanted`, of their name, themselves and the ids of the embeddings' tables."""
    tables = {id(module.weight): len(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {name: module for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and wanted(name, module, tables)}


def _as_found(answer: Callable, model: nn.Module) -> object:
    """What an answer found, in words: a module cannot be compared with its copy."""
    found = answer(model)
    if not isinstance(found, Mapping):
        return found
    own = dict(model.named_modules())
    return sorted(f"{name}: {'the layer' if own.get(name) is layer else 'not the layer'}"
                  for name, layer in found.items())


# ---- 15.hessians ----


def _gathered(model, layers, batches, rows=lambda x: x.reshape(-1, x.shape[-1]), remove=True, output=False,
              weigh=lambda gram, count: (gram, count), keep=lambda old, new: old + new):
    """Hessians by hooks, with what a mistake does otherwise: `weigh` what a batch gives, or `keep` the last alone."""
    sums, counts, handles = {}, {}, []

    def hook(name):
        def see(layer, inputs, result):
            x = (result if output else inputs[0]).detach()
            gram, count = weigh(rows(x).mT @ rows(x), len(rows(x)))
            sums[name] = keep(sums.get(name, 0), gram)
            counts[name] = keep(counts.get(name, 0), count)
        return see

    for name, layer in layers.items():
        handles.append(layer.register_forward_hook(hook(name)))
    for batch in batches:
        model(batch)
    for handle in handles if remove else ():
        handle.remove()
    return {name: sums[name] / counts[name] for name in layers}


def _hessians(model, layers, batches):
    return _gathered(model, layers, batches)


def _by_the_last_name(model, layers, batches):
    """Hooks that read the variable of the loop, which is the last name when they run."""
    sums, handles = {}, []
    for name, layer in layers.items():
        def see(layer, inputs, result):
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            sums[name] = sums.get(name, 0) + x.mT @ x  # noqa: B023

        handles.append(layer.register_forward_hook(see))
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return sums


def _on_layers(answer: Callable, model: nn.Module, batches: list[Tensor]) -> object:
    """The matrices in the order of the layers, and whether a hook is left."""
    layers = _layers(model)
    found = answer(model, dict(layers), batches)
    if not isinstance(found, Mapping) or found.keys() != layers.keys():
        return found if not isinstance(found, Mapping) else f"matrices of {', '.join(map(str, found)) or 'no layer'}"
    left = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers.values())
    return [*(found[name] for name in layers), "a hook is left" if left else "no hook is left"]


def _models_and_texts(generator):
    texts = [[torch.randint(7, size, generator=generator) for size in sizes] for sizes in (((2, 9), (1, 30)),
                                                                                             ((3, 8), (2, 11), (1, 5)))]
    return list(zip(_small_models(generator), texts, strict=True))


# ---- 15.ratio: OPT-125M in rows, something small, opt-tales in groups of 64 ----


def _ratio(weights, scales, others, bits):
    return 2 * (weights + others) / (weights * bits / 8 + 2 * scales + 2 * others)


_COUNTS = [(84_934_656, 82_944, 40_304_640, 8), (84_934_656, 82_944, 40_304_640, 4), (2_654_208, 41_472, 261_504, 4),
           (4096, 64, 1024, 3)]


# ---- 15.spans ----


def _spans(tokens, context, stride, new=lambda start, end, before: end - before, first=1):
    spans, before = [], first
    for start in range(0, tokens, stride):
        end = min(start + context, tokens)
        spans.append((start, end, new(start, end, before)))
        before = end
        if end == tokens:
            break
    return spans


def _whole_windows(tokens, context, stride):
    return [span for span in _spans(tokens, context, stride) if span[1] - span[0] == context]


def _to_the_last_start(tokens, context, stride):
    starts = range(0, tokens, stride)
    ends = [1, *(min(start + context, tokens) for start in starts)]
    return [(start, b, b - a) for start, (a, b) in zip(starts, pairwise(ends), strict=True)]


# ---- 15.bits_per_character ----


def _bits_per_character(nats, tokens, characters):
    return nats / math.log(2) * tokens / characters


# ---- 15.read ----


def _codes_of(words, bits, columns, order=1, mask=True):
    shifts = bits * torch.arange(32 // bits)
    codes = words[:, :, None] >> (shifts if order == 1 else shifts.flip(0))
    return (codes & 2**bits - 1 if mask else codes).flatten(1)[:, :columns]


def _over(scale, columns):
    return scale.float().repeat_interleave(columns // scale.shape[1], dim=1)


def _read(words, scale, bits, columns):
    return (_codes_of(words, bits, columns) - 2 ** (bits - 1)) * _over(scale, columns)


def _in_half(words, scale, bits, columns):
    codes = _codes_of(words, bits, columns) - 2 ** (bits - 1)
    return (codes * scale.repeat_interleave(columns // scale.shape[1], dim=1)).float()


def _files(generator):
    cases = []
    for out, columns, groups, bits in ((3, 16, 1, 4), (2, 24, 3, 4), (4, 6, 2, 8), (3, 20, 1, 2)):
        words = torch.randint(-(2**31), 2**31, (out, -(-columns * bits // 32)), generator=generator)
        scale = (0.01 + torch.rand(out, groups, generator=generator)).half()
        cases.append((words.int(), scale, bits, columns))
    return cases


# ---- 15.q4_block ----


def _q4_block(blocks, halves=lambda low, high: torch.cat((low, high), 1), offset=8, at=0):
    scale = blocks[:, at : at + 2 or None].contiguous().view(torch.float16).float()
    nibbles = blocks[:, 2:] if at == 0 else blocks[:, :-2]
    return (halves(nibbles & 15, nibbles >> 4).float() - offset) * scale


def _blocks(generator):
    cases = []
    for count in (1, 3):
        scale = (0.01 + torch.rand(count, 1, generator=generator)).half().view(torch.uint8)
        nibbles = torch.randint(256, (count, 14), generator=generator, dtype=torch.uint8)
        # a scale that is read at the end would be a number too, and not NaN
        cases.append((torch.cat((scale, nibbles, torch.tensor([[7, 60]] * count, dtype=torch.uint8)), 1),))
    return cases


# ---- 15.channel_scales: a Conv1D ----


def _channel_scales(weight, bits):
    return weight.abs().amax(0) / (2 ** (bits - 1) - 1)


def _kept_in_memory(weight, bits):
    return weight.reshape(weight.shape[1], -1).abs().amax(1) / (2 ** (bits - 1) - 1)


def _convolutions(generator):
    shapes = ((4, 6), (6, 3), (5, 5))
    return [(_draw(*shape, generator=generator), bits) for shape, bits in zip(shapes, (8, 4, 3), strict=True)]


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
        id="15.layers",
        why="one table serves as embedding and as head; whoever rounds the head has rounded the input of the model.",
        minutes=7,
        difficulty=2,
        reference=_layers,
        call=_as_found,
        cases=lambda generator: [(model,) for model in _small_models(generator)],
        mistakes=[
            Mistake(lambda model: _layers(model, lambda name, layer, tables: True),
                    "a head whose weight is also the table of an embedding is in it: rounding it would round the input "
                    "of the model."),
            Mistake(lambda model: _layers(model, lambda name, layer, tables: "head" not in name),
                    "left out by its name: one head is called something else, and an `lm_head` with a weight of its "
                    "own is a matrix like all others."),
            Mistake(lambda model: _layers(model, lambda name, layer, tables: len(layer.weight) not in tables.values()),
                    "a head with a weight of its own is missing. Its name and shape do not tell: ask whether it and "
                    "the embedding hold one and the same parameter."),
            Mistake(lambda model: {name: layer for name, layer in model.named_children()
                                   if isinstance(layer, nn.Linear)},
                    "`named_children` gives the outermost modules alone; `named_modules` goes down into them."),
            Mistake(lambda model: {name: layer.weight for name, layer in _layers(model).items()},
                    "these are the weights; the layers themselves are wanted."),
            Mistake(lambda model: list(_layers(model)),
                    "these are the names; a dict {name: layer} is wanted."),
        ],
        hints=(
            "two modules share a parameter if it is one object: `a.weight is b.weight`.",
            "gather `id(module.weight)` of each `nn.Embedding` in `model.modules()`; then go through "
            "`model.named_modules()` and keep the `nn.Linear` whose id is not among them.",
        ),
    ),
    Exercise(
        id="15.hessians",
        why="a hook sees what a layer reads in any model, so calibration needs no line of the model's own code.",
        minutes=9,
        difficulty=3,
        reference=_hessians,
        call=_on_layers,
        cases=_models_and_texts,
        mistakes=[
            Mistake(lambda *given: _gathered(*given, weigh=lambda gram, count: (gram, 0), keep=lambda old, new: (
                        old + new if isinstance(new, Tensor) else 1)),
                    "this is the sum over all tokens; divide by their number."),
            Mistake(lambda *given: _gathered(*given, weigh=lambda gram, count: (gram / count, 1)),
                    "each batch has the mean of its own, and then all batches count alike; a longer batch has more "
                    "tokens."),
            Mistake(lambda *given: _gathered(*given, keep=lambda old, new: new),
                    "only the last batch is in it: add what a batch gives to what was there."),
            Mistake(lambda *given: _gathered(*given, output=True),
                    "these are the outputs of the layers; the Hessian is made of their inputs."),
            Mistake(lambda *given: _gathered(*given, remove=False),
                    "the matrices are right, but the hooks are still there: keep each handle, and call `remove()`."),
            Mistake(lambda *given: _gathered(*given, weigh=lambda gram, count: (gram / count**2, 1 / count),
                                             keep=lambda old, new: old + new),
                    "divided by the number of tokens more than once: add up sums and numbers, and divide at the end."),
            Mistake(_by_the_last_name,
                    "matrices of two sizes were added up. If `see` reads the variable of the loop, every hook finds "
                    "its last value there: make `see` in a function of the name. Or is it `x @ x.T`?"),
        ],
        hints=(
            "the hook needs to know whose input it sees: make it in a function of the name, "
            "`def hook(name): def see(layer, inputs, output): ...; return see`.",
            "in `see`: `x = inputs[0].reshape(-1, inputs[0].shape[-1])`, one row per token; add `x.T @ x` to "
            "`sums[name]` and `len(x)` to `counts[name]`. Divide when all batches are through, and remove the hooks.",
        ),
    ),
    Exercise(
        id="15.ratio",
        why="what is not quantised keeps its two bytes per number, and in a small model that is much of the file.",
        minutes=6,
        difficulty=2,
        reference=_ratio,
        cases=_COUNTS,
        mistakes=[
            Mistake(lambda weights, scales, others, bits: 16 / bits,
                    "so the width promises. Embeddings, biases, norms and scales are in the file too."),
            Mistake(lambda weights, scales, others, bits: 2 * weights / (weights * bits / 8 + 2 * scales),
                    "those are the quantised layers alone. The file holds all other parameters too, before and after."),
            Mistake(lambda weights, scales, others, bits: 2 * (weights + others) / (weights * bits / 8 + 2 * others),
                    "nearly: the scales are missing, two bytes each."),
            Mistake(lambda weights, scales, others, bits: 2 * _ratio(weights, scales, others, bits),
                    "that is against float32. The question is about a float16 file, two bytes per parameter."),
            Mistake(lambda weights, scales, others, bits: 2 * (weights + others) / (
                        weights * bits / 8 + 2 * scales + 4 * others),
                    "you leave the other parameters in float32, four bytes each; they are stored in float16."),
            Mistake(lambda weights, scales, others, bits: 1 / _ratio(weights, scales, others, bits),
                    "upside down: a model that shrank has a ratio above 1."),
            Mistake(lambda weights, scales, others, bits: 2 * (weights + others) / (
                        weights * bits + 2 * scales + 2 * others),
                    "bits and bytes: a weight takes `bits` bits, an eighth of that in bytes."),
        ],
        hints=(
            "count the bytes of both files: codes, scales and others in one, two bytes per number in the other.",
            "the quantised file: `weights * bits / 8` bytes of codes, 2 per scale, 2 per other parameter.",
        ),
    ),
    Exercise(
        id="15.spans",
        why="each token but the first is predicted once, by the window that gives it the most text to look back on.",
        minutes=8,
        difficulty=2,
        reference=_spans,
        cases=[(1000, 256, 64), (20, 8, 3), (17, 8, 4), (10, 16, 4)],
        mistakes=[
            Mistake(lambda *given: _spans(*given, first=0),
                    "the first window counts one too many: nothing predicts the first token of the text."),
            Mistake(lambda tokens, context, stride: _spans(
                        tokens, context, stride, lambda start, end, before: stride if start else end - 1),
                    "the end of the text cuts the last window off, which may have fewer new tokens than the stride."),
            Mistake(lambda *given: _spans(*given, lambda start, end, before: end - start - 1),
                    "tokens where windows overlap are counted more than once: a window counts those that no earlier "
                    "one has."),
            Mistake(_whole_windows,
                    "the last tokens are lost: a window that the end of the text cuts off is one, too."),
            Mistake(_to_the_last_start,
                    "stop with the window that reaches the end: those after it have nothing new."),
            Mistake(lambda tokens, context, stride: [(a, b, b - a - 1) for a, b, _ in _spans(tokens, context, context)],
                    "windows begin every `stride` tokens, and overlap."),
        ],
        hints=(
            "remember how far the windows so far have counted. It is 1 before the first: token 0 is never predicted.",
            "`for start in range(0, tokens, stride)`: `end = min(start + context, tokens)`, the new ones are "
            "`end - counted`, then `counted = end`; stop once `end == tokens`.",
        ),
    ),
    Exercise(
        id="15.bits_per_character",
        why="information adds up over a text however it is cut into tokens; a perplexity does not.",
        minutes=4,
        difficulty=1,
        reference=_bits_per_character,
        cases=[(1.2833, 1000, 2700), (0.49, 500, 500), (3.32, 341_469, 1_290_000)],
        mistakes=[
            Mistake(lambda nats, tokens, characters: nats * tokens / characters,
                    "that is nats per character. A bit is log(2) nats."),
            Mistake(lambda nats, tokens, characters: nats / math.log(2) * characters / tokens,
                    "the wrong way round: a token is several characters, so each of them has only a part of its bits."),
            Mistake(lambda nats, tokens, characters: nats / math.log(2),
                    "those are bits per token. How many characters has a token here?"),
            Mistake(lambda nats, tokens, characters: math.exp(nats) * tokens / characters,
                    "a perplexity cannot be shared out among characters: information adds up, perplexity does not."),
            Mistake(lambda nats, tokens, characters: nats * math.log(2) * tokens / characters,
                    "to change nats into bits divide by log(2): the smaller unit gives the larger number."),
        ],
        hints=(
            "how many nats has the whole text? Share them out among its characters, and change the unit.",
            "`nats * tokens` is the text's information in nats; `math.log(2)` nats are one bit.",
        ),
    ),
    Exercise(
        id="15.read",
        why="a format is a few sentences about bytes, and whoever can read it needs to trust no program.",
        minutes=10,
        difficulty=3,
        reference=_read,
        cases=_files,
        rtol=1e-6,
        mistakes=[
            Mistake(lambda words, scale, bits, columns: (
                        _codes_of(words, bits, columns, order=-1) - 2 ** (bits - 1)) * _over(scale, columns),
                    "within a word the first column lies in the *lowest* bits."),
            Mistake(lambda words, scale, bits, columns: _codes_of(words, bits, columns) * _over(scale, columns),
                    "the stored numbers are not signed: take 2 ** (bits - 1) off each."),
            Mistake(lambda words, scale, bits, columns: (
                        _codes_of(words, bits, columns) - 2 ** (bits - 1) + 1) * _over(scale, columns),
                    "the offset is 2 ** (bits - 1): 8 for 4 bits, not 7."),
            Mistake(lambda words, scale, bits, columns: (
                        _codes_of(words, bits, columns, mask=False) - 2 ** (bits - 1)) * _over(scale, columns),
                    "after the shift the bits of the higher columns are still there: keep the lowest `bits` alone."),
            Mistake(lambda words, scale, bits, columns: (_codes_of(words, bits, columns) - 2 ** (bits - 1))
                    * scale.float().repeat(1, columns // scale.shape[1]),
                    "the groups are neighbours: the first scale belongs to the first columns, not to every other one. "
                    "`repeat_interleave` does that, `repeat` does not."),
            Mistake(_in_half,
                    "multiplied in float16, which rounds the products: `scale.float()` first."),
            Mistake(lambda words, scale, bits, columns: (
                        _codes_of(words, bits, len(words[0]) * 32 // bits) - 2 ** (bits - 1)) * scale.float()[:, :1],
                    "a row ends with a whole word: what is beyond `columns` is no weight. Each group has its scale."),
        ],
        hints=(
            "`words >> shift & mask` is one code of each word. Which shifts give all of them?",
            "`shifts = bits * torch.arange(32 // bits)`; `words[:, :, None] >> shifts & 2**bits - 1` is (out, words, "
            "codes per word): flatten the last two, and cut at `columns`.",
        ),
    ),
    Exercise(
        id="15.q4_block",
        why="the two halves of a block lie in the lower and the upper nibbles, so that one mask gives 16 neighbours.",
        minutes=8,
        difficulty=3,
        reference=_q4_block,
        cases=_blocks,
        paper=[(torch.tensor([[0, 56, 128, 60]], dtype=torch.uint8),)],  # a block of 4 columns, its scale 1/2
        rtol=1e-6,
        mistakes=[
            Mistake(lambda blocks: _q4_block(blocks, lambda low, high: torch.stack((low, high), 2).flatten(1)),
                    "the nibbles of a byte are 16 columns apart, no neighbours: first all lower ones, then all upper "
                    "ones."),
            Mistake(lambda blocks: _q4_block(blocks, lambda low, high: torch.cat((high, low), 1)),
                    "the lower four bits are the first half of the block."),
            Mistake(lambda blocks: _q4_block(blocks, offset=0),
                    "the stored numbers are 0 to 15: take 8 off."),
            Mistake(lambda blocks: _q4_block(blocks, offset=7),
                    "the offset is 8, not 7."),
            Mistake(lambda blocks: _q4_block(blocks, at=-2),
                    "the scale stands at the beginning of a block."),
            Mistake(lambda blocks: (torch.cat((blocks[:, 2:] & 15, blocks[:, 2:] >> 4), 1).float() - 8)
                    * blocks[:, :1].float(),
                    "the scale is two bytes that are one float16: `.contiguous().view(torch.float16)`."),
        ],
        hints=(
            "a view of two bytes as one float16 needs them to be neighbours in memory: `.contiguous()` first.",
            "`blocks[:, :2].contiguous().view(torch.float16).float()` is (blocks, 1); `blocks[:, 2:]` are the nibbles.",
        ),
    ),
    Exercise(
        id="15.channel_scales",
        why="the scale of an output can be multiplied after the sum over the inputs; that of an input cannot.",
        minutes=4,
        difficulty=1,
        reference=_channel_scales,
        cases=_convolutions,
        paper=[(torch.tensor([[0.6, -3.0, 0.9], [1.2, 1.5, 0.3]]), 3)],
        mistakes=[
            Mistake(lambda weight, bits: weight.abs().amax(1) / (2 ** (bits - 1) - 1),
                    "a scale for each input: right for nn.Linear, whose weight is (out, in). This one is (in, out)."),
            Mistake(_kept_in_memory,
                    "reshape keeps the order in memory and cuts it into other pieces; it does not exchange the axes. "
                    "The shape fits, the numbers are mixed up."),
            Mistake(lambda weight, bits: weight.abs().max() / (2 ** (bits - 1) - 1),
                    "one scale for the whole matrix. Each output should have its own."),
            Mistake(lambda weight, bits: weight.abs().amax(0) / 2 ** (bits - 1),
                    "the largest code of a symmetric grid is one less: the largest weight would be clamped."),
            Mistake(lambda weight, bits: weight.amax(0) / (2 ** (bits - 1) - 1),
                    "the largest weight is not the largest in size: a channel may have its peak below zero."),
        ],
        hints=(
            "along which axis do the weights of one output lie here?",
            "`weight.abs().amax(...)` over the inputs, divided by the largest code, `2 ** (bits - 1) - 1`.",
        ),
    ),
    Exercise(
        id="15.drift",
        why="an embedding has moved far if it has moved as far as the texts are apart, whatever they have in common.",
        minutes=5,
        difficulty=2,
        reference=_drift,
        cases=_embeddings,
        paper=[(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[2.0, -1.0], [5.0, 0.0]]))],
        mistakes=[
            Mistake(lambda before, after: float((after - before).square().sum() / before.square().sum()),
                    "you divide by the length of the embeddings. What all texts have in common tells none apart: take "
                    "their mean away below the line."),
            Mistake(lambda before, after: float(
                        (after - before).sum().square() / (before - before.mean(0)).square().sum()),
                    "square before you add up: changes of opposite sign cancel."),
            Mistake(lambda before, after: math.sqrt(_drift(before, after)),
                    "that is the square root: the ratio of lengths, not of squared lengths."),
            Mistake(lambda before, after: float(
                        (after - before).square().sum() / (before - before.mean(1, keepdim=True)).square().sum()),
                    "the mean over the texts is to be taken away, a vector; yours is a number for each text."),
            Mistake(lambda before, after: float(
                        ((after - after.mean(0)) - (before - before.mean(0))).square().sum()
                        / (before - before.mean(0)).square().sum()),
                    "you centre what came after on its own mean: a move that all embeddings make is drift too."),
        ],
        hints=(
            "two sums of squares: of the change, and of the distance from the mean embedding.",
            "`(after - before).square().sum()` over that of `before - before.mean(0)`.",
        ),
    ),
    Exercise(
        id="15.flips",
        why="the same texts before and after: only those that changed sides make the difference uncertain.",
        minutes=7,
        difficulty=3,
        reference=_flips,
        cases=[(20, 26, 600), (5, 5, 200), (30, 2, 1000), (3, 0, 40)],
        mistakes=[
            Mistake(lambda lost, won, count: abs(won - lost) / count,
                    "that is the difference itself, not how far chance can move it."),
            Mistake(lambda lost, won, count: math.sqrt(abs(won - lost)) / count,
                    "texts that were lost and texts that were won both make it uncertain; they do not cancel here."),
            Mistake(lambda lost, won, count: math.sqrt(lost + won) / count,
                    "close: that is the mean of the squares. For the variance take the square of the mean away."),
            Mistake(lambda lost, won, count: math.sqrt((lost + won) / count * (1 - (lost + won) / count) / count),
                    "that is the standard error of the *share of texts that flip*. The direction counts: each text "
                    "gives -1, 0 or +1."),
            Mistake(lambda lost, won, count: math.sqrt((lost + won - (won - lost) ** 2 / count) / count),
                    "that is the standard deviation of one text. The mean of many varies less."),
        ],
        hints=(
            "the variance is the mean of the squares less the square of the mean; the squares are 1 or 0.",
            "mean square `(lost + won) / count`, mean `(won - lost) / count`; then the root of variance over `count`.",
        ),
    ),
    Exercise(
        id="15.gram_bytes",
        why="nothing in it depends on the number of blocks, so a model of any depth is quantised in the memory of one.",
        minutes=4,
        difficulty=2,
        reference=_gram_bytes,
        cases=[(768, 3072), (2048, 8192), (192, 768)],
        mistakes=[
            Mistake(lambda width, inner: 4 * (5 * width**2 + inner**2),
                    "query, key and value read the same input: one Gram matrix serves all three."),
            Mistake(lambda width, inner: 4 * (4 * width**2 + 2 * width * inner),
                    "those are the weights. A Gram matrix is (in, in), whatever the number of outputs."),
            Mistake(lambda width, inner: 4 * 4 * width**2,
                    "the second layer of the MLP has `inner` inputs: its matrix is (inner, inner), the largest."),
            Mistake(lambda width, inner: 3 * width**2 + inner**2,
                    "those are numbers; each of them has 4 bytes in float32."),
            Mistake(lambda width, inner: 4 * (2 * width**2 + inner**2),
                    "one is missing: the inputs are those of attention, of its output projection, and of both layers "
                    "of the MLP."),
        ],
        hints=(
            "which different inputs do the six layers of a block have, and how wide are they?",
            "three inputs are `width` wide, one is `inner` wide; a matrix (in, in) for each, 4 bytes per number.",
        ),
    ),
]
