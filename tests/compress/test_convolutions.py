"""Convolutions pruned, and rounded after it, by the matrix that a patch of the image is multiplied with."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import nanoq
from nanoq.cli import app
from nanoq.compress import LowRank, Prune, SparseConv2d, SparseQuantConv2d, compress_model, mask
from nanoq.quant import LayerStats, Recipe, Round, linear_layers, quantize_model
from nanoq.quant.layers import matrix_inputs
from nanoq.store import WEIGHTS, Checkpoint
from nanoq.vision import ResNet, ResNetConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
STEPS = {
    "magnitude": ([Prune("magnitude", 0.6)], SparseConv2d),
    "wanda": ([Prune("wanda", 0.6)], SparseConv2d),
    "sparsegpt": ([Prune("sparsegpt", 0.6)], SparseConv2d),
    "matrix": ([Prune("sparsegpt", 0.6, "matrix")], SparseConv2d),
    "2:4": ([Prune("sparsegpt", pattern="2:4")], SparseConv2d),
    "one walk": ([Prune("sparsegpt", 0.6), Round("gptq", bits=4)], SparseQuantConv2d),
    "nearest after it": ([Prune("magnitude", 0.6), Round(bits=4)], SparseQuantConv2d),
    "gptq after it": ([Prune("wanda", 0.6), Round("gptq", bits=4)], SparseQuantConv2d),
}


@pytest.fixture
def checkpoint():
    return Checkpoint(ResNet(ResNetConfig(widths=(8, 16)), seed=0).eval(), None, {})


def images(count=16, seed=1):
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("steps", "kind"), STEPS.values(), ids=STEPS)
def test_a_classifier_is_pruned_saved_and_loaded_again_bit_for_bit(steps, kind, checkpoint, tmp_path):
    whole = (nanoq.save(tmp_path / "whole", checkpoint) / WEIGHTS).stat().st_size
    names = list(linear_layers(checkpoint.model))
    reports = quantize_model(checkpoint.model, Recipe(*steps), images())
    layers = [checkpoint.model.get_submodule(name) for name in names]
    assert layers and all(type(layer) is kind for layer in layers)
    share = 0.5 if "2:4" in str(steps) else 0.6
    assert all(share - 0.05 < float((layer.dequantize() == 0).float().mean()) < 0.8 for layer in layers)
    assert all(0 < report.output_error < 1 for report in reports)
    path = nanoq.save(tmp_path / "small", checkpoint)
    assert (path / WEIGHTS).stat().st_size < whole / 2
    loaded = nanoq.load(path)
    assert torch.equal(loaded.model(images(4, 2)), checkpoint.model(images(4, 2)))
    assert Recipe.from_json(loaded.card["recipe"]).default.label == Recipe(*steps).default.label


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 0, 1), ((1, 2), (2, 1), (1, 2))])
def test_a_pruned_convolution_goes_over_an_image_as_before(stride, padding, dilation):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 6, (3, 2), stride, padding, dilation), torch.randn(2, 4, 9, 8)
    stats = LayerStats.of(matrix_inputs(conv, x))
    matrix = conv.weight.detach().flatten(1)
    chosen = mask(matrix.abs() * stats.gram.diagonal().sqrt(), 0.5)
    pruned = Prune("wanda", 0.5)(conv, stats)
    kept = matrix.half().float() * (pruned.dequantize() != 0)
    assert torch.equal(pruned.dequantize(), kept) and torch.equal(pruned.dequantize() != 0, chosen)
    expected = F.conv2d(x, kept.view_as(conv.weight), conv.bias, stride, padding, dilation)
    assert torch.allclose(pruned(x), expected, atol=1e-6)


def test_zeros_may_stay_in_a_convolution_to_be_trained_on(checkpoint):
    packed = deepcopy(checkpoint.model)
    compress_model(packed, Prune("magnitude", 0.6))
    compress_model(checkpoint.model, Prune("magnitude", 0.6, pack=False))
    for name, layer in linear_layers(checkpoint.model).items():
        assert isinstance(layer, nn.Conv2d)
        assert torch.equal(layer.weight.flatten(1) == 0, packed.get_submodule(name).dequantize() == 0)


def test_a_convolution_is_given_no_low_rank_and_none_in_groups_is_pruned(checkpoint):
    with pytest.raises(ValueError, match="a Conv2d is given no low rank"):
        compress_model(checkpoint.model, LowRank(0.5, whitened=False))
    with pytest.raises(ValueError, match="only convolutions without groups"):
        Prune("magnitude")(nn.Conv2d(4, 4, 3, groups=2))


def test_sparsegpt_harms_a_trained_classifier_less_than_wanda():
    trained = nanoq.load("digits-resnet")
    losses = {method: nanoq.evaluate(nanoq.prune(trained, method, 0.6, windows=64), windows=None).losses.mean()
              for method in ("sparsegpt", "wanda")}
    assert losses["sparsegpt"] < 0.5 * losses["wanda"]  # 1000 images, and a factor of several between them


def test_the_command_prunes_an_image_classifier(tmp_path):
    out = tmp_path / "sparse"
    result = CliRunner().invoke(app, ["prune", "digits-resnet", "--bits", "4", "--windows", "16", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    assert any(isinstance(layer, SparseQuantConv2d) for layer in nanoq.load(out).model.modules())
    result = CliRunner().invoke(app, ["info", str(out)])
    assert "sparse-quant" in result.stdout
