"""Compressed models in files: what was pruned is not there, what is thin stays thin, what is packed packed."""

from pathlib import Path

from nanoq.store import Checkpoint, load, save


def save_compressed(folder: Path | str, checkpoint: Checkpoint, **facts) -> Path:
    """Write a checkpoint whose layers were compressed in any way; every parameter goes to float16.

    `load_compressed` gives a model with the logits of this one, once its parameters are rounded to float16.

    Raises:
        ValueError: as `nanoq.store.save`.
    """
    return save(folder, checkpoint, half=True, **facts)


def load_compressed(name_or_path: str | Path) -> Checkpoint:
    """Load a checkpoint, compressed or not: `nanoq.store.load`."""
    return load(name_or_path)
