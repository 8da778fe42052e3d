"""Rounding to nearest, the method that every other one is measured against."""

from torch import Tensor

from nanoq.quant.calibrate import LayerStats
from nanoq.quant.grid import Grid


def nearest(weight: Tensor, grid: Grid, stats: LayerStats | None = None) -> Tensor:
    """The nearest grid value of each weight by itself: (out, in) -> int64 codes (out, in).

    It needs no `stats`. Halves go to the value an even number of steps from 0.
    """
    return grid.encode(weight).long()
