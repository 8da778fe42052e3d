"""The layers that replace linear ones and convolutions in a compressed model, and what a file keeps of them.

Each layer has a `layout`, plain data that a card keeps, and tensors in its state; what `LAYERS` has for its kind makes
it of both.
"""

from typing import Self

import torch
from torch import Tensor, nn

from nanoq.compress.lowrank import check_rank, low_rank
from nanoq.compress.sparsity import sparsegpt
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.grid import Grid
from nanoq.quant.packing import pack, packed_bytes, unpack
from nanoq.quant.qlinear import (
    FLOATS_IN_FILES,
    PackedLayer,
    QuantLayer,
    QuantLinear,
    apply_packed,
    check_tensors,
    entry,
    grid_tensors,
    rows_of,
)
from nanoq.quant.recipe import Round
from nanoq.store import GEOMETRY, LAYERS, layer_from_layout, stored


class SparseLayer(PackedLayer):
    """A layer whose file holds a bit for each number of its weight matrix, and those that are not 0 in float16.

    Attributes:
        mask: uint8 (out, bytes), the packed bits of what is not 0.
        values: float16, or float32 where float16 would lose them (number of them,), row after row.
    """

    def __init__(self, layout: dict, tensors: dict[str, Tensor]):
        super().__init__()
        self.layout = layout
        for name in ("mask", "values"):
            self.register_buffer(name, tensors[name])
        bias = tensors.get("bias")
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None = None, **more) -> Self:
        """The layer of a weight matrix (out, in) with zeros, and a bias (out,); `more` goes into the layout.

        Raises:
            ValueError: if the weight is not finite.
        """
        half = stored("the weight", weight)
        kept = half != 0
        layout = {"kind": "sparse", "in_features": weight.shape[1]} | more
        return cls(layout, {"mask": pack(kept.long(), 1), "values": half[kept], "bias": bias})

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return len(self.mask), self.layout["in_features"]

    def check_values(self) -> None:
        """Raise a ValueError unless there is a value for each bit of the mask."""
        kept = int(unpack(self.mask, 1, self.layout["in_features"]).sum())
        if kept != self.values.numel():
            raise ValueError(f"{self.values.numel()} values for the {kept} weights of a mask")

    def dequantize(self) -> Tensor:
        """The weight as float32 (out, in)."""
        kept = unpack(self.mask, 1, self.layout["in_features"]).bool()
        return torch.zeros(kept.shape, device=kept.device).masked_scatter_(kept, self.values.float())

    def rounded(self, step: Round, stats: LayerStats | None) -> "SparseQuantLayer":
        """This layer with what is left rounded by a step, nearest or GPTQ; what is 0 stays 0."""
        if step.method not in ("nearest", "gptq") or step.refit or step.method_options.keys() - {"damping"}:
            raise ValueError("a sparse layer is rounded by nearest or gptq, with no option but damping and no refit")
        weight = self.dequantize()
        grid, how = step.make_grid(weight, stats), {key: self.layout[key] for key in GEOMETRY if key in self.layout}
        if step.method == "gptq":
            weight = sparsegpt(weight, stats, grid, keep=weight != 0, **step.method_options)
        else:
            weight = grid.decode(grid.encode(weight)) * (weight != 0)
        return sparse_quant_layer(weight, grid, self.bias, how)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer that it stands for, in the type of x; the zeros are multiplied, too."""
        return apply_packed(self, x)


class SparseLinear(SparseLayer):
    """Of a linear layer: (..., in) -> (..., out)."""


class SparseConv2d(SparseLayer):
    """Of a convolution: (N, channels, height, width) -> (N, out, height', width'); see `QuantConv2d`."""


class SparseQuantLayer(QuantLayer):
    """A quantised layer whose file holds a bit for each weight, and codes of those alone that are not 0.

    Its buffers are those of a `QuantLayer`, with the codes in one packed stream, row after row, and `mask`
    uint8 (out, bytes). No kernel takes it.
    """

    def __init__(self, layout: dict, tensors: dict[str, Tensor]):
        super().__init__(layout, tensors)
        self.register_buffer("mask", tensors["mask"])

    @classmethod
    def from_weight(cls, weight: Tensor, grid: Grid, bias: Tensor | None = None, **more) -> Self:
        """The layer of a weight matrix (out, in) that lies on a grid and has zeros there; `more` is for the layout."""
        kept, codes = weight != 0, grid.encode(weight).long()
        like = QuantLinear.from_codes(codes, grid, bias, **more)
        tensors = dict(like.named_buffers()) | {
            "codes": pack(codes[kept], grid.bits), "mask": pack(kept.long(), 1), "bias": bias}
        return cls(like.layout | {"kind": "sparse-quant"}, tensors)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return len(self.mask), self.layout["in_features"]

    def unpacked(self) -> Tensor:
        """The codes as uint8 (out, in)."""
        kept = unpack(self.mask, 1, self.layout["in_features"]).bool()
        codes = unpack(self.codes, self.layout["bits"], int(kept.sum()))
        grid = self.grid
        zero = grid.over_columns(grid.zero_codes, kept).to(torch.uint8)
        return zero.expand(kept.shape).clone().masked_scatter_(kept, codes)

    def dequantize(self) -> Tensor:
        """The weight as float32 (out, in): 0 where there is no code, whether or not the grid has a 0."""
        return super().dequantize() * unpack(self.mask, 1, self.layout["in_features"])

    def forward(self, x: Tensor) -> Tensor:
        """As the layer that it stands for, in the type of x."""
        return apply_packed(self, x)


class SparseQuantLinear(SparseQuantLayer):
    """Of a linear layer: (..., in) -> (..., out)."""


class SparseQuantConv2d(SparseQuantLayer):
    """Of a convolution: (N, channels, height, width) -> (N, out, height', width'); see `QuantConv2d`."""


def sparse_layer(weight: Tensor, bias: Tensor | None, how: dict[str, list[int]]) -> SparseLayer:
    """The layer of a weight matrix with zeros; `how` a convolution goes over an image, empty for a linear layer."""
    return (SparseConv2d if how else SparseLinear).from_weight(weight, bias, **how)


def sparse_quant_layer(weight: Tensor, grid: Grid, bias: Tensor | None, how: dict[str, list[int]]) -> SparseQuantLayer:
    """The same of a weight matrix that lies on a grid."""
    return (SparseQuantConv2d if how else SparseQuantLinear).from_weight(weight, grid, bias, **how)


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

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return self.up.out_features, self.down.in_features

    def rounded(self, step: Round, stats: LayerStats | None) -> nn.Module:
        """Refuse: a file has no room for codes in a low-rank layer."""
        raise ValueError("a low-rank layer is not rounded: a file has no room for its codes")

    def dequantize(self) -> Tensor:
        """The weight as float32 (out, in)."""
        return (self.up.weight @ self.down.weight).detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x, whatever that of the factors is."""
        return self.up(self.down(x.to(self.down.weight.dtype))).to(x.dtype)


class AdapterLinear(nn.Module):
    """A packed layer that stays as it is, and a thin correction beside it that is trained (Hu et al. 2021, 2106.09685).

    The correction starts at 0, the lower factor at random (LoRA); or, given a target weight, at what of the packed
    layer's error a low rank can take away (LQER, Zhang et al. 2024, arXiv 2402.02446), by `low_rank`.
    """

    def __init__(self, base: QuantLayer, adapter: LowRankLinear):
        super().__init__()
        self.base, self.adapter = base, adapter

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return self.base.weight_shape

    @property
    def layout(self) -> dict:
        """What a card keeps."""
        return {"kind": "adapter", "rank": self.adapter.layout["rank"], "base": self.base.layout}

    @classmethod
    def beside(cls, base: QuantLayer, rank: int, target: Tensor | None = None, stats: LayerStats | None = None,
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


# ---- from a file: each makes the layer of a layout and its tensors, and raises a ValueError if they do not fit ----


def _sparse(layout: dict, tensors: dict[str, Tensor]) -> SparseLayer:
    out = rows_of(tensors, "mask")
    expected = {"mask": (torch.uint8, (out, packed_bytes(entry(layout, "in_features"), 1))),
                "values": (FLOATS_IN_FILES, tuple(tensors["values"].shape[:1]) if "values" in tensors else (0,))}
    check_tensors(tensors, expected | _bias(tensors, out))
    return (SparseConv2d if "kernel_size" in layout else SparseLinear)(layout, tensors)


def _sparse_quant(layout: dict, tensors: dict[str, Tensor]) -> SparseQuantLayer:
    out = rows_of(tensors, "mask")
    expected = {"mask": (torch.uint8, (out, packed_bytes(entry(layout, "in_features"), 1))),
                "codes": (torch.uint8, tuple(tensors["codes"].shape[:1]) if "codes" in tensors else (0,))}
    check_tensors(tensors, expected | grid_tensors(layout, tensors, out))
    return (SparseQuantConv2d if "kernel_size" in layout else SparseQuantLinear)(layout, tensors)


def _low_rank(layout: dict, tensors: dict[str, Tensor]) -> LowRankLinear:
    out, rank = rows_of(tensors, "up.weight"), rows_of(tensors, "down.weight")
    expected = {"up.weight": (FLOATS_IN_FILES, (out, rank)),
                "down.weight": (FLOATS_IN_FILES, (rank, tensors["down.weight"].shape[1]))}
    check_tensors(tensors, expected | _bias(tensors, out, "up.bias"))
    return LowRankLinear(tensors["up.weight"], tensors["down.weight"], tensors.get("up.bias"))


def _adapter(layout: dict, tensors: dict[str, Tensor]) -> AdapterLinear:
    own: dict[str, dict[str, Tensor]] = {"base": {}, "adapter": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        own.get(part, {})[rest] = tensor
    if not isinstance(layout.get("base"), dict) or len(own["base"]) + len(own["adapter"]) != len(tensors):
        raise ValueError("it is no packed layer with an adapter")
    layer = AdapterLinear(layer_from_layout(layout["base"], own["base"]), _low_rank(layout, own["adapter"]))
    if not isinstance(layer.base, QuantLayer) or layer.base.weight_shape != layer.adapter.weight_shape:
        raise ValueError(f"its adapter {layer.adapter.weight_shape} does not fit its base {layer.base.weight_shape}")
    return layer


def _dense(layout: dict, tensors: dict[str, Tensor]) -> nn.Linear:
    out = rows_of(tensors, "weight")
    inputs = tensors["weight"].shape[1]
    check_tensors(tensors, {"weight": (FLOATS_IN_FILES, (out, inputs))} | _bias(tensors, out))
    return nn.Linear(inputs, out, bias="bias" in tensors, device=tensors["weight"].device)


def _bias(tensors: dict[str, Tensor], out: int, name: str = "bias") -> dict[str, tuple]:
    return {name: (FLOATS_IN_FILES, (out,))} if name in tensors else {}


LAYERS.update({"sparse": _sparse, "sparse-quant": _sparse_quant, "low-rank": _low_rank, "adapter": _adapter,
               "dense": _dense})
