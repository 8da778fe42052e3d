"""Floating-point formats down to their bits, from float64 to the 4-bit e2m1.

A *pattern* is the integer whose binary digits are the bits of a number: sign, then exponent field, then fraction.
Without the sign, the patterns of a format number its values in order of size. From one to the next is a step of one
unit in the last place (ulp), the same within a binade and twice as long in the next one. To round to a format is
therefore to round to an integer, and that is how it is done here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SPECIALS = ("ieee", "fn", "fnuz", "none")
ROUNDINGS = ("nearest", "zero", "stochastic")


@dataclass(frozen=True)
class FloatFormat:
    """A binary floating-point format of at most 64 bits.

    A normal number is (-1)**sign * 2**(field - bias) * 1.fraction; a subnormal one, whose exponent field is 0, is
    (-1)**sign * 2**(1 - bias) * 0.fraction (IEEE 754-2019, section 3.4; OCP 8-bit Floating Point, 2023, section 4).

    Attributes:
        name: what it is called.
        exponent: bits of the exponent field, 1 to 11.
        mantissa: bits of the fraction, 0 to 52.
        bias: what is taken off the exponent field; 2**(exponent - 1) - 1 where it is None.
        specials: "ieee" gives the highest exponent field to infinity and NaN; "fn" (finite) gives the pattern of all
            ones to NaN; "fnuz" (finite, unsigned zero) makes NaN of what would be -0; "none" has numbers only.
        signed: whether there is a sign bit.
        subnormals: whether exponent field 0 holds zero and subnormals; if not, it is one more binade.
        dtype: the torch type with these values, if there is one.
    """

    name: str
    exponent: int
    mantissa: int
    bias: int | None = None
    specials: str = "ieee"
    signed: bool = True
    subnormals: bool = True
    dtype: torch.dtype | None = None

    def __post_init__(self):
        if self.exponent not in range(1, 12) or self.mantissa not in range(53):
            raise ValueError("a format has 1 to 11 exponent bits and 0 to 52 fraction bits, so that float64 holds it")
        if self.specials not in SPECIALS:
            raise ValueError(f"specials must be one of {', '.join(SPECIALS)}, not {self.specials!r}")
        if self.specials == "ieee" and not self.mantissa:
            raise ValueError("without a fraction nothing tells infinity from NaN: specials cannot be 'ieee'")
        if self.specials == "fnuz" and not self.signed:
            raise ValueError("without a sign there is no -0 to make NaN of: specials cannot be 'fnuz'")
        if self.bias is None:
            object.__setattr__(self, "bias", 2 ** (self.exponent - 1) - 1)
        highest = 2**self.exponent - 1 - self.has_inf - self.bias
        if highest > 1023 or self._min_exponent - self.mantissa < -1074:
            raise ValueError(f"with a bias of {self.bias} the format goes beyond float64")

    # ---- what it can hold ----

    @property
    def bits(self) -> int:
        """Length of a pattern."""
        return self.signed + self.exponent + self.mantissa

    @property
    def has_inf(self) -> bool:
        """Whether one of the patterns is infinity."""
        return self.specials == "ieee"

    @property
    def has_nan(self) -> bool:
        """Whether one of the patterns is NaN."""
        return self.specials != "none"

    @property
    def max(self) -> float:
        """The largest finite value."""
        return self.decode(self._max_magnitude).item()

    @property
    def min_normal(self) -> float:
        """The smallest positive value whose fraction follows a 1."""
        return 2.0**self._min_exponent

    @property
    def min_subnormal(self) -> float:
        """The smallest positive value; `min_normal` where there are no subnormals."""
        return self.decode(int(self.subnormals)).item()

    @property
    def eps(self) -> float:
        """The distance from 1 to the next larger value."""
        return 2.0**-self.mantissa

    def ulp(self, values: Tensor | float) -> Tensor:
        """The distance between neighbouring values in the binade of each number: float64, NaN where it is not finite.

        Neither the largest value nor the smallest binade's lower end is looked at: beyond `max` it goes on doubling.
        """
        x = _double(values)
        ulp = _times_power(torch.ones_like(x), self._ulp_exponent(x.where(x.isfinite(), 0)))
        return ulp.where(x.isfinite(), torch.nan)

    def values(self) -> Tensor:
        """The values of all 2**bits patterns in the order of the patterns: float64.

        Raises:
            ValueError: for a format of more than 16 bits.
        """
        if self.bits > 16:
            raise ValueError(f"{self.name} has 2**{self.bits} patterns; lists end at 16 bits")
        return self.decode(torch.arange(2**self.bits))

    # ---- from numbers to patterns and back ----

    def round(
        self, values: Tensor | float, rounding: str = "nearest", *, saturate: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The value of the format that each number becomes: float32 for float32 and smaller types, else float64.

        Arguments and errors are those of `encode`.
        """
        rounded = self.decode(self.encode(values, rounding, saturate=saturate, generator=generator))
        narrow = isinstance(values, Tensor) and values.is_floating_point() and values.dtype != torch.float64
        return rounded.float() if narrow else rounded

    def encode(
        self, values: Tensor | float, rounding: str = "nearest", *, saturate: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The pattern of the value that each number becomes: numbers -> int64 of the same shape.

        A number too small for a format without zero becomes its smallest value. The 64-bit patterns of negative
        numbers are negative, as int64 has it.

        Args:
            values: the numbers.
            rounding: "nearest" (halves to even, or up where there is no fraction), "zero" (cut off), or "stochastic"
                (up or down by chance, so that the mean is right).
            saturate: whether a number too large, infinity included, becomes the largest finite value. Otherwise it
                becomes infinity; where there is none, NaN; where there is neither, the largest value.
            generator: for "stochastic".

        Raises:
            ValueError: for NaN where the format has none, a negative number where it has no sign, or an unknown
                rounding.
        """
        x = _double(values)
        if not self.has_nan and x.isnan().any():
            raise ValueError(f"{self.name} has no NaN")
        if not self.signed and (x < 0).any():
            raise ValueError(f"{self.name} has no negative numbers")
        # in steps of the last place of its binade; what rounds up to the next one carries into the exponent
        size = x.abs().where(x.isfinite(), 0)
        ulp = self._ulp_exponent(size)
        binade = ulp + self.mantissa - self._min_exponent
        steps = _whole(_times_power(size, -ulp), rounding, generator).long()
        magnitude = ((binade << self.mantissa) + steps - self._hidden_at_zero).clamp(min=0)
        # beyond the range, and NaN
        if rounding == "zero":
            magnitude.clamp_(max=self._max_magnitude)  # cutting off never leaves the range
        too_large = (magnitude > self._max_magnitude) | x.isinf()
        magnitude = magnitude.where(~too_large, self._max_magnitude if saturate else self._overflow)
        magnitude = magnitude.where(~x.isnan(), self._nan)
        # the sign
        if not self.signed:
            return magnitude
        negative = x.signbit() & (magnitude != 0) if self.specials == "fnuz" else x.signbit()
        return magnitude | negative.long() << self.bits - 1

    def decode(self, patterns: Tensor | int) -> Tensor:
        """The value of each pattern: integers -> float64 of the same shape.

        Raises:
            ValueError: if a pattern has more than `bits` bits.
        """
        patterns = torch.as_tensor(patterns).long()
        sign, field, fraction = self.fields(patterns)
        normal = (field > 0) | (not self.subnormals)
        exponent = field.clamp(min=int(self.subnormals)) - self.bias
        size = _times_power(((normal.long() << self.mantissa) + fraction).double(), exponent - self.mantissa)
        if self.has_inf:
            top = field == 2**self.exponent - 1
            size = size.where(~top, torch.inf).where(~(top & (fraction != 0)), torch.nan)
        elif self.has_nan:
            nan = patterns if self.specials == "fnuz" else patterns & self._all_ones
            size = size.where(nan != self._nan, torch.nan)
        return size.where(sign == 0, -size)

    def fields(self, patterns: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Sign bit, exponent field and fraction of each pattern, as integers.

        Raises:
            ValueError: if a pattern has more than `bits` bits.
        """
        patterns = torch.as_tensor(patterns).long()
        if self.bits < 64 and ((patterns < 0) | (patterns >> self.bits != 0)).any():
            raise ValueError(f"patterns of {self.name} lie in 0..2**{self.bits} - 1")
        sign = patterns >> self.bits - 1 & 1 if self.signed else torch.zeros_like(patterns)
        field = patterns >> self.mantissa & 2**self.exponent - 1
        return sign, field, patterns & 2**self.mantissa - 1

    def digits(self, pattern: int) -> str:
        """The bits of one pattern, its fields apart: "0 01111 0000000000" is 1 in fp16."""
        sign, field, fraction = (int(part) for part in self.fields(pattern))
        parts = [(sign, int(self.signed)), (field, self.exponent), (fraction, self.mantissa)]
        return " ".join(f"{value:0{bits}b}" for value, bits in parts if bits)

    def kind(self, pattern: int) -> str:
        """What one pattern is: "zero", "subnormal", "normal", "infinity" or "NaN"."""
        value = self.decode(pattern)
        if value.isnan():
            return "NaN"
        if value.isinf():
            return "infinity"
        if value == 0:
            return "zero"
        return "normal" if value.abs() >= self.min_normal else "subnormal"

    @property
    def _min_exponent(self) -> int:
        return int(self.subnormals) - self.bias

    @property
    def _hidden_at_zero(self) -> int:
        """The leading 1 that counts as a step where exponent field 0 is a binade like the others."""
        return 0 if self.subnormals else 2**self.mantissa

    @property
    def _all_ones(self) -> int:
        return 2 ** (self.exponent + self.mantissa) - 1

    @property
    def _max_magnitude(self) -> int:
        return self._all_ones - {"ieee": 2**self.mantissa, "fn": 1, "fnuz": 0, "none": 0}[self.specials]

    @property
    def _overflow(self) -> int:
        return self._max_magnitude + 1 if self.has_inf else self._nan

    @property
    def _nan(self) -> int:
        quiet = self._all_ones - 2**self.mantissa + 1 | 2**self.mantissa >> 1
        return {"ieee": quiet, "fn": self._all_ones, "fnuz": self._all_ones + 1,
                "none": self._max_magnitude}[self.specials]

    def _ulp_exponent(self, finite: Tensor) -> Tensor:
        """log2 of the ulp at each finite number."""
        binade = finite.frexp().exponent.long() - 1
        return binade.where(finite != 0, self._min_exponent).clamp(min=self._min_exponent) - self.mantissa


def _double(values: Tensor | float) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _times_power(x: Tensor, exponent: Tensor) -> Tensor:
    """Multiply by 2**exponent exactly: in two steps, as the power by itself may lie outside of float64."""
    half = exponent >> 1
    return x * _power(half) * _power(exponent - half)


def _power(exponent: Tensor) -> Tensor:
    """2.0**exponent for -1022..1023, made of its bits."""
    return (exponent + 1023 << 52).view(torch.float64)


def _whole(x: Tensor, rounding: str, generator: torch.Generator | None) -> Tensor:
    """Round numbers of at least 0 to whole ones."""
    if rounding == "nearest":
        return x.round()
    if rounding == "zero":
        return x.floor()
    if rounding == "stochastic":
        low = x.floor()
        return low + (torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) < x - low)
    raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}, not {rounding!r}")


FLOATS = {
    fmt.name: fmt
    for fmt in (
        FloatFormat("fp64", 11, 52, dtype=torch.float64),
        FloatFormat("fp32", 8, 23, dtype=torch.float32),
        FloatFormat("tf32", 8, 10),  # 19 bits, which GPUs compute with and store in 32
        FloatFormat("fp16", 5, 10, dtype=torch.float16),
        FloatFormat("bf16", 8, 7, dtype=torch.bfloat16),
        FloatFormat("e4m3fn", 4, 3, specials="fn", dtype=torch.float8_e4m3fn),
        FloatFormat("e5m2", 5, 2, dtype=torch.float8_e5m2),
        FloatFormat("e4m3fnuz", 4, 3, bias=8, specials="fnuz", dtype=torch.float8_e4m3fnuz),
        FloatFormat("e5m2fnuz", 5, 2, bias=16, specials="fnuz", dtype=torch.float8_e5m2fnuz),
        FloatFormat("e3m2", 3, 2, specials="none"),
        FloatFormat("e2m3", 2, 3, specials="none"),
        FloatFormat("e2m1", 2, 1, specials="none"),
        FloatFormat("e8m0", 8, 0, bias=127, specials="fn", signed=False, subnormals=False,
                    dtype=getattr(torch, "float8_e8m0fnu", None)),  # torch 2.7 and newer
    )
}


def float_format(kind: FloatFormat | torch.dtype | str) -> FloatFormat:
    """A format by itself, by its name in `FLOATS`, or by its torch type.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(kind, FloatFormat):
        return kind
    for fmt in FLOATS.values():
        if kind == fmt.name or (fmt.dtype is not None and kind == fmt.dtype):
            return fmt
    raise ValueError(f"no floating-point format {kind!r}: there are {', '.join(FLOATS)}")
