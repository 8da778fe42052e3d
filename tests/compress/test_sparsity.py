import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.compress import kept_zeros, mask, prune, sparsegpt, wanda
from nanoq.lm import GPT, GPTConfig, TrainConfig, train
from nanoq.quant import LayerStats, affine_grid, gptq, linear_layers, obs_prune, ternary_grid


def layer(rows=12, columns=16, tokens=400, seed=0):
    """A weight and the statistics of correlated inputs, in float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, columns, generator=generator, dtype=torch.float64)
    for k in range(1, columns):  # neighbours correlate by 0.9
        inputs[:, k] = 0.9 * inputs[:, k - 1] + 0.19**0.5 * inputs[:, k]
    return weight, LayerStats.of(inputs)


@given(st.integers(1, 9), st.integers(1, 17), st.floats(0, 0.99))
def test_a_mask_takes_the_share_that_it_was_asked_for(rows, columns, sparsity):
    scores = torch.rand(rows, columns)
    assert (mask(scores, sparsity, "row").sum(1) == columns - round(sparsity * columns)).all()
    assert mask(scores, sparsity, "matrix").sum() == scores.numel() - round(sparsity * scores.numel())


@pytest.mark.parametrize("pattern", ["row", "matrix", "2:4", "1:4", "4:8"])
def test_what_stays_is_worth_more_than_what_goes(pattern):
    scores = torch.rand(8, 16)
    keep = mask(scores, 0.5, pattern)
    shape = {"row": (8, 16), "matrix": (1, -1)}.get(pattern) or (-1, int(pattern[-1]))
    for row, kept in zip(scores.reshape(shape), keep.reshape(shape), strict=True):
        assert row[kept].min() > row[~kept].max()
    if ":" in pattern:
        assert (keep.reshape(shape).sum(1) == int(pattern[0])).all()


def test_of_equal_scores_the_first_stay():
    assert mask(torch.tensor([[1.0, 2.0, 1.0, 1.0]])).tolist() == [[True, True, False, False]]
    assert mask(torch.ones(2, 4), pattern="matrix").tolist() == [[True] * 4, [False] * 4]


@pytest.mark.parametrize("options", [{}, {"granularity": "group", "group_size": 4}])
def test_with_nothing_to_prune_and_nothing_to_make_up_for_each_weight_goes_to_its_nearest(options):
    weight = layer()[0] * torch.arange(1.0, 17)  # groups with thresholds of their own
    grid = ternary_grid(weight, operator="twn", **options)
    stats = LayerStats.of(torch.eye(16, dtype=torch.float64).repeat(4, 1))
    assert torch.equal(sparsegpt(weight, stats, grid, sparsity=0), grid.decode(grid.encode(weight)))


def test_equal_scores_still_give_the_share_asked_for():
    assert mask(torch.zeros(3, 8), 0.25).sum(1).tolist() == [6, 6, 6]
    assert mask(torch.zeros(3, 8), pattern="2:4").reshape(-1, 4).sum(1).tolist() == [2] * 6


@pytest.mark.parametrize(
    ("options", "said"),
    [({"sparsity": 1}, "sparsity must lie in"), ({"sparsity": -0.1}, "sparsity must lie in"),
     ({"pattern": "column"}, "pattern must be"), ({"pattern": "4:4"}, "pattern must be"),
     ({"pattern": "2:5"}, "16 columns cannot be cut into groups of 5"),
     ({"method": "guess"}, "no method 'guess' to prune by")],
)
def test_what_cannot_be_pruned_says_why(options, said):
    weight, stats = layer()
    for method in ("magnitude", "sparsegpt"):
        with pytest.raises(ValueError, match=said):
            prune(weight, stats, **({"method": method} | options))


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_a_grid_of_another_matrix_and_a_negative_damping_are_named(method):
    weight, stats = layer()
    with pytest.raises(ValueError, match="grid of 3 rows does not fit"):
        prune(weight, stats, affine_grid(weight[:3], 3), method=method)
    with pytest.raises(ValueError, match="damping must be"):
        sparsegpt(weight, stats, damping=-1)


def test_a_singular_hessian_is_damped_more_with_a_warning():
    weight, _ = layer()
    stats = LayerStats.of(torch.ones(100, 16, dtype=torch.float64))
    with pytest.warns(UserWarning, match="the Hessian is singular at damping 0; using"):
        assert sparsegpt(weight, stats, damping=0).isfinite().all()


@pytest.mark.parametrize("method", ["magnitude", "wanda", "random", "sparsegpt"])
def test_bad_weights_and_statistics_are_named(method):
    weight, stats = layer()
    with pytest.raises(ValueError, match="NaN"):
        prune(weight * torch.nan, stats, method=method)
    if method in ("wanda", "sparsegpt"):
        with pytest.raises(ValueError, match="no calibration"):
            prune(weight, None, method=method)
        with pytest.raises(ValueError, match="do not fit"):
            prune(weight[:, :8], stats, method=method)


def test_wanda_weighs_by_the_norm_of_the_input():
    inputs = torch.tensor([[3.0, 0.0, 1.0], [4.0, 1.0, 0.0]])
    scores = wanda(torch.tensor([[1.0, -9.0, 2.0]]), LayerStats.of(inputs))
    assert torch.allclose(scores / scores[0, 0], torch.tensor([[1.0, 9 / 5, 2 / 5]]))


def algorithm_1(weight, hessian, sparsity, pattern, block, grid=None):
    """The paper's own form: the inverse Hessian's Cholesky factor, and weights that share every error at once."""
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian)).T  # H^-1 = U^T U
    weight, pruned = weight.clone(), torch.zeros_like(weight)
    for k in range(weight.shape[1]):
        if k % block == 0:
            mine = slice(k, k + block)
            keep = mask((weight[:, mine] / upper.diagonal()[mine]).square(), sparsity, pattern)
        column = weight[:, k] if grid is None else grid.decode(grid.encode(weight))[:, k]
        pruned[:, k] = column * keep[:, k % block]
        weight[:, k:] -= torch.outer((weight[:, k] - pruned[:, k]) / upper[k, k], upper[k, k:])
    return pruned


@pytest.mark.parametrize(("pattern", "block"), [("row", 128), ("matrix", 128), ("2:4", 4), ("1:4", 4), ("4:8", 8)])
@pytest.mark.parametrize("bits", [None, 3])
def test_it_is_the_papers_algorithm_in_every_block(pattern, block, bits):
    weight, stats = layer(rows=20, columns=304, tokens=2000)
    grid = bits and affine_grid(weight, bits, granularity="group", group_size=16)
    expected = algorithm_1(weight, stats.damped(0.01), 0.6, pattern, block, grid)
    ours = sparsegpt(weight, stats, grid, sparsity=0.6, pattern=pattern)
    assert torch.equal(ours == 0, expected == 0)
    assert torch.allclose(ours, expected, atol=1e-9)


def test_sparsegpt_beats_the_scores_on_the_outputs():
    weight, stats = layer(rows=64, columns=32)
    error = {m: stats.output_error(weight, prune(weight, stats, method=m)) for m in ("magnitude", "wanda", "sparsegpt")}
    assert error["sparsegpt"] < 0.8 * min(error["magnitude"], error["wanda"])


def test_on_uncorrelated_inputs_sparsegpt_is_wanda():
    weight, _ = layer()
    stats = LayerStats.of(torch.diag(torch.arange(1.0, 17, dtype=torch.float64)))
    assert torch.allclose(sparsegpt(weight, stats, damping=0), prune(weight, stats, method="wanda"))


def test_what_stays_makes_up_for_what_went_as_well_as_it_can_later_in_the_row():
    """Given the mask, each pruned weight moves those behind it by the constrained optimum (the paper's equation 4)."""
    weight, stats = layer(rows=6, columns=8)
    pruned = sparsegpt(weight, stats, pattern="4:8", damping=0)
    for before, after in zip(weight, pruned, strict=True):
        gone = (after == 0).nonzero().flatten()
        row = before.clone()
        for q in gone.tolist():
            inverse = torch.linalg.inv(stats.gram[q:, q:])
            row[q:] -= row[q] / inverse[0, 0] * inverse[:, 0]
        assert torch.allclose(row, after, atol=1e-8)


def test_with_one_weight_a_row_to_go_the_exact_surgeon_is_at_least_as_good():
    weight, stats = layer(rows=20, columns=8)
    ours = stats.output_error(weight, sparsegpt(weight, stats, sparsity=1 / 8, damping=0))
    exact = stats.output_error(weight, obs_prune(weight, stats, 1 / 8, damping=0))
    assert exact <= ours < stats.output_error(weight, prune(weight, stats, sparsity=1 / 8))


def test_with_no_sparsity_and_a_grid_it_is_gptq():
    weight, stats = layer(rows=24, columns=40)
    grid = affine_grid(weight, 3)
    assert torch.allclose(sparsegpt(weight, stats, grid, sparsity=0), grid.decode(gptq(weight, grid, stats)))


@pytest.mark.parametrize("options", [{"granularity": "group", "group_size": 8}, {"granularity": "tensor"}, {}])
def test_with_a_grid_every_weight_lies_on_it_and_half_are_zero(options):
    weight, stats = layer(rows=24, columns=40)
    grid = affine_grid(weight, 3, **options)
    pruned = sparsegpt(weight, stats, grid)
    assert torch.equal(grid.decode(grid.encode(pruned)), pruned)
    assert (pruned == 0).sum() >= pruned.numel() / 2


def test_a_layer_that_saw_only_zeros_is_pruned_by_magnitude():
    weight, _ = layer()
    dead = LayerStats.of(torch.zeros(9, 16, dtype=torch.float64))
    assert torch.equal(sparsegpt(weight, dead), prune(weight))


@pytest.mark.parametrize("shape", [(1, 16), (5, 1)])
def test_thin_matrices(shape):
    weight, stats = torch.ones(shape), LayerStats.of(torch.eye(shape[1]))
    for pattern, method in itertools.product(("row", "matrix"), ("magnitude", "wanda", "sparsegpt")):
        assert prune(weight, stats, method=method, pattern=pattern).shape == shape


def test_zeros_stay_zeros_in_training_and_the_rest_moves():
    model = GPT(GPTConfig(vocab_size=7, context=8, layers=1, heads=2, width=8))
    with torch.no_grad():
        for one in linear_layers(model).values():
            one.weight.copy_(prune(one.weight))
    before = {name: one.weight.detach().clone() for name, one in linear_layers(model).items()}
    tokens = torch.randint(7, (400,), generator=torch.Generator().manual_seed(0))
    with kept_zeros(model):
        train(model, tokens, tokens, TrainConfig(tokens=5 * 8 * 8, warmup=1, valid_windows=2))
    for name, one in linear_layers(model).items():
        assert isinstance(one.weight, torch.nn.Parameter)
        assert torch.equal(one.weight == 0, before[name] == 0)
        assert not torch.equal(one.weight, before[name])
