"""A plan as text: one line per step with shape, rule, multiply-adds and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .steps import SIZES, Step, View
from .units import Neuron

if TYPE_CHECKING:
    from .plan import Plan


def step_bytes(step: Step, n: int, t: int) -> int:
    """Bytes that a step must move at least: its operands and weights once."""
    total = 0
    for view in step.views():
        count = {"n": n, "nt": n * t, "1": 1}[view.buffer.batch]
        _, shape, _ = view.layout()
        for size in shape:
            count *= size
        total += count * SIZES[view.buffer.dtype]
    if step.weights is not None and step.weights.part.weight is not None:
        weight = step.weights.part.weight
        taps = len(step.weights.taps) or 1
        total += SIZES[step.weights.real] * weight.size * taps // max(1, step.weights.part.taps.n_taps)
    return total


def _shape(view: View) -> str:
    _, shape, _ = view.layout()
    sizes = [s for a, s in enumerate(shape) if s != 1 or a == 0]
    return f"{view.buffer.batch}×" + "×".join(map(str, sizes))


def _detail(step: Step) -> str:
    parts = []
    if step.op.startswith("NEURON"):
        parts.append("y and z+" if step.dual else "y")
        if step.activation[0] != "identity":
            parts.append(step.activation[0])
        if step.factor is not None:
            parts.append(f"-> {step.mode}")
    elif step.op.startswith(("TAPS", "SCATTER")):
        parts.append(step.weight_map)
        if step.mode != "none":
            parts.append(f"x {step.mode}")
    elif step.op in ("MAP", "MULTIPLY", "FACTOR") or (step.op == "DIVIDE" and step.mode != "none"):
        parts.append(str(step.mode))
    if step.accumulate:
        parts.append("+=")
    return " ".join(parts)


def describe(plan: Plan) -> str:
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
        upto = f" up to entry {network.units[program.wide - 1].position} and float32 above" if program.wide else ""
        lines.append(f"arithmetic: {np.dtype(program.low)}{upto}, {program.because}")
    if program.checked is not None:
        entry = program.checked.position
        lines.append(
            f"checked in every sample: where the bias of entry {entry} outweighs what it is added to, float64 "
            "throughout"
        )
    if program.pruned:
        lines.append("pruned, since nothing wanted reads them: " + ", ".join(map(str, program.pruned)))
    for position, takers in sorted(network.folding.taken.items()):
        lines.append(f"entry {position} folded into {', '.join(map(str, takers))}")
    if plan.n_constant:
        lines.append(f"steps 0 to {plan.n_constant - 1} depend on no x: an arena keeps their results from call to call")
    if plan.bodies:
        lines.append(
            "body: the loops that run a step, chosen by its shape; what stands in brackets runs instead if x is "
            "mostly 0"
        )
    lines.append("")
    titles = ("step", "entries", "operation", "detail", "rule", "to", "form", "shape", "multiply-adds", "bytes")
    rows: list[tuple[str, ...]] = [(*titles, "body" if plan.bodies else "")]
    forms = {id(b.root): network.tensors[i].form for i, b in plan.relevances.items()}
    number = 0
    for steps in (plan.forward, plan.relevance):
        for step in steps:
            unit = step.unit
            rule = unit.row.label if isinstance(unit, Neuron) and unit.row is not None and program.relevant else ""
            rows.append(
                (
                    str(number),
                    "+".join(map(str, unit.entries)) if unit else "-",
                    step.op.lower(),
                    _detail(step),
                    rule if step.op.startswith(("NEURON", "TAPS", "SCATTER", "FACTOR")) else "",
                    step.out.buffer.name,
                    forms.get(id(step.out.buffer.root), ""),
                    _shape(step.out),
                    f"{step.macs:,}" if step.macs else "",
                    f"{step_bytes(step, n, t):,}",
                    plan.bodies[number] if plan.bodies else "",
                )
            )
            number += 1
        if steps is plan.forward and plan.relevance:
            rows.append(("",) * len(rows[0]))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    right = (0, 8, 9)
    for row in rows:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
