"""What Keras layers and operations do along any axes: picks, joins, reductions, resizing; and augmentation, which does
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from .. import algebra, moves
from ..records import Refused, Value
from .arithmetic import operands
from .call import SAMPLES, Call, Handler, Tensor, pair

AUGMENTATIONS = (
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
    "RandomCrop", "RandomHue",
    "RandomSaturation", "RandomShear", "RandomSharpness", "RandomColorJitter", "RandomColorDegeneration",
    "RandomGrayscale",
    "RandomGaussianBlur", "RandomErasing", "RandomInvert", "RandomPosterization", "RandomPerspective",
    "RandomElasticTransform",
    "AutoContrast", "AugMix", "CutMix", "MixUp", "RandAugment",
)  # fmt: skip


def _augmentation(call: Call) -> Tensor:
    sizes = getattr(call.layer, "height", None), getattr(call.layer, "width", None)
    if None not in sizes and sizes != call.x.shape[:2]:
        raise Refused(
            f"at inference it cuts {sizes} out of {call.x.shape[:2]}, which has no record; prepare the data so"
        )
    return call.x


def _taken(call: Call, made: NDArray[Any]) -> Tensor:
    """Elements in other places, by where their numbers are."""
    if made.ndim < 1 or len(made) != SAMPLES:
        raise Refused("it takes the batch apart, or does not keep it first")
    x = call.plain if call.x.shape else algebra.vector(call.x.value)
    return Tensor(moves.rearranged(call.add, x, made))


def _numbers(call: Call) -> NDArray[np.int64]:
    return np.arange(1, SAMPLES * math.prod(call.x.shape) + 1).reshape(SAMPLES, *call.x.shape)


def _moved(call: Call) -> Tensor | list[Tensor]:
    """What moves elements, once, several times or never: known by where the layer itself puts their numbers."""
    made = [_taken(call, result) for result in call.probe(_numbers(call))]
    return made if len(made) > 1 else made[0]


def _item(call: Call) -> Tensor:
    """By NumPy's indexing, which has steps that some backends lack."""
    key = call.arguments[1]
    try:
        return _taken(call, np.asarray(_numbers(call)[tuple(key) if isinstance(key, list) else key]))
    except (IndexError, TypeError, ValueError) as error:
        raise Refused(f"it cannot be followed: {error}") from None


def _axis(call: Call, axis: Any) -> int:
    """The batch counted, and not the batch's."""
    if not isinstance(axis, int) or not axis % (len(call.x.shape) + 1):
        raise Refused("it works along the batch axis, so that samples would be mixed; give it another axis")
    return axis % (len(call.x.shape) + 1)


def _along(matrix: Callable[[Call, NDArray[Any]], NDArray[Any]]) -> Handler:
    """A linear map along one axis, known by what it does to the unit vectors (the columns of its matrix)."""

    def handle(call: Call) -> Tensor:
        axis = _axis(call, call.axis)
        return Tensor(call.add(L.Linear, call.plain, weight=matrix(call, np.eye(call.x.shape[axis - 1])), axis=axis))

    return handle


def _pad(call: Call) -> Tensor | list[Tensor]:
    """Widths for every axis, or one pair for all."""
    pairs = [(int(before), int(after)) for before, after in call.pad_width]
    pairs = pairs * (len(call.x.shape) + 1) if len(pairs) == 1 else pairs
    if call.mode != "constant":
        return _moved(call)
    if any(pairs[0]):
        raise Refused("it pads the batch axis")
    value = next((float(call.constant(a)) for a in call.arguments[1:] if a is not None), 0.0)
    return Tensor(moves.padded(call.add, call.plain, pairs[1:], value))


def _joined(join: Callable[..., Value], more: int) -> Handler:
    """Of tensors and constants; `more` axes has the result."""

    def handle(call: Call) -> Tensor:
        parts = [
            o if isinstance(o, np.ndarray) else Value(call.records.plain(o).position, o.shape) for o in operands(call)
        ]
        axis = (
            _axis(call.of([call.tensors[0]]), call.axis)
            if not more
            else call.axis % (len(call.tensors[0].shape) + 1 + more)
        )
        return Tensor(join(call.add, parts, axis, call.n_batch))

    return handle


def _reduction(kind: str) -> Handler:
    def handle(call: Call) -> Tensor:
        x, given = call.plain, call.axis
        n = len(call.x.shape) + 1
        axes = (
            ()
            if given is None
            else tuple(sorted({a % n for a in (given if isinstance(given, (list, tuple)) else (given,))}))
        )
        if not axes or 0 in axes:
            raise Refused("it reduces the batch axis, so that samples would be mixed; give it the other axes")
        keep = bool(call.keepdims)
        x = algebra.scaled(call.add, x, -1.0) if kind == "min" else x
        y = call.add(L.Reduce, x, kind="max" if kind == "min" else kind, axes=axes, keepdims=keep or len(axes) == n - 1)
        y = algebra.scaled(call.add, y, -1.0) if kind == "min" else y
        return Tensor(y if keep or len(axes) < n - 1 else algebra.reshaped(call.add, y, (1,)))

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
    return moves.resampled(
        call.add, x, [linear(s, o) if s != o else None for s, o in zip(x.shape[1:], sizes, strict=True)]
    )


def _resizing(call: Call) -> Tensor | list[Tensor]:
    first = call.data_format == "channels_first"
    space = call.x.shape[1:] if first else call.x.shape[:-1]
    sizes = tuple(call.size) if hasattr(call.layer, "size") else (call.height, call.width)
    call.records.layers.fixed = f"a resize to {sizes}"
    keeps = any(getattr(call.layer, key, False) for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"))
    if sizes == space:
        return call.x
    if call.interpolation == "nearest" and not keeps:
        return _moved(call)
    if keeps:
        raise Refused("only resizing that keeps no aspect ratio has a record")
    x, moved = call.channels(call.x)
    if call.interpolation == "bilinear" and not call.antialias:
        return Tensor(resized(call, x, sizes), moved)
    return Tensor(moves.resampled(call.add, x, [_response(call, axis, first) for axis in (0, 1)]), moved)


def _response(call: Call, axis: int, first: bool) -> NDArray[Any]:
    """The matrix (out, in) of one spatial axis: what the layer makes of the unit vectors, as channels, along another
    axis of size 2.
    """
    size = call.x.shape[axis + first]
    unit = (
        np.eye(size, dtype=np.float32)
        .reshape(1, *((size, 1) if axis == 0 else (1, size)), size)
        .repeat(2, axis=2 - axis)
    )
    (made,) = call.probe(np.moveaxis(unit, -1, 1) if first else unit)
    made = np.moveaxis(made, 1, -1) if first else made
    return np.asarray((made[0, :, 0] if axis == 0 else made[0, 0]), np.float64)


def _adaptive(average: bool) -> Handler:
    def handle(call: Call) -> Tensor:
        x, moved = call.channels(call.x)
        wanted = pair(call.output_size, len(x.shape) - 1)
        if not average or set(wanted) != {1}:
            call.records.layers.fixed = f"an adaptive pool to {wanted}"
        return Tensor(moves.adaptive(call.add, x, wanted, average), moved)

    return handle


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


MOVES = (
    "Flip", "Roll", "Squeeze", "ExpandDims", "Repeat", "Tile", "Take", "TakeAlongAxis", "Rot90", "Diagonal", "Slice",
    "Split",
    "ArraySplit", "Unstack", "DepthToSpace", "SpaceToDepth", "Triu", "Tril",
)  # fmt: skip
"""Operations that put elements in other places, or zeros."""

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(AUGMENTATIONS, _augmentation),
    "Resizing": _resizing,
    "CenterCrop": _center_crop,
    "ops.GetItem": _item,
    **{f"ops.{name}": _moved for name in MOVES},
    "RepeatVector": _moved,
    "ops.Pad": _pad,
    "ops.Stack": _joined(moves.stacked, 1),
    "ops.Hstack": _joined(moves.joined, 0),
    "ops.Cumsum": _along(lambda call, unit: np.cumsum(unit, axis=0)),
    "ops.Diff": _along(lambda call, unit: np.diff(unit, n=call.n, axis=0)),
    "ops.Mean": _reduction("mean"),
    "ops.Sum": _reduction("sum"),
    **dict.fromkeys(("ops.Max", "ops.Amax"), _reduction("max")),
    **dict.fromkeys(("ops.Min", "ops.Amin"), _reduction("min")),
    "ops.Resize": _resizing,
    **{f"AdaptiveAveragePooling{n}D": _adaptive(True) for n in (1, 2, 3)},
    **{f"AdaptiveMaxPooling{n}D": _adaptive(False) for n in (1, 2, 3)},
}
