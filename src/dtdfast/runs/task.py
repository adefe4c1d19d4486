"""One chunk that has yet to be explained: what to read, and what to call it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images import Preparation
from .sources import Piece, Source
from .work import Work

Array = NDArray[Any]
Read = tuple[Array, list[str]]


@dataclass(frozen=True)
class Task:
    """Chunk `number`: samples from `start`, in pieces that different threads may read.

    Parameters
    ----------
    target : None, int, tuple or (k,) ints of this chunk's samples
    names : of its samples, or None
    """

    number: int
    start: int
    stop: int
    pieces: tuple[Piece, ...]
    target: Any
    names: Sequence[str] | None

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self, work: Work, parts: Sequence[Read]) -> dict[str, Array]:
        """Rows of the output, from its pieces as they were read."""
        x = parts[0][0] if len(parts) == 1 else np.concatenate([x for x, _ in parts])
        errors = [error for _, found in parts for error in found]
        names = list(self.names) if self.names is not None else [f"sample {i}" for i in range(self.start, self.stop)]
        return work.rows(x, errors, self.target, names)


def tasks(source: Source, preparation: Preparation | None, target: Any, chunk: int, numbers: Sequence[int]) -> Iterator[Task]:
    """The chunks of these numbers, one at a time."""
    for number in numbers:
        start, stop = number * chunk, min((number + 1) * chunk, len(source))
        pieces = tuple(
            source.piece(i, min(i + source.grain, stop), preparation) for i in range(start, stop, min(source.grain, stop - start))
        )
        names = None if source.names is None else source.names[start:stop]
        yield Task(number, start, stop, pieces, target[start:stop] if isinstance(target, np.ndarray) else target, names)
