import pytest
import torch

from nanoq.compress import low_rank, rank_for
from nanoq.quant import LayerStats


def layer(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    inputs = torch.randn(300, 20, generator=generator, dtype=torch.float64)
    return weight, LayerStats.of(inputs * torch.logspace(0, 2, 20, dtype=torch.float64))  # some inputs are far larger


def product(weight, rank, stats=None, **options):
    up, down = low_rank(weight, rank, stats, **options)
    assert up.shape == (len(weight), rank) and down.shape == (rank, weight.shape[1])
    return up @ down


def test_without_statistics_the_error_is_that_of_eckart_and_young():
    weight, _ = layer()
    values = torch.linalg.svdvals(weight)
    for rank in (1, 5, 11):
        assert torch.allclose((weight - product(weight, rank)).norm(), values[rank:].norm())


def test_the_full_rank_gives_the_weight_back():
    weight, stats = layer()
    assert torch.allclose(product(weight, 12), weight)
    assert torch.allclose(product(weight, 12, stats), weight)


@pytest.mark.parametrize("calibrated", [False, True])
def test_both_factors_have_the_same_norm(calibrated):
    weight, stats = layer()
    up, down = low_rank(50 * weight, 4, stats if calibrated else None)
    assert float(up.norm()) == pytest.approx(float(down.norm()))


def test_with_statistics_no_step_from_the_factors_lowers_the_error_of_the_outputs():
    weight, stats = layer()
    up, down = (factor.requires_grad_() for factor in low_rank(weight, 4, stats, damping=0))
    change = weight - up @ down
    gradients = torch.autograd.grad((change @ stats.gram * change).sum(), (up, down))
    assert all(float(gradient.abs().max()) < 1e-6 * float(stats.gram.max()) for gradient in gradients)
    aware, blind = (stats.output_error(weight, product(weight, 4, s, damping=0)) for s in (stats, None))
    assert aware < 0.7 * blind


def test_an_input_that_was_always_zero_does_no_harm():
    weight, _ = layer()
    inputs = torch.randn(300, 20, dtype=torch.float64)
    inputs[:, 3] = 0
    assert product(weight, 4, LayerStats.of(inputs)).isfinite().all()
    assert torch.allclose(product(weight, 4, LayerStats.of(0 * inputs)), product(weight, 4))


@pytest.mark.parametrize("shape", [(12, 20), (192, 768), (1, 8)])
def test_the_rank_for_a_share_keeps_to_it(shape):
    rank = rank_for(shape, 0.5)
    assert rank == 1 or rank * sum(shape) <= shape[0] * shape[1] / 2 < (rank + 1) * sum(shape)


def test_errors():
    weight, stats = layer()
    for rank in (0, 13, 2.0):
        with pytest.raises(ValueError, match="rank must be in 1..12"):
            low_rank(weight, rank)
    with pytest.raises(ValueError, match="NaN"):
        low_rank(weight * torch.nan, 2)
    with pytest.raises(ValueError, match="do not fit"):
        low_rank(weight[:, :7], 2, stats)
    with pytest.raises(ValueError, match="no calibration"):
        low_rank(weight, 2, LayerStats(20))
    with pytest.raises(ValueError, match="damping must be"):
        low_rank(weight, 2, stats, damping=-1)
    with pytest.raises(ValueError, match="the Hessian is singular at damping 0"):
        low_rank(weight, 2, LayerStats.of(torch.ones(9, 20, dtype=torch.float64)), damping=0)
