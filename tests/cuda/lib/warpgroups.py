"""`wgmma` in emulation: 128 threads multiply what they hold by a tile in shared memory, some time until they wait.

The layouts are those of PTX's manual ("Register Fragments and Shared Memory Matrix Layouts" of wgmma) and of CUTLASS's
traits (tests/cuda/test_warpgroups.py). Pessimistic on purpose:

- the descriptor's bits are read, and the tile through its swizzle, aligned as `base offset` 0 asks;
- registers in flight hold what nothing can be computed with, and must come out as they went in;
- the tile is read when the instruction comes and when it is waited for, and must be the same;
- no thread may have written there without a fence of proxies since;
- `wgmma.fence` must stand between what makes A and the sums, and the instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import races
import tensor_cores

THREADS = 128
B128 = 1  # the layout of a descriptor: rows of 128 bytes, swizzled
THREAD = np.arange(THREADS)
ROW, T = THREAD // 32 * 16 + THREAD % 32 // 4, THREAD % 4  # rows ROW and ROW + 8 are a thread's


class InFlight:
    """In a register that `wgmma` may still read (then with its value) or write."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def _touched(self, *_: Any) -> Any:
        raise AssertionError("a register is used while wgmma is in flight")

    __float__ = __int__ = __index__ = __add__ = __radd__ = __mul__ = __rmul__ = __neg__ = __lt__ = __gt__ = _touched
    __array__ = __and__ = __rshift__ = __lshift__ = _touched


SUM = InFlight()


@dataclass(frozen=True, eq=False)
class Flight:
    """One instruction of a warpgroup: its sums, and where B lies."""

    sums: NDArray[np.float32]
    addresses: NDArray[np.int64]
    found: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Part:
    """What a thread has to do with it: its sums are c[i …], its part of A a[j … j+3]."""

    flight: Flight
    place: int
    c: list[Any]
    i: int
    a: list[Any]
    j: int
    words: list[Any]

    @property
    def n(self) -> int:
        return self.flight.sums.shape[1]

    @property
    def key(self) -> tuple[int, int]:
        return id(self.c), self.i


# ------------------------------------------------------------------------------------------------------------- layouts


def tile_addresses(low: int, high: int, pixels: int) -> NDArray[np.int64]:
    """Of B, `pixels` × 32 bytes along k, the addresses of its 16-byte chunks."""
    descriptor = low | high << 32
    start, stride = (descriptor >> at & 0x3FFF for at in (0, 32))
    assert descriptor >> 62 == B128, f"descriptor {descriptor:#x}: only the swizzle of 128 bytes is emulated"
    assert descriptor >> 49 & 7 == 0, f"descriptor {descriptor:#x} has a base offset"
    assert start * 16 >> 7 & 7 == 0, f"the pattern of B's swizzle begins at {start * 16:#x}, no multiple of 1024"
    row, chunk = np.indices((pixels, 2))
    linear = start * 16 + row // 8 * stride * 16 + row % 8 * 128 + chunk * 16
    return linear ^ (linear >> 7 & 7) << 4


def of_words(words: NDArray[np.uint32], numbers: str = "bf16") -> NDArray[np.float32]:
    """A, 64 × 16 or 8, from the four words of each thread: rows ROW and ROW + 8, then so in the second half of k."""
    a = np.zeros((64, 8), np.uint32)
    for k, (row, column) in enumerate(((0, 0), (8, 0), (0, 4), (8, 4))):
        a[ROW + row, T + column] = words[:, k]
    return as_numbers(a, numbers)


def as_numbers(words: NDArray[np.uint32], numbers: str) -> NDArray[np.float32]:
    """Of rows of words; of tf32 the last 13 bits are not looked at."""
    if numbers == "tf32":
        return (words & np.uint32(0xFFFFE000)).view(np.float32)
    return (np.ascontiguousarray(words).view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def places(pixels: int) -> tuple[Any, Any]:
    """Rows and columns of D, by thread and register."""
    r = np.arange(pixels // 2)
    return ROW[:, None] + 8 * (r // 2 % 2), r // 4 * 8 + 2 * T[:, None] + r % 2


# -------------------------------------------------------------------------------------------------------- instructions


def instructions(world: dict[str, Any]) -> dict[str, Callable[[list[Any]], list[Any]]]:
    """Put the instructions into `world`, the emulation; what threads do together is returned."""
    state, together, shared, base = (world[name] for name in ("_S", "_together", "_shared_bytes", "SHARED"))
    of_b = races.code("wgmma", 16, races.READ) << races.PLACE_BITS

    def read(addresses: NDArray[np.int64], threads: list[Any]) -> NDArray[np.uint8]:
        """These chunks, noted for some threads: to all others of the block these reads are another thread's."""
        for address in (addresses.min(), addresses.max()):
            shared(address, 16)
        for thread in threads:
            state.of_shared.log.frombytes((thread.tag + of_b + addresses.ravel() - base).tobytes())
        found: NDArray[np.uint8] = state.shared.reshape(-1, 16)[(addresses.ravel() - base) // 16]
        return found

    def issue(numbers: str, pixels: int, operands: list[Any]) -> list[Any]:
        """Of 128 threads: descriptor, words of A, old sums (those of a flight, or numbers), thread."""
        descriptors = {row[0] for row in operands}
        assert len(descriptors) == 1, f"threads of a warpgroup give wgmma {len(descriptors)} descriptors"
        addresses = tile_addresses(*descriptors.pop(), pixels)
        chunks = set((addresses // 16).ravel().tolist())
        for thread in state.of_block:
            late = sorted(chunks.intersection(address // 16 for address in thread.written))
            assert not late, (
                f"wgmma reads what thread {thread.number} wrote at {16 * late[0]:#x} with no proxy fence since"
            )
        found = read(addresses, [operands[0][-1], operands[32][-1]])
        b = as_numbers(found.view(np.uint32).reshape(pixels, 8), numbers)
        a = of_words(np.array([row[1] for row in operands], np.uint32), numbers)
        old = [row[2] for row in operands]
        before = {id(o) for o in old}
        c = old[0].sums if len(before) == 1 else np.array(old, np.float32)
        rows, columns = places(pixels)
        product = (a.astype(np.float64) @ b.astype(np.float64).T)[rows, columns]
        return [Flight(tensor_cores.truncated(c + product), addresses, found)] * THREADS

    def wgmma(c: list[Any], i: int, a: list[Any], j: int, low: int, high: int, *, numbers: str, pixels: int) -> None:
        thread, n = state.current, pixels // 2
        words = [w.value if isinstance(w, InFlight) else w for w in a[j : j + 4]]
        fenced, values, sums = getattr(thread, "fenced", (None, [], {}))
        assert (a is fenced, words) == (True, values[j : j + 4]), "no wgmma.fence since A was made"
        flown = {part.key: part.flight for group in thread.flights for part in group}
        if c[i] is SUM:
            old: Any = flown.get((id(c), i))
            assert old is None or old.sums.shape[1] == n, "wgmma adds to sums that another shape has in flight"
        else:
            old = c[i : i + n]
            assert sums.get((id(c), i), old) == old, "no wgmma.fence since the sums were made"
        flight = together(f"wgmma {numbers} {pixels}", THREADS, ((low, high), words, old, thread))
        thread.flights[-1].append(Part(flight, thread.number % THREADS, c, i, a, j, words))
        thread.sums = {**getattr(thread, "sums", {}), (id(c), i): (c, i, n)}
        c[i : i + n] = [SUM] * n
        a[j : j + 4] = map(InFlight, words)

    def fence(a: list[Any], i: int, *, n: int) -> None:
        together("wgmma fence", 32)
        thread = state.current
        assert not any(isinstance(w, InFlight) for w in a[i : i + n]), "a register is used while wgmma is in flight"
        before = {key: c[at : at + m] for key, (c, at, m) in getattr(thread, "sums", {}).items()}
        thread.fenced = a, a[: i + n], before

    def commit() -> None:
        together("wgmma commit", 32)
        state.current.flights.append([])

    def wait(c: list[Any], i: int, *, n: int) -> None:
        thread = state.current
        done = [part for group in thread.flights[:-1] for part in group]
        thread.flights = thread.flights[-1:]
        together("wgmma wait", 32, (thread, {id(part.flight): part.flight for part in done}))
        for part in done:
            assert all(v is SUM for v in part.c[part.i : part.i + part.n]), "sums are written while wgmma is in flight"
            now = [getattr(w, "value", None) for w in part.a[part.j : part.j + 4]]
            assert now == part.words, "A is written while wgmma is in flight"
        more = {part.key for part in thread.flights[-1]}
        last = {part.key: part for part in done if part.key not in more}
        for part in last.values():
            part.c[part.i : part.i + part.n] = list(part.flight.sums[part.place])
        for part in done:
            part.a[part.j : part.j + 4] = part.words

    def landing(operands: list[Any]) -> list[Any]:
        """Of a warp: what its instructions read must still be there."""
        thread, flights = operands[0]
        for flight in flights.values():
            again = read(flight.addresses, [thread])
            assert np.array_equal(again, flight.found), "what wgmma reads is written before it is waited for"
        return [None] * len(operands)

    world["wgmma"] = cache(lambda numbers, pixels: partial(wgmma, numbers=numbers, pixels=pixels))
    world.update({f"wgmma_{f.__name__}": cache(lambda n, f=f: partial(f, n=n)) for f in (fence, wait)})
    world.update(wgmma_commit=commit, proxy_fence=lambda: state.current.written.clear())
    world["shared_1024"] = world["shared"]  # SHARED is a multiple of it
    idle = dict.fromkeys(("wgmma fence", "wgmma commit"), lambda operands: [None] * len(operands))
    return {
        **idle,
        "wgmma wait": landing,
        **{f"wgmma {kind} {n}": partial(issue, kind, n) for kind in ("bf16", "tf32") for n in range(8, 257, 8)},
    }
