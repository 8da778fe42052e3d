"""Compression besides quantisation: pruning, low rank, distillation; and adapters that heal a rounded one."""

from nanoq.compress.distil import distillation, distillation_loss, make_student
from nanoq.compress.layers import (
    AdapterLinear,
    LowRankLinear,
    SparseConv2d,
    SparseLinear,
    SparseQuantConv2d,
    SparseQuantLinear,
)
from nanoq.compress.lowrank import low_rank, rank_for
from nanoq.compress.sparsity import SCORES, kept_zeros, magnitude, mask, prune, sparsegpt, wanda
from nanoq.compress.steps import LowRank, Prune, add_adapters, compress_model
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
    "SCORES", "AdapterLinear", "LowRank", "LowRankLinear", "Prune", "SparseConv2d", "SparseLinear", "SparseQuantConv2d",
    "SparseQuantLinear", "add_adapters", "block_influence", "compress_model", "distillation", "distillation_loss",
    "head_importance", "head_similarity", "kept_zeros", "low_rank", "magnitude", "make_student", "mask", "prune",
    "rank_for", "remove_blocks", "remove_heads", "remove_inputs", "remove_neurons", "sparsegpt", "wanda",
]
