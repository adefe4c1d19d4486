"""Each neuron's row: of its own rule, or of the first layer's where it reads the network's input; and its box."""

from __future__ import annotations

from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ..errors import DomainError, RuleError
from ..layers import Linear
from ..rules import Row, Rule, ZBox, ZPlus, ZPlusBySign
from .builder import Builder
from .domain import Domain, broadcast_bounds, single
from .parts import Part
from .shapes import axis_of
from .tensors import Box, Tensor
from .units import Copy, Move, Neuron, Reshaping, Unit, Words

BY_SIGN = ZPlusBySign()
OF_INPUT = attrgetter("source.is_input")


class Boxes(NamedTuple):
    """Of tensors, by their numbers."""

    exact: dict[int, Box]
    rounded: dict[int, Box]  # as float32 steps compute them


def assign_rows(builder: Builder, units: list[Unit], domain: Domain) -> None:
    """Each neuron's row: the one given for it, else the first-layer rule where it reads the input, else its kind's."""
    boxes, rows = Boxes({}, {}), dict[int, Row]()  # by ids of the rules, which are those of the builder
    words = any(isinstance(u, Words) and not u.absorbs for u in units)
    bounds = domain.bounds(builder.input.shape) if domain.kind == "box" and not words else None
    if bounds is not None:
        boxes.exact[0], boxes.rounded[0] = bounds, single(bounds)
    for unit in units:
        if isinstance(unit, Words) and not unit.absorbs and domain.kind == "box":
            boxes.exact[unit.out.index] = words_box(builder, unit, domain)
        elif boxes.exact and (box := carry(boxes.exact, unit)) is not None:
            boxes.exact[unit.out.index] = box
        for index in boxes.exact.keys() - boxes.rounded.keys() if boxes.exact else ():
            boxes.rounded[index] = carry(boxes.rounded, unit) or single(boxes.exact[index])
        if isinstance(unit, Neuron):
            rule = rule_of(builder, unit, domain)
            if isinstance(rule, ZBox):
                assign_boxes(builder, unit, rule, any(p.source.is_input for p in unit.parts), boxes)
            if id(rule) not in rows:
                rows[id(rule)] = rule.row(builder.book.convention)
            unit.row = rows[id(rule)]


def carry(boxes: dict[int, Box], unit: Unit) -> Box | None:
    """The box behind a unit of data flow, in the bounds' type; operands that are not the input are unbounded (−∞,
    ∞).
    """
    sources = [boxes.get(t.index) for t in unit.sources]
    known = [b for b in sources if b is not None]
    if not known:
        return None
    real = known[0][0].dtype
    return unit.box([b or _unbounded(t, real) for b, t in zip(sources, unit.sources, strict=True)])


def _unbounded(tensor: Tensor, real: Any) -> Box:
    return np.full(tensor.shape, -np.inf, real), np.full(tensor.shape, np.inf, real)


def rule_of(builder: Builder, unit: Neuron, domain: Domain) -> Rule:
    """The rule of a neuron where it is; the same object for all neurons that share it."""
    rule, explicit = builder.rule[unit.parts[0].position]
    first = builder.book.preset.first
    if not explicit and first is not None and any(map(OF_INPUT, unit.parts)):
        rule = first if isinstance(first, Rule) else domain.rule
        if isinstance(rule, ZPlus) and builder.book.by_sign:
            rule = BY_SIGN
    if type(rule) is ZPlusBySign and unit.out.nonnegative:
        rule = one_sided(rule.stabilizer)
    return rule


@cache
def one_sided(stabilizer: float | None) -> Rule:
    """Z⁺ by the sign of y, where y is known to be ≥ 0."""
    return ZPlus(bias="none", stabilizer=stabilizer)


def assign_boxes(builder: Builder, unit: Neuron, rule: ZBox, reads_input: bool, boxes: Boxes) -> None:
    for part in unit.parts:
        where = builder.entries[part.position]
        if rule.low is not None:
            part.box = given_box(builder, part, rule, f"{where}: ZBox")
        elif part.source.index in boxes.exact:
            part.box, part.rounded = boxes.exact[part.source.index], boxes.rounded[part.source.index]
        elif not reads_input:
            raise RuleError(f"{where}: ZBox without bounds is for layers that read the input; give ZBox(low, high)")
        elif part.source.is_input:
            raise DomainError(f"{where}: the zB rule needs bounds of the input; pass domain=(low, high)")
        else:
            part.box = (np.full(part.source.shape, -np.inf), np.full(part.source.shape, np.inf))


def words_box(builder: Builder, unit: Words, domain: Domain) -> Box:
    low, high = broadcast_bounds(domain.low, domain.high, unit.out.shape, "domain", -1)
    words = tuple(range(low.ndim - 1))
    if (unit.weight < low.max(axis=words)).any() or (unit.weight > high.min(axis=words)).any():
        where = builder.entries[unit.position]
        spans = f"{unit.weight.min():g} to {unit.weight.max():g}"
        raise DomainError(f"{where}: its vectors span {spans} and leave the box of `domain`")
    return low, high


def given_box(builder: Builder, part: Part, rule: ZBox, where: str) -> Box:
    """A rule's own bounds, which are of what the entry reads, as its part reads it: moved within the entry."""
    chain: list[Unit] = []
    source = part.source
    while source.position == part.position and isinstance(
        unit := builder.maker.get(source.index), (Move, Reshaping, Copy)
    ):
        chain.insert(0, unit)
        (source,) = unit.sources
    record = builder.entries[part.position].record
    axis = axis_of(record.axis, source.shape, "Linear") if isinstance(record, Linear) else 0
    boxes = {source.index: broadcast_bounds(rule.low, rule.high, source.shape, where, axis)}
    for unit in chain:
        box = unit.box([boxes[t.index] for t in unit.sources])
        assert box is not None
        boxes[unit.out.index] = box
    return boxes[part.source.index]
