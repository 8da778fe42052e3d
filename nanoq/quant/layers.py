"""The layers that can be quantised, each seen as a weight matrix and the vectors that it is multiplied with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every `nn.Linear` and `nn.Conv2d` of the model's blocks, by its name in the model.

    A model that has `takes` may say of some that they stay as they are.
    """
    takes = getattr(model, "takes", lambda layer: True)
    return {
        f"blocks.{name}": layer for name, layer in model.blocks.named_modules()
        if (isinstance(layer, nn.Conv2d) or is_linear(layer)) and takes(layer)
    }


def is_plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one matrix for every patch of a picture that zeros surround."""
    return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def is_linear(layer: nn.Module) -> bool:
    """Whether a module is an `nn.Linear` that computes as such: models have kinds of it that do something else."""
    if not isinstance(layer, nn.Linear) or type(layer).forward is nn.Linear.forward:
        return isinstance(layer, nn.Linear)
    x = torch.linspace(-1, 1, 2 * layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device).view(2, -1)
    try:
        expected, found = F.linear(x, layer.weight, layer.bias), type(layer).forward(layer, x)
    except RuntimeError:
        return False
    if not isinstance(found, Tensor):
        return False  # a router, say
    return found.shape == expected.shape and (found.is_meta or torch.allclose(found, expected, 1e-3, 1e-4))


def weight_matrix(layer: nn.Module) -> Tensor:
    """The weight of a linear layer or a convolution as float32 (out, in): a product with it is what the layer does.

    Raises:
        ValueError: if it is a convolution in groups, or one that pads with something other than zeros.
    """
    if isinstance(layer, nn.Conv2d) and not is_plain(layer):
        raise ValueError("only convolutions without groups, with zero padding given in numbers, can be quantised")
    return layer.weight.detach().float().flatten(1)


def matrix_inputs(layer: nn.Module, x: Tensor) -> Tensor:
    """What the weight matrix of a layer is multiplied with, given the layer's input: (..., in).

    A convolution multiplies it with every patch of the picture (N, channels, height, width).
    """
    if not isinstance(layer, nn.Conv2d):
        return x
    return F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
