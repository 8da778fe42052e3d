# %% [markdown]
# # 03 · nanoGPT: a language model from scratch
#
# {{colab}}
#
# Everything that this course makes small was big first. This notebook builds the big thing: a GPT that writes
# children's stories, one character at a time. You build each part by hand, show that it equals the package's, train a
# small one while you watch, and learn to say in one honest number **how good** a model is. The rest of the course
# rests on that number.
#
# {{cost_card}}
#
# **You will be able to**
#
# - turn text into tokens, and say what exactly a language model is asked;
# - build attention, a block and a whole GPT in a few lines, and explain the mask;
# - convert loss, perplexity and bits per character into each other, and say what a good value is to be compared with;
# - tell a real difference between two models from the luck of the draw;
# - say where the parameters are, what one costs in training, and what temperature, top-k and a key-value cache do.
#
# **You need** Python, a little PyTorch (tensors, `nn.Module`), and what a float32 number is.

# %%
import copy
import math
import re
from itertools import islice

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import nanoq
from nanoq.lm.corpus import load_corpus
from nanoq.lm.evaluate import bits_per_char, paired_difference, perplexity, window_losses, windows
from nanoq.lm.generation import generate, next_token, stream
from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tales import generate_story, tales_grammar
from nanoq.lm.tales.grammar import parse
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.lm.training import TrainConfig, train
from nanoq.teach import check, pick, profile, show, use_style
from nanoq.teach.plots import COLORS

use_style()

# %% [markdown]
# ## 1 · From characters to tokens
#
# - The text is `tales`: simple stories that a program of this course writes, the same on every machine.
# - It comes in three parts. The model learns from `train`; `valid` is looked at during training; `test` is kept for the
#   final number. No story is in two parts.
# - Other texts work too: `"tinystories"`, `"wikitext-2"`, or the path of a text file of your own.

# %%
corpus = load_corpus("tales")
for part in ("train", "valid", "test"):
    print(f"{part:5}  {len(getattr(corpus, part)):>9,} characters")
print()
print(corpus.train[:400])

# %% [markdown]
# A network computes with numbers, so every character gets one, its **token id**. That is all that a tokeniser does.
# Ours is the simplest there is: the sorted list of all characters of the training text, counted from 1. Number 0 is
# kept for characters that the list does not have.

# %%
characters = sorted(set(corpus.train))
id_of = {character: i for i, character in enumerate(characters, start=1)}


def encode(text):
    """Token ids of a text: int64 (T,)."""
    return torch.tensor([id_of.get(character, 0) for character in text])


print(len(characters), "characters:", "".join(characters).replace("\n", "⏎"))
print("Once →", encode("Once").tolist())

# %% [markdown]
# The package has the same in `CharTokenizer`, with a look-up table instead of a dictionary. Same ids, both ways:

# %%
tokenizer = CharTokenizer.from_text(corpus.train)
sample = corpus.test[:2000]
assert torch.equal(encode(sample), tokenizer.encode(sample))
assert tokenizer.decode(tokenizer.encode(sample)) == sample
print(tokenizer.vocab_size, "token ids, the one for unknown characters included")

# %% [markdown]
# **Before you run it.** `tales` has no digits and no accents. What should become of *Zoë has 7 kites.*: an error, a
# shorter list, or something else?
#
# <details><summary>After you have run it</summary>
# The list keeps its length. Each unknown character becomes id 0, and <code>unknown</code> counts them, so that you can
# see how much of a text a model cannot read before you believe any number about it.
# </details>

# %%
strange = "Zoë has 7 kites."
print(tokenizer.encode(strange).tolist())
print(tokenizer.decode(tokenizer.encode(strange)))
print("unknown here:", tokenizer.unknown(strange))
print("unknown in the test part:", tokenizer.unknown(corpus.test))
assert len(tokenizer.encode(strange)) == len(strange) and not tokenizer.unknown(corpus.test)

# %% [markdown]
# ## 2 · What the model is asked
#
# One question only: **which character comes next?** A text of T + 1 characters holds T such questions, and their answers
# too: nobody has to label anything.

# %%
train_tokens = tokenizer.encode(corpus.train)  # (N,), and the other two with N of their own
valid_tokens, test_tokens = tokenizer.encode(corpus.valid), tokenizer.encode(corpus.test)
start = encode("Once upon")  # (9,)
for t in range(1, len(start)):
    print(f"{tokenizer.decode(start[:t])!r:>10} → {tokenizer.decode(start[t : t + 1])!r}")

# %% [markdown]
# The model does not answer with a character but with a **probability for each**. It pays for the probability $p$ that it
# gave to the character that came:
#
# - $-\ln p$ is the **loss** of one question, in *nats*. Sure and right costs nothing; sure and wrong costs a lot.
# - The mean loss over a text is the number that training makes small.

# %%
p = torch.linspace(0.01, 1, 200)  # (200,)
fig, ax = plt.subplots(figsize=(6, 3))
ax.plot(p, -p.log())
for given in (0.05, 0.5, 0.95):
    ax.plot(given, -math.log(given), "o", color=COLORS["vermillion"])
    ax.annotate(f"p = {given}", (given, -math.log(given)), xytext=(6, 8), textcoords="offset points")
ax.set(xlabel="probability given to the character that came", ylabel="loss in nats", xlim=(0, 1.1))
ax.set_title("The price of being surprised")
show(fig, alt="Curve of the loss, minus the logarithm of the probability that was given to the right "
     "character: very high near 0, falling steeply, and 0 at probability 1.")

# %% [markdown]
# ### Two opponents
#
# A number means nothing alone. Two very simple models say what "bad" is:
#
# - **uniform**: every character is equally likely, always;
# - **bigram**: count in the training text how often each character follows each; that is a table, not a network.

# %%
vocab = tokenizer.vocab_size
counts = torch.zeros(vocab, vocab)  # (V, V): row = this character, column = the next one
pairs = (train_tokens[:-1], train_tokens[1:])  # (N - 1,) each
counts.index_put_(pairs, torch.ones(len(pairs[0])), accumulate=True)
bigram = (counts + 1) / (counts + 1).sum(1, keepdim=True)  # (V, V): +1, nothing is impossible
bigram_losses = -bigram.log()[test_tokens[:-1], test_tokens[1:]]  # (N - 1,)
uniform_losses = torch.full_like(bigram_losses, math.log(vocab))  # (N - 1,)
assert torch.allclose(bigram.sum(1), torch.ones(vocab))

# %%
letters = " abcdefghijklmnopqrstuvwxyz"
chosen = encode(letters)  # (27,)
fig, ax = plt.subplots(figsize=(6, 5.2))
image = ax.imshow(bigram[chosen][:, chosen])
ax.set_xticks(range(27), letters.replace(" ", "␣"))
ax.set_yticks(range(27), letters.replace(" ", "␣"))
ax.set(xlabel="next character", ylabel="this character", title="What a bigram model knows")
ax.grid(visible=False)
fig.colorbar(image, label="probability", shrink=0.8)
show(fig, alt="Heat map of the probability of each next letter given this letter. A few cells are "
     "bright: u follows q almost always, e often follows h and v, and a space often follows d "
     "and y.")

# %%
after = {this: letters[int(bigram[id_of[this], chosen].argmax())] for this in "qhvdy"}
print(after)
assert after == {"q": "u", "h": "e", "v": "e", "d": " ", "y": " "}

# %% [markdown]
# ### Loss, perplexity, bits: one number in three units
#
# Think of a fair die with six faces. Whoever predicts it gives each face 1/6 and pays $\ln 6$ nats. Say it in three ways: <!-- claim: MATH 1 / 6 -->
#
# - **loss** $L = \ln 6$ nats: what training works with;
# - **perplexity** $e^L = 6$: how many equally likely faces the die has;
# - **bits** $L / \ln 2$: how many yes-or-no answers are needed on average to tell a face. With characters as tokens this
#   is **bits per character**, and a file compressed with the model needs just as many.

# %%
nats = math.log(6)
bits = nats / math.log(2)
assert math.isclose(math.exp(nats), 6) and math.isclose(2**bits, 6)
print(f"one throw of a die: {nats:.4f} nats = {bits:.4f} bits = perplexity {math.exp(nats):.0f}")

# %% [markdown]
# **Exercise 03.perplexity.** You have the mean loss of each of W windows of text, in nats. What is the perplexity of the
# model on all of them?

# %%
def perplexity_of(losses):
    """Perplexity from window losses in nats (W,), as a float."""
    ### BEGIN SOLUTION
    return math.exp(losses.mean())
    ### END SOLUTION

# %%
check("03.perplexity", perplexity_of)

# %% [markdown]
# **Exercise 03.bits_per_char.** Later you will meet models whose tokens are whole words or parts of words. Per token they
# cannot be compared with ours; per character they can. A model read a text of `characters` characters as `tokens`
# tokens, at a mean loss of `loss` nats a token. How many bits is that for each character?

# %%
def bits_per_character(loss, tokens, characters):
    """Bits per character from the mean loss in nats a token."""
    ### BEGIN SOLUTION
    return loss * tokens / math.log(2) / characters
    ### END SOLUTION

# %%
check("03.bits_per_char", bits_per_character)

# %% [markdown]
# From here on the package's `perplexity` and `bits_per_char`, which are the same with one character a token.

# %%
results = {"uniform": uniform_losses, "bigram": bigram_losses}
print("            nats    bits   perplexity")
for name, losses in results.items():
    print(f"{name:10} {losses.mean():5.2f}   {bits_per_char(losses):5.2f}   {perplexity(losses):10.1f}")
assert math.isclose(perplexity(uniform_losses), vocab, rel_tol=1e-4)
assert math.isclose(2 ** bits_per_char(bigram_losses), perplexity(bigram_losses), rel_tol=1e-9)

# %% [markdown]
# A table of counts has cut the number of open possibilities to a fraction. The uniform model's perplexity is simply the
# size of the vocabulary, as it should be.
#
# ### And what is "perfect"?
#
# Zero? No: nobody can know beforehand whether the hero is called Tom or Mia. For books that people wrote, nobody knows
# how much is left to chance. For `tales` **we do**: the program that writes them makes one weighted random choice after
# the other, and each choice has a probability that we can look up.

# %%
story = generate_story(0)
print(story.text[:160], "…")
print(f"{len(story.choices)} choices, {story.bits:.1f} bits, {len(story.text)} characters")
print(f"{story.bits_per_char:.3f} bits a character (the mark between two stories included)")

# %% [markdown]
# - A choice that was taken with probability $p$ carries $-\log_2 p$ bits. The story carries the sum of its choices.
# - Might the same text come about in a second way? Then the text would be likelier than our sum says. So we search for
#   **all** ways in which the grammar can write this text. There is one.

# %%
ways = list(parse(tales_grammar(), story.text))
assert len(ways) == 1 and math.isclose(ways[0].bits, story.bits)
print("ways to write this story:", len(ways))

# %% [markdown]
# Why can no model do better on average? Take one choice with two outcomes. The truth is that the first comes three times
# in four. You guess a probability and pay for each surprise.
#
# **Before you run it.** Which guess is cheapest in the long run: 0.5, 0.75 or 0.95?
#
# <details><summary>After you have run it</summary>
# The truth, 0.75, and even that is not free. Any other guess costs more, on either side. A bolder guess may be lucky
# on a short text, but not on average: that is why the floor is a floor <i>on average</i>.
# </details>

# %%
truth = torch.tensor(0.75)
guess = torch.linspace(0.02, 0.98, 97)  # (97,)
cost = -truth * guess.log2() - (1 - truth) * (1 - guess).log2()  # (97,): bits a choice, on average
best = int(cost.argmin())
fig, ax = plt.subplots(figsize=(6, 3))
ax.plot(guess, cost)
ax.plot(guess[best], cost[best], "o", color=COLORS["vermillion"])
ax.set(xlabel="guessed probability of the first outcome", ylabel="bits a choice", ylim=(0.5, 3))
ax.set_title("The truth is the cheapest guess")
show(fig, alt="U-shaped curve of the average cost in bits against the guessed probability; the lowest "
     "point, marked, lies at the true probability 0.75 and is well above zero.")
assert math.isclose(guess[best], truth, abs_tol=1e-6) and cost[best] > 0.8

# %% [markdown]
# `corpus.floor` is this sum over the whole test part, in bits per character. No model gets below it on average, not even
# the program that wrote the stories.

# %%
floor_nats = corpus.floor * math.log(2)
lines = {name: bits_per_char(values) for name, values in results.items()} | {"floor": corpus.floor}
fig, ax = plt.subplots(figsize=(6, 2.2))
bars = ax.barh(list(lines), list(lines.values()), color=[COLORS[c] for c in ("orange", "blue", "black")])
ax.bar_label(bars, fmt="%.2f", padding=3)
ax.invert_yaxis()
ax.set(xlabel="bits per character of the test part", title="The room that is left to a network")
show(fig, alt="Three bars, bits per character: the uniform model is the longest, the bigram model about "
     "half as long, the floor far shorter than both.")
assert lines["floor"] < lines["bigram"] / 2 < lines["uniform"] / 2

# %% [markdown]
# ## 3 · The model, by hand
#
# Everything below is checked against the package's `nanoq.lm.model`: we copy the weights of the trained model that ships
# with the course into the parts that you see here, and demand the same numbers.

# %%
shipped = nanoq.load("tales-2.7m")
model, config = shipped.model, shipped.model.config
print(config)
print("children:", [name for name, _ in model.named_children()])

# %% [markdown]
# ### Embedding: a row for each character, a row for each place
#
# - Each token id picks a row of a table, a vector of `width` numbers. So *e* gets the same vector wherever it stands.
# - Each position picks a row of a second table, and the two are added. So *e* in place 3 differs from *e* in place 7.

# %%
B, T, C = 2, 40, config.width
tokens = torch.stack([shipped.tokenizer.encode(corpus.test[i : i + T]) for i in (0, 500)])  # (B, T)
with torch.no_grad():
    x = model.token_embedding.weight[tokens] + model.position_embedding.weight[:T]  # (B, T, C)
    assert torch.equal(x, model.embed(tokens))
print(tuple(tokens.shape), "→", tuple(x.shape))

# %% [markdown]
# ### Attention: who may look at whom
#
# So far each place knows only itself. **Attention** is the one part of the model in which places exchange information.
# First the rule, as a picture: a row is a place that *reads*, a column a place that is *read*.

# %%
word = "the cat"
allowed = torch.ones(len(word), len(word), dtype=torch.bool).tril()  # (7, 7)
fig, ax = plt.subplots(figsize=(3.8, 3.8))
ax.imshow(allowed, cmap="Blues", vmin=0, vmax=1.6)
ax.set_xticks(range(len(word)), word.replace(" ", "␣"))
ax.set_yticks(range(len(word)), word.replace(" ", "␣"))
ax.set(xlabel="is read", ylabel="reads", title="Blue: may be read")
ax.grid(visible=False)
show(fig, alt="Square of 7 by 7 cells, one row and one column for each character of 'the cat'. The "
     "diagonal and everything below it is blue: each place may read itself and what stands "
     "before it.")

# %% [markdown]
# **Why the white half?** All questions of a window are answered at once. If place 2 could read place 3, it would see the
# very character that it has to predict; training would look wonderful, and the model could not write a word.
#
# **Exercise 03.mask.** Write the blue half for T places: a boolean (T, T) tensor, `True` where reading is allowed.

# %%
def causal_mask(T):
    """bool (T, T): may row t read column s?"""
    ### BEGIN SOLUTION
    return torch.ones(T, T, dtype=torch.bool).tril()
    ### END SOLUTION

# %%
check("03.mask", causal_mask)

# %% [markdown]
# ### Attention: how much of whom
#
# Each place makes three vectors out of its own: a **query** (what am I looking for?), a **key** (what have I got?), and a
# **value** (what do I pass on?). Three steps, here with random queries and keys of width 4:
#
# 1. *score*: the dot product of each query with each key;
# 2. *mask*: what may not be read gets the score minus infinity;
# 3. *softmax*: each row becomes weights that sum to one.

# %%
generator = torch.Generator().manual_seed(2)
q, k, v = torch.randn(3, len(word), 4, generator=generator)  # each (7, 4)
scores = q @ k.mT / 4**0.5  # (7, 7)
masked = scores.masked_fill(~allowed, -torch.inf)  # (7, 7)
weights = masked.softmax(-1)  # (7, 7)
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2))
stages = {"1. score": scores, "2. mask": masked, "3. softmax": weights}
for ax, (title, values) in zip(axes, stages.items(), strict=True):
    ax.imshow(values.masked_fill(values.isinf(), torch.nan))
    ax.set_xticks(range(len(word)), word.replace(" ", "␣"))
    ax.set_yticks(range(len(word)), word.replace(" ", "␣"))
    ax.set(title=title)
    ax.grid(visible=False)
show(fig, alt="Three heat maps of 7 by 7 cells. First a score in each cell, then the same with the half "
     "above the diagonal left white, then weights: the first row has all its weight on itself, "
     "later rows share it out.")
assert torch.allclose(weights.sum(-1), torch.ones(len(word))) and weights[0, 0] == 1

# %% [markdown]
# Now the formula says nothing new. With the mask $M$ (0 where reading is allowed, $-\infty$ where not) and keys of width
# $d$:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt d} + M\right) V$$
#
# The last product is a weighted mean: each place gets a mix of the values that it reads. And why $\sqrt d$?

# %%
for d in (4, 64, 1024):
    a, b = torch.randn(2, 4000, d, generator=generator)  # (4000, d) each
    dots = (a * b).sum(-1)  # (4000,)
    print(f"width {d:>4}: typical score {dots.std():5.1f}, divided by √d {dots.std() / d**0.5:.1f}")
    assert math.isclose(dots.std() / d**0.5, 1, abs_tol=0.1)

# %% [markdown]
# The sum of $d$ random products is of size $\sqrt d$. Undivided, wide models would have huge scores, and softmax would put
# all its weight on one place before training has begun.
#
# **Exercise 03.attention.** Write the weights, that is everything but the product with $V$, for one head: queries and keys
# (T, d) in, causal weights (T, T) out. (Two traps: the axis of the softmax, and the order of mask and softmax.)

# %%
def attention_weights(q, k):
    """Causal attention weights (T, T) of queries and keys, both (T, d)."""
    ### BEGIN SOLUTION
    T, d = q.shape
    scores = q @ k.mT / d**0.5  # (T, T)
    scores = scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -torch.inf)
    return scores.softmax(-1)  # (T, T)
    ### END SOLUTION

# %%
check("03.attention", attention_weights)

# %% [markdown]
# PyTorch has the whole formula as one fast function, which the package uses. It never stores the (T, T) table; the result
# is the same.

# %%
fast = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]  # (7, 4)
assert torch.allclose(fast, weights @ v, atol=1e-6)
print("by hand equals torch:", tuple(fast.shape))

# %% [markdown]
# ### Several heads
#
# One table of weights is one way of looking. A **head** is one such table; the model's width is split among the heads,
# each does its own attention on its share, and a last matrix, `out`, mixes what they bring back. One matrix, `qkv`,
# makes all queries, keys and values at once.

# %%
class HandAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.heads, C // self.heads)  # (B, T, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
        future = torch.ones(T, T, dtype=torch.bool).triu(1)  # (T, T)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf)  # (B, heads, T, T)
        y = scores.softmax(-1) @ v  # (B, heads, T, d)
        return self.out(y.transpose(1, 2).reshape(B, T, C))  # (B, T, C)

# %% [markdown]
# The proof, and it will be the same three lines for each part: make ours, copy the package's weights, compare.

# %%
def same(hand, package, x):
    """Copy the package's weights into the hand-built part and compare what the two make of x."""
    hand.load_state_dict(package.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(hand(x), package(x), atol=1e-4, rtol=1e-4)
    print(type(hand).__name__, "equals", type(package).__name__, "on", tuple(x.shape))


same(HandAttention(C, config.heads), model.blocks[0].attention, x)

# %% [markdown]
# ### Norm and MLP
#
# - The **norm** brings each place's vector to mean 0 and variance 1, then stretches each channel by a learnt gain. It keeps
#   the numbers of a deep network in a sane range.
# - The **MLP** works on each place alone: up to four times the width, a bend (GELU), and down again.

# %%
class HandNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)  # (B, T, C)
        variance = (centred**2).mean(-1, keepdim=True)  # (B, T, 1)
        return self.weight * centred / (variance + 1e-5).sqrt()  # (B, T, C)


same(HandNorm(C), model.blocks[0].attention_norm, x)

# %%
class HandMLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))  # (B, T, C) → (B, T, 4 C) → (B, T, C)


same(HandMLP(C), model.blocks[0].mlp, x)

# %% [markdown]
# ### Block and model
#
# A **block** reads its input through a norm and *adds* what it finds: first attention, then MLP. The sum that runs
# through all blocks is called the **residual stream**; each part reads from it and writes to it.

# %%
class HandBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention_norm, self.attention = HandNorm(width), HandAttention(width, heads)
        self.mlp_norm, self.mlp = HandNorm(width), HandMLP(width)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))  # (B, T, C)
        return x + self.mlp(self.mlp_norm(x))  # (B, T, C)


same(HandBlock(C, config.heads), model.blocks[0], x)

# %% [markdown]
# The **model**: embed, run the blocks, norm, and compare each place's vector with the row of every character: the dot
# products are the **logits**, and softmax makes probabilities of them. The table that reads characters in is the one that
# writes them out (the head is *tied*), so it is there only once.

# %%
class HandGPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(HandBlock(config.width, config.heads) for _ in range(config.layers))
        self.final_norm = HandNorm(config.width)

    def forward(self, tokens):
        T = tokens.shape[1]
        x = self.token_embedding(tokens) + self.position_embedding.weight[:T]  # (B, T, C)
        for block in self.blocks:
            x = block(x)  # (B, T, C)
        return self.final_norm(x) @ self.token_embedding.weight.mT  # (B, T, V)


hand = HandGPT(config)
same(hand, model, tokens)

# %% [markdown]
# That is a GPT. Now test the one promise that everything rests on: **no place knows the future**.
#
# **Before you run it.** We change one character of the window, the one in place 20. Which places' logits may change?
#
# <details><summary>After you have run it</summary>
# Place 20 and those after it. Everything before is the same to the last bit: the mask works in all layers together.
# </details>

# %%
changed = tokens[:1].clone()  # (1, T)
changed[0, 20] = shipped.tokenizer.encode("z")
with torch.no_grad():
    differs = (hand(changed) != hand(tokens[:1])).any(-1)[0]  # (T,)
print("first place that differs:", int(differs.nonzero()[0]))
print("how many differ:", int(differs.sum()), "of", T)
assert not differs[:20].any() and differs[20:].all()

# %% [markdown]
# ### What a trained model looks at
#
# We run a real sentence of the test part through the shipped model and keep every head's weights. With as many tables as
# this, ask a question: which head looks most at **the character just before**, and which looks **furthest back**?

# %%
@torch.no_grad()
def attention_patterns(model, tokens):
    """Attention weights of all heads on tokens (1, T): (layers, heads, T, T)."""
    x, T, patterns = model.embed(tokens), tokens.shape[1], []
    future = torch.ones(T, T, dtype=torch.bool).triu(1)  # (T, T)
    for block in model.blocks:
        qkv = block.attention.qkv(block.attention_norm(x))[0]  # (T, 3 C)
        q, k, _ = qkv.view(T, 3, block.attention.heads, -1).permute(1, 2, 0, 3)  # (heads, T, d) each
        scores = q @ k.mT / q.shape[-1] ** 0.5  # (heads, T, T)
        patterns.append(scores.masked_fill(future, -torch.inf).softmax(-1))  # (heads, T, T)
        x = block(x)
    return torch.stack(patterns)


sentence = corpus.test[:44]
patterns = attention_patterns(model, shipped.tokenizer.encode(sentence)[None])  # (layers, heads, T, T)
assert torch.allclose(patterns.sum(-1), torch.ones(patterns.shape[:3]))
assert patterns.triu(1).max() == 0
print("layers, heads, reads, is read:", tuple(patterns.shape))

# %% tags=["measured"]
places = torch.arange(len(sentence))
previous = patterns.diagonal(-1, -2, -1).mean(-1)  # (layers, heads): weight on the place before
distance = (patterns * (places[:, None] - places)).sum(-1).mean(-1)  # (layers, heads): places back
near, far = (divmod(int(score.argmax()), config.heads) for score in (previous, distance))
print(f"layer {near[0]} head {near[1]} puts {previous[near]:.0%} of its weight on the character just before")
print(f"layer {far[0]} head {far[1]} looks back {distance[far]:.1f} characters on average")

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 5.7))
for ax, (layer, head), title in zip(axes, (near, far), ("nearest", "furthest"), strict=True):
    ax.imshow(patterns[layer, head], vmin=0)
    ax.set_xticks(places, sentence.replace(" ", "␣"), fontsize=7)
    ax.set_yticks(places, sentence.replace(" ", "␣"), fontsize=7)
    ax.set(xlabel="is read", ylabel="reads", title=f"{title}: layer {layer}, head {head}")
    ax.grid(visible=False)
show(fig, alt="Two attention tables of the shipped model on the first words of a story. Left, the head "
     "that looks most at the character just before: bright cells along the line below the "
     "diagonal. Right, the head that looks furthest back.")
assert previous[near] > 0.5 and distance[far] > 2 * distance[near]

# %% [markdown]
# Nobody asked for such a division of labour. It came out of the one question, *which character comes next?*
#
# ## 4 · Where the parameters are, and what one costs
#
# **Before you run it.** Which part holds most of the parameters: the embeddings, the attention matrices or the MLPs?
#
# <details><summary>After you have run it</summary>
# The MLPs hold twice as many as attention, and the two together nearly everything. These matrices are what the rest of
# the course quantises; the embeddings and norms are left alone at first because they are few.
# </details>

# %%
kinds = {"MLP": ".mlp.", "attention": ".attention."}
kinds |= {"positions": "position_embedding", "characters": "token_embedding", "norms": "norm"}
numbers = {name: p.numel() for name, p in model.named_parameters()}
sizes = {kind: sum(n for name, n in numbers.items() if key in name) for kind, key in kinds.items()}
assert sum(sizes.values()) == model.parameter_count()
fig, ax = plt.subplots(figsize=(7, 2.8))
bars = ax.barh(list(sizes), [n / 1000 for n in sizes.values()], color=COLORS["blue"])
ax.bar_label(bars, labels=[f"{n:,}" for n in sizes.values()], padding=3)
ax.invert_yaxis()
ax.set(xlabel="thousand parameters", xlim=(0, max(sizes.values()) / 850))
ax.set_title(f"{model.parameter_count():,} parameters")
show(fig, alt="Bars of the number of parameters in each part: the MLPs are longest, attention half as "
     "long; positions, characters and norms are tiny beside them.")
assert sizes["MLP"] == 2 * sizes["attention"]
assert sizes["MLP"] + sizes["attention"] > 0.95 * model.parameter_count()

# %% [markdown]
# **Exercise 03.block_parameters.** How many parameters has one block of width `width` with `heads` heads, without biases?
# Count the matrices in `HandAttention` and `HandMLP`, then do not forget what is left.

# %%
def block_parameters(width, heads):
    """Number of parameters of one block."""
    ### BEGIN SOLUTION
    attention = 3 * width * width + width * width  # qkv and out; the heads share the width
    mlp = 2 * 4 * width * width  # up and down
    norms = 2 * width
    return attention + mlp + norms
    ### END SOLUTION

# %%
check("03.block_parameters", block_parameters)

# %% [markdown]
# ### The price of a parameter
#
# To **run** a model you need its weights. To **train** it you need more. Do not believe a table, count: one step of
# AdamW on a small model, and then add up the bytes of every tensor that is there.

# %%
small_config = GPTConfig(tokenizer.vocab_size, context=128, layers=4, heads=4, width=96)
tiny = GPT(small_config)
optimizer = torch.optim.AdamW(tiny.parameters())
tiny(train_tokens[None, :128]).mean().backward()
optimizer.step()
states = list(optimizer.state.values())
held = {
    "weight": sum(p.nbytes for p in tiny.parameters()),
    "gradient": sum(p.grad.nbytes for p in tiny.parameters()),
    "first moment": sum(state["exp_avg"].nbytes for state in states),
    "second moment": sum(state["exp_avg_sq"].nbytes for state in states),
}
for name, size in held.items():
    print(f"{name:14} {size / tiny.parameter_count():.0f} bytes a parameter")

# %% [markdown]
# **Exercise 03.training_bytes.** So how many bytes do weights, gradients and AdamW take together, in fp32, for a model of
# `parameters` parameters? (Activations come on top; they depend on the batch, not on the parameters.)

# %%
def training_bytes(parameters):
    """Bytes of weights, gradients and AdamW's state in fp32."""
    ### BEGIN SOLUTION
    return parameters * (4 + 4 + 4 + 4)
    ### END SOLUTION

# %%
check("03.training_bytes", training_bytes)

# %%
n = model.parameter_count()
moments = ["first moment", "second moment"]
kept = {"run": ["weight"], "save with AdamW": ["weight", *moments], "train": list(held)}
print("                 bytes a parameter   ours     175 billion parameters")
for name, parts in kept.items():
    each = sum(held[part] for part in parts) // tiny.parameter_count()
    print(f"{name:16} {each:>17} {n * each / 1e6:>6.1f} MB {175 * each:>21,} GB")

# %% [markdown]
# Two things to remember for the rest of the course:
#
# - Quantising weights attacks the first line. The other two are a matter of training only.
# - Some "compressions" on the net compare a file of the second kind with a quantised file of the first kind. That makes a
#   factor of three out of nothing; notebook 04 takes one such claim apart.

# %% [markdown]
# ## 5 · Train one, now
#
# - A small GPT on `tales`, in a minute or two: fewer layers, narrower, a shorter context than the shipped one.
# - The recipe is the package's: **Muon** for the matrices of the blocks, AdamW for the rest, a short warm-up, then a
#   falling learning rate. Each step reads a batch of windows, computes the mean loss, and moves the weights against it.
#
# **Before you run it.** The bigram model needed one look at the text. Will the network be better than it after one
# minute? Where will the very first loss be? (One of the two opponents tells you.)
#
# <details><summary>After you have run it</summary>
# It starts near the uniform line, since it knows nothing, and falls below the bigram line, which it can cross because
# it sees more than one character. The floor is still far away.
# </details>

# %%
small = GPT(small_config, seed=1)
first_loss = float(window_losses(small, valid_tokens, limit=16).mean())
recipe = TrainConfig(
    tokens=pick(ci=120_000, lab=800_000, full=8_000_000), batch=16, warmup=20,
    evaluate_every=pick(ci=10, lab=20, full=200), valid_windows=32,
)
history = train(small, train_tokens, valid_tokens, recipe)
last = history[-1]
print(f"{small.parameter_count():,} parameters; a step reads {recipe.batch * small_config.context:,} characters")

# %%
fig, ax = plt.subplots()
read = [0] + [row["characters"] / 1000 for row in history]
ax.plot(read, [first_loss] + [row["valid_loss"] for row in history], "o-", ms=3)
levels = {"uniform": math.log(vocab), "bigram": float(bigram_losses.mean()), "floor": floor_nats}
for (name, level), color in zip(levels.items(), ("orange", "vermillion", "black"), strict=True):
    ax.axhline(level, color=COLORS[color], ls="--", lw=1.5)
    ax.text(1.01, level, name, color=COLORS[color], va="center", transform=ax.get_yaxis_transform())
ax.set(xlabel="thousand characters read", ylabel="nats a character, validation part", ylim=(0, None))
ax.set_title("Learning to predict")
show(fig, alt="Line plot of the validation loss against the characters read, with three dashed lines. "
     "The loss starts at the uniform line, falls fast to the bigram line, then on towards the "
     "floor, which stays well below it.")
assert math.isclose(first_loss, levels["uniform"], rel_tol=0.05)
assert profile() == "ci" or history[-1]["valid_loss"] < levels["bigram"]
assert levels["floor"] < history[-1]["valid_loss"] < first_loss - 1

# %% [markdown]
# What does it write? It has found many words, and the rhythm of sentences; sense will take longer. We count how many of
# its words stand in the training text (the last one is left out, it may be cut).

# %% tags=["measured"]
dictionary = set(re.findall("[a-z]+", corpus.train.lower()))


def share_of_words(text):
    """Share of the words of a text that stand in the training text."""
    words = re.findall("[a-z]+", text.lower())[:-1]
    return sum(word in dictionary for word in words) / len(words)


written = generate(small, tokenizer, "Once upon a time", length=300, temperature=0.8)
print(written, f"\n\n{share_of_words(written):.0%} of the words exist")

# %%
assert profile() == "ci" or share_of_words(written) > 0.5

# %% [markdown]
# ## 6 · The shipped model, measured
#
# The shipped one is larger and has read far more. Its card says what it is and where it comes from.

# %% tags=["measured"]
for key, value in shipped.card.items():
    if key not in ("characters", "config", "versions") and "sha256" not in key:
        print(f"{key:24} {str(value)[:90]}")

# %% [markdown]
# First **one** window by hand: logits, log-probabilities, those of the characters that came, and the mean.

# %%
test_ids = shipped.tokenizer.encode(corpus.test)  # (N,): the model's own ids
rows = windows(test_ids, config.context, limit=pick(ci=24, lab=256, full=None))  # (W, 257)
with torch.no_grad():
    logits = model(rows[:1, :-1])[0]  # (256, V)
log_p = logits.log_softmax(-1)  # (256, V)
came = rows[0, 1:]  # (256,)
by_hand = -log_p[torch.arange(len(came)), came]  # (256,)
package = window_losses(model, rows[0])  # (1,)
assert math.isclose(by_hand.mean(), package[0], rel_tol=1e-4)
assert math.isclose(math.exp(by_hand.mean()), perplexity(package), rel_tol=1e-4)
assert math.isclose(by_hand.mean() / math.log(2), bits_per_char(package), rel_tol=1e-4)
print("one window by hand equals nanoq.lm.evaluate:", len(came), "questions")

# %% [markdown]
# Now many windows, and we keep the loss of every single question: a table (W, T), windows by places.

# %%
@torch.no_grad()
def question_losses(model, rows):
    """Loss of every question of windows (W, T + 1), in nats: (W, T)."""
    losses = []
    for part in rows.split(16):
        logits = model(part[:, :-1])  # (B, T, V)
        losses.append(F.cross_entropy(logits.mT, part[:, 1:], reduction="none"))  # (B, T)
    return torch.cat(losses).double()


table = question_losses(model, rows)  # (W, T)
losses = table.mean(1)  # (W,)
assert torch.allclose(losses[:1], package, rtol=1e-4)
small_losses = window_losses(small, test_tokens, limit=2 * len(rows))  # its windows are half as long

# %% tags=["measured"]
results |= {"small GPT": small_losses, "shipped GPT": losses, "floor": torch.tensor([floor_nats])}
print("              nats    bits   perplexity")
for name, values in results.items():
    print(f"{name:11} {values.mean():6.3f}  {bits_per_char(values):6.3f}   {perplexity(values):10.3f}")
gap = bits_per_char(losses) - corpus.floor
print(f"\nthe shipped model is {gap:.3f} bits per character above the floor")

# %%
assert floor_nats < losses.mean() < bigram_losses.mean() < uniform_losses.mean()
assert perplexity(losses) < perplexity(small_losses)

# %% [markdown]
# ### Where the gap comes from
#
# Each window starts in the middle of a story, and the model knows nothing of what came before.
#
# **Before you run it.** Draw the mean loss against the place in the window, from the first question to the last.
#
# <details><summary>After you have run it</summary>
# The first few places are the most expensive: whose story is it, and in which word are we? The floor assumes a
# reader who knows the story from its first character. So part of the gap is the short memory, but only a small part.
# </details>

# %%
by_place = table.mean(0)  # (T,)
fig, ax = plt.subplots(figsize=(7, 3.4))
place = torch.arange(1, len(by_place) + 1)  # (T,)
ax.plot(place, by_place / math.log(2), lw=1, color=COLORS["sky"], label="mean over windows")
blocks = by_place[: len(by_place) // 16 * 16].view(-1, 16).mean(1)  # (T / 16,)
ax.plot(place[7::16], blocks / math.log(2), "o-", ms=4, label="the same, 16 places together")
ax.axhline(corpus.floor, color=COLORS["black"], ls="--", lw=1.5, label="floor")
ax.set(xlabel="place in the window", ylabel="bits per character", ylim=(0, None))
ax.set_title("The beginning of a window is dear")
ax.legend()
show(fig, alt="Line plot of bits per character against the place in the window: high in the first few "
     "places, falling quickly, then nearly level, above the dashed line of the floor.")
assert by_place[:4].mean() > 1.5 * by_place[64:].mean()

# %% tags=["measured"]
late = float(by_place[-64:].mean()) / math.log(2)  # bits per character with most of a window read
print(f"above the floor: {gap:.3f} bits per character on average, {late - corpus.floor:.3f} at the end of a window")

# %%
assert late - corpus.floor > 0.5 * gap > 0

# %% [markdown]
# Most of the gap is there at the end of a window too. It belongs to the model, which is small and could have been
# trained longer, and to stories that began before the window did.
#
# ## 7 · How sure is the number?
#
# Later notebooks will say that one quantised model is better than another. May they? Look at how much the loss differs
# from window to window: some windows are easy, some are hard.
#
# Suppose someone evaluates a model on windows drawn **at random**, then draws new ones for the next model, because nobody
# reset the random generator. We do it with the *same* model twice.

# %% tags=["measured"]
generator = torch.Generator().manual_seed(1337)
size = (pick(ci=16, lab=64, full=256), 1)
for draw in ("first", "second"):
    starts = torch.randint(len(test_ids) - config.context, size, generator=generator)  # (n, 1)
    drawn = question_losses(model, test_ids[starts + torch.arange(config.context + 1)]).mean(1)  # (n,)
    print(f"{draw:6} draw of {len(drawn)} windows: perplexity {perplexity(drawn):.4f}")
print(f"\none window differs from the next by about {losses.std():.3f} nats")

# %% [markdown]
# The same model, two "results". More windows help, but slowly: the luck of the draw shrinks with the square root of
# their number.
#
# The student project that this course grew from drew 12,800 random windows for each of three models (fp32, naive int8,
# GPTQ int8), without a reset. It published its table twice, for the same checkpoints and the same test text:

# %%
published = {
    "13 Dec 2025": {"fp32": 2.7769, "naive": 2.7696, "GPTQ": 2.7771},
    "13 Jan 2026": {"fp32": 2.76, "naive": 2.78, "GPTQ": 2.76},
}
for date, scores in published.items():
    print(date, scores, "→ naive is", "best" if scores["naive"] == min(scores.values()) else "worst")
first, second = published.values()
assert first["naive"] == min(first.values()) and second["naive"] == max(second.values())

# %% [markdown]
# Once naive rounding is better than not rounding at all, once it is the worst. Is that signal or noise? Two questions,
# and we can answer both with our own model:
#
# 1. How far apart do **three scores of one and the same model** lie, with 12,800 windows drawn anew for each? (We draw
#    with replacement from the windows that we have measured.)
# 2. How large is the thing they wanted to see, the **true effect of int8**? Round a copy, and compare on the *same*
#    windows, window by window.

# %%
generator = torch.Generator().manual_seed(0)
spreads = []
for _ in range(pick(ci=100, lab=500, full=2000)):
    drawn = torch.randint(len(losses), (3, 12_800), generator=generator)  # (3, 12800)
    scores = losses[drawn].mean(1)  # (3,): the same model, three times
    spreads.append(float(scores.max() - scores.min()))
spreads = torch.tensor(spreads)  # (trials,)

# %%
rounded = copy.deepcopy(model)
with torch.no_grad():
    for matrix in (p for p in rounded.blocks.parameters() if p.dim() == 2):
        scale = matrix.abs().amax(1, keepdim=True) / 127  # (out, 1): notebook 04 explains this line
        matrix.copy_((matrix / scale).round() * scale)  # (out, in)
effect = paired_difference(question_losses(rounded, rows).mean(1), losses)

# %% [markdown]
# **Before you run it.** Which is larger, the spread of one model with itself or the effect of int8? By how much?

# %% tags=["measured"]
size = max(abs(effect.low), abs(effect.high))
claimed = math.log(first["GPTQ"] / first["naive"])  # a ratio of perplexities is a difference in nats
print(f"three scores of one model, best to worst: {spreads.median():.5f} nats (median)")
print(f"published, first table, best to worst:    {claimed:.5f} nats")
print(f"int8 changes the loss by {effect.mean:+.5f} nats, between {effect.low:+.5f} and {effect.high:+.5f}")

# %%
fig, ax = plt.subplots(figsize=(7, 3.2))
ax.hist(1000 * spreads, bins=30, color=COLORS["sky"], label="one model, three draws: best to worst")
ax.axvline(1000 * size, color=COLORS["vermillion"], label="true effect of int8, at most")
ax.axvline(1000 * claimed, color=COLORS["black"], ls="--", label="published, first table")
ax.set(xlabel="difference in loss, thousandths of a nat", ylabel="how often", xlim=(0, None))
ax.set(title="Noise, and what it hides", ylim=(0, 1.6 * ax.get_ylim()[1]))
ax.legend(loc="upper right")
show(fig, alt="Histogram of the spread between three scores of one and the same model. The true effect "
     "of int8, a line at the left, is smaller than most of the spreads; the published "
     "difference is a dashed line.")
assert size < spreads.median()

# %% [markdown]
# - The luck of the draw is larger than the effect. Such a table cannot rank the three models, in either order.
# - (Our model and text are others than theirs, so compare sizes, not digits.)
# - The remedy costs nothing: **all** windows of the test part, **fixed**, the same for every model, and the difference
#   taken **window by window**. What makes a window hard makes it hard for both models, and cancels out.

# %%
again = question_losses(model, rows[:16]).mean(1)  # (16,)
print("the same model on the same windows:", bool(torch.allclose(again, losses[:16], rtol=1e-6)))
assert torch.allclose(again, losses[:16], rtol=1e-6)
assert effect.high - effect.low < spreads.median()

# %% [markdown]
# ## 8 · Writing
#
# To write, ask the model for the next character, **draw** one from its probabilities, append it, and ask again. One knob
# decides how bold the drawing is. First the picture:

# %%
prompt = "Once upon a time, there was a "
with torch.no_grad():
    logits = model(shipped.tokenizer.encode(prompt)[None])[0, -1]  # (V,)
top = logits.topk(8).indices  # (8,)
fig, ax = plt.subplots(figsize=(7, 3.2))
for i, temperature in enumerate((0.5, 1.0, 2.0)):
    share = (logits / temperature).softmax(0)[top]  # (8,)
    ax.bar(torch.arange(8) + 0.27 * (i - 1), share, width=0.27, label=f"temperature {temperature}")
ax.set_xticks(range(8), [shipped.tokenizer.decode([i]) for i in top])
ax.set(xlabel="next character", ylabel="probability", title=f"After “{prompt}…”")
ax.legend()
show(fig, alt="Grouped bars: probabilities of the eight likeliest next characters at three "
     "temperatures. A low temperature makes the likeliest characters likelier still; a high "
     "one makes all more equal.")
sharpest = [float((logits / t).softmax(0).max()) for t in (0.5, 1.0, 2.0)]
assert sharpest == sorted(sharpest, reverse=True)

# %% [markdown]
# **Exercise 03.temperature.** Probabilities (V,) from logits (V,) at a temperature: 1 leaves them, below 1 sharpens, above
# 1 flattens.

# %%
def probabilities(logits, temperature):
    """Probabilities (V,) of the next token."""
    ### BEGIN SOLUTION
    return (logits / temperature).softmax(0)
    ### END SOLUTION

# %%
check("03.temperature", probabilities)

# %% [markdown]
# Even an unlikely character is drawn now and then, and one wrong letter can derail a sentence. **Top-k** cuts the tail
# off: only the k likeliest remain in the draw.
#
# **Exercise 03.top_k.** Return the logits with all but the k largest made impossible, in the same shape. (Think of the
# mask in attention. You may take it that no two logits are equal.)

# %%
def keep_top_k(logits, k):
    """Logits (V,), those outside the k largest made impossible."""
    ### BEGIN SOLUTION
    smallest_kept = logits.topk(k).values[-1]  # ()
    return logits.masked_fill(logits < smallest_kept, -torch.inf)
    ### END SOLUTION

# %%
check("03.top_k", keep_top_k)

# %% [markdown]
# The package's `next_token` does both, then draws. A test that does not depend on luck: draw often and compare the shares
# with the probabilities.

# %%
generator = torch.Generator().manual_seed(0)
draws = torch.cat([next_token(logits, 0.8, 4, generator) for _ in range(2000)])  # (2000,)
share = torch.bincount(draws, minlength=config.vocab_size) / 2000  # (V,)
four = logits.topk(4)  # values and ids, (4,) each
expected = torch.zeros_like(logits).scatter(0, four.indices, (four.values / 0.8).softmax(0))  # (V,)
assert (share > 0).sum() <= 4 and (share - expected).abs().max() < 0.05
print("only four characters drawn, each as often as it should be")

# %% [markdown]
# The same prompt and the same seed at three temperatures, and then top-k at the highest.
#
# **Before you run it.** Which of the four will have the most words that do not exist?

# %% tags=["measured"]
length, existing = pick(ci=160, lab=300, full=400), []
for temperature, top_k in ((0.3, None), (0.8, None), (1.5, None), (1.5, 3)):
    written = generate(
        model, shipped.tokenizer, prompt, length, temperature=temperature, top_k=top_k, seed=3
    )
    existing.append(share_of_words(written))
    print(f"temperature {temperature}, top-k {top_k}: {existing[-1]:.0%} of the words exist")
    print(written, "\n")

# %%
assert existing[2] < min(existing[0], existing[3])

# %% [markdown]
# Low is safe, high is inventive and misspells, and top-k takes back some of the misspelling. The prettiest text
# is not the best model: only the numbers of sections 6 and 7 say which model is better.
#
# ### Do not read everything again: the key-value cache
#
# To write the next character, the model needs the keys and values of all characters before it. They do not change when
# the text grows (the mask!), so one can keep them. How much work does that save? Count the places that go through the
# model, with a hook on the first layer.

# %%
read_places = []
hook = model.token_embedding.register_forward_hook(
    lambda module, inputs, output: read_places.append(inputs[0].numel())
)
new, ids = 60, shipped.tokenizer.encode(prompt)  # ids: (30,)

text = ids
with torch.inference_mode():
    for _ in range(new):  # without: read all, every time
        text = torch.cat((text, model(text[None])[0, -1].argmax(keepdim=True)))  # (T + 1,)
without = list(read_places)

read_places.clear()
cached = list(islice(stream(model, ids, temperature=0), new))  # with: the package keeps a cache
hook.remove()
assert cached == text[len(ids) :].tolist()
print(f"{len(ids)} characters of prompt, {new} new ones, the same text both ways")
print(f"places computed: {sum(without)} without a cache, {sum(read_places)} with it")

# %%
fig, ax = plt.subplots(figsize=(6, 3.2))
ax.plot(range(1, new + 1), torch.tensor(without).cumsum(0), label="without: read all again")
ax.plot(range(1, new + 1), torch.tensor(read_places).cumsum(0), label="with a cache")
ax.set(xlabel="new characters", ylabel="places computed so far", title="The work of writing")
ax.legend()
show(fig, alt="Line plot of the places computed against the number of new characters: without a cache "
     "the curve bends upwards, with a cache it is a nearly flat line.")
assert read_places == [len(ids)] + [1] * (new - 1) and without == list(range(len(ids), len(ids) + new))

# %% [markdown]
# **Exercise 03.positions.** Write both counts as formulas, for a prompt of `prompt` characters and `new` new ones. Look at
# the lists in the last assertion: the prompt is read once, and the last new character is never read.

# %%
def positions(prompt, new, cached):
    """Number of places computed to write `new` characters after a prompt."""
    ### BEGIN SOLUTION
    if cached:
        return prompt + new - 1
    return sum(prompt + i for i in range(new))
    ### END SOLUTION

# %%
check("03.positions", positions)

# %% [markdown]
# The cache turns a square into a line, and pays with memory: two vectors for each place and each layer. With a cache,
# each new character needs **every weight once, for one place's worth of arithmetic**: the time goes into fetching the
# weights from memory. That is why fewer bits a weight can mean faster writing, and not only a smaller file.

# %%
cache_bytes = 2 * config.layers * config.context * config.width * 4
weight_bytes = 4 * model.parameter_count()
print(f"in fp32: keys and values of a full context {cache_bytes:,} bytes, the weights {weight_bytes:,} bytes")
assert cache_bytes < weight_bytes

# %% [markdown]
# ## Summary
#
# - A language model answers one question, which character comes next, with a probability for each.
# - A GPT is embeddings, blocks (attention that may only look back, and an MLP, each added to the residual stream), a norm
#   and a tied head. You built it, and it equals the package's.
# - Loss, perplexity and bits per character are one number in three units. It needs company: uniform and bigram above,
#   and on `tales` a floor below that no model beats on average.
# - Compare models on all windows, fixed, pairwise. Random windows can hide an effect, or invent one.
# - Nearly all parameters are in the matrices of the blocks. A parameter costs 4 bytes to run and 16 to train in fp32.
#   <!-- claim: MATH 32 / 8; MATH 4 * (1 + 1 + 2) -->
# - Temperature and top-k change the drawing, not the model; the cache changes the work, not the text.
#
# ## What next
#
# - **04 · Naive rounding** takes the matrices of this model from 32 bits to 8, 4, 3 and 2.
# - To go further here: train on a text of your own (`load_corpus("my.txt")`), or set `NANOQ_PROFILE=full` and let the
#   small one read ten times as much. Does it come closer to the floor than the first points of the curve promise?
#
# ## Further reading
#
# - Vaswani et al., *Attention Is All You Need*, arXiv 1706.03762: the Transformer.
# - Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019: the GPT-2 report, whose pre-norm block
#   and scaled initial weights our model follows.
# - Eldan and Li, *TinyStories: How Small Can Language Models Be and Still Speak Coherent English?*, arXiv 2305.07759.
# - Karpathy, *nanoGPT*, github.com/karpathy/nanoGPT: a whole GPT in one readable file.
# - Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024, a blog post: the optimiser of section 5.
# - Shannon, *Prediction and Entropy of Printed English*, 1951: people as language models, in bits per character.
