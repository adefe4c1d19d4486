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
from .records import Add, Layers, Refused, Value

Array = NDArray[Any]

GRID = np.array([-7.3, -4.1, -2.9, -1.7, -1.1, -0.6, -0.2, 0.01, 0.3, 0.7, 1.3, 1.9, 2.3, 3.7, 5.9, 11.0])
NEAR = 2e-6
"""Of the values on the grid: models keep their constants in float32."""

TINY = 1e-24

DEPTH = 32
"""Records through which a function is followed at most."""

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
    """

    root: int
    shape: Shape
    values: Array
    begun: str

    def under(self, shape: Shape) -> Function:
        """The same elements under another shape, perhaps repeated."""
        return replace(self, shape=shape)

    def refused(self) -> Refused:
        return Refused(f"{self.begun} has no record, and no known activation or norm is made of it")


def origin(layers: Layers, position: int) -> int:
    """The entry that this one is computed from element by element, through records of one operand."""
    while position != L.INPUT and _step(layers.records[position]) is not None:
        position = layers.reads(position)[0]
    return position


def _step(record: L.Layer) -> Callable[[Array], Array] | None:
    if isinstance(record, (L.Dropout, L.Reshape, L.Flatten, L.Expand)):
        return lambda x: x
    if isinstance(record, L.ReLU) or (isinstance(record, L.Activation) and record.slopes is None):
        return lambda x: np.asarray(activate(record, x))
    if isinstance(record, L.Scale):
        factor, offset = record.scale, np.zeros(1) if record.shift is None else record.shift
        if (factor == factor.flat[0]).all() and (offset == offset.flat[0]).all():
            return lambda x: x * float(factor.flat[0]) + float(offset.flat[0])
    return None


def on_grid(layers: Layers, position: int, root: int) -> Array | None:
    """An entry's values on the grid as a function of an earlier one's; None where it is no such function."""
    return _followed(layers, position, {root: GRID}, root, DEPTH)


def _followed(layers: Layers, position: int, held: dict[int, Array | None], root: int, depth: int) -> Array | None:
    if position not in held:
        held[position] = None
        record = layers.records[position] if position > root and depth else None
        step = None if record is None else _step(record)
        if step is not None or isinstance(record, (L.Add, L.Mul)):
            operands = [_followed(layers, source, held, root, depth - 1) for source in layers.reads(position)]
            values = [v for v in operands if v is not None]
            if len(values) == len(operands):
                total = sum(values) if isinstance(record, L.Add) else math.prod(values)
                held[position] = np.asarray(total) if step is None else step(values[0])
    return held[position]


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
    if functions:
        root, begun = functions[0].root, functions[0].begun
    else:
        root = min(origin(layers, v.position) for v in values)
    arrays = []
    for operand in operands:
        if isinstance(operand, Function):
            array = operand.values if operand.root == root else None
        elif isinstance(operand, Value):
            array = on_grid(layers, operand.position, root) if math.prod(operand.shape) == math.prod(shape) else None
        else:
            number = np.asarray(operand, np.float64)
            array = np.full(GRID.shape, number.flat[0]) if number.size and (number == number.flat[0]).all() else None
        if array is None:
            return None
        arrays.append(array)
    with np.errstate(all="ignore"):
        return Function(root, shape, np.asarray(apply(*arrays), np.float64), begun)


def known(add: Add, layers: Layers, function: Function) -> Value | Function:
    """An Activation where the function is one of a value that it was made from, else the function."""
    if not np.isfinite(function.values).all():
        return function
    size = math.prod(function.shape)
    for position, inner in _candidates(layers, function):
        shape = layers.shape(position)
        if shape is None or math.prod(shape) != size:
            continue
        for fields in (*({"kind": kind} for kind in KINDS), *_silu(function.values, inner)):
            if _near(activate(L.Activation(**fields), inner), function.values):
                return add(L.Activation, Value(position, shape), **fields).under(function.shape)
    return function


def _candidates(layers: Layers, function: Function) -> list[tuple[int, Array]]:
    """Every entry that is an element-wise function of the root, with its values on the grid: the root first."""
    found = [(function.root, GRID)]
    for position in range(function.root + 1, len(layers.records)):
        step = _step(layers.records[position])
        if step is not None and (source := dict(found).get(layers.reads(position)[0])) is not None:
            found.append((position, step(source)))
    return found


def _silu(values: Array, inner: Array) -> list[dict[str, Any]]:
    """x·sigmoid(αx) for the α that the last number of the grid below 3 says."""
    place = int(np.argmin(np.abs(inner - 1.0)))
    part = values[place] / inner[place]
    if not 0 < part < 1:
        return []
    return [{"kind": "silu", "alpha": float(f"{math.log(part / (1 - part)) / inner[place]:.7g}")}]


def _near(a: Any, b: Array) -> bool:
    return bool((np.abs(np.asarray(a) - b) <= NEAR * np.maximum(1.0, np.abs(b))).all())


def divisor(function: Function) -> tuple[float, float] | None:
    """(k, e) where the function of p is 1/√(k·p + e) for p > 0; an e below what the grid shows is one so small that it
    only keeps 0/0 from being computed.
    """
    positive = GRID > 0
    points, values = GRID[positive], function.values[positive]
    if not np.isfinite(values).all() or (values <= 0).any():
        return None
    squares = values**-2.0
    k = float((squares[-1] - squares[0]) / (points[-1] - points[0]))
    k = 1.0 if abs(k - 1) < 1e-12 else k
    e = float(squares[0] - k * points[0])
    if k <= 0 or not np.allclose(k * points + e, squares, rtol=NEAR, atol=0):
        return None
    return k, e if e > 1e-14 * k else TINY * k
