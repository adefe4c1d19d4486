"""Taps with one weight per channel: depthwise convolutions, average pools, operands of an add.

    sum[p,c] = Σ_k x[p + tap_k, c] wm(w[k,c])

Without weights each is 1.
"""

from __future__ import annotations

from typing import Any

from ..compile.language import LOADS, STORES, load, load_long, single_product, times
from .elementwise import Types, putter
from .formulas import (
    ACTIVATIONS,
    DERIVATIVES,
    FACTORS,
    MULTIPLIERS,
    ONE,
    WEIGHT_MAPS,
    ZERO,
    Scalar,
    positive,
    quotient,
    selected,
    signed,
    stabilised,
)

Body = Any


def neuron_channel(types: Types, activation: str, mode: str, dual: bool) -> Body:
    """out = act(y), factor and terms of a neuron, as csrc/README.md has them.

    taps : address of byte offsets from x; the weights of two taps lie `row` bytes apart
    """
    store, store_factor, store_terms = (STORES[t] for t in types[:3])
    get, get_y_prev, get_terms_prev = (LOADS[types[k]] for k in (3, 5, 6))
    act, act_derivative = ACTIVATIONS[activation], DERIVATIVES[activation]
    formula = FACTORS.get(mode, FACTORS["gate"])
    stores, derivative, by_sign = mode != "none", mode == "derivative", mode == "signed"

    def body(
        out: int, factor: int, terms: int, x: int, weight: int, y_prev: int, terms_prev: int, scale: int, bias: int,
        bias_d: int,
        taps: int, n_taps: int, row: int, select: int,
        coefficient: Scalar, stabilizer: Scalar, alpha: Scalar, beta: Scalar,
    ) -> None:  # fmt: skip
        y, d = ZERO, ZERO
        for k in range(n_taps):
            v = get(x + load_long(taps + 8 * k))
            w = load(weight + times(k, row)) if weight != 0 else ONE
            y += v * w
            if dual:
                d += v * positive(w)
        s = load(scale) if scale != 0 else ONE
        y = single_product(y, s)
        if y_prev != 0:
            y = y + get_y_prev(y_prev)
        if dual:
            d = single_product(d, s)
            if terms_prev != 0:
                d = d + get_terms_prev(terms_prev)
        else:
            d = y
        if terms != 0:
            store_terms(terms, d)
        rest = y - d
        if bias != 0:
            y = y + load(bias)
        a = act(y, alpha, beta)
        store(out, a)
        if stores:
            if derivative:
                store_factor(factor, act_derivative(y, alpha, beta) * s)
            elif by_sign:
                store_factor(factor, quotient(signed(d, rest, y, stabilizer), s))
            else:
                if bias_d != 0:
                    d = d + load(bias_d)
                store_factor(factor, selected(select, y, formula(stabilised(d, stabilizer), a, s, coefficient)))

    return body


def taps_channel(types: Types, weight_map: str, mode: str) -> Body:
    """out (+)= multiplier(m) · scale · Σ_k x[p + tap_k] wm(w[k])."""
    put, get, get_m = putter(types[0]), LOADS[types[1]], LOADS[types[3]]
    wm, multiplier = WEIGHT_MAPS[weight_map], MULTIPLIERS[mode]

    def body(
        out: int, x: int, weight: int, m: int, scale: int,
        taps: int, n_taps: int, row: int, accumulate: int,
        gamma: Scalar,
    ) -> None:  # fmt: skip
        r = ZERO
        for k in range(n_taps):
            w = load(weight + times(k, row)) if weight != 0 else ONE
            r += get(x + load_long(taps + 8 * k)) * wm(w, gamma)
        s = load(scale) if scale != 0 else ONE
        put(out, multiplier(get_m(m) if m != 0 else ZERO, r * s), accumulate)

    return body
