"""Rewriting the wiring before units are made: Dropout vanishes, Pads and BatchNorms merge into the layers beside
them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from .entries import Entry
from .shapes import Shape, axis_of, pairs

LINEAR = (L.Linear, L.Conv, L.ConvTranspose)
GOING = frozenset((L.Dropout, L.Pad, L.BatchNorm, L.Scale))
OUTSIDE = -2  # reads the explained output, or the entry where relevance leaves

Vector = NDArray[np.float64]


@dataclass
class Folding:
    """The wiring after folding, and what the linear entries took in.

    Attributes
    ----------
    reads : position → positions read, Dropouts and folded entries skipped
    readers : position → positions that read it (OUTSIDE: someone outside the network does)
    taken, took : folded position → the entries that took it, and the reverse
    before, after : position of a linear entry → affine maps (scale, shift) of its input and of its output, in order
    padding : position of a Conv → zero padding taken from a Pad, as (before, after) pairs
    """

    reads: dict[int, tuple[int, ...]]
    readers: dict[int, list[int]]
    taken: dict[int, tuple[int, ...]] = field(default_factory=dict)
    took: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    before: dict[int, list[tuple[Vector, Vector]]] = field(default_factory=lambda: defaultdict(list))
    after: dict[int, list[tuple[Vector, Vector]]] = field(default_factory=lambda: defaultdict(list))
    padding: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    alias: dict[int, int] = field(default_factory=dict)

    def resolve(self, position: int) -> int:
        """The entry whose tensor stands for this entry's output."""
        found = position
        while found in self.alias:
            found = self.alias[found]
        while position != found:  # the next one asks once
            self.alias[position], position = found, self.alias[position]
        return found

    def source(self, position: int) -> int:
        """What an entry of one operand reads."""
        return self.resolve(self.reads[position][0])

    def _skip(self, position: int) -> None:
        """Let the readers of an entry read its source instead; `settle` puts it down."""
        source = self.source(position)
        del self.reads[position]
        readers = self.readers.pop(position)
        self.alias[position] = source
        if self.readers[source] == [position]:
            self.readers[source] = readers
        else:
            self.readers[source].remove(position)
            self.readers[source].extend(readers)

    def settle(self) -> None:
        """All that was skipped leaves `reads`."""
        if self.alias:
            self.reads = {position: tuple(map(self.resolve, sources)) for position, sources in self.reads.items()}
        for position, takers in self.taken.items():
            for taker in takers:
                self.took[taker].append(position)


def affine(record: L.BatchNorm | L.Scale | L.Preparation, n: int | None = None) -> tuple[Vector, Vector]:
    """(scale, shift) of x·scale + shift along its one axis, in float64; `n` is that axis's size, where one number may
    stand for all.
    """
    if isinstance(record, (L.Scale, L.Preparation)):
        scale = np.asarray(record.scale, np.float64).reshape(-1)
        shift = np.zeros_like(scale) if record.shift is None else np.asarray(record.shift, np.float64).reshape(-1)
        if n is None:
            return scale, shift
        return np.broadcast_to(scale, n).copy(), np.broadcast_to(shift, n).copy()
    scale = 1.0 / np.sqrt(np.asarray(record.variance, np.float64) + record.eps)
    if record.weight is not None:
        scale = scale * np.asarray(record.weight, np.float64)
    shift = -np.asarray(record.mean, np.float64) * scale
    if record.bias is not None:
        shift = shift + np.asarray(record.bias, np.float64)
    return scale, shift


def per_channel(record: L.BatchNorm | L.Scale, shape: Shape) -> bool:
    """Whether it is one number per channel (axis 1) as it stands."""
    if isinstance(record, L.BatchNorm):
        return True
    return all(a is None or a.shape == shape[:1] for a in (record.scale, record.shift))


def _varies(record: L.BatchNorm | L.Scale, shape: Shape) -> tuple[int, ...]:
    """The axes of a sample along which an affine map is not the same everywhere."""
    if isinstance(record, L.BatchNorm):
        return (0,)
    axes = set()
    for array in (record.scale, record.shift):
        if array is not None:
            axes |= (
                {0} if array.ndim == 1 < len(shape) else {axis for axis, size in enumerate(array.shape) if size != 1}
            )
    return tuple(sorted(axes))


def _channel_axis(entry: Entry) -> int:
    """The axis of a sample that a linear layer sums over and writes along."""
    return axis_of(entry.record.axis, entry.shape, "Linear") if isinstance(entry.record, L.Linear) else 0


def fold(entries: dict[int, Entry], outside: tuple[int, ...], kept: Collection[int]) -> Folding:
    """Fold what folds exactly; `outside` are the positions that someone outside reads (output, stop), `kept` affine
    maps that stay, and convolutions before which a Pad stays.
    """
    readers: dict[int, list[int]] = defaultdict(list)
    for entry in entries.values():
        for source in entry.sources:
            readers[source].append(entry.position)
    for position in outside:
        readers[position].append(OUTSIDE)
    folding = Folding({e.position: e.sources for e in entries.values()}, readers)
    may_go = [e for e in entries.values() if type(e.record) in GOING]
    for entry in may_go:
        if isinstance(entry.record, L.Dropout):
            folding._skip(entry.position)
    for entry in may_go:
        if isinstance(entry.record, L.Pad) and not any(r in kept for r in folding.readers[entry.position]):
            _fold_pad(folding, entries, entry)
    for entry in may_go:
        if isinstance(entry.record, (L.BatchNorm, L.Scale)) and entry.position not in kept:
            _fold_affine(folding, entries, entry)
    folding.settle()
    return folding


def _fold_pad(folding: Folding, entries: dict[int, Entry], entry: Entry) -> None:
    """A Pad of zeros that convolutions alone read becomes their padding."""
    position, record = entry.position, entry.record
    assert isinstance(record, L.Pad)
    readers = folding.readers[position]
    if (
        record.value != 0
        or not readers
        or not all(r != OUTSIDE and isinstance(entries[r].record, L.Conv) for r in readers)
    ):
        return
    extra = pairs(record.padding, len(entry.shape) - 1, "padding")
    for reader in set(readers):
        known = folding.padding.get(reader, ((0, 0),) * len(extra))
        folding.padding[reader] = tuple((a + c, b + d) for (a, b), (c, d) in zip(known, extra, strict=True))
    folding.taken[position] = tuple(sorted(set(readers)))
    folding._skip(position)


def _fold_affine(folding: Folding, entries: dict[int, Entry], entry: Entry) -> None:
    """W' = w·scale, b' = b·scale + shift after a linear layer that nobody else reads; else into the linear layers that
    follow.
    """
    position, record = entry.position, entry.record
    assert isinstance(record, (L.BatchNorm, L.Scale))
    source = folding.source(position)
    if source != L.INPUT and isinstance(entries[source].record, LINEAR) and folding.readers[source] == [position]:
        axis = _channel_axis(entries[source])
        if _varies(record, entry.shape) in ((), (axis,)):
            folding.after[source].append(affine(record, entry.shape[axis]))
            folding.taken[position] = (source,)
            folding._skip(position)
            return
    _, shift = affine(record)
    readers = folding.readers[position]
    if readers and all(
        r != OUTSIDE and _takes(entries[r].record, folding.padding.get(r), bool(shift.any())) for r in readers
    ):
        if not all(_varies(record, entry.shape) in ((), (_channel_axis(entries[r]),)) for r in readers):
            return
        for reader in set(readers):
            folding.before[reader].insert(0, affine(record, entry.shape[_channel_axis(entries[reader])]))
        folding.taken[position] = tuple(sorted(set(readers)))
        folding._skip(position)


def _takes(record: L.Layer, extra: tuple[tuple[int, int], ...] | None, shifted: bool) -> bool:
    """Whether an affine map before this record folds into it exactly."""
    if isinstance(record, L.Linear):
        return True
    if isinstance(record, L.Conv):
        padded = any(a or b for a, b in (*pairs(record.padding, record.weight.ndim - 2, "padding"), *(extra or ())))
        return not (padded and shifted)
    return isinstance(record, L.ConvTranspose) and not shifted
