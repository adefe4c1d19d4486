"""What importers make of linear algebra with constants: broadcasting, products in index notation, moves of elements,
extremes.

Every function takes `add`, which adds a record: (class, *sources, **fields).  Shapes are those of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..plan.shapes import Shape
from .records import Add, Refused, Value

Array = NDArray[Any]


def one_sided(add: Add, x: Value, low: float | None, high: float | None) -> Value:
    """max(x, low) = relu(x − low) + low, or min(x, high) = high − relu(high − x): piecewise linear, as a ReLU is."""
    bound, sign = (low, 1.0) if high is None else (high, -1.0)
    assert bound is not None
    return scaled(add, add(L.ReLU, scaled(add, x, sign, -sign * bound)), sign, bound)


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


def reshaped(add: Add, x: Value, shape: Shape) -> Value:
    if x.shape == shape:
        return x
    return add(L.Flatten, x) if len(shape) == 1 else add(L.Reshape, x, shape=shape)


def permuted(add: Add, x: Value, axes: Sequence[int]) -> Value:
    """The axes of a sample in another order."""
    return x if list(axes) == list(range(len(axes))) else add(L.Permute, x, order=(0, *(a + 1 for a in axes)))


def expanded(add: Add, x: Value, shape: Shape) -> Value:
    """Repeated along axes of size 1."""
    return x if x.shape == shape else add(L.Expand, x, shape=shape)


def varying(array: Array) -> Array:
    """With size 1 along the axes on which nothing changes."""
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis)
        if size > 1 and (array == first).all():
            array = first
    return array


def scaled(add: Add, x: Value, scale: Any, shift: Any = 0.0, shape: Shape | None = None) -> Value:
    """x·scale + shift with constants of any shape that broadcasts to one sample; nothing where that is x.

    Parameters
    ----------
    shape : of the result, where it may be larger than what x and the constants broadcast to
    """
    rank = len(x.shape)
    arrays = [np.asarray(a, np.float64) for a in (scale, shift)]
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
    if rank and math.prod(factor.shape[1:]) == 1:  # one number per channel
        factor, offset = (np.broadcast_to(a.reshape(-1), x.shape[:1]) for a in (factor, offset))
    return add(L.Scale, x, scale=factor, shift=offset if offset.any() else None)


def difference(add: Add, a: Value, b: Value, factor: float = 1.0) -> Value:
    """a − factor·b."""
    return total(add, a, scaled(add, b, -factor))


def total(add: Add, a: Value, b: Value) -> Value:
    _aligned(a, b)
    return add(L.Add, a, b)


def _aligned(a: Value, b: Value) -> None:
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
            _aligned(values[0], v)
        shape = np.broadcast_shapes(*(v.shape for v in values))
        values = [expanded(add, v, tuple(shape)) for v in values]
    stacked = add(L.Concat, *(reshaped(add, v, (1, *v.shape)) for v in values), axis=1)
    return add(L.Reduce, stacked, kind="max", axes=(1,))


def smaller(add: Add, values: Sequence[Value]) -> Value:
    return scaled(add, larger(add, [scaled(add, v, -1.0) for v in values]), -1.0)


def at_least(add: Add, x: Value, low: Any) -> Value:
    """max(x, low) = relu(x − low) + low."""
    return scaled(add, add(L.ReLU, scaled(add, x, 1.0, -np.asarray(low, np.float64))), 1.0, low)


def at_most(add: Add, x: Value, high: Any) -> Value:
    """min(x, high) = high − relu(high − x)."""
    return scaled(add, add(L.ReLU, scaled(add, x, -1.0, high)), -1.0, high)


# ------------------------------------------------------------------------------------------------ products in index
# notation


def contracted(add: Add, x: Value, of_x: str, weight: Array, of_weight: str, result: str) -> Value:
    """Σ x·weight over the letters that `result` lacks, one letter per axis of a sample; none stands twice in one
    operand.
    """
    for letters in (of_x, of_weight, result):
        if len(set(letters)) < len(letters):
            raise Refused("an index that stands twice in one operand has no record")
    sizes = dict(zip(of_x, x.shape, strict=True)) | dict(zip(of_weight, weight.shape, strict=True))
    if gone := tuple(i for i, k in enumerate(of_weight) if k not in of_x + result):
        weight = weight.sum(axis=gone)
    of_weight = "".join(k for k in of_weight if k in of_x + result)
    alone = tuple(i + 1 for i, k in enumerate(of_x) if k not in of_weight + result)
    if alone:
        x, of_x = add(L.Reduce, x, kind="sum", axes=alone), "".join(k for k in of_x if k in of_weight + result)
    summed = "".join(k for k in of_x if k in of_weight and k not in result)
    shared = "".join(k for k in of_x if k in of_weight and k in result)
    kept = "".join(k for k in of_x if k not in of_weight)
    new = "".join(k for k in of_weight if k not in of_x)
    count = {
        name: math.prod(sizes[k] for k in letters)
        for name, letters in dict(summed=summed, shared=shared, new=new).items()
    }

    def arranged(array: Array, letters: str) -> Array:
        return array.transpose([of_weight.index(k) for k in letters])

    if not summed and not new:
        aligned = arranged(weight, shared).reshape([sizes[k] if k in shared else 1 for k in of_x])
        return permuted(add, scaled(add, x, aligned), [of_x.index(k) for k in result])
    if not shared and len(summed) == 1 and len(new) == 1:  # in place
        x = add(L.Linear, x, weight=arranged(weight, new + summed), axis=of_x.index(summed) + 1)
        of_x = of_x.replace(summed, new)
    elif not shared:
        x = permuted(add, x, [of_x.index(k) for k in kept + summed])
        x = reshaped(add, x, (*(sizes[k] for k in kept), count["summed"]))
        x = add(L.Linear, x, weight=arranged(weight, new + summed).reshape(count["new"], count["summed"]), axis=-1)
        of_x = kept + new
        x = reshaped(add, x, tuple(sizes[k] for k in of_x) or (1,))
    else:  # one matrix for each value of the shared letters: a convolution of one element in as many groups
        x = permuted(add, x, [of_x.index(k) for k in shared + summed + kept])
        x = reshaped(add, x, (count["shared"] * count["summed"], math.prod(sizes[k] for k in kept)))
        kernel = arranged(weight, shared + new + summed).reshape(count["shared"] * count["new"], count["summed"], 1)
        x = add(L.Conv, x, weight=kernel, groups=count["shared"])
        of_x = shared + new + kept
        x = reshaped(add, x, tuple(sizes[k] for k in of_x))
    return permuted(add, x, [of_x.index(k) for k in result])


def product(add: Add, x: Value, weight: Array, left: bool = False) -> Value:
    """x @ weight, or with `left` weight @ x, by NumPy's rules; weight as one sample meets it."""
    rank = len(x.shape)
    if rank == 0 or (left and rank == 1):
        raise Refused("it sums over the batch, so that samples would be mixed")
    if weight.ndim == 1:
        axis = rank - 1 if left else rank
        y = add(L.Linear, x, weight=weight[None], axis=axis)
        shape = (*x.shape[: axis - 1], *x.shape[axis:])
        return reshaped(add, y, shape) if shape else y
    letters = "abcdefgh"[: max(rank, weight.ndim) - 2]
    of_x = letters[len(letters) - max(rank - 2, 0) :] + ("ij" if rank > 1 else "j")
    leads = [k for k, s in zip(letters[len(letters) - weight.ndim + 2 :], weight.shape[:-2], strict=True) if s > 1]
    weight = weight.reshape(*(s for s in weight.shape[:-2] if s > 1), *weight.shape[-2:])
    lead = "".join(leads)
    sizes = dict(zip(of_x, x.shape, strict=True))
    if any(sizes.get(k) != s for k, s in zip(lead, weight.shape, strict=False)):
        raise Refused(f"matrices of shape {weight.shape} do not meet (n, {', '.join(map(str, x.shape))}) one by one")
    if left:  # k i, i j → k j
        return contracted(add, x, of_x, weight, lead + "ki", of_x[:-2] + "kj")
    return contracted(add, x, of_x, weight, lead + "jk", of_x[:-1] + "k")


# --------------------------------------------------------------------------------------------------------- moves of
# elements


def moved(add: Add, x: Value, index: NDArray[np.int64]) -> Value:
    """Elements of x in new places: index holds, for every element of a sample of the result, its number in a sample of
    x.
    """
    shape = tuple(index.shape)
    if math.prod(shape) == math.prod(x.shape) and (index.ravel() == np.arange(math.prod(x.shape))).all():
        return reshaped(add, x, shape)
    if len(shape) == len(x.shape):
        axes = [
            np.unravel_index(np.moveaxis(index, a, 0).reshape(shape[a], -1)[:, 0], x.shape)[a]
            for a in range(len(shape))
        ]
        strides = [math.prod(x.shape[a + 1 :]) for a in range(len(shape))]
        separate = sum(
            np.expand_dims(i * s, [b for b in range(len(shape)) if b != a])
            for a, (i, s) in enumerate(zip(axes, strides, strict=True))
        )
        if np.array_equal(np.broadcast_to(separate, shape), index):
            return _along_axes(add, x, axes)
    flat = add(L.Gather, reshaped(add, x, (math.prod(x.shape),)), indices=index.ravel(), axis=1)
    return reshaped(add, flat, shape)


def _along_axes(add: Add, x: Value, axes: Sequence[NDArray[np.int64]]) -> Value:
    """Axis by axis: what repeats an axis of size 1 last."""
    for axis, numbers in enumerate(axes):
        size = x.shape[axis]
        if size == 1 or np.array_equal(numbers, np.arange(size)):
            continue
        step = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
        if step > 0 and (np.diff(numbers) == step).all():
            x = add(L.Slice, x, axis=axis + 1, start=int(numbers[0]), stop=int(numbers[-1]) + 1, step=step)
        else:
            x = add(L.Gather, x, indices=numbers, axis=axis + 1)
    return expanded(add, x, tuple(map(len, axes)))


def resampled(add: Add, x: Value, matrices: Sequence[Array | None]) -> Value:
    """A matrix (out, in) per spatial axis, None where the axis stays."""
    matrices = [
        None if m is None or (m.shape[0] == m.shape[1] and np.array_equal(m, np.eye(len(m)))) else m for m in matrices
    ]
    return x if all(m is None for m in matrices) else add(L.Resample, x, weights=tuple(matrices))
