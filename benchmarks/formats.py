"""The shipped GPT in every number format: perplexity on the full test split, and the loss that the format adds.

    NANOQ_DATA=../shared/data python benchmarks/formats.py tinystories
    python benchmarks/formats.py tales

writes data/results/NAME/formats.csv. "cast" rounds every parameter to the nearest value; "cast, scaled" gives each
tensor a scale that takes its largest number to the format's largest; "nearest" and "gptq" put the linear layers on a
block format, and everything else in float16, in a file that is loaded again.
"""

import argparse
from copy import deepcopy

import torch
from torch import Tensor

from nanoq.files import data_dir, write_csv
from nanoq.numbers import BLOCKS, FLOATS, FloatFormat
from nanoq.quant import Recipe
from nanoq.teach.leaderboard import Leaderboard, Row

RESULTS = data_dir() / "results"
COLUMNS = ("method", "bits", "average_bits", "perplexity", "delta_nats", "ci_low", "ci_high")
CASTS = ("bf16", "fp16", "e4m3fn", "e5m2", "e2m3", "e3m2", "e2m1")


def cast(parameter: Tensor, fmt: FloatFormat, scaled: bool) -> Tensor:
    """A tensor's nearest values in a format, with or without a scale of its own."""
    scale = parameter.abs().max() / fmt.max if scaled else 1.0
    return fmt.round(parameter / scale, saturate=True) * scale


@torch.no_grad()
def main() -> None:
    """Measure every format, print it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("tinystories", "tales"))
    parser.add_argument("--windows", type=int, help="held-out windows instead of all of them")
    arguments = parser.parse_args()
    board = Leaderboard(f"{arguments.corpus}-2.7m", windows=arguments.windows)
    formats = ["fp32"]
    for name in CASTS:
        for scaled in (False, True) if FLOATS[name].bits <= 8 else (False,):
            copy = deepcopy(board.reference.model)
            for parameter in copy.parameters():
                parameter.copy_(cast(parameter, FLOATS[name], scaled))
            size = copy.parameter_count() * FLOATS[name].bits // 8
            row = board.add_model("cast, scaled" if scaled else "cast", FLOATS[name].bits, copy, size)
            report(formats, name, row)
    for fmt in BLOCKS.values():
        for method in ("nearest", "gptq"):
            row = board.add(method, fmt.bits, Recipe(method, bits=fmt.bits, grid=fmt.name))
            report(formats, fmt.name, row)
    write_csv(RESULTS / arguments.corpus / "formats.csv", [
        {"format": name} | {column: getattr(row, column) for column in COLUMNS} | {"windows": len(board.losses[0])}
        for name, row in zip(formats, board.rows, strict=True)
    ])


def report(formats: list[str], name: str, row: Row) -> None:
    """Note a row's format, and show that there is progress."""
    formats.append(name)
    print(name, row, flush=True)


if __name__ == "__main__":
    main()
