"""Learned rounding: AdaRound (Nagel et al. 2020, arXiv 2004.10568) and BRECQ (Li et al. 2021, arXiv 2102.05426).

The nearest grid value is the best one for a weight alone. For the layer's output, which adds them up, rounding one
weight up can make up for another that was rounded down. Both methods let every weight choose between its two neighbours
on the grid: it stands at

    lower + h(v) (upper - lower),      h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1)      (AdaRound, equations 22 and 23)

with a number v of its own that gradient descent moves. It starts where the weight is, and a penalty that reaches
further inwards as training goes on, 1 - |2 h(v) - 1|**beta with beta from 20 to 2 (equation 24), leads it to one of the
neighbours in the end.
`adaround` asks for the output of the layer, `brecq` for that of the block that the layers make up together.

Both weigh the penalty against the *relative* error, that of rounding to nearest being 1, so that one weight of the
penalty serves every layer, whatever its scale; the papers' 0.01 is for the absolute one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nanoq.quant.calibrate import LayerStats, check_calibration
from nanoq.quant.grid import Grid
from nanoq.quant.layers import weight_matrix
from nanoq.quant.rounding import nearest

STRETCH = 1.2, -0.1  # of the sigmoid, so that h reaches 0 and 1 at finite v
BETA = 20.0, 2.0


class SoftRounding(nn.Module):
    """A weight matrix between the grid values on both sides of each weight.

    Weights outside the grid stand at its end and cannot move; on a ternary grid those are all that are larger than a.

    Attributes:
        v: (out, in), the parameter.
    """

    def __init__(self, weight: Tensor, grid: Grid):
        super().__init__()
        self.codes = grid.neighbours(weight)
        self.lower, upper = (grid.decode(codes).to(weight.dtype) for codes in self.codes)
        self.step = upper - self.lower
        share = ((weight - self.lower) / self.step.clamp(min=torch.finfo(weight.dtype).tiny)).clamp(0, 1)
        width, shift = STRETCH
        self.v = nn.Parameter(-torch.log(width / (share - shift) - 1))  # h(v) = share

    def share(self) -> Tensor:
        """h(v): how far each weight is from its lower to its upper neighbour, in [0, 1]."""
        width, shift = STRETCH
        return (self.v.sigmoid() * width + shift).clamp(0, 1)

    def forward(self) -> tuple[Tensor, Tensor]:
        """The weight and h(v), both (out, in)."""
        share = self.share()
        return self.lower + share * self.step, share

    def hard(self) -> Tensor:
        """The codes to which the weights are nearer now: int64 (out, in)."""
        return torch.where(self.v >= 0, self.codes[1], self.codes[0]).long()


def penalty(share: Tensor, progress: float, warmup: float) -> Tensor | float:
    """The mean of 1 - |2 h - 1|**beta over h in [0, 1], at a share `progress` of the training; 0 in the warm-up."""
    if progress < warmup:
        return 0.0
    start, end = BETA
    beta = start + (end - start) * (progress - warmup) / (1 - warmup)
    return (1 - (2 * share - 1).abs() ** beta).mean()


def adaround(
    weight: Tensor, grid: Grid, stats: LayerStats, *, steps: int = 1000, lr: float = 0.02, regularization: float = 1.0,
    warmup: float = 0.2,
) -> Tensor:
    """Learn which of its two neighbours on the grid each weight goes to, for the least error of the layer's output.

    The error trace((W - Q) G (W - Q)^T) needs the inputs only through their Gram matrix G, so that a step over *all* of
    the calibration text costs one product with G. (The paper passes batches of inputs through the layer and its
    activation function, which is left out here; `brecq` has it.)

    Args:
        weight: (out, in).
        grid: of the weight.
        stats: of the layer's inputs.
        steps: of Adam.
        lr: its learning rate.
        regularization: weight of the penalty, against an error that is 1 for rounding to nearest.
        warmup: share of the steps before the penalty sets in.

    Returns:
        int64 codes (out, in).

    Raises:
        ValueError: if the weight holds NaN, the grid or the statistics do not fit it, the statistics are empty or hold
            NaN, or an option is out of its range.
    """
    check_calibration(weight, stats)
    grid.check_fits(weight)
    _check_options(steps, warmup)
    weight = weight.detach().to(stats.gram.dtype)
    start = nearest(weight, grid)
    change = grid.decode(start) - weight
    unit = stats.error_terms(change).sum()
    if not unit > 0:
        return start  # every weight is on the grid, or every input was zero

    def error(values: dict[str, Tensor]) -> Tensor:
        change = values[""] - weight
        # Its gradient is that of trace(change G change^T) at half the products: G is symmetric.
        return 2 * (change * (change.detach() @ stats.gram)).sum() / unit
    return _learn({"": SoftRounding(weight, grid)}, error, steps, lr, regularization, warmup)[""]


def _learn(
    rounding: dict[str, SoftRounding], error: Callable[[dict[str, Tensor]], Tensor], steps: int, lr: float,
    regularization: float, warmup: float,
) -> dict[str, Tensor]:
    """The codes of each weight after training for the least error(weights), which is 1 for rounding to nearest."""
    optimizer = torch.optim.Adam([soft.v for soft in rounding.values()], lr)
    with torch.enable_grad():
        for step in range(steps):
            soft = {name: own() for name, own in rounding.items()}
            shares = torch.cat([share.flatten() for _, share in soft.values()])
            loss = error({name: values for name, (values, _) in soft.items()})
            loss = loss + regularization * penalty(shares, step / steps, warmup)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: own.hard() for name, own in rounding.items()}


def _check_options(steps: int, warmup: float) -> None:
    if steps < 1 or not 0 <= warmup < 1:
        raise ValueError(f"steps must be at least 1, and warmup lie in [0, 1), not {steps!r} and {warmup!r}")


@dataclass(frozen=True)
class BlockData:
    """What a block reads and is to give, in batches: hidden states (N, ...) each.

    Attributes:
        inputs: of the block in the quantised model.
        targets: outputs of the block in the unquantised model.
        fisher: squared gradients of the model's loss at those outputs; None where they were not asked for.
    """

    inputs: list[Tensor]
    targets: list[Tensor]
    fisher: list[Tensor] | None = None


class BlockError:
    """The error of a block's output, for other weights of some of its layers, in the type that the block computes in.

    Attributes:
        inputs: of the block (N, ...).
        targets: what it is to give (N, ...).
    """

    def __init__(self, block: nn.Module, data: BlockData, fisher: bool = False):
        self.block, self.inputs, self.targets = block, torch.cat(data.inputs), torch.cat(data.targets)
        self.importance = torch.cat(data.fisher) if fisher else self.targets.new_ones(len(self.targets), 1)
        self.rest = {name: parameter.detach() for name, parameter in block.named_parameters()}

    def __call__(self, values: dict[str, Tensor], rows: Tensor) -> Tensor:
        """The mean squared error of some rows, with weight matrices (out, in) by the layers' names."""
        named = {f"{name}.weight": value for name, value in values.items()}
        own = {name: value.view_as(self.rest[name]).to(self.rest[name].dtype) for name, value in named.items()}
        change = functional_call(self.block, self.rest | own, self.inputs[rows]).float() - self.targets[rows]
        return (change.square().flatten(1) * self.importance[rows].flatten(1)).mean()


def brecq(
    block: nn.Module, grids: dict[str, Grid], data: BlockData, *, steps: int = 500, batch: int = 16, lr: float = 0.02,
    regularization: float = 1.0, warmup: float = 0.2, fisher: bool = False, seed: int = 0,
) -> dict[str, Tensor]:
    """Learn the rounding of all layers of a block together, for the least error of the block's output.

    Args:
        block: maps hidden states to hidden states; is not changed.
        grids: of each layer to be rounded, by its name in the block.
        data: what the block reads and is to give.
        steps: of Adam.
        batch: sequences or pictures in a step.
        lr: its learning rate.
        regularization: weight of the penalty, against an error that is 1 for rounding to nearest.
        warmup: share of the steps before the penalty sets in.
        fisher: whether the error of each output is weighed by its squared gradient (equation 10), rather than equally.
        seed: of the order of the data.

    Returns:
        int64 codes (out, in) of each layer.

    Raises:
        ValueError: if an option is out of its range.
    """
    _check_options(steps, warmup)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch!r}")
    weights = {name: weight_matrix(block.get_submodule(name)) for name in grids}
    error = BlockError(block, data, fisher)
    count, generator = len(error.inputs), torch.Generator().manual_seed(seed)
    first = torch.randperm(count, generator=generator)[: 4 * batch]
    start = {name: grid.decode(nearest(weights[name], grid)) for name, grid in grids.items()}
    unit = error(start, first).clamp(min=1e-30)

    def relative(values: dict[str, Tensor]) -> Tensor:
        return error(values, torch.randint(count, (batch,), generator=generator)) / unit
    rounding = {name: SoftRounding(weights[name], grid) for name, grid in grids.items()}
    return _learn(rounding, relative, steps, lr, regularization, warmup)
