"""What a ledger sums of a neuron: what its denominators absorb, and Σ |terms · s| for the bound on rounding."""

from __future__ import annotations

from typing import Any

from ...rules import Term
from ...vocabulary import W, X
from ..account import Line
from ..lowering import Lowering
from ..parts import Part, Sum, bias_map, sign_of_term
from ..steps import Buffer, Step, View
from .neuron_steps import absolute, accumulate, add, by_sign_of, factors_of, shared, window_of

FEW = 8
"""Channels of a group, of which lengths save less than they cost."""


def prepare(lowering: Lowering, unit: Sum) -> None:
    """Σ |terms| of each share, where that is no |Σ terms|."""
    if unit.row is not None and not is_one(lowering, unit):
        numbers = range(len(unit.row.shares))
        lowering.sizes[unit.out.index] = [magnitude(lowering, unit, number) for number in numbers]


def account(lowering: Lowering, unit: Sum, r: Buffer, line: Line) -> None:
    """One ACCOUNT for each factor."""
    book, row = lowering.book, unit.row
    assert book is not None
    assert row is not None
    if unit.out.index not in lowering.sizes:
        prepare(lowering, unit)
    for number, (factor, kind) in enumerate(lowering.factors[unit.out.index]):
        fields = as_one(lowering, unit) if is_one(lowering, unit) else of_share(lowering, unit, number)
        if unit.out.form == "c":
            fields["m"] = View(lowering.value(unit.out))
        if kind != "open":
            fields.update(factor=View(factor), factor_kind=kind)
        line.shares.append(book.emit(Step("ACCOUNT", unit, View(r), View(r), **fields)))


def is_one(lowering: Lowering, unit: Sum) -> bool:
    """Whether one factor serves shares that select by the sign of y."""
    assert unit.row is not None
    return unit.row.by_sign or unit.out.index in lowering.paired


def as_one(lowering: Lowering, unit: Sum) -> dict[str, Any]:
    """The fields of that: of z⁺ by the sign of y no bias is shared, but Σ |terms| is at most 2|d| + |bias|."""
    row, kept = unit.row, lowering.kept.get(unit.out.index)
    assert row is not None
    bias = None if unit.bias is None else lowering.constant(unit.bias)
    if row.by_sign:
        return dict(stabilizer=row.stabilizer, bias_d=bias, window=window_of(lowering, unit, W))
    assert kept is not None
    assert kept.sizes is not None
    ratio = lowering.paired[unit.out.index]
    fields: dict[str, Any] = dict(stabilizer=row.stabilizer, terms=View(kept.sizes))
    return {**fields, "bias_d": bias, "gamma": ratio} if row.holds_bias and bias is not None else fields


def of_share(lowering: Lowering, unit: Sum, number: int) -> dict[str, Any]:
    row, kept = unit.row, lowering.kept.get(unit.out.index)
    assert row is not None
    share = row.shares[number]
    fields: dict[str, Any] = dict(coefficient=share.coefficient, stabilizer=row.stabilizer)
    fields["window"] = window_of(lowering, unit, share.terms[0].w)
    if unit.bias is not None and share.bias is not None:
        fields["bias_d"] = lowering.constant(bias_map(unit.bias, share, row.gamma))
    if share.select != "all":
        assert kept is not None
        assert kept.y is not None
        fields.update(select=share.select, y_prev=View(kept.y))
        fields["bias"] = None if unit.bias is None else lowering.constant(unit.bias)
    if kept is not None and kept.terms and (share.coefficient < 0 or row.falls_back):
        fields["terms_prev"] = View(kept.terms[1 if row.falls_back else number])
    size = lowering.sizes[unit.out.index][number]
    if size is not None:
        fields["terms"] = View(size)
    return fields


def magnitude(lowering: Lowering, unit: Sum, number: int) -> Buffer | None:
    """No less than Σ_i |x_i w_ij|; None where all terms have one sign, so that |Σ terms| serves, which R and s tell."""
    pairs = [(part, term) for part in unit.parts for term in part.terms[number]]
    signs = {sign_of_term(part, term) for part, term in pairs}
    if None not in signs and len(signs) < 2:
        return None
    total = lowering.buffer(f"a{lowering.label(unit.out)}", unit.out.shape)
    for place, part in enumerate(unit.parts):
        fields: dict[str, Any] = dict(out=View(total), accumulate=place > 0)
        if part.held or part.weight is None or part.taps.c_in < FEW * part.taps.groups:
            term = absolute(part)
            add(lowering, part, lowering.mapped(part, term), fields | dict(weight_map=term.w))
        else:
            add(lowering, part.lengths, lengths(lowering, part), fields | dict(weight_map=W))
    return total


def lengths(lowering: Lowering, part: Part) -> Buffer:
    """√Σ x² over each block of channels: a product with those of the weights takes a sixteenth of |x| · |w|."""
    x, blocks = lowering.value(part.source), part.lengths.taps.c_in
    found = lowering.lengths.get((x, blocks))
    if found is None:
        found = lowering.buffer(f"l{lowering.label(part.source)}", (blocks, *part.source.shape[1:]))
        lowering.lengths[x, blocks] = found
        lowering.emit(Step("LENGTH", lowering.unit, View(found), View(x)))
    return found


def around(lowering: Lowering, unit: Sum, r: Buffer, line: Line) -> None:
    """Σ_ij n_ij s_j over the operands from which relevance does not come to `stop`."""
    assert unit.row is not None
    apart = [part for part in unit.parts if not part.source.wanted]
    ratio, made = lowering.paired.get(unit.out.index), lowering.shared.pop(unit.out.index, {})
    for number, (factor, kind) in enumerate(factors_of(lowering, unit)):
        pairs = [(part, term) for part in apart for term in part.terms[number]]
        if not pairs:
            continue
        s = made[number] if number in made else shared(lowering, unit, r, factor, kind)
        messages = [(s, pairs)]
        if ratio is not None:
            signed = by_sign_of(lowering, unit, s, ratio)
            messages = [(s, [(p, Term(X, W)) for p in apart]), (signed, [(p, absolute(p)) for p in apart])]
        for each, terms in messages:
            total = lowering.buffer(f"o{lowering.label(unit.out)}", unit.out.shape)
            accumulate(lowering, terms, total, unit.row.gamma)
            assert lowering.book is not None
            line.around.append(lowering.book.sum(View(each), View(total)))
