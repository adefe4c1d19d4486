"""What an operand was made by: a sigmoid or softmax, which makes it a gate or the matrix of an attention."""

from __future__ import annotations

from collections.abc import Callable

from ... import layers as L
from ..builder import Builder
from .move import MOVES

PASSED = (L.Dropout, L.Flatten, L.Reshape, L.Gather, L.Expand, *MOVES)
"""Records that hand on values as they are."""


def made_by(
    builder: Builder, position: int, wanted: Callable[[L.Layer], bool], through: tuple[type[L.Layer], ...] = ()
) -> bool:
    """Whether a record that is `wanted` made an entry's values, moved since, or changed by records of `through`."""
    while position != L.INPUT:
        entry = builder.entries[position]
        if wanted(entry.record):
            return True
        if not isinstance(entry.record, (*PASSED, *through)) or len(entry.sources) != 1:
            return False
        (position,) = entry.sources
    return False


def made_by_softmax(builder: Builder, position: int) -> bool:
    """Whether a softmax made it, perhaps mixed by linear layers since (talking heads)."""
    return made_by(builder, position, is_softmax, (L.Linear, L.Conv, L.Scale, L.BatchNorm))


def is_softmax(record: L.Layer) -> bool:
    return isinstance(record, L.Softmax) and not record.log


def is_gate(record: L.Layer) -> bool:
    """Whether its values lie between 0 and 1, as a gate's do."""
    return is_softmax(record) or (isinstance(record, L.Activation) and record.function.gates)


def is_activation(record: L.Layer) -> bool:
    return isinstance(record, L.Activation)


def is_rectifier(record: L.Layer) -> bool:
    return isinstance(record, L.ReLU)
