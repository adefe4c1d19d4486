"""From the sums of a contraction to results, for neighbouring channels of one pixel.

    NEURON_*   sum_y = scale · Σ_k x_k w_k           terms = scale · Σ_k x_k w⁺_k if dual, else sum_y
               sum_y += y_prev                       terms += terms_prev (if dual)
               y = sum_y + bias                      out = act(y)
               d = terms + bias_d                    d += stabilizer · sgn d, where sgn 0 = +1
    TAPS_*     out (+)= multiplier(m) · scale · Σ_k x_k wm(w_k)

The lines are those of csrc/README.md; there is also what the modes of a factor and the multipliers are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..compile.specialise import unroll
from .formulas import ACTIVATIONS, DERIVATIVES, FACTORS, MULTIPLIERS, ONE, signed, stabilised
from .tile_copies import CHANNELS, DHW, HW, REPEAT, X_D, X_H, X_N, X_W, W

# numbers of the kernel behind those of tile_copies.py: per-channel vectors, 0 for none
BIAS, BIAS_D = CHANNELS + 1, CHANNELS + 2
ACCUMULATE = BIAS_D + 1  # whether a product adds to out
# then, for every view of Finish.views, its address and strides along n, d, h, w
FIRST_VIEW, PER_VIEW = ACCUMULATE + 1, 5
GAMMA, COEFFICIENT, STABILIZER, ALPHA, BETA = range(5)
N_FLOATS = 5


@dataclass(frozen=True)
class Finish:
    """What is done with the sums.

    Attributes
    ----------
    neuron : NEURON_*, else TAPS_*; there m with address 0 multiplies nothing
    activation : of a neuron
    mode : of a neuron the factor (or "none"), else the multiplier
    dual : two sums, of y and of the terms
    views, types : those present, of out, factor, terms, y_prev, terms_prev, m and window (the scale, a number per
        pixel); "f4" or "bf16" each
    vector : channels at once: 8 or, where all views are "f4", 4 if every view is 16-byte aligned, else 1
    """

    neuron: bool
    activation: str
    mode: str
    dual: bool
    views: tuple[str, ...]
    types: tuple[str, ...]
    vector: int

    @property
    def constants(self) -> tuple[Any, ...]:
        return self.neuron, self.activation, self.mode, self.dual, self.views, self.types, self.vector


def places(ptx: Any, views: tuple[str, ...], per_view: int) -> Callable[[Any, int, int], None]:
    """A function (a, pixel, to) that finds where a pixel of all samples lies in x and in every view, and puts these
    offsets where `finish` looks for them.
    """
    VIEWS = len(views)

    def place(a: Any, pixel: int, to: int) -> None:
        n = ptx.quotient(pixel, a[DHW])
        p = pixel - n * a[DHW]
        d = ptx.quotient(p, a[HW])
        p -= d * a[HW]
        h = ptx.quotient(p, a[W])
        p -= h * a[W]
        ptx.shared_store_int(to, n * a[X_N] + d * a[X_D] + h * a[X_H] + p * a[X_W])
        kept = ptx.quotient(n, a[REPEAT])
        for v in unroll(VIEWS):
            n_v = kept if views[v] == "m" else n
            offset = n_v * a[FIRST_VIEW + PER_VIEW * v + 1] + d * a[FIRST_VIEW + PER_VIEW * v + 2]
            offset += h * a[FIRST_VIEW + PER_VIEW * v + 3] + p * a[FIRST_VIEW + PER_VIEW * v + 4]
            ptx.shared_store_int(to + (v + 1) * per_view, offset)

    return place


def finish(ptx: Any, end: Finish, second_sum: int, per_view: int) -> Callable[[Any, Any, int, int, int], None]:
    """A function (a, f, sums, offsets, channel) that finishes `end.vector` channels of one pixel.

    Parameters
    ----------
    second_sum : bytes from the sums of y to those of the terms, in shared memory
    per_view : bytes from the pixel's offset in one view to that in the next, in shared memory; that in x comes first
    """
    N = end.vector
    VIEWS = end.views
    HALF = tuple(t == "bf16" for t in end.types)
    DUAL, MODE = end.dual, end.mode
    DERIVATIVE, SIGNED, FACTOR = MODE == "derivative", MODE == "signed", end.neuron and MODE != "none"
    act, act_derivative = ACTIVATIONS[end.activation], DERIVATIVES[end.activation]
    formula = FACTORS.get(MODE, FACTORS["gate"])
    multiplied = MULTIPLIERS.get(MODE, MULTIPLIERS["times"])
    # a view's number among those present; only looked at where it is
    OUT, FACTOR_V, TERMS, Y_PREV, TERMS_PREV, M, WINDOW = (
        VIEWS.index(v) if v in VIEWS else -1 for v in ("out", "factor", "terms", "y_prev", "terms_prev", "m", "window")
    )

    def address(a: Any, view: int, offsets: int, channel: int) -> Any:
        return a[FIRST_VIEW + PER_VIEW * view] + (2 if HALF[view] else 4) * (
            ptx.shared_load_int(offsets + (view + 1) * per_view) + channel
        )

    def get(to: Any, at: int, view: int) -> None:
        if HALF[view]:
            if N == 8:
                to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7] = ptx.load8_bf16(at)
            else:
                to[0] = ptx.load_bf16(at)
        elif N == 1:
            to[0] = ptx.load(at)
        else:
            for q in unroll(N // 4):
                to[4 * q], to[4 * q + 1], to[4 * q + 2], to[4 * q + 3] = ptx.load4(at + 16 * q)

    def get_shared(to: Any, at: int) -> None:
        if N == 1:
            to[0] = ptx.shared_load(at)
        else:
            for q in unroll(N // 4):
                to[4 * q], to[4 * q + 1], to[4 * q + 2], to[4 * q + 3] = ptx.shared_load4(at + 16 * q)

    def put(at: int, of: Any, view: int) -> None:
        if HALF[view]:
            if N == 8:
                ptx.store8_bf16(at, of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7])
            else:
                ptx.store_bf16(at, of[0])
        elif N == 1:
            ptx.store(at, of[0])
        else:
            for q in unroll(N // 4):
                ptx.store4(at + 16 * q, of[4 * q], of[4 * q + 1], of[4 * q + 2], of[4 * q + 3])

    def add_view(to: Any, other: Any, a: Any, view: int, offsets: int, channel: int) -> None:
        get(other, address(a, view, offsets, channel), view)
        for e in range(N):
            to[e] = to[e] + other[e]

    def add_vector(to: Any, vector: int, channel: int) -> None:
        if vector != 0:
            if N == 1:
                to[0] = to[0] + ptx.read(vector + 4 * channel)
            else:
                for q in unroll(N // 4):
                    v_0, v_1, v_2, v_3 = ptx.read4(vector + 4 * (channel + 4 * q))
                    to[4 * q], to[4 * q + 1] = to[4 * q] + v_0, to[4 * q + 1] + v_1
                    to[4 * q + 2], to[4 * q + 3] = to[4 * q + 2] + v_2, to[4 * q + 3] + v_3

    def neuron(a: Any, f: Any, sums: int, offsets: int, channel: int) -> None:
        y, d, other = ptx.registers(N), ptx.registers(N), ptx.registers(N)
        scale = ONE
        get_shared(y, sums)
        if DUAL:
            get_shared(d, sums + second_sum)
        if WINDOW >= 0:
            scale = ptx.read(address(a, WINDOW, offsets, 0))
            for e in range(N):
                y[e] = scale * y[e]
                if DUAL:
                    d[e] = scale * d[e]
        if Y_PREV >= 0:
            add_view(y, other, a, Y_PREV, offsets, channel)
        if DUAL:
            if TERMS_PREV >= 0:
                add_view(d, other, a, TERMS_PREV, offsets, channel)
        else:
            for e in range(N):
                d[e] = y[e]
        if TERMS >= 0:
            put(address(a, TERMS, offsets, channel), d, TERMS)
        rest = ptx.registers(N)
        if SIGNED:
            for e in range(N):
                rest[e] = y[e] - d[e]
        add_vector(y, a[BIAS], channel)
        for e in range(N):
            other[e] = act(y[e], f[ALPHA], f[BETA])
        put(address(a, OUT, offsets, channel), other, OUT)
        if FACTOR:
            if DERIVATIVE:
                for e in range(N):
                    d[e] = act_derivative(y[e], f[ALPHA], f[BETA]) * scale
            elif SIGNED:
                for e in range(N):
                    d[e] = signed(d[e], rest[e], y[e], f[STABILIZER])
            else:
                add_vector(d, a[BIAS_D], channel)
                for e in range(N):
                    stable = stabilised(d[e], f[STABILIZER])
                    if MODE == "gate":
                        d[e] = ptx.ratio(f[COEFFICIENT] * other[e], stable) * scale
                    else:
                        d[e] = formula(stable, other[e], scale, f[COEFFICIENT])
            put(address(a, FACTOR_V, offsets, channel), d, FACTOR_V)

    def taps(a: Any, f: Any, sums: int, offsets: int, channel: int) -> None:
        r, other = ptx.registers(N), ptx.registers(N)
        get_shared(r, sums)
        if WINDOW >= 0:
            scale = ptx.read(address(a, WINDOW, offsets, 0))
            for e in range(N):
                r[e] = scale * r[e]
        if a[FIRST_VIEW + PER_VIEW * M] != 0:
            get(other, address(a, M, offsets, channel), M)
            for e in range(N):
                r[e] = multiplied(other[e], r[e])
        at = address(a, OUT, offsets, channel)
        if a[ACCUMULATE] != 0:
            get(other, at, OUT)
            for e in range(N):
                r[e] = other[e] + r[e]
        put(at, r, OUT)

    return neuron if end.neuron else taps
