"""Fixtures and hypothesis profiles shared by the tests."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("short", max_examples=100, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=2000, **_COMMON)
settings.load_profile("long" if os.environ.get("DTDFAST_LONG") else "short")


@pytest.fixture
def rng(request):
    """Random numbers that belong to the test that asks."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run's output goes; nothing is there yet."""
    return tmp_path / "out.zarr"
