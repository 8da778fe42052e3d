# %% [markdown]
# # 12 · TDMPQ: disturb it and look
#
# {{colab}}
#
# Which layers suffer from losing bits? The third answer of the CPTQuant paper (arXiv 2412.03599, "the paper" from here on)
# is the most direct: add random noise to a layer's weights, and see what the loss does. Rounding is a disturbance, too, so
# a layer that minds noise should mind rounding.
#
# You write the score yourself. On the way you find out **what such noise measures**, which is not what the paper's name
# for it says, why a single draw of noise measures next to nothing, and what the score is worth in bytes.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - say what the loss does on average when weights are disturbed;
# - take the slope out of a draw with its mirror image, and say how many draws that saves;
# - make noise as strong as the rounding of each row, and split its damage into first and second order;
# - give each matrix the width that *your* score says, in a file of your own;
# - write the test that catches a score that measures nothing.
#
# **You need** notebook 04 (grids and steps, paired intervals) and notebook 10 (budgets, rank correlations).

# %%
import math
from copy import deepcopy

import torch

from nanoq import mixed, quant
from nanoq.files import read_results
from nanoq.lm.evaluate import paired_difference
from nanoq.mixed.parts import gradients, mean_loss, restoring_weights
from nanoq.quant import affine_grid
from nanoq.teach import challenge, check, pick, use, use_style
from nanoq.teach.figures import nb12 as figures
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.own_file import as_stats, own_file, own_files

use_style()

# %%
board = Leaderboard("tales-2.7m", windows=pick(ci=8, lab=16, full=None))
model = board.reference.model
layers = quant.linear_layers(model)  # {name: layer}, 24 matrices
fitted, tested = board.calibration[:16], board.calibration[16:18]
board.calibration, data = fitted, fitted[: pick(ci=2, lab=2, full=16)]
base = mean_loss(model, data)

# %%
def loss_with(layer):
    """A function: weight (out, in) -> the loss with that weight in the layer."""

    @torch.no_grad()
    def loss_at(weight):
        if torch.equal(weight, layer.weight):
            return base
        with restoring_weights({"": layer}):
            layer.weight.copy_(weight)
            return mean_loss(model, data)

    return loss_at

# %% [markdown]
# ## 1 · A valley with a slope
#
# One weight. The grey curve is the loss as this weight changes. The star is its trained value: **on the side** of the valley,
# as for real weights, because training stops near the bottom and not at it. Noise moves the weight by a step `e` to the right
# or to the left, whichever chance says.
#
# **Before you run it.** To the right the loss falls. Is the *mean* of both steps better or worse than staying?
#
# <details><summary>After you have run it</summary>
# Worse. The slope gives one side what it takes from the other, and cancels in the mean. What is left is the <b>bend</b> of the
# curve: the blue mark lies above the star. A single step says mostly which way the slope goes; here it even says that noise
# is good. Try other sizes of the step: for small ones the mean follows the dotted parabola, for large ones other things mix
# in.
# </details>

# %%
figures.valley(0.8)

# %% tags=["claims"]
down, up = figures.valley_loss(0.8) - 1, figures.valley_loss(-0.8) - 1
assert down < 0 < (up + down) / 2 < up

# %% [markdown]
# ## 2 · The formula
#
# Now all $n$ weights $w$ of a matrix. The entries of the noise $e$ are independent, symmetric about 0, and have the
# standard deviation $\sigma$. Taylor, with the gradient $g$ and the Hessian $H$ of the loss:
#
# $$L(w+e) - L(w) = g^\top e + \tfrac12\,e^\top H e + \dots$$
#
# | term | its mean | why |
# |:--|:--|:--|
# | $g_i e_i$ | 0 | up as often as down |
# | $\tfrac12 H_{ij}\, e_i e_j$ with $i\ne j$ | ? | the two are independent |
# | $\tfrac12 H_{ii}\, e_i^2$ | ? | a square has no sign |
# | third order | 0 | odd, and the noise is symmetric |
# | fourth order | about $\sigma^4$ | small, if $\sigma$ is |
#
# **Exercise 1.** Fill in the question marks and add up: by how much does the loss grow on average, if nothing beyond the
# second order exists?

# %%
def growth(hessian, sigma):
    """Expected growth of the loss under such noise: Hessian (n, n) -> float."""
    ### BEGIN SOLUTION
    return 0.5 * sigma**2 * float(hessian.trace())
    ### END SOLUTION

# %%
check("12.growth", growth)

# %% [markdown]
# The paper calls its score a *first-order* Taylor method. On average the first order is exactly what noise does **not**
# measure. In one draw it is still there. The remedy: use each draw together with its mirror image, an **antithetic pair**.
#
# **Exercise 2.** Write TDMPQ with pairs. Noise is `sigma` times a draw. Return the mean growth of the loss, over all draws and
# both signs. `loss_at` gives the loss at any weight; `sigma` is a number, or one number per row `(out, 1)`.

# %%
def tdmpq(loss_at, weight, sigma, draws):
    """Sensitivity of a weight (out, in) by draws (D, out, in) of noise: float."""
    ### BEGIN SOLUTION
    total = 0.0
    for one in draws:
        noise = sigma * one
        total += float(loss_at(weight + noise) + loss_at(weight - noise)) / 2
    return total / len(draws) - float(loss_at(weight))
    ### END SOLUTION

# %%
check("12.tdmpq", tdmpq)

# %% [markdown]
# ## 3 · How many draws?
#
# First where the truth is known: a quadratic `bowl` with 50 weights, a slope, and a full Hessian. Single draws and pairs both
# have the mean that your `growth` says. But how far does one draw stray from it?
# <!-- claim: CELL assert len(H) == 50 -->
#
# **Before you run it.** The noise gets smaller, from $\sigma = 1$ to $0.01$. In units of that mean: do single draws get better
# or worse? And pairs?
#
# <details><summary>After you have run it</summary>
# Single draws get worse: the slope shrinks with σ, the bend with σ², so <b>the smaller the noise, the more a single draw is
# slope</b>. In a pair the slope is gone from each draw, not just on average, and the spread does not depend on σ.
# </details>

# %%
my_growth, my_tdmpq = use("12.growth", growth), use("12.tdmpq", tdmpq)
bowl, H = figures.bowl()  # a function of (50, 1), a Hessian (50, 50)
centre, draws, found = torch.zeros(50, 1).double(), figures.gaussian(500, 50, 1), {}
for sigma in (1.0, 0.1, 0.01):
    single = [float(bowl(sigma * one) - bowl(centre)) for one in draws]
    pairs = [my_tdmpq(bowl, centre, sigma, one[None]) for one in draws]
    both = torch.tensor([single, pairs])  # (2, 500)
    found[sigma] = both / my_growth(H, sigma)
spreads = found[0.01].std(1).tolist()  # of single draws and of pairs; the mean is 1
figures.draws(found)

# %% tags=["claims"]
assert len(H) == 50
for single, pairs in found.values():
    assert abs(pairs.mean() - 1) < 5 * pairs.std() / len(pairs) ** 0.5
    assert abs(single.mean() - 1) < 5 * single.std() / len(single) ** 0.5
    assert abs(pairs.std() - math.sqrt(2) * H.norm() / H.trace()) < 0.05
assert found[0.01][0].std() > 50 * found[0.01][1].std()
assert found[1.0][0].std() < 4 * found[1.0][1].std()

# %% [markdown]
# **Exercise 3.** One draw has the standard deviation `spread` around `mean`. How many draws must you average for a standard
# error of at most `share` times the mean?

# %%
def draws_needed(spread, mean, share):
    """The smallest number of draws that is enough: int."""
    ### BEGIN SOLUTION
    return math.ceil((spread / (share * mean)) ** 2)
    ### END SOLUTION

# %%
check("12.draws", draws_needed)

# %% [markdown]
# ## 4 · On our GPT
#
# `loss_with(layer)` gives the loss as a function of one matrix. The noise is one hundredth of the matrix's own size, for
# two seeds: once in single draws, once by your `tdmpq` in pairs.
#
# **Before you run it.** Will the single draws of the two seeds agree on which matrices are sensitive? Will the pairs?
#
# <details><summary>After you have run it</summary>
# The pairs agree nearly everywhere. The single draws agree on nothing, and some even say that noise improves the model. That
# is not a noisy version of the right picture. It is another quantity: the slope, times the luck of the draw. An algorithm that
# draws once, as the paper's does, ranks layers by this. The last line says how many draws bring the standard error down to 10 % of
# the mean, for the bowl with the smallest noise and for the matrix in the middle. <!-- claim: CELL my_draws(spread, 1.0, 0.1) -->
# </details>

# %% tags=["measured"]
my_draws = use("12.draws", draws_needed)
alone, paired = [], []
for seed in range(pick(ci=2, lab=2, full=10)):
    generator, single, pairs = torch.Generator().manual_seed(seed), {}, {}
    for name, layer in layers.items():
        weight, loss_at = layer.weight.detach().clone(), loss_with(layer)
        one = torch.randn(1, *weight.shape, generator=generator)
        sigma = 0.01 * weight.square().mean().sqrt()
        single[name] = loss_at(weight + sigma * one[0]) - base
        pairs[name] = my_tdmpq(loss_at, weight, sigma, one)
    alone, paired = [*alone, single], [*paired, pairs]
figures.seeds(alone, paired)
need = sorted(my_draws(*figures.spread_and_mean(alone, paired, n), 0.1) for n in layers)
in_bowl = (my_draws(spread, 1.0, 0.1) for spread in spreads)
print("bowl: {} single draws, {} pairs; our GPT: {} single".format(*in_bowl, need[12]))

# %% tags=["claims"]
assert base == mean_loss(model, data) and spreads[0] > 30 * spreads[1]
wide, narrow = (
    sum(abs(seeds[0][name] - seeds[1][name]) for name in alone[0])
    for seeds in (alone, paired)
)
assert wide > 3 * narrow, (wide, narrow)
assert any(value < 0 for scores in alone for value in scores.values())
assert min(min(scores.values()) for scores in paired) > 0
assert need[12] > 500

# %% [markdown]
# ## 5 · Noise as strong as rounding
#
# How large should $\sigma$ be? The paper gives no number, though everything depends on it (*Further · How large is σ?*).
# But you know what the noise stands for: rounding to $b$ bits. Rounding makes an error that is spread evenly over one step of
# the grid, and each row has its own step (notebook 04).
#
# **Exercise 4.** Return, for each row, the standard deviation that the error of rounding to `bits` has. The steps are
# `affine_grid(weight, bits).scale`.

# %%
def matched(weight, bits):
    """Weight (out, in) -> standard deviation of the rounding error per row (out, 1)."""
    ### BEGIN SOLUTION
    return affine_grid(weight, bits).scale / math.sqrt(12)
    ### END SOLUTION

# %%
check("12.matched", matched)

# %% tags=["measured"]
my_matched = use("12.matched", matched)
scores = {bits: {} for bits in (2, 3, 4, 8)}  # {bits: {matrix: nats}}
generator = torch.Generator().manual_seed(0)
for name, layer in layers.items():
    weight, loss_at = layer.weight.detach().clone(), loss_with(layer)
    one = torch.randn(1, *weight.shape, generator=generator)
    for bits, found in scores.items():
        found[name] = my_tdmpq(loss_at, weight, my_matched(weight, bits), one)
print({bits: f"{sum(found.values()):.6f}" for bits, found in scores.items()})

# %% tags=["claims"]
package = mixed.tdmpq(model, data, noise="matched", bits=3, draws=1, unit="linear")
first = "blocks.0.attention.qkv"  # the package draws its noise as the loop above does
assert next(iter(layers)) == first
assert math.isclose(package[first], scores[3][first], rel_tol=0.02)
sums = {bits: sum(found.values()) for bits, found in scores.items()}
assert 0.7 < sum(package.values()) / sums[3] < 1.4
assert sums[2] > 5 * sums[3] > 15 * sums[4] > 500 * sums[8] > 0

# %% [markdown]
# What you see is a cost in nats for each width, summed over all matrices. No law such as $4^{-b}$ is needed to guess one
# from the other.
#
# ### And the first order?
#
# What the paper's name promises exists, too: the typical size of $g^\top e$, the first-order change of the loss. A sum of
# independent Gaussian numbers is Gaussian, so for one $\sigma$ it is
# $\mathbb E\,|g^\top e| = \sigma\,\lVert g\rVert\,\sqrt{2/\pi}$. It needs one gradient, and no noise at all.
#
# **Exercise 5.** The same with one $\sigma$ per row.

# %%
def first_order(slope, sigma):
    """Mean of |<slope, e>|: gradient (out, in), sigma (out, 1) -> float."""
    ### BEGIN SOLUTION
    return float((slope * sigma).norm()) * math.sqrt(2 / math.pi)
    ### END SOLUTION

# %%
check("12.first_order", first_order)

# %%
my_first = use("12.first_order", first_order)
slopes = gradients(model, data, layers)  # {name: (out, in)}
share = {bits: {} for bits in scores}
for bits, found in scores.items():
    for name, second in found.items():
        first = my_first(slopes[name], my_matched(layers[name].weight.detach(), bits))
        share[bits][name] = first / (first + abs(second))
figures.shares(share)

# %% tags=["claims"]
middle = {bits: sum(found.values()) / len(found) for bits, found in share.items()}
assert middle[2] < middle[3] < middle[4] < middle[8]
assert middle[3] < 0.5 and middle[8] > 0.8, middle

# %% [markdown]
# ## 6 · Does it predict damage?
#
# The first order falls with $\sigma$, the second with $\sigma^2$. So at 2 and 3 bits most of the change is second order, which
# your score knows. At 8 bits it is slope, which no average over noise can know (*Further · Rounding is one draw*).
#
# Now the test, on text that the score has not seen. The measure has no slope: the KL divergence from the original's predictions
# is smallest at the original weights. Each matrix alone at 3 bits, rounded to nearest and by GPTQ.
#
# **Before you run it.** GPTQ arranges the errors of a row so that they cancel in the outputs (notebook 07). For which of the
# two is the score a better prediction?
#
# <details><summary>After you have run it</summary>
# For nearest, whose errors are much like independent noise: the dots lie near the diagonal, in nats, the larger ones a little below
# it, though nothing was rounded for the score. GPTQ does less damage than the score says nearly everywhere, by a factor that is each matrix's own
# affair, so the order suffers, too.
# </details>

# %% tags=["measured"]
damage, agreement = {}, {}
for method in ("nearest", "gptq"):
    costs = mixed.leave_one_in(
        model, tested, bits=(3,), unit="linear",
        method=method, metric="kl", calibration=fitted,
    )  # fmt: skip
    damage[method] = {name: cost[3] for name, cost in costs.items()}
    agreement[method] = mixed.rank_correlation(scores[3], damage[method])
figures.damage(scores[3], damage, agreement)

# %% tags=["claims"]
near, by_gptq = agreement["nearest"].rho, agreement["gptq"].rho
assert near > 0.7 and near > by_gptq, (near, by_gptq)
assert 0.5 < sum(damage["nearest"].values()) / sum(scores[3].values()) < 2
less = [damage["gptq"][name] < damage["nearest"][name] for name in layers]
assert sum(less) >= 20

# %% [markdown]
# ## 7 · Widths at a budget
#
# Your scores are costs per width, so an allocation can spend bytes on them. `mixed.integer_program` finds the best one (your
# `allocate` of notebook 10 comes close). The budget is 3.5 bits, which no uniform model has. The opponent is chance: widths
# from random costs at the same bytes.
#
# **Before you run it.** Will the score beat chance with nearest? With GPTQ?
#
# <details><summary>After you have run it</summary>
# With nearest it does, clearly. With GPTQ the advantage is gone: it is no better than this one draw of chance. The score speaks
# for independent errors, and GPTQ's are anything but. A good correlation is not a good allocation, either: a program spends by
# the <i>ratios</i> of the damage that is really done. (One draw of chance is not much; notebook 13 has more, and uniform widths.)
# </details>

# %% tags=["measured"]
sizes = mixed.packed_sizes(model, (2, 3, 4), "linear")
budget, chosen, rows = mixed.budget_of(sizes, 3.5), {}, {}
chance = mixed.random_scores(model, unit="linear", seed=0)
mine = {name: {bits: scores[bits][name] for bits in (2, 3, 4)} for name in layers}
tables = {"score": mine, "chance": mixed.costs_from_scores(chance, (2, 3, 4))}
for label, costs in tables.items():
    chosen[label] = mixed.integer_program(costs, sizes, budget)
    for method in ("nearest", "gptq"):
        recipe = mixed.recipe_of(chosen[label], method=method)
        rows[label, method] = board.add(f"{label}, {method}", 3.5, recipe)
board

# %% tags=["claims"]
def against(one, other):
    """Added loss of one row minus that of another on the same windows, in nats."""
    first, second = (board.losses[board.rows.index(rows[key])] for key in (one, other))
    return paired_difference(first, second)


gaps = {}
for method in ("nearest", "gptq"):
    gaps[method] = against(("score", method), ("chance", method))
assert abs(rows["score", "gptq"].bytes / rows["chance", "gptq"].bytes - 1) < 0.01
assert gaps["nearest"].high < 0
assert gaps["gptq"].mean > gaps["nearest"].mean + 0.005, gaps

# %% [markdown]
# ## 8 · Bug hunt: a score that measures nothing
#
# The authors' public code (`amitashnanda/Mixed_Precision_Quantization`, version of November 2025) computes TDMPQ from a single
# draw of noise, and the score is the **sum of the logits**. Nothing is subtracted.
#
# A softmax does not mind a number that is added to all logits of a token. So a model that predicts exactly the same may have
# any sum of logits, and any score.
#
# **Exercise 6.** Write the test that catches it. `score(x, targets, weight, noise)` scores a linear classifier with inputs
# `x` `(n, d)`, classes `targets` `(n,)`, `weight` `(V, d)` and logits `x @ weight.T`. Return `True` for a score that does what
# every score of damage must, `False` otherwise. Two demands are enough:
#
# - an invariance: noise that changes **no prediction** scores 0 (up to `1e-6`);
# - its counterpart: **loud** noise, ten times the size of the weights, scores above 0, for the classifier is well trained.
#
# All tensors are float64; `torch.randn_like` makes noise of the same kind.
#
# Your test will meet eight scores: a pair and a KL divergence, which are good; the raw loss, the raw loss over chance, the
# sum of the logits, the growth of that sum, a score with the wrong sign, and one that is always 0.

# %%
def passes(score, x, targets, weight):
    """Whether a score(x, targets, weight, noise) -> float deserves the name: bool."""
    ### BEGIN SOLUTION
    unheard = weight[:1].expand_as(weight)  # each class gets the same row
    loud = 10 * torch.randn_like(weight)
    still = abs(score(x, targets, weight, unheard)) < 1e-6
    return still and score(x, targets, weight, loud) > 0
    ### END SOLUTION

# %%
check("12.test", passes)

# %% [markdown]
# ## 9 · Your own file, with your widths
#
# Now your file gets the widths that your score chose. As in notebook 10, `encode` is told the name of the matrix; the width is
# stored with it.

# %%
def encode(weight, hessian, name):
    """What is stored of one matrix: codes by GPTQ, at the width of your score."""
    bits = chosen["score"][name]
    grid = quant.affine_grid(weight, bits)
    codes = quant.pack(quant.gptq(weight, grid, as_stats(hessian)), bits)
    stored = {"codes": codes, "scale": grid.scale.half()}
    stored["zero"] = grid.zero_point.to(torch.uint8)
    return stored | {"bits": torch.tensor([bits], dtype=torch.uint8)}


def decode(stored, shape):
    """The weight back."""
    codes = quant.unpack(stored["codes"], int(stored["bits"]), shape[1])
    return stored["scale"].float() * (codes - stored["zero"].float())

# %% tags=["measured"]
own_file("12 · widths by noise", encode, decode)
own_files()

# %% tags=["claims"]
name = "blocks.2.mlp.up"
weight = layers[name].weight.detach()
again = decode(encode(weight, torch.eye(192), name), weight.shape)
assert (again - weight).square().mean() < weight.var() / 4

# %% [markdown]
# ## Summary
#
# - Noise on weights makes the loss grow by $\tfrac12\sigma^2\,\mathrm{tr}(H)$ on average: the **second** order. The slope
#   averages out, and an antithetic pair takes it out at once.
# - One draw without its mirror image is mostly slope: its ranking changes with the seed.
# - Noise that is matched to the rounding of each row predicts the damage of rounding to nearest in nats.
# - Real rounding is a single draw: slope and bend. At 8 bits it is nearly all slope, and there is nothing to rank.
# - GPTQ's errors are not independent, so the score is a worse guide for the files that one would ship.
# - A score needs a test that can fail: an invariance, and a loud case. "More sensitive layers score higher" cannot, because
#   nobody knows which they are.
#
# **13 · Mixed-precision showdown** puts all scores of notebooks 10 to 12 side by side at equal bytes.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further · Rounding is one draw
#
# **Adds** what the slope does to the damage of real rounding.
#
# Rounding is **one draw without its mirror image**. Round one matrix at a time, on the same text, and see what the loss does.
# The slope term is known, too: $\langle g, \Delta W\rangle$ for the real change $\Delta W$. So it can be taken out.
#
# **Before you run it.** If you round a matrix to 8 bits, the loss on this text may even fall. For how many of the 24 does it?
#
# <details><summary>After you have run it</summary>
# For about half: up or down is a coin flip. There is nothing to rank at 8 bits. At 3 bits the slope still moves each dot, and
# the loss of a few matrices falls even there. Without the slope the dots follow the diagonal: what the score predicts is the
# bend.
# </details>

# %%
rounded, bent = {3: {}, 8: {}}, {}
for name, layer in layers.items():
    weight, loss_at = layer.weight.detach().clone(), loss_with(layer)
    for bits in rounded:
        grid = affine_grid(weight, bits)
        change = grid.decode(quant.nearest(weight, grid)) - weight
        rounded[bits][name] = loss_at(weight + change) - base
        if bits == 3:
            bent[name] = rounded[3][name] - float((slopes[name] * change).sum())
figures.rounding(scores, rounded, bent)

# %% tags=["claims"]
assert 4 <= sum(value < 0 for value in rounded[8].values()) <= 20
assert 0.6 < sum(bent.values()) / sum(scores[3].values()) < 1.6
follows = mixed.rank_correlation(scores[3], bent).rho
assert follows > 0.7 and follows > mixed.rank_correlation(scores[3], rounded[3]).rho

# %% [markdown]
# ## Further · How large is σ?
#
# **Adds** the range in which noise of a relative size measures the bend.
#
# The paper writes $\mathcal N(0,\cdot)$ and no variance. Take one matrix and noise from a hundred-thousandth of its size to
# nearly all of it.

# %%
steps = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.8)
layer = layers["blocks.0.mlp.up"]
weight, loss_at = layer.weight.detach().clone(), loss_with(layer)
size = float(weight.square().mean().sqrt())
one = torch.randn(1, *weight.shape, generator=torch.Generator().manual_seed(0))
exact = deepcopy(model).double()


@torch.no_grad()
def exactly(weight64):
    """The loss in float64 with that weight in the matrix."""
    exact.get_submodule("blocks.0.mlp.up").weight.copy_(weight64)
    return mean_loss(exact, data)

# %%
in_32 = {step: my_tdmpq(loss_at, weight, step * size, one) for step in steps}
single = {step: loss_at(weight + step * size * one[0]) - base for step in steps}

# %%
w64, one64 = weight.double(), one.double()
in_64 = {step: my_tdmpq(exactly, w64, step * size, one64) for step in steps[:2]}

# %% [markdown]
# **Before you run it.** What goes wrong at very small σ? At very large?
#
# <details><summary>After you have run it</summary>
# Small: the growth falls with σ² and drowns in the rounding of the loss itself, a float32; the ranking that comes out is that
# of rounding errors. In float64 the formula is back. Large: the fourth order is no longer small, and the model is no longer
# the model. In between, from a hundredth to a tenth, the pair follows ½ σ² tr(H).
# </details>

# %%
bend = {step: in_64[1e-4] * (step / 1e-4) ** 2 for step in steps}
one_step = float(torch.nextafter(torch.tensor(base), torch.tensor(9.0))) - base
lines = {"σ² × the bend, from float64": bend, "single draw": single}
figures.sweep(lines | {"pair, float32": in_32, "pair, float64": in_64}, one_step)

# %% tags=["claims"]
assert one_step > 100 * bend[1e-5]
assert abs(in_64[1e-5] / bend[1e-5] - 1) < 0.1
assert all(0.6 < in_32[step] / bend[step] < 1.6 for step in (1e-2, 1e-1))
assert in_32[0.8] > 1.5 * bend[0.8]

# %% [markdown]
# Other matrices have other limits: look before you trust a default. And the authors' noise of standard deviation 1 is several
# times as large as these weights: it lies beyond the right end of this picture.

# %% tags=["claims"]
assert size < 0.5

# %% [markdown]
# ## Further · An old acquaintance: HAWQ-V2
#
# **Adds** the same number by a way that disturbs nothing.
#
# HAWQ-V2 (2019) gives a layer the cost $\frac{\mathrm{tr}(H)}{n}\,\lVert Q(W)-W\rVert^2$: mean curvature times the power of
# the rounding error. With Taylor's ½ it is in nats. One step $\Delta_b$ makes $\lVert Q(W)-W\rVert^2\approx
# n\,\Delta_b^2/12$, so it is the expectation of TDMPQ with matched noise, to second order. The trace comes from Hutchinson's
# method: differentiate twice, and average $v^\top Hv$ over random signs $v$.

# %%
seeds = range(pick(ci=2, lab=3, full=32))
traces = [mixed.hessian_traces(model, data, draws=1, seed=seed) for seed in seeds]
trace = {name: sum(found[name] for found in traces) / len(traces) for name in layers}

# %% [markdown]
# **Before you run it.** Two estimates that share no step: will they agree in order only, or in nats?
#
# <details><summary>After you have run it</summary>
# In nats, up to the spread of a few draws. At 2 bits TDMPQ is above: the noise is so large that the fourth order has begun.
# What TDMPQ has for itself: forward passes only, so it runs where a second derivative does not fit into memory. What HAWQ-V2
# has: no σ to choose, and all layers at once.
# </details>

# %%
costs = {bits: {} for bits in (2, 3, 4)}
for name, layer in layers.items():
    weight = layer.weight.detach()
    for bits in costs:
        grid = affine_grid(weight, bits)
        error = grid.decode(quant.nearest(weight, grid)) - weight
        costs[bits][name] = trace[name] / 2 * float(error.square().mean())
figures.hawq(costs, scores)

# %% tags=["claims"]
for bits in (3, 4):
    assert 0.5 < sum(scores[bits].values()) / sum(costs[bits].values()) < 2
    assert mixed.rank_correlation(scores[bits], costs[bits]).rho > 0.6
assert sum(scores[2].values()) > sum(costs[2].values())

# %% [markdown]
# ## Further · What the paper leaves open
#
# **Adds** the choices that a reader of equations 9 to 11 has to make, and two exercises.
#
# | in the paper | question | our reading |
# |:--|:--|:--|
# | "first-order Taylor" | the first order averages to nothing | the second order; pairs take the slope out |
# | noise without a variance | it decides everything | matched to rounding, or relative |
# | the *raw* loss under noise | where is the variation? | subtract the loss without noise |
# | sum of batch means ÷ samples | which unit? | mean over tokens |
# | "the first parameter of the layer" | which one is that? | all matrices |
# | text: perturb *inputs*; equation 9: *weights* | two methods | weights |
#
# **Exercise 7.** Without the baseline each layer's score is larger by the same number. Which of these changes?
#
# - a) the order of the layers
# - b) the clusters that K-means makes of the scores
# - c) terciles: the highest third, the middle third, the lowest third
# - d) the widths that an integer program chooses with costs proportional to the scores

# %%
### BEGIN SOLUTION answer = ...
answer = "d"
### END SOLUTION

# %%
check("12.raw", answer)

# %% tags=["claims"]
raw = {name: score + base for name, score in scores[3].items()}
assert mixed.cluster_bits(raw) == mixed.cluster_bits(scores[3])
assert mixed.quantile_bits(raw) == mixed.quantile_bits(scores[3])

# %% [markdown]
# The "first parameter" of a decoder layer of Hugging Face's OPT is `self_attn.k_proj.weight`, one matrix of six. In our block
# it is a gain: 192 numbers that nobody quantises. <!-- claim: CELL assert len(gain) == 192 -->
#
# **Exercise 8.** Return the name of the first *matrix* of any block, as `named_parameters` has it. Convolutions count.

# %%
def first_matrix(block):
    """Name of the first parameter with at least two dimensions: str."""
    ### BEGIN SOLUTION
    named = block.named_parameters()
    return next(name for name, parameter in named if parameter.dim() >= 2)
    ### END SOLUTION

# %%
check("12.first", first_matrix)

# %%
my_first_matrix = use("12.first", first_matrix)

# %%
print(my_first_matrix(model.blocks[0]))

# %% tags=["claims"]
gain = next(model.blocks[0].parameters())
assert len(gain) == 192 and gain.dim() == 1

# %% [markdown]
# Three readings of one paper, by the package, with relative noise in pairs: all matrices of a block, its first matrix, and the
# block's inputs (the paper's text).
#
# **Before you run it.** Will they agree on the order of the blocks?
#
# <details><summary>After you have run it</summary>
# No. Block 0 is the least sensitive by its inputs, and among the most by its weights, which is no contradiction: noise on weights is what rounding
# <i>weights</i> does, noise on inputs is what 8-bit <i>activations</i> do (notebook 08). Block 0 reads the embeddings, which
# are small, and what it writes is large. If weights are to be quantised, disturb all that will be.
# </details>

# %%
few, readings = pick(ci=1, lab=1, full=8), {}
for target in ("all", "first", "inputs"):
    readings[target] = mixed.tdmpq(model, data, target=target, draws=few)
figures.readings(readings)

# %% tags=["claims"]
by_weights, by_inputs = readings["all"], readings["inputs"]
assert min(by_inputs, key=by_inputs.get) == "blocks.0"
assert by_weights["blocks.0"] > sum(by_weights.values()) / len(by_weights)

# %% [markdown]
# ## Further · The paper's figure and its clusters
#
# **Adds** the sensitivity of each layer, drawn over the depth, and the three widths that the paper makes of it.
#
# The trace is a sum over matrices, so the score of a block is that of its four matrices added up. Three clusters get 16, 8 and
# 4 bits.

# %%
parts = mixed.parts_of(model)  # {block: {name: layer}}
blocks = {block: sum(scores[3][name] for name in held) for block, held in parts.items()}

# %%
widths = mixed.cluster_bits(blocks)
figures.clusters(blocks, widths)

# %% tags=["claims"]
assert max(blocks, key=blocks.get) == "blocks.0" and widths["blocks.0"] == 16
whole = mixed.tdmpq(model, data, noise="matched", bits=3, draws=1)
assert all(0.4 < blocks[name] / value < 1.6 for name, value in whole.items())

# %% [markdown]
# The paper finds the initial and the final 30 % of the layers more sensitive. <!-- claim: SOURCE arXiv 2412.03599 --> Here the
# first block is the most sensitive, and the last is not. The size that comes out is nobody's choice, and no better than a
# uniform width: notebook 10 has the comparison.

# %% tags=["claims"]
assert blocks["blocks.5"] < max(blocks.values()) / 1.2

# %% [markdown]
# ## Further · One draw changes the order
#
# **Adds** what the seed decides if nobody averages.
#
# Section 4 had two seeds. Add up the four matrices of each block, and cluster each seed by itself, as the paper does.
#
# **Before you run it.** Will the seeds give the same widths, by single draws? And by pairs?
#
# <details><summary>After you have run it</summary>
# With single draws the seed chooses the blocks that get 16 bits, <i>and</i> the size of the file. With pairs it hardly does. A
# method whose result depends on a seed that is not given has not been described.
# </details>

# %% tags=["measured"]
for label, seeds in (("single draws", alone), ("pairs", paired)):
    for found in seeds:
        sums = {f"block {i}": 0.0 for i in range(6)}
        for name, growth_of_it in found.items():
            sums[f"block {name[7]}"] += growth_of_it
        print(f"{label:12}", list(mixed.cluster_bits(sums).values()))

# %% tags=["claims"]
agreed = [mixed.rank_correlation(*seeds[:2]).rho for seeds in (alone, paired)]
assert agreed[1] > 0.6 and agreed[1] > agreed[0] + 0.2, agreed

# %% [markdown]
# ## Further · When is a bit worth moving now?
#
# **Adds** the price of 2 bits when you measure it.
#
# By the law of $4^{-b}$ two layers of 3 bits had better take 4 and 2 if one is more than 4 times as sensitive as the other
# (notebook 10). <!-- claim: MATH 4**3 / 4**2 --> But noise of 2 bits does more than the law says: the step is 7/3 times that of
# 3 bits, not twice, and higher orders join in. <!-- claim: MATH (2**3 - 1) / (2**2 - 1) -->
#
# **Exercise 9.** Say that 2 bits cost 10 times as much as 3, and that 4 bits cost a quarter of 3. At least how many times
# as sensitive as the layer that gives a bit must the one that takes it be, for the total cost not to rise?

# %%
### BEGIN SOLUTION times = ...
times = (10 - 1) / (1 - 1 / 4)
### END SOLUTION

# %%
check("12.swap", times)

# %% tags=["measured"]
price = [scores[2][name] / scores[3][name] for name in layers]
print(f"2 bits cost {min(price):.1f} to {max(price):.1f} times as much as 3")

# %% tags=["claims"]
assert sorted(price)[len(price) // 2] > (7 / 3) ** 2

# %% [markdown]
# ## Further · Real text
#
# **Adds** the same model trained on real TinyStories, with three draws of calibration text.
#
# `benchmarks/showdown.py` has measured it: `data/results/tinystories/sensitivity.csv`. TDMPQ is matched to 3 bits with two
# pairs per matrix. "One draw" is the paper's reading: relative noise, the first matrix, no pair.

# %%
shipped = read_results("tinystories/sensitivity")
table = [row for row in shipped if row["granularity"] == "linear"]

# %%
def measured(score, bits=""):
    """{matrix: value} of a score or a damage, first draw of text."""
    kept = [row for row in table if (row["score"], row["bits"]) == (score, bits)]
    return {row["part"]: float(row["value"]) for row in kept if row["seed"] == "0"}

# %% [markdown]
# **Before you run it.** Does anything change with real text?
#
# <details><summary>After you have run it</summary>
# No. With pairs the order of the damage by nearest is nearly right, with one draw it is chance, and with GPTQ's errors the score
# is a worse guide than with nearest's.
# </details>

# %%
found = {}
for score in ("TDMPQ", "TDMPQ, one draw", "TDMPQ, inputs", "random"):
    for method in ("nearest", "gptq"):
        truth = measured(f"damage {method} kl", "3")
        found[f"{score} · {method}"] = mixed.rank_correlation(measured(score), truth)
figures.correlations(found)

# %% tags=["claims"]
rho = {label: value.rho for label, value in found.items()}
assert rho["TDMPQ · nearest"] > 0.7
assert rho["TDMPQ · nearest"] > rho["TDMPQ, one draw · nearest"] + 0.3
assert rho["TDMPQ · gptq"] < rho["TDMPQ · nearest"]
assert found["TDMPQ, one draw · nearest"].low < 0.2

# %% [markdown]
# ## Further · SmolLM2
#
# **Adds** a real language model, 50 times as large as ours. <!-- claim: MATH 134.5 / 2.7 -->
#
# `benchmarks/blocks_smollm2.py noise` puts noise on every third block of SmolLM2-135M, as strong as rounding to 3 bits, in two draws
# with both signs, and rounds each of these blocks alone; all on a few hundred tokens. It takes too long for a notebook; here
# are its rows.
#
# **Before you run it.** Are two pairs per block enough to find the block that suffers most?
#
# <details><summary>After you have run it</summary>
# No. Pairs of two seeds lie closer together than single draws do, as always. But the blocks differ by little more than the seeds,
# and the one that stands out when it is rounded, block 0, does not stand out in the score. A score is a measurement: give it
# enough draws and enough text before you rank by it, and compare it with damage before you believe it.
# </details>

# %%
smol = read_results("noise_smollm2")
figures.smollm2(smol)

# %% tags=["claims"]
ways = {"single": {}, "pair": {}}
for row in smol:
    plus, minus = float(row["plus"]), float(row["minus"])
    ways["single"].setdefault(row["part"], []).append(plus)
    ways["pair"].setdefault(row["part"], []).append((plus + minus) / 2)
apart = {way: sum(abs(a - b) for a, b in found.values()) for way, found in ways.items()}
assert apart["pair"] < 0.8 * apart["single"], apart
cost = {row["part"]: float(row["damage"]) for row in smol}
order = sorted(cost, key=cost.get, reverse=True)
assert len(cost) == 10 and order[0] == "blocks.0"
assert cost["blocks.0"] > 1.5 * cost[order[1]]
assert max(ways["pair"], key=lambda part: sum(ways["pair"][part])) != "blocks.0"

# %% [markdown]
# ## Further · TDMPQ, item by item
#
# **Adds** what the paper has about TDMPQ, and where this course has its counterpart.
#
# | in the paper (arXiv 2412.03599) | here |
# |---|---|
# | equation 9, noise on a parameter | exercise 2; its size: exercise 4 and *How large is σ?* |
# | equation 10, the loss under noise, summed over batches | exercise 2, with the loss without noise subtracted: exercise 7 |
# | equation 11, over the number of samples | mean over tokens, in nats |
# | "first-order Taylor" | exercises 1 and 5: what averages out, and the true first order |
# | text: noise on the inputs | *What the paper leaves open* |
# | sensitivity of each layer, drawn over the depth | *The paper's figure and its clusters*, *SmolLM2* |
# | table 1, sensitivity of the first, middle and last layers | not repeated as printed, since its "standard deviation from mean sensitivity" is not defined; notebook 10 has the segments |
# | clusters, widths 16, 8 and 4 | *The paper's figure and its clusters* |
# | table 2, size, accuracy and perplexity; speed | below, for models that can be had offline; of all methods at once: notebooks 13 and 15 |
# | equations 2 and 3, ratios; equation 4, the objective | of all three methods at once: notebook 13; the objective is not used in the paper, whose methods train nothing |
#
# The table goes by what is shown and not by the numbers of the figures, which we could not look up offline.
#
# Table 2, our rows for TDMPQ (`benchmarks/cptquant.py`): accuracy on IMDB and perplexity on WikiText-2 before (base) and after
# (value), the interval of the change (low, high), how many times smaller the file is than in float32 and float16, and the speed
# of all layers at one token, relative to float32.

# %%
ours = [row for row in read_results("cptquant") if row["method"] == "TDMPQ"]

# %%
shown = ("base", "value", "low", "high", "cr_fp32", "cr_fp16", "speed")
for row in ours:
    print(row["model"], row["task"], *(f"{key} {float(row[key]):.4g}" for key in shown))

# %% tags=["claims"]
assert len(ours) == 3
assert all(1 < float(row["cr_fp16"]) < float(row["cr_fp32"]) for row in ours)

# %% [markdown]
# ## Further · Open challenge
#
# **Adds** a problem without a known best answer.
#
# **Beat chance at its own bytes, with GPTQ.** Ideas: more draws and windows; noise with the covariance that GPTQ's errors have;
# the KL divergence in place of the loss; damage measured while all other matrices are rounded. The score is your added loss
# divided by that of section 7's row "chance, gptq". What stands below are the widths of your TDMPQ.

# %% tags=["measured"]
attempt = rows["score", "gptq"]  # or board.add("mine, gptq", 3.5, mixed.recipe_of(…))
goal = rows["chance", "gptq"]
fits = attempt.bytes <= 1.001 * goal.bytes
ratio = attempt.delta_nats / goal.delta_nats if fits else 9.0

# %% tags=["measured"]
challenge("12.chance", ratio, bronze=0.8, silver=0.75, gold=0.7, by="TDMPQ")

# %% tags=["claims"]
assert ratio > 0.8, ratio

# %% [markdown]
# ## Further reading
#
# - Nanda et al. 2024, *CPTQuant* ([arXiv 2412.03599](https://arxiv.org/abs/2412.03599)), section 3.4 and equations 9 to 11.
# - Dong et al. 2019, *HAWQ-V2: Hessian Aware trace-Weighted Quantization*
#   ([1911.03852](https://arxiv.org/abs/1911.03852)).
# - `nanoq/mixed/sensitivity.py` (`tdmpq`) and `nanoq/mixed/baselines.py` (`hawq`, `first_order`).
