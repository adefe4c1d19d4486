"""Norms by statistics of the sample: LayerNorm, RMSNorm, GroupNorm, InstanceNorm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import layers as L
from ...errors import ShapeError
from ..builder import Axes, Builder
from ..entries import Entry
from ..held import Normed
from ..lowering import Lowering
from ..shapes import Shape, axis_of, check_channels, join
from ..steps import Buffer, Step, View
from ..taps import identity
from ..tensors import Floats, Tensor
from .axes import ordered, own, reshaped, turn_back, turned, turned_shape
from .base import Recipe, always
from .held import HeldNeuron


class Norm(HeldNeuron):
    """y = (x − mean)·ρ·weight + bias along the first axis; what the gradient sees and relevance does not: ρ is of x."""

    @property
    def normed(self) -> Normed:
        part = self.part
        assert isinstance(part, Normed)
        return part

    def place(self, lowering: Lowering) -> Buffer:
        return lowering.new_value(self)

    def value(self, lowering: Lowering, out: Buffer) -> None:
        part = self.normed
        x = lowering.spatial(part.source)
        bias = None if self.bias is None else lowering.constant(self.bias.reshape(self.column))
        step = Step("NORM", self, View(out), View(x), norm_bias=bias, **part.constants(lowering))
        step.epsilon = part.epsilon
        if lowering.relevant and self.in_relevance:
            scale = lowering.buffer(f"v{lowering.label(self.out)}", (1, *self.out.shape[1:]))
            lowering.held[id(part)] = scale
            step.factor = View(scale)
        lowering.emit(step)

    def derivative(self, lowering: Lowering, r: Buffer) -> None:
        part = self.normed
        out, accumulate = lowering.sink(part.source)
        m = View(lowering.value(part.source))
        step = Step("NORM_SCATTER", self, View(out), View(r), m=m, derivative=True, **part.constants(lowering))
        step.accumulate, step.repeat, step.epsilon = accumulate, lowering.t, part.epsilon
        lowering.emit(step)


def column(values: Floats, shape: Shape) -> Floats:
    """Numbers per channel, or already of a sample's axes, as an array of as many axes as a sample."""
    return values.reshape(-1, *(1,) * (len(shape) - 1)) if values.ndim == 1 else values


# ------------------------------------------------------------------------------------------------------------- records


def normed(
    builder: Builder, entry: Entry, source: Tensor, out: Tensor, arrays: tuple[Any, Any], *, centred: bool
) -> Norm:
    """The unit along the first axis of a tensor; weight and bias broadcast against its samples."""
    record: Any = entry.record
    weight, bias = (None if a is None else np.asarray(a, np.float64) for a in arrays)
    part = Normed(entry.position, source, identity(source.channels, source.space), centred=centred)
    part.epsilon, part.weights = record.eps, None if weight is None else column(weight, source.shape)
    part.nonnegative = not centred and (weight is None or bool(weight.min() >= 0))
    vectors = isinstance(record, (L.LayerNorm, L.RMSNorm))
    builder.rule[entry.position] = builder.rule_for(entry, builder.book.norm(vectors))
    return Norm((entry.position,), (source,), out, parts=[part], bias=bias)


def along(builder: Builder, entry: Entry, source: Tensor, axes: Axes, arrays: tuple[Any, Any], centred: bool) -> Tensor:
    """Over axes of a sample, with numbers per element of them."""
    flat = tuple(None if a is None else np.asarray(a).reshape(-1) for a in arrays)
    read = turned(builder, entry, source, axes)
    unit = normed(builder, entry, read, turned_shape(builder, entry, axes), (flat[0], flat[1]), centred=centred)
    return own(builder, entry, (source,), turn_back(builder, entry, unit, axes))


def layer_norm(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    record = entry.record
    assert isinstance(record, (L.LayerNorm, L.RMSNorm))
    axes = norm_axes(record, entry.shape)
    bias = record.bias if isinstance(record, L.LayerNorm) else None
    return along(builder, entry, sources[0], axes, (record.weight, bias), isinstance(record, L.LayerNorm))


def group_norm(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """(C, *S) as (C/groups·ΠS, groups), and back."""
    record, (source,) = entry.record, sources
    assert isinstance(record, (L.GroupNorm, L.InstanceNorm))
    groups = record.groups if isinstance(record, L.GroupNorm) else source.channels
    space = math.prod(source.shape[1:])
    size = math.prod(source.shape) // groups

    def spread(values: Any) -> Any:
        if values is None:
            return None
        each = np.broadcast_to(np.asarray(values, np.float64).reshape(groups, -1, 1), (groups, size // space, space))
        return np.ascontiguousarray(each.reshape(groups, size).T)

    grouped = reshaped(builder, entry, source, (groups, size))
    read = ordered(builder, entry, grouped, (1, 0))
    out = builder.inner(entry, (size, groups))
    made = builder.put(normed(builder, entry, read, out, (spread(record.weight), spread(record.bias)), centred=True))
    return reshaped(builder, entry, ordered(builder, entry, made, (1, 0)), entry.shape)


def norm_axes(record: L.LayerNorm | L.RMSNorm, shape: Shape) -> Axes:
    """The axes of one sample that it works along, in order."""
    axes = tuple(sorted(axis_of(a, shape, type(record).__name__) for a in tuple(record.axes)))  # type: ignore[arg-type]
    if len(set(axes)) < len(axes):
        raise ShapeError(f"axes are {record.axes}, which names one of the {len(shape) + 1} axes of its input twice")
    return axes


def layer_norm_shape(record: L.LayerNorm | L.RMSNorm, shape: Shape) -> Shape:
    sizes = tuple(shape[a] for a in norm_axes(record, shape))
    for key in ("weight", "bias"):
        array = getattr(record, key, None)
        if array is not None and array.shape != sizes:
            raise ShapeError(
                f"{key} has shape {array.shape}, but its axes {record.axes} have the sizes {sizes} in its input (n, "
                f"{join(shape)})"
            )
    return shape


def group_norm_shape(record: L.GroupNorm | L.InstanceNorm, shape: Shape) -> Shape:
    if record.weight is not None or record.bias is not None:
        given = record.weight if record.weight is not None else record.bias
        assert given is not None
        check_channels(len(given), shape)
    if isinstance(record, L.GroupNorm) and shape[0] % record.groups:
        raise ShapeError(f"its input's {shape[0]} channels do not divide into {record.groups} groups")
    if isinstance(record, L.InstanceNorm) and len(shape) < 2:
        raise ShapeError(f"it needs axes behind the channels; its input is (n, {join(shape)})")
    return shape


RECORDS: dict[type[L.Layer], Recipe] = {
    L.LayerNorm: Recipe(layer_norm_shape, layer_norm, always),
    L.RMSNorm: Recipe(layer_norm_shape, layer_norm, always),
    L.GroupNorm: Recipe(group_norm_shape, group_norm, always),
    L.InstanceNorm: Recipe(group_norm_shape, group_norm, always),
}
