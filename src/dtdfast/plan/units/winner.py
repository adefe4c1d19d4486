"""Max-pools: all relevance to the winner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import layers as L
from ..builder import Builder
from ..entries import Entry
from ..geometry import winner_taps
from ..lowering import Lowering
from ..parts import Part
from ..steps import Buffer, Step, View
from ..taps import Taps, identity, phases
from ..tensors import Box, Tensor
from .base import Balance, Recipe, Unit
from .neuron import Neuron
from .pools import pool_shape


@dataclass(eq=False, repr=False)
class Winner(Unit):
    """Max-pool: all to the winner; a twin has the winners of the pool that it stands beside."""

    transparent = False
    taps: Taps = field(kw_only=True)
    beside: Tensor | None = None

    @property
    def decided(self) -> int:
        """The number of the tensor that says who won."""
        return (self.beside or self.out).index

    @property
    def tables(self) -> tuple[Taps, ...]:
        return (self.taps,)

    def sign(self) -> bool:
        return self.sources[0].nonnegative

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        x = lowering.spatial(self.sources[0])
        out = lowering.new_value(self)
        dtype = "u1" if self.taps.n_taps <= 255 else "u2"
        winners = lowering.winners[self.out.index] = lowering.buffer(
            f"k{lowering.label(self.out)}", self.out.shape, dtype=dtype
        )
        (phase,) = phases(self.taps)
        taps = np.indices(self.taps.kernel).reshape(3, -1).T  # every tap, so that its number is its place in the kernel
        table = np.ascontiguousarray(taps * self.taps.dilation - self.taps.before, np.int64)
        step = Step(
            "MAX_POOL",
            self,
            View(out),
            View(x),
            m=View(winners),
            phase=phase,
            table=table,
            winner_bytes=1 if dtype == "u1" else 2,
        )
        lowering.emit(step)

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        winners = lowering.winners[self.decided]

        def write(out: Buffer, accumulate: bool) -> None:
            fields: dict[str, Any] = dict(
                x=View(r),
                m=View(winners),
                winner_bytes=1 if winners.dtype == "u1" else 2,
                accumulate=accumulate,
                repeat=lowering.t,
            )
            if self.taps.apart:
                (windows,) = phases(self.taps)
                table = np.array([offset for _, offset in windows.taps], np.int64)
                lowering.emit(Step("MAX_SCATTER", self, View(out), phase=windows, table=table, **fields))
                return
            for phase in phases(self.taps, scatter=True):
                table = np.array([(k, *offset) for k, offset in phase.taps], np.int64).reshape(-1, 4)
                lowering.emit(
                    Step(
                        "MAX_UNPOOL", self, View(out).phase(phase.start, phase.step, phase.count), table=table, **fields
                    )
                )

        lowering.deliver(self, self.sources[0], write)

    def balance(self) -> Balance:
        return Balance("winner", 4.0 + self.taps.n_taps)


def winner(builder: Builder, entry: Entry, source: Tensor, out: Tensor, taps: Taps) -> Tensor:
    """A max-pool; where a convention divides by its output, one neuron of weight 1 behind it does."""
    rule, here = builder.book.convention.winner, (entry.position,)
    unit = Winner(here, (source,), out, taps=taps)
    if rule is None:
        return builder.put(unit)
    builder.put(unit)
    builder.rule[entry.position] = (rule, False)
    part = Part(entry.position, out, identity(out.channels, out.space))
    return builder.put(Neuron(here, (out,), builder.inner(entry, out.shape), parts=[part]))


def max_pool(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    (source,) = sources
    assert isinstance(entry.record, L.MaxPool)
    return winner(builder, entry, source, builder.tensor(entry), winner_taps(entry.record, source, entry))


RECORDS: dict[type[L.Layer], Recipe] = {L.MaxPool: Recipe(pool_shape, max_pool)}
