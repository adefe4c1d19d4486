"""What planning costs, and how what it makes is shown: in proportion to the layers, and in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.arenas import ARENAS
from dtdfast.plan import memory
from dtdfast.plan.steps import Buffer

W = (0.4 * np.eye(4)).astype(np.float32)
X = np.ones((1, 4), np.float32)


def chain(n: int) -> list[dtd.Layer]:
    return [record for _ in range(n // 2) for record in (dtd.Linear(W), dtd.ReLU())]


def residual(n: int) -> list[dtd.Layer]:
    layers: list[dtd.Layer] = [dtd.Linear(W), dtd.ReLU()]
    while len(layers) < n:
        p = len(layers) - 1
        layers += [dtd.Linear(W), dtd.ReLU(), dtd.Linear(W), dtd.Add(inputs=(p, p + 3)), dtd.ReLU()]
    return layers


def fan(n: int) -> list[dtd.Layer]:
    """One tensor that many layers read, and one sum of all of them."""
    count = n // 2
    branches = [record for _ in range(count) for record in (dtd.Linear(W, inputs=1), dtd.ReLU())]
    return [dtd.Linear(W), dtd.ReLU(), *branches, dtd.Add(inputs=tuple(3 + 2 * k for k in range(count)))]


def calls(layers: list[dtd.Layer]) -> int:
    """Functions called while a plan is made, builtins and generators included."""
    count = 0

    def seen(*_: object) -> None:
        nonlocal count
        count += 1

    explainer = dtd.Explainer(layers, domain="nonnegative")
    sys.setprofile(seen)
    try:
        explainer.plan_for(X.shape)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("make", [chain, residual, fan])
def test_twice_the_layers_take_twice_the_work(make: Callable[[int], list[dtd.Layer]]) -> None:
    calls(make(20))  # what is imported or compiled once
    assert calls(make(800)) <= 2.2 * calls(make(400))


@pytest.mark.parametrize("count", [50, memory.MANY + 50])
def test_buffers_that_live_together_lie_apart(count: int, rng: np.random.Generator) -> None:
    """By both ways of placing them; and what lives one after the other shares memory."""
    buffers = [Buffer(str(k), (int(rng.integers(1, 90)),), "n", "f4") for k in range(count)]
    for buffer in buffers:
        buffer.first = int(rng.integers(0, 2 * count))
        buffer.last = buffer.first + int(rng.integers(0, 20))
    arena = memory.place(buffers, 1, 1, reuse=True)
    spans = [(b.first, b.last, b.offset, b.offset + b.nbytes(1, 1)) for b in buffers]
    spans.sort()
    for number, (first, last, start, end) in enumerate(spans):
        assert first <= last
        assert end <= arena
        for other in spans[number + 1 : number + 60]:
            assert other[0] > last or other[2] >= end or other[3] <= start
    assert arena < sum(b.nbytes(1, 1) for b in buffers) / 2


def test_reprs_are_one_line() -> None:
    layers = residual(60)
    explainer = dtd.Explainer(layers)
    plan, ledger = explainer.plan_for(X.shape), explainer.ledger(X)
    network = plan.program.network
    things = [plan, ledger, plan.program, network, network.units[-1], network.tensors[-1], plan.forward[0], plan.buffers[0], explainer,
              layers[0], ledger.rows[0]]  # fmt: skip
    for thing in things:
        text = repr(thing)
        assert "\n" not in text
        assert len(text) < 500, type(thing).__name__
    assert str(plan).count("\n") > 60
    for shown in (plan, ledger):
        assert shown._repr_html_() == f"<pre>{_escaped(str(shown))}</pre>"


def _escaped(text: str) -> str:
    for raw, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(raw, code)
    return text


def test_idle_memory_is_shared_and_can_be_let_go() -> None:
    dtd.clear_cache()
    explainer = dtd.Explainer([dtd.Conv(np.ones((4, 1, 3, 3), np.float32)), dtd.ReLU()], backend="cpu")
    for size in range(20, 60, 2):
        explainer.explain(np.ones((1, 1, size, size), np.float32), (0, 0, 0))
    assert 0 < ARENAS.nbytes <= ARENAS.kept
    dtd.clear_cache()
    assert ARENAS.nbytes == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_busy_process_explains() -> None:
    """Forked while another thread explains, again and again."""
    code = """
import os, threading, numpy as np, dtdfast as dtd
layers = [dtd.Linear(np.ones((64, 64), np.float32)), dtd.ReLU(), dtd.Linear(np.ones((3, 64), np.float32))]
x, stop = np.ones((64, 64), np.float32), threading.Event()
explainer = dtd.Explainer(layers, backend="cpu", n_threads=1)
def busy():
    while not stop.is_set():
        dtd.Explainer(layers, backend="cpu", n_threads=1).explain(x)
        explainer.explain(x[: 1 + int.from_bytes(os.urandom(1), "big") % 64])
thread = threading.Thread(target=busy); thread.start()
for _ in range(20):
    child = os.fork()
    if not child:
        explainer.explain(x); dtd.explain(layers, x, backend="cpu", n_threads=1); os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set(); thread.join()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(dtd.__file__).parents[1]), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


SIZES: dict[str, Callable[[], list[dtd.Layer]]] = {
    "pad": lambda: [dtd.Pad(2**33)],
    "window": lambda: [dtd.AvgPool(10**9)],
    "stride": lambda: [dtd.MaxPool(1, stride=2**31)],
    "strided convolution": lambda: [dtd.Conv(np.ones((1, 1, 1, 1), np.float32), stride=2**40)],
    "one side": lambda: [dtd.Pad(((0, 2**40), (0, 0)))],
    "dilation": lambda: [dtd.Conv(np.ones((1, 1, 2, 2), np.float32), dilation=2**33)],
    "repeated": lambda: [dtd.Upsample(2**20)],
    "neighbours": lambda: [dtd.LRN(10**12)],
    "reshape": lambda: [dtd.Reshape((2**62, -1))],
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("backend", ["cpu", "oracle"])
def test_sizes_beyond_all_bounds(name: str, backend: str) -> None:
    """A right answer, or a DtdError."""
    x = np.ones((1, 1, 4, 4), np.float32)
    for call in (dtd.predict, lambda *a, **k: dtd.explain(*a, (0, 0, 0), **k)):
        try:
            found = call(SIZES[name](), x, backend=backend)
        except dtd.DtdError:
            continue
        assert np.isfinite(found).all()


@pytest.mark.parametrize("n_threads", [0, -1, True, 3000, 10**9, 1.5])
def test_numbers_of_threads(n_threads: object) -> None:
    with pytest.raises(dtd.LayerError, match="n_threads"):
        dtd.Explainer([dtd.Linear(W)], n_threads=n_threads)  # type: ignore[arg-type]


def test_an_input_that_is_larger_than_memory() -> None:
    x = np.broadcast_to(np.float32(1), (2**40, 3))
    with pytest.raises(dtd.DtdError, match="DTDFAST_MEMORY"):
        dtd.explain([dtd.Linear(np.ones((2, 3), np.float32))], x)


def test_threads_may_share_the_cache() -> None:
    layers, found = chain(6), []
    threads = [threading.Thread(target=lambda: found.append(dtd.explain(layers, X, domain="nonnegative"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.tobytes() for r in found}) == 1
