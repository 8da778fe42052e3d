import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import groups_of

from nanoq.numbers import BLOCKS
from nanoq.quant import GRIDS, Grid, affine_grid, nearest


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
