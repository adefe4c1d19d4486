"""From units to steps: the state of one lowering, and what the steps of several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from .. import layers as L
from ..record import INPUT
from ..rules import Term
from ..vocabulary import INPUT_MAPS, W_ONE, X_ONE, W, X
from .account import Book
from .domain import widthless
from .held import Held, Weighted
from .order import Axes, channels_last, default_order, order_above, order_below, order_in, row_major_memory, undone
from .parts import Part, is_identity, is_whole
from .steps import Buffer, Kept, Reals, Step, View, Weights
from .taps import POINT, phases
from .tensors import Node, Region, Tensor, whole
from .weights import Weighing


def activation_of(record: L.ReLU | L.Activation | None) -> tuple[str, float, float]:
    if record is None:
        return "identity", 0.0, 0.0
    if isinstance(record, L.ReLU):
        return "relu", 0.0, 0.0
    kind = record.function.kernel or record.kind  # with slopes, which the step brings along
    return kind, float(record.alpha or 0.0), float(record.beta or 0.0)


class Lowering:
    """Emits steps; holds the buffers of values and of relevance, and what the forward steps keep for the relevance.

    Parameters
    ----------
    real : the type of the program's numbers, and of what the caller gives and gets
    reals : how values, and how gates and relevance are kept
    output, leaves : the tensors at which relevance enters and leaves
    relevant, gradient : whether there is a relevance pass, and whether that is the gradient's
    ledger : sum what the ledger reads
    weights : positions of entries whose weights' relevance is summed
    """

    def __init__(
        self,
        real: str,
        reals: tuple[str, str],
        output: Tensor | None = None,
        leaves: Tensor | None = None,
        *,
        relevant: bool = False,
        gradient: bool = False,
        ledger: bool = False,
        weights: Collection[int] = (),
        t: int = 1,
    ) -> None:
        self.exact, self.output, self.leaves = real, output, leaves
        self.relevant, self.gradient, self.t, self.book = relevant, gradient, t, Book(self) if ledger else None
        self.weighing = Weighing(weights) if weights else None
        self.real, self.gates = reals  # of a buffer by default, and of gates
        self.paired: dict[int, float] = {}  # neuron's output → ρ, where two products each way serve (rules/rows.py)
        self.held: dict[int, Buffer] = {}  # id of a norm's operand → its scales
        self.makers: dict[int, Node] = {}  # tensor → the unit that writes it
        self.wide: dict[int, Buffer] = {}  # values in float64 of tensors that float32 units read too
        self.steps: list[Step] = []
        self.unit: Node | None = None
        self.values: dict[int, Buffer] = {}
        # neuron's output → per share (factor, "gate" or "denominator")
        self.factors: dict[int, list[tuple[Buffer, str]]] = {}
        self.winners: dict[int, Buffer] = {}
        self.passing: dict[int, Buffer] = {}  # affine's output → positive where relevance passes to its first source
        self.kept: dict[int, Kept] = {}
        self.sizes: dict[int, list[Buffer | None]] = {}  # for a ledger: neuron's output → Σ |terms| of each share
        self.lengths: dict[tuple[Buffer, int], Buffer] = {}  # values, blocks of their channels → √Σ x²
        self.shared: dict[int, dict[int, Buffer]] = {}  # neuron's output → s, by the number of the share
        self.names: dict[str, int] = {}
        self.rows: dict[tuple[int, str], Weights] = {}  # of fully connected parts, by their ids and the type of x
        self.relevances: dict[int, Buffer] = {}

    # -------------------------------------------------------------------------------------------------------- buffers

    def buffer(
        self,
        stem: str,
        tensor_shape: tuple[int, ...],
        batch: str = "n",
        *,
        plain: bool = False,
        dtype: str = "",
        like: Buffer | None = None,
    ) -> Buffer:
        """Memory of its own; `like` a buffer of this shape whose axes lie in another order than channels-last."""
        if like is not None and not channels_last(like, framed=False):
            return self.ordered(stem, tensor_shape, order_in(like), batch, dtype=dtype)
        count = self.names.get(stem, 0)
        self.names[stem] = count + 1
        name = f"{stem}.{count}" if count else stem
        return Buffer(name, tensor_shape, batch, dtype or self.real, plain or len(tensor_shape) < 2)

    @property
    def numbers(self) -> str:
        """The type of what is not rounded to a narrow one."""
        return "f8" if self.real == "f8" else self.exact

    def external(self, name: str, tensor_shape: tuple[int, ...], batch: str = "n") -> Buffer:
        """An array of the caller's."""
        return Buffer(name, tensor_shape, batch, self.numbers, external=name)

    def constant(self, array: Any) -> Reals:
        """Numbers as the program computes with them."""
        with np.errstate(over="ignore", under="ignore"):  # what becomes infinite shows in the result
            return np.ascontiguousarray(array, self.numbers)

    def value(self, tensor: Tensor) -> Buffer:
        return self.values[tensor.index]

    def spatial(self, tensor: Tensor, *, framed: bool = False) -> Buffer:
        """The tensor's values channels-last, for kernels that ask for it; with a border where they are `framed`."""
        buffer = self.values[tensor.index]
        common = buffer.seen is None and not framed and (not buffer.plain or len(buffer.shape) < 2)  # and fits
        if not common and not self.fits(buffer, framed):
            self.values[tensor.index] = buffer = self.channels_last(buffer, f"x{self.label(tensor)}")
        return buffer

    @staticmethod
    def fits(buffer: Buffer, framed: bool) -> bool:
        """Whether kernels that want channels last can read it; then what it is seen in keeps the layout that it has."""
        found = channels_last(buffer, framed)
        if found and buffer.seen is not None:
            buffer.root.frozen = True
        return found

    def channels_last(self, buffer: Buffer, name: str) -> Buffer:
        """A copy that is so."""
        moved = self.buffer(name, buffer.shape, buffer.batch, dtype=buffer.root.dtype)
        self.emit(Step("MOVE", self.unit, View(moved), View(buffer)))
        return moved

    @staticmethod
    def label(tensor: Tensor) -> str:
        return "in" if (position := tensor.position) == INPUT else str(position)

    def converted(self, source: Buffer, tensor: Tensor, stem: str, dtype: str = "") -> Buffer:
        """The same in another type: by default that of what comes next."""
        name = f"{stem}{self.label(tensor)}"
        buffer = self.buffer(name, tensor.shape, source.batch, plain=source.plain, dtype=dtype)
        assert buffer.dtype != source.root.dtype
        self.emit(Step("CONVERT", None, View(buffer), View(source)))
        return buffer

    def new_value(self, unit: Node, *, plain: bool = False, order: Axes | None = None) -> Buffer:
        """Where a unit's values go: channels-last, row-major, or in the order of axes (outermost first)."""
        # x as it is, since bounds are subtracted from it; and predictions, which are the relevance that enters
        exact = unit.out.is_input or unit.out is self.output
        name, dtype = f"x{self.label(unit.out)}", self.numbers if exact else ""
        if order is None:
            buffer = self.buffer(name, unit.out.shape, plain=plain, dtype=dtype)
        else:
            buffer = self.ordered(name, unit.out.shape, order, dtype=dtype)
        self.values[unit.out.index] = buffer
        return buffer

    def like(self, unit: Node, source: Buffer) -> Buffer:
        """Where values go that are made element by element: as the source lies, if that is not channels-last."""
        rank = len(source.shape)
        if rank < 2 or source.shape != unit.out.shape or (not source.plain and source.seen is None):
            return self.new_value(unit)
        return self.new_value(unit, order=order_above(unit.out) or order_in(source))

    def ordered(self, name: str, shape: tuple[int, ...], order: Axes, batch: str = "n", *, dtype: str = "") -> Buffer:
        """A buffer whose memory runs along the axes in this order, the outermost first."""
        if len(shape) == 1 or order == tuple(range(len(shape))) or order == default_order(len(shape)):
            return self.buffer(name, shape, batch, plain=order[-1] != 0, dtype=dtype)
        base = self.buffer(name, tuple(shape[a] for a in order), batch, plain=True, dtype=dtype)
        return self.region(base, Region(whole(base.shape).ranges, tuple(order.index(a) for a in range(len(shape)))))

    def region(self, buffer: Buffer, region: Region) -> Buffer:
        """A buffer in the memory of another one, a region of it; that one itself where a permutation is undone."""
        if buffer.seen is not None and undone(buffer.seen, region, buffer.shape):
            assert buffer.alias is not None
            return buffer.alias
        shape = tuple(count for _, _, count in region.ranges)
        shape = shape if region.order is None else tuple(shape[a] for a in region.order)
        seen = Buffer(buffer.name, shape, buffer.batch, buffer.dtype, plain=False, external=buffer.external)
        seen.alias, seen.seen = buffer, region
        return seen

    def reshaped(self, source: Buffer, shape: tuple[int, ...], stem: str) -> Buffer:
        """The same elements under another shape, in row-major order: a copy only where a channels-last array is in the
        way.
        """
        if not source.plain and row_major_memory(source):
            source = source.root
            source.frozen = True
        elif not source.plain:
            flat = self.buffer(stem, source.shape, source.batch, plain=True, dtype=source.dtype)
            self.emit(Step("MOVE", self.unit, View(flat), View(source)))
            source = flat
        seen = self.buffer(stem, shape, source.batch, plain=True)
        seen.alias, seen.dtype, seen.external = source, source.dtype, source.external
        return seen

    def mapped(self, part: Part, term: Term, batch: str = "n") -> Buffer:
        """in(x) of an operand, in a buffer of its own where it is not x itself."""
        source = self.value(part.source)
        if term.x == X:
            return source
        buffer = self.buffer(
            f"m{self.label(part.source)}",
            part.source.shape,
            batch if term.x == X_ONE else "n",
            like=source if part.held else None,
        )
        bound, values = INPUT_MAPS[term.x].bound, None
        # the other side's infinity says that an element contributes nothing
        if bound is not None and part.box is not None:
            box = part.box if part.rounded is None or self.numbers == "f8" else part.rounded
            values = self.constant(np.where(widthless(part.box), (np.inf, -np.inf)[bound], box[bound]))
        x = None if term.x == X_ONE else View(source)
        self.emit(Step("MAP", self.unit, View(buffer), x, input_map=term.x, bound=values))
        return buffer

    # ---------------------------------------------------------------------------------------------------------- steps

    def taken(self) -> list[Step]:
        """The steps emitted since this was last asked."""
        steps, self.steps = self.steps, []
        return steps

    def emit(self, step: Step) -> None:
        if step.unit is None:
            step.unit = self.unit
        self.steps.append(step)

    def activate(
        self, unit: Node, record: L.ReLU | L.Activation | None, out: Buffer, x: Buffer, *, derivative: bool = False
    ) -> None:
        """Out = act(x), or its derivative act'(x)."""
        bound = None
        if isinstance(record, L.Activation) and record.slopes is not None:
            bound = self.constant(record.slopes_for(len(unit.out.shape)))
        step = Step("ACTIVATE", unit, View(out), View(x), activation=activation_of(record), bound=bound)
        step.derivative = derivative
        self.emit(step)

    def taps(
        self, verb: str, part: Part, x: View, fields: dict[str, Any], window: Any = None, *, scatter: bool = False
    ) -> None:
        """Emit a sum over taps, one step per phase; `fields`, its own from now on, are whole-tensor views, cut to each
        phase here.
        """
        if isinstance(part, Held):
            part.product(self, x, fields, scatter=scatter)
            return
        if part.support is not None and fields.get("weight_map") == W_ONE:
            part, fields = part.support, {**fields, "weight_map": W}
        taps = part.taps
        if part.linear:  # fully connected: weights in place, one phase
            if (weights := self.rows.get(key := (id(part), x.buffer.root.dtype))) is None:
                weights = self.rows[key] = Weights(part, "rows", real=key[1])
            op, macs = "SCATTER_LINEAR" if scatter else f"{verb}_LINEAR", taps.c_in * taps.c_out
            fields |= {"op": op, "unit": self.unit, "x": x, "weights": weights, "phase": POINT}
            fields["macs"] = 2 * macs if fields.get("dual") else macs
            self.steps.append(Step.of(fields))
            return
        all_phases = phases(taps, scatter=scatter)
        if window is not None:
            fields["window"] = self.constant(window)
        if x.region is None and not self.fits(x.buffer, any(phase.framed for phase in all_phases)):
            x = replace(x, buffer=self.channels_last(x.buffer, x.buffer.name))
        root = x.buffer.root
        dense = part.weight is not None and not taps.depthwise
        op = f"{verb}_DENSE" if dense else f"{verb}_CHANNEL"
        pairs = taps.c_in * taps.c_out // taps.groups * (2 if fields.get("dual") else 1)
        for phase in all_phases:
            own = fields
            if len(all_phases) > 1:
                where = phase.start, phase.step, phase.count
                own = {key: value.phase(*where) if isinstance(value, View) else value for key, value in fields.items()}
            own |= {"op": op, "unit": self.unit, "x": x, "phase": phase, "groups": taps.groups}
            if dense:
                own["weights"] = Weights(part, "dense", scatter, phase.numbers, root.dtype)
            elif part.weight is not None:
                own["weights"] = Weights(part, "channel", False, phase.numbers, self.numbers)
            if phase.framed:
                root.widen(*phase.border)
            own["macs"] = phase.points * pairs
            self.steps.append(Step.of(own))

    # ------------------------------------------------------------------------------------------------------ relevance

    def quotient(self, unit: Node, r: Buffer) -> Buffer:
        """The c of R = x ⊙ c on a unit's output, whatever the form; 0 where x is 0."""
        if unit.out.form == "c":
            return r
        c = self.buffer(f"c{self.label(unit.out)}", unit.out.shape, "nt", like=r)
        m = View(self.value(unit.out))
        self.emit(Step("DIVIDE", unit, View(c), View(r), m=m, repeat=self.t))
        return c

    def sink(self, tensor: Tensor, *, free: bool = False) -> tuple[Buffer, bool]:
        """Where a contribution to a tensor's relevance goes, `free` in any order of axes; whether others came."""
        if tensor.index in self.relevances:
            return self.relevances[tensor.index], True
        if self.book is not None:
            self.book.prepare(tensor)
        letter = "r" if tensor.form == "R" else "c"
        leaves = tensor is self.leaves
        if leaves and (tensor.form == "R" or self.gradient):
            buffer = self.wanted(tensor, letter)
        else:
            dtype = self.numbers if leaves else ""  # what is handed out is not rounded
            rank = len(tensor.shape)
            order = (0,) if rank == 1 else None if leaves else order_below(tensor, self.makers)
            if order is None or not (free or order[-1] == 0):
                order = tuple(range(rank)) if free else default_order(rank)
            buffer = self.ordered(f"{letter}{self.label(tensor)}", tensor.shape, order, "nt", dtype=dtype)
        self.relevances[tensor.index] = buffer
        return buffer, False

    def hands_over(self, unit: Node, source: Tensor, r: Buffer) -> bool:
        """Whether a source's relevance can lie where r does: it is the first, and r is read by nobody else."""
        first = source.index not in self.relevances and source is not self.leaves
        same = source.wanted and source.form == unit.out.form
        return first and same and not r.root.external and r.root.dtype == self.real

    def deliver(self, unit: Node, source: Tensor, write: Callable[[Buffer, bool], None]) -> None:
        """`write` a contribution in the form of unit.out; where R is wanted and c was written, multiply by x."""
        buffer, accumulate = self.sink(source)
        if source.form == unit.out.form:
            write(buffer, accumulate)
            return
        temporary = self.buffer(f"t{self.label(source)}", source.shape, "nt")
        write(temporary, False)
        self.times_x(source, temporary, buffer, accumulate)

    def times_x(self, tensor: Tensor, c: Buffer, out: Buffer, accumulate: bool) -> None:
        x = View(self.value(tensor))
        self.emit(
            Step("MULTIPLY", None, View(out), View(c), m=x, multiplier="times", accumulate=accumulate, repeat=self.t)
        )

    def whole(self, unit: Node, r: Buffer) -> Buffer:
        """R itself, whatever the form."""
        if unit.out.form == "R":
            return r
        whole = self.buffer(f"r{self.label(unit.out)}", unit.out.shape, "nt")
        self.times_x(unit.out, r, whole, False)
        return whole

    def rectified(self, unit: Node, r: Buffer) -> Buffer:
        """R where a ReLU is active."""
        active = self.buffer(f"r{self.label(unit.out)}", unit.out.shape, "nt")
        m = View(self.value(unit.out))
        self.emit(Step("MULTIPLY", unit, View(active), View(r), m=m, multiplier="positive", repeat=self.t))
        return active

    def passes(self, unit: Node, source: Tensor, r: Buffer) -> None:
        """R_in = R_out; from the c form, R_out = x_out ⊙ c."""
        out, accumulate = self.sink(source)
        if unit.out.form == "c":
            self.times_x(unit.out, r, out, accumulate)
        else:
            self.emit(Step("MOVE", unit, View(out), View(r), accumulate=accumulate))

    def scatter(self, part: Part, term: Term, s: Buffer, gamma: float) -> None:
        """r_in[i] (+)= in(x_i) · Σ_j wm(w_ij) s_j (without x in the c form)."""
        buffer, accumulate = self.sink(part.source, free=isinstance(part, Weighted))
        form = "c" if self.gradient else part.source.form
        row = INPUT_MAPS[term.x]
        multiplier = row.product if form == "c" else row.times
        assert multiplier is not None
        fields: dict[str, Any] = {
            "out": View(buffer),
            "weight_map": term.w,
            "multiplier": multiplier,
            "accumulate": accumulate,
            "gamma": gamma,
            "repeat": self.t,
        }
        if multiplier != "none":
            own = row.bound is not None
            fields["m"] = View(self.mapped(part, term) if own else self.value(part.source))
        if part.weight is None and (is_identity(part) or is_whole(part)) and term.w == W:
            del fields["weight_map"], fields["gamma"]
            x = View(s) if is_identity(part) else View(s, expand=part.source.shape)
            self.emit(Step("MOVE" if multiplier == "none" else "MULTIPLY", self.unit, x=x, **fields))
        else:
            self.taps("TAPS", part, View(s), fields, scatter=True)

    def wanted(self, leaves: Tensor, letter: str) -> Buffer:
        """Where what the caller gets comes about: in his array, if it has no channels to turn around."""
        if len(leaves.shape) == 1:
            return self.external("result", leaves.shape, "nt")
        return self.buffer(f"{letter}{self.label(leaves)}", leaves.shape, "nt", dtype=self.numbers)
