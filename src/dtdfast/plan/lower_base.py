"""What both directions of lowering share: buffers, emitting steps, sums over taps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import layers as L
from ..rules import Term
from ..vocabulary import INPUT_MAPS, W_ONE, X_ONE, W, X
from . import units as U
from .steps import Buffer, Reals, Step, View, Weights
from .taps import Phase, phases

if TYPE_CHECKING:
    from .plan import Kept
    from .program import Program


def activation_of(record: L.ReLU | L.Activation | None) -> tuple[str, float, float]:
    if record is None:
        return "identity", 0.0, 0.0
    if isinstance(record, L.ReLU):
        return "relu", 0.0, 0.0
    kind = record.function.kernel or record.kind  # with slopes, which the step brings along
    return kind, float(record.alpha or 0.0), float(record.beta or 0.0)


def feature_slot(unit: U.Words) -> int:
    """The slot of a view (n, c, d, h, w, extra) that holds an embedding's features, its last axis."""
    return 4 if len(unit.out.shape) <= 4 else 5


def is_identity(part: U.Part) -> bool:
    """An operand that enters with weight 1 and no taps."""
    return part.weight is None and part.window is None and part.taps.n_taps == 1 and part.taps.stride == (1, 1, 1)


def is_whole(part: U.Part) -> bool:
    """One window that is the whole of its operand, as in a global pool: going back, every element gets the same."""
    taps = part.taps
    return (
        part.weight is None
        and not taps.transposed
        and taps.kernel == taps.x_size
        and taps.out_size == (1, 1, 1)
        and not any(taps.before)
    )


class LoweringBase:
    """Emits steps; holds the buffers of values, and what the forward steps keep for the relevance steps.

    reals : how values, and how gates and relevance are kept; what the caller gives and gets is of the program's type in
    any case
    """

    def __init__(self, program: Program, ledger: bool, reals: tuple[str, str]) -> None:
        self.program, self.ledger = program, ledger
        self.real, self.gates = reals  # of a buffer where nothing else is said, and of gates
        self.wide: dict[int, Buffer] = {}  # values in float64 of tensors that float32 units read too
        self.network = program.network
        self.steps: list[Step] = []
        self.unit: U.Unit | None = None
        self.values: dict[int, Buffer] = {}
        # neuron's output → per share (factor, "gate" or "denominator")
        self.factors: dict[int, list[tuple[Buffer, str]]] = {}
        self.winners: dict[int, Buffer] = {}
        self.passing: dict[int, Buffer] = {}  # affine's output → positive where relevance passes to its first source
        self.kept: dict[int, Kept] = {}
        self.names: dict[str, int] = {}

    # -------------------------------------------------------------------------------------------------------------
    # buffers

    def buffer(
        self, stem: str, tensor_shape: tuple[int, ...], batch: str = "n", *, plain: bool = False, dtype: str = ""
    ) -> Buffer:
        count = self.names.get(stem, 0)
        self.names[stem] = count + 1
        name = f"{stem}.{count}" if count else stem
        return Buffer(name, tensor_shape, batch, dtype or self.real, plain=plain or len(tensor_shape) < 2)

    @property
    def numbers(self) -> str:
        """The type of what is not rounded to a narrow one."""
        return "f8" if self.real == "f8" else self.program.real

    def external(self, name: str, tensor_shape: tuple[int, ...], batch: str = "n") -> Buffer:
        """An array of the caller's."""
        return Buffer(name, tensor_shape, batch, self.numbers, external=name)

    def constant(self, array: Any) -> Reals:
        """Numbers as the program computes with them."""
        with np.errstate(over="ignore"):  # what becomes infinite shows in the result
            return np.ascontiguousarray(array, self.numbers)

    def value(self, tensor: U.Tensor) -> Buffer:
        return self.values[tensor.index]

    def spatial(self, tensor: U.Tensor) -> Buffer:
        """The tensor's values channels-last, for kernels that ask for it."""
        buffer = self.values[tensor.index]
        if buffer.plain and len(buffer.shape) > 1:
            moved = self.buffer(f"x{self.label(tensor)}", tensor.shape, dtype=buffer.dtype)
            self.emit(Step("MOVE", self.unit, View(moved), View(buffer)))
            self.values[tensor.index] = buffer = moved
        return buffer

    @staticmethod
    def label(tensor: U.Tensor) -> str:
        return "in" if tensor.position == L.INPUT else str(tensor.position)

    def converted(self, source: Buffer, tensor: U.Tensor, stem: str) -> Buffer:
        """The same in the type of what comes next."""
        buffer = self.buffer(f"{stem}{self.label(tensor)}", tensor.shape, source.batch, plain=source.plain)
        self.emit(Step("CONVERT", None, View(buffer), View(source)))
        return buffer

    def activate(self, unit: U.Neuron | U.Elementwise, out: Buffer, x: Buffer, mode: str | int = 0) -> None:
        """Out = act(x), or act'(x) by the mode "derivative"."""
        record = unit.activation
        slopes = (
            record.slopes_for(len(unit.out.shape))
            if isinstance(record, L.Activation) and record.slopes is not None
            else None
        )
        bound = None if slopes is None else self.constant(slopes)
        self.emit(Step("ACTIVATE", unit, View(out), View(x), activation=activation_of(record), bound=bound, mode=mode))

    def emit(self, step: Step) -> None:
        if step.unit is None:
            step.unit = self.unit
        self.steps.append(step)

    def taps(
        self, verb: str, part: U.Part, x: View, fields: dict[str, Any], window: Any = None, *, scatter: bool = False
    ) -> None:
        """Emit a sum over taps, one step per phase; `fields` are whole-tensor views, cut to each phase here."""
        if part.support is not None and fields.get("weight_map") == W_ONE:
            part, fields = part.support, {**fields, "weight_map": W}
        taps = part.taps
        all_phases = phases(taps, scatter=scatter)
        if window is not None:
            fields["window"] = self.constant(window)
        x_size = taps.out_size if scatter else taps.x_size
        dense = part.weight is not None and not taps.depthwise
        for phase in all_phases:
            numbers = tuple(k for k, _ in phase.taps)
            cut = {k: self.cut(v, phase, len(all_phases)) for k, v in fields.items()}
            weights: Weights | None = None
            real = x.buffer.root.dtype
            if part.linear:
                op = "SCATTER_LINEAR" if scatter else f"{verb}_LINEAR"
                weights = Weights(part, "rows", real=real)
            elif dense:
                op, weights = f"{verb}_DENSE", Weights(part, "dense", scatter, numbers, real)
            else:
                op = f"{verb}_CHANNEL"
                weights = Weights(part, "channel", False, numbers, self.numbers) if part.weight is not None else None
            if not part.linear:
                x.buffer.root.widen(*phase.border(x_size))
            inner = (taps.c_out if scatter else taps.c_in) // taps.groups
            outer = taps.c_in if scatter else taps.c_out
            points = phase.count[0] * phase.count[1] * phase.count[2] * len(phase.taps)
            macs = points * inner * outer * (2 if fields.get("dual") else 1)
            self.emit(Step(op, self.unit, x=x, weights=weights, phase=phase, groups=taps.groups, macs=macs, **cut))

    @staticmethod
    def cut(value: Any, phase: Phase, n_phases: int) -> Any:
        return value.phase(phase.start, phase.step, phase.count) if isinstance(value, View) and n_phases > 1 else value

    def reshaped(self, source: Buffer, shape: tuple[int, ...], stem: str) -> Buffer:
        """The same elements under another shape, in row-major order: a copy only where a channels-last array is in the
        way.
        """
        if not source.plain:
            flat = self.buffer(stem, source.shape, source.batch, plain=True, dtype=source.dtype)
            self.emit(Step("MOVE", self.unit, View(flat), View(source)))
            source = flat
        seen = self.buffer(stem, shape, source.batch, plain=True)
        seen.alias, seen.dtype, seen.external = source, source.dtype, source.external
        if len(shape) < 2:
            return seen
        moved = self.buffer(stem, shape, source.batch, dtype=source.dtype)
        self.emit(Step("MOVE", self.unit, View(moved), View(seen)))
        return moved

    def mapped(self, part: U.Part, term: Term, batch: str = "n") -> Buffer:
        """in(x) of an operand, in a buffer of its own where it is not x itself."""
        source = self.value(part.source)
        if term.x == X:
            return source
        buffer = self.buffer(f"m{self.label(part.source)}", part.source.shape, batch if term.x == X_ONE else "n")
        bound = INPUT_MAPS[term.x].bound
        values = None if bound is None or part.box is None else self.constant(part.box[bound])
        self.emit(
            Step("MAP", self.unit, View(buffer), None if term.x == X_ONE else View(source), mode=term.x, bound=values)
        )
        return buffer
