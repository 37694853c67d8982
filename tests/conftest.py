import gc
import importlib.util
import os
import socket
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

import kshot.methods.hub

kshot.methods.hub.DEFAULT_MODEL = "prototype"
"""Tests that name no model are about something else: they use the fastest one. Others read this constant when
they are imported, which is later."""

ROOT = Path(__file__).parent.parent


def pytest_collection_finish():
    """Exclude from garbage collection what all tests import: about a million objects, which stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_sync():
    """Do not wait for the disk: no file has to survive a power failure here, and each sync takes 0.1 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever tries to download during the tests fails at once."""

    connect = socket.socket.connect

    def refuse(*args, **kwargs):
        raise OSError("tests have no network")

    def connect_to_this_machine_only(self, address):
        # Processes that read ahead hand their tensors over through a local socket.
        return connect(self, address) if self.family == socket.AF_UNIX else refuse()

    monkeypatch.setattr(socket.socket, "connect", connect_to_this_machine_only)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def same_random_numbers():
    torch.manual_seed(0)


def load_module(path):
    """Import a file outside of the package, which may import modules from its folder."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with patch.object(sys, "path", [str(path.parent), *sys.path]):
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demo():
    """Give the demo's module, with its images and annotations."""
    return load_module(ROOT / "demo" / "demo.py")


@pytest.fixture(scope="session")
def speed():
    """Give the benchmark of speed."""
    return load_module(ROOT / "benchmarks" / "speed.py")


@pytest.fixture(scope="session")
def parts(speed):
    """Give the benchmark of what each part of the speed is worth."""
    sys.modules["speed"] = speed  # a script finds its neighbours, a test does not
    sys.modules["winograd"] = load_module(ROOT / "benchmarks" / "winograd.py")
    return load_module(ROOT / "benchmarks" / "parts.py")
