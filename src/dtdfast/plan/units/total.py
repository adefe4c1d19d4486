"""An Add under the rule Pass, which gives all of its relevance to every operand; the Add record is in add.py."""

from __future__ import annotations

from ..lowering import Lowering
from ..steps import Buffer, Step, View
from ..tensors import Box, Lost
from .base import Balance, Unit, passes


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

    def balance(self) -> Balance:
        surplus, around = 1.0 - len(self.sources), float(sum(not s.wanted for s in self.sources))
        return passes(4.0, Lost("surplus", surplus), Lost("around stop", around))
