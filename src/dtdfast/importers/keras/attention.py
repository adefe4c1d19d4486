"""What Keras's attention and the norms by statistics of a sample become."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import numpy as np

from ... import layers as L
from .. import algebra, attention, products
from ..records import Refused, Value
from .arithmetic import operands
from .call import Array, Call, Handler, Tensor
from .layers import activated, on_axis

SIZE = 1e-24
"""What Keras adds under the root of UnitNormalization."""

# -------------------------------------------------------------------------------------------------------------- norms


def _layer_norm(call: Call) -> Tensor:
    if getattr(call.layer, "rms_scaling", False):
        raise Refused("rms_scaling=True divides by the deviation without centring; use RMSNormalization")
    arrays = dict(weight=call.optional("gamma"), bias=call.optional("beta"))
    return _over(
        call, call.axis, lambda x, axes: call.add(L.LayerNorm, x, axes=axes, eps=float(call.epsilon), **arrays)
    )


def _rms_norm(call: Call) -> Tensor:
    eps, weight = float(call.epsilon), call.optional("scale")
    return _over(call, call.axis, lambda x, axes: call.add(L.RMSNorm, x, axes=axes, eps=eps, weight=weight))


def _unit_norm(call: Call) -> Tensor:
    """x/√Σx², which is 1/√d times what a mean in place of the sum gives."""

    def divided(x: Value, axes: tuple[int, ...]) -> Value:
        sizes = [x.shape[a - 1] for a in axes]
        count = math.prod(sizes)
        return call.add(L.RMSNorm, x, axes=axes, eps=SIZE / count, weight=np.full(sizes, count**-0.5))

    return _over(call, call.axis, divided)


def _over(call: Call, axis: Any, add: Any) -> Tensor:
    """A norm over Keras's axes: one over the last alone leaves the order of axes as it is."""
    n = len(call.x.shape) + 1
    axes = tuple(a % n for a in (axis if isinstance(axis, (list, tuple)) else [axis]))
    if 0 in axes:
        raise Refused("it normalises over the batch axis, so that samples would be mixed")
    if axes == (n - 1,) and call.x.moved:
        return Tensor(add(call.x.value, (1,)), moved=True)
    return Tensor(add(call.plain, axes))


def _group_norm(call: Call) -> Tensor:
    arrays = dict(weight=call.optional("gamma"), bias=call.optional("beta"))
    channels = call.x.shape[call.axis - 1 if call.axis > 0 else call.axis]
    groups = channels if call.groups == -1 else int(call.groups)
    norm = partial(call.add, L.InstanceNorm) if groups == channels else partial(call.add, L.GroupNorm, groups=groups)
    return on_axis(call, call.x, call.axis, lambda x: norm(x, eps=float(call.epsilon), **arrays))


# ---------------------------------------------------------------------------------------------------------- attention


def _bound(call: Call) -> dict[str, Any]:
    """The arguments by name: a Value for every tensor, others as they are."""
    given = inspect.signature(call.layer.call).bind(*call.positional, **call.named).arguments
    tensors = {id(symbol): tensor for symbol, tensor in zip(call.symbols, call.tensors, strict=True)}
    return {
        name: call.records.plain(tensors[id(value)]) if id(value) in tensors else value for name, value in given.items()
    }


def projected(call: Call, x: Value, equation: str, kernel: Array, bias: Array | None) -> Value:
    """x times a kernel in index notation: a linear layer where the last axes of x are summed and new ones follow."""
    (of_x, of_kernel), result = products.terms(equation, [len(x.shape) + 1, kernel.ndim])
    kept = len(of_x) - len([k for k in of_x if k not in result])
    summed, new = of_x[kept:], of_kernel[len(of_x) - kept :]
    if of_kernel != summed + new or result != of_x[:kept] + new or not summed or kept < 1:
        y = products.einsum(call.add, equation, [x, kernel], call.n_batch)
        return y if bias is None else algebra.scaled(call.add, y, 1.0, bias)
    width = math.prod(x.shape[kept - 1 :])
    flat = algebra.reshaped(call.add, x, (*x.shape[: kept - 1], width))
    shape = kernel.shape[len(summed) :]
    shift = None if bias is None else np.broadcast_to(bias, shape).reshape(-1)
    y = call.add(L.Linear, flat, weight=kernel.reshape(width, -1).T, bias=shift)
    return algebra.reshaped(call.add, y, (*x.shape[: kept - 1], *shape))


def _einsum_dense(call: Call) -> Tensor:
    return activated(call, Tensor(_through(call, call.layer, call.plain)))


def _through(call: Call, dense: Any, x: Value) -> Value:
    """A projection of its own without activation."""
    kernel, bias = (None if a is None else np.asarray(call.records.numpy(a)) for a in (dense.kernel, dense.bias))
    assert kernel is not None
    return projected(call, x, dense.equation, kernel, bias)


def _heads(call: Call, dense: Any, x: Value) -> Value:
    """(heads, tokens, features) of a sample."""
    made = _through(call, dense, x)
    if len(made.shape) != 3:
        raise Refused(f"it attends over {len(made.shape) - 2} axes together; tokens on one axis have a record")
    return algebra.permuted(call.add, made, (1, 0, 2))


def _multi_head(call: Call) -> Tensor:
    """Also where heads of queries share those of keys and values."""
    given = _bound(call)
    prefix = "_" if hasattr(call.layer, "_num_heads") else ""
    for name in ("use_gate", "sliding_window"):
        if getattr(call.layer, prefix + name, None):
            raise Refused(f"its {name} has no record")
    if given.get("return_attention_scores"):
        raise Refused("its scores are returned; leave return_attention_scores out")
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    if not all(isinstance(x, Value) for x in (query, key, value)):
        raise Refused("its query, key or value is a constant")
    q, k, v = (
        _heads(call, getattr(call.layer, f"_{n}_dense"), x)
        for n, x in (("query", query), ("key", key), ("value", value))
    )
    causal = bool(given.get("use_causal_mask"))
    mask = _mask(call, given, (len(q.shape) - 1, *q.shape[:-1], k.shape[-2]), causal)
    made = attention.attention(call.add, q, k, v, mask=mask, scale=1 / math.sqrt(q.shape[-1]))
    tokens = algebra.permuted(call.add, made, (1, 0, 2))
    return Tensor(_through(call, call.layer._output_dense, tokens))


def _mask(call: Call, given: dict[str, Any], scores: tuple[int, ...], causal: bool) -> Array | None:
    """True where a score of one sample stays; None where all do."""
    if any(given.get(name) is not None for name in ("query_mask", "value_mask", "key_mask", "mask")):
        raise Refused("masks of tokens are not followed; cut the samples to their length")
    *_, queries, keys = scores
    keep = np.tri(queries, keys, dtype=bool) if causal else np.ones((queries, keys), bool)
    mask = given.get("attention_mask")
    if isinstance(mask, Value):
        raise Refused("its attention_mask is computed; only a constant one has a record")
    if mask is not None:
        array = call.constant(mask) != 0
        if array.ndim > 2:  # (samples, queries, keys), or with heads behind the samples
            array = algebra.of_sample(array, array.ndim - 1, call.n_batch)
        keep = keep & array
    if not keep.any(-1).all():
        raise Refused("its mask leaves nothing of a row, and what Keras makes of that depends on its backend")
    return None if keep.all() else keep


def _dot_attention(call: Call) -> Tensor:
    """Of tokens without heads, and without projections."""
    given = {**call.named}
    if call.score_mode != "dot":
        raise Refused(f"score_mode={call.score_mode!r} has no record; 'dot' has")
    if given.get("return_attention_scores"):
        raise Refused("its scores are returned; leave return_attention_scores out")
    values = [call.records.plain(t) for t in call.tensors]
    if len(values) not in (2, 3) or any(len(v.shape) != 2 for v in values):
        raise Refused("it expects (n, tokens, features) of a query, a value and perhaps a key")
    q, v, k = values[0], values[1], values[-1 if len(values) > 2 else 1]
    scale = 1.0 if call.scale is None else float(call.weights("scale"))
    mask = _mask(call, given, (q.shape[0], k.shape[0]), bool(given.get("use_causal_mask")))
    return Tensor(attention.attention(call.add, q, k, v, mask=mask, scale=scale))


def _fused(call: Call) -> Tensor:
    """ops.dot_product_attention: (n, tokens, heads, features)."""
    given = _bound(call)
    if given.get("bias") is not None:
        raise Refused("its bias has no record here; add it to the scores, and take their softmax")
    q, k, v = (algebra.permuted(call.add, given[name], (1, 0, 2)) for name in ("query", "key", "value"))
    named = {"attention_mask": given.get("mask")}
    mask = _mask(call, named, (q.shape[-2], k.shape[-2]), bool(call.is_causal))
    scale, cap = given.get("scale"), getattr(call.layer, "attn_logits_soft_cap", None)
    made = attention.attention(
        call.add, q, k, v, mask=mask, scale=None if scale is None else float(scale), softcap=float(cap or 0.0)
    )
    return Tensor(algebra.permuted(call.add, made, (1, 0, 2)))


# ------------------------------------------------------------------------------------------ products of two tensors


def _matmul(call: Call) -> Tensor:
    a, b = operands(call)[:2]
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return Tensor(attention.product(call.add, call.records.plain(a), call.records.plain(b)))
    x, weight, left = (a, b, False) if isinstance(a, Tensor) else (b, a, True)
    assert isinstance(x, Tensor)
    assert not isinstance(weight, Tensor)
    value = call.records.plain(x)
    return Tensor(products.product(call.add, value, products.of_matrices(weight, value, call.n_batch), left))


def _dot_layer(call: Call) -> Tensor:
    """Over one axis of each tensor, sample by sample."""
    if call.normalize:
        raise Refused("normalize=True has no record here; use UnitNormalization before it")
    a, b = (call.records.plain(t) for t in call.tensors)
    pair = call.axes if isinstance(call.axes, (list, tuple)) else (call.axes, call.axes)
    letters = "abcdefghijkl"
    of_a, of_b = letters[: len(a.shape)], list(letters[len(a.shape) :][: len(b.shape)])
    first, second = (axis % (len(x.shape) + 1) - 1 for axis, x in zip(pair, (a, b), strict=True))
    if first < 0 or second < 0:
        raise Refused("it sums over the batch axis, so that samples would be mixed")
    of_b[second] = of_a[first]
    result = "".join(k for k in (*of_a, *of_b) if k != of_a[first])
    return Tensor(attention.contraction(call.add, a, of_a, b, "".join(of_b), result))


HANDLERS: dict[str, Handler] = {
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "UnitNormalization": _unit_norm,
    "GroupNormalization": _group_norm,
    **dict.fromkeys(("MultiHeadAttention", "GroupedQueryAttention"), _multi_head),
    "Attention": _dot_attention,
    "ops.DotProductAttention": _fused,
    "ops.Matmul": _matmul,
    "EinsumDense": _einsum_dense,
    "Dot": _dot_layer,
}
