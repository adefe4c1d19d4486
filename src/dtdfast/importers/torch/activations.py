"""What ATen's activations become, beside those of one name and one record: one row per operator, one short function per
kind.
"""

from __future__ import annotations

import math

import numpy as np

from ... import layers as L
from ..algebra import bounded
from ..records import Refused, Value
from .call import Call, Handler, Records

SELU = 1.6732632423543772, 1.0507009873554805


def activation(kind: str, **fields: str) -> Handler:
    """An Activation whose alpha and beta are these arguments."""

    def handle(records: Records, call: Call) -> Value:
        return records.add(
            L.Activation, call.x(), kind=kind, **{key: call.arguments[name] for key, name in fields.items()}
        )

    return handle


def _elu(records: Records, call: Call) -> Value:
    """The general form scale·(x where x > 0, else alpha·(e^(input_scale·x) − 1))."""
    alpha, scale, inner = call.alpha, call.scale, call.input_scale
    if (scale, inner) == (1, 1):
        return records.add(L.Activation, call.x(), kind="elu", alpha=alpha)
    if scale == 1 and math.isclose(alpha * inner, 1, rel_tol=1e-12):
        return records.add(L.Activation, call.x(), kind="celu", alpha=alpha)
    if inner == 1 and math.isclose(alpha, SELU[0], rel_tol=1e-6) and math.isclose(scale, SELU[1], rel_tol=1e-6):
        return records.add(L.Activation, call.x(), kind="selu")
    raise Refused(f"alpha={alpha}, scale={scale} and input_scale={inner} together are no elu, celu or selu")


def _prelu(records: Records, call: Call) -> Value:
    slopes = records.array(call.weight, "weight").reshape(-1)
    if slopes.size == 1:
        return records.add(L.Activation, call.x(), kind="leaky_relu", alpha=float(slopes[0]))
    if (axis := call.get("axis", 1)) > 1:  # of the channels, the batch counted
        shape = call.x().shape
        slopes = np.broadcast_to(slopes.reshape(-1, *(1,) * (len(shape) - axis)), shape)
    return records.add(L.Activation, call.x(), kind="prelu", slopes=slopes)


def _rrelu(records: Records, call: Call) -> Value:
    if call.training:
        raise Refused("it draws random slopes in training mode; call module.eval() first")
    return records.add(L.Activation, call.x(), kind="leaky_relu", alpha=(call.lower + call.upper) / 2)


def _softplus(records: Records, call: Call) -> Value:
    """Linear beyond the threshold: beyond 20 that is what float32 gives anyway."""
    if call.threshold < 20:
        raise Refused(
            f"a softplus that turns into x where beta·x > {call.threshold} jumps there; expected a threshold of at "
            "least 20"
        )
    return records.add(L.Activation, call.x(), kind="softplus", alpha=call.beta)


def _glu(records: Records, call: Call) -> Value:
    """The first half of an axis, gated by a sigmoid of the second."""
    x = call.x()
    axis = call.dim % (len(x.shape) + 1)
    half = x.shape[axis - 1] // 2
    signal = records.add(L.Slice, x, axis=axis, start=0, stop=half)
    gate = records.add(L.Activation, records.add(L.Slice, x, axis=axis, start=half), kind="sigmoid")
    return records.add(L.Mul, signal, gate)


HANDLERS: dict[str, Handler] = {
    "clamp_max": lambda records, call: bounded(records.add, call.x(), None, call.max),
    "threshold": activation("threshold", alpha="threshold", beta="value"),
    "hardshrink": activation("hard_shrink", alpha="lambd"),
    "softshrink": activation("soft_shrink", alpha="lambd"),
    "tanhshrink": activation("tanh_shrink"),
    "elu": _elu,
    "selu": activation("selu"),
    "celu": activation("celu", alpha="alpha"),
    "mish": activation("mish"),
    "prelu": _prelu,
    "rrelu": _rrelu,
    "softplus": _softplus,
    "softsign": activation("softsign"),
    "log_sigmoid": activation("log_sigmoid"),
    "glu": _glu,
}
