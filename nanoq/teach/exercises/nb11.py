"""Exercises of notebook 11, PMPQ: sensitivity by pruning."""

import math
from functools import partial
from itertools import pairwise

import torch

from nanoq.mixed.sensitivity import quantile
from nanoq.teach.checks import Exercise, Mistake
from nanoq.teach.differences import difference


def _draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- 11.mask ----


def _mask(weight, level):
    return weight.abs() > quantile(weight.abs(), level)


def _matrices(generator):
    # Sizes times level are whole numbers: there torch.quantile and a rank cut the same weights.
    shapes = ((2, 5), 0.5), ((4, 5), 0.2), ((5, 8), 0.9)
    return [(_draw(*shape, generator=generator) + 0.3, level) for shape, level in shapes]


# ---- 11.added_loss ----


def _with_masks(weights, masks, loss):
    """What the loss gains while the masks are on."""
    base, originals = loss(), [weight.clone() for weight in weights]
    for weight, kept in zip(weights, masks, strict=True):
        weight *= kept
    cut = loss()
    for weight, original in zip(weights, originals, strict=True):
        weight.copy_(original)
    return cut - base


def _added_loss(weights, level, loss):
    return _with_masks(weights, [_mask(weight, level) for weight in weights], loss)


def _never_put_back(weights, level, loss):
    base = loss()
    for weight in weights:
        weight *= _mask(weight, level)
    return loss() - base


def _one_by_one(weights, level, loss):
    return sum(_added_loss([weight], level, loss) for weight in weights)


def _one_threshold(weights, level, loss):
    """One quantile for all matrices of the part."""
    threshold = quantile(torch.cat([weight.flatten() for weight in weights]).abs(), level)
    return _with_masks(weights, [weight.abs() > threshold for weight in weights], loss)


def _largest_cut(weights, level, loss):
    return _with_masks(weights, [~_mask(weight, level) for weight in weights], loss)


def _on_a_network(answer, matrices, level):
    """The loss that an answer finds for a network of these matrices, and how far it leaves them from what they were."""
    inside = [matrix.clone() for matrix in matrices]
    x = torch.linspace(-2, 2, 6 * inside[0].shape[1], dtype=torch.float64).view(6, -1).sin()

    def loss():
        hidden = x
        for weight in inside:
            hidden = (hidden @ weight.T).tanh()
        return float((hidden - 1).square().mean())

    found = answer([matrix.detach() for matrix in inside], level, loss)
    if found is None or found is ...:
        return found
    return found, max(float((now - then).abs().max()) for now, then in zip(inside, matrices, strict=True))


def _compare_added(expected, got):
    """The added loss, and weights that are as they were."""
    if problem := difference(expected[0], got[0], 1e-4):
        return f"added loss: {problem}"
    return None if got[1] == expected[1] else f"the weights are not as they were: one is {got[1]:g} away"


def _networks(generator):
    networks = []
    for shapes, level in ((((6, 4),), 0.5), (((10, 4), (5, 10)), 0.2), (((8, 5), (10, 8), (4, 10)), 0.7)):
        sizes = torch.linspace(0.6, 1.4, len(shapes)).tolist()
        matrices = [size * _draw(*shape, generator=generator) for size, shape in zip(sizes, shapes, strict=True)]
        networks.append((matrices, level))
    return networks


# ---- 11.sensitivity ----


def _trapezoids(base, losses):
    steps = [(a + b) / 2 for a, b in pairwise(losses)]
    return sum(steps) / len(steps) - base


# ---- 11.catch: algorithms, and tests of algorithms. Each is called as algorithm(parts, levels, loss). ----


def _correct(parts, levels, loss):
    base = loss(None, 0)
    return {part: sum(loss(part, level) - base for level in levels) / len(levels) for part in parts}


def _correct_in_other_sums(parts, levels, loss):
    """Equal up to the rounding of floats."""
    base, scores = loss(None, 0), dict.fromkeys(parts, 0.0)
    for level in levels:
        for part in parts:
            scores[part] += loss(part, level) / len(levels)
    return {part: score - base for part, score in scores.items()}


def _correct_backwards(parts, levels, loss):
    return _correct(parts[::-1], levels, loss)


def _as_printed(parts, levels, loss):
    base, scores = loss(None, 0), {}
    for level in levels:
        for part in parts:
            current = loss(part, level)
        scores[part] = current - base
    return scores


def _under_the_last_key(parts, levels, loss):
    return {parts[-1]: _correct(parts, levels, loss)[parts[-1]]}


def _the_last_for_all(parts, levels, loss):
    return dict.fromkeys(parts, _correct(parts, levels, loss)[parts[-1]])


def _only_the_last_level(parts, levels, loss):
    base = loss(None, 0)
    return {part: loss(part, levels[-1]) - base for part in parts}


def _never_reset(parts, levels, loss):
    base, grown, scores = loss(None, 0), 0.0, {}
    for part in parts:
        for level in levels:
            grown += loss(part, level) - base
        scores[part] = grown / len(levels)
    return scores


def _wrong_sign(parts, levels, loss):
    return {part: -score for part, score in _correct(parts, levels, loss).items()}


def _without_the_base(parts, levels, loss):
    base = loss(None, 0)
    return {part: score + base for part, score in _correct(parts, levels, loss).items()}


ALGORITHMS = (_correct, _correct_in_other_sums, _correct_backwards, _as_printed, _under_the_last_key, _the_last_for_all,
              _only_the_last_level, _never_reset, _wrong_sign, _without_the_base)
_DAMAGE = {("a", 0.3): 0.1, ("a", 0.6): 0.3, ("b", 0.3): 0.2, ("b", 0.6): 0.7}


def _run(algorithm, damage):
    """What an algorithm makes of a model whose damage is known, and what it should."""
    parts, levels = sorted({part for part, _ in damage}), sorted({level for _, level in damage})
    scores = algorithm(parts, levels, lambda part, level: 0.7 + damage.get((part, level), 0.0))
    return scores, {part: sum(damage[part, level] for level in levels) / len(levels) for part in parts}


def _close(scores, wanted):
    return scores.keys() == wanted.keys() and all(math.isclose(scores[part], wanted[part]) for part in wanted)


def _passes(algorithm, damage=None):
    return _close(*_run(algorithm, damage or _DAMAGE))


def _some_result(algorithm):
    return bool(_run(algorithm, _DAMAGE)[0])


def _all_keys(algorithm):
    scores, wanted = _run(algorithm, _DAMAGE)
    return scores.keys() == wanted.keys()


def _exactly(algorithm):
    scores, wanted = _run(algorithm, _DAMAGE)
    return scores == wanted


def _in_this_order(algorithm):
    scores, wanted = _run(algorithm, _DAMAGE)
    return list(scores) == list(wanted) and _close(scores, wanted)


def _ranks(algorithm):
    scores, _ = _run(algorithm, _DAMAGE)
    return len(scores) == 2 and scores["b"] > scores["a"]


def _raises(algorithm):
    if not _passes(algorithm):
        raise AssertionError
    return True


# ---- 11.scope ----


def _scope(matrices, level, share=lambda cut: float(cut.double().mean())):
    threshold = quantile(torch.cat([matrix.flatten() for matrix in matrices]).abs(), level)
    return [share(matrix.abs() <= threshold) for matrix in matrices]


def _mean_threshold(matrices, level):
    threshold = sum(float(quantile(matrix.abs(), level)) for matrix in matrices) / len(matrices)
    return [float((matrix.abs() <= threshold).double().mean()) for matrix in matrices]


def _of_the_block(matrices, level):
    total = sum(matrix.numel() for matrix in matrices)
    return _scope(matrices, level, lambda cut: int(cut.sum()) / total)


def _blocks(generator):
    cases = []
    for sizes, level in (((1.0, 0.2), 0.5), ((0.3, 1.0, 2.0), 0.3)):
        shapes = [(4, 5), (8, 10), (10, 6)]
        cases.append(([size * _draw(*shape, generator=generator) for size, shape in zip(sizes, shapes, strict=False)],
                      level))
    return cases


# ---- 11.flips ----


def _flips(before, after):
    change = before.double() - after.double()
    return float(change.mean()), float(change.std()) / math.sqrt(len(change))


def _unpaired(before, after):
    spread = sum(float(hits.double().mean()) * (1 - float(hits.double().mean())) for hits in (before, after))
    return _flips(before, after)[0], math.sqrt(spread / len(before))


def _all_changes(before, after):
    changed = (before != after).double()
    return float(changed.mean()), float(changed.std()) / math.sqrt(len(changed))


def _hits(generator):
    cases = []
    for right, flipped in ((0.7, 0.1), (0.5, 0.02)):
        before = torch.rand(4000, generator=generator) < right
        cases.append((before, before ^ (torch.rand(4000, generator=generator) < flipped)))
    return cases


# ---- 11.matched ----


def _matched(weight, error):
    squares = weight.flatten().square().sort().values
    return float((squares.cumsum(0) <= error * squares.sum()).double().mean())


def _not_squared(weight, error):
    sizes = weight.flatten().abs().sort().values
    return float((sizes.cumsum(0) <= error * sizes.sum()).double().mean())


def _not_relative(weight, error):
    return float((weight.flatten().square().sort().values.cumsum(0) <= error).double().mean())


def _largest_first(weight, error):
    squares = weight.flatten().square().sort(descending=True).values
    return float((squares.cumsum(0) <= error * squares.sum()).double().mean())


def _single(weight, error):
    squares = weight.flatten().square()
    return float((squares <= error * squares.sum()).double().mean())


EXERCISES = [
    Exercise(
        id="11.mask",
        why="a share of the weights is a rank, and a rank is what `sort` or `kthvalue` finds.",
        minutes=5,
        difficulty=1,
        hints=(
            "how many weights are to be cut? In which order does one find the smallest, whatever their signs?",
            "`size = weight.abs()`; the threshold is the size at rank `round(level * weight.numel())` "
            "among `size.flatten().sort().values`.",
        ),
        reference=_mask,
        cases=_matrices,
        paper=[(torch.tensor([[3.0, -1.0, 1.5, -4.0], [2.0, -0.25, 5.0, -0.75]]), 0.25)],
        mistakes=[
            Mistake(
                lambda weight, level: weight > quantile(weight, level),
                "large negative weights are cut, too: it is the size that counts, not the sign.",
            ),
            Mistake(
                lambda weight, level: ~_mask(weight, level),
                "the wrong way round: True is for weights that stay.",
            ),
            Mistake(
                lambda weight, level: weight.abs() >= quantile(weight.abs(), level),
                "with >= the weight of exactly the threshold's size stays, one too many: only larger ones do.",
            ),
            Mistake(
                lambda weight, level: weight.abs() > level * weight.abs().max(),
                "that is a share of the largest weight. The level is a share of how many weights are cut.",
            ),
            Mistake(
                lambda weight, level: torch.stack([_mask(row, level) for row in weight]),
                "each row has a threshold of its own here; there is one for the whole matrix.",
            ),
            Mistake(
                lambda weight, level: weight * _mask(weight, level),
                "those are the weights after the cut; asked for is the mask, True or False for each.",
            ),
            Mistake(
                lambda weight, level: _mask(weight, 1 - level),
                "the level is the share that is cut; this is cut by the share that would be kept.",
            ),
        ],
    ),
    Exercise(
        id="11.added_loss",
        why="a score compares one part with another, so each has to be cut from the same, whole model.",
        points=2,
        minutes=8,
        difficulty=2,
        hints=(
            "four steps: measure, keep a copy and cut, measure again, put back. Which has to come before which?",
            "`originals = [weight.clone() for weight in weights]`; `weight *= mask` changes a tensor in place, and "
            "`weight.copy_(original)` puts it back.",
        ),
        reference=_added_loss,
        call=_on_a_network,
        compare=_compare_added,
        cases=_networks,
        paper=[([torch.tensor([[0.5, -1.0], [2.0, 0.25]]).double(), torch.tensor([[-0.25, 0.1], [0.2, -0.5]]).double()],
                0.5)],
        mistakes=[
            Mistake(
                _never_put_back,
                "the number is right, but the weights stay cut. Keep a `clone` of each before you cut (a second name "
                "for the same tensor is no copy), and copy it back *into* the tensor: `weight.copy_(original)`. "
                "`weights[i] = ...` and `weight.data = ...` change only what your list holds.",
            ),
            Mistake(
                lambda weights, level, loss: _added_loss(weights, level, loss) + loss(),
                "that is the loss of the cut model: what the whole one has is to be taken off.",
            ),
            Mistake(
                lambda weights, level, loss: -_added_loss(weights, level, loss),
                "the sign: damage is the loss with the cut minus the loss without it.",
            ),
            Mistake(
                lambda weights, level, loss: 0.0,
                "nothing changed between the two losses. Measure once before the cut, and change the tensors "
                "themselves (`weight *= ...`): a new tensor is not in the model.",
            ),
            Mistake(
                lambda weights, level, loss: _added_loss(weights[:1], level, loss),
                "only the first matrix was cut: a part may have several.",
            ),
            Mistake(
                _one_by_one,
                "each matrix was cut by itself and the damages were added; cut the whole part, and measure once.",
            ),
            Mistake(
                _one_threshold,
                "all matrices share one threshold here; each has a quantile of its own.",
            ),
            Mistake(
                _largest_cut,
                "the large weights were cut, and the small ones are left: the mask is True for weights that stay.",
            ),
        ],
    ),
    Exercise(
        id="11.sensitivity",
        why="a mean does not grow with the number of levels. *Which* levels they are still decides it.",
        minutes=2,
        difficulty=1,
        hints=(
            "what does a part lose at one level? And on the mean over the levels?",
            "take the mean of the losses first: `sum(losses) / ...`; then compare it with `base`.",
        ),
        reference=lambda base, losses: sum(losses) / len(losses) - base,
        cases=[(0.7, [0.71, 0.8, 1.3]), (1.2, [1.19, 1.5]), (0.4, [0.5, 0.9, 1.4, 4.0]), (1.2, [1.19, 1.15]),
               (0.7, [0.9, 1.6, 1.0])],
        mistakes=[
            Mistake(
                lambda base, losses: base - sum(losses) / len(losses),
                "the sign of an accuracy: a loss gets larger when things get worse.",
            ),
            Mistake(
                lambda base, losses: sum(losses) / len(losses),
                "the loss of the model as it was has not been taken off: a part that does no harm should have 0.",
            ),
            Mistake(
                lambda base, losses: sum(loss - base for loss in losses),
                "the sum: it grows with the number of levels. Take the mean.",
            ),
            Mistake(
                lambda base, losses: sum(losses) - base,
                "the base is taken off once from a sum of several losses.",
            ),
            Mistake(
                lambda base, losses: losses[-1] - base,
                "only the last level: all of them count alike.",
            ),
            Mistake(
                lambda base, losses: max(losses) - base,
                "only the largest loss: all levels count alike.",
            ),
            Mistake(
                _trapezoids,
                "trapezoids give the first and the last level half a vote; in this mean all count alike.",
            ),
            Mistake(
                lambda base, losses: sum(losses) / len(losses) / base,
                "a ratio: nats are compared by differences.",
            ),
        ],
    ),
    Exercise(
        id="11.catch",
        why="with one part the last is the right one, with one level a mean is the last value, and equal "
            "numbers hide a mix-up.",
        minutes=10,
        difficulty=3,
        hints=(
            "which toy is the smallest whose right scores a wrong algorithm cannot meet by chance: how "
            "many parts, how many levels?",
            "two parts, two levels, four different numbers in a dictionary `{(part, level): damage}`; "
            "then compare name by name with `math.isclose`.",
        ),
        points=2,
        reference=_passes,
        cases=[(algorithm,) for algorithm in ALGORITHMS],
        paper=[(_as_printed,), (_the_last_for_all,), (_only_the_last_level,), (_correct_in_other_sums,),
               (_correct_backwards,)],
        mistakes=[
            Mistake(
                _some_result,
                "every algorithm passes, the broken ones too: what do you compare the scores with?",
            ),
            Mistake(
                _all_keys,
                "the names are compared, the numbers are not: a score that belongs to another part passes.",
            ),
            Mistake(
                partial(_passes, damage={("a", 0.3): 0.1, ("a", 0.6): 0.3}),
                "with a single part the last one is the right one: a toy for this bug needs two.",
            ),
            Mistake(
                partial(_passes, damage={("a", 0.3): 0.1, ("b", 0.3): 0.2}),
                "with a single level there is nothing to average: who takes the last level for the mean passes.",
            ),
            Mistake(
                partial(_passes, damage={("a", 0.3): 0.1, ("a", 0.6): 0.3, ("b", 0.3): 0.1, ("b", 0.6): 0.3}),
                "both parts of your toy do the same damage: who gives one part's score to the other passes.",
            ),
            Mistake(
                _ranks,
                "the order of the parts is compared, the numbers are not: a wrong mean may have the right order.",
            ),
            Mistake(
                _exactly,
                "a correct algorithm fails, for it sums in another order: allow for the rounding of floats "
                "(math.isclose).",
            ),
            Mistake(
                _in_this_order,
                "a correct algorithm fails, for it returns the parts in another order: ask for each by its name.",
            ),
            Mistake(
                _raises,
                "it finds what it should, but raises: return False for a broken algorithm.",
            ),
        ],
    ),
    Exercise(
        id="11.scope",
        why="a quantile of all sizes together is met at different shares by matrices of different spread.",
        minutes=5,
        difficulty=2,
        hints=(
            "whose quantile is the threshold? And of what is the share?",
            "`torch.cat([matrix.flatten() for matrix in matrices]).abs()` has all sizes; then count in "
            "each matrix what is not above the threshold.",
        ),
        reference=_scope,
        cases=_blocks,
        paper=[([torch.tensor([[1.0, 2.0, 3.0, 4.0, 8.0]]), torch.tensor([[3.5, 6.0, 7.0, 9.0, 10.0]])], 0.4)],
        mistakes=[
            Mistake(
                lambda matrices, level: [float((~_mask(matrix, level)).double().mean()) for matrix in matrices],
                "each matrix has a threshold of its own here: put all weights together before you take the quantile.",
            ),
            Mistake(
                partial(_scope, share=lambda cut: float((~cut).double().mean())),
                "those are the shares that stay.",
            ),
            Mistake(
                partial(_scope, share=lambda cut: int(cut.sum())),
                "those are counts: divide by the number of weights of each matrix.",
            ),
            Mistake(
                _mean_threshold,
                "the mean of the thresholds is not the threshold of all weights together.",
            ),
            Mistake(
                _of_the_block,
                "divided by the weights of the whole block: the share within each matrix is asked for.",
            ),
        ],
    ),
    Exercise(
        id="11.flips",
        why="both models answer the same questions, so only answers that change carry noise.",
        minutes=5,
        difficulty=2,
        hints=(
            "what can happen to one answer? Give each of the three cases a number.",
            "`change = before.double() - after.double()`; its mean is the drop, and its spread over the "
            "square root of n the error.",
        ),
        reference=_flips,
        cases=_hits,
        paper=[(torch.tensor([1, 1, 1, 1, 1, 0, 0, 0]).bool(), torch.tensor([0, 0, 1, 1, 1, 1, 0, 0]).bool())],
        rtol=1e-3,  # a spread with n in place of n - 1 is as good
        mistakes=[
            Mistake(
                lambda before, after: (-_flips(before, after)[0], _flips(before, after)[1]),
                "the sign: a model that gets fewer right has a positive drop.",
            ),
            Mistake(
                _unpaired,
                "that error is for two samples of their own. Both models answer the same questions: look at the change "
                "of each answer.",
            ),
            Mistake(
                lambda before, after: (
                    _flips(before, after)[0], _flips(before, after)[1] * math.sqrt(len(before))),
                "that is the spread of single answers; a mean of n answers is surer by the square root of n.",
            ),
            Mistake(
                _all_changes,
                "answers that became right count against those that became wrong: the drop is their balance.",
            ),
            Mistake(
                lambda before, after: (
                    _flips(before, after)[0],
                    math.sqrt(float(after.double().mean()) * (1 - float(after.double().mean())) / len(after))),
                "that is the error of one accuracy. What hardly varies is the difference: most answers do not change.",
            ),
        ],
    ),
    Exercise(
        id="11.matched",
        why="errors of cutting are squares in rising order, so their running sum tells how far one may go.",
        minutes=6,
        difficulty=2,
        hints=(
            "in which order are the weights cut, and what does each of them add to the squared error?",
            "begin with `squares = weight.flatten().square().sort().values`; its running sum is `cumsum(0)`.",
        ),
        reference=_matched,
        paper=[(torch.tensor([[3.0, -1.0, 5.0, 2.0, -4.0]]), 0.3)],
        cases=lambda generator: [(torch.ones(1, 4).double(), 0.5), *((_draw(*shape, generator=generator) * 2, error)
                                 for shape, error in (((10, 10), 0.05), ((4, 25), 0.3), ((20, 20), 0.012)))],
        mistakes=[
            Mistake(
                _not_squared,
                "sizes are summed: the error is a sum of squares.",
            ),
            Mistake(
                _not_relative,
                "the error is given as a share of the weights' own sum of squares.",
            ),
            Mistake(
                _largest_first,
                "pruning begins with the smallest weights; this begins with the largest.",
            ),
            Mistake(
                _single,
                "each weight is compared on its own: it is their running sum that reaches the error.",
            ),
            Mistake(
                lambda weight, error: 1 - _matched(weight, error),
                "that is the share that stays.",
            ),
            Mistake(
                lambda weight, error: _matched(weight, error**2),
                "the given error is squared already.",
            ),
        ],
    ),
    Exercise(
        id="11.constructed",
        why="a threshold looks at ranks, a grid at the range of its row: one far value moves only the second.",
        minutes=3,
        difficulty=2,
        hints=(
            "what does the threshold of pruning look at, and what does the step of a row's grid?",
            "which of the four changes makes one weight of each row much larger than the others, and "
            "leaves their order?",
        ),
        reference="c",
        mistakes=[
            Mistake("a", "the grid follows the weights: a row that is larger everywhere has a step larger by as much, "
                         "and the input that is smaller takes it back."),
            Mistake("b", "the other way round: rounding to that grid once more changes nothing, and pruning does."),
            Mistake("d", "neither minds: a threshold for the whole matrix and a grid for each row know no order of "
                         "the rows."),
        ],
    ),
]
