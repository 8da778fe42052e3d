"""`nanoq lab`: which notebook, from where, and that a JupyterLab really answers."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from nanoq.cli import app
from nanoq.teach import launch

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that carries two notebooks, as a wheel does; the working directory is an empty folder."""
    (tmp_path / "site/nanoq/notebooks").mkdir(parents=True)
    for name in ("00_start", "07_gptq"):
        (tmp_path / f"site/nanoq/notebooks/{name}.ipynb").write_text(f"{name} as shipped")
    monkeypatch.setattr(launch, "_PACKAGE", tmp_path / "site/nanoq")
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")


@pytest.fixture
def jupyter(monkeypatch):
    """What JupyterLab would be started with."""
    started = []
    monkeypatch.setattr("jupyterlab.labapp.main", started.append)
    monkeypatch.setattr("os.geteuid", lambda: 1000, raising=False)
    return started


def run(*arguments):
    return CliRunner().invoke(app, ["lab", *map(str, arguments)])


def at(folder, notebook):
    return [f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{notebook}.ipynb"]


def test_in_a_checkout_it_opens_the_notebook_itself(jupyter):
    assert run().exit_code == run("07", "--no-browser").exit_code == 0
    assert jupyter == [at(NOTEBOOKS, "00_start_here"), [*at(NOTEBOOKS, "07_gptq"), "--no-browser"]]


def test_root_is_allowed_to_and_nobody_else_is_asked(jupyter, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0, raising=False)
    assert run().exit_code == 0
    monkeypatch.delattr("os.geteuid")  # as on Windows
    assert run().exit_code == 0
    assert jupyter == [[*at(NOTEBOOKS, "00_start_here"), "--allow-root"], at(NOTEBOOKS, "00_start_here")]


def test_a_wheel_gives_the_learner_a_copy(installed, jupyter):
    assert run(7).exit_code == 0
    assert jupyter == [at(Path("nanoq-course").resolve(), "07_gptq")]
    assert sorted(path.name for path in Path("nanoq-course").iterdir()) == ["00_start.ipynb", "07_gptq.ipynb"]
    assert Path("nanoq-course/07_gptq.ipynb").read_text() == "07_gptq as shipped"


def test_what_the_learner_wrote_stays(installed, jupyter):
    Path("mine").mkdir()
    Path("mine/07_gptq.ipynb").write_text("my solution")
    assert run(7, "--folder", "mine").exit_code == 0
    assert Path("mine/07_gptq.ipynb").read_text() == "my solution"
    assert Path("mine/00_start.ipynb").read_text() == "00_start as shipped"


def test_a_checkout_copies_too_where_a_folder_is_named(tmp_path, jupyter):
    assert run("--folder", tmp_path / "mine").exit_code == 0
    copies = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    shipped = [*NOTEBOOKS.glob("*.ipynb"), NOTEBOOKS / "glossary.md"]
    assert copies == {path.name: path.read_bytes() for path in shipped}


def test_a_notebook_that_is_not_there(installed, jupyter):
    result = run(42)
    assert result.exit_code == 2
    assert result.stderr == "nanoq: no notebook 42; there are 00, 07\n"
    assert jupyter == [] and not Path("nanoq-course").exists()


def test_without_jupyterlab(installed, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    result = run()
    assert result.exit_code == 2
    assert result.stderr == "nanoq: JupyterLab is not installed: pip install jupyterlab\n"
    assert not Path("nanoq-course").exists()


def test_it_serves_the_notebooks(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config").mkdir()
    config = {"ServerApp": {"ip": "127.0.0.1"}}
    (tmp_path / "config/jupyter_server_config.json").write_text(json.dumps(config))
    folders = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "RUNTIME")}
    command = [Path(sys.executable).with_name("nanoq"), "lab", "4", "--no-browser", "--folder", "mine"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log,
                                  env=os.environ | folders | {"JUPYTER_PORT": str(port), "JUPYTER_TOKEN": "t"})
    try:
        status = get(f"http://127.0.0.1:{port}/api/status?token=t", server)
        assert status["kernels"] == 0, (tmp_path / "log").read_text()
        shown = get(f"http://127.0.0.1:{port}/api/contents?token=t", server)
        assert "04_naive_rounding.ipynb" in [file["name"] for file in shown["content"]]
        assert f":{port}/lab/tree/04_naive_rounding.ipynb?token=" in (tmp_path / "log").read_text()
    finally:
        server.terminate()
        server.wait(30)


def get(url, server):
    """The answer of a server that is about to start; None if it ends first or says nothing for two minutes."""
    for _ in range(240):
        try:
            with urlopen(url) as answer:
                return json.load(answer)
        except URLError:
            if server.poll() is not None:
                break
            time.sleep(0.5)
    raise AssertionError("the server did not start")
