"""Resampling: one neuron per output, the product of the axes' matrices, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from ...errors import ShapeError
from ..builder import Builder
from ..entries import Entry
from ..parts import Part
from ..shapes import Shape, join, spatial_rank
from ..taps import Taps
from ..tensors import Region, Tensor, whole
from .axes import moved, own, turned, turned_back
from .base import Recipe, always
from .move import Move
from .neuron import Neuron

MOST_WEIGHTS = 2**24  # of a matrix that resamples a tile
MOST_TILES = 1024
FAIR_WEIGHTS = 2**20


def resample(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    return own(builder, entry, sources, resampled(builder, entry, sources[0]))


def resampled(builder: Builder, entry: Entry, source: Tensor) -> Tensor:
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
        out = builder.inner(entry, (len(matrix), *read.shape[1:]))
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
    return builder.put(Move((entry.position,), sources, builder.inner(entry, entry.shape), pairs=pairs))


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


def resample_shape(record: L.Resample, shape: Shape) -> Shape:
    n = spatial_rank(shape, "Resample")
    if len(record.weights) != n:
        raise ShapeError(
            f"weights has {len(record.weights)} entries, but its input (n, {join(shape)}) has {n} spatial axes"
        )
    size = list(shape)
    for a, weight in enumerate(record.weights, 1):
        if weight is None:
            continue
        if weight.shape[1] != shape[a]:
            raise ShapeError(
                f"weights[{a - 1}] has shape {weight.shape}, expected ({weight.shape[0]}, {shape[a]}) for (n, "
                f"{join(shape)})"
            )
        size[a] = weight.shape[0]
    return tuple(size)


RECORDS: dict[type[L.Layer], Recipe] = {L.Resample: Recipe(resample_shape, resample, always)}
