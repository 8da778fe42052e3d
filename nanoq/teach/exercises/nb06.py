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


# ---- 06.start: v from the share ----


def _shares(generator):
    return [(0.02 + 0.96 * torch.rand(n, generator=generator, dtype=torch.float64),) for n in (3, 8)]


# ---- 06.penalty ----


def _penalty(start=20.0, end=2.0, late=True, warm=True, of=lambda h, beta: 1 - (2 * h - 1).abs() ** beta,
             total=torch.mean):
    """The penalty with one thing changed."""

    def penalty(share, progress):
        if warm and progress < 0.2:
            return 0.0
        way = (progress - 0.2) / 0.8 if late else progress
        return float(total(of(share, start + (end - start) * way)))

    return penalty


def _progresses(generator):
    return [(torch.rand(6, generator=generator, dtype=torch.float64), progress)
            for progress in (0.1, 0.3, 0.6, 0.95, 0.2)]


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


# ---- 06.straight: value and gradient of a rounded weight ----


def _with(rounding):
    """The function of the exercise with another line in it."""

    def run(weight, scale, goal):
        weight = weight.clone().requires_grad_()
        hard = scale * (weight / scale).round()
        rounded = rounding(weight, hard)
        loss = (rounded - goal).square().sum()
        loss.backward()
        return loss.detach(), weight.grad

    return run


def _no_graph(weight, hard):
    """Everything is detached: backward raises, as it does for the learner."""
    return hard.detach()


def _straights(generator):
    return [(_draw(n, generator=generator), 0.4, _draw(n, generator=generator)) for n in (3, 6)]


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
        id="06.enumerate",
        points=2,
        reference=_choose(_quadratic),
        cases=_kernels,
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
    ),
    Exercise(
        id="06.start",
        reference=lambda share: -torch.log(1.2 / (share + 0.1) - 1),
        cases=_shares,
        mistakes=[
            Mistake(
                lambda share: torch.log(share / (1 - share)),
                "that is the inverse of the plain sigmoid: h is stretched to 1.2 and shifted by -0.1 first.",
            ),
            Mistake(
                lambda share: torch.log(1.2 / (share + 0.1) - 1),
                "wrong sign: a weight near its upper neighbour needs a positive v.",
            ),
            Mistake(
                lambda share: -torch.log(1.2 / (share - 0.1) - 1),
                "the shift goes the wrong way: h = 1.2 sigmoid(v) - 0.1, so add 0.1 before you divide.",
            ),
            Mistake(
                lambda share: -torch.log(1.2 / share + 0.1 - 1),
                "a bracket is missing: the 0.1 belongs to the share, under the fraction bar.",
            ),
            Mistake(
                lambda share: (1.2 * share.sigmoid() - 0.1).clamp(0, 1),
                "that is h itself; asked for is the v that gives h(v) = share.",
            ),
        ],
    ),
    Exercise(
        id="06.penalty",
        reference=_penalty(),
        cases=_progresses,
        mistakes=[
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
    ),
    Exercise(
        id="06.soft",
        reference=_soft,
        cases=_soft_rows,
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
    ),
    Exercise(
        id="06.frozen",
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
    ),
    Exercise(
        id="06.asymmetric",
        reference=_asymmetric(lambda w, r, x, y: x @ w.T, lambda w, r, x, y: y @ r.T),
        cases=_two_inputs,
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
    ),
    Exercise(
        id="06.fisher",
        reference=lambda change, gradient: float((change * gradient).square().sum(1).mean()),
        cases=_changes,
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
    ),
    Exercise(
        id="06.straight",
        reference=_with(lambda weight, hard: weight + (hard - weight).detach()),
        cases=_straights,
        mistakes=[
            Mistake(
                _with(lambda weight, hard: hard),
                "the gradient is 0: the only way back to the weight that counts is through round. If you added and "
                "subtracted the weight, that cancels in the backward pass too: something has to be detached.",
            ),
            Mistake(
                _with(_no_graph),
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
        ],
    ),
    Exercise(
        id="06.lsq",
        points=2,
        reference=_lsq(),
        cases=_scales,
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
    ),
    Exercise(
        id="06.share",
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
    ),
    Exercise(
        id="06.loss_scale",
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
        minutes=4,
        difficulty=2,
        reference=_lost,
        cases=_updates,
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
]
