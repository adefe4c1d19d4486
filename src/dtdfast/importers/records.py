"""What every importer builds on: a layer list that grows record by record, each checked as it is added."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import DtdError
from ..layers import INPUT, Activation, Layer, Permute, Scale
from ..plan.shapes import Shape, output_shape
from ..plan.wiring import check_shape
from .rewrites import finished, hard_sigmoid, permuted


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
        if cls is Scale and fields.get("shift") is None:
            gate = hard_sigmoid(self.records, sources[0].position, fields["scale"])
            if gate is not None:
                return self.add(Activation, (Value(gate, sources[0].shape),), name, kind="hard_sigmoid")
        if cls is Permute and (found := permuted(self.records, sources[0].position, sources[0].shape, tuple(fields["order"]))):
            position, sizes, order = found
            sources, fields = (Value(position, sizes),), {"order": order}
            if order == tuple(range(len(order))):
                return sources[0]
        positions = tuple(v.position for v in sources)
        last = len(self.records) - 1 if self.records else INPUT
        try:
            record = cls(**fields, inputs=None if positions == (last,) and cls.arity == 1 else positions, name=name)
            shape = output_shape(record, *(v.shape for v in sources))
            check_shape(shape, cls.__name__)
        except DtdError as error:
            raise Refused(str(error)) from None
        self.records.append(record)
        return Value(len(self.records) - 1, shape)

    def finished(self) -> tuple[list[Layer], list[int]]:
        """The list without what nothing reads, and the positions that its entries' outputs had."""
        return finished(self.records)
