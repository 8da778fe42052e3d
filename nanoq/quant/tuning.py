"""Training a quantised model against its original: the floats of its file end to end, or the codes as well.

What is made small is the mean KL divergence of the quantised model's predictions from the original's, on training
text (distillation, Hinton et al. 2015, arXiv 1503.02531). The codes may stay as they are, as in the second half of
EfficientQAT (E2E-QP, Chen et al. 2024, arXiv 2407.11062); then scales, norms, biases and tables are trained, and the
paper trains scales alone. Or the codes are trained with them: each weight moves in units of its step, which stays,
and is rounded in the forward pass with gradients passed straight through. The paper's first half does that block by
block, for the output of a block; here it is end to end.

An entropy-coded code costs as many bits as it is rare. The loss of a training of codes therefore has a price per bit,
as entropy-constrained quantisation has (Chou, Lookabaugh and Gray 1989): a code of frequency p costs -log2 p bits, and
between two codes the cost is on the line between theirs, whose slope is what moves the weight.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.lm.model import GPT, check_tokens
from nanoq.lm.training import batch_at
from nanoq.progress import progress
from nanoq.quant.embeddings import QuantEmbedding, packed_table
from nanoq.quant.grid import HALF
from nanoq.quant.qat import straight_through
from nanoq.quant.qlinear import QuantLinear, entropy_coded
from nanoq.store import naming, stored

WARMUP = 0.05  # share of the steps
EDGE = 0.49  # of a cell, in steps from its middle


class TunedLinear(nn.Module):
    """A quantised layer as it is trained: whole numbers times steps times gains.

    Attributes:
        units: float (out, in), the codes less the zero point; a parameter that is rounded where codes are trained.
        gain: what is trained of the scales, as a factor: one each, or one for all where a file keeps them in 8 bits.
    """

    def __init__(self, layer: QuantLinear, train_codes: bool, weight: Tensor | None = None):
        """`weight` (out, in) is the original's: a code starts where it stands, or at the nearest edge of its cell."""
        super().__init__()
        grid, codes = layer.grid, layer.unpacked()
        if train_codes and grid.codebook is not None:
            raise ValueError("codes of a codebook are not trained: its values are no whole numbers of steps")
        self.layer, self.grid = [layer], grid  # a list, so that it is no module of this one
        self.scale = grid.over_columns(grid.scale, codes)
        self.zero = grid.over_columns(grid.zero_codes, codes).float()
        units = grid.decode(codes) / self.scale
        if train_codes:
            units = units.round()
            if weight is not None:
                weight = weight.detach() if layer.order is None else weight.detach()[:, layer.order]
                units += (weight / self.scale - units).clamp(-EDGE, EDGE)
        self.units = nn.Parameter(units, requires_grad=train_codes)
        one_for_all = grid.packed_scale is not None
        self.gain = nn.Parameter(torch.ones((1, 1) if one_for_all else grid.scale.shape),
                                 requires_grad=not one_for_all or grid.packed_scale.coarse is not None)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def rounded(self) -> Tensor:
        """The units as whole numbers, for a training of codes: (out, in)."""
        units = self.units.detach().round()
        return torch.minimum(torch.maximum(units, -self.zero), self.grid.levels - 1 - self.zero)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        units = straight_through(self.units, self.rounded()) if self.units.requires_grad else self.units
        gain = self.gain if self.gain.numel() == 1 else self.grid.over_columns(self.gain, units)
        order = self.layer[0].order
        return F.linear(x if order is None else x[..., order], units * (self.scale * gain), self.bias)

    def bits(self) -> Tensor:
        """What the codes take, entropy-coded: their sum of bits, with a gradient for the units."""
        units = self.rounded().long()
        low = int(units.min()) - 1
        counts = torch.bincount((units - low).flatten(), minlength=int(units.max()) - low + 2).float() + 0.5
        lengths = (counts.sum() / counts).log2()
        below = (self.units.detach().floor().long() - low).clamp(0, len(lengths) - 2)
        slope = lengths[below + 1] - lengths[below]
        return straight_through((self.units * slope).sum(), lengths[units - low].sum())

    def packed(self) -> QuantLinear:
        """The layer that a file holds: scales rounded to what it keeps, untrained codes bit for bit."""
        layer, gain = self.layer[0], self.gain.detach()
        tensors = {name: getattr(layer, name) for name in layer.kept}
        if "scale_format" in layer.layout:
            tensors |= {name: tensors[name] * gain.flatten() for name in ("scale_coarse", "scale_offset")
                        if tensors[name] is not None}
        else:
            smallest = min(HALF.smallest_normal, float(layer.scale.float().min()))
            tensors["scale"] = (layer.scale.float() * gain).clamp(min=smallest).to(layer.scale.dtype)
        bias = None if self.bias is None else stored("bias", self.bias.detach())
        same = type(layer)(dict(layer.layout), tensors | {"bias": bias})
        if not self.units.requires_grad:
            return same
        grid, codes = same.grid, (self.rounded() + self.zero).long()
        more = {name: value for name, value in layer.layout.items() if name not in ("coding", "out_features")}
        plain = QuantLinear.from_codes(codes, grid, bias, layer.order, **more)
        return entropy_coded(plain) if grid.coded else plain


def tune(
    model: GPT, original: GPT, tokens: Tensor, *, steps: int = 300, batch: int = 16, lr: float = 1e-3,
    codes: bool = False, codes_lr: float = 0.02, price: float = 0.0, seed: int = 0,
) -> list[float]:
    """Train a quantised model in place towards the predictions of its original.

    Its file has the same tensors afterwards, rounded as a file keeps them: without `codes`, the codes are the same bit
    for bit. Embedding tables in 8 or 4 bits are trained as floats and rounded to nearest at the end.

    Args:
        model: from `quantize_model`; is left in evaluation mode.
        original: what it was made from; stays as it is.
        tokens: training text, int64 (N,).
        steps: of Adam, with a linear warm-up and a line to zero.
        batch: windows of the model's context in a step.
        lr: peak learning rate of everything that the file keeps as floats; gains start at 1.
        codes: whether codes are trained, too.
        codes_lr: their peak learning rate, in steps of the grid.
        price: of one coded bit per weight, in nats; only for codes. The best is about 2 ln 2 times the loss at the
            wished rate, as errors fall by a factor of four for a bit.
        seed: of the order of the text.

    Returns:
        The mean KL divergence in nats per token, of each step.

    Raises:
        ValueError: if the model is not a GPT or has no quantised layer, a token is not in the vocabulary, an option is
            out of its range, or codes of a codebook are to be trained.
    """
    if not isinstance(model, GPT) or not isinstance(original, GPT):
        raise ValueError("only a GPT of nanoq is tuned, and towards another GPT")
    if steps < 1 or batch < 1 or not lr > 0 or not codes_lr > 0 or not price >= 0:
        raise ValueError("steps and batch must be at least 1, learning rates positive, and the price not negative")
    check_tokens(tokens, model.config.vocab_size)
    model.eval(), original.eval()
    tables, twin = _trainable(model, original if codes else None)
    layers = {name: layer for name, layer in twin.named_modules() if isinstance(layer, TunedLinear)}
    if not layers:
        raise ValueError("the model has no quantised layer: quantise it first")
    optimizer = _optimizer(twin, layers, lr, codes_lr)
    weights = sum(layer.units.numel() for layer in layers.values())
    losses = []
    for step in progress(range(steps), desc="tune", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min((step + 1) / (WARMUP * steps + 1), (steps - step) / steps)
        rows = batch_at(tokens, step, batch, model.config.context, seed)[:, :-1]
        with torch.no_grad():
            target = original(rows).log_softmax(-1).flatten(0, 1)
        with torch.enable_grad():
            loss = F.kl_div(twin(rows).log_softmax(-1).flatten(0, 1), target, reduction="batchmean", log_target=True)
            losses.append(float(loss.detach()))
            if codes and price:
                loss = loss + price / weights * sum(layer.bits() for layer in layers.values())
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    _take_over(model, twin, layers, tables)
    return losses


def _trainable(model: GPT, original: GPT | None) -> tuple[dict[str, QuantEmbedding], GPT]:
    """The packed tables of a model, and a copy of it whose numbers can be trained; with an original codes, too."""
    twin = deepcopy(model)
    packed = {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    tables = {name: layer for name, layer in packed.items() if isinstance(layer, QuantEmbedding)}
    for name, layer in packed.items():
        with naming(name):
            if name in tables:
                twin.set_submodule(name, nn.Embedding(*layer.weight_shape, _weight=layer.weight))
            else:
                weight = original and original.get_submodule(name).weight
                twin.set_submodule(name, TunedLinear(layer, original is not None, weight))
    trained = {name for name, _ in twin.named_parameters() if not name.endswith((".units", ".gain"))}
    for name in trained:
        twin.get_parameter(name).requires_grad_()
    return tables, twin


def _optimizer(twin: GPT, layers: dict[str, TunedLinear], lr: float, codes_lr: float) -> torch.optim.Adam:
    units = [layer.units for layer in layers.values() if layer.units.requires_grad]
    chosen = {id(parameter) for parameter in units}
    rest = [parameter for parameter in twin.parameters() if parameter.requires_grad and id(parameter) not in chosen]
    groups = [{"params": rest, "peak": lr}] + [{"params": units, "peak": codes_lr}] * bool(units)
    return torch.optim.Adam(groups, lr, betas=(0.9, 0.95))


@torch.no_grad()
def _take_over(model: GPT, twin: GPT, layers: dict[str, TunedLinear], tables: dict[str, QuantEmbedding]) -> None:
    """Put what was trained into the model, rounded to what a file keeps of it."""
    for name, layer in layers.items():
        model.set_submodule(name, layer.packed())
    for name, table in tables.items():
        own = twin.get_submodule(name)
        model.set_submodule(name, packed_table(own, table.layout["bits"], own.weight.detach()))
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] not in layers:
            parameter.copy_(stored(name, twin.get_parameter(name)))
