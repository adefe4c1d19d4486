"""A plan made ready for one device: where its arrays lie, its launches, its graphs."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ...locks import cached_property
from ...plan.columns import SCRATCH, scratch_bytes
from ...plan.plan import Plan
from ...plan.steps import SIZES, Buffer, Step, View, Weights
from ..kernels import checks, elementwise, start
from .device import Device
from .launch import Launch
from .memory import Memory, aligned
from .operations import OPERATIONS, clear_borders, step_launches
from .staging import Staging
from .strided import ABSENT, Strided, coordinate, launches

Array = NDArray[Any]

# what a call may find wrong, one long each; behind them, whether a row is not all 0
FLAGS = ("input", "domain", "output", "relevance")
# where relevance enters: largest output, outputs by number, any start
LARGEST, NUMBERS, GIVEN = "largest", "numbers", "given"


@dataclass(frozen=True)
class Entrance:
    """How the start relevance comes about: `kind`, and of outputs whether 1 stands for them (unit) or negative ones
    count as 0 (clip).
    """

    kind: str
    unit: bool = False
    clip: bool = False


class Prepared:
    """One plan on one device.  Everything it needs beside weights and constants lies in one allocation.

    Parameters
    ----------
    contractions : as in Memory
    precision : of the contractions' operands
    bounds : the lowest and highest value that x may have: None, one number, or an array of x's shape
    """

    def __init__(
        self, plan: Plan, memory: Memory, contractions: Any, precision: str, bounds: tuple[Array | None, Array | None]
    ) -> None:
        self.plan, self._memory, self._contractions = plan, memory, contractions
        self._precision, self._bounds = precision, bounds
        self._base = -1
        self._steps: list[list[Launch]] = []
        self._graphs: dict[Any, Any] = {}
        self.staging = Staging(memory.device, memory.room)
        weakref.finalize(self, _discard, memory.device, self._graphs).atexit = False  # as Memory's
        self._place()

    def _place(self) -> None:
        plan = self.plan
        network, n, t = plan.program.network, plan.n, plan.t
        leaves = math.prod(plan.program.leaves.shape)
        n_out = math.prod(network.output.shape)
        word = 8 if plan.program.tokens else 4
        sizes = {
            "arena": plan.arena, "x": word * n * math.prod(network.input.shape), "outputs": 4 * n * n_out,
            "start": 4 * n * t * n_out,
            "result": 4 * n * t * leaves, "numbers": 8 * n * t, "partial values": 4 * n * start.PARTIALS,
            "partial numbers": 8 * n * start.PARTIALS,
            "value": 4 * n, "flags": 8 * (len(FLAGS) + n * t),
            SCRATCH: max(self._contractions.scratch_bytes(plan), scratch_bytes(plan)),
        }  # fmt: skip
        if plan.book is not None:
            sizes["ledger"] = plan.book.buffer.nbytes(n, t)
        if plan.weighing is not None:
            sizes["weights"] = 8 * plan.weighing.size
        for unit in plan.program.supplied:
            sizes[unit.external] = (8 if unit.integer else 4) * n * math.prod(unit.out.shape)
        self._offsets, top = {}, 0
        for name, size in sizes.items():
            self._offsets[name] = top
            top += aligned(size)
        self.nbytes = top

    @cached_property
    def bodies(self) -> tuple[str, ...]:
        """Of every step the body that runs it, as `Plan.bodies`."""
        device = self._memory.device
        made: tuple[str, ...] = self._contractions.bodies(
            self.plan, self._precision, device.multiprocessors, device.shared_bytes
        )
        return made

    # ------------------------------------------------------------------------------------------------------ addresses

    def at(self, name: str) -> int:
        """The address of one of the plan's arrays."""
        return self._base + self._offsets[name]

    def buffer_address(self, buffer: Buffer) -> int:
        """The first byte of a buffer, its frame included."""
        root = buffer.root
        return self.at(root.external) if root.external else self.at("arena") + root.offset

    def address_of(self, thing: View | Weights | Array) -> int:
        if isinstance(thing, View):
            return self.buffer_address(thing.buffer) + SIZES[thing.buffer.root.dtype] * thing.layout()[0]
        if isinstance(thing, Weights):
            return self._memory.weights(thing)
        return self._memory.constant(thing)

    # ------------------------------------------------------------------------------------------------------- launches

    def bind(self) -> None:
        """Make launches for where the arena lies now; OutOfMemory if it, or the weights, do not fit."""
        base = self._memory.arena(self.nbytes)
        if base == self._base:
            return
        self.unbind()
        self._base = base
        try:
            self._steps = []
            for clears, some in groupby((*self.plan.forward, *self.plan.relevance), lambda s: s.op == "CLEAR_BORDER"):
                steps = list(some)
                if clears:  # all in the place of the first
                    self._steps += [clear_borders(steps, self.plan, self.address_of), *([] for _ in steps[1:])]
                else:
                    self._steps += [[x for part in step.parts() for x in self._launches(part)] for step in steps]
        except BaseException:
            self.unbind()  # half bound is not bound
            raise

    def unbind(self) -> None:
        _discard(self._memory.device, self._graphs)
        self._steps, self._base = [], -1

    def _launches(self, step: Step) -> list[Launch]:
        try:
            return self._launches_of(step)
        except BackendError as problem:
            where = "" if step.unit is None else f"layer {step.unit.position}: "
            raise BackendError(f"{where}{step.op.lower()}: {problem}") from None

    def _launches_of(self, step: Step) -> list[Launch]:
        if step.op in OPERATIONS:
            return step_launches(step, self.plan, self.address_of)
        device = self._memory.device
        made: list[Launch] = self._contractions.launches(
            step, self.plan, self.address_of, self._precision, device.multiprocessors, device.shared_bytes,
            self.at(SCRATCH),
        )  # fmt: skip
        return made

    def steps(self, first: int, last: int) -> list[Launch]:
        """Steps first … last−1, forward and relevance counted through."""
        return [launch for step in self._steps[first:last] for launch in step]

    def forward(self) -> list[Launch]:
        """All before relevance enters: x checked, outputs computed and checked."""
        plan = self.plan
        n, shape = plan.n, plan.program.network.input.shape
        flat = math.prod(shape)
        first = self._cleared(0, len(FLAGS) + n * plan.t)
        if not plan.program.tokens:
            x = Strided(self.at("x"), (4 * flat, 0, 0, 0, 4, 0))
            bounds = [self._bound(b) for b in self._bounds]
            first += self._check([x, *bounds], (n, 1, 1, 1, flat, 1), "input")
        outputs = self._check_rows(
            "outputs", n, math.prod(plan.program.network.output.shape), "output", told=not plan.program.relevant
        )
        return [*first, *self.steps(0, len(plan.forward)), *outputs]

    def entrance(self, how: Entrance) -> list[Launch]:
        """The start relevance, from the outputs."""
        if how.kind == GIVEN:
            return []
        n, t = self.plan.n, self.plan.t
        n_out = math.prod(self.plan.program.network.output.shape)
        outputs = Strided(self.at("outputs"), (4 * n_out, 0, 0, 0, 0, 0))
        numbers = Strided(self.at("numbers"), (8 * t, 8, 0, 0, 0, 0))
        result = []
        if how.kind == LARGEST:
            partials = min(start.PARTIALS, n_out)
            partial_values, partial_numbers = (
                Strided(self.at(f"partial {what}"), (size * start.PARTIALS, 0, 0, 0, size, 0))
                for what, size in (("values", 4), ("numbers", 8))
            )
            over_partials, step = coordinate(4), (n_out, partials)
            result += launches(
                (start.largest,),
                (n, 1, 1, 1, partials, 1),
                [partial_values, partial_numbers, outputs, ABSENT, over_partials],
                step,
            )
            value = Strided(self.at("value"), (4, 0, 0, 0, 0, 0))
            result += launches(
                (start.largest,),
                (n, 1, 1, 1, 1, 1),
                [value, numbers, partial_values, partial_numbers, ABSENT],
                (partials, 1),
            )
        out = Strided(self.at("start"), (4 * t * n_out, 4 * n_out, 0, 0, 4, 0))
        element = Strided(outputs.at, (4 * n_out, 0, 0, 0, 4, 0))
        views = [out, element, numbers, coordinate(4)]
        return [
            *result,
            *launches((start.start,), (n, t, 1, 1, n_out, 1), views, (int(how.unit), int(how.clip))),
        ]

    def relevance(self) -> list[Launch]:
        plan = self.plan
        steps = self.steps(len(plan.forward), len(plan.forward) + len(plan.relevance))
        rows, size = plan.n * plan.t, math.prod(plan.program.leaves.shape)
        return [*steps, *self._check_rows("result", rows, size, "relevance", told=True)]

    def again(self) -> list[Launch]:
        """Before more relevance on the same forward pass: nothing is known of its rows."""
        return self._cleared(len(FLAGS), self.plan.n * self.plan.t)

    def graph(self, parts: tuple[Any, ...]) -> Any:
        """One graph of some of "forward", "again", an Entrance, "relevance", recorded when first asked for."""
        if parts not in self._graphs:
            lists = {"forward": self.forward, "relevance": self.relevance, "again": self.again}
            together = [
                x for part in parts for x in (self.entrance(part) if isinstance(part, Entrance) else lists[part]())
            ]
            self._graphs[parts] = self._memory.device.record(together)
        return self._graphs[parts]

    # --------------------------------------------------------------------------------------------------------- checks

    def _bound(self, bound: Array | None) -> Strided:
        if bound is None:
            return ABSENT
        return Strided(
            self.address_of(np.ascontiguousarray(bound, np.float32)), (0, 0, 0, 0, 4 if bound.size > 1 else 0, 0)
        )

    def _cleared(self, first: int, count: int) -> list[Launch]:
        flags = Strided(self.at("flags") + 8 * first, (0, 0, 0, 0, 8, 0))
        return launches((elementwise.fill_long,), (1, 1, 1, 1, count, 1), [flags], (0,))

    def _check_rows(self, name: str, rows: int, size: int, flag: str, *, told: bool) -> list[Launch]:
        """A result (rows, size); with `told`, also which of its rows are not all 0."""
        some = Strided(self.at("flags") + 8 * len(FLAGS), (8, 0, 0, 0, 0, 0)) if told else ABSENT
        views = [Strided(self.at(name), (4 * size, 0, 0, 0, 4, 0)), some]
        return launches(
            (checks.check_row,),
            (rows, 1, 1, 1, size, 1),
            views,
            (self.at("flags") + 8 * FLAGS.index(flag),),
            (checks.LARGEST,),
        )

    def _check(self, views: list[Strided], shape: tuple[int, ...], flag: str) -> list[Launch]:
        flags = (self.at("flags") + 8 * FLAGS.index(flag), self.at("flags") + 8 * FLAGS.index("domain"))
        return launches((checks.check,), shape, views, flags, (checks.LARGEST,))


def _discard(device: Device, graphs: dict[Any, Any]) -> None:
    for graph in graphs.values():
        device.discard(graph)
    graphs.clear()
