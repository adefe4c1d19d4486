"""Products of two operands: relevance goes to the signal and not to the gate, or by shares; with a constant a Scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..steps import Buffer, Step, View
from ..tensors import Box, Lost, Region, Tensor
from .add import broadcast_shape
from .affine import scaled
from .base import Balance, Recipe, Summands, Unit, passes
from .constant import Fixed
from .copies import expanded
from .origin import is_activation, is_gate, is_rectifier, made_by

AFFINE = (L.Scale, L.BatchNorm)


@dataclass(eq=False, repr=False)
class Gating(Unit):
    """signal · gate; sources = (signal, gate). A gate that takes nothing may have size 1 where the signal has more."""

    transparent = False
    shares: tuple[float, float] = (1.0, 0.0)  # of the relevance, that signal and gate take
    unclear: str = ""  # why it cannot be told which operand is the gate
    masks: bool = False  # the gate is computed from no input: what comes to where it is 0 is absorbed there

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        return tuple(s for s, share in zip(self.sources, self.shares, strict=True) if share)

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
        if self.unclear:
            return self.unclear
        if any(share and s.shape != self.out.shape for s, share in zip(self.sources, self.shares, strict=True)):
            return f"its signal (n, {self.sources[0].shape}) is smaller than its gate; only the gate may be repeated"
        return ""

    def forward(self, lowering: Lowering) -> None:
        signal, gate = (View(lowering.value(s), expand=self.out.shape) for s in self.sources)
        out = lowering.like(self, lowering.value(self.sources[0]))
        lowering.emit(Step("MULTIPLY", self, View(out), signal, m=gate, multiplier="times"))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        signal, gate = self.sources
        for operand, other, share in ((signal, gate, self.shares[0]), (gate, signal, self.shares[1])):
            if not operand.wanted:
                continue
            if lowering.gradient:
                self._gradient(lowering, operand, other, r)
            elif share:
                lowering.deliver(self, operand, partial(self._share, lowering, self._part(lowering, r, share), other))

    def _part(self, lowering: Lowering, r: Buffer, share: float) -> Buffer:
        """Share · r."""
        if share == 1.0:
            return r
        part = lowering.buffer(f"t{lowering.label(self.out)}", self.out.shape, "nt")
        lowering.emit(Step("MULTIPLY", self, View(part), View(r), coefficient=share))
        return part

    def _share(self, lowering: Lowering, r: Buffer, other: Tensor, out: Buffer, accumulate: bool) -> None:
        if self.out.form == "R" and not self.masks:
            lowering.emit(Step("MOVE", self, View(out), View(r), accumulate=accumulate))
            return
        if self.out.form == "R":
            step = Step("MULTIPLY", self, View(out), View(r), m=size(self, lowering, other), multiplier="positive")
            step.accumulate, step.repeat = accumulate, lowering.t
            lowering.emit(step)
            return
        m = View(lowering.value(other), expand=self.out.shape)
        step = Step("MULTIPLY", self, View(out), View(r), m=m, multiplier="times", repeat=lowering.t)
        step.accumulate = accumulate
        lowering.emit(step)

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

    def balance(self) -> Balance:
        if self.masks:  # what comes to where the mask is 0 is not handed on
            return passes(4.0, Lost("constant"), Lost("constant", -1.0, handed="total"))
        lost = sum(share for s, share in zip(self.sources, self.shares, strict=True) if share and not s.wanted)
        return passes(4.0, *([Lost("around stop", lost)] if lost else []))

    def handed(self, lowering: Lowering, r: Buffer) -> Summands:
        if not self.masks:
            return {}
        if self.out.form == "c":  # R = x ⊙ c is 0 where the mask is
            return {"total": [(View(r), View(lowering.value(self.out)), "times")]}
        return {"total": [(View(r), size(self, lowering, self.sources[1]), "positive")]}


def size(unit: Unit, lowering: Lowering, tensor: Tensor) -> View:
    """|tensor| to the shape of a unit's output: positive where it is not 0."""
    value = lowering.value(tensor)
    if not tensor.nonnegative:
        made = lowering.buffer(f"m{lowering.label(tensor)}", tensor.shape, plain=True)
        lowering.emit(Step("MULTIPLY", unit, View(made), View(value), m=View(value), multiplier="sign"))
        value = made
    return View(value, expand=unit.out.shape)


def mul(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """A product with a constant is a Scale; else what takes relevance is repeated to its full size, and a gate that
    takes none read as it is.
    """
    fixed = [isinstance(builder.maker.get(s.index), Fixed) for s in sources]
    if any(fixed):
        signal, factor = sources[::-1] if fixed[0] and not fixed[1] else sources
        maker = builder.maker[factor.index]
        assert isinstance(maker, Fixed)
        value = maker.value.reshape((1,) * (len(entry.shape) - maker.value.ndim) + maker.value.shape)
        return scaled(builder, entry, expanded(builder, entry, signal, entry.shape), value, None)
    record = entry.record
    assert isinstance(record, L.Mul)
    known = [position in builder.known for position in entry.sources]
    masks = any(known) and record.share is None
    found = [known[0] and not known[1], known[1]] if masks else gates(builder, entry)
    turn = found[0] if record.share is None else record.share < 0.5
    if record.share is None and sum(found) != 1:
        turn = sources[0].shape != entry.shape
    unclear, shares = "", (1.0, 0.0)
    if record.share is not None:
        shares = (1.0 - record.share, record.share) if turn else (record.share, 1.0 - record.share)
    elif not builder.book.holds and not masks:
        shares = (0.5, 0.5)
    elif sum(found) != 1 and sources[0] is not sources[1]:  # a square's signal and gate are one
        unclear = (
            f"{sum(found)} of its operands are made by an activation other than ReLU (a sigmoid or softmax, say), "
            "expected exactly one (the gate); relevance goes to the signal, and which one that is cannot be told: give "
            'share= to the record, or attention="taylor" for half each'
        )
    operands = [
        expanded(builder, entry, s, entry.shape) if share or k == 0 else s
        for k, (s, share) in enumerate(zip(sources[::-1] if turn else sources, shares, strict=True))
    ]
    unit = Gating((entry.position,), (operands[0], operands[1]), builder.tensor(entry), shares=shares, unclear=unclear)
    unit.masks = masks
    return builder.put(unit)


def gates(builder: Builder, entry: Entry) -> list[bool]:
    """Which operands are gates: made by a sigmoid or softmax; else an affine image of such, as in 1 + σ(x), 2σ(x) or 1
    − σ(x); else made by another activation, or an affine image of such, where the other operand was made by none.
    """

    def made(wanted: Callable[[L.Layer], bool], through: tuple[type[L.Layer], ...] = AFFINE) -> list[bool]:
        return [made_by(builder, position, wanted, through) for position in entry.sources]

    for through in ((), AFFINE):
        found = made(is_gate, through)
        if any(found):
            return found
    found, rectified = made(is_activation), made(is_rectifier)
    return [True, True] if any(found) and any(rectified) else found


RECORDS: dict[type[L.Layer], Recipe] = {L.Mul: Recipe(broadcast_shape, mul)}
