"""Mixed-precision training: products of small numbers, sums and weights in float32.

Sources: Micikevicius et al. 2018 (arXiv 1710.03740); for 8 bits, Micikevicius et al. 2022 (arXiv 2209.05433).

The small type is *emulated*: what enters a product is rounded to it, the product is computed in float32, and the result
is rounded again. That is what tensor cores do, which multiply small numbers and add up in float32, and it is fast where
a CPU's own small products are slow. The numbers are those of the type; the time and the memory are not.

`F.linear` is the only operation that is emulated: the linear layers and the head, forward and backward. Everything else
stays in float32, the two products inside attention among it, which `torch.autocast`, that does the same in the real
types, rounds as well. Products that no call of `F.linear` makes are not seen: `nn.MultiheadAttention` is refused, and
what `torch.utils.checkpoint` computes again in the backward pass has to be wrapped by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.overrides import TorchFunctionMode

from nanoq.numbers.floats import float_format
from nanoq.progress import progress


@dataclass(frozen=True)
class Precision:
    """Which type is used where.

    Attributes:
        forward: of the inputs and weights that enter a product.
        gradient: of the gradients that enter one.
        result: of what comes out, forward and backward.
        scaled: whether a tensor is divided by a scale of its own before a cast, so that its largest value becomes the
            type's largest, and multiplied by it afterwards, as 8 bits need it.
        loss_scaling: whether the loss is scaled up and steps that overflow are skipped.
    """

    forward: torch.dtype
    gradient: torch.dtype
    result: torch.dtype
    scaled: bool = False
    loss_scaling: bool = False


PRECISIONS = {
    "fp32": Precision(torch.float32, torch.float32, torch.float32),
    "bf16": Precision(torch.bfloat16, torch.bfloat16, torch.bfloat16),
    "fp16": Precision(torch.float16, torch.float16, torch.float16),
    "fp16 + loss scaling": Precision(torch.float16, torch.float16, torch.float16, loss_scaling=True),
    "fp8": Precision(torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, scaled=True),
}


class emulate(TorchFunctionMode):
    """Within this context `F.linear` computes in a precision, also when its gradient is taken after the context.

    Attributes:
        gradients: numbers other than 0 in the gradients that entered products.
        flushed: how many of them became 0.
    """

    def __init__(self, precision: Precision):
        super().__init__()
        self.precision, self.gradients, self.flushed = precision, 0, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Replace `F.linear`, and only that."""
        if func is F.multi_head_attention_forward:
            raise ValueError("nn.MultiheadAttention multiplies where it cannot be emulated: use layers of nn.Linear")
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        return self._linear(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = _Product.apply(input.reshape(-1, input.shape[-1]), weight, bias, self)
        return y.view(*input.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    """x (n, in) times weight (out, in) transposed, plus bias (out,), and the gradients of all three, in a precision."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, mode: emulate) -> Tensor:
        p = mode.precision
        x, weight = _cast(x, p.forward, p.scaled), _cast(weight, p.forward, p.scaled)
        ctx.save_for_backward(x, weight)
        ctx.mode, ctx.has_bias = mode, bias is not None
        y = x @ weight.T
        return _cast(y if bias is None else y + bias, p.result)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        p, (x, weight) = ctx.mode.precision, ctx.saved_tensors
        small = _cast(gradient, p.gradient, p.scaled)
        ctx.mode.gradients += int((gradient != 0).sum())
        ctx.mode.flushed += int(((gradient != 0) & (small == 0)).sum())
        bias = _cast(small.sum(0), p.result) if ctx.has_bias else None
        return _cast(small @ weight, p.result), _cast(small.T @ x, p.result), bias, None


def _cast(x: Tensor, dtype: torch.dtype, scaled: bool = False) -> Tensor:
    """Round float32 numbers to a type and return them in float32."""
    if not scaled:
        return x.to(dtype).float()
    scale = x.abs().max() / torch.finfo(dtype).max
    scale = torch.where(scale > 0, scale, 1)
    return (x / scale).to(dtype).float() * scale


class LossScale:
    """A factor on the loss that lifts small gradients out of the underflow; after an overflow it is halved.

    Attributes:
        value: the factor.
        patience: steps without overflow after which it doubles.
    """

    def __init__(self, value: float = 2.0**16, patience: int = 200):
        self.value, self.patience, self._good = value, patience, 0

    def update(self, overflowed: bool) -> None:
        """Take note of whether a step overflowed.

        Raises:
            ValueError: if gradients overflow at a factor so small that it cannot be its fault.
        """
        self._good = 0 if overflowed else self._good + 1
        if self.value < 2.0**-24 and overflowed:
            raise ValueError("the gradients are not finite whatever the loss scale: the training has diverged")
        if overflowed:
            self.value /= 2
        elif self._good % self.patience == 0:
            self.value *= 2


@dataclass(frozen=True)
class Step:
    """What one training step did.

    Attributes:
        loss: before the step.
        loss_scale: the factor that was on the loss.
        skipped: whether a gradient overflowed, so that the weights were left as they were.
        flushed: share of the gradients, where they enter products, that became 0 in their type.
        lost: share of the updated weights that the format they are stored in left where they were.
    """

    loss: float
    loss_scale: float
    skipped: bool
    flushed: float
    lost: float


def train_mixed(
    model: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], batches: Iterable[Tensor],
    optimizer: torch.optim.Optimizer, precision: str, *, scheduler: LRScheduler | None = None, store: str = "fp32",
    rounding: str = "nearest", seed: int = 0,
) -> list[Step]:
    """Train a model in place, one `Step` for each batch.

    The weights are float32 master weights, cast anew for every product, unless `store` names a smaller format. Then
    each updated weight is rounded to that format, where an update of less than half an ulp is lost.

    Args:
        model: with float32 parameters.
        loss: (model, batch) -> ().
        batches: whatever `loss` takes.
        optimizer: of the model's parameters.
        precision: a name in `PRECISIONS`.
        scheduler: of the optimizer's learning rate; it advances with every step that is not skipped.
        store: a name in `nanoq.numbers.FLOATS`.
        rounding: of the stored weights: "nearest", or "stochastic", which keeps small updates in the mean.
        seed: of stochastic rounding.

    Raises:
        ValueError: if there is no such precision, format or rounding.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}: there are {', '.join(PRECISIONS)}")
    types, scale, steps = PRECISIONS[precision], LossScale(), []
    round_weight = partial(float_format(store).round, rounding=rounding, generator=torch.Generator().manual_seed(seed))
    for parameter in model.parameters():
        parameter.data.copy_(round_weight(parameter.data))
    model.train()
    for batch in progress(batches, desc=f"train in {precision}", unit="step"):
        factor = scale.value if types.loss_scaling else 1.0
        optimizer.zero_grad()
        with emulate(types) as mode:
            value = loss(model, batch)
        (value * factor).backward()
        skipped = not _unscale(model, factor) and types.loss_scaling
        lost = 0.0 if skipped else _update(model, optimizer, None if store == "fp32" else round_weight)
        if scheduler and not skipped:
            scheduler.step()
        scale.update(skipped)
        steps.append(Step(value.item(), factor, skipped, mode.flushed / max(1, mode.gradients), lost))
    return steps


def _unscale(model: nn.Module, factor: float) -> bool:
    """Take the factor off the gradients; whether all of them are finite."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    for gradient in gradients:
        gradient /= factor
    return all(gradient.isfinite().all() for gradient in gradients)


@torch.no_grad()
def _update(model: nn.Module, optimizer: torch.optim.Optimizer, round_weight: Callable | None) -> float:
    """One optimiser step and the rounding of what it made; returns the share of updates that the rounding undid."""
    if round_weight is None:
        optimizer.step()
        return 0.0
    before = [p.clone() for p in model.parameters()]
    optimizer.step()
    moved = lost = 0
    for old, parameter in zip(before, model.parameters(), strict=True):
        wanted = parameter != old
        parameter.copy_(round_weight(parameter))
        moved += int(wanted.sum())
        lost += int((wanted & (parameter == old)).sum())
    return lost / max(1, moved)
