"""The OPT that ships: real enough that methods can be told apart, and here without a network."""

import json
import math

import pytest
import torch
from typer.testing import CliRunner

import nanoq
from nanoq import hf
from nanoq.cli import app
from nanoq.files import data_dir
from nanoq.lm import load_corpus, window_losses
from nanoq.mixed import recipe_of
from nanoq.quant import quantize_model, sample_windows
from nanoq.store import load, save

FOLDER = data_dir() / "checkpoints" / "opt-tales"


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("tales")


def test_it_goes_by_name_and_is_what_its_card_says(corpus):
    checkpoint, card = nanoq.load("opt-tales"), json.loads((FOLDER / "card.json").read_text())
    assert type(checkpoint.model.model).__name__ == "OPTForCausalLM" and not hf.is_quantized("opt-tales")
    assert checkpoint.model.parameter_count() == card["parameters"]
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 15e6
    tokens = hf.encode(checkpoint.tokenizer, corpus.valid)
    characters = len(corpus.valid) / len(tokens)
    assert characters == pytest.approx(card["characters_a_token"], abs=1e-3)
    nats = float(window_losses(checkpoint.model, tokens, limit=32).mean())
    assert math.exp(nats / characters) == pytest.approx(card["validation_perplexity"], rel=0.02)


def test_the_command_line_knows_it(tmp_path):
    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr or result.exception
        return result.stdout
    assert json.loads(run("info", "opt-tales"))["corpus"] == "tales"
    run("quantize", "opt-tales", "--method", "nearest", "--bits", 8, "--out", tmp_path / "q")
    for name in ("opt-tales", tmp_path / "q"):
        shown = run("evaluate", name, "--windows", 2)
        assert "on tales: 2 held-out windows of 256 tokens" in shown and "file  " in shown
    assert "the same 2 held-out windows of 256 tokens" in run("compare", "opt-tales", "--windows", 2, "--bits", "8")


def test_its_tokeniser_knows_every_text():
    tokenizer = nanoq.load("opt-tales").tokenizer
    for text in ("Once upon a time,\n\n\"Hello!\"", "Zoë's naïve <unk> @-@ 中文"):
        assert tokenizer.decode(hf.encode(tokenizer, text)) == text


def test_gptq_beats_rounding_and_the_file_gives_the_same_model(corpus, tmp_path):
    original = nanoq.load("opt-tales")
    tokens = hf.encode(original.tokenizer, corpus.train[:400_000])
    held_out = hf.encode(original.tokenizer, corpus.test[:60_000])
    base, losses = float(window_losses(original.model, held_out, limit=16).mean()), {}
    for method in ("nearest", "gptq"):
        checkpoint = nanoq.load("opt-tales")
        recipe = recipe_of({f"blocks.{i}": 3 for i in range(6)}, method)
        quantize_model(checkpoint.model, recipe, sample_windows(tokens, 256, 32))
        folder = save(tmp_path / method, checkpoint)
        loaded = load(folder).model
        with torch.no_grad():
            assert torch.equal(loaded(held_out[None, :256]), checkpoint.model(held_out[None, :256]))
        losses[method] = float(window_losses(loaded, held_out, limit=16).mean()) - base
    assert 0 < losses["gptq"] < losses["nearest"] / 2
