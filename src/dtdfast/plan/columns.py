"""The four phases of a transposed product with stride 2 and few results per pixel, such as relevance of an image, as
columns of one product.

    out[2q + p, c] = Σ_k Σ_i x[q + offset_k, i] w[i, tap(p, k), c]    p: of 2 × 2; k: taps of all four phases together

Each phase alone would fetch x for its own taps, 49 times in all for 7 × 7 taps; together they fetch it 16 times. A
weight is 0 where a phase has no tap, which adds nothing to a sum, and the other terms come in the order that they had.
The product goes to scratch memory, from which each phase takes its columns. Which layers do so follows from the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from ..vocabulary import W_ONE
from .plan import Plan
from .steps import SIZES, Buffer, Step, View
from .tensors import Region

SCRATCH = "sums"
"""The name of scratch memory, as of a caller's array."""

PHASES = 4
CHANNELS = (3, 4)  # of an image
OWN = frozenset(("out", "m", "phase", "weights", "macs"))  # what phases of one product do not share


def joined(steps: Sequence[Step], row_bytes: int) -> list[Step]:
    """The steps of a plan, with such phases put together.

    Parameters
    ----------
    row_bytes : of a row of x in the device's tiles; channels that fill no whole rows stay as they are
    """
    result: list[Step] = []
    k = 0
    while k < len(steps):
        together = _together(steps[k : k + PHASES], row_bytes)
        result += together or [steps[k]]
        k += PHASES if together else 1
    return result


def scratch_bytes(plan: Plan) -> int:
    """What the columns of such products take, one after the other."""
    buffers = [step.out.buffer for step in plan.relevance if step.out.buffer.external == SCRATCH]
    return max((buffer.nbytes(plan.n, plan.t) for buffer in buffers), default=0)


def _together(steps: Sequence[Step], row_bytes: int) -> list[Step]:
    """Steps in the place of these; none where they are not the phases of such a product."""
    first = steps[0]
    if first.op != "TAPS_DENSE" or len(steps) < PHASES or first.groups > 1 or first.window is not None:
        return []
    weights, x = first.weights, first.x
    assert weights is not None
    assert x is not None
    weight = weights.part.weight
    assert weight is not None
    shared = {key: value for key, value in vars(first).items() if key not in OWN}
    for step in steps:
        own = {key: value for key, value in vars(step).items() if key not in OWN}
        same = own.keys() == shared.keys() and all(own[key] is shared[key] for key in own)
        if not same or step.weights is None or step.weights.part is not weights.part:
            return []
    phases = [step.phase for step in steps if step.phase is not None]
    most = max(phases, key=lambda phase: len(phase.taps))
    offsets = [offset for _, offset in most.taps]
    c_out, c_in = weight.shape[:2]
    if (
        not weights.scatter
        or first.weight_map == W_ONE  # of a tap that is not there, too
        or c_in not in CHANNELS
        or c_out * SIZES[x.buffer.root.dtype] % row_bytes
        or prod(most.step) != PHASES
        or len({phase.start for phase in phases}) < PHASES
        or any(phase.count != most.count or phase.x_step != most.x_step for phase in phases)
        or any(offset not in offsets for phase in phases for _, offset in phase.taps)
        or sum(len(phase.taps) for phase in phases) <= len(offsets)
    ):
        return []

    columns = np.zeros((c_out, PHASES * c_in, len(offsets)), weight.dtype)
    taps = weight.reshape(c_out, c_in, -1)
    for number, phase in enumerate(phases):
        for tap, offset in phase.taps:
            columns[:, number * c_in : (number + 1) * c_in, offsets.index(offset)] = taps[:, :, tap]
    before, after = weights.part.variant  # no affine maps have these numbers
    part = replace(weights.part, weight=columns, support=None, variant=(-1 - before, after))
    size = most.count[4 - len(first.out.buffer.shape) :]
    sums = Buffer("columns", (PHASES * c_in, *size), first.out.buffer.batch, "f4", plain=False, external=SCRATCH)
    all_taps = tuple(enumerate(offsets))
    product = first.but(
        out=View(sums), m=None, multiplier="none", accumulate=False, macs=sum(step.macs for step in steps),
        phase=replace(most, taps=all_taps), weights=replace(weights, part=part, taps=tuple(range(len(offsets)))),
    )  # fmt: skip
    result = [product]
    for number, step in enumerate(steps):
        region = Region(((number * c_in, 1, c_in), *((0, 1, s) for s in size)))
        op, multiplier = ("MOVE", "none") if step.m is None else ("MULTIPLY", step.multiplier)
        fields = {"m": step.m, "multiplier": multiplier, "repeat": step.repeat, "accumulate": step.accumulate}
        result.append(Step(op, step.unit, step.out, View(sums, region), **fields))
    return result
