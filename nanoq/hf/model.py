"""Models of the package transformers in the form that the driver asks for: `embed`, `blocks` and `head`."""

from dataclasses import dataclass
from functools import partial
from inspect import signature

import torch
from torch import Tensor, nn

from nanoq.hf.blocks import MODES, BlockCall, Track, find_blocks
from nanoq.hf.experts import split_experts
from nanoq.hf.inputs import FLOATS, inputs, sample, vocabulary
from nanoq.lm.model import check_tokens
from nanoq.quant.layers import is_plain, linear_layers
from nanoq.running import device_of

KINDS = {"causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
         "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
         "classifier": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
         "picture-classifier": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
         "speech-seq2seq": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
         "sound-classifier": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES", "encoder": "MODEL_MAPPING_NAMES"}
"""What a model gives, and where transformers lists the classes that give it: logits of the next token, in one stack of
blocks or after an encoder, of the token itself, or of the class of a text, picture or sound; or hidden states."""


def kind_of(name: str) -> str:
    """The kind, in `KINDS`, of a class of transformers.

    Raises:
        ValueError: if transformers has no model of that name, or one of another kind.
    """
    from transformers.models.auto import modeling_auto  # transformers is slow to import, and not every user has it

    for kind, table in KINDS.items():
        for names in getattr(modeling_auto, table).values():
            if name == names or (name in names and not isinstance(names, str)):
                return kind
    raise ValueError(f"{name} is not supported: it is no language model, encoder or classifier that this version of "
                     "transformers knows")


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
    three ways. The `Conv1D` of GPT-2, which keep their weight transposed, become `nn.Linear`; so do the experts of a
    mixture, each (`split_experts`). The pooler of a plain encoder, which no hidden state depends on, is dropped.

    Args:
        model: of any class of transformers that takes tokens, pictures or sound alone.
        blocks: their names in the model, in the order in which they first run; by default they are looked for, for
            which the model runs once.

    Attributes:
        blocks: the model's own blocks, of an encoder and a decoder one after the other. One that is called with hidden
            states (B, T, width) alone is given masks, positions and rotary angles as in the model, for a text without
            padding.
        model: the model of transformers.
        config: its context.
        kind: what it gives: one of `KINDS`.
        track: the way through the blocks.
        block_names: the names of the blocks in the model of transformers.
        proven: whether `prove` has gone through the blocks.

    Raises:
        ValueError: if the model is of another kind.
    """

    def __init__(self, model: nn.Module, blocks: list[str] | None = None):
        super().__init__()
        self.kind = kind_of(type(model).__name__)
        _make_linear(model)
        split_experts(model)
        if self.kind == "encoder" and getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.config = HFConfig(_context(model))
        runs = None if model.device.type == "meta" else partial(outputs, model)
        self.block_names = blocks or find_blocks(model, runs)
        # The blocks come before the model, so that its parameters are named blocks.0.fc1.weight.
        self.blocks = nn.ModuleList(map(model.get_submodule, self.block_names))
        self.model = model
        self.track = Track(self.blocks, [name.rpartition(".")[0] for name in self.block_names], partial(run, model))
        self.proven, self.blocks_stand_alone = False, True  # until `prove` finds otherwise
        self._calls: dict[tuple, list] = {}  # of each length: what every block is called with beside hidden states
        self._inside: list = []  # whether the model itself is running
        self._hooks = []
        for module in {model, model.base_model}:
            self._hooks.append(module.register_forward_pre_hook(partial(_enters, self._inside, module is model)))
            self._hooks.append(module.register_forward_hook(partial(_leaves, self._inside), always_call=True))
        for index, block in enumerate(self.blocks):
            complete = partial(_complete, self._calls, self._inside, index)
            self._hooks.append(block.register_forward_pre_hook(complete, with_kwargs=True))
            self._hooks.append(block.register_forward_hook(_only_hidden))

    @property
    def device(self) -> torch.device:
        """Where the model is; its blocks may be empty."""
        return device_of(self.model)

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model has embeddings for."""
        return vocabulary(self.model)

    def release(self) -> nn.Module:
        """The model of transformers by itself: its blocks are no longer completed when they are called alone."""
        for hook in self._hooks:
            hook.remove()
        return self.model

    def takes(self, layer: nn.Module) -> bool:
        """Whether a layer of the blocks can be quantised. A convolution in groups stays in float16; see `left_out`."""
        return not isinstance(layer, nn.Conv2d) or is_plain(layer)

    def parameter_count(self) -> int:
        """Number of parameters; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def sample(self) -> Tensor:
        """A small batch that the model takes."""
        return sample(self.model)

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
        hidden = self.track.call(tokens, 0, []).hidden
        key = _key(hidden)
        if key not in self._calls:
            # Of one row, so that masks serve batches of any size; and no inference tensors, which have no gradients.
            with torch.inference_mode(False), torch.no_grad():
                row, call = tokens[:1].clone(), None
                self._calls[key] = []
                for index in range(len(self.blocks)):
                    call = self.follow(call, hidden[:1]) if call else self.track.call(row, index, [])
                    self._calls[key].append(call.beside)
        return hidden

    def enter(self, rows: Tensor) -> BlockCall:
        """What the first block is called with for a batch; `nanoq.quant.visit` asks for it.

        Raises:
            ValueError: as `prove`, if nobody called that before.
        """
        self._check(rows)
        if not self.proven:
            prove(self)
        return self.track.call(rows, 0, [])

    def follow(self, call: BlockCall, output: object) -> BlockCall:
        """What the next block is called with, for the same batch, when a call has given an output."""
        return self.track.call(call.rows, call.index + 1, self.track.after(call, output))

    def resume(self, rows: Tensor, index: int, output: object) -> BlockCall:
        """What the block after number `index` is called with when that gave an output, of a model that is `in_turn`."""
        return self.track.call(rows, index + 1, [output] * (index + 1))

    @property
    def in_turn(self) -> bool:
        """Whether each block runs once, after the one before it, and needs no more than what that has given."""
        track = self.track
        return track.keeps == "last" and track.direct and track.order == list(range(len(self.blocks)))

    def leave(self, call: BlockCall, output: object) -> Tensor:
        """What the model makes of what the call of its last block has given."""
        return self.track.replay(self.track.after(call, output), call.rows)

    def head(self, hidden: Tensor) -> Tensor:
        """The last block's output (B, T, width) -> logits (B, T, vocabulary); of an encoder, hidden states."""
        tokens = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)  # whose embedding is not used
        last = (hidden,) if self.blocks[-1].__dict__.get("gives_tuples") else hidden
        return self.track.replay([last] * len(self.track.order or self.blocks), tokens)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Tokens (B, T) -> logits (B, T, vocabulary); of an encoder, the last hidden states (B, T, width).

        Args:
            tokens: (B, T).
            attention_mask: (B, T), 1 for tokens and 0 for padding, if there is any.

        Raises:
            ValueError: if there are more tokens than the context, or one is not in the vocabulary.
        """
        self._check(tokens)
        return run(self.model, tokens, **({} if attention_mask is None else {"attention_mask": attention_mask}))

    def hidden(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states (B, T, width), before a head for logits, of padded texts.

        Args:
            tokens: (B, T).
            attention_mask: (B, T), 1 for tokens and 0 for padding.
        """
        self._check(tokens)
        return self.model.base_model(input_ids=tokens, attention_mask=attention_mask, use_cache=False)[0]

    def _check(self, rows: Tensor) -> None:
        if rows.is_floating_point():
            return
        if rows.shape[1] > self.config.context:
            raise ValueError(f"{rows.shape[1]} tokens do not fit the model's context of {self.config.context}")
        check_tokens(rows, self.vocabulary)


def run(model: nn.Module, rows: Tensor, **more: Tensor) -> Tensor:
    """What a model of transformers gives for a batch, and more arguments: logits or hidden states."""
    caches = not rows.is_floating_point() or "use_cache" in signature(model.forward).parameters
    return model(**inputs(model, rows), **more, **({"use_cache": False} if caches else {}))[0]


@torch.no_grad()
def outputs(model: nn.Module) -> Tensor:
    """What a model of transformers gives for its sample.

    Raises:
        ValueError: if it does not run on that.
    """
    try:
        found = run(model, sample(model))
    except Exception as error:
        what = FLOATS.get(str(model.main_input_name), "tokens (B, T)")  # a list of names in OneFormer
        raise ValueError(f"{type(model).__name__} is not supported: it does not run on {what} alone "
                         f"({type(error).__name__}: {' '.join(str(error).split())[:150]})") from None
    if not isinstance(found, Tensor):
        raise ValueError(f"{type(model).__name__} is not supported: what it gives first is no tensor")
    return found


@torch.no_grad()
def prove(model: HFModel, expected: Tensor | None = None) -> None:
    """Go through a model block by block, as the driver does, and look whether that gives the model's own outputs.

    Args:
        model: its `track` learns what it has to keep of what blocks give.
        expected: what `outputs` gave of the model before it became an `HFModel`.

    Raises:
        ValueError: if it does not.
    """
    name, model.proven = type(model.model).__name__, True
    now = outputs(model.model)
    if now.isnan().any():  # which nothing is close to
        raise ValueError(f"{name} is not supported: what it gives holds NaN")
    expected = now if expected is None else expected
    if not _close(now, expected):
        raise ValueError(f"{name} is not supported: with its experts apart it gives other outputs{_gap(now, expected)}")
    for mode in MODES:
        vars(model.track).update(mode)
        try:
            found = _block_by_block(model)
        except Exception as error:
            reason = f" ({type(error).__name__}: {' '.join(str(error).split())[:150]})"
            continue
        if _close(found, expected):
            break
        reason = _gap(found, expected)
    else:
        raise ValueError(f"{name} is not supported: block by block it does not give its own outputs{reason}")
    model.blocks_stand_alone = _stand_alone(model, expected)


def _block_by_block(model: HFModel) -> Tensor:
    """What a model makes of its sample when it is run as the driver runs it."""
    call = model.enter(model.sample())
    for block in model.blocks:
        call(block)
        output = call(block)  # again, as the driver does: a block may not change what it is called with
        if block is not model.blocks[-1]:
            call = model.follow(call, output)
    return model.leave(call, output)


def _close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def _gap(found: Tensor, expected: Tensor) -> str:
    return f" (they differ by {float((found - expected).abs().max()):.2g})"


def _stand_alone(model: HFModel, expected: Tensor) -> bool:
    """Whether the blocks, each called with hidden states alone, give the model's outputs, too."""
    try:
        hidden = model.embed(model.sample())
        for block in model.blocks:
            hidden = block(hidden)
        return _close(model.head(hidden), expected)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False


def left_out(model: HFModel) -> dict[str, int]:
    """The matrices that no linear layer of a block holds, such as the experts of a mixture, and their sizes.

    Embeddings and the head, which are never quantised, are not among them.
    """
    layers = [*linear_layers(model).values(), *(layer for layer in model.modules() if isinstance(layer, nn.Embedding))]
    head = model.model.get_output_embeddings()
    known = {id(layer.weight) for layer in layers} | {id(tensor) for tensor in (head.parameters() if head else ())}
    return {name: parameter.numel() for name, parameter in model.model.named_parameters()
            if parameter.dim() > 1 and id(parameter) not in known}


def _enters(inside: list, outermost: bool, *_) -> None:
    """Before the model itself runs; nobody says so when an interrupt (Ctrl-C) ends that."""
    if outermost:
        inside.clear()
    inside.append(True)


def _leaves(inside: list, *_) -> None:
    """After it ran, or failed."""
    del inside[-1:]


def _complete(calls: dict[tuple, list], inside: list, index: int, block: nn.Module, args: tuple, kwargs: dict):
    """Before a block runs: add the arguments that were recorded, if it is called with hidden states alone."""
    alone = not inside and not kwargs and len(args) == 1
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
