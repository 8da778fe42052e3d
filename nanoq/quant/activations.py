"""Quantised activations: the inputs of linear layers, and the keys and values that attention keeps.

A weight is rounded once and can be rounded with care. An activation is rounded anew for every token, to the nearest
value and in no time, so what counts is its range. In large language models a few channels of it are some ten times
larger than the rest, always the same ones (Dettmers et al. 2022, arXiv 2208.07339, section 4). `plant_outliers` gives
a small model the same trouble, and `smooth` takes it away.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nanoq.lm.model import GPT, GPTConfig, KVCache
from nanoq.quant.grid import covering_range, evenly_spaced
from nanoq.quant.packing import pack, unpack
from nanoq.quant.qlinear import QuantLinear


def round_activations(x: Tensor, bits: int, granularity: str = "token", symmetric: bool = True) -> Tensor:
    """Round activations (..., width) to evenly spaced values that cover them; the result has the shape and type of x.

    Symmetric: the 2**bits - 1 values -m..m steps, with m = 2**(bits-1) - 1 of them up to max|x|. Asymmetric: 2**bits
    values from min(x, 0) to max(x, 0). Scales are not rounded to float16, unlike those of a weight: they are made anew
    for each input and stored nowhere. With "token" the result for a token
    depends on that token alone; with "tensor", on everything that is in the batch with it.

    Args:
        x: (..., width), finite.
        bits: 2 to 8.
        granularity: "token" (a scale for each vector of `width` numbers) or "tensor" (one for all).
        symmetric: whether the values lie evenly on both sides of 0.

    Raises:
        ValueError: if bits or granularity is out of its range, or x holds NaN or infinity.
    """
    _check_rounding(bits, granularity, ("token", "tensor"))
    if not x.dim():
        raise ValueError("activations (..., width) are needed, not a single number")
    if not x.isfinite().all():
        raise ValueError("the activations hold NaN or infinity: look for it in the model's weights")
    if not x.numel():
        return x
    rows = x.reshape(1, -1) if granularity == "tensor" else x.reshape(-1, x.shape[-1])
    rows = rows if x.dtype == torch.float64 else rows.float()  # a range of float16 numbers may not fit float16
    grid = evenly_spaced(*covering_range(rows, symmetric), bits, symmetric, rows.shape[1], stored=False)
    return grid.decode(grid.encode(rows)).view(x.shape).to(x.dtype)


def _check_rounding(bits: int, granularity: str, known: tuple[str, ...]) -> None:
    if bits not in range(2, 9):
        raise ValueError(f"bits must be in 2..8, not {bits!r}")
    if granularity not in known:
        raise ValueError(f"granularity must be one of {', '.join(known)}, not {granularity!r}")


@contextmanager
def quantized_activations(
    model: nn.Module, bits: int, granularity: str = "token", symmetric: bool = True
) -> Iterator[None]:
    """Round the input of every linear layer of the model's blocks, quantised or not, while the block of code runs.

    Together with 8-bit weights this is W8A8. The product itself stays in floating point and gives what integers would:
    sum(x w) = scale_x scale_w sum(code_x code_w). Attention's own products, q k^T and that with v, are not rounded.

    Args:
        model: has `blocks`.
        bits: 2 to 8.
        granularity: "token" or "tensor", as in `round_activations`.
        symmetric: as in `round_activations`.

    Raises:
        ValueError: as `round_activations`.
    """
    _check_rounding(bits, granularity, ("token", "tensor"))
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: round_activations(args[0], bits, granularity, symmetric))
        for layer in model.blocks.modules() if isinstance(layer, (nn.Linear, QuantLinear))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def plant_outliers(model: GPT, channels: int = 4, factor: float = 50.0, seed: int = 0) -> Tensor:
    """Make the same few channels of every norm's output `factor` times larger, and leave what the model computes alone.

    The layer that reads a norm, `qkv` or `up`, has the matching columns of its weight divided by the factor: logits
    stay the same but for floating-point rounding. A model of some billion weights grows such channels by itself while
    it is trained; ours is too small to, so they are planted.

    Args:
        model: is changed in place.
        channels: how many.
        factor: positive.
        seed: of the choice of channels.

    Returns:
        The channels, int64 (channels,).

    Raises:
        ValueError: if there are not that many channels, the factor is not positive, or the model is quantised.
    """
    width = model.config.width
    if channels not in range(width + 1):
        raise ValueError(f"channels must be in 0..{width}, the model's width, not {channels!r}")
    if not 0 < factor < torch.inf:
        raise ValueError(f"factor must be a positive number, not {factor!r}")
    chosen = torch.randperm(width, generator=torch.Generator().manual_seed(seed))[:channels]
    for norm, layer in _layers_after_norms(model).values():
        scale = torch.ones_like(norm.weight)
        scale[chosen] = 1 / factor
        _move_scale(norm, layer, scale)
    return chosen


def smooth(model: GPT, calibration: Tensor, alpha: float = 0.5) -> dict[str, Tensor]:
    """SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): move the range of activations into the weights they meet.

    Channel j of a norm's output X is divided by s_j, column j of the weight W that reads it is multiplied by s_j:

        s_j = max|X_j|**alpha / max|W_j|**(1 - alpha)        (equation 4)

    Logits stay the same but for floating-point rounding. Only `qkv` and `up` read a norm that the division can be
    hidden in; the inputs of `out` and `down` stay as they are, as in the paper.

    Args:
        model: is changed in place, before its weights are quantised.
        calibration: tokens (windows, T) that show the range of the activations.
        alpha: 0 to 1: at 1 all channels of X get the same range, at 0 all columns of W.

    Returns:
        The scales s (width,) of each layer that was smoothed, by its name in the model.

    Raises:
        ValueError: if alpha is out of its range, there is no calibration text, or the model is quantised.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, not {alpha!r}")
    if calibration.dim() != 2 or not calibration.numel():
        raise ValueError(f"calibration must be tokens (windows, T), not of shape {tuple(calibration.shape)}")
    pairs = _layers_after_norms(model)
    inputs = _largest_inputs(model, {name: layer for name, (_, layer) in pairs.items()}, calibration)
    scales = {}
    for name, (norm, layer) in pairs.items():
        columns = layer.weight.detach().abs().amax(0)
        scale = inputs[name] ** alpha / columns ** (1 - alpha)
        # An input that is never seen, or never read, has no range to balance.
        scales[name] = torch.where((inputs[name] > 0) & (columns > 0), scale, 1.0)
        _move_scale(norm, layer, scales[name])
    return scales


def _layers_after_norms(model: GPT) -> dict[str, tuple[nn.LayerNorm, nn.Linear]]:
    """Each norm of the blocks with the one linear layer that reads it, by that layer's name in the model."""
    pairs = {}
    for i, block in enumerate(model.blocks):
        pairs[f"blocks.{i}.attention.qkv"] = block.attention_norm, block.attention.qkv
        pairs[f"blocks.{i}.mlp.up"] = block.mlp_norm, block.mlp.up
    for name, (_, layer) in pairs.items():
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is quantised already: rescale the model before its weights are rounded")
    return pairs


@torch.no_grad()
def _move_scale(norm: nn.LayerNorm, layer: nn.Linear, scale: Tensor) -> None:
    """Divide the norm's output by scale (width,) and multiply the columns that read it; layer(norm(x)) is unchanged."""
    norm.weight /= scale
    if norm.bias is not None:
        norm.bias /= scale
    layer.weight *= scale


@torch.no_grad()
def _largest_inputs(
    model: GPT, layers: dict[str, nn.Linear], tokens: Tensor, batch: int = 16
) -> dict[str, Tensor]:
    """For each layer the largest magnitude of each of its inputs (in,) over the tokens (windows, T)."""
    largest = {name: torch.zeros_like(layer.weight[0]) for name, layer in layers.items()}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(_: nn.Module, args: tuple[Tensor]) -> None:
            largest[name] = torch.maximum(largest[name], args[0].flatten(0, -2).abs().amax(0))

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    training = model.training
    try:
        model.eval()
        for rows in tokens.split(batch):
            model(rows)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for name, values in largest.items():
        if not values.isfinite().all():
            raise ValueError(f"the inputs of {name} hold NaN or infinity: look for it in the model's weights")
    return largest


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
        key_granularity: str = "channel", value_granularity: str = "token",
    ):
        """Make an empty cache.

        Args:
            layers: blocks of the model.
            bits: of a code, 2 to 8.
            group: tokens that are rounded together.
            residual: newest tokens that always stay in floating point.
            key_granularity: "channel" or "token".
            value_granularity: "channel" or "token".

        Raises:
            ValueError: if an argument is out of its range.
        """
        super().__init__(layers)
        for name, count, least in (("group", group, 1), ("residual", residual, 0)):
            if not isinstance(count, int) or count < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {count!r}")
        self.group, self.residual = group, residual
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
            ValueError: if a scale or a minimum does not fit float16.
        """
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
        _check_rounding(bits, granularity, ("channel", "token"))
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
