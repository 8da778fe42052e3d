"""Compiled functions keep their machine code where they can, and work where they cannot."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numba import config
from numba.core import caching

import nanoq.compiled
from nanoq.compiled import compiled

PACKAGE = Path(nanoq.compiled.__file__).parent


def twice(x):
    return 2 * x


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def kept(folder, kind):
    return list(folder.rglob(f"*.{kind}"))


def is_from_cache():
    """Compile `twice` as a new process would; whether its code came from a file."""
    function = compiled(twice)
    assert function(21) == 42
    return bool(function.stats.cache_hits)


def test_what_was_compiled_is_there_for_the_next_process(cache):
    assert not is_from_cache()
    assert len(kept(cache, "nbi")) == len(kept(cache, "nbc")) == 1
    assert is_from_cache()


def test_options_reach_the_compiler(cache):
    options = compiled(fastmath={"nsz"}, parallel=True)(twice).targetoptions
    assert options["fastmath"] == {"nsz"} and options["parallel"]


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_damaged_file_is_replaced(cache, kind, share):
    is_from_cache()
    (file,) = kept(cache, kind)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert not is_from_cache()
    assert is_from_cache()


def test_a_full_disk_costs_the_time_to_compile_and_no_more(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    assert not is_from_cache()
    assert not is_from_cache()


@pytest.fixture
def no_place(tmp_path, monkeypatch):
    """Neither the package, nor the user's cache folder, nor `NUMBA_CACHE_DIR` can be written to."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file" / "named"))
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [caching.UserProvidedCacheLocator])
    return tmp_path


def test_without_a_place_of_numbas_it_is_the_users_own_temporary_folder(no_place, monkeypatch):
    monkeypatch.setattr(nanoq.compiled, "private_dir", lambda: no_place / "own")
    asked_for = config.CACHE_DIR
    assert not is_from_cache()
    assert kept(no_place / "own" / "numba", "nbc") and asked_for == config.CACHE_DIR
    assert is_from_cache()


def test_without_any_place_each_process_compiles(no_place, monkeypatch):
    monkeypatch.setattr(nanoq.compiled, "private_dir", lambda: no_place / "file")
    assert not is_from_cache()
    assert not is_from_cache()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always has a home folder")
def test_without_a_home_no_folder_called_tilde_is_made(tmp_path, monkeypatch):
    import pwd

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes",
                        [caching.UserProvidedCacheLocator, caching.UserWideCacheLocator])
    monkeypatch.setattr(nanoq.compiled, "private_dir", lambda: tmp_path / "own")
    assert not is_from_cache()
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_numba_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(config, "DISABLE_JIT", True)
    assert compiled(twice) is twice


def test_no_function_of_the_package_is_compiled_in_another_way():
    users = {path for path in PACKAGE.rglob("*.py") if "njit" in path.read_text(encoding="utf-8")}
    # `teach.speed` compiles a learner's loop twice, with other flags, which numba's files would not tell apart.
    assert users == {PACKAGE / "compiled.py", PACKAGE / "teach/speed.py"}


def test_division_by_zero_is_numpys():
    @compiled
    def quotients(x, y):
        return x / y

    with np.errstate(all="ignore"):
        for x in (1.0, -1.0, 0.0):
            assert np.array_equal(quotients(x, 0.0), np.float64(x) / 0.0, equal_nan=True)
