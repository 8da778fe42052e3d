"""No function hides the module that it lives in or beside: `import nanoq.quant.x as x` gives a module."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import nanoq

PACKAGES = [module.name for module in pkgutil.walk_packages(nanoq.__path__, "nanoq.") if module.ispkg]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_hides_a_submodule(package):
    loaded = importlib.import_module(package)
    for module in pkgutil.iter_modules(loaded.__path__):
        importlib.import_module(f"{package}.{module.name}")
        assert isinstance(getattr(loaded, module.name), ModuleType), f"{package}.{module.name} is hidden"
