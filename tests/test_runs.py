"""How a run of the tests ends: on small suites of their own, with the repository's conftest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
WAITING = "import time\n\ndef test_waits():\n    time.sleep(600)\n"


def run(folder, *options, **environment):
    """Run the tests of a folder on two workers, as `pytest` does here; a minute is all they have."""
    shutil.copy(CONFTEST, folder)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--max-worker-restart=0", *options]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("death", "others"), [
    ("os.abort()", 0), ("os._exit(0)", 0), ("os.kill(os.getpid(), signal.SIGKILL)", 1),
])
def test_a_test_that_kills_its_process_ends_the_run_and_is_named(tmp_path, death, others):
    (tmp_path / "test_deadly.py").write_text(f"import os, signal\n\ndef test_dies():\n    {death}\n")
    for number in range(others):
        (tmp_path / f"test_waiting{number}.py").write_text(WAITING)
    result = run(tmp_path)
    assert result.returncode == 1
    assert "crashed while running 'test_deadly.py::test_dies'" in result.stdout


@pytest.mark.parametrize(("allowed", "code"), [("1", 0), ("0", 1)])
def test_a_skipped_test_is_named_with_its_reason_and_red_where_none_may_be(tmp_path, allowed, code):
    (tmp_path / "test_some.py").write_text(
        'import pytest\n\ndef test_done():\n    pass\n\ndef test_left_out():\n    pytest.skip("no browser here")\n')
    result = run(tmp_path, "-rs", NANOQ_SKIPS=allowed)
    assert result.returncode == code
    assert "no browser here" in result.stdout
    assert ("NANOQ_SKIPS=0" in result.stdout) == bool(code)


def test_the_projects_own_runs_have_these_options():
    settings = (CONFTEST.parent / "pyproject.toml").read_text(encoding="utf-8")
    options = next(line for line in settings.splitlines() if line.startswith("addopts"))
    assert "--max-worker-restart=0" in options and "-rfEs" in options
