"""What Keras layers that pool, pad, cut and move become: one row per layer, one short function per kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from ..moves import joined, resampled
from ..records import Refused
from .arithmetic import operands
from .axes import resized
from .call import Call, Handler, Tensor, pair
from .layers import same_padding, together

# -------------------------------------------------------------------------------------------------------------- pools


def _pool(cls: type[L.Layer]) -> Handler:
    def handle(call: Call) -> Tensor:
        x, moved = call.channels(call.x)
        n = len(x.shape) - 1
        kernel, stride = pair(call.pool_size, n), pair(call.pool_size if call.strides is None else call.strides, n)
        if call.padding not in ("valid", "same"):
            raise Refused(f"padding {call.padding!r} is not known")
        same = call.padding == "same"
        call.records.layers.same |= same
        padding = same_padding(x.shape[1:], kernel, stride) if same else ((0, 0),) * n
        if cls is L.AvgPool and any(a != b for a, b in padding) and _on_torch():
            return Tensor(resampled(call.add, x, list(map(_repeating, x.shape[1:], kernel, stride, padding))), moved)
        more = dict(count_include_pad=False) if cls is L.AvgPool else {}
        return Tensor(call.add(cls, x, kernel=kernel, stride=stride, padding=padding, **more), moved)

    return handle


def _on_torch() -> bool:
    import keras

    return bool(keras.backend.backend() == "torch")


def _repeating(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> NDArray[np.float64]:
    """The matrix (out, in) of means over windows that reach beyond the ends, which repeat there: what Keras makes of an
    average pool on PyTorch where its padding is uneven.
    """
    whole = np.eye(size)[np.clip(np.arange(-padding[0], size + padding[1]), 0, size - 1)]
    return np.stack([whole[first : first + kernel].mean(0) for first in range(0, len(whole) - kernel + 1, stride)])


def _global(average: bool) -> Handler:
    def handle(call: Call) -> Tensor:
        x, moved = call.channels(call.x)
        if not average:
            call.records.layers.fixed = f"a pool of the whole image, {x.shape[1:]}"
        pooled = call.add(L.GlobalAvgPool, x) if average else call.add(L.MaxPool, x, kernel=x.shape[1:])
        return Tensor(pooled, moved) if call.keepdims else Tensor(call.add(L.Flatten, pooled))

    return handle


# ----------------------------------------------------------------------------------------------------------- movement


def _same(call: Call) -> Tensor:
    return call.x


def _cast(call: Call) -> Tensor:
    """Between floating types: values are float32 throughout."""
    if "float" not in str(call.dtype):
        raise Refused(f"it turns numbers into {call.dtype}, and only floating types can be explained")
    return call.x


def _flatten(call: Call) -> Tensor:
    """By Keras's rule the channels come last even where the data has them first."""
    first = call.data_format == "channels_first" and len(call.x.shape) > 1
    source = call.records.plain(call.x)
    if first:
        source = call.add(L.Permute, source, order=(0, *range(2, len(source.shape) + 1), 1))
        return Tensor(call.add(L.Flatten, source))
    return call.records.reshaped(call.x, (math.prod(call.x.shape),), call.name)


def _reshape(call: Call) -> Tensor:
    """target_shape may hold one −1; keras.ops counts the batch axis too."""
    given = tuple(call.newshape[1:]) if hasattr(call.layer, "newshape") else tuple(call.target_shape)
    total, known = math.prod(call.x.shape), math.prod(s for s in given if s != -1)
    return call.records.reshaped(call.x, tuple(total // known if s == -1 else s for s in given), call.name)


def _permute(call: Call) -> Tensor:
    order = (0, *call.dims)
    source = call.records.plain(call.x)
    return Tensor(source) if order == tuple(range(len(order))) else Tensor(call.add(L.Permute, source, order=order))


def _concat(call: Call) -> Tensor:
    if len(parts := operands(call)) > len(call.tensors):
        given = [o if isinstance(o, np.ndarray) else call.records.plain(o) for o in parts]
        return Tensor(joined(call.add, given, call.axis % (len(call.tensors[0].shape) + 1), call.n_batch))
    values, moved = together(call)
    n = len(values[0].shape) + 1
    axis = call.axis % n
    if moved:  # Keras's last axis is axis 1, and the others come after
        axis = 1 if axis == n - 1 else axis + 1
    return Tensor(call.add(L.Concat, *values, axis=axis), moved)


def _sides(given: Any, n: int) -> tuple[tuple[int, int], ...]:
    """One (before, after) per spatial axis."""
    if n == 1 and not isinstance(given[0], (tuple, list)):
        given = (given,)
    return tuple((int(b), int(a)) for b, a in given)


def _pad(call: Call) -> Tensor:
    x, moved = call.channels(call.x)
    return Tensor(call.add(L.Pad, x, padding=_sides(call.padding, len(x.shape) - 1)), moved)


def _crop(call: Call) -> Tensor:
    last = getattr(call.layer, "data_format", "channels_last") == "channels_last"  # Cropping1D has none
    x = call.records.moved(call.x) if last else call.records.plain(call.x)
    for axis, (before, after) in enumerate(_sides(call.cropping, len(x.shape) - 1), 2):
        if before or after:
            x = call.add(L.Slice, x, axis=axis, start=before, stop=x.shape[axis - 1] - after)
    return Tensor(x, last)


def _upsample(call: Call) -> Tensor:
    interpolation = getattr(call.layer, "interpolation", "nearest")
    if interpolation not in ("nearest", "bilinear"):
        raise Refused(f"interpolation {interpolation!r} has no record; 'nearest' and 'bilinear' have")
    last = getattr(call.layer, "data_format", "channels_last") == "channels_last"  # UpSampling1D has none
    x = call.records.moved(call.x) if last else call.records.plain(call.x)
    factors = pair(call.size, len(x.shape) - 1)
    if interpolation == "bilinear":
        return Tensor(resized(call, x, tuple(s * f for s, f in zip(x.shape[1:], factors, strict=True))), last)
    return Tensor(call.add(L.Upsample, x, factor=factors), last)


IDENTITIES = (
    "Identity", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise",
    "ActivityRegularization",
)  # fmt: skip

HANDLERS: dict[str, Handler] = {
    **{f"MaxPooling{n}D": _pool(L.MaxPool) for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": _pool(L.AvgPool) for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": _global(False) for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": _global(True) for n in (1, 2, 3)},
    **{f"ZeroPadding{n}D": _pad for n in (1, 2, 3)},
    **{f"Cropping{n}D": _crop for n in (1, 2, 3)},
    **{f"UpSampling{n}D": _upsample for n in (1, 2, 3)},
    **dict.fromkeys(IDENTITIES, _same),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "ops.Reshape": _reshape,
    **dict.fromkeys(("ops.StopGradient", "ops.ConvertToTensor", "ops.Copy"), _same),
    "ops.Cast": _cast,
    "ops.MaxPool": _pool(L.MaxPool),
    "ops.AveragePool": _pool(L.AvgPool),
    "Permute": _permute,
    "Concatenate": _concat,
    "ops.Concatenate": _concat,
}
