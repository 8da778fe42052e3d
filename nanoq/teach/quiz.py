"""Quizzes: questions whose numbers are drawn from a seed, whose keys are computed, and whose wrong options are known.

A question needs no key of its own. It takes an exercise of the course: the reference gives the right answer for the
numbers drawn, and the recognised mistakes give the wrong ones, each with the hint that says what went wrong. To add
a question is to add a line to `TEMPLATES`: the exercise, how its arguments are drawn, and how they are put in words.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from random import Random

import torch

from nanoq.teach.checks import CheckFailed, Exercise, Mistake, find_exercise, judge
from nanoq.teach.course import BY_NUMBER

LETTERS = "abcd"
DRAWS = 100


@dataclass(frozen=True)
class Template:
    """A question before its numbers are drawn.

    Attributes:
        exercise: id of the exercise whose reference is the key and whose mistakes are the distractors.
        draw: gives the arguments of the reference, from a generator.
        ask: puts these arguments in words.
    """

    exercise: str
    draw: Callable[[Random], tuple]
    ask: Callable[..., str]


@dataclass(frozen=True)
class Question:
    """A question as it stands on the sheet.

    Attributes:
        id: that of the exercise it is made of.
        text: Markdown.
        options: four different answers, a to d.
        key: the letter of the right one.
        hints: for each wrong letter, what whoever gives it has mistaken.
    """

    id: str
    text: str
    options: tuple[str, ...]
    key: str
    hints: dict[str, str]

    def judge(self, answer: object) -> tuple[bool, str]:
        """Whether the letter is right, and the line that a check would print."""
        mistakes = [Mistake(letter, hint) for letter, hint in self.hints.items()]
        return judge(Exercise(f"quiz {self.id}", self.key, mistakes), answer)


def _pick(*choices: Sequence) -> Callable[[Random], tuple]:
    """Draw one of each list."""
    return lambda rng: tuple(rng.choice(list(values)) for values in choices)


def _bits(rng: Random) -> tuple[str]:
    return ("1" + "".join(rng.choice("01") for _ in range(7)),)


def _half(rng: Random) -> tuple[int]:
    """A pattern of fp16: negative, normal, a short fraction."""
    return (1 << 15 | rng.randint(13, 19) << 10 | rng.randint(1, 7) << 7,)


def _four_weights(rng: Random) -> tuple[torch.Tensor]:
    """Weights whose largest is negative and a short multiple of 127."""
    largest = rng.choice((2, 3, 4, 5, 6)) * 1.27
    others = [round(largest * rng.choice((0.1, 0.3, 0.45, 0.6)), 2) for _ in range(3)]
    return (torch.tensor([others[0], -round(largest, 2), -others[1], others[2]], dtype=torch.float64),)


def _overflow(rng: Random) -> tuple[int, int]:
    bits = rng.choice((6, 7, 8))
    return 2 ** (bits - 1) + rng.randint(3, 2 ** (bits - 1) - 3), bits


def _range(rng: Random) -> tuple[float, float, int]:
    """Ends that are whole steps away from 0, so that zero point and scale have short names."""
    bits, step = rng.choice((2, 3, 4)), rng.choice((0.1, 0.2, 0.4, 0.5))
    below = rng.randint(1, 2**bits - 3)
    return -below * step, (2**bits - 1 - below) * step, bits


def _one_weight(rng: Random) -> tuple[torch.Tensor, float, int, int]:
    """A weight between two codes, the upper one nearer, or beyond the last code."""
    bits, scale = rng.choice((3, 4)), rng.choice((0.1, 0.2, 0.5))
    steps = -rng.randint(1, 3) - rng.choice((0.3, 0.6, 0.7))
    return torch.tensor([steps * scale], dtype=torch.float64), scale, rng.randint(4, 6), bits


def _losses(rng: Random) -> tuple[torch.Tensor]:
    return (torch.tensor([rng.choice(losses) for losses in ((0.4, 0.5, 0.6), (0.8, 0.9), (1.3, 1.5, 1.8))],
                         dtype=torch.float64),)


def _codes(rng: Random) -> tuple[torch.Tensor]:
    return (torch.tensor([[rng.randint(0, 2) for _ in range(4)] for _ in range(rng.choice((2, 3)))]),)


def _one_row(rng: Random) -> tuple[torch.Tensor]:
    """Four weights, the largest of them negative and a multiple of three steps."""
    largest = rng.choice((0.3, 0.6, 0.9, 1.2, 1.5))
    others = [round(largest * rng.choice((0.2, 0.4, 0.7)), 2) for _ in range(3)]
    return (torch.tensor([[others[0], -largest, -others[1], others[2]]], dtype=torch.float64),)


def _row_and_threshold(rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Two weights above the threshold, one of them negative, and two below."""
    above, threshold = [rng.choice((0.5, 0.6, 0.7)), -rng.choice((0.8, 0.9, 1.2))], rng.choice((0.3, 0.4))
    weight = [above[0], rng.choice((-0.1, 0.2)), above[1], rng.choice((0.1, -0.2))]
    return torch.tensor([weight], dtype=torch.float64), torch.tensor([[threshold]], dtype=torch.float64)


def _five_codes(rng: Random) -> tuple[torch.Tensor]:
    return (torch.tensor([rng.choice((1, 2)), *(rng.randint(0, 2) for _ in range(3)), rng.choice((0, 2))]),)


def _integrals(rng: Random) -> tuple[float, float, float]:
    """Level, share and first moment of some density; the moment is at most the root of the share."""
    share = rng.choice((0.3, 0.4, 0.5, 0.6))
    return rng.choice((0.8, 0.9, 1.1, 1.2)), share, round(0.95 * math.sqrt(share), 2)


def _between(rng: Random) -> tuple[int, int, float]:
    low = rng.randint(1, 4)
    return low, low + 2, low + 2 * rng.choice((0.1, 0.2, 0.3, 0.7, 0.8))


def _between_steps(rng: Random) -> tuple[torch.Tensor, float, torch.Tensor]:
    """A negative number, the distance of its neighbours on a grid, and a uniform draw."""
    step, part, draw = rng.choice((0.2, 0.5, 2.0)), rng.choice((0.2, 0.3, 0.7)), rng.choice((0.1, 0.4, 0.6, 0.9))
    whole = -rng.randint(2, 6)
    return torch.tensor((whole + part) * step, dtype=torch.float64), step, torch.tensor(draw, dtype=torch.float64)


def _two_weights(rng: Random) -> tuple[torch.Tensor, float, torch.Tensor]:
    weight = torch.tensor([rng.randint(2, 8), rng.randint(2, 8)], dtype=torch.float64) / 10
    first, second, both = rng.choice((2.0, 4.0)), rng.choice((1.0, 5.0)), rng.choice((-1.0, 1.0, 0.5))
    return weight, 0.0, torch.tensor([[first, both], [both, second]], dtype=torch.float64)


def _row_change(rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    change = torch.tensor([[rng.choice((-3, -2, 1, 2)), rng.choice((-2, -1, 3))]], dtype=torch.float64) / 10
    return change, _two_weights(rng)[2]


def _packed_row(rng: Random) -> tuple[torch.Tensor, float, int, torch.Tensor]:
    """Four codes in two bytes, and small whole numbers to multiply them by."""
    packed = torch.tensor([rng.randrange(256) for _ in range(2)], dtype=torch.uint8)
    x = torch.tensor([rng.choice((-2.0, -1.0, 1.0, 2.0)) for _ in range(4)])
    return packed, rng.choice((0.25, 0.5)), rng.randrange(6, 10), x


def _second_column(rng: Random) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Two weights, the first one's error, and an upper triangular factor: for the target of the second."""
    weight = torch.tensor([[rng.randint(2, 9), rng.randint(2, 9)]], dtype=torch.float64) / 10
    error = torch.tensor([[rng.choice((-0.3, -0.2, 0.2, 0.4)), 0.0]], dtype=torch.float64)
    first, second, both = rng.choice((1.0, 5.0)), rng.choice((2.0, 4.0)), rng.choice((-1.0, 1.0, 3.0))
    return weight, error, torch.tensor([[first, both], [0.0, second]], dtype=torch.float64), 1


def _row_of_codes(rng: Random) -> tuple[int, int]:
    """Bytes and codes of a packed row that does not end with a byte."""
    bits, columns = rng.choice((3, 5, 6, 7)), rng.choice((50, 70, 90, 102, 106))
    return -(-bits * columns // 8), columns


def _few_codes(rng: Random) -> tuple[torch.Tensor]:
    """Eight codes whose shares are powers of two."""
    counts = rng.choice(((4, 2, 1, 1), (4, 2, 2), (4, 1, 1, 1, 1), (2, 2, 2, 1, 1)))
    codes = [code for code, count in enumerate(counts) for _ in range(count)]
    rng.shuffle(codes)
    return (torch.tensor(codes),)


def _stream(rng: Random) -> tuple[str, dict[int, str]]:
    """Three codewords and four codes of them."""
    codes = rng.sample(range(5, 10), 3)
    words = dict(zip(codes, rng.choice((("0", "10", "11"), ("1", "01", "00"))), strict=True))
    return "".join(words[rng.choice(codes)] for _ in range(4)), words


def _factored(rng: Random) -> tuple[torch.Tensor, torch.Tensor, float]:
    size, diagonal = rng.choice((0.1, 0.2, 0.5)), rng.sample((0.5, 1.0, 2.0, 4.0, 8.0), 2)
    weight = torch.tensor([[size, -size]], dtype=torch.float64)
    return weight, torch.diag(torch.tensor(diagonal, dtype=torch.float64)), rng.choice((0.001, 0.002, 0.005))


def _weakened(rng: Random) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight = torch.tensor([[rng.randint(5, 9), rng.randint(2, 4)]], dtype=torch.float64) / 10
    gram = torch.diag(torch.tensor([rng.choice((1.0, 2.0)), rng.choice((3.0, 4.0))], dtype=torch.float64))
    return weight, torch.tensor([[rng.choice((0.4, 0.8)), 0.0]], dtype=torch.float64), gram


def _some_v(rng: Random) -> tuple[torch.Tensor]:
    """A number that leads to a share between 0 and 1."""
    return (torch.tensor([rng.choice((-1.5, -1.0, -0.5, 0.5, 1.0, 1.5))], dtype=torch.float64),)


def _clipped(rng: Random) -> tuple[torch.Tensor, float, torch.Tensor]:
    """A weight beyond the level of a ternary grid, and a share."""
    level, beyond = rng.choice((0.2, 0.4, 0.5)), rng.choice((1.3, 1.6, 1.8))
    weight = torch.tensor([beyond * level], dtype=torch.float64)
    return weight, level, torch.tensor([rng.choice((0.2, 0.3, 0.7, 0.8))], dtype=torch.float64)


def _overflows(rng: Random) -> tuple[list[bool], float, int]:
    """Steps with an overflow among good ones."""
    patience, before, after = rng.choice((2, 3)), rng.randint(1, 3), rng.randint(4, 6)
    return [False] * before + [True] + [False] * after, float(rng.choice((64, 256, 1024))), patience


def _curve(rng: Random) -> tuple[float, list[float]]:
    base = rng.randint(60, 90) / 100
    steps = sorted(rng.sample(range(1, 60), 3))
    return base, [round(base + step / 50, 2) for step in steps]


def _sizes(rng: Random) -> tuple[torch.Tensor, float]:
    """Ten weights of sizes 1 to 10, shuffled, and the error of cutting some of them."""
    sizes = list(range(1, 11))
    rng.shuffle(sizes)
    cut = rng.randint(3, 7)
    error = (sum(i * i for i in range(1, cut + 1)) + 3) / 385  # a little above: never on the border
    return torch.tensor([sizes], dtype=torch.float64), round(error, 3)


def _two_matrices(rng: Random) -> tuple[list[torch.Tensor], float]:
    """Five small and five larger weights, some of which are among the smaller half of all; which half is cut."""
    small, large = sorted(rng.sample(range(1, 9), 5)), sorted(rng.sample(range(4, 16), 5))
    values = [size + 0.5 * (size in small) for size in large]  # no ties
    return [torch.tensor([small], dtype=torch.float64), torch.tensor([values], dtype=torch.float64)], 0.4


def _answers(rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen answers, right or wrong, before and after; more become wrong than right."""
    wrong, right = rng.randint(3, 5), rng.randint(1, 2)
    before = [True] * (wrong + 5) + [False] * (11 - wrong)
    after = [False] * wrong + [True] * (5 + right) + [False] * (11 - wrong - right)
    return torch.tensor(before), torch.tensor(after)


def _hessian(rng: Random) -> tuple[torch.Tensor, float]:
    a, b, c = rng.randint(3, 9), rng.randint(1, 2), rng.randint(3, 9)
    return torch.tensor([[a, b], [b, c]], dtype=torch.float64), rng.choice((0.1, 0.2, 0.5))


def _row(rng: Random) -> tuple[torch.Tensor, int]:
    """A row of two weights of opposite sign, and a width."""
    return torch.tensor([[-rng.randint(3, 9) / 10, rng.randint(3, 9) / 10]]), rng.choice((2, 3, 4))


def _slope(rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Slopes of opposite sign and different size, and a standard deviation that exact tenths can say."""
    slope = [rng.randint(5, 9), -rng.randint(2, 4), rng.randint(2, 4)]
    sigma = torch.tensor([[rng.choice((0.1, 0.2, 0.4))]], dtype=torch.float64)
    return torch.tensor([slope], dtype=torch.float64), sigma


def _mixture(rng: Random) -> tuple[dict, dict, int]:
    """Two matrices whose rows of codes do not all end with a byte, and what is beside them."""
    shapes = {"A": (rng.choice((10, 20)), rng.choice((50, 90))), "B": (rng.choice((6, 12)), rng.choice((30, 70)))}
    return shapes, {"A": rng.choice((3, 5)), "B": rng.choice((2, 4))}, rng.choice((100, 200))


def _two_orders(rng: Random) -> tuple[list[int], list[int]]:
    """Scores and damages of five layers, most of them in the same order."""
    scores = rng.sample(range(1, 30), 5)
    ranks = sorted(range(5), key=scores.__getitem__)
    i = rng.randint(0, 2)
    ranks[i], ranks[i + 2] = ranks[i + 2], ranks[i]
    return scores, [3 ** ranks.index(layer) for layer in range(5)]


def _four_windows(rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of two models on four windows that are hard in different degrees."""
    theirs = rng.sample(range(80, 180, 10), 4)
    mine = [loss + gap for loss, gap in zip(theirs, rng.sample((1, 2, 4, 5, 8, -2), 4), strict=True)]
    return tuple(torch.tensor(losses, dtype=torch.float64) / 100 for losses in (mine, theirs))


def _model(rng: Random) -> tuple[int, int, int, int]:
    """A model of OPT's shape: weights, scales (one per row), other parameters, bits."""
    width, blocks = rng.choice((256, 512, 768)), rng.choice((6, 12))
    return 12 * width**2 * blocks, 9 * width * blocks, rng.choice((5000, 20000)) * width, rng.choice((3, 4, 8))


def _llama(rng: Random) -> tuple[float, int, int, int, int]:
    """Parameters, bits, layers, width and tokens of some usual shapes."""
    parameters, layers, width = rng.choice(((7e9, 32, 4096), (13e9, 40, 5120), (30e9, 60, 6656)))
    return parameters, rng.choice((3, 4, 8)), layers, width, rng.choice((2048, 4096, 8192))


def _two_texts(rng: Random) -> tuple[str, str]:
    """Sentences of one pattern, which part at some place and meet again."""
    lists = ("Tom", "Tim", "Mia"), ("saw", "sat", "had"), ("cat", "cow", "car")
    words = [rng.sample(choices, 2) for choices in lists]
    same = rng.randint(0, 2)
    first, second = ([pair[number if place >= same else 0] for place, pair in enumerate(words)] for number in (0, 1))
    return f"{first[0]} {first[1]} a {first[2]}", f"{second[0]} {second[1]} a {second[2]}"


def _times(rng: Random) -> tuple[list[float]]:
    return ([rng.choice((0.2, 0.3, 0.5)), *(rng.randint(2, 9) / 100 for _ in range(4))],)


def _line(rng: Random) -> tuple[torch.Tensor, float]:
    """Five probabilities, and a number between two of their sums."""
    tenths = [1, 1, 2, 2, 4]
    rng.shuffle(tenths)
    return torch.tensor(tenths, dtype=torch.float64) / 10, rng.choice((0.15, 0.35, 0.55, 0.75, 0.95))


def _race(rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Four probabilities and waiting times, without ties."""
    tenths, waits = [1, 2, 3, 4], [0.3, 0.5, 0.7, 1.1]
    rng.shuffle(tenths)
    rng.shuffle(waits)
    return torch.tensor(tenths, dtype=torch.float64) / 10, torch.tensor(waits, dtype=torch.float64)


def _rows(matrix: torch.Tensor) -> str:
    return "; ".join(" ".join(f"{value:g}" for value in row) for row in matrix.tolist())


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


SPECIALS = {"ieee": "the highest exponent field holds no numbers", "fn": "the pattern of all ones is no number",
            "none": "every pattern is a number"}  # fmt: skip

TEMPLATES = (
    Template("00.levels", _pick(range(3, 13)), lambda bits:
             f"How many different values do {bits} bits tell apart?"),
    Template("00.bytes", _pick(range(1001, 2000, 2), (2, 3, 5, 6)), lambda weights, bits:
             f"{weights:,} codes of {bits} bits are packed without gaps. How many bytes do they take?"),
    Template("00.scale", _four_weights, lambda weight:
             f"The weights {_list(weight.tolist())} are stored as codes from −127 to 127, so that the grid just covers "
             "them. What is the scale?"),
    Template("00.gpt3", _pick((7e9, 13e9, 34e9, 70e9, 175e9), (2, 4, 16)), lambda weights, bits:
             f"A model has {weights / 1e9:g} billion weights of {bits} bits each. How many GB (10⁹ bytes) are they?"),
    Template("01.signed", _bits, lambda digits:
             f"Which number is `{digits}` in int8 (two's complement)?"),
    Template("01.wrap", _overflow, lambda total, bits:
             f"An adder of int{bits} adds {total // 2} and {total - total // 2}. What does it store?"),
    Template("01.decode", _half, lambda pattern:
             f"Which number is the fp16 pattern `{pattern >> 15:b} {pattern >> 10 & 31:05b} {pattern & 1023:010b}` "
             "(sign, exponent field, fraction; the bias is 15)?"),
    Template("01.gap", _pick(range(2, 13)), lambda mantissa:
             f"A float has {mantissa} fraction bits and exponent enough. Which is the smallest positive integer "
             "that it lacks?"),
    Template("01.largest", _pick((3, 4, 5), (1, 2, 3), SPECIALS), lambda exponent, mantissa, specials:
             f"A signed float has {exponent} exponent bits, {mantissa} fraction bits and the bias "
             f"{2 ** (exponent - 1) - 1}; {SPECIALS[specials]}. What is its largest finite value?"),
    Template("02.bound", _pick(range(2, 10)), lambda bits:
             f"A normal number is rounded to nearest with {bits} fraction bits. What bounds its relative error?"),
    Template("02.stuck", _pick((0.1, 0.2, 0.3, 0.6, 0.7), range(3, 11)), lambda term, bits:
             f"{term} is added again and again; each total is rounded to nearest with {bits} fraction bits. At "
             "which total does the sum stop growing?"),
    Template("02.bytes", _pick(range(20, 90), range(100, 900, 4), (True, False)), lambda rows, columns, per_row:
             f"A matrix of {rows} × {columns} in int8 has a float32 scale for "
             f"{'each row' if per_row else 'the matrix'}. How many bytes is that?"),
    Template("02.stochastic", _between_steps, lambda x, step, u:
             f"{x.item():g} is rounded stochastically to a multiple of {step:g}: up where the uniform draw, "
             f"{u.item():g}, is at least the part of a step that is missing to the upper one. What comes out?"),
    Template("03.bits_per_char", _pick((2.0, 2.5, 3.0, 3.5), range(200, 500, 50), range(1000, 2000, 100)),
             lambda loss, tokens, characters:
             f"A model reads {characters:,} characters as {tokens} tokens, at a mean loss of {loss} nats a token. "
             "How many bits is that for each character?"),
    Template("03.block_parameters", _pick(range(64, 513, 64), (4, 8)), lambda width, heads:
             f"How many parameters has a block of width {width} with {heads} heads (attention with four matrices, "
             "an MLP four times as wide, two norms with a gain each, no biases)?"),
    Template("03.training_bytes", _pick(range(1_000_000, 20_000_000, 500_000)), lambda parameters:
             f"A model has {parameters:,} parameters. How many bytes do weights, gradients and AdamW's state take "
             "in float32?"),
    Template("03.positions", _pick(range(10, 60), range(4, 20), (False,)), lambda prompt, new, cached:
             f"Without a key-value cache a model continues a prompt of {prompt} characters by {new}. How many "
             "places does it read in all?"),
    Template("03.perplexity", _losses, lambda losses:
             f"Three windows of held-out text have the mean losses {_list(losses.tolist())} nats per character. What "
             "is the perplexity?"),
    Template("04.affine", _range, lambda low, high, bits:
             f"An asymmetric grid of {bits} bits covers {low:g} to {high:g}. What are its scale and its zero point?"),
    Template("04.noise", _pick((-1, -0.5, -2), (1, 0.5, 2, 3), (2, 3, 4, 5)), lambda low, high, bits:
             f"Weights spread evenly over {low:g} to {high:g} are rounded to nearest on a grid of {bits} bits "
             "whose first and last values are the ends. What is the mean squared error?"),
    Template("04.average_bits", _pick(range(150, 800, 10), (2, 3, 4), (32, 64, 128)),
             lambda columns, bits, group_size:
             f"A row of {columns} weights has codes of {bits} bits in groups of {group_size}, each with a float16 "
             f"scale and a zero point of {bits} bits. How many bits does a weight take?"),
    Template("04.payload", _pick(range(5 * 10**5, 3 * 10**6, 10**5), range(2000, 9000, 1000), range(10**4, 10**5, 999)),
             lambda weights, rows, rest:
             f"{weights:,} weights in {rows:,} rows become int8 codes with a float32 scale a row; {rest:,} other "
             "parameters stay in float32. How many bytes is the model?"),
    Template("04.codes", _one_weight, lambda weight, scale, zero_point, bits:
             f"A grid of {bits} bits has the scale {scale:g} and the zero point {zero_point}. Which code does the "
             f"weight {weight.item():g} get?"),
    Template("04.values", _pick(range(9, 16), (0.1, 0.2, 0.5), range(3, 8)), lambda code, scale, zero_point:
             f"A grid has the scale {scale:g} and the zero point {zero_point}. Which value does the code {code} stand "
             "for?"),
    Template("05.tquant", _one_row, lambda weight:
             f"A row has the weights {_list(weight[0].tolist())}. Which threshold and which level does TQuant choose?"),
    Template("05.best_level", _row_and_threshold, lambda weight, threshold:
             f"A row has the weights {_list(weight[0].tolist())}, the threshold is {float(threshold):g}. Which level "
             "has the least squared error?"),
    Template("05.pack5", _five_codes, lambda codes:
             f"The codes {_list(codes.tolist())} become one byte, the first of them as the lowest digit to base 3. "
             "Which number is stored?"),
    Template("05.zeros", _pick((2.0, 2.4, 2.6, 3.0, 3.4, 3.6)), lambda largest:
             f"The weights of a row are normal with σ = 1, the largest is {largest}. Which share of them does "
             "naive ternary rounding make 0?"),
    Template("05.mse", _integrals, lambda level, share, total:
             f"Of weights with mean square 1 a share of {share} lies above the threshold; the mean of |w|, counted "
             f"there only, is {total}. They become ±{level}, the others 0. What is the mean squared error?"),
    Template("05.operations", _codes, lambda codes:
             f"A ternary matrix has the codes {_rows(codes)} (rows apart by semicolons; 1 stands for the value 0), "
             "and a level for each row. How many multiplications and how many additions does one input vector "
             "take, if zeros are skipped?"),
    Template("06.rectified", _some_v, lambda v:
             f"AdaRound gives a weight the number v = {v.item():g}. Which share of the way from its lower to its upper "
             "neighbour does its soft weight stand?"),
    Template("06.soft", _clipped, lambda weight, level, share:
             f"On a ternary grid of level {level:g}, a weight of {weight.item():g} has the share h = {share.item():g}. "
             "What is its soft weight?"),
    Template("06.loss_scale", _overflows, lambda overflowed, scale, patience:
             f"A loss scale of {scale:g} doubles after {patience} good steps in a row. These steps follow: "
             f"{', '.join('overflow' if bad else 'good' for bad in overflowed)}. What is it then?"),
    Template("06.frozen", _pick((0.5, 0.7, 0.8, 0.9, 1.1, 1.3)), lambda level:
             "Weights are normal with σ = 1. Which share is frozen in AdaRound on a ternary grid with level "
             f"{level}?"),
    Template("06.share", _between, lambda low, high, goal:
             f"A latent weight is trained straight-through for the loss (q − {goal:g})²/2; the grid values around "
             f"the goal are {low} and {high}. In which share of the steps is it at {high}, in the long run?"),
    Template("07.best_target", _two_weights, lambda weight, rounded, hessian:
             f"Two weights, {_list(weight.tolist())}, read inputs with the Hessian {_rows(hessian)}. The first is "
             f"rounded to {rounded:g}. Where should the second go, as a real number?"),
    Template("07.layer_error", _row_change, lambda change, hessian:
             f"Rounding changes the two weights of a row by {_list(change[0].tolist())}. Their inputs have the Hessian "
             f"{_rows(hessian)}, the mean of x xᵀ. What is the mean squared error of the row's output?"),
    Template("07.column", _second_column, lambda weight, error, factor, k:
             f"GPTQ rounds the weights {_list(weight[0].tolist())} of a row with the factor C = {_rows(factor)}. The "
             f"first one's error, weight minus value, is {float(error[0, 0]):g}. What is the target of the second?"),
    Template("07.speedup", _pick((2, 3, 4), (32, 64, 128)), lambda bits, size:
             f"Writing one token reads every weight once, and nothing else takes time. By which factor do codes of "
             f"{bits} bits at most speed this up against float16, if each group of {size} weights has a float16 scale "
             f"and a zero point of {bits} bits?"),
    Template("07.group_size", _pick((2, 3, 4, 8), (0.1, 0.15, 0.2, 0.3, 0.4, 0.6)), lambda bits, budget:
             f"Codes of {bits} bits; each group has a float16 scale and a zero point of {bits} bits. Which is the "
             f"smallest power of two for the group size that costs at most {budget} bits a weight?"),
    Template("08.bytes_moved", _pick((512, 1024, 2048), (2048, 4096), (4, 8), (32, 64, 128)),
             lambda out, columns, bits, group_size:
             f"A kernel multiplies a weight ({out} × {columns}) in {bits}-bit codes by one token. It reads codes "
             f"once, a float32 scale and a float32 zero point for each group of {group_size} columns, and the input "
             "in float32, and writes the output in float32. How many bytes does it move?"),
    Template("08.dot4", _packed_row, lambda packed, scale, zero, x:
             f"A row of 4-bit codes is packed into the bytes {_list(packed.tolist())}, the code of an even column in "
             f"the low half of a byte. Its scale is {scale:g}, its zero point {zero}. What is its product with x = "
             f"{_list(x.tolist())}?"),
    Template("08.intensity", _pick((1024, 2048), (2048, 4096), (1, 8, 64), (4, 8, 32)),
             lambda out, columns, tokens, bits:
             f"A product reads a weight ({out} × {columns}) in {bits} bits and {tokens} input{'s' * (tokens > 1)} "
             "in float32, and writes its results in float32. How many operations does it do per byte, if a "
             "multiplication and its addition are two operations?"),
    Template("08.crossover", _pick((2e10, 5e10, 1e11, 4e11), (5e9, 1e10, 2e10), (4, 8, 16, 32)),
             lambda rate, bandwidth, bits:
             f"A machine does {rate / 1e9:g} billion operations and moves {bandwidth / 1e9:g} GB per second. From "
             f"how many tokens at once is a product with weights of {bits} bits limited by computing, if a "
             "multiplication and its addition are two operations?"),
    Template("08.kv_bytes", _pick((6, 12, 24), (6, 8, 12), (32, 64), (2, 4), (32, 64)),
             lambda layers, heads, width, bits, group:
             f"{layers} blocks with {heads} heads of {width} channels keep keys and values in {bits} bits: keys "
             f"per channel in groups of {group} tokens, values per token of a head, each with a float16 scale and "
             "a float16 minimum. How many bytes does a token take?"),
    Template("09.entropy", _few_codes, lambda codes:
             f"A matrix has the codes {_list(codes.tolist())}. What is their entropy, in bits per code?"),
    Template("09.decode_bits", _stream, lambda bits, words:
             f"A prefix code has the words {', '.join(f'{code}: `{word}`' for code, word in words.items())}. Which "
             f"codes are `{bits}`?"),
    Template("09.bits_needed", _factored, lambda weight, factor, error:
             f"A layer has 2 inputs, weights with the mean square {float(weight.square().mean()):g}, and a GPTQ factor "
             f"with the diagonal {_list(factor.diagonal().tolist())}. How many bits per weight does an output error of "
             f"{error:g} need, by the high-rate bound n σ² det(H)^(1/n) 2^(−2R)?"),
    Template("09.output_gain", _weakened, lambda weight, rounded, gram:
             f"The weights {_list(weight[0].tolist())} of an output become {_list(rounded[0].tolist())}; the inputs "
             f"are uncorrelated, with mean squares {_list(gram.diagonal().tolist())}. What is the gain of the output?"),
    Template("10.floor", _pick((0.2, 0.3, 0.4, 0.5, 0.6, 1.2)), lambda step:
             f"Values lie evenly between grid values that are {step} apart, and are rounded with floor. What are "
             "the mean and the mean square of the error?"),
    Template("10.enough", _pick((64, 96, 192, 768), (0.1, 0.2, 0.3, 0.4)), lambda width, level:
             f"Features on both sides are {width} wide; the law is max(p, q) / (n − 1). What is the smallest "
             f"number of samples for which the root mean square of the chance correlations is at most {level}?"),
    Template("10.path", _pick((0.2, 0.3, 0.4, 0.6, 0.75, 1.5)), lambda size:
             f"A block adds something independent, {size} times as large (in standard deviations) as its input. "
             "How are input and output correlated, coordinate by coordinate?"),
    Template("10.width", _row_of_codes, lambda stored, columns:
             f"A row of {columns} codes of equal width is packed end to end into {stored} bytes, the last of which may "
             "not be full. How many bits has a code?"),
    Template("11.sensitivity", _curve, lambda base, losses:
             f"A model's loss is {base} nats. With one block pruned at three levels it is {_list(losses)}. What is "
             "the block's PMPQ score?"),
    Template("11.matched", _sizes, lambda weight, error:
             f"The weights of a matrix are {_list(weight[0].tolist())}. The largest share of them is to be pruned, "
             f"smallest first, whose squares sum to at most {error} of the sum of all squares (385). Which share?"),
    Template("11.scope", _two_matrices, lambda matrices, level:
             f"Two matrices have the weights {_list(matrices[0][0].tolist())} and {_list(matrices[1][0].tolist())}. "
             f"One threshold serves both, at a sparsity of {level}. Which share of each is cut?"),
    Template("11.flips", _answers, lambda before, after:
             f"Of {len(before)} answers, {int((before & ~after).sum())} were right and are wrong after pruning, and "
             f"{int((~before & after).sum())} were wrong and are right. What is the drop of the accuracy, and its "
             "standard error?"),
    Template("12.growth", _hessian, lambda hessian, sigma:
             f"A loss ½ xᵀHx has the Hessian H = {_rows(hessian)}. Independent noise with σ = {sigma} is added to "
             "both weights. By how much does the loss grow on average?"),
    Template("12.draws", _pick((2.0, 3.0, 5.0, 7.0), (0.5, 1.5, 2.0), (0.1, 0.2, 0.3)), lambda spread, mean, share:
             f"One draw has the mean {mean:g} and the standard deviation {spread:g}. How many draws are needed for "
             f"a standard error of at most {share} times the mean?"),
    Template("12.matched", _row, lambda weight, bits:
             f"A row of weights runs from {weight.min():.1f} to {weight.max():.1f}. It is rounded to {bits} bits, on "
             "a grid of its own from the smallest to the largest weight. What is the standard deviation of the error?"),
    Template("12.first_order", _slope, lambda slope, sigma:
             f"A loss has the slopes {_list(slope[0].tolist())} at its weights. Independent Gaussian noise with σ = "
             f"{sigma.item():g} is added to each. What is the mean size of the first-order change, E|g·e|?"),
    Template("13.file_bytes", _mixture, lambda shapes, widths, others:
             "A file has " + " and ".join(f"a matrix of {rows} × {columns} weights in {widths[name]} bits"
                                          for name, (rows, columns) in shapes.items()) +
             ", each row of codes packed into whole bytes by itself; a float16 scale per row; the zero points of each "
             f"matrix, as wide as its codes, packed together; and {others} float16 numbers. How many bytes is that?"),
    Template("13.rank", _two_orders, lambda x, y:
             f"Five layers have the scores {_list(x)} and the damages {_list(y)}. What is their rank correlation, by "
             "Spearman's formula?"),
    Template("13.paired", _four_windows, lambda mine, theirs:
             f"On the same four windows one model loses {_list(mine.tolist())} nats, another {_list(theirs.tolist())}. "
             "What is the mean of the difference, first minus second, and what are the ends of its 95 % interval (1.96 "
             "standard errors to each side)?"),
    Template("13.attainable", _pick((2, 3), ((16, 8, 4), (8, 4, 2), (8, 4)), (16, 32)), lambda blocks, widths, base:
             f"Each of {blocks} equal blocks gets one of the widths {_list(widths)}. Which compression ratios over "
             f"{base} bits can the whole have?"),
    Template("13.worth", _pick((1, 4, 8, 16), (1, 2, 3), (2, 3, 4)), lambda a, b, bits:
             f"Two layers of one size lose {a} · 4^−bits and {b} · 4^−bits. Both have {bits} bits; the first now "
             "gets one more and the second one fewer. By how much does their total damage change?"),
    Template("14.sparse_bits", _pick((0.5, 0.6, 0.7, 0.75, 0.8), (4, 8, 16)), lambda sparsity, bits:
             f"A share of {sparsity} of the weights is pruned. The file holds one bit per weight for the mask, and the "
             f"weights that stay in {bits} bits. How many bits per weight is that?"),
    Template("14.break_even", _pick((192, 256, 512, 768), (192, 256, 512, 768)), lambda out, width:
             f"A matrix of {out} × {width} is replaced by two factors. What is the largest rank that saves numbers?"),
    Template("14.memory", _llama, lambda parameters, bits, layers, width, tokens:
             f"A model has {parameters / 1e9:g} billion weights of {bits} bits, {layers} layers and the width {width}. "
             f"How many GB are its weights and its float16 cache of keys and values for {tokens:,} tokens?"),
    Template("14.households", _pick(range(200, 1500, 50), range(2500, 12_000, 500)), lambda mwh, kwh_per_home:
             f"A training took {mwh:,} MWh; a home uses {kwh_per_home:,} kWh per year. To how many homes' use of a "
             "year is that equal?"),
    Template("15.ratio", _model, lambda weights, scales, others, bits:
             f"A model has {weights:,} weights, which become {bits}-bit codes with {scales:,} scales in float16, and "
             f"{others:,} other parameters in float16. What is the compression ratio of its file against float16?"),
    Template("15.bits_per_character", _pick((0.5, 0.8, 1.2, 2.0), (10_000, 30_000), (60_000, 90_000)),
             lambda nats, tokens, characters:
             f"A model's mean loss on a text of {tokens:,} tokens and {characters:,} characters is {nats} nats per "
             "token. How many bits per character is that?"),
    Template("15.gram_bytes", _pick((256, 512, 768, 1024), (1024, 2048, 4096)), lambda width, inner:
             "GPTQ keeps a Gram matrix, x xᵀ summed over all tokens, for each distinct input of a block's layers. How "
             f"many bytes do all of them (float32) take in an OPT block of width {width} with an MLP of {inner}? "
             "Queries, keys and values read the same input and share one."),
    Template("15.flips", _pick(range(10, 40, 3), range(5, 35, 5), (200, 500, 1000)), lambda lost, won, count:
             f"Of {count} texts a rounded model loses {lost} that were right, and wins {won}. What is the standard "
             "error of the change of its accuracy?"),
    Template("16.shared", _two_texts, lambda a, b:
             f"Two models continue one prompt with one seed: “{a}” and “{b}”. How many characters do they share before "
             "they part?"),
    Template("16.speed", _times, lambda seconds:
             f"A model wrote {len(seconds)} characters in, one by one, {_list(seconds)} seconds. The first time "
             "includes the prompt. How many characters per second does it write after that?"),
    Template("16.inverse_cdf", _line, lambda p, u:
             f"The probabilities {_list(p.tolist())} of the characters 0 to 4 lie end to end on a line from 0 to 1. "
             f"Which character is drawn by u = {u:g}?"),
    Template("16.race", _race, lambda p, waits:
             f"Characters 0 to 3 have the probabilities {_list(p.tolist())} and the waiting times "
             f"{_list(waits.tolist())}. Who wins the race?"),
    Template("16.longer", _pick((4.0, 9.0, 16.0, 25.0, 100.0)), lambda times_less:
             f"A better method makes the divergence that a small model adds {times_less:g} times smaller. How many "
             "times as long do its texts stay with float32's, for the same random numbers?"),
)  # fmt: skip


def numbers_with_questions() -> list[str]:
    """The notebooks that there are questions about, as "00"."""
    return sorted({template.exercise[:2] for template in TEMPLATES})


def quiz(numbers: Sequence[str], seed: int) -> list[Question]:
    """Draw the questions about some notebooks.

    Args:
        numbers: Notebooks, as `["04", "07"]`.
        seed: The cohort: the same seed gives the same sheet on every machine, another one other numbers.

    Raises:
        ValueError: If there are no questions about one of the notebooks.
    """
    known = numbers_with_questions()
    for number in numbers:
        if number not in known:
            raise ValueError(f"no quiz questions about notebook {number!r}; there are some about {', '.join(known)}")
    return [draw(template, seed) for number in numbers for template in TEMPLATES if template.exercise[:2] == number]


def draw(template: Template, seed: int) -> Question:
    """Draw one question: numbers until three mistakes give three answers that differ from the key and each other."""
    exercise = find_exercise(template.exercise)
    rng = Random(f"{template.exercise} {seed}")
    for _ in range(DRAWS):
        arguments = template.draw(rng)
        right = exercise.reference(*arguments)
        key, (likely, absurd) = _words(right), _wrong_answers(exercise, arguments, right)
        wrong = absurd | likely
        if len(wrong) >= len(LETTERS) - 1:
            chosen = rng.sample(sorted(likely), min(len(likely), len(LETTERS) - 1))
            chosen += rng.sample(sorted(absurd), len(LETTERS) - 1 - len(chosen))
            options = [key, *chosen]
            rng.shuffle(options)
            hints = {letter: wrong[option] for letter, option in zip(LETTERS, options, strict=True) if option != key}
            return Question(exercise.id, template.ask(*arguments), tuple(options), LETTERS[options.index(key)], hints)
    raise ValueError(f"{template.exercise}: {DRAWS} draws gave no {len(LETTERS)} different options")


def _wrong_answers(exercise: Exercise, arguments: tuple, right: object) -> tuple[dict[str, str], dict[str, str]]:
    """What the mistakes make of these arguments, each with the hint of the first that makes it.

    Apart from those that could pass for the right one stand those that anybody would rule out at sight: options only
    where there are too few others.
    """
    likely: dict[str, str] = {}
    absurd: dict[str, str] = {}
    for mistake in exercise.mistakes:
        try:
            answer = mistake.answer(*arguments)
            words = _words(answer)
        except (ArithmeticError, ValueError, TypeError):  # a wrong formula need not work for every number
            continue
        if words not in (None, _words(right), *likely, *absurd) and not _close(answer, right):
            (absurd if _absurd(answer, right) else likely)[words] = mistake.hint
    return likely, absurd


def _parts(value: object) -> list[float]:
    return [float(part) for part in (value if isinstance(value, (tuple, list)) else [value])]


def _close(answer: object, right: object) -> bool:
    """Whether rounding could make an answer look right: apart by 2 % at most, and not all of them whole numbers."""
    pairs = list(zip(_parts(answer), _parts(right), strict=False))
    whole = all(part == round(part) for pair in pairs for part in pair)
    return not whole and all(abs(a - b) <= 0.02 * abs(b) for a, b in pairs)


def _absurd(answer: object, right: object) -> bool:
    """Whether size, sign or a fraction gives an answer away."""
    return any((b > 0 and not b / 50 <= a <= 50 * b) or (b == round(b) and a != round(a))
               for a, b in zip(_parts(answer), _parts(right), strict=False))


def _words(value: object) -> str | None:
    """A number, or several, as it stands among the options; None for what could not stand there."""
    if isinstance(value, (tuple, list)):
        parts = [_words(part) for part in value]
        return None if None in parts else " and ".join(parts)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, Real) or not math.isfinite(value):
        return None
    if value == round(value) or abs(value) >= 10_000:
        return f"{round(value):,}"
    return f"{value:.3g}"


def grade(question_id: str, seed: int, answer: object) -> str:
    """Check a letter in a graded notebook, and say so: the question is drawn anew, so that the notebook needs no key.

    Raises:
        CheckFailed: If the letter is wrong or missing; the message has the hint.
    """
    (template,) = (template for template in TEMPLATES if template.exercise == question_id)
    passed, line = draw(template, seed).judge(answer)
    if not passed:
        raise CheckFailed(line)
    return line


def question_markdown(question: Question, place: int) -> str:
    """A question and its options."""
    options = "\n".join(f"- **{letter}** {option}" for letter, option in zip(LETTERS, question.options, strict=True))
    return f"**Question {place}.** {question.text}\n\n{options}\n"


def render(questions: Sequence[Question], seed: int, key: bool = False) -> str:
    """The sheet in Markdown; with the key, what each wrong option means stands behind it."""
    numbers = sorted({int(question.id[:2]) for question in questions})
    titles = ", ".join(BY_NUMBER[number].label for number in numbers)
    parts = [f"# Quiz: {titles}\n", f"Cohort {seed}. One answer is right. Numbers are rounded to three digits.\n"]
    for place, question in enumerate(questions, start=1):
        parts.append(question_markdown(question, place))
        if key:
            parts.append(key_markdown(question))
    return "\n".join(parts)


def key_markdown(question: Question) -> str:
    """The right letter, and what each wrong one means."""
    wrong = "\n".join(f"> - {letter}: {hint}" for letter, hint in sorted(question.hints.items()))
    return f"> **Key: {question.key}**\n>\n{wrong}\n"
