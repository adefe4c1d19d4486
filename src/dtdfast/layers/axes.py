"""Records that are linear or piecewise linear along any axes: constants, reductions, picks, repetitions, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import LayerError
from ..record import Array, Ints, Layer

REDUCTIONS = ("mean", "sum", "max")


@dataclass(frozen=True, eq=False)
class Constant(Layer):
    """The same values for every sample.

    It reads nothing. It absorbs the relevance that reaches it, and the ledger says how much.

    Parameters
    ----------
    value : array_like
        The values, of one sample's shape: without the batch axis, with at least one axis.
    inputs, name : optional
        As in `Layer`.
    """

    value: Array
    arity: ClassVar[int | None] = 0

    def _check(self) -> None:
        self._array("value", (1, 2, 3, 4, 5))


@dataclass(frozen=True, eq=False)
class Reduce(Layer):
    """The mean, the sum or the maximum over some axes.

    A mean and a sum distribute relevance by the rule of pools. A maximum gives all of it to the largest element, the
    first in row-major order if several are equal.

    Parameters
    ----------
    kind : {"mean", "sum", "max"}
        What is computed.
    axes : int or sequence of int
        The axes that are reduced. The batch axis counts, and cannot be reduced; negative numbers count from the end.
    keepdims : bool, default False
        Whether the reduced axes stay, with size 1.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The kind is unknown, or the axes are not integers.
    """

    kind: str
    axes: Ints
    keepdims: bool = False

    def _check(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in REDUCTIONS:
            raise LayerError(f"Reduce: kind is {self.kind!r}, expected {', '.join(REDUCTIONS)}")
        self._integers("axes")
        self._bool("keepdims")


@dataclass(frozen=True, eq=False)
class Gather(Layer):
    """x[..., indices, ...] along one axis: an index, a flip, a roll, a permutation or repetitions.

    Parameters
    ----------
    indices : sequence of int
        The places along the axis; negative numbers count from the end.
    axis : int
        The axis. The batch axis counts, and is refused.
    inputs, name : optional
        As in `Layer`.
    """

    indices: Sequence[int]
    axis: int

    def _check(self) -> None:
        self._integers("indices")
        self._int("axis", None)


@dataclass(frozen=True, eq=False)
class Expand(Layer):
    """Axes of size 1, repeated.

    Parameters
    ----------
    shape : sequence of int
        The shape of one sample of the result, without the batch axis. It differs from the input's only where the input
        has size 1.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        A size is below 1.
    """

    shape: Sequence[int]

    def _check(self) -> None:
        self._integers("shape")
        if min(self.shape) < 1:
            raise LayerError(f"Expand: shape is {self.shape!r}, expected positive sizes without the batch axis")


@dataclass(frozen=True, eq=False)
class Resample(Layer):
    """Linear resizing, or an adaptive average pool: one matrix per spatial axis.

    y[..., p, q] = Σ_ij rows[p, i] · columns[q, j] · x[..., i, j]. All axes together are one layer of neurons, which
    distributes relevance by the rule of average pools.

    Parameters
    ----------
    weights : sequence of array_like or None
        One matrix of shape (size after, size before) per spatial axis; None leaves the axis as it is.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        There are not 1 to 3 matrices, or all are None.
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


__all__ = ["Constant", "Expand", "Gather", "Reduce", "Resample"]
