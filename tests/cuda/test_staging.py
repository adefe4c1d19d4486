"""Page-locked memory between NumPy's arrays and a device: what goes through it, how much of it there is, and what is
copied without it.

The host as a device copies locked memory as late as a GPU may: when something is queued behind, or waited for.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from dtdfast.cuda.run import memory, staging
from dtdfast.cuda.run.session import CudaSession
from dtdfast.cuda.run.staging import Staging
from host import HostDevice
from support import normal

X, RESULT, FLAGS = 4 * 2 * 3 * 6 * 6, 4 * 2 * 3 * 6 * 6, 8 * (4 + 2)  # bytes, of two samples


def held(device: HostDevice) -> list[int]:
    return sorted(block.nbytes for block in device.locked.values())


def test_what_goes_through_it(explainer: Any, device: HostDevice, network: Any, rng: np.random.Generator) -> None:
    """x, results and flags, from the first call on; and they go with the Explainer."""
    made, x = explainer(network, device), normal(rng, 2, 3, 6, 6)
    first = made.explain(x)
    assert held(device) == sorted([X, RESULT, FLAGS])
    second = made.explain(-x, [1, 2])
    assert held(device) == sorted([X, RESULT, FLAGS, 8 * 2])
    _, outputs = made.explain(x, return_outputs=True)
    assert held(device) == sorted([X, RESULT, FLAGS, 8 * 2, 4 * 2 * 5])
    np.testing.assert_array_equal(made.explain(x), first)
    np.testing.assert_array_equal(made.explain(-x, [1, 2]), second)
    np.testing.assert_array_equal(made.predict(x), outputs)
    del made
    gc.collect()
    assert not device.locked


def test_a_bound(explainer: Any, network: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all plans of an Explainer; what is beyond is copied as it is."""
    x, roomy = normal(rng, 3, 3, 6, 6), HostDevice(compiled=True)
    expected = [explainer(network, roomy).explain(x[:n]) for n in (1, 2, 3)]
    monkeypatch.setattr(memory, "MOST", X + FLAGS + 100)
    device = HostDevice(compiled=True)
    made = explainer(network, device)
    for n, right in zip((1, 2, 3), expected, strict=True):
        np.testing.assert_array_equal(made.explain(x[:n]), right)
    assert X <= sum(held(device)) <= X + FLAGS + 100


def test_no_page_can_be_locked(explainer: Any, network: Any, rng: np.random.Generator) -> None:
    asked = []

    class Full(HostDevice):
        def lock(self, nbytes: int) -> int:
            asked.append(nbytes)
            return 0

    x = normal(rng, 2, 3, 6, 6)
    made = explainer(network, Full(compiled=True))
    expected = explainer(network, HostDevice(compiled=True)).explain(x)
    made = explainer(network, Full(compiled=True))
    for _ in range(2):
        np.testing.assert_array_equal(made.explain(x), expected)
    assert len(asked) == 1


def test_pieces(
    explainer: Any, device: HostDevice, network: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(rng, 2, 3, 6, 6)
    expected = explainer(network, HostDevice(compiled=True)).explain(x)
    monkeypatch.setattr(staging, "PIECE", 100)
    made = explainer(network, device)
    made.explain(np.zeros_like(x))
    device.log.clear()
    np.testing.assert_array_equal(made.explain(x), expected)
    assert device.log.count("upload") == -(-X // 100)


def test_a_place_is_free_again_when_it_was_waited_for() -> None:
    """What is uploaded before that must not change, and what is downloaded is not there yet."""
    device, room = HostDevice(), [1000]
    made = Staging(device, room)
    address = device.allocate(64)
    first, second = np.arange(8.0), np.arange(8.0) + 10
    assert made.upload("x", first, address, 1)
    assert not made.upload("x", second, address, 1)
    assert made.download("x", 64, address, 1) is None
    first[:] = -1  # the caller's own is free
    device.synchronize(1)
    place = made.download("y", 64, address, 1)
    assert place is not None
    assert (place == 0xA5).all()
    device.synchronize(1)
    np.testing.assert_array_equal(place.view(np.float64), np.arange(8.0))
    made.waited({"x"})
    assert made.upload("x", second, address, 1)
    assert made.download("y", 64, address, 1) is None
    assert not made.upload("z", np.zeros(1000), address, 1)  # beyond the room
    assert made.download("w", 0, address, 1) is None
    assert room == [1000 - 128]
    del made, place
    gc.collect()
    assert room == [1000]
    assert not device.locked
    device.release(address)


def test_a_call_that_fails_leaves_its_places(
    explainer: Any, device: HostDevice, network: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has waited for its copies, so later calls go around them."""
    x = normal(rng, 2, 3, 6, 6)
    made = explainer(network, device)
    expected = made.explain(x)
    with monkeypatch.context() as patch:
        patch.setattr(device, "replay", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            made.explain(-x)
    for _ in range(2):
        np.testing.assert_array_equal(made.explain(x), expected)


def test_results_are_read_once_they_are_there(
    explainer: Any, device: HostDevice, network: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read before the wait, they are of another call."""
    x = normal(rng, 2, 3, 6, 6)
    made = explainer(network, device)
    expected, wait = made.explain(x), CudaSession._wait
    made.explain(2 * x)

    def early(session: CudaSession) -> None:
        for into, place in session._coming:
            into.reshape(-1).view(np.uint8)[:] = place
        session._coming.clear()
        wait(session)

    monkeypatch.setattr(CudaSession, "_wait", early)
    assert not np.array_equal(made.explain(x), expected)
