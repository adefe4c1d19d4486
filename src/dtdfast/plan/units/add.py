"""Sums of operands as neurons: an Add is one with those linear operands that nobody else reads."""

from __future__ import annotations

import numpy as np

from ... import layers as L
from ...errors import RuleError, ShapeError
from ...rules import Pass, Slope
from ..builder import Builder, same
from ..entries import Entry
from ..fold import LINEAR
from ..parts import Part, Sum
from ..shapes import Shape, join
from ..taps import identity
from ..tensors import Floats, Tensor
from .axes import common_turn, turn_back, turned, turned_shape
from .base import Recipe, always
from .copies import expanded
from .neuron import Neuron
from .total import Total


def add(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    """One neuron together with those linear operands, under the same rule, that nobody else reads."""
    sources = tuple([s if s.shape == entry.shape else expanded(builder, entry, s, entry.shape) for s in sources])
    own_rule = builder.book.explicit(entry.position) or builder.book.everywhere()
    rule = own_rule or builder.book.add()
    makers = [
        builder.turned[s.index].neuron if s.index in builder.turned else builder.maker.get(s.index) for s in sources
    ]
    mergeable = [u for u in makers if isinstance(u, Sum) and merges(builder, u, entry.position)]
    if rule is None:
        rule = builder.rule[mergeable[0].parts[0].position][0] if mergeable else builder.book.preset.taps
        merged = [u for u in mergeable if same(builder.rule[u.parts[0].position][0], rule)]
    else:
        merged = [u for u in mergeable if own_rule is not None and same(builder.rule[u.parts[0].position][0], rule)]
    if isinstance(rule, Pass):
        return builder.put(Total((entry.position,), sources, builder.tensor(entry)))
    if isinstance(rule, Slope):
        raise RuleError(f"{entry}: Slope is no rule for an Add, whose slope is 1; give it Pass()")
    turn, merged = common_turn(builder, sources, merged)
    own = {id(u) for u in merged}
    turns = [builder.turned[s.index] for s in sources if s.index in builder.turned]
    builder.gone |= own | {id(u) for t in turns if id(t.neuron) in own for u in t.back}
    ones: list[Part] = []  # operands of weight 1 come first: they start the sums
    weighted: list[Part] = []
    entries: list[int] = []
    bias: Floats | None = None
    explicit = own_rule is not None or any(builder.rule[u.parts[0].position][1] for u in merged)
    for source, unit in zip(sources, makers, strict=True):
        if not isinstance(unit, Sum) or id(unit) not in own:
            source = source if turn is None else turned(builder, entry, source, turn)
            ones.append(Part(entry.position, source, identity(source.channels, source.space)))
            continue
        weighted += unit.parts
        entries.extend(unit.entries)
        if unit.bias is not None:
            bias = unit.bias if bias is None else np.asarray(bias, np.float64) + unit.bias
    parts = ones + weighted
    builder.rule[parts[0].position] = (rule, explicit)
    out = builder.tensor(entry) if turn is None else turned_shape(builder, entry, turn)
    neuron = Neuron((*entries, entry.position), tuple([p.source for p in parts]), out, parts=parts, bias=bias)
    return builder.put(neuron) if turn is None else turn_back(builder, entry, neuron, turn)


def merges(builder: Builder, unit: Sum, reader: int) -> bool:
    """Whether the one reader of a linear layer without an activation is this Add."""
    (part, *more) = unit.parts
    linear = isinstance(builder.entries[part.position].record, LINEAR)
    return linear and not more and unit.activation is None and builder.folding.readers[part.position] == [reader]


def broadcast_shape(record: L.Layer, *shapes: Shape) -> Shape:
    result, *others = shapes
    for other in others:
        if other == result:
            continue
        if len(other) != len(result) or any(a != b and 1 not in (a, b) for a, b in zip(result, other, strict=True)):
            raise ShapeError(
                f"its operands are (n, {join(result)}) and (n, {join(other)}); expected as many axes, "
                "and where their sizes differ, one of size 1"
            )
        result = tuple(b if a == 1 else a for a, b in zip(result, other, strict=True))
    return result


RECORDS: dict[type[L.Layer], Recipe] = {L.Add: Recipe(broadcast_shape, add, always)}
