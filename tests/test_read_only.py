"""nanoq where nothing can be written: somebody else's package folder, and no home, as in many containers."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A root user's rights would hide the fault. Another user might not reach this interpreter: root without them does.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]

UNKNOWN_USER = """
import os, pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""
EVERYTHING = """
import torch
from typer.testing import CliRunner
import nanoq.quant
from nanoq.cli import app
from nanoq.doctor import check_cache
from nanoq.files import cache_dir

weight, stats = torch.randn(8, 8), nanoq.quant.LayerStats.of(torch.randn(64, 8))
codes = nanoq.quant.gptq(weight, nanoq.quant.affine_grid(weight, 4), stats)
assert codes.shape == (8, 8)
for command in (["--help"], ["info"]):
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.exception
assert check_cache().status == "warn", check_cache()
(cache_dir() / "a").write_text("kept")
print("sound", nanoq.__file__)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A read-only copy of the package, in a folder that cannot be written to either, and a writable `tmp`."""
    folder = tmp_path_factory.mktemp("read-only")
    shutil.copytree(ROOT / "nanoq", folder / "nanoq", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "tmp").mkdir()
    folders = [folder, *(path for path in (folder / "nanoq").rglob("*") if path.is_dir()), folder / "nanoq"]
    for path in folders:
        path.chmod(0o555)
    yield folder
    for path in folders:
        path.chmod(0o755)


def run(place, code, **environment):
    """Run Python code without a right that others have not, in a folder that cannot be written to."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if as_root and not shutil.which("setpriv"):
        pytest.skip("root may write anywhere, and util-linux's setpriv, which takes that right away, is not here")
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place), "TMPDIR": str(place / "tmp"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*(WITHOUT_RIGHTS if as_root else []), sys.executable, "-c", code], cwd=place,
                          env=clean | environment, capture_output=True, text=True, timeout=300)


def test_the_place_is_as_it_should_be(place):
    result = run(place, "open('nanoq/a', 'w')", HOME="home")
    assert "PermissionError" in result.stderr


@pytest.mark.parametrize("home", ["missing", "unknown"])
def test_everything_starts_and_compiles_without_a_writable_home(place, home):
    if home == "missing":
        result = run(place, EVERYTHING, HOME=str(place / "home"))
    else:
        result = run(place, UNKNOWN_USER + EVERYTHING)
    assert (result.returncode, result.stdout) == (0, f"sound {place}/nanoq/__init__.py\n"), result.stderr
    (own,) = (place / "tmp").glob("nanoq-*")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700 and own.stat().st_uid == os.getuid()
    assert (own / "a").read_text() == "kept"
    assert list(own.rglob("*.nbc"))  # the next process need not compile again
