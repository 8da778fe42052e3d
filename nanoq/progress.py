"""The one progress bar of the package, with the one switch that silences it."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def progress(iterable: Iterable | None = None, **options) -> tqdm:
    """Wrap an iterable in a progress bar, or make a bar to `update()` by hand when none is given.

    `options` are tqdm's: `total`, `desc`, `unit`, … A bar redraws itself on stderr with the time it took, so
    it would differ in every run of a notebook: `NANOQ_PROGRESS=0` silences it. The notebook builder and the
    test suite set that variable.
    """
    return tqdm(iterable, disable=os.environ.get("NANOQ_PROGRESS") == "0", **options)
