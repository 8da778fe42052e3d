"""Low rank: a weight matrix as the product of two thin ones, and thin corrections to a rounded one.

For outputs y = W x, what is lost by putting A for W is trace((W - A) H (W - A)^T), H the Hessian. With H = C C^T that
is the squared norm of (W - A) C, and the best A of a rank is therefore (the truncated SVD of W C) C^-1. Without
calibration H is the identity, and A the truncated SVD of W itself.
"""

import torch
from torch import Tensor

from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import check_weight


def low_rank(
    weight: Tensor, rank: int, stats: LayerStats | None = None, *, damping: float = 0.01
) -> tuple[Tensor, Tensor]:
    """The two factors whose product is nearest to a weight, or gives the nearest outputs.

    With `stats` it is SVD-LLM's truncation-aware whitening (Wang et al. 2024, arXiv 2403.07378, section 3.1).

    Args:
        weight: (out, in).
        rank: 1 to min(out, in).
        stats: of the layer's inputs; without, the error of the weight counts.
        damping: share of the mean diagonal that is added to the diagonal of the Hessian.

    Returns:
        up (out, rank) and down (rank, in), in the type of the weight: up @ down is the approximation, and both have
        the same Frobenius norm.

    Raises:
        ValueError: if the rank is out of range, the weight holds NaN, the statistics do not fit or cannot be factored,
            or the damping is negative.
    """
    check_weight(weight)
    check_rank(rank, weight.shape)
    if not damping >= 0:
        raise ValueError(f"damping must be a share of at least 0, not {damping!r}")
    if stats is not None:
        check_calibration(weight, stats)
    if stats is None or not stats.gram.diagonal().any():
        u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    else:
        factor, failed = torch.linalg.cholesky_ex(stats.damped(damping).double())  # (in, in), lower
        if failed:
            raise ValueError(f"the Hessian is singular at damping {damping:g}: take more")
        u, s, vt = torch.linalg.svd(weight.double() @ factor, full_matrices=False)
        vt = torch.linalg.solve_triangular(factor, vt, upper=False, left=False)
    up, down = u[:, :rank] * s[:rank], vt[:rank]
    balance = (down.norm() / up.norm().clamp(min=1e-30)).sqrt()
    return (up * balance).to(weight.dtype), (down / balance).to(weight.dtype)


def check_rank(rank: int, shape: tuple[int, int]) -> None:
    """Raise a ValueError for what is no rank of a matrix (out, in)."""
    if not isinstance(rank, int) or rank not in range(1, min(shape) + 1):
        raise ValueError(f"rank must be in 1..{min(shape)} for a weight of shape {tuple(shape)}, not {rank!r}")


def rank_for(shape: tuple[int, int], ratio: float) -> int:
    """The rank at which the two factors have at most a share of a matrix's numbers, at least 1."""
    out, width = shape
    return max(1, int(ratio * out * width / (out + width)))
