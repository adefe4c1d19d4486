"""Fixtures and hypothesis profiles shared by the tests."""

import gc
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from dtdfast.cpu import arenas
from promised import Recorder

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("short", max_examples=60, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=2000, **_COMMON)
settings.load_profile("long" if os.environ.get("DTDFAST_LONG") else "short")

gc.disable()  # until all is imported, which makes little garbage


def pytest_configure(config: pytest.Config) -> None:
    """The long form records what it ran of what docs/promises.md names."""
    if os.environ.get("DTDFAST_LONG"):
        config.pluginmanager.register(Recorder())


def pytest_collection_finish() -> None:
    """What thousands of tests are made of stays until the end: the garbage collector need not go through it, and looks
    for the rest less often, which saves one part in twenty of the time.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture
def rng(request):
    """Random numbers that belong to the test that asks."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def dirty_arenas(monkeypatch: pytest.MonkeyPatch) -> None:
    """New working memory of the CPU begins as NaN, so that what is read before it is written shows."""
    aligned = arenas.aligned

    def dirty(nbytes: int) -> Any:
        memory = aligned(nbytes)
        memory[...] = 0xFF
        return memory

    arenas.ARENAS.clear()
    monkeypatch.setattr(arenas, "aligned", dirty)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run's output goes; nothing is there yet."""
    return tmp_path / "out.zarr"
