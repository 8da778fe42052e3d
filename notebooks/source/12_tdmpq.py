# %% [markdown]
# # 12 · TDMPQ: disturb it and look
#
# {{colab}}
#
# The third score of the CPTQuant paper (arXiv 2412.03599, "the paper" from here on) is the most direct one: add random
# noise to a layer's weights and see what the loss does. Rounding is a disturbance, too, so the layer that minds noise
# should mind rounding. This notebook finds out **what such noise measures**. The answer is one number that has been
# known by another name for a while.
#
# {{cost_card}}
#
# **You will be able to**
#
# - say what the loss does on average when weights are disturbed: it grows by $\tfrac12\sigma^2\,\mathrm{tr}(H)$;
# - take the slope out of a draw with its mirror image, and say how many draws that saves;
# - choose the size of the noise between float rounding and higher-order terms;
# - split the damage of a real rounding into slope and curvature, and say which of the two a score can know;
# - read a paper's pseudocode for what it leaves open, and write the test that catches a score that measures nothing.
#
# **You need** notebook 04 (grids, $s^2/12$, paired intervals) and notebook 10 (clusters and budgets; the metrics).

# %%
import csv
import math
from copy import deepcopy

import ipywidgets
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import nanoq
from nanoq.files import data_dir
from nanoq.lm.corpus import load_corpus
from nanoq.lm.evaluate import paired_difference, windows
from nanoq.quant import affine_grid, linear_layers, nearest, sample_windows
from nanoq.teach import check, pick, show, use_style
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.plots import COLORS
from nanoq.teach.widgets import live_figure, show_widget

use_style()

# %%
from nanoq.mixed import (
    average_bits,
    cluster_bits,
    compression_ratio,
    costs_from_scores,
    hessian_traces,
    integer_program,
    leave_one_in,
    packed_sizes,
    parts_of,
    quantile_bits,
    random_scores,
    rank_correlation,
    recipe_of,
    tdmpq,
    total,
)
from nanoq.mixed.parts import gradients, mean_loss, restoring_weights

# %% [markdown]
# ### The model and its text
#
# The 2.7-million-parameter GPT of notebook 03 and `tales`, which is **generated** text. Section 10 looks at the same
# model trained on real TinyStories. The scores see a few windows of the training split; damage is measured on windows
# of the test split.

# %%
checkpoint = nanoq.load("tales-2.7m")
corpus = load_corpus(checkpoint.card["corpus"])
model = checkpoint.model
data = sample_windows(checkpoint.tokenizer.encode(corpus.train), 256, pick(ci=2, lab=4, full=16), seed=0)
held_out = windows(checkpoint.tokenizer.encode(corpus.test), 256, pick(ci=4, lab=8, full=64))  # (n, 257)
layers, blocks = linear_layers(model), parts_of(model)  # {name: layer}, {block: {name: layer}}
base = mean_loss(model, data)  # the loss without noise: L(w)
print(len(layers), "linear layers in", len(blocks), "blocks; in each:", [name[9:] for name in blocks["blocks.0"]])

# %% [markdown]
# ## 1 · A valley with a slope
#
# One weight. The curve is the loss as this weight changes; the trained value is at 0, **on the side** of the valley, as
# real weights are: training has stopped somewhere near the bottom, not at it.
#
# - Go a step to the right, and the loss falls. Go the same step to the left, and it rises by more.
# - **Before you run it.** Noise hits one of the two at random. What is the mean of both: better or worse than staying?
#
# <details><summary>Answer</summary>
# Worse. The slope gives to one side what it takes from the other, and cancels in the mean. What is left is the
# bend of the curve: the chord between the two points lies above it.
# </details>

# %%
SLOPE, BEND, QUARTIC = -0.5, 1.0, 0.15


def valley(e):
    """Loss at a distance e from the trained weight."""
    return 1 + SLOPE * e + 0.5 * BEND * e**2 + QUARTIC * e**4


def valley_figure(sigma):
    """Left: one step of size sigma to each side. Right: what a draw, a pair and the theory say of every size."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    axis, sizes = torch.linspace(-1.6, 1.6, 161), torch.linspace(0, 1.5, 151)
    left.plot(axis, valley(axis), color="0.5")
    left.plot([-sigma, sigma], [valley(-sigma), valley(sigma)], "o--", color=COLORS["orange"], lw=1, label="+e and −e")
    left.plot(0, (valley(-sigma) + valley(sigma)) / 2, "D", color=COLORS["blue"], label="their mean")
    left.plot(0, 1, "*", ms=13, color=COLORS["black"], label="trained weight")
    left.set(xlabel="change of the weight", ylabel="loss", ylim=(0.6, 4))
    left.legend(loc="upper center")
    right.plot(sizes, valley(sizes) - 1, color=COLORS["orange"], label="growth at +e")
    right.plot(sizes, (valley(sizes) + valley(-sizes)) / 2 - 1, color=COLORS["blue"], label="mean growth of the pair")
    right.plot(sizes, 0.5 * BEND * sizes**2, color="0.3", ls=":", label="½ σ² × bend")
    right.axvline(sigma, color="0.7", lw=1)
    right.set(xlabel="size of the step σ", ylabel="growth of the loss")
    right.legend()
    return fig

# %%
show(valley_figure(0.8), alt="Left: a valley whose bottom lies to the right of the trained weight; a step to the right "
     "goes down, one to the left goes up, and the mean of the two lies above the trained weight. Right: growth against "
     "the size of the step. The step to the right is below zero at first; the pair's mean follows the dotted parabola "
     "for small steps and rises above it for large ones.")
assert valley(0.4) < 1 < (valley(0.4) + valley(-0.4)) / 2

# %% tags=["measured"]
slider = ipywidgets.FloatSlider(value=0.8, min=0.05, max=1.5, step=0.05, description="sigma")
show_widget(live_figure(valley_figure, sigma=slider),
            alt="A slider for the size of the step redraws the figure above: the two points move apart on the valley, "
                "and the mean of the pair rises above the trained weight, first as a parabola, then faster.")

# %% [markdown]
# Two things to take along:
#
# - A single step says mostly **which way the slope goes**. Here it even says that noise is good.
# - The pair says how much the valley **bends**; for large steps other things mix in.
#
# ## 2 · The formula
#
# Now $n$ weights, and noise $\varepsilon$ whose entries are independent and symmetric about 0 ($\varepsilon$ is as likely as
# $-\varepsilon$), with variance $\sigma^2$. Taylor:
#
# $$L(w+\varepsilon) - L(w) = g^\top\varepsilon + \tfrac12\,\varepsilon^\top H\varepsilon + \dots$$
#
# | term | its mean | why |
# |:--|:--|:--|
# | $g_i\varepsilon_i$ | 0 | up as often as down |
# | $\tfrac12 H_{ij}\varepsilon_i\varepsilon_j$, $i\ne j$ | 0 | independent |
# | $\tfrac12 H_{ii}\varepsilon_i^2$ | $\tfrac12 H_{ii}\sigma^2$ | a square has no sign |
# | third order | 0 | odd, and the noise is symmetric |
# | fourth order | about $\sigma^4$ | small, if σ is |
#
# $$\mathbb{E}\,[\Delta L] = \tfrac12\,\sigma^2\,\mathrm{tr}(H) + O(\sigma^4)$$
#
# **Exercise 12.growth.** The expected growth on a quadratic, where nothing but the second order exists.

# %%
def growth(hessian, sigma):
    """Expected growth of the loss under noise of standard deviation sigma: Hessian (n, n) -> float."""
    ### BEGIN SOLUTION
    return 0.5 * sigma**2 * float(hessian.trace())
    ### END SOLUTION

# %%
check("12.growth", growth)

# %% [markdown]
# **Exercise 12.pair.** The growth from one draw and its mirror image: an **antithetic pair**. `loss_at` gives the loss at
# any weight.

# %%
def pair(loss_at, weight, noise):
    """Mean growth of the loss at weight + noise and weight - noise."""
    ### BEGIN SOLUTION
    return float((loss_at(weight + noise) + loss_at(weight - noise)) / 2 - loss_at(weight))
    ### END SOLUTION

# %%
check("12.pair", pair)

# %% [markdown]
# ### First where it is exact
#
# A quadratic with 50 weights, a slope and a full Hessian. In the mirror image every odd power changes its sign, so the
# slope is gone from each pair, *draw by draw*, not only on average. **Before you run it:** of single draws and
# pairs, which has the wider spread, and does the answer depend on σ?

# %%
generator = torch.Generator().manual_seed(0)
mix = torch.randn(50, 50, generator=generator, dtype=torch.float64)
H = mix @ mix.T / 50  # (50, 50)
g = torch.randn(50, generator=generator, dtype=torch.float64)  # (50,)
unit = torch.randn(20_000, 50, generator=generator, dtype=torch.float64)  # 20,000 draws
spread = {}
for sigma in (0.01, 0.1, 1.0):
    e = sigma * unit
    pairs = 0.5 * ((e @ H) * e).sum(1)  # (20000,): what a pair gives on a quadratic
    singles = e @ g + pairs
    truth = 0.5 * sigma**2 * float(H.trace())
    assert abs(pairs.mean() - truth) < 5 * pairs.std() / len(e) ** 0.5
    assert abs(singles.mean() - truth) < 5 * singles.std() / len(e) ** 0.5
    spread[sigma] = [float(values.std()) / truth for values in (singles, pairs)]

# %% tags=["measured"]
print("spread of one draw, in units of the expected growth")
for sigma, (one, both) in spread.items():
    print(f"sigma {sigma:4}: alone {one:6.2f}, in a pair {both:.2f}")

# %%
assert spread[0.01][0] > 50 * spread[0.01][1] and spread[1.0][0] < 2 * spread[1.0][1]
assert all(abs(both - math.sqrt(2) * H.norm() / H.trace()) < 0.02 for _, both in spread.values())

# %% [markdown]
# - The means agree with the formula for both kinds.
# - The slope is of size $\sigma\lVert g\rVert$, the bend of size $\sigma^2$: **the smaller the noise, the more a single
#   draw is slope**. In a pair the spread is $\sqrt2\,\lVert H\rVert/\mathrm{tr}(H)$ of the mean, whatever σ.
#
# **Exercise 12.draws.** One draw has a standard deviation of `spread` around `mean`. How many draws must be averaged for
# a standard error of `share` times the mean?

# %%
def draws_needed(spread, mean, share):
    """The smallest number of draws that is enough."""
    ### BEGIN SOLUTION
    return math.ceil((spread / (share * mean)) ** 2)
    ### END SOLUTION

# %%
check("12.draws", draws_needed)

# %% [markdown]
# ## 3 · On our GPT
#
# TDMPQ by hand. For each block: draw noise for all its matrices, with σ one hundredth of the matrix's root mean square;
# note the growth of the loss at $w+\varepsilon$ and at $w-\varepsilon$.

# %%
def relative(layers, size=0.01):
    """Sigma of each layer's noise, as a share of its root mean square: {name: ()}."""
    return {name: size * layer.weight.detach().square().mean().sqrt() for name, layer in layers.items()}


@torch.no_grad()
def both_ways(layers, sigma, seed, model=model):
    """Growth of the loss at w + e and at w - e, for noise e on all the layers at once."""
    start, grown = mean_loss(model, data) if model is not checkpoint.model else base, []
    for sign in (1, -1):
        generator = torch.Generator().manual_seed(seed)
        with restoring_weights(layers) as originals:
            for name, layer in layers.items():
                noise = torch.randn(layer.weight.shape, generator=generator).to(layer.weight)
                layer.weight.copy_(originals[name] + sign * sigma[name] * noise)
            grown.append(mean_loss(model, data) - start)
    return grown  # [L(w + e) - L(w), L(w - e) - L(w)]

# %% [markdown]
# Five seeds for all six blocks. The package numbers its draws by seed and block, so the same noise can be drawn here:
# by hand and by `tdmpq`, the same numbers.

# %%
SEEDS = range(pick(ci=2, lab=5, full=20))
drawn = {seed: {block: both_ways(own, relative(own), seed * 1_000_003 + i * 1009)
                for i, (block, own) in enumerate(blocks.items())} for seed in SEEDS}
alone = [{block: plus for block, (plus, _) in growths.items()} for growths in drawn.values()]
paired = [{block: (plus + minus) / 2 for block, (plus, minus) in growths.items()} for growths in drawn.values()]

by_package = tdmpq(model, data, noise="relative", size=0.01, draws=1, antithetic=True, seed=0)
assert all(math.isclose(paired[0][block], by_package[block], rel_tol=1e-3, abs_tol=2e-7) for block in blocks)
print("by hand = tdmpq, for", len(blocks), "blocks")

# %% [markdown]
# **Before you look:** will single draws agree on which block is the most sensitive? Will pairs?

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
for ax, scores, title in zip(axes, (alone, paired), ("single draws", "the same draws in pairs"), strict=True):
    for values in scores:
        ax.plot(range(6), [1e4 * v for v in values.values()], "o-", ms=4, lw=1)
    ax.axhline(0, color="0.4", lw=1)
    ax.set(xlabel="block", title=title)
axes[0].set_ylabel("growth of the loss (10⁻⁴ nats)")
show(fig, alt="Two panels with a line for each seed: growth of the loss for noise on each of six blocks. Left, single "
     "draws: the lines cross wildly, from below zero to above it. Right, pairs: the lines lie close together, highest at "
     "block 0 and falling towards block 5, on a scale several times finer.")
mean_pair = {block: sum(p[block] for p in paired) / len(paired) for block in blocks}
assert max(mean_pair, key=mean_pair.get) == "blocks.0" and min(p[b] for p in paired for b in blocks) > 0
assert max(abs(a[b] - mean_pair[b]) for a in alone for b in blocks) > 2 * max(mean_pair.values())

# %% [markdown]
# The left picture is what an algorithm with one draw sees. It is not a noisy version of the right one: it is mostly
# another quantity, $g^\top\varepsilon$, which knows the slope and the luck of the draw.
#
# ### Against a trace that was computed another way
#
# `hessian_traces` never disturbs a weight: it differentiates twice (Hutchinson: the mean of $v^\top Hv$ over random
# signs $v$ is the trace). If the formula holds, growth ÷ $\tfrac12\sigma^2$ must be the same number. Two layers:

# %%
PAIRS, LAYERS = pick(ci=3, lab=8, full=32), ("blocks.0.mlp.up", "blocks.3.attention.qkv")
hutchinson = [hessian_traces(model, data, draws=1, seed=seed) for seed in range(pick(ci=4, lab=8, full=32))]
trace = {name: sum(t[name] for t in hutchinson) / len(hutchinson) for name in layers}
estimates = {}
for name in LAYERS:
    own = {name: layers[name]}
    sigma = relative(own)[name]
    ways = torch.tensor([both_ways(own, {name: sigma}, seed) for seed in range(PAIRS)]) / (0.5 * sigma**2)  # (P, 2)
    estimates[name] = {"+e alone": ways[:, 0], "−e alone": ways[:, 1], "pairs": ways.mean(1),
                       "Hutchinson": torch.tensor([t[name] for t in hutchinson])}

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
for ax, (name, ways) in zip(axes, estimates.items(), strict=True):
    for i, (values, color) in enumerate(zip(ways.values(), COLORS.values(), strict=False)):
        ax.plot(torch.full_like(values, i), values, "o", ms=5, color=color, alpha=0.6)
    ax.axhline(trace[name], color="0.4", ls="--", lw=1)
    ax.set(xticks=range(4), title=name, xlim=(-0.5, 3.5))
    ax.set_xticklabels(list(ways), rotation=20)
axes[0].set_ylabel("estimate of tr(H)")
show(fig, alt="Two panels of dots for two layers: estimates of the trace from single draws +e and -e, from pairs, and from "
     "Hutchinson's method. Single draws scatter widely around zero, +e and -e as mirror images; pairs and Hutchinson's "
     "draws lie close to one dashed line.")
for name, ways in estimates.items():
    assert 0.4 < float(ways["pairs"].mean()) / trace[name] < 2.5
    assert ways["+e alone"].std() > 3 * ways["pairs"].std()

# %% tags=["measured"]
for name, ways in estimates.items():
    print(name)
    for way, values in ways.items():
        mean = float(ways["pairs"].mean())
        need = math.ceil((float(values.std()) / (0.1 * mean)) ** 2)
        print(f"  {way:10} {float(values.mean()):7.1f}, spread of one {float(values.std()):6.1f}; "
              f"for a standard error of 10 %: {need:,} draws")

# %% [markdown]
# - Two ways that share no step agree within the spread of their draws. **TDMPQ, averaged, is the Hessian's trace times
#   the power of the noise.**
# - Alone, a draw would have to be repeated thousands of times or nearly so; a pair, once or a few times.
# - Hutchinson's single draws spread more than pairs here, because one draw serves all 24 layers at once, and products
#   between layers are noise to each of them. It also costs less: one double backward for all layers, where pairs need two
#   passes for each.

# %% [markdown]
# ## 4 · How large is σ?
#
# The paper writes "$\mathcal N(0,\cdot)$" and no number. It decides everything. **Before you run it:** what goes wrong at
# very small σ? At very large?
#
# <details><summary>Answer</summary>
# Small: the growth falls with σ² and drowns in the rounding of the loss itself, a float32. Large: the fourth order is
# no longer small, and the model is no longer the model.
# </details>

# %%
name = LAYERS[0]
own, rms = {name: layers[name]}, float(relative({name: layers[name]}, 1.0)[name])
sizes = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.4, 0.8)
sweep = {size: torch.tensor([both_ways(own, {name: size * rms}, seed) for seed in range(2)]) for size in sizes}  # (2, 2)
exact = deepcopy(model).double()
own64 = {name: linear_layers(exact)[name]}
in_float64 = {size: torch.tensor([both_ways(own64, {name: size * rms}, seed, exact) for seed in range(2)],
                                 dtype=torch.float64) for size in (1e-5, 1e-4)}
step = float(torch.nextafter(torch.tensor(base), torch.tensor(9.0))) - base  # one step of float32 at this loss
slope = float(gradients(model, data, own)[name].norm())
theory = {size: 0.5 * (size * rms) ** 2 * trace[name] for size in sizes}

# %%
fig, ax = plt.subplots(figsize=(7.5, 4))
ax.plot(sizes, list(theory.values()), ":", color="0.3", label="½ σ² tr(H), Hutchinson")
ax.plot(sizes, [size * rms * slope * math.sqrt(2 / math.pi) for size in sizes], "--", color="0.6", lw=1,
        label="typical slope term")
ax.plot(sizes, [float(sweep[s][:, 0].abs().mean()) for s in sizes], "^", color=COLORS["orange"], label="single draws, |mean|")
ax.plot(sizes, [float(sweep[s].mean(1).mean().abs()) for s in sizes], "o", color=COLORS["blue"], label="pairs, float32")
ax.plot(list(in_float64), [float(v.mean().abs()) for v in in_float64.values()], "s", ms=10, mfc="none",
        color=COLORS["green"], label="pairs, float64")
ax.axhline(step, color=COLORS["vermillion"], lw=1)
ax.text(0.02, step * 1.3, "one step of float32", color=COLORS["vermillion"])
ax.set(xscale="log", yscale="log", xlabel="noise ÷ root mean square of the weights", ylabel="growth of the loss (nats)")
ax.legend(loc="upper left", fontsize=9)
show(fig, alt="Log-log plot of the growth of the loss against the size of the noise. Pairs follow the dotted line of the "
     "theory in the middle; at the left, in float32, they leave it near the level of one float32 step, while pairs in "
     "float64 stay on it; at the right they rise above it. Single draws follow the flatter line of the slope on the left.")
ratio = {size: float(values.mean()) / theory[size] for size, values in sweep.items()}
assert step > 1000 * theory[1e-5] and abs(float(in_float64[1e-5].mean()) / theory[1e-5] - 1) < 0.7
assert 0.5 < ratio[1e-2] < 2 and 0.5 < ratio[1e-1] < 2 and ratio[0.8] > 1.5 * ratio[1e-1]

# %% tags=["measured"]
print(f"one step of float32 at a loss of {base:.4f}: {step:.1e} nats; root mean square of the weights: {rms:.3f}")
for size, value in ratio.items():
    exactly = f", in float64 {float(in_float64[size].mean()) / theory[size]:5.2f}" if size in in_float64 else ""
    print(f"noise {size:7}: pairs ÷ theory = {value:10.2f}{exactly}")

# %% [markdown]
# - Between a hundredth and a tenth of the weights' size the formula holds for this layer: the ratio does not depend on σ,
#   and what it lacks of 1 is the luck of a few draws. Below a thousandth, float32 gives rounding noise, and the *ranking*
#   that comes out is that of rounding errors. In float64 the formula is back.
# - The other layer has other limits: look before you trust a default. And $\mathcal N(0, 1)$ is several times as large as
#   these weights, whose root mean square is printed above: it lies beyond the right end of this picture.

# %% [markdown]
# ## 5 · What the paper leaves open
#
# Equations 9 to 11, in words: add noise $\mathcal N(0,\cdot)$ to the first parameter of a layer; sum the loss over the
# batches; divide by the number of samples.
#
# <!-- claim: CELL def relative(layers, size=0.01) -->
#
# | in the paper | question | our reading |
# |:--|:--|:--|
# | "first-order Taylor" | the first order averages to nothing | second order; pairs take the slope out |
# | noise without a variance | it decides everything (section 4) | relative, 0.01; or matched to rounding (section 6) |
# | the *raw* loss under noise | where is the variation? | subtract $L(w)$ |
# | sum of batch means ÷ samples | unit | mean over tokens |
# | "the first parameter of the layer" | which one is that? | all matrices; `target="first"` for the first matrix |
# | text: perturb *inputs*; equation 9: *weights* | two methods | weights; `target="inputs"` for the text |
#
# ### The raw loss
#
# Without the baseline every layer's score is larger by the same number, $L(w)$.
#
# **Exercise 12.raw.** Which of these changes?
#
# - a) the order of the layers
# - b) the clusters of `cluster_bits`
# - c) the groups of `quantile_bits`
# - d) the widths that an integer program chooses with costs proportional to the scores

# %%
### BEGIN SOLUTION answer = ...
answer = "d"
### END SOLUTION

# %%
check("12.raw", answer)

# %%
raw = {block: score + base for block, score in mean_pair.items()}
assert cluster_bits(raw) == cluster_bits(mean_pair) and quantile_bits(raw) == quantile_bits(mean_pair)
assert rank_correlation(raw, mean_pair).rho > 0.999
unequal = max(mean_pair.values()) / min(mean_pair.values())
assert unequal > 1.5 and max(raw.values()) / min(raw.values()) < 1.01
print("order, clusters and terciles: the same. Ratios: not.")

# %% tags=["measured"]
print(f"most over least sensitive: growth {unequal:.2f}, raw loss {max(raw.values()) / min(raw.values()):.5f}")

# %% [markdown]
# - For clusters the slip is harmless. (With a *single* draw, too: what makes that ranking worthless is the slope, not
#   the missing baseline.)
# - Where ratios count, as in a budget, the raw loss says that all layers are equally sensitive.
#
# ### The first parameter
#
# In Hugging Face's OPT the first parameter of a decoder layer is `self_attn.k_proj.weight`, the key projection: one of
# six matrices. And in our block?

# %%
for name, parameter in list(model.blocks[0].named_parameters())[:3]:
    print(name, tuple(parameter.shape))

# %% [markdown]
# The gain of the LayerNorm: 192 numbers that nobody quantises.
#
# **Exercise 12.first.** The name of the first *matrix* of any block, as `named_parameters` has it.

# %%
def first_matrix(block):
    """Name of the first parameter with at least two dimensions."""
    ### BEGIN SOLUTION
    return next(name for name, parameter in block.named_parameters() if parameter.dim() >= 2)
    ### END SOLUTION

# %%
check("12.first", first_matrix)

# %% [markdown]
# **Before you run it:** four readings of one paper, the same relative noise of 0.01, in pairs: the gain, the first
# matrix, all matrices, and the block's inputs (the paper's text). Will they agree on the order of the blocks?
# <!-- claim: CELL def relative(layers, size=0.01) -->

# %%
gains = {block: {"gain": model.get_submodule(f"{block}.attention_norm")} for block in blocks}
few = pick(ci=1, lab=1, full=8)
readings = {
    "first parameter (gain)": {block: sum(sum(both_ways(own, relative(own), seed)) / 2 for seed in range(few)) / few
                               for block, own in gains.items()},
    "first matrix": tdmpq(model, data, target="first", draws=few),
    "all matrices": mean_pair,
    "inputs": tdmpq(model, data, target="inputs", draws=few),
}
fig, ax = plt.subplots(figsize=(7, 3.2))
for (label, scores), marker in zip(readings.items(), "v^os", strict=True):
    most = max(scores.values())
    ax.plot(range(6), [score / most for score in scores.values()], marker=marker, label=label)
ax.set(xlabel="block", ylabel="score ÷ its largest", ylim=(0, 1.4))
ax.legend(loc="upper left", ncols=2)
show(fig, alt="Line plot of four scores of six blocks, each divided by its largest. All matrices: highest at block 0 and "
     "falling. Inputs: lowest at block 0, highest at blocks 1 and 2. The first matrix and the gain go their own ways.")
assert min(readings["inputs"], key=readings["inputs"].get) == "blocks.0" == max(mean_pair, key=mean_pair.get)

# %% tags=["measured"]
for label, scores in readings.items():
    order = sorted(scores, key=scores.get, reverse=True)
    print(f"{label:23} {sum(scores.values()):.1e} in all, most to least sensitive: {' '.join(b[-1] for b in order)}")

# %% [markdown]
# - Weights and inputs put block 0 at opposite ends. No contradiction: they are different questions. Noise on weights is
#   what rounding *weights* does; noise on inputs is what 8-bit *activations* do (notebook 08).
# - Why is block 0 calm about its inputs? It reads the embeddings, which are small, and what it writes is large. In the
#   next cell: the root mean square of what each block reads.

# %%
stream = {}
hooks = [block.register_forward_pre_hook(
    lambda _, args, i=i: stream.update({i: float(args[0].square().mean().sqrt())})) for i, block in enumerate(model.blocks)]
mean_loss(model, data)
for hook in hooks:
    hook.remove()
assert stream[1] > 10 * stream[0]
held = [layer.weight.numel() for layer in blocks["blocks.0"].values()]
assert held[0] / sum(held) == 0.25  # the first matrix's share of the weights

# %% tags=["measured"]
print({block: round(size, 2) for block, size in stream.items()})

# %% [markdown]
# - The first matrix holds a quarter of our block's weights, and a smaller share of OPT's; what the others would suffer,
#   it does not know. If weights are to be quantised, disturb **all that will be**.

# %% [markdown]
# ## 6 · Noise that looks like rounding
#
# Relative noise treats all matrices alike. Rounding does not: its step depends on the *range* of each row (notebook 04),
# and a row with one large weight gets wide steps. **Matched** noise has the power that rounding to $b$ bits would have,
# row by row: $\sigma^2 = \Delta_b^2/12$.
#
# **Exercise 12.matched.** σ for each row, from the step of `affine_grid(weight, bits)`: shape `(out, 1)`.

# %%
def matched(weight, bits):
    """Standard deviation of noise that is as strong as rounding to `bits`: (out, in) -> (out, 1)."""
    ### BEGIN SOLUTION
    return affine_grid(weight, bits).scale / math.sqrt(12)
    ### END SOLUTION

# %%
check("12.matched", matched)

# %%
def sigma_of(bits):
    """{layer: (out, 1)} for all layers."""
    return {name: affine_grid(layer.weight.detach(), bits).scale / 12**0.5 for name, layer in layers.items()}


seen = {name: float(sigma.square().mean().sqrt() / layers[name].weight.detach().square().mean().sqrt())
        for name, sigma in sigma_of(3).items()}
widest, finest = max(seen, key=seen.get), min(seen, key=seen.get)
matched_scores = {bits: tdmpq(model, data, noise="matched", bits=bits, draws=1) for bits in (2, 3, 4, 8)}
by_hand = both_ways(blocks["blocks.0"], sigma_of(3), 0)
assert math.isclose(sum(by_hand) / 2, matched_scores[3]["blocks.0"], rel_tol=1e-3)

# %% tags=["measured"]
print(f"matched noise at 3 bits: {seen[finest]:.2f} of the root mean square in {finest}, {seen[widest]:.2f} in {widest}")
for bits in (8, 4, 3, 2):
    print(f"{bits} bits:", "  ".join(f"{score:.5f}" for score in matched_scores[bits].values()))
print("2 bits ÷ 3 bits:", "  ".join(f"{matched_scores[2][b] / matched_scores[3][b]:.1f}" for b in blocks))
print(f"(7/3)² = {(7 / 3) ** 2:.1f}, by the law of σ²")

# %%
assert matched_scores[2]["blocks.0"] > 10 * matched_scores[3]["blocks.0"]

# %% [markdown]
# - The noise is about a quarter of the weights' size at 3 bits, in all layers of this model: here relative and matched
#   noise differ by little more than a factor. A model with outliers in some layers is another matter.
# - From 8 to 4 to 3 bits the growth roughly follows σ². From 3 to 2 it jumps by far more: the step is 7/3 as wide, and 2-bit
#   noise lies between the last two points of section 4's picture, where the pairs rise above the theory <!-- claim: MATH (2**3 - 1) / (2**2 - 1) -->: the trace no
#   longer speaks for the model.
#
# ### How well does it predict real rounding?
#
# On the same text, so that nothing but the noise differs: round one block to nearest, and look at the loss. **Before
# you run it:** will the matched noise be right on average? For each block?

# %%
real = leave_one_in(model, data, bits=(3, 4, 8), metric="loss")  # {block: {bits: growth}}
gradient = gradients(model, data, layers)  # {name: (out, in)}


def slope_term(block, bits):
    """<g, D> for the error D of rounding the block's matrices: the first order of its damage."""
    term = 0.0
    for name in blocks[block]:
        weight = layers[name].weight.detach()
        grid = affine_grid(weight, bits)
        term += float((gradient[name] * (grid.decode(nearest(weight, grid)) - weight)).sum())
    return term


first = {bits: {block: slope_term(block, bits) for block in blocks} for bits in (3, 4, 8)}

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2))
for ax, bits in zip(axes, (3, 4, 8), strict=True):
    unit = 1000
    ax.bar(range(6), [unit * matched_scores[bits][b] for b in blocks], color="0.85", label="matched noise")
    ax.plot(range(6), [unit * real[b][bits] for b in blocks], "o", color=COLORS["vermillion"], label="real rounding")
    ax.plot(range(6), [unit * (real[b][bits] - first[bits][b]) for b in blocks], "D", color=COLORS["blue"],
            label="… without its slope")
    ax.axhline(0, color="0.4", lw=1)
    ax.set(xlabel="block", title=f"{bits} bits")
axes[0].set_ylabel("growth of the loss (0.001 nats)")
axes[2].legend(fontsize=8)
show(fig, alt="Three panels, 3, 4 and 8 bits: bars for the growth that matched noise predicts for each block, circles for "
     "real rounding, diamonds for real rounding minus its slope term. The diamonds lie near the tops of the bars; the "
     "circles are scattered, most of all at 8 bits, where some are below zero.")
ratios = [(real[b][bits] - first[bits][b]) / matched_scores[bits][b] for bits in (3, 4) for b in blocks]
off = [real[b][8] - matched_scores[8][b] for b in blocks]
assert 0.6 < sum(ratios) / len(ratios) < 1.5 and max(map(abs, off)) > 3 * max(matched_scores[8].values())

# %% tags=["measured"]
print("bits  block  real      slope     rest      matched noise")
for bits in (3, 4, 8):
    for block in blocks:
        values = (real[block][bits], first[bits][block], real[block][bits] - first[bits][block])
        print(f"{bits:4} {block[-1]:>6}  {'  '.join(f'{v:+.5f}' for v in values)}  {matched_scores[bits][block]:+.5f}")

# %% [markdown]
# - **Rounding is one draw without its mirror image.** Its damage is slope plus curvature; the noise predicts the
#   curvature, and rather well. The slope term is the luck of this one rounding.
# - At 3 bits the curvature is most of it. At 8 bits the damage *is* the slope: it may be positive or negative, and no
#   average over noise can know it. There is nothing to rank at 8 bits.
# - The KL divergence from the original model has its minimum at the original weights: no slope. Section 10 uses both.
#
# ### The true first order
#
# What the paper's name promises, a *first-order* sensitivity, exists: $|\langle g, \Delta W\rangle|$ for the real change
# $\Delta W$, or its mean under noise. A sum of independent Gaussian numbers is Gaussian, so
#
# $$\mathbb E\,|g^\top\varepsilon| = \sigma\,\lVert g\rVert\,\sqrt{2/\pi}$$
#
# **Exercise 12.first_order.** The same with a σ for each row: gradient `(out, in)`, sigma `(out, 1)`.

# %%
def first_order(slope, sigma):
    """Mean of |<slope, e>| for Gaussian noise e with standard deviation sigma, row by row: float."""
    ### BEGIN SOLUTION
    return float((slope * sigma).norm()) * math.sqrt(2 / math.pi)
    ### END SOLUTION

# %%
check("12.first_order", first_order)

# %%
generator, rounds, hit = torch.Generator().manual_seed(0), 200, {}
for name in LAYERS:
    sigma = sigma_of(3)[name]
    products = torch.stack([(gradient[name] * sigma * torch.randn(gradient[name].shape, generator=generator)).sum()
                            for _ in range(rounds)])
    hit[name] = (float(products.abs().mean()), float((gradient[name] * sigma).norm()) * math.sqrt(2 / math.pi),
                 0.5 * float((sigma**2).mean()) * trace[name])
    assert abs(hit[name][0] / hit[name][1] - 1) < 0.25

# %% tags=["measured"]
for name, (mean, formula, second) in hit.items():
    print(f"{name}: mean |slope term| {mean:.5f}, by the formula {formula:.5f}; curvature term {second:.5f}")

# %% [markdown]
# - It is another quantity than the score: it falls with σ, not σ², needs one gradient and no noise at all, and is zero
#   at the bottom of the valley.
# - A method that is *called* first order and averages many draws measures the second.

# %% [markdown]
# ## 7 · One draw: how often does the order change?
#
# The seeds of section 3 again. Rank correlation between the scores of two seeds: 1 if they agree on the order of the
# blocks, −1 if one is the reverse of the other. (Six blocks are few: of two *random* orders one in ten has a value beyond
# ±0.77.) <!-- claim: TEST tests/mixed/test_metrics.py::test_six_blocks_are_in_order_by_chance_one_time_in_ten -->

# %% tags=["measured"]
for label, scores in (("single draws", alone), ("pairs", paired)):
    rhos = [rank_correlation(a, b).rho for i, a in enumerate(scores) for b in scores[i + 1 :]]
    print(f"{label:12} from {min(rhos):+.2f} to {max(rhos):+.2f}, mean {sum(rhos) / len(rhos):+.2f}")
    for seed, values in enumerate(scores):
        widths = cluster_bits(values)
        sixteen = " ".join(block[-1] for block, bits in widths.items() if bits == 16)
        order = " ".join(block[-1] for block in sorted(values, key=values.get, reverse=True))
        print(f"   seed {seed}: order {order}   16 bits for {sixteen:9} {sum(widths.values()) / 6:.1f} bits on average")

# %%
if len(SEEDS) >= 5:
    between = {key: [rank_correlation(a, b).rho for i, a in enumerate(s) for b in s[i + 1 :]]
               for key, s in (("alone", alone), ("paired", paired))}
    assert min(between["alone"]) < 0 and min(between["paired"]) > 0.5

# %% [markdown]
# With single draws the seed chooses the blocks that get 16 bits, *and* the size of the file. With pairs it hardly does.
# A method whose result depends on an unstated seed has not been described.

# %% [markdown]
# ## 8 · An old acquaintance: HAWQ-V2
#
# HAWQ-V2 (2019) gives a layer the cost $\frac{\mathrm{tr}(H)}{n}\,\lVert Q(W)-W\rVert^2$: mean curvature times the power of
# the rounding error. We add Taylor's ½, so that it is in nats. With one step $\Delta_b$ for the matrix,
# $\lVert Q(W)-W\rVert^2\approx n\,\Delta_b^2/12$, and that is the expectation of TDMPQ with matched noise, to second order.
# With a step for each row it still is, as long as rows with wide steps are not the more curved ones. From the traces of
# section 3:

# %%
hawq = {bits: dict.fromkeys(blocks, 0.0) for bits in (3, 4)}
for bits, costs in hawq.items():
    for block, own in blocks.items():
        for name, layer in own.items():
            weight = layer.weight.detach()
            grid = affine_grid(weight, bits)
            error = grid.decode(nearest(weight, grid)) - weight
            costs[block] += 0.5 * trace[name] / weight.numel() * float(error.square().sum())
fig, ax = plt.subplots(figsize=(5, 3.8))
ax.axline((0.01, 0.01), (0.1, 0.1), color="0.6", ls="--", lw=1)
for (bits, costs), marker in zip(hawq.items(), "os", strict=True):
    ax.plot(list(costs.values()), list(matched_scores[bits].values()), marker, label=f"{bits} bits")
ax.set(xscale="log", yscale="log", xlabel="HAWQ-V2 (nats)", ylabel="TDMPQ, matched noise (nats)")
ax.legend()
show(fig, alt="Log-log scatter plot of six blocks at 3 and at 4 bits: TDMPQ with matched noise against HAWQ-V2. The points "
     "lie along the dashed diagonal, those at 3 bits above it.")
for bits, costs in hawq.items():
    assert all(0.4 < matched_scores[bits][block] / cost < 3 for block, cost in costs.items())

# %% [markdown]
# - Not only the order: the numbers themselves are alike, up to the spread of a few Hutchinson draws. At 3 bits TDMPQ is
#   above: the noise is so large that the fourth order has begun (section 4).
# - What TDMPQ has for itself: forward passes only, so it runs where a second derivative does not fit into memory, and it
#   feels the fourth order. What HAWQ-V2 has: no σ to choose, all layers at once.

# %% [markdown]
# ## 9 · The paper's figure, clusters and bits
#
# Sensitivity by layer for our model, and what the paper does with it: three clusters, 16, 8 and 4 bits.

# %%
scores = matched_scores[3]
clusters, thirds = cluster_bits(scores), quantile_bits(scores)
tint = {16: COLORS["vermillion"], 8: COLORS["orange"], 4: COLORS["sky"]}
fig, ax = plt.subplots(figsize=(7, 3))
for i, block in enumerate(blocks):
    ax.bar(i, scores[block], color=tint[clusters[block]])
    ax.text(i, scores[block], f"{clusters[block]} bits", ha="center", va="bottom")
ax.margins(y=0.15)
ax.set(xlabel="block", ylabel="growth of the loss (nats)", title="TDMPQ, noise matched to 3 bits; 3-means")
show(fig, alt="Bar chart of the sensitivity of six blocks to noise matched to 3 bits, falling from block 0 to block 5, each "
     "bar with the width of its cluster: 16 bits for the most sensitive, 4 for the least.")
assert clusters["blocks.0"] == 16 and clusters["blocks.5"] == 4

# %% tags=["measured"]
sizes = packed_sizes(model, (2, 3, 4, 8, 16))
weights = {block: sum(layer.weight.numel() for layer in own.values()) for block, own in blocks.items()}
for label, widths in (("3-means", clusters), ("terciles", thirds)):
    size, count = total(sizes, widths), sum(weights.values())
    print(f"{label:8} {list(widths.values())}, average {average_bits(widths, weights):.2f} bits; linear layers "
          f"{size:,} bytes: {compression_ratio(4 * count, size):.2f} times against fp32, "
          f"{compression_ratio(2 * count, size):.2f} against fp16")

# %% [markdown]
# - The size is not chosen. It *happens*: two blocks whose scores are close may fall into one cluster or two.
# - A factor of 2 in every ratio against fp32 is the cast to fp16, which costs next to nothing and needs no score.
# - The paper finds the initial and the final 30 % of the layers more sensitive. <!-- claim: SOURCE arXiv 2412.03599 --> Here the first block is the most
#   sensitive, and the last the least.

# %% [markdown]
# ## 10 · Does the score predict damage?
#
# Round one block to nearest and measure, on **held-out** text, the growth of the loss and the KL divergence from the
# original's predictions. Then compare the order. Six blocks are few, and the intervals say so. (But for one: at a correlation
# of exactly 1 the formula has no width. That is not certainty.)

# %%
damage = {metric: leave_one_in(model, held_out, bits=bits, metric=metric)
          for metric, bits in (("loss", (3, 4)), ("kl", (3,)))}
contenders = {"TDMPQ, matched at 3 bits": matched_scores[3], "TDMPQ, relative, all seeds": mean_pair,
              "HAWQ-V2 at 3 bits": hawq[3], "inputs": readings["inputs"], "first matrix": readings["first matrix"],
              "first parameter (gain)": readings["first parameter (gain)"], "random": random_scores(model)}
contenders |= {f"single draw, seed {seed}": alone[seed] for seed in SEEDS}

# %% tags=["measured"]
for metric, bits in (("kl", 3), ("loss", 3), ("loss", 4)):
    truth = {block: costs[bits] for block, costs in damage[metric].items()}
    print(f"damage at {bits} bits, {metric}:", "  ".join(f"{value:.4f}" for value in truth.values()))
    for label, score in contenders.items():
        rho, low, high = rank_correlation(score, truth)
        print(f"   {label:27} rho {rho:+.2f}  ({low:+.2f} to {high:+.2f})")

# %%
truth = {block: costs[3] for block, costs in damage["kl"].items()}
assert rank_correlation(matched_scores[3], truth).rho > 0.4
assert rank_correlation(matched_scores[3], truth).rho > rank_correlation(readings["inputs"], truth).rho

# %% [markdown]
# - With matched noise, and with relative noise averaged over pairs, the order of the KL damage is nearly right. Single
#   draws are anywhere.
# - So is a *random* score: with six blocks its correlation may look respectable. That is why the intervals are so wide,
#   and why the next table has 24 layers.
# - The damage in *loss* contains the slope of one rounding (section 6), the more visibly the more bits there are. A score
#   that averages cannot know that part. At 3 and 4 bits the curvature still decides most of the order on these windows.
#
# ### Real text, every layer
#
# The same model trained on real TinyStories, all 24 linear layers, three draws of calibration text:
# `data/results/tinystories/sensitivity.csv`, made by `benchmarks/showdown.py`. TDMPQ is matched to 3 bits with two pairs;
# "one draw" disturbs by a relative 0.01, once, without a pair.
# <!-- claim: FILE nanoq/mixed/sensitivity.py -->

# %%
with open(data_dir() / "results" / "tinystories" / "sensitivity.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))


def measured(score, seed=0, bits="", granularity="linear"):
    """{layer or block: value} of a score or a damage."""
    key = (granularity, score, str(seed), str(bits))
    return {row["part"]: float(row["value"]) for row in rows
            if (row["granularity"], row["score"], row["seed"], row["bits"]) == key}


real_blocks = [measured("TDMPQ", seed, granularity="block") for seed in range(3)]
assert all(max(scores, key=scores.get) == "blocks.0" for scores in real_blocks)

# %% tags=["measured"]
for seed, values in enumerate(real_blocks):
    print(f"blocks, seed {seed}:", " ".join(f"{v:.4f}" for v in values.values()), list(cluster_bits(values).values()))
real_text = {"TDMPQ": "", "TDMPQ, one draw": "", "TDMPQ, inputs": "", "HAWQ-V2": 3, "random": ""}
truths = {f"{rounding} {metric}": measured(f"damage {rounding} {metric}", bits=3)
          for rounding in ("nearest", "gptq") for metric in ("kl", "loss")}
print("correlation with the damage at 3 bits, 24 layers, seed 0 (95 % interval)")
for label, bits in real_text.items():
    found = [rank_correlation(measured(label, bits=bits), truth) for truth in truths.values()]
    print(f"{label:16}", "  ".join(f"{name}: {r.rho:+.2f} ({r.low:+.2f} to {r.high:+.2f})"
                                   for name, r in zip(truths, found, strict=True)))
for label in ("TDMPQ", "TDMPQ, one draw"):
    rhos = [rank_correlation(measured(label, a), measured(label, b)).rho for a, b in ((0, 1), (0, 2), (1, 2))]
    print(f"{label:16} between seeds:", "  ".join(f"{rho:+.2f}" for rho in rhos))
found = {label: rank_correlation(measured(label), truths["nearest kl"]).rho for label in ("TDMPQ", "TDMPQ, one draw")}
assert found["TDMPQ"] > 0.7 and found["TDMPQ"] > found["TDMPQ, one draw"] + 0.3
assert rank_correlation(measured("TDMPQ"), truths["gptq kl"]).rho < found["TDMPQ"]

# %%
kinds = ["attention.qkv", "attention.out", "mlp.up", "mlp.down"]
fig, ax = plt.subplots(figsize=(7.5, 3.4))
for kind, marker in zip(kinds, "os^D", strict=True):
    names = [f"blocks.{i}.{kind}" for i in range(6)]
    ax.plot([measured("TDMPQ")[n] for n in names], [truths["nearest kl"][n] for n in names], marker, label=kind)
both = list(measured("TDMPQ").values())
ax.axline((min(both), min(both)), (max(both), max(both)), color="0.6", ls="--", lw=1)
ax.set(xscale="log", yscale="log", xlabel="TDMPQ, matched to 3 bits (nats)", ylabel="KL after rounding to 3 bits (nats)",
       title="real TinyStories, 24 layers")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
show(fig, alt="Log-log scatter plot for the model of real TinyStories: the KL divergence after rounding a layer to 3 bits "
     "against its TDMPQ score, for 24 layers of four kinds, with a dashed diagonal.")

# %% [markdown]
# - Block 0 is the most sensitive here, too. The rest of the order is not that of the model of generated text: a
#   sensitivity belongs to a model, not to an architecture. The *clusters*, and with them the size, change with the
#   calibration text, even with pairs.
# - For **nearest** rounding, whose errors are much like independent noise, the order of 24 layers is nearly right, and the
#   points lie along the diagonal: not only the order, the *damage in nats*, without a single rounding. One draw without a
#   pair is chance.
# - For **GPTQ** it is much less right. GPTQ arranges its errors so that they cancel in the outputs: they are anything but
#   independent, and how much a layer gains from that is its own affair (notebook 07).
# - For single layers noise on the inputs is a fair score, too: it acts through that layer's weights alone. Noise on a
#   block's input also travels past the block along the residual path, and disturbs all that follows.
#
# ## 11 · The leaderboard: what is it worth in bytes?
#
# A score is worth what its models are worth **at equal bytes**. Two questions:
#
# - Do the clusters on $\{16, 8, 4\}$ beat a plain uniform width?
# - Under a budget, the bytes of uniform 3 bits, with widths $\{2, 3, 4, 8\}$ for each of the 24 layers and an integer
#   program: does TDMPQ beat uniform, and chance?
#
# Why not block by block? All six have the same size. The program takes the cost at $b$ bits for score × $4^{-b}$.
#
# By that law two blocks of 3 bits had better take 4 and 2 if one is more than **4** times as sensitive as the other
# (notebook 10). But section 6 measured that 2 bits cost about 10 times as much as 3, not 4 times. From 3 to 4 bits let the
# law hold. <!-- claim: CELL matched_scores[2]["blocks.0"] > 10 -->
#
# **Exercise 12.swap.** How many times as sensitive as the block that gives a bit must the one that takes it be now, at
# least, for the sum of the costs to fall?

# %%
### BEGIN SOLUTION ratio = ...
ratio = (10 - 1) / (1 - 1 / 4)
### END SOLUTION

# %%
check("12.swap", ratio)

# %%
sizes = packed_sizes(model, (2, 3, 4, 8))
budget = sum(size[3] for size in sizes.values())
widths = integer_program(costs_from_scores(matched_scores[3], (2, 3, 4, 8)), sizes, budget)
assert max(matched_scores[3].values()) < 4 * min(matched_scores[3].values()) and set(widths.values()) == {3}
print("by block, under the bytes of 3 bits:", list(widths.values()))

# %% [markdown]
# No block is four times as sensitive as another, so the best allocation *is* uniform. By layer there is more to choose.
# One more contender: instead of trusting $4^{-b}$, add noise that is matched to **2** bits, too (section 6: it hurts far
# more than the law says).

# %%
linear = {bits: tdmpq(model, data[:2], noise="matched", bits=bits, draws=1, unit="linear") for bits in (2, 3)}
inside = [sum(linear[3][name] for name in own) for own in blocks.values()]
assert all(0.5 < part / whole < 1.5 for part, whole in zip(inside, matched_scores[3].values(), strict=True))
sizes = packed_sizes(model, (2, 3, 4, 8), "linear")
law = costs_from_scores(linear[3], (2, 3, 4, 8))
asked = {name: {b: cost * 4.0**3 for b, cost in costs.items()} | {2: linear[2][name]} for name, costs in law.items()}
chance = [costs_from_scores(random_scores(model, unit="linear", seed=s), (2, 3, 4, 8)) for s in (0, 1)]
table = {"TDMPQ, law": law, "TDMPQ, 2 bits measured": asked, "random 0": chance[0], "random 1": chance[1]}
chosen = {label: integer_program(costs, sizes, budget) for label, costs in table.items()}
assert all(0.99 * budget < total(sizes, widths) <= budget for widths in chosen.values())
print("the trace is a sum over layers: the scores of four layers add up to about that of their block")

# %% [markdown]
# Both kinds of rounding: nearest, which is what the noise stands for, and GPTQ, which one would ship. **Before you run
# it:** for which of the two will the score pay?

# %% tags=["measured"]
board = Leaderboard("tales-2.7m", windows=pick(ci=8, lab=32, full=None))
board.calibration = board.calibration[:16]  # for GPTQ: 4,096 tokens
contest = {"uniform": dict.fromkeys(sizes, 3)} | chosen
lines = {}
for method in ("nearest", "gptq"):
    for label, widths in contest.items():
        if (method, label) != ("nearest", "TDMPQ, 2 bits measured"):
            lines[method, label] = board.add(f"{label}, {method}", 3, recipe_of(widths, method=method))
lines["uniform 6"] = board.add("uniform, gptq", 6, recipe_of(dict.fromkeys(sizes, 6)))
lines["3-means"] = board.add("TDMPQ, 3-means, gptq", 8, recipe_of(clusters))
board

# %% tags=["measured"]
def against(one, other):
    """What a row loses against another, on the same windows."""
    return paired_difference(*(board.losses[board.rows.index(lines[key])] for key in (one, other)))


for method in ("nearest", "gptq"):
    for label in list(chosen):
        if (method, label) in lines:
            d = against((method, label), (method, "uniform"))
            print(f"{method:8} {label:23} minus uniform: {d.mean:+.4f} nats ({d.low:+.4f} to {d.high:+.4f})")
d = against("3-means", "uniform 6")
print(f"3-means minus uniform 6 bits: {d.mean:+.4f} nats ({d.low:+.4f} to {d.high:+.4f}), "
      f"{lines['3-means'].bytes - lines['uniform 6'].bytes:+,} bytes")
for label, unit in (("fp32", 1), ("fp16", 2)):
    print(f"3-means, whole file against {label}: {board.rows[0].bytes / unit / lines['3-means'].bytes:.2f} times")
for label, widths in chosen.items():
    print(f"{label:23}", " ".join(map(str, widths.values())))

# %%
assert lines["uniform 6"].bytes < lines["3-means"].bytes
if len(board.losses[0]) >= 32:
    nats = {key: row.delta_nats for key, row in lines.items()}
    assert nats["uniform 6"] < nats["3-means"]
    for s in (0, 1):
        assert against(("nearest", f"random {s}"), ("nearest", "TDMPQ, law")).low > 0
    assert against(("gptq", "TDMPQ, law"), ("gptq", "uniform")).low > 0
    assert nats["gptq", "TDMPQ, 2 bits measured"] < nats["gptq", "TDMPQ, law"]
    assert min(nats["gptq", f"random {s}"] for s in (0, 1)) < nats["gptq", "TDMPQ, law"]

# %% [markdown]
# **Verdict, for this model and generated text**
#
# - The clusters on $\{16, 8, 4\}$ gain nothing over uniform 6 bits, which is a *smaller* file; if the two differ in loss, it
#   is in favour of uniform. 16 bits where 8 are enough already, 4 where they cost: no fault of the score; it is what fixed
#   widths without a budget do.
# - With **nearest** rounding, TDMPQ under a budget is far better than chance. Against *uniform* the gain is small; the
#   interval above says whether it is there at all.
# - With **GPTQ** the same widths lose to uniform, and one of the two random allocations is better. The score speaks
#   for independent errors, and the law $4^{-b}$ is too kind to 2 bits: the program buys them gladly.
# - With noise that is matched to 2 bits it stays near uniform, and wins nothing.
# - A good rank correlation is not a good allocation: a program spends by *ratios*, of the errors that really occur.

# %% [markdown]
# ## 12 · Audit: a score that measures nothing
#
# The authors' public code (`amitashnanda/Mixed_Precision_Quantization`, version of November 2025) computes TDMPQ so:
# noise $\mathcal N(0, 1)$ on the first parameter; score: the **sum of the logits**; no baseline.
#
# **Before you run it.** Logits enter the loss through a softmax, which does not mind a number added to all of them. What
# does that say about their sum?

# %%
@torch.no_grad()
def sum_of_logits(layers, seed, shift=0.0, sigma=1.0):
    """Sum of the logits on the data, with noise on the layers; `shift` is added to every logit."""
    generator = torch.Generator().manual_seed(seed)
    with restoring_weights(layers):
        for layer in layers.values():
            layer.weight.add_(sigma * torch.randn(layer.weight.shape, generator=generator))
        return float((model(data[:, :-1]) + shift).double().sum())


first_matrices = {block: dict(list(own.items())[:1]) for block, own in blocks.items()}
theirs = [{block: sum_of_logits(own, seed) for block, own in first_matrices.items()} for seed in (0, 1)]
clean = sum_of_logits({}, 0)
moved = sum_of_logits(first_matrices["blocks.0"], 0, shift=1.0) - theirs[0]["blocks.0"]
tokens = data[:, :-1].numel()
vocabulary = model.config.vocab_size
assert abs(moved / (tokens * vocabulary) - 1) < 1e-3
shifted = model(data[:, :-1]).detach() + 1.0
moved_loss = float(F.cross_entropy(shifted.flatten(0, 1), data[:, 1:].flatten())) - base
assert abs(moved_loss) < 1e-5
if len(data) >= 4:
    assert all(rank_correlation(values, truth).rho < 0.5 for values in theirs)
print("a shift of 1 moves the sum of the logits by 1 for every logit, and the loss by nothing")

# %% tags=["measured"]
for seed, values in enumerate(theirs):
    found = rank_correlation(values, truth)
    order = " ".join(block[-1] for block in sorted(values, key=values.get, reverse=True))
    print(f"seed {seed}: {'  '.join(f'{v:,.0f}' for v in values.values())}; order {order}; "
          f"rho with the KL damage {found.rho:+.2f}")
print(f"without any noise: {clean:,.0f}")

# %% [markdown]
# The number is neither a loss nor a growth. A model may give all its logits any common offset, and the score follows the
# offset; here its order is no better than the wrong way round.
#
# **Exercise 12.test.** Write the test that catches it. `score(x, targets, weight, noise)` scores a linear classifier:
# inputs `x` (n, d), classes `targets` (n,), `weight` (V, d), logits `x @ weight.T`. Return `True` for a score that holds
# what every score of damage must, `False` otherwise. Two demands are enough:
#
# - noise that changes **no prediction** scores 0: which noise moves all logits of a sample by the same number?
# - **loud** noise, ten times the size of the weights, scores above 0: the classifier is well trained.
#
# Seven scores will be handed to it: the pair of section 2, a KL divergence, the raw loss, the sum of the logits, the
# growth of that sum, a score with the wrong sign, and one that is always 0.

# %%
def passes(score, x, targets, weight):
    """Whether a score(x, targets, weight, noise) -> float deserves the name."""
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(1, weight.shape[1], generator=generator, dtype=weight.dtype).expand_as(weight)
    loud = 10 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return abs(score(x, targets, weight, same)) < 1e-6 and score(x, targets, weight, loud) > 0
    ### END SOLUTION

# %%
check("12.test", passes)

# %% [markdown]
# - Neither demand needs a trained language model, a data set or a minute. The first is an **invariance** (what
#   must not move the score), the second its counterpart (what must).
# - A test that only looks whether "more sensitive layers get higher scores" cannot fail, for nobody knows which they are.

# %% [markdown]
# ## What to keep
#
# - Noise on weights makes the loss grow by $\tfrac12\sigma^2\,\mathrm{tr}(H)$ on average. The slope averages out;
#   **antithetic pairs** take it out at once.
# - One draw without a pair is mostly slope: its ranking changes with the seed.
# - σ between float noise and the fourth order: sweep it once. Matched noise, $\Delta_b^2/12$, speaks for rounding to
#   $b$ bits.
# - TDMPQ, averaged, is HAWQ-V2's trace times the power of the noise: forward passes instead of second derivatives.
# - Real rounding is a single draw: slope plus curvature. At 8 bits it is all slope, and there is nothing to rank.
# - "First parameter", inputs or weights, raw loss or growth: readings of one paper that give different orders. Say which.
# - Order is not cost: measure at the width that you are going to use, and compare at equal bytes with uniform and chance.
#
# ## Open challenge
#
# **Beat uniform 3 bits at its bytes with a disturbance.** Ideas: matched noise at every width in `{2, 3, 4}` with more
# windows; noise with the covariance that GPTQ's errors have; the KL divergence in place of the loss (`loss_fn`). The next
# cell prints what to beat.

# %% tags=["measured"]
goal = lines["gptq", "uniform"]
print(f"to beat: {goal.bytes:,} bytes, {goal.delta_nats:+.4f} nats")

# %% [markdown]
# ## What next
#
# - **13 · Mixed-precision showdown**: every score of notebooks 10 to 12 and the baselines, against the measured
#   damage and at equal bytes.
#
# ## Further reading
#
# - Nanda et al. 2024, *CPTQuant* ([arXiv 2412.03599](https://arxiv.org/abs/2412.03599)), section 3.4 and equations 9 to 11.
# - Dong et al. 2019, *HAWQ-V2: Hessian Aware trace-Weighted Quantization*
#   ([1911.03852](https://arxiv.org/abs/1911.03852)).
# - `nanoq/mixed/sensitivity.py` (`tdmpq`) and `nanoq/mixed/baselines.py` (`hawq`, `first_order`).
