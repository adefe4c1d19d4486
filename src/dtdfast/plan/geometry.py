"""Records as taps: canonical weights (c_out, c_in/groups, *kernel), three spatial axes, folded affine maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..errors import ShapeError
from .fold import Folding
from .shapes import Shape, pairs, spatial
from .taps import Taps, Triple
from .units import Floats, Part, Region, Tensor, whole
from .wiring import Entry


def triple(values: tuple[int, ...], lead: int = 1) -> Triple:
    """Up to three per-axis values with leading ones (or `lead`)."""
    d, h, w = (lead,) * (3 - len(values)) + tuple(values)
    return d, h, w


def _space(shape: Shape) -> Triple:
    return triple(shape[1:])


def _affine_weight(
    weight: Floats, bias: Floats | None, position: int, folding: Folding
) -> tuple[Floats, Floats | None]:
    """Fold the affine maps before (per input channel; groups = 1 axis layout (c_out, c_in, ...)) and after (per output
    channel).
    """
    for scale, shift in folding.before.get(position, ()):
        grouped = _per_input(scale, weight)
        column = np.asarray(weight, np.float64)
        if shift.any():
            extra = (column * _per_input(shift, weight)).reshape(len(weight), -1).sum(axis=1)
            bias = extra if bias is None else bias + extra
        weight = column * grouped
    for scale, shift in folding.after.get(position, ()):
        weight = np.asarray(weight, np.float64) * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        if bias is not None or shift.any():
            bias = (0.0 if bias is None else np.asarray(bias, np.float64)) * scale + shift
    return weight, bias


def _per_input(values: NDArray[np.float64], weight: Floats) -> NDArray[np.float64]:
    """A vector over c_in as factors of weight (c_out, c_in/groups, ...)."""
    c_out, c_group = weight.shape[:2]
    groups = values.size // c_group
    factors = np.repeat(values.reshape(groups, c_group), c_out // groups, axis=0)
    return factors.reshape(c_out, c_group, *(1,) * (weight.ndim - 2))


def _variant(entry: Entry, folding: Folding) -> tuple[int, int]:
    return len(folding.before.get(entry.position, ())), len(folding.after.get(entry.position, ()))


def linear_part(record: Any, source: Tensor, entry: Entry, folding: Folding) -> tuple[Part, Floats | None]:
    weight, bias = _affine_weight(record.weight, record.bias, entry.position, folding)
    n_out, n_in = weight.shape
    taps = Taps(False, n_in, n_out, 1, source.space, source.space)
    weight, linear = weight.reshape(n_out, n_in, 1, 1, 1), len(source.shape) == 1
    return Part(entry.position, source, taps, weight, linear=linear, variant=_variant(entry, folding)), bias


def conv_part(record: Any, source: Tensor, entry: Entry, folding: Folding) -> tuple[Part, Floats | None]:
    """Conv and ConvTranspose."""
    transposed = isinstance(record, L.ConvTranspose)
    weight: Floats = np.asarray(record.weight)
    n = weight.ndim - 2
    if transposed:  # (c_in, c_out/groups, *k) → (c_out, c_in/groups, *k)
        c_in, c_group = weight.shape[:2]
        grouped = weight.reshape(record.groups, c_in // record.groups, c_group, *weight.shape[2:])
        weight = np.ascontiguousarray(np.swapaxes(grouped, 1, 2)).reshape(
            record.groups * c_group, c_in // record.groups, *weight.shape[2:]
        )
    weight, bias = _affine_weight(weight, record.bias, entry.position, folding)
    extra = folding.padding.get(entry.position, ((0, 0),) * n)
    taps = Taps(
        transposed,
        source.channels,
        weight.shape[0],
        record.groups,
        source.space,
        _space(entry.shape),
        triple(weight.shape[2:]),
        triple(record.stride),
        triple(record.dilation),
        triple(tuple(record.padding[a][0] + extra[a][0] for a in range(n)), lead=0),
    )
    return Part(
        entry.position, source, taps, weight.reshape(*weight.shape[:2], *taps.kernel), variant=_variant(entry, folding)
    ), bias


def _pool_taps(
    source: Tensor, entry: Entry, kernel: Shape, stride: Shape, dilation: Shape, padding: tuple[tuple[int, int], ...]
) -> Taps:
    """Taps of a pool: every channel by itself."""
    channels, before = source.channels, triple(tuple(b for b, _ in padding), lead=0)
    spans = triple(kernel), triple(stride), triple(dilation)
    return Taps(False, channels, channels, channels, source.space, _space(entry.shape), *spans, before)


def pool_part(record: Any, source: Tensor, entry: Entry) -> Part:
    """AvgPool, SumPool, GlobalAvgPool: taps of weight 1 (window: 1 / divisor)."""
    n = len(source.shape) - 1
    if isinstance(record, L.GlobalAvgPool):
        kernel, stride, padding, include = source.shape[1:], (1,) * n, ((0, 0),) * n, True
    else:
        kernel, stride = spatial(record.kernel, n, "kernel"), spatial(record.stride, n, "stride")
        padding, include = pairs(record.padding, n, "padding"), getattr(record, "count_include_pad", True)
    taps = _pool_taps(source, entry, kernel, stride, (1,) * n, padding)
    window = None
    if not isinstance(record, L.SumPool):
        after = triple(tuple(a for _, a in padding), lead=0)
        counts = []
        for a in range(3):  # elements of each window along axis a that the divisor counts
            low, high = (-taps.before[a], taps.x_size[a] + after[a]) if include else (0, taps.x_size[a])
            first = np.arange(taps.out_size[a]) * taps.stride[a] - taps.before[a]
            counts.append(np.minimum(first + taps.kernel[a], high) - np.maximum(first, low))
        window = 1.0 / (counts[0][:, None, None] * counts[1][:, None] * counts[2])
    return Part(entry.position, source, taps, window=window)


def winner_taps(record: L.MaxPool, source: Tensor, entry: Entry) -> Taps:
    n = len(source.shape) - 1
    padding = pairs(record.padding, n, "padding")
    kernel, stride, dilation = (spatial(getattr(record, key), n, key) for key in ("kernel", "stride", "dilation"))
    taps = _pool_taps(source, entry, kernel, stride, dilation, padding)
    for a in range(3):
        first, step = np.arange(taps.out_size[a]) * taps.stride[a] - taps.before[a], taps.dilation[a]
        nearest = np.maximum(0, -(first // step))  # the first tap at 0 or beyond
        if not ((nearest < taps.kernel[a]) & (first + nearest * step < taps.x_size[a])).all():
            raise ShapeError(f"{entry}: some window holds padding alone; reduce the padding")
    return taps


def move_pairs(
    record: L.Layer, sources: tuple[Tensor, ...], shape: Shape
) -> tuple[list[tuple[Region, int, Region]], float | None]:
    """(region of the output, number of the source, region of the source) for every piece that moves, and the fill of
    the rest.
    """
    full = whole(shape)
    given = sources[0].shape
    if isinstance(record, L.Concat):
        axis = record.axis % (len(shape) + 1) - 1
        pieces, start = [], 0
        for number, source in enumerate(sources):
            count = source.shape[axis]
            ranges = (*full.ranges[:axis], (start, 1, count), *full.ranges[axis + 1 :])
            pieces.append((Region(ranges), number, whole(source.shape)))
            start += count
        return pieces, None
    if isinstance(record, L.Slice):
        axis = record.axis % (len(given) + 1) - 1
        start, _, step = slice(record.start, record.stop, record.step).indices(given[axis])
        ranges = whole(given).ranges
        return [(full, 0, Region((*ranges[:axis], (start, step, shape[axis]), *ranges[axis + 1 :])))], None
    if isinstance(record, L.Permute):
        return [(full, 0, Region(whole(given).ranges, tuple(a - 1 for a in record.order[1:])))], None
    if isinstance(record, L.Pad):
        widths = pairs(record.padding, len(given) - 1, "padding")
        inner = ((0, 1, given[0]), *((before, 1, s) for (before, _), s in zip(widths, given[1:], strict=True)))
        return [(Region(inner), 0, whole(given))], float(record.value)
    assert isinstance(record, L.Upsample)
    factors = spatial(record.factor, len(given) - 1, "factor")
    pieces = []
    for offset in np.ndindex(*factors):
        ranges = ((0, 1, given[0]), *((o, f, s) for o, f, s in zip(offset, factors, given[1:], strict=True)))
        pieces.append((Region(ranges), 0, whole(given)))
    return pieces, None
