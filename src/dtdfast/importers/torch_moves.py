"""What ATen operators that pool, view and move become: one row per operator, one short function per kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import layers as L
from .records import Refused, Value
from .torch_call import Call, Handler, Pieces, Records, each, ints, viewed

# ------------------------------------------------------------------------------------------------------------------- pools


def _pool_fields(call: Call) -> dict[str, Any]:
    return dict(kernel=ints(call.kernel_size), stride=ints(call.stride) or None, padding=ints(call.padding), ceil_mode=call.ceil_mode)


def _max_pool(records: Records, call: Call) -> Value:
    return records.add(L.MaxPool, call.x(), **_pool_fields(call), dilation=ints(call.dilation))


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
        if math.prod(kernel) == 1 and not average:
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
    return viewed(_mean_over(records, call.x(), _over_space(call, call.dim)), call)


def _max(records: Records, call: Call) -> Value:
    return viewed(records.add(L.MaxPool, call.x(), kernel=_over_space(call, call.dim)), call)


def _first(handler: Callable[[Records, Call], Value]) -> Handler:
    """The first result of an operator that also returns indices."""

    def handle(records: Records, call: Call) -> Pieces:
        return [partial(handler, records, call)]

    return handle


# ---------------------------------------------------------------------------------------------------------------- movement


def _view(records: Records, call: Call) -> Value:
    return viewed(call.x(), call)


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
    return viewed(_cut(records, call.x(), axis, index, index + 1), call)


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


HANDLERS: dict[str, Handler] = {
    **each("max_pool1d max_pool2d max_pool3d", _max_pool),
    **each("max_pool2d_with_indices max_pool3d_with_indices", _first(_max_pool)),
    **each("avg_pool1d avg_pool2d avg_pool3d", _avg_pool),
    **{f"adaptive_avg_pool{n}d": _adaptive(True, n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _first(_adaptive(False, n)) for n in (1, 2, 3)},
    "mean": _mean,
    "amax": _max,
    "max": _first(_max),
    **each("view _unsafe_view squeeze unsqueeze", _view),
    **each("clone detach _to_copy", _same),
    "expand": _expand,
    **each("permute transpose", _permute),
    "slice": _slice,
    "select": _select,
    **each("split split_with_sizes", _split),
    "unbind": _unbind,
    "cat": _cat,
    "pad": _pad,
    **each("upsample_nearest1d upsample_nearest2d upsample_nearest3d", _upsample),
    **each("_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d", _upsample),
}
