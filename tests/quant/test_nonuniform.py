import pytest
import torch

from nanoq.quant import (
    LayerStats,
    QuantLinear,
    Recipe,
    affine_grid,
    gptq,
    input_kmeans_grid,
    kmeans_grid,
    nearest,
    power_law_grid,
    power_of_two_grid,
)
from nanoq.quant.nonuniform import lloyd

WEIGHT = torch.randn(16, 48, generator=torch.Generator().manual_seed(0))


def test_values_of_four_bits_are_powers_of_two():
    grid = power_of_two_grid(torch.tensor([[-8.0, 3.0]]), 4)
    values = grid.decode(torch.arange(15)[None])[0].tolist()
    assert values == [-8, -4, -2, -1, -0.5, -0.25, -0.125, 0, 0.125, 0.25, 0.5, 1, 2, 4, 8]


def test_an_exponent_of_one_is_the_symmetric_affine_grid():
    power, affine = power_law_grid(WEIGHT, 4, exponent=1), affine_grid(WEIGHT, 4, symmetric=True)
    codes = torch.arange(15).expand(16, 15)
    assert torch.allclose(power.decode(codes), affine.decode(codes), rtol=1e-3)


def test_the_power_of_the_values_is_evenly_spaced():
    values = power_law_grid(WEIGHT, 4, exponent=0.5).codebook
    steps = (values.sign() * values.abs() ** 0.5).diff()
    assert torch.allclose(steps, steps.mean().expand(14), atol=1e-6)


@pytest.mark.parametrize("make", [power_of_two_grid, power_law_grid])
@pytest.mark.parametrize("options", [{}, {"granularity": "tensor"}, {"granularity": "group", "group_size": 16}])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_zero_and_the_largest_weight_of_each_group_are_on_the_grid(make, options, bits):
    grid = make(WEIGHT, bits, **options)
    rounded = grid.decode(nearest(WEIGHT, grid))
    flat = WEIGHT.abs().flatten() if options.get("granularity") == "tensor" else None
    groups = [flat[None]] if flat is not None else WEIGHT.abs().split(grid.group_size, dim=1)
    assert torch.allclose(torch.cat([group.amax(1, keepdim=True) for group in groups], dim=1), grid.scale, rtol=1e-3)
    assert 0.0 in grid.codebook and len(grid.codebook) == 2**bits - 1
    assert torch.equal(grid.decode(grid.encode(rounded)), rounded)


def test_the_search_finds_an_exponent_that_is_better_than_even_spacing_for_a_bell():
    def error(grid):
        return float((grid.decode(nearest(WEIGHT, grid)) - WEIGHT).square().sum())
    best = power_law_grid(WEIGHT, 4)
    assert error(best) < 0.95 * error(power_law_grid(WEIGHT, 4, exponent=1))
    assert error(best) == min(error(power_law_grid(WEIGHT, 4, exponent=e / 20)) for e in range(6, 21))


@pytest.mark.parametrize("exponent", [0.3, 0.65, 1.0])
def test_the_search_goes_from_0_3_to_even_spacing(exponent):
    codebook = power_law_grid(WEIGHT, 4, exponent=exponent).codebook
    assert torch.equal(power_law_grid(codebook[None], 4).codebook, codebook)


@pytest.mark.parametrize("grid", ["power-of-two", "power-law"])
def test_any_method_takes_them_and_a_packed_layer_keeps_them(grid):
    spec = Recipe(bits=3, grid=grid).default
    made = spec.make_grid(WEIGHT, None)
    inputs = torch.randn(400, 48, generator=torch.Generator().manual_seed(1)) @ torch.randn(48, 48)
    stats = LayerStats.of(inputs)
    plain, better = made.decode(nearest(WEIGHT, made)), made.decode(gptq(WEIGHT, made, stats))
    assert stats.output_error(WEIGHT, better) < 0.8 * stats.output_error(WEIGHT, plain)
    assert torch.equal(QuantLinear.from_codes(nearest(WEIGHT, made), made).dequantize(), plain)


def test_rows_of_zeros():
    for make in (power_of_two_grid, power_law_grid):
        grid = make(torch.zeros(2, 8), 3)
        assert not grid.decode(nearest(torch.zeros(2, 8), grid)).any()


@pytest.mark.parametrize("make", [power_of_two_grid, power_law_grid])
def test_errors(make):
    for bits in (1, 9, 4.0):
        if bits != 4.0:
            with pytest.raises(ValueError, match="bits must be in 2..8"):
                make(WEIGHT, bits)
    with pytest.raises(ValueError, match="NaN"):
        make(WEIGHT * torch.nan, 4)
    with pytest.raises(ValueError, match="group_size goes with"):
        make(WEIGHT, 4, group_size=8)
    for exponent in (0, -1, 1.5):
        with pytest.raises(ValueError, match="exponent must lie"):
            power_law_grid(WEIGHT, 4, exponent=exponent)


# ---- k-means ----


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_lloyd(values, importance, means):
    """Lloyd's algorithm in plain numbers from these means."""
    for _ in range(200):
        members = [[] for _ in means]
        for value, weight in zip(values, importance, strict=True):
            members[min(range(len(means)), key=lambda i: abs(value - means[i]))].append((value, weight))
        means = [sum(v * w for v, w in own) / sum(w for _, w in own) if own else mean
                 for own, mean in zip(members, means, strict=True)]
    return means


@pytest.mark.parametrize("seed", range(3))
def test_the_means_are_where_a_plain_loop_leaves_them(seed):
    values = normal(300, seed=seed).double().clamp(-3, 3) / 3
    importance = normal(300, seed=seed + 1).double().abs()
    start, end = (lloyd(values, importance, 4, steps) for steps in (0, 200))
    wanted = slow_lloyd(values.tolist(), importance.tolist(), start.tolist())
    assert end.tolist() == pytest.approx(wanted, abs=1e-9)


def test_the_means_of_a_bell_are_those_of_max():
    values = torch.special.ndtri((torch.arange(100_000).double() + 0.5) / 100_000) / 5
    means = 5 * lloyd(values, torch.ones_like(values), 4, 500)
    assert means.tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=2e-3)  # Max 1960, table I


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("weighed", [False, True])
def test_by_their_own_measure_the_means_are_better_than_even_steps_on_average(bits, weighed):
    ratios = []
    for seed in range(8):
        weight = normal(16, 256, seed=seed)
        stats = LayerStats.of(normal(300, 256, seed=seed + 1) * torch.linspace(0.2, 3, 256))
        importance = stats.gram.diagonal() if weighed else torch.ones(256)
        grid = input_kmeans_grid(weight, bits, stats) if weighed else kmeans_grid(weight, bits)
        errors = [(importance * (made.decode(nearest(weight, made)) - weight).square()).sum()
                  for made in (grid, affine_grid(weight, bits))]
        ratios.append(errors[0] / errors[1])
    assert sum(ratios) / len(ratios) < 0.95


def test_zeros_have_a_codebook_and_inputs_of_zeros_count_the_same():
    assert torch.equal(kmeans_grid(torch.zeros(4, 8), 2).scale, torch.ones(4, 1))
    dead = LayerStats.of(torch.zeros(50, 48))
    assert torch.equal(input_kmeans_grid(WEIGHT, 3, dead).codebook, kmeans_grid(WEIGHT, 3).codebook)
