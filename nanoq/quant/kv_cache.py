"""Quantised keys and values: what attention keeps of the tokens it has read."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nanoq.lm.model import GPT, GPTConfig, KVCache
from nanoq.quant.activations import check_rounding
from nanoq.quant.hadamard import RandomHadamard
from nanoq.quant.packing import pack, unpack


class QuantizedKVCache(KVCache):
    """A cache that keeps the keys and values of all but the newest tokens as packed codes.

    After KIVI (Liu et al. 2024, arXiv 2402.02750). Keys share a scale along a channel, one for each `group` tokens of
    it: in large models some channels are large for every token, and in the course's model neighbouring tokens have like
    keys. Values show neither as clearly, and each token of a head has a scale of its own. `group` tokens are rounded
    together once `residual` newer ones have been read, so the newest residual to residual + group - 1 tokens are in
    floating point. (In KIVI the values are rounded one token at a time, and only the keys wait for a full group.) As
    in algorithm 1 of the paper, tokens that are read together see each other in full precision.

    Attributes:
        keys, values: the newest tokens, in floating point, (B, heads, T, head width) for each block.
    """

    def __init__(
        self, layers: int, bits: int, group: int = 32, residual: int = 32,
        key_granularity: str = "channel", value_granularity: str = "token", hadamard: bool = False,
    ):
        """Make an empty cache.

        Args:
            layers: blocks of the model.
            bits: of a code, 2 to 8.
            group: tokens that are rounded together.
            residual: newest tokens that always stay in floating point.
            key_granularity: "channel" or "token".
            value_granularity: "channel" or "token".
            hadamard: whether a head's keys and values are turned by a random Hadamard matrix before they are rounded
                (QuaRot, Ashkboos et al. 2024, arXiv 2404.00456), after whatever depends on positions. They are turned
                back when they are read, which gives what turned queries would.

        Raises:
            ValueError: if an argument is out of its range.
        """
        super().__init__(layers)
        for name, count, least in (("group", group, 1), ("residual", residual, 0)):
            if not isinstance(count, int) or count < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {count!r}")
        self.group, self.residual, self.hadamard = group, residual, hadamard
        self._packed_keys = [_PackedTokens(bits, key_granularity, group) for _ in range(layers)]
        self._packed_values = [_PackedTokens(bits, value_granularity, group) for _ in range(layers)]

    @property
    def length(self) -> int:
        """Number of tokens held."""
        return self._packed_keys[0].length + super().length

    @property
    def bytes(self) -> int:
        """Bytes of memory held: codes, scales and minima, and the newest tokens in their own type."""
        tensors = [t for t in (*self.keys, *self.values) if t is not None]
        tensors += [t for packed in (*self._packed_keys, *self._packed_values) for t in packed.tensors]
        return sum(t.untyped_storage().nbytes() for t in tensors)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append one block's new keys and values (B, heads, T, head width); return all, the old ones dequantised.

        Raises:
            ValueError: if a scale or a minimum does not fit float16, or there is no Hadamard matrix of a head's width.
        """
        if not self.hadamard:
            return self._extended(layer, k, v)
        turn = RandomHadamard.draw(k.shape[-1], torch.Generator().manual_seed(0))
        k, v = self._extended(layer, turn(k), turn(v))
        return turn.inverse(k), turn.inverse(v)

    def _extended(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (self._extend(layer, self._packed_keys, self.keys, k),
                self._extend(layer, self._packed_values, self.values, v))

    def _extend(self, layer: int, packed: list["_PackedTokens"], newest: list[Tensor | None], x: Tensor) -> Tensor:
        recent = x if newest[layer] is None else torch.cat((newest[layer], x), dim=2)
        everything = torch.cat((*packed[layer].decode(x.dtype), recent), dim=2)
        leave = max(recent.shape[2] - self.residual, 0) // self.group * self.group
        if leave:
            packed[layer].append(recent[:, :, :leave])
        newest[layer] = recent[:, :, leave:].clone()  # a slice would keep all of `recent` alive
        return everything


class _PackedTokens:
    """Keys or values as x ~ scale * code + minimum, codes 0..2**bits - 1, with the scale and minimum of their range.

    Unlike the grid of a weight this one need not hold 0: a channel of the keys may lie off it. That the minimum is
    stored in float16 adds up to 2**-12 of the distance to the error.

    Attributes:
        tensors: none at first, then three, n being the groups of a channel or the tokens, and m the channels of a head
            or 1: codes uint8 (B, heads, n, m, bytes), scale and minimum float16 (B, heads, n, m, 1).
    """

    def __init__(self, bits: int, granularity: str, group: int):
        check_rounding(bits, granularity, ("channel", "token"))
        self.bits, self.granularity, self.group = bits, granularity, group
        self.tensors: list[Tensor] = []
        self.length = 0

    @torch.no_grad()
    def append(self, x: Tensor) -> None:
        """Round and take in (B, heads, T, head width), T a multiple of the group."""
        rows = x.unflatten(2, (-1, self.group)).mT if self.granularity == "channel" else x.unsqueeze(3)
        low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
        # Codes are made with the scale and the minimum as they are stored.
        minimum, scale = low.half(), ((high - low) / (2**self.bits - 1)).half()
        scale = torch.where(scale > 0, scale, 1.0)  # all equal, as far as float16 can tell
        if not (minimum.isfinite().all() and scale.isfinite().all()):
            raise ValueError("keys or values hold NaN, infinity, or values beyond float16's 65504: use a plain KVCache")
        codes = ((rows - minimum) / scale).round().clamp(0, 2**self.bits - 1).long()
        new = [pack(codes, self.bits), scale, minimum]
        self.tensors = [torch.cat(pair, dim=2) for pair in zip(self.tensors, new, strict=True)] if self.tensors else new
        self.length += x.shape[2]
        self._count = rows.shape[-1]

    def decode(self, dtype: torch.dtype) -> list[Tensor]:
        """The tokens taken in so far, in one tensor (B, heads, length, head width), or none."""
        if not self.tensors:
            return []
        packed, scale, minimum = self.tensors
        rows = unpack(packed, self.bits, self._count).to(dtype) * scale.to(dtype) + minimum.to(dtype)
        return [rows.mT.flatten(2, 3) if self.granularity == "channel" else rows.squeeze(3)]


class StepwiseModel(nn.Module):
    """A model that reads its tokens a few at a time through a cache, as it does when it writes, for `window_losses`.

    In one pass over a whole window no token is ever read back from the cache, so a quantised one would cost nothing.

    Args:
        model: the model.
        make_cache: makes an empty cache for a number of blocks, such as `partial(QuantizedKVCache, bits=4)`.
        step: tokens that are read together. Any that divides the group and the residual of a `QuantizedKVCache` gives
            what 1 gives, sooner.

    Raises:
        ValueError: if the step is not at least 1.
    """

    def __init__(self, model: GPT, make_cache: Callable[[int], KVCache], step: int = 32):
        super().__init__()
        if step < 1:
            raise ValueError(f"step must be a whole number of at least 1, not {step!r}")
        self.model, self.make_cache, self.step = model, make_cache, step
        self.train(model.training)

    @property
    def config(self) -> GPTConfig:
        """The shape of the model."""
        return self.model.config

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> logits (B, T, vocab_size) of each next token."""
        cache = self.make_cache(self.config.layers)
        return torch.cat([self.model(part, cache) for part in tokens.split(self.step, dim=1)], dim=1)
