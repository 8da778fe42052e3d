"""Answers that a learner may give, and what a check should think of them.

Under the name of its exercise each answer has a line, or more that are further in, with the verdict first: `right`;
`form`, right values that the check says how to return; `known`, wrong in a way that has a hint of its own; `wrong`;
`missing`, not attempted. An answer is an expression, in which the functions and modules of this file may be used.
"""

import copy
import functools
import heapq
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

from nanoq.numbers import BLOCKS
from nanoq.teach import capstone
from nanoq.teach.exercises import nb03

__all__ = ["BLOCKS", "F", "Fraction", "capstone", "copy", "functools", "itertools", "math", "nn", "np", "operator",
           "statistics", "struct"]


def allocate_by_heap(costs, sizes, budget):
    """The allocation of notebook 10 with a queue: offers that do not fit are dropped, as they never fit later."""
    chosen = {name: min(size) for name, size in sizes.items()}
    left = budget - sum(size[chosen[name]] for name, size in sizes.items())

    def offer(name):
        bits = chosen[name]
        price = sizes[name][bits + 1] - sizes[name][bits]
        return (costs[name][bits + 1] - costs[name][bits]) / price, name, price

    queue = [offer(name) for name in sizes]
    heapq.heapify(queue)
    while queue:
        _, name, price = heapq.heappop(queue)
        if price <= left:
            left, chosen[name] = left - price, chosen[name] + 1
            if chosen[name] + 1 in sizes[name]:
                heapq.heappush(queue, offer(name))
    return chosen


def hessians_by_einsum(model, layers, batches):
    """Notebook 15's Hessians, by hooks that run before the layers."""
    seen = {name: [] for name in layers}
    handles = [layer.register_forward_pre_hook(lambda layer, inputs, name=name: seen[name].append(inputs[0]))
               for name, layer in layers.items()]
    for batch in batches:
        model(batch)
    for handle in handles:
        handle.remove()
    rows = {name: torch.cat([x.flatten(0, -2) for x in parts]) for name, parts in seen.items()}
    return {name: torch.einsum("ti,tj->ij", x, x) / len(x) for name, x in rows.items()}


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


def unpack_by_loop(stored):
    """Byte by byte."""
    codes = []
    for byte in stored.tolist():
        codes += [byte % 16, byte // 16]
    return torch.tensor(codes)


def write_with_torch(model, path, *, rounding=torch.round, bits=4, whole=False, store=torch.Tensor.half):
    """The capstone of notebook 04 in one file of torch.save, bits and scales of all matrices in two long rows."""
    codes, scales, zeros = [], [], []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith("blocks."):
            weight = layer.weight.detach()
            low, high = (weight.min(), weight.max()) if whole else (weight.amin(1), weight.amax(1))
            scale = ((high - low) / (2**bits - 1)).half().float().expand(len(weight))
            zero = (-low / scale).round()
            code = (rounding(weight / scale[:, None]) + zero[:, None]).clamp(0, 2**bits - 1)
            codes.append(code.flatten()), scales.append(scale), zeros.append(zero)
    pairs = torch.cat(codes).byte().view(-1, 2)
    packed = pairs[:, 0] + 16 * pairs[:, 1]
    torch.save({"c": packed, "s": store(torch.cat(scales)), "z": torch.cat(zeros).byte()}, path)


def read_with_torch(model, path):
    """Reads what `write_with_torch` has written."""
    file = torch.load(path, weights_only=True)
    codes, row, at = unpack_by_bytes(file["c"]), 0, 0
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith("blocks."):
            out, size = len(layer.weight), layer.weight.numel()
            scale, zero = file["s"][row : row + out, None].float(), file["z"][row : row + out, None]
            layer.weight.copy_(scale * (codes[at : at + size].view(layer.weight.shape).float() - zero))
            row, at = row + out, at + size


def unpack_by_bytes(stored):
    """Both halves of each byte, side by side."""
    return torch.stack((stored % 16, stored // 16), 1).flatten()


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


def mxfp4_by_loop(block):
    """Weight by weight."""
    scale = 2.0 ** (math.frexp(max(abs(float(w)) for w in block))[1] - 3)
    nearest = [min((0, 0.5, 1, 1.5, 2, 3, 4, 6), key=lambda place: abs(abs(float(w)) / scale - place)) for w in block]
    return torch.tensor([math.copysign(n * scale, w) for n, w in zip(nearest, block, strict=True)])


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


class HandAttention(nn.Module):
    """As the notebook gives it, without the middle of forward."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width, False), nn.Linear(width, width, False)

    def split(self, x):
        """Queries, keys and values, (B, heads, T, d) each."""
        return [p.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, -1)]

    def join(self, y):
        """(B, T, width)."""
        return y.transpose(1, 2).flatten(2)


def attention(middle):
    """An attention of this middle: (q, k, v) -> y."""
    return type("Attention", (HandAttention,), {"forward": lambda self, x: self.out(self.join(middle(*self.split(x))))})


def attention_forward(forward):
    """An attention of this forward."""
    return type("Attention", (HandAttention,), {"forward": forward})


def attend(q, k, v, *, masked=True, axis=-1):
    """Row by row of softmax."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if masked:
        scores = scores + torch.full(scores.shape[-2:], -math.inf).triu(1)
    return scores.softmax(axis) @ v


def attend_by_loop(q, k, v):
    """Place by place."""
    rows = []
    for t in range(q.shape[2]):
        scores = (q[:, :, t : t + 1] * k[:, :, : t + 1]).sum(-1) / math.sqrt(q.shape[-1])
        rows.append((scores.softmax(-1)[..., None] * v[:, :, : t + 1]).sum(2))
    return torch.stack(rows, 2)


def block(forward):
    """A block of this forward; the rest is the course's."""
    return type("Block", (nb03.Block,), {"forward": forward})


def block_by_names(self, x):
    """A name for each line."""
    read = self.attention_norm(x)
    after = x + self.attention(read)
    found = self.mlp(self.mlp_norm(after))
    return after + found


def block_in_place(self, x):
    """Changes its argument."""
    x += self.attention(self.attention_norm(x))
    x += self.mlp(self.mlp_norm(x))
    return x


def block_printed(self, x):
    """Forgets to return."""
    x = x + self.attention(self.attention_norm(x))
    print((x + self.mlp(self.mlp_norm(x))).shape)


def gpt(forward):
    """A model of this forward; the rest is the course's."""
    return type("GPT", (nb03.WholeGPT,), {"forward": forward})


def through(model, x, blocks=None):
    """All blocks, or these."""
    return functools.reduce(lambda stream, block: block(stream), model.blocks if blocks is None else blocks, x)


def embedded(model, tokens):
    """With an arange."""
    return model.token_embedding(tokens) + model.position_embedding(torch.arange(tokens.shape[1]))


def loss_of(model, rows):
    """The mean loss."""
    return F.cross_entropy(model(rows[:, :-1]).transpose(1, 2), rows[:, 1:])


def step_by_hand(model, optimizer, rows):
    """Logarithms in place of cross_entropy, gradients cleared at the end."""
    log_p = model(rows[:, :-1]).log_softmax(-1)
    loss = -log_p.gather(-1, rows[:, 1:, None]).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def step_of(*order, loss=loss_of, result=lambda value: value.item()):
    """A step in this order."""

    def step(model, optimizer, rows):
        value = loss(model, rows)
        for name in order:
            {"clear": optimizer.zero_grad, "back": value.backward, "step": optimizer.step}[name]()
        return result(value)

    return step


def step_unreturned(model, optimizer, rows):
    """Prints."""
    print(step_by_hand(model, optimizer, rows))


def sampling_by_sorting(logits, temperature, top_k):
    """The lowest are cut."""
    logits = logits.clone()
    logits[logits.argsort()[: len(logits) - top_k]] = -math.inf
    return F.softmax(logits / temperature, dim=0)


def sampling_in_place(logits, temperature, top_k):
    """Changes its argument."""
    logits[logits < logits.topk(top_k).values[-1]] = -math.inf
    return (logits / temperature).softmax(0)


def sampling_by_scatter(logits, temperature, top_k):
    """Softmax of the kept, put back into their places."""
    top = logits.topk(top_k)
    return torch.zeros_like(logits).scatter(0, top.indices, (top.values / temperature).softmax(0))


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


def walk_by_inverse(weight, keep, hessian, snap):
    """Column by column with the inverse for those that are left, as OBQ does it."""
    weight, result = weight.clone(), torch.zeros_like(weight)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    for k in range(weight.shape[1]):
        inverse = torch.linalg.inv(damped[k:, k:])
        result[:, k] = keep[:, k] * snap(weight[:, k].clone())
        weight[:, k:] -= (weight[:, k] - result[:, k])[:, None] / inverse[0, 0] * inverse[0]
    return result


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


def lloyd_by_while(weight, steps):
    """Plain Python."""
    sizes = weight.abs().tolist()
    level = max(sizes)
    while steps:
        level = statistics.fmean(size for size in sizes if size > level / 2)
        steps -= 1
    return level


def erf_by_sums(x):
    """2/sqrt(pi) times the integral of exp(-t^2), by the rule of the midpoint."""
    n = 20000
    return 2 / math.sqrt(math.pi) * sum(math.exp(-((i + 0.5) * x / n) ** 2) for i in range(n)) * x / n


def best_of_all(weight, lower, upper, gram):
    """All combinations in a loop, one by one."""
    best, least = None, math.inf
    for ends in itertools.product(*zip(lower.tolist(), upper.tolist(), strict=True)):
        change = torch.tensor(ends, dtype=weight.dtype) - weight
        if float(change @ gram @ change) < least:
            best, least = torch.tensor(ends, dtype=weight.dtype), float(change @ gram @ change)
    return best


def penalty_by_loop(share, progress, first=20.0, last=2.0):
    """A mean in Python."""
    if progress < 0.2:
        return 0
    beta = first + (last - first) * (progress - 0.2) / 0.8
    return statistics.fmean(1 - abs(2 * h - 1) ** beta for h in share.tolist())


def straight_with(line):
    """A fake quantiser with its last line."""

    def fake(weight, scale, low, high):
        return line(weight, scale * (weight / scale).round().clamp(low, high))

    return fake


class StraightThrough(torch.autograd.Function):
    """The gradient written by hand."""

    @staticmethod
    def forward(context, weight, scale, low, high):
        """Rounded."""
        return scale * torch.round(weight / scale).clamp(low, high)

    @staticmethod
    def backward(context, upstream):
        """Straight through."""
        return upstream, None, None, None


def penalty_of_tensors(share, progress):
    """In other words."""
    way = max(0.0, (progress - 0.2) / 0.8)
    if progress >= 0.2:
        return sum(1 - torch.pow(torch.abs(2 * h - 1), 20 * (1 - way) + 2 * way) for h in share) / len(share)
    return torch.tensor(0.0)


def rectified_by_loop(v):
    """Number by number."""
    return torch.tensor([min(1.0, max(0.0, 1.2 / (1 + math.exp(-x)) - 0.1)) for x in v.flatten()]).view(v.shape)


def errors_by_loop(change, gram):
    """Row by row."""
    return torch.stack([d @ gram @ d for d in change])


def learned_with(line="v", penalty=1.0, rate=0.3, unit=True, begin=torch.clone):
    """AdaRound once more, in other words: the trace of a product."""

    def learn(v, weight, lower, upper, gram, steps, strength):
        nearest = torch.where(v >= 0, upper, lower) - weight
        scale = torch.trace(nearest @ gram @ nearest.T) if unit else 1.0
        v = torch.nn.Parameter(begin(v))
        optimizer = torch.optim.Adam([v], lr=rate)
        for step in range(steps):
            optimizer.zero_grad()
            h = torch.clamp(1.2 * torch.sigmoid(v) - 0.1, 0, 1)
            change = lower + h * (upper - lower) - weight
            loss = torch.trace(change @ gram @ change.T) / scale
            loss = loss + penalty * strength * penalty_of_tensors(h.flatten(), step / steps)
            loss.backward()
            optimizer.step()
        return {"v": v, "h": h, "up": v >= 0, "list": v.tolist(), "none": None}[line]

    return learn


def lsq_by_loop(weight, scale, upstream):
    """Row by row and weight by weight."""
    rows = []
    for w, s, g in zip(weight.tolist(), scale.tolist(), upstream.tolist(), strict=True):
        slopes = [round(x / s) - x / s if abs(x / s) <= 1 else math.copysign(1, x) for x in w]
        rows.append(sum(a * b for a, b in zip(g, slopes, strict=True)) / len(w) ** 0.5)
    return torch.tensor(rows)


def act_order_by_inverse(weight, grid, hessian):
    """GPTQ as the paper prints it, by elimination in the inverse, from the largest diagonal down."""
    order = sorted(range(len(hessian)), key=lambda i: -float(hessian[i, i]))
    weight, codes = weight.clone(), torch.zeros_like(weight, dtype=torch.long)
    inverse = torch.linalg.inv(hessian)
    for k in order:
        codes[:, k] = grid.encode(weight[:, k : k + 1])[:, 0]
        error = weight[:, k] - grid.decode(codes[:, k : k + 1])[:, 0]
        weight -= torch.outer(error / inverse[k, k], inverse[k])
        inverse = inverse - torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return codes


def gptq_by_elimination(weight, grid, hessian):
    """GPTQ with the inverse updated after each column."""
    weight, codes, inverse = weight.clone(), torch.zeros_like(weight, dtype=torch.long), torch.linalg.inv(hessian)
    for k in range(weight.shape[1]):
        codes[:, k] = grid.encode(weight[:, k : k + 1])[:, 0]
        error = weight[:, k] - grid.decode(codes[:, k : k + 1])[:, 0]
        weight[:, k + 1 :] -= torch.outer(error, inverse[k, k + 1 :]) / inverse[k, k]
        inverse -= torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return codes


def gptq_by_targets(weight, grid, hessian, told=1.0, last=None):
    """GPTQ with each error added at once to the targets that are still to come, or a share of it, up to a column."""
    lower = torch.linalg.cholesky(hessian.flip(0, 1))
    factor = lower.flip(0, 1)
    targets, codes = weight.clone(), []
    for k in range(weight.shape[1]):
        code = grid.encode(targets[:, k : k + 1])
        codes.append(code.long())
        error = weight[:, k : k + 1] - grid.decode(code)
        targets[:, k + 1 : last] += told * error * (factor[k] / factor.diagonal())[k + 1 : last]
    return torch.cat(codes, 1)


def gptq_with_lower_factor(weight, grid, hessian):
    """Forgets to turn the factor."""
    factor = torch.linalg.cholesky(hessian)
    codes, error = torch.zeros_like(weight), torch.zeros_like(weight)
    for k in range(weight.shape[1]):
        target = weight[:, k] + error @ factor[:, k] / factor[k, k]
        codes[:, k] = grid.encode(target[:, None])[:, 0]
        error[:, k] = weight[:, k] - grid.decode(codes[:, k : k + 1])[:, 0]
    return codes.long()


def spread_by_least_squares(weight, rounded, inverse):
    """The free columns solve their own linear equations, row by row."""
    hessian, rows = torch.linalg.inv(inverse), []
    for row, first in zip(weight, rounded, strict=True):
        lost = row[0] - first
        moved = row[1:] + torch.linalg.solve(hessian[1:, 1:], hessian[1:, 0] * lost)
        rows.append(torch.cat((first[None], moved)))
    return torch.stack(rows)


def damped_in_place(hessian, share=0.01):
    """Changes its argument."""
    hessian.diagonal().add_(share * hessian.diagonal().mean())
    return hessian


def damped_copy(hessian, share=0.01):
    """Changes a copy."""
    return damped_in_place(hessian.clone(), share)


def lazy_in_place(targets, errors, pull, start, stop):
    """In a copy, column by column."""
    targets = targets.clone()
    for j in range(start, stop):
        targets[:, stop:] += torch.outer(errors[:, j - start], pull[j, stop:])
    return targets


def rows_by_elimination(inverse):
    """Row after row from the inverse that is left."""
    left, rows = inverse.clone(), []
    for k in range(len(inverse)):
        rows.append(left[k] / left[k, k])
        left = left - torch.outer(left[:, k], left[k]) / left[k, k]
    return torch.stack(rows)


def rows_by_inversion(inverse):
    """An inverse for each column."""
    hessian, rows = torch.linalg.inv(inverse), torch.zeros_like(inverse)
    for k in range(len(inverse)):
        part = torch.linalg.inv(hessian[k:, k:])
        rows[k, k:] = part[0] / part[0, 0]
    return rows


def dot_by_loop(packed, scale, zero, x):
    """Byte by byte."""
    total = 0.0
    for i, byte in enumerate(packed.tolist()):
        total += (byte % 16 - zero) * float(x[2 * i]) + (byte // 16 - zero) * float(x[2 * i + 1])
    return scale * total


def kernel_by_rows(packed, scale, zero, even, odd):
    """Row by row, nibble by nibble, the zero point taken off each code."""
    y = np.zeros(len(packed), np.float32)
    for r, row in enumerate(packed):
        for byte, a, b in zip(row, even, odd, strict=True):
            y[r] += scale[r] * ((int(byte) % 16 - zero[r]) * a + (int(byte) // 16 - zero[r]) * b)
    return y


def kernel_without_return(packed, scale, zero, even, odd):
    """Forgets to return."""
    kernel_by_rows(packed, scale, zero, even, odd)


def hadamard_by_recursion(n):
    """A quarter of it, four times."""
    if n == 1:
        return torch.ones(1, 1)
    quarter = hadamard_by_recursion(n // 2)
    return torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), quarter)


def w8a8_in_floats(codes, zero, weight_scale, x_scale, q):
    """Weights and activations in floats first."""
    return (q.double() * x_scale) @ ((codes.double() - zero) * weight_scale).T


def ends_by_hand(scores, share):
    """Sums, with the middle between them."""
    k, n = int(share * len(scores) + 0.5), len(scores)
    return [sum(scores[:k]) / k, sum(scores[k : n - k]) / (n - 2 * k), sum(scores[n - k :]) / k]


def attainable_by_products(blocks, widths, base):
    """All mixes that differ, if they are few."""
    counts = itertools.combinations_with_replacement(widths, blocks)
    return sorted({Fraction(base * blocks, sum(mix)) for mix in counts})


def finds_a_bug(algorithm):
    """A toy of two parts and two levels."""
    damage = {("x", 1): 1.0, ("x", 2): 3.0, ("y", 1): 5.0, ("y", 2): 11.0}
    scores = algorithm(["x", "y"], [1, 2], lambda part, level: 10.0 + damage.get((part, level), 0.0))
    return scores.keys() == {"x", "y"} and np.isclose(scores["x"], 2) and np.isclose(scores["y"], 8)


def adds_by_masks(weights, level, loss):
    """All masks first, then the cut, and back."""
    kept = [weight.abs() > weight.abs().flatten().kthvalue(round(level * weight.numel())).values for weight in weights]
    whole, copies = loss(), copy.deepcopy(weights)
    for weight, stays in zip(weights, kept, strict=True):
        weight.masked_fill_(~stays, 0)
    damaged = loss()
    for weight, before in zip(weights, copies, strict=True):
        weight[:] = before
    return damaged - whole


def adds_the_base_last(weights, level, loss):
    """The whole model is measured after it has been put back."""
    copies = [weight.clone() for weight in weights]
    for weight in weights:
        weight[weight.abs() <= weight.abs().flatten().sort().values[round(level * weight.numel()) - 1]] = 0
    damaged = loss()
    for weight, before in zip(weights, copies, strict=True):
        weight.copy_(before)
    return damaged - loss()


def adds_under_one_name(weights, level, loss):
    """A second name is no copy."""
    whole, originals = loss(), list(weights)
    for weight in weights:
        weight *= weight.abs() > weight.abs().flatten().kthvalue(round(level * weight.numel())).values
    damaged = loss()
    for weight, original in zip(weights, originals, strict=True):
        weight.copy_(original)
    return damaged - whole


def score_is_fair(score, x, targets, weight):
    """The same shift for all classes, and a large random one."""
    quiet = torch.ones_like(weight) * torch.arange(weight.shape[1])
    loud = 5 * torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(3))
    return math.isclose(score(x, targets, weight, quiet), 0, abs_tol=1e-6) and score(x, targets, weight, loud) > 0


def bytes_of_a_mixture(shapes, widths, others):
    """Bit by bit, rounded up by a negative floor."""
    parts = [(-(-columns * widths[name] // 8) + 2) * rows - (-rows * widths[name] // 8)
             for name, (rows, columns) in shapes.items()]
    return sum(parts) + others + others


def spearman_by_differences(x, y):
    """The short formula."""
    n, places = len(x), [{value: place for place, value in enumerate(sorted(side))} for side in (x, y)]
    square = sum((places[0][a] - places[1][b]) ** 2 for a, b in zip(x, y, strict=True))
    return 1 - 6 * square / (n * (n * n - 1))


def widths_by_recursion(costs, sizes, budget):
    """From the last layer to the first, with a cache."""
    names = list(costs)

    @functools.lru_cache(None)
    def best(i, left):
        if i == len(names):
            return 0.0, ()
        found = [(costs[names[i]][b] + best(i + 1, left - n)[0], (b, *best(i + 1, left - n)[1]))
                 for b, n in sizes[names[i]].items() if n <= left]
        return min(found, default=(math.inf, ()))

    return dict(zip(names, best(0, budget)[1], strict=False))


def widths_of_the_fullest(costs, sizes, budget):
    """A table of bytes, and at the end the entry of the most bytes."""
    table = {0: (0.0, {})}
    for name in costs:
        longer = {}
        for spent, (cost, widths) in table.items():
            for bits, more in costs[name].items():
                size = spent + sizes[name][bits]
                if size <= budget and (size not in longer or cost + more < longer[size][0]):
                    longer[size] = cost + more, {**widths, name: bits}
        table = longer
    return table[max(table)][1]


def widths_by_trying_all(costs, sizes, budget):
    """Right, and too slow for more than a dozen layers."""
    best = math.inf, {}
    for mix in itertools.product(*costs.values()):
        widths = dict(zip(costs, mix, strict=True))
        if sum(sizes[name][bits] for name, bits in widths.items()) <= budget:
            best = min(best, (sum(costs[name][bits] for name, bits in widths.items()), widths), key=lambda e: e[0])
    return best[1]


def paired_by_numpy(mine, theirs, ddof=1, z=1.96):
    """With its own standard error."""
    gap = np.asarray(mine) - np.asarray(theirs)
    half = z * gap.std(ddof=ddof) / np.sqrt(gap.size)
    return gap.mean(), gap.mean() - half, gap.mean() + half


def better(a, b):
    """Counts the seeds."""
    wins = [sum(x[2] < y[1] for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a))]
    return "A" if wins[0] == len(a) else "B" if wins[1] == len(b) else "open"


def copies(table):
    """Index by index."""
    names, pairs = list(table), []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            if all(x == y for x, y in zip(table[names[i]], table[names[j]], strict=True)):
                pairs.append([names[i], names[j]])
    return pairs


def shared_by_commonprefix(a, b):
    """Python's own."""
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))


def lot_by_loop(p, u):
    """Goes along the line."""
    end = 0.0
    for i, share in enumerate(p.tolist()):
        end += share
        if u < end:
            return i
    return len(p) - 1


def lot_without_last_return(p, u):
    """Forgets to return in some cases."""
    for i, end in enumerate(p.cumsum(0).tolist()):
        if end > u and i:
            return i


def huffman_by_sorting(counts):
    """Sorts anew in every round, and walks the tree at the end."""
    trees = [(count, [code]) for code, count in counts.items()]
    depth = dict.fromkeys(counts, 0)
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[0])
        (a, left), (b, right), *trees = trees
        for code in left + right:
            depth[code] += 1
        trees.append((a + b, right + left))
    return depth


def huffman_without_heap(counts):
    """Fills a list, and takes from it as if it were a heap."""
    places = {code: place for place, code in enumerate(counts)}
    heap = [(often, places[code], {code: 0}) for code, often in counts.items()]
    while len(heap) > 1:
        (a, _, left), (b, place, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a + b, place, {code: depth + 1 for code, depth in (left | right).items()}))
    return heap[0][2]


def huffman_as_list(counts):
    """Lengths without their codes."""
    return list(huffman_by_sorting(counts).values())


def huffman_of_the_common(counts):
    """Leaves the rarest code out."""
    rarest = min(counts, key=counts.get)
    return huffman_by_sorting({code: count for code, count in counts.items() if code != rarest})


def decode_by_prefix(bits, words):
    """Cuts codewords off the front."""
    found = []
    while bits:
        code = next(code for code, word in words.items() if bits.startswith(word))
        found.append(code)
        bits = bits[len(words[code]):]
    return found


def decode_without_return(bits, words):
    """Forgets to return."""
    decode_by_prefix(bits, words)


def step_by_bisection(rate_of, rate, rounds=60):
    """On the plain scale, with many rounds."""
    low, high = 1e-4, 10.0
    for _ in range(rounds):
        middle = (low + high) / 2
        if rate_of(middle) > rate:
            low = middle
        else:
            high = middle
    return middle


def step_by_trying(rate_of, rate):
    """The nearest of many steps."""
    return min(np.geomspace(0.01, 0.5, 400), key=lambda step: abs(rate_of(step) - rate))


def lloyd_by_means(samples, levels):
    """Borders half-way."""
    cells = torch.bucketize(samples, (levels[1:] + levels[:-1]) / 2)
    return torch.zeros_like(levels).index_reduce(0, cells, samples, "mean", include_self=False)


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
  right   lambda weights, bits: weights * bits / 8 / 1e9
  right   lambda weights, bits: weights * bits / 8e9
  right   lambda weights, bits: np.float64(weights * bits / 8 / 10**9)
  right   lambda weights, bits: torch.tensor(weights * bits / 8e9, dtype=torch.float64)
  right   lambda weights, bits: Fraction(int(weights) * bits, 8 * 10**9)
  known   lambda weights, bits: weights * 4 / 1e9
  known   lambda weights, bits: weights / 1e9
  known   lambda weights, bits: weights * bits / 8
  known   lambda weights, bits: weights * bits / 8 / 2**30
  wrong   lambda weights, bits: 350
  wrong   lambda weights, bits: weights * bits // 8e9
  wrong   lambda weights, bits: f"{weights * bits / 8e9} GB"
  wrong   lambda weights, bits: -weights * bits / 8e9
  missing lambda weights, bits: ...

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

saved
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

mxfp4
  right   mxfp4_by_loop
  right   lambda block: BLOCKS["mxfp4"].round(block[None].float())[0]
  right   lambda block: mxfp4_by_loop(block).double()
  form    lambda block: list(mxfp4_by_loop(block))
  right   lambda block: torch.tensor([float(mxfp4_by_loop(block)[i]) for i in range(32)])
  form    lambda block: mxfp4_by_loop(block).numpy()
  form    lambda block: mxfp4_by_loop(block).tolist()
  known   lambda block: mxfp4_by_loop(block).abs()
  known   lambda block: mxfp4_by_loop(block) / 2.0 ** (math.floor(math.log2(block.abs().max())) - 2)
  wrong   lambda block: BLOCKS["nvfp4"].round(block[None].float())[0]
  wrong   lambda block: BLOCKS["nf4"].round(block[None].float())[0]
  wrong   lambda block: block
  wrong   lambda block: block.bfloat16()
  wrong   lambda block: mxfp4_by_loop(block)[None]
  wrong   lambda block: -mxfp4_by_loop(block)
  wrong   lambda block: mxfp4_by_loop(block)[:16]
  wrong   lambda block: mxfp4_by_loop(block).long()
  wrong   lambda block: mxfp4_by_loop(block) + 1e-3
  missing lambda block: ...

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
  form    lambda losses: losses.mean().exp()
  right   lambda losses: float(losses.exp().log().mean().exp())
  right   lambda losses: np.exp(losses.numpy().mean())
  right   lambda losses: math.e ** (sum(losses.tolist()) / len(losses))
  form    lambda losses: losses.exp().prod() ** (1 / len(losses))
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
  right   attention(attend)
  right   attention(attend_by_loop)
  right   attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
  right   attention(lambda q, k, v: (torch.einsum("bhtd,bhsd->bhts", q, k) * q.size(-1) ** -0.5).masked_fill(
            torch.ones(q.size(2), q.size(2)).triu(1) == 1, -1e9).softmax(3) @ v)
  right   attention(lambda q, k, v: (lambda s: (s.exp().tril() / s.exp().tril().sum(-1, keepdim=True)) @ v)(
            q @ k.mT / q.shape[-1] ** 0.5))
  right   attention_forward(lambda self, x: self.out(torch.cat([attend(*(p[:, i : i + 1] for p in self.split(x)))[:, 0]
            for i in range(self.heads)], -1)))
  known   attention(lambda q, k, v: attend(q, k, v, masked=False))
  known   attention(lambda q, k, v: attend(k, q, v))
  known   attention(lambda q, k, v: attend(q, k, v, axis=-2))
  known   attention(lambda q, k, v: attend(q * q.shape[-1] ** 0.5, k, v))
  known   attention(lambda q, k, v: attend(q / q.shape[-1] ** 0.5, k, v))
  known   attention(lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril() @ v)
  known   attention(lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).tril().softmax(-1) @ v)
  known   attention(lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).tril() @ v)
  wrong   attention(lambda q, k, v: attend(q, k, k))
  wrong   attention(lambda q, k, v: attend(q, k, v) @ v.mT)
  wrong   attention(lambda q, k, v: attend(q, k, v).mT)
  wrong   attention(lambda q, k, v: v)
  wrong   attention(lambda q, k, v: q @ k)
  wrong   attention_forward(lambda self, x: self.join(attend(*self.split(x))))
  wrong   attention_forward(lambda self, x: self.out(x))
  wrong   attention_forward(lambda self, x: print(x.shape))
  wrong   attend
  wrong   nb03.Attention(8, 2)
  missing attention(lambda q, k, v: ...)
  missing attention_forward(lambda self, x: ...)

block
  right   block(block_by_names)
  right   block(lambda self, x: (y := x + self.attention(self.attention_norm(x))) + self.mlp(self.mlp_norm(y)))
  right   block(lambda self, x: torch.add(y := torch.add(x, self.attention(self.attention_norm(x))),
            self.mlp(self.mlp_norm(y))))
  known   block(lambda self, x: self.mlp(self.mlp_norm(self.attention(self.attention_norm(x)))))
  known   block(lambda self, x: (y := x + self.attention(x)) + self.mlp(y))
  known   block(lambda self, x: x + self.attention(self.attention_norm(x)) + self.mlp(self.mlp_norm(x)))
  known   block(lambda self, x: self.mlp(self.mlp_norm(x + self.attention(self.attention_norm(x)))))
  wrong   block(block_in_place)
  wrong   block(block_printed)
  wrong   block(lambda self, x: x + self.attention(self.attention_norm(x)))
  wrong   block(lambda self, x: x + self.mlp(self.mlp_norm(x)))
  wrong   block(lambda self, x: (y := self.attention_norm(x)) + self.attention(y) + self.mlp(self.mlp_norm(y)))
  wrong   block(lambda self, x: (y := x * self.attention(self.attention_norm(x))) + self.mlp(self.mlp_norm(y)))
  wrong   block(lambda self, x: x + self.attention(self.norm(x)))
  missing block(lambda self, x: ...)

gpt
  right   gpt(lambda self, tokens: self.final_norm(through(self, embedded(self, tokens)))
            @ self.token_embedding.weight.T)
  right   gpt(lambda self, tokens: F.linear(self.final_norm(through(self, embedded(self, tokens))),
            self.token_embedding.weight))
  right   gpt(lambda self, tokens: self.final_norm(through(self, F.embedding(tokens, self.token_embedding.weight) +
            self.position_embedding.weight[None, : tokens.size(1)])) @ self.token_embedding.weight.mT)
  right   gpt(lambda self, tokens: torch.stack([self.final_norm(through(self, embedded(self, row[None])))[0] @
            self.token_embedding.weight.T for row in tokens]))
  known   gpt(lambda self, tokens: self.final_norm(through(self, embedded(self, tokens))))
  known   gpt(lambda self, tokens: through(self, embedded(self, tokens)) @ self.token_embedding.weight.T)
  known   gpt(lambda self, tokens: self.final_norm(embedded(self, tokens)) @ self.token_embedding.weight.T)
  known   gpt(lambda self, tokens: self.final_norm(through(self, self.token_embedding(tokens))) @
            self.token_embedding.weight.T)
  known   gpt(lambda self, tokens: F.linear(self.final_norm(through(self, embedded(self, tokens))),
            self.token_embedding.weight).softmax(-1))
  wrong   gpt(lambda self, tokens: self.final_norm(through(self, embedded(self, tokens))) @ self.token_embedding.weight)
  wrong   gpt(lambda self, tokens: self.final_norm(through(self, embedded(self, tokens), self.blocks[:1])) @
            self.token_embedding.weight.T * 2)
  wrong   gpt(lambda self, tokens: self.final_norm(through(self, self.token_embedding(tokens) +
            self.position_embedding(tokens.clamp(max=7)))) @ self.token_embedding.weight.T)
  wrong   gpt(lambda self, tokens: F.linear(self.final_norm(through(self, embedded(self, tokens))),
            self.token_embedding.weight) + 1)
  wrong   gpt(lambda self, tokens: F.linear(self.final_norm(through(self, embedded(self, tokens))),
            self.token_embedding.weight).argmax(-1))
  wrong   gpt(lambda self, tokens: self.head_matrix(through(self, embedded(self, tokens))))
  missing gpt(lambda self, tokens: ...)

step
  form    step_by_hand
  right   step_of("clear", "back", "step")
  right   step_of("back", "step", "clear")
  form    step_of("clear", "back", "step", result=lambda value: value)
  form    step_of("clear", "back", "step", result=lambda value: value.detach())
  right   step_of("clear", "back", "step", loss=lambda model, rows: F.cross_entropy(
            model(rows[:, :-1]).reshape(-1, 11), rows[:, 1:].reshape(-1)))
  known   step_of("back", "step")
  known   step_of("clear", "back")
  known   step_of("back", "clear", "step")
  known   step_of("clear", "back", "step", loss=lambda model, rows: loss_of(model, rows) * rows[:, 1:].numel())
  known   step_of("clear", "back", "step", loss=lambda model, rows: F.cross_entropy(
            model(rows[:, :-1]).transpose(1, 2), rows[:, :-1]))
  known   step_of("clear", "back", "step", loss=lambda model, rows: F.cross_entropy(
            model(rows[:, :-1]).softmax(-1).transpose(1, 2), rows[:, 1:]))
  wrong   step_of("step")
  wrong   step_of("clear", "back", "step", "step")
  wrong   step_of("clear", "back", "step", loss=lambda model, rows: -loss_of(model, rows))
  wrong   step_of("clear", "back", "step", loss=lambda model, rows: F.cross_entropy(model(rows[:, :-1]), rows[:, 1:]))
  wrong   step_of("clear", "back", "step", result=lambda value: value.exp().item())
  wrong   step_unreturned
  missing lambda model, optimizer, rows: ...

sampling
  right   sampling_by_sorting
  right   sampling_by_scatter
  right   lambda l, t, k: F.softmax(l.masked_fill(l < l.sort().values[-k], -math.inf) / t, -1)
  right   lambda l, t, k: (l / t).masked_fill(l < l.topk(k).values.min(), -1e9).softmax(0)
  right   lambda l, t, k: (p := torch.where(l >= l.topk(k).values[-1], (l / t).exp(), 0.0)) / p.sum()
  right   lambda l, t, k: (p := (l / t).softmax(0) * (l >= l.topk(k).values[-1])) / p.sum()
  right   lambda l, t, k: sampling_by_sorting(l.double(), t, k)
  form    lambda l, t, k: sampling_by_sorting(l, t, k).numpy()
  form    lambda l, t, k: sampling_by_sorting(l, t, k).tolist()
  known   lambda l, t, k: (l / t).softmax(0)
  known   lambda l, t, k: sampling_by_sorting(l, 1 / t, k)
  known   lambda l, t, k: sampling_by_sorting(l, 1, k)
  known   lambda l, t, k: (l.topk(k).values / t).softmax(0)
  known   lambda l, t, k: sampling_by_sorting(l, 1, k) / t
  wrong   lambda l, t, k: (l.topk(k) / t).softmax(0)
  wrong   lambda l, t, k: (l.topk(k).indices / t).softmax(0)
  wrong   lambda l, t, k: sampling_by_sorting(l, t, k).log()
  wrong   lambda l, t, k: sampling_by_sorting(l, t, k + 1)
  wrong   lambda l, t, k: sampling_by_sorting(l - t, 1, k)
  wrong   lambda l, t, k: sampling_by_sorting(l, t, k).argmax()
  wrong   lambda l, t, k: (l / t).sigmoid()
  wrong   sampling_in_place
  missing lambda l, t, k: ...

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
  form    lambda l, h, b: torch.tensor([(h - l) / (2**b - 1), round(-l / ((h - l) / (2**b - 1)))], dtype=torch.float64)
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

values
  right   lambda q, s, z: (q - z) * s
  right   lambda q, s, z: s * q - s * z
  right   lambda q, s, z: (q.double() - z) * s
  right   lambda q, s, z: torch.as_tensor(s) * q.sub(z)
  form    lambda q, s, z: np.asarray(s) * (q.numpy() - np.asarray(z))
  form    lambda q, s, z: (s * (q - z)).tolist()
  known   lambda q, s, z: s * q
  known   lambda q, s, z: s * q - z
  known   lambda q, s, z: (q - z) / s
  wrong   lambda q, s, z: s * (z - q)
  wrong   lambda q, s, z: s * (q.to(torch.uint8) - torch.as_tensor(z).to(torch.uint8))
  wrong   lambda q, s, z: (s * (q - z)).round()
  wrong   lambda q, s, z: print(s * (q - z))

unpack4
  right   lambda b: torch.stack((b & 15, b >> 4), -1).view(-1).long()
  right   lambda b: torch.stack((b % 16, b // 16), 1).flatten().to(torch.int64)
  right   unpack_by_loop
  right   lambda b: (b.long()[:, None] >> torch.tensor([0, 4]) & 15).flatten()
  form    lambda b: torch.stack((b & 15, b >> 4), 1).flatten()
  form    lambda b: torch.stack((b & 15, b >> 4), 1).flatten().float()
  form    lambda b: unpack_by_loop(b).tolist()
  known   lambda b: torch.stack((b >> 4, b & 15), 1).flatten().long()
  known   lambda b: torch.cat((b & 15, b >> 4)).long()
  wrong   lambda b: torch.stack((b & 15, b >> 4), 1).long()
  wrong   lambda b: torch.stack((b & 7, b >> 4), 1).flatten().long()
  wrong   lambda b: (b >> 4).long()
  wrong   lambda b: b.long()

capstone
  right   (write_with_torch, read_with_torch)
  right   [write_with_torch, read_with_torch]
  missing (lambda model, path: ..., lambda model, path: ...)
  wrong   (write_with_torch, lambda model, path: ...)
  wrong   (write_with_torch, lambda model, path: None)
  wrong   (lambda model, path: None, read_with_torch)
  wrong   (write_with_torch, lambda model, path: read_with_torch(model))
  wrong   (functools.partial(write_with_torch, rounding=torch.floor), read_with_torch)
  wrong   (functools.partial(write_with_torch, bits=3), read_with_torch)
  wrong   (functools.partial(write_with_torch, whole=True), read_with_torch)
  right   (functools.partial(write_with_torch, store=torch.Tensor.float), read_with_torch)
  right   capstone.round_trip(row_grid=capstone.late_grid)
  known   capstone.round_trip(row_grid=capstone.grid_from_zero)
  wrong   write_with_torch
  wrong   read_with_torch
  wrong   "mine.safetensors"

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

survivors
  right   walk_by_inverse
  right   lambda w, k, h, snap: walk_by_inverse(w.double(), k, h.double(), snap)
  right   lambda w, k, h, snap: walk_by_inverse(w, k.float(), h, snap)
  right   lambda w, k, h, snap: walk_by_inverse(w, k, 2 * h, snap)
  form    lambda w, k, h, snap: walk_by_inverse(w, k, h, snap).numpy()
  known   lambda w, k, h, snap: walk_by_inverse(w, k, torch.eye(len(h)), snap)
  known   lambda w, k, h, snap: walk_by_inverse(w * k, k, h, snap)
  known   lambda w, k, h, snap: walk_by_inverse(w, ~k, h, snap)
  wrong   lambda w, k, h, snap: w * k
  wrong   lambda w, k, h, snap: snap(w) - w
  wrong   lambda w, k, h, snap: walk_by_inverse(w, k, h, snap) != 0
  wrong   lambda w, k, h, snap: walk_by_inverse(w, k, h, lambda column: column + 1)
  wrong   lambda w, k, h, snap: walk_by_inverse(w.flip(1), k.flip(1), h.flip(0, 1), snap).flip(1)
  wrong   lambda w, k, h, snap: walk_by_inverse(w, k, h.diagonal().diag(), snap)
  wrong   lambda w, k, h, snap: (lambda r: (r, w - r))(walk_by_inverse(w, k, h, snap))
  missing lambda w, k, h, snap: ...

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
  known   lambda s, b: (1 - s) * (1 + b)
  known   lambda s, b: b
  right   lambda s, b: np.float64(b) * (1 - s) + 1
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
  right   lambda t, a, largest: max(map(abs, (t, a - t, largest - a)))
  known   lambda t, a, largest: max(abs(a - t), abs(largest - a))
  known   lambda t, a, largest: max(t, largest - a)
  wrong   lambda t, a, largest: max(t, a, largest - a)
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
  known   lambda w: [t := w.abs().quantile(1 / 3, dim=1, keepdim=True), 2 * t]
  known   lambda w: [t := w.square().mean(1, keepdim=True).sqrt() * 0.43072729929545756,
            torch.where(w.abs() > t, w.abs(), torch.nan).nanmean(1, keepdim=True)]

pack5
  right   lambda codes: (codes.view(-1, 5) @ torch.tensor([1, 3, 9, 27, 81])).to(torch.uint8)
  right   lambda codes: torch.tensor([int("".join(map(str, row[::-1])), 3) for row in codes.view(-1, 5).tolist()],
            dtype=torch.uint8)
  known   lambda codes: torch.tensor([int("".join(map(str, row)), 3) for row in codes.view(-1, 5).tolist()],
            dtype=torch.uint8)
  right   lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1).byte()
  form    lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1)
  form    lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1).byte().numpy()
  form    lambda codes: [sum(int(c) * 3**i for i, c in enumerate(codes[k : k + 5])) for k in range(0, len(codes), 5)]
  wrong   lambda codes: (codes.view(-1, 5) * 3 ** torch.arange(5)).sum(1).to(torch.int8)

output_error
  right   errors_by_loop
  right   lambda d, gram: torch.einsum("ri,ij,rj->r", d, gram, d)
  right   lambda d, gram: (d @ gram @ d.T).diagonal()
  right   lambda d, gram: torch.tensor([float(x @ gram @ x) for x in d])
  form    lambda d, gram: errors_by_loop(d, gram).tolist()
  form    lambda d, gram: errors_by_loop(d, gram).numpy()
  known   lambda d, gram: (d**2).sum(1)
  known   lambda d, gram: torch.trace(d @ gram @ d.T)
  known   lambda d, gram: d @ gram @ d.T
  known   lambda d, gram: (d @ gram).square().sum(1)
  wrong   lambda d, gram: errors_by_loop(d, gram) / len(gram)
  wrong   lambda d, gram: errors_by_loop(d, gram).sqrt()
  wrong   lambda d, gram: errors_by_loop(d, gram)[:, None]
  wrong   lambda d, gram: (d @ gram).sum(1)

rectified
  right   rectified_by_loop
  right   lambda v: (1.2 / (1 + torch.exp(-v)) - 0.1).clamp(0, 1)
  right   lambda v: torch.clamp(torch.sigmoid(v) * 1.2 - 0.1, min=0, max=1)
  right   lambda v: (0.6 * torch.tanh(v / 2) + 0.5).clamp(0, 1)
  right   lambda v: F.hardtanh(1.2 * v.sigmoid() - 0.1, 0.0, 1.0)
  known   lambda v: v.sigmoid()
  known   lambda v: 1.2 * torch.sigmoid(v) - 0.1
  wrong   lambda v: (1.2 * v.sigmoid() - 0.1).clamp(-0.1, 1.1)
  wrong   lambda v: (1.1 * v.sigmoid() - 0.05).clamp(0, 1)
  wrong   lambda v: (1.2 * v.sigmoid() + 0.1).clamp(0, 1)
  wrong   lambda v: (v >= 0).double()
  missing lambda v: ...

learn of learned rounding
  right   learned_with()
  right   lambda *args: learned_with()(*args).detach()
  form    learned_with("list")
  wrong   learned_with("h")
  wrong   learned_with("up")
  wrong   learned_with("none")
  wrong   learned_with(begin=torch.zeros_like)
  known   learned_with(penalty=0.0)
  wrong   learned_with(penalty=-1.0)
  known   learned_with(unit=False)
  wrong   learned_with(rate=0.001)
  wrong   lambda v, weight, lower, upper, gram, steps, strength: torch.where(weight - lower > upper - weight, 1.0, -1.0)
  missing lambda v, weight, lower, upper, gram, steps, strength: ...

slides
  right   "b"
  right   "B)"
  known   "a"
  known   "c"
  known   "d"
  wrong   42.91

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
  right   lambda x, y: torch.linalg.svd(torch.linalg.svd(x - x.mean(0), full_matrices=False)[0].T
            @ torch.linalg.svd(y - y.mean(0), full_matrices=False)[0])[1]
  right   lambda x, y: torch.linalg.svdvals(torch.linalg.qr((x - x.mean(0)) / x.std(0)).Q.T
            @ torch.linalg.qr(7 * (y - y.mean(0))).Q)
  right   lambda x, y: torch.linalg.eigvals(torch.linalg.pinv(x - x.mean(0)) @ (y - y.mean(0))
            @ torch.linalg.pinv(y - y.mean(0)) @ (x - x.mean(0))).real.sort(descending=True)[0][
            : min(x.shape[1], y.shape[1])].clamp(min=0).sqrt()
  form    lambda x, y: np.linalg.svd(np.linalg.qr(x.numpy() - x.numpy().mean(0))[0].T
            @ np.linalg.qr(y.numpy() - y.numpy().mean(0))[0])[1]
  wrong   lambda x, y: torch.corrcoef(torch.cat((x, y), 1).T)[: x.shape[1], x.shape[1] :]
  wrong   lambda x, y: torch.linalg.svdvals((x - x.mean(0)).T @ (y - y.mean(0)))
  wrong   lambda x, y: torch.linalg.svdvals(torch.linalg.qr(x - x.mean()).Q.T @ torch.linalg.qr(y - y.mean()).Q)

scores of CMPQ
  right   lambda a: 1 - torch.stack([torch.cat((row[:i], row[i + 1 :])).mean() for i, row in enumerate(a)])
  form    lambda a: [1 - (sum(row) - row[i]) / (len(row) - 1) for i, row in enumerate(a.tolist())]
  known   lambda a: 1 - a.mean(1)
  right   lambda alike: (1 - alike).sum(1) / (len(alike) - 1)
  right   lambda alike: 1 - (alike.sum(0) - 1) / (alike.shape[0] - 1)
  right   lambda alike: 1 - alike[~torch.eye(len(alike), dtype=bool)].view(len(alike), -1).mean(1)
  right   lambda alike: torch.stack([1 - torch.cat((r[:i], r[i + 1 :])).mean() for i, r in enumerate(alike)])
  form    lambda alike: [float(1 - (row.sum() - 1) / (len(row) - 1)) for row in alike]
  known   lambda alike: 1 - alike.mean(0)
  wrong   lambda alike: 1 - alike.median(1).values
  wrong   lambda alike: (1 - alike).mean()
  wrong   lambda alike: 1 / ((alike.sum(1) - 1) / (len(alike) - 1))

floor
  right   floor_by_trial
  right   lambda step: (-step / 2, (step / 2) ** 2 + step**2 / 12)
  right   lambda step: [-0.5 * step, torch.tensor(step**2 / 3)]
  wrong   lambda step: (-step / 2, step / 3)
  right   lambda step: (-0.5 * step, step * step / 3)
  right   lambda step: (float((-step * torch.linspace(0, 1, 100001)).mean()),
            float((step * torch.linspace(0, 1, 100001)).square().mean()))
  right   lambda step: ((e := -step * torch.rand(1000000, generator=torch.Generator().manual_seed(1))).mean(),
            e.square().mean())
  right   lambda step: [-step / 2, step**2 / 12 + (step / 2) ** 2]
  known   lambda step: (0, step**2 / 12)
  wrong   lambda step: (-step / 2, step / math.sqrt(3))
  wrong   lambda step: (step**2 / 3, -step / 2)

clusters
  wrong   widths_of_three
  right   lambda labels, scores, bits: [sorted(bits)[sorted(set(labels), key=lambda c: statistics.fmean(
            s for s, own in zip(scores, labels) if own == c)).index(label)] for label in labels]
  right   lambda labels, scores, bits: np.array([sorted(bits)[sorted(set(labels), key=lambda c: statistics.fmean(
            s for s, own in zip(scores, labels) if own == c)).index(label)] for label in labels])
  wrong   lambda labels, scores, bits: [sorted(bits)[sorted(range(3), key=lambda c: np.mean(
            [s for s, own in zip(scores, labels) if own == c] or [-1])).index(label)] for label in labels]
  wrong   lambda labels, scores, bits: [{0: 16, 1: 8, 2: 4}.get(label) for label in labels]
  wrong   lambda labels, scores, bits: [bits[sorted(set(labels), key=lambda c: -statistics.fmean(
            s for s, own in zip(scores, labels) if own == c)).index(label)] for label in labels]
  wrong   lambda labels, scores, bits: [sorted(bits)[sorted(set(labels), key=lambda c: max(
            s for s, own in zip(scores, labels) if own == c)).index(label)] for label in labels]

mask of PMPQ
  right   lambda w, level: torch.ones_like(w, dtype=torch.bool).view(-1).index_fill(0,
            w.abs().view(-1).argsort(stable=True)[: round(level * w.numel())], False).view_as(w)
  right   lambda w, level: w.abs() > w.abs().flatten().kthvalue(round(level * w.numel())).values
  right   lambda w, level: w.abs() > torch.quantile(w.abs(), level)
  right   lambda w, level: w.square() > w.square().flatten().sort().values[round(level * w.numel()) - 1]
  right   lambda w, level: w.abs() >= w.abs().flatten().sort().values[round(level * w.numel())]
  form    lambda w, level: w.numpy().__abs__() > np.quantile(np.abs(w.numpy()), level)
  known   lambda w, level: w.abs() >= w.abs().flatten().sort().values[round(level * w.numel()) - 1]
  known   lambda w, level: w > w.flatten().sort().values[round(level * w.numel()) - 1]
  known   lambda w, level: w.abs() <= w.abs().flatten().sort().values[round(level * w.numel()) - 1]
  known   lambda w, level: w.abs() > level * w.abs().amax()
  known   lambda w, level: w * (w.abs() > w.abs().flatten().sort().values[round(level * w.numel()) - 1])
  wrong   lambda w, level: w.abs() > level
  wrong   lambda w, level: w.abs() > w.abs().mean()
  wrong   lambda w, level: w.abs() > w.abs().flatten().sort(descending=True).values[round(level * w.numel()) - 1]

added_loss
  right   adds_by_masks
  right   adds_the_base_last
  right   lambda weights, level, loss: torch.tensor(adds_by_masks(weights, level, loss))
  known   adds_under_one_name
  known   lambda weights, level, loss: -adds_by_masks(weights, level, loss)
  known   lambda weights, level, loss: adds_by_masks(weights, level, loss) + loss()
  known   lambda weights, level, loss: adds_by_masks([weight * 1 for weight in weights], level, loss)
  known   lambda weights, level, loss: adds_by_masks(weights[:1], level, loss)
  known   lambda weights, level, loss: sum(adds_by_masks([weight], level, loss) for weight in weights)
  wrong   lambda weights, level, loss: sum(adds_by_masks([weight], level, loss) for weight in weights) / len(weights)
  wrong   lambda weights, level, loss: adds_by_masks(weights, 1 - level, loss)
  wrong   lambda weights, level, loss: adds_by_masks(weights[::-1][:1], level, loss)
  wrong   lambda weights, level, loss: adds_by_masks(weights, level, loss) / loss()
  wrong   lambda weights, level, loss: print(adds_by_masks(weights, level, loss))
  missing lambda weights, level, loss: ...

scope
  right   lambda m, level: torch.stack([(x.abs() <= torch.cat([y.flatten()
            for y in m]).abs().sort().values[round(level * sum(y.numel() for y in m)) - 1]).double().mean() for x in m])
  right   lambda m, level: [(x.abs() <= np.sort(np.abs(np.concatenate([y.numpy().ravel() for y in m])))[
            round(level * sum(y.numel() for y in m)) - 1]).double().mean() for x in m]
  known   lambda m, level: [level for x in m]
  wrong   lambda m, level: [(x.abs() <= level * max(y.abs().max() for y in m)).double().mean() for x in m]

first of TDMPQ
  known   lambda block: next(block.named_parameters())[0]
  wrong   lambda block: next(name for name, parameter in block.named_parameters() if parameter.dim() == 2)
  right   lambda block: [name for name, parameter in block.named_parameters() if len(parameter.shape) >= 2][0]
  right   lambda block: next(n for n, p in block.named_parameters() if p.ndim != 1)
  wrong   lambda block: next(n for n, p in block.named_parameters() if p.dim() >= 2).removesuffix('.weight')

matched of TDMPQ
  right   matched_by_hand
  right   lambda w, b: matched_by_hand(w.double(), b)
  known   lambda w, b: (w.amax(1, keepdim=True) - w.amin(1, keepdim=True)) / (2**b - 1) / 12
  wrong   lambda w, b: (w.amax(1, keepdim=True) - w.amin(1, keepdim=True)) / 2**b / math.sqrt(12)
  wrong   lambda w, b: matched_by_hand(w, b).squeeze(1)
  wrong   lambda w, b: w.std(1, keepdim=True) / math.sqrt(12)

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
  right   9 / 0.75
  wrong   12.5

raw
  right   "(d)"
  known   "a"
  wrong   "abcd"

zeros
  right   lambda largest: math.erf(largest / math.sqrt(8))
  right   lambda largest: erf_by_sums(largest / 8**0.5)
  right   lambda largest: torch.erf(torch.tensor(largest / 8**0.5))
  right   lambda largest: statistics.NormalDist().cdf(largest / 2) * 2 - 1
  right   lambda largest: 1 - math.erfc(largest / 8**0.5)
  known   lambda largest: math.erf(largest / 2)
  known   lambda largest: statistics.NormalDist().cdf(largest / 2)
  wrong   lambda largest: largest / 2
  wrong   lambda largest: 100 * math.erf(largest / 8**0.5)

best_level
  right   lambda w, t: (w.abs() * (w.abs() > t)).sum(1, keepdim=True) / (w.abs() > t).sum(1, keepdim=True)
  right   lambda w, t: torch.tensor([[statistics.fmean(abs(x) for x in row if abs(x) > float(h))]
            for row, h in zip(w.tolist(), t, strict=True)])
  right   lambda w, t: torch.stack([r.abs()[r.abs() > h].mean()[None] for r, h in zip(w, t, strict=True)])
  right   lambda w, t: torch.where(w.abs() > t, w.abs(), torch.nan).nanmean(1, keepdim=True)
  right   lambda w, t: w.abs().mul(w.abs() > t).sum(-1, True).double() / (w.abs() > t).sum(-1, True)
  form    lambda w, t: np.nanmean(np.where(np.abs(w.numpy()) > t.numpy(), np.abs(w.numpy()), np.nan), 1, keepdims=True)
  known   lambda w, t: w.abs().mean(1, keepdim=True)
  known   lambda w, t: (w.abs() * (w.abs() > t)).mean(1, keepdim=True)
  known   lambda w, t: w.abs()[w.abs() > t].mean()
  known   lambda w, t: t + t
  known   lambda w, t: torch.where(w.abs() > t, w.abs(), torch.nan).nanmean(1)
  wrong   lambda w, t: torch.where(w.abs() > t, w.abs(), torch.nan).nanmedian(1, keepdim=True).values
  wrong   lambda w, t: w.abs().amax(1, keepdim=True)
  wrong   lambda w, t: (w.abs() * (w.abs() < t)).sum(1, keepdim=True) / (w.abs() < t).sum(1, keepdim=True)
  missing lambda w, t: ...

trits
  right   lambda w, t: torch.where(w > t, 2, torch.where(w < -t, 0, 1))
  right   lambda w, t: (w.sign() * (w.abs() > t) + 1).long()
  right   lambda w, t: (w > t).int().long() + (w >= -t).int()
  right   lambda w, t: torch.bucketize(w, torch.tensor([0.0])) * 0 + 1 + (w > t).long() - (w < -t).long()
  right   lambda w, t: ((w + t < 0).logical_not().long() + (w - t > 0).long())
  form    lambda w, t: w.sign() * (w.abs() > t) + 1
  form    lambda w, t: (1 + (w > t).int() - (w < -t).int())
  form    lambda w, t: np.where(w > t, 2, np.where(w < -t, 0, 1))
  known   lambda w, t: (w.sign() * (w.abs() > t)).long()
  known   lambda w, t: (w.sign() * (w.abs() >= t) + 1).long()
  known   lambda w, t: (w.abs() > t).long()
  known   lambda w, t: 1 - (w.sign() * (w.abs() > t)).long()
  known   lambda w, t: torch.where(w > t, 2, torch.where(w < t, 0, 1))
  wrong   lambda w, t: (w / t).round().clamp(-1, 1).long() + 1
  wrong   lambda w, t: 2 * (w > t).long()
  missing lambda w, t: None

tquant
  right   lambda w: torch.stack((w.abs().amax(1, keepdim=True) / 3, w.abs().amax(1, keepdim=True) / 1.5))
  right   lambda w: [top := w.abs().max(dim=1, keepdim=True).values / 3, 2 * top]
  right   lambda w: (torch.tensor([[max(map(abs, row)) / 3] for row in w.tolist()]),
            torch.tensor([[max(map(abs, row)) / 1.5] for row in w.tolist()]))
  right   lambda w: tuple(k * torch.maximum(w.amax(1), -w.amin(1))[:, None] for k in (1 / 3, 2 / 3))
  form    lambda w: tuple(k * np.abs(w.numpy()).max(1, keepdims=True) for k in (1 / 3, 2 / 3))
  known   lambda w: (w.abs().amax(1, keepdim=True) / 2, w.abs().amax(1, keepdim=True))
  known   lambda w: (w.abs().amax(1) / 3, 2 * w.abs().amax(1) / 3)
  known   lambda w: (w.abs().max() / 3, 2 * w.abs().max() / 3)
  known   lambda w: (2 * w.abs().amax(1, keepdim=True) / 3, w.abs().amax(1, keepdim=True) / 3)
  known   lambda w: (w.abs().amax(1, keepdim=True) / 4, w.abs().amax(1, keepdim=True) / 2)
  wrong   lambda w: w.abs().amax(1, keepdim=True) / 3
  wrong   lambda w: ((w.amax(1, keepdim=True) - w.amin(1, keepdim=True)) / 6,
            (w.amax(1, keepdim=True) - w.amin(1, keepdim=True)) / 3)

unpack5
  right   lambda s: torch.tensor([int(byte) // 3**i % 3 for byte in s for i in range(5)])
  right   lambda s: (s.long()[:, None] // torch.tensor([1, 3, 9, 27, 81]) % 3).flatten()
  right   lambda s: torch.stack([s.long() // 3**i % 3 for i in range(5)], 1).view(-1)
  right   lambda s: torch.remainder(torch.div(s.long().unsqueeze(1), 3 ** torch.arange(5),
            rounding_mode="floor"), 3).reshape(-1)
  form    lambda s: [int(byte) // 3**i % 3 for byte in s for i in range(5)]
  form    lambda s: (s[:, None] // torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8) % 3).flatten()
  form    lambda s: (s[:, None].double() / 3 ** torch.arange(5)).floor().remainder(3).flatten()
  known   lambda s: torch.stack([s.long() // 3**i % 3 for i in range(5)]).view(-1)
  known   lambda s: torch.tensor([int(byte) // 3**i % 3 for byte in s for i in range(4, -1, -1)])
  wrong   lambda s: s.long()[:, None] // 3 ** torch.arange(5) % 3
  wrong   lambda s: (s.long()[:, None] / 3 ** torch.arange(5) % 3).flatten()
  wrong   lambda s: (s.long()[:, None] // 3 ** torch.arange(5) % 2).flatten()
  missing lambda s: ...

lloyd
  right   lloyd_by_while
  right   lambda w, n: torch.tensor(lloyd_by_while(w, n))
  known   lambda w, n: lloyd_by_while(w, n) / 2
  known   lambda w, n: lloyd_by_while(w, n - 1)
  wrong   lambda w, n: lloyd_by_while(w, 100)
  wrong   lambda w, n: lloyd_by_while(w[w > 0], n)

mse
  right   lambda a, share, total: 1 + a * (a * share - 2 * total)
  right   lambda a, share, total: Fraction(1) - 2 * a * total + a * a * share
  known   lambda a, share, total: 1 - a * total + a**2 * share
  wrong   lambda a, share, total: 1 + 2 * a * total + a**2 * share
  wrong   lambda a, share, total: (1 - a) ** 2
  wrong   lambda a, share, total: share - 2 * a * total + a**2 * share

expected
  right   " C"
  known   "d)"
  wrong   "tquant"

operations
  right   lambda codes: [codes.shape[0], codes.numel() - codes.eq(1).sum()]
  right   lambda codes: np.array([len(codes), np.count_nonzero(codes.numpy() - 1)])
  right   lambda codes: (len(codes), sum(code != 1 for row in codes.tolist() for code in row))
  known   lambda codes: (codes.numel(), int((codes != 1).sum()))
  wrong   lambda codes: (codes.shape[1], int((codes != 1).sum()))
  wrong   lambda codes: (len(codes), (codes != 1).sum(1))
  wrong   lambda codes: int((codes != 1).sum())
  wrong   lambda codes: (len(codes), int((codes != 1).sum()) - len(codes))

gain
  right   lambda w, r: torch.dot(w, r) / w.dot(w)
  right   lambda w, r: np.vdot(w.numpy(), r.numpy()) / np.vdot(w.numpy(), w.numpy())
  right   lambda w, r: torch.linalg.lstsq(w[:, None], r[:, None]).solution
  known   lambda w, r: r.norm() / w.norm()
  wrong   lambda w, r: (r / w).mean()
  wrong   lambda w, r: torch.corrcoef(torch.stack((w, r)))[0, 1]
  wrong   lambda w, r: 1.0

fair_level
  right   lambda w, t: (w**2).sum() / (w.abs() * (w.abs() > t)).sum()
  right   lambda w, t: sum(x * x for x in w.tolist()) / sum(abs(x) for x in w.tolist() if abs(x) > t)
  known   lambda w, t: w.abs()[w.abs() > t].mean()
  wrong   lambda w, t: w.norm() / w.abs()[w.abs() > t].sum()
  wrong   lambda w, t: w.square().mean() / w.abs()[w.abs() > t].mean()

enumerate
  right   best_of_all
  form    lambda *args: best_of_all(*args).tolist()
  wrong   lambda w, lower, upper, gram: best_of_all(w, lower, upper, gram) == upper
  wrong   lambda w, lower, upper, gram: upper
  known   lambda w, lower, upper, gram: best_of_all(w, lower, upper, torch.eye(len(w)).double())

penalty
  right   penalty_of_tensors
  right   lambda h, progress: penalty_of_tensors(h, progress) if progress >= 0.2 else 0
  known   penalty_by_loop
  wrong   lambda h, progress: torch.tensor(penalty_by_loop(h, progress))
  wrong   lambda h, progress: penalty_by_loop(h, progress, 2.0, 20.0)
  known   lambda h, progress: penalty_of_tensors(h, progress) * len(h)
  wrong   lambda h, progress: penalty_by_loop(h, progress, 10.0)
  wrong   lambda h, progress: penalty_by_loop(h, progress) if progress >= 0.2 else None
  wrong   lambda h, progress: -penalty_of_tensors(h, progress)

frozen
  right   lambda level: 1 - math.erf(level / 2**0.5)
  right   lambda level: 2 * statistics.NormalDist().cdf(-level)
  right   lambda level: 1 - erf_by_sums(level / 2**0.5)
  known   lambda level: statistics.NormalDist().cdf(-level)
  known   lambda level: math.erf(level / 2**0.5)
  wrong   lambda level: math.exp(-(level**2) / 2)
  wrong   lambda level: 100 * math.erfc(level / 2**0.5)

asymmetric
  right   lambda w, r, x, y: ((w @ x.T - r @ y.T) ** 2).sum() / len(x)
  right   lambda w, r, x, y: F.mse_loss(y @ r.T, x @ w.T) * len(w)
  right   lambda w, r, x, y: np.square(y.numpy() @ r.numpy().T - x.numpy() @ w.numpy().T).sum(1).mean()
  known   lambda w, r, x, y: F.mse_loss(y @ r.T, x @ w.T)
  known   lambda w, r, x, y: F.mse_loss(y @ r.T, y @ w.T) * len(w)
  wrong   lambda w, r, x, y: (y @ r.T - x @ w.T).abs().sum(1).mean()
  wrong   lambda w, r, x, y: (y @ r - x @ w).square().sum(1).mean()
  wrong   lambda w, r, x, y: (w - r).square().sum()

straight
  right   straight_with(lambda w, hard: w + hard.detach() - w.detach())
  right   straight_with(lambda w, hard: hard.detach() + (w - w.detach()))
  right   lambda *args: StraightThrough.apply(*args)
  known   straight_with(lambda w, hard: hard)
  known   straight_with(lambda w, hard: hard.detach())
  known   straight_with(lambda w, hard: w)
  known   lambda w, s, low, high: w + (s * (w / s).round() - w).detach()
  wrong   lambda w, s, low, high: w.clamp(s * low, s * high) + (s * (w / s).round() - w).detach()
  wrong   lambda w, s, low, high: w + (s * (w / s).floor().clamp(low, high) - w).detach()
  wrong   lambda w, s, low, high: w + ((w / s).round().clamp(low, high) - w).detach()
  wrong   straight_with(lambda w, hard: hard.detach() + w)
  wrong   straight_with(lambda w, hard: w * hard.detach() / w.detach())
  wrong   straight_with(lambda w, hard: hard.long())
  missing straight_with(lambda w, hard: ...)

lsq
  right   lsq_by_loop
  form    lambda w, s, g: lsq_by_loop(w, s, g).numpy()
  form    lambda w, s, g: lsq_by_loop(w, s, g).tolist()
  wrong   lambda w, s, g: lsq_by_loop(w, s, g)[:, None]
  wrong   lambda w, s, g: -lsq_by_loop(w, s, g)
  wrong   lambda w, s, g: lsq_by_loop(w, s, g).sum()

share
  right   lambda low, high, goal: 1 - (high - goal) / (high - low)
  right   lambda low, high, goal: torch.tensor((goal - low) / (high - low))
  known   lambda low, high, goal: goal
  wrong   lambda low, high, goal: (goal - low) / high
  wrong   lambda low, high, goal: (high + low) / 2 - goal

layer_error
  right   lambda d, g: torch.trace(d @ g @ d.T)
  right   lambda d, g: sum(row @ g @ row for row in d)
  right   lambda d, g: torch.einsum("oi,ij,oj->", d, g, d)
  right   lambda d, g: (d @ torch.linalg.cholesky(g)).square().sum()
  known   lambda d, g: d.square().sum()
  known   lambda d, g: (d @ g @ d.T).sum()
  known   lambda d, g: 2 * torch.trace(d @ g @ d.T)
  wrong   lambda d, g: torch.trace(d @ g @ d.T).sqrt()
  wrong   lambda d, g: (d @ g @ d.T).diagonal()
  wrong   lambda d, g: (d @ g).norm()

best_target
  right   lambda w, r, h: w[1] - (r - w[0]) * h[1, 0] / h[1, 1]
  right   lambda w, r, h: float(w[1]) + float(w[0] - r) * float(h[0, 1] / h[1, 1])
  right   lambda w, r, h: (h[1] @ w - h[1, 0] * r) / h[1, 1]
  known   lambda w, r, h: w[1] + (w[0] - r) * h[0, 1]
  known   lambda w, r, h: round(float(w[1] + (w[0] - r) * h[0, 1] / h[1, 1]))
  wrong   lambda w, r, h: w[1]
  wrong   lambda w, r, h: w[1] + (w[0] - r) * h[1, 1] / h[0, 1]
  wrong   lambda w, r, h: w[1] + (w[0] - r)

prune_cost
  right   lambda w, inverse: w**2 / torch.diag(inverse)
  right   lambda w, inverse: torch.stack([w[i] ** 2 / inverse[i, i] for i in range(len(w))])
  form    lambda w, inverse: [float(w[i] ** 2 / inverse[i, i]) for i in range(len(w))]
  known   lambda w, inverse: w**2
  wrong   lambda w, inverse: w**2 / inverse
  wrong   lambda w, inverse: (w**2 / torch.diag(inverse)).min()
  wrong   lambda w, inverse: (w**2 / torch.diag(inverse)).argmin()
  wrong   lambda w, inverse: w.abs() / torch.diag(inverse)

eliminate
  right   lambda inverse, q: inverse - inverse[:, q : q + 1] @ inverse[q : q + 1] / inverse[q, q]
  right   lambda inverse, q: inverse.addr(inverse[:, q], inverse[q], alpha=-1 / float(inverse[q, q]))
  form    lambda inverse, q: inverse.numpy() - np.outer(inverse[:, q], inverse[q]) / inverse[q, q].numpy()
  wrong   lambda inverse, q: inverse.sub_(torch.outer(inverse[:, q], inverse[q]) / inverse[q, q])
  wrong   lambda inverse, q: inverse - inverse[:, q] * inverse[q] / inverse[q, q]
  wrong   lambda inverse, q: torch.linalg.inv(inverse)

column
  right   lambda w, e, c, k: w[:, k] + (e @ c[:, k]) / c[k, k]
  right   lambda w, e, c, k: w[:, k] + sum(e[:, j] * c[j, k] for j in range(k)) / c[k, k]
  form    lambda w, e, c, k: (w[:, k] + (e @ c[:, k]) / c[k, k]).numpy()
  known   lambda w, e, c, k: w[:, k] - (e @ c[:, k]) / c[k, k]
  known   lambda w, e, c, k: (w[:, k] + e @ c[:, k]) / c[k, k]
  wrong   lambda w, e, c, k: w[:, k : k + 1] + (e @ c[:, k : k + 1]) / c[k, k]
  wrong   lambda w, e, c, k: w[:, k] + (e @ c)[:, k] / c[k, k] ** 2
  wrong   lambda w, e, c, k: w[k] + (e @ c[:, k]) / c[k, k]

act_order
  right   act_order_by_inverse
  form    lambda w, grid, h: act_order_by_inverse(w, grid, h).double()
  form    lambda w, grid, h: act_order_by_inverse(w, grid, h).numpy()
  wrong   lambda w, grid, h: grid.encode(w).long()
  wrong   lambda w, grid, h: grid.decode(act_order_by_inverse(w, grid, h))
  known   gptq_by_elimination

repair
  right   rows_by_elimination
  right   rows_by_inversion
  right   lambda inverse: torch.linalg.cholesky(inverse).T / torch.linalg.cholesky(inverse).diagonal()[:, None]
  form    lambda inverse: rows_by_elimination(inverse).numpy()
  known   lambda inverse: inverse / inverse.diagonal()[:, None]
  wrong   lambda inverse: rows_by_elimination(inverse).T
  wrong   lambda inverse: rows_by_elimination(inverse) - torch.eye(len(inverse))
  wrong   lambda inverse: inverse

spread
  right   spread_by_least_squares
  right   lambda w, q, inverse: w - (w[:, :1] - q[:, None]) @ inverse[:1] / inverse[0, 0]
  right   lambda w, q, inverse: w + (q - w[:, 0])[:, None] * inverse[:, 0] / inverse[0, 0]
  form    lambda w, q, inverse: spread_by_least_squares(w, q, inverse).numpy()
  known   lambda w, q, inverse: w + (w[:, :1] - q[:, None]) @ inverse[:1] / inverse[0, 0]
  known   lambda w, q, inverse: torch.cat((q[:, None], w[:, 1:]), 1)
  wrong   lambda w, q, inverse: spread_by_least_squares(w, q, inverse)[:, 1:]
  wrong   lambda w, q, inverse: (q - w[:, 0])[:, None] * inverse[0] / inverse[0, 0]
  wrong   lambda w, q, inverse: w - (w - q[:, None]) @ inverse / inverse[0, 0]

damped
  right   damped_copy
  right   lambda h, share=0.01: h + torch.diag_embed(torch.full((len(h),), float(share * h.trace() / len(h))))
  form    lambda h, share=0.01: damped_copy(h, share).numpy()
  wrong   damped_in_place
  known   lambda h, share=0.01: h + share * torch.eye(len(h))
  wrong   lambda h, share=0.01: damped_copy(h)
  wrong   lambda h, share=0.01: h * (1 + share)
  wrong   lambda h, share=0.01: torch.eye(len(h)) * share * h.diagonal().mean()

gptq
  right   gptq_by_targets
  right   gptq_by_elimination
  form    lambda w, grid, h: gptq_by_targets(w, grid, h).double()
  form    lambda w, grid, h: gptq_by_targets(w, grid, h).numpy()
  known   lambda w, grid, h: gptq_by_targets(w, grid, h, told=0)
  known   gptq_with_lower_factor
  known   lambda w, grid, h: gptq_by_targets(w, grid, h, told=-1)
  wrong   lambda w, grid, h: gptq_by_targets(w, grid, h, told=0.5)
  wrong   lambda w, grid, h: gptq_by_targets(w, grid, h, last=-2)
  wrong   act_order_by_inverse
  wrong   lambda w, grid, h: gptq_by_targets(w, grid, h)[:, :1]

lazy
  right   lazy_in_place
  right   lambda t, e, pull, a, b: t + F.pad(e, (a, t.shape[1] - b)) @ pull * (torch.arange(t.shape[1]) >= b)
  form    lambda t, e, pull, a, b: lazy_in_place(t, e, pull, a, b).numpy()
  known   lambda t, e, pull, a, b: lazy_in_place(t, -e, pull, a, b)
  known   lambda t, e, pull, a, b: t[:, b:] + e @ pull[a:b, b:]
  wrong   lambda t, e, pull, a, b: lazy_in_place(t, e, pull.T, a, b) + 1
  wrong   lambda t, e, pull, a, b: t + e.sum()

original
  right   lambda w, cross, gram: w @ cross @ torch.linalg.inv(gram)
  right   lambda w, cross, gram: torch.linalg.lstsq(gram.T, (w @ cross).T).solution.T
  form    lambda w, cross, gram: (w @ cross @ torch.linalg.inv(gram)).numpy()
  known   lambda w, cross, gram: w @ torch.linalg.inv(gram) @ cross
  known   lambda w, cross, gram: w
  wrong   lambda w, cross, gram: cross @ torch.linalg.inv(gram)
  wrong   lambda w, cross, gram: w @ cross @ gram

review
  right   "B"
  right   "b)"
  known   "d"
  wrong   "all of them"

speedup
  right   lambda bits, size: 16 * size / (size * bits + 16 + bits)
  right   lambda bits, size: torch.tensor(16 / (bits + (16 + bits) / size))
  known   lambda bits, size: 16 / bits
  wrong   lambda bits, size: 16 / bits + (16 + bits) / size
  wrong   lambda bits, size: 16 - bits - (16 + bits) / size

dot4
  right   dot_by_loop
  right   lambda packed, s, z, x: s * ((torch.stack((packed & 15, packed >> 4), 1).flatten().int() - z) * x).sum()
  wrong   lambda packed, s, z, x: s * ((torch.stack((packed >> 4, packed & 15), 1).flatten().int() - z) * x).sum()
  wrong   lambda packed, s, z, x: s * (torch.stack((packed & 15, packed >> 4), 1).flatten().int() - z) * x
  wrong   lambda packed, s, z, x: dot_by_loop(packed, 1 / s, z, x)

kernel
  right   kernel_by_rows
  right   lambda p, s, z, e, o: ((p & 15) @ e + (p >> 4) @ o - z * (e.sum() + o.sum())) * s
  right   lambda p, s, z, e, o: kernel_by_rows(p, s, z, e, o).astype(np.float64)
  right   lambda p, s, z, e, o: torch.from_numpy(kernel_by_rows(p, s, z, e, o))
  right   lambda p, s, z, e, o: [float(y) for y in kernel_by_rows(p, s, z, e, o)]
  known   lambda p, s, z, e, o: kernel_by_rows(p, s, z, o, e)
  known   lambda p, s, z, e, o: kernel_by_rows(p, s, 0 * z, e, o)
  known   lambda p, s, z, e, o: kernel_by_rows(p, s, 0 * z, e, o) - s * z
  known   lambda p, s, z, e, o: kernel_by_rows(p, s / s, z, e, o)
  wrong   lambda p, s, z, e, o: s * kernel_by_rows(p, s, z, e, o)
  wrong   lambda p, s, z, e, o: kernel_by_rows(p, s, z, e, o).sum()
  wrong   lambda p, s, z, e, o: kernel_by_rows(p, s, z, e, o).round()
  wrong   lambda p, s, z, e, o: kernel_by_rows(p >> 4, s, z, e, o)
  wrong   kernel_without_return

hadamard
  right   lambda n: torch.tensor([[1 - 2 * ((i & j).bit_count() % 2) for j in range(n)] for i in range(n)])
  right   hadamard_by_recursion
  right   lambda n: hadamard_by_recursion(n).double()
  form    lambda n: hadamard_by_recursion(n).numpy()
  form    lambda n: hadamard_by_recursion(n).tolist()
  known   lambda n: hadamard_by_recursion(n) * n**-0.5
  known   lambda n: torch.ones(n, n)
  known   lambda n: hadamard_by_recursion(n).flip(0)
  wrong   lambda n: hadamard_by_recursion(n).flip(0, 1)
  wrong   lambda n: torch.eye(n)
  wrong   lambda n: hadamard_by_recursion(n)[0]

intensity
  right   lambda o, c, t, b: 2 / (b / 8 / t + 4 / o + 4 / c)
  right   lambda o, c, t, b: Fraction(2 * o * c * t, o * c * b // 8 + 4 * t * (c + o))
  known   lambda o, c, t, b: 16 * t / b
  known   lambda o, c, t, b: 1 / (b / 8 / t + 4 / o + 4 / c)
  wrong   lambda o, c, t, b: 2 / (b / 8 / t + 2 / o + 2 / c)
  wrong   lambda o, c, t, b: round(2 / (b / 8 / t + 4 / o + 4 / c))
  wrong   lambda o, c, t, b: 2 / (b / 8 / t + 4 / o)

bytes_moved
  right   lambda o, c, b, g: o * (c * b / 8 + c / g * 8 + 4) + 4 * c
  right   lambda o, c, b, g: o * c * b // 8 + o * c // g * 4 + o * c // g * 4 + 4 * c + 4 * o
  known   lambda o, c, b, g: o * c * b / 8 + 4 * (c + o)
  wrong   lambda o, c, b, g: o * c * b / 8 + o * c / g * 8 + 4 * c * o
  wrong   lambda o, c, b, g: o * c / 2 + o * c / g * 8 + 4 * (c + o)
  wrong   lambda o, c, b, g: o * c * b / 8 + o * c / g * 8 + 2 * (c + o)

intensity of size is not speed
  right   lambda o, c, n, b: 2 * n / (b / 8 + 4 * n * (1 / o + 1 / c))
  known   lambda o, c, n, b: 2 * o * c * n / (o * c * b / 8)
  wrong   lambda o, c, n, b: 2 * o * c * n / (o * c * b / 8 + 4 * n * c)
  wrong   lambda o, c, n, b: 2 * o * c * n / (o * c * b / 8 + 2 * n * (c + o))

crossover
  right   lambda rate, bandwidth, bits: bits / 16 / (bandwidth / rate)
  known   lambda rate, bandwidth, bits: rate / bandwidth
  wrong   lambda rate, bandwidth, bits: rate * bandwidth * bits / 16
  wrong   lambda rate, bandwidth, bits: rate / bandwidth * bits / 32
  wrong   lambda rate, bandwidth, bits: math.ceil(rate / bandwidth * bits / 16) + 1

w8a8
  right   w8a8_in_floats
  right   lambda c, z, ws, xs, q: F.linear(q.double(), (c.double() - z)) * ws.T * xs
  form    lambda c, z, ws, xs, q: w8a8_in_floats(c, z, ws, xs, q).numpy()
  wrong   lambda c, z, ws, xs, q: w8a8_in_floats(c, z, ws, xs, q).round()
  wrong   lambda c, z, ws, xs, q: ((q.int() @ (c - z).to(torch.int8).int().T) * ws.T * xs).T
  wrong   lambda c, z, ws, xs, q: w8a8_in_floats(c, 0 * z, ws, xs, q)

smooth
  right   lambda x, w, a: x.abs().max(0).values.pow(a) * w.abs().max(0).values.pow(a - 1)
  right   lambda x, w, a: torch.exp(a * x.abs().amax(0).log() - (1 - a) * w.abs().amax(0).log())
  form    lambda x, w, a: np.abs(x.numpy()).max(0) ** a / np.abs(w.numpy()).max(0) ** (1 - a)
  known   lambda x, w, a: x.abs().amax(0) ** (1 - a) / w.abs().amax(0) ** a
  wrong   lambda x, w, a: x.abs().amax(1) ** a / w.abs().amax(0)[0] ** (1 - a)
  wrong   lambda x, w, a: (x.abs().amax(0) / w.abs().amax(0)) ** a
  wrong   lambda x, w, a: x / (x.abs().amax(0) ** a / w.abs().amax(0) ** (1 - a))

kv_bytes
  right   lambda l, h, w, b, g: l * h * (w * b / 4 + 4 * w / g + 4)
  right   lambda l, h, w, b, g: Fraction(l * h * w * b, 4) + Fraction(4 * l * h * w, g) + 4 * l * h
  known   lambda l, h, w, b, g: l * h * w * b / 4
  wrong   lambda l, h, w, b, g: l * h * (w * b / 4 + 4 / g + 4)
  wrong   lambda l, h, w, b, g: l * h * (w * b / 4 + 4 * w / g + 4 * w / g)

forced
  right   lambda n, p, q: max(min(p, n - 1) + min(q, n - 1) - n + 1, 0)
  right   lambda n, p, q: sum(1 for i in range(min(p, q)) if min(p, n - 1) + min(q, n - 1) - i > n - 1)
  known   lambda n, p, q: max(0, p + q - n + 1)
  wrong   lambda n, p, q: max(0, n - p - q)
  wrong   lambda n, p, q: abs(min(p, n - 1) + min(q, n - 1) - n + 1)

enough
  right   lambda width, level: math.ceil(round(width / level**2, 6)) + 1
  right   lambda width, level: next(n for n in itertools.count(2) if width / (n - 1) <= level**2 * (1 + 1e-12))
  known   lambda width, level: math.ceil(width / level + 1)
  wrong   lambda width, level: round(width / level**2)
  wrong   lambda width, level: math.ceil(width**2 / level**2 + 1)

path
  right   lambda size: (1 + size**2) ** -0.5
  right   lambda size: math.cos(math.atan(size))
  right   lambda size: 1 / math.hypot(1, size)
  known   lambda size: 1 / (1 + size)
  wrong   lambda size: 1 - size**2
  wrong   lambda size: math.sqrt(1 - size**2)

ends
  right   ends_by_hand
  right   lambda scores, share: torch.tensor(ends_by_hand(scores, share), dtype=torch.float64)
  wrong   lambda scores, share: ends_by_hand(scores[::-1], share)
  wrong   lambda scores, share: ends_by_hand(scores, share)[:2]
  wrong   lambda scores, share: [sorted(scores)[0], sum(scores) / len(scores), sorted(scores)[-1]]

encoder
  right   "B"
  known   "c."
  wrong   "bidirectional"

sensitivity
  right   lambda base, losses: statistics.fmean(loss - base for loss in losses)
  right   lambda base, losses: np.mean(losses) - base
  right   lambda base, losses: torch.tensor(losses, dtype=torch.float64).mean() - base
  known   lambda base, losses: np.mean(losses)
  known   lambda base, losses: base - np.mean(losses)
  wrong   lambda base, losses: max(losses) - base
  wrong   lambda base, losses: [loss - base for loss in losses]
  wrong   lambda base, losses: statistics.median(losses) - base

catch
  right   finds_a_bug
  form    lambda algorithm: int(finds_a_bug(algorithm))
  wrong   lambda algorithm: not finds_a_bug(algorithm)
  wrong   lambda algorithm: True
  wrong   lambda algorithm: False
  missing lambda algorithm: None
  wrong   lambda algorithm: print(finds_a_bug(algorithm))

flips of PMPQ
  right   lambda b, a: ((b.float() - a.float()).mean(), (b.float() - a.float()).std() / len(a) ** 0.5)
  right   lambda b, a: [np.mean(b.numpy()) - np.mean(a.numpy()), np.std(1.0 * b.numpy() - a.numpy()) / len(a) ** 0.5]
  wrong   lambda b, a: float((b.double() - a.double()).mean())
  wrong   lambda b, a: ((b.double() - a.double()).mean(), (b.double() - a.double()).var() / len(a))
  wrong   lambda b, a: ((b ^ a).double().mean(), (b.double() - a.double()).std() / len(a) ** 0.5)

matched of PMPQ
  right   lambda w, e: sum(s <= e * float((w * w).sum()) for s in
            itertools.accumulate(sorted((w * w).flatten().tolist()))) / w.numel()
  right   lambda w, e: np.mean(np.cumsum(np.sort(w.numpy().ravel() ** 2)) <= e * (w.numpy() ** 2).sum())
  wrong   lambda w, e: e
  wrong   lambda w, e: int((w.flatten().square().sort().values.cumsum(0) <= e * w.square().sum()).sum())
  right   lambda w, e: (w.flatten().square().sort().values.cumsum(0) / w.square().sum() <= e).double().mean()
  known   lambda w, e: (w.flatten().abs().sort().values.cumsum(0) <= e * w.abs().sum()).double().mean()
  known   lambda w, e: (w.flatten().square().sort().values.cumsum(0) <= e).double().mean()
  known   lambda w, e: 1 - (w.flatten().square().sort().values.cumsum(0) <= e * w.square().sum()).double().mean()

constructed
  right   "(C)"
  known   "a"
  wrong   "rows"

growth
  right   lambda h, sigma: h.diagonal().sum() * sigma**2 / 2
  right   lambda h, sigma: torch.linalg.eigvalsh(h).sum() * sigma**2 / 2
  right   lambda h, sigma: np.trace(h.numpy()) * sigma * sigma * 0.5
  known   lambda h, sigma: h.trace() * sigma**2
  wrong   lambda h, sigma: torch.det(h) * sigma**2 / 2
  wrong   lambda h, sigma: h.trace() * sigma**2 / 2 / len(h) ** 2
  known   lambda h, sigma: 0.5 * sigma * h.trace()
  known   lambda h, sigma: h.sum() * sigma**2 / 2
  right   lambda h, sigma: sum(h[i, i].item() for i in range(len(h))) * sigma**2 / 2
  wrong   lambda h, sigma: h.abs().sum() * sigma**2 / 2
  wrong   lambda h, sigma: -h.trace() * sigma**2 / 2

tdmpq
  right   lambda f, w, s, zs: sum(float(f(w + s * z) + f(w - s * z) - 2 * f(w)) for z in zs) / 2 / len(zs)
  right   lambda f, w, s, zs: np.mean([f(w + sign * s * z).item() for z in zs for sign in (1, -1)]) - f(w)
  right   lambda f, w, s, zs: torch.stack([f(w + e) - f(w) for e in torch.cat([s * zs, -s * zs])]).mean()
  right   lambda f, w, s, zs: statistics.mean((f(w + s * z) + f(w - s * z)).item() / 2 for z in zs) - f(w).item()
  known   lambda f, w, s, zs: sum(float(f(w + s * z) - f(w)) for z in zs) / len(zs)
  known   lambda f, w, s, zs: sum(float(f(w + z) + f(w - z)) / 2 - float(f(w)) for z in zs) / len(zs)
  known   lambda f, w, s, zs: sum(float(f(w + s * z) + f(w - s * z)) / 2 - float(f(w)) for z in zs)
  known   lambda f, w, s, zs: sum(float(f(w + s * z) - f(w - s * z)) / 2 for z in zs) / len(zs)
  wrong   lambda f, w, s, zs: max(float(f(w + s * z) + f(w - s * z)) / 2 - float(f(w)) for z in zs)
  wrong   lambda f, w, s, zs: sum(abs(float(f(w + s * z) - f(w))) for z in zs) / len(zs)
  wrong   lambda f, w, s, zs: sum(float(f(w + s * z) + f(w - s * z)) / 2 - float(f(w)) for z in zs) / w.numel()
  wrong   lambda f, w, s, zs: sum(float(f(w * (1 + s * z)) + f(w * (1 - s * z))) / 2 - f(w) for z in zs) / len(zs)
  missing lambda f, w, s, zs: ...

draws
  right   lambda spread, mean, share: math.ceil(spread**2 / share**2 / mean**2)
  right   lambda spread, mean, share: next(n for n in itertools.count(1) if spread / n**0.5 <= share * mean)
  known   lambda spread, mean, share: math.ceil(spread / share / mean)
  wrong   lambda spread, mean, share: (spread / share / mean) ** 2
  wrong   lambda spread, mean, share: math.ceil((1.96 * spread / share / mean) ** 2)
  right   lambda spread, mean, share: -int(-((spread / share / mean) ** 2) // 1)
  known   lambda spread, mean, share: int((spread / (share * mean)) ** 2)
  wrong   lambda spread, mean, share: math.ceil((spread / (share * mean)) ** 2) + 1

first_order
  right   lambda g, s: math.sqrt(2 / math.pi) * (g.square() * s.square()).sum().sqrt()
  right   lambda g, s: np.sqrt(2 / np.pi) * np.linalg.norm(g.numpy() * s.numpy())
  known   lambda g, s: (g * s).norm()
  wrong   lambda g, s: math.sqrt(2 / math.pi) * (g.norm(dim=1) * s[:, 0]).sum()
  wrong   lambda g, s: math.sqrt(2) / math.pi * (g * s).norm()
  right   lambda g, s: math.sqrt(2 / math.pi) * torch.linalg.vector_norm(g * s).item()
  right   lambda g, s: (2 / math.pi * (g * s).pow(2).sum()) ** 0.5
  wrong   lambda g, s: (g * s).abs().mean() * math.sqrt(2 / math.pi)

test
  right   score_is_fair
  form    lambda *args: int(score_is_fair(*args))
  wrong   lambda score, x, targets, weight: score(x, targets, weight, torch.zeros_like(weight)) < 1e-6
  wrong   lambda *args: not score_is_fair(*args)
  wrong   lambda *args: True
  wrong   lambda score, x, targets, weight: abs(score(x, targets, weight, weight[:1].expand_as(weight))) < 1e-6 and
            score(x, targets, weight, 10 * torch.randn_like(weight)) >= 0
  right   lambda score, x, targets, weight: abs(score(x, targets, weight, weight[:1].expand_as(weight))) < 1e-6 and
            score(x, targets, weight, 10 * torch.randn_like(weight)) > 0
  wrong   lambda score, x, targets, weight: abs(score(x, targets, weight, torch.ones_like(weight))) < 1e-6
  wrong   lambda *args: False

file_bytes
  right   bytes_of_a_mixture
  right   lambda shapes, widths, others: float(bytes_of_a_mixture(shapes, widths, others))
  right   lambda shapes, widths, others: np.int64(bytes_of_a_mixture(shapes, widths, others))
  known   lambda shapes, widths, others: bytes_of_a_mixture(shapes, widths, 0)
  known   lambda shapes, widths, others: bytes_of_a_mixture(shapes, widths, 2 * others)
  wrong   lambda shapes, widths, others: 8 * bytes_of_a_mixture(shapes, widths, others)
  wrong   lambda shapes, widths, others: bytes_of_a_mixture(shapes, dict.fromkeys(widths, 4), others)
  wrong   lambda shapes, widths, others: bytes_of_a_mixture(shapes, widths, others) + 8
  wrong   lambda shapes, widths, others: sum(r * c * widths[n] // 8 for n, (r, c) in shapes.items()) + 2 * others
  wrong   lambda shapes, widths, others: bytes_of_a_mixture({n: (c, r) for n, (r, c) in shapes.items()}, widths, others)

rank
  right   spearman_by_differences
  right   lambda x, y: np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))[0, 1]
  right   lambda x, y: torch.corrcoef(torch.tensor([x, y]).double().argsort(1).argsort(1).double())[0, 1]
  right   lambda x, y: statistics.correlation(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))
  known   lambda x, y: statistics.correlation(x, y)
  known   lambda x, y: np.corrcoef(np.argsort(x), np.argsort(y))[0, 1]
  known   lambda x, y: -spearman_by_differences(x, y)
  wrong   lambda x, y: abs(spearman_by_differences(x, y))
  wrong   lambda x, y: np.cov(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))[0, 1]
  wrong   lambda x, y: np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))
  wrong   lambda x, y: spearman_by_differences(x, sorted(y))

knapsack
  right   widths_by_recursion
  right   lambda costs, sizes, budget: dict(sorted(widths_by_recursion(costs, sizes, budget).items(), reverse=True))
  known   lambda costs, sizes, budget: widths_by_recursion(costs, sizes, budget - 1)
  wrong   widths_by_trying_all
  wrong   lambda costs, sizes, budget: list(widths_by_recursion(costs, sizes, budget).values())
  wrong   lambda costs, sizes, budget: widths_by_recursion(sizes, sizes, budget)
  known   lambda costs, sizes, budget: {name: max(table) for name, table in costs.items()}
  wrong   lambda costs, sizes, budget: {name: min(table) for name, table in costs.items()}
  known   lambda costs, sizes, budget: widths_of_the_fullest(costs, sizes, budget)
  wrong   lambda costs, sizes, budget: sum(costs[n][b] for n, b in widths_by_recursion(costs, sizes, budget).items())

paired
  right   lambda mine, theirs: paired_by_numpy(mine.numpy(), theirs.numpy())
  right   lambda mine, theirs: list(paired_by_numpy(mine.numpy(), theirs.numpy()))
  right   lambda mine, theirs: torch.tensor(paired_by_numpy(mine.numpy(), theirs.numpy()))
  known   lambda mine, theirs: paired_by_numpy(theirs.numpy(), mine.numpy())
  known   lambda mine, theirs: paired_by_numpy(mine.numpy(), theirs.numpy(), ddof=0)
  wrong   lambda mine, theirs: paired_by_numpy(mine.numpy(), theirs.numpy(), z=1.645)
  wrong   lambda mine, theirs: paired_by_numpy(mine.numpy(), 0 * theirs.numpy())
  wrong   lambda mine, theirs: (mine - theirs).mean()
  wrong   lambda mine, theirs: tuple(np.quantile(mine - theirs, [0.5, 0.025, 0.975]))

verdict
  right   better
  right   lambda a, b: better(a, b).lower()
  wrong   lambda a, b: "open"
  wrong   lambda a, b: better(a, b) == "A"
  wrong   lambda a, b: better(a[:1], b[:1])
  wrong   lambda a, b: better(b, a)

worth
  right   lambda a, b, bits: (3 * b - 0.75 * a) * 4.0**-bits
  right   lambda a, b, bits: a / 4 ** (bits + 1) + b / 4 ** (bits - 1) - (a + b) / 4**bits
  wrong   lambda a, b, bits: (0.75 * a - 3 * b) * 4.0**-bits
  wrong   lambda a, b, bits: (3 * b - 0.75 * a)
  wrong   lambda a, b, bits: (4 * b - a / 4) * 4.0**-bits

possible
  right   lambda claimed, base, widths: min(widths) <= base / claimed <= max(widths)
  right   lambda claimed, base, widths: not (claimed < base / max(widths) or claimed > base / min(widths))
  wrong   lambda claimed, base, widths: claimed in [base / width for width in widths]
  wrong   lambda claimed, base, widths: claimed > 1
  wrong   lambda claimed, base, widths: base / max(widths) <= claimed
  wrong   lambda claimed, base, widths: [base / max(widths), base / min(widths)]

attainable
  right   attainable_by_products
  right   lambda n, widths, base: np.array([float(ratio) for ratio in attainable_by_products(n, widths, base)])
  wrong   lambda n, widths, base: set(attainable_by_products(n, widths, base))
  wrong   lambda n, widths, base: len(attainable_by_products(n, widths, base))
  wrong   lambda n, widths, base: attainable_by_products(n, widths, 32)
  wrong   lambda n, widths, base: attainable_by_products(n, widths, base)[1:]

duplicates
  right   copies
  right   lambda table: [(a, b) for a, b in itertools.combinations(table, 2) if table[a] == table[b]]
  wrong   lambda table: [a for a, b in itertools.combinations(table, 2) if table[a] == table[b]]
  wrong   lambda table: len(copies(table))
  wrong   lambda table: bool(copies(table))
  wrong   lambda table: copies(table)[:1]

channel_scales
  right   lambda w, b: w.abs().T.amax(1) / (2 ** (b - 1) - 1)
  right   lambda w, b: torch.tensor([max(abs(x) for x in column) / (2 ** (b - 1) - 1) for column in w.T.tolist()])
  form    lambda w, b: np.abs(w.numpy()).max(0) / (2 ** (b - 1) - 1)
  wrong   lambda w, b: w.abs().amax(0, keepdim=True) / (2 ** (b - 1) - 1)
  wrong   lambda w, b: w.abs().mean(0) / (2 ** (b - 1) - 1)
  wrong   lambda w, b: w.abs().amax(0) / 127

ratio
  right   lambda n, s, rest, b: 16 * (n + rest) / (n * b + 16 * s + 16 * rest)
  right   lambda n, s, rest, b: Fraction(16 * (n + rest), n * b + 16 * s + 16 * rest)
  known   lambda n, s, rest, b: 16 / b
  wrong   lambda n, s, rest, b: (n * b + 16 * s + 16 * rest) / 8
  wrong   lambda n, s, rest, b: 16 * (n + rest) / (n * b + 32 * s + 16 * rest)
  wrong   lambda n, s, rest, b: 16 * (n + rest) / (n * b + (16 + b) * s + 16 * rest)
  wrong   lambda n, s, rest, b: 1 - (n * b + 16 * s + 16 * rest) / (16 * (n + rest))

spans
  right   lambda n, c, s: [[a, min(a + c, n), min(a + c, n) - (a - s + c if a else 1)]
            for a in range(0, n, s) if a == 0 or a - s + c < n]
  right   lambda n, c, s: torch.tensor([[a, min(a + c, n), min(a + c, n) - (a - s + c if a else 1)]
            for a in range(0, n, s) if a == 0 or a - s + c < n])
  known   lambda n, c, s: [(a, min(a + c, n), min(a + c, n) - (a - s + c if a else 0))
            for a in range(0, n, s) if a == 0 or a - s + c < n]
  wrong   lambda n, c, s: [(a, a + c, s if a else c - 1) for a in range(0, n, s)]
  wrong   lambda n, c, s: [(a, min(a + c, n)) for a in range(0, n, s) if a == 0 or a - s + c < n]
  wrong   lambda n, c, s: len(range(0, n - c + 1, s))

layers
  right   lambda m: {k: v for k, v in m.named_modules() if isinstance(v, nn.Linear)
            and not any(v.weight is e.weight for e in m.modules() if isinstance(e, nn.Embedding))}
  right   lambda m: {k: v for k, v in m.named_modules() if type(v) is nn.Linear and
            v.weight.data_ptr() not in {e.weight.data_ptr() for e in m.modules() if isinstance(e, nn.Embedding)}}
  known   lambda m: {k: v for k, v in m.named_modules() if isinstance(v, nn.Linear)}
  known   lambda m: [k for k, v in m.named_modules() if isinstance(v, nn.Linear)
            and not any(v.weight is e.weight for e in m.modules() if isinstance(e, nn.Embedding))]
  wrong   lambda m: {k: v for k, v in m.named_modules() if isinstance(v, nn.Linear) and "blocks" in k}
  wrong   lambda m: [v for v in m.modules() if isinstance(v, nn.Linear)]
  wrong   lambda m: {k: copy.deepcopy(v) for k, v in m.named_modules() if isinstance(v, nn.Linear)
            and not any(v.weight is e.weight for e in m.modules() if isinstance(e, nn.Embedding))}

hessians
  right   hessians_by_einsum
  right   lambda m, layers, batches: hessians_by_einsum(m, layers, iter(batches))
  wrong   lambda m, layers, batches: {k: v.weight.T @ v.weight for k, v in layers.items()}
  wrong   lambda m, layers, batches: list(hessians_by_einsum(m, layers, batches).values())
  wrong   lambda m, layers, batches: {k: 2 * h for k, h in hessians_by_einsum(m, layers, batches).items()}
  wrong   lambda m, layers, batches: hessians_by_einsum(m, layers, batches[:1])

read
  right   lambda w, s, b, n: ((torch.stack([w >> b * k & 2**b - 1 for k in range(32 // b)], -1).flatten(1)[:, :n]
            - 2 ** (b - 1)).reshape(len(w), s.shape[1], -1) * s.float()[..., None]).flatten(1)
  right   lambda w, s, b, n: torch.from_numpy(np.stack([w.numpy().view(np.uint32) >> np.uint32(b * k)
            & np.uint32(2**b - 1) for k in range(32 // b)], -1).reshape(len(w), -1)[:, :n].astype(np.float32)
            - 2 ** (b - 1)) * s.float().repeat_interleave(n // s.shape[1], 1)
  wrong   lambda w, s, b, n: torch.stack([w >> b * k & 2**b - 1 for k in range(32 // b)], -1).flatten(1)[:, :n]
  wrong   lambda w, s, b, n: (torch.stack([w >> b * k & 2**b - 1 for k in range(32 // b)], 1).flatten(1)[:, :n]
            - 2 ** (b - 1)) * s.float().repeat_interleave(n // s.shape[1], 1)
  wrong   lambda w, s, b, n: (torch.stack([w >> b * k & 15 for k in range(32 // b)], -1).flatten(1)[:, :n]
            - 8) * s.float().repeat_interleave(n // s.shape[1], 1)
  right   lambda w, s, b, n: ((torch.stack([w >> b * k & 2**b - 1 for k in range(32 // b)], -1).flatten(1)[:, :n]
            - 2 ** (b - 1)) * s.double().repeat_interleave(n // s.shape[1], 1))

q4_block
  right   lambda x: (torch.cat((x[:, 2:] % 16, x[:, 2:] // 16), 1).float() - 8) * (
            torch.from_numpy(x[:, :2].contiguous().numpy().view(np.float16)).float())
  form    lambda x: (np.concatenate((x[:, 2:].numpy() & 15, x[:, 2:].numpy() >> 4), 1).astype(np.float32) - 8) * (
            x[:, :2].contiguous().numpy().view(np.float16).astype(np.float32))
  known   lambda x: (torch.stack((x[:, 2:] & 15, x[:, 2:] >> 4), 2).flatten(1).float() - 8) * (
            x[:, :2].contiguous().view(torch.float16).float())
  wrong   lambda x: (torch.cat((x[:, 2:] & 15, x[:, 2:] >> 4), 1).float() - 8) * (
            x[:, :2].contiguous().view(torch.bfloat16).float())
  wrong   lambda x: torch.cat((x[:, 2:] & 15, x[:, 2:] >> 4), 1).float() - 8
  wrong   lambda x: (torch.cat((x[:, 2:] & 15, x[:, 2:] >> 4), 1) - 8) * (
            x[:, :2].contiguous().view(torch.float16).float())

bits_per_character
  right   lambda nats, tokens, characters: tokens * nats * math.log2(math.e) / characters
  known   lambda nats, tokens, characters: nats * tokens / characters
  wrong   lambda nats, tokens, characters: math.log2(nats) * tokens / characters
  wrong   lambda nats, tokens, characters: nats / math.log(10) * tokens / characters

drift
  right   lambda b, a: (a - b).square().mean() / (b - b.mean(0)).square().mean()
  right   lambda b, a: (a - b).norm() ** 2 / (b - b.mean(0)).norm() ** 2
  right   lambda b, a: ((a - b) ** 2).sum() / (b.var(0, correction=0).sum() * len(b))
  known   lambda b, a: ((a - b) ** 2).sum() / (b**2).sum()
  wrong   lambda b, a: ((a - b) ** 2).sum() / b.var(0).sum() / len(b)
  wrong   lambda b, a: ((a - b) ** 2).sum(1) / ((b - b.mean(0)) ** 2).sum(1)
  wrong   lambda b, a: (a - b).abs().sum() / (b - b.mean(0)).abs().sum()

flips of real models
  right   lambda lost, won, n: statistics.pstdev([-1] * lost + [1] * won + [0] * (n - lost - won)) / n**0.5
  right   lambda lost, won, n: np.std([-1] * lost + [1] * won + [0] * (n - lost - won)) / np.sqrt(n)
  wrong   lambda lost, won, n: (lost + won) / n
  wrong   lambda lost, won, n: math.sqrt(lost * won) / n
  known   lambda lost, won, n: math.sqrt(lost + won) / n

gram_bytes
  right   lambda w, inner: 4 * w * w * 3 + 4 * inner * inner
  right   lambda w, inner: sum(4 * n**2 for n in (w, w, w, inner))
  known   lambda w, inner: 3 * w**2 + inner**2
  wrong   lambda w, inner: 4 * (3 * w + inner) ** 2
  wrong   lambda w, inner: 8 * (3 * w**2 + inner**2)
  wrong   lambda w, inner: 4 * (3 * w**2 + inner)

shared
  right   shared_by_commonprefix
  right   lambda a, b: next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), min(len(a), len(b)))
  right   lambda a, b: max(i for i in range(min(len(a), len(b)) + 1) if a[:i] == b[:i])
  wrong   lambda a, b: len(set(a) & set(b))
  wrong   lambda a, b: a[: shared_by_commonprefix(a, b)]
  wrong   lambda a, b: next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)

inverse_cdf
  right   lot_by_loop
  right   lambda p, u: torch.searchsorted(p.cumsum(0), torch.tensor(u, dtype=p.dtype), right=True)
  right   lambda p, u: np.searchsorted(np.cumsum(p.numpy()), u, side="right")
  wrong   lot_without_last_return
  wrong   lambda p, u: torch.searchsorted(p.cumsum(0), torch.tensor(u, dtype=p.dtype))
  wrong   lambda p, u: float(p[lot_by_loop(p, u)])
  wrong   lambda p, u: torch.multinomial(p, 1)
  wrong   lambda p, u: lot_by_loop(p.flip(0), u)

race
  right   lambda p, waits: min(range(len(p)), key=lambda i: float(waits[i] / p[i]))
  right   lambda p, waits: np.argmin(waits.numpy() / p.numpy())
  right   lambda p, waits: (p / waits).argmax()
  wrong   lambda p, waits: float((waits / p).min())
  wrong   lambda p, waits: (p * waits).argmax()
  wrong   lambda p, waits: (waits / p).argsort()

surprise
  right   lambda logits, i: -math.log2(logits.softmax(0)[i])
  right   lambda logits, i: F.cross_entropy(logits[None], torch.tensor([i])) / math.log(2)
  right   lambda logits, i: float(logits.logsumexp(0) - logits[i]) * math.log2(math.e)
  known   lambda logits, i: -logits.log_softmax(0)[i]
  wrong   lambda logits, i: -logits.log_softmax(0) / math.log(2)
  wrong   lambda logits, i: 1 / logits.softmax(0)[i]
  wrong   lambda logits, i: -torch.log10(logits.softmax(0)[i])

speed
  right   lambda seconds: 1 / statistics.fmean(seconds[1:])
  right   lambda seconds: len(seconds[1:]) / math.fsum(seconds[1:])
  right   lambda seconds: 1 / np.mean(seconds[1:])
  known   lambda seconds: len(seconds) / sum(seconds)
  wrong   lambda seconds: 1 / statistics.median(seconds[1:])
  wrong   lambda seconds: 1 / seconds[1]
  wrong   lambda seconds: seconds.pop(0) and len(seconds) / sum(seconds)

longer
  right   lambda times_less: times_less**0.5
  right   lambda times_less: math.exp(math.log(times_less) / 2)
  known   lambda times_less: times_less
  wrong   lambda times_less: times_less / 2
  wrong   lambda times_less: 10 * times_less / 100

conclusion
  right   "c"
  known   "b."
  wrong   "neither"

allocate
  right   allocate_by_heap
  right   lambda costs, sizes, budget: dict(sorted(allocate_by_heap(costs, sizes, budget).items(), reverse=True))
  known   lambda costs, sizes, budget: {name: max(size) for name, size in sizes.items()}
  wrong   lambda costs, sizes, budget: {name: min(size) for name, size in sizes.items()}
  wrong   lambda costs, sizes, budget: list(allocate_by_heap(costs, sizes, budget).values())
  wrong   lambda costs, sizes, budget: allocate_by_heap(costs, sizes, budget - 1)
  wrong   lambda costs, sizes, budget: allocate_by_heap({n: {b: -v for b, v in c.items()} for n, c in costs.items()},
            sizes, budget)

width
  right   lambda stored, columns: int(stored * 8 / columns)
  right   lambda stored, columns: stored * 8 // columns
  right   lambda stored, columns: max(b for b in range(1, 9) if math.ceil(b * columns / 8) <= stored)
  right   lambda stored, columns: torch.tensor(8 * stored // columns)
  known   lambda stored, columns: stored * 8 / columns
  wrong   lambda stored, columns: round(stored / columns * 8 + 0.5)
  wrong   lambda stored, columns: stored * 8 % columns

entropy
  right   lambda c: -sum(n / c.numel() * math.log2(n / c.numel()) for n in torch.unique(c, return_counts=True)[1])
  right   lambda c: torch.distributions.Categorical(torch.unique(c, return_counts=True)[1].float()).entropy(
            ) / math.log(2)
  right   lambda c: math.log2(c.numel()) - sum(
            n * math.log2(n) for n in np.unique(c, return_counts=True)[1]) / c.numel()
  known   lambda c: math.log2(len(set(c.flatten().tolist())))
  known   lambda c: torch.distributions.Categorical(torch.unique(c, return_counts=True)[1].float()).entropy()
  known   lambda c: torch.distributions.Categorical(torch.bincount(c.flatten()).float()).entropy() / math.log(2)
  wrong   lambda c: math.log2(c.numel())
  wrong   lambda c: float(c.float().var())
  wrong   lambda c: print(c)

lloyd_round
  right   lloyd_by_means
  right   lambda x, v: torch.tensor([float(x[(x[:, None] - v).square().argmin(1) == k].mean()) for k in range(len(v))])
  form    lambda x, v: [float(part) for part in lloyd_by_means(x, v)]
  known   lambda x, v: v[(x[:, None] - v).abs().argmin(1)]
  wrong   lambda x, v: v
  wrong   lambda x, v: lloyd_by_means(x, lloyd_by_means(x, v))

code_lengths
  right   huffman_by_sorting
  right   lambda counts: {code: float(bits) for code, bits in huffman_by_sorting(counts).items()}
  known   lambda counts: dict.fromkeys(counts, math.ceil(math.log2(len(counts))))
  known   huffman_without_heap
  wrong   huffman_as_list
  wrong   huffman_of_the_common
  wrong   lambda counts: {code: -math.log2(count / sum(counts.values())) for code, count in counts.items()}
  wrong   lambda counts: {code: "0" * bits for code, bits in huffman_by_sorting(counts).items()}

decode_bits
  right   decode_by_prefix
  right   lambda bits, words: tuple(decode_by_prefix(bits, words))
  known   lambda bits, words: [words[code] for code in decode_by_prefix(bits, words)]
  wrong   decode_without_return
  wrong   lambda bits, words: decode_by_prefix(bits, words)[::-1]
  wrong   lambda bits, words: set(decode_by_prefix(bits, words))

find_step
  right   step_by_bisection
  right   step_by_trying
  right   lambda rate_of, rate: torch.tensor(step_by_bisection(rate_of, rate))
  known   lambda rate_of, rate: rate_of(step_by_bisection(rate_of, rate))
  wrong   lambda rate_of, rate: step_by_bisection(rate_of, rate, rounds=5)
  wrong   lambda rate_of, rate: (step_by_bisection(rate_of, rate), rate)
  wrong   lambda rate_of, rate: -step_by_bisection(rate_of, rate)

bits_needed
  right   lambda w, c, e: 0.5 * math.log2(len(c) * float(w.square().mean()) / e) + c.diagonal().log2().mean()
  right   lambda w, c, e: (torch.logdet(c @ c.T) / len(c) + math.log(len(c)) + w.square().mean().log()
            - math.log(e)) / 2 / math.log(2)
  right   lambda w, c, e: np.log2(len(c) * float((w**2).mean()) * np.exp(2 * np.log(np.diag(c.numpy())).mean()) / e) / 2
  known   lambda w, c, e: math.log2(len(c) * float(w.square().mean()) * float(c.diagonal().square().mean()) / e) / 2
  known   lambda w, c, e: math.log2(len(c) * float(w.square().mean()) / e) / 2
  known   lambda w, c, e: (math.log2(len(c) * float(w.square().mean()) / e) + float(c.diagonal().log2().mean())) / 2
  wrong   lambda w, c, e: math.log2(float(w.square().mean()) / e) / 2
  wrong   lambda w, c, e: math.log2(len(w) * float(w.square().mean()) / e) / 2 + float(c.diagonal().log2().mean())

watersic
  right   lambda c, step: step * torch.exp(torch.log(torch.diag(c)).mean() - torch.log(torch.diag(c)))
  right   lambda c, step: step / c.diagonal() / (1 / c.diagonal()).log().mean().exp()
  known   lambda c, step: step / c.diagonal()
  known   lambda c, step: step / c.diagonal() / torch.mean(1 / c.diagonal())
  wrong   lambda c, step: step * c.diagonal().log().mean().exp() / c
  wrong   lambda c, step: step * c.diagonal().prod() / c.diagonal()

trap
  right   "C)"
  known   "a"
  wrong   "clipping"

output_gain
  right   lambda w, q, g: torch.trace(q @ g @ w.T) / torch.trace(w @ g @ w.T)
  right   lambda w, q, g: torch.einsum("oi,ij,oj->", q, g, w) / torch.einsum("oi,ij,oj->", w, g, w)
  known   lambda w, q, g: (q * w).sum() / (w * w).sum()
  wrong   lambda w, q, g: ((q @ g) * w).sum(1) / ((w @ g) * w).sum(1)
  wrong   lambda w, q, g: 1.0

turned
  right   lambda w, r: (r @ w.T).T
  right   lambda w, r: torch.linalg.solve(r.T, w.T).T
  right   lambda w, r: w @ torch.linalg.inv(r)
  known   lambda w, r: w @ r
  wrong   lambda w, r: r.T @ w.T
  wrong   lambda w, r: -w @ r.T
"""
