"""Every class of transformers that takes a text, as a tiny random model: what of it nanoq can quantise.

    python benchmarks/architectures.py --out data/results/architectures.csv

A row per class, of causal and masked language models and of encoders: whether it loads (block by block it gives its
own outputs, or the reason why not); the share of its matrices, without embeddings and head, that are quantised; the
relative error of the outputs at 4 bits by nearest rounding and by GPTQ; whether a saved model comes back bit for bit.
A class for which no tiny configuration was found is listed as such: that says nothing about nanoq. Each class runs in
a process of its own.
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
import transformers
from torch import nn
from transformers.models.auto import modeling_auto

from nanoq.files import write_csv
from nanoq.hf import HFModel
from nanoq.hf.model import KINDS, left_out, prove
from nanoq.progress import progress
from nanoq.quant import Recipe, linear_layers, quantize_model
from nanoq.store import Checkpoint, load, save

SECONDS, MEMORY = 120, 3_000_000_000  # for a class
SMALL = {
    97: ("vocab_size",),
    2: ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_experts_per_tok", "top_k", "moe_topk", "n_group",
        "topk_group", "num_nextn_predict_layers"),
    4: ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "num_local_experts",
        "num_experts", "n_routed_experts", "moe_num_experts", "qk_rope_head_dim", "rotary_dim", "num_kv_heads"),
    8: ("head_dim", "kv_lora_rank", "v_head_dim", "qk_nope_head_dim", "d_kv", "mamba_d_state", "state_size",
        "qk_head_dim"),
    16: ("q_lora_rank", "embedding_size", "word_embed_proj_dim"),
    32: ("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "moe_intermediate_size", "attention_hidden_size"),
    64: ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "max_position_embeddings", "n_positions",
         "hidden_dim", "d_inner", "max_seq_len", "shared_expert_intermediate_size", "encoder_ffn_dim",
         "decoder_ffn_dim"),
}
FIELDS = ("class", "kind", "outcome", "quantised_share", "nearest", "gptq", "reloads")


def classes() -> list[tuple[str, str]]:
    """Name and kind of each class; the first kind counts."""
    found = {}
    for kind, table in KINDS.items():
        if kind == "classifier":
            continue
        for names in getattr(modeling_auto, table).values():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, kind)
    return sorted(found.items())


def tiny(name: str) -> nn.Module:
    """A random model of a class, as small as its configuration can be made by the usual names."""
    cls = getattr(transformers, name)
    default = cls.config_class()
    there = default.to_dict() | {key: getattr(default, key, None) for key in dir(default) if not key.startswith("_")}
    changes = {key: value for value, keys in SMALL.items() for key in keys if isinstance(there.get(key), int)}
    changes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if isinstance(there.get("layer_types"), list):
        changes["layer_types"] = list(there["layer_types"])[:2]
    torch.manual_seed(0)
    model = cls(cls.config_class(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return model


def examine(name: str, kind: str) -> dict:
    """The row of a class."""
    row = dict.fromkeys(FIELDS, "") | {"class": name, "kind": kind}
    tokens = torch.randint(3, 97, (16, 32), generator=torch.Generator().manual_seed(0))
    try:
        model = tiny(name)
        expected = model(input_ids=tokens, use_cache=False)[0].detach()
    except Exception as error:
        return row | {"outcome": f"no tiny configuration: {type(error).__name__}"}
    try:
        model = HFModel(model)
        prove(model)
    except ValueError as error:
        return row | {"outcome": f"refused: {error}"}
    linear, rest = sum(layer.weight.numel() for layer in linear_layers(model).values()), sum(left_out(model).values())
    row["quantised_share"] = round(linear / (linear + rest), 3)
    for method in ("nearest", "gptq"):
        copy = HFModel(tiny(name))
        quantize_model(copy, Recipe(method, bits=4), tokens)
        row[method] = round(float((copy(tokens) - expected).norm() / expected.norm()), 4)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(save(folder, Checkpoint(copy, None, {}))).model
    row["reloads"] = torch.equal(loaded(tokens), copy(tokens))
    return row | {"outcome": "works"}


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
    parser.add_argument("--kinds", nargs="*", default=["causal-lm", "masked-lm", "encoder"])
    parser.add_argument("names", nargs="*", help="classes; by default all")
    arguments = parser.parse_args()
    rows, context = [], multiprocessing.get_context("fork")
    for name, kind in progress([(name, kind) for name, kind in classes() if kind in arguments.kinds
                                and (not arguments.names or name in arguments.names)]):
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
        rows.append(dict.fromkeys(FIELDS, "") | row)
        write_csv(arguments.out, rows)
    for kind in KINDS:
        mine = [row["outcome"].partition(":")[0] for row in rows if row["kind"] == kind]
        print(kind, {outcome: mine.count(outcome) for outcome in sorted(set(mine))})


if __name__ == "__main__":
    main()
