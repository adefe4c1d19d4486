"""A step as text: its shape, its detail and its bytes."""

from __future__ import annotations

from .sliced import Sliced
from .steps import SIZES, Step, View


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


def shape_of(view: View) -> str:
    _, shape, _ = view.layout()
    sizes = [s for a, s in enumerate(shape) if s != 1 or a == 0]
    return f"{view.buffer.batch}×" + "×".join(map(str, sizes))


def detail_of(step: Step) -> str:
    parts = []
    if step.op.startswith("NEURON"):
        parts.append("y and z+" if step.dual else "y, x+ w+ and x- w-" if step.other is not None else "y")
        if step.activation[0] != "identity":
            parts.append(step.activation[0])
        if step.factor is not None:
            parts.append(f"-> {step.factor_kind}")
    elif step.op.startswith(("TAPS", "SCATTER")):
        parts.append(step.weight_map)
        if step.multiplier != "none":
            parts.append(f"x {step.multiplier}")
    elif step.op == "MAP":
        parts.append(step.input_map)
    elif step.op == "MULTIPLY":
        parts.append(step.multiplier)
    elif step.op == "FACTOR":
        parts.append(step.factor_kind)
    elif isinstance(step, Sliced):
        parts.append(step.detail)
    elif step.op == "DIVIDE" and step.sign != "none":
        parts.append(step.sign)
    if step.accumulate:
        parts.append("+=")
    return " ".join(parts)
