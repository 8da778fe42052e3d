"""One token of a text through a model of Llama's kind, without the operators of transformers.

At one token those take as long as the products with 4-bit codes. The model's `forward` is what says what is computed;
`nanoq.hf.tasks.stream_tokens` comes here where that gives the same, and tests compare the two. Layers of evenly spaced
codes are multiplied by their codes (`nanoq.quant.kernels`), all others multiply as they do in the model.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from nanoq.compiled import compiled
from nanoq.quant.embeddings import TiedHead
from nanoq.quant.kernels import Kernel, weight_only
from nanoq.quant.kernels.loops import FAST
from nanoq.quant.kernels.step import attend, exp, is_known, normed
from nanoq.quant.qlinear import QuantLinear

MODELS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
ROPES = ("default", "linear", "llama3", "yarn")  # whose angles do not depend on how long the text is
ROOM = 256  # tokens that there is room for at first
_f32 = np.float32


class LlamaStep:
    """Reads a text token by token, and keeps its keys and values.

    Attributes:
        length: tokens read.
    """

    def __init__(self, model: nn.Module):
        """Lay out the weights of a model of transformers; see `fits`."""
        self.model, self.length, self._caches = model, 0, []
        self._blocks = [_Block(block) for block in model.model.layers]
        self._norm, self._head = _norm(model.model.norm), _product(model.lm_head)

    def begin(self, tokens: Tensor) -> Tensor:
        """Begin a text with tokens (T,), read in one pass of the model: logits (V,) of what comes after them."""
        output = self.model(input_ids=tokens[None], use_cache=True, logits_to_keep=1)
        self.length, self._caches = len(tokens), []
        for layer in output.past_key_values.layers:
            self._caches.append(torch.stack((layer.keys[0], layer.values[0])).mT.contiguous().numpy())
        self._grow(max(ROOM, 2 * self.length))
        return output.logits[0, -1]

    def __call__(self, token: int) -> Tensor:
        """Read one more token: logits (V,) of what comes after it."""
        if self.length == len(self._cos):
            self._grow(2 * self.length)
        x = self.model.model.embed_tokens(torch.tensor([token])).numpy()  # (1, width)
        angles = self._cos[self.length], self._sin[self.length]
        for block, cache in zip(self._blocks, self._caches, strict=True):
            block(x, self.length, angles, cache)
        self.length += 1
        return torch.from_numpy(self._head(normed(x, *self._norm))[0])

    def _grow(self, room: int) -> None:
        """Make room for the keys and values of so many tokens, and for their angles."""
        for i, old in enumerate(self._caches):
            self._caches[i] = np.zeros((*old.shape[:3], room), np.float32)  # (2, heads, head width, tokens)
            self._caches[i][..., : self.length] = old[..., : self.length]
        angles = self.model.model.rotary_emb(torch.empty(0), torch.arange(room)[None])
        self._cos, self._sin = (part[0].numpy() for part in angles)


def fits(model: nn.Module) -> bool:
    """Whether a `LlamaStep` computes what a model of transformers does: in float32 on the CPU, with full attention."""
    config = getattr(model, "config", None)
    return (
        type(model).__name__ in MODELS and type(model).__module__.startswith("transformers.models.")
        and config.hidden_act == "silu" and model.model.rotary_emb.rope_type in ROPES
        and not getattr(config, "sliding_window", None) and not model.training
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in model.parameters())
        and all(_is_plain(layer) for block in model.model.layers for layer in _layers(block).values())
        and _is_plain(model.lm_head) and not any(map(_has_hooks, model.modules()))
    )


# ---- weights as arrays ----


def _layers(block: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a block, by what transformers calls them."""
    attention, mlp = block.self_attn, block.mlp
    return {name: getattr(attention, f"{name}_proj") for name in "qkvo"} | {
        name: getattr(mlp, f"{name}_proj") for name in ("gate", "up", "down")}


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer multiplies by its weight, and does nothing else."""
    return is_known(layer.table if isinstance(layer, TiedHead) else layer)


def _has_hooks(module: nn.Module) -> bool:
    """Whether somebody else than `HFModel` wants to know when a module runs."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return not all(getattr(hook, "func", hook).__module__ == "nanoq.hf.model" for hook in hooks)


def _norm(norm: nn.Module) -> tuple:
    """What `normed` takes of an RMSNorm of transformers."""
    weight = norm.weight.detach().numpy()
    return False, weight, np.zeros_like(weight), _f32(norm.variance_epsilon)


def _product(layer: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """The product with a layer's weight, (1, in) -> (1, out): by codes where a kernel can, or else by the layer."""
    base = layer.table if isinstance(layer, TiedHead) else layer
    if not (isinstance(base, QuantLinear) and base.order is None and (backend := weight_only(base))):
        return lambda x: layer(torch.from_numpy(x)).numpy()
    product = (base.kernel or Kernel.of(base, backend)).product
    if layer.bias is None:
        return product
    bias = layer.bias.detach().float().numpy()
    return lambda x: product(x) + bias


class _Block:
    """A block of one token."""

    def __init__(self, block: nn.Module):
        self.norm1, self.norm2 = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        products = {name: _product(layer) for name, layer in _layers(block).items()}
        self.q, self.k, self.v, self.o, self.gate, self.up, self.down = products.values()

    def __call__(self, x: np.ndarray, n: int, angles: tuple[np.ndarray, np.ndarray], cache: np.ndarray) -> None:
        """Add what the block gives for token n to x (1, width), in place; its key and value go into the cache."""
        h = normed(x, *self.norm1)
        q, k, v = self.q(h), self.k(h), self.v(h)
        for turned in (q, k):
            _turn(turned.reshape(-1, cache.shape[2]), *angles)
        heads = np.empty_like(q)
        attend(q[0], k[0], v[0], n, cache[0], cache[1], heads[0])
        x += self.o(heads)
        h = normed(x, *self.norm2)
        gate = self.gate(h)
        _swiglu(gate, self.up(h))
        x += self.down(gate)


# ---- loops ----


@compiled(fastmath=FAST)
def _turn(x, cos, sin):
    """Rotary positions, in place: x (heads, width), cos and sin (width,)."""
    half = x.shape[1] // 2
    for h in range(len(x)):
        for d in range(half):
            a, b = x[h, d], x[h, d + half]
            x[h, d] = a * cos[d] - b * sin[d]
            x[h, d + half] = b * cos[d + half] + a * sin[d + half]


@compiled(fastmath=FAST)
def _swiglu(gate, up):
    """silu(gate) * up, into gate (1, inner)."""
    for k in range(gate.shape[1]):
        z = gate[0, k]
        small = exp(-abs(z))
        gate[0, k] = z * up[0, k] * (_f32(1) if z >= 0 else small) / (_f32(1) + small)
