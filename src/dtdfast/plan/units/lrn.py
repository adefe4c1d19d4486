"""Local response normalisation: relevance passes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..steps import Buffer, Step, View
from ..tensors import Box, Tensor
from .base import Balance, Recipe, Unit, passes, same_shape


@dataclass(eq=False, repr=False)
class Normalise(Unit):
    """LRN: relevance passes."""

    transparent = False
    record: L.LRN = field(kw_only=True)

    def sign(self) -> bool:
        return self.sources[0].nonnegative

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return "R"

    def refusal(self, *, gradient: bool) -> str:
        if not gradient:
            return ""
        return "the gradient through LRN is not implemented; relevance passes through it under every rule"

    def forward(self, lowering: Lowering) -> None:
        r, x = self.record, View(lowering.value(self.sources[0]))
        step = Step("LRN", self, View(lowering.new_value(self)), x, size=r.size)
        step.lrn = (r.k, r.alpha / r.size, r.beta)
        lowering.emit(step)

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        lowering.passes(self, self.sources[0], r)

    def balance(self) -> Balance:
        return passes()


def lrn(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(entry.record, L.LRN)
    return builder.put(Normalise((entry.position,), sources, builder.tensor(entry), record=entry.record))


RECORDS: dict[type[L.Layer], Recipe] = {L.LRN: Recipe(same_shape, lrn)}
