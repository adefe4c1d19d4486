"""Element-wise functions that models write in operations without a record: followed on a grid of numbers until an
activation, or the divisor of a norm, is known in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..oracle.maths import activate
from ..plan.shapes import Shape
from .algebra import reshaped
from .records import Add, Layers, Refused, Value
from .rewrites import record_at

Array = NDArray[Any]

# fmt: off
GRID = np.array([  # the outermost and the one next to 0 show bounds that a model sets there
    -300.0, -30.0, -7.3, -4.1, -2.9, -1.7, -1.1, -0.6, -0.2, 1e-12, 0.01, 0.3, 0.7, 1.3, 1.9, 2.3, 3.7, 5.9, 11.0, 30.0,
    300.0,
])
# fmt: on
NEAR = 2e-6
"""Of the values on the grid: models keep their constants in float32."""

TINY = 1e-24

MOST = 16
"""Entries among which what an activation is of is looked for, so that the time does not grow with the network."""

KINDS: tuple[str, ...] = (
    "gelu",
    "gelu_tanh",
    "mish",
    "tanh",
    "sigmoid",
    "log_sigmoid",
    "softplus",
    "softsign",
    "tanh_shrink",
    "hard_swish",
    "elu",
    "selu",
)


@dataclass(frozen=True, eq=False)
class Function:
    """What no record computes yet: a function of each element of an entry's output, by its values on the grid.

    Attributes
    ----------
    root : position of the entry
    begun : the operation that has no record
    narrow : its shape before its elements were repeated; () where they are not
    """

    root: int
    shape: Shape
    values: Array
    begun: str
    narrow: Shape = ()

    def under(self, shape: Shape) -> Function:
        """The same elements under another shape, perhaps repeated."""
        repeated = math.prod(shape) != math.prod(self.shape)
        return replace(self, shape=shape, narrow=self.narrow or (self.shape if repeated else ()))

    def refused(self) -> Refused:
        return Refused(f"{self.begun} has no record, and no known activation or norm is made of it")


def _reads(layers: Layers, position: int) -> tuple[int, ...]:
    """What an entry is an element-wise function of; nothing where it is none."""
    record = None if position == L.INPUT else layers.records[position]
    if record is None or not (isinstance(record, (L.Add, L.Mul)) or _step(record) is not None):
        return ()
    reads = layers.reads(position)
    views = isinstance(record, (L.Reshape, L.Flatten))
    return reads if views or all(layers.shape(r) == layers.shape(position) for r in reads) else ()


def traced(layers: Layers, position: int) -> tuple[int, Array]:
    """The one entry that all of this one is an element-wise function of, as far back as there is one, and this one's
    values where that is the grid.
    """
    for p in range(len(layers.roots), position + 1):
        operands = [traced(layers, r) for r in _reads(layers, p)]
        step = _step(layers.records[p])
        if step is None or len({root for root, _ in operands}) != 1:
            layers.roots[p] = p, GRID
        else:
            with np.errstate(all="ignore"):
                layers.roots[p] = operands[0][0], step(*(values for _, values in operands))
    return layers.roots.get(position, (position, GRID))


def _step(record: L.Layer) -> Callable[..., Array] | None:
    """What a record makes of its operands, element by element."""
    if isinstance(record, (L.Dropout, L.Reshape, L.Flatten)):
        return lambda x: x
    if isinstance(record, L.ReLU) or (isinstance(record, L.Activation) and record.slopes is None):
        return lambda x: np.asarray(activate(record, x))
    if isinstance(record, L.Mul):
        return lambda a, b: a * b
    if isinstance(record, L.Add):
        return lambda *x: np.sum(x, axis=0)
    if isinstance(record, L.Scale):
        factor, offset = record.scale, np.zeros(1) if record.shift is None else record.shift
        if (factor == factor.flat[0]).all() and (offset == offset.flat[0]).all():
            return lambda x: x * float(factor.flat[0]) + float(offset.flat[0])
    return None


def composed(
    layers: Layers, apply: Callable[..., Any], operands: Sequence[Value | Function | Array], shape: Shape, begun: str
) -> Function | None:
    """An element-wise operation of functions, values and numbers; None where they are not functions of one entry.

    Parameters
    ----------
    apply : the operation on arrays of float64, one for each operand
    shape : of a sample of its result
    begun : what the first operation of a function is called
    """
    functions = [o for o in operands if isinstance(o, Function)]
    values = [o for o in operands if isinstance(o, Value)]
    start = functions[0].root if functions else traced(layers, values[0].position)[0]
    begun = functions[0].begun if functions else begun
    narrow = functions[0].narrow if functions else ()
    arrays = []
    for operand in operands:
        if isinstance(operand, (Value, Function)) and (
            math.prod(operand.shape) != math.prod(shape) or (narrow and operand is not functions[0])
        ):
            return None  # its elements are repeated, each operand's perhaps along other axes
        if isinstance(operand, Function):
            array = operand.values if operand.root == start else None
        elif isinstance(operand, Value):
            root, values_of = traced(layers, operand.position)
            array = values_of if root == start else None
        else:
            number = np.asarray(operand)
            number = number[tuple(slice(None if s else 1) for s in number.strides)].astype(np.float64)  # once each
            array = np.full(GRID.shape, number.flat[0]) if number.size and (number == number.flat[0]).all() else None
        if array is None:
            return None
        arrays.append(array)
    with np.errstate(all="ignore"):
        return Function(start, shape, np.asarray(apply(*arrays), np.float64), begun, narrow)


def known(add: Add, layers: Layers, function: Function) -> Value | Function:
    """An Activation where the function is one of a value that it was made from, else the function."""
    if not np.isfinite(function.values).all() or (function.values == function.values[0]).all():
        return function
    size = math.prod(function.shape)
    for position, inner in _candidates(layers, function):
        shape = layers.shape(position)
        if shape is None or math.prod(shape) != size:
            continue
        for fields in (*({"kind": kind} for kind in KINDS), *_silu(function.values, inner)):
            with np.errstate(all="ignore"):
                same = _near(activate(L.Activation(**fields), inner), function.values)
            if same:
                made = reshaped(add, add(L.Activation, Value(position, shape), **fields), function.shape)
                return made.under(function.shape)
    return function


def rescaled(add: Add, layers: Layers, x: Value, factor: Any) -> Value | None:
    """x·factor where that number makes an activation of the product x, as in 0.5·(y·(1 + tanh y))."""
    factor = np.asarray(factor)
    if record_at(layers.records, x.position, L.Mul) is None or factor.size != 1:
        return None
    made = composed(layers, np.multiply, [x, factor], x.shape, "")
    found = None if made is None else known(add, layers, made)
    return found if isinstance(found, Value) else None


def _candidates(layers: Layers, function: Function) -> list[tuple[int, Array]]:
    """The root, and the latest entries that are element-wise functions of it, with their values on the grid."""
    found = [(function.root, GRID)]
    for position in range(max(function.root + 1, len(layers.records) - MOST), len(layers.records)):
        root, values = traced(layers, position)
        if root == function.root:
            found.append((position, values))
    return found


def _silu(values: Array, inner: Array) -> list[dict[str, Any]]:
    """x·sigmoid(αx) for the α that the last number of the grid below 3 says."""
    place = int(np.argmin(np.abs(inner - 1.0)))
    part = values[place] / inner[place] if inner[place] else 0.0
    if not 0 < part < 1:
        return []
    return [{"kind": "silu", "alpha": float(f"{math.log(part / (1 - part)) / inner[place]:.7g}")}]


def _near(a: Any, b: Array) -> bool:
    return bool((np.abs(np.asarray(a) - b) <= NEAR * np.maximum(1.0, np.abs(b))).all())


GUARD = 1.000001e-6
"""A deviation is never so small, but to keep 0/0 from being computed."""


def divisor(function: Function) -> tuple[float, float] | None:
    """(k, e) where the function of p is 1/√(k·p + e) for p > 0; an e below what the grid shows is one so small that it
    only keeps 0/0 from being computed. So is g in 1/(√(k·p) + g), which is taken for 1/√(k·p + g²).
    """
    positive = GRID > 0
    points, values = GRID[positive], function.values[positive]
    with np.errstate(all="ignore"):
        squares = values**-2.0
    if not np.isfinite(squares).all() or (values <= 0).any():
        return None
    roots, root = 1 / values, np.sqrt(points)
    slope = float((roots[-1] - roots[0]) / (root[-1] - root[0]))
    guard = float(roots[0] - slope * root[0])
    if slope > 0 and 1e-9 < guard <= GUARD and np.allclose(slope * root + guard, roots, rtol=NEAR, atol=0):
        return slope**2, guard**2
    k = float((squares[-1] - squares[0]) / (points[-1] - points[0]))
    k = 1.0 if abs(k - 1) < 1e-12 else k
    e = float(squares[0] - k * points[0])
    if k <= 0 or not np.allclose(k * points + e, squares, rtol=NEAR, atol=0):
        return None
    return k, e if e > 1e-14 * k else TINY * k
