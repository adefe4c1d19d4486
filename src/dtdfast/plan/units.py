"""What a network is after folding and fusing: units that read and write tensors, in topological order.

A *neuron* unit is everything that makes up one layer of neurons: its taps (a convolution, or several operands of an
add), bias and activation. The other units move or pass relevance. Units hold semantics only; steps (steps.py) say how a
device does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..rules import Row, Term
from ..show import OneLine, shown
from .shapes import Shape
from .taps import Taps

Floats = NDArray[np.floating[Any]]
Box = tuple[Floats, Floats]  # lower and upper bound, of one sample's shape


@dataclass(eq=False, repr=False)
class Tensor:
    """Values that one unit writes and others read."""

    index: int
    shape: Shape  # of one sample
    position: int  # the caller's entry whose output it is
    nonnegative: bool = False
    is_input: bool = False  # the network's input by data flow
    readers: list[Unit] = field(default_factory=list)
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
        d, h, w = (1,) * (4 - len(self.shape)) + self.shape[1:]
        return d, h, w


@dataclass(eq=False)
class Unit(OneLine):
    """Base of the units; `entries` are the positions of the caller's list that it stands for."""

    entries: tuple[int, ...]
    sources: tuple[Tensor, ...]
    out: Tensor
    twin: bool = field(default=False, kw_only=True)  # stands beside another unit, for relevance alone (join.py)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(entries={shown(self.entries)}, out={self.out.shape})"

    @property
    def position(self) -> int:
        return self.entries[-1]

    @property
    def in_relevance(self) -> bool:
        """Relevance flows through it: wanted above and below."""
        return self.out.wanted and any(s.wanted for s in self.carriers)

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        """The sources that receive relevance."""
        return self.sources


@dataclass(eq=False)
class Part(OneLine):
    """One operand of a neuron: source ∗ weight by taps; weight (c_out, c_in/groups, *kernel), None for ones."""

    position: int
    source: Tensor
    taps: Taps
    weight: Floats | None = None
    window: NDArray[np.float64] | None = None  # average pool: 1 / divisor per output position (d, h, w)
    box: Box | None = None
    rounded: Box | None = None  # the box as float32 steps compute it, so that x on a bound equals it
    linear: bool = False
    nonnegative: bool = False  # no weight is negative
    support: Part | None = None  # with a weight of 1 where this one's is not 0: all that are taps
    variant: tuple[int, int] = (0, 0)  # how many affine maps were folded in, before and after: tells its weights apart
    terms: list[list[Term]] = field(default_factory=list)  # per share of the row, reduced by the signs known here


@dataclass(eq=False)
class Neuron(Unit):
    """y = Σ_parts + bias, out = activation(y); relevance by a row."""

    parts: list[Part] = field(default_factory=list)
    bias: Floats | None = None
    activation: L.ReLU | L.Activation | None = None
    row: Row | None = None
    sloped: bool = False  # relevance takes the slope of its ReLU
    half: bool = False  # its value is the sum of what it shares by, without bias and activation


@dataclass(eq=False)
class Winner(Unit):
    """Max-pool: all to the winner; a twin has the winners of the pool that it stands beside."""

    taps: Taps = field(kw_only=True)
    beside: Tensor | None = None

    @property
    def decided(self) -> int:
        """The number of the tensor that says who won."""
        return (self.beside or self.out).index


@dataclass(eq=False)
class Elementwise(Unit):
    """An activation on its own: relevance passes, or takes its slope."""

    activation: L.ReLU | L.Activation = field(kw_only=True)
    sloped: bool = False


@dataclass(eq=False)
class Affine(Unit):
    """x·scale + shift per channel that cannot be folded: relevance passes, or goes where join.py says.

    split : of a joined neuron's relevance, what goes by the products of its value's sign and what by the others, (1, 0)
    but for αβ falls_back : its rule is αβ with a fallback, which a joined neuron does not have shares : per source, how
    much of R it is handed, (c,); None: all tapped : ±1 in the channels whose R goes to the source number `open_to`
    where tapped·x > 0, x that of the first, else 0
    """

    scale: Floats = field(kw_only=True)
    shift: Floats | None = None
    prepares: bool = False  # the network's input, before all rules
    split: tuple[float, float] | None = None
    falls_back: bool = False
    shares: tuple[Floats, ...] | None = None
    tapped: Floats | None = None
    open_to: int = 0

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        opens = self.tapped is not None and self.open_to == 0
        first = self.shares is None or opens or len(self.sources) == 1 or bool(self.shares[0].any())
        return self.sources if first else self.sources[1:]


@dataclass(eq=False)
class Normalise(Unit):
    """LRN: relevance passes."""

    record: L.LRN = field(kw_only=True)


@dataclass(eq=False)
class Probabilities(Unit):
    """Softmax: predicted, never explained."""

    axis: int = field(kw_only=True)  # batch counted
    log: bool = False


@dataclass(eq=False)
class Total(Unit):
    """An add that gives all of its relevance to every operand (rule Pass)."""


@dataclass(eq=False)
class Gating(Unit):
    """signal · gate: relevance to the signal. sources = (signal, gate); the gate may have size 1 where the signal has
    more.
    """

    gates: int = 1  # how many operands a sigmoid made; relevance needs exactly one

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        return self.sources[:1]


@dataclass(frozen=True)
class Region:
    """A part of a tensor: per axis of one sample (start, step, count), then its axes reordered."""

    ranges: tuple[tuple[int, int, int], ...]
    order: tuple[int, ...] | None = None


@dataclass(eq=False)
class Move(Unit):
    """out[region] = source[region] for pairs of regions; Concat, Slice, Permute, Pad, Upsample, Gather; elements left
    out hold `fill`.
    """

    # (in out, number of the source, in the source)
    pairs: list[tuple[Region, int, Region]] = field(default_factory=list)
    fill: float | None = None


@dataclass(eq=False)
class Reshaping(Unit):
    """The same elements in row-major order under another shape: Flatten, Reshape."""


@dataclass(eq=False)
class Copy(Unit):
    """Every output is one element of the source, which relevance goes back to: by taps of weight 1, or a matrix of 0
    and 1.
    """

    part: Part = field(kw_only=True)
    picks: tuple[int, ...] | None = None  # along the first axis; None: axes of size 1 are repeated

    def apply(self, values: NDArray[Any], lead: int = 0) -> NDArray[Any]:
        """Values (*lead axes, *source) → (*lead axes, *out)."""
        if self.picks is not None:
            return values.take(self.picks, axis=lead)
        return np.broadcast_to(values, (*values.shape[:lead], *self.out.shape))


@dataclass(eq=False)
class Fixed(Unit):
    """A constant: it reads nothing, and relevance ends here."""

    value: Floats = field(kw_only=True)


@dataclass(eq=False)
class Words(Unit):
    """Embedding: the network's input; relevance is summed over each word's vector."""

    weight: Floats = field(kw_only=True)


def whole(shape: Shape) -> Region:
    return Region(tuple((0, 1, s) for s in shape))
