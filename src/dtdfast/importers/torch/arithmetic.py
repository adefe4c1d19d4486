"""What ATen's arithmetic, products with constants and reductions become: one row per operator, one short function per
kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ... import layers as L
from .. import algebra
from ..algebra import vector
from ..masks import lowered, quotient, unrepeated
from ..records import Refused, Value
from ..refused import FILLS
from .call import Array, Call, Handler, Pieces, Records, each, viewed
from .masks import hidden

# ----------------------------------------------------------------------------------------------------- sums, products


def constant(records: Records, x: Value, value: Any, what: str = "constant operand") -> Array:
    """A constant that meets x, as one sample meets it."""
    return algebra.of_sample(np.asarray(records.array(value, what), np.float64), len(x.shape), records.n_batch)


def affine(records: Records, call: Call, x: Value, scale: Any, shift: Any) -> Value:
    factor, offset = (constant(records, x, a) for a in (scale, shift))
    return algebra.scaled(records.add, vector(x), factor, offset, call.shape or (1,))


def added(records: Records, call: Call, a: Any, b: Any, factor: float = 1.0) -> Value:
    """The sum a + factor·b; one of them may be constant."""
    if factor == 1 and (found := hidden(records, call, [a, b])) is not None:
        return found
    if not isinstance(b, Value):
        return affine(records, call, a, 1.0, factor * constant(records, a, b))
    if not isinstance(a, Value):
        return affine(records, call, b, factor, a)
    if len(a.shape) != len(b.shape) and call.shape:
        algebra.total(records.add, a, b)  # which says why not
    return algebra.difference(records.add, vector(a), vector(b), -factor)


def number(records: Records, value: Any, what: str) -> float:
    number = records.array(value, what)
    if number.size != 1:
        raise Refused(f"its {what} has shape {number.shape}, expected one number")
    return float(number.reshape(()))


def _add(records: Records, call: Call) -> Value:
    factor = number(records, call.get("alpha") or 1, "alpha")
    return added(records, call, call.self, call.other, factor if call.name == "add" else -factor)


def _rsub(records: Records, call: Call) -> Value:
    """The difference other − alpha·self."""
    return added(records, call, call.other, call.self, -number(records, call.alpha, "alpha"))


def _mul(records: Records, call: Call) -> Value:
    return _times(records, call, call.self, call.other)


def _times(records: Records, call: Call, a: Any, b: Any) -> Value:
    if not isinstance(a, Value):
        a, b = b, a
    if not isinstance(b, Value):
        return affine(records, call, a, b, 0.0)
    a, b = (unrepeated(records.layers, v) for v in (a, b))
    if len(a.shape) != len(b.shape):
        algebra.total(records.add, a, b)
    y = records.add(L.Mul, vector(a), vector(b))
    return algebra.expanded(records.add, y, call.shape or (1,)) if call.name == "mul" else y


QUOTIENT = (
    "it divides by what is computed, and only a division by constants has a rule; "
    "divide before the network, or explain the part after it as a network of its own"
)


def _div(records: Records, call: Call) -> Value:
    if call.get("rounding_mode") is not None:
        raise Refused("it rounds, and only a true division has a rule")
    if isinstance(call.other, Value):
        made = quotient(records.add, records.layers, call.x(), call.other)
        if made is None:
            raise Refused(QUOTIENT)
        return viewed(made, call)
    divisor = np.asarray(records.array(call.other, "divisor"), np.float64)
    if not divisor.all():
        raise Refused("it divides by a constant that holds 0")
    return affine(records, call, call.x(), 1.0 / divisor, 0.0)


def _neg(records: Records, call: Call) -> Value:
    return affine(records, call, call.x(), -1.0, 0.0)


def _lerp(records: Records, call: Call) -> Value:
    """self + weight·(end − self)."""
    weight = np.asarray(records.array(call.weight, "weight"), np.float64)
    a, b = call.self, call.end
    if not isinstance(a, Value):
        return affine(records, call, b, weight, (1 - weight) * np.asarray(records.array(a, "self operand"), np.float64))
    more = (
        _times(records, call, b, weight)
        if isinstance(b, Value)
        else weight * np.asarray(records.array(b, "end"), np.float64)
    )
    return added(records, call, affine(records, call, a, 1 - weight, 0.0), more)


def _addcmul(records: Records, call: Call) -> Value:
    """self + value·tensor1·tensor2, or self + value·tensor1/tensor2."""
    a, b = call.tensor1, call.tensor2
    if call.name == "addcdiv":
        if isinstance(b, Value):
            raise Refused(QUOTIENT)
        b = 1.0 / np.asarray(records.array(b, "divisor"), np.float64)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return added(records, call, call.self, records.array(a, "tensor1") * records.array(b, "tensor2"), call.value)
    return added(records, call, call.self, _times(records, call, a, b), call.value)


def _pow(records: Records, call: Call) -> Value:
    exponent = call.get("exponent", 2) if call.name == "pow" else 2
    if exponent == 1:
        return call.x()
    if exponent != 2:
        raise Refused(f"the power {exponent} has no record; 1 and 2 have")
    return records.add(L.Mul, vector(call.x()), vector(call.x()))


# ----------------------------------------------------------------------------------------------------------- extremes


def _extreme(largest: bool) -> Handler:
    """The larger, or smaller, of two tensors; one may be constant."""

    def handle(records: Records, call: Call) -> Value:
        a, b = call.self, call.other
        if isinstance(a, Value) and isinstance(b, Value):
            if len(a.shape) != len(b.shape):
                algebra.total(records.add, a, b)
            return (algebra.larger if largest else algebra.smaller)(records.add, [vector(a), vector(b)])
        x, bound = (a, b) if isinstance(a, Value) else (b, a)
        return (algebra.at_least if largest else algebra.at_most)(records.add, vector(x), constant(records, x, bound))

    return handle


def _abs(records: Records, call: Call) -> Value:
    return algebra.absolute(records.add, vector(call.x()))


def clamped(records: Records, call: Call) -> Value:
    """Bounds that are tensors, each its own step."""
    x = call.x()
    value = vector(x)
    for apply, bound in ((algebra.at_least, call.get("min")), (algebra.at_most, call.get("max"))):
        if bound is not None:
            value = apply(records.add, value, constant(records, x, bound, "bound"))
    return value


# --------------------------------------------------------------------------------------------------------- reductions


def _axes(call: Call, dims: Any) -> tuple[int, ...]:
    """The axes that a reduction is over, the batch counted."""
    n_axes = len(call.x().shape) + 1
    given = (
        list(range(n_axes)) if dims is None or dims == [] else list(dims) if isinstance(dims, (list, tuple)) else [dims]
    )
    axes = tuple(sorted({d % n_axes for d in given}))
    if 0 in axes:
        what = "all axes" if len(axes) == n_axes else f"axes {given}"
        raise Refused(
            f"it reduces {what}, the batch axis among them, so that samples would be mixed; reduce the other axes, as "
            "with dim=1"
        )
    return axes


def _reduced(kind: str) -> Callable[[Records, Call], Value]:
    def handle(records: Records, call: Call) -> Value:
        x, axes = call.x(), _axes(call, call.get("dim"))
        x = lowered(records.add, x) if kind == "max" else x
        if all(x.shape[a - 1] == 1 for a in axes):
            return viewed(x, call)
        space = tuple(range(2, len(x.shape) + 1))
        window = tuple(s if a in axes else 1 for a, s in enumerate(x.shape[1:], 2))
        small = min(axes) > 1 and 2 <= len(x.shape) <= 4
        if kind == "mean" and small:
            value = records.add(L.GlobalAvgPool, x) if axes == space else records.add(L.AvgPool, x, kernel=window)
        elif kind == "max" and small and math.prod(window) < 2**16:
            value = records.add(L.MaxPool, x, kernel=window)
        elif kind == "min":
            highest = records.add(
                L.Reduce,
                algebra.scaled(records.add, x, -1.0),
                kind="max",
                axes=axes,
                keepdims=len(axes) == len(x.shape),
            )
            value = algebra.scaled(records.add, highest, -1.0)
        else:
            value = records.add(L.Reduce, x, kind=kind, axes=axes, keepdims=len(axes) == len(x.shape))
        return viewed(value, call)

    return handle


def _max(kind: str) -> Handler:
    """`max` and `min` are three operators: of two tensors, over an axis with its indices, over everything."""

    def handle(records: Records, call: Call) -> Any:
        if "other" in call.arguments:
            return _extreme(kind == "max")(records, call)
        return (
            Pieces([partial(_reduced(kind), records, call)])
            if "dim" in call.arguments
            else _reduced(kind)(records, call)
        )

    return handle


# ----------------------------------------------------------------------------------------------------- constant masks


def _masked(records: Records, call: Call) -> Value:
    """What does not mix elements and is affine in its one computed operand: known by what it makes of zeros and
    ones.
    """
    (x,) = call.values() or (None,)
    if x is None or len(call.values()) > 1:
        raise Refused("more than one of its operands is computed from the network's input")
    zero, one = (call.probed(x, np.full((records.n_batch, *x.shape), v), records) for v in (0.0, 1.0))
    hides = np.isneginf(zero) & np.isneginf(one)
    if not (hides | (np.isfinite(zero) & np.isfinite(one))).all():
        raise Refused(FILLS)
    return affine(records, call, x, np.where(hides, 1.0, np.where(hides, 0.0, one) - np.where(hides, 0.0, zero)), zero)


def _where(records: Records, call: Call) -> Value:
    """A constant mask chooses."""
    condition, a, b = call.condition, call.self, call.other
    if isinstance(condition, Value):
        raise Refused(
            "its condition is computed from the network's input; write relu, clamp or maximum for a choice by sign or "
            "size"
        )
    if not (isinstance(a, Value) and isinstance(b, Value)):
        return _masked(records, call)
    return algebra.chosen(records.add, records.array(condition, "condition"), a, b, records.n_batch)


HANDLERS: dict[str, Handler] = {
    **each("add sub", _add),
    "rsub": _rsub,
    **each("mul multiply", _mul),
    **each("div divide true_divide", _div),
    "neg": _neg,
    "lerp": _lerp,
    **each("addcmul addcdiv", _addcmul),
    **each("pow square", _pow),
    "abs": _abs,
    **each("maximum fmax", _extreme(True)),
    **each("minimum fmin", _extreme(False)),
    "mean": _reduced("mean"),
    "sum": _reduced("sum"),
    "amax": _reduced("max"),
    "amin": _reduced("min"),
    "max": _max("max"),
    "min": _max("min"),
    **each("masked_fill tril triu nan_to_num", _masked),
    "where": _where,
}
