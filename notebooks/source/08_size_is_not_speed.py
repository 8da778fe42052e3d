# %% [markdown]
# # 08 · Size is not speed
#
# {{colab}}
#
# A 4-bit file is an eighth of the float32 one. Is the model eight times as fast? It can be four times as fast, equally
# fast or *many times slower*, with the same codes in the same file. Which of them you get depends on who reads the
# bytes, how many tokens come at once, and where the weights lie. This notebook finds out, on your machine.
#
# {{cost_card}}
#
# **You will be able to**
#
# - multiply by packed 4-bit codes without making the float weight, in torch and in ten lines of numba;
# - count the bytes that a layer moves, measure this machine's roofline, and read from it when fewer bits save time;
# - say why weight-only quantisation can pay at one token and not in a prompt, and how to find out for a tiny model;
# - compute a layer in integers alone (W8A8), and repair what outliers do to it with SmoothQuant;
# - quantise a KV cache, and choose along which axis;
# - decode one word of a GPTQ file and one block of a GGUF file.
#
# **You need** notebook 04 (codes, scales, zero points, packing). Times differ between machines, and between a quiet and
# a busy one: here every statement about time is computed from what was measured, and no check depends on it.

# %%
import csv
import tempfile
import time
from copy import deepcopy
from functools import partial
from itertools import islice
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from safetensors.torch import load_file

# %%
import nanoq
from nanoq.files import data_dir
from nanoq.lm import GPT, GPTConfig, load_corpus, paired_difference, window_losses
from nanoq.lm.evaluate import windows
from nanoq.lm.generation import stream
from nanoq.lm.model import KVCache
from nanoq.progress import progress
from nanoq.quant import QuantLinear, Recipe, affine_grid, nearest, quantize_model, sample_windows
from nanoq.quant.kernels import candidates, choose_backend, integer_product, use_backend
from nanoq.teach import check, pick, show, use_style
from nanoq.teach.hardware import machine_report
from nanoq.teach.plots import COLORS
from nanoq.teach.widgets import live_figure, show_widget
from nanoq.timing import measure

use_style()
torch.set_num_threads(1)

# %% [markdown]
# One thread, here and everywhere below. Two threads that wait for each other on a busy machine would hide what we want
# to see. On a quiet machine, come back and change that 1: both the rate of multiplications and the bandwidth grow, not
# by the same factor, and that moves every result of this notebook.

# %% tags=["measured"]
print(machine_report())

# %% [markdown]
# ## 1 · A quarter of the bytes
#
# - The course's model in float32, and its 4-bit version as notebook 04 made it, with packed codes in `QuantLinear`.
# - Both write the same number of characters. They take turns, one character each, so that whatever else this machine
#   does disturbs both alike. What counts is the median; the quartiles of the ratio, turn by turn, say how sure it is.
# - The cache is one of our own: with it `stream` calls each layer as it is, and not the compiled loops of section 2.
#
# **Before you run it.** The 4-bit weights are about an eighth of the bytes. Will it write eight times as fast, twice,
# equally fast, or slower?

# %%
checkpoint, corpus = nanoq.load("tales-2.7m"), load_corpus("tales")
model, tokenizer = checkpoint.model, checkpoint.tokenizer
prompt = tokenizer.encode("Once upon a time")


def writing_times(models, length):
    """Seconds for each token, all models in turn and each of them first as often: {name: (length,)}."""
    streams = {name: stream(m, prompt, seed=1, make_cache=lambda blocks: KVCache(blocks)) for name, m in models.items()}
    for one in streams.values():
        next(one)  # the prompt is read at once, which is another matter
    took = {name: [] for name in models}
    names = list(models)
    for i in progress(range(length), desc="write", unit="token"):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            next(streams[name])
            took[name].append(time.perf_counter() - start)
    return {name: torch.tensor(seconds) for name, seconds in took.items()}


def times_as_fast(seconds, base):
    """Median and quartiles of base / seconds, turn by turn, and a verdict if the quartiles agree on one."""
    low, middle, high = (base / seconds).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    verdict = "faster" if low > 1 else "slower" if high < 1 else "no clear winner"
    return middle, f"{middle:.2f} times as fast (quartiles {low:.2f} and {high:.2f}: {verdict})"

# %% tags=["measured"]
four = deepcopy(model)
quantize_model(four, Recipe(bits=4))
wrote = writing_times({"float32": model, "4 bits": four}, pick(ci=4, lab=40, full=200))
speed = {name: 1 / float(seconds.median()) for name, seconds in wrote.items()}
fig, ax = plt.subplots(figsize=(7, 1.8))
ax.barh(list(speed), list(speed.values()), color=[COLORS["blue"], COLORS["orange"]])
ax.invert_yaxis()
ax.set(xlabel="characters a second")
show(fig, alt="Two bars: characters a second of the float32 model and of the 4-bit model, as measured on this machine.")
print(f"On this machine, the 4-bit model against float32: {times_as_fast(wrote['4 bits'], wrote['float32'])[1]}")

# %% [markdown]
# <details><summary>What happened</summary>
# <code>QuantLinear</code> unpacks its codes, makes the float weight anew in <i>every</i> call, multiplies, and throws it
# away. For each weight it reads half a byte, writes four (the float), and reads these four again: 8.5 bytes where float32
# moves 4. <!-- claim: MATH 0.5 + 4 + 4 --> No way of writing that loop well could win. (Ours, in plain torch, goes over the numbers several times.) The
# file is small. The work is not.
# </details>
#
# This is what "weight-only int8 has no speed-up" means: **the format saves memory; only a kernel saves time.** So write
# one.

# %% [markdown]
# ## 2 · Multiply without unpacking
#
# Two 4-bit codes (*nibbles*) share a byte. The kernel of this course reads them like this:

# %%
columns, tints = [5, 12, 0, 15, 9, 3, 7, 8], (COLORS["sky"], COLORS["orange"])
fig, ax = plt.subplots(figsize=(7, 2.5))
for j in range(4):
    for k, where in ((0, 1), (1, 0)):  # the low nibble is drawn on the right, as in a written number
        column, at = 2 * j + k, 2.4 * j + where
        ax.add_patch(plt.Rectangle((at, 0), 1, 1, facecolor=tints[k], alpha=0.6, edgecolor="white"))
        ax.text(at + 0.5, 0.5, f"{columns[column]:04b}", ha="center", va="center", family="monospace")
        ax.text(at + 0.5, 0.1, ("low", "high")[k], ha="center", fontsize=8)
        ax.annotate(f"$x_{column}$", (at + 0.5, 1.02), (2.4 * j + k + 0.5, 1.9), ha="center",
                    arrowprops={"arrowstyle": "->", "color": "0.4"})
    byte = columns[2 * j] | columns[2 * j + 1] << 4
    ax.text(2.4 * j + 1, -0.35, f"byte {j} = {byte}", ha="center", fontsize=10)
ax.set(xlim=(-0.1, 9.4), ylim=(-0.6, 2.3))
ax.axis("off")
show(fig, alt="Four bytes, each drawn as a high nibble on the left and a low nibble on the right. Arrows from x0, x1, x2 "
     "and so on: even columns point to the low nibble of a byte, odd columns to its high nibble.")

# %% [markdown]
# - **Low nibble = even column.** Byte $j$ of a row holds the codes of columns $2j$ and $2j+1$.
# - So the low nibbles of a row, in order, meet $x_0, x_2, x_4, \dots$; the high ones meet $x_1, x_3, x_5, \dots$
#
# Our test layer is one of a size that real language models have. (Its weights are random. A product takes as long on
# noise as on sense.)

# %%
OUT, COLUMNS = pick(ci=(256, 512), lab=(2048, 8192), full=(2048, 8192))
generator = torch.Generator().manual_seed(0)
weight = 0.02 * torch.randn(OUT, COLUMNS, generator=generator)  # (out, in)
x = torch.randn(COLUMNS, generator=generator)  # (in,): one token
grids = {8: affine_grid(weight, 8), 4: affine_grid(weight, 4)}  # a scale and a zero point for each row
codes = {bits: nearest(weight, grid) for bits, grid in grids.items()}
layers = {bits: QuantLinear.from_codes(codes[bits], grid) for bits, grid in grids.items()}

packed = (codes[4][:, 0::2] | codes[4][:, 1::2] << 4).to(torch.uint8)  # (out, in / 2)
assert torch.equal(packed, layers[4].codes)
assert 8 * packed.nbytes == weight.nbytes
print("packed by hand, as the package does it: an eighth of the bytes")

# %% [markdown]
# ### The zero point, once for a row
#
# A row with scale $s$ and zero point $z$ has the output
#
# $$y = \sum_k s\,(q_k - z)\,x_k \;=\; s\Big(\sum_k q_k x_k \;-\; z \sum_k x_k\Big)$$
#
# The sum of $x$ is the same for all rows, so the zero point costs one product a row instead of one a weight.
#
# **Exercise 08.dot4.** One row: `packed` `(n / 2,)` in uint8, its scale and zero point (numbers), `x` `(n,)`. Return the
# output, a tensor of no dimensions, or a number.

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
# All rows at once in plain torch, and the same in numba, which compiles a Python loop to machine code:

# %%
def torch_product4(packed, scale, zero, x):
    """Packed codes (out, in / 2), scale and zero (out,), x (in,) -> y (out,)."""
    total = (packed & 15).float() @ x[0::2] + (packed >> 4).float() @ x[1::2]
    return scale * (total - zero * x.sum())


LOW, HIGH = np.int32(15), np.int32(4)  # 32 bits: numba's own 64-bit integers fill the registers with half as many codes


def rows4(packed, scale, zero, even, odd, x_sum, y):
    """The loops: packed (out, n), the even and the odd columns of x (n,), y (out,) is written."""
    for r in range(packed.shape[0]):
        total = np.float32(0)
        for j in range(packed.shape[1]):
            byte = np.int32(packed[r, j])
            total += np.float32(np.int32(byte & LOW)) * even[j] + np.float32(np.int32(byte >> HIGH)) * odd[j]
        y[r] = scale[r] * (total - zero[r] * x_sum)


strict_rows4 = njit(rows4)
fast_rows4 = njit(fastmath={"reassoc", "contract", "nsz"})(rows4)

# %%
def numba_product4(loop, packed, scale, zero, x):
    """The same as `torch_product4`, with compiled loops."""
    y = torch.empty(len(packed))
    even, odd = x[0::2].contiguous(), x[1::2].contiguous()
    loop(packed.numpy(), scale.numpy(), zero.numpy(), even.numpy(), odd.numpy(), float(x.sum()), y.numpy())
    return y


use_backend(layers[4], "int4")
use_backend(layers[8], "int8")
scale, zero = grids[4].scale[:, 0], grids[4].zero_point[:, 0]  # (out,) each
arguments = packed, scale, zero, x
exact = layers[4].dequantize().double() @ x.double()  # (out,)
allowed = 1e-5 * (layers[4].dequantize().abs() @ x.abs())  # a sum in float32 may be off by a little of this
for name, y in (("torch", torch_product4(*arguments)), ("numba", numba_product4(fast_rows4, *arguments)),
                ("numba, strict", numba_product4(strict_rows4, *arguments)), ("package", layers[4](x))):
    assert ((y - exact).abs() <= allowed).all(), name
print("torch, numba and the package agree")

# %% [markdown]
# - The permissions behind `fastmath` matter. A sum of floats depends on its order, so a compiler must keep yours: one
#   addition after the other, each waiting for the last. *Reassociation* allows it to keep many partial sums, one in each
#   lane of a vector register. NaN and infinity keep their meaning; `fastmath=True` would give up that too.
#
# - In a model a layer is not alone. Before its turn comes again, all other layers have passed through the cache. So
#   before each call that is timed, we read 256 MB of something else.

# %%
elsewhere = torch.ones(pick(ci=2**20, lab=2**26, full=2**26))


def measure_cold(functions, seconds, rounds=3):
    """As the package's `measure`, all in turn and the shortest time of each, but with nothing in the cache."""
    in_turn = {}
    for name, function in functions.items():
        in_turn |= {("elsewhere", name): elsewhere.sum, name: function}
    times = measure(in_turn, seconds, rounds)
    return {name: times[name] for name in functions}

# %% [markdown]
# **Before you run it.** Put in order, fastest first: float32; torch on packed codes; numba strict; numba fast; making the
# float weight first.
#
# <details><summary>What to look for</summary>
# On most machines the fast loop and the package lead, and making the float weight comes last by far. The order of
# float32, the strict loop and torch on packed codes depends on the machine.
# </details>

# %% tags=["measured"]
matrix = layers[4].dequantize()  # (out, in) in float32
ways = {
    "float32": lambda: F.linear(x, matrix),
    "numba, fast": lambda: numba_product4(fast_rows4, *arguments),
    "package": lambda: layers[4](x),
    "numba, strict": lambda: numba_product4(strict_rows4, *arguments),
    "torch, packed": lambda: torch_product4(*arguments),
}
took = measure_cold(ways, seconds=pick(ci=0, lab=2, full=6))
took |= measure_cold({"dequantise first": lambda: F.linear(x, layers[4].dequantize())}, seconds=0, rounds=1)
for name, seconds in sorted(took.items(), key=lambda item: item[1]):
    print(f"{name:17} {1e3 * seconds:9.2f} ms   {took['float32'] / seconds:6.2f} times as fast as float32")

# %% [markdown]
# - The same codes, the same sums; what differs is only how the bytes travel.
# - Torch on packed codes writes the unpacked nibbles to memory, as floats, and reads them again. The compiled loop keeps
#   them in registers, and they never travel.

# %% [markdown]
# ## 3 · What a product costs
#
# A processor does two things: it moves bytes and it computes. A simple model says that it does both at the same time, so
# that the slower one decides:
#
# $$\text{time} = \max\Big(\frac{\text{bytes moved}}{\text{bandwidth}},\; \frac{\text{operations}}{\text{rate}}\Big)$$
#
# ### Bytes
#
# **Exercise 08.bytes_moved.** A weight `(out, columns)` with codes of `bits` and groups of `group_size` columns (which
# divides `columns`) meets one token. The kernel reads every code once, a scale and a zero point in float32 for each
# group, `x` in float32, and writes `y` in float32. How many bytes?

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
def weight_bytes(layer):
    """Bytes of a layer's weight as its kernel reads it: codes, scales, zero points."""
    return layer.kernel.nbytes


for group_size in (192, 64, 32, 16):
    options = {} if group_size == 192 else {"granularity": "group", "group_size": group_size}
    grid = affine_grid(weight[:192, :192], 4, **options)
    layer = QuantLinear.from_codes(nearest(weight[:192, :192], grid), grid)
    use_backend(layer, "int4")
    size = weight_bytes(layer)
    assert size == 192 * 192 / 2 + 192 * (192 / group_size) * 8
    print(f"groups of {group_size:3}: {size:6} bytes, {8 * size / 192**2:.2f} bits a weight, "
          f"{4 * 192**2 / size:.2f} times fewer than float32")

# %% [markdown]
# A file keeps scales in float16 and packs the zero points; the kernel unpacks these few numbers once, and reads eight
# bytes for each group. With groups of 16, "4 bits" are 8 for the kernel. **The bits in the name are not the bits that
# travel.**
#
# ### This machine
#
# - **Bandwidth**: time a product with a matrix that is much larger than the cache; almost nothing happens but reading.
#   A large copy as a second opinion: it reads and writes.
# - **Rate**: time a product of two matrices that fit the cache; each number is used hundreds of times.

# %% tags=["measured"]
def machine_rates():
    """Bandwidth in bytes a second; operations a second in float32 and in integers."""
    side = pick(ci=256, lab=512, full=512)
    square, target, ones = torch.randn(side, side), torch.empty_like(elsewhere), torch.ones(8192)
    whole = torch.full((side, side), 3, dtype=torch.uint8), torch.full((side, side), 5, dtype=torch.int8)
    took = measure({"read": lambda: F.linear(ones, elsewhere.view(-1, 8192)), "copy": lambda: target.copy_(elsewhere),
                    "float": lambda: square @ square, "integer": lambda: integer_product()(*whole)}, seconds=2)
    read, copy = elsewhere.nbytes / took["read"], 2 * elsewhere.nbytes / took["copy"]
    print(f"read {read / 1e9:.1f} GB/s, copy {copy / 1e9:.1f} GB/s")
    return max(read, copy), 2 * side**3 / took["float"], 2 * side**3 / took["integer"]


bandwidth, rate, integer_rate = machine_rates()
print(f"float32 {rate / 1e9:.0f} thousand million operations a second; in integers {integer_rate / 1e9:.0f}")
print(f"for every byte that it reads, this machine could do {rate / bandwidth:.1f} float operations")

# %% [markdown]
# The last number is the **balance** of the machine. Work that does fewer operations for each byte leaves the processor
# waiting; with more, the memory waits.
#
# **Exercise 08.intensity.** The *arithmetic intensity* of a product: operations for each byte. The weight `(out,
# columns)` in `bits` is read once (leave the scales out); each of the `tokens` is read and its result written, in
# float32. A multiplication and an addition are two operations.

# %%
def intensity(out, columns, tokens, bits):
    """Operations for each byte moved."""
    ### BEGIN SOLUTION
    moved = out * columns * bits / 8 + 4 * tokens * (columns + out)
    return 2 * out * columns * tokens / moved
    ### END SOLUTION

# %%
check("08.intensity", intensity)

# %% [markdown]
# **Before you run it.** From one token to 256, does the intensity rise 256 times?
#
# <details><summary>After you have run it</summary>
# Nearly in float32, where the weight is still most of what moves; far less in int4, whose weight is so small that the
# activations of 256 tokens move about as many bytes.
# </details>

# %%
def operations_per_byte(tokens, bits, out=2048, columns=8192):
    """The exercise, given."""
    return 2 * out * columns * tokens / (out * columns * bits / 8 + 4 * tokens * (columns + out))


for bits in (32, 8, 4):
    one, prompt_of_256 = operations_per_byte(1, bits), operations_per_byte(256, bits)
    print(f"{bits:2} bits: {one:4.2f} at one token, {prompt_of_256:6.1f} at 256: {prompt_of_256 / one:5.1f} times")
assert operations_per_byte(1, 32) < 0.5 and abs(operations_per_byte(1, 4) - 4) < 0.1

# %% [markdown]
# ### The roofline
#
# Draw the rate that can be reached against the intensity. On the left it is the bandwidth that limits: a slope. On the
# right it is the rate: a flat roof. Where they meet, the **ridge**, is the machine's balance. First the products that we
# mean to do, measured at one token and at 256.

# %% tags=["measured"]
seconds_of = {}
for tokens in (1, 16, 256):
    batch = torch.randn(tokens, COLUMNS, generator=generator)  # (tokens, in)
    functions = dict(candidates(layers[4], ["int4"], batch)) | dict(candidates(layers[8], ["int8", "w8a8"], batch))
    seconds_of[tokens] = measure_cold(functions, seconds=pick(ci=0, lab=1, full=5), rounds=2)
    if tokens == 256:
        dequantise = dict(candidates(layers[4], ["dequantize"], batch))["dequantize"]
        seconds_of[tokens] |= measure_cold({"dequantize": dequantise}, seconds=0, rounds=1)
for tokens, row in seconds_of.items():
    print(f"{tokens:3} tokens, times as fast as fp32:",
          ", ".join(f"{name} {row['fp32'] / row[name]:.2f}" for name in row if name != "fp32"))

# %% tags=["measured"]
STYLES = {"fp32": (32, "blue", "o"), "int8": (8, "orange", "s"), "int4": (4, "green", "^"), "w8a8": (8, "purple", "D")}
fig, ax = plt.subplots(figsize=(7, 4))
at = torch.logspace(-0.7, 3.3, 200)  # operations for each byte
ax.loglog(at, torch.clamp(at * bandwidth, max=rate) / 1e9, color=COLORS["black"], label="roof, float32")
ax.loglog(at, torch.clamp(at * bandwidth, max=integer_rate) / 1e9, ":", color="0.5", label="roof, integers")
for name, (bits, color, marker) in STYLES.items():
    for tokens, fill in ((1, "none"), (256, COLORS[color])):
        place = (operations_per_byte(tokens, bits, OUT, COLUMNS),
                 2 * OUT * COLUMNS * tokens / seconds_of[tokens][name] / 1e9)
        ax.plot(*place, marker, ms=8, mec=COLORS[color], mfc=fill, label=name if tokens == 256 else None)
ax.set(xlabel="operations for each byte", ylabel="thousand million operations a second",
       title=f"{OUT} × {COLUMNS}: one token (hollow), 256 tokens (filled)")
ax.legend(fontsize=9)
show(fig, alt="Roofline on logarithmic axes: a slope on the left, a flat roof on the right, dotted for integers. Hollow "
     "markers for one token lie at the left, fp32 first, then int8 and W8A8 above each other, then int4; how far each is "
     "from its roof is printed below. Filled markers for 256 tokens lie far to the right.")

# %% tags=["measured"]
row = seconds_of[1]
for name, (bits, _, _) in STYLES.items():
    moved, top = OUT * COLUMNS * bits / 8 + 4 * (COLUMNS + OUT), integer_rate if name == "w8a8" else rate
    roof_time = max(moved / bandwidth, 2 * OUT * COLUMNS / top)
    limit = "memory" if moved / bandwidth >= 2 * OUT * COLUMNS / top else "computing, right of the ridge"
    print(f"{name}: weight of {bits:2} bits, {row['fp32'] / row[name]:.2f} times as fast as fp32, {100 * roof_time / row[name]:3.0f} % "
          f"of its roof (there: {limit})")
print(f"int8 and w8a8 read the same bytes; int8, which unpacks them to floats, takes {row['int8'] / row['w8a8']:.2f} times "
      "as long")

# %% [markdown]
# How to read it:
#
# - **One token** (hollow): float32 lies far down the slope, and waits for memory. Fewer bits move a point to the right,
#   where the roof is higher: less to read, so less to wait for. If the point does not reach its roof, memory is not what
#   it waits for. A kernel that turns every code into a float before it multiplies has that to do, too.
# - **int8 against W8A8** shows it best: both read the same bytes, and W8A8 multiplies them as they are. Where int8 takes
#   clearly longer (last line above), *unpacking* sets its pace and not reading. Then its time does not follow the bytes,
#   and int4's, which unpacks as many codes, need not either. **Fewer bytes are a chance; the kernel must take it.**
# - **256 tokens** (filled): right of the ridge, the weight is read once and used 256 times. Reading less saves nothing,
#   since nobody waits for it; unpacking comes on top. Only a **higher roof** helps: integer arithmetic, which needs
#   integer activations (section 5).
# - So: writing a text is one token at a time, and **weight-only quantisation can pay**. Reading a prompt, or serving many
#   texts at once, is the other case, and it does not.
# - With many tokens the int8 and int4 kernels decode the weight once and multiply all tokens by it as float32 does. The
#   better such a loop is written, the nearer it comes to float32. It cannot pass it: the roof is the same.
# - A point above its roof only says that the roof was measured while another program was running, or that part of the
#   weight was still in the cache (some caches are larger than 256 MB).
#
# **Exercise 08.crossover.** How many tokens at once until a product with weights of `bits` is no longer limited by
# memory? Leave the bytes of activations and scales out. `rate` in operations, `bandwidth` in bytes a second.

# %%
def crossover(rate, bandwidth, bits):
    """Tokens at which computing takes as long as reading the weight, as a float."""
    ### BEGIN SOLUTION
    return rate / bandwidth * bits / 8 / 2  # 2 * tokens operations for each weight of bits / 8 bytes
    ### END SOLUTION

# %%
check("08.crossover", crossover)

# %% tags=["measured"]
for bits in (32, 8, 4):
    print(f"{bits:2} bits: on this machine, with one thread, from {rate / bandwidth * bits / 16:.1f} tokens on")

# %% [markdown]
# The fewer the bits, the *sooner* the processor is busy. If the number for 4 bits is near one, this machine hardly
# gains from going below 4 bits even at one token: it has nothing left to wait for. A GPU, whose balance is in the
# hundreds, goes on gaining for much longer.
#
# **Before you move the slider.** At which batch does the advantage of int4 end? What happens to it if the memory becomes
# ten times slower?
#
# <details><summary>Answer</summary>
# It shrinks as soon as int4 itself is limited by computing (the number above for 4 bits), and is gone when float32 is too
# (the one for 32 bits, a little less with the activations). Memory that is ten times slower moves both to ten times as
# many tokens. This is the roofline's opinion: the kernels that were measured above also pay for their unpacking.
# </details>

# %% tags=["measured"]
def predicted(ax, tokens, slower=1):
    """Bars: the time that the roofline predicts for one product, float32 = 1."""
    taken = {}
    for name, (bits, _, _) in STYLES.items():
        moved = 2048 * 8192 * bits / 8 + 4 * tokens * (2048 + 8192)
        top = integer_rate if name == "w8a8" else rate
        taken[name] = max(moved * slower / bandwidth, 2 * 2048 * 8192 * tokens / top)
    bars = ax.barh(list(taken), [t / taken["fp32"] for t in taken.values()],
                   color=[COLORS[color] for _, color, _ in STYLES.values()])
    ax.bar_label(bars, [f"{t / taken['fp32']:.2f}" for t in taken.values()], padding=4)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.4), title=f"{tokens} token{'s' * (tokens > 1)}" + f", memory {slower:g} times as slow" * (slower != 1))


fig, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
for ax, tokens in zip(axes, (1, 256), strict=True):
    predicted(ax, tokens)
    ax.set(xlabel="predicted time, fp32 = 1")
show(fig, alt="Two groups of bars, the roofline's predicted time of fp32, int8, int4 and W8A8 at one token and at 256, in "
     "units of float32's time. At one token the time falls with the bits, until computing limits it; at 256 all that compute in float take equally long.")

# %% tags=["measured"]
def predicted_figure(tokens, slower):
    """The prediction alone, for the sliders."""
    fig, ax = plt.subplots(figsize=(7, 2.6))
    predicted(ax, tokens, slower)
    ax.set(xlabel="predicted time, fp32 = 1")
    return fig


slider = ipywidgets.SelectionSlider(options=[2**k for k in range(11)], value=8, description="tokens")
memory = ipywidgets.SelectionSlider(options=[0.1, 0.3, 1, 3, 10, 30], value=1, description="slower")
show_widget(live_figure(predicted_figure, tokens=slider, slower=memory),
            alt="(live in Jupyter: sliders for the tokens of a batch and for the speed of the memory redraw the figure "
                "above, the time that the roofline predicts for each number type.)")

# %% [markdown]
# ## 4 · A model that fits the cache
#
# The layers of our model have 192 × 192 to 768 × 192 weights. All of them together take about 11 MB in float32: many
# processors can keep that in their cache, where nothing has to be fetched from memory. And a call into torch or numba
# takes some microseconds before the first multiplication. So now time products *without* emptying the cache in between.
# <!-- claim: MATH 2654208 * 4 / 1e6 -->
#
# **Before you run it.** Draw the speed of a product at one token, in bytes a second, against the size of the matrix. What
# does the curve do at both ends?

# %% tags=["measured"]
sizes = pick(ci=(64, 128), lab=(64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096), full=(64, 192, 512, 1024, 2048, 8192))
found = {}
for n in sizes:
    matrix = torch.randn(n, n, generator=generator)
    grid = affine_grid(matrix, 4)
    layer = QuantLinear.from_codes(nearest(matrix, grid), grid)
    one = torch.randn(1, n, generator=generator)
    found[n] = measure(dict(candidates(layer, ["int4"], one)), seconds=0.1, rounds=5)
megabytes = [4e-6 * n * n for n in sizes]
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3))
left.semilogx(megabytes, [4e-9 * n * n / found[n]["fp32"] for n in sizes], "o-", color=COLORS["blue"])
left.set(ylabel="GB of weights a second", title="fp32, one token", ylim=(0, None))
right.semilogx(megabytes, [found[n]["fp32"] / found[n]["int4"] for n in sizes], "^-", color=COLORS["green"])
right.axhline(1, color="0.3", ls="--")
right.set(ylabel="times as fast as fp32", title="int4, one token", ylim=(0, None))
for ax in (left, right):
    ax.set_xlabel("size of the fp32 matrix (MB)")
    ax.axvspan(4e-6 * 192 * 192, 4e-6 * 192 * 768, color=COLORS["orange"], alpha=0.25)
show(fig, alt="Left: weights read a second by a float32 product at one token against the size of the matrix. Right: how "
     "many times as fast int4 is. A shaded band marks the layers of the course's model, at small sizes.")

# %% [markdown]
# - On the left of the left plot the *call* costs more than the work; then the matrix comes from the cache, which may be
#   several times as fast as memory; at last most of it comes from memory, and the rate falls towards section 3's.
# - On the right, int4 gains where float32 has to wait for memory. Our model's layers lie in the shaded band.
# - The layer of sections 2 and 3 comes again below, and need not get the same number: there the cache was emptied before
#   each call. Here it is not, and int4's 8 MB may stay in a large cache while float32's 67 MB cannot.
#   <!-- claim: MATH 2**24 / 2 / 1e6; MATH 2**24 * 4 / 1e6 -->
# - `choose_backend` measures instead of believing: for each form of layer it times the ways there are and keeps the
#   fastest *quantised* one. "fp32" is only compared with, since it would need the float weight. It times a layer alone,
#   as the figure does.
# - `python benchmarks/kernels.py` times more shapes, more kernels (torch's own too) and more tokens, in some minutes.

# %% tags=["measured"]
alone = {}
for report in choose_backend(four, seconds=0.05):
    alone.setdefault(report.layer.split(".", 2)[2], report)
print(*alone.values(), f"the large layer: {choose_backend(layers[4], seconds=0.2)[0]}", sep="\n")

# %% [markdown]
# ### Who writes fastest?
#
# - The course's model in float32, with int8 and with int4 kernels, as each is.
# - And a larger stack of the same blocks, random weights and all, that no longer fits a small cache. **What it writes is
#   noise**; how fast it writes is not.

# %%
def with_kernels(model, bits):
    """A quantised copy that computes with the kernel of its bits."""
    copy = deepcopy(model)
    quantize_model(copy, Recipe(bits=bits))
    for layer in copy.modules():
        if isinstance(layer, QuantLinear):
            use_backend(layer, f"int{bits}")
    return copy


shape = pick(ci=(1, 256), lab=(4, 1024), full=(12, 1024))  # blocks, width
config = GPTConfig(tokenizer.vocab_size, layers=shape[0], heads=16, width=shape[1])
stack = GPT(config)
models = {"course": {"fp32": model} | {f"int{bits}": with_kernels(model, bits) for bits in (8, 4)},
          "stack": {"fp32": stack} | {f"int{bits}": with_kernels(stack, bits) for bits in (8, 4)}}

# %% [markdown]
# A kernel must not change what the model says. Dequantised and multiplied, or multiplied as codes: the logits agree
# within what the order of a float32 sum does.

# %%
with torch.inference_mode():
    for bits in (8, 4):
        kernel, plain = models["course"][f"int{bits}"], deepcopy(models["course"][f"int{bits}"])
        for layer in plain.modules():
            if isinstance(layer, QuantLinear):
                use_backend(layer, "dequantize")
        assert (kernel(prompt[None]) - plain(prompt[None])).abs().max() < 1e-3
print("same logits, with and without a float weight")

# %% tags=["measured"]
written = {"course": writing_times(models["course"], pick(ci=4, lab=60, full=200)),
           "stack": writing_times(models["stack"], pick(ci=4, lab=40, full=200))}
titles = {"course": "the course's model, 2.7 M", "stack": f"random stack, {stack.parameter_count() / 1e6:.0f} M"}
fig, axes = plt.subplots(1, 2, figsize=(8, 2.6))
for ax, (name, row) in zip(axes, written.items(), strict=True):
    bars = ax.bar(list(row), [1 / float(seconds.median()) for seconds in row.values()],
                  color=[COLORS[STYLES[kind][1]] for kind in row])
    ax.bar_label(bars, [f"{times_as_fast(seconds, row['fp32'])[0]:.2f}×" for seconds in row.values()])
    ax.set(title=titles[name], ylabel="tokens a second")
    ax.margins(y=0.15)
show(fig, alt="Two bar charts: tokens a second of fp32, int8 and int4 for the course's small model and for a larger "
     "random stack, each bar labelled with its ratio to fp32.")
for name, row in written.items():
    for kind in ("int8", "int4"):
        print(f"{titles[name]}, {kind}: {times_as_fast(row[kind], row['fp32'])[1]}")
slowest, fastest = (f(report.seconds["fp32"] / report.seconds["int4"] for report in alone.values()) for f in (min, max))
middle = times_as_fast(written["course"]["int4"], written["course"]["fp32"])[0]
print(f"The course's layers, each timed alone with int4: {slowest:.2f} to {fastest:.2f} times as fast; the model that is "
      f"made of them: {middle:.2f}. " + ("Timing layers alone foretold it." if slowest <= middle <= fastest else
                                         "Timing layers alone did not foretell it."))

# %% [markdown]
# - Both charts use the same kernels. Look at the verdicts before you compare the bars: on a busy machine the quartiles
#   may lie far apart, and the next run may say something else.
# - A layer that is called again and again can stay in the nearest cache; in the model 23 others pass in between, <!-- claim: MATH 24 - 1 --> and its
#   weights come from further away. How much of the last line above that explains, we have not measured. (You can:
#   `measure_cold` takes any layer.) **Measure what you will run**, not its parts.
# - Norms, attention, the head and Python take their time in every type, and limit what any kernel can do. (Amdahl's law:
#   what you do not speed up stays.)
# - In section 1 the 4-bit model made its float weight anew for each character. How much its kernel gains over that:

# %% tags=["measured"]
sample = stream(models["stack"]["int4"], prompt, seed=1)
print("what the random stack writes:", repr(tokenizer.decode(list(islice(sample, 40)))))
gain = float(wrote["4 bits"].median() / written["course"]["int4"].median())
print(f"the course's model: int4 with a kernel is {gain:.1f} times as fast as dequantising, on this machine")

# %% [markdown]
# ## 5 · Integers on both sides: W8A8
#
# To get under the higher roof, both factors have to be integers. Weights are. Activations are rounded on the fly,
# symmetric, and the scales go in front of the sum:
#
# $$y_{tr} = \sum_k s_t\,q_{tk} \cdot s_r\,(c_{rk} - z_r) \;=\; s_t\,s_r\Big(\underbrace{\textstyle\sum_k q_{tk}\,c_{rk}}
#   _{\text{integers}} - z_r \textstyle\sum_k q_{tk}\Big)$$
#
# for token $t$ and row $r$. It only works because neither scale depends on $k$. That is why W8A8 has scales for tokens
# and rows, and none for groups of columns.
#
# **Exercise 08.w8a8.** Codes `(out, in)` in uint8, zero points and scales of the rows `(out, 1)`, scales of the tokens
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
# ### Exact sums
#
# - An integer sum has no rounding error and no order, as long as it **fits**. 255 · 127 is 32,385. <!-- claim: MATH 2**8 - 1; MATH 2**7 - 1; MATH 255 * 127; MATH floor((2**31 - 1) / 32385) --> Two of these no longer
#   fit an int16; int32 holds 66,311 of them. float32 is exact for whole numbers up to $2^{24}$ only.
#
# **Before you run it.** Some processors multiply bytes in pairs and add each pair in int16, with *saturation*. Is the sum
# of a pair often too large for that?

# %%
from nanoq.quant.kernels import is_exact, numba_product, quantize_per_token, torch_product

tokens = torch.randn(20, COLUMNS, generator=generator)  # (20, in)
q, x_scale = quantize_per_token(tokens)  # int8 (20, in), float32 (20, 1)
c = layers[8].codes  # uint8 (out, in)
exact = c.long() @ q.long().T  # int64 (out, 20)
assert torch.equal(numba_product(c, q).long(), exact)
assert torch.equal(integer_product()(c, q).long(), exact)

pairs = (c[:64, None].int() * q.int()).unflatten(2, (-1, 2)).sum(3)  # (64, 20, in / 2)
clipped = pairs.clamp(-(2**15), 2**15 - 1).sum(2)  # (64, 20)
assert (clipped != exact[:64]).any()
print("int32 sums equal int64 sums, bit for bit; with pairs in int16 some do not")

# %% tags=["measured"]
print(f"{int((pairs > 2**15 - 1).sum() + (pairs < -(2**15)).sum()):,} of {pairs.numel():,} pairs do not fit int16")
print("torch's own integer product is exact on this machine:", is_exact(torch_product))
print("the package uses", integer_product().__name__)

# %% [markdown]
# Rarely: often enough to be wrong, too rarely to be noticed. Hence `is_exact`, which asks for the extreme cases. The
# package uses no product that fails it.
#
# ### The layer, by hand and by the package

# %%
from nanoq.quant import activation_quantization, fake_quantize_activations, plant_outliers, smoothquant

grid = grids[8]
by_hand = (exact - grid.zero_point * q.long().sum(1)) * grid.scale  # (out, 20)
by_hand = by_hand.T * x_scale  # (20, out)
use_backend(layers[8], "w8a8")
torch.testing.assert_close(layers[8](tokens), by_hand.float(), rtol=1e-4, atol=1e-4)
rounded = fake_quantize_activations(tokens, 8)  # (20, in): the same, in floating point
torch.testing.assert_close(F.linear(rounded, layers[8].dequantize()), by_hand.float(), rtol=1e-3, atol=1e-3)
print("integers and two scales = float product of rounded activations = the package's w8a8")

# %% [markdown]
# The last line helps below: to know what W8A8 does to a *model* we may round its activations and compute in floats.
#
# ### What rounding activations costs
#
# - **Per token**: each token has its own scale, made on the fly. **Per tensor**: one scale for all tokens that are
#   computed together; one large value makes the steps wide for everybody.
# - On generated text, the same windows for all, subtracted window by window.
#
# **Before you run it.** 8-bit weights alone cost next to nothing (notebook 04). And 8-bit activations on top: nothing, a
# hundredth of a nat, a tenth?

# %%
held_out = tokenizer.encode(corpus.test)
COUNT = pick(ci=4, lab=16, full=128)
reference = window_losses(model, held_out, limit=COUNT)  # (W,)


def added_losses(original):
    """Added loss of W8, W8A8 per token and W8A8 per tensor, each with its paired interval."""
    rounded_model, found = deepcopy(original), {}
    quantize_model(rounded_model, Recipe(bits=8, symmetric=True))
    found["W8"] = paired_difference(window_losses(rounded_model, held_out, limit=COUNT), reference)
    for granularity in ("token", "tensor"):
        with activation_quantization(rounded_model, 8, granularity):
            losses = window_losses(rounded_model, held_out, limit=COUNT)
        found[f"W8A8 per {granularity}"] = paired_difference(losses, reference)
    return found


def print_added(found):
    """One line for each."""
    for name, row in found.items():
        print(f"{name:16} {row.mean:+.5f} nats, {row.low:+.5f} to {row.high:+.5f}")


as_trained = added_losses(model)
assert all(abs(row.mean) < 0.01 for row in as_trained.values())

# %% tags=["measured"]
print_added(as_trained)

# %% [markdown]
# Less than a hundredth, either way, and on so few windows an interval may or may not leave out zero. So why does anybody
# worry about activations?
#
# ### Outliers
#
# Because of what grows in large models: a few channels of the activations, always the same ones, are some ten times as
# large as the rest (LLM.int8(), Dettmers et al. 2022). Ours is too small to have them. So we **plant** four: multiply
# four channels of every norm's output by 50, and divide the matching columns of the next weight by 50. In exact
# arithmetic the model computes the same.

# %%
planted = deepcopy(model)
channels = plant_outliers(planted, channels=4, factor=50)
with torch.inference_mode():
    difference = (planted(prompt[None]) - model(prompt[None])).abs().max()
assert difference < 1e-2
print("the same logits, up to rounding in float32")

# %%
def ranges(of, name="blocks.3.attention.qkv"):
    """Inputs (tokens, in) of a layer, and its weight (out, in)."""
    layer, caught = of.get_submodule(name), []
    hook = layer.register_forward_pre_hook(lambda _, args: caught.append(args[0].flatten(0, 1)))
    with torch.inference_mode():
        for part in calibration.split(8):
            of(part)
    hook.remove()
    return torch.cat(caught), layer.weight.detach()


calibration = sample_windows(tokenizer.encode(corpus.train), 256, pick(ci=2, lab=8, full=32), seed=0)
planted_x, planted_w = ranges(planted)

# %% [markdown]
# **Before you run it.** W8A8 again, on the planted model. Which suffers more, per tensor or per token? And the 8-bit
# weights alone, some of whose columns are now 50 times smaller?
#
# <details><summary>After you have run it</summary>
# Per tensor suffers most. The weights alone suffer little: a row's scale is set by its 188 usual columns, which are as
# they were. <!-- claim: MATH 192 - 4 --> But the other four have only a few codes left, and what they get wrong is multiplied by large activations.
# </details>

# %%
with_outliers = added_losses(planted)
assert with_outliers["W8A8 per tensor"].mean > 20 * abs(as_trained["W8A8 per tensor"].mean)
assert with_outliers["W8A8 per tensor"].mean > 3 * with_outliers["W8A8 per token"].mean > 0.05

# %% tags=["measured"]
print_added(with_outliers)

# %% [markdown]
# - The four channels set the scale, and the other 188 have to live with a step that is far too wide. <!-- claim: MATH 192 - 4 --> Tokens share the
#   trouble, since *every* token has the outliers: a scale of its own helps a token less than it did before.
# - A scale for each **channel** of $X$ would help. But it depends on $k$, and cannot be taken out of the integer sum.
#
# ### SmoothQuant
#
# Then move it into the *weight*, before that is rounded (Xiao et al. 2022). Divide channel $j$ of $X$ by $s_j$, multiply
# column $j$ of $W$ by it: $(X\,\mathrm{diag}(s)^{-1})(\mathrm{diag}(s)\,W^\top) = XW^\top$. The division disappears into
# the norm before it. Equation 4 of the paper shares the trouble out:
#
# $$s_j = \max|X_j|^{\alpha} \,/\, \max|W_j|^{1-\alpha}$$
#
# **Exercise 08.smooth.** The scales `(in,)` from inputs `x` `(tokens, in)`, a weight `(out, in)` and alpha.

# %%
def smooth_scale(x, weight, alpha):
    """Equation 4 of SmoothQuant."""
    ### BEGIN SOLUTION
    return x.abs().amax(0) ** alpha / weight.abs().amax(0) ** (1 - alpha)
    ### END SOLUTION

# %%
check("08.smooth", smooth_scale)

# %% [markdown]
# **Before you run it.** With $\alpha = ½$, what become of the ranges $\max|X_j|$ and $\max|W_j|$? And of outliers that were
# planted with a factor of 50, matched by weights 50 times smaller?
#
# <details><summary>Answer</summary>
# Both ranges become √(max|X| · max|W|), the same for activations and weights, channel by channel. The planted factor
# cancels in the product: the outliers are gone without a trace.
# </details>

# %%
smoothed = deepcopy(planted)
scales = smoothquant(smoothed, calibration, alpha=0.5)
by_hand = planted_x.abs().amax(0) ** 0.5 / planted_w.abs().amax(0) ** 0.5  # (192,)
torch.testing.assert_close(scales["blocks.3.attention.qkv"], by_hand, rtol=1e-3, atol=1e-5)
smooth_x, smooth_w = ranges(smoothed)
torch.testing.assert_close(smooth_x.abs().amax(0), smooth_w.abs().amax(0), rtol=1e-2, atol=1e-3)
with torch.inference_mode():
    assert (smoothed(prompt[None]) - model(prompt[None])).abs().max() < 1e-2
print("by hand = the package; X and W have equal ranges, channel by channel; the model says the same")

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
pairs = {"outliers planted": (planted_x, planted_w), "smoothed, α = ½": (smooth_x, smooth_w)}
for ax, (title, (some_x, some_w)) in zip(axes, pairs.items(), strict=True):
    ax.semilogy(some_x.abs().amax(0), color=COLORS["vermillion"], lw=1, label="activations")
    ax.semilogy(some_w.abs().amax(0), color=COLORS["blue"], lw=1, ls="--", label="weights")
    ax.set(xlabel="channel", title=title)
axes[0].set_ylabel("largest magnitude")
axes[1].legend()
show(fig, alt="Largest magnitude of each of 192 channels, on a log scale. Left, with planted outliers: four tall spikes in "
     "the activations and four deep dips in the weights. Right, smoothed: both curves coincide and there are no spikes.")
tall = {name: float(some_x.abs().amax(0).max() / some_x.abs().amax(0).median()) for name, (some_x, _) in pairs.items()}
assert tall["outliers planted"] > 10 * tall["smoothed, α = ½"]

# %%
after = added_losses(smoothed)
assert after["W8A8 per tensor"].mean < 0.05 * with_outliers["W8A8 per tensor"].mean
assert after["W8A8 per token"].mean < 0.2 * with_outliers["W8A8 per token"].mean

# %% tags=["measured"]
fig, ax = plt.subplots(figsize=(7, 3))
place = torch.arange(3)
groups = {"as trained": as_trained, "outliers": with_outliers, "outliers, smoothed": after}
for k, (name, color) in enumerate((("W8", "blue"), ("W8A8 per token", "orange"), ("W8A8 per tensor", "vermillion"))):
    rows = [group[name] for group in groups.values()]
    ax.bar(place + 0.27 * (k - 1), [max(row.mean, 1e-5) for row in rows], 0.25, color=COLORS[color], label=name)
ax.set_xticks(place, list(groups))
ax.set(yscale="log", ylim=(1e-5, None), ylabel="added loss (nats)", title="no bar: not above 0.00001")
ax.legend()
show(fig, alt="Bars on a log scale: added loss of W8, W8A8 per token and W8A8 per tensor, for the model as trained, with "
     "planted outliers, and smoothed after that. Outliers raise the W8A8 bars by orders of magnitude, smoothing lowers "
     "them again. Bars that end at the bottom are not above zero.")
print_added(after)

# %% [markdown]
# - Planting is the very thing that smoothing undoes, so this is a friendly test. Outliers that a large model has grown
#   have no small weights waiting for them: then the range is *shared*, each side gets the square root of it.
# - Only `qkv` and `up` read a norm in which the division can be hidden. `out` and `down` stay as they are, as in the
#   paper.
# - A larger test of the same, 32 windows, with several alphas and with 4 bits on both sides, lies in
#   `data/results/activations.csv`:

# %% tags=["measured"]
with open(data_dir() / "results" / "activations.csv", encoding="utf-8") as file:
    table = {row["setting"]: row for row in csv.DictReader(file)}
for start in ("as trained", "outliers", *(f"outliers, smoothed alpha {alpha}" for alpha in (0.25, 0.5, 0.75))):
    eight_bits, four_bits = (float(table[f"{start}: W{b}A{b} per token"]["delta_nats"]) for b in (8, 4))
    print(f"{start:30} W8A8 per token {eight_bits:+.5f} nats, W4A4 per token {four_bits:+.5f}")

# %% [markdown]
# W4A4 is another story: even the model as trained loses far more than with 4-bit weights alone. Rotations (QuaRot,
# SpinQuant) were made for that.

# %%
published = {name: float(row["delta_nats"]) for name, row in table.items()}
assert published["as trained: W4A4 per token"] > 3 * published["as trained: W4"]

# %% [markdown]
# ## 6 · The KV cache
#
# A model that writes keeps the keys and values of all tokens so far. They are activations too, they grow with every
# token and every text that is served at once, and each new token reads *all* of them. So round them.
#
# First look at some. **Before you run it:** keys of one head, tokens downwards, channels across. Do you expect
# horizontal stripes, vertical ones, or noise? And values?

# %%
rows = windows(held_out, 256, pick(ci=2, lab=8, full=8))[:, :-1]  # (W, 256)
cache = KVCache(model.config.layers)
with torch.inference_mode():
    model(rows, cache)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
for ax, name, stored in zip(axes, ("keys", "values"), (cache.keys, cache.values), strict=True):
    some = stored[3][0, 2, :128]  # (128, 32): block 3, head 2
    limit = float(some.abs().quantile(0.99))
    ax.imshow(some, aspect="auto", cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set(xlabel="channel", ylabel="token", title=f"{name} of one head")
    ax.grid(visible=False)
show(fig, alt="Two heat maps, 128 tokens by 32 channels: keys and values of one head of block 3. In the keys, many channels "
     "keep their sign over long runs of tokens, which shows as vertical stripes; values vary more from token to token.")

# %% [markdown]
# - **Per token**: a scale for each token of a head. **Per channel**: a scale for each channel, shared by a group of
#   tokens, here 32. Stripes down the page say that a channel has a range of its own: then the second wins.
# - KIVI (Liu et al. 2024) found: keys per channel, values per token. Does it hold for our model?

# %%
from nanoq.quant import QuantizedKVCache, StepwiseModel


def cache_error(stored, bits, granularity):
    """Squared error over squared size of keys or values (B, heads, T, head width) of all blocks."""
    lost = size = 0.0
    for tensor in stored:
        small = QuantizedKVCache(1, bits, residual=0, key_granularity=granularity)
        small.extend(0, tensor, tensor)  # as keys; what went in is given back as it was
        back, _ = small.extend(0, tensor[:, :, :0], tensor[:, :, :0])  # from now on, decoded
        lost += float((back - tensor).square().sum())
        size += float(tensor.square().sum())
    return lost / size


errors = {(name, bits): [cache_error(stored, bits, granularity) for granularity in ("channel", "token")]
          for name, stored in (("keys", cache.keys), ("values", cache.values)) for bits in (8, 4, 2)}
for bits in (8, 4, 2):
    assert errors["keys", bits][0] < 0.5 * errors["keys", bits][1]
    assert 0.5 * errors["values", bits][1] < errors["values", bits][0] < errors["values", bits][1]

# %% tags=["measured"]
for (name, bits), (channel, token) in errors.items():
    print(f"{name:6} {bits} bits: relative error {channel:.2e} per channel, {token:.2e} per token: {token / channel:.1f} times")

# %% [markdown]
# - **Keys: per channel, clearly.** Neighbouring tokens have like keys.
# - **Values: the rule of KIVI does not show here.** Per channel is a little better for them too. It was found on models a
#   thousand times as large; ours does not have to agree, and we do not pretend that it does.
# - Per channel has a price: its scale is known only when the group is complete, so that the newest tokens wait in float.
#
# ### Bytes
#
# **Exercise 08.kv_bytes.** Bytes for each token: codes of `bits` for keys and values of `width` channels in each of
# `heads` heads and `layers` blocks. Keys per channel: each group of `group` tokens has a float16 scale *and* a float16
# minimum for each channel. Values per token: one scale and one minimum for each token of a head.

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
float_bytes = sum(t.numel() * t.element_size() for t in (*cache.keys, *cache.values)) / rows.numel()
print(f"float32: {float_bytes:.0f} bytes a token")
assert float_bytes == 6 * 6 * 32 * 2 * 4
for bits in (8, 4, 2):
    small = QuantizedKVCache(6, bits, group=32, residual=0)
    with torch.inference_mode():
        model(rows[:1], small)
    assert small.bytes / 256 == 6 * 6 * (2 * 32 * bits / 8 + 4 * 32 / 32 + 4)
    print(f"{bits} bits: {small.bytes / 256:.0f} bytes a token, {float_bytes * 256 / small.bytes:.1f} times fewer")

# %% [markdown]
# Take a larger model, **given**: 80 blocks, 8 heads of keys and values (several query heads share one: *grouped-query
# attention*), 128 channels each, groups of 64, and a text of 32,768 tokens: <!-- claim: MATH 2**15 -->

# %%
def given_bytes(bits):
    """Bytes a token of the given model."""
    return 80 * 8 * (2 * 128 * 2 if bits == 16 else 2 * 128 * bits / 8 + 4 * 128 / 64 + 4)


for bits in (16, 8, 4, 2):
    print(f"{bits:2} bits: {given_bytes(bits):8,.0f} bytes a token, {given_bytes(bits) * 32768 / 1e9:5.2f} GB for one text")
assert given_bytes(16) == 327_680 and given_bytes(4) < given_bytes(16) / 3.6

# %% [markdown]
# Several GB for *one* text, and a server has many: this memory is what limits how many texts it can serve at once.
#
# ### What it costs
#
# In one pass over a window no token is ever read back from the cache, so nothing would be lost, and the measurement
# would be worthless. `StepwiseModel` reads 32 tokens at a time, as if the model had written them.
#
# **Before you run it.** At 2 bits, which hurts more: to round the *keys* along the wrong axis, or the *values*?

# %%
def cache_loss(bits, keys="channel", values="token", residual=0):
    """Added loss with a quantised cache, on the same windows."""
    make = partial(QuantizedKVCache, bits=bits, residual=residual, key_granularity=keys, value_granularity=values)
    return paired_difference(window_losses(StepwiseModel(model, make), held_out, limit=COUNT), reference)


SETTINGS = {"8 bits": (8,), "4 bits": (4,), "2 bits": (2,), "2 bits, values per channel": (2, "channel", "channel"),
            "2 bits, keys per token": (2, "token"), "2 bits, newest 32 in float": (2, "channel", "token", 32)}
lost = {name: cache_loss(*setting) for name, setting in SETTINGS.items()}
assert abs(lost["8 bits"].mean) < 0.002 and abs(lost["4 bits"].mean) < 0.01
assert lost["2 bits, keys per token"].mean > 2 * lost["2 bits"].mean > 0
assert lost["2 bits, newest 32 in float"].mean < lost["2 bits"].mean

# %% tags=["measured"]
fig, ax = plt.subplots(figsize=(7, 2.8))
for k, row in enumerate(lost.values()):
    ax.barh(k, 1000 * row.mean, color=COLORS["blue" if k < 3 else "orange"])
    ax.plot([1000 * row.low, 1000 * row.high], [k, k], color=COLORS["black"], lw=1.5)
ax.set_yticks(range(len(lost)), list(lost))
ax.invert_yaxis()
ax.set(xlabel="added loss (0.001 nats), with 95 % intervals")
show(fig, alt="Bars with intervals: added loss of a cache of 8, 4 and 2 bits with keys per channel and values per token, "
     "and of three variants at 2 bits. Keys per token stand out; 8 and 4 bits are near zero.")
for name, row in lost.items():
    print(f"{name:28} {row.mean:+.5f} nats, {row.low:+.5f} to {row.high:+.5f}")

# %% [markdown]
# - 8 and 4 bits: next to nothing. 2 bits: the axis of the keys decides, that of the values hardly matters.
# - The newest 32 tokens in float take most of what is left away: they are read most. On windows of 256 they are an
#   eighth of the text; in a long one they would be nothing.
# - Bytes saved are time saved only with a kernel that reads the packed codes, as in section 2. Ours decodes first: it
#   saves memory, **not** time.

# %% [markdown]
# ## 7 · Files that other programs read
#
# Kernels live in other programs: vLLM or transformers for GPTQ files, llama.cpp for GGUF. Both formats hold what you
# know by now, each in an order of its own. One layer of the model, with groups of 32 and a symmetric grid:

# %%
from nanoq.quant import export_gguf, export_gptq

exported = deepcopy(model)
quantize_model(exported, Recipe(bits=4, symmetric=True, group_size=32))
with tempfile.TemporaryDirectory() as folder:
    export_gptq(folder, exported)
    tensors = load_file(Path(folder) / "model.safetensors")
NAME = "blocks.0.attention.qkv"
for field in ("qweight", "qzeros", "scales", "g_idx"):
    tensor = tensors[f"{NAME}.{field}"]
    print(f"{field:8} {tensor.dtype!s:14} {tuple(tensor.shape)}")

# %% [markdown]
# - The layer has 192 inputs and 576 outputs. `qweight` is *transposed*: a column holds an output, and each int32 word
#   eight codes from neighbouring inputs, the first in the lowest bits.
# - The words are int32, so that many of them are negative numbers. That means nothing.
#
# **Exercise 08.word.** The eight codes in a word (a Python int, perhaps negative), as a list, code 0 first.

# %%
def codes_of(word):
    """An int32 word -> eight codes of 4 bits."""
    ### BEGIN SOLUTION
    return [word >> 4 * k & 15 for k in range(8)]
    ### END SOLUTION

# %%
check("08.word", codes_of)

# %%
word = int(tensors[f"{NAME}.qweight"][0, 5])  # the first eight inputs of output 5
zero_word = int(tensors[f"{NAME}.qzeros"][0, 0])  # the zero points of outputs 0..7 in the first group of inputs
scale = tensors[f"{NAME}.scales"][0, 5].float()
first_codes = torch.tensor([word >> 4 * k & 15 for k in range(8)])
stored_zero = zero_word >> 4 * 5 & 15
decoded = scale * (first_codes - (stored_zero + 1))  # this version of the format stores the zero point minus one
print("codes", first_codes.tolist(), " zero point stored as", stored_zero)
assert stored_zero == 7
assert torch.equal(decoded, exported.get_submodule(NAME).dequantize()[5, :8])

# %% [markdown]
# - The zero point is 8 and stored as 7: the older version of the format takes one off, for no reason that anybody
#   remembers, and every reader adds it back. A zero point of 0 cannot be stored that way; `export_gptq` writes the
#   newer version where it is needed.
# - GGUF's `Q4_0` has blocks of 32 with a float16 scale in front: 18 bytes. And its byte $j$ holds columns $j$ and
#   **$j + 16$**: not our neighbours, not GPTQ's words. Three programs, three orders, the same weights. Needs the package
#   `gguf`; without it the cell says so.

# %% tags=["measured"]
try:
    import gguf
except ImportError:
    gguf = None
    print("the package gguf is not installed: nothing to see here, and nothing below needs it")
if gguf:
    with tempfile.TemporaryDirectory() as folder:
        path = export_gguf(Path(folder) / "tales.gguf", exported)
        tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == f"{NAME}.weight")
        block = torch.tensor(np.array(tensor.data[5][:18]))  # (18,) uint8: row 5, its first 32 columns
        kind = tensor.tensor_type.name
        del tensor
    scale = block[:2].view(torch.float16).float()
    nibbles = torch.cat((block[2:] & 15, block[2:] >> 4))  # (32,): columns 0..15, then 16..31
    assert torch.equal(scale * (nibbles.float() - 8), exported.get_submodule(NAME).dequantize()[5, :32])
    print(kind, "block:", nibbles.tolist())

# %% [markdown]
# ## What to keep
#
# - **A format saves memory, a kernel saves time.** Making the float weight in every call moves *more* bytes than float32.
# - Time is the larger of bytes ÷ bandwidth and operations ÷ rate. At **one token** a layer waits for its weight, and
#   fewer bits help as far as the kernel's unpacking keeps up; with **many tokens** it computes, and weight-only
#   quantisation does not help.
# - Count all that travels: scales and zero points of small groups double the 4 bits.
# - What a small model gains cannot be read from its layers' times, nor from a large model's. Measure what you will run,
#   on *your* machine, in turns, and report a ratio with its spread.
# - **W8A8**: integer sums are exact if they fit. Scales for tokens and rows can be taken out of the sum, for columns not.
#   Outliers break it; SmoothQuant moves them into the weights, where they do less harm.
# - **KV cache**: keys per channel. 4 bits cost next to nothing here, 2 bits little.
#
# ## Open challenge
#
# **Beat the package's kernel.** Write an int4 product for groups of 32, one token, on a layer that does not fit your
# cache. <!-- claim: CELL symmetric=True, group_size=32; MATH 2**4 --> Ideas: decode through a table of 16 values; read four bytes at once; keep the scales in float16. It counts if
# the result agrees with `layer.dequantize()`, and if `measure`, which lets both take turns, says so three times.
#
# ## What next
#
# - **10 · CMPQ**: layers are not equally important. If some need 8 bits and others can do with 3, which?
#
# ## Further reading
#
# - Williams, Waterman and Patterson 2009, *Roofline: An Insightful Visual Performance Model for Multicore Architectures*
#   (Communications of the ACM, volume 52).
# - Dettmers et al. 2022, *LLM.int8()* ([arXiv 2208.07339](https://arxiv.org/abs/2208.07339)): outliers, and W8A8 by vectors.
# - Xiao et al. 2022, *SmoothQuant* ([2211.10438](https://arxiv.org/abs/2211.10438)).
# - Liu et al. 2024, *KIVI* ([2402.02750](https://arxiv.org/abs/2402.02750)): a cache of 2 bits.
