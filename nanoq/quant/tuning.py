"""Training what a quantised model's file keeps as floats, against its original; the codes stay as they are.

What is made small is the mean KL divergence of the quantised model's predictions from the original's, on training
text (distillation, Hinton et al. 2015, arXiv 1503.02531). It is the second half of EfficientQAT (E2E-QP, Chen et al.
2024, arXiv 2407.11062), which trains scales alone; norms, biases and tables are trained here, too. The first half is
`nanoq.quant.block_ap`.
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
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import naming, stored

WARMUP = 0.05  # share of the steps


class TunedLinear(nn.Module):
    """A quantised layer as it is trained: its weight, decoded once, times gains.

    Attributes:
        decoded: float (out, in), in the order of the codes' columns.
        gain: what is trained of the scales, as a factor: one each, or one for all where a file keeps them in 8 bits.
    """

    def __init__(self, layer: QuantLinear):
        super().__init__()
        self.layer, self.grid = [layer], layer.grid  # a list, so that it is no module of this one
        self.decoded = self.grid.decode(layer.unpacked())
        packed = self.grid.packed_scale
        self.gain = nn.Parameter(torch.ones((1, 1) if packed else self.grid.scale.shape),
                                 requires_grad=packed is None or packed.coarse is not None)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        gain = self.gain if self.gain.numel() == 1 else self.grid.over_columns(self.gain, self.decoded)
        order = self.layer[0].order
        return F.linear(x if order is None else x[..., order], self.decoded * gain, self.bias)

    def packed(self) -> QuantLinear:
        """The layer that a file holds: the same codes bit for bit, scales rounded to what it keeps."""
        layer, gain = self.layer[0], self.gain.detach()
        tensors = {name: getattr(layer, name) for name in layer.kept}
        if "scale_format" in layer.layout:
            tensors |= {name: tensors[name] * gain.flatten() for name in ("scale_coarse", "scale_offset")
                        if tensors[name] is not None}
        else:
            smallest = min(HALF.smallest_normal, float(layer.scale.float().min()))
            tensors["scale"] = (layer.scale.float() * gain).clamp(min=smallest).to(layer.scale.dtype)
        bias = None if self.bias is None else stored("bias", self.bias.detach())
        return type(layer)(dict(layer.layout), tensors | {"bias": bias})


def tune(
    model: GPT, original: GPT, tokens: Tensor, *, steps: int = 300, batch: int = 16, lr: float = 3e-3, seed: int = 0,
) -> list[float]:
    """Train a quantised model in place towards the predictions of its original.

    Its file has the same tensors afterwards, rounded as a file keeps them, and the same codes bit for bit. Embedding
    tables in 8 or 4 bits are trained as floats and rounded to nearest at the end. What was done is not in the card:
    `nanoq.store.save` takes it as a fact, `tuned={"steps": 300, "seed": 0}`.

    Args:
        model: from `quantize_model`; is left in evaluation mode.
        original: what it was made from; stays as it is.
        tokens: training text, int64 (N,).
        steps: of Adam, with a linear warm-up and a line to zero.
        batch: windows of the model's context in a step.
        lr: peak learning rate; gains, by which scales are multiplied, start at 1.
        seed: of the order of the text.

    Returns:
        The mean KL divergence in nats per token, of each step.

    Raises:
        ValueError: if the model is not a GPT or has no quantised layer, a token is not in the vocabulary, an option is
            out of its range.
    """
    if not isinstance(model, GPT) or not isinstance(original, GPT):
        raise ValueError("only a GPT of nanoq is tuned, and towards another GPT")
    if steps < 1 or batch < 1 or not lr > 0:
        raise ValueError(f"steps and batch must be at least 1, and lr positive, not {steps!r}, {batch!r} and {lr!r}")
    check_tokens(tokens, model.config.vocab_size)
    model.eval(), original.eval()
    tables, twin = _trainable(model)
    layers = {name: layer for name, layer in twin.named_modules() if isinstance(layer, TunedLinear)}
    if not layers:
        raise ValueError("the model has no quantised layer: quantise it first")
    optimizer, losses = torch.optim.Adam([p for p in twin.parameters() if p.requires_grad], betas=(0.9, 0.95)), []
    for step in progress(range(steps), desc="tune", unit="step"):
        optimizer.param_groups[0]["lr"] = lr * min((step + 1) / (WARMUP * steps + 1), (steps - step) / steps)
        rows = batch_at(tokens, step, batch, model.config.context, seed)[:, :-1]
        with torch.no_grad():
            target = original(rows).log_softmax(-1).flatten(0, 1)
        with torch.enable_grad():
            loss = F.kl_div(twin(rows).log_softmax(-1).flatten(0, 1), target, reduction="batchmean", log_target=True)
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    _take_over(model, twin, layers, tables)
    return losses


def _trainable(model: GPT) -> tuple[dict[str, QuantEmbedding], GPT]:
    """The packed tables of a model, and a copy of it whose floats can be trained."""
    twin = deepcopy(model)
    packed = {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    tables = {name: layer for name, layer in packed.items() if isinstance(layer, QuantEmbedding)}
    for name, layer in packed.items():
        with naming(name):
            new = nn.Embedding(*layer.weight_shape, _weight=layer.weight) if name in tables else TunedLinear(layer)
        twin.set_submodule(name, new)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or not name.endswith(".gain"))
    return tables, twin


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
