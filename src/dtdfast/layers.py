"""The records a network is made of: a flat list of them, wired by `inputs=`, is a directed acyclic graph.

A record is data only: arrays (kept as read-only copies) and geometry, in PyTorch's shapes and ONNX's meaning. What a
record does stands elsewhere: its shape rule and its units in plan/units/, its kernels in csrc/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .activations import ACTIVATIONS
from .activations import Activation as Activation
from .activations import ReLU as ReLU
from .errors import LayerError
from .layers_axes import Constant, Expand, Gather, Reduce, Resample
from .record import INPUT, Array, Ints, Layer, Padding

# ---------------------------------------------------------------------------------------------------- layers with
# weights


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """A fully connected layer: y = x Wᵀ + b along one axis.

    Parameters
    ----------
    weight : array_like of shape (n_out, n_in)
        The matrix W.
    bias : array_like of shape (n_out,), optional
        The vector b.
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
        The bias.
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
        The bias.
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


# ------------------------------------------------------------------------------------------------------------
# activations


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x)/Σ exp(x) along an axis, or its logarithm.

    `explain` starts before a final Softmax. One inside a network is refused.

    Parameters
    ----------
    axis : int, default 1
        The axis, the batch axis counted.
    log : bool, default False
        Whether to take the logarithm.
    inputs, name : optional
        As in `Layer`.
    """

    axis: int = 1
    log: bool = False

    def _check(self) -> None:
        self._int("axis", None)
        self._bool("log")


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """The identity, as Dropout is at inference.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """


# ------------------------------------------------------------------------------------------------------------------
# pools


@dataclass(frozen=True, eq=False)
class _Pool(Layer):
    kernel: Ints
    stride: Ints | None = None
    padding: Padding = 0

    def _check(self) -> None:
        self._ints("kernel", 1, None)
        if self.stride is None:
            self._set("stride", self.kernel)
        n = next((len(v) for v in (self.kernel, self.stride) if isinstance(v, tuple)), None)
        self._ints("kernel", 1, n)
        self._ints("stride", 1, n)
        self._padding("padding", n)


@dataclass(frozen=True, eq=False)
class MaxPool(_Pool):
    """The maximum of each window.

    All relevance goes to the largest element, the first in row-major order if several are equal.

    Parameters
    ----------
    kernel : int or sequence of int
        The window's size, one number or one per spatial axis.
    stride : int or sequence of int, optional
        The step between windows; by default `kernel`.
    padding : int, sequence of int or sequence of (before, after), default 0
        The elements of −∞ around the input, one number, one per spatial axis, or pairs.
    dilation : int or sequence of int, default 1
        The distance between the elements of a window.
    ceil_mode : bool, default False
        Whether the last window may reach beyond the padded input. A window that would start beyond the input plus its
        left padding is left out.
    inputs, name : optional
        As in `Layer`.
    """

    dilation: Ints = 1
    ceil_mode: bool = False

    def _check(self) -> None:
        super()._check()
        self._ints("dilation", 1, len(self.kernel) if isinstance(self.kernel, tuple) else None)
        self._bool("ceil_mode")


@dataclass(frozen=True, eq=False)
class AvgPool(_Pool):
    """The mean of each window.

    Parameters
    ----------
    kernel : int or sequence of int
        The window's size, one number or one per spatial axis.
    stride : int or sequence of int, optional
        The step between windows; by default `kernel`.
    padding : int, sequence of int or sequence of (before, after), default 0
        The zeros around the input, one number, one per spatial axis, or pairs.
    ceil_mode : bool, default False
        Whether the last window may reach beyond the padded input. A window that would start beyond the input plus its
        left padding is left out.
    count_include_pad : bool, default True
        Whether the mean is over the padded window; else it is over the elements of the input in it.
    inputs, name : optional
        As in `Layer`.
    """

    ceil_mode: bool = False
    count_include_pad: bool = True

    def _check(self) -> None:
        super()._check()
        self._bool("ceil_mode")
        self._bool("count_include_pad")


@dataclass(frozen=True, eq=False)
class SumPool(_Pool):
    """The sum of each window.

    Parameters
    ----------
    kernel : int or sequence of int
        The window's size, one number or one per spatial axis.
    stride : int or sequence of int, optional
        The step between windows; by default `kernel`.
    padding : int, sequence of int or sequence of (before, after), default 0
        The zeros around the input, one number, one per spatial axis, or pairs.
    ceil_mode : bool, default False
        Whether the last window may reach beyond the padded input. A window that would start beyond the input plus its
        left padding is left out.
    inputs, name : optional
        As in `Layer`.
    """

    ceil_mode: bool = False

    def _check(self) -> None:
        super()._check()
        self._bool("ceil_mode")


@dataclass(frozen=True, eq=False)
class GlobalAvgPool(Layer):
    """The mean over all spatial axes, which stay as axes of size 1.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """


# ------------------------------------------------------------------------------------------------------------ affine
# maps


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


# ------------------------------------------------------------------------------------------------------- several
# operands


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """The sum of its operands.

    Operands of one rank broadcast as in NumPy (sizes of 1); a Constant of lower rank is aligned at the right. An Add is
    one neuron with the linear layers before it that only it reads.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """

    arity: ClassVar[int | None] = None


@dataclass(frozen=True, eq=False)
class Mul(Layer):
    """The product of two operands, which broadcast as those of `Add`.

    The operands are a signal and a gate that a sigmoid made, or any operand and a Constant. A signal takes all
    relevance, and its gate none; with a Constant it is a `Scale`.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """

    arity: ClassVar[int | None] = 2


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """The operands one after the other along an axis.

    Parameters
    ----------
    axis : int, default 1
        The axis. The batch axis counts, and is refused.
    inputs, name : optional
        As in `Layer`.
    """

    axis: int = 1
    arity: ClassVar[int | None] = None

    def _check(self) -> None:
        self._int("axis", None)


# ---------------------------------------------------------------------------------------------------------------
# movement


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """(n, ...) to (n, features), in row-major order.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """The elements of a sample in another shape, in row-major order.

    Parameters
    ----------
    shape : sequence of int
        The shape of one sample, without the batch axis. One size may be −1, which stands for what is left.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        A size is 0, or several are −1.
    """

    shape: Sequence[int]

    def _check(self) -> None:
        self._ints("shape", -1, None)
        if not isinstance(self.shape, tuple) or 0 in self.shape or sum(s == -1 for s in self.shape) > 1:
            raise LayerError(
                f"Reshape: shape is {self.shape!r}, expected positive sizes without the batch axis, at most one -1"
            )


@dataclass(frozen=True, eq=False)
class Permute(Layer):
    """The axes in another order.

    Parameters
    ----------
    order : sequence of int
        Each axis once. The batch axis counts, and stays first.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        An axis is missing or repeated, or the batch axis is not first.
    """

    order: Sequence[int]

    def _check(self) -> None:
        self._ints("order", 0, None)
        if not isinstance(self.order, tuple) or sorted(self.order) != list(range(len(self.order))):
            raise LayerError(f"Permute: order is {self.order!r}, expected each axis once")
        if self.order[0] != 0:
            raise LayerError(f"Permute: order is {self.order!r}, but axis 0 is the batch and stays first")


@dataclass(frozen=True, eq=False)
class Slice(Layer):
    """x[..., start:stop:step, ...] along one axis.

    Parameters
    ----------
    axis : int
        The axis. The batch axis counts, and is refused.
    start : int, default 0
        The first element; negative numbers count from the end.
    stop : int, optional
        The end, which is left out; by default the axis's end.
    step : int, default 1
        The step, at least 1.
    inputs, name : optional
        As in `Layer`.
    """

    axis: int
    start: int = 0
    stop: int | None = None
    step: int = 1

    def _check(self) -> None:
        self._int("axis", None)
        self._int("start", None)
        if self.stop is not None:
            self._int("stop", None)
        self._int("step", 1)


@dataclass(frozen=True, eq=False)
class Pad(Layer):
    """Elements of one value around the spatial axes.

    Parameters
    ----------
    padding : int, sequence of int or sequence of (before, after)
        The number of elements, one number, one per spatial axis, or pairs.
    value : float, default 0.0
        The value of these elements.
    inputs, name : optional
        As in `Layer`.
    """

    padding: Padding
    value: float = 0.0

    def _check(self) -> None:
        self._padding("padding", None)
        self._number("value")


@dataclass(frozen=True, eq=False)
class Upsample(Layer):
    """Nearest-neighbour upsampling by an integer factor.

    Parameters
    ----------
    factor : int or sequence of int
        The factor, one number or one per spatial axis.
    inputs, name : optional
        As in `Layer`.
    """

    factor: Ints

    def _check(self) -> None:
        self._ints("factor", 1, None)


RECORDS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Linear, Conv, ConvTranspose, Embedding, ReLU, Activation, Softmax, Dropout, MaxPool, AvgPool, SumPool,
        GlobalAvgPool,
        BatchNorm, Scale, Preparation, LRN, Add, Mul, Concat, Flatten, Reshape, Permute, Slice, Pad, Upsample,
        Constant, Reduce, Gather, Expand, Resample,
    )
}  # fmt: skip

__all__ = ["ACTIVATIONS", "INPUT", "RECORDS", "Constant", "Expand", "Gather", "Layer", "Reduce", "Resample", *RECORDS]
