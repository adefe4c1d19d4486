"""Norms that models write in several operations, x·1/√(mean of squares + eps), known again in the records of their
means; shapes are those of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .. import layers as L
from ..plan.shapes import Shape
from .algebra import difference, reshaped, scaled
from .functions import Function, divisor
from .records import Add, Layers, Value
from .rewrites import record_at, source_of


class Mean(NamedTuple):
    """factor·(mean of an entry over some axes)."""

    position: int
    axes: tuple[int, ...]  # the batch counted
    factor: float


def variance(add: Add, x: Value, axes: Sequence[int], correction: float, *, keepdims: bool) -> Value:
    """Σ (x − mean x)²/(count − correction) over some axes (the batch counted)."""
    count = math.prod(x.shape[a - 1] for a in axes)
    shape = _reduced(x.shape, axes)
    mean = reshaped(add, add(L.Reduce, x, kind="mean", axes=tuple(axes), keepdims=True), shape)
    centred = difference(add, x, mean)
    y = add(L.Reduce, add(L.Mul, centred, centred), kind="mean", axes=tuple(axes), keepdims=True)
    y = scaled(add, y, count / (count - correction)) if correction else y
    return reshaped(add, y, shape if keepdims else tuple(s for a, s in enumerate(shape, 1) if a not in axes))


def squares(add: Add, x: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
    """Σ x² over some axes (the batch counted)."""
    y = add(L.Reduce, add(L.Mul, x, x), kind="sum", axes=tuple(axes), keepdims=True)
    shape = tuple(1 if a in axes else s for a, s in enumerate(x.shape, 1) if keepdims or a not in axes)
    return reshaped(add, y, shape)


def normalised(add: Add, layers: Layers, x: Value, factor: Function) -> Value | None:
    """x times a function of a mean of squares, as a norm; None where it is none.

    The mean is of x itself (RMSNorm), or of what is left of a value without its mean, as x is then (LayerNorm). What
    scales x may come before or after.
    """
    y = _normalised(add, layers, x, factor)
    scale = record_at(layers.records, x.position, L.Scale)
    if y is not None or scale is None or scale.shift is not None:
        return y
    inner = _normalised(add, layers, Value(source_of(layers.records, x.position), x.shape), factor)
    return None if inner is None else add(L.Scale, inner, scale=scale.scale)


def _normalised(add: Add, layers: Layers, x: Value, factor: Function) -> Value | None:
    mean, found = _mean(layers, factor.root, factor.narrow or factor.shape), divisor(factor)
    if mean is None or found is None:
        return None
    (k, e), product = found, _reached(layers, mean.position, L.Mul)
    if product is None or len(set(layers.reads(product))) > 1:
        return None
    k *= mean.factor
    y = _plain(layers, layers.reads(product)[0])
    if k <= 0 or layers.shape(_plain(layers, x.position)) != x.shape or not _meets(layers, product, mean, factor, x):
        return None
    kind: type[L.Layer] = L.RMSNorm
    source = x
    centre = _centred(layers, y)
    own = _centred(layers, _plain(layers, x.position))
    if centre is not None and centre == own and centre[1] == mean.axes:
        kind, source = L.LayerNorm, Value(centre[0], x.shape)
    elif _plain(layers, x.position) != y:
        return None
    return scaled(add, add(kind, source, axes=mean.axes, eps=float(f"{e / k:.7g}")), 1 / math.sqrt(k))


def _meets(layers: Layers, product: int, mean: Mean, factor: Function, x: Value) -> bool:
    """Whether the mean's axes are x's, and its result meets x along the others."""
    sizes = layers.shape(product)
    return sizes == x.shape and factor.shape in (_reduced(x.shape, mean.axes), x.shape)


def _reduced(shape: Shape, axes: Sequence[int]) -> Shape:
    return tuple(1 if a in axes else s for a, s in enumerate(shape, 1))


def _plain(layers: Layers, position: int) -> int:
    """The entry that this one only hands on."""
    while position != L.INPUT and isinstance(layers.records[position], L.Dropout):
        position = layers.reads(position)[0]
    return position


def _reached(layers: Layers, position: int, kind: type[L.Layer]) -> int | None:
    position = _plain(layers, position)
    return position if position != L.INPUT and isinstance(layers.records[position], kind) else None


def _mean(layers: Layers, position: int, shape: Shape | None) -> Mean | None:
    """What this entry is the mean or the sum of, through factors and views of the result, which under `shape` must meet
    what it was reduced from.
    """
    factor, held = 1.0, shape
    while position != L.INPUT:
        record = layers.records[position]
        if isinstance(record, L.Scale) and record.shift is None and (record.scale == record.scale.flat[0]).all():
            factor *= float(record.scale.flat[0])
        elif isinstance(record, L.Expand) and layers.shape(position) == held:
            held = layers.shape(layers.reads(position)[0])
        elif not isinstance(record, (L.Reshape, L.Flatten, L.Dropout)):
            break
        (position,) = layers.reads(position)
    if position == L.INPUT:
        return None
    reads = layers.reads(position)
    shape = layers.shape(reads[0]) if len(reads) == 1 else None
    if shape is None:
        return None
    axes: tuple[int, ...] = ()
    if isinstance(record, L.Reduce) and record.kind != "max":
        axes = tuple(sorted(int(a) % (len(shape) + 1) for a in np.atleast_1d(record.axes)))
        factor *= math.prod(shape[a - 1] for a in axes) if record.kind == "sum" else 1.0
    elif isinstance(record, L.GlobalAvgPool):
        axes = tuple(range(2, len(shape) + 1))
    elif isinstance(record, L.AvgPool):
        kernel = np.broadcast_to(record.kernel, len(shape) - 1)
        if all(taps in (1, size) for size, taps in zip(shape[1:], kernel, strict=True)):
            axes = tuple(a for a, taps in enumerate(kernel, 2) if taps > 1)
    return Mean(reads[0], axes, factor) if axes and held == _reduced(shape, axes) else None


def _centred(layers: Layers, position: int) -> tuple[int, tuple[int, ...]] | None:
    """(u, axes) where this entry is u without its mean over these axes."""
    add = _reached(layers, position, L.Add)
    if add is None or len(layers.reads(add)) != 2:
        return None
    for u, other in (layers.reads(add), layers.reads(add)[::-1]):
        mean = _mean(layers, other, layers.shape(other))
        if mean is not None and mean.position == u and mean.factor == -1.0:
            return u, mean.axes
    return None
