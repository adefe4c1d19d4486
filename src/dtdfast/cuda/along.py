"""Bodies that work along one axis: LRN, softmax, embeddings."""

from __future__ import annotations

import math
from typing import Any

from .elementwise import put
from .formulas import ONE, ZERO, Scalar
from .language import load, load_long, store, times

Body = Any


def lrn() -> Body:
    """out[c] = x[c] / (k + alpha/size · Σ_j x[j]²)^beta over the channels j = c − (size−1)/2 … c + size/2.

    x is the address of channel c; `stride` the bytes between two channels.
    """

    def body(out: int, x: int, c: int, channels: int, size: int, stride: int, alpha: Scalar, beta: Scalar, k: Scalar) -> None:
        squares = ZERO
        for j in range(c - (size - 1) // 2, c + size // 2 + 1):
            if 0 <= j < channels:
                v = load(x + times(j - c, stride))
                squares += v * v
        store(out, load(x) / math.pow(k + alpha * squares, beta))

    return body


def softmax() -> Body:
    """out[i] = exp(x[i] − max x) / Σ_j exp(x[j] − max x); one thread per line."""

    def body(out: int, x: int, n: int, out_stride: int, x_stride: int) -> None:
        largest = load(x)
        for i in range(1, n):
            v = load(x + times(i, x_stride))
            if v > largest:
                largest = v
        total = ZERO
        for i in range(n):
            e = math.exp(load(x + times(i, x_stride)) - largest)
            total += e
            store(out + times(i, out_stride), e)
        for i in range(n):
            at = out + times(i, out_stride)
            store(at, load(at) / total)

    return body


def embed() -> Body:
    """out[.., f] = weight[ids[..], f]; a row of weight has `row` bytes."""

    def body(out: int, ids: int, f: int, weight: int, row: int) -> None:
        store(out, load(weight + load_long(ids) * row + 4 * f))

    return body


def embed_sum() -> Body:
    """out[..] (+)= Σ_f x[.., f] m[.., f]."""

    def body(out: int, x: int, m: int, features: int, x_stride: int, m_stride: int, accumulate: int) -> None:
        total = ZERO
        for f in range(features):
            scale = load(m + times(f, m_stride)) if m != 0 else ONE
            total += load(x + times(f, x_stride)) * scale
        put(out, total, accumulate)

    return body
