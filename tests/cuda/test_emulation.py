"""The emulation itself: kernels of a few lines with and without a race, integers that fit 32 bits and do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import emulation as ptx
from dtdfast.cuda.compile import language
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.run.launch import Launch

BASE = ptx.SHARED
THREADS = 64


def said(body: Callable[[Any, Any], None], blocks: int = 1) -> str:
    """What the emulation says of a kernel whose one number is the address of 1,024 bytes of global memory."""
    memory, array = ptx.Memory(), np.zeros(272, np.float32)
    start = -array.ctypes.data // 4 % 4
    kernel = Kernel("planted", lambda _: body, (), 1, 1, THREADS)
    try:
        ptx.run(Launch(kernel, (blocks, 1, 1), 1024, (memory.add(array[start:]),), (0.0,)), memory)
    except AssertionError as error:
        return str(error)
    return ""


def handed_on(distance: int, barrier: str) -> str:
    """Each thread reads what another one wrote, behind a barrier of the block, of the warp, or none."""

    def kernel(a: Any, f: Any) -> None:
        thread = ptx.thread()
        ptx.shared_store(BASE + 4 * thread, f[0])
        if barrier == "block":
            ptx.barrier()
        if barrier == "warp":
            ptx.warp_barrier()
        ptx.shared_load(BASE + 4 * (thread ^ distance))

    return said(kernel)


def test_barriers() -> None:
    """One of the block orders all, one of the warp its 32 threads."""
    assert not handed_on(0, "")
    for distance in (1, 31, 32):
        assert "no barrier between" in handed_on(distance, "")
        assert not handed_on(distance, "block")
    assert not handed_on(31, "warp")
    assert "(shared_store)" in handed_on(32, "warp")


@pytest.mark.parametrize("race", [False, True])
def test_what_a_warp_loads_together(race: bool) -> None:
    def kernel(a: Any, f: Any) -> None:
        thread, words = ptx.thread(), ptx.words(4)
        for k in range(4):
            ptx.shared_store(BASE + 4 * (4 * thread + k), f[0])
        if not race:
            ptx.warp_barrier()
        ptx.ldmatrix_words(words, 0, BASE + 16 * thread)  # a lane's own row

    assert bool(said(kernel)) == race


def copied(waits: int, barrier: bool, distance: int) -> str:
    """Two groups of one copy each; each thread reads the first one of another."""

    def kernel(a: Any, f: Any) -> None:
        thread = ptx.thread()
        for k in range(2):
            ptx.copy4(BASE + 4 * thread + 256 * k, a[0] + 4 * thread, 4)
            ptx.copy_commit()
        ptx.COPY_WAIT[waits]()
        if barrier:
            ptx.barrier()
        ptx.shared_load(BASE + 4 * (thread ^ distance))
        ptx.COPY_WAIT[0]()

    return said(kernel)


def test_copies() -> None:
    """Nobody may read what has not been waited for, others not before a barrier either."""
    assert not copied(1, False, 0)
    assert not copied(1, True, 33)
    for waits, barrier, distance in ((2, False, 0), (2, True, 0), (2, True, 1), (1, False, 1), (1, False, 32)):
        assert "(copy4): no barrier between" in copied(waits, barrier, distance)


def test_a_copy_onto_another_still_under_way() -> None:
    def kernel(a: Any, f: Any) -> None:
        for _ in range(2):
            ptx.copy4(BASE + 4 * ptx.thread(), a[0], 4)
        ptx.copy_commit()
        ptx.COPY_WAIT[0]()

    assert "no barrier between" in said(kernel)


def test_global_memory() -> None:
    """Every byte is written by one thread, and read by that one alone; a read through the constant cache by none."""

    def kernel_of(to: int, read_from: int, read: Callable[[int], Any]) -> Callable[[Any, Any], None]:
        def kernel(a: Any, f: Any) -> None:
            item = THREADS * ptx.block_x() + ptx.thread()
            ptx.store(a[0] + 4 * (item >> to), f[0])
            ptx.barrier()
            read(a[0] + 4 * (item ^ read_from))

        return kernel

    assert not said(kernel_of(0, 0, ptx.load), blocks=2)
    assert not said(kernel_of(0, 128, ptx.read), blocks=2)  # what nobody writes
    assert re.match(r"threads (\d+) \(store\) and \1 \(read\) of a launch meet", said(kernel_of(0, 0, ptx.read)))
    for distance in (1, 32, 64):
        assert "(load) of a launch meet" in said(kernel_of(0, distance, ptx.load), blocks=2)
    assert "(store) of a launch meet" in said(kernel_of(1, 128, ptx.load))


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("times", (2**31, 4)), ("times", (4, -(2**31) - 1)), ("quotient", (2**32, 3)), ("quotient", (-1, 3)),
        ("quotient", (2**31, 1)), ("shared_store_int", (BASE, 2**31)), ("store_byte", (0, 2**31)),
    ],
)  # fmt: skip
def test_what_does_not_fit_32_bits(name: str, operands: tuple[int, int]) -> None:
    with pytest.raises(AssertionError, match=rf"^{name}: .* is .*, beyond 32 bits"):
        getattr(ptx, name)(*operands)


def test_what_fits_32_bits() -> None:
    assert ptx.times(-(2**31), 2**31 - 1) == -(2**31) * (2**31 - 1)
    assert ptx.quotient(2**32 - 1, 2) == 2**31 - 1
    array = ptx.integers(2)
    array[1] = -(2**31)
    with pytest.raises(AssertionError, match=r"integers: element 0 is 2147483648, beyond 32 bits"):
        array[0] = 2**31
    with pytest.raises(AssertionError, match="quotient_by: operand 2"):
        ptx.WORDS[language.quotient_by](1, 2**32, 1)
