"""Masks of the sample in ONNX graphs: compared, turned round, joined, filled in, and taken at places."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ... import layers as L
from .. import masks
from ..algebra import reshaped
from ..masks import both, filled, turned_round
from ..records import Refused, Value
from .arithmetic import placed
from .graph import Array, Grown, Node, Operand, Turned
from .tensors import BOOL, TOKENS
from .turned import RESHAPES

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
}
TAKEN = ("GatherND", "Gather")
OF_MASKS = {*COMPARED, *TAKEN, "Not", "And", "Mul", "Where", "Sub", "Add"}
PLACES = "it takes other elements of a mask than a table of places, the same for all samples, in their order"
MOVED = (*RESHAPES, "Cast", "Identity", "Transpose", "Expand", "Slice", "Tile")
"""Operators whose results are 0 and 1 where their operand's are."""


def is_mask(x: Any) -> bool:
    value = x.value if isinstance(x, Turned) else x
    return isinstance(value, Value) and (value.truth or value.hides)


def truth(node: Node) -> Operand | None:
    """What an operator makes of a mask; None where it takes it for numbers."""
    x = node.operand(0)
    other = node.operand(1)
    if node.operator in COMPARED:
        return _compared(node)
    if node.operator == "Not":
        return turned_round(node.add, node.value())
    if node.operator == "And" or (
        node.operator == "Mul" and all(isinstance(a, Value) and a.truth for a in node.operands)
    ):
        return _joined(node, node.operands)
    if node.operator == "Sub" and isinstance(x, np.ndarray) and isinstance(other, Value) and other.truth:
        return turned_round(node.add, other) if (x == 1).all() else None
    if node.operator == "Where" and isinstance(x, Value) and x.truth:
        return _chosen(node, x)
    if node.operator == "Add" and any(isinstance(a, Value) and a.hides for a in node.operands):
        return _hidden(node)
    if node.operator in TAKEN and is_mask(x):
        return _taken(node)
    return None


def _compared(node: Node) -> Value | None:
    """A mask with a number."""
    pair = list(node.operands)
    first = isinstance(pair[0], Value)
    mask, number = pair if first else pair[::-1]
    if not isinstance(mask, Value) or not isinstance(number, np.ndarray) or number.size != 1:
        raise Refused("it compares a mask with something else than a number")
    compare, by = COMPARED[node.operator], float(number.reshape(-1)[0])
    outcome = [bool(compare(v, by) if first else compare(by, v)) for v in (0, 1)]
    if outcome[0] == outcome[1]:
        raise Refused("it compares a mask of 0 and 1 with another number")
    return replace(mask, truth=True) if outcome[1] else turned_round(node.add, mask)


def _joined(node: Node, pair: list[Operand | None]) -> Value:
    a, b = pair if isinstance(pair[0], Value) else pair[::-1]
    if not isinstance(a, Value):
        raise Refused("its operands have their batch axes in different places")
    if isinstance(b, Value):
        return both(node.add, a, b, tuple(np.broadcast_shapes(a.shape, b.shape)))
    if not isinstance(b, np.ndarray):
        raise Refused("its operands have their batch axes in different places")
    full = (1,) * max(0, b.ndim - 1 - len(a.shape)) + a.shape
    a = reshaped(node.add, a, full)
    table = placed(node, b, a)
    return both(node.add, a, np.asarray(table), tuple(np.broadcast_shapes(table.shape, a.shape)))


def _chosen(node: Node, mask: Value) -> Value:
    """By a mask one of two, of which one is a number."""
    a, b = node.operand(1), node.operand(2)
    if isinstance(a, Value) and isinstance(b, np.ndarray):
        return filled(node.add, a, mask, _table(node, b, mask), where=0)
    if isinstance(b, Value) and isinstance(a, np.ndarray):
        return filled(node.add, b, mask, _table(node, a, mask), where=1)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return masks.chosen(node.add, mask, *(_table(node, c, mask) for c in (a, b)))
    raise Refused("its condition is a mask, and both it chooses from are computed")


def _table(node: Node, constant: Array, mask: Value) -> Array:
    return np.asarray(placed(node, constant, mask), np.float64)


def _hidden(node: Node) -> Value:
    """The sum of scores, or of a constant mask, and a mask written as 0 and −∞."""
    pair = list(node.operands)
    second = isinstance(pair[1], Value) and pair[1].hides
    mask, x = (pair[1], pair[0]) if second else (pair[0], pair[1])
    assert isinstance(mask, Value)
    if isinstance(x, Value):
        return masks.added(node.add, x, mask)
    if not isinstance(x, np.ndarray):
        raise Refused("its operands have their batch axes in different places")
    table = _table(node, x, mask)
    if not (np.isneginf(table) | (table == 0)).all():
        raise Refused("it adds numbers to a mask of 0 and −∞; add them to the scores first")
    return masks.hiding(_joined(node, [replace(mask, hides=False), table == 0]))


def _taken(node: Node) -> Value:
    """mask[samples, places], the samples in their order: places of the mask's one axis in any shape. Exporters write it
    as a GatherND, or as a Gather of all samples' elements in a row.
    """
    x, index = node.operand(0), node.operand(1)
    two, three = (index.two, index.three) if isinstance(index, Grown) else (index, index)
    mask: Any = x.value if isinstance(x, Turned) else x
    size, ones = mask.shape[0], mask.shape[1:]
    if max(ones, default=1) == 1 and isinstance(two, np.ndarray) and isinstance(three, np.ndarray):
        if node.operator == "GatherND" and not node.integer("batch_dims", 0) and three.shape[-1:] == (2,) and not ones:
            of_two, of_three = (a[..., 0] * size + a[..., 1] % size for a in (two, three))
        elif node.operator == "Gather" and isinstance(x, Turned) and not node.integer("axis", 0):
            of_two, of_three = two, three
        else:
            raise Refused(PLACES)
        places = of_three[0] % size
        samples = np.arange(len(of_three)).reshape(-1, *(1,) * places.ndim) * size
        grows = isinstance(index, Grown) or len(three) == node.layers.batch
        if grows and np.array_equal(of_three, samples + places) and np.array_equal(of_two, of_three[: len(of_two)]):
            if not np.array_equal(places.ravel(), np.arange(size)):
                mask = node.add(L.Gather, mask, indices=places.ravel(), axis=1)
            return replace(reshaped(node.add, mask, (*places.shape, *ones)), truth=True)
    raise Refused(PLACES)


def moved(node: Node, read: Callable[[Node], Any]) -> Any:
    """A mask, moved as numbers are; as floats it is one of numbers."""
    x = node.operands[0]
    mask: Any = x.value if isinstance(x, Turned) else x
    plain = replace(mask, truth=False, hides=False)
    operands = [replace(x, value=plain) if isinstance(x, Turned) else plain, *node.operands[1:]]
    truth = mask.truth
    if node.operator == "Cast":
        truth = node.integer("to", 0) in (*TOKENS, BOOL)
        return _flagged(node, x, replace(plain, truth=truth, hides=mask.hides))
    inner = replace(node, operands=operands)
    result = read(inner)
    value: Any = result.value if isinstance(result, Turned) else result
    return _flagged(node, result, replace(value, truth=truth, hides=mask.hides))


def _flagged(node: Node, like: Any, value: Value) -> Any:
    node.layers.masks.add(value.position)
    return replace(like, value=value) if isinstance(like, Turned) else value
