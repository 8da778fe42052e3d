"""The terms of the course: a definition of one sentence each, and the notebook that explains it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A term.

    Attributes:
        definition: one sentence, with a capital and a full stop.
        home: number of the notebook that explains it, as "04".
    """

    definition: str
    home: str


GLOSSARY: dict[str, Term] = {
    "code": Term("The small whole number that is stored in place of a weight.", "00"),
    "grid": Term("The set of values that a quantised weight may take.", "00"),
    "scale": Term("The difference between two neighbouring values of an evenly spaced grid.", "00"),
    "recipe": Term("What says which layers are quantised, on which grid and by which rounding method.", "00"),
    "leaderboard": Term("The table that compares every method on the same held-out text.", "00"),
    "held-out": Term("Of text: kept away from training and calibration, so that a model can be judged on it.", "00"),
    "two's complement": Term("The way to write signed integers in which the first bit counts negative.", "01"),
    "subnormal": Term("A float so small that its exponent field is 0 and its fraction has no hidden 1.", "01"),
    "ulp": Term("The distance from a float to the next larger one, its unit in the last place.", "01"),
    "binade": Term("The floats of one sign with the same exponent, from a power of two up to the next.", "01"),
    "block format": Term("A format in which a few neighbouring numbers share one scale.", "01"),
    "clamp": Term("To move what lies beyond the ends of a range to the nearer end.", "02"),
    "accumulator": Term("The variable in which a sum grows, often of a wider type than its terms.", "02"),
    "stochastic rounding": Term("To round up or down at random, so that the mean of the result is the number.", "02"),
    "master weights": Term("The float32 copy of the weights that mixed-precision training updates.", "06"),
    "loss scaling": Term("To multiply the loss before the backward pass, so that gradients do not become 0.", "06"),
    "attention": Term("The part of a transformer in which places of a text exchange information.", "03"),
    "perplexity": Term("The exponential of the mean loss: among how many tokens a model hesitates.", "03"),
    "nats": Term("The unit of a loss that is computed with the natural logarithm.", "03"),
    "bits per character": Term("The loss in logarithms to base 2, shared out over the characters of the text.", "03"),
    "embedding": Term("The vector that stands for a token, one row of a table that is learned.", "03"),
    "zero point": Term("The code that stands for the value 0.", "04"),
    "granularity": Term("How many weights share a scale: those of a matrix, of a row, or of a group.", "04"),
    "group": Term("Neighbouring weights of a row that share a scale and a zero point.", "04"),
    "paired": Term("Of a comparison: made from the differences of two models on the same windows.", "04"),
    "outlier": Term("A value far larger than nearly all others, which stretches the grid for all of them.", "04"),
    "Lloyd": Term("The quantiser whose values are the means of their cells and whose borders lie half-way.", "05"),
    "TQuant": Term("The ternary operator with the least largest error.", "05"),
    "MQuant": Term("The ternary operator that puts a third of the weights into each of its three cells.", "05"),
    "Gram matrix": Term("The mean product of every two inputs of a layer, a square matrix.", "06"),
    "calibration set": Term("The data that a rounding method looks at, never those that a model is judged on.", "06"),
    "AdaRound": Term("A method that learns for each weight whether it is rounded up or down.", "06"),
    "BRECQ": Term("AdaRound that fits the outputs of a whole block instead of those of a layer.", "06"),
    "QAT": Term("Quantisation-aware training: the weights are trained with the rounding in place.", "06"),
    "straight-through": Term("Of a gradient: passed through the rounding as if that were not there.", "06"),
    "latent": Term("Of a weight: the float behind a rounded weight, the one that QAT trains.", "06"),
    "Hessian": Term("The matrix of second derivatives; of a layer's output error it is the Gram matrix, but "
                    "for a factor.", "07"),
    "damping": Term("A small number on the diagonal of the Hessian, so that it can be inverted safely.", "07"),
    "act-order": Term("To round the columns with the largest inputs first.", "07"),
    "roofline": Term("A plot of the speed that bandwidth and arithmetic allow, against operations for a byte.", "08"),
    "SmoothQuant": Term("To move outliers of the inputs into the weights by scales that cancel.", "08"),
    "KV cache": Term("The keys and values of all tokens read so far, kept so that they are not computed again.", "08"),
    "entropy coding": Term("To store each code in about as many bits as it is rare, -log2 p of them.", "09"),
    "prefix code": Term("Codewords of which none begins another one, so that a stream needs no separators.", "09"),
    "Huffman": Term("The prefix code with the fewest bits, made by joining the two rarest codes over and over.", "09"),
    "WaterSIC": Term("GPTQ's walk with the step c / C_kk in column k, so that all columns add the same error.", "09"),
    "canonical correlation": Term("The largest correlation between a combination of one layer's outputs and one of "
                                  "another's.", "10"),
    "SVD": Term("The singular value decomposition, a matrix as rotation, stretching and rotation.", "10"),
    "sensitivity": Term("How much a model suffers when a part of it is disturbed.", "10"),
    "KL divergence": Term("What it costs to predict with one distribution while another one is true.", "10"),
    "sparsity": Term("The share of the weights that are 0.", "11"),
    "rank correlation": Term("The correlation of two orders, from -1 to 1.", "11"),
    "Wanda": Term("A pruning score: the size of a weight times the norm of its input.", "14"),
    "SparseGPT": Term("GPTQ's walk through the columns with 0 in place of a grid value.", "14"),
    "low rank": Term("Of a matrix: a product of two thin ones.", "14"),
    "distillation": Term("To train a small model on the predictions of a large one.", "14"),
}  # fmt: skip
