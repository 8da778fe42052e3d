"""Integer formats: two's complement, what happens at the ends of the range, and addition bit by bit."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Addition:
    """A sum as the adder forms it.

    Attributes:
        a, b, total: patterns, as strings of binary digits.
        carries: the carry into each digit, aligned with them.
        carry_out: the carry out of the first digit, which has no place in the result.
        value: what the format reads in `total`.
        overflow: whether that is not the true sum.
    """

    a: str
    b: str
    total: str
    carries: str
    carry_out: int
    value: int
    overflow: bool

    def __str__(self) -> str:
        rule = "-" * (len(self.total) + 2)
        return f"  {self.carries}  carries\n  {self.a}\n+ {self.b}\n{rule}\n  {self.total}  = {self.value}" + (
            "  (overflow)" * self.overflow)


@dataclass(frozen=True)
class IntFormat:
    """Integers of a fixed number of bits, in two's complement where they are signed.

    Bit i counts 2**i; in a signed format the first bit, i = bits - 1, counts -2**(bits - 1) instead.

    Attributes:
        bits: 1 to 32.
        signed: whether there are negative numbers.
    """

    bits: int
    signed: bool = True

    def __post_init__(self):
        if self.bits not in range(1, 33):
            raise ValueError(f"bits must be in 1..32, not {self.bits!r}")

    @property
    def name(self) -> str:
        """The field's name, as "int8" or "uint4"."""
        return f"{'' if self.signed else 'u'}int{self.bits}"

    @property
    def min(self) -> int:
        """The smallest number."""
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        """The largest number."""
        return 2 ** (self.bits - self.signed) - 1

    def encode(self, values: Tensor | int) -> Tensor:
        """The pattern of each number: whole numbers -> int64 in 0..2**bits - 1.

        Raises:
            ValueError: if one is not whole or does not fit; `wrap` or `saturate` it first.
        """
        values = _whole(values)
        if ((values < self.min) | (values > self.max)).any():
            raise ValueError(f"{self.name} holds {self.min}..{self.max}, not {int(values.min())}..{int(values.max())}")
        return values & 2**self.bits - 1

    def decode(self, patterns: Tensor | int) -> Tensor:
        """The number that each pattern stands for: 0..2**bits - 1 -> int64.

        Raises:
            ValueError: if a pattern is outside of that range.
        """
        patterns = _whole(patterns)
        if ((patterns < 0) | (patterns >= 2**self.bits)).any():
            raise ValueError(f"patterns of {self.name} lie in 0..{2**self.bits - 1}")
        return self.wrap(patterns)

    def wrap(self, values: Tensor | int) -> Tensor:
        """What is left when only the last `bits` bits are kept: each number modulo 2**bits, within the range."""
        return (_whole(values) - self.min) % 2**self.bits + self.min

    def saturate(self, values: Tensor | float) -> Tensor:
        """Each number, rounded to nearest, halves to even, and held within the range: int64.

        Raises:
            ValueError: for NaN.
        """
        values = _tensor(values)
        if values.is_floating_point():
            if values.isnan().any():
                raise ValueError("NaN is no integer")
            return values.double().round().clamp(self.min, self.max).long()
        return values.long().clamp(self.min, self.max)

    def digits(self, value: int) -> str:
        """The bits of one number, as "11110110" for -10 in int8."""
        return f"{int(self.encode(value)):0{self.bits}b}"

    def add(self, a: int, b: int) -> Addition:
        """Add two numbers digit by digit, from the last to the first, as the hardware does."""
        first, second = int(self.encode(a)), int(self.encode(b))
        carry, carries, total = 0, "", ""
        for i in range(self.bits):
            column = (first >> i & 1) + (second >> i & 1) + carry
            carries, total = f"{carry}{carries}", f"{column & 1}{total}"
            carry = column >> 1
        value = int(self.decode(int(total, 2)))
        return Addition(self.digits(a), self.digits(b), total, carries, carry, value, value != a + b)


def _tensor(values: Tensor | float) -> Tensor:
    """A tensor as it is; a Python float in float64, which is what it is."""
    return torch.as_tensor(values, dtype=torch.float64 if isinstance(values, float) else None)


def _whole(values: Tensor | int) -> Tensor:
    values = _tensor(values)
    if values.is_floating_point() and not ((values == values.round()) & (values.abs() < 2**63)).all():
        raise ValueError("only whole numbers have a pattern, and only below 2**63; round first")
    return values.long()
