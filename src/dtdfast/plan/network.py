"""From wired entries to units: geometry, folding, fusion, and each neuron's rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import layers as L
from ..errors import DomainError, LayerError, RuleError, ShapeError
from ..presets import RuleBook
from ..rules import Pass, Row, Rule, ZBox, ZPlus, ZPlusBySign
from ..vocabulary import WEIGHT_MAPS
from . import axes
from .domain import Domain, broadcast_bounds, carry
from .fold import LINEAR, Folding, affine, fold, per_channel
from .geometry import conv_part, linear_part, move_pairs, pool_part, winner_taps
from .shapes import MAX_TABLE, Shape, spatial
from .signs import sign_of
from .taps import Taps, identity
from .units import (
    Affine,
    Box,
    Copy,
    Elementwise,
    Floats,
    Gating,
    Move,
    Neuron,
    Normalise,
    Part,
    Probabilities,
    Reshaping,
    Tensor,
    Total,
    Unit,
    Winner,
    Words,
)
from .wiring import Entry

POOLS = (L.AvgPool, L.SumPool, L.GlobalAvgPool)
TRANSPARENT = (Move, Reshaping, Affine, Words, Copy)  # behind which the network's input is still its input
MOVES = (L.Concat, L.Slice, L.Permute, L.Pad, L.Upsample)


@dataclass(eq=False)
class Network:
    """Units in topological order and the tensors between them."""

    units: list[Unit]
    tensors: list[Tensor]
    input: Tensor
    output: Tensor
    folding: Folding
    at: dict[int, Tensor]  # the caller's position → the tensor that stands for its output

    def __repr__(self) -> str:
        return f"Network({len(self.units)} units, {self.input.shape} -> {self.output.shape})"


class _Builder:
    def __init__(
        self, entries: dict[int, Entry], input_shape: Shape, folding: Folding, book: RuleBook, domain: Domain
    ) -> None:
        self.entries, self.folding, self.book, self.domain = entries, folding, book, domain
        self.units: list[Unit] = []
        self.gone: set[int] = set()  # ids of units that became part of another
        self.input = Tensor(0, input_shape, L.INPUT, is_input=True)
        self.tensors = [self.input]
        self.maker: dict[int, Unit] = {}  # tensor → the unit that writes it
        self.at: dict[int, Tensor] = {L.INPUT: self.input}
        self.rule: dict[int, tuple[Rule, bool]] = {}  # neuron's entry → (rule, said of this very entry)
        self.turned: dict[int, axes.Turn] = {}  # tensor → the neuron that made it along another axis

    def tensor(self, entry: Entry) -> Tensor:
        tensor = Tensor(len(self.tensors), entry.shape, entry.position)
        self.tensors.append(tensor)
        self.at[entry.position] = tensor
        return tensor

    def build(self) -> None:
        for position in self.folding.reads:
            entry = self.entries[position]
            sources = tuple(self.at[s] for s in self.folding.reads[position])
            self.explicit_only_on_rule_takers(entry)
            made = axes.lowered(self, entry, sources) or self.unit(entry, sources)
            if made is not None:
                self.at[position] = made if isinstance(made, Tensor) else self.put(made)
        for position in self.folding.alias:
            self.explicit_only_on_rule_takers(self.entries[position])
            self.at[position] = self.at[self.folding.resolve(position)]
        self.units = [u for u in self.units if id(u) not in self.gone]
        for unit in self.units:
            for source in unit.sources:
                source.readers.append(unit)

    def put(self, unit: Unit) -> Tensor:
        """The unit comes next; returns its output."""
        for taps in (
            [p.taps for p in unit.parts]
            if isinstance(unit, Neuron)
            else [unit.taps]
            if isinstance(unit, Winner)
            else []
        ):
            if taps.table > MAX_TABLE:
                raise ShapeError(
                    f"{self.entries[unit.position]}: its windows of {taps.kernel} elements with stride {taps.stride} "
                    "take a table "
                    f"of {taps.table:,} entries, at most {MAX_TABLE:,} are supported"
                )
        self.units.append(unit)
        self.maker[unit.out.index] = unit
        unit.out.is_input = isinstance(unit, TRANSPARENT) and any(s.is_input for s in unit.sources)
        return unit.out

    # ------------------------------------------------------------------------------------------------ one unit per
    # entry

    def unit(self, entry: Entry, sources: tuple[Tensor, ...]) -> Unit | Tensor | None:
        record, here = entry.record, (entry.position,)
        if isinstance(record, POOLS) and self.idle(entry, sources[0]):
            return Reshaping(here, sources, self.tensor(entry))
        if isinstance(record, (*LINEAR, *POOLS)):
            return self.neuron(entry, sources)
        if isinstance(record, L.Add):
            return self.add(entry, sources)
        if isinstance(record, (L.ReLU, L.Activation)):
            return self.activation(entry, sources)
        if isinstance(record, (L.BatchNorm, L.Scale)):
            return self.affine(entry, sources)
        if isinstance(record, L.Preparation):
            return self.preparation(entry, sources)
        if isinstance(record, L.MaxPool):
            return self.winner(entry, sources[0], self.tensor(entry), winner_taps(record, sources[0], entry))
        if isinstance(record, (L.Flatten, L.Reshape)):
            return Reshaping(here, sources, self.tensor(entry))
        if isinstance(record, MOVES):
            pairs, fill = move_pairs(record, sources, entry.shape)
            return Move(here, sources, self.tensor(entry), pairs=pairs, fill=fill)
        if isinstance(record, L.LRN):
            return Normalise(here, sources, self.tensor(entry), record=record)
        if isinstance(record, L.Softmax):
            axis = record.axis % (len(entry.shape) + 1)
            return Probabilities(here, sources, self.tensor(entry), axis=axis, log=record.log)
        assert isinstance(record, L.Embedding)
        return Words(here, sources, self.tensor(entry), weight=np.asarray(record.weight))

    def idle(self, entry: Entry, source: Tensor) -> bool:
        """A pool of one-element windows computes nothing; only a convention with a stabilizer takes from it, or a rule
        of its own.
        """
        kernel = source.shape[1:]
        if not isinstance(entry.record, L.GlobalAvgPool):
            kernel = spatial(getattr(entry.record, "kernel", 1), len(kernel), "kernel")
        alone = entry.shape == source.shape and set(kernel) == {1}
        said = self.book.explicit(entry.position, entry.record) or self.book.everywhere()
        return alone and self.book.convention.stabilizer == 0 and said is None

    def neuron(self, entry: Entry, sources: tuple[Tensor, ...]) -> Neuron:
        record, (source,) = entry.record, sources
        if isinstance(record, LINEAR):
            return self.weighted(entry, source, self.tensor(entry))
        self.rule[entry.position] = self.rule_for(entry, self.book.pool())
        return Neuron((entry.position,), sources, self.tensor(entry), parts=[pool_part(record, source, entry)])

    def weighted(self, entry: Entry, source: Tensor, out: Tensor) -> Neuron:
        """A layer with weights, and what is folded into it."""
        make = linear_part if isinstance(entry.record, L.Linear) else conv_part
        part, bias = make(entry.record, source, entry, self.folding)
        folded = self.folding.took.get(entry.position, ())
        self.rule[entry.position] = self.rule_for(entry, self.book.weighted(entry.record))
        return Neuron(tuple(sorted((entry.position, *folded))), (source,), out, parts=[part], bias=bias)

    def add(self, entry: Entry, sources: tuple[Tensor, ...]) -> Unit | Tensor:
        """One neuron together with those linear operands, under the same rule, that nobody else reads."""
        sources = tuple(axes.expanded(self, entry, s, entry.shape) for s in sources)
        said = self.book.explicit(entry.position, entry.record) or self.book.everywhere()
        rule = said or self.book.add()
        makers = [self.turned[s.index].neuron if s.index in self.turned else self.maker.get(s.index) for s in sources]
        mergeable = [u for u in makers if isinstance(u, Neuron) and self.merges(u, entry.position)]
        if rule is None:
            rule = self.rule[mergeable[0].parts[0].position][0] if mergeable else self.book.preset.taps
            merged = [u for u in mergeable if same(self.rule[u.parts[0].position][0], rule)]
        else:
            merged = [u for u in mergeable if said is not None and same(self.rule[u.parts[0].position][0], rule)]
        if isinstance(rule, Pass):
            return Total((entry.position,), sources, self.tensor(entry))
        turn, merged = axes.common_turn(self, sources, merged)
        own = {id(u) for u in merged}
        turns = [self.turned[s.index] for s in sources if s.index in self.turned]
        self.gone |= own | {id(u) for t in turns if id(t.neuron) in own for u in t.back}
        parts: list[Part] = []
        entries: list[int] = []
        bias: Floats | None = None
        explicit = said is not None or any(self.rule[u.parts[0].position][1] for u in merged)
        for source, unit in zip(sources, makers, strict=True):
            if not isinstance(unit, Neuron) or id(unit) not in own:
                source = source if turn is None else axes.turned(self, entry, source, turn)
                parts.append(Part(entry.position, source, identity(source.channels, source.space)))
                continue
            parts.extend(unit.parts)
            entries.extend(unit.entries)
            if unit.bias is not None:
                bias = unit.bias if bias is None else np.asarray(bias, np.float64) + unit.bias
        parts.sort(key=lambda p: p.weight is not None)  # operands of weight 1 first: they start the sums
        self.rule[parts[0].position] = (rule, explicit)
        out = self.tensor(entry) if turn is None else axes.turned_shape(self, entry, turn)
        neuron = Neuron((*entries, entry.position), tuple(p.source for p in parts), out, parts=parts, bias=bias)
        return neuron if turn is None else axes.turn_back(self, entry, neuron, turn)

    def winner(self, entry: Entry, source: Tensor, out: Tensor, taps: Taps) -> Unit:
        """A max-pool; where a convention divides by its output, one neuron of weight 1 behind it does."""
        rule, here = self.book.convention.winner, (entry.position,)
        unit = Winner(here, (source,), out, taps=taps)
        if rule is None:
            return unit
        self.put(unit)
        self.rule[entry.position] = (rule, False)
        part = Part(entry.position, out, identity(out.channels, out.space))
        return Neuron(here, (out,), axes.inner(self, entry, out.shape), parts=[part])

    def merges(self, unit: Neuron, reader: int) -> bool:
        (part, *more) = unit.parts
        linear = isinstance(self.entries[part.position].record, LINEAR)
        return linear and not more and unit.activation is None and self.folding.readers[part.position] == [reader]

    def activation(self, entry: Entry, sources: tuple[Tensor, ...]) -> Unit | None:
        """Into the epilogue of the neuron that this entry alone reads, else a unit of its own."""
        record, (source,) = entry.record, sources
        assert isinstance(record, (L.ReLU, L.Activation))
        last = self.folding.reads[entry.position][0]
        unit = self.turned[source.index].neuron if source.index in self.turned else self.maker.get(source.index)
        slopes = isinstance(record, L.Activation) and record.slopes is not None
        if isinstance(unit, Neuron) and slopes and (unit.parts[0].window is not None or source.index in self.turned):
            unit = None  # a derivative per channel does not meet a factor per position, nor channels that lie elsewhere
        if isinstance(unit, Neuron) and unit.activation is None and self.folding.readers[last] == [entry.position]:
            unit.activation = record
            unit.entries = (*unit.entries, entry.position)
            source.position = entry.position
            self.at[entry.position] = source
            return None
        return Elementwise((entry.position,), sources, self.tensor(entry), activation=record)

    def affine(self, entry: Entry, sources: tuple[Tensor, ...], n_axes: int | None = None) -> Unit | Tensor:
        """Nothing takes it in: a linear layer of one tap, its shift as bias, or passed by relevance; `n_axes` before it
        was flattened.
        """
        record, (source,) = entry.record, sources
        assert isinstance(record, (L.BatchNorm, L.Scale))
        if isinstance(record, L.Scale) and not per_channel(record, entry.shape):
            return axes.scale(self, entry, source, record.scale, record.shift)
        if len(source.shape) > 4:
            return axes.affine(self, entry, source)
        scale, shift = affine(record)
        said = self.book.explicit(entry.position, record)
        rule = said or self.book.affine((n_axes or len(entry.shape)) == 1)
        row = None if isinstance(rule, Pass) else rule.row(self.book.convention)
        split = None if row is None else splits(row)
        if isinstance(rule, Pass) or split or (said is None and self.transparent(rule, source)):
            unit = Affine(
                (entry.position,), sources, self.tensor(entry), scale=scale, shift=shift if shift.any() else None
            )
            unit.split = None if said is None and source.is_input else split
            unit.falls_back = row is not None and row.falls_back
            return unit
        part = Part(entry.position, source, identity(source.channels, source.space), scale.reshape(-1, 1, 1, 1, 1))
        self.rule[entry.position] = (rule, said is not None)
        return Neuron((entry.position,), sources, self.tensor(entry), parts=[part], bias=shift if shift.any() else None)

    def transparent(self, rule: Rule, source: Tensor) -> bool:
        """Whether relevance passes an affine that takes no tap: at the input where a first-layer rule is looked for
        behind it.
        """
        first = self.book.preset.first if self.book.everywhere() is None else None
        return (source.is_input and first is not None) or isinstance(rule, ZBox)

    def preparation(self, entry: Entry, sources: tuple[Tensor, ...]) -> Unit:
        """What becomes of the input before the network: relevance passes."""
        record, (source,) = entry.record, sources
        assert isinstance(record, L.Preparation)
        if not source.is_input:
            raise LayerError(
                f"{entry}: a Preparation prepares the network's input, but reads something computed; inside a network "
                "use Scale"
            )
        scale, shift = affine(record)
        return Affine(
            (entry.position,),
            sources,
            self.tensor(entry),
            scale=scale,
            shift=shift if shift.any() else None,
            prepares=True,
        )

    def gating(self, entry: Entry, sources: tuple[Tensor, ...]) -> Gating:
        """Order the operands as (signal, gate): the gate is the one made by a sigmoid, else the one that is an affine
        image of such.
        """
        gates = [self.is_gate(s, affine=False) for s in entry.sources]
        if not any(gates):
            gates = [self.is_gate(s, affine=True) for s in entry.sources]
        signal, gate = sources if not gates[0] else sources[::-1]
        if sum(gates) != 1:  # fine for predict; explaining refuses it (resolve.py)
            signal, gate = sources if sources[0].shape == entry.shape else sources[::-1]
        unit = Gating((entry.position,), (signal, gate), self.tensor(entry))
        unit.gates = sum(gates)
        return unit

    def is_gate(self, position: int, *, affine: bool) -> bool:
        """Made by a sigmoid and perhaps moved since; with `affine` also scaled and shifted, as in 1 + σ(x), 2σ(x) or 1
        − σ(x).
        """
        passed = (
            L.Dropout,
            L.Flatten,
            L.Reshape,
            L.Gather,
            L.Expand,
            *MOVES,
            *((L.Scale, L.BatchNorm) if affine else ()),
        )
        while position != L.INPUT:
            entry = self.entries[position]
            if isinstance(entry.record, L.Activation):
                return entry.record.function.gates
            if not isinstance(entry.record, passed) or len(entry.sources) != 1:
                return False
            (position,) = entry.sources
        return False

    # -------------------------------------------------------------------------------------------------------------
    # rules

    def rule_for(self, entry: Entry, default: Rule) -> tuple[Rule, bool]:
        rule = self.book.explicit(entry.position, entry.record) or self.book.everywhere()
        if isinstance(rule, Pass):
            raise RuleError(
                f"{entry}: Pass is a rule for Scale, an unfolded BatchNorm and Add; this layer shares by its weights"
            )
        return (rule, True) if rule is not None else (default, False)

    def explicit_only_on_rule_takers(self, entry: Entry) -> None:
        rule = self.book.explicit(entry.position, entry.record)
        if rule is None:
            return
        if entry.position in self.folding.taken:
            takers = ", ".join(str(self.entries[t]) for t in self.folding.taken[entry.position])
            raise RuleError(f"{entry} is folded into {takers} and takes no rule of its own; give {rule} to {takers}")
        if shares(entry.record) or isinstance(entry.record, (L.BatchNorm, L.Scale)):
            return
        source = entry.position
        while source != L.INPUT and not shares(self.entries[source].record):
            reads = self.entries[source].sources
            source = self.folding.resolve(reads[0]) if reads else L.INPUT
        hint = f"; give {rule} to {self.entries[source]}, which does" if source != L.INPUT else ""
        raise RuleError(f"{entry} shares no relevance by weights and takes no rule{hint}")

    def assign_rows(self) -> None:
        """Each neuron's row: what was said of it, else the first-layer rule where it reads the input, else its
        kind's.
        """
        boxes: dict[int, Box] = {}
        bounds = self.domain.bounds(self.input.shape) if self.domain.kind == "box" and not self.words() else None
        if bounds is not None:
            boxes[0] = bounds
        for unit in self.units:
            if isinstance(unit, Words) and self.domain.kind == "box":
                boxes[unit.out.index] = self.words_box(unit)
            elif boxes and (box := carry(boxes, unit)) is not None:
                boxes[unit.out.index] = box
            if isinstance(unit, Neuron):
                self.assign_row(unit, boxes)

    def assign_row(self, unit: Neuron, boxes: dict[int, Box]) -> None:
        rule, said = self.rule[unit.parts[0].position]
        reads_input = any(p.source.is_input for p in unit.parts)
        first = self.book.preset.first
        if reads_input and not said and first is not None:
            rule = first if isinstance(first, Rule) else self.domain.rule
            if isinstance(rule, ZPlus) and self.book.by_sign:
                rule = ZPlusBySign()
        if isinstance(rule, ZPlusBySign) and unit.out.nonnegative:
            rule = ZPlus(bias="none", stabilizer=rule.stabilizer)
        if isinstance(rule, ZBox):
            self.assign_boxes(unit, rule, reads_input, boxes)
        unit.row = rule.row(self.book.convention)

    def assign_boxes(self, unit: Neuron, rule: ZBox, reads_input: bool, boxes: dict[int, Box]) -> None:
        for part in unit.parts:
            where = self.entries[part.position]
            if rule.low is not None:
                part.box = axes.given_box(self, part, rule, f"{where}: ZBox")
            elif part.source.index in boxes:
                part.box = boxes[part.source.index]
            elif not reads_input:
                raise RuleError(f"{where}: ZBox without bounds is for layers that read the input; give ZBox(low, high)")
            elif part.source.is_input:
                raise DomainError(f"{where}: the zB rule needs bounds of the input; pass domain=(low, high)")
            else:
                part.box = (np.full(part.source.shape, -np.inf), np.full(part.source.shape, np.inf))

    def words(self) -> bool:
        return any(isinstance(u, Words) for u in self.units)

    def words_box(self, unit: Words) -> Box:
        low, high = broadcast_bounds(self.domain.low, self.domain.high, unit.out.shape, "domain")
        if unit.weight.min() < low.max() or unit.weight.max() > high.min():
            where = self.entries[unit.position]
            spans = f"{unit.weight.min():g} to {unit.weight.max():g}"
            raise DomainError(f"{where}: its vectors span {spans} and leave the box of `domain`")
        return low, high


def shares(record: L.Layer) -> bool:
    """Whether it is a layer of neurons, which shares relevance by a rule."""
    if isinstance(record, L.Reduce):
        return record.kind != "max"
    return isinstance(record, (*LINEAR, *POOLS, L.Add, L.Resample))


def splits(row: Row) -> tuple[float, float] | None:
    """Of a row that shares by products of one sign, without a bias: how much goes by those of y's sign, and by the
    others.
    """
    terms = [term for share in row.shares for term in share.terms]
    signed = all(WEIGHT_MAPS[t.w].sign is not None and WEIGHT_MAPS[t.w].mirror != t.w for t in terms)
    signed = signed and row.product_form
    if row.holds_bias or not signed:
        return None
    return row.shares[0].coefficient, 0.0 if row.by_sign or len(row.shares) == 1 else row.shares[1].coefficient


def same(a: Rule, b: Rule) -> bool:
    if isinstance(a, ZBox) or isinstance(b, ZBox):
        return a is b or (isinstance(a, ZBox) and isinstance(b, ZBox) and a.low is None and b.low is None)
    return type(a) is type(b) and a == b


def build(
    entries: dict[int, Entry], input_shape: Shape, last: int, stop: int | None, book: RuleBook, domain: Domain
) -> Network:
    """Units of the network that ends at `last`; `stop` is the entry whose relevance is wanted (None: the input)."""
    folding = fold(entries, (last,) if stop is None else (last, stop))
    if domain.kind == "real" and any(isinstance(entry.record, L.Preparation) for entry in entries.values()):
        book = book.of_prepared_inputs()
    builder = _Builder(entries, input_shape, folding, book, domain)
    builder.input.nonnegative = domain.kind == "nonnegative" or (domain.kind == "box" and bool(np.min(domain.low) >= 0))
    builder.build()
    for unit in builder.units:
        unit.out.nonnegative = sign_of(unit)
    builder.assign_rows()
    return Network(builder.units, builder.tensors, builder.input, builder.at[last], folding, builder.at)
