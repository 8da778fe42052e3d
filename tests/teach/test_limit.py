"""What notebook 09 uses: a walk on a grid without ends, codewords and their bytes, and what is shipped."""

import itertools
import math

import pytest
import torch

from nanoq.quant import LayerStats, affine_grid, gptq
from nanoq.teach import limit
from nanoq.teach.exercises.nb09 import _decode, _huffman
from nanoq.teach.own_file import as_stats


@pytest.fixture
def layer():
    generator = torch.Generator().manual_seed(0)
    weight = 0.1 * torch.randn(40, 24, generator=generator)  # (40, 24)
    inputs = torch.randn(600, 24, generator=generator) @ torch.randn(24, 24, generator=generator)
    return weight, LayerStats.of(inputs).gram


def test_the_walk_on_one_step_is_that_on_equal_steps_and_its_error_is_that_of_the_factor(layer):
    weight, gram = layer
    codes = limit.walk(weight, gram, 0.02)
    assert torch.equal(codes, limit.walk(weight, gram, torch.full((24,), 0.02)))
    factor = limit.factor_of(gram)
    error = limit.row_error(weight, 0.02 * codes, factor)
    assert error == pytest.approx(float(factor.diagonal().square().sum()) * 0.02**2 / 12, rel=0.15)
    nearest = limit.row_error(weight, 0.02 * (weight / 0.02).round(), factor)
    assert error < nearest


def test_the_factor_is_upper_triangular_and_gives_the_damped_hessian(layer):
    _, gram = layer
    factor = limit.factor_of(gram)
    assert torch.equal(factor, factor.triu())
    assert torch.allclose(factor @ factor.T, as_stats(gram).damped(limit.DAMPING).double(), rtol=1e-4)


def test_codes_from_the_zero_point_stand_for_what_gptq_gives(layer):
    weight, gram = layer
    grid = affine_grid(weight, 3)
    values = grid.decode(gptq(weight, grid, as_stats(gram)))
    assert torch.equal(grid.scale * limit.gptq_codes(weight, gram, 3), values)
    assert torch.equal(limit.gptq_values(weight, gram, 3), values)


def test_codes_go_through_codewords_and_bytes_and_come_back():
    codes = (1.5 * torch.randn(60, 30, generator=torch.Generator().manual_seed(1))).round().long()
    counts = limit.counts_of(codes)
    assert sum(counts.values()) == codes.numel()
    words = limit.codewords(_huffman(counts))
    assert not any(b.startswith(a) for a, b in itertools.permutations(words.values(), 2))
    bits = limit.to_bits(codes, words)
    stored = limit.pack_bits(bits)
    assert stored.dtype == torch.uint8 and len(stored) == -(-len(bits) // 8)
    again = _decode(limit.unpack_bits(stored), words)
    assert again[: codes.numel()] == codes.flatten().tolist()


def test_a_row_that_is_shipped_is_found_by_method_and_width():
    gptq_row, rtn_row = limit.shipped("GPTQ", 4), limit.shipped("RTN", 4)
    assert gptq_row["bytes"] == rtn_row["bytes"] and 0 < gptq_row["delta_nats"] < rtn_row["delta_nats"]


@pytest.mark.parametrize(
    ("weight", "step", "said"),
    [(torch.ones(8), 0.1, r"a weight matrix \(out, in\) is needed"),
     (torch.ones(2, 7), 0.1, "statistics of 8 inputs do not fit"),
     (torch.full((2, 8), math.nan), 0.1, "NaN"), (torch.ones(2, 8), 0.0, "a step is above 0, not 0")],
)  # fmt: skip
def test_what_cannot_be_walked_is_named(weight, step, said):
    with pytest.raises(ValueError, match=said):
        limit.walk(weight, torch.eye(8), step)
