"""What a network is, whatever its kinds: tensors, the nodes between them, and regions of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..show import OneLine, shown
from .shapes import Shape
from .taps import Taps

Floats = NDArray[np.floating[Any]]
Box = tuple[Floats, Floats]  # lower and upper bound, of one sample's shape


@lru_cache(1024)
def space_of(shape: Shape) -> tuple[int, int, int]:
    d, h, w = (1,) * (4 - len(shape)) + shape[1:]
    return d, h, w


@dataclass(eq=False, repr=False)
class Tensor:
    """Values that one unit writes and others read."""

    index: int
    shape: Shape  # of one sample
    position: int  # the caller's entry whose output it is
    nonnegative: bool = False
    is_input: bool = False  # the network's input by data flow
    readers: list[Node] = field(default_factory=list)
    wanted: bool = False  # relevance is wanted here
    form: str = "R"  # of its relevance: "R", or "c" with R = x ⊙ c
    valueless: bool = False  # it carries relevance alone (join.py)

    def __repr__(self) -> str:
        return f"Tensor({self.index}, shape={self.shape}, entry {self.position})"

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def space(self) -> tuple[int, int, int]:
        """The spatial sizes as (d, h, w)."""
        return space_of(self.shape)


@dataclass(eq=False)
class Node(OneLine):
    """What every unit has (units/base.py); `entries` are the positions of the caller's list that it stands for."""

    entries: tuple[int, ...]
    sources: tuple[Tensor, ...]
    out: Tensor
    twin: bool = field(default=False, kw_only=True)  # stands beside another unit, for relevance alone (join.py)
    # relevance flows through it: wanted above and below (resolve.py)
    in_relevance: bool = field(default=False, init=False, repr=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(entries={shown(self.entries)}, out={self.out.shape})"

    transparent: ClassVar[bool]  # whether behind it the network's input is still its input

    @property
    def position(self) -> int:
        return self.entries[-1]

    @property
    @abstractmethod
    def form(self) -> str:
        """The form in which it hands relevance to its sources: "R", or "c" with R = x ⊙ c."""

    def prepare(self, lowering: Any) -> None:
        """Emit what its sums for a ledger read beside relevance."""

    @property
    def absorbs(self) -> bool:
        """Whether relevance that reaches its output ends there, since nothing that it reads takes any."""
        return False

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        """The sources that receive relevance."""
        return self.sources

    @property
    def order(self) -> tuple[int, ...] | None:
        """Of a unit that only permutes axes: for each axis of its output, that of its source."""
        return None

    @property
    def reshapes(self) -> bool:
        """Whether it sees the elements of its source in row-major order under another shape."""
        return False

    @property
    def tables(self) -> tuple[Taps, ...]:
        """The geometries of its taps."""
        return ()


class Region(NamedTuple):
    """A part of a tensor: per axis of one sample (start, step, count), then its axes reordered."""

    ranges: tuple[tuple[int, int, int], ...]
    order: tuple[int, ...] | None = None


class Handed(NamedTuple):
    """How much of every output's relevance a unit hands on that weighs it by its values; arrays broadcast to it."""

    total: NDArray[np.float64]
    around: NDArray[np.float64]  # of that, to sources from which none comes to the entry that `stop` names
    size: NDArray[np.float64] | None = None  # where `total` is a difference: the sum of its terms' sizes


class Lost(NamedTuple):
    """What a unit absorbs: factor · Σ R, over all of its output's relevance R or a region of it."""

    cause: str
    factor: float = 1.0
    region: Region | None = None
    handed: str = ""  # "total" or "around": Σ of what it hands on of R, as Handed has it; "size" counts for rounding


@lru_cache(1024)
def whole(shape: Shape) -> Region:
    return Region(tuple((0, 1, s) for s in shape))


def take(array: NDArray[Any], region: Region, lead: int = 0) -> NDArray[Any]:
    """The region of an array with `lead` axes before the sample's (a view)."""
    index = (slice(None),) * lead + tuple(_slice(*r) for r in region.ranges)
    view = array[index]
    if region.order is not None:
        view = view.transpose(*range(lead), *(lead + a for a in region.order))
    return view


def _slice(start: int, step: int, count: int) -> slice:
    stop = start + step * (count - 1) + (1 if step > 0 else -1)
    return slice(start, stop if stop >= 0 else None, step)
