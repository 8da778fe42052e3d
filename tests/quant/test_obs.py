import itertools

import pytest
import torch
from references import damped

from nanoq.quant import LayerStats, affine_grid, gptq, nearest, obq, obs_prune


def problem(out=5, width=16, rho=0.9):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, width, generator=generator, dtype=torch.float64)
    for k in range(1, width):
        x[:, k] += rho * x[:, k - 1]
    return torch.randn(out, width, generator=generator, dtype=torch.float64), LayerStats.of(x)


@pytest.mark.parametrize("damping", [0.01, 0.5])
def test_pruned_rows_have_their_zeros_and_the_rest_is_the_least_squares_solution(damping):
    weight, stats = problem()
    pruned = obs_prune(weight, stats, 0.5, damping=damping)
    assert ((pruned == 0).sum(1) == 8).all()
    hessian = damped(stats.gram, damping)
    for row, new in zip(weight, pruned, strict=True):
        kept = new != 0
        best = torch.linalg.solve(hessian[kept][:, kept], (hessian @ row)[kept])
        assert torch.allclose(new[kept], best)


def test_the_first_weight_to_go_is_the_one_that_costs_least():
    weight, stats = problem(width=8)
    hessian, pruned = damped(stats.gram), obs_prune(weight, stats, 1 / 8)
    for row, new in zip(weight, pruned, strict=True):
        costs = []
        for q in range(8):
            kept = torch.arange(8) != q
            best = torch.zeros(8, dtype=torch.float64)
            best[kept] = torch.linalg.solve(hessian[kept][:, kept], (hessian @ row)[kept])
            costs.append(float((row - best) @ hessian @ (row - best)))
        assert int((new == 0).nonzero()) == costs.index(min(costs))


@pytest.mark.parametrize(("share", "zeros"), [(0.0, 0), (0.3, 5), (0.35, 6), (1.0, 16)])
def test_a_share_of_the_weights_is_rounded_to_the_nearest_number_of_them(share, zeros):
    weight, stats = problem()
    assert ((obs_prune(weight, stats, share) == 0).sum(1) == zeros).all()


def test_pruning_by_obs_beats_pruning_the_smallest():
    weight, stats = problem(out=20)
    smallest = weight.where(weight.abs() > weight.abs().median(1, keepdim=True).values, 0)
    assert stats.output_error(weight, obs_prune(weight, stats, 0.5)) < 0.5 * stats.output_error(weight, smallest)


def test_obq_settles_every_weight_on_the_grid_and_beats_nearest():
    weight, stats = problem(out=20)
    grid = affine_grid(weight, 3)
    codes = obq(weight, grid, stats)
    assert codes.min() >= 0
    assert codes.max() <= 7
    errors = [stats.output_error(weight, grid.decode(c)) for c in (codes, nearest(weight, grid))]
    assert errors[0] < 0.7 * errors[1]


def test_obq_is_near_the_best_of_all_roundings():
    weight, stats = problem(out=20, width=6, rho=0.5)
    grid, hessian = affine_grid(weight, 3, granularity="tensor"), damped(stats.gram)
    choices = grid.decode(torch.tensor(list(itertools.product(range(8), repeat=6))))  # (8**6, 6)
    mine = weight - grid.decode(obq(weight, grid, stats))
    for row, change in zip(weight, mine, strict=True):
        best = (((row - choices) @ hessian) * (row - choices)).sum(1).min()
        assert best * (1 - 1e-9) <= change @ hessian @ change < 3 * best


def test_obq_without_couplings_is_nearest():
    weight, stats = problem()
    stats.gram = torch.eye(16, dtype=torch.float64)
    grid = affine_grid(weight, 4)
    assert torch.equal(obq(weight, grid, stats), nearest(weight, grid))


def test_so_much_damping_that_no_coupling_counts_is_nearest():
    weight, stats = problem()
    grid = affine_grid(weight, 3)
    assert torch.equal(obq(weight, grid, stats, damping=1e9), nearest(weight, grid))
    assert not torch.equal(obq(weight, grid, stats), nearest(weight, grid))


def test_a_share_out_of_range_is_an_error():
    weight, stats = problem()
    with pytest.raises(ValueError, match=r"sparsity must lie in 0\.\.1"):
        obs_prune(weight, stats, 50)


@pytest.mark.parametrize(("change", "message"), [
    (lambda w, s: (w * torch.nan, s), "NaN or infinity"), (lambda w, s: (w[0], s), "a weight matrix"),
    (lambda w, s: (w, None), "no calibration"), (lambda w, s: (w, LayerStats(16)), "no calibration"),
    (lambda w, s: (w[:, :5], s), "do not fit"),
])
def test_what_cannot_be_used_is_an_error_that_says_why(change, message):
    weight, stats = problem()
    grid = affine_grid(weight, 4)
    broken, other = change(weight, stats)
    with pytest.raises(ValueError, match=message):
        obs_prune(broken, other, 0.5)
    with pytest.raises(ValueError, match=message):
        obq(broken, grid, other)


def test_inputs_of_zero_leave_each_weight_to_itself():
    weight, stats = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), LayerStats.of(torch.zeros(30, 6))
    grid = affine_grid(weight, 4)
    assert torch.equal(obq(weight, grid, stats), grid.encode(weight).long())
    pruned = obs_prune(weight, stats, 0.5)
    assert torch.equal(pruned, torch.where(pruned != 0, weight.double(), 0.0))
    third = weight.abs().sort(1).values[:, 2:3]
    assert torch.equal(pruned == 0, weight.abs() <= third)


def test_inputs_too_large_to_be_squared_are_named():
    weight, stats = torch.randn(4, 6), LayerStats.of(torch.full((30, 6), 1e19))
    for method in (lambda: obq(weight, affine_grid(weight, 4), stats), lambda: obs_prune(weight, stats, 0.5),
                   lambda: gptq(weight, affine_grid(weight, 4), stats)):
        with pytest.raises(ValueError, match="inputs whose squares leave the range of float32"):
            method()
