"""Records with weights: linear layers, convolutions, embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LayerError
from ..record import Array, Ints, Layer, Padding


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """A fully connected layer: y = x Wᵀ + b along one axis.

    Parameters
    ----------
    weight : array_like of shape (n_out, n_in)
        The matrix W.
    bias : array_like of shape (n_out,), optional
        The vector b, by default none.
    axis : int, default -1
        The axis of x that has n_in elements, the batch axis counted.
    inputs, name : optional
        As in `Layer`.
    """

    weight: Array
    bias: Array | None = None
    axis: int = -1

    def _check(self) -> None:
        self._int("axis", None)
        self._array("weight", 2)
        if self.bias is not None:
            self._array("bias", shape=(self.weight.shape[0],))


@dataclass(frozen=True, eq=False)
class _Convolution(Layer):
    weight: Array
    bias: Array | None = None
    stride: Ints = 1
    padding: Padding = 0

    def _check_kernel(self, grouped: str) -> int:
        """Checks what both kinds share; `grouped` are the channels along the weight's first axis. Returns the spatial
        axes.
        """
        self._array("weight", (3, 4, 5))
        n = self.weight.ndim - 2
        self._int("groups", 1)
        groups: int = self.groups  # type: ignore[attr-defined]
        if self.weight.shape[0] % groups:
            raise LayerError(
                f"{self._type}: {self.weight.shape[0]} {grouped} channels do not divide into {groups} groups"
            )
        self._ints("stride", 1, n)
        self._ints("dilation", 1, n)
        self._padding("padding", n)
        return n


@dataclass(frozen=True, eq=False)
class Conv(_Convolution):
    """A convolution (cross-correlation) in 1, 2 or 3 dimensions.

    Parameters
    ----------
    weight : array_like of shape ``(c_out, c_in/groups, *kernel)``
        The kernel; its number of axes says how many spatial axes there are.
    bias : array_like of shape (c_out,), optional
        The bias, by default none.
    stride : int or sequence of int, default 1
        The step of the kernel, one number or one per spatial axis.
    padding : int, sequence of int or sequence of (before, after), default 0
        The zeros around the input, one number, one per spatial axis, or pairs.
    dilation : int or sequence of int, default 1
        The distance between the kernel's taps.
    groups : int, default 1
        The number of groups of channels.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The channels do not divide into the groups, or a number does not fit the spatial axes.
    """

    dilation: Ints = 1
    groups: int = 1

    def _check(self) -> None:
        self._check_kernel("output")
        if self.bias is not None:
            self._array("bias", shape=(self.weight.shape[0],))


@dataclass(frozen=True, eq=False)
class ConvTranspose(_Convolution):
    """A transposed convolution in 1, 2 or 3 dimensions.

    Along an axis of l elements its output has (l − 1)·stride + dilation·(k − 1) + 1 − padding + output_padding
    elements, where padding is that of both ends.

    Parameters
    ----------
    weight : array_like of shape ``(c_in, c_out/groups, *kernel)``
        The kernel; its number of axes says how many spatial axes there are.
    bias : array_like of shape (c_out,), optional
        The bias, by default none.
    stride : int or sequence of int, default 1
        The step of the kernel, one number or one per spatial axis.
    padding : int, sequence of int or sequence of (before, after), default 0
        The elements that are cut off the output, one number, one per spatial axis, or pairs.
    output_padding : int or sequence of int, default 0
        The elements that are added at the end of the output.
    dilation : int or sequence of int, default 1
        The distance between the kernel's taps.
    groups : int, default 1
        The number of groups of channels.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The channels do not divide into the groups, or a number does not fit the spatial axes.
    """

    output_padding: Ints = 0
    dilation: Ints = 1
    groups: int = 1

    def _check(self) -> None:
        self._ints("output_padding", 0, self._check_kernel("input"))
        if self.bias is not None:
            self._array("bias", shape=(self.weight.shape[1] * self.groups,))


@dataclass(frozen=True, eq=False)
class Embedding(Layer):
    """Vectors picked by integers: y[n, ..., :] = weight[x[n, ...]].

    An Embedding is the input of its network. The relevance of an integer is the sum over its vector.

    Parameters
    ----------
    weight : array_like of shape (n_words, n_features)
        One vector per row.
    inputs, name : optional
        As in `Layer`.
    """

    weight: Array

    def _check(self) -> None:
        self._array("weight", 2)
