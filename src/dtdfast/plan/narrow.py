"""A network of whose outputs one token is read: what works token by token is planned for that token alone.

From the output back, an entry is narrowed if all that reads it reads this one place of an axis, and if it computes each
place from its own row. Where a narrowed entry reads one that is not, the row is cut out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from .. import layers as L
from .entries import Entry
from .shapes import Shape, axis_of
from .units import shares

Axes = list[int | None]  # of every operand the axis of a sample of which one place is read; None: it is read whole


@dataclass
class Narrowed:
    """Which entries are planned for one token.

    Attributes
    ----------
    token : its place
    entries : all of them, narrowed ones with the shapes that are left
    axes : position of a narrowed entry → the axis of every operand along which the token alone is read
    """

    token: int
    entries: dict[int, Entry]
    axes: dict[int, Axes] = field(default_factory=dict)

    def cut(self, position: int, slot: int, source: int) -> int | None:
        """The axis along which an operand has to be cut."""
        return None if position not in self.axes or source in self.axes else self.axes[position][slot]


def narrowed(
    entries: dict[int, Entry], input_shape: Shape, last: int, stop: int | None, token: int, *, held: bool
) -> Narrowed:
    """The entries that only this place of the first axis of the output needs; with attention weights `held`, its rows
    too: relevance that goes back through a softmax keeps its bits with all of its rows.
    """
    shapes = {L.INPUT: input_shape, **{p: e.shape for p, e in entries.items()}}
    readers = Counter(source for entry in entries.values() for source in entry.sources)
    tables = {p for p, e in entries.items() if isinstance(e.record, L.Constant)}
    wanted: dict[int, set[int | None]] = {last: {0}}

    def through(position: int, axis: int) -> Axes | None:
        entry = entries[position]
        if isinstance(entry.record, L.Mul) and tables.intersection(entry.sources):
            return None  # the factors would be weights that differ from token to token
        found = None if isinstance(entry.record, L.Softmax) and not held else _THROUGH.get(type(entry.record))
        return None if found is None else found(entry, axis, [shapes[s] for s in entry.sources])

    def torn(source: int, axis: int | None) -> bool:
        """Whether an entry that is one with this neuron of its own would be cut off from it."""
        alone = source != L.INPUT and readers[source] == 1 and shares(entries[source].record)
        return alone and (axis is None or through(source, axis) is None)

    result = Narrowed(token, dict(entries))
    for position in sorted(entries, reverse=True):
        entry, reads = entries[position], wanted.get(position, {None})
        axis = reads.pop() if len(reads) == 1 and position != stop else None
        axes = None if axis is None else through(position, axis)
        if axis is None or axes is None or (isinstance(entry.record, ONE) and any(map(torn, entry.sources, axes))):
            axes = None
        else:
            result.axes[position] = axes
            result.entries[position] = _one(entry, axis, token)
        for slot, source in enumerate(entry.sources):
            wanted.setdefault(source, set()).add(None if axes is None else axes[slot])
    return result


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
