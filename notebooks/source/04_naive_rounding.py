# %% [markdown]
# # 04 · Naive rounding
#
# {{colab}}
#
# A trained weight is a 32-bit number. How few bits can it have before the model forgets how to write? This notebook
# answers with the simplest method there is: **move every weight to the nearest value of a small, evenly spaced set**,
# one weight at a time, without a look at any text. Everything cleverer in this course has to beat it.
#
# {{cost_card}}
#
# **You will be able to**
#
# - turn weights into codes and back with a scale, a zero point and a clamp, and say what each of the three is for;
# - predict the error of rounding from the step alone, and know where the prediction ends;
# - choose between symmetric and asymmetric grids, tensor, channel and group scales, full and clipped range;
# - pack codes of 2, 3, 4 and 8 bits into bytes, and count the bits of a file honestly;
# - tell a real loss of quality from evaluation noise.
#
# **You need** notebook 01 (integers and their bits) and 03 (the model, and what its loss means).

# %%
import math
import tempfile
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import nanoq
from nanoq.lm.corpus import load_corpus
from nanoq.lm.evaluate import paired_difference
from nanoq.lm.generation import generate
from nanoq.lm.model import GPT, GPTConfig
from nanoq.quant import QuantLinear, Recipe, affine_grid, linear_layers, nearest, quantize_model
from nanoq.quant.packing import pack, unpack
from nanoq.store import load, read_folder
from nanoq.teach import check, pick, show, use_style
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.plots import COLORS

use_style()

# %% [markdown]
# ### The model
#
# - The 2.7-million-parameter GPT that you met in notebook 03, as it ships with the course.
# - Change the name to `"tinystories-2.7m"` for the one that was trained on real TinyStories. Its text is not shipped:
#   you need the internet, or a folder named by `NANOQ_DATA`.
# - We quantise the matrices of the linear layers. Embeddings and norms stay as they are, and are counted all the same.

# %%
NAME = "tales-2.7m"
checkpoint = nanoq.load(NAME)
corpus = load_corpus(checkpoint.card["corpus"])
layers = linear_layers(checkpoint.model)
weights = {name: layer.weight.detach() for name, layer in layers.items()}  # each (out, in)
print(len(weights), "matrices with", f"{sum(w.numel() for w in weights.values()):,}", "weights")
print("one block:", {name: tuple(w.shape) for name, w in weights.items() if name.startswith("blocks.0")})

# %% [markdown]
# ## 1 · Round to what?
#
# You want integers, and Python has `round()`. So round the weights.
#
# **Before you run it.** What will be left of the model? Look at the picture before you read on.

# %%
every = torch.cat([w.flatten() for w in weights.values()])  # (2654208,)
fig, ax = plt.subplots(figsize=(7, 2.8))
ax.hist(every.clamp(-1.4, 1.4).numpy(), bins=281, color=COLORS["blue"])
for integer in (-1, 0, 1):
    ax.axvline(integer, color=COLORS["vermillion"], lw=2, ls="--")
ax.axvspan(-0.5, 0.5, color=COLORS["vermillion"], alpha=0.08)
ax.set(xlabel="weight", ylabel="how many", title="All weights, and the integers (dashed)")
show(fig, alt="Histogram of all weights: a narrow bell around 0 that lies almost wholly between "
     "-0.5 and 0.5, the shaded region in which round() gives 0. The integers -1 and 1 stand far "
     "out in its tails.")

# %% [markdown]
# - The weights live between the integers: almost all of them are nearer to 0 than to 1 or -1.
# - `round()` therefore gives zeros. The integers are not wrong, they are the wrong *size*.

# %% tags=["measured"]
zeros = float((every.round() == 0).float().mean())
print(f"{100 * zeros:.2f} % of the weights become 0")

# %%
assert zeros > 0.8

# %% [markdown]
# ### A ruler of our own: the scale
#
# - Choose a step, the **scale** $s$. Measure each weight in steps, round *that*, and keep the integer: the **code**.
# - To get the weight back, multiply: $\hat w = s \cdot q$.
# - Here is one you can check by hand. int8 codes end at 127, so the largest weight, 14.3, shall be code 127.

# %%
toy = torch.tensor([13.5, 14.3, 8.5, -4.7])  # (4,)
scale = toy.abs().max() / 127  # ()
codes = torch.round(toy / scale)  # (4,)
print("codes        ", codes.int().tolist())
print("back         ", [round(v, 2) for v in (codes * scale).tolist()])
print("plain round()", toy.round().int().tolist())
assert (codes * scale - toy).abs().max() < scale / 2 < (toy.round() - toy).abs().max()

# %% [markdown]
# - The weight furthest from its code's value is less than half a step off. Plain `round()` is off by up to 0.5, many
#   times as much, although it needs no fewer bits: it leaves most of the codes idle.
# - Many slides say "round to the next integer" and draw floor brackets, $\lfloor w/s \rfloor$. Both are wrong. It is
#   the **nearest grid value, after scaling**. The next picture shows what that means, the cell after it what floor
#   costs.

# %%
def number_line(ax, values, grid, title):
    """Weights above, grid values below, and a line from each weight to the grid value nearest to it."""
    goal = grid[(values[:, None] - grid).abs().argmin(1)]  # (n,)
    heights = torch.tensor([[1.0], [0.0]]).expand(2, len(values))  # (2, n)
    ax.plot(torch.stack((values, goal)), heights, color="0.6", lw=0.8)
    ax.plot(values, torch.ones_like(values), "o", ms=4, color=COLORS["blue"])
    ax.plot(grid, torch.zeros_like(grid), "|", ms=18, mew=3, color=COLORS["vermillion"])
    ax.set(yticks=[0, 1], yticklabels=["grid", "weights"], ylim=(-0.4, 1.3), title=title)
    ax.grid(visible=False)


row = weights["blocks.2.mlp.up"][0, :40]  # (40,): the first weights of one neuron
grid = torch.arange(-3, 4) * row.abs().max() / 3  # (7,): the codes -3..3 of a symmetric 3-bit grid
fig, ax = plt.subplots(figsize=(7, 2.2))
number_line(ax, row, grid, "40 weights of one neuron go to the nearest of 7 values")
show(fig, alt="Number line: 40 weights as dots in a row above, 7 evenly spaced grid values "
     "below, and a line from each weight to the value nearest to it, on whichever side it lies.")

# %% [markdown]
# **Before you run it.** Floor instead of nearest: is the squared error the same, twice, or four times as large?
#
# <details><summary>After you have run it</summary>
# Four times. Nearest is off by −½ to ½ step, floor by −1 to 0. The
# mean of floor's error is half a step, always in the same direction, and such a <i>bias</i> does not average out when
# a layer adds up hundreds of weights. Cutting the fraction off, as a cast to int does, has no bias where weights lie
# evenly around 0, but is nearly as far off.
# </details>

# %% tags=["measured"]
step = every.abs().max() / 127
ways = {"nearest": torch.round, "floor": torch.floor, "cut off": torch.trunc}
units = every / step  # (2654208,): the weights in steps
off = {way: function(units) - units for way, function in ways.items()}  # each (2654208,)
for way, error in off.items():
    print(f"{way:8} mean error {error.mean():+.3f}, mean squared error {error.square().mean():.4f}, in steps")

# %%
assert abs(off["nearest"].mean()) < 0.02 and abs(off["floor"].mean() + 0.5) < 0.02
assert abs(off["floor"].square().mean() / off["nearest"].square().mean() - 4) < 0.2
assert abs(off["cut off"].mean()) < 0.05 and off["cut off"].square().mean() > 3 * off["nearest"].square().mean()
print("halves go to the even neighbour:", torch.round(torch.tensor([0.5, 1.5, 2.5, 3.5])).int().tolist())

# %% [markdown]
# The last line is no bug. Were halves always rounded up, they would be a small bias of their own; IEEE 754, Python and
# torch send a half to its **even** neighbour, so up and down balance.
#
# ### Zero point and clamp
#
# - If the weights reach further on one side than on the other, a grid around 0 wastes codes. So let the codes be
#   $0 \dots 2^b-1$, spread them from the smallest weight to the largest, and note which code means 0: the **zero
#   point** $z$, itself a code and so a whole number.
#
# $$q = \mathrm{clamp}\big(\mathrm{round}(w/s) + z,\; 0,\; 2^b-1\big) \qquad \hat w = s\,(q - z) \qquad
#   s = \frac{w_{max}-w_{min}}{2^b-1} \qquad z = \mathrm{round}(-w_{min}/s)$$
#
# - The range always includes 0 ($w_{min} \le 0 \le w_{max}$), so that 0 is kept exactly.
# - The **clamp** is needed even if the range covers all weights: the scale will be rounded too, to the float16 in which
#   it is stored, and the outermost weights may then lie just beyond the last code. It is needed all the more when we
#   leave weights outside on purpose (section 5).
#
# **Exercise 04.affine.** Scale and zero point of the range `low <= 0 <= high`, as a pair of Python numbers.

# %%
def affine(low, high, bits):
    """Scale (float) and zero point (int) of the grid with 2**bits values from low to high."""
    ### BEGIN SOLUTION
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)
    ### END SOLUTION

# %%
check("04.affine", affine)

# %% [markdown]
# **Exercise 04.codes.** From weights to codes, in the order of the formula. Return integers (`.long()`).

# %%
def to_codes(weight, scale, zero_point, bits):
    """Codes of the nearest grid values: float tensor -> int64 tensor of the same shape, in 0..2**bits-1."""
    ### BEGIN SOLUTION
    return (torch.round(weight / scale) + zero_point).clamp(0, 2**bits - 1).long()
    ### END SOLUTION

# %%
check("04.codes", to_codes)

# %% [markdown]
# - In `nanoq` a `Grid` holds scale and zero point; `affine_grid` makes one from a weight matrix, and `nearest` rounds
#   on it.
# - The grid below has one scale for each row. Its scales are rounded to float16 *first*, because that is how they will
#   be stored: codes must be chosen for the scale that the file will have.
# - By hand and by the package, code for code:

# %%
weight = weights["blocks.2.mlp.up"]  # (768, 192)
low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)  # (768, 1) each
scale = ((high - low) / (2**4 - 1)).half().float()  # (768, 1)
zero_point = torch.round(-low / scale)  # (768, 1)
by_hand = (torch.round(weight / scale) + zero_point).clamp(0, 2**4 - 1).long()  # (768, 192)

grid = affine_grid(weight, bits=4)
assert torch.equal(nearest(weight, grid), by_hand)
assert torch.equal(grid.decode(by_hand), scale * (by_hand - zero_point))
print("scales", tuple(grid.scale.shape), "codes", tuple(by_hand.shape), "of", len(by_hand.unique()), "kinds")

# %% [markdown]
# ## 2 · How large is the error?
#
# The error of a weight is at most half a step. If nothing is special about where weights lie between two grid values,
# it is **uniform** between −½ and ½ step. Is it? One grid for the whole matrix, at four widths:

# %%
mean_square = {}  # in steps²
fig, axes = plt.subplots(1, 4, figsize=(9, 2.4), sharey=True)
for ax, bits in zip(axes, (8, 4, 3, 2), strict=True):
    grid = affine_grid(weight, bits, symmetric=True, granularity="tensor")
    error = (grid.decode(nearest(weight, grid)) - weight) / grid.scale  # (768, 192), in steps
    mean_square[bits] = float(error.square().mean())
    ax.hist(error.flatten().numpy(), bins=50, range=(-0.5, 0.5), density=True, color=COLORS["blue"])
    ax.axhline(1, color=COLORS["vermillion"], ls="--")
    ax.set(title=f"{bits} bits", xlabel="error (steps)")
axes[0].set_ylabel("density")
show(fig, alt="Histograms of the rounding error in steps at 8, 4, 3 and 2 bits on one grid for "
     "the whole matrix. At 8 and 4 bits they are flat like the dashed uniform density; at 2 bits "
     "there is a sharp peak in the middle.")
assert all(abs(12 * mean_square[bits] - 1) < 0.05 for bits in (8, 4)) and 12 * mean_square[2] < 0.8

# %% [markdown]
# - Flat at 8 and 4 bits: the model holds. A uniform error has variance $s^2/12$, which is then the **mean squared
#   error**.
# - Peaked at 2 bits: the step is several times wider than the bell of the weights, almost all weights fall to 0, and
#   the error *is* the weight. The uniform model is no longer true, and nothing is left of the matrix either.
#
# **Exercise 04.noise.** The mean squared error that the uniform model predicts for `bits` over the range `low..high`.

# %%
def expected_mse(low, high, bits):
    """Mean squared error of rounding to 2**bits evenly spaced values from low to high."""
    ### BEGIN SOLUTION
    step = (high - low) / (2**bits - 1)
    return step**2 / 12
    ### END SOLUTION

# %%
check("04.noise", expected_mse)

# %% [markdown]
# - One bit more halves the step, so the squared error falls by four: $10\log_{10} 4 = 6.02$ **decibels a bit**.
# - Strictly $2^b-1$ steps become $2^{b+1}-1$, a little more than double, which matters for few bits.
# - Measured on random uniform numbers, where the model is exact, and on the real matrix with a grid for each row:

# %%
uniform = torch.rand(768, 192, generator=torch.Generator().manual_seed(0)) * 2 - 1  # (768, 192)


def decibels(values, bits):
    """Signal-to-noise ratio of naive rounding with a grid for each row."""
    grid = affine_grid(values, bits)
    noise = (grid.decode(nearest(values, grid)) - values).square().mean()
    return float(10 * torch.log10(values.square().mean() / noise))


widths = range(2, 9)
snr = {
    "uniform numbers": [decibels(uniform, bits) for bits in widths],
    "real weights": [decibels(weight, bits) for bits in widths],
}

# %%
fig, ax = plt.subplots(figsize=(7, 3.2))
theory = [20 * math.log10(2**bits - 1) for bits in widths]
ax.plot(widths, theory, color="0.7", lw=5, label="theory: 20 log₁₀(2ᵇ − 1)")
for (name, values), marker in zip(snr.items(), "os", strict=True):
    ax.plot(widths, values, marker=marker, lw=1, label=name)
ax.set(xlabel="bits", ylabel="signal to noise (dB)", title="Each bit buys 6 dB")
ax.legend()
show(fig, alt="Line plot: signal-to-noise ratio in decibels against bits from 2 to 8. Uniform "
     "numbers lie on the broad line of the theory; real weights run parallel to it, several "
     "decibels lower.")
for values in snr.values():  # the last bit: 20 log10(255 / 127) = 6.05 dB
    assert abs(values[-1] - values[-2] - 20 * math.log10(255 / 127)) < 0.1
assert all(real < flat for real, flat in zip(snr["real weights"], snr["uniform numbers"], strict=True))

# %% [markdown]
# Real weights lie lower because of their bell shape: the largest weight sets the range, while most of the signal is
# small weights near 0. Sections 4 and 5 win back a part of these decibels without spending a bit on the codes.

# %% [markdown]
# ## 3 · Symmetric or not
#
# A symmetric grid has no zero point to store: 0 is its middle. But "symmetric" names at least **three** grids. At 8
# bits nobody sees the difference; at 2 bits they are three different methods. Gaussian weights, one scale for each
# row:

# %%
rows = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))  # (2000, 512)
largest = rows.abs().amax(1, keepdim=True)  # (2000, 1)
THREE = {  # name: step as a share of the largest weight, first code, last code
    "A: ±max in 3 values": (1, -1, 1),
    "B: step 2·max/3, 4 values": (2 / 3, -2, 1),
    "C: step max/2, 4 values": (1 / 2, -2, 1),
}
mse = {}
for name, (share, first, last) in THREE.items():
    rounded = (rows / (share * largest)).round().clamp(first, last) * share * largest  # (2000, 512)
    mse[name] = float((rounded - rows).square().mean())

# %%
fig, axes = plt.subplots(3, 1, figsize=(7, 4.6), sharex=True)
for ax, (name, (share, first, last)) in zip(axes, THREE.items(), strict=True):
    values = torch.arange(first, last + 1) * share * largest[0]
    number_line(ax, rows[0, :80], values, f"{name}: squared error {mse[name]:.2f} of the weights' variance")
axes[-1].set_xlabel("weight (standard deviations)")
show(fig, alt="Three number lines with the same 80 Gaussian weights and the three 2-bit grids "
     "called symmetric: A has three values -max, 0, max; B has four with a step of two thirds of "
     "max; C has four with a step of half of max. The squared error falls from A to C.")
a, b, c = mse.values()
assert c < b < a < 1

# %% [markdown]
# - A is what `nanoq` calls `symmetric=True`, and what most int8 kernels use: codes −127…127. At 2 bits one of the four
#   codes is idle, and 0 swallows nearly everything.
# - B divides the full width $2\,max$ by $2^b-1$ steps but keeps 0 on the grid, so that it reaches further on one side.
#   Public GPTQ code does this.
# - C divides *max* by $2^{b-1}$ and lets the largest positive weights be clamped.
# - Three papers that all say "symmetric, 2 bits" need not be comparable. **Fix the grid before you compare methods.**
#
# What does grid A cost at other widths, compared with the asymmetric grid? First the idle code: $2^b-2$ steps instead
# of $2^b-1$. Second, a row of weights is never quite as long to the left as to the right, and A pays for the longer
# side twice.

# %%
def weight_error(bits, **options):
    """Squared rounding error of all 24 matrices over the sum of their squares."""
    grids = {name: affine_grid(w, bits, **options) for name, w in weights.items()}
    rounded = {name: grids[name].decode(nearest(w, grids[name])) for name, w in weights.items()}
    lost = sum((rounded[name] - w).square().sum() for name, w in weights.items())
    return float(lost / every.square().sum())


ratio = [weight_error(b, symmetric=True) / weight_error(b) for b in (2, 3, 4, 8)]
idle = [((2**b - 1) / (2**b - 2)) ** 2 for b in (2, 3, 4, 8)]  # the part of the idle code, by step²/12

# %%
fig, ax = plt.subplots(figsize=(7, 2.8))
at = torch.arange(4)
ax.bar(at, ratio, tick_label=["2 bits", "3 bits", "4 bits", "8 bits"], color=COLORS["blue"])
ax.hlines(idle, at - 0.4, at + 0.4, color=COLORS["orange"], lw=3, label="the idle code alone")
ax.axhline(1, color="0.3", ls="--", lw=1)
ax.set(ylabel="symmetric ÷ asymmetric", title="Squared error of the model's weights")
ax.legend()
show(fig, alt="Bar chart: squared error of the symmetric grid over that of the asymmetric one at "
     "2, 3, 4 and 8 bits, falling with the number of bits but staying above 1. A mark at each "
     "bar shows what the idle code alone should cost.")
assert ratio[0] > 1.5 and ratio[0] > ratio[1] > ratio[2] > ratio[3] > 1 and ratio[3] > idle[3]

# %% [markdown]
# - At 8 bits the idle code is free and the lopsided rows still cost something; at 2 bits the idle code is nearly all.
# - The marks assume $s^2/12$. At 2 bits that no longer holds for grid A, as the peak in section 2 has shown.
# - Asymmetric grids have a price too, the stored zero points. It comes in section 4.

# %% [markdown]
# ### The int8 trap
#
# int8 runs from −128 to 127: one more on the negative side. Symmetric grids leave −128 alone, for two reasons. The
# range should be the same on both sides; and −128 has no opposite:

# %%
smallest = torch.tensor([-128], dtype=torch.int8)
print("-(-128) =", (-smallest).item(), "   |-128| =", smallest.abs().item())
assert (-smallest).item() == -128

# %% [markdown]
# **Exercise 04.cast.** To use all 256 codes, a colleague sets `scale = largest / 128`, rounds, and casts to int32 and
# then to int8. The largest weight is positive. What code does it get? Commit yourself: `"a"`, `"b"`, `"c"` or `"d"`.
# <!-- claim: MATH 2**8 -->
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
scale = toy.max() / 128
integers = torch.round(toy / scale).to(torch.int32)  # (4,)
print("rounded      ", integers.tolist())
print("cast         ", integers.to(torch.int8).tolist())
print("clamp, cast  ", integers.clamp(-128, 127).to(torch.int8).tolist())
assert integers.to(torch.int8)[1] == -128

# %% [markdown]
# - The largest weight of the layer has turned into the most negative one, without a word. **Clamp first, then cast.**
# - Cast a *float* that does not fit straight to int8 and not even the wrong answer is agreed on: C++ calls it
#   undefined, and it differs between processors. The line below shows what this machine makes of it; yours may print
#   something else.

# %% tags=["measured"]
print(torch.tensor([128.0, 200.0, 300.0, float("nan")]).to(torch.int8).tolist())

# %% [markdown]
# ## 4 · One scale for how many weights?
#
# So far each row had a scale of its own. The choice is wider, and has a name, **granularity**: one grid for the
# *tensor*, for each *channel* (row: everything that feeds one output), or for each *group* of neighbours in a row.
# Look at a real matrix first: the one whose largest row stands out most.

# %%
def spread(w):
    """How far the largest weight of the matrix is above that of the middle row."""
    tops = w.abs().amax(1)  # (out,)
    return float(tops.max() / tops.median())


outlier = weights[max(weights, key=lambda name: spread(weights[name]))]  # (out, in)
tops = outlier.abs().amax(1)  # (out,)
worst = int(tops.argmax())
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 4), sharey=True, width_ratios=(3, 2))
brightest = float(outlier.abs().quantile(0.999))
image = left.imshow(outlier.abs(), aspect="auto", interpolation="nearest", vmax=brightest)
fig.colorbar(image, ax=left, label="|weight|")
left.set(xlabel="column (input)", ylabel="row (output)", title="the matrix")
left.grid(visible=False)
right.plot(tops, torch.arange(len(tops)), ".", ms=3)
right.plot(tops[worst], worst, "o", color=COLORS["vermillion"], label="sets the tensor's grid")
right.set(xlabel="largest |weight| of the row", title="its row maxima", xlim=(0, None))
right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
show(fig, alt="Heat map of the absolute weights of one matrix beside a dot plot of the largest "
     "weight of each row. Most rows end well below the one marked row, whose largest weight sets "
     "the grid of the whole tensor.")

# %% [markdown]
# One row decides how wide the steps are for all the others. (Bands, where you see them, are attention heads: the matrix
# `attention.qkv` is a stack of them.) What that does to an ordinary row, at 3 bits:

# %%
usual = int((tops - tops.median()).abs().argmin())  # a row in the middle of the field
fig, axes = plt.subplots(2, 1, figsize=(7, 3.6), sharex=True)
for ax, granularity in zip(axes, ("tensor", "channel"), strict=True):
    grid = affine_grid(outlier, 3, granularity=granularity)
    codes = torch.arange(8.0).expand(len(outlier), 8)  # (out, 8): every code there is
    values = grid.decode(codes)[usual]  # (8,)
    number_line(ax, outlier[usual, :80], values, f"a usual row on the grid of its {granularity}")
show(fig, alt="Two number lines with 80 weights of an ordinary row. On the grid of the tensor "
     "only a few of the 8 values are within reach of its weights; on the grid of its own row all "
     "8 are in use.")

# %% [markdown]
# **Exercise 04.row_scale.** The scales of a symmetric grid (kind A) with one scale for each row, in a shape that
# divides the matrix: `weight / scale`.

# %%
def row_scale(weight, bits):
    """Weight (out, in) -> scales (out, 1)."""
    ### BEGIN SOLUTION
    return weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    ### END SOLUTION

# %%
check("04.row_scale", row_scale)

# %% [markdown]
# **Before you run it.** Which rows gain from a scale of their own: the one with the outlier, or the others? By how
# much?
#
# <details><summary>After you have run it</summary>
# The others. The outlier's row had the right grid before; a row half as wide gets steps half as wide, and a quarter
# of the squared error. The points fall along the dashed line, the square of the row's maximum.
# </details>

# %%
error = {}
for granularity in ("tensor", "channel"):
    grid = affine_grid(outlier, 4, symmetric=True, granularity=granularity)
    error[granularity] = (grid.decode(nearest(outlier, grid)) - outlier).square().mean(1)  # (out,)
share = error["channel"] / error["tensor"]  # (out,)
fig, ax = plt.subplots(figsize=(7, 3.2))
ax.plot(tops / tops.max(), share, ".", ms=4)
ax.plot([0, 1], [1, 1], color="0.3", lw=1)
x = torch.linspace(0, 1, 50)
ax.plot(x, x**2, "--", color=COLORS["vermillion"], label="(row maximum ÷ tensor maximum)²")
ax.set(xlabel="row maximum ÷ tensor maximum", ylabel="error: channel ÷ tensor", ylim=(0, 1.4))
ax.legend()
show(fig, alt="Scatter plot, one point for each row: squared error on the channel's grid over "
     "that on the tensor's, against the row's maximum over the tensor's. The points follow the "
     "dashed parabola up to 1 at the outlier row.")
assert abs(share[worst] - 1) < 0.05 and error["channel"].mean() < error["tensor"].mean()

# %% [markdown]
# ### What a scale costs
#
# - Each group stores a float16 scale and, if the grid is asymmetric, a zero point of $b$ bits. A group of $g$ weights
#   shares them: $16/g + b/g$ bits a weight on top of the $b$ of the code.
# - That is nothing for 192 weights, and a lot for 16. A number of bits without its group size says little.
#
# **Exercise 04.average_bits.** The bits a weight really takes in a row of `columns` weights. The last group may be
# shorter, and still has a scale and a zero point.

# %%
def average_bits(columns, bits, group_size):
    """Bits for each weight: its code, and its share of the float16 scales and the zero points of `bits` bits."""
    ### BEGIN SOLUTION
    groups = math.ceil(columns / group_size)
    return bits + groups * (16 + bits) / columns
    ### END SOLUTION

# %%
check("04.average_bits", average_bits)

# %% [markdown]
# Now buy accuracy with smaller groups. **Before you run it:** one bit more for each code costs one bit. Groups of 16
# at 3 bits cost a little more than that. Which is the better buy?

# %%
def cost_and_error(bits, granularity, group_size=None):
    """Measured bits for each weight of all 24 matrices, and their squared error."""
    options = {"granularity": granularity, "group_size": group_size}
    size = 0
    for w in weights.values():
        grid = affine_grid(w, bits, **options)
        layer = QuantLinear.from_codes(nearest(w, grid), grid)
        size += sum(buffer.nbytes for buffer in layer.buffers())
    return 8 * size / len(every), weight_error(bits, **options)


STEPS = [("tensor", None), ("channel", None), ("group", 64), ("group", 32), ("group", 16), ("group", 8)]
bought = {bits: [cost_and_error(bits, *step) for step in STEPS] for bits in (3, 4)}

# %%
fig, ax = plt.subplots(figsize=(7, 3.6))
for bits, marker in ((3, "o"), (4, "s")):
    ax.plot(*zip(*bought[bits], strict=True), marker=marker, label=f"{bits}-bit codes")
for (granularity, group_size), place in zip(STEPS, bought[3], strict=True):
    ax.annotate(str(group_size or granularity), place, textcoords="offset points", xytext=(5, 5), fontsize=9)
ax.set(xlabel="bits for each weight, all counted", ylabel="relative squared error", yscale="log",
       title="Smaller groups or another bit?")
ax.legend()
show(fig, alt="Line plot on a log scale: relative squared error against counted bits for each "
     "weight, for 3-bit and 4-bit codes, from one grid for the tensor over channels to groups of "
     "64, 32, 16 and 8. Channels cost almost nothing and help; small groups of 3-bit codes cost "
     "more than 4-bit codes with a grid for each row and are worse.")
assert bought[4][1][0] < bought[3][4][0] and bought[4][1][1] < bought[3][4][1]  # cheaper and better
assert bought[3][1][1] < bought[3][0][1] and bought[3][1][0] < bought[3][0][0] + 0.2

# %% [markdown]
# - From tensor to channel the error falls and the cost hardly moves. Nobody should use a grid for a whole matrix.
# - Groups of 64 or 32 are a fair trade between widths. Groups of 16 at 3 bits are *dearer and worse* than plain 4
#   bits.
# - The sizes are measured on packed layers; the formula of the exercise gives the same number where rows are as long.

# %%
grid = affine_grid(weight, 3, granularity="group", group_size=64)
layer = QuantLinear.from_codes(nearest(weight, grid), grid)
measured = 8 * sum(buffer.nbytes for buffer in layer.buffers()) / weight.numel()
assert measured == 3 + 3 * (16 + 3) / 192  # three groups in a row of 192
print(measured, "bits for each weight")

# %% [markdown]
# ## 5 · Cut the tails: the clipping search
#
# - Must the grid reach the largest weight? If it ends earlier, the few weights beyond are **clipped**: a large error
#   each. All the others get finer steps: a smaller error each.
# - So there are two errors, one falls where the other rises, and somewhere between lies the best range.
#
# **Before you run it.** For 3 bits, do you expect the best range near 100 %, 70 % or 30 % of the largest weight?

# %%
def error_parts(weight, bits, share):
    """Rounding and clipping part of the relative squared error, for a symmetric grid up to share * max|w|."""
    qmax = 2 ** (bits - 1) - 1
    limit = share * weight.abs().max()
    codes = torch.round(weight / limit * qmax).clamp(-qmax, qmax)  # (out, in)
    square = (codes * limit / qmax - weight).square()  # (out, in)
    clipped = weight.abs() > limit
    return [float(square[part].sum() / weight.square().sum()) for part in (~clipped, clipped)]


shares = torch.linspace(0.1, 1, 46)
parts = {}
for bits in (4, 3):
    parts[bits] = torch.tensor([error_parts(weight, bits, share) for share in shares])  # (46, 2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
for ax, (bits, both) in zip(axes, parts.items(), strict=True):
    ax.plot(shares, both.sum(1), color=COLORS["black"], label="sum")
    ax.plot(shares, both[:, 0], "--", color=COLORS["blue"], label="rounding")
    ax.plot(shares, both[:, 1], "-.", color=COLORS["vermillion"], label="clipping")
    best = both.sum(1).argmin()
    ax.plot(shares[best], both.sum(1)[best], "o", color=COLORS["black"])
    ax.set(title=f"{bits} bits", xlabel="range ÷ largest weight", ylim=(0, 2 * float(both.sum(1)[-1])))
axes[0].set_ylabel("relative squared error")
axes[0].legend()
show(fig, alt="Two line plots, 4 and 3 bits: relative squared error against the share of the "
     "range that is kept. The rounding part rises with the range, the clipping part falls, and "
     "their sum is a U whose lowest point lies well inside, further left for 3 bits.")
best = {bits: int(both.sum(1).argmin()) for bits, both in parts.items()}
assert 0 < best[3] <= best[4] < len(shares) - 1
assert parts[3].sum(1).min() < 0.8 * parts[3].sum(1)[-1]

# %% [markdown]
# The fewer the bits, the further in the best range lies: a coarse step hurts everybody, a clipped weight only itself.
#
# **Exercise 04.best_share.** Do the search for one row and a symmetric grid (kind A): among the shares
# `torch.linspace(1, 0.2, 81)` of `max|w|`, return the one (a float) whose grid has the least squared error.

# %%
def best_share(weight, bits):
    """Weights (n,) -> the best share of their range."""
    ### BEGIN SOLUTION
    qmax = 2 ** (bits - 1) - 1

    def squared_error(share):
        scale = share * weight.abs().max() / qmax
        codes = torch.round(weight / scale).clamp(-qmax, qmax)
        return float((codes * scale - weight).square().sum())

    return min(torch.linspace(1, 0.2, 81).tolist(), key=squared_error)
    ### END SOLUTION

# %%
check("04.best_share", best_share)

# %% [markdown]
# - `affine_grid(..., search="mse")` does this search for every row, or every group, at once.
# - **Before you run it:** at which width does it help most, and where hardly at all?

# %%
full = [weight_error(bits) for bits in (8, 4, 3, 2)]
clipped = [weight_error(bits, search="mse") for bits in (8, 4, 3, 2)]
fig, ax = plt.subplots(figsize=(7, 3))
left = torch.arange(4)
ax.bar(left - 0.2, full, 0.4, label='search="minmax"', color=COLORS["blue"])
ax.bar(left + 0.2, clipped, 0.4, label='search="mse"', color=COLORS["orange"])
ax.set_xticks(left, ["8 bits", "4 bits", "3 bits", "2 bits"])
ax.set(yscale="log", ylabel="relative squared error")
ax.legend()
show(fig, alt="Bar chart on a log scale: relative squared error of the model's weights at 8, 4, "
     "3 and 2 bits, for the full range and for the searched one. The search helps most at 2 bits "
     "and hardly at 8.")
gain = [c / f for c, f in zip(clipped, full, strict=True)]
assert gain[0] > 0.8 and gain[3] < 0.7 and gain[0] > gain[1] > gain[2] > gain[3]

# %% [markdown]
# A smaller error of the *weights* is not yet a better *model*: the search treats all weights as equally important.
# Section 8 asks the model itself, and GPTQ in notebook 07 weighs each weight by the inputs it meets.

# %% [markdown]
# ## 6 · From codes to bytes
#
# A computer hands out memory in bytes. Eight codes of 3 bits fit into three of them, if you let codes straddle the
# borders. `nanoq` lays a row of codes end to end, each with its lowest bit first, and fills each byte from its lowest
# bit (*little-endian* throughout). The picture shows the first 24 bits of such streams.

# %%
def draw_bits(ax, codes, bits):
    """One square for each bit of the stream, coloured by code, with thick lines between bytes."""
    tints = [COLORS["sky"], COLORS["orange"]]
    for at in range(min(24, bits * len(codes))):
        code, bit = divmod(at, bits)
        ax.add_patch(plt.Rectangle((at, 0), 1, 1, facecolor=tints[code % 2], alpha=0.6, edgecolor="white"))
        ax.text(at + 0.5, 0.5, int(codes[code]) >> bit & 1, ha="center", va="center", family="monospace")
        if bit == 0:
            ax.text(at + bits / 2, 1.12, f"{codes[code]}", ha="center", fontsize=9)
    ax.vlines([0, 8, 16, 24], -0.15, 1.15, color=COLORS["black"], lw=2.5)
    ax.set(xlim=(-0.2, 24.2), ylim=(-0.2, 1.6), xticks=[], yticks=[0.5], yticklabels=[f"{bits} bits"])
    ax.spines[:].set_visible(False)


examples = {
    2: [1, 3, 0, 2, 2, 1, 3, 3, 0, 1, 2, 0], 3: [5, 2, 7, 0, 1, 6, 3, 4],
    4: [9, 3, 15, 0, 7, 12], 8: [200, 7, 129],
}
fig, axes = plt.subplots(4, 1, figsize=(8, 3.8))
for ax, (bits, codes) in zip(axes, examples.items(), strict=True):
    draw_bits(ax, codes, bits)
show(fig, alt="Four strips of 24 bits in three bytes: twelve codes of 2 bits, eight of 3 bits, "
     "six of 4 bits, three of 8 bits. Each code is written above its bits, lowest bit first; "
     "3-bit codes straddle the borders between bytes.")

# %% [markdown]
# - By hand: code number $i$ counts $2^{b\,i}$, and the sum is one long integer. Python writes it as bytes, lowest byte
#   first.
# - Check the first byte of the 3-bit strip yourself: $5 + 2\cdot 8 + 7\cdot 64 = 469$, and $469 - 256 = 213$.

# %%
for bits, codes in examples.items():
    stream = sum(code << bits * i for i, code in enumerate(codes))
    by_hand = list(stream.to_bytes(3, "little"))
    packed = pack(torch.tensor(codes), bits)  # (3,) uint8
    assert packed.tolist() == by_hand
    assert unpack(packed, bits, len(codes)).tolist() == codes
    print(f"{bits} bits: {len(codes):2} codes -> bytes {by_hand}")

# %% [markdown]
# **Exercise 04.pack4.** Four bits without the long integer: two neighbours in a byte, the first in the low half
# (*nibble*), the second in the high half. Codes int64 `(n,)`, `n` even → uint8 `(n/2,)`. One line with `<<` and `|`.

# %%
def pack4(codes):
    """Pack codes 0..15 in pairs: int64 (n,) -> uint8 (n / 2,)."""
    ### BEGIN SOLUTION
    return (codes[0::2] | codes[1::2] << 4).to(torch.uint8)
    ### END SOLUTION

# %%
check("04.pack4", pack4)

# %% [markdown]
# Get the order wrong and nothing crashes: every second weight changes places with its neighbour, and the model writes
# nonsense. File formats do differ here, which is why the layout is written down in `nanoq/quant/packing.py`.

# %% [markdown]
# ## 7 · A layer that keeps codes
#
# `QuantLinear` is a drop-in for `nn.Linear`. It holds packed codes, scales and zero points, and makes the float weight
# anew in every call. That saves memory and disk, **not time**: the product is still a float product. (Real speed is
# notebook 08.)

# %%
grid = affine_grid(weight, 4)
layer = QuantLinear.from_codes(nearest(weight, grid), grid)
for name, buffer in layer.named_buffers():
    print(f"{name:10} {buffer.dtype!s:13} {tuple(buffer.shape)!s:10} {buffer.nbytes:7,} bytes")
print(f"float32    {weight.dtype!s:13} {tuple(weight.shape)!s:10} {weight.nbytes:7,} bytes")

# %% [markdown]
# The picture to keep in mind: the codes are a block of `(768, 96)` bytes, and the two columns that make them readable
# are tiny beside it. A call with it is a call with the decoded weight:

# %%
x = torch.randn(5, 192, generator=torch.Generator().manual_seed(0))  # (5, 192)
assert torch.equal(layer(x), F.linear(x, grid.decode(nearest(weight, grid))))  # (5, 768) both
print(layer)

# %% [markdown]
# ## 8 · The whole model
#
# Before and after, with your own eyes. A corner of a matrix at each width, and below it the errors of all its weights:

# %%
corner = (slice(0, 32), slice(0, 32))
limit = float(weight.abs().quantile(0.995))
fig, axes = plt.subplots(2, 5, figsize=(9, 4.6), height_ratios=(3, 2))
for column, bits in enumerate((32, 8, 4, 3, 2)):
    grid = affine_grid(weight, bits) if bits < 32 else None
    values = grid.decode(nearest(weight, grid)) if grid else weight  # (768, 192)
    axes[0, column].imshow(values[corner], cmap="PuOr", vmin=-limit, vmax=limit)
    axes[0, column].set(title="float32" if bits == 32 else f"{bits} bits", xticks=[], yticks=[])
    error = (values - weight).flatten().numpy()  # (147456,)
    axes[1, column].hist(error, bins=61, range=(-limit / 2, limit / 2), color=COLORS["blue"])
    axes[0, column].grid(visible=False)
    axes[1, column].set(yticks=[], xlabel="error")
show(fig, alt="Top: the same 32 by 32 corner of a matrix in float32 and at 8, 4, 3 and 2 bits; 8 "
     "bits looks the same, 2 bits only has a few flat colours left. Bottom: histograms of the "
     "errors, a needle at 8 bits that widens with each lost bit.")

# %% [markdown]
# - What to do to a model is written down in a **recipe**: `Recipe(bits=bits)` means naive rounding of every linear
#   layer, asymmetric, a grid for each row. `quantize_model` carries it out.
# - `board.add` quantises a copy, saves it, and measures the *file*; then it loads the file and measures what that
#   gives. All is counted: codes, scales, zero points, and the embeddings and norms that stay in float16.
# - Every model reads the same held-out windows. That will matter in section 11.

# %%
windows = pick(ci=16, lab=128, full=None)  # None: the whole test split
board = Leaderboard(NAME, corpus, windows=windows)
temporary = tempfile.TemporaryDirectory()
folder = {bits: Path(temporary.name, f"naive-{bits}") for bits in (16, 8, 4, 3, 2)}  # for the models
print(f"{len(board.held_out):,} held-out characters, in windows of {checkpoint.model.config.context}")

# %% [markdown]
# **Before you run it.** From 4 to 3 bits the squared error of the weights grows by about $(15/7)^2 = 4.6$. Will the
# added loss grow less, about as much, or more? And what will 2 bits do? Write it down.
#
# The second line is a **control**: every weight just cast to float16. It tells you what "no change" looks like here.

# %% tags=["measured"]
naive = {}
for bits in (16, 8, 4, 3, 2):
    method = "float16 cast" if bits == 16 else "naive rounding"
    naive[bits] = board.add(method, bits, Recipe(bits=bits), folder[bits])
board

# %%
added = {bits: row.delta_nats for bits, row in naive.items()}
assert abs(added[16]) < 0.001 and abs(added[8]) < 0.005
assert added[8] < added[4] < added[3] < added[2]
assert added[3] > 2 * added[4] and added[2] > 2 * added[3] and added[2] > 0.2
assert naive[2].bytes < naive[3].bytes < naive[4].bytes < naive[8].bytes < naive[16].bytes

# %% [markdown]
# - 8 bits: nothing that two digits of perplexity would show. 4 bits: a small price. 3 bits: a price. 2 bits: a wreck.
# - Look at the column *bits/param*, the bits of the file for each parameter: more than the code has, for the 2-bit model
#   by a good part. Section 9 finds out why.
#
# The same as a picture, size on disk against added loss. The scale is logarithmic, but linear next to zero:

# %%
show(board.plot(), alt="Added loss against the size of the file for naive rounding at 8, 4, 3 "
     "and 2 bits: next to nothing at 8 bits on the right, and steeply up as the file gets "
     "smaller to the left.")

# %% [markdown]
# How does the loss follow the error of the weights? In a trained model the slope of the loss is about zero, so a small
# change of the weights adds a loss that goes with its *square*: the dashed line in the next plot.

# %% tags=["measured"]
errors = {bits: weight_error(bits) for bits in (8, 4, 3, 2)}
for more, fewer in ((4, 3), (3, 2)):
    print(f"{more} to {fewer} bits: squared error × {errors[fewer] / errors[more]:.1f}, "
          f"added loss × {added[fewer] / added[more]:.1f}")

# %%
x = [errors[bits] for bits in (4, 3, 2)]
fig, ax = plt.subplots(figsize=(7, 3.2))
ax.plot(x, [added[4] * value / x[0] for value in x], "--", color="0.5", label="in proportion to the error")
ax.plot(x, [added[bits] for bits in (4, 3, 2)], "o-", label="measured")
for bits in (4, 3, 2):
    place = (errors[bits], added[bits])
    ax.annotate(f"{bits} bits", place, textcoords="offset points", xytext=(-9, 5), ha="right")
ax.set(xscale="log", yscale="log", xlim=(0.5 * x[0], 2 * x[-1]))
ax.set(xlabel="relative squared error of the weights", ylabel="added loss (nats)")
ax.xaxis.set_minor_formatter("")
ax.legend()
show(fig, alt="Log-log plot: added loss against the relative squared error of the weights at 4, "
     "3 and 2 bits, with a dashed line for proportional growth. The loss rises with the error at "
     "every step.")

# %% [markdown]
# The rule tells the order, and it breaks where the change is no longer small. It is the reason why
# half of this course is about making a squared error smaller, and the other half about *which* squared error.
#
# ### What granularity and clipping do to the model
#
# All at 3 bits. **Before you run it:** which of the two helps more, groups of 64 or the clipping search? Do they add
# up?

# %% tags=["measured"]
VARIANTS = {
    "one grid a matrix": {"granularity": "tensor"},
    "groups of 64": {"granularity": "group", "group_size": 64},
    "groups of 16": {"granularity": "group", "group_size": 16},
    "clipped": {"search": "mse"},
    "groups of 64, clipped": {"granularity": "group", "group_size": 64, "search": "mse"},
}
three = {"a grid a row": naive[3]}
for name, options in VARIANTS.items():
    three[name] = board.add(name, 3, Recipe(bits=3, grid_options=options))
board

# %%
loss = {name: row.delta_nats for name, row in three.items()}
assert loss["groups of 16"] < loss["a grid a row"] < loss["one grid a matrix"]
gain = {name: loss["a grid a row"] - loss[name] for name in VARIANTS}
assert 0 < gain["groups of 64, clipped"] < gain["groups of 64"] + gain["clipped"]
assert three["groups of 16"].bytes > 0.97 * naive[4].bytes and loss["groups of 16"] > added[4]

# %% [markdown]
# - Both help, and together they help less than the sum of the two: both cure the same ill, a step that one outlier has
#   made too wide.
# - Clipping is free: the file has as many bytes as before. Groups are not.
# - The last assertion is the lesson of section 4 again, now in nats: 3 bits in groups of 16 make a file about as large
#   as plain 4 bits, and a worse model. A picture of all but the worst:

# %%
fig, ax = plt.subplots(figsize=(8, 3.8))
near = {name: row for name, row in three.items() if name != "one grid a matrix"}
for name, row in (near | {"plain 4 bits": naive[4]}).items():
    color = COLORS["orange"] if name == "plain 4 bits" else COLORS["blue"]
    ends = [[row.delta_nats - row.ci_low], [row.ci_high - row.delta_nats]]
    ax.errorbar(row.bytes / 1e6, row.delta_nats, yerr=ends, fmt="o", capsize=3, color=color)
    place = (8, -11) if "clipped" in name else (8, 4)
    ax.annotate(name, (row.bytes / 1e6, row.delta_nats), textcoords="offset points", xytext=place)
ax.set(xlabel="size of the file (MB)", ylabel="added loss (nats)", ylim=(0, None), xlim=(1.1, 1.65))
show(fig, alt="Added loss against the size of the file for the 3-bit variants and for plain 4 "
     "bits. Clipping lies straight below a grid for each row; groups lie lower and further "
     "right; plain 4 bits is lowest, left of groups of 16.")

# %% [markdown]
# ## 9 · Where the bytes go
#
# The 2-bit file is not a sixteenth of the float32 one, and its average is well above 2 bits. Open it and look:

# %%
def anatomy(path):
    """Bytes of a saved model by kind; what is not in a tensor is the file's header."""
    tensors, _ = read_folder(path)
    parts = {"codes": 0, "scales": 0, "zero points": 0, "embeddings, norms": 0}
    kinds = {"codes": "codes", "scale": "scales", "zero_point": "zero points"}
    for name, tensor in tensors.items():
        parts[kinds.get(name.rsplit(".", 1)[1], "embeddings, norms")] += tensor.nbytes
    return parts | {"header": (path / "model.safetensors").stat().st_size - sum(parts.values())}


bytes_of = {bits: anatomy(folder[bits]) for bits in (8, 4, 3, 2)}
print("at 2 bits:", {kind: bytes_of[2][kind] for kind in ("codes", "scales", "zero points")})
assert all(sum(parts.values()) == naive[bits].bytes for bits, parts in bytes_of.items())

# %%
fig, (ax, zoom) = plt.subplots(2, 1, figsize=(8, 4), height_ratios=(3, 1.3))
names = [f"{bits} bits" for bits in bytes_of]
start = [0] * 4
for kind, color in zip(bytes_of[8], COLORS.values(), strict=False):
    size = [parts[kind] / 1e6 for parts in bytes_of.values()]
    ax.barh(names, size, left=start, color=color, label=kind)
    zoom.barh("2 bits", 1e8 * size[-1] / naive[2].bytes, left=1e8 * start[-1] / naive[2].bytes, color=color)
    start = [a + b for a, b in zip(start, size, strict=True)]
ax.set(xlabel="MB (10⁶ bytes)")
ax.invert_yaxis()
ax.legend(loc="lower right")
zoom.set(xlabel="% of the 2-bit file", xlim=(0, 100))
show(fig, alt="Stacked bars of the files at 8, 4, 3 and 2 bits, and the 2-bit file again in per "
     "cent: codes shrink with the width, while embeddings and norms, scales, zero points and the "
     "header hardly change and become a visible share.")
assert 0.6 < bytes_of[2]["codes"] / naive[2].bytes < 0.9 < bytes_of[8]["codes"] / naive[8].bytes

# %% [markdown]
# - The codes shrink, the rest stays. The fewer the bits, the more the rest weighs: that is why *bits/param* is above
#   *bits*, and most of all at the low end.
# - In a model of billions the embeddings weigh less, and scales more, since groups are smaller there. Count; never
#   assume.
#
# ### Saved, loaded, the same bits
#
# A file is only worth its size if it gives the model back **exactly**. Not nearly: every logit, bit for bit.

# %%
models = {bits: load(folder[bits]).model for bits in (8, 4, 3, 2)}
tokens = board.held_out[:256][None]  # (1, 256)
with torch.inference_mode():
    for bits in (8, 4, 3, 2):
        model = deepcopy(board.reference.model)
        quantize_model(model, Recipe(bits=bits))
        assert torch.equal(model(tokens), models[bits](tokens))  # (1, 256, V) in memory and from the file
print("bit-identical at 8, 4, 3 and 2 bits")

# %% [markdown]
# ## 10 · What they write
#
# The same beginning, the same seed, five models. **Before you run it:** will the 8-bit model write the same text as
# float32?

# %% tags=["measured"]
length = pick(ci=40, lab=160, full=400)
for bits, model in [(32, board.reference.model), *models.items()]:
    text = generate(model, checkpoint.tokenizer, "Once upon a time", length, temperature=0.7, seed=1)
    print(f"{bits:2} bits | {' '.join(text.split())}\n")

# %% [markdown]
# - Texts part ways as soon as one character is drawn differently; from there on they are different stories, not better
#   or worse ones. A tiny change of a probability near the drawn number is enough.
# - So a sample shows that 2 bits is broken. It cannot show that 8 bits is better or worse than 4 bits, and "method A
#   misuses words, method B does not" is one draw from a lottery. **A sampled anecdote is no measurement.**

# %% [markdown]
# ## 11 · Is the difference real?
#
# - Suppose you evaluate each model on windows drawn at random, *other* ones for each, as is often done. Perplexity
#   then depends on the luck of the draw: some stories are harder than others.
# - Below, 1,000 such evaluations of float32 and of the 8-bit model, from the losses of each window. Beside it, the
#   same number of evaluations in which both models read the **same** windows, and their losses are subtracted window
#   by window.

# %%
base = board.losses[0]  # (W,) float64: the loss of the float32 model on each window
eight = board.losses[board.rows.index(naive[8])]  # (W,)
generator = torch.Generator().manual_seed(0)
draws = torch.randint(len(base), (2, 1000, len(base)), generator=generator)  # (2, 1000, W)
apart = base[draws[0]].mean(1).exp(), eight[draws[1]].mean(1).exp()  # (1000,) each: perplexities
together = (eight - base)[draws[0]].mean(1)  # (1000,)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
values = [perplexities.numpy() for perplexities in apart]
left.hist(values, bins=40, histtype="stepfilled", alpha=0.55, label=["float32", "8 bits"])
left.set(xlabel="perplexity", yticks=[], title="each on its own windows")
left.legend()
right.hist(1000 * together.numpy(), bins=40, color=COLORS["green"])
right.axvline(0, color="0.2", ls="--")
right.set(xlabel="difference of the losses (0.001 nats)", yticks=[], title="both on the same windows")
show(fig, alt="Left: two histograms of perplexity, float32 and 8 bits, each on windows of its "
     "own; they cover each other. Right: histogram of the difference of the losses on the same "
     "windows, in thousandths of a nat, narrow, with a dashed line at zero.")
assert 0.3 < (apart[1] < apart[0]).double().mean() < 0.7  # "8 bits is better", says about every second evaluation

# %% [markdown]
# On the left nobody can tell the two models apart, and repeating the evaluation changes the winner about
# every second time, as the assertion says. The right axis is
# in *thousandths* of a nat: what makes a window hard makes it hard for both models, and cancels when you subtract.
#
# **Exercise 04.standard_error.** The standard error of the mean difference, paired: from the window losses of a model
# and of its reference, both `(n,)`. (`tensor.std()` is the spread of one value.)

# %%
def standard_error(losses, reference):
    """How far the mean of losses - reference is expected to be off, as one number."""
    ### BEGIN SOLUTION
    return (losses - reference).std() / math.sqrt(len(losses))
    ### END SOLUTION

# %%
check("04.standard_error", standard_error)

# %% [markdown]
# `paired_difference` makes the interval by the bootstrap: it draws windows with replacement, as we just did. The
# intervals in the leaderboard come from it. **Before you run it:** does the interval of the 8-bit model leave out
# zero? Of the 4-bit model?

# %% tags=["measured"]
four = board.losses[board.rows.index(naive[4])]  # (W,)
for bits, losses in ((8, eight), (4, four)):
    paired = paired_difference(losses, base)
    unpaired = 1.96 * math.sqrt(float(losses.var() + base.var()) / len(base))
    verdict = "differs from zero" if paired.significant else "zero is not excluded"
    print(f"{bits} bits: {paired.mean:+.5f} nats, unpaired ±{unpaired:.5f}, "
          f"paired {paired.low:+.5f} to {paired.high:+.5f}: {verdict}")

# %%
assert (eight - base).std() < 0.1 * base.std()  # pairing: at least ten times narrower at 8 bits
if len(base) >= 128:
    assert paired_difference(four, base).low > 0  # 4 bits: found, beyond doubt

# %% [markdown]
# - If the 8-bit line says *zero is not excluded*, that is an answer too: on this much text the effect is smaller than
#   the interval. It is **not** proof that there is none, and more windows (`NANOQ_PROFILE=full`) make the interval
#   narrower.
# - Three perplexities such as 2.76, 2.78 and 2.76, each from windows of its own, say nothing about which method is
#   best. The next section takes on a project that ranked its methods by just these. <!-- claim: SOURCE the student project's README, January 2026 -->

# %% [markdown]
# ## 12 · Audit: "31.9 MB → 2.9 MB"
#
# A student project with this very architecture reports: *the model shrinks from 31.9 MB to 2.9 MB with int8*. That is
# eleven times, from 32-bit to 8-bit numbers, which can give four at most. Where is the catch? What is known:
# <!-- claim: SOURCE the student project's README, January 2026 -->
#
# - the checkpoint has 32,721,538 bytes; the model has 86 characters in its vocabulary, otherwise the shape of ours;
# - int8 codes for the 24 matrices, a float32 scale for each row, everything else left in float32.

# %%
theirs = GPT(GPTConfig(vocab_size=86))
shapes = [tuple(layer.weight.shape) for layer in linear_layers(theirs).values()]
parameters = theirs.parameter_count()
quantised = sum(out * width for out, width in shapes)
scales = sum(out for out, _ in shapes)
print(f"{parameters:,} parameters, {len(shapes)} matrices, {quantised:,} weights in them, {scales:,} rows")
assert (parameters, len(shapes), quantised, scales) == (2_722_368, 24, 2_654_208, 10_368)

# %% [markdown]
# **Exercise 04.audit.** Divide the size of the checkpoint by the number of parameters. What is in the file besides the
# float32 weights? It was trained with AdamW.
#
# - a) nothing: the weights are float64
# - b) AdamW's two moments for each parameter, in float32
# - c) the gradient of each parameter, in float32
# - d) the training text

# %%
### BEGIN SOLUTION answer = ...
answer = "b"
### END SOLUTION

# %%
check("04.audit", answer)

# %% [markdown]
# **Exercise 04.payload.** The bytes of their int8 model: int8 codes for `weights`, a float32 scale for each of `rows`,
# and `rest` parameters in float32.

# %%
def payload(weights, rows, rest):
    """Bytes of the int8 model."""
    ### BEGIN SOLUTION
    return weights + 4 * rows + 4 * rest
    ### END SOLUTION

# %%
check("04.payload", payload)

# %%
training, float32 = 32_721_538, 4 * parameters
int8 = quantised * 1 + scales * 4 + (parameters - quantised) * 4
print(f"the checkpoint:      {training:,} bytes, {training / parameters:.2f} a parameter")
print(f"3 floats each:       {12 * parameters:,} bytes, and {training - 12 * parameters:,} of something else")
print(f"the weights alone:   {float32:,} bytes")
print(f"int8 and the rest:   {int8:,} bytes")
print(f"as reported:         {training / int8:.1f} times")
print(f"like for like:       {float32 / int8:.2f} times")
assert (12 * parameters, float32, int8) == (32_668_416, 10_889_472, 2_968_320)
assert round(float32 / int8, 2) == 3.67 and training // 1024 == 31_954

# %%
fig, ax = plt.subplots(figsize=(8, 2.4))
ax.barh("training checkpoint", float32 / 1e6, color=COLORS["blue"], label="weights, float32")
moments = (training - float32) / 1e6
ax.barh("training checkpoint", moments, left=float32 / 1e6, color="0.8", label="AdamW's moments")
ax.barh("model, float32", float32 / 1e6, color=COLORS["blue"])
ax.barh("model, int8", int8 / 1e6, color=COLORS["orange"], label="int8, scales, rest")
ax.invert_yaxis()
ax.set(xlabel="MB (10⁶ bytes)")
ax.legend(loc="lower right")
show(fig, alt="Three bars: the training checkpoint of 32.7 MB, two thirds of which are AdamW's "
     "moments, the model in float32 with 10.9 MB, and the int8 model with 3.0 MB.")

# %% [markdown]
# - Two thirds of the "model" were the optimiser's memory, which nobody ships. Like for like it is **3.67 times**:
#   short of 4, because scales are added and embeddings are not quantised.
#   <!-- claim: CELL round(float32 / int8, 2) == 3.67; MATH 32 / 8 -->
# - And "31.9 MB" is 31,954 *KiB* read as megabytes: the file has 32.7 MB ($10^6$ bytes) or 31.2 MiB ($2^{20}$). Give
#   bytes. <!-- claim: MATH 32721538 / 2**20; SOURCE the student project's README, January 2026 -->
# - Leaving the moments out makes the file three times smaller at no loss whatever, nearly as much as int8 does.
# - Their perplexities, 2.76, 2.78 and 2.76 for float32, naive int8 and GPTQ, came from random windows, other ones for
#   each model: section 11. The same code printed another order a month earlier. An honest line: *no difference was
#   found*. <!-- claim: SOURCE the student project's README, January 2026 -->

# %% [markdown]
# ## Summary
#
# - A grid is a **scale**, a **zero point** and a range of codes. Round to the nearest grid value *after* scaling;
#   clamp; cast last. Floor costs four times the squared error, and a bias.
# - The error is uniform with mean square $s^2/12$ as long as the step is not much wider than the bell of the weights:
#   6 dB a bit. <!-- claim: CELL math.log10(255 / 127) -->
# - "Symmetric" names three grids; at 2 bits they are far apart.
# - A scale for each **row** is nearly free. Groups and clipping help most where bits are few; groups cost $(16+b)/g$
#   bits.
# - The file counts: codes, scales, zero points, and all that stays in float16. Average bits are more than bits.
# - 8 bits are safe here, 4 bits cheap, 3 bits costly, 2 bits ruinous, *with naive rounding*.
# - Compare models on the same windows, subtract, and give an interval.
#
# ## Open challenge
#
# **A better file than plain 4 bits, with naive rounding alone.** Beat both numbers that the next cell prints: a
# smaller file, and less added loss, than `Recipe(bits=4)`. You may choose bits, granularity, group size, clipping
# and symmetry for every layer; rules with `*` go from first to last, and the first that fits counts. Nobody checks it
# but the leaderboard. If you get there, go on: how small can the file be with at most *twice* that loss?

# %% tags=["measured"]
print(f"to beat: {naive[4].bytes:,} bytes, {naive[4].delta_nats:+.5f} nats")

# %% [markdown]
# A place to start: copy it into a new cell. Which layers can do with 3 bits? Change one at a time and look.
#
# ```python
# from nanoq.quant import Round
#
# cut = {"granularity": "channel", "search": "mse"}
# recipe = Recipe(Round(bits=4, grid_options=cut), rules={"blocks.5.mlp.down": Round(bits=3, grid_options=cut)})
# board.add("mine", 4, recipe)
# board
# ```
#
# ## What next
#
# - **05 · Ternary weights**: three values, and which three. Minimal largest error or minimal mean error?
# - **07 · GPTQ**: the same grids, but each rounding makes up for the errors of those before it. It needs a little
#   text, and takes back most of what you have just lost.
#
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
