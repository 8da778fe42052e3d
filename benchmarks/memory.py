"""Peak memory of quantising a large model: the model, and the statistics of one block.

    python benchmarks/memory.py

In a GPT of OPT-1.3B's shape (24 blocks, width 2048, vocabulary 50272, context 2048) with random weights GPTQ takes the
first two blocks to 4 bits, with 4 windows of 512 random tokens (too few to be good, enough to be measured). Later
blocks would need no more: a block that is quantised is smaller than it was. Prints one line and writes
data/results/memory.csv.
"""

import resource
import time
import warnings

import psutil
import torch

from nanoq.files import data_dir, write_csv
from nanoq.lm import GPT, GPTConfig
from nanoq.quant import LayerSpec, Recipe, quantize_model

RESULTS = data_dir() / "results"


def main() -> None:
    """Measure."""
    warnings.filterwarnings("ignore", message=".*calibration tokens are few")
    model = GPT(GPTConfig(50272, context=2048, layers=24, heads=32, width=2048, bias=True))
    tokens = torch.randint(50272, (4, 512), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(tokens[:1])  # so that what torch allocates once is there
    before = psutil.Process().memory_info().rss
    parameters = model.parameter_count()
    started = time.perf_counter()
    spec = LayerSpec(4, method="gptq")
    quantize_model(model, Recipe(LayerSpec(16), {"blocks.0.*": spec, "blocks.1.*": spec}), tokens, batch=1)
    row = {
        "parameters": parameters, "model_gb": round(4 * parameters / 1e9, 3),
        # Gram matrix and factor of every input of a block: three of width 2048, one of width 8192.
        "block_statistics_gb": round(4 * 2 * (3 * 2048**2 + 8192**2) / 1e9, 3),
        "before_gb": round(before / 1e9, 3),
        "peak_gb": round(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9, 3),
        "minutes": round((time.perf_counter() - started) / 60, 1), "threads": torch.get_num_threads(),
    }
    print(row)
    write_csv(RESULTS / "memory.csv", [row])


if __name__ == "__main__":
    main()
