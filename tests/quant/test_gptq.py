import itertools
import sys
import warnings

import pytest
import torch
from references import babai, classic_gptq, damped, obq_in_order, stale_gptq

from nanoq.lm import paired_difference
from nanoq.quant import Grid, LayerStats, affine_grid, dynamic_grid, gptq, nearest, recipe


def correlated_inputs(width, tokens=1024, rho=0.9, seed=0, dtype=torch.float64):
    """AR(1) inputs (tokens, width): neighbours correlate by rho."""
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    for k in range(1, width):
        x[:, k] = rho * x[:, k - 1] + (1 - rho**2) ** 0.5 * x[:, k]
    return x


def problem(out=12, width=80, bits=3, seed=0, rho=0.9, **grid_options):
    weight = torch.randn(out, width, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    stats = LayerStats.of(correlated_inputs(width, rho=rho, seed=seed))
    return weight, affine_grid(weight, bits, **grid_options), stats


def error(weight, grid, codes, stats):
    return stats.output_error(weight, grid.decode(codes))


GRIDS = [
    {"bits": 2}, {"bits": 3}, {"bits": 4, "symmetric": True}, {"bits": 8}, {"bits": 3, "granularity": "tensor"},
    {"bits": 3, "granularity": "group", "group_size": 16}, {"bits": 3, "granularity": "group", "group_size": 7},
    {"bits": 2, "search": "mse"},
]


@pytest.mark.parametrize("options", GRIDS, ids=str)
@pytest.mark.parametrize("reference", [classic_gptq, obq_in_order])
def test_it_gives_the_codes_of_the_references(options, reference):
    weight, grid, stats = problem(**options)
    assert torch.equal(gptq(weight, grid, stats), reference(weight, grid, stats.gram))


@pytest.mark.parametrize("name", ["mxfp4", "nf4-dq"])
@pytest.mark.parametrize("reference", [classic_gptq, obq_in_order])
def test_it_gives_their_codes_on_block_formats_too(name, reference):
    weight, _, stats = problem()
    grid = recipe.GRIDS[name](weight, 4)
    assert torch.equal(gptq(weight, grid, stats), reference(weight, grid, stats.gram))


def test_act_order_is_gptq_on_permuted_columns():
    weight, grid, stats = problem()
    scale = torch.rand(80, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.5
    stats.gram *= torch.outer(scale, scale)
    order = stats.gram.diagonal().argsort(descending=True)
    expected = torch.empty(12, 80, dtype=torch.long)
    expected[:, order] = classic_gptq(weight[:, order], grid, stats.gram[order][:, order])
    assert torch.equal(gptq(weight, grid, stats, act_order=True), expected)


def test_act_order_keeps_every_column_on_the_grid_of_its_group():
    weight, grid, stats = problem(granularity="group", group_size=16)
    weight[:, 16:32] *= 10
    grid = affine_grid(weight, 3, granularity="group", group_size=16)
    stats.gram *= torch.outer(*[torch.linspace(1, 2, 80, dtype=torch.float64)] * 2)
    codes = gptq(weight, grid, stats, act_order=True)
    assert error(weight, grid, codes, stats) < error(weight, grid, nearest(weight, grid), stats)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_beats_nearest_rounding_by_far_on_correlated_inputs(bits):
    weight, grid, stats = problem(bits=bits)
    best, near = (error(weight, grid, method(weight, grid, stats), stats) for method in (gptq, nearest))
    assert best < 0.4 * near


def test_it_beats_the_recursion_on_a_stale_inverse():
    weight, grid, stats = problem(bits=3)
    right, stale = (error(weight, grid, codes, stats) for codes in (
        gptq(weight, grid, stats), stale_gptq(weight, grid, stats.gram)))
    assert right < 0.8 * stale


def test_uncorrelated_inputs_leave_nothing_to_make_up_for():
    weight, grid, _ = problem()
    stats = LayerStats(80, torch.float64)
    stats.gram, stats.tokens = torch.eye(80, dtype=torch.float64), 1000
    assert torch.equal(gptq(weight, grid, stats), nearest(weight, grid))


def test_one_column_is_rounded_to_nearest():
    weight, grid, stats = problem(width=1)
    assert torch.equal(gptq(weight, grid, stats), nearest(weight, grid))


def test_it_is_close_to_the_best_of_all_roundings():
    weight, grid, stats = problem(out=40, width=8, bits=2)
    hessian, change = damped(stats.gram), weight - grid.decode(gptq(weight, grid, stats))
    mine = ((change @ hessian) * change).sum(1)
    choices = torch.tensor(list(itertools.product(range(4), repeat=8)), dtype=torch.float64)  # (4**8, 8)
    best = []
    for row, scale, zero in zip(weight, grid.scale, grid.zero_point, strict=True):
        other = row - scale * (choices - zero)
        best.append(((other @ hessian) * other).sum(1).min())
    best = torch.stack(best)
    assert (best <= mine * (1 + 1e-9)).all()
    assert paired_difference(mine, 2 * best).high < 0  # in the mean over rows


def test_a_codebook_grid_works_like_any_other():
    weight, _, stats = problem()
    codebook = torch.tensor([-1.0, -0.4, -0.1, 0.0, 0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    grid = Grid(3, 8, weight.abs().amax(1, keepdim=True), 80, codebook=codebook)
    codes = gptq(weight, grid, stats)
    assert torch.equal(codes, classic_gptq(weight, grid, stats.gram))
    assert error(weight, grid, codes, stats) < 0.5 * error(weight, grid, nearest(weight, grid), stats)


@pytest.mark.parametrize("codebook", [[-1.0, -0.5, 0.0, 0.5, 1.0], [-1.0, 0.0, 1.0, 2.0, 4.0]], ids=str)
def test_halves_on_a_codebook_go_to_the_value_an_even_number_of_places_from_0(codebook):
    codebook = torch.tensor(codebook, dtype=torch.float64)
    weight = ((codebook[1:] + codebook[:-1]) / 2)[None]
    stats = LayerStats(4, torch.float64)
    stats.gram, stats.tokens = torch.eye(4, dtype=torch.float64), 1000  # nothing to make up for
    grid = Grid(3, 5, torch.ones(1, 1, dtype=torch.float64), 4, codebook=codebook)
    codes = gptq(weight, grid, stats)
    assert torch.equal(codes, nearest(weight, grid))
    assert ((codes - int((codebook < 0).sum())) % 2 == 0).all()


def test_weights_of_inputs_that_were_always_zero_are_rounded_to_nearest():
    weight, grid, _ = problem()
    x = correlated_inputs(80)
    x[:, [3, 40]] = 0
    codes = gptq(weight, grid, LayerStats.of(x))
    assert torch.equal(codes[:, [3, 40]], nearest(weight, grid)[:, [3, 40]])
    alive = [k for k in range(80) if k not in (3, 40)]
    assert not torch.equal(codes[:, alive], nearest(weight, grid)[:, alive])


def test_a_layer_that_saw_only_zeros_is_rounded_to_nearest_and_says_so():
    weight, grid, stats = problem()
    stats.gram.zero_()
    with pytest.warns(UserWarning, match="rounded to nearest, because every calibration input was zero"):
        assert torch.equal(gptq(weight, grid, stats), nearest(weight, grid))


def test_few_calibration_tokens_are_pointed_out():
    weight, grid, _ = problem()
    with pytest.warns(UserWarning, match="319 calibration tokens are few for 80 inputs; take 320 or more"):
        gptq(weight, grid, LayerStats.of(correlated_inputs(80, tokens=319)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gptq(weight, grid, LayerStats.of(correlated_inputs(80, tokens=320)))


def test_it_is_babais_nearest_plane_algorithm():
    weight, _, stats = problem(bits=8)
    grid = affine_grid(10 * weight, 8)  # so wide that no code is ever clamped
    for row in range(3):
        codes = babai(weight[row], float(grid.scale[row]), stats.gram)
        assert torch.equal(gptq(weight, grid, stats)[row] - grid.zero_point[row].long(), codes)


def test_its_error_is_within_babais_bound():
    weight, _, stats = problem()
    grid = affine_grid(10 * weight, 8)
    change = weight - grid.decode(gptq(weight, grid, stats))
    hessian = damped(stats.gram)
    pivots = torch.linalg.cholesky(hessian.flip(0, 1)).diagonal().square()  # of the LDL factors
    bound = grid.scale[:, 0].square() * pivots.sum() / 4
    assert (((change @ hessian) * change).sum(1) <= bound).all()


@pytest.mark.parametrize("options", GRIDS, ids=str)
def test_coordinate_descent_never_makes_it_worse_and_ends(options):
    weight, grid, stats = problem(out=60, width=100, rho=0.6, **options)
    hessian = damped(stats.gram)

    def loss(rounds):
        change = weight - grid.decode(gptq(weight, grid, stats, descent=rounds))
        return ((change @ hessian) * change).sum(1)

    losses = [loss(rounds) for rounds in (0, 1, 2, 30, 31, 10**9)]
    assert all((after <= before * (1 + 1e-9)).all() for before, after in itertools.pairwise(losses))
    assert losses[1].sum() < 0.99 * losses[0].sum()
    assert torch.equal(losses[3], losses[4]) and torch.equal(losses[3], losses[5])


def test_after_coordinate_descent_no_single_column_can_be_improved():
    weight, grid, stats = problem(out=5, width=70, rho=0.6)
    hessian, codes = damped(stats.gram), gptq(weight, grid, stats, descent=50)
    change = weight - grid.decode(codes)
    least = ((change @ hessian) * change).sum(1)
    for k in range(70):
        for step in (-1, 1):
            moved = codes.clone()
            moved[:, k] = (moved[:, k] + step).clamp(0, 7)
            other = weight - grid.decode(moved)
            assert (((other @ hessian) * other).sum(1) >= least - 1e-12).all()


@pytest.mark.parametrize("group_size", [7, 16, 32, 50])
@pytest.mark.parametrize("symmetric", [False, True])
def test_dynamic_groups_fit_the_compensated_weights(group_size, symmetric):
    weight, _, stats = problem(width=100)
    grid = dynamic_grid(weight, 3, stats, group_size=group_size, symmetric=symmetric)
    codes = gptq(weight, grid, stats)
    # Columns before a group are settled; the plain form of what the rest then is, from the inverse Hessian.
    for start in range(0, 100, group_size):
        inverse = torch.linalg.inv(damped(stats.gram)[start:, start:])
        coupling = damped(stats.gram)[:start, start:] @ inverse  # what each settled column's error does to the rest
        error = (weight - grid.decode(codes))[:, :start]
        compensated = (weight[:, start:] + error @ coupling)[:, :group_size]
        part = affine_grid(compensated, 3, symmetric=symmetric)
        assert torch.allclose(part.scale[:, 0], grid.scale[:, start // group_size], rtol=2e-3)


def test_dynamic_groups_pay_where_small_weights_take_over_the_errors_of_large_ones():
    weight, _, stats = problem(out=64, width=128)
    weight.view(64, 8, 16)[:, 1::2] /= 50  # every second group
    static = affine_grid(weight, 3, granularity="group", group_size=16)  # too narrow there for what is to come
    dynamic = dynamic_grid(weight, 3, stats, group_size=16)
    assert error(weight, dynamic, gptq(weight, dynamic, stats), stats) < error(
        weight, static, gptq(weight, static, stats), stats)


@pytest.mark.parametrize(("change", "message"), [
    (lambda w, g: (w.where(w < 1, torch.nan), g), "the weight holds NaN or infinity"),
    (lambda w, g: (w[0], g), "a weight matrix"),
    (lambda w, g: (w, affine_grid(w[:5], 3)), "a grid of 5 rows does not fit"),
])
def test_a_weight_or_a_grid_that_cannot_be_used_is_an_error_that_says_why(change, message):
    weight, grid, stats = problem()
    with pytest.raises(ValueError, match=message):
        gptq(*change(weight, grid), stats)


def test_other_statistics_are_factored_anew():
    weight, grid, stats = problem()
    gptq(weight, grid, stats)
    stats.gram = LayerStats.of(correlated_inputs(80, rho=0.3, seed=4)).gram
    assert torch.equal(gptq(weight, grid, stats), classic_gptq(weight, grid, stats.gram))


def test_layers_with_the_same_input_share_one_factor(monkeypatch):
    weight, grid, stats = problem()
    first = gptq(weight, grid, stats)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)  # cannot be called again
    assert torch.equal(gptq(weight, grid, stats), first)
    stats.add(correlated_inputs(80, seed=9))
    with pytest.raises(TypeError):
        gptq(weight, grid, stats)


def test_a_singular_hessian_gets_more_damping_and_a_warning():
    weight, grid, stats = problem()
    stats.gram = torch.ones(80, 80, dtype=torch.float64)
    with pytest.warns(UserWarning, match="singular at damping 0; using 0.01"):
        codes = gptq(weight, grid, stats, damping=0.0)
    assert torch.equal(codes, gptq(weight, grid, stats, damping=0.01))


def test_float32_gives_nearly_the_codes_of_float64():
    weight, grid, stats = problem(out=64)
    single = LayerStats.of(correlated_inputs(80).float())
    codes = gptq(weight.float(), affine_grid(weight.float(), 3), single)
    assert (codes == gptq(weight, grid, stats)).double().mean() > 0.99


@pytest.mark.parametrize(("break_it", "message"), [
    (lambda s: setattr(s, "tokens", 0), "saw no calibration input"),
    (lambda s: setattr(s, "gram", s.gram[:5, :5]), "statistics of 5 inputs do not fit"),
    (lambda s: s.gram.fill_(torch.nan), "NaN or infinity"),
    (lambda s: s.gram.neg_(), "cannot be factored"),
])
@pytest.mark.filterwarnings("ignore:the Hessian is singular")
def test_statistics_that_cannot_be_used_are_an_error_that_says_why(break_it, message):
    weight, grid, stats = problem()
    break_it(stats)
    with pytest.raises(ValueError, match=message):
        gptq(weight, grid, stats)


@pytest.mark.parametrize("options", [
    {"granularity": "group", "group_size": 16}, {"symmetric": True}, {"granularity": "tensor"}, "nf4", "mxfp4",
], ids=str)
@pytest.mark.parametrize("how", [{}, {"act_order": True}, {"descent": 2}], ids=str)
def test_the_tensor_code_of_a_gpu_gives_the_codes_of_the_compiled_loop(options, how, monkeypatch):
    for seed in range(3):
        if isinstance(options, str):
            weight, _, stats = problem(width=80, seed=seed)
            grid = recipe.GRIDS[options](weight, 4)
        else:
            weight, grid, stats = problem(width=80, seed=seed, **options)
        with monkeypatch.context() as changed:
            expected = gptq(weight, grid, stats, **how)
            module = sys.modules["nanoq.quant.gptq_method"]
            changed.setattr(module, "_ColumnSweep", module._TensorSweep)
            changed.setattr(module, "_round_columns", None)
            assert torch.equal(gptq(weight, grid, stats, **how), expected)


@pytest.mark.parametrize("damping", [-0.1, float("nan")])
def test_damping_must_be_a_share(damping):
    weight, grid, stats = problem()
    with pytest.raises(ValueError, match="damping must be a share"):
        gptq(weight, grid, stats, damping=damping)
