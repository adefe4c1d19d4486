"""What ATen's pools and resizings become: one row per operator, one short function per kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import layers as L
from ...plan.shapes import Shape
from .. import algebra, moves
from ..records import Refused, Value
from .beside import SPACES
from .call import (
    MAX_POOLS,
    MAX_POOLS_WITH_INDICES,
    Array,
    Bordered,
    Call,
    Handler,
    Records,
    each,
    first,
    ints,
    spread,
)

# -------------------------------------------------------------------------------------------------------------- pools


def _pool_fields(call: Call) -> dict[str, Any]:
    return dict(
        kernel=ints(call.kernel_size),
        stride=ints(call.stride) or None,
        padding=ints(call.padding),
        ceil_mode=call.ceil_mode,
    )


def _max_pool(records: Records, call: Call) -> Value:
    x, fields = call.x(), _pool_fields(call)
    if isinstance(x, Bordered):
        n_space = len(call.shape) - 1
        if fields["ceil_mode"] or any(x.border[0]):
            raise Refused("it pools with ceil_mode, or across channels, what was padded by −∞; give it the padding")
        own = spread(call.padding, n_space)
        fields["padding"] = [(p + before, p + after) for p, (before, after) in zip(own, x.border[1:], strict=True)]
        x, records.layers.same = x.inner, True
    return records.add(L.MaxPool, x, **fields, dilation=ints(call.dilation))


def _avg_pool(records: Records, call: Call) -> Value:
    divisor = call.get("divisor_override")
    if divisor is None:
        return records.add(L.AvgPool, call.x(), **_pool_fields(call), count_include_pad=call.count_include_pad)
    return algebra.scaled(records.add, records.add(L.SumPool, call.x(), **_pool_fields(call)), 1 / divisor)


def _adaptive(average: bool, n_space: int) -> Callable[[Records, Call], Value]:
    def handle(records: Records, call: Call) -> Value:
        x = call.x()
        beside = len(x.shape) - n_space
        if beside < 1:
            raise Refused("its input has no batch axis; give every tensor one (pass example[None] for one sample)")
        wanted = call.shape[-n_space:]
        if not average or set(wanted) != {1}:
            records.layers.fixed = f"an adaptive pool to {wanted}"
        return moves.adaptive(records.add, x, x.shape[1:beside] + wanted, average)

    return handle


# ----------------------------------------------------------------------------------------------------------- resizing


def _resized(records: Records, call: Call) -> tuple[Value, list[Array]]:
    """What is resized, and the matrix (out, in) of each of its axes behind the channels."""
    x = call.x("input" if "input" in call.arguments else "self")
    n_space = SPACES.get(call.name, len(x.shape) - 1)
    beside, sizes = x.shape[1:-n_space], x.shape[-n_space:]
    if all(call.get(key) is None for key in ("scale_factors", "scales", "scales_d", "scales_h", "scales_w")):
        records.layers.fixed = f"a resize to {call.shape[-n_space:]}"
    return x, [np.eye(size) for size in beside] + [_resize(call, sizes, axis) for axis in range(n_space)]


def _resize(call: Call, sizes: Shape, axis: int) -> Array:
    """The matrix of one spatial axis of these sizes: what the operator makes of the unit vectors, as channels, along
    other axes of size 2.

    Of size 1, PyTorch's antialiasing gives every row the first one's weights.
    """
    import torch

    name = "input" if "input" in call.arguments else "self"
    n_space, size = len(sizes), sizes[axis]
    given = dict(call.arguments)
    given[name] = torch.eye(size, dtype=torch.float64).reshape(
        1, size, *(size if a == axis else 1 for a in range(n_space))
    )
    given[name] = given[name].expand(1, size, *(size if a == axis else 2 for a in range(n_space))).contiguous()
    if given.get("output_size") is not None:
        given["output_size"] = [size if a == axis else 2 for a, size in enumerate(call.shape[-n_space:])]
    if given.get("scale_factors") is not None:
        given["scale_factors"] = [f if a == axis else 1.0 for a, f in enumerate(call.scale_factors)]
    for a, key in enumerate(["scales"] if n_space == 1 else ["scales_d", "scales_h", "scales_w"][3 - n_space :]):
        if key in given and a != axis:
            given[key] = None
    made = call.target(**given)[(0, slice(None), *(slice(None) if a == axis else 0 for a in range(n_space)))]
    result: Array = made.numpy().T
    return result


def _interpolate(records: Records, call: Call) -> Value:
    return moves.resampled(records.add, *_resized(records, call))


def _nearest(records: Records, call: Call) -> Value:
    """Each element of the result is one of x."""
    x, matrices = _resized(records, call)
    places = [matrix.argmax(axis=1) for matrix in matrices]
    factors = tuple(len(p) // s for p, s in zip(places, x.shape[1:], strict=True))
    if all(
        f and np.array_equal(p, np.repeat(np.arange(s), f))
        for p, s, f in zip(places, x.shape[1:], factors, strict=True)
    ):
        return x if math.prod(factors) == 1 else records.add(L.Upsample, x, factor=factors)
    for axis, numbers in enumerate(places, 2):
        if not np.array_equal(numbers, np.arange(x.shape[axis - 1])):
            x = records.add(L.Gather, x, indices=numbers, axis=axis)
    return x


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(MAX_POOLS, _max_pool),
    **dict.fromkeys(MAX_POOLS_WITH_INDICES, first(_max_pool)),
    **each("avg_pool1d avg_pool2d avg_pool3d", _avg_pool),
    **{f"adaptive_avg_pool{n}d": _adaptive(True, n) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": _adaptive(True, n) for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": first(_adaptive(False, n)) for n in (1, 2, 3)},
    **each("upsample_nearest1d upsample_nearest2d upsample_nearest3d", _nearest),
    **each("_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d", _nearest),
    **each("upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d", _interpolate),
    **each("_upsample_bilinear2d_aa _upsample_bicubic2d_aa", _interpolate),
}
