"""Affine maps that fold into nothing: a linear layer of one tap, or passed by relevance, or where join.py says.

fold.py decides which of them fold into the layers beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from ...errors import LayerError, ShapeError
from ...rules import Pass, Rule, Slope, ZBox
from ..builder import Builder
from ..entries import Entry
from ..fold import affine, per_channel
from ..lowering import Lowering
from ..parts import Part
from ..shapes import Shape, check_channels, join
from ..steps import Buffer, Step, View
from ..taps import identity
from ..tensors import Box, Floats, Lost, Tensor
from .axes import reshaped, turned, turned_back
from .base import Balance, Recipe, Summand, Summands, Unit, Vector, full_column, passes
from .neuron import Neuron


@dataclass(eq=False, repr=False)
class Affine(Unit):
    """x·scale + shift per channel that cannot be folded: relevance passes, or goes where join.py says.

    Attributes
    ----------
    split : of a joined neuron's relevance, what goes by the products of its value's sign and what by the others, (1, 0)
        but for αβ
    falls_back : its rule is αβ with a fallback, which a joined neuron does not have
    shares : per source, how much of R it is handed, (c,); None: all
    tapped : ±1 in the channels whose R goes to the source number `open_to` where tapped·x > 0, x that of the first,
        else 0
    """

    transparent = True
    scale: Floats = field(kw_only=True)
    shift: Floats | None = None
    prepares: bool = False  # the network's input, before all rules
    split: tuple[float, float] | None = None
    falls_back: bool = False
    shares: tuple[Floats, ...] | None = None
    tapped: Floats | None = None
    open_to: int = 0

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        opens = self.tapped is not None and self.open_to == 0
        first = self.shares is None or opens or len(self.sources) == 1 or bool(self.shares[0].any())
        return self.sources if first else self.sources[1:]

    def sign(self) -> bool:
        positive = all(s.nonnegative for s in self.sources)
        return positive and bool((self.scale >= 0).all()) and (self.shift is None or bool((self.shift >= 0).all()))

    def box(self, given: list[Box]) -> Box | None:
        column, real = full_column(self.out.shape), given[0][0].dtype
        scale, shift = (np.zeros(1) if v is None else v.reshape(column) for v in (self.scale, self.shift))
        with np.errstate(over="ignore", under="ignore"):
            scale, shift = scale.astype(real), shift.astype(real)
        ends = [np.where(scale == 0, 0.0, bound) * scale + shift for bound in given[0]]  # a bound may be infinite
        return np.minimum(*ends), np.maximum(*ends)

    @property
    def form(self) -> str:
        return "R"

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        source = lowering.value(self.sources[0])
        shift = None if self.shift is None else lowering.constant(self.shift)
        lowering.emit(
            Step(
                "AFFINE",
                self,
                View(lowering.new_value(self)),
                View(source),
                vector=lowering.constant(self.scale),
                bias=shift,
            )
        )
        if self.tapped is not None:
            self._open(lowering)

    def forward_twin(self, lowering: Lowering) -> None:
        if self.tapped is not None and self.in_relevance:
            self._open(lowering)

    def _open(self, lowering: Lowering) -> None:
        """What is positive where relevance goes to its first source."""
        assert self.tapped is not None
        assert self.shares is not None
        source = self.sources[0]
        taps = lowering.passing[self.out.index] = lowering.buffer(f"p{lowering.label(self.out)}", self.out.shape)
        x, vector = View(lowering.value(source)), lowering.constant(self.tapped)
        bias = lowering.constant(self.shares[self.open_to])
        lowering.emit(Step("AFFINE", self, View(taps), x, vector=vector, bias=bias))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        if lowering.gradient:
            out, accumulate = lowering.sink(self.sources[0])
            scale = lowering.constant(self.scale)
            lowering.emit(Step("AFFINE", self, View(out), View(r), vector=scale, accumulate=accumulate))
        elif self.shares is None:
            lowering.passes(self, self.sources[0], r)
        else:
            self._spread(lowering, self.shares, r)

    def _spread(self, lowering: Lowering, shares: tuple[Floats, ...], r: Buffer) -> None:
        """To every source its share per channel, to the first where its taps are open."""
        r, carriers = lowering.whole(self, r), self.carriers
        for number, (source, share) in enumerate(zip(self.sources, shares, strict=True)):
            if not source.wanted or source not in carriers:
                continue
            out, accumulate = lowering.sink(source)
            if number == self.open_to and self.tapped is not None:
                m = View(lowering.passing[self.out.index])
                lowering.emit(
                    Step(
                        "MULTIPLY",
                        self,
                        View(out),
                        View(r),
                        m=m,
                        multiplier="positive",
                        accumulate=accumulate,
                        repeat=lowering.t,
                    )
                )
            else:
                lowering.emit(
                    Step("AFFINE", self, View(out), View(r), vector=lowering.constant(share), accumulate=accumulate)
                )

    def balance(self) -> Balance:
        if self.shares is None:
            return passes()
        rest = Lost("zero denominator"), Lost("zero denominator", -1.0, handed="total")
        return Balance("scale", 8.0, (*rest, Lost("around stop", handed="around")))

    def handed(self, lowering: Lowering, r: Buffer) -> Summands:
        """Per source R·share, or R where its taps are open."""
        result: Summands = {"total": [], "around": []}
        r, column = lowering.whole(self, r), full_column(self.out.shape)
        for number, (source, share) in enumerate(zip(self.sources, self.shares or (), strict=True)):
            found: Summand = (View(r), lowering.constant(share.reshape(column)), "times")
            if number == self.open_to and self.tapped is not None:
                found = (View(r), View(lowering.passing[self.out.index]), "positive")
            result["total"].append(found)
            if not source.wanted:
                result["around"].append(found)
        return result


# ------------------------------------------------------------------------------------------------------------- records


def make(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    return mapped(builder, entry, sources[0])


def mapped(builder: Builder, entry: Entry, source: Tensor, n_axes: int | None = None) -> Tensor:
    """Nothing takes it in: a linear layer of one tap, its shift as bias, or passed by relevance; `n_axes` before it
    was flattened.
    """
    record = entry.record
    assert isinstance(record, (L.BatchNorm, L.Scale))
    if isinstance(record, L.Scale) and not per_channel(record, entry.shape):
        return scaled(builder, entry, source, record.scale, record.shift)
    if len(source.shape) > 4:
        return broad(builder, entry, source)
    scale, shift = affine(record)
    own_rule = builder.book.explicit(entry.position)
    rule = own_rule or builder.book.affine((n_axes or len(entry.shape)) == 1)
    row = None if isinstance(rule, (Pass, Slope)) else rule.row(builder.book.convention)
    split = None if row is None else row.split
    if row is None or split or (own_rule is None and transparent(builder, rule, source)):
        unit = Affine(
            (entry.position,), (source,), builder.tensor(entry), scale=scale, shift=shift if shift.any() else None
        )
        unit.shares = (scale,) if isinstance(rule, Slope) else None
        unit.split = None if own_rule is None and source.is_input else split
        unit.falls_back = row is not None and row.falls_back
        return builder.put(unit)
    part = Part(entry.position, source, identity(source.channels, source.space), scale.reshape(-1, 1, 1, 1, 1))
    builder.rule[entry.position] = (rule, own_rule is not None)
    bias = shift if shift.any() else None
    return builder.put(Neuron((entry.position,), (source,), builder.tensor(entry), parts=[part], bias=bias))


def transparent(builder: Builder, rule: Rule, source: Tensor) -> bool:
    """Whether relevance passes an affine that takes no tap: at the input where a first-layer rule is looked for
    behind it.
    """
    first = builder.book.preset.first if builder.book.everywhere() is None else None
    return (source.is_input and first is not None) or isinstance(rule, ZBox)


def preparation(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """What becomes of the input before the network: relevance passes."""
    record, (source,) = entry.record, sources
    assert isinstance(record, L.Preparation)
    if not source.is_input:
        raise LayerError(
            f"{entry}: a Preparation prepares the network's input, but reads something computed; inside a network "
            "use Scale"
        )
    scale, shift = affine(record)
    return builder.put(
        Affine(
            (entry.position,),
            sources,
            builder.tensor(entry),
            scale=scale,
            shift=shift if shift.any() else None,
            prepares=True,
        )
    )


def scaled(builder: Builder, entry: Entry, source: Tensor, factor: NDArray[Any], shift: NDArray[Any] | None) -> Tensor:
    """An affine map that varies along any axes: per channel of the flattened sample."""
    vector, offset = full(factor, entry.shape), None if shift is None else full(shift, entry.shape)
    flat = reshaped(builder, entry, source, (math.prod(source.shape),))
    seen = Entry(entry.position, L.Scale(vector, offset, name=entry.record.name), entry.sources, flat.shape)
    made = mapped(builder, seen, flat, len(entry.shape))
    return reshaped(builder, entry, made, entry.shape)


def broad(builder: Builder, entry: Entry, source: Tensor) -> Tensor:
    """A map per channel on more spatial axes than a kernel has."""
    read = turned(builder, entry, source, (0,))
    seen = Entry(entry.position, entry.record, entry.sources, read.shape)
    made = mapped(builder, seen, read, len(entry.shape))
    return turned_back(builder, entry, made, (0,), entry.shape)


def full(values: NDArray[Any], shape: Shape) -> Vector:
    """An array that broadcasts against a sample (of one axis: per channel), flattened at the sample's size."""
    column = values.reshape(-1, *(1,) * (len(shape) - 1)) if values.ndim == 1 else values
    return np.ascontiguousarray(np.broadcast_to(np.asarray(column, np.float64), shape)).reshape(-1)


def norm_shape(record: L.BatchNorm | L.Preparation, shape: Shape) -> Shape:
    check_channels((record.mean if isinstance(record, L.BatchNorm) else record.scale).shape[0], shape)
    return shape


def scale_shape(record: L.Scale, shape: Shape) -> Shape:
    for key, array in (("scale", record.scale), ("shift", record.shift)):
        if array is None:
            continue
        if array.ndim == 1 and array.shape != (1,) * len(shape):
            check_channels(array.shape[0], shape)
        elif array.ndim != len(shape) or any(s not in (1, size) for s, size in zip(array.shape, shape, strict=True)):
            raise ShapeError(
                f"{key} has shape {array.shape}, which does not broadcast against a sample of its input (n, "
                f"{join(shape)}); "
                f"expected ({shape[0]},), or {len(shape)} axes with sizes of 1 or the sample's"
            )
    return shape


RECORDS: dict[type[L.Layer], Recipe] = {
    L.BatchNorm: Recipe(norm_shape, make),
    L.Scale: Recipe(scale_shape, make),
    L.Preparation: Recipe(norm_shape, preparation),
}
