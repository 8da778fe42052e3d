import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanoq.mixed import average_bits, cluster_bits, costs_from_scores, greedy, integer_program, quantile_bits, total

# ---- clusters ----


def named(values):
    return {f"layer {i}": value for i, value in enumerate(values)}


def spread(group):
    mean = sum(group, Fraction(0)) / len(group)
    return sum((value - mean) ** 2 for value in group)


def best_intervals(values, clusters):
    """All ways to cut the ascending scores, with equal scores together: the best, and of equals the one most bits."""
    values = sorted(map(Fraction, values))
    allowed = [i for i in range(1, len(values)) if values[i - 1] < values[i]]
    ways = []
    for cuts in itertools.combinations(allowed, min(clusters, len(allowed) + 1) - 1):
        ends = [0, *cuts, len(values)]
        groups = [values[a:b] for a, b in itertools.pairwise(ends)][::-1]
        ways.append((sum(map(spread, groups)), [-len(group) for group in groups]))
    return min(ways)


# Halves tie often, floats hardly ever.
lists = st.one_of(
    st.lists(st.integers(-6, 6).map(lambda i: i / 2), min_size=1, max_size=9),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9),
)


@given(values=lists, bits=st.sampled_from([(16, 8, 4), (8, 4), (4,), (16, 8, 4, 3, 2)]))
@example(values=[0.0, 1.0, 2.0], bits=(8, 4))
@example(values=[1.0, 1.0, 1.0], bits=(16, 8, 4))
def test_three_means_is_the_best_of_all_partitions(values, bits):
    chosen = cluster_bits(named(values), bits)
    groups = [[Fraction(v) for v, b in zip(values, chosen.values(), strict=True) if b == width] for width in bits]
    groups = [group for group in groups if group]
    assert (sum(map(spread, groups)), [-len(group) for group in groups]) == best_intervals(values, len(bits))


@given(values=lists, factor=st.sampled_from([0.25, 1.0, 8.0]), seed=st.integers(0, 9))
def test_clusters_do_not_depend_on_unit_order_or_names(values, factor, seed):
    chosen = cluster_bits(named(values))
    assert cluster_bits(named(value * factor for value in values)) == chosen
    names = list(chosen)
    random.Random(seed).shuffle(names)
    scores = named(values)
    assert cluster_bits({name: scores[name] for name in names}, (4, 16, 8)) == {name: chosen[name] for name in names}


@pytest.mark.parametrize("allocate", [cluster_bits, quantile_bits])
@given(values=lists)
def test_higher_scores_never_get_fewer_bits_and_equal_ones_the_same(allocate, values):
    pairs = sorted(zip(values, allocate(named(values)).values(), strict=True))
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(pairs))
    assert len(set(pairs)) == len(set(values))


def test_three_means_by_eye():
    chosen = cluster_bits({"a": 0.1, "b": 5.0, "c": 0.2, "d": 9.0, "e": 5.1, "f": 0.15})
    assert chosen == {"a": 4, "b": 8, "c": 4, "d": 16, "e": 8, "f": 4}
    assert list(chosen) == list("abcdef")


def test_fewer_scores_than_widths_take_the_widest():
    assert cluster_bits({"a": 1.0}) == {"a": 16}
    assert cluster_bits({"a": 1.0, "b": 2.0, "c": 1.0}) == {"a": 8, "b": 16, "c": 8}


@pytest.mark.parametrize(("count", "groups"), [
    (3, [1, 1, 1]), (4, [2, 1, 1]), (5, [2, 2, 1]), (12, [4, 4, 4]), (1, [1, 0, 0]), (2, [1, 1, 0]),
])
def test_terciles_are_equal_parts_and_the_rest_gets_more_bits(count, groups):
    bits = list(quantile_bits(named(range(count))).values())
    assert [bits.count(width) for width in (16, 8, 4)] == groups


def test_equal_scores_in_two_terciles_get_the_bits_of_the_higher():
    assert quantile_bits({"a": 1, "b": 2, "c": 2, "d": 2, "e": 0, "f": 0}) == {
        "a": 8, "b": 16, "c": 16, "d": 16, "e": 4, "f": 4}


def test_balanced_terciles_have_the_known_average():
    scores = named(range(24))
    assert average_bits(quantile_bits(scores), dict.fromkeys(scores, 7)) == pytest.approx(28 / 3)


# Published sensitivities of OPT-125M by CMPQ, times 1e5, in the authors' repository.
OPT = (2.83, 6.59, 14.07, 12.94, 9.74, 6.91, 6.72, 6.69, 6.87, 7.08, 7.13, 9.91)


def test_the_published_scores_of_opt_leave_only_the_first_layer_with_four_bits():
    assert list(cluster_bits(named(OPT)).values()) == [4, 8, 16, 16, 16, 8, 8, 8, 8, 8, 8, 16]


def test_costs_fall_to_a_quarter_for_every_bit():
    costs = costs_from_scores({"a": 3.0, "b": -1.0}, (2, 3, 8))
    assert costs["a"] == {8: 3 / 4**8, 3: 3 / 64, 2: 3 / 16}
    assert costs["b"][2] == -1 / 16


def test_a_high_rate_program_gives_bits_as_water_filling_does():
    # Equal sizes: b_l = b + log4(score_l / geometric mean), which for powers of 16 is whole (section 5 of the notes).
    scores = named([16.0**2, 16.0, 1.0, 1 / 16.0, 16.0**-2])
    sizes = {name: {bits: bits for bits in range(1, 13)} for name in scores}
    chosen = integer_program(costs_from_scores(scores, tuple(range(1, 13))), sizes, 6 * len(scores))
    assert list(chosen.values()) == [10, 8, 6, 4, 2]


@pytest.mark.parametrize("function", [cluster_bits, quantile_bits, costs_from_scores])
@pytest.mark.parametrize(("scores", "bits", "message"), [
    ({}, (8, 4), "there are no scores"), ({"a": 1.0, "b": math.nan}, (8, 4), "the score of layer 'b' is nan"),
    ({"a": math.inf}, (8, 4), "the score of layer 'a' is inf"), ({"a": 1.0}, (), "bits must be distinct"),
    ({"a": 1.0}, (8, 8), "bits must be distinct"), ({"a": 1.0}, (8, 0), "bits must be distinct"),
    ({"a": 1.0}, (4.5,), "bits must be distinct"),
])
def test_scores_and_bits_that_are_none_are_an_error(function, scores, bits, message):
    with pytest.raises(ValueError, match=message):
        function(scores, bits)


# ---- budgets ----


def brute_force(costs, sizes, budget):
    """The least cost of all allocations that fit."""
    ways = (dict(zip(costs, widths, strict=True)) for widths in itertools.product(*costs.values()))
    return min(total(costs, way) for way in ways if total(sizes, way) <= budget)


def smallest(sizes):
    return sum(min(size.values()) for size in sizes.values())


@st.composite
def problems(draw):
    """Costs of very different sizes, sizes up to some gigabytes, and a budget that fits something, often exactly."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    widths = draw(st.sampled_from([(16, 8, 4), (2, 3, 4, 8), (8, 4)]))
    names = [f"layer {i}" for i in range(draw(st.integers(1, 5)))]
    most = 10 ** draw(st.integers(1, 10))
    count = {name: rng.randint(1, most) for name in names}
    sizes = {name: {b: -(-count[name] * b // 8) + rng.randint(0, 3) for b in widths} for name in names}
    cost = draw(st.sampled_from([
        lambda b: rng.gauss(0, 1), lambda b: 10 ** rng.uniform(-6, 3) * 4.0**-b, lambda b: float(rng.randint(0, 2))]))
    costs = {name: {b: cost(b) for b in widths} for name in names}
    way = {name: rng.choice(widths) for name in names}
    return costs, sizes, max(smallest(sizes), total(sizes, way) + draw(st.integers(-1, 1)))


def slack(costs):
    return 1e-9 * max(max(cost.values()) - min(cost.values()) for cost in costs.values())


@settings(max_examples=200)
@given(problem=problems())
def test_the_integer_program_is_as_good_as_trying_everything(problem):
    costs, sizes, budget = problem
    chosen = integer_program(*problem)
    assert list(chosen) == list(costs)
    assert total(sizes, chosen) <= budget
    assert total(costs, chosen) <= brute_force(*problem) + slack(costs)


@given(problem=problems())
def test_greedy_fits_and_is_never_better_than_the_integer_program(problem):
    costs, sizes, budget = problem
    chosen = greedy(*problem)
    assert list(chosen) == list(costs)
    assert total(sizes, chosen) <= budget
    assert total(costs, chosen) >= total(costs, integer_program(*problem)) - slack(costs)


@settings(max_examples=50)
@given(problem=problems(), more=st.floats(0, 1))
def test_more_bytes_never_cost_more(problem, more):
    costs, sizes, budget = problem
    larger = integer_program(costs, sizes, int(budget * (1 + more)))
    assert total(costs, larger) <= total(costs, integer_program(*problem)) + slack(costs)


def test_greedy_misses_what_the_integer_program_finds():
    # Layer a saves most for a byte, and then only one of the others fits.
    costs = {"a": {4: 1.5, 8: 0.0}, "b": {4: 5.0, 8: 0.0}, "c": {4: 5.0, 8: 0.0}}
    sizes = {"a": {4: 0, 8: 1}, "b": {4: 0, 8: 5}, "c": {4: 0, 8: 5}}
    assert greedy(costs, sizes, 10) == {"a": 8, "b": 8, "c": 4}
    assert integer_program(costs, sizes, 10) == {"a": 4, "b": 8, "c": 8}


def test_greedy_jumps_over_a_width_that_is_no_better():
    costs, sizes = {"a": {2: 1.0, 3: 1.0, 4: 0.1}}, {"a": {2: 2, 3: 3, 4: 4}}
    assert greedy(costs, sizes, 4) == {"a": 4}
    assert greedy(costs, sizes, 3) == {"a": 2}


def test_a_byte_too_few_in_gigabytes_is_too_few():
    # 8 and 16 bits are over the second budget by a byte, which is less than the solver's tolerance.
    costs = {"a": {16: 2.2e-9, 8: 1.4e-4, 4: 0.037}, "b": {16: 2.1e-8, 8: 1.4e-3, 4: 0.353}}
    sizes = {"a": {16: 15002320530, 8: 7501160264, 4: 3750580132}, "b": {16: 8141914825, 8: 4070957412, 4: 2035478706}}
    assert integer_program(costs, sizes, 15643075089) == {"a": 8, "b": 16}
    assert integer_program(costs, sizes, 15643075088) == {"a": 8, "b": 8}


def cheapest(costs, sizes, budget):
    """The least cost for a budget by a table over all sizes: for sizes that are small whole numbers."""
    best = [0.0] * (budget + 1)
    for name in costs:
        best = [
            min((best[room - sizes[name][b]] + costs[name][b] for b in costs[name] if sizes[name][b] <= room),
                default=math.inf)
            for room in range(budget + 1)
        ]
    return best[budget]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_model_of_many_layers(share, capfd):
    rng = random.Random(0)
    widths = (2, 3, 4, 8)
    sizes = {f"layer {i}": {b: n * b for b in widths} for i, n in enumerate(rng.choices([1, 4], k=72))}
    costs = costs_from_scores({name: rng.expovariate(1) for name in sizes}, widths)
    budget = round(smallest(sizes) * (1 + 3 * share))
    large = {name: {b: 73728 * n for b, n in size.items()} for name, size in sizes.items()}  # 768**2 weights of a bit
    chosen = integer_program(costs, large, 73728 * budget + 73727)
    assert total(sizes, chosen) <= budget
    assert total(costs, chosen) == pytest.approx(cheapest(costs, sizes, budget), rel=1e-9)
    assert capfd.readouterr().out == ""  # HiGHS grumbles past every switch when the numbers do not suit it


@pytest.mark.parametrize("allocate", [integer_program, greedy])
def test_of_equal_sizes_the_cheaper_is_taken(allocate):
    assert allocate({"a": {8: 1.0, 4: 0.5, 2: 0.7}}, {"a": {8: 3, 4: 3, 2: 3}}, 3) == {"a": 4}


@pytest.mark.parametrize("allocate", [integer_program, greedy])
def test_budgets_at_both_ends(allocate):
    costs = {"a": {8: 1.0, 4: 2.0}, "b": {8: 1.0, 4: 2.0}}
    sizes = {"a": {8: 8, 4: 4}, "b": {8: 80, 4: 40}}
    assert allocate(costs, sizes, 44) == {"a": 4, "b": 4}
    assert allocate(costs, sizes, 88) == allocate(costs, sizes, math.inf) == {"a": 8, "b": 8}
    with pytest.raises(ValueError, match="a budget of 43 bytes is too small: the smallest possible size is 44 bytes"):
        allocate(costs, sizes, 43)
    with pytest.raises(ValueError, match="a budget of nan bytes"):
        allocate(costs, sizes, math.nan)


@pytest.mark.parametrize("allocate", [integer_program, greedy])
def test_bits_that_do_harm_are_not_bought(allocate):
    costs, sizes = {"a": {8: 1.0, 4: -2.0}, "b": {8: 0.0, 4: 0.0}}, {"a": {8: 8, 4: 4}, "b": {8: 8, 4: 4}}
    assert allocate(costs, sizes, 16)["a"] == 4


@pytest.mark.parametrize("allocate", [integer_program, greedy])
@pytest.mark.parametrize(("costs", "sizes", "message"), [
    ({}, {}, "costs and sizes of the same layers"), ({"a": {4: 1.0}}, {"b": {4: 1}}, "costs and sizes of the same"),
    ({"a": {4: 1.0}}, {"a": {8: 1}}, "of the same widths are needed for layer 'a'"),
    ({"a": {}}, {"a": {}}, "of the same widths are needed for layer 'a'"),
    ({"a": {4: math.nan}}, {"a": {4: 1}}, "the cost of layer 'a' at 4 bits is nan"),
    ({"a": {4: 1.0, 2: math.inf}}, {"a": {4: 1, 2: 1}}, "the cost of layer 'a' at 2 bits is inf"),
    ({"a": {4: 1.0}}, {"a": {4: -1}}, "the size of layer 'a' at 4 bits is -1"),
    ({"a": {4: 1.0}}, {"a": {4: 1.5}}, "the size of layer 'a' at 4 bits is 1.5"),
    ({"a": {4: 1.0}}, {"a": {4: math.inf}}, "the size of layer 'a' at 4 bits is inf"),
])
def test_tables_that_do_not_fit_are_an_error(allocate, costs, sizes, message):
    with pytest.raises(ValueError, match=message):
        allocate(costs, sizes, 100)
