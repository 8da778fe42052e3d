"""A linear layer that keeps its weight as packed codes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.grid import Grid
from nanoq.quant.packing import pack, unpack


class QuantLinear(nn.Module):
    """Holds packed codes and their grid, and makes the float weight anew in every call.

    Its buffers are what a checkpoint saves: `codes` uint8 (out, bytes); `scale` (rows, groups), in float16 where that
    is exact; `zero_point`, all of them in one packed stream; `codebook`. Those that a layer does not have are None.
    `layout` is what is needed beside them. The bias stays a parameter like those of the layers that are not quantised.
    """

    def __init__(self, layout: dict[str, int], tensors: dict[str, Tensor | None]):
        super().__init__()
        self.layout = layout
        for name in ("codes", "scale", "zero_point", "codebook"):
            self.register_buffer(name, tensors.get(name))
        bias = tensors.get("bias")
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    @classmethod
    def from_codes(cls, codes: Tensor, grid: Grid, bias: Tensor | None = None) -> "QuantLinear":
        """The layer of codes (out, in) on a grid, and a bias (out,)."""
        half = grid.scale.half()
        exact = torch.equal(half.to(grid.scale.dtype), grid.scale)
        layout = {"in_features": codes.shape[1]} | {k: getattr(grid, k) for k in ("bits", "levels", "group_size")}
        return cls(layout, {
            "codes": pack(codes, grid.bits),
            "scale": half if exact else grid.scale.float(),
            "zero_point": None if grid.zero_point is None else pack(grid.zero_point.flatten().long(), grid.bits),
            "codebook": grid.codebook,
            "bias": bias,
        })

    @property
    def grid(self) -> Grid:
        """The grid of the codes, in float32."""
        zero_point = None
        if self.zero_point is not None:
            codes = unpack(self.zero_point, self.layout["bits"], self.scale.numel())
            zero_point = codes.view_as(self.scale).float()
        return Grid(self.layout["bits"], self.layout["levels"], self.scale.float(), self.layout["group_size"],
                    zero_point, self.codebook)

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for: float32 (out, in)."""
        return self.grid.decode(unpack(self.codes, self.layout["bits"], self.layout["in_features"]))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.dequantize().to(x.dtype), bias)

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return f"out_features={len(self.codes)}, " + ", ".join(f"{k}={v}" for k, v in self.layout.items())
