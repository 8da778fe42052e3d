# %% [markdown]
# # 00 · Start here
#
# {{colab}}
#
# A neural network is a long list of numbers, its **weights**. **Quantisation** stores each weight in fewer bits, for
# example in 4 bits instead of 32 bits. The model gets smaller and runs where it did not fit before. What does that cost,
# and how do the best methods save so much at so little cost? In this course you find out by building each method yourself.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - find your way around the course, its exercises and its checks;
# - compute the size of any model at any number of bits;
# - turn weights into codes and back;
# - say why a smaller model is not always a faster one.
#
# **You need** some Python, and to have seen a matrix product. That is all.

# %%
import math
import textwrap

import torch
from IPython.display import Markdown

import nanoq
from nanoq.doctor import doctor
from nanoq.lm import generate, load_corpus
from nanoq.quant import Recipe, affine_grid, linear_layers, nearest, pack
from nanoq.teach import check, course, hardware, pick, profile, use, use_style
from nanoq.teach.figures import concepts
from nanoq.teach.figures import nb00 as figures
from nanoq.teach.leaderboard import Leaderboard

use_style()

# %% [markdown]
# ## 1 · The course in one picture
#
# The course starts with the bits of a number and ends with real language models in which every layer has its own
# number of bits. In the map, an arrow leads from a notebook to those that build on it. The table below the map has links.

# %%
figures.course_map()
Markdown(course.course_table())

# %% [markdown]
# A [glossary](glossary.md) explains every term; each notebook links to it where it first uses one.
#
# | you are … | do this |
# |:--|:--|
# | **alone with a laptop** | Read, predict, run, solve. Look at `solutions/` afterwards. |
# | **in a lab, perhaps offline** | The same: the models are part of the package, nothing is downloaded. |
# | **on Colab** | Press the badge at the top. The first cell installs `nanoq`. |
# | **teaching** | Use the [lecturer's kit](teaching/README.md): a 90-minute lab for each notebook. <!-- claim: TEST tests/notebooks/test_kit_pages.py::test_the_plan_adds_up_to_ninety_minutes --> |
#
# Two CPU cores are enough. Sections called *Further* are folded: open one if you are curious, or skip it.

# %% [markdown]
# ## 2 · A first taste
#
# This small language model has read nothing but children's stories. The cell below lets it continue the same four words
# three times: with its weights as they were trained, in 32 bits each, then rounded to 4 bits and to 2 bits.

# %% tags=["measured"]
def tell(bits):
    """Continue a story with weights of this many bits; stop where the story ends."""
    storyteller = nanoq.load("tinystories-2.7m")
    if bits < 32:
        nanoq.quant.quantize_model(storyteller.model, Recipe(bits=bits))  # in place
    text = generate(
        storyteller.model, storyteller.tokenizer, "Once upon a time",
        length=600, temperature=0.7, seed=2,
    )  # fmt: skip
    return text.split("<|endoftext|>")[0]

# %% [markdown]
# **Before you run it.** 4 bits tell 16 values apart, and 2 bits only 4. Write down what you expect of each: the same
# story, a worse one, or no English at all? <!-- claim: MATH 2**4; MATH 2**2 -->
#
# <details><summary>After you have run it</summary>
# With 4 bits the model still writes English that you can follow, with a slip here and there. With 2 bits it no longer writes words. Neither
# result proves much yet: one text is an anecdote. Section 5 measures.
# </details>

# %% tags=["measured"]
for bits in (32, 4, 2):
    print(f"--- {bits} bits per weight\n{textwrap.fill(tell(bits), 88)}\n")

# %% [markdown]
# ## 3 · How exercises work
#
# - Where you see `...  # your code here`, replace the dots with your code and run the cell. Then run the cell with
#   `check` below it.
# - The check answers *correct*, *not attempted yet*, or says what is wrong. It knows the common mistakes.
#   You need not ask for a hint: a second wrong answer brings one that says how to begin.
# - You can skip any exercise: the cells below it then use the course's answer, and say so.
# - If a cell runs on and on (its number stays `[*]`), choose **Kernel → Interrupt Kernel**, or press ■. Your variables
#   survive. A loop that never ends is the usual reason.
#
# The dots after an exercise's number show how hard it is.
#
# **Exercise 1.** One bit tells two values apart. How many different values do `bits` bits tell apart?

# %%
def levels(bits):
    """How many different values there are with this many bits."""
    ### BEGIN SOLUTION
    return 2**bits
    ### END SOLUTION

# %%
check("00.levels", levels)

# %% [markdown]
# **Exercise 2.** Each of `weights` numbers takes `bits` bits, and they are *packed*: stored one after the other without
# gaps. How many whole bytes is that? A byte has 8 bits. `math.ceil` rounds up, and so does `-(-a // b)`.

# %%
def packed_size(weights, bits):
    """Bytes of a file that holds the packed numbers and nothing else."""
    ### BEGIN SOLUTION
    return math.ceil(weights * bits / 8)
    ### END SOLUTION

# %%
check("00.bytes", packed_size)

# %% [markdown]
# `use` gives you your own function if it is right. The next cell applies it to the 24 matrices of our model that the
# course quantises. <!-- claim: CELL my_size = use -->

# %%
my_size = use("00.bytes", packed_size)
layers = linear_layers(nanoq.load("tinystories-2.7m").model)  # {name: layer}
weights = sum(layer.weight.numel() for layer in layers.values())
print(f"{len(layers)} matrices, {weights:,} weights")
for bits in (32, 8, 4, 2):
    print(f"{bits:2} bits: {my_size(weights, bits):>12,} bytes")

# %% tags=["claims"]
assert len(layers) == 24

# %% [markdown]
# **Exercise 3.** How many GB do `weights` numbers of `bits` bits take? A GB is 10⁹ bytes. GPT-3 has 175 billion weights; how
# many GB are they at 16 bits?

# %%
def gigabytes(weights, bits):
    """Size in GB, of any number of weights; there is no need to round."""
    ### BEGIN SOLUTION
    return weights * bits / 8 / 1e9
    ### END SOLUTION

# %%
check("00.gpt3", gigabytes)

# %%
my_gigabytes = use("00.gpt3", gigabytes)
print(f"GPT-3 at 16 bits: {my_gigabytes(175e9, 16):,.0f} GB")

# %% [markdown]
# ## 4 · From weights to codes
#
# Four bits can tell only 16 values apart. <!-- claim: MATH 2**4 --> So a file holds small whole numbers instead, the **codes**, and one
# number that says how far apart the values of neighbouring codes are, the **scale**:
#
# $$\text{value} = \text{scale} \cdot \text{code}, \qquad \text{code} = \text{round}(\text{weight} / \text{scale}).$$
#
# All values that codes can stand for are the **grid**. Here the codes run from −3 to 3 and the scale is 0.3.
# <!-- claim: CELL concepts.float_line_and_code_line -->

# %%
concepts.float_line_and_code_line([-0.9, 0.2, 0.7], scale=0.3, low=-3, high=3)

# %% [markdown]
# With more codes the grid gets finer. With 8 bits there are 256 codes; a symmetric grid uses −127 to 127 and leaves one of
# them out, so that it reaches equally far on both sides. <!-- claim: MATH 2**8; MATH 2**(8-1) - 1 -->
#
# **Exercise 4.** Which `scale` makes the largest weight, in absolute value, exactly the largest code, 127?

# %%
def scale(weight):
    """The scale of an 8-bit grid that just covers the weights, as a tensor."""
    ### BEGIN SOLUTION
    return weight.abs().max() / 127
    ### END SOLUTION

# %%
check("00.scale", scale)

# %% [markdown]
# Now turn weights into codes and back, with your scale.

# %%
my_scale = use("00.scale", scale)
weight = torch.tensor([0.3141, -1.27, 0.008, 0.0049])
codes = torch.round(weight / my_scale(weight))
print("codes", codes.tolist())
print("values", (my_scale(weight) * codes).tolist())

# %% tags=["claims"]
assert codes.tolist() == [31, -127, 1, 0]
assert (my_scale(weight) * codes - weight).abs().max() <= my_scale(weight) / 2

# %% [markdown]
# - No weight moves further than half a scale. Small weights suffer most: the last one became 0.
# - Rounding to the nearest value is only one way to choose a code. GPTQ, for instance, sometimes chooses the second
#   nearest, so that the errors of several weights cancel. You build it in this course.

# %% [markdown]
# ## 5 · Measure it
#
# Are 4 bits enough? One story cannot tell, but the **loss** can: how badly the model predicts each next character of
# **held-out** text, text that it has never seen. The **leaderboard** is the table that compares all methods:
#
# - *bits/param* counts every bit of the file, including scales and the parts that were not quantised, per parameter;
# - *Δ nats* is the loss that quantising has added. Its unit is the *nat*, and smaller is better (notebook 03);
# - the *95 % interval* says how precisely we know it (notebook 04);
# - *perplexity* is the loss in another form (notebook 03).
#
# The leaderboard uses a twin of our model, `tales-2.7m`. It was trained on stories that a program generates, so that
# text to measure on can be made on your machine. The first call does that, and stores it.
#
# **Before you run it.** How much more loss do 2 bits add than 4: twice as much, ten times, or more?
#
# <details><summary>After you have run it</summary>
# More than ten times as much. Each bit that you take away makes the grid about twice as coarse, and the loss grows much
# faster than that.
# </details>

# %% tags=["measured"]
twin = nanoq.load("tales-2.7m")
windows = pick(ci=4, lab=32, full=128)  # passages of text to measure on
board = Leaderboard(twin, load_corpus(twin.card["corpus"]), windows=windows)
four_bits = board.add("RTN", 4, Recipe(bits=4))  # RTN: round to nearest
two_bits = board.add("RTN", 2, Recipe(bits=2))
board

# %% tags=["claims"]
assert two_bits.ci_low > four_bits.ci_high > 0  # the intervals do not overlap
assert two_bits.delta_nats > 10 * four_bits.delta_nats
assert two_bits.bytes < four_bits.bytes < board.rows[0].bytes

# %% [markdown]
# Now it is a measurement: the intervals of the two rows do not even touch. Other notebooks measure on more passages, so
# their first row differs slightly from this one.
#
# `Recipe(bits=4)` is a **recipe**: it says how each layer is quantised. Here all layers are treated alike; later, each
# gets its own number of bits.

# %% [markdown]
# ## 6 · Rounded is not yet small
#
# **Exercise 5.** You move every weight of a 32-bit model to the nearest of 16 values and save the model as before, as a
# tensor of 32-bit numbers. What has changed? Answer with a letter. <!-- claim: MATH 2**4 -->
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
check("00.saved", answer)

# %% [markdown]
# Some published code stops there and reports a size that no file has. Here are the real sizes of one matrix. Its grid
# has a zero point (notebook 04), so its codes are 0 to 15; the packed size is that of the codes, without their scales.
# <!-- claim: MATH 2**4 - 1 -->

# %%
matrix = layers["blocks.0.mlp.up"].weight.detach()  # (768, 192)
grid = affine_grid(matrix, bits=4)
codes = nearest(matrix, grid)  # (768, 192), whole numbers 0..15
sizes = matrix.nbytes, grid.decode(codes).nbytes, pack(codes, 4).nbytes
print("trained {:,}, rounded {:,}, packed {:,} bytes".format(*sizes))

# %% tags=["claims"]
assert sizes[0] == sizes[1] == 8 * sizes[2]

# %% [markdown]
# ## 7 · Smaller is not yet faster
#
# The next cell multiplies two matrices in four number types: **fp32** (32 bits per number), **bf16** and **fp16** (16
# bits each, shared out differently; notebook 01) and **int8** (8 bits).
#
# **Before you run it.** If fp32 takes 1, how long do bf16, fp16 and int8 take? Write down three numbers.
#
# <details><summary>After you have run it</summary>
# Compare bf16 with fp16: the same number of bytes, and on most machines very different times. Time depends on whether
# the processor has instructions for a type, and whether the library uses them. With those for bf16 switched off, as on
# many laptops, bf16 took dozens of times as long as fp32 on the machine that built this page. So measure your own
# machine.
# </details>

# %% tags=["measured"]
times = hardware.probe_products()  # seconds
figures.products(times)
print(hardware.describe_products(times))

# %% [markdown]
# ## Further · Your installation
#
# **Adds** a look at what is installed on your machine, and the settings that you can change.
#
# The doctor tries everything that the course needs. Lines that begin with *warn* or *FAIL* say what to do. In a terminal
# the command is `nanoq doctor`.

# %% tags=["measured"]
healthy = doctor(skip=["products"])

# %% [markdown]
# The settings are environment variables. Set them before you start Jupyter; the defaults are fine.
#
# | variable | values | what it does |
# |:--|:--|:--|
# | `NANOQ_PROFILE` | `ci`, **`lab`**, `full` | Seconds, minutes or hours: how many steps and samples to spend. |
# | `NANOQ_STRICT` | **`0`**, `1` | `1`: a check that does not pass raises an error. For grading. |
# | `NANOQ_DATA` | a folder | Local copies of real data sets; `data/README.md` names the files. |
# | `NANOQ_CACHE` | a folder | Where generated text and your own results are kept. |
# | `NANOQ_PROGRESS` | `0`, **`1`** | `0`: no progress bars. |
#
# The text `tales` comes from a seeded generator and is the same on every machine. The data sets `tinystories` and
# `wikitext-2` are real; they come from `NANOQ_DATA`, or from the Hugging Face hub.

# %% tags=["measured"]
corpus = board.corpus
print(f"profile {profile()}; {corpus.name}: {len(corpus.train):,} characters")

# %% [markdown]
# ## Summary
#
# - $b$ bits tell $2^b$ values apart, and $n$ weights of $b$ bits take $n \cdot b / 8$ bytes *if they are packed*.
# - A weight is stored as a code; the scale turns it back into a value of the grid.
# - One text is an anecdote. The leaderboard measures every method on the same unseen text, with an interval.
# - Fewer bits are smaller, but not always faster: measure.
#
# Continue with **01 · Data types** if you want to know what a number is made of, or with **03 · nanoGPT** if you want to
# build the model first.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further reading
#
# - Nagel et al. 2021, *A White Paper on Neural Network Quantization* ([arXiv
#   2106.08295](https://arxiv.org/abs/2106.08295)): the best single text to read beside this course.
# - Gholami et al. 2021, *A Survey of Quantization Methods for Efficient Neural Network Inference*
#   ([2103.13630](https://arxiv.org/abs/2103.13630)): the map of the field.
# - Eldan and Li 2023, *TinyStories: How Small Can Language Models Be and Still Speak Coherent English?*
#   ([2305.07759](https://arxiv.org/abs/2305.07759)): why such a small model can be worth a course.
# - Brown et al. 2020, *Language Models are Few-Shot Learners* ([2005.14165](https://arxiv.org/abs/2005.14165)):
#   GPT-3.
