"""What Keras layers and operations do along any axes: picks, reductions, differences, resizing; and augmentation, which
does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from .. import algebra
from ..records import Add, Refused, Value
from .call import Call, Handler, Tensor

AUGMENTATIONS = (
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
    "RandomCrop", "RandomHue",
    "RandomSaturation", "RandomShear", "RandomSharpness", "RandomColorJitter", "RandomColorDegeneration",
    "RandomGrayscale",
    "RandomGaussianBlur", "RandomErasing", "RandomInvert", "RandomPosterization", "RandomPerspective",
    "RandomElasticTransform",
    "AutoContrast", "AugMix", "CutMix", "MixUp", "RandAugment",
)  # fmt: skip


def _add(call: Call) -> Add:
    return lambda cls, *sources, **fields: call.add(cls, *sources, **fields)


def _augmentation(call: Call) -> Tensor:
    sizes = getattr(call.layer, "height", None), getattr(call.layer, "width", None)
    if None not in sizes and sizes != call.x.shape[:2]:
        raise Refused(
            f"at inference it cuts {sizes} out of {call.x.shape[:2]}, which has no record; prepare the data so"
        )
    return call.x


def _picked(pick: Callable[[Call, NDArray[Any]], Any]) -> Handler:
    """Elements in other places: NumPy says of numbered elements which these are."""

    def handle(call: Call) -> Tensor:
        x = call.records.plain(call.x)
        numbers = np.arange(2 * int(np.prod(x.shape))).reshape(2, *x.shape)
        try:
            index = np.asarray(pick(call, numbers))
        except (IndexError, TypeError, ValueError) as error:
            raise Refused(f"it cannot be followed: {error}") from None
        if index.ndim < 2 or len(index) != 2 or (index[1] - index[0] != numbers[1].flat[0]).any():
            raise Refused("it takes the batch apart")
        return Tensor(algebra.moved(_add(call), x, index[0]))

    return handle


def _key(call: Call) -> Any:
    key = call.arguments[1]
    return tuple(key) if isinstance(key, list) else key


def _reduction(kind: str) -> Handler:
    def handle(call: Call) -> Tensor:
        x, given = call.records.plain(call.x), call.axis
        n = len(x.shape) + 1
        axes = () if given is None else tuple(a % n for a in (given if isinstance(given, (list, tuple)) else (given,)))
        if not axes or 0 in axes:
            raise Refused("it reduces the batch axis, so that samples would be mixed; give it the other axes")
        return Tensor(call.add(L.Reduce, x, kind=kind, axes=axes, keepdims=bool(call.keepdims)))

    return handle


def _two(combine: Callable[[Add, Value, Value], Value]) -> Handler:
    def handle(call: Call) -> Tensor:
        if len(call.tensors) != 2:
            raise Refused(f"it reads {len(call.tensors)} tensors, expected two")
        a, b = (call.records.plain(t) for t in call.tensors)
        return Tensor(combine(_add(call), a, b))

    return handle


def linear(n_in: int, n_out: int) -> NDArray[np.float64]:
    """(n_out, n_in): linear interpolation between the centres of pixels, those at the ends repeated beyond."""
    at = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    low = np.minimum(at.astype(int), max(n_in - 2, 0))
    weights = np.zeros((n_out, n_in))
    weights[np.arange(n_out), low] += 1 - (at - low)
    weights[np.arange(n_out), np.minimum(low + 1, n_in - 1)] += at - low
    return weights


def resized(call: Call, x: Value, sizes: tuple[int, ...]) -> Value:
    """Bilinear, channels on axis 1."""
    return algebra.resampled(
        _add(call), x, [linear(s, o) if s != o else None for s, o in zip(x.shape[1:], sizes, strict=True)]
    )


def _resizing(call: Call) -> Tensor:
    x, moved = call.channels(call.x)
    sizes = (call.height, call.width)
    if sizes == x.shape[1:]:
        return call.x
    if getattr(call.layer, "interpolation", None) != "bilinear" or any(
        getattr(call.layer, key, False) for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias")
    ):
        raise Refused("only bilinear resizing without antialiasing and aspect ratios has a record")
    return Tensor(resized(call, x, sizes), moved)


def _center_crop(call: Call) -> Tensor:
    x, moved = call.channels(call.x)
    sizes = (call.height, call.width)
    if any(o > s for s, o in zip(x.shape[1:], sizes, strict=True)):
        raise Refused(f"it enlarges {x.shape[1:]} to {sizes}; use Resizing")
    value = x
    for axis, (size, wanted) in enumerate(zip(x.shape[1:], sizes, strict=True), 2):
        if size != wanted:
            start = (size - wanted) // 2
            value = call.add(L.Slice, value, axis=axis, start=start, stop=start + wanted)
    return Tensor(value, moved)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(AUGMENTATIONS, _augmentation),
    "Resizing": _resizing,
    "CenterCrop": _center_crop,
    "ops.GetItem": _picked(lambda call, numbers: numbers[_key(call)]),
    "ops.Flip": _picked(lambda call, numbers: np.flip(numbers, call.axis) if call.axis is not None else None),
    "ops.Roll": _picked(
        lambda call, numbers: np.roll(numbers, call.shift, call.axis) if call.axis is not None else None
    ),
    "ops.Squeeze": _picked(lambda call, numbers: np.squeeze(numbers, call.axis)),
    "ops.ExpandDims": _picked(lambda call, numbers: np.expand_dims(numbers, call.axis)),
    "ops.Transpose": _picked(lambda call, numbers: np.transpose(numbers, call.axes)),
    "RepeatVector": _picked(lambda call, numbers: np.repeat(numbers[:, None], call.n, axis=1)),
    "ops.Mean": _reduction("mean"),
    "ops.Sum": _reduction("sum"),
    "ops.Max": _reduction("max"),
    "Subtract": _two(lambda add, a, b: algebra.difference(add, a, b)),
    "Maximum": _two(lambda add, a, b: algebra.larger(add, [a, b])),
    "Minimum": _two(lambda add, a, b: algebra.smaller(add, [a, b])),
}
