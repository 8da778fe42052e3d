"""Hostile model folders: sound ones of every kind, damaged from a seed, and given to the package and its command line.

    python tests/hf/hostile.py --count 2000

prints one JSON line: how many were refused, accepted, or misbehaved, and the memory that the process grew by. Whatever
is not what it says has to be one sentence: a ValueError or FileNotFoundError from `load`, one line and exit code 2 from
the command line; within the time, and without much more memory than the file.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

os.environ.update(NANOQ_PROGRESS="0", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")

import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import nanoq
from nanoq.cli import app
from nanoq.compress import LowRank, Prune, add_adapters, compress_model, remove_heads
from nanoq.files import sha256
from nanoq.hf import HFModel
from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.quant import (
    QuantLinear,
    Recipe,
    Round,
    Vector,
    export_compressed_tensors,
    export_gptq,
    import_awq,
    import_gptq,
    quantize_model,
    rotate,
)
from nanoq.store import CARD, INDEX, WEIGHTS, Checkpoint, load, save
from nanoq.vision import ResNet, ResNetConfig

CHARACTERS = "abcdefghij"
TOKENS = torch.randint(1, 11, (8, 16), generator=torch.Generator().manual_seed(1))
SECONDS = 20  # of patience with one folder, on a busy machine
VALUES = [None, True, -1, 0, 1, 3, 7, 1.5, 10**6, 10**9, 10**30, float("inf"), "x", "", "affine", [], [1], {}, {"a": 1},
          [[[]]], "\x00", "𝔘" * 50]


def gpt(change=lambda model: None):
    model = small_gpt().eval()
    change(model)
    return Checkpoint(model, CharTokenizer(CHARACTERS), {"corpus": "tales"})


def adapters(model):
    original = deepcopy(model)
    quantize_model(model, Recipe(bits=3))
    add_adapters(model, 4, original, TOKENS)


def sort_columns(model):
    """Groups of columns that are no neighbours, as `desc_act` leaves them."""
    quantize_model(model, Recipe(bits=4, group_size=8))
    for name, layer in list(model.named_modules()):
        if isinstance(layer, QuantLinear):
            order = torch.randperm(layer.layout["in_features"], generator=torch.Generator().manual_seed(3))
            model.set_submodule(name, QuantLinear.from_codes(layer.unpacked(), layer.grid, layer.bias, order))


def rotated(model):
    rotate(model, online=True)
    quantize_model(model, Recipe(bits=4))


def write_shards(folder, count=3):
    """Let the weights of a folder lie in several files and an index."""
    tensors = load_file(folder / WEIGHTS)
    files = {name: f"model-{number % count + 1:05}-of-{count:05}.safetensors" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in files if files[name] == file}, folder / file)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))
    vouch(folder)


def write_awq(folder):
    """A file of AWQ, of a model that has one layer of it."""
    folder.mkdir()
    model = small_gpt()
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items() if "mlp.up" not in name}
    for name, layer in model.named_modules():
        if name.endswith("mlp.up"):
            out, n = layer.weight.shape
            tensors |= {f"{name}.qweight": torch.full((n, out // 8), 0x12345678, dtype=torch.int32),
                        f"{name}.qzeros": torch.full((n // 16, out // 8), 0x77777777, dtype=torch.int32),
                        f"{name}.scales": torch.ones(n // 16, out, dtype=torch.float16)}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    block = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
    (folder / "config.json").write_text(json.dumps({"quantization_config": block}))


def small_gpt():
    return GPT(GPTConfig(11, 16, layers=2, heads=2, width=32))


IMPORTS = {"gptq": import_gptq, "gptq, sorted": import_gptq, "awq": import_awq}  # formats of others, of a GPT
EXPORTS = {"gptq of a llama": export_gptq, "compressed-tensors": export_compressed_tensors}
FOREIGN = ("plain", *EXPORTS)  # without a card


def write_plain(folder):
    """A folder as transformers writes it."""
    tiny.make("opt").save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)


def sound_folders(root: Path) -> dict[str, Path]:
    """A sound folder of every kind."""
    grids = {"gptq": Recipe("gptq", bits=4), "ternary": Recipe(bits=2, grid="ternary"),
             "nf4-dq": Recipe(bits=4, grid="nf4-dq"),
             "groups": Recipe(bits=3, group_size=8)}
    models = {"gpt": gpt()} | {name: gpt(lambda m, r=recipe: quantize_model(m, r, TOKENS))
                               for name, recipe in grids.items()}
    models |= {
        "sparse": gpt(lambda m: compress_model(m, Prune("magnitude"))),
        "sparse-quant": gpt(lambda m: compress_model(m, [Prune("magnitude"), Round(bits=4)])),
        "low-rank": gpt(lambda m: compress_model(m, LowRank(0.5, whitened=False))),
        "adapter": gpt(adapters),
        "sorted": gpt(sort_columns),
        "heads": gpt(lambda m: remove_heads(m, {0: [1]})),
        "rotated": gpt(lambda m: rotate(m, online=True)),
        "trellis": gpt(lambda m: quantize_model(m, Recipe(Vector("trellis", 3)), TOKENS)),
        "e8p": gpt(lambda m: quantize_model(m, Recipe(Vector("e8p", feedback=False)))),
        "rotated 4 bits": gpt(rotated),
        "resnet": Checkpoint(ResNet(ResNetConfig(widths=(4, 6))).eval(), None, {}),
    }
    models["resnet 4 bits"] = deepcopy(models["resnet"])
    quantize_model(models["resnet 4 bits"].model, Recipe(bits=4))
    for family in ("opt", "llama, tied"):
        models[family] = Checkpoint(HFModel(tiny.make(family)).eval(), tiny.make_tokenizer(), {})
        quantize_model(models[family].model, Recipe(bits=4))
    for family, bits in (("opt", 8), ("llama", 4)):
        made = Checkpoint(HFModel(tiny.make(family)).eval(), tiny.make_tokenizer(), {})
        quantize_model(made.model, Recipe(bits=4, embeddings=bits))
        models[f"{family}, embeddings"] = made
    for name, checkpoint in models.items():
        save(root / name, checkpoint)
    for name in ("opt", "nf4-dq"):
        write_shards(shutil.copytree(root / name, root / f"{name}, in shards"))
    write_plain(root / "plain")
    quantized = gpt(lambda m: quantize_model(m, Recipe(bits=4))).model
    export_gptq(root / "gptq", quantized)
    export_gptq(root / "gptq, sorted", gpt(sort_columns).model)
    write_awq(root / "awq")
    for name, export in EXPORTS.items():
        model = HFModel(tiny.make("llama")).eval()
        quantize_model(model, Recipe(bits=4, symmetric=True, group_size=16))
        export(root / name, Checkpoint(model, tiny.make_tokenizer(), {}))
    return {path.name: path for path in sorted(root.iterdir())}


# ---- damages: each changes a folder ----


def vouch(folder: Path, **changes) -> None:
    """Let the card fit what there is, as a program would that wrote the folder whole."""
    path = folder / CARD
    if path.is_file():
        with suppress(ValueError, AttributeError):
            card = json.loads(path.read_text(encoding="utf-8")) | changes
            card.pop("model_sha256", None)
            shards = {path.name: sha256(path) for path in sorted(folder.glob("model-*.safetensors")) if path.is_file()}
            whole = sha256(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else "0" * 64
            card["weights_sha256"] = shards or whole
            path.write_text(json.dumps(card), encoding="utf-8")


def some_file(folder, rng):
    return rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))


def weights_file(folder, rng):
    return rng.choice(sorted(folder.glob("model*.safetensors")))


def flip(folder, rng):
    path = some_file(folder, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 4)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(folder, rng):
    path = some_file(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def replace_file(folder, rng):
    """Something that is no such file, a pipe that nobody writes to among them."""
    path = some_file(folder, rng)
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path)
    elif kind == 3:
        path.write_text(rng.choice(["", "null", "[]", "3", '"x"', "[" * 99_999, "{" * 999, "\ufeff{}"]))
    elif kind == 4:
        path.write_bytes(rng.randbytes(rng.randrange(1, 3000)))


def places(value, path=()):
    """Every place in nested JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*path, key))


def edit_json(folder, rng):
    """One to three entries of a card or a configuration replaced, deleted or added."""
    files = [path for path in folder.iterdir() if path.suffix == ".json" and path.stat().st_size < 100_000]
    path = rng.choice(sorted(files))
    content = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(rng.randrange(1, 4)):
        where = rng.choice([place for place in places(content) if place] or [None])
        if where is None:
            break
        parent = content
        for key in where[:-1]:
            parent = parent[key]
        action = rng.randrange(4)
        if action == 0 and isinstance(parent, dict):
            del parent[where[-1]]
        elif action == 1 and isinstance(parent, dict):
            key = rng.choice(["", "kind", "layers", "blocks.0", "scale_format", "codebook"])
            parent[key] = deepcopy(rng.choice(VALUES))
        else:
            parent[where[-1]] = deepcopy(rng.choice(VALUES))
    path.write_text(json.dumps(content), encoding="utf-8")
    vouch(folder)


def edit_tensors(folder, rng):
    """One to three tensors dropped, renamed, reshaped, of another type, or of other values."""
    path = weights_file(folder, rng)
    tensors = load_file(path)
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice(sorted(tensors))
        tensor = tensors.pop(name)
        action = rng.randrange(9)
        if action == 1:
            tensors[rng.choice([f"{name}.codes", name[:-1], "", f"blocks.9.{name}", "x" * 3000])] = tensor
        elif action == 2:
            tensors[name] = tensor.flatten().clone()
        elif action == 3:
            tensors[name] = tensor[: len(tensor) // 2].clone() if tensor.dim() else tensor
        elif action == 4:
            tensors[name] = torch.cat((tensor, tensor)) if tensor.dim() else tensor[None]
        elif action == 5:
            tensors[name] = tensor.to(rng.choice([torch.float32, torch.int64, torch.uint8, torch.bool, torch.float64]))
        elif action == 6 and tensor.is_floating_point():
            tensors[name] = torch.full_like(tensor, rng.choice([torch.nan, torch.inf, -1.0, 0.0]))
        elif action == 7 and not tensor.is_floating_point():
            tensors[name] = torch.full_like(tensor, rng.choice([0, 1, 127]) if tensor.dtype == torch.int8 else 255)
        elif action == 8:
            tensors[name] = torch.empty(0)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    vouch(folder)


def edit_header(folder, rng):
    """A header that says something else of the same bytes."""
    path = weights_file(folder, rng)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    entry = header[rng.choice(sorted(key for key in header if key != "__metadata__"))]
    action = rng.randrange(4)
    if action == 0:
        entry["shape"] = rng.choice([[2**40, 2**40], [-1], [2**62], [], [0], [1] * 100, ["x"], None])
    elif action == 1:
        entry["data_offsets"] = rng.choice([[0, 2**60], [-5, 3], [9, 1], [], None])
    elif action == 2:
        entry["dtype"] = rng.choice(["F8_E4M3", "F64", "X", "", None, 3, "BF16"])
    text = json.dumps(header).encode()
    length = len(text) if action < 3 else rng.choice([0, 5, 2**40, 2**63])
    path.write_bytes(length.to_bytes(8, "little") + text + content[8 + size :])
    vouch(folder)


def edit_shards(folder, rng):
    """A shard that is missing, another, or one too many, and a tensor that lies in another; of one file, an index."""
    path, action = weights_file(folder, rng), rng.randrange(6)
    other = folder / f"model-0000{rng.randrange(5)}-of-00003.safetensors"
    if action == 0:
        path.unlink()
    elif action == 1 and path != other:
        shutil.copy(path, other)
    elif action == 2:
        path.rename(other)
    elif action == 3:
        save_file({}, other)
    else:
        tensors = load_file(path)
        name = rng.choice(sorted(tensors))
        there = load_file(other) if other.is_file() else {}
        save_file(there | {name: tensors[name]}, other)
        if action == 5 and path != other:
            save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    if not (folder / INDEX).is_file() and rng.randrange(2):
        (folder / INDEX).write_text(json.dumps({"weight_map": {"x": other.name}}))
    if rng.randrange(3):
        vouch(folder)


DAMAGES = (flip, truncate, replace_file, edit_json, edit_json, edit_json, edit_tensors, edit_tensors, edit_header,
           edit_shards)


# ---- what becomes of one ----


def read(kind: str, folder: Path) -> nn.Module:
    """Load a folder as its kind is loaded."""
    if kind in IMPORTS:
        return IMPORTS[kind](folder, small_gpt())
    return (nanoq.load if kind in FOREIGN else load)(folder).model


def from_python(kind: str, folder: Path, whole: Path | None = None) -> str:
    """"refused" or "accepted", or what is wrong: how it was refused, or a model other than that of the whole folder."""
    try:
        model = read(kind, folder)
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        clear = str(folder) in text and len(text) < 1500 and "\n" not in text.strip()
        return "refused" if clear else f"says: {text:.200}"
    except BaseException as error:
        return f"{type(error).__name__}: {error!s:.200}"
    if whole:
        expected, found = (m.state_dict() for m in (read(kind, whole), model))
        if expected.keys() != found.keys() or not all(torch.equal(expected[name], found[name]) for name in found):
            return "accepted with other weights"
    return "accepted"


def from_command(command: str, folder: Path, text: Path) -> str:
    """The same of the command line."""
    options = {"evaluate": ["--corpus", str(text), "--windows", "2", "--context", "8"], "info": []}[command]
    result = CliRunner().invoke(app, [command, str(folder), *options])
    if result.exit_code == 0:
        return "accepted"
    lines = result.stderr.splitlines()
    if result.exit_code == 2 and len(lines) == 1 and lines[0].startswith("nanoq: ") and len(lines[0]) < 1500:
        return "refused"
    return f"{command} exits with {result.exit_code}: {result.exception!r:.200} {result.stderr[-200:]}"


class OutOfPatience(BaseException):
    """Nothing that is loaded may take this for an error of its own."""


def out_of_patience(*_):
    raise OutOfPatience(f"no answer within {SECONDS} seconds")


def main() -> None:
    """Damage `--count` folders, and count what becomes of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, out_of_patience)
    outcomes, wrong, slowest = Counter(), [], (0.0, "")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        sound = sound_folders(root / "sound")
        text = root / "text.txt"
        text.write_text("abcdefghij abc the film was good \n" * 400, encoding="utf-8")
        for kind, folder in sound.items():  # also what there is to import, before memory is looked at
            assert from_python(kind, folder) == "accepted", kind
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(arguments.count):
            rng = random.Random(1_000_003 * arguments.seed + number)
            kind, damage = rng.choice(sorted(sound)), rng.choice(DAMAGES)
            folder = shutil.copytree(sound[kind], root / "damaged" / "model")
            with suppress(StopIteration):
                damage(folder, rng)
            started = time.perf_counter()
            signal.alarm(SECONDS)
            sealed = damage in (flip, truncate) and kind not in (*FOREIGN, *IMPORTS)  # formats without a digest
            found = {"python": from_python(kind, folder, sound[kind] if sealed else None)}
            if kind not in IMPORTS:
                command = rng.choice(["evaluate", "info"])
                found[command] = from_command(command, folder, text)
            signal.alarm(0)
            slowest = max(slowest, (time.perf_counter() - started, f"{number} {kind} {damage.__name__}"))
            for way, outcome in found.items():
                outcomes[f"{way} {outcome}" if outcome in ("refused", "accepted") else "wrong"] += 1
                if outcome not in ("refused", "accepted"):
                    wrong.append(f"{number} {kind} {damage.__name__}: {outcome}")
            shutil.rmtree(root / "damaged")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"outcomes": outcomes, "grown_mb": round(grown), "slowest": slowest, "wrong": wrong[:40]}))


if __name__ == "__main__":
    main()
