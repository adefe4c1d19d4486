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
from ..records import Refused, Value
from ..refused import ATTENTION
from .call import Array, Call, Handler, Pieces, Records, each, viewed

# ------------------------------------------------------------------------------------------------------------ sums,
# products


def _vector(value: Value) -> Value:
    """One number per sample is a vector of one element."""
    return Value(value.position, value.shape or (1,))


def constant(records: Records, x: Value, value: Any, what: str = "constant operand") -> Array:
    """A constant that meets x, as one sample meets it."""
    return algebra.of_sample(np.asarray(records.array(value, what), np.float64), len(x.shape), records.n_batch)


def _affine(records: Records, call: Call, x: Value, scale: Any, shift: Any) -> Value:
    factor, offset = (constant(records, x, a) for a in (scale, shift))
    return algebra.scaled(records.add, _vector(x), factor, offset, call.shape or (1,))


def _sum(records: Records, call: Call, a: Any, b: Any, factor: float = 1.0) -> Value:
    """The sum a + factor·b; one of them may be constant."""
    if not isinstance(b, Value):
        return _affine(records, call, a, 1.0, factor * constant(records, a, b))
    if not isinstance(a, Value):
        return _affine(records, call, b, factor, a)
    if len(a.shape) != len(b.shape):
        algebra.total(records.add, a, b)  # which says why not
    return algebra.difference(records.add, _vector(a), _vector(b), -factor)


def _number(records: Records, value: Any, what: str) -> float:
    number = records.array(value, what)
    if number.size != 1:
        raise Refused(f"its {what} has shape {number.shape}, expected one number")
    return float(number.reshape(()))


def _add(records: Records, call: Call) -> Value:
    factor = _number(records, call.get("alpha") or 1, "alpha")
    return _sum(records, call, call.self, call.other, factor if call.name == "add" else -factor)


def _rsub(records: Records, call: Call) -> Value:
    """The difference other − alpha·self."""
    return _sum(records, call, call.other, call.self, -_number(records, call.alpha, "alpha"))


def _mul(records: Records, call: Call) -> Value:
    return _times(records, call, call.self, call.other)


def _times(records: Records, call: Call, a: Any, b: Any) -> Value:
    if not isinstance(a, Value):
        a, b = b, a
    if not isinstance(b, Value):
        return _affine(records, call, a, b, 0.0)
    if len(a.shape) != len(b.shape):
        algebra.total(records.add, a, b)
    return records.add(L.Mul, _vector(a), _vector(b))


def _div(records: Records, call: Call) -> Value:
    if isinstance(call.other, Value):
        raise Refused(
            "it divides by what is computed, and only a division by constants has a rule; "
            "divide before the network, or explain the part after it as a network of its own"
        )
    if call.get("rounding_mode") is not None:
        raise Refused("it rounds, and only a true division has a rule")
    divisor = np.asarray(records.array(call.other, "divisor"), np.float64)
    if not divisor.all():
        raise Refused("it divides by a constant that holds 0")
    return _affine(records, call, call.x(), 1.0 / divisor, 0.0)


def _neg(records: Records, call: Call) -> Value:
    return _affine(records, call, call.x(), -1.0, 0.0)


def _lerp(records: Records, call: Call) -> Value:
    """self + weight·(end − self)."""
    weight = _number(records, call.weight, "weight")
    a, b = call.self, call.end
    if isinstance(a, Value):
        return _sum(records, call, _affine(records, call, a, 1 - weight, 0.0), b, weight)
    return (
        _sum(records, call, b, a, (1 - weight) / weight)
        if weight == 1
        else _affine(records, call, b, weight, (1 - weight) * constant(records, b, a))
    )


def _addcmul(records: Records, call: Call) -> Value:
    """self + value·tensor1·tensor2."""
    a, b = call.tensor1, call.tensor2
    if not isinstance(a, Value) and not isinstance(b, Value):
        return _sum(records, call, call.self, records.array(a, "tensor1") * records.array(b, "tensor2"), call.value)
    return _sum(records, call, call.self, _times(records, call, a, b), call.value)


def _pow(records: Records, call: Call) -> Value:
    exponent = call.get("exponent", 2) if call.name == "pow" else 2
    if exponent == 1:
        return call.x()
    if exponent != 2:
        raise Refused(f"the power {exponent} has no record; 1 and 2 have")
    return records.add(L.Mul, _vector(call.x()), _vector(call.x()))


# -----------------------------------------------------------------------------------------------------------------
# extremes


def _extreme(largest: bool) -> Handler:
    """The larger, or smaller, of two tensors; one may be constant."""

    def handle(records: Records, call: Call) -> Value:
        a, b = call.self, call.other
        if isinstance(a, Value) and isinstance(b, Value):
            if len(a.shape) != len(b.shape):
                algebra.total(records.add, a, b)
            return (algebra.larger if largest else algebra.smaller)(records.add, [_vector(a), _vector(b)])
        x, bound = (a, b) if isinstance(a, Value) else (b, a)
        return (algebra.at_least if largest else algebra.at_most)(records.add, _vector(x), constant(records, x, bound))

    return handle


def _abs(records: Records, call: Call) -> Value:
    """relu(x) + relu(−x)."""
    x = _vector(call.x())
    return records.add(L.Add, records.add(L.ReLU, x), records.add(L.ReLU, algebra.scaled(records.add, x, -1.0)))


def clamped(records: Records, call: Call) -> Value:
    """Bounds that are tensors, each its own step."""
    x = call.x()
    value = _vector(x)
    for apply, bound in ((algebra.at_least, call.get("min")), (algebra.at_most, call.get("max"))):
        if bound is not None:
            value = apply(records.add, value, constant(records, x, bound, "bound"))
    return value


# ---------------------------------------------------------------------------------------------------------------
# reductions


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
            highest = records.add(L.Reduce, algebra.scaled(records.add, x, -1.0), kind="max", axes=axes)
            value = algebra.scaled(records.add, highest, -1.0)
        else:
            value = records.add(L.Reduce, x, kind=kind, axes=axes)
        return viewed(value, call)

    return handle


def _max(kind: str) -> Handler:
    """`max` and `min` are three operators: of two tensors, over an axis with its indices, over everything."""

    def handle(records: Records, call: Call) -> Value | Pieces:
        if "other" in call.arguments:
            return _extreme(kind == "max")(records, call)
        return (
            Pieces([partial(_reduced(kind), records, call)])
            if "dim" in call.arguments
            else _reduced(kind)(records, call)
        )

    return handle


# -----------------------------------------------------------------------------------------------------------------
# products


def _matrix(records: Records, x: Value, value: Any, what: str) -> Array:
    """A constant factor as one sample meets it; a vector or matrix has no batch axis."""
    array = np.asarray(records.array(value, what), np.float64)
    return array if array.ndim <= 2 else algebra.of_sample(array, max(len(x.shape), array.ndim - 1), records.n_batch)


def _multiplied(records: Records, call: Call, a: Any, b: Any) -> Value:
    """The matrix product a @ b; one of them is constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        raise Refused(ATTENTION)
    if isinstance(a, Value):
        return algebra.product(records.add, a, _matrix(records, a, b, "right operand"))
    return algebra.product(records.add, b, _matrix(records, b, a, "left operand"), left=True)


def _matmul(records: Records, call: Call) -> Value:
    names = {"mm": ("self", "mat2"), "bmm": ("self", "mat2"), "mv": ("self", "vec")}.get(call.name, ("self", "other"))
    return _multiplied(records, call, *(getattr(call, n) for n in names))


def _addmm(records: Records, call: Call) -> Value:
    """beta·self + alpha·(a @ b)."""
    names = {"addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2"), "addmv": ("mat", "vec")}[call.name]
    a, b = (getattr(call, n) for n in names)
    beta, alpha = (_number(records, call.arguments[k], k) for k in ("beta", "alpha"))
    if not isinstance(a, Value) and not isinstance(b, Value):
        value: Any = records.array(a, names[0]) @ records.array(b, names[1])
        return _sum(
            records, call, call.self if beta == 1 else _affine(records, call, call.self, beta, 0.0), value, alpha
        )
    y = _multiplied(records, call, a, b)
    y = y if alpha == 1 else algebra.scaled(records.add, y, alpha)
    other = call.self
    if not isinstance(other, Value):
        return (
            _affine(records, call, y, 1.0, beta * np.asarray(records.array(other, "self operand"), np.float64))
            if beta
            else y
        )
    return _sum(records, call, y, other, beta) if beta else y


def _terms(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The indices of every operand and of the result, written out."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    open_axes = [rank - len(term) + 3 if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    spare = [k for k in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if k not in equation]
    names = spare[: max(open_axes)]
    terms = [t.replace("...", "".join(names[len(names) - n :])) for t, n in zip(terms, open_axes, strict=True)]
    if not arrow:
        letters = "".join(terms)
        result = "".join(names) + "".join(sorted(k for k in set(letters) if letters.count(k) == 1 and k not in names))
    return terms, result.replace("...", "".join(names))


def _einsum(records: Records, call: Call) -> Value:
    """One operand from the input, the others constant."""
    operands = call.tensors
    at = [i for i, o in enumerate(operands) if isinstance(o, Value)]
    if len(at) > 1:
        raise Refused(ATTENTION)
    terms, result = _terms(call.equation, [len(o.shape) + isinstance(o, Value) for o in operands])
    x, of_x, batch = operands[at[0]], terms[at[0]], terms[at[0]][0]
    if result[:1] != batch:
        raise Refused(f"the equation {call.equation!r} does not keep the batch axis first")
    constants, names = [], []
    for i, operand in enumerate(operands):
        if i in at:
            continue
        array, letters = np.asarray(records.array(operand, "operand"), np.float64), terms[i]
        if batch in letters:
            place = letters.index(batch)
            array = algebra.of_sample(np.moveaxis(array, place, 0), array.ndim - 1, records.n_batch)
            letters = letters.replace(batch, "")
        constants.append(array)
        names.append(letters)
    weight, of_weight = np.ones(()), ""
    if constants:
        letters = "".join(dict.fromkeys("".join(names)))
        keep = "".join(k for k in letters if k in of_x or k in result)
        weight, of_weight = np.einsum(",".join(names) + "->" + keep, *constants), keep
    return algebra.contracted(records.add, x, of_x[1:], weight, of_weight, result[1:])


def _along(function: Callable[[Array], Array]) -> Callable[[Records, Call], Value]:
    """A linear map along one axis, known by what it does to the unit vectors (the columns of its matrix)."""

    def handle(records: Records, call: Call) -> Value:
        x = call.x()
        axis = call.dim % (len(x.shape) + 1)
        if axis == 0:
            raise Refused("it runs along the batch axis, so that samples would be mixed")
        return records.add(L.Linear, x, weight=function(np.eye(x.shape[axis - 1])), axis=axis)

    return handle


def _diff(records: Records, call: Call) -> Value:
    if call.get("n") != 1 or call.get("prepend") is not None or call.get("append") is not None:
        raise Refused("only first differences without prepend or append have a record")
    return _along(lambda unit: np.diff(unit, axis=0))(records, call)


def _tensordot(records: Records, call: Call) -> Value:
    letters = "abcdefghijkl"
    a, b = call.self, call.other
    if isinstance(a, Value) and isinstance(b, Value):
        raise Refused(ATTENTION)
    x, weight = (
        (a, records.array(b, "other operand")) if isinstance(a, Value) else (b, records.array(a, "self operand"))
    )
    of_x = letters[: len(x.shape) + 1]
    of_weight = letters[len(of_x) : len(of_x) + weight.ndim]
    dims = (call.dims_self, call.dims_other) if isinstance(a, Value) else (call.dims_other, call.dims_self)
    for i, j in zip(*dims, strict=True):
        of_weight = of_weight.replace(of_weight[j], of_x[i])
    rest = [[k for k in one if k not in other] for one, other in ((of_x, of_weight), (of_weight, of_x))]
    result = "".join(rest[0] + rest[1] if isinstance(a, Value) else rest[1] + rest[0])
    if result[:1] != of_x[0]:
        raise Refused("the batch axis does not stay first")
    return algebra.contracted(records.add, x, of_x[1:], np.asarray(weight, np.float64), of_weight, result[1:])


# ------------------------------------------------------------------------------------------------------------ constant
# masks


def _masked(records: Records, call: Call) -> Value:
    """What does not mix elements and is affine in its one computed operand: known by what it makes of zeros and
    ones.
    """
    (x,) = call.values() or (None,)
    if x is None or len(call.values()) > 1:
        raise Refused("more than one of its operands is computed from the network's input")
    zero, one = (records.probed(x, np.full((records.n_batch, *x.shape), v)) for v in (0.0, 1.0))
    if not np.isfinite(zero).all() or not np.isfinite(one).all():
        raise Refused(
            "it fills in infinity or NaN, as masks before a softmax do; explain the part before or after it as a "
            "network of its own"
        )
    return _affine(records, call, x, one - zero, zero)


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
    mask = np.asarray(records.array(condition, "condition"), np.float64)
    return _sum(records, call, _affine(records, call, a, mask, 0.0), _affine(records, call, b, 1 - mask, 0.0))


HANDLERS: dict[str, Handler] = {
    **each("add sub", _add),
    "rsub": _rsub,
    **each("mul multiply", _mul),
    **each("div divide true_divide", _div),
    "neg": _neg,
    "lerp": _lerp,
    "addcmul": _addcmul,
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
    **each("matmul mm bmm mv", _matmul),
    **each("addmm baddbmm addmv", _addmm),
    "einsum": _einsum,
    "tensordot": _tensordot,
    "cumsum": _along(lambda unit: np.cumsum(unit, axis=0)),
    "diff": _diff,
    **each("masked_fill tril triu nan_to_num", _masked),
    "where": _where,
}
