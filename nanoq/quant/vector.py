"""Vector quantisation of a layer: codes for many weights at once, made for weights that are Gaussian.

A weight W (out, in) is turned on both sides by random Hadamard matrices, after which it looks like draws from one
normal distribution (QuIP#, Tseng et al. 2024, arXiv 2402.04396); the Hessian H of its inputs becomes V^T H V. Then
columns are coded in the order of `gptq`, in blocks, each once it has made up for the errors before it: with H = C C^T,
C upper triangular, block J aims at

    W_J + sum over blocks I before J of (W - Q)_I C_IJ C_JJ^-1,

and the error is the sum of |(aim - Q_J) C_JJ|^2 (block LDLQ). E8P codes eight weights of a row, so its blocks have
eight columns, and within one the nearest point counts, whatever C_JJ. A trellis runs down a column: its blocks have
one column, so that nothing is left aside. QTIP's tiles of 16 x 16 leave the couplings of 16 columns aside; they are
made for products on a GPU, which decode a tile at a time.

The codes with the least error are too small: a value is the mean of what it stands for. Outputs would shrink in every
layer, which adds up. So the scale is made larger in the end, until the outputs are as large as before where they go the
same way: trace(W H Q^T) = trace(W H W^T), as `unit_gain` does for grids, for the whole layer at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.calibrate import LayerStats
from nanoq.quant.e8p import SCALE, SIZE, e8p_codes, e8p_points
from nanoq.quant.gptq_method import check_problem, factored
from nanoq.quant.grid import check_weight
from nanoq.quant.hadamard import RandomHadamard, core_size
from nanoq.quant.layers import weight_matrix
from nanoq.quant.packing import pack, packed_bytes, unpack
from nanoq.quant.qlinear import FLOATS_IN_FILES, PackedLayer, check_tensors, entry
from nanoq.quant.recipe import STEPS
from nanoq.quant.trellis import SCALES, STATE_BITS, WIDTHS, check_ring, one_mad, trellis_codes, trellis_values
from nanoq.store import LAYERS, stored

VECTOR = "vector"  # kind of layouts, and name of the step
CODES = {"trellis": WIDTHS, "e8p": (2,)}  # the bits per weight that each has


class VectorLinear(PackedLayer):
    """A linear layer whose weight is a scale times coded vectors, turned by a Hadamard matrix on both sides.

    The weight is decoded at its first use and kept.

    Attributes:
        layout: code, bits, in_features and out_features.
        codes: uint8; of a trellis (in, bytes), a ring for each column; of E8P (out, in / 4), two bytes for a point, the
            lower first.
        scale: (1,), in float16 where that is exact.
        in_signs, out_signs: uint8 (bytes,), a bit for each input or output that is 1 where the sign is negative.
    """

    def __init__(self, layout: dict, tensors: dict[str, Tensor]):
        super().__init__()
        self.layout = layout
        for name in ("codes", "scale", "in_signs", "out_signs"):
            self.register_buffer(name, tensors[name])
        bias = tensors.get("bias")
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return self.layout["out_features"], self.layout["in_features"]

    @property
    def weight(self) -> Tensor:
        """The weight (out, in) in float32."""
        if self._decoded is None:
            with torch.inference_mode(False), torch.no_grad():  # or no gradient could go through the layer later
                self._decoded = self._made()
        return self._decoded

    def _made(self) -> Tensor:
        out, inputs = self.weight_shape
        values = unpacked_values(self.codes.cpu(), self.layout) * self.scale.float().cpu()
        rows = RandomHadamard.unpacked(self.out_signs.cpu(), out).inverse(values.T).T
        weight = RandomHadamard.unpacked(self.in_signs.cpu(), inputs).inverse(rows)
        return weight.contiguous().to(self.codes.device)

    def dequantize(self) -> Tensor:
        """The same."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        out, inputs = self.weight_shape
        return f"{inputs}, {out}, code={self.layout['code']}, bits={self.layout['bits']}"


@dataclass(frozen=True)
class Vector:
    """Code the weights of a linear layer by vectors, as `Recipe(Vector("trellis", bits=2))` or `Recipe(Vector("e8p"))`.

    Both numbers of features must be ones that have a Hadamard matrix; E8P takes inputs in eights.

    Attributes:
        code: "trellis" or "e8p".
        bits: per weight: 1 to 4 of a trellis, 2 of E8P.
        feedback: whether later columns make up for the errors of earlier ones, for which calibration is needed.
        damping: as in `gptq`.
        seed: of the random signs.
    """

    code: str = "trellis"
    bits: int = 2
    feedback: bool = True
    damping: float = 0.01
    seed: int = 0
    packs: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.code, str) or self.code not in CODES:
            raise ValueError(f"code must be one of {', '.join(CODES)}, not {self.code!r:.40}")
        if type(self.bits) is not int or self.bits not in CODES[self.code]:
            raise ValueError(f"{self.code} has {' or '.join(map(str, CODES[self.code]))} bits, not {self.bits!r:.40}")
        if type(self.feedback) is not bool:
            raise ValueError(f"feedback must be true or false, not {self.feedback!r:.40}")
        if isinstance(self.damping, bool) or not isinstance(self.damping, int | float) or not self.damping >= 0:
            raise ValueError(f"damping must be a share of at least 0, not {self.damping!r:.40}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number of at least 0, not {self.seed!r:.40}")

    @torch.no_grad()
    def __call__(self, layer: nn.Module, stats: LayerStats | None = None) -> VectorLinear:
        """The layer of codes."""
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"a {type(layer).__name__} is not coded by vectors: linear layers are")
        weight = weight_matrix(layer)
        check_weight(weight)
        out, inputs = weight.shape
        layout = {"kind": VECTOR, "code": self.code, "bits": self.bits, "in_features": inputs, "out_features": out}
        check_sizes(layout)
        generator = torch.Generator().manual_seed(self.seed)
        turn, turn_out = RandomHadamard.draw(inputs, generator), RandomHadamard.draw(out, generator)
        turned = turn_out(turn(weight.double().cpu()).T).T.float()
        scale = stored("the scale", turned.double().square().mean().sqrt().reshape(1) * _factor(self.code, self.bits))
        unit = turned / (float(scale) or 1.0)
        codes = _coded(unit, self._feedback(weight, turn, stats), self.code, self.bits)
        scale = _unbiased(scale, unit, unpacked_values(codes, layout), turn, stats)
        tensors = {"codes": codes, "scale": scale, "in_signs": turn.packed(), "out_signs": turn_out.packed()}
        tensors = {name: tensor.to(weight.device) for name, tensor in tensors.items()}
        return VectorLinear(layout, tensors | {"bias": None if layer.bias is None else layer.bias.detach()})

    def _feedback(self, weight: Tensor, turn: RandomHadamard, stats: LayerStats | None) -> Tensor:
        """C_jk / C_kk of the turned Hessian, float32 (in, in); the identity without feedback."""
        if not self.feedback or (stats is not None and not stats.gram.diagonal().any()):
            return torch.eye(weight.shape[1])
        check_problem(weight, stats, self.damping)
        key = VECTOR, self.seed
        if key not in stats.factored or stats.factored[key][0] is not stats.gram:
            turned = LayerStats(weight.shape[1])
            turned.gram, turned.tokens = turn(turn(stats.gram.double().cpu()).T).float(), stats.tokens
            stats.factored[key] = stats.gram, turned  # layers that read the same input turn it alike
        return factored(stats.factored[key][1], self.damping)[1].float()

    def uncalibrated(self) -> "Vector":
        """The nearest codes."""
        return replace(self, feedback=False)

    @property
    def needs_calibration(self) -> bool:
        """Whether it looks at the layer's inputs."""
        return self.feedback

    @property
    def label(self) -> str:
        """As "trellis 2 bit"."""
        return f"{self.code} {self.bits} bit" + ("" if self.feedback else " nearest")


STEPS[VECTOR] = Vector


def block_ldlq(weight: Tensor, feedback: Tensor, size: int, code: Callable[[Tensor], tuple[Tensor, Tensor]]
               ) -> list[Tensor]:
    """Code blocks of columns in turn, each once it has made up for the errors before it; the codes of the blocks.

    Args:
        weight: (out, in).
        feedback: C_jk / C_kk, (in, in).
        size: columns of a block, which divides in.
        code: gives the codes and the values (out, size) of what a block aims at (out, size).
    """
    error, codes = torch.zeros_like(weight), []
    for start in range(0, weight.shape[1], size):
        cols = slice(start, start + size)
        taken_over = error[:, :start] @ feedback[:start, cols]
        aim = weight[:, cols] + torch.linalg.solve_triangular(
            feedback[cols, cols], taken_over, upper=True, left=False, unitriangular=True)
        own, values = code(aim)
        error[:, cols] = weight[:, cols] - values
        codes.append(own)
    return codes


def _coded(unit: Tensor, feedback: Tensor, code: str, bits: int) -> Tensor:
    """The packed codes of a turned weight (out, in) in units of the scale."""
    if code == "e8p":
        def nearest_points(aim: Tensor) -> tuple[Tensor, Tensor]:
            own = e8p_codes(aim)
            return own, e8p_points(own)
        codes = torch.stack(block_ldlq(unit, feedback, SIZE, nearest_points), 1)  # (out, in / 8)
        return torch.stack([codes & 255, codes >> 8], -1).flatten(1).to(torch.uint8)
    table = one_mad(STATE_BITS)

    def ring(aim: Tensor) -> tuple[Tensor, Tensor]:
        own = trellis_codes(aim.T, table, bits)
        return own, trellis_values(own, table, bits).T
    return pack(torch.cat(block_ldlq(unit, feedback, 1, ring)), bits)


def unpacked_values(codes: Tensor, layout: dict) -> Tensor:
    """The turned weight (out, in), in units of the scale, of packed codes and a layout."""
    out, inputs, bits = layout["out_features"], layout["in_features"], layout["bits"]
    if layout["code"] == "trellis":
        return trellis_values(unpack(codes, bits, out), one_mad(STATE_BITS), bits).T
    low, high = codes.long().unflatten(1, (-1, 2)).unbind(-1)
    return e8p_points((low | high << 8).flatten()).view(out, inputs)


def _unbiased(scale: Tensor, unit: Tensor, values: Tensor, turn: RandomHadamard, stats: LayerStats | None) -> Tensor:
    """The scale with which the outputs of coded values (out, in) have those of the turned weight as a part."""
    seen = stats is not None and bool(stats.gram.diagonal().any())
    outputs = turn(turn.inverse(unit.double()) @ stats.gram.double().cpu()) if seen else unit.double()  # W H, turned
    kept = float((outputs * values).sum())
    return stored("the scale", scale.double() * (float((outputs * unit).sum()) / kept)) if kept > 0 else scale


def _factor(code: str, bits: int) -> float:
    """The scale of weights whose mean square is 1."""
    return SCALES[bits] if code == "trellis" else 1 / SCALE


def check_sizes(layout: dict) -> None:
    """Raise a ValueError unless a code takes a weight of these sizes, and both have a Hadamard matrix."""
    out, inputs = layout["out_features"], layout["in_features"]
    core_size(out), core_size(inputs)
    if layout["code"] == "trellis":
        check_ring(out, layout["bits"], STATE_BITS)
    elif inputs % SIZE:
        raise ValueError(f"e8p takes the inputs in eights, and {inputs} are none")


def _restored(layout: dict, tensors: dict[str, Tensor]) -> VectorLinear:
    """The layer of a layout and its tensors.

    Raises:
        ValueError: if they do not fit together.
    """
    inputs, out, bits = (entry(layout, key) for key in ("in_features", "out_features", "bits"))
    if not isinstance(layout.get("code"), str) or bits not in CODES.get(layout["code"], ()):
        raise ValueError(f"there is no code {layout.get('code')!r:.40} of {bits} bits")
    codes = (inputs, packed_bytes(out, bits)) if layout["code"] == "trellis" else (out, inputs // 4)
    check_tensors(tensors, {
        "codes": (torch.uint8, codes),
        "scale": (FLOATS_IN_FILES, (1,)),
        "in_signs": (torch.uint8, (packed_bytes(inputs, 1),)), "out_signs": (torch.uint8, (packed_bytes(out, 1),)),
    } | ({"bias": (FLOATS_IN_FILES, (out,))} if "bias" in tensors else {}))
    check_sizes(layout)
    return VectorLinear(layout, tensors)


LAYERS[VECTOR] = _restored
