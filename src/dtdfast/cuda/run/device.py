"""What the executor asks of a device: memory, copies, launches, graphs. `driver.py` is a GPU; tests bring one that is
the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from .launch import Launch

Array = NDArray[Any]

ALIGN = 256  # bytes: of every allocation and upload


class OutOfMemory(Exception):
    """The device has not got that many bytes; turned into a BackendError once the batch cannot be split further."""

    def __init__(self, wanted: int, free: int) -> None:
        super().__init__(f"{wanted:,} bytes wanted, {free:,} free")
        self.wanted, self.free = wanted, free


class Device(Protocol):
    """One device.  Addresses are integers; a stream is a handle, 0 the default stream.

    Copies and launches are queued on a stream and return at once; arrays given to `upload` and `download` must live
    until `synchronize`.
    """

    number: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int  # that one block may have
    stream: int  # of its own, for callers that have none

    def memory(self) -> tuple[int, int]:
        """Bytes free and in all."""

    def allocate(self, nbytes: int) -> int:
        """Address of fresh memory, aligned to 256 bytes; OutOfMemory where there is not enough."""

    def release(self, address: int) -> None: ...

    def lock(self, nbytes: int) -> int:
        """Address of page-locked memory of the host, 0 where there is not enough; copies of it do not make the host
        wait.
        """

    def unlock(self, address: int) -> None: ...

    def upload(self, address: int, array: Array, stream: int) -> None:
        """Host → device; the array is contiguous."""

    def download(self, array: Array, address: int, stream: int) -> None:
        """Device → host; the array is contiguous."""

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        """Device → device."""

    def prepare(self, launches: Sequence[Launch]) -> None:
        """Load the kernels of these launches, compiled now if no cache holds them."""

    def launch(self, launches: Sequence[Launch], stream: int) -> None: ...

    def record(self, launches: Sequence[Launch]) -> Any:
        """The launches as one graph, to be replayed any number of times."""

    def replay(self, graph: Any, stream: int) -> None: ...

    def discard(self, graph: Any) -> None: ...

    def seconds(self, launches: Sequence[Launch], repeats: int) -> float:
        """Time of the launches, the least of `repeats` runs."""

    def synchronize(self, stream: int) -> None: ...
