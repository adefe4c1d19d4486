"""What every importer builds on: a layer list that grows record by record, each checked as it is added."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import DtdError
from ..layers import INPUT, Activation, Layer, Scale
from ..plan.shapes import Shape, output_shape
from ..plan.wiring import check_shape, sources


class Refused(Exception):
    """Why something cannot become records."""


@dataclass(frozen=True)
class Value:
    """What depends on the network's input: the output of an entry of the list, the batch axis first."""

    position: int
    shape: Shape  # of one sample
    integer: bool = False


@dataclass(eq=False)
class Layers:
    """The layer list while it grows."""

    batch: int  # as the model has it, or a number that stands for any
    records: list[Layer] = field(default_factory=list)

    def add(self, cls: type[Layer], sources: tuple[Value, ...], name: str | None, **fields: Any) -> Value:
        if cls is Scale and (gate := self._hard_sigmoid(sources[0], fields)) is not None:
            cls, sources, fields = Activation, (gate,), dict(kind="hard_sigmoid")
        positions = tuple(v.position for v in sources)
        before = len(self.records) - 1 if self.records else INPUT
        try:
            record = cls(**fields, inputs=None if positions == (before,) and cls.arity == 1 else positions, name=name)
            shape = output_shape(record, *(v.shape for v in sources))
            check_shape(shape, cls.__name__)
        except DtdError as error:
            raise Refused(str(error)) from None
        self.records.append(record)
        return Value(len(self.records) - 1, shape)

    def _hard_sigmoid(self, x: Value, fields: dict[str, Any]) -> Value | None:
        """What a gate is made of where it is written out: the y of clip(y + 3, 0, 6)·⅙ with the last product about to be added."""
        clip = self._at(x, Activation)
        if clip is None or (clip.kind, clip.alpha, clip.beta) != ("clip", 0.0, 6.0) or fields.get("shift") is not None:
            return None
        shift = self._at(self._source(x), Scale)
        if shift is None or not np.allclose(fields["scale"], 1 / 6, 1e-6):
            return None
        if not (np.all(shift.scale == 1) and shift.shift is not None and np.all(shift.shift == 3)):
            return None
        return self._source(self._source(x))

    def _at(self, x: Value, kind: type[Any]) -> Any:
        """The record behind a value, if it is of this kind."""
        record = self.records[x.position] if x.position != INPUT else None
        return record if isinstance(record, kind) else None

    def _source(self, x: Value) -> Value:
        """What an element-wise record reads."""
        reads = self.records[x.position].inputs
        return Value(x.position - 1 if reads is None else reads[0], x.shape)  # entry 0 reads INPUT, which is -1

    def finished(self) -> tuple[list[Layer], list[int]]:
        """The entries that the last one is computed from, wired anew, and the positions that they had."""
        wired = sources(self.records)
        kept = {len(self.records) - 1}
        for position in range(len(self.records) - 1, -1, -1):
            if position in kept:
                kept.update(s for s in wired[position] if s != INPUT)
        places = {old: new for new, old in enumerate(sorted(kept))}
        if len(kept) == len(self.records):
            return self.records, sorted(kept)
        records = []
        for old, new in places.items():
            positions = tuple(places.get(s, INPUT) for s in wired[old])
            plain = positions == (new - 1,) and self.records[old].arity == 1
            records.append(replace(self.records[old], inputs=None if plain else positions))
        return records, sorted(kept)
