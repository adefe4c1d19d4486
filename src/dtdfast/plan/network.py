"""From wired entries to units: folding and fusion, then the sign of every tensor and each neuron's rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from .. import layers as L
from ..errors import RuleError
from ..presets import RuleBook
from ..rules import Slope
from .builder import Builder
from .domain import Domain
from .entries import Entry
from .fold import fold
from .narrow import Narrowed, Place
from .rows import assign_rows
from .shapes import Shape
from .tensors import Tensor
from .units import RECIPES, Unit, shares
from .units.axes import one_place


@dataclass(eq=False)
class Network:
    """Units in topological order and the tensors between them."""

    units: list[Unit]
    tensors: list[Tensor]
    input: Tensor
    output: Tensor
    taken: dict[int, tuple[int, ...]]  # position of a folded entry → the entries that took it
    at: dict[int, Tensor]  # the caller's position → the tensor that stands for its output

    def __repr__(self) -> str:
        return f"Network({len(self.units)} units, {self.input.shape} -> {self.output.shape})"


def build(
    entries: dict[int, Entry],
    input_shape: Shape,
    last: int,
    stop: int | None,
    book: RuleBook,
    domain: Domain,
    narrow: Narrowed | None = None,
) -> Network:
    """Units of the network that ends at `last`; `stop` is the entry whose relevance is wanted (None: the input);
    `narrow` says where one token alone is read.
    """
    folding = fold(entries, (last,) if stop is None else (last, stop), book.kept(entries.values()))
    if domain.kind == "real" and L.Preparation in {type(entry.record) for entry in entries.values()}:
        book = book.of_prepared_inputs()
    builder = Builder(entries, input_shape, folding, book)
    builder.input.nonnegative = domain.kind == "nonnegative" or (domain.kind == "box" and bool(np.min(domain.low) >= 0))
    units = make_units(builder, narrow)
    for unit in units:
        unit.out.nonnegative = unit.sign()
    assign_rows(builder, units, domain)
    return Network(units, builder.tensors, builder.input, builder.at[last], folding.taken, builder.at)


def make_units(builder: Builder, narrow: Narrowed | None) -> list[Unit]:
    """Entry by entry; then every tensor knows its readers."""
    cuts: dict[tuple[int, Place], Tensor] = {}

    def operand(narrow: Narrowed, position: int, slot: int, source: int) -> Tensor:
        cut = narrow.cut(position, slot, source)
        if cut is None:
            return at[source]
        if (source, cut) not in cuts:
            cuts[source, cut] = one_place(builder, entries[position], at[source], *cut)
        return cuts[source, cut]

    folding, entries, at = builder.folding, builder.entries, builder.at
    listed = builder.book.listed is not None
    for position, reads in folding.reads.items():
        entry = entries[position]
        if listed:
            check_taker(builder, entry)
        if narrow is None:
            sources = tuple([at[source] for source in reads])
        else:
            sources = tuple(operand(narrow, position, slot, s) for slot, s in enumerate(reads))
        at[position] = RECIPES[type(entry.record)].make(builder, entry, sources)
    for position in folding.alias:
        if listed:
            check_taker(builder, entries[position])
        at[position] = at[folding.resolve(position)]
    gone = builder.gone
    units = cast(list[Unit], [u for u in builder.units if id(u) not in gone] if gone else builder.units)
    for unit in units:
        for source in unit.sources:
            source.readers.append(unit)
    return units


def check_taker(builder: Builder, entry: Entry) -> None:
    """RuleError where a rule was given to an entry that takes none."""
    rule = builder.book.explicit(entry.position)
    if rule is None:
        return
    folding, entries = builder.folding, builder.entries
    if entry.position in folding.taken:
        takers = ", ".join(str(entries[t]) for t in folding.taken[entry.position])
        raise RuleError(f"{entry} is folded into {takers} and takes no rule of its own; give {rule} to {takers}")
    takes = (L.BatchNorm, L.Scale, *((L.ReLU, L.Activation) if isinstance(rule, Slope) else ()))
    if shares(entry.record) or isinstance(entry.record, takes):
        return
    source = entry.position
    while source != L.INPUT and not shares(entries[source].record):
        reads = entries[source].sources
        source = folding.resolve(reads[0]) if reads else L.INPUT
    hint = f"; give {rule} to {entries[source]}, which does" if source != L.INPUT else ""
    raise RuleError(f"{entry} shares no relevance by weights and takes no rule{hint}")
