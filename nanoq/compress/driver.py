"""The walk through a model: block by block, each layer changed on what the changed blocks before it give it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nanoq.compress.layers import AdapterLinear, LowRankLinear, SparseLinear, SparseQuantLinear
from nanoq.compress.lowrank import low_rank, rank_for
from nanoq.compress.prune import check_method, prune
from nanoq.quant.calibrate import LayerStats
from nanoq.quant.qlinear import QuantLayer
from nanoq.quant.recipe import LayerSpec
from nanoq.quant.visit import visit
from nanoq.store import naming

Change = Callable[[str, nn.Module, LayerStats | None], nn.Module]


@torch.no_grad()
def compress_model(model: nn.Module, change: Change, calibration: Tensor | None = None, batch: int = 16) -> nn.Module:
    """Change every linear layer of a model, in place, and give the model back in evaluation mode.

    Args:
        model: has `blocks`, and `embed`, which maps tokens to the hidden states that enter the first block.
        change: what to do: `pruning`, `thinning`, `packing`, or a function of a layer's name, the layer (`nn.Linear`,
            or `QuantLayer` in a quantised model) and the statistics of its inputs (None without calibration) that
            gives the layer to put in its place.
        calibration: windows (W, T) of training text.
        batch: windows that go through a block at once.

    Raises:
        ValueError: if there is no layer to change, or what is wrong with one, by its name. The model may then be partly
            changed: load it again.
    """
    model.eval()
    if thin := [name for name, layer in model.named_modules() if isinstance(layer, (LowRankLinear, AdapterLinear))]:
        raise ValueError(f"{thin[0]}: the layer is thin already; a file has no room for more in it")
    layers = [f"blocks.{name}" for name, layer in model.blocks.named_modules()
              if isinstance(layer, (nn.Linear, QuantLayer))]
    if not layers:
        raise ValueError("the model has no linear layer in its blocks that could be compressed: was it, already?")
    batches = [] if calibration is None else list(calibration.split(batch))
    for name, layer, stats in visit(model, batches, layers):
        with naming(name):
            model.set_submodule(name, change(name, layer, stats))
    return model


def pruning(method: str = "sparsegpt", sparsity: float = 0.5, pattern: str = "row", spec: LayerSpec | None = None,
            pack: bool = True) -> Change:
    """Change layers by `prune`.

    Args:
        method: a name in `SCORES`, or "sparsegpt".
        sparsity: as in `mask`.
        pattern: as in `mask`.
        spec: whose grid the weights that stay are rounded to; None leaves them in float16.
        pack: whether layers become sparse ones; otherwise they stay `nn.Linear` with zeros, to be trained or pruned on.

    Raises:
        ValueError: if there is no such method, or the spec has no grid or is not to be packed.
    """
    check_method(method)
    if spec and (spec.bits == 16 or not pack):
        raise ValueError("a spec is for weights that are rounded and packed: leave it out, or give it 2 to 8 bits")

    def change(_, layer: nn.Module, stats: LayerStats | None) -> nn.Module:
        weight = _weight(layer)
        grid = spec.make_grid(weight, stats) if spec else None
        pruned = prune(weight, stats, grid, method=method, sparsity=sparsity, pattern=pattern)
        if grid is not None:
            return SparseQuantLinear.of(pruned, grid, layer.bias)
        if pack:
            return SparseLinear.of(pruned, layer.bias)
        layer.weight.copy_(pruned)
        return layer
    return change


def packing(_, layer: nn.Module, stats: LayerStats | None = None) -> SparseLinear:
    """A change for `compress_model`: what is 0 already is not stored any more."""
    return SparseLinear.of(_weight(layer), layer.bias)


def thinning(share: float, aware: bool = True) -> Change:
    """Change layers into two thin ones with a share of their numbers, by `low_rank`; `aware` of the inputs or not."""
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), not {share!r}")

    def change(_, layer: nn.Module, stats: LayerStats | None) -> LowRankLinear:
        weight = _weight(layer)
        return LowRankLinear(*low_rank(weight, rank_for(weight.shape, share), stats if aware else None), layer.bias)
    return change


def _weight(layer: nn.Module) -> Tensor:
    """The weight (out, in) of a linear layer in float32."""
    if not isinstance(layer, nn.Linear):
        raise ValueError("the layer is quantised already: compress a model first, or in one walk with its grid")
    return layer.weight.detach().float()


def add_adapters(model: nn.Module, rank: int, original: nn.Module | None = None,
                 calibration: Tensor | None = None) -> nn.Module:
    """Put a thin correction beside each packed layer of a quantised model, in place; only these are left to train.

    Args:
        model: quantised by `nanoq.quant.quantize_model`.
        rank: of the corrections.
        original: the model before; the corrections then start at the best low-rank part of the rounding error
            (`AdapterLinear.of`) instead of at 0.
        calibration: windows (W, T), so that "best" is meant for the outputs.

    Raises:
        ValueError: if a layer is not quantised, or has another shape in the original.
    """
    def change(name: str, layer: nn.Module, stats: LayerStats | None) -> AdapterLinear:
        if not isinstance(layer, QuantLayer):
            raise ValueError("the layer is not quantised: adapters stand beside packed layers")
        target = None if original is None else _weight(original.get_submodule(name))
        return AdapterLinear.of(layer, rank, target, stats)
    compress_model(model, change, calibration)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, AdapterLinear):
            module.adapter.requires_grad_(True)
    return model
