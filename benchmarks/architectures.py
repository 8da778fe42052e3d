"""Classes of transformers as tiny random models: what of each nanoq can quantise.

    python benchmarks/architectures.py --out data/results/architectures.csv

A row per class, of causal language models, encoders with decoders, masked language models and, of families that have
none of them, encoders: whether it loads (block by block it gives its own outputs, or the reason why not); the share of
its matrices, without embeddings and head, that are quantised; the relative error of the outputs at 4 bits by nearest
rounding and by GPTQ; whether a saved model comes back bit for bit; whether transformers reads the export to
compressed-tensors with the same outputs, or why nanoq does not write it. A class for which no tiny configuration was
found is listed as such: that says nothing about nanoq. Each class runs in a process of its own. Rows that the file has
already are kept, but for those of classes that are named: the same call goes on where one was stopped.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import warnings
from pathlib import Path

os.environ.update(NANOQ_PROGRESS="0", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import torch
from tiny_models import WORDS, tiny
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from nanoq.files import read_csv, write_csv
from nanoq.hf import HFModel
from nanoq.hf.inputs import sample
from nanoq.hf.model import KINDS, left_out, outputs, prove, run
from nanoq.progress import progress
from nanoq.quant import Recipe, linear_layers, quantize_model
from nanoq.quant.compressed_tensors_format import export_compressed_tensors
from nanoq.store import Checkpoint, load, save

SECONDS, MEMORY = 60, 5_000_000_000  # for a class
TRIED = ("causal-lm", "seq2seq", "masked-lm", "encoder")
FIELDS = ("class", "kind", "outcome", "quantised_share", "nearest", "gptq", "reloads", "export")


def classes() -> list[tuple[str, str]]:
    """Name and kind of each class; the first kind counts, and encoders only of families without a language model."""
    found, families = {}, set()
    for kind, table in KINDS.items():
        if kind not in TRIED:
            continue
        for family, names in getattr(modeling_auto, table).items():
            if kind == "encoder" and family in families:
                continue
            families.add(family)
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, kind)
    return sorted(found.items())


def examine(name: str, kind: str) -> dict:
    """The row of a class."""
    row = dict.fromkeys(FIELDS, "") | {"class": name, "kind": kind}
    try:
        model = tiny(name)
    except Exception as error:
        return row | {"outcome": f"no tiny configuration: {type(error).__name__}"}
    try:
        proof, rows = outputs(model), batch(model)
        expected = run(model, rows)
        model = HFModel(model)
        prove(model, proof)
    except ValueError as error:
        return row | {"outcome": f"refused: {error}"}
    linear, rest = sum(layer.weight.numel() for layer in linear_layers(model).values()), sum(left_out(model).values())
    row["quantised_share"] = round(linear / (linear + rest), 3)
    for method in ("nearest", "gptq"):
        copy = HFModel(tiny(name))
        quantize_model(copy, Recipe(method, bits=4, symmetric=True), rows)
        row[method] = round(float((copy(rows) - expected).norm() / expected.norm()), 4)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(save(folder, Checkpoint(copy, None, {}))).model
    row["reloads"] = torch.equal(loaded(rows), copy(rows))
    return row | {"outcome": "works", "export": exported(copy, rows)}


def batch(model: nn.Module) -> Tensor:
    """What a model is calibrated on and measured with: 16 texts of 32 random tokens, or noise."""
    like = sample(model)
    if like.is_floating_point():
        return torch.randn(8, *like.shape[1:], generator=torch.Generator().manual_seed(0))
    return torch.randint(3, WORDS, (16, 32), generator=torch.Generator().manual_seed(0))


def exported(model: HFModel, rows: Tensor) -> str:
    """Whether `from_pretrained` gives a model of the same outputs for the export, or why nanoq does not export.

    "decoded": the same but for weights that are rounded to float16, as transformers decodes them before it loads them.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_compressed_tensors(folder, model)
        except ValueError as error:
            return f"refused: {error}"[:150]
        try:
            read = type(model.model).from_pretrained(folder, dtype=torch.float32).eval()
            found, expected = run(read, rows), model(rows)
        except Exception as error:
            return f"fails: {type(error).__name__}: {' '.join(str(error).split())[:100]}"
    error = float((found - expected).norm() / expected.norm())
    decoded = not hasattr(read.config, "quantization_config")
    if error < (1e-2 if decoded else 1e-3):
        return "decoded" if decoded else "same"
    return f"fails: other outputs, by {error:.2g}"


def finished(file: Path) -> dict[str, dict]:
    """The rows that a file has already, by class."""
    return {row["class"]: row for row in (read_csv(file) if file.is_file() else [])}


def _child(name: str, kind: str, pipe) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))  # what is larger than that is not tiny
    warnings.simplefilter("ignore")
    with torch.no_grad():
        try:
            row = examine(name, kind)
        except Exception as error:
            large = "can't allocate memory" in str(error)
            reason = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
            row = {"class": name, "kind": kind, "outcome": "no tiny configuration: too large" if large else reason}
    pipe.send(json.dumps(row))


def main() -> None:
    """Examine all classes, or those that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("architectures.csv"))
    parser.add_argument("--kinds", nargs="*", default=TRIED)
    parser.add_argument("names", nargs="*", help="classes to try, again if need be; by default all that lack a row")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        examine("LlamaForCausalLM", "causal-lm")  # so that all that this takes is loaded once
    rows, context = finished(arguments.out), multiprocessing.get_context("fork")
    for name, kind in progress([(name, kind) for name, kind in classes() if kind in arguments.kinds
                                and (name in arguments.names if arguments.names else name not in rows)]):
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(name, kind, theirs))
        process.start()
        row = {"class": name, "kind": kind, "outcome": f"fails: no answer within {SECONDS} seconds"}
        if ours.poll(SECONDS):
            try:
                row = json.loads(ours.recv())
            except EOFError:
                row["outcome"] = "fails: the process died"
        process.kill()
        rows[name] = dict.fromkeys(FIELDS, "") | row
        write_csv(arguments.out, [rows[name] for name in sorted(rows)])
    for kind in KINDS:
        mine = [row["outcome"].partition(":")[0] for row in rows.values() if row["kind"] == kind]
        print(kind, {outcome: mine.count(outcome) for outcome in sorted(set(mine))})


if __name__ == "__main__":
    main()
