"""What the instructions of `ptx.py` do with numbers: float32, and words that hold tf32 or bfloat16."""

from __future__ import annotations

from math import isfinite, isnan
from typing import Any

import numpy as np

from tensor_cores import bits

ZERO = np.float32(0)


def fma(a: Any, b: Any, c: Any) -> Any:
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))  # the product is exact in float64


def round_tf32(x: Any) -> int:
    word = bits(x)
    return word + 0x1000 & 0xFFFFE000 if isfinite(x) else word


word = bits


def high_tf32(x: Any) -> Any:
    return np.uint32(round_tf32(x)).view(np.float32)


def ratio(a: Any, b: Any) -> Any:
    return np.float32(0) if b == 0 else np.float32(a) / np.float32(b)


def positive(x: Any) -> Any:
    assert isfinite(x)
    return ZERO if x < ZERO else np.float32(x)


def round_positive_tf32(x: Any) -> int:
    return round_tf32(positive(x))


def rounded_bf16(x: Any) -> int:
    word = bits(x)
    return 0x7FFF if isnan(x) else (word + 0x7FFF + (word >> 16 & 1)) >> 16 & 0xFFFF


def pack_bf16(low: Any, high: Any) -> int:
    return rounded_bf16(low) | rounded_bf16(high) << 16


def low_bf16(word: int) -> Any:
    return np.uint32(word << 16 & 0xFFFFFFFF).view(np.float32)


def high_bf16(word: int) -> Any:
    return np.uint32(word & 0xFFFF0000).view(np.float32)


def positive_bf16(word: int) -> int:
    return sum(half for half in (word & 0xFFFF, word & 0xFFFF0000) if not half & 0x80008000)
