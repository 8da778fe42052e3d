import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from nanoq.mixed import (
    MEASURES,
    Features,
    canonical_correlations,
    chance_level,
    expected_squared_correlation,
    similarity,
    wachter_edge,
)

CCA = [name for name in MEASURES if name != "cka"]
few = pytest.mark.filterwarnings("ignore:.*samples are few")


def gaussian(n, width, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(n=200, p=5, q=4, seed=0, noise=1.0):
    """Features that have something in common: y sees part of x through noise."""
    x = gaussian(n, p, seed)
    return x, x @ gaussian(p, q, seed + 1) + noise * gaussian(n, q, seed + 2)


def rotation(width, seed=0):
    return torch.linalg.qr(gaussian(width, width, seed))[0]


# ---- canonical correlations ----


@few
@given(seed=st.integers(0, 1000), n=st.integers(4, 60), p=st.integers(1, 8), q=st.integers(1, 8))
def test_correlations_descend_from_1_to_0_and_do_not_mind_the_order(seed, n, p, q):
    x, y = related(n, p, q, seed)
    rho = canonical_correlations(x, y)
    assert rho.shape == (min(p, q, n - 1),) and rho.dtype == torch.float64
    assert ((rho >= 0) & (rho <= 1)).all() and (rho.diff() <= 0).all()
    assert torch.allclose(rho, canonical_correlations(y, x), atol=1e-12)


def test_correlations_are_those_of_scikit_learn():
    cca = pytest.importorskip("sklearn.cross_decomposition").CCA(3, max_iter=10_000, tol=1e-12)
    x, y = related(p=6, q=3)
    u, v = cca.fit_transform(x.numpy(), y.numpy())
    wanted = [np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(3)]
    assert canonical_correlations(x, y).tolist() == pytest.approx(wanted, abs=1e-9)


def test_correlations_are_those_of_the_covariances():
    x, y = related()
    n = len(x)
    both = torch.cov(torch.cat([x, y], dim=1).T) * (n - 1) / n
    a, b, c = both[:5, :5], both[5:, 5:], both[:5, 5:]
    squared = torch.linalg.eigvals(torch.linalg.solve(b, c.T) @ torch.linalg.solve(a, c)).real
    assert torch.allclose(canonical_correlations(x, y).square(), squared.sort(descending=True).values, atol=1e-12)


def test_one_feature_of_each_have_the_common_correlation():
    x, y = related(p=1, q=1)
    wanted = abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1])
    for measure in CCA:
        assert similarity(x, y, measure) == pytest.approx(wanted, abs=1e-12)


@few
@given(seed=st.integers(0, 1000), shift=st.floats(-1e3, 1e3))
def test_invertible_linear_maps_change_no_correlation(seed, shift):
    x, y = related(seed=seed)
    mapped = x @ (gaussian(5, 5, seed + 5) + 5 * torch.eye(5)) * 7 + shift
    rho = canonical_correlations(x, y)
    assert torch.allclose(canonical_correlations(mapped, y @ (rotation(4) * 1e-3)), rho, atol=1e-8)
    for measure in ("mean", "first"):
        assert similarity(mapped, y, measure) == pytest.approx(similarity(x, y, measure), abs=1e-8)


def test_the_covariance_of_an_awkward_basis_would_be_singular_but_the_factors_are_not():
    x, y = related()
    stretch = torch.logspace(0, -5, 5, dtype=torch.float64)  # its square, 1e10, times float32's rounding is 1000
    mapped = x @ rotation(5) * stretch @ rotation(5, 1)
    assert torch.allclose(canonical_correlations(mapped, y), canonical_correlations(x, y), atol=1e-9)


def test_energy_keeps_the_directions_that_hold_it():
    x = gaussian(400, 4) * torch.tensor([10.0, 5.0, 1.0, 0.1])  # 100 + 25 + 1 + 0.01 of variance
    for energy, kept in ((0.5, 1), (0.95, 2), (0.99, 2), (0.999, 3), (1.0, 4)):
        assert Features(x).rank(energy=energy) == kept
        assert len(canonical_correlations(x, x, energy=energy)) == kept
    y = torch.cat([x[:, :2], gaussian(400, 1, seed=9)], dim=1)
    assert similarity(x, y, "svcca") > 0.999 > 0.9 > similarity(x[:, [2, 3]], y, "mean")


# ---- measures ----


@few
@pytest.mark.parametrize("measure", MEASURES)
@given(seed=st.integers(0, 1000), n=st.integers(5, 80), p=st.integers(1, 8), offset=st.floats(-1e3, 1e3))
def test_everything_is_like_itself(measure, seed, n, p, offset):
    x = gaussian(n, p, seed) + offset
    assert similarity(x, x, measure) == pytest.approx(1, abs=1e-9)


@few
@pytest.mark.parametrize("measure", MEASURES)
@given(seed=st.integers(0, 1000), n=st.integers(5, 60), p=st.integers(1, 8), q=st.integers(1, 8))
def test_similarities_lie_where_they_should(measure, seed, n, p, q):
    x, y = related(n, p, q, seed, noise=seed % 3)
    value = similarity(x, y, measure)
    assert -1e-12 <= value + (measure == "cka") <= 1 + (measure == "cka") + 1e-12
    if measure != "pwcca":
        assert similarity(y, x, measure) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
@given(seed=st.integers(0, 100), factor=st.floats(1e-3, 1e3))
def test_rotations_of_both_and_a_factor_change_nothing(measure, seed, factor):
    x, y = related(seed=seed)
    turn = torch.eye(4) if measure == "pwcca" else rotation(4, seed)  # that weighs by the columns of y
    turned = similarity(x @ rotation(5, seed) / factor, factor * y @ turn.double(), measure)
    assert turned == pytest.approx(similarity(x, y, measure), abs=1e-9)


@pytest.mark.parametrize("measure", ["cka", "svcca", "pwcca"])
def test_other_linear_maps_change_what_weighs_by_variance(measure):
    x, y = related(noise=0.3)
    stretched = y * torch.tensor([30.0, 1.0, 1.0, 1.0])
    assert abs(similarity(x, stretched, measure) - similarity(x, y, measure)) > 1e-3


def hsic_by_definition(x, y):
    """Song et al. 2012 with n x n matrices, not centred."""
    n, ones = len(x), torch.ones(len(x), dtype=torch.float64)
    a, b = (side @ side.T - (side @ side.T).diag().diag() for side in (x, y))
    value = (a @ b).trace() + (ones @ a @ ones) * (ones @ b @ ones) / ((n - 1) * (n - 2))
    return (value - 2 / (n - 2) * (ones @ a @ b @ ones)) / (n * (n - 3))


@given(seed=st.integers(0, 1000), n=st.integers(5, 30), p=st.integers(1, 40), q=st.integers(1, 8))
def test_cka_is_the_one_with_n_by_n_matrices(seed, n, p, q):
    x, y = related(n, p, q, seed)
    wanted = hsic_by_definition(x, y) / (hsic_by_definition(x, x) * hsic_by_definition(y, y)).sqrt()
    assert similarity(x + 3, 7 * y - 2, "cka") == pytest.approx(float(wanted), abs=1e-9)


def test_cka_of_independent_features_is_0_in_the_mean_where_the_biased_one_is_not():
    debiased, biased = [], []
    for seed in range(0, 400, 2):
        x, y = gaussian(80, 8, seed), gaussian(80, 8, seed + 1)
        debiased.append(similarity(x, y, "cka"))
        x, y = x - x.mean(0), y - y.mean(0)
        biased.append(float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())))
    assert abs(np.mean(debiased)) < 3 * np.std(debiased) / math.sqrt(200) + 1e-4
    assert np.mean(biased) == pytest.approx(0.091, abs=0.003)  # n/d = 10: section 4.3


def test_cka_by_its_population_value():
    # For y = x A of a standard normal x it is ||A||^2 / (sqrt(p) ||A^T A||), the norms being Frobenius'.
    a = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    x = gaussian(20_000, 3)
    wanted = a.square().sum() / (math.sqrt(3) * a.square().norm())
    assert similarity(x, x * a, "cka") == pytest.approx(float(wanted), abs=0.01)


def test_pwcca_is_what_the_paper_says():
    x, y = related(p=3, q=6)
    for first, second in ((x, y), (y, x)):  # x has fewer directions, and weighs either way
        left, rho, _ = torch.linalg.svd(basis(x).T @ basis(y), full_matrices=False)
        variates = basis(x) @ left
        weight = (variates.T @ (x - x.mean(0))).abs().sum(1)
        assert similarity(first, second, "pwcca") == pytest.approx(float(weight @ rho / weight.sum()), abs=1e-12)


def basis(x):
    return torch.linalg.qr(x - x.mean(0))[0]


def test_pwcca_of_equal_ranks_weighs_by_the_first():
    shared, own, other = gaussian(300, 3).split(1, dim=1)
    x = torch.cat([10 * shared, 0.1 * own], dim=1)
    y = torch.cat([shared, 10 * other], dim=1)
    assert similarity(x, y, "pwcca") > 0.9 > 0.6 > similarity(x, y, "mean") > 0.4 > similarity(y, x, "pwcca")


# ---- features that are not of full rank ----


@pytest.mark.parametrize("measure", CCA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_repeated_mixed_and_constant_columns_count_for_nothing(measure, dtype):
    x, y = related(n=500)
    x, y = x.to(dtype), y.to(dtype)
    more = torch.cat([x, x @ gaussian(5, 9).to(dtype), torch.full((500, 2), 1e6, dtype=dtype)], dim=1)
    assert Features(more).rank() == 5
    if measure in ("mean", "first"):
        assert similarity(more, y, measure) == pytest.approx(similarity(x, y, measure), abs=1e-6)
    assert similarity(more, more, measure) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("value", [0.1, 1e15, -3e-20])
def test_a_constant_column_of_any_size_leaves_the_others_alone(value):
    x, y = related(n=207)  # for which the mean of equal numbers is not always that number
    padded = torch.cat([torch.full((207, 1), value, dtype=torch.float64), x], dim=1)
    assert (Features(padded).centred[:, 0] == 0).all()
    if abs(value) < 1:
        for measure in MEASURES:
            assert similarity(padded, y, measure) == pytest.approx(similarity(x, y, measure), abs=1e-9)


@few
def test_ranks_of_both_sides_may_differ():
    x, y = gaussian(300, 6), gaussian(300, 2, seed=1)
    low = y @ gaussian(2, 10, seed=2)
    assert len(canonical_correlations(x, low)) == 2
    assert torch.allclose(canonical_correlations(x, low), canonical_correlations(x, y), atol=1e-9)


@few
def test_more_features_than_samples_correlate_perfectly():
    x, y = gaussian(20, 30), gaussian(20, 25, seed=1)
    assert torch.allclose(canonical_correlations(x, y), torch.ones(19, dtype=torch.float64))
    assert abs(similarity(x, y, "cka")) < 0.3  # which goes on working


@pytest.mark.parametrize("factor", [1e-200, 1e200])
@pytest.mark.parametrize("measure", MEASURES)
def test_units_at_the_ends_of_float64(measure, factor):
    x, y = related()
    assert similarity(factor * x, y, measure) == pytest.approx(similarity(x, y, measure), abs=1e-9)


def test_types_and_gradients_do_not_matter():
    x, y = related()
    wanted = similarity(x.bfloat16().double(), y)
    assert similarity(x.bfloat16().requires_grad_(), y) == wanted
    assert similarity(Features(x), Features(y)) == similarity(x, y)


# ---- chance ----


def wachter_mean(ratio):
    """Mean canonical correlation for p = q and n / p = ratio, all large, from the density of rho^2 (Wachter 1980)."""
    g = 1 / ratio
    edge = 4 * g * (1 - g)
    # rho^2 = edge sin(t)^2 takes the root at either end out of the density sqrt((edge - r) / r) / (2 pi g (1 - r))
    inside = lambda t: math.cos(t) ** 2 * math.sin(t) / (1 - edge * math.sin(t) ** 2)
    return edge**1.5 / (math.pi * g) * quad(inside, 0, math.pi / 2)[0]


# n/d, mean and largest canonical correlation of independent features with d = 192: section 4.3 of the notes.
TABLE = [(2, 0.637, 1.0), (5, 0.389, 0.79), (10, 0.272, 0.59), (20, 0.191, 0.44), (50, 0.120, 0.27)]


@pytest.mark.parametrize(("ratio", "mean", "largest"), TABLE)
def test_chance_is_as_in_the_table_the_simulation_and_the_theory(ratio, mean, largest):
    n = ratio * 96
    chance = chance_level(n, 96, 96, draws=3)
    assert wachter_mean(ratio) == pytest.approx(mean, abs=0.0015)
    assert chance.mean == pytest.approx(mean, abs=0.004)
    assert chance.mean <= chance.upper < chance.mean + 0.01
    first = chance_level(n, 96, 96, "first", draws=3)
    assert first.mean == pytest.approx(largest, abs=0.02)
    assert -0.002 < wachter_edge(n, 96, 96) - first.mean < 0.025


def test_with_as_many_features_as_samples_everything_is_1():
    assert chance_level(48, 48, 48, draws=2) == pytest.approx((1, 1))
    assert wachter_edge(48, 48, 48) == expected_squared_correlation(48, 48, 48) == 1


@few
@pytest.mark.parametrize(("n", "p", "q"), [(30, 3, 5), (60, 20, 4), (200, 20, 20), (10, 2, 12)])
def test_the_mean_squared_correlation_is_that_of_random_subspaces(n, p, q):
    squares = torch.stack([
        canonical_correlations(gaussian(n, p, seed), gaussian(n, q, seed + 1)).square().mean()
        for seed in range(0, 400, 2)
    ])
    error = float(squares.std()) / math.sqrt(len(squares))
    assert float(squares.mean()) == pytest.approx(expected_squared_correlation(n, p, q), abs=3 * error + 1e-9)


def test_the_edge_for_unequal_widths_and_its_other_form():
    assert wachter_edge(1001, 100, 100) == pytest.approx(2 * math.sqrt(0.1 * 0.9))
    assert wachter_edge(900, 150, 30) == wachter_edge(900, 30, 150)
    simulated = chance_level(900, 150, 30, "first", draws=4).mean
    assert -0.005 < wachter_edge(900, 150, 30) - simulated < 0.03
    assert wachter_edge(101, 50, 50) == wachter_edge(101, 90, 40) == 1


def test_chance_is_the_mean_and_the_95th_percentile_of_the_draws():
    generator = torch.Generator().manual_seed(3)
    draws = [[torch.randn(60, d, generator=generator, dtype=torch.float64) for d in (4, 2)] for _ in range(41)]
    values = sorted(similarity(x, y) for x, y in draws)
    assert chance_level(60, 4, 2, draws=41, seed=3) == pytest.approx((np.mean(values), values[38]), abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_chance_is_the_same_for_a_seed_and_what_is_related_is_above_it(measure):
    chance = chance_level(200, 5, 4, measure, draws=20)
    assert chance == chance_level(200, 5, 4, measure, draws=20) != chance_level(200, 5, 4, measure, draws=20, seed=1)
    assert similarity(*related(), measure) > 2 * chance.upper
    state = torch.random.get_rng_state()
    chance_level(20, 2, 2, measure, draws=1)
    assert torch.equal(torch.random.get_rng_state(), state)


# ---- warnings and errors ----


@pytest.mark.parametrize("measure", CCA)
def test_few_samples_are_warned_of_and_enough_are_not(measure):
    with pytest.warns(UserWarning, match="49 samples are few for 5 directions.*0.32.*Take 50 samples") as caught:
        similarity(*related(n=49), measure)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        similarity(*related(n=50), measure)
        similarity(*related(n=5), "cka")
        chance_level(20, 4, 4, measure, draws=1)


def test_the_directions_count_for_the_warning_and_not_the_columns():
    x, y = related(n=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canonical_correlations(x.repeat(1, 3), y)
    with pytest.warns(UserWarning, match="few for 5 directions") as caught:
        canonical_correlations(x[:30], y[:30])
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(("x", "message"), [
    (torch.tensor([[1.0], [2.0], [math.nan], [3.0]]), "hold NaN or infinity"),
    (torch.tensor([[1.0], [2.0], [math.inf], [3.0]]), "hold NaN or infinity"),
    (torch.ones(4, 2), "the same for every sample"), (torch.zeros(4, 2), "the same for every sample"),
    (torch.randn(3, 2), r"at least 4 samples are needed, not of shape \(3, 2\)"), (torch.randn(4), "shape"),
    (torch.randn(4, 0), "shape"), (torch.arange(5.0)[:, None], "the same samples, not of 5 and 4"),
])
@pytest.mark.parametrize("measure", MEASURES)
@few
def test_features_that_cannot_be_compared_are_an_error(x, message, measure):
    y = torch.arange(4.0)[:, None]
    with pytest.raises(ValueError, match=message):
        similarity(x, y, measure)
    with pytest.raises(ValueError, match=message.replace("5 and 4", "4 and 5")):
        similarity(y, x, measure)


def test_options_out_of_their_range_are_an_error():
    x, y = related()
    for options in ({"tolerance": 1.0}, {"tolerance": -1e-9}, {"energy": 0.0}, {"energy": 1.1}, {"energy": math.nan}):
        with pytest.raises(ValueError, match="tolerance must lie in"):
            canonical_correlations(x, y, **options)
    for call in (lambda: similarity(x, y, "median"), lambda: chance_level(100, 5, 5, "median")):
        with pytest.raises(ValueError, match="no measure 'median': there are mean, first, pwcca, svcca, cka"):
            call()
    with pytest.raises(ValueError, match="at least one draw"):
        chance_level(100, 5, 5, draws=0)
    for formula in (wachter_edge, expected_squared_correlation):
        with pytest.raises(ValueError, match="at least 4 samples and one feature of each"):
            formula(3, 1, 1)


def test_samples_that_have_nothing_in_common_have_no_cka():
    with pytest.raises(ValueError, match="no two samples have anything in common"):
        similarity(torch.eye(8), torch.randn(8, 2), "cka")
