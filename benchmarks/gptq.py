"""nanoq's GPTQ against the official algorithm, written plainly, side by side in one process.

    python benchmarks/gptq.py [--threads 1]

writes data/results/gptq.csv: for each shape the time of both (the best of several alternating runs), their ratio, the
share of nanoq's time that goes into the factor of the Hessian, and the ratio of the layers' errors.
`official` follows IST-DASLab's `fasterquant` step by step: three factorisations, blocks of 128 columns, one column
after the other, and the loss of every weight noted down.
"""

import argparse

import torch
from torch import Tensor

from nanoq.files import data_dir, write_csv
from nanoq.machine import machine_report
from nanoq.quant import Grid, LayerStats, affine_grid, gptq
from nanoq.timing import measure

RESULTS = data_dir() / "results"
SHAPES = ((192, 192), (768, 192), (192, 768), (768, 768), (3072, 768), (768, 3072), (2048, 2048))


def official(weight: Tensor, grid: Grid, gram: Tensor, damping: float = 0.01, block: int = 128) -> Tensor:
    """The rounded weight (out, in)."""
    weight, hessian, n = weight.clone(), 2 * gram, weight.shape[1]
    top = grid.levels - 1
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    inverse = torch.linalg.cholesky(inverse, upper=True)
    rounded, losses = torch.zeros_like(weight), torch.zeros_like(weight)
    for start in range(0, n, block):
        stop = min(start + block, n)
        part = weight[:, start:stop].clone()
        values, errors, loss = torch.zeros_like(part), torch.zeros_like(part), torch.zeros_like(part)
        mine = inverse[start:stop, start:stop]
        for k in range(stop - start):
            column, pivot = part[:, k], mine[k, k]
            code = torch.clamp(torch.round(column[:, None] / grid.scale) + grid.zero_point, 0, top)
            value = (grid.scale * (code - grid.zero_point)).flatten()
            values[:, k] = value
            loss[:, k] = (column - value) ** 2 / pivot**2
            error = (column - value) / pivot
            part[:, k:] -= error[:, None].matmul(mine[k, k:][None])
            errors[:, k] = error
        rounded[:, start:stop], losses[:, start:stop] = values, loss / 2
        weight[:, stop:] -= errors.matmul(inverse[start:stop, stop:])
    return rounded


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [one_shape(*shape, arguments.repeats) for shape in SHAPES]
    about = {"threads": arguments.threads, "instructions": machine_report().instructions}
    write_csv(RESULTS / "gptq.csv", [row | about for row in rows])


def one_shape(out: int, width: int, repeats: int) -> dict:
    """One shape, 4 bits, inputs correlated at random."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(out, width, generator=generator)
    mix = torch.eye(width) + 0.3 * torch.randn(width, width, generator=generator) / width**0.5
    stats = LayerStats.of(torch.randn(4 * width, width, generator=generator) @ mix)
    grid = affine_grid(weight, 4)
    one = weight[:1], affine_grid(weight[:1], 4)  # a single row: what is left is the factor

    def ours(weight: Tensor = weight, grid: Grid = grid) -> Tensor:
        stats.factored.clear()  # as if no other layer had the same input
        return gptq(weight, grid, stats)

    codes, theirs = ours(), official(weight, grid, stats.gram)
    times = measure({"official": lambda: official(weight, grid, stats.gram), "nanoq": ours,
                     "factor": lambda: ours(*one)}, seconds=0, rounds=repeats)
    slow, fast, factor = times.values()
    errors = stats.output_error(weight, grid.decode(codes)), stats.output_error(weight, theirs)
    row = {
        "out": out, "in": width, "official_ms": round(1e3 * slow, 2), "nanoq_ms": round(1e3 * fast, 2),
        "ratio": round(slow / fast, 2), "factor_share": round(factor / fast, 2),
        "error_ratio": round(errors[0] / errors[1], 6),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
