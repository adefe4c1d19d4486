"""Bodies that compute each element of the result from the same element of their operands.

Arguments: addresses of the result and the operands (0: absent), then integers, then floats.
"""

from __future__ import annotations

from typing import Any

from .formulas import ACTIVATIONS, DERIVATIVES, FACTORS, INPUT_MAPS, MULTIPLIERS, ONE, ZERO, Scalar, quotient, selected, stabilised
from .language import load, load_long, store, store_long

Body = Any


def put(out: int, value: Scalar, accumulate: int) -> None:
    """out (+)= value."""
    store(out, load(out) + value if accumulate != 0 else value)


def fill() -> Body:
    """out = a number."""

    def body(out: int, value: Scalar) -> None:
        store(out, value)

    return body


def fill_long() -> Body:
    def body(out: int, value: int) -> None:
        store_long(out, value)

    return body


def clear_border() -> Body:
    """out[place] = 0 for the places of a frame, byte offsets from the first element of a sample's frame."""

    def body(out: int, place: int) -> None:
        store(out + load_long(place), ZERO)

    return body


def move() -> Body:
    """out (+)= x."""

    def body(out: int, x: int, accumulate: int) -> None:
        put(out, load(x), accumulate)

    return body


def map_input(mode: str) -> Body:
    """out = map(x); m is the bound of a box."""
    formula = INPUT_MAPS[mode]

    def body(out: int, x: int, m: int) -> None:
        store(out, formula(load(x) if x != 0 else ZERO, load(m) if m != 0 else ZERO))

    return body


def multiply(mode: str) -> Body:
    """out (+)= multiplier(m) · x."""
    formula = MULTIPLIERS[mode]

    def body(out: int, x: int, m: int, accumulate: int) -> None:
        put(out, formula(load(m), load(x)), accumulate)

    return body


def divide() -> Body:
    """out (+)= x / m, 0 where m is 0."""

    def body(out: int, x: int, m: int, accumulate: int) -> None:
        put(out, quotient(load(x), load(m)), accumulate)

    return body


def activate(kind: str, derivative: bool) -> Body:
    """out = act(x), or act'(x)."""
    formula = (DERIVATIVES if derivative else ACTIVATIONS)[kind]

    def body(out: int, x: int, a: Scalar, b: Scalar) -> None:
        store(out, formula(load(x), a, b))

    return body


def affine() -> Body:
    """out (+)= x · weight[c] + bias[c]."""

    def body(out: int, x: int, weight: int, bias: int, accumulate: int) -> None:
        shift = load(bias) if bias != 0 else ZERO
        put(out, load(x) * load(weight) + shift, accumulate)

    return body


def factor(mode: str) -> Body:
    """The factor of a share from its terms: see formulas.gate and formulas.denominator."""
    formula = FACTORS[mode]

    def body(
        out: int,
        terms: int,
        bias_d: int,
        x: int,
        m: int,
        bias: int,
        scale: int,
        other: int,
        select: int,
        coefficient: Scalar,
        stabilizer: Scalar,
    ) -> None:
        d = load(terms)
        if bias_d != 0:
            d = d + load(bias_d)
        a = load(x) if x != 0 else ZERO
        y = load(m) if m != 0 else ZERO
        if bias != 0:
            y = y + load(bias)
        c = coefficient
        if other != 0 and load(other) == ZERO:  # the other share is empty: this one passes on all of R
            c = ONE
        s = load(scale) if scale != 0 else ONE
        store(out, selected(select, y, formula(c, a, stabilised(d, stabilizer), s)))

    return body
