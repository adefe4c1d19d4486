"""What a call does besides its plan's steps: it checks x and the results, and chooses the relevance that enters."""

from __future__ import annotations

from typing import Any

from .elementwise import Types
from .formulas import ONE, ZERO, Scalar, magnitude, positive
from .language import load, load_long, store, store_long

Body = Any

LANES = 64  # threads that look for the largest output of one sample
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


def largest(types: Types) -> Body:
    """Value and number of the first largest among the candidates first, first + step, … < n of a sample; a NaN wins.

    numbers : address of the candidates' own numbers; 0 where they are 0, 1, 2, …
    """

    def body(value: int, number: int, x: int, numbers: int, first: int, n: int, step: int) -> None:
        best, winner = load(x + 4 * first), first
        if numbers != 0:
            winner = load_long(numbers + 8 * first)
        for i in range(first + step, n, step):
            v = load(x + 4 * i)
            own = i
            if numbers != 0:
                own = load_long(numbers + 8 * i)
            if v > best or (v != v and best == best) or ((v == best or (v != v and best != best)) and own < winner):
                best, winner = v, own
        store(value, best)
        store_long(number, winner)

    return body


def start(types: Types) -> Body:
    """start[n,t,e] = output e of sample n where e is the target's number, else 0.

    unit : start with 1 instead;  clip : raise negative outputs to 0
    """

    def body(out: int, outputs: int, number: int, e: int, unit: int, clip: int) -> None:
        v = ZERO
        if load_long(number) == e:
            v = ONE if unit != 0 else load(outputs)
            if clip != 0:
                v = positive(v)
        store(out, v)

    return body
