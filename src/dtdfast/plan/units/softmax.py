"""Softmax: predicted, never explained."""

from __future__ import annotations

from dataclasses import dataclass, field

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..shapes import Shape, axis_of
from ..steps import Buffer, Step, View
from ..tensors import Box, Handed, Tensor
from .base import Balance, Recipe, Unit, Vector


@dataclass(eq=False, repr=False)
class Probabilities(Unit):
    """Softmax: predicted, never explained."""

    transparent = False
    axis: int = field(kw_only=True)  # batch counted
    log: bool = False

    def sign(self) -> bool:
        return not self.log

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        return "a Softmax inside the network has no relevance rule; end the network before it, or explain with start="

    def forward(self, lowering: Lowering) -> None:
        # axis (batch counted) → slot of a view
        slot = self.axis if self.axis == 1 else self.axis + max(0, 4 - len(self.out.shape))
        op = "LOG_SOFTMAX" if self.log else "SOFTMAX"
        out, x = View(lowering.new_value(self)), View(lowering.value(self.sources[0]))
        lowering.emit(Step(op, self, out, x, axis=slot))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        raise AssertionError(self.refusal(gradient=lowering.gradient))

    def balance(self, r: Vector, passed: Handed | None) -> Balance:
        raise AssertionError(self.refusal(gradient=False))


def softmax(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    record = entry.record
    assert isinstance(record, L.Softmax)
    axis = record.axis % (len(entry.shape) + 1)
    unit = Probabilities((entry.position,), sources, builder.tensor(entry), axis=axis, log=record.log)
    return builder.put(unit)


def softmax_shape(record: L.Softmax, shape: Shape) -> Shape:
    axis_of(record.axis, shape, "Softmax")
    return shape


RECORDS: dict[type[L.Layer], Recipe] = {L.Softmax: Recipe(softmax_shape, softmax)}
