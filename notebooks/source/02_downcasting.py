# %% [markdown]
# # 02 · Downcasting
#
# {{colab}}
#
# The cheapest way to make a model smaller is to store the same numbers in a smaller type. It is one call,
# `model.half()`, and often it costs nothing that one could measure. But sometimes it costs everything: a sum stops
# growing at 256, a gradient becomes 0, a weight no longer moves, and 65520 becomes infinity. This notebook shows which
# of these happens when, counts it, and repairs it.
# <!-- claim: CELL == [256, 32, 2, 1]; MATH (2 - 2**-11) * 2**15 -->
#
# {{cost_card}}
#
# **You will be able to**
#
# - predict the error of a cast from the number of fraction bits, and what overflows and underflows;
# - say why sums in a small type go wrong, and choose between pairwise sums, Kahan's, and a wider accumulator;
# - measure what a type saves on your machine, in bytes and in time, and explain why the two differ;
# - cast a language model to 16, 8 and 4 bits, and say what it lost, with an interval;
# - train in mixed precision, with master weights and loss scaling, and say what each of the two is for.
#
# **You need** notebook 01 (the bits of integers and floats). From section 6 on a language model is measured by its loss; lower is
# better, and more about it stands in notebook 03.
#
# **Three sessions.** Sections 1 to 4 are about numbers, sections 5 to 7 about the machine and the model, section 8 about training. Two
# headings say where to stop. Notebook 04 builds on sections 1, 2, 4 and 6. Skip section 5 if speed is not your concern, and
# section 8 if you will not train; run their cells all the same, since later ones use what they define.

# %%
import csv
import math
import statistics
import textwrap
import time
from copy import deepcopy
from functools import partial

import ipywidgets
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import nanoq
from nanoq.files import data_dir
from nanoq.lm import GPT, GPTConfig, load_corpus, paired_difference, perplexity, window_losses
from nanoq.lm.training import batch_at
from nanoq.numbers import BLOCKS, FLOATS, PRECISIONS, LossScale, dot, downcast_report, emulate, matmul, train_mixed
from nanoq.quant import Recipe, linear_layers, quantize_model
from nanoq.teach import check, pick, show, use_style
from nanoq.teach.hardware import describe_products, machine_report, plot_products, probe_products
from nanoq.teach.plots import COLORS
from nanoq.teach.widgets import live_figure, show_widget

use_style()

# %% [markdown]
# ## 1 · One third
#
# A type is a set of values, and a cast goes to the nearest of them. Around 1/3 the sets look like this: <!-- claim: MATH 1 / 3 -->

# %%
third = 1 / 3
lines = ("fp16", "bf16", "e4m3fn", "e5m2", "e2m1")
fig, ax = plt.subplots(figsize=(7, 2.8))
for row, name in enumerate(lines):
    values = FLOATS[name].values()
    near = values[(values > 0.24) & (values < 0.51)]  # (n,)
    ax.plot(near, torch.full_like(near, row), "|", ms=16, mew=1, color=COLORS["blue"])
    ax.plot(FLOATS[name].round(third).item(), row, "o", ms=7, color=COLORS["orange"])
ax.axvline(third, color=COLORS["vermillion"], ls="--", lw=1)
ax.set(yticks=range(len(lines)), yticklabels=lines, xlabel="value", title="The values around 1/3 (dashed)")
ax.invert_yaxis()
ax.grid(visible=False)
show(fig, alt="Five number lines from 0.24 to 0.51. fp16's values are a solid band, those of bf16 stand "
     "close together, e4m3fn and e5m2 have a few, e2m1 only 0.5. A dot marks the value nearest to one "
     "third in each; a dashed line marks one third.")

# %% [markdown]
# **Before you run it.** fp16 and bf16 both have 16 bits. Which of the two is nearer to 1/3? And which formats in the
# table will hold the very same number?
#
# <details><summary>After you have run it</summary>
# fp16: it spends ten bits on the fraction, bf16 seven; the three others went into the exponent, which buys range, not
# digits. tf32 has fp16's fraction and fp32's exponent, so it agrees with fp16 here.
# </details>

# %%
print("type    bits  sign exponent fraction                 value           relative error")
for name in ("fp32", "tf32", "fp16", "bf16", "e4m3fn", "e5m2", "e2m1"):
    fmt = FLOATS[name]
    value = fmt.round(third).item()
    digits = fmt.digits(int(fmt.encode(third)))
    print(f"{name:7} {fmt.bits:3}   {digits:35} {value:.10f}   {abs(value / third - 1):.1e}")
    if fmt.dtype is not None:
        assert torch.tensor(third).to(fmt.dtype).double().item() == value  # the package is what torch does

# %% [markdown]
# - The fraction of 1/3 is 0101… for ever. Each format cuts it somewhere and rounds, so the last digit may differ.
# - "bf16 has the same range as fp32" is true; "so it is as good" is not: 0.3340 has two right digits after the point,
#   and a value of 8 bits has one. <!-- claim: CELL fmt.digits(int(fmt.encode(third))) -->
# - To nearest, the error is at most half the distance to the neighbour. Just above a power of two that distance is
#   $2^{-m}$ of the number, with $m$ fraction bits; further up in the binade it is a smaller part of it.
#
# **Exercise 02.bound.** The bound on the relative error of a normal number, rounded to nearest with that many fraction
# bits.

# %%
def bound(fraction_bits):
    """No normal number is further off than this, as a share of itself."""
    ### BEGIN SOLUTION
    return 2.0 ** -(fraction_bits + 1)
    ### END SOLUTION

# %%
check("02.bound", bound)

# %% [markdown]
# ## 2 · A thousand numbers
#
# One number proves nothing. Here are 1,000 from a normal distribution, and the relative error of each against its size.

# %%
normals = torch.randn(1000, generator=torch.Generator().manual_seed(0))  # (1000,)
fig, ax = plt.subplots(figsize=(7, 3.4))
for name, color in zip(("e5m2", "e4m3fn", "bf16", "fp16"), ("vermillion", "orange", "blue", "green"), strict=True):
    error = ((FLOATS[name].round(normals) - normals) / normals).abs()  # (1000,)
    ax.loglog(normals.abs(), error.clamp(min=1e-7), ".", ms=3, color=COLORS[color], label=name)
    ax.axhline(2.0 ** -(FLOATS[name].mantissa + 1), color=COLORS[color], lw=1, ls="--")
ax.set(xlabel="size of the number", ylabel="relative error", ylim=(1e-6, 2), title="Error of a cast, and its bound")
ax.legend(loc="lower left", ncols=4, markerscale=4)
show(fig, alt="Scatter plot on logarithmic axes: relative error against size for e5m2, e4m3fn, bf16 and fp16. "
     "Each cloud lies below its dashed bound at every size, except that e4m3fn rises above its own for "
     "numbers below about 0.016.")

# %% [markdown]
# - The bound is the same for small numbers and for large ones: floats have a **relative** error. An integer grid has an absolute one.
# - e4m3fn leaves its bound below 1/64. Those are its *subnormals*: the exponent has reached its end, steps no longer
#   shrink, and the error becomes absolute. <!-- claim: MATH 2**-6 -->
#
# In figures, first by hand, then as `downcast_report` gives it:

# %% tags=["measured"]
for name in ("fp16", "bf16", "e4m3fn", "e5m2", "e2m1"):
    after = FLOATS[name].round(normals.double())  # (1000,)
    error = after - normals
    report = downcast_report(normals, name)
    assert report.max_error == error.abs().max() and report.underflowed == int(((after == 0) & (normals != 0)).sum())
    assert abs(report.relative_error - error.norm() / normals.double().norm()) < 1e-12
    print(f"{name:7} largest {report.max_error:.5f}, mean {report.mean_error:.5f}, relative {report.relative_error:.5f}; "
          f"{report.underflowed:3} became 0; {report.bytes_before} -> {report.bytes_after} bytes")

# %% [markdown]
# - Half the bits cost almost nothing here: the numbers lie in the middle of every range.
# - e2m1 has 15 values from -6 to 6. What is smaller than a quarter becomes 0. <!-- claim: MATH 2**4 - 1; MATH 1.5 * 2**2 -->
#
# **Before you run it.** Gradients are not of size 1. Take the same 1,000 numbers times $10^{-7}$, and times $10^5$, in
# fp16 and in bf16. How many will be left?
#
# <details><summary>After you have run it</summary>
# fp16 has nothing between 0 and 2<sup>-24</sup> (6.0e-8) and nothing finite above 65504: about a quarter of the
# small ones become 0, and about half of the large ones infinity. bf16 has fp32's exponent and loses none.
# <!-- claim: MATH 2**-24 -->
# </details>

# %% tags=["measured"]
for factor in (1e-7, 1, 1e5):
    for name in ("fp16", "bf16"):
        report = downcast_report(normals * factor, name)
        print(f"times {factor:5.0e} in {name}: {report.underflowed:3} became 0, {report.overflowed:3} infinite, "
              f"relative error of the rest {report.relative_error:.4f}")

# %%
small, large = downcast_report(normals * 1e-7, "fp16"), downcast_report(normals * 1e5, "fp16")
assert 150 < small.underflowed < 350 and 400 < large.overflowed < 620
assert downcast_report(normals * 1e-7, "bf16").underflowed == downcast_report(normals * 1e5, "bf16").overflowed == 0

# %% [markdown]
# **Exercise 02.losses.** Count what a cast has made unusable, as a pair: numbers that were finite and are not any more,
# and numbers that were not 0 and are now. (`tensor.isfinite()` is false for infinity and for NaN.)

# %%
def losses_of(before, after):
    """(overflowed, underflowed) of a cast: two float tensors of one shape -> two ints."""
    ### BEGIN SOLUTION
    overflowed = before.isfinite() & ~after.isfinite()
    underflowed = (before != 0) & (after == 0)
    return int(overflowed.sum()), int(underflowed.sum())
    ### END SOLUTION

# %%
check("02.losses", losses_of)

# %% [markdown]
# ### Traps at the ends
#
# fp16's last values, seen closely. Where is the border between 65504 and infinity?

# %%
top = torch.tensor([65408.0, 65440, 65472, 65504])  # (4,): the last values of fp16, 32 apart
fig, ax = plt.subplots(figsize=(7, 1.7))
ax.plot(top, torch.zeros(4), "|", ms=26, mew=3, color=COLORS["blue"])
ax.plot(65536, 0, "|", ms=26, mew=3, color="0.6")
ax.axvspan(65520, 65550, color=COLORS["vermillion"], alpha=0.25)
ax.axvline(65520, color=COLORS["vermillion"], lw=1)
for x, y, text in [(65504, 0.3, "65504\nlargest"), (65520, 1.1, "65520, half-way"), (65536, 0.3, "65536\nwould be next")]:
    ax.annotate(text, (x, y), ha="center", va="bottom", fontsize=9)
ax.set(yticks=[], xlim=(65400, 65550), ylim=(-0.5, 1.5), xlabel="fp16 near its end")
ax.grid(visible=False)
show(fig, alt="Number line of fp16's last values 65408, 65440, 65472 and 65504, 32 apart. 65536, in grey, would be "
     "next. From the half-way point 65520 on, a shaded region marks what becomes infinity.")

# %%
half = torch.tensor([65504.0, 65519.0, 65520.0]).half()
assert half.tolist() == FLOATS["fp16"].round(torch.tensor([65504.0, 65519.0, 65520.0])).tolist()
print("65504, 65519, 65520 in fp16: ", half.tolist())
print("3.4e38 in bf16:              ", torch.tensor(3.4e38).bfloat16().item())
print("int8 127 + 1:                ", (torch.tensor(127, dtype=torch.int8) + 1).item())
print("600 in e4m3fn, which has no infinity:", FLOATS["e4m3fn"].round(600.0).item(),
      "or, asked to saturate,", FLOATS["e4m3fn"].round(600.0, saturate=True).item())

# %% [markdown]
# - Overflow does not begin at 65504 but where rounding goes up: 65520 is half-way to 65536, and ties go to the even
#   neighbour, which is the one that does not exist.
# - Integers do not overflow to infinity, they **wrap**: 127 + 1 is -128.
# - Float to integer, out of range, is worse: C++ calls it *undefined*. What comes out depends on the processor and
#   the compiler, and need not be the same for a number alone and in a long tensor. And a cast to fp8 saturates in some
#   versions of torch where the format's own rule gives NaN. On this machine:

# %% tags=["measured"]
for value in (200.0, -129.0, 300.0):
    alone = torch.tensor(value)
    in_row = torch.full((64,), value)  # (64,): long enough for vector instructions
    print(f"{value:6} as int8: {alone.to(torch.int8).item():4}, in a row {in_row.to(torch.int8)[0].item():4};  as uint8:",
          f"{alone.to(torch.uint8).item():3}, in a row {in_row.to(torch.uint8)[0].item():3}")
print("600 cast to e4m3fn by torch", torch.__version__, "gives", torch.tensor(600.0).to(torch.float8_e4m3fn).item())

# %% [markdown]
# **Clamp first, cast last.** That is the whole remedy, and the order matters. It comes back in section 4.

# %% [markdown]
# ## 3 · Sums
#
# A model is made of sums: every output of a linear layer adds up hundreds of products. Add 0.1 again and again, with
# each total rounded to the type, as an adder of that type would do:

# %%
def small(x, dtype):
    """Round float32 numbers to a type and come back."""
    return x.to(dtype).float()


def running_sum(terms, dtype):
    """All totals of a sum in a type: terms (..., n) -> (..., n)."""
    terms, total, totals = small(terms, dtype), torch.zeros(terms.shape[:-1]), []
    for term in terms.unbind(-1):
        total = small(total + term, dtype)
        totals.append(total)
    return torch.stack(totals, dim=-1)


tenths = torch.full((5000,), 0.1)  # (5000,)
types = {name: FLOATS[name].dtype for name in ("fp16", "bf16", "e4m3fn", "e5m2")}
totals = {name: running_sum(tenths, dtype) for name, dtype in types.items()}
for name in types:  # the package computes the same, in its own way, and without torch's types
    assert totals[name][299] == dot(tenths[:300], torch.ones(300), name)

# %% [markdown]
# **Before you run it.** 5,000 tenths are 500. What does each of the four types get? <!-- claim: MATH 5000 / 10 -->
#
# <details><summary>After you have run it</summary>
# They stop, at 256, 32, 2 and 1. Near 256, fp16's values are 0.25 apart: the total plus 0.1 lies less than half-way
# to the next value and is rounded back. From there on every term is lost, and more terms do not help.
# <!-- claim: MATH 2**8 / 2**10 -->
# </details>

# %%
fig, ax = plt.subplots(figsize=(7, 3.6))
count = torch.arange(1, 5001)
ax.loglog(count, 0.1 * count, color="0.7", lw=5, label="exact")
for (name, values), color in zip(totals.items(), ("green", "blue", "orange", "vermillion"), strict=True):
    ax.loglog(count, values, color=COLORS[color], label=f"{name}: {values[-1]:g}")
ax.set(xlabel="terms", ylabel="total", title="0.1 + 0.1 + 0.1 + …")
ax.legend()
show(fig, alt="Line plot on logarithmic axes: the total against the number of terms. The exact line goes on to "
     "500; e5m2 leaves it at 1, e4m3fn at 2, bf16 at 32 and fp16 at 256, and each stays there.")
assert [values[-1].item() for values in totals.values()] == [256, 32, 2, 1]

# %% [markdown]
# **Exercise 02.stuck.** At which power of two does a sum of equal positive terms stop? It stops at the first power of
# two $P$ that is at least as large as the term and whose step, $P \cdot 2^{-m}$, is so wide that the term is at most
# half of it. (Exactly half goes to the even neighbour: a power of two is even, so it stays.)

# %%
def stuck(term, fraction_bits):
    """The power of two at which adding `term` changes nothing any more, as a float."""
    ### BEGIN SOLUTION
    power = 2.0 ** math.floor(math.log2(term))
    while term > power * 2.0**-fraction_bits / 2:
        power *= 2
    return power
    ### END SOLUTION

# %%
check("02.stuck", stuck)

# %% [markdown]
# ### Three remedies
#
# - **Pairwise**: add neighbours, then the sums of neighbours, and so on. Both parts of each addition are then of about
#   the same size. $\log_2 n$ roundings lie between a term and the total, not $n$.
# - **Kahan**: after each addition compute what it lost, and take it off the next term.
# - **A wider accumulator**: keep the total in fp32, and round once at the end.

# %%
generator = torch.Generator().manual_seed(1)
factors, ones = torch.rand(32, 1024, generator=generator), torch.ones(32, 1024)  # 32 sums of numbers in 0..1
lengths = (16, 64, 256, 1024)
ways = {"naive": {}, "pairwise": {"order": "pairwise"}, "Kahan": {"order": "kahan"}, "fp32 total": {"accumulate": "fp32"}}
drift = {}
for way, options in ways.items():
    for n in lengths:
        exact = FLOATS["bf16"].round(factors[:, :n]).double().sum(1)  # (32,): of the rounded terms
        got = dot(factors[:, :n], ones[:, :n], "bf16", **options)  # (32,)
        drift[way, n] = float((FLOATS["bf16"].round(got) / exact - 1).abs().mean())

# %% [markdown]
# **Before you run it.** In bf16, with its 8 significant bits: which of the four get worse as the sum gets longer?
#
# <details><summary>After you have run it</summary>
# The naive sum, by far, and the pairwise one a little. The other two end as far off as a single rounding does, however
# many terms there are.
# </details>

# %%
fig, ax = plt.subplots(figsize=(7, 3.4))
for way, marker in zip(ways, "osD^", strict=True):
    ax.loglog(lengths, [drift[way, n] for n in lengths], marker=marker, label=way)
ax.axhline(2.0**-8, color="0.6", ls="--", lw=1, label="bound of one rounding")
ax.set(xlabel="terms", ylabel="mean relative error", title="Sums in bf16", xticks=lengths, xticklabels=lengths)
ax.minorticks_off()
ax.legend()
show(fig, alt="Mean relative error of sums in bf16 against their length: the naive sum rises from below one per cent "
     "to a half; pairwise rises a little; Kahan's and the one with a float32 total stay below the bound of a "
     "single rounding, drawn dashed.")
assert 0.45 < drift["naive", 1024] < 0.55 and drift["pairwise", 1024] < 0.01
assert drift["Kahan", 1024] < 2.0**-8 and drift["fp32 total", 1024] < 2.0**-8

# %% [markdown]
# - Half of the naive sum is missing at 1,024 terms. Pairwise is safe for most purposes; numpy's own sums are
#   pairwise along the last axis.
# - Kahan's sum and the float32 total are as good as a sum can be whose result is rounded to bf16.
#
# **Exercise 02.kahan.** Write it: `lost` starts at 0. For each term, take `lost` off it, add that to the total, and
# compute the new `lost`: how much the total has grown, minus the term that should have been added. Round the result of
# *each* operation with `small(...)`, which here takes one argument.

# %%
def kahan(terms, small):
    """The sum (a float) of terms (n,) that are already of the type; small(x) rounds a number to it."""
    ### BEGIN SOLUTION
    total = lost = torch.tensor(0.0)
    for term in terms:
        term = small(term - lost)
        new = small(total + term)
        lost = small(small(new - total) - term)
        total = new
    return float(total)
    ### END SOLUTION

# %%
check("02.kahan", kahan)

# %% [markdown]
# Is it good for fp8, too? **Before you run it:** 2,000 tenths once more, in e4m3fn. A tenth becomes 0.1015625 there, and
# 2,000 of them are 203.125. Its neighbours in e4m3fn are 192 and 208.
# <!-- claim: MATH 13 / 128; MATH 2000 * 13 / 128; MATH 1.5 * 2**7; MATH 1.625 * 2**7 -->
#
# <details><summary>After you have run it</summary>
# Kahan gets stuck as well, only later: what is lost is itself kept in four significant bits, and when it grows far beyond
# a term, adding a term to <i>it</i> changes nothing. In fp8 nobody adds at all; products of fp8 numbers are added up in
# something wider.
# </details>

# %%
for way, options in ways.items():
    total = float(dot(tenths[:2000], torch.ones(2000), "e4m3fn", **options))
    print(f"{way:11} {total:8g}, as a number of e4m3fn {FLOATS['e4m3fn'].round(total).item():g}")
assert total == 2000 * FLOATS["e4m3fn"].round(0.1).item() == 203.125  # the last way: exact, until it is cast

# %% [markdown]
# ### Turn the slider
#
# The figure says what the widget shows, for one length; with the widget you can see the drift grow. It needs a running
# kernel.

# %%
uniform = torch.rand(4096, generator=torch.Generator().manual_seed(2))  # (4096,)
curves = {name: (running_sum(uniform, dtype).double() / small(uniform, dtype).double().cumsum(0) - 1).abs()
          for name, dtype in types.items()}  # each (4096,): the relative error after each term


def drift_figure(name, n):
    """The error of a naive sum in one type against its length, up to n terms."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    ax.plot(range(1, n + 1), 100 * curves[name][:n], color=COLORS["blue"])
    ax.axhline(100 * 2.0 ** -(FLOATS[name].mantissa + 1), color="0.6", ls="--", lw=1, label="one rounding")
    ax.set(xlabel="terms", ylabel="relative error (%)", ylim=(0, None),
           title=f"{name}: after {n} terms {100 * curves[name][n - 1]:.1f} % are missing")
    ax.legend(loc="upper left")
    return fig


show(drift_figure("bf16", 1024), alt="Relative error in per cent of a naive sum in bf16 against the number of terms, up "
     "to 1,024: small for a hundred terms, then rising steadily to far above the dashed bound of one rounding.")

# %% tags=["measured"]
show_widget(live_figure(
    lambda name, length: drift_figure(name, 2**length),
    name=ipywidgets.Dropdown(options=list(types), value="bf16", description="type"),
    length=ipywidgets.IntSlider(value=10, min=3, max=12, description="log₂ terms"),
), alt="A type to choose and a slider for the number of terms redraw the figure above: the relative error of a naive sum "
       "against its length.")

# %% [markdown]
# ### The matrix product
#
# Its terms have both signs, so totals stay small and sums do not get stuck so soon. Is it then safe to add up in the
# small type? 16 × 16 products of random normal vectors, in fp16 and in bf16:

# %%
a, b = (torch.randn(1024, 16, generator=generator) for _ in range(2))  # (1024, 16) each
sizes = (16, 64, 256, 1024)
error = {}
for name in ("fp16", "bf16"):
    for n in sizes:
        exact = a[:n].double().T @ b[:n].double()  # (16, 16)
        for accumulator in (name, "fp32"):
            got = matmul(a[:n].T, b[:n], name, accumulate=accumulator)  # (16, 16)
            error[name, accumulator, n] = float((got - exact).norm() / exact.norm())

# %%
fig, ax = plt.subplots(figsize=(7, 3.4))
for name, color in (("bf16", "blue"), ("fp16", "green")):
    for accumulator, style in ((name, "o-"), ("fp32", "s--")):
        ax.loglog(sizes, [error[name, accumulator, n] for n in sizes], style, color=COLORS[color],
                  label=f"{name} factors, {accumulator} sums")
ax.set(xlabel="terms in each sum", ylabel="relative error of the product", xticks=sizes, xticklabels=sizes)
ax.minorticks_off()
ax.legend(fontsize=9)
show(fig, alt="Relative error of a matrix product against the length of its sums. With sums in the small type it rises, "
     "for bf16 and fp16 alike; with sums in float32 it stays flat, at the error of rounding the factors.")
for name in ("fp16", "bf16"):
    assert error[name, name, 1024] > 3 * error[name, "fp32", 1024]
    assert error[name, "fp32", 1024] < 1.5 * error[name, "fp32", 16]

# %% [markdown]
# - With float32 sums only the factors are rounded: the errors have both signs, average out, and do not grow with the
#   length. With small sums they grow.
# - This is why the matrix units of GPUs and CPUs take small factors and **accumulate in fp32**. Multipliers are what
#   costs area, and they get small; the adder stays wide.
# - When somebody says "computed in bf16", ask what the sums were computed in.

# %% [markdown]
# ## 4 · Nine numbers in int8
#
# The lecture notes that this course grew out of show a matrix "in int8": 13.5 has become 13, 14.3 has become 4, 8.5 has
# become 8, and 3.2 has become 4. These four pairs and the value -4.7 are theirs. The other four values are ours, chosen so
# that they have the codes of the right solution below; so are the other five integers, which are correct.

# %%
matrix = torch.tensor([[13.5, 14.3, 8.5], [-4.7, -3.2, -6.4], [-0.4, 1.3, 3.2]])  # (3, 3)
claimed = torch.tensor([[13, 4, 8], [-5, -3, -6], [0, 1, 4]])  # (3, 3)
print("the cast, which cuts off:", matrix.to(torch.int8).flatten().tolist())
print("the notes:               ", claimed.flatten().tolist())

# %% [markdown]
# **Exercise 02.slips.** Mark the entries that are not what `torch.round` gives.

# %%
def slips(matrix, claimed):
    """True where a claimed integer is not the nearest one, halves to even: bool, of the matrix's shape."""
    ### BEGIN SOLUTION
    return claimed != torch.round(matrix)
    ### END SOLUTION

# %%
check("02.slips", slips)

# %% [markdown]
# **Before you run it.** There are three wrong ones to find under torch's rule. How many are there if halves go up, as at
# school? And is there a rule under which 13.5 → 13 and 8.5 → 8 are both right?
#
# <details><summary>After you have run it</summary>
# Four: 8.5 would have to become 9. And yes, halves down. <!-- claim: MATH ceil(8.5) -->
# </details>

# %%
rules = {"halves to even": torch.round(matrix), "halves up": torch.floor(matrix + 0.5),
         "halves down": torch.ceil(matrix - 0.5)}
for rule, right in rules.items():
    wrong = [f"{value:g} → {int(got)}" for value, got, want in zip(
        matrix.flatten().tolist(), claimed.flatten(), right.flatten(), strict=True) if got != want]
    print(f"{rule:15} {len(wrong)} wrong: {', '.join(wrong)}")
assert [int((claimed != right).sum()) for right in rules.values()] == [3, 4, 2]

# %% [markdown]
# - 14.3 → 4 has lost a digit and 3.2 → 4 went the wrong way, under any rule. 13.5 → 13 is wrong for torch and at school;
#   8.5 → 8 is right for torch and wrong at school. Halves down would excuse both, but nobody computes so.
# - That is three mistakes, or four. The one that matters more is in none of the entries: **there is no scale**. Plain
#   integers use the codes -6 to 14 of 256. And they fail at once for weights of a real size, which are fractions.
#   <!-- claim: MATH 2**8 -->
#
# So do it properly: the largest size becomes code 127.

# %%
scale = (matrix.abs().max() / 127).item()
grids = {"plain integers": (torch.arange(-7, 16.0), 1.0), "with the scale": (scale * torch.arange(-62, 134.0), scale)}
fig, axes = plt.subplots(2, 1, figsize=(7, 2.8), sharex=True)
for ax, (name, (grid, step)) in zip(axes, grids.items(), strict=True):
    ax.plot(grid, torch.zeros_like(grid), "|", ms=16, mew=1, color="0.6")
    values = matrix.flatten()
    ax.plot(values, torch.full((9,), 0.3), "o", ms=5, color=COLORS["blue"])
    goals = torch.round(values / step) * step
    ax.plot(torch.stack((values, goals)), torch.tensor([[0.3], [0.0]]).expand(2, 9), color=COLORS["vermillion"], lw=1.5)
    ax.set(yticks=[], ylim=(-0.3, 0.6), title=f"{name}: a step of {step:.4f}", xlim=(-7.2, 15))
    ax.grid(visible=False)
show(fig, alt="Two number lines with nine weights above each and a line from each to the value it is rounded to. Above, "
     "whole numbers, and slanting lines; below, a grid about nine times as fine, and lines that look vertical.")

# %% [markdown]
# **Exercise 02.to_int8.** Codes and scale of any matrix: scale = largest size / 127, then divide, round, clamp to
# -127…127, and cast *last*. Return `(codes, scale)` with int8 codes and the scale as a Python float.

# %%
def to_int8(weight):
    """(int8 codes of the weight's shape, scale) on a symmetric grid; the weight is not all 0."""
    ### BEGIN SOLUTION
    scale = (weight.abs().max() / 127).item()
    return torch.round(weight / scale).clamp(-127, 127).to(torch.int8), scale
    ### END SOLUTION

# %%
check("02.to_int8", to_int8)

# %%
codes = torch.round(matrix / scale).clamp(-127, 127).to(torch.int8)  # (3, 3)
plain, scaled = (torch.round(matrix) - matrix).abs().max(), (codes * scale - matrix).abs().max()
print("codes", codes.tolist(), f"scale 14.3 / 127 = {scale:.4f}")
print(f"largest error: {plain:.3f} with plain integers, {scaled:.3f} with the scale")
assert codes.tolist() == [[120, 127, 75], [-42, -28, -57], [-4, 12, 28]]
assert scaled <= scale / 2 and plain == 0.5

# %% [markdown]
# The notes go on: *36 bytes become 9*. But codes without their scale are no weights.
# <!-- claim: MATH 4 * 3 * 3; MATH 3 * 3 -->
#
# **Exercise 02.bytes.** The bytes of an int8 matrix with its float32 scales: one for the matrix, or one for each row.

# %%
def int8_bytes(rows, columns, per_row):
    """Bytes of codes and scales; per_row is a bool."""
    ### BEGIN SOLUTION
    return rows * columns + 4 * (rows if per_row else 1)
    ### END SOLUTION

# %%
check("02.bytes", int8_bytes)

# %%
for shape in ((3, 3), (768, 192)):
    before = torch.empty(shape).nbytes
    for scales, name in ((1, "one scale"), (shape[0], "one a row")):
        after = torch.empty(shape, dtype=torch.int8).nbytes + torch.empty(scales).nbytes
        print(f"{shape[0]:3} x {shape[1]:3}, {name}: {before} -> {after} bytes, {before / after:.2f} times smaller")
        if shape == (3, 3) and scales == 1:
            assert (before, after) == (36, 13)

# %% [markdown]
# 13 bytes, not 9: 2.8 times smaller, not 4. On a real matrix the scale no longer shows. That holds for big blocks; with a
# scale for every 32 weights it shows again (section 7).
# <!-- claim: MATH 3 * 3 + 4; MATH 3 * 3; MATH 36 / 13; FILE nanoq/numbers/blocks.py -->

# %% [markdown]
# ## First stop
#
# The numbers end here: what a cast loses, what a sum loses, and what a scale is for. To go on another day, run all cells
# above once more and begin below.

# %% [markdown]
# ## 5 · Memory and speed on this machine
#
# The bytes are certain:

# %%
for name, dtype in {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
                    "e4m3fn": torch.float8_e4m3fn, "int8": torch.int8}.items():
    print(f"{name:7} {torch.empty(1_000_000, dtype=dtype).nbytes:,} bytes for 1,000,000 numbers")
print("a byte is the smallest that torch addresses: two 4-bit codes share one, and packing them is up to us")

# %% [markdown]
# **Before you run it.** The same product of two 256 × 256 matrices, in four types. bf16, fp16 and int8 move a half or a
# quarter of the bytes. Are they twice and four times as fast?
#
# <details><summary>After you have run it</summary>
# It depends on the machine, and not on the bytes. A matrix product is fast where the processor has an instruction that
# multiplies and adds vectors of that type, <i>and</i> the library has code that uses it. Where either is missing, the
# same loop runs number by number, or converts each operand as it goes along. A large factor against fp32 is not rare.
# </details>

# %% tags=["measured"]
times = probe_products()
show(plot_products(times), alt="Bars: the time of one matrix product in bf16, fp16 and int8 if it takes 1 in fp32, on a "
     "logarithmic axis. The sentence below the figure says what they show on this machine.")
print(describe_products(times))

# %% [markdown]
# ### Why?
#
# Two questions to the machine. Which instructions has it? And does the time go into arithmetic that it has not got, or
# into the bytes? If a slow product gets faster when we *convert* both matrices to fp32, multiply them there, and convert
# the result back, then it was not the bytes: three more passes over memory have made it faster.

# %% tags=["measured"]
print("vector instructions that torch uses:", machine_report().instructions)
capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions of torch
for kind, parts in {"bf16": ("bf16",), "fp16": ("fp16",), "int8": ("int8", "vnni")}.items():
    has = [name for name, there in capabilities.items() if there is True and any(part in name for part in parts)]
    print(f"arithmetic in {kind}: {', '.join(has) or 'none reported'}")

# %%
def quickest(run, seconds=0.15):
    """The shortest time of run() within some seconds, but of two runs at least."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best

# %%
def copies(kinds, long=2**25, rounds=20):
    """Seconds of copying a vector of each type: the same two buffers for all, in turns, and the shortest time of each."""
    source = torch.ones(4 * long, dtype=torch.uint8)  # 4 bytes for each number; smaller types use the front of it
    goal = torch.ones_like(source)
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(rounds):
        for name, dtype in kinds.items():
            into, data = (buffer[: long * dtype.itemsize].view(dtype) for buffer in (goal, source))  # (long,) each
            best[name] = min(best[name], quickest(partial(into.copy_, data), seconds=0.05))
    return best


def two_products(dtype, size=256):
    """Seconds of a product, and of the product by way of fp32."""
    x = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(dtype)  # (size, size)
    return quickest(lambda: x @ x), quickest(lambda: (x.float() @ x.float()).to(dtype))

# %% tags=["measured"]
kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
copied = copies(kinds)
seconds = {name: (*two_products(dtype), copied[name]) for name, dtype in kinds.items()}
labels = ("product", "product by way of fp32", "copy of 34 million numbers")
fig, ax = plt.subplots(figsize=(7, 3))
for column, (label, color) in enumerate(zip(labels, ("vermillion", "blue", "green"), strict=True)):
    ratios = [seconds[name][column] / seconds["fp32"][column] for name in kinds]
    ax.bar([place + 0.27 * (column - 1) for place in range(3)], ratios, 0.25, color=COLORS[color], label=label)
ax.axhline(1, color="black", lw=1)
ax.set(xticks=range(3), xticklabels=list(kinds), yscale="log", ylabel="time, fp32 = 1", ylim=(0.1, None))
ax.legend(fontsize=9, loc="upper left")
show(fig, alt="Bars for fp32, bf16 and fp16: time of a product, of the same product by way of float32, and of copying a "
     "vector, each against float32. The sentences below say what they show on this machine.")
for name in ("bf16", "fp16"):
    direct, detour, copy = (took / seconds["fp32"][i] for i, took in enumerate(seconds[name]))
    slow = "conversion wins: the fast arithmetic for it is missing here" if detour < direct else "there is code for it"
    print(f"{name}: product {direct:.2f}, by way of fp32 {detour:.2f} ({slow}); copy {copy:.2f} times fp32's")

# %% [markdown]
# - A type without instructions, or without library code for them, is **emulated**: fewer bytes, more work. The remedy is
#   what the middle bar does: store small, compute in fp32. So this course uses its quantised weights, up to notebook 08,
#   whose kernels convert them in the processor's registers.
# - Copying is all bytes and no arithmetic, so it is **memory-bound**: by the bytes alone, the third bar should stand at
#   0.5 for both 16-bit types. Both copy the same bytes, between the same two buffers; how far their bars lie apart says how
#   much other work on this machine disturbs the measurement. If both stand well below 0.5, either a cache holds the smaller
#   vectors, or the copy in fp32 was disturbed. <!-- claim: MATH 16 / 32 -->
# - Which of the two a product is depends on how often each number that was fetched is used.
#
# **Exercise 02.intensity.** A layer with `out` × `width` weights on `batch` inputs: how many operations (a multiplication
# and an addition count two) for each byte moved? Weights and inputs are read once, outputs written once, each number with
# `size` bytes.

# %%
def intensity(out, width, batch, size):
    """Operations for each byte of (out, width) times (width, batch)."""
    ### BEGIN SOLUTION
    operations = 2 * out * width * batch
    return operations / (size * (out * width + width * batch + out * batch))
    ### END SOLUTION

# %%
check("02.intensity", intensity)

# %% tags=["measured"]
batches = [2**k for k in range(11)]
fig, ax = plt.subplots(figsize=(7, 3.2))
for size, name, color in ((4, "4 bytes", "vermillion"), (2, "2 bytes", "blue"), (1, "1 byte", "green")):
    moved = [size * (4096 * 4096 + 2 * 4096 * batch) for batch in batches]
    ax.loglog(batches, [2 * 4096 * 4096 * n / m for n, m in zip(batches, moved, strict=True)], color=COLORS[color], label=name)
rate, traffic = 2 * 256**3 / seconds["fp32"][0], 2 * 4 * 2**25 / seconds["fp32"][2]
ax.axhline(rate / traffic, color="0.4", ls="--", lw=1.5, label="this machine, fp32")
ax.set(xlabel="batch", ylabel="operations a byte", title="A layer of 4096 × 4096")
ax.legend(fontsize=9)
show(fig, alt="Operations for each byte against the batch on logarithmic axes, for numbers of 4, 2 and 1 bytes: straight "
     "lines that flatten at large batches. A dashed level marks what this machine can do; below it memory is the limit.")
print(f"this machine: {rate / 1e9:.0f} thousand million operations and {traffic / 1e9:.0f} GB a second, so "
      f"{rate / traffic:.0f} operations a byte: below that level it waits for memory")

# %% [markdown]
# - Left, below the dashed level, the processor waits for memory. Fewer bytes are then less time, even if each number
#   has to be converted first. Writing text token by token is this case: batch 1, every weight read for one use.
# - Right, above it, arithmetic is the limit. Then only instructions for the small type help: AMX or AVX512-BF16 on a
#   CPU, tensor cores on a GPU. Training and reading long texts are this case.

# %% [markdown]
# ### Batch size against memory
#
# Weights are not all that fills the memory in training. For each parameter there is a gradient and, with AdamW, two
# moments: 16 bytes, whatever the batch. And the backward pass needs the **activations** of the forward pass, which grow
# with the batch. autograd tells what it keeps:

# %%
def kept_bytes(model, batch, dtype=None):
    """Bytes that autograd keeps for the backward pass, the model's own parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()  # two views of one tensor are kept once
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    tokens = torch.zeros(batch, model.config.context + 1, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast(
            "cpu", dtype=torch.bfloat16, enabled=dtype is not None):
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1).float(), tokens[:, 1:].flatten())
    return sum(kept.values())

# %% tags=["measured"]
course = GPT(GPTConfig(vocab_size=80))  # the shape of the course's model
batches = (1, 2, 4, 8)
kept = {kind: [kept_bytes(course, n, dtype) for n in batches] for kind, dtype in (("fp32", None), ("bf16", "bf16"))}
fixed = 16 * course.parameter_count()
fig, ax = plt.subplots(figsize=(7, 3.2))
for offset, (kind, sizes), color in zip((-0.2, 0.2), kept.items(), ("blue", "orange"), strict=True):
    places = [place + offset for place in range(4)]
    ax.bar(places, [fixed / 1e6] * 4, 0.38, color="0.8", label="16 bytes a parameter" if offset < 0 else None)
    ax.bar(places, [size / 1e6 for size in sizes], 0.38, bottom=fixed / 1e6, color=COLORS[color],
           label=f"kept for the backward pass, {kind}")
ax.set(xticks=range(4), xticklabels=batches, xlabel="batch (sequences of 256 tokens)", ylabel="MB (10⁶ bytes)")
ax.legend(fontsize=9)
show(fig, alt="Stacked bars at batch 1, 2, 4 and 8: a constant part for weights, gradients and moments, and on it the "
     "activations, in proportion to the batch, less for bf16 than for float32.")
for kind, sizes in kept.items():
    print(f"{kind}: {' '.join(f'{size / 1e6:.0f}' for size in sizes)} MB kept, beside {fixed / 1e6:.0f} MB")

# %%
assert abs(kept["fp32"][3] / kept["fp32"][0] / 8 - 1) < 0.05  # in proportion to the batch
assert kept["bf16"][3] < 0.85 * kept["fp32"][3]
growth = {kind: (sizes[3] - sizes[2]) / 4 for kind, sizes in kept.items()}  # bytes for one more sequence
assert 0.4 < growth["bf16"] / growth["fp32"] < 0.85

# %% [markdown]
# - Mixed precision saves memory in the **activations**, and so lets the batch grow. It saves none in the 16 bytes: the
#   master weights and moments stay in float32.
# - It is not half, either: norms, loss and the sums that pass from block to block stay in float32, and `autocast` keeps a
#   bf16 copy of every weight.
#
# **Exercise 02.largest_batch.** How many sequences fit into `memory` bytes, with 16 bytes for each parameter and `each`
# bytes of activations for each sequence? All are ints, and the answer is one: 0 where not even the model fits.

# %%
def largest_batch(memory, parameters, each):
    """The largest batch that fits."""
    ### BEGIN SOLUTION
    return max(0, (memory - 16 * parameters) // each)
    ### END SOLUTION

# %%
check("02.largest_batch", largest_batch)

# %% [markdown]
# ## 6 · Casting our GPT
#
# The model of the course, in fp32, and its loss on held-out text. That text is *generated* (`tales`), and so are all
# perplexities of this section: they compare formats, and say nothing about English.

# %%
checkpoint = nanoq.load("tales-2.7m")
corpus = load_corpus(checkpoint.card["corpus"])
held_out = checkpoint.tokenizer.encode(corpus.test)
count = pick(ci=4, lab=32, full=256)  # windows of 256 predictions
base = window_losses(checkpoint.model, held_out, limit=count)  # (count,) float64
weights = torch.cat([p.detach().flatten() for p in checkpoint.model.parameters()])  # every parameter
print(f"{len(weights):,} parameters")

# %% [markdown]
# Where do they lie, and where do the formats begin and end?

# %%
fig, ax = plt.subplots(figsize=(7, 3))
ax.hist(weights[weights != 0].abs().log2().numpy(), bins=120, range=(-20, 4), color=COLORS["blue"])
top = ax.get_ylim()[1]
for height, (name, color) in enumerate((("e2m1", "vermillion"), ("e4m3fn", "orange"), ("e5m2", "purple"), ("fp16", "green"))):
    fmt, y = FLOATS[name], top * (1.05 + 0.14 * height)
    low, high = (max(-20.0, torch.tensor(x).log2().item()) for x in (fmt.min_subnormal, fmt.max))
    ax.plot([low, min(4, high)], [y, y], color=COLORS[color], lw=5, solid_capstyle="butt")
    ax.annotate(name, (low, y), xytext=(3, 4), textcoords="offset points", fontsize=9, annotation_clip=False)
ax.set(xlabel="log₂ of a parameter's size", ylabel="how many", xlim=(-20, 4), ylim=(0, 1.6 * top))
show(fig, alt="Histogram of the binary logarithm of the sizes of all parameters, most of them between -10 and 0, with bars "
     "for the ranges of e2m1, which begins at -1, e4m3fn from -9, e5m2 from -16 and fp16 from beyond the left edge; "
     "all four go on beyond the right edge or near to it.")
assert FLOATS["e2m1"].min_subnormal == 0.5 and FLOATS["e4m3fn"].min_subnormal == 2**-9

# %% [markdown]
# **Before you run it.** Every parameter is rounded to the nearest value of a format, nothing else. Which of fp16, bf16,
# e4m3fn, e5m2 and e2m1 will still write stories? The picture knows.
#
# <details><summary>After you have run it</summary>
# All but e2m1. Its bar begins at 2<sup>-1</sup>, to the right of most of the histogram: what is smaller than 0.25
# becomes 0. The other four reach far enough to the left.
# <!-- claim: MATH 2**-1 / 2 -->
# </details>

# %%
def cast(model, name, *, scaled=False):
    """A copy of the model with every parameter rounded to a format, with a scale for each tensor if asked for."""
    model, fmt = deepcopy(model), FLOATS[name]
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter.abs().max() / fmt.max if scaled else 1.0
            parameter.copy_(fmt.round(parameter / scale) * scale)
    return model


losses = {name: window_losses(cast(checkpoint.model, name), held_out, limit=count)
          for name in ("fp16", "bf16", "e4m3fn", "e5m2", "e2m1")}  # each (count,)
for name in ("e4m3fn", "e2m1"):
    losses[f"{name}, scaled"] = window_losses(cast(checkpoint.model, name, scaled=True), held_out, limit=count)

# %% tags=["measured"]
def table(names):
    """A line for each model: perplexity, and the added loss with its paired interval."""
    for name in names:
        added = paired_difference(losses[name], base)
        interval = f"{added.mean:+.5f} nats ({added.low:+.5f} to {added.high:+.5f})"
        print(f"{name:15} perplexity {perplexity(losses[name]):8.4f}   {interval}")


print(f"{'fp32':15} perplexity {perplexity(base):8.4f}   on {count} windows of generated text")
table(losses)
zeros = float((FLOATS["e2m1"].round(weights) == 0).float().mean())
print(f"in e2m1 without a scale, {100 * zeros:.1f} % of the parameters are 0")
pair = paired_difference(losses["e4m3fn, scaled"], losses["e4m3fn"])
print(f"e4m3fn, with a scale minus without: {pair.low:+.5f} to {pair.high:+.5f} nats")

# %%
added = {name: float((values - base).mean()) for name, values in losses.items()}
assert abs(added["fp16"]) < 0.001 and abs(added["bf16"]) < 0.003
assert added["bf16"] < added["e4m3fn"] < added["e5m2"] < 0.1 < 1 < added["e2m1"]
assert float((FLOATS["e2m1"].round(weights) == 0).float().mean()) > 0.8
assert added["e2m1, scaled"] < added["e2m1"] / 5 and abs(added["e4m3fn, scaled"] - added["e4m3fn"]) < 0.01

# %% [markdown]
# - 16 bits are as good as free, 8 bits cheap. Between the two 8-bit formats the fraction decides: e4m3fn has one bit more
#   of it than e5m2, and the weights do not need e5m2's range.
# - e2m1 without a scale loses almost everything: it rounds more than four in five parameters to 0. **With** a scale for
#   each tensor the same four bits give a model that still writes, at a price.
# - For e4m3fn a scale changes little, now for the better, now for the worse: its exponent reaches from the largest weight
#   down to the small ones by itself.
#   The fewer exponent bits, the more the scale matters; an integer has none, and cannot do without.
#
# **Exercise 02.scaled_cast.** The cast with a scale, for one tensor: the largest size becomes the format's largest value,
# `fmt.max`; `fmt.round(x)` rounds to nearest.

# %%
def scaled_cast(weight, fmt):
    """The weight, rounded to a format with a scale of its own."""
    ### BEGIN SOLUTION
    scale = weight.abs().max() / fmt.max
    return fmt.round(weight / scale) * scale
    ### END SOLUTION

# %%
check("02.scaled_cast", scaled_cast)

# %% [markdown]
# ## 7 · A scale for every block
#
# One scale for a whole tensor has to suit its largest weight. **Block formats** give one to every 16, 32 or 64
# neighbours, and make the scale itself small so that it does not eat what the codes have saved. `BLOCKS` has five; as
# grids for `quantize_model` they apply to the matrices of the linear layers, while embeddings and norms stay as they are.
#
# **Before you run it.** mxfp4 and nvfp4 both hold e2m1 codes. One has a power of two as scale for 32 weights, the other
# an e4m3 scale for 16. Which is better, and what does it cost? And how much of that would one scale for each row have
# done, in the same layers?
#
# <details><summary>After you have run it</summary>
# nvfp4, for a quarter of a bit more. A scale for each row goes about half of the way from one scale a matrix to nvfp4, and
# mxfp4 is close to it.
# </details>

# %%
def quantised(name):
    """The model with its linear layers in a block format, to nearest."""
    model = deepcopy(checkpoint.model)
    quantize_model(model, Recipe(bits=BLOCKS[name].bits, grid=name))
    return model


def e2m1_linear(dims):
    """The model with its linear layers in e2m1: a float32 scale for what lies along dims, and the bits of a weight."""
    model, fmt, stored = deepcopy(checkpoint.model), FLOATS["e2m1"], []
    with torch.no_grad():
        for layer in linear_layers(model).values():
            scale = layer.weight.abs().amax(dims, keepdim=True) / fmt.max  # (1, 1), or (out, 1)
            layer.weight.copy_(fmt.round(layer.weight / scale) * scale)
            stored.append((4 * layer.weight.numel() + 32 * scale.numel(), layer.weight.numel()))
    return model, sum(bits for bits, _ in stored) / sum(weights for _, weights in stored)

# %%
linear_bits = {name: fmt.bits_per_weight for name, fmt in BLOCKS.items()}  # of the linear layers alone
for name in BLOCKS:
    losses[name] = window_losses(quantised(name), held_out, limit=count)
for name, dims in (("e2m1 a matrix", (0, 1)), ("e2m1 a row", 1)):
    model, linear_bits[name] = e2m1_linear(dims)
    losses[name] = window_losses(model, held_out, limit=count)
    print(f"{name}: {linear_bits[name]:.3f} bits a weight")
for name, fmt in BLOCKS.items():
    print(f"{name:7} {len(fmt.codebook):3} values, a scale for {fmt.block}: {fmt.bits_per_weight:.3f} bits a weight")

# %% tags=["measured"]
table(linear_bits)
bits = {name: FLOATS[name.split(",")[0]].bits for name in added} | linear_bits
order = sorted(bits, key=lambda name: (name in linear_bits, -bits[name]))
fig, ax = plt.subplots(figsize=(7, 4.4))
for row, name in enumerate(order):
    gain = paired_difference(losses[name], base)
    color = COLORS["blue" if name in BLOCKS else "orange" if " " in name else "vermillion"]
    ax.errorbar(gain.mean, row, xerr=[[gain.mean - gain.low], [gain.high - gain.mean]], fmt="o", ms=6, color=color)
ax.axvline(0, color="black", lw=1)
ax.axhline(order.index("mxfp8") - 0.5, color="0.6", ls="--", lw=1)
ax.set_xscale("symlog", linthresh=1e-3)
ax.set(yticks=range(len(order)), yticklabels=[f"{name} ({bits[name]:.4g} bits)" for name in order], xlim=(-1e-3, 10),
       xlabel="added loss (nats)")
ax.minorticks_off()
ax.invert_yaxis()
show(fig, alt="A row for each format, with its added loss and the interval, on an axis that is logarithmic beyond 0.001. Above, "
     "every parameter cast: fp16 and bf16 at zero, 8 bits at hundredths or less, e2m1 at several nats, and at 0.2 with a "
     "scale. Below, the linear layers alone: mxfp8 next to zero, the other block formats at hundredths, with e2m1 that has a "
     "scale for each matrix or each row a little to their right.")

# %% tags=["measured"]
for a, b in (("e2m1 a row", "e2m1 a matrix"), ("mxfp4", "e2m1 a matrix"), ("mxfp4", "e2m1 a row"), ("nvfp4", "e2m1 a row"),
             ("nvfp4", "mxfp4"), ("nf4-dq", "nf4")):
    pair = paired_difference(losses[a], losses[b])
    print(f"{f'{a} minus {b}':31} {pair.mean:+.4f} nats ({pair.low:+.4f} to {pair.high:+.4f})")

# %%
linear = {name: float((losses[name] - base).mean()) for name in linear_bits}
assert 0 < linear["nvfp4"] < linear["mxfp4"] < linear["e2m1 a matrix"] < 0.2  # in the same layers, the same codes
assert linear["nvfp4"] < linear["e2m1 a matrix"] / 2
assert linear["nvfp4"] < linear["e2m1 a row"] < linear["e2m1 a matrix"] and abs(linear["nf4-dq"] - linear["nf4"]) < 0.01

# %% [markdown]
# - Below the dashed line the linear layers alone are rounded, above it every parameter: compare within each group.
# - The same e2m1 codes in the same layers: from one scale a matrix to one for 16 weights the added loss falls by more than
#   half, for half a bit.
# - Between mxfp4 and a scale for each row there is little: with the 32 windows of the lab profile the interval holds 0.
#   mxfp4 has several times as many scales, but only powers of two; nvfp4's, which hit more, are better than both. And rows
#   of this model are short, at most 768 weights <!-- claim: MATH 4 * 192 -->: where they have thousands, one scale has to suit all of those.
# - nf4-dq rounds the scales of nf4 once more and is no worse for it. If its interval lies below 0, do not make a rule of
#   that: scales that take the largest weight to the end of the codebook need not be the best ones, so an error may help.
# - All of this is rounding to nearest. Notebook 04 goes into scales and integers; notebook 07 rounds with more foresight.

# %% [markdown]
# ## Second stop
#
# Up to here, weights were stored and used. What follows is for those who train: it needs `checkpoint` and `corpus` from
# section 6, and nothing of sections 5 and 7.

# %% [markdown]
# ## 8 · Training in mixed precision
#
# Inference casts once. Training casts at every step, and two new things are small: **gradients**, and **updates**.
#
# ### Small gradients
#
# The gradients that enter the products of the backward pass of our model, on a batch of text, in fp32:

# %%
train_tokens = checkpoint.tokenizer.encode(corpus.train[:400_000])
model = deepcopy(checkpoint.model).train()
sizes = []
for module in model.modules():
    if isinstance(module, torch.nn.Linear):
        module.register_full_backward_pre_hook(lambda _, gradients: sizes.append(gradients[0].abs().flatten()))
rows = batch_at(train_tokens, 0, 4, 256, 0)  # (4, 257)
F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
gradients = torch.cat(sizes)  # the size of each
gradients = gradients[gradients > 0]

# %%
fig, ax = plt.subplots(figsize=(7, 3.2))
exponents = gradients.log2().numpy()
ax.hist(exponents, bins=150, range=(-45, 16), color=COLORS["blue"], alpha=0.75, label="gradients")
ax.hist(exponents + 16, bins=150, range=(-45, 16), color=COLORS["orange"], alpha=0.6, label="times 2¹⁶")
ax.axvspan(-45, -25, color=COLORS["vermillion"], alpha=0.12)
ax.axvspan(-25, -14, color=COLORS["vermillion"], alpha=0.05)
ax.axvline(16, color="black")
ax.text(16.5, 0.5 * ax.get_ylim()[1], "infinite", fontsize=9)
top = ax.get_ylim()[1]
ax.text(-44, 1.08 * top, "become 0\nin fp16", fontsize=9)
ax.text(-24.5, 1.15 * top, "subnormal", fontsize=9)
ax.set(xlabel="log₂ of the size", ylabel="how many", xlim=(-45, 26), ylim=(0, 1.28 * top))
ax.legend(loc="upper right")
show(fig, alt="Histogram of the binary logarithm of the gradients' sizes. It lies far left in fp16's range, with a tail in "
     "the shaded region below -25 where fp16 has only 0; times 2 to the 16 it lies in the middle of the range, far from "
     "the end at 16.")

# %% [markdown]
# - fp16 ends at $2^{16}$ and the gradients use nothing of the upper half of its range, while their left tail falls off at
#   the lower end.
# - The remedy is one multiplication: scale the *loss* by a factor, and by the chain rule every gradient gets it too. Take
#   it off again, in fp32, before the optimiser sees them.

# %%
def in_fp16(factor):
    """Shares of the gradients times the factor that become 0, and infinite, in fp16."""
    after = (gradients * factor).half()
    return float((after == 0).float().mean()), float(after.isinf().float().mean())

# %% tags=["measured"]
for power in (-10, 0, 8, 16, 24, 32):
    zero, infinite = in_fp16(2.0**power)
    print(f"times 2^{power:3}: {100 * zero:6.2f} % become 0, {100 * infinite:6.3f} % infinite")

# %%
assert in_fp16(2.0**-10)[0] > in_fp16(1)[0] > 10 * in_fp16(2.0**16)[0]
assert in_fp16(2.0**16)[1] == 0 < in_fp16(2.0**32)[1]

# %% [markdown]
# ### Which factor?
#
# Too small is useless, too large overflows. So let it find its own place: it **halves** whenever a gradient is not
# finite, and that step is skipped; after a number of good steps in a row it **doubles**. torch calls it `GradScaler`; ours
# is `LossScale`. Here both, side by side, with overflows planted at steps 3, 4 and 13:

# %%
ours = LossScale(2.0**16, patience=5)
torchs = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=5)
weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
trace = []
for step in range(24):
    overflow = step in (3, 4, 13)
    trace.append((ours.value, torchs.get_scale()))
    optimizer.zero_grad()
    torchs.scale(weight.sum() * (float("inf") if overflow else 1.0)).backward()
    torchs.step(optimizer)  # does nothing if a gradient is not finite
    torchs.update()
    ours.update(overflow)
assert all(mine == theirs for mine, theirs in trace)
assert abs(weight.item() - (1 - 21 * 0.1)) < 1e-5  # 21 of the 24 steps were taken
print("log2 of the factor:", [int(torch.tensor(value).log2()) for value, _ in trace])

# %% [markdown]
# **Exercise 02.loss_scale.** Write it down: given which steps overflowed, the factor after the last of them.

# %%
def last_scale(overflowed, scale, patience):
    """The loss scale after the steps: list of bool, float, int -> float."""
    ### BEGIN SOLUTION
    good = 0
    for overflow in overflowed:
        good = 0 if overflow else good + 1
        if overflow:
            scale /= 2
        elif good == patience:
            scale, good = scale * 2, 0
    return scale
    ### END SOLUTION

# %%
check("02.loss_scale", last_scale)

# %% [markdown]
# ### One step by hand
#
# - `emulate(...)` rounds what enters and leaves the product of a **linear layer** to the given types, and computes it in
#   float32. Those are the numbers that a machine with fp16 products and fp32 sums gets, at the speed of fp32. All else stays
#   in float32, the two products inside attention among it: a GPU that casts those too rounds more often than we do.
# - The weights, the **master weights**, stay in float32. So do gradients, once unscaled, and the optimiser.

# %%
def text_loss(model, rows):
    """Mean cross-entropy of rows (batch, context + 1)."""
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def mixed_step(model, rows, optimizer, scale):
    """One step in fp16 with loss scaling; returns the loss."""
    optimizer.zero_grad()
    with emulate(PRECISIONS["fp16"]):
        value = text_loss(model, rows)
    (value * scale.value).backward()
    for parameter in model.parameters():
        parameter.grad /= scale.value
    overflowed = not all(parameter.grad.isfinite().all() for parameter in model.parameters())
    if not overflowed:
        optimizer.step()
    scale.update(overflowed)
    return value.item()

# %%
config = GPTConfig(checkpoint.tokenizer.vocab_size, layers=2, heads=2, width=64, context=64)


def fresh():
    """A small GPT, always the same, and its optimiser."""
    model = GPT(config, seed=0)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)


few = [batch_at(train_tokens, step, 8, config.context, 0) for step in range(5)]  # each (8, 65)
(hand, optimizer), scale = fresh(), LossScale()
by_hand = [mixed_step(hand, rows, optimizer, scale) for rows in few]
package, optimizer = fresh()
by_package = train_mixed(package, text_loss, few, optimizer, "fp16 + loss scaling")
assert by_hand == [step.loss for step in by_package]
assert all(torch.equal(a, b) for a, b in zip(hand.parameters(), package.parameters(), strict=True))
print("five steps by hand and by the package: the same weights, bit for bit")

# %% [markdown]
# ### The real type
#
# Is the emulation right? torch can do it in earnest: `torch.autocast` casts to real bf16, also on a CPU. It casts more than
# we do, attention and the GELU as well, so that the two need not agree in the last digit. One forward and backward pass
# each, from the same weights, against float32:

# %%
def gradients_of(context):
    """Loss and all gradients (n,) of the small GPT when the forward pass runs in a context."""
    model, _ = fresh()
    with context:
        value = text_loss(model, few[0]) if isinstance(context, emulate) else F.cross_entropy(
            model(few[0][:, :-1]).flatten(0, 1).float(), few[0][:, 1:].flatten())
    value.backward()
    return value.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


exact = gradients_of(emulate(PRECISIONS["fp32"]))
ours = gradients_of(emulate(PRECISIONS["bf16"]))
torchs = gradients_of(torch.autocast("cpu", dtype=torch.bfloat16))
apart = float((ours[1] - torchs[1]).norm() / exact[1].norm())
from_exact = [float((got[1] - exact[1]).norm() / exact[1].norm()) for got in (ours, torchs)]
assert abs(ours[0] - torchs[0]) < 1e-3 and apart < 0.02  # the same loss, the same gradients
assert min(from_exact) > 0.001 and max(from_exact) < 0.02  # and both are as far from float32 as bf16 is

# %% tags=["measured"]
print(f"loss: fp32 {exact[0]:.6f}, emulated bf16 {ours[0]:.6f}, autocast {torchs[0]:.6f}")
print(f"gradients: emulated and autocast {100 * apart:.2f} % apart; from fp32 {100 * from_exact[0]:.2f} % and "
      f"{100 * from_exact[1]:.2f} %")

# %% [markdown]
# ### What goes wrong without loss scaling
#
# A small GPT, trained live. To stand for large batches and long texts, which make each token's gradient smaller, the
# loss is **divided by 4,096**. AdamW hardly minds: it divides the gradient by its own size. But fp16 minds.
#
# **Before you run it.** Three runs with that division: fp32, fp16, and fp16 with loss scaling. Which will not learn?
#
# <details><summary>After you have run it</summary>
# fp16 alone: most of its gradients become 0, and it learns much less than the others. The loss scale gives back more than
# the division took, 2<sup>16</sup> against 2<sup>12</sup>, and fp32 has exponent enough without.
# </details>

# %%
def live(precision, *, factor=1.0, decay=True, store="fp32", rounding="nearest", steps=None):
    """Train the small GPT on generated text; returns its steps."""
    steps = steps or pick(ci=30, lab=160, full=400)
    model, optimizer = fresh()

    def shape(step):  # of the learning rate
        return min((step + 1) / 20, 1 - step / steps)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape) if decay else None
    batches = [batch_at(train_tokens, step, 8, config.context, 0) for step in range(steps)]
    return train_mixed(model, lambda model, rows: factor * text_loss(model, rows), batches, optimizer, precision,
                       scheduler=schedule, store=store, rounding=rounding)


divided = {name: live(name, factor=1 / 4096) for name in ("fp32", "fp16", "fp16 + loss scaling")}
flushed = {name: statistics.mean(step.flushed for step in history) for name, history in divided.items()}
assert flushed["fp32"] == 0 and flushed["fp16"] > 0.5 and flushed["fp16 + loss scaling"] < 0.2
if len(divided["fp32"]) >= 160:
    late = {name: statistics.mean(4096 * step.loss for step in history[-20:]) for name, history in divided.items()}
    assert late["fp16"] > 0.1 + max(late["fp32"], late["fp16 + loss scaling"])

# %% tags=["measured"]
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
for (name, history), color in zip(divided.items(), ("black", "vermillion", "green"), strict=True):
    left.plot([4096 * step.loss for step in history], color=COLORS[color], lw=1.2, label=name)
    right.plot([100 * step.flushed for step in history], color=COLORS[color], lw=1.2)
left.set(xlabel="step", ylabel="training loss (nats)", title="loss ÷ 4096")
right.set(xlabel="step", ylabel="gradients that became 0 (%)", ylim=(-3, 103))
left.legend(fontsize=9)
show(fig, alt="Left: training losses of a small GPT whose loss is divided by 4096; float32 and fp16 with loss scaling fall, "
     "fp16 alone stays well above them. Right: the share of gradients that became 0, most of them in fp16, next to none "
     "with loss scaling.")
for name, share in flushed.items():
    print(f"{name:20} {100 * share:5.1f} % of the gradients became 0; loss at the end {4096 * divided[name][-1].loss:.3f}")

# %% [markdown]
# - No error, no NaN, no warning: without loss scaling the run simply learns less. That is what makes a flushed gradient
#   nasty.
# - And if the loss is too *large*? Add up the losses of the 512 tokens of a batch, where the mean was: a factor of 512.
#   With the usual first factor of $2^{16}$ on top, fp16 overflows at once. Watch the loss scale find its place:

# %%
summed = live("fp16 + loss scaling", factor=512.0, decay=False, steps=pick(ci=40, lab=240, full=800))
scales = [step.loss_scale for step in summed]
skipped = [step.skipped for step in summed]
assert skipped[0] and 1 < sum(skipped) < 20  # it had to come down
for before, after, overflow in zip(scales, scales[1:], skipped, strict=False):
    assert after in ((before / 2,) if overflow else (before, 2 * before))

# %% tags=["measured"]
fig, ax = plt.subplots(figsize=(7, 2.6))
ax.step(range(len(scales)), [torch.tensor(value).log2().item() for value in scales], where="post", color=COLORS["blue"])
at = [i for i, skip in enumerate(skipped) if skip]
ax.plot(at, [torch.tensor(scales[i]).log2().item() for i in at], "x", ms=7, color=COLORS["vermillion"], label="skipped")
ax.set(xlabel="step", ylabel="log₂ of the loss scale", title="Losses added up, not averaged")
ax.legend()
show(fig, alt="The binary logarithm of the loss scale against the step: it falls from 16 in steps of one, each marked as a "
     "skipped step, until nothing overflows, and rises by one after 200 good steps in a row.")
print(f"{sum(skipped)} of {len(skipped)} steps skipped; the loss scale went from {scales[0]:.0f} to {scales[-1]:.0f}")

# %% [markdown]
# ### What goes wrong without master weights
#
# Why keep the weights in float32, when every product casts them to 16 bits anyway? Because of the update: it is much
# smaller than the weight. 1,000 updates of 0.0005 on a weight of 1, stored in bf16:

# %%
exact, nearest, lucky = 1.0, torch.tensor(1.0), torch.ones(40)
generator = torch.Generator().manual_seed(0)
paths = {"nearest": [], "stochastic": []}
for _ in range(1000):
    nearest = FLOATS["bf16"].round(nearest + 0.0005)  # ()
    lucky = FLOATS["bf16"].round(lucky + 0.0005, "stochastic", generator=generator)  # (40,): forty tries at once
    paths["nearest"].append(nearest.item())
    paths["stochastic"].append(lucky)
chances = torch.stack(paths["stochastic"])  # (1000, 40)
fig, ax = plt.subplots(figsize=(7, 3))
ax.plot(range(1, 1001), [1 + 0.0005 * step for step in range(1, 1001)], color="0.7", lw=5, label="exact")
ax.plot(chances[:, :3], color=COLORS["sky"], lw=0.8)
ax.plot(chances.mean(1), color=COLORS["blue"], label="stochastic: mean of 40, and three of them (thin)")
ax.plot(paths["nearest"], color=COLORS["vermillion"], label="nearest")
ax.set(xlabel="updates of 0.0005", ylabel="weight", title="A weight in bf16")
ax.legend(fontsize=9)
show(fig, alt="A weight that starts at 1 and gets 1,000 updates of 0.0005: exactly it rises to 1.5. Rounded to nearest in "
     "bf16 it stays at 1 for ever; with stochastic rounding single runs climb in jumps around the exact line, and their "
     "mean follows it.")
assert paths["nearest"][-1] == 1.0 and abs(chances[-1].mean() - 1.5) < 0.03

# %% [markdown]
# - Above 1, bf16's values are 1/128 apart. An update below 1/256 is rounded away, **every time**: no number of them moves
#   the weight. <!-- claim: MATH 2**-7; MATH 2**-8 -->
# - **Stochastic rounding** goes up with a probability equal to the part of the step that it is beyond the lower value.
#   Each time it is wrong by more; in the mean it is right. Master weights do the same job with certainty, for two to
#   four more bytes a parameter.
#
# **Exercise 02.stochastic.** Stochastic rounding on an even grid: to a multiple of `step`, up if and only if the random
# number `u` in 0…1 reaches the missing part. (One `floor` does it.)

# %%
def stochastic(x, step, u):
    """x (n,) rounded to multiples of step, with uniform random numbers u (n,)."""
    ### BEGIN SOLUTION
    return torch.floor(x / step + u) * step
    ### END SOLUTION

# %%
check("02.stochastic", stochastic)

# %% [markdown]
# **Exercise 02.lost.** The share of the updates other than 0 that do not change a stored weight. `weight` holds values of
# the format; after `weight + update` the sum is rounded to it by `fmt.round`.

# %%
def lost_share(weight, update, fmt):
    """A float in 0..1; tensors (n,) and a format."""
    ### BEGIN SOLUTION
    wanted = update != 0
    lost = wanted & (fmt.round(weight + update) == weight)
    return float(lost.sum() / wanted.sum())
    ### END SOLUTION

# %%
check("02.lost", lost_share)

# %% [markdown]
# **Before you run it.** The small GPT again, its weights now *stored* in bf16, with a learning rate that falls to zero.
# What share of the updates is lost at first, and at the end? And does stochastic rounding lose fewer?
#
# <details><summary>After you have run it</summary>
# Fewer at first, almost all at the end, since updates shrink with the learning rate and weights do not. Stochastic rounding
# leaves nearly as many weights where they are: most tosses of a coin with a small chance fail. The difference is that a
# few now jump, by a whole step, and make up for the others.
# </details>

# %%
stored = {rounding: live("bf16", store="bf16", rounding=rounding) for rounding in ("nearest", "stochastic")}
for history in stored.values():
    tenth = len(history) // 10
    start, end = ([step.lost for step in part] for part in (history[:tenth], history[-tenth:]))
    assert statistics.mean(end) > 0.5 > statistics.mean(start)

# %% tags=["measured"]
fig, ax = plt.subplots(figsize=(7, 2.8))
for (rounding, history), color in zip(stored.items(), ("vermillion", "blue"), strict=True):
    ax.plot([100 * step.lost for step in history], color=COLORS[color], label=rounding)
ax.set(xlabel="step", ylabel="updates without effect (%)", ylim=(0, 103), title="Weights stored in bf16")
ax.legend()
show(fig, alt="Share of the updates that leave the stored weight as it was, against the step, for both roundings: low once "
     "the learning rate has warmed up, rising to nearly all of them as it falls to zero.")
for rounding, history in stored.items():
    share = statistics.mean(step.lost for step in history)
    print(f"{rounding:11} {100 * share:.1f} % of all updates had no effect, {100 * history[-2].lost:.1f} % in the last but one step")

# %% [markdown]
# ### The whole comparison
#
# Runs this short say what happens to the numbers, and little about the final loss. So the comparison proper was run
# beforehand, by `benchmarks/mixed_precision.py`: nine ways to train a GPT of 4 layers and width 128 for 500 steps on
# **real TinyStories**, with the seeds that the cell counts. For each, the loss on the same held-out windows, and its
# difference to fp32 *with the same seed*. "÷ 1024" divides the loss by that, as above.
# <!-- claim: FILE benchmarks/mixed_precision.py -->

# %%
with open(data_dir() / "results" / "mixed_precision.csv", newline="", encoding="utf-8") as file:
    results = list(csv.DictReader(file))
by_run = {}
for row in results:
    by_run.setdefault(row["run"], {})[row["seed"]] = row
seeds = sorted(set.intersection(*(set(rows) for rows in by_run.values())))  # those for which every way was run
final = {run: [float(rows[seed]["valid_loss"]) for seed in seeds] for run, rows in by_run.items()}
behind = {run: [value - base for value, base in zip(values, final["fp32"], strict=True)] for run, values in final.items()}
print(f"{len(final)} ways, {len(seeds)} seeds, corpus {results[0]['corpus']}, {results[0]['steps']} steps each\n")
print(f"{'':50} loss  (range)             minus fp32      flushed  lost")
for run, values in final.items():
    share = {key: statistics.mean(float(by_run[run][seed][key]) for seed in seeds) for key in ("flushed", "lost_mean")}
    gap = f"{min(behind[run]):+.3f} … {max(behind[run]):+.3f}" if run != "fp32" else ""
    print(f"{run:49} {statistics.mean(values):.3f} ({min(values):.3f} … {max(values):.3f})  {gap:17}"
          f"{100 * share['flushed']:6.1f} % {100 * share['lost_mean']:5.1f} %")

# %%
fig, ax = plt.subplots(figsize=(8, 3.4))
for row, run in enumerate(name for name in final if name != "fp32"):
    ax.plot(behind[run], [row] * len(seeds), "o", ms=6, color=COLORS["blue"], alpha=0.8)
    ax.plot(statistics.mean(behind[run]), row, "|", ms=18, mew=3, color=COLORS["vermillion"])
ax.axvline(0, color="black", lw=1)
ax.set_xscale("symlog", linthresh=0.02)
ax.set(yticks=range(len(final) - 1), yticklabels=[textwrap.fill(name, 28) for name in final if name != "fp32"],
       xlim=(None, 4), xlabel="loss minus fp32's with the same seed (nats)")
ax.tick_params(axis="y", labelsize=9)
ax.minorticks_off()
ax.invert_yaxis()
show(fig, alt="For each way to train, a dot for each seed: its held-out loss minus that of float32 with the same seed. fp16 "
     "with the loss divided by 1024 and no scaling lies far right of all others, most of which lie near zero. The table above "
     "has the values.")

# %%
apart = max(final["fp32"]) - min(final["fp32"])
always = [run for run, gaps in behind.items() if min(gaps) > 0.1]
at_times = [run for run, gaps in behind.items() if max(gaps) > 0.1 and run not in always]
rest = max(abs(gap) for run, gaps in behind.items() if run not in always + at_times for gap in gaps)
print(f"fp32 by itself: {apart:.3f} nats between the best and the worst of {len(seeds)} seeds")
print(f"more than 0.1 nats behind fp32 with every seed: {', '.join(always) or 'none'}")
print(f"more than 0.1 nats behind with some seed, but not with every one: {', '.join(at_times) or 'none'}")
print(f"all other ways: within {rest:.3f} nats of fp32")
for run in ("bf16, weights stored in bf16", "bf16, weights stored in bf16, stochastic rounding"):
    print(f"{run}: behind fp32 with {sum(gap > 0 for gap in behind[run])} of {len(seeds)} seeds, "
          f"{statistics.mean(behind[run]):+.3f} nats in the mean")
flush = {run: min(float(rows[seed]["flushed"]) for seed in seeds) for run, rows in by_run.items()}
lost = min(float(by_run["bf16, weights stored in bf16"][seed]["lost_last_tenth"]) for seed in seeds)
assert always == ["fp16 ÷ 1024"] and flush["fp16 ÷ 1024"] > 0.9
assert max(behind["fp16 + loss scaling ÷ 1024"]) < min(behind["fp16 ÷ 1024"]) / 10
assert flush["fp16"] > 0.01 and max(behind["fp16"]) < min(behind["fp16 ÷ 1024"]) / 10 and lost > 0.5

# %% [markdown]
# - One way fails every time: fp16 with small gradients and no loss scaling. With loss scaling the same run is back among
#   the others.
# - **fp16 without scaling, undivided, does no such harm here**, although some per cent of its gradients become 0. They are the
#   smallest, and AdamW hardly misses them. Do not conclude that loss scaling is idle: whether it is needed depends on the
#   size of the gradients, and "÷ 1024" shows what happens when they shrink. We have not tested larger models.
# - Weights stored in bf16 lose most of their updates in the last tenth of the run. What that costs after 500 steps, the
#   cell above says; lost updates weigh more the longer a run goes on at a low learning rate, and these runs are short.
# - fp8 has a scale for each tensor, e4m3 forward for the fraction, and e5m2 for the gradients, whose range is wide. If it
#   stands in the line *with some seed*, that is the honest result: a run that goes well once is no proof.
# - With so few seeds, differences below the spread of fp32 itself rank nothing. The range is there so that you can see it.

# %% [markdown]
# ## What to keep
#
# - A float cast has a **relative** error of at most $2^{-(m+1)}$ between its smallest normal and its largest number.
#   Below, it is absolute; above, there is infinity, NaN, or saturation. Integers wrap: **clamp first, cast last**.
# - Sums in a small type get **stuck**. Pairwise, Kahan, or, if the machine has it, a total in fp32.
# - Fewer bytes save memory always, and time where **memory** is the limit. Where arithmetic is, only instructions for the
#   type do; without them the type is emulated, and slower than fp32. Measure.
# - Codes without their **scale** are no weights: count it. The fewer bits of exponent, the more the scale matters, and the
#   smaller the block it should serve.
# - Weights of our model survive 16 bits for nothing and 8 bits for little, by a plain cast. Four need scales.
# - Mixed precision: small factors, fp32 sums, fp32 **master weights** for the updates, a **loss scale** for the gradients
#   of fp16. bf16 has the range and needs no loss scale.
#
# ## Open challenge
#
# **Eight bits of your own.** A `FloatFormat` can have any split: `FloatFormat("mine", 3, 4, specials="none")` has three
# exponent and four fraction bits, and `bias=` moves its range. Which split of 8 bits casts our GPT best without any scale?
# With a scale for each tensor? Beat the numbers that the next cell prints.

# %% tags=["measured"]
table(["e4m3fn", "e4m3fn, scaled"])

# %% [markdown]
# A place to start, in a new cell:
#
# ```python
# from nanoq.numbers import FloatFormat
#
# FLOATS["mine"] = FloatFormat("mine", 3, 4, bias=6, specials="none")
# losses["mine"] = window_losses(cast(checkpoint.model, "mine"), held_out, limit=count)
# table(["mine"])
# ```
#
# ## What next
#
# - **03 · nanoGPT** builds and trains the model that was cast here.
# - **04 · Naive rounding** does with integers and scales what section 6 did with floats, down to 2 bits, and counts every
#   byte of the file.
#
# ## Further reading
#
# - Micikevicius et al. 2018, *Mixed Precision Training* ([arXiv 1710.03740](https://arxiv.org/abs/1710.03740)): master
#   weights, loss scaling, float32 accumulation.
# - Micikevicius et al. 2022, *FP8 Formats for Deep Learning* ([2209.05433](https://arxiv.org/abs/2209.05433)): e4m3 and
#   e5m2, and which of them for what.
# - Open Compute Project 2023, *OCP Microscaling Formats (MX) Specification*, version 1.0: mxfp4 and mxfp8.
# - Goldberg 1991, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*: rounding, and Kahan's sum.
