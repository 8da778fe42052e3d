"""Muon: momentum whose update is orthogonalised, for the matrices of a network."""

import torch
from torch import Tensor


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Move every singular value of (..., m, n) matrices towards 1 by a quintic Newton-Schulz iteration.

    The coefficients are Jordan et al.'s (Muon, 2024): five steps bring singular values into about [0.7, 1.2],
    which is all that an update direction needs.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised (Jordan et al. 2024), with decoupled weight decay.

    torch's own `torch.optim.Muon` iterates in bfloat16, which a CPU without bf16 units multiplies tens of times
    slower than float32; this one iterates in the type that it is given and batches matrices of equal shape.

    Args:
        params: matrices (m, n). A fused projection whose rows are several square matrices, (k n, n) with k = 3,
            is orthogonalised as k matrices.
        lr: step size; an update has a root-mean-square size of about lr / sqrt(n), for one matrix (m, n).
        momentum: decay of the running sum of gradients.
        weight_decay: fraction of a weight removed per unit of lr.
        iterate_in: type of the Newton-Schulz iteration.
    """

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0,
                 iterate_in: torch.dtype = torch.float32):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.iterate_in = iterate_in

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                self._step_equal_shapes(params, shape, group)

    def _step_equal_shapes(self, params: list[Tensor], shape: torch.Size, group: dict) -> None:
        updates = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            updates.append(p.grad.lerp(state["momentum"], group["momentum"]))
        rows, cols = shape
        parts = 3 if rows == 3 * cols else 1
        stacked = torch.stack(updates).view(-1, rows // parts, cols).to(self.iterate_in)
        stacked = orthogonalize(stacked).view(-1, rows, cols).to(updates[0].dtype)
        scale = max(1.0, rows / parts / cols) ** 0.5  # keeps the change of the output's size equal for tall matrices
        for p, update in zip(params, stacked, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update, alpha=-group["lr"] * scale)
