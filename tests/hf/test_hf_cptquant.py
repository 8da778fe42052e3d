import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import make, make_masked_tokenizer, make_tokenizer

import nanoq
from nanoq import hf
from nanoq.lm.evaluate import paired_difference
from nanoq.mixed import recipe_of
from nanoq.quant import quantize_model
from nanoq.store import load, save

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
cptquant = importlib.import_module("cptquant")
sys.path.pop(0)

pytestmark = pytest.mark.filterwarnings("ignore:.*samples are few")
EFFORT = cptquant.Effort(windows=8, context=16, reviews=20, rows=6)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two random models as transformers saves them, in a folder that NANOQ_DATA can name."""
    root = tmp_path_factory.mktemp("models")
    for family, name in (("opt", "facebook/opt-1.3b"), ("bert encoder", "bert")):
        make(family, num_hidden_layers=4).save_pretrained(root / name)
        make_tokenizer().save_pretrained(root / name)
    make("bert", num_hidden_layers=4).save_pretrained(root / "bert masked")
    make_masked_tokenizer().save_pretrained(root / "bert masked")
    return root


@pytest.fixture(autouse=True)
def data(models, monkeypatch):
    """Texts beside the models."""
    lines = "".join(f" the film was {'good' if i % 3 else 'bad'} and great . \n" for i in range(400))
    (models / "wikitext2_valid.tokens").write_text(lines, encoding="utf-8")
    for split in ("train", "test"):
        rows = [{"text": f"the film was {'good' if i % 2 else 'bad'} {'and great ' * (i % 5)}.", "label": i % 2}
                for i in range(40)]
        (models / f"imdb_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("NANOQ_DATA", str(models))


def test_every_number_of_the_grid_is_that_of_a_model_from_its_file(tmp_path):
    rows = [row for row in cptquant.table_rows(["facebook/opt-1.3b"], effort=EFFORT) if not row["skipped"]]
    wanted = [(task, method) for task in ("imdb", "wikitext-2") for method in cptquant.METHODS]
    assert [(row["task"], row["method"]) for row in rows] == wanted
    original = nanoq.load("facebook/opt-1.3b")
    windows = hf.wikitext(original.tokenizer, 16)
    before = hf.gptq_losses(original.model, windows, 8)
    for row in rows[len(cptquant.METHODS):]:
        checkpoint = nanoq.load("facebook/opt-1.3b")
        recipe = recipe_of({f"blocks.{i}": int(bits) for i, bits in enumerate(row["widths"].split())}, "nearest")
        quantize_model(checkpoint.model, recipe)
        path = save(tmp_path / row["method"], checkpoint)
        size = (path / "model.safetensors").stat().st_size
        losses = hf.gptq_losses(load(path).model, windows, 8)
        difference = paired_difference(losses, before)
        assert row["base"] == pytest.approx(math.exp(before.mean()))
        assert row["change"] == pytest.approx(math.exp(losses.mean()) - math.exp(before.mean()), abs=1e-6)
        assert row["low"] == pytest.approx(row["base"] * math.expm1(difference.low), abs=1e-5)
        assert row["cr_fp32"] == 2 * row["cr_fp16"] == 4 * original.model.parameter_count() / size
        assert row["published"] == cptquant.PUBLISHED["facebook/opt-1.3b", "wikitext-2"].get(row["method"], "")


def test_casts_and_uniform_widths_have_the_ratios_that_everybody_knows():
    rows = {row["method"]: row for row in cptquant.table_rows(["facebook/opt-1.3b"], ["wikitext-2"], EFFORT)}
    assert rows["FP16"]["cr_linear"] == 2 and rows["FP16"]["cr_fp32"] <= 2 and rows["FP16"]["speed"] == 1
    assert 2 < rows["INT8"]["cr_linear"] < 4
    for method in ("CMPQ", "PMPQ", "TDMPQ"):
        assert set(rows[method]["widths"].split()) == {"16", "8", "4"}  # three clusters, none of them empty


def test_an_encoder_has_an_accuracy_and_a_reason_for_what_it_lacks():
    rows = list(cptquant.table_rows(["bert"], effort=EFFORT))
    assert [row["method"] for row in rows] == [*cptquant.METHODS, ""]
    assert rows[0]["change"] == 0 and 0 <= rows[0]["base"] <= 1
    assert all(row["low"] <= row["change"] <= row["high"] for row in rows[:-1])
    assert rows[-1]["skipped"] == "a model of kind 'encoder' predicts no next token, and so has no perplexity"


def test_a_masked_language_model_has_a_pseudo_perplexity(tmp_path):
    rows = list(cptquant.table_rows(["bert masked"], ["wikitext-2"], EFFORT))
    assert [row["method"] for row in rows] == list(cptquant.METHODS)
    original = nanoq.load("bert masked")
    windows = hf.enclose_windows(original.tokenizer, hf.wikitext(original.tokenizer, 16))
    windows = windows[torch.linspace(0, len(windows) - 1, 8).round().long()]
    before = hf.masked_losses(original.model, original.tokenizer, windows, every=8)
    quantize_model(original.model, recipe_of(dict.fromkeys((f"blocks.{i}" for i in range(4)), 8), "nearest"))
    after = hf.masked_losses(load(save(tmp_path, original)).model, original.tokenizer, windows, every=8)
    assert rows[1]["base"] == pytest.approx(math.exp(before.mean()))
    assert rows[1]["value"] == pytest.approx(math.exp(after.mean()))
    assert rows[1]["low"] <= rows[1]["change"] <= rows[1]["high"] and rows[1]["cr_linear"] > 2
    assert len({row["widths"] for row in rows[2:]}) > 1  # the scores see the loss
    assert {row["chance"] for row in rows} == {rows[0]["chance"]} and 1 < rows[0]["chance"] < 14


def test_an_encoder_gets_a_head_for_masks_that_is_trained_with_the_rest(monkeypatch):
    encoder = nanoq.load("bert")
    encoder.tokenizer = make_masked_tokenizer()
    monkeypatch.setattr(cptquant.nanoq, "load", lambda name: encoder if name == "minilm" else None)
    tokens = torch.arange(16).view(2, 8)
    headed = cptquant._load("minilm-mlm", replace(EFFORT, epochs=1))
    assert headed.model.kind == "masked-lm" and encoder.model.kind == "encoder"
    torch.testing.assert_close(headed.model.model.bert(tokens)[0], encoder.model(tokens))
    untrained, trained = (
        next(cptquant.table_rows(["minilm-mlm"], ["wikitext-2"], replace(EFFORT, epochs=5, lr=lr)))
        for lr in (0.0, 3e-3))
    assert trained["base"] < trained["chance"] == untrained["chance"] < untrained["base"]
    (row,) = cptquant.table_rows(["minilm-mlm"], ["wikitext-2"], EFFORT)
    assert row["skipped"] == "the head of minilm-mlm is new: train it with --epochs"


def test_a_new_head_starts_with_the_frequencies_and_a_trained_one_as_it_is():
    tokens, effort = torch.tensor([4, 5, 5, 6] * 200), replace(EFFORT, epochs=1, lr=0.0)
    for name, new in (("bert masked", False), ("bert", True)):
        checkpoint = nanoq.load(name)
        model = cptquant.with_head(checkpoint.model) if new else checkpoint.model
        before = model.model.cls.predictions.bias.clone()
        cptquant.train_masked(model, make_masked_tokenizer(), tokens, effort)
        bias = model.model.cls.predictions.bias.detach()
        assert torch.equal(bias, before) != new
        if new:
            shares = torch.full((97,), 1 / 897)
            shares[[4, 5, 6]] = torch.tensor([201, 401, 201]) / 897
            torch.testing.assert_close(bias.exp(), shares)


def test_chance_is_the_perplexity_of_who_knows_the_frequencies():
    text, held_out = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([[0, 1], [3, 2]])  # token 3 was never seen
    expected = -sum(math.log(count / 10) for count in (4, 2, 1, 3)) / 4
    assert cptquant.unigram(text, held_out) == pytest.approx(math.exp(expected))


def test_a_model_that_is_not_there_is_left_out_with_a_reason(models):
    rows = list(cptquant.table_rows([str(models / "none")], effort=EFFORT))
    assert len(rows) == 2 and all(row["skipped"].startswith("no model") for row in rows)
    with pytest.raises(ValueError, match="no task sst2: there are imdb, wikitext-2"):
        list(cptquant.table_rows(["bert"], ["sst2"]))


def test_training_on_the_task_first_makes_the_base_better():
    efforts = [replace(EFFORT, epochs=epochs, lr=1e-3) for epochs in (0, 3)]
    untrained, trained = (
        next(cptquant.table_rows(["facebook/opt-1.3b"], ["wikitext-2"], effort)) for effort in efforts)
    assert trained["base"] < untrained["base"]


def test_sensitivities_leave_the_model_as_it_was():
    checkpoint = nanoq.load("bert")
    before = {name: p.clone() for name, p in checkpoint.model.named_parameters()}
    task = cptquant._TASKS["imdb"](checkpoint, EFFORT)
    assert task.rows[:, -1].unique().tolist() == [0, 1]
    for method in cptquant.METHODS:
        assert list(cptquant.allocation(checkpoint.model, task, method)) == [f"blocks.{i}" for i in range(4)]
    assert all(torch.equal(p, before[name]) for name, p in checkpoint.model.named_parameters())


def test_speed_counts_float16_layers_as_float32_ones():
    model = nanoq.load("bert").model
    assert cptquant.speed(model) == 1
    quantize_model(model, recipe_of({"blocks.0": 8}, "nearest"))
    assert 0 < cptquant.speed(model) < 20


def test_the_layout_is_the_papers_with_impossible_ratios_marked():
    row = {"model": "facebook/opt-1.3b", "task": "imdb", "method": "FP16", "base": 0.9, "value": 0.88, "change": -0.02,
           "low": -0.03, "high": -0.01, "cr_fp32": 2.0, "cr_fp16": 1.0, "cr_linear": 2.0, "speed": 1.0,
           "published": 2.35, "skipped": ""}
    header, line = cptquant.format_table([row])
    assert header[:3] == ["model", "method", "drop"]
    assert line == ["opt-1.3b", "FP16", "+0.020 ± 0.010", "2.00", "2.35*", "–", "–", "–", "1.00"]


def test_the_command_prints_the_table_and_writes_all_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cptquant.py", "bert", "--reviews", "8", "--out", str(tmp_path / "table.csv")])
    cptquant.main()
    printed = capsys.readouterr().out
    assert "left out: bert on wikitext-2: a model of kind 'encoder'" in printed
    assert all(method in printed for method in cptquant.METHODS)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == len(cptquant.METHODS) + 2
