"""Models of the package transformers in the form that the driver asks for: `embed`, `blocks` and `head`."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nanoq.lm.model import check_tokens


class Architecture(NamedTuple):
    """What has to be known of a class of transformers.

    Attributes:
        kind: "causal-lm" (logits of the next token), "masked-lm" (of the token itself) or "encoder" (hidden states).
        blocks: where its blocks are.
        tail: where the modules are that follow the last block, in order. One that a model does without is None there.
    """

    kind: str
    blocks: str
    tail: tuple[str, ...] = ()


_OPT = Architecture("causal-lm", "model.decoder.layers",
                    ("model.decoder.final_layer_norm", "model.decoder.project_out", "lm_head"))
_GPT2 = Architecture("causal-lm", "transformer.h", ("transformer.ln_f", "lm_head"))
_LLAMA = Architecture("causal-lm", "model.layers", ("model.norm", "lm_head"))
_BERT = Architecture("masked-lm", "bert.encoder.layer", ("cls",))
_ROBERTA = Architecture("masked-lm", "roberta.encoder.layer", ("lm_head",))
_ENCODER = Architecture("encoder", "encoder.layer")

# By the name of the class. Another model with the same parts is one more entry.
ARCHITECTURES = {
    "OPTForCausalLM": _OPT, "GPT2LMHeadModel": _GPT2,
    "LlamaForCausalLM": _LLAMA, "MistralForCausalLM": _LLAMA, "Qwen2ForCausalLM": _LLAMA, "Qwen3ForCausalLM": _LLAMA,
    "BertForMaskedLM": _BERT, "RobertaForMaskedLM": _ROBERTA, "XLMRobertaForMaskedLM": _ROBERTA,
    "BertModel": _ENCODER, "RobertaModel": _ENCODER, "XLMRobertaModel": _ENCODER,
}


def architecture(name: str) -> Architecture:
    """What is known of a class of transformers.

    Raises:
        ValueError: with the names that there are.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"{name} is not supported: there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


@dataclass(frozen=True)
class HFConfig:
    """What the package asks of a model's configuration; that of transformers is `HFModel.model.config`.

    Attributes:
        context: the longest sequence the model can read, in tokens.
    """

    context: int


class HFModel(nn.Module):
    """A model of transformers as `embed`, `blocks` and `head`, for `quantize_model` and all that is built on it.

    It shares its modules with the model that it is made of, which goes on working: when a layer `blocks.0.fc1` is
    quantised here, `model.generate(...)` and `export_gptq(folder, model)` have it too. That model is changed at once in
    two ways. The `Conv1D` of GPT-2, which keep their weight transposed, become `nn.Linear`. The pooler of a plain
    encoder, which no hidden state depends on, is dropped.

    Args:
        model: of one of the classes in `ARCHITECTURES`.

    Attributes:
        blocks: the model's own blocks. One that is called with hidden states (B, T, width) alone is given masks,
            positions and rotary angles as in the model, for a text without padding.
        model: the model of transformers.
        config: its context.
        kind: "causal-lm", "masked-lm" or "encoder".

    Raises:
        ValueError: if the model is of another class.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.kind, blocks, self.tail = architecture(type(model).__name__)
        _make_linear(model)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.blocks = model.get_submodule(blocks)  # before the model: so its parameters are named blocks.0.fc1.weight
        self.model = model
        self.config = HFConfig(_context(model.config))
        self._calls: dict[tuple, list] = {}  # of each length: what every block is called with beside hidden states
        for index, block in enumerate(self.blocks):
            block.register_forward_pre_hook(partial(_complete, self._calls, index), with_kwargs=True)

    def parameter_count(self) -> int:
        """Number of parameters; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> the first block's input (B, T, width).

        Raises:
            ValueError: if there are more tokens than the context, or one is not in the vocabulary.
        """
        self._check(tokens)
        hidden = self._record(tokens, 1)[0][0]
        key = _key(hidden)
        if key not in self._calls:
            # Of one row, so that masks serve batches of any size; and no inference tensors, which have no gradients.
            with torch.inference_mode(False), torch.no_grad():
                calls = self._record(tokens[:1].clone(), len(self.blocks))
            self._calls[key] = [(args, kwargs) for _, args, kwargs in calls]
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """The last block's output (B, T, width) -> logits (B, T, vocabulary); of an encoder, hidden states."""
        for path in self.tail:
            module = attrgetter(path)(self.model)
            hidden = hidden if module is None else module(hidden)
        return hidden

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> logits (B, T, vocabulary); of an encoder, the last hidden states (B, T, width).

        Raises:
            ValueError: if there are more tokens than the context, or one is not in the vocabulary.
        """
        self._check(tokens)
        return self.model(input_ids=tokens, use_cache=False)[0]

    def hidden(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states (B, T, width), before a head for logits, of padded texts.

        Args:
            tokens: (B, T).
            attention_mask: (B, T), 1 for tokens and 0 for padding.
        """
        self._check(tokens)
        return self.model.base_model(input_ids=tokens, attention_mask=attention_mask, use_cache=False)[0]

    def _check(self, tokens: Tensor) -> None:
        if tokens.shape[1] > self.config.context:
            raise ValueError(f"{tokens.shape[1]} tokens do not fit the model's context of {self.config.context}")
        check_tokens(tokens, self.model.get_input_embeddings().num_embeddings)

    def _record(self, tokens: Tensor, count: int) -> list[tuple[Tensor, tuple, dict]]:
        """What the first `count` blocks are called with: hidden states, arguments, keyword arguments. None is run."""
        recorder, blocks = _Recorder(count), list(self.blocks)
        try:
            for index in range(len(blocks)):
                self.blocks[index] = recorder
            with suppress(_Recorded):
                self.model.base_model(input_ids=tokens, use_cache=False)
        finally:
            for index, block in enumerate(blocks):
                self.blocks[index] = block
        return recorder.calls


class _Recorded(Exception):
    """All calls that were asked for are recorded: the way out of the forward pass."""


class _Recorder(nn.Module):
    """Stands where the blocks stood, and notes what they would be called with."""

    def __init__(self, count: int):
        super().__init__()
        self.count, self.calls = count, []

    def forward(self, hidden: Tensor, *args, **kwargs) -> Tensor:
        self.calls.append((hidden, args, kwargs))
        if len(self.calls) == self.count:
            raise _Recorded
        return hidden


def _complete(calls: dict[tuple, list], index: int, block: nn.Module, args: tuple, kwargs: dict):
    """Before a block runs: add the arguments that were recorded, if it is called with hidden states alone."""
    if kwargs or len(args) != 1:
        return None  # the model of transformers itself calls
    key = _key(args[0])
    if key not in calls:
        raise ValueError(f"no text of {key[0]} tokens was embedded yet: a block takes what `embed` gave, or what the "
                         "block before it made of that")
    more, kwargs = calls[key][index]
    return args + more, kwargs


def _key(hidden: Tensor) -> tuple:
    """What the arguments of a block depend on."""
    return hidden.shape[1], hidden.device, hidden.dtype


def _context(config) -> int:
    """The longest text, in tokens. RoBERTa counts positions from the one after the padding's."""
    roberta = config.model_type in ("roberta", "xlm-roberta")
    return config.max_position_embeddings - (config.pad_token_id + 1 if roberta else 0)


@torch.no_grad()
def _make_linear(model: nn.Module) -> None:
    """Put an `nn.Linear` that computes the same in the place of each `Conv1D`."""
    from transformers.pytorch_utils import Conv1D  # transformers is slow to import, and not every user has it

    for name, layer in list(model.named_modules()):
        if isinstance(layer, Conv1D):
            linear = nn.Linear(*layer.weight.shape, device="meta")
            linear.weight = nn.Parameter(layer.weight.T.contiguous())
            linear.bias = layer.bias
            model.set_submodule(name, linear)
