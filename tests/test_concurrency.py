"""Calls at the same time: threads, processes of every kind, event loops and pools have the bits of a call alone.

DataLoaders of PyTorch are in pytorch/test_dataloaders.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import joblib
import numpy as np
import pytest

import dtdfast as dtd
import support
from dtdfast import locks
from processes import explained, in_a_child
from run_support import ENVIRONMENT

RNG = np.random.default_rng(0)
WIDE = dtd.Conv(support.normal(RNG, 32, 3, 3, 3), padding=1)  # enough for two threads
LAYERS = [WIDE, dtd.ReLU(), dtd.Flatten(), dtd.Linear(support.normal(RNG, 5, 32 * 16 * 16))]
INPUTS = [support.normal(RNG, 1 + k % 3, 3, 16, 16) for k in range(8)]
MANY = 64


def new(n_threads: int = 2) -> dtd.Explainer:
    return dtd.Explainer(LAYERS, backend="cpu", n_threads=n_threads)


@pytest.fixture(scope="module")
def expected() -> list[bytes]:
    """Each alone, on one thread."""
    return [explained(new(1), x) for x in INPUTS]


# -------------------------------------------------------------------------------------------------------------- threads


def test_a_call_within_a_call(expected: list[bytes]) -> None:
    """As from a signal's handler, or when an object is collected: whatever its thread holds, there is no waiting."""
    explainer, found = new(), []
    explainer.explain(INPUTS[0])

    def within() -> None:
        with contextlib.ExitStack() as held:
            for owner, name in list(locks._owners.items()):
                held.enter_context(getattr(owner, name))
            found.extend(explained(explainer, x) for x in INPUTS)
            found.extend(dtd.explain(LAYERS, x, backend="cpu", n_threads=2).tobytes() for x in INPUTS)
            dtd.clear_cache()

    thread = threading.Thread(target=within, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert found == expected * 2


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["one Explainer", "an Explainer each"])
def test_many_threads(shared: bool, n_threads: int, expected: list[bytes]) -> None:
    """All of them at once, and again while some have ended."""
    explainers = [new(n_threads)] * MANY if shared else [new(n_threads) for _ in range(MANY)]
    gate = threading.Barrier(MANY)

    def calls(i: int) -> list[bytes]:
        gate.wait()
        return [explained(explainers[i], INPUTS[(i + k) % 8]) for k in range(1 + i % 3)]

    with ThreadPoolExecutor(MANY) as pool:
        found = list(pool.map(calls, range(MANY)))
    assert found == [[expected[(i + k) % 8] for k in range(1 + i % 3)] for i in range(MANY)]


def test_many_threads_call_the_function(expected: list[bytes]) -> None:
    """`explain` keeps eight Explainers; more networks than these come and go."""
    networks = [[*LAYERS[:3], dtd.Linear(LAYERS[3].weight * (1 + i % 12))] for i in range(MANY)]
    alone = [dtd.explain(networks[i], INPUTS[0], backend="cpu", n_threads=1).tobytes() for i in range(12)]

    def call(i: int) -> bytes:
        return dtd.explain(networks[i], INPUTS[0], backend="cpu", n_threads=1 + i % 2).tobytes()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, range(MANY))) == [alone[i % 12] for i in range(MANY)]


FIRST_USE = """
import sys, threading
import numpy as np, dtdfast as dtd
x, wrong, gate = np.ones((2, 3), np.float32), [], threading.Barrier(24)
calls = [
    lambda layers: dtd.explain(layers, x, backend="cpu").sum() - 12,
    lambda layers: dtd.predict(layers, x, backend="cpu").sum() - 18,
    lambda layers: dtd.Explainer(layers, backend="oracle").explain(x).sum() - 12,
    lambda layers: dtd.baselines.gradient(layers, x, backend="cpu").sum() - 12,
    lambda layers: len(dtd.Explainer(layers, backend="cpu").ledger(x).start) - 2,
    lambda layers: len(dtd.parameters.relevance(dtd.Explainer(layers, backend="cpu"), x)) - 2,
]
def call(i):
    gate.wait()
    try:
        off = calls[i % len(calls)]([dtd.Linear(np.eye(3)), dtd.ReLU(), dtd.Linear(np.ones((2, 3)) * [[1], [2]])])
    except Exception as error:
        off = repr(error)
    if off:
        wrong.append((i, off))
sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=call, args=(i,)) for i in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(wrong)
"""


def test_many_threads_use_it_first() -> None:
    """What is imported when it is first named is imported by all of them at once."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE], capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=True
    )
    assert done.stdout == "[]\n"


def test_an_event_loop(expected: list[bytes]) -> None:
    explainer = new()

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(asyncio.to_thread(explained, explainer, x) for x in INPUTS))

    assert asyncio.run(all_of_them()) == expected


# ------------------------------------------------------------------------------------------------------------ processes


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes(method: str, expected: list[bytes]) -> None:
    """They are given an Explainer that this process has used on two threads."""
    explainer = new()
    assert explained(explainer, INPUTS[0]) == expected[0]
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, context) as pool:
        assert list(pool.map(explained, [explainer] * 8, INPUTS, timeout=300)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_a_property_that_another_thread_computes() -> None:
    computing, enough = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, slow: bool) -> None:
            self.slow = slow

        @locks.cached_property
        def value(self) -> bool:
            if self.slow:
                computing.set()
                enough.wait(60)
            return self.slow

    thread = threading.Thread(target=lambda: Slow(True).value)
    thread.start()
    assert computing.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(Slow(False).value)
    ended = os.waitpid(child, 0)[1]
    enough.set()
    thread.join()
    assert ended == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_of_a_process_whose_threads_explain(expected: list[bytes]) -> None:
    """Children find no lock held, and no thread missing; also children of one of the busy threads."""
    explainer, stop = new(), threading.Event()
    wrong: list[int] = []

    def busy(own: dtd.Explainer) -> None:
        while not stop.is_set():
            wrong.extend(i for i, x in enumerate(INPUTS) if explained(own, x) != expected[i])

    def same() -> bool:
        fresh = dtd.explain(LAYERS, INPUTS[1], backend="cpu", n_threads=2).tobytes()
        return [explained(explainer, x) for x in INPUTS] == expected and fresh == expected[1]

    with ThreadPoolExecutor(4) as pool:
        for own in (explainer, explainer, new(), new(1)):
            pool.submit(busy, own)
        try:
            here = [in_a_child(same) for _ in range(10)]
            there = []
            thread = threading.Thread(target=lambda: there.extend([same(), in_a_child(same)]))
            thread.start()
            thread.join()
        finally:
            stop.set()
    assert here == [(True, 0)] * 10
    assert there == [True, (True, 0)]
    assert not wrong


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(backend: str, expected: list[bytes]) -> None:
    explainer = new()
    assert explained(explainer, INPUTS[0]) == expected[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks
        found = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(explained)(explainer, x) for x in INPUTS)
    assert found == expected
