import pytest
import torch

from nanoq.quant import LayerStats, QuantLinear, Recipe, affine_grid, gptq, nearest, power_law_grid, power_of_two_grid

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
