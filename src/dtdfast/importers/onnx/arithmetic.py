"""Readers of the ONNX operators that combine values and constants element by element, or by products: one function per
operator.
"""

from __future__ import annotations

import string
from functools import partial

import numpy as np

from ... import layers as L
from .. import algebra, products
from ..records import Refused, Value
from ..refused import ATTENTION
from .graph import Array, Node, Reader, rank, scalar, weights
from .moves import reshaped

# ------------------------------------------------------------------------------------------------------ constants


def aligned(node: Node, constant: Array, x: Value) -> Array:
    """A constant without the batch axis, along which all of it must be equal; its other axes are the last ones of a
    sample.
    """
    array = weights(constant, "its constant")
    if node.opset < 7:
        array = _placed(node, array, rank(x))
    if array.ndim > rank(x):
        raise Refused(
            f"a constant of shape {array.shape} meets ({_sizes(x)}), which has fewer axes; the batch axis would move"
        )
    if array.ndim == rank(x):
        if array.shape[0] != 1 and (array.shape[0] != node.layers.batch or array.strides[0]):
            raise Refused(
                f"a constant of shape {array.shape} meets ({_sizes(x)}): it may not vary along the batch axis"
            )
        array = array[0]
    try:
        np.broadcast_shapes(array.shape, x.shape)
    except ValueError:
        raise Refused(f"a constant of shape {array.shape} does not fit ({_sizes(x)})") from None
    return array


def _placed(node: Node, array: Array, axes: int) -> Array:
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


def _sizes(x: Value) -> str:
    return ", ".join(("n", *map(str, x.shape)))


def affine(node: Node, x: Value, scale: Array | float, shift: Array | float) -> Value:
    """x·scale + shift; a value that is smaller than its constant is repeated first, and one number stays one."""
    made = algebra.scaled(node.add, Value(x.position, x.shape or (1,)), scale, shift)
    return Value(made.position, x.shape) if made.shape == (1,) else made


def negative(node: Node, x: Value) -> Value:
    return affine(node, x, -1.0, 0.0)


def split_operands(node: Node) -> tuple[Value, Array]:
    """(what is computed, the constant, aligned with a sample)."""
    index = 0 if isinstance(node.operand(0), Value) else 1
    x = node.value(index)
    return x, aligned(node, node.constant(1 - index, "its constant"), x)


def _both_computed(node: Node) -> bool:
    computed = isinstance(node.operand(0), Value) and isinstance(node.operand(1), Value)
    if computed and node.opset < 7:
        node.integer("broadcast", 0)
        if node.integer("axis", 0) not in (0, -rank(node.value(1))) and node.value(0).shape != node.value(1).shape:
            raise Refused("attribute axis places one computed value inside another, which has no record")
    return computed


# -------------------------------------------------------------------------------------------------- sums and products


def add(node: Node) -> Value:
    """A constant after a linear layer of its own becomes that layer's bias (rewrites.py)."""
    if _both_computed(node):
        return node.add(L.Add, node.value(0), node.value(1))
    x, constant = split_operands(node)
    return affine(node, x, 1.0, constant)


def subtract(node: Node) -> Value:
    if _both_computed(node):
        return node.add(L.Add, node.value(0), negative(node, node.value(1)))
    x, constant = split_operands(node)
    if isinstance(node.operand(0), Value):
        return affine(node, x, 1.0, -constant)
    return affine(node, x, -1.0, constant)


def multiply(node: Node) -> Value:
    if _both_computed(node):
        return node.add(L.Mul, node.value(0), node.value(1))
    x, constant = split_operands(node)
    return affine(node, x, constant, 0.0)


def divide(node: Node) -> Value:
    if isinstance(node.operand(1), Value):
        raise Refused("it divides by what is computed, which has no record; only division by a constant has")
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
    if isinstance(node.operand(0), Value):
        raise Refused("its condition is computed, which has no record; only a constant mask has")
    mask = node.constant(0, "its condition") != 0
    total = None
    for index, chosen in ((1, mask), (2, ~mask)):
        operand = node.operand(index)
        if isinstance(operand, Value):
            part = affine(node, node.value(index), aligned(node, chosen.astype(np.float32), operand), 0.0)
            total = part if total is None else node.add(L.Add, total, part)
    assert total is not None
    for index, chosen in ((1, mask), (2, ~mask)):
        operand = node.operand(index)
        if not isinstance(operand, Value):
            constant = weights(node.constant(index, "its constant"), "its constant")
            total = affine(node, total, 1.0, aligned(node, np.where(chosen, constant, constant.dtype.type(0)), total))
    return total


# ----------------------------------------------------------------------------------------------- largest and smallest


def minimum(node: Node) -> Value:
    """min(x, c) of what a ReLU makes is a clip, as TensorFlow writes ReLU6; else −max(−x, −y)."""
    if len(node.operands) == 2 and not _both_computed(node):
        x, constant = split_operands(node)
        before = node.layers.records[x.position] if x.position != L.INPUT else None
        if isinstance(before, L.ReLU) and constant.size == 1 and scalar(constant, "its constant") > 0:
            return node.add(L.Activation, x, kind="clip", alpha=0.0, beta=scalar(constant, "its constant"))
    return extreme(node, lowest=True)


def maximum(node: Node) -> Value:
    """max(x, 0) is a ReLU."""
    if len(node.operands) == 2 and not _both_computed(node):
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
        raise Refused(f"it compares ({') and ('.join(map(_sizes, values))}), which do not fit each other") from None
    vectors = [Value(v.position, v.shape or (1,)) for v in values]
    made = vectors[0] if len(vectors) == 1 else (algebra.smaller if lowest else algebra.larger)(node.add, vectors)
    for i, operand in enumerate(node.operands):
        if not isinstance(operand, Value):
            bound = aligned(node, node.constant(i, "its constant"), made)
            made = (algebra.at_most if lowest else algebra.at_least)(node.add, made, bound)
    return made if any(v.shape for v in values) else Value(made.position, ())


# ------------------------------------------------------------------------------------------------------ matrix products


def contracted(node: Node, x: Value, constant: Array, labels: str, others: str, result: str) -> Value:
    """einsum of what is computed and a constant: one letter per axis of x, the batch first, of the constant, and of the
    result.
    """
    every, wanted = (labels, others, result), f"'{labels},{others}->{result}'"
    if any(len(set(names)) < len(names) for names in every) or not set(result) <= set(labels + others):
        raise Refused(f"{wanted} names one axis twice, or one that no operand has")
    if labels[0] in others or result[:1] != labels[:1]:
        raise Refused(f"{wanted} would mix, move or remove the batch axis")
    sizes = dict(zip(labels[1:], x.shape, strict=True))
    if any(sizes.setdefault(k, s) != s for k, s in zip(others, constant.shape, strict=True)):
        raise Refused(f"a constant of shape {constant.shape} does not fit its other factor ({_sizes(x)})")
    if not set(labels[1:]) & set(others + result):  # all of a sample is summed
        if len(result) > 1:
            raise Refused(f"{wanted} multiplies a constant by a sum, which has no record")
        whole = node.add(L.Reduce, x, kind="sum", axes=tuple(range(1, rank(x))), keepdims=True)
        return affine(node, reshaped(node, whole, (node.layers.batch,)), constant.sum(), 0.0)
    made = products.contracted(node.add, x, labels[1:], constant, others, result[1:])
    return made if len(result) > 1 else Value(made.position, ())


def matmul(node: Node) -> Value:
    """By a constant from either side, with further axes of its own."""
    if isinstance(node.operand(0), Value) and isinstance(node.operand(1), Value):
        raise Refused(ATTENTION)
    left = not isinstance(node.operand(0), Value)
    x, constant = (
        node.value(int(left)),
        weights(node.constant(int(not left), "its constant factor"), "its constant factor"),
    )
    axes = rank(x)
    if axes < 2 + left or constant.ndim < 1:
        raise Refused(f"it multiplies ({_sizes(x)}) and {constant.shape}; the batch may not be an axis of the matrices")
    labels = string.ascii_lowercase[:axes]
    shared = labels[-2] if left else labels[-1]
    own = ("Z" + shared if left else shared + "Z") if constant.ndim > 1 else shared
    stack, lead = constant.shape[:-2], labels[1:-2]
    while len(stack) > len(lead) and stack[0] == 1:
        stack = stack[1:]
    if len(stack) > len(lead):
        raise Refused(
            f"it multiplies ({_sizes(x)}) and {constant.shape}; the stack of matrices may not vary along the batch axis"
        )
    result, names = list(labels), []
    for i, size in enumerate(stack, len(lead) - len(stack)):
        if size != 1:
            name = lead[i] if x.shape[i] != 1 else string.ascii_uppercase[i]
            names.append(name)
            result[1 + i] = name
    constant = constant.reshape(tuple(s for s in stack if s != 1) + constant.shape[-2:])
    result[axes - 2 if left else axes - 1] = "Z" if constant.ndim > len(names) + 1 else ""
    return contracted(node, x, constant, labels, "".join(names) + own, "".join(result))


def einsum(node: Node) -> Value:
    """One operand is computed, the others are constants."""
    operands = [
        a if isinstance(a, Value) else weights(node.constant(i, "its factor"), "its factor")
        for i, a in enumerate(node.operands)
    ]
    equation = node.text("equation", "")
    made = products.einsum(node.add, equation, operands, node.layers.batch)
    _, result = products.terms(equation, [a.ndim if isinstance(a, np.ndarray) else rank(a) for a in operands])
    return made if len(result) > 1 else Value(made.position, ())


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
    "MatMul": matmul,
    "Einsum": einsum,
}
