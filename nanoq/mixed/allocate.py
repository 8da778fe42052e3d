"""Which width each layer gets: by clusters of one score for each layer, or by costs under a budget of bytes."""

import math
from fractions import Fraction

import numpy as np

# ---- one score for each layer, and no say in the size ----


def cluster_bits(scores: dict[str, float], bits: tuple[int, ...] = (16, 8, 4)) -> dict[str, int]:
    """Clusters of the scores with the least squared distance to their means; the highest mean gets the most bits.

    K-means with k = len(bits), as in CPTQuant (arXiv 2412.03599), but exact: in one dimension the best clusters are
    intervals (Fisher 1958), and a table over all of them finds those (Jenks and Caspall 1971; Wang and Song 2011).
    Equal scores share a cluster. Where two ways are equally good, more layers get more bits, and where there are fewer
    distinct scores than widths, the widest are used. What size comes out is not controlled.

    Args:
        scores: the sensitivity of each layer, higher for more.
        bits: the widths, in any order.

    Raises:
        ValueError: if there are no scores, one is NaN or infinite, or the widths are not distinct and positive.
    """
    widths = _check_scores(scores, bits)
    values = sorted(set(scores.values()))
    counts = [list(scores.values()).count(value) for value in values]
    edges = _intervals([Fraction(value) for value in values], counts, min(len(widths), len(values)))
    width_of = {value: width for width, (low, high) in zip(widths, edges, strict=False) for value in values[low:high]}
    return {name: width_of[score] for name, score in scores.items()}


def _intervals(values: list[Fraction], counts: list[int], clusters: int) -> list[tuple[int, int]]:
    """The best intervals [low, high) of ascending values that occur so often, the highest first.

    In fractions, so that equally good ones are found to be, on every machine.
    """
    sums = [[Fraction(0)] * 3]  # number, sum and sum of squares of all that is below
    for value, count in zip(values, counts, strict=True):
        sums.append([a + count * value**power for power, a in enumerate(sums[-1])])

    def spread(low: int, high: int) -> Fraction:
        number, total, squares = (b - a for a, b in zip(sums[low], sums[high], strict=True))
        return squares - total * total / number

    # the least error of the values below `high` in 1, 2, ... clusters
    best = [{high: (spread(0, high), 0) for high in range(1, len(values) + 1)}]  # [clusters - 1][high]: error, low
    for k in range(1, clusters):
        # min takes the lowest `low` of equals: the larger upper cluster
        best.append({
            high: min((best[-1][low][0] + spread(low, high), low) for low in range(k, high))
            for high in range(k + 1, len(values) + 1)
        })
    # back from all values to where each cluster begins
    edges, high = [], len(values)
    for table in reversed(best):
        low = table[high][1]
        edges.append((low, high))
        high = low
    return edges


def quantile_bits(scores: dict[str, float], bits: tuple[int, ...] = (16, 8, 4)) -> dict[str, int]:
    """Groups of equal numbers of layers, one for each width; the highest scores get the most bits.

    What does not divide evenly, and layers whose scores are equal, get more bits.

    Raises:
        ValueError: as `cluster_bits` does.
    """
    widths = _check_scores(scores, bits)
    above = {score: sum(other > score for other in scores.values()) for score in scores.values()}
    return {name: widths[above[score] * len(widths) // len(scores)] for name, score in scores.items()}


def costs_from_scores(scores: dict[str, float], bits: tuple[int, ...]) -> dict[str, dict[int, float]]:
    """What each width costs a layer if its score is all that is known: {layer: {bits: score * 4**-bits}}.

    The high-rate law: a bit more halves the step of the grid, and the power of the noise, step**2 / 12, falls to a
    quarter. It takes the scores for harm per noise at one and the same step, and is too kind to widths of 2 and 3 bits,
    where the noise is not small. A layer with a score below 0 gets cheaper the fewer bits it has.

    Raises:
        ValueError: as `cluster_bits` does.
    """
    widths = _check_scores(scores, bits)
    return {name: {width: score * 4.0**-width for width in widths} for name, score in scores.items()}


def _check_scores(scores: dict[str, float], bits: tuple[int, ...]) -> list[int]:
    """The widths, the widest first."""
    if not scores:
        raise ValueError("there are no scores")
    for name, score in scores.items():
        if not math.isfinite(score):
            raise ValueError(f"the score of layer '{name}' is {score}")
    if not bits or len(set(bits)) < len(bits) or not all(isinstance(b, int) and b > 0 for b in bits):
        raise ValueError(f"bits must be distinct positive whole numbers, not {bits!r}")
    return sorted(bits, reverse=True)


# ---- a cost and a size for each layer and width, and a budget ----


def integer_program(
    costs: dict[str, dict[int, float]], sizes: dict[str, dict[int, int]], budget: int
) -> dict[str, int]:
    """The width of each layer with the least total cost that the budget allows, by HiGHS (`scipy.optimize.milp`).

    min sum_lb c_lb x_lb where sum_b x_lb = 1, sum_lb n_lb x_lb <= budget, and every x_lb is 0 or 1 (HAWQ-V3, Yao et al.
    2021, arXiv 2011.10680). That costs of layers add up is an assumption.

    Args:
        costs: {layer: {bits: cost}}, of any sign.
        sizes: {layer: {bits: bytes}} of the packed layer, for the same layers and widths.
        budget: bytes.

    Raises:
        ValueError: if nothing fits the budget, the tables do not fit each other, or a number is none.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import

    _check_tables(costs, sizes, budget)
    choices = [(name, width) for name, widths in costs.items() for width in widths]
    # Only what lies above the least of each layer is to be decided. HiGHS has absolute tolerances of about 1e-6: hence
    # costs in millionths of the largest, sizes in the largest unit that divides them, and half a unit of room to spare.
    cost = np.array([costs[name][width] - min(costs[name].values()) for name, width in choices])
    size = np.array([sizes[name][width] - min(sizes[name].values()) for name, width in choices], dtype=np.int64)
    room = int(min(budget - sum(min(widths.values()) for widths in sizes.values()), size.sum()))
    unit = math.gcd(*size.tolist()) or 1
    # one width a layer, within the budget
    one_each = np.array([[name == layer for name, _ in choices] for layer in costs], dtype=float)
    rules = [LinearConstraint(one_each, 1, 1), LinearConstraint(size // unit, ub=room // unit + 0.5)]
    while True:
        solution = milp(
            cost / (cost.max() or 1) * 1e6, integrality=np.ones(len(choices)), bounds=Bounds(0, 1), constraints=rules,
            options={"mip_rel_gap": 0, "presolve": False},  # the presolve loses optima where sizes are in the billions
        )
        chosen = solution.x > 0.5
        if size[chosen].sum() <= room:
            return {name: width for (name, width), x in zip(choices, chosen, strict=True) if x}
        rules.append(LinearConstraint(chosen.astype(float), ub=len(costs) - 1))  # over, but by less than the tolerance


def greedy(costs: dict[str, dict[int, float]], sizes: dict[str, dict[int, int]], budget: int) -> dict[str, int]:
    """Start with the smallest size of every layer, and buy what saves most cost for a byte as long as it fits.

    Arguments and errors as for `integer_program`, which is never worse.
    """
    _check_tables(costs, sizes, budget)
    chosen = {name: min(size, key=lambda b: (size[b], costs[name][b])) for name, size in sizes.items()}
    left = budget - total(sizes, chosen)
    while True:
        offers = []
        for name, now in chosen.items():
            for width in costs[name]:
                price, gain = sizes[name][width] - sizes[name][now], costs[name][now] - costs[name][width]
                if gain > 0 and 0 < price <= left:
                    offers.append((gain / price, name, width, price))
        if not offers:
            return chosen
        _, name, chosen[name], price = max(offers, key=lambda offer: offer[0])  # the first layer of equals
        left -= price


def total(table: dict[str, dict[int, float]], allocation: dict[str, int]) -> float:
    """The sum of the costs or sizes {layer: {bits: number}} of an allocation {layer: bits}."""
    return sum(table[name][width] for name, width in allocation.items())


def _check_tables(costs: dict[str, dict[int, float]], sizes: dict[str, dict[int, int]], budget: int) -> None:
    if not costs or costs.keys() != sizes.keys():
        raise ValueError(f"costs and sizes of the same layers are needed, not of {list(costs)} and {list(sizes)}")
    for name in costs:
        if not costs[name] or costs[name].keys() != sizes[name].keys():
            raise ValueError(f"costs and sizes of the same widths are needed for layer '{name}'")
        for table, what in ((costs, "cost"), (sizes, "size")):
            for width, value in table[name].items():
                if not math.isfinite(value) or (what == "size" and (value < 0 or value != int(value))):
                    raise ValueError(f"the {what} of layer '{name}' at {width} bits is {value}")
    smallest = sum(min(size.values()) for size in sizes.values())
    if not smallest <= budget:
        raise ValueError(f"a budget of {budget} bytes is too small: the smallest possible size is {smallest} bytes")
