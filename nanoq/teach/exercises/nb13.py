"""Exercises of notebook 13, the showdown: what counts as better, and the tests that would have caught each bug.

The learner writes the race: bytes, correlation, allocation, interval. In the bug hunt they write *tests*: a function is
handed an implementation and says whether it is right. The cases are good and bad implementations; a mistake is a test
that lets a bad one through, or fails a good one.
"""

import math
from copy import deepcopy
from itertools import combinations, combinations_with_replacement, pairwise, permutations

import torch
from torch import nn

from nanoq.teach.checks import Exercise, Mistake

# ---- 13.file_bytes ----


def _file_bytes(shapes, widths, others, scales=2, zeros=lambda rows, bits: math.ceil(rows * bits / 8), rest=2):
    """Bytes of a mixture; the options make a mistake of it."""
    size = sum(rows * math.ceil(columns * widths[name] / 8) + scales * rows + zeros(rows, widths[name])
               for name, (rows, columns) in shapes.items())
    return size + rest * others


def _end_to_end(shapes, widths, others):
    size = sum(math.ceil(rows * columns * widths[name] / 8) + 2 * rows + math.ceil(rows * widths[name] / 8)
               for name, (rows, columns) in shapes.items())
    return size + 2 * others


def _codes_alone(shapes, widths, others):
    return sum(rows * math.ceil(columns * widths[name] / 8) for name, (rows, columns) in shapes.items())


def _at_the_mean(shapes, widths, others):
    mean = sum(widths.values()) / len(widths)
    return sum(rows * math.ceil(columns * mean / 8) + 2 * rows + math.ceil(rows * mean / 8)
               for rows, columns in shapes.values()) + 2 * others


_MATRICES = [
    ({"a": (4, 8), "b": (8, 4)}, {"a": 2, "b": 4}, 0),
    ({"a": (5, 10), "b": (3, 7), "c": (12, 5)}, {"a": 3, "b": 2, "c": 5}, 11),
    ({"qkv": (576, 192), "out": (192, 192), "up": (768, 192)}, {"qkv": 3, "out": 4, "up": 2}, 3000),
]

# ---- 13.rank ----


def _ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order.index(i) for i in range(len(values))]


def _pearson(x, y):
    x, y = (torch.tensor([float(value) for value in side], dtype=torch.float64) for side in (x, y))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())


def _spearman(x, y):
    return _pearson(_ranks(x), _ranks(y))


def _orders(x, y):
    return _pearson(*(sorted(range(len(side)), key=side.__getitem__) for side in (x, y)))


def _pairs_in_order(x, y):
    agree = [(x[i] - x[j]) * (y[i] - y[j]) > 0 for i, j in combinations(range(len(x)), 2)]
    return 2 * sum(agree) / len(agree) - 1


_SCORES_AND_DAMAGE = [
    ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0]),
    ([0.3, 0.1, 0.9, 0.4, 0.7], [2e-4, 9e-5, 1e-3, 3e-4, 8e-5]),
    ([5.0, 1.0, 4.0, 2.0, 3.0, 6.0], [0.5, 3.0, 0.2, 0.9, 1.4, 0.1]),
    ([0.9, 0.2, 0.5, 0.7, 0.1, 0.4, 0.8], [1.0, 30.0, 2.0, 1.5, 500.0, 2.5, 0.5]),
]

# ---- 13.knapsack ----


def _knapsack(costs, sizes, budget, fits=lambda spent, budget: spent <= budget, better=lambda new, old: new < old,
              chosen=lambda best: min(best.values(), key=lambda entry: entry[0])):
    """The cheapest mixture of each size, layer by layer; the options make a mistake of it."""
    best = {0: (0.0, {})}
    for name in costs:
        longer = {}
        for spent, (cost, widths) in best.items():
            for bits in costs[name]:
                size, new = spent + sizes[name][bits], cost + costs[name][bits]
                if fits(size, budget) and (size not in longer or better(new, longer[size][0])):
                    longer[size] = new, widths | {name: bits}
        best = longer
    return chosen(best)[1] if best else {}


def _largest_that_fits(costs, sizes, budget):
    """The mixture that spends most, whatever it costs."""
    spent = {name: {bits: -size for bits, size in table.items()} for name, table in sizes.items()}
    return _knapsack(spent, sizes, budget)


def _step_by_step(costs, sizes, budget, value=lambda gain, price: gain / price):
    """Greedy: the best step to any larger width, as long as one fits."""
    chosen = {name: min(table) for name, table in sizes.items()}
    while True:
        left = budget - sum(sizes[name][bits] for name, bits in chosen.items())
        steps = [(value(costs[name][bits] - costs[name][wider], sizes[name][wider] - sizes[name][bits]), name, wider)
                 for name, bits in chosen.items() for wider in costs[name]
                 if wider > bits and sizes[name][wider] - sizes[name][bits] <= left]
        if not steps:
            return chosen
        _, name, chosen[name] = max(steps)


def _overwritten(costs, sizes, budget):
    return _knapsack(costs, sizes, budget, better=lambda new, old: True)


def _alike(costs, sizes, budget):
    widths = list(next(iter(costs.values())))
    fitting = [bits for bits in widths if sum(table[bits] for table in sizes.values()) <= budget]
    return dict.fromkeys(costs, max(fitting))


def _knapsacks(generator):
    """Layers of a few sizes; one case has more mixtures than can be tried, in one a cheaper mixture is smaller."""
    cases = [({"a": {2: 4.0, 3: 0.0}, "b": {2: 4.0, 3: 1.0}}, {"a": {2: 2, 3: 3}, "b": {2: 2, 3: 5}}, 7)]
    for layers, widths, share in ((3, (2, 3, 4), 0.5), (5, (2, 3, 4, 8), 0.3), (6, (2, 3, 4), 0.37),
                                  (20, (2, 3, 4), 0.5)):
        weights = (torch.randint(1, 5, (layers,), generator=generator) * 8).tolist()
        sensitivity = (torch.rand(layers, generator=generator) + 0.1).tolist()
        names = [f"layer {i}" for i in range(layers)]
        costs = {name: {bits: s * n * 4.0**-bits for bits in widths}
                 for name, s, n in zip(names, sensitivity, weights, strict=True)}
        sizes = {name: {bits: n * bits + 5 for bits in widths} for name, n in zip(names, weights, strict=True)}
        low, high = (sum(table[bits] for table in sizes.values()) for bits in (2, 4))
        cases.append((costs, sizes, int(low + share * (high - low)) // 8 * 8 + 5 * layers % 8))
    return cases


# ---- 13.paired ----


def _paired(mine, theirs):
    difference = mine - theirs
    half = 1.96 * difference.std() / math.sqrt(len(difference))
    return tuple(float(value) for value in (difference.mean(), difference.mean() - half, difference.mean() + half))


def _around(mean, half):
    return tuple(float(value) for value in (mean, mean - half, mean + half))


def _window_losses(generator):
    cases = []
    for windows, gap in ((16, 0.02), (24, -0.01), (40, 0.0)):
        hard = 1 + 0.3 * torch.randn(windows, generator=generator, dtype=torch.float64)
        mine, theirs = (hard + 0.02 * torch.randn(windows, generator=generator, dtype=torch.float64) for _ in range(2))
        cases.append((mine + gap, theirs))
    return cases


# ---- 13.verdict ----


def _verdict(a, b, wins=None):
    wins = wins or (lambda mine, theirs: all(x[2] < y[1] for x, y in zip(mine, theirs, strict=True)))
    return "a" if wins(a, b) else "b" if wins(b, a) else "open"


def _by_mean(mine, theirs):
    return sum(x[0] for x in mine) < sum(y[0] for y in theirs)


def _any_seed(mine, theirs):
    return any(x[2] < y[1] for x, y in zip(mine, theirs, strict=True))


def _points(mine, theirs):
    return all(x[0] < y[0] for x, y in zip(mine, theirs, strict=True))


def _across(mine, theirs):
    return max(x[2] for x in mine) < min(y[1] for y in theirs)


_RACES = [
    ([(0.020, 0.018, 0.022)] * 3, [(0.030, 0.027, 0.033)] * 3),
    ([(0.050, 0.046, 0.054)] * 3, [(0.030, 0.027, 0.033)] * 3),
    ([(0.020, 0.017, 0.023)] * 3, [(0.022, 0.019, 0.025)] * 3),  # every point, no interval
    ([(0.020, 0.018, 0.022)] * 2 + [(0.031, 0.028, 0.034)], [(0.030, 0.027, 0.033)] * 3),  # two of three
    # within each seed apart, though the seeds differ from each other by more
    ([(0.02, 0.018, 0.022), (0.03, 0.028, 0.032), (0.04, 0.038, 0.042)],
     [(0.025, 0.023, 0.027), (0.035, 0.033, 0.037), (0.045, 0.043, 0.047)]),
]  # fmt: skip

# ---- 13.worth ----


def _worth(a, b, bits):
    return a * (4.0 ** -(bits + 1) - 4.0**-bits) + b * (4.0 ** -(bits - 1) - 4.0**-bits)


# ---- 13.possible ----


def _possible(claimed, base, widths):
    return base / max(widths) <= claimed <= base / min(widths)


# ---- 13.attainable ----


def _sums(blocks, widths):
    return [sum(mix) for mix in combinations_with_replacement(widths, blocks)]


def _attainable(blocks, widths, base):
    return [base * blocks / total for total in sorted(set(_sums(blocks, widths)), reverse=True)]


def _mean_of_ratios(blocks, widths, base):
    mixes = combinations_with_replacement(widths, blocks)
    return sorted({round(sum(base / width for width in mix) / blocks, 9) for mix in mixes})


def _none_empty(blocks, widths, base):
    mixes = combinations_with_replacement(widths, blocks)
    totals = {sum(mix) for mix in mixes if set(mix) == set(widths)}
    return [base * blocks / total for total in sorted(totals, reverse=True)]


# ---- 13.upright ----


def _ratio(original, quantized):
    return original / quantized


def _turned_ratio(original, quantized):
    return quantized / original


def _reduction(original, quantized):
    return 100 * (1 - quantized / original)


def _turned_reduction(original, quantized):
    return 100 * (1 - original / quantized)


# ---- 13.duplicates ----


def _duplicates(table, same=lambda a, b: a == b):
    return [(a, b) for a, b in combinations(table, 2) if same(table[a], table[b])]


def _neighbours(table):
    return [(a, b) for a, b in pairwise(table) if table[a] == table[b]]


def _both_ways(table):
    return [(a, b) for a, b in permutations(table, 2) if table[a] == table[b]]


def _with_themselves(table):
    return [(a, b) for a, b in combinations_with_replacement(table, 2) if table[a] == table[b]]


_TABLES = [
    ({"small": (4.0, 3.0, 2.0), "medium": (3.5, 3.0, 2.5), "large": (4.0, 3.0, 2.0)},),
    ({"small": (4.0, 3.0, 2.0), "medium": (2.0, 3.0, 4.0), "large": (4.1, 3.1, 2.1)},),
    ({"one": (4.33, 3.85, 3.14), "two": (4.33, 3.85, 3.14), "three": (4.33, 3.85, 3.14)},),
]

# ---- 13.replaced ----


class Tiny(nn.Module):
    """Two blocks of two layers, and a head: names with dots, and one without. Reads (N, 4)."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential() for _ in range(2))
        for block in self.blocks:
            block.add_module("up", nn.Linear(4, 8))
            block.add_module("down", nn.Linear(8, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        """(N, 4) -> (N, 3)."""
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def _by_parent(model, name, new):
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)


def _by_set_submodule(model, name, new):
    model.set_submodule(name, new)


def _by_setattr(model, name, new):
    setattr(model, name, new)


def _in_a_copy(model, name, new):
    deepcopy(model).set_submodule(name, new)


def _beside_the_forward_pass(model, name, new):
    model.forward = deepcopy(model).forward  # of a copy that keeps the old layer
    model.set_submodule(name, new)


def _without_dots_only(model, name, new):
    if "." not in name:
        setattr(model, name, new)


def _replaced(replace, model, name):
    calls, new = [], deepcopy(model.get_submodule(name))
    new.register_forward_hook(lambda *_: calls.append(name))
    replace(model, name, new)
    model(torch.ones(1, 4))
    return bool(calls)


def _is_there(find):
    def test(replace, model, name):
        new = deepcopy(model.get_submodule(name))
        replace(model, name, new)
        return find(model, name, new)
    return test


def _runs(replace, model, name):
    replace(model, name, deepcopy(model.get_submodule(name)))
    return model(torch.ones(1, 4)).shape == (1, 3)


# ---- 13.ordered ----


def _assign(order):
    """An implementation: order(scores, labels) lists the labels, the one for 16 bits first."""
    def assign(scores, labels):
        width = dict(zip(order(scores, labels), (16, 8, 4), strict=True))
        return [width[label] for label in labels]
    return assign


def _means(scores, labels):
    groups = {label: [s for s, own in zip(scores, labels, strict=True) if own == label] for label in set(labels)}
    return {label: sum(group) / len(group) for label, group in groups.items()}


def _descending(scores, labels):
    means = _means(scores, labels)
    return sorted(means, key=means.get, reverse=True)


def _label_zero(scores, labels):
    return [16 if label == 0 else 8 for label in labels]


_right, _labels_up = _assign(_descending), _assign(lambda scores, labels: sorted(set(labels)))
_labels_down = _assign(lambda scores, labels: sorted(set(labels), reverse=True))
_least_first = _assign(lambda scores, labels: _descending(scores, labels)[::-1])
_rest_swapped = _assign(lambda scores, labels: [_descending(scores, labels)[i] for i in (0, 2, 1)])
_least_right = _assign(lambda scores, labels: [_descending(scores, labels)[i] for i in (1, 0, 2)])
_SCORES, _GROUPS = [9.0, 9.2, 5.0, 1.0, 1.3], [0, 0, 1, 2, 2]
_WANTED = [16, 16, 8, 4, 4]


def _ordered(assign):
    return all(assign(_SCORES, [names[group] for group in _GROUPS]) == _WANTED for names in permutations(range(3)))


# ---- 13.accuracy ----


def _of_words(logits, labels, words):
    return float((logits[:, -1, words].argmax(-1) == labels).float().mean())


def _at_the_first_place(logits, labels, words):
    return float((logits[:, 0, words].argmax(-1) == labels).float().mean())


def _over_vocabulary(logits, labels, words):
    return float((logits.argmax(-1) == labels[:, None]).float().mean())


def _last_over_vocabulary(logits, labels, words):
    return float((logits[:, -1].argmax(-1) == labels).float().mean())


def _always_right(logits, labels, words):
    return 1.0


def _never_right(logits, labels, words):
    return 0.0


def _turned(logits, labels, words):
    return 1 - _of_words(logits, labels, words)


def _reviews(right, words=(7, 4), labels=(0, 1, 1, 0)):
    """Logits (4, 3, 10) that prefer the right word, or the wrong one, at the end."""
    labels, words = torch.tensor(labels), torch.tensor(words)
    logits = torch.zeros(4, 3, 10)
    chosen = words[labels if right else 1 - labels]
    logits[torch.arange(4), -1, chosen] = 5.0
    return logits, labels, words


def _fair(accuracy):
    return accuracy(*_reviews(True)) == 1 and accuracy(*_reviews(False)) == 0


# ---- 13.kept ----


def _all(parts, score):
    return {part: score(part) for part in parts}


def _under_the_last(parts, score):
    results = {}
    for part in parts:
        value = score(part)
    results[part] = value
    return results


def _all_but_the_last(parts, score):
    return {part: score(part) for part in parts[:-1]}


def _same_for_all(parts, score):
    for part in parts:
        value = score(part)
    return dict.fromkeys(parts, value)


def _for_another(parts, score):
    return dict(zip(parts, map(score, parts[::-1]), strict=True))


def _moved_on(parts, score):
    return dict(zip(parts, map(score, [*parts[1:], parts[0]]), strict=True))


def _summed_up(parts, score):
    results, value = {}, 0.0
    for part in parts:
        value += score(part)
        results[part] = value
    return results


_VALUES = {"blocks.0": 3.0, "blocks.1": 1.0, "blocks.2": 2.0}


def _kept(score_all):
    return score_all(list(_VALUES), _VALUES.get) == _VALUES


EXERCISES = [
    Exercise(
        id="13.file_bytes",
        why="scales, zero points and what stays in float16 are in the file too, and count against the budget.",
        minutes=5,
        difficulty=1,
        hints=(
            "count one matrix first: the bytes of a row of codes, times the rows; then scales; then zero points.",
            "a row of codes takes `math.ceil(columns * bits / 8)` bytes; the zero points of a matrix are packed like "
            "one row of `rows` codes.",
        ),
        reference=_file_bytes,
        cases=_MATRICES,
        mistakes=[
            Mistake(_codes_alone, "those are the codes alone: what else does the file hold?"),
            Mistake(
                lambda shapes, widths, others: _file_bytes(shapes, widths, others, zeros=lambda rows, bits: 0),
                "the zero points are missing.",
            ),
            Mistake(
                lambda shapes, widths, others: _file_bytes(shapes, widths, others, zeros=lambda rows, bits: rows),
                "that is a byte per zero point; they are packed, `bits` bits each.",
            ),
            Mistake(
                lambda shapes, widths, others: _file_bytes(shapes, widths, others, scales=0),
                "the scales are missing: two bytes per row.",
            ),
            Mistake(
                lambda shapes, widths, others: _file_bytes(shapes, widths, others, scales=4),
                "the scales are float16: two bytes each.",
            ),
            Mistake(
                lambda shapes, widths, others: _file_bytes(shapes, widths, others, rest=0),
                "the other parameters are in the file too, in float16.",
            ),
            Mistake(
                lambda shapes, widths, others: _file_bytes(shapes, widths, others, rest=1),
                "`others` counts parameters; each takes two bytes in float16.",
            ),
            Mistake(
                lambda shapes, widths, others: _file_bytes(shapes, widths, others, rest=4),
                "the other parameters are float16, not float32.",
            ),
            Mistake(_end_to_end, "each row begins a new byte: round up row by row."),
            Mistake(_at_the_mean, "a mean width forgets that matrices are of different sizes."),
        ],
    ),
    Exercise(
        id="13.rank",
        why="widths depend on the order of the layers, and a rank does not care how far one layer sticks out.",
        minutes=5,
        difficulty=2,
        hints=(
            "first write a function that turns values into ranks: the smallest gets 0, the next 1, and so on.",
            "the rank of a value is its place in `sorted(values)`; then take the ordinary correlation of the two lists "
            "of ranks: covariance over the product of the standard deviations.",
        ),
        reference=_spearman,
        cases=_SCORES_AND_DAMAGE,
        mistakes=[
            Mistake(_pearson, "that is the correlation of the values; turn them into ranks first."),
            Mistake(
                _orders,
                "argsort says *which* element comes first, second, …; the rank of an element is the inverse of that: "
                "argsort once more.",
            ),
            Mistake(
                lambda x, y: _spearman(x, y) * (len(x) - 1) / len(x),
                "the covariance is a mean over n, and the standard deviations are over n − 1 (torch's `std`): take the "
                "same for both.",
            ),
            Mistake(_pairs_in_order, "that is Kendall's tau: it counts pairs. Spearman correlates the ranks."),
            Mistake(
                lambda x, y: -_spearman(x, y),
                "the sign: the same order is +1. Did you rank one list from the largest?",
            ),
            Mistake(lambda x, y: _spearman(x, y) ** 2, "squared: the sign is lost."),
            Mistake(
                lambda x, y: 1 - sum((a - b) ** 2 for a, b in zip(_ranks(x), _ranks(y), strict=True)) / len(x) ** 3,
                "the short formula is 1 − 6 Σd² / (n (n² − 1)).",
            ),
        ],
    ),
    Exercise(
        id="13.knapsack",
        why="two mixtures of the same bytes differ for the layers to come in nothing but their cost, so one is enough.",
        points=3,
        minutes=12,
        difficulty=3,
        hints=(
            "keep a dictionary `best`: bytes spent so far → (least cost, widths). Each layer makes a new one of it: "
            "every entry, with every width, if it fits; of two with equal bytes keep the cheaper.",
            "`best = {0: (0.0, {})}`; for each layer an empty `longer`, filled by two loops; then `best = longer`. At "
            "the end take the entry of least cost. Trying all mixtures takes too long: one case has 3**20.",
        ),
        reference=lambda costs, sizes, budget: _knapsack(costs, sizes, budget),
        cases=_knapsacks,
        paper=[
            ({"A": {2: 10, 3: 0}, "B": {2: 5, 3: 1}}, {"A": {2: 2, 3: 5}, "B": {2: 1, 3: 2}}, 6),
            ({"A": {2: 6, 3: 5}, "B": {2: 8, 3: 2}}, {"A": {2: 2, 3: 3}, "B": {2: 2, 3: 3}}, 5),
            ({"A": {2: 9, 3: 4}, "B": {2: 6, 3: 2}, "C": {2: 6, 3: 2}},
             {"A": {2: 2, 3: 5}, "B": {2: 1, 3: 2}, "C": {2: 1, 3: 2}}, 7),
        ],
        mistakes=[
            Mistake(
                _step_by_step,
                "greedy again: a step that is best now can waste the bytes that two others needed. Keep all sizes.",
            ),
            Mistake(
                lambda costs, sizes, budget: _step_by_step(costs, sizes, budget, lambda gain, price: gain),
                "greedy, and without the price of a step. Keep the cheapest mixture of *every* size instead.",
            ),
            Mistake(
                _overwritten,
                "of two mixtures with the same bytes the later one replaced the earlier: keep the cheaper.",
            ),
            Mistake(
                lambda costs, sizes, budget: _knapsack(costs, sizes, budget, better=lambda new, old: new > old),
                "of two mixtures with the same bytes the dearer one was kept.",
            ),
            Mistake(
                lambda costs, sizes, budget: _knapsack(costs, sizes, budget, chosen=lambda best: best[max(best)]),
                "the last line takes the mixture of the most bytes; the least cost may be at fewer.",
            ),
            Mistake(
                _largest_that_fits,
                "that spends as many bytes as possible; asked for is the least cost.",
            ),
            Mistake(
                lambda costs, sizes, budget: _knapsack(costs, sizes, budget, fits=lambda spent, budget: spent < budget),
                "a mixture that takes the budget to the last byte fits as well.",
            ),
            Mistake(
                lambda costs, sizes, budget: {name: max(table) for name, table in costs.items()},
                "every layer has its largest width: is that within the budget?",
            ),
            Mistake(_alike, "that is the best uniform width; each layer may have its own."),
        ],
    ),
    Exercise(
        id="13.paired",
        why="hard windows are hard for both models, and the difference is free of that.",
        minutes=4,
        difficulty=1,
        hints=(
            "there is one difference per window. What are their mean and their standard deviation?",
            "the standard error is the standard deviation (with n − 1) over the square root of n; go 1.96 of them to "
            "each side of the mean.",
        ),
        reference=_paired,
        rtol=1e-3,
        cases=_window_losses,
        paper=[(torch.tensor([1.3, 2.1, 0.9, 1.7], dtype=torch.float64),
                torch.tensor([1.2, 1.8, 0.8, 1.4], dtype=torch.float64))],
        mistakes=[
            Mistake(
                lambda mine, theirs: _around((mine - theirs).mean(),
                                             1.96 * ((mine.var() + theirs.var()) / len(mine)).sqrt()),
                "unpaired: that adds the spreads of two losses as if each model had read its own text.",
            ),
            Mistake(
                lambda mine, theirs: _around((mine - theirs).mean(), 1.96 * (mine - theirs).std()),
                "that is where single windows lie; the mean of n windows is surer by the square root of n.",
            ),
            Mistake(
                lambda mine, theirs: _around((mine - theirs).mean(), (mine - theirs).std() / len(mine) ** 0.5),
                "one standard error to each side holds the truth in two of three cases; for 95 % it takes 1.96.",
            ),
            Mistake(
                lambda mine, theirs: _around((mine - theirs).mean(), 1.96 * (mine - theirs).std() / len(mine)),
                "the spread of a mean falls with the square root of n, not with n.",
            ),
            Mistake(
                lambda mine, theirs: _around(
                    (mine - theirs).mean(), 1.96 * (mine - theirs).std(unbiased=False) / len(mine) ** 0.5),
                "the standard deviation of a sample divides by n − 1 (numpy: `ddof=1`).",
            ),
            Mistake(lambda mine, theirs: _paired(theirs, mine), "the sign: mine minus theirs."),
            Mistake(
                lambda mine, theirs: _paired(mine, theirs)[::2] + _paired(mine, theirs)[1:2],
                "the order is mean, low, high.",
            ),
            Mistake(lambda mine, theirs: _paired(mine, theirs)[1:], "three numbers: the mean, and the two ends."),
        ],
    ),
    Exercise(
        id="13.verdict",
        why="intervals guard against lucky windows, and all seeds together against a lucky calibration text.",
        minutes=4,
        difficulty=1,
        hints=(
            "write `wins(mine, theirs)` first: in every seed, does mine end before theirs begins?",
            "`all(x[2] < y[1] for x, y in zip(mine, theirs))` says whether mine is surely better; ask it both ways.",
        ),
        points=2,
        reference=_verdict,
        cases=_RACES,
        mistakes=[
            Mistake(
                lambda a, b: _verdict(a, b, _by_mean),
                "a mean alone always has a winner. Where do the intervals come in?",
            ),
            Mistake(
                lambda a, b: _verdict(a, b, _points),
                "the same sign in every seed, but all three meet the same held-out windows and share their luck.",
            ),
            Mistake(
                lambda a, b: _verdict(a, b, _any_seed),
                "one seed is enough for that test, and with three seeds there are three chances to be lucky.",
            ),
            Mistake(
                lambda a, b: _verdict(a, b, _across),
                "seed 0 of one is compared with seed 2 of the other: the two met different calibration texts.",
            ),
            Mistake(
                lambda a, b: {"a": "b", "b": "a", "open": "open"}[_verdict(a, b)],
                "the numbers are added loss: less is better.",
            ),
        ],
    ),
    Exercise(
        id="13.worth",
        why="a saves three quarters of its damage and b adds three times its own: that pays if a is over four times b.",
        minutes=4,
        difficulty=2,
        hints=(
            "what does each layer lose after the move, and what did it lose before?",
            "a goes from `a * 4**-bits` to `a * 4**-(bits + 1)`; write the same for b, and add the two changes.",
        ),
        reference=_worth,
        cases=[(1.0, 1.0, 3), (4.0, 1.0, 3), (10.0, 1.0, 4), (2.0, 0.5, 2)],
        mistakes=[
            Mistake(
                lambda a, b, bits: (b - a) * 4.0**-bits,
                "that is the difference of what they lose now. What does each lose at its *new* width?",
            ),
            Mistake(
                lambda a, b, bits: a * (4.0 ** -(bits + 1) - 4.0**-bits),
                "the bit came from somewhere: what does b lose?",
            ),
            Mistake(
                lambda a, b, bits: -_worth(a, b, bits),
                "the sign: after minus before, so that a gain is negative.",
            ),
            Mistake(
                lambda a, b, bits: a * (2.0 ** -(bits + 1) - 2.0**-bits) + b * (2.0 ** -(bits - 1) - 2.0**-bits),
                "a bit halves the step; the damage goes with the *square* of the step.",
            ),
            Mistake(
                lambda a, b, bits: a * 4.0 ** -(bits + 1) + b * 4.0 ** -(bits - 1),
                "that is the damage afterwards. How much of it was there before?",
            ),
        ],
    ),
    Exercise(
        id="13.possible",
        why="a mixture is an average, and an average lies between its ends: no measurement is needed.",
        minutes=4,
        difficulty=1,
        hints=(
            "what is the ratio if all layers have the widest width? And the narrowest?",
            "the largest ratio is `base / min(widths)`; compare `claimed` with both ends, which are allowed.",
        ),
        reference=_possible,
        cases=[(4.53, 16, (16, 8, 4)), (4.53, 32, (16, 8, 4)), (2.35, 32, (16,)), (2.0, 32, (16,)),
               (1.5, 32, (16, 8, 4)), (3.2, 32, (16, 8, 4)), (4.0, 16, (16, 8, 4)), (9.0, 32, (16, 8, 4)),
               (6.2, 32, (5, 3))],
        mistakes=[
            Mistake(
                lambda claimed, base, widths: claimed <= base / min(widths),
                "there is a lower end too: with every layer at its widest the model still shrinks.",
            ),
            Mistake(
                lambda claimed, base, widths: any(abs(claimed - base / width) < 1e-9 for width in widths),
                "that allows only models of one width; layers may have different ones.",
            ),
            Mistake(
                lambda claimed, base, widths: 32 / max(widths) <= claimed <= 32 / min(widths),
                "the base is an argument: against float16 the same model has half the ratio.",
            ),
            Mistake(
                lambda claimed, base, widths: base / min(widths) <= claimed <= base / max(widths),
                "the *smallest* width gives the *largest* ratio.",
            ),
            Mistake(
                lambda claimed, base, widths: base / max(widths) < claimed < base / min(widths),
                "the ends can be reached: a cast to float16 is exactly 2.",
            ),
        ],
    ),
    Exercise(
        id="13.attainable",
        why="blocks of equal size only leave a few totals, so a ratio to two decimals can be impossible.",
        minutes=6,
        difficulty=2,
        hints=(
            "only the total of the bits counts. Which totals can one block have, and which two?",
            "keep a set of totals, begin with `{0}`, and add every width to every total once per block.",
        ),
        points=2,
        reference=_attainable,
        cases=[(2, (16, 8, 4), 32), (3, (16, 8, 4), 16), (4, (8, 4), 32), (24, (16, 8, 4), 32)],
        mistakes=[
            Mistake(
                _mean_of_ratios,
                "a mean of ratios is not the ratio of the whole: add bytes, then divide.",
            ),
            Mistake(
                _none_empty,
                "nobody says that each width is used; a cluster may stay empty here.",
            ),
            Mistake(
                lambda blocks, widths, base: _attainable(blocks, widths, base)[::-1],
                "ascending, please: the most bits first.",
            ),
            Mistake(
                lambda blocks, widths, base: sorted(base * blocks / total for total in _sums(blocks, widths)),
                "different mixes can have the same size; list each ratio once.",
            ),
            Mistake(
                lambda blocks, widths, base: sorted(base / width for width in widths),
                "those are the models of one width.",
            ),
        ],
    ),
    Exercise(
        id="13.upright",
        why="a size of which you know the answer tells up from down, and per cent from shares.",
        minutes=3,
        difficulty=1,
        hints=(
            "choose an original and a quantised size for which you know both answers.",
            "from 400 bytes to 100 the ratio is 4, and 75 per cent are gone.",
        ),
        reference=lambda ratio, reduction: ratio(400, 100) == 4 and reduction(400, 100) == 75,
        cases=[(_ratio, _reduction), (_turned_ratio, _reduction), (_ratio, _turned_reduction),
               (_turned_ratio, _turned_reduction), (_ratio, lambda original, quantized: 1 - quantized / original),
               (lambda original, quantized: 100 * original / quantized, _reduction)],
        mistakes=[
            Mistake(
                lambda ratio, reduction: ratio(100, 100) == 1 and reduction(100, 100) == 0,
                "with equal sizes up and down look the same.",
            ),
            Mistake(
                lambda ratio, reduction: ratio(400, 100) > 1,
                "the second formula is not looked at.",
            ),
            Mistake(
                lambda ratio, reduction: reduction(400, 100) > 0,
                "the first formula is not looked at.",
            ),
            Mistake(
                lambda ratio, reduction: ratio(400, 100) > 1 or reduction(400, 100) > 0,
                "one right formula is enough for that test.",
            ),
            Mistake(
                lambda ratio, reduction: ratio(400, 100) > 1 and reduction(400, 100) > 0,
                "the right way up, but are they right? 0.75 is not 75 per cent: compare with the numbers you know.",
            ),
            Mistake(
                lambda ratio, reduction: ratio(100, 400) > 1 and reduction(100, 400) > 0,
                "the arguments: the original, which is larger, comes first. This test asks for the bug.",
            ),
        ],
    ),
    Exercise(
        id="13.duplicates",
        why="scores of different models do not agree to the last digit, so equal rows ask for an explanation.",
        minutes=3,
        difficulty=1,
        hints=(
            "compare each row with all rows after it.",
            "two loops: over the names, and over the names behind each; keep the pair if `table[a] == table[b]`.",
        ),
        reference=_duplicates,
        cases=_TABLES,
        mistakes=[
            Mistake(_neighbours, "only neighbours are compared; a copied row may stand anywhere."),
            Mistake(_both_ways, "each pair is there twice, (a, b) and (b, a)."),
            Mistake(_with_themselves, "a row always equals itself."),
            Mistake(
                lambda table: _duplicates(table, lambda a, b: sorted(a) == sorted(b)),
                "the same numbers in another order are no copy: compare column by column.",
            ),
            Mistake(
                lambda table: _duplicates(table, lambda a, b: any(x == y for x, y in zip(a, b, strict=True))),
                "one equal number happens by chance; the whole row is the suspicious thing.",
            ),
        ],
    ),
    Exercise(
        id="13.replaced",
        why="only the forward pass knows which layer it calls.",
        minutes=7,
        difficulty=2,
        hints=(
            "the new layer has to tell you that it was called. What can a layer do when it is called?",
            "`new.register_forward_hook(lambda *_: calls.append(name))` notes each call; replace, then run the model "
            "on an input of shape `(1, 4)`.",
        ),
        points=2,
        reference=_replaced,
        cases=[(replace, Tiny(), name) for name in ("blocks.1.up", "head")
               for replace in (_by_parent, _by_setattr, _by_set_submodule, _in_a_copy, _without_dots_only,
                               _beside_the_forward_pass)],
        mistakes=[
            Mistake(
                _is_there(lambda model, name, new: getattr(model, name, None) is new),
                "setattr and getattr agree with each other, dots and all. Who asks the forward pass?",
            ),
            Mistake(
                _is_there(lambda model, name, new: dict(model.named_modules()).get(name) is new),
                "the list of modules has two entries of that name now, and yours is the one that nobody calls.",
            ),
            Mistake(
                _is_there(lambda model, name, new: model.get_submodule(name) is new),
                "the layer is in its place, and the forward pass may call another one all the same: run the model.",
            ),
            Mistake(_runs, "a model in which nothing was replaced runs as well, with outputs of the same shape."),
            Mistake(
                lambda replace, model, name: _replaced(replace, model, "head"),
                "you tried it with the one name that has no dot. Take the name that you were given.",
            ),
        ],
    ),
    Exercise(
        id="13.ordered",
        why="a test of an assignment permutes what should not matter.",
        minutes=5,
        difficulty=2,
        hints=(
            "make up scores and clusters, and rename the clusters in all ways.",
            "for each of the six orders `names` of 0, 1, 2 hand over `[names[group] for group in groups]`; the widths "
            "must stay the same.",
        ),
        reference=_ordered,
        cases=[(_right,), (_labels_up,), (_labels_down,), (_least_first,), (_label_zero,), (_rest_swapped,),
               (_least_right,)],
        mistakes=[
            Mistake(
                lambda assign: assign(_SCORES, _GROUPS) == _WANTED,
                "K-means numbers its clusters as it likes, and this numbering happens to be the lucky one.",
            ),
            Mistake(
                lambda assign: assign(_SCORES, [2 - group for group in _GROUPS]) == _WANTED,
                "one numbering only, and there is an implementation that is lucky with it.",
            ),
            Mistake(
                lambda assign: set(assign(_SCORES, [2, 2, 0, 1, 1])) == {16, 8, 4},
                "all three widths occur; does each group have its own?",
            ),
            Mistake(
                lambda assign: assign(_SCORES, _GROUPS)[0] == assign(_SCORES, _GROUPS)[1],
                "members of a cluster share a width. Is it the right one?",
            ),
        ],
    ),
    Exercise(
        id="13.accuracy",
        why="a metric is right if it gives 1 and 0 to the two whose marks you know.",
        minutes=6,
        difficulty=2,
        hints=(
            "build logits of a classifier that is always right. Which entries have to be large?",
            "begin with zeros of shape `(4, 3, 10)`, choose words that are not 0 and 1, and raise the right word at "
            "position -1.",
        ),
        points=2,
        reference=_fair,
        cases=[(_of_words,), (_over_vocabulary,), (_last_over_vocabulary,), (_always_right,), (_turned,),
               (_never_right,), (_at_the_first_place,)],
        mistakes=[
            Mistake(
                lambda accuracy: accuracy(*_reviews(True, (0, 1))) == 1 and accuracy(*_reviews(False, (0, 1))) == 0,
                "your words have the ids 0 and 1, so a word's id and a label are the same number: choose others.",
            ),
            Mistake(
                lambda accuracy: accuracy(*_reviews(False)) == 0,
                "who never finds an answer passes that. What must a perfect classifier get?",
            ),
            Mistake(
                lambda accuracy: accuracy(*_reviews(True)) == 1,
                "who always says 1 passes that. What must a classifier get that is always wrong?",
            ),
            Mistake(
                lambda accuracy: 0 <= accuracy(*_reviews(True)) <= 1,
                "every share lies in 0..1, the meaningless one too.",
            ),
        ],
    ),
    Exercise(
        id="13.kept",
        why="a result has to be kept inside the loop that computes it.",
        minutes=3,
        difficulty=1,
        hints=(
            "call it with a few names whose scores you know.",
            "compare the whole dictionary with the one you expect, for at least three names.",
        ),
        reference=_kept,
        cases=[(_all,), (_under_the_last,), (_same_for_all,), (_summed_up,), (_all_but_the_last,),
               (_for_another,), (_moved_on,)],
        mistakes=[
            Mistake(
                lambda score_all: score_all(["blocks.0"], _VALUES.get) == {"blocks.0": 3.0},
                "with a single layer the first is the last: take at least two.",
            ),
            Mistake(
                lambda score_all: len(score_all(list(_VALUES), _VALUES.get)) > 0,
                "something came out; is it everything?",
            ),
            Mistake(
                lambda score_all: list(score_all(list(_VALUES), _VALUES.get)) == list(_VALUES),
                "all layers are there; does each have its own score?",
            ),
            Mistake(
                lambda score_all: score_all(list(_VALUES), _VALUES.get).get("blocks.2") == 2.0,
                "the last layer is the one that is always right here.",
            ),
        ],
    ),
]
