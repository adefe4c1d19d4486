"""`wgmma` as the emulation has it (lib/warpgroups.py): its layouts by two readings, a product by it, and a fault for
each of its rules.

    PTX ISA, "Matrix Fragments for wgmma.mma_async.m64nNk16": row and column of element i of a thread, with warp w of
    the four, g = lane / 4 and t = lane % 4
    CUTLASS 3, MMA_Traits of SM90_64xNx16_F32BF16BF16_RS: (thread, element) as mixed radices with strides into m + 64·k
    (A), m + 64·n (D); of SM90_64xNx8_F32TF32TF32_RS A alone is another; of B, K-major, Swizzle<3,4,3> of
    ((8, n), (T, 2)) : ((8T, 1024 bytes), (1, T))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import emulation as ptx
import warpgroups
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.run import tiles
from dtdfast.cuda.run.contraction import bf16
from dtdfast.cuda.run.launch import Launch
from dtdfast.plan.steps import View
from layers import World, geometry

LOW, HIGH = 1 << 16, 1024 >> 4 | 1 << 30  # leading offset 1, as CUTLASS has it; stride, swizzle of 128 bytes
THREADS = range(128)


def in_a(thread: int, i: int) -> tuple[int, int]:
    w, g, t = thread // 32, thread % 32 // 4, thread % 4
    return 16 * w + (g if i in (0, 1, 4, 5) else g + 8), 2 * t + (i & 1) + (8 if i >= 4 else 0)


def in_a_of_tf32(thread: int, i: int) -> tuple[int, int]:
    w, g, t = thread // 32, thread % 32 // 4, thread % 4
    return 16 * w + (g if i in (0, 2) else g + 8), t if i < 2 else t + 4


def in_d(thread: int, i: int) -> tuple[int, int]:
    w, g, t = thread // 32, thread % 32 // 4, thread % 4
    return 16 * w + (g if i % 4 < 2 else g + 8), 8 * (i // 4) + 2 * t + (i & 1)


def by_strides(thread: int, i: int) -> tuple[int, int]:
    """Of both: elements of D beyond the first eight go on as those of A."""
    number = thread % 4 * 128 + thread // 4 % 8 + thread // 32 * 16
    number += (i & 1) * 64 + (i >> 1 & 1) * 8 + (i >> 2) * 512
    return number % 64, number // 64


def tf32_by_strides(thread: int, i: int) -> tuple[int, int]:
    number = thread % 4 * 64 + thread // 4 % 8 + thread // 32 * 16 + (i & 1) * 8 + (i >> 1) * 256
    return number % 64, number // 64


@pytest.mark.parametrize(("place", "columns"), [(in_a, 16), (in_d, 8), (in_d, 40), (in_d, 256)])
def test_two_readings(place: Callable[[int, int], tuple[int, int]], columns: int) -> None:
    found = [place(thread, i) for thread in THREADS for i in range(columns // 2)]
    assert found == [by_strides(thread, i) for thread in THREADS for i in range(columns // 2)]
    assert sorted(found) == list(np.ndindex(64, columns))
    found = [in_a_of_tf32(thread, i) for thread in THREADS for i in range(4)]
    assert found == [tf32_by_strides(thread, i) for thread in THREADS for i in range(4)]
    assert sorted(found) == list(np.ndindex(64, 8))


def test_emulated_layouts() -> None:
    rows, columns = warpgroups.places(40)
    assert [(rows[t, i], columns[t, i]) for t in THREADS for i in range(20)] == [
        in_d(t, i) for t in THREADS for i in range(20)
    ]
    matrix = np.arange(64 * 16).reshape(64, 16) % 251
    halves = bf16(np.array([[matrix[in_a(t, i)] for i in range(8)] for t in THREADS], np.float32))
    assert np.array_equal(warpgroups.of_words(halves.view(np.uint32)), matrix)
    numbers = np.array([[matrix[in_a_of_tf32(t, i)] for i in range(4)] for t in THREADS], np.float32)
    assert np.array_equal(warpgroups.of_words(numbers.view(np.uint32), "tf32"), matrix[:, :8])


@pytest.mark.parametrize("step", range(4))
def test_swizzle(step: int) -> None:
    """Chunk q of row r lies at q ^ (r mod 8); a step along k begins 32 bytes further."""
    found = warpgroups.tile_addresses((4096 + 32 * step) >> 4 | LOW, HIGH, 24)
    for row, chunk in np.ndindex(24, 2):
        assert found[row, chunk] == 4096 + 128 * row + ((2 * step + chunk) ^ row % 8) * 16


def kernel_with(fault: str, kind: str, pixels: int) -> Callable[[Any, Any], None]:
    """D = A·B twice over, 128 bytes deep, from the words of A, from rows of B, to the registers of D."""
    multiply, fence, wait = ptx.wgmma(kind, pixels), ptx.wgmma_fence(16), ptx.wgmma_wait(pixels // 2)
    high = HIGH ^ 3 << 30 if fault == "another swizzle" else HIGH

    def kernel(a: Any, f: Any) -> None:
        thread, base = ptx.thread(), ptx.shared_1024()
        for c in range(thread, 8 * pixels, 128):
            ptx.copy16(base + 16 * (c ^ (c >> 3 & 7)), a[1] + 16 * c, 16)
        ptx.copy_commit()
        if fault == "a fence before the tile lands":
            ptx.proxy_fence()
        ptx.COPY_WAIT[0]()
        if fault not in ("no fence of proxies", "a fence before the tile lands"):
            ptx.proxy_fence()
        ptx.barrier()
        words, sums = ptx.words(16), ptx.registers(pixels // 2)
        for k in range(16):
            words[k] = ptx.read_int(a[0] + 64 * thread + 4 * k) & 0xFFFFFFFF
        for i in range(pixels // 2):
            sums[i] = f[0]
        for _ in range(2):
            if fault != "no fence":
                fence(words, 0)
            if fault == "A behind the fence":
                words[3] = words[3] ^ 1
            if fault == "sums behind the fence":
                sums[1] = f[0] + 1
            at = base
            if fault == "a tile that is not aligned":
                at += 128
            if fault == "another descriptor" and thread == 77:
                at += 32
            for k in range(4):
                if fault != "a warp stays away" or thread < 96:
                    multiply(sums, 0, words, 4 * k, (at + 32 * k) >> 4 | LOW, high)
            if fault == "sums are read":
                f[0] + sums[2]
            if fault == "sums are written":
                sums[2] = f[0]
            if fault == "A is written":
                words[5] = 0
            if fault != "no commit":
                ptx.wgmma_commit()
            if fault == "the tile is written" and thread == 0:
                ptx.shared_store(base, f[0])
            if fault != "no wait":
                wait(sums, 0)
        for i in range(pixels // 2):
            ptx.store(a[2] + 4 * (thread * (pixels // 2) + i), sums[i])

    return kernel


def product(fault: str, kind: str, pixels: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """2·A·B of small integers, so exact, and what the kernel makes."""
    depth, place, of = (16, in_a, bf16) if kind == "bf16" else (8, in_a_of_tf32, np.float32)
    a, b = (rng.integers(-8, 9, (n, 4 * depth)).astype(np.float32) for n in (64, pixels))
    words = np.array(
        [
            [a[:, k : k + depth][place(t, i)] for k in range(0, 4 * depth, depth) for i in range(depth // 2)]
            for t in THREADS
        ],
        np.float32,
    )
    words = of(words)
    memory, given, out = ptx.Memory(), of(b), np.zeros((128, pixels // 2), np.float32)
    blocks = [np.zeros(x.nbytes + 16, np.uint8) for x in (words, given, out)]
    starts = [-block.ctypes.data % 16 for block in blocks]
    addresses = [memory.add(block[at:]) for block, at in zip(blocks, starts, strict=True)]
    for block, at, x in zip(blocks, starts, (words, given), strict=False):
        block[at : at + x.nbytes] = x.view(np.uint8).ravel()
    body = kernel_with(fault, kind, pixels)
    kernel = Kernel("planted", lambda _: body, (), 3, 1, 128)
    ptx.run(Launch(kernel, (1, 1, 1), 128 * pixels, tuple(addresses), (0.0,)), memory)
    results = blocks[2][starts[2] : starts[2] + out.nbytes].view(np.float32).reshape(out.shape)
    found = np.full((64, pixels), np.nan)
    for t in THREADS:
        for i in range(pixels // 2):
            found[in_d(t, i)] = results[t, i]
    return found, 2 * a @ b.T


@pytest.mark.parametrize(("kind", "pixels"), [("bf16", 8), ("bf16", 48), ("tf32", 24)])
def test_product(kind: str, pixels: int, rng: np.random.Generator) -> None:
    found, expected = product("", kind, pixels, rng)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)])
@pytest.mark.parametrize("scattered", [False, True])
def test_kernels_need_this_layout(
    scattered: bool, order: tuple[int, ...], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the words of A in any other order they would compute something else."""
    monkeypatch.setattr(tiles, "USE_WGMMA", True)
    right = warpgroups.of_words
    monkeypatch.setattr(warpgroups, "of_words", lambda words, kind: right(words[:, list(order)], kind))
    part = geometry(rng, 64, 64, (1, 1, 2), (1, 1, 1))
    x = rng.integers(1, 9, (1, 64, 1, 1, 2)).astype(np.float32)
    part.weight[...] = rng.integers(1, 9, part.weight.shape)
    world = World(1, real="bf16")
    out = world.lowering.buffer("out", x.shape[1:], dtype="f4")
    world.lowering.taps("TAPS", part, View(world.buffer(x.shape[1:], x)), dict(out=View(out)), scatter=scattered)
    (launch,) = world.run("bfloat16")
    assert launch.kernel.constants[0] == "bf16_wgmma"
    expected = np.einsum("nidhw,io->nodhw" if scattered else "nidhw,oi->nodhw", x, part.weight[..., 0, 0, 0])
    assert np.array_equal(world.view_of(out), expected) == (order == (0, 1, 2, 3))


FAULTS = {
    "another swizzle": "only the swizzle of 128 bytes",
    "a tile that is not aligned": "no multiple of 1024",
    "another descriptor": "give wgmma 2 descriptors",
    "no fence of proxies": "with no proxy fence since",
    "a fence before the tile lands": "with no proxy fence since",
    "no fence": "no wgmma.fence since A was made",
    "A behind the fence": "no wgmma.fence since A was made",
    "sums behind the fence": "no wgmma.fence since the sums were made",
    "a warp stays away": "threads wait for each other",
    "sums are read": "a register is used while wgmma is in flight",
    "sums are written": "sums are written while wgmma is in flight",
    "A is written": "A is written while wgmma is in flight",
    "the tile is written": "written before it is waited for|no barrier between",
    "no commit": "a register is used while wgmma is in flight",
    "no wait": "a register is used while wgmma is in flight",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(fault: str, rng: np.random.Generator) -> None:
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        product(fault, "bf16", 8, rng)
