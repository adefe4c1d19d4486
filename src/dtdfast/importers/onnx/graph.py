"""One node of an ONNX graph as its reader sees it: operands, attributes of a checked type, and the layer list that it
adds to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...layers import Layer
from ...plan.shapes import Shape
from ..functions import Function
from ..records import Layers, Refused, Value

Array = NDArray[Any]

BATCH = 16_777_213
"""Stands for an open batch axis in shape arithmetic: prime, and exact in int32 and float32, so that nothing else turns
into it."""

IGNORED = frozenset(("momentum", "ratio", "seed", "storage_order", "saturate", "round_mode", "consumed_inputs"))
"""Attributes without a meaning for the values of the operators read here; storage_order is that of a pool's winners."""


FLAGS = frozenset(
    ("keepdims", "noop_with_empty_axes", "transA", "transB", "ceil_mode", "count_include_pad", "upper", "exclusive",
    "reverse", "allowzero",
     "training_mode", "spatial", "antialias", "exclude_outside", "is_test", "broadcast", "is_causal", "interleaved")
)  # fmt: skip


@dataclass(frozen=True)
class Turned:
    """A value whose batch axis is not the first of its tensor, or is merged there with others.

    Attributes
    ----------
    value : the batch axis first; then the axes that are merged before it and behind it; then the others
    place : of the batch axis in the tensor
    before, after : how many axes are merged before it, and behind it (0 or 1)
    """

    value: Value | Function
    place: int
    before: int = 0
    after: int = 0


@dataclass(frozen=True, eq=False)
class Grown:
    """A constant that follows the open batch axis, and is not the same for every sample.

    Attributes
    ----------
    two, three : what it is for a batch of two, and of three
    """

    two: Array
    three: Array


Operand = Value | Turned | Function | Grown | Array


@dataclass(eq=False)
class Node:
    """A node with its operands.

    Attributes
    ----------
    operands : what it reads; None where an optional input is left out
    outputs : names of its outputs, empty where nobody reads one
    """

    operator: str
    name: str
    opset: int
    operands: list[Operand | None]
    outputs: list[str]
    attributes: Mapping[str, Any]
    layers: Layers
    label: str  # number, name and operator, as messages have it
    channels: int = 1  # the axis that BatchNormalization has them on, of a value whose batch axis was elsewhere
    looked_at: set[str] = field(default_factory=set)

    # ------------------------------------------------------------------------------------------------------- operands

    def operand(self, index: int) -> Operand | None:
        return self.operands[index] if index < len(self.operands) else None

    def value(self, index: int = 0) -> Value:
        operand = self.operand(index)
        if isinstance(operand, Function):
            raise operand.refused()
        if not isinstance(operand, Value):
            raise Refused(
                f"input {index} is {'missing' if operand is None else 'a constant'}, expected what an earlier layer "
                "computes"
            )
        if operand.integer:
            raise Refused("it reads the network's integer input, which only Gather (an embedding) can")
        return operand

    def constant(self, index: int, what: str) -> Array:
        found = self.optional(index, what)
        if found is None:
            raise Refused(f"{what} (input {index}) is missing")
        return found

    def optional(self, index: int, what: str) -> Array | None:
        """A constant operand, None where it is left out."""
        operand = self.operand(index)
        if isinstance(operand, (Value, Turned, Function, Grown)):
            raise Refused(f"{what} (input {index}) depends on the network's input, expected a constant")
        return operand

    def setting(self, key: str, index: int, since: int) -> tuple[int, ...] | None:
        """Integers that are an attribute before opset `since` and an input from then on."""
        if self.opset < since:
            return self.integer_list(key)
        array = self.optional(index, key)
        if array is None:
            return None
        if array.dtype.kind not in "iu" or array.size > 64 or array.ndim > 1:
            raise Refused(f"{key} is {array.dtype} of shape {array.shape}, expected a few integers")
        return tuple(int(v) for v in array.ravel())

    def of_sample(self, array: Array, what: str) -> Array:
        """A constant with a batch axis, along which it must not vary, as one sample meets it."""
        repeated = not array.strides[0] or (array.shape[0] < BATCH and bool((array == array[:1]).all()))
        if not repeated or array.shape[0] not in (1, self.layers.batch):
            raise Refused(f"{what} of shape {array.shape} may not vary along the batch axis")
        return np.asarray(array[0])

    # ----------------------------------------------------------------------------------------------------- attributes

    def _attribute(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        self.looked_at.add(key)
        value = self.attributes.get(key, default)
        items = value if isinstance(value, (list, tuple)) else [value]
        if value is not default and not all(isinstance(v, kind) for v in items):
            raise Refused(f"attribute {key} is {value!r:.60}")
        return value

    def integer(self, key: str, default: int) -> int:
        value = self._attribute(key, int, default)
        if isinstance(value, list):
            raise Refused(f"attribute {key} is {value!r:.60}, expected one integer")
        if key in FLAGS and value not in (0, 1):
            raise Refused(f"attribute {key} is {value!r:.60}, expected 0 or 1")
        return int(value)

    def integer_list(self, key: str) -> tuple[int, ...] | None:
        value = self._attribute(key, int, None)
        if value is not None and (not isinstance(value, list) or len(value) > 64):
            raise Refused(f"attribute {key} is {value!r:.60}, expected a few integers")
        return None if value is None else tuple(value)

    def per_axis(self, key: str, n: int, default: int) -> tuple[int, ...]:
        """One integer per spatial axis."""
        values = self.integer_list(key)
        if values is not None and len(values) != n:
            raise Refused(f"attribute {key} is {values}, expected {n} integers (one per spatial axis)")
        return (default,) * n if values is None else values

    def number(self, key: str, default: float) -> float:
        value = self._attribute(key, (float, int), default)
        if isinstance(value, list) or not math.isfinite(value):
            raise Refused(f"attribute {key} is {value!r:.60}, expected one finite number")
        return float(f"{value:.7g}")  # the file has float32: read 1e-05, not 9.999999747378752e-06

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self._attribute(key, (float, int), [])
        if not isinstance(value, list) or len(value) > 64:
            raise Refused(f"attribute {key} is {value!r:.60}, expected a few numbers")
        return tuple(value)

    def text(self, key: str, default: str) -> str:
        value = self._attribute(key, bytes, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def check_all_read(self) -> None:
        """An attribute that its reader never asked for might change the result."""
        if unread := self.attributes.keys() - self.looked_at - IGNORED:
            raise Refused(f"attribute {min(unread)} of this operator is not known")

    # -------------------------------------------------------------------------------------------------------- results

    def add(self, cls: type[Layer], *sources: Value, **fields: Any) -> Value:
        return self.layers.add(cls, sources, self.name, **fields)

    def axis(self, axis: int, rank: int) -> int:
        """An axis, the batch counted, without the batch itself."""
        index = counted(axis, rank)
        if index == 0:
            raise Refused("it works along the batch axis (0)")
        return index

    def full(self, x: Operand) -> tuple[int, ...]:
        """The shape of a tensor, the batch axis counted."""
        return full_shape(x, self.layers.batch)


def batch_of_check(batch: int) -> int:
    """The samples of a check's input: two where the batch is open."""
    return 2 if batch == BATCH else batch


def full_shape(x: Operand, batch: int) -> tuple[int, ...]:
    if isinstance(x, Grown):
        return tuple(a if a == b else a // 2 * batch for a, b in zip(x.two.shape, x.three.shape, strict=True))
    if isinstance(x, np.ndarray):
        return x.shape
    if isinstance(x, Turned):
        merged, others = x.value.shape[: x.before + x.after], x.value.shape[x.before + x.after :]
        return (*others[: x.place], batch * math.prod(merged), *others[x.place :])
    return (batch, *x.shape)


Reader = Callable[[Node], Operand | tuple[Operand | None, ...]]
"""What reads one operator: adds records, and returns the node's output or outputs."""


def counted(axis: int, rank: int) -> int:
    """An axis, the batch counted, from the front."""
    if not -rank <= axis < rank:
        raise Refused(f"axis is {axis}, but its input has {rank} axes")
    return axis % rank


def rank(value: Value | Function) -> int:
    """Axes, the batch counted."""
    return len(value.shape) + 1


def space(value: Value) -> Shape:
    """Spatial sizes of (n, channels, *space)."""
    if not 1 <= len(value.shape) - 1 <= 3:
        raise Refused(
            f"its input has shape {('n', *value.shape)}, expected (n, channels, *space) with 1 to 3 spatial axes"
        )
    return value.shape[1:]


def scalar(array: Array, what: str) -> float:
    if array.size != 1:
        raise Refused(f"{what} has shape {array.shape}, expected one number")
    return float(array.ravel()[0])


def weights(array: Array, what: str) -> Array:
    if array.dtype not in (np.float32, np.float64):
        raise Refused(f"{what} has type {array.dtype}, expected floats")
    return array
