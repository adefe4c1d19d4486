"""Checks of x and of results, on the device while it computes."""

from __future__ import annotations

from typing import Any

from ..compile.language import load, load_long, store_long
from .elementwise import Types
from .formulas import ZERO, Scalar, magnitude

Body = Any

LARGEST = 3.4028234663852886e38  # finite float32


def check(types: Types) -> Body:
    """Set `not_finite` where x is NaN or infinite, `outside` where it leaves [low, high] (addresses 0: no bound).

    Many threads may write one flag; they write the same.
    """

    def body(x: int, low: int, high: int, not_finite: int, outside: int, largest: Scalar) -> None:
        v = load(x)
        if not magnitude(v) <= largest:
            store_long(not_finite, 1)
        if low != 0 and v < load(low):
            store_long(outside, 1)
        if high != 0 and v > load(high):
            store_long(outside, 1)

    return body


def check_row(types: Types) -> Body:
    """Set `not_finite` where x, a result, is NaN or infinite, and `some` of its row where it is not 0."""

    def body(x: int, some: int, not_finite: int, largest: Scalar) -> None:
        v = load(x)
        if not magnitude(v) <= largest:
            store_long(not_finite, 1)
        if some != 0 and v != ZERO and load_long(some) == 0:  # nearly all find it set
            store_long(some, 1)

    return body
