"""The instructions of `dtdfast.cuda.compile.ptx` in Python: a kernel runs from its own source, one greenlet per thread.

Pessimistic on purpose: shared memory starts as NaN, a copy lands only when it is waited for, threads run in random
order between barriers, and every address must lie in memory that the test gave, aligned as the instruction asks. No two
threads may race (races.py), and what is 32 bits wide on a device must fit there (widths.py). What it cannot prove is
its own reading of how the tensor cores lay out their fragments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet
from numpy.typing import NDArray

import races
import tensor_cores
import warpgroups
import widths
from arithmetic import (  # noqa: F401 (instructions)
    fma,
    high_bf16,
    high_tf32,
    low_bf16,
    pack_bf16,
    positive,
    positive_bf16,
    ratio,
    round_positive_tf32,
    round_tf32,
    rounded_bf16,
    word,
)
from device_memory import Memory
from dtdfast.cuda.compile import language
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.compile.specialise import specialised
from dtdfast.cuda.run.launch import Launch

SHARED = 4096  # address of the dynamic shared memory
_F = np.float32
_NAN = _F(np.nan)


class _Thread:
    def __init__(self, number: int, block: tuple[int, int, int], body: Callable[[None], None]) -> None:
        self.number, self.block = number, block
        self.tag = number << races.PLACE_BITS + races.CODE_BITS  # of its accesses of shared memory
        self.who = number << races.CODE_BITS  # of those of global memory
        self.copies: list[list[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]] = [[]]
        self.written: list[int] = []  # addresses of shared memory since the last fence of proxies
        self.flights: list[list[warpgroups.Part]] = [[]]
        self.greenlet = greenlet(body)
        self.answer: Any = None


class _State:
    memory: Memory
    shared: NDArray[np.uint8]
    of_shared: races.Shared
    of_global: races.Global
    current: _Thread
    of_block: list[_Thread]
    scheduler: Any


_S = _State()
At = Callable[[int], NDArray[np.uint8]]


def _shared_bytes(address: int, size: int) -> NDArray[np.uint8]:
    place = int(address) - SHARED
    assert place % size == 0, f"shared address {place:#x} is not a multiple of {size}"
    assert 0 <= place <= _S.shared.size - size, f"shared address {place:#x} is outside of {_S.shared.size} bytes"
    return _S.shared[place : place + size]


def _shared(name: str, size: int, what: int) -> At:
    """The bytes at an address of shared memory, for an instruction whose accesses are noted."""
    number, stores = (races.code(name, size, what) << races.PLACE_BITS) - SHARED, what == races.WRITE

    def at(address: int) -> NDArray[np.uint8]:
        there = _shared_bytes(address, size)
        _S.of_shared.log.append(_S.current.tag + number + address)
        if stores:
            _S.current.written.append(address)
        return there

    return at


def _global(name: str, size: int, what: int) -> At:
    """The same of global memory."""
    code = races.code(name, size, what)

    def at(address: int) -> NDArray[np.uint8]:
        there = _S.memory.bytes_at(address, size)
        _S.of_global.who.append(_S.current.who | code)
        _S.of_global.where.append(int(address))
        return there

    return at


# ------------------------------------------------------------------------------------------------- threads, registers


def thread() -> int:
    return _S.current.number


def block_x() -> int:
    return _S.current.block[0]


def block_y() -> int:
    return _S.current.block[1]


def quotient(a: int, b: int) -> int:
    return int(a) // int(b)


def registers(n: int) -> list[Any]:
    return [_NAN] * n


def words(n: int) -> list[Any]:
    return [0] * n


def integers(n: int) -> list[Any]:
    return widths.Integers([0] * n)


# ------------------------------------------------------------------------------------------------------------- memory


def _loader(space: Callable[[str, int, int], At], name: str, dtype: Any, n: int = 1, what: int = races.READ) -> Any:
    at = space(name, np.dtype(dtype).itemsize * n, what)
    integer = np.dtype(dtype).kind in "iu"

    def load(address: int) -> Any:
        values = at(address).view(dtype)
        if n == 1:
            return int(values[0]) if integer else values[0]
        return tuple(values.copy())

    return load


def _storer(space: Callable[[str, int, int], At], name: str, dtype: Any, n: int = 1) -> Callable[..., None]:
    at = space(name, np.dtype(dtype).itemsize * n, races.WRITE)

    def store(address: int, *values: Any) -> None:
        assert len(values) == n
        at(address).view(dtype)[:] = values

    return store


load, load4 = _loader(_global, "load", np.float32), _loader(_global, "load4", np.float32, 4)
read, read4 = (_loader(_global, name, np.float32, n, races.CONSTANT) for name, n in (("read", 1), ("read4", 4)))
read_int = _loader(_global, "read_int", np.int32, 1, races.CONSTANT)
read_long = _loader(_global, "read_long", np.int64, 1, races.CONSTANT)
load_byte, load_short = _loader(_global, "load_byte", np.uint8), _loader(_global, "load_short", np.uint16)
store, store4 = _storer(_global, "store", np.float32), _storer(_global, "store4", np.float32, 4)
store_long = _storer(_global, "store_long", np.int64)
store_byte, store_short = _storer(_global, "store_byte", np.uint8), _storer(_global, "store_short", np.uint16)
shared_load = _loader(_shared, "shared_load", np.float32)
shared_load4 = _loader(_shared, "shared_load4", np.float32, 4)
shared_load_int = _loader(_shared, "shared_load_int", np.int32)
shared_store, shared_store2 = (_storer(_shared, f"shared_store{n}", np.float32, int(n or 1)) for n in ("", "2"))
shared_store4_words = _storer(_shared, "shared_store4_words", np.uint32, 4)
shared_store_int = _storer(_shared, "shared_store_int", np.int32)
_load8, _store8 = _loader(_global, "load8_bf16", np.uint16, 8), _storer(_global, "store8_bf16", np.uint16, 8)


def load8_bf16(address: int) -> Any:
    return tuple((np.array(_load8(address), np.uint32) << 16).view(np.float32))


def load_bf16(address: int) -> Any:
    return low_bf16(load_short(address))


def store8_bf16(address: int, *values: Any) -> None:
    _store8(address, *map(rounded_bf16, values))


def store_bf16(address: int, value: Any) -> None:
    store_short(address, rounded_bf16(value))


def shared() -> int:
    return SHARED


def _copy(size: int) -> Callable[[int, int, int], None]:
    name = f"copy{size}"
    to_shared, given = _shared(name, size, races.ISSUE), _global(name, size, races.READ)
    landing = races.code(name, size, races.LAND) << races.PLACE_BITS

    def copy(to: int, source: int, n_bytes: int) -> None:
        target, data = to_shared(to), np.zeros(size, np.uint8)
        assert n_bytes in (0, size)
        if n_bytes:
            data[:] = given(source)
        target[:] = 0xFF  # NaN until it lands
        _S.current.copies[-1].append((target, data, landing | int(to) - SHARED))

    return copy


copy4, copy16 = _copy(4), _copy(16)
_to_shared2, _given2 = _shared("copy2", 2, races.WRITE), _global("copy2", 2, races.READ)


def copy2(to: int, source: int, n_bytes: int) -> None:
    assert n_bytes in (0, 2)
    _to_shared2(to)[:] = _given2(source) if n_bytes else 0


def copy_commit() -> None:
    _S.current.copies.append([])


def _wait(n: int) -> Callable[[], None]:
    def wait() -> None:
        groups = _S.current.copies  # the last one is open
        while len(groups) - 1 > n:
            for target, data, landing in groups.pop(0):
                target[:] = data
                _S.of_shared.log.append(_S.current.tag | landing)
                _S.current.written.append(SHARED + (landing & races.PLACE))

    return wait


COPY_WAIT = tuple(_wait(n) for n in range(8))


def times(i: int, stride: int) -> int:
    return int(i) * int(stride)


# -------------------------------------------------------------------------------------------------------- collectives


def _together(kind: str, width: int, operands: Any = None) -> Any:
    """Wait until all threads of the block (width 0) or of the warp have come here."""
    return _S.scheduler.switch((kind, width, operands))


def barrier() -> None:
    _together("barrier", 0)


def warp_barrier() -> None:
    _together("warp barrier", 32)


def _ldmatrix(kind: str) -> Callable[..., None]:
    at = _shared(kind, 16, races.WARP_READ)

    def ldmatrix(to: list[Any], i: int, address: int) -> None:
        at(address)
        to[i : i + 4] = _together(kind, 32, address)

    return ldmatrix


ldmatrix, ldmatrix_words, ldmatrix_turned = map(_ldmatrix, ("ldmatrix", "ldmatrix words", "ldmatrix turned"))


def _mma(kind: str) -> Callable[..., None]:
    def mma(c: list[Any], i: int, a: list[Any], j: int, b0: Any, b1: Any) -> None:
        c[i : i + 4] = _together(kind, 32, (*a[j : j + 4], b0, b1, *c[i : i + 4]))

    return mma


mma_tf32, mma_bf16 = _mma("tf32"), _mma("bf16")

_matrices = partial(tensor_cores.matrices, lambda address: _shared_bytes(address, 16).view(np.uint16))
_COLLECTIVES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "ldmatrix": lambda addresses: tensor_cores.numbers(_matrices(addresses)),
    "ldmatrix words": lambda addresses: tensor_cores.pairs(_matrices(addresses)),
    "ldmatrix turned": lambda addresses: tensor_cores.pairs([m.T for m in _matrices(addresses)]),
    "tf32": tensor_cores.tf32,
    "bf16": tensor_cores.bf16,
    "sum of lanes": lambda values: tensor_cores.butterfly(values, lambda a, b: a + b),
    "largest of lanes": lambda values: tensor_cores.butterfly(values, lambda a, b: b if b > a else a),
}

# ----------------------------------------------------------------------------------------- the words of language.py


def _item() -> int:
    return _S.current.block[0] * len(_S.of_block) + _S.current.number


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
    language.single_product: language.single_product,
    language.single: language.single,
    language.quotient_by: language.quotient_by,
    language.times: times,
    language.load: load,
    language.load_bf16: load_bf16,
    language.load_byte: load_byte,
    language.load_short: load_short,
    language.load_long: read_long,
    language.store: store,
    language.store4: store4,
    language.store_bf16: store_bf16,
    language.store_byte: store_byte,
    language.store_short: store_short,
    language.store_long: store_long,
}

_COLLECTIVES |= warpgroups.instructions(globals())
widths.check(globals(), WORDS)

# ------------------------------------------------------------------------------------------------------------ running


def _run_block(
    kernel: Callable[..., None], launch: Launch, block: tuple[int, int, int], rng: np.random.Generator
) -> None:
    _S.shared, _S.of_shared = np.full(launch.shared_bytes, 0xFF, np.uint8), races.Shared(launch.shared_bytes)
    _S.scheduler = getcurrent()
    integers_, floats = launch.integers, tuple(_F(v) for v in launch.floats)
    threads = _S.of_block = [
        _Thread(i, block, lambda _: kernel(integers_, floats)) for i in range(launch.kernel.threads)
    ]
    before = (block[0] + launch.grid[0] * (block[1] + launch.grid[1] * block[2])) * len(threads)
    for thread in threads:
        thread.who += before << races.CODE_BITS
    ready = list(rng.permutation(len(threads)))
    waiting: dict[tuple[str, int, int], dict[int, Any]] = {}
    live = len(threads)
    while live:
        assert ready, f"threads wait for each other: { {k: len(v) for k, v in waiting.items()} }"
        current = _S.current = threads[ready.pop()]
        answer = current.greenlet.switch(current.answer)
        current.answer = None
        if current.greenlet.dead:
            live -= 1
            met = list(waiting)  # a block may wait for this thread alone
        else:
            kind, width, operands = answer
            met = [(kind, width, current.number // width if width else 0)]
            waiting.setdefault(met[0], {})[current.number] = operands
        for key in met:
            if len(waiting[key]) != (key[1] or live):
                continue
            arrived = waiting.pop(key)
            lanes = sorted(arrived)
            if key[0] in _COLLECTIVES:
                for lane, result in zip(lanes, _COLLECTIVES[key[0]]([arrived[i] for i in lanes]), strict=True):
                    threads[lane].answer = result
            elif key[0] == "warp barrier":
                for lane in lanes:
                    threads[lane].tag += races.TURN
            elif key[0] == "barrier":
                _S.of_shared.barrier()
            ready += rng.permutation(lanes).tolist()
    _S.of_shared.barrier()
    assert not any(g for t in threads for g in (*t.copies, *t.flights)), "a copy, or wgmma, was never waited for"


@cache
def function_of(kernel: Kernel) -> Callable[..., None]:
    """The very source that is compiled, over these instructions."""
    function = kernel.function(sys.modules[__name__])
    return function if language.is_translated(function) else specialised(function)


def run(launch: Launch, memory: Memory) -> None:
    """Run one launch, block by block in random order."""
    _S.memory, _S.of_global = memory, races.Global()
    rng = np.random.default_rng(0)
    assert len(launch.integers) == launch.kernel.n_integers
    assert len(launch.floats) == launch.kernel.n_floats
    function = function_of(launch.kernel)
    x, y, z = launch.grid
    with np.errstate(all="ignore"):
        for number in rng.permutation(x * y * z):
            _run_block(function, launch, (int(number % x), int(number // x % y), int(number // (x * y))), rng)
    _S.of_global.end()
