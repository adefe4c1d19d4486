"""What is known of signs, and the terms that remain of a rule once they are."""

from __future__ import annotations

from .. import layers as L
from ..rules import W_GAMMA_NEG, W_GAMMA_POS, W_NEG, W_POS, X_NEG, X_POS, Row, Term, W, X
from .units import Affine, Elementwise, Gating, Move, Neuron, Part, Probabilities, Unit, Words

SIGNED = frozenset((W, W_GAMMA_POS, W_GAMMA_NEG))
"""Weight maps that keep weights of both signs."""

_KEEP = ("leaky_relu", "elu", "silu", "gelu", "gelu_tanh", "hard_swish", "tanh")  # non-negative for a non-negative input
_ALWAYS = ("sigmoid", "hard_sigmoid", "softplus")


def _after(activation: L.ReLU | L.Activation | None, nonnegative: bool) -> bool:
    if activation is None:
        return nonnegative
    if isinstance(activation, L.ReLU) or activation.kind in _ALWAYS:
        return True
    if activation.kind == "clip":
        return activation.alpha is not None and activation.alpha >= 0
    if activation.kind == "leaky_relu" and activation.alpha is not None and activation.alpha < 0:
        return False
    return nonnegative and activation.kind in _KEEP


def sign_of(unit: Unit) -> bool:
    """Whether a unit's outputs are known to be ≥ 0, given what is known of its sources."""
    sources = all(s.nonnegative for s in unit.sources)
    if isinstance(unit, Neuron):
        return _after(unit.activation, sources and unit.bias is None and all(p.weight is None for p in unit.parts))
    if isinstance(unit, Elementwise):
        return _after(unit.activation, sources)
    if isinstance(unit, Probabilities):
        return True
    if isinstance(unit, Affine):
        return sources and bool((unit.scale >= 0).all()) and (unit.shift is None or bool((unit.shift >= 0).all()))
    if isinstance(unit, Move):
        return sources and (unit.fill is None or unit.fill >= 0)
    if isinstance(unit, Gating):
        return sources
    if isinstance(unit, Words):
        return bool(unit.weight.min() >= 0)
    return sources


def reduce_terms(row: Row, part: Part) -> list[list[Term]]:
    """The row's terms for one operand, per share: x⁺ is x and x⁻ is nothing where x ≥ 0, likewise for weights of 1."""
    result = []
    for share in row.shares:
        terms = []
        for term in share.terms:
            x, w = term.x, term.w
            if part.source.nonnegative:
                if x == X_NEG:
                    continue
                x = X if x == X_POS else x
            if part.weight is None:
                if w == W_NEG:
                    continue
                w = W if w == W_POS else w
            terms.append(Term(x, w))
        result.append(terms)
    return result


def cancels(unit: Unit) -> bool:
    """Whether a neuron's rule sums products of both signs, so that rounded operands may leave nothing right of the sum."""
    if not isinstance(unit, Neuron) or unit.row is None:
        return False
    return any(term.w in SIGNED for part in unit.parts if part.weight is not None for share in part.terms for term in share)
