"""Hadamard matrices: square, of entries 1 and -1, with orthogonal rows; and the fast product with them.

H_n for n = K * 2**m is the Kronecker product of Sylvester's H_(2**m), whose product takes m rounds of additions, and a
matrix of K rows by Paley (1933, "On orthogonal matrices"): K = q + 1 for a prime power q = 3 mod 4 (his construction I)
or K = 2 (q + 1) for q = 1 mod 4 (II). Which differences of two elements of the field of q elements are squares says
which entries are 1. That gives 12, 20, 28, 36, 44, 52, 60, ..., not 92 or 172, which take other constructions.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Self

import torch
from torch import Tensor

from nanoq.quant.packing import pack, unpack


def core_size(n: int) -> int:
    """K of n = K * 2**m: 1 for a power of two, otherwise the smallest size by Paley that leaves one.

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"a Hadamard matrix has a positive whole number of rows, not {n!r}")
    size = n // (n & -n)  # its odd part
    if size == 1:
        return 1
    while n % (2 * size) == 0:
        size *= 2
        if _paley(size):
            return size
    raise ValueError(f"no Hadamard matrix of {n} rows is known here: {n} must be a power of two, or one times q + 1 or "
                     "2 (q + 1) for a prime power q (the constructions of Sylvester and Paley)")


def hadamard_matrix(n: int) -> Tensor:
    """The matrix H (n, n) of entries 1 and -1 with H H^T = n I, float32: x H is what `hadamard_transform` is fast at.

    Raises:
        ValueError: if there is no construction for n.
    """
    return (hadamard_transform(torch.eye(n, dtype=torch.float64)) * n**0.5).round().float()


def hadamard_transform(x: Tensor, transposed: bool = False) -> Tensor:
    """Products x H / sqrt(n) along the last dimension (..., n), or x H^T / sqrt(n), which undoes it; in the type of x.

    It takes n log2(n / K) additions and n K multiplications; a product with the whole matrix takes n**2.

    Raises:
        ValueError: if there is no construction for n.
    """
    n = x.shape[-1]
    core = _core(core_size(n)).to(x)
    y = x.unflatten(-1, (-1, len(core)))
    if len(core) > 1:
        y = y @ (core.T if transposed else core)
    half = 1
    while half * len(core) < n:
        first, second = y.unflatten(-2, (-1, 2, half)).unbind(-3)  # (..., n / (2 half K), half, K) each
        y = torch.stack((first + second, first - second), -3).flatten(-4, -2)
        half *= 2
    return y.flatten(-2) * n**-0.5


@dataclass(frozen=True, eq=False)
class RandomHadamard:
    """The orthonormal matrix Q = D H / sqrt(n), D a diagonal of random signs: with them no vector is special.

    A Hadamard matrix alone gathers the mean of a vector in one coordinate, sqrt(n) times as large.

    Attributes:
        signs: 1 and -1, (n,).
    """

    signs: Tensor

    @classmethod
    def draw(cls, n: int, generator: torch.Generator) -> Self:
        """A random one of n rows.

        Raises:
            ValueError: if there is no construction for n.
        """
        core_size(n)
        return cls(1.0 - 2.0 * torch.randint(2, (n,), generator=generator))

    @classmethod
    def unpacked(cls, bits: Tensor, n: int) -> Self:
        """The one of n rows whose signs `packed` gave, on the same device."""
        return cls(1.0 - 2.0 * unpack(bits, 1, n).float())

    def packed(self) -> Tensor:
        """A bit for each sign, 1 where it is negative: uint8 (bytes,)."""
        return pack((self.signs < 0).long(), 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Products x Q of vectors (..., n), in the type of x."""
        return hadamard_transform(x * self.signs.to(x))

    def inverse(self, y: Tensor) -> Tensor:
        """Products y Q^T of vectors (..., n): what the call was given."""
        return hadamard_transform(y, transposed=True) * self.signs.to(y)


# ---- Paley ----


def _paley(size: int) -> tuple[int, int, int] | None:
    """The prime p, the power k and the construction, 1 or 2, that give a matrix of so many rows; None if none does."""
    for kind, q in ((1, size - 1), (2, size // 2 - 1)):
        if size % 4 == 0 and q % 4 == (3 if kind == 1 else 1) and (field := _prime_power(q)):
            return *field, kind
    return None


def _prime_power(q: int) -> tuple[int, int] | None:
    """The prime p and k, 1 to 3, with q = p**k."""
    p = next((d for d in range(2, int(q**0.5) + 1) if q % d == 0), q)
    return next(((p, k) for k in (1, 2, 3) if q > 1 and p**k == q), None)


@lru_cache(maxsize=32)
def _core(size: int) -> Tensor:
    """The matrix of K rows, float64 (K, K)."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    p, k, kind = _paley(size)
    character = _quadratic_character(p, k)  # (q, q)
    border = torch.ones(len(character) + 1, len(character) + 1, dtype=torch.float64)
    border[0, 0], border[1:, 1:] = 0, character
    identity = torch.eye(len(border), dtype=torch.float64)
    if kind == 1:
        border[1:, 0] = -1
        return border + identity
    return (torch.kron(border, torch.tensor([[1.0, 1], [1, -1]], dtype=torch.float64))
            + torch.kron(identity, torch.tensor([[1.0, -1], [-1, -1]], dtype=torch.float64)))


def _quadratic_character(p: int, k: int) -> Tensor:
    """Of the differences a - b of all elements of the field of p**k: 1 for squares, -1 for the others, 0 for 0.

    An element is a polynomial of degree below k over the integers modulo p; they are multiplied modulo one of degree k
    that has no root, which for k up to 3 is one without factors.
    """
    elements = list(product(range(p), repeat=k))
    reduce = (0,) if k == 1 else next(c for c in elements if not _has_root(c, p))
    squares = {_square(a, reduce, p) for a in elements[1:]}
    values = torch.tensor([0] + [1 if a in squares else -1 for a in elements[1:]], dtype=torch.float64)
    digits = torch.tensor(elements)  # (q, k), the number of an element being its digits in base p
    difference = (digits[:, None] - digits) % p
    return values[(difference * p ** torch.arange(k - 1, -1, -1)).sum(-1)]


def _has_root(c: tuple[int, ...], p: int) -> bool:
    """Whether x**k = c[0] + c[1] x + ... has a solution modulo p, k being the number of coefficients."""
    return any((x ** len(c) - sum(ci * x**i for i, ci in enumerate(c))) % p == 0 for x in range(p))


def _square(a: tuple[int, ...], reduce: tuple[int, ...], p: int) -> tuple[int, ...]:
    """The square of a polynomial of k coefficients, the lowest first, modulo x**k - reduce and p."""
    k = len(a)
    full = [sum(a[i] * a[n - i] for i in range(k) if 0 <= n - i < k) for n in range(2 * k - 1)]
    for degree in range(2 * k - 2, k - 1, -1):
        for i in range(k):
            full[degree - k + i] += full[degree] * reduce[i]
    return tuple(value % p for value in full[:k])
