"""What a smaller type costs: the error of casting, and of sums and products computed in it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nanoq.numbers.floats import FloatFormat, float_format

ORDERS = ("naive", "pairwise", "kahan")


@dataclass(frozen=True)
class DowncastReport:
    """What a cast did to a tensor.

    Attributes:
        max_error: largest absolute error of the numbers that stayed finite.
        mean_error: mean of the same.
        relative_error: root of the mean squared error over that of the mean square, of the same.
        overflowed: finite numbers that became infinity or NaN. A format that has neither saturates: that is error.
        underflowed: numbers other than 0 that became 0.
        bytes_before, bytes_after: of the tensor; bits of a smaller format are counted as if packed.
    """

    max_error: float
    mean_error: float
    relative_error: float
    overflowed: int
    underflowed: int
    bytes_before: int
    bytes_after: int


def downcast_report(tensor: Tensor, kind: FloatFormat | torch.dtype | str) -> DowncastReport:
    """Cast a floating-point tensor to a format, to nearest, and report what that did.

    Raises:
        ValueError: if there is no such format (an integer type needs a scale first: `nanoq.quant.affine_grid`), or the
            tensor is empty or not of a floating-point type.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        raise ValueError(f"numbers of a floating-point type are needed, not {tensor.numel()} of {tensor.dtype}")
    fmt = float_format(kind)
    before = tensor.double()
    after = fmt.round(before)
    stayed = after.isfinite() & before.isfinite()
    error, kept = (after - before)[stayed].abs(), before[stayed].abs()
    largest = kept.max().item() if len(kept) else 0.0  # squares of what is divided by it stay within float64
    return DowncastReport(
        max_error=error.max().item() if len(error) else 0.0,
        mean_error=error.mean().item() if len(error) else 0.0,
        relative_error=((error / largest).norm() / (kept / largest).norm()).item() if largest else 0.0,
        overflowed=int((before.isfinite() & ~after.isfinite()).sum()),
        underflowed=int(((before != 0) & (after == 0)).sum()),
        bytes_before=tensor.numel() * tensor.element_size(),
        bytes_after=-(-tensor.numel() * fmt.bits // 8),
    )


def dot(
    a: Tensor, b: Tensor, kind: FloatFormat | torch.dtype | str, *,
    accumulate: FloatFormat | torch.dtype | str | None = None, order: str = "naive",
) -> Tensor:
    """The dot product along the last dimension as a machine with that type would compute it: float64 (...).

    The factors, whose shapes broadcast, are rounded to the format; every product and every sum is rounded to the one
    that accumulates.

    Args:
        a: factors (..., n).
        b: factors (..., n).
        kind: format of the factors.
        accumulate: format of products and sums; `kind` where it is None.
        order: "naive" adds one after the other; "pairwise" adds halves that were added so themselves; "kahan" carries
            along what the last sum lost (Kahan 1965).

    Raises:
        ValueError: if there is no such format or order, or the factors are empty or of different lengths.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
    if a.shape[-1:] != b.shape[-1:] or not a.numel():
        raise ValueError(f"factors (..., n) of one length are needed, not {tuple(a.shape)} and {tuple(b.shape)}")
    factors, sums = float_format(kind), float_format(kind if accumulate is None else accumulate)
    products = sums.round(factors.round(a.double()) * factors.round(b.double()))
    if order == "pairwise":
        return _pairwise(products, sums)
    total, lost = torch.zeros_like(products[..., 0]), torch.zeros_like(products[..., 0])
    for product in products.unbind(-1):
        if order == "naive":
            total = sums.round(total + product)
        else:
            term = sums.round(product - lost)
            new = sums.round(total + term)
            lost = sums.round(sums.round(new - total) - term)
            total = new
    return total


def _pairwise(terms: Tensor, fmt: FloatFormat) -> Tensor:
    while terms.shape[-1] > 1:
        odd = terms[..., -1:] if terms.shape[-1] % 2 else terms[..., :0]
        even = terms[..., : terms.shape[-1] // 2 * 2]
        terms = torch.cat((fmt.round(even[..., ::2] + even[..., 1::2]), odd), dim=-1)
    return terms[..., 0]


def matmul(
    a: Tensor, b: Tensor, kind: FloatFormat | torch.dtype | str, *,
    accumulate: FloatFormat | torch.dtype | str | None = None, order: str = "naive",
) -> Tensor:
    """The matrix product (m, n) x (n, p) -> float64 (m, p), each entry computed by `dot`."""
    return dot(a[:, None, :], b.T[None, :, :], kind, accumulate=accumulate, order=order)
