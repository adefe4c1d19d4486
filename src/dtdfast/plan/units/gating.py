"""Products: a signal and a gate, whose relevance goes to the signal; with a constant it is a Scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..steps import Buffer, Step, View
from ..tensors import Box, Handed, Region, Tensor
from .add import broadcast_shape
from .affine import scaled
from .base import Balance, Recipe, Unit, Vector, passes
from .constant import Fixed
from .copies import expanded
from .move import MOVES


@dataclass(eq=False, repr=False)
class Gating(Unit):
    """signal · gate: relevance to the signal. sources = (signal, gate); the gate may have size 1 where the signal has
    more.
    """

    transparent = False
    gates: int = 1  # how many operands a sigmoid made; relevance needs exactly one

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        return self.sources[:1]

    def sign(self) -> bool:
        return all(s.nonnegative for s in self.sources)

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        if gradient:
            return ""
        if self.gates != 1:
            return (
                f"{self.gates} of its operands are made by a sigmoid, expected exactly one (the gate); "
                "relevance goes to the signal, and which one that is cannot be told"
            )
        if self.sources[0].shape != self.out.shape:
            return f"its signal (n, {self.sources[0].shape}) is smaller than its gate; only the gate may be repeated"
        return ""

    def forward(self, lowering: Lowering) -> None:
        signal, gate = (View(lowering.value(s), expand=self.out.shape) for s in self.sources)
        lowering.emit(Step("MULTIPLY", self, View(lowering.new_value(self)), signal, m=gate, multiplier="times"))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        signal, gate = self.sources
        if lowering.gradient:
            for operand, other in ((signal, gate), (gate, signal)):
                if operand.wanted:
                    self._gradient(lowering, operand, other, r)
            return

        def write(out: Buffer, accumulate: bool) -> None:
            if self.out.form == "R":
                lowering.emit(Step("MOVE", self, View(out), View(r), accumulate=accumulate))
                return
            m = View(lowering.value(gate), expand=self.out.shape)
            step = Step("MULTIPLY", self, View(out), View(r), m=m, multiplier="times", repeat=lowering.t)
            step.accumulate = accumulate
            lowering.emit(step)

        lowering.deliver(self, signal, write)

    def _gradient(self, lowering: Lowering, operand: Tensor, other: Tensor, r: Buffer) -> None:
        """c_operand = other ⊙ c, summed over space where the operand was repeated."""
        out, accumulate = lowering.sink(operand)
        m = View(lowering.value(other), expand=self.out.shape)
        if operand.shape == self.out.shape:
            step = Step("MULTIPLY", self, View(out), View(r), m=m, multiplier="times", repeat=lowering.t)
            step.accumulate = accumulate
            lowering.emit(step)
            return
        product = lowering.buffer(f"t{lowering.label(self.out)}", self.out.shape, "nt")
        lowering.emit(Step("MULTIPLY", self, View(product), View(r), m=m, multiplier="times", repeat=lowering.t))
        index: tuple[int, ...]
        axes = tuple(size if small == 1 else 1 for size, small in zip(self.out.shape, operand.shape, strict=True))
        for number, index in enumerate(np.ndindex(*axes)):
            ranges = tuple((i, 1, s) for i, s in zip(index, operand.shape, strict=True))
            lowering.emit(
                Step("MOVE", self, View(out), View(product, Region(ranges)), accumulate=accumulate or number > 0)
            )

    def balance(self, r: Vector, passed: Handed | None) -> Balance:
        return passes()


def mul(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """A product with a constant is a Scale; else the signal is repeated to its full size, and the gate read as it
    is.
    """
    fixed = [isinstance(builder.maker.get(s.index), Fixed) for s in sources]
    if any(fixed):
        signal, factor = sources[::-1] if fixed[0] and not fixed[1] else sources
        maker = builder.maker[factor.index]
        assert isinstance(maker, Fixed)
        value = maker.value.reshape((1,) * (len(entry.shape) - maker.value.ndim) + maker.value.shape)
        return scaled(builder, entry, expanded(builder, entry, signal, entry.shape), value, None)
    unit = gated(builder, entry, sources)
    signal = expanded(builder, entry, unit.sources[0], entry.shape)
    return builder.put(replace(unit, sources=(signal, unit.sources[1])))


def gated(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Gating:
    """Order the operands as (signal, gate): the gate is the one made by a sigmoid, else the one that is an affine
    image of such.
    """
    gates = [is_gate(builder, s, affine=False) for s in entry.sources]
    if not any(gates):
        gates = [is_gate(builder, s, affine=True) for s in entry.sources]
    signal, gate = sources if not gates[0] else sources[::-1]
    if sum(gates) != 1:  # fine for predict; explaining refuses it (resolve.py)
        signal, gate = sources if sources[0].shape == entry.shape else sources[::-1]
    unit = Gating((entry.position,), (signal, gate), builder.tensor(entry))
    unit.gates = sum(gates)
    return unit


def is_gate(builder: Builder, position: int, *, affine: bool) -> bool:
    """Made by a sigmoid and perhaps moved since; with `affine` also scaled and shifted, as in 1 + σ(x), 2σ(x) or 1
    − σ(x).
    """
    passed = (
        L.Dropout,
        L.Flatten,
        L.Reshape,
        L.Gather,
        L.Expand,
        *MOVES,
        *((L.Scale, L.BatchNorm) if affine else ()),
    )
    while position != L.INPUT:
        entry = builder.entries[position]
        if isinstance(entry.record, L.Activation):
            return entry.record.function.gates
        if not isinstance(entry.record, passed) or len(entry.sources) != 1:
            return False
        (position,) = entry.sources
    return False


RECORDS: dict[type[L.Layer], Recipe] = {L.Mul: Recipe(broadcast_shape, mul)}
