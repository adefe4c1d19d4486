"""Readers of the ONNX operators that only move or repeat elements: one function per operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import eq

import numpy as np

from ... import layers as L
from ...budget import require
from ..algebra import scaled
from ..functions import Function
from ..moves import moved
from ..records import Refused, Value
from .arithmetic import shape_text
from .graph import Array, Grown, Node, Operand, Reader, Turned, counted, rank, scalar, weights
from .tensors import TOKENS

MOST = 1 << 20
"""Elements that are picked one by one along an axis."""

# ----------------------------------------------------------------------------------------------------- the identity


def identity(node: Node) -> Operand:
    operand = node.operand(0)
    if operand is None:
        raise Refused("its input is missing")
    return operand


def dropout(node: Node) -> Value:
    if any(node.outputs[1:]):
        raise Refused("its mask is read; export the model for inference")
    training = node.optional(2, "training_mode")
    if (training is not None and bool(training.any())) or (node.opset < 7 and not node.integer("is_test", 0)):
        raise Refused("it is in training mode; export the model for inference")
    return node.value()


def cast(node: Node) -> Operand:
    """Between float types: values are float32 throughout. Between integer types: only an embedding reads them."""
    operand, to = identity(node), node.integer("to", 0)
    return _cast(operand, to)


def cast_like(node: Node) -> Operand:
    like = node.operand(1)
    if like is None or isinstance(like, (Turned, Function, Grown)):
        raise Refused("its second input is missing, or has its batch axis moved")
    return _cast(identity(node), 1 if isinstance(like, Value) and not like.integer else _element_type(like))


def _element_type(like: Value | Array) -> int:
    """TensorProto.DataType of an operand."""
    if isinstance(like, Value):
        return TOKENS[1]
    return 1 if like.dtype.kind == "f" else 0


def _cast(operand: Operand, to: int) -> Operand:
    if isinstance(operand, Value) and to not in ((6, 7) if operand.integer else (1, 10, 11, 16)):
        raise Refused(f"it turns {'integers' if operand.integer else 'floats'} into TensorProto type {to}")
    return operand


# ----------------------------------------------------------------------------------------------------------- shapes


def reshaped(node: Node, x: Value, full: tuple[int, ...]) -> Value:
    """To a shape with the batch axis, which must stay first and whole; with the batch axis alone, samples keep one axis
    of size 1.
    """
    if not full or full[0] != node.layers.batch:
        raise Refused(f"it would mix or remove the batch axis: {('n', *x.shape)} to {full}")
    held, shape = x.shape or (1,), full[1:] or (1,)
    if held == shape:
        return Value(x.position, full[1:])
    x = Value(x.position, held)
    made = node.add(L.Flatten, x) if len(shape) == 1 else node.add(L.Reshape, x, shape=shape)
    return Value(made.position, full[1:])


def goal(node: Node, full: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which a Reshape, Flatten, Squeeze or Unsqueeze takes this one, the batch counted."""
    return GOALS[node.operator](node, full)


def _flat(node: Node, full: tuple[int, ...]) -> tuple[int, ...]:
    axis = node.integer("axis", 1)
    axis = axis if axis == len(full) else counted(axis, len(full))
    return math.prod(full[:axis]), math.prod(full[axis:])


def _as_said(node: Node, full: tuple[int, ...]) -> tuple[int, ...]:
    target = node.setting("shape", 1, 5)
    if target is None:
        raise Refused("its shape is missing")
    total, copies = math.prod(full), not node.integer("allowzero", 0)
    sizes = [full[i] if s == 0 and copies and i < len(full) else s for i, s in enumerate(target)]
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise Refused(f"its shape is {target}")
    known = math.prod(s for s in sizes if s != -1)
    if total % known or (-1 not in sizes and known != total):
        raise Refused(f"shape {target} does not fit its input {('n', *full[1:])}")
    return tuple(total // known if s == -1 else s for s in sizes)


def _squeezed(node: Node, full: tuple[int, ...]) -> tuple[int, ...]:
    axes = node.setting("axes", 1, 13)
    chosen = {counted(a, len(full)) for a in axes} if axes else {a for a, s in enumerate(full) if s == 1}
    if any(full[a] != 1 for a in chosen - {0}):
        raise Refused(f"axes {axes} of its input {('n', *full[1:])} are not all of size 1")
    return tuple(s for a, s in enumerate(full) if a not in chosen)


def _unsqueezed(node: Node, full: tuple[int, ...]) -> tuple[int, ...]:
    axes, sizes = node.setting("axes", 1, 13), list(full)
    if not axes:
        raise Refused("its axes are missing")
    made = len(full) + len(axes)
    places = {a % made for a in axes if -made <= a < made}
    if len(places) < len(axes):
        raise Refused(f"its axes are {axes}, but its result has {made} axes")
    for axis in sorted(places):
        sizes.insert(axis, 1)
    return tuple(sizes)


GOALS: dict[str, Callable[[Node, tuple[int, ...]], tuple[int, ...]]] = {
    "Reshape": _as_said,
    "Flatten": _flat,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
}


def expand(node: Node) -> Value:
    """Axes of size 1 are repeated; further axes may come before the batch only if nothing is repeated along them."""
    x, target = node.value(), node.setting("shape", 1, 8)
    if target is None:
        raise Refused("its shape is missing")
    full = node.full(x)
    padded = (1,) * (len(full) - len(target)) + target
    if (
        len(padded) != len(full)
        or any(1 not in (t, s) and t != s for t, s in zip(padded, full, strict=True))
        or padded[0] not in (1, full[0])
        or min(padded) < 1
    ):
        raise Refused(f"it repeats {('n', *x.shape)} to {target}; only axes of size 1 behind the batch can be repeated")
    shape = tuple(max(t, s) for t, s in zip(padded[1:], x.shape, strict=True))
    return x if shape == x.shape else node.add(L.Expand, x, shape=shape)


def tile(node: Node) -> Value:
    x, repeats = node.value(), node.setting("repeats", 1, 6)
    if repeats is None or len(repeats) != rank(x) or repeats[0] != 1 or min(repeats) < 1:
        raise Refused(f"it repeats {('n', *x.shape)} by {repeats}; only axes behind the batch can be repeated")
    if all(s == 1 or r == 1 for s, r in zip(x.shape, repeats[1:], strict=True)):
        shape = tuple(s * r for s, r in zip(x.shape, repeats[1:], strict=True))
        return x if shape == x.shape else node.add(L.Expand, x, shape=shape)
    if max(repeats) > MOST:
        raise Refused(f"it repeats {('n', *x.shape)} by {repeats}, at most {MOST} times are supported")
    for axis, times in enumerate(repeats):
        if times > 1:
            x = node.add(L.Concat, *(x,) * times, axis=axis)
    return x


def depth_to_space(node: Node) -> Value:
    """Channels to blocks of pixels; the block's place is the slowest part of a channel's number (DCR), or the fastest
    (CRD).
    """
    x, block, mode = node.value(), node.integer("blocksize", 0), node.text("mode", "DCR")
    channels, height, width = _plane(x)
    if block < 1 or channels % block**2 or mode not in ("DCR", "CRD"):
        raise Refused(f"blocksize {block}, mode {mode!r:.20} and {channels} channels do not fit")
    depth = channels // block**2
    parts, order = (
        ((block, block, depth), (0, 3, 4, 1, 5, 2)) if mode == "DCR" else ((depth, block, block), (0, 1, 4, 2, 5, 3))
    )
    return _folded(node, x, (*parts, height, width), order, (depth, height * block, width * block))


def space_to_depth(node: Node) -> Value:
    """The inverse of depth_to_space."""
    x, block, mode = node.value(), node.integer("blocksize", 0), node.text("mode", "DCR")
    channels, height, width = _plane(x)
    if block < 1 or height % block or width % block or mode not in ("DCR", "CRD"):
        raise Refused(f"blocksize {block}, mode {mode!r:.20} and an image of {height} x {width} do not fit")
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    sizes = (channels, height // block, block, width // block, block)
    return _folded(node, x, sizes, order, (channels * block**2, height // block, width // block))


def _plane(x: Value) -> tuple[int, int, int]:
    if len(x.shape) != 3:
        raise Refused(f"its input has shape {('n', *x.shape)}, expected (n, channels, height, width)")
    return x.shape[0], x.shape[1], x.shape[2]


def _folded(node: Node, x: Value, sizes: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]) -> Value:
    """Axes taken apart, moved and joined."""
    apart = node.add(L.Reshape, x, shape=sizes)
    return node.add(L.Reshape, node.add(L.Permute, apart, order=order), shape=shape)


def concat(node: Node) -> Value:
    """Constants beside values hold for every sample."""
    computed = {i: node.value(i) for i, a in enumerate(node.operands) if not isinstance(a, np.ndarray)}
    first = next(iter(computed.values()))
    axis = node.axis(node.integer("axis", 1), rank(first))
    values = tuple(
        computed[i] if i in computed else _beside(node, node.constant(i, "its operand"), first)
        for i in range(len(node.operands))
    )
    return values[0] if len(values) == 1 else node.add(L.Concat, *values, axis=axis)


def _beside(node: Node, constant: Array, x: Value) -> Value:
    if constant.ndim != rank(x):
        raise Refused(f"a constant of shape {constant.shape} lies beside {('n', *x.shape)}")
    if constant.shape[0] != node.layers.batch:
        raise Refused(
            f"a constant of shape {constant.shape} lies beside {('n', *x.shape)}, but is not repeated along the batch"
        )
    return node.add(L.Constant, value=weights(node.of_sample(constant, "its constant"), "its constant"))


# --------------------------------------------------------------------------------------------------- parts of a value


def slice_(node: Node) -> Value:
    x = node.value()
    starts, ends = node.setting("starts", 1, 10), node.setting("ends", 2, 10)
    if starts is None or ends is None:
        raise Refused("its starts or ends are missing")
    axes = node.setting("axes", 3, 10) or tuple(range(len(starts)))
    steps = node.setting("steps", 4, 10) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Refused(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} differ in length")
    if len({a % rank(x) for a in axes}) < len(axes):
        raise Refused(f"axes {axes} name one axis twice")
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        full = node.full(x)
        axis = counted(axis, len(full))
        if step == 0:
            raise Refused(f"its step along axis {axis} is 0")
        taken = range(*slice(start, stop, step).indices(full[axis]))
        x = picked(node, x, axis, taken)
    return x


def picked(node: Node, x: Value, axis: int, places: range | list[int]) -> Value:
    """Elements along an axis: all of them in their order (perhaps of the batch), a slice, or any others."""
    size = node.full(x)[axis] if 0 <= axis < rank(x) else 0
    even = _evenly(places)
    if even == range(size) and (axis or even is places):
        return x
    axis = node.axis(axis, rank(x))
    if not len(places):
        raise Refused(f"it takes nothing along axis {axis}, and an empty value has no record")
    if even is not None and (even.step > 0 or len(even) == 1):
        return node.add(L.Slice, x, axis=axis, start=even[0], stop=even[-1] + 1, step=max(even.step, 1))
    return node.add(L.Gather, x, indices=np.asarray(places, np.int64), axis=axis)


def _evenly(places: range | list[int]) -> range | None:
    """The same places as a range, where there is one; no list of what may be billions."""
    if isinstance(places, range):
        return places
    step = places[1] - places[0] if len(places) > 1 else 1
    if not places or not step:
        return None
    even = range(places[0], places[0] + step * len(places), step)
    return even if all(map(eq, even, places)) else None


def split(node: Node) -> tuple[Value | None, ...]:
    x = node.value()
    axis = node.axis(node.integer("axis", 0), rank(x))
    size, n = x.shape[axis - 1], node.integer("num_outputs", len(node.outputs))
    if n != len(node.outputs):
        raise Refused(f"attribute num_outputs is {n}, but it has {len(node.outputs)} outputs")
    chunk = -(-size // n)
    sizes = node.setting("split", 1, 13) or tuple(min(chunk, size - i * chunk) for i in range(n))
    if len(sizes) != n or min(sizes) < 1 or sum(sizes) != size:
        raise Refused(f"it splits {size} elements into {n} parts of sizes {sizes}")
    ends = [sum(sizes[: i + 1]) for i in range(n)]
    parts = zip(node.outputs, ends, sizes, strict=True)
    return tuple(node.add(L.Slice, x, axis=axis, start=end - s, stop=end) if read else None for read, end, s in parts)


def gather(node: Node) -> Value:
    """A table indexed by the network's integers is an Embedding; a value by constants, a Slice."""
    data, indices, axis = node.operand(0), node.operand(1), node.integer("axis", 0)
    if isinstance(indices, Value):
        table = weights(node.constant(0, "its table"), "its table")
        if not indices.integer:
            raise Refused("its indices are computed; only the network's integer input can index a table")
        if table.ndim != 2 or axis not in (0, -2):
            raise Refused(
                f"its table has shape {table.shape} and is indexed along axis {axis}; an embedding has rows along "
                "axis 0"
            )
        return node.layers.add(L.Embedding, (indices,), node.name, weight=table)
    x, chosen = node.value(), node.constant(1, "its indices")
    assert isinstance(data, Value)
    axis = node.axis(axis, rank(x))
    size = x.shape[axis - 1]
    if chosen.dtype.kind not in "iu" or chosen.size == 0 or chosen.min() < -size or chosen.max() >= size:
        raise Refused(f"its indices have shape {chosen.shape}; expected integers within axis {axis} of size {size}")
    if chosen.size > MOST:
        raise Refused(f"it picks {chosen.size} elements, at most {MOST} are supported")
    full = node.full(x)
    part = picked(node, x, axis, [int(i) % size for i in chosen.ravel()])
    return reshaped(node, part, (*full[:axis], *chosen.shape, *full[axis + 1 :]))


def gather_elements(node: Node) -> Value:
    """Elements along an axis by a constant that names one for every place of the result."""
    x, chosen = node.value(), node.constant(1, "its indices")
    axis = node.axis(node.integer("axis", 0), rank(x)) - 1
    if chosen.ndim != rank(x):
        raise Refused(f"its indices have {chosen.ndim} axes, its input has {rank(x)}")
    chosen = node.of_sample(chosen, "its indices")
    if chosen.dtype.kind not in "iu" or not chosen.size or chosen.size > MOST:
        raise Refused(f"its indices have shape {chosen.shape}; expected at most {MOST} integers, of ({shape_text(x)})")
    size, corner = x.shape[axis], [slice(s) for s in chosen.shape]
    if (
        chosen.min() < -size
        or chosen.max() >= size
        or any(c > s for a, (c, s) in enumerate(zip(chosen.shape, x.shape, strict=True)) if a != axis)
    ):
        raise Refused(f"its indices have shape {chosen.shape}; expected integers within axis {axis + 1} of size {size}")
    corner[axis] = slice(None)
    require(8 * math.prod(x.shape), f"GatherElements {node.name!r:.80}: the numbers of its elements")
    numbers = np.arange(math.prod(x.shape)).reshape(x.shape)[tuple(corner)]
    return moved(node.add, x, np.take_along_axis(numbers, chosen.astype(np.int64) % size, axis))


def compress(node: Node) -> Value:
    """The elements along an axis where a constant is true."""
    if "axis" not in node.attributes:
        raise Refused("without an axis it flattens the batch")
    x, condition = node.value(), node.constant(1, "its condition")
    axis = node.axis(node.integer("axis", 0), rank(x))
    chosen = [int(i) for i in np.flatnonzero(condition)]
    if chosen and chosen[-1] >= x.shape[axis - 1]:
        raise Refused(f"its condition names element {chosen[-1]} of axis {axis} of size {x.shape[axis - 1]}")
    return picked(node, x, axis, chosen)


def trilu(node: Node) -> Value:
    """The upper or lower triangle of the last two axes, zero elsewhere."""
    x, k, upper = node.value(), node.optional(1, "its diagonal"), node.integer("upper", 1)
    if len(x.shape) < 2:
        raise Refused(f"its input has shape {('n', *x.shape)}; the batch may not be an axis of the triangle")
    offset = 0 if k is None else int(scalar(k, "its diagonal"))
    ones = np.ones(x.shape[-2:], np.float32)
    mask = np.triu(ones, offset) if upper else np.tril(ones, offset)
    return scaled(node.add, x, mask)


def cumulative_sum(node: Node) -> Value:
    """A triangular matrix along an axis."""
    x = node.value()
    axis = node.axis(int(scalar(node.constant(1, "its axis"), "its axis")), rank(x))
    size, exclusive, reverse = x.shape[axis - 1], node.integer("exclusive", 0), node.integer("reverse", 0)
    require(4 * size * size, f"CumSum {node.name!r:.80}: its matrix of {size} x {size}")
    weight = np.tril(np.ones((size, size), np.float32), -1 if exclusive else 0)
    return node.add(L.Linear, x, weight=weight.T if reverse else weight, axis=axis)


OPERATORS: dict[str, Reader] = {
    "Identity": identity,
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast_like,
    "Expand": expand,
    "Tile": tile,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Concat": concat,
    "Slice": slice_,
    "Split": split,
    "Gather": gather,
    "GatherElements": gather_elements,
    "Compress": compress,
    "Trilu": trilu,
    "CumSum": cumulative_sum,
}
