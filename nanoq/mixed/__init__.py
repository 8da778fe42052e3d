"""Mixed precision: how sensitive each layer is, and how many bits it gets."""

from nanoq.mixed.allocate import cluster_bits, costs_from_scores, greedy, integer_program, quantile_bits, total
from nanoq.mixed.baselines import (
    first_order,
    gptq_error,
    hawq,
    hessian_traces,
    leave_one_in,
    output_mse,
    random_scores,
    weight_mse,
)
from nanoq.mixed.metrics import (
    RankCorrelation,
    average_bits,
    compression_ratio,
    rank_correlation,
)
from nanoq.mixed.parts import parts_of
from nanoq.mixed.recipes import budget_of, mixed_recipe, packed_sizes, recipe_of
from nanoq.mixed.representations import (
    MEASURES,
    Chance,
    Features,
    canonical_correlations,
    chance_level,
    expected_squared_correlation,
    similarity,
    wachter_edge,
)
from nanoq.mixed.sensitivity import cmpq, pmpq, tdmpq

__all__ = [
    "MEASURES", "Chance", "Features", "RankCorrelation", "average_bits", "budget_of", "canonical_correlations",
    "chance_level", "cluster_bits", "cmpq", "compression_ratio", "costs_from_scores", "expected_squared_correlation",
    "first_order", "gptq_error", "greedy", "hawq", "hessian_traces", "integer_program", "leave_one_in", "mixed_recipe",
    "output_mse", "packed_sizes", "parts_of", "pmpq", "quantile_bits", "random_scores", "rank_correlation", "recipe_of",
    "similarity", "tdmpq", "total", "wachter_edge", "weight_mse",
]
