import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from nanoq.vision import Images, ImageTrainConfig, ResNet, ResNetConfig, accuracy, correct, train_classifier
from nanoq.vision.train import augment

TINY = ResNetConfig(classes=3, widths=(8, 12))
QUICK = ImageTrainConfig(epochs=6, batch=10)


def stripes(count, seed):
    """Noisy pictures (count, 1, 12, 12) with horizontal, vertical or no stripes, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    wave = torch.sin(torch.arange(12) * 1.6)
    kinds = torch.stack((wave[:, None].expand(12, 12), wave[None].expand(12, 12), torch.zeros(12, 12)))
    return kinds[labels][:, None] + 0.4 * torch.randn(count, 1, 12, 12, generator=generator), labels


PICTURES = Images("stripes", *stripes(150, 0), *stripes(90, 1), "made here")


def trained(config=QUICK, model_seed=0, **options):
    model = ResNet(TINY, model_seed)
    return model, train_classifier(model, PICTURES, config, **options)


def test_training_lowers_the_loss_and_is_right_on_new_pictures():
    model, history = trained()
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert accuracy(model, PICTURES.test, PICTURES.test_labels) > 0.8


def test_the_history_has_a_row_for_each_epoch():
    _, history = trained()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert all(set(row) == {"epoch", "train_loss", "seconds"} for row in history)


def test_the_same_seeds_give_the_same_weights_and_another_seed_others():
    first, same, other = (trained(replace(QUICK, seed=seed))[0].state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


def test_training_leaves_the_global_random_state_alone_and_the_model_in_evaluation_mode():
    before = torch.get_rng_state()
    model, _ = trained(replace(QUICK, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


def test_the_loss_can_be_replaced():
    teacher, _ = trained()

    def distil(model, pictures, labels):
        assert model.training and pictures.shape == (10, 1, 12, 12) and labels.shape == (10,)
        with torch.no_grad():
            target = teacher(pictures).softmax(1)
        return F.cross_entropy(model(pictures), target)

    student, history = trained(model_seed=1, loss_fn=distil)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert accuracy(student, PICTURES.test, PICTURES.test_labels) > 0.8


def test_a_model_with_parametrised_weights_can_be_trained():
    class Ternary(nn.Module):
        """Each weight is -scale, 0 or scale; the gradient goes straight through."""

        def forward(self, weight):
            scale = weight.abs().mean()
            return weight + (scale * (weight / scale).round().clamp(-1, 1) - weight).detach()

    model = ResNet(TINY)
    convolutions = [m for m in model.blocks.modules() if isinstance(m, nn.Conv2d)]
    for convolution in convolutions:
        parametrize.register_parametrization(convolution, "weight", Ternary())
    train_classifier(model, PICTURES, QUICK)
    assert accuracy(model, PICTURES.test, PICTURES.test_labels) > 0.6
    assert all(len(convolution.weight.detach().round(decimals=5).unique()) <= 3 for convolution in convolutions)


def test_frozen_parameters_stay_as_they_are():
    model = ResNet(TINY)
    model.stem.requires_grad_(False)
    before = model.stem[0].weight.clone()
    train_classifier(model, PICTURES, replace(QUICK, epochs=1))
    assert torch.equal(model.stem[0].weight, before)


def test_the_rate_rises_for_a_fifth_of_the_steps_and_falls_to_zero():
    factors = [QUICK.lr_factor(step, 100) for step in range(100)]
    assert max(factors) == 1 == factors[19]
    assert factors[:20] == sorted(factors[:20]) and factors[20:] == sorted(factors[20:], reverse=True)
    assert 0 < factors[0] <= 0.06 and 0 < factors[-1] < 0.02


def test_augmentation_of_nothing_gives_the_picture():
    still = ImageTrainConfig(shift=0, degrees=0, scale=0)
    bent = augment(PICTURES.train, still, torch.Generator().manual_seed(0))
    torch.testing.assert_close(bent, PICTURES.train, rtol=0, atol=1e-4)


def test_augmentation_shifts_by_no_more_than_it_says():
    dot = torch.zeros(500, 1, 28, 28)
    dot[:, :, 14, 14] = 1
    bent = augment(dot, ImageTrainConfig(shift=2, degrees=0, scale=0), torch.Generator().manual_seed(0))[:, 0]
    at = torch.arange(28.0)
    for way in (1, 2):  # where the dot's weight lies, in rows and in columns
        moved = (bent.sum(3 - way) * at).sum(1) - 14
        assert -2.001 <= moved.min() < -1.8 and 1.8 < moved.max() <= 2.001


def test_augmentation_turns_and_zooms_without_shear():
    """Distances from the centre change by the zoom alone, and are the same in both directions."""
    y, x = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    config = ImageTrainConfig(shift=0, degrees=30, scale=0.2)
    bent = augment(torch.stack((x, y)).expand(200, 2, 28, 28), config, torch.Generator().manual_seed(0))
    right = bent[:, :, 14, 15] - bent[:, :, 14, 14]  # (200, 2): where one step to the right leads in the source
    down = bent[:, :, 15, 14] - bent[:, :, 14, 14]
    torch.testing.assert_close((right * down).sum(1), torch.zeros(200), rtol=0, atol=1e-4)
    zoom, turn = right.norm(dim=1), torch.atan2(right[:, 1], right[:, 0]).rad2deg()
    torch.testing.assert_close(zoom, down.norm(dim=1), rtol=1e-4, atol=1e-4)
    assert 0.8 <= zoom.min() < 0.85 and 1.15 < zoom.max() <= 1.2001
    assert -30.01 <= turn.min() < -27 and 27 < turn.max() <= 30.01


@pytest.mark.parametrize(("changes", "message"), [
    ({"epochs": 0}, "epochs must be at least 1"),
    ({"batch": 1}, "batch at least 2"),
    ({"scale": 1.0}, r"scale must lie in \[0, 1\)"),
    ({"scale": math.nan}, r"scale must lie in \[0, 1\)"),
])
def test_a_configuration_that_cannot_train_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **changes)


def test_fewer_pictures_than_a_batch_are_an_error():
    with pytest.raises(ValueError, match="150 training pictures are less than one batch of 151"):
        trained(replace(QUICK, batch=151))


def test_a_loss_that_is_no_number_ends_the_training():
    with pytest.raises(ValueError, match=r"the loss of epoch 1 is nan: train with a lower lr"):
        trained(loss_fn=lambda model, pictures, labels: model(pictures).mean() * math.nan)


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_is_the_share_of_correct_pictures_and_leaves_the_mode(training):
    model, _ = trained(replace(QUICK, epochs=1))
    model.train(training)
    right = correct(model, PICTURES.test, PICTURES.test_labels, batch=7)
    assert right.shape == (90,) and right.dtype == torch.bool
    assert torch.equal(right, correct(model, PICTURES.test, PICTURES.test_labels))
    assert accuracy(model, PICTURES.test, PICTURES.test_labels) == right.sum().item() / 90
    assert model.training is training


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(4, 1)])
def test_labels_that_do_not_fit_the_pictures_are_an_error(labels):
    with pytest.raises(ValueError, match="need a label for each picture: 4 pictures"):
        accuracy(ResNet(TINY), torch.zeros(4, 1, 12, 12), labels)


def test_no_pictures_are_an_error():
    with pytest.raises(ValueError, match="0 pictures"):
        accuracy(ResNet(TINY), torch.zeros(0, 1, 12, 12), torch.zeros(0))
