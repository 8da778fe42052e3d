"""The layers that can be quantised, each seen as a weight matrix and the vectors that it is multiplied with."""

import torch.nn.functional as F
from torch import Tensor, nn


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every `nn.Linear` and `nn.Conv2d` of the model's blocks, by its name in the model."""
    return {
        f"blocks.{name}": layer for name, layer in model.blocks.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }


def weight_matrix(layer: nn.Module) -> Tensor:
    """The weight of a linear layer or a convolution as float32 (out, in): a product with it is what the layer does.

    Raises:
        ValueError: if it is a convolution in groups, or one that pads with something other than zeros.
    """
    if isinstance(layer, nn.Conv2d) and (
            layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        raise ValueError("only convolutions without groups, with zero padding given in numbers, can be quantised")
    return layer.weight.detach().float().flatten(1)


def matrix_inputs(layer: nn.Module, x: Tensor) -> Tensor:
    """What the weight matrix of a layer is multiplied with, given the layer's input: (..., in).

    A convolution multiplies it with every patch of the picture (N, channels, height, width).
    """
    if not isinstance(layer, nn.Conv2d):
        return x
    return F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
