"""The course's language model: a small pre-norm GPT that is read from top to bottom."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT. The defaults are the course's 2.7 M-parameter model.

    Attributes:
        vocab_size: number of token ids.
        context: the longest sequence the model can read, in tokens.
        layers: number of blocks.
        heads: attention heads in a block; must divide `width`.
        width: size of the residual stream.
        bias: whether linear layers and norms have a bias.
        dropout: probability of dropping an activation while training.
        norm: "layer" (LayerNorm), or "rms": a division by the root mean square, without weights, which is what
            `nanoq.quant.rotate` leaves.
        tied: whether the head is the token embedding; otherwise it has a weight of its own.
    """

    vocab_size: int
    context: int = 256
    layers: int = 6
    heads: int = 6
    width: int = 192
    bias: bool = False
    dropout: float = 0.0
    norm: str = "layer"
    tied: bool = True

    def __post_init__(self):
        for name in ("vocab_size", "context", "layers", "heads", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        for name in ("bias", "tied"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if self.norm not in ("layer", "rms"):
            raise ValueError(f"norm must be layer or rms, not {self.norm!r:.40}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout!r}")

    def entries(self) -> dict:
        """What files keep: what only rotated models have is left out of others, as it was before there were any."""
        usual = {"norm": "layer", "tied": True}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}


def check_tokens(tokens: Tensor, vocabulary: int) -> None:
    """Check that all ids of a tensor lie in a vocabulary of this size, which torch would say without naming any.

    Raises:
        ValueError: with an id that does not.
    """
    if tokens.numel():
        for token in map(int, tokens.aminmax()):
            if not 0 <= token < vocabulary:
                raise ValueError(f"the token id {token} is not in the model's vocabulary of {vocabulary}: the "
                                 "tokeniser belongs to another model; encode the text with that of this one")


class KVCache:
    """Keys and values of the tokens read so far, a pair of (B, heads, T, head width) for each block.

    They lie in memory that is taken for more tokens than there are, so that a new one moves none of them.
    """

    def __init__(self, layers: int):
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self._rooms: list[Tensor | None] = [None] * layers  # (2, B, heads, at least T, head width)

    @property
    def length(self) -> int:
        """Number of tokens held."""
        return 0 if self.keys[0] is None else self.keys[0].shape[2]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append one block's new keys and values; return all of them."""
        past = 0 if self.keys[layer] is None else self.keys[layer].shape[2]
        room, total = self._rooms[layer], past + k.shape[2]
        if room is None or room.shape[3] < total:
            room = k.new_empty(2, *k.shape[:2], max(64, 2 * total), k.shape[3])
            if past:
                room[0, :, :, :past], room[1, :, :, :past] = self.keys[layer], self.values[layer]
            self._rooms[layer] = room
        room[0, :, :, past:total], room[1, :, :, past:total] = k, v
        self.keys[layer], self.values[layer] = room[:, :, :, :total]
        return self.keys[layer], self.values[layer]


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.layer, self.head_width, self.dropout = layer, config.width // config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    @property
    def heads(self) -> int:
        """Number of heads; pruning may have taken some away."""
        return self.out.in_features // self.head_width

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T, width) -> (B, T, width); token t reads tokens 0..t and whatever the cache holds."""
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, -1, self.head_width).permute(2, 0, 3, 1, 4)  # (B, heads, T, head_width)
        if cache:
            k, v = cache.extend(self.layer, k, v)
        past = k.shape[2] - T
        # With a past, query t stands at position past + t: a square causal mask would be wrong.
        mask = torch.ones(T, past + T, dtype=torch.bool, device=x.device).tril(past) if past and T > 1 else None
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop, is_causal=not past)
        return self.out(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU between them; four times wider inside."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.down = nn.Linear(4 * config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        return self.down(F.gelu(self.up(x)))


def make_norm(config: GPTConfig) -> nn.LayerNorm | nn.RMSNorm:
    """The norm of a stream of `config.width` numbers."""
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=1e-5, elementwise_affine=False)
    return nn.LayerNorm(config.width, bias=config.bias)


class Block(nn.Module):
    """A pre-norm Transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        x = x + self.drop(self.attention(self.attention_norm(x), cache))
        return x + self.drop(self.mlp(self.mlp_norm(x)))


class GPT(nn.Module):
    """Token and position embeddings, blocks, a final norm, and a head, which is usually the token embedding.

    Args:
        config: the shape.
        seed: seed of the initial weights; the global random state is not touched. None leaves them as torch makes them,
            for a model that is about to be loaded.
    """

    def __init__(self, config: GPTConfig, seed: int | None = 0):
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):  # torch's own initial values would advance the global generator
            self.token_embedding = nn.Embedding(config.vocab_size, config.width)
            self.position_embedding = nn.Embedding(config.context, config.width)
            self.drop = nn.Dropout(config.dropout)
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
            self.final_norm = make_norm(config)
            if not config.tied:
                self.unembedding = nn.Linear(config.width, config.vocab_size, bias=config.bias)
        if seed is not None:
            self._initialize(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialize(self, generator: torch.Generator) -> None:
        """N(0, 0.02), and smaller for the layers that write to the residual stream, as in GPT-2."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue  # norms start at one, biases at zero
            writes = name.endswith(("out.weight", "down.weight"))
            parameter.normal_(0, 0.02 / (2 * self.config.layers) ** 0.5 if writes else 0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()

    def parameter_count(self) -> int:
        """Number of parameters; the tied head counts once."""
        return sum(p.numel() for p in self.parameters())

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Tokens (B, T) at positions start..start+T-1 -> the first block's input (B, T, width).

        Raises:
            ValueError: if there are more tokens than the context, or, outside training, one beyond the vocabulary.
        """
        T, context = tokens.shape[1], self.config.context
        if start + T > context:
            raise ValueError(f"{start + T} tokens do not fit the model's context of {context}")
        if not self.training:  # `train` looks at the whole text once: here a GPU would wait for the answer in each step
            check_tokens(tokens, self.config.vocab_size)
        positions = torch.arange(start, start + T, device=tokens.device)
        return self.drop(self.token_embedding(tokens) + self.position_embedding(positions))

    def head(self, x: Tensor) -> Tensor:
        """The last block's output (B, T, width) -> logits (B, T, vocab_size)."""
        x = self.final_norm(x)
        return F.linear(x, self.token_embedding.weight) if self.config.tied else self.unembedding(x)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Tokens (B, T) -> logits (B, T, vocab_size) of each next token.

        With a `cache` the tokens continue those that the cache holds, and are added to it.
        """
        x = self.embed(tokens, cache.length if cache else 0)
        for block in self.blocks:
            x = block(x, cache)
        return self.head(x)
