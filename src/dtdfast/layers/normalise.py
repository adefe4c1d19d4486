"""Records that divide by sums over channels, features or outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..arrays.foreign import take
from ..errors import LayerError
from ..record import Array, Ints, Layer


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x)/Σ exp(x) along an axis, or its logarithm.

    `explain` starts before a final Softmax. What one inside a network makes of its relevance is said by the option
    `attention` of `explain`.

    Parameters
    ----------
    axis : int, default 1
        The axis, the batch axis counted.
    log : bool, default False
        Whether to take the logarithm.
    mask : array_like of bool, optional
        The elements that are kept, of a shape that broadcasts to one sample's. The others are 0, take no relevance and
        count in no sum; where none is kept, all are 0.
    inputs : int or sequence of int, optional
        As in `Layer`. A second operand is a mask of the sample, made of Givens and Constants: elements where it is 0
        are left out as those of `mask` are. It broadcasts as NumPy does.
    name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The mask is not boolean, or is given for the logarithm.
    """

    axis: int = 1
    log: bool = False
    mask: Array | None = None
    optional: ClassVar[int] = 1

    def _check(self) -> None:
        self._int("axis", None)
        self._bool("log")
        if self.log and len(self.positions or ()) > 1:
            raise LayerError("Softmax: a logarithm takes no mask, since log 0 is not finite")
        if self.mask is None:
            return
        try:
            mask = np.array(take(self.mask, "Softmax: mask", LayerError)[0])
        except (TypeError, ValueError) as error:
            raise LayerError(f"Softmax: mask cannot be read as an array: {error}") from None
        if mask.dtype != bool or mask.ndim == 0:
            raise LayerError(
                f"Softmax: mask has dtype {mask.dtype} and {mask.ndim} axes, expected a boolean array of the scores' "
                "axes; add a mask of numbers to the scores with Add and Constant"
            )
        if self.log:
            raise LayerError("Softmax: a logarithm takes no mask, since log 0 is not finite")
        mask.setflags(write=False)
        self._set("mask", mask)


@dataclass(frozen=True, eq=False)
class LayerNorm(Layer):
    """(x − mean)/√(variance + eps) · weight + bias, over some axes of each sample.

    Relevance takes the factor 1/√(variance + eps) for a constant of the sample. What is left is a linear layer, which
    shares by its rule (Ali et al. [1]_).

    Parameters
    ----------
    axes : int or sequence of int, default -1
        The axes over which mean and variance are taken. The batch axis counts, and is refused.
    weight, bias : array_like, optional
        Of the sizes of those axes, in their order; 1 and 0 if they are not given.
    eps : float, default 1e-5
        What is added to the variance, at least 0.
    inputs, name : optional
        As in `Layer`.

    References
    ----------
    .. [1] A. Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML 2022.
    """

    axes: Ints = -1
    weight: Array | None = None
    bias: Array | None = None
    eps: float = 1e-5

    def _check(self) -> None:
        self._integers("axes")
        _check_affine(self)


@dataclass(frozen=True, eq=False)
class RMSNorm(Layer):
    """x/√(mean(x²) + eps) · weight, over some axes of each sample.

    Relevance takes the factor 1/√(mean(x²) + eps) for a constant of the sample, as in `LayerNorm`.

    Parameters
    ----------
    axes : int or sequence of int, default -1
        The axes over which the mean is taken. The batch axis counts, and is refused.
    weight : array_like, optional
        Of the sizes of those axes, in their order; 1 if it is not given.
    eps : float, default 1e-6
        What is added to the mean of the squares, at least 0.
    inputs, name : optional
        As in `Layer`.
    """

    axes: Ints = -1
    weight: Array | None = None
    eps: float = 1e-6

    def _check(self) -> None:
        self._integers("axes")
        _check_affine(self)


@dataclass(frozen=True, eq=False)
class GroupNorm(Layer):
    """(x − mean)/√(variance + eps) · weight + bias, over groups of neighbouring channels and all axes behind them.

    Relevance is shared as in `LayerNorm`.

    Parameters
    ----------
    groups : int
        The number of groups that the channels (axis 1) divide into.
    weight, bias : array_like of shape (channels,), optional
        One number per channel; 1 and 0 if they are not given.
    eps : float, default 1e-5
        What is added to the variance, at least 0.
    inputs, name : optional
        As in `Layer`.
    """

    groups: int
    weight: Array | None = None
    bias: Array | None = None
    eps: float = 1e-5

    def _check(self) -> None:
        self._int("groups", 1)
        _check_affine(self, 1)


@dataclass(frozen=True, eq=False)
class InstanceNorm(Layer):
    """(x − mean)/√(variance + eps) · weight + bias, over the axes behind each channel.

    Relevance is shared as in `LayerNorm`.

    Parameters
    ----------
    weight, bias : array_like of shape (channels,), optional
        One number per channel; 1 and 0 if they are not given.
    eps : float, default 1e-5
        What is added to the variance, at least 0.
    inputs, name : optional
        As in `Layer`.
    """

    weight: Array | None = None
    bias: Array | None = None
    eps: float = 1e-5

    def _check(self) -> None:
        _check_affine(self, 1)


def _check_affine(record: LayerNorm | RMSNorm | GroupNorm | InstanceNorm, ndim: int | None = None) -> None:
    """Weight and bias of one shape, and eps."""
    given = [key for key in ("weight", "bias") if getattr(record, key, None) is not None]
    for key in given:
        record._array(key, ndim, getattr(record, given[0]).shape if key != given[0] else None)
    record._number("eps")
    if record.eps < 0:
        raise LayerError(f"{record._type}: eps is {record.eps}, expected a number of at least 0")


@dataclass(frozen=True, eq=False)
class LRN(Layer):
    """Local response normalisation: x / (k + alpha/size · Σ x²)^beta, the sum over `size` neighbouring channels.

    Relevance passes it unchanged.

    Parameters
    ----------
    size : int
        The number of neighbouring channels.
    alpha : float, default 1e-4
        The factor of the sum, at least 0.
    beta : float, default 0.75
        The exponent.
    k : float, default 1.0
        The constant, more than 0.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        k is not positive, or alpha is negative.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def _check(self) -> None:
        self._int("size", 1)
        for key in ("alpha", "beta", "k"):
            self._number(key)
        if self.k <= 0 or self.alpha < 0:
            raise LayerError(f"LRN: k must be positive and alpha not negative, got k={self.k}, alpha={self.alpha}")
