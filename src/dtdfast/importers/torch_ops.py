"""What each ATen operator of an exported graph becomes: one row per operator, one short function per kind.

A function gets the list under construction and the call (arguments by their schema's names, defaults filled in) and returns the value
that stands for its result.  Nothing here imports torch: constants arrive as tensors, everything else as plain Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..plan.shapes import Shape
from .records import Refused, Value

Array = NDArray[Any]


Pieces = list[Callable[[], Value]]
"""Results of an operator that has several, each made when it is read."""


class Records(Protocol):
    """The list under construction."""

    n_batch: int

    def add(self, cls: type[L.Layer], *sources: Value, **fields: Any) -> Value: ...

    def array(self, value: object, what: str) -> Array: ...


class Call:
    """One call: `arguments` by name; values where the network's input takes part, constants elsewhere."""

    def __init__(self, name: str, arguments: dict[str, Any], shape: Shape, users: set[str | None]) -> None:
        self.name = name
        self.arguments = arguments
        self.shape = shape  # of one sample of the (first) result
        self.users = users  # operators that read the result

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arguments[name]
        except KeyError:
            raise AttributeError(name) from None

    def x(self, name: str = "self") -> Value:
        value = self.arguments[name]
        if not isinstance(value, Value):
            raise Refused(f"its {name} is not computed from the network's input")
        return value

    def get(self, name: str) -> Any:
        return self.arguments.get(name)


Handler = Callable[[Records, Call], Value | Pieces]

# ------------------------------------------------------------------------------------------------------ layers with weights


def _bias(records: Records, call: Call) -> Array | None:
    return None if call.bias is None else records.array(call.bias, "bias")


def _linear(records: Records, call: Call) -> Value:
    weight = records.array(call.weight, "weight")
    return records.add(L.Linear, call.x("input"), weight=weight, bias=_bias(records, call))


def _matmul(records: Records, call: Call) -> Value:
    """A product with a constant matrix: x @ m, with `addmm` b + x @ m."""
    left, right = ("mat1", "mat2") if call.name == "addmm" else ("self", "mat2" if call.name == "mm" else "other")
    matrix = records.array(call.arguments[right], f"{right} operand")
    if matrix.ndim != 2:
        raise Refused(f"its {right} operand has {matrix.ndim} axes, expected a matrix")
    bias = None
    if call.name == "addmm":
        if (call.alpha, call.beta) != (1, 1):
            raise Refused(f"alpha={call.alpha} and beta={call.beta}, expected 1")
        bias = np.broadcast_to(records.array(call.self, "self operand"), matrix.shape[1:])
    return records.add(L.Linear, call.x(left), weight=matrix.T, bias=bias)


def _conv(records: Records, call: Call) -> Value:
    weight = records.array(call.weight, "weight")
    padding = call.padding
    if padding == "same":  # an odd total leaves the larger half at the end
        totals = [d * (k - 1) for d, k in zip(_spread(call.dilation, weight.ndim - 2), weight.shape[2:], strict=True)]
        padding = [(total // 2, total - total // 2) for total in totals]
    elif padding == "valid":
        padding = 0
    return records.add(
        L.Conv, call.x("input"), weight=weight, bias=_bias(records, call), stride=_ints(call.stride), padding=_ints(padding),
        dilation=_ints(call.dilation), groups=call.groups,
    )  # fmt: skip


def _conv_transpose(records: Records, call: Call) -> Value:
    return records.add(
        L.ConvTranspose, call.x("input"), weight=records.array(call.weight, "weight"), bias=_bias(records, call), stride=_ints(call.stride),
        padding=_ints(call.padding), output_padding=_ints(call.output_padding), dilation=_ints(call.dilation), groups=call.groups,
    )  # fmt: skip


def _embedding(records: Records, call: Call) -> Value:
    return records.add(L.Embedding, call.x("indices"), weight=records.array(call.weight, "weight"))


def _batch_norm(records: Records, call: Call) -> Pieces:
    if call.get("training"):
        raise Refused("it normalises by the batch's own statistics; only stored statistics can be explained")
    named = dict(mean=call.running_mean, variance=call.running_var, weight=call.weight, bias=call.bias)
    arrays = {key: records.array(value, key) for key, value in named.items() if value is not None}
    return [partial(records.add, L.BatchNorm, call.x("input"), **arrays, eps=call.eps)]


# ------------------------------------------------------------------------------------------------------------- element-wise


def _relu(records: Records, call: Call) -> Value:
    return records.add(L.ReLU, call.x())


def _activation(kind: str, **fields: str) -> Handler:
    """An Activation whose alpha and beta are these arguments."""

    def handle(records: Records, call: Call) -> Value:
        return records.add(L.Activation, call.x(), kind=kind, **{key: call.arguments[name] for key, name in fields.items()})

    return handle


def _relu6(records: Records, call: Call) -> Value:
    return records.add(L.Activation, call.x(), kind="clip", alpha=0.0, beta=6.0)


def _clamp(records: Records, call: Call) -> Value:
    low, high = call.min, call.get("max")
    if high is None and low == 0:
        return _relu(records, call)
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        raise Refused(f"it clamps to [{low}, {high}]; expected two numbers, or a minimum of 0 alone")
    return records.add(L.Activation, call.x(), kind="clip", alpha=low, beta=high)


def _elu(records: Records, call: Call) -> Value:
    if (call.scale, call.input_scale) != (1, 1):
        raise Refused(f"scale={call.scale} and input_scale={call.input_scale}, expected 1")
    return records.add(L.Activation, call.x(), kind="elu", alpha=call.alpha)


def _gelu(records: Records, call: Call) -> Value:
    return records.add(L.Activation, call.x(), kind="gelu_tanh" if call.approximate == "tanh" else "gelu")


def _softmax(records: Records, call: Call) -> Value:
    return records.add(L.Softmax, call.x(), axis=call.dim)


def _lrn(records: Records, call: Call) -> Value:
    if call.size % 2 == 0:
        raise Refused(f"local response normalisation over {call.size} channels; only odd sizes are centred")
    return records.add(L.LRN, call.x(), size=call.size, alpha=call.alpha, beta=call.beta, k=call.k)


# -------------------------------------------------------------------------------------------------------------- arithmetic


def _column(records: Records, constant: object, x: Value) -> NDArray[np.float64]:
    """A constant as one number per channel."""
    array = np.asarray(records.array(constant, "constant operand"), np.float64)
    full = (1,) * (len(x.shape) + 1 - array.ndim) + array.shape
    if len(full) != len(x.shape) + 1 or any(s != 1 for axis, s in enumerate(full) if axis != 1) or full[1] not in (1, x.shape[0]):
        raise Refused(f"a constant of shape {array.shape} meets (n, {', '.join(map(str, x.shape))}); expected one number per channel")
    return np.broadcast_to(array.reshape(-1), (x.shape[0],))


def _affine(records: Records, x: Value, scale: object, shift: object) -> Value:
    """x·scale + shift with constants; nothing where that is x."""
    scales, shifts = _column(records, scale, x), _column(records, shift, x)
    if (scales == 1).all() and not shifts.any():
        return x
    return records.add(L.Scale, x, scale=scales, shift=shifts if shifts.any() else None)


def _add(records: Records, call: Call) -> Value:
    """A sum self + alpha·other, or with `sub` self − alpha·other; one of them may be constant."""
    sign = call.alpha if call.name == "add" else -call.alpha
    a, b = call.self, call.other
    if isinstance(a, Value) and isinstance(b, Value):
        if sign != 1:
            raise Refused("a difference of activations; only sums have a rule")
        return records.add(L.Add, a, b)
    if isinstance(a, Value):
        return _affine(records, a, 1.0, sign * records.array(b, "operand"))
    return _affine(records, b, sign, a)


def _rsub(records: Records, call: Call) -> Value:
    """The difference other − alpha·self, with other constant."""
    return _affine(records, call.x(), -call.alpha, call.other)


def _mul(records: Records, call: Call) -> Value:
    a, b = call.self, call.other
    if isinstance(a, Value) and isinstance(b, Value):
        return records.add(L.Mul, a, b)
    return _affine(records, a, b, 0.0) if isinstance(a, Value) else _affine(records, b, a, 0.0)


def _div(records: Records, call: Call) -> Value:
    if isinstance(call.other, Value) or call.get("rounding_mode") is not None:
        raise Refused("only a division by constants has a rule")
    return _affine(records, call.x(), 1.0 / np.asarray(records.array(call.other, "divisor"), np.float64), 0.0)


def _neg(records: Records, call: Call) -> Value:
    return _affine(records, call.x(), -1.0, 0.0)


# ------------------------------------------------------------------------------------------------------------------- pools


def _pool_fields(call: Call) -> dict[str, Any]:
    return dict(kernel=_ints(call.kernel_size), stride=_ints(call.stride) or None, padding=_ints(call.padding), ceil_mode=call.ceil_mode)


def _max_pool(records: Records, call: Call) -> Value:
    return records.add(L.MaxPool, call.x(), **_pool_fields(call), dilation=_ints(call.dilation))


def _avg_pool(records: Records, call: Call) -> Value:
    if call.get("divisor_override") is not None:
        raise Refused(f"divisor_override={call.divisor_override} is not supported")
    return records.add(L.AvgPool, call.x(), **_pool_fields(call), count_include_pad=call.count_include_pad)


def _mean_over(records: Records, x: Value, kernel: tuple[int, ...]) -> Value:
    return records.add(L.GlobalAvgPool, x) if kernel == x.shape[1:] else records.add(L.AvgPool, x, kernel=kernel)


def _windows(call: Call, n_space: int) -> tuple[int, ...]:
    """Window per spatial axis of an adaptive pool."""
    size, wanted = call.x().shape[-n_space:], call.shape[-n_space:]
    if any(s % w for s, w in zip(size, wanted, strict=True)):
        raise Refused(f"pooling from {size} to {wanted} elements takes windows of unequal sizes; only sizes that divide are supported")
    return tuple(s // w for s, w in zip(size, wanted, strict=True))


def _adaptive(average: bool, n_space: int) -> Callable[[Records, Call], Value]:
    def handle(records: Records, call: Call) -> Value:
        kernel = _windows(call, n_space)
        if math.prod(kernel) == 1:
            return call.x()
        return _mean_over(records, call.x(), kernel) if average else records.add(L.MaxPool, call.x(), kernel=kernel)

    return handle


def _over_space(call: Call, dims: Any) -> tuple[int, ...]:
    """Window per spatial axis of a reduction over these axes."""
    x = call.x()
    n_axes = len(x.shape) + 1
    given = dims if isinstance(dims, (list, tuple)) else [dims]
    axes = {d % n_axes for d in given}
    if dims is None or not axes or min(axes) < 2:
        raise Refused(f"it reduces axes {dims}; only spatial axes (2 and up) can be reduced")
    return tuple(s if axis in axes else 1 for axis, s in enumerate(x.shape[1:], start=2))


def _mean(records: Records, call: Call) -> Value:
    return _viewed(_mean_over(records, call.x(), _over_space(call, call.dim)), call)


def _max(records: Records, call: Call) -> Value:
    return _viewed(records.add(L.MaxPool, call.x(), kernel=_over_space(call, call.dim)), call)


def _first(handler: Callable[[Records, Call], Value]) -> Handler:
    """The first result of an operator that also returns indices."""

    def handle(records: Records, call: Call) -> Pieces:
        return [partial(handler, records, call)]

    return handle


# ---------------------------------------------------------------------------------------------------------------- movement


def _viewed(value: Value, call: Call) -> Value:
    return Value(value.position, call.shape)


def _view(records: Records, call: Call) -> Value:
    return _viewed(call.x(), call)


def _same(records: Records, call: Call) -> Value:
    return call.x()


def _expand(records: Records, call: Call) -> Value:
    """Left to the multiplication, which repeats its smaller operand itself."""
    if call.users != {"mul"}:
        raise Refused("it repeats elements for something other than a multiplication")
    return call.x()


def _permute(records: Records, call: Call) -> Value:
    x = call.x()
    n_axes = len(x.shape) + 1
    if call.name == "permute":
        order = [d % n_axes for d in call.dims]
    else:
        order = list(range(n_axes))
        a, b = call.dim0 % n_axes, call.dim1 % n_axes
        order[a], order[b] = order[b], order[a]
    return x if order == list(range(n_axes)) else records.add(L.Permute, x, order=order)


def _cut(records: Records, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """x[..., start:stop:step, ...]; start and stop within the axis."""
    if axis == 0:
        if (start, stop, step) == (0, records.n_batch, 1):
            return x
        raise Refused("it takes the batch apart")
    if (start, stop, step) == (0, x.shape[axis - 1], 1):
        return x
    return records.add(L.Slice, x, axis=axis, start=start, stop=stop, step=step)


def _size(records: Records, x: Value, dim: int) -> tuple[int, int]:
    """(axis, its size), the batch axis counted."""
    full = (records.n_batch, *x.shape)
    return dim % len(full), full[dim % len(full)]


def _slice(records: Records, call: Call) -> Value:
    axis, size = _size(records, call.x(), call.dim)
    start, stop, step = slice(call.start, call.end, call.step).indices(size)
    return _cut(records, call.x(), axis, start, stop, step)


def _select(records: Records, call: Call) -> Value:
    axis, size = _size(records, call.x(), call.dim)
    index = call.index % size
    return _viewed(_cut(records, call.x(), axis, index, index + 1), call)


def _split(records: Records, call: Call) -> Pieces:
    axis, size = _size(records, call.x(), call.dim)
    if call.name == "split_with_sizes":
        ends = np.cumsum(call.split_sizes).tolist()
    else:
        ends = [*range(call.split_size, size, call.split_size), size]
    starts = [0, *ends[:-1]]
    return [partial(_cut, records, call.x(), axis, start, stop) for start, stop in zip(starts, ends, strict=True)]


def _unbind(records: Records, call: Call) -> Pieces:
    axis, size = _size(records, call.x(), call.dim)

    def piece(i: int) -> Value:
        part = _cut(records, call.x(), axis, i, i + 1)
        return Value(part.position, part.shape[: axis - 1] + part.shape[axis:])

    return [partial(piece, i) for i in range(size)]


def _cat(records: Records, call: Call) -> Value:
    operands = list(call.tensors)
    if not all(isinstance(o, Value) for o in operands):
        raise Refused("one of its operands is not computed from the network's input")
    return records.add(L.Concat, *operands, axis=call.dim) if len(operands) > 1 else operands[0]


def _pad(records: Records, call: Call) -> Value:
    if call.get("mode") not in (None, "constant"):
        raise Refused(f"mode {call.mode!r} is not supported, only constant padding")
    x, widths = call.x(), list(call.pad)
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]  # given from the last axis backwards
    n_space = len(x.shape) - 1
    if any(pair != (0, 0) for pair in pairs[: max(len(pairs) - n_space, 0)]):
        raise Refused("it pads channels or the batch; only spatial axes can be padded")
    pairs = [(0, 0)] * (n_space - len(pairs)) + pairs[-n_space:]
    if not any(b or a for b, a in pairs):
        return x
    return records.add(L.Pad, x, padding=pairs, value=call.get("value") or 0.0)


def _upsample(records: Records, call: Call) -> Value:
    x = call.x("input")
    size, wanted = x.shape[1:], call.shape[1:]
    factors = tuple(w // s for s, w in zip(size, wanted, strict=True))
    whole = all(w % s == 0 for s, w in zip(size, wanted, strict=True))
    if not whole or tuple(call.scale_factors or factors) != factors:
        raise Refused(f"it resizes {size} to {wanted}; only integer factors are supported")
    return x if math.prod(factors) == 1 else records.add(L.Upsample, x, factor=factors)


# ------------------------------------------------------------------------------------------------------------------- table


def _ints(value: Any) -> Any:
    """A list of one number means it for every axis."""
    if isinstance(value, (list, tuple)):
        return value[0] if len(value) == 1 else tuple(value)
    return value


def _spread(value: Sequence[int] | int, n: int) -> tuple[int, ...]:
    value = _ints(value)
    return (value,) * n if isinstance(value, int) else tuple(value)


def _each(names: str, handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(names.split(), handler)


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
    **_each("matmul mm addmm", _matmul),
    **_each("conv1d conv2d conv3d", _conv),
    **_each("conv_transpose1d conv_transpose2d conv_transpose3d", _conv_transpose),
    "embedding": _embedding,
    **_each("_native_batch_norm_legit _native_batch_norm_legit_no_training", _batch_norm),
    "relu": _relu,
    "relu6": _relu6,
    **_each("clamp clamp_min", _clamp),
    "hardtanh": _activation("clip", alpha="min_val", beta="max_val"),
    "leaky_relu": _activation("leaky_relu", alpha="negative_slope"),
    "softplus": _activation("softplus", alpha="beta"),
    "elu": _elu,
    "gelu": _gelu,
    "silu": _activation("silu"),
    "sigmoid": _activation("sigmoid"),
    "hardsigmoid": _activation("hard_sigmoid"),
    "hardswish": _activation("hard_swish"),
    "tanh": _activation("tanh"),
    "softmax": _softmax,
    "local_response_norm": _lrn,
    **_each("add sub", _add),
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    **_each("max_pool1d max_pool2d max_pool3d", _max_pool),
    **_each("max_pool2d_with_indices max_pool3d_with_indices", _first(_max_pool)),
    **_each("avg_pool1d avg_pool2d avg_pool3d", _avg_pool),
    **{f"adaptive_avg_pool{n}d": _adaptive(True, n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _first(_adaptive(False, n)) for n in (1, 2, 3)},
    "mean": _mean,
    "amax": _max,
    "max": _first(_max),
    **_each("view _unsafe_view squeeze unsqueeze", _view),
    **_each("clone detach _to_copy", _same),
    "expand": _expand,
    **_each("permute transpose", _permute),
    "slice": _slice,
    "select": _select,
    **_each("split split_with_sizes", _split),
    "unbind": _unbind,
    "cat": _cat,
    "pad": _pad,
    **_each("upsample_nearest1d upsample_nearest2d upsample_nearest3d", _upsample),
    **_each("_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d", _upsample),
}
