"""Bodies that work along one axis: LRN, softmax, embeddings."""

from __future__ import annotations

import math
from typing import Any

from .elementwise import Types, putter
from .formulas import ONE, ZERO, Scalar
from .language import LOADS, STORES, load, load_long, times

Body = Any


def lrn(types: Types) -> Body:
    """out[c] = x[c] / (k + alpha/size · Σ_j x[j]²)^beta over the channels j = c − (size−1)/2 … c + size/2.

    x is the address of channel c; `stride` the bytes between two channels.
    """
    store, get = STORES[types[0]], LOADS[types[1]]

    def body(
        out: int, x: int, c: int, channels: int, size: int, stride: int, alpha: Scalar, beta: Scalar, k: Scalar
    ) -> None:
        squares = ZERO
        for j in range(c - (size - 1) // 2, c + size // 2 + 1):
            if 0 <= j < channels:
                v = get(x + times(j - c, stride))
                squares += v * v
        store(out, get(x) / math.pow(k + alpha * squares, beta))

    return body


def softmax(types: Types) -> Body:
    """out[i] = exp(x[i] − max x) / Σ_j exp(x[j] − max x); one thread per line."""
    store, get_out, get = STORES[types[0]], LOADS[types[0]], LOADS[types[1]]

    def body(out: int, x: int, n: int, out_stride: int, x_stride: int) -> None:
        largest = get(x)
        for i in range(1, n):
            v = get(x + times(i, x_stride))
            if v > largest:
                largest = v
        total = ZERO
        for i in range(n):
            e = math.exp(get(x + times(i, x_stride)) - largest)
            total += e
            store(out + times(i, out_stride), e)
        for i in range(n):
            at = out + times(i, out_stride)
            store(at, get_out(at) / total)

    return body


def log_softmax(types: Types) -> Body:
    """out[i] = x[i] − max x − log Σ_j exp(x[j] − max x); one thread per line."""
    store, get = STORES[types[0]], LOADS[types[1]]

    def body(out: int, x: int, n: int, out_stride: int, x_stride: int) -> None:
        largest = get(x)
        for i in range(1, n):
            v = get(x + times(i, x_stride))
            if v > largest:
                largest = v
        total = ZERO
        for i in range(n):
            total += math.exp(get(x + times(i, x_stride)) - largest)
        logarithm = math.log(total)
        for i in range(n):
            store(out + times(i, out_stride), get(x + times(i, x_stride)) - largest - logarithm)

    return body


def embed(types: Types) -> Body:
    """out[.., f] = weight[ids[..], f]; a row of weight has `row` bytes."""
    store = STORES[types[0]]

    def body(out: int, ids: int, f: int, weight: int, row: int) -> None:
        store(out, load(weight + load_long(ids) * row + 4 * f))

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
