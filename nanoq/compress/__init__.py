"""The other three roads to a small model: pruning, low rank, distillation; and adapters that heal a rounded one."""

from nanoq.compress.distil import distillation, student_of
from nanoq.compress.driver import Change, add_adapters, compress_model, packing, pruning, thinning
from nanoq.compress.files import load_compressed, save_compressed
from nanoq.compress.layers import AdapterLinear, LowRankLinear, SparseLinear, SparseQuantLinear
from nanoq.compress.lowrank import low_rank, rank_for
from nanoq.compress.prune import SCORES, kept_zeros, magnitude, mask, prune, sparsegpt, wanda
from nanoq.compress.structure import (
    block_influence,
    head_importance,
    head_similarity,
    remove_blocks,
    remove_heads,
    remove_inputs,
    remove_neurons,
)

__all__ = [
    "SCORES", "AdapterLinear", "Change", "LowRankLinear", "SparseLinear", "SparseQuantLinear", "add_adapters",
    "block_influence", "compress_model", "distillation", "head_importance", "head_similarity", "kept_zeros",
    "load_compressed", "low_rank", "magnitude", "mask", "packing", "prune", "pruning", "rank_for", "remove_blocks",
    "remove_heads", "remove_inputs", "remove_neurons", "save_compressed", "sparsegpt", "student_of", "thinning",
    "wanda",
]
