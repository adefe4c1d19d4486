"""The instructions of `dtdfast.cuda.compile.ptx` in Python: a kernel runs from its own source, one greenlet per thread.

Pessimistic on purpose: shared memory starts as NaN, a copy lands only when it is waited for, threads run in random
order between barriers, and every address must lie in memory that the test gave, aligned as the instruction asks. What
it cannot prove is its own reading of how the tensor cores lay out their fragments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet
from numpy.typing import NDArray

import tensor_cores
from device_memory import Memory
from dtdfast.cuda.compile import language
from dtdfast.cuda.compile.specialise import specialised
from dtdfast.cuda.run.launch import Launch
from tensor_cores import bits as _bits

SHARED = 4096  # address of the dynamic shared memory
_F = np.float32


class _Thread:
    def __init__(self, number: int, block: tuple[int, int, int], body: Callable[[], None]) -> None:
        self.number, self.block = number, block
        self.copies: list[list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]] = [[]]
        self.greenlet = greenlet(body)
        self.answer: Any = None


class _State:
    memory: Memory
    threads: int  # of a block
    shared: NDArray[np.uint8]
    current: _Thread
    scheduler: Any


_S = _State()


def _shared_at(address: int, size: int) -> NDArray[np.uint8]:
    place = int(address) - SHARED
    assert place % size == 0, f"shared address {place:#x} is not a multiple of {size}"
    assert 0 <= place <= _S.shared.size - size, f"shared address {place:#x} is outside of {_S.shared.size} bytes"
    return _S.shared[place : place + size]


# ------------------------------------------------------------------------------------------------- threads, registers


def thread() -> int:
    return _S.current.number


def block_x() -> int:
    return _S.current.block[0]


def block_y() -> int:
    return _S.current.block[1]


def quotient(a: int, b: int) -> int:
    assert 0 <= a < 2**32
    assert 0 < b < 2**32
    return int(a) // int(b)


def registers(n: int) -> list[Any]:
    return [_F(np.nan)] * n


def words(n: int) -> list[Any]:
    return [0] * n


integers = words

# ------------------------------------------------------------------------------------------------------------- memory


def _loader(at: Callable[[int, int], NDArray[np.uint8]], dtype: Any, n: int) -> Callable[[int], Any]:
    size = np.dtype(dtype).itemsize * n
    integer = np.dtype(dtype).kind in "iu"

    def load(address: int) -> Any:
        values = at(address, size).view(dtype)
        if n == 1:
            return int(values[0]) if integer else values[0]
        return tuple(values.copy())

    return load


def _storer(at: Callable[[int, int], NDArray[np.uint8]], dtype: Any, n: int) -> Callable[..., None]:
    size = np.dtype(dtype).itemsize * n

    def store(address: int, *values: Any) -> None:
        assert len(values) == n
        at(address, size).view(dtype)[:] = values

    return store


def _global(address: int, size: int) -> NDArray[np.uint8]:
    return _S.memory.bytes_at(address, size)


load = read = _loader(_global, np.float32, 1)
load4 = read4 = _loader(_global, np.float32, 4)
read_int = _loader(_global, np.int32, 1)
read_long = _loader(_global, np.int64, 1)
load_byte = _loader(_global, np.uint8, 1)
load_short = _loader(_global, np.uint16, 1)
store = _storer(_global, np.float32, 1)
store4 = _storer(_global, np.float32, 4)
store_long = _storer(_global, np.int64, 1)
store_byte = _storer(_global, np.uint8, 1)
store_short = _storer(_global, np.uint16, 1)
shared_load = _loader(_shared_at, np.float32, 1)
shared_load4 = _loader(_shared_at, np.float32, 4)
shared_load_int = _loader(_shared_at, np.int32, 1)
shared_store = _storer(_shared_at, np.float32, 1)
shared_store2 = _storer(_shared_at, np.float32, 2)
shared_store_int = _storer(_shared_at, np.int32, 1)


def load8_bf16(address: int) -> Any:
    return tuple((_global(address, 16).view(np.uint16).astype(np.uint32) << 16).view(np.float32))


def load_bf16(address: int) -> Any:
    return low_bf16(load_short(address))


def store8_bf16(address: int, *values: Any) -> None:
    assert len(values) == 8
    _global(address, 16).view(np.uint16)[:] = [_bf16(v) for v in values]


def store_bf16(address: int, value: Any) -> None:
    store_short(address, _bf16(value))


def shared() -> int:
    return SHARED


def _copy(size: int) -> Callable[[int, int, int], None]:
    def copy(to: int, source: int, n_bytes: int) -> None:
        target, data = _shared_at(to, size), np.zeros(size, np.uint8)
        assert n_bytes in (0, size)
        if n_bytes:
            data[:] = _global(source, size)
        target[:] = 0xFF  # NaN until it lands
        _S.current.copies[-1].append((target, data))

    return copy


copy4, copy16 = _copy(4), _copy(16)


def copy2(to: int, source: int, n_bytes: int) -> None:
    assert n_bytes in (0, 2)
    _shared_at(to, 2)[:] = _global(source, 2) if n_bytes else 0


def copy_commit() -> None:
    _S.current.copies.append([])


def _wait(n: int) -> Callable[[], None]:
    def wait() -> None:
        groups = _S.current.copies  # the last one is open
        while len(groups) - 1 > n:
            for target, data in groups.pop(0):
                target[:] = data

    return wait


COPY_WAIT = tuple(_wait(n) for n in range(8))

# --------------------------------------------------------------------------------------------------------- arithmetic


def times(i: int, stride: int) -> int:
    assert -(2**31) <= i < 2**31
    return int(i) * int(stride)


def fma(a: Any, b: Any, c: Any) -> Any:
    return _F(np.float64(a) * np.float64(b) + np.float64(c))  # the product is exact in float64


def round_tf32(x: Any) -> int:
    return _bits(x) if not np.isfinite(x) else (_bits(x) + 0x1000) & 0xFFFFE000


word = _bits


def high_tf32(x: Any) -> Any:
    return np.uint32(round_tf32(x)).view(np.float32)


def ratio(a: Any, b: Any) -> Any:
    return _F(0) if b == 0 else _F(a) / _F(b)


def positive(x: Any) -> Any:
    assert np.isfinite(x)
    return max(_F(x), _F(0))


def round_positive_tf32(x: Any) -> int:
    return round_tf32(positive(x))


def _bf16(x: Any) -> int:
    bits = _bits(x)
    return 0x7FFF if np.isnan(x) else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF


def pack_bf16(low: Any, high: Any) -> int:
    return _bf16(low) | _bf16(high) << 16


def low_bf16(word: int) -> Any:
    return np.uint32(word << 16 & 0xFFFFFFFF).view(np.float32)


def high_bf16(word: int) -> Any:
    return np.uint32(word & 0xFFFF0000).view(np.float32)


def positive_bf16(word: int) -> int:
    return sum(half for half in (word & 0xFFFF, word & 0xFFFF0000) if not half & 0x80008000)


# -------------------------------------------------------------------------------------------------------- collectives


def _together(kind: str, width: int, operands: Any = None) -> Any:
    """Wait until all threads of the block (width 0) or of the warp have come here."""
    return _S.scheduler.switch((kind, width, operands))


def barrier() -> None:
    _together("barrier", 0)


def warp_barrier() -> None:
    _together("warp barrier", 32)


def _ldmatrix(kind: str) -> Callable[..., None]:
    def ldmatrix(to: list[Any], i: int, address: int) -> None:
        to[i : i + 4] = _together(kind, 32, address)

    return ldmatrix


ldmatrix, ldmatrix_words, ldmatrix_turned = (
    _ldmatrix("ldmatrix"),
    _ldmatrix("ldmatrix words"),
    _ldmatrix("ldmatrix turned"),
)


def _mma(kind: str) -> Callable[..., None]:
    def mma(c: list[Any], i: int, a: list[Any], j: int, b0: Any, b1: Any) -> None:
        c[i : i + 4] = _together(kind, 32, (*a[j : j + 4], b0, b1, *c[i : i + 4]))

    return mma


mma_tf32, mma_bf16 = _mma("tf32"), _mma("bf16")


def _matrices(addresses: list[int]) -> Any:
    """Four matrices of eight rows of 16 bytes, each read at once: a line of banks is 128 bytes."""
    lines = np.array(addresses).reshape(4, 8)
    assert all(len(set(line)) == 8 for line in lines // 16 % 8), f"rows of a matrix meet in a bank: {lines - SHARED}"
    return [np.stack([_shared_at(a, 16).view(np.uint16) for a in line]) for line in lines]


_COLLECTIVES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "ldmatrix": lambda addresses: tensor_cores.numbers(_matrices(addresses)),
    "ldmatrix words": lambda addresses: tensor_cores.pairs(_matrices(addresses)),
    "ldmatrix turned": lambda addresses: tensor_cores.pairs([m.T for m in _matrices(addresses)]),
    "tf32": tensor_cores.tf32,
    "bf16": tensor_cores.bf16,
}

# ----------------------------------------------------------------------------------------- the words of language.py


def _item() -> int:
    return _S.current.block[0] * _S.threads + _S.current.number


def inline(function: Any) -> Any:
    return function


WORDS = {
    language.item: _item,
    language.line: lambda: _item() // 32,
    language.lane: lambda: _S.current.number % 32,
    language.lanes: lambda: 32,
    language.sum_of_lanes: lambda value: _together("sum of lanes", 32, value),
    language.largest_of_lanes: lambda value: _together("largest of lanes", 32, value),
    language.wide: language.wide,
    language.product: language.product,
    language.single: language.single,
    language.quotient_by: language.quotient_by,
    language.times: times,
    language.load: load,
    language.load_bf16: load_bf16,
    language.load_byte: load_byte,
    language.load_short: load_short,
    language.load_long: read_long,
    language.store: store,
    language.store_bf16: store_bf16,
    language.store_byte: store_byte,
    language.store_short: store_short,
    language.store_long: store_long,
}


def _butterfly(values: list[Any], combine: Callable[[Any, Any], Any]) -> list[Any]:
    """What every lane has when each combined its value with that of the lane beyond, 16, 8, … 1 away."""
    for bit in (16, 8, 4, 2, 1):
        values = [combine(value, values[lane ^ bit]) for lane, value in enumerate(values)]
    return values


_COLLECTIVES["sum of lanes"] = lambda values: _butterfly(values, lambda a, b: a + b)
_COLLECTIVES["largest of lanes"] = lambda values: _butterfly(values, lambda a, b: b if b > a else a)

# ------------------------------------------------------------------------------------------------------------ running


def _run_block(
    kernel: Callable[..., None], launch: Launch, block: tuple[int, int, int], rng: np.random.Generator
) -> None:
    _S.shared = np.full(launch.shared_bytes, 0xFF, np.uint8)
    _S.scheduler = getcurrent()
    integers_, floats = launch.integers, tuple(_F(v) for v in launch.floats)
    threads = [_Thread(i, block, lambda: kernel(integers_, floats)) for i in range(launch.kernel.threads)]
    ready = list(rng.permutation(len(threads)))
    waiting: dict[tuple[str, int], dict[int, Any]] = {}
    live = len(threads)
    while live:
        assert ready, f"threads wait for each other: { {k: len(v) for k, v in waiting.items()} }"
        current = _S.current = threads[ready.pop()]
        answer = current.greenlet.switch(*(() if current.answer is None else (current.answer,)))
        current.answer = None
        if current.greenlet.dead:
            live -= 1
        else:
            kind, width, operands = answer
            waiting.setdefault((kind, current.number // width if width else 0), {})[current.number] = operands
        for key in [k for k, v in waiting.items() if len(v) == (live if k[0] == "barrier" else 32)]:
            arrived = waiting.pop(key)
            lanes = sorted(arrived)
            if key[0] in _COLLECTIVES:
                for lane, result in zip(lanes, _COLLECTIVES[key[0]]([arrived[i] for i in lanes]), strict=True):
                    threads[lane].answer = result
            ready += rng.permutation(lanes).tolist()
    assert all(not group for t in threads for group in t.copies), "a copy was never waited for"


def run(launch: Launch, memory: Memory) -> None:
    """Run one launch, block by block in random order."""
    import sys

    _S.memory, _S.threads = memory, launch.kernel.threads
    rng = np.random.default_rng(0)
    assert len(launch.integers) == launch.kernel.n_integers
    assert len(launch.floats) == launch.kernel.n_floats
    kernel = launch.kernel.function(sys.modules[__name__])
    if not language.is_translated(kernel):
        kernel = specialised(kernel)  # the very source that is compiled
    x, y, z = launch.grid
    with np.errstate(all="ignore"):
        for number in rng.permutation(x * y * z):
            _run_block(kernel, launch, (int(number % x), int(number // x % y), int(number // (x * y))), rng)
