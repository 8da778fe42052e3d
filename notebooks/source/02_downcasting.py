# %% [markdown]
# # 02 · Downcasting
#
# {{colab}}
#
# The cheapest way to make a model smaller is to store the same numbers in a smaller type. In torch it is one call,
# `model.half()`, and often the cost is too small to measure. But sometimes the result is useless: a sum stops growing long
# before all its terms are added, a small number becomes 0, and a large one becomes infinity. This notebook shows when each
# of these happens, and how to prevent it.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - predict the error of a cast from the number of fraction bits, and what overflows or underflows;
# - say where a sum in a small type stops growing, and repair it in three ways;
# - turn a matrix into int8 codes and a scale, and count the bytes.
#
# **You need** notebook 01: the bits of integers and floats.

# %%
import math
from functools import partial

import torch

import nanoq
from nanoq.lm import load_corpus, paired_difference, window_losses
from nanoq.numbers import FLOATS, FloatFormat, dot, downcast_report, matmul
from nanoq.teach import check, pick, use, use_style
from nanoq.teach.challenges import challenge
from nanoq.teach.figures import nb02 as figures

use_style()

# %% [markdown]
# ## 1 · One third
#
# A number type is a set of values, and a *cast* replaces a number by the nearest of them. The next cell draws the values
# of five types around 1/3 (dashed), with a dot on the one that each type uses for it, and prints their bits. The table also
# has fp32 and **tf32**, in which graphics cards multiply: the exponent of fp32 with ten fraction bits.
# <!-- claim: MATH 1 / 3 -->
#
# **Before you run it.** fp16 and bf16 both have 16 bits. Which of the two is nearer to 1/3? And which two types of the
# table will hold the very same number?
#
# <details><summary>After you have run it</summary>
# fp16 is nearer: it has ten fraction bits, bf16 has seven. The other three went into the exponent, which buys range
# instead of digits. tf32 has as many fraction bits as fp16, so the two agree here.
# </details>

# %%
third = 1 / 3
figures.around(third)
print("type    sign exponent fraction                 value         relative error")
for name in ("fp32", "tf32", "fp16", "bf16", "e4m3fn", "e5m2", "e2m1"):
    fmt = FLOATS[name]
    value = fmt.round(third).item()
    digits = fmt.digits(int(fmt.encode(third)))
    print(f"{name:7} {digits:35} {value:.10f}  {abs(value / third - 1):.1e}")

# %% tags=["claims"]
for name in ("fp32", "fp16", "bf16", "e4m3fn", "e5m2"):
    by_torch = torch.tensor(third).to(FLOATS[name].dtype).double()
    assert by_torch.item() == FLOATS[name].round(third).item()
assert FLOATS["tf32"].round(third) == FLOATS["fp16"].round(third)
assert [FLOATS[name].mantissa for name in ("fp16", "bf16")] == [10, 7]

# %% [markdown]
# In binary, the fraction of 1/3 repeats 01 for ever. Each type cuts it off somewhere and rounds. How far off can the
# result be? Between $2^e$ and $2^{e+1}$ the values of a float with $m$ fraction bits are $2^{e-m}$ apart, and the nearest
# one is at most half of that away. <!-- claim: MATH 1 / 3 -->
#
# **Exercise 02.bound.** Give a bound on the relative error that holds for every $e$.

# %%
def bound(fraction_bits):
    """A bound on the relative error of a normal number that is rounded to nearest."""
    ### BEGIN SOLUTION
    return 2.0 ** -(fraction_bits + 1)
    ### END SOLUTION

# %%
check("02.bound", bound)

# %% [markdown]
# ## 2 · A thousand numbers
#
# One number proves nothing. Here are 1,000 from a normal distribution. Each dot is the relative error of one number; the
# dashed lines are your bound for the fraction bits of each type.

# %%
my_bound = use("02.bound", bound)
normals = torch.randn(1000, generator=torch.Generator().manual_seed(0))  # (1000,)
figures.cast_errors(normals, my_bound)

# %% tags=["claims"]
for name in ("e5m2", "bf16", "fp16"):
    fmt = FLOATS[name]
    error = (fmt.round(normals) / normals.double() - 1).abs()
    assert error[normals.abs() >= fmt.min_normal].max() <= my_bound(fmt.mantissa)
error = (FLOATS["e4m3fn"].round(normals) / normals.double() - 1).abs()
subnormal = normals.abs() < 2**-6
assert error[subnormal].max() > my_bound(3) >= error[~subnormal].max()

# %% [markdown]
# - The bound is the same for small and for large numbers: floats have a **relative** error. An integer grid has an
#   absolute one.
# - Below 1/64, the errors of e4m3fn exceed the bound. Those are its *subnormals*: the exponent has reached its end, the steps no longer
#   shrink, and the error becomes absolute. <!-- claim: MATH 2**-6 -->
#
# A cast can do worse than round. A number that was not 0 may become 0: it **underflows**. A finite number may become
# infinity or NaN: it **overflows**.
#
# **Exercise 02.losses.** Count both, as a pair. (`tensor.isfinite()` is false for infinity and for NaN.)

# %%
def losses_of(before, after):
    """(overflowed, underflowed), two ints, of a cast; the tensors have one shape."""
    ### BEGIN SOLUTION
    overflowed = before.isfinite() & ~after.isfinite()
    underflowed = (before != 0) & (after == 0)
    return int(overflowed.sum()), int(underflowed.sum())
    ### END SOLUTION

# %%
check("02.losses", losses_of)

# %% [markdown]
# **Before you run it.** Not all numbers are near 1. Take the same 1,000 numbers times $10^{-7}$, and times $10^5$, in
# fp16 and in bf16. About how many of them underflow or overflow in each of the four cases?
#
# <details><summary>After you have run it</summary>
# fp16 rounds everything up to half of its smallest number, 2<sup>-24</sup> or 6.0e-8, to 0: about a quarter of the small
# ones. Nothing finite is above 65504: about half of the large ones overflow. bf16 has the exponent of fp32 and loses
# none. <!-- claim: MATH 2**-24 -->
# </details>

# %%
my_losses = use("02.losses", losses_of)
for factor, name in ((1e-7, "fp16"), (1e-7, "bf16"), (1e5, "fp16"), (1e5, "bf16")):
    over, under = my_losses(factor * normals, (factor * normals).to(FLOATS[name].dtype))
    print(f"times {factor:.0e} in {name}: {over} overflow, {under} underflow")

# %% tags=["claims"]
tiny, huge = (downcast_report(normals * factor, "fp16") for factor in (1e-7, 1e5))
assert 150 < tiny.underflowed < 350 and 400 < huge.overflowed < 620
for factor in (1e-7, 1e5):
    report = downcast_report(normals * factor, "bf16")
    assert report.underflowed == report.overflowed == 0

# %% [markdown]
# ### Where exactly is the end?
#
# **Before you run it.** The largest number of fp16 is 65504, and 65536 would come next. What do 65504, 65519 and 65520 become
# in fp16? What is 127 + 1 in int8? And what does a cast to int8 make of -300 and 200?
# <!-- claim: MATH 2**16; CELL print("clamped, then cast:"; CELL [65504.0, 65519.0, 65520.0]).half().tolist()) -->
#
# <details><summary>After you have run it</summary>
#
# - What is below 65520, half-way between the two, is rounded down to 65504. The rest becomes infinity.
#   <!-- claim: MATH (65504 + 2**16) / 2 -->
# - Integers do not overflow to infinity. They **wrap** around: 127 + 1 is -128.
# - Casting a float that is out of range to an integer is *undefined* in C++: the result depends on the processor and the
#   compiler. The remedy is to **clamp** first: replace what lies beyond an end of the range by that end. **Clamp first,
#   cast last.**
#
# </details>

# %% tags=["measured"]
figures.top_of_fp16()
print("fp16:", torch.tensor([65504.0, 65519.0, 65520.0]).half().tolist())
print("int8: 127 + 1 =", (torch.tensor(127, dtype=torch.int8) + 1).item())
x = torch.tensor([-300.0, 12.6, 200.0])
print("cast to int8, on this machine:", x.to(torch.int8).tolist())
print("clamped, then cast:", x.clamp(-128, 127).to(torch.int8).tolist())

# %% tags=["claims"]
top = torch.tensor([65504.0, 65519.0, 65520.0]).half()
assert top.tolist() == [65504, 65504, math.inf]
assert (torch.tensor(127, dtype=torch.int8) + 1).item() == -128
assert x.clamp(-128, 127).to(torch.int8).tolist() == [-128, 12, 127]

# %% [markdown]
# ## 3 · Sums
#
# A model is made of sums: each output of a layer adds up hundreds of products. The cell below adds up in a small type, as
# an adder of that type would: it rounds each total.

# %%
def small(x, dtype):
    """Round float32 numbers to a type, and return them as float32 again."""
    return x.to(dtype).float()


def running_sum(terms, dtype):
    """All totals (n,) of a sum whose terms (n,) and totals are of a type."""
    total, totals = torch.tensor(0.0), []
    for term in small(terms, dtype):
        total = small(total + term, dtype)
        totals.append(total)
    return torch.stack(totals)

# %% [markdown]
# **Before you run it.** The sum of 5,000 tenths is 500. What will it be in fp16, bf16, e4m3fn and e5m2?
# <!-- claim: MATH 5000 / 10 -->
#
# <details><summary>After you have run it</summary>
# The sums stop, at 256, 32, 2 and 1. Near 256 the values of fp16 are 0.25 apart: the total plus 0.1 is less than half-way
# to the next value and is rounded back. From there on every term is lost, and more terms do not help.
# <!-- claim: MATH 2**8 / 2**10 -->
# </details>

# %%
types = {name: FLOATS[name].dtype for name in ("fp16", "bf16", "e4m3fn", "e5m2")}
tenths = torch.full((5000,), 0.1)  # (5000,)
totals = {name: running_sum(tenths, dtype) for name, dtype in types.items()}
figures.sums_of_tenths(totals)

# %% tags=["claims"]
assert [values[-1].item() for values in totals.values()] == [256, 32, 2, 1]
for name in types:  # the package computes the same, without torch's types
    assert totals[name][299] == dot(tenths[:300], torch.ones(300), name)

# %% [markdown]
# **Exercise 02.stuck.** Where does a sum of equal positive terms stop? The distance from a power of two $P$ to the next
# value is $P \cdot 2^{-m}$, with $m$ fraction bits. The sum stops at the first $P$ for which `term` is at most half of
# that distance. (Exactly half is a tie; it goes to the even neighbour, which is $P$ itself.) Beware: for small terms $P$
# is below 1.

# %%
def stuck(term, fraction_bits):
    """The power of two, a float, at which adding `term` changes nothing any more."""
    ### BEGIN SOLUTION
    power = 2.0 ** math.floor(math.log2(term))
    while term > power * 2.0**-fraction_bits / 2:
        power *= 2
    return power
    ### END SOLUTION

# %%
check("02.stuck", stuck)

# %%
my_stuck = use("02.stuck", stuck)
for name in types:
    predicted = my_stuck(0.1, FLOATS[name].mantissa)
    print(f"{name:7} predicted {predicted:5g}, measured {totals[name][-1]:5g}")

# %% [markdown]
# ### Three remedies
#
# - **Pairwise**: add neighbours, then the sums of neighbours, and so on. Both parts of an addition are then about equally
#   large, and only $\log_2 n$ roundings lie between a term and the total.
# - **Kahan's sum**: after each addition, compute what was lost and put it back into the next term.
# - **A wider *accumulator***, the variable in which a sum grows: keep the total in fp32, and round once at the end. The
#   matrix units of GPUs and CPUs do this: small multipliers save chip area, and the sums stay exact enough.
#
# **Exercise 02.kahan.** Write Kahan's sum. `total` and `lost` start at 0. For each term:
#
# 1. The *corrected term* is the term minus `lost`.
# 2. The new total is the total plus the corrected term.
# 3. The new `lost` is the growth of the total (new minus old) minus the corrected term.
#
# Round the result of *every* addition and subtraction with `small(...)`; here it takes one argument.

# %%
def kahan(terms, small):
    """The sum, a float, of terms (n,) of a type; small(x) rounds a number to it."""
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
# Now compare four ways to add up random numbers between 0 and 1 in bf16. `dot` computes a dot product with the rounding
# of a given type; with ones, that is a sum.
#
# **Before you run it.** Which of the four ways get worse as the sum gets longer?
#
# <details><summary>After you have run it</summary>
# Only the naive sum: with 1,024 terms, half of the total is missing. The other three are as good as a single rounding,
# however many terms there are.
# </details>

# %%
my_kahan = use("02.kahan", kahan)
bf16 = partial(small, dtype=torch.bfloat16)
numbers = bf16(torch.rand(8, 1024, generator=torch.Generator().manual_seed(1)))
lengths = (16, 64, 256, 1024)
errors = {"naive": [], "pairwise": [], "Kahan": [], "fp32 total": []}
for n in lengths:
    terms, ones = numbers[:, :n], torch.ones(n)  # eight sums at once
    sums = (dot(terms, ones, "bf16"), dot(terms, ones, "bf16", order="pairwise"),
            torch.tensor([my_kahan(row, bf16) for row in terms]), bf16(terms.sum(1)))
    for way, total in zip(errors, sums, strict=True):
        relative = total / terms.double().sum(1) - 1  # (8,)
        errors[way].append(float(relative.abs().mean()))
figures.sum_errors(lengths, errors)

# %% tags=["claims"]
assert 0.45 < errors["naive"][-1] < 0.55
for way in ("pairwise", "Kahan", "fp32 total"):
    assert max(errors[way]) < my_bound(7)

# %% [markdown]
# ## 4 · A matrix in int8
#
# An integer type has no exponent, so a cast to it cannot adapt to the size of the numbers. And it does not even round: it
# cuts the fraction off, towards 0. `torch.round` first is better; half-way numbers go to the even integer, so that 13.5
# becomes 14, but 8.5 becomes 8. <!-- claim: CELL assert whole.tolist() -->
#
# Most weights of a real model are smaller than 1, so nearly all would become 0 even so. As in notebook 00, the answer is
# a **scale**: the largest weight, in absolute value, becomes code 127.
#
# **Exercise 02.to_int8.** Return `(codes, scale)`: int8 codes, and the scale as a Python float. In this order: find the
# scale, divide, round, clamp to -127…127, cast *last*.

# %%
def to_int8(weight):
    """(int8 codes of the weight's shape, scale); the weight is not all 0."""
    ### BEGIN SOLUTION
    scale = (weight.abs().max() / 127).item()
    return torch.round(weight / scale).clamp(-127, 127).to(torch.int8), scale
    ### END SOLUTION

# %%
check("02.to_int8", to_int8)

# %%
my_int8 = use("02.to_int8", to_int8)
matrix = torch.tensor([[13.5, 14.3, 8.5], [-4.7, -3.2, -6.4], [-0.4, 0.3, 0.2]])
codes, scale = my_int8(matrix)
figures.two_grids(matrix, scale)
print("cast alone:", matrix.to(torch.int8).tolist())
print("rounded:   ", torch.round(matrix).tolist())
print("your codes:", codes.tolist(), "with scale", round(scale, 4))

# %% tags=["claims"]
assert codes.dtype == torch.int8 and codes.abs().max() == 127
wide = (torch.round(matrix) - matrix).abs().max()
assert wide == 0.5 and (codes * scale - matrix).abs().max() <= scale / 2 * 1.0001
assert matrix.to(torch.int8).tolist() == [[13, 14, 8], [-4, -3, -6], [0, 0, 0]]
whole = torch.round(matrix)
assert whole.tolist() == [[14, 14, 8], [-5, -3, -6], [0, 0, 0]]

# %% [markdown]
# The figure shows the same nine weights on both grids: plain integers use codes from -6 to 14 only, and miss a weight by up
# to 0.5. With the scale the largest weight gets 127, the steps are finer, and no weight moves by more than half a scale, about 0.056.
# <!-- claim: MATH 14.3 / 127 / 2; CELL wide == 0.5 -->
#
# How many bytes is that? Nine codes take 9 bytes in place of 36. But codes without their scale are no weights.
# <!-- claim: MATH 3 * 3; MATH 4 * 3 * 3 -->
#
# **Exercise 02.bytes.** Count the bytes of an int8 matrix together with its float32 scales: one scale for the whole
# matrix, or one for each row.

# %%
def int8_bytes(rows, columns, per_row):
    """Bytes of codes and scales; per_row is a bool."""
    ### BEGIN SOLUTION
    return rows * columns + 4 * (rows if per_row else 1)
    ### END SOLUTION

# %%
check("02.bytes", int8_bytes)

# %%
my_bytes = use("02.bytes", int8_bytes)
for height, width, per_row in ((3, 3, False), (768, 192, False), (768, 192, True)):
    old, new = 4 * height * width, my_bytes(height, width, per_row)
    print(f"{height} x {width}, {per_row=}: {old} -> {new} bytes, {old / new:.2f}x")

# %% tags=["claims"]
assert my_bytes(3, 3, False) == 13
assert 3.9 < 4 * 768 * 192 / my_bytes(768, 192, True) < 4

# %% [markdown]
# ## Further · Let chance decide
#
# **Adds** a fourth remedy for sums that get stuck, which training uses (notebook 06).
#
# Sometimes the total itself has to be stored in the small type, for example a weight that receives thousands of small
# updates in training. **Stochastic rounding** sends a number up or down at random. If it lies a share $p$ of the way from
# its lower to its upper neighbour, it goes up with probability $p$. Each single result is less exact than the nearest
# value, but the mean is right.

# %%
figures.chance(2.3, step=1.0)

# %% [markdown]
# **Exercise 02.stochastic.** Round `x` to multiples of `step`, with a random number `u` between 0 and 1 for each: go up
# exactly if `u` is at least $1 - p$, the green part of the bar. In units of `step`, adding `u` then takes `x` to the next
# whole number or beyond.

# %%
def stochastic(x, step, u):
    """x (n,) rounded to multiples of step, with uniform random numbers u (n,)."""
    ### BEGIN SOLUTION
    return torch.floor(x / step + u) * step
    ### END SOLUTION

# %%
check("02.stochastic", stochastic)

# %% [markdown]
# Try it: 1,000 updates of 0.0005 on a number that starts at 1. Above 1 the values of bf16 are 1/128 apart.
# <!-- claim: MATH 2**-7 -->

# %%
my_rounding = use("02.stochastic", stochastic)

# %%
generator = torch.Generator().manual_seed(0)
nearest, lucky, paths = torch.ones(1), torch.ones(40), []  # forty tries at once
for _ in range(1000):
    nearest = bf16(nearest + 0.0005)
    lucky = my_rounding(lucky + 0.0005, 2**-7, torch.rand(40, generator=generator))
    paths.append(torch.cat((nearest, lucky)))
figures.updates(torch.stack(paths), update=0.0005)

# %% tags=["claims"]
assert nearest.item() == 1.0 and abs(lucky.mean() - 1.5) < 0.03
assert torch.equal(bf16(lucky), lucky)  # they are numbers of bf16

# %% [markdown]
# To nearest, an update below 1/256 is lost **every time**. Stochastic rounding keeps it on average. Keeping an fp32 copy
# of each weight does the same job without chance, for more bytes. <!-- claim: MATH 2**-8 -->

# %% [markdown]
# ## Further · Longer sums, and fp8
#
# **Adds** a slider for the length of a sum, the limits of Kahan's sum, and sums whose terms have both signs.
#
# The error of a naive sum of random numbers between 0 and 1, after each term:

# %%
uniform = torch.rand(4096, generator=torch.Generator().manual_seed(2))  # (4096,)
curves = {}  # (4096,) each: the relative error after each term
for name, dtype in types.items():
    exact = small(uniform, dtype).double().cumsum(0)
    curves[name] = (running_sum(uniform, dtype) / exact - 1).abs()
figures.drift(curves, "bf16", 1024)

# %% tags=["measured"]
figures.drift_slider(curves)

# %% [markdown]
# **Before you run it.** Does Kahan's sum save e4m3fn, too? A tenth becomes 0.1015625 there, and 2,000 of them are 203.125.
# The neighbours of that in e4m3fn are 192 and 208.
# <!-- claim: MATH 13 / 128; MATH 2000 * 13 / 128; MATH 1.5 * 2**7; MATH 1.625 * 2**7 -->
#
# <details><summary>After you have run it</summary>
# No, it gets stuck as well, only later. `lost` itself is kept in four significant bits, and when it has grown far beyond a
# term, adding a term to <i>it</i> changes nothing. In practice nobody adds in fp8; products of fp8 numbers are
# added up in a wider type.
# </details>

# %%
some = tenths[:2000], torch.ones(2000)
fp8 = {order: float(dot(*some, "e4m3fn", order=order))
       for order in ("naive", "pairwise", "kahan")}  # fmt: skip
fp8["fp32 total"] = float(dot(*some, "e4m3fn", accumulate="fp32"))
print(fp8)

# %% tags=["claims"]
assert fp8["fp32 total"] == 203.125 and fp8["naive"] < fp8["kahan"] < fp8["pairwise"]

# %% [markdown]
# The terms of a matrix product have both signs. Totals then stay small, and sums do not get stuck so soon. Is it safe to
# add up in the small type? Here are products of random normal matrices:

# %%
generator = torch.Generator().manual_seed(3)
a, b = (torch.randn(1024, 16, generator=generator) for _ in range(2))  # (1024, 16) each

# %%
product = {}
for factors in ("bf16", "fp16"):
    for sums in (factors, "fp32"):
        product[factors, sums] = []
        for n in lengths:
            exact = a[:n].double().T @ b[:n].double()  # (16, 16)
            got = matmul(a[:n].T, b[:n], factors, accumulate=sums)
            product[factors, sums].append(float((got - exact).norm() / exact.norm()))
figures.product_errors(lengths, product)

# %% tags=["claims"]
for name in ("fp16", "bf16"):
    assert product[name, name][-1] > 3 * product[name, "fp32"][-1]
    assert product[name, "fp32"][-1] < 1.5 * product[name, "fp32"][0]

# %% [markdown]
# It is not safe. With fp32 sums only the factors are rounded: their errors average out and do not grow with the length.
# With small sums the error grows.

# %% [markdown]
# ## Further · Casting a language model
#
# **Adds** what the casts of this notebook do to a whole model, and an open challenge. It measures a loss with an
# interval: read notebooks 03 and 04 first.
#
# These are the sizes of all parameters of our GPT, and the ranges of four types:

# %%
checkpoint = nanoq.load("tales-2.7m")
weights = torch.cat([p.detach().flatten() for p in checkpoint.model.parameters()])
figures.sizes_and_ranges(weights)

# %% [markdown]
# A float type needs a scale as well if the weights do not lie in its range.
#
# **Exercise 02.scaled_cast.** Cast one tensor with a scale: its largest value, in absolute terms, becomes the format's
# largest value, `fmt.max`. `fmt.round(x)` rounds to nearest.

# %%
def scaled_cast(weight, fmt):
    """The weight, rounded to a format with a scale of its own."""
    ### BEGIN SOLUTION
    scale = weight.abs().max() / fmt.max
    return fmt.round(weight / scale) * scale
    ### END SOLUTION

# %%
check("02.scaled_cast", scaled_cast)

# %%
my_cast = use("02.scaled_cast", scaled_cast)

# %%
corpus = load_corpus(checkpoint.card["corpus"])
held_out = checkpoint.tokenizer.encode(corpus.test)
count = pick(ci=4, lab=32, full=256)  # windows of text
base = window_losses(checkpoint.model, held_out, limit=count)  # (count,)

# %%
def added_loss(cast):
    """The loss that a cast of every parameter adds, with its interval."""
    copy = nanoq.load("tales-2.7m").model
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.copy_(cast(parameter))
    return paired_difference(window_losses(copy, held_out, limit=count), base)

# %% [markdown]
# **Before you run it.** Every parameter is rounded, without a scale and then with your `scaled_cast`. Which formats will
# ruin the model? The picture knows.
#
# <details><summary>After you have run it</summary>
# Only e2m1 without a scale: what is smaller than 0.25 becomes 0, and that is hundreds of thousands of parameters. With a scale for each
# tensor the same four bits do far less harm. For e4m3fn the scale hardly matters, since its exponent reaches down to the
# small weights by itself. <!-- claim: MATH 2**-1 / 2 -->
# </details>

# %% tags=["measured"]
print("added loss in nats (notebook 03), with its 95 % interval")
plain, scaled = {}, {}
for name in ("fp16", "bf16", "e4m3fn", "e5m2", "e2m1"):
    plain[name] = added_loss(FLOATS[name].round)
    scaled[name] = added_loss(partial(my_cast, fmt=FLOATS[name]))
    for how, loss in (("plain ", plain[name]), ("scaled", scaled[name])):
        interval = f"({loss.low:+.5f} to {loss.high:+.5f})"
        print(f"{name:7} {how} {loss.mean:+.5f} {interval}")

# %% tags=["claims"]
added = {name: loss.mean for name, loss in plain.items()}
assert abs(added["fp16"]) < 0.001 and abs(added["bf16"]) < 0.003
assert added["bf16"] < added["e4m3fn"] < added["e5m2"] < 0.1 < 1 < added["e2m1"]
assert int((FLOATS["e2m1"].round(weights) == 0).sum()) > 500_000
assert scaled["e2m1"].mean < added["e2m1"] / 5
assert abs(scaled["e4m3fn"].mean - added["e4m3fn"]) < 0.01

# %% [markdown]
# - 16 bits cost next to nothing and 8 bits little. Of the two 8-bit formats, the one with more fraction bits wins: the
#   weights do not need the range of e5m2.
# - The fewer exponent bits a format has, the more the scale matters. An integer has none, and cannot do without.
#
# ### Open challenge: eight bits of your own
#
# A `FloatFormat` can split its bits in any way: `FloatFormat("mine", 4, 3)` has four exponent bits and three fraction
# bits, and `bias=` moves its range. Which 8 bits cast our GPT best, *without* a scale? Your score is the added loss in
# nats (notebook 03); the medals are for the 32 windows of the lab profile. The attempt below earns none.
# <!-- claim: CELL count = pick( -->

# %% tags=["measured"]
mine = FloatFormat("mine", 5, 2)
score = added_loss(mine.round).mean
medals = {"bronze": 0.005, "silver": 0.0015, "gold": 0.0008}
challenge("02.eight_bits", score, **medals, by="5 + 2 bits")

# %% [markdown]
# ## Summary
#
# - A cast to a float has a **relative** error of at most $2^{-(m+1)}$ between the smallest normal and the largest number.
#   Below, the error is absolute; above, there is infinity, NaN or the largest value.
# - Integers wrap, and a float out of range is undefined: **clamp first, cast last**.
# - Sums in a small type get **stuck**. Add pairwise, use Kahan's sum, or a wider accumulator. When somebody says "computed
#   in bf16", ask what the *sums* were computed in.
# - Codes without their **scale** are no weights. A 3 × 3 matrix takes 13 bytes in int8, not 9. On a real matrix one scale
#   per row hardly shows. <!-- claim: CELL my_bytes(3, 3, False) == 13; MATH 3 * 3 -->
#
# Continue with **03 · nanoGPT**, which builds the model, and with **04 · Naive rounding**, which quantises it. What a
# small type does to training is a section of **06 · Learned rounding and QAT**; whether it is faster is the subject of
# **08 · Size is not speed**.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further reading
#
# - Goldberg 1991, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*: rounding, and Kahan's sum.
# - Gupta et al. 2015, *Deep Learning with Limited Numerical Precision* ([arXiv
#   1502.02551](https://arxiv.org/abs/1502.02551)): stochastic rounding.
# - Micikevicius et al. 2022, *FP8 Formats for Deep Learning* ([2209.05433](https://arxiv.org/abs/2209.05433)): e4m3 and
#   e5m2, and which of them for what.
