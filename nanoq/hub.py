"""Files that are not shipped: in the folder that `NANOQ_DATA` names, or on the Hugging Face hub."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies


def local_file(file: str) -> Path | None:
    """A file of the folder that `NANOQ_DATA` names, if it is there."""
    folder = os.environ.get("NANOQ_DATA")
    path = Path(folder) / file if folder else None
    return path if path and path.is_file() else None


def hub_rows(name: str, repository: str, config: str | None, split: str, otherwise: str) -> Iterator[dict]:
    """Stream the rows of one split of a hub data set, each a dict by column.

    Raises:
        FileNotFoundError: whatever goes wrong; one sentence that ends with `otherwise`, the other two ways to get it.
    """
    try:
        from datasets import load_dataset  # slow to import, and needed only here

        find_hub()
        yield from load_dataset(repository, config, split=split, streaming=True)
    except Exception as error:  # whatever the HTTP library raises, the learner needs one sentence
        raise FileNotFoundError(
            f"cannot fetch '{name}' ({type(error).__name__}). Three ways to get it: connect to the internet so that "
            f"`datasets` (pip install datasets) can read {repository}; or {otherwise}"
        ) from None


def find_hub() -> None:
    """Fail at once where the hub's name is unknown: `datasets` would try for half a minute, with warnings."""
    if not getproxies():
        socket.getaddrinfo(urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname, 443)
