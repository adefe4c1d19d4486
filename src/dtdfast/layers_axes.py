"""Records that are linear or piecewise linear along any axes: constants, reductions, picks, repetitions, resampling."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .errors import LayerError
from .record import Array, Ints, Layer

REDUCTIONS = ("mean", "sum", "max")


@dataclass(frozen=True, eq=False)
class Constant(Layer):
    """The same values for every sample; it reads nothing, and relevance that reaches it is absorbed (the ledger says
    how much).

    Parameters
    ----------
    value : array
        Of one sample's shape, without the batch axis, at least one axis.
    """

    value: Array
    arity: ClassVar[int | None] = 0

    def _check(self) -> None:
        self._array("value", (1, 2, 3, 4, 5))


@dataclass(frozen=True, eq=False)
class Reduce(Layer):
    """Mean, sum or largest over some axes.

    Parameters
    ----------
    kind : {"mean", "sum", "max"}
        A mean or a sum shares relevance as an average or a sum pool does; of "max" the first largest in row-major order
        gets all.
    axes : int or sequence of int
        The batch axis counts, and is refused; negative ones count from the end.
    keepdims : bool, default False
        Whether these axes stay, with size 1.
    """

    kind: str
    axes: Ints
    keepdims: bool = False

    def _check(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in REDUCTIONS:
            raise LayerError(f"Reduce: kind is {self.kind!r}, expected {', '.join(REDUCTIONS)}")
        self._set("axes", _integers("Reduce", "axes", self.axes))
        self._bool("keepdims")


@dataclass(frozen=True, eq=False)
class Gather(Layer):
    """x[..., indices, ...] along one axis: an index, a flip, a roll, a permutation, repetitions.

    Parameters
    ----------
    indices : sequence of int
        Places along the axis; negative ones count from the end.
    axis : int
        The batch axis counts, and is refused.
    """

    indices: Sequence[int]
    axis: int

    def _check(self) -> None:
        self._set("indices", _integers("Gather", "indices", self.indices))
        self._int("axis", None)


@dataclass(frozen=True, eq=False)
class Expand(Layer):
    """Axes of size 1 repeated.

    Parameters
    ----------
    shape : sequence of int
        Of one sample of the result, without the batch axis: as that of the input, but where the input has size 1.
    """

    shape: Sequence[int]

    def _check(self) -> None:
        self._set("shape", _integers("Expand", "shape", self.shape))
        if min(self.shape) < 1:
            raise LayerError(f"Expand: shape is {self.shape!r}, expected positive sizes without the batch axis")


@dataclass(frozen=True, eq=False)
class Resample(Layer):
    """y[..., p, q] = Σ_ij rows[p, i] · columns[q, j] · x[..., i, j]: linear resizing, or an adaptive average pool.

    It shares relevance by the rule of average pools; all its axes together are one layer of neurons.

    Parameters
    ----------
    weights : sequence of (size after, size before) arrays or None
        One per spatial axis; None leaves that axis alone.
    """

    weights: Sequence[Array | None]

    def _check(self) -> None:
        given = self.weights
        if not isinstance(given, (tuple, list)) or not 1 <= len(given) <= 3 or all(w is None for w in given):
            raise LayerError(
                "Resample: expected weights as a tuple of 1 to 3 matrices or None, one per spatial axis, not all None"
            )
        self._set(
            "weights", tuple(None if w is None else self._checked(f"weights[{a}]", w, 2) for a, w in enumerate(given))
        )


def _integers(kind: str, key: str, value: object) -> tuple[int, ...]:
    """One integer or a non-empty sequence of them."""
    given = (
        value if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1) else (value,)
    )
    try:
        numbers = tuple(operator.index(v) for v in given)
    except TypeError:
        raise LayerError(f"{kind}: {key} is {value!r:.80}, expected integers") from None
    if not numbers or any(isinstance(v, (bool, np.bool_)) for v in given):
        raise LayerError(f"{kind}: {key} is {value!r:.80}, expected at least one integer")
    return numbers


__all__ = ["Constant", "Expand", "Gather", "Reduce", "Resample"]
