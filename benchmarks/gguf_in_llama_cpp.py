"""What llama.cpp computes with files that `export_gguf` wrote, compared with the model that was exported.

It needs an environment of its own with llama.cpp built from source (cmake, g++; a quarter of an hour):

    python -m venv /tmp/venv-llama
    /tmp/venv-llama/bin/pip install -r requirements.txt llama-cpp-python
    OMP_NUM_THREADS=1 PYTHONPATH=.:tests/hf /tmp/venv-llama/bin/python benchmarks/gguf_in_llama_cpp.py --steps 400

First a small random model of each architecture, in each type: the relative error of the logits on 48 tokens. llama.cpp
rounds the inputs of a product to 8 bits in blocks of 32 where the weight is quantised, and to float16 where it is
float16: so each is compared a second time with a model that does the same, where 1e-7 is all that is left (more in
gpt2, whose GELU is a table there, and where an input that lies between two steps goes to the other one). Rows of q and
k in the order of transformers would give 0.27.

Then tokenisers of each kind; then a small Llama that was trained on the generated tales for `--steps`, and quantised by
GPTQ: in how many of 200 steps greedy text is the same, before the first difference of each prompt, and the loss.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tiny
import torch
import torch.nn.functional as F
from llama_cpp import Llama, __version__
from tiny_tokenizers import VOCABULARY, byte_level, sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from nanoq.hf import HFModel
from nanoq.lm import load_corpus
from nanoq.quant import QuantLinear, Recipe, export_gguf, quantize_model, sample_windows
from nanoq.store import Checkpoint

GROUP = {"granularity": "group", "group_size": 32}
RECIPES = {"F16": None, "Q8_0": Recipe(bits=8, grid_options=GROUP | {"symmetric": True}),
           "Q4_0": Recipe(bits=4, grid_options=GROUP | {"symmetric": True}),
           "Q5_0 (4 bits with zero points)": Recipe(bits=4, grid_options=GROUP)}
FAMILIES = {"llama": {}, "llama, tied": {}, "mistral": {"sliding_window": None}, "qwen2": {"use_sliding_window": False},
            "qwen3": {"head_dim": 16}, "gpt2": {}, "llama, scaled positions": {"rope_parameters": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16, "rope_theta": 10000.0}}}
LENGTH = 40  # tokens of greedy text
PROMPTS = ("Once upon a time", "The little fox", "\"Hello,\" said the", "One day, a", "There were 3 cats")


def reader(path: Path) -> Llama:
    """llama.cpp with a file, on one thread, with keys and values in float32."""
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        return Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False, seed=0,
                     type_k=0, type_v=0, flash_attn=False)


@contextlib.contextmanager
def rounded_inputs(model: torch.nn.Module) -> Iterator[None]:
    """Round the inputs of every linear layer as llama.cpp does, while the block of code runs."""
    def to_8_bits(_, args):
        blocks = args[0].unflatten(-1, (-1, 32))
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        codes = torch.where(scale > 0, blocks / scale, 0.0).round()
        return ((codes * scale.half().float()).flatten(-2),)

    hooks = [layer.register_forward_pre_hook(
        to_8_bits if isinstance(layer, QuantLinear) else lambda _, args: (args[0].half().float(),))
        for layer in model.modules() if isinstance(layer, (QuantLinear, torch.nn.Linear))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def logits_of(llama: Llama, tokens: list[int]) -> torch.Tensor:
    """What llama.cpp computes: (tokens, vocabulary)."""
    llama.reset()
    llama.eval(tokens)
    return torch.from_numpy(np.array(llama.scores[: len(tokens)]))


@torch.no_grad()
def compare_families(folder: Path) -> None:
    """The relative error of the logits of random models: as they are, and with inputs rounded."""
    print(f"{'architecture':<26}" + "".join(f"{kind.split()[0]:>10}" for kind in RECIPES))
    tokens = torch.randint(3, 250, (1, 48), generator=torch.Generator().manual_seed(0))
    for family, changes in FAMILIES.items():
        errors, left = [], []
        for recipe in RECIPES.values():
            kind = family.removesuffix(", scaled positions")
            model = HFModel(tiny.make(kind, vocab_size=VOCABULARY, **changes)).eval()
            quantize_model(model, recipe or Recipe(bits=16))
            path = export_gguf(folder / "model.gguf", Checkpoint(model, byte_level(), {}))
            found = logits_of(reader(path), tokens[0].tolist())
            for kept, context in ((errors, contextlib.nullcontext()), (left, rounded_inputs(model))):
                with context:
                    expected = model(tokens)[0]
                kept.append(float((found - expected).norm() / expected.norm()))
        for label, row in ((family, errors), ("  with its rounding", left)):
            print(f"{label:<26}" + "".join(f"{error:>10.1e}" for error in row), flush=True)


@torch.no_grad()
def compare_tokenizers(folder: Path) -> None:
    """Whether llama.cpp cuts texts into the same tokens, by each rule."""
    texts = [*PROMPTS, "don't  stop\n\n at  the\tend ", "Zoë's naïve 中文 🙂", "a1234 b", "  two"]
    kinds = {pre: byte_level(pre) for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")}
    kinds["sentencepiece"] = sentencepiece()
    for name, tokenizer in kinds.items():
        model = HFModel(tiny.make("llama", vocab_size=VOCABULARY)).eval()
        llama = reader(export_gguf(folder / "model.gguf", Checkpoint(model, tokenizer, {})))
        same = [llama.tokenize(text.encode(), add_bos=False, special=False)
                == tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        print(f"tokens of {name:<14} {sum(same)} of {len(texts)} texts alike", flush=True)


def train(steps: int) -> Checkpoint:
    """A Llama of three blocks on the generated tales, with a byte-level BPE of 512 tokens."""
    text = load_corpus("tales").train[:3_000_000]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train_from_iterator([text[:500_000]], trainers.BpeTrainer(
        vocab_size=512, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="<s>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=512, hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    rows = torch.tensor(tokenizer(text).input_ids)
    rows = rows[: len(rows) // 128 * 128].view(-1, 128)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    for step in range(steps):
        batch = rows[order[step * 16 % (len(rows) - 16):][:16]]
        loss = model(input_ids=batch, labels=batch).loss
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"trained for {steps} steps to a loss of {loss.item():.3f}", flush=True)
    return Checkpoint(HFModel(model.eval()), tokenizer, {"source": "tales-llama"})


@torch.no_grad()
def greedy(model: torch.nn.Module, tokens: list[int]) -> list[int]:
    """The likeliest continuation."""
    tokens = list(tokens)
    for _ in range(LENGTH):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens


def greedy_there(llama: Llama, tokens: list[int]) -> list[int]:
    """The same by llama.cpp, a token at a time."""
    tokens = list(tokens)
    llama.reset()
    llama.eval(tokens)
    for _ in range(LENGTH):
        tokens.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        llama.eval(tokens[-1:])
    return tokens


def alike(first: list[int], second: list[int]) -> int:
    """How many tokens are the same before the first that is not."""
    return next((i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]), len(first))


@torch.no_grad()
def compare_text(folder: Path, checkpoint: Checkpoint) -> None:
    """Greedy text and the loss on held-out text, of the model and of llama.cpp."""
    state = {name: tensor.clone() for name, tensor in checkpoint.model.model.state_dict().items()}
    tokenizer, corpus = checkpoint.tokenizer, load_corpus("tales")
    held_out = tokenizer(corpus.test[:20_000]).input_ids[:200]
    calibration = sample_windows(torch.tensor(tokenizer(corpus.train[:400_000]).input_ids), 128, 64)
    print(f"{'type':<32}{'alike':>12}{'with its rounding':>20}{'loss':>9}{'rounded':>9}{'there':>9}")
    for kind, recipe in RECIPES.items():
        inner = LlamaForCausalLM(checkpoint.model.model.config)
        inner.load_state_dict(state)
        model = HFModel(inner.eval())
        plan = Recipe("gptq", bits=recipe.default.bits, grid_options=recipe.default.grid_options) if recipe else None
        quantize_model(model, plan or Recipe(bits=16), calibration)
        llama = reader(export_gguf(folder / "model.gguf", Checkpoint(model, tokenizer, {})))
        starts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
        theirs, target, counts = [greedy_there(llama, start) for start in starts], torch.tensor(held_out[1:]), []
        losses = []
        for context in (contextlib.nullcontext(), rounded_inputs(model)):
            with context:
                counts.append(sum(alike(greedy(model, start), text) - len(start)
                                  for start, text in zip(starts, theirs, strict=True)))
                losses.append(float(F.cross_entropy(model(torch.tensor([held_out[:-1]]))[0], target)))
        losses.append(float(F.cross_entropy(logits_of(llama, held_out[:-1]), target)))
        whole = LENGTH * len(PROMPTS)
        print(f"{kind:<32}{counts[0]:>5} of {whole}{counts[1]:>13} of {whole}"
              + "".join(f"{loss:>9.4f}" for loss in losses), flush=True)
    print("text of llama.cpp:", repr(tokenizer.decode(theirs[0])))


def main() -> None:
    """Compare architectures, tokenisers, and a trained model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    print(f"llama-cpp-python {__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as place:
        compare_families(Path(place))
        compare_tokenizers(Path(place))
        compare_text(Path(place), train(arguments.steps))


if __name__ == "__main__":
    main()
