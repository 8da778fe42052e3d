"""What notebook 09 uses and does not teach: GPTQ on a grid without ends, codewords and their bytes, a board."""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from nanoq.files import read_results
from nanoq.lm import Corpus
from nanoq.quant import (
    Grid,
    HadamardLinear,
    RandomHadamard,
    Recipe,
    affine_grid,
    entropy_code,
    gptq,
    linear_layers,
    plant_outliers,
    quantize_model,
    smoothquant,
)
from nanoq.store import Checkpoint
from nanoq.teach.leaderboard import Leaderboard, Row
from nanoq.teach.own_file import as_stats

DAMPING = 0.01  # the share of `gptq`
ENDS = 2**15 - 1  # no code comes near it


def gptq_codes(weight: Tensor, hessian: Tensor, bits: int) -> Tensor:
    """GPTQ's codes with one grid per row, counted from each row's zero point: int64 (out, in)."""
    grid = affine_grid(weight, bits)
    return gptq(weight, grid, as_stats(hessian)) - grid.zero_point.long()


def gptq_values(weight: Tensor, hessian: Tensor, bits: int) -> Tensor:
    """What GPTQ makes of a weight with one grid per row: float32 (out, in)."""
    grid = affine_grid(weight, bits)
    return grid.decode(gptq(weight, grid, as_stats(hessian)))


def walk(weight: Tensor, hessian: Tensor, steps: float | Tensor) -> Tensor:
    """GPTQ on all whole numbers times a step, or times the steps (in,) of the columns: int64 (out, in).

    Raises:
        ValueError: as `gptq`, or if a step is not above 0.
    """
    scale = torch.as_tensor(steps, dtype=weight.dtype).reshape(1, -1)
    if not (scale > 0).all():
        raise ValueError(f"a step is above 0, not {float(scale.min()):g}")
    grid = Grid(16, 2 * ENDS + 1, scale, len(hessian) // scale.shape[1])
    return gptq(weight, grid, as_stats(hessian), damping=DAMPING) - ENDS


def factor_of(hessian: Tensor) -> Tensor:
    """GPTQ's factor C of the damped Hessian, H = C C^T: float64 (in, in), upper triangular."""
    return torch.linalg.cholesky(as_stats(hessian).damped(DAMPING).double().flip(0, 1)).flip(0, 1)


def row_error(weight: Tensor, rounded: Tensor, factor: Tensor) -> float:
    """Mean squared error of one output: the squares of (W - Q) C, summed over a row, in the mean over rows."""
    return float(((weight - rounded).double() @ factor).square().sum() / len(weight))


# ---- codewords ----


def codewords(lengths: Mapping[int, int]) -> dict[int, str]:
    """The canonical prefix code of lengths: short words first, each the next number."""
    words, number, before = {}, 0, 0
    for length, code in sorted((length, code) for code, length in lengths.items()):
        number <<= length - before
        words[code] = f"{number:0{length}b}"
        number, before = number + 1, length
    return words


def counts_of(codes: Tensor) -> dict[int, int]:
    """How often each code occurs."""
    values, counts = torch.unique(codes, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def to_bits(codes: Tensor, words: Mapping[int, str]) -> str:
    """The codewords of all codes, one after the other."""
    return "".join(map(words.__getitem__, codes.flatten().tolist()))


def pack_bits(bits: str) -> Tensor:
    """Eight bits to a byte, the last byte filled up with zeros: uint8 (bytes,)."""
    return torch.from_numpy(np.packbits(np.frombuffer(bits.encode(), np.uint8) - ord("0")))


def unpack_bits(stored: Tensor) -> str:
    """The bits of bytes."""
    return (np.unpackbits(stored.numpy()) + ord("0")).tobytes().decode()


# ---- the board ----


class Board:
    """Quantised copies of a model on a leaderboard, with the bits above the bound of their layers.

    Attributes:
        leaderboard: where they are measured.
        above: by method the bits above the bound of all layers.
        models: by method the last one.
    """

    def __init__(self, checkpoint: Checkpoint, corpus: Corpus, windows: int | None, calibration: int):
        self.leaderboard = Leaderboard(checkpoint, corpus, windows)
        self.calibration = self.leaderboard.calibration[:calibration]
        self.above: dict[str, list[float]] = {}
        self.models: dict[str, Checkpoint] = {}

    def measure(self, method: str, width: float, rounding: str = "gptq", **options) -> Row:
        """Quantise a copy by a `Recipe` with these options, and add it."""
        copy = deepcopy(self.leaderboard.reference)
        copy.reports = quantize_model(copy.model, Recipe(rounding, **options), self.calibration, bound=True)
        self.above[method] = [report.bits_above_bound for report in copy.reports]
        self.models[method] = copy
        return self.leaderboard.add_saved(method, width, copy)

    def recode(self, method: str, width: float) -> Row:
        """The last model of a method once more, its codes entropy-coded."""
        copy = deepcopy(self.models[method])
        entropy_code(copy.model)
        return self.leaderboard.add_saved(f"{method}, recoded", width, copy)


def shipped(method: str, bits: int) -> dict[str, float]:
    """Bytes and added loss of a row of data/results/tales/leaderboard.csv."""
    (row,) = (row for row in read_results("tales/leaderboard") if (row["method"], row["bits"]) == (method, str(bits)))
    return {key: float(row[key]) for key in ("bytes", "delta_nats")}


# ---- outliers ----


def turn_inputs(model: nn.Module, seed: int = 0) -> None:
    """Turn the input of every layer by a Hadamard matrix of its own, in every call, and the weights back: in place."""
    generator = torch.Generator().manual_seed(seed)
    for name, layer in linear_layers(model).items():
        turn = RandomHadamard.draw(layer.in_features, generator)
        model.set_submodule(name, HadamardLinear.turned(layer, turn))


def with_outliers(board: Leaderboard) -> dict[str, nn.Module]:
    """The model of a leaderboard, with outlier channels planted, and with a remedy for them."""
    models = {"as trained": deepcopy(board.reference.model)}
    for way in ("planted", "planted, turned", "planted, SmoothQuant"):
        models[way] = deepcopy(board.reference.model)
        plant_outliers(models[way])
    turn_inputs(models["planted, turned"])
    smoothquant(models["planted, SmoothQuant"], board.calibration)
    return models
