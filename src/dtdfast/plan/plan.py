"""The plan: every step of one batch through the network and back, with its memory; printable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..show import preformatted
from .steps import Buffer, Step
from .text import describe
from .units import Unit

if TYPE_CHECKING:
    from .program import Program

SEGMENT_MACS = 20_000_000_000
"""Multiply-adds after which a run returns to Python, so that Ctrl-C works: at most about half a second."""


@dataclass(eq=False)
class Kept:
    """What the forward pass stores of a neuron for the ledger: per share Σ terms and Σ |terms|; y where shares select
    by it.
    """

    terms: list[Buffer] = field(default_factory=list)
    magnitude: list[Buffer] = field(default_factory=list)
    # of the terms, those of operands that pass nothing on to where it is wanted
    around: list[Buffer | None] = field(default_factory=list)
    y: Buffer | None = None


@dataclass(eq=False)
class Plan:
    """Steps for n samples with t targets each.

    Attributes
    ----------
    n_constant : forward begins with so many steps that depend on no x: an arena keeps their results from call to call
    forward, relevance : list of Step
    arena : bytes of working memory
    pieces : so many of these run side by side, one thread through all steps of each (the last piece may have fewer
        samples)
    bodies : of every step, the body that runs it, if the executor has several for its operation; empty if it does not
        say
    """

    program: Program
    n: int
    t: int
    n_constant: int
    forward: list[Step]
    relevance: list[Step]
    buffers: list[Buffer]
    arena: int
    values: dict[int, Buffer]  # tensor → its values
    relevances: dict[int, Buffer]  # tensor → its relevance
    above: dict[int, Buffer]  # the same of float32 units where float64 units take it on
    kept: dict[int, Kept]  # neuron's output tensor → what the ledger reads
    factors: dict[int, list[tuple[Buffer, str]]]  # neuron's output tensor → per share (factor, "gate" or "denominator")
    pieces: int = 1
    bodies: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds of all products."""
        return sum(s.macs for s in (*self.forward, *self.relevance))

    @property
    def memory(self) -> int:
        """Bytes of working memory of all pieces."""
        return self.pieces * self.arena

    def segments(self, steps: list[Step], first: int) -> list[tuple[int, int]]:
        """Ranges of steps, counted from `first`, of at most SEGMENT_MACS each."""
        result, begin, macs = [], 0, 0
        for number, step in enumerate(steps):
            if macs and macs + step.macs > SEGMENT_MACS:
                result.append((first + begin, first + number))
                begin, macs = number, 0
            macs += step.macs
        return [*result, (first + begin, first + len(steps))]

    def unit_ranges(self) -> list[tuple[Unit, int, int]]:
        """The ranges of relevance steps of each unit, in order."""
        ranges: list[tuple[Unit, int, int]] = []
        for number, step in enumerate(self.relevance):
            if step.unit is None:
                continue
            if ranges and ranges[-1][0] is step.unit:
                ranges[-1] = (step.unit, ranges[-1][1], number + 1)
            else:
                ranges.append((step.unit, number, number + 1))
        return ranges

    def largest(self) -> str:
        """The layer whose result takes most of the arena."""
        sizes: dict[int, int] = {}
        for step in (*self.forward, *self.relevance):
            if step.unit is not None:
                place = step.unit.position
                sizes[place] = max(sizes.get(place, 0), step.out.buffer.root.nbytes(self.n, self.t))
        return f"layer {max(sizes, key=lambda place: sizes[place])}" if sizes else "the network"

    def __str__(self) -> str:
        return describe(self)

    def __repr__(self) -> str:
        steps = len(self.forward) + len(self.relevance)
        return (
            f"Plan({self.program!r}, n={self.n}, t={self.t}, {steps} steps, arena {self.arena:,} bytes, {self.macs:,} "
            "multiply-adds)"
        )

    def _repr_html_(self) -> str:
        return preformatted(str(self))
