"""The figures of notebook 15."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from nanoq.files import read_results
from nanoq.teach.plots import COLORS, figure


def _shares(counted: Mapping[str, tuple[int, int, int]]) -> dict[str, float]:
    return {name: 100 * others / (weights + others) for name, (weights, _, others) in counted.items()}


def _bytes_alt(counted: Mapping[str, tuple[int, int, int]]) -> str:
    words = [f"{name} {share:.0f} %" for name, share in _shares(counted).items()]
    return ("Bars of several models, each split into the linear layers and all other parameters, mostly embeddings. "
            f"The share of the others: {', '.join(words)}.")


@figure(_bytes_alt)
def where_the_bytes_are(counted: Mapping[str, tuple[int, int, int]]) -> Figure:
    """Weights in linear layers, their rows, and other parameters of each model: the first and the last as shares."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    others = list(_shares(counted).values())
    layers = [100 - share for share in others]
    ax.barh(list(counted), layers, color=COLORS["blue"], label="linear layers")
    bars = ax.barh(list(counted), others, left=layers, color=COLORS["orange"], label="embeddings and all others")
    ax.bar_label(bars, [f"{share:.0f} %" for share in others], label_type="center")
    ax.set(xlabel="share of the parameters (%)", xlim=(0, 103))
    ax.invert_yaxis()
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=2)
    return fig


def _customs_alt(perplexities: Mapping[str, float]) -> str:
    words = [f"{name}: {value:.2f}" for name, value in sorted(perplexities.items(), key=lambda item: item[1])]
    return f"Bars of the perplexity of one model on one text, measured in several ways. {'; '.join(words)}."


@figure(_customs_alt)
def customs(perplexities: Mapping[str, float]) -> Figure:
    """One model, one text, several ways to measure."""
    order = sorted(perplexities, key=perplexities.get)
    fig, ax = plt.subplots(figsize=(7, 0.6 + 0.42 * len(order)))
    bars = ax.barh(order, [perplexities[name] for name in order], color=COLORS["blue"])
    ax.bar_label(bars, fmt=" %.2f")
    ax.set(xlabel="perplexity of one model on one text", xscale="log", xlim=(1, 2.2 * max(perplexities.values())))
    ax.invert_yaxis()
    return fig


def _classes() -> dict[str, list[int]]:
    """For each kind of class: how many are read back by transformers, right without that, and neither."""
    found = {}
    rows = [row for row in read_results("architectures") if not row["outcome"].startswith("no tiny")]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        right = [row for row in mine if row["outcome"] == "works"]
        read = sum(row["export"] in ("same", "decoded") for row in right)
        found[kind] = [read, len(right) - read, len(mine) - len(right)]
    return found


def _architectures_alt() -> str:
    words = [f"{kind}: {sum(counts)} tried, {counts[0] + counts[1]} right, {counts[0]} of them read back by "
             "transformers" for kind, counts in _classes().items()]
    return f"Stacked bars of classes of transformers by kind. {'; '.join(words)}."


@figure(_architectures_alt)
def architectures() -> Figure:
    """Classes of transformers that were quantised, by what became of them."""
    labels = ("right, and read back by transformers", "right", "refused, or failed with a reason")
    fig, ax = plt.subplots(figsize=(7, 2.8))
    found = _classes()
    left = [0] * len(found)
    for place, (label, color) in enumerate(zip(labels, ("green", "sky", "orange"), strict=True)):
        counts = [row[place] for row in found.values()]
        bars = ax.barh(list(found), counts, left=left, color=COLORS[color], label=label)
        ax.bar_label(bars, [str(count) if count > 9 else "" for count in counts], label_type="center")
        left = [a + b for a, b in zip(left, counts, strict=True)]
    ax.set(xlabel="classes of transformers")
    ax.invert_yaxis()
    ax.legend(loc="lower center", bbox_to_anchor=(0.42, 1), ncols=3, fontsize=8)
    return fig


# ---- Further ----

# of each family, from the bottom to the top: what is embedded, one block, and what follows the last
LOOK = {"embedding": "sky", "norm": "orange", "layers": "blue", "head": "green"}
PLANS = {
    "OPT": ("token + position",
            ("norm LayerNorm", "layers q, k, v, out", "+", "norm LayerNorm", "layers fc1, fc2", "+"),
            ("norm LayerNorm", "head tied head")),
    "GPT-2": ("token + position",
              ("norm LayerNorm", "layers c_attn, c_proj\n(Conv1D)", "+", "norm LayerNorm",
               "layers c_fc, c_proj\n(Conv1D)", "+"), ("norm LayerNorm", "head tied head")),
    "Llama": ("token", ("norm RMSNorm", "layers q, k, v, o\n+ rotary angles", "+", "norm RMSNorm",
                        "layers gate, up, down", "+"), ("norm RMSNorm", "head own head")),
    "BERT": ("token + position\n+ type, LayerNorm",
             ("layers query, key,\nvalue, dense", "+", "norm LayerNorm", "layers dense, dense", "+", "norm LayerNorm"),
             ("head head for masks\n(or none)",)),
}  # fmt: skip


def _plan(ax: Axes, name: str, embedded: str, block: Sequence[str], tail: Sequence[str]) -> None:
    """One family as a column of boxes."""
    ax.add_patch(Rectangle((-0.12, 0.5), 1.24, 6, fc="0.93", ec="0.7"))
    ax.text(1.06, 3.5, "× N blocks", ha="center", va="center", size=8, color="0.35", rotation=90)
    for level, item in enumerate((f"embedding {embedded}", *block, *tail)):
        kind, _, label = item.partition(" ")
        if kind != "+":
            color = COLORS[LOOK[kind]]
            ax.add_patch(Rectangle((0, level - 0.36), 1, 0.72, fc=color, alpha=0.35, ec=color))
        ax.text(0.5, level, label or "+ residual", ha="center", va="center", size=8, color="black" if label else "0.35")
    ax.set(title=name, xlim=(-0.2, 1.2), ylim=(-0.6, 8.6))
    ax.axis("off")


@figure("Four columns of boxes, read from the bottom up. OPT, GPT-2 and Llama have the norm before attention and "
        "before the MLP and one more after the last block; BERT has it after each addition and in the embedding. OPT, "
        "GPT-2 and BERT add positions to the embedding; Llama turns queries and keys by rotary angles instead. GPT-2's "
        "layers are Conv1D. OPT and GPT-2 use the embedding again as the head, this Llama has a head of its own, BERT "
        "one for masks or none.")  # fmt: skip
def families() -> Figure:
    """Four families of models side by side."""
    fig, axes = plt.subplots(1, len(PLANS), figsize=(9, 4.6))
    for ax, (name, plan) in zip(axes, PLANS.items(), strict=True):
        _plan(ax, name, *plan)
    return fig


def _smollm2() -> dict[str, list[tuple[float, float, str]]]:
    """(bits per parameter, perplexity, bits) of the files of SmolLM2 in groups of 64, as shipped, and entropy-coded."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for row in read_results("smollm2"):
        plain = row["method"] in ("nearest", "gptq") and (row["group"], row["act_order"]) == ("64", "False")
        if plain or row["method"] in ("as shipped", "entropy-coded"):
            group = f"{row['method']}, groups of 64" if plain else row["method"]
            found.setdefault(group, []).append(
                (float(row["bits_per_param"]), float(row["perplexity"]), row["bits"]))
    return {name: sorted(points) for name, points in found.items()}


def _smollm2_alt() -> str:
    words = [f"{name}: " + ", ".join(f"{value:.1f} at {bits:.1f} bits" for bits, value, _ in points)
             for name, points in _smollm2().items()]
    return ("Perplexity of SmolLM2-135M on WikiText-2 against the bits per parameter of the whole file. "
            f"{'; '.join(words)}.")


@figure(_smollm2_alt)
def smollm2() -> Figure:
    """The measured files of SmolLM2-135M, each with the bits of its matrices."""
    fig, ax = plt.subplots(figsize=(7, 3.6))
    for (name, points), marker in zip(_smollm2().items(), "*osD", strict=True):
        ax.plot([x for x, _, _ in points], [y for _, y, _ in points], marker, label=name, ms=12 if marker == "*" else 6)
        for x, y, bits in points:
            ax.annotate(bits, (x, y), textcoords="offset points", xytext=(7, 3), size=8)
    ax.set(xlabel="bits per parameter of the whole file", ylabel="perplexity", yscale="log")
    ax.set_yticks([40, 50, 60, 80, 100], [40, 50, 60, 80, 100])
    ax.minorticks_off()
    ax.legend()
    return fig


def _shares_right(right: Tensor, still: Mapping[int, Tensor]) -> tuple[float, float, dict[int, float]]:
    """Accuracy before with half its 95 % interval, and the accuracies by bits."""
    was = float(right.float().mean())
    return was, 1.96 * (was * (1 - was) / len(right)) ** 0.5, {b: float(now.float().mean()) for b, now in still.items()}


def _blunt_alt(moved: Mapping[int, float], right: Tensor, still: Mapping[int, Tensor]) -> str:
    was, half, shares = _shares_right(right, still)
    words = [f"{bits} bits: drift {moved[bits]:.2g}, accuracy {100 * shares[bits]:.0f} %" for bits in moved]
    return ("Left: drift against bits on a log scale. Right: accuracy of a probe, with a grey band for the unquantised "
            f"model ({100 * (was - half):.0f} to {100 * (was + half):.0f} %). {'; '.join(words)}.")


@figure(_blunt_alt)
def sharp_and_blunt(moved: Mapping[int, float], right: Tensor, still: Mapping[int, Tensor]) -> Figure:
    """Drift by bits, and which of the texts (N,) a probe has right before and, by bits, after."""
    was, half, shares = _shares_right(right, still)
    fig, (left, other) = plt.subplots(1, 2, figsize=(8, 3.2))
    left.plot(list(moved), list(moved.values()), marker="o")
    left.axhline(1, color="0.5", ls="--", lw=1)
    left.set(yscale="log", xlabel="bits", ylabel="drift", title="embeddings")
    other.axhspan(100 * (was - half), 100 * (was + half), color="0.9", label="unquantised, 95 %")
    other.plot(list(shares), [100 * share for share in shares.values()], marker="s", color=COLORS["vermillion"])
    other.set(xlabel="bits", ylabel="accuracy (%)", title="mood probe", ylim=(40, 100))
    other.legend(loc="lower right")
    for ax in (left, other):
        ax.invert_xaxis()
    return fig
