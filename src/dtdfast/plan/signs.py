"""What is known of signs, and the terms that remain of a rule once they are."""

from __future__ import annotations

from .. import layers as L
from ..rules import Row, Term
from ..vocabulary import INPUT_MAPS, WEIGHT_MAPS, W, X
from .units import Affine, Elementwise, Fixed, Floats, Gating, Move, Neuron, Part, Probabilities, Unit, Words


def _after(activation: L.ReLU | L.Activation | None, nonnegative: bool) -> bool:
    if activation is None:
        return nonnegative
    return activation.function.sign(activation, nonnegative)


def _least(numbers: Floats | None) -> bool:
    """Whether weights or biases are all ≥ 0 (absent ones are), the larger weights not looked at: theirs are of both
    signs.
    """
    return numbers is None or (numbers[0].size < 1024 and bool((numbers >= 0).all()))


def sign_of(unit: Unit) -> bool:
    """Whether a unit's outputs are known to be ≥ 0, given what is known of its sources."""
    sources = all(s.nonnegative for s in unit.sources)
    if isinstance(unit, Neuron):
        return _after(
            unit.activation,
            sources and _least(unit.bias) and all(p.nonnegative or _least(p.weight) for p in unit.parts),
        )
    if isinstance(unit, Elementwise):
        return _after(unit.activation, sources)
    if isinstance(unit, Probabilities):
        return not unit.log
    if isinstance(unit, Affine):
        return sources and bool((unit.scale >= 0).all()) and (unit.shift is None or bool((unit.shift >= 0).all()))
    if isinstance(unit, Move):
        return sources and (unit.fill is None or unit.fill >= 0)
    if isinstance(unit, Gating):
        return sources
    if isinstance(unit, Fixed):
        return bool(unit.value.min() >= 0)
    if isinstance(unit, Words):
        return bool(unit.weight.min() >= 0)
    return sources


def reduce_terms(row: Row, part: Part) -> list[list[Term]]:
    """The row's terms for one operand, per share: x⁺ is x and x⁻ is nothing where x ≥ 0, likewise for weights of 1."""
    result = []
    for share in row.shares:
        terms = []
        for term in share.terms:
            x: str | None = term.x
            w: str | None = term.w
            if part.source.nonnegative:
                x = INPUT_MAPS[term.x].positive
            if part.weight is None or part.nonnegative:
                w = WEIGHT_MAPS[term.w].positive
            if x is not None and w is not None:
                terms.append(Term(x, w))
        result.append(terms)
    return result


def cancels(unit: Unit) -> bool:
    """Whether a neuron's rule sums products of both signs, so that rounded operands may leave nothing right of the
    sum.
    """
    if not isinstance(unit, Neuron) or unit.row is None:
        return False
    return any(
        WEIGHT_MAPS[term.w].sign is None
        for part in unit.parts
        if part.weight is not None and not part.nonnegative
        for share in part.terms
        for term in share
    )


def sign_of_term(part: Part, term: Term) -> int | None:
    """The sign of all of a term's products in(x_i)·wm(w_ij), if it is known: 1 (≥ 0) or -1 (≤ 0)."""
    x = INPUT_MAPS[term.x].sign or (1 if part.source.nonnegative else None)
    w = WEIGHT_MAPS[term.w].sign or (1 if part.weight is None or part.nonnegative else None)
    return x * w if x and w else None


SIGNED_TERMS, SIGNED_BIAS = "its terms are of both signs", "its bias may cancel its terms"


def doubt(unit: Unit) -> str:
    """Why nothing known here keeps a denominator of a neuron's rule away from 0; "" where something does.

    Terms and bias of one sign cannot cancel. And where a ReLU follows, a denominator d that exceeds y = Σ x w + b term
    by term is held by it: relevance R = max(0, y)·c comes only where 0 < y ≤ d, so that the gate g = y/d is at most 1.
    With y and d off by e each, e the rounding errors of sums over Σ|x w| + |b|, the gate is off by δ ≤ min(1, 2e/d) and
    all the messages of the neuron together by (d − b)·δ·c ≤ (2e + |b⁻|·min(1, 2e/d))·c: never more than what its bias
    weighs, and next to nothing unless d is itself of the size of e, which takes Σ x(wm(w) − w) = d − y as small. Not so
    for d = y (LRP-0, ε), where the gate is 1 right down to the y at which rounding decides whether there is any
    relevance, nor for R that was not made by y.
    """
    if not isinstance(unit, Neuron) or unit.row is None or not unit.in_relevance:
        return ""
    found = ""
    for number, share in enumerate(unit.row.shares):
        signs = {sign_of_term(part, term) for part in unit.parts for term in part.terms[number]}
        bias = None if unit.bias is None or share.bias is None else _sign_of_bias(unit.bias, share.bias)
        if None in signs or len(signs) > 1:
            found = SIGNED_TERMS
        elif bias is not None and signs and signs != {bias}:
            found = found or SIGNED_BIAS
    return "" if found and _held(unit) else found


def _sign_of_bias(bias: Floats, weight_map: str) -> int:
    """1, -1, or 0 for both."""
    return WEIGHT_MAPS[weight_map].sign or (1 if bias.min() >= 0 else -1 if bias.max() <= 0 else 0)


def _held(unit: Neuron) -> bool:
    """Whether 0 < y ≤ d wherever relevance comes."""
    row, act = unit.row, unit.activation
    assert row is not None
    rectified = act is not None and act.function.rectifies(act)
    if unit.out.form != "c" or not rectified or len(row.shares) != 1 or row.shares[0].select != "all":
        return False
    terms = [(part, part.terms[0]) for part in unit.parts]
    if not all(part.source.nonnegative and len(t) == 1 and t[0].x == X for part, t in terms):
        return False
    exceeds = all(
        (t[0].w != W and WEIGHT_MAPS[t[0].w].exceeds) or part.weight is None or part.nonnegative for part, t in terms
    )
    weighted = any(part.weight is not None for part in unit.parts)
    return (
        exceeds
        and weighted
        and (
            unit.bias is None
            or ((bias := row.shares[0].bias) is not None and WEIGHT_MAPS[bias].exceeds)
            or bool(unit.bias.max() <= 0)
        )
    )
