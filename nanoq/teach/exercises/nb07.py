"""Exercises of notebook 07, GPTQ."""

import math

import torch

from nanoq.quant.grid import affine_grid
from nanoq.teach.checks import Exercise, Mistake


def _hessian(n, generator):
    """The damped Hessian (n, n) of correlated inputs."""
    mix = torch.eye(n) + 0.6 * torch.randn(n, n, generator=generator)
    inputs = torch.randn(8 * n, n, generator=generator) @ mix
    return (inputs.T @ inputs / len(inputs) + 0.05 * torch.eye(n)).double()


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


# ---- 07.act_order ----


def _walk(weight, grid, hessian):
    """GPTQ from one factor."""
    factor = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    codes, error = torch.zeros_like(weight), torch.zeros_like(weight)
    for k in range(weight.shape[1]):
        codes[:, k] = grid.encode(_column(weight, error, factor, k)[:, None])[:, 0]
        error[:, k] = weight[:, k] - grid.decode(codes[:, k : k + 1])[:, 0]
    return codes.long()


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


# ---- 07.repair: the student project's recursion ----


def _recursion(update):
    """The recursion with what `update` makes of the inverse after each column."""

    def run(weight, grid, inverse):
        weight, inverse = weight.clone(), inverse.clone()
        codes = torch.zeros_like(weight)
        for k in range(weight.shape[1]):
            codes[:, k] = grid.encode(weight[:, k : k + 1])[:, 0]
            error = weight[:, k] - grid.decode(codes[:, k : k + 1])[:, 0]
            weight[:, k + 1 :] -= error[:, None] / inverse[k, k] * inverse[k, k + 1 :]
            inverse = update(inverse, k)
        return codes.long()

    return run


def _upper(matrix):
    return torch.linalg.cholesky(matrix, upper=True)


def _by_factor(pull):
    """The recursion with what `pull` takes from the inverse and its Cholesky factor for column k."""

    def run(weight, grid, inverse):
        weight, upper = weight.clone(), _upper(inverse)
        codes = torch.zeros_like(weight)
        for k in range(weight.shape[1]):
            codes[:, k] = grid.encode(weight[:, k : k + 1])[:, 0]
            error = weight[:, k] - grid.decode(codes[:, k : k + 1])[:, 0]
            weight[:, k + 1 :] -= error[:, None] * pull(inverse, k, upper)
        return codes.long()

    return run


def _plus(inverse, k):
    return inverse + torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]


def _no_pivot(inverse, k):
    left = inverse - torch.outer(inverse[:, k], inverse[k])
    left[k, k] = 1
    return left


def _repairs(generator):
    return [(weight, grid, torch.linalg.inv(hessian)) for weight, grid, hessian in _layers(generator)]


# ---- 07.group_size ----


def _group_size(overhead, whole=math.ceil):
    def smallest(bits, budget):
        return 2 ** whole(math.log2(overhead(bits) / budget))

    return smallest


EXERCISES = [
    Exercise(
        id="07.layer_error",
        reference=_layer_error,
        cases=_changes,
        mistakes=[
            Mistake(
                lambda change, gram: float(change.square().sum()),
                "that is the error of the weights: the inputs, and with them the Gram matrix, are forgotten.",
            ),
            Mistake(
                lambda change, gram: float((change @ gram).square().sum()),
                "the Gram matrix goes in once and is squared here: D G D^T has the change twice and G once.",
            ),
            Mistake(
                lambda change, gram: float((change.square() * gram.diagonal()).sum()),
                "only the diagonal is used: errors of two correlated inputs add up or cancel, and that is all of GPTQ.",
            ),
            Mistake(
                lambda change, gram: float((change @ gram @ change.T).sum()),
                "that adds up every pair of rows; a row's error only meets itself: take the diagonal (the trace).",
            ),
            Mistake(
                lambda change, gram: float(((change @ gram) * change).mean()),
                "the mean over rows and columns: the error of the outputs is a sum over both.",
            ),
            Mistake(
                lambda change, gram: float(((change @ gram) * change).sum()) / len(change),
                "averaged over the outputs: the mean is over the tokens, and G holds it; a token's outputs add up.",
            ),
            Mistake(
                lambda change, gram: float(((change @ gram) * change).sum()) / 2,
                "half of it: no factor stands in front, G being the mean of x x^T itself.",
            ),
        ],
    ),
    Exercise(
        id="07.best_target",
        reference=lambda weight, rounded, hessian: weight[1] + (weight[0] - rounded) * hessian[0, 1] / hessian[1, 1],
        cases=_pairs,
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
        ],
    ),
    Exercise(
        id="07.prune_cost",
        reference=lambda weight, inverse: weight.square() / inverse.diagonal(),
        cases=_costs,
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
    ),
    Exercise(
        id="07.eliminate",
        reference=_eliminate,
        cases=_inverses,
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
    ),
    Exercise(
        id="07.column",
        reference=_column,
        cases=_columns,
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
        ],
    ),
    Exercise(
        id="07.act_order",
        points=2,
        reference=_act_order,
        cases=_layers,
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
    ),
    Exercise(
        id="07.bug",
        reference="c",
        mistakes=[
            Mistake("a", "that line is right: the nearest grid value of the weight as it is now."),
            Mistake("b", "that line is right: what was lost, with the sign of weight minus rounded value."),
            Mistake("d", "the range is right: only later columns may still move."),
        ],
    ),
    Exercise(
        id="07.repair",
        points=2,
        reference=_by_factor(lambda inverse, k, upper: upper[k, k + 1 :] / upper[k, k]),
        cases=_repairs,
        mistakes=[
            Mistake(
                _recursion(lambda inverse, k: inverse),
                "that is still the project's recursion: the inverse is the same for every column.",
            ),
            Mistake(
                lambda weight, grid, inverse: grid.encode(weight).long(),
                "that is naive rounding: no later column takes over anything. Was row k read where it is zero, in a "
                "lower triangular factor, or after it was eliminated?",
            ),
            Mistake(
                _by_factor(lambda inverse, k, upper: upper[k, k + 1 :]),
                "row k of the factor is not divided by its diagonal entry.",
            ),
            Mistake(
                _by_factor(lambda inverse, k, upper: upper[k, k + 1 :] / inverse[k, k]),
                "the row comes from the factor, its pivot still from the inverse: take both from the factor.",
            ),
            Mistake(
                _by_factor(lambda inverse, k, upper: _upper(torch.linalg.inv(inverse))[k, k + 1 :]
                           / _upper(torch.linalg.inv(inverse))[k, k]),
                "that is a factor of H: the rows of the smaller inverses are in the factor of the inverse.",
            ),
            Mistake(
                _recursion(_plus),
                "wrong sign: once column k is settled, its row and column in the inverse have to vanish.",
            ),
            Mistake(
                _recursion(_no_pivot),
                "not divided by the pivot: row and column k have to vanish.",
            ),
        ],
    ),
    Exercise(
        id="07.noise",
        reference=lambda spread, windows, perplexity: perplexity * spread * math.sqrt(2 / windows),
        cases=[(0.2, 12_800, 2.77), (0.1, 100, 2.0), (0.3, 64, 4.5)],
        mistakes=[
            Mistake(
                lambda spread, windows, perplexity: perplexity * spread / math.sqrt(windows),
                "that is the error of one model's perplexity; both have one, and the variances add.",
            ),
            Mistake(
                lambda spread, windows, perplexity: spread * math.sqrt(2 / windows),
                "those are nats: a small change of the loss changes the perplexity by that much times the perplexity.",
            ),
            Mistake(
                lambda spread, windows, perplexity: perplexity * spread * 2 / math.sqrt(windows),
                "twice the standard error of one: independent errors add as squares, not as they are.",
            ),
            Mistake(
                lambda spread, windows, perplexity: perplexity * spread * math.sqrt(2) / windows,
                "the error of a mean falls with the square root of the number of windows.",
            ),
            Mistake(
                lambda spread, windows, perplexity: perplexity * spread * math.sqrt(2),
                "that is the spread of single windows; the mean of many is surer.",
            ),
            Mistake(
                lambda spread, windows, perplexity: perplexity * spread * math.sqrt(2 / (windows - 1)),
                "windows - 1 belongs into an estimate of the spread. Here the spread is given.",
            ),
        ],
    ),
    Exercise(
        id="07.group_size",
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
    ),
]
