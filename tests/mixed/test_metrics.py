import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoq.mixed import average_bits, compression_ratio, rank_correlation


def test_ratios_that_everybody_knows():
    assert compression_ratio(32, 16) == 2  # float32 to float16
    assert compression_ratio(32, 28 / 3) == pytest.approx(3.43, abs=0.005)  # terciles of 16, 8 and 4 bits
    assert compression_ratio(8, 16) == 0.5


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
def test_sizes_that_are_none_are_an_error(size):
    for pair in ((size, 1), (1, size)):
        with pytest.raises(ValueError, match="a size in bytes must be a positive number"):
            compression_ratio(*pair)


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


def named(values):
    return dict(zip("abcdefghijklmnopqrstuvwxyz", values, strict=False))


def by_ranks(x, y):
    """Pearson's correlation of mean ranks."""
    def ranks(values):
        return [sum(other < own for other in values) + sum(other == own for other in values) / 2 for own in values]
    x, y = ranks(x), ranks(y)
    a, b = ([value - sum(side) / len(side) for value in side] for side in (x, y))
    return sum(map(lambda p, q: p * q, a, b)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


@given(pairs=st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=4, max_size=20))
def test_rank_correlation_is_the_correlation_of_ranks(pairs):
    x, y = zip(*pairs, strict=True)
    if min(len(set(x)), len(set(y))) == 1:
        with pytest.raises(ValueError, match="there is no order"):
            rank_correlation(named(x), named(y))
        return
    found = rank_correlation(named(x), named(y))
    assert found.rho == pytest.approx(by_ranks(x, y), abs=1e-9)
    assert -1 <= found.low <= found.rho <= found.high <= 1
    assert rank_correlation(named(x), named([math.exp(v) for v in y])).rho == pytest.approx(found.rho)


def test_the_interval_of_a_rank_correlation_holds_what_it_promises():
    # Pairs with a normal correlation of r have a Spearman's rho of 6/pi asin(r/2).
    generator, r, inside, trials = random.Random(0), 0.7, 0, 400
    truth = 6 / math.pi * math.asin(r / 2)
    for _ in range(trials):
        x = [generator.gauss(0, 1) for _ in range(24)]
        y = [r * value + math.sqrt(1 - r * r) * generator.gauss(0, 1) for value in x]
        found = rank_correlation(named(x), named(y))
        inside += found.low <= truth <= found.high
    assert 0.92 < inside / trials < 0.98


def test_the_interval_of_a_rank_correlation_is_that_of_bonett_and_wright():
    found = rank_correlation(named([1, 2, 3, 4, 5]), named([2, 1, 3, 5, 4]))
    half = 1.96 * math.sqrt((1 + 0.8**2 / 2) / 2)
    assert found == pytest.approx((0.8, math.tanh(math.atanh(0.8) - half), math.tanh(math.atanh(0.8) + half)))


def test_six_blocks_are_in_order_by_chance_one_time_in_ten():
    rhos = [rank_correlation(named(order), named(range(6))).rho for order in itertools.permutations(range(6))]
    assert sum(abs(rho) > 0.77 for rho in rhos) / len(rhos) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("scores", [[1, 2, 3], [1, 2, 3, 4, 5]])
def test_rank_correlation_wants_the_same_layers_and_enough_of_them(scores):
    with pytest.raises(ValueError, match="the same layers are needed, at least 4"):
        rank_correlation(named(scores), named(range(min(len(scores), 4))))
