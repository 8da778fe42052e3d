"""How an answer differs from the right one: in its values, or in their form alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from decimal import Decimal
from numbers import Integral, Real

import numpy as np
import torch

MAX_VALUES_SHOWN = 8

Array = (torch.Tensor, np.ndarray)
Bool = (bool, np.bool_)


class Form(str):
    """A difference of form alone: the values are right, and this says what they should come as."""


def difference(expected: object, got: object, rtol: float = 1e-4) -> str | None:
    """Say in one clause how `got` differs from `expected`; None if they agree.

    Values first: integers, booleans and strings have to be equal (strings up to case and outer blanks), floats within
    `rtol` relative or 1e-6 absolute, tensors have the same shape. What then differs in form alone is

    - accepted where it does no harm: a number of any type or a tensor with one element for a number, a tuple, a list or
      the rows of a tensor for each other, integers for floats, any width (int8 codes equal the same int64 codes), any
      subclass;
    - told as a `Form` otherwise: an array or a list where a tensor is expected, a float where an integer or a bool is.
    """
    if isinstance(expected, Array) and not expected.shape:
        expected = expected.item()
    if isinstance(expected, Array):
        return _array_difference(expected, got, rtol)
    if isinstance(expected, (tuple, list)):
        return _sequence_difference(expected, got, rtol)
    if isinstance(got, Array) and math.prod(got.shape) == 1:
        got = got.item()  # a 0-d tensor is as good as a number, and the other way round
    elif isinstance(got, (tuple, list)) and len(got) == 1 and _scalar_difference(expected, got[0], rtol) is None:
        return Form(f"the value is right; return it by itself, {summary(got[0])} instead of {summary(got)}")
    return _scalar_difference(expected, got, rtol)


def _scalar_difference(expected: object, got: object, rtol: float) -> str | None:
    plain = f"expected {summary(expected)}, got {summary(got)}"
    if isinstance(expected, Bool):
        if not isinstance(got, Bool) and isinstance(got, Real) and got == expected:
            return Form(f"True or False is wanted, not {summary(got)}: bool(...)")
        return None if isinstance(got, Bool) and bool(got) == bool(expected) else plain
    if isinstance(expected, Real):
        return None if _equal_numbers(expected, got, rtol) else plain
    if isinstance(expected, str) and isinstance(got, str):
        return None if expected.strip().casefold() == got.strip().casefold() else plain
    return None if type(got) is type(expected) and expected == got else plain


def _equal_numbers(expected: Real, got: object, rtol: float) -> bool:
    if isinstance(got, Bool) or not isinstance(got, (Real, Decimal)):
        return False  # 1 == True in Python, but a yes or no does not answer how many
    if isinstance(expected, Integral):
        return got == expected or math.isclose(expected, got, rel_tol=1e-12, abs_tol=1e-9)  # 2 ** 3.0, by logarithms
    both_nan = math.isnan(expected) and math.isnan(got)
    return both_nan or math.isclose(expected, got, rel_tol=rtol, abs_tol=1e-6)


def _array_difference(expected: torch.Tensor | np.ndarray, got: object, rtol: float) -> str | None:
    want, have = torch.as_tensor(expected).detach(), _as_tensor(got)
    if have is None:
        return f"expected {summary(expected)}, got {summary(got)}"
    if have.shape != want.shape:
        return f"expected shape {tuple(want.shape)}, got {tuple(have.shape)}"
    wrong = ~torch.isclose(have.double(), want.double(), rtol=rtol if _kind(want) == "float" else 0,
                           atol=1e-6, equal_nan=True)  # fmt: skip
    if not wrong.any():
        return _form_difference(expected, got, _kind(want), _kind(have))
    if _kind(have) != _kind(want):
        return f"expected {_kind(want)} values, got {_kind(have)} values"
    if want.numel() <= MAX_VALUES_SHOWN:
        return f"expected {summary(want)}, got {summary(have)}"
    first = tuple(wrong.nonzero()[0].tolist())
    return (f"{int(wrong.sum())} of {wrong.numel()} values differ, the first at {list(first)}: "
            f"expected {summary(want[first].item())}, got {summary(have[first].item())}")


def _form_difference(expected: object, got: object, want: str, have: str) -> Form | None:
    """Values that agree: does the container do, and the kind of number?"""
    if isinstance(expected, torch.Tensor) and not isinstance(got, torch.Tensor):
        how = "torch.from_numpy(...)" if isinstance(got, np.ndarray) else "torch.tensor(...), or torch.stack of tensors"
        return Form(f"the values are right; return a torch.Tensor of them: {how}")
    if want == have or (want, have) == ("float", "integer"):
        return None
    how = {"bool": ".bool()", "integer": ".long()", "float": ".float()"}[want]
    return Form(f"the values are right, but their type is {have} and should be {want}: {how}")


def _as_tensor(value: object) -> torch.Tensor | None:
    """A tensor with the values of a tensor, an array, or nested lists of numbers; None of anything else."""
    try:
        if isinstance(value, Array):
            return torch.as_tensor(value).detach().as_subclass(torch.Tensor)
        return torch.as_tensor(np.asarray(_plain(value))) if isinstance(value, (tuple, list)) else None
    except (TypeError, ValueError, RuntimeError):
        return None


def _plain(value: object) -> object:
    if isinstance(value, Array):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def _sequence_difference(expected: Sequence, got: object, rtol: float) -> str | None:
    if isinstance(got, Array) and got.shape:
        got = list(got)
    if not isinstance(got, Sequence) or isinstance(got, str):
        return f"expected {len(expected)} values, got {summary(got)}"
    if len(got) != len(expected):
        return f"expected {len(expected)} values, got {len(got)}"
    messages = [(i, difference(want, have, rtol)) for i, (want, have) in enumerate(zip(expected, got, strict=True))]
    return worst([m and type(m)(f"value {i}: {m}") for i, m in messages])


def worst(messages: Sequence[str | None]) -> str | None:
    """The first difference of values, or the first of form if there is none of values."""
    said = [message for message in messages if message]
    return next((message for message in said if not isinstance(message, Form)), next(iter(said), None))


def wrong_dtype(expected: object, got: object, dtype: torch.dtype) -> Form | None:
    """A complaint if a tensor of the right values has another dtype than this, which the right answer has."""
    if isinstance(expected, (tuple, list)):
        return worst([wrong_dtype(want, have, dtype) for want, have in zip(expected, got, strict=True)])
    if getattr(expected, "dtype", None) != dtype or not isinstance(got, torch.Tensor) or got.dtype == dtype:
        return None
    names = (str(each).removeprefix("torch.") for each in (got.dtype, dtype))
    return Form("the values are right, but they are {}, and {} is asked for: .to({})".format(*names, dtype))


def no_number(expected: object, got: object) -> Form | None:
    """A complaint if there is a tensor or an array of the right value where the right answer has a Python number."""
    if isinstance(expected, (tuple, list)):
        if isinstance(got, Array):
            return Form(f"the values are right; return {len(expected)} Python numbers of them, not one {name_of(got)}")
        return worst([no_number(want, have) for want, have in zip(expected, got, strict=True)])
    if not isinstance(expected, Real) or not isinstance(got, Array):
        return None
    return Form("the value is right, but it is a tensor, and a Python number is asked for: .item()")


def _kind(tensor: torch.Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "integer"


def summary(value: object) -> str:
    """A value in a few words, on one line."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Array):
        name = "tensor" if isinstance(value, torch.Tensor) else "array"
        if math.prod(value.shape) > MAX_VALUES_SHOWN:
            return f"{'a' if name == 'tensor' else 'an'} {name} of shape {tuple(value.shape)}"
        values = np.asarray(value.tolist())
        text = np.array2string(values, separator=", ", formatter={"float_kind": "{:.4g}".format})
        return f"{name}({' '.join(text.split())})"
    if callable(value):
        return f"the function {name_of(value)}"
    text = " ".join(repr(value).split())
    if len(text) > 80 and is_dataclass(value):  # a grid with its tensors
        return f"{name_of(value)}(…)"
    return text if len(text) <= 80 else text[:77] + "..."


def name_of(function: Callable) -> str:
    """What a function is called."""
    return getattr(function, "__name__", type(function).__name__)
