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
    """y = x Wᵀ + b along one axis of (n, n_in) or of any other input; weight (n_out, n_in), bias (n_out,).

    axis : the one that is contracted, the batch counted; by default the last
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
    """Cross-correlation in 1, 2 or 3 dimensions, by the weight's shape (c_out, c_in/groups, *kernel)."""

    dilation: Ints = 1
    groups: int = 1

    def _check(self) -> None:
        self._check_kernel("output")
        if self.bias is not None:
            self._array("bias", shape=(self.weight.shape[0],))


@dataclass(frozen=True, eq=False)
class ConvTranspose(_Convolution):
    """Transposed convolution; weight (c_in, c_out/groups, *kernel).

    Its output has (l−1)·stride + dilation·(k−1) + 1 − padding + output_padding elements along an axis of l.
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
    """Rows of weight (n_words, n_features) picked by the integer input (n, ...); adds a last axis."""

    weight: Array

    def _check(self) -> None:
        self._array("weight", 2)


# ------------------------------------------------------------------------------------------------------------
# activations


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x)/Σexp(x) along an axis, or its logarithm; `explain` starts before a final one."""

    axis: int = 1
    log: bool = False

    def _check(self) -> None:
        self._int("axis", None)
        self._bool("log")


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """The identity, as at inference."""


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
    """Largest of each window, padded with −∞; ties go to the first in row-major order."""

    dilation: Ints = 1
    ceil_mode: bool = False

    def _check(self) -> None:
        super()._check()
        self._ints("dilation", 1, len(self.kernel) if isinstance(self.kernel, tuple) else None)
        self._bool("ceil_mode")


@dataclass(frozen=True, eq=False)
class AvgPool(_Pool):
    """Mean of each window, over the padded window if `count_include_pad`, else over its valid elements."""

    ceil_mode: bool = False
    count_include_pad: bool = True

    def _check(self) -> None:
        super()._check()
        self._bool("ceil_mode")
        self._bool("count_include_pad")


@dataclass(frozen=True, eq=False)
class SumPool(_Pool):
    """Sum of each window."""

    ceil_mode: bool = False

    def _check(self) -> None:
        super()._check()
        self._bool("ceil_mode")


@dataclass(frozen=True, eq=False)
class GlobalAvgPool(Layer):
    """Mean over all spatial axes, which stay as axes of size 1."""


# ------------------------------------------------------------------------------------------------------------ affine
# maps


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """(x − mean)/√(variance + eps)·weight + bias per channel (axis 1), with the stored statistics."""

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
    """x·scale + shift: arrays of one axis are per channel (axis 1), others broadcast against a sample (sizes 1 or
    equal).
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
    """x·scale + shift per channel (axis 1) of the network's input, as a scaler makes it: relevance belongs to what it
    puts out.

    It reads the input, never folds into a layer, and relevance passes it unchanged under every rule, so that a map does
    not depend on the units of the raw columns. With the domain "real" the preset "dtd" is then "lrp-epsilon": inputs of
    both signs are explained by how they differ from the reference point, at which x·scale + shift is 0.
    """

    scale: Array
    shift: Array | None = None

    def _check(self) -> None:
        self._array("scale", 1)
        if self.shift is not None:
            self._array("shift", shape=self.scale.shape)


@dataclass(frozen=True, eq=False)
class LRN(Layer):
    """Local response normalisation across channels: x / (k + alpha/size · Σ x²)^beta over `size` neighbouring
    channels.
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
    """Sum of its operands; those of one rank broadcast as in NumPy (sizes of 1), a Constant of lower rank is aligned at
    the right.
    """

    arity: ClassVar[int | None] = None


@dataclass(frozen=True, eq=False)
class Mul(Layer):
    """Product of two operands, broadcast as in Add: a signal and a gate that an activation made, or anything and a
    Constant (as Scale).
    """

    arity: ClassVar[int | None] = 2


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Its operands one after the other along an axis (the batch axis counts, and is refused)."""

    axis: int = 1
    arity: ClassVar[int | None] = None

    def _check(self) -> None:
        self._int("axis", None)


# ---------------------------------------------------------------------------------------------------------------
# movement


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """(n, ...) to (n, features), row-major."""


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """To (n, *shape), row-major; one entry of shape may be −1."""

    shape: Sequence[int]

    def _check(self) -> None:
        self._ints("shape", -1, None)
        if not isinstance(self.shape, tuple) or 0 in self.shape or sum(s == -1 for s in self.shape) > 1:
            raise LayerError(
                f"Reshape: shape is {self.shape!r}, expected positive sizes without the batch axis, at most one -1"
            )


@dataclass(frozen=True, eq=False)
class Permute(Layer):
    """Reorder the axes; order counts the batch axis, which stays first."""

    order: Sequence[int]

    def _check(self) -> None:
        self._ints("order", 0, None)
        if not isinstance(self.order, tuple) or sorted(self.order) != list(range(len(self.order))):
            raise LayerError(f"Permute: order is {self.order!r}, expected each axis once")
        if self.order[0] != 0:
            raise LayerError(f"Permute: order is {self.order!r}, but axis 0 is the batch and stays first")


@dataclass(frozen=True, eq=False)
class Slice(Layer):
    """x[..., start:stop:step, ...] along one axis, step ≥ 1."""

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
    """Constant padding of the spatial axes: an integer, one per axis, or (before, after) pairs."""

    padding: Padding
    value: float = 0.0

    def _check(self) -> None:
        self._padding("padding", None)
        self._number("value")


@dataclass(frozen=True, eq=False)
class Upsample(Layer):
    """Nearest-neighbour upsampling by an integer factor per spatial axis."""

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
