"""Mixtures of experts: matrices that transformers keeps in one 3-D parameter become a linear layer each.

Fused, the experts are no linear layers that could be quantised. Apart, each has a name in the model, as
`blocks.0.mlp.experts.3.down_proj`, and is seen on the tokens that the router sends to it alone. The names are those of
most files on the hub.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def split_experts(model: nn.Module) -> None:
    """Put linear layers in the places of all fused experts that are known, in place: they compute the same."""
    for module in list(model.modules()):
        kind = next((kind for kind in (_Routed, _Sorted, _Parallel, _Stacked) if kind.fits(module)), None)
        if kind:
            module.__class__ = type(f"Split{type(module).__name__}", (kind, type(module)), {})
            module.split()


class _Split:
    """A fused module whose matrices lie in linear layers. It keeps its other attributes, and another `forward`.

    A subclass says of which modules it can be made, takes their parameters apart in `split`, and computes.
    """

    def take(self, name: str) -> tuple[Tensor, list]:
        """The matrices (experts, out, in) of a parameter, which the module loses, and the bias of each, or None."""
        weight, bias = getattr(self, name).detach(), getattr(self, f"{name}_bias", None)
        delattr(self, name)
        if bias is not None:
            delattr(self, f"{name}_bias")
        weight = weight.mT if getattr(self, "is_transposed", False) else weight
        return weight, [None] * len(weight) if bias is None else list(bias.detach())

    def expert(self, number: int) -> nn.Module:
        """The linear layers of an expert."""
        return getattr(self, str(number))

    def run(self, expert: nn.Module, x: Tensor) -> Tensor:
        """What an expert makes of its tokens (tokens, in)."""
        if hasattr(expert, "gate_proj"):
            x = torch.cat((expert.gate_proj(x), expert.up_proj(x)), dim=-1)
        else:
            x = (expert.gate_up_proj if hasattr(expert, "gate_up_proj") else expert.up_proj)(x)
        return expert.down_proj(self.activate(x))

    def activate(self, x: Tensor) -> Tensor:
        """What lies between the two products: gates and activation."""
        if not getattr(self, "has_gate", True):
            return self.act_fn(x)
        if hasattr(self, "_apply_gate"):
            return self._apply_gate(x)
        gate, up = x.chunk(2, dim=-1)
        return self.act_fn(gate) * up

    def split(self) -> None:
        """Take the parameters apart: first that which widens, into gate and up where they lie one after the other."""
        gated = getattr(self, "has_gate", True)
        first, first_bias = self.take("gate_up_proj" if gated else "up_proj")
        last, last_bias = self.take("down_proj")
        names = ("gate_up_proj",) if gated else ("up_proj",)
        if gated and getattr(self, "is_concatenated", True):
            names = ("gate_proj", "up_proj")
        for number in range(len(last)):  # where experts do nothing, there are more matrices in the first
            bias = first_bias[number]
            biases = [None] * len(names) if bias is None else bias.chunk(len(names))
            expert = nn.Module()
            for name, matrix, own in zip(names, first[number].chunk(len(names)), biases, strict=True):
                expert.add_module(name, linear(matrix, own))
            expert.down_proj = linear(last[number], last_bias[number])
            self.add_module(str(number), expert)
        self.count = len(last)


class _Routed(_Split):
    """Experts that are told which tokens go where: Mixtral, Qwen, DeepSeek, OLMoE, GPT-OSS and most others."""

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether it has the parameters, and is one of the modules for which transformers has several ways to run."""
        names = ("gate_up_proj" if getattr(module, "has_gate", True) else "up_proj", "down_proj")
        known = any(hasattr(module, name) for name in ("has_gate", "_apply_gate", "identity_expert"))
        shapes = [getattr(module, name, None) for name in names]
        return known and all(isinstance(shape, nn.Parameter) and shape.dim() == 3 for shape in shapes)

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Tokens (N, width), the experts of each (N, k) and their weights (N, k) -> (N, width)."""
        total = torch.zeros_like(hidden, dtype=torch.promote_types(hidden.dtype, torch.float32))
        for number in index.unique().tolist():
            token, place = torch.where(index == number)
            if number < self.count:
                found = self.run(self.expert(number), hidden[token])
            elif hasattr(self, "identity_expert"):
                found = hidden[token]
            else:
                continue  # the mark of "no expert"
            if getattr(self, "has_post_expert_norm", False):
                found = self.post_expert_norm(found)
            total.index_add_(0, token, (found * weights[token, place, None]).to(total.dtype))
        return total.to(hidden.dtype)


class _Stacked(_Routed):
    """Experts whose matrices lie one below the other in one: DBRX."""

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether it is of that class."""
        return type(module).__name__ == "DbrxExperts"

    def split(self) -> None:
        """Take the matrices apart; the last of the three is transposed."""
        self.count, self.act_fn = self.num_experts, self.mlp.activation_fn
        gates, ups, downs = (getattr(self.mlp, name).detach().view(self.count, self.ffn_hidden_size, self.hidden_size)
                             for name in ("w1", "v1", "w2"))
        for number, (gate, up, down) in enumerate(zip(gates, ups, downs, strict=True)):
            expert = nn.Module()
            expert.gate_proj, expert.up_proj, expert.down_proj = linear(gate), linear(up), linear(down.mT)
            self.add_module(str(number), expert)
        del self.mlp

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """As its base class, of tokens (B, T, width)."""
        return super().forward(hidden.reshape(-1, self.hidden_size), index, weights).view(hidden.shape)


class _Sorted(_Split):
    """Experts each of which is given all tokens, those of the others as zeros: Llama 4."""

    is_transposed = True

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether it is of that class."""
        return type(module).__name__ == "Llama4TextExperts"

    def forward(self, hidden: Tensor) -> Tensor:
        """Tokens (experts * N, width), of the first expert first -> (experts * N, width)."""
        found = []
        for number, tokens in enumerate(hidden.view(self.count, -1, hidden.shape[-1])):
            mine = tokens.any(-1)  # what is not scaled to zero; experts without biases give zeros for zeros
            rows = torch.zeros_like(tokens)
            if mine.any():
                rows[mine] = self.run(self.expert(number), tokens[mine])
            found.append(rows)
        return torch.cat(found)


class _Parallel(_Split):
    """One product for each expert, of tokens that are sorted already: JetMoE."""

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether it is of that class."""
        return type(module).__name__.endswith("ParallelExperts")

    def split(self) -> None:
        """Take the parameter apart."""
        matrices, biases = self.take("weight")
        for number, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
            self.add_module(str(number), linear(matrix, bias))

    def forward(self, inputs: Tensor, sizes: Iterable[int]) -> Tensor:
        """Tokens (N, in), of the first expert first, and how many each has -> (N, out)."""
        parts = enumerate(inputs.split(list(sizes)))
        return torch.cat([self.expert(number)(part) if len(part) else part.new_zeros(0, self.output_size)
                          for number, part in parts])


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer of a matrix (out, in), in memory of its own."""
    layer = nn.Linear(*weight.shape[::-1], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
