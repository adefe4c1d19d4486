"""What ATen operators with weights, activations and arithmetic become: one row per operator, one short function per
kind.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ... import layers as L
from .. import algebra
from ..algebra import bounded
from ..records import Refused, Value
from .activations import HANDLERS as ACTIVATIONS
from .activations import activation
from .arithmetic import clamped
from .call import Array, Call, Handler, Pieces, Records, each, ints, spread

# ------------------------------------------------------------------------------------------------ layers with weights


def _bias(records: Records, call: Call) -> Array | None:
    return None if call.bias is None else records.array(call.bias, "bias")


def _linear(records: Records, call: Call) -> Value:
    weight = records.array(call.weight, "weight")
    return records.add(L.Linear, call.x("input"), weight=weight, bias=_bias(records, call))


def _conv(records: Records, call: Call) -> Value:
    weight = records.array(call.weight, "weight")
    if len(call.x("input").shape) == weight.ndim - 2:
        raise Refused("its input has no batch axis; give every tensor one (pass example[None] for one sample)")
    padding = ints(call.padding)
    if padding == "same":  # an odd total leaves the larger half at the end
        totals = [d * (k - 1) for d, k in zip(spread(call.dilation, weight.ndim - 2), weight.shape[2:], strict=True)]
        padding = [(total // 2, total - total // 2) for total in totals]
    elif padding == "valid":
        padding = 0
    return records.add(
        L.Conv, call.x("input"), weight=weight, bias=_bias(records, call), stride=ints(call.stride), padding=padding,
        dilation=ints(call.dilation), groups=call.groups,
    )  # fmt: skip


def _conv_transpose(records: Records, call: Call) -> Value:
    return records.add(
        L.ConvTranspose, call.x("input"), weight=records.array(call.weight, "weight"), bias=_bias(records, call),
        stride=ints(call.stride),
        padding=ints(call.padding), output_padding=ints(call.output_padding), dilation=ints(call.dilation),
        groups=call.groups,
    )  # fmt: skip


def _embedding(records: Records, call: Call) -> Value:
    return records.add(L.Embedding, call.x("indices"), weight=records.array(call.weight, "weight"))


def _batch_norm(records: Records, call: Call) -> Pieces:
    if call.get("training"):
        raise Refused("it normalises by the batch's own statistics; only stored statistics can be explained")
    named = dict(mean=call.running_mean, variance=call.running_var, weight=call.weight, bias=call.bias)
    arrays = {key: records.array(value, key) for key, value in named.items() if value is not None}
    if call.get("axis", 1) == 1:
        return Pieces([partial(records.add, L.BatchNorm, call.x("input"), **arrays, eps=call.eps)])
    scale = arrays.get("weight", 1.0) / np.sqrt(np.asarray(arrays["variance"], np.float64) + call.eps)
    shift = arrays.get("bias", 0.0) - arrays["mean"] * scale
    column = (-1, *(1,) * (len(call.x("input").shape) - call.axis))
    shifted = partial(algebra.scaled, records.add, call.x("input"), scale.reshape(column), shift.reshape(column))
    return Pieces([shifted])


# ------------------------------------------------------------------------------------------------------- element-wise


def _relu(records: Records, call: Call) -> Value:
    return records.add(L.ReLU, call.x())


def _relu6(records: Records, call: Call) -> Value:
    return records.add(L.Activation, call.x(), kind="clip", alpha=0.0, beta=6.0)


def _clamp(records: Records, call: Call) -> Value:
    bounds = call.min, call.get("max")
    if any(isinstance(bound, Value) for bound in bounds):
        return clamped(records, call)
    arrays = [None if bound is None else records.array(bound, "bound") for bound in bounds]
    if any(a is not None and (a.size > 1 or a.ndim > len(call.x().shape) + 1) for a in arrays):
        return clamped(records, call)
    low, high = (None if a is None else float(a.item()) for a in arrays)
    return bounded(records.add, call.x(), low, high)


def _gelu(records: Records, call: Call) -> Value:
    return records.add(L.Activation, call.x(), kind="gelu_tanh" if call.approximate == "tanh" else "gelu")


def _softmax(records: Records, call: Call) -> Value:
    return records.add(L.Softmax, call.x(), axis=call.dim, log="log_softmax" in call.name)


def _lrn(records: Records, call: Call) -> Value:
    if call.size % 2 == 0:
        raise Refused(f"local response normalisation over {call.size} channels; only odd sizes are centred")
    return records.add(L.LRN, call.x(), size=call.size, alpha=call.alpha, beta=call.beta, k=call.k)


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
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
    **each("sigmoid special_expit", activation("sigmoid")),
    "hardsigmoid": activation("hard_sigmoid"),
    "hardswish": activation("hard_swish"),
    "tanh": activation("tanh"),
    **each("softmax log_softmax _softmax _log_softmax _safe_softmax", _softmax),
    "local_response_norm": _lrn,
}
