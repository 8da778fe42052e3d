"""Exercises of notebook 09, how near to the limit."""

import heapq
import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nanoq.teach.checks import Exercise, Mistake


def _integers(*sizes: int) -> Callable[[torch.Generator], list[tuple[Tensor]]]:
    """Rounded Gaussian numbers with a standard deviation of 1.5, as many as each size says."""
    return lambda generator: [((1.5 * torch.randn(n, generator=generator)).round().long(),) for n in sizes]


# ---- 09.entropy ----


def _shares(codes: Tensor) -> Tensor:
    counts = torch.unique(codes, return_counts=True)[1]
    return counts / counts.sum()


def _entropy(codes: Tensor) -> float:
    share = _shares(codes)
    return float(-(share * share.log2()).sum())


# ---- 09.lloyd_round ----


def _lloyd(samples: Tensor, levels: Tensor, centre: Callable[[Tensor], Tensor] = torch.mean) -> Tensor:
    cells = (samples[:, None] - levels).abs().argmin(1)
    return torch.stack([centre(samples[cells == k]) for k in range(len(levels))])


def _half_way(samples: Tensor, levels: Tensor) -> Tensor:
    ends = torch.cat([samples.min()[None], (levels[1:] + levels[:-1]) / 2, samples.max()[None]])
    return (ends[1:] + ends[:-1]) / 2


def _cells(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    return [
        (torch.tensor([0.0, 1.0, 2.0, 9.0]), torch.tensor([0.0, 4.0])),
        (torch.randn(400, generator=generator), torch.tensor([-1.5, -0.3, 0.6, 1.2])),
        (torch.randn(500, generator=generator).exp(), torch.tensor([0.2, 1.0, 3.0])),
    ]


# ---- 09.code_lengths ----


def _huffman(counts: Mapping[int, int], pick: Callable = heapq.heappop,
             deeper: Callable = lambda left, right: left + right, heapify: Callable = heapq.heapify) -> dict[int, int]:
    """The lengths; with another rule for which two are joined, which of them get deeper, or how the heap begins."""
    lengths, ties = dict.fromkeys(counts, 0), itertools.count()
    heap = [(count, next(ties), [code]) for code, count in counts.items()]
    heapify(heap)
    while len(heap) > 1:
        (a, _, left), (b, _, right) = pick(heap), pick(heap)
        for code in deeper(left, right):
            lengths[code] += 1
        heapq.heappush(heap, (a + b, next(ties), left + right))
    return lengths


def _most_frequent(heap: list) -> tuple:
    top = max(heap)
    heap.remove(top)
    heapq.heapify(heap)
    return top


def _unary(counts: Mapping[int, int]) -> dict[int, int]:
    ranked = sorted(counts, key=lambda code: -counts[code])
    return {code: min(place, len(ranked) - 1) for place, code in enumerate(ranked, start=1)}


def _rounded_up(counts: Mapping[int, int]) -> dict[int, int]:
    total = sum(counts.values())
    return {code: math.ceil(-math.log2(count / total)) for code, count in counts.items()}


def _rounded(counts: Mapping[int, int]) -> dict[int, int]:
    total = sum(counts.values())
    return {code: round(-math.log2(count / total)) for code, count in counts.items()}


def _cost(answer: Callable, counts: Mapping[int, int]) -> object:
    """What the lengths take: the sum of 2^-length, and bits in all; what is no dictionary of lengths as it is."""
    lengths = answer(counts)
    if not isinstance(lengths, Mapping) or set(lengths) != set(counts) or str in map(type, lengths.values()):
        return lengths
    return float(sum(2.0 ** -int(lengths[code]) for code in counts)), float(
        sum(int(lengths[code]) * count for code, count in counts.items()))


def _compare_costs(expected: tuple, got: object) -> str | None:
    if isinstance(got, Mapping):
        if str in map(type, got.values()):
            return "those are words: the lengths are asked for, len(word)"
        return "the result should have a length for each code in counts, and for no other"
    (kraft, bits), (room, best) = (float(part) for part in got), (float(part) for part in expected)
    if abs(kraft - room) > 1e-9:
        what = "no prefix code has these lengths: there is not enough room" if kraft > 1 else "there is room to spare"
        return f"2**-length, summed over all codes, is {kraft:g} and should be 1: {what}"
    return None if abs(bits - best) < 0.5 else f"these lengths take {bits:g} bits in all, Huffman's {best:g}"


# ---- 09.decode_bits ----


def _decode(bits: str, words: Mapping[int, str]) -> list[int]:
    codes, word, found = {word: code for code, word in words.items()}, "", []
    for bit in bits:
        word += bit
        if word in codes:
            found.append(codes[word])
            word = ""
    return found


def _without_reset(bits: str, words: Mapping[int, str]) -> list[int]:
    codes, word, found = {word: code for code, word in words.items()}, "", []
    for bit in bits:
        word += bit
        if word in codes:
            found.append(codes[word])
    return found


def _backwards(bits: str, words: Mapping[int, str]) -> list[int]:
    return _decode(bits[::-1], words)[::-1]


def _same_length(bits: str, words: Mapping[int, str]) -> list[int]:
    codes, width = {word: code for code, word in words.items()}, len(next(iter(words.values())))
    return [codes.get(bits[i : i + width]) for i in range(0, len(bits), width)]


WORDS = {0: "0", 1: "10", -1: "110", 2: "1110", -2: "1111"}
STREAMS = [("01011001110", WORDS), ("1111", WORDS), ("100001", {5: "1", 6: "00", 7: "01"})]


# ---- 09.find_step ----


def _search(rate_of: Callable[[float], float], rate: float) -> float:
    fine, coarse = 1e-4, 10.0
    for _ in range(15):
        step = math.sqrt(fine * coarse)
        fine, coarse = (step, coarse) if rate_of(step) > rate else (fine, step)
    return step


def _wrong_half(rate_of: Callable[[float], float], rate: float) -> float:
    fine, coarse = 1e-4, 10.0
    for _ in range(15):
        step = math.sqrt(fine * coarse)
        fine, coarse = (fine, step) if rate_of(step) > rate else (step, coarse)
    return step


def _found_rate(answer: Callable, weight: Tensor, rate: float) -> object:
    """The rate of the step that is found for a weight that is rounded to nearest; what is no step as it is."""
    step = answer(lambda step: _entropy((weight / step).round()), rate)
    if not isinstance(step, (int, float, Tensor)) or isinstance(step, bool) or not float(step) > 0:
        return step
    return _entropy((weight / float(step)).round())


def _compare_rates(expected: float, got: object) -> str | None:
    if isinstance(got, (int, float, Tensor)) and not isinstance(got, bool) and abs(float(got) - expected) <= 0.01:
        return None
    slip = ": far too fine a step. Was the wrong half kept?" if float(got) > expected + 2 else ""
    return f"the rate at this step should be within 0.01 bits of {expected:.2f}, and is {float(got):.2f}{slip}"


def _rates(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    return [(0.07 * torch.randn(4000, generator=generator), 3.0), (0.2 * torch.randn(4000, generator=generator), 1.5)]


# ---- 09.bits_needed, 09.watersic, 09.output_gain, 09.turned ----


def _draw(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _factor(n: int, generator: torch.Generator) -> Tensor:
    """GPTQ's factor C (n, n), upper triangular; no worse conditioned than that of a damped Hessian."""
    beside = torch.triu(_draw(n, n, generator=generator), 1) * 0.5 / math.sqrt(n)
    return beside + torch.diag(torch.exp(0.7 * _draw(n, generator=generator)))


def _bits_needed(weight: Tensor, factor: Tensor, error: float) -> float:
    variance = weight.square().mean()
    room = 2 * factor.diagonal().log2().mean()
    return float((math.log2(len(factor)) + variance.log2() + room - math.log2(error)) / 2)


def _layers(generator: torch.Generator) -> list[tuple[Tensor, Tensor, float]]:
    cases = [(0.1 * _draw(out, n, generator=generator), _factor(n, generator), error)
             for out, n, error in ((3, 4, 0.001), (5, 8, 0.0004))]
    small = 0.01 * _factor(300, generator)  # whose determinant is 0 for a computer
    return [*cases, (0.1 * _draw(6, 300, generator=generator), small, 2e-7)]


def _watersic(factor: Tensor, step: float) -> Tensor:
    diagonal = factor.diagonal()
    return step * diagonal.log().mean().exp() / diagonal


def _steps(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    unequal = torch.tensor([[1.0, 3.0], [0.0, 4.0]], dtype=torch.float64)
    return [(unequal, 1.0), *((_factor(n, generator), step) for n, step in ((5, 0.03), (6, 0.5)))]


def _gain(weight: Tensor, rounded: Tensor, gram: Tensor) -> float:
    return float(((rounded @ gram) * weight).sum() / ((weight @ gram) * weight).sum())


def _shrunk(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    cases = []
    for out, n, share in ((2, 3, 0.9), (4, 6, 0.8)):
        weight, inputs = _draw(out, n, generator=generator), _draw(40, n, generator=generator)
        cases.append((weight, share * weight + 0.1 * _draw(out, n, generator=generator), inputs.T @ inputs / 40))
    return cases


def _turns(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    return [(_draw(out, n, generator=generator), torch.linalg.qr(_draw(n, n, generator=generator))[0])
            for out, n in ((2, 3), (4, 4), (3, 6))]


EXERCISES = [
    Exercise(
        id="09.entropy",
        minutes=4,
        difficulty=1,
        reference=_entropy,
        cases=lambda generator: [(torch.tensor([0, 0, 0, 0, 1, 1, 2, 3]),), (torch.tensor([[5, 5], [-7, -7]]),),
                                 *_integers(300, 1000)(generator)],
        mistakes=[
            Mistake(
                lambda codes: float(-(_shares(codes) * _shares(codes).log()).sum()),
                "that is in nats: take the logarithm to base 2, `.log2()`.",
            ),
            Mistake(
                lambda codes: float((_shares(codes) * _shares(codes).log2()).sum()),
                "wrong sign: a probability is below 1, its logarithm below 0, and bits are not.",
            ),
            Mistake(
                lambda codes: float(-_shares(codes).log2().mean()),
                "that counts every code equally often: a rare code has to count as often as it occurs, p times.",
            ),
            Mistake(
                lambda codes: math.log2(len(codes.unique())),
                "that is what codes of equal length would need: a common code is worth fewer bits than a rare one.",
            ),
            Mistake(
                lambda codes: float(-(_shares(codes) * _shares(codes).log2()).sum()) * codes.numel(),
                "that is for all codes together: bits *per* code are asked for.",
            ),
            Mistake(
                lambda codes: 2 ** float(-(_shares(codes) * _shares(codes).log2()).sum()),
                "that is 2 to the power of it, the number of equally likely codes that would be as hard to tell apart.",
            ),
            Mistake(
                lambda codes: float(-_shares(codes).log2().sum()),
                "each code's bits have to be weighted by its share p before they are summed.",
            ),
            Mistake(
                lambda codes: _entropy(codes) if len(torch.bincount(codes.flatten())) else 0.0,
                "codes may be negative, and bincount counts from 0 on, and flat: take torch.unique.",
            ),
        ],
        why=(
            "a rare code says more than a common one, and -log2 p is how much; the entropy is what it says on "
            "average."
        ),
        hints=(
            "how often is each code there, as a share p? A code of share p takes -log2 p bits, and occurs p times.",
            "`torch.unique(codes, return_counts=True)[1]` counts; divide by their sum.",
        ),
    ),
    Exercise(
        id="09.lloyd_round",
        minutes=6,
        difficulty=2,
        reference=_lloyd,
        cases=_cells,
        paper=[(torch.tensor([0.0, 0.0, 3.0, 8.0]), torch.tensor([2.0, 9.0]))],
        mistakes=[
            Mistake(
                lambda samples, levels: _lloyd(samples, levels, torch.median),
                "the median has the least absolute error; the squared error is least at the mean.",
            ),
            Mistake(
                _half_way,
                "those are the middles of the cells: the mean of the samples in a cell lies where most of them are.",
            ),
            Mistake(
                lambda samples, levels: levels[(samples[:, None] - levels).abs().argmin(1)],
                "those are the rounded samples, step 1 alone: step 2 is the mean of each cell.",
            ),
            Mistake(
                lambda samples, levels: _lloyd(samples, levels, torch.sum) / len(samples),
                "each sum is divided by the number of all samples: divide by how many are in the cell.",
            ),
            Mistake(
                lambda samples, levels: _lloyd(samples, levels, torch.sum),
                "those are the sums of the cells: divide each by how many samples it has.",
            ),
            Mistake(
                lambda samples, levels: samples.mean().expand(len(levels)).clone(),
                "that is the mean of all samples, for every level: take those alone that are nearest to it.",
            ),
            Mistake(
                lambda samples, levels: (levels + _lloyd(samples, levels)) / 2,
                "half of the way: a level goes all the way to the mean of its cell.",
            ),
        ],
        why="neither step can raise the squared error, so the rounds end; for a bell they end at the best levels.",
        hints=(
            "which level is nearest to each sample? Then, level by level, the mean of the samples that chose it.",
            "`cells = (samples[:, None] - levels).abs().argmin(1)`, and `samples[cells == k]` are those of level k.",
        ),
    ),
    Exercise(
        id="09.code_lengths",
        minutes=10,
        difficulty=3,
        points=2,
        reference=_huffman,
        call=_cost,
        compare=_compare_costs,
        cases=[({0: 4, 1: 2, 2: 1, 3: 1},), ({0: 10, 1: 9, 2: 8, 3: 8, 4: 1},), ({-1: 50, 0: 51, 1: 49},),
               ({0: 600, 1: 240, -1: 251, 2: 60, -2: 71, 3: 9, -3: 11, 5: 1, -4: 1, 7: 1},)],
        paper=[({0: 4, 1: 2, 2: 1, 3: 1},), ({0: 1, 1: 1, 2: 1, 3: 1},), ({0: 3, 1: 3, 2: 2},)],
        mistakes=[
            Mistake(
                lambda counts: _huffman(counts, pick=_most_frequent),
                "the two most frequent were joined, so they get the longest codewords: join the two rarest.",
            ),
            Mistake(
                lambda counts: dict.fromkeys(counts, math.ceil(math.log2(len(counts)))),
                "that is one length for all, as in packed codes: common codes should have shorter codewords.",
            ),
            Mistake(
                _unary,
                "one more bit for each rank (1, 2, 3, …): a chain, not a tree. If you join pairs, push the *sum* of "
                "both counts: a pair occurs as often as its halves together.",
            ),
            Mistake(
                _rounded_up,
                "-log2 p, rounded up, is a prefix code (Shannon's), but it wastes up to a bit per code.",
            ),
            Mistake(
                _rounded,
                "-log2 p, rounded to nearest, is sometimes more than there is room for: build the tree.",
            ),
            Mistake(
                lambda counts: _huffman(counts, deeper=lambda left, right: left),
                "both sides of a joined pair lie one bit deeper, not one of them.",
            ),
            Mistake(
                lambda counts: _huffman(counts, heapify=lambda heap: None),
                "a list is no heap yet: put each entry in by heapq.heappush, or call heapq.heapify(heap) once.",
            ),
            Mistake(
                lambda counts: {code: length + 1 for code, length in _huffman(counts).items()},
                "one bit too many everywhere: codes begin with length 0, and gain a bit only when they are joined.",
            ),
        ],
        why=(
            "the two rarest codes share all of their word but the last bit; what is left is the same problem with "
            "one code fewer."
        ),
        hints=(
            "keep a heap of (count, tie-breaker, list of codes). Join the two smallest until one is left; whoever is "
            "joined gets one bit longer.",
            "`heapq.heappop(heap)` gives the smallest entry. After two pops: add 1 to the length of every code in both "
            "lists, and push (sum of the counts, a new number, both lists together).",
        ),
    ),
    Exercise(
        id="09.decode_bits",
        minutes=6,
        difficulty=2,
        reference=_decode,
        cases=STREAMS,
        mistakes=[
            Mistake(
                _without_reset,
                "the word has to be emptied once it is recognised: a new codeword begins there.",
            ),
            Mistake(
                _backwards,
                "read from the first bit to the last: backwards one codeword may begin another one.",
            ),
            Mistake(
                _same_length,
                "codewords differ in length: take one bit at a time, and look whether a codeword is complete.",
            ),
            Mistake(
                lambda bits, words: [words[code] for code in _decode(bits, words)],
                "those are the codewords; the codes that they stand for are asked for.",
            ),
            Mistake(
                lambda bits, words: _decode(bits, words)[:-1],
                "the last code is missing: look whether a codeword is complete *after* you have added a bit.",
            ),
            Mistake(
                lambda bits, words: [int(bit) for bit in bits],
                "those are the bits, one by one: put them together until they are a codeword.",
            ),
            Mistake(
                lambda bits, words: len(_decode(bits, words)),
                "that is how many codes there are: return the codes themselves, in a list.",
            ),
        ],
        why="no codeword begins another one, so the first that fits is the only one that can.",
        hints=(
            "put one bit after another to a word. As soon as it is a codeword, note its code and begin anew.",
            "turn the dictionary round first: `{word: code for code, word in words.items()}`.",
        ),
    ),
    Exercise(
        id="09.find_step",
        minutes=6,
        difficulty=2,
        reference=_search,
        call=_found_rate,
        compare=_compare_rates,
        cases=_rates,
        mistakes=[
            Mistake(
                _wrong_half,
                "the wrong half is kept: a rate above the wished one means that the step is too fine.",
            ),
            Mistake(
                lambda rate_of, rate: rate_of(_search(rate_of, rate)),
                "that is the rate; the step that has it is asked for.",
            ),
            Mistake(
                lambda rate_of, rate: math.sqrt(1e-4 * 10.0),
                "that is where the search begins: halve the interval again and again.",
            ),
            Mistake(
                lambda rate_of, rate: 2.0**-rate,
                "2**-rate knows nothing of how large the weights are: ask rate_of.",
            ),
        ],
        why=(
            "the rate falls by one bit each time that the step doubles, so on a logarithmic scale it is nearly a "
            "line."
        ),
        hints=(
            "keep two steps, one too fine and one too coarse. Try the one between, and replace one of the two by it.",
            "between them on the logarithmic scale is `math.sqrt(fine * coarse)`; 15 halvings are enough.",
        ),
    ),
    Exercise(
        id="09.bits_needed",
        minutes=7,
        difficulty=3,
        points=2,
        reference=_bits_needed,
        cases=_layers,
        paper=[(torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, 3.0], [0.0, 4.0]]), 2.0),
               (torch.tensor([[2.0, -2.0, 2.0]]), 1e-18 * torch.eye(3), 3e-36)],  # 1e-54 is 0 in float32
        mistakes=[
            Mistake(
                lambda weight, factor, error: 2 * _bits_needed(weight, factor, error),
                "the half is missing: one bit more divides the error by four, so R is *half* of the logarithm.",
            ),
            Mistake(
                lambda weight, factor, error: _bits_needed(weight, factor, error) - factor.diagonal().log2().mean(),
                "the determinant is left out: how loud the directions of the inputs are counts as well.",
            ),
            Mistake(
                lambda weight, factor, error: _bits_needed(weight, factor, error) - factor.diagonal().log2().mean() / 2,
                "the determinant has the squares of the diagonal, C_kk**2: a 2 in front of their logarithms.",
            ),
            Mistake(
                lambda weight, factor, error: float((len(factor) * weight.square().mean()
                                                     * factor.diagonal().square().mean() / error).log2() / 2),
                "the n-th root of a product is the *geometric* mean; you took the arithmetic one, which is never less.",
            ),
            Mistake(
                lambda weight, factor, error: float((len(factor) * weight.square().mean()
                                                     * factor.diagonal().prod() ** (2 / len(factor)) / error
                                                     ).log2() / 2),
                "right for a few columns; a product of hundreds of small numbers is 0 for a computer. Take the mean of "
                "the logarithms.",
            ),
            Mistake(
                lambda weight, factor, error: _bits_needed(weight, factor, error) - math.log2(len(factor)) / 2,
                "n is forgotten: the error of a row is a sum over its n columns.",
            ),
            Mistake(
                lambda weight, factor, error: _bits_needed(weight, factor, error) * math.log(2),
                "that is in nats: take the logarithm to base 2.",
            ),
            Mistake(
                lambda weight, factor, error: -_bits_needed(weight, factor, error),
                "upside down: a smaller error needs more bits.",
            ),
            Mistake(
                lambda weight, factor, error: _bits_needed(weight, factor, error) - float(
                    weight.square().mean().log2() / 4),
                "the variance is the mean *square* of the weights, not its root.",
            ),
        ],
        why=(
            "the determinant is the volume of the unit cell as the outputs see it, and a bit halves the cell in "
            "each direction of the weights."
        ),
        hints=(
            "solve error = n σ² (∏ C_kk²)^(1/n) 2^(-2R) for R. In logarithms the root of the product is a mean.",
            "`2 * factor.diagonal().log2().mean()` is the logarithm of the root of the product; add log2 of n and of "
            "σ², take off log2 of the error, and halve.",
        ),
    ),
    Exercise(
        id="09.watersic",
        minutes=4,
        difficulty=2,
        reference=_watersic,
        cases=_steps,
        paper=[(torch.tensor([[1.0, 3.0], [0.0, 4.0]]), 1.0)],
        mistakes=[
            Mistake(
                lambda factor, step: step * factor.diagonal() / factor.diagonal().log().mean().exp(),
                "upside down: a column with a large C_kk is heard loudly, so its step has to be *small*.",
            ),
            Mistake(
                lambda factor, step: step / factor.diagonal(),
                "the right shape, but the geometric mean of the steps should be `step`.",
            ),
            Mistake(
                lambda factor, step: step * factor.diagonal().mean() / factor.diagonal(),
                "that uses the arithmetic mean of C_kk; the logarithm of the steps should average to that of `step`.",
            ),
            Mistake(
                lambda factor, step: step / factor.diagonal() / (1 / factor.diagonal()).mean(),
                "the arithmetic mean of these steps is `step`; the geometric one should be.",
            ),
            Mistake(
                lambda factor, step: step * factor.diagonal().log().mean().mul(2).exp() / factor.diagonal().square(),
                "a column's error is (C_kk * step_k)**2 / 12: it is the same everywhere for 1 / C_kk, not its square.",
            ),
            Mistake(
                lambda factor, step: torch.full_like(factor.diagonal(), step),
                "those are equal steps: let them follow the factor's diagonal.",
            ),
            Mistake(
                lambda factor, step: (step * factor.diagonal().log().mean().exp() / factor.diagonal()).sqrt(),
                "no root is needed: C_kk * step_k should be the same in every column.",
            ),
        ],
        why="as with parallel channels, the sum of errors is least at a given sum of bits if all are equal.",
        hints=(
            "C_kk * step_k should be the same number c in all columns. Which c makes the geometric mean of the steps "
            "`step`?",
            "the geometric mean of the diagonal is `factor.diagonal().log().mean().exp()`.",
        ),
    ),
    Exercise(
        id="09.trap",
        minutes=3,
        difficulty=2,
        reference="c",
        mistakes=[
            Mistake("a", "then plain GPTQ would overfit as much; it reads the same calibration text."),
            Mistake("b", "bytes are equal: the range of a grid costs nothing."),
            Mistake("d", "the bound is a number about a layer, and says nothing of how errors add up over a model; but "
                         "the layers' errors fell as well, and those are measured."),
        ],
        why=(
            "clipping cuts the largest weights, always towards 0, and six blocks in a row do it in the same "
            "direction."
        ),
        hints=(
            "what does cutting the largest weights off do to the size of the outputs?",
            "look at the column *gain*: six blocks, one after the other, each a little weaker.",
        ),
    ),
    Exercise(
        id="09.output_gain",
        minutes=4,
        difficulty=2,
        reference=_gain,
        cases=_shrunk,
        paper=[(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
                torch.tensor([[2.0, 1.0], [1.0, 2.0]]))],
        mistakes=[
            Mistake(
                lambda weight, rounded, gram: float(((rounded @ gram) * rounded).sum()
                                                    / ((weight @ gram) * weight).sum()),
                "that compares the energies: noise makes the rounded outputs larger without following the original.",
            ),
            Mistake(
                lambda weight, rounded, gram: float(((weight @ gram) * weight).sum()
                                                    / ((rounded @ gram) * weight).sum()),
                "upside down: outputs that have shrunk have a gain below 1.",
            ),
            Mistake(
                lambda weight, rounded, gram: float((rounded * weight).sum() / weight.square().sum()),
                "the Gram matrix is missing: the gain is that of the outputs, not of the weights.",
            ),
            Mistake(
                lambda weight, rounded, gram: float(((rounded @ gram) * weight).sum()
                                                    / ((rounded @ gram) * rounded).sum()),
                "that is the factor of least squares; for the gain the original's energy stands below the line.",
            ),
            Mistake(
                lambda weight, rounded, gram: float((((rounded @ gram) * weight).sum(1)
                                                     / ((weight @ gram) * weight).sum(1)).mean()),
                "that is the mean of the rows' gains; here both sums go over the whole matrix before they are divided.",
            ),
            Mistake(
                lambda weight, rounded, gram: float((((rounded - weight) @ gram) * (rounded - weight)).sum()
                                                    / ((weight @ gram) * weight).sum()),
                "that is the relative error.",
            ),
        ],
        why=(
            "noise that has nothing to do with the outputs averages out of the product above the line; shrinking "
            "does not."
        ),
        hints=(
            "the mean of (Qx)·(Wx) over the inputs, over the mean of (Wx)·(Wx).",
            "`((rounded @ gram) * weight).sum()` is the first of the two.",
        ),
    ),
    Exercise(
        id="09.turned",
        minutes=4,
        difficulty=2,
        reference=lambda weight, turn: weight @ turn.T,
        cases=_turns,
        paper=[(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))],
        mistakes=[
            Mistake(
                lambda weight, turn: weight @ turn,
                "that turns the wrong way: put R x in the place of x and multiply out.",
            ),
            Mistake(
                lambda weight, turn: turn @ weight.T,
                "right numbers, wrong way round: the result has the shape of the weight.",
            ),
            Mistake(
                lambda weight, turn: weight,
                "the input has been turned, so the weight has to turn as well.",
            ),
        ],
        why=(
            "the weight takes back what the input was given, W x = W R^T R x, and nothing else in the model "
            "notices."
        ),
        hints=(
            "the new weight V has to give V (R x) = W x for every x. And the inverse of an orthonormal R is its "
            "transpose.",
            "V R = W; multiply by the transpose of R from the right.",
        ),
    ),
]
