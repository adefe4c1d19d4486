"""What ATen operators that view, take apart, join and move elements become: one row per operator, one short function
per kind.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ... import layers as L
from .. import algebra, moves
from ..records import Refused, Value
from .call import MAX_POOLS, MAX_POOLS_WITH_INDICES, Bordered, Call, Handler, Pieces, Records, each, spread, viewed


def _same(records: Records, call: Call) -> Value:
    return call.x()


def _moved(records: Records, call: Call) -> Value:
    """Elements in new places, once, several times or never: known by where the operator puts their numbers.

    Of what writes one tensor into another both may be computed: each is followed while the other is 0.
    """
    values, n = call.values(), records.n_batch
    if not values or len(set(values)) < len(values) or (len(values) > 1 and call.name not in SCATTERS.split()):
        raise Refused("more than one of its operands is computed from the network's input")
    filled = call.probed(values[0], np.zeros((n, *values[0].shape)), records)
    if filled.ndim != len(call.shape) + 1 or len(filled) != n:
        raise Refused("the batch axis does not stay first")
    parts = []
    for x in values:
        numbers = np.arange(1.0, n * math.prod(x.shape) + 1).reshape(n, *x.shape)
        parts.append(moves.rearranged(records.add, x, call.probed(x, numbers, records) - filled))
    y = parts[0] if len(parts) == 1 else algebra.total(records.add, *parts)
    return algebra.scaled(records.add, y, 1.0, algebra.of_sample(filled, len(y.shape), n)) if filled.any() else y


def _expand(records: Records, call: Call) -> Value:
    """Where it is only multiplied, the multiplication repeats it."""
    if call.x().shape == call.shape or (call.users == {"mul"} and len(call.x().shape) == len(call.shape)):
        return call.x()
    if len(call.x().shape) == len(call.shape):
        return algebra.expanded(records.add, call.x(), call.shape)
    return _moved(records, call)


def _copy(records: Records, call: Call) -> Value:
    """What is copied, repeated to the shape of what it replaces."""
    return algebra.expanded(records.add, call.x("src"), call.shape)


def _pixel_shuffle(records: Records, call: Call) -> Value:
    """(c·r·r, h, w) to (c, h·r, w·r)."""
    (c, h, w), r = call.x().shape, call.upscale_factor
    x = algebra.reshaped(records.add, call.x(), (c // r**2, r, r, h, w))
    return viewed(algebra.permuted(records.add, x, (0, 3, 1, 4, 2)), call)


def _pixel_unshuffle(records: Records, call: Call) -> Value:
    """(c, h·r, w·r) to (c·r·r, h, w)."""
    (c, h, w), r = call.x().shape, call.downscale_factor
    x = algebra.reshaped(records.add, call.x(), (c, h // r, r, w // r, r))
    return viewed(algebra.permuted(records.add, x, (0, 2, 4, 1, 3)), call)


def _fold(records: Records, call: Call) -> Value:
    """Patches (c·k·k, n) added up in their places: a transposed convolution of each channel by ones."""
    x, kernel = call.x(), spread(call.kernel_size, 2)
    geometry = {key: spread(getattr(call, key), 2) for key in ("stride", "padding", "dilation")}
    lengths = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(spread(call.output_size, 2), kernel, *geometry.values(), strict=True)
    ]
    taps = math.prod(kernel)
    reach = [
        (m - 1) * s - 2 * p + d * (k - 1) + 1 for m, k, s, p, d in zip(lengths, kernel, *geometry.values(), strict=True)
    ]
    more = tuple(size - r for size, r in zip(spread(call.output_size, 2), reach, strict=True))
    weight = np.tile(np.eye(taps).reshape(taps, 1, *kernel), (x.shape[0] // taps, 1, 1, 1))
    patches = algebra.reshaped(records.add, x, (x.shape[0], *lengths))
    return records.add(
        L.ConvTranspose, patches, weight=weight, groups=x.shape[0] // taps, output_padding=more, **geometry
    )


def _windows(records: Records, call: Call) -> Value:
    """Windows along one axis, side by side in its place; their elements become the last axis."""
    (axis, size), x = _size(records, call.x(), call.dimension), call.x()
    starts = range(0, size - call.size + 1, call.step)
    if len(starts) > MOST_WINDOWS:
        return _moved(records, call)
    parts = [_cut(records, x, axis, i, i + call.size) for i in starts]
    y = moves.stacked(records.add, parts, axis, records.n_batch)
    order = [k for k in range(len(y.shape)) if k != axis]
    return viewed(algebra.permuted(records.add, y, [*order, axis]), call)


def _patches(records: Records, call: Call) -> Value:
    """Overlapping patches (c·k·k, n): for every place within a patch a slice of all rows and columns."""
    x, kernel = call.x(), spread(call.kernel_size, 2)
    stride, padding, dilation = (spread(getattr(call, key), 2) for key in ("stride", "padding", "dilation"))
    if math.prod(kernel) > MOST_WINDOWS:
        return _moved(records, call)
    if any(padding):
        x = records.add(L.Pad, x, padding=tuple((p, p) for p in padding), value=0.0)
    spans = [  # of every place in a patch: its first element and the end behind its last
        [(i * d, size - d * (k - 1) + i * d) for i in range(k)]
        for size, k, d in zip(x.shape[1:], kernel, dilation, strict=True)
    ]
    rows = [_cut(records, x, 2, *span, stride[0]) for span in spans[0]]
    parts = [_cut(records, row, 3, *span, stride[1]) for row in rows for span in spans[1]]
    return viewed(moves.stacked(records.add, parts, 2, records.n_batch), call)


def _channel_shuffle(records: Records, call: Call) -> Value:
    c, *space = call.x().shape
    x = algebra.reshaped(records.add, call.x(), (call.groups, c // call.groups, math.prod(space)))
    return viewed(algebra.permuted(records.add, x, (1, 0, 2)), call)


# ------------------------------------------------------------------------------------------------------- taking apart


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


def _slice(records: Records, call: Call) -> Any:
    axis, size = _size(records, call.x(), call.dim)
    start, stop, step = slice(call.start, call.end, call.step).indices(size)
    if stop <= start:  # nothing, which a cat leaves out
        return call.nothing(records, call.shape)
    return _cut(records, call.x(), axis, start, stop, step)


def _without(x: Value, axis: int) -> Value:
    """Without an axis of size 1."""
    return x.under(x.shape[: axis - 1] + x.shape[axis:])


def _select(records: Records, call: Call) -> Value:
    axis, size = _size(records, call.x(), call.dim)
    index = call.index % size
    return _without(_cut(records, call.x(), axis, index, index + 1), axis)


def _split(records: Records, call: Call) -> Pieces:
    axis, size = _size(records, call.x(), call.dim)
    if call.name == "split_with_sizes":
        ends = np.cumsum(call.split_sizes).tolist()
    else:
        ends = [*range(call.split_size, size, call.split_size), size]
    starts = [0, *ends[:-1]]

    def piece(start: int, stop: int) -> Any:
        shape = tuple(stop - start if a == axis else s for a, s in enumerate(call.x().shape, 1))
        return _cut(records, call.x(), axis, start, stop) if stop > start else call.nothing(records, shape)

    return Pieces([partial(piece, *span) for span in zip(starts, ends, strict=True)])


def _unbind(records: Records, call: Call) -> Pieces:
    axis, size = _size(records, call.x(), call.dim)

    def piece(i: int) -> Value:
        return _without(_cut(records, call.x(), axis, i, i + 1), axis)

    return Pieces([partial(piece, i) for i in range(size)])


# ------------------------------------------------------------------------------------------------------------ joining


def _joined(records: Records, operands: list[Any], axis: int) -> Value:
    return moves.joined(
        records.add,
        [o if isinstance(o, Value) else records.array(o, "constant operand") for o in operands],
        axis,
        records.n_batch,
    )


def _cat(records: Records, call: Call) -> Value:
    rank = len(call.shape)
    operands = [o for o in call.tensors if isinstance(o, Value) or o.numel()]  # PyTorch leaves empty ones out
    axis = {"cat": call.get("dim", 1), "hstack": 1, "column_stack": 1, "vstack": 0, "dstack": 2}[call.name] % (rank + 1)
    return _joined(records, [_to_rank(o, rank) for o in operands], axis)


def _to_rank(operand: Any, rank: int) -> Any:
    """With axes of size 1 after its own, as hstack, column_stack and dstack give what has too few."""
    if not isinstance(operand, Value):
        return operand.reshape(*operand.shape, *(1,) * (rank + 1 - operand.ndim))
    return operand.under(operand.shape + (1,) * (rank - len(operand.shape)))


def _stack(records: Records, call: Call) -> Value:
    axis = call.dim % (len(call.shape) + 1)

    def widened(operand: Any) -> Any:
        if not isinstance(operand, Value):
            return operand.unsqueeze(axis)
        return operand.under((*operand.shape[: axis - 1], 1, *operand.shape[axis - 1 :]))

    return _joined(records, [widened(o) for o in call.tensors], axis)


def _pad(records: Records, call: Call) -> Value:
    """Widths are given from the last axis backwards; negative ones crop."""
    if call.get("mode") not in (None, "constant"):
        return _moved(records, call)
    x, widths, value = call.x(), list(call.pad), float(call.get("value") or 0.0)
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (len(x.shape) - len(pairs)) + pairs
    if len(pairs) > len(x.shape) and any(pairs[0]):
        raise Refused("it pads the batch axis")
    pairs = pairs[-len(x.shape) :]
    for axis, (before, after) in enumerate(pairs, 1):
        x = _cut(records, x, axis, max(-before, 0), x.shape[axis - 1] - max(-after, 0))
    pairs = [(max(b, 0), max(a, 0)) for b, a in pairs]
    if value == -math.inf:
        if not call.users <= {*MAX_POOLS, *MAX_POOLS_WITH_INDICES}:
            raise Refused("it pads by −∞, which only max pools take; pad by a number")
        return Bordered(x.position, call.shape, inner=x, border=tuple(pairs))
    return moves.padded(records.add, x, pairs, value)


MOST_WINDOWS = 64
"""Along one axis, each an entry of its own; more of them are one Gather."""

MOVES = """
    flip roll rot90 fliplr flipud repeat tile repeat_interleave index index_select gather take_along_dim diagonal
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d
    narrow_copy diag_embed
"""
SCATTERS = "slice_scatter select_scatter diagonal_scatter index_copy index_put"

HANDLERS: dict[str, Handler] = {
    **each("clone detach _to_copy alias lift_fresh_copy lift_fresh contiguous type_as to dropout view_of", _same),
    "expand": _expand,
    "copy": _copy,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    "unfold": _windows,
    "im2col": _patches,
    "col2im": _fold,
    "slice": _slice,
    "select": _select,
    **each("split split_with_sizes", _split),
    "unbind": _unbind,
    **each("cat hstack column_stack dstack vstack", _cat),
    "stack": _stack,
    **each("pad constant_pad_nd", _pad),
    **each(f"{MOVES} {SCATTERS}", _moved),
}
