"""Grids: which values the weights of a matrix may take.

A `Grid` says where a weight can go; a rounding method (`nearest`, `gptq`) says where each one goes. Any method takes
any grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nanoq.numbers.blocks import BlockFormat, PackedScales, nearest_code

GRANULARITIES = ("tensor", "channel", "group")
HALF = torch.finfo(torch.float16)


@dataclass(frozen=True)
class Grid:
    """The values scale * (code - zero_point) for codes 0..levels-1, or scale * codebook[code].

    A row of a weight matrix belongs to one output channel. `group_size` neighbouring columns share a scale; the last
    group may be shorter. A grid with one group fits any number of columns.

    Attributes:
        bits: width of a packed code.
        levels: number of codes in use, at most 2**bits; a symmetric grid leaves one idle, a codebook some.
        scale: (rows, groups) or (1, 1), positive.
        group_size: columns in a group.
        zero_point: the code of the value 0, a whole number, in the shape of `scale`; None where it is the middle code
            of a symmetric grid, or there is a codebook.
        codebook: (levels,), ascending; None for evenly spaced values.
        packed_scale: what `scale` was decoded from, where the file keeps it in 8 bits.
        threshold: of a ternary grid, in the shape of `scale`: `encode` makes 0 of what is no larger. None where that is
            half a scale, which is to say that `encode` goes to the nearest value.
        coded: whether a file keeps the codes entropy-coded.
    """

    bits: int
    levels: int
    scale: Tensor
    group_size: int
    zero_point: Tensor | None = None
    codebook: Tensor | None = None
    packed_scale: PackedScales | None = None
    threshold: Tensor | None = None
    coded: bool = False

    def encode(self, values: Tensor) -> Tensor:
        """Codes of the nearest grid values: float (rows, columns) -> whole numbers of the same type and shape."""
        if self.threshold is not None:
            return values.sign() * (values.abs() > self.over_columns(self.threshold, values)) + self._middle
        units = values / self.over_columns(self.scale, values)
        if self.codebook is not None:
            return nearest_code(units, self.codebook).to(values.dtype)
        return units.round_().add_(self._zero_code(values)).clamp_(0, self.levels - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Values of codes: whole numbers (rows, columns) -> float (rows, columns)."""
        if self.codebook is not None:
            units = self.codebook[codes.long()]
        else:
            units = codes.to(self.scale.dtype) - self._zero_code(codes)  # uint8 codes would wrap around below 0
        return units * self.over_columns(self.scale, codes)

    def neighbours(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of the grid values on both sides: float (rows, columns) -> the lower ones and the upper ones.

        A grid value has itself and the next one above. Outside the grid both are its end.
        """
        units = values / self.over_columns(self.scale, values)
        if self.codebook is not None:
            below = torch.searchsorted(self.codebook, units.contiguous(), right=True).sub_(1).to(values.dtype)
        else:
            below = units.floor_().add_(self._zero_code(values))
        return below.clamp(0, self.levels - 1), (below + 1).clamp_(0, self.levels - 1)

    def check_fits(self, weight: Tensor) -> None:
        """Raise a ValueError unless this can be the grid of a weight (out, in)."""
        if len(self.scale) not in (1, len(weight)):
            raise ValueError(f"a grid of {len(self.scale)} rows does not fit a weight of shape {tuple(weight.shape)}")

    @property
    def zero_codes(self) -> Tensor:
        """The code of the value 0, whether it is stored or the middle one: in the shape of `scale`."""
        return torch.full_like(self.scale, self._middle) if self.zero_point is None else self.zero_point

    @property
    def _middle(self) -> int:
        return (self.levels - 1) // 2

    def _zero_code(self, like: Tensor) -> Tensor | int:
        return self._middle if self.zero_point is None else self.over_columns(self.zero_point, like)

    def over_columns(self, values: Tensor, like: Tensor) -> Tensor:
        """Stretch a value for each group (rows, groups) to one for each column of `like`."""
        if values.shape[1] == 1:
            return values
        return values.repeat_interleave(self.group_size, dim=1)[:, : like.shape[1]]


def affine_grid(
    weight: Tensor, bits: int, *, symmetric: bool = False, granularity: str = "channel",
    group_size: int | None = None, search: str = "minmax",
) -> Grid:
    """Evenly spaced values that cover each row, group or the whole of a weight matrix.

    Asymmetric: 2**bits values from min(w, 0) to max(w, 0), so that 0 is always one of them (Jacob et al. 2018,
    section 2.1). Symmetric: the 2**bits - 1 values -m..m with m = 2**(bits-1) - 1 steps up to max|w|, which at 2 bits
    is the naive ternary grid. Scales are rounded to float16 before anything is rounded on them, because that is how
    they are stored; only a matrix with scales outside float16's normal range keeps float32.

    Args:
        weight: (out, in), finite.
        bits: 2 to 8.
        symmetric: whether the values lie evenly on both sides of 0.
        granularity: "tensor", "channel" (a scale for each row) or "group" (one for each `group_size` columns of a row).
        group_size: columns in a group; for granularity "group" only.
        search: "minmax" covers every weight; "mse" shrinks the range by the 0 to 80 % that gives the least squared
            error, and clips what then lies outside. That has less error in the layer, and with GPTQ at 2 and 3 bits
            more in the model, as outputs shrink layer after layer: see `nanoq.quant.rounding.unit_gain`.

    Raises:
        ValueError: if an argument is out of its range or the weight holds NaN or infinity.
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits must be in 2..8, not {bits!r}")
    if search not in ("minmax", "mse"):
        raise ValueError(f"search must be 'minmax' or 'mse', not {search!r}")
    parts, group_size = split_groups(weight, granularity, group_size)
    low, high = [], []
    for part in parts:
        ends = covering_range(part, symmetric)
        if search == "mse":
            ends = _shrink(part, *ends, bits, symmetric)
        low.append(ends[0])
        high.append(ends[1])
    return evenly_spaced(torch.cat(low, dim=1), torch.cat(high, dim=1), bits, symmetric, group_size)


def block_grid(fmt: BlockFormat, weight: Tensor, bits: int) -> Grid:
    """The values of a block format, such as MXFP4 or NF4: a codebook, and a scale for each block of columns.

    Args:
        fmt: one of `nanoq.numbers.BLOCKS`.
        weight: (out, in), finite.
        bits: those of the format; recipes name the bits of every layer.

    Raises:
        ValueError: if the format has other bits, or the weight holds NaN or infinity.
    """
    check_weight(weight)
    if bits != fmt.bits:
        raise ValueError(f"{fmt.name} has {fmt.bits} bits, not {bits!r}")
    scale, packed = fmt.scales(plain(weight))
    codebook = fmt.codebook.to(weight.device)
    return Grid(bits, len(codebook), scale, min(fmt.block, weight.shape[1]), codebook=codebook, packed_scale=packed)


def check_weight(weight: Tensor) -> None:
    """Raise a ValueError unless this is a weight matrix (out, in) of finite floats."""
    if weight.dim() != 2 or not weight.numel():
        raise ValueError(f"a weight matrix (out, in) is needed, not a tensor of shape {tuple(weight.shape)}")
    if not weight.is_floating_point():
        raise ValueError(f"a weight of floating-point numbers is needed, not of {weight.dtype}")
    if not weight.isfinite().all():
        raise ValueError("the weight holds NaN or infinity; no grid covers that")


def plain(weight: Tensor) -> Tensor:
    """A weight as grids are made of it: without a gradient, and in float32 where half precision would overflow."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


def split_groups(weight: Tensor, granularity: str, group_size: int | None) -> tuple[tuple[Tensor, ...], int]:
    """The parts of a weight (out, in) whose rows share a scale each, (rows, columns), and the columns of a group.

    Raises:
        ValueError: if granularity and group size do not go together, or the weight holds NaN or infinity.
    """
    check_weight(weight)
    weight = plain(weight)
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity must be one of {', '.join(GRANULARITIES)}, not {granularity!r}")
    if (granularity == "group") != (group_size is not None):
        raise ValueError("group_size goes with granularity 'group', and only with it")
    if group_size is not None and (not isinstance(group_size, int) or group_size < 1):
        raise ValueError(f"group_size must be a whole number of at least 1, not {group_size!r}")
    if granularity == "tensor":
        return (weight.reshape(1, -1),), weight.shape[1]
    group_size = min(group_size or weight.shape[1], weight.shape[1])
    return weight.split(group_size, dim=1), group_size


def covering_range(part: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The ends (rows, 1) of the interval that covers 0 and each row of `part` (rows, columns)."""
    low, high = part.amin(1, keepdim=True).clamp(max=0), part.amax(1, keepdim=True).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    return low, high


def _shrink(part: Tensor, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """For each row the share of its range, 1.00 to 0.20, whose grid has the least squared rounding error."""
    best, best_error = torch.ones_like(low), torch.full_like(low, torch.inf)
    for share in torch.linspace(1, 0.2, 81).tolist():
        grid = evenly_spaced(low * share, high * share, bits, symmetric, part.shape[1])
        error = (grid.decode(grid.encode(part)) - part).square().sum(1, keepdim=True)
        best = torch.where(error < best_error, share, best)
        best_error = torch.minimum(error, best_error)
    return low * best, high * best


def evenly_spaced(
    low: Tensor, high: Tensor, bits: int, symmetric: bool, group_size: int, stored: bool = True
) -> Grid:
    """The evenly spaced grid from low to high (rows, groups), moved so that 0 is one of its values.

    A group of zeros has scale 1. `stored` rounds the scales to what a file keeps of them.
    """
    levels = 2**bits - 1 if symmetric else 2**bits
    scale = (high - low) / (levels - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    if stored:
        scale = storable(scale)
    zero_point = None if symmetric else (-low / scale).round().clamp(0, levels - 1)
    return Grid(bits, levels, scale, group_size, zero_point)


def storable(scale: Tensor) -> Tensor:
    """Positive scales rounded to float16 where its normal range holds them all.

    Raises:
        ValueError: if they are infinite, or no numbers.
    """
    if not scale.isfinite().all():
        raise ValueError(f"the weights are too large: what a grid computes of them is more than {scale.dtype} holds")
    if scale.min() < HALF.smallest_normal or scale.max() > HALF.max:
        return scale
    return scale.half().to(scale.dtype)
