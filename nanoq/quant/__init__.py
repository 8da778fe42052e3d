"""Quantisation: grids, rounding methods, recipes, and the driver that takes a whole model through one."""

from nanoq.quant.activations import (
    QuantizedKVCache,
    StepwiseModel,
    plant_outliers,
    quantized_activations,
    round_activations,
    smooth,
)
from nanoq.quant.calibrate import LayerStats, observe, sample_windows
from nanoq.quant.gguf_format import export_gguf
from nanoq.quant.gptq import dynamic_grid, gptq
from nanoq.quant.gptq_format import export_gptq, import_gptq
from nanoq.quant.grid import Grid, affine_grid, block_grid
from nanoq.quant.kernels import BACKENDS, BackendReport, choose_backend, use_backend
from nanoq.quant.obs import obq, obs_prune
from nanoq.quant.packing import pack, packed_bytes, unpack
from nanoq.quant.qlinear import QuantLinear
from nanoq.quant.quantize import (
    LayerReport,
    linear_layers,
    load_quantized,
    quantize_layer,
    quantize_model,
    save_quantized,
)
from nanoq.quant.recipe import GRIDS, METHODS, LayerSpec, Recipe
from nanoq.quant.rounding import nearest

__all__ = [
    "BACKENDS", "GRIDS", "METHODS", "BackendReport", "Grid", "LayerReport", "LayerSpec", "LayerStats", "QuantLinear",
    "QuantizedKVCache", "Recipe", "StepwiseModel", "affine_grid", "block_grid", "choose_backend", "dynamic_grid",
    "export_gguf", "export_gptq", "gptq", "import_gptq", "linear_layers", "load_quantized", "nearest", "obq",
    "obs_prune", "observe", "pack", "packed_bytes", "plant_outliers", "quantize_layer", "quantize_model",
    "quantized_activations", "round_activations", "sample_windows", "save_quantized", "smooth", "unpack",
    "use_backend",
]
