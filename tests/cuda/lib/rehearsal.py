"""Imported in every process of a rehearsal of bench/gpu_call.py on the fake driver (libcuda.c): no kernel may be
compiled, and launches of those found in the pack are emulated.
"""

from __future__ import annotations

import ctypes

import numpy as np

import emulation
import fake_driver
import host
from dtdfast.cuda.compile import cache, parallel
from dtdfast.cuda.compile.kernel import Binary, Kernel
from dtdfast.cuda.run import driver
from dtdfast.cuda.run.launch import Launch
from test_plans_emulated import together

READ = cache.stored
MEMORY = emulation.Memory()


def stored(kernel: Kernel, cc: tuple[int, int]) -> Binary | None:
    """What the fake driver takes for a kernel, if there is machine code of it."""
    found = READ(kernel, cc)
    if found is None:
        return None
    assert found.image[:4] == b"\x7fELF"
    fake_driver.KERNELS.append(kernel)
    return Binary(b"code%d\0" % len(fake_driver.KERNELS), kernel.name)


def refuse(kernels: list[Kernel], cc: tuple[int, int]) -> dict[Kernel, Binary]:
    raise AssertionError(f"not in the pack: {[(kernel.name, kernel.constants) for kernel in kernels]}")


def run(launch: Launch) -> None:
    if together(launch.kernel):
        emulation.run(launch, MEMORY)
    else:
        host.run_python(launch)


class RememberingGpu(driver.Gpu):
    """It knows what its memory is, as emulated kernels may touch nothing else."""

    def allocate(self, nbytes: int) -> int:
        address = super().allocate(nbytes)
        MEMORY.add(np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8))
        return address

    def release(self, address: int) -> None:
        at = MEMORY.starts.index(address)
        for values in (MEMORY.starts, MEMORY.blocks, MEMORY.kept):
            del values[at]
        super().release(address)


def install() -> None:
    fake_driver.run = run
    ctypes.CDLL("libcuda.so.1").fake_connect(fake_driver.on_launch, fake_driver.on_graph)
    cache.stored, parallel.compile_all = stored, refuse  # type: ignore[assignment]
    driver.Gpu = RememberingGpu  # type: ignore[misc]
