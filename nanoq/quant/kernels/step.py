"""One token of each of several texts through a GPT, in compiled loops.

A token costs a small GPT little more than reading its weights once, and far less than the hundred operators of torch
that `GPT.forward` calls for it. Here each block is one compiled call. `GPT.forward` is what says what is computed;
`nanoq.lm.generation` comes here where that gives the same, and tests compare the two.

Layers of evenly spaced codes are multiplied by their codes (`nanoq.quant.kernels`), all others by their float weight.
One thread does it: a product of a small model is over before a second one has started, and numba, where it has loops in
threads, gives OpenMP its own number of them, for torch as well.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from nanoq.compiled import compiled
from nanoq.lm.model import GPT, MLP, Attention, Block, KVCache
from nanoq.quant.kernels import IntegerKernel, Kernel, weight_only
from nanoq.quant.kernels.loops import FAST, float_rows, weight_only_rows
from nanoq.quant.online import HadamardLinear
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import weight_shape

_f32, _i32 = np.float32, np.int32
_LN2, _SQRT_HALF = _f32(math.log(2)), _f32(math.sqrt(0.5))


class Step:
    """Reads one token of each of some texts, which may differ in length, and keeps their keys and values.

    Attributes:
        lengths: tokens read of each text.
    """

    def __init__(self, model: GPT, texts: int):
        """Lay out a model's weights, and room for the keys and values of so many texts; see `fits`."""
        shape, ids = model.config, torch.arange(model.config.vocab_size)
        self.model, self.lengths = model, np.zeros(texts, np.int64)
        self._tokens, self._positions = model.token_embedding(ids).numpy(), model.position_embedding.weight.numpy()
        self._blocks, self._caches = [], []
        for block in model.blocks:
            self._blocks.append((_norm(block.attention_norm), _norm(block.mlp_norm), *map(_matrix, _layers(block))))
            inner, width = weight_shape(block.attention.qkv)[0] // 3, block.attention.head_width
            self._caches.append(np.zeros((2, texts, inner // width, width, shape.context), np.float32))
        head = model.token_embedding.weight if shape.tied else _float_weight(model.unembedding)
        bias = None if shape.tied else model.unembedding.bias
        self._head = _norm(model.final_norm), _matrix_of(head, bias)

    def begin(self, text: int, tokens: Tensor) -> Tensor | None:
        """Begin a text anew with tokens (T,): logits (V,) of what comes after them, None after none.

        They are read in one pass of the model.
        """
        self.lengths[text] = len(tokens)
        if not len(tokens):
            return None
        cache = KVCache(self.model.config.layers)
        logits = self.model(tokens[None], cache)[0, -1]
        for mine, *kept in zip(self._caches, cache.keys, cache.values, strict=True):
            for place, tensor in zip(mine, kept, strict=True):
                place[text, :, :, : len(tokens)] = tensor[0].mT
        return logits

    def __call__(self, tokens: list[int]) -> Tensor:
        """Read one more token of each text, none of which fills the context: ids (B,) -> logits (B, V)."""
        x = self._tokens[tokens] + self._positions[self.lengths]  # (B, width)
        logits = np.empty((len(x), len(self._tokens)), np.float32)
        for arrays, cache in zip(self._blocks, self._caches, strict=True):
            _block(x, self.lengths, cache, *arrays)
        _product(normed(x, *self._head[0]), *self._head[1], logits)
        self.lengths += 1
        return torch.from_numpy(logits)


def fits(model: nn.Module) -> bool:
    """Whether a `Step` computes what a model does: a GPT in float32 on the CPU, without hooks and dropout."""
    return (
        type(model) is GPT and not (model.training and model.config.dropout)
        and all((type(block), type(block.attention), type(block.mlp)) == (Block, Attention, MLP)
                for block in model.blocks)
        and all(is_known(layer) for block in model.blocks for layer in _layers(block))
        and (model.config.tied or is_known(model.unembedding))
        and all(getattr(table, "dtype", torch.float32) == torch.float32  # packed ones say in what they are decoded
                for table in (model.token_embedding, model.position_embedding))
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in model.parameters())
        and not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    )


# ---- weights as arrays ----


def _layers(block: Block) -> tuple[nn.Module, ...]:
    return block.attention.qkv, block.attention.out, block.mlp.up, block.mlp.down


def is_known(layer: nn.Module) -> bool:
    """Whether a layer multiplies by a weight that it can tell, and does nothing else."""
    if isinstance(layer, HadamardLinear):
        return is_known(layer.base)
    if isinstance(layer, QuantLinear):
        return not isinstance(layer.kernel, IntegerKernel)
    return type(layer) is nn.Linear or hasattr(layer, "dequantize")


def _matrix(layer: nn.Module) -> tuple:
    """What `_product` takes of a layer."""
    rows, columns = weight_shape(layer)
    if isinstance(layer, QuantLinear) and layer.order is None and (backend := weight_only(layer)):
        kernel = layer.kernel or Kernel.of(layer, backend)
        return np.empty((0, 0), np.float32), *kernel.arrays, _bias(layer.bias, rows)
    return _matrix_of(_float_weight(layer), layer(torch.zeros(1, columns))[0])


def _matrix_of(weight: Tensor, bias: Tensor | None) -> tuple:
    none = np.empty((0, 0), np.float32)
    return weight.contiguous().numpy(), np.empty((0, 0, 0), np.uint32), 0, none, none, 0, _bias(bias, len(weight))


def _bias(bias: Tensor | None, rows: int) -> np.ndarray:
    return np.zeros(rows, np.float32) if bias is None else bias.detach().float().numpy()


def _float_weight(layer: nn.Module) -> Tensor:
    """The weight (out, in), also of a layer that turns its inputs."""
    if isinstance(layer, HadamardLinear):
        return layer.turn.inverse(_float_weight(layer.base))
    return layer.weight if type(layer) is nn.Linear else layer.dequantize()


def _norm(norm: nn.LayerNorm | nn.RMSNorm) -> tuple:
    """What `normed` takes of a norm: whether it subtracts the mean, its weight and bias, and what it adds below."""
    width = norm.normalized_shape[0]
    weight, bias = norm.weight, getattr(norm, "bias", None)
    return (isinstance(norm, nn.LayerNorm), np.ones(width, np.float32) if weight is None else weight.numpy(),
            np.zeros(width, np.float32) if bias is None else bias.numpy(), np.float32(norm.eps))


# ---- the loops; x (B, width) ----


@compiled
def _block(x, lengths, cache, norm1, norm2, qkv, out, up, down):
    """`Block.forward` of the last token of each text, in place; cache (2, B, heads, head width, context)."""
    inside = _new(x, qkv)
    _product(normed(x, *norm1), *qkv, inside)
    heads = _attended(inside, lengths, cache)
    written = np.empty_like(x)
    _product(heads, *out, written)
    x += written
    inside = _new(x, up)
    _product(normed(x, *norm2), *up, inside)
    _gelu(inside)
    _product(inside, *down, written)
    x += written


@compiled
def _new(x, matrix):
    return np.empty((len(x), len(matrix[-1])), _f32)


@compiled
def _product(x, weight, codes, bits, scale, zero, group, bias, y):
    """Multiply x (B, in) by a float weight (out, in), or codes, and add a bias: into y (B, out)."""
    if not bits:
        float_rows(weight, x, y)
    else:
        weight_only_rows(0, y.shape[1], codes, bits, scale, zero, group, x, y)
    y += bias


@compiled(fastmath=FAST)
def normed(x, centred, weight, bias, eps):
    """LayerNorm of x (B, width), or where it is not centred RMSNorm."""
    y = np.empty_like(x)
    for b in range(len(x)):
        mean, square = _f32(0), _f32(0)
        if centred:
            for k in range(len(weight)):
                mean += x[b, k]
            mean /= _f32(len(weight))
        for k in range(len(weight)):
            square += (x[b, k] - mean) * (x[b, k] - mean)
        factor = _f32(1) / np.sqrt(square / _f32(len(weight)) + eps)
        for k in range(len(weight)):
            y[b, k] = (x[b, k] - mean) * factor * weight[k] + bias[k]
    return y


@compiled
def _attended(qkv, lengths, cache):
    """Attention of one token of each text to itself and those before: qkv (B, 3 inner) -> (B, inner)."""
    inner = qkv.shape[1] // 3
    y = np.empty((len(qkv), inner), _f32)
    for b in range(len(qkv)):
        q, k, v = qkv[b, :inner], qkv[b, inner : 2 * inner], qkv[b, 2 * inner :]
        attend(q, k, v, lengths[b], cache[0, b], cache[1, b], y[b])
    return y


@compiled
def attend(q, k, v, n, keys, values, y):
    """Attention of token n of a text to itself and those before: q (inner,) -> y (inner,).

    Its key k and value v go into the caches (heads, width, context), each head of which serves as many queries.
    """
    heads, width, _ = keys.shape
    scores, each = np.empty(n + 1, _f32), len(q) // heads
    for h in range(heads):
        for d in range(width):
            keys[h, d, n] = k[h * width + d]
            values[h, d, n] = v[h * width + d]
        for first in range(h * each, (h + 1) * each, width):
            _softmax(q[first : first + width], keys[h], scores)
            _weighted(values[h], scores, y[first : first + width])


@compiled(fastmath=FAST)
def _softmax(q, keys, scores):
    """How much of each token a query (width,) takes: keys (width, context), scores (n,) add up to 1."""
    scores[:] = 0
    for d in range(len(q)):
        for t in range(len(scores)):
            scores[t] += q[d] * keys[d, t]
    scale, most = _f32(1) / np.sqrt(_f32(len(q))), scores.max()
    total = _f32(0)
    for t in range(len(scores)):
        scores[t] = exp((scores[t] - most) * scale)
        total += scores[t]
    for t in range(len(scores)):
        scores[t] /= total


@compiled(fastmath=FAST)
def _weighted(values, scores, y):
    """The first values of (width, context) times scores (n,), into y (width,)."""
    for d in range(len(y)):
        total = _f32(0)
        for t in range(len(scores)):
            total += values[d, t] * scores[t]
        y[d] = total


@compiled(fastmath=FAST)
def _gelu(x):
    """GELU in place: x * (1 + erf(x / sqrt(2))) / 2, with erf by formula 7.1.26 of Abramowitz and Stegun, to 2e-7."""
    for b in range(len(x)):
        for k in range(x.shape[1]):
            size = abs(x[b, k])
            z = size * _SQRT_HALF
            t = _f32(1) / (_f32(1) + _f32(0.3275911) * z)
            series = t * (_f32(0.254829592) + t * (_f32(-0.284496736) + t * (
                _f32(1.421413741) + t * (_f32(-1.453152027) + t * _f32(1.061405429)))))
            erf = _f32(1) - series * exp(-z * z)
            x[b, k] = _f32(0.5) * (x[b, k] + size * erf)  # without a branch, so that it runs in many lanes


@compiled(fastmath=FAST)
def exp(x):
    """e^x for x <= 0, to about 1e-7 of it: 2^n times a series, so that a loop of it runs in many lanes."""
    x = max(x, _f32(-87))  # below it, no float32 that is not tiny
    n = np.floor(x / _LN2 + _f32(0.5))
    r = x - n * _LN2
    series = _f32(1) + r * (_f32(1) + r * (_f32(1 / 2) + r * (_f32(1 / 6) + r * (
        _f32(1 / 24) + r * (_f32(1 / 120) + r * _f32(1 / 720))))))
    return series * _i32(_i32(_i32(n) + _i32(127)) << _i32(23)).view(_f32)
