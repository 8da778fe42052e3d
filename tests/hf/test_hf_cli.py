import json
import os
import random
import re
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import make, make_masked_tokenizer, make_tokenizer
from typer.testing import CliRunner

import nanoq
from nanoq import hf
from nanoq.cli import app
from nanoq.lm import paired_difference, perplexity
from nanoq.lm.evaluate import evenly_spread
from nanoq.machine import machine_report
from nanoq.store import INDEX, WEIGHTS, load

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ok(*arguments):
    """The output of a command that has to succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr or result.exception
    return result.stdout


def size(folder):
    return (folder / WEIGHTS).stat().st_size


@pytest.fixture(scope="module", params=["opt", "bert encoder"])
def foreign(request, tmp_path_factory):
    """A tiny random model as transformers saves it, with a tokeniser."""
    folder = tmp_path_factory.mktemp("foreign") / request.param.replace(" ", "-")
    make(request.param).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def text(tmp_path, monkeypatch):
    """NANOQ_DATA with a little of what Hugging Face models are measured on; the path of its text."""
    words = random.Random(0).choices(["the", "film", "was", "good", "bad", "great", "cat"], k=4000)
    path = tmp_path / "wikitext2_valid.tokens"
    path.write_text("".join(f" {' '.join(words[i:i + 8])} . \n" for i in range(0, 4000, 8)), encoding="utf-8")
    for split in ("train", "test"):
        rows = [{"text": f"the {'good' if i % 2 else 'bad'} cat", "label": i % 2} for i in range(2000)]
        (tmp_path / f"imdb_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("NANOQ_DATA", str(tmp_path))
    return path


def test_a_model_is_quantised_by_a_recipe_and_evaluated(foreign, tmp_path):
    recipe = {"default": {"bits": 3, "method": "gptq"}, "rules": {"blocks.0.*": {"bits": 8}}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = tmp_path / "out"
    shown = ok("quantize", foreign, "--recipe", tmp_path / "recipe.json", "--context", 16, "--out", out)
    assert re.search(rf"{size(out):,} bytes, \d+\.\d\d bits a parameter\nlargest output error", shown)
    loaded = load(out)
    widths = {name: layout["bits"] for name, layout in loaded.card["layers"].items()}
    assert widths == {name: 8 if ".0." in name else 3 for name in widths} and len(widths) == 12
    assert json.loads(ok("info", out))["layers"] == "12 quantised"
    for folder, model in ((foreign, nanoq.load(foreign).model), (out, loaded.model)):
        shown = ok("evaluate", folder, "--context", 16, "--windows", 20)
        if model.kind == "causal-lm":
            losses = hf.gptq_losses(model, hf.wikitext(loaded.tokenizer, 16), 20)
            expected = f"{perplexity(losses):.4f} per token on wikitext-2: 20 held-out windows of 16 tokens\n"
        else:
            expected = "accuracy            1.0000, standard error 0.0000"
        assert expected in shown and f"file                {size(folder):,} bytes" in shown


@pytest.mark.parametrize(("options", "windows", "length"), [
    ([], 512, 128), (["--context", 700], 94, 700), (["--windows", 3], 3, 128), (["--windows", 2, "--context", 9], 2, 9),
])
def test_calibration_text_is_65536_tokens_in_windows_of_128_unless_told(tmp_path, options, windows, length):
    make("opt", max_position_embeddings=1024).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    ok("quantize", tmp_path / "model", "--out", tmp_path / "out", *options)
    card = load(tmp_path / "out").card["calibration"]
    assert (card["windows"], card["of"]) == (windows, [length])


def test_a_masked_language_model_is_measured_by_its_pseudo_perplexity_or_by_reviews(tmp_path):
    make("bert").save_pretrained(tmp_path / "model")
    make_masked_tokenizer().save_pretrained(tmp_path / "model")
    ok("quantize", tmp_path / "model", "--bits", 3, "--context", 16, "--out", tmp_path / "out")
    loaded, before = load(tmp_path / "out"), nanoq.load(tmp_path / "model")
    assert json.loads(ok("info", tmp_path / "out"))["layers"] == "12 quantised"
    windows = hf.enclose_windows(loaded.tokenizer, hf.wikitext(loaded.tokenizer, 16))
    windows = windows[evenly_spread(len(windows), 20)]
    losses, others = (hf.masked_losses(each.model, each.tokenizer, windows, every=8) for each in (loaded, before))
    shown = ok("evaluate", tmp_path / "out", "--context", 16, "--windows", 20, "--against", tmp_path / "model")
    assert (f"{perplexity(losses):.4f} per token on wikitext-2: 20 held-out windows of 16 tokens, every 8th masked by "
            "itself (pseudo-perplexity)\n") in shown
    assert f"added loss          {paired_difference(losses, others).mean:+.5f} nats per token" in shown
    assert "bits per byte" not in shown and "KL divergence" not in shown
    assert "windows of 66 tokens, every 8th" in ok("evaluate", tmp_path / "out", "--windows", 4)  # its whole context
    shown = ok("evaluate", tmp_path / "out", "--corpus", "imdb", "--windows", 20)
    assert "accuracy            1.0000" in shown and "pseudo-perplexity" not in shown


def test_a_streamed_model_is_what_is_made_in_memory(foreign, tmp_path):
    options = ["--bits", 3, "--context", 16, "--windows", 24]
    for more, out in ((["--stream"], tmp_path / "streamed"), (["--no-stream"], tmp_path / "whole")):
        assert "bits a parameter" in ok("quantize", foreign, *options, *more, "--out", out)
    streamed, whole = (load(tmp_path / name) for name in ("streamed", "whole"))
    state = streamed.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())
    assert streamed.card["calibration"] == whole.card["calibration"]
    shown = ok("evaluate", tmp_path / "streamed", "--context", 16, "--windows", 20, "--against", tmp_path / "whole")
    assert "added loss          +0.00000" in shown
    refused = run("quantize", foreign, "--stream", "--average-bits", 3, "--out", tmp_path / "no")
    assert refused.exit_code == 2 and "--stream takes none of --average-bits" in refused.stderr


def test_a_model_that_free_memory_does_not_hold_is_streamed(foreign, tmp_path, monkeypatch):
    options = ["--bits", 4, "--method", "nearest"]
    assert "--no-stream" not in ok("quantize", foreign, *options, "--out", tmp_path / "fits")
    report = replace(machine_report(), free_memory_gb=1e-5)
    monkeypatch.setattr("nanoq.machine.machine_report", lambda: report)
    shown = " ".join(ok("quantize", foreign, *options, "--out", tmp_path / "large").split())
    assert "the model takes 0.0 GB in memory, of which 0.0 GB are free: one block in memory at a time" in shown
    assert (tmp_path / "large" / INDEX).is_file() and not (tmp_path / "fits" / INDEX).exists()
    ok("quantize", foreign, *options, "--no-stream", "--out", tmp_path / "all at once")
    assert not (tmp_path / "all at once" / INDEX).exists()


def test_a_model_is_replaced_on_demand_only_and_never_by_what_is_made_of_it(foreign, tmp_path):
    command = ["quantize", foreign, "--method", "nearest"]
    assert "which would be lost" in run(*command, "--out", foreign, "--force").stderr
    mine = shutil.copytree(foreign, tmp_path / "mine")
    assert "or replace it with --force" in " ".join(run(*command, "--out", mine).stderr.split())
    for more in (["--force"], ["--bits", 3]):  # what was made by quantize may be made again
        ok(*command, "--out", mine, *more)


def test_a_corpus_without_a_name_is_one_line(foreign):
    result = run("evaluate", foreign, "--corpus", "", "--context", 16)
    assert result.exit_code == 2 and re.match(r"nanoq: no (corpus|reviews) ''", result.stderr)


def test_average_bits_make_a_mixed_recipe_of_a_causal_model(foreign, tmp_path):
    result = run("quantize", foreign, "--average-bits", 3.5, "--context", 16, "--out", tmp_path / "mixed")
    if "bert" in foreign.name:
        assert result.exit_code == 2 and "which this model does not predict" in " ".join(result.stderr.split())
        return
    assert result.exit_code == 0, result.exception
    refused = run("quantize", foreign, "--average-bits", 0, "--context", 16, "--out", tmp_path / "none")
    assert refused.exit_code == 2 and "average_bits must be in 2..8, not 0.0" in refused.stderr
    widths = {layout["bits"] for layout in load(tmp_path / "mixed").card["layers"].values()}
    assert len(widths) > 1
    for bits in (3, 4):
        ok("quantize", foreign, "--bits", bits, "--context", 16, "--out", tmp_path / str(bits))
    assert size(tmp_path / "3") < size(tmp_path / "mixed") < size(tmp_path / "4")


@pytest.mark.parametrize("command", ["info", "evaluate"])
def test_a_damaged_card_is_one_line(command, foreign, tmp_path):
    shutil.copytree(foreign, tmp_path / "model")
    (tmp_path / "model" / "card.json").write_text("{")
    result = run(command, tmp_path / "model")
    assert result.exit_code == 2 and "card.json is not a nanoq card" in result.stderr


def test_a_look_at_a_folder_without_weights_says_so_and_counts_none_that_it_does_not_open(tmp_path):
    make("gpt2").save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    os.mkfifo(tmp_path / WEIGHTS)
    result = run("info", tmp_path)
    assert (result.exit_code, result.stderr) == (
        2, f"nanoq: {tmp_path} has no {WEIGHTS}, and no shards of one: copy or fetch it again\n")
    torch.save(make("gpt2").state_dict(), tmp_path / "pytorch_model.bin")
    shown = json.loads(ok("info", tmp_path))
    assert "parameters" not in shown and shown["bytes"] == (tmp_path / "pytorch_model.bin").stat().st_size


def test_a_model_takes_a_text_of_ones_own(text, tmp_path):
    make("gpt2").save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    ok("quantize", tmp_path / "model", "--corpus", text, "--context", 16, "--out", tmp_path / "out")
    shown = ok("evaluate", tmp_path / "out", "--corpus", text, "--full", "--context", 16)
    assert re.search(rf"on {text}: \d\d held-out windows of 16 tokens\n", shown)


def test_a_folder_without_a_tokeniser_is_quantised_by_what_needs_none(tmp_path):
    make("llama").save_pretrained(tmp_path / "model")
    ok("quantize", tmp_path / "model", "--method", "nearest", "--out", tmp_path / "out")
    result = run("evaluate", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("nanoq: the model came without a tokeniser: put its tokenizer.json into")


@pytest.mark.parametrize("command", ["quantize nobody/nothing --out {out}", "evaluate nobody/nothing"])
def test_a_model_that_is_nowhere_is_one_line(command, tmp_path):
    result = run(*command.format(out=tmp_path / "out").split())
    assert result.exit_code == 2
    assert re.fullmatch(r"nanoq: no model 'nobody/nothing' here.* Three ways to get another: .*\n", result.stderr)


def test_a_window_beyond_the_context_is_one_line(foreign):
    result = run("quantize", foreign, "--context", 99, "--out", foreign / "out")
    assert result.exit_code == 2
    assert re.fullmatch(r"nanoq: 99 tokens do not fit the model's context of 6\d\n", result.stderr)
