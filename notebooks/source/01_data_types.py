# %% [markdown]
# # 01 · Data types
#
# {{colab}}
#
# To quantise a number is to write it in fewer bits. So what do bits say, and what can they not say? This notebook takes
# numbers apart with the simplest tools, Python's own arithmetic, and puts them together again: integers, floats from 64
# bits to 4 bits, and the block formats in which large models are stored today.
#
# {{cost_card}}
#
# **You will be able to**
#
# - read any pattern of bits as an unsigned integer, a signed one, or a float, and say what it is worth;
# - add in binary, and predict what an overflow leaves;
# - say how far a format reaches, how fine it is, and why no format of the same length is better at both;
# - tell the 8-bit and 4-bit formats apart, with their odd ends;
# - count the bits of a block format honestly, scales included, and the bytes of a model.
#
# **You need** some Python. Nothing about machine learning is used here.

# %%
import math
from fractions import Fraction

import matplotlib.pyplot as plt
import torch

import nanoq
from nanoq.numbers import BLOCKS, CODEBOOKS, FLOATS, FloatFormat, IntFormat
from nanoq.quant import linear_layers, pack
from nanoq.teach import check, show, use_style
from nanoq.teach.plots import COLORS
from nanoq.teach.widgets import bit_explorer, bit_figure, show_widget

use_style()

# %% [markdown]
# ## 1 · Integers
#
# A bit is a switch, and a pattern of bits means nothing until somebody says how to read it. Here is one pattern of
# eight bits, `10001001`, read in two ways. A filled box is a 1; beneath each box stands what it counts.
#
# **Before you run it.** Read as unsigned, it is 128 + 8 + 1 = 137. In the signed reading only the *first* weight
# changes its sign. What comes out?
#
# <details><summary>After you have run it</summary>
# −128 + 8 + 1 = −119. It is 137 − 256: the first bit counts 128 less instead of 128 more.
# </details>

# %%
pattern = 0b10001001
show(bit_figure("uint8", pattern), alt="The bits 1 0 0 0 1 0 0 1 in boxes, read as uint8: their weights are 2^7 down to "
     "2^0, and the ones add up to 128 + 8 + 1 = 137.")
show(bit_figure("int8", pattern), alt="The same bits read as int8: the first box has another colour and the weight "
     "-2^7, and the ones add up to -128 + 8 + 1 = -119.")
assert IntFormat(8, signed=False).decode(pattern) == 137 and IntFormat(8).decode(pattern) == -119

# %% [markdown]
# This is **two's complement**: with $n$ bits $b_{n-1} \dots b_0$,
#
# $$x = -b_{n-1}\,2^{n-1} + \sum_{i<n-1} b_i\,2^i$$
#
# - The minus stands *before* the power: $-2^7 = -128$, while $2^{-7} = 1/128$.
# - The smallest number is a 1 and nothing but 0s, the largest a 0 and nothing but 1s. All ones are −1.
# - There is one 0, and one more negative number than positive ones.
#
# **Exercise 01.signed.** Read a string of bits of any length in two's complement. `int(digits, 2)` reads it as unsigned.

# %%
def signed(digits):
    """The number that a string such as "10001001" stands for in two's complement."""
    ### BEGIN SOLUTION
    return -int(digits[0]) * 2 ** (len(digits) - 1) + int(digits[1:], 2)
    ### END SOLUTION

# %%
check("01.signed", signed)

# %% [markdown]
# ### Numbers on a circle
#
# Why this reading, and not a sign and a size? Look at all 16 patterns of four bits, each one more than the one before it.

# %%
int4 = IntFormat(4)


def place(p, radius):
    """Where pattern p stands on a clock with 16 hours: (x, y)."""
    angle = math.pi / 2 - 2 * math.pi * p / 16
    return radius * math.cos(angle), radius * math.sin(angle)


def on_circle(ax, p, radius, text, **style):
    """Write something there."""
    ax.text(*place(p, radius), text, ha="center", va="center", **style)

# %%
fig, ax = plt.subplots(figsize=(7, 5))
for p in range(16):
    value = int(int4.decode(p))
    color = COLORS["vermillion"] if value < 0 else COLORS["blue"]
    on_circle(ax, p, 0.68, f"{p:04b}", family="monospace", size=9)
    on_circle(ax, p, 0.95, f"{value}".replace("-", "−"), color=color, weight="bold", size=14)
    on_circle(ax, p, 1.18, str(p), color="0.45")
for p, text, color in ((7.5, "signed: cut here", COLORS["vermillion"]), (15.5, "unsigned: cut here", "0.45")):
    on_circle(ax, p, 1.42, text, color=color)
    ax.plot(*zip(place(p, 0.8), place(p, 1.32), strict=True), color=color, ls=":")
ax.annotate("", (0.3, 0.2), (-0.3, 0.2), arrowprops={"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.4"})
ax.text(0, 0, "+1: one step\nclockwise", ha="center", va="center")
ax.text(-2.1, 1.3, "outside: unsigned\nbold: signed\ninside: the bits", va="top")
ax.set(xlim=(-2.1, 2.1), ylim=(-1.5, 1.5), aspect="equal")
ax.axis("off")
show(fig, alt="The 16 patterns of four bits on a circle, clockwise. Inside the bits, then the signed value, outside the "
     "unsigned one. On the right half the two agree, 0 to 7; on the left half they differ by 16: -8 to -1 against 8 to "
     "15. From 7 one step clockwise leads to -8.")

# %% [markdown]
# - Adding 1 is one step clockwise, in both readings. The adder need not know which one you have in mind: **the same
#   circuit adds signed and unsigned numbers**, and subtraction is addition of a negative number.
# - The circle has to be cut open somewhere. Unsigned numbers are cut between 15 and 0, signed ones between 7 and −8. Who
#   steps over the cut has an **overflow**: the result is off by $2^n$. <!-- claim: MATH 2**4 - 1; MATH 2**3 - 1; MATH 2 * 4 -->
#
# ### Adding by hand
#
# From right to left: add the column and the carry, write the last bit, carry the first. The carry out of the first
# column has no place and is lost.
#
# **Before you run it.** What is 5 + (−3) in int8, and what is 100 + 50?
#
# <details><summary>After you have run it</summary>
# 5 + (−3) = 2, although a carry is lost on the left: that is how it should be. 100 + 50 = 150 does not fit: the
# carries run into the first bit, which counts −128, and −106 is what is left: 150 − 256.
# </details>

# %%
int8 = IntFormat(8)
for a, b in ((5, -3), (100, 50)):
    print(f"{a} + {b}\n{int8.add(a, b)}\n")
assert int8.add(5, -3).value == 2 and int8.add(100, 50).value == 150 - 256

# %% [markdown]
# torch does the same, and says nothing.

# %%
most = torch.tensor([127], dtype=torch.int8)
print("127 + 1 =", (most + 1).item())
assert (most + 1).item() == int8.add(127, 1).value == -128

# %% [markdown]
# **Exercise 01.wrap.** What is stored of a whole number `total`, of any size, when only its last `bits` bits are kept and
# read as signed? Python's `%` never gives a negative remainder, which helps.

# %%
def wrap(total, bits):
    """The signed number of `bits` bits that is left of a sum."""
    ### BEGIN SOLUTION
    return (total + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    ### END SOLUTION

# %%
check("01.wrap", wrap)

# %% [markdown]
# The usual integer types of torch, as `torch.iinfo` reports them. The package agrees on every end.

# %%
for name in ("uint8", "int8", "int16", "int32", "int64"):
    info = torch.iinfo(getattr(torch, name))
    print(f"{name:6} {info.bits:3} bits   {info.min:>20,} to {info.max:,}")
    if info.bits <= 32:
        fmt = IntFormat(info.bits, signed=info.min < 0)
        assert (fmt.min, fmt.max) == (info.min, info.max)

# %% [markdown]
# A *float* that lies outside of this range has no agreed int8 at all: the C++ behind torch leaves the result of such a
# cast undefined, and processors differ. The line below shows what this machine does; yours may do something else. Clamp
# first, then cast.

# %% tags=["measured"]
print(torch.tensor([200.0, -129.0, 1e6]).to(torch.int8).tolist())

# %% [markdown]
# ## 2 · Floats
#
# Integers have the same gap everywhere: too coarse for small numbers, and needlessly fine for large ones. A **float** keeps
# a fixed number of *digits* and a place for the point, as in $3.14 \times 10^{0}$ or $3.14 \times 10^{-6}$, only in
# powers of two. π in fp16, also called half:

# %%
pi = int(FLOATS["fp16"].encode(math.pi))
show(bit_figure("fp16", pi), alt="pi in fp16: a sign bit 0, five exponent bits 10000 with the weights 16 to 1, ten "
     "fraction bits 1001001000 with the weights 1/2 to 1/1024. Field 16 - 15 = 1, fraction 584/1024, and so the value is "
     "2 times (1 + 584/1024) = 3.140625.")

# %% [markdown]
# - **Sign**: one bit, 1 for minus. Sign and size, no two's complement here.
# - **Exponent**: an unsigned number, the *field*. Take off the **bias**, 15 in fp16, to get the power of two.
# - **Fraction**: what follows the binary point. Before the point there is always a 1, because the power is chosen so that
#   there is; a bit that is always 1 need not be stored. It is called the **hidden bit**.
#
# $$x = (-1)^{\text{sign}} \cdot 2^{\,\text{field} - \text{bias}} \cdot \Big(1 + \frac{\text{fraction}}{2^{10}}\Big)$$
#
# By hand means: with nothing but Python's arithmetic. Then the package and torch, which have to agree.

# %%
pattern = 0b0_10000_1001001000
sign = pattern >> 15
field = pattern >> 10 & 0b11111
fraction = pattern & 0b1111111111
by_hand = (-1) ** sign * 2 ** (field - 15) * (1 + fraction / 2**10)
print("sign", sign, "  field", field, "  fraction", fraction, "  value", by_hand)

by_torch = torch.tensor(pattern, dtype=torch.int16).view(torch.float16)  # the same 16 bits, read differently
assert by_hand == FLOATS["fp16"].decode(pattern).item() == by_torch.item()

# %% [markdown]
# ### The two ends of the exponent field
#
# With a hidden 1 there would be no zero. So the lowest field has a rule of its own, and so has the highest:
#
# <!-- claim: MATH 2**5 - 2; MATH 2**5 - 1 -->
#
# | field | fraction | kind | value |
# |:--|:--|:--|:--|
# | 1 to 30 | any | **normal** | $\pm 2^{\text{field} - 15} \cdot 1.\text{fraction}$ |
# | 0 | any | **subnormal**, or zero | $\pm 2^{1 - 15} \cdot 0.\text{fraction}$ |
# | 31 | 0 | **infinity** | what is too large |
# | 31 | not 0 | **NaN**, not a number | 0/0, ∞ − ∞ |
#
# Why $1 - 15$, and not $0 - 15$, in the second line? Look at what happens near zero, in a toy format with 3 exponent
# bits and 2 fraction bits:

# %%
with_them = FloatFormat("toy", 3, 2, specials="none")
without = FloatFormat("toy", 3, 2, specials="none", subnormals=False)
fig, ax = plt.subplots(figsize=(7, 1.9))
for y, fmt in enumerate((without, with_them)):
    values = fmt.values().unique()
    low = values.abs() < with_them.min_normal
    for part, color in ((low, "vermillion"), (~low, "blue")):
        ax.plot(values[part], torch.full_like(values[part], y), "|", ms=22, mew=2.5, color=COLORS[color])
ax.set(xlim=(-1.05, 1.05), ylim=(-0.6, 1.6), yticks=[0, 1], yticklabels=["without", "with subnormals"])
ax.grid(visible=False)
show(fig, alt="Two number lines around zero. Without subnormals the values stop at a distance from zero, which leaves a "
     "hole with no zero in it. With subnormals, drawn in orange-red, values run through zero at an even distance.")

# %% [markdown]
# - Without subnormals there is a hole around 0, and 0 itself is missing.
# - Subnormals fill it *evenly*, with the gap that the smallest normal numbers have. With the exponent of field 1 the last
#   of them ends exactly one gap below the first normal number.
# - The price: towards 0 they have fewer and fewer digits.
#
# **Exercise 01.decode.** All four rules, for fp16. `float("inf")` and `float("nan")` (or `math.inf`, `math.nan`) are
# there when you need them.

# %%
def decode(pattern):
    """The value of a 16-bit pattern in fp16, as a Python float."""
    ### BEGIN SOLUTION
    sign, field, fraction = pattern >> 15, pattern >> 10 & 31, pattern & 1023
    if field == 31:
        size = math.nan if fraction else math.inf
    elif field == 0:
        size = 2.0**-14 * fraction / 1024
    else:
        size = 2.0 ** (field - 15) * (1 + fraction / 1024)
    return -size if sign else size
    ### END SOLUTION

# %%
check("01.decode", decode)

# %% [markdown]
# The same for all 65,536 patterns at once, against the package and against torch:

# %%
patterns = torch.arange(2**16)
sign, field, fraction = patterns >> 15, patterns >> 10 & 31, patterns & 1023  # (65536,) each
power = torch.tensor([2.0 ** (f - 15) for f in range(32)])[field]  # a table: tensor powers need not be exact
normal = power * (1 + fraction / 1024)
size = torch.where(field == 0, 2.0**-14 * fraction / 1024, normal)
size = torch.where(field == 31, torch.where(fraction == 0, math.inf, math.nan), size)
by_hand = torch.where(sign == 1, -size, size).double()

by_torch = IntFormat(16).wrap(patterns).to(torch.int16).view(torch.float16).double()
for other in (FLOATS["fp16"].decode(patterns), by_torch):
    torch.testing.assert_close(by_hand, other, rtol=0, atol=0, equal_nan=True)
print("65,536 patterns agree:", int(by_hand.isnan().sum()), "of them NaN,", int(by_hand.isinf().sum()), "infinite,",
      int(((field == 0) & (fraction > 0)).sum()), "subnormal")

# %% [markdown]
# ### Play with it
#
# Click on a bit, enter a number, go to the next pattern. Try: the smallest number above 0; what comes after 65504; 0.1 in
# every format; NaN of both signs; −128 in int8. Where widgets do not run you see a line of text here, and the pictures
# below show what one would find. <!-- claim: MATH (2 - 2**-10) * 2**15; MATH 1 / 10; MATH 2**7 -->

# %% tags=["measured"]
show_widget(bit_explorer("fp16", math.pi), alt="(live in Jupyter: the bits of a number as buttons; sign, exponent, "
            "fraction and value follow, in any format. The pictures below are stills of it.)")

# %%
for pattern, words in ((0x0001, "the smallest number above 0, subnormal: one bit of fraction, about 6e-08"),
                       (0x7BFF, "the largest number: field 30, all fraction bits 1, 65504"),
                       (0x7C00, "the next pattern: field 31, fraction 0, infinity")):
    show(bit_figure("fp16", pattern), alt=f"fp16 in boxes: {words}.")

# %% [markdown]
# ## 3 · Patterns in order
#
# Take the last two pictures again: 65504 and infinity are *neighbours*. Is that always so? <!-- claim: MATH (2 - 2**-10) * 2**15 -->
#
# **Before you run it.** Add 1 to the pattern, as if it were an integer. What comes after 1.0 in fp16? After 2.0? What
# comes before 1.0?
#
# <details><summary>After you have run it</summary>
# After 1.0 comes 1 + 1/1024, the fraction's last bit. After 2.0 the same bit is worth twice as much. Before 1.0 it is
# worth half as much, and the step back crosses from one exponent to the next without a jump.
# <!-- claim: MATH 2**-10 -->
# </details>

# %%
fp16 = FLOATS["fp16"]
for value in (1.0, 2.0, 1024.0, 2048.0):
    here = int(fp16.encode(value))
    below, above = fp16.decode(here - 1).item(), fp16.decode(here + 1).item()
    print(f"{below:>15} < {value:>6} < {above:<15}   steps {value - below:.5g} and {above - value:.5g}")

# %% [markdown]
# - **The order of the patterns is the order of the sizes.** When the fraction is full, the carry goes into the exponent:
#   that is why the exponent stands before the fraction, and why it has a bias and no sign of its own.
# - The distance between neighbours is one unit in the last place, **ulp**. It is the same within a *binade*, from one
#   power of two to the next, and **doubles** at each power of two.
# - Comparing two positive floats is comparing two integers, and rounding to a format is rounding to an integer: so it is
#   done in `nanoq.numbers`. Of 8-bit e4m3fn, whose fraction has three bits, one can show all positive values:

# %%
e4m3 = FLOATS["e4m3fn"]
values = e4m3.values()[: 2**7 - 1]  # (127,): positive, the last pattern is NaN
assert (values.diff() > 0).all()
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
left.plot(values, ".", ms=4, color=COLORS["blue"])
left.set(xlabel="pattern", ylabel="value", title="e4m3fn: ever larger steps")
right.plot(range(1, 127), values[1:].log2(), ".", ms=4, color=COLORS["blue"])
right.set(xlabel="pattern", ylabel="log₂ of the value", title="nearly a straight line")
right.axvspan(0, 7.5, color=COLORS["vermillion"], alpha=0.12, lw=0)
right.text(10, -9, "subnormal", color=COLORS["vermillion"])
show(fig, alt="Two plots of the 127 positive values of e4m3fn over their patterns. Left, value: straight pieces of eight "
     "dots, each twice as steep as the one before. Right, logarithm of the value: nearly a straight line, except for the "
     "seven subnormal values at its lower end, which fall off steeply.")

# %% [markdown]
# A pattern is nearly a logarithm. That is what a float is good at: the *relative* error of rounding is about the same
# for all sizes. Rounding 0.3 to e4m3fn by hand:

# %%
ulp = 2.0 ** (math.floor(math.log2(0.3)) - 3)  # the binade 0.25..0.5, cut into 2**3 steps
steps = round(0.3 / ulp)
print(f"0.3 = {0.3 / ulp:.1f} steps of {ulp}, so {steps} steps: {steps * ulp}")
assert ulp == e4m3.ulp(0.3).item() and steps * ulp == e4m3.round(0.3).item()

# %% [markdown]
# **Before you run it.** The numbers between 0 and 1 are a tiny part of the range 0 to 65504. Which part of fp16's patterns
# do they get? <!-- claim: MATH (2 - 2**-10) * 2**15 -->
#
# <details><summary>After you have run it</summary>
# Nearly half: half of the exponent fields stand for negative powers of two. It is the same in every format whose bias is
# in the middle.
# </details>

# %%
for name in ("fp32", "fp16", "bf16", "e4m3fn", "e5m2"):
    fmt = FLOATS[name]
    one, largest = int(fmt.encode(1.0)), int(fmt.encode(fmt.max))
    print(f"{name:7} {100 * one / (largest + 1):5.1f} % of the non-negative finite patterns lie below 1")
    assert 0.4 < one / (largest + 1) < 0.55

# %% [markdown]
# Floats crowd around 0, and so do weights: a small weight is rounded as finely, for its size, as a large one.
#
# ### Where integers end
#
# When the ulp has grown to 2, odd numbers are gone. In fp16 that happens early.
#
# **Before you run it.** The table above has shown 2048 and its neighbour. What is 2048 + 1?
#
# <details><summary>After you have run it</summary>
# 2048. 2049 lies half-way between 2048 and 2050, and a half goes to the even pattern.
# </details>

# %%
print("2048 + 1 =", (torch.tensor(2048, dtype=torch.float16) + 1).item(), "in fp16")
assert fp16.ulp(2048.0) == 2

# %% [markdown]
# **Exercise 01.gap.** Which is the smallest positive integer that a format with `mantissa` fraction bits lacks, provided
# that its exponent reaches far enough?

# %%
def first_missing(mantissa):
    """The smallest positive integer that is not a value of the format."""
    ### BEGIN SOLUTION
    return 2 ** (mantissa + 1) + 1
    ### END SOLUTION

# %%
check("01.gap", first_missing)

# %% [markdown]
# Checked by brute force: the first integer that does not survive a round trip through the type.

# %%
for name in ("fp16", "bf16", "e4m3fn", "e2m1"):
    integers = torch.arange(1.0, 4000)
    lost = FLOATS[name].round(integers) != integers
    print(f"{name:7} fraction of {FLOATS[name].mantissa:2} bits, first lost: {int(integers[lost][0])}")

# %% [markdown]
# ### Why 0.1 + 0.2 is not 0.3
#
# In binary 0.1 has no end, as 1/3 has none in decimal <!-- claim: MATH 1 / 3 -->. All three are rounded, and the sum is rounded once more. Whether
# the errors meet is chance, and another format has other luck:

# %%
print("0.1 is stored as", Fraction(0.1), "and 0.1 + 0.2 == 0.3 is", 0.1 + 0.2 == 0.3)
tenths = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
for name in ("fp64", "fp32", "fp16", "bf16"):
    fmt = FLOATS[name]
    a, b, c = fmt.round(tenths)
    apart = int(fmt.encode(fmt.round(a + b))) - int(fmt.encode(c))
    print(f"{name}: the sum is {apart:+d} patterns away from 0.3")
assert 0.1 + 0.2 != 0.3

# %% [markdown]
# ## 4 · Range against precision
#
# A format of 16 bits has 16 bits to divide between exponent and fraction. More exponent: it reaches further. More
# fraction: it is finer. `torch.finfo` knows the result for torch's types:

# %%
print(torch.finfo(torch.float16))

# %% [markdown]
# The package computes the same from the few numbers that make a format.

# %%
print("format   bits  1/e/m     largest        smallest normal  smallest      eps")
for name in ("fp64", "fp32", "tf32", "fp16", "bf16", "e4m3fn", "e5m2"):
    f = FLOATS[name]
    print(f"{name:7} {f.bits:5}  1/{f.exponent}/{f.mantissa:<4} {f.max:13.6g}   {f.min_normal:13.4g}   "
          f"{f.min_subnormal:11.3g}  {f.eps:10.3g}")
    if f.dtype is not None:
        info = torch.finfo(f.dtype)
        assert (info.max, info.smallest_normal, info.eps, info.bits) == (f.max, f.min_normal, f.eps, f.bits)
assert FLOATS["bf16"].eps == 8 * fp16.eps and fp16.round(256.0**2).isinf()

# %% [markdown]
# - **eps** is the ulp at 1: $2^{-m}$. Rounding to nearest errs by at most half of it, relatively.
# - **bf16** takes the exponent of fp32 and a short fraction: the range of fp32 with 8 significant bits, two or three
#   decimal digits. **fp16** is eight times finer and ends at 65504: the square of 256 is already infinity.
# - **tf32** is no type to store numbers in: some GPUs multiply in it, and the 19 bits lie in 32.
#
# A picture of all of them. To the right: larger numbers. Upwards: how many significant bits a number of that size has.

# %%
def significant(fmt, power):
    """Significant bits of a number of size 2**power: from its own power of two down to the ulp there."""
    return power - int(math.log2(fmt.ulp(2.0**power).item())) + 1


fig, ax = plt.subplots(figsize=(7, 4))
for name, color in zip(("fp32", "fp16", "bf16", "e4m3fn", "e5m2"), COLORS.values(), strict=False):
    fmt = FLOATS[name]
    powers = range(int(math.log2(fmt.min_subnormal)), math.frexp(fmt.max)[1])
    ax.plot(powers, [significant(fmt, p) for p in powers], color=color)
    ax.text(powers[-1] + 3, fmt.mantissa + 1 + 0.3 * (name == "e4m3fn") - 0.3 * (name == "e5m2"), name, color=color,
            va="center", weight="bold")
ax.plot(range(7), range(1, 8), color="black", ls="--")
ax.text(8, 7.2, "int8", va="center", weight="bold")
ax.set(xlabel="size of the number, as a power of two", ylabel="significant bits", ylim=(0, 26), xlim=(-155, 155),
       title="How far, and how fine")
show(fig, alt="Significant bits against the size of a number as a power of two. Each float format is a ramp, its "
     "subnormals, and then a level line: fp32 at 24 bits from -149 to 127, bf16 equally far at 8 bits, fp16 at 11 bits from "
     "-24 to 15, e4m3fn at 4 bits, e5m2 at 3 bits. int8 is a ramp without a level.")

# %% [markdown]
# - A level line: the same relative precision at every size. A ramp at its left: the subnormals.
# - int8 is *all ramp*. An integer format is what a float would be with subnormals alone: the gap is the same everywhere,
#   and small numbers have few digits. To use it for weights we need a scale, which moves the ramp to where the weights
#   are. That is notebooks 02 and 04.
#
# ### bf16 is the upper half of fp32

# %%
wide = torch.tensor([math.pi, 0.1, -2.5e38])  # (3,) fp32
upper = wide.view(torch.int32) >> 16  # cut off the lower 16 bits
cut = (upper << 16).view(torch.float32)
print("cut    ", [f"{v:.4g}" for v in cut.tolist()])
print("rounded", [f"{v:.4g}" for v in wide.bfloat16().tolist()])
assert torch.equal(cut, FLOATS["bf16"].round(wide, "zero")) and torch.equal(FLOATS["bf16"].round(wide), wide.bfloat16().float())

# %% [markdown]
# Cutting is rounding towards zero. torch rounds to nearest instead, which is half as far off at worst; on the way back
# from bf16 to fp32 16 zeros are appended, and nothing is lost.
#
# ## 5 · Eight bits, and four
#
# With so few bits every pattern counts. IEEE's rule gives the highest exponent field to infinity and NaN, the whole
# binade. `e5m2` (5 exponent bits, 2 of fraction) obeys; `e4m3fn` does not. The last positive patterns of both:
# <!-- claim: MATH 8 - 1 - 2 -->

# %%
for name in ("e5m2", "e4m3fn"):
    fmt = FLOATS[name]
    print(name, "  ".join(f"{fmt.digits(p)[2:]}: {fmt.decode(p).item():g}" for p in range(0x7A, 0x80)))
    values = fmt.values()
    print(f"     {len(values[values.isfinite()].unique())} different finite numbers, {int(values.isnan().sum())} NaN")
assert e4m3.max == 448 and FLOATS["e5m2"].max == 57344 and not e4m3.has_inf
assert FloatFormat("e4m3 as IEEE would have it", 4, 3).max == 240

# %% [markdown]
# - `fn` means *finite*: there is **no infinity** and a single NaN of each sign, the pattern of all ones. What IEEE would
#   waste is a binade of numbers, up to 448 instead of 240.
# - What becomes of 1000 in `e4m3fn` then? There is no good answer, and libraries (even versions of torch) differ between
#   NaN and 448. Scale and clamp before the cast.
# - `e4m3fnuz` and `e5m2fnuz` (*finite, unsigned zero*) are what some AMD GPUs use: the bias is one more, and the pattern
#   of −0 is the only NaN.
# - Common use: e4m3fn for weights and activations, which need digits, e5m2 for gradients, which need range.
#
# **Exercise 01.largest.** The largest finite value of a signed format from its bits. `specials` is `"ieee"` (the highest
# field holds no numbers), `"fn"` (only the pattern of all ones is none) or `"none"` (all patterns are numbers). The bias
# is `2**(exponent - 1) - 1`.

# %%
def largest(exponent, mantissa, specials):
    """Largest finite value of a format with that many exponent and fraction bits."""
    ### BEGIN SOLUTION
    field, fraction = 2**exponent - 1, 2**mantissa - 1
    if specials == "ieee":
        field -= 1
    elif specials == "fn":
        fraction -= 1
    return 2.0 ** (field - (2 ** (exponent - 1) - 1)) * (1 + fraction / 2**mantissa)
    ### END SOLUTION

# %%
check("01.largest", largest)

# %% [markdown]
# ### Four bits
#
# Sixteen patterns, half of them negative. With two exponent bits and one of fraction, `e2m1`, this is all of it:

# %%
e2m1 = FLOATS["e2m1"]
for p in range(8):
    print(f"{e2m1.digits(p)}  {e2m1.decode(p).item():<4g} {e2m1.kind(p)}")
assert len(e2m1.values().unique()) == 15  # 0 and -0 are one number

# %% [markdown]
# No infinity, no NaN: nothing to spare. Now all small formats on one line. The picture is the point of this notebook:
# **a format is a choice of places on the number line.**

# %%
rows = {"int4": torch.arange(-8.0, 8), "nf4 × 8": 8 * CODEBOOKS["nf4"]}
rows |= {name: CODEBOOKS[name] for name in ("e2m1", "e2m3", "e3m2", "e4m3fn")}
fig, ax = plt.subplots(figsize=(7, 3.6))
for y, values in enumerate(reversed(rows.values())):
    inside = values[values.abs() <= 8]
    ax.plot(inside, torch.full_like(inside, y), "|", ms=18, mew=1.2, color=list(COLORS.values())[y % 6])
    ends = f"{values.min():g} to {values.max():g}".replace("-", "−")
    ax.text(8.5, y, f"{len(values)} values,\n{ends}", va="center", size=9)
ax.set(yticks=range(len(rows)), yticklabels=list(rows)[::-1], xlim=(-8.4, 12), ylim=(-0.6, 5.6),
       xticks=range(-8, 9, 2),
       title="Where the representable values lie, between −8 and 8")
ax.grid(visible=False)
show(fig, alt="Number lines between -8 and 8. int4: 16 values evenly spaced. nf4 times 8: 16 values, denser near zero. "
     "e2m1: 15 values, in groups whose spacing doubles. e2m3 and e3m2 with 63 values and e4m3fn with 253 are the same "
     "pattern refined, crowded near zero; e3m2 reaches to 28 and e4m3fn to 448.")

# %% [markdown]
# - int4 puts its values evenly; e2m1 is finer near 0 and coarser outside, with one value fewer.
# - Compare e2m3 with e3m2, 6 bits each: the same number of values, one spread out near, the other far. Range against
#   precision again.
#
# ### NF4: places chosen from the data
#
# Why a formula at all? Four bits are an index, and the 16 values may be *any*. Weights are roughly normally distributed.
# The idea of NF4: take **quantiles** of the normal distribution, even steps of probability, whatever steps of value that
# gives. Then the codes should be used about equally often.

# %%
def quantile(p):
    """The number below which a normally distributed one lies with probability p."""
    return torch.special.ndtri(torch.as_tensor(p, dtype=torch.float64))


edge = (1 / 30 + 1 / 32) / 2  # the outermost quantiles; those of 0 and 1 would lie at infinity
above = torch.linspace(0.5, 1 - edge, 9, dtype=torch.float64)  # zero and 8 positive values
below = torch.linspace(edge, 0.5, 8, dtype=torch.float64)[:-1]  # 7 negative values
probability = torch.cat((below, above))  # (16,)
by_hand = quantile(probability) / quantile(1 - edge)  # the largest becomes 1
print([round(v, 3) for v in by_hand.tolist()])
assert torch.allclose(by_hand.float(), CODEBOOKS["nf4"])

# %%
x = torch.linspace(-2.6, 2.6, 200, dtype=torch.float64)
fig, ax = plt.subplots(figsize=(7, 3.4))
ax.plot(x, torch.special.ndtr(x), color="0.4")
at = quantile(probability)
ax.hlines(probability, -2.6, at, color=COLORS["sky"], lw=1)
ax.vlines(at, 0, probability, color=COLORS["blue"], lw=1.2)
ax.plot(at, torch.zeros_like(at), "|", ms=16, mew=2.5, color=COLORS["vermillion"])
ax.set(xlabel="weight (standard deviations)", ylabel="share of weights below", xlim=(-2.6, 2.6), ylim=(-0.04, 1),
       title="NF4: even steps of probability, uneven steps of value")
ax.grid(visible=False)
show(fig, alt="The S-shaped distribution function of the normal distribution. Sixteen horizontal lines at even steps of "
     "probability meet the curve; from there vertical lines lead down to the values of NF4, dense near zero and wide apart "
     "at both ends.")

# %% [markdown]
# - 0 has to be one of the values, so there are 8 above it and 7 below, with slightly different steps.
#   <!-- claim: MATH 2**4 / 2; MATH 2**4 / 2 - 1 -->
# - Where do 1/30 and 1/32 come from? With 15 even steps of probability, half a step is 1/30; with 16, it is 1/32. So far
#   from 0 and 1 the outermost quantiles would lie. bitsandbytes, QLoRA's library, takes the mean of the two, and so do we, to
#   have the same table: another end would do as well.
# - The values lie between −1 and 1: NF4 needs a scale, as every 4-bit format does. It is the largest weight of a block of
#   64, which becomes 1 or −1.
#
# **Before you run it.** 64,000 normally distributed numbers in such blocks. Are all 16 codes used equally often? <!-- claim: MATH 1000 * 64 -->
#
# <details><summary>After you have run it</summary>
# No. The construction ends at 1.85 standard deviations, but the largest of 64 normal numbers usually lies further out. So
# the codes in the middle get more than their share, and those near the ends less. It is a good idea, not an optimum.
# </details>

# %%
numbers = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))  # (blocks, 64)
top = numbers.abs().amax(1, keepdim=True)  # (1000, 1)
nearest = (numbers[..., None] / top[..., None] - CODEBOOKS["nf4"]).abs().argmin(-1)  # (1000, 64)
used = nearest.flatten().bincount() / nearest.numel()  # (16,)
fig, ax = plt.subplots(figsize=(7, 2.4))
ax.bar(range(16), used, color=COLORS["blue"])
ax.axhline(1 / 16, color=COLORS["vermillion"], ls="--")
ax.set(xlabel="code of NF4", ylabel="share of numbers", xticks=range(16), title="How often each code is used (dashed: equally)")
show(fig, alt="Bar chart of the share of normally distributed numbers that get each of the 16 NF4 codes. The middle codes "
     "stand above the dashed line of equal use, the outer ones fall off below it.")
assert used[4:11].min() > 1 / 16 > used[[0, 1, 14, 15]].max()
assert 1.84 < quantile(1 - edge) < 1.85 and (top > 1.85).float().mean() > 0.9

# %% [markdown]
# ## 6 · Block formats
#
# e2m1 reaches from 0.5 to 6, and most weights are smaller than all of it. So numbers are stored in **blocks**: 16, 32 or
# 64 neighbours share one scale. Each block has the same ruler, in its own size. The first 96 weights of a row of the
# course's model, in **MXFP4**: blocks of 32, elements in e2m1, scale a power of two.

# %%
matrix = linear_layers(nanoq.load("tales-2.7m").model)["blocks.2.mlp.up"].weight.detach()  # (768, 192)
assert (matrix.abs() < 0.5).float().mean() > 0.9
row = matrix[:1, :96]  # (1, 96)
mx = BLOCKS["mxfp4"]
scales, _ = mx.scales(row)
fig, ax = plt.subplots(figsize=(8, 3.6))
for i, scale in enumerate(scales[0]):
    ax.hlines(mx.codebook * scale, 32 * i - 0.5, 32 * i + 31.5, color=COLORS["sky"], lw=1)
    ax.text(32 * i + 15.5, 0.97, f"scale $2^{{{int(math.log2(scale))}}}$", ha="center", va="top",
            transform=ax.get_xaxis_transform())
ax.plot(row[0], "o", ms=4, color=COLORS["blue"], label="weight")
ax.plot(mx.round(row)[0], "_", ms=7, mew=2, color=COLORS["vermillion"], label="in MXFP4")
ax.set(xlabel="place in the row", ylabel="value", ylim=(None, 1.35 * float(row.max())))
ax.grid(visible=False)
ax.legend(ncols=2, loc="lower right")
show(fig, alt="96 weights of a row as dots, in three blocks of 32. Thin lines across each block are the 15 values that it "
     "offers, dense near zero; a mark on one of them shows what each weight becomes. Above each block stands its scale, a "
     "power of two.")

# %% [markdown]
# ### A block by hand
#
# - The scale: which power of two takes the largest weight to the binade of 6, which begins at $4 = 2^2$?
#   $s = 2^{\lfloor \log_2 \max|w| \rfloor - 2}$. Then $\max|w|/s$ is in $[4, 8)$, and what is above 6 becomes 6: it
#   saturates, the price of a scale that is a power of two. Look for such weights in the picture.
#   <!-- claim: MATH 1.5 * 2**2 -->
# - The codes: the nearest of 15 values to $w/s$. <!-- claim: MATH 2**4 - 1 -->
# - The scale is stored as **e8m0**: eight bits of exponent and nothing else, value $2^{\text{code} - 127}$. No sign, no
#   fraction and no zero.

# %%
block = row[0, :32]  # (32,)
power = math.floor(math.log2(block.abs().max())) - 2
units = block / 2.0**power  # (32,)
places = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
away = (units.abs()[:, None] - places).abs()  # (32, 8): from each weight to each value
closest, second = away.topk(2, largest=False).values.T  # (32,) each
assert (closest < second).all()  # no weight lies half-way: the format would take the even code, argmin the first
nearest = places[away.argmin(1)]  # (32,)
by_hand = nearest * units.sign() * 2.0**power
assert torch.equal(by_hand, mx.round(block[None])[0]) and 4 <= units.abs().max() < 8
print(int((units.abs() > 6).sum()), "of the 32 weights saturate")

code = power + 127
show(bit_figure("e8m0", code), alt=f"The scale of the block as e8m0: eight exponent bits, field {code}, and so "
     f"2 to the power of {power}.")
assert code == mx.scales(block[None])[1].codes.item()

# %% [markdown]
# ### Counting the bits
#
# "4 bits" is what a code takes. The scale is in the file as well, and a block shares it.
#
# **Exercise 01.block_bits.** How many bits does one number take, its part of the scale included?

# %%
def block_bits(bits, block, scale_bits):
    """Bits for each number: codes of `bits` bits, and `scale_bits` for every `block` numbers."""
    ### BEGIN SOLUTION
    return bits + scale_bits / block
    ### END SOLUTION

# %%
check("01.block_bits", block_bits)

# %%
for name, fmt in BLOCKS.items():
    print(f"{name:7} {fmt.element:7} blocks of {fmt.block:2}   {fmt.bits} + {fmt.scale_bits:g}/{fmt.block}"
          f" = {fmt.bits_per_weight:.4g} bits")
assert BLOCKS["mxfp4"].bits_per_weight == 4.25 and BLOCKS["nvfp4"].bits_per_weight == BLOCKS["nf4"].bits_per_weight == 4.5
assert round(BLOCKS["nf4-dq"].bits_per_weight, 3) == 4.127

# %% [markdown]
# - **NVFP4** has shorter blocks, and e4m3fn scales that can hit more than powers of two. These need a scale in turn: one
#   float32 for the whole matrix, which is not in the table.
# - **NF4** has a float32 scale for 64 numbers. **Double quantisation** (`nf4-dq`) stores these scales in 8 bits, with one
#   more float32 for 256 of them: 8 + 32/256 bits a block. <!-- claim: FILE nanoq/numbers/blocks.py; MATH 32 / 256 -->
# - So a "4-bit model" has 4.13 to 4.5 bits a weight. Ask. <!-- claim: MATH 4 + (8 + 32 / 256) / 64; MATH 4 + 32 / 64 -->
#
# ## 7 · Four bits in torch
#
# torch has names such as `int4`. What can they do? (The list grows; this is the torch of this run.)

# %% tags=["measured"]
for name in ("int8", "int4", "uint4", "int2", "float8_e4m3fn", "float4_e2m1fn_x2"):
    dtype = getattr(torch, name, None)
    if dtype is None:
        print(f"{name:17} does not exist in torch {torch.__version__}")
        continue
    try:
        verdict = f"holds {torch.ones(4).to(dtype).float().tolist()}"
    except (NotImplementedError, RuntimeError, TypeError) as error:
        verdict = f"cannot be cast to: {type(error).__name__}"
    print(f"{name:17} {torch.empty(0, dtype=dtype).element_size()} byte an element, {verdict}")

# %% [markdown]
# - `int4`, `uint4`, `int2`, `float4_e2m1fn_x2` are **shells**: a name on memory for others to compute with. One cannot
#   cast to them or compute in them, and an element still takes a whole byte.
# - A byte is the smallest piece of memory with an address. Two 4-bit codes have to share one, and **packing is ours to
#   do**: shift and or. Notebook 04 does it for every width.

# %%
low, high = 0b0011, 0b1100
byte = low | high << 4
print(f"{low:04b} and {high:04b} in one byte: {byte:08b};  back: {byte & 15:04b} and {byte >> 4:04b}")
assert pack(torch.tensor([low, high]), 4).item() == byte

# %% [markdown]
# And what torch says about its own types is not always right. The eps of `e5m2fnuz`, whose fraction has two bits, from
# `finfo`, and from the definition: the next value after 1, minus 1.

# %% tags=["measured"]
odd = FLOATS["e5m2fnuz"]
following = torch.tensor(int(odd.encode(1.0)) + 1, dtype=torch.uint8).view(odd.dtype).float().item()
print("finfo says", torch.finfo(odd.dtype).eps, "  the next value after 1 is", following, "  the package says", odd.eps)

# %%
assert following == 1 + odd.eps == 1.25

# %% [markdown]
# ## 8 · How large is a model?
#
# Parameters times bits, divided by 8. GPT-3 has 175 billion parameters, and a common data-centre GPU has 80 GB.
#
# **Before you run it.** You have read somewhere that GPT-3 in int4 fits on one such card. Does it?
#
# <details><summary>After you have run it</summary>
# It does not: 87.5 GB, and that without scales. Three bits fit, barely.
# </details>

# %%
parameters, card = 175_000_000_000, 80_000_000_000
sizes = {name: parameters * bits / 8 for name, bits in (("fp32", 32), ("fp16", 16), ("int8", 8), ("int4", 4), ("3 bits", 3))}
for name, size in sizes.items():
    print(f"{name:7} {size / 1e9:6.1f} GB  {'fits' if size <= card else 'does not fit'}")
assert sizes["fp32"] == 700e9 and sizes["int4"] == 87.5e9 > card > sizes["3 bits"]

# %% [markdown]
# These are the weights alone. The activations and the cache of a running model come on top.
#
# **Exercise 01.cards.** How many cards of `card` GB do the weights need, at least? A GB is $10^9$ bytes.

# %%
def cards(parameters, bits, card):
    """Number of cards, a whole number."""
    ### BEGIN SOLUTION
    return math.ceil(parameters * bits / 8 / (card * 10**9))
    ### END SOLUTION

# %%
check("01.cards", cards)

# %% [markdown]
# ### Find the slips
#
# Seven sentences from lecture notes on this subject. Some are wrong.
#
# - a) The first bit of int8 counts $2^{-7} = -128$.
# - b) `10001001` in int8 is −119.
# - c) fp32 reaches to about $10^{32}$.
# - d) bf16 reaches to about $10^{38}$.
# - e) fp32 has 1 sign bit, 8 exponent bits and 7 fraction bits.
# - f) A model with 70 billion parameters takes 280 GB in fp32.
# - g) GPT-3 takes 80 GB in fp16.
#
# **Exercise 01.notes.** Which are wrong? A string of letters, such as `"bd"`.

# %%
### BEGIN SOLUTION wrong = ...
wrong = "aceg"
### END SOLUTION

# %%
check("01.notes", wrong)

# %% [markdown]
# ## What to keep
#
# - A pattern means nothing without its format. In two's complement the first bit counts $-2^{n-1}$, and sums wrap.
# - A float is sign, exponent field and fraction. Field 0 is subnormal and reaches 0; in IEEE's formats the highest field is
#   infinity and NaN.
# - Patterns of one sign are in the order of sizes; the ulp doubles at every power of two. Rounding to a format is rounding
#   to an integer number of ulps.
# - The exponent buys range, the fraction precision. bf16 is the upper half of fp32; fp16 is finer and ends at 65504.
#   <!-- claim: MATH (2 - 2**-10) * 2**15 -->
# - Small formats squeeze out every pattern: e4m3fn has no infinity and ends at 448, e2m1 has 15 numbers and nothing else.
#   <!-- claim: MATH 1.75 * 2**8; MATH 2**4 - 1 -->
# - Formats of 4 bits need a scale. Block formats have one for 16 to 64 neighbours, up to half a bit a number. Count it.
#   <!-- claim: FILE nanoq/numbers/blocks.py -->
# - torch's 4-bit types are shells. Packing is ours.
#
# ## What next
#
# - **02 · Downcasting**: what gets lost when numbers are cast to a smaller type, when sums are computed in it, and when a
#   model is trained in it.
# - **03 · nanoGPT**: the model that we are going to quantise.
#
# ## Further reading
#
# - Goldberg 1991, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*.
# - IEEE 754-2019, the standard: section 3.4 has the formats.
# - Micikevicius et al. 2022, *FP8 Formats for Deep Learning* ([arXiv 2209.05433](https://arxiv.org/abs/2209.05433)): e4m3
#   and e5m2, and why they differ.
# - *OCP Microscaling Formats (MX) Specification*, version 1.0, 2023: MXFP4, MXFP8, e8m0.
# - Dettmers et al. 2023, *QLoRA* ([2305.14314](https://arxiv.org/abs/2305.14314)): NF4 and double quantisation.
