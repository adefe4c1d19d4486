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
    assert all(len(set(line)) == 8 for line in (lines // 16 % 8).tolist()), f"rows of a matrix meet in a bank: {lines}"
    return [np.concatenate([row(a) for a in line]).reshape(8, 8) for line in lines.tolist()]


def numbers(matrices: list[Any]) -> list[Any]:
    """Of four 8 × 4 matrices of float32, given as 8 × 8 halves, each lane's element."""
    return list(zip(*(m.view(np.float32).ravel() for m in matrices), strict=True))


def pairs(matrices: list[Any]) -> list[Any]:
    """Of four 8 × 8 matrices of two bytes each lane's two neighbours of a row, as a word."""
    words = [np.ascontiguousarray(m).view(np.uint32) for m in matrices]
    return list(zip(*(w.ravel().tolist() for w in words), strict=True))


# ---------------------------------------------------------------------------------------------------------------- mma

_FROM_WORDS = Struct("<192I").pack


def _words(operands: list[Any]) -> NDArray[np.uint32]:
    """Six of each lane, lane after lane."""
    flat = [v if type(v) is int else bits(v) for row in operands for v in row[:6]]
    return np.frombuffer(_FROM_WORDS(*flat), np.uint32)


def truncated(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Towards zero."""
    nearest = exact.astype(np.float32)
    beyond = np.abs(nearest.astype(np.float64)) > np.abs(exact)
    return np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)


def _order(shape: tuple[int, int], places: list[Any], per_lane: int, first: int = 0) -> NDArray[np.int64]:
    """Where a matrix's elements lie among the lanes' registers, of which those from `first` on are at these places."""
    order = np.empty(shape, np.int64)
    for k, place in enumerate(places):
        order[place] = LANE * per_lane + first + k
    return order


_RESULTS = [(G, 2 * T), (G, 2 * T + 1), (G + 8, 2 * T), (G + 8, 2 * T + 1)]
_SUMS = _order((16, 8), _RESULTS, 4)
_TF32_A = _order((16, 8), [(G, T), (G + 8, T), (G, T + 4), (G + 8, T + 4)], 6)
_TF32_B = _order((8, 8), [(T, G), (T + 4, G)], 6, 4)
_BF16_A = _order((16, 16), [(G + r, 2 * T + h + c) for c in (0, 8) for r in (0, 8) for h in (0, 1)], 12)
_BF16_B = _order((16, 8), [(2 * T + h + r, G) for r in (0, 8) for h in (0, 1)], 12, 8)


def _multiply(a: Any, b: Any, operands: list[Any]) -> list[Any]:
    """C + A·B."""
    c = np.array([float(v) for row in operands for v in row[6:]])[_SUMS]
    result = truncated(c + a.astype(np.float64) @ b.astype(np.float64))
    return list(zip(*(result[place] for place in _RESULTS), strict=True))


def tf32(operands: list[Any]) -> list[Any]:
    """mma.m16n8k8 of tf32: per lane four words of A, two of B, four sums."""
    numbers = (_words(operands) & np.uint32(0xFFFFE000)).view(np.float32)
    return _multiply(numbers[_TF32_A], numbers[_TF32_B], operands)


def bf16(operands: list[Any]) -> list[Any]:
    """mma.m16n8k16 of bfloat16, two numbers to a word, the first one low."""
    numbers = (_words(operands).view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return _multiply(numbers[_BF16_A], numbers[_BF16_B], operands)


# ---------------------------------------------------------------------------------------------------------- exchanges


def butterfly(values: list[Any], combine: Callable[[Any, Any], Any]) -> list[Any]:
    """What every lane has when each combined its value with that of the lane beyond, 16, 8, … 1 away."""
    for bit in (16, 8, 4, 2, 1):
        values = [combine(value, values[lane ^ bit]) for lane, value in enumerate(values)]
    return values
