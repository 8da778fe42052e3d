# %% [markdown]
# # 14 · Other roads: prune, low rank, distil
#
# {{colab}}
#
# Rounding the weights is one way to make a model small. There are three others: leave weights out, make the matrices
# thinner, or train a smaller model that learns from the large one. This notebook walks all four roads **on the same
# model, with the same leaderboard**, so that they can be compared: bytes of the file against loss added.
#
# {{cost_card}}
#
# **You will be able to**
#
# - say what each road removes, numbers or bits, and when that also removes operations;
# - build Wanda, a 2:4 mask, the best low-rank matrix for a layer's outputs, and the distillation loss, by hand;
# - count what a sparse file and a low-rank file really cost;
# - tell importance from similarity, and pruning before training from pruning after it;
# - place four spaces of grid values on one number line;
# - do the memory arithmetic of a large model, and read a figure about energy with its uncertainty.
#
# **You need** notebook 07 (GPTQ and its Hessian) and with it 04 (grids, files, paired intervals).

# %%
import csv
import math
import time
from copy import deepcopy

import ipywidgets
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle

# %%
from nanoq.compress import (
    LowRank,
    Prune,
    SparseLinear,
    add_adapters,
    block_influence,
    compress_model,
    kept_zeros,
    low_rank,
    make_student,
    mask,
    prune,
    remove_blocks,
    wanda,
)

# %%
from nanoq.compress.distil import distillation_loss
from nanoq.files import data_dir
from nanoq.lm import TrainConfig, train
from nanoq.lm.evaluate import row_losses, windows
from nanoq.quant import QuantLinear, Recipe, Round, affine_grid, linear_layers, nearest, quantize_model
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.recipe import GRIDS
from nanoq.store import Checkpoint
from nanoq.teach import check, pick, show, use_style
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.plots import COLORS
from nanoq.teach.widgets import live_figure, show_widget

use_style()

# %% [markdown]
# ### The model, and two leaderboards
#
# - **Live**, in this notebook: the 2.7-million-parameter GPT that ships with the course, and generated text, `tales`. A
#   few windows, so that you need not wait.
# - **Measured before**, by `benchmarks/roads.py`: the same architecture on real TinyStories, more windows, and all that
#   needs training. These rows are in a file; we read them.
# - Either way a model is changed, *written to a file*, loaded again, and measured. Bytes are those of the file.

# %%
NAME = "tales-2.7m"
board = Leaderboard(NAME, windows=pick(ci=8, lab=32, full=256))
board.calibration = board.calibration[: pick(ci=12, lab=16, full=128)]  # training text (W, 256)
model, tokenizer = board.reference.model, board.reference.tokenizer
layers = linear_layers(model)
weights = {name: layer.weight.detach() for name, layer in layers.items()}  # each (out, in)
print(len(weights), "matrices with", f"{sum(w.numel() for w in weights.values()):,}", "weights")


def try_out(method, bits, change):
    """Change a copy of the model, write it to a file, load the file, and add a row to the leaderboard."""
    copy = deepcopy(board.reference)
    changed = change(copy.model) or copy.model
    row = board.add_saved(method, bits, Checkpoint(changed, copy.tokenizer, copy.card))
    print(f"{method:40} {row.bytes / 1e6:6.2f} MB {row.delta_nats:+.3f} nats ({row.ci_low:+.3f} … {row.ci_high:+.3f})")
    return row

# %%
def read_rows(name):
    """A table of TinyStories results: {method: row}, numbers as numbers."""
    numbers = ("bits", "bytes", "delta_nats", "ci_low", "ci_high")
    with (data_dir() / "results" / "tinystories" / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"{row['method']} {row['bits']} bit" if "road" not in row else row["method"]:
            row | {key: float(row[key]) for key in numbers} for row in rows}


def tell(*methods):
    """Print rows of real TinyStories, as far as they have been measured."""
    for method in methods:
        if method in roads:
            row = roads[method]
            print(f"{method:42} {row['bytes'] / 1e6:6.2f} MB {row['delta_nats']:+.3f} nats "
                  f"({row['ci_low']:+.3f} … {row['ci_high']:+.3f})")


def versus(first, second):
    """Say which of two measured rows adds less loss, and whether their intervals are apart."""
    if first in roads and second in roads:
        better, worse = sorted((first, second), key=lambda method: roads[method]["delta_nats"])
        gain = roads[worse]["delta_nats"] - roads[better]["delta_nats"]
        apart = roads[better]["ci_high"] < roads[worse]["ci_low"]
        print(f"→ {better}: {gain:.3f} nats less than {worse}; intervals {'apart' if apart else 'overlap'}")

# %%
roads = {method: row for method, row in read_rows("leaderboard.csv").items() if row["bits"] < 16}  # notebook 04, 07
for row in roads.values():
    row["road"] = "quantise"
roads |= read_rows("roads.csv")

# %% [markdown]
# ## 1 · The map
#
# **Before you run it.** Each road makes the file smaller. Which of them also leave less to *compute*?

# %%
picture = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))  # (12, 12): a weight matrix
look = {"cmap": "PuOr", "vmin": -2.5, "vmax": 2.5}
fig, axes = plt.subplots(1, 4, figsize=(9, 2.9))
axes[0].imshow(torch.where(picture.abs() > 0.67, picture, math.nan), **look).cmap.set_bad("0.92")
u, s, vt = torch.linalg.svd(picture)
axes[1].imshow(2 * u[:, :3], extent=(0, 3, 0, 12), **look)
axes[1].imshow(2 * vt[:3], extent=(4, 16, 9, 12), **look)
axes[1].set(xlim=(-0.5, 16.5), ylim=(-0.5, 12.5))
for i in range(6):
    axes[2].add_patch(Rectangle((0, 2 * i), 4, 1.6, fc=COLORS["blue"]))
    if i < 3:
        axes[2].add_patch(Rectangle((8, 2 * i), 4, 1.6, fc=COLORS["orange"]))
axes[2].annotate("", (7.8, 2.8), (4.2, 5.8), arrowprops={"arrowstyle": "-|>", "lw": 2})
axes[2].set(xlim=(-0.5, 12.5), ylim=(-0.5, 12))
axes[3].imshow((picture / 1.6).round().clamp(-2, 1) * 1.6, **look)
words = ("1 pruning\nweights left out", "2 low rank\ntwo thin matrices", "3 distillation\na small model learns",
         "4 quantisation\nfew different values")
for ax, title in zip(axes, words, strict=True):
    ax.set_title(title, fontsize=10)
    ax.axis("off")
show(fig, alt="Four pictures. Pruning: a weight matrix with half of its cells blank. Low rank: a tall thin and a wide flat "
     "matrix in its place. Distillation: six blocks, an arrow, three blocks. Quantisation: a matrix of the same size with "
     "only a few colours.")

# %% [markdown]
# | road | what goes | fewer operations | bits of a number | what it needs |
# |:--|:--|:--|:--|:--|
# | **pruning** | single weights, neurons, heads or blocks | only if whole rows, columns or blocks go | stay | a little text |
# | **low rank** | directions of a matrix | yes, below the break-even rank | stay | a little text |
# | **distillation** | whatever the student lacks | yes | stay | much training |
# | **quantisation** | bits | no, but cheaper ones | fall | nothing, a little text, or training |
#
# - The first three remove **numbers**, the fourth removes **bits of each number**. They can be combined.
# - The slides that this course started from have this map with two slips. *"Pruning = remove layers"*: layers are the
#   coarsest thing that can be pruned; single weights, neurons and heads can be, too. And the list
#   leaves its second item out.
#
# **Exercise 14.missing.** Which road is the missing item?
#
# - a) leave whole blocks out
# - b) store numbers as float16
# - c) write a matrix as the product of two thinner ones
# - d) let a smaller model imitate the large one

# %%
### BEGIN SOLUTION answer = ...
answer = "c"
### END SOLUTION

# %%
check("14.missing", answer)

# %% [markdown]
# ## 2 · Pruning, weight by weight
#
# Set half of the weights to zero. Which half?
#
# - **Magnitude**: the smallest ones. A tiny weight hardly matters, does it? That depends on what it is multiplied with.
# - So look at the inputs of a layer, as GPTQ did in notebook 07. The calibration text comes from the training split, and one
#   look is all that the methods of this section need.

# %%
LAYER = "blocks.2.mlp.down"  # reads the 768 hidden neurons of an MLP
weight = weights[LAYER]  # (192, 768)


def inputs_of(tokens):
    """What the layer reads on windows (W, T): (W * T, 768)."""
    caught = []
    hook = layers[LAYER].register_forward_pre_hook(lambda _, args: caught.append(args[0].flatten(0, 1)))
    with torch.inference_mode():
        model(tokens)
    hook.remove()
    return caught[0].clone()


inputs = inputs_of(board.calibration[:12])  # (3072, 768)
norms = inputs.norm(dim=0)  # (768,)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(3, 2))
left.imshow(inputs[:40, :90].clamp(-1, 1), cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
left.set(xlabel="90 of the inputs", ylabel="40 characters", title="what the inputs look like")
left.grid(visible=False)
right.semilogy((norms / norms.median()).sort(descending=True).values, color=COLORS["blue"])
right.set(xlabel="inputs, sorted", title="norm of each input (median 1)")
right.set_yticks([0.25, 0.5, 1, 2], ["¼", "½", "1", "2"])
right.minorticks_off()
show(fig, alt="Left: heat map of 90 inputs of a layer while it reads 40 characters; some columns are strongly coloured, "
     "many are nearly blank. Right: the norms of all 768 inputs, sorted, on a log scale, from more than twice the median to "
     "less than half of it.")
assert norms.max() > 2 * norms.median() > 4 * norms.min()

# %% [markdown]
# - Some inputs are loud, others are quiet. A small weight on a loud input can matter more than a large one on a quiet
#   input.
# - **Wanda** (Sun et al. 2023, [arXiv 2306.11695](https://arxiv.org/abs/2306.11695)) scores a weight by $|w_{ij}|$ times
#   the norm of input $j$, and lets the weights *of one row* compete: they feed the same output. Three lines:

# %%
scores = weight.double().abs() * inputs.double().norm(dim=0)  # (192, 768)
best = scores.topk(384, dim=1).indices  # (192, 384): half of each row
by_hand = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)  # (192, 768)
assert torch.equal(by_hand, mask(wanda(weight.double(), LayerStats.of(inputs.double())), 0.5))
small = mask(weight.abs(), 0.5)  # (192, 768): magnitude
print(f"magnitude and Wanda keep {100 * float((by_hand & small).sum() / small.sum()):.0f} % of their weights in common")

# %% [markdown]
# **Exercise 14.wanda.** The mask for any sparsity: True for what stays, `n - round(sparsity * n)` weights in each row.

# %%
def wanda_mask(weight, inputs, sparsity):
    """Which weights (out, n) stay, given inputs (tokens, n): bool (out, n)."""
    ### BEGIN SOLUTION
    scores = weight.abs() * inputs.norm(dim=0)
    count = weight.shape[1] - round(sparsity * weight.shape[1])
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(count, dim=1).indices, True)
    ### END SOLUTION

# %%
check("14.wanda", wanda_mask)

# %% [markdown]
# ### The weights that stay can help
#
# - Both methods leave the surviving weights as they were. **SparseGPT** (Frantar and Alistarh 2023,
#   [2301.00774](https://arxiv.org/abs/2301.00774)) lets them move: when a weight goes, those further right in its row
#   take over what they can. Inputs that rise and fall together make that possible.
# - It is the walk of GPTQ (notebook 07) through the columns, with 0 in place of a grid value. Here we only use it.
#
# One layer, its output error on text that was **not** used to choose. **Before you run it:** at which sparsity would
# you stop?

# %%
few = pick(ci=8, lab=8, full=32)
stats = LayerStats.of(inputs)
valid = tokenizer.encode(board.corpus.valid)
unseen = LayerStats.of(inputs_of(windows(valid, 256, few)[:, :-1]))
levels = torch.arange(1, 10) / 10  # (9,)
METHODS = {"magnitude": ("blue", "o"), "wanda": ("orange", "s"), "sparsegpt": ("green", "^")}


def errors_at(level, pattern="row"):
    """Relative error of the layer's outputs on unseen text after pruning: {method: error}."""
    cut = {name: prune(weight, stats, method=name, sparsity=level, pattern=pattern) for name in METHODS}
    return {name: unseen.output_error(weight, pruned) for name, pruned in cut.items()}


curve = {float(level): errors_at(float(level)) for level in levels}
fig, ax = plt.subplots(figsize=(7, 3.2))
for name, (color, marker) in METHODS.items():
    ax.semilogy(levels, [row[name] for row in curve.values()], marker=marker, color=COLORS[color], label=name)
ax.set(xlabel="share of zeros", ylabel="output error (outputs = 1)", title=f"{LAYER}, unseen text")
ax.legend()
show(fig, alt="Output error of one layer against the share of zeros on a log scale. The three curves rise together; "
     "SparseGPT lies lowest at every sparsity, Wanda below magnitude.")
middle = list(curve.values())[4]
assert middle["sparsegpt"] < middle["wanda"] < middle["magnitude"]

# %% [markdown]
# ### Patterns
#
# - *Unstructured*: zeros anywhere. Best for the loss, useless for most hardware.
# - **2:4**: two of every four neighbours in a row. Some graphics cards (Nvidia's since 2020) have circuits that skip
#   exactly this pattern, and no other (Mishra et al. 2021, [2104.08378](https://arxiv.org/abs/2104.08378)).
#
# **Exercise 14.two_of_four.** In each group of four neighbours of a row keep the two weights with the largest $|w|$ and
# set the others to 0.

# %%
def two_of_four(weight):
    """A weight (out, n), n a multiple of 4, with two zeros in each four neighbours of a row."""
    ### BEGIN SOLUTION
    groups = weight.reshape(-1, 4)
    best = groups.abs().topk(2, dim=1).indices
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, best, True)
    return (groups * keep).view_as(weight)
    ### END SOLUTION

# %%
check("14.two_of_four", two_of_four)

# %%
def pruned_figure(sparsity=0.5, pattern="row"):
    """What stays of a corner of the layer, the sizes of its weights, and the output errors."""
    kept = mask(wanda(weight, stats), sparsity, pattern)
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3), width_ratios=(3, 3, 2))
    left.imshow(torch.where(kept, weight, math.nan)[:24, :32], cmap="PuOr", vmin=-0.5, vmax=0.5).cmap.set_bad("0.9")
    left.set(title="Wanda keeps", xticks=[], yticks=[])
    left.grid(visible=False)
    size = weight.abs()
    middle.hist([size[kept].numpy(), size[~kept].numpy()], bins=40, range=(0, 0.8), stacked=True,
                color=[COLORS["blue"], "0.75"], label=["stays", "goes"])
    middle.set(xlabel="size of a weight", yticks=[])
    middle.legend()
    errors = errors_at(sparsity, pattern)
    right.bar(list(errors), list(errors.values()), color=[COLORS[color] for color, _ in METHODS.values()])
    right.set(title="output error", ylim=(0, 1.1 * max(errors.values())))
    right.tick_params(axis="x", labelrotation=30)
    return fig


show(pruned_figure(), alt="Left: a corner of the matrix with half of its cells blank. Middle: histogram of the sizes of "
     "weights, those that go in grey: mostly the small ones, but the two groups overlap. Right: bars of the output error; "
     "SparseGPT has the shortest.")

# %% tags=["measured"]
slider = ipywidgets.FloatSlider(value=0.5, min=0.1, max=0.9, step=0.1, description="sparsity", continuous_update=False)
menu = ipywidgets.Dropdown(options=["row", "matrix", "2:4", "1:4"], value="row", description="pattern")
show_widget(live_figure(pruned_figure, sparsity=slider, pattern=menu),
            alt="A slider for the sparsity and a menu for the pattern redraw the figure above. Patterns such as 2:4 have "
                "a sparsity of their own, and the slider does nothing.")

# %% [markdown]
# ### What a sparse file costs
#
# Half of the weights are zero. Is the file half as large? The values that stay are stored in float16. But *which* they
# are has to be stored as well: a **mask**, a bit for every weight.

# %%
sparse = SparseLinear.from_weight(weight * small)
count = weight.numel()
print("mask  ", sparse.mask.dtype, f"{sparse.mask.nbytes:,} bytes")
print("values", sparse.values.dtype, f"{sparse.values.nbytes:,} bytes")
bits_a_weight = 8 * (sparse.mask.nbytes + sparse.values.nbytes) / count
print("bits a weight:", bits_a_weight)
assert bits_a_weight == 9 and sparse.mask.nbytes == count / 8 and sparse.values.nbytes == 2 * count / 2

# %% [markdown]
# So half zeros is **9 bits a weight, and not 8**. At float16 the mask is a small tax; beside 3-bit codes it is a heavy
# one.
#
# **Exercise 14.sparse_bits.** The bits that a sparse file needs for each weight, at a sparsity and for values of `bits`.

# %%
def sparse_bits(sparsity, bits):
    """Bits of the file for each weight of the matrix, zeros counted."""
    ### BEGIN SOLUTION
    return 1 + (1 - sparsity) * bits
    ### END SOLUTION

# %%
check("14.sparse_bits", sparse_bits)

# %%
shares = torch.linspace(0, 0.9, 91)
fig, ax = plt.subplots(figsize=(7, 3))
for bits, color in ((8, "blue"), (4, "orange"), (3, "green")):
    ax.plot(shares, 1 + (1 - shares) * bits, color=COLORS[color], label=f"{bits} bits and a mask")
    ax.axhline(bits, color=COLORS[color], ls=":", lw=1.5)
    ax.plot(1 / bits, bits, "o", color=COLORS[color])
ax.set(xlabel="share of zeros", ylabel="bits a weight", title="Dotted: the dense file. Dots: here sparsity begins to pay")
ax.set_ylim(0, 9.5)
ax.legend(loc="lower left")
show(fig, alt="Bits a weight against the share of zeros for values of 8, 4 and 3 bits. Each line starts one bit above its "
     "dotted dense line, falls, and crosses it at a share of one over the bits.")
assert 1 + (1 - 0.25) * 4 == 4 and 1 + (1 - 0.5) * 4 == 3

# %% [markdown]
# - Below a share of $1/b$ zeros the mask costs more than it saves: 25 % at 4 bits.
# - **Half zeros with 4-bit values is 3 bits a weight.** The same bytes as plain 3-bit codes. Which is better? That can be
#   measured, and the next cell does.
#
# ### The whole model
#
# **Before you run it.** Put these in order, least loss first: half zeros by magnitude, by Wanda, by SparseGPT; 2:4 by
# magnitude, by SparseGPT; and at the bytes of 3 bits: SparseGPT with half zeros and 4-bit values against GPTQ with 3 bits.

# %% tags=["measured"]
def pruned_by(*arguments, bits=16, **options):
    """A change of the model: prune all its layers, and round what stays."""
    calibration = None if arguments[0] == "magnitude" else board.calibration
    steps = [Prune(*arguments, **options)] + ([] if bits == 16 else [Round("gptq", bits=bits)])
    return lambda model: compress_model(model, steps, calibration)


def rounded_to(bits, method="nearest", grid="affine"):
    """A change of the model: quantise it. (It gives nothing, as the model itself is changed.)"""
    def change(model):
        calibration = board.calibration if method == "gptq" else None
        quantize_model(model, Recipe(method, bits=bits, grid=grid), calibration)
    return change


tried = {name: try_out(f"{name}, half zeros", 16, pruned_by(name, 0.5)) for name in METHODS}
tried |= {f"{name} 2:4": try_out(f"{name}, 2:4", 16, pruned_by(name, pattern="2:4")) for name in ("magnitude", "sparsegpt")}
tried["mixed"] = try_out("sparsegpt, half zeros and 4 bits", 4, pruned_by("sparsegpt", 0.5, bits=4))
tried["gptq 3"] = try_out("gptq, 3 bits", 3, rounded_to(3, "gptq"))

# %%
loss = {name: row.delta_nats for name, row in tried.items()}
assert loss["sparsegpt"] < 0.8 * min(loss["magnitude"], loss["wanda"])  # the survivors help
assert loss["magnitude 2:4"] > 1.5 * loss["magnitude"] and loss["sparsegpt 2:4"] > loss["sparsegpt"]
assert abs(tried["mixed"].bytes / tried["gptq 3"].bytes - 1) < 0.01 and loss["mixed"] > 2 * loss["gptq 3"]

# %% [markdown]
# - SparseGPT is clearly ahead: letting the survivors help is worth more than the choice between two
#   sensible scores.
# - The 2:4 pattern costs more than twice as much by magnitude. Freedom of choice is worth something.
# - **At equal bytes plain 3-bit rounding wins**, by more than a factor of two. A weight that is 0 has no digits left; a
#   weight of 3 bits still has some.
#
# The same on real TinyStories, with more windows:

# %% tags=["measured"]
tell("random 50%", "magnitude 50%", "wanda 50%", "sparsegpt 50%", "magnitude 2:4", "wanda 2:4", "sparsegpt 2:4",
     "magnitude 50%, matrix", "sparsegpt 50%, matrix", "sparsegpt 50% and 4 bit", "GPTQ 3 bit")

# %%
added = {method: row["delta_nats"] for method, row in roads.items()}
assert added["random 50%"] > 10 * added["magnitude 50%"] and added["magnitude 50%"] > 2 * added["sparsegpt 50%"]
assert 1 < added["wanda 50%"] / added["magnitude 50%"] < 1.2
assert roads["sparsegpt 50% and 4 bit"]["ci_low"] > 2 * roads["GPTQ 3 bit"]["ci_high"]

# %% [markdown]
# - *Random* is the control: half of the weights drawn by lot wreck the model. So the choice does matter, and magnitude is
#   a good one.
# - Wanda is better than magnitude on the layer above, and not on the whole model: here it is a little worse. The papers
#   report gaps in its favour on large models, whose inputs have extreme outliers. Ours has not.
#   **A score's rank on one model is not its rank on another.**
# - The verdict at equal bytes is the same: the intervals are far apart.

# %% [markdown]
# ## 3 · Pruning whole structures
#
# Zeros that lie anywhere save no time. Take out a whole **neuron**, a **head** or a **block**, and what is left is an
# ordinary dense model, smaller and faster everywhere. But the choice is coarse: few parts, each of them used for
# something. Two ways to choose:
#
# - by **similarity**: a block whose output is nearly its input does little (its *influence* is 1 minus the cosine
#   between the two; Men et al. 2024, [2403.03853](https://arxiv.org/abs/2403.03853)); a head that does what another head
#   does has a double;
# - by **importance**: what is lost without it. Take it out, measure the loss, put it back.
#
# **Before you run it.** Do the two agree about the most dispensable of the six blocks?

# %%
rows = windows(valid, 256, pick(ci=8, lab=8, full=64))  # (W, 257)
influence = block_influence(model, rows[:, :-1])  # 6 numbers
base = float(row_losses(model, rows).mean())
without = [float(row_losses(remove_blocks(deepcopy(model), [i]), rows).mean()) - base for i in range(6)]
fig, axes = plt.subplots(1, 2, figsize=(8, 2.8))
for ax, values, title in zip(axes, (influence, without), ("influence (similarity)", "added loss without it"), strict=True):
    least = min(range(6), key=values.__getitem__)
    ax.bar(range(6), values, color=[COLORS["orange"] if i == least else COLORS["blue"] for i in range(6)])
    ax.set(yscale="log", xticks=range(6), xlabel="block", title=title)
show(fig, alt="Two bar charts over the six blocks, log scale. Left, influence: block 0 by far the largest, block 2 the "
     "smallest. Right, loss added without the block: block 0 by far the largest, block 4 the smallest.")
assert influence.index(min(influence)) == 2 and without.index(min(without)) == 4
assert without[2] > 1.2 * without[4]

# %% [markdown]
# - They do not. By influence, block number 2 is the most redundant; by the loss it is number 4, and to take out number 2 costs
#   clearly more. A small turn of the hidden state may be the very turn that counts.
# - Both agree about block 0. So similarity is no nonsense; it is a cheap guess. The loss is the question itself.
#
# On real TinyStories, with blocks, heads and neurons:

# %% tags=["measured"]
tell(*[f"without block {i}" for i in range(6)], "6 heads by importance", "6 heads by similarity", "12 heads by importance",
     "12 heads by similarity", "25% of neurons", "50% of neurons", "least influential block (2)")

# %%
blocks = [added[f"without block {i}"] for i in range(6)]
assert min(blocks) == blocks[4] and roads["without block 4"]["ci_high"] < roads["without block 2"]["ci_low"]
assert "least influential block (2)" in roads
assert added["6 heads by similarity"] > 10 * added["6 heads by importance"]
assert added["50% of neurons"] < added["sparsegpt 50%"] and added["12 heads by importance"] < blocks[4]

# %% [markdown]
# - The same two blocks, on other text and another training: the disagreement is no accident of `tales`.
# - Heads by similarity cost more than ten times what heads by importance cost. A head with a double may still be one of a
#   pair that is needed.
# - Half of the neurons cost *less* than half of the single weights by SparseGPT: there, only the MLPs are cut, and the layer
#   that reads the neurons is fitted anew. Compare bytes before you compare losses.
#
# ### When to prune
#
# Trained weights are zeroed; then the rest may be **retrained**, at once or in steps. Or one prunes *before* training.
# Seventy per cent of the weights go:

# %% tags=["measured"]
train_tokens = tokenizer.encode(board.corpus.train)
short = TrainConfig(tokens=pick(ci=8_192, lab=24_576, full=200_000), lr=0.005, lr_rest=6e-4, warmup=5,
                    evaluate_every=10**6, valid_windows=2)


def retrained(model):
    """A change of the model: seven tenths zeros by magnitude, then a short training in which they stay zeros."""
    compress_model(model, Prune("magnitude", 0.7, "matrix", pack=False))
    with kept_zeros(model):
        train(model, train_tokens, valid, short)
    return compress_model(model, Prune("magnitude", 0))


tried["70 %"] = try_out("magnitude, 70 % zeros", 16, pruned_by("magnitude", 0.7, "matrix"))
tried["70 %, retrained"] = try_out("magnitude, 70 % zeros, retrained", 16, retrained)

# %%
assert tried["70 %, retrained"].delta_nats < pick(ci=0.9, lab=0.7, full=0.3) * tried["70 %"].delta_nats
assert abs(tried["70 %, retrained"].bytes / tried["70 %"].bytes - 1) < 0.01  # the same zeros

# %% [markdown]
# - A dozen steps of retraining take back a good part of what pruning has lost, and the zeros stay zeros. It is the cheapest
#   large gain on this road, and it needs what the other methods boast of not needing.
#
# Real TinyStories, 200,000 characters of retraining; and pruning *before* training, 800,000 characters for each:
# <!-- claim: FILE benchmarks/roads.py -->

# %% tags=["measured"]
tell("magnitude 70%, matrix", "magnitude 70%, matrix, retrained", "magnitude 70%, matrix, in four steps",
     "50% of neurons", "50% of neurons, retrained", "without block 4", "without block 4, retrained",
     "dense", "random 70% before training", "magnitude 70% before training")
versus("magnitude 70%, matrix, in four steps", "magnitude 70%, matrix, retrained")
versus("magnitude 70% before training", "random 70% before training")
versus("magnitude 70%, matrix, in four steps", "magnitude 70% before training")
assert added["magnitude 70%, matrix, retrained"] < 0.2 * added["magnitude 70%, matrix"]
early = [added[f"{method} 70% before training"] - added["dense"] for method in ("random", "magnitude")]
assert min(early) > 2 * added["magnitude 70%, matrix, retrained"] and abs(early[0] - early[1]) < 0.2 * min(early)
assert roads["magnitude 70%, matrix, retrained"]["ci_high"] < roads["magnitude 70%, matrix, in four steps"]["ci_low"]

# %% [markdown]
# - On real text, too, retraining takes back most of the loss: more than four fifths.
# - **In four steps it is worse**, although steps are often recommended. The likely reason is the budget: both rows read the *same
#   number of characters*, so the last and hardest step has only a quarter of them. Papers that praise steps give each step a
#   training of its own. One seed each.
# - The last three rows start anew and read far less text than the shipped model. Compare them **with their own dense row**:
#   a mask from the start costs far more than the same share of zeros after training. Magnitudes before training are drawn by
#   lot, so it hardly matters which of the two masks it is. **Train first, then prune.**

# %% [markdown]
# ## 4 · Low rank
#
# A matrix $W$ (out, in) as a product of two thin ones, (out, r) times (r, in). Fewer numbers, and fewer operations, if
# $r$ is small. The singular value decomposition gives the best such product: it sorts the directions of the matrix by
# size and keeps the first $r$.
#
# **Before you run it.** Singular values of a trained matrix, and of one with the same numbers *shuffled*. How different
# will they be?

# %%
order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
shuffled = weight.flatten()[order].view_as(weight)  # (192, 768)
spectra = {name: torch.linalg.svdvals(matrix) for name, matrix in (("trained", weight), ("shuffled", shuffled))}
energy = {name: values.square().cumsum(0) / values.square().sum() for name, values in spectra.items()}  # each (192,)
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
for (name, values), color in zip(spectra.items(), ("blue", "orange"), strict=True):
    left.plot(values / values[0], color=COLORS[color], label=name)
    right.plot(range(1, 193), energy[name], color=COLORS[color])
left.set(xlabel="number", title="singular values (largest 1)", ylim=(0, None))
left.legend()
right.axvline(153, color="0.4", ls="--")
right.annotate("both factors as large\nas the matrix", (153, 0.1), xytext=(-6, 0), textcoords="offset points", ha="right",
               fontsize=9)
right.set(xlabel="rank", title="share of the sum of squares kept", ylim=(0, 1.02))
show(fig, alt="Left: singular values of a trained matrix and of its shuffled copy. Both fall slowly, side by side, and stay "
     "above a quarter of the largest; only the very last one of the trained matrix is near zero. Right: share of the sum of "
     "squares against the rank; the two curves nearly cover each other. A dashed line marks the rank beyond which nothing is "
     "saved.")
assert energy["shuffled"][75] < energy["trained"][75] < 0.66 and spectra["trained"][-1] < 0.1 * spectra["trained"][-2]

# %% [markdown]
# - The trained matrix is *not* nearly of low rank. It uses its directions about as evenly as one without any order.
# - At half of the numbers, which is a rank of 76, more than a third of the sum of squares is gone.
# - Look at the last singular value of the trained matrix. **One** direction is missing. Which one?

# %%
missing = torch.linalg.svd(weight).U[:, -1]  # (192,): the output that this layer hardly ever gives
same = torch.ones(192) / math.sqrt(192)  # all outputs alike
print(f"cosine with (1, 1, …, 1): {float((missing @ same).abs()):.2f}")
assert (missing @ same).abs() > 0.99

# %% [markdown]
# - To add the same number to all 192 outputs is useless: each norm that reads the sum subtracts the mean. Training has found
#   the one direction that does nothing. That is the redundancy there is: 1 of 192.
# - Where low rank is famous, in fine-tuning, it is the *change* of the weights that has a low rank, not the weights.
#
# **Exercise 14.break_even.** The largest rank at which the two factors together have *fewer* numbers than the matrix.

# %%
def break_even(out, width):
    """The largest rank that saves numbers in a matrix (out, width)."""
    ### BEGIN SOLUTION
    return (out * width - 1) // (out + width)
    ### END SOLUTION

# %%
check("14.break_even", break_even)

# %%
for out, width in ((192, 192), (192, 768)):
    rank = (out * width - 1) // (out + width)
    print(f"({out}, {width}): rank {rank} of {min(out, width)}: {rank * (out + width):,} of {out * width:,} numbers")

# %% [markdown]
# ### Rank with an eye on the inputs
#
# The plain SVD keeps what is large in the *weights*. As with Wanda, what counts is the output. The inputs enter by their
# **Gram matrix** $G$, the mean of $x x^\top$. Factor it, $G = C C^\top$; then $\lVert (W - A)\,C \rVert^2$ *is* the mean
# squared error of the outputs. So:
#
# 1. **whiten**: $W C$;
# 2. **truncate**: its SVD, the first $r$ directions;
# 3. **unwhiten**: times $C^{-1}$.
#
# This is SVD-LLM (Wang et al. 2024, [2403.07378](https://arxiv.org/abs/2403.07378)).

# %%
rank = 76
factor = torch.linalg.cholesky(stats.damped(0.01).double())  # (768, 768), lower
u, s, vt = torch.linalg.svd(weight.double() @ factor, full_matrices=False)
by_hand = (u[:, :rank] * s[:rank]) @ vt[:rank] @ torch.linalg.inv(factor)  # (192, 768)
up, down = low_rank(weight.double(), rank, stats)  # (192, 76), (76, 768)
assert torch.allclose(up @ down, by_hand, atol=1e-6)
up, down = low_rank(weight, rank)
plain, aware = (unseen.output_error(weight, near) for near in (up @ down, by_hand.float()))
assert aware < 0.7 * plain
numbers = rank * (192 + 768)
assert 0.49 < numbers / weight.numel() < 0.5

# %% [markdown]
# **Exercise 14.whitened.** The matrix of a rank whose outputs are nearest, given `weight` (out, n) and `gram` (n, n),
# which is well conditioned.

# %%
def aware_low_rank(weight, gram, rank):
    """The matrix (out, n) of this rank that gives the nearest outputs."""
    ### BEGIN SOLUTION
    factor = torch.linalg.cholesky(gram)
    u, s, vt = torch.linalg.svd(weight @ factor, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank] @ torch.linalg.inv(factor)
    ### END SOLUTION

# %%
check("14.whitened", aware_low_rank)

# %% tags=["measured"]
thin = {"plain": try_out("svd, half the numbers", 16, lambda m: compress_model(m, LowRank(0.5, whitened=False)))}
thin["aware"] = try_out("activation-aware svd, half the numbers", 16,
                        lambda m: compress_model(m, LowRank(0.5), board.calibration))
print("real TinyStories:")
tell("svd 50%", "svd, activation-aware 50%", "svd, activation-aware 75%", "svd, activation-aware 50%, retrained")

# %%
assert thin["aware"].delta_nats < 0.6 * thin["plain"].delta_nats
assert thin["aware"].delta_nats > loss["magnitude"]  # half zeros by the simplest score

# %% [markdown]
# - The inputs help a great deal, and it is still a bad bargain: half the numbers by rank cost more than half zeros by
#   plain magnitude.
# - In its favour: two thin matrices *are* faster, without any special kernel. Section 7 measures it.
#
# ### Low rank as a repair
#
# The *rounding error* of a 3-bit model can be corrected by a thin matrix beside each layer (LQER, Zhang et al. 2024,
# [2402.02446](https://arxiv.org/abs/2402.02446)), or a thin one can be trained there (**LoRA**, Hu et al. 2021,
# [2106.09685](https://arxiv.org/abs/2106.09685)). But adapters have bytes, too. **Before you run it:** a rank of 8, in
# float16, beside a layer of 192 × 768 in 3 bits. How many bits a weight does it add?

# %%
adapter = 8 * (192 + 768) * 16 / (192 * 768)  # bits a weight
print(f"{adapter:.2f} bits a weight beside (192, 768), {8 * (192 + 192) * 16 / (192 * 192):.2f} beside (192, 192)")

# %% tags=["measured"]
def corrected(model):
    """A change of the model: GPTQ with 3 bits, and the best correction of rank 8 beside each layer."""
    rounded_to(3, "gptq")(model)
    add_adapters(model, 8, board.reference.model, board.calibration)


tried["corrected"] = try_out("gptq, 3 bits, correction of rank 8", 3, corrected)
tried["gptq 4"] = try_out("gptq, 4 bits", 4, rounded_to(4, "gptq"))
print("real TinyStories:")
tell(*[f"gptq {bits} bit, {name}" for bits in (3, 2)
       for name in ("correction of rank 8", "LoRA of rank 8, trained", "correction of rank 8, trained")],
     *[f"GPTQ {bits} bit" for bits in (4, 3, 2)])

# %%
loss = {name: row.delta_nats for name, row in tried.items()}
assert loss["gptq 4"] < loss["corrected"] < loss["gptq 3"]
assert tried["gptq 3"].bytes < tried["corrected"].bytes and tried["corrected"].bytes > 0.95 * tried["gptq 4"].bytes

# %% [markdown]
# - The correction helps, and it has made the 3-bit file nearly as large as the 4-bit one, which is better. The
#   layers of this model are small, so thin is not very thin; in a layer of width 4,096 the same rank adds far less:
#   0.06 bits. <!-- claim: MATH 8 * (4096 + 4096) * 16 / (4096 * 4096) -->
# - At 2 bits there is more to repair. Compare bytes *and* loss in the table.

# %% [markdown]
# ## 5 · Distillation
#
# A small model, the **student**, learns from what a large one, the **teacher**, predicts. Why is that better than learning
# from the text alone? The text says *which* character came next. The teacher says how likely **every** character was.
#
# A **temperature** $T$ divides the logits before the softmax. Look at one prediction:

# %%
prompt = "Once upon a time there was a little "
with torch.inference_mode():
    logits = model(tokenizer.encode(prompt)[None])[0, -1]  # (V,)
top = logits.topk(8).indices
names = [repr(tokenizer.decode(top[i : i + 1])) for i in range(8)]
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for ax, temperature in zip(axes, (1, 2, 4), strict=True):
    soft = F.softmax(logits / temperature, 0)
    ax.bar(names, soft[top], color=COLORS["blue"])
    ax.set(title=f"T = {temperature}: rest {float(1 - soft[top].sum()):.2f}")
axes[0].set_ylabel("probability")
axes[1].set_xlabel(f"after “{prompt}”")
show(fig, alt="The teacher's probabilities for eight characters at the temperatures 1, 2 and 4: steep at 1, flatter at 2, "
     "nearly level at 4, where the rest of the alphabet has a large share.")
likely = [float(F.softmax(logits / t, 0).max()) for t in (1, 2, 4)]
assert likely[0] > likely[1] > likely[2]

# %% [markdown]
# - Several characters are possible here, and the teacher knows which. One character of text knows only one of them: the
#   **soft target** carries more per character.
# - A higher temperature shows the order of the unlikely ones. Too high, and everything is equally likely again.
#
# The loss is the divergence from teacher to student, both softened (Hinton et al. 2015,
# [1503.02531](https://arxiv.org/abs/1503.02531)):
#
# $$T^2\; \mathrm{KL}\big(p_T \,\Vert\, q_T\big) = T^2 \sum_i p_i \log \frac{p_i}{q_i}$$
#
# **Why $T^2$?** Because the gradient shrinks:

# %%
generator = torch.Generator().manual_seed(0)
teacher, start = torch.randn(64, 80, generator=generator), torch.randn(64, 80, generator=generator)  # logits
slopes = {}
for temperature in (1, 2, 4, 8):
    student = start.clone().requires_grad_()
    p, log_q = F.softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    loss_by_hand = (p * (p.log() - log_q)).sum(1).mean()
    labels = torch.zeros(64, dtype=torch.long)
    assert torch.allclose(temperature**2 * loss_by_hand, distillation_loss(student, teacher, labels, temperature))
    loss_by_hand.backward()
    slopes[temperature] = float(student.grad.norm())
fig, ax = plt.subplots(figsize=(7, 2.8))
ax.loglog(slopes.keys(), slopes.values(), "o-", color=COLORS["blue"], label="without a factor")
ax.loglog(slopes.keys(), [t * g for t, g in slopes.items()], "s--", color=COLORS["orange"], label="times T")
ax.loglog(slopes.keys(), [t * t * g for t, g in slopes.items()], "^-", color=COLORS["green"], label="times T²")
ax.set(xlabel="temperature", ylabel="size of the gradient", xticks=[1, 2, 4, 8], xticklabels=["1", "2", "4", "8"])
ax.minorticks_off()
ax.legend()
show(fig, alt="Size of the gradient against the temperature on log scales: without a factor it falls steeply, times T it "
     "still falls, times T squared it stays about level.")
assert slopes[8] < slopes[1] / 30 and 0.5 < 64 * slopes[8] / slopes[1] < 2

# %% [markdown]
# - Each of the two softmaxes is flatter by $T$: the gradient falls with $T^2$. The factor puts it back, so that one learning
#   rate serves every temperature, and the share of the text's own loss keeps its meaning.
# - The direction matters: $\mathrm{KL}(p \Vert q)$, teacher first, punishes a student that calls impossible what the
#   teacher expects.
#
# **Exercise 14.distil.** The loss for logits of both, (n, classes): the mean over the n predictions.

# %%
def distil_loss(student, teacher, temperature):
    """Distillation loss of logits (n, classes) each, as a 0-d tensor."""
    ### BEGIN SOLUTION
    p = F.softmax(teacher / temperature, 1)
    log_q = F.log_softmax(student / temperature, 1)
    return temperature**2 * (p * (p.log() - log_q)).sum(1).mean()
    ### END SOLUTION

# %%
check("14.distil", distil_loss)

# %% [markdown]
# ### A student half the size
#
# Three blocks in place of six. Start it anew, or with three of the teacher's blocks (DistilBERT, Sanh et al. 2019,
# [1910.01108](https://arxiv.org/abs/1910.01108)). Training takes minutes, so these rows come from the file: all students read
# the **same 800,000 characters**, one seed each. <!-- claim: FILE benchmarks/roads.py -->
#
# **Before you run it.** What matters more: where the student starts, or what it learns from?

# %% tags=["measured"]
student = try_out("three of the teacher's blocks, not trained", 16, lambda m: make_student(m, 3))
print("real TinyStories:")
tell("3 of the teacher's blocks", "3 blocks from scratch, text", *[f"3 blocks from scratch, teacher, T = {t}" for t in (1, 2, 4)],
     "3 blocks from scratch, teacher and text", "3 of the teacher's blocks, text", "3 of the teacher's blocks, teacher, T = 1")
versus("3 blocks from scratch, teacher, T = 1", "3 blocks from scratch, text")
versus("3 blocks from scratch, teacher, T = 2", "3 blocks from scratch, teacher, T = 1")
versus("3 of the teacher's blocks, text", "3 blocks from scratch, text")
versus("3 blocks from scratch, teacher, T = 1", "dense")  # six blocks, from scratch, the text alone

# %%
assert student.delta_nats > 1  # three blocks alone are a wreck
assert student.bytes < 0.6 * board.rows[0].bytes / 2  # half of the blocks in float16; the embeddings stay
text, *taught = ("3 blocks from scratch, text", *[f"3 blocks from scratch, teacher, T = {t}" for t in (1, 2, 4)])
assert added[taught[0]] < added[taught[1]] < added[taught[2]] < added[text]
assert roads[taught[0]]["ci_high"] < roads[taught[1]]["ci_low"] and roads[taught[1]]["ci_high"] < roads[text]["ci_low"]
heirs = [f"3 of the teacher's blocks{how}" for how in ("", ", text", ", teacher, T = 1")]
assert roads[taught[0]]["ci_high"] < roads["dense"]["ci_low"]
assert added[heirs[0]] > 1 and added[heirs[2]] < added[heirs[1]] < 0.5 * added[taught[0]]

# %% [markdown]
# - **The teacher helps**: at the same characters its student loses clearly less than the one that reads the text alone; even
#   less than a model of the *full* size that reads the text alone. (All of them have read little. With more text the full
#   size will win.)
# - **A temperature above 1 does not help here**: the higher, the nearer to the text alone. Perhaps because text is uncertain
#   anyway, and the picture above shows soft targets at $T = 1$ already. It is a setting to be tried, not a rule.
# - **The start matters more than the target**, but it has been paid for: the teacher's blocks hold all of its training. They, taken out and put together, are a wreck; as a start
#   they cut the added loss to less than half of what the best student from scratch has.
# - The intervals are about the *text*. Another seed of the training would move these rows, too, and nobody has measured by
#   how much. **One seed ranks nothing that is close.**
# - Whoever distils needs the teacher running beside the student: each step costs more than one of plain training.

# %% [markdown]
# ## 6 · Quantisation: other spaces
#
# The road that this course is about. Two things were settled in notebook 04: *granularity* (a scale for each matrix, row or
# group) and *how the values lie*, evenly. What else there is, as a ladder:
#
# | rung | what it looks at | what it moves | where |
# |:--|:--|:--|:--|
# | data-free | the weights | nothing: nearest value | 04, 05 |
# | calibrated | a little text | which value each weight takes, once | 07 |
# | learned rounding | a little text, many times | which of two neighbours | 06 |
# | quantisation-aware training | all the training text | the weights themselves | 06 |
#
# Each rung costs more than the one before it, and each has its bits below which it is needed.
#
# But must the values lie evenly? Most weights are near 0. Four answers at 4 bits, on one number line over the weights:

# %%
relative = weight / weight.abs().amax(1, keepdim=True)  # (192, 768): in units of the largest of each row
SPACES = {
    "uniform": torch.arange(-7, 8) / 7,
    "power of two": GRIDS["power-of-two"](weight, 4).codebook,
    "power law": GRIDS["power-law"](weight, 4).codebook,
    "NF4": GRIDS["nf4"](weight, 4).codebook,
}
fig, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, height_ratios=(2, 3))
top.hist(relative.flatten().numpy(), bins=201, range=(-1, 1), color="0.7")
top.set(yticks=[], ylabel="weights")
for place, values in enumerate(SPACES.values()):
    bottom.plot(values, torch.full_like(values, -place), "|", ms=20, mew=3, color=list(COLORS.values())[place])
bottom.set(yticks=[0, -1, -2, -3], yticklabels=SPACES, ylim=(-3.6, 0.6), xlabel="weight, in units of its row's largest")
bottom.grid(visible=False)
show(fig, alt="Top: histogram of the weights, a bell around 0 with thin tails to both sides. Bottom: four rows of marks. "
     "Uniform: evenly spaced. Power of two: halving towards 0, most marks crowd around it. Power law: closer near 0. NF4: "
     "closer near 0, too, like quantiles of a bell.")
assert all(values.abs().max() == 1 and (values == 0).any() for values in SPACES.values())

# %% [markdown]
# - **Power of two** (INQ, Zhou et al. 2017, [1702.03044](https://arxiv.org/abs/1702.03044)): values 1, ½, ¼, … A product is
#   a shift of bits. But the outer half of the range has no value between ½ and 1.
# - **Power law** (PowerQuant, Yvinec et al. 2023, [2301.09858](https://arxiv.org/abs/2301.09858)): even spacing of
#   $|w|^a$. With $a = 1$ it is uniform; smaller $a$ draws the values to 0. The best $a$ is searched.
# - **NF4** (QLoRA, Dettmers et al. 2023, [2305.14314](https://arxiv.org/abs/2305.14314)): quantiles of a bell, in blocks of
#   64 weights with a scale each, so it also has the finer granularity and pays for it.
#   <!-- claim: SOURCE arXiv 2305.14314 -->
#
# **Exercise 14.power_law.** The values **above 0** of a power-law grid with largest value 1, in ascending order: of the
# $2^b$ codes one stays idle, one is 0, and the rest are halved between the signs.

# %%
def power_law(bits, exponent):
    """The 2**(bits - 1) - 1 values above 0 whose power `exponent` is evenly spaced, the last of them 1."""
    ### BEGIN SOLUTION
    count = 2 ** (bits - 1) - 1
    return (torch.arange(1, count + 1) / count) ** (1 / exponent)
    ### END SOLUTION

# %%
check("14.power_law", power_law)

# %% [markdown]
# **Before you run it.** The values of a power-law grid lie where the weights are. Which of the four adds the least loss?

# %%
def relative_error(grid):
    """Squared error of rounding the layer to nearest, over the sum of its squares."""
    return float((grid.decode(nearest(weight, grid)) - weight).square().sum() / weight.square().sum())


error_of = {(name, bits): relative_error(GRIDS[name](weight, bits))
            for bits in (4, 3) for name in ("affine", "power-law", "power-of-two")}
error_of["nf4", 4] = relative_error(GRIDS["nf4"](weight, 4))
error_of["symmetric", 4] = relative_error(affine_grid(weight, 4, symmetric=True))

# %% tags=["measured"]
for (name, bits), value in sorted(error_of.items(), key=lambda item: (-item[0][1], item[1])):
    print(f"{bits} bits  {name:13} relative squared error of the weights {value:.4f}")
spaces = {name: try_out(f"nearest, 4 bits, {name}", 4, rounded_to(4, grid=name))
          for name in ("affine", "power-law", "power-of-two", "nf4")}
print("real TinyStories:")
tell(*[f"{method} {grid} {bits} bit" for bits in (4, 3) for grid in ("affine", "power-law", "power-of-two")
       for method in ("nearest", "gptq")], "nearest nf4", "gptq nf4")

# %%
at = {name: row.delta_nats for name, row in spaces.items()}
assert error_of["power-law", 4] < 0.9 * error_of["symmetric", 4] and error_of["symmetric", 4] < error_of["power-of-two", 4]
assert at["power-of-two"] > 1.5 * at["affine"] > 0 and at["power-of-two"] > 1.5 * at["power-law"]
assert at["nf4"] < at["affine"] and loss["gptq 4"] < at["nf4"]
assert spaces["nf4"].bytes > 1.03 * spaces["affine"].bytes

# %% [markdown]
# - The power law does have a smaller error than the *symmetric* even grid. The asymmetric one (`affine`), which fits each
#   row's two ends and wastes no code, is about as good.
# - Powers of two are crowded near 0 and sparse outside: at 4 bits most of their values are tiny and hardly differ.
# - NF4 is ahead, and its file is larger: a scale for every block. Part of its lead is granularity, not its values.
# - What the rounding *method* gains is more than what any space gains over even values: GPTQ at 4 bits stands in section 4.

# %% [markdown]
# ## 7 · Removing operations against making them simpler
#
# A file half as large is not a model twice as fast. Here one product is timed in six forms: dense, and five others with half of
# the numbers or an eighth of the bits. **Before you run it:** which of them are faster than the dense one?

# %% tags=["measured"]
wide = torch.randn(1024, 1024, generator=generator)  # (1024, 1024)
x = torch.randn(256, 1024, generator=generator)  # (256, 1024): tokens
zeros = wide * mask(wide.abs(), 0.5)
near = [torch.randn(*shape, generator=generator) for shape in ((256, 1024), (1024, 256))]
packed_grid = affine_grid(wide, 4)
packed, sparse = QuantLinear.from_codes(nearest(wide, packed_grid), packed_grid), SparseLinear.from_weight(zeros)
forms = {
    "dense": lambda: F.linear(x, wide),
    "half zeros, dense": lambda: F.linear(x, zeros),
    "half zeros, file's form": lambda: sparse(x),
    "half the neurons": lambda: F.linear(x, wide[:512]),
    "low rank, half": lambda: F.linear(F.linear(x, near[0]), near[1]),
    "4-bit codes": lambda: packed(x),
}
took = {name: [] for name in forms}
for _ in range(pick(ci=3, lab=25, full=200)):  # in turns, so that a busy moment hits all
    for name, form in forms.items():
        started = time.perf_counter()
        form()
        took[name].append(time.perf_counter() - started)
middle_of = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in took.items()}
for name, seconds in middle_of.items():
    print(f"{name:25} {middle_of['dense'] / seconds:5.2f} times as fast as dense")

# %% [markdown]
# - **Zeros in a dense matrix are multiplied like any other number.** Nobody looks whether a number is 0: looking costs more
#   than multiplying. To skip them needs special hardware (2:4), or so many zeros that an index pays.
# - **Half the neurons, half the blocks, low rank**: real operations are gone, on every machine.
# - **Packed codes** make a file small and here make the product slower: they are unpacked in each call. What a compiled
#   kernel gains, and when, is notebook 08.
#
# So structured pruning, low rank and distillation remove operations; quantisation makes them cheaper for hardware that knows
# how, and moves fewer bytes. When one text at a time is written, moving bytes is most of the work.

# %% [markdown]
# ## 8 · All roads in one picture
#
# Every row of the file: real TinyStories, size of the file against added loss. The grey line is the **frontier**: no other
# row is both smaller and better than one on it.

# %%
ROADS = {"quantise": ("blue", "o"), "prune": ("vermillion", "s"), "low rank": ("green", "^"), "distil": ("purple", "D"),
         "together": ("orange", "P")}


def frontier(rows):
    """The rows that no other beats in both bytes, give or take a hundredth, and loss; by size."""
    def beaten(row):
        return any(other["bytes"] <= 1.01 * row["bytes"] and other["delta_nats"] < row["delta_nats"] for other in rows)

    return sorted((row for row in rows if not beaten(row)), key=lambda row: row["bytes"])


# %%
drawn = [row for row in roads.values() if row["road"] in ROADS]
edge = frontier(drawn)
fig, ax = plt.subplots(figsize=(8, 4.6))
ax.step([row["bytes"] / 1e6 for row in edge], [row["delta_nats"] for row in edge], where="post", color="0.6", lw=4, alpha=0.5)
for road, (color, marker) in ROADS.items():
    mine = [row for row in drawn if row["road"] == road]
    ends = [[row["delta_nats"] - row["ci_low"] for row in mine], [row["ci_high"] - row["delta_nats"] for row in mine]]
    ax.errorbar([row["bytes"] / 1e6 for row in mine], [row["delta_nats"] for row in mine], yerr=ends, fmt=marker, ms=5,
                capsize=2, color=COLORS[color], label=road)
ax.set(xlabel="size of the file (MB)", ylabel="added loss (nats a character)", title="TinyStories, 2.7 M parameters")
ax.set_yscale("symlog", linthresh=0.01)
ax.set_ylim(bottom=-0.002)
ax.legend()
show(fig, alt="Added loss on a symmetric log scale against the size of the file for all models of all roads. The frontier "
     "runs down the left side: distilled and quantised models at its top, quantised ones below. Others lie to its right.")

# %% tags=["measured"]
for row in edge:
    bits = "" if "bit" in row["method"] else f" {row['bits']:.0f} bit"
    print(f"{row['bytes'] / 1e6:5.2f} MB {row['delta_nats']:+.4f} nats  {row['road']}: {row['method']}{bits}")
versus("gptq 3 bit, LoRA of rank 8, trained", "GPTQ 4 bit")
versus("gptq 2 bit, correction of rank 8, trained", "GPTQ 3 bit")

# %%
GPTQ = {bits: roads[f"GPTQ {bits} bit"] for bits in (4, 3, 2)}
alone = [row for row in drawn if row["road"] in ("prune", "distil")]
assert all(row["bytes"] > GPTQ[4]["bytes"] and row["ci_low"] > GPTQ[4]["ci_high"] for row in alone)
mixed = roads["sparsegpt 50% and 4 bit"]  # of the bytes of 3-bit GPTQ
assert abs(mixed["bytes"] / GPTQ[3]["bytes"] - 1) < 0.01 and mixed["ci_low"] > 3 * GPTQ[3]["ci_high"]

fewer, student = roads["25% fewer neurons, gptq 3 bit"], roads["3 blocks, teacher, gptq 4 bit"]
assert fewer["bytes"] < 0.9 * GPTQ[3]["bytes"] and fewer["ci_high"] < 2 * GPTQ[3]["ci_low"]
assert student["bytes"] < GPTQ[2]["bytes"] and student["ci_high"] < 0.4 * GPTQ[2]["ci_low"]

# %% [markdown]
# **The verdict, for bytes.** 4-bit GPTQ is smaller **and** better than every model that was pruned or distilled *alone*. Half
# zeros *and* 4 bits have the bytes of 3-bit GPTQ and more than three times its added loss.
#
# - **Roads combine, and below 3 bits they have to.** A quarter fewer neurons and then 3 bits: less than nine tenths of the
#   bytes of 3 bits alone, for less than twice its small loss. Half the blocks, taught by the teacher, and then
#   4 bits: fewer bytes than 2-bit GPTQ, and less than 40 % of its added loss. The price is training, which GPTQ needs none of.
#   <!-- claim: MATH 100 * 0.4 -->
# - Trained rounding gets there as well: notebook 06's ternary weights that learned from the teacher add 0.136 nats in
#   0.70 MB. <!-- claim: FILE data/results/tinystories/ternary.csv; FILE data/results/tinystories/ternary.csv: 696832 / 1e6 -->
# - Repairs of section 4 are hybrids: compare them with the GPTQ row of the same *bytes*, not of the same bits.
#
# What this does **not** show:
#
# - It counts bytes, not seconds. Structured pruning and distillation also remove operations.
# - The other roads were given little training; distillation lives on training. More would move its points down.
# - Few of the pairs of roads were tried, and no three of them: the open challenge below.
# - One architecture of 2.7 million parameters, characters, one kind of text, **one seed** of each training. Large models
#   have more that can be left out.
#
# The live rows of this notebook, for comparison:

# %% tags=["measured"]
board

# %% [markdown]
# ## 9 · What a large model costs
#
# Why all this effort? Because of bytes and energy. Bytes are arithmetic, and can be checked. Energy figures are mostly
# estimates, and have to be read with their uncertainty.
#
# ### Memory
#
# To write text, a graphics card (GPU) has to hold:
#
# - the **weights**: parameters × bits / 8 bytes;
# - the **KV cache**: for every token read so far a key and a value of the model's width, in each layer, two bytes a number;
# - **activations** of the moment: small when writing, a few vectors for each token.
#
# GPT-3 has 175 billion parameters in 96 layers of width 12,288, and reads up to 2,048 tokens.
# <!-- claim: SOURCE Brown et al. 2020, arXiv 2005.14165 table 2.1 -->
#
# **Exercise 14.memory.** Gigabytes ($10^9$ bytes) for weights and cache.

# %%
def memory_gb(parameters, bits, layers, width, tokens):
    """GB for the weights, and for keys and values of `tokens` in float16."""
    ### BEGIN SOLUTION
    return (parameters * bits / 8 + 2 * layers * width * tokens * 2) / 1e9
    ### END SOLUTION

# %%
check("14.memory", memory_gb)

# %%
PARAMETERS, LAYERS, WIDTH, TOKENS, CARD = 175e9, 96, 12288, 2048, 80  # GPT-3; a card of 80 GB
cache = 2 * LAYERS * WIDTH * TOKENS * 2 / 1e9  # GB
activations = 4 * WIDTH * TOKENS * 2 / 1e9  # GB: the widest layer's outputs, while 2,048 tokens are read at once
print(f"cache {cache:.1f} GB for each text, activations about {activations:.1f} GB")
cards = {}
for bits in (32, 16, 8, 4, 3):
    gb = PARAMETERS * bits / 8 / 1e9
    cards[bits] = math.ceil(gb / CARD), math.ceil((gb + cache + activations) / CARD)
    print(f"{bits:2} bits: weights {gb:6.1f} GB, cards for them {cards[bits][0]}, with cache and activations {cards[bits][1]}")
assert cards[4] == (2, 2) and cards[3] == (1, 1) and cards[32][0] == 9

# %% [markdown]
# - **The slides: "only one H100 for GPT-3 in int4".** 87.5 GB do not fit into 80 GB: it takes two, before a single scale
#   and a single token. At 3 bits the weights would fit on one.
# - **"GPT: 80 GB"**: that is the card. The model has 700 GB in float32 and 350 GB in float16.
# - **"70 GB become 280 GB"**: 70 billion *parameters*, at four bytes each. <!-- claim: MATH 70 * 4; SOURCE PAPERS 6.1 -->
# - "9 H100" for float32 is right for the weights alone, and says nothing about the cache of a hundred users.
#
# Training holds more: the weights and their gradients in float16 (2 + 2 bytes), a float32 copy (4), and Adam's two moments
# (4 + 4). **16 bytes a parameter** (ZeRO, Rajbhandari et al. 2019, [1910.02054](https://arxiv.org/abs/1910.02054)):

# %%
training = {"weights, float16": 2, "gradients, float16": 2, "copy of the weights, float32": 4, "Adam's moments, float32": 8}
total = sum(training.values())
print(f"{total} bytes a parameter, {total * PARAMETERS / 1e9:,.0f} GB, {math.ceil(total * PARAMETERS / 1e9 / CARD)} cards")
assert total == 16

# %% [markdown]
# Activations, which come on top, depend on the batch. That is why one trains adapters beside a *quantised* model (section 4):
# the moments are then needed for the adapters only.
#
# ### Energy
#
# The source slides print *1,300 MWh, 552 t CO₂, 320 homes* without a source, and call further figures "whispers". Whispers are
# not repeated here. What can be traced, with how it was traced:
# <!-- claim: SOURCE PAPERS 6.1, the slides on ternary quantisation -->

# %%
ESTIMATES = (  # model, MWh, t CO2, who
    ("GPT-3", 1287, 552, "Patterson et al. 2021"),
    ("GPT-3", 190, 85, "Anthony et al. 2020"),
    ("BLOOM", 433, 24.7, "GPUs alone"),
    ("BLOOM", 690, 39.3, "with idle machines"),
)
assert round(1_082_990 * 0.4 / 1000) == 433 and round(433.196 + 256.646) == 690 and round(24.7 + 14.6, 1) == 39.3
fig, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
for ax, column, title in zip(axes, (1, 2), ("training, MWh", "training, t CO₂ equivalent"), strict=True):
    for place, row in enumerate(ESTIMATES):
        ax.barh(place, row[column], color=COLORS["blue"] if row[0] == "GPT-3" else COLORS["orange"])
        ax.text(row[column], place, f" {row[column]:,}", va="center", fontsize=9)
    ax.set(title=title, yticks=range(4), yticklabels=[f"{row[0]}, {row[3]}" for row in ESTIMATES])
    ax.set_xlim(0, 1.2 * max(row[column] for row in ESTIMATES))
axes[0].invert_yaxis()  # both: they share it
show(fig, alt="Bars of four estimates. Energy: GPT-3 1,287 and 190 MWh by two studies, BLOOM 433 and 690 MWh. Emissions: "
     "GPT-3 552 and 85 tonnes, BLOOM 24.7 and 39.3 tonnes.")
assert 6 < 1287 / 190 < 7 and 552 / 1287 > 7 * 24.7 / 433

# %% [markdown]
# - **GPT-3**: 1,287 MWh and 552 t are the estimate of Patterson et al. 2021
#   ([arXiv 2104.10350](https://arxiv.org/abs/2104.10350)). We read its abstract and found these figures at *second hand*;
#   we have not checked them in the paper. <!-- claim: SOURCE arXiv 2104.10350, as quoted by BASF's magazine and others -->
# - **GPT-3, again**: 190 MWh and 85 t, by the Carbontracker group (Anthony et al. 2020, as reported by
#   [The Register](https://www.theregister.com/2020/11/04/gpt3_carbon_footprint_estimate/)). The same training, and a factor
#   of nearly seven between two groups that both reckoned afterwards, from outside. **That is the uncertainty.**
# - **BLOOM**: 24.7 t for the GPUs, 50.5 t with everything up to the making of the machines (Luccioni et al. 2022,
#   [2211.02001](https://arxiv.org/abs/2211.02001), abstract). 433 MWh is 1.08 million GPU hours at 0.4 kW; machines that
#   stood by used another 257 MWh. These two are from a digest of the paper, and the first agrees with its own arithmetic.
#   <!-- claim: SOURCE arXiv 2211.02001 -->
# - BLOOM's GPUs alone took a third of GPT-3's energy by the first estimate, and a twentieth of its CO₂: for each MWh France's *grid*
#   emits far less.
#
# Your own electricity is the part that you can measure. Everything else is somebody's model.
#
# ### "As much as 320 homes"
#
# **Exercise 14.households.** How many homes use as much in a year?

# %%
def households(mwh, kwh_a_home):
    """Homes whose electricity of a year is so many MWh."""
    ### BEGIN SOLUTION
    return 1000 * mwh / kwh_a_home
    ### END SOLUTION

# %%
check("14.households", households)

# %%
HOMES = {"US, 2020": 10_715, "EU average": 3_600, "Sweden": 8_500, "Romania": 1_800}  # kWh a year
for name, kwh in HOMES.items():
    print(f"{name:11} {kwh:6,} kWh a home: 1,287 MWh are {1000 * 1287 / kwh:3.0f} homes, 190 MWh are {1000 * 190 / kwh:3.0f}")
print(f"320 homes for 1,300 MWh: {1000 * 1300 / 320:,.0f} kWh a home")
assert 2.5 < 10_715 / (1000 * 1300 / 320) < 2.7 and 10_715 / 3_600 > 2.9

# %% [markdown]
# - The figures for homes: the [US Energy Information
#   Administration](https://www.eia.gov/tools/faqs/faq.php?id=97&t=3) (2020), and
#   [Odyssee-Mure](https://www.odyssee-mure.eu/publications/efficiency-by-sector/households/electricity-consumption-dwelling.html)
#   (November 2025).
# - "320 homes" is not wrong: it takes a home of 4,062 kWh, somewhat above the EU's average. In American homes it is 120: a
#   factor of about 2.6 from the choice of a country, before anybody has estimated anything.
#   <!-- claim: CELL 2.5 < 10_715; MATH 1000 * 1300 / 320; MATH 1000 * 1287 / 10715 -->
# - So a comparison with homes, cars or flights adds an uncertainty and takes no one away. **Give MWh, say who estimated them
#   and how, and give the range.**

# %% [markdown]
# ## What to keep
#
# - Four roads: leave numbers out (pruning, low rank, a student), or spend fewer bits on each (quantisation).
# - **Pruning**: letting the survivors help (SparseGPT) matters more than which sensible score. Zeros cost a mask: a bit for every weight.
#   Structures are coarser and really faster. Ask the loss, not the similarity. Prune after training, and train a little more.
# - **Low rank**: trained matrices are not of low rank. Use the inputs, and count both factors. As a repair it helps; count its bytes as well.
# - **Distillation**: teacher first in the KL, $T^2$ before it, and compare at equal training.
# - **Quantisation** wins for bytes on this model down to 3 bits; how the values lie matters less than how one rounds. Below
#   that a smaller model with more bits wins: roads combine.
# - Zeros are not fewer operations. A small file is not a fast model.
# - Memory is arithmetic. Energy figures are estimates, apart by a factor of seven for the same training.
#
# ## Open challenge
#
# Add a point to the frontier, on `tales`: no larger than some GPTQ row and with less added loss, by any two roads together, or three. Nobody
# has shown yet that 3-bit GPTQ can be beaten at its bytes. A place to start, in a new cell:
#
# ```python
# from nanoq.compress import remove_neurons
#
# def both(model):
#     remove_neurons(model, 0.25, board.calibration)
#     rounded_to(3, "gptq")(model)
#
# try_out("three quarters of the neurons, 3 bits", 3, both)
# ```

# %% tags=["measured"]
print(f"to beat: {tried['gptq 3'].bytes:,} bytes, {tried['gptq 3'].delta_nats:+.4f} nats")

# %% [markdown]
# ## What next
#
# - **15 · Real models**: rounding on OPT, BERT, GPT-2 and Llama.
# - **16 · Playground**: what the models of the leaderboard write, side by side.
# - Back to **05 · Ternary weights**, if you have not been there: three values are quantisation and pruning at once.
#
# ## Further reading
#
# - Hoefler et al. 2021, *Sparsity in Deep Learning* ([2102.00554](https://arxiv.org/abs/2102.00554)): pruning, all of it.
# - Frantar and Alistarh 2023, *SparseGPT* ([2301.00774](https://arxiv.org/abs/2301.00774)); Sun et al. 2023, *Wanda*
#   ([2306.11695](https://arxiv.org/abs/2306.11695)).
# - Hinton et al. 2015, *Distilling the Knowledge in a Neural Network* ([1503.02531](https://arxiv.org/abs/1503.02531)).
# - Luccioni et al. 2022, *Estimating the Carbon Footprint of BLOOM* ([2211.02001](https://arxiv.org/abs/2211.02001)): how to
#   count, and what one cannot know.
