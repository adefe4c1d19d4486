"""Readers of the ONNX operators that divide by statistics of a sample: one function per operator."""

from __future__ import annotations

import math

import numpy as np

from ... import layers as L
from ...budget import require
from ..records import Refused, Value
from .graph import Array, Node, Reader, rank, weights

TINY = 1e-18
"""What stands for no eps under the root: far below any variance of float32 numbers, and 0/0 stays 0."""


def _affine(node: Node, index: int, what: str, shape: tuple[int, ...]) -> Array | None:
    """Factors or shifts that broadcast to the normalised axes; None where the operand is left out."""
    given = node.optional(index, what)
    if given is None:
        return None
    array = weights(given, what)
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise Refused(f"{what} has shape {given.shape}, expected {shape}, one number per normalised element") from None


def _trailing(node: Node, x: Value) -> tuple[int, ...]:
    """The axes from attribute axis on, the batch counted."""
    return tuple(range(node.axis(node.integer("axis", -1), rank(x)), rank(x)))


def _precision(node: Node) -> None:
    """In which type the statistics are computed changes rounding alone."""
    node.integer("stash_type", 1)


def layer_norm(node: Node) -> Value:
    x = node.value()
    if any(node.outputs[1:]):
        raise Refused("its mean or its deviation is read, which has no record")
    axes = _trailing(node, x)
    shape = x.shape[axes[0] - 1 :]
    _precision(node)
    weight, bias = (_affine(node, i, what, shape) for i, what in ((1, "its scale"), (2, "its bias")))
    return node.add(L.LayerNorm, x, axes=axes, weight=weight, bias=bias, eps=node.number("epsilon", 1e-5))


def rms_norm(node: Node) -> Value:
    x = node.value()
    axes = _trailing(node, x)
    weight = _affine(node, 1, "its scale", x.shape[axes[0] - 1 :])
    _precision(node)
    return node.add(L.RMSNorm, x, axes=axes, weight=weight, eps=node.number("epsilon", 1e-5))


def group_norm(node: Node) -> Value:
    """Before opset 21, scale and bias are one number per group."""
    x, groups = node.value(), node.integer("num_groups", 0)
    channels = x.shape[0] if x.shape else 0
    if groups < 1 or not channels or channels % groups:
        raise Refused(f"{channels} channels do not divide into {groups} groups")
    require(8 * channels, f"GroupNormalization {node.name!r:.80}: its factors for {channels} channels")
    numbers = channels if node.opset >= 21 else groups
    weight, bias = (_affine(node, i, what, (numbers,)) for i, what in ((1, "its scale"), (2, "its bias")))
    if numbers == groups:
        weight, bias = (None if a is None else np.repeat(a, channels // groups) for a in (weight, bias))
    _precision(node)
    return node.add(L.GroupNorm, x, groups=groups, weight=weight, bias=bias, eps=node.number("epsilon", 1e-5))


def instance_norm(node: Node) -> Value:
    x = node.value()
    weight, bias = (_affine(node, i, what, x.shape[:1]) for i, what in ((1, "its scale"), (2, "its bias")))
    return node.add(L.InstanceNorm, x, weight=weight, bias=bias, eps=node.number("epsilon", 1e-5))


def mean_variance_norm(node: Node) -> Value:
    """Over the attribute's axes, which by default hold the batch's."""
    x, given = node.value(), node.integer_list("axes")
    axes = tuple(sorted({node.axis(a, rank(x)) for a in given or (0, 2, 3)}))
    return node.add(L.LayerNorm, x, axes=axes, eps=TINY)


def lp_norm(node: Node) -> Value:
    """x/√Σx², which is 1/√d times what a mean in place of the sum gives."""
    x, p = node.value(), node.integer("p", 2)
    if p != 2:
        raise Refused(f"p is {p}; only division by the square root of the sum of squares (2) has a record")
    return _unit(node, x, (node.axis(node.integer("axis", -1), rank(x)),), TINY)


def _unit(node: Node, x: Value, axes: tuple[int, ...], eps: float) -> Value:
    """x/√(Σx² + eps) over these axes."""
    sizes = [x.shape[a - 1] for a in axes]
    require(8 * math.prod(sizes), f"{node.operator} {node.name!r:.80}: its factors")
    weight = np.full(sizes, 1 / math.sqrt(math.prod(sizes)))
    return node.add(L.RMSNorm, x, axes=axes, weight=weight, eps=eps / math.prod(sizes))


OPERATORS: dict[str, Reader] = {
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "LpNormalization": lp_norm,
}
