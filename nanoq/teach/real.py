"""Around the models of transformers in notebook 15: empty ones to count, copies on new codes, a task of moods."""

import re
from collections.abc import Callable
from contextlib import redirect_stderr
from copy import deepcopy
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import torch
import transformers
from torch import Tensor, nn

from nanoq.hf import HFModel, gptq_losses
from nanoq.hf.checkpoint import quiet
from nanoq.lm import paired_difference, perplexity
from nanoq.lm.corpus import STORY_END
from nanoq.lm.tales.words import read_lexicons
from nanoq.quant import Grid, QuantLinear, Recipe, affine_grid, linear_layers, quantize_model
from nanoq.store import Checkpoint
from nanoq.teach.differences import summary

CodesOf = Callable[[Tensor, Grid, str], Tensor]  # weight (out, in), its grid, the layer's name -> codes (out, in)

# A configuration without options is that of OPT-125M, BERT-base and Llama 7B.
EMPTY = {
    "MiniLM": ("BertModel", {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}),
    "OPT-125M": ("OPTForCausalLM", {}),
    "BERT-base": ("BertModel", {}),
    "BERT, 104 languages": ("BertModel", {"vocab_size": 119_547}),
    "OPT-1.3B": ("OPTForCausalLM", {"hidden_size": 2048, "word_embed_proj_dim": 2048, "num_hidden_layers": 24,
                                    "num_attention_heads": 32, "ffn_dim": 8192}),
    "Llama 7B": ("LlamaForCausalLM", {}),
}  # fmt: skip
MOODS = {1: "posfeel", 0: "negfeel"}  # labels, and the generator's lists of words
FELT = re.compile(r"\b(?:was|felt) (?:so |very |really |quite |truly )?(\w+)")
BEFORE, SHORTEST = 120, 60  # characters


def empty_models() -> dict[str, nn.Module]:
    """Models of transformers by name, with shapes and no memory."""
    with torch.device("meta"):
        return {name: _of(kind, options) for name, (kind, options) in EMPTY.items()}


def _of(kind: str, options: dict) -> nn.Module:
    cls = getattr(transformers, kind)
    return cls(cls.config_class(**options)).eval()


def on_codes(checkpoint: Checkpoint, codes_of: CodesOf, bits: int = 4, **options: object) -> Checkpoint:
    """A copy of a checkpoint of transformers with all matrices on symmetric grids, at codes that a function says.

    Args:
        checkpoint: not quantised, with an `HFModel`.
        codes_of: `codes_of(weight, grid, name)` with a weight (out, in) gives codes (out, in) of the grid; the name is
            that of the layer in the model of transformers.
        bits: width of a code.
        options: of `affine_grid`, as a granularity.

    Raises:
        ValueError: if the checkpoint holds another kind of model, or a weight gets no codes of its shape.
    """
    if not isinstance(checkpoint.model, HFModel):
        raise ValueError(f"a model of transformers is wanted, not a {type(checkpoint.model).__name__}")
    changed = deepcopy(checkpoint)
    model = changed.model.model
    inside = {id(layer) for layer in linear_layers(changed.model).values()}
    for name, layer in [*model.named_modules()]:
        if id(layer) in inside:
            weight = layer.weight.detach()
            grid = affine_grid(weight, bits, symmetric=True, **options)
            codes = codes_of(weight, grid, name)
            if getattr(codes, "shape", None) != weight.shape:
                raise ValueError(f"{name}: codes of shape {tuple(weight.shape)} are wanted, not {summary(codes)}")
            model.set_submodule(name, QuantLinear.from_codes(codes, grid, layer.bias))
    return changed


def turned_around(checkpoint: Checkpoint, codes_of: CodesOf, windows: Tensor, *, wrong_way: bool) -> float:
    """The perplexity with the square matrices at 3 bits, rounded as they are or transposed and turned back."""
    model = deepcopy(checkpoint.model)
    for name, layer in model.model.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(layer, nn.Linear) and weight.shape[0] == weight.shape[1]:
            seen = weight.detach().T.contiguous() if wrong_way else weight.detach()
            grid = affine_grid(seen, 3)
            rounded = grid.decode(codes_of(seen, grid, name))
            weight.data = rounded.T.contiguous() if wrong_way else rounded
    return perplexity(gptq_losses(model, windows, batch=8))


def read_by_transformers(folder: Path | str) -> nn.Module | None:
    """A folder of compressed-tensors as transformers reads it, in float32; None, and a remedy, without the package."""
    if find_spec("compressed_tensors") is None:
        print("transformers reads it after: pip install compressed-tensors")
        return None
    with quiet(transformers), redirect_stderr(StringIO()), torch.no_grad():  # others' bars, which no setting turns off
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        model(torch.zeros(1, 1, dtype=torch.long))  # the first call decodes the weights
    return model


def small_llama() -> HFModel:
    """A random Llama of two blocks at 4 bits, in groups of 32 columns, with symmetric grids."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = HFModel(_of("LlamaForCausalLM", {
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 97, "max_position_embeddings": 64}))
    quantize_model(model, Recipe(bits=4, symmetric=True, granularity="group", group_size=32))
    return model


@torch.no_grad()
def away_from(model: HFModel, file: Path, tokens: Tensor) -> dict[str, float]:
    """How far programs that read a GGUF file are from a model: ||their logits - its logits|| / ||its logits||.

    transformers, and llama.cpp where llama-cpp-python is installed; tokens (1, T).
    """
    no_bar = patch("transformers.modeling_gguf_pytorch_utils.tqdm", lambda tensors, **_: tensors)
    with quiet(transformers), no_bar:
        reader = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    logits, ours = {"transformers": reader(tokens).logits}, model(tokens)
    if find_spec("llama_cpp"):
        from llama_cpp import Llama

        llama = Llama(str(file), n_ctx=tokens.numel(), logits_all=True, verbose=False)
        llama.eval(tokens[0].tolist())
        logits["llama.cpp"] = torch.tensor(llama.scores[None, : tokens.numel()])
        llama.close()
    return {program: float((theirs - ours).norm() / ours.norm()) for program, theirs in logits.items()}


def tell(name: str, losses: Tensor, before: Tensor) -> None:
    """Print the perplexity of losses (W,) in nats, and what they are above those of before, with the 95 % interval."""
    gap = paired_difference(losses, before)
    print(f"{name:22} perplexity {perplexity(losses):.3f}, {gap.mean:+.4f} nats ({gap.low:+.4f} to {gap.high:+.4f})")


def mood_task(story: str, count: int) -> tuple[list[str], list[int]]:
    """As many texts before the word for a good mood (label 1) as before one for a bad mood (0), at most `count`."""
    lexicons = read_lexicons()
    words = {label: set(lexicons[name].forms[""]) for label, name in MOODS.items()}
    found: dict[int, list[str]] = {label: [] for label in MOODS}
    for match in FELT.finditer(story):
        text = story[max(0, match.start(1) - BEFORE) : match.start(1)].split(STORY_END)[-1].strip()
        for label in MOODS:
            if match[1] in words[label] and len(text) > SHORTEST:
                found[label].append(text)
    pairs = list(zip(found[1], found[0], strict=False))[: count // 2]
    return [text for pair in pairs for text in pair], [1, 0] * len(pairs)
