"""What ATen's norms by a sample's own statistics become: one row per operator, one short function per kind."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ... import layers as L
from .. import norms
from ..functions import Function, composed
from ..records import Refused, Value
from .call import Call, Handler, Pieces, Records, each


def _arrays(records: Records, call: Call) -> dict[str, Any]:
    named = {key: call.get(key) for key in ("weight", "bias")}
    return {key: records.array(value, key) for key, value in named.items() if value is not None}


def _last(call: Call, x: Value) -> tuple[int, ...]:
    """The axes of normalized_shape."""
    first = len(x.shape) + 1 - len(call.normalized_shape)
    if first < 1:
        raise Refused("it normalises over the batch axis, so that samples would be mixed")
    return tuple(range(first, len(x.shape) + 1))


def _layer_norm(records: Records, call: Call) -> Value:
    x = call.x("input")
    return records.add(L.LayerNorm, x, axes=_last(call, x), eps=call.eps, **_arrays(records, call))


def _rms_norm(records: Records, call: Call) -> Value:
    import torch

    x = call.x("input")
    eps = torch.finfo(call.dtype).eps if call.eps is None else call.eps
    return records.add(L.RMSNorm, x, axes=_last(call, x), eps=eps, **_arrays(records, call))


def _group_norm(records: Records, call: Call) -> Value:
    groups = call.get("num_groups") or call.group
    return records.add(L.GroupNorm, call.x("input"), groups=groups, eps=call.eps, **_arrays(records, call))


def _instance_norm(records: Records, call: Call) -> Value:
    if call.use_input_stats:
        return records.add(L.InstanceNorm, call.x("input"), eps=call.eps, **_arrays(records, call))
    stored = {"mean": call.running_mean, "variance": call.running_var}
    arrays = {key: records.array(value, key) for key, value in stored.items()} | _arrays(records, call)
    return records.add(L.BatchNorm, call.x("input"), eps=call.eps, **arrays)


def _several(handler: Any) -> Handler:
    """Of an operator that also returns statistics, which a network does not use."""
    return lambda records, call: Pieces([partial(handler, records, call)])


# --------------------------------------------------------------------------------------------------------- statistics


def _axes(call: Call, x: Value) -> tuple[int, ...]:
    """The axes of a statistic, the batch counted."""
    n_axes, dims = len(x.shape) + 1, call.get("dim")
    given = dims if isinstance(dims, (list, tuple)) else range(n_axes) if dims is None else [dims]
    axes = tuple(sorted({int(d) % n_axes for d in given or range(n_axes)}))
    if 0 in axes:
        raise Refused("it takes a statistic over the batch axis, so that samples would be mixed; name other axes")
    return axes


def _variance(records: Records, call: Call) -> Value:
    x, correction = call.x(), call.get("correction")
    if correction is None:
        correction = 1 if call.get("unbiased", True) else 0
    return norms.variance(records.add, x, _axes(call, x), float(correction), keepdims=call.get("keepdim", False))


def _mean(records: Records, call: Call) -> Value:
    x, axes = call.x(), _axes(call, call.x())
    y = records.add(L.Reduce, x, kind="mean", axes=axes, keepdims=True)
    return y.under(call.shape)


def _root(records: Records, call: Call, x: Value) -> Function:
    function = composed(records.layers, np.sqrt, [x], call.shape, call.name)
    assert function is not None
    return function


def _deviation(records: Records, call: Call) -> Any:
    return _root(records, call, _variance(records, call))


def _norm(records: Records, call: Call) -> Any:
    """The length of a vector, √(Σ x²), by which a network divides."""
    order = call.get("ord", call.get("p"))
    if order not in (None, 2):
        raise Refused(f"the norm of order {order} has no record; order 2 has, where the vector is divided by it")
    x = call.x()
    return _root(records, call, norms.squares(records.add, x, _axes(call, x), keepdims=call.get("keepdim", False)))


HANDLERS: dict[str, Handler] = {
    "layer_norm": _layer_norm,
    "native_layer_norm": _several(_layer_norm),
    "rms_norm": _rms_norm,
    "_fused_rms_norm": _several(_rms_norm),
    "group_norm": _group_norm,
    "native_group_norm": _several(_group_norm),
    "instance_norm": _instance_norm,
    "var": _variance,
    "var_mean": lambda records, call: Pieces([partial(_variance, records, call), partial(_mean, records, call)]),
    "std": _deviation,
    **each("norm linalg_vector_norm", _norm),
}
