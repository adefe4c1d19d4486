"""Readers of the ONNX operators that have no record of their own, and of what such a one makes: an activation or a norm
is known in it as soon as it is whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ... import layers as L
from ..algebra import expanded
from ..functions import Function, composed, known, rescaled
from ..masks import quotient, unrepeated
from ..norms import normalised, squares
from ..records import Layers, Refused, Value
from .arithmetic import both_computed, divide, multiply, placed, split_operands
from .graph import Array, Node, Operand, Reader, rank, scalar
from .moves import OPERATORS as MOVES

APPLIED: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "Neg": np.negative,
    "Abs": np.abs, "Sqrt": np.sqrt, "Exp": np.exp, "Log": np.log, "Reciprocal": np.reciprocal,
    "Erf": np.vectorize(math.erf, [float]), "Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)), "Softplus": lambda x: np.logaddexp(0, x), "Max": np.maximum,
    "Min": np.minimum, "Sin": np.sin, "Cos": np.cos, "Clip": np.clip,
}  # fmt: skip
"""What the operators compute of each element."""

ALONE = ("Pow", "Sqrt", "Exp", "Log", "Reciprocal", "Erf", "Sin", "Cos")
"""Those that no record computes."""

BEGUN = {"Div": "division by what is computed"}
"""What operators with a record do where they have none; the others are named by their label."""

VIEWS = ("Identity", "Cast", "Expand")
"""Operators that keep the order of the elements."""


def reader(operator: str, operands: list[Operand | None]) -> Reader | None:
    """What reads a node whose operands may be functions; None where the operator's own reader does."""
    functions = any(isinstance(a, Function) for a in operands)
    if operator in ALONE or (functions and operator in APPLIED):
        return function
    if functions and operator in VIEWS:
        return viewed
    if operator == "Div" and len(operands) == 2 and isinstance(operands[1], Value):
        return function
    if operator == "Mul" and len(operands) == 2 and all(isinstance(a, Value) for a in operands):
        return product
    return times if operator in ("Mul", "Div") else None


def function(node: Node) -> Value | Function:
    """A function of each element: an activation, a norm, or what may become one."""
    if node.operator == "Pow" and isinstance(node.operand(0), Value) and _is_number(node.operand(1), 2.0):
        placed(node, node.constant(1, "its exponent"), node.value())
        return node.add(L.Mul, node.value(), node.value())
    if node.operator == "Div" and all(isinstance(a, Value) for a in node.operands[:2]):
        mean = quotient(node.add, node.layers, node.value(0), node.value(1))
        if mean is not None:
            return mean
    made = _norm(node) or _composed(node)
    if made is None:
        first = next((a for a in node.operands if isinstance(a, Function)), None)
        if first is not None:
            raise first.refused()
        raise Refused(f"{BEGUN.get(node.operator, 'this operator')} has no record")
    return known(node.add, node.layers, made) if isinstance(made, Function) else made


def product(node: Node) -> Value:
    """Of two computed operands: an activation, or a record."""
    both_computed(node)
    made = _composed(node)
    found = None if made is None else known(node.add, node.layers, made)
    if isinstance(found, Value):
        return found
    operands = [node.value(i) for i in (0, 1)]
    y = node.add(L.Mul, *(unrepeated(node.layers, v) for v in operands))
    return expanded(node.add, y, tuple(np.broadcast_shapes(*(v.shape for v in operands))))


def times(node: Node) -> Value:
    """Of a value and numbers: an activation that ends in them, or a record."""
    x, numbers = split_operands(node)
    with np.errstate(divide="ignore"):
        found = rescaled(node.add, node.layers, x, numbers if node.operator == "Mul" else 1 / numbers)
    return found or (multiply if node.operator == "Mul" else divide)(node)


def viewed(node: Node) -> Function:
    """A function under the shape that a value would get."""
    held = node.operands[0]
    if not isinstance(held, Function):
        raise next(a for a in node.operands if isinstance(a, Function)).refused()
    scratch = Layers(node.layers.batch, sample=held.shape)
    operands: list[Operand | None] = [Value(L.INPUT, held.shape), *node.operands[1:]]
    made = MOVES[node.operator](replace(node, operands=operands, layers=scratch))
    assert isinstance(made, Value)
    return held.under(made.shape)


def _norm(node: Node) -> Value | None:
    """x times, or divided by, a function of a mean of squares."""
    if node.operator not in ("Mul", "Div") or len(node.operands) != 2:
        return None
    x, factor = node.operands
    if node.operator == "Mul" and isinstance(x, Function):
        x, factor = factor, x
    if not isinstance(x, Value) or not isinstance(factor, Function):
        return None
    if node.operator == "Div":
        with np.errstate(all="ignore"):
            factor = replace(factor, values=1 / factor.values)
    return normalised(node.add, node.layers, x, factor)


def _composed(node: Node) -> Function | None:
    operands = [a for a in node.operands if isinstance(a, (Value, Function, np.ndarray))]
    apply = APPLIED[node.operator]
    if node.operator == "Clip":
        apply, operands = _clip(node), operands[:1]
    shapes = [a.shape for a in operands if isinstance(a, (Value, Function))]
    largest = max((a for a in operands if isinstance(a, (Value, Function))), key=lambda a: len(a.shape))
    shapes += [placed(node, a, largest).shape for a in operands if isinstance(a, np.ndarray)]
    try:
        shape = tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise Refused(f"shapes {' and '.join(str(('n', *s)) for s in shapes)} do not fit each other") from None
    return composed(node.layers, apply, operands, shape, _begun(node))


def _begun(node: Node) -> str:
    return f"{node.label}: {BEGUN.get(node.operator, 'this operator')}"


def _clip(node: Node) -> Callable[[Array], Array]:
    if node.opset < 11:
        low, high = node.number("min", -math.inf), node.number("max", math.inf)
    else:
        low = -math.inf if (a := node.optional(1, "min")) is None else scalar(a, "min")
        high = math.inf if (b := node.optional(2, "max")) is None else scalar(b, "max")
    return lambda x: np.clip(x, low, high)


def _is_number(operand: Operand | None, number: float) -> bool:
    return isinstance(operand, np.ndarray) and operand.size == 1 and float(operand.reshape(-1)[0]) == number


def length(node: Node, root: bool) -> Value | Function:
    """The sum of squares over some axes, or its square root."""
    x, given = node.value(), node.setting("axes", 1, 18) or ()
    if not given and not node.integer("noop_with_empty_axes", 0):
        raise Refused("it reduces all axes, the batch too")
    axes = tuple(sorted({node.axis(a, rank(x)) for a in given}))
    keepdims = bool(node.integer("keepdims", 1))
    made = squares(node.add, x, axes, keepdims=keepdims) if axes else node.add(L.Mul, x, x)
    if not root:
        return made
    found = composed(node.layers, np.sqrt, [made], made.shape, _begun(node))
    assert found is not None  # of one value
    return found


def never(node: Node) -> Array:
    """Whether elements are NaN or infinite: none of a layer's are."""
    for key in ("detect_negative", "detect_positive"):
        node.integer(key, 1)
    return np.broadcast_to(np.False_, node.full(node.value()))


OPERATORS: dict[str, Reader] = {
    **dict.fromkeys(ALONE, function),
    "ReduceSumSquare": partial(length, root=False),
    "ReduceL2": partial(length, root=True),
    "IsNaN": never,
    "IsInf": never,
}
