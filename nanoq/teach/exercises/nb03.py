"""Exercises of notebook 03, nanoGPT."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.lm import GPT, GPTConfig
from nanoq.teach.checks import Exercise, Mistake, with_weights
from nanoq.teach.differences import difference, worst


def _causal(T: int) -> Tensor:
    return torch.ones(T, T, dtype=torch.bool).tril()


# ---- the parts of the model, as the notebook builds them ----


class Attention(nn.Module):
    """Causal attention with several heads."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        q, k, v = self.split(x)
        return self.out(self.join(self.weights(q, k) @ v))

    def split(self, x: Tensor) -> Iterator[Tensor]:
        """Queries, keys and values of all heads, (B, heads, T, d) each."""
        B, T, _ = x.shape
        return (part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))

    def join(self, y: Tensor) -> Tensor:
        """(B, heads, T, d) -> (B, T, width)."""
        return y.transpose(1, 2).flatten(2)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """How well each query fits each key, (B, heads, T, T)."""
        return q @ k.mT / q.shape[-1] ** 0.5

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """How much each place reads of each, (B, heads, T, T)."""
        return self.scores(q, k).masked_fill(~_causal(q.shape[-2]), -torch.inf).softmax(-1)


class MLP(nn.Module):
    """Four times as wide, a bend, and down again."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to the stream."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width, bias=False), Attention(width, heads)
        self.mlp_norm, self.mlp = nn.LayerNorm(width, bias=False), MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class WholeGPT(nn.Module):
    """Embeddings, blocks, a norm and a head that is the token embedding."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> logits (B, T, vocab_size)."""
        return self.head(self.run(self.embed(tokens)))

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """(B, T) -> (B, T, width)."""
        return self.token_embedding(tokens) + self.position_embedding.weight[first : first + tokens.shape[1]]

    def run(self, x: Tensor) -> Tensor:
        """All blocks, (B, T, width) -> (B, T, width)."""
        for block in self.blocks:
            x = block(x)
        return x

    def head(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, vocab_size)."""
        return self.final_norm(x) @ self.token_embedding.weight.T


def _package(layers: int, heads: int, width: int) -> GPT:
    """The package's model, its weights so large that each mistake shows."""
    model = GPT(GPTConfig(11, context=8, layers=layers, heads=heads, width=width))
    generator = torch.Generator().manual_seed(width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7, generator=generator)
    return model


def _cases_of_blocks(part: Callable[[GPT], nn.Module]) -> Callable[[torch.Generator], list[tuple]]:
    """For a part of the model: ((width, heads), weights, x (B, T, width))."""
    return lambda generator: [
        ((width, heads), part(_package(1, heads, width)).state_dict(), torch.randn(2, T, width, generator=generator))
        for width, heads, T in [(8, 2, 3), (12, 3, 6), (6, 1, 5)]
    ]


def _cases_of_models(generator: torch.Generator) -> list[tuple]:
    """((config,), weights, tokens (B, T))."""
    models = _package(1, 2, 8), _package(3, 2, 12)
    return [((model.config,), model.state_dict(), torch.randint(11, (2, T), generator=generator))
            for model, T in zip(models, (3, 7), strict=True)]


def _variant(base: type[nn.Module], **methods: Callable) -> type[nn.Module]:
    """A module with other methods: a mistake."""
    return type(base.__name__, (base,), methods)


def _masked_weights(scores: Callable[[Tensor, Tensor], Tensor]) -> type[nn.Module]:
    return _variant(Attention, scores=lambda self, q, k: scores(q, k))


# ---- a step of training ----


class Descent:
    """Plain gradient descent; an optimiser of torch takes seconds to import, which would be the learner's."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float):
        self.parameters, self.lr = list(parameters), lr

    def zero_grad(self, set_to_none: bool = True) -> None:  # as torch's
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move against the gradients, where there are any."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter -= self.lr * parameter.grad


def two_steps(step: Callable, batches: Tensor) -> tuple | None:
    """Both losses and the weights (N,) after a step on each of two batches (2, B, T + 1), by gradient descent."""
    model = GPT(GPTConfig(11, context=batches.shape[-1] - 1, layers=1, heads=2, width=8))
    optimizer = Descent(model.parameters(), lr=1.0)
    losses = [step(model, optimizer, rows) for rows in batches]
    if losses[0] is None:
        return None
    return (*losses, torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))


def _steps_differ(expected: tuple, got: tuple) -> str | None:
    """What `two_steps` gives, each part by its name."""
    names = "the loss of a first step", "the loss of a second step", "the weights after two steps"
    return worst([message and type(message)(f"{name}: {message}")
                  for name, want, have in zip(names, expected, got, strict=True)
                  for message in [difference(want, have)]])


def _loss(model: nn.Module, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def _step(loss_of: Callable = _loss, *, clear: bool = True, move: bool = True) -> Callable:
    """A step of training, or one that leaves something out."""

    def training_step(model: nn.Module, optimizer: Descent, rows: Tensor) -> float:
        loss = loss_of(model, rows)
        if clear:
            optimizer.zero_grad()
        loss.backward()
        if move:
            optimizer.step()
        return loss.item()

    return training_step


def _sum(model: nn.Module, rows: Tensor) -> Tensor:
    return _loss(model, rows) * rows[:, 1:].numel()


def _unshifted(model: nn.Module, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, :-1].flatten())


def _softmax_twice(model: nn.Module, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).softmax(-1).flatten(0, 1), rows[:, 1:].flatten())


def _last_only(model: nn.Module, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1])[:, -1], rows[:, -1])


# ---- writing ----


def _keep(logits: Tensor, k: int, filler: float = -torch.inf) -> Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[-1], filler)


def _draws(*cases: tuple[Sequence[float], float, int]) -> list[tuple]:
    return [(torch.tensor(logits), temperature, k) for logits, temperature, k in cases]


EXERCISES = [
    Exercise(
        id="03.perplexity",
        why="losses are logarithms: their mean belongs in the exponent.",
        minutes=2,
        difficulty=1,
        number=True,
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
        id="03.mask",
        why="a place that could read the next character would learn to copy it, not to predict it.",
        minutes=3,
        difficulty=1,
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
        id="03.attention",
        why="the dot products say whom to read, the softmax makes shares of them, and the values are what is read.",
        minutes=12,
        difficulty=3,
        points=2,
        reference=Attention,
        call=with_weights,
        cases=_cases_of_blocks(lambda model: model.blocks[0].attention),
        mistakes=[
            Mistake(
                _masked_weights(lambda q, k: q @ k.mT),
                "the scale is missing: without 1 / √d the scores grow with the width and the softmax saturates.",
            ),
            Mistake(
                _masked_weights(lambda q, k: q @ k.mT / q.shape[-1]),
                "divided by d; it is its square root: a sum of d random products is of size √d, not d.",
            ),
            Mistake(
                _masked_weights(lambda q, k: q @ k.mT / (q.shape[-1] * q.shape[1]) ** 0.5),
                "divided by the root of the whole width; each head has only d = width / heads channels.",
            ),
            Mistake(
                _masked_weights(lambda q, k: k @ q.mT / q.shape[-1] ** 0.5),
                "queries and keys are swapped: the rows are the queries, which read, the columns the keys.",
            ),
            Mistake(
                _variant(Attention, weights=lambda self, q, k:
                         self.scores(q, k).masked_fill(~_causal(q.shape[-2]), -torch.inf).softmax(-2)),
                "softmax along the wrong axis: each row (one reader) has to sum to one, and rows run along the last.",
            ),
            Mistake(
                _variant(Attention, weights=lambda self, q, k:
                         self.scores(q, k).softmax(-1).masked_fill(~_causal(q.shape[-2]), 0.0)),
                "masked after the softmax: the future has taken its share already, and the rows sum to less than one.",
            ),
            Mistake(
                _variant(Attention, weights=lambda self, q, k:
                         self.scores(q, k).masked_fill(~_causal(q.shape[-2]), 0.0).softmax(-1)),
                "masked with 0, and exp(0) = 1 is not nothing: a forbidden score has to be minus infinity.",
            ),
            Mistake(
                _variant(Attention, weights=lambda self, q, k: self.scores(q, k).softmax(-1)),
                "the mask is missing: every place reads the whole text, the future too.",
            ),
            Mistake(
                _variant(Attention, weights=lambda self, q, k:
                         self.scores(q, k).masked_fill(_causal(q.shape[-2]), -torch.inf).softmax(-1)),
                "the mask is upside down: True means *may be read*, and `masked_fill` fills where it is True. Turn it "
                "round with ~.",
            ),
            Mistake(
                _variant(Attention, weights=lambda self, q, k:
                         self.scores(q, k).masked_fill(~_causal(q.shape[-2]), 0.0)),
                "the softmax is missing: scores are not yet weights that sum to one.",
            ),
        ],
        hints=(
            "follow the list: score, mask, softmax, mix. Print the shape after each step.",
            "begin with `scores = q @ k.mT / q.shape[-1] ** 0.5`, then `masked_fill` with minus infinity where the "
            "mask is *not* True.",
        ),
    ),
    Exercise(
        id="03.block",
        why="because each part is added, the stream passes through every block, and gradients pass back.",
        minutes=5,
        difficulty=2,
        reference=Block,
        call=with_weights,
        cases=_cases_of_blocks(lambda model: model.blocks[0]),
        mistakes=[
            Mistake(
                _variant(Block, forward=lambda self, x:
                         self.mlp(self.mlp_norm(self.attention(self.attention_norm(x))))),
                "each part replaces the stream: it has to be *added* to it, x + ….",
            ),
            Mistake(
                _variant(Block, forward=lambda self, x: (y := x + self.attention(x)) + self.mlp(y)),
                "the norms are not used: each part reads the stream through its norm.",
            ),
            Mistake(
                _variant(Block, forward=lambda self, x:
                         self.mlp_norm((y := self.attention_norm(x + self.attention(x))) + self.mlp(y))),
                "the norm stands behind the sum, as in the first transformers; in ours it stands before each part, and "
                "the stream itself is never normed.",
            ),
            Mistake(
                _variant(Block, forward=lambda self, x:
                         x + self.attention(self.attention_norm(x)) + self.mlp(self.mlp_norm(x))),
                "the MLP reads the old x: it has to read the stream to which attention has been added.",
            ),
            Mistake(
                _variant(Block, forward=lambda self, x: (y := x + self.mlp(self.mlp_norm(x)))
                         + self.attention(self.attention_norm(y))),
                "the other way round: attention first, then the MLP.",
            ),
            Mistake(
                _variant(Block, forward=lambda self, x: self.mlp(self.mlp_norm(
                    x + self.attention(self.attention_norm(x))))),
                "only attention is added; the MLP replaces the stream. Add it too.",
            ),
            Mistake(
                _variant(Block, forward=lambda self, x: (y := x + self.attention(self.attention_norm(x)))
                         + self.mlp(self.attention_norm(y))),
                "both parts read through the same norm; the MLP has its own, `mlp_norm`.",
            ),
        ],
        hints=(
            "follow the arrows of the picture: norm, part, plus; and once more.",
            "the first line is `x = x + self.attention(self.attention_norm(x))`.",
        ),
    ),
    Exercise(
        id="03.gpt",
        why="the table that turns ids into vectors also turns vectors into scores: one matrix, stored once.",
        minutes=8,
        difficulty=2,
        points=2,
        reference=WholeGPT,
        call=with_weights,
        cases=_cases_of_models,
        mistakes=[
            Mistake(
                _variant(WholeGPT, embed=lambda self, tokens: self.token_embedding(tokens)),
                "the positions are missing: add the first T rows of the position table.",
            ),
            Mistake(
                _variant(WholeGPT, forward=lambda self, tokens: self.head(self.run(self.embed(tokens, 1)))),
                "positions are counted from 0: the first character gets row 0 of the position table.",
            ),
            Mistake(
                _variant(WholeGPT, run=lambda self, x: x),
                "the blocks are not called: the stream goes through each of them.",
            ),
            Mistake(
                _variant(WholeGPT, run=lambda self, x: self.blocks[-1](x)),
                "each block has to read what the one before it made: x = block(x).",
            ),
            Mistake(
                _variant(WholeGPT, head=lambda self, x: x @ self.token_embedding.weight.T),
                "the final norm is missing, between the last block and the head.",
            ),
            Mistake(
                _variant(WholeGPT, head=lambda self, x: self.final_norm(x)),
                "these are vectors of the stream, not logits yet: multiply them by the transposed token table.",
            ),
            Mistake(
                _variant(WholeGPT, forward=lambda self, tokens: self.head(self.run(self.embed(tokens))).softmax(-1)),
                "these are probabilities; logits are wanted, before the softmax.",
            ),
            Mistake(
                _variant(WholeGPT, forward=lambda self, tokens: self.head(self.run(self.embed(tokens)))[:, -1]),
                "only the last place: the model answers at every place at once.",
            ),
        ],
        hints=(
            "four steps: both embeddings, the blocks in turn, the norm, the product with the token table.",
            "begin with `x = self.token_embedding(tokens) + self.position_embedding(torch.arange(T))`; the logits have "
            "the shape (B, T, V).",
        ),
    ),
    Exercise(
        id="03.step",
        why="targets are the inputs moved by one place, so one pass teaches a prediction at every place.",
        minutes=6,
        difficulty=2,
        number=True,
        reference=_step(),
        call=two_steps,
        compare=_steps_differ,
        cases=lambda generator: [(torch.randint(11, (2, *size), generator=generator),) for size in [(3, 5), (1, 8)]],
        mistakes=[
            Mistake(
                _step(clear=False),
                "the gradients of the last step are still there, and the new ones are added: `optimizer.zero_grad()`.",
            ),
            Mistake(
                _step(move=False),
                "the weights have not moved: `optimizer.step()` comes after `loss.backward()`, with no `zero_grad` "
                "between the two.",
            ),
            Mistake(
                _step(_unshifted),
                "the targets are the characters that the model reads; it has to predict the *next*: `rows[:, 1:]`.",
            ),
            Mistake(
                _step(_softmax_twice),
                "`cross_entropy` wants logits: it takes the softmax itself.",
            ),
            Mistake(
                _step(_sum),
                "that is the sum over all questions; the mean is wanted, which is what `cross_entropy` does by itself.",
            ),
            Mistake(
                _step(_last_only),
                "only the last place of each window: every place is a question.",
            ),
        ],
        hints=(
            "loss, clear the old gradients, backward, step; and return the loss.",
            "`cross_entropy` wants logits (N, V) and targets (N,): flatten the first two axes of the logits, and the "
            "targets `rows[:, 1:]`.",
        ),
    ),
    Exercise(
        id="03.sampling",
        why="temperature changes how sharply the model chooses, top-k from how many.",
        minutes=7,
        difficulty=2,
        reference=lambda logits, temperature, top_k: (_keep(logits, top_k) / temperature).softmax(0),
        cases=_draws(
            ((2.0, 1.0, 0.0, -1.0), 0.5, 4),
            ((1.0, 3.0, 2.0, -1.0), 2.0, 2),
            ((0.5, -0.5, 0.1, 4.0, 2.0), 0.8, 3),
        ),
        mistakes=[
            Mistake(
                lambda logits, temperature, top_k: (_keep(logits, top_k) * temperature).softmax(0),
                "the wrong way round: a high temperature has to flatten the logits, so divide by it.",
            ),
            Mistake(
                lambda logits, temperature, top_k: _keep(logits, top_k).softmax(0) / temperature,
                "divided after the softmax: the ratios stay as they were, and the sum is no longer one.",
            ),
            Mistake(
                lambda logits, temperature, top_k: _keep(logits, top_k).softmax(0),
                "the temperature is not used.",
            ),
            Mistake(
                lambda logits, temperature, top_k: (logits / temperature).softmax(0),
                "every character can still be drawn: keep the top_k largest logits only.",
            ),
            Mistake(
                lambda logits, temperature, top_k: _keep((logits / temperature).softmax(0), top_k, 0.0),
                "cut off after the softmax: what is left no longer sums to one. Cut the logits.",
            ),
            Mistake(
                lambda logits, temperature, top_k: (_keep(logits, top_k, 0.0) / temperature).softmax(0),
                "0 is a logit like any other: a forbidden one is minus infinity.",
            ),
            Mistake(
                lambda logits, temperature, top_k: (logits.topk(top_k).values / temperature).softmax(0),
                "the probabilities have lost their places: nobody knows which characters they belong to. Keep the "
                "shape (V,).",
            ),
            Mistake(
                lambda logits, temperature, top_k: (logits.masked_fill(
                    logits <= logits.topk(top_k).values[-1], -torch.inf) / temperature).softmax(0),
                "one too few: the top_k-th largest logit itself is kept.",
            ),
        ],
        hints=(
            "first make all but the top_k largest logits impossible, as the mask does; then temperature and softmax.",
            "`logits.topk(top_k).values[-1]` is the smallest logit that stays; `masked_fill` the smaller ones with "
            "`-torch.inf`.",
        ),
    ),
    Exercise(
        id="03.bits_per_char",
        why="per character, models with different tokenizers can be compared; per token they cannot.",
        minutes=4,
        difficulty=2,
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
        id="03.block_parameters",
        why="nearly all of them stand in four matrices; those are what is quantised.",
        minutes=4,
        difficulty=2,
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
        why="a trained model keeps a quarter of this: the rest is gradients and the optimiser's memory.",
        minutes=2,
        difficulty=1,
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
        id="03.positions",
        why="with a cache the work per character no longer grows with the text that is already there.",
        minutes=5,
        difficulty=2,
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
