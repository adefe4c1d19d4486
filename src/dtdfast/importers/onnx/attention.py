"""Readers of the ONNX operators of attention: every part becomes a record of its own."""

from __future__ import annotations

import math

import numpy as np

from ... import layers as L
from ...budget import require
from .. import attention as products
from ..algebra import permuted, scaled
from ..masks import both
from ..records import Refused, Value
from .arithmetic import placed
from .graph import Array, Node, Operand, Reader, rank, weights
from .moves import reshaped

UNREAD = {
    4: "past_key: a cache of earlier tokens has no record; export the model without a cache",
    5: "past_value: a cache of earlier tokens has no record; export the model without a cache",
    6: "nonpad_kv_seqlen: the length of every sample has no record; export the model without padding",
}
"""Inputs of Attention that are refused, by their number."""
OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")


def _heads(node: Node, operand: Operand | None, count: int, what: str) -> Value:
    """(heads, tokens, features) of a sample, from that or from (tokens, heads · features)."""
    if not isinstance(operand, Value):
        raise Refused(f"its {what} is {'missing' if operand is None else 'a constant'}, expected what a layer computes")
    if len(operand.shape) == 3:
        if count not in (0, operand.shape[0]):
            raise Refused(f"its {what} has {operand.shape[0]} heads, the attribute says {count}")
        return operand
    if len(operand.shape) != 2 or count < 1 or operand.shape[1] % count:
        raise Refused(
            f"its {what} has shape {('n', *operand.shape)}, expected (n, tokens, heads · features) with {count} heads, "
            "or (n, heads, tokens, features)"
        )
    tokens, width = operand.shape
    apart = node.add(L.Reshape, operand, shape=(tokens, count, width // count))
    return permuted(node.add, apart, (1, 0, 2))


def _window(node: Node, queries: int, keys: int) -> Array:
    """Which keys a query sees, by its place."""
    require(16 * queries * keys, f"Attention {node.name!r:.80}: its mask of {queries} x {keys}")
    left, right = node.integer("left_window_size", -1), node.integer("right_window_size", -1)
    ahead = np.arange(keys) - np.arange(queries)[:, None]
    keep = np.ones((queries, keys), bool)
    if node.integer("is_causal", 0):
        keep &= ahead <= 0
    if left >= 0:
        keep &= ahead >= -left
    if right >= 0:
        keep &= ahead <= right
    return keep


def _mask(node: Node, q: Value, k: Value) -> Array | Value | None:
    """The mask with the window that a query sees, of one sample; None where it sees all."""
    window = _window(node, q.shape[-2], k.shape[-2])
    if isinstance(given := node.operand(3), Value):
        if window.all():
            return given
        if not given.truth:
            raise Refused("a mask of the sample meets a window of its own; give the mask as booleans")
        return both(node.add, given, window, tuple(np.broadcast_shapes(given.shape, window.shape)))
    mask = node.optional(3, "its mask")
    if mask is None:
        return None if window.all() else window
    if not mask.ndim or mask.dtype.kind not in "bf":
        raise Refused(f"its mask has type {mask.dtype} and {mask.ndim} axes, expected booleans or floats")
    nothing = False if mask.dtype == bool else -math.inf
    if 1 != mask.shape[-1] < k.shape[-2]:
        mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, k.shape[-2] - mask.shape[-1])], constant_values=nothing)
    mask = placed(node, mask, Value(L.INPUT, (*q.shape[:-1], k.shape[-2])))
    return np.where(window, mask, nothing)


def attention(node: Node) -> tuple[Value | None, ...]:
    """softmax(scale · Q Kᵀ + mask) V."""
    for index, reason in UNREAD.items():
        if node.operand(index) is not None:
            raise Refused(reason)
    for name, read in zip(OUTPUTS[1:], node.outputs[1:], strict=False):
        if read:
            raise Refused(f"its output {name} is read, which has no record")
    for key in ("softmax_precision", "qk_matmul_output_mode"):  # rounding; an output that nobody reads
        node.integer(key, 0)
    queries, keys = node.integer("q_num_heads", 0), node.integer("kv_num_heads", 0)
    flat = isinstance(node.operand(0), Value) and rank(node.value(0)) == 3
    q, k, v = (
        _heads(node, node.operand(i), heads, what)
        for i, (heads, what) in enumerate(((queries, "query"), (keys, "key"), (keys, "value")))
    )
    scale = node.number("scale", 0.0) if "scale" in node.attributes else None
    made = products.attention(
        node.add, q, k, v, mask=_mask(node, q, k), scale=scale, softcap=node.number("softcap", 0.0)
    )
    if not flat:
        return (made, None, None, None)[: len(node.outputs)]
    tokens = node.add(L.Permute, made, order=(0, 2, 1, 3))
    joined = reshaped(node, tokens, (node.layers.batch, q.shape[1], q.shape[0] * v.shape[2]))
    return (joined, None, None, None)[: len(node.outputs)]


def rotary(node: Node) -> Value:
    """Pairs of features turned by the angle of their token: x · cos + (x with each pair exchanged) · (∓ sin)."""
    x, heads = node.value(), node.integer("num_heads", 0)
    flat = rank(x) == 3
    q = _heads(node, x, heads, "input")
    tokens, width = q.shape[-2:]
    turned = node.integer("rotary_embedding_dim", 0) or width
    interleaved = node.integer("interleaved", 0)
    if turned % 2 or not 0 < turned <= width:
        raise Refused(f"rotary_embedding_dim is {turned}, but a head has {width} features")
    cos, sin = (_table(node, i, what, tokens, turned // 2) for i, what in ((1, "cos_cache"), (2, "sin_cache")))
    require(32 * tokens * width, f"RotaryEmbedding {node.name!r:.80}: its factors for {tokens} tokens")
    half = np.arange(turned // 2)
    first, second = (2 * half, 2 * half + 1) if interleaved else (half, half + turned // 2)
    places, factor, cross = np.arange(width), np.ones((tokens, width)), np.zeros((tokens, width))
    places[first], places[second] = second, first
    factor[:, first], factor[:, second] = cos, cos
    cross[:, first], cross[:, second] = -sin, sin
    partner = node.add(L.Gather, q, indices=places, axis=rank(q) - 1)
    made = node.add(L.Add, scaled(node.add, q, factor), scaled(node.add, partner, cross))
    if not flat:
        return made
    return reshaped(node, node.add(L.Permute, made, order=(0, 2, 1, 3)), node.full(x))


def _table(node: Node, index: int, what: str, tokens: int, count: int) -> Array:
    """(tokens, pairs): rows of a table by position, or one row per token of every sample."""
    table = weights(node.constant(index, what), what)
    places = node.optional(3, "position_ids")
    if places is not None:
        if table.ndim != 2 or places.dtype.kind not in "iu" or not places.size:
            raise Refused(f"{what} has shape {table.shape}, position_ids {places.shape}, expected a table and integers")
        if places.min() < 0 or places.max() >= len(table):
            raise Refused(f"position_ids go from {places.min()} to {places.max()}, {what} has {len(table)} rows")
        table = np.asarray(table[node.of_sample(places, "position_ids")])
    elif table.ndim == 3:
        table = node.of_sample(table, what)
    if table.shape != (tokens, count):
        raise Refused(f"{what} has shape {table.shape} for one sample, expected {(tokens, count)}")
    return table


OPERATORS: dict[str, Reader] = {"Attention": attention, "RotaryEmbedding": rotary}
