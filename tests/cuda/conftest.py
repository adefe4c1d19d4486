"""The CUDA backend on a device that is the host; with DTDFAST_GPU=1 on the GPU itself, as far as a test can be asked
there (lib/on_gpu.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import emulation
import on_gpu
import reference
from dtdfast import passes
from dtdfast.cuda.run import driver, executor, tiles, usable
from dtdfast.explainer import Explainer
from host import HostDevice
from support import classifier

if on_gpu.WANTED:
    emulation.run = on_gpu.run
    passes.refill = lambda *ignored: None  # else the CPU would stand in for a GPU whose maps are all 0


@pytest.fixture(autouse=True)
def wgmma(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of its units turn it on."""
    given = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    words = (word for value in given for word in (value if isinstance(value, tuple) else (value,)))
    if any(isinstance(word, str) and word in tiles.WGMMA for word in words):
        monkeypatch.setattr(tiles, "USE_WGMMA", True)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[HostDevice], None]:
    """Make backend="cuda" compute on a HostDevice, contractions by NumPy."""

    def use(device: HostDevice) -> None:
        monkeypatch.setattr(usable, "survey", lambda: (None, "the host"))
        monkeypatch.setattr(driver, "open_device", lambda number: device)
        monkeypatch.setattr(executor, "contraction", reference)

    return use


@pytest.fixture
def explainer(on_host: Callable[[HostDevice], None]) -> Callable[..., Explainer]:
    """An Explainer for backend "cuda" on a HostDevice, or on the GPU."""

    def make(layers: Any, device: HostDevice | None = None, **options: Any) -> Explainer:
        if not on_gpu.WANTED:
            on_host(device or HostDevice(compiled=True))
        return Explainer(layers, backend="cuda", **options)

    return make


@pytest.fixture
def device() -> HostDevice:
    return HostDevice(compiled=True)


@pytest.fixture
def network(rng: np.random.Generator) -> Any:
    return classifier(rng)
