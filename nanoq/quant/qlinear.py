"""Layers that keep their weight as packed codes."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.numbers.blocks import CODEBOOKS, PackedScales
from nanoq.quant.grid import Grid
from nanoq.quant.layers import CONVOLUTION, weight_matrix
from nanoq.quant.packing import pack, pack_trits, unpack, unpack_trits

TENSORS = ("codes", "scale", "scale_coarse", "scale_offset", "zero_point", "codebook")


class PackedLayer(nn.Module):
    """A layer whose buffers keep their types: `model.half()` would change what the file holds."""

    def _apply(self, fn, recurse=True) -> Self:
        """Go to the model's device, and no more."""
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        device = next(self.buffers(recurse=False)).device
        for name, buffer in kept.items():
            self._buffers[name] = buffer.to(device)
        return self


class QuantLayer(PackedLayer):
    """Holds the weight matrix of a layer as packed codes and their grid.

    Its buffers are what a checkpoint saves, those that a layer does not have being None:
    `codes` uint8 (out, bytes), of three levels five to a byte; `scale` (rows, groups), in float16 where that is exact,
    in 8 bits with `scale_coarse` and `scale_offset` (`PackedScales`) where the grid keeps it so; `zero_point`, all of
    them in one packed stream; `codebook`, unless it has a name. `layout` is what is needed beside them. The bias stays
    a parameter like those of the layers that are not quantised.
    """

    def __init__(self, layout: dict, tensors: dict[str, Tensor | None]):
        super().__init__()
        self.layout = layout
        for name in TENSORS:
            self.register_buffer(name, tensors.get(name))
        bias = tensors.get("bias")
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    @classmethod
    def from_codes(cls, codes: Tensor, grid: Grid, bias: Tensor | None = None, **more) -> Self:
        """The layer of codes (out, in) on a grid, and a bias (out,); `more` goes into the layout."""
        layout = {"in_features": codes.shape[1], "bits": grid.bits, "levels": grid.levels,
                  "group_size": grid.group_size} | more
        tensors = {"codes": pack_trits(codes) if grid.levels == 3 else pack(codes, grid.bits), "bias": bias}
        if grid.packed_scale is not None:
            packed = grid.packed_scale
            layout["scale_format"] = packed.format
            tensors |= {"scale": packed.codes, "scale_coarse": packed.coarse, "scale_offset": packed.offset}
        else:
            half = grid.scale.half()
            tensors["scale"] = half if torch.equal(half.to(grid.scale.dtype), grid.scale) else grid.scale.float()
        if grid.zero_point is not None:
            tensors["zero_point"] = pack(grid.zero_point.flatten().long(), grid.bits)
        if grid.codebook is not None:
            names = [name for name, values in CODEBOOKS.items() if torch.equal(values, grid.codebook.float())]
            if names:
                layout["codebook"] = names[0]
            else:
                tensors["codebook"] = grid.codebook.float()
        return cls(layout, tensors)

    @property
    def grid(self) -> Grid:
        """The grid of the codes, in float32."""
        scale, zero_point, codebook, packed = self.scale.float(), None, self.codebook, None
        if "scale_format" in self.layout:
            packed = PackedScales(self.layout["scale_format"], self.scale, self.scale_coarse, self.scale_offset)
            scale = packed.decode()
        if self.zero_point is not None:
            codes = unpack(self.zero_point, self.layout["bits"], scale.numel())
            zero_point = codes.view_as(scale).float()
        if "codebook" in self.layout:
            codebook = CODEBOOKS[self.layout["codebook"]].to(scale.device)
        return Grid(self.layout["bits"], self.layout["levels"], scale, self.layout["group_size"],
                    zero_point, codebook, packed)

    def unpacked(self) -> Tensor:
        """The codes as uint8 (out, in)."""
        if self.layout["levels"] == 3:
            return unpack_trits(self.codes, self.layout["in_features"])
        return unpack(self.codes, self.layout["bits"], self.layout["in_features"])

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for: float32 (out, in)."""
        return self.grid.decode(self.unpacked())

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return ", ".join(f"{key}={value}" for key, value in ({"out_features": len(self.scale)} | self.layout).items())


class QuantLinear(QuantLayer):
    """A linear layer that makes its float weight anew in every call, unless it has a kernel.

    `kernel` multiplies by the packed codes themselves where it can; `nanoq.quant.kernels` sets it. Without one the
    layer computes what the file's values give, bit for bit.
    """

    kernel = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.kernel is not None and self.kernel.takes(x):
            y = self.kernel(x)
            return y if bias is None else y + bias
        return F.linear(x, self.dequantize().to(x.dtype), bias)

    @property
    def backend(self) -> str:
        """How it computes: "dequantize", or the name of its kernel."""
        return "dequantize" if self.kernel is None else self.kernel.backend

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return f"{super().extra_repr()}, backend={self.backend}"

    def _apply(self, fn, recurse=True) -> Self:
        device = self.codes.device
        super()._apply(fn, recurse)
        if self.codes.device != device:
            self.kernel = None  # it has the old buffers
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.kernel = None  # it was made from the old scales


class QuantConv2d(QuantLayer):
    """A convolution whose weight is the matrix (out, channels * kernel height * kernel width), packed.

    It has the zero padding, stride and dilation of the `nn.Conv2d` that it stands for, and no groups.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, height, width) -> (N, out, height', width'), in the type of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = self.dequantize().to(x.dtype).unflatten(1, (-1, *self.layout["kernel_size"]))
        return F.conv2d(x, weight, bias, *(self.layout[name] for name in CONVOLUTION))


def packed_layer(layer: nn.Module, codes: Tensor, grid: Grid) -> QuantLayer:
    """What takes the place of a linear layer or a convolution: its weight matrix as codes (out, in) on a grid."""
    if isinstance(layer, nn.Conv2d):
        geometry = {name: list(getattr(layer, name)) for name in ("kernel_size", *CONVOLUTION)}
        return QuantConv2d.from_codes(codes, grid, layer.bias, **geometry)
    return QuantLinear.from_codes(codes, grid, layer.bias)


def restored_layer(layout: dict, tensors: dict[str, Tensor]) -> QuantLayer:
    """The packed layer of a layout and tensors that were read from a file.

    Raises:
        ValueError: if it is a layer of `nanoq.compress`.
    """
    if "kind" in layout:
        raise ValueError(f"a layer of the kind '{layout['kind']}' is read by nanoq.compress.load_compressed")
    return (QuantConv2d if "kernel_size" in layout else QuantLinear)(layout, tensors)


def packed_layouts(model: nn.Module) -> dict[str, dict]:
    """The layout of each packed layer of a model, by name: what a card keeps beside the tensors."""
    return {name: layer.layout for name, layer in model.named_modules() if isinstance(layer, QuantLayer)}


def restore_layers(model: nn.Module, layouts: dict[str, dict], tensors: dict[str, Tensor]) -> None:
    """Put packed layers in the places of those that they stand for, given what was read from a file.

    Raises:
        ValueError: if the codes of a layer have another shape than its weight.
    """
    for name, layout in layouts.items():
        own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        layer = restored_layer(layout, own)
        if layer.dequantize().shape != weight_matrix(model.get_submodule(name)).shape:
            raise ValueError(f"the codes of {name} have another shape than its weight")
        model.set_submodule(name, layer)


def as_float16(name: str, tensor: Tensor) -> Tensor:
    """What is kept in float16 beside the quantised layers.

    Raises:
        ValueError: if float16 cannot hold the tensor, by its name.
    """
    half = tensor.half()
    if not half.isfinite().all():
        raise ValueError(f"{name} holds NaN, infinity, or values beyond float16's 65504")
    return half
