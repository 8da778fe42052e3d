# %% [markdown]
# # 13 · Mixed-precision showdown
#
# {{colab}}
#
# Notebooks 10 to 12 took CMPQ, PMPQ and TDMPQ at their word. Now they meet each other, the baselines that a reviewer
# would ask for, and two opponents without any idea: **uniform** widths and **random** ones. Every model gets the same
# bytes, read from its file. Half of this notebook is the race. The other half is the craft behind it: what counts as
# evidence, and which test would have caught each of the bugs that such studies have.
#
# {{cost_card}}
#
# **You will be able to**
#
# - say what a fair comparison of mixed-precision methods needs, and decide one by a rule fixed beforehand;
# - read a rank correlation with its interval, and find what hides behind it;
# - explain when unequal widths can win at all, and when uniform is hard to beat;
# - find out how far the damages of layers add up, on which every integer program relies;
# - check a paper's numbers for what is possible, and write tests that catch eight bugs found in print and in code;
# - choose widths for a model of your own.
#
# **You need** notebook 07 (GPTQ) and notebooks 10 to 12.

# %%
import csv
import math
import warnings
from copy import deepcopy

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.lines import Line2D
from torch import nn

from nanoq.files import data_dir
from nanoq.lm.evaluate import paired_difference
from nanoq.lm.evaluate import windows as cut
from nanoq.quant import sample_windows
from nanoq.quant.quantize import linear_layers, quantize_model
from nanoq.teach import check, pick, show, use_style
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.plots import COLORS
from nanoq.teach.widgets import live_figure, show_widget

use_style()
warnings.filterwarnings("ignore", message=".*samples are few|.*calibration tokens are few")

# %%
from nanoq.mixed import (
    cluster_bits,
    cmpq,
    compression_ratio,
    costs_from_scores,
    gptq_error,
    integer_program,
    leave_one_in,
    packed_sizes,
    parts_of,
    pmpq,
    random_scores,
    rank_correlation,
    recipe_of,
    tdmpq,
    total,
    weight_mse,
)

# %%
from nanoq.teach.showdown import (
    GROUPS,
    Correlation,
    Measured,
    Sensitivity,
    beats,
    by_budget,
    chance,
    mean_delta,
    plot_correlations,
    plot_showdown,
    read_rows,
    uniform_at,
    values_of,
)

# %% [markdown]
# ## 1 · The question
#
# `benchmarks/showdown.py` has measured for some hours what this notebook reads: our 2.7-million-parameter model, trained
# once on **real** text (TinyStories) and once on **generated** text (tales). Each result is a file of one line per
# model. Where a number below comes from generated text, it says so.

# %%
KINDS = {"tinystories": "real text", "tales": "generated text"}
folders = {name: data_dir() / "results" / name for name in KINDS}
corpora = [name for name, folder in folders.items() if (folder / "showdown.png").is_file()]  # which is written last
sensitivity = {name: read_rows(folders[name] / "sensitivity.csv", Sensitivity) for name in corpora}
correlation = {name: read_rows(folders[name] / "correlations.csv", Correlation) for name in corpora}
showdown = {name: read_rows(folders[name] / "showdown.csv", Measured) for name in corpora}
parts = list(values_of(sensitivity["tinystories"], "linear", "random"))  # the 24 layers, in the order of the model
for name in corpora:
    print(f"{name}: {len(sensitivity[name])} scores, {len(correlation[name])} correlations, "
          f"{len(showdown[name])} models")
assert len(parts) == 24

# %% [markdown]
# Two models of the real text. Both get as many bytes as the mean of a uniform 2-bit and a uniform 3-bit model. One of
# the two was told by a method which layers matter. The widths of the other are pure chance.

# %%
def widths_of(name, method, budget, seed=0):
    """The widths that a method chose, layer by layer."""
    return next(row.widths for row in by_budget(showdown[name], method)[budget] if row.seed == seed)


SHORT = [f"{part.split('.')[1]} {part.split('.')[-1]}" for part in parts]  # "0 qkv": block and kind


def strip(ax, lines):
    """Widths as a coloured table: a line for each name, a column for each layer."""
    table = [[math.log2(width) for width in widths] for widths in lines.values()]
    ax.imshow(table, vmin=0.5, vmax=3.2, aspect="auto")
    for y, widths in enumerate(lines.values()):
        for x, width in enumerate(widths):
            ax.text(x, y, width, ha="center", va="center", color="white" if width < 4 else "black", size=9)
    ax.set(yticks=range(len(lines)), yticklabels=lines, xticks=range(24))
    ax.set_xticklabels(SHORT, rotation=90, size=8)
    ax.grid(visible=False)


fig, ax = plt.subplots(figsize=(8, 2))
strip(ax, {"A": widths_of("tinystories", "random", 2.5), "B": widths_of("tinystories", "GPTQ error", 2.5)})
ax.set_title("same bytes, other widths (bits; block and layer below)", fontsize=10)
show(fig, alt="Two rows of 24 layers coloured by width: both mix 2, 3 and 4 bits, in different places. The layers are "
     "named by block and kind below.")

# %% [markdown]
# **Before you go on**, write your predictions down:
#
# 1. Which of A and B is chance? How many times more does it lose?
# 2. CMPQ (unlike the others), PMPQ (hurt by pruning), TDMPQ (hurt by noise): which one predicts best what *rounding* a
#    layer does?
# 3. Will the best method beat a uniform 3-bit model at the bytes of a uniform 3-bit model? By how much?
# 4. Are the first and the last layers more sensitive than the middle?
#
# <details><summary>Answers</summary>
# First: A is chance, and how much it costs stands below the table of section 3. Second: none of the three for GPTQ, two of
# them for naive rounding (section 2). Third: no (section 3). Fourth: it depends on something that the question does not name (section 4).
# </details>
#
# ### What counts as evidence
#
# | it needs | because |
# |---|---|
# | **equal bytes**, read from the file | a method that spends more bits loses less, and has shown nothing |
# | **controls**: uniform and random | "better than the unquantised paper's rival" is not better than no idea at all |
# | **paired intervals** on the same windows | else the luck of the windows is larger than the effect (notebook 07) |
# | **several calibration seeds** | scores and GPTQ both see only a little text; would other text choose otherwise? |
# | **the same rounding for all** (GPTQ) | else the rounding wins, and the widths get the praise |
#
# Every row of `showdown.csv` is the loss added to the original, on the same 128 held-out windows, with its 95 %
# interval; three rows for each method and budget, one for each calibration seed (generated text: one seed).
# <!-- claim: FILE benchmarks/showdown.py -->
#
# **Exercise 13.verdict.** `a` and `b` are two methods at one budget, each a list with a triple `(added loss, low, high)`
# for each seed. Return `"a"` if in *every* seed the interval of a lies wholly below that of b, `"b"` if it is the other
# way round, else `"open"`.

# %%
def verdict(a, b):
    """Who is surely better: "a", "b", or "open"."""
    ### BEGIN SOLUTION
    def wins(mine, theirs):
        return all(x[2] < y[1] for x, y in zip(mine, theirs, strict=True))
    return "a" if wins(a, b) else "b" if wins(b, a) else "open"
    ### END SOLUTION

# %%
check("13.verdict", verdict)

# %% [markdown]
# - The rule is strict. Both intervals are of differences from the same original on the same windows, so the difference
#   between the two methods is surer than each (section 6 takes it directly). What passes the rule is safe.
# - In `nanoq` it is `nanoq.teach.showdown.beats`.
#
# ## 2 · Does a score know which layer will be hurt?
#
# The **measured damage** of a layer: quantise it alone, leave the rest as it is, and see what becomes of the
# predictions on held-out text. We take the KL divergence from the original's predictions, which has no luck of labels
# in it, after GPTQ at 3 bits. Two scores against it, on real text:

# %%
STYLE = {"attention.qkv": ("blue", "o"), "attention.out": ("vermillion", "D"), "mlp.up": ("green", "^"),
         "mlp.down": ("orange", "s")}  # fmt: skip


def damage_of(name, rounding="gptq", metric="kl", bits=3, granularity="linear"):
    """The measured damage {part: nats}."""
    table = values_of(sensitivity[name], granularity, f"damage {rounding} {metric}")
    return {part: costs[bits] for part, costs in table.items()}


def score_of(name, score, bits=3, granularity="linear"):
    """A score {part: value}, the mean of the seeds; at `bits` if it depends on the width."""
    tables = [t for seed in range(3) if (t := values_of(sensitivity[name], granularity, score, seed))]
    return {part: sum(t[part][bits] if isinstance(t[part], dict) else t[part] for t in tables) / len(tables)
            for part in tables[0]}


def scatter(ax, x, y, **labels):
    """A point for each layer, coloured and shaped by its kind."""
    for kind, (color, marker) in STYLE.items():
        mine = [part for part in x if part.endswith(kind)]
        ax.plot([x[p] for p in mine], [y[p] for p in mine], marker, color=COLORS[color], label=kind)
    ax.set(yscale="log", **labels)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
truth = damage_of("tinystories")
for ax, score in zip(axes, ("CMPQ, mean", "GPTQ error"), strict=True):
    scatter(ax, score_of("tinystories", score), truth, xlabel=score)
axes[0].set_ylabel("damage (KL, nats)")
axes[1].set(xscale="log", xticks=[3e-4, 1e-3], xticklabels=["0.0003", "0.001"])
axes[1].minorticks_off()
axes[1].legend(loc="lower right", fontsize=9)
show(fig, alt="Two scatter plots of 24 layers, coloured by kind: measured damage against the CMPQ score, a cloud that "
     "falls slightly to the right, and against the GPTQ error, a narrow rising band.")

# %% [markdown]
# - On the right, the error that GPTQ itself reports for the layer, weighed by how much the loss listens to each output
#   (notebook 07's error, made comparable between layers): a narrow band.
# - On the left, CMPQ: layers that are *more* unlike the others are harmed *less*, if anything.
#
# What matters for widths is the order, so we use **Spearman's rank correlation**: 1 for the same order, 0 for no
# relation, −1 for the reverse. With 24 layers chance alone reaches about ±0.4, the grey band. All scores:

# %%
for name in corpora:
    rows = [r for r in correlation[name]
            if (r.granularity, r.rounding, r.metric, r.bits) == ("linear", "gptq", "kl", 3)]
    show(plot_correlations(rows, f"{KINDS[name]}: damage of GPTQ at 3 bits, one layer at a time (KL)"),
         alt=f"Dots with intervals, on {KINDS[name]}: rank correlation of each score with the measured damage, sorted. "
         "Trying GPTQ out and the GPTQ error are near 1; HAWQ-V2, weight MSE and some others are positive; PMPQ, first "
         "order and random lie within the grey band of chance; the variants of CMPQ are negative.")
print(f"24 layers in random order: 95 % of the correlations lie within ±{chance(24):.2f}")

# %% [markdown]
# How to read it: dot, the mean of the seeds' scores; thin bar, 95 % interval (for layers as a sample of such layers);
# thick bar, the single seeds. Circles have an interval above 0, crosses below 0, squares contain 0. (Where the dot lies
# outside its thick bar, as for "first order", averaging three noisy scores made a better one.)
#
# **Before you run it.** Does it depend on the width? On the rounding: will PMPQ, which knows nothing of GPTQ's damage,
# know more of naive rounding's? A star marks an interval without 0:

# %%
def rho_table(name, metric="kl"):
    """A line for each score, a column for each rounding and width."""
    found = {(r.score, r.rounding, r.bits): r for r in correlation[name]
             if r.granularity == "linear" and r.metric == metric}
    columns = [(rounding, bits) for rounding in ("gptq", "nearest") for bits in (2, 3, 4)]
    print(f"{KINDS[name]:22}" + "".join(f"{f'{r} {b}':>12}" for r, b in columns))
    for score in dict.fromkeys(key[0] for key in found):
        cells = [found[score, *column] for column in columns]
        print(f"{score:22}" + "".join(f"{r.rho:+11.2f}{'*' if r.low > 0 or r.high < 0 else ' '}" for r in cells))


for name in corpora:
    rho_table(name)
    print()

# %% [markdown]
# - The width matters little. **The rounding matters as much as the score.**
# - Columns "gptq": the GPTQ error, and trying GPTQ out. HAWQ-V2 and TDMPQ know something, PMPQ nothing.
# - Columns "nearest": HAWQ-V2 and TDMPQ are excellent, PMPQ is good, and the GPTQ error is mediocre. The paper rounds
#   naively, so this is what its scores were meant for. *PMPQ and TDMPQ do predict what naive rounding does.*
# - GPTQ repairs most of the damage, and not in every layer alike. What is left is another quantity.
# - CMPQ is negative in every column.
# - Real and generated text agree in all of this.

# %%
def rho(name, score, rounding="gptq", bits=3, metric="kl", granularity="linear"):
    """One row of the file."""
    return next(r for r in correlation[name] if (r.score, r.rounding, r.bits, r.metric, r.granularity)
                == (score, rounding, bits, metric, granularity))


for name in corpora:
    for bits in (2, 3, 4):
        for score in ("GPTQ error", "leave-one-in KL, GPTQ"):
            assert rho(name, score, "gptq", bits).low > 0.85 > rho(name, score, "nearest", bits).rho + 0.1
        for score in ("TDMPQ", "HAWQ-V2"):
            assert rho(name, score, "gptq", bits).low > 0 and rho(name, score, "nearest", bits).rho > 0.7
        unsure = rho(name, "PMPQ", "gptq", bits)
        assert unsure.low < 0 < unsure.high and rho(name, "PMPQ", "nearest", bits).low > 0
        for measure in ("mean", "first", "pwcca", "svcca", "cka"):
            assert all(rho(name, f"CMPQ, {measure}", how, bits).rho < 0 for how in ("gptq", "nearest"))
print("holds at 2, 3 and 4 bits on", " and ".join(KINDS[name] for name in corpora))

# %% [markdown]
# ### How not to be fooled, part 1: noise and stars
#
# Why KL and not the loss itself? Look at the same table for the **loss** at 4 bits:

# %%
for score in ("leave-one-in KL, GPTQ", "GPTQ error", "random"):
    row = rho("tinystories", score, bits=4, metric="loss")
    print(f"{score:22} {row.rho:+.2f} ({row.low:+.2f} … {row.high:+.2f})")
size4 = sorted(damage_of("tinystories", bits=4).values())[12]
print(f"the median layer at 4 bits: {size4:.5f} nats of KL")
assert rho("tinystories", "random", bits=4, metric="loss").high < 0
assert rho("tinystories", "leave-one-in KL, GPTQ", bits=4, metric="loss").low < 0.05

# %% [markdown]
# - A star for **random**! It is a set of numbers without any meaning, "significantly" wrong. At 95 % one interval in
#   twenty misses the truth, and the file has hundreds.
# - Even trying it out is no longer sure of its interval: at 4 bits a layer costs so little that the luck of the labels of
#   48 windows is larger. KL compares with the original's predictions and has no such luck.
#   <!-- claim: FILE benchmarks/showdown.py -->
# - So: a single star says little, a row of stars with the same sign says something, and what is measured must be
#   larger than its noise.
#
# ### How not to be fooled, part 2: what hides behind a correlation
#
# CMPQ is not just bad, it is *negative*. Did the paper get the sign wrong? Look at the left scatter again: **before you
# run it**, which kind of layer stands at the lower right, and how large is it?

# %%
board = Leaderboard("tales-2.7m", windows=pick(ci=24, lab=32, full=None))
model = board.reference.model
count = {name: layer.weight.numel() for name, layer in linear_layers(model).items()}
assert list(count) == parts
for kind in STYLE:
    print(f"{kind:14} {count['blocks.0.' + kind]:7,} weights")


def each(table):
    """The same for each weight, in place of each layer."""
    return {part: value / count[part] for part, value in table.items()}


def three_ways(table, truth, adds_up=True):
    """Correlation by layer, by weight (if the score is one that adds up over weights), and within kinds of layers."""
    kinds = [[part for part in parts if part.endswith(kind)] for kind in STYLE]
    within = [rank_correlation({p: table[p] for p in mine}, {p: truth[p] for p in mine}).rho for mine in kinds]
    by_weight = rank_correlation(each(table) if adds_up else table, each(truth))
    return rank_correlation(table, truth), by_weight, sum(within) / 4

# %%
found = {}
print("real text, 3 bits" + f"{'layer':>19}{'weight':>9}{'kind':>9}")
for rounding in ("gptq", "nearest"):
    for score in ("CMPQ, mean", "PMPQ", "TDMPQ", "HAWQ-V2", "GPTQ error"):
        adds_up = not score.startswith("CMPQ")
        found[score, rounding] = three_ways(score_of("tinystories", score), damage_of("tinystories", rounding), adds_up)
        layer, weight, kind = found[score, rounding]
        print(f"{rounding:8} {score:18}{layer.rho:+9.2f}{weight.rho:+9.2f}{kind:+9.2f}")
layer, weight, kind = found["CMPQ, mean", "gptq"]
assert layer.high < 0 and weight.low < 0 < weight.high and kind < 0
assert all(found["TDMPQ", "nearest"][k].rho > 0.9 for k in (0, 1)) and found["PMPQ", "nearest"][1].low > 0
assert found["TDMPQ", "gptq"][1].low < 0 < found["HAWQ-V2", "gptq"][1].low

# %% [markdown]
# - The output layers of attention are the smallest of the model, so quantising one of them hurts little; and they are
#   unlike all others for reasons of their own. A good part of CMPQ's minus sign is **size**: counted for each weight,
#   no relation is left that its interval could vouch for.
# - Among the six layers of one kind, which are of one size, the sign stays below 0 on average. Six are few. What is safe
#   to say: CMPQ does not point the right way by any of the three counts. To turn its sign because of *one* model would be
#   to fit noise.
# - TDMPQ after GPTQ loses its star as well when counted for each weight; after naive rounding it keeps nearly
#   everything.
# - *What else differs between these layers?* is the question that every correlation needs.
#
# ### Live, on generated text
#
# You need not believe a file. Measure the damage here, on a few windows, and correlate again. Rounding each of 24 layers
# alone, to 2 and to 3 bits, is the longest cell of the notebook.

# %%
tokens = board.reference.tokenizer.encode(board.corpus.train)
calibration = sample_windows(tokens, 256, 16, seed=0)  # (16, 257)
held_out = cut(board.held_out, 256, pick(ci=2, lab=4, full=16))  # (4, 257)
live = leave_one_in(model, held_out, bits=(2, 3), unit="linear", method="gptq", metric="kl",
                    calibration=calibration)  # {layer: {bits: nats}}
few = calibration[: pick(ci=4, lab=8, full=16)]
scores = {
    "random": random_scores(model, unit="linear"),
    "CMPQ": cmpq(model, few, unit="linear", samples=pick(ci=512, lab=1024, full=4096)),
    "weight MSE": weight_mse(model, bits=(2, 3), unit="linear"),
    "GPTQ error": gptq_error(model, few, bits=(2, 3), unit="linear"),
}
now = {part: costs[3] for part, costs in live.items()}
at3 = {score: {p: v[3] if isinstance(v, dict) else v for p, v in table.items()} for score, table in scores.items()}
found = {score: rank_correlation(table, now) for score, table in at3.items()}
assert found["GPTQ error"].low > 0.7 and found["CMPQ"].rho < 0 and found["random"].low < 0 < found["random"].high
assert rank_correlation(at3["CMPQ"], each(now)).low < 0 < rank_correlation(at3["CMPQ"], each(now)).high

# %% tags=["measured"]
for score, row in found.items():
    print(f"{score:12} {row.rho:+.2f} ({row.low:+.2f} … {row.high:+.2f})   generated text, live")

# %% [markdown]
# ## 3 · The race, at equal bytes
#
# From a score to a model, the same way for all:
#
# 1. a **cost** for each layer and width: the score itself where it has widths, else score × 4⁻ᵇ (a bit halves the step);
# 2. a **size** for each layer and width, from the packed layer, with its scales and zero points (`packed_sizes`);
# 3. `integer_program`: widths from {2, 3, 4, 8} with the least total cost within a budget of bytes;
# 4. GPTQ, save, read the file, measure.
#
# The budgets are the bytes of uniform models of 3, 4 and 5 bits, and halfway between 2 and 3 and between 3 and 4.
#
# **Before you run it.** Where will the methods differ more: at the budgets that a uniform model has exactly (3, 4), or
# between them (2.5, 3.5)?

# %%
for name in corpora:
    seeds = len({row.seed for row in showdown[name]})
    show(plot_showdown(showdown[name], f"{KINDS[name]}: 128 held-out windows, calibration texts: {seeds}"),
         alt=f"Six panels, {KINDS[name]}. Above, added loss against the size of the file on a logarithmic scale for three "
         "groups of methods, each with uniform (dashed) and random (dotted). Below, the same as a multiple of "
         "uniform's added loss. The numbers are in the table that follows.")

# %%
METHODS = ("random", *(method for group in GROUPS.values() for method in group))
BUDGETS = (2.5, 3.0, 3.5, 4.0, 5.0)


def table_of(name):
    """Added loss as a multiple of uniform's at the same bytes; + and - mark what beats or loses to random for sure."""
    rows = showdown[name]
    print(f"{KINDS[name]:24}" + "".join(f"{budget:>9}" for budget in BUDGETS) + "  bits")
    for method in METHODS:
        line = f"{method:24}"
        for budget, group in by_budget(rows, method).items():
            ratio = mean_delta(group) / uniform_at(rows, group[0].linear_bytes)
            sure = "+" if beats(rows, method, "random", budget) else "-" if beats(rows, "random", method, budget) else " "
            line += f"{ratio:8.2f}{sure}"
        print(line)


for name in corpora:
    table_of(name)
    print()

# %% [markdown]
# One line is 1.00 everywhere and not printed: uniform. At 2.5 and 3.5 bits no uniform model has these bytes; there the
# measure is uniform's line between its neighbours. `+` beats random in every seed by the rule of section 1, `-` loses
# to it.
#
# On real text:
#
# - **At 3, 4 and 5 bits nobody beats uniform.** The best are level with it, because that is what they choose, or nearly.
# - **Between the widths a score has something to say.** At 2.5 and 3.5 bits two methods stay below uniform's line, both of
#   which look at GPTQ's own error: the error that GPTQ reports, and trying GPTQ out. At 2.5 bits both beat random for
#   sure.
# - At 2.5 bits PMPQ is **worse than random**, for sure; CMPQ is worse in each seed, by more than the rule asks in two of
#   the three. TDMPQ is better than random in each seed, by less than the rule asks.
# - On generated text, with a single seed: the same two are below uniform's line, and nobody beats uniform where it has the
#   bytes; there it is CMPQ that loses to random for sure at 2.5 bits.
# - To beat random is not much: it is a bad choice. At 3 bits even CMPQ does, and is still behind uniform.
# - The bars of random are long, since each seed is another draw. Those of most scores are short: which text they saw
#   hardly matters. First order and HAWQ-V2, both made from few noisy gradients, do depend on it.

# %%
real = showdown["tinystories"]


def times_uniform(method, budget, name="tinystories"):
    """Added loss over uniform's at the same bytes."""
    group = by_budget(showdown[name], method)[budget]
    return mean_delta(group) / uniform_at(showdown[name], group[0].linear_bytes)


LOOK_AT_GPTQ = ("GPTQ error", "leave-one-in KL, GPTQ")
for name in corpora:
    for budget in (3.0, 4.0, 5.0):
        assert not any(beats(showdown[name], method, "uniform", budget) for method in METHODS)
    for budget in (2.5, 3.5):
        assert {m for m in METHODS if times_uniform(m, budget, name) < 1} == set(LOOK_AT_GPTQ)
    assert all(beats(showdown[name], method, "random", 2.5) for method in LOOK_AT_GPTQ)
by_seed = {m: [r.delta_nats for r in by_budget(real, m)[2.5]] for m in ("TDMPQ", "random", "CMPQ, mean")}
assert all(a < b < c for a, b, c in zip(*by_seed.values(), strict=True))
assert beats(real, "random", "PMPQ", 2.5) and not beats(real, "random", "CMPQ, mean", 2.5)
assert not beats(real, "TDMPQ", "random", 2.5)
assert beats(real, "CMPQ, mean", "random", 3.0) and times_uniform("CMPQ, mean", 3.0) > 1.1
print(f"at 2.5 bits random loses {times_uniform('random', 2.5) / times_uniform('GPTQ error', 2.5):.2f} times as much "
      "as the GPTQ error")

# %% [markdown]
# ### Why uniform is so hard to beat
#
# Take a bit from one layer and give it to another of the same size. When is that a good deal?
#
# **Exercise 13.worth.** Two layers of the same size lose `a * 4**-bits` and `b * 4**-bits` at `bits` bits. Both have
# `bits` now. By how much does their total damage change if a gets one bit more and b one fewer? (Below 0: a gain.)

# %%
def worth(a, b, bits):
    """Change of the total damage when a gets a bit of b's."""
    ### BEGIN SOLUTION
    return a * (4.0 ** -(bits + 1) - 4.0**-bits) + b * (4.0 ** -(bits - 1) - 4.0**-bits)
    ### END SOLUTION

# %%
check("13.worth", worth)

# %% [markdown]
# By hand: $a$ saves three quarters of its damage, $b$ adds three times its own. The deal is good only if
# $\tfrac34 a > 3b$: **one layer has to be more than four times as sensitive as the other, for each weight.** And the law
# of 4 is kind. What does a bit really do to our layers?

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2), width_ratios=(1, 1.3))
name = "tinystories"
table = values_of(sensitivity[name], "linear", "damage gptq kl")
steps = {"2 → 3": [c[2] / c[3] for c in table.values()], "3 → 4": [c[3] / c[4] for c in table.values()]}
left.boxplot(steps.values(), tick_labels=steps, whis=(0, 100))
left.axhline(4, color=COLORS["vermillion"], ls="--", label="law of 4")
left.set(ylabel="damage falls by a factor of", xlabel="one bit more", ylim=(0, None))
left.legend(fontsize=9)
dense = sorted(each(damage_of(name)).items(), key=lambda item: item[1])
middle = dense[12][1]
right.axvspan(0.5, 2, color="0.9")
for place, (part, value) in enumerate(dense):
    color, marker = next(style for kind, style in STYLE.items() if part.endswith(kind))
    right.plot(value / middle, place, marker, color=COLORS[color])
right.set(xscale="log", xlabel="damage of a weight, over the median layer's", yticks=[], ylabel="24 layers, sorted",
          xticks=[0.25, 0.5, 1, 2, 4], xticklabels=["¼", "½", "1", "2", "4"], xlim=(0.2, 5))
right.minorticks_off()
right.legend(handles=[Line2D([], [], marker=m, color=COLORS[c], ls="", label=k) for k, (c, m) in STYLE.items()], fontsize=8)
show(fig, alt="Left: box plots of how many times a layer's damage falls with one bit more, above the dashed line at 4. "
     "Right: damage of a weight for each layer relative to the median, sorted, coloured by kind; most lie within the "
     "shaded band of a factor of 4 across.")
inside = sum(0.5 < value / middle < 2 for _, value in dense)
print(f"real text: a bit divides the damage by {sorted(steps['2 → 3'])[12]:.1f} (2 → 3) and "
      f"{sorted(steps['3 → 4'])[12]:.1f} (3 → 4), medians; {inside} of 24 layers within the band")
assert min(sorted(steps[key])[12] for key in steps) > 4 and inside > 12

# %% [markdown]
# - With GPTQ a bit divides the damage by *more* than 4, so a deal needs even larger differences.
# - Most layers lie within a factor of 4 of each other. At a budget that uniform meets exactly there is little to trade,
#   however well you know the layers.
# - Between two whole widths it is another game: half of the layers *must* get a bit more, and a good score says which.
#
# What did they choose? Two methods over all budgets, on real text:

# %%
fig, axes = plt.subplots(2, 1, figsize=(8, 4.6), sharex=True)
for ax, method in zip(axes, ("GPTQ error", "CMPQ, mean"), strict=True):
    strip(ax, {f"{budget:g}": widths_of("tinystories", method, budget) for budget in BUDGETS})
    ax.set_title(method, fontsize=10)
    ax.set_ylabel("budget (bits)")
show(fig, alt="Two coloured tables of widths, budgets from 2.5 to 5 bits in rows, 24 layers in columns. The numbers in "
     "the cells are the widths: GPTQ error and CMPQ choose different layers for more bits.")
for method in ("GPTQ error", "CMPQ, mean"):
    same = {budget: len(set(widths_of("tinystories", method, budget))) == 1 for budget in BUDGETS}
    print(f"{method}: uniform at {', '.join(f'{b:g}' for b in BUDGETS if same[b]) or 'no'} bits")

# %% [markdown]
# At 5 bits the comparison is not quite even: 5 is a width of the uniform model, but not one of {2, 3, 4, 8}. The methods
# have to make up 5 bits from 4 and 8. That costs them more than any score can win back; the cure is to offer 5 and 6 bits.
#
# ### Do the costs add up?
#
# An integer program adds damages that were measured one at a time. For every model of the race: the sum of its layers'
# damages (GPTQ, KL; 8 bits cost next to nothing) against what the whole model really lost.

# %%
def predicted(name, widths):
    """The sum of the measured one-layer damages."""
    table = values_of(sensitivity[name], "linear", "damage gptq kl")
    return sum(table[part].get(width, 0.0) for part, width in zip(parts, widths, strict=True))


fig, axes = plt.subplots(1, len(corpora), figsize=(4.2 * len(corpora), 3.6), squeeze=False)
for ax, name in zip(axes.flat, corpora, strict=True):
    rows = [row for row in showdown[name] if row.budget is not None and 5 not in row.widths]
    x, y = [predicted(name, row.widths) for row in rows], [row.delta_nats for row in rows]
    ax.plot(x, y, "o", ms=4, color=COLORS["blue"], alpha=0.6)
    ax.axline((1e-2, 1e-2), slope=1, color="0.4", ls="--", label="they add up")
    ax.set(xscale="log", yscale="log", xlabel="sum of the damages (nats)", ylabel="added loss (nats)", title=KINDS[name])
    ax.legend()
    over = {size: [b / a for a, b, r in zip(x, y, rows, strict=True) if r.budget == size] for size in (2.5, 3, 4)}
    order = rank_correlation(dict(enumerate(x)), dict(enumerate(y))).rho
    print(f"{KINDS[name]}: real / sum " + ", ".join(f"{sum(v) / len(v):.2f} at {k} bits" for k, v in over.items())
          + f"; rank correlation {order:.2f}")
    assert order > 0.9 and sum(over[2.5]) / len(over[2.5]) > sum(over[4]) / len(over[4])
show(fig, alt="Scatter plot on logarithmic axes: the added loss of each model of the race against the sum of its layers' "
     "damages. The points follow the dashed diagonal at small damage and rise above it where the damage is large.")

# %% [markdown]
# - Small damages add up. Large ones do worse: each layer meets inputs that other layers have spoilt already.
# - The *order* of the models survives, and that is all an optimiser needs. As a prediction of the loss the sum is too
#   kind, most of all at 2 bits.

# %% [markdown]
# ## 4 · "The first and last 30 % are more sensitive"
#
# So says the paper of its CMPQ scores. Whether *damage* is distributed like that can be looked up. Six blocks: the first
# two, the middle two, the last two. All blocks have equally many weights, so a block and a weight give the same order.
# **Before you run it:** after section 2, what should one ask first?
#
# <details><summary>Answer</summary>
# By which rounding.
# </details>

# %%
cases = [(name, rounding, bits) for name in corpora for rounding, bits in (("nearest", 2), ("nearest", 3), ("gptq", 3))]
fig, axes = plt.subplots(len(corpora), 3, figsize=(9, 2.7 * len(corpora)), squeeze=False)
thirds = {}
for ax, case in zip(axes.flat, cases, strict=True):
    name, rounding, bits = case
    blocks = list(damage_of(name, rounding, bits=bits, granularity="block").values())
    thirds[case] = [3 * (a + b) / sum(blocks) for a, b in zip(blocks[::2], blocks[1::2], strict=True)]
    ax.bar(range(6), blocks, color=[COLORS[c] for c in ("blue", "blue", "sky", "sky", "green", "green")])
    ax.set(xlabel="block", xticks=range(6), title=f"{KINDS[name]}\n{rounding}, {bits} bits")
    ax.grid(visible=False, axis="x")
    print(f"{KINDS[name]:15} {rounding:8}{bits} bits: first, middle, last two blocks over the mean: "
          + ", ".join(f"{third:.2f}" for third in thirds[case]))
axes[0, 0].set_ylabel("damage (KL, nats)")
show(fig, alt="Bars of the measured damage of each of the six blocks. With naive rounding at 2 bits the first block towers "
     "over the rest and the last are the smallest; with GPTQ at 3 bits the last block is the highest. The means of the "
     "thirds are printed above.")
for name in corpora:
    first, middle, last = thirds[name, "nearest", 2]
    assert first > middle > last
    first, middle, last = thirds[name, "gptq", 3]
    assert first < middle < last

# %% [markdown]
# - Naive rounding at 2 bits: the first blocks are the most sensitive, the last the *least*.
# - GPTQ: the last are the most sensitive, the first the *least*; on generated text the three hardly differ.
# - Both ends at once, as the paper has it: in neither case.
# - The authors' own published numbers say as little. CMPQ sensitivities of OPT-125M, layer by layer, from the file
#   `layer_sensitivitites_opt_125m_687.34.json` in their repository:

# %%
published = [2.83, 6.59, 14.07, 12.94, 9.74, 6.91, 6.72, 6.69, 6.87, 7.08, 7.13, 9.91]  # layers 0-11, times 1e-5
ends = round(0.3 * len(published))
segments = published[:ends], published[ends:-ends], published[-ends:]
print("first, middle, last 30 %:", ", ".join(f"{sum(part) / len(part):.1f}" for part in segments))
print("least sensitive: layer", published.index(min(published)), "- most sensitive: layer",
      published.index(max(published)))
assert published.index(min(published)) == 0 and published.index(max(published)) == 2

# %% [markdown]
# Means of three layers say what you like: the least sensitive layer of all is the very first, and the top is layer 2, at
# the border of the segment. And a mean over *layers* hides that layers of one block differ. For each weight, by kind:

# %%
for name in corpora:
    dense = each(damage_of(name))
    level = sum(dense.values()) / 24
    print(KINDS[name])
    for kind in STYLE:
        line = [dense[f"blocks.{i}.{kind}"] / level for i in range(6)]
        print(f"  {kind:14}" + "".join(f"{value:6.2f}" for value in line) + "   blocks 0 … 5, over the mean layer")

# %% [markdown]
# The differences *within* a block are about as large as those between blocks. One width for a whole block, as the paper
# has it, cannot use them.

# %% [markdown]
# ## 5 · What do the paper's clusters buy?
#
# CPTQuant sorts the blocks into three clusters by score and gives them 16, 8 and 4 bits. Nobody sets the size; it comes
# out. **Before you run it:** the 16-bit blocks lose nothing. Compared with all blocks at 8 bits, will the model be
# better? And compared with all layers at 5 bits?

# %%
weights32 = 4 * sum(count.values())  # bytes of the linear layers in float32
eight = sum(size[8] for size in packed_sizes(model, (8,)).values())
print(f"{'':15} {'':16}{'bits':>6}{'÷fp32':>7}{'÷fp16':>7}{'file':>11}  added loss (nats)")
for name in corpora:
    with open(folders[name] / "leaderboard.csv", newline="") as file:
        row8 = next(row for row in csv.DictReader(file) if (row["method"], row["bits"]) == ("GPTQ", "8"))
    chosen = [r for r in showdown[name] if "3-means" in r.method or (r.method, r.budget) == ("uniform", 5)]
    lines = [(r.method, r.average_bits, r.linear_bytes, r.bytes, r.delta_nats, r.ci_low, r.ci_high)
             for r in chosen if r.seed == 0]
    lines.append(("uniform", 8, eight, int(row8["bytes"]), *(float(row8[k]) for k in ("delta_nats", "ci_low", "ci_high"))))
    for method, bits, linear, size, *delta in lines:
        ratios = [compression_ratio(base, linear) for base in (weights32, weights32 / 2)]
        print(f"{KINDS[name]:15} {method:16}{bits:6.2f}{ratios[0]:7.2f}{ratios[1]:7.2f}{size:>11,}"
              "  {:+.5f} ({:+.5f} … {:+.5f})".format(*(round(nats, 5) + 0.0 for nats in delta)))

# %% [markdown]
# (Uniform 8 is the row of the leaderboard, on the whole test split; the others are on 128 windows. Ratios are of the
# linear layers, sizes are of whole files.) <!-- claim: FILE benchmarks/showdown.py -->

# %%
clusters = [r for r in showdown["tinystories"] if "3-means" in r.method]
five = by_budget(showdown["tinystories"], "uniform")[5]
with open(folders["tinystories"] / "leaderboard.csv", newline="") as file:
    row8 = next(row for row in csv.DictReader(file) if (row["method"], row["bits"]) == ("GPTQ", "8"))
assert all(r.ci_low > float(row8["ci_high"]) for r in clusters)  # each of them loses more than 8 bits
assert all(r.bytes > 1.2 * five[0].bytes for r in clusters)  # and is larger than 5 bits
for method in ("CMPQ", "PMPQ", "TDMPQ"):  # and yet loses less
    assert mean_delta(five) < mean_delta([r for r in clusters if r.method.startswith(method)])
for name in corpora:
    level = next(r for r in showdown[name] if (r.method, r.budget, r.seed) == ("uniform", 5, 0))
    for r in showdown[name]:
        assert "3-means" not in r.method or (r.bytes > 1.2 * level.bytes and r.ci_high > level.ci_low)
by_seed = {method: {r.widths for r in clusters if r.method.startswith(method)} for method in ("CMPQ", "PMPQ", "TDMPQ")}
print("different sets of clusters in three seeds:", {method: len(widths) for method, widths in by_seed.items()})

# %% [markdown]
# The same live, on generated text, with two controls: 8 bits for all, and 8 bits with 5 in every third block. As KL, which
# shows small damage on few windows.

# %%
def divergence(allocation):
    """KL of a quantised copy from the original on held-out windows, nats a character."""
    copy = deepcopy(model)
    quantize_model(copy, recipe_of(allocation), calibration)
    with torch.inference_mode():
        then, now = (m(held_out[:, :-1]).double().log_softmax(-1) for m in (model, copy))  # (windows, 256, 128) each
    return float((then.exp() * (then - now)).sum(-1).mean())


blocks = list(parts_of(model))
block_sizes = packed_sizes(model, (16, 8, 5, 4))
tries = {"clusters 16 8 4": cluster_bits(cmpq(model, few, samples=1024), (16, 8, 4)), "8": dict.fromkeys(blocks, 8),
         "8 and 5": {block: 5 if index % 3 == 0 else 8 for index, block in enumerate(blocks)}}
cost = {label: divergence(allocation) for label, allocation in tries.items()}
size = {label: total(block_sizes, allocation) for label, allocation in tries.items()}
assert cost["8"] < cost["8 and 5"] < cost["clusters 16 8 4"]

# %% tags=["measured"]
for label in tries:
    print(f"{label:16}{size[label]:>10,} bytes of linear layers, KL {cost[label]:.6f}")

# %% [markdown]
# - At 8 bits there is nothing left to lose, so a 16-bit block buys **nothing** for its bytes. The 4-bit blocks cost
#   what 4 bits cost. The mixture loses more than 8 bits for all.
# - Uniform **5** bits, without any score, is smaller than each of them, and on the mean of the seeds loses less.
# - On generated text CMPQ's clusters are level with 5 bits, in a file half as large again.
# - Three calibration texts, three sizes: TDMPQ's clusters come out anew each time. Whoever plans for a size cannot use that.
# - A ratio over float32 flatters by two. Over float16, which is what anybody would ship, it is half: state both.
#
# ## 6 · A showdown of your own
#
# Live, on generated text, one seed, the bytes of 2.5 bits, and the plainest choice there is: every layer gets 2 bits, and
# about half of them a third one. **Which half?** One more control: **from the front** until the bytes are spent. First
# with GPTQ: <!-- claim: MATH (2 + 3) / 2 -->

# %%
board.calibration = calibration
sizes = packed_sizes(model, (2, 3), "linear")
whole = {bits: total(sizes, dict.fromkeys(parts, bits)) for bits in (2, 3)}
budget = (whole[2] + whole[3]) // 2
front, left_over = dict.fromkeys(parts, 2), budget - whole[2]
for part in parts:
    price = sizes[part][3] - sizes[part][2]
    if price <= left_over:
        front[part], left_over = 3, left_over - price
choices = {"from the front": front}
for label, table in (scores | {"leave-one-in": live}).items():
    costs = table if isinstance(table[parts[0]], dict) else costs_from_scores(table, (2, 3))
    choices[label] = integer_program(costs, sizes, budget)
choices.pop("weight MSE")
choices |= {"uniform 2": dict.fromkeys(parts, 2), "uniform 3": dict.fromkeys(parts, 3)}
at = {}  # where each row is on the board
for label, allocation in choices.items():
    at[label] = len(board.rows)
    board.add(label, 0, recipe_of(allocation))

# %% tags=["measured"]
print(f"{'':16}{'bytes':>10}  added loss, minus GPTQ error's (paired)   sum of the damages")
for label, allocation in sorted(choices.items(), key=lambda item: board.rows[at[item[0]]].delta_nats):
    row, pair = board.rows[at[label]], paired_difference(board.losses[at[label]], board.losses[at["GPTQ error"]])
    print(f"{label:16}{row.bytes:>10,}  {row.delta_nats:+.4f}   {pair.mean:+.4f} ({pair.low:+.4f} … {pair.high:+.4f})"
          f"      {total(live, allocation):.4f}")

# %%
added = {label: board.rows[at[label]].delta_nats for label in choices}
for label in ("random", "CMPQ", "from the front"):
    assert paired_difference(board.losses[at[label]], board.losses[at["GPTQ error"]]).low > 0, label
assert added["uniform 3"] < min(added["GPTQ error"], added["leave-one-in"]) < added["random"] < added["uniform 2"]
assert all(total(sizes, choices[label]) <= budget for label in choices if not label.startswith("uniform"))
assert all(added[label] > total(live, choices[label]) for label in ("random", "CMPQ", "GPTQ error", "uniform 2"))

# %% [markdown]
# - The paired difference decides what two overlapping intervals would leave open: GPTQ's own error beats random, CMPQ
#   and "from the front" at the same bytes.
# - The sum of the damages is too kind to every one of them.
#
# ### The same race with naive rounding
#
# Section 2 says: PMPQ and TDMPQ were made for *naive* rounding. So give them their own track: the same budget, the same
# choices, `method="nearest"`. **Before you run it:** who wins? And will the winner beat the *last* of the race above,
# at the same bytes?

# %%
fewer = few[: pick(ci=2, lab=3, full=16)]
scores["TDMPQ"] = tdmpq(model, fewer, noise="matched", bits=3, draws=1, unit="linear")
scores["PMPQ"] = pmpq(model, fewer, levels=(0.5, 0.8), unit="linear")
for label in ("random", "GPTQ error", "PMPQ", "TDMPQ"):
    table = scores[label]
    costs = table if isinstance(table[parts[0]], dict) else costs_from_scores(table, (2, 3))
    at[label, "RTN"] = len(board.rows)
    board.add(f"{label}, naive", 0, recipe_of(integer_program(costs, sizes, budget), "nearest"))

# %% tags=["measured"]
for label in ("TDMPQ", "PMPQ", "GPTQ error", "random"):
    row = board.rows[at[label, "RTN"]]
    pair = paired_difference(board.losses[at[label, "RTN"]], board.losses[at["random", "RTN"]])
    print(f"{label:12}{row.delta_nats:+.3f} nats, minus random {pair.mean:+.3f} ({pair.low:+.3f} … {pair.high:+.3f})")

# %%
for label in ("TDMPQ", "PMPQ"):
    mine = board.losses[at[label, "RTN"]]
    assert paired_difference(mine, board.losses[at["random", "RTN"]]).high < 0, label
    assert paired_difference(mine, board.losses[at["GPTQ error", "RTN"]]).high < 0, label
    assert board.rows[at[label, "RTN"]].delta_nats > 2 * max(added["CMPQ"], added["random"], added["from the front"])

# %% [markdown]
# - The tables have turned: TDMPQ and PMPQ beat random clearly, and the GPTQ error, the winner above, is far behind
#   them. **A score is good for one rounding.**
# - And the winner loses more than twice as much as the *worst* choice of widths with GPTQ. First the rounding, then the
#   widths.

# %% [markdown]
# ## 7 · Bug hunt
#
# The paper is arXiv 2412.03599 (CPTQuant), its code the repository `amitashnanda/Mixed_Precision_Quantization` in the
# version of November 2025. Everybody makes mistakes like these; what one can have is the **test** that catches them.
# In the exercises you write the test: your function is handed implementations, good and bad, and has to say which are
# right.
#
# ### 7.1 Upside down
#
# Equation 2 prints the reduction of the footprint as $100\,(1 - M_O/M_Q)$, equation 3 the compression ratio as
# $M_Q/M_O$, with $M_O$ the original size and $M_Q$ the quantised one. The table beside them has 2 to 4.5.
# <!-- claim: SOURCE arXiv 2412.03599 table 2 -->

# %%
original, quantised = 400, 100
print(f"as printed: ratio {quantised / original}, reduction {100 * (1 - original / quantised):.0f} %")
print(f"as meant:   ratio {original / quantised}, reduction {100 * (1 - quantised / original):.0f} %")

# %% [markdown]
# **Exercise 13.upright.** `ratio(original, quantised)` and `reduction(original, quantised)` are handed to you. Return
# whether *both* are as meant. Try them on sizes of which you know the answer.

# %%
def upright(ratio, reduction):
    """Whether the compression ratio and the reduction in per cent are the right way up."""
    ### BEGIN SOLUTION
    return ratio(400, 100) == 4 and reduction(400, 100) == 75
    ### END SOLUTION

# %%
check("13.upright", upright)

# %% [markdown]
# ### 7.2 Numbers that cannot be
#
# A ratio claims something about bits. The paper reports 4.53 for TDMPQ on OPT-1.3B with widths 16, 8 and 4, and 2.35 for
# a cast to float16.
#
# **Exercise 13.possible.** Is a claimed ratio within what layers of the given widths can reach at all, over a base of
# `base` bits (32 or 16)? Count weights only.

# %%
def possible(claimed, base, widths):
    """Whether a ratio over `base` bits can come from a mixture of widths."""
    ### BEGIN SOLUTION
    return base / max(widths) <= claimed <= base / min(widths)
    ### END SOLUTION

# %%
check("13.possible", possible)

# %%
for base in (32, 16):
    print(f"16, 8 and 4 bits over {base}: ratios from {base / 16:.2f} to {base / 4:.2f}; "
          f"4.53 would be {base / 4.53:.2f} bits on average")
print(f"a cast from 32 to 16 bits: exactly {32 / 16:.2f}, whatever the model")
assert 4.53 > 16 / 4 and 32 / 16 != 2.35

# %% [markdown]
# - Against float16, 4.53 is impossible. It must be a ratio over **float32**, which the paper does not say.
# - FP16 at 2.35 is impossible on any account: a cast halves, no more and no less. A row that can only be 2.00 is a
#   wonderful control, *if one looks at it*.
#
# Is 4.53 possible over float32, then, if whole blocks get one width, as the algorithm says? OPT-1.3B has 24 equal blocks.
#
# **Exercise 13.attainable.** List all ratios that `blocks` equal blocks can reach, each with one of the `widths`, over a
# base: ascending, each once, as floats. (Only the total counts: add up bits, divide once.)

# %%
def attainable(blocks, widths, base):
    """All ratios of the whole, ascending."""
    ### BEGIN SOLUTION
    totals = {0}
    for _ in range(blocks):
        totals = {so_far + width for so_far in totals for width in widths}
    return [base * blocks / total_bits for total_bits in sorted(totals, reverse=True)]
    ### END SOLUTION

# %%
check("13.attainable", attainable)

# %%
fig, ax = plt.subplots(figsize=(7, 1.7))
near = [32 * 24 / bits for bits in range(4 * 24, 16 * 24 + 1, 4)]  # widths are multiples of 4, so totals are
ax.vlines(near, 0, 1, color=COLORS["blue"], lw=1.5)
ax.vlines(4.53, -0.25, 1.25, color=COLORS["vermillion"], lw=2)
ax.text(4.53, 1.3, "4.53", ha="center", color=COLORS["vermillion"])
ax.set(xlim=(3.9, 5.2), ylim=(-0.25, 1.7), yticks=[], xlabel="ratio over float32 that 24 equal blocks can reach")
show(fig, alt="Number line of the ratios between 3.9 and 5.2 that 24 equal blocks can reach, as blue ticks. The published "
     "4.53, a red tick, falls between two of them.")
below, above = max(r for r in near if r < 4.53), min(r for r in near if r > 4.53)
print(f"the neighbours of 4.53: {below:.3f} and {above:.3f}")
assert 4.53 - below > 0.01 and above - 4.53 > 0.01

# %% [markdown]
# Not by blocks. It takes widths by matrix, or a count of something else. (The text has the 4.53 "on WikiText", the table
# in the column for IMDB.)
#
# ### 7.3 Rows that are too equal
#
# Here is what the table has for WikiText in the rows of OPT-350M and OPT-1.3B:

# %%
TABLE_2 = {"OPT-350M": (4.33, 3.85, 3.14), "OPT-1.3B": (4.33, 3.85, 3.14)}  # CMPQ, PMPQ, TDMPQ
for model_name, row in TABLE_2.items():
    print(f"{model_name}: CMPQ {row[0]}, PMPQ {row[1]}, TDMPQ {row[2]}")
assert len(set(TABLE_2.values())) == 1

# %% [markdown]
# K-means on other scores of another model gives other clusters. Two rows that agree to the last digit are a copy until
# proven otherwise.
#
# **Exercise 13.duplicates.** From `{model: (ratio, ratio, …)}` list the pairs of models with equal rows, in the order of
# the table: `[("a", "b"), …]`.

# %%
def duplicates(table):
    """Pairs of names whose rows are the same."""
    ### BEGIN SOLUTION
    names = list(table)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1:] if table[a] == table[b]]
    ### END SOLUTION

# %%
check("13.duplicates", duplicates)

# %% [markdown]
# ### 7.4 A layer that was never replaced
#
# Now the code. The file `Opt125m.py` replaces layers by `setattr(model, "model.decoder.layers.0…", new)`: a name with
# dots, as `named_modules()` lists it. More than twenty files of the repository have that line. **Before you run it:** what does it do to our
# model, if every layer is "replaced" by one of zeros?

# %%
victim = deepcopy(model)
rows = held_out[:1, :-1]  # (1, 256)
with torch.no_grad():
    before = victim(rows)
    for name, layer in linear_layers(model).items():
        zeros = nn.Linear(layer.in_features, layer.out_features)
        zeros.weight.zero_()
        setattr(victim, name, zeros)  # the bug
    unchanged = torch.equal(victim(rows), before)
    entries = [name for name, _ in victim.named_modules(remove_duplicate=False) if name == "blocks.0.mlp.up"]
print("24 layers replaced by zeros; outputs unchanged:", unchanged)
print("entries called blocks.0.mlp.up:", len(entries))
assert unchanged and len(entries) == 2

# %% [markdown]
# - A dot means nothing to `setattr`. It made 24 new attributes of the *top* module with dots in their names, which no
#   forward pass asks for. Nothing raised, and the list of modules even shows them.
# - In that script only `lm_head`, whose name has no dot, is really replaced. At 2 bits it reports a compression of 16; put
#   `lm_head` back, and the logits are those of the original.
# - No loss at 2 bits: *too good* a result is a symptom as well. Later scripts there set modules by their qualified name.
#
# **Exercise 13.replaced.** You get a function `replace(model, name, new)`, a small model that reads `(N, 4)`, and the name
# of one of its layers. Prove that after `replace` the **forward pass uses the new layer**; return True or False. Hint: let
# the new layer count its calls, or raise.

# %%
def replaced(replace, model, name):
    """Whether `replace` puts a layer where the forward pass finds it."""
    ### BEGIN SOLUTION
    calls, new = [], deepcopy(model.get_submodule(name))
    new.register_forward_hook(lambda *_: calls.append(name))
    replace(model, name, new)
    model(torch.ones(1, 4))
    return bool(calls)
    ### END SOLUTION

# %%
check("13.replaced", replaced)

# %% [markdown]
# ### 7.5 Labels have no order
#
# K-means numbers its clusters as they come. The code takes cluster 0 for the most sensitive one, 16 bits, without looking
# at the centroids (and gives 1 and 2 both 8).
#
# **Exercise 13.ordered.** `assign(scores, labels)` returns the widths 16, 8 or 4 of the layers, given their scores and
# the labels 0, 1, 2 of their clusters. Return whether it gives the most bits to the cluster with the highest scores
# *however the clusters are numbered*.

# %%
def ordered(assign):
    """Whether widths follow the scores and not the labels."""
    ### BEGIN SOLUTION
    scores, groups = [9.0, 9.2, 5.0, 1.0, 1.3], [0, 0, 1, 2, 2]
    numberings = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return all(assign(scores, [names[group] for group in groups]) == [16, 16, 8, 4, 4] for names in numberings)
    ### END SOLUTION

# %%
check("13.ordered", ordered)

# %% [markdown]
# ### 7.6 Accuracy of what?
#
# A review is good or bad, 1 or 0. A language model answers with one of tens of thousands of words. The code compares the argmax
# over the **vocabulary** with the label 0 or 1, at every position: it asks whether the model's next word is word number
# 0 or number 1, which no reader of the table would guess. Such an "accuracy" says nothing about sentiment, so its drop
# says nothing about damage.
#
# A meaningful one: compare the logits of the *two* words that stand for bad and good, at the last position.
#
# **Exercise 13.accuracy.** `accuracy(logits, labels, words)` gets logits `(N, T, V)`, labels `(N,)` of 0 and 1, and the
# ids `(2,)` of the words for 0 and 1. Return whether it is a meaningful one: make up logits of a classifier that is
# always right, and of one that is always wrong.

# %%
def meaningful(accuracy):
    """Whether an accuracy is 1 for who is always right and 0 for who is always wrong."""
    ### BEGIN SOLUTION
    labels, words = torch.tensor([0, 1, 1, 0]), torch.tensor([7, 4])
    right, wrong = torch.zeros(4, 3, 10), torch.zeros(4, 3, 10)
    right[torch.arange(4), -1, words[labels]] = 5
    wrong[torch.arange(4), -1, words[1 - labels]] = 5
    return accuracy(right, labels, words) == 1 and accuracy(wrong, labels, words) == 0
    ### END SOLUTION

# %%
check("13.accuracy", meaningful)

# %% [markdown]
# ### 7.7 Lost results
#
# The PMPQ code computes the sensitivity of each layer in a loop, and stores the result after the loop, under the name that
# the loop variable has by then: the last layer's. (The paper's algorithm 2 has its line at the same place.)
#
# **Exercise 13.kept.** `score_all(parts, score)` should return `{part: score(part)}` for a list of names. Return whether
# it does.

# %%
def kept(score_all):
    """Whether each part is there with its own score."""
    ### BEGIN SOLUTION
    wanted = {"blocks.0": 3.0, "blocks.1": 1.0, "blocks.2": 2.0}
    return score_all(list(wanted), wanted.get) == wanted
    ### END SOLUTION

# %%
check("13.kept", kept)

# %% [markdown]
# ### 7.8 Compression by intention
#
# The code counts compression as 32 / bits over the replaced layers. No scales, no zero points, no embeddings. What do
# our files say of a 2-bit model?

# %% tags=["measured"]
row32, row2 = board.rows[0], board.rows[at["uniform 2"]]
print(f"claimed {32 / 2:.1f}, linear layers {weights32 / whole[2]:.2f}, "
      f"file over float32 {compression_ratio(row32.bytes, row2.bytes):.2f}, "
      f"over float16 {compression_ratio(row32.bytes / 2, row2.bytes):.2f}")

# %%
assert compression_ratio(row32.bytes, row2.bytes) < weights32 / whole[2] < 16

# %% [markdown]
# The test: **weigh the file.** `packed_sizes` and the leaderboard do nothing else.

# %% [markdown]
# ## 8 · The verdict
#
# For this model, with GPTQ unless said otherwise; points 1 to 5 and 7 on both texts, point 6 on real text. Each sentence has its
# assert below or above.
#
# 1. **No score beats uniform widths where a uniform model has the bytes.** (3, 4, 5 bits; section 3)
# 2. **Between two widths a good score is worth its bytes**, a bad one can be worse than dice. (2.5 bits; section 3)
# 3. **The good ones measure what the rounding in use leaves behind**: the GPTQ error, or trying GPTQ out. (section 2)
# 4. **CMPQ does not find sensitive layers**, under either rounding, by either count. (section 2)
# 5. **PMPQ and TDMPQ find what *naive* rounding harms**, which is what they were made for. With GPTQ, PMPQ finds nothing
#    and TDMPQ not enough to beat random. (sections 2, 3, 6)
# 6. **The clusters {16, 8, 4} buy nothing**: uniform 5 bits is smaller and loses less, on the mean of the seeds. (section 5)
# 7. **The rounding is worth more than the widths.** (section 6, and the line below)
#
# And what it does *not* show: one model of 2.7 million parameters, of equal blocks without outlier channels, 24 layers,
# one corpus of each kind. A model in which single layers stick out by more than a factor of 4 would give a score more to
# win. Notebook 15 has other models. <!-- claim: MATH 6 * 4; MATH 2**2 -->

# %%
for name in corpora:
    with open(folders[name] / "leaderboard.csv", newline="") as file:
        plain = {(row["method"], row["bits"]): float(row["delta_nats"]) for row in csv.DictReader(file)}
    gain_of_rounding = plain["RTN", "3"] / plain["GPTQ", "3"]
    gain_of_widths = (times_uniform("random", 2.5, name)
                      / min(times_uniform(method, 2.5, name) for method in LOOK_AT_GPTQ))
    print(f"{KINDS[name]}, times less added loss: GPTQ for naive rounding at 3 bits {gain_of_rounding:.1f}, "
          f"the best widths for random ones at 2.5 bits {gain_of_widths:.1f}")
    assert gain_of_rounding > 2 * gain_of_widths
    for rounding in ("gptq", "nearest"):
        layer, weight, kind = three_ways(score_of(name, "CMPQ, mean"), damage_of(name, rounding), adds_up=False)
        assert layer.rho < 0 and weight.rho < 0.2 and kind < 0

# %% [markdown]
# ### Choose for yourself
#
# The slider sets a budget. The costs are those of trying GPTQ out, layer by layer, on real text (`leave-one-in KL, GPTQ`,
# seed 0); the integer program answers at once. The line is the predicted damage, the dots are measured models.

# %%
offered = {part: {b: s[b] for b in (2, 3, 4, 8)} for part, s in packed_sizes(model, (2, 3, 4, 8), "linear").items()}
tried = values_of(sensitivity["tinystories"], "linear", "leave-one-in KL, GPTQ")
most = {bits: total(offered, dict.fromkeys(parts, bits)) for bits in (2, 8)}
bits_of = {size: 2 + 6 * (size - most[2]) / (most[8] - most[2]) for size in range(most[2], most[8] + 1, 4096)}
curve = [(bits, integer_program(tried, offered, size)) for size, bits in list(bits_of.items())[::12]]
measured = [row for row in showdown["tinystories"] if row.method == "leave-one-in KL, GPTQ" and row.seed == 0]


def budget_figure(bits):
    """Widths and predicted damage at a budget in bits; the measured models beside it."""
    allocation = integer_program(tried, offered, int(most[2] + (bits - 2) / 6 * (most[8] - most[2])))
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1.7, 1))
    colors = [COLORS[STYLE[part.split(".", 2)[2]][0]] for part in parts]
    left.bar(range(24), allocation.values(), color=colors)
    left.set(ylabel="bits", title=f"budget {bits:.1f} bits", ylim=(0, 8.3), xticks=range(24))
    left.set_xticklabels(SHORT, rotation=90, size=8)
    left.grid(visible=False, axis="x")
    right.plot([b for b, _ in curve], [total(tried, a) for _, a in curve], color="0.5", label="predicted")
    right.plot([r.budget for r in measured], [r.delta_nats for r in measured], "o", color=COLORS["vermillion"],
               label="measured")
    right.plot(bits, total(tried, allocation), "D", ms=9, color=COLORS["blue"], label="this budget")
    right.set(yscale="log", xlabel="budget (bits)", ylabel="nats a character", ylim=(1e-4, 0.5), xlim=(1.9, 6.1))
    right.legend(fontsize=9)
    return fig

# %%
show(budget_figure(3.5), alt="Left: bars of the widths of 24 layers at a budget of 3.5 bits, coloured by kind; most have "
     "3 or 4. Right: predicted damage against the budget, a falling line, with measured models as dots a little above it "
     "at few bits, and this budget as a diamond.")

# %% tags=["measured"]
slider = ipywidgets.FloatSlider(value=3.5, min=2.1, max=6, step=0.1, description="budget")
show_widget(live_figure(budget_figure, bits=slider),
            alt="A slider for the budget from 2.1 to 6 bits redraws the figure above: layers gain bits one by one, and "
                "the diamond slides down the curve of the predicted damage.")

# %% [markdown]
# ### How to choose widths for a model of your own
#
# 1. **Measure uniform first**, at the widths around your budget, with the best rounding that you have. It is the bar.
# 2. If your budget *is* one of these, take uniform. Better rounding, or groups, is worth more than other widths.
# 3. Between two widths, or with a few layers that stick out: measure costs with the **rounding that you will use**. The
#    error that GPTQ reports, weighed by the output's gradients, is nearly as good as trying it out, and costs one pass.
# 4. Offer the widths on both sides of the budget, the sizes of **packed** layers, and let an integer program choose.
# 5. Measure the result against uniform and random at equal bytes, on text that was not calibrated on, with another seed.
#
# ## What to keep
#
# - A comparison of mixed precision needs equal bytes, uniform and random, paired intervals, several seeds, one rounding.
# - Before you believe a correlation: is the truth above its noise, how many stars would chance give, and what else
#   differs between the layers?
# - A score predicts the damage of *one* rounding. Ask it about the one that you use.
# - A bit moves from one layer to another with profit only if their damage for each weight differs by more than four.
#   Hence uniform is hard to beat at whole widths, and scores matter between them.
# - Damages of layers keep the order of the models, and add up only while they are small.
# - Ratios: original over quantised, the base said aloud, counted on the file. Know what is *possible* before you look at
#   what is reported.
# - A test of a replacement asks the forward pass. A test of an assignment permutes the labels. A test of a metric knows
#   who must get 1 and who must get 0.
#
# ## What next
#
# - **14 · Other roads**: what else makes a model small: pruning, low rank, distillation.
# - **15 · Real models**: the same methods on real OPT, BERT, GPT-2 and Llama models, with the paper's Table 2 beside ours.
#
# ## Further reading
#
# - Nanda et al. 2024, *CPTQuant* ([arXiv 2412.03599](https://arxiv.org/abs/2412.03599)).
# - Yao et al. 2021, *HAWQ-V3* ([2011.10680](https://arxiv.org/abs/2011.10680)): the integer program.
# - Sieberling et al., *EvoPress* ([2410.14649](https://arxiv.org/abs/2410.14649)): a search that measures whole models and
#   so does not rely on damages that add up.
# - `benchmarks/showdown.py`: how every number of sections 2 to 5 was measured.
