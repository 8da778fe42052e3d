# %% [markdown]
# # 04 · Naive rounding
#
# {{colab}}
#
# A trained weight is a 32-bit number. How few bits can it have before the model forgets how to write? This notebook
# answers with the simplest method there is: **move every weight to the nearest value of a small, evenly spaced set**.
# The field calls it **round to nearest**, or **RTN**; papers that compare methods also say *naive rounding*. Everything
# cleverer in this course has to beat it.
#
# At the end you write a whole model to a file of 4 bits per weight, and nearly every function in it is yours.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - turn weights into codes and back with a scale, a zero point and a clamp, and say what each of the three is for;
# - choose how many weights share a scale;
# - pack codes of 4 bits into bytes, and unpack them;
# - quantise all matrices of a model, write one file, and load it into a fresh model.
#
# **You need** notebook 01 (integers and their bits) and 03 (the model, and what its loss means). The model is the GPT of
# notebook 03. We quantise the matrices of its linear layers; embeddings and norms stay in 16 bits.

# %%
import math
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import nanoq
from nanoq.lm import generate, load_corpus
from nanoq.lm.evaluate import paired_difference
from nanoq.quant import Recipe, Round, affine_grid, linear_layers, nearest
from nanoq.teach import challenge, check, pick, use, use_style
from nanoq.teach.capstone import erased
from nanoq.teach.figures import concepts
from nanoq.teach.figures import nb04 as figures
from nanoq.teach.leaderboard import Leaderboard

use_style()

# %%
checkpoint = nanoq.load("tales-2.7m")
layers = linear_layers(checkpoint.model)
weights = {name: layer.weight.detach() for name, layer in layers.items()}
every = torch.cat([w.flatten() for w in weights.values()])  # all of them

# %% tags=["claims"]
assert len(weights) == 24 and len(every) == 2_654_208

# %% [markdown]
# ## 1 · Weights, codes, values
#
# You want integers, and Python has `round()`. So round the weights.
#
# **Before you run it.** Which share of the weights becomes 0? Write down a guess in per cent.
#
# <details><summary>After you have run it</summary>
# Most of them: the weights live between the integers, nearer to 0 than to 1 or −1. The integers are not wrong, they are the
# wrong <i>size</i>.
# </details>

# %%
figures.integers(every)
zeros = float((every.round() == 0).float().mean())
print(f"{100 * zeros:.2f} % of the weights become 0")

# %% tags=["claims"]
assert 0.6 < zeros < 1

# %% [markdown]
# So choose a step, the **scale** $s$, and count in steps. The grid of notebook 00 was symmetric, which wastes codes if the
# weights reach further on one side. Let the codes be $0 \dots 2^b-1$ instead, spread from the lowest weight to the highest,
# and note which code stands for the value 0: the **zero point** $z$. The picture has 3 bits, so 8 codes.
# <!-- claim: MATH 2**3 -->

# %%
concepts.float_line_and_code_line([-0.42, 0.1, 0.68, 1.6], 0.25, 0, 7, zero_point=2)

# %% [markdown]
# The zero point is a code, and so a whole number. A code $q$ stands for the value
#
# $$\hat w = s\,(q - z).$$
#
# A weight beyond the last code goes to that code: the **clamp**. You need it even if the range covers all weights: the
# scale is stored in float16, and that rounding may leave the outermost weights just beyond the last code.
#
# **Exercise 1.** Find scale and zero point for the range `low <= 0 <= high`: the lowest code stands for `low`, the highest
# for `high`, as nearly as a whole $z$ allows. Round $z$ to a whole number, so that the value 0 stays exactly 0. Return two Python numbers.

# %%
def affine(low, high, bits):
    """Scale (float) and zero point (int) of 2**bits values from low to high."""
    ### BEGIN SOLUTION
    scale = (high - low) / (2**bits - 1)  # so many gaps lie between the codes
    return scale, round(-low / scale)
    ### END SOLUTION

# %%
check("04.affine", affine)

# %% [markdown]
# **Exercise 2.** From weights to codes: solve the formula for $q$, go to the *nearest* code, and clamp. Round
# *before* you add the zero point, as file formats do. Return integers (`.long()`).

# %%
def to_codes(weight, scale, zero_point, bits):
    """Codes of the nearest values: floats -> int64, of the same shape."""
    ### BEGIN SOLUTION
    return (torch.round(weight / scale) + zero_point).clamp(0, 2**bits - 1).long()
    ### END SOLUTION

# %%
check("04.codes", to_codes)

# %% [markdown]
# **Exercise 3.** And back. This is called **dequantising**.

# %%
def to_values(codes, scale, zero_point):
    """What the codes stand for: integers -> floats, of the same shape."""
    ### BEGIN SOLUTION
    return scale * (codes - zero_point)
    ### END SOLUTION

# %%
check("04.values", to_values)

# %% [markdown]
# Your three functions at work, on weights that feed one neuron. No weight moves further than half a step. If nothing is
# special about where weights lie between two values, the mean squared error is $s^2/12$.

# %%
my_affine = use("04.affine", affine)
my_codes = use("04.codes", to_codes)
my_values = use("04.values", to_values)
row = weights["blocks.2.mlp.up"][0, :40]  # 40 of 192
scale, zero_point = my_affine(float(row.min()), float(row.max()), bits=3)
codes = my_codes(row, scale, zero_point, bits=3)
print("codes", codes.tolist())
grid = my_values(torch.arange(8), scale, zero_point)  # every code there is
figures.number_lines({"40 weights of one neuron": (row, grid)})

# %% tags=["claims"]
assert (my_values(codes, scale, zero_point) - row).abs().max() < 1.01 * scale

# %% [markdown]
# ## 2 · One scale for how many weights?
#
# How many weights share a scale is the **granularity**: one grid for the whole matrix (*tensor*), one per row (*channel*:
# everything that feeds one output), or one per **group** of neighbours in a row. Here is the matrix with the most
# extreme row, and then one of its ordinary rows on two grids of 3 bits. An **outlier** is a weight far larger than
# nearly all others.
#
# **Before you run it.** Who gains if each row gets a scale of its own: the row with the outlier, or the others?
#
# <details><summary>After you have run it</summary>
# The others. The outlier's row sets the grid of the matrix, so it keeps about the same grid. A row half as wide gets
# steps half as wide, and a quarter of the squared error.
# </details>

# %%
tops = {name: w.abs().amax(1) for name, w in weights.items()}  # of each row
name = max(tops, key=lambda name: tops[name].max() / tops[name].median())
figures.row_maxima(weights[name])
figures.usual_row(name, weights[name], bits=3)

# %% tags=["claims"]
matrix, error = weights[name], {}
for granularity in ("tensor", "channel"):
    grid = affine_grid(matrix, 4, symmetric=True, granularity=granularity)
    square = (grid.decode(nearest(matrix, grid)) - matrix).square()
    error[granularity] = square.mean(1)  # (out,)
share = error["channel"] / error["tensor"]  # (out,)
assert abs(share[tops[name].argmax()] - 1) < 0.05
assert error["channel"].mean() < error["tensor"].mean()

# %% [markdown]
# A scale per row costs little: a float16 and a zero point of $b$ bits for the whole row. A group of $g$ weights pays
# $(16+b)/g$ bits per weight (*Further · Groups*).
#
# `row_grids` asks your `affine` for each row. The scale is rounded to float16 *before* it is used, as the file will have it.
# `affine_grid(weight, bits)` of `nanoq` does this; `nearest` rounds.

# %%
def row_grids(weight, bits):
    """Scales and zero points of all rows: (out, in) -> (out, 1), (out, 1)."""
    grids = []
    for row in weight:
        low, high = min(float(row.min()), 0), max(float(row.max()), 0)
        step = float(torch.tensor(my_affine(low, high, bits)[0]).half())
        grids.append(my_affine(low, low + step * (2**bits - 1), bits))
    return torch.tensor(grids).split(1, dim=1)


weight = weights["blocks.2.mlp.up"]  # (768, 192)
codes = my_codes(weight, *row_grids(weight, 4), 4)  # (768, 192)
grid = affine_grid(weight, 4)
print("the same codes:", torch.equal(codes, nearest(weight, grid)))

# %% tags=["claims"]
assert torch.equal(codes, nearest(weight, grid))

# %% [markdown]
# ## 3 · From codes to bytes
#
# `nanoq` lays codes end to end, lowest bits first: eight codes of 3 bits fill three bytes.

# %%
figures.bit_strips()

# %% [markdown]
# With four bits, two neighbours share a byte: the first in the low half (a *nibble*), the second in the high one.
#
# **Exercise 4.** Pack codes in pairs. `a << 4` moves bits up by four, `a | b` joins them.

# %%
def pack4(codes):
    """Pack codes 0..15 in pairs: int64 (n,), n even -> uint8 (n / 2,)."""
    ### BEGIN SOLUTION
    return (codes[0::2] | codes[1::2] << 4).to(torch.uint8)
    ### END SOLUTION

# %%
check("04.pack4", pack4)

# %% [markdown]
# **Exercise 5.** Unpack. `a >> 4` moves bits down, `a & 15` keeps the last four. Return int64:
# uint8 can wrap around.

# %%
def unpack4(stored):
    """Unpack pairs of codes: uint8 (n / 2,) -> int64 (n,), in the old order."""
    ### BEGIN SOLUTION
    return torch.stack((stored & 15, stored >> 4), 1).flatten().long()
    ### END SOLUTION

# %%
check("04.unpack4", unpack4)

# %% [markdown]
# In the wrong order neighbours change places, and nothing crashes.

# %%
my_pack4, my_unpack4 = use("04.pack4", pack4), use("04.unpack4", unpack4)
packed = my_pack4(codes.view(-1))
same = torch.equal(my_unpack4(packed).view(codes.shape), codes)
print(f"{weight.nbytes:,} bytes became {packed.nbytes:,}; the same codes again: {same}")

# %% tags=["claims"]
assert weight.nbytes == 8 * packed.nbytes

# %% [markdown]
# ## 4 · The whole model
#
# `Recipe(bits=4)` means RTN of every linear layer, one grid per row. The function below quantises a fresh copy. The
# leaderboard saves it, measures the *file*, loads it, and measures the loss. All bytes count, and the embeddings and
# norms stay in float16. Every model reads the same windows, and the losses are subtracted window by window: the
# comparison is **paired** (a *Further* section of notebook 03 shows why). The row with 16 bits, a cast to float16, is a
# *control*: what "no change" looks like here.
#
# **Before you run it.** Each bit fewer makes the squared error of the weights four to five times as large. From 4 to 3 bits,
# will the added loss grow less than that, about as much, or more? And what will 2 bits do?
#
# <details><summary>After you have run it</summary>
# More. Near a trained model the added loss grows with the <i>square</i> of a small change, so you would expect the same
# factor as for the squared error. From 4 to 3 bits it is larger: the change is no longer small. At 2 bits the model is
# ruined. 8 bits cost next to nothing.
# </details>

# %% tags=["measured"]
corpus = load_corpus(checkpoint.card["corpus"])
board = Leaderboard(checkpoint, corpus, windows=pick(ci=16, lab=32, full=None))
temporary = tempfile.TemporaryDirectory()
folder = {bits: Path(temporary.name, f"{bits}-bits") for bits in (16, 8, 4, 3, 2)}


def measure(method, bits, recipe, folder=None):
    """Quantise a copy of the model and put it on the leaderboard."""
    copy = nanoq.load("tales-2.7m")
    nanoq.quant.quantize_model(copy.model, recipe)
    return board.add_saved(method, bits, copy, folder)


rtn = {b: measure("RTN", b, Recipe(bits=b), folder[b]) for b in folder}
board

# %% tags=["claims"]
added = {bits: row.delta_nats for bits, row in rtn.items()}
assert abs(added[16]) < 0.001 and abs(added[8]) < 0.005
assert added[8] < added[4] < added[3] < added[2]
assert added[3] > 5 * added[4] and added[2] > 5 * added[3] and added[2] > 1
assert rtn[2].bytes < rtn[3].bytes < rtn[4].bytes < rtn[8].bytes < rtn[16].bytes

# %% [markdown]
# ## 5 · Capstone: your own 4-bit file
#
# With torch, the functions that you have and `linear_layers`, which names the 24 matrices, write the matrices to **one file
# of at most 1.40 MB**, and load it into a fresh model whose added loss is **within 0.0005 nats** of the row *RTN, 4* above.
#
# **Exercise 6.** Two functions, some fifteen lines. Try each step on one matrix first.
#
# 1. `write`: for each layer of `linear_layers(model)` the codes on its `row_grids`, flattened and packed. Put three tensors
#    per layer into a dictionary: packed codes, scales (float16), zero points (uint8). `save_file(tensors, path)` writes
#    `{name: tensor}`.
# 2. `read`: `load_file(path)` gives the dictionary back. For each layer: unpack, restore the shape, dequantise in float32,
#    and put the result into `layer.weight.data`. The model that you are given has NaN in place of the matrices.
#
# The check looks at the file and the loaded model, and names the layer that is furthest off.

# %%
def write(model, path):
    """Write the matrices to one file, in 4 bits; leave the model as it is."""
    ### BEGIN SOLUTION
    tensors = {}
    for name, layer in linear_layers(model).items():
        scale, zero_point = row_grids(layer.weight.detach(), 4)
        codes = my_codes(layer.weight.detach(), scale, zero_point, 4)
        tensors[f"{name}.codes"] = my_pack4(codes.flatten())
        tensors[f"{name}.scale"] = scale.half()
        tensors[f"{name}.zero_point"] = zero_point.to(torch.uint8)
    save_file(tensors, path)
    ### END SOLUTION

def read(model, path):
    """Fill the matrices of a model with what the codes in the file stand for."""
    ### BEGIN SOLUTION
    tensors = load_file(path)
    for name, layer in linear_layers(model).items():
        codes = my_unpack4(tensors[f"{name}.codes"]).view(layer.weight.shape)
        scale = tensors[f"{name}.scale"].float()
        layer.weight.data = my_values(codes, scale, tensors[f"{name}.zero_point"])
    ### END SOLUTION

# %%
check("04.capstone", (write, read))

# %% [markdown]
# Your model on the leaderboard, below RTN. To the bytes of your file we add what it leaves out: embeddings and norms, two
# bytes each. `keep` puts it on a board of your own. This file will get better by your code: fewer bits in 05, less loss
# in 07, entropy-coded in 09.

# %% tags=["measured"]
from nanoq.teach.own_file import keep, own_files

my_write, my_read = use("04.capstone", (write, read))
path = Path(temporary.name, "mine.bin")
my_write(checkpoint.model, path)
fresh = erased(checkpoint.model)  # a copy with NaN in place of the matrices
my_read(fresh, path)
size = path.stat().st_size
print(f"{size:,} bytes, {8 * size / len(every):.2f} bits per weight")
mine = board.add_model("mine", 4, fresh, size + 2 * (board.parameters - len(every)))
keep("04 · RTN, 4 bits", mine)
own_files()
board

# %% tags=["claims"]
assert size <= 1_400_000 and abs(mine.delta_nats - rtn[4].delta_nats) <= 0.0005

# %% [markdown]
# ## Further · How large is the error?
#
# **Adds** when the rule "a mean squared error of $s^2/12$" holds, and when it does not.
#
# The error of a weight is at most half a step. If it is **uniform** between −½ and ½ step, its mean square is $s^2/12$.
#
# **Exercise 7.** Which mean squared error does this model predict for `bits` over the range `low..high`?

# %%
def expected_mse(low, high, bits):
    """Mean squared error of rounding to 2**bits values from low to high."""
    ### BEGIN SOLUTION
    step = (high - low) / (2**bits - 1)
    return step**2 / 12
    ### END SOLUTION

# %%
check("04.noise", expected_mse)

# %%
my_mse = use("04.noise", expected_mse)

# %% [markdown]
# **Before you run it.** Is the error of real weights uniform? Guess for 8, 4, 3 and 2 bits, with one grid for the matrix.
#
# <details><summary>After you have run it</summary>
# At 8, 4 and 3 bits it is. At 2 bits the step is several times wider than the bell of the weights: almost all weights fall
# to 0, and the error <i>is</i> the weight.
# </details>

# %% tags=["measured"]
errors, largest = {}, float(weight.abs().max())
for bits in (8, 4, 3, 2):
    grid = affine_grid(weight, bits, symmetric=True, granularity="tensor")
    error = grid.decode(nearest(weight, grid)) - weight
    errors[bits] = error / grid.scale  # in steps
    predicted = my_mse(-largest, largest, bits)
    print(f"{bits} bits: {error.square().mean():.2e}, predicted {predicted:.2e}")

# %%
figures.error_histograms(errors)

# %% tags=["claims"]
squares = {bits: 12 * float(error.square().mean()) for bits, error in errors.items()}
assert abs(squares[8] - 1) < 0.05 and abs(squares[4] - 1) < 0.05 and squares[2] < 0.8

# %% [markdown]
# Many slides draw floor brackets, $\lfloor w/s \rfloor$, where they mean "nearest".
#
# **Before you run it.** With floor instead of nearest, is the mean squared error the same, twice, or four times as
# large?
#
# <details><summary>After you have run it</summary>
# Four times. Nearest is off by −½ to ½ step, floor by −1 to 0. The mean of floor's error is half a step, always in the
# same direction, and such a <i>bias</i> does not average out when a layer adds up hundreds of weights.
# </details>

# %% tags=["measured"]
steps = every / (every.abs().max() / 127)  # all weights, in steps of an 8-bit grid
off = {"nearest": steps.round() - steps, "floor": steps.floor() - steps}
for way, error in off.items():
    print(f"{way:8} mean {error.mean():+.3f}, mean square {error.square().mean():.4f}")

# %% tags=["claims"]
assert abs(off["nearest"].mean()) < 0.02 and abs(off["floor"].mean() + 0.5) < 0.02
assert abs(off["floor"].square().mean() / off["nearest"].square().mean() - 4) < 0.2
assert abs(12 * off["nearest"].square().mean() - 1) < 0.05

# %% [markdown]
# ## Further · Groups
#
# **Adds** the price of smaller groups, in bits and in error.
#
# Each group stores a float16 scale and a zero point of $b$ bits. A number of bits without its group size says little.
#
# **Exercise 8.** How many bits does a weight really take in a row of `columns` weights? The last group may be shorter, and
# still has a scale and a zero point.

# %%
def average_bits(columns, bits, group_size):
    """Bits per weight: its code, and its share of scales and zero points."""
    ### BEGIN SOLUTION
    groups = math.ceil(columns / group_size)
    return bits + groups * (16 + bits) / columns
    ### END SOLUTION

# %%
check("04.average_bits", average_bits)

# %%
my_average = use("04.average_bits", average_bits)

# %%
def squared_error(bits, **options):
    """Squared rounding error of all 24 matrices over the sum of their squares."""
    lost = 0.0
    for w in weights.values():
        grid = affine_grid(w, bits, **options)
        lost += float((grid.decode(nearest(w, grid)) - w).square().sum())
    return lost / float(every.square().sum())

# %%
def buy(bits, granularity, size=None):
    """Bits per weight of all matrices, and their squared error."""
    paid = sum(w.numel() * my_average(w.shape[1], bits, size or w.shape[1])
               for w in weights.values()) / len(every)
    if granularity == "tensor":
        paid = bits + len(weights) * (16 + bits) / len(every)
    return paid, squared_error(bits, granularity=granularity, group_size=size)

# %%
how = {"tensor": ("tensor",), "channel": ("channel",)}
how |= {str(size): ("group", size) for size in (64, 32, 16, 8)}
bought = {b: {name: buy(b, *choice) for name, choice in how.items()} for b in (3, 4)}

# %% [markdown]
# **Before you run it.** One bit more per code costs one bit. Groups of 16 at 3 bits cost a little more than that. Which is
# the better buy?
#
# <details><summary>After you have run it</summary>
# The bit. Groups of 16 at 3 bits cost more than plain 4 bits, and have the larger error. Groups of 64 or 32 are a fair
# trade between two widths.
# </details>

# %%
figures.bought(bought)

# %% tags=["claims"]
rows, matrix, groups = (bought[3][name] for name in ("channel", "tensor", "16"))
assert bought[4]["channel"][0] < groups[0] and bought[4]["channel"][1] < groups[1]
assert rows[1] < matrix[1] and rows[0] < matrix[0] + 0.2
grid = affine_grid(weight, 3, granularity="group", group_size=64)
layer = nanoq.quant.QuantLinear.from_codes(nearest(weight, grid), grid)
size = sum(buffer.nbytes for buffer in layer.buffers())
assert 8 * size / weight.numel() == my_average(192, 3, 64)

# %% [markdown]
# ## Further · Three grids called "symmetric"
#
# **Adds** a warning for whoever compares papers.
#
# A symmetric grid has no zero point to store: 0 is its middle. But at least **three** grids go by that name. At 8 bits
# nobody sees the difference; at 2 bits they are three different methods:
#
# - A: values −max, 0, max. `nanoq`'s `symmetric=True`, and most int8 kernels (codes −127 … 127). One code is idle. <!-- claim: MATH 2**7 - 1 -->
# - B: step $2\,max/3$, four values, with 0 on the grid and a longer reach on one side. Public GPTQ code does this.
# - C: step $max/2$, four values; the largest positive weights are clamped.
#
# **Before you run it.** Which of the three has the largest squared error on Gaussian weights?
#
# <details><summary>After you have run it</summary>
# A, then B, then C. Three papers that all say "symmetric, 2 bits" need not be comparable. <b>Fix the grid before you
# compare methods.</b>
# </details>

# %% tags=["measured"]
rows = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
top, mse, lines = rows.abs().amax(1, keepdim=True), {}, {}
three = {"A": (1, -1, 1), "B": (2 / 3, -2, 1), "C": (1 / 2, -2, 1)}
for name, (share, first, last) in three.items():
    step = share * top  # (2000, 1)
    error = (rows / step).round().clamp(first, last) * step - rows
    mse[name] = float(error.square().mean())
    lines[name] = rows[0, :80], torch.arange(first, last + 1) * step[0]
    print(f"{name}: squared error {mse[name]:.2f} of the weights' variance")

# %%
figures.number_lines(lines)

# %% tags=["claims"]
assert mse["C"] < mse["B"] < mse["A"] < 1

# %% [markdown]
# ## Further · The int8 trap
#
# **Adds** what a cast does to a code that does not fit.
#
# int8 runs from −128 to 127, one more on the negative side. Symmetric grids leave −128 alone. A colleague wants all
# 256 codes: `scale = largest / 128`, round, cast to int32 and then to int8. The largest weight is positive.
# <!-- claim: MATH 2**8; MATH 2**7; MATH 2**7 - 1 -->
#
# **Exercise 9.** What code does the largest weight get? Commit yourself: `"a"`, `"b"`, `"c"` or `"d"`.
#
# - a) 128
# - b) 127
# - c) −128
# - d) none: torch raises an error

# %%
### BEGIN SOLUTION prediction = ...
prediction = "c"
### END SOLUTION

# %%
check("04.cast", prediction)

# %%
toy = torch.tensor([13.5, 14.3, 8.5, -4.7])
integers = torch.round(toy / (toy.max() / 128)).to(torch.int32)
print("rounded", integers.tolist(), "cast", integers.to(torch.int8).tolist())
print("clamped, then cast", integers.clamp(-128, 127).to(torch.int8).tolist())

# %% tags=["claims"]
assert integers.to(torch.int8)[1] == -128

# %% [markdown]
# The largest weight has become the most negative one, without a word. **Clamp first, then cast.** Notebook 02 has more on
# casts.

# %% [markdown]
# ## Further · Cut the tails
#
# **Adds** the clipping search, which costs no bytes.
#
# Must the grid reach the largest weight? If it ends earlier, the few weights beyond are **clipped**: a large error each.
# All others get finer steps: a smaller error each. Somewhere between lies the best range.
#
# **Exercise 10.** Do the search for one row and the symmetric grid A, whose codes run from $-(2^{b-1}-1)$ to $2^{b-1}-1$:
# among the shares `torch.linspace(1, 0.2, 81)` of `max|w|`, return the one (a float) whose grid has the least squared
# error.

# %%
def best_share(weight, bits):
    """Weights (n,) -> the best share of their range."""
    ### BEGIN SOLUTION
    qmax = 2 ** (bits - 1) - 1

    def squared_error_of(share):
        scale = share * weight.abs().max() / qmax
        codes = torch.round(weight / scale).clamp(-qmax, qmax)
        return float((codes * scale - weight).square().sum())

    return min(torch.linspace(1, 0.2, 81).tolist(), key=squared_error_of)
    ### END SOLUTION

# %%
check("04.best_share", best_share)

# %%
my_share = use("04.best_share", best_share)

# %% [markdown]
# **Before you run it.** At 8, 4, 3 and 2 bits: near which share of the range does the best grid for a row end?
#
# <details><summary>After you have run it</summary>
# The fewer the bits, the further in: a coarse step hurts every weight, a clipped weight only itself.
# </details>

# %% tags=["measured"]
shares = {bits: [my_share(w, bits) for w in weight[:40]] for bits in (8, 4, 3, 2)}
for bits, found in shares.items():
    print(f"{bits} bits: {100 * sum(found) / len(found):.0f} % of the range")

# %% tags=["claims"]
means = [sum(found) / len(found) for found in shares.values()]
assert means[0] > means[1] > means[2] > means[3]

# %% [markdown]
# `affine_grid(..., search="mse")` does this search for every row, or every group, at once. A smaller error of the
# *weights* is not yet a better *model*: so ask the model. All rows below have 3 bits.
#
# **Before you run it.** Which helps more, groups of 64 or the clipping search? Do they add up?
#
# <details><summary>After you have run it</summary>
# Both help, and together they help less than the sum of the two: both mend the same fault, a step that one outlier has
# made too wide. Clipping is free: the file has as many bytes as before. Groups are not.
# </details>

# %% tags=["measured"]
groups = {"granularity": "group"}
options = {
    "clipped": {"search": "mse"},
    "groups of 64": groups | {"group_size": 64},
    "groups of 16": groups | {"group_size": 16},
    "groups of 64, clipped": groups | {"group_size": 64, "search": "mse"},
}
variants = {"one grid per row": rtn[3]}
for name, choice in options.items():
    variants[name] = measure(name, 3, Recipe(bits=3, grid_options=choice))

# %%
figures.variants(variants | {"plain 4 bits": rtn[4]})

# %% tags=["claims"]
loss = {name: row.delta_nats for name, row in variants.items()}
gain = {name: loss["one grid per row"] - loss[name] for name in options}
assert min(gain.values()) > 0
assert gain["groups of 64, clipped"] < gain["groups of 64"] + gain["clipped"]
more = {name: row.bytes - rtn[3].bytes for name, row in variants.items()}
assert more["clipped"] < 1000 < more["groups of 64"]
assert variants["groups of 16"].bytes > 0.97 * rtn[4].bytes
assert loss["groups of 16"] > rtn[4].delta_nats

# %% [markdown]
# ## Further · Where the bytes go
#
# **Adds** a look into the files of section 4, and at what a layer does with them.
#
# `QuantLinear` takes the place of `nn.Linear` and makes the float weight anew in every call. That saves memory, not time
# (notebook 08).

# %%
concepts.quant_linear()

# %% tags=["claims"]
weight = weights["blocks.0.attention.qkv"]
grid = nanoq.quant.affine_grid(weight, 4)
codes = nanoq.quant.nearest(weight, grid)
layer = nanoq.quant.QuantLinear.from_codes(codes, grid)
x = torch.randn(5, 192, generator=torch.Generator().manual_seed(0))  # (5, 192)
values = my_values(codes, *row_grids(weight, 4))
assert torch.allclose(layer(x), x @ values.T, atol=1e-5)

# %% [markdown]
# Now the bytes of a file, by what they are for.

# %%
def anatomy(path):
    """Bytes of a saved model by kind; what is not in a tensor is the file's header."""
    parts = {"codes": 0, "scale": 0, "zero_point": 0, "embeddings, norms": 0}
    for name, tensor in load_file(path / "model.safetensors").items():
        kind = name.rsplit(".", 1)[1]
        parts[kind if kind in parts else "embeddings, norms"] += tensor.nbytes
    whole = (path / "model.safetensors").stat().st_size
    return parts | {"header": whole - sum(parts.values())}

# %% [markdown]
# **Before you run it.** The codes have 2 bits. Which share of the 2-bit file do they take?
#
# <details><summary>After you have run it</summary>
# Well below nine tenths. The codes shrink, the rest stays: the fewer the bits, the more it weighs. In a model of
# billions of weights the embeddings weigh less, and scales more, since groups are smaller there. Count; never assume.
# </details>

# %%
files = {bits: anatomy(folder[bits]) for bits in (8, 4, 3, 2)}
print("at 2 bits:", {kind: size for kind, size in files[2].items() if kind != "header"})
figures.anatomy(files)

# %% tags=["claims"]
assert all(sum(parts.values()) == rtn[bits].bytes for bits, parts in files.items())
assert 0.6 < files[2]["codes"] / rtn[2].bytes < 0.9 < files[8]["codes"] / rtn[8].bytes

# %% [markdown]
# ## Further · What they write
#
# **Adds** samples, and what they cannot show.
#
# **Before you run it.** Same beginning, same seed: will the 8-bit model write the same text as float32?
#
# <details><summary>After you have run it</summary>
# Texts part ways as soon as one character is drawn differently; from there on they are different stories, not better or
# worse ones. So a sample shows that 2 bits are broken. It cannot show that 8 bits are better than 4.
# </details>

# %% tags=["measured"]
models = {32: checkpoint.model}
models |= {bits: nanoq.load(folder[bits]).model for bits in (8, 4, 2)}
length = pick(ci=40, lab=160, full=400)
for bits, model in models.items():
    beginning = model, checkpoint.tokenizer, "Once upon a time"
    text = generate(*beginning, length, temperature=0.7, seed=1)
    print(f"{bits:2} bits | {' '.join(text.split('<|endoftext|>')[0].split())}\n")

# %% [markdown]
# ## Further · Is the difference real?
#
# **Adds** the standard error behind the leaderboard's intervals.
#
# Notebook 03 shows that random windows, other ones for each model, cannot rank models. On the same windows you can
# subtract: what makes a window hard makes it hard for both models, and cancels.
#
# **Exercise 11.** The standard error of the mean difference, paired: from the window losses of a model and of its
# reference, both `(n,)`. (`tensor.std()` is the spread of one value.)

# %%
def standard_error(losses, reference):
    """How far the mean of losses - reference is expected to be off, as one number."""
    ### BEGIN SOLUTION
    return (losses - reference).std() / math.sqrt(len(losses))
    ### END SOLUTION

# %%
check("04.standard_error", standard_error)

# %%
my_error = use("04.standard_error", standard_error)

# %% [markdown]
# `paired_difference` makes its interval by the bootstrap: it draws windows with replacement. Your standard error, times
# 1.96, should say nearly the same. <!-- claim: CELL 1.96 * my_error -->
#
# **Before you run it.** Does the interval of the 8-bit model leave out zero? Does that of the 4-bit model?
#
# <details><summary>After you have run it</summary>
# At 4 bits zero is left out. If the 8-bit line says <i>zero is not excluded</i>, that is an answer too: on this much text
# the effect is smaller than the interval. It is no proof that there is none.
# </details>

# %% tags=["measured"]
base = board.losses[0]  # of float32, per window
for bits in (8, 4):
    losses = board.losses[board.rows.index(rtn[bits])]
    paired = paired_difference(losses, base)
    verdict = "" if paired.significant else ": zero is not excluded"
    print(f"{bits} bits: {paired.low:+.5f} to {paired.high:+.5f}{verdict}")
    print(f"yours: {paired.mean:+.5f} ± {1.96 * my_error(losses, base):.5f}")

# %% tags=["claims"]
half = 1.96 * float(my_error(losses, base))
assert 0.5 < (paired.high - paired.low) / 2 / half < 2
if len(base) >= 32:
    assert paired.low > 0  # of 4 bits

# %% [markdown]
# ## Further · Audit: "31.9 MB → 2.9 MB"
#
# **Adds** a published size that does not hold.
#
# A student project with this very architecture reports: *the model shrinks from 31.9 MB to 2.9 MB with int8*. That is
# eleven times, and from 32-bit to 8-bit numbers it can be four at most. Where is the catch? What is known:
# <!-- claim: SOURCE the student project's README, January 2026 -->
#
# - the checkpoint has 32,721,538 bytes; the model has 86 characters in its vocabulary, otherwise the shape of ours;
# - int8 codes for the 24 matrices, a float32 scale per row, everything else left in float32.

# %%
theirs = nanoq.lm.model.GPT(nanoq.lm.model.GPTConfig(vocab_size=86))
matrices = [layer.weight for layer in linear_layers(theirs).values()]
parameters, quantised = theirs.parameter_count(), sum(w.numel() for w in matrices)
rows = sum(len(w) for w in matrices)
print(f"{parameters:,} parameters, {quantised:,} of them in {rows:,} rows of matrices")

# %% tags=["claims"]
assert (parameters, len(matrices)) == (2_722_368, 24)
assert (quantised, rows) == (2_654_208, 10_368)

# %% [markdown]
# **Exercise 12.** Divide the size of the checkpoint by the number of parameters. What is in the file besides the float32
# weights? The optimiser that trained it keeps a mean of the gradients and one of their squares, its *moments*.
#
# - a) nothing: the weights are float64
# - b) the optimiser's two moments of each parameter, in float32
# - c) the gradient of each parameter, in float32
# - d) the training text

# %%
### BEGIN SOLUTION answer = ...
answer = "b"
### END SOLUTION

# %%
check("04.audit", answer)

# %% [markdown]
# **Exercise 13.** How many bytes has their int8 model: int8 codes for `weights`, a float32 scale for each of `rows`, and
# `rest` parameters in float32?

# %%
def payload(weights, rows, rest):
    """Bytes of the int8 model."""
    ### BEGIN SOLUTION
    return weights + 4 * rows + 4 * rest
    ### END SOLUTION

# %%
check("04.payload", payload)

# %%
my_payload = use("04.payload", payload)
training, float32 = 32_721_538, 4 * parameters
int8 = my_payload(quantised, rows, parameters - quantised)
print(f"reported {training / int8:.1f} times, like for like {float32 / int8:.2f}")

# %%
figures.checkpoint_sizes(training, float32, int8)

# %% tags=["claims"]
assert (3 * float32, float32, int8) == (32_668_416, 10_889_472, 2_968_320)
assert round(float32 / int8, 2) == 3.67 and training // 1024 == 31_954

# %% [markdown]
# - Two thirds of the "model" were the optimiser's memory, which nobody ships. Like for like it is **3.67 times**: short of
#   4, because scales are added and embeddings are not quantised. <!-- claim: CELL round(float32 / int8, 2) == 3.67; MATH 32 / 8 -->
# - "31.9 MB" is 31,954 *KiB* read as megabytes: the file has 32.7 MB ($10^6$ bytes) or 31.2 MiB ($2^{20}$). Give bytes.
#   <!-- claim: MATH 32721538 / 2**20; MATH 32721538 / 10**6; SOURCE the student project's README, January 2026 -->

# %% [markdown]
# ## Further · Open challenge
#
# **Adds** a problem without a known best answer.
#
# **The smallest file that is no worse than plain 4 bits**, with rounding to nearest alone. You may choose bits,
# granularity, group size, clipping and symmetry for every layer; rules with `*` go from first to last, and the first that
# fits counts. The score is the size of the file in kB, as long as the added loss is not above that of *RTN, 4*. If it
# is, the score is the size of plain 4 bits. The recipe below puts one small matrix on 3 bits, and loses.

# %% tags=["measured"]
attempt = Recipe(Round(bits=4), rules={"blocks.0.attention.out": Round(bits=3)})
tried = measure("attempt", 4, attempt)
print(f"{tried.bytes:,} bytes, {tried.delta_nats:+.5f} nats")
print(f"{rtn[4].bytes:,} bytes, {rtn[4].delta_nats:+.5f} nats: plain 4 bits")

# %% tags=["measured"]
good_enough = tried.delta_nats <= rtn[4].delta_nats
score = (tried if good_enough else rtn[4]).bytes / 1000  # kB
challenge(
    "04.smaller", score, bronze=1480, silver=1465, gold=1453,
    by="one matrix on 3 bits",
)  # fmt: skip

# %% tags=["claims"]
assert tried.delta_nats > rtn[4].delta_nats and score > 1480

# %% [markdown]
# ## Summary
#
# - A grid is a **scale**, a **zero point** and a range of codes. Divide, round to nearest, add the zero point, clamp.
# - One grid per **row** is nearly free. Groups of $g$ weights cost $(16+b)/g$ bits per weight.
# - A 4-bit file holds packed codes, scales and zero points. All of them count, and so does what is not quantised.
# - RTN: 8 bits are safe here, 4 bits cheap, 3 bits costly, 2 bits ruinous.
# - Compare models on the same windows, and give an interval.
#
# **05 · Ternary weights** asks which three values are best. **07 · GPTQ** uses the same grids, but lets each rounding
# make up for the errors of those before it, and takes back most of what you have just lost.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further reading
#
# - Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*
#   ([arXiv 1712.05877](https://arxiv.org/abs/1712.05877)): scale and zero point as we use them.
# - Krishnamoorthi 2018, *Quantizing deep convolutional networks for efficient inference: A whitepaper*
#   ([1806.08342](https://arxiv.org/abs/1806.08342)): per-tensor against per-channel.
# - Nagel et al. 2021, *A White Paper on Neural Network Quantization* ([2106.08295](https://arxiv.org/abs/2106.08295)):
#   rounding and clipping error, range setting, and a pipeline to follow.
# - Gholami et al. 2021, *A Survey of Quantization Methods for Efficient Neural Network Inference*
#   ([2103.13630](https://arxiv.org/abs/2103.13630)): the map of the field.
