"""Tensors whose batch axis is not the first for a while: transposed, computed with, and transposed back.

Records keep the batch first. A `Turned` value is one of them together with the place where PyTorch has its batch axis,
so that a permutation of axes with the batch among them costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ... import layers as L
from ...plan.shapes import Shape
from ..records import Refused, Value
from .call import Call, Pieces, Records

PERMUTES = ("permute", "transpose", "t", "numpy_T")
ALONG = [
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "select",
    "slice",
    "softmax",
    "log_softmax",
    "cat",
    "flip",
    "cumsum",
    "split",
    "split_with_sizes",
    "unbind",
    "glu",
    "index_select",
]  # by dim
POINTWISE = [
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "neg",
    "relu",
    "relu6",
    "clamp",
    "clamp_min",
    "clamp_max",
    "hardtanh",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "sigmoid",
    "hardsigmoid",
    "hardswish",
    "tanh",
    "softplus",
    "softsign",
    "abs",
    "maximum",
    "minimum",
    "where",
    "masked_fill",
    "clone",
    "detach",
    "_to_copy",
    "alias",
    "contiguous",
    "type_as",
    "to",
    "dropout",
]


@dataclass(frozen=True)
class Turned:
    """A value whose batch axis stands at `axis`, which is not 0."""

    value: Value
    axis: int

    def full(self, n_batch: int) -> Shape:
        return (*self.value.shape[: self.axis], n_batch, *self.value.shape[self.axis :])


def _with(value: Value, axis: int) -> Value | Turned:
    return Turned(value, axis) if axis else value


def permuted(records: Records, call: Call) -> Value | Turned:
    """The axes in another order, the batch axis as any other."""
    x = call.self
    value, axis = (x.value, x.axis) if isinstance(x, Turned) else (x, 0)
    labels = list(range(1, len(value.shape) + 1))
    labels.insert(axis, 0)
    order = list(range(len(labels)))
    if call.name == "permute":
        order = [d % len(labels) for d in call.dims]
    elif len(labels) > 1:
        a, b = (call.dim0, call.dim1) if call.name == "transpose" else (0, 1)
        order[a], order[b] = order[b], order[a]
    new = [labels[o] for o in order]
    sample = [k for k in new if k]
    if sample != sorted(sample):
        value = records.add(L.Permute, value, order=(0, *sample))
    return _with(value, new.index(0))


def turned(records: Records, call: Call, full: Shape, handler: Callable[[Records, Call], Value | Pieces]) -> Any:
    """A call with turned operands: the same call with the batch axis first, and its result turned.

    Parameters
    ----------
    full : shape of the (first) result, the batch axis counted
    """
    operands = _operands(call.arguments)
    axes = {o.axis if isinstance(o, Turned) else 0 for o in operands}
    if len(axes) > 1:
        raise Refused("it meets tensors whose batch axes stand in different places; transpose one of them first")
    (axis,) = axes
    n_axes = len(operands[0].value.shape) + 1
    # the constants of other operators have axes of their own
    with_constants = call.name in POINTWISE or call.name == "cat"
    arguments = {key: _straight(value, axis, n_axes, with_constants) for key, value in call.arguments.items()}
    after = axis
    if call.name in ALONG and "dim" in arguments:
        dims = arguments["dim"] if isinstance(arguments["dim"], list) else [arguments["dim"]]
        dims = [d % n_axes for d in dims]
        if axis in dims:
            raise Refused("it works along the batch axis, so that samples would be mixed or taken apart")
        moved = [d + 1 if d < axis else d for d in dims]
        arguments["dim"] = moved if isinstance(arguments["dim"], list) else moved[0]
        after = axis - (sum(d < axis for d in dims) if len(full) < n_axes else 0)
    elif call.name in ("linear", "matmul", "mm"):
        left = not isinstance(call.arguments["input" if call.name == "linear" else "self"], Turned)
        if axis == n_axes - 1 and left:  # weight @ x.t() is a linear layer of x
            return _with(
                records.add(L.Linear, operands[0].value, weight=records.array(call.self, "self operand")), axis
            )
        if axis >= n_axes - 1 - left:
            raise Refused("it sums over the batch axis, so that samples would be mixed")
    elif call.name not in POINTWISE or len(full) != n_axes:
        raise Refused(
            f"its operand has the batch axis at place {axis}; transpose it to the first before this operation"
        )
    inner = Call(call.name, arguments, full[:after] + full[after + 1 :], call.users, call.target)
    result = handler(records, inner)
    if isinstance(result, Pieces):
        return Pieces([partial(_later, piece, after) for piece in result])
    return _with(result, after)


def _later(piece: Callable[[], Value], axis: int) -> Any:
    return _with(piece(), axis)


def _operands(arguments: dict[str, Any]) -> list[Any]:
    flat = [v for a in arguments.values() for v in (a if isinstance(a, list) else [a])]
    return [v for v in flat if isinstance(v, (Value, Turned))]


def _straight(value: Any, axis: int, n_axes: int, constants: bool) -> Any:
    """An argument as the batch-first call takes it; constants that have as many axes as their batch partner turn with
    it.
    """
    if isinstance(value, Turned):
        return value.value
    if isinstance(value, list):
        return [_straight(v, axis, n_axes, constants) for v in value]
    if constants and hasattr(value, "ndim") and n_axes - 1 - axis < value.ndim <= n_axes:
        full: Sequence[int] = (1,) * (n_axes - value.ndim) + tuple(value.shape)
        return value.reshape(full).movedim(axis, 0)
    return value
