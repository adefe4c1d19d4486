"""Readers of the ONNX operators that combine values and constants element by element: one function per operator."""

from __future__ import annotations

from functools import partial

import numpy as np

from ... import layers as L
from .. import algebra
from ..functions import Function
from ..records import Refused, Value
from .graph import Array, Node, Reader, rank, scalar, weights

# ------------------------------------------------------------------------------------------------------ constants


def aligned(node: Node, constant: Array, x: Value) -> Array:
    """Floats without the batch axis, along which all of them must be equal; their other axes are the last ones of a
    sample.
    """
    return placed(node, weights(constant, "its constant"), x)


def placed(node: Node, array: Array, x: Value | Function) -> Array:
    """The same of an array of any type."""
    if node.opset < 7:
        array = _by_attribute(node, array, rank(x))
    if array.ndim > rank(x):
        raise Refused(
            f"a constant of shape {array.shape} meets ({shape_text(x)}), which has fewer axes; the batch axis "
            "would move"
        )
    if not array.size:
        raise Refused(f"a constant of shape {array.shape} leaves nothing of ({shape_text(x)})")
    if array.ndim == rank(x):
        array = node.of_sample(array, "a constant")
    try:
        np.broadcast_shapes(array.shape, x.shape)
    except ValueError:
        raise Refused(f"a constant of shape {array.shape} does not fit ({shape_text(x)})") from None
    return array


def _by_attribute(node: Node, array: Array, axes: int) -> Array:
    """Before opset 7, operands are of one shape, or attribute broadcast is 1 and the second one's axes begin at
    attribute axis.
    """
    axis, broadcast = node.integer("axis", axes - array.ndim), node.integer("broadcast", 0)
    axis = axis + axes if axis < 0 else axis
    if array.ndim == axes or array.size == 1:
        return array
    if not broadcast or not 0 <= axis <= axes - array.ndim:
        raise Refused(
            f"in opset {node.opset}, a constant of shape {array.shape} needs the attribute broadcast, and an axis "
            "that it fits"
        )
    return array.reshape(array.shape + (1,) * (axes - axis - array.ndim))


def shape_text(x: Value | Function) -> str:
    return ", ".join(("n", *map(str, x.shape)))


def affine(node: Node, x: Value, scale: Array | float, shift: Array | float) -> Value:
    """x·scale + shift; a value that is smaller than its constant is repeated first, and one number stays one."""
    made = algebra.scaled(node.add, algebra.vector(x), scale, shift)
    return made.under(x.shape) if made.shape == (1,) else made


def negative(node: Node, x: Value) -> Value:
    return affine(node, x, -1.0, 0.0)


def split_operands(node: Node) -> tuple[Value, Array]:
    """(what is computed, the constant, aligned with a sample)."""
    index = 0 if isinstance(node.operand(0), Value) else 1
    x = node.value(index)
    return x, aligned(node, node.constant(1 - index, "its constant"), x)


def both_computed(node: Node) -> bool:
    """Whether it combines two values; those of opset 6 may not meet along other axes than NumPy's."""
    computed = isinstance(node.operand(0), Value) and isinstance(node.operand(1), Value)
    if computed and node.opset < 7:
        node.integer("broadcast", 0)
        if node.integer("axis", 0) not in (0, -rank(node.value(1))) and node.value(0).shape != node.value(1).shape:
            raise Refused("attribute axis places one computed value inside another, which has no record")
    return computed


# -------------------------------------------------------------------------------------------------- sums and products


def add(node: Node) -> Value:
    """A constant after a linear layer of its own becomes that layer's bias (rewrites.py)."""
    if both_computed(node):
        return node.add(L.Add, node.value(0), node.value(1))
    x, constant = split_operands(node)
    return affine(node, x, 1.0, constant)


def subtract(node: Node) -> Value:
    if both_computed(node):
        return node.add(L.Add, node.value(0), negative(node, node.value(1)))
    x, constant = split_operands(node)
    if isinstance(node.operand(0), Value):
        return affine(node, x, 1.0, -constant)
    return affine(node, x, -1.0, constant)


def multiply(node: Node) -> Value:
    x, constant = split_operands(node)
    return affine(node, x, constant, 0.0)


def divide(node: Node) -> Value:
    x, divisor = split_operands(node)
    if not divisor.all():
        raise Refused("it divides by zero")
    return affine(node, x, 1 / divisor.astype(np.float64), 0.0)


def negate(node: Node) -> Value:
    return negative(node, node.value())


def absolute(node: Node) -> Value:
    x = node.value()
    return Value(algebra.absolute(node.add, algebra.vector(x)).position, x.shape)


def sum_(node: Node, mean: bool = False) -> Value:
    """Of any number of values and constants."""
    values = [node.value(i) for i, a in enumerate(node.operands) if isinstance(a, Value)]
    total = values[0] if len(values) == 1 else node.add(L.Add, *values)
    for i, operand in enumerate(node.operands):
        if not isinstance(operand, Value):
            total = affine(node, total, 1.0, aligned(node, node.constant(i, "its constant"), total))
    return affine(node, total, 1 / len(node.operands), 0.0) if mean and len(node.operands) > 1 else total


def where(node: Node) -> Value:
    """Between two operands, by a constant mask."""
    if not isinstance(node.operand(0), np.ndarray):
        raise Refused("its condition is computed, which has no record; only a constant mask has")
    computed = [node.value(i) for i in (1, 2) if not isinstance(node.operand(i), np.ndarray)]
    x = computed[0]
    operands = [node.operand(i) for i in (1, 2)]
    a, b = (aligned(node, o, x) if isinstance(o, np.ndarray) else node.value(i) for i, o in enumerate(operands, 1))
    made = algebra.chosen(node.add, placed(node, node.constant(0, "its condition"), x), a, b, node.layers.batch)
    return made.under(()) if not x.shape and made.shape == (1,) else made


# ----------------------------------------------------------------------------------------------- largest and smallest


def minimum(node: Node) -> Value:
    """min(x, c) of what a ReLU makes is a clip, as TensorFlow writes ReLU6; else −max(−x, −y)."""
    if len(node.operands) == 2 and not both_computed(node):
        x, constant = split_operands(node)
        before = node.layers.records[x.position] if x.position != L.INPUT else None
        if isinstance(before, L.ReLU) and constant.size == 1 and scalar(constant, "its constant") > 0:
            return node.add(L.Activation, x, kind="clip", alpha=0.0, beta=scalar(constant, "its constant"))
    return extreme(node, lowest=True)


def maximum(node: Node) -> Value:
    """max(x, 0) is a ReLU."""
    if len(node.operands) == 2 and not both_computed(node):
        x, constant = split_operands(node)
        if constant.size == 1 and scalar(constant, "its constant") == 0:
            return node.add(L.ReLU, x)
    return extreme(node, lowest=False)


def extreme(node: Node, lowest: bool) -> Value:
    """The largest, or smallest, of any number of values and constants."""
    values = [node.value(i) for i, a in enumerate(node.operands) if isinstance(a, Value)]
    try:
        np.broadcast_shapes(*(v.shape for v in values))
    except ValueError:
        raise Refused(f"it compares ({') and ('.join(map(shape_text, values))}), which do not fit each other") from None
    for v in values[1:]:
        algebra.aligned(values[0], v)
    vectors = [Value(v.position, v.shape or (1,)) for v in values]
    made = vectors[0] if len(vectors) == 1 else (algebra.smaller if lowest else algebra.larger)(node.add, vectors)
    for i, operand in enumerate(node.operands):
        if not isinstance(operand, Value):
            bound = aligned(node, node.constant(i, "its constant"), made)
            made = (algebra.at_most if lowest else algebra.at_least)(node.add, made, bound)
    return made if any(v.shape for v in values) else Value(made.position, ())


OPERATORS: dict[str, Reader] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Neg": negate,
    "Abs": absolute,
    "Sum": sum_,
    "Mean": partial(sum_, mean=True),
    "Where": where,
    "Min": minimum,
    "Max": maximum,
}
