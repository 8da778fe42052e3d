import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import groups_of

from nanoq.numbers import BLOCKS
from nanoq.quant import (
    GRIDS,
    OPERATORS,
    Grid,
    LayerStats,
    affine_grid,
    gptq,
    nearest,
    refit_scale,
    ternary_grid,
    unit_gain,
)


def random_weight(seed=0, out=6, width=40, dtype=torch.float32):
    return torch.randn(out, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rounded(weight, grid):
    return grid.decode(nearest(weight, grid))


options = st.fixed_dictionaries({
    "symmetric": st.booleans(),
    "granularity": st.sampled_from(["tensor", "channel", "group"]),
    "search": st.sampled_from(["minmax", "mse"]),
})


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8), options=options, group=st.sampled_from([1, 7, 16, 64]))
def test_nearest_picks_the_nearest_value_of_the_grid(seed, bits, options, group):
    weight = random_weight(seed)
    grid = affine_grid(weight, bits, group_size=group if options["granularity"] == "group" else None, **options)
    values = torch.stack([grid.decode(torch.full_like(weight, code)) for code in range(grid.levels)])
    assert torch.allclose((rounded(weight, grid) - weight).abs(), (values - weight).abs().amin(0), atol=1e-6)


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8), options=options)
def test_zero_is_on_every_grid(seed, bits, options):
    weight = random_weight(seed) + 3  # no value near zero
    grid = affine_grid(weight, bits, group_size=8 if options["granularity"] == "group" else None, **options)
    assert (rounded(torch.zeros_like(weight), grid) == 0).all()


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8), symmetric=st.booleans())
def test_minmax_is_off_by_half_a_step_at_most(seed, bits, symmetric):
    weight = random_weight(seed)
    grid = affine_grid(weight, bits, symmetric=symmetric)
    # The range is covered up to the rounding of scale (2**-11) and, for asymmetric grids, of the zero point.
    slack = 0.5 + (0 if symmetric else 0.5) + grid.levels * 2**-11
    assert ((rounded(weight, grid) - weight).abs() <= grid.scale * slack + 1e-7).all()


@given(scale=st.floats(1e-3, 1e3), bits=st.integers(2, 8))
def test_a_weight_on_the_grid_stays_as_it_is(scale, bits):
    step = torch.tensor(scale).half().float()
    half = 2 ** (bits - 1) - 1
    weight = step * torch.arange(-half, half + 1)[None]
    assert torch.allclose(rounded(weight, affine_grid(weight, bits, symmetric=True)), weight, rtol=2e-3)


def test_symmetric_grids_have_an_odd_number_of_levels_and_no_zero_point():
    grid = affine_grid(random_weight(), 8, symmetric=True)
    assert grid.levels == 255
    assert grid.zero_point is None
    values = grid.decode(torch.arange(255).float().expand(6, 255))
    assert torch.equal(values, -values.flip(1))


def test_two_symmetric_bits_are_the_naive_ternary_grid():
    weight = random_weight()
    grid = affine_grid(weight, 2, symmetric=True)
    assert grid.levels == 3
    assert torch.allclose(grid.scale[:, 0], weight.abs().amax(1), rtol=1e-3)


@pytest.mark.parametrize(("granularity", "group_size", "shape"), [
    ("tensor", None, (1, 1)), ("channel", None, (6, 1)), ("group", 16, (6, 3)), ("group", 64, (6, 1)),
])
def test_there_is_one_scale_for_each_part(granularity, group_size, shape):
    grid = affine_grid(random_weight(), 4, granularity=granularity, group_size=group_size)
    assert grid.scale.shape == shape
    assert grid.zero_point.shape == shape


def test_a_short_last_group_has_its_own_scale():
    weight = random_weight()
    weight[:, 32:] /= 100
    grid = affine_grid(weight, 4, granularity="group", group_size=16)
    assert torch.equal(grid.scale[:, 2:], affine_grid(weight[:, 32:], 4).scale)


def test_finer_grids_are_better_and_cost_more_scales():
    weight = random_weight(out=32, width=256) * torch.logspace(-1, 1, 256)
    errors = [(rounded(weight, affine_grid(weight, 4, **kind)) - weight).square().mean() for kind in (
        {"granularity": "tensor"}, {}, {"granularity": "group", "group_size": 64},
        {"granularity": "group", "group_size": 16},
    )]
    assert errors == sorted(errors, reverse=True)


@given(seed=st.integers(0, 1000), bits=st.integers(2, 4), symmetric=st.booleans())
def test_the_mse_search_is_never_worse_than_minmax(seed, bits, symmetric):
    weight = random_weight(seed)
    error = {search: (rounded(weight, affine_grid(weight, bits, symmetric=symmetric, search=search)) - weight)
             .square().sum(1) for search in ("minmax", "mse")}
    assert (error["mse"] <= error["minmax"] * (1 + 1e-5)).all()


def test_the_mse_search_clips_an_outlier():
    weight = random_weight(out=1, width=1000)
    weight[0, 0] = 20
    assert affine_grid(weight, 4, search="mse").scale < 0.8 * affine_grid(weight, 4).scale


@pytest.mark.parametrize(("mass", "scale"), [(10.0, 10.0), (9.9, 9.9), (5.7, 5.7), (2.0, 2.0), (1.5, 2.0)])
def test_the_mse_search_shrinks_in_hundredths_and_by_80_percent_at_most(mass, scale):
    weight = torch.full((1, 10_000), mass)
    weight[0, 0] = 10
    grid = affine_grid(weight, 2, symmetric=True, search="mse")  # -scale, 0, scale: best at the mass, if it gets there
    assert float(grid.scale) == pytest.approx(scale, rel=2**-11)


def test_scales_are_what_float16_can_hold():
    scale = affine_grid(random_weight(), 4).scale
    assert torch.equal(scale.half().float(), scale)


@pytest.mark.parametrize("factor", [1e-6, 1e7])
def test_scales_outside_float16_keep_their_precision(factor):
    weight = random_weight() * factor
    grid = affine_grid(weight, 8)
    assert (rounded(weight, grid) - weight).abs().max() <= grid.scale.max()


def test_a_row_of_zeros_stays_zero():
    weight = random_weight()
    weight[2] = 0
    for search in ("minmax", "mse"):
        assert (rounded(weight, affine_grid(weight, 4, search=search))[2] == 0).all()


def test_a_matrix_of_one_weight_has_a_grid():
    weight = torch.tensor([[0.3]])
    assert torch.allclose(rounded(weight, affine_grid(weight, 4)), weight, rtol=1e-3)


def test_codebooks_round_to_the_nearest_entry():
    codebook = torch.tensor([-1.0, -0.2, 0.0, 0.5, 1.0])
    grid = Grid(3, 5, torch.full((2, 1), 2.0), 4, codebook=codebook)
    values = torch.tensor([[-9.0, -0.3, 0.1, 0.6], [0.4, 1.4, 1.6, 9.0]])
    assert torch.equal(rounded(values, grid), torch.tensor([[-2.0, -0.4, 0.0, 1.0], [0.0, 1.0, 2.0, 2.0]]))


@pytest.mark.parametrize("fmt", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("width", [40, 128, 8])
def test_nearest_on_a_block_format_is_the_formats_own_rounding(fmt, width):
    weight = random_weight(width=width)
    assert torch.equal(rounded(weight, GRIDS[fmt.name](weight, fmt.bits)), fmt.round(weight))


def test_a_block_format_has_the_bits_that_it_has():
    with pytest.raises(ValueError, match="nf4 has 4 bits, not 3"):
        GRIDS["nf4"](random_weight(), 3)
    with pytest.raises(ValueError, match="NaN or infinity"):
        GRIDS["nf4"](torch.full((2, 2), torch.nan), 4)


@pytest.mark.parametrize("name", ["affine", *BLOCKS])
def test_groups_split_a_grid_by_columns(name):
    weight = random_weight(width=100)
    options = {"granularity": "group", "group_size": 16} if name == "affine" else {}
    grid = GRIDS[name](weight, 8 if name == "mxfp8" else 4, **options)
    parts = weight.split(grid.group_size, dim=1)
    codes = [nearest(part, one) for part, one in zip(parts, groups_of(grid), strict=True)]
    assert torch.equal(torch.cat(codes, dim=1), nearest(weight, grid))


@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 1}, "bits must be in 2..8"), ({"bits": 9}, "bits must be in 2..8"),
    ({"granularity": "row"}, "granularity must be one of"), ({"search": "best"}, "search must be"),
    ({"group_size": 8}, "group_size goes with"), ({"granularity": "group"}, "group_size goes with"),
    ({"granularity": "group", "group_size": 0}, "at least 1"),
    ({"weight": torch.full((2, 2), torch.nan)}, "NaN or infinity"),
    ({"weight": torch.full((2, 2), torch.inf)}, "NaN or infinity"),
    ({"weight": torch.zeros(3)}, r"shape \(3,\)"), ({"weight": torch.zeros(0, 3)}, r"shape \(0, 3\)"),
])
def test_what_cannot_be_quantised_is_an_error_that_says_why(change, message):
    with pytest.raises(ValueError, match=message):
        affine_grid(**({"weight": random_weight(), "bits": 4} | change))


# ---- the two values on both sides of a weight ----

OPEN_GRIDS = {  # grids that do not reach the ends of the weights are among them
    "affine 2": lambda w: affine_grid(w, 2), "affine 4 groups": lambda w: affine_grid(
        w, 4, granularity="group", group_size=7),
    "symmetric 3": lambda w: affine_grid(w, 3, symmetric=True, search="mse"),
    "tensor 8": lambda w: affine_grid(w, 8, granularity="tensor"),
    "codebook": lambda w: Grid(3, 5, w.abs().amax(1, keepdim=True) / 2, w.shape[1],
                               codebook=torch.tensor([-1.0, -0.2, 0.0, 0.5, 1.0]).to(w)),
} | {f"ternary {name}": lambda w, name=name: ternary_grid(w, operator=name) for name in OPERATORS} | {
    name: lambda w, fmt=fmt: GRIDS[fmt.name](w, fmt.bits) for name, fmt in BLOCKS.items()}


@pytest.mark.parametrize("make", OPEN_GRIDS.values(), ids=OPEN_GRIDS)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_neighbours_are_next_to_each_other_with_the_weight_between_them(make, seed, dtype):
    weight = random_weight(seed, dtype=dtype)
    weight[0] += 0.5
    grid = make(weight)
    codes = grid.neighbours(1.2 * weight)  # beyond the ends of any grid
    lower, upper = (grid.decode(code) for code in codes)
    low, high = (grid.decode(torch.full_like(weight, code)) for code in (0, grid.levels - 1))
    hair = 1e-6 * weight.abs()
    values = 1.2 * weight
    assert all(((code >= 0) & (code < grid.levels) & (code == code.round())).all() for code in codes)
    outside = (values < low - hair) | (values > high + hair)
    assert torch.equal(codes[0][outside], codes[1][outside])
    assert torch.equal(lower[outside], torch.where(values > high, high, low)[outside])
    inside = (values > low + hair) & (values < high - hair)
    assert ((codes[1] - codes[0])[inside] == 1).all()
    assert (lower <= values + hair)[inside].all() and (values <= upper + hair)[inside].all()
    assert outside.any() and inside.any()


@pytest.mark.parametrize("make", OPEN_GRIDS.values(), ids=OPEN_GRIDS)
def test_a_grid_value_has_itself_and_the_next_one_above_as_neighbours(make):
    weight = random_weight()
    grid = make(weight)
    for code in range(grid.levels):
        codes = torch.full_like(weight, code)
        lower, upper = grid.neighbours(grid.decode(codes))
        if grid.packed_scale is None and grid.codebook is None:  # scales that float16 holds divide without rounding
            assert torch.equal(lower, codes)
            assert torch.equal(upper, (codes + 1).clamp(max=grid.levels - 1))
        assert ((lower == codes) | (upper == codes)).all()


def test_a_codebook_value_has_itself_and_the_next_one_above_as_neighbours():
    grid = Grid(3, 5, torch.full((1, 1), 2.0), 5, codebook=torch.tensor([-1.0, -0.2, 0.0, 0.5, 1.0]))
    lower, upper = grid.neighbours(2 * grid.codebook[None])
    assert lower.tolist() == [[0, 1, 2, 3, 4]] and upper.tolist() == [[1, 2, 3, 4, 4]]


@pytest.mark.parametrize("make", OPEN_GRIDS.values(), ids=OPEN_GRIDS)
def test_the_nearest_value_is_one_of_the_neighbours(make):
    weight = random_weight(3)
    grid = make(weight)
    near = ternary_grid(weight) if grid.threshold is not None else grid  # a threshold need not be half-way
    codes = near.encode(weight)
    lower, upper = near.neighbours(weight)
    assert ((codes == lower) | (codes == upper)).all()


def test_a_threshold_decides_what_becomes_zero():
    grid = Grid(2, 3, torch.tensor([[1.0], [2.0]]), 4, threshold=torch.tensor([[0.25], [1.5]]))
    values = torch.tensor([[0.25, -0.26, 0.0, 9.0], [1.5, -1.51, 1.0, -9.0]])
    assert grid.encode(values).tolist() == [[1, 0, 1, 2], [1, 0, 1, 0]]
    assert rounded(values, grid).tolist() == [[0, -1, 0, 1], [0, -2, 0, -2]]
    lower, upper = grid.neighbours(torch.tensor([[0.1, -0.1, 1.0, 3.0], [-2.5, -2.0, 0.0, 1.9]]))
    assert lower.tolist() == [[1, 0, 2, 2], [0, 0, 1, 1]]
    assert upper.tolist() == [[2, 1, 2, 2], [0, 1, 2, 2]]


def test_a_threshold_of_each_group_counts_for_its_columns():
    grid = Grid(2, 3, torch.ones(1, 2), 3, threshold=torch.tensor([[0.2, 0.8]]))
    assert grid.encode(torch.full((1, 5), 0.5)).tolist() == [[2, 2, 2, 1, 1]]


# ---- scales that fit codes best ----

FITTED = {
    "channel": {}, "tensor": {"granularity": "tensor"}, "groups": {"granularity": "group", "group_size": 8},
    "a short last group": {"granularity": "group", "group_size": 17},
}


def correlated(width, seed=0, tokens=400, rho=0.8):
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for k in range(1, width):
        x[:, k] = rho * x[:, k - 1] + (1 - rho**2) ** 0.5 * x[:, k]
    return x


def least_squares_scales(weight, codes, grid, inputs):
    """The scales by which the outputs of the codes' values come nearest to the weight's: numpy's least squares."""
    units = codes.double() - grid.over_columns(grid.zero_codes, weight).double()
    groups = grid.scale.shape[1]
    group = torch.arange(weight.shape[1]) // grid.group_size if groups > 1 else torch.zeros(weight.shape[1]).long()
    parts = torch.stack([inputs @ (units * (group == g)).T for g in range(groups)], dim=2)  # (tokens, out, groups)
    goal = inputs @ weight.T  # (tokens, out)
    if len(grid.scale) == 1:
        parts, goal = parts.reshape(-1, 1, groups), goal.reshape(-1, 1)
    solutions = [np.linalg.lstsq(parts[:, row].numpy(), goal[:, row].numpy(), rcond=None)[0]
                 for row in range(len(grid.scale))]
    return torch.from_numpy(np.stack(solutions))


@pytest.mark.parametrize("make", [
    lambda w, options: affine_grid(w, 3, **options), lambda w, options: affine_grid(w, 2, symmetric=True, **options),
    lambda w, options: ternary_grid(w, operator="twn", **options),
], ids=["affine", "symmetric", "ternary"])
@pytest.mark.parametrize("options", FITTED.values(), ids=FITTED)
@pytest.mark.parametrize("calibrated", [False, True])
def test_refitted_scales_are_the_least_squares_ones(make, options, calibrated):
    weight = random_weight(dtype=torch.float64)
    grid = make(weight, options)
    inputs = correlated(40)
    codes = nearest(weight, grid)
    fitted = refit_scale(weight, codes, grid, LayerStats.of(inputs) if calibrated else None)
    expected = least_squares_scales(weight, codes, grid, inputs if calibrated else torch.eye(40, dtype=torch.float64))
    assert fitted.scale.shape == grid.scale.shape
    assert torch.allclose(fitted.scale, expected, rtol=2**-11 + 1e-5)
    assert torch.equal(fitted.scale.half().double(), fitted.scale)
    assert fitted.zero_point is grid.zero_point and fitted.levels == grid.levels


@settings(max_examples=60)
@given(seed=st.integers(0, 1000), bits=st.integers(2, 4), kind=st.sampled_from(["affine", "ternary"]),
       options=st.sampled_from([*FITTED.values(), {"granularity": "group", "group_size": 2}]),
       method=st.sampled_from([nearest, gptq]), calibrated=st.booleans())
def test_refitting_never_makes_the_error_of_a_row_larger(seed, bits, kind, options, method, calibrated):
    weight = random_weight(seed)
    weight[:, 10:20] *= 0.05  # these can turn round when they make up for errors of the others
    stats = LayerStats.of(correlated(40, seed, rho=0.98).float())
    grid = affine_grid(weight, bits, **options) if kind == "affine" else ternary_grid(weight, **options)
    codes = method(weight, grid, stats)
    seen = stats if calibrated else None
    gram = stats.gram if calibrated else torch.eye(40)

    def error(grid):
        change = grid.decode(codes) - weight
        rows = ((change @ gram) * change).sum(1)
        return rows.sum(0, keepdim=True) if len(grid.scale) == 1 else rows

    assert (error(refit_scale(weight, codes, grid, seen)) <= error(grid) * (1 + 1e-3)).all()


def test_refitting_on_a_codebook_keeps_its_values():
    weight = random_weight(width=128)
    grid = GRIDS["nf4"](weight, 4)
    codes = nearest(weight, grid)
    fitted = refit_scale(weight, codes, grid)
    assert torch.equal(fitted.codebook, grid.codebook)
    assert (fitted.decode(codes) - weight).square().sum() < (grid.decode(codes) - weight).square().sum()


@pytest.mark.parametrize("power", [-40, -20, 25])
def test_weights_beyond_the_scales_of_float16_are_refitted_like_others_or_left_alone(power):
    weight = random_weight()
    grid, small = affine_grid(weight, 3), affine_grid(2.0**power * weight, 3)
    codes = nearest(2.0**power * weight, small)
    fitted = refit_scale(2.0**power * weight, codes, small)

    def error(grid):
        return float((2.0**-power * grid.decode(codes) - weight).square().sum())

    assert error(fitted) <= error(small) * (1 + 1e-4)
    assert torch.allclose(2.0**-power * fitted.scale, grid.scale, rtol=0.3)


def test_a_group_of_zero_codes_and_one_that_would_turn_round_keep_their_scales():
    weight = torch.tensor([[0.1, -0.1, 1.0, 2.0], [1.0, 2.0, 1.0, 2.0]])
    grid = Grid(3, 7, torch.full((2, 2), 0.5), 2)
    codes = torch.tensor([[3, 3, 5, 6], [0, 0, 5, 6]])  # the second row's first group: minus what it should be
    fitted = refit_scale(weight, codes, grid)
    assert fitted.scale[0, 0] == 0.5 and fitted.scale[1, 0] == 0.5
    assert fitted.scale[:, 1].tolist() == pytest.approx([8 / 13] * 2, rel=1e-3)


def test_the_scales_beside_one_that_is_kept_are_the_best_for_it():
    inputs = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([[-1.0, 2.0]], dtype=torch.float64)
    grid = Grid(3, 7, torch.full((1, 2), 0.5, dtype=torch.float64), 1)
    codes = torch.tensor([[4, 5]])  # values 0.5 and 1.0: the first has the wrong sign
    fitted = refit_scale(weight, codes, grid, LayerStats.of(inputs))
    # Outputs (0, 2) from a first weight of 0.5: (0.5 + 0.5 v, v) is nearest to (0, 2) at v = (2 - 0.25) / 1.25.
    assert fitted.scale[0].tolist() == pytest.approx([0.5, 0.7], rel=1e-3)


@pytest.mark.parametrize("value", [1e-6, 1e6, -1.0])
def test_a_scale_that_would_be_negative_or_beyond_float16_stays_as_it_was(value):
    weight = torch.tensor([[value, value, 1.0, 2.0]], dtype=torch.float64)
    grid = Grid(3, 7, torch.full((1, 2), 0.5, dtype=torch.float64), 2)
    fitted = refit_scale(weight, torch.tensor([[4, 4, 5, 6]]), grid)  # the first two would need it as their scale
    assert fitted.scale[0].tolist() == pytest.approx([0.5, 8 / 13], rel=1e-3)


def test_scales_that_the_inputs_do_not_tell_apart_stay_as_near_as_they_can_to_what_they_were():
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = Grid(3, 7, torch.tensor([[1.0, 3.0]], dtype=torch.float64), 1)
    weight = torch.tensor([[2.0, 4.0]], dtype=torch.float64)
    fitted = refit_scale(weight, torch.tensor([[4, 4]]), grid, LayerStats.of(x.expand(50, 2)))
    assert fitted.scale[0].tolist() == pytest.approx([2, 4], rel=1e-3)  # all with a sum of 6 are equally good


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "nf4-dq"])
def test_scales_in_eight_bits_cannot_be_refitted(name):
    weight = random_weight(width=128)
    grid = GRIDS[name](weight, 4)
    with pytest.raises(ValueError, match="scales in 8 bits"):
        refit_scale(weight, nearest(weight, grid), grid)


def test_what_cannot_be_refitted_is_an_error():
    weight = torch.randn(2, 8)
    grid = affine_grid(weight, 3)
    codes, stats = nearest(weight, grid), LayerStats.of(torch.randn(20, 8))
    for arguments, message in (
        ((weight * torch.nan, codes, grid, stats), "NaN or infinity"),
        ((weight, codes[:1], grid, stats), "do not fit a weight of shape"),
        ((weight, codes, affine_grid(torch.randn(3, 8), 3), stats), "a grid of 3 rows does not fit"),
        ((weight, codes, grid, LayerStats(8)), "no calibration input"),
        ((weight, codes, grid, LayerStats.of(torch.randn(20, 5))), "do not fit a weight"),
    ):
        with pytest.raises(ValueError, match=message):
            refit_scale(*arguments)


@pytest.mark.parametrize("make", [lambda w: affine_grid(w, 4), ternary_grid])
def test_a_weight_of_whole_numbers_is_an_error(make):
    with pytest.raises(ValueError, match=r"floating-point numbers is needed, not of torch\.int64"):
        make(torch.ones(2, 4, dtype=torch.long))


@pytest.mark.parametrize("options", [{}, {"granularity": "group", "group_size": 16}, {"granularity": "tensor"}],
                         ids=str)
@pytest.mark.parametrize("calibrated", [True, False])
def test_unit_gain_leaves_outputs_as_large_as_they_were(options, calibrated):
    weight, inputs = random_weight(out=24, width=64), torch.randn(500, 64) * torch.linspace(0.1, 3, 64)
    stats = LayerStats.of(inputs) if calibrated else None
    grid = affine_grid(weight, 2, search="mse", **options)
    codes = nearest(weight, grid)
    gram = torch.eye(64) if stats is None else stats.gram

    def gain(grid):
        shared, energy = (((values @ gram) * weight).sum(1) for values in (grid.decode(codes), weight))
        return shared.sum() / energy.sum() if len(grid.scale) == 1 else shared / energy

    assert (gain(grid) < 0.99).any()
    assert torch.allclose(gain(unit_gain(weight, codes, grid, stats)), torch.ones(()), atol=2e-3)


def test_unit_gain_leaves_rows_of_zeros_alone():
    weight = torch.zeros(3, 8)
    grid = affine_grid(weight, 2)
    assert torch.equal(unit_gain(weight, nearest(weight, grid), grid).scale, grid.scale)
