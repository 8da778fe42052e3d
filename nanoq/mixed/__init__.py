"""Mixed precision: how sensitive each layer is, and how many bits it gets."""

from nanoq.mixed.allocate import costs_from_scores, greedy, integer_program, terciles, three_means, total
from nanoq.mixed.metrics import (
    accuracy_drop,
    average_bits,
    compression_ratio,
    footprint_reduction,
    objective,
    perplexity_increase,
)
from nanoq.mixed.similarity import (
    MEASURES,
    Chance,
    Features,
    canonical_correlations,
    chance_level,
    expected_squared_correlation,
    similarity,
    wachter_edge,
)

__all__ = [
    "MEASURES", "Chance", "Features", "accuracy_drop", "average_bits", "canonical_correlations", "chance_level",
    "compression_ratio", "costs_from_scores", "expected_squared_correlation", "footprint_reduction", "greedy",
    "integer_program", "objective", "perplexity_increase", "similarity", "terciles", "three_means", "total",
    "wachter_edge",
]
