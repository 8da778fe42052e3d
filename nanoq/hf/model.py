"""Models of the package transformers in the form that the driver asks for: `embed`, `blocks` and `head`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from nanoq.lm.model import check_tokens
from nanoq.quant.visit import Call
from nanoq.store import weight_shape

KINDS = {"causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
         "classifier": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES", "encoder": "MODEL_MAPPING_NAMES"}
"""What a model gives, and where transformers lists the classes that give it: logits of the next token, of the token
itself or of the text's class, or hidden states."""


def kind_of(name: str) -> str:
    """The kind, in `KINDS`, of a class of transformers.

    Raises:
        ValueError: if transformers has no model of that name, or one that takes no text alone.
    """
    from transformers.models.auto import modeling_auto  # transformers is slow to import, and not every user has it

    for kind, table in KINDS.items():
        for names in getattr(modeling_auto, table).values():
            if name == names or (name in names and not isinstance(names, str)):
                return kind
    raise ValueError(f"{name} is not supported: it is no language model, encoder or classifier of texts that this "
                     "version of transformers knows")


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
        model: of any class of transformers that takes a text, and whose blocks lie in one list.

    Attributes:
        blocks: the model's own blocks. One that is called with hidden states (B, T, width) alone is given masks,
            positions and rotary angles as in the model, for a text without padding.
        model: the model of transformers.
        config: its context.
        kind: what it gives: one of `KINDS`.

    Raises:
        ValueError: if the model is of another kind.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.kind = kind_of(type(model).__name__)
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(f"{type(model).__name__} has an encoder and a decoder, which is not supported")
        _make_linear(model)
        if self.kind == "encoder" and getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.blocks = find_blocks(model)  # before the model: so its parameters are named blocks.0.fc1.weight
        self.model = model
        self.config = HFConfig(_context(model))
        self.blocks_stand_alone = True  # until `prove` finds otherwise
        self._calls: dict[tuple, list] = {}  # of each length: what every block is called with beside hidden states
        self._hooks = []
        for index, block in enumerate(self.blocks):
            complete = partial(_complete, self._calls, index)
            self._hooks.append(block.register_forward_pre_hook(complete, with_kwargs=True))
            self._hooks.append(block.register_forward_hook(_only_hidden))

    @property
    def device(self) -> torch.device:
        """Where the model is; its blocks may be empty."""
        places = (parameter.device for parameter in self.parameters() if not parameter.is_meta)
        return next(places, torch.device("meta"))

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model has embeddings for."""
        table = self.model.get_input_embeddings()
        return getattr(table, "num_embeddings", None) or len(table if isinstance(table, Tensor) else table.weight)

    def release(self) -> nn.Module:
        """The model of transformers by itself: its blocks are no longer completed when they are called alone."""
        for hook in self._hooks:
            hook.remove()
        return self.model

    def parameter_count(self) -> int:
        """Number of parameters; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> the first block's input (B, T, width).

        Raises:
            ValueError: if there are more tokens than the context, one is not in the vocabulary, or the blocks do not
                stand alone.
        """
        self._check(tokens)
        if not self.blocks_stand_alone:
            raise ValueError(f"the blocks of {type(self.model).__name__} want more than hidden states for each text: "
                             "they can be quantised layer by layer, but not run by themselves")
        hidden = self._call(tokens, 0).hidden
        key = _key(hidden)
        if key not in self._calls:
            # Of one row, so that masks serve batches of any size; and no inference tensors, which have no gradients.
            with torch.inference_mode(False), torch.no_grad():
                row = tokens[:1].clone()
                self._calls[key] = [self._call(row, index, hidden[:1]).beside for index in range(len(self.blocks))]
        return hidden

    def enter(self, tokens: Tensor) -> "BlockCall":
        """What the first block is called with for tokens (B, T); `nanoq.quant.visit` asks for it."""
        self._check(tokens)
        return self._call(tokens, 0)

    def follow(self, tokens: Tensor, index: int, output: object) -> "BlockCall":
        """What the block after number `index` is called with, when that has given an output, for the same tokens."""
        return self._call(tokens, index + 1, output)

    def head(self, hidden: Tensor) -> Tensor:
        """The last block's output (B, T, width) -> logits (B, T, vocabulary); of an encoder, hidden states."""
        tokens = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)  # whose embedding is not used
        return self.leave(tokens, (hidden,) if self.blocks[-1].__dict__.get("gives_tuples") else hidden)

    def leave(self, tokens: Tensor, output: object) -> Tensor:
        """What the model makes of the last block's output, whatever that is, for tokens (B, T)."""
        with self._stand_ins([_StandIn(block, output) for block in self.blocks]):
            return self.model(input_ids=tokens, use_cache=False)[0]

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
        check_tokens(tokens, self.vocabulary)

    def _call(self, tokens: Tensor, index: int, output: object = None) -> "BlockCall":
        """What block `index` is called with, when the one before it gives `output`. No block is run."""
        blocks = list(self.blocks)
        with self._stand_ins([*(_StandIn(block, output) for block in blocks[:index]), _Recorder(blocks[index])]):
            try:
                self.model(input_ids=tokens, use_cache=False)
            except _Recorded as call:
                return BlockCall(*call.args)
        raise ValueError(f"block {index} of {type(self.model).__name__} is not run on a text: it is not supported")

    @contextmanager
    def _stand_ins(self, modules: list[nn.Module]) -> Iterator[None]:
        """Put modules in the places of the first blocks for a while."""
        blocks = list(self.blocks)
        try:
            for index, module in enumerate(modules):
                self.blocks[index] = module
            yield
        finally:
            for index, block in enumerate(blocks):
                self.blocks[index] = block


class BlockCall(Call):
    """What a block of a model of transformers is called with."""

    def __call__(self, block: nn.Module):
        """Run the block as its model does, past the hook that completes a call with hidden states alone."""
        return block.forward(*self.args, **self.kwargs)

    @property
    def hidden(self) -> Tensor:
        """The hidden states (B, T, width) among it."""
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    @property
    def beside(self) -> tuple[tuple, dict]:
        """The rest."""
        return self.args[1:], {name: value for name, value in self.kwargs.items() if name != "hidden_states"}


class _Recorded(Exception):
    """What was asked for is recorded, and is this exception's arguments: the way out of the forward pass."""


class _StandIn(nn.Module):
    """Stands where a block stood: gives what it is told to, and has the block's attributes, which some models read."""

    def __init__(self, block: nn.Module, output: object = None):
        super().__init__()
        self.__dict__["_block"], self.output = block, output  # no module of this one

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_block"], name)

    def forward(self, *args, **kwargs):
        return self.output


class _Recorder(_StandIn):
    """Notes what the block would be called with, and ends the forward pass."""

    def forward(self, *args, **kwargs):
        raise _Recorded(args, kwargs)


@torch.no_grad()
def prove(model: HFModel) -> None:
    """Go through a model block by block, as the driver does, and look whether that gives the model's own outputs.

    Raises:
        ValueError: if it does not: a block is run more than once, say, or not one after the other.
    """
    tokens = torch.arange(1, 9).remainder(model.vocabulary).view(2, 4).to(model.device)
    expected, call = model(tokens), model.enter(tokens)
    for index, block in enumerate(model.blocks):
        call(block)
        output = call(block)  # again, as the driver does: a block may not change what it is called with
        if block is not model.blocks[-1]:
            call = model.follow(tokens, index, output)
    found = model.leave(tokens, output)
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise ValueError(f"{type(model.model).__name__} is not supported: block by block it does not give its own "
                         f"outputs (they differ by {float((found - expected).abs().max()):.2g})")
    model.blocks_stand_alone = _stand_alone(model, tokens, expected)


def _stand_alone(model: HFModel, tokens: Tensor, expected: Tensor) -> bool:
    """Whether the blocks, each called with hidden states alone, give the model's outputs, too."""
    try:
        hidden = model.embed(tokens)
        for block in model.blocks:
            hidden = block(hidden)
        return torch.allclose(model.head(hidden), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False


def left_out(model: HFModel) -> dict[str, int]:
    """The matrices that no linear layer of a block holds, such as the experts of a mixture, and their sizes.

    Embeddings and the head, which are never quantised, are not among them.
    """
    layers = [*(layer for layer in model.blocks.modules() if isinstance(layer, nn.Linear)),
              *(layer for layer in model.modules() if isinstance(layer, nn.Embedding))]
    known = {id(layer.weight) for layer in (*layers, model.model.get_output_embeddings()) if layer is not None}
    return {name: parameter.numel() for name, parameter in model.model.named_parameters()
            if parameter.dim() > 1 and id(parameter) not in known}


def weights_in(blocks: nn.ModuleList) -> int:
    """Number of weights in the linear layers of blocks, packed or not."""
    return sum(prod(weight_shape(layer)) for layer in blocks.modules()
               if isinstance(layer, nn.Linear) or hasattr(layer, "weight_shape"))


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of a model's modules that holds most of its linear layers' weights, counted by number of them.

    Raises:
        ValueError: if there is none.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)
             and not any(isinstance(member, nn.Linear) for member in module)]  # which would be heads
    best = max(lists, key=weights_in, default=None)  # the first of equals, which is the outermost
    if best is None or not weights_in(best):
        raise ValueError(f"{type(model).__name__} has no list of blocks with linear layers: it is not supported")
    return best


def _complete(calls: dict[tuple, list], index: int, block: nn.Module, args: tuple, kwargs: dict):
    """Before a block runs: add the arguments that were recorded, if it is called with hidden states alone."""
    alone = not kwargs and len(args) == 1
    block.__dict__["called_alone"] = alone  # for `_only_hidden`
    if not alone:
        return None  # the model of transformers itself calls
    key = _key(args[0])
    if key not in calls:
        raise ValueError(f"no text of {key[0]} tokens was embedded yet: a block takes what `embed` gave, or what the "
                         "block before it made of that")
    more, kwargs = calls[key][index]
    return args + more, kwargs


def _only_hidden(block: nn.Module, _, output: object) -> object:
    """After a block was called with hidden states alone, from outside its model: hidden states alone."""
    if block.__dict__["called_alone"] and isinstance(output, tuple):
        block.__dict__["gives_tuples"] = True
        return output[0]
    return output


def _key(hidden: Tensor) -> tuple:
    """What the arguments of a block depend on."""
    return hidden.shape[1], hidden.device, hidden.dtype


_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")


def _context(model: nn.Module) -> int:
    """The longest text, in tokens. RoBERTa and its kin count positions from the one after the padding's."""
    known = (getattr(model.config, name, None) for name in _LENGTHS)
    longest = next((length for length in known if isinstance(length, int) and length > 0), 2048)
    offset = (module.padding_idx + 1 for name, module in model.named_modules()
              if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None)
    return longest - next(offset, 0)


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
