"""Whole models of transformers as GGUF files that llama.cpp runs: its names, metadata, order of rows and vocabulary.

The block types are in `nanoq.quant.gguf_format`. Of the architectures of llama.cpp there are llama, qwen2, qwen3 and
gpt2. llama.cpp rotates neighbouring pairs of a head's rows in `llama`, and transformers the first half against the
second: so the rows of q and k are reordered there, whole rows, which leaves their blocks as they are.

Source: `conversion/llama.py`, `qwen.py` and `gpt2.py` of llama.cpp (July 2026), and the constants of `gguf` 0.19.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nanoq.lm.model import GPT
from nanoq.quant.embeddings import packed_tables
from nanoq.quant.foreign import Source, plain_tensors, quantised_layers, source_of
from nanoq.quant.gguf_format import block_type, blocks_of, gguf_package, write_gguf, write_plain_gguf
from nanoq.quant.gguf_tokenizer import Vocabulary, vocabulary_of
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import Checkpoint, as_float16

ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
                 "Qwen3ForCausalLM": "qwen3", "GPT2LMHeadModel": "gpt2"}
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8}
SCALED = ("llama3", "linear")  # rotary positions whose frequencies are divided, each by a factor of its own
IN_FLOAT32 = "wpe"  # positions: llama.cpp's own converter keeps them so, as vectors


def export_gguf(path: Path | str, model: Checkpoint | nn.Module, metadata: dict | None = None) -> Path:
    """Write a model as a GGUF file; the quantised weights keep every bit wherever a type of the format has them.

    A model of transformers of one of the `ARCHITECTURES` is written so that llama.cpp runs it, and
    `from_pretrained(folder, gguf_file=...)` of transformers loads it, with the vocabulary of a checkpoint's tokeniser.
    Layers become Q4_0, Q4_1, Q5_0 or Q8_0, the smallest that holds their grid, and F16 where none does (`check_export`
    says so before); other matrices F16, vectors and positions F32, a tied parameter once.

    Any other model is written under its own names, for llama.cpp's tools to show: they do not run it. Then a layer that
    no type holds is an error.

    Args:
        path: of the file, `NAME.gguf`.
        model: a checkpoint, an `HFModel`, a model of transformers or any other, with or without `QuantLinear` layers.
        metadata: more keys and values for the header: str, bool, int (0 to 2**32 - 1), float, or a list of one of them.
            "general.architecture" of a model that llama.cpp does not know is "nanoq" without it.

    Raises:
        ValueError: if the package gguf is missing, llama.cpp does not compute what the model does or has no such
            tokeniser, a parameter does not fit its type, or the metadata has a value of another kind.
    """
    gguf_package()
    source = source_of(model)
    if source.config is None:
        return write_plain_gguf(path, source.model, metadata)
    if problem := gguf_model_problem(source.model):
        raise ValueError(f"the model cannot be written in GGUF: it {problem}")
    size = source.model.get_input_embeddings().num_embeddings
    vocabulary = None if source.tokenizer is None else vocabulary_of(source.tokenizer, size)
    tensors = list(_tensors(source))
    kinds = Counter(kind or "F16" for _, array, kind in tensors if array.ndim == 2)
    header = _header(source, size) | {"general.file_type": FILE_TYPES[kinds.most_common(1)[0][0]]} | (metadata or {})
    return write_gguf(path, header, tensors, lambda writer: _write_vocabulary(writer, vocabulary))


def gguf_model_problem(model: nn.Module) -> str | None:
    """What keeps a model from being one that llama.cpp runs, in words that follow "it"; None if nothing does."""
    name, config = type(model).__name__, getattr(model, "config", None)
    if isinstance(model, GPT):
        return ("is a GPT of nanoq, which has the exact GELU (by erf), and llama.cpp's gpt2 computes the tanh form: no "
                "architecture there is the same")
    if name not in ARCHITECTURES:
        return f"is a {name}, and nanoq writes {', '.join(ARCHITECTURES)} for llama.cpp"
    gpt2 = ARCHITECTURES[name] == "gpt2"
    activation = config.activation_function if gpt2 else config.hidden_act
    if activation not in (("gelu_new", "gelu_pytorch_tanh") if gpt2 else ("silu",)):
        return f"has the activation {activation!r:.40}, which llama.cpp's {ARCHITECTURES[name]} does not"
    if gpt2:
        odd = config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights
        return "scales attention in a way that llama.cpp's gpt2 does not" if odd else None
    rope = config.rope_parameters.get("rope_type", "default")
    if rope not in (("default", *SCALED) if ARCHITECTURES[name] == "llama" else ("default",)):
        return f"scales its rotary positions ({rope!r:.40}), which nanoq does not write for {ARCHITECTURES[name]}"
    window = getattr(config, "sliding_window", None)
    windowed = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if windowed or (name == "MistralForCausalLM" and window and window < config.max_position_embeddings):
        return f"attends to a sliding window of {window} tokens, which llama.cpp's {ARCHITECTURES[name]} does not"
    return None


def _header(source: Source, size: int) -> dict:
    """The metadata that llama.cpp builds a model from."""
    config, arch = source.model.config, ARCHITECTURES[type(source.model).__name__]
    header = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "vocab_size": size,
        "attention.head_count": config.num_attention_heads,
    }
    if arch == "gpt2":
        header |= {"feed_forward_length": config.n_inner or 4 * config.n_embd,
                   "attention.layer_norm_epsilon": float(config.layer_norm_epsilon)}
    else:
        head = _head_size(config)
        header |= {
            "feed_forward_length": config.intermediate_size, "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps), "attention.key_length": head,
            "attention.value_length": head, "rope.dimension_count": head,
            "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        }
    name = Path(str(source.card.get("source") or type(source.model).__name__)).name
    return {"general.architecture": arch, "general.name": name} | {f"{arch}.{key}": v for key, v in header.items()}


def _head_size(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _write_vocabulary(writer, vocabulary: Vocabulary | None) -> None:
    if vocabulary is None:
        writer.add_tokenizer_model("none")
    else:
        vocabulary.write(writer)


def _tensors(source: Source) -> Iterator[tuple[str, np.ndarray, str | None]]:
    """Every tensor by llama.cpp's name: a quantised layer as bytes of a block type."""
    gguf, model = gguf_package(), source.model
    arch = ARCHITECTURES[type(model).__name__]
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    layers = quantised_layers(model) | block_tables(model)
    if has_scaled_positions(model):
        yield "rope_freqs.weight", _frequency_factors(model), None
    for name, layer in layers.items():
        rows = _rows(name, model.config, len(layer.codes)) if arch == "llama" else slice(None)
        yield _name(names, f"{name}.weight"), *_weight(name, layer, rows)
        if layer.bias is not None:
            yield _name(names, f"{name}.bias"), layer.bias.detach().cpu().numpy()[rows], None
    for name, tensor in plain_tensors(model, layers, lambda _, tensor: tensor).items():
        rows = _rows(name.rpartition(".")[0], model.config, len(tensor)) if arch == "llama" else slice(None)
        if type(model.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D" and tensor.dim() == 2:
            tensor = tensor.T.contiguous()  # a GPT-2 that no HFModel was made of
        keep = tensor.dim() < 2 or name.split(".")[-2] == IN_FLOAT32
        yield _name(names, name), (tensor.float() if keep else as_float16(name, tensor)).numpy()[rows], None


def block_tables(model: nn.Module) -> dict[str, QuantLinear]:
    """The packed embeddings and head that a file has as blocks, by name."""
    return {name: table for name, table in packed_tables(model).items() if name.rpartition(".")[2] != IN_FLOAT32}


def unread_by_transformers(model: nn.Module) -> list[str]:
    """What of a configuration transformers sets to its usual value when it reads GGUF (found by trying version 5)."""
    config = model.config
    found = {
        "that layers have biases": getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False),
        "the width of heads": config.model_type == "qwen3" and config.head_dim != 128,
        "the length of the context": config.model_type == "gpt2" and config.n_positions != 1024,
        "the width of MLPs": config.model_type == "gpt2" and config.n_inner not in (None, 4 * config.n_embd),
    }
    return [what for what, is_so in found.items() if is_so]


def has_scaled_positions(model: nn.Module) -> bool:
    """Whether the frequencies of the rotary positions are not those that their base gives."""
    return (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") in SCALED


def _frequency_factors(model: nn.Module) -> np.ndarray:
    """What the rotary frequencies of the base have been divided by: float32 (head / 2,)."""
    size, base = _head_size(model.config), model.config.rope_parameters["rope_theta"]
    plain = 1 / base ** (torch.arange(0, size, 2) / size)
    return (plain / model.model.rotary_emb.inv_freq.cpu()).float().numpy()


def _weight(name: str, layer: QuantLinear, rows: np.ndarray | slice) -> tuple[np.ndarray, str | None]:
    """A quantised weight as blocks of its type, or in float16 where none holds it."""
    kind = block_type(layer)
    if kind is None:
        return as_float16(f"{name}.weight", layer.dequantize()).cpu().numpy()[rows], None
    return blocks_of(layer, kind)[rows], kind


def _name(names, name: str) -> str:
    """llama.cpp's name of a tensor.

    Raises:
        ValueError: if it has none, as for a layer that was added to the model.
    """
    stem, _, suffix = name.rpartition(".")
    found = names.get_name(stem)
    if found is None:
        raise ValueError(f"llama.cpp has no tensor {name:.80} in this architecture: is the model changed?")
    return f"{found}.{suffix}"


def _rows(name: str, config, rows: int) -> np.ndarray | slice:
    """The rows of q and k in the order of llama.cpp's `llama`: pairs that are rotated together are neighbours."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.rpartition(".")[2])
    if heads is None:
        return slice(None)
    return torch.arange(rows).view(heads, 2, -1).transpose(1, 2).flatten().numpy()
