"""What a learner has reached: small JSON files, in the cache folder, or in the one that `NANOQ_RECORDS` names."""

import json
import os
from pathlib import Path

from nanoq.files import cache_dir, write_text


def read(name: str) -> dict:
    """What is kept under this name; empty if there is no file, or what is in it is damaged."""
    try:
        found = json.loads(_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(name: str, found: dict) -> None:
    """Keep it in place of what was there."""
    write_text(_file(name), json.dumps(found, indent=1))


def _file(name: str) -> Path:
    folder = os.environ.get("NANOQ_RECORDS")
    return (Path(folder) if folder else cache_dir()) / f"{name}.json"
