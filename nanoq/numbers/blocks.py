"""Block formats: few bits for each number, and one small scale for a block of neighbours.

MXFP4 and MXFP8 are those of the OCP Microscaling specification 1.0 (2023, sections 5.2 and 6.3), NVFP4 that of NVIDIA's
Blackwell GPUs, NF4 that of QLoRA (Dettmers et al. 2023, arXiv 2305.14314, section 3 and appendix E).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nanoq.numbers.floats import FLOATS

SCALES_PER_COARSE = 256  # of double quantisation


def normal_float(bits: int = 4) -> Tensor:
    """The 2**bits values of NormalFloat, -1 to 1 and ascending: quantiles of the normal distribution, float32.

    0 has to be one of them, so that there is one quantile less below it than above.
    """
    levels = 2**bits
    last = 1 - (1 / (2 * levels) + 1 / (2 * levels - 2)) / 2  # quantile 1 itself would lie at infinity
    above = torch.special.ndtri(torch.linspace(0.5, last, levels // 2 + 1, dtype=torch.float64))
    below = torch.special.ndtri(torch.linspace(1 - last, 0.5, levels // 2, dtype=torch.float64))
    return (torch.cat((below[:-1], above)) / above[-1]).float()


def _finite_values(name: str) -> Tensor:
    values = FLOATS[name].values()
    return values[values.isfinite()].unique().float()  # ascending; -0 and 0 are one


# The element types of OCP's formats, whether one of `BLOCKS` uses them or not, and NormalFloat.
CODEBOOKS = {name: _finite_values(name) for name in ("e2m1", "e3m2", "e2m3", "e4m3fn", "e5m2")} | {
    "nf4": normal_float()}


def nearest_code(units: Tensor, codebook: Tensor) -> Tensor:
    """The place in an ascending codebook of the value nearest to each number: int64.

    A number half-way goes to the value that is an even number of places from 0, which for the floating-point
    codebooks is IEEE's rule.
    """
    middles = ((codebook[1:] + codebook[:-1]) / 2).to(units.dtype)
    lower, upper = torch.bucketize(units, middles), torch.bucketize(units, middles, right=True)
    zero = int((codebook < 0).sum())
    return torch.where((lower - zero) % 2 == 0, lower, upper)


@dataclass(frozen=True)
class PackedScales:
    """Scales kept in 8 bits: value of the code * coarse + offset.

    Attributes:
        format: a name in `FLOATS`.
        codes: patterns of that format, uint8 (rows, blocks).
        coarse: float32 (n,), one for each `SCALES_PER_COARSE` codes in reading order, or one for all; None for 1.
        offset: float32 (1,); None for 0.
    """

    format: str
    codes: Tensor
    coarse: Tensor | None = None
    offset: Tensor | None = None

    def decode(self) -> Tensor:
        """The scales: positive float32 (rows, blocks)."""
        scale = FLOATS[self.format].decode(self.codes).float()
        if self.coarse is not None:
            per_coarse = SCALES_PER_COARSE if len(self.coarse) > 1 else scale.numel()
            each = self.coarse.repeat_interleave(per_coarse)[: scale.numel()]
            scale = scale * each.view_as(scale)
        if self.offset is not None:
            scale = (scale + self.offset).clamp(min=torch.finfo(torch.float32).tiny)
        return scale


def absmax_scales(largest: Tensor, top: float) -> Tensor:
    """Scales (rows, blocks) in float32 that take the largest number of each block to the largest value, `top`."""
    scales = largest / top
    return torch.where(scales > 0, scales, 1)


def power_scales(largest: Tensor, top: float) -> PackedScales:
    """Powers of two that take the largest number of a block to the binade of `top` (OCP MX, section 6.3).

    Where it lands between `top` and the binade's end, it saturates.
    """
    exponent = torch.where(largest > 0, largest, 1).frexp().exponent - math.frexp(top)[1]
    return PackedScales("e8m0", (exponent + FLOATS["e8m0"].bias).clamp(0, 254).to(torch.uint8))


def fp8_scales(largest: Tensor, top: float) -> PackedScales:
    """Scales in e4m3 over one float32 scale of the whole matrix, which takes the largest of them to 448 (NVFP4)."""
    fmt = FLOATS["e4m3fn"]
    coarse = absmax_scales(largest.max().view(1), top * fmt.max)
    codes = fmt.encode(largest / (top * coarse), saturate=True).clamp(min=1)  # a scale of 0 could not be divided by
    return PackedScales("e4m3fn", codes.to(torch.uint8), coarse)


def double_scales(largest: Tensor, top: float) -> PackedScales:
    """`absmax_scales`, their mean taken off, quantised once more: e4m3 with a float32 scale for 256 of them.

    That is for matrices whose blocks are alike. A scale far below the mean is less than a step of the second
    quantisation, and lost; then there is a warning.
    """
    fmt, used = FLOATS["e4m3fn"], largest > 0
    scales = absmax_scales(largest, top)
    offset = scales[used].double().mean().float().view(1) if used.any() else scales.new_ones(1)  # no float32 overflow
    rest = torch.where(used, scales - offset, 0)
    rest = F.pad(rest.flatten(), (0, -rest.numel() % SCALES_PER_COARSE)).view(-1, SCALES_PER_COARSE)
    coarse = absmax_scales(rest.abs().amax(1, keepdim=True), fmt.max)
    codes = fmt.encode(rest / coarse, saturate=True).flatten()[: scales.numel()].view_as(scales)
    packed = PackedScales("e4m3fn", codes.to(torch.uint8), coarse.flatten(), offset)
    lost = int((((packed.decode() - scales).abs() > scales / 2) & used).sum())
    if lost:
        warnings.warn(f"{lost} of {used.sum()} scales are too far below the mean for double quantisation: use 'nf4'",
                      stacklevel=4)
    return packed


@dataclass(frozen=True)
class BlockFormat:
    """A codebook, and a scale for each block of neighbours in a row.

    Attributes:
        name: what it is called.
        element: its codebook's name in `CODEBOOKS`.
        bits: of one code.
        block: numbers that share a scale.
        make_scales: (largest absolute value of each block (rows, blocks), largest value of the codebook) -> scales.
        scale_bits: of one block, what several blocks share counted in parts.
    """

    name: str
    element: str
    bits: int
    block: int
    make_scales: Callable[[Tensor, float], Tensor | PackedScales]
    scale_bits: float

    @property
    def codebook(self) -> Tensor:
        """(levels,), ascending."""
        return CODEBOOKS[self.element]

    @property
    def bits_per_weight(self) -> float:
        """Code and scale, without what there is once for a whole matrix (NVFP4: 32 bits; NF4 doubly quantised: 32)."""
        return self.bits + self.scale_bits / self.block

    def scales(self, weight: Tensor) -> tuple[Tensor, PackedScales | None]:
        """The scales of finite numbers (rows, columns), float32 (rows, blocks), and what 8 bits keep of them, if so.

        The last block of a row may be shorter.
        """
        largest = [part.abs().amax(1, keepdim=True) for part in weight.float().split(self.block, dim=1)]
        made = self.make_scales(torch.cat(largest, dim=1), float(self.codebook[-1]))
        return (made.decode(), made) if isinstance(made, PackedScales) else (made, None)

    def round(self, weight: Tensor) -> Tensor:
        """The nearest values of the format: (rows, columns) -> float32 (rows, columns).

        Raises:
            ValueError: if the numbers are not a matrix, there are none, or they are not finite.
        """
        if weight.dim() != 2 or not weight.numel() or not weight.isfinite().all():
            raise ValueError("a matrix (rows, columns) of finite numbers is needed")
        scale, _ = self.scales(weight)
        each = scale.repeat_interleave(self.block, dim=1)[:, : weight.shape[1]]
        return self.codebook[nearest_code(weight.float() / each, self.codebook)] * each


BLOCKS = {
    fmt.name: fmt
    for fmt in (
        BlockFormat("mxfp4", "e2m1", 4, 32, power_scales, 8),
        BlockFormat("mxfp8", "e4m3fn", 8, 32, power_scales, 8),
        BlockFormat("nvfp4", "e2m1", 4, 16, fp8_scales, 8),
        BlockFormat("nf4", "nf4", 4, 64, absmax_scales, 32),
        BlockFormat("nf4-dq", "nf4", 4, 64, double_scales, 8 + 32 / SCALES_PER_COARSE),
    )
}
