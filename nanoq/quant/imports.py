"""The quantised checkpoints of other programs that nanoq reads: which one a folder holds, and its importer."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from nanoq.quant.awq_format import QUANT_CONFIG, import_awq
from nanoq.quant.compressed_tensors_format import import_compressed_tensors
from nanoq.quant.gptq_format import QUANTIZE_CONFIG, import_gptq

IMPORTS: dict[str, Callable[[Path, nn.Module], nn.Module]] = {
    "gptq": import_gptq, "awq": import_awq, "compressed-tensors": import_compressed_tensors}
"""By what the configuration calls `quant_method`: fills an unquantised model with what a folder holds."""
CODES = (".qweight", ".weight_packed")  # how the names of tensors of codes end
_OLDER = {QUANTIZE_CONFIG: "gptq", QUANT_CONFIG: "awq"}  # files that name a method where config.json does not


def quant_method(block: object, folder: Path | None) -> str | None:
    """How a model is quantised by its `quantization_config`, or by a file beside it in a folder; None if it is not.

    Raises:
        ValueError: if nanoq does not read it.
    """
    if block is None:
        return next((method for file, method in _OLDER.items() if folder and (folder / file).is_file()), None)
    method = block.get("quant_method") if isinstance(block, dict) else None
    if method not in IMPORTS:
        raise ValueError(f"its quant_method is {method!r:.40}, and nanoq reads {', '.join(IMPORTS)}: load the model "
                         "that it was made from")
    return method
