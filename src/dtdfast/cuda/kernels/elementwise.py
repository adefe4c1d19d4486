"""Functions that compute each element of a result from the same element of their operands, and bodies without operands.

A function's arguments are integers, floats, and the operands' elements, which have a default where they may be absent.
`strided.elements` loads, adds to what is there if a step says so, and stores.

Every factory of a body, here and in the other files, takes the types of its views first. A body's arguments are the
addresses of the result and the operands (0: absent), then integers, then floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compile.language import (
    LOADS,
    STORES,
    lane,
    lanes,
    load_long,
    single_product,
    store4,
    store_long,
    store_short,
)
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
    Function,
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
    """0 in frames. A line has a piece of them, which three longs describe: its first byte from `base` on, bytes from a
    sample to the next, length; all are even.
    """

    def body(row: int, sample: int, base: int) -> None:
        at = base + load_long(row) + sample * load_long(row + 8)
        length = load_long(row + 16)
        if at % 16 == 0 and length % 16 == 0:
            for k in range(lane(), length // 16, lanes()):
                store4(at + 16 * k, ZERO, ZERO, ZERO, ZERO)
        else:
            for k in range(lane(), length // 2, lanes()):
                store_short(at + 2 * k, 0)

    return body


def move() -> Function:
    """x."""
    return lambda x: x


def map_input(mode: str) -> Function:
    """map(x); m is the bound of a box."""
    formula = INPUT_MAPS[mode]

    def value(x: Scalar = ZERO, m: Scalar = ZERO) -> Scalar:
        return formula(x, m)

    return value


def map_weight(mode: str) -> Function:
    """wm(x), but for "1": 1 where x is not 0."""
    formula = WEIGHT_MAPS[mode]
    ones = mode == "1"

    def value(gamma: Scalar, x: Scalar) -> Scalar:
        return ZERO if ones and x == ZERO else formula(x, gamma)

    return value


def multiply(mode: str) -> Function:
    """coefficient · multiplier(m) · x."""
    formula = MULTIPLIERS[mode]

    def value(coefficient: Scalar, x: Scalar, m: Scalar = ZERO) -> Scalar:
        return single_product(formula(m, x), coefficient)

    return value


def divide(mode: str) -> Function:
    """x / m, 0 where m is 0, or has not the sign of the mode."""
    return QUOTIENTS[mode]


def activate(kind: str, derivative: bool, sloped: bool) -> Function:
    """act(x), or act'(x); if `sloped`, slopes stand for the a of a leaky_relu."""
    formula = (DERIVATIVES if derivative else ACTIVATIONS)[kind]

    def value(a: Scalar, b: Scalar, x: Scalar, slopes: Scalar = ZERO) -> Scalar:
        return formula(x, slopes if sloped else a, b)

    return value


def affine() -> Function:
    """x · weight[c] + bias[c]."""

    def value(x: Scalar, weight: Scalar, bias: Scalar = ZERO) -> Scalar:
        return single_product(x, weight) + bias

    return value


def factor(mode: str) -> Function:
    """The factor of a share from its terms: see formulas.gate, denominator, signed and paired."""
    formula = FACTORS.get(mode, FACTORS["gate"])
    by_sign, in_pairs = mode == "signed", mode == "paired"

    def value(
        select: int,
        coefficient: Scalar,
        stabilizer: Scalar,
        terms: Scalar,
        bias_d: Scalar = ZERO,
        x: Scalar = ZERO,
        m: Scalar = ZERO,
        bias: Scalar = ZERO,
        scale: Scalar = ONE,
        other: Scalar = ONE,
    ) -> Scalar:
        d = terms + bias_d
        y = m + bias
        if by_sign:
            result = quotient(signed(d, m - d, y, stabilizer), scale)
        elif in_pairs:
            result = selected(select, y, stabilised(paired(terms, m, y, bias_d, coefficient), stabilizer))
        else:
            # where the other share is empty, this one passes on all of R
            c = ONE if other == ZERO else coefficient
            result = selected(select, y, formula(stabilised(d, stabilizer), x, scale, c))
        return result

    return value
