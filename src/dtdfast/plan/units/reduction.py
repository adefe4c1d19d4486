"""Reductions over any axes: pools whose window is the whole of them."""

from __future__ import annotations

import math

import numpy as np

from ... import layers as L
from ...errors import ShapeError
from ..builder import Axes, Builder
from ..entries import Entry
from ..geometry import triple
from ..parts import Part
from ..shapes import MAX_WINDOW, Shape, axis_of
from ..taps import Taps
from ..tensors import Tensor
from .axes import ordered, own, reshaped
from .base import Recipe
from .neuron import Neuron
from .winner import winner


def windows(source: Tensor, axes: Axes) -> Taps:
    """One window over the whole of some spatial axes, per channel."""
    kernel = triple(tuple(s if a in axes else 1 for a, s in enumerate(source.shape[1:], 1)))
    d, h, w = (1 if k > 1 else s for k, s in zip(kernel, source.space, strict=True))
    channels = source.channels
    return Taps(False, channels, channels, channels, source.space, (d, h, w), kernel, kernel)


def reduce(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    return own(builder, entry, sources, reduced(builder, entry, sources[0]))


def reduced(builder: Builder, entry: Entry, source: Tensor) -> Tensor:
    """A pool whose window is the whole of the axes; those that are not spatial are moved behind the others first."""
    record = entry.record
    assert isinstance(record, L.Reduce)
    axes = reduced_axes(record, source.shape)
    if 0 in axes or not 2 <= len(source.shape) <= 4:
        kept = tuple(a for a in range(len(source.shape)) if a not in axes)
        sizes = math.prod(source.shape[a] for a in kept), math.prod(source.shape[a] for a in axes)
        source = reshaped(builder, entry, ordered(builder, entry, source, (*kept, *axes)), sizes)
        axes = (1,)
    taps = windows(source, axes)
    out = builder.inner(entry, tuple(1 if a in axes else s for a, s in enumerate(source.shape)))
    if record.kind == "max":
        out = winner(builder, entry, source, out, taps)
    else:
        window = np.full(taps.out_size, 1.0 / taps.n_taps) if record.kind == "mean" else None
        builder.rule[entry.position] = builder.rule_for(entry, builder.book.pool())
        builder.put(
            Neuron((entry.position,), (source,), out, parts=[Part(entry.position, source, taps, window=window)])
        )
    return reshaped(builder, entry, out, entry.shape)


def reduced_axes(record: L.Reduce, shape: Shape) -> tuple[int, ...]:
    """The axes of one sample that it reduces, in order."""
    axes = sorted(axis_of(a, shape, "Reduce") for a in tuple(record.axes))  # type: ignore[arg-type]
    if len(set(axes)) < len(axes):
        raise ShapeError(f"axes are {record.axes}, which names one of the {len(shape) + 1} axes of its input twice")
    return tuple(axes)


def reduce_shape(record: L.Reduce, shape: Shape) -> Shape:
    axes = reduced_axes(record, shape)
    if record.kind == "max" and math.prod(shape[a] for a in axes) > MAX_WINDOW:
        raise ShapeError(
            f"it picks the largest of {math.prod(shape[a] for a in axes)} elements, at most {MAX_WINDOW} are supported"
        )
    if len(axes) == len(shape) and not record.keepdims:
        raise ShapeError("it would leave no axis but the batch; use keepdims=True and a Reshape")
    return tuple(1 if a in axes else s for a, s in enumerate(shape) if a not in axes or record.keepdims)


RECORDS: dict[type[L.Layer], Recipe] = {
    L.Reduce: Recipe(reduce_shape, reduce, lambda record: record.kind != "max"),
}
