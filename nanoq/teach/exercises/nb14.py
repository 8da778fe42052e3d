"""Exercises of notebook 14, other roads."""

import torch
import torch.nn.functional as F

from nanoq.teach.checks import Exercise, Mistake

# ---- 14.wanda ----


def _kept(scores, sparsity):
    """The highest scores of each row: bool (out, in)."""
    count = scores.shape[1] - round(sparsity * scores.shape[1])
    keep = torch.zeros_like(scores, dtype=torch.bool)
    return keep.scatter_(1, scores.topk(count, dim=1).indices, True)


def _wanda(weight, inputs, sparsity):
    return _kept(weight.abs() * inputs.norm(dim=0), sparsity)


def _whole_matrix(weight, inputs, sparsity):
    scores = weight.abs() * inputs.norm(dim=0)
    return _kept(scores.view(1, -1), sparsity).view_as(weight)


def _layers(generator):
    cases = []
    for out, width, sparsity in ((4, 8, 0.5), (6, 8, 0.25), (8, 12, 0.75), (3, 10, 0.28)):
        spread = 0.2 + 3 * torch.rand(width, generator=generator)
        inputs = torch.randn(20, width, generator=generator) * spread
        cases.append((torch.randn(out, width, generator=generator), inputs, sparsity))
    return cases


# ---- 14.survivors ----


def _walk(weight, keep, hessian, snap, error_of=lambda weight, target, result: weight - result):
    """The walk, with another error of (weight, target, result)."""
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    factor = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1)
    result, error = torch.zeros_like(weight), torch.zeros_like(weight)
    for k in range(weight.shape[1]):
        target = weight[:, k] + error[:, :k] @ factor[:k, k] / factor[k, k]
        result[:, k] = keep[:, k] * snap(target)
        error[:, k] = error_of(weight[:, k], target, result[:, k])
    return result


def _as_it_is(column):
    return column


def _to_halves(column):
    return torch.round(2 * column) / 2


def _walks(generator):
    cases = []
    for out, width, snap in ((3, 4, _as_it_is), (5, 8, _as_it_is), (4, 6, _to_halves)):
        inputs = torch.randn(40, width, generator=generator) @ torch.randn(width, width, generator=generator)
        keep = torch.rand(out, width, generator=generator) < 0.6
        cases.append((torch.randn(out, width, generator=generator), keep, inputs.T @ inputs / 40, snap))
    return cases


# ---- 14.two_of_four ----


def _of_four(weight, chosen=lambda group: group.abs()):
    groups = weight.reshape(-1, 4)
    keep = torch.zeros_like(groups, dtype=torch.bool)
    keep.scatter_(1, chosen(groups).topk(2, dim=1).indices, True)
    return (groups * keep).view_as(weight)


def _matrices(generator):
    return [(torch.randn(out, width, generator=generator),) for out, width in ((4, 8), (8, 4), (4, 12))]


# ---- 14.whitened ----


def _truncated(weight, rank):
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]


def _whitened(weight, hessian, rank):
    factor = torch.linalg.cholesky(hessian)
    return _truncated(weight @ factor, rank) @ torch.linalg.inv(factor)


def _not_undone(weight, hessian, rank):
    return _truncated(weight @ torch.linalg.cholesky(hessian), rank)


def _with_hessian(weight, hessian, rank):
    return _truncated(weight @ hessian, rank) @ torch.linalg.inv(hessian)


def _transposed(weight, hessian, rank):
    factor = torch.linalg.cholesky(hessian).T
    return _truncated(weight @ factor, rank) @ torch.linalg.inv(factor)


def _grams(generator):
    cases = []
    for out, width, rank in ((4, 4, 1), (6, 5, 2), (5, 8, 3)):
        mix = torch.eye(width) + 0.6 * torch.randn(width, width, generator=generator)
        inputs = torch.randn(8 * width, width, generator=generator) @ mix
        hessian = (inputs.T @ inputs / len(inputs) + 0.05 * torch.eye(width)).double()
        cases.append((torch.randn(out, width, generator=generator).double(), hessian, rank))
    return cases


# ---- 14.distil ----


def _divergence(from_logits, to_logits, temperature, to_temperature=None):
    """Mean over the rows of KL(from || to), both softened."""
    from_ = F.log_softmax(from_logits / temperature, 1)
    to = F.log_softmax(to_logits / (to_temperature or temperature), 1)
    return (from_.exp() * (from_ - to)).sum(1).mean()


def _predictions(generator):
    return [(2 * torch.randn(n, 6, generator=generator), 2 * torch.randn(n, 6, generator=generator), temperature)
            for n, temperature in ((3, 1.0), (4, 2.0), (5, 4.0))]


# ---- 14.power_law ----


def _power_law(bits, exponent):
    count = 2 ** (bits - 1) - 1
    return (torch.arange(1, count + 1) / count) ** (1 / exponent)


def _one_more(bits, exponent):
    count = 2 ** (bits - 1)
    return (torch.arange(1, count + 1) / count) ** (1 / exponent)


def _inverted(bits, exponent):
    count = 2 ** (bits - 1) - 1
    return (torch.arange(1, count + 1) / count) ** exponent


def _with_zero(bits, exponent):
    count = 2 ** (bits - 1) - 1
    return (torch.arange(count + 1) / count) ** (1 / exponent)


# ---- 14.memory ----


def _memory(parameters, bits, layers, width, tokens):
    return (parameters * bits / 8 + 2 * layers * width * tokens * 2) / 1e9


EXERCISES = [
    Exercise(
        id="14.wanda",
        why="weights of one row feed the same output, so only they can stand in for each other.",
        minutes=5,
        difficulty=2,
        reference=_wanda,
        cases=_layers,
        paper=[(torch.tensor([[2.0, -1.0], [8.0, -2.0]]), torch.tensor([[1.0, 3.0]]), 0.5)],
        mistakes=[
            Mistake(
                lambda weight, inputs, sparsity: _kept((weight.abs() * inputs.norm(dim=0)).T, sparsity).T,
                "the weights of one column compete here. Let those of a row compete: they feed the same output.",
            ),
            Mistake(_whole_matrix, "all weights of the matrix compete here, and some rows lose more than others: "
                                   "each row is to keep the same number."),
            Mistake(
                lambda weight, inputs, sparsity: _kept(weight.abs() * inputs.square().sum(0), sparsity),
                "that is the squared norm of each input: take its root, or the input counts twice.",
            ),
            Mistake(
                lambda weight, inputs, sparsity: _kept(weight.abs(), sparsity),
                "that is magnitude: the inputs are not used at all.",
            ),
            Mistake(
                lambda weight, inputs, sparsity: _kept(weight * inputs.norm(dim=0), sparsity),
                "a weight of -2 is as large as one of 2: the score is |w| times the norm.",
            ),
            Mistake(
                lambda weight, inputs, sparsity: _kept(-weight.abs() * inputs.norm(dim=0), sparsity),
                "the mask says what stays: True for the highest scores, not for the lowest.",
            ),
        ],
        hints=(
            "what does a weight contribute? Its size, times how large its input is: one number per column.",
            "`scores = weight.abs() * inputs.norm(dim=0)`; `topk(..., dim=1)` finds the best of each row.",
        ),
    ),
    Exercise(
        id="14.survivors",
        why="a zero is one more value to be rounded to, and its error is made up for like any other.",
        minutes=10,
        difficulty=3,
        points=3,
        reference=_walk,
        cases=_walks,
        paper=[(torch.tensor([[0.4, -1.0]]), torch.tensor([[False, True]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]]),
                _as_it_is),
               (torch.tensor([[0.6, 1.0, -1.0]]), torch.tensor([[False, False, True]]), 1 + torch.eye(3), _as_it_is)],
        mistakes=[
            Mistake(lambda weight, keep, hessian, snap: keep * snap(weight),
                    "the columns do not see the errors before them: each one starts from its target, not from its "
                    "weights. And is `error` filled in?"),
            Mistake(lambda weight, keep, hessian, snap:
                    _walk(weight, keep, hessian, snap, error_of=lambda w, target, result: target - result),
                    "the error of a column is the *original* weight minus what it is now; target minus result forgets "
                    "what the column has taken over."),
            Mistake(lambda weight, keep, hessian, snap:
                    _walk(weight, keep, hessian, snap, error_of=lambda w, target, result: result - w),
                    "wrong sign: the error is weight minus result; like this, every column adds to the errors before "
                    "it."),
            Mistake(lambda weight, keep, hessian, snap: _walk(weight * keep, keep, hessian, snap),
                    "the weights that go were set to 0 before the walk, and so nobody makes up for them: start from "
                    "the whole weight."),
            Mistake(lambda weight, keep, hessian, snap:
                    keep * _walk(weight, torch.ones_like(keep), hessian, snap),
                    "the mask comes after the walk here: a column has to be 0 *before* its error is taken."),
            Mistake(lambda weight, keep, hessian, snap: _walk(weight, ~keep, hessian, snap),
                    "the mask is turned round: True stays, False becomes 0."),
        ],
        hints=(
            "make `result` and `error` of the weight's shape, all zeros; for each column fill in one column of both.",
            "`result[:, k] = keep[:, k] * snap(target(weight, error, factor, k))` is the first line in the loop.",
        ),
    ),
    Exercise(
        id="14.two_of_four",
        why="the hardware skips two of four, so each group of four has to have its own two zeros.",
        minutes=6,
        difficulty=2,
        reference=_of_four,
        cases=_matrices,
        paper=[(torch.tensor([[5.0, -4.0, 3.0, 2.0, 1.0, 0.6, -0.5, 0.1]]),),
               (torch.tensor([[5.0, 4.0, 2.0, 1.0], [3.0, 6.0, 7.0, 8.0]]),)],
        mistakes=[
            Mistake(lambda weight: _of_four(weight, lambda group: -group.abs()),
                    "the two largest of each four have become 0: they are the ones to keep."),
            Mistake(lambda weight: _of_four(weight.T.contiguous()).T,
                    "the groups run down the columns: four neighbours in a row share one dot product."),
            Mistake(lambda weight: _of_four(weight, lambda group: group),
                    "a weight of -2 is as large as one of 2: compare sizes."),
            Mistake(lambda weight: weight * _kept(weight.abs(), 0.5),
                    "half of each row is gone, but not two in every four: the choice is made within each group."),
        ],
        hints=(
            "a matrix of groups, one group per row, makes the choice easy: `reshape` goes there and back.",
            "`groups = weight.reshape(-1, 4)`; `topk(2, dim=1)` of their sizes says which two stay.",
        ),
    ),
    Exercise(
        id="14.sparse_bits",
        why="the mask has a bit for every weight, also for those that went, and it does not shrink with the codes.",
        minutes=3,
        difficulty=1,
        reference=lambda sparsity, bits: 1 + (1 - sparsity) * bits,
        cases=[(0.5, 16), (0.7, 16), (0.5, 4), (0.25, 3)],
        mistakes=[
            Mistake(lambda sparsity, bits: (1 - sparsity) * bits,
                    "the mask is missing: without it nobody knows where the values belong."),
            Mistake(lambda sparsity, bits: 1 + sparsity * bits,
                    "sparsity is the share that goes; what stays is stored."),
            Mistake(lambda sparsity, bits: (1 - sparsity) * (bits + 1),
                    "the mask has a bit for every weight, for those that went, too."),
            Mistake(lambda sparsity, bits: bits,
                    "that stores the zeros as well, as a dense file does."),
        ],
        hints=(
            "two things are stored: which weights stay, for all of them, and the values of those that stay.",
            "of 100 weights at a sparsity of 0.7, how many bits has the mask, and how many values are stored?",
        ),
    ),
    Exercise(
        id="14.break_even",
        why="the two factors have rank * (out + width) numbers, and at exactly break-even nothing is saved.",
        minutes=3,
        difficulty=1,
        reference=lambda out, width: (out * width - 1) // (out + width),
        cases=[(192, 192), (768, 192), (192, 768), (100, 10), (2, 3)],
        mistakes=[
            Mistake(lambda out, width: width // 2,
                    "half of the columns is right for squares only, and even there no number is saved at exactly half: "
                    "count both factors, out * r + r * in."),
            Mistake(lambda out, width: min(out, width) - 1,
                    "that is the largest rank that loses anything at all; two factors of that rank have more numbers "
                    "than the matrix."),
            Mistake(lambda out, width: out * width // (out + width),
                    "nearly: where the division leaves no rest, both factors together have exactly as many numbers "
                    "as the matrix, and nothing is saved."),
            Mistake(lambda out, width: width - 1,
                    "that counts one factor, (out, r). The other one, (r, in), is in the file as well."),
        ],
        hints=(
            "count the numbers of both factors, (out, r) and (r, width), and compare with the matrix.",
            "you want the largest r with `r * (out + width) < out * width`: mind the case without a rest.",
        ),
    ),
    Exercise(
        id="14.whitened",
        why="after whitening, the error of the product is the error of the outputs, which the SVD makes smallest.",
        minutes=7,
        difficulty=2,
        reference=_whitened,
        cases=_grams,
        paper=[(torch.tensor([[1.5, 0.0], [-0.5, 1.0]]), torch.tensor([[4.0, 2.0], [2.0, 2.0]]), 1)],  # W C: 3 and 1
        mistakes=[
            Mistake(lambda weight, hessian, rank: _truncated(weight, rank),
                    "that is the plain SVD: it treats all directions of the input alike."),
            Mistake(_not_undone, "the whitening is not undone: the result has to be multiplied with inverse(C)."),
            Mistake(_with_hessian, "whiten by a factor C with C C^T = H, not by H itself: its effect is squared."),
            Mistake(_transposed, "C C^T = H, with C on the right of W; its transpose is another matrix."),
        ],
        hints=(
            "three steps: multiply with the factor, cut off its SVD, and undo the multiplication.",
            "`factor = torch.linalg.cholesky(hessian)`, and `torch.linalg.svd(weight @ factor, full_matrices=False)` "
            "gives u, s and vt.",
        ),
    ),
    Exercise(
        id="14.distil",
        why="the factor keeps the gradient at one size, so one learning rate serves every temperature.",
        minutes=5,
        difficulty=2,
        reference=lambda student, teacher, temperature: temperature**2 * _divergence(teacher, student, temperature),
        cases=_predictions,
        paper=[(torch.tensor([[0.0, 0.0], [2.2, 0.0]]), torch.tensor([[2.2, 0.0], [2.2, 0.0]]), 2.0)],
        mistakes=[
            Mistake(lambda student, teacher, t: t**2 * _divergence(student, teacher, t),
                    "KL the wrong way round: the average is taken over what the teacher expects, p log(p / q) with p "
                    "the teacher's."),
            Mistake(lambda student, teacher, t: t * _divergence(teacher, student, t),
                    "T is not enough: the gradient shrinks twice, by the chain rule and because q - p itself does."),
            Mistake(lambda student, teacher, t: _divergence(teacher, student, t),
                    "the factor T**2 is missing: at T = 4 the student would hardly learn."),
            Mistake(lambda student, teacher, t: t**2 * _divergence(teacher, student, t, 1.0),
                    "the temperature divides both models' logits; here the student's are left as they are."),
            Mistake(lambda student, teacher, t: len(student) * t**2 * _divergence(teacher, student, t),
                    "take the mean over the predictions, not the sum: the loss must not grow with the batch."),
        ],
        hints=(
            "soften both, then average log p minus log q with the teacher's p as weights: sum over classes, mean over "
            "rows.",
            "`log_q = F.log_softmax(student / temperature, 1)`, and p is the softmax of the teacher's softened logits.",
        ),
    ),
    Exercise(
        id="14.power_law",
        why="the powers of the values are evenly spaced, so the values themselves crowd towards 0.",
        minutes=5,
        difficulty=2,
        reference=_power_law,
        cases=[(3, 0.5), (4, 0.7), (2, 0.5)],
        mistakes=[
            Mistake(_inverted, "the powers |w|**a are to be evenly spaced, so go back with the power 1/a: these values "
                               "crowd at the outer end."),
            Mistake(_one_more, "one value too many: 0 and the negatives need codes as well."),
            Mistake(_with_zero, "0 is on the grid anyway: give the values above it only."),
            Mistake(lambda bits, exponent: _power_law(bits, 1.0), "that is the even grid: the exponent is not used."),
        ],
        hints=(
            "how many codes are left for one sign? Space as many powers evenly, then go back from powers to values.",
            "with `count = 2 ** (bits - 1) - 1` the powers are 1/count, 2/count, … 1; which power undoes `exponent`?",
        ),
    ),
    Exercise(
        id="14.memory",
        why="the weights are shared by all texts, the cache is paid for by each of them.",
        minutes=4,
        difficulty=1,
        reference=_memory,
        cases=[(175e9, 16, 96, 12288, 2048), (175e9, 4, 96, 12288, 2048), (7e9, 4, 32, 4096, 4096)],
        mistakes=[
            Mistake(lambda parameters, bits, layers, width, tokens:
                    (parameters * bits + 4 * layers * width * tokens) / 1e9,
                    "eight times too much for the weights: bits are no bytes."),
            Mistake(lambda parameters, bits, layers, width, tokens:
                    (parameters * bits / 8 + 2 * layers * width * tokens) / 1e9,
                    "keys and values: two vectors for each token in each layer, of two bytes a number."),
            Mistake(lambda parameters, bits, layers, width, tokens: (parameters * bits / 8 + 4 * width * tokens) / 1e9,
                    "every layer has a cache of its own."),
            Mistake(lambda parameters, bits, layers, width, tokens:
                    (parameters * bits / 8 + 4 * layers * width * tokens) / 2**30,
                    "that is GiB, 2**30 bytes; a GB has 10**9."),
            Mistake(lambda parameters, bits, layers, width, tokens: parameters * bits / 8e9,
                    "the weights alone: the cache of keys and values is missing."),
        ],
        hints=(
            "bits to bytes for the weights; then two vectors for each token in each layer, of two bytes per number.",
            "the cache has `2 * layers * width * tokens` numbers.",
        ),
    ),
    Exercise(
        id="14.households",
        why="one unit first: a MWh is 1,000 kWh.",
        minutes=2,
        difficulty=1,
        reference=lambda mwh, kwh_per_home: 1000 * mwh / kwh_per_home,
        cases=[(1287, 10715), (433, 3600), (190, 8500)],
        mistakes=[
            Mistake(lambda mwh, kwh_per_home: mwh / kwh_per_home,
                    "a MWh has 1,000 kWh: bring both to one unit."),
            Mistake(lambda mwh, kwh_per_home: kwh_per_home / (1000 * mwh),
                    "upside down: that is the share of the training that one home uses."),
            Mistake(lambda mwh, kwh_per_home: 12 * 1000 * mwh / kwh_per_home,
                    "that is in household-months: the figure for a home is for a year already."),
        ],
        hints=(
            "bring both figures to kWh.",
            "divide the training's kWh by those of one home.",
        ),
    ),
]
