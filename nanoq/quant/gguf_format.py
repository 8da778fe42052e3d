"""Export to GGUF, the file format of llama.cpp: the block types that hold evenly spaced codes, and the file itself.

Each type cuts a row of a weight into blocks of 32 columns, and a block has a float16 scale d:

    Q4_0  18 bytes: d, 16 bytes of nibbles             weight = d * (q - 8)     q in 0..15
    Q4_1  20 bytes: d, float16 m, 16 bytes of nibbles  weight = d * q + m       q in 0..15
    Q5_0  22 bytes: d, 4 bytes of fifth bits, nibbles  weight = d * (q - 16)    q in 0..31
    Q8_0  34 bytes: d, 32 int8                         weight = d * q           q in -128..127

Nibble byte j of a block has column j in its lower four bits and column j + 16 in its upper four. A grid of ours has the
values scale * (code - zero_point): where its groups are made of whole blocks and its scales are float16, the smallest
type with room for all code - zero_point holds it without changing a weight. That is Q4_0 for symmetric grids of up to 4
bits, Q8_0 for those of up to 8, and Q5_0 for asymmetric ones of 4 bits (Q4_1 where float16 happens to hold all minima,
scale * zero_point). No type has the values of another grid.

`nanoq.quant.gguf_model` writes whole models that llama.cpp runs.

Source: `ggml-common.h` and `gguf-py` of llama.cpp.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from nanoq.files import atomic_path
from nanoq.quant.foreign import plain_tensors, quantised_layers
from nanoq.quant.grid import Grid
from nanoq.quant.packing import pack
from nanoq.quant.qlinear import QuantLinear

BLOCK = 32
RANGES = {"Q4_0": (-8, 7), "Q5_0": (-16, 15), "Q8_0": (-128, 127)}  # of code - zero_point


def write_plain_gguf(path: Path | str, model: nn.Module, metadata: dict | None) -> Path:
    """Write any model under its own names; what `export_gguf` does with those that llama.cpp has no architecture for.

    Raises:
        ValueError: as `export_gguf`.
    """
    layers = quantised_layers(model)
    types = {name: block_type(layer) for name, layer in layers.items()}
    if unfit := [name for name, kind in types.items() if kind is None]:
        raise ValueError(
            f"{unfit[0]} cannot be written in GGUF without changing its weights: Q4_0, Q5_0 and Q8_0 are evenly spaced "
            f"values with a float16 scale for {BLOCK} columns; quantise it with symmetric=True, granularity='group' "
            f"and group_size={BLOCK}"
        )
    tensors = [(f"{name}.weight", blocks_of(layer, types[name]), types[name]) for name, layer in layers.items()]
    tensors += [(f"{name}.bias", layer.bias.detach().cpu().numpy(), None) for name, layer in layers.items()
                if layer.bias is not None]
    tensors += [(name, (tensor.float() if tensor.dim() < 2 else tensor).numpy(), None)
                for name, tensor in plain_tensors(model, layers).items()]
    return write_gguf(path, {"general.architecture": "nanoq"} | (metadata or {}), tensors)


def write_gguf(
    path: Path | str, metadata: dict, tensors: Iterable[tuple[str, np.ndarray, str | None]],
    more: Callable | None = None,
) -> Path:
    """Write a file, atomically.

    Args:
        path: of the file.
        metadata: keys and values for the header, "general.architecture" among them.
        tensors: names, arrays, and the block type of arrays of bytes.
        more: is called with the writer of the package gguf, to add what needs types of its own.

    Raises:
        ValueError: if the package gguf is missing, or the metadata has a value of another kind.
    """
    gguf = gguf_package()
    metadata = dict(metadata)
    with atomic_path(path) as temporary:
        writer = gguf.GGUFWriter(temporary, metadata.pop("general.architecture"))
        for key, value in metadata.items():
            writer.add_key_value(key, value, **_value_type(gguf, key, value))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        if more is not None:
            more(writer)
        for name, array, kind in tensors:
            writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType[kind] if kind else None)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(path)


def gguf_package() -> ModuleType:
    """The package of llama.cpp.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise ValueError("writing GGUF needs llama.cpp's package gguf: pip install gguf") from None
    return gguf


def block_type(layer: QuantLinear) -> str | None:
    """The smallest type that holds a layer without changing a weight; None if there is none."""
    grid, n = layer.grid, layer.layout["in_features"]
    whole = n % BLOCK == 0 and (grid.scale.shape[1] == 1 or grid.group_size % BLOCK == 0)
    if grid.codebook is not None or layer.order is not None or not whole or not _is_half(grid.scale):
        return None
    low, high = -int(grid.zero_codes.max()), grid.levels - 1 - int(grid.zero_codes.min())
    kind = next((kind for kind, (first, last) in RANGES.items() if first <= low and high <= last), None)
    if kind != "Q4_0" and grid.levels <= 16 and _is_half(grid.scale * grid.zero_codes):
        return "Q4_1"
    return kind


def _is_half(values: Tensor) -> bool:
    return torch.equal(values.half().float(), values)


def blocks_of(layer: QuantLinear, kind: str) -> np.ndarray:
    """The bytes of a layer's weight (out, in) in a type that `block_type` gave: uint8 (out, bytes of a row)."""
    grid, codes = layer.grid, layer.unpacked().short()  # (out, in)
    parts = [_of_blocks(grid.scale, grid, codes)]
    if kind == "Q4_1":
        parts += [_of_blocks(-grid.scale * grid.zero_codes, grid, codes), _nibbles(codes.unflatten(1, (-1, BLOCK)))]
    else:
        values = (codes - grid.over_columns(grid.zero_codes.short(), codes)).unflatten(1, (-1, BLOCK))
        if kind == "Q8_0":
            parts.append(values.to(torch.int8).view(torch.uint8))
        else:
            values = values - RANGES[kind][0]  # from 0: (out, blocks, 32)
            parts += ([pack(values >> 4, 1)] if kind == "Q5_0" else []) + [_nibbles(values & 15)]
    return torch.cat([part.cpu() for part in parts], dim=2).flatten(1).numpy()


def _nibbles(values: Tensor) -> Tensor:
    """(out, blocks, 32) of 0..15 -> uint8 (out, blocks, 16)."""
    return (values[..., :16] | values[..., 16:] << 4).to(torch.uint8)


def _of_blocks(values: Tensor, grid: Grid, codes: Tensor) -> Tensor:
    """The value of every block, given those of the groups, (rows, groups): float16 as uint8 (out, blocks, 2)."""
    out, blocks = len(codes), codes.shape[1] // BLOCK
    if values.shape[1] > 1:
        values = values.repeat_interleave(grid.group_size // BLOCK, dim=1)[:, :blocks]
    return values.half().expand(out, blocks).contiguous().unsqueeze(2).view(torch.uint8)


def _value_type(gguf: ModuleType, key: str, value: object) -> dict:
    """The GGUF type of a metadata value, as arguments of `GGUFWriter.add_key_value`."""
    kinds = gguf.GGUFValueType
    types = {str: kinds.STRING, bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32}
    items = value if isinstance(value, list) else [value]
    kind = types.get(type(items[0])) if items else None
    alike = kind is not None and all(type(item) is type(items[0]) for item in items)
    if not alike or (kind is kinds.UINT32 and not all(0 <= item < 2**32 for item in items)):
        raise ValueError(f"the metadata '{key}' must be a str, bool, float or int of 0 to 2**32 - 1, or a list of one "
                         f"of them that is not empty, not {value!r}")
    return {"vtype": kinds.ARRAY, "sub_type": kind} if isinstance(value, list) else {"vtype": kind}
