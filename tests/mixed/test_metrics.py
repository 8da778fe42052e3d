import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoq.mixed import (
    accuracy_drop,
    average_bits,
    compression_ratio,
    footprint_reduction,
    objective,
    perplexity_increase,
)

sizes = st.integers(1, 10**12)


@given(original=sizes, quantized=sizes)
def test_the_ratio_and_the_reduction_say_the_same(original, quantized):
    ratio, reduction = compression_ratio(original, quantized), footprint_reduction(original, quantized)
    assert reduction == pytest.approx(100 * (1 - 1 / ratio), rel=1e-12, abs=1e-9)
    assert (ratio >= 1) == (quantized <= original)
    assert (reduction >= 0) == (quantized <= original)


def test_ratios_that_everybody_knows():
    assert compression_ratio(32, 16) == 2 and footprint_reduction(32, 16) == 50  # float32 to float16
    assert compression_ratio(32, 28 / 3) == pytest.approx(3.43, abs=0.005)  # terciles of 16, 8 and 4 bits
    assert compression_ratio(8, 16) == 0.5 and footprint_reduction(8, 16) == -100


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("function", [compression_ratio, footprint_reduction])
def test_sizes_that_are_none_are_an_error(function, size):
    for pair in ((size, 1), (1, size)):
        with pytest.raises(ValueError, match="a size in bytes must be a positive number"):
            function(*pair)


def test_average_bits_are_weighted_by_the_number_of_weights():
    assert average_bits({"a": 16, "b": 4}, {"a": 100, "b": 300}) == 7
    assert average_bits({"a": 16, "b": 8, "c": 4}, {"a": 5, "b": 5, "c": 5}) == pytest.approx(28 / 3)


@pytest.mark.parametrize(("allocation", "parameters", "message"), [
    ({}, {}, "the same layers"), ({"a": 4}, {"b": 4}, "the same layers"),
    ({"a": 4}, {"a": 0}, "layer 'a' has 0 weights"), ({"a": 0}, {"a": 4}, "layer 'a' has 4 weights of 0 bits"),
])
def test_average_bits_of_nothing_are_an_error(allocation, parameters, message):
    with pytest.raises(ValueError, match=message):
        average_bits(allocation, parameters)


def test_differences_have_a_sign():
    assert accuracy_drop(0.75, 0.5) == 0.25 and accuracy_drop(0.5, 0.75) == -0.25
    assert perplexity_increase(20, 22.5) == 2.5 and perplexity_increase(22.5, 20) == -2.5


def test_accuracies_in_percent_and_perplexities_below_1_are_errors():
    with pytest.raises(ValueError, match="a share of 0 to 1, not 85.0"):
        accuracy_drop(85.0, 84.0)
    for value in (0.5, math.nan):
        with pytest.raises(ValueError, match="a perplexity is a number of at least 1"):
            perplexity_increase(20, value)


def test_the_objective_is_the_loss_and_the_weighted_share_of_the_size():
    assert objective(1.5, original_bytes=400, quantized_bytes=100, weight=2) == 2.0
    assert objective(1.5, original_bytes=400, quantized_bytes=100, weight=0) == 1.5


@pytest.mark.parametrize(("loss", "weight"), [(math.nan, 1), (math.inf, 1), (1, -1), (1, math.nan), (1, math.inf)])
def test_an_objective_of_no_number_is_an_error(loss, weight):
    with pytest.raises(ValueError, match="a finite loss and a finite weight"):
        objective(loss, original_bytes=2, quantized_bytes=1, weight=weight)
