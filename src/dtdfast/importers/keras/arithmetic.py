"""What Keras's arithmetic becomes: sums, products and extremes of tensors and constants, choices by a mask, products in
index notation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ... import layers as L
from .. import algebra, products
from ..records import Add, Refused, Value
from ..refused import CHOICE
from .call import Array, Call, Handler, Tensor
from .layers import scaled, together

# -------------------------------------------------------------------------------------------------- sums and products


def operands(call: Call) -> list[Tensor | Array]:
    """The arguments that are tensors or constants, lists of them taken apart."""
    tensors = iter(call.tensors)
    flat = [a for given in call.arguments for a in (given if isinstance(given, (list, tuple)) else [given])]
    return [next(tensors) if hasattr(a, "_keras_history") else call.constant(a) for a in flat]


def _pair(call: Call) -> tuple[Tensor | Array, Tensor | Array]:
    a, b = operands(call)[:2]
    return a, b


def _both(call: Call) -> tuple[list[Value], bool]:
    """Two tensors in one order of axes."""
    a, b = call.tensors
    algebra.aligned(a.value, b.value)
    return together(call)


def _sum(factor: float) -> Handler:
    """The sum a + factor·b; one of them may be constant."""

    def handle(call: Call) -> Tensor:
        a, b = _pair(call)
        if not isinstance(a, Tensor):
            assert isinstance(b, Tensor)
            return scaled(call, b, factor, a)
        if not isinstance(b, Tensor):
            return scaled(call, a, 1.0, factor * b)
        (x, y), moved = _both(call)
        return Tensor(algebra.difference(call.add, x, y, -factor), moved)

    return handle


def _times(call: Call) -> Tensor:
    a, b = _pair(call)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        values, moved = _both(call)
        return Tensor(call.add(L.Mul, *values), moved)
    x, factor = (a, b) if isinstance(a, Tensor) else (b, a)
    assert isinstance(x, Tensor)
    return scaled(call, x, factor, 0.0)


def _over(call: Call) -> Tensor:
    a, b = _pair(call)
    if not isinstance(a, Tensor) or isinstance(b, Tensor) or not b.all():
        raise Refused("only a division by constants other than 0 has a record")
    return scaled(call, a, 1 / b, 0.0)


def _power(call: Call) -> Tensor:
    a, b = _pair(call) if type(call.layer).__name__ == "Power" else (call.x, np.float64(2))
    if not isinstance(a, Tensor) or isinstance(b, Tensor) or b.size != 1 or b not in (1, 2):
        raise Refused("the power has no record; 1 and 2 have")
    return a if b == 1 else Tensor(call.add(L.Mul, a.value, a.value), a.moved)


# ----------------------------------------------------------------------------------------------- extremes and choices


def _elementwise(make: Callable[[Add, Value], Value]) -> Handler:
    return lambda call: Tensor(make(call.add, algebra.vector(call.x.value)), call.x.moved)


def _extreme(largest: bool) -> Handler:
    """The larger, or smaller, of two tensors; one may be constant."""

    def handle(call: Call) -> Tensor:
        a, b = _pair(call)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            values, moved = _both(call)
            return Tensor((algebra.larger if largest else algebra.smaller)(call.add, values), moved)
        x, bound = (a, b) if isinstance(a, Tensor) else (b, a)
        assert isinstance(x, Tensor)
        assert not isinstance(bound, Tensor)
        return _bounded(call, x, bound if largest else None, None if largest else bound)

    return handle


def _bounded(call: Call, x: Tensor, low: Array | None, high: Array | None) -> Tensor:
    """Numbers leave the order of axes as it is."""
    given = [a for a in (low, high) if a is not None]
    if all(a.size == 1 for a in given):
        numbers = (None if a is None else float(a.reshape(())) for a in (low, high))
        return Tensor(algebra.bounded(call.add, algebra.vector(x.value), *numbers), x.moved)
    value = call.records.plain(x)
    for bound, apply in ((low, algebra.at_least), (high, algebra.at_most)):
        if bound is not None:
            value = apply(call.add, value, algebra.of_sample(bound, len(x.shape), call.n_batch))
    return Tensor(value)


def _clip(call: Call) -> Tensor:
    low, high = (None if a is None else call.constant(a) for a in (call.x_min, call.x_max))
    return _bounded(call, call.x, low, high)


def _where(call: Call) -> Tensor:
    condition, *rest = operands(call)
    if isinstance(condition, Tensor):
        raise Refused(CHOICE)
    a, b = (call.records.plain(o) if isinstance(o, Tensor) else o for o in rest)
    return Tensor(algebra.chosen(call.add, condition, a, b, call.n_batch))


# ----------------------------------------------------------------------------------------------------------- products


def _factors(call: Call) -> tuple[Tensor, Array, bool]:
    """The tensor, the constant, and whether that stands left."""
    a, b = _pair(call)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        raise Refused("of two tensors it has no record; use matmul or einsum, which multiply sample by sample")
    if isinstance(a, Tensor):
        assert not isinstance(b, Tensor)
        return a, b, False
    assert isinstance(b, Tensor)
    return b, a, True


def _dot(call: Call) -> Tensor:
    """Over the last axis of the left and the last but one of the right."""
    x, weight, left = _factors(call)
    if left:
        raise Refused("the batch axis does not stay first; use matmul for a constant matrix from the left")
    if not weight.ndim:
        return scaled(call, x, weight, 0.0)
    axes = [len(x.shape)], [max(weight.ndim - 2, 0)]
    return Tensor(products.tensordot(call.add, call.records.plain(x), weight, *axes))


def _tensordot(call: Call) -> Tensor:
    x, weight, left = _factors(call)
    rank, given = len(x.shape) + 1, call.axes
    if isinstance(given, int):
        first, second = weight.ndim if left else rank, given
        given = list(range(first - second, first)), list(range(second))
    pairs = [list(a) if isinstance(a, (list, tuple)) else [a] for a in given]
    of_x, of_weight = pairs[::-1] if left else pairs
    of_x, of_weight = [a % rank for a in of_x], [a % weight.ndim for a in of_weight]
    return Tensor(products.tensordot(call.add, call.records.plain(x), weight, of_x, of_weight, left))


def _einsum(call: Call) -> Tensor:
    parts = [call.records.plain(o) if isinstance(o, Tensor) else o for o in operands(call)]
    return Tensor(products.einsum(call.add, call.subscripts, parts, call.n_batch))


HANDLERS: dict[str, Handler] = {
    "ops.Add": _sum(1.0),
    "ops.Subtract": _sum(-1.0),
    "ops.Multiply": _times,
    **dict.fromkeys(("ops.Divide", "ops.TrueDivide"), _over),
    "ops.Negative": lambda call: scaled(call, call.x, -1.0, 0.0),
    **dict.fromkeys(("ops.Power", "ops.Square"), _power),
    **dict.fromkeys(("ops.Absolute", "ops.Abs"), _elementwise(algebra.absolute)),
    "ops.Maximum": _extreme(True),
    "ops.Minimum": _extreme(False),
    "ops.Clip": _clip,
    "ops.Where": _where,
    "ops.Dot": _dot,
    "ops.Tensordot": _tensordot,
    "ops.Einsum": _einsum,
}
