"""Binder and the development container say what the README says. Neither is built here: that takes Docker."""

import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]


def test_binder_installs_the_pinned_set():
    lines = (ROOT / "binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "-r ../requirements.txt"
    assert (ROOT / "binder/runtime.txt").read_text(encoding="utf-8").strip() == f"python-{PYTHON.removeprefix('>=')}"


def test_the_container_installs_as_the_readme_does_and_opens_notebook_00():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    readme = [line.strip() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]
    assert any(line.startswith(f"{container['postCreateCommand']} && ") for line in readme)
    assert container["image"].endswith(f"/python:{PYTHON.removeprefix('>=')}")
    (opened,) = container["customizations"]["codespaces"]["openFiles"]
    assert opened.startswith("notebooks/00_") and (ROOT / opened).is_file()


def test_both_leave_cuda_out_in_the_same_way():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    index = container["containerEnv"]["PIP_EXTRA_INDEX_URL"]
    assert f"--extra-index-url {index}" in (ROOT / "binder/requirements.txt").read_text(encoding="utf-8").splitlines()
