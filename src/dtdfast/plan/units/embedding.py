"""Embeddings: of the network's input, where relevance is summed over each word's vector, or of integers beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..shapes import Shape
from ..steps import Buffer, Step, View
from ..tensors import Box, Floats, Tensor
from .base import Balance, Recipe, Unit, passes
from .constant import absorbed


@dataclass(eq=False, repr=False)
class Words(Unit):
    """Embedding of the network's input; relevance is summed over each word's vector. Of what samples bring along it is
    as a constant.
    """

    transparent = True
    weight: Floats = field(kw_only=True)

    @property
    def slot(self) -> int:
        """The slot of a view (n, c, d, h, w, extra) that holds the features, the last axis."""
        return 4 if len(self.out.shape) <= 4 else 5

    @property
    def absorbs(self) -> bool:
        return not self.sources[0].is_input

    @property
    def carriers(self) -> tuple[Tensor, ...]:
        return () if self.absorbs else self.sources

    def sign(self) -> bool:
        return bool(self.weight.min() >= 0)

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return "R"

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        out = View(lowering.new_value(self, plain=True))
        ids = View(lowering.value(self.sources[0]), trailing=True)
        lowering.emit(Step("EMBED", self, out, ids, vector=lowering.constant(self.weight), axis=self.slot))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        out, accumulate = lowering.sink(self.sources[0])
        m = View(lowering.value(self.out)) if self.out.form == "c" and not lowering.gradient else None
        step = Step("EMBED_SUM", self, View(out, trailing=True), View(r), m=m, axis=self.slot, repeat=lowering.t)
        step.accumulate = accumulate
        lowering.emit(step)

    def balance(self) -> Balance:
        return absorbed() if self.absorbs else passes(4.0 + self.out.shape[-1])


def words(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(entry.record, L.Embedding)
    weight = np.asarray(entry.record.weight)
    return builder.put(Words((entry.position,), sources, builder.tensor(entry), weight=weight))


def embedding_shape(record: L.Embedding, shape: Shape) -> Shape:
    return (*shape, record.weight.shape[1])


RECORDS: dict[type[L.Layer], Recipe] = {L.Embedding: Recipe(embedding_shape, words)}
