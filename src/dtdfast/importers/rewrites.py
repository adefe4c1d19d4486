"""What models write in several operations and a layer list holds in one: done while the list grows, and once it is
complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..budget import require
from ..layers import (
    INPUT,
    Activation,
    Add,
    Constant,
    Conv,
    ConvTranspose,
    Expand,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Linear,
    MatMul,
    Permute,
    Reshape,
    RMSNorm,
    Scale,
)  # fmt: skip
from ..plan.shapes import Shape
from ..plan.wiring import sources


def hard_sigmoid(records: list[Layer], position: int, scale: Any) -> int | None:
    """The position of y where a product with `scale` makes clip(y + 3, 0, 6)/6 of this entry: a gate, which a clip is
    not.
    """
    clip = record_at(records, position, Activation)
    if clip is None or (clip.kind, clip.alpha, clip.beta) != ("clip", 0.0, 6.0) or not np.allclose(scale, 1 / 6, 1e-6):
        return None
    shift = record_at(records, source_of(records, position), Scale)
    if shift is None or shift.shift is None or not (np.all(shift.scale == 1) and np.all(shift.shift == 3)):
        return None
    return source_of(records, source_of(records, position))


def permuted(
    records: list[Layer], position: int, shape: Shape, order: tuple[int, ...]
) -> tuple[int, Shape, tuple[int, ...]] | None:
    """(position of y, shape of a sample of y, order from there) where this entry, of this shape, is itself a Permute of
    y.
    """
    before = record_at(records, position, Permute)
    if before is None:
        return None
    sizes = {int(axis): size for axis, size in zip(before.order[1:], shape, strict=True)}
    return (
        source_of(records, position),
        tuple(sizes[axis] for axis in sorted(sizes)),
        tuple(int(before.order[a]) for a in order),
    )


def turned_round(records: list[Layer], position: int) -> tuple[int, ...] | None:
    """The order of a Permute that exchanges the last two axes of this entry, where it is a Permute that only a
    transposed product needs: one that brings the later of two axes forward.
    """
    record = record_at(records, position, Permute)
    if record is None or record.order[-1] > record.order[-2]:
        return None
    n = len(record.order)
    return (*range(n - 2), n - 1, n - 2)


def with_affine(
    records: list[Layer], position: int, shape: Shape, fields: dict[str, Any]
) -> tuple[int, type[Layer], dict[str, Any]] | None:
    """(position of y, kind of record, its fields) where a Scale of this entry is a norm of y with weight and bias."""
    record: Any = records[position] if position != INPUT else None
    scale, shift = (np.asarray(0.0 if v is None else v) for v in (fields["scale"], fields.get("shift")))
    if isinstance(record, (GroupNorm, InstanceNorm)):
        axes: tuple[int, ...] = (0,)
    elif isinstance(record, (LayerNorm, RMSNorm)):
        axes = tuple(int(a) % (len(shape) + 1) - 1 for a in np.atleast_1d(record.axes))
    else:
        return None
    if isinstance(record, RMSNorm) and shift.any():
        return None
    sizes = tuple(shape[a] for a in axes)
    arrays = []
    for array in (scale, shift):
        full = varying(array.reshape(-1, *(1,) * (len(shape) - 1)) if array.ndim == 1 else array)
        full = full.reshape((1,) * (len(shape) - full.ndim) + full.shape)
        if any(size > 1 and a not in axes for a, size in enumerate(full.shape)):
            return None
        others = tuple(a for a in range(len(shape)) if a not in axes)
        arrays.append(np.broadcast_to(_ordered(full.squeeze(others), axes), sizes))
    bias = getattr(record, "bias", None)
    weight = arrays[0] if record.weight is None else record.weight * arrays[0]
    offset = arrays[1] if bias is None else bias * arrays[0] + arrays[1]
    kept = {key: getattr(record, key) for key in ("axes", "groups", "eps") if hasattr(record, key)}
    if not isinstance(record, RMSNorm) and offset.any():
        kept["bias"] = np.array(offset)
    return source_of(records, position), type(record), kept | {"weight": np.array(weight)}


def _ordered(array: Any, axes: tuple[int, ...]) -> Any:
    """Axes that stand in ascending order, in the order of a record's."""
    ranks = sorted(axes)
    return array.transpose([ranks.index(a) for a in axes])


def varying(array: Any) -> Any:
    """With size 1 along the axes on which nothing changes."""
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis)
        if size > 1 and (array == first).all():
            array = first
    return array


def scaled_product(records: list[Layer], position: int, fields: dict[str, Any]) -> Layer | None:
    """A product of two computed operands that takes in the number which a Scale multiplies it with."""
    product: MatMul | None = record_at(records, position, MatMul)
    scale = np.asarray(fields["scale"])
    if product is None or fields.get("shift") is not None or not scale.flat[0] or (scale != scale.flat[0]).any():
        return None
    return replace(product, scale=product.scale * float(scale.flat[0]), inputs=tuple(sources(records)[position]))


def uniform(records: list[Layer], position: int) -> float:
    """The number that this entry multiplies all elements with, and does nothing else; 0 where it is no such entry."""
    scale = record_at(records, position, Scale)
    if scale is None or scale.shift is not None or (scale.scale != scale.scale.flat[0]).any():
        return 0.0
    return float(scale.scale.flat[0])


def group_norm(
    records: list[Layer], shape_of: Callable[[int], Shape | None], position: int, shape: Shape
) -> tuple[int, dict[str, Any]] | None:
    """(position of y, fields of a GroupNorm of y) where this entry is an InstanceNorm of y with its channels in groups,
    and is brought back to y's shape.
    """
    norm = record_at(records, position, InstanceNorm)
    before = None if norm is None else record_at(records, source_of(records, position), Reshape)
    if norm is None or before is None:
        return None
    source, inner = source_of(records, source_of(records, position)), shape_of(position)
    if inner is None or shape_of(source) != shape or shape[0] % inner[0]:
        return None
    require(8 * shape[0], f"GroupNorm: its factors for {shape[0]} channels")
    each = {key: getattr(norm, key) for key in ("weight", "bias") if getattr(norm, key) is not None}
    affine = {key: np.repeat(array, shape[0] // inner[0]) for key, array in each.items()}
    return source, {"groups": inner[0], "eps": norm.eps, **affine}


LOWEST = -1e30
"""Scores below it get the weight 0 in a row that has others, as −∞ does."""


def selected(
    records: list[Layer], position: int, shape: Shape, fields: dict[str, Any]
) -> tuple[int, dict[str, Any]] | None:
    """(position of the scores, fields of their Softmax) where this entry puts low numbers in the place of some, or adds
    them: a mask.
    """
    record: Any = records[position] if position != INPUT else None
    if isinstance(record, Scale) and record.shift is not None and record.scale.ndim == len(shape):
        source, shift, plain = source_of(records, position), record.shift, record.scale
    elif isinstance(record, Add) and record.positions is not None and len(record.positions) == 2:
        tables = [p for p in record.positions if record_at(records, p, Constant) is not None]
        if len(tables) != 1:
            return None
        (source,) = (p for p in record.positions if p != tables[0])
        shift, plain = record_at(records, tables[0], Constant).value, np.ones(())
    else:
        return None
    if fields.get("log") or source == INPUT:
        return None
    low = (shift < LOWEST).reshape((1,) * (len(shape) - shift.ndim) + shift.shape)
    rest, factor = np.where(shift < LOWEST, 0.0, shift), np.where(low, 1.0, plain)
    if not low.any() or rest.any() or (factor != 1).any() or low.all(axis=fields["axis"] % (len(shape) + 1) - 1).any():
        return None
    return source, fields | {"mask": varying(~low)}


def shared(
    records: list[Layer], shape_of: Callable[[int], Shape | None], position: int, rank: int
) -> tuple[int, NDArray[np.bool_] | None]:
    """(position of the mask that samples have of their own, the mask that is the same for all) of an entry that is
    both, without the repeats that broadcasting makes.
    """
    fixed: NDArray[np.bool_] | None = None
    while len(shape_of(position) or ()) == rank:
        scale = record_at(records, position, Scale)
        if scale is not None:
            if scale.shift is not None or scale.scale.ndim != rank or ((scale.scale != 0) & (scale.scale != 1)).any():
                break
            fixed = scale.scale != 0 if fixed is None else fixed & (scale.scale != 0)
        elif record_at(records, position, Expand) is None:
            break
        position = source_of(records, position)
    return position, fixed


def record_at(records: list[Layer], position: int, kind: type[Any]) -> Any:
    record = records[position] if position != INPUT else None
    return record if isinstance(record, kind) else None


def source_of(records: list[Layer], position: int) -> int:
    """What an entry with one operand reads; entry 0 reads INPUT, which is −1."""
    reads = records[position].positions
    return position - 1 if reads is None else reads[0]


def positions(cls: type[Layer], reads: tuple[int, ...], last: int) -> tuple[int, ...] | None:
    """Field `inputs` of a record: None where it reads nothing, or the entry before and nothing else."""
    return None if not reads or (reads == (last,) and cls.arity == 1) else reads


def as_bias(record: Layer, shift: Any) -> Any | None:
    """A shift that is one number per output of this linear layer, as its bias; None where it is another, or the layer
    has one.
    """
    if not isinstance(record, (Linear, Conv, ConvTranspose)) or record.bias is not None:
        return None
    axis = record.axis if isinstance(record, Linear) else 1
    n_out = record.weight.shape[1] * record.groups if isinstance(record, ConvTranspose) else len(record.weight)
    if shift.ndim == 1:  # along axis 1, whatever follows
        return (
            shift if axis in (1, -1) and len(shift) == n_out and (axis == 1 or not isinstance(record, Linear)) else None
        )
    column = [1] * shift.ndim
    column[axis - 1 if axis > 0 else axis] = n_out
    return shift.reshape(-1) if list(shift.shape) == column else None


def finished(records: list[Layer]) -> tuple[list[Layer], list[int]]:
    """The entries that the last one is computed from, wired anew; biases that were added afterwards inside their
    layers.

    Returns
    -------
    records : list of Layer
    origins : of each, the position that its output had before
    """
    wired = [list(s) for s in sources(records)]
    kept = {len(records) - 1}
    for position in range(len(records) - 1, -1, -1):
        if position in kept:
            kept.update(s for s in wired[position] if s != INPUT)
    readers: dict[int, list[int]] = {position: [] for position in (INPUT, *kept)}
    for position in sorted(kept):
        for s in wired[position]:
            readers[s].append(position)
    merged: dict[int, Layer] = {}  # the position of a shift → the layer that it is the bias of
    for position in sorted(kept):
        record = records[position]
        if isinstance(record, Scale) and record.shift is not None and np.all(record.scale == 1):
            before: Any = records[wired[position][0]] if wired[position][0] != INPUT else None
            bias = None if before is None else as_bias(before, record.shift)
            if before is not None and bias is not None and readers[wired[position][0]] == [position]:
                merged[position] = replace(before, bias=bias)
                kept.remove(wired[position][0])
                wired[position] = wired[wired[position][0]]
    origins = sorted(kept)
    places = {INPUT: INPUT, **{old: new for new, old in enumerate(origins)}}
    result = []
    for new, old in enumerate(origins):
        record = merged.get(old, records[old])
        reads = tuple(places[s] for s in wired[old])
        inputs = positions(type(record), reads, new - 1)
        result.append(record if record.inputs == inputs else replace(record, inputs=inputs))  # which copies its weights
    return result, origins
