"""Layers with weights as neurons: Linear, Conv, ConvTranspose."""

from __future__ import annotations

from ... import layers as L
from ...errors import ShapeError
from ..builder import Builder
from ..entries import Entry
from ..geometry import conv_part, linear_part
from ..shapes import Shape, axis_of, join, pairs, spatial
from ..tensors import Tensor
from .axes import ordered, reshaped, turn_back, turned, turned_shape
from .base import Recipe, always
from .neuron import Neuron


def weighted(builder: Builder, entry: Entry, source: Tensor, out: Tensor) -> Neuron:
    """A layer with weights, and what is folded into it."""
    make = linear_part if isinstance(entry.record, L.Linear) else conv_part
    part, bias = make(entry.record, source, entry, builder.folding)
    folded = builder.folding.took.get(entry.position, ())
    builder.rule[entry.position] = builder.rule_for(entry, builder.book.weighted(entry.record))
    entries = tuple(sorted((entry.position, *folded))) if folded else (entry.position,)
    return Neuron(entries, (source,), out, parts=[part], bias=bias)


def linear(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """Along one axis of several it is a 1×1 convolution over the others."""
    (source,) = sources
    assert isinstance(entry.record, L.Linear)
    if len(source.shape) == 1:
        return builder.put(weighted(builder, entry, source, builder.tensor(entry)))
    axis = axis_of(entry.record.axis, source.shape, "Linear")
    read = turned(builder, entry, source, (axis,))
    return turn_back(builder, entry, weighted(builder, entry, read, turned_shape(builder, entry, (axis,))), (axis,))


def conv(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    if isinstance(entry.record, L.Conv) and reads_patches(builder, entry.record, entry, sources[0]):
        return patches(builder, entry, sources[0])
    return builder.put(weighted(builder, entry, sources[0], builder.tensor(entry)))


PATCH = 16
"""Taps from which on windows that lie side by side are seen as channels: going back, each tap would be a step."""


def reads_patches(builder: Builder, record: L.Conv, entry: Entry, source: Tensor) -> bool:
    """Whether its windows are plane patches that share nothing and leave nothing out, as in a ViT's first layer."""
    _, _, *kernel = record.weight.shape
    folding = builder.folding
    plain = not any(map(any, pairs(record.padding, len(kernel), "padding"))) and entry.position not in folding.padding
    apart = tuple(kernel) == spatial(record.stride, len(kernel), "stride")
    divides = all(size % k == 0 for size, k in zip(source.shape[1:], kernel, strict=True))
    alone = record.groups == 1 and set(spatial(record.dilation, len(kernel), "dilation")) == {1}
    whole = len(kernel) == 2 and kernel[0] * kernel[1] >= PATCH and not folding.before.get(entry.position)
    return plain and apart and divides and alone and whole


def patches(builder: Builder, entry: Entry, source: Tensor) -> Tensor:
    """(c, h·a, w·b) as (c·a·b, h, w), and one tap."""
    record = entry.record
    assert isinstance(record, L.Conv)
    c_out, c_in, a, b = record.weight.shape
    h, w = entry.shape[1:]
    read = reshaped(builder, entry, source, (c_in, h, a, w, b))
    read = reshaped(builder, entry, ordered(builder, entry, read, (0, 2, 4, 1, 3)), (c_in * a * b, h, w))
    weight = record.weight.reshape(c_out, c_in * a * b, 1, 1)
    seen = Entry(entry.position, L.Conv(weight, record.bias, name=record.name), entry.sources, entry.shape)
    return builder.put(weighted(builder, seen, read, builder.tensor(entry)))


def linear_shape(record: L.Linear, shape: Shape) -> Shape:
    n_out, n_in = record.weight.shape
    axis = axis_of(record.axis, shape, "Linear")
    if shape[axis] != n_in and len(shape) > 1:
        raise ShapeError(
            f"weight has shape {(n_out, n_in)}, so it expects {n_in} features along axis {axis + 1}; its input is (n, "
            f"{join(shape)}): "
            "choose another axis, or put a Flatten before it"
        )
    if shape[axis] != n_in:
        rows = ": its rows are outputs, so pass weight.T" if shape[axis] == n_out else ""
        raise ShapeError(
            f"weight has shape {(n_out, n_in)}, so it expects {n_in} features; its input has {shape[0]}{rows}"
        )
    return (*shape[:axis], n_out, *shape[axis + 1 :])


def _conv_channels(record: L.Conv | L.ConvTranspose, shape: Shape, c_in: int) -> int:
    weight: Shape = record.weight.shape
    n = len(weight) - 2
    if len(shape) != n + 1:
        raise ShapeError(f"weight has shape {weight}, so it expects {n} spatial axes; its input is (n, {join(shape)})")
    if shape[0] != c_in:
        groups = f" in {record.groups} groups" if record.groups > 1 else ""
        raise ShapeError(f"weight has shape {weight}, so it expects {c_in} channels{groups}; its input has {shape[0]}")
    return n


def conv_shape(record: L.Conv, shape: Shape) -> Shape:
    weight: Shape = record.weight.shape
    n = _conv_channels(record, shape, weight[1] * record.groups)
    stride, dilation, padding = (
        spatial(record.stride, n, "stride"),
        spatial(record.dilation, n, "dilation"),
        pairs(record.padding, n, "padding"),
    )
    size = []
    for a in range(n):
        before, after = padding[a]
        reach = dilation[a] * (weight[2 + a] - 1) + 1
        span = shape[1 + a] + before + after - reach
        if span < 0:
            raise ShapeError(
                f"its kernel spans {reach} along spatial axis {a}; its padded input has {shape[1 + a] + before + after}"
            )
        size.append(span // stride[a] + 1)
    return (weight[0], *size)


def conv_transpose_shape(record: L.ConvTranspose, shape: Shape) -> Shape:
    weight: Shape = record.weight.shape
    n = _conv_channels(record, shape, weight[0])
    strides, dilations, extras = (
        spatial(getattr(record, key), n, key) for key in ("stride", "dilation", "output_padding")
    )
    size = []
    for a in range(n):
        before, after = pairs(record.padding, n, "padding")[a]
        stride, dilation, extra = strides[a], dilations[a], extras[a]
        if extra >= max(stride, dilation):
            raise ShapeError(f"output_padding is {extra}, expected less than stride {stride} or dilation {dilation}")
        length = (shape[1 + a] - 1) * stride + dilation * (weight[2 + a] - 1) + 1 + extra - before - after
        if length < 1:
            raise ShapeError(f"its output would have {length} elements along spatial axis {a}; reduce the padding")
        size.append(length)
    return (weight[1] * record.groups, *size)


RECORDS: dict[type[L.Layer], Recipe] = {
    L.Linear: Recipe(linear_shape, linear, always),
    L.Conv: Recipe(conv_shape, conv, always),
    L.ConvTranspose: Recipe(conv_transpose_shape, conv, always),
}
