"""Exercises of notebook 12, TDMPQ."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from nanoq.lm.model import Block, GPTConfig
from nanoq.quant.grid import affine_grid
from nanoq.teach.checks import Exercise, Mistake


def _draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- 12.growth ----


def _hessians(generator):
    cases = []
    for n, sigma in ((2, 0.5), (4, 0.1), (3, 2.0)):
        mix = _draw(n, n, generator=generator)
        cases.append((mix @ mix.T + torch.eye(n).double(), sigma))
    return cases


# ---- 12.tdmpq ----


def _slope_and_bowl(w):
    return (w * w).sum() * 1.5 + 2 * w.sum() + 3


def _rows_apart(w):
    return (w**4).sum() + 3 * w[0].square().sum() - w[1, 2] + 0.5


def _pair(loss_at, weight, noise):
    return float((loss_at(weight + noise) + loss_at(weight - noise)) / 2 - loss_at(weight))


def _tdmpq(loss_at, weight, sigma, draws):
    return sum(_pair(loss_at, weight, sigma * draw) for draw in draws) / len(draws)


def _scored(generator):
    return [(loss, _draw(3, 4, generator=generator), 0.2 + _draw(3, 1, generator=generator).abs(),
             _draw(count, 3, 4, generator=generator))
            for loss, count in ((_slope_and_bowl, 2), (_rows_apart, 3))]


# ---- 12.matched, 12.first_order ----


def _weights(generator):
    spreads = torch.tensor([[0.2], [0.5], [1.5]])
    return [(spreads * torch.randn(3, 16, generator=generator), bits) for bits in (2, 3, 4)]


def _slopes(generator):
    return [(_draw(out, n, generator=generator), 0.1 + _draw(out, 1, generator=generator).abs())
            for out, n in ((2, 3), (4, 8), (3, 5))]


# ---- 12.first ----


def _blocks():
    return [(Block(GPTConfig(vocab_size=8, width=12, heads=2), 0),),
            (nn.TransformerEncoderLayer(8, 2, 16),),
            (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.Linear(4, 30)),),
            (nn.Sequential(nn.LayerNorm(6), nn.Conv1d(6, 4, 3), nn.Linear(4, 30)),)]


def _whole_numbers(block):
    """The same block with 0, 1, 2, ... in each of its parameters."""
    for parameter in block.parameters():
        parameter.data = torch.arange(parameter.numel(), dtype=torch.float32).view_as(parameter)
    return block


def _matrices(block):
    return [(name, parameter) for name, parameter in block.named_parameters() if parameter.dim() > 1]


# ---- 12.test: scores of one linear layer that predicts one of V classes, and a test for them ----


def _loss(x, targets, weight):
    return float(F.cross_entropy(x @ weight.T, targets))


def _good(x, targets, weight, noise):
    pair = (_loss(x, targets, weight + noise) + _loss(x, targets, weight - noise)) / 2
    return pair - _loss(x, targets, weight)


def _divergence(x, targets, weight, noise):
    p, q = ((x @ w.T).log_softmax(-1) for w in (weight, weight + noise))
    return float(F.kl_div(q, p, log_target=True, reduction="batchmean"))


def _raw(x, targets, weight, noise):
    return _loss(x, targets, weight + noise)


def _above_chance(x, targets, weight, noise):
    return _raw(x, targets, weight, noise) - math.log(len(weight))


def _logits(x, targets, weight, noise):
    return float((x @ (weight + noise).T).sum())


def _logits_growth(x, targets, weight, noise):
    return abs(float((x @ noise.T).sum()))


def _flipped(x, targets, weight, noise):
    return -_good(x, targets, weight, noise)


def _nothing(x, targets, weight, noise):
    return 0.0


def _candidates(generator):
    x, weight = _draw(50, 6, generator=generator), 2 * _draw(4, 6, generator=generator)
    targets = (x @ weight.T).argmax(-1)
    return [(score, x, targets, weight)
            for score in (_good, _divergence, _raw, _above_chance, _logits, _logits_growth, _flipped, _nothing)]


def _unheard(weight):
    """The same noise on the row of every class: all logits of a sample move together."""
    return _draw(1, weight.shape[1], generator=torch.Generator().manual_seed(0)).expand_as(weight)


def _loud(weight):
    return 10 * _draw(*weight.shape, generator=torch.Generator().manual_seed(1))


def _passes(score, x, targets, weight):
    still = abs(score(x, targets, weight, _unheard(weight))) < 1e-6
    return bool(still and score(x, targets, weight, _loud(weight)) > 0)


EXERCISES = [
    Exercise(
        id="12.growth",
        why="slope, cross terms and all odd powers are 0 on average, so the diagonal alone is left.",
        minutes=4,
        difficulty=1,
        hints=(
            "which entries of the Hessian multiply a square, and which a product of two independent numbers?",
            "the mean of `e_i * e_i` is `sigma**2`; that of `e_i * e_j` is 0. Add up what is left, and mind "
            "Taylor's factor.",
        ),
        reference=lambda hessian, sigma: 0.5 * sigma**2 * float(hessian.trace()),
        cases=_hessians,
        paper=[(torch.tensor([[4.0, 1.0], [1.0, 2.0]]), 0.5)],
        mistakes=[
            Mistake(
                lambda hessian, sigma: sigma**2 * float(hessian.trace()),
                "the second term of Taylor's series has a factor in front of it.",
            ),
            Mistake(
                lambda hessian, sigma: 0.5 * sigma * float(hessian.trace()),
                "sigma is a standard deviation; what enters is the mean of the noise's square.",
            ),
            Mistake(
                lambda hessian, sigma: 0.5 * sigma**2 * float(hessian.sum()),
                "the entries off the diagonal multiply two noises that know nothing of each other: what is their mean?",
            ),
            Mistake(
                lambda hessian, sigma: 0.5 * sigma**2 * float(hessian.diagonal().mean()),
                "that is the curvature of one weight; here all of them are disturbed.",
            ),
            Mistake(
                lambda hessian, sigma: 0.5 * sigma**2 * float(torch.linalg.eigvalsh(hessian)[-1]),
                "the largest eigenvalue is the worst direction; the noise goes in all directions alike.",
            ),
        ],
    ),
    Exercise(
        id="12.tdmpq",
        why="in a mirror image every odd power changes its sign, so the slope cancels draw by draw.",
        minutes=8,
        difficulty=2,
        hints=(
            "take one draw first. In which two places is the loss measured, and what is their mean growth? Average "
            "that over the draws.",
            "in a loop over `draws`: `noise = sigma * one`, then the mean of `loss_at(weight + noise)` and of its "
            "mirror image.",
        ),
        points=2,
        reference=_tdmpq,
        cases=_scored,
        paper=[(_slope_and_bowl, torch.tensor([[0.0, 1.0]]), 2, torch.tensor([[[1.0, 0.0]], [[1.0, 2.0]]]))],
        mistakes=[
            Mistake(
                lambda loss_at, weight, sigma, draws: _tdmpq(loss_at, weight, 1, draws),
                "the draws have standard deviation 1: the noise is sigma times as large.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: _tdmpq(loss_at, weight, sigma**2, draws),
                "sigma is a standard deviation: multiply the draw with it, not with its square.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: len(draws) * _tdmpq(loss_at, weight, sigma, draws),
                "a sum: it grows with the number of draws. Take the mean.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: _tdmpq(loss_at, weight, sigma, draws[:1]),
                "only the first draw is used: go through all of them.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: _pair(loss_at, weight, sigma * draws.mean(0)),
                "the draws were averaged before they were used, and averaged noise is weak: average the growths.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: sum(
                    float(loss_at(weight + sigma * draw) - loss_at(weight)) for draw in draws) / len(draws),
                "each draw is used with one sign, so the slope is still in it: its mirror image takes it out.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: _tdmpq(loss_at, weight, sigma, draws) + float(loss_at(weight)),
                "that is the loss among the noise: the growth has the loss without noise taken off.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: sum(
                    float(loss_at(weight + sigma * draw) - loss_at(weight - sigma * draw)) / 2 for draw in draws)
                / len(draws),
                "the difference keeps the slope and takes the curvature away; it should be the other way round.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: 2 * _tdmpq(loss_at, weight, sigma, draws),
                "that is the growth of both signs together, twice the mean.",
            ),
            Mistake(
                lambda loss_at, weight, sigma, draws: _tdmpq(loss_at, weight, sigma, draws) / weight.numel(),
                "the mean is over draws and signs; the loss belongs to the whole matrix, not to one weight.",
            ),
        ],
    ),
    Exercise(
        id="12.draws",
        why="the error of a mean falls with the square root, so half the error takes four times the draws.",
        minutes=4,
        difficulty=1,
        hints=(
            "the mean of n draws has the standard error `spread / sqrt(n)`. What may it be at most?",
            "solve `spread / sqrt(n) = share * mean` for n, and round up.",
        ),
        reference=lambda spread, mean, share: math.ceil((spread / (share * mean)) ** 2),
        cases=[(6.3, 1.0, 0.5), (0.31, 2.1, 0.1), (1.2, 0.3, 0.2), (2e-4, 2e-5, 0.1)],
        mistakes=[
            Mistake(
                lambda spread, mean, share: math.ceil(spread / (share * mean)),
                "the error of a mean falls with the square root of the number of draws.",
            ),
            Mistake(
                lambda spread, mean, share: math.ceil((spread / share) ** 2),
                "the share is one of the mean: compare the error with that, not with 1.",
            ),
            Mistake(
                lambda spread, mean, share: int((spread / (share * mean)) ** 2),
                "a fraction of a draw does not exist, and rounding down misses the aim: round up.",
            ),
            Mistake(
                lambda spread, mean, share: math.ceil((share * mean / spread) ** 2),
                "upside down: the wider the spread, the more draws are needed.",
            ),
        ],
    ),
    Exercise(
        id="12.raw",
        why="a constant moves no distance and no rank, but it ruins every ratio.",
        minutes=3,
        difficulty=2,
        hints=(
            "add 100 to three numbers such as 1, 2 and 4. What stays as it was?",
            "which of the four looks at ratios of scores, and not at their order or their differences?",
        ),
        reference="d",
        mistakes=[
            Mistake("a", "the same number is added to every layer's score: who was ahead stays ahead."),
            Mistake("b", "the squared distances between scores, which the clusters are made from, do not change."),
            Mistake("c", "terciles use the order alone, and a constant does not change it."),
        ],
    ),
    Exercise(
        id="12.first",
        why="the first parameter of our block is the gain of a LayerNorm, which nobody quantises.",
        minutes=4,
        difficulty=1,
        hints=(
            "`named_parameters()` gives names and tensors in order. What tells a matrix from a vector?",
            "look at `parameter.dim()`; a convolution's weight has more than 2 dimensions, and counts.",
        ),
        reference=lambda block: _matrices(block)[0][0],
        cases=_blocks(),
        paper=[(_whole_numbers(nn.Sequential(nn.LayerNorm(2), nn.Conv1d(2, 1, 1), nn.Linear(1, 3))),)],
        mistakes=[
            Mistake(
                lambda block: next(block.named_parameters())[0],
                "that is the first parameter, whatever it is; the gain of a norm is a vector.",
            ),
            Mistake(
                lambda block: next(f"{name}.weight" for name, module in block.named_modules()
                                   if type(module) is nn.Linear or "out_proj" in name),
                "not every matrix sits in a module called Linear: go through the parameters, and look at their shape.",
            ),
            Mistake(
                lambda block: max(_matrices(block), key=lambda pair: pair[1].numel())[0],
                "that is the largest matrix; the first in the order of the parameters is asked for.",
            ),
            Mistake(
                lambda block: _matrices(block)[-1][0],
                "that is the last one.",
            ),
            Mistake(
                lambda block: _matrices(block)[0][1],
                "the right parameter; its name is asked for.",
            ),
        ],
    ),
    Exercise(
        id="12.matched",
        why="an error that is even over one step has the variance step²/12, and each row has its own step.",
        minutes=4,
        difficulty=1,
        hints=(
            "rounding makes an error that is spread evenly over one step. What is its variance (notebook "
            "04)?",
            "`affine_grid(weight, bits).scale` is the step of each row, (out, 1). The standard deviation is "
            "a root.",
        ),
        reference=lambda weight, bits: affine_grid(weight, bits).scale / math.sqrt(12),
        rtol=1e-3,  # the grid's scale is a float16
        cases=_weights,
        paper=[(torch.tensor([[-1.0, 2.0], [-2.0, 4.0]]), 2)],
        mistakes=[
            Mistake(
                lambda weight, bits: affine_grid(weight, bits).scale / 12,
                "the variance is step²/12: take the root of all of it.",
            ),
            Mistake(
                lambda weight, bits: affine_grid(weight, bits).scale.square() / 12,
                "that is the variance; a standard deviation is its root.",
            ),
            Mistake(
                lambda weight, bits: affine_grid(weight, bits).scale / 2,
                "half a step is the largest error, not the typical one.",
            ),
            Mistake(
                lambda weight, bits: affine_grid(weight, bits).scale,
                "an error is at most half a step: its standard deviation is well below a whole one.",
            ),
            Mistake(
                lambda weight, bits: affine_grid(weight, bits, granularity="tensor").scale / math.sqrt(12),
                "every row has a step of its own; this is one step for the whole matrix.",
            ),
        ],
    ),
    Exercise(
        id="12.first_order",
        why="independent errors add up in squares, so a slope of any sign adds to the typical change.",
        minutes=5,
        difficulty=2,
        hints=(
            "a sum of independent Gaussian numbers is Gaussian. What is its variance, if entry (i, j) has "
            "slope g_ij and standard deviation sigma_i?",
            "the standard deviation is the norm of `slope * sigma`; the mean of the absolute value is "
            "`sqrt(2 / pi)` of it.",
        ),
        reference=lambda slope, sigma: float((slope * sigma).norm()) * math.sqrt(2 / math.pi),
        cases=_slopes,
        paper=[(torch.tensor([[3.0, 1.0], [0.0, -2.0]]), torch.tensor([[1.0], [2.0]]))],
        mistakes=[
            Mistake(
                lambda slope, sigma: float((slope * sigma).norm()),
                "that is the standard deviation of the sum; the mean of its absolute value is a little less.",
            ),
            Mistake(
                lambda slope, sigma: float((slope * sigma).abs().sum()) * math.sqrt(2 / math.pi),
                "that would be right if all noises pushed the same way; independent ones add up in squares.",
            ),
            Mistake(
                lambda slope, sigma: float((slope * sigma).square().sum()) * math.sqrt(2 / math.pi),
                "that is the variance of the sum: a root is missing.",
            ),
            Mistake(
                lambda slope, sigma: abs(float((slope * sigma).sum())) * math.sqrt(2 / math.pi),
                "slopes of opposite sign do not cancel, for the noises on them have nothing to do with each other.",
            ),
            Mistake(
                lambda slope, sigma: float(slope.norm() * sigma.mean()) * math.sqrt(2 / math.pi),
                "each row has its own sigma: multiply first, then take the norm.",
            ),
        ],
    ),
    Exercise(
        id="12.swap",
        why="widths are traded at the ratio of what one loses to what the other gains, not at the law of 4.",
        minutes=5,
        difficulty=2,
        hints=(
            "call the giver's cost at 3 bits 1. What does it lose on the way to 2 bits? What does the taker "
            "gain, per unit of its cost?",
            "the giver goes from 1 to 10; the taker, r times as sensitive, from r to r / 4.",
        ),
        reference=12.0,
        mistakes=[
            Mistake(4.0, "that is by the law of 4; 2 bits are worse than it says."),
            Mistake(10.0, "that is what 2 bits cost against 3; compare the giver's loss with the taker's gain."),
            Mistake(9.0, "that is what the giver loses, in units of its cost. What does the taker gain, in its own?"),
            Mistake(40.0, "that is the cost at 2 bits against 4; compare what each of the two blocks wins and loses."),
        ],
    ),
    Exercise(
        id="12.test",
        why="an invariance and a loud case can both fail, and neither needs to know which layer is sensitive.",
        minutes=10,
        difficulty=3,
        hints=(
            "which change of all logits of a sample does a softmax not notice? Which noise on `weight` makes "
            "that change?",
            "noise with equal rows moves all logits of a sample by the same number: the score must be 0 for "
            "it, up to 1e-6. Then try noise of `10 * torch.randn_like(weight)`.",
        ),
        points=2,
        reference=_passes,
        cases=_candidates,
        mistakes=[
            Mistake(
                lambda score, x, targets, weight: abs(score(x, targets, weight, 0 * weight)) < 1e-6
                and score(x, targets, weight, _loud(weight)) > 0,
                "no noise at all catches a missing baseline; the growth of the summed logits slips through. Which "
                "noise moves logits, but no prediction?",
            ),
            Mistake(
                lambda score, x, targets, weight: abs(score(x, targets, weight, 0 * weight)) < 1e-6,
                "no noise at all catches a missing baseline, and nothing else.",
            ),
            Mistake(
                lambda score, x, targets, weight: score(x, targets, weight, _loud(weight)) > 0,
                "the raw loss is above 0 whatever happens, and passes; ask also for a score that has to be 0.",
            ),
            Mistake(
                lambda score, x, targets, weight: abs(score(x, targets, weight, _unheard(weight))) < 1e-6,
                "a score that is always 0 passes, and so does one with the wrong sign: ask for damage as well.",
            ),
            Mistake(
                lambda score, x, targets, weight: score(x, targets, weight, _unheard(weight)) == 0
                and score(x, targets, weight, _loud(weight)) > 0,
                "good scores fail, too. Leave a little room for the rounding of floats; and give every class the same "
                "row, not every input the same number.",
            ),
            Mistake(
                lambda score, x, targets, weight: score(x, targets, weight, _unheard(weight)) < 1e-6
                and score(x, targets, weight, _loud(weight)) > 0,
                "a score far below 0 passes for one of 0: take the absolute value.",
            ),
            Mistake(
                lambda score, x, targets, weight: not _passes(score, x, targets, weight),
                "the other way round: True for a score that passes.",
            ),
        ],
    ),
]
