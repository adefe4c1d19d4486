"""Nodes that read constants alone: computed on import by onnx's own reference evaluator, within a budget of memory.

Shape arithmetic is of this kind once the shapes of computed values are known, the batch axis standing as a number of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...budget import require as require_memory
from ...extras import require
from ..records import Refused
from .graph import BATCH, Array, Grown
from .tensors import Proto, Tensors, plain

FIELDS = {"f": 1, "i": 2, "s": 3, "t": 4, "floats": 6, "ints": 7}
"""The types of attributes that hold these fields (AttributeProto.AttributeType)."""

BROADCAST = {  # the result has the broadcast shape of its operands
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Or",
    "Pow", "Sub", "Sum", "Where", "Xor",
}  # fmt: skip
SAME_OR_SMALLER = {
    "Abs", "Cast", "CastLike", "Ceil", "Clip", "Cos", "CumSum", "DequantizeLinear", "Erf", "Exp", "Flatten",
    "Floor", "Identity", "IsInf", "IsNaN", "LayerNormalization", "Log", "Neg", "Not", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape",
    "Round", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze",
    "Tanh", "Transpose", "Trilu", "Unsqueeze",
}  # fmt: skip
FOLDABLE = BROADCAST | SAME_OR_SMALLER | {
    "Concat", "ConstantOfShape", "Einsum", "Expand", "Gather", "GatherElements", "GatherND", "Gemm", "MatMul", "Range",
    "Size", "Tile",
}  # fmt: skip
PLAIN_ATTRIBUTES = (1, 2, 3, 6, 7, 8)  # AttributeProto.AttributeType: float, int, string, and lists of them
FEW = 64
"""Integers that may be sizes."""
FREE = 1 << 23
"""Elements that a folded constant may have in any case; beyond that, at most four times those decoded from the file."""


class Folder:
    """Computes constant nodes.

    A constant filled with one number, or repeated along an axis, is a view of what it repeats, and takes no memory
    until it is read.

    Parameters
    ----------
    batch : the size of the batch axis in shape arithmetic
    """

    def __init__(self, tensors: Tensors, batch: int) -> None:
        self._tensors, self._batch = tensors, batch
        self._held = 0  # bytes of all results

    def fold(self, node: Proto, operands: Sequence[Array | Grown | None], opset: int) -> tuple[Array | Grown, ...]:
        """The outputs of a node whose operands are all constants."""
        operator = node.op_type
        if operator == "Constant":
            return (self._constant(node),)
        axis = any(a.name == "axis" for a in node.attribute)
        # onnx's evaluator knows neither the joined axes of the one nor the placed axes of the others
        older = (operator == "Softmax" and opset < 13) or (operator in BROADCAST and opset < 7 and axis)
        if operator not in FOLDABLE or older:
            raise Refused("it reads constants alone, and is not among the operators that are computed on import")
        if self._batch == BATCH and any(isinstance(a, Grown) or (a is not None and BATCH in a.shape) for a in operands):
            return self._followed(node, operands, opset)
        arrays = [a for a in operands if not isinstance(a, Grown)]
        return self._computed(node, arrays, opset) or self._followed(node, operands, opset)

    def _followed(self, node: Proto, operands: Sequence[Array | Grown | None], opset: int) -> tuple[Array | Grown, ...]:
        """For a batch of two and one of three, and what that says of any."""
        two, three = (self._computed(node, [_of_batch(a, n) for a in operands], opset) for n in (2, 3))
        return tuple(_for_any(a, b) for a, b in zip(two, three, strict=True))

    def _computed(self, node: Proto, operands: list[Array | None], opset: int) -> tuple[Array, ...]:
        """Nothing where the result has the open batch axis."""
        operator = node.op_type
        try:
            if operator == "ConstantOfShape":
                return (self._filled(node, operands),)
            if operator == "Expand":
                return (_expanded(operands),)
            if operator == "GatherElements":
                return (_taken(node, operands),)
            size = result_size(operator, node, operands)
        except (ValueError, OverflowError, IndexError, AttributeError, TypeError):
            raise Refused("its operands do not fit each other") from None
        if size >= self._batch == BATCH and size % BATCH == 0:
            return ()
        if size > FREE + 4 * self._tensors.decoded:
            raise Refused(f"its constant result of {size} elements is too large to be computed on import")
        require_memory(self._held + 8 * size, f"{operator} {node.name or node.output[0]!r:.80}: the constants up to it")
        results = self._evaluate(node, operands, opset)
        self._held += sum(r.nbytes for r in results)
        return results

    def _constant(self, node: Proto) -> Array:
        if len(node.attribute) != 1:
            raise Refused("a constant has one attribute")
        (attribute,) = node.attribute
        match attribute.name:
            case "value":
                return self._tensors.array(typed(attribute, "t"))
            case "value_float":
                return np.array(typed(attribute, "f"), np.float32)
            case "value_int":
                return np.array(typed(attribute, "i"), np.int64)
            case "value_floats":
                return np.array(typed(attribute, "floats"), np.float32)
            case "value_ints":
                return np.array(typed(attribute, "ints"), np.int64)
        raise Refused(f"a constant given as {attribute.name:.40} is not supported")

    def _filled(self, node: Proto, operands: list[Array | None]) -> Array:
        shape = operands[0]
        if len(operands) != 1 or shape is None:
            raise Refused("it takes a shape and nothing else")
        fill: Any = np.zeros(1, np.float32)
        for attribute in node.attribute:
            fill = self._tensors.array(typed(attribute, "t"))
        if fill.size != 1:
            raise Refused("its value is not one number")
        return np.broadcast_to(fill.ravel()[0], tuple(int(s) for s in shape))

    def _evaluate(self, node: Proto, operands: list[Array | None], opset: int) -> tuple[Array, ...]:
        if any(a.type not in PLAIN_ATTRIBUTES for a in node.attribute):
            raise Refused("an attribute of it is no number, string or list of them")
        helper, reference = require("onnx.helper", "onnx"), require("onnx.reference", "onnx")
        names = [f"x{i}" if a is not None else "" for i, a in enumerate(operands)]
        outputs = [f"y{i}" for i in range(len(node.output))]
        if node.op_type == "DequantizeLinear":  # of which onnx's evaluator has no earlier version
            opset = max(opset, 19)
        copy = type(node)(op_type=node.op_type, input=names, output=outputs, attribute=node.attribute)
        function = helper.make_function(
            "dtdfast", "folded", [n for n in names if n], outputs, [copy], [helper.make_opsetid("", opset)]
        )
        feeds = {n: a for n, a in zip(names, operands, strict=True) if n}
        try:
            with np.errstate(all="ignore"):
                results = reference.ReferenceEvaluator(function).run(None, feeds, attributes={})
            return tuple(plain(r) for r in results)
        except Exception as error:  # the evaluator raises whatever NumPy does on operands that do not fit
            raise Refused(f"its constants cannot be computed: {type(error).__name__} {error!s:.100}") from None


def result_size(operator: str, node: Proto, operands: list[Array | None]) -> int:
    """Elements of a foldable node's result, from its operands' shapes (or, where they say the shape, their values)."""
    given = [a for a in operands if a is not None]
    if operator == "Size":
        return 1
    if operator == "Range":
        start, limit, delta = (float(a.item()) for a in given)
        return max(math.ceil((limit - start) / delta), 0) if delta else 0
    if operator == "Tile":
        return given[0].size * math.prod(int(times) for times in given[1])
    if operator in ("MatMul", "Gemm"):  # at most, and the work is bounded alike
        return int(given[0].size * given[1].size // max(1, *given[0].shape[-1:]))
    if operator == "Einsum":  # the work
        (equation,) = (typed(a, "s").decode() for a in node.attribute)
        if "." in equation:
            raise ValueError(equation)
        names = equation.replace(" ", "").partition("->")[0].split(",")
        sizes = [(k, s) for letters, a in zip(names, given, strict=True) for k, s in zip(letters, a.shape, strict=True)]
        return math.prod(max(s for k, s in sizes if k == letter) for letter in dict(sizes))
    if operator == "GatherND":
        return math.prod(given[1].shape[:-1]) * math.prod(given[0].shape[given[1].shape[-1] :])
    if operator == "Concat":
        return sum(a.size for a in given)
    if operator == "Gather":
        axis = _axis(node)
        return int(given[1].size * (given[0].size // max(given[0].shape[axis], 1)))
    if operator in BROADCAST:
        return math.prod(np.broadcast_shapes(*(a.shape for a in given)))
    return max((a.size for a in given), default=0)


def typed(attribute: Proto, field: str) -> Any:
    """What an attribute holds in the field that its operator reads; its type must say that field, too."""
    if attribute.type != FIELDS[field]:
        raise Refused(f"attribute {attribute.name!r:.40} has type {attribute.type}, expected {FIELDS[field]} ({field})")
    return getattr(attribute, field)


def _axis(node: Proto) -> int:
    return next((int(typed(a, "i")) for a in node.attribute if a.name == "axis"), 0)


def _of_batch(operand: Array | Grown | None, n: int) -> Array | None:
    """A constant for a batch of two or three, also where it holds that size, or a multiple of it, as a number."""
    if operand is None:
        return None
    if isinstance(operand, Grown):
        return operand.two if n == 2 else operand.three
    for axis, size in enumerate(operand.shape):
        if size == BATCH and operand.strides[axis] == 0:
            operand = operand[(slice(None),) * axis + (slice(n),)]
    if operand.dtype.kind != "i" or operand.size > FEW or np.iinfo(operand.dtype).max < BATCH:
        return operand
    return np.where(operand % BATCH == 0, operand // BATCH * n, operand).astype(operand.dtype)


def _for_any(two: Array, three: Array) -> Array | Grown:
    """A constant for any batch: one array where it is the same, or the same for every sample."""
    if two.ndim != three.ndim:
        raise Refused("its constant result has other axes for other batches")
    grown = [axis for axis, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if a != b]
    nan = two.dtype.kind == "f"
    if not grown and np.array_equal(two, three, equal_nan=nan):
        return two
    if not grown and two.dtype.kind == "i" and two.size <= FEW and (2 * three == 3 * two).all():  # multiples of it
        return np.asarray(two // 2 * BATCH)
    if [(two.shape[a], three.shape[a]) for a in grown] == [(2, 3)]:
        first = three.take([0], grown[0])
        if np.array_equal(np.broadcast_to(first, three.shape), three, equal_nan=nan) and np.array_equal(
            np.broadcast_to(first, two.shape), two, equal_nan=nan
        ):
            return np.broadcast_to(first, [BATCH if a in grown else s for a, s in enumerate(three.shape)])
    return Grown(two, three)


def _taken(node: Proto, operands: list[Array | None]) -> Array:
    """Elements along an axis; onnx's evaluator refuses some whose other axes have size 1."""
    data, index = (a for a in operands if a is not None)
    axis = _axis(node) % data.ndim
    corner = tuple(slice(None) if a == axis else slice(size) for a, size in enumerate(index.shape))
    return np.asarray(np.take_along_axis(data[corner], index, axis))


def _expanded(operands: list[Array | None]) -> Array:
    """Both the data and the shape may have axes of size 1 where the other has more."""
    data, shape = (a for a in operands if a is not None)
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(int(s) for s in shape)))
