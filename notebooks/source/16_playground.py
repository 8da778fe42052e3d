# %% [markdown]
# # 16 · Playground
#
# {{colab}}
#
# Numbers have told you what a bit is worth. What does it *feel* like? Here the models of the leaderboard go on from the
# same prompt, side by side. You see where they part, and what surprises them; and you learn why two different
# texts say almost nothing about two models. At the end you hand in a model of your own, and a judge measures it.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - let models draw with the same random numbers, so that only their probabilities can make them differ;
# - find where two models part, and explain it from the two distributions at that place;
# - read surprise, in bits per character, as a picture of what a model knows;
# - tell a difference in text from a difference in quality, and say what would show the latter.
#
# **You need** notebook 07 (naive rounding and GPTQ, the leaderboard). Every text below is **generated**, by a model with
# 2.7 M parameters that has read nothing but generated tales. Do not expect sense.
#
# **The models** are the ten rows of the leaderboard: float32, float16, and 8, 4, 3 and 2 bits by naive rounding and by
# GPTQ. Each is made from the model that ships with the course, written to a file, and loaded from it. GPTQ gets a part
# of the usual calibration set, to be quick.

# %%
import math
import random
import tempfile
from pathlib import Path

import torch
from IPython.display import HTML, display

import nanoq
from nanoq.lm import load_corpus, paired_difference
from nanoq.quant import Recipe
from nanoq.teach import check, compare, pick, use, use_style
from nanoq.teach.compare import compare_answers, load_contender
from nanoq.teach.figures import nb16 as figures
from nanoq.teach.leaderboard import Leaderboard

use_style()
torch.set_num_threads(1)

# %%
NAME, models = "tales-2.7m", tempfile.TemporaryDirectory()
board = Leaderboard(NAME, windows=pick(ci=4, lab=16, full=None))
board.calibration = board.calibration[: pick(ci=16, lab=24, full=128)]
rows = [("float16", 16, Recipe(bits=16))]
rows += [("RTN", bits, Recipe(bits=bits)) for bits in (8, 4, 3, 2)]
rows += [("GPTQ", bits, Recipe("gptq", bits=bits)) for bits in (8, 4, 3, 2)]
contenders = [load_contender(NAME)]
for method, bits, recipe in rows:
    folder = Path(models.name) / f"{method}-{bits}"
    board.add(method, bits, recipe, folder)
    contenders.append(load_contender(folder))
named = {one.name: one for one in contenders}
print(", ".join(named))

# %% tags=["claims"]
assert [one.bytes for one in contenders] == [row.bytes for row in board.rows]
assert len(contenders) == 10

# %% [markdown]
# ## 1 · Three models, one prompt
#
# The student project ends with a demonstration: its float32 model, its naive int8 model and its "GPTQ" int8 model answer
# the same prompt. Beside it stand the perplexities 2.76, 2.78 and 2.76, in this order.
# <!-- claim: SOURCE NanoGPTQ student project, its table of January 2026 -->
#
# **Before you run it.** The same three kinds of model, with the same random numbers. For how many characters will the
# texts be the same: 5, 50, or more?
#
# <details><summary>After you have run it</summary>
# For dozens as a rule, and sometimes to the end. The prompt is in italics; the first character that is not float32's is marked
# and underlined, and without a mark all of the text is the same. Behind a mark each model goes on from what <i>it</i> has
# written: another story, or the same one in other words. From texts like these the project concludes that its naive model
# misuses words and its GPTQ model does not. Keep that sentence in mind.
# </details>

# %% tags=["measured"]
PROMPT = "Once upon a time, there was a "
trio = [named[name] for name in ("float32", "RTN 8 bit", "GPTQ 8 bit")]
texts = compare_answers(trio, PROMPT, seed=3, length=pick(ci=20, lab=160, full=400))
display(HTML(texts.answers_html()))

# %% [markdown]
# ## 2 · The same random numbers for all
#
# How can two models draw with the same random numbers if their probabilities differ? There is more than one way. The first:
# lay the probabilities of all characters end to end on a line from 0 to 1, and let a uniform number $u$ fall on it.
# That is sampling by the **inverse of the cumulative distribution**.

# %%
p = torch.tensor([0.30, 0.25, 0.20, 0.15, 0.10])  # of a, b, c, d, e in one model
q = torch.tensor([0.40, 0.25, 0.15, 0.12, 0.08])  # in another
figures.laid_end_to_end(p, q, 0.6)

# %% [markdown]
# **Exercise 1.** The index of the piece that $u$ falls on, for probabilities of shape `(V,)`. A piece owns its left
# end.

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
# The second way is a **race**. Give each character a waiting time of its own, drawn from the exponential distribution.
# The likelier a character is, the faster it runs: what it takes is its waiting time, divided by its probability. The first
# to arrive is the draw. It can be shown that a character wins with just its probability. Now each character has
# a random number of its own, and a change of one probability moves one runner only.
#
# **Exercise 2.** The winner's index, from probabilities and waiting times, both of shape `(V,)`.

# %%
def race(p, waits):
    """The index of the first to arrive."""
    ### BEGIN SOLUTION
    return int((waits / p).argmin())
    ### END SOLUTION

# %%
check("16.race", race)

# %% [markdown]
# Which of the two does our generator use? `nanoq.lm.generation.stream` calls `torch.multinomial` with a generator that
# begins with the seed. Its documentation does not say how it draws, so we ask it, with your two functions.
#
# **Before you run it.** The line, the race, or something else?
#
# <details><summary>After you have run it</summary>
# The race, every time, in the version of torch that runs here. Each step uses up one waiting time per character,
# whatever the probabilities are. So the models stay in step even after they have parted: <b>the same seed gives the same
# random numbers at every step</b>, for models of one vocabulary. The technique is called <i>common random numbers</i>. Where two
# models give the same distribution they write the same character, for certain.
# </details>

# %%
my_line = use("16.inverse_cdf", inverse_cdf)
my_race = use("16.race", race)
weights = torch.rand(60, generator=torch.Generator().manual_seed(0)).softmax(0)
like_line = like_race = 0
for seed in range(500):
    drawn, line, run = (torch.Generator().manual_seed(seed) for _ in range(3))
    index = int(weights.multinomial(1, generator=drawn))
    like_line += index == my_line(weights, float(torch.rand((), generator=line)))
    like_race += index == my_race(weights, torch.empty(60).exponential_(generator=run))
print(f"of 500 draws: as on the line {like_line}, as in the race {like_race}")

# %% tags=["claims"]
assert like_race == 500 > 10 * like_line

# %% [markdown]
# ## 3 · Where they part, and why
#
# Temperature 0 first: no random numbers at all, each model takes its likeliest character. Two models can part only where
# another character becomes the likeliest.
#
# **Before you run it.** What will the distribution look like at that place? How far are the first two apart?
#
# <details><summary>After you have run it</summary>
# Close together, whatever the rest of the distribution is like. The second table shows the place: for each model the two
# characters, float32's choice first, and how likely float32 and the model itself found them. The <b>margin</b> between the likeliest two decides. Where it is wide, a
# model may be badly off and nobody sees it; where it is narrow, the least rounding error turns the story around.
# </details>

# %% tags=["measured"]
greedy = [named[name] for name in ("float32", "RTN 8 bit", "GPTQ 4 bit", "RTN 4 bit")]
LONG = pick(ci=20, lab=120, full=220)
texts = compare_answers(greedy, "The next morning, ", temperature=0, length=LONG)
display(HTML(texts.answers_html()), HTML(texts.divergence_html()))
figures.expected_where_they_part(texts, "RTN 4 bit")

# %% tags=["claims"]
part = texts.divergence("RTN 4 bit")  # in 20 characters they may not part
if LONG > 20 or part:
    there = part.expected  # of both models, for both
    assert 0 < there[0][0] - there[0][1] < 0.1 and 0 < there[1][1] - there[1][0] < 0.1

# %% [markdown]
# At temperature 1 any character can be the place: what counts is how far the probabilities differ, one by one, and how close
# the race is. The closer a model is to float32, the more it was the race that stood on the edge: such a mark is
# no place where a model has gone *wrong*.
#
# **Exercise 3.** How far do they go together? Count the characters that two texts (or lists of tokens) share before
# the first difference. If one is the beginning of the other, it is all of the shorter.

# %%
def shared(a, b):
    """Characters that two texts share before they differ for the first time."""
    ### BEGIN SOLUTION
    count = 0
    while count < min(len(a), len(b)) and a[count] == b[count]:
        count += 1
    return count
    ### END SOLUTION

# %%
check("16.shared", shared)

# %% [markdown]
# ## 4 · Different is not worse
#
# If two models part, is the second worse? Compare with the difference that *no* change of the model makes: **the same
# model with another seed.** From some prompts of the held-out tales float32 writes with seed 1 and with seed 2, and naive
# int8 with seed 1. Your function counts what each text shares with the first; a text that never parts
# counts with its full length.
#
# **Before you run it.** Which of the two stays with the first text for longer, and by how much?
#
# <details><summary>After you have run it</summary>
# Two seeds of <b>one</b> model part at once. float32 and int8, with the same random numbers, stay together many times as long.
# So "it writes something else" cannot be a fault of int8: float32 does so, too.
# </details>

# %%
my_shared = use("16.shared", shared)
PROMPTS, LENGTH, LEAD = pick(ci=4, lab=10, full=64), pick(ci=24, lab=80, full=128), 32
test = load_corpus(board.corpus.name).test
starts = [i * (len(test) // PROMPTS) for i in range(PROMPTS)]
prompts = [test[start : start + LEAD] for start in starts]

def write_all(name, seed):
    """What one model writes after each prompt: lists of LENGTH tokens."""
    options = {"seed": seed, "length": LENGTH}
    texts = [compare_answers([named[name]], prompt, **options) for prompt in prompts]
    return [one.answers[0].tokens for one in texts]

# %% tags=["measured"]
first, second = write_all("float32", seed=1), write_all("float32", seed=2)
other_seed = torch.tensor([float(n) for n in map(my_shared, first, second)])
rounded = write_all("RTN 8 bit", seed=1)
int8 = torch.tensor([float(n) for n in map(my_shared, first, rounded)])
gap = paired_difference(int8, other_seed)
print(f"float32, another seed:  {other_seed.mean():5.1f} of {LENGTH} characters shared")
print(f"int8, the same seed:    {int8.mean():5.1f}")
print(f"more by {gap.mean:.1f}, 95 % interval {gap.low:.1f} to {gap.high:.1f}")
display(board)

# %% tags=["claims"]
assert gap.low > 0 and int8.mean() > 3 * other_seed.mean()

# %% [markdown]
# Only a difference *larger* than that between two seeds would begin to be an argument. Nor is a long shared text a proof of
# quality.
#
# **Exercise 4.** From one prompt and one seed, int8 leaves float32 after some dozens of characters. Read by float32, both
# stories have the same bits per character. Which conclusion holds?
#
# - a) int8 is worse: a good quantised model would write the same story.
# - b) The bits per character of the two stories show which model is better, if one only writes long enough.
# - c) The two texts do not say which model is better; held-out loss on the same windows, with an interval, can.
# - d) The two models are equally good, because their stories surprise float32 equally.

# %%
### BEGIN SOLUTION conclusion = ...
conclusion = "c"
### END SOLUTION

# %%
check("16.conclusion", conclusion)

# %% [markdown]
# ## 5 · Surprise
#
# A model that gave probability $p$ to the character that came is surprised by $-\log_2 p$ **bits**. The mean over a text
# is its bits per character. One character at a time it is a picture of what a model knows.
#
# **Exercise 5.** From logits of shape `(V,)` and the index of the character that came: the bits, as a float.

# %%
def surprise(logits, index):
    """Bits of surprise at character `index`."""
    ### BEGIN SOLUTION
    return float(-logits.log_softmax(0)[index] / math.log(2))
    ### END SOLUTION

# %%
check("16.surprise", surprise)

# %% [markdown]
# A story with a word that no tale has. Your function reads it, with three models.
#
# **Before you run it.** Which character will surprise float32 most: the first of the planted word, one in the middle, or
# the blank after it? And what will the 2-bit model make of it?
#
# <details><summary>After you have run it</summary>
# float32 is surprised at the <i>beginnings</i> of words, where there is a choice, and hardly inside them. The planted word
# breaks that rule; most of all where its letters can no longer become a word. GPTQ at 3 bits draws nearly the same
# picture; which of the two is surprised a little more on one sentence ranks nothing. The naive 2-bit model finds the
# planted word about as odd as the others do, and much else odd as well. What a model knows is the <b>contrast</b>, and
# most of it is gone.
# </details>

# %% tags=["measured"]
my_surprise = use("16.surprise", surprise)
STORY = ("Once upon a time, there was a little girl who loved to pick flowers. "
         "One day she found a big blorptix in the garden and showed it to her mother.")
PLANTED = range(STORY.index("blorptix"), STORY.index("blorptix") + len("blorptix"))
tokens = named["float32"].tokenizer.encode(STORY)
bits = {}
for name in ("float32", "GPTQ 3 bit", "RTN 2 bit"):
    with torch.no_grad():
        logits = named[name].model(tokens[None, :-1])[0]  # (T - 1, V)
    bits[name] = list(map(my_surprise, logits, tokens[1:].tolist()))
figures.surprise(STORY, bits, PLANTED)

# %% tags=["claims"]
rest = [i for i in range(len(STORY) - 1) if i + 1 not in PLANTED]
around = {name: sum(b[i] for i in rest) / len(rest) for name, b in bits.items()}
inside = {name: sum(b[i - 1] for i in PLANTED) / 8 for name, b in bits.items()}
contrast = {name: inside[name] / around[name] for name in bits}
assert len(PLANTED) == 8 and bits["float32"].index(max(bits["float32"])) + 1 in PLANTED
assert around["RTN 2 bit"] > 3 * around["float32"]
assert contrast["RTN 2 bit"] < 0.5 * contrast["float32"]
assert abs(around["GPTQ 3 bit"] / around["float32"] - 1) < 0.5

# %% [markdown]
# ## 6 · Play
#
# The widget is live in Jupyter. All of it works from the keyboard: **Tab** goes from control to control, **Space**
# turns a model on or off or presses a button, **Enter** in the prompt starts, *Stop* keeps what there is. Afterwards choose whose text to read;
# the **arrow keys** move the position by one character, and the table says what each model expected there.
#
# Try temperature 0, and one between 0 and 1; the same prompt with another seed; a name that no tale has; 2 bits by GPTQ
# against 2 bits by naive rounding. Find a text that would convince a friend that a model is broken; then find the number that
# should have.

# %% tags=["measured"]
figures.play(contenders, chosen=[one.name for one in trio])

# %% [markdown]
# ## 7 · Final capstone
#
# The last task of the course: **the smallest good file of this model, by any means.** All that you have learned goes into one
# folder. A judge reads it with `nanoq.load` and looks at two numbers: the bytes of the files, card included, and the
# loss that the model adds to float32's on the same held-out windows. No code of yours runs. There are three levels, and each
# asks for both numbers. The starter, GPTQ at 4 bits, reaches the lowest.

# %% tags=["measured"]
from nanoq.teach.judge import judge, standings
from nanoq.teach.own_file import own_files

entries = tempfile.TemporaryDirectory()
WINDOWS = pick(ci=16, lab=64, full=128)
starter = nanoq.quantize(nanoq.load(NAME), "gptq", 4, windows=WINDOWS)
nanoq.save(Path(entries.name) / "starter", starter)
print(standings(judge(entries.name)))

# %% [markdown]
# Now beat it, for an evening or for a week: assign a quantised model to `mine`, and judge both. What may help:
#
# - entropy-coded codes (notebook 09): `rate=` in place of bits in `nanoq.quantize`, `entropy=True` in `nanoq.save`;
# - `embeddings=8`, `true_sequential=True` and `match_original=True` in `nanoq.quantize`;
# - fewer bits where they hurt least (notebook 13), learned rounding (notebook 06), or a smaller model that you train or
#   distil (notebook 14), with the same characters.
#
# Whoever tries a hundred models on the same windows picks one that suits these windows. So a lecturer may judge by
# another text: `nanoq judge entries --corpus another.txt` ranks the subfolders of a folder, one for each participant.
#
# Below the ranks is the way you have come: the files that you have written with your own functions, from notebook 04
# on.

# %% tags=["measured"]
### BEGIN SOLUTION mine = ...
mine = nanoq.quantize(nanoq.load(NAME), rate=3.2, embeddings=8, windows=WINDOWS)
### END SOLUTION
if mine is not ...:
    nanoq.save(Path(entries.name) / "mine", mine)
ranked = judge(entries.name)
print(standings(ranked))
own_files()

# %% tags=["claims"]
place = {entry.name: entry for entry in ranked}
assert place["starter"].level == "bronze" and place["mine"].level in ("silver", "gold")
assert place["mine"].bytes < 0.9 * place["starter"].bytes
entries.cleanup()

# %% [markdown]
# ## Further · Which one has 3 bits?
#
# **Adds** a blind test.
#
# Five models go on from one prompt, each with a seed of its own, so that no text gives another away:
# float32, naive 8, 4 and 3 bit, and GPTQ 4 bit.
#
# **Before you run it.** Which of A to E will be the 3-bit model, and which float32? Write down both letters, and how sure
# you are, before you unfold the answer under the texts.
#
# <details><summary>After you have run it</summary>
# Even float32 invents words, with its 2.7 M parameters. Whoever takes an invented word for a sign of rounding finds that
# sign everywhere. And one text of each model is a measurement with one sample.
# </details>

# %% tags=["measured"]
five = ["float32", "RTN 8 bit", "RTN 4 bit", "RTN 3 bit", "GPTQ 4 bit"]
random.Random(15).shuffle(five)
figures.blind(named, five, PROMPT, length=pick(ci=12, lab=110, full=400))

# %% [markdown]
# ## Further · All ten at once
#
# **Adds** the whole leaderboard from one prompt.
#
# **Before you run it.** Who stays with float32 for longest?
#
# <details><summary>After you have run it</summary>
# As a rule float16 and the 8-bit models, and the 2-bit models for next to nothing. But this is one prompt and one seed: the order
# of neighbours is luck, and another seed gives another.
# </details>

# %% tags=["measured"]
LONG = pick(ci=12, lab=90, full=400)
everyone = compare_answers(contenders, PROMPT, seed=3, length=LONG)
figures.shared(everyone)

# %% tags=["measured"]
display(HTML(everyone.answers_html()))

# %% tags=["measured"]
display(HTML(everyone.divergence_html()))

# %% [markdown]
# The widget's picture of surprise, as shades under the text:

# %% tags=["measured"]
readers = [named[name] for name in bits]
display(HTML(compare.compare_reading(readers, STORY).surprise_html("float32")))

# %% [markdown]
# ## Further · How often do two models agree?
#
# **Adds** a formula for it, for four ways to share random numbers.
#
# Model p has chosen character $x$. How likely has model q chosen it as well?
#
# | random numbers | probability that q chooses $x$, too |
# |:--|:--|
# | a seed for each | $q_x$ |
# | the same $u$ on the line | overlap of the two pieces of $x$, divided by $p_x$ |
# | the same race | $\dfrac{1}{p_x} \Big/ \sum_j \max\big(\frac{p_j}{p_x}, \frac{q_j}{q_x}\big)$ |
# | the best that any coupling can do | $\min(1, q_x / p_x)$ |
#
# The third in words: $x$ wins both races if every other $j$ is late in both. In code, for logarithms of probabilities:

# %%
def agreement(p, q, x):
    """P(q chooses what p chose), by coupling; log p, log q (..., V), index x (...)."""
    px, qx = p.gather(-1, x[..., None]), q.gather(-1, x[..., None])
    ends_p, ends_q = p.exp().cumsum(-1), q.exp().cumsum(-1)
    left = torch.maximum(ends_p - p.exp(), ends_q - q.exp())
    overlap = (torch.minimum(ends_p, ends_q) - left).gather(-1, x[..., None])
    kinds = {
        "a seed for each": qx.exp(),
        "same u on the line": overlap.clamp(min=0) / px.exp(),
        "same race": 1 / torch.maximum(p, q - qx + px).exp().sum(-1, keepdim=True),
        "best possible": (qx - px).exp(),
    }
    return {kind: chance[..., 0].clamp(max=1) for kind, chance in kinds.items()}

# %% [markdown]
# First a check on the two distributions of section 2, by racing 20,000 times.

# %%
waits = torch.empty(20_000, 5).exponential_(generator=torch.Generator().manual_seed(1))
won_p, won_q = (waits / p).argmin(1), (waits / q).argmin(1)  # (20000,) each

# %%
five_times = p.log().expand(5, 5), q.log().expand(5, 5)
chances = agreement(*five_times, torch.arange(5))["same race"]
counted = [float((won_q == x)[won_p == x].float().mean()) for x in range(5)]
for letter, chance, share in zip("abcde", chances.tolist(), counted, strict=True):
    print(f"p has chosen {letter}: q the same with {chance:.2f}; counted {share:.2f}")

# %% tags=["claims"]
assert (chances - torch.tensor(counted)).abs().max() < 0.03

# %% [markdown]
# ## Further · How long until they part?
#
# **Adds** a prediction of that length from two distributions, and a law.
#
# With that formula only float32 has to write. At each character of its own texts, what is the probability that the other
# model has chosen the same one? Multiply: the probability that they are still together. Sum over the positions:
# the **expected number of shared characters**. One forward pass per text and model.

# %%
encode = named["float32"].tokenizer.encode
written = torch.tensor(first)  # (PROMPTS, LENGTH)
whole = torch.cat([torch.stack([encode(prompt) for prompt in prompts]), written], 1)

def expected(name):
    """Log-probabilities before each written character: (PROMPTS, LENGTH, V)."""
    read = compare.predictions
    logs = [read(named[name].model, text[:-1])[LEAD - 1 :] for text in whole]
    return torch.stack(logs) * math.log(2)

# %%
reference = expected("float32")
together, added = {}, {}  # {kind: (PROMPTS, LENGTH)}, and the KL divergence, by model
for name in list(named)[1:]:
    own = expected(name)
    together[name] = agreement(reference, own, written)
    added[name] = float((reference.exp() * (reference - own)).sum(-1).mean())

# %% tags=["measured"]
alive = together["RTN 8 bit"]["same race"].double().cumprod(1)  # (PROMPTS, LENGTH)
promised = alive.sum(1)  # (PROMPTS,)
print(f"float32 and int8: {promised.mean():.1f} characters, {int8.mean():.1f} counted")

# %% tags=["claims"]
odd = 2 * torch.arange(1, LENGTH + 1) - 1
error = float(((odd * alive).sum(1) - promised.square()).sum().sqrt()) / PROMPTS
assert abs(float(int8.mean() - promised.mean())) < 4 * error

# %% [markdown]
# **Before you run it.** In which order do the four ways keep float32 and naive 4 bit together?
#
# <details><summary>After you have run it</summary>
# The race keeps texts together for longer than the line, and comes close to what any coupling could do. A demonstration that
# draws in another way shows the <i>same models</i> parting sooner. Where texts part is a property of two models <b>and</b>
# of the way to draw.
# </details>

# %% tags=["measured"]
figures.kinds_of_luck(together["RTN 4 bit"])

# %% tags=["claims"]
def lengths(name):
    return [float(c.cumprod(1).sum(1).mean()) for c in together[name].values()]

for name in [name for name in together if added[name] < 0.5]:
    alone, line, run, best = lengths(name)
    assert alone < line <= run + 1e-3 and run <= best + 1e-3
alone, line, run, best = lengths("RTN 4 bit")
assert run > 1.05 * line > 1.2 * alone

# %% [markdown]
# How does it depend on how far the models are apart? As distance take the divergence (KL): the loss, in nats per character,
# that the other model adds on float32's own texts. As length, one over the mean probability to part at a character, which
# no end of the text cuts short. Both axes are logarithmic.
#
# **Before you run it.** A straight line? With which slope?
#
# <details><summary>After you have run it</summary>
# A straight line of slope about −1/2, over all these orders of magnitude: what a model adds to the loss goes with the
# <b>square</b> of how far its probabilities are off, the probability to part with the distance itself. So the place where texts
# part says no more than the divergence does, and says it with far more noise.
# <!-- claim: CELL assert -0.62 < slope < -0.38 -->
# </details>

# %%
names = [name for name in together if added[name] < 0.5]  # others part at once
x = torch.tensor([added[name] for name in names]).log10()

# %%
parting = [float((1 - together[name]["same race"]).mean()) for name in names]
y = -torch.tensor(parting).log10()
figures.law(x, y, names)

# %% tags=["claims"]
slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
assert -0.62 < slope < -0.38

# %% [markdown]
# **Exercise 6.** A better method makes the added divergence `times_less` times smaller. How many times as long
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
# ## Further · Speed and bytes
#
# **Adds** how fast each of them writes.
#
# **Exercise 7.** Characters per second from the times of single characters, in seconds. The first includes the
# reading of the prompt, so leave it out.

# %%
def speed(seconds):
    """Characters per second, without the first."""
    ### BEGIN SOLUTION
    return (len(seconds) - 1) / sum(seconds[1:])
    ### END SOLUTION

# %%
check("16.speed", speed)

# %% [markdown]
# **Before you run it.** The 2-bit files are the smallest by far. Which model writes fastest?
#
# <details><summary>After you have run it</summary>
# They differ by far less than their bytes. A compiled loop multiplies with the packed codes as they are (notebook 08), but
# a model of 2.7 M parameters fits a processor's cache, so that fewer bytes save little on the way. Other programs on your
# machine change this figure more than the width does.
# </details>

# %% tags=["measured"]
LONG = pick(ci=12, lab=40, full=200)
timed = compare_answers(contenders, PROMPT, seed=2, length=LONG)
figures.speeds(timed.answers)

# %% [markdown]
# ## Further · Your own model in the playground
#
# **Adds** how to put any folder that `nanoq` has written beside the others.
#
# It needs the same vocabulary. `nanoq quantize tales-2.7m --bits 3 --group-size 64 --out runs/groups` writes one; with a model that
# you trained yourself, `nanoq compare runs/mine --out runs/rows` makes all its rows, in `runs/rows/models`. The same
# from Python:

# %% tags=["measured"]
own = Path(models.name) / "own"
board.add("mine", 3, Recipe(bits=3, group_size=64), own)
pair = [named["RTN 3 bit"], load_contender(own, "3 bit, groups of 64")]
display(HTML(compare_answers(pair, PROMPT, seed=3, length=40).answers_html()))

# %% tags=["claims"]
assert pair[1].bytes > pair[0].bytes
models.cleanup()

# %% [markdown]
# ## Summary
#
# - **Common random numbers**: the same draws for all, so that models differ only where their distributions do.
#   `torch.multinomial` runs a race.
# - At temperature 0 a text turns where the margin between the first two is narrow; at temperature 1 anywhere, now and
#   then.
# - Two seeds of one model part sooner than float32 and int8 do. **A different text is not a worse text.**
# - Surprise per character shows what a model knows; what few bits destroy is the contrast.
# - A playground is for looking and for hypotheses. The leaderboard decides.
#
# **Where to go next.** Train a model on a text of yours (`nanoq train`) and take it through the leaderboard. Notebook 15 does
# the same with models of `transformers`. `CONTRIBUTING.md` has the few lines that a method of your own takes; a claim that
# you do not believe, or an exercise whose hint misses your mistake, is welcome there, too.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further reading
#
# - Gumbel 1954 and the "Gumbel trick": the race, in logarithms. Maddison, Tarlow and Minka 2014, *A\* Sampling*
#   ([arXiv 1411.0030](https://arxiv.org/abs/1411.0030)).
# - Daliri, Musco and Suresh 2024, *Coupling without Communication and Drafter-Invariant Speculative Decoding*
#   ([2408.07978](https://arxiv.org/abs/2408.07978)): how near the race comes to the best possible.
# - `nanoq/teach/playground.py`: all of this, and the widget.
