# %% [markdown]
# # 00 · Start here
#
# {{colab}}
#
# A neural network is a long list of numbers. **Quantisation** stores each of them in fewer bits: a model that took 16
# bits a number then takes 8, 4 or 2 bits, and runs where it did not fit before. What does it cost, who pays, and
# how do the good methods get so much for so little? This course answers by building every method by hand, on a model
# that writes stories.
#
# {{cost_card}}
#
# **You will be able to**
#
# - find your way: what there is, what comes first, and how to work with it;
# - say what a *grid*, a *rounding method* and a *recipe* are, the ideas that all of it is made of;
# - compute the size of any model at any number of bits;
# - say which number types are fast on *your* machine, and why smaller is not yet faster;
# - work with checks, hints, predictions and profiles.
#
# **You need** some Python, and to have seen a matrix product. That is all.

# %%
import textwrap

import matplotlib.pyplot as plt
import torch
from IPython.display import HTML, Markdown

import nanoq
from nanoq.doctor import doctor
from nanoq.lm import generate, load_corpus
from nanoq.quant import LayerStats, Recipe, Round, affine_grid, gptq, linear_layers, nearest, pack, quantize_model
from nanoq.teach import check, pick, profile, show, use_style
from nanoq.teach.checks import find_exercise, judge
from nanoq.teach.course import course_map, course_table
from nanoq.teach.hardware import describe_products, plot_products, probe_products
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.plots import COLORS

use_style()

# %% [markdown]
# ## 1 · The course in one picture
#
# - Sixteen notebooks. They begin at the bits of a number and end at real language models, each layer with bits of its
#   own.
# - An arrow means "comes first". There are several ways through: if you know your number types, **00 → 03 → 04 →
#   07** is the shortest to a good 4-bit model.

# %%
show(course_map(), alt="Map of the course: sixteen boxes from left to right with arrows between them. 00 leads "
     "to 01 and 03, 01 to 02, 01 and 03 to 04, and 04 to 05, 07, 08 and 10; 05 leads to 06, 07 to 13, 14 and 16, "
     "10 over 11 and 12 to 13, and 13 to 15. The table that follows says the same in words.")

# %% [markdown]
# The same in words, with links.

# %%
Markdown(course_table())

# %% [markdown]
# ### Who it is for, and how to use it
#
# | you are … | do this |
# |:--|:--|
# | **alone with a laptop** | Read, predict, run, do the exercises. Solutions are in `solutions/`, for afterwards. |
# | **in a lab, perhaps offline** | The same. Once it is installed, nothing is downloaded: the models ship with it. |
# | **on Colab** | Press the badge at the top. The first cell installs `nanoq` and leaves Colab's torch alone. |
# | **a lecturer** | The [kit](teaching/README.md): a lab of 90 minutes for each notebook, quizzes, nbgrader. <!-- claim: TEST tests/notebooks/test_kit_pages.py::test_the_plan_adds_up_to_ninety_minutes --> |
# | **an engineer in a hurry** | `nanoq compare` in a terminal does the main job; come back for the why. |
#
# Two CPU cores are enough. A GPU, the internet and bigger models are switches, never needs.

# %% [markdown]
# ## 2 · A first taste
#
# - This model has read nothing but simple stories, and continues yours. It is small, and it is a real GPT.
# - The same prompt and the same dice for both texts: once with the weights as trained, in fp32, and once with **2
#   bits** a weight.
#
# **Before you run it.** With 2 bits a weight can take four different values. Will the text be the same, a little
# worse, or gone?

# %% tags=["measured"]
NAME = "tales-2.7m"  # or "tinystories-2.7m", the one that has read real TinyStories
trained, rounded = nanoq.load(NAME), nanoq.load(NAME)
quantize_model(rounded.model, Recipe(bits=2))  # in place: every weight to the nearest of four values in its row

for title, checkpoint in (("fp32", trained), ("2 bits, naive", rounded)):
    text = generate(checkpoint.model, checkpoint.tokenizer, "Once upon a time", length=240, temperature=0.7, seed=1)
    print(f"--- {title}\n{textwrap.fill(text, 100)}\n")

# %% [markdown]
# Is 2 bits too few, then? Do not conclude too much: **an anecdote is no measurement**. Another seed tells another
# story, a bad text may be bad luck, and a good one too. The course will therefore measure every model on the same
# text that none of them has seen, say how sure it is, and then win much of the loss back: with the same bits, and
# better methods.

# %% [markdown]
# ## 3 · How exercises work
#
# - Where you read `...  # your code here`, write, and run the cell. Then run the cell with `check` below it.
# - The check says one of three things. A wrong answer that many people give gets a hint that fits it.
# - A stub never stops "Run all": cells further down do not need your answer.
#
# This cell shows what you would see, for two answers to the first exercise that are not right.

# %%
first = find_exercise("00.levels")
for answer in (lambda bits: ..., lambda bits: 2 * bits, lambda bits: bits**3):
    print(judge(first, answer)[1])

# %% [markdown]
# The first was not attempted. The second is a known mistake with its own hint; the third is an unknown one, so you
# see the call that went wrong. Now you.
#
# **Exercise 1.** One bit tells two values apart. How many different values do `bits` bits tell apart?

# %%
def levels(bits):
    """How many different codes there are with this many bits."""
    ### BEGIN SOLUTION
    return 2**bits
    ### END SOLUTION

# %%
check("00.levels", levels)

# %% [markdown]
# **Exercise 2.** How many whole bytes do `weights` codes of `bits` bits take, packed without gaps? (`math.ceil`
# rounds up, and so does `-(-a // b)`.)

# %%
def packed_size(weights, bits):
    """Bytes of a file that holds the codes and nothing else."""
    ### BEGIN SOLUTION
    return -(-weights * bits // 8)
    ### END SOLUTION

# %%
check("00.bytes", packed_size)

# %% [markdown]
# **Exercise 3.** GPT-3 has 175 billion weights. How many GB are they in fp16? A GB is 10⁹ bytes.

# %%
### BEGIN SOLUTION gpt3_gb = ...
gpt3_gb = 175e9 * 16 / 8 / 1e9
### END SOLUTION

# %%
check("00.gpt3", gpt3_gb)

# %% [markdown]
# Few people own a machine that holds that. With fewer bits a weight, more of them do.
#
# And our model? `nanoq` can do the sum for it. The next cell counts the weights that we are going to quantise.

# %%
layers = linear_layers(trained.model)  # {name: nn.Linear}
weights = sum(layer.weight.numel() for layer in layers.values())
print(f"{len(layers)} matrices with {weights:,} weights, {weights / trained.model.parameter_count():.0%} of the model")
for bits in (32, 8, 4, 2):
    print(f"{bits:2} bits: {weights * bits // 8:>12,} bytes")

# %% [markdown]
# ## 4 · One table for everything
#
# - The **leaderboard** runs through the course. Each method adds rows to it; no method gets a table of its own.
# - *bits/param* counts honestly: all bits of the file, scales and unquantised parts too, divided by the number of
#   parameters.
# - *Δ nats* is the loss that quantising has added, per character, on the same held-out text for every row. The
#   interval says how sure that is.
#
# The first call writes the course's own story corpus to a cache on your disk. Nothing is downloaded.

# %% tags=["measured"]
board = Leaderboard(NAME, load_corpus(trained.card["corpus"]), windows=pick(ci=4, lab=32, full=128))
four_bits = board.add("RTN", 4, Recipe(bits=4))
two_bits = board.add("RTN", 2, Recipe(bits=2))
HTML(board._repr_html_())

# %%
assert two_bits.ci_low > four_bits.ci_high > 0  # 2 bits are worse than 4, and no longer by anecdote
assert two_bits.bytes < four_bits.bytes < board.rows[0].bytes
print("2 bits cost more than 4: no overlap of the intervals")

# %% [markdown]
# Now it is a measurement. Notebook 03 explains loss and perplexity, notebook 04 the interval.
#
# ## 5 · Two ideas that hold it together
#
# ### Grid × rounding
#
# - A **grid** is the set of values that a weight may take. Choose it first.
# - A **rounding method** picks one grid value for each weight. Choose it second, and independently.
# - Any grid goes with any method. Two grids and two methods make four ways to quantise; here they are, for one row of
#   ten weights.

# %%
generator = torch.Generator().manual_seed(219)  # a draw on which the difference is easy to see
weight = torch.randn(1, 10, generator=generator)  # (1, 10): one row, ten weights
mix = torch.randn(10, 10, generator=generator)
inputs = torch.randn(1000, 10, generator=generator) @ mix  # (1000, 10): what the layer sees; its columns are related
stats = LayerStats.of(inputs)

grids = {"4 values": affine_grid(weight, 2), "3 values": affine_grid(weight, 2, symmetric=True)}
methods = {"nearest": nearest, "GPTQ": gptq}
for grid_name, grid in grids.items():
    for name, method in methods.items():
        print(f"{grid_name}, {name:8}", method(weight, grid, stats)[0].tolist())  # the codes

# %% [markdown]
# The picture shows the same four. Dots are the weights, grey lines the grid. Red arrows end at a value that is *not*
# the nearest.

# %%
fig, axes = plt.subplots(2, 2, figsize=(9, 5.4), sharex=True, sharey=True)
errors = {}
for row, (grid_name, grid) in zip(axes, grids.items(), strict=True):
    for ax, (name, method) in zip(row, methods.items(), strict=True):
        goal = grid.decode(method(weight, grid, stats))  # (1, 10)
        errors[grid_name, name] = stats.output_error(weight, goal)
        for value in grid.decode(torch.arange(grid.levels)[None])[0]:
            ax.axhline(value, color="0.6", lw=1)
        for k in range(10):
            far = goal[0, k] != grid.decode(nearest(weight, grid))[0, k]
            color = COLORS["vermillion" if far else "black"]
            ax.annotate("", (k, goal[0, k]), (k, weight[0, k]), arrowprops={
                "arrowstyle": "->", "color": color, "lw": 1.5 + far, "shrinkA": 0, "shrinkB": 0})
        ax.plot(weight[0], "o", color=COLORS["blue"])
        ax.set(title=f"{grid_name} × {name}: error {errors[grid_name, name]:.0%}", xticks=range(10))
        ax.grid(visible=False)
fig.supxlabel("weight number", size=11)
fig.supylabel("value", size=11)
show(fig, alt="Four panels, two grids by two rounding methods. In each, ten weights as dots and an arrow from each to "
     "a grid line. On the left all arrows go to the nearest line; on the right GPTQ sends some further away, yet the "
     "error in the panel's title is smaller.")

# %%
for grid_name in grids:
    assert errors[grid_name, "GPTQ"] < errors[grid_name, "nearest"]
print("On both grids GPTQ, which moves some weights further, has the smaller error.")

# %% [markdown]
# - How can moving a weight *further* be better? The error in the titles is the error of the layer's *output*, and
#   there the weights can make up for each other. This is the idea of GPTQ, and of notebook 07.
# - GPTQ has to see some inputs of the layer for it. Nearest needs nothing but the weights: notebook 04.
#
# The grid is your next exercise: where does the step between two grid values come from?
#
# **Exercise 4.** The codes of an int8 grid run from −127 to 127, and the value of a code is `scale * code`. Which
# `scale` makes the grid reach just as far as the weights of a tensor do?

# %%
def scale(weight):
    """The step between neighbouring values of an int8 grid that covers the weight: a tensor with one value."""
    ### BEGIN SOLUTION
    return weight.abs().max() / 127
    ### END SOLUTION

# %%
check("00.scale", scale)

# %% [markdown]
# ### Recipe
#
# A model has many layers, and they need not be treated alike. What to do to each is *data*, a **recipe**: a default,
# and rules for the layers that differ. The first rule that fits counts. Here is one, and what it means for the 24
# matrices of our model.

# %%
recipe = Recipe(
    Round("gptq", bits=4),
    rules={"blocks.0.*": Round(bits=8), "blocks.5.*": Round(bits=8), "*.mlp.down": Round("gptq", bits=3)},
)
specs = recipe.resolve(list(layers))  # {layer name: Round}
print(len(specs), "layers, for example", "blocks.2.mlp.down:", specs["blocks.2.mlp.down"].label)

# %%
kinds = ["attention.qkv", "attention.out", "mlp.up", "mlp.down"]
fill = {8: "sky", 4: "green", 3: "orange"}
fig, ax = plt.subplots(figsize=(7, 3.2))
for name, spec in specs.items():
    _, block, kind = name.split(".", 2)
    x, y = int(block), kinds.index(kind)
    ax.add_patch(plt.Rectangle((x - 0.48, y - 0.44), 0.96, 0.88, color=COLORS[fill[spec.bits]], alpha=0.5))
    ax.text(x, y, f"{spec.bits} bits\n{spec.method}", ha="center", va="center")
ax.set(xlim=(-0.6, 5.6), ylim=(3.6, -0.6), yticks=range(4), yticklabels=kinds)
ax.set(xlabel="block", title="A recipe, layer by layer")
ax.grid(visible=False)
show(fig, alt="Table of coloured cells, four kinds of layer by six blocks: 8 bits and nearest in blocks 0 and 5, 3 "
     "bits and GPTQ for mlp.down in the others, 4 bits and GPTQ elsewhere.")

# %% [markdown]
# - One function carries out any recipe: `quantize_model(model, recipe, calibration)`. You have called it in section 2
#   already.
# - Uniform 2 bits is a recipe, `Recipe(bits=2)`. Notebooks 10 to 13 are about *finding* good ones: which layers
#   need the bits?
#
# ## 6 · Your machine
#
# First what is here, and what would fail. The doctor tries it out, which takes some seconds: a line for each thing that
# the course needs. Lines that begin with *warn* or *FAIL* also say what to do; *info* needs nothing. In a terminal it
# is `nanoq doctor`.

# %% tags=["measured"]
healthy = doctor(skip=["products"])  # these are next, and first you guess

# %% [markdown]
# Now a question that surprises most people. Multiply two 256 × 256 matrices, on one core, in four number types: fp32
# (32 bits), bf16 and fp16 (16 bits each) and int8 (8 bits). <!-- claim: FILE nanoq/machine.py -->
#
# **Before you run it.** Half the bits, half the time? Write down your guess for each: how long does it take, if fp32
# takes 1?
#
# <details><summary>After you have run it</summary>
# The bits are half, and the time is whatever the processor has instructions for, and the library code that uses them.
# Without such code every number is first turned into one of a type that the processor does know. Newer server
# processors (AMX, AVX512-BF16) and graphics cards have such instructions; many laptops have not. Notebook 02 finds
# out why, notebook 08 what to do about it.
# </details>

# %% tags=["measured"]
times = probe_products()  # seconds; on a graphics card: probe_products(size=2048, device="cuda")
show(plot_products(times), alt="Bars: the time of one matrix product in bf16, fp16 and int8 if it takes 1 in fp32, on "
     "a logarithmic axis. The sentence below the figure says what they show on this machine.")
print(describe_products(times))

# %% [markdown]
# **Exercise 5.** You move every weight of an fp32 model to the nearest of 16 values, and save the model as before, as
# a tensor of fp32 numbers. What has changed? <!-- claim: MATH 2**4 -->
#
# - **a** The file is eight times smaller, and the model runs faster.
# - **b** The file is eight times smaller, but the model is as slow as before.
# - **c** The file is as large as before, and the model is as slow as before.
# - **d** The file is as large as before, but with so few different values the model runs faster.

# %%
### BEGIN SOLUTION answer = ...
answer = "c"
### END SOLUTION

# %%
check("00.still_fp32", answer)

# %% [markdown]
# Some published code stops just there: it *simulates* quantisation and reports a size that no file has. Sizes in this
# course are read from files. Here is one matrix, rounded to 16 values, and then packed. <!-- claim: MATH 2**4 -->

# %%
matrix = layers["blocks.0.mlp.up"].weight.detach()  # (768, 192)
grid = affine_grid(matrix, 4)
codes = nearest(matrix, grid)  # (768, 192), whole numbers 0..15
print("as trained         ", f"{matrix.nbytes:>8,} bytes")
print("rounded, still fp32", f"{grid.decode(codes).nbytes:>8,} bytes")
print("packed codes       ", f"{pack(codes, 4).nbytes:>8,} bytes")

# %% [markdown]
# ## 7 · Switches
#
# Everything has a default that works. These environment variables change it; set them before you start Jupyter.
#
# | variable | values | what it does |
# |:--|:--|:--|
# | `NANOQ_PROFILE` | `ci`, **`lab`**, `full` | Seconds, minutes, hours. It scales steps and samples, never code. |
# | `NANOQ_STRICT` | **`0`**, `1` | `1`: a check that does not pass raises an error. For grading. |
# | `NANOQ_DATA` | a folder | Local copies of real data sets; `data/README.md` names the files. |
# | `NANOQ_CACHE` | a folder | Where the generated corpus is kept. |
# | `NANOQ_PROGRESS` | `0`, **`1`** | `0`: no progress bars. |
#
# **Where the data comes from.** `tales`, the default, is written by a seeded generator, the same on every machine.
# Its text is artificial, which has one advantage: we know the best score that any model could reach. `tinystories`
# and `wikitext-2` are real; they come from `NANOQ_DATA` or, with internet, from the Hugging Face hub. Whatever is
# measured on `tales` says so.

# %% tags=["measured"]
print("profile:", profile())
corpus = board.corpus
print(f"{corpus.name}: {len(corpus.train):,} characters to train on, {len(corpus.test):,} held out; {corpus.source}")

# %% [markdown]
# ## Summary
#
# - Quantising is two choices, a **grid** and a **rounding method**; for a whole model they are written down in a
#   **recipe**.
# - $b$ bits tell $2^b$ values apart, and $n$ weights of $b$ bits take $n \cdot b / 8$ bytes, *if they are packed*.
# - Fewer bits are not faster by themselves. That depends on the machine, so you measure it.
# - A sample of text is an anecdote. The leaderboard measures all models on the same held-out text, with an interval.
# - Predict before you run. Being wrong on paper is the cheapest way to learn.
#
# ## What next
#
# The map in section 1 shows every way through.
#
# - **01 · Data types**, if you want to begin with the bits of a number.
# - **03 · nanoGPT**, if you want to know the model first.
# - **04 · Naive rounding** follows both; if fp32, two's complement and perplexity hold no secrets for you, go there
#   at once.
#
# ## Further reading
#
# - Nagel et al. 2021, *A White Paper on Neural Network Quantization* ([arXiv
#   2106.08295](https://arxiv.org/abs/2106.08295)): the best single text to read beside this course.
# - Gholami et al. 2021, *A Survey of Quantization Methods for Efficient Neural Network Inference*
#   ([2103.13630](https://arxiv.org/abs/2103.13630)): the map of the field.
# - Frantar et al. 2022, *GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers*
#   ([2210.17323](https://arxiv.org/abs/2210.17323)): the method that notebook 07 rebuilds.
# - Eldan and Li 2023, *TinyStories: How Small Can Language Models Be and Still Speak Coherent English?*
#   ([2305.07759](https://arxiv.org/abs/2305.07759)): why such a small model can be worth a course.
# - Brown et al. 2020, *Language Models are Few-Shot Learners* ([2005.14165](https://arxiv.org/abs/2005.14165)):
#   GPT-3.
