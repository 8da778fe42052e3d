"""What every test runs under: no progress bars, one thread for each worker, the quick profile, and no network."""

import os
import socket

os.environ.update(NANOQ_PROGRESS="0", NANOQ_PROFILE="ci", NANOQ_STRICT="0", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import hypothesis
import pytest

# A busy machine is no failure, and a red run must be red again when it is looked into.
hypothesis.settings.register_profile("nanoq", deadline=None, derandomize=True)
hypothesis.settings.load_profile("nanoq")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Let a test reach this machine alone."""
    connect = socket.socket.connect

    def local_only(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
