"""What stands in a compressed model where a linear layer stood, and what a file keeps of it.

Each layer has a `layout`, plain data that a card keeps, and tensors in its state; `restored` makes it from both.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.compress.lowrank import check_rank, low_rank
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.grid import Grid
from nanoq.quant.packing import pack, unpack
from nanoq.quant.qlinear import PackedLayer, QuantLayer, QuantLinear, as_float16, restored_layer


class SparseLinear(PackedLayer):
    """A linear layer whose file holds a bit for each weight, and the weights that are not 0 in float16.

    Attributes:
        mask: uint8 (out, bytes), the packed bits of what is not 0.
        values: float16 (number of them,), row after row.
    """

    def __init__(self, layout: dict, tensors: dict[str, Tensor]):
        super().__init__()
        self.layout = layout
        for name in ("mask", "values"):
            self.register_buffer(name, tensors[name])
        bias = tensors.get("bias")
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None) -> Self:
        """The layer of a weight (out, in) with zeros, and a bias (out,).

        Raises:
            ValueError: if float16 cannot hold the weight.
        """
        half = as_float16("the weight", weight)
        kept = half != 0
        layout = {"kind": "sparse", "in_features": weight.shape[1]}
        return cls(layout, {"mask": pack(kept.long(), 1), "values": half[kept], "bias": bias})

    def dequantize(self) -> Tensor:
        """The weight as float32 (out, in)."""
        kept = unpack(self.mask, 1, self.layout["in_features"]).bool()
        return torch.zeros(kept.shape, device=kept.device).masked_scatter_(kept, self.values.float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x; the zeros are multiplied, too."""
        return _linear(self, x)


class SparseQuantLinear(QuantLayer):
    """A quantised layer whose file holds a bit for each weight, and codes of those alone that are not 0.

    Its buffers are those of a `QuantLinear`, with the codes in one packed stream, row after row, and `mask`
    uint8 (out, bytes). No kernel takes it.
    """

    def __init__(self, layout: dict, tensors: dict[str, Tensor]):
        super().__init__(layout, tensors)
        self.register_buffer("mask", tensors["mask"])

    @classmethod
    def of(cls, weight: Tensor, grid: Grid, bias: Tensor | None = None) -> Self:
        """The layer of a weight (out, in) that lies on a grid and has zeros there."""
        kept, codes = weight != 0, grid.encode(weight).long()
        like = QuantLinear.from_codes(codes, grid, bias)
        tensors = dict(like.named_buffers()) | {
            "codes": pack(codes[kept], grid.bits), "mask": pack(kept.long(), 1), "bias": bias}
        return cls(like.layout | {"kind": "sparse-quant"}, tensors)

    def unpacked(self) -> Tensor:
        """The codes as uint8 (out, in)."""
        kept = unpack(self.mask, 1, self.layout["in_features"]).bool()
        codes = unpack(self.codes, self.layout["bits"], int(kept.sum()))
        grid = self.grid
        zero = grid.over_columns(grid.zero_codes, kept).to(torch.uint8)
        return zero.expand(kept.shape).clone().masked_scatter_(kept, codes)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x."""
        return _linear(self, x)


def _linear(layer: SparseLinear | SparseQuantLinear, x: Tensor) -> Tensor:
    """What a packed layer gives for (..., in), in the type of x."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.dequantize().to(x.dtype), bias)


class LowRankLinear(nn.Module):
    """Two thin linear layers, one after the other: (..., in) -> (..., rank) -> (..., out)."""

    def __init__(self, up: Tensor, down: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.layout = {"kind": "low-rank", "rank": len(down)}
        self.down = nn.Linear(down.shape[1], len(down), bias=False, device=up.device)
        self.up = nn.Linear(len(down), len(up), bias=bias is not None, device=up.device)
        with torch.no_grad():
            self.down.weight.copy_(down)
            self.up.weight.copy_(up)
            if bias is not None:
                self.up.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.up(self.down(x))


class AdapterLinear(nn.Module):
    """A packed layer that stays as it is, and a thin correction beside it that is trained (Hu et al. 2021, 2106.09685).

    The correction starts at 0, the lower factor at random (LoRA); or, given a target weight, at what of the packed
    layer's error a low rank can take away (LQER, Zhang et al. 2024, arXiv 2402.02446), by `low_rank`.
    """

    def __init__(self, base: QuantLayer, adapter: LowRankLinear):
        super().__init__()
        self.base, self.adapter = base, adapter

    @property
    def layout(self) -> dict:
        """What a card keeps."""
        return {"kind": "adapter", "rank": self.adapter.layout["rank"], "base": self.base.layout}

    @classmethod
    def of(cls, base: QuantLayer, rank: int, target: Tensor | None = None, stats: LayerStats | None = None,
           seed: int = 0) -> Self:
        """An adapter of a rank; `target` is the weight (out, in) that the packed one is to come nearer to.

        Raises:
            ValueError: if the rank is out of range, or the target has another shape.
        """
        packed = base.dequantize()
        check_rank(rank, packed.shape)
        if target is not None and target.shape != packed.shape:
            raise ValueError(f"a target {tuple(target.shape)} does not fit a packed weight {tuple(packed.shape)}")
        if target is not None:
            return cls(base, LowRankLinear(*low_rank(target - packed, rank, stats)))
        down = torch.randn(rank, packed.shape[1], generator=torch.Generator().manual_seed(seed)).to(packed)
        return cls(base, LowRankLinear(packed.new_zeros(len(packed), rank), down / packed.shape[1] ** 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.base(x) + self.adapter(x)


def restored(layout: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """The layer of a layout and of tensors that were read from a file.

    Raises:
        ValueError: if there is no such kind of layer, or its mask and its values are not of one weight.
        KeyError: if a tensor or an entry is missing.
    """
    kind = layout.get("kind")
    if kind is None:
        return restored_layer(layout, tensors)
    if kind in ("sparse", "sparse-quant"):
        layer = (SparseLinear if kind == "sparse" else SparseQuantLinear)(layout, tensors)
        kept = int(unpack(layer.mask, 1, layout["in_features"]).sum())
        if kind == "sparse" and kept != layer.values.numel():
            raise ValueError(f"{layer.values.numel()} values for the {kept} weights of a mask")
        return layer
    if kind == "low-rank":
        return LowRankLinear(tensors["up.weight"], tensors["down.weight"], tensors.get("up.bias"))
    if kind == "adapter":
        base, adapter = (below(part, tensors) for part in ("base", "adapter"))
        return AdapterLinear(restored(layout["base"], base), restored({"kind": "low-rank"}, adapter))
    if kind == "dense":
        return nn.Linear(*tensors["weight"].shape[::-1], bias="bias" in tensors)
    raise ValueError(f"no kind of layer '{kind}': was the file written by a newer nanoq?")


def below(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a part's, without it."""
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
