"""Rotations: a model whose residual stream is turned by a random orthonormal matrix, and that computes the same.

After QuaRot (Ashkboos et al. 2024, arXiv 2404.00456, section 4). Vectors of a rotated stream have no outlying channels,
and weights that read or write it are nearer to Gaussian ones, so both are rounded with less error.

A norm that divides by the root mean square commutes with a rotation when it has no weights. So these are folded into
the linear layers that read it. LayerNorm subtracts the mean over channels as well, which does not commute: the mean is
taken out of everything that writes to the stream instead, once and for all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nanoq.lm.model import GPT, make_norm
from nanoq.quant.embeddings import factor_of
from nanoq.quant.hadamard import RandomHadamard, core_size
from nanoq.quant.online import HadamardLinear
from nanoq.store import naming, some

LLAMA_BLOCK = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
HEAD_NORMS = ("q_norm", "k_norm")  # of each head's queries and keys: after their layers, so they do not see the stream


@dataclass
class Values:
    """The values of a block's attention heads: some rows of a layer write them, another layer reads them.

    Attributes:
        writer: its last rows, as many as `count`, are the values of one head after the other.
        count: of them.
        reader: reads what attention makes of the values; a head of queries may share the values of another.
        width: of a head.
    """

    writer: nn.Linear
    count: int
    reader: nn.Linear
    width: int


@dataclass
class Stream:
    """What reads and writes the residual stream of a model.

    Attributes:
        width: of the stream.
        tables: embeddings, whose rows start it.
        reads: norms, with the layers that read each.
        writes: layers that add to it.
        values: of each block.
        downs: of each block its MLP and the name of that layer in it which writes the stream.
    """

    width: int
    tables: list[nn.Embedding]
    reads: list[tuple[nn.Module, list[nn.Linear]]] = field(default_factory=list)
    writes: list[nn.Linear] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    downs: list[tuple[nn.Module, str]] = field(default_factory=list)


@torch.no_grad()
def rotate(model: nn.Module, seed: int = 0, online: bool = False) -> None:
    """Rotate a model in place, before it is quantised: its logits stay the same but for floating-point rounding.

    The stream is turned by one random Hadamard matrix, the values of a block's heads by another of a head's width. The
    head has a weight of its own afterwards, because the final norm's weight goes into it and not into the token
    embedding: one more matrix (vocabulary, width) in the file, 2 bytes a number.

    Args:
        model: a GPT, or an `HFModel` of Llama's kind: Llama, Mistral, Qwen2, Qwen3 and whatever has their blocks.
        seed: of the signs.
        online: whether the input of each MLP's second matrix is turned as well, by a fast transform in every call
            (`HadamardLinear`): nothing before it could do so, because the activation function stands between.

    Raises:
        ValueError: if the model is of another kind, quantised or rotated already, or there is no Hadamard matrix of a
            width. Nothing is changed then. Or a model of transformers has given other outputs afterwards.
    """
    if any(hasattr(module, "layout") for module in model.modules()):
        raise ValueError("the model is quantised, compressed or rotated already: rotate the one that it was made from")
    ours = isinstance(model, GPT)
    stream = _stream_of_gpt(model) if ours else _stream_of_llama(model)
    _check_sizes(stream, online)
    if ours:
        stream.reads.append((model.final_norm, [_own_head_of_gpt(model)]))
        with _in_float32(model):
            _turn(stream, seed, online, centred=True)
        model.config = replace(model.config, norm="rms", tied=False)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.LayerNorm):
                model.set_submodule(name, make_norm(model.config))
        return
    stream.reads.append((model.model.base_model.norm, [_own_head_of_llama(model.model)]))
    with _in_float32(model):
        before = model(model.sample())
        _turn(stream, seed, online, centred=False)
        same = torch.allclose(model(model.sample()), before, rtol=0, atol=0.01 * float(before.abs().max()))
    if not same:
        raise ValueError(f"a rotated {type(model.model).__name__} computes something else, so its blocks do more than "
                         "their layers show: it cannot be rotated; load it again")


@contextmanager
def _in_float32(model: nn.Module) -> Iterator[None]:
    """Have parameters of 16 bits in float32 meanwhile: in bfloat16 two ways to the same logits cannot be compared."""
    narrow = [(parameter, parameter.dtype) for parameter in model.parameters() if parameter.dtype.itemsize == 2]
    for parameter, _ in narrow:
        parameter.data = parameter.data.float()
    yield
    for parameter, dtype in narrow:
        parameter.data = parameter.data.to(dtype)


def _check_sizes(stream: Stream, online: bool) -> None:
    """Raise a ValueError unless there is a Hadamard matrix for every width that is turned."""
    sizes = {"the residual stream": {stream.width}, "an attention head": {v.width for v in stream.values}}
    if online:
        sizes["the input of an MLP's second matrix"] = {
            mlp.get_submodule(name).in_features for mlp, name in stream.downs}
    for what, found in sizes.items():
        for size in found:
            with naming(what):
                core_size(size)


def _turn(stream: Stream, seed: int, online: bool, centred: bool) -> None:
    """Rotate whatever touches a stream; `centred` takes the mean over channels out of it, too."""
    generator = torch.Generator().manual_seed(seed)
    turn = RandomHadamard.draw(stream.width, generator)

    def written(x: Tensor) -> Tensor:
        return turn(x - x.mean(-1, keepdim=True) if centred else x)

    for table in stream.tables:
        table.weight.copy_(written(table.weight.double()))
    for norm, layers in stream.reads:
        for layer in layers:
            _fold(norm, layer)
            layer.weight.copy_(turn(layer.weight.double()))
        norm.weight.fill_(1)
    for layer in stream.writes:
        _turn_outputs(layer, written)
    for values in stream.values:
        _turn_values(values, RandomHadamard.draw(values.width, generator))
    for mlp, name in stream.downs if online else ():
        layer = mlp.get_submodule(name)
        mlp.set_submodule(name, HadamardLinear.turned(layer, RandomHadamard.draw(layer.in_features, generator)))


def _fold(norm: nn.Module, layer: nn.Linear) -> None:
    """Multiply the columns of a layer by the weights of the norm that it reads, and add what it makes of their bias."""
    weight = layer.weight.double()
    if getattr(norm, "bias", None) is not None:
        layer.bias.copy_(layer.bias.double() + weight @ norm.bias.double())
    layer.weight.copy_(weight * norm.weight.double())


def _turn_outputs(layer: nn.Linear, turn: Callable[[Tensor], Tensor]) -> None:
    """Turn the vectors that a layer gives: the columns of its weight, and its bias."""
    layer.weight.copy_(turn(layer.weight.double().T).T)
    if layer.bias is not None:
        layer.bias.copy_(turn(layer.bias.double()))


def _turn_values(values: Values, turn: RandomHadamard) -> None:
    """Turn the values of each head, and turn them back where they are read."""
    for rows in (values.writer.weight, values.writer.bias):
        if rows is not None:
            last = rows[-values.count:].double().view(-1, values.width, *rows.shape[1:])  # (heads, head width, ...)
            rows[-values.count:] = turn(last.movedim(1, -1)).movedim(-1, 1).flatten(0, 1).to(rows)
    weight = values.reader.weight
    weight.copy_(turn(weight.double().unflatten(1, (-1, values.width))).flatten(1))


# ---- what a model has ----


def _stream_of_gpt(model: GPT) -> Stream:
    """The stream of a GPT, but for its head.

    Raises:
        ValueError: if it is rotated already.
    """
    if model.config.norm != "layer":
        raise ValueError("the model is rotated already: rotate the one that it was made from")
    stream = Stream(model.config.width, [model.token_embedding, model.position_embedding])
    for block in model.blocks:
        attention, mlp = block.attention, block.mlp
        stream.reads += (block.attention_norm, [attention.qkv]), (block.mlp_norm, [mlp.up])
        stream.writes += attention.out, mlp.down
        stream.values.append(Values(attention.qkv, attention.out.in_features, attention.out, attention.head_width))
        stream.downs.append((mlp, "down"))
    return stream


def _own_head_of_gpt(model: GPT) -> nn.Linear:
    """The head of a GPT, which has a weight of its own from now on."""
    if model.config.tied:
        table = model.token_embedding.weight
        head = nn.Linear(*table.shape[::-1], bias=False, device="meta")  # draws no random numbers
        head.weight = nn.Parameter(table.detach().clone(), table.requires_grad)
        head.bias = nn.Parameter(table.new_zeros(len(table))) if model.config.bias else None
        model.unembedding = head
    return model.unembedding


def _stream_of_llama(model: nn.Module) -> Stream:
    """The stream of a model of transformers, but for its head, if its blocks are Llama's and nothing else touches it.

    Raises:
        ValueError: if it is of another kind.
    """
    inner = getattr(model, "model", model)
    refusal = (f"a {type(inner).__name__} cannot be rotated exactly: only a GPT of nanoq can, and a causal language "
               "model with the blocks of Llama (RMSNorm, then q, k, v and o; RMSNorm, then gate, up and down)")
    if getattr(model, "kind", None) != "causal-lm":
        raise ValueError(refusal)
    table, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    final = getattr(inner.base_model, "norm", None)
    if not (isinstance(table, nn.Embedding) and factor_of(table) is not None and type(head) is nn.Linear
            and _is_rms(final)):
        raise ValueError(refusal)
    stream, known = Stream(table.embedding_dim, [table]), [table, head, final]
    for block in model.blocks:
        if {name for name, _ in block.named_children()} != LLAMA_BLOCK:
            raise ValueError(refusal)
        attention, mlp, norms = block.self_attn, block.mlp, (block.input_layernorm, block.post_attention_layernorm)
        layers = [getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
        layers += [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        if not all(type(layer) is nn.Linear for layer in layers) or not all(map(_is_rms, norms)):
            raise ValueError(refusal)
        q, k, v, o, gate, up, down = layers
        stream.reads += (norms[0], [q, k, v]), (norms[1], [gate, up])
        stream.writes += o, down
        stream.values.append(Values(v, v.out_features, o, attention.head_dim))
        stream.downs.append((mlp, "down_proj"))
        known += [*layers, *norms, *(getattr(attention, name) for name in HEAD_NORMS if hasattr(attention, name))]
    parameters = {id(parameter) for module in known for parameter in module.parameters()}
    if rest := [name for name, parameter in inner.named_parameters() if id(parameter) not in parameters]:
        raise ValueError(f"{refusal}; here {some(rest)} would be left over")
    return stream


def _own_head_of_llama(inner: nn.Module) -> nn.Linear:
    """The head of a model of transformers, which has a weight of its own from now on."""
    head = inner.get_output_embeddings()
    if head.weight is inner.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), head.weight.requires_grad)
        inner.config.tie_word_embeddings, inner.all_tied_weights_keys = False, {}
    return head


def _is_rms(norm: nn.Module | None) -> bool:
    """Whether a norm multiplies x / rms(x) by its weights: Gemma's by 1 more, LayerNorm subtracts the mean."""
    if norm is None or {name for name, _ in norm.named_parameters()} != {"weight"}:
        return False
    norm = deepcopy(norm).float()
    x = torch.linspace(-1, 3, norm.weight.numel()).to(norm.weight)
    expected = norm.weight * x / x.square().mean().sqrt()
    return torch.allclose(norm(x), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
