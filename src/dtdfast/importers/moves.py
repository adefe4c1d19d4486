"""What importers make of moves of elements, joins, pads, adaptive pools and resampling; `add` adds a record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..plan.shapes import Shape
from .algebra import expanded, of_sample, reshaped, vector
from .records import Add, Refused, Value

Array = NDArray[Any]


def rearranged(add: Add, x: Value, numbers: Array) -> Value:
    """Elements of x where an operation puts their numbers.

    Parameters
    ----------
    numbers : what the operation makes of a batch of the numbers 1, 2, …; 0 is what it fills in
    """
    size, n = math.prod(x.shape), len(numbers)
    index = numbers[0].astype(np.int64) - 1
    others = np.where(numbers > 0, numbers - size * np.arange(n).reshape(n, *(1,) * index.ndim), 0) - 1
    if not index.size:
        raise Refused("it takes nothing, and an empty value has no record")
    if index.max() >= size or (others != index).any():
        raise Refused("it moves elements from one sample to another")
    if (index >= 0).all():
        return moved(add, x, index)
    zero = add(L.Constant, value=np.zeros(1))
    whole = add(L.Concat, reshaped(add, x, (size,)), zero, axis=1)
    return moved(add, whole, np.where(index < 0, size, index))


def padded(add: Add, x: Value, pairs: Sequence[tuple[int, int]], value: float) -> Value:
    """A constant before and after, per axis of a sample."""
    pairs = list(pairs)
    if any(map(any, pairs[1:])) and 2 <= len(x.shape) <= 4:
        x, pairs = add(L.Pad, x, padding=pairs[1:], value=value), pairs[:1]
    for axis, sides in enumerate(pairs, 1):
        shapes = [(*x.shape[: axis - 1], width, *x.shape[axis:]) for width in sides]
        before, after = (
            [add(L.Constant, value=np.full(s, value))] if w else [] for s, w in zip(shapes, sides, strict=True)
        )
        x = add(L.Concat, *before, x, *after, axis=axis) if before or after else x
    return x


def joined(add: Add, operands: Sequence[Value | Array], axis: int, n_batch: int) -> Value:
    """One after the other along an axis (the batch counted); constants, the same for all samples, among them."""
    (x, *_) = [o for o in operands if isinstance(o, Value)]
    if axis == 0:
        raise Refused("it joins tensors along the batch axis")
    rank = len(x.shape)
    constants = (o if isinstance(o, Value) else of_sample(np.asarray(o, np.float64), rank, n_batch) for o in operands)
    values = [o if isinstance(o, Value) else add(L.Constant, value=o) for o in constants]
    return values[0] if len(values) == 1 else add(L.Concat, *values, axis=axis)


def stacked(add: Add, operands: Sequence[Value | Array], axis: int, n_batch: int) -> Value:
    """Side by side along a new axis (the batch counted), which is not the first."""

    def widened(operand: Value | Array) -> Value | Array:
        if not isinstance(operand, Value):
            return np.expand_dims(operand, axis)
        return reshaped(add, vector(operand), (*operand.shape[: axis - 1], 1, *operand.shape[axis - 1 :]))

    if axis == 0:
        raise Refused("it joins tensors along the batch axis")
    return joined(add, [widened(o) for o in operands], axis, n_batch)


def moved(add: Add, x: Value, index: NDArray[np.int64]) -> Value:
    """Elements of x in new places: index holds, for every element of a sample of the result, its number in a sample of
    x.
    """
    shape = tuple(index.shape)
    if math.prod(shape) == math.prod(x.shape) and (index.ravel() == np.arange(math.prod(x.shape))).all():
        return reshaped(add, x, shape)
    if len(shape) == len(x.shape):
        axes = [
            np.unravel_index(np.moveaxis(index, a, 0).reshape(shape[a], -1)[:, 0], x.shape)[a]
            for a in range(len(shape))
        ]
        strides = [math.prod(x.shape[a + 1 :]) for a in range(len(shape))]
        separate = sum(
            np.expand_dims(i * s, [b for b in range(len(shape)) if b != a])
            for a, (i, s) in enumerate(zip(axes, strides, strict=True))
        )
        if np.array_equal(np.broadcast_to(separate, shape), index):
            return _along_axes(add, x, axes)
    flat = add(L.Gather, reshaped(add, x, (math.prod(x.shape),)), indices=index.ravel(), axis=1)
    return reshaped(add, flat, shape)


def _along_axes(add: Add, x: Value, axes: Sequence[NDArray[np.int64]]) -> Value:
    """Axis by axis: what repeats an axis of size 1 last."""
    for axis, numbers in enumerate(axes):
        size = x.shape[axis]
        if size == 1 or np.array_equal(numbers, np.arange(size)):
            continue
        step = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
        if step > 0 and (np.diff(numbers) == step).all():
            x = add(L.Slice, x, axis=axis + 1, start=int(numbers[0]), stop=int(numbers[-1]) + 1, step=step)
        else:
            x = add(L.Gather, x, indices=numbers, axis=axis + 1)
    return expanded(add, x, tuple(map(len, axes)))


def adaptive(add: Add, x: Value, wanted: Shape, average: bool) -> Value:
    """A pool to this many windows per spatial axis, however long they are; channels on axis 1."""
    size = x.shape[1:]
    if not any(s % w for s, w in zip(size, wanted, strict=True)):
        kernel = tuple(s // w for s, w in zip(size, wanted, strict=True))
        if average:
            return add(L.GlobalAvgPool, x) if kernel == size else add(L.AvgPool, x, kernel=kernel)
        return x if size == wanted else add(L.MaxPool, x, kernel=kernel)
    windows = [_windows(s, w) for s, w in zip(size, wanted, strict=True)]
    return (
        resampled(add, x, [_means(w, s) for w, s in zip(windows, size, strict=True)])
        if average
        else _maxima(add, x, windows)
    )


def _windows(n_in: int, n_out: int) -> list[tuple[int, int]]:
    """First and last + 1 of each window of an adaptive pool: ⌊i·n_in/n_out⌋ and ⌈(i + 1)·n_in/n_out⌉."""
    return [(i * n_in // n_out, -(-(i + 1) * n_in // n_out)) for i in range(n_out)]


def _means(windows: list[tuple[int, int]], size: int) -> Array:
    places = np.arange(size)
    return np.array([((places >= start) & (places < stop)) / (stop - start) for start, stop in windows])


def _maxima(add: Add, x: Value, windows: list[list[tuple[int, int]]]) -> Value:
    """Windows side by side, all as long as the longest (the shorter repeat their last element, which no maximum
    sees).
    """
    longest = [max(stop - start for start, stop in axis) for axis in windows]
    for axis, (spans, length) in enumerate(zip(windows, longest, strict=True), 2):
        indices = np.array([min(start + i, stop - 1) for start, stop in spans for i in range(length)])
        if not np.array_equal(indices, np.arange(x.shape[axis - 1])):
            x = add(L.Gather, x, indices=indices, axis=axis)
    return add(L.MaxPool, x, kernel=tuple(longest))


def resampled(add: Add, x: Value, matrices: Sequence[Array | None]) -> Value:
    """A matrix (out, in) per spatial axis, None where the axis stays."""
    matrices = [
        None if m is None or (m.shape[0] == m.shape[1] and np.array_equal(m, np.eye(len(m)))) else m for m in matrices
    ]
    return x if all(m is None for m in matrices) else add(L.Resample, x, weights=tuple(matrices))
