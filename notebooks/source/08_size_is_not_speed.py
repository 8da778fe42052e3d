# %% [markdown]
# # 08 · Size is not speed
#
# {{colab}}
#
# A 4-bit file is about an eighth of the float32 one. Is the model eight times as fast? It can be several times as fast,
# equally fast or *many times slower*, with the same codes in the same file. That depends on who reads the bytes, on how
# many tokens come at once, and on where the weights lie. Here you write a **kernel**, a loop that multiplies by packed
# codes as they lie, and work out when it can win.
#
# {{time_card}}
#
# {{cost_card}}
#
# **By the end of this notebook you can**
#
# - multiply by packed 4-bit codes without making the float weight;
# - count the bytes and the operations of a product, and read from a roofline when fewer bits save time;
# - compute a layer in integers alone, and say what one large channel does to it;
# - count the bytes of a KV cache, and choose along which axis it is rounded;
# - let your own kernel read your own file.
#
# **You need** notebook 04 (codes, scales, zero points, packing). GPTQ of notebook 07 is a method that you call here.
# Times differ between machines, and between a quiet and a busy one: here no check depends on a time, and what the text
# says of times, your own run may contradict.

# %%
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F

import nanoq
from nanoq import quant
from nanoq.lm import load_corpus
from nanoq.quant import affine_grid, nearest
from nanoq.quant.kernels import quantize_per_token, use_backend
from nanoq.teach import check, pick, speed, use, use_style
from nanoq.teach.figures import nb08 as figures
from nanoq.teach.own_file import as_stats, own_file, own_files
from nanoq.teach.roads import inputs_of

use_style()
torch.set_num_threads(1)  # two that wait for each other would hide what we want to see

# %%
checkpoint, corpus = nanoq.load("tales-2.7m"), load_corpus("tales")
model, tokenizer = checkpoint.model, checkpoint.tokenizer
prompt = tokenizer.encode("Once upon a time")

# %% [markdown]
# ## 1 · An eighth of the bytes
#
# The course's model in float32, and its 4-bit version with packed codes in `QuantLinear`. Both write the same text.
# They take turns, one character each, so that whatever else this machine does disturbs both alike. The median of the
# turns counts; their quartiles say how sure it is.
#
# **Before you run it.** Will the 4-bit model write eight times as fast, twice as fast, equally fast, or more slowly?
#
# <details><summary>After you have run it</summary>
# More slowly. <code>QuantLinear</code> unpacks its codes, makes the float weight anew in <i>every</i> call, multiplies,
# and throws it away. For each weight it reads half a byte, writes four and reads these four again, where float32 reads
# four: a factor of two. The rest is that torch takes a pass, and a new tensor in memory, for each step of the unpacking: shift,
# mask, to float, minus the zero point, times the scale. The file is small; the work is not. <b>A format saves memory; only a kernel saves time.</b>
# </details>

# %% tags=["measured"]
four = deepcopy(model)
quant.quantize_model(four, quant.Recipe(bits=4))
both = {"float32": model, "4 bits": four}
took = speed.writing_times(both, prompt, pick(ci=4, lab=24, full=200))
print("4 bits:", speed.Ratio.of(took["4 bits"], took["float32"]))
figures.characters_per_second(took)

# %% [markdown]
# ## 2 · Your kernel
#
# Two 4-bit codes (*nibbles*) share a byte. The low nibble of byte $j$ of a row is the code of column $2j$, the high
# nibble that of column $2j+1$:

# %%
figures.nibbles([5, 12, 0, 15, 9, 3, 7, 8])

# %% [markdown]
# So the low nibbles of a row, in order, meet $x_0, x_2, x_4, \dots$, and the high ones $x_1, x_3, x_5, \dots$ A row
# with scale $s$ and zero point $z$ has the output
#
# $$y = \sum_k s\,(q_k - z)\,x_k \;=\; s\Big(\sum_k q_k x_k \;-\; z \sum_k x_k\Big)$$
#
# The right side takes off the zero point once per row instead of once per weight.
#
# **Exercise 1.** One row: `packed` `(n / 2,)` in uint8, its scale and zero point (numbers), `x` `(n,)`. Return the
# output: a tensor of no dimensions, or a number. (uint8 has no negative numbers: turn codes into floats.)

# %%
def dot4(packed, scale, zero, x):
    """A row of packed 4-bit codes times x."""
    ### BEGIN SOLUTION
    low, high = (packed & 15).float(), (packed >> 4).float()
    total = (low * x[0::2]).sum() + (high * x[1::2]).sum()
    return scale * (total - zero * x.sum())
    ### END SOLUTION

# %%
check("08.dot4", dot4)

# %% [markdown]
# With torch this is short, and slow: it writes the unpacked nibbles to memory, as floats, and reads them again. A loop
# can keep each of them in a register. In plain Python such a loop crawls, but numba compiles it to machine code. For
# that it has to be simple: numbers, indices and loops, no torch.
#
# **Exercise 2.** The kernel: all rows. `packed` `(rows, n / 2)`, `scale` and `zero` `(rows,)`, and `x` in two parts,
# its `even` and its `odd` columns, `(n / 2,)` each; all are numpy arrays. Return `y` `(rows,)`, which begins as an
# array of zeros (`np.zeros`, float32). Go through the rows, and within a row through its bytes; each byte has two
# codes. You need $\sum_k x_k$ only once.

# %%
def kernel(packed, scale, zero, even, odd):
    """All rows of packed 4-bit codes times x, byte by byte."""
    ### BEGIN SOLUTION
    y = np.zeros(len(packed), np.float32)
    x_sum = even.sum() + odd.sum()
    for r in range(len(packed)):
        total = np.float32(0)
        for j in range(len(even)):
            byte = packed[r, j]
            total += np.float32(byte & 15) * even[j]
            total += np.float32(byte >> 4) * odd[j]
        y[r] = scale[r] * (total - zero[r] * x_sum)
    return y
    ### END SOLUTION

# %%
check("08.kernel", kernel)

# %% [markdown]
# Now multiply with a layer of a size that real language models have, at 8 and 4 bits. Its weights are random: a product
# takes as long on noise as on sense. numba compiles your loop twice. `strict` keeps your order of additions: one after
# the other, each waiting for the last. `fast` may *reorder* the sum and keep many partial sums, one in each lane of a
# vector register. That changes a float32 sum by a few roundings.
#
# In a model a layer is not alone: before its turn comes again, all other layers have passed through the cache. So
# `measure_cold` reads many megabytes of something else before each call that it times.
#
# **Before you run it.** Put in order, fastest first: float32; the package's kernel; yours, fast; yours, strict; making
# the float weight first.
#
# <details><summary>After you have run it</summary>
# On most machines the fast loop and the package lead, and making the float weight comes last or nearly so. The places
# of float32 and the strict loop depend on the machine. The same codes and the same sums: what differs is how the bytes
# travel, and whether additions wait.
# </details>

# %% tags=["measured"]
OUT, IN = pick(ci=(256, 512), lab=(2048, 4096), full=(2048, 8192))
layers = speed.random_layers(OUT, IN)
x = torch.randn(IN, generator=torch.Generator().manual_seed(1))  # (in,): one token
my_kernel, grid = use("08.kernel", kernel), layers[4].grid
stored = speed.arrays(layers[4].codes, grid.scale, grid.zero_point, x)
fast, strict = speed.compiled(my_kernel, "08.kernel", stored)
matrix = layers[4].dequantize()  # (out, in) in float32
use_backend(layers[4], "int4")
ways = {"float32": lambda: F.linear(x, matrix), "package": lambda: layers[4](x),
        "yours, fast": lambda: fast(*stored), "yours, strict": lambda: strict(*stored),
        "float weight first": lambda: F.linear(x, layers[4].dequantize())}  # fmt: skip
elsewhere = torch.ones(pick(ci=2**20, lab=2**25, full=2**26))
took = speed.measure_cold(ways, pick(ci=0, lab=2, full=6), elsewhere)
speed.print_ratios(took, "float32")

# %% tags=["claims"]
exact = layers[4].dequantize().double() @ x.double()  # (out,)
allowed = 1e-5 * (layers[4].dequantize().abs() @ x.abs())  # roundings of float32
results = [torch.from_numpy(loop(*stored)) for loop in (fast, strict)]
for y in [*results, layers[4](x)]:
    assert ((y - exact).abs() <= allowed).all()
my_row = use("08.dot4", dot4)
row = my_row(layers[4].codes[3], grid.scale[3, 0], grid.zero_point[3, 0], x)
assert abs(row - exact[3]) <= allowed[3]

# %% [markdown]
# ## 3 · What a product costs
#
# A processor moves bytes and it computes. A simple model says that it does both at the same time, and the slower one
# decides:
#
# $$\text{time} = \max\Big(\frac{\text{bytes moved}}{\text{bandwidth}},\; \frac{\text{operations}}{\text{rate}}\Big)$$
#
# **Exercise 3.** Bytes. A weight `(out, columns)` has codes of `bits` bits, and each group of `group_size` columns of a
# row has a scale and a zero point, in float32 both. The kernel reads all that once, reads `x` in float32, and writes
# `y` in float32. How many bytes does it move for one token? (`group_size` divides `columns`.)

# %%
def bytes_moved(out, columns, bits, group_size):
    """Bytes that the kernel reads and writes for one token."""
    ### BEGIN SOLUTION
    groups = out * columns // group_size
    return out * columns * bits / 8 + groups * (4 + 4) + 4 * (columns + out)
    ### END SOLUTION

# %%
check("08.bytes_moved", bytes_moved)

# %%
my_bytes = use("08.bytes_moved", bytes_moved)
for size in (4096, 64, 32, 16):
    moved = my_bytes(2048, 4096, 4, size)
    print(f"groups of {size:4}: {8 * moved / (2048 * 4096):.2f} bits per weight")

# %% tags=["claims"]
for size in (96, 32, 16):
    some = model.blocks[0].attention.out.weight.detach()
    grouped = affine_grid(some, 4, granularity="group", group_size=size)
    layer = quant.QuantLinear.from_codes(nearest(some, grouped), grouped)
    use_backend(layer, "int4")
    assert layer.kernel.nbytes + 4 * (192 + 192) == my_bytes(192, 192, 4, size)

# %% [markdown]
# A file keeps scales in float16 and packs the zero points. The kernel unpacks these few numbers once and reads eight
# bytes per group. With groups of 16, the kernel reads twice the bits in the name. **Count what travels.**
#
# The operations: each weight is multiplied and added once per token. The number of **operations per byte** is called
# the *arithmetic intensity*.
#
# **Exercise 4.** The intensity of a product with many tokens. The weight `(out, columns)` in `bits` bits is read once
# (leave the scales out); each of the `tokens` inputs is read and each result written, in float32. A multiplication and
# an addition are two operations.

# %%
def intensity(out, columns, tokens, bits):
    """Operations per byte moved."""
    ### BEGIN SOLUTION
    moved = out * columns * bits / 8 + 4 * tokens * (columns + out)
    return 2 * out * columns * tokens / moved
    ### END SOLUTION

# %%
check("08.intensity", intensity)

# %% [markdown]
# What can *this* machine do? For the bandwidth, `measure_machine` times a product with a matrix that is much larger
# than the cache: almost nothing happens but reading. For the rate, it times a product of two matrices that fit the
# cache. Rate divided by bandwidth is the **balance**: the operations that fit into the time of one byte. Work with a
# lower intensity leaves the processor waiting for memory; with a higher one, memory waits.
#
# The **roofline** shows it: the rate that can be reached, against the intensity. On the left the bandwidth limits, a
# slope; on the right the rate, a flat roof. They meet at the balance. (Dotted: the same for integers of 8 bits; `w8a8` has
# them on both sides, section 4.)
#
# **Before you run it.** Where do the products of one token lie, and where those of 256 tokens? For which of them is a
# weight of fewer bits a chance to be faster?
#
# <details><summary>After you have run it</summary>
# One token (hollow): far left on the slope. Fewer bits move a point to the right, where the roof is higher. A point may
# stay below its roof: unpacking takes time, too; and lie above the slope where a part of the weight was still in the cache. <b>Fewer bytes are a chance; the kernel must take it.</b> 256 tokens
# (filled): right of the balance, where nobody waits for the weight. Reading less saves nothing there; only a <i>higher
# roof</i> helps, that of integer arithmetic (section 4). <!-- claim: CELL for t in (1, 256) -->
# </details>

# %% tags=["measured"]
my_intensity = use("08.intensity", intensity)
machine = speed.measure_machine(elsewhere, pick(ci=256, lab=512, full=512), 1)
took = {t: speed.measure_products(layers, t, 1, elsewhere) for t in (1, 256)}
figures.roofline(machine, took, my_intensity, (OUT, IN))

# %% tags=["claims"]
assert my_intensity(2048, 4096, 1, 32) < 0.5
assert abs(my_intensity(2048, 4096, 1, 4) - 4) < 0.1

# %% [markdown]
# ## 4 · Integers on both sides: W8A8
#
# To get under the higher roof, both factors have to be integers: 8-bit weights and 8-bit activations. A token's
# activations are rounded on the fly, on a symmetric grid with a scale $s_t$ of their own. The scales go in front of the
# sum:
#
# $$y_{tr} = \sum_k s_t\,q_{tk} \cdot s_r\,(c_{rk} - z_r) \;=\; s_t\,s_r\Big(\underbrace{\textstyle\sum_k q_{tk}\,c_{rk}}
#   _{\text{integers}} - z_r \textstyle\sum_k q_{tk}\Big)$$
#
# for token $t$ and row $r$. It only works because no scale depends on $k$.
#
# **Exercise 5.** Codes `(out, in)` in uint8, zero points and scales of the rows `(out, 1)`, scales of the tokens
# `(tokens, 1)`, activations `q` `(tokens, in)` in int8. Return `y` `(tokens, out)`. (Use `.long()` for the integers.)

# %%
def w8a8(codes, zero, weight_scale, x_scale, q):
    """The output from integer sums and two scales."""
    ### BEGIN SOLUTION
    sums = codes.long() @ q.long().T  # (out, tokens)
    sums = sums - zero * q.long().sum(1)
    return (sums * weight_scale).T * x_scale
    ### END SOLUTION

# %%
check("08.w8a8", w8a8)

# %% [markdown]
# Try it on what a real layer reads. In large models a few channels of the activations, always the same ones, are many
# times as large as the rest. Ours is too small to grow such **outliers**, so plant one: multiply one channel of the
# input by a factor and divide its column of the weight by the same factor. Without rounding, the outputs stay as they
# are.
#
# **Before you run it.** What happens to the error of the outputs as the factor grows: nothing, a little, or a lot? And
# if only the weight is rounded?
#
# <details><summary>After you have run it</summary>
# A lot. One channel sets the scale of each token, and the others have to live with steps that are far too wide. A scale
# of its own for the channel would help, but it depends on $k$ and cannot be taken out of the integer sum. The weight
# alone suffers much less. <i>Further</i> has two remedies, SmoothQuant and rotations.
# </details>

# %% tags=["measured"]
my_w8a8 = use("08.w8a8", w8a8)
seen = quant.sample_windows(tokenizer.encode(corpus.train), 256, 2, seed=0)
layer = model.blocks[3].attention.qkv
inputs = inputs_of(model, layer, seen)  # (tokens, 192)


def errors(factor):
    """Relative error of the outputs: both rounded; the weight alone."""
    x, w = inputs.clone(), layer.weight.detach().clone()
    x[:, 7], w[:, 7] = factor * x[:, 7], w[:, 7] / factor
    grid, (q, x_scale) = affine_grid(w, 8), quantize_per_token(x)
    c, wanted = nearest(w, grid), x @ w.T
    both = my_w8a8(c, grid.zero_point.long(), grid.scale, x_scale, q)
    alone = x @ grid.decode(c).T
    return [float((y - wanted).norm() / wanted.norm()) for y in (both, alone)]


for factor in (1, 10, 50):
    print(factor, "times: W8A8 {:.4f}, weight alone {:.4f}".format(*errors(factor)))

# %% tags=["claims"]
(plain, plain_weight), (spoiled, spoiled_weight) = errors(1), errors(50)
assert plain < 0.03 and spoiled > 3 * plain and spoiled > 2 * spoiled_weight
use_backend(layers[8], "w8a8")
tokens = torch.randn(20, IN, generator=torch.Generator().manual_seed(2))
eight, (q, x_scale) = layers[8].grid, quantize_per_token(tokens)
mine = my_w8a8(layers[8].codes, eight.zero_point.long(), eight.scale, x_scale, q)
torch.testing.assert_close(layers[8](tokens), mine.float(), rtol=1e-4, atol=1e-4)

# %% [markdown]
# ## 5 · The KV cache
#
# A model that writes keeps the keys and values of all tokens so far: the **KV cache**. It grows with every token and
# every text, and each new token reads *all* of it. So round it, too.
#
# A scale can belong to a **token** of a head, or to a **channel**, for some tokens in a row, say 32. Which one suits
# keys, and which one values? Look at one head, tokens downwards, channels across. <!-- claim: MATH 2**5 -->

# %%
held_out = tokenizer.encode(corpus.test)
cache = speed.cache_of(model, held_out[:256])
figures.keys_and_values(cache.keys[3][0, 2, :128], cache.values[3][0, 2, :128])

# %% [markdown]
# Keys have vertical stripes: a channel keeps its sign and size over many tokens, so it should have a scale of its own.
# Values vary more from token to token. The method KIVI rounds keys per channel and values per token. Here 4 bits then
# cost next to nothing (*Further · A cache that is turned*).
#
# **Exercise 6.** Bytes per token: codes of `bits` bits for keys and values of `width` channels, in each of `heads`
# heads and `layers` blocks. Keys per channel: each group of `group` tokens has a float16 scale *and* a float16 minimum
# for each channel. Values per token: one scale and one minimum, in float16, for each token of a head.

# %%
def kv_bytes(layers, heads, width, bits, group):
    """Bytes that one token takes in the cache, its share of the scales included."""
    ### BEGIN SOLUTION
    keys = width * bits / 8 + 4 * width / group
    values = width * bits / 8 + 4
    return layers * heads * (keys + values)
    ### END SOLUTION

# %%
check("08.kv_bytes", kv_bytes)

# %%
my_kv = use("08.kv_bytes", kv_bytes)
for bits in (8, 4, 2):  # a large model: 80 blocks, 8 heads of 128 channels
    gigabytes = my_kv(80, 8, 128, bits, group=64) * 32_768 / 1e9
    print(f"{bits} bits: {gigabytes:.2f} GB for one text of 32,768 tokens")

# %% tags=["claims"]
small = quant.QuantizedKVCache(6, 4, group=32, residual=0)
with torch.inference_mode():
    model(held_out[None, :256], small)
assert small.bytes / 256 == my_kv(6, 6, 32, 4, 32)
in_float16 = 80 * 8 * 2 * 128 * 2  # bytes per token
assert 4 > in_float16 / my_kv(80, 8, 128, 4, 64) > 3.6

# %% [markdown]
# ## 6 · Your file, read by your kernel
#
# In 07 the package unpacked the codes of your file. Now only your kernel reads them. To get a weight out of a kernel,
# multiply by unit vectors: column $k$ is what it makes of $e_k$. A kernel with a mistake anywhere would spoil the model.
#
# Codes and scales are GPTQ's and take the bytes they took. One thing can still be packed: with 4 bits a zero point is a
# 4-bit number itself, and two share a byte. So the loss stays that of 07, and the file is smaller by half a byte per
# row: next to nothing. What is new is not in the bytes. A model could now run from this file as it lies.

# %%
def encode(weight, hessian):
    """What the file holds of a matrix: GPTQ's codes, two per byte."""
    grid = affine_grid(weight, 4)
    codes = quant.gptq(weight, grid, as_stats(hessian))
    return {"codes": quant.pack(codes, 4), "scale": grid.scale.half(),
            "zero": quant.pack(grid.zero_point.flatten().long(), 4)}  # fmt: skip


def decode(tensors, shape):
    """The matrix, column by column, as your kernel multiplies."""
    zero = quant.unpack(tensors["zero"], 4, shape[0]).float()
    scale, units = tensors["scale"].float(), torch.eye(shape[1])
    codes = tensors["codes"]
    columns = [fast(*speed.arrays(codes, scale, zero, unit)) for unit in units]
    return torch.from_numpy(np.stack(columns, 1))

# %% tags=["measured"]
own_file("08 · GPTQ, 4 bits, own kernel", encode, decode)
own_files()

# %% tags=["claims"]
from nanoq.teach import records

entry = records.read("own_files")["08 · GPTQ, 4 bits, own kernel"]
assert 0 < entry["delta_nats"] < 0.06 and entry["bytes"] < 1_500_000
some = model.blocks[0].attention.out.weight.detach()
held = encode(some, torch.eye(192))
assert torch.equal(held["codes"], quant.pack(nearest(some, affine_grid(some, 4)), 4))
grid = affine_grid(some, 4)
plain = grid.scale.half().float() * (nearest(some, grid) - grid.zero_point)
assert torch.allclose(decode(held, some.shape), plain, atol=1e-6)
assert held["zero"].nbytes == len(some) / 2

# %% [markdown]
# ## Summary
#
# - **A format saves memory, a kernel saves time.** Making the float weight in every call moves *more* bytes than
#   float32.
# - Time is the larger of bytes ÷ bandwidth and operations ÷ rate. At **one token** a layer waits for its weight, and
#   fewer bits help as far as unpacking keeps up. With **many tokens** it computes, and weight-only quantisation does
#   not help.
# - Count all that travels: scales and zero points of small groups double the 4 bits.
# - **W8A8**: scales of tokens and rows can be taken out of an integer sum, those of columns cannot. Outliers break it.
# - **KV cache**: keys per channel. Scales are a fixed price per token: the fewer the bits, the more they weigh.
# - Measure what you will run, on *your* machine, in turns, and report a ratio with its spread.
#
# **09 · How near to the limit** asks how small a file can get at all, and **10 · CMPQ** which layers deserve more bits.

# %% [markdown]
# ## Self-test
#
# {{self_test}}

# %% [markdown]
# ## Further · From how many tokens on?
#
# **Adds** the number of tokens at which fewer bits stop to help.
#
# Writing text is one token at a time: there weight-only quantisation can pay. Reading a prompt, or serving many texts
# at once, is the other case. Where does one end and the other begin?
#
# **Exercise 7.** How many tokens at once until computing takes as long as reading the weight of `bits` bits? Leave the
# bytes of activations and scales out. `rate` in operations and `bandwidth` in bytes per second. Return a float.

# %%
def crossover(rate, bandwidth, bits):
    """Tokens at which computing takes as long as reading the weight."""
    ### BEGIN SOLUTION
    return rate / bandwidth * bits / 8 / 2  # two operations per token and weight
    ### END SOLUTION

# %%
check("08.crossover", crossover)

# %% tags=["measured"]
my_tokens = use("08.crossover", crossover)
for bits in (32, 8, 4):
    print(f"{bits} bits: {my_tokens(machine.rate, machine.bandwidth, bits):.1f} tokens")
figures.predicted(machine)

# %% [markdown]
# The fewer the bits, the *sooner* the processor is busy. Where the number for 4 bits is near one, still fewer bits
# hardly help: nobody is waiting. A GPU has a far higher balance and goes on gaining for longer. Move the sliders:
# slower memory moves the end of the advantage to more tokens.

# %% [markdown]
# ## Further · Who writes fastest?
#
# **Adds** whole models: does what a layer gains alone come out in the text?
#
# All matrices of the course's model together take about 11 MB in float32. Many processors keep that in their cache, and
# a call into torch or numba takes some microseconds before the first multiplication.
# <!-- claim: MATH 2654208 * 4 / 1e6 -->
#
# First layers alone. `choose_backend` measures instead of believing: for each form of layer it keeps the fastest
# *quantised* way.

# %% tags=["measured"]
alone = {}
for report in quant.choose_backend(four, seconds=0.05):
    alone.setdefault(report.layer.split(".", 2)[2], report)
print(*alone.values(), sep="\n")

# %% [markdown]
# **Before you run it.** Now the whole model, with int8 and int4 kernels. Will the whole gain what its layers gain?
#
# <details><summary>After you have run it</summary>
# Compare with the lines above. A layer timed alone stays in the nearest cache, in the model others pass in between.
# Norms, attention, the head and Python take their time in every type and limit what any kernel can do (Amdahl's law).
# The layers' times need not foretell the model's. Measure what you will run, not its parts.
# </details>

# %% tags=["measured"]
kinds = {"float32": model} | {f"int{b}": speed.with_kernels(model, b) for b in (8, 4)}
took = speed.writing_times(kinds, prompt, pick(ci=4, lab=24, full=200))
print("the model, int4:", speed.Ratio.of(took["int4"], took["float32"]))
figures.characters_per_second(took)

# %% tags=["claims"]
with torch.inference_mode():  # a kernel does not change what the model says
    for bits in (8, 4):
        plain = deepcopy(kinds[f"int{bits}"])
        for part in plain.modules():
            if isinstance(part, quant.QuantLinear):
                use_backend(part, "dequantize")
        change = kinds[f"int{bits}"](prompt[None]) - plain(prompt[None])
        assert change.abs().max() < 1e-3

# %% [markdown]
# `python benchmarks/kernels.py` times more shapes, more kernels and more tokens.

# %% [markdown]
# ## Further · Sums that do not fit
#
# **Adds** the trap of integer products: an accumulator that is too narrow.
#
# An integer sum has no rounding error and no order, as long as it **fits**. A product of two bytes is at most 255 · 127
# = 32,385. Two of these no longer fit int16; int32 holds 66,311 of them.
# <!-- claim: MATH 2**8 - 1; MATH 2**7 - 1; MATH 255 * 127; MATH floor((2**31 - 1) / 32385) --> Some processors multiply
# bytes in pairs and add each pair in int16, with *saturation*.
#
# **Before you run it.** Is the sum of a pair often too large for int16?
#
# <details><summary>After you have run it</summary>
# Rarely: often enough to be wrong, too rarely to be noticed. Hence <code>is_exact</code>, which asks for the extreme
# cases. The package uses no product that fails it.
# </details>

# %% tags=["measured"]
from nanoq.quant.kernels import integer_product, is_exact, torch_product

q, _ = quantize_per_token(torch.randn(20, IN))  # (20, in)
c = layers[8].codes[:64]  # (64, in)
pairs = (c[:, None].int() * q.int()).unflatten(2, (-1, 2)).sum(3)  # (64, 20, in / 2)
wrong = int(((pairs > 2**15 - 1) | (pairs < -(2**15))).sum())
print(f"{wrong:,} of {pairs.numel():,} pairs do not fit int16")
print("torch's integer product is exact here:", is_exact(torch_product))

# %% tags=["claims"]
exact = c.long() @ q.long().T
assert torch.equal(integer_product()(c, q).long(), exact)
clipped = pairs.clamp(-(2**15), 2**15 - 1).sum(2)  # (64, 20)
assert 0 < wrong < 0.01 * pairs.numel() and (clipped != exact).any()

# %% [markdown]
# ## Further · SmoothQuant
#
# **Adds** a remedy for outliers that costs nothing while the model runs.
#
# Move the outlier into the *weight*, before that is rounded (Xiao et al. 2022). Divide channel $j$ of $X$ by $s_j$,
# multiply column $j$ of $W$ by it: $(X\,\mathrm{diag}(s)^{-1})(\mathrm{diag}(s)\,W^\top) = XW^\top$. The division
# disappears into the norm before it. Equation 4 of the paper shares the trouble out:
#
# $$s_j = \max|X_j|^{\alpha} \,/\, \max|W_j|^{1-\alpha}$$
#
# **Exercise 8.** The scales `(in,)` from inputs `x` `(tokens, in)`, a weight `(out, in)` and alpha.

# %%
def smooth_scale(x, weight, alpha):
    """Equation 4 of SmoothQuant."""
    ### BEGIN SOLUTION
    return x.abs().amax(0) ** alpha / weight.abs().amax(0) ** (1 - alpha)
    ### END SOLUTION

# %%
check("08.smooth", smooth_scale)

# %% [markdown]
# `plant_outliers` does to a whole model what you did to one channel, four channels of every norm, and `smoothquant`
# undoes it without being told which.

# %%
my_smooth = use("08.smooth", smooth_scale)
planted = deepcopy(model)
quant.plant_outliers(planted, channels=4, factor=50)
smoothed = deepcopy(planted)
scales = quant.smoothquant(smoothed, seen, alpha=0.5)

# %% [markdown]
# **Before you run it.** W8A8 of the planted model, and of the planted and smoothed one: how many nats?
#
# <details><summary>After you have run it</summary>
# The outliers cost about a tenth of a nat. Smoothed, they are gone: planted and matched by smaller weights, their
# factor cancels in the formula. That is a friendly test. Outliers that a large model has grown have no small weights
# waiting for them; then the range is <i>shared</i>.
# </details>

# %% tags=["measured"]
losses = speed.Losses.of(model, held_out, pick(ci=4, lab=8, full=64))  # windows
ways = {"as trained": model, "planted": planted, "smoothed": smoothed}
added = {name: losses.with_activations(way, 8, 8) for name, way in ways.items()}
figures.added_loss(added)

# %% tags=["claims"]
assert abs(added["as trained"].mean) < 0.01 and added["planted"].mean > 0.03
assert added["smoothed"].mean < 0.2 * added["planted"].mean
reader = planted.blocks[3].attention.qkv
by_hand = my_smooth(inputs_of(planted, reader, seen), reader.weight.detach(), 0.5)
scale = scales["blocks.3.attention.qkv"]
torch.testing.assert_close(scale, by_hand, rtol=1e-3, atol=1e-5)

# %% [markdown]
# ## Further · Four-bit activations and rotations
#
# **Adds** what is left of a model when activations get 6 or 4 bits, and what a rotation does about it.
#
# Another remedy for outliers needs no calibration: turn the input. A **Hadamard matrix** has entries 1 and −1 and
# orthogonal rows. Multiplied by one, $x_7$ no longer sits in one channel but is spread over all of them, with signs.
# The weight is turned the same way, and the output stays: with $T = H_n / \sqrt n$, whose rows have length 1, $T T^\top$ is the
# identity and $(x T)(W T)^\top = x W^\top$. Start with $H_1 = (1)$ and double:
#
# $$H_{2n} = \begin{pmatrix} H_n & H_n \\ H_n & -H_n \end{pmatrix}$$
#
# **Exercise 9.** Return $H_n$ as a float tensor `(n, n)`, for `n` a power of two.

# %%
def hadamard(n):
    """Sylvester's matrix (n, n) of entries 1 and -1."""
    ### BEGIN SOLUTION
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h
    ### END SOLUTION

# %%
check("08.hadamard", hadamard)

# %%
my_hadamard = use("08.hadamard", hadamard)
turn = my_hadamard(8) / 8**0.5
lonely = torch.tensor([0.3, -0.2, 0.1, 0.4, 50.0, -0.1, 0.2, -0.3])
print(lonely @ turn)

# %% tags=["claims"]
assert torch.allclose(turn @ turn.T, torch.eye(8), atol=1e-6)
assert (lonely @ turn).abs().max() < 20 and (lonely @ turn).abs().min() > 15

# %% [markdown]
# Random signs come first (QuaRot), so that no vector is special; and 192 is no power of two, so the package begins with
# a matrix of 12 rows. `rotate` turns everything in a model that can be turned beforehand; `online=True` also turns the
# input of `mlp.down` in every call. The logits do not change. <!-- claim: MATH 12 * 16; MATH 3 * 4 -->
#
# **Before you run it.** At 8, 6 and 4 bits per activation, with float weights: where will turning help?
#
# <details><summary>After you have run it</summary>
# Hardly anywhere. At 8 bits nothing was lost, so there is nothing to win. At 6 and 4 bits turning changes the damage by a part
# of it, if at all: this model has no outliers to spread.
# </details>

# %% tags=["measured"]
turned = deepcopy(model)
quant.rotate(turned, online=True)
losses = speed.Losses.of(model, held_out, pick(ci=4, lab=16, full=64))  # windows
added = {}
for bits in (8, 6, 4):
    added[f"{bits} bits"] = losses.with_activations(model, bits)
    added[f"{bits} bits, turned"] = losses.with_activations(turned, bits)
figures.added_loss(added)

# %% tags=["claims"]
with torch.inference_mode():
    changed = (turned(prompt[None]) - model(prompt[None])).abs().max()
assert changed < 1e-2 and abs(added["8 bits"].mean) < 0.01
assert added["4 bits"].mean > max(0.03, 3 * abs(added["6 bits"].mean))
assert 0.5 < added["4 bits, turned"].mean / added["4 bits"].mean < 1.5

# %% [markdown]
# So plant some: four channels of every norm are made 50 times as large, and the weights that read them as much smaller.

# %%
planted = deepcopy(model)
quant.plant_outliers(planted, channels=4, factor=50)
planted_turned = deepcopy(planted)
quant.rotate(planted_turned, online=True)

# %% [markdown]
# **Before you run it.** How much of the damage is left in the turned one, with 8 bits per activation?
#
# <details><summary>After you have run it</summary>
# Hardly any. That is what a rotation is for: it spreads a large channel, wherever that is. Fewer bits, and the choice between
# the two remedies, come back in notebook 09 (<i>Turn the model</i>).
# </details>

# %% tags=["measured"]
added = {"planted": losses.with_activations(planted, 8)}
added["planted, turned"] = losses.with_activations(planted_turned, 8)
figures.added_loss(added)

# %% tags=["claims"]
before, spread = (row.mean for row in added.values())
assert before > 0.03 and spread < 0.2 * before

# %% [markdown]
# ## Further · A cache that is turned
#
# **Adds** the comparison that decides, KIVI's axis or a rotation. It continues the last section.
#
# Programs that run models on a laptop turn keys and values by a Hadamard matrix before they are rounded, a scale per
# token of a head. KIVI chooses the other axis instead. Our heads have 32 channels.
# <!-- claim: CELL assert keys.shape[-1] == 32 -->
#
# **Before you run it.** Relative error of 4-bit keys: per token; per token, turned; per channel. In which order?
#
# <details><summary>After you have run it</summary>
# The axis decides: per channel the error is several times smaller. Neighbouring tokens have like keys, and only a scale
# per channel uses that. A turn within a token changes little: it spreads a channel that is too large, and a head of
# this model has none.
# </details>

# %% tags=["measured"]
keys = cache.keys[3][0]  # (heads, tokens, 32)
turn = my_hadamard(keys.shape[-1]) / keys.shape[-1] ** 0.5


def key_error(rows):
    """Relative error of 4 bits with a scale per row."""
    low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
    step = (high - low) / 15
    back = ((rows - low) / step).round() * step + low
    return float((back - rows).square().sum() / rows.square().sum())


by_channel = keys.unflatten(1, (-1, 32)).mT  # (heads, groups, 32, 32)
forms = {"token": keys, "token, turned": keys @ turn, "channel": by_channel}
for name, rows in forms.items():
    print(f"per {name}: {key_error(rows):.5f}")

# %% [markdown]
# What does that mean for the loss? In one pass over a window no token is ever read back from the cache, so nothing
# would be lost. `with_cache` reads a few tokens at a time instead, as if the model had written them.
#
# **Before you run it.** What do 4 bits cost, 2 bits, 2 bits with keys per token, and these turned?
#
# <details><summary>After you have run it</summary>
# 4 bits cost next to nothing, 2 bits little. Keys per token cost several times as much as keys per channel, turned or
# not. In models whose keys do have large channels, turning is worth more. In time nothing is saved yet: this cache
# decodes first. As with weights, that takes a kernel.
# </details>

# %% tags=["measured"]
lost = {"4 bits": losses.with_cache(4), "2 bits": losses.with_cache(2)}
lost["2 bits, keys per token"] = losses.with_cache(2, "token")
lost["2 bits, keys per token, turned"] = losses.with_cache(2, "token", True)
figures.added_loss(lost)

# %% tags=["claims"]
assert keys.shape[-1] == 32
assert key_error(by_channel) < 0.5 * key_error(keys)
assert 0.7 < key_error(keys @ turn) / key_error(keys) < 1.4
axis, token, both = list(lost.values())[1:]
assert abs(lost["4 bits"].mean) < 0.01 and 0 < axis.mean < 0.06
assert token.mean > 2 * axis.mean and both.mean > 2 * axis.mean

# %% [markdown]
# ## Further · Files that other programs read
#
# **Adds** the layout of one word of a GPTQ file, as vLLM and transformers read it.
#
# Kernels live in other programs, each with an order of its own. In a GPTQ file `qweight` is *transposed*: a column
# belongs to an output, and each int32 word holds eight codes of neighbouring inputs, the first in the lowest bits. Many
# words are negative numbers. That means nothing.
#
# **Exercise 10.** The eight codes in a word (a Python int, perhaps negative), as a list, code 0 first.

# %%
def codes_of(word):
    """An int32 word -> eight codes of 4 bits."""
    ### BEGIN SOLUTION
    return [word >> 4 * k & 15 for k in range(8)]
    ### END SOLUTION

# %%
check("08.word", codes_of)

# %% [markdown]
# Read one word of a file that the package has written, with groups of 32 on a symmetric grid. This version of the
# format stores the zero point *minus one*, for no reason that anybody remembers, and every reader adds it back.
# <!-- claim: CELL symmetric=True, group_size=32 -->

# %%
import tempfile
from pathlib import Path

from safetensors.torch import load_file

my_codes = use("08.word", codes_of)
exported = deepcopy(model)
recipe = quant.Recipe(bits=4, symmetric=True, group_size=32)
quant.quantize_model(exported, recipe)
with tempfile.TemporaryDirectory() as folder:
    quant.export_gptq(folder, exported)
    tensors = load_file(Path(folder) / "model.safetensors")

# %%
parts = ("qweight", "qzeros", "scales")
word, zeros, scales = (tensors[f"blocks.0.attention.qkv.{part}"] for part in parts)
eight = torch.tensor(my_codes(int(word[0, 5])))  # output 5, its first eight inputs
print(eight, my_codes(int(zeros[0, 0]))[5] + 1)  # codes and zero point

# %% tags=["claims"]
zero = my_codes(int(zeros[0, 0]))[5] + 1
decoded = scales[0, 5].float() * (eight - zero)
layer = exported.get_submodule("blocks.0.attention.qkv")
assert zero == 8 and torch.equal(decoded, layer.dequantize()[5, :8])

# %% [markdown]
# ## Further · Open challenge
#
# **Adds** a problem without a known best answer.
#
# **Beat the package's kernel**, one token, on the layer of section 2. Ideas: 32-bit integers in place of numba's own
# 64-bit ones (twice as many fit a register); read four bytes at once; decode through a table of 16 values. The score is
# your time as a share of the package's, both in turn; it depends on the machine, so enter the same kernel three times
# before you believe it. <!-- claim: MATH 2**4 -->

# %% tags=["measured"]
from nanoq.teach import challenge

ways = {"yours": lambda: fast(*stored), "package": lambda: layers[4](x)}
took = speed.measure_cold(ways, pick(ci=0, lab=1, full=4), elsewhere)
challenge(
    "08.kernel", took["yours"] / took["package"], bronze=1.2, silver=1.0, gold=0.85,
    by="the loop of exercise 2",
)  # fmt: skip

# %% [markdown]
# ## Further reading
#
# - Williams, Waterman and Patterson 2009, *Roofline: An Insightful Visual Performance Model for Multicore
#   Architectures* (Communications of the ACM, volume 52).
# - Dettmers et al. 2022, *LLM.int8()* ([arXiv 2208.07339](https://arxiv.org/abs/2208.07339)): outliers, and W8A8 by
#   vectors.
# - Xiao et al. 2022, *SmoothQuant* ([2211.10438](https://arxiv.org/abs/2211.10438)).
# - Ashkboos et al. 2024, *QuaRot* ([2404.00456](https://arxiv.org/abs/2404.00456)): rotations, for activations and
#   caches.
# - Liu et al. 2024, *KIVI* ([2402.02750](https://arxiv.org/abs/2402.02750)): a cache of 2 bits.
