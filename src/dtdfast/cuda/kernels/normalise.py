"""Along one axis: LRN, softmax and norms, with their relevance.

The lines of a softmax or a norm have a warp each, whose lanes take every 32nd element; their sums go through all lanes
in one order. A norm, and relevance through norm or softmax, are computed in float64 and rounded once, as in csrc/rows/:
where the diagonal of a norm's matrix is taken from a sum over all of a row, the sum cancels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..compile.language import (
    LOADS,
    STORES,
    lane,
    lanes,
    largest_of_lanes,
    load,
    product,
    single,
    sum_of_lanes,
    times,
    wide,
)
from .elementwise import Types, putter
from .formulas import INFINITY, MULTIPLIERS, ONE, WEIGHT_MAPS, ZERO, Scalar

Body = Any

WIDE_ZERO, WIDE_ONE = np.float64(0), np.float64(1)


def lrn(types: Types) -> Body:
    """out[c] = x[c] / (k + alpha · Σ_j x[j]²)^beta over the channels j = c − (size−1)/2 … c + size/2.

    x is the address of channel c; `stride` the bytes between two channels.
    """
    put, get = STORES[types[0]], LOADS[types[1]]

    def body(
        out: int, x: int, c: int, channels: int, size: int, stride: int, alpha: Scalar, beta: Scalar, k: Scalar
    ) -> None:
        squares = ZERO
        for j in range(c - (size - 1) // 2, c + size // 2 + 1):
            if 0 <= j < channels:
                v = get(x + times(j - c, stride))
                squares += v * v
        put(out, get(x) / math.pow(k + alpha * squares, beta))

    return body


def length(types: Types) -> Body:
    """out[g] = √Σ_c x[c]² over the `width` channels of block g, by their largest: no square under- or overflows.

    x is the address of the block's first channel; `stride` the bytes between two channels.
    """
    put, get = STORES[types[0]], LOADS[types[1]]

    def body(out: int, x: int, g: int, channels: int, width: int, stride: int) -> None:
        n, largest, squares = channels - g * width, ZERO, ZERO
        if n > width:
            n = width
        for c in range(n):
            v = abs(get(x + times(c, stride)))
            if v > largest:
                largest = v
        if largest == ZERO:  # or NaN beside it
            largest = ONE
        for c in range(n):
            v = get(x + times(c, stride)) / largest
            squares += v * v
        put(out, largest * math.sqrt(squares))

    return body


# ------------------------------------------------------------------------------------------------------------ softmax


def softmax(types: Types) -> Body:
    """out[i] = exp(x[i] − max x) / Σ_j exp(x[j] − max x), x times the coefficient, over those whose selector is not 0;
    0 for the others.
    """
    put, get_out, get = STORES[types[0]], LOADS[types[0]], LOADS[types[1]]

    def chosen(selector: int, i: int, selector_stride: int) -> bool:
        return selector == 0 or load(selector + times(i, selector_stride)) != ZERO

    def body(
        out: int, x: int, selector: int, n: int, out_stride: int, x_stride: int, selector_stride: int,
        coefficient: Scalar,
    ) -> None:  # fmt: skip
        largest = -INFINITY
        for i in range(lane(), n, lanes()):
            if chosen(selector, i, selector_stride):
                v = coefficient * get(x + times(i, x_stride))
                if v > largest:
                    largest = v
        largest = largest_of_lanes(largest)
        total = WIDE_ZERO
        for i in range(lane(), n, lanes()):
            e: Scalar = ZERO
            if chosen(selector, i, selector_stride):
                e = math.exp(coefficient * get(x + times(i, x_stride)) - largest)
            total += wide(e)
            put(out + times(i, out_stride), e)
        whole = single(sum_of_lanes(total))
        for i in range(lane(), n, lanes()):
            if chosen(selector, i, selector_stride):
                at = out + times(i, out_stride)
                put(at, get_out(at) / whole)

    return body


def log_softmax(types: Types) -> Body:
    """out[i] = x[i] − max x − log Σ_j exp(x[j] − max x)."""
    put, get = STORES[types[0]], LOADS[types[1]]

    def body(out: int, x: int, n: int, out_stride: int, x_stride: int) -> None:
        largest = -INFINITY
        for i in range(lane(), n, lanes()):
            v = get(x + times(i, x_stride))
            if v > largest:
                largest = v
        largest = largest_of_lanes(largest)
        total = WIDE_ZERO
        for i in range(lane(), n, lanes()):
            total += wide(math.exp(get(x + times(i, x_stride)) - largest))
        logarithm = math.log(single(sum_of_lanes(total)))
        for i in range(lane(), n, lanes()):
            put(out + times(i, out_stride), get(x + times(i, x_stride)) - largest - logarithm)

    return body


def softmax_back(types: Types) -> Body:
    """out[i] (+)= coefficient·m[i]·(x[i] − Σ_j m[j]·x[j])."""
    put, get, get_m = putter(types[0]), LOADS[types[1]], LOADS[types[2]]

    def body(
        out: int, x: int, m: int, n: int, out_stride: int, x_stride: int, m_stride: int, accumulate: int,
        coefficient: Scalar,
    ) -> None:  # fmt: skip
        total = WIDE_ZERO
        for i in range(lane(), n, lanes()):
            total += wide(get_m(m + times(i, m_stride))) * wide(get(x + times(i, x_stride)))
        total = sum_of_lanes(total)
        for i in range(lane(), n, lanes()):
            c, y = wide(get(x + times(i, x_stride))), wide(get_m(m + times(i, m_stride)))
            put(out + times(i, out_stride), single(y * (c - total) * wide(coefficient)), accumulate)

    return body


# -------------------------------------------------------------------------------------------------------------- norms
#
#     y_j = (x_j − mean x)·ρ·w_j + b_j = Σ_i x_i m_ij + b_j,   m_ij = (δ_ij − κ)·ρ·w_j
#
# κ is 1/channels if `centred`; else there is no mean and no m_ij but on the diagonal.  w, b: addresses, 0 for ones and
# zeros.


def statistics(get: Any) -> tuple[Any, Any]:
    """(mean, rho): functions of x, its stride and its length; rho also of the mean and epsilon."""

    def mean(x: int, stride: int, n: int) -> Any:
        total = WIDE_ZERO
        for i in range(lane(), n, lanes()):
            total += wide(get(x + times(i, stride)))
        return sum_of_lanes(total) / n

    def rho(x: int, stride: int, n: int, mean: Any, epsilon: Scalar) -> Any:
        total = WIDE_ZERO
        for i in range(lane(), n, lanes()):
            rest = wide(get(x + times(i, stride))) - mean
            total += rest * rest
        return WIDE_ONE / math.sqrt(sum_of_lanes(total) / n + wide(epsilon))

    return mean, rho


def element(at: int, i: int, stride: int) -> Any:
    """Of a weight, which is 1 where there is none."""
    return wide(load(at + times(i, stride)) if at != 0 else ONE)


def norm(types: Types, centred: bool) -> Body:
    """out = (x − mean x)·ρ·w + b, factor = ρ = 1/√(mean (x − mean x)² + epsilon)."""
    put, put_factor, get = STORES[types[0]], STORES[types[1]], LOADS[types[2]]
    mean_of, rho_of = statistics(get)

    def body(
        out: int, factor: int, x: int, w: int, b: int, n: int, out_stride: int, x_stride: int, w_stride: int,
        b_stride: int, epsilon: Scalar,
    ) -> None:  # fmt: skip
        mean = mean_of(x, x_stride, n) if centred else WIDE_ZERO
        rho = rho_of(x, x_stride, n, mean, epsilon)
        if factor != 0 and lane() == 0:
            put_factor(factor, single(rho))
        for i in range(lane(), n, lanes()):
            y = (wide(get(x + times(i, x_stride))) - mean) * rho * element(w, i, w_stride)
            if b != 0:
                y = y + wide(load(b + times(i, b_stride)))
            put(out + times(i, out_stride), single(y))

    return body


def norm_products(types: Types, weight_map: str, mode: str, centred: bool, scatter: bool) -> Body:
    """out[j] (+)= Σ_i x[i] wm(m_ij), or with `scatter` out[i] (+)= multiplier(m[i]) · Σ_j wm(m_ij) x[j]; `scale` is
    the address of ρ.
    """
    put, get, get_scale, get_m = putter(types[0]), LOADS[types[1]], LOADS[types[2]], LOADS[types[4]]
    wm, multiplier = WEIGHT_MAPS[weight_map], MULTIPLIERS[mode]

    def body(
        out: int, x: int, scale: int, w: int, m: int, n: int, out_stride: int, x_stride: int, w_stride: int,
        m_stride: int, accumulate: int, gamma: Scalar,
    ) -> None:  # fmt: skip
        rho = wide(get_scale(scale))
        kappa = WIDE_ONE / n if centred else WIDE_ZERO
        total = WIDE_ZERO
        if centred:
            for i in range(lane(), n, lanes()):
                v = wide(get(x + times(i, x_stride)))
                if scatter:
                    v = product(v, wm(product(-kappa * rho, element(w, i, w_stride)), gamma))
                total += v
            total = sum_of_lanes(total)
        for i in range(lane(), n, lanes()):
            v, weight = wide(get(x + times(i, x_stride))), element(w, i, w_stride)
            r = product(v, wm((WIDE_ONE - kappa) * rho * weight, gamma))
            if centred:
                beside = wm(product(-kappa * rho, weight), gamma)
                r = r + (total - product(v, beside) if scatter else product(total - v, beside))
            by = get_m(m + times(i, m_stride)) if m != 0 else ZERO
            put(out + times(i, out_stride), multiplier(by, single(r)), accumulate)

    return body


def norm_derivative(types: Types, centred: bool) -> Body:
    """out (+)= ρ·(g − mean g − x̂·mean(g·x̂)), g = w·x, x̂ = (m − mean m)·ρ; no means of m and g without `centred`."""
    put, get, get_m = putter(types[0]), LOADS[types[1]], LOADS[types[2]]
    mean_of, rho_of = statistics(get_m)

    def body(
        out: int, x: int, m: int, w: int, n: int, out_stride: int, x_stride: int, m_stride: int, w_stride: int,
        accumulate: int, epsilon: Scalar,
    ) -> None:  # fmt: skip
        mean = mean_of(m, m_stride, n) if centred else WIDE_ZERO
        rho = rho_of(m, m_stride, n, mean, epsilon)
        plain, along = WIDE_ZERO, WIDE_ZERO
        for i in range(lane(), n, lanes()):
            g = wide(get(x + times(i, x_stride))) * element(w, i, w_stride)
            plain += g
            along += g * ((wide(get_m(m + times(i, m_stride))) - mean) * rho)
        plain = sum_of_lanes(plain) / n if centred else WIDE_ZERO
        along = sum_of_lanes(along) / n
        for i in range(lane(), n, lanes()):
            g = wide(get(x + times(i, x_stride))) * element(w, i, w_stride)
            r = rho * (g - plain - (wide(get_m(m + times(i, m_stride))) - mean) * rho * along)
            put(out + times(i, out_stride), single(r), accumulate)

    return body
