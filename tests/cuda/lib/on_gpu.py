"""Launches that tests make for arrays of the host, run on a real device: the same cases and bounds as in emulation.

With DTDFAST_GPU=1 tests/cuda puts `run` in the place of the emulation's, and lets plans run on the GPU itself. Every
array that the test gave goes to the device, between guard bands, and a launch's addresses with it; afterwards every
array comes back.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_memory import Memory
from dtdfast.cuda.run import driver
from dtdfast.cuda.run.launch import Launch

WANTED = bool(os.environ.get("DTDFAST_GPU"))
GUARD, SENTINEL = 4096, 0xA5
ALIGN = 256


@cache
def device() -> Any:
    return driver.open_device(None)


class _Copies:
    """The arrays of a test in one allocation of the device, each aligned as it is on the host."""

    def __init__(self, memory: Memory) -> None:
        self.starts, self.blocks = memory.starts, memory.blocks
        self.offsets, top = [], GUARD
        for start, block in zip(self.starts, self.blocks, strict=True):
            self.offsets.append(top + start % ALIGN)
            top += -(-(start % ALIGN + block.size + GUARD) // ALIGN) * ALIGN
        self.image: NDArray[np.uint8] = np.full(top, SENTINEL, np.uint8)

    def places(self) -> list[NDArray[np.uint8]]:
        return [self.image[at : at + b.size] for at, b in zip(self.offsets, self.blocks, strict=True)]

    def address(self, value: int, base: int) -> int:
        """A number of a launch: where it is an address of the host, the device's."""
        at = bisect_right(self.starts, value) - 1
        if at < 0 or value > self.starts[at] + self.blocks[at].size:
            return value
        return base + self.offsets[at] + value - self.starts[at]


def run(launch: Launch, memory: Memory) -> None:
    """Run one launch on the device."""
    gpu, copies = device(), _Copies(memory)
    for place, block in zip(copies.places(), copies.blocks, strict=True):
        place[:] = block
    base = gpu.allocate(copies.image.size)
    try:
        gpu.upload(base, copies.image, gpu.stream)
        gpu.launch([replace(launch, integers=tuple(copies.address(i, base) for i in launch.integers))], gpu.stream)
        gpu.download(copies.image, base, gpu.stream)
        gpu.synchronize(gpu.stream)
    finally:
        gpu.release(base)
    for place, block in zip(copies.places(), copies.blocks, strict=True):
        if not np.array_equal(block, place):
            block[:] = place
        place[:] = SENTINEL
    assert (copies.image == SENTINEL).all(), "a kernel wrote beside its arrays"
