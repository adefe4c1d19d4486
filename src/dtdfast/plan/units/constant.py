"""Constants: they read nothing, and relevance ends here."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..shapes import Shape
from ..steps import Buffer, Step, View
from ..tensors import Box, Floats, Handed, Tensor
from .base import Balance, Recipe, Unit, Vector


@dataclass(eq=False, repr=False)
class Fixed(Unit):
    """A constant: it reads nothing, and relevance ends here."""

    transparent = False
    value: Floats = field(kw_only=True)

    def sign(self) -> bool:
        return bool(self.value.min() >= 0)

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        bound = lowering.constant(self.value)
        lowering.emit(Step("MOVE", self, View(lowering.new_value(self)), bound=bound))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        raise AssertionError("nothing stands behind a constant that could be wanted")

    def balance(self, r: Vector, passed: Handed | None) -> Balance:
        return Balance("pass", {"constant": r.reshape(len(r), -1).sum(axis=1)}, 4.0)


def constant(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(entry.record, L.Constant)
    value = np.asarray(entry.record.value)
    return builder.put(Fixed((entry.position,), (), builder.inner(entry, entry.shape), value=value))


def constant_shape(record: L.Constant) -> Shape:
    return record.value.shape


RECORDS: dict[type[L.Layer], Recipe] = {L.Constant: Recipe(constant_shape, constant)}
