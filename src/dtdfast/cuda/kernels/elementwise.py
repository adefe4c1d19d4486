"""Bodies that compute each element of the result from the same element of their operands.

Every factory of a body takes the types of its views first. A body's arguments are the addresses of the result and the
operands (0: absent), then integers, then floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compile.language import LOADS, STORES, load, load_long, single_product, store_long
from .formulas import (
    ACTIVATIONS,
    DERIVATIVES,
    FACTORS,
    INPUT_MAPS,
    MULTIPLIERS,
    ONE,
    QUOTIENTS,
    WEIGHT_MAPS,
    ZERO,
    Scalar,
    paired,
    quotient,
    selected,
    signed,
    stabilised,
)

Body = Any
Types = tuple[str, ...]


def putter(dtype: str) -> Callable[[int, Scalar, int], None]:
    """out (+)= value."""
    get, store = LOADS[dtype], STORES[dtype]

    def put(out: int, value: Scalar, accumulate: int) -> None:
        store(out, get(out) + value if accumulate != 0 else value)

    return put


def fill_long(types: Types) -> Body:
    """out = a number."""

    def body(out: int, value: int) -> None:
        store_long(out, value)

    return body


def clear_border(types: Types) -> Body:
    """out[place] = 0 for the places of a frame, byte offsets from the first element of a sample's frame.

    The places come first: threads side by side clear channels of one place, which lie side by side.
    """
    store = STORES[types[1]]

    def body(place: int, out: int) -> None:
        store(out + load_long(place), ZERO)

    return body


def move(types: Types) -> Body:
    """out (+)= x."""
    put, get = putter(types[0]), LOADS[types[1]]

    def body(out: int, x: int, accumulate: int) -> None:
        put(out, get(x), accumulate)

    return body


def map_input(types: Types, mode: str) -> Body:
    """out = map(x); m is the bound of a box."""
    store, get = STORES[types[0]], LOADS[types[1]]
    formula = INPUT_MAPS[mode]

    def body(out: int, x: int, m: int) -> None:
        store(out, formula(get(x) if x != 0 else ZERO, load(m) if m != 0 else ZERO))

    return body


def map_weight(types: Types, mode: str) -> Body:
    """out = wm(x), but for "1": 1 where x is not 0."""
    store, get = STORES[types[0]], LOADS[types[1]]
    formula = WEIGHT_MAPS[mode]
    ones = mode == "1"

    def body(out: int, x: int, gamma: Scalar) -> None:
        v = get(x)
        if ones and v == ZERO:
            store(out, ZERO)
        else:
            store(out, formula(v, gamma))

    return body


def multiply(types: Types, mode: str) -> Body:
    """out (+)= coefficient · multiplier(m) · x."""
    put, get, get_m = putter(types[0]), LOADS[types[1]], LOADS[types[2]]
    formula = MULTIPLIERS[mode]

    def body(out: int, x: int, m: int, accumulate: int, coefficient: Scalar) -> None:
        put(out, single_product(formula(get_m(m) if m != 0 else ZERO, get(x)), coefficient), accumulate)

    return body


def divide(types: Types, mode: str) -> Body:
    """out (+)= x / m, 0 where m is 0, or has not the sign of the mode."""
    put, get, get_m = putter(types[0]), LOADS[types[1]], LOADS[types[2]]
    formula = QUOTIENTS[mode]

    def body(out: int, x: int, m: int, accumulate: int) -> None:
        put(out, formula(get(x), get_m(m)), accumulate)

    return body


def activate(types: Types, kind: str, derivative: bool) -> Body:
    """out = act(x), or act'(x); `slopes` stand for the a of a leaky_relu."""
    store, get = STORES[types[0]], LOADS[types[1]]
    formula = (DERIVATIVES if derivative else ACTIVATIONS)[kind]

    def body(out: int, x: int, slopes: int, a: Scalar, b: Scalar) -> None:
        store(out, formula(get(x), load(slopes) if slopes != 0 else a, b))

    return body


def affine(types: Types) -> Body:
    """out (+)= x · weight[c] + bias[c]."""
    put, get = putter(types[0]), LOADS[types[1]]

    def body(out: int, x: int, weight: int, bias: int, accumulate: int) -> None:
        shift = load(bias) if bias != 0 else ZERO
        put(out, single_product(get(x), load(weight)) + shift, accumulate)

    return body


def factor(types: Types, mode: str) -> Body:
    """The factor of a share from its terms: see formulas.gate, denominator, signed and paired."""
    store = STORES[types[0]]
    get_terms, get_x, get_m, get_other = (LOADS[types[k]] for k in (1, 3, 4, 7))
    formula = FACTORS.get(mode, FACTORS["gate"])
    by_sign, in_pairs = mode == "signed", mode == "paired"

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
        b = load(bias_d) if bias_d != 0 else ZERO
        d = get_terms(terms) + b
        a = get_x(x) if x != 0 else ZERO
        y = get_m(m) if m != 0 else ZERO
        if bias != 0:
            y = y + load(bias)
        c = coefficient
        if other != 0 and get_other(other) == ZERO:  # the other share is empty: this one passes on all of R
            c = ONE
        s = load(scale) if scale != 0 else ONE
        if by_sign:
            store(out, quotient(signed(d, get_m(m) - d, y, stabilizer), s))
        elif in_pairs:
            size = paired(get_terms(terms), get_m(m), y, b, coefficient)
            store(out, selected(select, y, stabilised(size, stabilizer)))
        else:
            store(out, selected(select, y, formula(stabilised(d, stabilizer), a, s, c)))

    return body
