import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoq.quant import OPERATORS, affine_grid, nearest, ternary_grid

HALF_STEP = 2**-11  # relative, of a level that is rounded to float16
few = settings(max_examples=30)


def sample(kind, count=100_001, largest=None):
    """Evenly spaced quantiles (1, count) of a distribution with standard deviation 1, cut off at `largest`."""
    p = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if kind == "gaussian":
        w = torch.special.ndtri(p)
    elif kind == "laplace":
        w = -(p - 0.5).sign() * torch.log1p(-2 * (p - 0.5).abs()) / math.sqrt(2)
    else:
        w = math.sqrt(3) * (2 * p - 1)
    return (w if largest is None else w.clamp(-largest, largest).index_fill(0, torch.tensor(count - 1), largest))[None]


def rows(seed, out=5, width=12, dtype=torch.float64):
    """Rows of several shapes: heavy and light tails, and not centred."""
    w = torch.randn(out, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return w.sign() * w.abs() ** torch.linspace(0.3, 3, out, dtype=dtype)[:, None] + 0.2 * (seed % 3)


def threshold_of(grid):
    return grid.scale / 2 if grid.threshold is None else grid.threshold


def rounded(weight, grid):
    return grid.decode(nearest(weight, grid))


def measures(weight, grid):
    """Threshold, level, share of zeros, mean squared and mean absolute error."""
    value = rounded(weight, grid)
    change = value - weight
    return [float(x) for x in (threshold_of(grid).mean(), grid.scale.mean(), (value == 0).double().mean(),
                               change.square().mean(), change.abs().mean())]


# Operator, rescale, largest weight: threshold, level, zeros, MSE, mean |error|, all for a standard deviation of 1.
TABLES = {
    "gaussian": {
        ("naive", False, 4.279): (2.139, 4.279, 0.968, 0.9008, 0.7747),
        ("tquant", False, 4.279): (1.426, 2.852, 0.846, 0.6052, 0.6620),
        ("mquant", False, None): (0.4307, 0.8615, 0.333, 0.2418, 0.3487),
        ("mquant-empirical", False, None): (0.4307, 0.8615, 0.333, 0.2418, 0.3487),
        ("mquant", True, None): (0.4307, 1.0908, 0.333, 0.2068, None),
        ("mquant-empirical", True, None): (0.4307, 1.0908, 0.333, 0.2068, None),
        ("absmean", False, None): (0.3989, 0.7979, 0.310, 0.2634, 0.3573),
        ("twn", False, None): (0.5585, 1.1842, 0.424, 0.1916, 0.3470),
        ("twn", True, None): (0.5585, 1.1842, 0.424, 0.1916, 0.3470),
        ("lloyd", False, None): (0.6120, 1.2240, 0.459, 0.1902, 0.3498),
        ("lloyd", True, None): (0.6120, 1.2240, 0.459, 0.1902, 0.3498),
        ("l1", False, None): (0.5145, 1.0291, 0.393, 0.2041, 0.3397),
    },
    "laplace": {
        ("naive", False, 7.69): (3.85, 7.69, 0.996, 0.953, 0.701),
        ("tquant", False, 7.69): (2.565, 5.130, 0.973, 0.807, 0.671),
        ("mquant-empirical", False, None): (0.2867, 0.5734, 0.333, 0.4594, 0.3928),
        ("mquant", False, None): (0.4307, 0.8615, 0.456, 0.3375, 0.3563),
        ("absmean", False, None): (0.3536, 0.7071, 0.393, 0.3935, 0.3696),
        ("twn", False, None): (0.4950, 1.2021, 0.503, 0.2824, 0.3685),
        ("lloyd", False, None): (0.7071, 1.4142, 1 - math.exp(-1), 0.2642, 0.3782),
        ("l1", False, None): (0.4901, 0.9803, 0.500, 0.3068, 0.3536),
    },
    "uniform": {
        ("naive", False, None): (0.8660, 1.7321, 0.500, 0.2500, 0.4330),
        ("tquant", False, None): (0.5774, 1.1547, 0.333, 0.1111, 0.2887),
        ("mquant-empirical", False, None): (0.5774, 1.1547, 0.333, 0.1111, 0.2887),
        ("lloyd", False, None): (0.5774, 1.1547, 0.333, 0.1111, 0.2887),
        ("l1", False, None): (0.5774, 1.1547, 0.333, 0.1111, 0.2887),
        ("mquant", False, None): (0.4307, 0.8615, 0.249, 0.1577, 0.3259),
        ("twn", False, None): (0.6062, 1.1691, 0.350, 0.1115, 0.2890),
        ("absmean", False, None): (0.4330, 0.8660, 0.250, 0.1562, 0.3248),
    },
}


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, table in TABLES.items() for case in table], ids=str)
def test_each_operator_has_the_figures_of_the_closed_forms(kind, case):
    operator, rescale, largest = case
    weight = sample(kind, largest=largest)
    found = measures(weight, ternary_grid(weight, operator=operator, rescale=rescale))
    for value, expected, slack in zip(found, TABLES[kind][case], (5e-3, 5e-3, 1e-3, 8e-4, 8e-4), strict=True):
        assert expected is None or value == pytest.approx(expected, abs=slack)


@pytest.mark.parametrize(("operator", "width", "level", "zeros", "squared", "absolute"), [
    ("naive", 192, 2.955, 0.854, 0.6252, 0.6666), ("naive", 768, 3.366, 0.903, 0.7348, 0.7164),
    ("tquant", 192, 2 / 3 * 2.955, 0.672, 0.3259, 0.4897), ("tquant", 768, 2 / 3 * 3.366, 0.735, 0.4104, 0.5498),
])
def test_the_maximum_of_a_row_grows_with_its_width_and_the_error_with_it(
        operator, width, level, zeros, squared, absolute):
    weight = torch.randn(1500, width, generator=torch.Generator().manual_seed(0))
    found = measures(weight, ternary_grid(weight, operator=operator))
    assert found[1] == pytest.approx(level, abs=0.02)  # the standard error of the mean maximum is 0.011
    assert found[2:] == pytest.approx([zeros, squared, absolute], abs=0.005)


def test_mquant_cuts_a_gaussian_into_thirds_by_its_root_mean_square():
    weight = 0.013 * torch.randn(4, 50_000, generator=torch.Generator().manual_seed(1))
    grid = ternary_grid(weight)
    assert torch.allclose(grid.scale, 0.8615 * weight.square().mean(1, keepdim=True).sqrt(), rtol=1e-3)
    codes = nearest(weight, grid)
    for code in range(3):
        assert (codes == code).double().mean(1).tolist() == pytest.approx([1 / 3] * 4, abs=0.01)


@given(seed=st.integers(0, 1000), thirds=st.integers(1, 40))
@few
def test_empirical_mquant_puts_a_third_of_the_weights_into_each_cell(seed, thirds):
    half = torch.rand(3, 3 * thirds, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    weight = torch.cat((half, -half), dim=1)
    grid = ternary_grid(weight, operator="mquant-empirical")
    size = half.sort(dim=1).values
    assert torch.allclose(grid.scale[:, 0] / 2, size[:, thirds - 1], rtol=2 * HALF_STEP, atol=1e-6)
    codes = nearest(weight, grid)
    near = (size / (grid.scale / 2) - 1).abs() < 2 * HALF_STEP  # float16 can take these to the other side
    for code in range(3):
        missing = (codes == code).sum(1) - 2 * thirds
        assert (missing.abs() <= 2 * near.sum(1)).all()


@pytest.mark.parametrize("count", [1, 2, 4, 5, 10, 100])
def test_empirical_mquant_leaves_the_third_that_is_smallest_at_zero(count):
    size = torch.arange(1.0, count + 1)  # whole numbers, which float16 holds
    weight = (size * (-1) ** size)[torch.randperm(count, generator=torch.Generator().manual_seed(0))][None]
    zeros = (nearest(weight, ternary_grid(weight, operator="mquant-empirical")) == 1).sum()
    assert int(zeros) == max(1, round(count / 3))


# ---- what is least about each operator ----


def worst(support, level, threshold):
    """Largest error on a support of a quantiser with these levels and thresholds, both (n, 1)."""
    value = support.sign() * level * (support.abs() > threshold)
    return (value - support).abs().amax(1)


@given(largest=st.floats(0.01, 100))
@few
def test_no_symmetric_three_level_quantiser_has_a_smaller_worst_error_than_tquant(largest):
    support = torch.linspace(-largest, largest, 241, dtype=torch.float64)[None]
    tquant = float((rounded(support, ternary_grid(support, operator="tquant")) - support).abs().max())
    naive = float((rounded(support, ternary_grid(support, operator="naive")) - support).abs().max())
    step = largest / 120
    assert tquant == pytest.approx(largest / 3, abs=step)
    assert naive == pytest.approx(largest / 2, abs=step)
    level, threshold = torch.cartesian_prod(*[torch.linspace(0, largest, 31, dtype=torch.float64)] * 2).T[:, :, None]
    assert worst(support, level, threshold).min() >= largest / 3 - step  # the support has holes of a step


@given(seed=st.integers(0, 1000))
@few
def test_the_worst_error_is_a_third_of_the_maximum_for_tquant_and_a_half_for_naive_at_most(seed):
    weight = rows(seed)
    largest = weight.abs().amax(1, keepdim=True)
    for operator, share in (("tquant", 1 / 3), ("naive", 1 / 2)):
        error = (rounded(weight, ternary_grid(weight, operator=operator)) - weight).abs()
        assert (error <= largest * (share + HALF_STEP)).all()


@given(seed=st.integers(0, 1000), rescale=st.booleans())
@few
def test_no_operator_has_less_squared_error_than_lloyd_or_less_absolute_error_than_l1(seed, rescale):
    weight = rows(seed)
    changes = {name: rounded(weight, ternary_grid(
        weight, operator=name, rescale=rescale and name not in ("lloyd", "l1"))) - weight for name in OPERATORS}
    squared = {name: change.square().sum(1) for name, change in changes.items()}
    absolute = {name: change.abs().sum(1) for name, change in changes.items()}
    # float16 moves a level by a part in 2048: that costs the squared error its square, the absolute one itself.
    slack = 12 * HALF_STEP * weight.abs().amax(1)
    for name in OPERATORS:
        assert (squared["lloyd"] <= squared[name] * (1 + 1e-5) + slack.square()).all()
        assert (absolute["l1"] <= absolute[name] + slack).all()


def best_by_brute_force(size, power):
    """The least sum of |error|**power of sizes (rows, n) over every split and level that can be best: (rows,)."""
    ordered = size.sort(dim=1, descending=True).values
    n = size.shape[1]
    levels = ordered.cumsum(1) / torch.arange(1, n + 1) if power == 2 else ordered
    above = (ordered[:, None] - levels[:, :, None]).abs() ** power  # (rows, levels, n)
    splits = [above[:, :, :k].sum(2) + (ordered[:, None, k:] ** power).sum(2) for k in range(n + 1)]
    return torch.stack(splits).amin((0, 2))


@given(seed=st.integers(0, 1000), width=st.integers(1, 9))
@few
def test_lloyd_and_l1_are_the_best_of_all_splits(seed, width):
    # Multiples of 1/64: every median is one of them, and float16 holds it.
    weight = (64 * rows(seed, width=width)).round().clamp(-640, 640) / 64
    for operator, power in (("lloyd", 2), ("l1", 1)):
        error = ((rounded(weight, ternary_grid(weight, operator=operator)) - weight).abs() ** power).sum(1)
        assert torch.allclose(error, best_by_brute_force(weight.abs(), power), rtol=1e-6, atol=1e-5)


def test_uniform_weights_make_tquant_mquant_and_lloyd_agree():
    weight = torch.linspace(-1, 1, 30_001, dtype=torch.float64)[None]
    grids = [ternary_grid(weight, operator=name) for name in ("tquant", "mquant-empirical", "lloyd", "l1")]
    for grid in grids:
        assert float(grid.scale) == pytest.approx(2 / 3, rel=1e-3)
        assert (nearest(weight, grid) != nearest(weight, grids[0])).double().mean() < 1e-3


# ---- definitions ----


def test_naive_is_the_symmetric_grid_of_two_bits():
    weight = rows(0, dtype=torch.float32)
    grid, affine = ternary_grid(weight, operator="naive"), affine_grid(weight, 2, symmetric=True)
    assert torch.equal(grid.scale, affine.scale) and grid.threshold is None
    assert torch.equal(nearest(weight, grid), nearest(weight, affine))


def test_twn_by_hand():
    weight = torch.tensor([[0.1, -0.2, 0.3, -1.0, 2.0, 0.6]])  # mean 0.7, threshold 0.49
    grid = ternary_grid(weight, operator="twn")
    assert float(grid.threshold) == pytest.approx(0.49)
    assert float(grid.scale) == pytest.approx(1.2, rel=1e-3)  # nearest would cut at 0.6
    assert nearest(weight, grid).tolist() == [[1, 1, 1, 0, 2, 2]]


def test_absmean_is_the_rounding_of_bitnet():
    weight = rows(3, out=20, width=30, dtype=torch.float32)
    grid = ternary_grid(weight, operator="absmean", granularity="tensor")
    gamma = weight.abs().mean().half().float()
    assert torch.equal(nearest(weight, grid) - 1, (weight / gamma).round().clamp(-1, 1).long())


@given(seed=st.integers(0, 1000), operator=st.sampled_from(list(OPERATORS)))
@few
def test_rescaling_keeps_the_threshold_and_takes_the_mean_of_what_lies_above(seed, operator):
    weight = rows(seed)
    plain = ternary_grid(weight, operator=operator)
    grid = ternary_grid(weight, operator=operator, rescale=True)
    assert torch.allclose(threshold_of(grid), threshold_of(plain), rtol=2 * HALF_STEP)
    above = weight.abs() > threshold_of(grid)
    mean = torch.stack([row[own].mean() for row, own in zip(weight.abs(), above, strict=True)])
    assert torch.allclose(grid.scale[:, 0], mean, rtol=HALF_STEP)
    assert grid.threshold is None or torch.equal(nearest(weight, grid) == 1, ~above)


@given(seed=st.integers(0, 1000), operator=st.sampled_from(list(OPERATORS)), rescale=st.booleans(),
       power=st.integers(-60, 10))
@few
def test_weights_twice_as_large_get_the_same_codes_on_levels_twice_as_large(seed, operator, rescale, power):
    weight = rows(seed)
    grid = ternary_grid(weight, operator=operator, rescale=rescale)
    other = ternary_grid(2.0**power * weight, operator=operator, rescale=rescale)
    assert torch.allclose(other.scale / 2.0**power, grid.scale, rtol=2 * HALF_STEP)  # small ones are not in float16
    assert torch.allclose(threshold_of(other) / 2.0**power, threshold_of(grid), rtol=2 * HALF_STEP)
    sure = (weight.abs() / threshold_of(grid) - 1).abs() > 4 * HALF_STEP
    assert torch.equal(nearest(2.0**power * weight, other)[sure], nearest(weight, grid)[sure])


@given(seed=st.integers(0, 1000), operator=st.sampled_from(list(OPERATORS)), rescale=st.booleans())
@few
def test_signs_and_order_of_the_weights_change_nothing_but_the_codes_of_each(seed, operator, rescale):
    weight = rows(seed)
    grid = ternary_grid(weight, operator=operator, rescale=rescale)
    turned = ternary_grid(-weight.flip(1), operator=operator, rescale=rescale)
    assert torch.allclose(turned.scale, grid.scale, rtol=1e-12)
    assert torch.equal(2 - nearest(-weight.flip(1), turned).flip(1), nearest(weight, grid))


# ---- granularity, zeros, grids as such ----


@given(seed=st.integers(0, 1000), operator=st.sampled_from(list(OPERATORS)), rescale=st.booleans(),
       group=st.sampled_from([1, 5, 6, 12, 64]))
@few
def test_a_part_with_its_own_level_is_a_matrix_of_its_own(seed, operator, rescale, group):
    weight = rows(seed)
    options = {"operator": operator, "rescale": rescale}
    whole = ternary_grid(weight, granularity="group", group_size=group, **options)
    parts = [ternary_grid(part, **options) for part in weight.split(group, dim=1)]
    assert torch.allclose(whole.scale, torch.cat([part.scale for part in parts], dim=1), rtol=2 * HALF_STEP)
    codes = torch.cat([nearest(own, part) for own, part in zip(weight.split(group, dim=1), parts, strict=True)], dim=1)
    assert (nearest(weight, whole) != codes).double().mean() < 0.02
    one = ternary_grid(weight, granularity="tensor", **options)
    flat = ternary_grid(weight.reshape(1, -1), **options)
    assert one.scale.shape == (1, 1) and torch.equal(one.scale, flat.scale)
    assert torch.equal(nearest(weight, one), nearest(weight.reshape(1, -1), flat).view_as(weight))


@pytest.mark.parametrize(("granularity", "group_size", "shape"), [
    ("tensor", None, (1, 1)), ("channel", None, (5, 1)), ("group", 5, (5, 3)), ("group", 99, (5, 1)),
])
@pytest.mark.parametrize("operator", ["mquant", "twn"])
def test_there_is_a_level_and_a_threshold_for_each_part(operator, granularity, group_size, shape):
    grid = ternary_grid(rows(0), operator=operator, granularity=granularity, group_size=group_size)
    assert grid.scale.shape == shape and threshold_of(grid).shape == shape
    assert (grid.bits, grid.levels, grid.zero_point, grid.codebook) == (2, 3, None, None)
    assert grid.group_size == min(group_size or 12, 12)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("operator", OPERATORS)
def test_rows_and_groups_of_zeros_stay_zero_and_leave_the_others_alone(operator, rescale):
    weight = rows(4)
    weight[1], weight[3, 4:8] = 0, 0
    for options in ({}, {"granularity": "group", "group_size": 4}, {"granularity": "tensor"}):
        grid = ternary_grid(weight, operator=operator, rescale=rescale, **options)
        value = rounded(weight, grid)
        assert (value[weight == 0] == 0).all() and value.isfinite().all()
        assert (grid.scale > 0).all()
    others = ternary_grid(weight[[0, 2]], operator=operator, rescale=rescale)
    own = ternary_grid(weight, operator=operator, rescale=rescale)
    assert torch.allclose(own.scale[[0, 2]], others.scale, rtol=HALF_STEP)
    everywhere = ternary_grid(torch.zeros(2, 3), operator=operator, rescale=rescale)
    assert (rounded(torch.zeros(2, 3), everywhere) == 0).all()


@given(seed=st.integers(0, 1000), operator=st.sampled_from(list(OPERATORS)))
@few
def test_a_weight_that_was_rounded_stays_what_it_is(seed, operator):
    weight = rows(seed)
    grid = ternary_grid(weight, operator=operator)
    codes = nearest(weight, grid)
    assert torch.equal(nearest(grid.decode(codes), grid), codes)
    assert torch.equal(grid.decode(codes), grid.scale * (codes - 1))
    beyond = weight.abs() > threshold_of(grid)
    sure = (weight.abs() / threshold_of(grid) - 1).abs() > 1e-9  # a half of a level may be rounded either way
    assert torch.equal((codes - 1)[sure], (weight.sign() * beyond).long()[sure])


def test_levels_are_what_float16_can_hold():
    for operator in OPERATORS:
        scale = ternary_grid(rows(1, dtype=torch.float32), operator=operator).scale
        assert scale.dtype == torch.float32 and torch.equal(scale.half().float(), scale)


@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 3}, "a ternary code has 2 bits, not 3"), ({"bits": 1}, "2 bits, not 1"),
    ({"operator": "median"}, "operator must be one of naive, tquant, .*, not 'median'"),
    ({"granularity": "row"}, "granularity must be one of tensor, channel, group"),
    ({"group_size": 8}, "group_size goes with"), ({"granularity": "group"}, "group_size goes with"),
    ({"granularity": "tensor", "group_size": 8}, "group_size goes with"),
    ({"granularity": "group", "group_size": 0}, "at least 1"),
    ({"granularity": "group", "group_size": 2.5}, "whole number"),
    ({"weight": torch.full((2, 2), torch.nan)}, "NaN or infinity"),
    ({"weight": torch.tensor([[1.0, -torch.inf]])}, "NaN or infinity"),
    ({"weight": torch.zeros(3)}, r"shape \(3,\)"), ({"weight": torch.zeros(3, 0)}, r"shape \(3, 0\)"),
])
def test_what_cannot_be_made_ternary_is_an_error_that_says_why(change, message):
    with pytest.raises(ValueError, match=message):
        ternary_grid(**({"weight": rows(0)} | change))
