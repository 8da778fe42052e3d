import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

import nanoq
from nanoq import __version__, cli
from nanoq.cli import app
from nanoq.compress import SCORES, SparseQuantLinear
from nanoq.hf import KINDS
from nanoq.lm import GPT, CharTokenizer, GPTConfig, TrainConfig, generate, load_corpus, perplexity, window_losses
from nanoq.quant import BLOCK_METHODS, GRIDS, METHODS
from nanoq.quant.export import FORMATS
from nanoq.store import CARD, WEIGHTS, Checkpoint, load, save, write_folder

NANOQ = Path(sys.executable).with_name("nanoq")
TINY = ["--layers", "2", "--heads", "2", "--width", "16", "--context", "16", "--batch", "4", "--evaluate-every", "10"]
ROW = ["method", "bits", "average_bits", "bytes", "perplexity", "delta_nats", "ci_low", "ci_high", "kl", "top1",
       "bits_above_bound"]
FOLDERS = {"float16": "float16", "RTN": "nearest-{}-bit", "GPTQ": "gptq-{}-bit",
           "GPTQ, entropy-coded": "gptq-{}-bit-entropy-coded"}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ok(*arguments):
    """The output of a command that has to succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr or result.exception
    return result.stdout


def size(folder):
    return (folder / WEIGHTS).stat().st_size


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A small text file of made-up sentences."""
    rng = random.Random(0)
    words = ["the", "a", "cat", "dog", "sun", "tree", "saw", "ran", "sat", "and", "big", "red", "by"]
    path = tmp_path_factory.mktemp("text") / "pets.txt"
    path.write_text("".join(" ".join(rng.choices(words, k=7)) + ".\n" for _ in range(400)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(text, tmp_path_factory):
    """A tiny model that `nanoq train` made."""
    out = tmp_path_factory.mktemp("runs") / "pets"
    ok("train", text, "--out", out, "--characters", 40 * 4 * 16, "--warmup", 5, *TINY)
    return out


@pytest.fixture(scope="module")
def quantized(model, tmp_path_factory):
    """The same model at 3 bits, made by `nanoq quantize`."""
    out = tmp_path_factory.mktemp("runs") / "pets3"
    ok("quantize", model, "--bits", 3, "--group-size", 8, "--out", out)
    return out


@pytest.fixture(scope="module")
def compared(model, tmp_path_factory):
    """The folder that `nanoq compare` filled, and what it printed."""
    out = tmp_path_factory.mktemp("compared")
    return out, ok("compare", model, "--bits", "8,2", "--windows", 12, "--out", out)


@pytest.fixture
def damaged(model, tmp_path):
    """A copy of the model's folder, to be damaged."""
    return shutil.copytree(model, tmp_path / "damaged")


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda command: command.callback.__name__)
def test_every_command_has_help_with_an_example_of_options_that_it_has(command):
    name = command.callback.__name__
    shown = ok(name, "--help")
    program, example, *rest = shlex.split(command.epilog.removeprefix("Example: "))
    assert (program, example) == ("nanoq", name)
    assert f"Example: nanoq {name}" in shown
    assert all(option in shown for option in rest if option.startswith("--"))


def test_without_a_command_the_commands_are_listed():
    shown = run().output
    names = ["compare", "train", "quantize", "evaluate", "generate", "corpus", "info"]
    assert all(re.search(rf"\b{name}\b", shown) for name in names)


def test_train_writes_a_checkpoint_whose_card_says_how(model, text):
    card = nanoq.load(model).card
    assert card["characters_seen"] == 40 * 4 * 16
    assert card["corpus"] == card["source"] == str(text)
    assert card["parameters"] == sum(t.numel() for t in load_file(model / WEIGHTS).values())
    tokens = nanoq.load(model).tokenizer.encode(load_corpus(text).valid)
    expected = perplexity(window_losses(nanoq.load(model).model, tokens))
    assert card["validation_perplexity"] == pytest.approx(expected, abs=1e-4)


def test_resuming_a_finished_training_writes_the_same_weights(damaged, text):
    before = (damaged / WEIGHTS).read_bytes()
    (damaged / WEIGHTS).unlink()
    ok("train", text, "--out", damaged, "--characters", 40 * 4 * 16, "--warmup", 5, *TINY, "--resume")
    assert (damaged / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("folder", ["model", "quantized"])
def test_evaluate_prints_perplexity_and_the_size_of_the_file(request, text, folder):
    folder = request.getfixturevalue(folder)
    shown = ok("evaluate", folder, "--full")
    loaded = load(folder)
    losses = window_losses(loaded.model, loaded.tokenizer.encode(load_corpus(text).test))
    assert f"{perplexity(losses):.4f} per character on pets: {len(losses)} held-out windows" in shown
    assert f"file                {size(folder):,} bytes" in shown


def test_evaluate_takes_as_many_windows_as_asked_for(model):
    assert ": 5 held-out windows of 16" in ok("evaluate", model, "--windows", 5)


def test_a_window_has_2048_tokens_at_most_unless_more_are_asked_for(text, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text(20 * text.read_text(encoding="utf-8"), encoding="utf-8")
    tokenizer = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz.")
    model = GPT(GPTConfig(tokenizer.vocab_size, context=4096, layers=1, heads=1, width=4))
    save(tmp_path / "model", Checkpoint(model, tokenizer, {}))
    length = len(load_corpus(long).test)
    for options, context in (([], 2048), (["--context", 4096], 4096)):
        shown = ok("evaluate", tmp_path / "model", "--corpus", long, "--full", *options)
        assert f"long: {(length - 1) // context} held-out windows of {context}" in shown
    assert length > 2 * 4096


def test_evaluate_counts_and_names_unknown_characters(model, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the cat sat.\n" * 190 + "the zebra sat.\n" * 10)
    assert re.search(r"unknown characters  \d+ of 1\d\d: \{'z': (\d+)\}", ok("evaluate", model, "--corpus", other))


def test_evaluate_names_the_most_frequent_unknown_characters_only(model, tmp_path):
    other = tmp_path / "other.txt"
    strange = "".join(chr(0x4E00 + i) * (30 - i) for i in range(30))
    other.write_text("the cat sat.\n" * 2000 + strange)
    shown = ok("evaluate", model, "--corpus", other, "--windows", 2)
    first = {chr(0x4E00 + i): 30 - i for i in range(10)}
    assert "unknown characters  465 of 1,3" in shown and f": {first}, and 20 others\n" in shown


def test_work_on_a_text_that_the_model_does_not_know_says_so(model, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("从前有一只猫。\n" * 900, encoding="utf-8")
    for command in ("compare", "quantize", "prune"):
        out = [] if command == "compare" else ["--out", tmp_path / "out"]
        result = run(command, model, "--corpus", other, *out)
        assert_one_line(result, "characters of other are unknown to the model: give a text")


def test_compare_counts_unknown_characters_below_its_table(model, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the cat sat.\n" * 190 + "the zebra sat.\n" * 10)
    shown = " ".join(ok("compare", model, "--corpus", other, "--bits", 8, "--windows", 2).split())
    assert re.search(r"for every row; \d+ of 1\d\d characters are unknown to the checkpoint", shown)


@pytest.mark.parametrize("command", ["compare", "evaluate", "quantize", "prune"])
def test_a_corpus_without_a_name_is_one_line(model, command, tmp_path):
    out = ["--out", tmp_path / "out"] if command in ("prune", "quantize") else []
    assert_one_line(run(command, model, "--corpus", "", *out), "no corpus '': give a text file or one of")


def test_quantize_writes_a_smaller_model_and_reports_its_size(model, quantized, tmp_path):
    assert size(quantized) < size(model) / 2
    shown = ok("quantize", model, "--bits", 3, "--group-size", 8, "--out", tmp_path / "again")
    parameters = nanoq.load(model).model.parameter_count()
    assert f"{size(quantized):,} bytes, {8 * size(quantized) / parameters:.2f} bits a parameter" in shown
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (quantized / WEIGHTS).read_bytes()


def test_quantize_takes_a_block_format_and_refuses_what_it_does_not_have(model, tmp_path):
    ok("quantize", model, "--grid", "nf4", "--method", "nearest", "--out", tmp_path / "nf4")
    layers = load(tmp_path / "nf4").card["layers"]
    assert {layout["codebook"] for layout in layers.values()} == {"nf4"}
    result = run("quantize", model, "--grid", "nf4", "--group-size", 8, "--out", tmp_path / "no")
    assert result.exit_code == 2
    assert "no option 'group_size': the grid 'nf4' has none" in result.stderr


@pytest.mark.parametrize("more", [[], ["--average-bits", 3], ["--symmetric", "--search", "mse"]])
def test_quantize_takes_groups_that_are_fitted_on_the_way(model, tmp_path, more):
    ok("quantize", model, "--grid", "affine-dynamic", "--group-size", 8, "--out", tmp_path / "dynamic", *more)
    layers = load(tmp_path / "dynamic").card["layers"]
    assert len(layers) == 8 and {layout["group_size"] for layout in layers.values()} == {8}
    assert_one_line(run("quantize", model, "--grid", "affine-dynamic", "--out", tmp_path / "no"), "needs the option")


def test_quantize_rotates_a_model_first_and_says_so_in_the_card(model, tmp_path):
    ok("quantize", model, "--bits", 4, "--rotate", "--seed", 3, "--out", tmp_path / "rotated")
    loaded = load(tmp_path / "rotated")
    assert loaded.card["rotation"] == {"seed": 3} and loaded.model.config.norm == "rms"
    assert_one_line(run("quantize", "digits-resnet", "--rotate", "--out", tmp_path / "no"),
                    "a ResNet cannot be rotated exactly")
    assert_one_line(run("quantize", "opt-tales", "--rotate", "--stream", "--out", tmp_path / "no"),
                    "--stream takes none of --average-bits, --kind, --rotate and --export")


def test_quantize_follows_a_recipe_file(model, tmp_path):
    recipe = {"default": {"bits": 16}, "rules": {"blocks.1.mlp.*": {"bits": 4}}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8-sig")  # as Windows' editors write it
    ok("quantize", model, "--recipe", tmp_path / "recipe.json", "--out", tmp_path / "mixed")
    layers = load(tmp_path / "mixed").card["layers"]
    assert {name: layout["bits"] for name, layout in layers.items()} == {"blocks.1.mlp.up": 4, "blocks.1.mlp.down": 4}


def test_prune_writes_what_the_package_writes_and_the_other_commands_read_it(model, tmp_path):
    shown = ok("prune", model, "--sparsity", 0.5, "--bits", 4, "--out", tmp_path / "sparse")
    assert f"{size(tmp_path / 'sparse'):,} bytes" in shown and size(tmp_path / "sparse") < size(model) / 2
    layer = load(tmp_path / "sparse").model.blocks[0].mlp.up
    assert isinstance(layer, SparseQuantLinear) and (layer.dequantize() == 0).float().mean() >= 0.5
    assert json.loads(ok("info", tmp_path / "sparse"))["layers"] == "8 sparse-quant"
    assert f"{size(tmp_path / 'sparse'):,} bytes" in ok("evaluate", tmp_path / "sparse", "--windows", 2)
    assert ok("generate", tmp_path / "sparse", "--prompt", "a", "--length", 5).startswith("a")
    again = run("prune", tmp_path / "sparse", "--out", tmp_path / "again")
    assert_one_line(again, "the model is quantised already")


@pytest.mark.parametrize("folder", ["model", "quantized"])
def test_generate_prints_what_the_package_generates(request, folder):
    folder = request.getfixturevalue(folder)
    loaded = load(folder)
    expected = generate(loaded.model, loaded.tokenizer, "the cat", 40, temperature=0.5, top_k=3, seed=2)
    options = ["--prompt", "the cat", "--length", 40, "--temperature", 0.5, "--top-k", 3, "--seed", 2]
    assert ok("generate", folder, *options) == expected + "\n"


SLOW_TO_IMPORT = ["torch", "numpy", "numba", "scipy", "matplotlib", "transformers", "sklearn", "datasets"]


@pytest.mark.parametrize("arguments", ["--help", "quantize --help", "train --help", "doctor --help"])
def test_help_is_shown_without_the_packages_that_take_seconds_to_import(arguments):
    code = f"""
import atexit, sys
atexit.register(lambda: print(sorted(sys.modules.keys() & {SLOW_TO_IMPORT}), file=sys.stderr))
sys.argv += {arguments.split()}
from nanoq.__main__ import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "[]\n") and "Usage: " in result.stdout


def test_the_package_is_imported_in_parts_as_they_are_asked_for():
    code = ("import sys, nanoq; before = 'torch' in sys.modules; "
            "print(before, nanoq.quantize.__module__, nanoq.store.__name__, 'torch' in sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False nanoq.verbs nanoq.store True\n"


def test_the_verbs_are_imported_without_transformers():
    code = "import sys, nanoq.verbs; sys.exit(bool({'transformers', 'sklearn', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_help_names_what_there_is():
    for shown, there in [(cli.METHODS, [*METHODS, *BLOCK_METHODS]), (cli.GRIDS, GRIDS), (cli.SCORES, SCORES),
                         (cli.FORMATS, FORMATS), (cli.KINDS, KINDS)]:
        assert shown.split(", ") == list(there)


def test_train_has_the_defaults_of_the_package():
    given = {name: parameter.default for name, parameter in signature(cli.train).parameters.items()}
    there = {field.name: field.default for part in (GPTConfig, TrainConfig) for field in fields(part)}
    there["characters"] = there.pop("tokens")
    same = given.keys() & there.keys()
    assert len(same) == 15 and {name: given[name] for name in same} == {name: there[name] for name in same}


def test_corpus_shows_the_splits_and_writes_them(text, tmp_path):
    shown = ok("corpus", text, "--write", tmp_path)
    assert shown.startswith(f"pets: {text}")
    parts = [(tmp_path / f"{split}.txt").read_text(encoding="utf-8") for split in ("train", "valid", "test")]
    assert "".join(parts) == text.read_text(encoding="utf-8")
    assert all(f"{len(part):,} characters" in shown for part in parts)
    (tmp_path / "valid.txt").write_text("mine")
    assert_one_line(run("corpus", text, "--write", tmp_path), "holds train.txt, valid.txt, test.txt already")
    assert (tmp_path / "valid.txt").read_text() == "mine"
    ok("corpus", text, "--write", tmp_path, "--force")
    assert (tmp_path / "valid.txt").read_text(encoding="utf-8") == parts[1]


def test_info_prints_a_card_as_json(model, quantized):
    card = json.loads(ok("info", model))
    assert card["config"]["width"] == 16 and card["layers"] == "0 quantised"
    assert json.loads(ok("info", quantized))["layers"] == "8 quantised"


def test_info_lists_what_is_shipped(model, tmp_path, monkeypatch):
    shutil.copytree(model, tmp_path / "checkpoints" / "pets-7k")
    monkeypatch.setattr("nanoq.cli.data_dir", lambda: tmp_path)
    shown = ok("info")
    assert f"nanoq {__version__}, torch {torch.__version__}" in shown
    assert re.search(r"pets-7k +[\d,]+ parameters, validation perplexity", shown)


def test_compare_writes_the_same_rows_as_json_and_csv_with_the_documented_keys(compared):
    out, _ = compared
    rows = json.loads((out / "leaderboard.json").read_text())
    with open(out / "leaderboard.csv", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ROW and all(list(row) == ROW for row in rows)
    assert table[1:] == [["" if value is None else str(value) for value in row.values()] for row in rows]


def test_compare_measures_every_method_at_every_width(compared):
    rows = json.loads((compared[0] / "leaderboard.json").read_text())
    assert [(row["method"], row["bits"]) for row in rows] == [
        ("float32", 32), ("float16", 16), ("RTN", 8), ("RTN", 2), ("GPTQ", 8), ("GPTQ", 2),
        ("GPTQ, entropy-coded", 2),
    ]


def test_compare_counts_the_bytes_of_the_files_that_it_saved(compared, model):
    out, _ = compared
    reference, *rows = json.loads((out / "leaderboard.json").read_text())
    assert reference["bytes"] == size(model)
    parameters = nanoq.load(model).model.parameter_count()
    for row in rows:
        assert row["bytes"] == size(out / "models" / FOLDERS[row["method"]].format(row["bits"]))
        assert row["average_bits"] == 8 * row["bytes"] / parameters


def test_compare_gives_the_perplexity_of_the_models_that_it_saved(compared, text):
    out, _ = compared
    for row in json.loads((out / "leaderboard.json").read_text())[1:]:
        loaded = load(out / "models" / FOLDERS[row["method"]].format(row["bits"]))
        losses = window_losses(loaded.model, loaded.tokenizer.encode(load_corpus(text).test), limit=12)
        assert row["perplexity"] == perplexity(losses)


def test_compare_puts_the_difference_inside_its_interval(compared):
    reference, *rows = json.loads((compared[0] / "leaderboard.json").read_text())
    assert reference["delta_nats"] == reference["ci_low"] == reference["ci_high"] == 0
    assert all(row["ci_low"] <= row["delta_nats"] <= row["ci_high"] for row in rows)
    assert rows[-1]["bits"] == 2 and rows[-1]["ci_low"] < rows[-1]["ci_high"]


def test_compare_draws_the_leaderboard(compared):
    assert (compared[0] / "leaderboard.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_compare_prints_a_line_for_every_row(compared):
    out, shown = compared
    for row in json.loads((out / "leaderboard.json").read_text()):
        assert re.search(rf"^ *{row['method']} +{row['bits']} .* {row['bytes']:,} ", shown, re.MULTILINE)


def test_compare_full_takes_every_window(model, text):
    windows = (len(load_corpus(text).test) - 1) // 16
    assert f"the same {windows} held-out windows of 16" in ok("compare", model, "--bits", "8", "--full")


def assert_one_line(result, message):
    """Exit code 2, and one line on stderr that says what is wrong."""
    assert result.exit_code == 2, result.exception
    assert re.fullmatch(rf"nanoq: .*{message}.*\n", result.stderr), result.stderr


@pytest.mark.parametrize("command", ["compare", "evaluate", "generate", "info", "prune", "quantize"])
def test_an_unknown_checkpoint_is_one_line(command, tmp_path):
    out = ["--out", tmp_path / "out"] if command in ("prune", "quantize") else []
    assert_one_line(run(command, "nowhere", *out), "no model .*'nowhere'")


@pytest.mark.parametrize("command", ["compare {model} --corpus", "evaluate {model} --corpus", "train", "corpus"])
def test_an_unknown_corpus_is_one_line(command, model, tmp_path):
    out = ["--out", tmp_path / "out"] if command == "train" else []
    assert_one_line(run(*command.format(model=model).split(), "nosuch", *out), "no corpus 'nosuch'")


@pytest.mark.parametrize(("command", "message"), [
    ("compare {model} --bits 4,9", "bits must be in 2"),
    ("compare {model} --bits four", "--bits takes numbers"),
    ("quantize {model} --bits 1 --out {out}", r"bits must be 16 or in 2\.\.8, not 1"),
    ("quantize {model} --method magic --out {out}", "no method 'magic'"),
    ("quantize {model} --search luck --out {out}", "luck"),
    ("quantize {model} --group-size 0 --out {out}", "group_size"),
    ("quantize {model} --out {file}", "taken"),
    ("quantize {model} --recipe {file} --out {out}", "taken is not JSON"),
    ("quantize {model} --recipe {out}/missing.json --out {out}", r"missing\.json"),
    ("quantize {model} --recipe {folder} --out {out}", "directory"),
    ("prune {model} --out {out} --method guess", "no method 'guess' to prune by"),
    ("prune {model} --out {out} --sparsity 1", r"sparsity must lie in \[0, 1\)"),
    ("prune {model} --out {out} --pattern 2-4", "pattern must be"),
    ("prune {model} --out {out} --bits 9", "bits must be 16"),
    ("generate {model} --device tpu", "no device 'tpu' on this machine; use --device auto"),
    ("generate {model} --device meta", "no device 'meta'"),
    ("generate {model} --device cuda:99", "no device 'cuda:99'"),
    ("generate {model} --temperature -1", "temperature must not be negative"),
    ("generate {model} --top-k 0", "top_k must be at least 1"),
    ("train {text} --out {out} --heads 5", "width 192 is not divisible by 5 heads"),
    ("train {text} --out {out} --optimizer sgd", "optimizer must be 'muon' or 'adamw'"),
    ("train {text} --out {out} --characters 10", "10 tokens are less than one step"),
    ("train {text} --out {out} --resume", "nothing to resume"),
    ("train {text} --out {out} --lr nan", "lr must be a finite number of at least 0, not nan"),
    ("train {text} --out {out} --warmup -1", "warmup must be a finite number"),
    ("train {text} --out {out} --width 6000000", r"[\d,]+ parameters needs [\d,]+ GB of memory, and there are"),
    ("train {file} --out {out} --context 16", r"taken is empty, or too short to be cut into texts"),
    ("train {text} --out {out} --context 50000", "of the validation text are too few for one window of 50000"),
    ("corpus {text} --write {file}", "taken"),
    ("quantize {model} --recipe {recipe} --bits 2 --act-order --out {out}", "each layer: not with --bits, --act-order"),
    ("quantize {model} --recipe {recipe} --average-bits 3 --out {out}", "not with --average-bits"),
    ("generate opt-tales --top-k 0", "top_k must be at least 1"),
    ("evaluate {model} --against opt-tales --windows 2", "different tokenisers"),
    ("corpus {binary}", "binary is not UTF-8 text"),
])
def test_a_wrong_argument_is_one_line(command, message, model, text, tmp_path):
    (tmp_path / "taken").write_text("once\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    places = {"model": model, "text": text, "out": tmp_path / "out", "folder": tmp_path}
    places |= {"file": tmp_path / "taken", "binary": tmp_path / "binary", "recipe": tmp_path / "recipe.json"}
    places["recipe"].write_text('{"default": {"bits": 4}}')
    assert_one_line(run(*command.format(**places).split()), message)


@pytest.mark.parametrize("command", [
    "compare {model} --out {file}", "prune {model} --out {file}", "quantize {model} --out {file}/deep",
    "train {text} --out {file}", "corpus {text} --write {file}",
])
def test_a_file_in_the_place_of_the_output_is_found_before_the_work(command, model, text, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("once\n")
    for work in ("lm.load_corpus", "cli._load", "teach.leaderboard.compare"):
        monkeypatch.setattr(f"nanoq.{work}", None)
    assert_one_line(run(*command.format(model=model, text=text, file=tmp_path / "taken").split()),
                    "taken is a file: give a folder")


# Torch 2.5 writes a file of its own before it makes its first optimiser: that is done before the disk is full.
FULL_DISK = ("import resource, torch._dynamo; from nanoq.cli import app; "
             "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); app()")


@pytest.mark.parametrize("command", ["train {text} --out out {tiny}", "corpus {text} --write out"])
def test_a_full_disk_is_one_line_and_leaves_nothing(command, text, tmp_path):
    command = command.format(text=text, tiny=" ".join(["--characters 2560", *TINY])).split()
    result = subprocess.run([sys.executable, "-c", FULL_DISK, *command], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert re.fullmatch(r"nanoq: .*File too large.*\bout/(state.safetensors|train.txt)\b.*\n|"
                        r"nanoq: .*\bout/state.safetensors\b.*File too large.*\n", result.stderr), result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != "history.csv"] == []


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["the same", "a link"])
@pytest.mark.parametrize("command", ["quantize", "prune"])
def test_a_model_is_not_written_over_the_one_that_it_is_made_of(damaged, tmp_path, command, name):
    out, before = damaged, contents(damaged)
    if name == "a link":
        out = tmp_path / "link"
        out.symlink_to(damaged)
    for force in ([], ["--force"]):
        assert_one_line(run(command, damaged, "--out", out, *force), "the folder of the model that is read")
    assert contents(damaged) == before


def test_a_row_of_the_leaderboard_is_not_compared_into_its_own_folder(compared):
    out, _ = compared
    result = run("compare", out / "models" / "float16", "--out", out)
    assert_one_line(result, "lies among the models that are written to")


@pytest.mark.parametrize("lacking", [[], [CARD], [WEIGHTS]])
@pytest.mark.parametrize("command", ["train {text} {tiny}", "quantize {model}", "prune {model}"])
def test_a_model_is_replaced_on_demand_only(damaged, model, text, command, lacking, monkeypatch):
    for file in lacking:
        (damaged / file).unlink()
    before = contents(damaged)
    command = command.format(text=text, model=model, tiny=" ".join(["--characters 2560", *TINY])).split()
    again = run(*command, "--out", damaged)
    assert_one_line(again, r"holds a model already \(.*\): .*name another folder, or replace it with --force")
    assert ("--resume" in again.stderr) == (command[0] == "train")
    assert contents(damaged) == before
    monkeypatch.setattr(sys, "argv", ["nanoq", *command, "--force"])
    ok(*command, "--out", damaged, "--force")
    assert (damaged / WEIGHTS).read_bytes() != before.get(WEIGHTS)
    told = json.loads((damaged / CARD).read_text(encoding="utf-8"))["command"]
    assert told.endswith(command[-1]) if "train" in command else told == nanoq.load(model).card["command"]


def test_a_training_that_was_stopped_is_not_started_anew_by_mistake(damaged, text):
    for file in (WEIGHTS, CARD):
        (damaged / file).unlink()
    assert_one_line(run("train", text, "--out", damaged, *TINY), "go on with its training by --resume")


def test_what_quantize_and_prune_made_may_be_made_again(model, tmp_path):
    for command in (["prune"], ["quantize", "--bits", 3], ["quantize", "--bits", 4], ["prune"]):
        ok(*command, model, "--out", tmp_path / "out")


def test_a_model_of_ours_does_not_come_beside_the_configuration_of_another(model, text, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for command in (["quantize", model], ["train", text, "--force"]):
        assert_one_line(run(*command, "--out", tmp_path), r"whose config\.json would stay: name another folder")


def test_an_empty_prompt_is_one_line(model):
    assert_one_line(run("generate", model, "--prompt", ""), "the prompt is empty")


@pytest.mark.parametrize(("recipe", "message"), [
    ("[]", "not a recipe"),
    ("{}", "it needs a 'default'"),
    ("[" * 100_000, "is not JSON: maximum recursion"),
    ('{"default": {"bits": 4, "method": "gptq", "method_options": {"damping": "x"}}}', "takes a finite number for"),
    ('{"default": {"bits": 4, "colour": "red"}}', "colour"),
    ('{"default": {"bits": 40}}', "not 40"),
    ('{"default": {"bits": 4}, "rules": {"nowhere": {"bits": 2}}}', "'nowhere' names no layer"),
])
def test_json_that_is_no_recipe_is_one_line(model, tmp_path, recipe, message):
    (tmp_path / "recipe.json").write_text(recipe)
    assert_one_line(run("quantize", model, "--recipe", tmp_path / "recipe.json", "--out", tmp_path / "out"), message)


def test_an_error_leaves_no_output(model, tmp_path):
    run("quantize", model, "--bits", 1, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["compare", "evaluate", "generate", "info"])
def test_a_damaged_folder_is_one_line(damaged, command):
    (damaged / WEIGHTS).write_bytes((damaged / WEIGHTS).read_bytes()[:999])
    assert_one_line(run(command, damaged), r"model\.safetensors is damaged")


def test_weights_that_do_not_fit_are_one_line(damaged):
    card = json.loads((damaged / CARD).read_text(encoding="utf-8"))
    write_folder(damaged, {"foreign": torch.zeros(2)}, card)
    assert_one_line(run("evaluate", damaged), "do not fit its card")


def test_a_card_that_names_no_corpus_asks_for_one(damaged):
    card = json.loads((damaged / CARD).read_text(encoding="utf-8"))
    del card["corpus"]
    (damaged / CARD).write_text(json.dumps(card), encoding="utf-8")
    assert_one_line(run("evaluate", damaged), "names no corpus: give one with --corpus")


def test_the_installed_program_reports_an_error_in_one_line():
    result = subprocess.run([NANOQ, "evaluate", "nowhere"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"nanoq: no model 'nowhere' here.*\n", result.stderr)


def program(*arguments, **variables):
    """Start the program in a process of its own."""
    command = [sys.executable, "-c", "from nanoq.cli import app; app()", *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("command", "variables"), [
    ("compare {model} --bits 8 --windows 2", {"PYTHONIOENCODING": "cp1252"}),
    ("compare {model} --bits 8 --windows 2", {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}),
    ("corpus {text}", {"PYTHONIOENCODING": "ascii"}),
], ids=["cp1252", "C", "ascii"])
def test_a_terminal_without_a_letter_gets_another_one(model, text, command, variables):
    process = program(*command.format(model=model, text=text).split(), **variables)
    shown, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, b"")
    assert len(shown.splitlines()) >= 5


@pytest.mark.parametrize(("command", "unbuffered"), [
    ("generate {model} --length 100000", ""), ("info", ""), ("info", "1"), ("--help", ""),
])
def test_a_reader_who_has_enough_ends_the_program_without_a_word(model, command, unbuffered):
    process = program(*command.format(model=model).split(), PYTHONUNBUFFERED=unbuffered)
    if "generate" in command:
        process.stdout.read(30)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(("command", "unbuffered"), [
    ("generate {model}", ""), ("info", ""), ("info", "1"), ("--help", ""),
])
def test_an_output_without_room_is_one_line(model, command, unbuffered):
    arguments = [sys.executable, "-c", "from nanoq.cli import app; app()", *command.format(model=model).split()]
    with open("/dev/full", "w") as full:
        result = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True,
                                env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    assert result.returncode == 2
    assert re.fullmatch(r"nanoq: .*No space left on device.*\n", result.stderr)


@pytest.mark.parametrize("columns", ["20", "300"])
def test_a_narrow_terminal_loses_no_number(compared, model, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    _, shown = compared
    narrow = ok("compare", model, "--bits", "8,2", "--windows", 12)
    assert [line.rstrip() for line in narrow.splitlines()[:7]] == [line.rstrip() for line in shown.splitlines()[:7]]
    header = narrow.splitlines()[0].split("  ")
    assert [title.strip() for title in header if title] == [
        "method", "bits", "bits/param", "bytes", "perplexity", "Δ nats", "95 % interval", "KL", "same top 1",
        "above bound"]


def test_the_package_is_the_program():
    command = [sys.executable, "-m", "nanoq", "evaluate", "nowhere"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith("nanoq: no model 'nowhere' here")


def test_a_backend_that_matplotlib_does_not_know_is_one_line(model):
    process = program("compare", model, MPLBACKEND="evil")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and re.fullmatch(rb"nanoq: .*'evil' is not a valid value.*\n", errors)


def test_the_installed_program_compares(model, text, tmp_path):
    command = [NANOQ, "compare", model, "--corpus", text, "--bits", "4", "--windows", "8", "--out", "board"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(json.loads((tmp_path / "board" / "leaderboard.json").read_text())) == 5


def test_a_training_that_goes_astray_is_one_line_and_no_checkpoint(text, tmp_path):
    command = ["train", text, "--out", tmp_path, "--characters", 2560, "--lr", 1e30, "--lr-rest", 1e30, *TINY]
    assert_one_line(run(*command), "the training went astray: the validation loss is (nan|inf) at step 10")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to "
                 "allocate 12000000000 bytes. Error code 12"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), MemoryError(),
], ids=lambda error: type(error).__name__)
def test_too_little_memory_is_one_line(model, monkeypatch, error):
    def fail(*_, **__):
        raise error
    monkeypatch.setattr("nanoq.tasks.row_losses", fail)
    amount = "it is full" if isinstance(error, MemoryError) else r"(12,000,000,000 bytes|2\.5 GiB) were asked for"
    assert_one_line(run("evaluate", model), f"not enough memory: {amount}")


def test_an_error_of_ours_is_no_lack_of_memory(model, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a fault")
    monkeypatch.setattr("nanoq.tasks.row_losses", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        CliRunner().invoke(app, ["evaluate", str(model)], catch_exceptions=False)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(model, seed):
    result = run("generate", model, "--seed", seed)
    assert result.exit_code == 2 and "'--seed'" in result.stderr


def test_ctrl_c_stops_the_installed_program_at_a_saved_step(text, tmp_path):
    command = [NANOQ, "train", text, "--out", tmp_path, "--characters", str(10**9), *TINY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "state.safetensors").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "")
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        step = json.loads(file.metadata()["nanoq"])["step"]
    assert shown == f"stopped at step {step}; go on with --resume\n"
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "state.safetensors"]


def test_a_rate_makes_entropy_coded_files_of_so_many_bits(tmp_path):
    for rate, most in ((1.5, 1.9), (3, 3.4)):
        out = ok("quantize", "tales-2.7m", "--rate", rate, "--windows", 16, "--embeddings", 8, "--out", tmp_path / "q",
                 "--force")
        assert "CodedLinear" in repr(load(tmp_path / "q").model)
        assert rate < float(re.search(r"([\d.]+) bits a parameter", out)[1]) < most
    assert_one_line(run("quantize", "tales-2.7m", "--rate", 9, "--out", tmp_path / "no"), "the rate must lie in 0.1..6")


def test_the_card_keeps_the_precision_of_calibration(tmp_path):
    ok("quantize", "tales-2.7m", "--windows", 4, "--precision", "bf16", "--out", tmp_path / "q")
    assert load(tmp_path / "q").card["recipe"]["precision"] == "bf16"
    assert_one_line(run("quantize", "tales-2.7m", "--precision", "fp8", "--out", tmp_path / "no"),
                    "precision must be 'fp32' or 'bf16', not 'fp8'")


def test_a_model_is_saved_again_entropy_coded(tmp_path):
    ok("quantize", "tales-2.7m", "--bits", 4, "--method", "nearest", "--out", tmp_path / "plain")
    out = ok("save", tmp_path / "plain", "--entropy", "--out", tmp_path / "coded")
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("plain", "coded")]
    assert sizes[1] < 0.95 * sizes[0] and f"{sizes[1]:,} bytes" in out
    assert "is the folder of the model that is read" in run(
        "save", tmp_path / "coded", "--out", tmp_path / "coded").stderr
