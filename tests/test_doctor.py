"""Each finding of `nanoq doctor` both ways; and the doctor itself never falls ill."""

import os
import re
import subprocess
import sys
import tempfile
import threading
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import nanoq.machine
import nanoq.quant
from nanoq import doctor
from nanoq.cli import app
from nanoq.doctor import FAIL, INFO, OK, WARN, Finding

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "data" / "checkpoints" / "digits-resnet"


# ---- the list of findings ----


def checks(monkeypatch, **statuses):
    monkeypatch.setattr(doctor, "CHECKS", {name: lambda status=status: Finding(status, "as it is", "mend it")
                                           for name, status in statuses.items()})


@pytest.mark.parametrize(("statuses", "code", "last"), [
    ({"a": OK, "b": INFO}, 0, "Nothing fails: everything that the course needs is here."),
    ({"a": OK, "b": WARN}, 0, "Nothing fails; the lines with warn say what would make things better."),
    ({"a": FAIL, "b": WARN}, 1, "Something fails: the lines with FAIL say what to do."),
])
def test_a_line_each_a_verdict_and_an_exit_code(monkeypatch, statuses, code, last):
    checks(monkeypatch, **statuses)
    result = CliRunner().invoke(app, ["doctor"])
    lines = [f"{status:6}{name}: as it is; mend it" for name, status in statuses.items()]
    assert (result.exit_code, result.output.splitlines()) == (code, [*lines, last])


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), ImportError("no torch"), SystemError(), MemoryError()])
def test_a_check_that_raises_is_a_finding_and_the_next_one_runs(monkeypatch, error):
    def ill():
        raise error

    monkeypatch.setattr(doctor, "CHECKS", {"ill": ill, "well": lambda: Finding(OK, "well")})
    first, second = doctor.examine()
    assert (first.status, first.name, first.remedy) == (FAIL, "ill", doctor.FRESH)
    assert str(first).startswith(f"FAIL  ill: {type(error).__name__}: ") and "\n" not in str(first)
    assert str(second) == "ok    well: well"


def test_checks_can_be_left_out(monkeypatch, capsys):
    checks(monkeypatch, a=OK, b=FAIL)
    assert doctor.doctor(skip=["b"])
    assert "b:" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="no check is called c: there are a, b"):
        list(doctor.examine(skip=["c"]))


def test_the_whole_examination_of_this_machine():
    findings = list(doctor.examine())
    assert [finding.name for finding in findings] == list(doctor.CHECKS)
    assert [str(finding) for finding in findings if finding.status == FAIL] == []


@pytest.mark.parametrize("missing", ["transformers", "torch", "matplotlib", "numba", "packaging"])
def test_it_has_something_to_say_where_a_package_is_missing(missing):
    code = f"""
import sys
from importlib import metadata
sys.modules[{missing!r}] = None
version = metadata.version
def without(name):
    if name == {missing!r}:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = without
if {missing!r} == "transformers":
    import nanoq.cli
from nanoq.doctor import doctor
sys.exit(not doctor(skip=["compiled loops", "convolutions", "products"]))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert child.stderr == ""
    assert child.returncode == (missing != "transformers")
    expected = {"transformers": "info  transformers: not installed; only models of Hugging Face",
                "packaging": "FAIL  packages: ModuleNotFoundError"}
    assert expected.get(missing, f"FAIL  packages: {missing} is missing; pip install \"{missing}>=") in child.stdout


# ---- what is installed ----


REQUIRES = ["torch>=2.5", "numpy>=1.26", "numba>=0.60", 'matplotlib>=3.8; extra == "course"',
            'gguf>=0.10; extra == "gguf"']


def installed(monkeypatch, versions):
    def version(name):
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIRES)


@pytest.mark.parametrize(("numpy", "torch", "status", "text"), [
    ("1.26.0", "2.13.0+cpu", OK, "torch 2.13.0+cpu, numpy 1.26.0, numba 0.68.1; 1 more, all new enough"),
    ("1.9.3", "2.13.0", FAIL, 'numpy 1.9.3 is older than 1.26; pip install "numpy>=1.26"'),
    (None, "2.4.1", FAIL,
     'torch 2.4.1 is older than 2.5, numpy is missing; pip install "torch>=2.5" "numpy>=1.26"'),
])
def test_packages(monkeypatch, numpy, torch, status, text):
    installed(monkeypatch, {"numpy": numpy, "torch": torch, "numba": "0.68.1", "matplotlib": "3.11.2"})
    found = doctor.check_packages()
    assert found.status == status and str(found).endswith(text)


def test_packages_where_nanoq_runs_from_a_folder(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    found = doctor.check_packages()
    assert found.status == WARN and found.remedy == f'pip install -e "{ROOT}"'


@pytest.mark.parametrize(("version", "status", "text"), [
    ("0.19.0", OK, "0.19.0, for llama.cpp's GGUF files"),
    ("0.9.1", WARN, '0.9.1 is older than 0.10; llama.cpp\'s GGUF files need it; pip install "gguf>=0.10"'),
    (None, INFO, 'not installed; only llama.cpp\'s GGUF files need it; pip install "gguf>=0.10"'),
])
def test_packages_that_not_everybody_needs(monkeypatch, version, status, text):
    installed(monkeypatch, {"gguf": version})
    found = doctor.check_optional("gguf")
    assert found.status == status and str(found).endswith(text)


# ---- the machine ----


@pytest.mark.parametrize(("cores", "status"), [(1, WARN), (2, OK)])
def test_the_processor(monkeypatch, cores, status):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    found = doctor.check_processor()
    assert found.status == status and f"cores: {cores}, threads: {torch.get_num_threads()}" in found.text


@pytest.mark.parametrize(("free", "status"), [(1.9, WARN), (2.0, OK)])
def test_the_memory(monkeypatch, free, status):
    monkeypatch.setattr(nanoq.machine, "_memory", lambda: (8e9, free * 1e9))
    found = doctor.check_memory()
    assert (found.status, found.text) == (status, f"{free:.1f} GB free of 8.0 GB")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, which is no temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("NANOQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("free", "status"), [(0.4, WARN), (3.0, OK)])
def test_the_cache_and_its_room(cache, monkeypatch, free, status):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 1e9))
    found = doctor.check_cache()
    assert (found.status, found.text) == (status, f"{free} GB free for {cache}")


def test_a_cache_to_which_nothing_can_be_written(cache, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    found = doctor.check_cache()
    assert found.status == FAIL and found.remedy == "let NANOQ_CACHE name another folder"
    assert found.text == f"nothing can be written to {cache} (No space left on device)"


def test_a_home_among_the_temporary_folders_is_a_home(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("NANOQ_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert doctor.check_cache().text.endswith(f"free for {os.path.join('~', '.cache', 'nanoq')}")


@pytest.mark.parametrize("named", [True, False])
def test_a_cache_that_is_temporary_for_want_of_a_better_one(cache, monkeypatch, named):
    own = cache.parent / "temporary" / "nanoq-0"
    own.mkdir(parents=True)
    if not named:
        monkeypatch.delenv("NANOQ_CACHE")
    monkeypatch.setattr(doctor, "cache_dir", lambda: own)
    found = doctor.check_cache()
    assert found.status == WARN
    assert found.text.endswith(f"{f'NANOQ_CACHE={cache}' if named else 'the home folder'} cannot be written to")


def test_a_folder_is_shown_without_its_owner(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert doctor._shown(tmp_path / ".cache" / "nanoq") == os.path.join("~", ".cache", "nanoq")
    assert doctor._shown(tmp_path.parent) == str(tmp_path.parent)


def test_the_products_are_told_in_words(monkeypatch):
    monkeypatch.setattr(doctor, "_child", lambda _: '{"fp32": 1.0, "bf16": 0.5, "fp16": 30.0, "int8": null}')
    found = doctor.check_products()
    assert found.status == INFO
    assert "bf16 2.0 times as fast, fp16 30 times as long and int8 not supported." in found.text


# ---- what runs in a process of its own ----


def test_a_process_of_its_own_gives_what_it_prints():
    assert doctor._child("import sys, nanoq; print(nanoq.__file__, *sys.argv[1:])", "a", "b") == (
        f"{Path(nanoq.__file__)} a b")


@pytest.mark.parametrize(("code", "text"), [
    ("import os; os.abort()", "the process was ended by SIGABRT"),
    ("raise ValueError('what is wrong')", "ValueError: what is wrong"),
    ("import sys; sys.exit(3)", "exit code 3"),
    ("import time; time.sleep(60)", "not done after 1 seconds"),
])
def test_what_ends_badly_there_is_an_error_here(code, text):
    with pytest.raises(RuntimeError, match=f"^{text}$"):
        doctor._child(code, seconds=1 if "sleep" in code else 60)


def dies(*_):
    raise RuntimeError("the process was ended by SIGSEGV")


def test_the_compiled_loops(monkeypatch):
    assert doctor.check_compiled().status == OK
    monkeypatch.setattr(doctor, "_child", lambda _: '["GPTQ"]')
    assert (doctor.check_compiled().status, doctor.check_compiled().text) == (
        FAIL, "compiled by numba, GPTQ computes wrong numbers")
    monkeypatch.setattr(doctor, "_child", dies)
    found = doctor.check_compiled()
    assert found.status == FAIL and "SIGSEGV" in found.text and "numba" in found.remedy


def test_wrong_numbers_are_noticed(monkeypatch):
    assert doctor.wrong_loops() == []
    monkeypatch.setattr(nanoq.quant, "gptq", lambda weight, grid, stats, **_: nanoq.quant.nearest(weight, grid))
    assert doctor.wrong_loops() == ["GPTQ"]
    monkeypatch.setattr(nanoq.quant.kernels.Kernel, "__call__", lambda self, x: torch.zeros(1, 32))
    assert doctor.wrong_loops() == ["GPTQ", "the product with 4-bit weights"]


@pytest.mark.parametrize(("deadly", "status", "text"), [
    ((), OK, "their gradients can be computed without a crash"),
    (("channels_last",), OK, "which nanoq never uses: keep your own pictures contiguous"),
    (("contiguous_format", "channels_last"), FAIL, "ends the process (the process was ended by SIGSEGV)"),
])
def test_convolutions(monkeypatch, deadly, status, text):
    monkeypatch.setattr(doctor, "_child", lambda code, layout: dies() if layout in deadly else "sound")
    found = doctor.check_convolutions()
    assert found.status == status and found.text.endswith(text)


def test_the_layout_that_nanoq_uses_is_sound_where_another_is_not(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # the processor with the fault, on any other
    assert doctor._gradient_fault("contiguous_format") == ""


# ---- what nanoq reads ----


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A data folder with one model in it; its folder."""
    monkeypatch.setattr(doctor, "data_dir", lambda: tmp_path)
    folder = tmp_path / "checkpoints" / "digits-resnet"
    folder.mkdir(parents=True)
    for file in DIGITS.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def flip(path):
    """Change the last byte of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(("spoil", "text"), [
    (lambda folder: flip(folder / "model.safetensors"), "SHA-256"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    (lambda folder: (folder / "card.json").unlink(), "card.json"),
    (lambda folder: (folder / "card.json").write_text("{"), "is not a nanoq card"),
    (lambda folder: folder.rename(folder.parents[1] / "elsewhere"), "there are none in"),
])
def test_the_shipped_models(shipped, spoil, text):
    assert doctor.check_models() == Finding(OK, "digits-resnet: whole")
    spoil(shipped)
    found = doctor.check_models()
    assert (found.status, found.remedy) == (FAIL, doctor.AGAIN) and text in found.text


def test_a_model_without_a_digest_has_its_length_looked_at(shipped):
    (shipped / "card.json").write_text("{}")
    assert doctor.check_models().status == OK
    weights = (shipped / "model.safetensors").read_bytes()
    (shipped / "model.safetensors").write_bytes(weights[:-1])
    assert doctor.check_models().status == FAIL


def test_real_data(tmp_path, monkeypatch):
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    assert doctor.check_data().status == INFO
    monkeypatch.setenv("NANOQ_DATA", str(tmp_path / "missing"))
    assert (doctor.check_data().status, doctor.check_data().remedy) == (WARN, "correct it, or unset it")
    monkeypatch.setenv("NANOQ_DATA", str(tmp_path))
    assert (doctor.check_data().status, doctor.check_data().text) == (WARN, f"no data set in {tmp_path}")
    for file in ("wikitext2_valid.tokens", "imdb_train.jsonl"):
        (tmp_path / file).touch()
    found = doctor.check_data()
    assert (found.status, found.text) == (WARN, f"wikitext-2 in {tmp_path}, which lacks imdb_test.jsonl")
    (tmp_path / "imdb_test.jsonl").touch()
    assert doctor.check_data() == Finding(OK, f"wikitext-2, imdb in {tmp_path}")


def test_the_files_are_those_that_the_readme_of_the_data_names():
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in readme[readme.index("## Real data"):].splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row[1])} == set(doctor.DATA)
    text = readme.replace("`rotten_tomatoes_…`", " ".join(doctor.DATA["rotten-tomatoes"]))
    assert [file for files in doctor.DATA.values() for file in files if file not in text] == []


def test_it_does_not_import_matplotlib():
    code = "import sys, nanoq.doctor, nanoq.machine; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_checks_that_wait_for_other_processes_run_together_and_keep_their_places(monkeypatch):
    both = threading.Barrier(2, timeout=60)  # neither ends before the other has begun

    def waiting():
        both.wait()
        return Finding(OK, "met")

    checks = {"a": lambda: Finding(OK, "first"), "b": waiting, "c": waiting}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    monkeypatch.setattr(doctor, "AT_ONCE", ("b", "c"))
    found = [(finding.name, finding.text) for finding in doctor.examine()]
    assert found == [("a", "first"), ("b", "met"), ("c", "met")]
    assert [finding.name for finding in doctor.examine(skip=["a", "b", "c"])] == []


def test_checks_that_begin_together_come_after_the_look_at_free_memory():
    order = list(doctor.CHECKS)
    assert all(order.index("memory") < order.index(name) < order.index("products") for name in doctor.AT_ONCE)
