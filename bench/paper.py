"""A GPU on paper: memory that is numbers only and kernels that are compiled but never run, to go as far as one gets
without a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import expect
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.run import driver, usable
from dtdfast.cuda.run.device import ALIGN
from dtdfast.cuda.run.launch import Launch
from dtdfast.cuda.run.prepared import FLAGS

GIGABYTES = 140  # of an H200


class PaperDevice:
    """A `Device` of compute capability 9.0 that counts.

    Attributes
    ----------
    kernels : every kernel that some launch asked for
    shared : the most shared memory of their blocks, in bytes
    allocated : bytes by address
    """

    number, name, capability, multiprocessors, shared_bytes, stream = 0, "H200 on paper", (9, 0), 132, 227 * 1024, 1

    def __init__(self) -> None:
        self.kernels: dict[Kernel, int] = {}  # launches of each
        self.shared: dict[Kernel, int] = {}
        self.allocated: dict[int, int] = {}
        self._next = 2**40

    def memory(self) -> tuple[int, int]:
        total = GIGABYTES * 10**9
        return total - sum(self.allocated.values()), total

    def allocate(self, nbytes: int) -> int:
        address = self._next
        self._next += -(-nbytes // ALIGN) * ALIGN
        self.allocated[address] = nbytes
        return address

    def release(self, address: int) -> None:
        del self.allocated[address]

    def lock(self, nbytes: int) -> int:
        return 0

    def unlock(self, address: int) -> None: ...

    def upload(self, address: int, array: Any, stream: int) -> None: ...

    def download(self, array: Any, address: int, stream: int) -> None:
        """Numbers in the place of results, and flags that found nothing wrong and no row empty."""
        array[...] = 1
        if array.dtype.kind == "i":
            array[: len(FLAGS)] = 0

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None: ...

    def synchronize(self, stream: int) -> None: ...

    def prepare(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            self.kernels[launch.kernel] = self.kernels.get(launch.kernel, 0) + 1
            self.shared[launch.kernel] = max(self.shared.get(launch.kernel, 0), launch.shared_bytes)

    def launch(self, launches: Sequence[Launch], stream: int) -> None:
        self.prepare(launches)

    def record(self, launches: Sequence[Launch]) -> int:
        self.prepare(launches)
        return len(launches)

    def replay(self, graph: int, stream: int) -> None: ...

    def discard(self, graph: int) -> None: ...

    def seconds(self, launches: Sequence[Launch], repeats: int) -> float:
        self.prepare(launches)
        return expect.seconds(launches)


@contextmanager
def on_paper() -> Iterator[PaperDevice]:
    """Make backend="cuda" use a device on paper; results are not computed."""
    device = PaperDevice()
    before = usable.survey, driver.open_device
    usable.survey, driver.open_device = (lambda: (None, device.name)), (lambda number: device)  # type: ignore[assignment]
    try:
        yield device
    finally:
        usable.survey, driver.open_device = before
