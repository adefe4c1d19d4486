"""A record in its place in the network."""

from __future__ import annotations

from typing import NamedTuple

from .. import layers as L
from ..errors import at
from .shapes import Shape


class Entry(NamedTuple):
    """One record in its place."""

    position: int
    record: L.Layer
    sources: tuple[int, ...]
    shape: Shape  # of one sample of its output

    def __str__(self) -> str:
        return at(self.position, self.record)
