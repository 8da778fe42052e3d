"""Memory and time to quantise a folder by `nanoq.hf.stream`: OPT-1.3B's and Llama-7B's shape, random, in bfloat16.

    python benchmarks/memory_stream.py [opt-1.3b:2 llama-7b:2]

The number after a name says how many blocks the folder has. The others would need no more memory and the same time,
so the time of the whole model is worked out from that of a block. GPTQ to 4 bits in groups of 128, 2 windows of 2,048
random tokens (too few to be good, enough to be measured: more take time, but no memory), one at a time, hidden states
in files. Each model is quantised by a process of its own, whose largest resident memory counts, mapped pages of files
among it; the folders are removed. Writes data/results/streaming.csv, a line for each model.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import psutil
import torch
import transformers
from safetensors.torch import save_file

from nanoq.files import data_dir, write_csv
from nanoq.hf.stream import INDEX, quantize_folder
from nanoq.quant import Recipe

WINDOWS, CONTEXT, BATCH, SEED = 2, 2048, 1, 0
MODELS = {
    "opt-1.3b": ("OPTForCausalLM", 24, {
        "vocab_size": 50272, "hidden_size": 2048, "word_embed_proj_dim": 2048, "num_attention_heads": 32,
        "ffn_dim": 8192, "max_position_embeddings": 2048}),
    "llama-7b": ("LlamaForCausalLM", 32, {
        "vocab_size": 32000, "hidden_size": 4096, "num_attention_heads": 32, "intermediate_size": 11008,
        "max_position_embeddings": 4096, "tie_word_embeddings": False}),
}


def make_folder(folder: Path, name: str, blocks: int) -> None:
    """Write a model of random weights in bfloat16, each block in a shard of its own, never all of it in memory."""
    cls, _, shape = MODELS[name]
    cls = getattr(transformers, cls)
    with torch.device("meta"):
        model = cls(cls.config_class(**shape, num_hidden_layers=blocks))
    generator, shards = torch.Generator().manual_seed(SEED), {}
    for key, parameter in model.named_parameters():
        number = next((part for part in key.split(".") if part.isdigit()), "rest")
        shards.setdefault(f"model-{number}.safetensors", {})[key] = parameter.shape
    for file, parts in shards.items():
        norms = {key for key in parts if key.endswith("norm.weight")}
        save_file({key: torch.randn(shape, generator=generator).mul_(0.02).add_(key in norms).bfloat16()
                   for key, shape in parts.items()}, folder / file)
    model.config.architectures = [cls.__name__]
    model.config.save_pretrained(folder)
    index = {key: file for file, parts in shards.items() for key in parts}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def measure(folder: Path, name: str) -> dict:
    """Quantise a folder, in a process that has done nothing else, and say what it took."""
    warnings.filterwarnings("ignore", message=".*calibration tokens are few")
    _, depth, shape = MODELS[name]
    tokens = torch.randint(shape["vocab_size"], (WINDOWS, CONTEXT), generator=torch.Generator().manual_seed(SEED))
    torch.zeros(512, 512) @ torch.zeros(512, 512)  # so that what torch allocates once is there
    before, out = psutil.Process().memory_info().rss, folder / "quantised"
    recipe = Recipe("gptq", bits=4, group_size=128)
    started = time.time()
    reports = quantize_folder(folder, out, recipe, tokens, BATCH, memory=0)
    shards = sorted(out.glob("model-*.safetensors"))
    ends = [shard.stat().st_mtime for shard in shards]
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    width, inner = shape["hidden_size"], shape.get("ffn_dim") or shape["intermediate_size"]
    block = sum(file.stat().st_size for file in folder.glob("model-0.safetensors")) * 2
    return {
        "model": name, "blocks": len(shards) - 1, "layers": len(reports), "tokens": tokens.numel(),
        "source_gb": gb(sum(file.stat().st_size for file in folder.glob("*.safetensors"))),
        "block_float32_gb": gb(block),
        # The Gram matrices of the layers of a block, of which all but one are as wide as the model, and the factor of
        # the largest.
        "statistics_gb": gb(4 * ((len(reports) // (len(shards) - 1) - 1) * width**2 + 2 * inner**2)),
        "window_gb": gb(4 * BATCH * CONTEXT * width), "before_gb": gb(before),
        "peak_gb": gb(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
        "out_gb": gb(sum(shard.stat().st_size for shard in shards)),
        "start_seconds": round(ends[0] - started, 1), "seconds_per_block": round(seconds, 1),
        "hours_of_all_blocks": round((ends[0] - started + depth * seconds) / 3600, 2),
        "threads": torch.get_num_threads(),
    }


def gb(size: float) -> float:
    """Bytes in GB of 1e9."""
    return round(size / 1e9, 3)


def main(models: list[str]) -> None:
    """Make the folders, measure each in its own process, and remove them."""
    rows = []
    for model in models:
        name, _, blocks = model.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            size = 2 * int(blocks) * 2**28 + 2**30
            if shutil.disk_usage(folder).free < 2 * size:
                raise OSError(f"{name} with {blocks} blocks needs {gb(2 * size)} GB of disk")
            make_folder(Path(folder), name, int(blocks))
            done = subprocess.run([sys.executable, __file__, "--measure", folder, name], stdout=subprocess.PIPE,
                                  check=True, env=os.environ | {"NANOQ_PROGRESS": "0"})
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    write_csv(data_dir() / "results" / "streaming.csv", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), sys.argv[3])))
    else:
        main(sys.argv[1:] or ["opt-1.3b:2", "llama-7b:2"])
