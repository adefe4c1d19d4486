"""One shape rule per record.  Shapes are those of one sample, without the batch axis; axes in records count it."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

from .. import layers as L
from ..errors import LayerError, ShapeError

Shape = tuple[int, ...]

MAX_AXES = 5  # of one sample
MAX_ELEMENTS = 2**33  # of one tensor of one sample
MAX_COPIES = 2**16  # of one element
MAX_TABLE = 2**23  # entries of the table of a layer's taps
MAX_WINDOW = 65535  # taps of a max-pool: winners are stored in at most two bytes


def spatial(value: Any, n: int, key: str) -> tuple[int, ...]:
    """An integer or a tuple, as one integer per spatial axis."""
    values: tuple[int, ...] = value if isinstance(value, tuple) else (value,) * n
    if len(values) != n:
        raise ShapeError(f"{key} is {value!r}, but its input has {n} spatial axes")
    return values


def pairs(value: Any, n: int, key: str) -> tuple[tuple[int, int], ...]:
    """Padding as one (before, after) pair per spatial axis."""
    values: tuple[tuple[int, int], ...] = value if isinstance(value, tuple) else ((value, value),) * n
    if len(values) != n:
        raise ShapeError(f"{key} is {value!r}, but its input has {n} spatial axes")
    return values


def _spatial_rank(shape: Shape, what: str) -> int:
    if not 2 <= len(shape) <= 4:
        raise ShapeError(
            f"{what} needs an input (n, channels, *space) with 1 to 3 spatial axes; its input is (n, {_join(shape)})"
        )
    return len(shape) - 1


def _join(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def axis_of(axis: int, shape: Shape, what: str) -> int:
    """A record's axis as an index into one sample's shape."""
    full = len(shape) + 1
    index = axis + full if axis < 0 else axis
    if index == 0:
        raise ShapeError(f"{what}: axis 0 is the batch; choose another")
    if not 0 < index < full:
        raise ShapeError(f"{what}: axis is {axis}, but its input has {full} axes (batch included)")
    return index - 1


@singledispatch
def output_shape(record: L.Layer, *shapes: Shape) -> Shape:
    """Shape of one sample after the record; raises ShapeError where it does not fit."""
    raise LayerError(f"{type(record).__name__} is not a record of dtdfast")


@output_shape.register(L.ReLU)
@output_shape.register(L.Dropout)
@output_shape.register(L.LRN)
def _same(record: L.Layer, shape: Shape) -> Shape:
    return shape


@output_shape.register
def _activation(record: L.Activation, shape: Shape) -> Shape:
    slopes = () if record.slopes is None else record.slopes.shape
    if slopes not in ((), shape[:1], shape):
        raise ShapeError(
            f"slopes has shape {slopes}; its input is (n, {_join(shape)}): give one slope per channel, or one per "
            "element"
        )
    return shape


@output_shape.register
def _softmax(record: L.Softmax, shape: Shape) -> Shape:
    axis_of(record.axis, shape, "Softmax")
    return shape


@output_shape.register
def _linear(record: L.Linear, shape: Shape) -> Shape:
    n_out, n_in = record.weight.shape
    axis = axis_of(record.axis, shape, "Linear")
    if shape[axis] != n_in and len(shape) > 1:
        raise ShapeError(
            f"weight has shape {(n_out, n_in)}, so it expects {n_in} features along axis {axis + 1}; its input is (n, "
            f"{_join(shape)}): "
            "choose another axis, or put a Flatten before it"
        )
    if shape[axis] != n_in:
        raise ShapeError(f"weight has shape {(n_out, n_in)}, so it expects {n_in} features; its input has {shape[0]}")
    return (*shape[:axis], n_out, *shape[axis + 1 :])


def _conv_channels(record: L.Conv | L.ConvTranspose, shape: Shape, c_in: int) -> int:
    weight: Shape = record.weight.shape
    n = len(weight) - 2
    if len(shape) != n + 1:
        raise ShapeError(f"weight has shape {weight}, so it expects {n} spatial axes; its input is (n, {_join(shape)})")
    if shape[0] != c_in:
        groups = f" in {record.groups} groups" if record.groups > 1 else ""
        raise ShapeError(f"weight has shape {weight}, so it expects {c_in} channels{groups}; its input has {shape[0]}")
    return n


@output_shape.register
def _conv(record: L.Conv, shape: Shape) -> Shape:
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


@output_shape.register
def _conv_transpose(record: L.ConvTranspose, shape: Shape) -> Shape:
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


@output_shape.register
def _embedding(record: L.Embedding, shape: Shape) -> Shape:
    return (*shape, record.weight.shape[1])


@output_shape.register(L.MaxPool)
@output_shape.register(L.AvgPool)
@output_shape.register(L.SumPool)
def _pool(record: L.MaxPool | L.AvgPool | L.SumPool, shape: Shape) -> Shape:
    n = _spatial_rank(shape, type(record).__name__)
    kernel, stride = spatial(record.kernel, n, "kernel"), spatial(record.stride, n, "stride")
    dilation = spatial(getattr(record, "dilation", 1), n, "dilation")
    if isinstance(record, L.MaxPool) and math.prod(kernel) > MAX_WINDOW:
        raise ShapeError(f"its window has {math.prod(kernel)} elements, at most {MAX_WINDOW} are supported")
    size = []
    for a, (before, after) in enumerate(pairs(record.padding, n, "padding")):
        reach = dilation[a] * (kernel[a] - 1) + 1
        if before >= reach or after >= reach:
            raise ShapeError(
                f"padding ({before}, {after}) along spatial axis {a} must be smaller than the window ({reach})"
            )
        span = shape[1 + a] + before + after - reach
        if span < 0:
            raise ShapeError(
                f"its window spans {reach} along spatial axis {a}; its padded input has {shape[1 + a] + before + after}"
            )
        length = span // stride[a] + 1
        if record.ceil_mode and span % stride[a] and length * stride[a] < shape[1 + a] + before:
            length += 1  # windows that start beyond the input plus left padding are dropped
        size.append(length)
    return (shape[0], *size)


@output_shape.register
def _global_pool(record: L.GlobalAvgPool, shape: Shape) -> Shape:
    return (shape[0],) + (1,) * _spatial_rank(shape, "GlobalAvgPool")


@output_shape.register(L.BatchNorm)
@output_shape.register(L.Preparation)
def _batch_norm(record: L.BatchNorm | L.Preparation, shape: Shape) -> Shape:
    _per_channel((record.mean if isinstance(record, L.BatchNorm) else record.scale).shape[0], shape)
    return shape


def _per_channel(channels: int, shape: Shape) -> None:
    if shape[0] != channels:
        raise ShapeError(f"it has {channels} channels; its input has {shape[0]} (axis 1 of (n, {_join(shape)}))")


@output_shape.register
def _scale(record: L.Scale, shape: Shape) -> Shape:
    for key, array in (("scale", record.scale), ("shift", record.shift)):
        if array is None:
            continue
        if array.ndim == 1 and array.shape != (1,) * len(shape):
            _per_channel(array.shape[0], shape)
        elif array.ndim != len(shape) or any(s not in (1, size) for s, size in zip(array.shape, shape, strict=True)):
            raise ShapeError(
                f"{key} has shape {array.shape}, which does not broadcast against a sample of its input (n, "
                f"{_join(shape)}); "
                f"expected ({shape[0]},), or {len(shape)} axes with sizes of 1 or the sample's"
            )
    return shape


@output_shape.register
def _constant(record: L.Constant) -> Shape:
    return record.value.shape


def aligned(record: L.Layer, shapes: list[Shape], constant: list[bool]) -> list[Shape]:
    """Shapes of the operands, those of constants of an Add or Mul with as many axes as the others' (in front, of size
    1).
    """
    if not isinstance(record, (L.Add, L.Mul)):
        return shapes
    rank = max(len(s) for s in shapes)
    return [(1,) * (rank - len(s)) + s if c else s for s, c in zip(shapes, constant, strict=True)]


@output_shape.register(L.Add)
@output_shape.register(L.Mul)
def _broadcast(record: L.Layer, *shapes: Shape) -> Shape:
    result = shapes[0]
    for other in shapes[1:]:
        if len(other) != len(result) or any(a != b and 1 not in (a, b) for a, b in zip(result, other, strict=True)):
            raise ShapeError(
                f"its operands are (n, {_join(result)}) and (n, {_join(other)}); expected as many axes, "
                "and where their sizes differ, one of size 1"
            )
        result = tuple(b if a == 1 else a for a, b in zip(result, other, strict=True))
    return result


@output_shape.register
def _concat(record: L.Concat, *shapes: Shape) -> Shape:
    axis = axis_of(record.axis, shapes[0], "Concat")
    for other in shapes[1:]:
        if len(other) != len(shapes[0]) or any(
            p != q for i, (p, q) in enumerate(zip(shapes[0], other, strict=True)) if i != axis
        ):
            raise ShapeError(
                f"its operands are (n, {_join(shapes[0])}) and (n, {_join(other)}); they may differ along axis "
                f"{axis + 1} only"
            )
    return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


@output_shape.register
def _flatten(record: L.Flatten, shape: Shape) -> Shape:
    return (math.prod(shape),)


@output_shape.register
def _reshape(record: L.Reshape, shape: Shape) -> Shape:
    total, new = math.prod(shape), tuple(record.shape)
    known = math.prod(s for s in new if s != -1)
    if -1 in new and total % known == 0:
        new = tuple(total // known if s == -1 else s for s in new)
    if math.prod(new) != total or -1 in new:
        raise ShapeError(
            f"shape (n, {_join(tuple(record.shape))}) does not fit its input (n, {_join(shape)}) of {total} elements"
        )
    return new


@output_shape.register
def _permute(record: L.Permute, shape: Shape) -> Shape:
    if len(record.order) != len(shape) + 1:
        raise ShapeError(
            f"order {tuple(record.order)} has {len(record.order)} axes; its input has {len(shape) + 1} (batch included)"
        )
    return tuple(shape[a - 1] for a in record.order[1:])


@output_shape.register
def _slice(record: L.Slice, shape: Shape) -> Shape:
    axis = axis_of(record.axis, shape, "Slice")
    count = len(range(*slice(record.start, record.stop, record.step).indices(shape[axis])))
    if count == 0:
        raise ShapeError(
            f"Slice {record.start}:{record.stop}:{record.step} along axis {axis + 1} of size {shape[axis]} is empty"
        )
    return (*shape[:axis], count, *shape[axis + 1 :])


@output_shape.register
def _pad(record: L.Pad, shape: Shape) -> Shape:
    n = _spatial_rank(shape, "Pad")
    return (shape[0], *(s + b + a for s, (b, a) in zip(shape[1:], pairs(record.padding, n, "padding"), strict=True)))


@output_shape.register
def _upsample(record: L.Upsample, shape: Shape) -> Shape:
    n = _spatial_rank(shape, "Upsample")
    copies = math.prod(spatial(record.factor, n, "factor"))
    if copies > MAX_COPIES and copies * math.prod(shape) <= MAX_ELEMENTS:  # what is larger is refused for that
        raise ShapeError(f"it makes {copies:,} of every element, at most {MAX_COPIES:,} are supported")
    return (shape[0], *(s * f for s, f in zip(shape[1:], spatial(record.factor, n, "factor"), strict=True)))


def reduced_axes(record: L.Reduce, shape: Shape) -> tuple[int, ...]:
    """The axes of one sample that it reduces, in order."""
    axes = sorted(axis_of(a, shape, "Reduce") for a in tuple(record.axes))  # type: ignore[arg-type]
    if len(set(axes)) < len(axes):
        raise ShapeError(f"axes are {record.axes}, which names one of the {len(shape) + 1} axes of its input twice")
    return tuple(axes)


@output_shape.register
def _reduce(record: L.Reduce, shape: Shape) -> Shape:
    axes = reduced_axes(record, shape)
    if record.kind == "max" and math.prod(shape[a] for a in axes) > MAX_WINDOW:
        raise ShapeError(
            f"it picks the largest of {math.prod(shape[a] for a in axes)} elements, at most {MAX_WINDOW} are supported"
        )
    if len(axes) == len(shape) and not record.keepdims:
        raise ShapeError("it would leave no axis but the batch; use keepdims=True and a Reshape")
    return tuple(1 if a in axes else s for a, s in enumerate(shape) if a not in axes or record.keepdims)


@output_shape.register
def _gather(record: L.Gather, shape: Shape) -> Shape:
    axis = axis_of(record.axis, shape, "Gather")
    size = shape[axis]
    wrong = [i for i in record.indices if not -size <= i < size]
    if wrong:
        raise ShapeError(
            f"indices name {wrong[0]}, but axis {axis + 1} of its input (n, {_join(shape)}) has size {size}"
        )
    return (*shape[:axis], len(record.indices), *shape[axis + 1 :])


@output_shape.register
def _expand(record: L.Expand, shape: Shape) -> Shape:
    new = tuple(record.shape)
    if len(new) != len(shape) or any(s not in (1, big) for s, big in zip(shape, new, strict=True)):
        raise ShapeError(
            f"shape is (n, {_join(new)}), but its input is (n, {_join(shape)}); only sizes of 1 can be repeated"
        )
    return new


@output_shape.register
def _resample(record: L.Resample, shape: Shape) -> Shape:
    n = _spatial_rank(shape, "Resample")
    if len(record.weights) != n:
        raise ShapeError(
            f"weights has {len(record.weights)} entries, but its input (n, {_join(shape)}) has {n} spatial axes"
        )
    size = list(shape)
    for a, weight in enumerate(record.weights, 1):
        if weight is None:
            continue
        if weight.shape[1] != shape[a]:
            raise ShapeError(
                f"weights[{a - 1}] has shape {weight.shape}, expected ({weight.shape[0]}, {shape[a]}) for (n, "
                f"{_join(shape)})"
            )
        size[a] = weight.shape[0]
    return tuple(size)
