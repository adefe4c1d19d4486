"""Constants and what samples bring along: they read nothing, and relevance ends here."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..shapes import Shape
from ..steps import Buffer, Step, View
from ..tensors import Box, Floats, Lost, Tensor
from .base import Balance, Recipe, Unit, passes


@dataclass(eq=False, repr=False)
class Fixed(Unit):
    """A constant: it reads nothing, and relevance ends here."""

    transparent = False
    value: Floats = field(kw_only=True)

    @property
    def absorbs(self) -> bool:
        return True

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

    def balance(self) -> Balance:
        return absorbed()


@dataclass(eq=False, repr=False)
class Supplied(Unit):
    """An array of the caller's beside x, with values of every sample; as a constant, it takes relevance no further."""

    transparent = False
    name: str = field(kw_only=True)
    integer: bool = False

    @property
    def external(self) -> str:
        """The name of the array among those of the caller's."""
        return f"given {self.name}"

    @property
    def absorbs(self) -> bool:
        return True

    def sign(self) -> bool:
        return False

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        """The caller has its values: lower.py says where."""

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        raise AssertionError("nothing stands behind what is given that could be wanted")

    def balance(self) -> Balance:
        return absorbed()


def absorbed() -> Balance:
    """All relevance ends here."""
    return passes(4.0, Lost("constant"))


def constant(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(entry.record, L.Constant)
    value = np.asarray(entry.record.value)
    return builder.put(Fixed((entry.position,), (), builder.inner(entry, entry.shape), value=value))


def constant_shape(record: L.Constant) -> Shape:
    return record.value.shape


def given(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    record = entry.record
    assert isinstance(record, L.Given)
    unit = Supplied((entry.position,), (), builder.tensor(entry), name=record.name)
    unit.integer = record.integer
    return builder.put(unit)


def given_shape(record: L.Given) -> Shape:
    return tuple(record.shape)


RECORDS: dict[type[L.Layer], Recipe] = {
    L.Constant: Recipe(constant_shape, constant),
    L.Given: Recipe(given_shape, given),
}
