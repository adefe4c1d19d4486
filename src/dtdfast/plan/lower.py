"""From units to steps: the forward pass, and what it keeps for the relevance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..rules import Share, Term
from ..vocabulary import W_ABS, W_POS, WEIGHT_MAPS, X_ABS, X_ONE, W, X
from . import units as U
from .fuse import fuse_products, join_channels, without_unread
from .lower_base import LoweringBase, activation_of, feature_slot, is_identity
from .lower_relevance import RelevanceLowering
from .memory import insert_clears, live_ranges, place
from .plan import Kept, Plan
from .resolve import window_scale
from .signs import sign_of_term
from .steps import Buffer, Reals, Step, View
from .taps import phases

if TYPE_CHECKING:
    from .program import Program

Triple = tuple[int, int, int]


def bias_map(bias: U.Floats, share: Share, gamma: float) -> NDArray[np.float64]:
    """The bias as it stands in a share's denominator: wm(b)."""
    mapped: NDArray[np.float64] = WEIGHT_MAPS[share.bias or W].of(np.asarray(bias, np.float64), gamma)
    return mapped


class Lowering(LoweringBase):
    """Emits the forward steps."""

    # --------------------------------------------------------------------------------------------------------------
    # forward

    def forward(self) -> None:
        source = self.network.input
        external = self.external("x", source.shape)
        if self.program.tokens:
            external.dtype = "i8"
        self.values[source.index] = external
        for number, unit in enumerate(self.network.units):
            if number and number == self.program.wide:
                self.narrow()
            self.unit = unit
            if unit.twin and (unit.out.valueless or not unit.in_relevance):
                if isinstance(unit, U.Affine) and unit.tapped is not None and unit.in_relevance:
                    self.taps_open(unit)
                continue
            FORWARD[type(unit)](self, unit)
        output = self.network.output
        self.unit = None
        result = self.external("outputs", output.shape)
        self.emit(Step("MOVE", None, View(result), View(self.value(output))))

    def narrow(self) -> None:
        """Float32 from here on: what is read of what was computed in float64 is rounded."""
        self.unit, self.real, self.gates = None, self.program.real, self.program.real
        read = {source.index for unit in self.network.units[self.program.wide :] for source in unit.sources}
        for tensor in self.network.tensors:
            if tensor.index in read and tensor.index in self.values and self.value(tensor).root.dtype == "f8":
                self.wide[tensor.index] = self.value(tensor)
                self.values[tensor.index] = self.converted(self.value(tensor), tensor, "x")

    def new_value(self, unit: U.Unit, *, plain: bool = False) -> Buffer:
        # x as it is, since bounds are subtracted from it; and predictions, which are the relevance that enters
        exact = unit.out.is_input or unit.out is self.network.output
        buffer = self.buffer(
            f"x{self.label(unit.out)}", unit.out.shape, plain=plain, dtype=self.numbers if exact else ""
        )
        self.values[unit.out.index] = buffer
        return buffer

    def neuron(self, unit: U.Neuron) -> None:
        for part in unit.parts:
            self.spatial(part.source)
        out = self.new_value(unit)
        relevant = self.program.relevant and unit.out is not self.program.leaves and unit.in_relevance
        if not relevant:
            self.sums(unit, out, {})
            return
        row = unit.row
        assert row is not None
        if self.program.gradient:
            factor = self.buffer(f"g{self.label(unit.out)}", unit.out.shape, dtype=self.gates)
            self.factors[unit.out.index] = [(factor, "gate")]
            self.sums(unit, out, dict(factor=View(factor), mode="derivative"))
            return
        kind = "signed" if row.by_sign else "gate" if unit.out.form == "c" else "denominator"
        if unit.half:
            self.half(unit, out, kind)
            return
        if row.by_sign and (self.ledger or not fusable(unit) or has_slopes(unit)):
            self.by_sign(unit, out)
            return
        if not fusable(unit):
            self.general(unit, out, kind)
            return
        share = row.shares[0]
        factor = self.buffer(
            f"{'g' if kind == 'gate' else 'd'}{self.label(unit.out)}", unit.out.shape, dtype=self.gates
        )
        self.factors[unit.out.index] = [(factor, kind)]
        fields = dict(
            factor=View(factor), mode=kind, dual=is_dual(unit), coefficient=share.coefficient, stabilizer=row.stabilizer
        )
        if unit.bias is not None and share.bias is not None:
            fields["bias_d"] = self.constant(bias_map(unit.bias, share, row.gamma))
        if self.ledger:
            terms = self.buffer(f"n{self.label(unit.out)}", unit.out.shape)
            fields["terms"] = View(terms)
            self.kept[unit.out.index] = Kept([terms], [self.magnitude(unit, 0) or terms])
        self.sums(unit, out, fields)

    def sums(self, unit: U.Neuron, out: Buffer, last: dict[str, Any]) -> None:
        """Out = act(y), y = Σ_parts x w + b, and of `last` a factor and terms: in one epilogue, unless the activation
        is a prelu.
        """
        if has_slopes(unit):
            self.activated_apart(unit, out, last)
        else:
            self.pre_activations(unit, out, {**last, "activation": activation_of(unit.activation)})

    def activated_apart(self, unit: U.Neuron, out: Buffer, last: dict[str, Any]) -> None:
        """The same with steps of its own for the activation, which has parameters per channel, and for the factor."""
        label, mode = self.label(unit.out), last.pop("mode", None)
        y, factor, fields = self.buffer(f"y{label}", unit.out.shape), last.pop("factor", None), {}
        if mode in ("gate", "denominator"):
            fields = {key: last.pop(key) for key in ("coefficient", "stabilizer", "bias_d") if key in last}
            last.setdefault("terms", View(self.buffer(f"n{label}", unit.out.shape)))
        self.pre_activations(unit, y, last)
        self.activate(unit, out, y)
        if mode == "derivative":
            self.activate(unit, factor.buffer, y, mode)
        elif mode is not None:
            self.emit(
                Step("FACTOR", unit, factor, factor=factor, terms=last["terms"], x=View(out), mode=mode, **fields)
            )

    def pre_activations(self, unit: U.Neuron, out: Buffer, last: dict[str, Any]) -> None:
        """Y = Σ_parts x w + b into `out`, operand by operand; the last one's epilogue takes the fields `last`."""
        parts = list(unit.parts)
        dual = bool(last.get("dual"))
        previous: tuple[View, View] | None = None
        # an operand of weight 1 starts both sums: as it is, or without its negative values
        if len(parts) > 1 and is_identity(parts[0]):
            part = parts.pop(0)
            first = View(self.value(part.source))
            previous = (first, View(self.mapped(part, part.terms[0][0])) if dual else first)
        for number, part in enumerate(parts):
            fields: dict[str, Any] = dict(dual=dual)
            if number < len(parts) - 1:
                y = self.buffer(f"y{self.label(unit.out)}", unit.out.shape)
                fields["out"] = View(y)
                if dual:
                    z = self.buffer(f"z{self.label(unit.out)}", unit.out.shape)
                    fields["terms"] = View(z)
                following = (View(y), View(z) if dual else View(y))
            else:
                bias = self.constant(unit.bias) if unit.bias is not None else None
                fields.update(out=View(out), bias=bias, **last)
            if previous is not None:
                fields["y_prev"] = previous[0]
                if dual:
                    fields["terms_prev"] = previous[1]
            self.taps("NEURON", part, View(self.value(part.source)), fields, window=part.window)
            if number < len(parts) - 1:
                previous = following

    def general(self, unit: U.Neuron, out: Buffer, kind: str) -> None:
        """A row of any terms: y first, then per share its denominator from mapped inputs, then the factor."""
        row = unit.row
        assert row is not None
        label = self.label(unit.out)
        selects = any(s.select != "all" for s in row.shares)
        y = self.buffer(f"y{label}", unit.out.shape) if selects else None
        self.sums(unit, out, dict(terms=View(y)) if y is not None else {})
        kept = Kept(y=y)
        sums = []
        for number, _ in enumerate(row.shares):
            sums.append(self.share_terms(unit, number))
            if self.ledger:
                kept.terms.append(sums[-1])
                kept.magnitude.append(self.magnitude(unit, number) or sums[-1])
        self.kept[unit.out.index] = kept
        factors = []
        for number, share in enumerate(row.shares):
            constant = kind == "denominator" and sums[number].batch == "1" and share.select == "all"
            batch = "1" if constant else "n"
            factor = self.buffer(f"{'g' if kind == 'gate' else 'd'}{label}", unit.out.shape, batch, dtype=self.gates)
            fields: dict[str, Any] = dict(terms=View(sums[number]), mode=kind, select=share.select)
            fields.update(coefficient=share.coefficient, stabilizer=row.stabilizer)
            if kind == "gate":
                fields["x"] = View(out)
            if share.select != "all":
                assert y is not None
                fields.update(m=View(y), bias=self.constant(unit.bias) if unit.bias is not None else None)
            if unit.bias is not None and share.bias is not None:
                fields["bias_d"] = self.constant(bias_map(unit.bias, share, row.gamma))
            if row.falls_back and number == 0:
                fields["terms_prev"] = View(sums[1])
            window = self.window(unit, share.terms[0].w)
            self.emit(Step("FACTOR", unit, View(factor), factor=View(factor), window=window, **fields))
            factors.append((factor, kind))
        self.factors[unit.out.index] = factors

    def half(self, unit: U.Neuron, out: Buffer, kind: str) -> None:
        """The sum of what is shared, and the denominator: that sum itself where nothing is added to it."""
        row = unit.row
        assert row is not None
        pairs = [(part, term) for part in unit.parts for term in part.terms[0]]
        self.accumulate(pairs, out, row.gamma)
        factor, (share,) = out, row.shares
        window = self.window(unit, W)
        if kind == "gate" or row.stabilizer or window is not None or (unit.bias is not None and share.bias is not None):
            factor = self.buffer(
                f"{'g' if kind == 'gate' else 'd'}{self.label(unit.out)}", unit.out.shape, dtype=self.gates
            )
            fields: dict[str, Any] = dict(terms=View(out), x=View(out), mode=kind, stabilizer=row.stabilizer)
            if unit.bias is not None and share.bias is not None:
                fields["bias_d"] = self.constant(bias_map(unit.bias, share, row.gamma))
            self.emit(Step("FACTOR", unit, View(factor), factor=View(factor), window=window, **fields))
        self.factors[unit.out.index] = [(factor, kind)]
        if self.ledger:
            self.kept[unit.out.index] = Kept([out], [self.magnitude(unit, 0) or out])

    def by_sign(self, unit: U.Neuron, out: Buffer) -> None:
        """Y, the first share's sum, and one factor: the second share's sum is what y has beside the first's and its
        bias.
        """
        row, label = unit.row, self.label(unit.out)
        assert row is not None
        y = self.buffer(f"y{label}", unit.out.shape)
        self.sums(unit, out, dict(terms=View(y)))
        terms = self.share_terms(unit, 0)
        factor = self.buffer(f"d{label}", unit.out.shape, dtype=self.gates)
        bias = self.constant(unit.bias) if unit.bias is not None else None
        fields: dict[str, Any] = dict(terms=View(terms), m=View(y), bias=bias, mode="signed", stabilizer=row.stabilizer)
        self.emit(Step("FACTOR", unit, View(factor), factor=View(factor), window=self.window(unit, W), **fields))
        self.factors[unit.out.index] = [(factor, "signed")]
        if self.ledger:
            sizes = self.buffer(f"a{label}", unit.out.shape)
            self.accumulate([(part, Term(X_ABS, W_ABS)) for part in unit.parts], sizes, 0.0)
            self.kept[unit.out.index] = Kept([terms, self.share_terms(unit, 1)], [terms, sizes], y)

    def window(self, unit: U.Neuron, weight_map: str) -> Reals | None:
        scale = window_scale(unit.parts[0].window, weight_map)
        return None if scale is None else self.constant(scale)

    def share_terms(self, unit: U.Neuron, number: int) -> Buffer:
        """Σ_i in(x_i) wm(w_ij) over all operands of one share; for every sample the same if only 1s are summed."""
        row = unit.row
        assert row is not None
        pairs = [(part, term) for part in unit.parts for term in part.terms[number]]
        batch = "1" if all(term.x == X_ONE for _, term in pairs) else "n"
        total = self.buffer(f"n{self.label(unit.out)}", unit.out.shape, batch)
        self.accumulate(pairs, total, row.gamma)
        return total

    def accumulate(self, pairs: list[tuple[U.Part, Term]], total: Buffer, gamma: float) -> None:
        if not pairs:  # every term vanished by sign: the sum is 0
            self.emit(Step("MOVE", self.unit, View(total), bound=self.constant([0.0])))
        for number, (part, term) in enumerate(pairs):
            fields: dict[str, Any] = dict(
                out=View(total), weight_map=term.w, accumulate=number > 0, mode="none", gamma=gamma
            )
            scale = window_scale(part.window, term.w)
            self.taps("TAPS", part, View(self.mapped(part, term, total.batch)), fields, window=scale)

    def magnitude(self, unit: U.Neuron, number: int) -> Buffer | None:
        """Σ_i |in(x_i)| |w_ij| for the ledger's bound; None where all terms have one sign, so that |Σ terms| serves."""
        pairs = [(part, term) for part in unit.parts for term in part.terms[number]]
        if all(sign_of_term(part, term) is not None for part, term in pairs):
            return None
        total = self.buffer(f"a{self.label(unit.out)}", unit.out.shape)
        self.accumulate([(part, Term(X_ABS, W_ABS)) for part in unit.parts], total, 0.0)
        return total

    # ---------------------------------------------------------------------------------------------------------- other
    # units

    def winner(self, unit: U.Winner) -> None:
        x = self.spatial(unit.sources[0])
        out = self.new_value(unit)
        dtype = "u1" if unit.taps.n_taps <= 255 else "u2"
        winners = self.winners[unit.out.index] = self.buffer(f"k{self.label(unit.out)}", unit.out.shape, dtype=dtype)
        (phase,) = phases(unit.taps)
        taps = np.indices(unit.taps.kernel).reshape(3, -1).T  # every tap, so that its number is its place in the kernel
        table = np.ascontiguousarray(taps * unit.taps.dilation - unit.taps.before, np.int64)
        step = Step(
            "MAX_POOL",
            unit,
            View(out),
            View(x),
            m=View(winners),
            phase=phase,
            table=table,
            mode=1 if dtype == "u1" else 2,
        )
        self.emit(step)

    def elementwise(self, unit: U.Elementwise) -> None:
        source = self.value(unit.sources[0])
        self.activate(unit, self.new_value(unit), source)

    def affine(self, unit: U.Affine) -> None:
        source = self.value(unit.sources[0])
        shift = None if unit.shift is None else self.constant(unit.shift)
        self.emit(
            Step("AFFINE", unit, View(self.new_value(unit)), View(source), vector=self.constant(unit.scale), bias=shift)
        )
        if unit.tapped is not None:
            self.taps_open(unit)

    def taps_open(self, unit: U.Affine) -> None:
        """What is positive where the affine hands relevance to its first source."""
        assert unit.tapped is not None
        assert unit.shares is not None
        source = unit.sources[0]
        passes = self.passing[unit.out.index] = self.buffer(f"p{self.label(unit.out)}", unit.out.shape)
        x, vector, bias = View(self.value(source)), self.constant(unit.tapped), self.constant(unit.shares[unit.open_to])
        self.emit(Step("AFFINE", unit, View(passes), x, vector=vector, bias=bias))

    def normalise(self, unit: U.Normalise) -> None:
        r = unit.record
        step = Step(
            "LRN", unit, View(self.new_value(unit)), View(self.value(unit.sources[0])), size=r.size, stabilizer=r.k
        )
        step.activation = ("identity", r.alpha / r.size, r.beta)
        self.emit(step)

    def probabilities(self, unit: U.Probabilities) -> None:
        n_axes = len(unit.out.shape)
        slot = unit.axis if unit.axis == 1 else unit.axis + max(0, 4 - n_axes)  # axis (batch counted) → slot of a view
        op = "LOG_SOFTMAX" if unit.log else "SOFTMAX"
        self.emit(Step(op, unit, View(self.new_value(unit)), View(self.value(unit.sources[0])), mode=slot))

    def total(self, unit: U.Total) -> None:
        out = self.new_value(unit)
        for number, source in enumerate(unit.sources):
            self.emit(Step("MOVE", unit, View(out), View(self.value(source)), accumulate=number > 0))

    def gating(self, unit: U.Gating) -> None:
        signal, gate = (View(self.value(s), expand=unit.out.shape) for s in unit.sources)
        self.emit(Step("MULTIPLY", unit, View(self.new_value(unit)), signal, m=gate, mode="times"))

    def move(self, unit: U.Move) -> None:
        out = self.new_value(unit)
        if unit.fill is not None:
            self.emit(Step("MOVE", unit, View(out), bound=self.constant([unit.fill])))
        for to, number, of in unit.pairs:
            self.emit(Step("MOVE", unit, View(out, to), View(self.value(unit.sources[number]), of)))

    def copy(self, unit: U.Copy) -> None:
        x, out = View(self.value(unit.sources[0])), View(self.new_value(unit))
        if unit.picks is None:
            self.emit(Step("MOVE", unit, out, replace(x, expand=unit.out.shape)))
        else:
            x = View(self.spatial(unit.sources[0]))
            self.taps("NEURON", unit.part, x, dict(out=out, activation=activation_of(None)))

    def fixed(self, unit: U.Fixed) -> None:
        self.emit(Step("MOVE", unit, View(self.new_value(unit)), bound=self.constant(unit.value)))

    def reshape(self, unit: U.Reshaping) -> None:
        self.values[unit.out.index] = self.reshaped(
            self.value(unit.sources[0]), unit.out.shape, f"x{self.label(unit.out)}"
        )

    def words(self, unit: U.Words) -> None:
        out = self.new_value(unit, plain=True)
        ids = View(self.value(unit.sources[0]), trailing=True)
        self.emit(Step("EMBED", unit, View(out), ids, vector=self.constant(unit.weight), mode=feature_slot(unit)))


def has_slopes(unit: U.Neuron) -> bool:
    """Whether its activation is a prelu, which no epilogue knows."""
    return isinstance(unit.activation, L.Activation) and unit.activation.slopes is not None


def fusable(unit: U.Neuron) -> bool:
    """One share, one denominator that y's own pass over x and w can sum: Σ x w⁺ (z⁺ on x ≥ 0) or Σ x w."""
    row = unit.row
    assert row is not None
    terms = [(part, part.terms[0]) for part in unit.parts]
    if row.by_sign:
        first = len(terms) > 1 and is_identity(unit.parts[0]) and len(terms[0][1]) == 1
        rest = terms[1:] if first else terms
        return is_dual(unit) and all(len(t) == 1 and t[0].x == X for _, t in rest)
    if len(row.shares) != 1 or row.shares[0].select != "all":
        return False
    if any(len(t) != 1 or t[0].x != X for _, t in terms):
        return False
    maps = {t[0].w for _, t in terms}
    if maps == {W}:
        return row.shares[0].terms[0].w == W or all(p.weight is None for p in unit.parts)
    return all(t[0].w == W_POS or (t[0].w == W and part.weight is None) for part, t in terms)


def is_dual(unit: U.Neuron) -> bool:
    return any(part.terms[0] and part.terms[0][0].w == W_POS for part in unit.parts)


FORWARD: dict[type[U.Unit], Callable[[Lowering, Any], None]] = {
    U.Neuron: Lowering.neuron,
    U.Winner: Lowering.winner,
    U.Elementwise: Lowering.elementwise,
    U.Affine: Lowering.affine,
    U.Normalise: Lowering.normalise,
    U.Probabilities: Lowering.probabilities,
    U.Total: Lowering.total,
    U.Gating: Lowering.gating,
    U.Move: Lowering.move,
    U.Copy: Lowering.copy,
    U.Fixed: Lowering.fixed,
    U.Reshaping: Lowering.reshape,
    U.Words: Lowering.words,
}


def lower(
    program: Program,
    n: int,
    t: int,
    *,
    ledger: bool = False,
    chunked: bool = False,
    reals: tuple[str, str] | None = None,
) -> Plan:
    """The plan for n samples with t targets each.

    Parameters
    ----------
    ledger : keep what the ledger reads, and let nothing share memory
    chunked : the relevance steps run several times on one forward pass, so what they read of it stays
    reals : how values, and how gates and relevance are kept, where that is not the type of the program's numbers
    """
    forward = Lowering(program, ledger, reals or (program.low, program.low))
    forward.forward()
    relevance: list[Step] = []
    relevances: dict[int, Buffer] = {}
    above: dict[int, Buffer] = {}
    if program.relevant:
        downward = RelevanceLowering(forward, t)
        downward.run()
        relevance, relevances, above = downward.steps, downward.relevances, downward.above
    steps = forward.steps
    if not ledger:  # which reads every tensor's relevance
        steps, relevance = join_channels(steps, fuse_products(without_unread(relevance)))
    steps.sort(key=lambda step: not step.constant)
    known: set[int] = set()
    steps = insert_clears(steps, known)
    relevance = insert_clears(relevance, known)
    buffers = live_ranges([*steps, *relevance])
    n_constant = sum(step.constant for step in steps)
    for buffer in buffers:  # what outlives the constant steps is there in the next call too
        if buffer.first < n_constant <= buffer.last or (chunked and buffer.first < len(steps) <= buffer.last):
            buffer.last = len(steps) + len(relevance)
    for step in (*steps, *relevance):
        step.macs *= {"n": n, "nt": n * t, "1": 1}[step.out.buffer.batch]
    arena = place(buffers, n, t, reuse=not ledger)
    return Plan(
        program,
        n,
        t,
        n_constant,
        steps,
        relevance,
        buffers,
        arena,
        forward.values,
        relevances,
        above,
        forward.kept,
        forward.factors,
    )
