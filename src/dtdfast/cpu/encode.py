"""A plan's steps in C, and the table of pointers to what they read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from numpy.typing import NDArray

from .._kernels import ffi, lib
from ..packing import WeightStore
from ..plan.plan import Plan
from ..plan.sliced import Sliced
from ..plan.steps import Step
from .rows import NARROW, PLACES, Rows


class Encoded:
    """A plan's steps in C, and the arrays that they point into."""

    def __init__(self, plan: Plan, store: WeightStore, precision: str) -> None:
        self.places = PLACES | {u.external: len(PLACES) + k for k, u in enumerate(plan.program.supplied)}
        self.starts, steps = [], list[Step]()  # of the plan's steps, those in C from which on they are
        for step in (*plan.forward, *plan.relevance):
            self.starts.append(len(steps))
            steps.append(step)
            if isinstance(step, Sliced):
                steps += step.inner
        self.starts.append(len(steps))
        rows = Rows(plan, store, NARROW.get(precision, {}), self.places)
        self.c_steps = rows.written(steps)
        self.constants = rows.constants  # kept alive; pointers follow the externals in the table
        self._alike = rows.alike
        self.spans = spans(rows.reals)
        first = plan.n_constant
        self.constant_runs = plan.segments(plan.forward[:first], 0) if first else []
        self.forward_runs = plan.segments(plan.forward[first:], first)
        self.relevance_runs = plan.segments(plan.relevance, len(plan.forward))
        absent = [ffi.NULL] * len(self.places)
        self.n_bases = len(absent) + len(self.constants)
        self._bases = ffi.new("void *[]", absent + [ffi.from_buffer(c) if c.size else ffi.NULL for c in self.constants])

    def bases(self, arena: NDArray[Any], nbytes: int, pieces: int) -> Any:
        """A table of pointers, but for the externals; one after another for pieces of a batch, each with so many bytes
        of the arena.
        """
        bases, size = ffi.new("void *[]", pieces * self.n_bases), ffi.sizeof(self._bases)
        ffi.memmove(bases, ffi.buffer(self._bases)[:] * pieces, pieces * size)
        start = ffi.from_buffer(arena)
        for piece in range(pieces):
            bases[piece * self.n_bases + PLACES["arena"]] = start + piece * nbytes
        return bases

    def body(self, isa: int, number: int, bases: Any, choice: int) -> str:
        """The name of the body that runs a step, for a choice of dtd_body; "" if there is no such choice."""
        number = self.starts[number]
        name = lib.dtd_body(isa, self.spans[number][0], self.c_steps + number, bases, choice)
        return "" if name == ffi.NULL else ffi.string(name).decode()

    def bodies(self, isa: int) -> tuple[str, ...]:
        """Of every step, the body that runs it by its shape, and those that run instead if x is mostly 0."""
        bases = ffi.new("void *[]", list(self._bases))
        bases[PLACES["scratch"]] = bases  # not read: an instruction set that wants scratch memory has it
        alike = [*map(self._alike.__getitem__, self.starts[:-1])]
        known = dict.fromkeys(alike, "")
        for like, number in dict(zip(alike, self.starts, strict=False)).items():
            names: list[str] = []
            c, real = self.c_steps + number, self.spans[number][0]
            while name := lib.dtd_body(isa, real, c, bases, len(names)):  # DTD_BY_SHAPE is 0
                names.append(ffi.string(name).decode())
            sparse = " or ".join(names[1:])
            known[like] = f"{names[0]} (x mostly 0: {sparse})" if sparse else "".join(names)
        return tuple(map(known.__getitem__, alike))


def spans(reals: Iterable[int]) -> list[tuple[int, int]]:
    """Of every step, the type of its run and the end of the steps from it on that are of one type."""
    result: list[tuple[int, int]] = []
    for real, run in groupby(reals):
        count = len([*run])
        result += [(real, len(result) + count)] * count
    return result
