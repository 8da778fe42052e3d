"""The learner's own model file, which gets better from notebook to notebook, and the board that keeps its progress."""

import functools
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nanoq
from nanoq.files import read_results
from nanoq.lm.evaluate import paired_difference
from nanoq.quant import LayerStats, linear_layers, observe
from nanoq.quant.gptq_method import TOKENS_PER_INPUT
from nanoq.tasks import task_for
from nanoq.teach import records
from nanoq.teach.capstone import MODEL, erased
from nanoq.teach.leaderboard import Row
from nanoq.teach.plots import COLORS, figure

WINDOWS, CALIBRATION = 32, 64  # held-out windows, and those from which the Hessians are gathered
# Where a label may stand beside its star, in points: near ones first, right before left.
PLACES = [(side * far, up * far) for far in (11, 22, 34, 48, 64, 84, 108)
          for side in (1, -1) for up in (0.5, -0.5, 1, -1, 0)]  # fmt: skip
Encode = Callable[..., Mapping[str, Tensor]]
Decode = Callable[[Mapping[str, Tensor], tuple[int, int]], Tensor]


def own_file(step: str, encode: Encode, decode: Decode) -> None:
    """Write a whole model with the learner's functions, read it into an empty one, and keep what it takes and costs.

    The file has what `encode` gives for each of the 24 matrices of `tales-2.7m`, and the rest (embeddings, norms) in
    float16. The model that is read has nothing else. Its bytes are the file's; its added loss is measured on held-out
    windows, the same for every step and every learner.

    Args:
        step: what is new, as `"07 · GPTQ, 4 bits"`; a step that is made again takes the place of the last one.
        encode: `encode(weight, hessian)` gives the tensors to store by name: weight (out, in) in float32, hessian
            (in, in), the mean of x x^T over the inputs x of the layer. If it has an argument `name`, it is also told
            which matrix that is: `encode(weight, hessian, name)`, as `"blocks.0.mlp.up"`.
        decode: `decode(tensors, shape)` gives the weight back: float32 (out, in) of that shape.

    Raises:
        ValueError: If `encode` gives no tensors, or `decode` something else than a finite weight of that shape.
    """
    original, task, losses, hessians = _course()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.safetensors")
        save_file(_encoded(original, hessians, encode), path)
        size, stored = path.stat().st_size, load_file(path)
    paired = paired_difference(task.losses(_decoded(original, stored, decode)), losses)
    keep(step, OwnFile(size, paired.mean, paired.low, paired.high))


@dataclass(frozen=True)
class OwnFile:
    """Bytes of a file, and its added loss in nats per character with the ends of the 95 % interval."""

    bytes: int
    delta_nats: float
    ci_low: float
    ci_high: float


def as_stats(hessian: Tensor) -> LayerStats:
    """The statistics that `gptq` asks for, of a Hessian (in, in) as `encode` gets it, gathered from enough tokens."""
    stats = LayerStats(len(hessian), hessian.dtype)
    stats.gram, stats.tokens = hessian, TOKENS_PER_INPUT * len(hessian)
    return stats


def keep(step: str, row: OwnFile | Row) -> None:
    """Put a file that was measured on the learner's board, and say which of their other files it beats."""
    steps = records.read("own_files")
    before = {name: other for name, other in steps.items() if name != step}
    steps[step] = {key: getattr(row, key) for key in ("bytes", "delta_nats", "ci_low", "ci_high")}
    records.write("own_files", steps)
    print(f"{step}: {row.bytes:,} bytes, {row.delta_nats:+.4f} nats ({row.ci_low:+.4f} to {row.ci_high:+.4f})")
    if before:
        print(_standing(row, before))


def _standing(row: OwnFile | Row, others: Mapping[str, Mapping[str, float]]) -> str:
    """Which other files a file beats in both, bytes and loss, or which one beats it."""
    mine = row.bytes, row.delta_nats
    places = {name: (other["bytes"], other["delta_nats"]) for name, other in others.items()}
    beaten = [name for name, there in places.items() if _beats(mine, there)]
    better = [name for name, there in places.items() if _beats(there, mine)]
    if better:
        return f"your file {better[0]!r} is no larger and no worse"
    if beaten:
        return f"no larger and no worse than {len(beaten)} of your {len(places)} other files"
    return "no other file of yours beats it in both, bytes and loss"


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a file is no larger and no worse than another one, and not the same in both."""
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@functools.lru_cache(maxsize=1)
def _course() -> tuple[nn.Module, object, Tensor, dict[str, Tensor]]:
    """The model, the task that measures it, its losses, and the Hessian of each layer: worked out once in a session."""
    checkpoint = nanoq.load(MODEL)
    task = task_for(checkpoint, None, WINDOWS)
    layers = linear_layers(checkpoint.model)
    with observe(layers) as stats, torch.inference_mode():
        checkpoint.model(task.calibration(CALIBRATION))
    hessians = {name: stats[name].gram.clone() for name in layers}
    return checkpoint.model, task, task.losses(checkpoint.model), hessians


def _encoded(original: nn.Module, hessians: dict[str, Tensor], encode: Encode) -> dict[str, Tensor]:
    """Everything that the file holds."""
    layers, tensors = linear_layers(original), {}
    told = "name" in inspect.signature(encode).parameters
    for name, layer in layers.items():
        parts = encode(layer.weight.detach().clone(), hessians[name].clone(), **({"name": name} if told else {}))
        if not (isinstance(parts, Mapping) and parts and all(isinstance(part, Tensor) for part in parts.values())):
            raise ValueError(f"encode gives a dict of tensors, {{name: tensor}}, not {type(parts).__name__}")
        tensors |= {f"{name}.{key}": part.detach().clone().contiguous() for key, part in parts.items()}
    return tensors | {name: value.detach().half().contiguous() for name, value in _rest(original, layers)}


def _rest(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """The parameters that are in no linear layer."""
    inside = {id(layer.weight) for layer in layers.values()}
    return ((name, value) for name, value in model.named_parameters() if id(value) not in inside)


def _decoded(original: nn.Module, stored: dict[str, Tensor], decode: Decode) -> nn.Module:
    """A model that has nothing but what was in the file."""
    fresh = erased(original)
    layers = linear_layers(fresh)
    for name, layer in layers.items():
        parts = {key.removeprefix(f"{name}."): part for key, part in stored.items() if key.startswith(f"{name}.")}
        weight = decode(parts, tuple(layer.weight.shape))
        if not isinstance(weight, Tensor) or weight.shape != layer.weight.shape or not weight.isfinite().all():
            got = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise ValueError(f"{name}: decode gives a finite weight of shape {tuple(layer.weight.shape)}, not "
                             f"{'NaN or infinity' if got == tuple(layer.weight.shape) else got}")
        layer.weight.data = weight.detach().float()
    for name, value in _rest(fresh, layers):
        value.data = stored[name].float()
    return fresh


def _board_alt() -> str:
    steps = records.read("own_files")
    words = [f"{name}: {row['bytes'] / 1e6:.2f} MB, {row['delta_nats']:+.4f} nats" for name, row in steps.items()]
    return ("Added loss on a logarithmic axis against the size of the file: the package's files as lines, your own as "
            f"stars. {'; '.join(words) or 'You have made no file yet'}.")


@figure(_board_alt)
def own_files() -> Figure:
    """The board: the learner's files as stars, next to the package's rows for the same model of up to their size."""
    fig, axes = plt.subplots(figsize=(8, 4.6))
    mine = {step: (row["bytes"] / 1e6, row["delta_nats"]) for step, row in records.read("own_files").items()}
    package = _package(max((size for size, _ in mine.values()), default=0))
    for (method, color), marker in zip(_colors(package).items(), "osD", strict=True):
        x, y = zip(*(place for name, place in package if name == method), strict=True)
        axes.plot(x, y, color=color, marker=marker, ms=4, lw=1.2, label=f"package: {method}")
    axes.set(xlabel="size of the file (MB)", ylabel="added loss (nats per character)",
             title="Your files, and the package's")  # fmt: skip
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.margins(0.12)
    for place in mine.values():
        axes.plot(*place, "*", ms=13, color=COLORS["black"])
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    _label(axes, mine, [place for _, place in package])
    return fig


def _package(largest: float) -> list[tuple[str, tuple[float, float]]]:
    """Method, and MB and added nats, of the package's files: those of up to 4 bits, and all up to `largest`."""
    rows = [row for row in read_results("tales/leaderboard") if row["method"] not in ("float32", "float16")]
    places = [(row["method"], int(row["bits"]), float(row["bytes"]) / 1e6, float(row["delta_nats"])) for row in rows]
    return [(method, (size, loss)) for method, bits, size, loss in places if bits <= 4 or size <= largest]


def _label(axes: Axes, stars: Mapping[str, tuple[float, float]], points: Sequence[tuple[float, float]]) -> None:
    """Write the name beside each star, at the nearest place where it covers no star, no point and no other name."""
    axes.figure.canvas.draw()  # the axes have their ends now
    taken = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8)
             for x, y in axes.transData.transform([*stars.values(), *points])]
    for step, at in sorted(stars.items(), key=lambda item: item[1]):
        for place in PLACES:
            label = axes.annotate(step, at, textcoords="offset points", xytext=place, fontsize=9, va="center",
                                  ha="left" if place[0] > 0 else "right",
                                  arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.8})
            label.update_positions(axes.figure.canvas.get_renderer())
            box = Text.get_window_extent(label).padded(2)  # without the line to the star
            if not any(box.overlaps(other) for other in taken) and axes.bbox.contains(*box.min) and (
                    axes.bbox.contains(*box.max)):
                break
            if place is not PLACES[-1]:
                label.remove()
        taken.append(box)


def _colors(rows: Sequence[tuple[str, tuple[float, float]]]) -> dict[str, str]:
    methods = dict.fromkeys(method for method, _ in rows)
    return dict(zip(methods, (COLORS["blue"], COLORS["vermillion"], COLORS["green"]), strict=True))
