"""What importers make of masks of the sample: values of 0 and 1 that a model is called with, turned round, joined,
filled in, added as numbers, and counted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..plan.shapes import Shape
from .algebra import aligned, expanded, left_out, reshaped, scaled, total, vector
from .functions import GRID, NEAR, traced
from .records import Add, Layers, Refused, Value
from .refused import FILLS
from .rewrites import record_at, source_of

Array = NDArray[Any]

LOWEST = -1e4
"""What is at most this is added instead of being filled in."""

NOTHING = -1e30
"""Instead of −∞ where the largest is taken."""


def turned_round(add: Add, mask: Value) -> Value:
    """1 − mask."""
    one = np.ones((1,) * len(mask.shape))
    return replace(add(L.Scale, mask, scale=-one, shift=one), truth=True)


def both(add: Add, mask: Value, other: Value | Array, shape: Shape) -> Value:
    """1 where two masks are, of which one may be the same for all samples."""
    if isinstance(other, Value):
        return replace(add(L.Mul, mask, other), truth=True)
    whole = expanded(add, mask, shape)
    if not other.all():
        whole = add(L.Scale, whole, scale=np.broadcast_to(other != 0, shape).astype(float))
    return replace(whole, truth=True)


def hiding(mask: Value) -> Value:
    """The logarithm of a mask: numbers to add to scores, 0 for 1 and −∞ for 0."""
    return replace(mask, truth=False, hides=True)


def added(add: Add, x: Value, mask: Value) -> Value:
    """x plus the logarithm of a mask: x, of which a softmax leaves out what the mask says by 0."""
    if not x.hides:
        return left_out(x, mask)
    first, second = (replace(m, hides=False) for m in (x, mask))
    return hiding(both(add, first, second, x.shape))


def filled(add: Add, x: Value, mask: Value, number: Any, *, where: int) -> Value:
    """x with numbers, as one sample meets them, where the mask is `where` (0 or 1)."""
    low = float(number.max(initial=-np.inf))
    if np.isneginf(low):
        return left_out(x, turned_round(add, mask) if where else mask)
    mask = reshaped(add, mask, (1,) * (len(x.shape) - len(mask.shape)) + mask.shape)
    if low <= LOWEST and low == number.min():
        return total(add, x, scaled(add, mask, low) if where else scaled(add, mask, -low, low))
    kept = add(L.Mul, vector(x), turned_round(add, mask) if where else mask)
    if not number.any():
        return kept
    pair = (np.zeros(1), number)
    return total(add, kept, chosen(add, mask, pair[where], pair[1 - where]))


def lowered(add: Add, x: Value) -> Value:
    """x for what takes the largest: a low number where a softmax leaves it out."""
    mask, keep, x = x.given, x.kept, replace(x, given=None, kept=None)
    if keep is not None:
        x = scaled(add, x, 1.0, np.where(keep, 0.0, NOTHING))
    return x if mask is None else filled(add, x, mask, np.array(NOTHING), where=0)


def chosen(add: Add, mask: Value, a: Array, b: Array) -> Value:
    """By the mask one of two constants, as one sample meets them; of 0 and −∞ the logarithm of a mask."""
    for one, other, kept in ((a, b, True), (b, a, False)):
        if np.isneginf(other).all() and not one.any():
            return hiding(mask if kept else turned_round(add, mask))
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        raise Refused(FILLS)
    return scaled(add, replace(mask, truth=False), a - b, b)


def unrepeated(layers: Layers, x: Value) -> Value:
    """A mask of which a product repeats the elements."""
    while x.position in layers.masks and record_at(layers.records, x.position, L.Expand) is not None:
        source = source_of(layers.records, x.position)
        inner = layers.shape(source)
        if inner is None or len(inner) != len(x.shape) or layers.shape(x.position) != x.shape:
            break
        x = Value(source, inner)
    return x


def quotient(add: Add, layers: Layers, x: Value, divisor: Value) -> Value | None:
    """x divided by the number of ones in a mask of the sample, perhaps bounded by what is at most 1; None where the
    divisor is no such number. Without ones it is 0.

    Softmax makes 1/count of zeros wherever the mask is 1, and the largest of them is 1/count.
    """
    if divisor.position == L.INPUT:
        return None
    root, values = traced(layers, divisor.position)
    large = GRID >= 1
    reduced = record_at(layers.records, root, L.Reduce)
    if reduced is None or reduced.kind != "sum" or (abs(values - GRID) > NEAR * GRID)[large].any():
        return None
    source = source_of(layers.records, root)
    inner = layers.shape(source)
    if source not in layers.masks or inner is None:
        return None
    axes = {a % (len(inner) + 1) for a in np.atleast_1d(reduced.axes)}
    mask = unrepeated(layers, Value(source, inner))
    counted = [a for a in axes if mask.shape[a - 1] > 1]
    if any(mask.shape[a - 1] != inner[a - 1] for a in axes) or len(counted) != 1:
        return None
    zeros = add(L.Constant, value=np.zeros(mask.shape))
    ones = add(L.Reduce, replace(add(L.Softmax, replace(zeros, given=mask), axis=counted[0])), kind="max",
               axes=tuple(sorted(axes)), keepdims=True)  # fmt: skip
    aligned(x, divisor)
    shape = divisor.shape
    if max(ones.shape) == 1:
        shape = (1,) * max(len(x.shape), 1)
    elif np.prod(ones.shape) != np.prod(shape):
        return None
    return add(L.Mul, vector(x), reshaped(add, ones, shape))
