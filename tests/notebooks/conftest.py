"""The builder is a script in `tools`, not a module of the package: load it from there."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def build():
    sys.path.insert(0, str(ROOT / "tools"))  # as for a script: claims.py lies beside it
    spec = importlib.util.spec_from_file_location("nanoq_notebook_builder", ROOT / "tools" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def notebooks():
    return ROOT / "notebooks"
