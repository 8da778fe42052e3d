# %% [markdown]
# # 01 · Data types
#
# {{colab}}
#
# To quantise a number is to write it in fewer bits. So what can bits say, and what can they not? In this notebook you
# build the readers of the usual number formats yourself: integers, floats from 32 bits down to 4, and a block format
# such as large models are stored in today.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - read any pattern of bits as an unsigned integer, a signed one, or a float;
# - predict what an overflow leaves;
# - say how far a format reaches and how fine it is, and why no format of the same length is better at both;
# - tell the common 8-bit and 4-bit formats apart;
# - store a block of weights in MXFP4, and count its bits honestly, scale included.
#
# **You need** some Python. Nothing about machine learning is used here.

# %%
import math

import torch

import nanoq
from nanoq.numbers import BLOCKS, CODEBOOKS, FLOATS, FloatFormat, IntFormat
from nanoq.quant import linear_layers, pack
from nanoq.teach import check, use, use_style
from nanoq.teach.figures import nb01 as figures

use_style()

# %% [markdown]
# ## 1 · Integers
#
# A pattern of *bits* means nothing until somebody says how to read it. Here is one pattern of eight bits, `10001001`,
# read in two ways. A filled box is a 1; beneath each box stands what it counts.
#
# **Before you run it.** Read as unsigned, the pattern is 128 + 8 + 1 = 137. In the signed reading only the *first*
# weight is negative. What comes out? <!-- claim: MATH 2**7 -->
#
# <details><summary>After you have run it</summary>
# −128 + 8 + 1 = −119. It is 137 − 256: the first bit counts −128 instead of 128, a difference of 256. <!-- claim: MATH 2**7 -->
# </details>

# %%
pattern = 0b10001001
figures.bits("uint8", pattern)
figures.bits("int8", pattern)

# %% tags=["claims"]
assert IntFormat(8, signed=False).decode(pattern) == 137
assert IntFormat(8).decode(pattern) == -119 == 137 - 256

# %% [markdown]
# The signed reading is called **two's complement**. With $n$ bits $b_{n-1} \dots b_0$,
#
# $$x = -b_{n-1}\,2^{n-1} + \sum_{i<n-1} b_i\,2^i$$
#
# - The minus stands *before* the power: $-2^7 = -128$, while $2^{-7} = 1/128$.
# - The smallest number is a 1 followed by 0s only, the largest a 0 followed by 1s only. All ones are −1.
#
# **Exercise 1.** Read a string of bits of any length in two's complement. `int(digits, 2)` reads it as unsigned.

# %%
def signed(digits):
    """The number that a string such as "10001001" stands for in two's complement."""
    ### BEGIN SOLUTION
    return -int(digits[0]) * 2 ** (len(digits) - 1) + int(digits[1:], 2)
    ### END SOLUTION

# %%
check("01.signed", signed)

# %%
my_signed = use("01.signed", signed)
figures.number_circle(my_signed)  # all patterns of four bits, read by your function

# %% [markdown]
# The circle shows why nobody stores a sign and a size instead:
#
# - Adding 1 is one step clockwise, in both readings. The adder need not know which one you have in mind: **the same
#   circuit adds signed and unsigned numbers**, and subtracting is adding a negative number.
# - The circle has to be cut somewhere. Unsigned numbers are cut between 15 and 0, signed ones between 7 and −8. A sum
#   that crosses the cut **overflows**: it *wraps* around, and is off by $2^n$. <!-- claim: MATH 2**4 - 1; MATH 2**3 - 1; MATH 2 * 4 -->
#
# On paper, you add from right to left: add the two bits and the carry, write down the last bit of the sum, and carry
# the first. The carry out of the last column has no place, and is lost.
#
# **Exercise 2.** A sum is `total`, a whole number of any size, but only its last `bits` bits are kept, and they are read
# as signed. Which number is that? Python's `%` never gives a negative remainder, which helps.

# %%
def wrap(total, bits):
    """The signed number of `bits` bits that is left of a sum."""
    ### BEGIN SOLUTION
    return (total + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    ### END SOLUTION

# %%
check("01.wrap", wrap)

# %% [markdown]
# Compare your function with addition by hand, and with torch.
#
# **Before you run it.** What is 5 + (−3) in int8, and what is 100 + 50?
#
# <details><summary>After you have run it</summary>
# 5 + (−3) = 2, although a carry is lost on the left: that is as it should be. 100 + 50 = 150 does not fit: the carries
# run into the first bit, which counts −128, and 150 − 256 = −106 is left. Torch does the same, and gives no warning. <!-- claim: MATH 2**7 -->
# </details>

# %%
my_wrap = use("01.wrap", wrap)
for a, b in ((5, -3), (100, 50)):
    mine, by_torch = my_wrap(a + b, 8), (torch.tensor([a], dtype=torch.int8) + b).item()
    print(IntFormat(8).add(a, b), f"you: {mine}, torch: {by_torch}\n", sep="\n")

# %% tags=["claims"]
assert IntFormat(8).add(5, -3).value == 2
assert IntFormat(8).add(100, 50).value == by_torch == mine == 150 - 256 == -106

# %% [markdown]
# ## 2 · Floats
#
# Integers have the same gap everywhere: too coarse for small numbers, and needlessly fine for large ones. A **float**
# keeps a fixed number of *digits* and a place for the point, as in $3.14 \times 10^{0}$ or $3.14 \times 10^{-6}$, only
# in powers of two. Here is π in **fp16**. In Jupyter there are buttons below the picture: change any bit.

# %% tags=["measured"]
figures.bits("fp16", int(FLOATS["fp16"].encode(math.pi)))
figures.explorer("fp16", math.pi)

# %% [markdown]
# - **Sign**: one bit, 1 for minus. This is a sign and a size, not two's complement.
# - **Exponent**: an unsigned number, the *field*. Subtract the **bias**, 15 in fp16, to get the power of two.
# - **Fraction**: what follows the binary point. The power is chosen so that a 1 stands before the point. A bit that is
#   always 1 need not be stored; it is called the **hidden bit**.
#
# $$x = (-1)^{\text{sign}} \cdot 2^{\,\text{field} - \text{bias}} \cdot \Big(1 + \frac{\text{fraction}}{2^{10}}\Big)$$
#
# With a hidden 1 there would be no zero. So the lowest field has a rule of its own, and so has the highest:
#
# <!-- claim: MATH 2**5 - 2; MATH 2**5 - 1 -->
#
# | field | fraction | kind | value |
# |:--|:--|:--|:--|
# | 1 to 30 | any | **normal** | $\pm 2^{\text{field} - 15} \cdot 1.\text{fraction}$ |
# | 0 | any | **subnormal**, or zero | $\pm 2^{1 - 15} \cdot 0.\text{fraction}$ |
# | 31 | 0 | **infinity** | ± what is too large |
# | 31 | not 0 | **NaN**, not a number | 0/0, ∞ − ∞ |
#
# Why $1 - 15$, and not $0 - 15$, in the second row? Look at what happens near zero, in a toy format with 3 exponent bits
# and 2 fraction bits. <!-- claim: FILE nanoq/teach/figures/nb01.py -->

# %%
figures.near_zero()

# %% [markdown]
# - Without subnormals there is a hole around 0, and 0 itself is missing.
# - Subnormals fill it *evenly*, with the gap of the smallest normal numbers. Since they have the exponent of field 1,
#   the largest subnormal ends exactly one gap below the first normal number.
# - The price: towards 0 they have fewer and fewer digits.
#
# **Exercise 3.** Read a pattern of 16 bits in fp16, with all four rules. Two operators take patterns apart: `>>` drops
# bits from the right (`0b110101 >> 2` is `0b1101`), and `&` keeps those that are 1 in both (`0b110101 & 0b111` is `0b101`).
# `math.inf` and `math.nan` exist.

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

# %%
my_decode = use("01.decode", decode)  # read all patterns with it, and with torch
yours = torch.tensor([my_decode(p) for p in range(2**16)])
patterns = [my_wrap(p, 16) for p in range(2**16)]  # torch wants signed ones
theirs = torch.tensor(patterns, dtype=torch.int16).view(torch.float16).float()
same = (yours == theirs) | (yours.isnan() & theirs.isnan())
print(f"{same.sum():,} of {len(same):,} patterns agree")

# %% tags=["claims"]
assert same.all() and len(same) == 65_536

# %% [markdown]
# ## 3 · Patterns in order
#
# **Before you run it.** Add 1 to a pattern, as if it were an integer. What comes after 1.0 in fp16? After 2.0? And what
# comes just *before* 1.0?
#
# <details><summary>After you have run it</summary>
# After 1.0 comes 1 + 1/1024: the last bit of the fraction. After 2.0 the same bit is worth twice as much, before 1.0
# half as much. The step back from 1.0 leads into another exponent, without a jump. The picture shows the same for all
# values of an 8-bit float that are not negative: the dots lie on straight pieces. From the second on, each is twice as
# steep as the one before. <!-- claim: MATH 2**-10 -->
# </details>

# %%
fp16 = FLOATS["fp16"]
for value in (1.0, 2.0, 1024.0, 2048.0):
    here = int(fp16.encode(value))
    below, above = my_decode(here - 1), my_decode(here + 1)
    steps = f"steps {value - below:.5g} and {above - value:.5g}"
    print(f"{below:>15} < {value:>6} < {above:<15} {steps}")
figures.patterns_in_order()  # of e4m3fn: 4 exponent bits, 3 fraction bits

# %% tags=["claims"]
assert my_decode(int(fp16.encode(1.0)) + 1) == 1 + 1 / 1024

# %% [markdown]
# - **The order of the patterns is the order of the sizes.** When the fraction is full, the carry goes into the exponent.
#   That is why the exponent stands before the fraction, and why it has a bias and no sign of its own.
# - The distance between neighbours is one unit in the last place, an **ulp**. It stays the same within a **binade**,
#   from one power of two to the next, and **doubles** at each power of two.
# - So rounding to a format is rounding to a whole number of ulps. In 8-bit **e4m3fn**, which has three fraction bits, the
#   ulp around 0.3 is 1/32: 0.3 is 9.6 steps, is rounded to 10 steps, and becomes 0.3125. <!-- claim: MATH 0.25 / 2**3; MATH 0.3 * 32; MATH 10 / 32; CELL assert FLOATS["e4m3fn"].round(0.3) -->

# %% tags=["claims"]
assert FLOATS["e4m3fn"].round(0.3) == 10 / 32 == 0.3125
assert FLOATS["e4m3fn"].ulp(0.3) == 1 / 32
assert (FLOATS["e4m3fn"].values()[: 2**7 - 1].diff() > 0).all()

# %% [markdown]
# ## 4 · Range against precision
#
# A pattern is nearly a logarithm. So the *relative* error of rounding is about the same for numbers of all sizes, and
# that is what floats are good at. How small this error is, and for which sizes it holds, is a choice: a format of 16
# bits has 16 bits to divide between exponent and fraction. The table has the results of some choices, and the picture
# shows them: to the right, larger numbers; upwards, more significant bits.

# %%
print("format   bits  1/e/m    largest      smallest normal  eps")
for name in ("fp32", "fp16", "bf16", "e4m3fn", "e5m2"):
    f = FLOATS[name]
    layout = f"1/{f.exponent}/{f.mantissa}"
    ends = f"{f.max:<12.6g} {f.min_normal:<16.4g}"
    print(f"{name:8} {f.bits:3}  {layout:8} {ends} {f.eps:.3g}")
figures.how_far_and_how_fine()

# %% tags=["claims"]
for name in ("fp32", "fp16", "bf16", "e4m3fn", "e5m2"):
    info = torch.finfo(FLOATS[name].dtype)
    f = FLOATS[name]
    assert (info.max, info.smallest_normal) == (f.max, f.min_normal)
    assert (info.eps, info.bits) == (f.eps, f.bits)
assert FLOATS["bf16"].eps == 8 * fp16.eps
assert fp16.round(256.0**2).isinf() and fp16.max == 65504
assert FLOATS["bf16"].mantissa + 1 == 8 and 10**2 < 2**8 < 10**3

# %% [markdown]
# - A level line means the same relative precision at every size. The ramp at its left is the subnormals.
# - **eps** is the ulp at 1, which is $2^{-m}$ with $m$ fraction bits. Rounding to nearest errs by at most half of it,
#   relative to the number.
# - **bf16** has the exponent of **fp32** and a short fraction: the range of fp32 with 8 significant bits, two or three
#   decimal digits. **fp16** is eight times finer and ends at 65504; the square of 256 is already infinity.
# - **int8** is *all ramp*: an integer format is what a float would be with subnormals alone. The gap is the same
#   everywhere, and small numbers have few digits. For weights it needs a *scale*, which moves the ramp to where the
#   weights are: see section 6, and notebook 04.

# %% [markdown]
# ## 5 · Eight bits, and four
#
# With so few bits every pattern counts. IEEE's rule gives the whole highest binade to infinity and NaN. **e5m2** (5
# exponent bits, 2 fraction bits) obeys; e4m3fn does not. These are the last positive patterns of both, without the sign:
# <!-- claim: MATH 8 - 1 - 2 -->
#
# | | `1111010` | `1111011` | `1111100` | `1111101` | `1111110` | `1111111` |
# |:--|--:|--:|--:|--:|--:|--:|
# | e5m2 | 49152 | 57344 | ∞ | NaN | NaN | NaN |
# | e4m3fn | 320 | 352 | 384 | 416 | 448 | NaN |
#
# - `fn` means *finite*: there is **no infinity**, and only one NaN of each sign, the pattern of all ones.
# - What becomes of 1000 in e4m3fn, then? Libraries, and even versions of torch, differ between NaN and the largest
#   number. So scale your numbers into the range before you cast.
# - The usual choice is e4m3fn for weights and activations (what goes from layer to layer), which need digits, and e5m2
#   for gradients (what training computes), which need range.
#
# **Exercise 4.** How far does a format reach? Compute its largest finite value from its bits. `specials` is `"ieee"` (the
# highest field holds no numbers), `"fn"` (only the pattern of all ones is no number) or `"none"` (every pattern is a
# number). The bias is `2**(exponent - 1) - 1`.

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
# What would each format lose or gain under the other rules? The smallest, **e2m1**, has 4 bits.

# %%
my_largest = use("01.largest", largest)
for name in ("e5m2", "e4m3fn", "e2m1"):
    f = FLOATS[name]
    for rule in ("ieee", "fn", "none"):
        print(f"{name} by {rule!r}: {my_largest(f.exponent, f.mantissa, rule):g}")
figures.number_lines()

# %% tags=["claims"]
assert FLOATS["e4m3fn"].max == 448 and FloatFormat("e4m3", 4, 3).max == 240
assert FLOATS["e2m1"].max == 6 and my_largest(2, 1, "ieee") == 3
last = {name: FLOATS[name].decode(torch.arange(0x7A, 0x80)).tolist()
        for name in ("e5m2", "e4m3fn")}
assert last["e5m2"][:3] == [49152, 57344, math.inf]
assert last["e4m3fn"][:5] == [320, 352, 384, 416, 448]
assert len(CODEBOOKS["e2m1"]) == 15 and len(CODEBOOKS["e2m3"]) == len(CODEBOOKS["e3m2"])

# %% [markdown]
# The fewer bits, the more special patterns cost: by IEEE's rule, e4m3fn would end at 240 instead of 448, and e2m1 at 3
# instead of 6. The picture is the point of this notebook: **a format is a choice of places on the number line.**
#
# - int4 spaces its values evenly. e2m1 is finer near 0 and coarser farther out, with one value fewer, as 0 and −0 are one.
# - Compare e2m3 with e3m2, 6 bits each: the same number of values, in one kept near, in the other spread far. Range
#   against precision again.
# - Why follow a formula at all? Four bits are an index, and the 16 values can be *any*. Those of **nf4** are chosen from
#   the data; a Further section builds them. <!-- claim: MATH 2**4 -->

# %% [markdown]
# ## 6 · Block formats
#
# The positive values of e2m1 go from 0.5 to 6, and most weights of our model are smaller than all of them. A **block format** lets
# some neighbours, the *block*, share one scale: every block uses the same ruler, stretched to fit. In **MXFP4** a block has
# 32 weights, and the scale $s$ is a power of two. A block of weights $w$ is stored in three steps:
#
# 1. Choose $s = 2^{\lfloor \log_2 \max|w| \rfloor - 2}$. The largest $|w|/s$ then lies between 4 and 8, in the binade of
#    the largest value, 6. <!-- claim: MATH 2**2; MATH 2**3 -->
# 2. Replace each $w/s$ by the nearest value of e2m1. What lies above 6 becomes 6: it **saturates**.
# 3. To read it again, multiply by $s$.
#
# Take the weights 0.3, −1.1 and 0.04. The scale is $2^{0 - 2} = 1/4$, so $w/s$ is 1.2, −4.4 and 0.16. The nearest values
# are 1, −4 and 0, which stand for 0.25, −1 and 0. <!-- claim: MATH 0.3 * 4; MATH 1.1 * 4; MATH 0.04 * 4; MATH 1 / 4 -->
#
# **Exercise 5.** Do all three steps; a loop over the weights is fine. `places` has the values of e2m1 that are not
# negative. Useful: `math.log2`, `math.floor`, `torch.sign`, and `argmin`, which finds where a tensor is smallest.

# %%
places = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def mxfp4(block):
    """The weights of a block (32,) as MXFP4 stores them, a tensor (32,)."""
    ### BEGIN SOLUTION
    scale = 2.0 ** (math.floor(math.log2(block.abs().max())) - 2)
    distances = (block.abs()[:, None] / scale - places).abs()  # (32, 8)
    return places[distances.argmin(1)] * block.sign() * scale
    ### END SOLUTION

# %%
check("01.mxfp4", mxfp4)

# %%
my_mxfp4 = use("01.mxfp4", mxfp4)  # store three blocks of the course's model with it
layers = linear_layers(nanoq.load("tales-2.7m").model)
row = layers["blocks.2.mlp.up"].weight.detach()[0, :96]
figures.blocks(row, my_mxfp4)

# %% tags=["claims"]
assert FLOATS["e2m1"].min_subnormal == 0.5 and FLOATS["e2m1"].max == 6
assert my_mxfp4(torch.tensor([0.3, -1.1, 0.04])).tolist() == [0.25, -1, 0]
assert (layers["blocks.2.mlp.up"].weight.abs() < 0.5).float().mean() > 0.5
rounded = torch.cat([my_mxfp4(block) for block in row.split(32)])
assert torch.equal(rounded, BLOCKS["mxfp4"].round(row[None])[0])
scales, _ = BLOCKS["mxfp4"].scales(row[None])
assert (row.view(3, 32).abs() > 6 * scales.T).any()  # some weights do saturate

# %% [markdown]
# Three weights saturate, two in the first block and one in the last. How many bits does a weight take? "4 bits" is the code alone. The scale is in the file
# as well, and a block shares it: codes of $c$ bits in blocks of $n$ with scales of $s$ bits take $c + s/n$ bits per
# weight. For MXFP4 that is 4 + 8/32 = 4.25, so a "4-bit model" has more than 4 bits per weight. <!-- claim: MATH 8 / 32; MATH 4 + 8 / 32 -->
#
# - MXFP4 stores its scale as **e8m0**: eight bits of exponent, and no sign, fraction or zero.
# - **NVFP4** has blocks of 16, with scales in e4m3fn, which come closer to the largest weight than powers of two do.
#   These need a scale in turn: one fp32 number for the whole matrix, which is not in the table. <!-- claim: FILE nanoq/numbers/blocks.py -->
# - **NF4** has an fp32 scale for 64 weights. **Double quantisation** (`nf4-dq`) stores these scales in 8 bits, with one
#   more fp32 number for 256 of them. <!-- claim: FILE nanoq/numbers/blocks.py -->

# %%
for name, fmt in BLOCKS.items():
    sum_of_bits = f"{fmt.bits} + {fmt.scale_bits:g}/{fmt.block}"
    print(f"{name:7} {fmt.element:7} {sum_of_bits:13} = {fmt.bits_per_weight:.4g}")

# %% tags=["claims"]
assert BLOCKS["mxfp4"].bits_per_weight == 4.25
assert BLOCKS["nvfp4"].bits_per_weight == BLOCKS["nf4"].bits_per_weight == 4.5
assert round(BLOCKS["nf4-dq"].bits_per_weight, 3) == 4.127

# %% [markdown]
# ## Further · Crowded near zero, thin far out
#
# **Adds** how the patterns are shared out between small and large numbers, and one exercise.
#
# **Before you run it.** The numbers between 0 and 1 are a tiny part of the range of fp16, 0 to 65504. Which part of its
# patterns do they get? Count those from 0 up to the largest finite number. <!-- claim: MATH (2 - 2**-10) * 2**15 -->
#
# <details><summary>After you have run it</summary>
# Nearly half, because half of the exponent fields stand for negative powers of two. It is the same in every format whose
# bias is in the middle.
# </details>

# %%
for name in ("fp32", "fp16", "bf16", "e4m3fn", "e5m2"):
    fmt = FLOATS[name]
    one, end = int(fmt.encode(1.0)), int(fmt.encode(fmt.max))
    print(f"{name:7} {100 * one / (end + 1):5.1f} % of these patterns lie below 1")

# %% tags=["claims"]
for name in ("fp32", "fp16", "bf16", "e4m3fn", "e5m2"):
    fmt = FLOATS[name]
    assert 0.4 < int(fmt.encode(1.0)) / (int(fmt.encode(fmt.max)) + 1) < 0.55
assert torch.tensor(2048, dtype=torch.float16) + 1 == 2048

# %% [markdown]
# Floats crowd around 0, and so do weights. Far from 0 they thin out: when the ulp has grown to 2, odd numbers are gone.
# In fp16, 2048 + 1 is 2048. <!-- claim: CELL assert torch.tensor(2048, dtype=torch.float16) -->
#
# **Exercise 6.** Which is the smallest positive integer that a format with `mantissa` fraction bits lacks, provided that
# its exponent reaches far enough?

# %%
def first_missing(mantissa):
    """The smallest positive integer that is not a value of the format."""
    ### BEGIN SOLUTION
    return 2 ** (mantissa + 1) + 1
    ### END SOLUTION

# %%
check("01.gap", first_missing)

# %% [markdown]
# A search for the first integer that does not survive a round trip should find the same.

# %%
my_missing = use("01.gap", first_missing)

# %%
integers = torch.arange(1.0, 4000)
for name in ("fp16", "bf16", "e4m3fn", "e2m1"):
    lost = integers[FLOATS[name].round(integers) != integers]
    print(f"{name:7} you {my_missing(FLOATS[name].mantissa)}, found {int(lost[0])}")

# %% tags=["claims"]
assert int(lost[0]) == my_missing(FLOATS["e2m1"].mantissa) == 5

# %% [markdown]
# ## Further · bf16 is the upper half of fp32
#
# **Adds** the cheapest conversion there is.

# %%
wide = torch.tensor([math.pi, 0.1, -2.5e38])  # (3,) fp32
upper = wide.view(torch.int32) >> 16  # drop the lower 16 bits
cut = (upper << 16).view(torch.float32)
print("cut    ", [f"{v:.4g}" for v in cut.tolist()])
print("rounded", [f"{v:.4g}" for v in wide.bfloat16().tolist()])

# %% tags=["claims"]
bf16 = FLOATS["bf16"]
assert torch.equal(cut, bf16.round(wide, "zero"))
assert torch.equal(bf16.round(wide), wide.bfloat16().float())

# %% [markdown]
# Cutting is rounding towards zero. Torch rounds to nearest instead, which at worst is half as far off. On the way back
# from bf16 to fp32, 16 zeros are appended and nothing is lost.

# %% [markdown]
# ## Further · NF4, places chosen from the data
#
# **Adds** the format of QLoRA, built from the normal distribution.
#
# Weights are roughly normally distributed. The idea of NF4 is to take **quantiles** of the normal distribution: even
# steps of probability, whatever steps of value that gives. Then the codes should be used about equally often. 0 has to be
# one of the values, so there are 8 above it and 7 below, with slightly different steps.
# <!-- claim: MATH 2**4 / 2; MATH 2**4 / 2 - 1 -->

# %%
edge = (1 / 30 + 1 / 32) / 2  # the outermost; the quantiles of 0 and 1 lie at infinity
above = torch.linspace(0.5, 1 - edge, 9, dtype=torch.float64)  # zero, 8 positive values
below = torch.linspace(edge, 0.5, 8, dtype=torch.float64)[:-1]  # 7 negative values
probability = torch.cat((below, above))  # (16,)

# %%
quantiles = torch.special.ndtri(probability)  # below each: that share of the weights
print([round(v, 3) for v in (quantiles / quantiles[-1]).tolist()])
figures.nf4_places(probability)

# %% tags=["claims"]
assert torch.allclose((quantiles / quantiles[-1]).float(), CODEBOOKS["nf4"])

# %% [markdown]
# - Where do 1/30 and 1/32 come from? With 15 even steps of probability, half a step is 1/30; with 16, it is 1/32. QLoRA's
#   library, bitsandbytes, takes the mean of the two, and so do we, to have the same table. <!-- claim: MATH 1 / 2 / 15; MATH 1 / 2 / 16; CELL edge = (1 / 30 -->
# - The largest value becomes 1. So NF4 needs a scale: the largest weight of a block of 64, in absolute value.
#
# **Before you run it.** 64,000 normally distributed numbers are stored in such blocks. Are all 16 codes used equally
# often? <!-- claim: MATH 1000 * 64 -->
#
# <details><summary>After you have run it</summary>
# No. The table ends at 1.85 standard deviations, but the largest of 64 normal numbers usually lies further out. So the
# codes in the middle get more than their share, and those near the ends less. NF4 is a good idea, not an optimum.
# </details>

# %%
numbers = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
top = numbers.abs().amax(1, keepdim=True)  # (1000, 1), the scales
units = numbers / top  # (1000, 64), from -1 to 1
codes = (units[..., None] - CODEBOOKS["nf4"]).abs().argmin(-1)  # (1000, 64), 0 to 15
used = codes.flatten().bincount() / codes.numel()  # (16,)
figures.nf4_use(used)

# %% tags=["claims"]
assert used[4:11].min() > 1 / 16 > used[[0, 1, 14, 15]].max()
assert round(quantiles[-1].item(), 2) == 1.85 and (top > 1.85).float().mean() > 0.9

# %% [markdown]
# ## Further · Four bits in torch
#
# **Adds** what torch's own 4-bit types can do. The list grows; this is the torch of this run.

# %% tags=["measured"]
def describe(dtype):
    """What torch can do with a type."""
    try:
        return f"holds {torch.ones(4).to(dtype).float().tolist()}"
    except (NotImplementedError, RuntimeError, TypeError) as error:
        return f"cannot be cast to: {type(error).__name__}"


for name in ("int8", "int4", "uint4", "int2", "float8_e4m3fn", "float4_e2m1fn_x2"):
    dtype = getattr(torch, name, None)
    print(f"{name:17}", describe(dtype) if dtype else "does not exist in this torch")

# %% [markdown]
# - `int4`, `uint4`, `int2` and `float4_e2m1fn_x2` are **shells**: names on memory for others to compute with. You cannot
#   cast to them or compute in them.
# - A byte is the smallest piece of memory with an address. So two 4-bit codes have to share one, and **packing is left to
#   us**: a shift and an *or*. In notebook 04 you do it for a whole model.

# %%
low, high = 0b0011, 0b1100
byte = low | high << 4
print(f"{low:04b} and {high:04b} in one byte: {byte:08b}")
print(f"and back: {byte & 15:04b} and {byte >> 4:04b}")

# %% tags=["claims"]
assert pack(torch.tensor([low, high]), 4).item() == byte

# %% [markdown]
# ## Summary
#
# - A pattern means nothing without its format. In two's complement the first bit counts $-2^{n-1}$, and sums wrap.
# - A float is sign, exponent field and fraction. Field 0 holds subnormals and zero; in IEEE's formats the highest field
#   holds infinity and NaN.
# - Patterns of one sign are in the order of sizes, and the ulp doubles at every power of two.
# - The exponent buys range, the fraction precision. bf16 has the range of fp32; fp16 is finer and ends at 65504.
#   <!-- claim: MATH (2 - 2**-10) * 2**15 -->
# - Small formats use every pattern: e4m3fn has no infinity and ends at 448, e2m1 has 15 numbers and nothing else.
#   <!-- claim: MATH 1.75 * 2**8; MATH 2**4 - 1 -->
# - Formats of 4 bits need a scale. A block format has one per 16 to 64 weights, up to half a bit per weight. Count it.
#   <!-- claim: FILE nanoq/numbers/blocks.py -->
#
# Continue with **02 · Downcasting**, on what gets lost when numbers are cast to a smaller type and when sums are computed
# in it, or with **03 · nanoGPT**, where you build the model that we are going to quantise.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further reading
#
# - Goldberg 1991, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*.
# - IEEE 754-2019, the standard: section 3.4 has the formats.
# - Micikevicius et al. 2022, *FP8 Formats for Deep Learning* ([arXiv 2209.05433](https://arxiv.org/abs/2209.05433)): e4m3
#   and e5m2, and why they differ.
# - *OCP Microscaling Formats (MX) Specification*, version 1.0, 2023: MXFP4, MXFP8, e8m0.
# - Dettmers et al. 2023, *QLoRA* ([2305.14314](https://arxiv.org/abs/2305.14314)): NF4 and double quantisation.
