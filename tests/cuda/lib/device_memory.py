"""Host memory that stands for a device's: every access must lie in an array that the test gave, and be aligned."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Memory:
    """Arrays that kernels may touch, by address."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.blocks: list[NDArray[np.uint8]] = []
        self.kept: list[Any] = []

    def add(self, array: NDArray[Any]) -> int:
        """Make an array known; returns its address."""
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        address = int(base.__array_interface__["data"][0])
        at = bisect_right(self.starts, address)
        if not (at and self.starts[at - 1] == address):
            self.starts.insert(at, address)
            self.blocks.insert(at, base.reshape(-1).view(np.uint8))
            self.kept.append(base)
        return int(array.__array_interface__["data"][0])

    def bytes_at(self, address: int, size: int) -> NDArray[np.uint8]:
        address = int(address)
        assert address % size == 0, f"global address {address:#x} is not a multiple of {size}"
        at = bisect_right(self.starts, address) - 1
        assert at >= 0, f"global address {address:#x} is nowhere"
        place = address - self.starts[at]
        assert place + size <= self.blocks[at].size, f"global address {address:#x} is outside of every array"
        return self.blocks[at][place : place + size]
