"""Run in a process whose libcuda is libcuda.c: an explanation through driver.py and the real bindings, kernels on the
host.

python fake_driver.py: prints "right" when what the fake GPU returned is what the CPU computes.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import host
import reference
from dtdfast.cuda.compile import cache, parallel
from dtdfast.cuda.compile.kernel import Binary, Kernel
from dtdfast.cuda.run import driver as driver_module
from dtdfast.cuda.run import executor
from dtdfast.cuda.run.driver import Gpu
from dtdfast.cuda.run.launch import Launch
from support import classifier, normal

KERNELS: list[Kernel] = []
CALLS: list[Callable[[], None]] = []  # what stands for contractions
GRAPHS: dict[int, list[Any]] = {}
pending: list[Any] = []


def never_called(a: Any, f: Any) -> None:
    raise AssertionError


def as_launch(call: host.HostCall) -> Launch:
    """A launch whose one integer says which call it stands for; with enough shared memory to need leave."""
    CALLS.append(call.run)
    return Launch(
        Kernel("contraction", lambda ptx: never_called, (), 1, 1, 32), (1, 1, 1), 100_000, (len(CALLS) - 1,), (0.5,)
    )


@ctypes.CFUNCTYPE(
    None,
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_int,
)
def on_launch(function: int, sizes: Any, shared: int, stream: int, parameters: Any, capturing: int) -> None:
    kernel = KERNELS[function - 1]
    integers = tuple(ctypes.c_int64.from_address(parameters[i]).value for i in range(kernel.n_integers))
    floats = tuple(ctypes.c_float.from_address(parameters[kernel.n_integers + i]).value for i in range(kernel.n_floats))
    assert sizes[3] == kernel.threads
    launch = Launch(kernel, (sizes[0], sizes[1], sizes[2]), shared, integers, floats)
    pending.append(launch)
    if not capturing:
        run(pending.pop())


def run(launch: Launch) -> None:
    if launch.kernel.name == "contraction":
        assert launch.floats == (0.5,)
        CALLS[launch.integers[0]]()
    else:
        host.run_compiled(launch)


@ctypes.CFUNCTYPE(None, ctypes.c_int64)
def on_graph(graph: int) -> None:
    if graph not in GRAPHS:
        GRAPHS[graph] = pending.copy()
        pending.clear()
    for launch in GRAPHS[graph]:
        run(launch)


def compiled(kernel: Kernel, cc: tuple[int, int]) -> Binary:
    assert cc == (9, 0)
    KERNELS.append(kernel)
    return Binary(b"code%d\0" % len(KERNELS), kernel.name)


def main() -> None:
    driver = ctypes.CDLL("libcuda.so.1")
    driver.fake_connect(on_launch, on_graph)
    launches = reference.launches
    reference.launches = lambda *a: [as_launch(c) for c in launches(*a)]  # type: ignore[assignment]
    executor.contraction = reference  # type: ignore[attr-defined]
    cache.stored, cache.compiled = (lambda kernel, cc: None), compiled  # type: ignore[assignment]
    parallel.FEW = 1000  # kernels: no other process

    found = dtd.backends()["cuda"]
    assert found.usable, found.reason
    rng = np.random.default_rng(0)
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    explainer = dtd.Explainer(layers, device="cuda:0")
    for target in (None, 3, [1, 4], None):
        r, expected = explainer.explain(x, target), dtd.explain(layers, x, target, backend="cpu")
        assert abs(r - expected).max() <= 2e-5 * abs(expected).max()
    assert explainer.ledger(x).closed
    assert explainer.profile(x).seconds > 0
    assert driver.fake_contexts() == 0
    gpu = Gpu(0)
    assert (gpu.name, gpu.capability, gpu.multiprocessors, gpu.shared_bytes) == ("Fake GPU", (9, 0), 132, 227 * 1024)
    address, queue = gpu.allocate(256), gpu._queue
    gpu._queue = lambda launches, stream: (queue(launches, stream), gpu.release(address))  # type: ignore[assignment]
    gpu.discard(gpu.record([]))  # what is no longer used may be freed while a graph is recorded
    for wrong in (1, -1):
        with pytest.raises(dtd.BackendError, match="sees 1 GPU"):
            Gpu(wrong)
    wide = [dtd.Linear(normal(rng, 1000, 1500))]
    with pytest.raises(dtd.BackendError, match="of 4,194,304 free"):
        dtd.explain(wide, normal(rng, 2, 1500), backend="cuda")
    assert driver.fake_contexts() == 0
    r = explainer.explain(x)  # nothing is poisoned
    assert np.isfinite(r).all()
    assert driver.fake_graphs() > 1
    del explainer
    dtd.clear_cache()
    gc.collect()
    assert (driver.fake_streams(), driver.fake_graphs(), driver.fake_used()) == (1, 0, 0)  # the stream is that of `gpu`
    driver_module.CAPABILITY = (9, 1)  # type: ignore[attr-defined]
    with pytest.raises(
        dtd.BackendError, match=r"device=0 is Fake GPU of compute capability 9\.0; at least 9\.1 is needed"
    ):
        Gpu(0)
    print("right")


if __name__ == "__main__":
    main()
