"""Readers of the ONNX operators that pad or resample images: one function per operator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ... import layers as L
from ...budget import require
from ..records import Refused, Value, along
from .graph import Array, Node, Reader, counted, rank, scalar
from .moves import MOST, picked, reshaped

LONGEST = 1 << 17  # elements that a Resize makes along an axis, each a row of a matrix
NEAR = 1e-5  # of a coordinate to a place where nearest modes change their choice: what float32 may decide either way

# ---------------------------------------------------------------------------------------------------------- padding


def pad(node: Node) -> Value:
    """Negative pads crop; the modes other than constant repeat elements of their axis."""
    x, mode, pads = node.value(), node.text("mode", "constant"), node.setting("pads", 1, 11)
    value = node.optional(2, "its constant value") if node.opset >= 11 else np.asarray(node.number("value", 0.0))
    axes = tuple(counted(a, rank(x)) for a in node.setting("axes", 3, 18) or range(rank(x)))
    if pads is None or len(pads) != 2 * len(axes) or len(set(axes)) < len(axes):
        raise Refused(f"its pads are {pads}, expected two per axis ({len(axes)})")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise Refused(f"mode {mode!r:.40} has no record")
    fill = 0.0 if value is None or value.size == 0 else scalar(value, "its value")
    pairs = [(0, 0)] * rank(x)
    for i, axis in enumerate(axes):
        pairs[axis] = (pads[i], pads[len(axes) + i])
    if pairs[0] != (0, 0):
        raise Refused(f"it pads the batch ({pads})")
    for axis, (before, after) in enumerate(pairs):
        if min(before, after) < 0:
            size = node.full(x)[axis]
            x = picked(node, x, axis, range(max(-before, 0), size - max(-after, 0)))
    more = [(max(before, 0), max(after, 0)) for before, after in pairs[1:]]
    if mode == "constant":
        return filled(node, x, more, fill)
    for axis, (before, after) in enumerate(more, 1):
        size = x.shape[axis - 1]
        if before + after + size > MOST or (mode == "reflect" and max(before, after) >= size):
            raise Refused(f"it pads {size} elements by {before} and {after} in mode {mode}")
        places = np.pad(np.arange(size), (before, after), mode=mode)  # type: ignore[call-overload]
        x = picked(node, x, axis, [int(i) for i in places])
    return x


def filled(node: Node, x: Value, pairs: list[tuple[int, int]], fill: float) -> Value:
    """Constant padding of any axes of a sample: an axis that is not padded stands for the channels."""
    if not any(map(any, pairs)):
        return x
    free = [axis for axis, pair in enumerate(pairs, 1) if pair == (0, 0)]
    if not free or len(pairs) == 1:
        full = node.full(x)
        wide = reshaped(node, x, (full[0], 1, *full[1:]))
        made = node.add(L.Pad, wide, padding=tuple(pairs), value=fill)
        return reshaped(node, made, (full[0], *made.shape[1:]))
    padding = tuple(pair for axis, pair in enumerate(pairs, 1) if axis != free[0])
    return along(free[0], node.add, x, lambda y: node.add(L.Pad, y, padding=padding, value=fill))


def center_crop_pad(node: Node) -> Value:
    """To given sizes, about the centre: what is missing is padded with 0, an odd element after."""
    x, sizes, axes = node.value(), node.setting("shape", 1, 1), node.integer_list("axes")
    axes = tuple(range(rank(x))) if axes is None else tuple(counted(a, rank(x)) for a in axes)
    if sizes is None or len(sizes) != len(set(axes)) or len(sizes) != len(axes) or min(sizes) < 1:
        raise Refused(f"its shape is {sizes} for axes {axes}")
    pairs = [(0, 0)] * rank(x)
    for axis, wanted in zip(axes, sizes, strict=True):
        size = node.full(x)[axis]
        if wanted < size:
            start = (size - wanted) // 2
            x = picked(node, x, axis, range(start, start + wanted))
        elif wanted > size:
            node.axis(axis, rank(x))
            pairs[axis] = ((wanted - size) // 2, wanted - size - (wanted - size) // 2)
    return filled(node, x, pairs[1:], 0.0)


# ------------------------------------------------------------------------------------------------------- resampling


@dataclass(frozen=True)
class Sampling:
    """How Resize interpolates along every axis.

    Attributes
    ----------
    where : coordinate_transformation_mode
    nearest : nearest_mode
    antialias : the window of linear and cubic widens where the axis shrinks
    outside : whether weights of elements outside are left out, and the others scaled to a sum of 1
    cubic : the parameter a of the cubic kernel
    """

    mode: str
    where: str
    nearest: str
    antialias: bool = False
    outside: bool = False
    cubic: float = -0.75

    def matrix(self, size: int, made: int, scale: float, span: tuple[float, float]) -> Array:
        """(made, size): every output element as a sum of input elements; those beyond the border are the ones at the
        border.

        Parameters
        ----------
        scale : made / size, or what the file says instead
        span : of the axis, that tf_crop_and_resize takes, in parts of its length
        """
        if made == size and scale == 1 and self.where != "tf_crop_and_resize":
            return np.eye(size)
        result = np.zeros((made, size))
        for o in range(made):
            at = self._coordinate(o, size, made, scale, span)
            if self.where == "tf_crop_and_resize" and not 0 <= at <= size - 1:
                continue  # extrapolation_value, which is 0
            weights = self._weights(1.0 if at == math.floor(at) else at - math.floor(at), scale)
            places = math.ceil(at) - len(weights) // 2 + np.arange(len(weights))
            if self.outside:
                weights = np.where((places >= 0) & (places < size), weights, 0)
                weights = weights / weights.sum()
            np.add.at(result[o], places.clip(0, size - 1), weights)
        return result

    def _coordinate(self, o: int, size: int, made: int, scale: float, span: tuple[float, float]) -> float:
        """Where output element o lies on the input axis. Quotients of integers are exact where the result is."""
        whole = abs(scale * size - made) <= 1e-6 * made

        def shrunk(twice: int) -> float:  # twice / 2 / scale
            return twice * size / (2 * made) if whole else twice / 2 / scale

        if self.where == "align_corners":
            if not whole:
                raise Refused(
                    f"align_corners from {size} to {scale * size:.6g} elements has no one meaning; give sizes, or "
                    "whole scales"
                )
            return o * (size - 1) / (made - 1) if made > 1 else 0.0
        if self.where == "tf_crop_and_resize":
            if not whole:
                raise Refused(
                    f"tf_crop_and_resize from {size} to {scale * size:.6g} elements has no one meaning; give sizes"
                )
            low, high = span
            at = (
                (low * (made - 1) + o * (high - low)) * (size - 1) / (made - 1)
                if made > 1
                else (low + high) / 2 * (size - 1)
            )
            edges = [0.0, size - 1.0]
            if self.mode == "nearest":
                edges.append(round(at) if self.nearest in ("floor", "ceil") else math.floor(at) + 0.5)
            exact = all((1024 * end).is_integer() for end in span)  # what has few digits is so in float32, too
            if any(abs(at - e) < NEAR * max(1.0, abs(at)) and not (exact and at == e) for e in edges):
                raise Refused("its roi makes what is nearest, or outside, depend on rounding; move it a little")
            return at
        if self.where == "asymmetric":
            return self._decided(shrunk(2 * o), whole)
        if self.where == "pytorch_half_pixel" and made == 1 and size > 1:
            if self.mode == "cubic" or self.antialias:
                # 0 in the specification, −½ in its reference
                raise Refused("pytorch_half_pixel to one element has no one meaning")
            return 0.0
        shift = size / 2 * (1 - made / (scale * size)) if self.where == "half_pixel_symmetric" and not whole else 0.0
        return self._decided(shift + shrunk(2 * o + 1) - 0.5, whole)

    def _decided(self, at: float, whole: bool) -> float:
        """Refuse what nearest modes may decide either way for float32's rounding of a scale."""
        edge = round(2 * at) / 2
        sure = at == edge if not whole else self.where != "half_pixel_symmetric"  # whose shift is rounded in any case
        if self.mode == "nearest" and not sure and abs(at - edge) < NEAR * max(1.0, abs(at)):
            raise Refused("its scales make nearest neighbours depend on rounding; give sizes instead of scales")
        return at

    def _weights(self, ratio: float, scale: float) -> Array:
        """Of the elements around a place that lies by `ratio` behind the one before it."""
        if self.mode == "nearest":
            after = {
                "round_prefer_floor": ratio > 0.5, "round_prefer_ceil": ratio >= 0.5, "floor": ratio == 1.0,
                "ceil": True,
            }[self.nearest]  # fmt: skip
            return np.array([not after, after], np.float64)
        shrink = min(scale, 1.0) if self.antialias else 1.0
        reach = 1 if self.mode == "linear" else 2
        start = math.floor(-reach / shrink) + 1
        distance = np.abs((np.arange(start, 2 - start) - ratio) * shrink)
        if self.mode == "linear":
            weights = (1 - distance).clip(0, 1)
        else:
            a, d = self.cubic, distance
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            weights = np.where(d <= 1, near, np.where(d < 2, a * (((d - 5) * d + 8) * d - 4), 0))
        return np.asarray(weights / weights.sum())


def resize(node: Node) -> Value:
    if node.opset < 11:
        return _upsampled(node, node.optional(1, "its scales"))
    if (node.opset >= 18 and node.integer("antialias", 0)) and node.text("mode", "nearest") == "nearest":
        raise Refused("antialias has no meaning for mode 'nearest'")
    sampling = Sampling(
        mode=node.text("mode", "nearest"),
        where=node.text("coordinate_transformation_mode", "half_pixel"),
        nearest=node.text("nearest_mode", "round_prefer_floor"),
        antialias=bool(node.integer("antialias", 0)),
        outside=bool(node.integer("exclude_outside", 0)),
        cubic=node.number("cubic_coeff_a", -0.75),
    )
    if sampling.outside and sampling.mode != "cubic":
        raise Refused("exclude_outside has a meaning for mode 'cubic' alone")
    return _resized(node, node.value(), sampling, *_goal(node))


def upsample(node: Node) -> Value:
    """Opset 7 to 9; what became Resize."""
    scales = node.optional(1, "its scales") if node.opset >= 9 else np.asarray(node.numbers("scales"), np.float32)
    return _upsampled(node, scales)


def _upsampled(node: Node, scales: Array | None) -> Value:
    """Upsample, and Resize of opset 10: places are counted from the first element."""
    x, mode = node.value(), node.text("mode", "nearest")
    if scales is None or scales.size != rank(x) or not (np.isfinite(scales).all() and (scales > 0).all()):
        raise Refused(f"its scales are {scales!s:.80}, expected a positive number per axis ({rank(x)})")
    if mode == "nearest" and (scales < 1).any():
        raise Refused(f"in opset {node.opset}, the nearest neighbour is not defined where an axis shrinks")
    factors = [float(s) for s in scales.ravel()]
    sizes = [int(np.floor(np.float32(f) * np.float32(s))) for f, s in zip(factors[1:], x.shape, strict=True)]
    if factors[0] != 1:
        raise Refused("it scales the batch axis")
    return _resized(
        node, x, Sampling(mode=mode, where="asymmetric", nearest="floor"), sizes, factors[1:], [(0.0, 1.0)] * len(sizes)
    )


def _goal(node: Node) -> tuple[list[int], list[float], list[tuple[float, float]]]:
    """Of every axis of a sample: its new size, its scale, and the span that is taken."""
    x = node.value()
    n = rank(x)
    given = node.integer_list("axes")
    axes = list(range(n)) if given is None else [counted(a, n) for a in given]
    scales, sizes, roi = node.optional(2, "its scales"), node.setting("sizes", 3, 11), node.optional(1, "its roi")
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if len(set(axes)) < len(axes):
        raise Refused(f"attribute axes is {given}")
    made, factors, spans = list(x.shape), [1.0] * (n - 1), [(0.0, 1.0)] * (n - 1)
    if scales is not None and scales.size:
        ratios = [float(s) for s in scales.ravel()]
        if not all(0 < r < MOST for r in ratios):
            raise Refused(f"its scales are {ratios}, expected positive numbers below {MOST}")
        wanted = [
            int(np.floor(np.float32(r) * np.float32(s)))
            for r, s in zip(ratios, (node.full(x)[a] for a in axes), strict=False)
        ]
    elif sizes:
        wanted, node.layers.fixed = list(sizes), f"a resize to {tuple(sizes)}"
        ratios = [s / node.full(x)[a] for s, a in zip(sizes, axes, strict=False)]
        if policy != "stretch" and len(wanted) == len(axes):
            ratio = {"not_larger": min, "not_smaller": max}.get(policy, _unknown)(ratios)
            ratios = [ratio] * len(axes)
            wanted = [math.floor(ratio * node.full(x)[a] + 0.5) for a in axes]
    else:
        raise Refused("it has neither scales nor sizes")
    if (
        not len(ratios) == len(wanted) == len(axes)
        or not all(math.isfinite(r) and r > 0 for r in ratios)
        or min(wanted) < 1
    ):
        raise Refused(f"it scales {len(axes)} axes by {ratios!s:.80}")
    crops = node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    outside = node.number("extrapolation_value", 0.0)
    if crops and (roi is None or roi.size != 2 * len(axes) or outside):
        raise Refused(
            "tf_crop_and_resize needs a roi with a start and an end per axis, and an extrapolation_value of 0"
        )
    for i, axis in enumerate(axes):
        crop = (float(roi.ravel()[i]), float(roi.ravel()[len(axes) + i])) if crops and roi is not None else (0.0, 1.0)
        if axis == 0:
            if ratios[i] != 1 or crop != (0.0, 1.0):
                raise Refused("it scales the batch axis")
        else:
            made[axis - 1], factors[axis - 1], spans[axis - 1] = wanted[i], ratios[i], crop
    return made, factors, spans


def _unknown(ratios: list[float]) -> float:
    raise Refused("attribute keep_aspect_ratio_policy is not known")


def _resized(
    node: Node, x: Value, sampling: Sampling, made: list[int], factors: list[float], spans: list[tuple[float, float]]
) -> Value:
    """By one matrix per axis: repetitions of every element are an Upsample, other choices of neighbours a Gather."""
    if (
        sampling.mode not in ("nearest", "linear", "cubic")
        or sampling.where not in COORDINATES
        or sampling.nearest not in NEAREST
    ):
        raise Refused(f"mode {sampling.mode!r:.40}, {sampling.where!r:.40}, {sampling.nearest!r:.40} is not known")
    if any(size > LONGEST for size in made):
        raise Refused(f"it makes {made} elements along the axes, at most {LONGEST} are supported")
    require(16 * max(a * b for a, b in zip(made, x.shape, strict=True)), f"Resize {node.name!r:.80}: its matrices")
    matrices = [sampling.matrix(s, m, f, span) for s, m, f, span in zip(x.shape, made, factors, spans, strict=True)]
    moving = [a for a, m in enumerate(matrices, 1) if m.shape[0] != m.shape[1] or not np.array_equal(m, np.eye(len(m)))]
    if not moving:
        return x
    times = [m.shape[0] // m.shape[1] for m in matrices]
    free = [a for a in range(1, rank(x)) if a not in moving]
    spatial = 2 <= len(x.shape) <= 4 and bool(free)
    if spatial and all(
        m.shape[0] == t * m.shape[1] and np.array_equal(m, np.repeat(np.eye(m.shape[1]), t, axis=0))
        for m, t in zip(matrices, times, strict=True)
    ):
        factor = tuple(t for a, t in enumerate(times, 1) if a != free[0])
        return along(free[0], node.add, x, lambda y: node.add(L.Upsample, y, factor=factor))
    if sampling.mode == "nearest" and all((m.sum(1) == 1).all() for m in matrices):
        for axis in moving:
            x = picked(node, x, axis, [int(i) for i in matrices[axis - 1].argmax(1)])
        return x
    full = node.full(x)
    if not spatial:  # an axis for the channels
        x = reshaped(node, x, (full[0], 1, *full[1:]))
        return reshaped(node, _resample(node, x, [None, *matrices], 1), (full[0], *made))
    return _resample(node, x, [m if a in moving else None for a, m in enumerate(matrices, 1)], free[0])


def _resample(node: Node, x: Value, matrices: list[Array | None], channels: int) -> Value:
    weights = tuple(None if m is None else m.astype(np.float32) for a, m in enumerate(matrices, 1) if a != channels)
    return along(channels, node.add, x, lambda y: node.add(L.Resample, y, weights=weights))


COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

OPERATORS: dict[str, Reader] = {
    "Pad": pad,
    "CenterCropPad": center_crop_pad,
    "Resize": resize,
    "Upsample": upsample,
}
