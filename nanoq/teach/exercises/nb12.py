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


# ---- 12.pair ----


def _slope_and_bowl(w):
    return (w * w).sum() * 1.5 + 2 * w.sum() + 3


def _quartic(w):
    return (w**4).sum() - w[0] + 0.5


def _walks(generator):
    return [(_slope_and_bowl, _draw(3, generator=generator), _draw(3, generator=generator)),
            (_quartic, _draw(4, generator=generator), _draw(4, generator=generator))]


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
        reference=lambda hessian, sigma: 0.5 * sigma**2 * float(hessian.trace()),
        cases=_hessians,
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
        id="12.pair",
        reference=lambda loss_at, weight, noise: float((loss_at(weight + noise) + loss_at(weight - noise)) / 2
                                                       - loss_at(weight)),
        cases=_walks,
        mistakes=[
            Mistake(
                lambda loss_at, weight, noise: float((loss_at(weight + noise) + loss_at(weight - noise)) / 2),
                "that is the loss among the noise, not its growth: something has to be subtracted.",
            ),
            Mistake(
                lambda loss_at, weight, noise: float((loss_at(weight + noise) - loss_at(weight - noise)) / 2),
                "the difference keeps the slope and takes the curvature away; it should be the other way round.",
            ),
            Mistake(
                lambda loss_at, weight, noise: float(loss_at(weight + noise) - loss_at(weight)),
                "that is one draw without its partner: the slope is still in it.",
            ),
            Mistake(
                lambda loss_at, weight, noise: float(loss_at(weight + noise) + loss_at(weight - noise)
                                                     - loss_at(weight)),
                "two losses are added and one is subtracted: take the mean of the two first.",
            ),
            Mistake(
                lambda loss_at, weight, noise: float(loss_at(weight + noise) + loss_at(weight - noise)
                                                     - 2 * loss_at(weight)),
                "that is the growth of both together, twice the mean.",
            ),
        ],
    ),
    Exercise(
        id="12.draws",
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
        reference="d",
        mistakes=[
            Mistake("a", "the same number is added to every layer's score: who was ahead stays ahead."),
            Mistake("b", "the squared distances between scores, which the clusters are made from, do not change."),
            Mistake("c", "terciles use the order alone, and a constant does not change it."),
        ],
    ),
    Exercise(
        id="12.first",
        reference=lambda block: _matrices(block)[0][0],
        cases=_blocks(),
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
        reference=lambda weight, bits: affine_grid(weight, bits).scale / math.sqrt(12),
        rtol=1e-3,  # the grid's scale is a float16
        cases=_weights,
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
        reference=lambda slope, sigma: float((slope * sigma).norm()) * math.sqrt(2 / math.pi),
        cases=_slopes,
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
                lambda score, x, targets, weight: not _passes(score, x, targets, weight),
                "the other way round: True for a score that passes.",
            ),
        ],
    ),
]
