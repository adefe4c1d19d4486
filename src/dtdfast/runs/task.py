"""One chunk that has yet to be explained: what to read, and what to call it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images import Preparation
from ..plan.shapes import Shape
from .sources import Piece, Source
from .work import Chunk, Work

Array = NDArray[Any]


@dataclass(frozen=True)
class Task:
    """Chunk `number`: samples from `start`, in pieces that different threads may read.

    Parameters
    ----------
    pieces : of `grain` samples each, but the last
    shape, dtype : of one sample
    target : None, int, tuple or (k,) ints of this chunk's samples
    names : of its samples, or None
    """

    number: int
    start: int
    stop: int
    pieces: tuple[Piece, ...]
    grain: int
    shape: Shape
    dtype: np.dtype[Any]
    target: Any
    names: Sequence[str] | None

    def __len__(self) -> int:
        return self.stop - self.start

    def room(self) -> tuple[Array, list[tuple[Piece, Array]]]:
        """Room for its samples, and for every piece its part of that."""
        x = np.zeros((len(self), *self.shape), self.dtype)
        return x, [(piece, x[i * self.grain : (i + 1) * self.grain]) for i, piece in enumerate(self.pieces)]

    def chunk(self, work: Work, errors: list[str]) -> Chunk:
        """What will be known of its samples, beginning with the errors that the pieces told."""
        names = self.names if self.names is not None else [f"sample {i}" for i in range(self.start, self.stop)]
        return work.chunk(errors, self.target, names)


def tasks(
    source: Source, preparation: Preparation | None, target: Any, chunk: int, numbers: Sequence[int]
) -> Iterator[Task]:
    """The chunks of these numbers, one at a time."""
    shape, dtype = source.sample(preparation)
    grain = min(source.grain, chunk)
    for number in numbers:
        start, stop = number * chunk, min((number + 1) * chunk, len(source))
        pieces = tuple(source.piece(i, min(i + grain, stop), preparation) for i in range(start, stop, grain))
        names = None if source.names is None else source.names[start:stop]
        own = target[start:stop] if isinstance(target, np.ndarray) else target
        yield Task(number, start, stop, pieces, grain, shape, dtype, own, names)
