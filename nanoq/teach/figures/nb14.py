"""The figures of notebook 14."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from nanoq.teach.plots import COLORS, figure

ROADS = {"quantise": ("blue", "o"), "prune": ("vermillion", "s"), "low rank": ("green", "^"), "distil": ("purple", "D"),
         "together": ("orange", "P")}  # fmt: skip
LOOK = {"cmap": "PuOr", "vmin": -2.5, "vmax": 2.5}


@figure("Four pictures. Pruning: a weight matrix with half of its cells blank. Low rank: a tall thin and a wide flat "
        "matrix in its place. Distillation: six blocks, an arrow, three blocks. Quantisation: a matrix of the same "
        "size with only a few colours.")  # fmt: skip
def four_roads() -> Figure:
    """What pruning, low rank, distillation and quantisation do to a matrix or a model."""
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    fig, axes = plt.subplots(1, 4, figsize=(9, 2.9))
    axes[0].imshow(torch.where(matrix.abs() > 0.67, matrix, torch.nan), **LOOK).cmap.set_bad("0.92")
    u, _, vt = torch.linalg.svd(matrix)
    axes[1].imshow(2 * u[:, :3], extent=(0, 3, 0, 12), **LOOK)
    axes[1].imshow(2 * vt[:3], extent=(4, 16, 9, 12), **LOOK)
    axes[1].set(xlim=(-0.5, 16.5), ylim=(-0.5, 12.5))
    for i in range(6):
        axes[2].add_patch(Rectangle((0, 2 * i), 4, 1.6, fc=COLORS["blue"]))
        if i < 3:
            axes[2].add_patch(Rectangle((8, 2 * i), 4, 1.6, fc=COLORS["orange"]))
    axes[2].annotate("", (7.8, 2.8), (4.2, 5.8), arrowprops={"arrowstyle": "-|>", "lw": 2})
    axes[2].set(xlim=(-0.5, 12.5), ylim=(-0.5, 12))
    axes[3].imshow((matrix / 1.6).round().clamp(-2, 1) * 1.6, **LOOK)
    titles = ("pruning\nweights left out", "low rank\ntwo thin matrices", "distillation\na small model learns",
              "quantisation\nfew different values")  # fmt: skip
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=10)
        ax.axis("off")
    return fig


@figure("Left: heat map of 90 inputs of a layer while it reads 40 characters; some columns are strongly coloured, many "
        "are nearly blank. Right: the norms of all inputs, sorted, on a log scale, from more than twice the median to "
        "less than half of it.")  # fmt: skip
def layer_inputs(inputs: Tensor) -> Figure:
    """Some of a layer's inputs (tokens, in), and the sorted norms of all of them."""
    norms = inputs.norm(dim=0)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(3, 2))
    left.imshow(inputs[:40, :90].clamp(-1, 1), cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    left.set(xlabel="90 of the inputs", ylabel="40 characters", title="what the layer reads")
    left.grid(visible=False)
    right.semilogy((norms / norms.median()).sort(descending=True).values, color=COLORS["blue"])
    right.set(xlabel="inputs, sorted", title="norm of each input (median 1)")
    right.set_yticks([0.25, 0.5, 1, 2], ["¼", "½", "1", "2"])
    right.minorticks_off()
    return fig


@figure(lambda row, keep: f"A row of {len(row)} weights, of which {int(keep.sum())} stay. Below it the mask, a 0 or "
                          "a 1 for each weight; below that the values that stay, side by side.")  # fmt: skip
def mask_and_values(row: Tensor, keep: Tensor) -> Figure:
    """Weights (n,) of a row, which of them stay (n,), and what a sparse file holds of them."""
    fig, ax = plt.subplots(figsize=(9, 2.3))
    limit = float(row.abs().max())
    tint = plt.get_cmap("PuOr")
    values = [float(w) for w, stays in zip(row, keep, strict=True) if stays]
    for height, shown in ((2.6, row.tolist()), (0, values)):
        for at, value in enumerate(shown):
            gone = height > 0 and not keep[at]
            color = "0.94" if gone else tint(0.5 + 0.35 * value / limit)
            ax.add_patch(Rectangle((at, height), 0.94, 0.9, fc=color))
            ax.text(at + 0.47, height + 0.45, f"{value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=8,
                    color="0.6" if gone else "0")  # fmt: skip
    for at, stays in enumerate(keep.tolist()):
        ax.text(at + 0.47, 1.75, int(stays), ha="center", va="center", family="monospace")
    for height, words in ((3.05, "weights"), (1.75, "mask, 1 bit each"), (0.45, "values in the file")):
        ax.text(-0.2, height, words, ha="right", va="center")
    ax.set(xlim=(-3.6, len(row)), ylim=(-0.1, 3.6))
    ax.axis("off")
    return fig


@figure("Bits per weight against the share of zeros for values of 8, 4 and 3 bits. Each line starts one bit above its "
        "dotted dense line, falls, and crosses it at a share of one over the bits.")  # fmt: skip
def sparse_bits(bits_of: Callable[[float, int], float]) -> Figure:
    """Bits per weight of sparse files, bits_of(sparsity, bits), and of dense ones."""
    shares = torch.linspace(0, 0.9, 91).tolist()
    fig, ax = plt.subplots(figsize=(7, 3))
    for bits, color in ((8, "blue"), (4, "orange"), (3, "green")):
        lines = [float(bits_of(share, bits)) for share in shares]
        ax.plot(shares, lines, color=COLORS[color], label=f"{bits} bits and a mask")
        ax.axhline(bits, color=COLORS[color], ls=":", lw=1.5)
        ax.plot(1 / bits, bits, "o", color=COLORS[color])
    ax.set(xlabel="share of zeros", ylabel="bits per weight", ylim=(0, 9.5),
           title="Dotted: the dense file. Dots: here sparsity begins to pay")  # fmt: skip
    ax.legend(loc="lower left")
    return fig


@figure("Left: singular values of a trained matrix and of its shuffled copy. Both fall slowly, side by side. Right: "
        "share of the sum of squares against the rank; the two curves nearly cover each other. A dashed line marks the "
        "largest rank that saves numbers.")  # fmt: skip
def spectra(weight: Tensor, shuffled: Tensor, limit: int) -> Figure:
    """Singular values of a matrix (out, in) and of its shuffled copy; `limit` is the largest rank that saves."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    for name, matrix, color in (("trained", weight, "blue"), ("shuffled", shuffled, "orange")):
        values = torch.linalg.svdvals(matrix)
        squares = values.square().cumsum(0) / values.square().sum()
        left.plot(values / values[0], color=COLORS[color], label=name)
        right.plot(range(1, len(values) + 1), squares, color=COLORS[color])
    left.set(xlabel="number", title="singular values (largest 1)", ylim=(0, None))
    left.legend()
    right.axvline(limit, color="0.4", ls="--")
    right.annotate("beyond: nothing\nis saved", (limit, 0.1), xytext=(-6, 0), textcoords="offset points", ha="right")
    right.set(xlabel="rank", title="share of the sum of squares kept", ylim=(0, 1.02))
    return fig


@figure("The teacher's probabilities for eight characters at the temperatures 1, 2 and 4: steep at 1, flatter at 2, "
        "nearly level at 4, where the rest of the alphabet has a large share.")  # fmt: skip
def soft_targets(logits: Tensor, tokenizer: object, prompt: str) -> Figure:
    """Probabilities of the likeliest next characters, from logits (V,), at three temperatures."""
    top = logits.topk(8).indices
    names = [repr(tokenizer.decode(top[i : i + 1])) for i in range(8)]
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
    for ax, temperature in zip(axes, (1, 2, 4), strict=True):
        soft = (logits / temperature).softmax(0)
        ax.bar(names, soft[top], color=COLORS["blue"])
        ax.set(title=f"T = {temperature}: all others {float(1 - soft[top].sum()):.2f}")
    axes[0].set_ylabel("probability")
    axes[1].set_xlabel(f"after “{prompt}”")
    return fig


def gradient_sizes(loss: Callable[[Tensor, Tensor, float], Tensor]) -> dict[int, float]:
    """Norm of the gradient of loss(student, teacher, temperature) for random logits, by the temperature."""
    teacher, start = torch.randn(2, 64, 80, generator=torch.Generator().manual_seed(0))
    sizes = {}
    for temperature in (1, 2, 4, 8):
        student = start.clone().requires_grad_()
        loss(student, teacher, temperature).backward()
        sizes[temperature] = float(student.grad.norm())
    return sizes


@figure("Size of the gradient against the temperature on log scales: with the factor T squared it stays about level, "
        "without the factor it falls steeply.")  # fmt: skip
def gradients(loss: Callable[[Tensor, Tensor, float], Tensor]) -> Figure:
    """Sizes of the gradient of a distillation loss by temperature, with its factor T squared and without."""
    sizes = gradient_sizes(loss)
    fig, ax = plt.subplots(figsize=(7, 2.6))
    ax.loglog(sizes.keys(), sizes.values(), "^-", color=COLORS["green"], label="your loss, with T²")
    ax.loglog(sizes.keys(), [size / t**2 for t, size in sizes.items()], "o-", color=COLORS["blue"],
              label="without T²")  # fmt: skip
    ax.set(xlabel="temperature", ylabel="size of the gradient", xticks=list(sizes), xticklabels=list(map(str, sizes)))
    ax.minorticks_off()
    ax.legend()
    return fig


def _frontier_alt(rows: Sequence[Mapping], edge: Sequence[Mapping]) -> str:
    words = "; ".join(f"{row['bytes'] / 1e6:.2f} MB, {row['delta_nats']:.3f} nats, {row['road']}" for row in edge)
    return (f"Added loss on a symmetric log scale against the size of the file, {len(rows)} models of all roads. The "
            f"frontier, from small to large: {words}.")


@figure(_frontier_alt)
def all_roads(rows: Sequence[Mapping], edge: Sequence[Mapping]) -> Figure:
    """All rows of the file by road, bytes against added loss, and the frontier of those that no other beats."""
    fig, ax = plt.subplots(figsize=(8, 4.6))
    sizes = [row["bytes"] / 1e6 for row in edge]
    ax.step(sizes, [row["delta_nats"] for row in edge], where="post", color="0.6", lw=4, alpha=0.5)
    for road, (color, marker) in ROADS.items():
        mine = [row for row in rows if row["road"] == road]
        x, y, low, high = (torch.tensor([row[key] for row in mine], dtype=torch.float64)
                           for key in ("bytes", "delta_nats", "ci_low", "ci_high"))  # fmt: skip
        ax.errorbar(x / 1e6, y, yerr=torch.stack((y - low, high - y)), fmt=marker, ms=5, capsize=2,
                    color=COLORS[color], label=road)  # fmt: skip
    coded = [row for row in rows if "entropy-coded" in row["method"]]
    ax.plot([row["bytes"] / 1e6 for row in coded], [row["delta_nats"] for row in coded], "s", ms=9, mfc="none",
            color=COLORS["black"], label="entropy-coded")  # fmt: skip
    ax.set(xlabel="size of the file (MB)", ylabel="added loss (nats per character)",
           title="TinyStories, 2.7 million parameters")  # fmt: skip
    ax.set_yscale("symlog", linthresh=0.01)
    ax.set_ylim(bottom=-0.002)
    ax.legend()
    return fig


@figure(lambda matrices: f"Corners of a matrix, zeros blank: {', '.join(matrices)}. Both are half blank; the second "
                         "has two of every four neighbours in each row.")  # fmt: skip
def kept(matrices: Mapping[str, Tensor]) -> Figure:
    """A corner of each matrix (out, in), with its zeros left blank."""
    fig, axes = plt.subplots(1, len(matrices), figsize=(8, 2.6))
    for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
        corner = torch.where(matrix != 0, matrix, torch.nan)[:16, :32]
        ax.imshow(corner, cmap="PuOr", vmin=-0.5, vmax=0.5).cmap.set_bad("0.92")
        ax.set(title=name, yticks=[], xticks=[place - 0.5 for place in range(0, 33, 4)], xticklabels=[])
        ax.grid(visible=False)
    return fig


def _blocks_alt(influence: Sequence[float], without: Sequence[float]) -> str:
    least = [values.index(min(values)) for values in (influence, without)]
    return (f"Two bar charts over the blocks, log scale. Left, influence: the smallest is block {least[0]}. Right, "
            f"loss added without the block: the smallest is block {least[1]}. In both, block 0 is by far the largest.")


@figure(_blocks_alt)
def blocks(influence: Sequence[float], without: Sequence[float]) -> Figure:
    """Influence of each block, and the loss that is added without it; the smallest of each in orange."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 2.8))
    titles = ("influence (similarity)", "added loss without it")
    for ax, values, title in zip(axes, (influence, without), titles, strict=True):
        colors = [COLORS["orange" if value == min(values) else "blue"] for value in values]
        ax.bar(range(len(values)), values, color=colors)
        ax.set(yscale="log", xticks=range(len(values)), xlabel="block", title=title)
    return fig


@figure("Top: histogram of the weights, a bell around 0 with thin tails to both sides. Below, a row of marks for each "
        "grid. Uniform: evenly spaced. Power law: closer near 0. Power of two: halving towards 0, most marks crowd "
        "around it. NF4: closer near 0, too, like quantiles of a bell.")  # fmt: skip
def spaces(weight: Tensor, grids: Mapping[str, Tensor]) -> Figure:
    """Weights (out, in) in units of their row's largest, and the values of grids that end at 1."""
    relative = weight / weight.abs().amax(1, keepdim=True)
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, height_ratios=(2, 3))
    top.hist(relative.flatten().numpy(), bins=201, range=(-1, 1), color="0.7")
    top.set(yticks=[], ylabel="weights")
    for place, (values, color) in enumerate(zip(grids.values(), COLORS.values(), strict=False)):
        bottom.plot(values, torch.full_like(values, -place), "|", ms=20, mew=3, color=color)
    bottom.set(yticks=[-place for place in range(len(grids))], yticklabels=list(grids), ylim=(0.4 - len(grids), 0.6),
               xlabel="weight, in units of its row's largest")  # fmt: skip
    bottom.grid(visible=False)
    return fig


@figure(lambda estimates: "Bars of estimates of what a training took. " + "; ".join(
    f"{model}, {who}: {mwh:,} MWh and {tonnes:,} tonnes of CO₂" for model, mwh, tonnes, who in estimates) + ".")
def energy(estimates: Sequence[tuple[str, float, float, str]]) -> Figure:
    """Estimates (model, MWh, tonnes of CO2, whose) of the energy and the emissions of a training."""
    names = [f"{row[0]}, {row[3]}" for row in estimates]
    fig, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
    for ax, column, title in zip(axes, (1, 2), ("training, MWh", "training, t CO₂ equivalent"), strict=True):
        for place, row in enumerate(estimates):
            ax.barh(place, row[column], color=COLORS["blue" if row[0] == "GPT-3" else "orange"])
            ax.text(row[column], place, f" {row[column]:,}", va="center", fontsize=9)
        ax.set(title=title, yticks=range(len(estimates)), yticklabels=names)
        ax.set_xlim(0, 1.2 * max(row[column] for row in estimates))
    axes[0].invert_yaxis()  # both: they share it
    return fig
