"""What importers make of arithmetic with constants and broadcasting: affine maps, sums, extremes, choices by a mask.

Every function takes `add`, which adds a record: (class, *sources, **fields).  Shapes are those of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..plan.shapes import MAX_AXES, Shape
from .records import Add, Refused, Value
from .refused import FILLS
from .rewrites import varying

Array = NDArray[Any]

LARGEST = float(np.finfo(np.float32).max)

FLOAT_MAX = float(f"{np.finfo(np.float32).max:.7g}")
"""How frameworks write "no bound", to seven digits."""

FAR = 256.0
"""A larger bound, added and taken away again, would cost x more than two of its seven digits."""


def one_sided(add: Add, x: Value, bound: Any, sign: float) -> Value:
    """max(x, low) = relu(x − low) + low, with the sign −1 min(x, high) = high − relu(high − x): piecewise linear, as a
    ReLU is; numbers that float32 does not reach do not bound.
    """
    bound = np.asarray(bound, np.float64)
    free = sign * bound <= -FLOAT_MAX
    if free.all():
        return x
    bound = np.where(free, 0.0, bound)
    y = scaled(add, add(L.ReLU, scaled(add, x, sign, -sign * bound)), sign, bound)
    return total(add, scaled(add, y, ~free), scaled(add, x, free)) if free.any() else y


def bounded(add: Add, x: Value, low: float | None, high: float | None) -> Value:
    """min(max(x, low), high); None and numbers that float32 does not reach do not bound."""
    low = None if low is None or low <= -FLOAT_MAX else low
    high = None if high is None or high >= FLOAT_MAX else high
    if low is None and high is None:
        return x
    if low == 0 and high is None:
        return add(L.ReLU, x)
    if low is None and high is not None and high <= FAR:
        return at_most(add, x, high)
    if high is None and low is not None and low >= -FAR:
        return at_least(add, x, low)
    alpha, beta = -math.inf if low is None else low, math.inf if high is None else high
    return add(L.Activation, x, kind="clip", alpha=alpha, beta=beta)


def of_sample(constant: Array, rank: int, n_batch: int) -> Array:
    """A constant that meets tensors of 1 + rank axes, as one sample meets it: without the batch axis, along which it
    must not vary.
    """
    if constant.ndim > rank + 1:
        raise Refused(
            f"a constant of shape {constant.shape} has more axes than what it meets, so that the batch axis would not "
            "stay first"
        )
    if constant.ndim <= rank:
        return constant
    if constant.shape[0] not in (1, n_batch) or (constant != constant[:1]).any():
        raise Refused(
            f"a constant of shape {constant.shape} differs from sample to sample; it must be the same for all"
        )
    sample: Array = constant[0]
    return sample


def vector(x: Value) -> Value:
    """One number per sample is a vector of one element."""
    return x if x.shape else x.under((1,))


def reshaped(add: Add, x: Value, shape: Shape) -> Value:
    shape = shape or (1,)
    if x.shape == shape:
        return x
    return add(L.Flatten, x) if len(shape) == 1 else add(L.Reshape, x, shape=shape)


def permuted(add: Add, x: Value, axes: Sequence[int]) -> Value:
    """The axes of a sample in another order; more of them than records have where those that stay side by side are one
    axis to them.
    """
    if list(axes) == list(range(len(axes))):
        return x
    if len(axes) <= MAX_AXES:
        return add(L.Permute, x, order=(0, *(a + 1 for a in axes)))
    groups: list[list[int]] = []
    for a in axes:
        if x.shape[a] == 1:
            continue
        if groups and groups[-1][-1] == a - 1:
            groups[-1].append(a)
        else:
            groups.append([a])
    if len(groups) > MAX_AXES:  # one axis after the other comes to its place
        place = next(i for i, a in enumerate(axes) if a != i)
        order = [*range(place), axes[place], *(i for i in range(place, len(axes)) if i != axes[place])]
        return permuted(add, permuted(add, x, order), [order.index(a) for a in axes])
    sizes = {g[0]: math.prod(x.shape[a] for a in g) for g in groups}
    firsts = sorted(sizes)
    y = add(L.Permute, x.under(tuple(sizes[f] for f in firsts)), order=(0, *(firsts.index(g[0]) + 1 for g in groups)))
    return y.under(tuple(x.shape[a] for a in axes))


def expanded(add: Add, x: Value, shape: Shape) -> Value:
    """Repeated along axes of size 1."""
    return x if x.shape == shape else add(L.Expand, x, shape=shape)


def scaled(add: Add, x: Value, scale: Any, shift: Any = 0.0, shape: Shape | None = None) -> Value:
    """x·scale + shift with constants of any shape that broadcasts to one sample; nothing where that is x.

    Parameters
    ----------
    shape : of the result, where it may be larger than what x and the constants broadcast to
    """
    x = vector(x)
    rank = len(x.shape)
    arrays = [np.asarray(a, np.float64) for a in (scale, shift)]
    hides = np.isneginf(arrays[1])
    if x.kept is not None or hides.any():
        if not (arrays[0] > 0).all():
            raise Refused(FILLS)
        y = scaled(add, replace(x, kept=None), scale, np.where(hides, 0.0, arrays[1]), shape)
        return hidden(hidden(y, x.kept), ~hides)
    arrays[1] = np.where(np.isinf(arrays[1]), arrays[1], np.clip(arrays[1], -LARGEST, LARGEST))
    arrays = [a.reshape((1,) * (rank - a.ndim) + a.shape) for a in arrays]
    try:
        x = expanded(add, x, shape or tuple(np.broadcast_shapes(x.shape, *(a.shape for a in arrays))))
    except ValueError:
        raise Refused(
            f"a constant of shape {max(arrays, key=np.size).shape} does not fit (n, {', '.join(map(str, x.shape))})"
        ) from None
    factor, offset = np.broadcast_arrays(*(varying(a) for a in arrays))
    if (factor == 1).all() and not offset.any():
        return x
    if (factor == 1).all() and sum(size > 1 for size in offset.shape) > 1:  # a table, such as one of positions
        return add(L.Add, x, add(L.Constant, value=np.broadcast_to(offset, x.shape)))
    if rank and math.prod(factor.shape[1:]) == 1:  # one number per channel
        factor, offset = (np.broadcast_to(a.reshape(-1), x.shape[:1]) for a in (factor, offset))
    return add(L.Scale, x, scale=factor, shift=offset if offset.any() else None)


def hidden(x: Value, keep: Any) -> Value:
    """x, of which a softmax keeps these elements only."""
    if keep is None or keep.all():
        return x
    try:
        fits = np.broadcast_shapes(keep.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise Refused(f"a mask of shape {keep.shape} does not fit (n, {', '.join(map(str, x.shape))})")
    return replace(x, kept=keep if x.kept is None else x.kept & keep)


def left_out(x: Value, mask: Value) -> Value:
    """x, of which a softmax leaves out what a mask of the sample says by 0."""
    if x.given is not None:
        raise Refused("two masks of the sample hide the same scores; multiply them before")
    if len(mask.shape) > len(x.shape) and mask.shape[: len(mask.shape) - len(x.shape)] != (1,):
        raise Refused(f"a mask of shape {mask.shape} does not fit (n, {', '.join(map(str, x.shape))})")
    return replace(x, given=replace(mask, truth=False, hides=False))


def difference(add: Add, a: Value, b: Value, factor: float = 1.0) -> Value:
    """a − factor·b."""
    return total(add, a, scaled(add, b, -factor))


def total(add: Add, a: Value, b: Value) -> Value:
    """a + b; what a softmax leaves out of one, it leaves out of the sum."""
    aligned(a, b)
    y = add(L.Add, *(replace(v, kept=None, given=None) for v in (a, b)))
    for v in (a, b):
        y = hidden(y, v.kept)
        y = y if v.given is None else left_out(y, v.given)
    return y


def aligned(a: Value, b: Value) -> None:
    """Shapes of different lengths meet from the right, where the batch axis of one would meet another axis of the
    other.
    """
    if len(a.shape) != len(b.shape):
        shapes = " and ".join(f"(n, {', '.join(map(str, v.shape))})" if v.shape else "(n,)" for v in (a, b))
        raise Refused(f"{shapes} do not meet sample by sample; give both the same number of axes")


def larger(add: Add, values: Sequence[Value]) -> Value:
    """The largest, element by element; all of one shape."""
    if len({v.shape for v in values}) > 1:
        for v in values[1:]:
            aligned(values[0], v)
        shape = np.broadcast_shapes(*(v.shape for v in values))
        values = [expanded(add, v, tuple(shape)) for v in values]
    stacked = add(L.Concat, *(reshaped(add, v, (1, *v.shape)) for v in values), axis=1)
    return add(L.Reduce, stacked, kind="max", axes=(1,))


def smaller(add: Add, values: Sequence[Value]) -> Value:
    return scaled(add, larger(add, [scaled(add, v, -1.0) for v in values]), -1.0)


def at_least(add: Add, x: Value, low: Any) -> Value:
    return one_sided(add, x, low, 1.0)


def at_most(add: Add, x: Value, high: Any) -> Value:
    return one_sided(add, x, high, -1.0)


def absolute(add: Add, x: Value) -> Value:
    """|x| = relu(x) + relu(−x)."""
    return add(L.Add, add(L.ReLU, x), add(L.ReLU, scaled(add, x, -1.0)))


def chosen(add: Add, mask: Array, a: Value | Array, b: Value | Array, n_batch: int) -> Value:
    """By a constant mask a or b, of which one at least is computed."""
    rank = max(len(v.shape) for v in (a, b) if isinstance(v, Value))
    where = of_sample(np.asarray(mask) != 0, rank, n_batch)
    if isinstance(a, Value) and isinstance(b, Value):
        aligned(a, b)
    for operand, other, keep in ((a, b, where), (b, a, ~where)):
        if isinstance(operand, Value) and not isinstance(other, Value):
            fill = np.where(keep, 0.0, of_sample(np.asarray(other, np.float64), rank, n_batch))
            if np.isneginf(fill[np.broadcast_to(~keep, fill.shape)]).all():
                return scaled(add, vector(operand), 1.0, fill)
    parts, shift = [], np.zeros(())
    for operand, taken in ((a, where), (b, ~where)):
        if isinstance(operand, Value):
            parts.append((vector(operand), taken.astype(np.float64)))
        else:
            shift = shift + np.where(taken, of_sample(np.asarray(operand, np.float64), rank, n_batch), 0.0)
    if not np.isfinite(shift).all():
        raise Refused(FILLS)
    if len(parts) > 1:
        return total(add, *(scaled(add, x, factor) for x, factor in parts))
    ((x, factor),) = parts
    return scaled(add, x, factor, shift)
