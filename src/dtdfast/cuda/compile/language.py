"""The words that kernels are written in.

A kernel is a plain Python function of integers and floats: addresses of device memory, byte strides, counts. Here its
words mean what they say on host memory, so that a kernel can be run, thread by thread, by Python itself. To compile it,
`translate` puts the instructions of `ptx.py` in their place; tests put others there, for the host.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dis import get_instructions
from types import CellType, FunctionType
from typing import Any

import numpy as np


class Place:
    """Which thread of a launch Python is running."""

    item = 0


def item() -> int:
    """Number of this thread in the launch, blocks counted."""
    return Place.item


def line() -> int:
    """Number of this thread's line in the launch: on a GPU a warp works along each, whose lanes are lane() = 0 …
    lanes() − 1; here one thread.
    """
    return Place.item


def lane() -> int:
    return 0


def lanes() -> int:
    return 1


def sum_of_lanes(value: Any) -> Any:
    """The sum of a float64 over the lanes of a line, the same in each of them; all of them must come here."""
    return value


def largest_of_lanes(value: Any) -> Any:
    """The largest of a float32 likewise; not a NaN where there is a number."""
    return value


def wide(value: Any) -> Any:
    """A float32 as a float64."""
    return np.float64(value)


def single(value: Any) -> Any:
    """A float64 rounded to float32."""
    return np.float32(value)


def product(a: Any, b: Any) -> Any:
    """a·b of float64, rounded, as Python has it: a GPU rounds it once with a sum that follows, unless told not to, and
    what should cancel leaves a rest.
    """
    return a * b


def single_product(a: Any, b: Any) -> Any:
    """The same of float32."""
    return a * b


def quotient_by(n: int, magic: int, shift: int) -> int:
    """N // d for 0 ≤ n < 2³¹, where (magic, shift) is the reciprocal of d (kernels/strided.py): by multiplying."""
    return (n * magic) >> shift


def times(i: int, stride: int) -> int:
    """i·stride of two 32-bit numbers, in 64 bits."""
    return i * stride


def load(at: int) -> Any:
    return np.float32(ctypes.c_float.from_address(at).value)


def load_bf16(at: int) -> Any:
    return np.uint32(ctypes.c_uint16.from_address(at).value << 16).view(np.float32)


def load_wide(at: int) -> Any:
    """A float64."""
    return np.float64(ctypes.c_double.from_address(at).value)


def load_byte(at: int) -> int:
    return ctypes.c_uint8.from_address(at).value


def load_short(at: int) -> int:
    return ctypes.c_uint16.from_address(at).value


def load_long(at: int) -> int:
    return ctypes.c_int64.from_address(at).value


def store(at: int, value: Any) -> None:
    ctypes.c_float.from_address(at).value = value


def store_bf16(at: int, value: Any) -> None:
    """Rounded to nearest, ties to even; a NaN stays one."""
    bits = int(np.float32(value).view(np.uint32))
    ctypes.c_uint16.from_address(at).value = 0x7FFF if value != value else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def store_byte(at: int, value: int) -> None:
    ctypes.c_uint8.from_address(at).value = value


def store_short(at: int, value: int) -> None:
    ctypes.c_uint16.from_address(at).value = value


def store_long(at: int, value: int) -> None:
    ctypes.c_int64.from_address(at).value = value


def store_wide(at: int, value: Any) -> None:
    """A float64."""
    ctypes.c_double.from_address(at).value = value


LOADS: dict[str, Any] = {"f4": load, "bf16": load_bf16, "u1": load_byte, "u2": load_short, "i8": load_long}
STORES: dict[str, Any] = {"f4": store, "bf16": store_bf16, "u1": store_byte, "u2": store_short, "i8": store_long}
"""By the type that a view's numbers have in memory; arithmetic is float32 whatever that is."""


def _neighbours(at: int, n: int, size: int) -> range:
    """Addresses of n numbers side by side, for one instruction: the first is a multiple of all their bytes."""
    assert at % (n * size) == 0, f"address {at:#x} is not a multiple of {n * size}"
    return range(at, at + n * size, size)


def _loading(word: Callable[[int], Any], n: int, size: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda at: tuple(map(word, _neighbours(at, n, size)))


def _storing(word: Callable[[int, Any], None], n: int, size: int) -> Callable[..., None]:
    def store(at: int, *values: Any) -> None:
        for to, value in zip(_neighbours(at, n, size), values, strict=True):
            word(to, value)

    return store


load4, store4 = _loading(load, 4, 4), _storing(store, 4, 4)
load4_bf16, store4_bf16 = _loading(load_bf16, 4, 2), _storing(store_bf16, 4, 2)
load8_bf16, store8_bf16 = _loading(load_bf16, 8, 2), _storing(store_bf16, 8, 2)
load4_bytes, store4_bytes = _loading(load_byte, 4, 1), _storing(store_byte, 4, 1)

LOADS4: dict[str, Any] = {"f4": load4, "bf16": load4_bf16, "u1": load4_bytes}
STORES4: dict[str, Any] = {"f4": store4, "bf16": store4_bf16, "u1": store4_bytes}
"""The same of four numbers side by side."""

# -------------------------------------------------------------------------------------------------------- translation

WORDS: dict[Any, Any] = {}  # to Python the words mean what they say


def translate(function: Callable[..., Any], ptx: Any) -> Callable[..., Any]:
    """A kernel with each word replaced by what `ptx.WORDS` has for it, and each function that it calls translated and
    inlined alike.
    """
    translated = _rebound(function, ptx, {}) if ptx.WORDS else function
    translated.__dict__["translated"] = True
    return translated


def is_translated(function: Callable[..., Any]) -> bool:
    """Whether a kernel is written in these words."""
    return "translated" in function.__dict__


def _rebound(function: Any, ptx: Any, done: dict[Any, Any]) -> Callable[..., Any]:
    def replaced(value: Any) -> Any:
        if value in ptx.WORDS:
            return ptx.WORDS[value]
        if value not in done:
            done[value] = ptx.inline(_rebound(value, ptx, done))
        return done[value]

    def meaning(value: Any) -> Any:
        return replaced(value) if isinstance(value, FunctionType) else value

    code, world = function.__code__, function.__globals__
    # co_names holds names of attributes too
    used = {i.argval for i in get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    names = {name: meaning(world[name]) for name in used if name in world}
    cells = tuple(CellType(meaning(cell.cell_contents)) for cell in function.__closure__ or ())
    return FunctionType(
        code, {**names, "__name__": function.__module__}, function.__name__, function.__defaults__, cells
    )
