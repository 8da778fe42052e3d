import pytest
import torch
from torch import nn
from torch.func import functional_call

from nanoq.vision import ResNet, ResNetConfig

TINY = ResNetConfig(widths=(4, 6), blocks_per_stage=2)
PICTURES = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_logits_have_one_row_for_each_picture():
    assert ResNet(TINY)(PICTURES).shape == (3, 10)


def test_embed_blocks_and_head_are_the_whole_model():
    model = ResNet(TINY).eval()
    hidden = model.embed(PICTURES)
    assert hidden.shape == (3, 4, 14, 14)
    shapes = []
    for block in model.blocks:
        hidden = block(hidden)
        shapes.append(tuple(hidden.shape))
    assert shapes == [(3, 4, 14, 14), (3, 4, 14, 14), (3, 6, 7, 7), (3, 6, 7, 7)]
    assert torch.equal(model.head(hidden), model(PICTURES))


def test_the_default_model_has_308_074_parameters():
    assert ResNet(ResNetConfig()).parameter_count() == 308_074


def test_convolutions_have_no_bias():
    assert all(m.bias is None for m in ResNet(TINY).modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("changes", "size", "shape"), [
    ({"channels": 3, "classes": 7}, 32, (2, 7)),
    ({"stem_stride": 1}, 28, (2, 10)),
    ({"widths": (4,)}, 5, (2, 10)),
])
def test_other_shapes_run(changes, size, shape):
    config = ResNetConfig(**{**vars(TINY), **changes})
    assert ResNet(config)(torch.zeros(2, config.channels, size, size)).shape == shape


def test_a_block_is_the_rectified_sum_of_its_branch_and_its_shortcut():
    model = ResNet(TINY).eval()
    same, smaller = model.blocks[1], model.blocks[2]
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    assert isinstance(same.shortcut, nn.Identity)
    silent = {name: torch.zeros_like(t) for name, t in smaller.second.named_parameters()}
    only_shortcut = functional_call(smaller, {f"second.{name}": t for name, t in silent.items()}, x)
    torch.testing.assert_close(only_shortcut, smaller.shortcut(x).relu())
    torch.testing.assert_close(same(x), (same.second(same.first(x).relu()) + x).relu())


def test_signals_neither_vanish_nor_explode_in_a_new_model():
    logits = ResNet(ResNetConfig())(PICTURES.repeat(20, 1, 1, 1))
    assert 0.1 < logits.std().item() < 10


@pytest.mark.parametrize("shape", [(28, 28), (3, 28, 28), (2, 3, 28, 28)])
def test_pictures_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"pictures must be \(N, 1, H, W\), not "):
        ResNet(TINY)(torch.zeros(shape))


@pytest.mark.parametrize(("changes", "message"), [
    ({"channels": 0}, "channels must be a positive integer, not 0"),
    ({"classes": 2.5}, "classes must be a positive integer"),
    ({"blocks_per_stage": -1}, "blocks_per_stage must be a positive integer"),
    ({"stem_stride": "2"}, "stem_stride must be a positive integer, not '2'"),
    ({"widths": ()}, "widths must be positive integers"),
    ({"widths": (4, 0)}, r"widths must be positive integers, not \(4, 0\)"),
])
def test_a_shape_that_is_no_model_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        ResNetConfig(**{**vars(TINY), **changes})


def test_building_a_model_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    ResNet(TINY)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_names_the_weights():
    first, same, other = (ResNet(TINY, seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
