"""Embedding tables and the head as packed codes: what a model has outside its blocks.

A small language model may have half of its parameters there. Tables are on symmetric grids, rounded to nearest: with a
scale for each row at 8 bits, which costs next to nothing, and for 32 columns at 4 bits. The types Q8_0 and Q4_0 of
llama.cpp hold the same numbers. `data/results/smollm2.csv` has what was measured.
"""

import math
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.quant.grid import Grid, affine_grid
from nanoq.quant.packing import packed_bytes, unpack
from nanoq.quant.qlinear import FLOATS_IN_FILES, QuantLinear, check_tensors, entry, rows_of
from nanoq.store import LAYERS, naming

WIDTHS = (16, 8, 4)  # bits that the tables and the head of a model may have; 16 is float16
GROUP = 32  # columns that share a scale at 4 bits: with one for a row SmolLM2 loses three times as much
FEWEST_ROWS = 64  # of a table that is packed: the others, as of token types, are too small to matter
ROWS = 2**12  # of a table that are rounded at once
TABLE, HEAD = "embedding", "head"  # kinds of layouts


class QuantEmbedding(QuantLinear):
    """An embedding table as packed codes; a lookup decodes the rows that it is asked for, and no others.

    `TiedHead` multiplies by the same codes.
    """

    def __init__(self, layout: dict, tensors: dict[str, Tensor | None]):
        super().__init__(layout, tensors)
        self.dtype = torch.float32  # of the rows that it gives

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (...) -> the rows of the table (..., width), in the type that the model computes in."""
        rows = tokens.flatten().long()  # and none is counted from the end, as an index would be
        codes = unpack(self.codes.index_select(0, rows), self.layout["bits"], self.embedding_dim)
        scale = self.scale.index_select(0, rows).float()
        grid = Grid(self.layout["bits"], self.layout["levels"], scale, self.layout["group_size"])
        return (grid.decode(codes) * self.layout["factor"]).to(self.dtype).view(*tokens.shape, self.embedding_dim)

    @property
    def weight(self) -> Tensor:
        """The table (rows, width), made anew in every call, in the type that the model computes in."""
        return self.dequantize().to(self.dtype)

    @property
    def num_embeddings(self) -> int:
        """Rows of the table, by the name that `nn.Embedding` gives them."""
        return self.weight_shape[0]

    @property
    def embedding_dim(self) -> int:
        """Columns of the table, by the name that `nn.Embedding` gives them."""
        return self.weight_shape[1]

    def stand_in(self, model: nn.Module, weight: nn.Parameter) -> None:
        """Take the place of every table of a model that has this weight, and of the heads that are tied to it."""
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module._parameters.get("weight") is weight:
                tied = None if isinstance(module, nn.Embedding) else TiedHead(self, module.bias)
                model.set_submodule(name, tied or self)

    def _apply(self, fn, recurse=True) -> Self:
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self


class QuantHead(QuantLinear):
    """A head with a weight of its own, as packed codes."""


class TiedHead(nn.Module):
    """A head whose weight is an embedding table: the product with the codes of that, and a bias of its own.

    Args:
        table: the packed table.
        bias: (rows,), or None.
    """

    def __init__(self, table: QuantEmbedding, bias: nn.Parameter | None = None):
        super().__init__()
        self.__dict__["table"] = table  # no module of this one: it has its place in the model
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The weight (out, in), made anew in every call."""
        return self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x."""
        y = QuantLinear.forward(self.table, x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


HEADS = (QuantHead, TiedHead)  # which are linear layers in the model that they were made of


def tables_of(model: nn.Module) -> dict[str, nn.Embedding]:
    """The tables outside a model's blocks that can be packed, by name; of those that share a weight the first.

    Tables of positions are among them. Those of a class of its own that looks up something else than it is asked for,
    as OPT's positions do, are not.
    """
    within, sharing = set(model.blocks.modules()), {}
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and table not in within and len(table.weight) >= FEWEST_ROWS:
            sharing.setdefault(id(table.weight), {})[name] = table
    alike = [tables for tables in sharing.values() if len({factor_of(table) for table in tables.values()}) == 1]
    return {name: table for name, table in (next(iter(tables.items())) for tables in alike)
            if factor_of(table) is not None}


def factor_of(table: nn.Embedding) -> float | None:
    """What a lookup multiplies its rows by, as Gemma's does; None if it does something else with them."""
    factor = float(getattr(table, "embed_scale", 1.0))
    if table.max_norm is not None:
        return None
    ends = torch.tensor([0, len(table.weight) - 1], device=table.weight.device)
    try:
        found = table(ends)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None
    return factor if torch.equal(found, F.embedding(ends, table.weight).to(found.dtype) * factor) else None


def untied_head(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """The name and the layer of a head with a weight of its own, where a model has one outside its blocks."""
    inner = getattr(model, "model", model)
    own = getattr(model, "unembedding", None)  # of a GPT
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else own
    tied = isinstance(head, nn.Linear) and any(head.weight is table.weight for table in model.modules()
                                               if isinstance(table, nn.Embedding))
    if not isinstance(head, nn.Linear) or tied or len(head.weight) < FEWEST_ROWS or head in set(model.blocks.modules()):
        return None
    return next(name for name, module in model.named_modules() if module is head), head


@torch.no_grad()
def usual_width(model: nn.Module) -> int:
    """Bits of the tables where nobody asks for others: 8 for a causal language model of transformers, 16 otherwise.

    The tables of SmolLM2 and of `opt-tales` lose nothing by 8 bits (data/results/smollm2.csv and opt_tales.csv); those
    of encoders were not measured, and a GPT of nanoq has a few dozen rows.
    """
    return 8 if getattr(model, "kind", None) == "causal-lm" else 16


def pack_tables(model: nn.Module, bits: int) -> None:
    """Pack the embedding tables and the head of a model, in place, by rounding to nearest; tied ones stay tied.

    Args:
        model: has `blocks`, which are left alone.
        bits: 8 or 4.

    Raises:
        ValueError: if a weight holds NaN, by its name.
    """
    head = untied_head(model)
    for name, table in tables_of(model).items():
        with naming(name):
            packed_table(table, bits).stand_in(model, table.weight)
    if head:
        name, layer = head
        with naming(name):
            model.set_submodule(name, packed_head(layer.weight, layer.bias, bits))


def packed_table(table: nn.Embedding, bits: int, weight: Tensor | None = None) -> QuantEmbedding:
    """One table, packed; its weight (rows, width) is another one than it has, if that is given.

    Raises:
        ValueError: if it holds NaN.
    """
    codes, grid = _rounded(table.weight if weight is None else weight, bits)
    packed = QuantEmbedding.from_codes(codes, grid, kind=TABLE, factor=factor_of(table))
    packed.dtype = table.weight.dtype if weight is None else torch.float32
    return packed


def packed_head(weight: Tensor, bias: Tensor | None, bits: int) -> QuantHead:
    """A head of a weight (out, in) and a bias (out,), packed.

    Raises:
        ValueError: if the weight holds NaN.
    """
    return QuantHead.from_codes(*_rounded(weight, bits), bias, kind=HEAD)


def _rounded(weight: Tensor, bits: int) -> tuple[Tensor, Grid]:
    """The nearest codes of a table or a head (rows, columns), and their grid; a part of the rows is widened at once."""
    groups = {} if bits == 8 else {"granularity": "group", "group_size": GROUP}
    codes, scales = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device), []
    for start in range(0, len(weight), ROWS):
        rows = weight[start:start + ROWS].float()
        grid = affine_grid(rows, bits, symmetric=True, **groups)
        codes[start:start + ROWS] = grid.encode(rows)
        scales.append(grid.scale)
    return codes, replace(grid, scale=torch.cat(scales))


def packed_tables(model: nn.Module) -> dict[str, QuantEmbedding | QuantHead]:
    """What `pack_tables` put into a model, by name; a table that is tied to others once."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (QuantEmbedding, QuantHead))}


# ---- from a file ----


def _restored_table(layout: dict, tensors: dict[str, Tensor]) -> QuantEmbedding:
    """The packed table of a layout and its tensors.

    Raises:
        ValueError: if they do not fit together.
    """
    if not isinstance(layout.get("factor"), float) or not math.isfinite(layout["factor"]):
        raise ValueError(f"its 'factor' must be a finite number, not {layout.get('factor')!r:.40}")
    check_tensors(tensors, _expected(layout, tensors))
    return QuantEmbedding(layout, tensors)


def _restored_head(layout: dict, tensors: dict[str, Tensor]) -> QuantHead:
    """The same of a head."""
    bias = {"bias": (FLOATS_IN_FILES, (rows_of(tensors, "codes"),))} if "bias" in tensors else {}
    check_tensors(tensors, _expected(layout, tensors) | bias)
    return QuantHead(layout, tensors)


def _expected(layout: dict, tensors: dict[str, Tensor]) -> dict[str, tuple]:
    """Type and shape that codes and scales have to have."""
    rows, n, bits = rows_of(tensors, "codes"), entry(layout, "in_features"), entry(layout, "bits", 8)
    if bits not in WIDTHS or layout.get("levels") != 2**bits - 1:
        raise ValueError(f"a table is on a symmetric grid of 8 or 4 bits, not of {layout.get('levels')!r:.40} levels")
    return {"codes": (torch.uint8, (rows, packed_bytes(n, bits))),
            "scale": (FLOATS_IN_FILES, (rows, -(-n // entry(layout, "group_size"))))}


LAYERS[TABLE], LAYERS[HEAD] = _restored_table, _restored_head
