"""Products of two computed matrices: attention's, whose one operand is held, and those whose operands are alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import layers as L
from ...errors import ShapeError
from ..builder import Builder
from ..entries import Entry
from ..held import Weighted, emit_product, exchanged
from ..lowering import Lowering
from ..order import order_of
from ..shapes import Shape, join
from ..steps import Buffer, View
from ..taps import identity
from ..tensors import Box, Lost, Tensor
from .affine import Affine
from .axes import own, reshaped
from .base import Balance, Recipe, Summands, Unit, always
from .copies import expanded
from .gating import size
from .held import HeldNeuron
from .origin import made_by_softmax

Pair = tuple[bool, bool]


class Attention(HeldNeuron):
    """A product whose matrix is held: sources = (the other operand, the matrix)."""

    @property
    def weighted(self) -> Weighted:
        part = self.part
        assert isinstance(part, Weighted)
        return part

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        return self.sources[:1]

    def place(self, lowering: Lowering) -> Buffer:
        return lowering.new_value(self, order=order_of(self.out))

    def value(self, lowering: Lowering, out: Buffer) -> None:
        x = View(lowering.value(self.sources[0]))
        self.weighted.product(lowering, x, dict(out=View(out)), scatter=False)

    def derivative(self, lowering: Lowering, r: Buffer) -> None:
        part = self.weighted
        order = (1, 0) if part.left else (0, 1)  # of the operands as they are multiplied
        sources = tuple(self.sources[k] for k in order)
        transposed = tuple(part.transposed[k] for k in order)
        derivative(lowering, (sources[0], sources[1]), (transposed[0], transposed[1]), r, 1.0)


@dataclass(eq=False, repr=False)
class Product(Unit):
    """scale · A B of operands that are alike: each takes half of the relevance, or none can be told (`taylor`)."""

    transparent = False
    transposed: Pair = field(default=(False, False), kw_only=True)
    scale: float = field(default=1.0, kw_only=True)
    taylor: bool = field(default=False, kw_only=True)

    def sign(self) -> bool:
        return self.scale > 0 and all(s.nonnegative for s in self.sources)

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return "c"

    def refusal(self, *, gradient: bool) -> str:
        if gradient or self.taylor:
            return ""
        return (
            "it multiplies two computed operands, and not exactly one of them was made by a Softmax; which one is the "
            'signal cannot be told: attention="taylor" gives half to each'
        )

    def forward(self, lowering: Lowering) -> None:
        out = lowering.new_value(self, order=order_of(self.out))
        first, second = (
            exchanged(View(lowering.value(s)), e) for s, e in zip(self.sources, self.transposed, strict=True)
        )
        emit_product(lowering, (first, second), dict(out=View(out), coefficient=self.scale))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        """c_A = ½ scale · c_y Bᵀ, c_B = ½ scale · Aᵀ c_y; a gradient: without the ½."""
        part = self.scale * (1.0 if lowering.gradient else 0.5)
        c = lowering.quotient(self, r)
        derivative(lowering, (self.sources[0], self.sources[1]), self.transposed, c, part)

    def balance(self) -> Balance:
        first, second = self.sources
        rounding, around = (
            16.0 + 2.0 * max(*first.shape[-2:], *second.shape[-2:]),
            0.5 * (2 - first.wanted - second.wanted),
        )
        if self.out.form == "c":  # R = y ⊙ c is 0 where y is
            return Balance("halves", rounding, (Lost("around stop", around),))
        rest = Lost("zero denominator"), Lost("zero denominator", -1.0, handed="total")
        return Balance("halves", rounding, (*rest, Lost("around stop", around, handed="total")))

    def handed(self, lowering: Lowering, r: Buffer) -> Summands:
        """R where y is not 0."""
        return {"total": [(View(r), size(self, lowering, self.out), "positive")]}


def derivative(lowering: Lowering, sources: tuple[Tensor, Tensor], transposed: Pair, r: Buffer, factor: float) -> None:
    """c_A = factor · c_y Bᵀ, c_B = factor · Aᵀ c_y, for the operands from which something is wanted."""
    values = [exchanged(View(lowering.value(s)), e) for s, e in zip(sources, transposed, strict=True)]
    for number, (source, exchange) in enumerate(zip(sources, transposed, strict=True)):
        if not source.wanted:
            continue
        sink, accumulate = lowering.sink(source, free=True)
        plain = source.form == "c"  # else another reader hands R
        out = sink if plain else lowering.buffer(f"t{lowering.label(source)}", source.shape, "nt", plain=True)
        fields: dict[str, Any] = dict(out=exchanged(View(out), exchange), repeat=lowering.t)
        other = exchanged(values[1 - number], True)
        operands = (View(r), other) if number == 0 else (other, View(r))
        emit_product(lowering, operands, {**fields, "accumulate": accumulate and plain, "coefficient": factor})
        if not plain:
            lowering.times_x(source, out, sink, accumulate)


# ------------------------------------------------------------------------------------------------------------- records


def matmul(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """Operands of three or four axes, their batch axes alike; as attention where exactly one of them is a softmax's."""
    record = entry.record
    assert isinstance(record, L.MatMul)
    *batch, _, _ = entry.shape
    merged = tuple(batch) if 1 <= len(batch) <= 2 else (math.prod(batch),)
    operands = []
    for source in sources:
        full = (*batch, *source.shape[-2:])
        source = expanded(builder, entry, source, full)
        operands.append(reshaped(builder, entry, source, (*merged, *full[-2:])))
    transposed = (record.transpose_a, record.transpose_b)
    held = [position in builder.known for position in entry.sources]
    known = any(held)
    if all(held):
        held = [True, False]
    if not known:
        held = [made_by_softmax(builder, position) for position in entry.sources]
    out = builder.inner(entry, (*merged, *entry.shape[-2:]))
    made: Tensor
    if sum(held) == 1 and (known or builder.book.holds):
        matrix = held.index(True)
        x, weights = operands[1 - matrix], times(builder, entry, operands[matrix], record.scale)
        part = Weighted(entry.position, x, identity(x.channels, x.space), matrix=weights)
        part.left, part.transposed = matrix == 0, (transposed[1 - matrix], transposed[matrix])
        builder.rule[entry.position] = builder.rule_for(entry, builder.book.attention())
        made = builder.put(Attention((entry.position,), (x, weights), out, parts=[part]))
    else:
        unit = Product((entry.position,), (operands[0], operands[1]), out, transposed=transposed)
        unit.scale, unit.taylor = record.scale, not builder.book.holds
        made = builder.put(unit)
    return own(builder, entry, sources, reshaped(builder, entry, made, entry.shape))


def times(builder: Builder, entry: Entry, matrix: Tensor, factor: float) -> Tensor:
    """A held matrix times a number, so that the product is one neuron with one rule."""
    if factor == 1.0:
        return matrix
    scale = np.full(matrix.channels, factor)
    return builder.put(Affine((entry.position,), (matrix,), builder.inner(entry, matrix.shape), scale=scale))


def matmul_shape(record: L.MatMul, first: Shape, second: Shape) -> Shape:
    if min(len(first), len(second)) < 2 or len(first) != len(second):
        raise ShapeError(
            f"its operands are (n, {join(first)}) and (n, {join(second)}); expected as many axes, at least two behind "
            "the batch"
        )
    rows, inner = first[-2:][:: -1 if record.transpose_a else 1]
    other, columns = second[-2:][:: -1 if record.transpose_b else 1]
    if inner != other or any(a != b and 1 not in (a, b) for a, b in zip(first[:-2], second[:-2], strict=True)):
        raise ShapeError(
            f"its operands (n, {join(first)}) and (n, {join(second)}) do not fit: {inner} columns meet {other} rows"
        )
    return (*(max(a, b) for a, b in zip(first[:-2], second[:-2], strict=True)), rows, columns)


RECORDS: dict[type[L.Layer], Recipe] = {L.MatMul: Recipe(matmul_shape, matmul, always)}
