"""Import of AWQ checkpoints, version "gemm", which AutoAWQ and llm-awq's successors write.

A layer NAME with a weight (out, in) of 4 bits is three tensors, and NAME.bias if it has one:

    NAME.qweight  int32 (in, out / 8)      codes; a row holds those of one input
    NAME.qzeros   int32 (groups, out / 8)  zero points; a row holds those of one group of inputs
    NAME.scales   float16 (groups, out)
    weight[o, i] = scales[g, o] * (code[i, o] - zero_point[g, o]),  g = i // (in / groups)

A word holds eight neighbouring outputs, but not in their order: nibble i, the lowest first, is output 0, 2, 4, 6, 1, 3,
5 or 7 of the eight, which is what the kernel wants to unpack two by two. Zero points are stored as they are.

Source: `awq/modules/linear/gemm.py` and `awq/utils/packing_utils.py` of AutoAWQ 0.2.9.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nanoq.quant.foreign import checked_bias, fill, read_json, read_tensors, source_of
from nanoq.quant.grid import Grid
from nanoq.quant.packing import unpack
from nanoq.quant.qlinear import QuantLinear
from nanoq.store import Checkpoint

BITS, WORD = 4, 8  # codes in a word
NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)  # the output that each nibble of a word belongs to
FIELDS = {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16}
QUANT_CONFIG = "quant_config.json"  # beside the weights in files from before transformers read the format


def import_awq(folder: Path | str, model: Checkpoint | nn.Module) -> Checkpoint | nn.Module:
    """Load an AWQ checkpoint into a model: its quantised layers become `QuantLinear`, in place.

    The weights are those of the file, bit for bit in float32.

    Args:
        folder: has a `config.json` with a `quantization_config`, or `quant_config.json`, and safetensors files.
        model: not quantised, of the structure that was exported.

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or of another format, or a tensor does not fit the model. After an error the
            model may have some of the file's values: make it again.
    """
    folder = Path(folder)
    group_size = _group_size(folder)
    decode = partial(_decode_layer, group_size=group_size)
    fill(source_of(model).model, folder, read_tensors(folder, "an AWQ"), tuple(FIELDS), decode)
    return model


def _group_size(folder: Path) -> int:
    """Inputs in a group, -1 for all of them, when the configuration is of this format."""
    block = None
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        block = config.get("quantization_config") if isinstance(config, dict) else config
    if block is None and (folder / QUANT_CONFIG).is_file():
        block = read_json(folder / QUANT_CONFIG)
    if block is None:
        raise FileNotFoundError(f"no config.json with a quantization_config, and no {QUANT_CONFIG}, in {folder}: "
                                "give the folder of an AWQ checkpoint")
    block = block if isinstance(block, dict) else {}
    found = (block.get("quant_method", "awq"), str(block.get("version", "gemm")).lower(),
             block.get("bits", block.get("w_bit")), block.get("zero_point", True))
    if found != ("awq", "gemm", BITS, True):
        raise ValueError(f"{folder} is a checkpoint of method '{found[0]!s:.40}', version '{found[1]:.40}', "
                         f"{found[2]!r:.40} bits, zero_point {found[3]!r:.40}, not of method 'awq', version 'gemm', 4 "
                         "bits, zero_point True: convert it with AutoAWQ")
    size = block.get("group_size", block.get("q_group_size"))
    if type(size) is not int or (size != -1 and size < 1):
        raise ValueError(f"the configuration in {folder} has the group size {size!r:.40}: it must be -1 or a whole "
                         "number of at least 1")
    return size


def _decode_layer(own: dict[str, Tensor | None], linear: nn.Linear, group_size: int) -> QuantLinear:
    """The layer that the tensors of one layer stand for."""
    out, n = linear.weight.shape
    for field, dtype in FIELDS.items():
        if own[field] is None or own[field].dtype != dtype:
            raise ValueError(f"'{field}' is missing or not {str(dtype).removeprefix('torch.')}: the checkpoint is "
                             "incomplete or of another format")
    size = n if group_size == -1 else group_size
    groups = -(-n // size)
    expected = {"qweight": (n, out // WORD), "qzeros": (groups, out // WORD), "scales": (groups, out)}
    found = {field: tuple(own[field].shape) for field in expected}
    if found != expected or out % WORD or n % size:
        raise ValueError(f"the shapes {found} are not those of a weight of {out} x {n} in groups of {size}: the "
                         "checkpoint belongs to another model, or is damaged")
    if not own["scales"].isfinite().all():
        raise ValueError("the scales hold NaN or infinity: the checkpoint is damaged")
    scale, zero = own["scales"].T.float().contiguous(), _codes(own["qzeros"]).T.float().contiguous()
    grid = Grid(BITS, 2**BITS, scale, size, zero)
    return QuantLinear.from_codes(_codes(own["qweight"]).T, grid, checked_bias(own["bias"], linear))


def _codes(words: Tensor) -> Tensor:
    """Words int32 (rows, out / 8) -> uint8 codes (rows, out), the outputs in their order."""
    stream = words.contiguous().view(torch.uint8)
    nibbles = unpack(stream, BITS, 2 * stream.shape[1]).unflatten(1, (-1, WORD))  # (rows, words, 8)
    return nibbles[..., torch.tensor(NIBBLES).argsort()].flatten(1)
