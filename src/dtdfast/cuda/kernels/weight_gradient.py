"""The product behind the relevance of weights: csrc/dense/weight_gradient.c.

    out[k,i,j] += Σ_n Σ_p x[n, p + tap_k, i] m[n,p,j]

A thread has one result. It adds a block of positions of one sample in float32, and blocks in float64, so that the bits
depend on the samples and their order alone.
"""

from __future__ import annotations

from typing import Any

from ..compile.language import LOADS, load_long, load_wide, store_wide, times, wide
from .formulas import ZERO

Types = tuple[str, ...]

POSITIONS = 128
"""Of a block."""


def weight_gradient(types: Types) -> Any:
    """One result; x and m are at its channels, `tap` is the address of its tap's byte offset from x."""
    get, get_m = LOADS[types[1]], LOADS[types[2]]

    def body(
        out: int, x: int, m: int, tap: int,
        samples: int, x_n: int, m_n: int, depth: int, height: int, width: int,
        x_d: int, x_h: int, x_w: int, m_d: int, m_h: int, m_w: int,
    ) -> None:  # fmt: skip
        total = load_wide(out)
        first = x + load_long(tap)
        for n in range(samples):
            block, count = ZERO, 0
            for d in range(depth):
                for h in range(height):
                    at_x = first + n * x_n + d * x_d + h * x_h
                    at_m = m + n * m_n + d * m_d + h * m_h
                    for w in range(width):
                        block += get(at_x + times(w, x_w)) * get_m(at_m + times(w, m_w))
                        count += 1
                        if count == POSITIONS:
                            total += wide(block)
                            block, count = ZERO, 0
            total += wide(block)
        store_wide(out, total)

    return body
