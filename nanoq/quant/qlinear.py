"""Layers that keep their weight as packed codes."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.decoding import DecodingLayer
from nanoq.numbers.blocks import CODEBOOKS, SCALES_PER_COARSE, PackedScales
from nanoq.numbers.floats import FLOATS
from nanoq.quant import entropy_coding
from nanoq.quant.grid import Grid
from nanoq.quant.packing import pack, pack_trits, packed_bytes, trit_bytes, unpack, unpack_trits
from nanoq.store import GEOMETRY, LAYERS, PACKED, geometry

GRID_TENSORS = ("scale", "scale_coarse", "scale_offset", "zero_point", "codebook", "order")


class PackedLayer(DecodingLayer):
    """A layer whose buffers keep their types: `model.half()` would change what the file holds.

    Attributes:
        _decoded: what a kind of layer makes of its buffers once and keeps; forgotten when they change.
    """

    _decoded: Tensor | None = None

    def _apply(self, fn, recurse=True) -> Self:
        """Go to the model's device, and no more."""
        self._decoded = self._weight = None
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        device = next(self.buffers(recurse=False)).device
        for name, buffer in kept.items():
            self._buffers[name] = buffer.to(device)
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._decoded = self._weight = None


class QuantLayer(PackedLayer):
    """Holds the weight matrix of a layer as packed codes and their grid.

    Its buffers are what a checkpoint saves, those that a layer does not have being None:
    `codes` uint8 (out, bytes), of three levels five to a byte; `scale` (rows, groups), in float16 where that is exact,
    in 8 bits with `scale_coarse` and `scale_offset` (`PackedScales`) where the grid keeps it so; `zero_point`, all of
    them in one packed stream; `codebook`, unless it has a name; `order` int32 (in,), where the columns of the codes are
    not in the order of the inputs: column i belongs to input order[i], as GPTQ's `desc_act` leaves them. `layout` is
    what is needed beside them. The bias stays a parameter like those of the layers that are not quantised.
    """

    kept = ("codes", *GRID_TENSORS)

    def __init__(self, layout: dict, tensors: dict[str, Tensor | None]):
        super().__init__()
        self.layout = layout
        for name in self.kept:
            self.register_buffer(name, tensors.get(name))
        bias = tensors.get("bias")
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    @classmethod
    def from_codes(
        cls, codes: Tensor, grid: Grid, bias: Tensor | None = None, order: Tensor | None = None, **more
    ) -> Self:
        """The layer of codes (out, in) on a grid, and a bias (out,); `more` goes into the layout.

        With an `order` (in,), column i of the codes belongs to input order[i].
        """
        layout = {"in_features": codes.shape[1], "bits": grid.bits, "levels": grid.levels,
                  "group_size": grid.group_size} | more
        tensors = {"codes": _pack(codes, grid.bits, grid.levels), "bias": bias,
                   "order": None if order is None else order.int()}
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
                    zero_point, codebook, packed, coded="coding" in self.layout)

    def unpacked(self) -> Tensor:
        """The codes as uint8 (out, in), their columns as they are kept: with an `order`, not as the inputs come."""
        if self.layout["levels"] == 3:
            return unpack_trits(self.codes, self.layout["in_features"])
        return unpack(self.codes, self.layout["bits"], self.layout["in_features"])

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for: float32 (out, in), its columns in the order of the inputs."""
        weight = self.grid.decode(self.unpacked())
        return weight if self.order is None else weight[:, self.order.argsort()]

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return len(self.codes), self.layout["in_features"]

    def check_values(self) -> None:
        """Raise a ValueError unless every code is one of the grid and every input has a column."""
        codes, levels = self.unpacked(), self.layout["levels"]
        if int(codes.max()) >= levels:  # a uint8 cannot be compared with 256
            raise ValueError(f"a code is {int(codes.max())}, on a grid of {levels} values")
        if self.order is not None and sorted(self.order.tolist()) != list(range(len(self.order))):
            raise ValueError(f"its 'order' does not name each of {len(self.order)} inputs once")

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        shown = {"out_features": self.weight_shape[0]} | self.layout
        return ", ".join(f"{key}={value}" for key, value in shown.items())


class QuantLinear(QuantLayer):
    """A linear layer that makes its float weight anew in every call, unless it has a kernel or `decoded_once` lasts.

    `kernel` multiplies by the packed codes themselves where it can; `nanoq.quant.kernels` sets it. Without one the
    layer computes what the file's values give, bit for bit.
    """

    kernel = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.kernel is not None and self.kernel.takes(x):
            y = self.kernel(x if self.order is None else x[..., self.order])
            return y if bias is None else y + bias
        return F.linear(x, self.decoded().to(x.dtype), bias)

    @property
    def weight(self) -> Tensor:
        """The weight (out, in) in float32, made anew: some models of transformers read it."""
        return self.dequantize()

    @property
    def backend(self) -> str:
        """How it computes: "dequantize", or the name of its kernel."""
        return "dequantize" if self.kernel is None else self.kernel.backend

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return f"{super().extra_repr()}, backend={self.backend}"

    def _apply(self, fn, recurse=True) -> Self:
        device = self.scale.device
        super()._apply(fn, recurse)
        if self.scale.device != device:
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
        return apply_packed(self, x)


def apply_packed(layer: PackedLayer, x: Tensor) -> Tensor:
    """What a packed layer gives, in the type of x: a convolution if its layout says how it goes over an image."""
    weight, bias = layer.decoded().to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype)
    if "kernel_size" not in layer.layout:
        return F.linear(x, weight, bias)
    weight = weight.unflatten(1, (-1, *layer.layout["kernel_size"]))
    return F.conv2d(x, weight, bias, *(layer.layout[name] for name in GEOMETRY[1:]))


class _EntropyCoded:
    """Keeps a stream of `nanoq.quant.entropy_coding` in the place of the codes, which are decoded at their first use.

    In memory the codes then lie beside the stream, packed as the layer without it would have them.
    """

    kept = ("stream", *GRID_TENSORS)

    @property
    def codes(self) -> Tensor:
        """The packed codes, uint8 (out, bytes)."""
        if self._decoded is None:
            symbols = entropy_coding.decode(self.stream, self.weight_shape).to(self.stream.device)
            codes = symbols.add_(_zero_codes(self.grid, symbols))
            if codes.min() < 0 or codes.max() >= self.layout["levels"]:
                raise ValueError(f"the stream of its codes holds others than those of {self.layout['levels']} values")
            self._decoded = _pack(codes, self.layout["bits"], self.layout["levels"])
        return self._decoded

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return self.layout["out_features"], self.layout["in_features"]


class CodedLinear(_EntropyCoded, QuantLinear):
    """A `QuantLinear` whose codes are entropy-coded in its file."""


class CodedConv2d(_EntropyCoded, QuantConv2d):
    """A `QuantConv2d` whose codes are entropy-coded in its file."""


def entropy_coded(layer: QuantLayer) -> QuantLayer:
    """The same layer, bit for bit, with its codes as a stream of `nanoq.quant.entropy_coding`, if that is smaller."""
    if isinstance(layer, _EntropyCoded):
        return layer
    codes = layer.unpacked().to(torch.int16)
    stream = entropy_coding.encode(codes - _zero_codes(layer.grid, codes))
    if len(stream) >= layer.codes.numel():
        return layer
    tensors = {name: getattr(layer, name) for name in GRID_TENSORS} | {"stream": stream, "bias": layer.bias}
    kind = CodedConv2d if isinstance(layer, QuantConv2d) else CodedLinear
    return kind(layer.layout | {"coding": "rans", "out_features": len(codes)}, tensors)


def entropy_code(model: nn.Module) -> None:
    """Put `entropy_coded` layers in the places of a model's packed ones; its outputs stay the same, bit for bit."""
    for name, layer in list(model.named_modules()):
        if type(layer) in (QuantLinear, QuantConv2d):
            model.set_submodule(name, entropy_coded(layer))


def _zero_codes(grid: Grid, codes: Tensor) -> Tensor:
    """The code of the value 0 for each code, in the type of these: (rows, columns), or what stretches to it."""
    return grid.over_columns(grid.zero_codes, codes).to(codes.dtype)


def _pack(codes: Tensor, bits: int, levels: int) -> Tensor:
    return pack_trits(codes) if levels == 3 else pack(codes, bits)


def packed_layer(layer: nn.Module, codes: Tensor, grid: Grid) -> QuantLayer:
    """What takes the place of a linear layer or a convolution: its weight matrix as codes (out, in) on a grid.

    Raises:
        ValueError: if it is neither.
    """
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise ValueError(f"a {type(layer).__name__} is not rounded: linear layers and convolutions are")
    kind = QuantConv2d if isinstance(layer, nn.Conv2d) else QuantLinear
    packed = kind.from_codes(codes, grid, layer.bias, **geometry(layer))
    return entropy_coded(packed) if grid.coded else packed


# ---- from a file ----


def restored_packed(layout: dict, tensors: dict[str, Tensor]) -> QuantLayer:
    """The packed layer of a layout and its tensors.

    Raises:
        ValueError: if they do not fit together.
    """
    n, levels, bits = entry(layout, "in_features"), entry(layout, "levels", 256), entry(layout, "bits", 8)
    kinds, picture = (QuantLinear, QuantConv2d), "kernel_size" in layout
    if "coding" in layout:
        if layout["coding"] != "rans":
            raise ValueError(f"there is no coding {layout['coding']!r:.40}: was it written by a newer nanoq?")
        kinds, out = (CodedLinear, CodedConv2d), entry(layout, "out_features")
        own = {"stream": (torch.uint8, (tensors["stream"].numel() if "stream" in tensors else 0,))}
    else:
        out = rows_of(tensors, "codes")
        own = {"codes": (torch.uint8, (out, trit_bytes(n) if levels == 3 else packed_bytes(n, bits)))}
    if "order" in tensors and not picture:
        own["order"] = (torch.int32, (n,))
    check_tensors(tensors, grid_tensors(layout, tensors, out) | own)
    return kinds[picture](layout, tensors)


LAYERS[PACKED] = restored_packed
FLOATS_IN_FILES = (torch.float16, torch.bfloat16, torch.float32)


def grid_tensors(layout: dict, tensors: dict[str, Tensor], out: int) -> dict[str, tuple]:
    """Type and shape that each tensor of a layer with `out` outputs has to have beside its codes.

    Raises:
        ValueError: if the layout is of no layer.
    """
    n, bits = entry(layout, "in_features"), entry(layout, "bits", 8)
    levels, rows = entry(layout, "levels", 2**bits), rows_of(tensors, "scale")
    scale = (rows, -(-n // entry(layout, "group_size")))
    if rows not in (1, out) or bits < 2 or levels < 2:
        raise ValueError(f"{out} rows have no grid of {levels} levels in {bits} bits with {rows} rows of scales")
    expected = {"scale": (FLOATS_IN_FILES, scale)}
    if "bias" in tensors:
        expected["bias"] = (FLOATS_IN_FILES, (out,))
    if "zero_point" in tensors:
        expected["zero_point"] = (torch.uint8, (packed_bytes(scale[0] * scale[1], bits),))
    if "codebook" in tensors:
        expected["codebook"] = (FLOATS_IN_FILES, (levels,))
    elif "codebook" in layout and (layout["codebook"] not in CODEBOOKS or len(CODEBOOKS[layout["codebook"]]) != levels):
        raise ValueError(f"there is no codebook {layout['codebook']!r:.40} of {levels} values")
    if "scale_format" in layout:
        if layout["scale_format"] not in FLOATS or FLOATS[layout["scale_format"]].bits != 8:
            raise ValueError(f"there is no format of 8 bits {layout['scale_format']!r:.40}")
        expected["scale"] = (torch.uint8, scale)
        if "scale_coarse" in tensors:
            many = len(tensors["scale_coarse"].shape) == 1 and len(tensors["scale_coarse"]) > 1
            expected["scale_coarse"] = (FLOATS_IN_FILES, (-(-scale[0] * scale[1] // SCALES_PER_COARSE) if many else 1,))
        if "scale_offset" in tensors:
            expected["scale_offset"] = (FLOATS_IN_FILES, (1,))
    return expected


def entry(layout: dict, key: str, most: int = 2**31) -> int:
    """A positive whole number of a layout.

    Raises:
        ValueError: if it is missing, or something else.
    """
    value = layout.get(key)
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"its '{key}' must be a whole number of 1 to {most}, not {value!r:.40}")
    return value


def rows_of(tensors: dict[str, Tensor], name: str) -> int:
    """Rows of a matrix.

    Raises:
        ValueError: if it is missing, empty, or no matrix.
    """
    if name not in tensors or tensors[name].dim() != 2 or not tensors[name].numel():
        raise ValueError(f"its '{name}' is missing or no matrix")
    return len(tensors[name])


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, tuple]) -> None:
    """Compare tensors with the type, or types, and the shape that each has to have.

    Raises:
        ValueError: if one differs, is missing, or there is one too many.
    """
    for name in expected.keys() | tensors.keys():
        found = tensors.get(name)
        types, shape = expected.get(name, ((), None))
        if found is None or shape is None:
            raise ValueError(f"its '{name:.40}' is {'missing' if found is None else 'unknown'}")
        if tuple(found.shape) != shape or found.dtype not in (types if isinstance(types, tuple) else (types,)):
            raise ValueError(f"its '{name}' is {found.dtype} of shape {tuple(found.shape)}, and should be of {shape}")
