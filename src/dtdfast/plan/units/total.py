"""An Add under the rule Pass, which gives all of its relevance to every operand; the Add record is in add.py."""

from __future__ import annotations

from ..lowering import Lowering
from ..steps import Buffer, Step, View
from ..tensors import Box, Handed
from .base import Balance, Unit, Vector


class Total(Unit):
    """An add that gives all of its relevance to every operand (rule Pass)."""

    transparent = False

    def sign(self) -> bool:
        return all(s.nonnegative for s in self.sources)

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return "R"

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        out = lowering.new_value(self)
        for number, source in enumerate(self.sources):
            lowering.emit(Step("MOVE", self, View(out), View(lowering.value(source)), accumulate=number > 0))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        for source in self.sources:
            if not source.wanted:
                continue
            if lowering.gradient:
                out, accumulate = lowering.sink(source)
                lowering.emit(Step("MOVE", self, View(out), View(r), accumulate=accumulate))
            else:
                lowering.passes(self, source, r)

    def balance(self, r: Vector, passed: Handed | None) -> Balance:
        surplus = -(len(self.sources) - 1.0) * r.reshape(len(r), -1).sum(axis=1)
        around = sum(not s.wanted for s in self.sources) * r.reshape(len(r), -1).sum(axis=1)
        return Balance("pass", {"surplus": surplus, "around stop": around}, 4.0)
