"""The oracles are numbers worked out by hand, and numpy's and torch's own small types, which round after each step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoq.numbers import dot, downcast_report, matmul


def factors(n, seed=0, rows=None):
    x = torch.randn(2, *([rows] if rows else []), n, generator=torch.Generator().manual_seed(seed))
    return x[0], x[1]


# ---- casts ----


def test_a_report_worked_out_by_hand():
    x = torch.tensor([2049.0, 70000.0, 2.0**-30, 0.0, torch.inf, -3.0])
    report = downcast_report(x, "fp16")
    # 2049 is a tie and becomes 2048; 70000 becomes infinity; 2**-30 becomes 0; infinity was no number before.
    assert (report.overflowed, report.underflowed) == (1, 1)
    assert report.max_error == 1
    assert report.mean_error == (1 + 2.0**-30) / 4
    assert report.relative_error == pytest.approx((1 + 2.0**-60) ** 0.5 / (2049**2 + 9) ** 0.5, rel=1e-12)
    assert (report.bytes_before, report.bytes_after) == (24, 12)


@pytest.mark.parametrize(("kind", "overflowed"), [
    ("e4m3fn", 2), ("e5m2", 1), ("fp16", 1), ("bf16", 0), ("e2m1", 0),  # e2m1 has neither infinity nor NaN to become
])
def test_overflow_is_to_become_infinity_or_nan(kind, overflowed):
    assert downcast_report(torch.tensor([1.0, 500.0, -1e6]), kind).overflowed == overflowed


@pytest.mark.parametrize(("kind", "underflowed"), [("fp16", 2), ("bf16", 0), ("e4m3fn", 3), ("e8m0", 0)])
def test_underflow_is_to_become_zero(kind, underflowed):
    assert downcast_report(torch.tensor([1e-12, 0.0, 2.0**-25, 1e-5]), kind).underflowed == underflowed


@pytest.mark.parametrize(("kind", "size"), [
    ("fp64", 72), ("fp32", 36), ("tf32", 22), ("fp16", 18), ("e5m2", 9), ("e3m2", 7), ("e2m1", 5),
])
def test_bytes_are_counted_as_if_packed(kind, size):
    report = downcast_report(torch.ones(3, 3), kind)
    assert (report.bytes_before, report.bytes_after) == (36, size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_errors_are_those_of_the_cast_in_torch(dtype):
    x = factors(10_000)[0]
    error = (x.to(dtype).double() - x.double()).abs()
    report = downcast_report(x, dtype)
    assert report.max_error == error.max()
    assert report.mean_error == pytest.approx(error.mean().item(), rel=1e-9)
    assert report.relative_error == pytest.approx((error.norm() / x.double().norm()).item(), rel=1e-9)


def test_a_wider_type_costs_nothing():
    report = downcast_report(factors(100)[0].half(), "fp32")
    assert (report.max_error, report.mean_error, report.relative_error) == (0, 0, 0)
    assert (report.bytes_before, report.bytes_after) == (200, 400)


@pytest.mark.parametrize("x", [torch.zeros(5), torch.full((5,), torch.inf), torch.full((5,), 1e30)])
def test_where_no_number_is_left_the_errors_are_zero(x):
    report = downcast_report(x, "fp16")
    assert (report.max_error, report.mean_error, report.relative_error) == (0, 0, 0)


@pytest.mark.parametrize(("x", "kind", "message"), [
    (torch.ones(3), "int8", "no floating-point format"), (torch.ones(3), torch.int8, "no floating-point format"),
    (torch.ones(3, dtype=torch.int32), "fp16", "numbers of a floating-point type"),
    (torch.ones(0), "fp16", "not 0 of torch.float32"), (torch.tensor([torch.nan]), "e2m1", "has no NaN"),
])
def test_what_cannot_be_cast_is_an_error_that_says_why(x, kind, message):
    with pytest.raises(ValueError, match=message):
        downcast_report(x, kind)


# ---- sums and products ----


def naive(products):
    total = products[0] - products[0]
    for product in products:
        total = total + product
    return total


def halves(products):
    if len(products) == 1:
        return products[0]
    middle = len(products) // 2
    return halves(products[:middle]) + halves(products[middle:])


def kahan(products):
    total = lost = products[0] - products[0]
    for product in products:
        term = product - lost
        new = total + term
        lost = (new - total) - term
        total = new
    return total


SUMS = {"naive": naive, "pairwise": halves, "kahan": kahan}


@pytest.mark.parametrize("order", SUMS)
@pytest.mark.parametrize(("kind", "scalar"), [("fp16", np.float16), ("fp32", np.float32), ("fp64", np.float64)])
def test_dot_is_what_scalars_of_numpy_give(kind, scalar, order):
    for seed in range(5):
        a, b = factors(128, seed)  # a power of two: the halves of halves are pairs of neighbours
        products = [scalar(x) * scalar(y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
        assert dot(a, b, kind, order=order).item() == float(SUMS[order](products))


@pytest.mark.parametrize("order", SUMS)
def test_dot_in_bf16_is_what_scalars_of_torch_give(order):
    a, b = factors(128)
    products = list(a.bfloat16() * b.bfloat16())
    assert dot(a, b, torch.bfloat16, order=order) == SUMS[order](products).double()


@pytest.mark.parametrize("order", SUMS)
def test_products_and_sums_are_rounded_to_what_accumulates(order):
    a, b = factors(64)
    products = [np.float32(x) * np.float32(y) for x, y in zip(a.half().numpy(), b.half().numpy(), strict=True)]
    assert dot(a, b, "fp16", accumulate="fp32", order=order).item() == float(SUMS[order](products))


def test_pairs_of_an_odd_number_of_terms():
    x = [1, 2**-11, 2**-11, 2**-11, 2**-12]  # in fp16, 1 + 2**-11 is 1
    terms = np.float16(x)
    wanted = ((terms[0] + terms[1]) + (terms[2] + terms[3])) + terms[4]
    assert dot(torch.tensor(x), torch.ones(5), "fp16", order="pairwise").item() == float(wanted) == 1 + 2**-10
    assert dot(torch.tensor(x), torch.ones(5), "fp16").item() == 1


@pytest.mark.parametrize(("kind", "stops"), [("fp16", 2048), ("bf16", 256), ("e4m3fn", 16)])
def test_a_sum_of_4096_ones_stops_where_the_ulp_becomes_two(kind, stops):
    ones = torch.ones(4096)
    assert dot(ones, ones, kind).item() == stops


@pytest.mark.parametrize("repaired", [{"order": "kahan"}, {"order": "pairwise"}, {"accumulate": "fp32"}], ids=str)
@pytest.mark.parametrize(("kind", "count"), [("fp16", 2304), ("bf16", 512)])
def test_what_repairs_the_sum_of_ones(kind, count, repaired):
    ones = torch.ones(count)
    assert dot(ones, ones, kind, **repaired).item() == count


@pytest.mark.parametrize("better", [{"order": "kahan"}, {"order": "pairwise"}, {"accumulate": "fp32"}], ids=str)
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_other_sums_are_better_than_naive_ones_in_the_mean(kind, better):
    a, b = (x.to({"fp16": torch.half, "bf16": torch.bfloat16}[kind]).double() for x in factors(256, rows=100))
    true = (a * b).sum(-1)
    errors = [(dot(a, b, kind, **options) - true).square().mean() for options in ({}, better)]
    assert errors[1] < 0.8 * errors[0]


def test_a_sum_overflows_as_the_type_does():
    x = torch.full((4,), 250.0)
    assert dot(x, x, "fp16") == torch.inf
    assert dot(x, x, "fp16", accumulate="fp32") == 250_000


def test_dot_broadcasts_its_leading_dimensions():
    a, b = torch.arange(24.0).view(2, 3, 4), torch.arange(4.0)
    assert torch.equal(dot(a, b, "fp32"), torch.einsum("ijk,k->ij", a.double(), b.double()))


@settings(max_examples=30)
@given(m=st.integers(1, 4), n=st.integers(1, 9), p=st.integers(1, 4), order=st.sampled_from(list(SUMS)))
def test_every_entry_of_a_matrix_product_is_a_dot_product(m, n, p, order):
    a, b = factors(n * (m + p))[0].split([n * m, n * p])
    a, b = a.view(m, n), b.view(n, p)
    product = matmul(a, b, "e5m2", accumulate="fp16", order=order)
    assert product.shape == (m, p)
    for i in range(m):
        for k in range(p):
            assert product[i, k] == dot(a[i], b[:, k], "e5m2", accumulate="fp16", order=order)


def test_matrix_products_of_small_integers_are_exact():
    a, b = torch.randint(-4, 5, (2, 12, 12), generator=torch.Generator().manual_seed(0)).float()
    for order in SUMS:
        assert torch.equal(matmul(a, b, "e4m3fn", accumulate="fp16", order=order).float(), a @ b)


@pytest.mark.parametrize(("options", "message"), [
    ({"kind": "fp15"}, "no floating-point format 'fp15'"), ({"kind": torch.int8}, "no floating-point format"),
    ({"kind": "fp16", "accumulate": "int32"}, "no floating-point format 'int32'"),
    ({"kind": "fp16", "order": "sorted"}, "order must be one of naive, pairwise, kahan, not 'sorted'"),
])
def test_what_there_is_not_is_an_error_that_says_so(options, message):
    with pytest.raises(ValueError, match=message):
        dot(torch.ones(3), torch.ones(3), **options)
    with pytest.raises(ValueError, match=message):
        matmul(torch.ones(3, 3), torch.ones(3, 3), **options)


def test_infinity_is_no_error_of_a_format_that_saturates():
    report = downcast_report(torch.tensor([1.0, torch.inf]), "e2m1")
    assert (report.max_error, report.relative_error, report.overflowed) == (0, 0, 0)


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_a_relative_error_is_right_at_the_ends_of_float64(factor):
    x = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert downcast_report(factor * x, "fp64").relative_error == 0
    if factor < 1:
        assert downcast_report(factor * x, "fp32").relative_error == 1


@pytest.mark.parametrize(("a", "b"), [(3, 4), (0, 0), (1, 3)])
def test_factors_of_different_lengths_or_none_are_an_error(a, b):
    with pytest.raises(ValueError, match=r"factors \(\.\.\., n\) of one length are needed"):
        dot(torch.ones(a), torch.ones(b), "fp16")
