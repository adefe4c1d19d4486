"""Sums over blocks of samples in float64, for the ledger: csrc/rows/sums.c.

A warp adds up a block; its lanes take every 32nd element, and their sums go through all lanes in one order. So the bits
of a sum depend on the layout of one sample alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..compile.kernel import Kernel
from ..compile.language import (
    LOADS,
    lane,
    lanes,
    line,
    load,
    product,
    quotient_by,
    store_wide,
    sum_of_lanes,
    times,
    translate,
    wide,
)
from .formulas import ZERO, Scalar, selected
from .strided import THREADS

Types = tuple[str, ...]

WIDE_ZERO, WIDE_ONE = np.float64(0), np.float64(1)

WIDTHS = {"sums": 2, "account": 8}
"""The sums of each body."""


def sums(types: Types, mode: str) -> Callable[..., Any]:
    """multiplier(m)·x and its absolute value."""
    get, get_m = LOADS[types[0]], LOADS[types[1]]
    weighs, chooses = mode == "times", mode == "positive"

    def body(x: int, m: int) -> Any:
        r = wide(get(x))
        if weighs:
            r = r * wide(get_m(m))
        elif chooses and not get_m(m) > ZERO:
            r = WIDE_ZERO
        return r, abs(r)

    return body


def account(types: Types, kind: str) -> Callable[..., Any]:
    """Eight numbers of x = R, or R = m·x, that neurons share by terms/d, t = coefficient·R/d: as in csrc/rows/sums.c.

    0: R                         1: |R|
    2: coefficient·R where t is 0
    3: t·bias_d                  4: t·sgn d
    5, 6: their absolute values  7: |t·terms|; without terms |coefficient·R − t·(bias_d + stabilizer·sgn d)|
    """
    get, get_m, get_factor, get_terms, get_other, get_y = (LOADS[types[k]] for k in (0, 1, 2, 3, 4, 5))
    open_, gates = kind == "none", kind == "gate"

    def body(
        x: int, m: int, factor: int, terms: int, other: int, y: int, bias: int, bias_d: int, scale: int,
        select: int, coefficient: Scalar, stabilizer: Scalar, gamma: Scalar,
    ) -> Any:  # fmt: skip
        t = wide(get(x))
        r = t * wide(get_m(m)) if m != 0 else t
        if gates:
            t = t * wide(get_factor(factor))
        elif not open_:
            d = wide(get_factor(factor))
            t = t / d if d != WIDE_ZERO else WIDE_ZERO
        if select != 0:
            value = get_y(y)
            if bias != 0:
                value = value + load(bias)
            chosen = wide(selected(select, value, value))
            if chosen == WIDE_ZERO:
                r, t = WIDE_ZERO, WIDE_ZERO
        came, c = r, wide(coefficient)
        if other != 0 and get_other(other) == ZERO:  # the share of negative coefficient hands on nothing
            if c < WIDE_ZERO:
                t = WIDE_ZERO
            else:
                c = WIDE_ONE
        r = c * r
        if scale != 0:
            t = t / wide(load(scale))
        size = abs(t)
        signed = -size if r < WIDE_ZERO else size
        absorbed = WIDE_ZERO
        if bias_d != 0:
            b = wide(load(bias_d))
            whole, part = product(t, b), product(wide(gamma) * t, abs(b))
            absorbed = whole - part if t * r < WIDE_ZERO else whole + part
        empty = r if t == WIDE_ZERO else WIDE_ZERO
        shared = WIDE_ZERO if t == WIDE_ZERO else abs(r - absorbed - product(wide(stabilizer), signed))
        if terms != 0:
            shared = abs(t * wide(get_terms(terms)))
        return came, abs(came), empty, absorbed, signed, abs(absorbed), size, shared

    return body


_SOURCE = """
def kernel(a, f):
    i = line()
    if i < a[0]:
        n = quotient_by(i, a[1], a[2])
        b = i - times(n, a[3])
        first = times(b, a[4])
        last = first + a[4]
        if last > a[5]:
            last = a[5]
{zeros}
        for e in range(first + lane(), last, lanes()):
            q = e
{indices}
            {values} = body({arguments})
{additions}
        out = a[6] + n * a[7] + times(b, a[9])
{stores}
"""


def summing(
    ptx: Any,
    make_body: Callable[..., Any],
    types: Types,
    constants: tuple[Any, ...],
    n_axes: int,
    n_longs: int,
    n_floats: int,
    _: bool,
) -> Any:
    """The kernel that sums what a body gives for the elements of these views.

    Its integers: blocks of all samples; magic, shift and number of a sample's blocks; elements of a block, and of a
    sample; the result's address and strides (sample, sum, block); magic, shift and size of each axis but the first; per
    view its address and strides (sample, axes); longs.
    """
    width = WIDTHS[make_body.__name__]
    indices = []
    for axis in range(n_axes - 1, 0, -1):
        magic = 10 + 3 * (axis - 1)
        indices += [
            f"q{axis} = quotient_by(q, a[{magic}], a[{magic + 1}])",
            f"p{axis} = q - times(q{axis}, a[{magic + 2}])",
            f"q = q{axis}",
        ]
    indices.append("p0 = q")
    first = 10 + 3 * (n_axes - 1)
    views = [first + k * (2 + n_axes) for k in range(len(types))]
    addresses = [
        " + ".join([f"a[{v}] + n * a[{v + 1}]", *(f"times(p{x}, a[{v + 2 + x}])" for x in range(n_axes))])
        for v in views
    ]
    longs = first + len(types) * (2 + n_axes)
    arguments = [*addresses, *(f"a[{longs + k}]" for k in range(n_longs)), *(f"f[{k}]" for k in range(n_floats))]
    source = _SOURCE.format(
        zeros="\n".join(f"        s{k} = zero" for k in range(width)),
        indices="\n".join(" " * 12 + text for text in indices),
        values=", ".join(f"v{k}" for k in range(width)),
        arguments=", ".join(arguments),
        additions="\n".join(f"            s{k} += v{k}" for k in range(width)),
        stores="\n".join(f"        store_wide(out + times({k}, a[8]), sum_of_lanes(s{k}))" for k in range(width)),
    )
    space: dict[str, Any] = {
        "line": line,
        "lane": lane,
        "lanes": lanes,
        "quotient_by": quotient_by,
        "times": times,
        "store_wide": store_wide,
        "sum_of_lanes": sum_of_lanes,
        "zero": WIDE_ZERO,
        "body": make_body(types, *constants),
        "__name__": __name__,
    }
    exec(compile(source, f"<sums of {make_body.__name__} over {n_axes} axes>", "exec"), space)
    return translate(space["kernel"], ptx)


@cache
def kernel(
    make_body: Callable[..., Any],
    types: Types,
    constants: tuple[Any, ...],
    n_axes: int,
    n_longs: int,
    n_floats: int,
) -> Kernel:
    """One kernel object for each specialisation; a warp works on each of its lines."""
    n_integers = 10 + 3 * (n_axes - 1) + len(types) * (2 + n_axes) + n_longs
    factory_constants = (make_body, types, constants, n_axes, n_longs, n_floats, True)
    return Kernel(make_body.__name__, summing, factory_constants, n_integers, max(1, n_floats), THREADS)
