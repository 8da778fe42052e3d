"""Quantisation: grids, rounding methods, recipes, and the driver that takes a whole model through one."""

from nanoq.quant.activations import activation_quantization, fake_quantize_activations
from nanoq.quant.awq_format import import_awq
from nanoq.quant.awq_scaling import awq
from nanoq.quant.bound import bits_at_bound, rate_bound
from nanoq.quant.calibrate import LayerStats, observe, sample_windows
from nanoq.quant.compressed_tensors_format import export_compressed_tensors, import_compressed_tensors
from nanoq.quant.embeddings import QuantEmbedding
from nanoq.quant.entropy_grid import entropy_coded_grid
from nanoq.quant.export import check_export, export_model
from nanoq.quant.gguf_model import export_gguf
from nanoq.quant.gptq_format import export_gptq, import_gptq
from nanoq.quant.gptq_method import dynamic_grid, gptq
from nanoq.quant.grid import Grid, affine_grid, block_grid
from nanoq.quant.hadamard import RandomHadamard, hadamard_matrix, hadamard_transform
from nanoq.quant.kernels import BACKENDS, BackendReport, choose_backend, use_backend
from nanoq.quant.kv_cache import QuantizedKVCache, StepwiseModel
from nanoq.quant.layers import linear_layers, weight_matrix
from nanoq.quant.learned_rounding import BlockData, SoftRounding, adaround, brecq
from nanoq.quant.nonuniform import input_kmeans_grid, kmeans_grid, power_law_grid, power_of_two_grid
from nanoq.quant.obs import obq, obs_prune
from nanoq.quant.online import HadamardLinear
from nanoq.quant.outliers import plant_outliers, smoothquant
from nanoq.quant.packing import pack, pack_trits, packed_bytes, trit_bytes, unpack, unpack_trits
from nanoq.quant.qat import FakeQuantizer, convert_qat, fake_quantizers, prepare_qat
from nanoq.quant.qlinear import (
    CodedConv2d,
    CodedLinear,
    QuantConv2d,
    QuantLayer,
    QuantLinear,
    entropy_code,
    entropy_coded,
)
from nanoq.quant.quantize import (
    LayerReport,
    quantize_layer,
    quantize_model,
)
from nanoq.quant.recipe import BLOCK_METHODS, GRIDS, METHODS, Recipe, Round
from nanoq.quant.rotation import rotate
from nanoq.quant.rounding import nearest, refit_scale, unit_gain
from nanoq.quant.searched_grids import hqq_grid, imatrix_grid
from nanoq.quant.ternary import OPERATORS, ternary_grid
from nanoq.quant.tuning import tune
from nanoq.quant.vector import Vector, VectorLinear

__all__ = [
    "BACKENDS", "BLOCK_METHODS", "GRIDS", "METHODS", "OPERATORS", "BackendReport", "BlockData", "CodedConv2d",
    "CodedLinear", "FakeQuantizer", "Grid", "HadamardLinear", "LayerReport", "LayerStats", "QuantConv2d",
    "QuantEmbedding", "QuantLayer", "QuantLinear", "QuantizedKVCache", "RandomHadamard", "Recipe", "Round",
    "SoftRounding", "StepwiseModel", "Vector", "VectorLinear", "activation_quantization", "adaround", "affine_grid",
    "awq", "bits_at_bound", "block_grid", "brecq", "check_export", "choose_backend", "convert_qat", "dynamic_grid",
    "entropy_code", "entropy_coded", "entropy_coded_grid", "export_compressed_tensors", "export_gguf",
    "export_gptq", "export_model", "fake_quantize_activations", "fake_quantizers", "gptq", "hadamard_matrix",
    "hadamard_transform", "hqq_grid", "imatrix_grid", "import_awq", "import_compressed_tensors", "import_gptq",
    "input_kmeans_grid", "kmeans_grid", "linear_layers", "nearest", "obq", "obs_prune", "observe", "pack",
    "pack_trits", "packed_bytes", "plant_outliers", "power_law_grid", "power_of_two_grid", "prepare_qat",
    "quantize_layer", "quantize_model", "rate_bound", "refit_scale", "rotate", "sample_windows", "smoothquant",
    "ternary_grid", "trit_bytes", "tune", "unit_gain", "unpack", "unpack_trits", "use_backend", "weight_matrix",
]
