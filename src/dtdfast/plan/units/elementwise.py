"""Activations: part of the neuron before them, or units of their own. Dropout is nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from ... import layers as L
from ...errors import ShapeError
from ...rules import Slope
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..parts import Sum
from ..shapes import Shape, join
from ..steps import Buffer, Step, View
from ..tensors import Box, Tensor
from .base import Balance, Recipe, Unit, passes, same_shape


@dataclass(eq=False, repr=False)
class Elementwise(Unit):
    """An activation on its own: relevance passes, or takes its slope."""

    transparent = False
    activation: L.ReLU | L.Activation = field(kw_only=True)
    sloped: bool = False

    def sign(self) -> bool:
        return self.activation.function.sign(self.activation, self.sources[0].nonnegative)

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return self.out.form if self.activation.function.product else "R"

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        source = lowering.value(self.sources[0])
        lowering.activate(self, self.activation, lowering.like(self, source), source)

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        (source,), slope = self.sources, lowering.gradient or (self.sloped and not self.activation.function.product)
        if not slope and source.form != "c":
            rectifies = self.sloped and self.out.form == "R"  # x ⊙ c is 0 where x is
            lowering.passes(self, source, lowering.rectified(self, r) if rectifies else r)
            return
        if slope:
            r = r if lowering.gradient else lowering.whole(self, r)
            m = lowering.buffer(f"g{lowering.label(self.out)}", self.out.shape)
            lowering.activate(self, self.activation, m, lowering.value(source), derivative=True)
        else:  # a ReLU: x = max(0, y), so c passes where it is active
            m = lowering.value(self.out)
        out, accumulate = lowering.sink(source)
        step = Step("MULTIPLY", self, View(out), View(r), m=View(m), accumulate=accumulate, repeat=lowering.t)
        step.multiplier = "times" if slope else "positive"
        lowering.emit(step)

    def balance(self) -> Balance:
        return passes()


def activation(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """Into the epilogue of the neuron that this entry alone reads, else a unit of its own."""
    record, (source,) = entry.record, sources
    assert isinstance(record, (L.ReLU, L.Activation))
    folding, turned = builder.folding, source.index in builder.turned
    unit = builder.turned[source.index].neuron if turned else builder.maker.get(source.index)
    slopes = isinstance(record, L.Activation) and record.slopes is not None
    sloped = builder.book.listed is not None and isinstance(builder.book.explicit(entry.position), Slope)
    if sloped and not record.function.product:
        unit = None  # whose derivative is that of its own input
    if isinstance(unit, Sum) and slopes and (unit.parts[0].window is not None or turned):
        unit = None  # a derivative per channel does not meet a factor per position, nor channels that lie elsewhere
    if (
        isinstance(unit, Sum)
        and unit.fuses
        and unit.activation is None
        and folding.readers[folding.reads[entry.position][0]] == [entry.position]
    ):
        unit.activation, unit.sloped = record, sloped
        unit.entries = (*unit.entries, entry.position)
        source.position = entry.position
        return source
    return builder.put(Elementwise((entry.position,), sources, builder.tensor(entry), activation=record, sloped=sloped))


def activation_shape(record: L.Activation, shape: Shape) -> Shape:
    slopes = () if record.slopes is None else record.slopes.shape
    if slopes not in ((), shape[:1], shape):
        raise ShapeError(
            f"slopes has shape {slopes}; its input is (n, {join(shape)}): give one slope per channel, or one per "
            "element"
        )
    return shape


def dropout(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    raise AssertionError(f"{entry} vanishes before units are made (fold.py)")


RECORDS: dict[type[L.Layer], Recipe] = {
    L.ReLU: Recipe(same_shape, activation),
    L.Activation: Recipe(activation_shape, activation),
    L.Dropout: Recipe(same_shape, dropout),
}
