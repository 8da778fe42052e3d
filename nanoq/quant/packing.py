"""Small integers in as few bytes as they need.

Layout: a row of codes is a stream of bits. Code i takes the bits i * bits to (i + 1) * bits - 1 of the stream, its
lowest bit first, and bit k of the stream is bit k % 8 (of value 2 ** (k % 8)) of byte k // 8: little-endian
throughout. Every row starts at a byte, and its last byte is filled with zeros.

Codes of three values need log2(3) = 1.585 bits. Five of them share a byte, as the digits of a number to base 3 with the
first as its lowest: 3**5 = 243 of 256 values in use, 1.6 bits a code.
"""

import math

import torch
from torch import Tensor

_AT_ONCE = 2**22  # codes of a matrix that are widened to 64 bits while they are packed


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that one row of `count` codes takes."""
    return math.ceil(count * bits / 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes in 0..2**bits-1 along the last dimension: int (..., n) -> uint8 (..., packed_bytes(n, bits)).

    Raises:
        ValueError: if bits is not in 1..8 or a code does not fit.
    """
    per_word, word_bytes = _word(bits)
    if codes.is_floating_point():
        raise ValueError(f"codes must be integers, not {codes.dtype}")
    if codes.dim() == 2 and codes.shape[0] > 1 and codes.numel() > _AT_ONCE:
        return torch.cat([pack(rows, bits) for rows in codes.split(max(1, _AT_ONCE // codes.shape[1]))])
    codes = codes.long()  # a narrow type could not be compared with 2**bits
    if codes.numel() and (codes.min() < 0 or codes.max() >= 2**bits):
        raise ValueError(f"codes must lie in 0..{2**bits - 1}, not {int(codes.min())}..{int(codes.max())}")
    n = codes.shape[-1]
    words = torch.nn.functional.pad(codes, (0, -n % per_word)).unflatten(-1, (-1, per_word))
    words = (words << _shifts(per_word, bits, codes)).sum(-1, keepdim=True)  # (..., words, 1)
    packed = (words >> _shifts(word_bytes, 8, codes)) & 255  # (..., words, word_bytes)
    return packed.to(torch.uint8).flatten(-2)[..., : packed_bytes(n, bits)].contiguous()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes of each row: uint8 (..., packed_bytes(count, bits)) -> uint8 (..., count).

    Raises:
        ValueError: if bits is not in 1..8 or the rows have another length than `count` codes take.
    """
    per_word, word_bytes = _word(bits)
    if packed.dtype != torch.uint8 or packed.shape[-1] != packed_bytes(count, bits):
        raise ValueError(
            f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes of uint8 a row, "
            f"not {packed.shape[-1]} of {packed.dtype}"
        )
    words = torch.nn.functional.pad(packed, (0, -packed.shape[-1] % word_bytes)).unflatten(-1, (-1, word_bytes))
    if word_bytes > 1:  # the narrowest type that holds a word: unpacking is all that a small layer's time goes into
        words = words.to(torch.int32 if word_bytes < 4 else torch.int64)
        words = (words << _shifts(word_bytes, 8, words)).sum(-1, keepdim=True, dtype=words.dtype)  # (..., words, 1)
    codes = (words >> _shifts(per_word, bits, words)) & (2**bits - 1)  # (..., words, per_word)
    return codes.to(torch.uint8).flatten(-2)[..., :count]


TRITS = 5  # in a byte


def trit_bytes(count: int) -> int:
    """Bytes that one row of `count` codes of three values takes."""
    return math.ceil(count / TRITS)


def pack_trits(codes: Tensor) -> Tensor:
    """Pack codes in 0..2 along the last dimension: int (..., n) -> uint8 (..., trit_bytes(n)).

    Raises:
        ValueError: if a code is another number.
    """
    if codes.is_floating_point() or (codes.numel() and (codes.min() < 0 or codes.max() > 2)):
        raise ValueError("codes must be the integers 0, 1 and 2")
    digits = torch.nn.functional.pad(codes.long(), (0, -codes.shape[-1] % TRITS)).unflatten(-1, (-1, TRITS))
    return (digits * 3 ** torch.arange(TRITS, device=codes.device)).sum(-1).to(torch.uint8)


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes of each row: uint8 (..., trit_bytes(count)) -> uint8 (..., count).

    Raises:
        ValueError: if the rows have another length than `count` codes take, or a byte is none that `pack_trits` writes.
    """
    if packed.dtype != torch.uint8 or packed.shape[-1] != trit_bytes(count):
        raise ValueError(f"{count} codes of three values take {trit_bytes(count)} bytes of uint8 a row, "
                         f"not {packed.shape[-1]} of {packed.dtype}")
    if packed.numel() and packed.max() >= 3**TRITS:
        raise ValueError(f"a byte of {TRITS} codes of three values is less than {3**TRITS}, not {int(packed.max())}")
    digits = torch.arange(3**TRITS)[:, None] // 3 ** torch.arange(TRITS) % 3  # (243, 5): what each byte stands for
    return digits.to(packed).index_select(0, packed.flatten().int()).view(
        *packed.shape[:-1], packed.shape[-1] * TRITS)[..., :count]


def _word(bits: int) -> tuple[int, int]:
    """The smallest group of codes that fills whole bytes: (codes, bytes), (8, 3) for 3 bits."""
    if bits not in range(1, 9):
        raise ValueError(f"bits must be in 1..8, not {bits!r}")
    common = math.gcd(bits, 8)
    return 8 // common, bits // common


def _shifts(count: int, bits: int, like: Tensor) -> Tensor:
    return bits * torch.arange(count, dtype=like.dtype, device=like.device)
