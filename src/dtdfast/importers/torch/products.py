"""What ATen's products of matrices become, and linear maps along one axis: one row per operator, one short function per
kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import layers as L
from .. import algebra, attention, products
from ..records import Refused, Value
from ..refused import PAIRS
from .arithmetic import added, affine, number
from .call import Array, Call, Handler, Records, each


def _matrix(records: Records, x: Value, value: Any, what: str) -> Array:
    """A constant factor as one sample meets it; a vector or matrix has no batch axis."""
    return products.of_matrices(np.asarray(records.array(value, what), np.float64), x, records.n_batch)


def _multiplied(records: Records, a: Any, b: Any) -> Value:
    """The matrix product a @ b."""
    if isinstance(a, Value) and isinstance(b, Value):
        return attention.product(records.add, a, b)
    if isinstance(a, Value):
        return products.product(records.add, a, _matrix(records, a, b, "right operand"))
    return products.product(records.add, b, _matrix(records, b, a, "left operand"), left=True)


def _matmul(records: Records, call: Call) -> Value:
    names = {"mm": ("self", "mat2"), "bmm": ("self", "mat2"), "mv": ("self", "vec")}.get(call.name, ("self", "other"))
    return _multiplied(records, *(getattr(call, n) for n in names))


def _addmm(records: Records, call: Call) -> Value:
    """beta·self + alpha·(a @ b)."""
    names = {"addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2"), "addmv": ("mat", "vec")}[call.name]
    a, b = (getattr(call, n) for n in names)
    beta, alpha = (number(records, call.arguments[k], k) for k in ("beta", "alpha"))
    if not isinstance(a, Value) and not isinstance(b, Value):
        value: Any = records.array(a, names[0]) @ records.array(b, names[1])
        return added(
            records, call, call.self if beta == 1 else affine(records, call, call.self, beta, 0.0), value, alpha
        )
    y = _multiplied(records, a, b)
    y = y if alpha == 1 else algebra.scaled(records.add, y, alpha)
    other = call.self
    if not isinstance(other, Value):
        return (
            affine(records, call, y, 1.0, beta * np.asarray(records.array(other, "self operand"), np.float64))
            if beta
            else y
        )
    return added(records, call, y, other, beta) if beta else y


def _einsum(records: Records, call: Call) -> Value:
    """One or two operands from the input, the others constant."""
    operands = [o if isinstance(o, Value) else records.array(o, "operand") for o in call.tensors]
    return products.einsum(records.add, call.equation, operands, records.n_batch)


def _rotary(records: Records, call: Call) -> Value:
    """Pairs along the last axis as complex numbers times constants."""
    x, factor = call.x(), call.factor
    if isinstance(factor, Value):
        raise Refused(PAIRS)
    factor = factor.resolve_conj()
    real, imaginary = (records.array(part, "factor") for part in (factor.real, factor.imag))
    turned = records.add(L.Gather, x, indices=np.array([1, 0]), axis=len(x.shape))
    parts = (x, np.stack([real, real], -1)), (turned, np.stack([-imaginary, imaginary], -1))
    return algebra.total(records.add, *(affine(records, call, value, scale, 0.0) for value, scale in parts))


def _along(function: Callable[[Array], Array]) -> Callable[[Records, Call], Value]:
    """A linear map along one axis, known by what it does to the unit vectors (the columns of its matrix)."""

    def handle(records: Records, call: Call) -> Value:
        x = call.x()
        axis = call.dim % (len(x.shape) + 1)
        if axis == 0:
            raise Refused("it runs along the batch axis, so that samples would be mixed")
        return records.add(L.Linear, x, weight=function(np.eye(x.shape[axis - 1])), axis=axis)

    return handle


def _index_add(records: Records, call: Call) -> Value:
    """self + alpha·(the elements of source, each added where index says): a matrix along one axis."""
    source = call.x("source")
    axis, index = call.dim % (len(source.shape) + 1), records.array(call.index, "index").astype(np.int64)
    if axis == 0:
        raise Refused("it adds along the batch axis, so that samples would be mixed")
    weight = np.zeros((call.shape[axis - 1], source.shape[axis - 1]))
    weight[index, np.arange(len(index))] = number(records, call.alpha, "alpha")
    return added(records, call, records.add(L.Linear, source, weight=weight, axis=axis), call.self)


def _diff(records: Records, call: Call) -> Value:
    if call.get("prepend") is not None or call.get("append") is not None:
        raise Refused("only differences without prepend or append have a record")
    return _along(lambda unit: np.diff(unit, n=call.n, axis=0))(records, call)


def _inner(records: Records, call: Call) -> Value:
    """Over the last axes of both."""
    a, b = call.self, call.other
    if isinstance(a, Value) and isinstance(b, Value):
        raise Refused(PAIRS)
    if not isinstance(a, Value):
        raise Refused("the batch axis does not stay first; write x @ w.T for a constant w")
    weight = np.asarray(records.array(b, "other operand"), np.float64)
    return products.tensordot(records.add, a, weight, [len(a.shape)], [weight.ndim - 1])


def _tensordot(records: Records, call: Call) -> Value:
    a, b = call.self, call.other
    if isinstance(a, Value) and isinstance(b, Value):
        raise Refused(PAIRS)
    if isinstance(a, Value):
        return products.tensordot(records.add, a, records.array(b, "other operand"), call.dims_self, call.dims_other)
    return products.tensordot(
        records.add, b, records.array(a, "self operand"), call.dims_other, call.dims_self, left=True
    )


HANDLERS: dict[str, Handler] = {
    **each("matmul mm bmm mv", _matmul),
    **each("addmm baddbmm addmv", _addmm),
    "einsum": _einsum,
    "rotary": _rotary,
    "tensordot": _tensordot,
    "inner": _inner,
    "cumsum": _along(lambda unit: np.cumsum(unit, axis=0)),
    "diff": _diff,
    "index_add": _index_add,
}
