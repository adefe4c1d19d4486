"""Records that work along any axes, as units that work along the first: axes are moved to the front, merged, and moved
back.

Contracted axes A and the others K of a sample become (ΠA, *K), or (ΠA, ΠK) where K are more than the three spatial axes
of a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..errors import ShapeError
from ..rules import ZBox
from .domain import broadcast_bounds, carry
from .fold import Vector
from .geometry import triple
from .shapes import Shape, axis_of, reduced_axes
from .taps import Taps
from .units import Box, Copy, Fixed, Move, Neuron, Part, Region, Reshaping, Tensor, Unit, whole
from .wiring import Entry

if TYPE_CHECKING:
    from .network import _Builder

Axes = tuple[int, ...]  # of one sample

FEW = 16  # runs of indices that are moved one by one; more become a matrix of 0 and 1
MOST_WEIGHTS = 2**24  # of a matrix that picks, or that resamples a tile
MOST_RUNS = 4096


# -------------------------------------------------------------------------------------------------------------
# bookkeeping


def inner(builder: _Builder, entry: Entry, shape: Shape) -> Tensor:
    """A tensor inside of what an entry does."""
    tensor = Tensor(len(builder.tensors), shape, entry.position)
    builder.tensors.append(tensor)
    return tensor


def reshaped(builder: _Builder, entry: Entry, source: Tensor, shape: Shape) -> Tensor:
    if source.shape == shape:
        return source
    return builder.put(Reshaping((entry.position,), (source,), inner(builder, entry, shape)))


def moved(builder: _Builder, entry: Entry, source: Tensor, region: Region) -> Tensor:
    """One region of a tensor."""
    shape = tuple(count for _, _, count in region.ranges)
    if region.order is not None:
        shape = tuple(shape[a] for a in region.order)
    out = inner(builder, entry, shape)
    return builder.put(Move((entry.position,), (source,), out, pairs=[(whole(shape), 0, region)]))


def ordered(builder: _Builder, entry: Entry, source: Tensor, order: Axes) -> Tensor:
    if order == tuple(range(len(order))):
        return source
    return moved(builder, entry, source, Region(whole(source.shape).ranges, order))


def in_front(axes: Axes, n: int) -> Axes:
    return (*axes, *(a for a in range(n) if a not in axes))


def turned(builder: _Builder, entry: Entry, source: Tensor, axes: Axes) -> Tensor:
    """The tensor as (ΠA, *K), or (ΠA, ΠK)."""
    kept = tuple(s for a, s in enumerate(source.shape) if a not in axes)
    flat = math.prod(source.shape[a] for a in axes)
    source = ordered(builder, entry, source, in_front(axes, len(source.shape)))
    return reshaped(builder, entry, source, (flat, *kept) if len(kept) <= 3 else (flat, math.prod(kept)))


def turned_back(builder: _Builder, entry: Entry, tensor: Tensor, axes: Axes, shape: Shape) -> Tensor:
    """(ΠA, ...) as a sample of this shape again."""
    order = in_front(axes, len(shape))
    tensor = reshaped(builder, entry, tensor, tuple(shape[a] for a in order))
    return ordered(builder, entry, tensor, tuple(order.index(a) for a in range(len(shape))))


def given_box(builder: _Builder, part: Part, rule: ZBox, where: str) -> Box:
    """A rule's own bounds, which are of what the entry reads, as its part reads it: moved within the entry."""
    chain: list[Unit] = []
    source = part.source
    while source.position == part.position and isinstance(
        unit := builder.maker.get(source.index), (Move, Reshaping, Copy)
    ):
        chain.insert(0, unit)
        (source,) = unit.sources
    boxes = {source.index: broadcast_bounds(rule.low, rule.high, source.shape, where)}
    for unit in chain:
        box = carry(boxes, unit)
        assert box is not None
        boxes[unit.out.index] = box
    return boxes[part.source.index]


# ---------------------------------------------------------------------------------------------------- linear,
# reductions


@dataclass(eq=False)
class Turn:
    """A neuron that works along an axis of its own, and the units that turn its output back."""

    axes: Axes
    neuron: Neuron
    back: list[Unit]


def linear(builder: _Builder, entry: Entry, source: Tensor) -> Tensor:
    """A fully connected layer along one axis of several: a 1×1 convolution over the others."""
    assert isinstance(entry.record, L.Linear)
    axis = axis_of(entry.record.axis, source.shape, "Linear")
    read = turned(builder, entry, source, (axis,))
    return turn_back(builder, entry, builder.weighted(entry, read, turned_shape(builder, entry, (axis,))), (axis,))


def turned_shape(builder: _Builder, entry: Entry, axes: Axes) -> Tensor:
    """A tensor inside, of the entry's shape but turned."""
    kept = tuple(s for a, s in enumerate(entry.shape) if a not in axes)
    return inner(
        builder, entry, (math.prod(entry.shape[a] for a in axes), *(kept if len(kept) <= 3 else (math.prod(kept),)))
    )


def turn_back(builder: _Builder, entry: Entry, neuron: Neuron, axes: Axes) -> Tensor:
    tensor = builder.put(neuron)
    n = len(builder.units)
    out = turned_back(builder, entry, tensor, axes, entry.shape)
    if out is not tensor:
        builder.turned[out.index] = Turn(axes, neuron, builder.units[n:])
    return out


def common_turn(
    builder: _Builder, sources: tuple[Tensor, ...], merged: list[Neuron]
) -> tuple[Axes | None, list[Neuron]]:
    """The axes that an Add turns to the front (None: as they are), and which of its operands lie so that they become
    one neuron with it.
    """
    turns = {id(t.neuron): t.axes for s in sources if (t := builder.turned.get(s.index)) is not None}
    if not merged:
        return ((0,) if len(sources[0].shape) > 4 else None), merged
    first = turns.get(id(merged[0]))
    return first, [u for u in merged if turns.get(id(u)) == first]


def windows(source: Tensor, axes: Axes) -> Taps:
    """One window over the whole of some spatial axes, per channel."""
    kernel = triple(tuple(s if a in axes else 1 for a, s in enumerate(source.shape[1:], 1)))
    d, h, w = (1 if k > 1 else s for k, s in zip(kernel, source.space, strict=True))
    channels = source.channels
    return Taps(False, channels, channels, channels, source.space, (d, h, w), kernel, kernel)


def reduce(builder: _Builder, entry: Entry, source: Tensor) -> Tensor:
    """A pool whose window is the whole of the axes; those that are not spatial are moved behind the others first."""
    record = entry.record
    assert isinstance(record, L.Reduce)
    axes = reduced_axes(record, source.shape)
    if 0 in axes or not 2 <= len(source.shape) <= 4:
        kept = tuple(a for a in range(len(source.shape)) if a not in axes)
        sizes = math.prod(source.shape[a] for a in kept), math.prod(source.shape[a] for a in axes)
        source = reshaped(builder, entry, ordered(builder, entry, source, (*kept, *axes)), sizes)
        axes = (1,)
    taps = windows(source, axes)
    out = inner(builder, entry, tuple(1 if a in axes else s for a, s in enumerate(source.shape)))
    if record.kind == "max":
        out = builder.put(builder.winner(entry, source, out, taps))
    else:
        window = np.full(taps.out_size, 1.0 / taps.n_taps) if record.kind == "mean" else None
        builder.rule[entry.position] = builder.rule_for(entry, builder.book.pool())
        builder.put(
            Neuron((entry.position,), (source,), out, parts=[Part(entry.position, source, taps, window=window)])
        )
    return reshaped(builder, entry, out, entry.shape)


# ------------------------------------------------------------------------------------------------- picks and
# repetitions


def runs(indices: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Stretches (first place, first index, step, count) of equally spaced indices, of any step but 0."""
    result: list[tuple[int, int, int, int]] = []
    place = 0
    while place < len(indices):
        end, step = place + 1, 1
        if end < len(indices) and indices[end] != indices[place]:
            step = indices[end] - indices[place]
            while end < len(indices) and indices[end] - indices[end - 1] == step:
                end += 1
        result.append((place, indices[place], step, end - place))
        place = end
    return result


def gather(builder: _Builder, entry: Entry, source: Tensor) -> Tensor:
    """A few runs are moved; many are a product with a matrix of 0 and 1."""
    record = entry.record
    assert isinstance(record, L.Gather)
    axis = axis_of(record.axis, source.shape, "Gather")
    n_in, n_out = source.shape[axis], len(record.indices)
    indices = tuple(i % n_in for i in record.indices)
    stretches = runs(indices)
    if len(stretches) > FEW and n_in * n_out <= MOST_WEIGHTS:
        weight = np.zeros((n_out, n_in), np.float32)
        weight[np.arange(n_out), indices] = 1
        read = turned(builder, entry, source, (axis,))
        out = inner(builder, entry, (n_out, *read.shape[1:]))
        taps = Taps(False, n_in, n_out, 1, read.space, out.space)
        part = Part(entry.position, read, taps, weight.reshape(n_out, n_in, 1, 1, 1), linear=len(read.shape) == 1)
        return turned_back(
            builder,
            entry,
            builder.put(Copy((entry.position,), (read,), out, part=part, picks=indices)),
            (axis,),
            entry.shape,
        )
    if len(stretches) > MOST_RUNS:
        raise ShapeError(
            f"{entry}: its {n_out} indices are {len(stretches)} irregular runs, at most {MOST_RUNS} are supported; "
            "use Reshape and Permute"
        )

    def along(shape: Shape, start: int, step: int, count: int) -> Region:
        ranges = whole(shape).ranges
        return Region((*ranges[:axis], (start, step, count), *ranges[axis + 1 :]))

    pairs = [
        (along(entry.shape, to, 1, count), 0, along(source.shape, of, step, count)) for to, of, step, count in stretches
    ]
    return builder.put(Move((entry.position,), (source,), inner(builder, entry, entry.shape), pairs=pairs))


def expanded(builder: _Builder, entry: Entry, source: Tensor, shape: Shape) -> Tensor:
    """Axes of size 1 repeated; a constant of lower rank is aligned at the right."""
    source = reshaped(builder, entry, source, (1,) * (len(shape) - len(source.shape)) + source.shape)
    axes = tuple(a for a, (s, big) in enumerate(zip(source.shape, shape, strict=True)) if s != big)
    if not axes:
        return source
    if 0 not in axes and 2 <= len(shape) <= 4:
        return repeated(builder, entry, source, shape)
    kept = tuple(a for a in range(len(shape)) if a not in axes)
    source = reshaped(builder, entry, source, (math.prod(source.shape), 1))
    out = repeated(builder, entry, source, (source.shape[0], math.prod(shape[a] for a in axes)))
    order = (*kept, *axes)
    out = reshaped(builder, entry, out, tuple(shape[a] for a in order))
    return ordered(builder, entry, out, tuple(order.index(a) for a in range(len(shape))))


def repeated(builder: _Builder, entry: Entry, source: Tensor, shape: Shape) -> Tensor:
    """Spatial axes of size 1 repeated."""
    out = inner(builder, entry, shape)
    times = triple(tuple(big // s for s, big in zip(source.shape[1:], shape[1:], strict=True)))
    channels = source.channels
    taps = Taps(True, channels, channels, channels, source.space, out.space, times, times)
    return builder.put(Copy((entry.position,), (source,), out, part=Part(entry.position, source, taps)))


def expand(builder: _Builder, entry: Entry, source: Tensor) -> Tensor:
    return expanded(builder, entry, source, entry.shape)


# --------------------------------------------------------------------------------------------------------------
# resampling


def tiles(weights: Sequence[NDArray[Any] | None], counts: Sequence[int]) -> list[list[tuple[int, int, int, int]]]:
    """Per axis, its pieces (first and last output, first and last input that they read), as many as `counts` says."""
    result = []
    for weight, count in zip(weights, counts, strict=True):
        assert weight is not None
        edges = np.linspace(0, len(weight), count + 1).astype(int)
        pieces = []
        for first, last in pairwise(edges):
            read = np.flatnonzero(weight[first:last].any(axis=0))
            low, high = (int(read[0]), int(read[-1]) + 1) if len(read) else (0, 1)
            pieces.append((int(first), int(last), low, high))
        result.append(pieces)
    return result


def size_of(pieces: list[list[tuple[int, int, int, int]]]) -> int:
    """Weights of all tiles: a product of sums over the axes."""
    return math.prod(sum((last - first) * (high - low) for first, last, low, high in axis) for axis in pieces)


MOST_TILES = 1024
FAIR_WEIGHTS = 2**20


def tiled(weights: Sequence[NDArray[Any]]) -> list[list[tuple[int, int, int, int]]]:
    """Tiles small enough that the product of the axes' matrices, tile by tile, is: every output reads its own
    neighbourhood only.
    """
    counts = [1] * len(weights)
    best = tiles(weights, counts)
    while size_of(best) > FAIR_WEIGHTS:
        finer = []
        for a in range(len(counts)):
            more = [min(2 * c, len(w)) if k == a else c for k, (c, w) in enumerate(zip(counts, weights, strict=True))]
            if math.prod(more) <= MOST_TILES and more != counts:
                finer.append((size_of(tiles(weights, more)), more))
        if not finer or min(finer)[0] >= size_of(best):
            break
        counts = min(finer)[1]
        best = tiles(weights, counts)
    return best


def resample(builder: _Builder, entry: Entry, source: Tensor) -> Tensor:
    """One neuron per output: the product of the axes' matrices, contracted over all of them at once."""
    record = entry.record
    assert isinstance(record, L.Resample)
    builder.rule[entry.position] = builder.rule_for(entry, builder.book.pool())
    axes = tuple(a for a, w in enumerate(record.weights, 1) if w is not None)
    weights: list[NDArray[np.float64]] = [np.asarray(w, np.float64) for w in record.weights if w is not None]
    pieces = tiled(weights)
    if size_of(pieces) > 4 * MOST_WEIGHTS:
        raise ShapeError(
            f"{entry}: every output reads too many inputs ({size_of(pieces):,} weights); resample in two steps"
        )
    known: dict[bytes, int] = {}
    parts = []
    for index in np.ndindex(*(len(p) for p in pieces)):
        tile = [p[i] for p, i in zip(pieces, index, strict=True)]
        matrix: NDArray[Any] = np.ones((1, 1))
        ranges, shape = list(whole(source.shape).ranges), list(source.shape)
        for a, weight, (first, last, low, high) in zip(axes, weights, tile, strict=True):
            matrix = np.kron(matrix, weight[first:last, low:high])
            ranges[a], shape[a] = (low, 1, high - low), last - first
        read = (
            source
            if tuple(ranges) == whole(source.shape).ranges
            else moved(builder, entry, source, Region(tuple(ranges)))
        )
        read = turned(builder, entry, read, axes)
        number = known.setdefault(matrix.tobytes() + repr(matrix.shape).encode(), len(known))
        out = inner(builder, entry, (len(matrix), *read.shape[1:]))
        taps = Taps(False, read.channels, out.channels, 1, read.space, out.space)
        part = Part(entry.position, read, taps, matrix.reshape(*matrix.shape, 1, 1, 1), variant=(number, 0))
        part.nonnegative = bool((matrix >= 0).all())
        assert part.weight is not None
        part.support = replace(
            part, weight=(part.weight != 0).astype(np.float64), nonnegative=True, variant=(number, 1)
        )
        out = builder.put(Neuron((entry.position,), (read,), out, parts=[part]))
        to = list(whole(entry.shape).ranges)
        for a, (first, last, _, _) in zip(axes, tile, strict=True):
            to[a] = (first, 1, last - first)
        parts.append((Region(tuple(to)), turned_back(builder, entry, out, axes, tuple(shape))))
    if len(parts) == 1:
        return parts[0][1]
    sources = tuple(tensor for _, tensor in parts)
    pairs = [(region, k, whole(tensor.shape)) for k, (region, tensor) in enumerate(parts)]
    return builder.put(Move((entry.position,), sources, inner(builder, entry, entry.shape), pairs=pairs))


# ------------------------------------------------------------------------------------------------- constants, affine
# maps


def constant(builder: _Builder, entry: Entry) -> Tensor:
    assert isinstance(entry.record, L.Constant)
    return builder.put(
        Fixed((entry.position,), (), inner(builder, entry, entry.shape), value=np.asarray(entry.record.value))
    )


def scale(builder: _Builder, entry: Entry, source: Tensor, factor: NDArray[Any], shift: NDArray[Any] | None) -> Tensor:
    """An affine map that varies along any axes: per channel of the flattened sample."""
    vector, offset = full(factor, entry.shape), None if shift is None else full(shift, entry.shape)
    flat = reshaped(builder, entry, source, (math.prod(source.shape),))
    seen = Entry(entry.position, L.Scale(vector, offset, name=entry.record.name), entry.sources, flat.shape)
    unit = builder.affine(seen, (flat,), len(entry.shape))
    return reshaped(builder, entry, unit if isinstance(unit, Tensor) else builder.put(unit), entry.shape)


def affine(builder: _Builder, entry: Entry, source: Tensor) -> Tensor:
    """A map per channel on more spatial axes than a kernel has."""
    read = turned(builder, entry, source, (0,))
    unit = builder.affine(Entry(entry.position, entry.record, entry.sources, read.shape), (read,), len(entry.shape))
    return turned_back(builder, entry, unit if isinstance(unit, Tensor) else builder.put(unit), (0,), entry.shape)


def full(values: NDArray[Any], shape: Shape) -> Vector:
    """An array that broadcasts against a sample (of one axis: per channel), flattened at the sample's size."""
    column = values.reshape(-1, *(1,) * (len(shape) - 1)) if values.ndim == 1 else values
    return np.ascontiguousarray(np.broadcast_to(np.asarray(column, np.float64), shape)).reshape(-1)


def mul(builder: _Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """A product with a constant is a Scale; else the signal is repeated to its full size, and the gate read as it
    is.
    """
    fixed = [isinstance(builder.maker.get(s.index), Fixed) for s in sources]
    if any(fixed):
        signal, factor = sources[::-1] if fixed[0] and not fixed[1] else sources
        maker = builder.maker[factor.index]
        assert isinstance(maker, Fixed)
        value = maker.value.reshape((1,) * (len(entry.shape) - maker.value.ndim) + maker.value.shape)
        return scale(builder, entry, expanded(builder, entry, signal, entry.shape), value, None)
    unit = builder.gating(entry, sources)
    signal = expanded(builder, entry, unit.sources[0], entry.shape)
    return builder.put(replace(unit, sources=(signal, unit.sources[1])))


UNARY: dict[type[L.Layer], Callable[..., Tensor]] = {
    L.Reduce: reduce,
    L.Gather: gather,
    L.Expand: expand,
    L.Resample: resample,
}


def lowered(builder: _Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor | None:
    """The output of an entry that takes units of its own, all of them made; None where one unit does it."""
    record = entry.record
    if isinstance(record, L.Constant):
        return constant(builder, entry)
    if isinstance(record, L.Mul):
        return mul(builder, entry, sources)
    if isinstance(record, L.Linear) and len(sources[0].shape) > 1:
        return linear(builder, entry, sources[0])
    make = UNARY.get(type(record))
    if make is None:
        return None
    made = make(builder, entry, sources[0])
    if made in sources:  # nothing to do; but its readers are not those of its source
        return builder.put(Reshaping((entry.position,), sources, inner(builder, entry, entry.shape)))
    return made
