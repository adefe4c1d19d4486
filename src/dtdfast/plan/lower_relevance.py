"""From units to steps: relevance on its way down, in the form that each tensor takes (resolve.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..rules import Term
from ..vocabulary import INPUT_MAPS, W
from . import units as U
from .lower_base import LoweringBase, feature_slot, is_identity, is_whole
from .steps import Buffer, Step, View
from .taps import phases


class RelevanceLowering:
    """Emits the relevance steps over what the forward steps kept."""

    def __init__(self, forward: LoweringBase, t: int) -> None:
        self.forward, self.t = forward, t
        self.program = forward.program
        self.steps: list[Step] = []
        self.relevances: dict[int, Buffer] = {}
        self.above: dict[int, Buffer] = {}  # where float32 units put relevance that float64 units take on

    def run(self) -> None:
        network, leaves = self.program.network, self.program.leaves
        forward_steps, self.forward.steps = self.forward.steps, self.steps  # what the base emits now goes here
        self.forward.real = self.forward.gates
        try:
            output = network.output
            start = self.forward.external("start", output.shape, "nt")
            self.relevances[output.index] = start
            if len(output.shape) > 1:
                moved = self.forward.buffer(f"r{self.forward.label(output)}", output.shape, "nt")
                self.emit(Step("MOVE", None, View(moved), View(start)))
                self.relevances[output.index] = moved
            for number, unit in reversed([*enumerate(network.units)]):
                if number == self.program.wide - 1:
                    self.widen()
                if unit.out is leaves or not unit.in_relevance or unit.out.index not in self.relevances:
                    continue
                self.forward.unit = unit
                RELEVANCE[type(unit)](self, unit, self.relevances[unit.out.index])
            self.forward.unit = None
            self.finish(leaves)
        finally:
            self.forward.steps = forward_steps

    def widen(self) -> None:
        """Float64 from here on: relevance so far is taken over, and values are those before they were rounded."""
        forward = self.forward
        forward.unit, forward.real, forward.gates = None, self.program.low, self.program.low
        forward.values.update(forward.wide)
        for tensor in forward.network.tensors:
            if tensor.index in forward.wide and tensor.index in self.relevances:
                self.above[tensor.index] = self.relevances[tensor.index]
                stem = "r" if tensor.form == "R" else "c"
                self.relevances[tensor.index] = forward.converted(self.above[tensor.index], tensor, stem)

    def finish(self, leaves: U.Tensor) -> None:
        """Relevance R (a gradient: c) of the tensor that is wanted, into the caller's array."""
        found = self.relevances[leaves.index]
        if leaves.form == "c" and not self.program.gradient:
            product = self.wanted("R")
            self.emit(
                Step(
                    "MULTIPLY",
                    None,
                    View(product),
                    View(found),
                    m=View(self.forward.value(leaves)),
                    mode="times",
                    repeat=self.t,
                )
            )
            found = product
        if found.external != "result":
            result = self.forward.external("result", leaves.shape, "nt")
            self.emit(Step("MOVE", None, View(result), View(found)))

    def wanted(self, letter: str) -> Buffer:
        """Where what the caller gets comes about: in his array, if it has no channels to turn around."""
        leaves = self.program.leaves
        if len(leaves.shape) == 1:
            return self.forward.external("result", leaves.shape, "nt")
        return self.forward.buffer(
            f"{letter}{self.forward.label(leaves)}", leaves.shape, "nt", dtype=self.forward.numbers
        )

    def emit(self, step: Step) -> None:
        self.forward.emit(step)

    def sink(self, tensor: U.Tensor) -> tuple[Buffer, bool]:
        """Where a contribution to a tensor's relevance goes, and whether others came before."""
        if tensor.index in self.relevances:
            return self.relevances[tensor.index], True
        letter = "r" if tensor.form == "R" else "c"
        leaves = tensor is self.program.leaves
        if leaves and (tensor.form == "R" or self.program.gradient):
            buffer = self.wanted(letter)
        else:
            dtype = self.forward.numbers if leaves else ""  # what is handed out is not rounded
            buffer = self.forward.buffer(f"{letter}{self.forward.label(tensor)}", tensor.shape, "nt", dtype=dtype)
        self.relevances[tensor.index] = buffer
        return buffer, False

    def deliver(self, unit: U.Unit, source: U.Tensor, write: Callable[[Buffer, bool], None]) -> None:
        """`write` a contribution in the form of unit.out; where R is wanted and c was written, multiply by x."""
        buffer, accumulate = self.sink(source)
        if source.form == unit.out.form:
            write(buffer, accumulate)
            return
        temporary = self.forward.buffer(f"t{self.forward.label(source)}", source.shape, "nt")
        write(temporary, False)
        self.times_x(source, temporary, buffer, accumulate)

    def times_x(self, tensor: U.Tensor, c: Buffer, out: Buffer, accumulate: bool) -> None:
        x = View(self.forward.value(tensor))
        self.emit(Step("MULTIPLY", None, View(out), View(c), m=x, mode="times", accumulate=accumulate, repeat=self.t))

    # -------------------------------------------------------------------------------------------------------------
    # neurons

    def neuron(self, unit: U.Neuron, r: Buffer) -> None:
        """S = factor ⊙ c or R / d per share, then one scatter per operand and term."""
        row = unit.row
        assert row is not None
        factors = self.forward.factors[unit.out.index]
        if row.by_sign and not self.program.gradient:  # one factor, whose sign says which share holds
            factors = [(factors[0][0], "positive"), (factors[0][0], "negative")]
        for number, (factor, kind) in enumerate(factors):
            pairs = [(p, term) for p in unit.parts for term in p.terms[number] if p.source.wanted]
            if not pairs:
                continue
            s = self.forward.buffer(f"s{self.forward.label(unit.out)}", unit.out.shape, "nt")
            if kind == "gate":
                self.emit(Step("MULTIPLY", unit, View(s), View(r), m=View(factor), mode="times", repeat=self.t))
            else:
                mode = "none" if kind == "denominator" else kind
                self.emit(Step("DIVIDE", unit, View(s), View(r), m=View(factor), mode=mode, repeat=self.t))
            for part, term in pairs:
                self.scatter(part, term, s, row.gamma)
        # nothing to share by: the ledger says so
        if unit.half and not any(unit.parts[k].terms[0] for k in range(len(unit.parts))):
            for source in {t.index: t for t in unit.sources if t.wanted}.values():
                out, accumulate = self.sink(source)
                self.emit(Step("MOVE", unit, View(out), bound=self.forward.constant([0.0]), accumulate=accumulate))

    def scatter(self, part: U.Part, term: Term, s: Buffer, gamma: float) -> None:
        """r_in[i] (+)= in(x_i) · Σ_j wm(w_ij) s_j (without x in the c form)."""
        buffer, accumulate = self.sink(part.source)
        form = "c" if self.program.gradient else part.source.form
        row = INPUT_MAPS[term.x]
        multiplier = row.product if form == "c" else row.times
        if multiplier is None:
            raise NotImplementedError(f"the input map {term.x!r} multiplies no relevance in the form {form}")
        fields: dict[str, Any] = dict(
            out=View(buffer), weight_map=term.w, mode=multiplier, accumulate=accumulate, gamma=gamma, repeat=self.t
        )
        if multiplier != "none":
            own = row.bound is not None
            fields["m"] = View(self.forward.mapped(part, term) if own else self.forward.value(part.source))
        if (is_identity(part) or is_whole(part)) and term.w == W:
            del fields["weight_map"], fields["gamma"]
            x = View(s) if is_identity(part) else View(s, expand=part.source.shape)
            self.emit(Step("MOVE" if multiplier == "none" else "MULTIPLY", self.forward.unit, x=x, **fields))
        else:
            self.forward.taps("TAPS", part, View(s), fields, scatter=True)

    # --------------------------------------------------------------------------------------------------------- other
    # units

    def winner(self, unit: U.Winner, r: Buffer) -> None:
        winners = self.forward.winners[unit.out.index]

        def write(out: Buffer, accumulate: bool) -> None:
            fields: dict[str, Any] = dict(
                x=View(r), m=View(winners), mode=1 if winners.dtype == "u1" else 2, accumulate=accumulate, repeat=self.t
            )
            if unit.taps.apart:
                (windows,) = phases(unit.taps)
                table = np.array([offset for _, offset in windows.taps], np.int64)
                self.emit(Step("MAX_SCATTER", unit, View(out), phase=windows, table=table, **fields))
                return
            for phase in phases(unit.taps, scatter=True):
                table = np.array([(k, *offset) for k, offset in phase.taps], np.int64).reshape(-1, 4)
                self.emit(
                    Step(
                        "MAX_UNPOOL", unit, View(out).phase(phase.start, phase.step, phase.count), table=table, **fields
                    )
                )

        self.deliver(unit, unit.sources[0], write)

    def elementwise(self, unit: U.Elementwise, r: Buffer) -> None:
        (source,) = unit.sources
        if self.program.gradient:
            slope = self.forward.buffer(f"g{self.forward.label(unit.out)}", unit.out.shape)
            self.forward.activate(unit, slope, self.forward.value(source), "derivative")
            out, accumulate = self.sink(source)
            self.emit(
                Step(
                    "MULTIPLY",
                    unit,
                    View(out),
                    View(r),
                    m=View(slope),
                    mode="times",
                    accumulate=accumulate,
                    repeat=self.t,
                )
            )
        elif source.form == "c":  # a ReLU: x = max(0, y), so c passes where it is active
            out, accumulate = self.sink(source)
            gate = View(self.forward.value(unit.out))
            self.emit(
                Step(
                    "MULTIPLY", unit, View(out), View(r), m=gate, mode="positive", accumulate=accumulate, repeat=self.t
                )
            )
        else:
            self.passes(unit, source, r)

    def passes(self, unit: U.Unit, source: U.Tensor, r: Buffer) -> None:
        """R_in = R_out; from the c form, R_out = x_out ⊙ c."""
        out, accumulate = self.sink(source)
        if unit.out.form == "c":
            self.times_x(unit.out, r, out, accumulate)
        else:
            self.emit(Step("MOVE", unit, View(out), View(r), accumulate=accumulate))

    def affine(self, unit: U.Affine, r: Buffer) -> None:
        if self.program.gradient:
            out, accumulate = self.sink(unit.sources[0])
            scale = self.forward.constant(unit.scale)
            self.emit(Step("AFFINE", unit, View(out), View(r), vector=scale, accumulate=accumulate))
        elif unit.shares is None:
            self.passes(unit, unit.sources[0], r)
        else:
            self.spread(unit, unit.shares, r)

    def spread(self, unit: U.Affine, shares: tuple[U.Floats, ...], r: Buffer) -> None:
        """To every source its share per channel, to the first where its taps are open."""
        if unit.out.form == "c":
            whole = self.forward.buffer(f"r{self.forward.label(unit.out)}", unit.out.shape, "nt")
            self.times_x(unit.out, r, whole, False)
            r = whole
        carriers = unit.carriers
        for number, (source, share) in enumerate(zip(unit.sources, shares, strict=True)):
            if not source.wanted or source not in carriers:
                continue
            out, accumulate = self.sink(source)
            if number == unit.open_to and unit.tapped is not None:
                m = View(self.forward.passing[unit.out.index])
                self.emit(
                    Step(
                        "MULTIPLY", unit, View(out), View(r), m=m, mode="positive", accumulate=accumulate, repeat=self.t
                    )
                )
            else:
                self.emit(
                    Step("AFFINE", unit, View(out), View(r), vector=self.forward.constant(share), accumulate=accumulate)
                )

    def normalise(self, unit: U.Normalise, r: Buffer) -> None:
        self.passes(unit, unit.sources[0], r)

    def total(self, unit: U.Total, r: Buffer) -> None:
        for source in unit.sources:
            if not source.wanted:
                continue
            if self.program.gradient:
                out, accumulate = self.sink(source)
                self.emit(Step("MOVE", unit, View(out), View(r), accumulate=accumulate))
            else:
                self.passes(unit, source, r)

    def gating(self, unit: U.Gating, r: Buffer) -> None:
        signal, gate = unit.sources
        if self.program.gradient:
            for operand, other in ((signal, gate), (gate, signal)):
                if operand.wanted:
                    self.gating_gradient(unit, operand, other, r)
            return

        def write(out: Buffer, accumulate: bool) -> None:
            if unit.out.form == "R":
                self.emit(Step("MOVE", unit, View(out), View(r), accumulate=accumulate))
                return
            m = View(self.forward.value(gate), expand=unit.out.shape)
            self.emit(
                Step("MULTIPLY", unit, View(out), View(r), m=m, mode="times", accumulate=accumulate, repeat=self.t)
            )

        self.deliver(unit, signal, write)

    def gating_gradient(self, unit: U.Gating, operand: U.Tensor, other: U.Tensor, r: Buffer) -> None:
        """c_operand = other ⊙ c, summed over space where the operand was repeated."""
        out, accumulate = self.sink(operand)
        m = View(self.forward.value(other), expand=unit.out.shape)
        if operand.shape == unit.out.shape:
            self.emit(
                Step("MULTIPLY", unit, View(out), View(r), m=m, mode="times", accumulate=accumulate, repeat=self.t)
            )
            return
        product = self.forward.buffer(f"t{self.forward.label(unit.out)}", unit.out.shape, "nt")
        self.emit(Step("MULTIPLY", unit, View(product), View(r), m=m, mode="times", repeat=self.t))
        index: tuple[int, ...]
        axes = tuple(size if small == 1 else 1 for size, small in zip(unit.out.shape, operand.shape, strict=True))
        for number, index in enumerate(np.ndindex(*axes)):
            ranges = tuple((i, 1, s) for i, s in zip(index, operand.shape, strict=True))
            self.emit(
                Step("MOVE", unit, View(out), View(product, U.Region(ranges)), accumulate=accumulate or number > 0)
            )

    def move(self, unit: U.Move, r: Buffer) -> None:
        """Every piece goes back where it came from; what was not read keeps 0."""
        pieces: list[list[tuple[U.Region, U.Region]]] = [[] for _ in unit.sources]
        for to, number, of in unit.pairs:
            pieces[number].append((to, of))
        for source, own in zip(unit.sources, pieces, strict=True):
            if source.wanted:
                self.deliver(unit, source, partial(self.move_back, unit, r, pieces=own))

    def move_back(
        self, unit: U.Move, r: Buffer, out: Buffer, accumulate: bool, pieces: list[tuple[U.Region, U.Region]]
    ) -> None:
        if not accumulate and not all(covers(of, out.shape) for _, of in pieces):
            self.emit(Step("MOVE", unit, View(out), bound=self.forward.constant([0.0])))
            accumulate = True
        for to, of in pieces:
            self.emit(Step("MOVE", unit, View(out, of), View(r, to), accumulate=accumulate))
            accumulate = True

    def copy(self, unit: U.Copy, r: Buffer) -> None:
        """Every element gets the sum over its copies."""

        def write(out: Buffer, accumulate: bool) -> None:
            fields: dict[str, Any] = dict(
                out=View(out), weight_map=W, mode="none", accumulate=accumulate, repeat=self.t
            )
            self.forward.taps("TAPS", unit.part, View(r), fields, scatter=True)

        self.deliver(unit, unit.sources[0], write)

    def reshape(self, unit: U.Reshaping, r: Buffer) -> None:
        def write(out: Buffer, accumulate: bool) -> None:
            back = self.forward.reshaped(r, unit.sources[0].shape, f"t{self.forward.label(unit.out)}")
            self.emit(Step("MOVE", unit, View(out), View(back), accumulate=accumulate))

        self.deliver(unit, unit.sources[0], write)

    def words(self, unit: U.Words, r: Buffer) -> None:
        out, accumulate = self.sink(unit.sources[0])
        m = View(self.forward.value(unit.out)) if unit.out.form == "c" else None
        target = View(out, trailing=True)
        self.emit(
            Step("EMBED_SUM", unit, target, View(r), m=m, mode=feature_slot(unit), accumulate=accumulate, repeat=self.t)
        )


def covers(region: U.Region, shape: tuple[int, ...]) -> bool:
    """Whether a region is every element of a sample, in any order."""
    return all(count == size and abs(step) == 1 for (_, step, count), size in zip(region.ranges, shape, strict=True))


RELEVANCE: dict[type[U.Unit], Callable[[RelevanceLowering, Any, Buffer], None]] = {
    U.Neuron: RelevanceLowering.neuron,
    U.Winner: RelevanceLowering.winner,
    U.Elementwise: RelevanceLowering.elementwise,
    U.Affine: RelevanceLowering.affine,
    U.Normalise: RelevanceLowering.normalise,
    U.Total: RelevanceLowering.total,
    U.Gating: RelevanceLowering.gating,
    U.Move: RelevanceLowering.move,
    U.Copy: RelevanceLowering.copy,
    U.Reshaping: RelevanceLowering.reshape,
    U.Words: RelevanceLowering.words,
}
