# %% [markdown]
# # 16 · Playground
#
# {{colab}}
#
# Numbers have told us what a bit is worth. What does it *feel* like? Here all models of the leaderboard go on from the
# same prompt, side by side; you see where they part, what surprises them, and how fast they write. And you learn why
# two different texts say almost nothing about two models.
#
# {{cost_card}}
#
# **You will be able to**
#
# - let models draw with the same luck, in two ways, and say which of them keeps texts together for longer;
# - find where two models part and explain it from the two distributions at that place;
# - read surprise, in bits for each character, as a picture of what a model knows;
# - predict, without writing a word, how long two models write the same text;
# - tell a difference in text from a difference in quality, and say what would show the latter.
#
# **You need** notebook 07 (naive rounding and GPTQ, the leaderboard). Every text below is **generated**, by a model with
# 2.7 M parameters that has read nothing but generated tales. Do not expect sense.

# %%
import math
import random
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import HTML, display

# %%
import nanoq
from nanoq.lm import load_corpus, paired_difference
from nanoq.quant import Recipe
from nanoq.teach import check, pick, show, use_style
from nanoq.teach.compare import (
    Comparison,
    compare_answers,
    compare_reading,
    first_divergence,
    load_contender,
    predictions,
)
from nanoq.teach.judge import judge, standings
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.playground import playground
from nanoq.teach.plots import COLORS
from nanoq.teach.widgets import show_widget

use_style()
torch.set_num_threads(1)

# %% [markdown]
# ### The models
#
# The ten rows of the leaderboard: float32, float16, and 8, 4, 3 and 2 bits by naive rounding and by GPTQ. Each is made
# from the model that ships with the course, written to a file, and loaded from it. GPTQ gets a part of the usual
# calibration text, to be quick.

# %%
NAME = "tales-2.7m"
models = tempfile.TemporaryDirectory()
board = Leaderboard(NAME, windows=pick(ci=4, lab=16, full=None))
board.calibration = board.calibration[: pick(ci=16, lab=24, full=128)]
contenders = [load_contender(NAME)]
rows = [("float16", 16, Recipe(bits=16))]
rows += [("RTN", bits, Recipe(bits=bits)) for bits in (8, 4, 3, 2)]
rows += [("GPTQ", bits, Recipe("gptq", bits=bits)) for bits in (8, 4, 3, 2)]
for method, bits, recipe in rows:
    folder = Path(models.name) / f"{method}-{bits}"
    board.add(method, bits, recipe, folder)
    contenders.append(load_contender(folder))
named = {one.name: one for one in contenders}
print(", ".join(named))
assert [one.bytes for one in contenders] == [row.bytes for row in board.rows]

# %% [markdown]
# ## 1 · Three models, one prompt
#
# The student project ends with a demonstration: its float32 model, its naive int8 model and its "GPTQ" int8 model answer
# the same prompt. Beside it stand the perplexities 2.76, 2.78 and 2.76, in this order.
# <!-- claim: SOURCE NanoGPTQ student project, its table of January 2026 -->
#
# **Before you run it.** The same three kinds of model, with the same random numbers. For how many characters will the
# texts be the same: 5, 50, or more?

# %% tags=["measured"]
PROMPT = "Once upon a time, there was a "
TRIO = [named[name] for name in ("float32", "RTN 8 bit", "GPTQ 8 bit")]
trio = compare_answers(TRIO, PROMPT, seed=2, length=pick(ci=20, lab=160, full=400))
display(HTML(trio.answers_html()))

# %% [markdown]
# - What is in italics is the prompt. The first character that is not float32's is marked and underlined; without a mark,
#   all of the text is the same.
# - Where a mark is, the texts have nothing to do with each other afterwards. Each model goes on from what *it* has
#   written.
# - From texts like these the project concludes that its naive model misuses words and its GPTQ model does not. Keep that
#   sentence in mind.
#
# The bytes are those of the files. The speed comes last, in section 9.
#
# ## 2 · The whole leaderboard
#
# **Before you run it.** Put the ten models in order: who stays with float32 for longest?

# %% tags=["measured"]
everyone = compare_answers(contenders, PROMPT, seed=2, length=pick(ci=12, lab=90, full=400))
display(HTML(everyone.answers_html()))

# %%
def shared(a, b):
    """Characters, or tokens, that two texts share before they differ for the first time."""
    found = first_divergence([a, b])
    return min(len(a), len(b)) if found is None else found


def shared_figure(comparison):
    """For how long each answer is the first one's, as bars."""
    texts = {answer.contender.name: answer.tokens for answer in comparison.answers[1:]}
    length = len(comparison.answers[0].tokens)
    together = {name: shared(comparison.answers[0].tokens, tokens) for name, tokens in texts.items()}
    fig, ax = plt.subplots(figsize=(7, 3.2))
    bars = ax.barh(list(together), list(together.values()),
                   color=[COLORS["orange" if "RTN" in n else "blue" if "GPTQ" in n else "green"] for n in together])
    ax.bar_label(bars, [f"{n}, to the end" if n == length else str(n) for n in together.values()], padding=4)
    ax.invert_yaxis()
    ax.set(xlabel="characters shared with float32", xlim=(0, 1.3 * length))
    return fig

# %% tags=["measured"]
show(shared_figure(everyone), alt="A bar for each of nine models: how many characters of its text are the same as those of "
     "float32 with the same seed. As a rule float16 and the 8-bit models share most, the 2-bit models next to nothing.")

# %% [markdown]
# One prompt, one seed: the order of neighbours in this figure is luck, and another seed gives another. Section 8 says what
# is behind it.
#
# **Exercise 16.shared.** Do it by hand: how many characters do two texts share before the first difference? If one is the
# beginning of the other, it is all of the shorter.

# %%
def shared_by_hand(a, b):
    """Characters that two texts share before they differ for the first time."""
    ### BEGIN SOLUTION
    count = 0
    while count < min(len(a), len(b)) and a[count] == b[count]:
        count += 1
    return count
    ### END SOLUTION

# %%
check("16.shared", shared_by_hand)

# %% [markdown]
# ## 3 · Which one has 3 bits?
#
# A blind test. Five models go on from one prompt, each with a seed of its own, so that no text gives another away:
# float32, naive 8, 4 and 3 bit, and GPTQ 4 bit.
#
# **Before you unfold the answer.** Which of A to E is the 3-bit model? Which is float32? Write down how sure you are.

# %% tags=["measured"]
five = ["float32", "RTN 8 bit", "RTN 4 bit", "RTN 3 bit", "GPTQ 4 bit"]
random.Random(15).shuffle(five)
blind = {}
for seed, name in enumerate(five, 11):
    blind[name] = compare_answers([named[name]], PROMPT, seed=seed, length=pick(ci=12, lab=110, full=400)).answers[0]
for letter, name in zip("ABCDE", five, strict=True):
    print(f"{letter}  {blind[name].text}\n")
key = ", ".join(f"{letter} {name}" for letter, name in zip("ABCDE", five, strict=True))
display(HTML(f"<details><summary>Answer</summary>{key}</details>"))

# %% [markdown]
# - Even float32 invents words, at temperature 1 and with its 2.7 M parameters. Whoever takes an invented word for a sign of
#   rounding finds that sign everywhere.
# - A judgement by one text of each model is a measurement with one sample. What follows makes better ones.
#
# ## 4 · The same luck for all
#
# How can two models "draw with the same random numbers" if their probabilities differ? There is more than one way.
#
# ### Laid end to end
#
# Lay the probabilities of all characters end to end on a line from 0 to 1, and let a number $u$ from the generator fall on
# it. That is sampling by the **inverse of the cumulative distribution**. Two models with the same $u$ take the same
# character if $u$ falls into that character's piece in both lines.

# %%
p = torch.tensor([0.30, 0.25, 0.20, 0.15, 0.10])  # of a, b, c, d, e in one model
q = torch.tensor([0.40, 0.25, 0.15, 0.12, 0.08])  # in another


def line_figure(p, q, u):
    """Two distributions laid end to end, and where u falls."""
    fig, ax = plt.subplots(figsize=(7, 2))
    shades = list(COLORS.values())
    for y, weights in ((1, p), (0, q)):
        left = 0.0
        for letter, width, shade in zip("abcde", weights.tolist(), shades, strict=False):
            ax.barh(y, width, left=left, height=0.6, color=shade, alpha=0.5, edgecolor="black")
            ax.text(left + width / 2, y, letter, ha="center", va="center")
            left += width
    ax.axvline(u, color="black", ls="--")
    ax.set(yticks=[0, 1], xlim=(0, 1), xlabel=f"dashed: u = {u}")
    ax.set_yticklabels(["model q", "model p"])
    ax.grid(visible=False)
    return fig


show(line_figure(p, q, 0.6), alt="Two lines from 0 to 1, each cut into five pieces for the characters a to e. All of the "
     "second line's pieces begin further to the right, because its first piece is longer. A dashed line at 0.6 meets c in "
     "the first and b in the second.")

# %% [markdown]
# **Exercise 16.inverse_cdf.** The index that `u` falls on, for probabilities `(V,)`.

# %%
def inverse_cdf(p, u):
    """The index of the piece that u lies in; u in [0, 1)."""
    ### BEGIN SOLUTION
    return int((p.cumsum(0) <= u).sum())
    ### END SOLUTION

# %%
check("16.inverse_cdf", inverse_cdf)

# %% [markdown]
# There is a flaw. Model q differs from p mostly in its first character, and yet *all* pieces behind it have moved.
# Where a character stands in the alphabet should not matter.
#
# ### A race
#
# Give each character a waiting time of its own from the generator, drawn from the exponential distribution, and divide it
# by the character's probability. The first to arrive wins. It can be shown that a character wins with just its
# probability. Here each character has its own random number, and a change of one probability moves one runner only.
#
# **Exercise 16.race.** The winner's index, from probabilities `(V,)` and waiting times `(V,)`.

# %%
def race(p, waits):
    """The index of the first to arrive."""
    ### BEGIN SOLUTION
    return int((waits / p).argmin())
    ### END SOLUTION

# %%
check("16.race", race)

# %% [markdown]
# ### Which of the two does our generator use?
#
# `nanoq.lm.generation.stream` calls `torch.multinomial` with a generator that begins with the seed. Its documentation does
# not say how it draws, so we ask it. **Before you run it:** the line, the race, or something else?

# %%
like_line = like_race = 0
ROUNDS = 500
weights = torch.rand(60, generator=torch.Generator().manual_seed(0))
weights /= weights.sum()
for seed in range(ROUNDS):
    def fresh(seed=seed):
        return torch.Generator().manual_seed(seed)

    drawn = int(weights.multinomial(1, generator=fresh()))
    u = float(torch.rand((), generator=fresh()))
    waits = torch.empty(60).exponential_(generator=fresh())
    like_line += drawn == int((weights.cumsum(0) <= u).sum())
    like_race += drawn == int((waits / weights).argmin())
print(f"of {ROUNDS} draws: as on the line {like_line}, as in the race {like_race}")
assert like_race == ROUNDS > 10 * like_line

# %% [markdown]
# - For one draw it is the race, every time. (This is an observation about the version of torch that runs here; the cell
#   would fail if another drew in another way.)
# - Each step uses up one waiting time for each character, whatever the probabilities are. So the models stay in step, even
#   after they have parted: **the same seed means the same luck at every step**, for models of one vocabulary.
# - The technique is called *common random numbers*. It makes texts comparable: where two models give the same
#   distribution, they write the same character, for certain. They can part only where their distributions differ.
#
# ### How often do two models agree?
#
# Model p has chosen character $x$. How likely has model q, with the same luck, chosen it as well?
#
# | luck | probability that q chooses $x$, too |
# |:--|:--|
# | a seed for each | $q_x$ |
# | the same $u$ on the line | overlap of the two pieces of $x$, divided by $p_x$ |
# | the same race | $\dfrac{1}{p_x} \Big/ \sum_j \max\big(\frac{p_j}{p_x}, \frac{q_j}{q_x}\big)$ |
# | the best that any luck can do | $\min(1, q_x / p_x)$ |
#
# The third in words: $x$ wins both races if every other $j$ is late in both. In code, for logarithms of probabilities:

# %%
def agreement(p, q, x):
    """Probability that q chooses what p has chosen, by kind of luck; log p, log q (..., V), index x (...)."""
    x = x[..., None]
    px, qx = p.gather(-1, x), q.gather(-1, x)
    ends_p, ends_q = p.exp().cumsum(-1), q.exp().cumsum(-1)
    overlap = (torch.minimum(ends_p, ends_q) - torch.maximum(ends_p - p.exp(), ends_q - q.exp())).gather(-1, x)
    kinds = {
        "a seed for each": qx.exp(),
        "same u on the line": overlap.clamp(min=0) / px.exp(),
        "same race": 1 / px.exp() / torch.maximum(p - px, q - qx).exp().sum(-1, keepdim=True),
        "best possible": (qx - px).exp().clamp(max=1),
    }
    return {kind: chance[..., 0].clamp(max=1) for kind, chance in kinds.items()}

# %% [markdown]
# First a check on the two distributions above, by racing 20,000 times.

# %%
waits = torch.empty(20_000, 5).exponential_(generator=torch.Generator().manual_seed(1))
winners_p, winners_q = (waits / p).argmin(1), (waits / q).argmin(1)  # (20000,) each
for index, letter in enumerate("abcde"):
    chance = float(agreement(p.log(), q.log(), torch.tensor(index))["same race"])
    counted = float((winners_q == index)[winners_p == index].float().mean())
    assert abs(chance - counted) < 0.03
    print(f"p has chosen {letter}: q the same in {chance:.2f} of all cases")

# %% [markdown]
# ## 5 · Where they part, and why
#
# Temperature 0 first: no luck at all, each model takes its likeliest character. Two models can part only where the order
# of the first two changes.
#
# **Before you run it.** What will the distribution look like at that place? Two characters far ahead of the rest and close
# together, or many of about the same probability?

# %% tags=["measured"]
GREEDY = [named[name] for name in ("float32", "RTN 8 bit", "GPTQ 4 bit", "RTN 4 bit")]
greedy = compare_answers(GREEDY, "The next morning, ", temperature=0, length=pick(ci=20, lab=120, full=220))
display(HTML(greedy.answers_html()), HTML(greedy.divergence_html()))

# %% [markdown]
# The second table has the place. For each model: the two characters, float32's choice first; how likely float32 found them
# after the same words, and how likely the model itself did. Then the whole distribution, where the naive 4-bit model has
# left:

# %%
def expectation_figure(comparison, name, k=6):
    """What two models expected where one has left the other: the k likeliest characters."""
    found, reference = comparison.divergence(name), comparison.names[0]
    position = len(comparison.answers[0].prompt) + (found.position if found else 0)
    best = [character for character, _ in comparison.next_characters(reference, name, position, k)]
    vocabulary = comparison.answers[0].contender.tokenizer
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for shift, reader, color, hatch in ((-0.2, reference, "blue", ""), (0.2, name, "orange", "//")):
        chances = comparison.predicted(reader, name)[position - 1].exp2()
        heights = [float(chances[vocabulary.encode(character)[0]]) for character in best]
        ax.bar([i + shift for i in range(k)], heights, 0.4, label=reader, color=COLORS[color], hatch=hatch, edgecolor="white")
    ax.set_xticks(range(k), [f"“{character}”".replace("\n", "↵") for character in best])
    ax.set(ylabel="probability", title=f"after “…{comparison.text(name)[max(0, position - 24) : position]}”")
    ax.legend()
    return fig

# %% tags=["measured"]
show(expectation_figure(greedy, "RTN 4 bit"), alt="Bars of the six likeliest next characters where the naive 4-bit model "
     "leaves float32 at temperature 0, for both models. The order of the two likeliest is not the same in both.")

# %% [markdown]
# - At temperature 0 the **margin** between the likeliest two decides. Where it is wide, a model may be badly off and
#   nobody sees it; where it is narrow, the least rounding error turns the story around.
# - At temperature 1 any character can be the place: what counts is how far the probabilities differ, one by one, and
#   where the race is close. A glance at section 2 again:

# %% tags=["measured"]
display(HTML(everyone.divergence_html()))

# %% [markdown]
# The closer a model is to float32, the more alike are the two pairs of probabilities, and the more it was the luck that stood
# on the edge: such a mark is no place where a model has gone *wrong*. At 2 bits the probabilities themselves are others.
#
# ## 6 · Surprise
#
# A model that gave probability $p$ to the character that came is surprised by $-\log_2 p$ **bits**. The mean $b$ over
# a text is its bits a character, and $2^b$ the perplexity. One character at a time it is a picture of what a model knows.
#
# **Exercise 16.surprise.** From logits `(V,)` and the index of the character that came: bits, as a float.

# %%
def surprise(logits, index):
    """Bits of surprise at character `index`."""
    ### BEGIN SOLUTION
    return float(-logits.log_softmax(0)[index] / math.log(2))
    ### END SOLUTION

# %%
check("16.surprise", surprise)

# %% [markdown]
# A story with a word that no tale has. **Before you run it:** which character will surprise float32 most: the first of the
# planted word, one in the middle, or the blank after it? And what will the 2-bit model make of it?

# %%
STORY = ("Once upon a time, there was a little girl who loved to pick flowers. One day she found a big blorptix in "
         "the garden and showed it to her mother.")
PLANTED = range(STORY.index("blorptix"), STORY.index("blorptix") + len("blorptix"))
READERS = ("float32", "GPTQ 3 bit", "RTN 2 bit")
read = compare_reading([named[name] for name in READERS], STORY)
bits = {name: read.surprise(name, "float32") for name in READERS}  # (T - 1,) each: bits[i] is of character i + 1
rest = [i for i in range(len(STORY) - 1) if i + 1 not in PLANTED]
contrast = {name: float(b[[i - 1 for i in PLANTED]].mean() / b[rest].mean()) for name, b in bits.items()}
assert int(bits["float32"].argmax()) + 1 in PLANTED
assert bits["RTN 2 bit"][rest].mean() > 3 * bits["float32"][rest].mean()
assert contrast["RTN 2 bit"] < 0.5 * contrast["float32"]

# %% tags=["measured"]
display(HTML(read.surprise_html("float32")))

# %%
def surprise_figure(text, bits, start, end):
    """Bits for each character of a part of a text, a line for each reader."""
    fig, ax = plt.subplots(figsize=(8, 3))
    for (name, b), color, marker in zip(bits.items(), ("blue", "green", "vermillion"), "osD", strict=True):
        ax.plot(range(start, end), b[start - 1 : end - 1], color=COLORS[color], marker=marker, ms=4, lw=1, label=name)
    ax.axvspan(PLANTED.start - 0.5, PLANTED.stop - 0.5, color="0.9")
    ax.set_xticks(range(start, end), list(text[start:end].replace(" ", "␣")), fontsize=9)
    ax.set(ylabel="surprise (bits)", title="grey: the planted word")
    ax.legend(ncols=3, loc="upper left")
    ax.set_ylim(0, 1.2 * max(float(b[start - 1 : end - 1].max()) for b in bits.values()))
    return fig

# %% tags=["measured"]
show(surprise_figure(STORY, bits, PLANTED.start - 26, PLANTED.stop + 22), alt="Bits of surprise for each character around "
     "the planted word, for three models. Float32 and the 3-bit model are near zero inside words and high in the planted "
     "word; the naive 2-bit model is surprised everywhere, so that the planted word hardly stands out.")
for name in READERS:
    inside, outside = bits[name][[i - 1 for i in PLANTED]].mean(), bits[name][rest].mean()
    print(f"{name:12} {outside:5.2f} bits a character, in the planted word {inside:5.2f}: {inside / outside:.1f} times")

# %% [markdown]
# - float32 is surprised at the *beginnings* of words, where there is a choice, and hardly inside them. The planted word
#   breaks that rule; most of all where its letters can no longer become a word.
# - GPTQ at 3 bits draws nearly the same picture. Which of the two is surprised a little more on one sentence ranks nothing.
# - The naive 2-bit model finds the planted word about as odd as the others do, and much else odd as well. What
#   a model knows is the **contrast**, and most of it is gone.
#
# ## 7 · Different is not worse
#
# Section 1 showed texts that agree to the last character. Does that make the rounded models as good? And if they had parted,
# would they be worse? What would we have to compare them with? With the
# difference that *no* change of the model makes: **the same model with another seed.**
#
# - Some prompts from the held-out tales; from each, float32 with seed 1, float32 with seed 2, and naive int8 with seed 1.
# - For each prompt: how many characters do they share with the first? A text that never parts counts with its full
#   length.
#
# **Before you run it.** Which pair stays together for longer, and by how much?

# %%
PROMPTS, LENGTH, LEAD = pick(ci=4, lab=10, full=64), pick(ci=24, lab=80, full=128), 32
test = load_corpus(board.corpus.name).test
step = len(test) // PROMPTS
prompts = [test[i * step : i * step + LEAD] for i in range(PROMPTS)]


def write_all(name, seed):
    """What one model writes after each prompt: tokens (PROMPTS, LENGTH)."""
    answers = [compare_answers([named[name]], prompt, seed=seed, length=LENGTH).answers[0] for prompt in prompts]
    return torch.tensor([answer.tokens for answer in answers])


def shared_each(a, b):
    """Characters shared for each prompt, of two (PROMPTS, LENGTH): (PROMPTS,)."""
    return torch.tensor([shared(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)], dtype=torch.float64)


written = write_all("float32", seed=1)
other_seed = shared_each(written, write_all("float32", seed=2))
int8 = shared_each(written, write_all("RTN 8 bit", seed=1))
gap = paired_difference(int8, other_seed)
assert gap.low > 0

# %% tags=["measured"]
print(f"float32 twice, two seeds:  {other_seed.mean():5.1f} characters shared, of {LENGTH} at most")
print(f"float32 and int8, a seed:  {int8.mean():5.1f}")
print(f"int8 is nearer by {gap.mean:.1f} characters, 95 % interval {gap.low:.1f} to {gap.high:.1f}, {PROMPTS} prompts")

# %% [markdown]
# - Two seeds of **one** model part at once. float32 and its int8 version, with the same luck, stay together many times as
#   long.
# - So "it writes something else" cannot be a fault of int8: float32 does so, too. Only a difference that is *larger* than
#   that between two seeds would begin to be an argument.
# - Nor is it a proof of quality. What measures quality is the loss on held-out text, the same windows for all, with an
#   interval. That is the leaderboard:

# %% tags=["measured"]
display(board)

# %% [markdown]
# **Exercise 16.conclusion.** From one prompt and one seed, int8 leaves float32 after some dozens of characters. Read by float32, both
# stories have the same bits a character. Which conclusion holds?
#
# - a) int8 is worse: a good quantised model would write the same story.
# - b) The bits a character of the two stories show which model is better, if one only writes long enough.
# - c) The two texts do not say which model is better; held-out loss on the same windows, with an interval, can.
# - d) The two models are equally good, because their stories surprise float32 equally.

# %%
### BEGIN SOLUTION conclusion = ...
conclusion = "c"
### END SOLUTION

# %%
check("16.conclusion", conclusion)

# %% [markdown]
# ## 8 · How long until they part?
#
# With the formula of section 4 only float32 has to write. Take float32's own texts. At each character, what is the probability
# that the other model, with the same race, has chosen the same one? Multiply: the probability that they are still together.
# Sum over the positions: the **expected number of shared characters**. One forward pass for each text and model.

# %%
start = torch.stack([board.reference.tokenizer.encode(prompt) for prompt in prompts])  # (PROMPTS, LEAD)
texts = torch.cat([start, written], 1)  # (PROMPTS, LEAD + LENGTH)


def expected(name):
    """log-probabilities before each written character: (PROMPTS, LENGTH, V)."""
    logs = torch.stack([predictions(named[name].model, text[:-1])[LEAD - 1 :] for text in texts])
    return logs * math.log(2)


reference = expected("float32")
together, added = {}, {}  # by model: {kind of luck: (PROMPTS, LENGTH)}; KL divergence in nats a character
for name in list(named)[1:]:
    own = expected(name)
    together[name] = agreement(reference, own, written)
    added[name] = float((reference.exp() * (reference - own)).sum(-1).mean())
alive = together["RTN 8 bit"]["same race"].double().cumprod(1)  # (PROMPTS, LENGTH): still together after each character
promised = alive.sum(1)  # (PROMPTS,)
spread = ((2 * torch.arange(1, LENGTH + 1) - 1) * alive).sum(1) - promised.square()  # (PROMPTS,): the variances of one try
error = float(spread.sum().sqrt()) / PROMPTS
assert abs(float(int8.mean() - promised.mean())) < 4 * error

# %% tags=["measured"]
print(f"naive int8 and float32: {promised.mean():.1f} of {LENGTH} characters expected, {int8.mean():.1f} counted")
print(f"the standard error of such a count, by the same formula: {error:.1f}")

# %% [markdown]
# ### Four kinds of luck
#
# **Before you look.** In which order do the four kinds of luck from section 4 keep float32 and naive 4 bit together?

# %%
def luck_figure(chances):
    """Probability to be still together against characters written, for each kind of luck."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    looks = (("vermillion", "-."), ("orange", "--"), ("blue", "-"), ("black", ":"))
    for (kind, chance), (color, line) in zip(chances.items(), looks, strict=True):
        alive = chance.cumprod(1).mean(0)  # (LENGTH,)
        ax.plot(range(1, LENGTH + 1), alive, color=COLORS[color], ls=line, label=f"{kind}: {alive.sum():.1f} characters")
    ax.set(xlabel="characters written", ylabel="probability to be together", ylim=(0, 1.02))
    ax.legend()
    return fig

# %% tags=["measured"]
show(luck_figure(together["RTN 4 bit"]), alt="Probability that float32 and the naive 4-bit model still write the same text, against characters written, "
     "for four kinds of luck. Two seeds fall at once, the same number on the line later, the same race later still and "
     "close to the best possible.")

# %%
close = [name for name in together if added[name] < 0.5]  # beyond it models part at once, whatever the luck
for name in close:
    lengths = [float(chance.cumprod(1).sum(1).mean()) for chance in together[name].values()]
    assert lengths[0] < lengths[1] <= lengths[2] + 1e-3 and lengths[2] <= lengths[3] + 1e-3
four = {kind: float(chance.cumprod(1).sum(1).mean()) for kind, chance in together["RTN 4 bit"].items()}
assert four["same race"] > 1.2 * four["same u on the line"] > 1.2**2 * four["a seed for each"]
print("two seeds < the line < the race < the best possible")

# %% [markdown]
# - The race keeps texts together for longer than the line, and comes close to what any luck could do.
# - A demonstration that draws in another way shows the *same models* parting sooner. Where texts part is a property of two
#   models **and** of the way to draw.
#
# ### A law
#
# How does it depend on how far the models are apart? As distance take the divergence (KL): the loss, in nats a character,
# that the other model adds on float32's own texts. As length, one over the mean probability to part at a character, which
# no end of the text cuts short. Both axes logarithmic. **Before you run it:** a straight line? With which slope?

# %%
x = torch.tensor([added[name] for name in close]).log10()
y = torch.tensor([float(1 / (1 - together[name]["same race"]).mean()) for name in close]).log10()
slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
assert -0.62 < slope < -0.38


def law_figure(x, y):
    """Characters until two texts part against the divergence; both as logarithms to base 10."""
    fig, ax = plt.subplots(figsize=(7, 3.8))
    ax.plot(10**x, 10 ** (y.mean() - 0.5 * (x - x.mean())), color="0.6", ls="--", label="slope −1/2")
    looks = {"RTN": ("orange", "o"), "GPTQ": ("blue", "s"), "float16": ("green", "D")}
    for name, a, b in zip(close, x.tolist(), y.tolist(), strict=True):
        color, marker = looks[name.split()[0]]
        ax.plot(10**a, 10**b, marker, ms=8, color=COLORS[color])
        below = color == "orange"  # two models may lie close together
        ax.annotate(name, (10**a, 10**b), xytext=(-7, -13) if below else (8, 4), textcoords="offset points",
                    ha="right" if below else "left")
    ax.set(xscale="log", yscale="log", xlabel="added divergence (nats a character)", ylabel="characters together")
    ax.margins(x=0.15, y=0.15)
    ax.legend()
    return fig

# %% tags=["measured"]
show(law_figure(x, y), alt="Expected characters until a model parts from float32, against the divergence it adds, both axes logarithmic. "
     "Float16, the 8-bit, 4-bit and 3-bit models lie on a falling line of slope minus one half.")
print(f"slope {slope:.2f}")

# %% [markdown]
# - A straight line of slope about −1/2, over all these orders of magnitude: what a model adds to the loss goes with the
#   **square** of how far its probabilities are off, the probability to part with the distance itself.
#   <!-- claim: CELL assert -0.62 < slope < -0.38 -->
# - So the place where texts part says no more than the divergence does, and says it with far more noise. (It is a nice
#   smoke test, though: no loss can be seen in a text that is the same to the end.)
#
# **Exercise 16.longer.** A better method makes the added divergence `times_less` times smaller. How many times as long
# do the texts stay together?

# %%
def longer(times_less):
    """Factor by which the shared part of two texts grows."""
    ### BEGIN SOLUTION
    return math.sqrt(times_less)
    ### END SOLUTION

# %%
check("16.longer", longer)

# %% [markdown]
# ## 9 · Speed and bytes
#
# **Exercise 16.speed.** Characters a second from the times of single characters, in seconds. The first includes the
# reading of the prompt, so leave it out.

# %%
def speed(seconds):
    """Characters a second, without the first."""
    ### BEGIN SOLUTION
    return (len(seconds) - 1) / sum(seconds[1:])
    ### END SOLUTION

# %%
check("16.speed", speed)

# %% [markdown]
# **Before you run it.** The 2-bit files are the smallest by far. Which model writes fastest?

# %% tags=["measured"]
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
speeds = {answer.contender.name: answer.speed for answer in everyone.answers}
left.barh(list(speeds), [named[name].bytes / 1e6 for name in speeds], color=COLORS["blue"])
right.barh(list(speeds), list(speeds.values()), color=COLORS["orange"])
left.invert_yaxis()
left.set(xlabel="file (MB)")
right.set(xlabel="characters a second")
show(fig, alt="Two rows of bars for the ten models: size of the file, which falls with the bits, and characters a second on "
     "this machine, where float32 and float16 lead.")

# %% [markdown]
# - Small is not fast. `QuantLinear` keeps packed codes and makes the float weight anew for every character; float32 and
#   float16 (which is computed in float32 once it is loaded) just multiply.
# - A model of 2.7 M parameters fits a processor's cache, so that there are not even bytes to be saved on the way. Notebook 08
#   says when fewer bits do save time, and has kernels for it.
#
# ## 10 · Play
#
# The widget below is live in Jupyter; everything that it shows has been shown above. All of it works from the keyboard:
#
# - **Tab** goes from control to control, **Space** turns a model on or off, presses a button, or opens a list (then the arrows).
# - **Enter** in the prompt, or *Write*, starts; starting again while it writes begins anew. *Stop* keeps what there is.
# - Afterwards choose whose text to read. The **arrow keys** move the position on the slider by one character; the
#   table below it says what each model expected there.
# - Shades have underlines beside them, and every mark is underlined, so that nothing depends on colour.
#
# Things to try: temperature 0, and one between 0 and 1; the same prompt with another seed; a name that no tale has; a sentence with a
# word left out; 2 bits by GPTQ against 2 bits by naive rounding.

# %% tags=["measured"]
show_widget(playground(contenders, chosen=[one.name for one in TRIO]),
            alt="A prompt, temperature, seed, length and a choice of models; their answers, written side by side character "
                "by character; where they part; the surprise of each character and what each model expected at any position. "
                "Sections 1, 2, 5 and 6 show the same for one prompt.")

# %% [markdown]
# ## 11 · Your own model
#
# Any folder that `nanoq` has written can stand beside the others, if it has the same vocabulary:
#
# ```
# nanoq quantize tales-2.7m --bits 3 --method gptq --group-size 64 --out runs/gptq3
# ```
#
# and then `playground([*contenders, load_contender("runs/gptq3", "mine")])`. With a model that you trained yourself, let
# `nanoq compare runs/mine --out runs/rows` make all its rows; they lie in `runs/rows/models`. The same from Python, as a
# test that it works:

# %%
own = Path(models.name) / "own"
board.add("mine", 3, Recipe(bits=3, group_size=64), own)
mine = load_contender(own, "mine")
beside = compare_answers([named["RTN 3 bit"], mine], PROMPT, seed=3, length=12)
assert isinstance(beside, Comparison) and beside.names == ["RTN 3 bit", "mine"]
assert mine.bytes > named["RTN 3 bit"].bytes
models.cleanup()
print("RTN 3 bit, and the same in groups of 64: loaded, and side by side")

# %% [markdown]
# ## Further · Final capstone
#
# **Adds** a competition: the smallest good file of this model, by any means.
#
# All that you have learned goes into one folder. A judge reads it with `nanoq.load` and looks at two numbers: the bytes of
# the files, card included, and the loss that the model adds to float32's on the same held-out windows. No code of yours
# runs. There are three levels, and each asks for both numbers.
#
# Begin with a model that you know. `nanoq.save` writes the folder.

# %%
entries = tempfile.TemporaryDirectory()
start = nanoq.quantize(nanoq.load(NAME), "gptq", 4, windows=pick(ci=16, lab=64, full=128))
saved = nanoq.save(Path(entries.name) / "start", start)

# %% [markdown]
# **Before you run it.** GPTQ at 4 bits: bronze, silver or gold?

# %% tags=["measured"]
ranked = judge(entries.name)
print(standings(ranked))

# %% tags=["claims"]
assert ranked[0].name == "start" and ranked[0].bytes < 1_520_000 and 0.005 < ranked[0].delta.mean < 0.03
entries.cleanup()

# %% [markdown]
# Now beat it. Save as many folders as you like beside `start`, and judge them together. What may help:
#
# - Entropy-coded codes: `nanoq.save(folder, model, entropy=True)` loses nothing. With `rate=` in place of bits,
#   `nanoq.quantize` makes codes that are meant to be coded.
# - `embeddings=8`, `true_sequential=True` and `match_original=True`.
# - Fewer bits where they hurt least (notebook 13), learned rounding (notebook 06), or a smaller model that you train or
#   distil (notebook 14), with the same characters.
#
# Whoever tries a hundred models on the same windows picks one that suits these windows. So a lecturer may judge by another
# text. In a terminal, for a folder with a folder of each participant:
#
# ```
# nanoq judge entries --corpus another.txt --csv standings.csv
# ```

# %% [markdown]
# ## What to keep
#
# - **Common random numbers**: the same luck for all, so that models differ only where their distributions do.
#   `torch.multinomial` runs a race, and the race keeps texts together for longer than a number on a line.
# - At temperature 0 a text turns where the margin between the first two is narrow; at temperature 1 anywhere, now and
#   then.
# - Two seeds of one model part sooner than float32 and int8 do. **A different text is not a worse text.**
# - The length that two models share goes with one over the root of the divergence between them. It tells nothing new.
# - Surprise for each character shows what a model knows; what few bits destroy is the contrast.
# - A playground is for looking and for hypotheses. The leaderboard decides.
#
# ## The end of the course, and where to go next
#
# - **Your own model.** Train one on a text of yours (`nanoq train`), take it through the leaderboard, and look at it here.
# - **Real models.** Notebook 15 does the same with models of `transformers`; there the losses are smaller and the stakes
#   higher.
# - **A method of your own.** `CONTRIBUTING.md` has the few lines that it takes; the recipes, the leaderboard and this
#   playground know it at once.
# - **A hole in the course.** A claim that you do not believe, a cell that fails, an exercise whose hint misses your mistake:
#   say so. `CONTRIBUTING.md` again.
#
# ## Further reading
#
# - Gumbel 1954 and the "Gumbel trick": the race, in logarithms. Maddison, Tarlow and Minka 2014, *A\* Sampling*
#   ([arXiv 1411.0030](https://arxiv.org/abs/1411.0030)).
# - Daliri, Musco and Suresh 2024, *Coupling without Communication and Drafter-Invariant Speculative Decoding*
#   ([2408.07978](https://arxiv.org/abs/2408.07978)): how near the race comes to the best possible.
# - `nanoq/teach/playground.py`: all of this, and the widget.
