"""Memory and time for a large model: OPT-1.3B's shape, random weights, quantised to 4 bits, written and read again.

    python benchmarks/memory.py

The first two blocks by GPTQ, with 4 windows of 512 random tokens (too few to be good, enough to be measured; later
blocks need no more), the other 22 by rounding to nearest. The model that was read gives the same logits as the one that
was written, or the run fails. Prints one line and writes data/results/memory.csv.
"""

import resource
import tempfile
import time
import warnings
from pathlib import Path

import psutil
import torch
from transformers import OPTConfig, OPTForCausalLM

from nanoq.files import data_dir, write_csv
from nanoq.hf import HFModel
from nanoq.mixed import compression_ratio
from nanoq.quant import Recipe, Round, quantize_model
from nanoq.store import WEIGHTS, Checkpoint, load, save

SHAPE = {"vocab_size": 50272, "hidden_size": 2048, "word_embed_proj_dim": 2048, "num_hidden_layers": 24,
         "num_attention_heads": 32, "ffn_dim": 8192, "max_position_embeddings": 2048}


def main() -> None:
    """Measure."""
    warnings.filterwarnings("ignore", message=".*calibration tokens are few")
    torch.manual_seed(0)
    model = HFModel(OPTForCausalLM(OPTConfig(**SHAPE)).eval())
    parameters = model.parameter_count()
    tokens = torch.randint(SHAPE["vocab_size"], (4, 512))
    with torch.no_grad():
        model(tokens[:1])  # so that what torch allocates once is there
    before = psutil.Process().memory_info().rss
    gptq, nearest = Round("gptq", bits=4), Round(bits=4)
    recipe = Recipe(nearest, rules={"blocks.0.*": gptq, "blocks.1.*": gptq})
    minutes = {}

    def clock(name: str, started: float) -> float:
        minutes[name] = round((time.perf_counter() - started) / 60, 2)
        return time.perf_counter()

    started = time.perf_counter()
    reports = quantize_model(model, recipe, tokens, batch=1)
    started = clock("quantise_minutes", started)
    with tempfile.TemporaryDirectory() as folder:
        size = (save(folder, Checkpoint(model, None, {})) / WEIGHTS).stat().st_size
        started = clock("save_minutes", started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loaded = load(Path(folder)).model
        clock("load_minutes", started)
    with torch.no_grad():
        assert torch.equal(loaded(tokens[:1, :32]), model(tokens[:1, :32]))
    row = {
        "parameters": parameters, "model_gb": round(4 * parameters / 1e9, 3), "layers": len(reports),
        # Gram matrix and factor of every input of a block: two of width 2048 for attention, one for fc1, one of 8192.
        "block_statistics_gb": round(4 * 2 * (3 * 2048**2 + 8192**2) / 1e9, 3),
        "before_gb": round(before / 1e9, 3), "peak_gb": round(1024 * peak / 1e9, 3),
        "file_gb": round(size / 1e9, 3), "cr_fp16": round(compression_ratio(2 * parameters, size), 3),
        **minutes, "threads": torch.get_num_threads(),
    }
    print(row)
    write_csv(data_dir() / "results" / "memory.csv", [row])


if __name__ == "__main__":
    main()
