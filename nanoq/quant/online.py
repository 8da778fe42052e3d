"""Hadamard transforms that a model carries out while it runs."""

from typing import Self

import torch
from torch import Tensor, nn

from nanoq.quant.hadamard import RandomHadamard, core_size
from nanoq.quant.packing import packed_bytes
from nanoq.quant.qlinear import QuantConv2d, check_tensors
from nanoq.store import LAYERS, layer_from_layout, weight_shape

HADAMARD = "hadamard"  # kind of layouts


class HadamardLinear(nn.Module):
    """A linear layer of any kind, packed or not, whose inputs are turned before it reads them.

    The layer underneath, `base`, has the transform's inverse in its weight. It is what a recipe quantises, and what
    activations are rounded for: both meet turned vectors.

    Attributes:
        base: the layer.
        signs: uint8 (bytes,), a bit for each input that is 1 where the sign is negative.
    """

    def __init__(self, base: nn.Module, signs: Tensor):
        super().__init__()
        self.base = base
        self.register_buffer("signs", signs)

    @classmethod
    @torch.no_grad()
    def turned(cls, layer: nn.Linear, turn: RandomHadamard) -> Self:
        """What computes the same as a layer, whose weight is changed in place."""
        layer.weight.copy_(turn(layer.weight.double()))
        return cls(layer, turn.packed().to(layer.weight.device))

    @property
    def turn(self) -> RandomHadamard:
        """The transform."""
        return RandomHadamard.unpacked(self.signs, self.weight_shape[1])

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return weight_shape(self.base)

    @property
    def layout(self) -> dict:
        """What a card keeps."""
        return {"kind": HADAMARD, "base": getattr(self.base, "layout", {"kind": "dense"})}

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x."""
        return self.base(self.turn(x))


def _restored(layout: dict, tensors: dict[str, Tensor]) -> HadamardLinear:
    """The layer of a layout and its tensors.

    Raises:
        ValueError: if they do not fit together, or there is no Hadamard matrix of its inputs.
    """
    own = {name.removeprefix("base."): tensor for name, tensor in tensors.items() if name.startswith("base.")}
    if not isinstance(layout.get("base"), dict) or layout["base"].get("kind") == HADAMARD:
        raise ValueError("it has no layer that reads what is turned")
    base = layer_from_layout(layout["base"], own)
    if isinstance(base, QuantConv2d) or hasattr(base, "stand_in"):
        raise ValueError(f"a {type(base).__name__} does not read vectors that could be turned")
    inputs = weight_shape(base)[1]
    core_size(inputs)
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("base.")}
    check_tensors(rest, {"signs": (torch.uint8, (packed_bytes(inputs, 1),))})
    return HadamardLinear(base, tensors["signs"])


LAYERS[HADAMARD] = _restored
