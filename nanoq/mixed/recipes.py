"""From a model to the bytes of its parts at every width, and from chosen widths to a recipe."""

import math

import torch
from torch import Tensor, nn

from nanoq.lm.training import next_token_loss
from nanoq.mixed.allocate import integer_program
from nanoq.mixed.baselines import gptq_error
from nanoq.mixed.parts import Loss, parts_of
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.gptq_method import TOKENS_PER_INPUT
from nanoq.quant.layers import weight_matrix
from nanoq.quant.qlinear import packed_layer
from nanoq.quant.recipe import Recipe, Round
from nanoq.store import naming


def packed_sizes(
    model: nn.Module, bits: tuple[int, ...] = (2, 3, 4, 8), unit: str = "block", **spec
) -> dict[str, dict[int, int]]:
    """Bytes of each part at each width, {part: {bits: bytes}}: codes, scales and zero points; biases do not change.

    They are those of layers that were packed, on the grid that `spec` gives (fields of `Round`); 16 is float16.
    """
    def size(name: str, layer: nn.Module, width: int) -> int:
        weight = weight_matrix(layer)
        if width == 16:
            return 2 * weight.numel()
        inputs = LayerStats(weight.shape[1])  # all 0: what a grid sees makes no difference to its size, nor do codes
        inputs.tokens = TOKENS_PER_INPUT * weight.shape[1]
        with naming(name):
            grid = Round(bits=width, **spec).make_grid(weight, inputs)
        codes = torch.zeros(weight.shape, dtype=torch.uint8)
        tensors = packed_layer(layer, codes, grid).buffers()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    sizes = {}
    for part, layers in parts_of(model, unit).items():
        sizes[part] = {width: sum(size(name, layer, width) for name, layer in layers.items()) for width in bits}
    return sizes


def budget_of(sizes: dict[str, dict[int, int]], bits: float) -> int:
    """The bytes of a model with this width everywhere; for 3.5 bits, say, half way between those of 3 and of 4.

    Args:
        sizes: {part: {bits: bytes}}, as `packed_sizes` gives them, with the widths that this needs.
        bits: the width.

    Raises:
        ValueError: if a width is needed that the sizes do not have.
    """
    if not math.isfinite(bits):
        raise ValueError(f"a budget needs a number of bits, not {bits!r}")
    low, high = math.floor(bits), math.ceil(bits)
    for width in (low, high):
        if not all(width in widths for widths in sizes.values()):
            raise ValueError(f"a budget of {bits} bits needs the sizes at {low} and {high} bits")
    small, large = (sum(widths[width] for widths in sizes.values()) for width in (low, high))
    return small + int((bits - low) * (large - small))


def recipe_of(allocation: dict[str, int], method: str = "gptq", **spec) -> Recipe:
    """The recipe that gives each part, a block or a layer, its width {part: bits}; `spec` has fields of `Round`.

    What the allocation does not name stays in float16.
    """
    return Recipe(Round(bits=16), rules={
        f"{part}.*" if part.count(".") == 1 else part: Round(method, bits=width, **spec)
        for part, width in allocation.items()
    })


def mixed_recipe(
    model: nn.Module, data: Tensor, average_bits: float, method: str = "gptq", *, loss_fn: Loss = next_token_loss,
    batch: int = 16, **spec,
) -> Recipe:
    """The recipe with the least predicted loss at the bytes of one width: each linear layer gets 2 to 8 bits.

    What is predicted is the GPTQ error on the recipe's grid with the output's Fisher information, the score that ranked
    layers best in notebook 13, and the integer program finds the widths.

    Args:
        model: as for `gptq_error`.
        data: rows for `loss_fn`, such as windows of tokens; 16 of 256 are enough to order layers.
        average_bits: 2 to 8, for the budget; see `budget_of`.
        method: of rounding.
        loss_fn: the loss.
        batch: rows in a forward pass.
        spec: further fields of `Round`.

    Raises:
        ValueError: if the width is not in 2..8.
    """
    widths = tuple(range(2, 9))
    if not widths[0] <= average_bits <= widths[-1]:
        raise ValueError(f"average_bits must be in 2..8, not {average_bits!r}")
    sizes = packed_sizes(model, widths, "linear", method=method, **spec)
    step = Round(method, bits=widths[0], **spec)
    costs = gptq_error(model, data, bits=widths, unit="linear", loss_fn=loss_fn, batch=batch,
                       grid=step.grid, grid_options=step.grid_options)
    return recipe_of(integer_program(costs, sizes, budget_of(sizes, average_bits)), method, **spec)
