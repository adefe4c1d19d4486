"""A network of which one token is read, at its output or by a Slice or Gather (a class token): what works token by
token is planned for that token alone.

From there back, an entry is narrowed if all that reads it reads this one place of an axis, and if it computes each
place from its own row. Where a narrowed entry reads one that is not, the row is cut out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, NamedTuple

from .. import layers as L
from ..presets import RuleBook
from .entries import Entry
from .shapes import Shape, axis_of

Axes = list[int | None]  # of every operand the axis of a sample of which one place is read; None: it is read whole


class Place(NamedTuple):
    """One place along an axis of a sample."""

    axis: int
    place: int


@dataclass
class Narrowed:
    """Which entries are planned for one token.

    Attributes
    ----------
    entries : all of them, narrowed ones with the shapes that are left
    axes : position of a narrowed entry → the axis of every operand along which its token alone is read
    tokens : position of a narrowed entry → the place of its token
    picked : position of a Slice or Gather that reads such an entry → what it reads of its operand
    """

    entries: dict[int, Entry]
    axes: dict[int, Axes] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    picked: dict[int, Place] = field(default_factory=dict)

    def cut(self, position: int, slot: int, source: int) -> Place | None:
        """Where an operand has to be cut."""
        if source in self.axes:
            return None
        axis = self.axes[position][slot] if position in self.axes else None
        return self.picked.get(position) if axis is None else Place(axis, self.tokens[position])


def narrowed(
    entries: dict[int, Entry],
    input_shape: Shape,
    last: int,
    stop: int | None,
    token: int | None,
    book: RuleBook,
    *,
    rows: bool,
) -> Narrowed:
    """The entries that are needed at one place alone: those of a token of the output, the place of its first axis, and
    those that a Slice or Gather picks.

    Parameters
    ----------
    token : None if all of the output is read
    rows : attention weights are narrowed to a row too; relevance that goes back through a softmax has the bits of the
        whole network only with all of its rows
    """
    shapes = {L.INPUT: input_shape, **{p: e.shape for p, e in entries.items()}}
    readers = Counter(source for entry in entries.values() for source in entry.sources)
    tables = {p for p, e in entries.items() if isinstance(e.record, L.Constant)}
    wanted: dict[int, set[Place | None]] = {last: {None if token is None else Place(0, token)}}

    def through(position: int, axis: int) -> Axes | None:
        entry = entries[position]
        if isinstance(entry.record, L.Mul) and tables.intersection(entry.sources):
            return None  # the factors would be weights that differ from token to token
        if book.boxed(position):
            return None
        found = None if isinstance(entry.record, L.Softmax) and not rows else _THROUGH.get(type(entry.record))
        return None if found is None else found(entry, axis, [shapes[s] for s in entry.sources])

    intact: set[tuple[int, int | None]] = set()

    def torn(sources: tuple[int, ...], axes: Axes) -> bool:
        """Whether entries that may be one with this neuron of theirs would be cut off from it."""
        seen, todo = set[tuple[int, int | None]](), [*zip(sources, axes, strict=True)]
        while todo:
            source, axis = todo.pop()
            if source == L.INPUT or readers[source] > 1 or (source, axis) in intact:
                continue
            entry = entries[source]
            found = None if axis is None else through(source, axis)
            if found is None and not isinstance(entry.record, APART):
                return True
            seen.add((source, axis))
            if found is not None and isinstance(entry.record, (*ONE, L.Dropout)):
                todo += zip(entry.sources, found, strict=True)
        intact.update(seen)
        return False

    result = Narrowed(dict(entries))
    for position in sorted(entries, reverse=True):
        entry, reads = entries[position], wanted.get(position, {None})
        read = reads.pop() if len(reads) == 1 and position != stop else None
        axes = None if read is None else through(position, read.axis)
        if read is None or axes is None or (isinstance(entry.record, ONE) and torn(entry.sources, axes)):
            axes = None
        else:
            result.axes[position], result.tokens[position] = axes, read.place
            result.entries[position] = _one(entry, *read)
        for slot, source in enumerate(entry.sources):
            axis = None if axes is None else axes[slot]
            found = None if read is None or axis is None else Place(axis, read.place)
            wanted.setdefault(source, set()).add(found or _picked(entry, shapes[source]))
    for position, entry in entries.items():
        if entry.sources and entry.sources[0] in result.axes and (cut := _picked(entry, shapes[entry.sources[0]])):
            result.picked[position] = cut
            first = {"start": 0, "stop": 1, "step": 1} if isinstance(entry.record, L.Slice) else {"indices": (0,)}
            result.entries[position] = entry._replace(record=replace(entry.record, **first))
    return result


def _picked(entry: Entry, shape: Shape) -> Place | None:
    """The one place of an operand of this shape that a Slice or Gather reads."""
    record = entry.record
    if not isinstance(record, PICKS):
        return None
    axis = axis_of(record.axis, shape, type(record).__name__)
    if len(shape) == 1:  # a feature, of which nothing is computed for each alone
        return None
    all_of = range(shape[axis])
    places = all_of[record.start : record.stop : record.step] if isinstance(record, L.Slice) else record.indices
    return Place(axis, all_of[places[0]]) if len(places) == 1 < len(all_of) else None


def _one(entry: Entry, axis: int, token: int) -> Entry:
    """An entry with one place along an axis; a mask that varies along it, cut."""
    record: Any = entry.record
    shape = (*entry.shape[:axis], 1, *entry.shape[axis + 1 :])
    if isinstance(record, L.Reshape):
        record = replace(record, shape=shape)
    elif isinstance(record, L.Softmax) and record.mask is not None:
        place = axis - len(shape) + record.mask.ndim
        if place >= 0 and record.mask.shape[place] > 1:
            record = replace(record, mask=record.mask.take([token], place))
    return entry._replace(shape=shape, record=record)


# ----------------------------------------------------------------------------------------------- records, row by row


def _same(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    return [axis]


def _scale(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    record: Any = entry.record
    for array in (record.scale, record.shift):
        if array is not None:
            place = axis if array.ndim == 1 else axis - len(entry.shape) + array.ndim
            if 0 <= place < array.ndim and array.shape[place] > 1:
                return None
    return [axis]


def _beside(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    """Operands meet from the right; what is repeated along the axis is read whole."""
    result: Axes = []
    for shape in shapes:
        own = axis - (len(entry.shape) - len(shape))
        result.append(own if own >= 0 and shape[own] > 1 else None)
    return result


def _linear(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    own = axis_of(entry.record.axis, entry.shape, "Linear")  # type: ignore[attr-defined]
    return None if own == axis or len(entry.shape) == 1 else [axis]


def _norm(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    given: Any = entry.record.axes  # type: ignore[attr-defined]
    axes = (given,) if isinstance(given, int) else tuple(given)
    return None if axis in {axis_of(a, entry.shape, "norm") for a in axes} else [axis]


def _softmax(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    if axis == axis_of(entry.record.axis, entry.shape, "Softmax"):  # type: ignore[attr-defined]
        return None
    return _beside(entry, axis, shapes)


def _matmul(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    record: Any = entry.record
    rank = len(entry.shape)
    if axis == rank - 2:
        return [rank - 1 if record.transpose_a else axis, None]
    if axis == rank - 1:
        return [None, rank - 2 if record.transpose_b else axis]
    return [axis if shape[axis] > 1 else None for shape in shapes]


def _permute(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    return [int(entry.record.order[axis + 1]) - 1]  # type: ignore[attr-defined]


def _reshape(entry: Entry, axis: int, shapes: list[Shape]) -> Axes | None:
    """Where it leaves the axis as it is."""
    before, (shape,) = prod(entry.shape[:axis]), shapes
    for own, size in enumerate(shape):
        if prod(shape[:own]) == before and size == entry.shape[axis]:
            return [own]
    return None


ONE = (L.ReLU, L.Activation, L.Add, L.Mul, L.Scale)
"""What may be one neuron with the layer that it reads."""

PICKS = (L.Slice, L.Gather)
"""What may read one place of its operand."""

APART = (L.Constant, L.Given, L.Embedding, L.LayerNorm, L.RMSNorm, L.Softmax)
"""What is never one with the layer that reads it."""

_THROUGH: dict[type[L.Layer], Callable[[Entry, int, list[Shape]], Axes | None]] = {
    **dict.fromkeys((L.ReLU, L.Activation, L.Dropout), _same),
    L.Scale: _scale,
    **dict.fromkeys((L.Add, L.Mul), _beside),
    L.Linear: _linear,
    **dict.fromkeys((L.LayerNorm, L.RMSNorm), _norm),
    L.Softmax: _softmax,
    L.MatMul: _matmul,
    L.Permute: _permute,
    L.Reshape: _reshape,
}
