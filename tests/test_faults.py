"""Memory is refused at every place in turn: the call fails with an error that says so, and the next one has the right
bits.

DTDFAST_LONG=1: at every array and every line of a first call, instead of at some of them.
"""

from __future__ import annotations

import gc
import resource
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import support
from dtdfast import baselines, parameters
from faults import Fault, error_at_line, no_memory
from global_state import unchanged
from processes import in_a_child

RNG = np.random.default_rng(0)
LAYERS = support.classifier(RNG)
X = support.normal(RNG, 3, 3, 6, 6)
Faults = Callable[[int], AbstractContextManager[Fault]]  # by the number of the place

ARRAYS, LINES = (1, 1) if support.LONG else (13, 499)
"""From one fault of a first call to the next: it makes hundreds of arrays, and runs some 14,000 lines."""


def new(threads: int = 1, **options: Any) -> dtd.Explainer:
    return dtd.Explainer(LAYERS, backend="cpu", n_threads=threads, **options)


def weights(explainer: dtd.Explainer) -> np.ndarray:
    return np.concatenate([found.ravel() for found in parameters.relevance(explainer, X).values()])


KEPT: dict[str, Callable[[dtd.Explainer], np.ndarray]] = {
    "explain": lambda explainer: explainer.explain(X),
    "targets": lambda explainer: explainer.explain(X, [[0, 1]]),
    "predict": lambda explainer: explainer.predict(X),
    "ledger": lambda explainer: explainer.explain(X, return_ledger=True)[0],
    "function": lambda _: dtd.explain(LAYERS, X, backend="cpu", n_threads=1),
}
"""Calls of an Explainer that has been called before, the caller's or the one that `explain` keeps."""

FIRST: dict[str, Callable[[], np.ndarray]] = {
    "explain": lambda: new().explain(X),
    "explain on two threads": lambda: new(2).explain(X),
    "predict": lambda: new().predict(X),
    "ledger": lambda: new().explain(X, return_ledger=True)[0],
    "float64": lambda: new(precision="float64").explain(X),
    "weights": lambda: weights(new()),
    "gradient": lambda: baselines.gradient(LAYERS, X, backend="cpu", n_threads=1),
}


def swept(call: Callable[[], np.ndarray], faults: Faults, every: int = 1) -> int:
    """Faults at one place after the other, `every` places on, until the call comes to its end; how many there were."""
    expected = call().tobytes()
    with unchanged():
        for n, number in enumerate(count(1, every)):
            with faults(number) as fault:
                try:
                    found = call().tobytes()
                except (dtd.DtdError, MemoryError, KeyboardInterrupt):
                    pass
                else:
                    assert found == expected, (number, fault.where)
            assert call().tobytes() == expected, (number, fault.where)
            if not fault.happened:
                return n
    raise AssertionError


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", KEPT)
def test_no_memory_for_any_array_of_a_call(name: str, threads: int) -> None:
    every = ARRAYS if name == "ledger" else 1
    assert swept(partial(KEPT[name], new(threads)), no_memory, every) > 3


@pytest.mark.parametrize("name", FIRST)
def test_no_memory_for_any_array_of_a_first_call(name: str) -> None:
    assert swept(FIRST[name], no_memory, ARRAYS) > 1


@pytest.mark.parametrize("name", KEPT)
def test_an_error_between_any_two_lines_of_a_call(name: str) -> None:
    every = 5 if name == "ledger" and not support.LONG else 1
    assert swept(partial(KEPT[name], new()), error_at_line, every) > 100


@pytest.mark.parametrize("name", ["explain", "function"])
def test_ctrl_c_between_any_two_lines_of_a_call(name: str) -> None:
    assert swept(partial(KEPT[name], new()), partial(error_at_line, error=KeyboardInterrupt)) > 100


@pytest.mark.parametrize("name", ["explain", "weights"])
def test_an_error_between_two_lines_of_a_first_call(name: str) -> None:
    assert swept(FIRST[name], error_at_line, LINES) > 5_000 // LINES


@pytest.mark.skipif(sys.platform != "linux", reason="no other system limits a process's addresses")
def test_where_the_system_gives_no_more_addresses() -> None:
    """To arrays, to threads' stacks or to OpenMP, by how much room there is: a child ends with the bits or an error."""
    expected = new().explain(X).tobytes()
    explainer = new(3)

    def holds(room: int) -> bool:
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            return explainer.explain(X).tobytes() == expected
        except (dtd.DtdError, MemoryError):
            return True

    for room in range(0, 3 * 2**23 + 2**21, 2**18 if support.LONG else 2**21):  # two stacks of 8 MiB, and all arrays
        assert in_a_child(partial(holds, room))[0], room


def test_nothing_is_lost_on_the_way_to_an_error() -> None:
    """Memory that Python and NumPy hold is the same after faults at all places as it was before them."""
    call = partial(KEPT["explain"], new())
    swept(call, no_memory)
    swept(call, error_at_line)
    tracemalloc.start()
    held = []
    for _ in range(2):
        gc.collect()
        dtd.clear_cache()
        held.append(tracemalloc.get_traced_memory()[0])
        swept(call, no_memory)
        swept(call, error_at_line, 3)
    tracemalloc.stop()
    assert held[1] - held[0] < 2**14  # arrays and arenas of a call are a multiple of it
