"""Readers of the ONNX operators that are matrix products, and what products of two computed operands become."""

from __future__ import annotations

import string

import numpy as np

from .. import products
from ..attention import product
from ..records import Refused, Value
from .arithmetic import shape_text
from .graph import Node, Reader, rank, weights


def matmul(node: Node) -> Value:
    """Of two computed operands, or by a constant from either side, with further axes of its own."""
    if isinstance(node.operand(0), Value) and isinstance(node.operand(1), Value):
        return product(node.add, node.value(0), node.value(1))
    left = not isinstance(node.operand(0), Value)
    x, constant = (
        node.value(int(left)),
        weights(node.constant(int(not left), "its constant factor"), "its constant factor"),
    )
    axes = rank(x)
    if constant.ndim == axes > 2:
        constant = node.of_sample(constant, "its constant factor")
    if axes < 2 + left or constant.ndim < 1:
        raise Refused(
            f"it multiplies ({shape_text(x)}) and {constant.shape}; the batch may not be an axis of the matrices"
        )
    labels = string.ascii_lowercase[:axes]
    shared = labels[-2] if left else labels[-1]
    own = ("Z" + shared if left else shared + "Z") if constant.ndim > 1 else shared
    stack, lead = constant.shape[:-2], labels[1:-2]
    if len(stack) > len(lead):
        raise Refused(
            f"it multiplies ({shape_text(x)}) and {constant.shape}; the stack of matrices may not "
            "vary along the batch axis, nor move it"
        )
    result, names = list(labels), []
    for i, size in enumerate(stack, len(lead) - len(stack)):
        if size != 1:
            name = lead[i] if x.shape[i] != 1 else string.ascii_uppercase[i]
            names.append(name)
            result[1 + i] = name
    constant = constant.reshape(tuple(s for s in stack if s != 1) + constant.shape[-2:])
    result[axes - 2 if left else axes - 1] = "Z" if constant.ndim > len(names) + 1 else ""
    others = "".join(names) + own
    sizes = dict(zip(labels[1:], x.shape, strict=True))
    if any(sizes.get(k, s) != s for k, s in zip(others, constant.shape, strict=True)):
        raise Refused(f"a constant of shape {constant.shape} does not fit its other factor ({shape_text(x)})")
    made = products.contracted(node.add, x, labels[1:], constant, others, "".join(result[1:]))
    return made if any(result[1:]) else Value(made.position, ())


def einsum(node: Node) -> Value:
    """One operand is computed, or two are; the others are constants."""
    operands = [
        a if isinstance(a, Value) else weights(node.constant(i, "its factor"), "its factor")
        for i, a in enumerate(node.operands)
    ]
    equation = node.text("equation", "")
    made = products.einsum(node.add, equation, operands, node.layers.batch)
    _, result = products.terms(equation, [a.ndim if isinstance(a, np.ndarray) else rank(a) for a in operands])
    return made if len(result) > 1 else Value(made.position, ())


OPERATORS: dict[str, Reader] = {"MatMul": matmul, "Einsum": einsum}
