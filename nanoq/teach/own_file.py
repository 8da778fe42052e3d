"""The learner's own model file, which gets better from notebook to notebook, and the board that keeps its progress."""

import functools
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nanoq
from nanoq.files import read_results
from nanoq.lm.evaluate import paired_difference
from nanoq.quant import linear_layers, observe
from nanoq.tasks import task_for
from nanoq.teach import records
from nanoq.teach.capstone import MODEL, erased
from nanoq.teach.leaderboard import Row
from nanoq.teach.plots import COLORS, figure

WINDOWS, CALIBRATION = 32, 64  # held-out windows, and those from which the Hessians are gathered
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


def keep(step: str, row: OwnFile | Row) -> None:
    """Put a file that was measured on the learner's board, and say which of their other files it beats."""
    steps = records.read("own_files")
    before = [other for name, other in steps.items() if name != step]
    steps[step] = {key: getattr(row, key) for key in ("bytes", "delta_nats", "ci_low", "ci_high")}
    records.write("own_files", steps)
    print(f"{step}: {row.bytes:,} bytes, {row.delta_nats:+.4f} nats ({row.ci_low:+.4f} to {row.ci_high:+.4f})")
    beaten = sum(other["bytes"] >= row.bytes and other["delta_nats"] >= row.delta_nats for other in before)
    if before:
        print(f"no larger and no worse than {beaten} of your {len(before)} other files")


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
    """The board: the learner's files as stars, next to the package's rows for the same model."""
    fig, axes = plt.subplots(figsize=(7, 4.2))
    package = [row for row in read_results("tales/leaderboard") if row["method"] not in ("float32", "float16")]
    for (method, color), marker in zip(_colors(package).items(), "osD", strict=True):
        mine = [row for row in package if row["method"] == method]
        x, y = ([float(row[key]) for row in mine] for key in ("bytes", "delta_nats"))
        axes.plot([size / 1e6 for size in x], y, color=color, marker=marker, ms=4, lw=1.2, label=f"package: {method}")
    for place, (step, row) in enumerate(records.read("own_files").items()):
        at = row["bytes"] / 1e6, row["delta_nats"]
        axes.plot(*at, "*", ms=15, color=COLORS["black"])
        # above or below in turn: two files of one notebook are often neighbours
        axes.annotate(step, at, textcoords="offset points", xytext=(8, -12 if place % 2 else 6))
    axes.set(xlabel="size of the file (MB)", ylabel="added loss (nats per character)",
             title="Your files, and the package's")  # fmt: skip
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.legend()
    return fig


def _colors(rows: list[dict]) -> dict[str, str]:
    methods = dict.fromkeys(row["method"] for row in rows)
    return dict(zip(methods, (COLORS["blue"], COLORS["vermillion"], COLORS["green"]), strict=True))
