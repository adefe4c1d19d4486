"""What ATen operators with weights, activations and arithmetic become: one row per operator, one short function per kind."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import layers as L
from .records import Refused, Value, along, along_last, constant_axis
from .refused import ATTENTION
from .torch_activations import HANDLERS as ACTIVATIONS
from .torch_activations import activation, bounded
from .torch_call import Array, Call, Handler, Pieces, Records, each, ints, spread

# ------------------------------------------------------------------------------------------------------ layers with weights


def _bias(records: Records, call: Call) -> Array | None:
    return None if call.bias is None else records.array(call.bias, "bias")


def _linear(records: Records, call: Call) -> Value:
    weight = records.array(call.weight, "weight")
    return along_last(records.add, call.x("input"), weight, _bias(records, call))


def _matmul(records: Records, call: Call) -> Value:
    """A product with a constant matrix: x @ m, with `addmm` b + x @ m."""
    left, right = ("mat1", "mat2") if call.name == "addmm" else ("self", "mat2" if call.name == "mm" else "other")
    if isinstance(call.arguments[right], Value):
        raise Refused(ATTENTION if isinstance(call.arguments[left], Value) else f"its {right} operand is computed, expected a constant")
    matrix = records.array(call.arguments[right], f"{right} operand")
    if matrix.ndim != 2:
        raise Refused(f"its {right} operand has {matrix.ndim} axes, expected a matrix")
    bias = None
    if call.name == "addmm":
        if (call.alpha, call.beta) != (1, 1):
            raise Refused(f"alpha={call.alpha} and beta={call.beta}, expected 1")
        bias = np.broadcast_to(records.array(call.self, "self operand"), matrix.shape[1:])
    return along_last(records.add, call.x(left), matrix.T, bias)


def _conv(records: Records, call: Call) -> Value:
    weight = records.array(call.weight, "weight")
    padding = call.padding
    if padding == "same":  # an odd total leaves the larger half at the end
        totals = [d * (k - 1) for d, k in zip(spread(call.dilation, weight.ndim - 2), weight.shape[2:], strict=True)]
        padding = [(total // 2, total - total // 2) for total in totals]
    elif padding == "valid":
        padding = 0
    return records.add(
        L.Conv, call.x("input"), weight=weight, bias=_bias(records, call), stride=ints(call.stride), padding=ints(padding),
        dilation=ints(call.dilation), groups=call.groups,
    )  # fmt: skip


def _conv_transpose(records: Records, call: Call) -> Value:
    return records.add(
        L.ConvTranspose, call.x("input"), weight=records.array(call.weight, "weight"), bias=_bias(records, call), stride=ints(call.stride),
        padding=ints(call.padding), output_padding=ints(call.output_padding), dilation=ints(call.dilation), groups=call.groups,
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


def _relu6(records: Records, call: Call) -> Value:
    return records.add(L.Activation, call.x(), kind="clip", alpha=0.0, beta=6.0)


def _clamp(records: Records, call: Call) -> Value:
    low, high = call.min, call.get("max")
    if any(bound is not None and not isinstance(bound, (int, float)) for bound in (low, high)):
        raise Refused("it clamps to bounds that are tensors; expected numbers")
    return bounded(records, call.x(), low, high)


def _gelu(records: Records, call: Call) -> Value:
    return records.add(L.Activation, call.x(), kind="gelu_tanh" if call.approximate == "tanh" else "gelu")


def _softmax(records: Records, call: Call) -> Value:
    return records.add(L.Softmax, call.x(), axis=call.dim)


def _lrn(records: Records, call: Call) -> Value:
    if call.size % 2 == 0:
        raise Refused(f"local response normalisation over {call.size} channels; only odd sizes are centred")
    return records.add(L.LRN, call.x(), size=call.size, alpha=call.alpha, beta=call.beta, k=call.k)


# -------------------------------------------------------------------------------------------------------------- arithmetic


def _affine(records: Records, x: Value, scale: object, shift: object) -> Value:
    """x·scale + shift with constants, each one number or one per element of an axis; nothing where that is x."""
    arrays = [np.asarray(records.array(constant, "constant operand"), np.float64) for constant in (scale, shift)]
    axis = constant_axis([a.shape for a in arrays], x.shape)
    scales, shifts = (np.broadcast_to(a.reshape(-1), (x.shape[axis - 1],)) for a in arrays)
    if (scales == 1).all() and not shifts.any():
        return x
    scaled = partial(records.add, L.Scale, scale=scales, shift=shifts if shifts.any() else None)
    return along(axis, records.add, x, scaled)


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


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
    **each("matmul mm addmm", _matmul),
    **each("conv1d conv2d conv3d", _conv),
    **each("conv_transpose1d conv_transpose2d conv_transpose3d", _conv_transpose),
    "embedding": _embedding,
    **each("_native_batch_norm_legit _native_batch_norm_legit_no_training", _batch_norm),
    "relu": _relu,
    "relu6": _relu6,
    **each("clamp clip clamp_min", _clamp),
    "hardtanh": activation("clip", alpha="min_val", beta="max_val"),
    "leaky_relu": activation("leaky_relu", alpha="negative_slope"),
    **ACTIVATIONS,
    "gelu": _gelu,
    "silu": activation("silu"),
    "sigmoid": activation("sigmoid"),
    "hardsigmoid": activation("hard_sigmoid"),
    "hardswish": activation("hard_swish"),
    "tanh": activation("tanh"),
    "softmax": _softmax,
    "local_response_norm": _lrn,
    **each("add sub", _add),
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
}
