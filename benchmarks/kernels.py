"""How fast products with packed weights are on this machine, as ratios to fp32.

    python benchmarks/kernels.py            # all shapes, one thread and two; a quarter of an hour, on a quiet machine
    python benchmarks/kernels.py --quick    # two small shapes, to see that it runs

For each shape of a linear layer and each number of tokens every way to compute the layer's output is called in turn,
again and again, so that they share whatever else the machine does: fp32 with a weight that is kept, this package's
kernels, the weight dequantised in every call, and torch's own weight-only products where it has them. Prints a table
and writes `data/results/kernels.csv`: microseconds (minimum and median) and how many times as fast as fp32 each is, by
the minimum and by the median. Before each shape all kernels have been compiled. Scales are one a row, but for
"group 64", "group 32" and torch's int4, which has groups of 64. "entropy-coded" is a stream in its file, decoded before
it is timed.

Beside them is what the machine could do: `gigabytes_share` is the rate at which the weight's own bytes were read, over
the rate at which a sum reads 256 MB of memory, which what lies in a cache can pass; `operations_share` the rate of
multiplications over that of a float32 product of 1024 x 1024 matrices. Both are measured before each shape.
"""

import argparse
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nanoq.files import data_dir, write_csv
from nanoq.quant import QuantLinear, affine_grid, nearest
from nanoq.quant.kernels import candidates, integer_product
from nanoq.quant.qlinear import entropy_coded
from nanoq.timing import measure, time_in_turn

SHAPES = [(192, 192), (768, 768), (768, 3072), (2048, 8192), (4096, 11008)]  # (in, out) of a layer
TOKENS = [1, 4, 16, 256]
TORCH_TOKENS = 16  # with more, torch's own products take a hundred times as long as fp32


def main() -> None:
    """Time every shape and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small shapes, and no file")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each shape and number of tokens")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    shapes, tokens, seconds = (SHAPES[:2], [1, 16], 0.2) if arguments.quick else (SHAPES, TOKENS, arguments.seconds)
    machine = {"cpu": cpu_name(), "vector_instructions": torch.backends.cpu.get_cpu_capability(),
               "torch": torch.__version__, "integer_product": integer_product().__name__}
    print(machine)
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        print(f"threads: {threads}")
        for columns, out in shapes:
            for count in tokens:
                rows += [row | {"threads": threads} | machine for row in time_shape(columns, out, count, seconds)]
    if not arguments.quick:
        write_csv(data_dir() / "results" / "kernels.csv", rows)


def time_shape(columns: int, out: int, tokens: int, seconds: float) -> list[dict]:
    """One row for each way to multiply (tokens, columns) by a weight (out, columns)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out, columns, generator=generator) / columns**0.5
    x = torch.randn(tokens, columns, generator=generator)
    found = ways(weight, x)
    stream, rate = roofs()
    times = time_in_turn({way: call for way, (call, _) in found.items()}, seconds)
    base = times["fp32"]
    rows = [{
        "in": columns, "out": out, "tokens": tokens, "way": way,
        "microseconds_min": round(1e6 * min(measured), 1),
        "microseconds_median": round(1e6 * statistics.median(measured), 1),
        "speedup_min": round(min(base) / min(measured), 3),
        "speedup_median": round(statistics.median(base) / statistics.median(measured), 3),
        "gigabytes_share": round(found[way][1] / min(measured) / stream, 3),
        "operations_share": round(columns * out * tokens / min(measured) / rate, 3),
        "rounds": len(measured),
    } for way, measured in times.items()]  # fmt: skip
    print(f"{columns}x{out}, {tokens} tokens, fp32 {rows[0]['microseconds_min']:.0f} us: "
          + ", ".join(f"{row['way']} {row['speedup_min']:.2f}" for row in rows[1:]), flush=True)
    return rows


def roofs() -> tuple[float, float]:
    """Bytes a second of a sum over 256 MB, and multiplications a second of a float32 product."""
    many, square = torch.ones(2**26), torch.randn(1024, 1024)
    times = measure({"stream": many.sum, "product": lambda: square @ square}, seconds=0.1)
    return many.nbytes / times["stream"], 1024**3 / times["product"]


def ways(weight: Tensor, x: Tensor) -> dict[str, tuple[Callable[[], Tensor], int]]:
    """The ways to compute x W^T and the bytes of the weight that each reads, by name; "fp32" first."""
    found = {"fp32": (lambda: F.linear(x, weight), weight.nbytes)}
    for name, bits, group, backends in (
        ("", 8, None, ["int8", "w8a8", "dequantize"]), ("", 4, None, ["int4"]), (" group 64", 4, 64, ["int4"]),
        (" group 32", 4, 32, ["int4"]), ("", 3, None, ["int3"]), (" group 64", 3, 64, ["int3"]),
        ("", 2, None, ["int2"]), (" entropy-coded", 8, None, ["int8"]),
    ):
        options = {"granularity": "group", "group_size": group} if group else {}
        grid = affine_grid(weight, bits, **options)
        layer = QuantLinear.from_codes(nearest(weight, grid), grid)
        if "coded" in name:
            layer = entropy_coded(layer)
        mine = dict(candidates(layer, backends, x))
        del mine["fp32"]
        found |= {backend + name: (way, weight.numel() * bits // 8 + 8 * layer.scale.numel())
                  for backend, way in mine.items()}
    for name, bits, make in (("torch int8", 8, torch_int8), ("torch int4", 4, torch_int4)):
        if len(x) > TORCH_TOKENS:
            continue
        try:
            way = make(weight, x)
            way()
            found[name] = way, weight.numel() * bits // 8
        except (AttributeError, RuntimeError, NotImplementedError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}")
    return found


def torch_int8(weight: Tensor, x: Tensor) -> Callable[[], Tensor]:
    """The weight-only int8 product of torch; one scale a row, float32 activations."""
    scale = weight.abs().amax(1) / 127
    codes = (weight / scale[:, None]).round().to(torch.int8)
    return lambda: torch._weight_int8pack_mm(x, codes, scale)


def torch_int4(weight: Tensor, x: Tensor) -> Callable[[], Tensor]:
    """The weight-only int4 product of torch; groups of 64, float32 activations."""
    grid = affine_grid(weight, 4, granularity="group", group_size=64)
    packed = torch._convert_weight_to_int4pack_for_cpu(nearest(weight, grid).int(), 1)
    # torch's codes stand for scale * (code - 8) + offset
    scale_and_offset = torch.stack([grid.scale, (8 - grid.zero_point) * grid.scale], dim=-1).transpose(0, 1)
    scale_and_offset = scale_and_offset.contiguous()
    return lambda: torch._weight_int4pack_mm_for_cpu(x, packed, 64, scale_and_offset)


def cpu_name() -> str:
    """What the processor calls itself."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
