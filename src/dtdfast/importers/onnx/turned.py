"""Values whose batch axis a Transpose has moved away from the front, or a Reshape has merged with others: no record
holds one, but most operators work on what is behind it, and later nodes bring the batch axis back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ..algebra import permuted, reshaped
from ..functions import Function
from ..products import batch_first
from ..records import Refused, Value
from .graph import BATCH, Array, Grown, Node, Operand, Reader, Turned, counted
from .moves import goal

ELEMENTWISE = {
    "Abs", "Add", "Cast", "CastLike", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Exp", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish", "Mul",
    "Neg", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish",
    "Tanh", "ThresholdedRelu", "Where",
}  # fmt: skip
BY_ATTRIBUTE = {"Concat": 1, "Gather": 0, "GatherElements": 0, "LogSoftmax": -1, "Softmax": -1, "Split": 0}
"""Operators along the axis of attribute axis → its default."""
ALONG = ("Slice",)
"""Operators along several axes, of which each has numbers of its own."""
TRAILING = ("LayerNormalization", "RMSNormalization")
"""Operators over the axis of attribute axis and all behind it."""
BY_AXES = {"ReduceL1": 18, "ReduceL2": 18, "ReduceMax": 18, "ReduceMean": 18, "ReduceMin": 18, "ReduceSum": 13,
           "ReduceSumSquare": 18}  # fmt: skip
"""Operators along several axes → the opset from which they are an input."""
MEETING = {*ELEMENTWISE, "GatherElements", "MatMul"}
"""Operators whose constants may have the merged axes, and so grow with the batch."""
Result = Operand | tuple[Operand | None, ...]
RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def view(value: Value | Function, place: int, before: int = 0, after: int = 0) -> Operand:
    """A value, or what stands for it."""
    return Turned(value, place, before, after) if place or before or after else value


def parts(x: Operand | None) -> tuple[Value | Function, int, int, int]:
    """(value, place of the batch axis, how many axes are merged before it, and behind it)."""
    if isinstance(x, Turned):
        return x.value, x.place, x.before, x.after
    if not isinstance(x, (Value, Function)):
        what = "missing" if x is None else "a constant"
        raise Refused(f"its input is {what}, expected what an earlier layer computes")
    return x, 0, 0, 0


# ----------------------------------------------------------------------------------------------------------- moves


def transpose(node: Node) -> Operand:
    """The axes in another order, the batch axis as any other."""
    value, place, before, after = parts(node.operands[0])
    axes = len(node.full(view(value, place, before, after)))
    order = node.integer_list("perm") or tuple(reversed(range(axes)))
    if sorted(order) != list(range(axes)):
        raise Refused(f"attribute perm is {order}, but its input has {axes} axes")
    merged = before + after
    others = [a for a in order if a != place]
    moved = [*range(merged), *(merged + a - (a > place) for a in others)]
    if moved != sorted(moved):
        value = permuted(node.add, plain(value), moved)
    return view(value, order.index(place), before, after)


def plain(value: Value | Function) -> Value:
    """What can be moved."""
    if isinstance(value, Function):
        raise value.refused()
    if value.integer:
        raise Refused("it reads the network's integer input, which only Gather (an embedding) can")
    return value


def reshape(node: Node) -> Operand:
    """To any shape in which the batch axis is found again, perhaps merged with others."""
    value, place, before, after = parts(node.operands[0])
    full = node.full(view(value, place, before, after))
    target = goal(node, full)
    if target == full:
        return view(value, place, before, after)
    inner = value.shape
    merged, others = inner[: before + after], inner[before + after :]
    outer = math.prod(others[:place]) * math.prod(merged[:before])
    found = list(_places(target, outer, node.layers.batch, math.prod(inner)))
    if not found:
        raise Refused(f"it would mix or remove the batch axis: {_text(node, full)} to {_text(node, target)}")
    new, more_before, more_after = min(found, key=lambda p: (p[1] * p[2] > 1, p[0]))
    rest = target[:new], target[new + 1 :]
    # as the elements lie in the tensor, without the batch axis
    first, last = range(before + after, before + after + place), range(before + after + place, len(inner))
    order = [*first, *range(before + after), *last]
    lies = [*rest[0], *(size for size in (more_before, more_after) if size > 1), *rest[1]]
    n_merged = (more_before > 1) + (more_after > 1)
    back = [*range(new, new + n_merged), *range(new), *range(new + n_merged, len(lies))]
    if order == sorted(order) and back == sorted(back):
        made: Value | Function = _under(node, value, tuple(lies))
    else:
        apart = permuted(node.add, plain(value), order)
        made = permuted(node.add, _under(node, apart, tuple(lies)), back)
    return view(made, new, int(more_before > 1), int(more_after > 1))


def _under(node: Node, value: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(value, Function) or (isinstance(value, Value) and not shape):
        return value.under(shape)
    if value.shape == shape:
        return value
    value = plain(value)
    made = reshaped(node.add, value if value.shape else value.under((1,)), shape)
    return made.under(shape)


def _places(target: tuple[int, ...], outer: int, batch: int, size: int) -> Iterable[tuple[int, int, int]]:
    """(place of the batch axis, elements merged before it, elements merged behind it) wherever it may be in a shape.

    Parameters
    ----------
    outer : elements before the batch axis
    size : of a sample
    """
    for place, extent in enumerate(target):
        ahead = math.prod(target[:place])
        if ahead and outer % ahead == 0 and extent % (outer // ahead * batch) == 0:
            before = outer // ahead
            after = extent // (before * batch)
            if ahead * before * after * math.prod(target[place + 1 :]) == size:
                yield place, before, after


def _text(node: Node, full: tuple[int, ...]) -> str:
    """A shape in which n stands for the batch axis."""
    n = node.layers.batch
    sizes = (("n" if s == n else f"{s // n}·n") if s % n == 0 and n > 1 else str(s) for s in full)
    return f"({', '.join(sizes)})"


# -------------------------------------------------------------------------------------------------- other operators


def turned(node: Node, read: Reader) -> Result:
    """A node whose operands have a turned one among them, read as it is with the batch axis first."""
    computed = [a for a in node.operands if isinstance(a, (Value, Function, Turned))]
    layouts = {_layout(a)[node.operator == "Einsum" :] for a in computed}
    if len(layouts) > 1:
        raise Refused(
            "its operands have the batch axis in different places, or merged with different axes; transpose them alike "
            "before this operator"
        )
    ranks = [len(node.full(a)) for a in computed]
    frame = Frame(node, computed[0], max(ranks))
    place = frame.place
    if place >= min(ranks):
        raise Refused("its operands have different numbers of axes")
    if node.operator in ELEMENTWISE:
        if min(ranks) < max(ranks):
            raise Refused("its operands have different numbers of axes, and their batch axes do not meet")
        made: Result = frame.back(read(frame.straight()), place)
        return made
    result: Result | None = None
    if node.operator in (*ALONG, *BY_ATTRIBUTE, *TRAILING, *BY_AXES):
        result = _along(frame, read)
    if node.operator == "Expand":
        result = _expanded(frame, read)
    if node.operator in ("MatMul", "Gemm"):
        result = _product(frame, read)
    if node.operator == "Einsum":
        result = _einsum(frame, read)
    if node.operator == "BatchNormalization" and place != 1:
        result = frame.back(read(replace(frame.straight(constants=False), channels=frame.axis(1))), place)
    if result is None:
        raise Refused(f"its input has the batch axis {frame.where}; bring it back to the front before this operator")
    return result


def _layout(x: Operand) -> tuple[Any, ...]:
    """What must be alike in operands that meet: place of the batch axis, and sizes of the axes merged with it."""
    value, place, before, after = parts(x)
    return place, value.shape[:before], value.shape[before : before + after]


class Frame:
    """How a node with turned operands is read with the batch axis first.

    Attributes
    ----------
    place, before, after : as in Turned
    merged : sizes of the axes that are merged with the batch axis
    rank : axes of the tensors, the batch counted
    """

    def __init__(self, node: Node, x: Operand, rank: int) -> None:
        self.node, self.rank = node, rank
        value, self.place, self.before, self.after = parts(x)
        self.merged = value.shape[: self.before + self.after]

    @property
    def where(self) -> str:
        return f"at place {self.place}" + (", merged with others" if self.before + self.after else "")

    def axis(self, axis: int) -> int:
        """The same axis where the batch axis is first, and merged axes come after it."""
        index = counted(axis, self.rank)
        if index == self.place:
            raise Refused(f"it works along axis {axis}, but its input has the batch axis {self.where}")
        return self.before + self.after + index + (index < self.place)

    def constant(self, array: Array | Grown) -> Array:
        """A constant that meets the tensor, as it meets one sample of the value."""
        if not isinstance(array, Grown):
            return self._of_sample(array, self.node.layers.batch)
        two, three = self._of_sample(array.two, 2), self._of_sample(array.three, 3)
        if not np.array_equal(two, three):
            raise Refused("it meets a constant that is another one in batches of another size")
        return two

    def _of_sample(self, array: Array, n: int) -> Array:
        """The same of a constant for batches of n: its batch axis may also hold the axes that are merged there."""
        reach = array.ndim - (self.rank - self.place)
        if reach < 0:
            return array
        held, there = array.shape[reach], self.place
        merged = [*self.merged[: self.before], n, *self.merged[self.before :]]
        if held == 1 or not array.strides[reach]:
            return array[(slice(None),) * reach + (0,)]  # a view: np.take copies what it reads, repeated as it is
        if held in (n, math.prod(merged)) and held <= 1 << 16 and reach <= there:
            whole = array.reshape((1,) * (there - reach) + array.shape)
            if held > n:
                whole = whole.reshape(*whole.shape[:there], *merged, *whole.shape[there + 1 :])
                there += self.before
            own = whole[(slice(None),) * there + (0,)]
            if (whole == np.expand_dims(own, there)).all():
                axes = range(self.place, self.place + (len(merged) - 1) * (held > n))
                return np.moveaxis(own, [*axes], [*range(len(axes))])
        raise Refused(f"a constant of shape {array.shape} may not vary along the batch axis")

    def straight(self, constants: bool = True, **attributes: Any) -> Node:
        """The node with what is behind its operands."""
        operands: list[Operand | None] = []
        for a in self.node.operands:
            if isinstance(a, (Value, Function, Turned)):
                a = parts(a)[0]
            elif isinstance(a, (np.ndarray, Grown)) and constants:
                a = self.constant(a)
            operands.append(a)
        return replace(self.node, operands=operands, attributes={**self.node.attributes, **attributes})

    def back(self, result: Any, place: int) -> Any:
        """Results as the node makes them."""
        if isinstance(result, tuple):
            return tuple(None if r is None else self.back(r, place) for r in result)
        if isinstance(result, (Value, Function)):
            return view(result, place, self.before, self.after)
        return self.widened(result)

    def widened(self, array: Array) -> Array:
        """A constant that the node makes: the same for every sample."""
        merged = 1 + self.before + self.after
        others = array[(0,) * merged] if array.ndim >= merged else array
        sizes = [s for a in self.node.operands if isinstance(a, Turned) for s in (self.node.full(a)[self.place],)]
        return np.broadcast_to(np.expand_dims(others, self.place), [
            *others.shape[: self.place], sizes[0], *others.shape[self.place :]
        ])  # fmt: skip


def _along(frame: Frame, read: Reader) -> Any:
    """Operators along axes that are not the batch's."""
    node, place = frame.node, frame.place
    if node.operator == "Gather" and isinstance(node.operand(1), Turned):  # an embedding
        return frame.back(read(frame.straight(constants=False)), place)
    if node.operator == "Gather" and frame.rank == 1 and node.integer("axis", 0) in (0, -1):
        return read(_picked(frame))
    if node.operator == "Slice":
        return frame.back(read(_sliced(frame)), place)
    if node.operator in BY_AXES:
        given = node.setting("axes", 1, BY_AXES[node.operator])
        if not given:
            raise Refused("it reduces all axes, the batch too")
        axes = [a + frame.rank if a < 0 else a for a in given]
        inner = frame.straight(constants=False)
        moved = [frame.axis(a) for a in axes]
        if node.opset < BY_AXES[node.operator]:
            inner = replace(inner, attributes={**inner.attributes, "axes": moved})
        else:
            inner.operands[1] = np.array(moved, np.int64)
        return frame.back(read(inner), place - (0 if node.integer("keepdims", 1) else sum(a < place for a in axes)))
    axis = node.integer("axis", BY_ATTRIBUTE.get(node.operator, -1))
    if node.operator in ("Softmax", "LogSoftmax") and node.opset < 13:
        axis = node.integer("axis", 1)
        if axis not in (-1, frame.rank - 1):
            raise Refused("before opset 13 it joins all axes from its own on, which may not be turned ones")
    index = axis + frame.rank if axis < 0 else axis
    if node.operator in TRAILING and place >= index:
        raise Refused("it works along the batch axis")
    inner = frame.straight(constants=False, axis=frame.axis(axis))
    if node.operator == "Concat":
        inner.operands = [_beside(frame, a) if isinstance(a, np.ndarray) else a for a in inner.operands]
    if node.operator == "GatherElements":
        indices = node.operand(1)
        inner.operands[1] = _beside(frame, indices) if isinstance(indices, (np.ndarray, Grown)) else indices
    if node.operator == "Gather":
        indices = node.operand(1)
        if not isinstance(indices, np.ndarray):
            raise Refused("its indices are computed; only the network's integer input can index a table")
        place += (indices.ndim - 1) * (index < place)
    return frame.back(read(inner), place)


def _picked(frame: Frame) -> Node:
    """Elements of all samples, numbered through (as as_strided is written), that every sample takes of its own."""
    indices, n, size = frame.node.operand(1), frame.node.layers.batch, math.prod(frame.merged)
    if isinstance(indices, np.ndarray) and indices.ndim and len(indices) == n < BATCH:
        own = indices[0]
        first = size * np.arange(n).reshape(n, *(1,) * own.ndim)
        if own.size and own.min() >= 0 and own.max() < size and (indices == own + first).all():
            inner = frame.straight(constants=False, axis=1)
            inner.operands[1] = own
            return inner
    raise Refused("it numbers the elements of all samples, and takes some from one sample to another")


def _sliced(frame: Frame) -> Node:
    node = frame.node
    starts = node.setting("starts", 1, 10) or ()
    axes = [frame.axis(a) for a in node.setting("axes", 3, 10) or range(len(starts))]
    if node.opset < 10:
        return frame.straight(axes=axes)
    inner = frame.straight(constants=False)
    inner.operands[3:4] = [np.array(axes, np.int64)]
    return inner


def _beside(frame: Frame, array: Array | Grown) -> Array:
    """A constant beside turned values, as it stands beside what is behind them."""
    sample = frame.constant(array)
    merged = frame.merged[: len(frame.merged) + frame.rank - 1 - sample.ndim]  # those that it does not have itself
    return np.broadcast_to(sample, (frame.node.layers.batch, *merged, *sample.shape))


def _expanded(frame: Frame, read: Reader) -> Any:
    """Axes that are not the batch's, repeated."""
    target, place = frame.node.setting("shape", 1, 8), frame.place
    if target is None or len(target) > frame.rank:
        return None
    full = frame.node.full(view(*parts(frame.node.operands[0])))
    wide = [max(t, s) for t, s in zip((1,) * (frame.rank - len(target)) + target, full, strict=True)]
    if wide[place] != full[place]:
        return None
    inner = frame.straight(constants=False)
    inner.operands[1] = np.array([frame.node.layers.batch, *frame.merged, *wide[:place], *wide[place + 1 :]], np.int64)
    return frame.back(read(inner), place)


def _product(frame: Frame, read: Reader) -> Any:
    """Matrix products whose matrices do not lie along the batch axis."""
    node = frame.node
    left, right = node.operand(0), node.operand(1)
    own = 1 if isinstance(right, np.ndarray) and right.ndim <= 2 else 2
    if frame.place >= frame.rank - own or (isinstance(left, np.ndarray) and left.ndim < 2):
        return None
    if node.operator == "Gemm":
        return frame.back(read(frame.straight(constants=False)), frame.place) if isinstance(left, Turned) else None
    return frame.back(read(frame.straight(constants=own == 2)), frame.place)


def _einsum(frame: Frame, read: Reader) -> Any:
    """The same sum of operands that have the batch axis first."""
    node = frame.node
    ranks = [len(node.full(a)) for a in node.operands if a is not None]
    places = {i: parts(a)[1] for i, a in enumerate(node.operands) if isinstance(a, (Value, Function, Turned))}
    equation, place = batch_first(node.text("equation", ""), ranks, places, len(frame.merged), leading=True)
    inner = frame.straight(constants=False, equation=equation.encode())
    return frame.back(read(inner), place)


OPERATORS: dict[str, Reader] = {"Transpose": transpose, **dict.fromkeys(RESHAPES, reshape)}
"""What reads turned values as they are."""
