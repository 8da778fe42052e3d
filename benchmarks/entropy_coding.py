"""How fast and how small the entropy coder is, beside the package `constriction`, if that is installed.

    python benchmarks/entropy_coding.py

prints millions of codes per second, medians of alternating runs, with one thread and with two, and bits per code beside
the entropy of the codes; and writes data/results/entropy_coding.csv. The codes are Gaussian, a matrix of 4096 x 4096.
`constriction` gets the same tables for all columns, and no classes, as its model takes one distribution for an array.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nanoq.files import data_dir, write_csv
from nanoq.quant.entropy_coding import decode, encode

SIDE, RUNS = 4096, 5


def entropy(codes: torch.Tensor) -> float:
    """Bits per code."""
    share = torch.unique(codes, return_counts=True)[1].double() / codes.numel()
    return float(-(share * share.log2()).sum())


def ours(codes: torch.Tensor, threads: int) -> tuple[int, Callable, Callable]:
    """Bytes, and what encodes and decodes."""
    stream, shape = encode(codes), tuple(codes.shape)

    def back() -> None:
        torch.set_num_threads(threads)
        assert torch.equal(decode(stream, shape)[0], codes[0].short())

    return len(stream), lambda: encode(codes), back


def constriction_coder(codes: torch.Tensor) -> tuple[int, Callable, Callable] | None:
    """The same of constriction's rANS with the histogram as a table; None without it."""
    try:
        import constriction
    except ImportError:
        return None
    values = codes.numpy().astype(np.int32).ravel()
    low = int(values.min())
    counts = np.bincount(values - low).astype(np.float64)
    model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)

    def put():
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(values - low, model)
        return coder.get_compressed()

    words = put()

    def back() -> None:
        found = constriction.stream.stack.AnsCoder(words).decode(model, len(values))
        assert (found[:100] == values[:100] - low).all()

    return words.nbytes + counts.nbytes // 4, put, back


def speed(run: Callable) -> float:
    """Millions of codes per second."""
    started = time.perf_counter()
    run()
    return SIDE * SIDE / 1e6 / (time.perf_counter() - started)


def main() -> None:
    """Measure all coders in turn, several times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "entropy_coding.csv")
    out, rows = parser.parse_args().out, []
    for bits, spread in ((1.4, 0.62), (2, 0.97), (3, 1.94), (4, 3.88)):
        codes = (torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * spread).round().int()
        coders = {"nanoq, 1 thread": ours(codes, 1), "nanoq, 2 threads": ours(codes, 2),
                  "constriction": constriction_coder(codes)}
        coders = {name: coder for name, coder in coders.items() if coder}
        found = {name: ([], []) for name in coders}
        for _ in range(RUNS):
            for name, (_, put, back) in coders.items():
                found[name][0].append(speed(put))
                found[name][1].append(speed(back))
        for name, (size, _, _) in coders.items():
            encoding, decoding = (statistics.median(values) for values in found[name])
            rows.append({"coder": name, "entropy": entropy(codes), "bits_per_code": 8 * size / codes.numel(),
                         "encode_m_per_s": encoding, "decode_m_per_s": decoding})
            print(f"{bits} bits, {name}: {rows[-1]['bits_per_code']:.3f} of {rows[-1]['entropy']:.3f} bits, "
                  f"{encoding:.0f} M/s in, {decoding:.0f} M/s out")
    write_csv(out, rows)


if __name__ == "__main__":
    main()
