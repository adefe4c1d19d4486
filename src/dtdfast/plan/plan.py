"""The plan: every step of one batch through the network and back, with its memory; printable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..show import preformatted
from .account import Book
from .parts import Sum
from .program import Program
from .steps import Buffer, Step
from .text import detail_of, shape_of, step_bytes
from .weights import Weighing

SEGMENT_MACS = 20_000_000_000
"""Multiply-adds after which a run returns to Python, so that Ctrl-C works: at most about half a second."""

COLUMNS = (
    "step", "entries", "operation", "detail", "rule", "to", "form", "shape", "multiply-adds", "bytes", "body"
)  # fmt: skip


@dataclass(eq=False)
class Plan:
    """Steps for n samples with t targets each.

    Attributes
    ----------
    n_constant : forward begins with so many steps that depend on no x: an arena keeps their results from call to call
    forward, relevance : list of Step
    arena : bytes of working memory
    local : bytes of memory of each thread, for what stands between the steps of a fused one
    attention : of every softmax whose attention is fused, what becomes of the weights
    again : the values that are made again on the way back, since the budget does not hold them; "" where it does
    pieces : so many of these run side by side, one thread through all steps of each (the last piece may have fewer
        samples)
    bodies : of every step, the body that runs it, if the executor has several for its operation; empty if it does not
        say
    """

    program: Program
    n: int
    t: int
    n_constant: int
    forward: list[Step]
    relevance: list[Step]
    buffers: list[Buffer]
    arena: int
    values: dict[int, Buffer]  # tensor → its values
    relevances: dict[int, Buffer]  # tensor → its relevance
    factors: dict[int, list[tuple[Buffer, str]]]  # neuron's output tensor → per share (factor, "gate" or "denominator")
    book: Book | None = None  # what is summed for a ledger
    weighing: Weighing | None = None  # what is summed for the relevance of weights
    local: int = 0
    attention: list[tuple[tuple[int, ...], str]] = field(default_factory=list)
    again: str = ""
    pieces: int = 1
    bodies: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds of all products."""
        return sum([step.macs for steps in (self.forward, self.relevance) for step in steps])

    @property
    def memory(self) -> int:
        """Bytes of working memory of all pieces."""
        return self.pieces * self.arena

    def segments(self, steps: list[Step], first: int) -> list[tuple[int, int]]:
        """Ranges of steps, counted from `first`, of at most SEGMENT_MACS each."""
        result, begin, macs = [], 0, 0
        for number, step in enumerate(steps):
            more = step.macs
            if macs and macs + more > SEGMENT_MACS:
                result.append((first + begin, first + number))
                begin, macs = number, 0
            macs += more
        return [*result, (first + begin, first + len(steps))]

    def largest(self) -> str:
        """The layer whose result takes most of the arena."""
        sizes: dict[int, int] = {}
        for step in (*self.forward, *self.relevance):
            if step.unit is not None:
                place = step.unit.position
                sizes[place] = max(sizes.get(place, 0), step.out.buffer.root.nbytes(self.n, self.t))
        return f"layer {max(sizes, key=lambda place: sizes[place])}" if sizes else "the network"

    def __str__(self) -> str:
        return describe(self)

    def __repr__(self) -> str:
        steps = len(self.forward) + len(self.relevance)
        return (
            f"Plan({self.program!r}, n={self.n}, t={self.t}, {steps} steps, arena {self.arena:,} bytes, {self.macs:,} "
            "multiply-adds)"
        )

    def _repr_html_(self) -> str:
        return preformatted(str(self))


def describe(plan: Plan) -> str:
    """One line per step with shape, rule, multiply-adds and bytes."""
    program, n, t = plan.program, plan.n, plan.t
    network = program.network
    lines = [
        f"plan to {program.kind} for {n} sample(s) of {program.input_shape} with {t} target(s) each",
        f"arena {plan.arena:,} bytes, {plan.macs:,} multiply-adds",
    ]
    if plan.pieces > 1:
        lines.append(
            f"{plan.pieces} such pieces of a batch side by side, one thread through all steps of each: "
            f"{plan.memory:,} bytes"
        )
    if program.because:
        some = 0 < program.wide < len(network.units)
        upto = f" up to entry {network.units[program.wide - 1].position} and float32 above" if some else ""
        values, relevance = (" for values", ", float32 for relevance") if program.halved else ("", "")
        lines.append(f"arithmetic: {np.dtype(program.low)}{values}{upto}{relevance}, {program.because}")
        if program.needs:
            lines.append(
                f"up to {1.7 if program.halved else 2.3} times the time of precision='single', whose rounding may add "
                "or drop messages of neurons close to 0"
            )
    if program.checked is not None:
        entry = program.checked.position
        lines.append(
            f"checked in every sample: where the bias of entry {entry} outweighs what it is added to, float64 "
            "throughout"
        )
    if program.pruned:
        lines.append("pruned, since nothing wanted reads them: " + ", ".join(map(str, program.pruned)))
    for position, takers in sorted(network.taken.items()):
        lines.append(f"entry {position} folded into {', '.join(map(str, takers))}")
    if plan.local:
        lines.append(f"{plan.local:,} bytes of memory for each thread beside the arena, for slices of fused steps")
    for what in dict.fromkeys(what for _, what in plan.attention):
        entries = ", ".join("+".join(map(str, which)) for which, found in plan.attention if found == what)
        lines.append(f"attention weights of {entries}: {what}")
    if plan.again:
        lines.append(f"made again on the way back, since the memory budget does not hold them: values of {plan.again}")
    if plan.n_constant:
        lines.append(f"steps 0 to {plan.n_constant - 1} depend on no x: an arena keeps their results from call to call")
    if plan.bodies:
        lines.append(
            "body: what runs a step, chosen by its shape; what stands in brackets runs instead if x is mostly 0"
        )
    lines.append("")
    rows: list[tuple[str, ...]] = [(*COLUMNS[:-1], COLUMNS[-1] if plan.bodies else "")]
    for number, step in enumerate(listed(plan)):
        if number == len(plan.forward):
            rows.append(("",) * len(COLUMNS))
        step.update(entries="+".join(map(str, step["entries"])) or "-", bytes=f"{step['bytes']:,}")
        step["multiply-adds"] = f"{step['multiply-adds']:,}" if step["multiply-adds"] else ""
        rows.append(tuple(map(str, step.values())))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    right = (0, 8, 9)
    for row in rows:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listed(plan: Plan) -> list[dict[str, Any]]:
    """Every step as a row of the text, with its numbers."""
    forms = {id(b.root): plan.program.network.tensors[i].form for i, b in plan.relevances.items()}
    rows: list[dict[str, Any]] = []
    for number, step in enumerate((*plan.forward, *plan.relevance)):
        unit = step.unit
        rule = unit.row.label if isinstance(unit, Sum) and unit.row is not None and plan.program.relevant else ""
        cells = (
            number,
            step.entries,
            step.op.lower(),
            detail_of(step),
            rule if step.op.startswith(("NEURON", "TAPS", "SCATTER", "FACTOR")) else "",
            step.out.buffer.name,
            forms.get(id(step.out.buffer.root), ""),
            shape_of(step.out),
            step.macs,
            step_bytes(step, plan.n, plan.t),
            plan.bodies[number] if plan.bodies else "",
        )
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows
