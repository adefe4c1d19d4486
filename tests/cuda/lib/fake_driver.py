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
from dtdfast import passes
from dtdfast.cuda.compile import cache, parallel
from dtdfast.cuda.compile.dependent import Dependent
from dtdfast.cuda.compile.kernel import Binary, Kernel
from dtdfast.cuda.run import driver as driver_module
from dtdfast.cuda.run import executor
from dtdfast.cuda.run.driver import Gpu
from dtdfast.cuda.run.launch import Launch
from support import classifier, normal

KERNELS: list[Kernel] = []
CALLS: list[Callable[[], None]] = []  # what stands for contractions
GRAPHS: dict[int, list[Any]] = {}
pending: list[Any] = []  # launches of a graph, in the order in which they are run
LAST: list[Launch] = []
FORGETS = [0]  # which launch of a graph does not wait, as a planted fault


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
    ctypes.c_int,
)
def on_launch(
    function: int, sizes: Any, shared: int, stream: int, parameters: Any, capturing: int, overlapping: int
) -> None:
    kernel = KERNELS[function - 1]
    integers = tuple(ctypes.c_int64.from_address(parameters[i]).value for i in range(kernel.n_integers))
    floats = tuple(ctypes.c_float.from_address(parameters[kernel.n_integers + i]).value for i in range(kernel.n_floats))
    assert sizes[3] == kernel.threads
    launch = Launch(kernel, (sizes[0], sizes[1], sizes[2]), shared, integers, floats)
    if not capturing:
        run(launch)
    elif not overlapping:
        pending.append(launch)
    else:  # as early as it may: before the one before it, unless it waits for that
        waits = isinstance(kernel, Dependent) and len(pending) != FORGETS[0]
        pending.insert(pending.index(LAST[0]) + waits, launch)
    LAST[:] = [launch]


def run(launch: Launch) -> None:
    if launch.kernel.name == "contraction":
        assert launch.floats == (0.5,)
        CALLS[launch.integers[0]]()
    else:
        host.run_python(launch)


@ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int)
def on_graph(graph: int, launched: int) -> None:
    if not launched:
        GRAPHS[graph] = pending.copy()
        pending.clear()
        return
    for launch in GRAPHS[graph]:
        run(launch)


def compiled(kernel: Kernel, cc: tuple[int, int]) -> Binary:
    assert cc == (9, 0)
    KERNELS.append(kernel)
    return Binary(b"code%d\0" % len(KERNELS), kernel.name)


def on_the_default_stream(gpu: Gpu) -> None:
    """Number 0 takes copies, launches and graphs, as of libraries that have no stream of their own."""
    values, result, done = np.arange(8.0), np.zeros(8), []
    address = gpu.allocate(values.nbytes)
    launches = [as_launch(host.HostCall(lambda: done.append(1)))]
    graph = gpu.record(launches)
    gpu.upload(address, values, 0)
    gpu.copy(address, address + 32, 32, 0)
    gpu.launch(launches, 0)
    gpu.replay(graph, 0)
    gpu.download(result, address, 0)
    gpu.synchronize(0)
    assert done == [1, 1]
    assert result.tolist() == [4, 5, 6, 7, 4, 5, 6, 7]
    gpu.discard(graph)
    gpu.release(address)


def interrupted(launches: Any, stream: int) -> None:
    raise KeyboardInterrupt


def launches_that_overlap(layers: Any, x: Any) -> None:
    """All wait for the launch before, whatever overlaps. Where one does not, that launch may be the last to end, and
    the result is wrong; but for checks, and for what every call computes alike.
    """
    expected = dtd.explain(layers, x, backend="cpu")

    def right() -> bool:
        explainer = dtd.Explainer(layers, device="cuda:0")
        try:
            explainer.explain(x[::-1] + 1)
            r = explainer.explain(x)
        except dtd.NumericsError:  # NaN, which memory held
            return False
        return bool(abs(r - expected).max() <= 2e-5 * abs(expected).max())

    passes.refill = lambda *ignored: None  # else the CPU would stand in for maps that are all 0
    driver_module.DEPENDENT = True
    before = len(KERNELS)
    assert right()
    assert all(isinstance(kernel, Dependent) for kernel in KERNELS[before:])
    launches, wrong = GRAPHS[max(GRAPHS)], []
    for FORGETS[0] in range(1, len(launches)):
        wrong.append(not right())
    assert sum(wrong) > len(launches) // 2, wrong
    FORGETS[0], driver_module.DEPENDENT = 0, False


FAILURES = {  # calls that succeed before, status, what is said of it, graphs that stay
    "cuModuleLoadData": (1, 2, "cuModuleLoadData: out of memory; free memory there, or choose a smaller batch_size", 0),
    "cuModuleGetFunction": (0, 2, "cuModuleGetFunction: out of memory; free memory there", 0),
    "cuLaunchKernel": (1, 1, "cuLaunchKernel: some error", 0),  # in a capture, which then cannot be ended either
    "cuLaunchKernelEx": (1, 1, "cuLaunchKernelEx: some error", 0),
    "cuGraphInstantiateWithFlags": (0, 2, "cuGraphInstantiate: out of memory; free memory there", 0),
    "cuGraphLaunch": (0, 2, "cuGraphLaunch: out of memory; free memory there", 1),
}


def no_page_can_be_locked(driver: Any, layers: Any, x: Any) -> None:
    """Copies do without where the host has not got the memory; anything else is told."""
    explainer = dtd.Explainer(layers, device="cuda:0")
    expected = dtd.explain(layers, x, backend="cpu")
    for status, locks in ((2, False), (0, True)):
        if status:
            driver.fake_fail(b"cuMemAllocHost_v2", 0, status)
        else:
            explainer = dtd.Explainer(layers, device="cuda:0")
            gc.collect()
        for _ in range(2):
            r = explainer.explain(x)
            assert abs(r - expected).max() <= 2e-5 * abs(expected).max()
        assert (driver.fake_locked() > 0) == locks
    del explainer
    gc.collect()
    assert driver.fake_locked() == 0
    driver.fake_fail(b"cuMemAllocHost_v2", 0, 1)
    with pytest.raises(dtd.BackendError, match="driver says to cuMemAllocHost: some error"):
        dtd.Explainer(layers, device="cuda:0").explain(x)


def what_fails_is_told(driver: Any, layers: Any, x: Any) -> None:
    """The first error is the one shown; nothing is lost, and the same Explainer works afterwards."""

    def held() -> list[int]:
        names = ("contexts", "streams", "recorded", "events", "graphs", "modules")
        return [getattr(driver, f"fake_{name}")() for name in names]

    expected = dtd.explain(layers, x, 3, backend="cpu")
    loaded = driver_module._LOADED[0]
    for name, (others, status, said, kept) in FAILURES.items():
        driver_module.DEPENDENT = name == "cuLaunchKernelEx"
        explainer = dtd.Explainer(layers, device="cuda:0")
        explainer.explain(x)  # numbers of targets need another graph
        if name.startswith("cuModule"):
            loaded.functions.clear(), loaded.shared.clear()
        gc.collect()  # Explainers before this one
        before = held()
        driver.fake_fail(name.encode(), others, status)
        with pytest.raises(dtd.BackendError, match=said) as raised:
            explainer.explain(x, 3)
        assert raised.value.__context__ is None
        after = held()
        assert after[:4] == before[:4], (name, before, after)
        assert after[4] == before[4] + kept
        assert after[5] == before[5] or name != "cuModuleGetFunction"
        r = explainer.explain(x, 3)
        assert abs(r - expected).max() <= 2e-5 * abs(expected).max()
        del raised, explainer
    driver_module.DEPENDENT = False
    explainer = dtd.Explainer(layers, device="cuda:0")
    explainer.explain(x)
    gc.collect()
    before = held()
    driver.fake_fail(b"cuGraphLaunch", 5, 2)
    with pytest.raises(dtd.BackendError, match="cuGraphLaunch: out of memory"):
        explainer.profile(x)
    assert held()[2:4] == before[2:4]
    assert held()[4] == before[4] + 2  # those of the plan itself
    gpu = Gpu(0)
    gpu._queue = interrupted  # type: ignore[assignment, method-assign]
    with pytest.raises(KeyboardInterrupt):
        gpu.record([])
    assert driver.fake_recorded() == 0


def main() -> None:
    driver = ctypes.CDLL("libcuda.so.1")
    driver.fake_connect(on_launch, on_graph)
    driver.fake_locked.restype = ctypes.c_int64
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
    assert driver.fake_locked() == 0
    on_the_default_stream(Gpu(0))
    launches_that_overlap(layers, x)
    no_page_can_be_locked(driver, layers, x)
    what_fails_is_told(driver, layers, x)
    dtd.clear_cache()
    gc.collect()
    assert (driver.fake_graphs(), driver.fake_used()) == (0, 0)
    driver_module.CAPABILITY = (9, 1)  # type: ignore[attr-defined]
    with pytest.raises(
        dtd.BackendError, match=r"device=0 is Fake GPU of compute capability 9\.0; at least 9\.1 is needed"
    ):
        Gpu(0)
    print("right")


if __name__ == "__main__":
    main()
