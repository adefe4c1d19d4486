"""What `ldmatrix`, `mma` and exchanges do for the 32 lanes of a warp: matrices to registers, registers to sums.

Sums are pessimistic: products are exact and their sum is truncated, as tensor cores do, which round nothing to nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANE = np.arange(32)
G, T = LANE // 4, LANE % 4


_PACK, _UNPACK = Struct("<f").pack, Struct("<I").unpack  # five times as fast as NumPy's scalars


def bits(x: Any) -> Any:
    """A word as it is, a float32 as its 32 bits."""
    if isinstance(x, int):
        return x
    if x != x:  # those of a NaN, which is not to become a quiet one
        return int.from_bytes(np.float32(x).tobytes(), "little")
    return _UNPACK(_PACK(x))[0]


# ----------------------------------------------------------------------------------------------------------- ldmatrix


def matrices(row: Callable[[int], Any], addresses: list[int]) -> list[Any]:
    """Four matrices of eight rows of 16 bytes, each read at once: a line of banks is 128 bytes."""
    lines = np.array(addresses).reshape(4, 8)
    assert all(len(set(line)) == 8 for line in lines // 16 % 8), f"rows of a matrix meet in a bank: {lines}"
    return [np.stack([row(a) for a in line]) for line in lines]


def numbers(matrices: list[Any]) -> list[Any]:
    """Of four 8 × 4 matrices of float32, given as 8 × 8 halves, each lane's element."""
    of_float = [m.view(np.float32) for m in matrices]
    return [tuple(m[lane // 4, lane % 4] for m in of_float) for lane in LANE]


def pairs(matrices: list[Any]) -> list[Any]:
    """Of four 8 × 8 matrices of two bytes each lane's two neighbours of a row, as a word."""
    words = [np.ascontiguousarray(m).view(np.uint32) for m in matrices]
    return [tuple(int(w[lane // 4, lane % 4]) for w in words) for lane in LANE]


# ---------------------------------------------------------------------------------------------------------------- mma


def _words(operands: list[Any]) -> NDArray[np.uint32]:
    return np.array([[bits(v) for v in row[:6]] for row in operands], np.uint32)


def truncated(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Towards zero."""
    nearest = exact.astype(np.float32)
    beyond = np.abs(nearest.astype(np.float64)) > np.abs(exact)
    return np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)


def _multiply(a: Any, b: Any, operands: list[Any]) -> list[Any]:
    """C + A·B."""
    c = np.zeros((16, 8))
    given = np.array([[float(v) for v in row[6:]] for row in operands])
    places = [(G, 2 * T), (G, 2 * T + 1), (G + 8, 2 * T), (G + 8, 2 * T + 1)]
    for k, place in enumerate(places):
        c[place] = given[:, k]
    result = truncated(c + a.astype(np.float64) @ b.astype(np.float64))
    return list(zip(*(result[place] for place in places), strict=True))


def tf32(operands: list[Any]) -> list[Any]:
    """mma.m16n8k8 of tf32: per lane four words of A, two of B, four sums."""
    w = (_words(operands) & np.uint32(0xFFFFE000)).view(np.float32)
    a, b = np.zeros((16, 8), np.float32), np.zeros((8, 8), np.float32)
    for k, (row, column) in enumerate(((0, 0), (8, 0), (0, 4), (8, 4))):
        a[G + row, T + column] = w[:, k]
    for k, row in enumerate((0, 4)):
        b[T + row, G] = w[:, 4 + k]
    return _multiply(a, b, operands)


def bf16(operands: list[Any]) -> list[Any]:
    """mma.m16n8k16 of bfloat16, two numbers to a word."""
    w = _words(operands)
    halves = ((w << np.uint32(16)).view(np.float32), (w & np.uint32(0xFFFF0000)).view(np.float32))
    a, b = np.zeros((16, 16), np.float32), np.zeros((16, 8), np.float32)
    for h, half in enumerate(halves):
        for k, (row, column) in enumerate(((0, 0), (8, 0), (0, 8), (8, 8))):
            a[G + row, 2 * T + h + column] = half[:, k]
        for k, row in enumerate((0, 8)):
            b[2 * T + h + row, G] = half[:, 4 + k]
    return _multiply(a, b, operands)


# ---------------------------------------------------------------------------------------------------------- exchanges


def butterfly(values: list[Any], combine: Callable[[Any, Any], Any]) -> list[Any]:
    """What every lane has when each combined its value with that of the lane beyond, 16, 8, … 1 away."""
    for bit in (16, 8, 4, 2, 1):
        values = [combine(value, values[lane ^ bit]) for lane, value in enumerate(values)]
    return values
