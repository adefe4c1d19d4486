"""Readers of the ONNX operators that combine, scale, move or reshape: one function per operator."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import layers as L
from .onnx_graph import Array, Node, Operand, Reader, rank, scalar, space, weights
from .records import Refused, Value, along, constant_axis

# ------------------------------------------------------------------------------------------------------ arithmetic


def _scaled(node: Node, x: Value, constant: Array, make: Callable[[Array], tuple[Array | None, Array | None]]) -> Value:
    """A Scale along the axis of its constant; `make` turns the constant into (scale, shift)."""
    array = weights(constant, "its constant")
    axis = constant_axis([array.shape], x.shape)
    scale, shift = make(np.broadcast_to(array.ravel(), (x.shape[axis - 1],)))
    ones = np.ones(x.shape[axis - 1], array.dtype)
    return along(axis, node.add, x, lambda y: node.add(L.Scale, y, scale=ones if scale is None else scale, shift=shift))


def _split_operands(node: Node) -> tuple[Value, Array]:
    """(what is computed, the constant)."""
    index = 0 if isinstance(node.operand(0), Value) else 1
    return node.value(index), node.constant(1 - index, "its constant")


def _both_computed(node: Node) -> bool:
    return isinstance(node.operand(0), Value) and isinstance(node.operand(1), Value)


def add(node: Node) -> Value:
    """A constant after a linear layer of its own becomes that layer's bias (rewrites.py)."""
    if _both_computed(node):
        return node.add(L.Add, node.value(0), node.value(1))
    return _scaled(node, *_split_operands(node), lambda c: (None, c))


def subtract(node: Node) -> Value:
    if _both_computed(node):
        raise Refused("it subtracts one computed value from another, which has no record")
    left = not isinstance(node.operand(0), Value)
    return _scaled(node, *_split_operands(node), lambda c: (-np.ones_like(c), c) if left else (None, -c))


def multiply(node: Node) -> Value:
    if _both_computed(node):
        return node.add(L.Mul, node.value(0), node.value(1))
    return _scaled(node, *_split_operands(node), lambda c: (c, None))


def divide(node: Node) -> Value:
    if not isinstance(node.operand(0), Value) or isinstance(node.operand(1), Value):
        raise Refused("it divides by what is computed, which has no record; only division by a constant has")
    x, divisor = _split_operands(node)
    if not divisor.all():
        raise Refused("it divides by zero")
    return _scaled(node, x, divisor, lambda c: (1 / c, None))


def minimum(node: Node) -> Value:
    """min(x, c) of what a ReLU makes: a clip, as TensorFlow writes ReLU6."""
    x, constant = _split_operands(node)
    top = scalar(constant, "its constant")
    before = node.layers.records[x.position] if x.position != L.INPUT else None
    if len(node.operands) != 2 or not isinstance(before, L.ReLU) or top <= 0:
        raise Refused("a minimum has a record only where it bounds a ReLU from above by one number")
    return node.add(L.Activation, x, kind="clip", alpha=0.0, beta=top)


def maximum(node: Node) -> Value:
    x, constant = _split_operands(node)
    if len(node.operands) != 2 or scalar(constant, "its constant") != 0:
        raise Refused("a maximum has a record only with the number 0, as a ReLU")
    return node.add(L.ReLU, x)


def sum_(node: Node) -> Value:
    values = node.values()
    return values[0] if len(values) == 1 else node.add(L.Add, *values)


def concat(node: Node) -> Value:
    values = node.values()
    axis = node.axis(node.integer("axis", 1), rank(values[0]))
    return values[0] if len(values) == 1 else node.add(L.Concat, *values, axis=axis)


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
    if training is not None and bool(training.any()):
        raise Refused("it is in training mode; export the model for inference")
    return node.value()


def cast(node: Node) -> Operand:
    """Between float types: values are float32 throughout. Between integer types: only an embedding reads them."""
    operand, to = identity(node), node.integer("to", 0)
    if isinstance(operand, Value) and to not in ((6, 7) if operand.integer else (1, 10, 11, 16)):
        raise Refused(f"it turns {'integers' if operand.integer else 'floats'} into TensorProto type {to}")
    return operand


# ----------------------------------------------------------------------------------------------------------- shapes


def _reshaped(node: Node, x: Value, full: tuple[int, ...]) -> Value:
    """To a shape with the batch axis, which must stay first and whole."""
    if not full or full[0] != node.layers.batch:
        raise Refused(f"it would mix or remove the batch axis: {('n', *x.shape)} to {full}")
    if full[1:] == x.shape:
        return x
    if len(full) == 1:
        raise Refused("its output would have the batch axis alone")
    return node.add(L.Flatten, x) if len(full) == 2 else node.add(L.Reshape, x, shape=full[1:])


def flatten(node: Node) -> Value:
    x = node.value()
    axis = node.integer("axis", 1)
    axis = axis + rank(x) if axis < 0 else axis
    full = node.full(x)
    rows, columns = math.prod(full[:axis]), math.prod(full[axis:])
    return _reshaped(node, x, (rows, columns))


def reshape(node: Node) -> Value:
    x, target = node.value(), node.setting("shape", 1, 5)
    if target is None:
        raise Refused("its shape is missing")
    full, total = node.full(x), node.layers.batch * math.prod(x.shape)
    copies = not node.integer("allowzero", 0)
    sizes = [full[i] if s == 0 and copies and i < len(full) else s for i, s in enumerate(target)]
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise Refused(f"its shape is {target}")
    known = math.prod(s for s in sizes if s != -1)
    if total % known or (-1 not in sizes and known != total):
        raise Refused(f"shape {target} does not fit its input {('n', *x.shape)}")
    return _reshaped(node, x, tuple(total // known if s == -1 else s for s in sizes))


def squeeze(node: Node) -> Value:
    x, axes = node.value(), node.setting("axes", 1, 13)
    full = node.full(x)
    chosen = {a % len(full) for a in axes} if axes else {a for a, s in enumerate(full) if s == 1}
    if any(full[a] != 1 for a in chosen - {0}):
        raise Refused(f"axes {axes} of its input {('n', *x.shape)} are not all of size 1")
    return _reshaped(node, x, tuple(s for a, s in enumerate(full) if a not in chosen))


def unsqueeze(node: Node) -> Value:
    x, axes = node.value(), node.setting("axes", 1, 13)
    full = list(node.full(x))
    if not axes:
        raise Refused("its axes are missing")
    for axis in sorted(a % (len(full) + len(axes)) for a in axes):
        full.insert(axis, 1)
    if 0 in {a % len(full) for a in axes}:
        raise Refused("it puts an axis before the batch axis")
    return _reshaped(node, x, tuple(full))


def expand(node: Node) -> Value:
    x, target = node.value(), node.setting("shape", 1, 8)
    if target is None:
        raise Refused("its shape is missing")
    full = node.full(x)
    padded = (1,) * (len(full) - len(target)) + target
    if len(padded) != len(full) or any(t not in (1, s) for t, s in zip(padded, full, strict=True)):
        raise Refused(f"it repeats its input to {target}, which has no record")
    return x


def transpose(node: Node) -> Value:
    x = node.value()
    order = node.integer_list("perm") or tuple(reversed(range(rank(x))))
    return x if order == tuple(range(rank(x))) else node.add(L.Permute, x, order=order)


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
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        full = node.full(x)
        axis = axis + len(full) if axis < 0 else axis
        if step < 1 or not 0 <= axis < len(full):
            raise Refused(f"step {step} along axis {axis} has no record")
        start, stop, _ = slice(start, stop).indices(full[axis])
        if (start, stop, step) != (0, full[axis], 1):  # else all of it, perhaps of the batch
            x = node.add(L.Slice, x, axis=node.axis(axis, len(full)), start=start, stop=stop, step=step)
    return x


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
            raise Refused(f"its table has shape {table.shape} and is indexed along axis {axis}; an embedding has rows along axis 0")
        return node.layers.add(L.Embedding, (indices,), node.name, weight=table)
    x, chosen = node.value(), node.constant(1, "its indices")
    assert isinstance(data, Value)
    axis = node.axis(axis, rank(x))
    size = x.shape[axis - 1]
    if chosen.dtype.kind not in "iu" or chosen.ndim > 1 or chosen.size == 0 or chosen.min() < -size or chosen.max() >= size:
        raise Refused(f"its indices have shape {chosen.shape}; expected one, or a row of them, within axis {axis} of size {size}")
    places = [int(i) % size for i in np.atleast_1d(chosen)]
    step = places[1] - places[0] if len(places) > 1 else 1
    if step < 1 or places != list(range(places[0], places[-1] + 1, step)):
        raise Refused("its indices are not evenly spaced and rising; only what a slice can take has a record")
    part = node.add(L.Slice, x, axis=axis, start=places[0], stop=places[-1] + 1, step=step)
    if chosen.ndim:
        return part
    return _reshaped(node, part, tuple(s for a, s in enumerate(node.full(part)) if a != axis))


# ------------------------------------------------------------------------------------------------- padding, upsampling


def pad(node: Node) -> Value:
    x, mode, pads = node.value(), node.text("mode", "constant"), node.setting("pads", 1, 11)
    if mode != "constant":
        raise Refused(f"mode {mode!r:.40} has no record; only constant padding has")
    value = node.optional(2, "its constant value")
    axes = node.setting("axes", 3, 18) or tuple(range(rank(x)))
    if pads is None or len(pads) != 2 * len(axes):
        raise Refused(f"its pads are {pads}, expected two per axis ({len(axes)})")
    pairs = dict.fromkeys(range(rank(x)), (0, 0))
    for i, axis in enumerate(axes):
        pairs[axis % rank(x)] = (pads[i], pads[len(axes) + i])
    last = rank(x) - 1
    if pairs[0] != (0, 0) or (pairs[1] != (0, 0) and pairs[last] != (0, 0)):
        raise Refused(f"it pads the batch or the channels ({pads}); only spatial axes can be padded")
    if not any(any(p) for p in pairs.values()):
        return x
    axis = 1 if pairs[1] == (0, 0) else last  # of the channels
    padding, fill = tuple(pairs[a] for a in range(1, rank(x)) if a != axis), 0.0 if value is None else scalar(value, "its value")
    return along(axis, node.add, x, lambda y: node.add(L.Pad, y, padding=padding, value=fill))


def resize(node: Node) -> Value:
    """Nearest by integer factors, where the coordinates make it the repetition of every element."""
    x, mode = node.value(), node.text("mode", "nearest")
    where, nearest = node.text("coordinate_transformation_mode", "half_pixel"), node.text("nearest_mode", "round_prefer_floor")
    if mode != "nearest":
        raise Refused(f"mode {mode!r:.40} has no record; only nearest has")
    if node.integer_list("axes") is not None or node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("axes and keep_aspect_ratio_policy are not supported")
    factors = _factors(node, x)
    # output q·f + r lies at q + r/f (asymmetric), or at q + (r + ½)/f − ½, closer to q than ½
    repeats = nearest.startswith("round_") if where.startswith(("half_pixel", "pytorch_half_pixel")) else False
    if where == "asymmetric":
        repeats = nearest == "floor" or (nearest == "round_prefer_floor" and max(factors) <= 2)
    if not repeats:
        raise Refused(f"{where} with {nearest} and factors {factors} is not the repetition of every element")
    return x if set(factors) == {1} else node.add(L.Upsample, x, factor=factors)


def _factors(node: Node, x: Value) -> tuple[int, ...]:
    space(x)
    full = node.full(x)
    scales, sizes = node.optional(2, "its scales"), node.setting("sizes", 3, 11)
    if scales is not None and scales.size:
        ratios = [float(s) for s in scales.ravel()]
    elif sizes:
        ratios = [s / f for s, f in zip(sizes, full, strict=False)]
    else:
        raise Refused("it has neither scales nor sizes")
    if len(ratios) != len(full) or ratios[:2] != [1.0, 1.0] or any(not 1 <= r < 2**31 or r != int(r) for r in ratios):
        raise Refused(f"it scales the axes by {ratios!s:.80}; only integer factors of spatial axes have a record")
    return tuple(int(r) for r in ratios[2:])


OPERATORS: dict[str, Reader] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Min": minimum,
    "Max": maximum,
    "Sum": sum_,
    "Concat": concat,
    "Identity": identity,
    "Dropout": dropout,
    "Cast": cast,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Transpose": transpose,
    "Slice": slice_,
    "Split": split,
    "Gather": gather,
    "Pad": pad,
    "Resize": resize,
}
