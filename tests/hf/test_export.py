"""What can be exported is known before; `nanoq export` writes a folder with all that belongs to it."""

import json
import re

import pytest
import torch
import transformers
from tiny import make, make_tokenizer
from tiny_tokenizers import VOCABULARY, byte_level
from typer.testing import CliRunner

import nanoq
from nanoq.cli import app
from nanoq.compress import Prune, compress_model
from nanoq.hf import HFModel
from nanoq.lm import GPT, GPTConfig
from nanoq.quant import Recipe, Round, check_export, export_model, quantize_model
from nanoq.quant.export import FORMATS
from nanoq.quant.gguf_format import block_type
from nanoq.store import Checkpoint, layouts_of

GROUP = {"granularity": "group", "group_size": 32, "symmetric": True}
TOKENS = torch.randint(3, 97, (3, 9), generator=torch.Generator().manual_seed(1))
RECIPES = {
    "symmetric": Recipe(bits=4, grid_options=GROUP),
    "3 bits": Recipe(bits=3, grid_options=GROUP),
    "5 bits": Recipe("gptq", bits=5, grid_options=GROUP | {"search": "mse"}),
    "asymmetric": Recipe(bits=4),
    "asymmetric 8": Recipe(bits=8),
    "groups of 16": Recipe(bits=4, grid_options=GROUP | {"group_size": 16}),
    "groups of 24": Recipe(bits=4, grid_options=GROUP | {"group_size": 24}),
    "nf4": Recipe(bits=4, grid="nf4"),
    "dynamic": Recipe("gptq", bits=4, grid="affine-dynamic", group_size=32),
    "one layer": Recipe(Round(bits=4, grid_options=GROUP),
        rules={"blocks.1.mlp.up_proj": Round(bits=8, grid="affine")}),
}
HOLDS = {"compressed-tensors": {"symmetric", "3 bits", "5 bits", "groups of 16"},
         "gptq": {"symmetric", "asymmetric", "asymmetric 8", "groups of 16", "dynamic", "one layer"},
         "gguf": {"symmetric", "3 bits", "5 bits", "asymmetric", "dynamic"}}


def llama(**changes):
    return Checkpoint(HFModel(make("llama", vocab_size=VOCABULARY, **changes)).eval(), byte_level(), {})


@pytest.mark.parametrize("family", ["mixtral", "qwen3 moe", "gpt-oss"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_mixture_whose_experts_lie_in_one_parameter_is_refused_before_the_work(family, format):
    model = HFModel(make(family)).eval()
    with pytest.raises(ValueError, match=r"keeps in one parameter what lies in several layers|nanoq writes"):
        check_export(Recipe(bits=4, grid_options=GROUP), model, format)


def test_a_tokeniser_that_llama_cpp_does_not_have_is_refused_before_the_work():
    pytest.importorskip("gguf")
    with pytest.raises(ValueError, match="cannot be written in GGUF: its model is WordLevel"):
        check_export(RECIPES["symmetric"], Checkpoint(llama().model, make_tokenizer(), {}), "gguf")


@pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_said_before_is_what_happens(format, name, tmp_path):
    pytest.importorskip("gguf")
    recipe, checkpoint = RECIPES[name], llama()
    foreseen = None
    try:
        check_export(recipe, checkpoint, format)
    except ValueError as error:
        foreseen = str(error)
        assert re.match(rf"\d+ of 14 quantised layers do not fit {format}: blocks\..*: it ", foreseen)
        assert "\n" not in foreseen and len(foreseen) < 1000
    assert (foreseen is None) == (name in HOLDS[format])
    if name == "one layer" and foreseen:
        assert foreseen.startswith(f"1 of 14 quantised layers do not fit {format}: blocks.1.mlp.up_proj: it ")
    quantize_model(checkpoint.model, recipe, TOKENS)
    for plan in (None, layouts_of(checkpoint.model)):
        if foreseen is None:
            check_export(plan, checkpoint, format)
        else:
            with pytest.raises(ValueError, match=f"do not fit {format}"):
                check_export(plan, checkpoint, format)
    if foreseen and format != "gguf":
        with pytest.raises(ValueError, match="cannot be written"):
            export_model(tmp_path, checkpoint, format)
    else:
        assert export_model(tmp_path, checkpoint, format).is_file()
    if format == "gguf":
        types = [block_type(layer) for layer in checkpoint.model.modules() if hasattr(layer, "layout")]
        assert (None in types) == (foreseen is not None)
        assert ("are in 16 bits" in (tmp_path / "README.md").read_text()) == (foreseen is not None)


@pytest.mark.parametrize("format", FORMATS)
def test_models_that_nothing_else_runs_are_refused(format, tmp_path):
    gpt = GPT(GPTConfig(9, context=16, layers=1, heads=2, width=32))
    with pytest.raises(ValueError, match=f"the model cannot be exported as {format}: it is a GPT"):
        check_export(Recipe(bits=4), gpt, format)
    pruned = llama()
    compress_model(pruned.model, Prune("magnitude"), TOKENS)
    with pytest.raises(ValueError, match="is a SparseLinear, which no file"):
        check_export(None, pruned, format)
    with pytest.raises(ValueError, match="is of the kind 'sparse', which no file"):
        check_export({"blocks.0.mlp.up_proj": {"kind": "sparse"}}, llama(), format)
    with pytest.raises(ValueError, match="no layer is quantised"):
        check_export(Recipe(bits=16), llama(), format)
    quantised = llama()
    quantize_model(quantised.model, RECIPES["symmetric"])
    with pytest.raises(ValueError, match="of a quantised one give None"):
        check_export(RECIPES["symmetric"], quantised, format)
    with pytest.raises(ValueError, match="no format 'onnx': there are compressed-tensors, gptq, gguf"):
        check_export(None, llama(), "onnx")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    """A quantised model, made of one that has a model card."""
    source = tmp_path / "source"
    make("llama", vocab_size=VOCABULARY).save_pretrained(source)
    byte_level().save_pretrained(source)
    (source / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n\n# A model\n")
    result = run("quantize", source, "--method", "nearest", "--bits", 4, "--symmetric", "--group-size", 32,
                 "--out", tmp_path / "quantised")
    assert result.exit_code == 0, result.stderr
    return tmp_path / "quantised"


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_writes_a_folder_that_says_what_it_holds(format, folder, tmp_path):
    pytest.importorskip("gguf")
    out = tmp_path / "out"
    result = run("export", folder, "--format", format, "--out", out)
    assert result.exit_code == 0, result.stderr
    file = out / FORMATS[format].file
    size = file.stat().st_size
    lines = rf"wrote {file}: {size:,} bytes, \d+\.\d\d bits a parameter\n(In float16, .*\n)?"
    assert re.fullmatch(lines, result.stdout)
    card = (out / "README.md").read_text()
    bits = re.search(r"(\d+\.\d\d) bits a parameter", result.stdout)[1]
    for line in ("license: apache-2.0", f"| base model | {tmp_path / 'source'} |", "| method | nearest 4 bit |",
                 "| quantised layers | 12 of 4 bits by rows, 2 of 4 bits in groups of 32 |", "| licence | apache-2.0 |",
                 f"| file | {file.name}, {size:,} bytes, {bits} bits a parameter |"):
        assert f"\n{line}\n" in card
    assert str(tmp_path / "quantised") not in card
    files = {path.name for path in out.iterdir()}
    expected = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert files >= ({"model.gguf"} if format == "gguf" else expected)
    again = run("export", folder, "--format", format, "--out", out)
    assert again.exit_code == 2 and "already" in again.stderr and "--force" in again.stderr
    assert run("export", folder, "--format", format, "--out", out, "--force").exit_code == 0


@pytest.fixture
def plain(tmp_path):
    """A tiny Llama with a tokeniser, as transformers saves it."""
    make("llama", vocab_size=VOCABULARY).save_pretrained(tmp_path / "plain")
    byte_level().save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize("format", FORMATS)
def test_quantize_checks_the_recipe_before_the_work_and_writes_the_export_beside(format, plain, tmp_path):
    pytest.importorskip("gguf")
    command = ("quantize", plain, "--method", "nearest", "--export", format, "--out", tmp_path / "q")
    fitting = ("--bits", 4, "--symmetric", "--group-size", 32)
    result = run(*command, *fitting)
    assert result.exit_code == 0, result.stderr
    beside = tmp_path / f"q-{format}"
    assert f"wrote {beside / FORMATS[format].file}: " in result.stdout
    made = nanoq.load(tmp_path / "q").model
    assert run("export", tmp_path / "q", "--format", format, "--out", tmp_path / "apart").exit_code == 0
    found, expected = ((folder / FORMATS[format].file).read_bytes() for folder in (beside, tmp_path / "apart"))
    assert found == expected
    if format != "gguf":
        # Embeddings of 8 bits are in float16 there.
        assert torch.allclose(nanoq.load(beside).model(TOKENS), made(TOKENS), atol=1e-2)
    assert "--force" in run(*command, *fitting).stderr
    assert run(*command, *fitting, "--force").exit_code == 0


def test_the_export_of_a_model_in_this_folder_is_beside_it(plain, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = run("quantize", plain, "--method", "nearest", "--symmetric", "--group-size", 32, "--export", "gptq",
                 "--out", ".")
    assert result.exit_code == 0, result.stderr
    assert nanoq.load(tmp_path / "here").card["layers"] and (tmp_path / "here-gptq" / FORMATS["gptq"].file).is_file()


@pytest.mark.parametrize(("options", "message"), [
    (("--bits", 4, "--group-size", 24, "--export", "gptq"), "14 quantised layers do not fit gptq: .*groups of 24"),
    (("--bits", 4, "--export", "compressed-tensors"), "do not fit compressed-tensors: .*has zero points"),
    (("--bits", 4, "--grid", "nf4", "--export", "gguf"), "do not fit gguf: .*quantise it evenly"),
    (("--average-bits", 4, "--symmetric", "--export", "gptq"), "4 of 14 .* do not fit gptq: .*of 3 bits do not fill"),
    (("--recipe", "recipe.json", "--export", "gptq"), "do not fit gptq: blocks.1.mlp.down_proj: it .*groups of 24"),
    (("--bits", 4, "--export", "onnx"), "no format 'onnx': there are compressed-tensors, gptq, gguf"),
    (("--bits", 4, "--stream", "--export", "gptq"), "--stream takes none of .* and --export, .*`nanoq export`"),
], ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None)
def test_a_recipe_that_the_export_does_not_take_is_refused_before_calibration(options, message, plain, tmp_path,
                                                                              monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nanoq.tasks.TokenText.calibration", lambda *_: pytest.fail("the work has begun"))
    rules = {"model.layers.1.mlp.down_proj": {"bits": 3, "grid_options": {"granularity": "group", "group_size": 24}}}
    (tmp_path / "recipe.json").write_text(json.dumps({"default": {"bits": 16}, "rules": rules}))
    result = run("quantize", plain, "--out", "q", *options)
    assert result.exit_code == 2 and re.search(message, result.stderr), result.stderr or result.exception
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "recipe.json"]


@pytest.mark.parametrize("format", ["compressed-tensors", "gguf"])
def test_the_lines_of_the_card_load_the_model(format, folder, tmp_path, monkeypatch):
    pytest.importorskip("compressed_tensors" if format == "compressed-tensors" else "accelerate")
    assert run("export", folder, "--format", format, "--out", tmp_path / "out").exit_code == 0
    code = re.search(r"```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert isinstance(names["model"], transformers.LlamaForCausalLM)
    assert names["model"](TOKENS).logits.isfinite().all()


def test_the_command_refuses_in_one_line(folder, tmp_path):
    for arguments, message in [
        ((folder, "--format", "onnx", "--out", tmp_path / "out"), "no format 'onnx'"),
        ((folder, "--out", folder), "holds a model of nanoq"),
        ((tmp_path / "source", "--out", tmp_path / "out"), "no layer of the model is quantised"),
        (("tales-2.7m", "--format", "gguf", "--out", tmp_path / "out"), "exact GELU"),
        (("tales-2.7m", "--format", "gptq", "--out", tmp_path / "out"), "is a GPT, which is no model of transformers"),
    ]:
        result = run("export", *arguments)
        assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_source_without_a_licence_gets_none(tmp_path):
    checkpoint = Checkpoint(HFModel(make("llama")).eval(), make_tokenizer(), {"source": "owner/name", "recipe": 3})
    quantize_model(checkpoint.model, Recipe(bits=3, grid_options=GROUP))
    export_model(tmp_path / "out", checkpoint, "compressed-tensors")
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nbase_model: owner/name\n") and "license:" not in card and "| method" not in card
    assert "| licence | not named by the source: see the base model |" in card
    assert "Layers of 3 bits are read by compressed-tensors 0.18 or later" in card
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
