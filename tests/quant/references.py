"""Slow and plain forms of GPTQ, written from the papers, that the fast one has to agree with."""

from dataclasses import replace

import torch
from torch import Tensor

from nanoq.quant import Grid


def groups_of(grid: Grid) -> list[Grid]:
    """One grid for each group of columns."""
    return [
        replace(grid, scale=grid.scale[:, g : g + 1], packed_scale=None,
                zero_point=None if grid.zero_point is None else grid.zero_point[:, g : g + 1])
        for g in range(grid.scale.shape[1])
    ]


def column_of(grid: Grid, index: int) -> Grid:
    """The grid of one column."""
    groups = groups_of(grid)
    return groups[index // grid.group_size if len(groups) > 1 else 0]


def damped(gram: Tensor, damping: float = 0.01) -> Tensor:
    """The Hessian with a share of its mean diagonal added."""
    return gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def classic_gptq(weight: Tensor, grid: Grid, gram: Tensor, block: int = 16) -> Tensor:
    """Algorithm 1 of Frantar et al. 2022: the Cholesky factor of the inverse, lazy batches of columns."""
    w, n = weight.clone(), weight.shape[1]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(gram)))
    u = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.zeros_like(w)
    for start in range(0, n, block):
        stop = min(start + block, n)
        errors = torch.zeros_like(w[:, start:stop])
        for j in range(start, stop):
            column = column_of(grid, j)
            codes[:, j : j + 1] = column.encode(w[:, j : j + 1])
            value = column.decode(codes[:, j : j + 1])[:, 0]
            errors[:, j - start] = (w[:, j] - value) / u[j, j]
            w[:, j:stop] -= errors[:, j - start, None] * u[j, j:stop]
        w[:, stop:] -= errors @ u[start:stop, stop:]
    return codes.long()


def obq_in_order(weight: Tensor, grid: Grid, gram: Tensor) -> Tensor:
    """OBQ (Frantar and Alistarh 2022) with a fixed order: eliminate each column from the inverse Hessian."""
    w, n = weight.clone(), weight.shape[1]
    inverse = torch.linalg.inv(damped(gram))
    codes = torch.zeros_like(w)
    for j in range(n):
        column = column_of(grid, j)
        codes[:, j : j + 1] = column.encode(w[:, j : j + 1])
        value = column.decode(codes[:, j : j + 1])[:, 0]
        w -= ((w[:, j] - value) / inverse[j, j])[:, None] * inverse[j]
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j, j] = 1  # the row is zero now and never read again; 1 keeps a later division finite
    return codes.long()


def stale_gptq(weight: Tensor, grid: Grid, gram: Tensor) -> Tensor:
    """The student project's recursion: rows of the inverse that no column was eliminated from. Wrong on purpose."""
    w, n = weight.clone(), weight.shape[1]
    inverse = torch.linalg.inv(damped(gram))
    codes = torch.zeros_like(w)
    for j in range(n):
        column = column_of(grid, j)
        codes[:, j : j + 1] = column.encode(w[:, j : j + 1])
        value = column.decode(codes[:, j : j + 1])[:, 0]
        w[:, j + 1 :] -= ((w[:, j] - value) / inverse[j, j])[:, None] * inverse[j, j + 1 :]
    return codes.long()


def babai(row: Tensor, scale: float, gram: Tensor) -> Tensor:
    """Babai's nearest plane: whole numbers z for which scale * z is near a row (n,) in the norm of the Hessian.

    The lattice is spanned by the columns of a matrix B with B^T B = scale**2 * H. The algorithm settles its last basis
    vector first, so that the columns are turned round.
    """
    basis = scale * torch.linalg.cholesky(damped(gram)).T.flip(1)  # (n, n)
    orthogonal, triangle = torch.linalg.qr(basis)
    rest = orthogonal.T @ (basis @ (row.flip(0) / scale))
    codes = torch.zeros_like(row)
    for k in reversed(range(len(row))):
        codes[k] = torch.round(rest[k] / triangle[k, k])
        rest -= codes[k] * triangle[:, k]
    return codes.flip(0).long()
