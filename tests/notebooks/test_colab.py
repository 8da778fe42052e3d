"""Colab, simulated: an interpreter with torch and numpy of its own, no nanoq, and no checkout beside the notebook.

Real are pip and what it decides, IPython and its %pip, the wheel, and what the notebook then does in the same process.
Not real are the versions of torch and numpy: only their metadata is changed, so that pip has something to keep. The
repository's address is replaced by a wheel built here, and PyPI by nothing: what is not there cannot be installed.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLAB = {"torch": "2.9.0+cu126", "numpy": "2.3.5"}  # not those of requirements.txt, but its numba goes with them
RUN_CELLS = """
import sys
import nbformat
from IPython.core.interactiveshell import InteractiveShell
notebook, address, wheel = sys.argv[1:]
cells = [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
assert address in cells[0]
shell = InteractiveShell.instance()
for cell in [cells[0].replace(f"git+https://github.com/{address}", f"file://{wheel}"), *cells[1:4]]:
    shell.run_cell(cell).raise_error()
"""
REPORT = """
from importlib.metadata import version
import nanoq
from nanoq.files import data_dir
from nanoq.teach.launch import find_notebook
print(nanoq.__file__, data_dir(), find_notebook(7).resolve(), version("torch"), version("numpy"),
      nanoq.load("tales-2.7m").model.parameter_count(), sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True, env=os.environ | {"PIP_NO_INDEX": "1"})
    (path,) = folder.glob("nanoq-*.whl")
    return path


@pytest.fixture
def colab(tmp_path):
    """The interpreter: it sees this one's packages, from where pip cannot remove them, but not nanoq."""
    here, packages = Path(distribution("pip").locate_file("")), tmp_path / "packages"
    packages.mkdir()
    for entry in here.iterdir():
        if not re.match(r"nanoq\b", entry.name) and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    for name, version in COLAB.items():
        pretend(distribution(name), version, packages)
    venv.create(tmp_path / "colab", symlinks=True, with_pip=False)
    (own,) = (tmp_path / "colab").rglob("site-packages")
    (own / "colab.pth").write_text(str(packages))
    return tmp_path / "colab/bin/python"


def pretend(installed, version, packages):
    """Give a package another version, in its metadata alone."""
    folder = f"{installed.name}-{installed.version}.dist-info"
    (packages / folder).unlink()
    shutil.copytree(installed.locate_file(folder), packages / f"{installed.name}-{version}.dist-info")
    metadata = packages / f"{installed.name}-{version}.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace(f"\nVersion: {installed.version}\n", f"\nVersion: {version}\n", 1))


def run(python, folder, *arguments):
    """What a program prints in a folder, with no network for pip and nothing of this environment on its path."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True,
                            env=env | {"PIP_NO_INDEX": "1", "MPLBACKEND": "agg"})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_first_cells_install_nanoq_and_leave_torch_and_numpy_alone(build, colab, wheel, tmp_path):
    (tmp_path / "content").mkdir()
    missing = run(colab, tmp_path, "-c", "import importlib.util as util; print(util.find_spec('nanoq'))")
    assert missing == "None\n"
    for notebook in ("00_start_here", "04_naive_rounding"):
        run(colab, tmp_path / "content", "-c", RUN_CELLS, ROOT / f"notebooks/{notebook}.ipynb", build.REPOSITORY, wheel)
    kept = (tmp_path / "content/kept.txt").read_text().splitlines()
    assert sorted(kept) == sorted(f"{name}=={version}" for name, version in COLAB.items())
    *paths, torch, numpy, parameters = run(colab, tmp_path / "content", "-c", REPORT).splitlines()
    package, data, notebook = map(Path, paths)
    assert tmp_path / "colab" in package.parents and data == package.parent / "data"
    assert notebook == tmp_path / "content/nanoq-course/07_gptq.ipynb" and notebook.exists()
    assert {"torch": torch, "numpy": numpy} == COLAB
    assert int(parameters) > 2e6


def test_pip_refuses_rather_than_replace_what_is_kept(colab, wheel, tmp_path):
    (tmp_path / "kept.txt").write_text("numpy==1.0")
    command = [colab, "-m", "pip", "install", "--no-index", "--constraint", "kept.txt", wheel]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = result.stdout + result.stderr
    assert result.returncode != 0 and "numpy>=" in said and "numpy==1.0" in said


def test_the_wheel_has_the_student_notebooks_and_no_solutions(wheel):
    inside = zipfile.ZipFile(wheel).namelist()
    notebooks = {name for name in inside if name.endswith(".ipynb")}
    assert notebooks == {f"nanoq/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert "nanoq/data/checkpoints/tales-2.7m/model.safetensors" in inside
