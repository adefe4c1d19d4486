"""Readers of the ONNX operators that are activations: one row per operator, one short function per kind."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ... import layers as L
from ..algebra import FLOAT_MAX, bounded
from ..records import Refused, Value
from .graph import Node, Reader, scalar, weights


def activation(node: Node, kind: str, **parameters: tuple[str, float]) -> Value:
    """`parameters`: the record's field → the attribute and its default."""
    given = {field: node.number(key, default) for field, (key, default) in parameters.items()}
    return node.add(L.Activation, node.value(), kind=kind, **given)


def clip(node: Node) -> Value:
    x = node.value()
    if node.opset < 11:
        low, high = node.number("min", -FLOAT_MAX), node.number("max", FLOAT_MAX)
    else:
        low = -math.inf if (a := node.optional(1, "min")) is None else scalar(a, "min")
        high = math.inf if (b := node.optional(2, "max")) is None else scalar(b, "max")
    return bounded(node.add, x, low, high)


def prelu(node: Node) -> Value:
    """Slopes of one number, per channel, or of any shape that samples broadcast with; before opset 7, one axis is that
    of the channels.
    """
    x, slopes = node.value(), weights(node.constant(1, "its slopes"), "its slopes")
    if slopes.size == 1:
        return node.add(L.Activation, x, kind="leaky_relu", alpha=float(slopes.reshape(-1)[0]))
    if node.opset < 7 and slopes.ndim == 1:
        slopes = slopes.reshape(-1, *(1,) * (len(x.shape) - 1))
    if slopes.ndim > len(x.shape) and slopes.shape[0] == 1:
        slopes = slopes[0]
    if slopes.shape == (x.shape[0], *(1,) * (len(x.shape) - 1)):
        return node.add(L.Activation, x, kind="prelu", slopes=slopes.reshape(-1))
    try:
        return node.add(L.Activation, x, kind="prelu", slopes=np.broadcast_to(slopes, x.shape))
    except ValueError:
        raise Refused(f"its slopes have shape {slopes.shape}, which samples of shape {x.shape} do not take") from None


def selu(node: Node) -> Value:
    alpha, gamma = node.number("alpha", 1.6732632423543772), node.number("gamma", 1.0507009873554805)
    if not (
        math.isclose(alpha, 1.6732632423543772, rel_tol=1e-6) and math.isclose(gamma, 1.0507009873554805, rel_tol=1e-6)
    ):
        raise Refused(f"alpha={alpha} and gamma={gamma} have no record; those of Klambauer et al. have")
    return node.add(L.Activation, node.value(), kind="selu")


def shrink(node: Node) -> Value:
    """x − bias where x > lambd, x + bias where x < −lambd, else 0."""
    lambd, bias = node.number("lambd", 0.5), node.number("bias", 0.0)
    if bias not in (0.0, lambd):
        raise Refused(
            f"lambd={lambd} and bias={bias} have no record; a bias of 0 (hard_shrink) or of lambd (soft_shrink) has"
        )
    return node.add(L.Activation, node.value(), kind="soft_shrink" if bias else "hard_shrink", alpha=lambd)


OPERATORS: dict[str, Reader] = {
    "LeakyRelu": partial(activation, kind="leaky_relu", alpha=("alpha", 0.01)),
    "PRelu": prelu,
    "Clip": clip,
    "ThresholdedRelu": partial(activation, kind="threshold", alpha=("alpha", 1.0)),
    "Shrink": shrink,
    "Elu": partial(activation, kind="elu", alpha=("alpha", 1.0)),
    "Selu": selu,
    "Celu": partial(activation, kind="celu", alpha=("alpha", 1.0)),
    "Mish": partial(activation, kind="mish"),
    "Swish": partial(activation, kind="silu", alpha=("alpha", 1.0)),
    "Sigmoid": partial(activation, kind="sigmoid"),
    "HardSigmoid": partial(activation, kind="hard_sigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5)),
    "HardSwish": partial(activation, kind="hard_swish"),
    "Tanh": partial(activation, kind="tanh"),
    "Softplus": partial(activation, kind="softplus"),
    "Softsign": partial(activation, kind="softsign"),
}
