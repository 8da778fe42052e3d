"""Compiled loops that work anywhere: numba's, whose machine code is kept for the next process where it can be."""

import functools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from numba import config, njit
from numba.core.caching import FunctionCache

from nanoq.files import private_dir


def compiled(function: Callable | None = None, /, **options) -> Callable:
    """Compile a function at its first call, as `numba.njit(cache=True)` does, and never fail for want of a cache.

    The machine code is kept where numba keeps it: in `NUMBA_CACHE_DIR`, beside the source, or in the user's cache
    folder. Where none of them can be written to, it goes to a temporary folder of the user's own. Division by zero
    gives what it does in numpy: the check for it would keep a loop from running in many lanes.

    Args:
        function: to compile; not given where the decorator has options.
        options: of `numba.njit`, such as `fastmath` and `parallel`.
    """
    if function is None:
        return functools.partial(compiled, **options)
    dispatcher = njit(error_model="numpy", **options)(function)
    if dispatcher is not function:  # NUMBA_DISABLE_JIT=1 gives the function back
        # Nothing can be written anywhere, or not below a path that is no text here: compile in every process.
        with suppress(RuntimeError, OSError, UnicodeError):
            dispatcher._cache = _cache_of(function)
    return dispatcher


class _Cache(FunctionCache):
    """A cache whose faults cost no more than the time to compile: a full disk, a file that ends in the middle."""

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever the bytes of a damaged file make of it
            with suppress(OSError):
                self.flush()  # or what is compiled now could not be kept either
            return None

    def save_overload(self, sig, data) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def _cache_of(function: Callable) -> _Cache:
    """The cache in the first place that can be written to; RuntimeError if there is none."""
    if config.CACHE_DIR or _has_home():
        with suppress(RuntimeError, UnicodeError):  # "no locator available"
            return _Cache(function)
    before, config.CACHE_DIR = config.CACHE_DIR, os.fspath(private_dir() / "numba")
    try:
        return _Cache(function)
    finally:
        config.CACHE_DIR = before


def _has_home() -> bool:
    """Whether the user has a home folder by name; for one who has not, numba would make a folder called `~`."""
    try:
        return bool(Path.home())
    except RuntimeError:
        return False
