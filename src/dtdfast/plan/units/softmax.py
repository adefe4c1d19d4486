"""Softmax: held where it weighs something; by its own Taylor rule under attention="taylor"."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ... import layers as L
from ...errors import LayerError, ShapeError
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..order import order_of
from ..shapes import Shape, axis_of, join
from ..steps import Buffer, Step, View
from ..tensors import Box, Lost, Tensor
from .axes import reshaped
from .base import Balance, Recipe, Summands, Unit
from .constant import Fixed
from .gating import Gating


@dataclass(eq=False, repr=False)
class Probabilities(Unit):
    """exp(x)/Σ exp(x), or its logarithm. R_i = x_i (R_i − s_i Σ_j R_j) (Achtibat et al. 2024, prop. 3.1): in the form c
    the softmax's own derivative, s ⊙ (c − Σ s c).
    """

    transparent = False
    axis: int = field(kw_only=True)  # batch counted
    log: bool = False
    mask: np.ndarray | None = None
    within: np.ndarray | None = None  # a constant mask that is part of the one that is its second source
    taylor: bool = False

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        return self.sources[:1]

    def sign(self) -> bool:
        return not self.log

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return "c"

    def refusal(self, *, gradient: bool) -> str:
        if self.log:
            return "the logarithm of a softmax inside a network has no relevance rule; end the network before it"
        if self.taylor or gradient:
            return ""
        return (
            "a Softmax inside the network that is no attention's weights has no rule of its own; give "
            'attention="taylor", end the network before it, or explain with start='
        )

    @property
    def slot(self) -> int:
        """The axis of a view."""
        return self.axis if self.axis == 1 else self.axis + max(0, 4 - len(self.out.shape))

    def forward(self, lowering: Lowering) -> None:
        out, x = (
            View(lowering.new_value(self, order=order_of(self.out))),
            View(lowering.value(self.sources[0])),
        )
        step = Step("LOG_SOFTMAX" if self.log else "SOFTMAX", self, out, x, axis=self.slot)
        if len(self.sources) > 1:
            step.other, step.within = View(lowering.value(self.sources[1]), expand=self.out.shape), self.within
        elif self.mask is not None:
            step.selector = lowering.constant(self.mask.reshape(aligned(self.mask.shape, len(self.out.shape))))
        lowering.emit(step)

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        c, m = lowering.quotient(self, r), View(lowering.value(self.out))

        def write(out: Buffer, accumulate: bool) -> None:
            step = Step("SOFTMAX_BACK", self, View(out), View(c), m=m, axis=self.slot, repeat=lowering.t)
            step.accumulate = accumulate
            lowering.emit(step)

        source = self.sources[0]
        out, accumulate = lowering.sink(source, free=True)
        if source.form == "c":
            write(out, accumulate)
        else:
            temporary = lowering.buffer(f"t{lowering.label(source)}", source.shape, "nt")
            write(temporary, False)
            lowering.times_x(source, temporary, out, accumulate)

    def balance(self) -> Balance:
        lost = Lost("softmax"), Lost("softmax", -1.0, handed="total"), Lost("softmax", 0.0, handed="size")
        return Balance("softmax", 16.0 + 2.0 * self.out.shape[self.axis - 1], lost)

    def handed(self, lowering: Lowering, r: Buffer) -> Summands:
        """Of R_j = s_j c_j, x_j − Σ_i s_i x_i is handed on: c_j times the softmax's derivative at x.

        Its terms have the size |x_j| + Σ_i s_i |x_i| ≤ 2|x_j| + ||x_j| − Σ_i s_i |x_i||.
        """
        c, s, x = lowering.quotient(self, r), lowering.value(self.out), lowering.value(self.sources[0])
        change = lowering.buffer(f"h{lowering.label(self.out)}", self.out.shape, like=s)
        lowering.emit(Step("SOFTMAX_BACK", self, View(change), View(x), m=View(s), axis=self.slot))
        own, sizes, rest = (
            lowering.buffer(f"{name}{lowering.label(self.out)}", self.out.shape, like=s) for name in "uvw"
        )
        lowering.emit(Step("MULTIPLY", self, View(own), View(x), m=View(s), multiplier="times"))
        lowering.emit(Step("MULTIPLY", self, View(sizes), View(x), m=View(x), multiplier="sign"))
        lowering.emit(Step("SOFTMAX_BACK", self, View(rest), View(sizes), m=View(s), axis=self.slot))
        summands: Summands = {"total": [(View(c), View(change), "times")]}
        summands["size"] = [(View(c), View(part), "times") for part in (own, own, rest)]
        return summands


def aligned(shape: Shape, rank: int) -> Shape:
    """A shape with axes of size 1 before it."""
    return (1,) * (rank - len(shape)) + shape


def softmax(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    record = entry.record
    assert isinstance(record, L.Softmax)
    axis, mask, within = record.axis % (len(entry.shape) + 1), record.mask, None
    operands = sources
    if len(sources) > 1:
        if entry.sources[1] not in builder.known:
            raise LayerError(
                f"{entry}: its second operand, the mask, is computed from the network's input; make it of Givens and "
                "Constants"
            )
        kept = reshaped(builder, entry, sources[1], aligned(sources[1].shape, len(entry.shape)))
        if mask is not None:
            value = mask.reshape(aligned(mask.shape, len(entry.shape))).astype(np.float64)
            both = np.broadcast_shapes(kept.shape, value.shape)
            value = np.ascontiguousarray(np.broadcast_to(value, both))
            fixed = Fixed((entry.position,), (), builder.inner(entry, both), value=value)
            pair = (builder.put(fixed), kept)
            kept, mask = builder.put(Gating((entry.position,), pair, builder.inner(entry, both))), None
            within = value
        operands = (sources[0], kept)
    unit = Probabilities((entry.position,), operands, builder.tensor(entry), axis=axis, log=record.log)
    unit.mask, unit.within, unit.taylor = mask, within, not builder.book.holds
    return builder.put(unit)


def softmax_shape(record: L.Softmax, shape: Shape, given: Shape | None = None) -> Shape:
    axis_of(record.axis, shape, "Softmax")
    for mask in (None if record.mask is None else record.mask.shape, given):
        if mask is None:
            continue
        fits = len(mask) <= len(shape) and all(
            m in (1, s) for m, s in zip(aligned(mask, len(shape)), shape, strict=True)
        )
        if not fits:
            raise ShapeError(f"mask has shape {mask}, which does not broadcast to its input (n, {join(shape)})")
    return shape


RECORDS: dict[type[L.Layer], Recipe] = {L.Softmax: Recipe(softmax_shape, softmax)}
