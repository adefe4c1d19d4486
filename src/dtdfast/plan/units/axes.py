"""Axes moved to the front, merged, and moved back, so that what works along any axes works along the first.

Contracted axes A and the others K of a sample become (ΠA, *K), or (ΠA, ΠK) where K are more than the three spatial axes
of a kernel.
"""

from __future__ import annotations

import math

from ..builder import Axes, Builder, Turn
from ..entries import Entry
from ..parts import Sum
from ..shapes import Shape
from ..tensors import Region, Tensor, whole
from .constant import Fixed
from .move import Move
from .reshape import Reshaping


def reshaped(builder: Builder, entry: Entry, source: Tensor, shape: Shape) -> Tensor:
    if source.shape == shape:
        return source
    return builder.put(Reshaping((entry.position,), (source,), builder.inner(entry, shape)))


def moved(builder: Builder, entry: Entry, source: Tensor, region: Region, *, unlisted: bool = False) -> Tensor:
    """One region of a tensor."""
    shape = tuple(count for _, _, count in region.ranges)
    if region.order is not None:
        shape = tuple(shape[a] for a in region.order)
    out = builder.inner(entry, shape)
    return builder.put(Move((entry.position,), (source,), out, pairs=[(whole(shape), 0, region)], unlisted=unlisted))


def one_place(builder: Builder, entry: Entry, source: Tensor, axis: int, place: int) -> Tensor:
    """One place of an axis, which keeps the size 1; of a constant, a constant."""
    maker = builder.maker.get(source.index)
    if isinstance(maker, Fixed):
        value = maker.value.take([place], axis)
        return builder.put(Fixed((entry.position,), (), builder.inner(entry, value.shape), value=value))
    ranges = tuple((place, 1, 1) if a == axis else (0, 1, size) for a, size in enumerate(source.shape))
    return moved(builder, entry, source, Region(ranges), unlisted=True)


def ordered(builder: Builder, entry: Entry, source: Tensor, order: Axes) -> Tensor:
    if order == tuple(range(len(order))):
        return source
    return moved(builder, entry, source, Region(whole(source.shape).ranges, order))


def in_front(axes: Axes, n: int) -> Axes:
    return (*axes, *(a for a in range(n) if a not in axes))


def turned(builder: Builder, entry: Entry, source: Tensor, axes: Axes) -> Tensor:
    """The tensor as (ΠA, *K), or (ΠA, ΠK)."""
    kept = tuple(s for a, s in enumerate(source.shape) if a not in axes)
    flat = math.prod(source.shape[a] for a in axes)
    source = ordered(builder, entry, source, in_front(axes, len(source.shape)))
    return reshaped(builder, entry, source, (flat, *kept) if len(kept) <= 3 else (flat, math.prod(kept)))


def turned_back(builder: Builder, entry: Entry, tensor: Tensor, axes: Axes, shape: Shape) -> Tensor:
    """(ΠA, ...) as a sample of this shape again."""
    order = in_front(axes, len(shape))
    tensor = reshaped(builder, entry, tensor, tuple(shape[a] for a in order))
    return ordered(builder, entry, tensor, tuple(order.index(a) for a in range(len(shape))))


def turned_shape(builder: Builder, entry: Entry, axes: Axes) -> Tensor:
    """A tensor inside, of the entry's shape but turned."""
    kept = tuple(s for a, s in enumerate(entry.shape) if a not in axes)
    return builder.inner(
        entry, (math.prod(entry.shape[a] for a in axes), *(kept if len(kept) <= 3 else (math.prod(kept),)))
    )


def turn_back(builder: Builder, entry: Entry, neuron: Sum, axes: Axes) -> Tensor:
    tensor = builder.put(neuron)
    n = len(builder.units)
    out = turned_back(builder, entry, tensor, axes, entry.shape)
    if out is not tensor:
        builder.turned[out.index] = Turn(axes, neuron, builder.units[n:])
    return out


def common_turn(builder: Builder, sources: tuple[Tensor, ...], merged: list[Sum]) -> tuple[Axes | None, list[Sum]]:
    """The axes that an Add turns to the front (None: as they are), and which of its operands lie so that they become
    one neuron with it.
    """
    if not merged:
        return ((0,) if len(sources[0].shape) > 4 else None), merged
    if not builder.turned:
        return None, merged
    turns = {id(t.neuron): t.axes for s in sources if (t := builder.turned.get(s.index)) is not None}
    first = turns.get(id(merged[0]))
    return first, [u for u in merged if turns.get(id(u)) == first]


def own(builder: Builder, entry: Entry, sources: tuple[Tensor, ...], tensor: Tensor) -> Tensor:
    """What was made of an entry; where that is nothing, a tensor of its own, whose readers are not those of its
    source.
    """
    if tensor not in sources:
        return tensor
    return builder.put(Reshaping((entry.position,), sources, builder.inner(entry, entry.shape)))
