"""The ancestors of GPTQ, exact and slow: Optimal Brain Surgeon and Optimal Brain Quantization.

Both settle the weights of a row one after the other, and the free ones make up for it. With H the Hessian of the row
and F the weights that are free, to set weight q off by e costs e**2 / (2 [H_F^-1]_qq) at the least, and for that the
others have to move by -e [H_F^-1]_:q / [H_F^-1]_qq. Each row chooses the order that is cheapest for it, and therefore
needs an inverse of its own: the memory is out * in**2 numbers and the work out * in**3.
"""

import torch
from torch import Tensor

from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import Grid


def obs_prune(weight: Tensor, stats: LayerStats, sparsity: float, *, damping: float = 0.01) -> Tensor:
    """Set a share of each row's weights to 0, always the cheapest, while the others make up for it.

    Hassibi and Stork 1993; layer by layer, Frantar and Alistarh 2022 (arXiv 2208.11580), section 4.

    Args:
        weight: (out, in).
        stats: of the layer's inputs.
        sparsity: share of the weights, 0 to 1.
        damping: share of the mean diagonal that is added to the diagonal of the Hessian.

    Returns:
        The pruned weight, float64 (out, in).

    Raises:
        ValueError: if the sparsity is not in 0..1, or as `gptq` does.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must lie in 0..1, not {sparsity!r}")
    rows = _Rows(weight, stats, damping)
    zeros = torch.zeros_like(rows.weight)
    for _ in range(round(sparsity * weight.shape[1])):
        rows.settle_cheapest(zeros)
    return rows.weight


def obq(weight: Tensor, grid: Grid, stats: LayerStats, *, damping: float = 0.01) -> Tensor:
    """Round the weights of each row in the order of what it costs, the cheapest first: int64 codes (out, in).

    Frantar and Alistarh 2022 (arXiv 2208.11580), section 5.

    Args:
        weight: (out, in).
        grid: of the weight.
        stats: of the layer's inputs.
        damping: share of the mean diagonal that is added to the diagonal of the Hessian.

    Raises:
        ValueError: as `gptq` does.
    """
    rows = _Rows(weight, stats, damping)
    grid.check_fits(weight)
    for _ in range(weight.shape[1]):
        rows.settle_cheapest(grid.decode(grid.encode(rows.weight)).double())
    return grid.encode(rows.weight).long()


class _Rows:
    """Rows (out, in) on their way: which weights are free, and the inverse (out, in, in) of their Hessian."""

    def __init__(self, weight: Tensor, stats: LayerStats, damping: float):
        check_calibration(weight, stats)
        if not damping >= 0:
            raise ValueError(f"damping must be a share of at least 0, not {damping!r}")
        hessian = stats.damped(damping).double()
        if not stats.gram.diagonal().any():
            hessian = torch.eye(weight.shape[1], dtype=torch.float64)  # inputs of 0 leave each weight to itself
        self.weight = weight.double().clone()
        self.free = torch.ones_like(weight, dtype=torch.bool)
        self.inverse = torch.linalg.inv(hessian).repeat(len(weight), 1, 1)

    def settle_cheapest(self, values: Tensor) -> None:
        """In each row set that weight to its value (out, in) for good which costs least."""
        diagonal = self.inverse.diagonal(dim1=1, dim2=2)
        cost = ((self.weight - values).square() / diagonal).where(self.free, torch.inf)
        r, q = torch.arange(len(self.weight)), cost.argmin(1)
        column, pivot = self.inverse[r, :, q], self.inverse[r, q, q, None]
        self.weight -= (self.weight[r, q] - values[r, q])[:, None] / pivot * column
        self.inverse -= column[:, :, None] * (column / pivot)[:, None, :]
        self.weight[r, q], self.free[r, q] = values[r, q], False
        self.inverse[r, q] = self.inverse[r, :, q] = 0  # so that a settled weight stays exactly where it is
        self.inverse[r, q, q] = 1  # not used again, but divided by
