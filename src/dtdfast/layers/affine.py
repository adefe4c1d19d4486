"""Records of one factor and one shift per channel or element, and of the identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LayerError
from ..record import Array, Layer


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """The identity, as Dropout is at inference.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """(x − mean)/√(variance + eps)·weight + bias per channel (axis 1), with stored statistics.

    It is folded into a linear layer next to it where that is exact.

    Parameters
    ----------
    mean, variance : array_like of shape (c,)
        The stored statistics.
    weight, bias : array_like of shape (c,), optional
        By default 1 and 0.
    eps : float, default 1e-5
        A number that keeps the square root from 0.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        variance + eps is not positive everywhere.
    """

    mean: Array
    variance: Array
    weight: Array | None = None
    bias: Array | None = None
    eps: float = 1e-5

    def _check(self) -> None:
        self._array("mean", 1)
        shape = self.mean.shape
        self._array("variance", shape=shape)
        for key in ("weight", "bias"):
            if getattr(self, key) is not None:
                self._array(key, shape=shape)
        self._number("eps")
        if not bool((np.asarray(self.variance, np.float64) + self.eps > 0).all()):
            raise LayerError("BatchNorm: variance + eps must be positive everywhere")


@dataclass(frozen=True, eq=False)
class Scale(Layer):
    """x·scale + shift.

    It is folded into a linear layer next to it where that is exact.

    Parameters
    ----------
    scale, shift : array_like
        Arrays of one axis are per channel (axis 1); arrays of more axes broadcast against one sample, with sizes of 1
        or the sample's. No shift by default.
    inputs, name : optional
        As in `Layer`.
    """

    scale: Array
    shift: Array | None = None

    def _check(self) -> None:
        self._array("scale", (1, 2, 3, 4, 5))
        if self.shift is not None:
            self._array("shift", (1, 2, 3, 4, 5))
            if self.scale.ndim == self.shift.ndim == 1 and 1 not in (self.scale.size, self.shift.size):
                self._array("shift", shape=self.scale.shape)


@dataclass(frozen=True, eq=False)
class Preparation(Layer):
    """x·scale + shift per channel (axis 1) of the network's input, as a scaler computes it.

    Relevance is that of its output and passes it unchanged under every rule, so a map does not depend on the units of
    the raw columns. It never folds into a layer. With the domain "real" the preset "dtd" then becomes "lrp-epsilon":
    inputs of both signs are explained by their difference from the reference point, where x·scale + shift is 0.

    Parameters
    ----------
    scale, shift : array_like of shape (c,)
        The scaler's numbers. No shift by default.
    inputs, name : optional
        As in `Layer`.
    """

    scale: Array
    shift: Array | None = None

    def _check(self) -> None:
        self._array("scale", 1)
        if self.shift is not None:
            self._array("shift", shape=self.scale.shape)
