import json
import math

import pytest
import torch

from nanoq.quant import LayerStats, QuantLinear, Recipe, Round, affine_grid, hqq_grid, imatrix_grid, nearest
from nanoq.quant.searched_grids import CANDIDATES, importance_of


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heavy(*shape, seed=0):
    """Weights with a few large ones, and inputs of which some are large."""
    return normal(*shape, seed=seed) * (1 + 4 * (normal(*shape, seed=seed + 1) > 2))


def stats_of(width, seed=0):
    return LayerStats.of(normal(400, width, seed=seed) * torch.linspace(0.2, 3, width))


MAKERS = {"hqq": lambda w, bits, stats, **options: hqq_grid(w, bits, **options), "imatrix": imatrix_grid}
OWN_ERROR = {"hqq": lambda w, change, stats: change.abs() ** 0.7,
             "imatrix": lambda w, change, stats: importance_of(w, stats) * change.square()}


@pytest.mark.parametrize("options", [{}, {"group_size": 16}, {"granularity": "tensor"}], ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("name", MAKERS)
def test_by_its_own_measure_a_searched_grid_is_no_worse_than_the_covering_one(name, bits, options):
    options = {"granularity": "group"} | options if "group_size" in options else options
    better = 0
    for seed in range(5):
        weight, stats = heavy(12, 40, seed=seed), stats_of(40, seed)
        costs = []
        for grid in (MAKERS[name](weight, bits, stats, **options), affine_grid(weight, bits, **options)):
            change = grid.decode(nearest(weight, grid)) - weight
            costs.append(float(OWN_ERROR[name](weight, change, stats).sum()))
        assert costs[0] <= costs[1] * (1 + 1e-5)
        better += costs[0] < 0.97 * costs[1]
    assert better >= 4


@pytest.mark.parametrize("bits", [2, 3])
def test_an_importance_matrix_lowers_the_error_of_outputs_on_average(bits):
    ratios = []
    for seed in range(8):
        weight, stats = heavy(12, 64, seed=seed), stats_of(64, seed)
        errors = [stats.output_error(weight, grid.decode(nearest(weight, grid))) for grid in (
            imatrix_grid(weight, bits, stats, granularity="group", group_size=16),
            affine_grid(weight, bits, granularity="group", group_size=16))]
        ratios.append(math.log(errors[0] / errors[1]))
    assert sum(ratios) / len(ratios) < -0.1


def slow_imatrix(row, bits, importance):
    """The search for one row in plain numbers: (scale, zero point, error)."""
    top, best = 2**bits - 1, None
    low, high = min(0.0, *row), max(0.0, *row)
    first = float(torch.tensor((high - low) / top).half())
    zero = min(max(round(-low / first), 0), top)
    candidates = [(first, zero)]
    for more in CANDIDATES:
        step, least = first * top / (top + more), -first * zero
        codes = [min(max(round((x - least) / step), 0), top) for x in row]
        total = sum(importance)
        code, mean = (sum(w * v for w, v in zip(importance, vs, strict=True)) / total for vs in (codes, row))
        below = sum(w * (c - code) ** 2 for w, c in zip(importance, codes, strict=True))
        scale = sum(w * (c - code) * x for w, c, x in zip(importance, codes, row, strict=True)) / below
        whole = min(max(round(-min(mean - scale * code, 0) / scale), 0), top)
        units = [min(max(round(x / scale) + whole, 0), top) - whole for x in row]
        scale = (sum(w * u * x for w, u, x in zip(importance, units, row, strict=True))
                 / sum(w * u * u for w, u in zip(importance, units, strict=True)))
        candidates.append((float(torch.tensor(scale).half()), whole))
    for scale, whole in candidates:
        values = [scale * (min(max(round(x / scale) + whole, 0), top) - whole) for x in row]
        error = sum(w * (v - x) ** 2 for w, v, x in zip(importance, values, row, strict=True))
        best = min(best or (error, scale, whole), (error, scale, whole))
    return best


@pytest.mark.parametrize("seed", range(3))
def test_the_weighted_search_agrees_with_a_plain_one_row_by_row(seed):
    weight, stats = heavy(6, 24, seed=seed), stats_of(24, seed)
    grid, importance = imatrix_grid(weight, 3, stats), importance_of(weight, stats)
    for row, (scale, zero, values) in enumerate(zip(grid.scale, grid.zero_point, weight, strict=True)):
        error, wanted_scale, wanted_zero = slow_imatrix(values.tolist(), 3, importance[row].tolist())
        change = grid.decode(nearest(weight, grid))[row] - values
        assert float((importance[row] * change.square()).sum()) == pytest.approx(error, rel=1e-3)
        assert (float(scale), float(zero)) == pytest.approx((wanted_scale, wanted_zero), rel=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_a_weight_twice_as_large_has_a_grid_twice_as_large(name):
    weight, stats = heavy(8, 32), stats_of(32)
    once, twice = (MAKERS[name](factor * weight, 3, stats) for factor in (1, 2))
    assert torch.equal(twice.scale, 2 * once.scale) and torch.equal(twice.zero_point, once.zero_point)


@pytest.mark.parametrize("name", MAKERS)
def test_rows_of_zeros_and_inputs_of_zeros_keep_the_covering_grid(name):
    weight, stats = heavy(4, 16), stats_of(16)
    weight[1] = 0
    grid = MAKERS[name](weight, 4, stats)
    assert torch.equal(grid.decode(nearest(weight, grid))[1], torch.zeros(16))
    dead = LayerStats.of(torch.zeros(64, 16))
    assert MAKERS[name](weight, 4, dead).scale.isfinite().all()


def test_options_out_of_range_are_errors():
    with pytest.raises(ValueError, match="norm must lie in"):
        hqq_grid(normal(4, 8), 4, norm=0.0)
    with pytest.raises(ValueError, match="bits must be in 2..8"):
        hqq_grid(normal(4, 8), 9)
    with pytest.raises(ValueError, match="no calibration input"):
        imatrix_grid(normal(4, 8), 4, None)


@pytest.mark.parametrize("spec", [Round(bits=2, grid="hqq", group_size=16, norm=0.5, steps=5),
                                  Round("gptq", bits=3, grid="imatrix", group_size=16)], ids=lambda spec: spec.grid)
def test_recipe_and_file_bring_back_the_same_layer_bit_for_bit(spec):
    recipe = Recipe(spec)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert spec.needs_calibration is (spec.grid == "imatrix")
    layer = spec(torch.nn.Linear(40, 8), stats_of(40))
    tensors = {name: tensor.clone() for name, tensor in layer.named_buffers() if tensor is not None}
    again = QuantLinear(layer.layout, tensors)
    assert torch.equal(again.dequantize(), layer.dequantize())
