"""Weights that packed layers make anew in each call, kept for as long as a model is called again and again."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

LIMIT = 2**30  # bytes of decoded weights that a model may keep


class DecodingLayer(nn.Module):
    """A layer that decodes its weight in each call, or once while `decoded_once` lasts."""

    _keeps = False
    _weight: Tensor | None = None

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        raise NotImplementedError

    def dequantize(self) -> Tensor:
        """The weight as float32 (out, in), made anew."""
        raise NotImplementedError

    def __getstate__(self) -> dict:
        """Without what lasts while `decoded_once` does: a copy has its own."""
        return {name: value for name, value in vars(self).items() if name not in ("_keeps", "_weight")}

    def decoded(self) -> Tensor:
        """The same, which may have been made before: not to be changed."""
        if self._weight is not None:
            return self._weight
        weight = self.dequantize()
        if self._keeps:
            self._weight = weight
        return weight


@contextmanager
def decoded_once(model: nn.Module, limit: int | None = None) -> Iterator[None]:
    """Let the packed layers of a model decode their weights once, at their first call, until the block of code ends.

    What the model computes stays the same, bit for bit, as long as nobody changes its weights meanwhile.

    Args:
        model: of any kind.
        limit: bytes of float32 weights to keep, `LIMIT` by default; layers beyond it decode in each call, as before.
    """
    room, layers = LIMIT if limit is None else limit, []
    for layer in model.modules():
        if isinstance(layer, DecodingLayer) and not layer._keeps:
            rows, columns = layer.weight_shape
            if 4 * rows * columns <= room:
                room -= 4 * rows * columns
                layers.append(layer)
    try:
        for layer in layers:
            layer._keeps = True
        yield
    finally:
        for layer in layers:
            layer._keeps, layer._weight = False, None
