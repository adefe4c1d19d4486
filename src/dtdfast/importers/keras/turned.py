"""Keras tensors whose batch axis is not the first for a while: no record holds one, but a later transpose may move it
back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import layers as L
from ..records import Refused, Turned
from .call import Call, Handler, Tensor

ORDERS: dict[str, Callable[[Call, Any], Any]] = {  # what each makes of an array
    "ops.Transpose": lambda call, x: np.transpose(x, call.axes),
    "ops.Swapaxes": lambda call, x: np.swapaxes(x, call.axis1, call.axis2),
    "ops.Moveaxis": lambda call, x: np.moveaxis(x, call.source, call.destination),
}
ELEMENTWISE = {
    "Activation", "Add", "Average", "Dropout", "ELU", "Identity", "LeakyReLU", "Maximum", "Minimum", "ReLU",
    "Subtract", "ops.Abs",
    "ops.Absolute", "ops.Add", "ops.Cast", "ops.Celu", "ops.Clip", "ops.Divide", "ops.Elu", "ops.Gelu",
    "ops.HardSigmoid",
    "ops.HardSilu", "ops.HardTanh", "ops.LeakyRelu", "ops.Maximum", "ops.Minimum", "ops.Multiply", "ops.Negative",
    "ops.Relu",
    "ops.Relu6", "ops.Selu", "ops.Sigmoid", "ops.Silu", "ops.Softplus", "ops.Softsign", "ops.StopGradient",
    "ops.Subtract", "ops.Tanh",
    "ops.TrueDivide",
}  # fmt: skip


def transposed(kind: str, call: Call, tensor: Tensor | Turned) -> Tensor | Turned:
    """Axes in another order; nothing is added where the batch axis does not stay first."""
    before = tensor.order if isinstance(tensor, Turned) else tuple(range(len(tensor.shape) + 1))
    value = tensor.value if isinstance(tensor, Turned) else call.records.plain(tensor)
    places = ORDERS[kind](call, np.empty([2 + axis for axis in range(len(before))])).shape
    order = tuple(before[size - 2] for size in places)
    if order[0] != 0:
        return Turned(value, order)
    return Tensor(value if order == tuple(range(len(order))) else call.add(L.Permute, value, order=order))


def straight(kind: str, call: Call, tensors: list[Tensor | Turned], handler: Handler) -> Turned:
    """A call with turned operands, which works element by element: the same call with the batch axis first, and its
    result turned.
    """
    orders = {t.order if isinstance(t, Turned) else None for t in tensors}
    (order, *others) = orders
    constants = [
        a
        for a in call.arguments
        if not hasattr(a, "_keras_history") and np.size(a) > 1 and not isinstance(a, (list, tuple))
    ]
    if kind not in ELEMENTWISE or others or order is None or constants:
        place = next(t.order.index(0) for t in tensors if isinstance(t, Turned))
        raise Refused(f"its operand has the batch axis at place {place}; transpose it back before this operation")
    inner = [Tensor(t.value) for t in tensors if isinstance(t, Turned)]
    result = handler(call.of(inner))
    assert isinstance(result, Tensor)
    return Turned(call.records.plain(result), order)


def as_turned(turned: Turned, sizes: tuple[int | None, ...]) -> bool:
    """Whether Keras gives it the same sizes."""
    full = (None, *turned.value.shape)
    return len(sizes) == len(full) and all(
        s is None or full[a] in (None, s) for s, a in zip(sizes, turned.order, strict=True)
    )
