"""Exercises of notebook 07, GPTQ."""

import math

import torch

from nanoq.quant.grid import Grid, affine_grid
from nanoq.teach.checks import Exercise, Mistake


def _hessian(n, generator):
    """The damped Hessian (n, n) of correlated inputs."""
    mix = torch.eye(n) + 0.6 * torch.randn(n, n, generator=generator)
    inputs = torch.randn(8 * n, n, generator=generator) @ mix
    return (inputs.T @ inputs / len(inputs) + 0.05 * torch.eye(n)).double()


def _exact(*numbers):
    """Numbers, or rows of them, in float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def _draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- 07.layer_error ----


def _layer_error(change, gram):
    return float(((change @ gram) * change).sum())


def _changes(generator):
    return [(0.1 * _draw(out, n, generator=generator), _hessian(n, generator)) for out, n in ((1, 2), (3, 5), (4, 4))]


# ---- 07.best_target: two weights ----


def _pairs(generator):
    weights = [(0.45, 0.4), (-0.3, 1.2), (0.2, -0.7)]
    return [(torch.tensor(w, dtype=torch.float64), rounded, _hessian(2, generator))
            for w, rounded in zip(weights, (0.0, -1.0, 0.0), strict=True)]


# ---- 07.spread: one column rounded, its error spread over the others ----


def _spread(weight, rounded, inverse):
    return weight - torch.outer((weight[:, 0] - rounded) / inverse[0, 0], inverse[0])


def _first_only(weight, rounded, inverse):
    return torch.cat((rounded[:, None], weight[:, 1:]), 1)


def _each_alone(weight, rounded, inverse):
    hessian = torch.linalg.inv(inverse)
    moved = weight[:, 1:] + torch.outer(weight[:, 0] - rounded, hessian[0, 1:] / hessian.diagonal()[1:])
    return torch.cat((rounded[:, None], moved), 1)


def _first_kept(weight, rounded, inverse):
    return torch.cat((weight[:, :1], _spread(weight, rounded, inverse)[:, 1:]), 1)


def _first_columns(generator):
    cases = []
    for out, n in ((1, 2), (3, 4), (4, 6)):
        weight = _draw(out, n, generator=generator)
        cases.append((weight, weight[:, 0].round(), torch.linalg.inv(_hessian(n, generator))))
    return cases


# ---- 07.damped ----


def _damped(hessian, share=0.01):
    return hessian + share * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


def _undamped(generator):
    inputs = _draw(40, 4, generator=generator)
    inputs[:, 2] = 0  # an input that was never seen
    return [(_hessian(3, generator), 0.01), (inputs.T @ inputs / 40, 0.1), (5 * _hessian(4, generator), 1e-4)]


# ---- 07.prune_cost, 07.eliminate ----


def _costs(generator):
    return [(_draw(n, generator=generator), torch.linalg.inv(_hessian(n, generator))) for n in (3, 6)]


def _eliminate(inverse, q):
    return inverse - torch.outer(inverse[:, q], inverse[q]) / inverse[q, q]


def _crossed_out(inverse, q):
    left = inverse.clone()
    left[q], left[:, q] = 0, 0
    return left


def _inverses(generator):
    return [(torch.linalg.inv(_hessian(n, generator)), q) for n, q in ((3, 0), (4, 2), (6, 5))]


# ---- 07.column ----


def _column(weight, error, factor, k):
    return weight[:, k] + error[:, :k] @ factor[:k, k] / factor[k, k]


def _columns(generator):
    cases = []
    for out, n, k in ((2, 3, 1), (4, 6, 3), (3, 5, 4)):
        factor = torch.linalg.cholesky(_hessian(n, generator).flip(0, 1)).flip(0, 1)
        error = 0.2 * _draw(out, n, generator=generator)
        error[:, k:] = 0
        cases.append((_draw(out, n, generator=generator), error, factor, k))
    return cases


# ---- 07.gptq: the whole loop ----

# A grid for the board: the values -1, 0, 1 and 2.
WHOLE = Grid(bits=2, levels=4, scale=torch.ones(1, 1), group_size=3, zero_point=torch.ones(1, 1))


def _walk(weight, grid, hessian, mistaken=lambda target, weight, value: weight - value):
    """GPTQ from one factor; `mistaken` says what the error of a column is."""
    factor = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    codes, error = torch.zeros_like(weight), torch.zeros_like(weight)
    for k in range(weight.shape[1]):
        target = _column(weight, error, factor, k)
        codes[:, k] = grid.encode(target[:, None])[:, 0]
        error[:, k] = mistaken(target, weight[:, k], grid.decode(codes[:, k : k + 1])[:, 0])
    return codes.long()


def _walk_of_inverse(weight, grid, hessian):
    return _walk(weight, grid, torch.linalg.inv(hessian))


# ---- 07.act_order ----


def _act_order(weight, grid, hessian):
    order = hessian.diagonal().argsort(descending=True)
    codes = torch.empty_like(weight, dtype=torch.long)
    codes[:, order] = _walk(weight[:, order], grid, hessian[order][:, order])
    return codes


def _twice(weight, grid, hessian):
    order = hessian.diagonal().argsort(descending=True)
    return _walk(weight[:, order], grid, hessian[order][:, order])[:, order]


def _not_undone(weight, grid, hessian):
    order = hessian.diagonal().argsort(descending=True)
    return _walk(weight[:, order], grid, hessian[order][:, order])


def _upwards(weight, grid, hessian):
    order = hessian.diagonal().argsort()
    codes = torch.empty_like(weight, dtype=torch.long)
    codes[:, order] = _walk(weight[:, order], grid, hessian[order][:, order])
    return codes


def _half_permuted(weight, grid, hessian):
    order = hessian.diagonal().argsort(descending=True)
    codes = torch.empty_like(weight, dtype=torch.long)
    codes[:, order] = _walk(weight[:, order], grid, hessian)
    return codes


def _layers(generator):
    cases = []
    for out, n in ((6, 8), (5, 12)):
        weight = _draw(out, n, generator=generator)
        spread = 0.3 + 3 * torch.rand(n, generator=generator, dtype=torch.float64)
        hessian = _hessian(n, generator) * spread * spread[:, None]
        cases.append((weight, affine_grid(weight, 3), hessian))
    return cases


# ---- 07.lazy ----


def _lazy(targets, errors, pull, start, stop, sign=1):
    later = targets[:, stop:] + sign * errors @ pull[start:stop, stop:]
    return torch.cat((targets[:, :stop], later), 1)


def _last_error_only(targets, errors, pull, start, stop):
    return _lazy(targets, errors[:, -1:], pull, stop - 1, stop)


def _all_columns(targets, errors, pull, start, stop):
    return targets + errors @ pull[start:stop]


def _later_only(targets, errors, pull, start, stop):
    return _lazy(targets, errors, pull, start, stop)[:, stop:]


def _not_told(targets, errors, pull, start, stop):
    return targets.clone()


def _blocks(generator):
    cases = []
    for out, n, start, stop in ((2, 6, 2, 4), (3, 5, 0, 3), (2, 4, 2, 4)):
        factor = torch.linalg.cholesky(_hessian(n, generator).flip(0, 1)).flip(0, 1)
        errors = 0.3 * _draw(out, stop - start, generator=generator)
        cases.append((_draw(out, n, generator=generator), errors, factor / factor.diagonal(), start, stop))
    return cases


# ---- 07.original: quantised inputs, original outputs ----


def _original(weight, cross, gram):
    return torch.linalg.solve(gram, (weight @ cross).T).T


def _drifted(generator):
    cases = []
    for out, n in ((1, 3), (3, 5)):
        before = _draw(20 * n, n, generator=generator)
        now = before @ (torch.eye(n) + 0.3 * torch.randn(n, n, generator=generator)).double()
        cases.append((_draw(out, n, generator=generator), before.T @ now / len(now), now.T @ now / len(now)))
    return cases


# ---- 07.repair: the rows of the student project's recursion ----


def _rows_of(matrix):
    upper = torch.linalg.cholesky(matrix, upper=True)
    return upper / upper.diagonal()[:, None]


def _inverses_to_repair(generator):
    return [(torch.linalg.inv(_hessian(n, generator)),) for n in (3, 6)]


# ---- 07.group_size ----


def _group_size(overhead, whole=math.ceil):
    def smallest(bits, budget):
        return 2 ** whole(math.log2(overhead(bits) / budget))

    return smallest


EXERCISES = [
    Exercise(
        id="07.layer_error",
        minutes=5,
        difficulty=2,
        reference=_layer_error,
        cases=_changes,
        paper=[(_exact([1, -1], [1, 0]), _exact([2, 1], [1, 3]))],
        mistakes=[
            Mistake(
                lambda change, hessian: float(change.square().sum()),
                "that is the error of the weights: the inputs, and with them the Hessian, are forgotten.",
            ),
            Mistake(
                lambda change, hessian: float((change @ hessian).square().sum()),
                "the Hessian goes in once and is squared here: D H D^T has the change twice and H once.",
            ),
            Mistake(
                lambda change, hessian: float((change.square() * hessian.diagonal()).sum()),
                "only the diagonal is used: errors of two correlated inputs add up or cancel, and that is all of GPTQ.",
            ),
            Mistake(
                lambda change, hessian: float((change @ hessian @ change.T).sum()),
                "that adds up every pair of rows; a row's error only meets itself: take the diagonal (the trace).",
            ),
            Mistake(
                lambda change, hessian: float(((change @ hessian) * change).mean()),
                "the mean over rows and columns: the error of the outputs is a sum over both.",
            ),
            Mistake(
                lambda change, hessian: float(((change @ hessian) * change).sum()) / len(change),
                "averaged over the outputs: the mean is over the tokens, and H holds it; a token's outputs add up.",
            ),
            Mistake(
                lambda change, hessian: float(((change @ hessian) * change).sum()) / 2,
                "half of it: no factor stands in front, H being the mean of x x^T itself.",
            ),
            Mistake(
                lambda change, hessian: 2 * float(((change @ hessian) * change).sum()),
                "twice: the second derivative of the error is 2 H, but the error itself is the sum of d^T H d.",
            ),
        ],
        hints=(
            "a row's error is `d @ hessian @ d`; add up the rows.",
            "`(change @ hessian) * change` has the share of each weight in each row: what is left to do?",
        ),
        why="one number from two matrices: no input has to be read again to judge a change of the weights.",
    ),
    Exercise(
        id="07.best_target",
        minutes=6,
        difficulty=2,
        reference=lambda weight, rounded, hessian: weight[1] + (weight[0] - rounded) * hessian[0, 1] / hessian[1, 1],
        cases=_pairs,
        paper=[(_exact(0.4, -1), 0.0, _exact([2, 1], [1, 4]))],
        mistakes=[
            Mistake(
                lambda weight, rounded, hessian: weight[1] - (weight[0] - rounded) * hessian[0, 1] / hessian[1, 1],
                "wrong sign: if the first weight has become too small, a positively correlated one has to grow.",
            ),
            Mistake(
                lambda weight, rounded, hessian: weight[1] + (weight[0] - rounded) * hessian[0, 1] / hessian[0, 0],
                "divided by the wrong diagonal: it is the second weight that moves, so its own curvature counts.",
            ),
            Mistake(
                lambda weight, rounded, hessian: weight[1] + (weight[0] - rounded) * hessian[0, 1],
                "a division is missing: set the derivative with respect to the second weight to zero and solve.",
            ),
            Mistake(
                lambda weight, rounded, hessian: (weight[0] - rounded) * hessian[0, 1] / hessian[1, 1],
                "that is by how much the second weight moves; asked for is where it ends.",
            ),
            Mistake(
                lambda weight, rounded, hessian:
                    weight[1] + (weight[0] - rounded) * hessian[0, 1] / (hessian[0, 0] * hessian[1, 1]).sqrt(),
                "that is the correlation, right only if both inputs are equally large.",
            ),
            Mistake(
                lambda weight, rounded, hessian:
                    (weight[1] + (weight[0] - rounded) * hessian[0, 1] / hessian[1, 1]).round(),
                "that is rounded already: asked for is the real number at which the error is least.",
            ),
        ],
        hints=(
            "write d^T H d out for d = (weight[0] - rounded, t - weight[1]) up to sign; only t is unknown.",
            "H01 (rounded - w0) + H11 (t - w1) = 0: solve it for t.",
        ),
        why="the second weight answers for the first one's error by as much as the inputs are alike.",
    ),
    Exercise(
        id="07.spread",
        minutes=7,
        difficulty=3,
        points=2,
        reference=_spread,
        cases=_first_columns,
        paper=[(_exact([0.4, -1]), _exact(0), _exact([2, 1], [1, 1])),
               (_exact([0.6, 1, -1]), _exact(0), _exact([3, -1, -1], [-1, 3, -1], [-1, -1, 3]))],
        mistakes=[
            Mistake(
                lambda weight, rounded, inverse: 2 * weight - _spread(weight, rounded, inverse),
                "wrong sign: the first column has to become `rounded`, so it moves by rounded - weight.",
            ),
            Mistake(
                lambda weight, rounded, inverse: weight - torch.outer(weight[:, 0] - rounded, inverse[0]),
                "the multiple is not the right one: does the first column become `rounded`? Divide by inverse[0, 0].",
            ),
            Mistake(
                lambda weight, rounded, inverse:
                    weight - torch.outer(weight[:, 0] - rounded, inverse[0] / inverse.diagonal()),
                "one multiple for the whole row of the inverse: all of it is divided by inverse[0, 0].",
            ),
            Mistake(
                _first_only,
                "the first column is right, but no other has moved: that is rounding to nearest.",
            ),
            Mistake(
                _first_kept,
                "the others make up for an error that has not been made: put `rounded` into the first column, too.",
            ),
            Mistake(
                _each_alone,
                "each column makes up for the whole error, as in exercise 2, as if it were alone; together they do too "
                "much. The inverse knows what each one's share is.",
            ),
            Mistake(
                lambda weight, rounded, inverse:
                    _spread(weight, rounded, torch.linalg.inv(inverse)),
                "that is a column of the Hessian itself; the move is a multiple of a column of its inverse.",
            ),
        ],
        hints=(
            "each row moves by a multiple of `inverse[0]`. Find the multiple from the first entry alone.",
            "`lost = weight[:, 0] - rounded`; `torch.outer(a, b)` has the rows a_r * b.",
        ),
        why="with the first entry settled, the others have to make the rest of H times the move zero, and "
        "columns of the inverse are just that.",
    ),
    Exercise(
        id="07.damped",
        minutes=3,
        difficulty=1,
        reference=_damped,
        cases=_undamped,
        paper=[(_exact([4, 1], [1, 2]), 0.1)],
        mistakes=[
            Mistake(
                lambda hessian, share=0.01: hessian + share * hessian.diagonal().mean(),
                "that adds to every entry; only the diagonal grows. torch.eye(n) has ones there and zeros elsewhere.",
            ),
            Mistake(
                lambda hessian, share=0.01: hessian + share * torch.eye(len(hessian), dtype=hessian.dtype),
                "the number is a *share* of the mean diagonal: large inputs need more than small ones.",
            ),
            Mistake(
                lambda hessian, share=0.01:
                    hessian + share * hessian.mean() * torch.eye(len(hessian), dtype=hessian.dtype),
                "that is the mean of all entries; the mean of the diagonal is wanted.",
            ),
            Mistake(
                lambda hessian, share=0.01: hessian + share * torch.diag(hessian.diagonal()),
                "each entry grows by a share of itself; an input that was never seen then keeps its 0. Add the same "
                "number everywhere on the diagonal.",
            ),
            Mistake(
                lambda hessian, share=0.01:
                    hessian + share * hessian.diagonal().max() * torch.eye(len(hessian), dtype=hessian.dtype),
                "that is the largest entry of the diagonal; the mean is wanted.",
            ),
            Mistake(
                lambda hessian, share=0.01:
                    hessian + share * hessian.trace() * torch.eye(len(hessian), dtype=hessian.dtype),
                "that is the sum of the diagonal; divide it by its length, or use .mean().",
            ),
        ],
        hints=(
            "one number, added to each entry of the diagonal and nowhere else.",
            "`share * hessian.diagonal().mean()` times `torch.eye(len(hessian))`.",
        ),
        why="a direction that the text never showed gets a small weight of its own, so that no error there is free.",
    ),
    Exercise(
        id="07.column",
        minutes=5,
        difficulty=2,
        reference=_column,
        cases=_columns,
        paper=[(_exact([0.4, -1]), _exact([0.4, 0]), _exact([4, 1], [0, 2]), 1)],
        mistakes=[
            Mistake(
                lambda weight, error, factor, k: weight[:, k] - error[:, :k] @ factor[:k, k] / factor[k, k],
                "wrong sign: error is weight minus rounded value, and what was lost has to be added.",
            ),
            Mistake(
                lambda weight, error, factor, k: weight[:, k] + error[:, :k] @ factor[:k, k],
                "not divided by the diagonal: the sum is measured in outputs, the weight counts C_kk of them.",
            ),
            Mistake(
                lambda weight, error, factor, k: weight[:, k] + error[:, :k] @ factor[k, :k] / factor[k, k],
                "nothing was added: left of the diagonal row k of an upper triangular factor is zero, and so are the "
                "errors from column k on. Which errors are there already, and where do they meet target k?",
            ),
            Mistake(
                lambda weight, error, factor, k:
                    weight[:, k] + error[:, :k] @ (factor[:k, k] / factor.diagonal()[:k]),
                "divided by C_jj of the column before: it is column k that moves, so C_kk counts.",
            ),
            Mistake(
                lambda weight, error, factor, k: error[:, :k] @ factor[:k, k] / factor[k, k],
                "that is the correction alone; the weight itself is missing.",
            ),
            Mistake(
                lambda weight, error, factor, k: (weight[:, k] + error[:, :k] @ factor[:k, k]) / factor[k, k],
                "the weight is divided as well: C_kk is a factor of w_k - q_k, so the sum alone is divided by it.",
            ),
        ],
        hints=(
            "set (w_k - q_k) C_kk plus the sum to zero, and solve for q_k.",
            "the sum over j < k for all rows is `error[:, :k] @ factor[:k, k]`; what it is divided by stands beside "
            "w_k - q_k.",
        ),
        why="what the errors before owe is paid in the currency of column k, hence the division by C_kk.",
    ),
    Exercise(
        id="07.gptq",
        minutes=12,
        difficulty=3,
        points=3,
        reference=_walk,
        cases=_layers,
        dtype=torch.int64,
        paper=[(_exact([-0.7, 0.4]), WHOLE, _exact([2, 1], [1, 2])),
               (_exact([0.3, 0.7, 0.4]), WHOLE, _exact([3, 2, 1], [2, 3, 1], [1, 1, 1]))],
        mistakes=[
            Mistake(
                lambda weight, grid, hessian: grid.encode(weight).long(),
                "these are the codes of rounding to nearest. Is `error` filled in after each column? And is it the "
                "target of a column that is rounded, from an upper triangular factor?",
            ),
            Mistake(
                lambda weight, grid, hessian: _walk(weight, grid, hessian, lambda target, w, value: target - value),
                "the error of a column is that of its *weight*. Target minus value forgets the part of the target that "
                "made up for others, which is an error of this column as well.",
            ),
            Mistake(
                lambda weight, grid, hessian: _walk(weight, grid, hessian, lambda target, w, value: value - w),
                "wrong sign: the error is weight minus value; like this, every column adds to the errors before it.",
            ),
            Mistake(
                lambda weight, grid, hessian: _walk(weight, grid, hessian, lambda target, w, value: value),
                "`error` holds the values there: it should hold weight minus value.",
            ),
            Mistake(
                lambda weight, grid, hessian: grid.decode(_walk(weight, grid, hessian)),
                "those are the values; the codes are wanted, as from `nearest`.",
            ),
            Mistake(
                _walk_of_inverse,
                "that is the factor of the inverse; in this form it is the Hessian itself that is factored.",
            ),
        ],
        hints=(
            "make empty codes and errors of the weight's shape; for each column fill in one column of both.",
            "`codes[:, k], values = to_grid(my_column(weight, error, factor, k), grid)` is the first line in the loop.",
        ),
        why="the six lines that are asked for differ from rounding to nearest in one place: what is rounded.",
    ),
    Exercise(
        id="07.prune_cost",
        minutes=5,
        difficulty=2,
        reference=lambda weight, inverse: weight.square() / inverse.diagonal(),
        cases=_costs,
        paper=[(_exact(1, 2), _exact([2, 1], [1, 1]))],
        mistakes=[
            Mistake(
                lambda weight, inverse: weight.square(),
                "that is pruning by magnitude: it does not know what the other weights can make up for.",
            ),
            Mistake(
                lambda weight, inverse: weight.square() * inverse.diagonal(),
                "multiplied: a large entry of the inverse means that others can take over easily, so it is cheap.",
            ),
            Mistake(
                lambda weight, inverse: weight.square() * torch.linalg.inv(inverse).diagonal(),
                "that is the cost if no other weight moves; the inverse is there because they may.",
            ),
            Mistake(
                lambda weight, inverse: weight.square() / inverse.diagonal() / 2,
                "the half belongs to the second derivative, which is twice our H; in our units the error is e^T H e.",
            ),
            Mistake(
                lambda weight, inverse: weight / inverse.diagonal(),
                "the error goes with the square of what is taken away.",
            ),
        ],
        hints=(
            "the step is -(w_q / [H^-1]_qq) times column q of H^-1; H times that column has a single 1.",
            "w_q^2 / [H^-1]_qq^2 times the entry (q, q) of H^-1 H H^-1.",
        ),
        why="the inverse has the curvature that is left once all others may move, which is never more than H_qq.",
    ),
    Exercise(
        id="07.eliminate",
        minutes=5,
        difficulty=2,
        reference=_eliminate,
        cases=_inverses,
        paper=[(_exact([2, 1], [1, 1]), 0)],
        mistakes=[
            Mistake(
                _crossed_out,
                "crossing out a row and a column of the inverse is not the inverse of the smaller matrix.",
            ),
            Mistake(
                lambda inverse, q: inverse + torch.outer(inverse[:, q], inverse[q]) / inverse[q, q],
                "wrong sign: row and column q have to become zero.",
            ),
            Mistake(
                lambda inverse, q: inverse - torch.outer(inverse[:, q], inverse[q]),
                "not divided by the pivot: row and column q have to become zero.",
            ),
            Mistake(
                lambda inverse, q: inverse - torch.outer(inverse[:, q], inverse[q]) / inverse[q, q] ** 2,
                "divided by the pivot twice: check that entry (q, q) becomes zero.",
            ),
            Mistake(
                lambda inverse, q: inverse.clone(),
                "nothing has changed: that is the inverse in which weight q may still move.",
            ),
        ],
        hints=(
            "the product of column q and row q has the entry G_qq^2 at (q, q), which has to cancel G_qq.",
            "begin with `torch.outer(inverse[:, q], inverse[q])`.",
        ),
        why="one step of Gauss's elimination: cheap, and exact up to rounding.",
    ),
    Exercise(
        id="07.act_order",
        minutes=8,
        difficulty=3,
        points=2,
        reference=_act_order,
        cases=_layers,
        paper=[(_exact([0.3, 0.6, -0.7]), WHOLE, _exact([2, 1, 1], [1, 1, 0], [1, 0, 4]))],
        mistakes=[
            Mistake(
                _walk,
                "that is GPTQ from left to right: no column has changed its place.",
            ),
            Mistake(
                _not_undone,
                "the codes are still in the order of the walk: put them back where their weights were.",
            ),
            Mistake(
                _twice,
                "sorted a second time instead of put back: codes[:, order] = ... undoes it, codes[:, order] does not.",
            ),
            Mistake(
                _upwards,
                "upwards: the column with the largest diagonal comes first.",
            ),
            Mistake(
                _half_permuted,
                "the Hessian kept its order: its rows and its columns both have to follow the weights.",
            ),
        ],
        hints=(
            "`argsort(descending=True)` of the diagonal gives the order; the weight's columns follow it, and rows "
            "*and* columns of the Hessian.",
            "`codes[:, order] = ...` puts column i of the right side at place order[i].",
        ),
        why="order the columns as you like, as long as the Hessian follows; the file never learns of it.",
    ),
    Exercise(
        id="07.lazy",
        minutes=6,
        difficulty=2,
        reference=_lazy,
        cases=_blocks,
        paper=[(_exact([0.4, -1]), _exact([0.4]), _exact([1, 0.5], [0, 1]), 0, 1),
               (_exact([0, 1, -1]), _exact([0.4, 0.2]), _exact([1, 1, 0.5], [0, 1, 1], [0, 0, 1]), 0, 2)],
        mistakes=[
            Mistake(
                lambda targets, errors, pull, start, stop: _lazy(targets, errors, pull, start, stop, sign=-1),
                "wrong sign: error is weight minus value, and what was lost is added.",
            ),
            Mistake(
                _last_error_only,
                "only the last column of the block was told on: every column of the block pulls at the rest.",
            ),
            Mistake(
                _all_columns,
                "the columns of the block have been told already, and are rounded: only those from `stop` on change.",
            ),
            Mistake(
                _later_only,
                "those are the later targets alone; return all columns, the ones before `stop` as they are.",
            ),
            Mistake(
                _not_told,
                "nothing has changed: is it rows `start` to `stop` of `pull`, and its columns from `stop` on?",
            ),
        ],
        hints=(
            "which rows of `pull` belong to the block, and which columns to the rest of the matrix?",
            "the later targets grow by `errors @ pull[start:stop, stop:]`; `torch.cat((a, b), 1)` puts columns side by "
            "side.",
        ),
        why="sums may be put off: a target has to be complete only when its column has its turn.",
    ),
    Exercise(
        id="07.group_size",
        minutes=5,
        difficulty=2,
        reference=_group_size(lambda bits: 16 + bits),
        cases=[(3, 0.15), (4, 0.5), (2, 1.0), (8, 0.02), (3, 0.13), (8, 0.5), (4, 0.625), (8, 1.5),
               (4, 0.62)],
        mistakes=[
            Mistake(
                _group_size(lambda bits: 16),
                "the zero point of each group is forgotten: `bits` more.",
            ),
            Mistake(
                _group_size(lambda bits: bits),
                "the scale of each group is forgotten: 16 bits.",
            ),
            Mistake(
                _group_size(lambda bits: 32 + bits),
                "scales are stored in float16: 16 bits, not 32.",
            ),
            Mistake(
                _group_size(lambda bits: 16 + bits, whole=math.floor),
                "that group is too small and costs more than the budget: go up to the next power of two.",
            ),
            Mistake(
                _group_size(lambda bits: 16 + bits, whole=round),
                "the nearest power of two may be too small a group, which costs more than the budget.",
            ),
            Mistake(
                _group_size(lambda bits: 16 + bits, whole=lambda power: math.floor(power) + 1),
                "a group that costs exactly the budget will do: *at most* includes it.",
            ),
        ],
        hints=(
            "one group costs 16 + bits bits, which group_size weights share.",
            "(16 + bits) / size <= budget: solve it for the size, and go *up* to a power of two.",
        ),
        why="twice the group, half the cost; so the exact size is a quotient, and a power of two above it fits.",
    ),
    Exercise(
        id="07.original",
        minutes=8,
        difficulty=3,
        points=2,
        reference=_original,
        cases=_drifted,
        paper=[(_exact([1, 2]), _exact([2, 1], [0, 1]), _exact([2, 0], [0, 1]))],
        mistakes=[
            Mistake(
                lambda weight, cross, gram: weight.clone(),
                "that is the weight as it was: its outputs miss the old ones, because its inputs have changed.",
            ),
            Mistake(
                lambda weight, cross, gram: weight @ cross.T @ torch.linalg.inv(gram),
                "transposed: cross is the mean of y x^T, and W y x^T has W times it as it is.",
            ),
            Mistake(
                lambda weight, cross, gram: weight @ torch.linalg.inv(gram) @ cross,
                "the order: W' gram = W cross, so the inverse of gram comes last.",
            ),
            Mistake(
                lambda weight, cross, gram: weight @ cross,
                "W' gram is equal to W cross; gram has to be taken off W' still.",
            ),
            Mistake(
                lambda weight, cross, gram: weight @ gram @ torch.linalg.inv(cross),
                "the other way round: that is the weight which would have to be there for W itself to fit.",
            ),
        ],
        hints=(
            "put the means into (W'x - Wy) x^T = 0: what is the mean of x x^T called, what that of y x^T?",
            "W' gram = W cross. `torch.linalg.inv(gram)` goes to the right of both sides.",
        ),
        why="least squares once more: outputs of the old inputs, by the new ones.",
    ),
    Exercise(
        id="07.bug",
        minutes=3,
        difficulty=2,
        reference="c",
        mistakes=[
            Mistake("a", "that line is right: the weight is rounded as it is now, with what it has taken over."),
            Mistake("b", "that line is right: what was lost, with the sign of weight minus rounded value."),
            Mistake("d", "the range is right: only later columns may still move."),
        ],
        hints=(
            "look at what each line needs when the third column has its turn: which columns may still move then?",
            "section 3 inverted hessian[k:, k:] anew for each column. Where is that here?",
        ),
        why="a settled column may not move any more, so each column needs the inverse of a smaller Hessian.",
    ),
    Exercise(
        id="07.repair",
        minutes=10,
        difficulty=3,
        points=2,
        reference=_rows_of,
        cases=_inverses_to_repair,
        paper=[(_exact([4, 2, 2], [2, 2, 3], [2, 3, 6]),)],
        mistakes=[
            Mistake(
                lambda inverse: inverse / inverse.diagonal()[:, None],
                "those are still the project's rows: the inverse is the same for every column.",
            ),
            Mistake(
                lambda inverse: (inverse / inverse.diagonal()[:, None]).triu(),
                "cutting off what is left of the diagonal changes nothing: row k has to come from the inverse of the "
                "*smaller* Hessian.",
            ),
            Mistake(
                lambda inverse: torch.linalg.cholesky(inverse, upper=True),
                "these are the rows of the factor; divide each by its entry on the diagonal.",
            ),
            Mistake(
                lambda inverse: torch.linalg.cholesky(inverse, upper=True) / inverse.diagonal()[:, None],
                "the rows come from the factor, what they are divided by from the inverse: take both from the factor.",
            ),
            Mistake(
                lambda inverse: torch.linalg.cholesky(inverse, upper=True)
                / torch.linalg.cholesky(inverse, upper=True).diagonal(),
                "that divides columns; each *row* is divided by its own entry on the diagonal: [:, None].",
            ),
            Mistake(
                lambda inverse: torch.linalg.cholesky(inverse) / torch.linalg.cholesky(inverse).diagonal(),
                "that is the lower factor; right of its diagonal it is zero, and no column would make up for another.",
            ),
            Mistake(
                lambda inverse: _rows_of(torch.linalg.inv(inverse)),
                "that is a factor of H: the rows of the smaller inverses are in the factor of the inverse.",
            ),
        ],
        hints=(
            "`torch.linalg.inv(hessian[k:, k:])`, as in section 3, has the row that column k needs.",
            "`torch.linalg.cholesky(inverse, upper=True)` has multiples of these rows; make its diagonal 1.",
        ),
        why="a Cholesky factorisation is Gauss's elimination that keeps every row on its way.",
    ),
    Exercise(
        id="07.review",
        minutes=3,
        difficulty=2,
        reference="b",
        mistakes=[
            Mistake("a", "that is right, and exact: no row appears in another row's output."),
            Mistake("c", "that is right: with one grid per row the codes go back to their places."),
            Mistake("d", "that is right: the paper reports 4.2 hours."),
        ],
        hints=(
            "what takes the time when a large model writes one token at a time: arithmetic, or reading weights?",
            "fewer bytes per weight are read faster, whatever they are multiplied as.",
        ),
        why="writing one token at a time waits for memory, so fewer bits are faster even if every product "
        "is in floating point.",
    ),
    Exercise(
        id="07.speedup",
        minutes=3,
        difficulty=1,
        reference=lambda bits, size: 16 / (bits + (16 + bits) / size),
        cases=[(3, 128), (4, 64), (3, 12_288), (2, 32)],
        mistakes=[
            Mistake(
                lambda bits, size: 16 / bits,
                "those are the codes alone: the scales and zero points of the groups are read as well.",
            ),
            Mistake(
                lambda bits, size: 16 / (bits + 16 / size),
                "the zero point of each group is forgotten: `bits` more.",
            ),
            Mistake(
                lambda bits, size: 16 / (bits + 16 + bits),
                "each weight pays a share of its group's scale and zero point, not all of it: divide by `size`.",
            ),
            Mistake(
                lambda bits, size: 32 / (bits + (16 + bits) / size),
                "compared with float16, which has 16 bits per weight.",
            ),
            Mistake(
                lambda bits, size: (bits + (16 + bits) / size) / 16,
                "that is the share of the time that is left; how many times faster is the inverse of it.",
            ),
        ],
        hints=(
            "how many bits per weight are read, all counted?",
            "`bits + (16 + bits) / size`; float16 reads 16.",
        ),
        why="it is a limit: reading less cannot save more time than reading takes.",
    ),
]
