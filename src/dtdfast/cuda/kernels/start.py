"""The relevance that enters: the largest output of each sample, or outputs by number."""

from __future__ import annotations

from typing import Any

from ..compile.language import load, load_long, store, store_long
from .elementwise import Types
from .formulas import ONE, ZERO, positive

Body = Any

PARTIALS = 64  # of each sample: threads that find the largest of a part of its outputs, before one finds it of all


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
