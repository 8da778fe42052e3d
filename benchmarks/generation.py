"""How fast models write on this machine, side by side.

    python -m venv /tmp/llama && CMAKE_ARGS=-DGGML_NATIVE=ON /tmp/llama/bin/pip install --no-binary llama-cpp-python \
        llama-cpp-python
    python benchmarks/generation.py --llama /tmp/llama/bin/python      # half an hour on a quiet machine
    python benchmarks/generation.py --quick                            # the course's model, a few characters, no file

(Where llama.cpp dies of an illegal instruction in its AMX code, compile it with CFLAGS and CXXFLAGS set to
"-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"; so were the numbers in the file.)

All ways of a table take turns, each of them once in a round and another one first each time, so that they share what
else the machine does; `rate` is the median over the rounds of tokens a second, `ratio` the median of the rate over that
of the first way in the same round, with its quartiles. With one thread the seconds are those of the processor, so that
other jobs count only by what they do to caches and memory; with two those of the clock. Writes
`data/results/generation.csv`, for one thread and two:

- "gpt": the course's model writes 240 characters. "no cache" is nanoGPT's way: the whole window for each character,
  softmax, multinomial. "forward" is `GPT.forward` with its cache, an operator of torch after the other; the others are
  what `nanoq.lm.stream` does, with float weights and with codes.
- "batch": eight prompts, one after the other and together. "playground": three models in turns, 20 characters each.
- "smollm2", "smollm2 prompt": SmolLM2-135M writes 32 tokens, and reads 128: float32 and codes in groups of 32 as
  `nanoq generate` runs them, and llama.cpp with the same codes in Q4_0. "forward" is transformers with this package's
  layers, "layers alone" the products of a token one after the other, and nothing else of the model.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import nanoq
from nanoq.files import data_dir, write_csv
from nanoq.hf.tasks import Reader, stream_tokens
from nanoq.lm import GPT, stream, stream_batch
from nanoq.lm.model import KVCache
from nanoq.quant import QuantLinear, Recipe, export_gguf, quantize_model, use_backend
from nanoq.quant.kernels import weight_only
from nanoq.teach.compare import Contender, write

GROUP = {"granularity": "group", "group_size": 32, "symmetric": True}  # as Q8_0 and Q4_0
PROMPT = "Once upon a time"

# What runs in llama.cpp's environment: for each line "prompt" or "write", the threads and the tokens, the seconds.
THERE = """
import sys, time
from llama_cpp import Llama
models = {n: Llama(sys.argv[1], n_ctx=512, n_threads=n, n_threads_batch=n, verbose=False) for n in (1, 2)}
for line in sys.stdin:
    what, threads, count = line.split()
    clock = time.process_time if threads == "1" else time.perf_counter
    llama, count = models[int(threads)], int(count)
    llama.reset()
    if what == "write":
        llama.eval(list(range(500, 508)))
    start = clock()
    if what == "prompt":
        llama.eval(list(range(500, 500 + count)))
    else:
        for i in range(count):
            llama.eval([600 + i])
    print(clock() - start, flush=True)
"""


def main() -> None:
    """Run all tables with one thread and with two, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the course's model alone, a few characters, no file")
    parser.add_argument("--llama", help="the Python of an environment that has llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for table, ways, tokens in gpt_tables(length=10 if arguments.quick else 240):
            rows += [row | {"threads": threads} for row in race(table, ways, tokens, arguments.rounds)]
    if arguments.quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        models, there = smollm2(Path(folder), arguments.llama)
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            for table, ways, tokens in smollm2_tables(models, there, threads):
                rows += [row | {"threads": threads} for row in race(table, ways, tokens, arguments.rounds)]
    write_csv(data_dir() / "results" / "generation.csv", [row | {"torch": torch.__version__} for row in rows])


def clock() -> float:
    """Seconds, of the processor where there is one thread."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def race(table: str, ways: dict[str, Callable[[], float | None]], tokens: int, rounds: int) -> list[dict]:
    """One row for each way; a way gives the seconds that count, or None where all that it takes do."""
    names, rates = list(ways), {name: [] for name in ways}
    for i in range(rounds + 1):
        for name in names[i % len(names):] + names[: i % len(names)]:
            start = clock()
            seconds = ways[name]() or clock() - start
            if i:  # in the first round loops are compiled
                rates[name].append(tokens / seconds)
    rows, base = [], np.array(rates[names[0]])
    for name in names:
        ratio = np.array(rates[name]) / base
        low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
        rows.append({"table": table, "way": name, "rate": round(float(np.median(rates[name])), 2),
                     "ratio": round(float(middle), 3), "ratio_low": round(float(low), 3),
                     "ratio_high": round(float(high), 3), "rounds": rounds})
        print(f"{table:16}{name:24}{rows[-1]['rate']:10.1f} a second{middle:8.2f} ({low:.2f} … {high:.2f})", flush=True)
    return rows


# ---- the course's model ----


def gpt_tables(length: int):
    """Tables of the course's model: a name, the ways, and how many characters each writes."""
    checkpoint = nanoq.load("tales-2.7m")
    model, prompt = checkpoint.model, checkpoint.tokenizer.encode(PROMPT)
    models = {"fp32": model, "int8": rounded(model, 8), "int4": rounded(model, 4),
              "int4, groups of 32": rounded(model, 4, GROUP), "int3": rounded(model, 3), "int2": rounded(model, 2)}

    def writes(one, **options):
        return lambda: list(islice(stream(one, prompt, **options), length)) and None

    yield "gpt", {"no cache": lambda: without_cache(model, prompt, length),
                  "forward": writes(model, make_cache=lambda blocks: KVCache(blocks)),
                  **{name: writes(one) for name, one in models.items()}}, length

    prompts = [prompt[: 2 + i] for i in range(8)]
    yield "batch", {"one by one": lambda: [list(islice(stream(model, one), length)) for one in prompts] and None,
                    "together": lambda: list(islice(stream_batch(model, prompts), length)) and None,
                    "together, int8": lambda: list(islice(stream_batch(models["int8"], prompts), length)) and None,
                    }, 8 * length

    chosen, length = [models[name] for name in ("fp32", "int8", "int4")], min(20, length)
    contenders = [Contender(str(i), one, checkpoint.tokenizer, 0) for i, one in enumerate(chosen)]

    def forward():
        streams = [stream(one, prompt, make_cache=lambda blocks: KVCache(blocks)) for one in chosen]
        for _ in range(length):
            for one in streams:
                next(one)

    yield "playground", {"forward": forward, "loops": lambda: list(write(contenders, PROMPT, length=length)) and None
                         }, 3 * length


def rounded(model: GPT, bits: int, options: dict | None = None) -> GPT:
    """A copy with rounded layers."""
    copy = deepcopy(model)
    quantize_model(copy, Recipe(bits=bits, grid_options=options or {}))
    return copy


@torch.inference_mode()
def without_cache(model: GPT, prompt: torch.Tensor, length: int) -> None:
    """Write as nanoGPT's `generate` does."""
    tokens, generator = prompt[None], torch.Generator().manual_seed(0)
    for _ in range(length):
        logits = model(tokens[:, -model.config.context:])[:, -1]
        tokens = torch.cat((tokens, torch.multinomial(logits.softmax(-1), 1, generator=generator)), 1)


# ---- SmolLM2 ----


def smollm2(folder: Path, python: str | None):
    """SmolLM2 in float32 and as codes with their kernels, and llama.cpp with the 4-bit codes if there is one."""
    models, there = {}, None
    for name, recipe in (("fp32", None), ("int8", Recipe(bits=8, grid_options=GROUP, embeddings=8)),
                         ("int4", Recipe(bits=4, grid_options=GROUP, embeddings=4))):
        checkpoint = nanoq.load("smollm2")
        if recipe:
            quantize_model(checkpoint.model, recipe)
        if name == "int4" and python:
            path = export_gguf(folder / "model.gguf", checkpoint)
            there = subprocess.Popen([python, "-c", THERE, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL, text=True)
        for layer in checkpoint.model.modules():
            if isinstance(layer, QuantLinear):
                use_backend(layer, weight_only(layer) or "dequantize")
        models[name] = checkpoint.model
    return models, there


def smollm2_tables(models: dict, there: subprocess.Popen | None, threads: int):
    """Tables of SmolLM2: a name, the ways, and how many tokens each writes or reads."""
    prompt = torch.arange(500, 508)

    def writes(model, count):
        tokens = stream_tokens(model, prompt, 0.0, None, 0)
        next(tokens)
        start = clock()
        list(islice(tokens, count))
        return clock() - start

    @torch.inference_mode()
    def forward(model, count):
        reader = Reader(model)
        reader.begin(prompt)
        start = clock()
        for token in range(600, 600 + count):
            reader(token)
        return clock() - start

    def reads(model, count):
        start = clock()
        next(stream_tokens(model, torch.arange(500, 500 + count), 0.0, None, 0))
        return clock() - start

    def layers_alone(model, count):
        calls = [(layer, torch.ones(1, layer.weight_shape[1])) for layer in model.modules()
                 if isinstance(layer, QuantLinear)]
        for _ in range(count):
            for layer, x in calls:
                QuantLinear.forward(layer, x)

    def elsewhere(what, count):
        there.stdin.write(f"{what} {threads} {count}\n")
        there.stdin.flush()
        return float(there.stdout.readline())

    for table, what, way, count in (("smollm2", "write", writes, 32), ("smollm2 prompt", "prompt", reads, 128)):
        ways = {name: lambda model=model, way=way, count=count: way(model, count) for name, model in models.items()}
        if what == "write":
            ways |= {f"{name}, forward": lambda model=models[name]: forward(model, 32) for name in ("int8", "int4")}
            ways |= {f"{name}, layers alone": lambda model=models[name]: layers_alone(model, 32)
                     for name in ("int8", "int4")}
        if there:
            ways["llama.cpp Q4_0"] = lambda what=what, count=count: elsewhere(what, count)
        yield table, ways, count


if __name__ == "__main__":
    main()
