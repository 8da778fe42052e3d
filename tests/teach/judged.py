"""Answers that a learner may give, and what a check should think of them.

Under the name of its exercise each answer has a line, or more that are further in, with the verdict first: `right`;
`form`, right values that the check says how to return; `known`, wrong in a way that has a hint of its own; `wrong`;
`missing`, not attempted. An answer is an expression, in which the functions and modules of this file may be used.
"""

import functools
import itertools
import math
import operator
import statistics
import struct
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["F", "Fraction", "functools", "itertools", "math", "nn", "np", "operator", "statistics", "struct"]


class Tagged(torch.Tensor):
    """A subclass of Tensor."""


def prints_levels(bits):
    """Forgets to return."""
    print(2**bits)


def levels_unreturned(bits):
    """Forgets to return."""
    answer = 2**bits  # noqa: F841


def levels_by_counting(bits):
    """A loop."""
    count = 1
    for _ in range(bits):
        count += count
    return count


def levels_of_some(bits):
    """Misses a branch."""
    if bits < 8:
        return 2**bits


def levels_to_come(bits):
    """Only a docstring, and a name."""
    answer = ...  # noqa: F841


def bytes_by_counting(weights, bits):
    """A loop."""
    full, rest = divmod(weights * bits, 8)
    return full + 1 if rest else full


def scale_by_loop(weight):
    """A loop over all values."""
    largest = 0.0
    for value in weight.flatten().tolist():
        largest = max(largest, abs(value))
    return largest / 127


def signed_by_loop(digits):
    """A loop over digits."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        total += int(digit) * 2**place * (-1 if place == len(digits) - 1 else 1)
    return total


def wrap_by_loop(total, bits):
    """Steps around the circle."""
    while total >= 2 ** (bits - 1):
        total -= 2**bits
    while total < -(2 ** (bits - 1)):
        total += 2**bits
    return total


def decode_by_struct(pattern):
    """What Python's own reader says."""
    return struct.unpack("<e", struct.pack("<H", pattern))[0]


def decode_without_last_return(pattern):
    """The last return is forgotten."""
    value = decode_by_struct(pattern)
    if value != value or abs(value) == math.inf:
        return value


def decode_nan_as_text(pattern):
    """nan is a string."""
    value = decode_by_struct(pattern)
    return "nan" if value != value else value


def gap_by_search(mantissa):
    """Tries integers."""
    n = 1
    while float(n) == math.ldexp(int(math.ldexp(math.frexp(n)[0], mantissa + 1)), math.frexp(n)[1] - mantissa - 1):
        n += 1
    return n


def largest_by_list(exponent, mantissa, specials):
    """All values, and the largest."""
    bias, values = 2 ** (exponent - 1) - 1, []
    for field in range(1, 2**exponent):
        for fraction in range(2**mantissa):
            if specials == "ieee" and field == 2**exponent - 1:
                continue
            if specials == "fn" and field == 2**exponent - 1 and fraction == 2**mantissa - 1:
                continue
            values.append(2.0 ** (field - bias) * (1 + fraction / 2**mantissa))
    return max(values)


def stuck_for_ever(term, fraction_bits):
    """Begins at 0, and stays there."""
    power = 0.0
    while term > power * 2.0**-fraction_bits / 2:
        power *= 2
    return power


def stuck_by_log(term, fraction_bits):
    """No loop."""
    return 2.0 ** math.ceil(math.log2(term) + fraction_bits + 1)


def stuck_too_long(term, fraction_bits):
    """The condition of the text, with both halves."""
    power = 2.0**-60
    while power < term or power * 2.0**-fraction_bits < 2 * term:
        power *= 2
    return power


def kahan_of_floats(terms, small):
    """Python's floats between the roundings."""
    total = lost = 0.0
    for term in terms.tolist():
        term = float(small(torch.tensor(term - lost)))
        new = float(small(torch.tensor(total + term)))
        lost = float(small(torch.tensor(float(small(torch.tensor(new - total))) - term)))
        total = new
    return total


def kahan_rounded_less(terms, small):
    """The growth is not rounded."""
    total = lost = torch.tensor(0.0)
    for term in terms:
        term = small(term - lost)
        new = small(total + term)
        lost = small((new - total) - term)
        total = new
    return float(total)


def slips_by_loop(matrix, claimed):
    """A list of the right values."""
    return [round(x) != c for x, c in zip(matrix.flatten().tolist(), claimed.flatten().tolist(), strict=True)]


def slips_by_rows(matrix, claimed):
    """Nested lists of the right values."""
    if matrix.dim() == 1:
        return slips_by_loop(matrix, claimed)
    return [slips_by_loop(*pair) for pair in zip(matrix, claimed, strict=True)]


def losses_by_loop(before, after):
    """Counts one by one."""
    over = under = 0
    for x, y in zip(before.flatten().tolist(), after.flatten().tolist(), strict=True):
        over += math.isfinite(x) and not math.isfinite(y)
        under += x != 0 and y == 0
    return over, under


def last_scale(overflowed, scale, patience):
    """A while loop."""
    good, steps = 0, list(overflowed)
    while steps:
        if steps.pop(0):
            scale, good = scale / 2, 0
        elif good + 1 == patience:
            scale, good = scale * 2, 0
        else:
            good += 1
    return scale


def mask_by_loop(T):
    """Nested lists."""
    return [[s <= t for s in range(T)] for t in range(T)]


def attention_by_loop(q, k):
    """Row by row."""
    rows = []
    for t in range(len(q)):
        scores = (q[t] @ k[: t + 1].T) / math.sqrt(q.shape[1])
        rows.append(F.pad(scores.softmax(0), (0, len(q) - t - 1)))
    return torch.stack(rows)


def attention_by_numpy(q, k):
    """Arrays."""
    scores = q.numpy() @ k.numpy().T / np.sqrt(q.shape[1])
    scores[np.triu_indices(len(q), 1)] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def positions_by_loop(prompt, new, cached):
    """Counts."""
    total, text = 0, prompt
    for step in range(new):
        total += (prompt if step == 0 else 1) if cached else text
        text += 1
    return total


def positions_to_come(prompt, new, cached):
    """One branch is still to be written."""
    if cached:
        return ...
    return positions_by_loop(prompt, new, cached)


def positions_without_cache(prompt, new, cached):
    """Misses the other branch."""
    if not cached:
        return new * prompt + new * (new - 1) // 2


def keep_with_numbers(logits, k):
    """-1e9 in place of minus infinity."""
    kept = torch.full_like(logits, -1e9)
    places = logits.topk(k).indices
    kept[places] = logits[places]
    return kept


def keep_in_place(logits, k):
    """Changes its argument."""
    logits[logits < logits.topk(k).values[-1]] = -math.inf
    return logits


def best_share_by_loop(weight, bits, shares=None, top=None):
    """The search with a loop."""
    qmax = top or 2 ** (bits - 1) - 1
    best, least = None, math.inf
    for share in torch.linspace(1, 0.2, 81) if shares is None else shares:
        scale = share * weight.abs().max() / qmax
        error = ((weight / scale).round().clamp(-qmax, qmax) * scale - weight).square().mean()
        if error < least:
            best, least = share, error
    return float(best)


def best_share_index(weight, bits):
    """The place in place of the share."""
    shares = torch.linspace(1, 0.2, 81).tolist()
    return min(range(81), key=lambda i: abs(shares[i] - best_share_by_loop(weight, bits)))


def pack_by_loop(codes):
    """A list of bytes."""
    return [int(codes[i]) + 16 * int(codes[i + 1]) for i in range(0, len(codes), 2)]


def average_by_groups(columns, bits, group_size):
    """Adds up the groups."""
    total = 0
    for first in range(0, columns, group_size):
        total += min(group_size, columns - first) * bits + 16 + bits
    return total / columns


def wanda_by_sorting(weight, inputs, sparsity):
    """Cuts the lowest of each row."""
    scores = weight.abs() * inputs.square().sum(0).sqrt()
    mask = torch.ones_like(scores, dtype=torch.bool)
    cut = round(sparsity * weight.shape[1])
    for row, order in enumerate(scores.argsort(1)):
        mask[row, order[:cut]] = False
    return mask


def two_of_four_by_loop(weight):
    """Group by group."""
    result = weight.clone()
    for row in result:
        for first in range(0, len(row), 4):
            row[first : first + 4][row[first : first + 4].abs().argsort()[:2]] = 0
    return result


def break_even_by_search(out, width):
    """Tries ranks."""
    rank = 0
    while (rank + 1) * (out + width) < out * width:
        rank += 1
    return rank


def whitened_by_roots(weight, gram, rank):
    """The symmetric root of the Gram matrix in place of Cholesky's factor."""
    values, vectors = torch.linalg.eigh(gram)
    root = vectors * values.sqrt() @ vectors.T
    u, s, vt = torch.linalg.svd(weight @ root)
    return u[:, :rank] @ torch.diag(s[:rank]) @ vt[:rank] @ torch.linalg.inv(root)


def fisher_by_loop(change, gradient):
    """Picture by picture."""
    return sum(float(((c * g) ** 2).sum()) for c, g in zip(change, gradient, strict=True)) / len(change)


def floor_by_trial(step):
    """Monte Carlo."""
    x = np.random.default_rng(0).random(4_000_000) * step
    return float(-x.mean()), float((x**2).mean())


def matched_by_hand(weight, bits):
    """The step of the range, in float32."""
    low, high = weight.amin(1, keepdim=True).clamp(max=0), weight.amax(1, keepdim=True).clamp(min=0)
    return (high - low) / (2**bits - 1) / math.sqrt(12)


def group_size_by_loop(bits, budget):
    """Doubles."""
    group = 1
    while (16 + bits) / group > budget:
        group *= 2
    return group


def group_size_below(bits, budget):
    """Strictly less."""
    group = 1
    while (16 + bits) / group >= budget:
        group *= 2
    return group


def widths_of_three(labels, scores, bits):
    """Counts on three clusters."""
    mean = [sum(s for s, c in zip(scores, labels, strict=True) if c == i) / labels.count(i) for i in range(3)]
    order = sorted(range(3), key=lambda i: -mean[i])
    return [sorted(bits)[::-1][order.index(c)] for c in labels]


def swapped_in_by_another(replace, model, name):
    """Looks whether a layer of other weights changes the output."""
    old = model.get_submodule(name)
    before = model(torch.ones(1, 4))
    replace(model, name, nn.Linear(old.in_features, old.out_features))
    return not torch.equal(before, model(torch.ones(1, 4)))


TABLE = r"""
levels
  right   lambda bits: 1 << bits
  right   lambda bits: pow(2, bits)
  right   lambda bits: 2.0**bits
  right   lambda bits: math.exp(bits * math.log(2))
  right   lambda bits: len(list(itertools.product("01", repeat=bits)))
  right   lambda bits: torch.tensor(2) ** bits
  right   lambda bits: np.power(2, bits)
  right   lambda bits: np.exp2(bits)
  right   lambda bits: int("1" + "0" * bits, 2)
  right   levels_by_counting
  right   functools.partial(operator.pow, 2)
  form    lambda bits: [2**bits]
  known   lambda bits: bits * 2
  known   lambda bits: bits**2
  known   lambda bits: 2**bits - 1
  known   lambda bits: 2 ^ bits
  wrong   lambda bits: 2 ** (bits + 1)
  wrong   lambda bits: 10**bits
  wrong   lambda bits: bits
  wrong   lambda bits: 256
  wrong   lambda bits: str(2**bits)
  wrong   lambda bits: 2**bit
  wrong   lambda: 8
  wrong   prints_levels
  wrong   levels_unreturned
  wrong   levels_of_some
  wrong   4
  wrong   "2**bits"
  missing levels_to_come
  missing lambda bits: ...
  missing None

bytes of start here
  right   bytes_by_counting
  right   lambda weights, bits: math.ceil(weights * bits / 8)
  right   lambda weights, bits: -(-weights * bits // 8)
  right   lambda weights, bits: (weights * bits + 7) // 8
  right   lambda weights, bits: np.ceil(weights * bits / 8)
  right   lambda weights, bits: torch.ceil(torch.tensor(weights * bits / 8))
  right   lambda weights, bits: len(range(0, weights * bits, 8))
  known   lambda weights, bits: weights * bits
  known   lambda weights, bits: weights * bits / 8
  known   lambda weights, bits: weights * bits // 8
  known   lambda weights, bits: int(weights * bits / 8)
  known   lambda weights, bits: round(weights * bits / 8)
  wrong   lambda weights, bits: weights * bits // 8 + 1
  wrong   lambda weights, bits: weights * bits / 1024
  wrong   lambda weights, bits: math.ceil(weights / 8) * bits
  wrong   lambda weights, bits: print(math.ceil(weights * bits / 8))

gpt3
  right   350
  right   350.0
  right   175e9 * 2 / 1e9
  right   np.float32(350)
  right   torch.tensor(350.0)
  right   Fraction(350)
  known   700
  known   175
  known   350e9
  wrong   0
  wrong   35
  wrong   "350"
  wrong   "350 GB"
  wrong   -350
  wrong   87.5
  wrong   350e6
  wrong   float("nan")
  missing ...

scale
  right   scale_by_loop
  right   lambda weight: weight.abs().max() / 127
  right   lambda weight: max(weight.max(), -weight.min()) / 127
  right   lambda weight: float(weight.abs().max()) / 127
  right   lambda weight: np.abs(weight.numpy()).max() / 127
  right   lambda weight: torch.linalg.vector_norm(weight, torch.inf) / 127
  right   lambda weight: (weight.abs().max() / 127).reshape(1)
  right   lambda weight: nn.Parameter(weight.abs().max() / 127)
  right   lambda weight: (weight.double().abs().max() / 127).item()
  right   lambda weight: 2 * weight.abs().max() / 254
  known   lambda weight: weight.max() / 127
  known   lambda weight: weight.abs().max() / 128
  known   lambda weight: weight.abs().max() / 255
  known   lambda weight: 127 / weight.abs().max()
  wrong   lambda weight: weight.abs().max()
  wrong   lambda weight: (weight.max() - weight.min()) / 254
  wrong   lambda weight: (weight.max() - weight.min()) / 255
  wrong   lambda weight: weight.abs() / 127
  wrong   lambda weight: weight.abs().mean() / 127
  wrong   lambda weight: weight.std() / 127
  wrong   lambda weight: weight.abs().max() / 256
  wrong   lambda weight: weight.abs().max() // 127
  wrong   lambda weight: max(weight) / 127

still_fp32
  right   "c"
  right   "C"
  right   "c)"
  right   "(c)"
  right   " c. "
  right   "c: as large as before"
  known   "a"
  known   "B)"
  wrong   "zzz"
  wrong   "cd"
  wrong   3
  wrong   "e"
  wrong   ["c"]

signed
  right   signed_by_loop
  right   lambda digits: int(digits, 2) - int(digits[0]) * 2 ** len(digits)
  right   lambda digits: int(digits, 2) - (int(digits, 2) >> len(digits) - 1 << len(digits))
  right   lambda d: -int(d[0]) * 2 ** (len(d) - 1) + int("0" + d[1:], 2)
  right   lambda d: ~int(d.translate({48: 49, 49: 48}), 2) if d[0] == "1" else int(d, 2)
  right   lambda d: float(int(d, 2) - (d[0] == "1") * 2 ** len(d))
  right   lambda d: torch.tensor(int(d, 2) - (d[0] == "1") * 2 ** len(d))
  known   lambda digits: int(digits, 2)
  known   lambda digits: int(digits, 2) - 256 * int(digits[0])
  known   lambda digits: int(digits, 2) - 2 ** len(digits)
  known   lambda digits: -int(digits[1:], 2) if digits[0] == "1" else int(digits[1:], 2)
  wrong   lambda digits: -int(digits, 2)
  wrong   lambda digits: np.int8(int(digits, 2) % 128)
  wrong   lambda digits: int(digits[0]) * 2 ** (len(digits) - 1) + int(digits[1:], 2)
  wrong   lambda digits: -digits[0] * 2 ** (len(digits) - 1)
  wrong   lambda digits: -int(digits[0]) * 2 ** len(digits) + int(digits[1:], 2)
  wrong   lambda digits: int(digits, 2) - 128

wrap
  right   wrap_by_loop
  right   lambda total, bits: total - 2**bits * ((total + 2 ** (bits - 1)) // 2**bits)
  right   lambda t, b: (t & 2**b - 1) - (t >> b - 1 & 1) * 2**b
  right   lambda t, b: (t & 2**b - 1 ^ 2 ** (b - 1)) - 2 ** (b - 1)
  right   lambda t, b: float((t + 2 ** (b - 1)) % 2**b - 2 ** (b - 1))
  known   lambda total, bits: total % 2**bits
  known   lambda total, bits: max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, total))
  wrong   lambda total, bits: math.fmod(total, 2**bits)
  wrong   lambda total, bits: total % 2 ** (bits - 1)
  wrong   lambda total, bits: total
  wrong   lambda total, bits: -(total % 2**bits)
  wrong   lambda total, bits: torch.tensor(total).to(torch.int8)
  wrong   lambda total, bits: total - 2**bits

decode
  right   decode_by_struct
  right   lambda p: torch.tensor([p], dtype=torch.int32).to(torch.int16).view(torch.float16).item()
  right   lambda p: np.array([p], np.uint16).view(np.float16)[0]
  right   lambda p: torch.tensor(decode_by_struct(p))
  right   lambda p: np.float32(decode_by_struct(p))
  wrong   decode_nan_as_text
  wrong   decode_without_last_return
  wrong   lambda p: str(decode_by_struct(p))
  wrong   lambda p: abs(decode_by_struct(p))
  wrong   lambda p: p
  wrong   lambda p: decode_by_struct(p) + 1e-9
  wrong   lambda p: 0.0 if p >> 10 & 31 == 0 else decode_by_struct(p)
  wrong   lambda p: 65504.0 if p >> 10 & 31 == 31 else decode_by_struct(p)
  wrong   lambda p: [decode_by_struct(p)] * 2

gap
  right   lambda mantissa: 2 * 2**mantissa + 1
  right   lambda mantissa: (1 << mantissa + 1) + 1
  right   lambda mantissa: 2.0 ** (mantissa + 1) + 1
  right   lambda m: gap_by_search(m) if m < 12 else 2 ** (m + 1) + 1
  known   lambda mantissa: 2 ** (mantissa + 1)
  known   lambda mantissa: 2**mantissa + 1
  wrong   lambda mantissa: 2**mantissa
  wrong   lambda mantissa: 2 ** (mantissa + 1) + 2
  wrong   lambda mantissa: 2**24 + 1
  wrong   lambda mantissa: 3

largest
  right   largest_by_list
  right   lambda e, m, s: np.float64(largest_by_list(e, m, s))
  right   lambda e, m, s: (2 - (2 if s == "fn" else 1) * 2.0**-m) * 2.0 ** (2 ** (e - 1) - (s == "ieee"))
  wrong   lambda e, m, s: (2 - 2.0**-m) * 2.0 ** (2 ** (e - 1) - 1)
  wrong   lambda e, m, s: (2 - 2.0**-m) * 2.0 ** (2 ** (e - 1))
  wrong   lambda e, m, s: largest_by_list(e, m, "fn")
  wrong   lambda e, m, s: int(largest_by_list(e, m, s)) + 1
  wrong   lambda e, m, s: 2.0 ** (2**e - 1)
  wrong   lambda e, m, s: {"ieee": 65504.0, "fn": 448.0, "none": 6.0}[s]
  wrong   lambda e, m, s: largest_by_list(e, m, s) * (1 + 1e-5)

block_bits
  right   lambda bits, block, scale_bits: (bits * block + scale_bits) / block
  right   lambda bits, block, scale_bits: Fraction(bits * block + scale_bits, block)
  right   lambda bits, block, scale_bits: torch.tensor(bits + scale_bits / block)
  known   lambda bits, block, scale_bits: bits + scale_bits
  known   lambda bits, block, scale_bits: bits + scale_bits // block
  known   lambda bits, block, scale_bits: bits
  wrong   lambda bits, block, scale_bits: bits * block + scale_bits / block
  wrong   lambda bits, block, scale_bits: bits + 1 / block
  wrong   lambda bits, block, scale_bits: scale_bits / block
  wrong   lambda bits, block, scale_bits: round(bits + scale_bits / block)

cards
  right   lambda parameters, bits, card: math.ceil(parameters * bits / (8e9 * card))
  right   lambda parameters, bits, card: -(-parameters * bits // (8 * card * 10**9))
  right   lambda parameters, bits, card: np.ceil(parameters * bits / 8 / card / 1e9)
  known   lambda parameters, bits, card: parameters * bits // (8 * card * 10**9)
  known   lambda parameters, bits, card: math.ceil(parameters * bits / (card * 1e9))
  wrong   lambda parameters, bits, card: parameters * bits / 8 / (card * 1e9)
  wrong   lambda parameters, bits, card: math.ceil(parameters * bits / 8 / 80e9)
  wrong   lambda parameters, bits, card: math.ceil(parameters / (card * 1e9))
  wrong   lambda parameters, bits, card: max(1, round(parameters * bits / 8 / card / 1e9))
  wrong   lambda parameters, bits, card: math.ceil(parameters * bits / 8 / card)

notes
  right   "aceg"
  right   "a, c, e, g"
  right   "GECA"
  right   ["a", "c", "e", "g"]
  right   "a) c) e) g)"
  right   "a, c, e and g"
  right   {"a", "c", "e", "g"}
  known   "ace"
  known   "bdf"
  wrong   "a"
  wrong   "zzz"
  wrong   "acegx"
  wrong   7
  wrong   ""

bound
  right   lambda fraction_bits: 2.0**-fraction_bits / 2
  right   lambda fraction_bits: 0.5**fraction_bits * 0.5
  right   lambda m: 1 / 2 ** (m + 1)
  right   lambda m: 2.0 ** -(m + 1) / (1 + 2.0 ** -(m + 1))
  right   lambda m: torch.tensor(2.0) ** -(m + 1)
  right   lambda m: Fraction(1, 2 ** (m + 1))
  right   lambda m: np.ldexp(1.0, -m - 1)
  known   lambda m: 2.0**-m
  known   lambda m: 2.0 ** (m + 1)
  wrong   lambda m: 1 / (m + 1)
  wrong   lambda m: 2.0 ** -(m - 1)
  wrong   lambda m: 100 * 2.0 ** -(m + 1)
  wrong   lambda m: -(2.0 ** -(m + 1))
  wrong   lambda m: torch.finfo(torch.float16).eps / 2

losses
  right   losses_by_loop
  right   lambda b, a: list(losses_by_loop(b, a))
  right   lambda b, a: torch.tensor(losses_by_loop(b, a))
  right   lambda b, a: np.array(losses_by_loop(b, a))
  right   lambda b, a: ((b.isfinite() & ~a.isfinite()).sum(), ((b != 0) & (a == 0)).sum())
  right   lambda b, a: (int((b.isfinite() > a.isfinite()).sum()), int((b.bool() > a.bool()).sum()))
  wrong   lambda b, a: (sum(b.isfinite() & ~a.isfinite()), sum((b != 0) & (a == 0)))
  wrong   lambda b, a: (int(a.isinf().sum()), int((a == 0).sum()))
  wrong   lambda b, a: sum(losses_by_loop(b, a))
  wrong   lambda b, a: (b.isfinite() & ~a.isfinite(), (b != 0) & (a == 0))
  wrong   lambda b, a: (int((b.isfinite() & a.isnan()).sum()), losses_by_loop(b, a)[1])
  wrong   lambda b, a: {"over": 1, "under": 1}
  wrong   lambda b, a: (losses_by_loop(b, a)[0], int((a == 0).sum()))
  known   lambda b, a: losses_by_loop(b, a)[::-1]

stuck
  right   stuck_by_log
  right   stuck_too_long
  right   lambda term, m: 2.0 ** math.ceil(math.log2(term * 2 ** (m + 1)))
  right   lambda term, m: torch.tensor(stuck_by_log(term, m))
  right   lambda term, m: next(2.0**e for e in range(-60, 60) if term <= 2.0**e * 2.0**-m / 2)
  right   lambda term, m: int(stuck_by_log(term, m)) if stuck_by_log(term, m) >= 1 else stuck_by_log(term, m)
  wrong   stuck_for_ever
  wrong   lambda term, m: stuck_by_log(term, m) * 2
  wrong   lambda term, m: math.log2(stuck_by_log(term, m))
  wrong   lambda term, m: 2.0 ** round(math.log2(term) + m + 1)
  wrong   lambda term, m: 2.0 ** math.floor(math.log2(term) + m + 1)
  wrong   lambda term, m: 2048.0
  known   lambda term, m: term * 2.0 ** (m + 1)
  known   lambda term, m: 2.0 ** (m + 1)

kahan
  right   kahan_of_floats
  right   lambda terms, small: torch.tensor(kahan_of_floats(terms, small))
  wrong   kahan_rounded_less
  wrong   lambda terms, small: float(terms.sum())
  wrong   lambda terms, small: math.fsum(terms.tolist())
  wrong   lambda terms, small: float(functools.reduce(lambda a, b: a + b, terms))
  wrong   lambda terms, small: sum(small(term) for term in terms)
  known   lambda terms, small: float(small(terms.sum()))
  known   lambda terms, small: float(functools.reduce(lambda a, b: small(a + b), terms))

slips
  right   lambda m, c: m.round() != c
  right   lambda m, c: ~torch.eq(c, m.round())
  right   lambda m, c: (m.round() - c).abs() > 0.5
  right   lambda m, c: (c != torch.round(m)).as_subclass(Tagged)
  form    lambda m, c: np.round(m.numpy()) != c.numpy()
  form    lambda m, c: (c != torch.round(m)).int()
  form    slips_by_rows
  wrong   slips_by_loop
  wrong   lambda m, c: int((c != torch.round(m)).sum())
  wrong   lambda m, c: (c != torch.round(m)).nonzero()
  wrong   lambda m, c: c[c != torch.round(m)]
  wrong   lambda m, c: (c != torch.round(m)).any()
  wrong   lambda m, c: c != m
  wrong   lambda m, c: c != m.ceil()
  known   lambda m, c: c == m.round()
  known   lambda m, c: c != m.long()

to_int8
  right   lambda w: (torch.round(w / (w.abs().max() / 127)).to(torch.int8), float(w.abs().max() / 127))
  right   lambda w: ((w / w.abs().max() * 127).round().to(torch.int8), (w.abs().max() / 127).item())
  right   lambda w: [torch.round(w * 127 / w.abs().max()).char(), w.abs().max() / 127]
  form    lambda w: (torch.round(w / (w.abs().max() / 127)).clamp(-127, 127).long(), float(w.abs().max() / 127))
  form    lambda w: (torch.round(w / (w.abs().max() / 127)), float(w.abs().max() / 127))
  form    lambda w: (np.round(w.numpy() / (w.abs().max() / 127).item()).astype(np.int8), float(w.abs().max() / 127))
  wrong   lambda w: torch.round(w / (w.abs().max() / 127)).to(torch.int8)
  wrong   lambda w: (float(w.abs().max() / 127), torch.round(w / (w.abs().max() / 127)).to(torch.int8))
  wrong   lambda w: (torch.round(w / (w.abs().max() / 127)).to(torch.uint8), float(w.abs().max() / 127))
  wrong   lambda w: (torch.floor(w / (w.abs().max() / 127)).to(torch.int8), float(w.abs().max() / 127))
  wrong   lambda w: (torch.round(w / (w.abs().max() / 127)).to(torch.int8), 127)
  wrong   lambda w: (torch.round(w / (w.std() / 127)).to(torch.int8), float(w.std() / 127))
  known   lambda w: ((w / (w.abs().max() / 127)).to(torch.int8), float(w.abs().max() / 127))

bytes of downcasting
  right   lambda rows, columns, per_row: rows * (columns + 4) if per_row else rows * columns + 4
  right   lambda r, c, p: r * c + 4 * r**p
  right   lambda r, c, p: float(r * c + 4 * (r if p else 1))
  right   lambda r, c, p: torch.zeros(r, c, dtype=torch.int8).nbytes + torch.zeros(r if p else 1).nbytes
  known   lambda r, c, p: r * c
  known   lambda r, c, p: r * c + 4
  wrong   lambda r, c, p: r * c + 4 * r
  wrong   lambda r, c, p: r * c + 2 * (r if p else 1)
  wrong   lambda r, c, p: 4 * r * c
  wrong   lambda r, c, p: r * c + 4 * (r if not p else 1)
  wrong   lambda r, c, p: (r * c, 4 * (r if p else 1))

intensity of downcasting
  right   lambda o, w, b, s: 2 / s / (1 / b + 1 / o + 1 / w)
  right   lambda o, w, b, s: 2 * o * w * b / sum(s * n for n in (o * w, w * b, o * b))
  right   lambda o, w, b, s: Fraction(2 * o * w * b, s * (o * w + w * b + o * b))
  known   lambda o, w, b, s: o * w * b / (s * (o * w + w * b + o * b))
  known   lambda o, w, b, s: 2 * o * w * b / (s * o * w)
  wrong   lambda o, w, b, s: 2 * o * w * b // (s * (o * w + w * b + o * b))
  wrong   lambda o, w, b, s: 2 * o * w / (s * (o * w + w * b + o * b))
  wrong   lambda o, w, b, s: 2 * o * w * b / s * (o * w + w * b + o * b)
  wrong   lambda o, w, b, s: 3 * o * w * b / (s * (o * w + w * b + o * b))

largest_batch
  right   lambda memory, parameters, each: max(0, memory - 16 * parameters) // each
  right   lambda memory, parameters, each: max(0, int((memory - 16 * parameters) / each))
  right   lambda m, p, e: max(math.floor((m - 16 * p) / e), 0)
  right   lambda m, p, e: next(n for n in itertools.count() if 16 * p + (n + 1) * e > m)
  known   lambda m, p, e: (m - 16 * p) // e
  known   lambda m, p, e: m // e
  known   lambda m, p, e: (m - 16 * p) / e
  wrong   lambda m, p, e: max(0, round((m - 16 * p) / e))
  wrong   lambda m, p, e: max(0, (m - 8 * p) // e)
  wrong   lambda m, p, e: m // (16 * p + e)
  wrong   lambda m, p, e: abs(m - 16 * p) // e

scaled_cast
  right   lambda w, fmt: fmt.round(w * (fmt.max / w.abs().max())) / (fmt.max / w.abs().max())
  right   lambda w, fmt: (fmt.round(w / w.abs().max() * fmt.max) * w.abs().max() / fmt.max).double()
  right   lambda w, fmt: nn.Parameter(fmt.round(w * fmt.max / w.abs().max()) * w.abs().max() / fmt.max)
  form    lambda w, fmt: (fmt.round(w * fmt.max / w.abs().max()) * w.abs().max() / fmt.max).numpy()
  form    lambda w, fmt: (fmt.round(w * fmt.max / w.abs().max()) * w.abs().max() / fmt.max).tolist()
  known   lambda w, fmt: fmt.round(w)
  known   lambda w, fmt: fmt.round(w / (w.abs().max() / fmt.max))
  wrong   lambda w, fmt: fmt.round(w * w.abs().max()) / w.abs().max()
  wrong   lambda w, fmt: w
  wrong   lambda w, fmt: fmt.round(w / (w.abs().max() / fmt.max)) / (w.abs().max() / fmt.max)
  wrong   lambda w, fmt: w.abs().max() / fmt.max
  wrong   lambda w, fmt: fmt.round(w / w.abs().mean()) * w.abs().mean()

loss_scale
  right   last_scale
  right   lambda o, s, p: torch.tensor(last_scale(o, s, p))
  right   lambda o, s, p: int(last_scale(o, s, p))
  wrong   lambda o, s, p: s * 2 ** (o.count(False) // p) / 2 ** o.count(True)
  wrong   lambda o, s, p: s / 2 ** sum(o)
  wrong   lambda o, s, p: s
  wrong   lambda o, s, p: max(1.0, last_scale(o, 1.0, p))
  wrong   lambda o, s, p: last_scale(o[:-1], s, p)
  wrong   lambda o, s, p: last_scale(o, s, p + 2)

stochastic
  right   lambda x, step, u: (x / step + u).floor() * step
  right   lambda x, step, u: ((x + u * step) / step).floor() * step
  right   lambda x, step, u: (x / step).floor() * step + step * (u >= 1 - (x / step - (x / step).floor()))
  right   lambda x, step, u: torch.div(x + u * step, step, rounding_mode="floor") * step
  form    lambda x, step, u: np.floor(x.numpy() / step + u.numpy()) * step
  known   lambda x, step, u: (x / step).floor() * step + step * (u < x / step - (x / step).floor())
  known   lambda x, step, u: torch.round(x / step) * step
  wrong   lambda x, step, u: torch.ceil(x / step + u) * step
  wrong   lambda x, step, u: torch.floor(x / step + torch.rand(len(x))) * step
  wrong   lambda x, step, u: torch.floor(x / step - u) * step
  wrong   lambda x, step, u: torch.floor(x / step + u - 0.5) * step
  wrong   lambda x, step, u: torch.floor(x / step) * step
  wrong   lambda x, step, u: torch.floor(x / step + 0.5) * step

lost
  right   lambda w, u, fmt: float((fmt.round(w + u) == w)[u != 0].double().mean())
  right   lambda w, u, fmt: 1 - float((fmt.round(w + u) != w)[u != 0].float().mean())
  right   lambda w, u, fmt: ((fmt.round(w + u) == w) & (u != 0)).sum() / u.count_nonzero()
  right   lambda w, u, fmt: np.mean((fmt.round(w + u) == w).numpy()[u.numpy() != 0])
  known   lambda w, u, fmt: float((fmt.round(w + u) == w).float().mean())
  wrong   lambda w, u, fmt: float((w + u == w).float().mean())
  wrong   lambda w, u, fmt: float((w + u == w)[u != 0].float().mean())
  wrong   lambda w, u, fmt: 100 * float((fmt.round(w + u) == w)[u != 0].double().mean())
  wrong   lambda w, u, fmt: (fmt.round(w + u) == w)[u != 0]
  wrong   lambda w, u, fmt: float((fmt.round(w - u) == w).float().mean())

perplexity
  right   lambda losses: losses.mean().exp()
  right   lambda losses: float(losses.exp().log().mean().exp())
  right   lambda losses: np.exp(losses.numpy().mean())
  right   lambda losses: math.e ** (sum(losses.tolist()) / len(losses))
  right   lambda losses: losses.exp().prod() ** (1 / len(losses))
  right   lambda losses: statistics.geometric_mean(losses.exp().tolist())
  known   lambda losses: losses.exp().mean()
  known   lambda losses: losses.mean()
  known   lambda losses: 2 ** losses.mean()
  wrong   lambda losses: losses.exp()
  wrong   lambda losses: losses.exp().median()
  wrong   lambda losses: math.exp(losses.max())
  wrong   lambda losses: losses.exp().sum()
  wrong   lambda losses: math.log(losses.mean())

bits_per_char
  right   lambda loss, tokens, characters: loss / math.log(2) * (tokens / characters)
  right   lambda l, t, c: math.log2(math.e) * l * t / c
  right   lambda l, t, c: math.log2(math.exp(l)) * t / c
  right   lambda l, t, c: torch.tensor(l / math.log(2) * t / c)
  known   lambda l, t, c: l * t / c
  known   lambda l, t, c: l / math.log(2)
  wrong   lambda l, t, c: l * t / math.log2(2) / c
  wrong   lambda l, t, c: l * t / math.log(10) / c
  wrong   lambda l, t, c: math.exp(l) * t / c
  wrong   lambda l, t, c: l * t / math.log(2)
  wrong   lambda l, t, c: math.exp(l / math.log(2) * t / c)

mask of nanoGPT
  right   lambda T: torch.tril(torch.ones(T, T)).bool()
  right   lambda T: torch.arange(T)[:, None] >= torch.arange(T)
  right   lambda T: ~torch.ones(T, T).triu(1).bool()
  right   lambda T: torch.tensor(mask_by_loop(T))
  right   lambda T: torch.ones(T, T, dtype=torch.bool).tril().as_subclass(Tagged)
  form    lambda T: np.tril(np.ones((T, T), bool))
  form    mask_by_loop
  known   lambda T: torch.ones(T, T, dtype=torch.int).tril()
  known   lambda T: torch.ones(T, T).tril()
  known   lambda T: torch.ones(T, T, dtype=torch.bool).triu()
  known   lambda T: torch.arange(T)[:, None] > torch.arange(T)
  wrong   lambda T: torch.eye(T).bool()
  wrong   lambda T: torch.ones(T, dtype=torch.bool)
  wrong   lambda T: torch.zeros(T, T).masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
  wrong   lambda T: nn.Transformer.generate_square_subsequent_mask(T)
  wrong   lambda T: np.tril(T)
  wrong   lambda T: torch.ones(T, T, dtype=torch.bool).tril(1)

attention
  right   attention_by_loop
  right   lambda q, k: torch.tensor(attention_by_numpy(q, k))
  right   lambda q, k: F.softmax((q @ k.T / q.size(1) ** 0.5).masked_fill(torch.ones(len(q), len(q)).triu(1) == 1,
            -1e9), 1)
  right   lambda q, k: F.scaled_dot_product_attention(q[None], k[None], torch.eye(len(q))[None], is_causal=True)[0]
  right   lambda q, k: (torch.einsum("td,sd->ts", q, k) * q.shape[1] ** -0.5 + torch.full((len(q),) * 2,
            -math.inf).triu(1)).softmax(-1)
  form    attention_by_numpy
  form    lambda q, k: attention_by_loop(q, k).tolist()
  known   lambda q, k: (q @ k.T / q.shape[1] ** 0.5).softmax(-1)
  known   lambda q, k: attention_by_loop(k, q)
  wrong   lambda q, k: attention_by_loop(q, k) @ k
  wrong   lambda q, k: (q @ k.T / q.shape[1] ** 0.5).softmax(-1).tril()[..., None]
  wrong   lambda q, k: (q @ k.T / q.shape[1] ** 0.5).tril()
  wrong   lambda q, k: (q @ k.T / q.shape[1] ** 0.5).tril().softmax(-1).tril()
  wrong   lambda q, k: (q @ k.T / q.shape[1] ** 0.5).masked_fill(torch.ones(len(q), len(q)).tril() == 1,
            -math.inf).softmax(-1)
  wrong   lambda q, k: attention_by_loop(q, k).T
  wrong   lambda q, k: q * k

block_parameters
  right   lambda w, h: 4 * w * w + 2 * 4 * w * w + 2 * w
  right   lambda w, h: w * (12 * w + 2)
  right   lambda w, h: float(12 * w**2 + 2 * w)
  right   lambda w, h: sum(3 * w * (w // h) for _ in range(h)) + w * w + 8 * w * w + w + w
  known   lambda w, h: 12 * w**2
  wrong   lambda w, h: 12 * w**2 + w
  wrong   lambda w, h: 12 * w**2 + 4 * w
  wrong   lambda w, h: 12 * w + 2
  wrong   lambda w, h: 4 * w**2 * h + 8 * w**2 + 2 * w
  wrong   lambda w, h: 442752

training_bytes
  right   lambda p: p * 4 * 4
  right   lambda p: p << 4
  right   lambda p: 16.0 * p
  known   lambda p: 12 * p
  known   lambda p: 4 * p
  wrong   lambda p: 4 * p * 8
  wrong   lambda p: 20 * p
  wrong   lambda p: 16 * p / 1e6
  wrong   lambda p: 14 * p

temperature
  right   lambda logits, t: F.softmax(logits / t, dim=-1)
  right   lambda logits, t: (logits / t).exp() / (logits / t).exp().sum()
  right   lambda logits, t: logits.softmax(0) ** (1 / t) / (logits.softmax(0) ** (1 / t)).sum()
  right   lambda logits, t: (logits.double() / t).softmax(0)
  form    lambda logits, t: np.exp(logits.numpy() / t) / np.exp(logits.numpy() / t).sum()
  form    lambda logits, t: [math.exp(x / t) / sum(math.exp(y / t) for y in logits) for x in logits]
  known   lambda logits, t: (logits * t).softmax(0)
  known   lambda logits, t: logits.softmax(0) / t
  wrong   lambda logits, t: (logits / t).log_softmax(0)
  wrong   lambda logits, t: (logits / t) / (logits / t).sum()
  wrong   lambda logits, t: (logits / t).sigmoid()
  wrong   lambda logits, t: (logits - t).softmax(0)
  wrong   lambda logits, t: (logits / t**2).softmax(0)
  wrong   lambda logits, t: (logits / t).softmax(0).max()

top_k
  right   keep_with_numbers
  right   lambda logits, k: torch.where(logits >= logits.sort().values[-k], logits, -math.inf)
  right   lambda logits, k: torch.where(logits >= logits.topk(k).values.min(), logits, torch.finfo(logits.dtype).min)
  right   lambda logits, k: torch.where(logits < logits.sort().values[-k], -math.inf, logits).as_subclass(Tagged)
  right   lambda logits, k: torch.full_like(logits, -math.inf).scatter(0, *(lambda t: (t.indices,
            t.values))(logits.topk(k)))
  form    lambda logits, k: [x if x >= sorted(logits.tolist())[-k] else -math.inf for x in logits.tolist()]
  form    lambda logits, k: np.where(logits.numpy() >= np.sort(logits.numpy())[-k], logits.numpy(), -np.inf)
  wrong   keep_in_place
  known   lambda logits, k: logits.topk(k).values
  wrong   lambda logits, k: logits.topk(k).indices
  wrong   lambda logits, k: logits.topk(k)
  wrong   lambda logits, k: logits >= logits.topk(k).values[-1]
  wrong   lambda logits, k: torch.where(logits >= logits.topk(k).values[-1], logits, math.inf)
  wrong   lambda logits, k: torch.where(logits >= logits.topk(k).values[-1], logits, -10.0)
  wrong   lambda logits, k: logits.sort(descending=True).values.masked_fill(torch.arange(len(logits)) >= k, -math.inf)
  wrong   lambda logits, k: keep_with_numbers(logits, k).softmax(0)

positions
  right   positions_by_loop
  right   lambda p, n, c: p + n - 1 if c else sum(range(p, p + n))
  right   lambda p, n, c: p + n - 1 if c else n * (2 * p + n - 1) / 2
  right   lambda p, n, c: (c and p + n - 1) or n * p + n * (n - 1) // 2
  wrong   positions_without_cache
  wrong   positions_to_come
  wrong   lambda p, n, c: p + n
  wrong   lambda p, n, c: p + n - 1
  wrong   lambda p, n, c: p + n - 1 if not c else sum(range(p, p + n))
  wrong   lambda p, n, c: n if c else p * n
  wrong   lambda p, n, c: p + n - 1 if c else (p + n) ** 2
  wrong   lambda p, n, c: p + n - 1 if c else list(range(p, p + n))

affine
  right   lambda low, high, bits: [(high - low) / (2**bits - 1), round(-low * (2**bits - 1) / (high - low))]
  right   lambda l, h, b: ((h - l) / (2**b - 1), int(-l / ((h - l) / (2**b - 1)) + 0.5))
  right   lambda l, h, b: torch.tensor([(h - l) / (2**b - 1), round(-l / ((h - l) / (2**b - 1)))], dtype=torch.float64)
  right   lambda l, h, b: (np.float64((h - l) / (2**b - 1)), np.rint(-l / ((h - l) / (2**b - 1))))
  wrong   lambda l, h, b: print((h - l) / (2**b - 1), round(-l / ((h - l) / (2**b - 1))))
  wrong   lambda l, h, b: (h - l) / (2**b - 1)
  wrong   lambda l, h, b: (round(-l / ((h - l) / (2**b - 1))), (h - l) / (2**b - 1))
  wrong   lambda l, h, b: ((h - l) / (2**b - 1), round(-h / ((h - l) / (2**b - 1))))
  wrong   lambda l, h, b: ((h - l) / (2 ** (b - 1) - 1), round(-l / ((h - l) / (2 ** (b - 1) - 1))))
  wrong   lambda l, h, b: ((h + l) / (2**b - 1), round(-l / ((h - l) / (2**b - 1))))
  wrong   lambda l, h, b: ((h - l) / (2**b - 1), math.ceil(-l / ((h - l) / (2**b - 1))))
  wrong   lambda l, h, b: ((h - l) / (2**b - 1), 0)
  known   lambda l, h, b: ((h - l) / 2**b, round(-l / ((h - l) / 2**b)))

codes
  right   lambda w, s, z, b: ((w / s).round() + z).clip(0, 2**b - 1).to(torch.int64)
  right   lambda w, s, z, b: torch.clamp((w / s).round().long() + z, min=0, max=2**b - 1)
  right   lambda w, s, z, b: (torch.round(w / s).clamp(-z, 2**b - 1 - z) + z).long()
  right   lambda w, s, z, b: torch.round(w.double() / s).add(z).clamp(0, 2**b - 1).long()
  form    lambda w, s, z, b: (torch.round(w / s) + z).clamp(0, 2**b - 1)
  form    lambda w, s, z, b: (torch.round(w / s) + z).clamp(0, 2**b - 1).to(torch.int8)
  form    lambda w, s, z, b: (torch.round(w / s) + z).clamp(0, 2**b - 1).int()
  form    lambda w, s, z, b: np.clip(np.round(w.numpy() / s) + z, 0, 2**b - 1).astype(int)
  form    lambda w, s, z, b: (torch.round(w / s) + z).clamp(0, 2**b - 1).long().tolist()
  known   lambda w, s, z, b: torch.round(w / s + z).clamp(0, 2**b - 1).long()
  known   lambda w, s, z, b: (torch.round(w / s) + z).long()
  wrong   lambda w, s, z, b: (torch.round(w / s) - z).clamp(0, 2**b - 1).long()
  wrong   lambda w, s, z, b: torch.round(w / s).clamp(0, 2**b - 1).long()
  wrong   lambda w, s, z, b: (torch.ceil(w / s) + z).clamp(0, 2**b - 1).long()
  wrong   lambda w, s, z, b: ((torch.round(w / s) + z).clamp(0, 2**b - 1) - z) * s
  wrong   lambda w, s, z, b: (torch.round(w / s) + z).clamp(1, 2**b - 1).long()
  wrong   lambda w, s, z, b: (torch.round(w / s) + z).long() % 2**b
  wrong   lambda w, s, z, b: (torch.round(w / s) + z).abs().clamp(0, 2**b - 1).long()
  wrong   lambda w, s, z, b: (torch.round(w / s) + z).clamp(0, 255).long()
  wrong   lambda w, s, z, b: (torch.round(w / s) + z).clamp(0, 2**b - 1).long().flatten()[:1]

noise of naive rounding
  right   lambda l, h, b: (h - l) ** 2 / (2**b - 1) ** 2 / 12
  right   lambda l, h, b: ((h - l) / (2**b - 1) / math.sqrt(12)) ** 2
  right   lambda l, h, b: 2 / ((h - l) / (2**b - 1)) * ((h - l) / (2**b - 1) / 2) ** 3 / 3
  right   lambda l, h, b: torch.tensor(((h - l) / (2**b - 1)) ** 2 / 12)
  known   lambda l, h, b: ((h - l) / 2**b) ** 2 / 12
  known   lambda l, h, b: (h - l) / (2**b - 1) / 12
  wrong   lambda l, h, b: ((h - l) / (2**b - 1)) ** 2 / 4
  wrong   lambda l, h, b: ((h - l) / (2**b - 1)) ** 2
  wrong   lambda l, h, b: (h - l) ** 2 / 12
  wrong   lambda l, h, b: (h - l) ** 2 / (2**b - 1) / 12
  wrong   lambda l, h, b: ((h - l) / (2**b - 1)) ** 2 / 24
  wrong   lambda l, h, b: ((h + l) / (2**b - 1)) ** 2 / 12

cast
  right   "c"
  right   "c)"
  right   "c) −128"
  known   "a"
  known   "d)"
  wrong   "zzz"
  wrong   -128

row_scale
  right   lambda w, b: w.abs().max(1, keepdim=True).values / (2 ** (b - 1) - 1)
  right   lambda w, b: w.abs().amax(-1)[:, None] / (2 ** (b - 1) - 1)
  right   lambda w, b: torch.stack([row.abs().max() for row in w]).view(-1, 1) / (2 ** (b - 1) - 1)
  right   lambda w, b: torch.linalg.vector_norm(w.double(), math.inf, 1, True) / (2 ** (b - 1) - 1)
  form    lambda w, b: np.abs(w.numpy()).max(1, keepdims=True) / (2 ** (b - 1) - 1)
  form    lambda w, b: [[max(abs(x) for x in row) / (2 ** (b - 1) - 1)] for row in w.tolist()]
  known   lambda w, b: w.abs().amax(1) / (2 ** (b - 1) - 1)
  known   lambda w, b: w.abs().max() / (2 ** (b - 1) - 1)
  wrong   lambda w, b: (w.amax(1, keepdim=True) - w.amin(1, keepdim=True)) / (2**b - 1)
  wrong   lambda w, b: w.abs().amax(1, keepdim=True) / 2**b
  wrong   lambda w, b: w.abs().mean(1, keepdim=True) / (2 ** (b - 1) - 1)
  wrong   lambda w, b: w.abs().max(1, keepdim=True) / (2 ** (b - 1) - 1)
  wrong   lambda w, b: (2 ** (b - 1) - 1) / w.abs().amax(1, keepdim=True)
  wrong   lambda w, b: w.abs().amax(1, keepdim=True) / 127

average_bits
  right   average_by_groups
  right   lambda c, b, g: b + (16 + b) * -(-c // g) / c
  right   lambda c, b, g: Fraction(average_by_groups(c, b, g))
  known   lambda c, b, g: b + (16 + b) / g
  known   lambda c, b, g: b
  wrong   lambda c, b, g: c * b + math.ceil(c / g) * (16 + b)
  wrong   lambda c, b, g: b + math.ceil(c / g) * (16 + b) / g
  wrong   lambda c, b, g: b + round(c / g) * (16 + b) / c
  wrong   lambda c, b, g: b + math.ceil(c / g) * (2 + b) / c
  wrong   lambda c, b, g: math.ceil(average_by_groups(c, b, g))
  wrong   lambda c, b, g: b + math.ceil(c / g) * 16 * b / c

best_share
  right   best_share_by_loop
  right   lambda w, b: best_share_by_loop(w, b, torch.linspace(1, 0.2, 81).flip(0))
  right   lambda w, b: best_share_by_loop(w, b, np.linspace(1, 0.2, 81))
  right   lambda w, b: torch.tensor(best_share_by_loop(w, b))
  wrong   best_share_index
  wrong   lambda w, b: best_share_by_loop(w, b, torch.linspace(1, 0.2, 21))
  wrong   lambda w, b: best_share_by_loop(w, b, torch.linspace(1, 0.5, 81))
  wrong   lambda w, b: best_share_by_loop(w, b) * w.abs().max()
  wrong   lambda w, b: best_share_by_loop(w, b, top=2 ** (b - 1))
  wrong   lambda w, b: 1.0
  wrong   lambda w, b: 1 - best_share_by_loop(w, b)

pack4
  right   lambda codes: (codes[::2] + 16 * codes[1::2]).byte()
  right   lambda codes: (codes.view(-1, 2) * torch.tensor([1, 16])).sum(1).to(torch.uint8)
  right   lambda codes: codes[0::2].byte() | codes[1::2].byte() << 4
  right   lambda codes: torch.tensor(pack_by_loop(codes), dtype=torch.uint8)
  form    lambda codes: codes[0::2] | codes[1::2] << 4
  form    lambda codes: (codes[0::2] | codes[1::2] << 4).to(torch.int16)
  form    lambda codes: torch.tensor(pack_by_loop(codes))
  form    lambda codes: (codes[0::2] | codes[1::2] << 4).numpy().astype(np.uint8)
  form    pack_by_loop
  form    lambda codes: (codes[0::2] + 16.0 * codes[1::2])
  known   lambda codes: (codes[0::2] << 4 | codes[1::2]).byte()
  known   lambda codes: codes.byte()
  wrong   lambda codes: (codes[0::2] | codes[1::2] << 4).to(torch.int8)
  wrong   lambda codes: (codes[0::2] | codes[1::2] << 3).byte()
  wrong   lambda codes: (codes[0::2] | codes[1::2] << 8).byte()
  wrong   lambda codes: (codes[0::2] & codes[1::2] << 4).byte()
  wrong   lambda codes: (codes[1::2] | codes[1::2] << 4).byte()
  wrong   lambda codes: (codes[:-1] | codes[1:] << 4).byte()
  wrong   lambda codes: bytes(pack_by_loop(codes))

standard_error
  right   lambda a, b: (a - b).std() / len(a) ** 0.5
  right   lambda a, b: statistics.stdev((a - b).tolist()) / math.sqrt(len(a))
  right   lambda a, b: np.std((a - b).numpy(), ddof=1) / np.sqrt(len(a))
  right   lambda a, b: ((a - b).var() / len(a)).sqrt()
  right   lambda a, b: float((b - a).double().std()) / math.sqrt(a.numel())
  known   lambda a, b: np.std((a - b).numpy()) / np.sqrt(len(a))
  known   lambda a, b: (a - b).std()
  known   lambda a, b: (a - b).std() / len(a)
  wrong   lambda a, b: (a - b).std() / math.sqrt(len(a) - 1)
  wrong   lambda a, b: (a - b).var() / math.sqrt(len(a))
  wrong   lambda a, b: (a - b).mean() / math.sqrt(len(a))
  wrong   lambda a, b: a.std() / math.sqrt(len(a)) - b.std() / math.sqrt(len(a))
  wrong   lambda a, b: 1.96 * (a - b).std() / math.sqrt(len(a))
  wrong   lambda a, b: (a - b) / math.sqrt(len(a))

audit
  right   "b"
  right   "B)"
  known   "c"
  wrong   "AdamW"
  wrong   12

payload
  right   lambda w, r, rest: w + 4 * (r + rest)
  right   lambda w, r, rest: (8 * w + 32 * r + 32 * rest) / 8
  right   lambda w, r, rest: np.int64(w) + 4 * r + 4 * rest
  known   lambda w, r, rest: w + 4 * rest
  known   lambda w, r, rest: w + 4 * r + rest
  wrong   lambda w, r, rest: 4 * (w + r + rest)
  wrong   lambda w, r, rest: w + r + rest
  wrong   lambda w, r, rest: w + 2 * r + 4 * rest
  wrong   lambda w, r, rest: w + 4 * r + 2 * rest
  wrong   lambda w, r, rest: (w + 4 * r + 4 * rest) / 1024

missing
  right   "c)"
  known   "a"
  wrong   "low rank"

wanda
  right   wanda_by_sorting
  right   lambda w, x, s: wanda_by_sorting(w, x.double(), s)
  right   lambda w, x, s: wanda_by_sorting(w, 7 * x, s)
  form    lambda w, x, s: wanda_by_sorting(w, x, s).float()
  form    lambda w, x, s: wanda_by_sorting(w, x, s).numpy()
  known   lambda w, x, s: wanda_by_sorting(w, torch.ones_like(x), s)
  wrong   lambda w, x, s: ~wanda_by_sorting(w, x, s)
  wrong   lambda w, x, s: w * wanda_by_sorting(w, x, s)
  wrong   lambda w, x, s: wanda_by_sorting(w, x, 1 - s)
  wrong   lambda w, x, s: wanda_by_sorting(w, x.mean(0, keepdim=True), s)
  wrong   lambda w, x, s: wanda_by_sorting(w, x, 0.5)
  wrong   lambda w, x, s: (w.abs() * x.norm(dim=0)) > (w.abs() * x.norm(dim=0)).quantile(s)
  wrong   lambda w, x, s: wanda_by_sorting(w, x, int(s * w.shape[1]) / w.shape[1])

two_of_four
  right   two_of_four_by_loop
  right   lambda w: two_of_four_by_loop(w.double())
  right   lambda w: w * (w.view(-1, 4).abs().argsort(1).argsort(1) >= 2).view_as(w)
  form    lambda w: two_of_four_by_loop(w).numpy()
  wrong   lambda w: two_of_four_by_loop(w) != 0
  wrong   lambda w: two_of_four_by_loop(w)[:, :2]
  wrong   lambda w: w - two_of_four_by_loop(w)
  wrong   lambda w: w.masked_fill(torch.arange(w.shape[1]) % 4 > 1, 0)
  wrong   lambda w: w * (w.abs() > w.abs().median())
  wrong   lambda w: w.view(-1, 4).topk(2).values

sparse_bits
  right   lambda s, b: b - s * b + 1
  right   lambda s, b: torch.tensor(1 + (1 - s) * b)
  known   lambda s, b: (1 - s) * b
  known   lambda s, b: 1 + s * b
  wrong   lambda s, b: b / s + 1
  wrong   lambda s, b: 8 + (1 - s) * b
  wrong   lambda s, b: math.ceil(1 + (1 - s) * b) + 1

break_even
  right   break_even_by_search
  right   lambda o, w: math.ceil(o * w / (o + w)) - 1
  right   lambda o, w: float(break_even_by_search(o, w))
  known   lambda o, w: o * w // (o + w)
  wrong   lambda o, w: o * w / (o + w)
  wrong   lambda o, w: round(o * w / (o + w))
  wrong   lambda o, w: (o + w) // 2
  wrong   lambda o, w: min(o, w) // 2
  wrong   lambda o, w: math.ceil(o * w / (o + w))

whitened
  right   whitened_by_roots
  form    lambda w, g, r: whitened_by_roots(w, g, r).numpy()
  wrong   lambda w, g, r: whitened_by_roots(w, torch.linalg.inv(g), r)
  wrong   lambda w, g, r: whitened_by_roots(w, g, r + 1)
  wrong   lambda w, g, r: whitened_by_roots(w, g, r).T
  known   lambda w, g, r: whitened_by_roots(w, torch.eye(len(g)).double(), r)

distil
  right   lambda s, t, T: T * T * F.kl_div((s / T).log_softmax(1), (t / T).softmax(1), reduction="batchmean")
  right   lambda s, t, T: float(T**2 * F.kl_div((s / T).log_softmax(1), (t / T).log_softmax(1), log_target=True,
            reduction="sum") / len(s))
  wrong   lambda s, t, T: T**2 * F.kl_div((s / T).log_softmax(1), (t / T).softmax(1))
  wrong   lambda s, t, T: T**2 * F.mse_loss(s / T, t / T)
  wrong   lambda s, t, T: T**2 * F.cross_entropy(s / T, (t / T).softmax(1))
  wrong   lambda s, t, T: -(T**2) * F.kl_div((s / T).log_softmax(1), (t / T).softmax(1), reduction="batchmean")
  wrong   lambda s, t, T: T**2 * F.kl_div((s / T).log_softmax(0), (t / T).softmax(0), reduction="batchmean")
  known   lambda s, t, T: F.kl_div((s / T).log_softmax(1), (t / T).softmax(1), reduction="batchmean")

power_law
  right   lambda b, e: torch.linspace(0, 1, 2 ** (b - 1))[1:] ** (1 / e)
  right   lambda b, e: torch.linspace(0, 1, 2 ** (b - 1), dtype=torch.float64)[1:].pow(1 / e)
  form    lambda b, e: [(k / (2 ** (b - 1) - 1)) ** (1 / e) for k in range(1, 2 ** (b - 1))]
  form    lambda b, e: (np.arange(1, 2 ** (b - 1)) / (2 ** (b - 1) - 1)) ** (1 / e)
  wrong   lambda b, e: torch.linspace(0, 1, 2 ** (b - 1) - 1) ** (1 / e)
  wrong   lambda b, e: torch.arange(1, 2 ** (b - 1)) ** (1 / e)
  wrong   lambda b, e: torch.linspace(0, 1, 2 ** (b - 1))[1:].flip(0) ** (1 / e)
  wrong   lambda b, e: torch.linspace(-1, 1, 2**b - 1)

memory
  right   lambda p, b, l, w, t: (p * b / 8 + 4 * l * w * t) * 1e-9
  right   lambda p, b, l, w, t: p * b / 8e9 + 2 * 2 * l * w * t / 1e9
  known   lambda p, b, l, w, t: p * b / 8e9
  wrong   lambda p, b, l, w, t: p * b / 8 + 4 * l * w * t
  wrong   lambda p, b, l, w, t: (p * b / 8 + 2 * l * w * t * b / 8) / 1e9
  wrong   lambda p, b, l, w, t: (p * b / 8 + 4 * l * w) / 1e9
  wrong   lambda p, b, l, w, t: (p * b / 8 + 4 * l * t) / 1e9

households
  right   lambda mwh, kwh: mwh * 1e3 / kwh
  right   lambda mwh, kwh: mwh / (kwh / 1000)
  known   lambda mwh, kwh: mwh / kwh
  wrong   lambda mwh, kwh: 1e6 * mwh / kwh
  wrong   lambda mwh, kwh: mwh * kwh / 1000
  wrong   lambda mwh, kwh: round(1000 * mwh / kwh / 365)

worst_error
  right   lambda t, a, largest: max(t, abs(a - t), largest - a)
  right   lambda t, a, largest: torch.tensor([t, a - t, largest - a]).max()
  wrong   lambda t, a, largest: max(t, largest)
  wrong   lambda t, a, largest: [t, abs(a - t), abs(largest - a)]

mquant
  right   lambda w: [t := w.square().mean(1, keepdim=True).sqrt() * 0.43072729929545756, 2 * t]
  right   lambda w: torch.stack([t := w.square().mean(1, keepdim=True).sqrt() * 0.43072729929545756, 2 * t])
  form    lambda w: (0.43072729929545756 * np.sqrt((w.numpy() ** 2).mean(1, keepdims=True)), 0.8614545985909151
            * np.sqrt((w.numpy() ** 2).mean(1, keepdims=True)))
  known   lambda w: tuple(0.43072729929545756 * k * w.square().mean(1).sqrt() for k in (1, 2))

pack5
  right   lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1).byte()
  form    lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1)
  form    lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1).byte().numpy()
  form    lambda codes: [sum(int(c) * 3**i for i, c in enumerate(codes[k : k + 5])) for k in range(0, len(codes), 5)]
  wrong   lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1).to(torch.int8)

start
  right   lambda share: torch.logit((share + 0.1) / 1.2)
  right   lambda share: torch.log((share + 0.1) / (1.1 - share))
  form    lambda share: -np.log(1.2 / (share.numpy() + 0.1) - 1)
  known   lambda share: torch.logit(share)

soft
  right   lambda w, a, h: (a * ((w / a).floor() + h)).clamp(-a, a)
  known   lambda w, a, h: a * ((w / a).floor() + h)

fisher
  right   fisher_by_loop
  right   lambda c, g: (c * g).square().sum() / len(c)
  wrong   lambda c, g: (c * g).square().sum()

group_size
  right   group_size_by_loop
  known   group_size_below
  known   lambda bits, budget: 2 ** math.floor(math.log2((16 + bits) / budget))
  wrong   lambda bits, budget: math.ceil((16 + bits) / budget)
  wrong   lambda bits, budget: (16 + bits) / budget

bug
  right   "C"
  right   "c)"
  known   "b"
  wrong   "line c"

word
  right   lambda word: [(word // 16**k) % 16 for k in range(8)]
  right   lambda word: torch.tensor([word >> 4 * k & 15 for k in range(8)])
  right   lambda word: tuple(int(d, 16) for d in f"{word & 0xFFFFFFFF:08x}"[::-1])
  right   lambda word: np.array([word >> 4 * k & 15 for k in range(8)])
  wrong   lambda word: [word >> 4 * k & 7 for k in range(8)]
  wrong   lambda word: f"{word & 0xFFFFFFFF:08x}"[::-1]

correlations
  right   lambda x, y: torch.linalg.svdvals(torch.linalg.qr(x - x.mean(0)).Q.T @ torch.linalg.qr(y - y.mean(0)).Q)
  form    lambda x,
            y: torch.linalg.svdvals(torch.linalg.qr(x - x.mean(0)).Q.T @ torch.linalg.qr(y - y.mean(0)).Q).numpy()
  known   lambda x, y: torch.linalg.svdvals(torch.linalg.qr(x).Q.T @ torch.linalg.qr(y).Q)

scores of CMPQ
  right   lambda a: 1 - torch.stack([torch.cat((row[:i], row[i + 1 :])).mean() for i, row in enumerate(a)])
  form    lambda a: [1 - (sum(row) - row[i]) / (len(row) - 1) for i, row in enumerate(a.tolist())]
  known   lambda a: 1 - a.mean(1)

floor
  right   floor_by_trial
  right   lambda step: (-step / 2, (step / 2) ** 2 + step**2 / 12)
  right   lambda step: [-0.5 * step, torch.tensor(step**2 / 3)]
  wrong   lambda step: (-step / 2, step / 3)

clusters
  wrong   widths_of_three

mask of PMPQ
  known   lambda w, level: torch.ones_like(w, dtype=torch.bool).view(-1).index_fill(0,
            w.abs().view(-1).argsort(stable=True)[: round(level * w.numel())], False).view_as(w)

scope
  right   lambda m, level: torch.stack([(x.abs() <= torch.cat([y.flatten()
            for y in m]).abs().sort().values[round(level * sum(y.numel() for y in m)) - 1]).double().mean() for x in m])

first of TDMPQ
  known   lambda block: next(block.named_parameters())[0]
  wrong   lambda block: next(name for name, parameter in block.named_parameters() if parameter.dim() == 2)
  right   lambda block: [name for name, parameter in block.named_parameters() if len(parameter.shape) >= 2][0]

matched of TDMPQ
  right   matched_by_hand
  right   lambda w, b: matched_by_hand(w.double(), b)

upright
  wrong   lambda ratio, reduction: ratio(400, 100) > 0 and reduction(400, 100) > 0
  known   lambda ratio, reduction: ratio(400, 100) > 1 and reduction(400, 100) > 0
  right   lambda ratio, reduction: ratio(1000, 250) == 4 and math.isclose(reduction(300, 100), 200 / 3)
  right   lambda ratio, reduction: np.bool_(ratio(400, 100) == 4) and torch.tensor(reduction(400, 100) == 75)

replaced
  right   swapped_in_by_another

ordered
  wrong   lambda assign: all(assign([9.0, 9.2, 5.0, 1.0, 1.3], [n[g] for g in (0, 0, 1, 2, 2)])[0] == 16
            for n in itertools.permutations(range(3)))
  right   lambda assign: all(assign([1.0, 2.0, 3.0], list(n)) == [4, 8, 16] for n in itertools.permutations(range(3)))

accuracy
  wrong   lambda accuracy: accuracy(F.one_hot(torch.tensor([[7], [4]]), 10).float(), torch.tensor([0, 1]),
            torch.tensor([7, 4])) == 1 and accuracy(F.one_hot(torch.tensor([[4], [7]]), 10).float(), torch.tensor([0,
            1]), torch.tensor([7, 4])) == 0

kept
  wrong   lambda score_all: sorted(score_all(list("abc"), {"a": 3.0, "b": 1.0, "c": 2.0}.get).values()) == [1.0, 2.0,
            3.0]
  right   lambda score_all: all(score_all(list("abc"), {"a": 3.0, "b": 1.0, "c": 2.0}.get).get(k) == v for k,
            v in {"a": 3.0, "b": 1.0, "c": 2.0}.items())

factor
  right   4.0
  right   "four" and 4
  known   2
  wrong   5
  wrong   "4"
  wrong   1e9

swap
  right   12
  known   10
  wrong   0
  wrong   "12"

raw
  right   "(d)"
  known   "a"
  wrong   "abcd"
"""
