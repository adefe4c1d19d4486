"""Records as taps: canonical weights (c_out, c_in/groups, *kernel), three spatial axes, folded affine maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..errors import ShapeError
from .entries import Entry
from .fold import Folding
from .parts import Part
from .shapes import Shape, pairs, spatial
from .taps import Taps, Triple, pointwise
from .tensors import Floats, Tensor


def triple(values: tuple[int, ...], lead: int = 1) -> Triple:
    """Up to three per-axis values with leading ones (or `lead`)."""
    d, h, w = (lead,) * (3 - len(values)) + tuple(values)
    return d, h, w


def _space(shape: Shape) -> Triple:
    return triple(shape[1:])


def _affine_weight(
    weight: Floats, bias: Floats | None, position: int, folding: Folding
) -> tuple[Floats, Floats | None, tuple[int, int]]:
    """Fold the affine maps before (per input channel; groups = 1 axis layout (c_out, c_in, ...)) and after (per output
    channel); how many of them there are.
    """
    before, after = folding.before.get(position, ()), folding.after.get(position, ())
    if not before and not after:
        return weight, bias, (0, 0)
    for scale, shift in before:
        if shift.any():
            extra = (weight * _per_input(shift, weight)).reshape(len(weight), -1).sum(axis=1)
            bias = extra if bias is None else bias + extra
        weight = weight * _per_input(scale, weight)
    for scale, shift in after:
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        if bias is not None or shift.any():
            bias = (0.0 if bias is None else np.asarray(bias, np.float64)) * scale + shift
    return weight, bias, (len(before), len(after))


def _per_input(values: NDArray[np.float64], weight: Floats) -> NDArray[np.float64]:
    """A vector over c_in as factors of weight (c_out, c_in/groups, ...)."""
    c_out, c_group = weight.shape[:2]
    groups = values.size // c_group
    factors = np.repeat(values.reshape(groups, c_group), c_out // groups, axis=0)
    return factors.reshape(c_out, c_group, *(1,) * (weight.ndim - 2))


def linear_part(record: Any, source: Tensor, entry: Entry, folding: Folding) -> tuple[Part, Floats | None]:
    weight, bias, variant = _affine_weight(record.weight, record.bias, entry.position, folding)
    n_out, n_in = weight.shape
    taps = pointwise(n_in, n_out, source.space)
    weight, linear = weight.reshape(n_out, n_in, 1, 1, 1), len(source.shape) == 1
    return Part(entry.position, source, taps, weight, linear=linear, variant=variant), bias


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
    weight, bias, variant = _affine_weight(weight, record.bias, entry.position, folding)
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
    weight = weight.reshape(*weight.shape[:2], *taps.kernel)
    return Part(entry.position, source, taps, weight, variant=variant), bias


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
