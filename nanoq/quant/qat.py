"""Quantisation-aware training: the forward pass sees rounded weights, the training moves those behind them.

Rounding has the derivative 0 almost everywhere, so nothing would move. The straight-through estimator (Bengio et al.
2013, arXiv 1308.3432) takes 1 instead. The weights that it moves, *latent* weights, are what `prepare_qat` leaves in
place of each layer's own; `convert_qat` rounds them for the last time and packs them.

Where the scales come from:

* "recomputed": in every step from the latent weights, as the grid's maker does it (BitNet b1.58, Ma et al. 2024,
  arXiv 2402.17764, is the grid "ternary" with the operator "absmean", a scale for the whole matrix, and activations of
  8 bits);
* "learned": they start like that and are parameters from then on (LSQ, Esser et al. 2020, arXiv 1902.08153).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nanoq.quant.activations import fake_quantize_activations
from nanoq.quant.grid import HALF, Grid, check_weight, storable
from nanoq.quant.layers import linear_layers, weight_matrix
from nanoq.quant.qlinear import packed_layer
from nanoq.quant.quantize import other_names, round_others
from nanoq.quant.recipe import Recipe, Round, is_idle
from nanoq.store import naming

SCALES = ("recomputed", "learned")


class FakeQuantizer(nn.Module):
    """Rounds a weight to the nearest values of its grid in the forward pass, and passes gradients straight through.

    Attributes:
        spec: its grid.
        scale: (rows * groups,), the learned scales; None if they are recomputed.
    """

    def __init__(self, spec: Round, weight: Tensor, learned: bool):
        super().__init__()
        self.spec = spec
        self.start = spec.make_grid(weight.detach().flatten(1), None)
        if learned and self.start.packed_scale is not None:
            raise ValueError("a grid with scales in 8 bits has no room for learned ones")
        self.smallest = min(HALF.smallest_normal, float(self.start.scale.min()))
        self.scale = nn.Parameter(self.start.scale.flatten().clone()) if learned else None

    def grid(self, weight: Tensor) -> Grid:
        """The grid of a latent weight (out, in) as it is now; its scales carry gradients if they are learned."""
        if self.scale is None:
            return self.spec.make_grid(weight.detach(), None)
        scale = self.scale.clamp(min=self.smallest).view_as(self.start.scale)
        return replace(self.start, scale=_straight(scale, storable(scale.detach())), threshold=None)

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight, in the shape of the latent one."""
        matrix = weight.flatten(1)
        grid = self.grid(matrix)
        if self.scale is not None:
            return self._lsq(matrix, grid).view_as(weight)
        return _straight(weight, grid.decode(grid.encode(matrix.detach())).view_as(weight))

    def _lsq(self, weight: Tensor, grid: Grid) -> Tensor:
        """The rounded weight s * round(clip(w / s)), with LSQ's gradients (equations 1 to 5, scaled as in section 2.2).

        With the rounding straight through, the derivative by w is 1 inside the grid and 0 outside; that by s is
        round(w / s) - w / s inside, and the end of the grid outside. A scale gets the sum of what n weights give it,
        and is therefore slowed down by 1 / sqrt(n * the grid's end).
        """
        # the grid's ends for a scale of 1
        ones = torch.ones_like(weight)
        units = replace(grid, scale=torch.ones_like(grid.scale))
        low, high = units.decode(0 * ones), units.decode((grid.levels - 1) * ones)
        codes = grid.encode(weight.detach())

        # the scale, with a gradient that is slowed down
        end = float(high.max()) or float(-low.min())  # no weight above 0, no value above 0
        slowed = (end * weight.numel() / grid.scale.numel()) ** -0.5
        scale = grid.over_columns(grid.scale, weight)
        scale = _straight(scale * slowed, scale)

        # the gradient of clipping, the value of rounding
        inside = (weight / scale).clamp(low, high)
        return scale * _straight(inside, units.decode(codes))


def _straight(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of `hard`, bit for bit, with the gradient of `soft`."""
    return hard.detach() + (soft - soft.detach())


def prepare_qat(
    model: nn.Module, recipe: Recipe, scales: str = "recomputed", activation_bits: int | None = None
) -> nn.Module:
    """Make a model round its weights in every forward pass, in place; train it then as any other.

    What is trained are the latent weights, `layer.parametrizations.weight.original`, and scales that are learned.

    Args:
        model: has `blocks`.
        recipe: the grid of each layer; its rounding method is "nearest".
        scales: "recomputed" or "learned".
        activation_bits: rounds the input of these layers, too, each token on a symmetric scale of its own; None does
            not. The packed model does not do that by itself: `activation_quantization` does.

    Raises:
        ValueError: if a layer's method is another one or its grid needs calibration, it cannot be packed or is prepared
            already, its scales are to be learned but kept in 8 bits, or `scales` is none of the two. The model is then
            left as it was.
    """
    if scales not in SCALES:
        raise ValueError(f"scales must be one of {', '.join(SCALES)}, not {scales!r}")
    if recipe.embeddings != 16:
        raise ValueError(f"embedding tables are trained as they are, and not packed: embeddings={recipe.embeddings} is "
                         "for `quantize_model`")
    layers, quantizers = linear_layers(model), {}
    for name, spec in recipe.resolve(list(layers), other_names(model)).items():
        if is_idle(spec):
            continue
        if parametrize.is_parametrized(layers[name], "weight"):
            raise ValueError(f"{name} is prepared already")
        if not isinstance(spec, Round) or spec.method != "nearest" or spec.needs_calibration or spec.refit:
            raise ValueError(f"{name}: training rounds to nearest, on a grid that needs no calibration, with no refit")
        with naming(name):
            quantizers[name] = FakeQuantizer(spec, weight_matrix(layers[name]), scales == "learned")
    for name, quantizer in quantizers.items():
        parametrize.register_parametrization(layers[name], "weight", quantizer, unsafe=True)
        if activation_bits is not None:
            layers[name].register_forward_pre_hook(
                lambda _, args: _straight(args[0], fake_quantize_activations(args[0].detach(), activation_bits)))
    return model


def fake_quantizers(model: nn.Module) -> dict[str, FakeQuantizer]:
    """What rounds the weights of each layer of a model that `prepare_qat` prepared, by the layer's name."""
    return {name: layer.parametrizations.weight[0] for name, layer in linear_layers(model).items()
            if parametrize.is_parametrized(layer, "weight")}


@torch.no_grad()
def convert_qat(model: nn.Module) -> None:
    """Pack the weights of a trained model in place, everything else going to float16 as in `quantize_model`.

    The packed layers give the outputs of the last training step's weights; the model is left in evaluation mode, and
    `model.recipe` says what was done to each layer.

    Raises:
        ValueError: if the model was not prepared, or a weight holds NaN, by its layer's name.
    """
    quantizers = fake_quantizers(model.eval())
    if not quantizers:
        raise ValueError("the model has no layer that rounds its weight: prepare_qat comes first")
    for name, quantizer in quantizers.items():
        layer = model.get_submodule(name)
        latent = layer.parametrizations.weight.original.flatten(1)
        with naming(name):
            check_weight(latent)
            grid = quantizer.grid(latent)
            packed = packed_layer(layer, grid.encode(latent).long(), grid)
        model.set_submodule(name, packed)
    round_others(model, set())
    rules = {name: quantizer.spec for name, quantizer in quantizers.items()}
    model.recipe = Recipe(bits=16, rules=rules).to_json()
