"""The state from which units are made, entry by entry: tensors, the units that make them, and the rules of neurons."""

from __future__ import annotations

from typing import NamedTuple

from .. import layers as L
from ..errors import RuleError, ShapeError
from ..presets import RuleBook
from ..rules import Pass, Rule, Slope, ZBox, own_row
from .entries import Entry
from .fold import Folding
from .parts import Sum
from .shapes import MAX_TABLE, Shape
from .tensors import Node, Tensor

Axes = tuple[int, ...]  # of one sample


class Turn(NamedTuple):
    """A neuron that works along an axis of its own, and the units that turn its output back."""

    axes: Axes
    neuron: Sum
    back: list[Node]


class Builder:
    """Units so far.

    Attributes
    ----------
    gone : ids of units that became part of another
    maker : tensor → the unit that writes it
    at : the caller's position → the tensor that stands for its output
    rule : neuron's entry → (rule, whether it was given for this very entry)
    turned : tensor → the neuron that made it along another axis
    known : entries that are computed from constants and Givens alone, and not from the input
    """

    def __init__(self, entries: dict[int, Entry], input_shape: Shape, folding: Folding, book: RuleBook) -> None:
        self.entries, self.folding, self.book = entries, folding, book
        self.units: list[Node] = []
        self.gone: set[int] = set()
        self.input = Tensor(0, input_shape, L.INPUT, is_input=True)
        self.tensors = [self.input]
        self.maker: dict[int, Node] = {}
        self.at: dict[int, Tensor] = {L.INPUT: self.input}
        self.rule: dict[int, tuple[Rule, bool]] = {}
        self.turned: dict[int, Turn] = {}
        self.known: set[int] = set()
        for position, entry in entries.items():
            if self.known.issuperset(entry.sources):
                self.known.add(position)

    def tensor(self, entry: Entry) -> Tensor:
        """The output of an entry."""
        tensor = Tensor(len(self.tensors), entry.shape, entry.position)
        self.tensors.append(tensor)
        self.at[entry.position] = tensor
        return tensor

    def inner(self, entry: Entry, shape: Shape) -> Tensor:
        """A tensor inside of what an entry does."""
        tensor = Tensor(len(self.tensors), shape, entry.position)
        self.tensors.append(tensor)
        return tensor

    def put(self, unit: Node) -> Tensor:
        """The unit comes next; returns its output."""
        for taps in unit.tables:
            if taps.at_most > MAX_TABLE and taps.table > MAX_TABLE:
                raise ShapeError(
                    f"{self.entries[unit.position]}: its windows of {taps.kernel} elements with stride {taps.stride} "
                    f"take a table of {taps.table:,} entries, at most {MAX_TABLE:,} are supported"
                )
        self.units.append(unit)
        self.maker[unit.out.index] = unit
        unit.out.is_input = unit.transparent and any(s.is_input for s in unit.sources)
        return unit.out

    def rule_for(self, entry: Entry, default: Rule) -> tuple[Rule, bool]:
        """The rule of a neuron, and whether it was given for this very entry."""
        if isinstance(self.book.rules, str):  # a preset
            return default, False
        rule = self.book.explicit(entry.position) or self.book.everywhere()
        if isinstance(rule, (Pass, Slope)):
            raise RuleError(
                f"{entry}: {rule} is no rule for a layer that shares by its weights; Pass is one for Scale, BatchNorm "
                "and Add"
            )
        return (rule, True) if rule is not None else (default, False)


def same(a: Rule, b: Rule) -> bool:
    """Whether neurons of these rules can be one."""
    if isinstance(a, ZBox) or isinstance(b, ZBox):
        return a is b or (isinstance(a, ZBox) and isinstance(b, ZBox) and a.low is None and b.low is None)
    return type(a) is type(b) and a == b and own_row(a) == own_row(b)
