import copy

import pytest
import torch

from nanoq.lm.optim import Muon, orthogonalize


def matrix(*shape, smallest=0.02, seed=0):
    """Random matrices with singular values from `smallest` to 1."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    return (u * torch.logspace(0, torch.tensor(smallest).log10(), u.shape[-1])) @ v


@pytest.mark.parametrize("shape", [(24, 24), (40, 8), (8, 40), (3, 12, 20), (2, 2, 20, 12)])
def test_orthogonalising_brings_singular_values_near_1(shape):
    values = torch.linalg.svdvals(orthogonalize(matrix(*shape)))
    assert values.min() > 0.65 and values.max() < 1.2


def test_orthogonalising_keeps_the_singular_vectors():
    m = matrix(12, 12)
    u, _, v = torch.linalg.svd(m)
    turned = u.mT @ orthogonalize(m) @ v.mT
    torch.testing.assert_close(turned, torch.diag(turned.diag()), rtol=0, atol=1e-4)


def test_a_matrix_in_a_batch_is_treated_as_it_would_be_alone():
    batch = matrix(3, 10, 6)
    torch.testing.assert_close(orthogonalize(batch), torch.stack([orthogonalize(m) for m in batch]))


def test_the_size_of_a_gradient_does_not_matter():
    m = matrix(8, 8)
    torch.testing.assert_close(orthogonalize(1000 * m), orthogonalize(m), rtol=1e-4, atol=1e-4)


def test_a_zero_gradient_gives_a_zero_update():
    assert torch.equal(orthogonalize(torch.zeros(4, 4)), torch.zeros(4, 4))


def step_from_zero(gradient, **options):
    """What one step of Muon adds to a zero matrix."""
    weight = torch.zeros_like(gradient, requires_grad=True)
    weight.grad = gradient.clone()
    Muon([weight], lr=0.1, **options).step()
    return weight.detach()


def test_a_fused_projection_is_three_matrices():
    gradient = torch.cat([matrix(8, 8, seed=seed) * 10**seed for seed in range(3)])
    apart = torch.cat([step_from_zero(part) for part in gradient.split(8)])
    torch.testing.assert_close(step_from_zero(gradient), apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 64), (48, 16)])
def test_an_update_has_the_documented_size(shape):
    update = step_from_zero(matrix(*shape, smallest=0.5))
    assert update.square().mean().sqrt().item() == pytest.approx(0.1 / shape[1] ** 0.5, rel=0.25)


@pytest.mark.parametrize(("options", "decay"), [({"momentum": 0.8}, 0.8), ({}, 0.95)])
def test_the_update_is_nesterovs(options, decay):
    gradients, momentum = [matrix(6, 6, seed=seed) for seed in range(3)], torch.zeros(6, 6)
    weight, expected = torch.zeros(6, 6, requires_grad=True), torch.zeros(6, 6)
    optimizer = Muon([weight], lr=0.1, **options)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = decay * momentum + (1 - decay) * gradient
        expected -= 0.1 * orthogonalize(decay * momentum + (1 - decay) * gradient)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_weights_decay_by_a_share_of_what_they_were_before_the_update():
    plain, decayed = (matrix(6, 6, seed=1).requires_grad_() for _ in range(2))
    start = plain.detach().clone()
    for weight, decay in ((plain, 0.0), (decayed, 0.5)):
        weight.grad = matrix(6, 6)
        Muon([weight], lr=0.1, weight_decay=decay).step()
    torch.testing.assert_close(decayed.detach(), plain.detach() - 0.1 * 0.5 * start)


def test_muon_walks_down_a_quadratic():
    target = matrix(12, 8)
    weight = torch.zeros(12, 8, requires_grad=True)
    optimizer, losses = Muon([weight], lr=0.02), []
    for _ in range(60):
        loss = (weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.05 * losses[0]


def test_weight_decay_is_decoupled_from_the_gradient():
    weight = torch.ones(4, 4, requires_grad=True)
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.95))


def test_a_matrix_without_a_gradient_stays():
    weights = [torch.ones(4, 4, requires_grad=True) for _ in range(2)]
    weights[0].grad = matrix(4, 4)
    Muon(weights, lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weights[1], torch.ones(4, 4)) and not torch.equal(weights[0], torch.ones(4, 4))


def test_a_restored_state_goes_on_as_if_nothing_had_happened():
    gradients = [matrix(6, 6, seed=seed) for seed in range(4)]

    def run(weight, optimizer, part):
        for gradient in part:
            weight.grad = gradient.clone()
            optimizer.step()

    straight = torch.zeros(6, 6, requires_grad=True)
    optimizer = Muon([straight], lr=0.1)
    run(straight, optimizer, gradients[:2])
    state, restored = copy.deepcopy(optimizer.state_dict()), straight.detach().clone().requires_grad_()
    run(straight, optimizer, gradients[2:])
    other = Muon([restored], lr=0.1)
    other.load_state_dict(state)
    run(restored, other, gradients[2:])
    assert torch.equal(restored, straight)
