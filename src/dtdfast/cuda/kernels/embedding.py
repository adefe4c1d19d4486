"""Embeddings: a row of weights for each number of a word, and the sum over a row."""

from __future__ import annotations

from typing import Any

from ..compile.language import LOADS, STORES, load, load_long, times
from .elementwise import Types, putter
from .formulas import ONE, ZERO

Body = Any


def embed(types: Types) -> Body:
    """out[.., f] = weight[x[..], f]; a row of weight has `row` bytes."""
    store = STORES[types[0]]

    def body(out: int, x: int, f: int, weight: int, row: int) -> None:
        store(out, load(weight + load_long(x) * row + 4 * f))

    return body


def embed_sum(types: Types) -> Body:
    """out[..] (+)= Σ_f x[.., f] m[.., f]."""
    put, get, get_m = putter(types[0]), LOADS[types[1]], LOADS[types[2]]

    def body(out: int, x: int, m: int, features: int, x_stride: int, m_stride: int, accumulate: int) -> None:
        total = ZERO
        for f in range(features):
            scale = get_m(m + times(f, m_stride)) if m != 0 else ONE
            total += get(x + times(f, x_stride)) * scale
        put(out, total, accumulate)

    return body
