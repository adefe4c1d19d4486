"""Steps of neurons: y and what their relevance is divided by, then one scatter per operand and term."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import layers as L
from ...rules import Term
from ...vocabulary import W_ABS, X_ABS, X_ONE, W, X
from ..lowering import Lowering, activation_of
from ..parts import Part, Sum, bias_map, fusable, has_slopes, is_dual, is_identity, window_scale
from ..steps import Buffer, Kept, Reals, Step, View

SIGNED = ("gelu", "gelu_tanh", "silu")
"""Activations with values of the sign of y."""


def forward(lowering: Lowering, unit: Sum) -> None:
    """Values, and what the relevance needs: by the rule's row."""
    for part in unit.parts:
        lowering.spatial(part.source, framed=not part.linear and part.framed)
    out = lowering.new_value(unit)
    relevant = lowering.relevant and unit.out is not lowering.leaves and unit.in_relevance
    if not relevant:
        sums(lowering, unit, out, {})
        return
    row = unit.row
    assert row is not None
    if lowering.gradient:
        factor = lowering.buffer(f"g{lowering.label(unit.out)}", unit.out.shape, dtype=lowering.gates)
        lowering.factors[unit.out.index] = [(factor, "gate")]
        sums(lowering, unit, out, dict(factor=View(factor), factor_kind="derivative"))
        return
    kind = "signed" if row.by_sign else "gate" if unit.out.form == "c" else "denominator"
    if unit.half:
        half(lowering, unit, out, kind)
        return
    if is_open(unit):
        lowering.factors[unit.out.index] = [(out, "open" if kind == "gate" else kind)]
        sums(lowering, unit, out, {})
        return
    if is_paired(unit):
        paired(lowering, unit, out, kind)
        return
    fused = fusable(unit)
    if row.by_sign and (not fused or has_slopes(unit)):
        by_sign(lowering, unit, out)
        return
    if not fused:
        general(lowering, unit, out, kind)
        return
    share = row.shares[0]
    factor = lowering.buffer(
        f"{'g' if kind == 'gate' else 'd'}{lowering.label(unit.out)}", unit.out.shape, dtype=lowering.gates
    )
    lowering.factors[unit.out.index] = [(factor, kind)]
    fields = {
        "factor": View(factor),
        "factor_kind": kind,
        "dual": is_dual(unit),
        "coefficient": share.coefficient,
        "stabilizer": row.stabilizer,
    }
    if unit.bias is not None and share.bias is not None:
        fields["bias_d"] = lowering.constant(bias_map(unit.bias, share, row.gamma))
    sums(lowering, unit, out, fields)


def is_open(unit: Sum) -> bool:
    """Whether d = y, and y is the value: then it is the denominator itself, and a gate would be 1."""
    if unit.activation is not None:
        return False
    row = unit.row
    assert row is not None
    share, *more = row.shares
    if more or row.stabilizer or any(part.window is not None for part in unit.parts):
        return False
    whole = unit.bias is None or not np.any(unit.bias) or share.bias == W
    return share.terms == (Term(X, W),) and share.select == "all" and share.coefficient == 1.0 and whole


def sums(lowering: Lowering, unit: Sum, out: Buffer, last: dict[str, Any]) -> None:
    """Out = act(y), y = Σ_parts x w + b, and of `last` a factor and terms: in one epilogue, unless the activation
    is a prelu.
    """
    if unit.parts[0].held:  # its value is there; `terms` are y without the bias
        if "terms" in last:
            accumulate(lowering, [(unit.parts[0], Term(X, W))], last["terms"].buffer, 0.0)
    elif has_slopes(unit):
        activated_apart(lowering, unit, out, last)
    else:
        last["activation"] = activation_of(unit.activation)
        pre_activations(lowering, unit, out, last)


def activated_apart(lowering: Lowering, unit: Sum, out: Buffer, last: dict[str, Any]) -> None:
    """The same with steps of its own for the activation, which has parameters per channel, and for the factor."""
    label, kind = lowering.label(unit.out), last.pop("factor_kind", "none")
    y, factor, fields = lowering.buffer(f"y{label}", unit.out.shape), last.pop("factor", None), {}
    if kind in ("gate", "denominator"):
        fields = {key: last.pop(key) for key in ("coefficient", "stabilizer", "bias_d") if key in last}
        last.setdefault("terms", View(lowering.buffer(f"n{label}", unit.out.shape)))
    pre_activations(lowering, unit, y, last)
    lowering.activate(unit, unit.activation, out, y)
    if kind == "derivative":
        lowering.activate(unit, unit.activation, factor.buffer, y, derivative=True)
    elif kind != "none":
        lowering.emit(
            Step("FACTOR", unit, factor, factor=factor, terms=last["terms"], x=View(out), factor_kind=kind, **fields)
        )


def sum_of(lowering: Lowering, unit: Sum, out: Buffer) -> Buffer:
    """Out = act(y), and y without the bias: `out` itself where that is all the same and there already."""
    held = unit.parts[0].held
    if held and unit.bias is None:
        return out
    y = lowering.buffer(f"y{lowering.label(unit.out)}", unit.out.shape, like=out if held else None)
    sums(lowering, unit, out, dict(terms=View(y)))
    return y


def pre_activations(lowering: Lowering, unit: Sum, out: Buffer, last: dict[str, Any]) -> None:
    """Y = Σ_parts x w + b into `out`, operand by operand; the last one's epilogue takes the fields `last`."""
    parts = list(unit.parts)
    dual = bool(last.get("dual"))
    previous: tuple[View, View] | None = None
    # an operand of weight 1 starts both sums: as it is, or without its negative values
    if len(parts) > 1 and is_identity(parts[0]):
        part = parts.pop(0)
        first = View(lowering.value(part.source))
        previous = (first, View(lowering.mapped(part, part.terms[0][0])) if dual else first)
    for number, part in enumerate(parts, 1):
        fields: dict[str, Any] = {"dual": True} if dual else {}
        y = z = out
        if number < len(parts):
            fields["out"] = View(y := lowering.buffer(f"y{lowering.label(unit.out)}", unit.out.shape))
            if dual:
                fields["terms"] = View(z := lowering.buffer(f"z{lowering.label(unit.out)}", unit.out.shape))
        else:
            fields = last
            fields["out"] = View(out)
            if unit.bias is not None:
                fields["bias"] = lowering.constant(unit.bias)
        if previous is not None:
            fields["y_prev"] = previous[0]
            if dual:
                fields["terms_prev"] = previous[1]
        lowering.taps("NEURON", part, View(lowering.values[part.source.index]), fields, window=part.window)
        if number < len(parts):
            previous = View(y), View(z if dual else y)


def general(lowering: Lowering, unit: Sum, out: Buffer, kind: str) -> None:
    """A row of any terms: y first, then per share its denominator from mapped inputs, then the factor."""
    row = unit.row
    assert row is not None
    label = lowering.label(unit.out)
    selects = any(s.select != "all" for s in row.shares)
    y = sum_of(lowering, unit, out) if selects else None
    if y is None:
        sums(lowering, unit, out, {})
    totals = [share_terms(lowering, unit, number) for number, _ in enumerate(row.shares)]
    lowering.kept[unit.out.index] = Kept(totals, y)
    factors = []
    for number, share in enumerate(row.shares):
        constant = kind == "denominator" and totals[number].batch == "1" and share.select == "all"
        batch = "1" if constant else "n"
        factor = lowering.buffer(
            f"{'g' if kind == 'gate' else 'd'}{label}", unit.out.shape, batch, dtype=lowering.gates
        )
        fields: dict[str, Any] = dict(terms=View(totals[number]), factor_kind=kind, select=share.select)
        fields.update(coefficient=share.coefficient, stabilizer=row.stabilizer)
        if kind == "gate":
            fields["x"] = View(out)
        if share.select != "all":
            assert y is not None
            fields.update(m=View(y), bias=lowering.constant(unit.bias) if unit.bias is not None else None)
        if unit.bias is not None and share.bias is not None:
            fields["bias_d"] = lowering.constant(bias_map(unit.bias, share, row.gamma))
        if row.falls_back and number == 0:
            fields["terms_prev"] = View(totals[1])
        window = window_of(lowering, unit, share.terms[0].w)
        lowering.emit(Step("FACTOR", unit, View(factor), factor=View(factor), window=window, **fields))
        factors.append((factor, kind))
    lowering.factors[unit.out.index] = factors


def half(lowering: Lowering, unit: Sum, out: Buffer, kind: str) -> None:
    """The sum of what is shared, and the denominator: that sum itself where nothing is added to it."""
    row = unit.row
    assert row is not None
    pairs = [(part, term) for part in unit.parts for term in part.terms[0]]
    accumulate(lowering, pairs, out, row.gamma)
    factor, (share,) = out, row.shares
    window = window_of(lowering, unit, W)
    if kind == "gate" or row.stabilizer or window is not None or (unit.bias is not None and share.bias is not None):
        factor = lowering.buffer(
            f"{'g' if kind == 'gate' else 'd'}{lowering.label(unit.out)}", unit.out.shape, dtype=lowering.gates
        )
        fields: dict[str, Any] = dict(terms=View(out), x=View(out), factor_kind=kind, stabilizer=row.stabilizer)
        if unit.bias is not None and share.bias is not None:
            fields["bias_d"] = lowering.constant(bias_map(unit.bias, share, row.gamma))
        lowering.emit(Step("FACTOR", unit, View(factor), factor=View(factor), window=window, **fields))
    lowering.factors[unit.out.index] = [(factor, kind)]


def by_sign(lowering: Lowering, unit: Sum, out: Buffer) -> None:
    """Y, the first share's sum, and one factor: the second share's sum is what y has beside the first's and its
    bias.
    """
    row, label = unit.row, lowering.label(unit.out)
    assert row is not None
    like = out if unit.parts[0].held else None
    y = sum_of(lowering, unit, out)
    terms = share_terms(lowering, unit, 0)
    factor = lowering.buffer(f"d{label}", unit.out.shape, dtype=lowering.gates, like=like)
    bias = lowering.constant(unit.bias) if unit.bias is not None else None
    fields: dict[str, Any] = dict(
        terms=View(terms), m=View(y), bias=bias, factor_kind="signed", stabilizer=row.stabilizer
    )
    lowering.emit(
        Step("FACTOR", unit, View(factor), factor=View(factor), window=window_of(lowering, unit, W), **fields)
    )
    lowering.factors[unit.out.index] = [(factor, "signed")]


def is_paired(unit: Sum) -> bool:
    """Whether two products each way serve γ: inputs of both signs, and a value of y's sign."""
    row, act = unit.row, unit.activation
    assert row is not None
    if row.paired is None:
        return False
    mixed = any(not part.source.nonnegative for part in unit.parts)
    # with all of y in it d is at least ρ·Σ|x w|; a bias left out may leave next to nothing of it
    held = row.holds_bias or unit.bias is None or not np.any(unit.bias)
    plain = all(part.window is None and part.box is None for part in unit.parts)
    signed = act is None or (isinstance(act, L.Activation) and act.kind in SIGNED)
    return mixed and held and plain and signed


def paired(lowering: Lowering, unit: Sum, out: Buffer, kind: str) -> None:
    """d/p = y + ρ·sgn(y)·Σ|x w|, the bias as one more w of x = 1 where the row holds it (Row.paired)."""
    row, label = unit.row, lowering.label(unit.out)
    assert row is not None
    assert row.paired is not None
    ratio, factor = row.paired
    y, sizes = out, lowering.buffer(f"a{label}", unit.out.shape, like=out)
    if unit.bias is not None or unit.activation is not None:
        y = lowering.buffer(f"y{label}", unit.out.shape, like=out)
        sums(lowering, unit, out, dict(terms=View(y)))
    else:
        sums(lowering, unit, out, {})
    accumulate(lowering, [(part, absolute(part)) for part in unit.parts], sizes, 0.0)
    d = lowering.buffer(f"d{label}", unit.out.shape, dtype=lowering.gates, like=out)
    fields: dict[str, Any] = dict(m=View(y), factor_kind="paired", coefficient=ratio)
    fields["stabilizer"] = row.stabilizer / factor
    fields["select"] = "y!=0"
    if unit.bias is not None:
        fields["bias"] = lowering.constant(unit.bias)
        if row.holds_bias:
            fields["bias_d"] = lowering.constant(unit.bias)
    lowering.emit(Step("FACTOR", unit, View(d), factor=View(d), terms=View(sizes), **fields))
    if kind == "gate":
        gate = lowering.buffer(f"g{label}", unit.out.shape, dtype=lowering.gates, like=out)
        lowering.emit(Step("DIVIDE", unit, View(gate), View(out), m=View(d)))
        d = gate
    lowering.factors[unit.out.index] = [(d, "gate" if kind == "gate" else "denominator")]
    lowering.paired[unit.out.index] = ratio
    lowering.kept[unit.out.index] = Kept(sizes=sizes)


def absolute(part: Part) -> Term:
    """The term |x| |w|."""
    return Term(X if part.source.nonnegative else X_ABS, W if part.positive else W_ABS)


def window_of(lowering: Lowering, unit: Sum, weight_map: str) -> Reals | None:
    scale = window_scale(unit.parts[0].window, weight_map)
    return None if scale is None else lowering.constant(scale)


def share_terms(lowering: Lowering, unit: Sum, number: int) -> Buffer:
    """Σ_i in(x_i) wm(w_ij) over all operands of one share; for every sample the same if only 1s are summed."""
    row = unit.row
    assert row is not None
    pairs = [(part, term) for part in unit.parts for term in part.terms[number]]
    batch = "1" if all(term.x == X_ONE and not part.held for part, term in pairs) else "n"
    like = lowering.value(unit.out) if unit.parts[0].held else None
    total = lowering.buffer(f"n{lowering.label(unit.out)}", unit.out.shape, batch, like=like)
    accumulate(lowering, pairs, total, row.gamma)
    return total


def accumulate(lowering: Lowering, pairs: list[tuple[Part, Term]], total: Buffer, gamma: float) -> None:
    if not pairs:  # every term vanished by sign: the sum is 0
        lowering.emit(Step("MOVE", lowering.unit, View(total), bound=lowering.constant([0.0])))
    for number, (part, term) in enumerate(pairs):
        x = lowering.mapped(part, term, total.batch)
        add(lowering, part, x, dict(out=View(total), weight_map=term.w, accumulate=number > 0, gamma=gamma))


def add(lowering: Lowering, part: Part, x: Buffer, fields: dict[str, Any]) -> None:
    """out (+)= Σ x wm(w)."""
    lowering.taps("TAPS", part, View(x), fields, window=window_scale(part.window, fields["weight_map"]))


def relevance(lowering: Lowering, unit: Sum, r: Buffer) -> None:
    """S = factor ⊙ c or R / d per share, then one scatter per operand and term."""
    row = unit.row
    assert row is not None
    if unit.sloped and unit.out.form == "R":
        r = lowering.rectified(unit, r)
    ratio = lowering.paired.get(unit.out.index)
    for number, (factor, kind) in enumerate(factors_of(lowering, unit)):
        parts = [part for part in unit.parts if part.source.wanted and part.terms[number]]
        if not parts and ratio is None:
            continue
        s = shared(lowering, unit, r, factor, kind)
        if lowering.book is not None or lowering.weighing is not None:
            lowering.shared.setdefault(unit.out.index, {})[number] = s
        if ratio is not None:
            paired_relevance(lowering, unit, s, ratio)
            return
        for part in parts:
            for term in part.terms[number]:
                lowering.scatter(part, term, s, row.gamma)
    unshared(lowering, unit)


def factors_of(lowering: Lowering, unit: Sum) -> list[tuple[Buffer, str]]:
    """What its relevance meets, share by share."""
    assert unit.row is not None
    factors = lowering.factors[unit.out.index]
    if unit.row.by_sign and not lowering.gradient:  # one factor, whose sign says which share holds
        return [(factors[0][0], "positive"), (factors[0][0], "negative")]
    return factors


def shared(lowering: Lowering, unit: Sum, r: Buffer, factor: Buffer, kind: str) -> Buffer:
    """S = factor ⊙ c, or R / d."""
    if kind == "open":
        return r
    s = lowering.buffer(f"s{lowering.label(unit.out)}", unit.out.shape, "nt", like=r if unit.parts[0].held else None)
    if kind == "gate":
        fields = {"op": "MULTIPLY", "unit": unit, "out": View(s), "x": View(r), "m": View(factor)}
        lowering.steps.append(Step.of(fields | {"multiplier": "times", "repeat": lowering.t}))
    else:
        sign = "none" if kind == "denominator" else kind
        lowering.emit(Step("DIVIDE", unit, View(s), View(r), m=View(factor), sign=sign, repeat=lowering.t))
    return s


def by_sign_of(lowering: Lowering, unit: Sum, s: Buffer, ratio: float) -> Buffer:
    """ρ sgn(y) s."""
    signed = lowering.buffer(f"s{lowering.label(unit.out)}", unit.out.shape, "nt", like=s)
    m = View(lowering.value(unit.out))
    step = Step("MULTIPLY", unit, View(signed), View(s), m=m, multiplier="sign", coefficient=ratio, repeat=lowering.t)
    lowering.emit(step)
    return signed


def paired_relevance(lowering: Lowering, unit: Sum, s: Buffer, ratio: float) -> None:
    """R_i = x_i Σ_j w_ij s_j + ρ |x_i| Σ_j |w_ij| sgn(y_j) s_j."""
    signed = by_sign_of(lowering, unit, s, ratio)
    for part in unit.parts:
        if part.source.wanted:
            lowering.scatter(part, Term(X, W), s, 0.0)
            lowering.scatter(part, absolute(part), signed, 0.0)


def unshared(lowering: Lowering, unit: Sum) -> None:
    """An operand may have no term: x⁻ where x ≥ 0, or what a half neuron leaves out. What nobody wrote yet is 0
    there.
    """
    used = [any(p.terms[:1] if unit.half else p.terms) for p in unit.parts]
    if False not in used:
        return
    shared = {p.source.index for p, terms in zip(unit.parts, used, strict=True) if terms}
    for source in {p.source.index: p.source for p in unit.parts if p.source.wanted}.values():
        if source.index not in shared:
            out, accumulate = lowering.sink(source)
            if not (accumulate and shared):
                lowering.emit(Step("MOVE", unit, View(out), bound=lowering.constant([0.0]), accumulate=accumulate))
