"""The records a network is made of: a flat list of them, wired by `inputs=`, is a directed acyclic graph.

A record is data only: arrays (kept as read-only copies) and geometry, in PyTorch's shapes and ONNX's meaning.  What a record
does stands elsewhere: its shape rule in plan/shapes.py, its neurons in plan/units.py, its kernels in csrc/.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import LayerError, WiringError

INPUT = -1
"""The network's input, as an entry of `inputs=`."""

Ints = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[tuple[int, int]]
Array = NDArray[Any]  # what a record holds; any sequence of numbers may be given


@dataclass(frozen=True, eq=False)
class Layer:
    """What every record has.

    Parameters
    ----------
    inputs : int or sequence of int, optional
        Positions of the entries read, `INPUT` for the network's input; None means the entry before.
    name : str, optional
        Shown in messages, plans and ledgers.
    """

    inputs: tuple[int, ...] | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)

    arity: ClassVar[int | None] = 1  # None: one or more operands

    def __post_init__(self) -> None:
        if self.inputs is not None:
            self._set("inputs", self._positions(self.inputs))
        if self.name is not None and not isinstance(self.name, str):
            raise LayerError(f"{self._type}: name is {self.name!r}, expected a string")
        self._check()

    def _check(self) -> None:
        """Normalise and check this record's own fields."""

    @property
    def _type(self) -> str:
        return type(self).__name__

    def _set(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)

    def _positions(self, inputs: object) -> tuple[int, ...]:
        given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        try:
            positions = tuple(operator.index(i) for i in given)
        except TypeError:
            raise WiringError(f"{self._type}: inputs is {inputs!r}, expected positions (integers) or dtdfast.INPUT") from None
        if not positions:
            raise WiringError(f"{self._type}: inputs is empty; leave it None to read the entry before")
        if self.arity is not None and len(positions) != self.arity:
            raise WiringError(f"{self._type}: inputs has {len(positions)} entries, expected {self.arity}")
        return positions

    def _array(self, key: str, ndim: int | tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None) -> None:
        """Replace a field by a read-only float copy of it, checked for dtype, rank, shape and finiteness."""
        value = getattr(self, key)
        if isinstance(value, np.ndarray) and value.dtype.kind != "f":
            raise LayerError(f"{self._type}: {key} has dtype {value.dtype}, expected a float array (float32 or float64)")
        try:
            array = np.array(value, dtype=None if getattr(value, "dtype", None) in (np.float32, np.float64) else np.float64, order="C")
        except (TypeError, ValueError) as error:
            raise LayerError(f"{self._type}: {key} cannot be read as a float array: {error}") from None
        if isinstance(value, np.ndarray) and value.dtype.itemsize < 4:
            array = array.astype(np.float32)
        ranks = (ndim,) if isinstance(ndim, int) else ndim
        if ranks is not None and array.ndim not in ranks:
            expected = " or ".join(str(r) for r in ranks)
            raise LayerError(f"{self._type}: {key} has {array.ndim} axes (shape {array.shape}), expected {expected}")
        if shape is not None and array.shape != shape:
            raise LayerError(f"{self._type}: {key} has shape {array.shape}, expected {shape}")
        if array.size == 0:
            raise LayerError(f"{self._type}: {key} is empty (shape {array.shape})")
        if not np.isfinite(array).all():
            raise LayerError(f"{self._type}: {key} holds NaN or infinity; repair the weights before explaining")
        array.setflags(write=False)
        self._set(key, array)

    def _int(self, key: str, low: int | None) -> None:
        value = getattr(self, key)
        try:
            number = operator.index(value)
        except TypeError:
            raise LayerError(f"{self._type}: {key} is {value!r}, expected an integer") from None
        if low is not None and number < low:
            raise LayerError(f"{self._type}: {key} is {number}, expected at least {low}")
        self._set(key, number)

    def _ints(self, key: str, low: int, n: int | None) -> None:
        """An integer, or one per spatial axis; becomes a tuple of n when n is known."""
        value = getattr(self, key)
        items = tuple(value) if isinstance(value, (tuple, list)) else None
        try:
            numbers = tuple(operator.index(v) for v in items) if items is not None else (operator.index(value),)
        except TypeError:
            raise LayerError(f"{self._type}: {key} is {value!r}, expected an integer or one per spatial axis") from None
        if min(numbers, default=low - 1) < low:
            raise LayerError(f"{self._type}: {key} is {value!r}, expected integers of at least {low}")
        if items is not None and n is not None and len(numbers) != n:
            raise LayerError(f"{self._type}: {key} is {value!r}, expected {n} integers (one per spatial axis)")
        if items is None:
            self._set(key, numbers * n if n is not None else numbers[0])
        else:
            self._set(key, numbers)

    def _padding(self, key: str, n: int | None) -> None:
        """An integer, one per spatial axis, or (before, after) pairs; becomes pairs when n is known."""
        value = getattr(self, key)
        if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
            try:
                pairs = tuple((operator.index(a), operator.index(b)) for a, b in value)
            except (TypeError, ValueError):
                raise LayerError(f"{self._type}: {key} is {value!r}, expected (before, after) pairs, one per spatial axis") from None
            if min(min(p) for p in pairs) < 0:
                raise LayerError(f"{self._type}: {key} is {value!r}, expected integers of at least 0 (use Slice to crop)")
            if n is not None and len(pairs) != n:
                raise LayerError(f"{self._type}: {key} is {value!r}, expected {n} pairs (one per spatial axis)")
            self._set(key, pairs)
        else:
            self._ints(key, 0, n)
            numbers = getattr(self, key)
            if isinstance(numbers, tuple):
                self._set(key, tuple((v, v) for v in numbers))

    def _number(self, key: str) -> None:
        value = getattr(self, key)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise LayerError(f"{self._type}: {key} is {value!r}, expected a number") from None
        if not np.isfinite(number):
            raise LayerError(f"{self._type}: {key} is {value!r}, expected a finite number")
        self._set(key, number)

    def _bool(self, key: str) -> None:
        if not isinstance(getattr(self, key), (bool, np.bool_)):
            raise LayerError(f"{self._type}: {key} is {getattr(self, key)!r}, expected True or False")
        self._set(key, bool(getattr(self, key)))


# ---------------------------------------------------------------------------------------------------- layers with weights


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """y = x Wᵀ + b on (n, n_in); weight (n_out, n_in), bias (n_out,)."""

    weight: Array
    bias: Array | None = None

    def _check(self) -> None:
        self._array("weight", 2)
        if self.bias is not None:
            self._array("bias", shape=(self.weight.shape[0],))


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """Cross-correlation in 1, 2 or 3 dimensions, by the weight's shape (c_out, c_in/groups, *kernel)."""

    weight: Array
    bias: Array | None = None
    stride: Ints = 1
    padding: Padding = 0
    dilation: Ints = 1
    groups: int = 1

    def _check(self) -> None:
        self._array("weight", (3, 4, 5))
        shape = self.weight.shape
        n = len(shape) - 2
        self._int("groups", 1)
        if shape[0] % self.groups:
            raise LayerError(f"Conv: {shape[0]} output channels do not divide into {self.groups} groups")
        if self.bias is not None:
            self._array("bias", shape=(shape[0],))
        self._ints("stride", 1, n)
        self._ints("dilation", 1, n)
        self._padding("padding", n)


@dataclass(frozen=True, eq=False)
class ConvTranspose(Layer):
    """Transposed convolution; weight (c_in, c_out/groups, *kernel), size (l−1)·stride + dilation·(k−1) + 1 − padding + output_padding."""

    weight: Array
    bias: Array | None = None
    stride: Ints = 1
    padding: Padding = 0
    output_padding: Ints = 0
    dilation: Ints = 1
    groups: int = 1

    def _check(self) -> None:
        self._array("weight", (3, 4, 5))
        shape = self.weight.shape
        n = len(shape) - 2
        self._int("groups", 1)
        if shape[0] % self.groups:
            raise LayerError(f"ConvTranspose: {shape[0]} input channels do not divide into {self.groups} groups")
        if self.bias is not None:
            self._array("bias", shape=(shape[1] * self.groups,))
        self._ints("stride", 1, n)
        self._ints("dilation", 1, n)
        self._ints("output_padding", 0, n)
        self._padding("padding", n)


@dataclass(frozen=True, eq=False)
class Embedding(Layer):
    """Rows of weight (n_words, n_features) picked by the integer input (n, ...); adds a last axis."""

    weight: Array

    def _check(self) -> None:
        self._array("weight", 2)


# ------------------------------------------------------------------------------------------------------------ activations


@dataclass(frozen=True, eq=False)
class ReLU(Layer):
    """max(0, x)."""


ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {  # kind → defaults of alpha and beta (None: takes none)
    "leaky_relu": (0.01, None),
    "clip": (0.0, 6.0),
    "elu": (1.0, None),
    "silu": (None, None),
    "gelu": (None, None),
    "gelu_tanh": (None, None),
    "sigmoid": (None, None),
    "hard_sigmoid": (1 / 6, 0.5),
    "hard_swish": (None, None),
    "tanh": (None, None),
    "softplus": (1.0, None),
}


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """An element-wise function other than ReLU.

    kind : leaky_relu (alpha = slope), clip (alpha = low, beta = high), elu (alpha), silu, gelu, gelu_tanh, sigmoid,
    hard_sigmoid (clip(alpha·x + beta, 0, 1)), hard_swish (x·hard_sigmoid(x)), tanh, softplus (log(1+exp(alpha·x))/alpha).
    """

    kind: str
    alpha: float | None = None
    beta: float | None = None

    def _check(self) -> None:
        if self.kind not in ACTIVATIONS:
            raise LayerError(f"Activation: {self.kind!r} is not one of {', '.join(ACTIVATIONS)}")
        for key, default in zip(("alpha", "beta"), ACTIVATIONS[self.kind], strict=True):
            if getattr(self, key) is None:
                self._set(key, default)
            elif default is None:
                raise LayerError(f"Activation: {self.kind} takes no {key}")
            else:
                self._number(key)
        if self.kind == "clip" and not self.alpha < self.beta:  # type: ignore[operator]
            raise LayerError(f"Activation: clip needs alpha < beta, got {self.alpha} and {self.beta}")
        if self.kind == "softplus" and not self.alpha > 0:  # type: ignore[operator]
            raise LayerError(f"Activation: softplus needs alpha > 0, got {self.alpha}")


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x)/Σexp(x) along an axis; `explain` starts before a final one."""

    axis: int = 1

    def _check(self) -> None:
        self._int("axis", None)


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """The identity, as at inference."""


# ------------------------------------------------------------------------------------------------------------------ pools


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


# ------------------------------------------------------------------------------------------------------------ affine maps


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
    """x·scale + shift per channel (axis 1)."""

    scale: Array
    shift: Array | None = None

    def _check(self) -> None:
        self._array("scale", 1)
        if self.shift is not None:
            self._array("shift", shape=self.scale.shape)


@dataclass(frozen=True, eq=False)
class LRN(Layer):
    """Local response normalisation across channels: x / (k + alpha/size · Σ x²)^beta over `size` neighbouring channels."""

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


# ------------------------------------------------------------------------------------------------------- several operands


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """Sum of its operands, all of one shape."""

    arity: ClassVar[int | None] = None


@dataclass(frozen=True, eq=False)
class Mul(Layer):
    """Product of two operands; one may be (n, c, 1, ...) and is then repeated over space."""

    arity: ClassVar[int | None] = 2


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Its operands one after the other along an axis (the batch axis counts, and is refused)."""

    axis: int = 1
    arity: ClassVar[int | None] = None

    def _check(self) -> None:
        self._int("axis", None)


# --------------------------------------------------------------------------------------------------------------- movement


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
            raise LayerError(f"Reshape: shape is {self.shape!r}, expected positive sizes without the batch axis, at most one -1")


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
        Linear, Conv, ConvTranspose, Embedding, ReLU, Activation, Softmax, Dropout, MaxPool, AvgPool, SumPool, GlobalAvgPool,
        BatchNorm, Scale, LRN, Add, Mul, Concat, Flatten, Reshape, Permute, Slice, Pad, Upsample,
    )
}  # fmt: skip
