"""What llama.cpp computes with files that `export_gguf` wrote, compared with the model that was exported.

It needs an environment of its own with llama.cpp built from source (cmake, g++; a quarter of an hour):

    python -m venv /tmp/venv-llama
    /tmp/venv-llama/bin/pip install -r requirements.txt llama-cpp-python
    OMP_NUM_THREADS=1 PYTHONPATH=.:tests/hf /tmp/venv-llama/bin/python benchmarks/gguf_in_llama_cpp.py --steps 400

First a small random model of each architecture, in each type: the relative error of the logits on 48 tokens. Then a
small Llama that was trained on the generated tales for `--steps`: whether tokens and greedy text are the same, and how
far apart the losses are. llama.cpp rounds the activations to 8 bits in products with quantised weights, and keeps keys
and values in float16 (float32 here), so that errors near 1e-2 are its own; rows of q and k in the order of transformers
give 0.27.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import tiny
import torch
import torch.nn.functional as F
from llama_cpp import Llama, __version__
from tiny_tokenizers import VOCABULARY, byte_level, sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from nanoq.hf import HFCheckpoint, HFModel
from nanoq.lm import load_corpus
from nanoq.quant import Recipe, export_gguf, quantize_model, sample_windows

GROUP = {"granularity": "group", "group_size": 32}
RECIPES = {"F16": None, "Q8_0": Recipe.uniform(8, grid_options=GROUP | {"symmetric": True}),
           "Q4_0": Recipe.uniform(4, grid_options=GROUP | {"symmetric": True}),
           "Q5_0 (4 bits with zero points)": Recipe.uniform(4, grid_options=GROUP)}
FAMILIES = {"llama": {}, "llama, tied": {}, "mistral": {"sliding_window": None}, "qwen2": {"use_sliding_window": False},
            "qwen3": {"head_dim": 16}, "gpt2": {}, "llama, scaled positions": {"rope_parameters": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16, "rope_theta": 10000.0}}}
PROMPTS = ("Once upon a time", "The little fox", "\"Hello,\" said the", "One day, a", "There were 3 cats")


def reader(path: Path) -> Llama:
    """llama.cpp with a file, on one thread, with keys and values in float32."""
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        return Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False, seed=0,
                     type_k=0, type_v=0, flash_attn=False)


def logits_of(llama: Llama, tokens: list[int]) -> torch.Tensor:
    """What llama.cpp computes: (tokens, vocabulary)."""
    llama.reset()
    llama.eval(tokens)
    return torch.from_numpy(np.array(llama.scores[: len(tokens)]))


@torch.no_grad()
def compare_families(folder: Path) -> None:
    """The relative error of the logits of random models."""
    print(f"{'architecture':<24}" + "".join(f"{kind.split()[0]:>10}" for kind in RECIPES))
    tokens = torch.randint(3, 250, (1, 48), generator=torch.Generator().manual_seed(0))
    for family, changes in FAMILIES.items():
        errors = []
        for recipe in RECIPES.values():
            kind = family.removesuffix(", scaled positions")
            model = HFModel(tiny.make(kind, vocab_size=VOCABULARY, **changes)).eval()
            quantize_model(model, recipe or Recipe.uniform(16))
            path = export_gguf(folder / "model.gguf", HFCheckpoint(model, byte_level(), {}))
            expected, found = model(tokens)[0], logits_of(reader(path), tokens[0].tolist())
            errors.append(float((found - expected).norm() / expected.norm()))
        print(f"{family:<24}" + "".join(f"{error:>10.1e}" for error in errors), flush=True)


@torch.no_grad()
def compare_tokenizers(folder: Path) -> None:
    """Whether llama.cpp cuts texts into the same tokens, by each rule."""
    texts = [*PROMPTS, "don't  stop\n\n at  the\tend ", "Zoë's naïve 中文 🙂", "a1234 b", "  two"]
    kinds = {pre: byte_level(pre) for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")}
    kinds["sentencepiece"] = sentencepiece()
    for name, tokenizer in kinds.items():
        model = HFModel(tiny.make("llama", vocab_size=VOCABULARY)).eval()
        llama = reader(export_gguf(folder / "model.gguf", HFCheckpoint(model, tokenizer, {})))
        same = [llama.tokenize(text.encode(), add_bos=False, special=False)
                == tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        print(f"tokens of {name:<14} {sum(same)} of {len(texts)} texts alike", flush=True)


def train(steps: int) -> HFCheckpoint:
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
    return HFCheckpoint(HFModel(model.eval()), tokenizer, {"source": "tales-llama"})


@torch.no_grad()
def greedy(model: torch.nn.Module, tokens: list[int], count: int) -> list[int]:
    """The likeliest continuation."""
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens


@torch.no_grad()
def compare_text(folder: Path, checkpoint: HFCheckpoint, method: str) -> None:
    """Greedy text and the loss on held-out text, of the model and of llama.cpp."""
    state = {name: tensor.clone() for name, tensor in checkpoint.model.model.state_dict().items()}
    tokenizer, corpus = checkpoint.tokenizer, load_corpus("tales")
    held_out = tokenizer(corpus.test[:20_000]).input_ids[:200]
    calibration = sample_windows(torch.tensor(tokenizer(corpus.train[:400_000]).input_ids), 128, 64)
    print(f"{'type':<32}{'greedy alike':>14}{'tokens alike':>14}{'loss here':>11}{'llama.cpp':>11}")
    for kind, recipe in RECIPES.items():
        inner = LlamaForCausalLM(checkpoint.model.model.config)
        inner.load_state_dict(state)
        model = HFModel(inner.eval())
        plan = recipe or Recipe.uniform(16)
        if recipe and method != "nearest":
            plan = Recipe.uniform(recipe.default.bits, method, grid_options=recipe.default.grid_options)
        quantize_model(model, plan, calibration)
        llama = reader(export_gguf(folder / "model.gguf", HFCheckpoint(model, tokenizer, {})))
        alike = []
        for prompt in PROMPTS:
            start = tokenizer(prompt).input_ids
            assert llama.tokenize(prompt.encode(), add_bos=False) == start, prompt
            ours, theirs = greedy(model, start, 60), list(start)
            for _ in range(60):
                theirs.append(int(logits_of(llama, theirs)[-1].argmax()))
            alike.append(next((i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]),
                              len(ours)) - len(start))
        target = torch.tensor(held_out[1:])
        losses = [float(F.cross_entropy(logits, target)) for logits in (
            model(torch.tensor([held_out[:-1]]))[0], logits_of(llama, held_out[:-1]))]
        print(f"{kind:<32}{sum(count == 60 for count in alike):>9} of {len(PROMPTS)}"
              f"{sum(alike):>7} of {60 * len(PROMPTS)}{losses[0]:>11.4f}{losses[1]:>11.4f}", flush=True)
    print("text of llama.cpp:", repr(tokenizer.decode(theirs)))


def main() -> None:
    """Compare architectures, tokenisers, and a trained model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--method", default="gptq")
    arguments = parser.parse_args()
    print(f"llama-cpp-python {__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as place:
        compare_families(Path(place))
        compare_tokenizers(Path(place))
        compare_text(Path(place), train(arguments.steps), arguments.method)


if __name__ == "__main__":
    main()
