"""What every test runs under: one thread for each worker, the quick profile, no progress bars, network or records."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

os.environ.update(NANOQ_PROGRESS="0", NANOQ_PROFILE="ci", NANOQ_STRICT="0", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1",
                  NANOQ_RECORDS=tempfile.mkdtemp(prefix="nanoq-records-"))  # what a test reaches is not the learner's

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

# A busy machine is no failure, and a red run must be red again when it is looked into.
hypothesis.settings.register_profile("nanoq", deadline=None, derandomize=True)
hypothesis.settings.load_profile("nanoq")


# Whole notebooks, a browser, the documentation, nbgrader: most of the time that all tests take.
SLOW = [Path(__file__).parent / part for part in (
    "notebooks/solutions", "tests/browser", "tests/test_docs.py", "tests/notebooks/test_notebooks.py",
    "tests/notebooks/test_nbgrader.py", "tests/notebooks/test_colab.py")]


def pytest_collection_modifyitems(items):
    """Mark as slow what runs whole notebooks and other programs."""
    for item in items:
        if any(item.path.is_relative_to(part) for part in SLOW):
            item.add_marker("slow")


def pytest_unconfigure():
    """Remove the records of the run."""
    shutil.rmtree(os.environ["NANOQ_RECORDS"], ignore_errors=True)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Let a test reach this machine alone."""
    connect = socket.socket.connect

    def local_only(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


class _ByFile(LoadFileScheduling):
    """A file to a worker, as nbval needs it; but the notebooks that one test file runs go to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if "/test_notebooks.py::" in nodeid else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The scheduler of `pytest -n 2`."""
    return _ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    """End the run, red, when a test has killed its worker: xdist could wait for the last tests for ever."""
    if report.when == "???":
        pytest.exit(report.longrepr, returncode=pytest.ExitCode.TESTS_FAILED)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    """Make a run red in which a test was skipped, where none may be (`NANOQ_SKIPS=0`)."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal and terminal.stats.get("skipped") and os.environ.get("NANOQ_SKIPS") == "0":
        terminal.write_line("\nNANOQ_SKIPS=0, but tests were skipped: see the summary", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
