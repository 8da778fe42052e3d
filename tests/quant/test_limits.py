from itertools import pairwise

import pytest
import torch

from nanoq.quant.limits import (
    SECOND_MOMENTS,
    entropy_coded_scalar,
    even_grid,
    gaussian_distortion,
    gaussian_rate,
    lloyd_max,
    measured_e8p,
    measured_trellis,
    quantizer_limits,
    space_filling,
)

# levels: error, distance from the limit in bits (None where the table has none), entropy: Max 1960, computed again
LLOYD_MAX = {2: (0.363380, 0.270, 1), 3: (0.190174, None, 1.536), 4: (0.117482, 0.455, 1.911),
             8: (0.034548, 0.572, 2.825), 16: (0.009501, 0.641, 3.765), 32: (0.002505, 0.679, 4.730)}


@pytest.mark.parametrize(("levels", "expected"), LLOYD_MAX.items())
def test_lloyd_max_is_as_printed(levels, expected):
    values, distortion, entropy = lloyd_max(levels)
    assert round(distortion, 6) == expected[0] and round(entropy, 3) == expected[2]
    if expected[1]:
        gap = torch.tensor(levels).log2().item() - gaussian_rate(distortion)
        assert round(gap, 3) == expected[1]
    torch.testing.assert_close(values, -values.flip(0), atol=1e-9, rtol=0)


def test_ternary_levels_are_as_printed():
    assert lloyd_max(3)[0].tolist() == pytest.approx([-1.2240, 0, 1.2240], abs=5e-5)


@pytest.mark.parametrize(("levels", "step", "distortion"),
                         [(4, 0.9957, 0.118846), (8, 0.586, 0.037440), (16, 0.335, 0.011543)])
def test_the_best_even_grid_is_as_printed(levels, step, distortion):
    found = even_grid(levels)
    assert found[0] == pytest.approx(step, abs=6e-4) and round(found[1], 6) == distortion
    assert found[1] > lloyd_max(levels)[1]


@pytest.mark.parametrize(("rate", "distortion"), [(1, 0.34834), (1.5, 0.17770), (2, 0.088941), (2.5, 0.044477),
                                                  (3, 0.022239), (4, 0.005560)])
def test_entropy_coded_scalars_are_as_printed(rate, distortion):
    found = entropy_coded_scalar(rate)
    assert found.distortion == pytest.approx(distortion, abs=6e-6 if distortion > 0.1 else 6e-7)


def test_entropy_coding_ends_a_quarter_of_a_bit_above_the_limit():
    assert entropy_coded_scalar(8).gap == pytest.approx(space_filling(1 / 12), abs=1e-4)
    assert space_filling(1 / 12) == pytest.approx(0.254614, abs=1e-6)
    assert round(space_filling(SECOND_MOMENTS["E8"]), 3) == 0.146
    assert round(space_filling(SECOND_MOMENTS["Leech"]), 3) == 0.084
    assert space_filling(SECOND_MOMENTS["sphere"]) == pytest.approx(0, abs=1e-12)


def test_the_second_moment_of_e8_is_that_of_its_cell():
    points = 16 * torch.rand(200_000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = distances_from_e8(points).mean().item() / 8  # its cell has the volume 1
    assert measured == pytest.approx(SECOND_MOMENTS["E8"], rel=0.003)
    assert abs(measured / SECOND_MOMENTS["cube"] - 1) > 0.1


def distances_from_e8(points):
    """Squared distances from E8: whole numbers of even sum, or these and a half."""
    def from_d8(x):
        rest = x - x.round()
        change = torch.where(x.round().sum(1) % 2 != 0, 1 - 2 * rest.abs().amax(1), 0)
        return rest.square().sum(1) + change
    return torch.minimum(from_d8(points), from_d8(points - 0.5))


@pytest.mark.parametrize("rate", [0.1, 1, 3.3])
def test_rate_and_distortion_are_inverse(rate):
    assert gaussian_rate(gaussian_distortion(rate)) == pytest.approx(rate)
    assert gaussian_rate(1.0) == 0 and gaussian_rate(1.5) == 0


def test_e8p_is_as_measured_before():
    errors = [measured_e8p(seed).distortion for seed in range(5)]
    assert sum(errors) / 5 == pytest.approx(0.0911, rel=0.015)
    assert max(errors) - min(errors) < 0.003


@pytest.mark.parametrize(("bits", "printed"), [(2, 0.0725), (3, 0.0189), (4, 0.0051)])
def test_trellises_are_as_measured_before_but_for_the_bits_of_a_start(bits, printed):
    errors = [measured_trellis(bits, seed).distortion for seed in range(4)]
    assert printed * 0.97 < sum(errors) / 4 < printed * 1.07  # a free start has 10, 9 or 8 bits more for 256 numbers
    assert max(errors) < entropy_coded_scalar(bits).distortion


def test_a_table_of_limits_goes_from_the_even_grid_to_shannon():
    rows = quantizer_limits(2)
    assert [row.name for row in rows[:5]] == [
        "evenly spaced", "Lloyd-Max", "E8P", "entropy-coded scalar", "E8, entropy-coded, at high rates"]
    assert rows[-1].name == "limit" and rows[-1].gap == pytest.approx(0)
    assert all(a.distortion > b.distortion and a.gap > b.gap for a, b in pairwise(rows))


def test_bits_and_rates_that_are_none_are_refused():
    with pytest.raises(ValueError, match="bits must be in 1..4, not 5"):
        quantizer_limits(5)
    with pytest.raises(ValueError, match="the rate must lie in"):
        entropy_coded_scalar(0)
