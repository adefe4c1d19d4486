"""What a plan with a ledger sums of the relevance on its way down; ledger/rows.py makes rows of these sums.

Every sum is one step. Steps read the relevance of the plan without a ledger, and change nothing of it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .steps import SUMMING, Buffer, Step, View
from .tensors import Region, Tensor

if TYPE_CHECKING:
    from .lowering import Lowering
    from .units import Unit
    from .units.base import Summand

COLUMNS = 8
"""Sums of a step: the first two of SUMS, all of ACCOUNT (csrc/rows/sums.c)."""

BLOCK, MOST_BLOCKS = 4096, 64
"""Elements of a sample that one thread adds up, and the most such blocks of a sample: then they get larger."""


@dataclass(eq=False)
class Line:
    """The sums of one unit, by their numbers in the book.

    Attributes
    ----------
    came : R on its output
    before, after : R on its sources, without and with what it hands them
    lost : (cause, factor, numbers): Σ R that it absorbs
    shares : of a neuron, the ACCOUNT of each of its factors
    around : of a neuron, relevance handed to operands from which none comes to `stop`
    """

    unit: Unit
    came: int
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    lost: list[tuple[str, float, list[int]]] = field(default_factory=list)
    shares: list[int] = field(default_factory=list)
    around: list[int] = field(default_factory=list)


class Book:
    """The sums of a plan: emits their steps, and says where each of them lies in the array "ledger".

    Attributes
    ----------
    starts : of each sum, the first of its blocks along the last axis of (n, COLUMNS, blocks)
    sizes : of each sum, the elements that it adds up, of a sample
    parts : of a sum that several others make up, their numbers
    """

    def __init__(self, lowering: Lowering) -> None:
        self._lowering = lowering
        self.buffer = Buffer("ledger", (COLUMNS, 0), "n", "f8", external="ledger")
        self.lines: list[Line] = []
        self.starts: list[int] = []
        self.sizes: list[int] = []
        self.parts: dict[int, list[int]] = {}
        self._latest: dict[int, int] = {}  # tensor → its sums as last taken

    def prepare(self, tensor: Tensor) -> None:
        """Before the first steps that write relevance on a tensor: what its maker's sums read beside that, or the maker
        of what a permutation or reshape hands the same memory.
        """
        lowering = self._lowering
        maker, unit = lowering.makers.get(tensor.index), lowering.unit
        if maker is None or tensor is lowering.leaves or not maker.in_relevance or tensor.index in lowering.sizes:
            return
        if maker.reshapes or maker.order is not None:
            self.prepare(maker.sources[0])
            return
        lowering.unit = maker
        maker.prepare(lowering)
        lowering.unit = unit

    def open(self, unit: Unit, r: Buffer) -> Line:
        """Before the steps of a unit: what comes to it, and what it will absorb of that."""
        line = Line(unit, self._now(unit.out))
        self.lines.append(line)
        line.before = [self._latest[s.index] for s in self._takers(unit) if s.index in self._latest]
        balance = unit.balance()
        handed = unit.handed(self._lowering, r) if any(lost.handed for lost in balance.lost) else {}
        for lost in balance.lost:
            numbers = [line.came]
            if lost.handed:
                numbers = [self.sum(*summand) for summand in handed[lost.handed]]
            elif lost.region is not None:
                numbers = [self.sum(*self._relevance(unit.out, lost.region))]
            line.lost.append((lost.cause, lost.factor, numbers))
        unit.account(self._lowering, r, line)
        return line

    def close(self, line: Line, r: Buffer) -> None:
        """Behind the steps of a unit: what its sources have now."""
        line.unit.around(self._lowering, r, line)
        for source in self._takers(line.unit):
            self._latest[source.index] = self.sum(*self._relevance(source))
            line.after.append(self._latest[source.index])

    def sum(self, x: View, m: Any = None, multiplier: str = "times") -> int:
        """Emit Σ multiplier(m)·x and its absolute values; m is a view, a constant of a sample's shape or None."""
        step = Step("SUMS", None, x, x, multiplier="none" if m is None else multiplier)
        if isinstance(m, np.ndarray):
            step.bound = m
        else:
            step.m = m
        return self.emit(step)

    def emit(self, step: Step) -> int:
        """A step in its place; returns its number."""
        self._lowering.emit(step)
        return self.place(step)

    def place(self, step: Step) -> int:
        """Where its sums go; returns its number."""
        assert step.x is not None
        _, shape, _ = step.x.layout()
        blocks = min(MOST_BLOCKS, max(1, -(-math.prod(shape) // BLOCK)))
        first = self.buffer.shape[1]
        self.buffer.shape = (COLUMNS, first + blocks)
        columns = 2 if step.op == "SUMS" else COLUMNS
        step.out = View(self.buffer, Region(((0, 1, columns), (first, 1, blocks))))
        self.starts.append(first)
        self.sizes.append(math.prod(shape))
        return len(self.starts) - 1

    def divide(self, step: Step, part: Step) -> None:
        """The sums of a step are those of others, of which `part` is one."""
        self.parts.setdefault(self._number(step), []).append(self._number(part))

    def _number(self, step: Step) -> int:
        assert step.out.region is not None
        return bisect_left(self.starts, step.out.region.ranges[1][0])

    def depth(self, number: int) -> float:
        """Additions through which one element of a sum goes, at most: in and of lanes, in a block, of blocks."""
        size, blocks = self.sizes[number], min(MOST_BLOCKS, -(-self.sizes[number] // BLOCK))
        return 128.0 + size / (128.0 * blocks) + blocks

    def merged(self, steps: list[Step]) -> list[Step]:
        """Without SUMS of what an ACCOUNT sums too."""
        latest: dict[tuple[int, int], int] = {}  # x and m → the last SUMS of them
        dropped = set()
        for number, step in enumerate(steps):
            if step.op not in SUMMING or step.x is None or step.x.region is not None or step.multiplier == "positive":
                continue
            key = id(step.x.buffer), id(None if step.m is None else step.m.buffer)
            if step.op == "SUMS":
                latest[key] = number
            elif step.select == "all" and key in latest:
                dropped.add(latest[key])
                self.divide(steps[latest.pop(key)], step)
        return [step for number, step in enumerate(steps) if number not in dropped]

    @staticmethod
    def _takers(unit: Unit) -> list[Tensor]:
        return list({s.index: s for s in unit.carriers if s.wanted}.values())

    def _now(self, tensor: Tensor) -> int:
        if tensor.index not in self._latest:
            self._latest[tensor.index] = self.sum(*self._relevance(tensor))
        return self._latest[tensor.index]

    def _relevance(self, tensor: Tensor, region: Region | None = None) -> Summand:
        """R on a tensor: what is stored, times x where that is c."""
        lowering = self._lowering
        stored = View(lowering.relevances[tensor.index], region)
        return stored, View(lowering.value(tensor), region) if tensor.form == "c" else None, "times"
