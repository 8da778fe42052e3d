"""Exercises of notebook 06, learned rounding and training with rounded weights."""

import itertools
import math

import torch

from nanoq.numbers import FLOATS
from nanoq.teach.checks import Exercise, Mistake


def _gram(n, generator):
    """The Gram matrix (n, n) of inputs that are positive and alike, as after a ReLU."""
    inputs = (1 + torch.randn(20 * n, n, generator=generator) + torch.randn(20 * n, 1, generator=generator)).relu()
    return (inputs.T @ inputs / len(inputs)).double()


def _exact(*numbers):
    """Numbers, or rows of them, in float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def _draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- 06.enumerate ----


def _all_of(lower, upper):
    up = torch.tensor(list(itertools.product((False, True), repeat=len(lower))))  # (2^n, n)
    return torch.where(up, upper, lower)


def _choose(cost, pick=torch.argmin):
    """The rounding that a cost (change (2^n, n), gram) likes best."""

    def best(weight, lower, upper, gram):
        values = _all_of(lower, upper)
        return values[pick(cost(values - weight, gram))]

    return best


def _quadratic(change, gram):
    return ((change @ gram) * change).sum(1)


def _one_after_the_other(weight, lower, upper, gram):
    """Each weight in turn takes its better neighbour, the later ones still unrounded, and is never looked at again."""
    values = weight.clone()
    for i in range(len(weight)):
        trial = values.repeat(2, 1)
        trial[:, i] = torch.stack((lower[i], upper[i]))
        values = trial[_quadratic(trial - weight, gram).argmin()]
    return values


def _kernels(generator):
    cases = []
    for n in (4, 6, 7):
        weight = _draw(n, generator=generator)
        lower = (weight / 0.5).floor() * 0.5
        cases.append((weight, lower, lower + 0.5, _gram(n, generator)))
    return cases


# ---- 06.output_error ----


def _change_and_gram(generator):
    return [(_draw(rows, n, generator=generator), _gram(n, generator)) for rows, n in ((3, 4), (1, 6), (5, 2))]


# ---- 06.rectified ----


def _rectified(v, width=1.2, shift=-0.1):
    return (width * v.sigmoid() + shift).clamp(0, 1)


def _numbers(generator):
    return [(torch.linspace(-5, 5, 11),), (2 * _draw(7, generator=generator),), (_draw(2, 3, generator=generator),)]


# ---- 06.penalty ----


def _penalty(start=20.0, end=2.0, late=True, warm=True, of=lambda h, beta: 1 - (2 * h - 1).abs() ** beta,
             total=torch.mean):
    """The penalty with one thing changed."""

    def penalty(share, progress):
        if warm and progress < 0.2:
            return 0.0
        way = (progress - 0.2) / 0.8 if late else progress
        return total(of(share, start + (end - start) * way))

    return penalty


def _and_slope(answer, share, progress):
    """The penalty, and its gradient at the shares."""
    share = share.clone().requires_grad_()
    value = answer(share, progress)
    if value is None or value is ...:
        return value
    if isinstance(value, torch.Tensor) and value.requires_grad and value.dim() == 0:
        value.backward()
    slope = torch.zeros_like(share) if share.grad is None else share.grad
    return value.detach() if isinstance(value, torch.Tensor) else value, slope


def _progresses(generator):
    return [(torch.rand(6, generator=generator, dtype=torch.float64), progress)
            for progress in (0.1, 0.3, 0.6, 0.95, 0.2)]


# ---- 06.learn: the training loop ----


def _learn(*, relative=True, cleared=True, way=lambda step, steps: step / steps, inside=_rectified, sign=1.0,
           weighed=True, penalised=True, lr=0.3, out=lambda v, lower, upper: v):
    """The loop of the exercise with one thing changed."""

    def learn(v, weight, lower, upper, gram, steps, strength):
        v = v.clone().requires_grad_()
        near = torch.where(v >= 0, upper, lower)
        unit = _quadratic(near - weight, gram).sum() if relative else 1.0
        optimizer = torch.optim.Adam([v], lr)
        for step in range(steps):
            h = inside(v)
            loss = sign * _quadratic(lower + h * (upper - lower) - weight, gram).sum() / unit
            if penalised and (done := way(step, steps)) >= 0.2:
                beta = 20 - 18 * (done - 0.2) / 0.8
                loss = loss + (strength if weighed else 1.0) * (1 - (2 * h - 1).abs() ** beta).mean()
            if cleared:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return out(v.detach(), lower, upper)

    return learn


def _layers(generator):
    """Not begun at the exact start: there the gradients are rounding errors, and Adam makes steps of them."""
    cases = []
    for out, n, steps, strength in ((2, 4, 10, 1.0), (3, 5, 15, 5.0), (2, 4, 12, 0.5)):
        weight, gram = _draw(out, n, generator=generator), _gram(n, generator)
        lower = (weight / 0.5).floor() * 0.5
        cases.append((_draw(out, n, generator=generator), weight, lower, lower + 0.5, 4 * gram, steps, strength))
    _learn()(*cases[0])  # an optimiser's first step loads much of torch: not in the time of the answer
    return cases


# ---- 06.soft: a weight between its neighbours on the ternary grid ----


def _soft(weight, level, share):
    below = (weight / level).floor()
    return level * (below.clamp(-1, 1) + share * ((below + 1).clamp(-1, 1) - below.clamp(-1, 1)))


def _soft_rows(generator):
    cases = []
    for level in (0.5, 0.8):
        weight = torch.cat((torch.tensor([-2.6, -1.9, -1.2, 1.1, 2.3]), torch.linspace(-0.9, 0.9, 6))).double() * level
        cases.append((weight, level, torch.rand(len(weight), generator=generator, dtype=torch.float64)))
    return cases


# ---- 06.frozen ----


def _beyond(t):
    return math.erfc(t / math.sqrt(2))


# ---- 06.asymmetric ----


def _asymmetric(goal, have, total=lambda change: change.square().sum(1).mean()):
    """The loss with what is aimed at, and what is there, as functions of the four arguments."""

    def loss(weight, rounded, inputs, quantized_inputs):
        given = weight, rounded, inputs, quantized_inputs
        return float(total(have(*given) - goal(*given)))

    return loss


def _two_inputs(generator):
    cases = []
    for out, n, tokens in ((2, 3, 5), (4, 6, 9)):
        weight, inputs = _draw(out, n, generator=generator), _draw(tokens, n, generator=generator)
        cases.append((weight, weight.round(), inputs, inputs + 0.3 * _draw(tokens, n, generator=generator)))
    return cases


# ---- 06.fisher ----


def _changes(generator):
    return [(0.1 * _draw(*shape, generator=generator), _draw(*shape, generator=generator))
            for shape in ((3, 4), (6, 5), (2, 9))]


# ---- 06.straight: a fake quantiser, its values and its gradient ----


def _with(rounding, low_and_high=True):
    """The function of the exercise with another last line."""

    def fake(weight, scale, low, high):
        codes = (weight / scale).round()
        return rounding(weight, scale * (codes.clamp(low, high) if low_and_high else codes))

    return fake


def _and_gradient(answer, weight, scale, low, high, upstream):
    """The values (out, in) of an answer, and the gradient that reaches the weight."""
    weight = weight.clone().requires_grad_()
    values = answer(weight, scale, low, high)
    if values is None or values is ...:
        return values
    (values * upstream).sum().backward()
    return values.detach(), torch.zeros_like(weight) if weight.grad is None else weight.grad


def _straights(generator):
    return [(2 * _draw(out, n, generator=generator), 0.4 * torch.ones(out, 1).double(), -2, 1,
             _draw(out, n, generator=generator)) for out, n in ((2, 4), (3, 5))]


# ---- 06.lsq: the gradient of a scale for each row ----


def _lsq(inside=lambda x: x.round() - x, outside=lambda x: x.sign(), total=lambda t: t.sum(1),
         slow=lambda n: n ** -0.5):
    """LSQ's gradient on a ternary grid with one thing changed."""

    def gradient(weight, scale, upstream):
        x = weight / scale[:, None]
        slope = torch.where(x.abs() <= 1, inside(x), outside(x))
        return total(upstream * slope) * slow(weight.shape[1])

    return gradient


def _scales(generator):
    return [(_draw(out, n, generator=generator), 0.4 + torch.rand(out, generator=generator, dtype=torch.float64),
             _draw(out, n, generator=generator)) for out, n in ((2, 5), (4, 9))]


# ---- 06.loss_scale ----

HISTORIES = [
    ([False] * 7, 1024.0, 3),
    ([True, True, False, False, False, False], 65536.0, 2),
    ([False, False, True, False, False, True, False, False, False], 8.0, 3),
]


def _loss_scale(reset=True, restart=True, up=2.0, down=0.5, late=0):
    def last(overflowed, scale, patience):
        good = 0
        for overflow in overflowed:
            if overflow:
                scale, good = scale * down, 0 if reset else good
                continue
            good += 1
            if good >= patience + late:
                scale, good = scale * up, 0 if restart else good
        return scale

    return last


# ---- 06.lost ----


def _updates(generator):
    cases = []
    for name, size in (("bf16", 0.001), ("fp16", 0.0001), ("e4m3fn", 0.01)):
        fmt = FLOATS[name]
        weight = fmt.round(torch.randn(200, generator=generator) * 0.1)
        update = size * torch.randn(200, generator=generator)
        update[::4] = 0
        cases.append((weight, update, fmt))
    return cases


def _lost(weight, update, fmt):
    still = fmt.round(weight + update) == weight
    return float((still & (update != 0)).sum() / (update != 0).sum())


EXERCISES = [
    Exercise(
        id="06.output_error",
        why="the inputs enter through their Gram matrix alone: once it is there, no text is needed any more.",
        minutes=4,
        difficulty=2,
        reference=_quadratic,
        cases=_change_and_gram,
        paper=[(_exact([1, -1], [1, 0]), _exact([2, 1], [1, 3]))],
        mistakes=[
            Mistake(
                lambda change, gram: change.square().sum(1),
                "that is the error of the weights: the inputs are forgotten.",
            ),
            Mistake(
                lambda change, gram: (change.square() @ gram.diagonal()),
                "that takes the diagonal of the Gram matrix alone: inputs that rise together are what matters here.",
            ),
            Mistake(
                lambda change, gram: (change @ gram).square().sum(1),
                "the Gram matrix goes in once, the change twice: here both are squared.",
            ),
            Mistake(
                lambda change, gram: ((change @ gram) * change).sum(),
                "that is one number for all rows: each row is wanted by itself, (n,).",
            ),
            Mistake(
                lambda change, gram: change @ gram @ change.T,
                "that has a product for each two rows; those of a row with itself, on the diagonal, are wanted.",
            ),
        ],
        hints=(
            "for one row d it is d @ gram @ d. What is that for all rows at once?",
            "`change @ gram` has a row for each change; multiply it by `change`, weight by weight, and sum over each "
            "row.",
        ),
    ),
    Exercise(
        id="06.enumerate",
        why="errors that cancel beat errors that are small one by one.",
        minutes=6,
        difficulty=2,
        points=2,
        reference=_choose(_quadratic),
        cases=_kernels,
        paper=[(_exact(0.2, 0.4), _exact(0, 0), _exact(1, 1), _exact([1, 1], [1, 2])),
               (_exact(0.4, 0.8), _exact(0, 0), _exact(1, 1), _exact([2, 1], [1, 1]))],
        mistakes=[
            Mistake(
                _choose(lambda change, gram: change.square().sum(1)),
                "that is rounding to nearest: it measures the weights' error, and the inputs are forgotten.",
            ),
            Mistake(
                _choose(lambda change, gram: (change @ gram).square().sum(1)),
                "the Gram matrix goes in once, the change twice: here both are squared.",
            ),
            Mistake(
                _choose(_quadratic, torch.argmax),
                "that is the worst of them: take the smallest error.",
            ),
            Mistake(
                _one_after_the_other,
                "each weight was decided once, by itself, and never looked at again: compare all 2^n combinations.",
            ),
            Mistake(
                lambda weight, lower, upper, gram: _quadratic(_all_of(lower, upper) - weight, gram).min(),
                "that is the least error; asked for is the row of values that has it.",
            ),
        ],
        hints=(
            "make all 2**n combinations as rows of a tensor, and give them to the function of exercise 1.",
            "`ups = torch.tensor(list(itertools.product((False, True), repeat=len(weight))))` has a combination "
            "in each row; `torch.where` makes values of it.",
        ),
    ),
    Exercise(
        id="06.rectified",
        why="a plain sigmoid never reaches 0 or 1; this one arrives, has no slope there, and stays.",
        minutes=3,
        difficulty=1,
        reference=_rectified,
        cases=_numbers,
        paper=[(torch.tensor([-3.0, 0.0, 1.0]),)],
        mistakes=[
            Mistake(
                lambda v: v.sigmoid(),
                "that is the plain sigmoid: stretch it and cut it off, or no weight ever arrives.",
            ),
            Mistake(
                lambda v: 1.2 * v.sigmoid() - 0.1,
                "stretched, but not cut off: shares below 0 and above 1 are left.",
            ),
            Mistake(
                lambda v: (1.2 * v.sigmoid()).clamp(0, 1),
                "the shift is missing: it runs from -0.1, not from 0, so take 0.1 off before you clamp.",
            ),
            Mistake(
                lambda v: (1.1 * v.sigmoid() - 0.1).clamp(0, 1),
                "from -0.1 to 1.1 the width is 1.2.",
            ),
            Mistake(
                lambda v: (1.2 * v - 0.1).clamp(0, 1),
                "the sigmoid is missing.",
            ),
        ],
        hints=(
            "a sigmoid runs from 0 to 1. Make it 1.2 wide, move it down by 0.1, and cut off what sticks out.",
            "`v.sigmoid()` times the width, minus the shift, then `.clamp(0, 1)`.",
        ),
    ),
    Exercise(
        id="06.penalty",
        why="the exponent falls, so the penalty first collects those that are nearly there, and the undecided last.",
        minutes=5,
        difficulty=2,
        reference=_penalty(),
        cases=_progresses,
        call=_and_slope,
        paper=[(_exact(0.5, 0.75), progress) for progress in (1.0, 0.1, 0.9)],
        mistakes=[
            Mistake(
                _penalty(total=lambda terms: terms.mean().item()),
                "the value is right, but it has no slope: a float stops the gradient. Return the mean as a tensor.",
            ),
            Mistake(
                _penalty(warm=False, late=False),
                "there is no warm-up: in the first fifth of the steps only the error counts, and the penalty is 0.",
            ),
            Mistake(
                _penalty(late=False),
                "beta has moved on during the warm-up: it is still 20 where the penalty sets in.",
            ),
            Mistake(
                _penalty(start=2.0, end=20.0),
                "beta goes the other way: from 20, which leaves the undecided alone, down to 2.",
            ),
            Mistake(
                _penalty(of=lambda h, beta: 1 - (h - 0.5).abs() ** beta),
                "the factor 2 is missing: at h = 0 and h = 1 the penalty has to be 0.",
            ),
            Mistake(
                _penalty(of=lambda h, beta: (2 * h - 1).abs() ** beta),
                "upside down: it is the undecided ones that have to pay, so 1 minus that.",
            ),
            Mistake(
                _penalty(total=torch.sum),
                "the sum grows with the number of weights; the mean is asked for.",
            ),
        ],
        hints=(
            "first the warm-up; then beta on a straight line from 20 at progress 0.2 to 2 at progress 1.",
            "`beta = 20 - 18 * (progress - 0.2) / 0.8`, then the mean of the formula.",
        ),
    ),
    Exercise(
        id="06.learn",
        why="gradient descent has chosen among more roundings than anybody could try, by two terms and one sign.",
        minutes=14,
        difficulty=3,
        points=3,
        reference=_learn(),
        cases=_layers,
        rtol=0.02,
        paper=[(_exact([1.0]), _exact([0.8]), _exact([0]), _exact([1]), _exact([2]), 2, 4.0)],
        mistakes=[
            Mistake(
                _learn(penalised=False),
                "no weight is made to choose: the penalty is missing, and all that was learned is lost when they are "
                "rounded.",
            ),
            Mistake(
                _learn(relative=False),
                "the error is absolute, so the same penalty is too weak for one layer and too strong for the next: "
                "divide by the error of rounding to nearest.",
            ),
            Mistake(
                _learn(weighed=False),
                "strength is not used: it multiplies the penalty.",
            ),
            Mistake(
                _learn(way=lambda step, steps: 1.0),
                "the penalty does not know how far the training is: its progress is step / steps.",
            ),
            Mistake(
                _learn(sign=-1.0),
                "that makes the output error as large as it can be: add it to the loss, do not subtract it.",
            ),
            Mistake(
                _learn(out=lambda v, lower, upper: torch.where(v >= 0, upper, lower)),
                "those are the rounded weights; return the numbers v, whose sign says up or down.",
            ),
            Mistake(
                _learn(out=lambda v, lower, upper: _rectified(v)),
                "those are the shares h(v), none below 0; return v itself, whose sign says up or down.",
            ),
        ],
        hints=(
            "five lines in the loop: the shares h, the loss, zero_grad, backward, step. The loss is the relative "
            "output error plus strength times the penalty.",
            "`v = v.clone().requires_grad_()`, `optimizer = torch.optim.Adam([v], 0.3)`; in the loop "
            "`h = my_h(v)`, and the soft weight is `lower + h * (upper - lower)`.",
        ),
    ),
    Exercise(
        id="06.straight",
        why="the forward pass has to see what the file will hold; the backward pass needs a slope, and takes that of "
        "the identity.",
        minutes=5,
        difficulty=2,
        reference=_with(lambda weight, hard: weight + (hard - weight).detach()),
        cases=_straights,
        call=_and_gradient,
        paper=[(_exact([0.3, -2.0]), _exact([0.4]), -2, 1, _exact([1.0, 2.0]))],
        mistakes=[
            Mistake(
                _with(lambda weight, hard: hard),
                "the gradient is 0: the only way back to the weight is through round. If you added and subtracted "
                "the weight, that cancels in the backward pass too: something has to be detached.",
            ),
            Mistake(
                _with(lambda weight, hard: hard.detach()),
                "all of it is detached: nothing leads back to the weight, and backward has nowhere to go.",
            ),
            Mistake(
                _with(lambda weight, hard: hard + (hard - weight).detach()),
                "the value is off by the rounding error, and the gradient is that of round, 0: what stands in front "
                "has to be the weight.",
            ),
            Mistake(
                _with(lambda weight, hard: weight - (hard - weight).detach()),
                "wrong sign: the value lies as far from the weight as the rounded one, on the other side.",
            ),
            Mistake(
                _with(lambda weight, hard: weight),
                "the weight is not rounded at all: the forward pass has to see the grid values.",
            ),
            Mistake(
                _with(lambda weight, hard: weight.detach() + (hard - weight)),
                "the wrong part is detached: the value is right, the gradient has the wrong sign and leads uphill.",
            ),
            Mistake(
                _with(lambda weight, hard: weight + (hard - weight).detach(), low_and_high=False),
                "the clamp is forgotten: codes beyond low and high do not exist.",
            ),
        ],
        hints=(
            "write the rounded values first, as in notebook 04. Then find a sum whose value is the rounded one, and "
            "of which autograd sees only the weight.",
            "`hard = scale * (weight / scale).round().clamp(low, high)`; `.detach()` makes a constant of the "
            "difference between hard and weight.",
        ),
    ),
    Exercise(
        id="06.soft",
        why="both neighbours of a weight beyond the level are the level itself, so no share can move it.",
        minutes=6,
        difficulty=2,
        reference=_soft,
        cases=_soft_rows,
        paper=[(_exact(-3.0, 0.6, 3.0), 2.0, _exact(0.5, 0.25, 0.5))],
        mistakes=[
            Mistake(
                lambda weight, level, share: level * ((weight / level).floor() + share),
                "the clip is forgotten: beyond the level a there is no grid value, and these weights would get codes "
                "of 2 and -2 or further out.",
            ),
            Mistake(
                lambda weight, level, share: level * ((weight / level).floor().clamp(-1, 1) + share),
                "only the lower neighbour is clipped: a weight above a stands at a, and share may not lift it beyond.",
            ),
            Mistake(
                lambda weight, level, share: level * ((weight / level).floor().clamp(-1, 0) + share),
                "this keeps every weight between two grid values, and lets those beyond the level move. Both their "
                "neighbours are the end of the grid: they are frozen.",
            ),
            Mistake(
                lambda weight, level, share: level * ((weight / level).round().clamp(-1, 1) + share - 0.5),
                "that starts from the nearest value; share counts from the lower neighbour, so floor.",
            ),
            Mistake(
                lambda weight, level, share: _soft(weight, level, share) / level,
                "those are codes: multiply by the level.",
            ),
        ],
        hints=(
            "in units of the level the grid is -1, 0, 1. Which two of these are the neighbours of 0.3, and which "
            "of 1.7?",
            "`below = (weight / level).floor()`; the other neighbour is one more; clamp each to -1 … 1.",
        ),
    ),
    Exercise(
        id="06.frozen",
        why="a low level fits the many small weights, and gives up the freedom of the large ones.",
        minutes=3,
        difficulty=1,
        reference=_beyond,
        cases=[(0.8615,), (1.224,), (1.97,), (2.955,)],
        mistakes=[
            Mistake(
                lambda level: _beyond(level) / 2,
                "one tail only: weights below -a are frozen as well.",
            ),
            Mistake(
                lambda level: 1 - _beyond(level),
                "those are the ones that can move, between -a and a.",
            ),
            Mistake(
                lambda level: _beyond(level / 2),
                "beyond the threshold a/2 a weight is nearer to a than to 0, but it can still go to either: a counts.",
            ),
            Mistake(
                lambda level: math.erfc(level),
                "erfc is made for a standard deviation of 1/sqrt(2): divide by the square root of 2.",
            ),
        ],
        hints=(
            "which weights are frozen, in terms of the level? Both tails of the bell count.",
            "erfc(x) counts beyond x / 1 for a deviation of 1/√2: put `level / math.sqrt(2)` in.",
        ),
    ),
    Exercise(
        id="06.asymmetric",
        why="aimed at the original outputs, a layer can make up for errors that came before it.",
        minutes=4,
        difficulty=2,
        reference=_asymmetric(lambda w, r, x, y: x @ w.T, lambda w, r, x, y: y @ r.T),
        cases=_two_inputs,
        paper=[(_exact([1.5], [-0.6]), _exact([2], [-1]), _exact([1], [2]), _exact([1], [3]))],
        mistakes=[
            Mistake(
                _asymmetric(lambda w, r, x, y: y @ w.T, lambda w, r, x, y: y @ r.T),
                "symmetric: the target comes from the quantised inputs too, so the errors of the layers before are "
                "taken for truth.",
            ),
            Mistake(
                _asymmetric(lambda w, r, x, y: x @ w.T, lambda w, r, x, y: x @ r.T),
                "the rounded weight never meets the original inputs: it reads those of the quantised model.",
            ),
            Mistake(
                _asymmetric(lambda w, r, x, y: y @ w.T, lambda w, r, x, y: x @ r.T),
                "swapped: the original weight reads the original inputs, the rounded weight the quantised ones.",
            ),
            Mistake(
                _asymmetric(lambda w, r, x, y: x @ w.T, lambda w, r, x, y: y @ r.T, lambda c: c.square().mean()),
                "averaged over the outputs as well: sum over the outputs of a token, mean over the tokens.",
            ),
            Mistake(
                _asymmetric(lambda w, r, x, y: x @ w.T, lambda w, r, x, y: y @ r.T, lambda c: c.square().sum()),
                "summed over the tokens as well: the mean over them is asked for.",
            ),
        ],
        hints=(
            "two outputs: that of the original layer in the original model, and that of the rounded layer in the "
            "quantised one.",
            "`inputs @ weight.T` is what it should give; subtract it from what it gives now.",
        ),
    ),
    Exercise(
        id="06.fisher",
        why="an output that the loss does not feel may be as wrong as it likes.",
        minutes=3,
        difficulty=1,
        reference=lambda change, gradient: float((change * gradient).square().sum(1).mean()),
        cases=_changes,
        paper=[(_exact([1, -1], [2, 1]), _exact([1, 2], [-1, 0]))],
        mistakes=[
            Mistake(
                lambda change, gradient: float(change.square().sum(1).mean()),
                "that is the plain squared error: every output counts alike.",
            ),
            Mistake(
                lambda change, gradient: float((change.square() * gradient.abs()).sum(1).mean()),
                "the weight is the gradient squared, not its size.",
            ),
            Mistake(
                lambda change, gradient: float((change * gradient).sum(1).square().mean()),
                "summed before it was squared: changes of two outputs would cancel. That is the full matrix g g^T; its "
                "diagonal squares each output by itself.",
            ),
            Mistake(
                lambda change, gradient: float((change * gradient.mean(0)).square().sum(1).mean()),
                "gradients were averaged over the pictures before the square, where they nearly cancel: each picture "
                "has its own.",
            ),
            Mistake(
                lambda change, gradient: float((change * gradient).square().mean()),
                "averaged over the outputs as well: sum over the outputs of a picture, mean over the pictures.",
            ),
        ],
        hints=(
            "weigh each output's squared change by its squared gradient.",
            "`(change * gradient).square()`, summed over a picture's outputs.",
        ),
    ),
    Exercise(
        id="06.lsq",
        why="only what is clipped, or rounded far, pulls at the scale.",
        minutes=8,
        difficulty=3,
        points=2,
        reference=_lsq(),
        cases=_scales,
        paper=[(_exact([0.2, -0.4, 1.6, 0.1]), _exact(0.5), _exact([1, 1, 2, 1]))],
        mistakes=[
            Mistake(
                _lsq(slow=lambda n: 1),
                "the slowing factor is missing: n weights pull at the scale, so 1 / sqrt(n).",
            ),
            Mistake(
                _lsq(inside=lambda x: x - x.round()),
                "wrong sign inside the grid: the derivative of s round(w/s) is round(w/s) - w/s.",
            ),
            Mistake(
                _lsq(outside=lambda x: x.round() - x),
                "the clip is forgotten: beyond the grid the code is -1 or 1 whatever w is, and so is the derivative.",
            ),
            Mistake(
                _lsq(outside=torch.zeros_like),
                "clipped weights pull at the scale most of all: their derivative is -1 or 1, not 0.",
            ),
            Mistake(
                _lsq(inside=lambda x: x.round()),
                "inside the grid w/s depends on s too: the derivative is round(w/s) - w/s.",
            ),
            Mistake(
                _lsq(total=lambda t: t.mean(1)),
                "a scale gets the sum of what its weights give it; the slowing factor is all the averaging there is.",
            ),
            Mistake(
                _lsq(slow=lambda n: 1 / n),
                "slowed down by n: it is the square root of n, as the weights' pulls partly cancel.",
            ),
        ],
        hints=(
            "work in x = w / s. The slope has one formula inside the grid and another beyond it: `torch.where`.",
            "the slope times `upstream`, summed over the row, over the square root of the row's length.",
        ),
    ),
    Exercise(
        id="06.share",
        why="below the goal the pull is up, above it down; they balance over time, never at rest.",
        minutes=4,
        difficulty=2,
        reference=lambda low, high, goal: (goal - low) / (high - low),
        cases=[(0.0, 1.0, 0.3), (-0.5, 0.5, 0.4), (0.25, 0.75, 0.3)],
        mistakes=[
            Mistake(
                lambda low, high, goal: (high - goal) / (high - low),
                "that is the share of the steps at the lower value: the nearer the goal, the longer it stays.",
            ),
            Mistake(
                lambda low, high, goal: float(goal > (low + high) / 2),
                "if it stayed at the nearest value, the gradient there would push it on and on in one direction.",
            ),
            Mistake(
                lambda low, high, goal: 0.5,
                "half and half would be right in the middle only: the two gradients are not equally large elsewhere.",
            ),
            Mistake(
                lambda low, high, goal: goal,
                "that is right only for a grid from 0 to 1: measure from the lower value, in steps.",
            ),
        ],
        hints=(
            "the two gradients are low - goal and high - goal. In which mixture is their mean 0?",
            "`p * (high - goal) + (1 - p) * (low - goal) = 0`: solve for p.",
        ),
    ),
    Exercise(
        id="06.loss_scale",
        why="the factor finds the edge of fp16 by itself: it falls over it now and then, and steps back.",
        minutes=6,
        difficulty=2,
        reference=_loss_scale(),
        cases=HISTORIES,
        mistakes=[
            Mistake(
                _loss_scale(reset=False),
                "an overflow starts the count anew: it is steps in a row that are asked for.",
            ),
            Mistake(
                _loss_scale(late=1),
                "one step late: after `patience` good steps it doubles, without waiting for one more.",
            ),
            Mistake(
                _loss_scale(restart=False),
                "after a doubling the count starts anew, or every further step would double.",
            ),
            Mistake(
                _loss_scale(up=0.5, down=2.0),
                "the wrong way round: an overflow says that the factor was too large.",
            ),
            Mistake(_loss_scale(up=1.0), "it never grows again: one bad batch would hold it down for good."),
            Mistake(_loss_scale(down=1.0), "after an overflow the factor has to fall, or the next step overflows too."),
        ],
        hints=(
            "go through the steps one by one, and keep a count of good ones in a row.",
            "`good = 0`, then for each step: an overflow halves the scale and sets `good = 0`; otherwise `good "
            "+= 1`, and at `patience` the scale doubles and the count starts anew.",
        ),
    ),
    Exercise(
        id="06.lost",
        why="an update below half a step is rounded away every time; master weights collect it.",
        minutes=4,
        difficulty=2,
        reference=_lost,
        cases=_updates,
        paper=[(torch.ones(4), torch.tensor([0.05, 0.05, 0.2, 0.0]), FLOATS["e4m3fn"])],
        mistakes=[
            Mistake(
                lambda w, u, fmt: float((fmt.round(w + u) == w).float().mean()),
                "updates of 0 wanted no change, so they cannot be lost: leave them out, above and below.",
            ),
            Mistake(
                lambda w, u, fmt: float(((fmt.round(w + u) == w) & (u != 0)).float().mean()),
                "the share of the updates other than 0: divide by their number, not by that of the weights.",
            ),
            Mistake(
                lambda w, u, fmt: float(((fmt.round(u) == 0) & (u != 0)).sum() / (u != 0).sum()),
                "the update by itself may well have a value in the format. It is the sum that is rounded.",
            ),
            Mistake(
                lambda w, u, fmt: float(((fmt.round(w + u) == w) & (u != 0)).sum()),
                "that is their number; their share is asked for.",
            ),
            Mistake(
                lambda w, u, fmt: 1 - _lost(w, u, fmt),
                "that is the share of the updates that arrived.",
            ),
        ],
        hints=(
            "which weights are still the same after the update, though the update was not 0?",
            "`wanted = update != 0`, and `fmt.round(weight + update) == weight` where nothing happened.",
        ),
    ),
    Exercise(
        id="06.slides",
        why="two measurements with three decimals hardly ever agree in all of them; their spreads do not agree at all.",
        minutes=3,
        difficulty=1,
        reference="b",
        mistakes=[
            Mistake("a", "a trained network without a spread is one network, measured once: unusual, but no slip."),
            Mistake("c", "a spread of 14.61 is large, but an unstable training may have it: no slip by itself."),
            Mistake("d", "a method that is better with every operator is what one hopes for."),
        ],
        hints=(
            "look for a number that stands in two places where it would have to be a coincidence.",
            "compare the means with three decimals, row by row.",
        ),
    ),
]
