"""What comes of it: the relevance of weights by entry, and its account beside the ledger's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, LayerError, at
from ..layers import Layer
from ..ledger.ledger import Ledger, Row
from ..plan.program import Program
from ..plan.units import Neuron
from ..plan.weights import OfWeights
from ..results import Report, number, of_kind, percent
from .records import Floats, as_record

PER = ("weight", "channel", "head")

POSITIONS = 128
"""Products that are added in a run's number type before float64 adds them (csrc/dense/weight_gradient.c)."""

Key = tuple[tuple[int, ...], str]  # of a row of the ledger: entries and rule


@dataclass
class Entry:
    """Of one entry: relevance (outputs, inputs of a group, taps), and the shape of a sample of its output."""

    relevance: Floats
    sample: tuple[int, ...]


@dataclass
class Handed:
    """What the operands of a unit got together, and roundings of one of them in units of u."""

    key: Key
    total: float
    rounding: float
    entries: tuple[int, ...]


@dataclass
class Rest:
    """What a program's units handed on, and the relevance of their biases by entry."""

    handed: list[Handed] = field(default_factory=list)
    biases: dict[int, Floats] = field(default_factory=dict)


def entries_of(
    program: Program,
    operands: list[OfWeights],
    positions: frozenset[int],
    found: dict[int, Entry],
    rest: list[Rest],
) -> None:
    """Add what one program's sums hold to `found`, and what has no entry to `rest`."""
    more = Rest()
    totals: dict[int, Handed] = {}
    for unit, part, relevance in operands:
        assert unit.row is not None
        if part is None:
            weighted = [p.position for p in unit.parts if p.weight is not None]
            place = weighted[0] if len(weighted) == 1 else unit.position
            more.biases[place] = more.biases.get(place, 0.0) + relevance.reshape(-1)
            continue
        assert isinstance(unit, Neuron)
        key = unit.entries, unit.row.label
        made = totals.setdefault(unit.out.index, Handed(key, 0.0, unit.balance().rounding, unit.entries))
        made.total += float(relevance.sum())
        if part.weight is None or part.position not in positions:
            continue
        position = part.position
        if position in found:
            found[position].relevance = found[position].relevance + relevance
        else:
            found[position] = Entry(relevance, tuple(program.network.at[position].shape))
    more.handed = list(totals.values())
    rest.append(more)


class WeightRelevance(Report, Mapping[int, Floats]):
    """The relevance of a network's weights: a mapping {position: array}; prints as a table.

    Attributes
    ----------
    biases : dict of int to ndarray
        The relevance of biases, per output channel, where the rule has them in a denominator. The bias that several
        layers of one neuron share is listed at the Add that joins them.
    left_out : dict of int to str
        Entries with weights that have no relevance here, and why.
    samples : int
        The number of samples that were added up.
    """

    header = ("entry", "layer", "shape", "relevance", "of it half in", "biases")

    def __init__(
        self,
        layers: list[Layer],
        found: dict[int, Entry],
        rest: list[Rest],
        left_out: dict[int, str],
        samples: int,
        per: str,
        heads: Mapping[int, int] | None,
    ) -> None:
        self._layers, self._rest = layers, rest
        self.samples, self.left_out = samples, left_out
        self.biases: dict[int, Floats] = {}
        for more in rest:
            for position, bias in more.biases.items():
                self.biases[position] = self.biases.get(position, 0.0) + bias
        if per == "head":
            found = _with_heads(layers, found, heads)
        elif heads is not None:
            raise LayerError("heads is for per='head'")
        self._arrays = {p: _per(layers[p], found[p], per, (heads or {}).get(p, 1)) for p in sorted(found)}

    def __getitem__(self, position: int) -> Floats:
        return self._arrays[position]

    def __iter__(self) -> Iterator[int]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"WeightRelevance({len(self)} entries, {self.samples} samples)"

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (
                str(position),
                self._layers[position].name or type(self._layers[position]).__name__,
                "×".join(map(str, array.shape)),
                number(array.sum(), 4),
                percent(_half(array)) if array.any() else "-",
                number(self.biases[position].sum(), 4) if position in self.biases else "-",
            )
            for position, array in self.items()
        ]

    @property
    def reading(self) -> str:
        """What the numbers say, in one sentence."""
        if not self:
            return "No weights were asked for that relevance meets."
        reached = [position for position in self if self[position].any()]
        if not reached:
            return f"No relevance of {self.samples} samples meets these weights."
        position = min(reached, key=lambda p: _half(self[p]))
        share = percent(_half(self[position]))
        return (
            f"Over {self.samples} samples, {share} of the weights of entry {position} have half of its relevance, by "
            "size: the smallest share of all entries."
        )

    def against(self, ledgers: Ledger | Iterable[Ledger]) -> Balance:
        """Compare what every layer's weights have together with what the ledger says that the layer handed on.

        Parameters
        ----------
        ledgers : Ledger or iterable of Ledger
            Those of the same samples and targets, by `Explainer.ledger`.

        Returns
        -------
        Balance
            A table with a row for each layer.

        Raises
        ------
        InputError
            The ledgers are of other samples or rules.
        """
        several = [ledgers] if isinstance(ledgers, Ledger) or not isinstance(ledgers, Iterable) else ledgers
        several = [of_kind(ledger, Ledger, "ledgers") for ledger in several]
        if sum(len(ledger.start) for ledger in several) != self.samples:
            counted = sum(len(ledger.start) for ledger in several)
            raise InputError(f"the ledgers are of {counted} samples, the relevance of weights of {self.samples}")
        went: dict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in (row for ledger in several for row in ledger.rows):
            sums = went[row.entries, row.rule]
            sums[0] += float(handed_on(row).sum())
            sums[1] += float(row.bound.sum())
        lines: dict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for handed in (handed for more in self._rest for handed in more.handed):
            line = lines[handed.key]
            line[0] += handed.total
            line[1] = max(line[1], 1.0 + (POSITIONS + 8.0) / handed.rounding)
        if not lines.keys() <= went.keys():
            entries, rule = next(key for key in lines if key not in went)
            raise InputError(f"the ledger has no row of entries {entries} under {rule}: it is of other rules")
        return Balance([(entries, rule, t, went[entries, rule][0], f * went[entries, rule][1])
                        for (entries, rule), (t, f) in lines.items()])  # fmt: skip


def handed_on(row: Row) -> Any:
    """What a layer handed to all its operands, those included from which none comes to `stop`."""
    return row.went + row.absorbed.get("around stop", 0.0)


@dataclass(repr=False)
class Balance(Report):
    """What each layer's weights have together, beside what the ledger says that the layer handed on.

    Attributes
    ----------
    lines : list of tuple
        For each layer (entries, rule, total of its weights, total of the ledger, bound on their difference). Operands
        of weight 1, such as a residual connection, count as the weights that they are.
    """

    lines: list[tuple[tuple[int, ...], str, float, float, float]]

    header = ("entries", "rule", "weights", "ledger", "difference", "bound")

    @property
    def closed(self) -> bool:
        """Whether all differences lie within their bounds."""
        return all(abs(total - went) <= bound for _, _, total, went, bound in self.lines)

    def rows(self) -> list[tuple[str, ...]]:
        return [
            ("+".join(map(str, entries)), rule, number(total, 7), number(went, 7), number(total - went, 2),
             number(bound, 2))
            for entries, rule, total, went, bound in self.lines
        ]  # fmt: skip

    @property
    def reading(self) -> str:
        """What the numbers say, in one sentence."""
        if self.closed:
            return "The weights of every layer have together what the layer handed on, within the bounds on rounding."
        return "SOME LAYER'S WEIGHTS HAVE MORE OR LESS THAN IT HANDED ON: a kernel is wrong."


def _per(record: Layer, entry: Entry, per: str, heads: int) -> Floats:
    if per == "weight":
        return as_record(record, entry.relevance, entry.sample)
    blocks = heads if per == "head" else len(entry.relevance)
    channels: Floats = entry.relevance.sum(axis=(1, 2)).reshape(blocks, -1).sum(axis=1)
    return channels


def _with_heads(layers: list[Layer], found: dict[int, Entry], heads: Mapping[int, int] | None) -> dict[int, Entry]:
    """The entries that heads are said of."""
    if not isinstance(heads, Mapping) or not heads:
        raise LayerError("per='head' needs heads, the number of heads by entry, for example heads={4: 12}")
    for position, count in heads.items():
        if position not in found:
            raise LayerError(f"heads names entry {position}, of whose weights there is no relevance")
        outputs = len(found[position].relevance)
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1 or outputs % count:
            raise LayerError(
                f"{at(position, layers[position])}: heads is {count!r:.40}, expected a divisor of its {outputs} output "
                "channels"
            )
    return {position: found[position] for position in heads}


def _half(array: Floats) -> float:
    """The least share of numbers that has half of the sum of absolute values; not all of them are 0."""
    sizes = np.sort(np.abs(array), axis=None)[::-1]
    whole = np.cumsum(sizes)
    return float(np.searchsorted(whole, 0.5 * whole[-1]) + 1) / sizes.size
