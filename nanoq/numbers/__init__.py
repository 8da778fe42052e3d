"""Numbers: what they are made of, in integer, floating-point and block formats, and what a smaller type costs."""

from nanoq.numbers.blocks import BLOCKS, CODEBOOKS, BlockFormat, PackedScales, normal_float
from nanoq.numbers.floats import FLOATS, FloatFormat, float_format
from nanoq.numbers.integers import Addition, IntFormat
from nanoq.numbers.measure import DowncastReport, dot, downcast_report, matmul
from nanoq.numbers.training import PRECISIONS, LossScale, Precision, Step, emulate, train_mixed

__all__ = [
    "BLOCKS", "CODEBOOKS", "FLOATS", "PRECISIONS", "Addition", "BlockFormat", "DowncastReport", "FloatFormat",
    "IntFormat", "LossScale", "PackedScales", "Precision", "Step", "dot", "downcast_report", "emulate", "float_format",
    "matmul", "normal_float", "train_mixed",
]
