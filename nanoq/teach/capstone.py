"""The check of notebook 04's capstone: 24 matrices in a file of 4 bits per weight, written and read by the learner."""

import functools
import math
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nanoq
from nanoq.quant import affine_grid, linear_layers, nearest, pack, unpack
from nanoq.tasks import task_for
from nanoq.teach.checks import Remark, attempt

MODEL, BITS, WINDOWS = "tales-2.7m", 4, 16
MAX_BYTES, TOLERANCE = 1_400_000, 0.0005  # of the file; nats of added loss beyond the package's
REASONS = {  # from so many bits per weight on
    60: "Are the codes int64? Pack two into each byte.",
    30: "These are 32-bit numbers: store the codes, packed, not the values.",
    14: "These are 16-bit numbers: store the codes, packed, not the values.",
    7.9: "That is a whole byte for each code: pack two into each.",
    0: "Codes may be packed, but what else is there? A scale takes two bytes (float16), a zero point one (uint8).",
}


def erased(model: nn.Module) -> nn.Module:
    """Return a copy of a model without the weights of its linear layers: all of them are NaN."""
    fresh = deepcopy(model).requires_grad_(False)
    for layer in linear_layers(fresh).values():
        layer.weight.fill_(math.nan)
    return fresh


def produce(answer: object) -> dict | str | None:
    """What the functions `write(model, path)` and `read(model, path)` do, as plain data; None if not attempted.

    Returns:
        What is wrong, in words, where there is nothing to judge; else the file as bytes, or only its size if it is too
        large, and then: a layer that `write` has changed (`changed`), what `read` raises (`raised`) or whether it is
        still a stub (`unread`), and all parameters afterwards by name (`weights`).
    """
    if not (isinstance(answer, (tuple, list)) and len(answer) == 2 and all(map(callable, answer))):
        return 'two functions are wanted: check("04.capstone", (write, read))'
    write, read = answer
    original = nanoq.load(MODEL).model
    given, fresh = deepcopy(original), erased(original)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.bin")
        returned, problem = attempt(write, "write(model, path)", given, path)
        if problem:
            return problem
        if not path.is_file():
            return None if returned is ... and not path.exists() else (
                "write(model, path) leaves no file at path: use the path that it is given, as it is")
        size = path.stat().st_size
        if size > MAX_BYTES:
            return {"size": size}
        file, mine = path.read_bytes(), _parameters(given)
        changed = next((name for name, weight, after in _pairs(original, mine) if not torch.equal(weight, after)), None)
        returned, problem = attempt(read, "read(model, path)", fresh, path)
    return {"file": file, "changed": changed, "raised": problem, "unread": returned is ...,
            "weights": _parameters(fresh)}


def diagnose(produced: dict | str) -> str | None:
    """Judge what `produce` gives: None, or a remark, if right.

    The file may have `MAX_BYTES`, and the model that is read from it `TOLERANCE` nats more loss than the package's own
    rounding to nearest adds at 4 bits, on the same windows. What is wrong is said of the earliest step that is.
    """
    if isinstance(produced, str):
        return produced
    if problem := _file_problem(produced["size"] if "size" in produced else len(produced["file"])):
        return problem
    if changed := produced["changed"]:
        return f"write changes the model that it is given ({changed}): leave it as it was"
    original, weights = _course()[0], produced["weights"]
    blank = all(mine.isnan().all() for _, _, mine in _pairs(original, weights))
    if produced["unread"] and not produced["raised"] and blank:
        return f"write works, its file has {len(produced['file']) / 1e6:.2f} MB; read is not written yet"
    return (produced["raised"] or _weights_problem(original, weights) or _loss_problem(original, weights)
            or _remark(original, weights))


@functools.lru_cache(maxsize=1)
def _course() -> tuple[nn.Module, object, tuple[float, float]]:
    """The model, the task that measures it, and its loss and the package's at 4 bits: read once in a session."""
    checkpoint = nanoq.load(MODEL)
    task = task_for(checkpoint, None, WINDOWS)
    rounded = deepcopy(checkpoint.model)
    with torch.no_grad():
        for layer in linear_layers(rounded).values():
            layer.weight.copy_(_rounded(layer.weight)[0])
    losses = [float(task.losses(model).mean()) for model in (checkpoint.model, rounded)]
    return checkpoint.model, task, tuple(losses)


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the package makes of a matrix (out, in): values, and scales and zero points (out, 1)."""
    grid = affine_grid(weight.detach(), BITS)
    return grid.decode(nearest(weight.detach(), grid)), grid.scale, grid.zero_point


def _file_problem(size: int) -> str | None:
    if size <= MAX_BYTES:
        return None
    bits = 8 * size / sum(layer.weight.numel() for layer in linear_layers(_course()[0]).values())
    reason = next(words for least, words in REASONS.items() if bits >= least)
    return (f"the file has {size / 1e6:.2f} MB, {bits:.1f} bits per weight; {MAX_BYTES / 1e6:.2f} MB are allowed. "
            f"{reason}")


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """All parameters by name; the weights of linear layers even where they are none any more."""
    weights = {f"{name}.weight": layer.weight for name, layer in linear_layers(model).items()}
    return {name: value.detach() for name, value in (dict(model.named_parameters()) | weights).items()}


def _pairs(original: nn.Module, others: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name and both weights (out, in) of each layer."""
    for name, layer in linear_layers(original).items():
        yield name, layer.weight.detach(), others[f"{name}.weight"]


def _weights_problem(original: nn.Module, read: dict[str, Tensor]) -> str | None:
    """What is not even a set of weights."""
    empty = [name for name, _, mine in _pairs(original, read) if mine.isnan().any()]
    if empty:
        more = f" and in {len(empty) - 1} more matrices" * (len(empty) > 1)
        return f"after read(model, path) there is still NaN in {empty[0]}{more}: fill the model that read is given"
    for name, weight, mine in _pairs(original, read):
        if mine.shape != weight.shape:
            return f"{name} has the shape {tuple(mine.shape)} after read, and should have {tuple(weight.shape)}"
        if mine.dtype != torch.float32:
            return f"{name} is {mine.dtype} after read; the model computes in float32: .float()"
        if torch.equal(mine, weight):
            return f"{name} has its original weights after read: these cannot come from 4-bit codes"
    return None


def _loss_problem(original: nn.Module, read: dict[str, Tensor]) -> str | None:
    _, task, (loss, rounded) = _course()
    model = deepcopy(original)
    for name, parameter in model.named_parameters():
        parameter.data = read[name]
    mine = float(task.losses(model).mean())
    if mine <= rounded + TOLERANCE:
        return None
    known = next((words for name, weight, got in _pairs(original, read) if (words := _known(name, weight, got))), None)
    if known:
        return known
    ratios = {name: float((got - weight).square().sum() / (_rounded(weight)[0] - weight).square().sum())
              for name, weight, got in _pairs(original, read)}  # fmt: skip
    name = max(ratios, key=ratios.get)
    off = sum(ratio > 1.5 for ratio in ratios.values())
    every = "in every layer" if off == len(ratios) else f"in {off} of {len(ratios)} layers"
    if not off:
        return (f"{mine - loss:+.4f} nats of added loss; the package adds {rounded - loss:+.4f}, and no layer is far "
                "off. Look at the grids: 2**bits codes have 2**bits - 1 gaps, and a zero point is a whole number.")
    guess = ""
    if all(3 < ratio < 6.5 for ratio in ratios.values()):
        guess = " Four to five times as much is what rounding down costs, or one bit too few."
    elif min(ratios.values()) > 20:
        guess = " Is the zero point added in write and taken off in read?"
    return (f"{mine - loss:+.4f} nats of added loss; the package adds {rounded - loss:+.4f}. The squared error of the "
            f"weights is too large {every}; furthest off is {name}, {ratios[name]:.1f} times the package's.{guess}")


def _known(name: str, weight: Tensor, got: Tensor) -> str | None:
    """A fault that shows in how the weights differ from what they should be."""
    right, scale, zero_point = _rounded(weight)
    steps = (got - right) / scale  # (out, in)
    swapped = right.unflatten(1, (-1, 2)).flip(2).flatten(1)
    if ((got - swapped).abs() < scale / 10).all():
        return f"in {name} every two neighbours have changed places: which half of a byte is the first code?"
    if ((steps - zero_point).abs() < 0.1).all():
        return f"{name} is too large by the zero point in every row: take it off the codes before you multiply"
    if (steps.abs() > 200).any() and ((steps / 256 - (steps / 256).round()).abs() < 0.01).all():
        return f"in {name} some weights are 256 steps off: codes minus zero points wrap round in uint8"
    if (got >= 0).all() and (weight < 0).any():
        return (f"{name} has no negative weight left: without a zero point their codes are below 0. Add it in write, "
                "and take it off in read")
    if len(got.unique()) <= 2**BITS:
        return f"all of {name} has one grid: give each row a scale and a zero point of its own"
    return None


def _remark(original: nn.Module, read: dict[str, Tensor]) -> Remark | None:
    """What a file that is small and good enough could still do better: scales in float16, rounded in time."""
    found = [_scales(weight, got) for _, weight, got in _pairs(original, read)]
    if all(kind == "float32" for kind in found):
        return Remark("your scales are 32-bit numbers, though: float16 scales take half the bytes, and lose nothing")
    if all(kind in ("late", "float16") for kind in found) and "late" in found:
        return Remark("your scales were rounded to float16 after they had made the codes, though, so that some weights "
                      "have not the nearest value: round first")
    return None


def _scales(weight: Tensor, got: Tensor) -> str:
    """Whether a matrix (out, in) was read with scales in float16 or in float32; or in float16, rounded too late."""
    right, scale, _ = _rounded(weight)
    span = got.amax(1, keepdim=True) - got.amin(1, keepdim=True)
    step = span / (span / scale).round().clamp(min=1)  # (out, 1): the scale that got was made with
    if not ((step / scale - 1).abs() < 1e-3).all():
        return "other"
    if ((step.half().float() / step - 1).abs() > 1e-5).float().mean() > 0.5:
        return "float32"
    other, error = (got - right).abs() > step / 2, (got - weight).abs() / step
    return "late" if (other & (error > 0.5002) & (error < 0.51)).any() else "float16"


# ---- the course's own answer, and wrong ones: each differs from it in what is handed over ----


def _row_grid(weight: Tensor) -> tuple[Tensor, Tensor]:
    grid = affine_grid(weight, BITS)
    return grid.scale, grid.zero_point


def late_grid(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and zero points of the rows, (out, 1) both, the scales not yet rounded to float16."""
    low, high = weight.amin(1, keepdim=True).clamp(max=0), weight.amax(1, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**BITS - 1)
    return scale, torch.round(-low / scale)


def grid_from_zero(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales of the rows, and zeros in place of their zero points: (out, 1) both."""
    scale, zero_point = _row_grid(weight)
    return scale, torch.zeros_like(zero_point)


def matrix_grid(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point of one grid for the whole matrix, for each row: (out, 1) both."""
    grid = affine_grid(weight, BITS, granularity="tensor")
    rows = torch.ones(len(weight), 1)
    return rows * grid.scale, rows * grid.zero_point


def _packed(codes: Tensor) -> Tensor:
    return pack(codes, BITS)


def _unpacked(stored: Tensor) -> Tensor:
    return unpack(stored, BITS, 2 * len(stored))


def round_trip(
    row_grid: Callable = _row_grid, packed: Callable = _packed, unpacked: Callable = _unpacked,
    values: Callable = lambda codes, scale, zero_point: scale * (codes.float() - zero_point.float()),
    wanted: Callable = lambda name: True,
) -> tuple[Callable, Callable]:
    """Return functions `write(model, path)` and `read(model, path)` made of these parts."""

    def write(model: nn.Module, path: Path) -> None:
        tensors = {}
        for name, layer in linear_layers(model).items():
            weight = layer.weight.detach()
            scale, zero_point = row_grid(weight)
            codes = (torch.round(weight / scale) + zero_point).clamp(0, 2**BITS - 1)
            tensors |= {f"{name}.codes": packed(codes.long().flatten()), f"{name}.scale": scale.half(),
                        f"{name}.zero_point": zero_point.to(torch.uint8)}  # fmt: skip
        save_file(tensors, path)

    def read(model: nn.Module, path: Path) -> None:
        tensors = load_file(path)
        for name, layer in linear_layers(model).items():
            if wanted(name):
                codes = unpacked(tensors[f"{name}.codes"]).view(layer.weight.shape)
                scale, zero_point = tensors[f"{name}.scale"].float(), tensors[f"{name}.zero_point"]
                layer.weight.data = values(codes, scale, zero_point)

    return write, read
