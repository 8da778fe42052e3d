"""E8P: 2^16 points of eight numbers, 2 bits for each, near the origin of a shifted E8 lattice (QuIP#, 2402.04396).

A point is a pattern of sizes 1/2, 3/2 and 5/2, with a sign for each, and 1/4 added to all or taken from all. The number
of minus signs is even or odd as the sum of the pattern is, so that seven signs say the eighth. There are 256
patterns: the 227 with a squared length of at most 10, and 29 of length 12, which are those that come first in the order
of their sizes here. A code is pattern << 8 | signs << 1 | shift, signs having bit i for number i of the first seven.

The nearest point has, for a pattern and a shift, the signs of the numbers; where their count is wrong, the one that
costs least is turned. That is tried for all 512.
"""

from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from nanoq.compiled import compiled

SIZE, SCALE = 8, 1.03  # numbers in a point; numbers of variance 1 are multiplied by it: QuIP#'s choice


@cache
def patterns() -> Tensor:
    """The sizes of the 256 patterns, float32 (256, 8)."""
    sizes = sorted((sum(x * x for x in sizes), sizes) for sizes in product((0.5, 1.5, 2.5), repeat=SIZE))
    return torch.tensor([pattern for _, pattern in sizes[:256]])


def e8p_codes(vectors: Tensor) -> Tensor:
    """The codes of the nearest points to vectors (N, 8): int64 (N,)."""
    codes = np.empty(len(vectors), np.int64)
    _nearest(vectors.float().contiguous().numpy(), patterns().numpy(), codes)
    return torch.from_numpy(codes)


def e8p_points(codes: Tensor) -> Tensor:
    """The points of codes (N,): float32 (N, 8)."""
    return _points()[codes.long()]


@cache
def _points() -> Tensor:
    """All points, float32 (2**16, 8)."""
    codes = torch.arange(2**16)
    sizes = patterns()[codes >> 8]
    minus = (codes[:, None] >> torch.arange(1, SIZE)) & 1  # of the first seven
    last = (minus.sum(1) + sizes.sum(1).long()) % 2
    signs = 1 - 2 * torch.cat([minus, last[:, None]], 1)
    return signs * sizes + (codes[:, None] % 2 * 0.5 - 0.25)


@compiled(nogil=True)
def _nearest(vectors, sizes, codes):
    """Fill in the codes int64 (N,) of the nearest points to vectors float32 (N, 8)."""
    count, width = sizes.shape
    odd, half = np.empty(count, np.int64), np.empty(count, np.float32)
    for p in range(count):
        odd[p] = np.int64(sizes[p].sum()) % 2
        half[p] = (sizes[p] * sizes[p]).sum() / 2
    length = np.empty(width, np.float32)
    for i in range(len(vectors)):
        most = -np.inf
        for shift in range(2):
            signs, rest = 0, np.float32(0)
            for j in range(width):
                y = vectors[i, j] - np.float32(shift * 0.5 - 0.25)
                rest += y * y
                length[j] = abs(y)
                signs |= (1 << j) if y < 0 else 0
            parity = 0
            for j in range(width):
                parity ^= signs >> j & 1
            for p in range(count):
                # the scalar product with the point, less half its squared length
                gain, least, turned = -half[p], np.float32(np.inf), 0
                for j in range(width):
                    part = sizes[p, j] * length[j]
                    gain += part
                    if part < least:
                        least, turned = part, j
                wrong = parity != odd[p]
                gain -= 2 * least if wrong else np.float32(0)
                if gain - rest / 2 > most:
                    most = gain - rest / 2
                    found = signs ^ (1 << turned) if wrong else signs
                    codes[i] = p << 8 | (found & 127) << 1 | shift
