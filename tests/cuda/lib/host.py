"""A device that is the host: its memory is the process's own, its kernels run thread after thread, in Python or
compiled by numba.

Allocations stand between guard bands, and fresh memory holds NaN: a read of what nothing wrote shows in the result, and
a write beside an allocation at its release.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from dtdfast.cuda.compile import language
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.run.device import ALIGN, OutOfMemory
from dtdfast.cuda.run.launch import Launch
from support import LONG

GUARD = 4096
SENTINEL = 0xA5
FEW = 0 if LONG else 8192  # threads, which Python runs sooner than a kernel is compiled


@dataclass(frozen=True)
class HostCall:
    """In the place of a launch: something that the host does at once."""

    run: Callable[[], None]


class HostDevice:
    """A `Device` of so many bytes.

    Parameters
    ----------
    compiled : run kernels of more than FEW threads through numba's compiler for the host, and from then on with fewer
        too, else by Python itself
    """

    number, name, capability, multiprocessors, shared_bytes, stream = 0, "host", (9, 0), 132, 227 * 1024, 1

    def __init__(self, nbytes: int = 2**31, *, compiled: bool = False) -> None:
        self.total, self.compiled = nbytes, compiled
        self.blocks: dict[int, Any] = {}
        self.locked: dict[int, Any] = {}
        self.under_way: list[tuple[int, int, int, int]] = []  # copies of locked memory: to, from, bytes, stream
        self.log: list[str] = []  # what was asked for, in order

    # --------------------------------------------------------------------------------------------------------- memory

    @property
    def used(self) -> int:
        return sum(b.nbytes - 2 * GUARD - ALIGN for b in self.blocks.values())

    def memory(self) -> tuple[int, int]:
        return self.total - self.used, self.total

    def allocate(self, nbytes: int) -> int:
        self.log.append("allocate")
        if nbytes > self.total - self.used:
            raise OutOfMemory(nbytes, self.total - self.used)
        block = np.full(nbytes + 2 * GUARD + ALIGN, SENTINEL, np.uint8)
        address = -(-(block.ctypes.data + GUARD) // ALIGN) * ALIGN
        start = address - block.ctypes.data
        block[start : start + nbytes // 4 * 4].view(np.float32)[:] = np.nan
        self.blocks[address] = block
        return address

    def release(self, address: int) -> None:
        self.log.append("release")
        block = self.blocks.pop(address)
        start, size = address - block.ctypes.data, block.nbytes - 2 * GUARD - ALIGN
        assert (block[:start] == SENTINEL).all(), "a kernel wrote before its memory"
        assert (block[start + size :] == SENTINEL).all(), "a kernel wrote behind its memory"

    def lock(self, nbytes: int) -> int:
        block = np.full(nbytes, SENTINEL, np.uint8)
        self.locked[block.ctypes.data] = block
        return int(block.ctypes.data)

    def unlock(self, address: int) -> None:
        del self.locked[address]

    # ------------------------------------------------------------------------------------------------ copies, streams

    def _move(self, to: int, source: int, nbytes: int, stream: int, host: Any = None) -> None:
        """At once, but of locked memory when the host waits for the stream, or something else is queued there."""
        if host is not None and any(a <= host.ctypes.data < a + b.nbytes for a, b in self.locked.items()):
            self.under_way.append((to, source, nbytes, stream))
        else:
            self._catch_up(stream)
            ctypes.memmove(to, source, nbytes)

    def _catch_up(self, stream: int) -> None:
        for *copy, queue in self.under_way:
            if queue == stream:
                ctypes.memmove(*copy)
        self.under_way = [copy for copy in self.under_way if copy[-1] != stream]

    def upload(self, address: int, array: Any, stream: int) -> None:
        assert array.flags.c_contiguous
        self.log.append("upload")
        self._move(address, array.ctypes.data, array.nbytes, stream, array)

    def download(self, array: Any, address: int, stream: int) -> None:
        assert array.flags.c_contiguous
        self.log.append("download")
        self._move(array.ctypes.data, address, array.nbytes, stream, array)

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        self.log.append("copy")
        self._move(to, source, nbytes, stream)

    def synchronize(self, stream: int) -> None:
        self.log.append("synchronize")
        self._catch_up(stream)

    # ------------------------------------------------------------------------------------------------------- launches

    def prepare(self, launches: Sequence[Any]) -> None:
        pass

    def launch(self, launches: Sequence[Any], stream: int) -> None:
        self.log.append("launch")
        self._catch_up(stream)
        for launch in launches:
            if isinstance(launch, HostCall):
                launch.run()
            else:
                many = launch.grid[0] * launch.kernel.threads > FEW
                run_compiled(launch) if self.compiled and (many or launch.kernel in _COMPILED) else run_python(launch)

    def record(self, launches: Sequence[Any]) -> list[Any]:
        self.log.append("record")
        return list(launches)

    def replay(self, graph: list[Any], stream: int) -> None:
        self.launch(graph, stream)
        self.log[-1] = "replay"

    def discard(self, graph: Any) -> None:
        self.log.append("discard")

    def seconds(self, launches: Sequence[Any], repeats: int) -> float:
        self.launch(launches, 0)
        return 1e-6 * len(launches)


def _arguments(launch: Launch) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    kernel = launch.kernel
    assert len(launch.integers) == kernel.n_integers
    assert len(launch.floats) == kernel.n_floats
    assert all(-(2**63) <= i < 2**63 for i in launch.integers)
    assert launch.grid[1:] == (1, 1)
    return launch.integers, tuple(map(np.float32, launch.floats))


@cache
def _python(kernel: Kernel) -> Any:
    return kernel.function(language)


def run_python(launch: Launch) -> None:
    """Thread after thread."""
    a, f = _arguments(launch)
    function = _python(launch.kernel)
    with np.errstate(all="ignore"):
        for language.Place.item in range(launch.grid[0] * launch.kernel.threads):
            function(a, f)


_COMPILED: dict[Kernel, Any] = {}


def run_compiled(launch: Launch) -> None:
    import native

    a, f = _arguments(launch)
    if launch.kernel not in _COMPILED:
        _COMPILED[launch.kernel] = native.loop(launch.kernel.function(native))
    _COMPILED[launch.kernel](launch.grid[0] * launch.kernel.threads, a, f)
