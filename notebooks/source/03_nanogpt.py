# %% [markdown]
# # 03 · nanoGPT
#
# {{colab}}
#
# What this course makes small has to be big first. In this notebook you build it: a GPT, the kind of network behind
# today's chatbots, in a page of code. You write the parts that do the work, and each is checked against the one in the
# package with the same weights. Then your model reads stories and writes one.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - say what exactly a language model is asked, and what its loss and perplexity mean;
# - write attention, a block, a whole GPT, a training step and the sampling of text;
# - say what shape everything has on its way through the model;
# - name the four matrices in each block that the rest of the course quantises.
#
# **You need** notebook 00, Python, and a little PyTorch: tensors, `nn.Module`, `nn.Linear`.

# %%
import math

import torch
import torch.nn.functional as F
from torch import nn

import nanoq
from nanoq.lm import CharTokenizer, GPTConfig, generate, load_corpus, window_losses
from nanoq.teach import check, pick, profile, use, use_style
from nanoq.teach.figures import concepts
from nanoq.teach.figures import nb03 as figures
from nanoq.teach.using import same

use_style()

# %% [markdown]
# ## 1 · One question: which character comes next?
#
# Our text is `tales`: simple stories that a program writes, the same on every machine. The model learns from the part
# `train`; `valid` and `test` are held-out.
#
# A network computes with numbers, so each character gets one, its **token id**. A *tokeniser* that does no more than
# that is a list of all characters.

# %%
corpus = load_corpus("tales")
tokenizer = CharTokenizer.from_text(corpus.train)
train_tokens = tokenizer.encode(corpus.train)
print(corpus.train[:180], "…\n")
print(f"{len(train_tokens):,} characters, {tokenizer.vocab_size} different ids")
print("Once →", tokenizer.encode("Once").tolist())

# %% [markdown]
# A language model is asked one question only: **which character comes next?** A text of T + 1 characters holds T such
# questions, and the answers too. Nobody has to label anything.
#
# The model does not answer with a character but with a probability for *each*. It pays for the probability $p$ that it
# gave to the character that came:
#
# - $-\ln p$ is the **loss** of this question. Its unit is the *nat*; losses are given in nats.
# - Sure and right costs nothing; sure and wrong costs a lot.
# - The mean over a text is what training makes small.
#
# If the mean loss is $L$, the **perplexity** is $e^L$: the model hesitates as if among that many equally likely
# characters.
#
# A loss means little on its own; here are three reference levels. *Uniform*: every character is always equally
# likely. *Bigram*: a table counts how often each character follows each. And the *floor*: because a program wrote this
# text, its author's random choices are known, and with them the least loss that any model can reach on average.
# (*Further · The floor that is known* says how.)

# %%
figures.surprise()
V, test = tokenizer.vocab_size, tokenizer.encode(corpus.test)
follows = torch.ones(V, V)  # row: this character, column: the next one
pairs = train_tokens[:-1], train_tokens[1:]
follows.index_put_(pairs, torch.ones(1), accumulate=True)
nats = -(follows / follows.sum(1, keepdim=True)).log()  # (V, V)
levels = {"uniform": math.log(V), "bigram": float(nats[test[:-1], test[1:]].mean())}
levels["floor"] = corpus.floor * math.log(2)
for name, loss in levels.items():
    print(f"{name:8} {loss:5.2f} nats   perplexity {math.exp(loss):5.1f}")

# %% tags=["claims"]
assert levels["floor"] < levels["bigram"] / 2 < levels["uniform"] / 2
assert math.isclose(math.exp(levels["uniform"]), V)

# %% [markdown]
# The uniform model's perplexity is the number of ids, as it should be. Between table and floor there is room for a
# network.
#
# ### The whole in two pictures
#
# The first picture is what you are going to build, with the shape of everything on the way. The letters stay the same in
# all of this notebook:
#
# | letter | what it counts |
# |:--|:--|
# | B | texts in a batch |
# | T | characters of each text, its *places* |
# | C | channels: how many numbers stand for one place; the *width*, 192 in our model <!-- claim: FILE nanoq/lm/model.py --> |
# | V | different ids |
#
# The second picture is one **block**. The orange matrices hold nearly all parameters. They are what the course
# quantises.
#
# Each place begins with a vector of C numbers, its **embedding**: a row of a table for its character plus a row of
# another table for its position. This vector runs through all blocks, and each block adds something to it. That is why
# it is called the *residual stream*.

# %%
figures.whole_gpt()
concepts.gpt_block()

# %% [markdown]
# ## 2 · Attention
#
# In the stream each place knows only itself. **Attention** is the one part of the model in which places exchange
# information. First the rule: a row is a place that *reads*, a column is a place that *is read*. In training, all
# questions of a text are answered at once. If a place could read the one after it, it would see the very character that
# it has to predict.
#
# **Exercise 1.** Write the blue half for T places as a boolean (T, T) tensor, `True` where reading is allowed. No loop
# is needed.

# %%
figures.may_read("the cat")

# %%
def causal_mask(T):
    """bool (T, T): may row t read column s?"""
    ### BEGIN SOLUTION
    return torch.ones(T, T, dtype=torch.bool).tril()
    ### END SOLUTION

# %%
check("03.mask", causal_mask)

# %% [markdown]
# Each place makes three vectors of $d$ numbers out of its own: a **query** (what am I looking for?), a **key** (what
# have I got?) and a **value** (what do I pass on?). Then:
#
# 1. *score*: the dot product of each query with each key, divided by $\sqrt d$;
# 2. *mask*: what may not be read gets the score minus infinity;
# 3. *softmax*: each row becomes weights that sum to one;
# 4. *mix*: each place gets the mean of all values with these weights.
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt d} + \text{mask}\right) V$$
#
# Why $\sqrt d$? The sum of $d$ random products is about $\sqrt d$ in size. Undivided, a wide head has large scores,
# and softmax puts most of the weight on a few places before training has begun.
#
# One such table of weights is one way of looking at a text, a **head**. Several heads share the width: each works on
# $d = C / \text{heads}$ channels. One matrix, `qkv`, makes the queries, keys and values of all heads, and another,
# `out`, mixes what the heads bring back.
#
# **Exercise 2.** Write the middle of `forward`: the four steps. `split` and `join` are given, so that all you see are
# tensors (B, heads, T, d); `k.mT` swaps the last two axes of `k`. Use your mask, under the name `my_mask`.
# `masked_fill(where, value)` fills where `where` is True, and `~` turns True into False.
#
# The check puts weights of the package's model into your module and compares what comes out. In the cell below it you do
# the same with a trained model, the storyteller of notebook 00: your attention, its weights.

# %%
figures.score_mask_softmax("the cat")

# %%
my_mask = use("03.mask", causal_mask)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def split(self, x):  # (B, T, C) → q, k, v: (B, heads, T, d) each
        shape = *x.shape[:2], self.heads, x.shape[2] // self.heads
        return [part.view(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)]

    def join(self, y):  # (B, heads, T, d) → (B, T, C)
        return y.transpose(1, 2).flatten(2)

    def forward(self, x):
        q, k, v = self.split(x)
        # score, mask, softmax: (B, heads, T, T) each; then mix: y (B, heads, T, d)
        ### BEGIN SOLUTION y = ...
        T, d = q.shape[-2:]
        scores = q @ k.mT / d**0.5
        masked = scores.masked_fill(~my_mask(T), -torch.inf)
        y = masked.softmax(-1) @ v
        ### END SOLUTION
        return self.out(self.join(y))

# %%
check("03.attention", Attention)

# %% tags=["measured"]
MyAttention = use("03.attention", Attention)
storyteller = nanoq.load("tinystories-2.7m")
config, theirs = storyteller.model.config, storyteller.model.blocks[0].attention
x = torch.sin(torch.arange(80 * config.width)).view(2, 40, -1)  # (B, T, C)
gap = same(MyAttention(config.width, config.heads), theirs, x)

# %% tags=["claims"]
assert gap < 1e-3

# %% [markdown]
# ## 3 · The block and the model
#
# Besides attention, a block has two kinds of parts:
#
# - The **norm** brings each place's vector to mean 0 and variance 1 and then stretches each channel by a learnt gain.
# - The **MLP** works on each place alone: it widens to 4C, applies a nonlinearity (GELU) and projects back to C.
#
# **Exercise 3.** Write the block's `forward`: follow the arrows of the picture of a block. Each part reads the stream
# through its norm, and what it finds is *added* to the stream.

# %%
class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))  # (B, T, C) → (B, T, 4 C) → (B, T, C)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = MyAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp = MLP(width)

    def forward(self, x):
        """(B, T, C) → (B, T, C)."""
        ### BEGIN SOLUTION
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))
        ### END SOLUTION

# %%
check("03.block", Block)

# %% [markdown]
# **Exercise 4.** Now the whole: write the model's `forward`, following the first picture.
#
# - For ids (B, T), `self.token_embedding(tokens)` is (B, T, C). The positions are 0 to T − 1, the same in all texts.
# - The output layer (also called the head of the *model*) has no matrix of its own: the **logits** are the dot products of each place's vector with each row of the token
#   table, `self.token_embedding.weight` (V, C). Softmax would turn them into probabilities; that is not the model's task.

# %%
MyBlock = use("03.block", Block)


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(
            MyBlock(config.width, config.heads) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.width, bias=False)

    def forward(self, tokens):
        """(B, T) → logits (B, T, V)."""
        ### BEGIN SOLUTION
        T = tokens.shape[1]
        x = self.token_embedding(tokens) + self.position_embedding.weight[:T]
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x) @ self.token_embedding.weight.T
        ### END SOLUTION

# %%
check("03.gpt", GPT)

# %% tags=["measured"]
MyGPT = use("03.gpt", GPT)
mine = MyGPT(config)
text = "Once upon a time, there was a little girl named "
tokens = storyteller.tokenizer.encode(text)[None]  # (1, T)
gap = same(mine, storyteller.model, tokens)
best = mine(tokens)[0, -1].topk(3).indices
print(f"most likely after “{text}”:", [storyteller.tokenizer.decode([i]) for i in best])

# %% tags=["claims"]
assert gap < 1e-3

# %% [markdown]
# That is a trained GPT running in your code. Test the promise on which everything rests: no place knows the future.
#
# **Before you run it.** We change one character in the middle, in place 20. Which places' logits may change?
#
# <details><summary>After you have run it</summary>
# This place and those after it. Everything before stays the same to the last bit: the mask works in all blocks
# together.
# </details>

# %%
changed = tokens.clone()
changed[0, 20] = storyteller.tokenizer.encode("z")
differs = (mine(changed) != mine(tokens)).any(-1)[0]  # (T,)
print("places that differ:", differs.nonzero().flatten().tolist())

# %% tags=["claims"]
assert not differs[:20].any() and differs[20:].all()

# %% [markdown]
# ## 4 · Train your own
#
# A new model is random. Training repeats one step: read a batch of text, compute the mean loss of all its questions, ask
# PyTorch for the gradient of the loss with respect to each weight, and move each weight a little against its gradient. The
# *optimiser* knows how far.
#
# **Exercise 5.** Write this step. `rows` (B, T + 1) are ids; the first T of each row are the input, and the last T are
# the answers. `F.cross_entropy(logits, answers)` is the mean loss; it wants logits (N, V) and answers (N,), so flatten
# the batch and the places. Gradients add up until `optimizer.zero_grad()` clears them.

# %%
def training_step(model, optimizer, rows):
    """One step on a batch of ids (B, T + 1); returns the mean loss as a number."""
    ### BEGIN SOLUTION
    logits = model(rows[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION

# %%
check("03.step", training_step)

# %% [markdown]
# Now a small GPT of your own: narrower, with fewer blocks, so that it learns while you watch. It starts from the
# package's random weights, so that everybody gets the same model. `rate` lets the learning rate rise, then fall.

# %%
my_step = use("03.step", training_step)
steps, every = pick(ci=60, lab=1500, full=10_000), pick(ci=30, lab=75, full=500)
valid_tokens = tokenizer.encode(corpus.valid)
small_config = GPTConfig(V, context=64, layers=2, heads=4, width=96)
small = MyGPT(small_config)
small.load_state_dict(nanoq.lm.GPT(small_config, seed=1).state_dict())
optimizer = torch.optim.AdamW(small.parameters())
rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)

# %% [markdown]
# The next cell trains. It takes about a minute, on a busy machine longer.
#
# **Before you run it.** Where will the very first loss be? (One of the three levels of section 1 tells you.) And will
# the network get below the table of counts within this minute?
#
# <details><summary>After you have run it</summary>
# It starts at the uniform level, since it knows nothing, and falls below the bigram level, because it reads more than
# one character. The floor is still far away.
# </details>

# %% tags=["measured"]
generator = torch.Generator().manual_seed(0)
history = []  # (step, loss on unseen text)
for step in range(steps + 1):
    if step % every == 0:
        unseen = window_losses(small, valid_tokens, limit=32)
        history.append((step, float(unseen.mean())))
    if step < steps:
        starts = torch.randint(len(train_tokens) - 64, (16, 1), generator=generator)
        my_step(small, optimizer, train_tokens[starts + torch.arange(65)])
        rate.step()
figures.learning(history, levels)
print(f"from {history[0][1]:.2f} to {history[-1][1]:.2f} nats")

# %% tags=["claims"]
assert math.isclose(history[0][1], levels["uniform"], rel_tol=0.05)
assert profile() == "ci" or history[-1][1] < levels["bigram"]
assert levels["floor"] < history[-1][1] < history[0][1] - 0.5

# %% [markdown]
# ## 5 · Let it write
#
# To write, ask for the next character, *draw* one by its probability, append it, and ask again. Two knobs decide how
# bold the drawing is:
#
# - The **temperature** divides the logits: below 1 the likely characters get likelier, above 1 all get more equal.
# - **Top-k** allows only the $k$ characters with the largest logits, so that one unlikely letter does not derail a word.
#
# **Exercise 6.** Turn the logits (V,) of one place into probabilities (V,). The probabilities of all but the `top_k`
# likeliest characters are 0, and the others sum to one. No two logits are equal. (`logits.topk(k)` has `.values` and
# `.indices`. What did the mask do to forbidden scores?)

# %%
def next_probabilities(logits, temperature, top_k):
    """Probabilities (V,) of the next character from logits (V,)."""
    ### BEGIN SOLUTION
    smallest_kept = logits.topk(top_k).values[-1]
    kept = logits.masked_fill(logits < smallest_kept, -torch.inf)
    return (kept / temperature).softmax(-1)
    ### END SOLUTION

# %%
check("03.sampling", next_probabilities)

# %%
my_probabilities = use("03.sampling", next_probabilities)


@torch.no_grad()
def write(model, prompt, length, temperature=0.7, top_k=20, seed=0):
    """Continue a prompt by `length` characters, one draw for each."""
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt)
    for _ in range(length):
        logits = model(ids[None, -model.config.context :])[0, -1]  # (V,)
        chances = my_probabilities(logits, temperature, top_k)
        ids = torch.cat((ids, torch.multinomial(chances, 1, generator=generator)))
    return tokenizer.decode(ids)

# %% [markdown]
# **Before you run it.** First your model, at three temperatures; then the storyteller, which has the same architecture,
# but is larger and has read far more. What will each sample have in common with English: the letters, the words, the
# sentences, the sense?
#
# <details><summary>After you have run it</summary>
# Your model has found letters, the rhythm of words and the commonest words themselves. At a low temperature it is safe
# and dull, at a high one it invents words. The storyteller writes whole sentences, even if the story wanders. Nothing in
# your code would have to change for that: only size, text and time. But the prettiest sample does not reveal the best model: one
# text is an anecdote, the loss is a measurement.
# </details>

# %% tags=["measured"]
for temperature in (0.3, 0.7, 1.5):
    print(f"--- yours, temperature {temperature}")
    print(write(small, "Once upon a time", pick(ci=60, lab=200, full=400), temperature))
print("--- the storyteller")
told = generate(
    storyteller.model, storyteller.tokenizer, "Once upon a time",
    length=400, temperature=0.7, seed=2,
)  # fmt: skip
print(told.split("<|endoftext|>")[0])

# %% [markdown]
# ## Further · The floor that is known
#
# **Adds** why no model can get below a certain loss on `tales`, and how to compare models with different tokens.
#
# Is the perfect loss zero? No: nobody can know beforehand whether the hero is called Tom or Mia. For books that people
# wrote, nobody knows how much is left to chance. For `tales` we do: the program makes one weighted random choice after
# the other. A choice that was taken with probability $p$ carries $-\log_2 p$ bits, and a story carries the sum of its
# choices. A story can come about in one way only; we look for others.

# %%
from nanoq.lm.tales import generate_story, tales_grammar
from nanoq.lm.tales.grammar import parse

# %%
story = generate_story(0)
print(story.text[:120], "…")
print(f"{len(story.choices)} choices, {story.bits:.1f} bits, {len(story.text)} letters")

# %%
ways = list(parse(tales_grammar(), story.text))
print("ways to write it:", len(ways))

# %% tags=["claims"]
assert len(ways) == 1 and math.isclose(ways[0].bits, story.bits)

# %% [markdown]
# Why can no model do better on average? Take one choice between two outcomes. In truth the first comes three times in
# four. You guess a probability, and pay for each surprise.
#
# **Before you run it.** Which guess is cheapest in the long run: 0.5, 0.75 or 0.95?
#
# <details><summary>After you have run it</summary>
# The truth, 0.75, and even that is not free. Any other guess costs more, on either side. A bold guess may be lucky on a
# short text, but not on average. So the floor is a floor <i>on average</i>.
# </details>

# %%
truth, guess = 0.75, torch.linspace(0.02, 0.98, 97)  # (97,)
cost = -truth * guess.log2() - (1 - truth) * (1 - guess).log2()  # (97,) bits per choice
figures.cheapest_guess(guess, cost)

# %% tags=["claims"]
assert math.isclose(guess[cost.argmin()], truth, abs_tol=1e-6) and cost.min() > 0.8

# %% [markdown]
# `corpus.floor` is this sum over the whole test part, in **bits per character**. A bit is another unit of loss: divide
# nats by $\ln 2$. With one character per token, bits per character are the loss of one token. Other models read words
# or parts of words as tokens; per token they cannot be compared with ours, per character they can.
#
# **Exercise 7.** You have the mean loss, in nats, of each of W windows of text. What is the perplexity of the model on
# all of them?

# %%
def perplexity_of(losses):
    """Perplexity from window losses in nats (W,), as a float."""
    ### BEGIN SOLUTION
    return math.exp(losses.mean())
    ### END SOLUTION

# %%
check("03.perplexity", perplexity_of)

# %% [markdown]
# **Exercise 8.** A model read a text of `characters` characters as `tokens` tokens, at a mean loss of `loss` nats per
# token. How many bits per character is that?

# %%
def bits_per_character(loss, tokens, characters):
    """Bits per character from the mean loss in nats per token."""
    ### BEGIN SOLUTION
    return loss * tokens / math.log(2) / characters
    ### END SOLUTION

# %%
check("03.bits_per_char", bits_per_character)

# %%
my_bits = use("03.bits_per_char", bits_per_character)
for name, loss in levels.items():
    print(f"{name:8} {my_bits(loss, 1, 1):.2f} bits per character")

# %% [markdown]
# ## Further · Random windows cannot rank models
#
# **Adds** how to tell a real difference between two models from the luck of the draw.
#
# Some passages of text are easy, some are hard. Suppose someone measures each model on passages, or *windows*, that are
# drawn at random, and draws new ones for the next model. A student project drew 12,800 random windows for each of three
# models: fp32, naive int8 and GPTQ int8. It published its table twice, for the same models and the same text:

# %%
from nanoq.lm import paired_difference
from nanoq.quant import Recipe, quantize_model

# %%
published = {
    "December": {"fp32": 2.7769, "naive": 2.7696, "GPTQ": 2.7771},
    "January": {"fp32": 2.76, "naive": 2.78, "GPTQ": 2.76},
}

# %%
for date, scores in published.items():
    print(f"{date:9} {scores}, best: {min(scores, key=scores.get)}")

# %% tags=["claims"]
december, january = published.values()
assert december["naive"] == min(december.values())
assert january["naive"] == max(january.values())

# %% [markdown]
# Once naive rounding is better than not rounding at all, once it is the worst. Is that signal or noise? Answer with a
# model of our own:
#
# 1. How far apart do three scores of *one and the same* model lie, with 12,800 windows drawn anew for each? (We draw
#    from the windows that we have measured.)
# 2. How large is the true effect of int8, with both models on the *same* windows, window by window?
#
# **Before you run it.** Which is larger, the spread of one model with itself or the effect of int8? By how much?
#
# <details><summary>After you have run it</summary>
# The luck of the draw is larger than the effect. Such a table cannot rank the three models, in either order.
# </details>

# %% tags=["measured"]
twin, count = nanoq.load("tales-2.7m"), pick(ci=24, lab=96, full=512)
ids = twin.tokenizer.encode(corpus.test)
losses = window_losses(twin.model, ids, limit=count)  # (W,) nats
size = pick(ci=100, lab=300, full=2000), 3, 12_800  # trials, scores, windows
draws = torch.randint(len(losses), size, generator=torch.Generator().manual_seed(0))
scores = losses[draws].mean(-1)  # (trials, 3)
spreads = scores.amax(1) - scores.amin(1)
quantize_model(twin.model, Recipe(bits=8))  # in place
effect = paired_difference(window_losses(twin.model, ids, limit=count), losses)
print(f"three scores of one model, best to worst: {spreads.median():.5f} nats (median)")
print(f"int8 changes the loss by {effect.low:+.5f} to {effect.high:+.5f} nats")

# %%
largest = max(abs(effect.low), abs(effect.high))
claimed = math.log(2.7771 / 2.7696)  # a ratio of perplexities is a difference in nats
figures.noise_and_effect(spreads, largest, claimed)

# %% tags=["claims"]
assert largest < spreads.median()
assert effect.high - effect.low < spreads.median()

# %% [markdown]
# We use a different model and a different text, so compare sizes, not digits. The remedy costs nothing: **fixed**
# windows, the same for every model, and the difference taken window by window. What makes a window hard makes it hard
# for both models, and cancels. Notebook 04 makes an interval of it.

# %% [markdown]
# ## Further · Where the parameters are, and what one costs
#
# **Adds** the count of a block's parameters, and why training takes four times the memory of running.

# %%
kinds = {"MLP": ".mlp.", "attention": ".attention.", "positions": "position_embedding"}
kinds |= {"characters": "token_embedding", "norms": "norm"}
numbers = {name: p.numel() for name, p in mine.named_parameters()}

# %% [markdown]
# **Before you run it.** Which part of the storyteller holds most of the parameters: embeddings, attention or MLPs?
#
# <details><summary>After you have run it</summary>
# The MLPs hold twice as many as attention, and the two together nearly all.
# </details>

# %%
sizes = {}
for kind, key in kinds.items():
    sizes[kind] = sum(number for name, number in numbers.items() if key in name)
figures.parameters(sizes)

# %% tags=["claims"]
assert sum(sizes.values()) == sum(numbers.values())
assert sizes["MLP"] == 2 * sizes["attention"]
assert sizes["MLP"] + sizes["attention"] > 0.95 * sum(sizes.values())

# %% [markdown]
# **Exercise 9.** How many parameters has one block of width `width` with `heads` heads, without biases? Count the
# matrices in `Attention` and `MLP`, and do not forget what is left.

# %%
def block_parameters(width, heads):
    """Number of parameters of one block."""
    ### BEGIN SOLUTION
    attention = 3 * width * width + width * width  # qkv and out
    mlp = 2 * 4 * width * width  # up and down
    norms = 2 * width
    return attention + mlp + norms
    ### END SOLUTION

# %%
check("03.block_parameters", block_parameters)

# %% [markdown]
# To *run* a model you need its weights. To *train* it you need more. Count what your training has left in memory:

# %%
weights, states = list(small.parameters()), optimizer.state.values()
held = {"weights": weights, "gradients": [p.grad for p in weights]}
held["first moments"] = [state["exp_avg"] for state in states]
held["second moments"] = [state["exp_avg_sq"] for state in states]

# %%
total = sum(p.numel() for p in weights)
for name, tensors in held.items():
    print(f"{name:14} {sum(t.nbytes for t in tensors) / total:.0f} bytes per parameter")

# %% [markdown]
# The two *moments* are what AdamW remembers of earlier gradients and of their squares.
#
# **Exercise 10.** How many bytes do weights, gradients and AdamW take together, in fp32, for a model of `parameters`
# parameters? (What the forward pass keeps for the backward pass comes on top. It depends on the batch.)

# %%
def training_bytes(parameters):
    """Bytes of weights, gradients and AdamW's state in fp32."""
    ### BEGIN SOLUTION
    return parameters * (4 + 4 + 4 + 4)
    ### END SOLUTION

# %%
check("03.training_bytes", training_bytes)

# %% [markdown]
# Quantising weights attacks the first of the four only. Beware of "compressions" that compare a file with all that
# training needs with a quantised file of weights: that makes a large factor out of nothing.

# %% [markdown]
# ## Further · What a trained model looks at
#
# **Adds** a look at the attention of the storyteller.
#
# We keep every head's weights on the beginning of a story, and ask which head looks most at the character just before,
# and which looks furthest back.

# %%
sentence = text[:32]
ids = storyteller.tokenizer.encode(sentence)[None]  # (1, T)
patterns = figures.attention_patterns(mine, ids)  # (layers, heads, T, T)

# %%
places = torch.arange(len(sentence))
previous = patterns.diagonal(-1, -2, -1).mean(-1)  # (layers, heads)
distance = (patterns * (places[:, None] - places)).sum(-1).mean(-1)  # (layers, heads)

# %%
near = divmod(int(previous.argmax()), config.heads)
far = divmod(int(distance.argmax()), config.heads)
figures.two_heads(patterns, sentence, near, far)

# %% tags=["claims"]
assert torch.allclose(patterns.sum(-1), torch.ones(patterns.shape[:3]))
assert previous[near] > 0.5 and distance[far] > 2 * distance[near]

# %% [markdown]
# Nobody asked for such a division of labour. It came out of the one question, *which character comes next?*

# %% [markdown]
# ## Further · Read nothing twice
#
# **Adds** why writing with a key-value cache is so much less work, and why fewer bits can then mean faster writing.
#
# `write` reads the whole text again for each new character. It need not: the keys and values of earlier places do not
# change when the text grows, thanks to the mask. A **key-value cache** keeps them. Then the prompt is read once, and
# after that each step reads one new place. (The last new character is never read.)
#
# **Exercise 11.** How many places go through the model in all, with and without a cache, to write `new` characters after
# a prompt of `prompt` characters?

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

# %%
my_positions = use("03.positions", positions)
figures.work_of_writing(my_positions, prompt=30, new=60)

# %% [markdown]
# With a cache, each new character needs **every weight once, for one place's worth of arithmetic**. The time goes into
# fetching the weights from memory. That is why fewer bits per weight can mean faster writing, not only a smaller file.

# %% [markdown]
# ## Summary
#
# - A language model answers one question, which character comes next, with a probability for each. Its loss is the mean
#   surprise in nats; the perplexity is $e$ to the power of it.
# - A GPT is embeddings, blocks (attention that only looks back, and an MLP, each added to the stream), a norm and a head.
#   You wrote it, and with the same weights it does what the package's does.
# - Compare a loss with something: the uniform and the bigram model above it, and for `tales` a known floor below.
# - Temperature and top-k change the drawing, not the model.
# - The matrices `attention.qkv`, `attention.out`, `mlp.up` and `mlp.down` of all blocks hold nearly all parameters.
#
# Continue with **04 · Naive rounding**, which takes these matrices from 32 bits to 8, 4, 3 and 2. To go on here: train
# on a text of your own (`load_corpus("my.txt")`), or give your model an hour in place of a minute.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further reading
#
# - Karpathy 2022, [nanoGPT](https://github.com/karpathy/nanoGPT) and *Let's build GPT: from scratch, in code, spelled
#   out*: the same journey, for one text and on film.
# - Vaswani et al. 2017, *Attention Is All You Need* ([arXiv 1706.03762](https://arxiv.org/abs/1706.03762)).
# - Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*: GPT-2, whose architecture ours follows.
# - Eldan and Li 2023, *TinyStories* ([2305.07759](https://arxiv.org/abs/2305.07759)): the storyteller's text.
