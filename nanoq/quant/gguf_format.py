"""Export to GGUF, the file format of llama.cpp, with the block types Q8_0 and Q4_0.

Both cut a row of a weight into blocks of 32 columns, and a block has a float16 scale d:

    Q8_0  34 bytes: d, then 32 int8           weight = d * q         q in -128..127
    Q4_0  18 bytes: d, then 16 bytes          weight = d * (q - 8)   q in 0..15

Byte j of a Q4_0 block has column j in its lower four bits and column j + 16 in its upper four. That is a symmetric grid
of 8 or 4 bits whose zero point is 128 or 8; ours has the codes 1 to 2**bits - 1 of it. So a symmetric grid of 8 or 4
bits whose groups are made of whole blocks is written without changing a weight; of any other grid, no type of llama.cpp
has the values, and it would have to be quantised once more.

Source: `ggml-common.h` and `gguf-py` of llama.cpp.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from nanoq.files import atomic_path
from nanoq.quant.foreign import plain_tensors
from nanoq.quant.gptq_format import is_symmetric, stored_zero_points
from nanoq.quant.grid import Grid
from nanoq.quant.qlinear import QuantLinear

BLOCK = 32
TYPES = {4: "Q4_0", 8: "Q8_0"}


def export_gguf(path: Path | str, model: nn.Module, metadata: dict | None = None) -> Path:
    """Write a model as a GGUF file; the quantised weights keep every bit.

    `QuantLinear` weights are written as Q8_0 or Q4_0. Everything else is rounded to float16; matrices are written as
    F16, vectors such as norms as F32, which llama.cpp expects, and a tied parameter once. Names are written as they
    are: llama.cpp's tools show such a file, but it runs only an architecture that it knows, with the names and metadata
    that it expects for that.

    Args:
        path: of the file, `NAME.gguf`.
        model: with or without `QuantLinear` layers.
        metadata: keys and values for the header: str, bool, int (0 to 2**32 - 1), float, or a list of one of them.
            "general.architecture" is "nanoq" without it.

    Raises:
        ValueError: if the package gguf is missing, a quantised layer is on another grid, a parameter does not fit its
            type, or the metadata has a value of another kind.
    """
    gguf = _gguf()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}
    for name, layer in layers.items():
        _check_layer(name, layer)
    metadata = {"general.architecture": "nanoq"} | (metadata or {})
    plain = plain_tensors(model, layers)
    with atomic_path(path) as temporary:
        writer = gguf.GGUFWriter(temporary, metadata.pop("general.architecture"))
        for key, value in metadata.items():
            writer.add_key_value(key, value, **_value_type(gguf, key, value))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, layer in layers.items():
            writer.add_tensor(f"{name}.weight", _blocks(layer),
                              raw_dtype=gguf.GGMLQuantizationType[TYPES[layer.layout["bits"]]])
            if layer.bias is not None:
                writer.add_tensor(f"{name}.bias", layer.bias.detach().cpu().numpy())
        for name, tensor in plain.items():
            writer.add_tensor(name, (tensor.float() if tensor.dim() < 2 else tensor).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(path)


def _gguf() -> ModuleType:
    try:
        import gguf
    except ImportError:
        raise ValueError("writing GGUF needs llama.cpp's package gguf: pip install gguf") from None
    return gguf


def _check_layer(name: str, layer: QuantLinear) -> None:
    grid, n = layer.grid, layer.layout["in_features"]
    whole = n % BLOCK == 0 and (grid.scale.shape[1] == 1 or grid.group_size % BLOCK == 0)
    exact = torch.equal(grid.scale.half().float(), grid.scale)
    if not (grid.codebook is None and grid.bits in TYPES and is_symmetric(grid) and whole and exact):
        raise ValueError(
            f"{name} cannot be written in GGUF without changing its weights: Q4_0 and Q8_0 are symmetric grids of 4 or "
            f"8 bits with a float16 scale for {BLOCK} columns; quantise it with symmetric=True, granularity='group' "
            f"and group_size={BLOCK}"
        )


def _blocks(layer: QuantLinear) -> np.ndarray:
    """The bytes of a weight (out, in): uint8 (out, bytes of a row)."""
    grid, n = layer.grid, layer.layout["in_features"]
    codes = layer.unpacked().cpu() + stored_zero_points(grid)[1]  # (out, in), around 2**(bits-1)
    blocks = codes.unflatten(1, (-1, BLOCK))  # (out, blocks, 32)
    # code - 128 in two's complement is the code with its highest bit flipped
    stored = blocks ^ 128 if grid.bits == 8 else blocks[..., :16] | blocks[..., 16:] << 4
    scale = _block_scales(grid, len(codes), n).half().cpu().unsqueeze(2).view(torch.uint8)  # (out, blocks, 2)
    return torch.cat([scale, stored], dim=2).flatten(1).numpy()


def _block_scales(grid: Grid, out: int, n: int) -> Tensor:
    """The scale of every block: (out, n / 32)."""
    if grid.scale.shape[1] == 1:
        return grid.scale.expand(out, n // BLOCK).contiguous()
    return grid.scale.repeat_interleave(grid.group_size // BLOCK, dim=1)[:, : n // BLOCK].contiguous()


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
