"""What Keras layers with weights, activations and arithmetic become: one row per layer, one short function per kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ... import layers as L
from .. import algebra
from ..records import Add, Refused, Value
from .call import Array, Call, Handler, Tensor, pair

Pairs = tuple[tuple[int, int], ...]

# -------------------------------------------------------------------------------------------------------- activations

ACTIVATIONS: dict[str, dict[str, Any] | None] = {  # name → fields of an Activation; None: records of its own
    "linear": None, "relu": None, "softmax": None, "log_softmax": None,
    "relu6": dict(kind="clip", alpha=0.0, beta=6.0),
    "hard_tanh": dict(kind="clip", alpha=-1.0, beta=1.0),
    "leaky_relu": dict(kind="leaky_relu", alpha=0.2),
    **{name: dict(kind=name) for name in (
        "elu", "selu", "celu", "silu", "gelu", "mish", "sigmoid", "hard_sigmoid", "log_sigmoid", "tanh", "tanh_shrink",
        "hard_shrink",
        "soft_shrink", "softplus", "softsign",
    )},
    "hard_silu": dict(kind="hard_swish"),
}  # fmt: skip


def activated(call: Call, tensor: Tensor) -> Tensor:
    """A layer's own activation, given as one of keras.activations."""
    function = call.activation
    name = getattr(function, "__name__", "?")
    if name not in ACTIVATIONS or not function.__module__.startswith("keras."):
        raise Refused(f"its activation {name!r} has no record; there are {', '.join(ACTIVATIONS)}")
    if name == "linear":
        return tensor
    if name in ("softmax", "log_softmax"):
        return _softmax(call, tensor, -1, log=name == "log_softmax")
    fields = ACTIVATIONS[name]
    return _same(call, tensor, L.ReLU) if fields is None else _same(call, tensor, L.Activation, **fields)


def _same(call: Call, tensor: Tensor, cls: type[L.Layer], **fields: Any) -> Tensor:
    """Element by element: the order of axes stays."""
    return Tensor(call.add(cls, tensor.value, **fields), tensor.moved)


def _softmax(call: Call, tensor: Tensor, axis: Any, log: bool = False) -> Tensor:
    if not isinstance(axis, int):
        raise Refused(f"it normalises over axes {axis} together; one axis has a record")
    return Tensor(call.add(L.Softmax, call.records.plain(tensor), axis=axis, log=log))


def _glu(call: Call, tensor: Tensor, axis: int) -> Tensor:
    """The first half of an axis, gated by a sigmoid of the second."""
    x = call.records.plain(tensor)
    n, half = len(x.shape) + 1, x.shape[axis % (len(x.shape) + 1) - 1] // 2
    signal = call.add(L.Slice, x, axis=axis % n, start=0, stop=half)
    gate = call.add(L.Activation, call.add(L.Slice, x, axis=axis % n, start=half), kind="sigmoid")
    return Tensor(call.add(L.Mul, signal, gate))


def _activation(call: Call) -> Tensor:
    return activated(call, call.x)


def _elementwise(kind: str, **fields: str) -> Handler:
    """An Activation whose alpha is this attribute of the layer."""

    def handle(call: Call) -> Tensor:
        return _same(
            call, call.x, L.Activation, kind=kind, **{key: float(getattr(call, name)) for key, name in fields.items()}
        )

    return handle


def _relu(call: Call) -> Tensor:
    top, slope, threshold = call.max_value, float(call.negative_slope), float(call.threshold)
    if threshold and not slope and top is None:
        return _same(call, call.x, L.Activation, kind="threshold", alpha=threshold)
    if threshold or (slope and top is not None):
        raise Refused(f"max_value={top}, negative_slope={slope:g}, threshold={threshold:g} together have no record")
    if top is not None:
        return _same(call, call.x, L.Activation, kind="clip", alpha=0.0, beta=float(top))
    return _same(call, call.x, L.Activation, kind="leaky_relu", alpha=slope) if slope else _same(call, call.x, L.ReLU)


def _prelu(call: Call) -> Tensor:
    """Slopes of the layer's own axes, 1 along shared ones."""
    slopes = call.weights("alpha")
    shape = call.x.shape
    if len(shape) > 1 and slopes.shape == (*(1,) * (len(shape) - 1), shape[-1]):
        return Tensor(
            call.add(L.Activation, call.records.moved(call.x), kind="prelu", slopes=slopes.reshape(-1)), moved=True
        )
    x = call.records.plain(call.x)
    return Tensor(call.add(L.Activation, x, kind="prelu", slopes=np.broadcast_to(slopes, shape)))


def _gelu(call: Call) -> Tensor:
    return _same(call, call.x, L.Activation, kind="gelu_tanh" if call.approximate else "gelu")


# ------------------------------------------------------------------------------------------------- layers with weights


def same_padding(size: tuple[int, ...], reach: tuple[int, ...], stride: tuple[int, ...]) -> Pairs:
    """For ⌈size / stride⌉ windows; an odd element after."""
    totals = [max((-(-s // t) - 1) * t + r - s, 0) for s, r, t in zip(size, reach, stride, strict=True)]
    return tuple((t // 2, t - t // 2) for t in totals)


def _geometry(call: Call, x: Value, kernel: tuple[int, ...]) -> dict[str, Any]:
    n = len(kernel)
    stride, dilation = pair(call.strides, n), pair(call.dilation_rate, n)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    padding: Pairs = ((0, 0),) * n
    if call.padding == "same":
        padding = same_padding(x.shape[1:], reach, stride)
        call.records.layers.same = True
    elif call.padding == "causal":
        padding = ((reach[0] - 1, 0),)
    elif call.padding != "valid":
        raise Refused(f"padding {call.padding!r} is not known")
    return dict(stride=stride, dilation=dilation, padding=padding)


def _outward(kernel: Array) -> Array:
    """(*k, c_in/groups, c_out) to (c_out, c_in/groups, *k)."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _by_channel(kernel: Array) -> Array:
    """A depthwise (*k, c_in, multiplier) to (c_in·multiplier, 1, *k)."""
    *k, c_in, times = kernel.shape
    return np.moveaxis(kernel.reshape(*k, 1, c_in * times), (-1, -2), (0, 1))


def _conv(call: Call) -> Tensor:
    x, moved = call.channels(call.x)
    weight = _outward(call.weights("kernel"))
    fields = _geometry(call, x, weight.shape[2:])
    y = call.add(L.Conv, x, weight=weight, bias=call.optional("bias"), groups=call.groups, **fields)
    return activated(call, Tensor(y, moved))


def _depthwise(call: Call) -> Tensor:
    x, moved = call.channels(call.x)
    weight = _by_channel(call.weights("kernel"))
    fields = _geometry(call, x, weight.shape[2:])
    return activated(
        call, Tensor(call.add(L.Conv, x, weight=weight, bias=call.optional("bias"), groups=x.shape[0], **fields), moved)
    )


def _separable(call: Call) -> Tensor:
    x, moved = call.channels(call.x)
    weight = _by_channel(call.weights("depthwise_kernel"))
    inner = call.add(L.Conv, x, weight=weight, groups=x.shape[0], **_geometry(call, x, weight.shape[2:]))
    y = call.add(L.Conv, inner, weight=_outward(call.weights("pointwise_kernel")), bias=call.optional("bias"))
    return activated(call, Tensor(y, moved))


def _conv_transpose(call: Call) -> Tensor:
    """Without output_padding, "same" makes size·stride elements and "valid" (size − 1)·stride + max(kernel, stride)."""
    x, moved = call.channels(call.x)
    weight = np.moveaxis(call.weights("kernel"), (-1, -2), (0, 1))  # (*k, c_out, c_in)
    kernel = weight.shape[2:]
    n = len(kernel)
    stride, dilation = pair(call.strides, n), pair(call.dilation_rate, n)
    if call.output_padding is not None:
        raise Refused("output_padding has no record here; crop the result of padding='valid' (Cropping) instead")
    # of a window over the stride
    over = [d * (k - 1) + 1 - s for k, d, s in zip(kernel, dilation, stride, strict=True)]
    cut = [max(o, 0) if call.padding == "same" else 0 for o in over]
    y = call.add(
        L.ConvTranspose, x, weight=weight, bias=call.optional("bias"), stride=stride, dilation=dilation,
        padding=tuple((c // 2, c - c // 2) for c in cut), output_padding=tuple(max(-o, 0) for o in over),
    )  # fmt: skip
    return activated(call, Tensor(y, moved))


def _dense(call: Call) -> Tensor:
    """Along the last axis: of images, and of what has its channels on axis 1, it is a convolution of one element."""
    kernel, bias, n = call.weights("kernel"), call.optional("bias"), len(call.x.shape)
    if n == 1 or (n == 2 and not call.x.moved):
        return activated(call, Tensor(call.add(L.Linear, call.x.value, weight=kernel.T, bias=bias)))
    weight = kernel.T.reshape(*kernel.T.shape, *(1,) * (n - 1))
    return activated(call, Tensor(call.add(L.Conv, call.records.moved(call.x), weight=weight, bias=bias), moved=True))


def _embedding(call: Call) -> Tensor:
    if call.mask_zero:
        raise Refused("mask_zero=True: masks are not followed; use mask_zero=False")
    if call.x.value.position != L.INPUT:
        raise Refused("its words are computed; only the model's input can be")
    return Tensor(call.add(L.Embedding, call.x.value, weight=call.weights("embeddings")))


# ------------------------------------------------------------------------------------------------------- affine maps


def on_axis(call: Call, tensor: Tensor, axis: int, add: Callable[[Value], Value]) -> Tensor:
    """A record along Keras's axis, which must be the first or the last."""
    n = len(tensor.shape) + 1
    if axis % n not in (1, n - 1):
        raise Refused(f"it works along axis {axis} of {n}; the first after the batch and the last can be")
    moved = n > 2 and axis % n == n - 1
    return Tensor(add(call.records.moved(tensor) if moved else call.records.plain(tensor)), moved)


def scaled(call: Call, tensor: Tensor, scale: Any, shift: Any) -> Tensor:
    """x·scale + shift; the order of axes stays for numbers, and channels move to axis 1 for one number per channel."""
    rank = len(tensor.shape)
    factor, offset = (algebra.of_sample(np.asarray(a, np.float64), rank, call.n_batch) for a in (scale, shift))
    if factor.size == offset.size == 1:
        return Tensor(
            algebra.scaled(call.add, algebra.vector(tensor.value), factor.reshape(()), offset.reshape(())), tensor.moved
        )
    if rank > 1 and all(a.size == 1 or (a.size,) == a.shape[-1:] == tensor.shape[-1:] for a in (factor, offset)):
        factor, offset = (a.reshape(-1, *(1,) * (rank - 1)) for a in (factor, offset))
        return Tensor(algebra.scaled(call.add, call.records.moved(tensor), factor, offset), moved=True)
    return Tensor(algebra.scaled(call.add, call.records.plain(tensor), factor, offset))


def _batch_norm(call: Call) -> Tensor:
    arrays = dict(mean=call.weights("moving_mean"), weight=call.optional("gamma"), bias=call.optional("beta"))
    if getattr(call.layer, "renorm", False):
        raise Refused("renorm=True keeps other statistics; train without it")
    variance, eps, n = call.weights("moving_variance"), float(call.epsilon), len(call.x.shape) + 1
    if 1 < call.axis % n < n - 1:  # of an axis that records do not call channels
        weight, bias = (np.float64(d) if a is None else a for a, d in ((arrays["weight"], 1), (arrays["bias"], 0)))
        scale = weight / np.sqrt(np.asarray(variance, np.float64) + eps)
        behind = (-1, *(1,) * (n - 1 - call.axis % n))
        return scaled(call, call.x, scale.reshape(behind), (bias - call.weights("moving_mean") * scale).reshape(behind))
    return on_axis(call, call.x, call.axis, partial(call.add, L.BatchNorm, variance=variance, eps=eps, **arrays))


def _rescaling(call: Call) -> Tensor:
    return scaled(call, call.x, call.scale, call.offset)


def _normalization(call: Call) -> Tensor:
    """(x − mean)/max(√variance, ε), or its inverse."""
    mean, std = (np.asarray(call.records.numpy(a), np.float64) for a in (call.mean, call.variance))
    std = np.maximum(np.sqrt(std), 1e-7)
    return scaled(call, call.x, std, mean) if call.invert else scaled(call, call.x, 1 / std, -mean / std)


# --------------------------------------------------------------------------------------------------- several operands


def together(call: Call) -> tuple[list[Value], bool]:
    """All operands in one order: Keras's last axis first where any of them has it so."""
    moved = any(t.moved for t in call.tensors)
    return [call.records.moved(t) if moved else call.records.plain(t) for t in call.tensors], moved


def merged(call: Call) -> tuple[list[Value], bool]:
    """The operands of a layer that merges: those with fewer axes get axes of size 1 behind the batch."""
    rank = max(len(t.shape) for t in call.tensors)
    wide = [call.records.reshaped(t, (*(1,) * (rank - len(t.shape)), *t.shape), None) for t in call.tensors]
    return together(call.of(wide))


def _add(call: Call) -> Tensor:
    values, moved = merged(call)
    return Tensor(call.add(L.Add, *values), moved)


def _average(call: Call) -> Tensor:
    total = _add(call)
    return scaled(call, total, 1 / len(call.tensors), 0.0)


def _multiply(call: Call) -> Tensor:
    if len(call.tensors) != 2:
        raise Refused(f"it multiplies {len(call.tensors)} tensors; a signal and a gate made by a sigmoid have a rule")
    values, moved = merged(call)
    return Tensor(call.add(L.Mul, *values), moved)


def _combined(combine: Callable[[Add, list[Value]], Value], count: int | None = None) -> Handler:
    def handle(call: Call) -> Tensor:
        if count not in (None, len(call.tensors)):
            raise Refused(f"it reads {len(call.tensors)} tensors, expected {count}")
        values, moved = merged(call)
        return Tensor(combine(call.add, values), moved)

    return handle


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _conv_transpose),
    "Dense": _dense,
    "Embedding": _embedding,
    "BatchNormalization": _batch_norm,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _elementwise("leaky_relu", alpha="negative_slope"),
    "ELU": _elementwise("elu", alpha="alpha"),
    "PReLU": _prelu,
    "Softmax": lambda call: _softmax(call, call.x, call.axis),
    "Add": _add,
    "Average": _average,
    "Multiply": _multiply,
    "Subtract": _combined(lambda add, values: algebra.difference(add, values[0], values[1]), 2),
    "Maximum": _combined(algebra.larger),
    "Minimum": _combined(algebra.smaller),
    "ops.Relu": lambda call: _same(call, call.x, L.ReLU),
    "ops.Relu6": lambda call: _same(call, call.x, L.Activation, kind="clip", alpha=0.0, beta=6.0),
    "ops.Gelu": _gelu,
    "ops.LeakyRelu": _elementwise("leaky_relu", alpha="negative_slope"),
    "ops.Elu": _elementwise("elu", alpha="alpha"),
    "ops.Celu": _elementwise("celu", alpha="alpha"),
    "ops.HardShrink": _elementwise("hard_shrink", alpha="threshold"),
    "ops.SoftShrink": _elementwise("soft_shrink", alpha="threshold"),
    "ops.Threshold": _elementwise("threshold", alpha="threshold", beta="default_value"),
    **{
        f"ops.{name}": _elementwise(name.lower())
        for name in ("Silu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Selu")
    },
    "ops.LogSigmoid": _elementwise("log_sigmoid"),
    "ops.TanhShrink": _elementwise("tanh_shrink"),
    "ops.HardTanh": lambda call: _same(call, call.x, L.Activation, kind="clip", alpha=-1.0, beta=1.0),
    "ops.Glu": lambda call: _glu(call, call.x, call.axis),
    "ops.HardSigmoid": _elementwise("hard_sigmoid"),
    "ops.HardSilu": _elementwise("hard_swish"),
    "ops.Softmax": lambda call: _softmax(call, call.x, call.axis),
    "ops.LogSoftmax": lambda call: _softmax(call, call.x, call.axis, log=True),
}
