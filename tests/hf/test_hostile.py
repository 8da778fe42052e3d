import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from hostile import small_gpt, write_plain, write_shards

import nanoq
from nanoq.hf import HFModel
from nanoq.hf.checkpoint import describe
from nanoq.hf.stream import quantize_folder
from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.quant import Recipe, export_gptq, import_gptq, quantize_model
from nanoq.store import CARD, INDEX, Checkpoint, load, save
from nanoq.vision import ResNet, ResNetConfig

FOLDERS = Path(__file__).with_name("hostile.py")


def test_300_hostile_folders_are_refused_in_one_sentence_or_are_the_model_that_was_saved():
    child = subprocess.run([sys.executable, FOLDERS, "--count", "300"], capture_output=True, text=True, timeout=1200)
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout.splitlines()[-1])
    assert result["wrong"] == []
    assert result["grown_mb"] < 500
    assert result["outcomes"]["python refused"] > 200 and result["outcomes"]["python accepted"] < 60
    assert sum(result["outcomes"].values()) > 500


def gpt(folder):
    return save(folder, Checkpoint(GPT(GPTConfig(4, 16, layers=1, heads=1, width=8)), CharTokenizer("abc"), {}))


def resnet(folder):
    return save(folder, Checkpoint(ResNet(ResNetConfig(widths=(4,))), None, {}))


def quantized_opt(folder):
    model = HFModel(tiny.make("opt"))
    quantize_model(model, Recipe(bits=4))
    return save(folder, Checkpoint(model, None, {}))


def plain_opt(folder):
    write_plain(folder)
    return folder


@pytest.mark.parametrize(("make", "read", "file", "entries"), [
    (gpt, load, CARD, {"layers": 10**6}),
    (gpt, load, CARD, {"context": 10**9}),
    (gpt, load, CARD, {"width": 10**6, "heads": 10**6}),
    (resnet, load, CARD, {"blocks_per_stage": 10**6}),
    (resnet, load, CARD, {"widths": [4] * 10**5}),
    (quantized_opt, load, CARD, {"num_hidden_layers": 10**6}),
    (quantized_opt, load, CARD, {"max_position_embeddings": 10**9}),
    (plain_opt, nanoq.load, "config.json", {"num_hidden_layers": 10**6}),
], ids=lambda value: str(value)[:30] if isinstance(value, dict) else None)
def test_a_configuration_of_something_enormous_is_refused_before_it_is_built(make, read, file, entries, tmp_path):
    path = make(tmp_path / "model") / file
    content = json.loads(path.read_text())
    (content["config"] if file == CARD else content).update(entries)
    content.pop("model_sha256", None)
    path.write_text(json.dumps(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=str(path.parent)):
        read(path.parent)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_a_card_without_end_is_not_parsed(tmp_path):
    path = gpt(tmp_path) / CARD
    path.write_text(path.read_text()[:-2] + "," + '"x": [' + "{}," * 6_000_000 + "{}]}")
    with pytest.raises(ValueError, match=r"card\.json has 18,"):
        load(tmp_path)


def plain_opt_in_shards(folder):
    write_plain(folder)
    write_shards(folder)
    return folder


def gptq(folder):
    model = small_gpt()
    quantize_model(model, Recipe(bits=4))
    return export_gptq(folder, model)


def gptq_in_shards(folder):
    write_shards(gptq(folder))
    return folder


def read_gptq(folder):
    return import_gptq(folder, small_gpt())


def stream(folder):
    return quantize_folder(folder, folder.with_name("out"), Recipe(bits=4))


@pytest.mark.parametrize(("make", "read", "file"), [
    (plain_opt, nanoq.load, "config.json"),
    (plain_opt, nanoq.load, "tokenizer_config.json"),
    (plain_opt, stream, "config.json"),
    (plain_opt, describe, "config.json"),
    (plain_opt_in_shards, nanoq.load, INDEX),
    (plain_opt_in_shards, stream, INDEX),
    (gptq, read_gptq, "quantize_config.json"),
    (gptq_in_shards, read_gptq, INDEX),
], ids=lambda value: getattr(value, "__name__", value))
def test_json_without_end_is_not_parsed(make, read, file, tmp_path):
    folder = make(tmp_path / "model")
    (folder / file).write_text("[" + "{}," * 6_000_000 + "{}]")
    with pytest.raises(ValueError, match=f"{folder / file} has 18,000,004 bytes"):
        read(folder)


@pytest.mark.parametrize("file", [CARD, "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path, file):
    gpt(tmp_path)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(FileNotFoundError, match="no model at"):
        load(tmp_path)


def test_a_byte_order_mark_before_a_card_does_no_harm(tmp_path):
    path = gpt(tmp_path) / CARD
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert load(tmp_path).model.config.width == 8
