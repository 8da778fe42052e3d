"""Peak memory of quantising a large model: the model, and the statistics of one block.

    python benchmarks/memory.py [--layers 24]

A GPT of OPT-1.3B's shape (24 blocks, width 2048, vocabulary 50272, context 2048) with random weights goes through GPTQ
at 4 bits, with 8 windows of 512 random tokens (too few to be good, enough to be measured). Prints one line and writes
data/results/memory.csv.
"""

import argparse
import csv
import resource
import time
import warnings
from pathlib import Path

import psutil
import torch

from nanoq.lm import GPT, GPTConfig
from nanoq.quant import Recipe, quantize_model

RESULTS = Path(__file__).parents[1] / "data" / "results"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*calibration tokens are few")
    model = GPT(GPTConfig(50272, context=2048, layers=arguments.layers, heads=32, width=2048, bias=True))
    tokens = torch.randint(50272, (8, 512), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(tokens[:1])  # so that what torch allocates once is there
    before = psutil.Process().memory_info().rss
    parameters = model.parameter_count()
    started = time.perf_counter()
    quantize_model(model, Recipe.uniform(4, "gptq"), tokens, batch=1)
    row = {
        "parameters": parameters, "model_gb": round(4 * parameters / 1e9, 3),
        # Gram matrix and factor of every input of a block: three of width 2048, one of width 8192.
        "block_statistics_gb": round(4 * 2 * (3 * 2048**2 + 8192**2) / 1e9, 3),
        "before_gb": round(before / 1e9, 3),
        "peak_gb": round(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9, 3),
        "minutes": round((time.perf_counter() - started) / 60, 1), "threads": torch.get_num_threads(),
    }
    print(row)
    with open(RESULTS / "memory.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
