"""Normalisation along one axis: LRN, softmax and its logarithm."""

from __future__ import annotations

import math
from typing import Any

from ..compile.language import LOADS, STORES, times
from .elementwise import Types
from .formulas import ZERO, Scalar

Body = Any


def lrn(types: Types) -> Body:
    """out[c] = x[c] / (k + alpha · Σ_j x[j]²)^beta over the channels j = c − (size−1)/2 … c + size/2.

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
