"""What a plan for the relevance of weights sums of a neuron: Σ_positions in(x_i) s_j of every operand and input map."""

from __future__ import annotations

from collections import defaultdict

from ...rules import Term
from ...vocabulary import W_ABS, W, X
from ..lowering import Lowering
from ..parts import Part, Sum
from ..steps import Buffer
from .neuron_steps import absolute, by_sign_of, factors_of, shared

Messages = tuple[Buffer, list[tuple[Part, Term]], list[str]]  # s, the terms that it meets, the maps of the bias


def weigh(lowering: Lowering, unit: Sum, r: Buffer) -> None:
    """Behind the steps that hand on its relevance r."""
    weighing = lowering.weighing
    assert weighing is not None
    if not weighing.wants(unit):
        return
    for s, terms, biases in messages(lowering, unit, r):
        maps: dict[tuple[int, str], list[str]] = defaultdict(list)
        parts = {id(part): part for part, _ in terms}
        for part, term in terms:
            maps[id(part), term.x].append(term.w)
        for (number, input_map), of in maps.items():
            part = parts[number]
            x = lowering.spatial(part.source, framed=part.framed)
            if input_map != X:
                x = lowering.mapped(part, Term(input_map, W))
            weighing.product(lowering, unit, part, x, s, of)
        if biases and unit.bias is not None:
            weighing.bias(lowering, unit, s, biases)


def messages(lowering: Lowering, unit: Sum, r: Buffer) -> list[Messages]:
    """What its weights meet: n_ij s_j, factor by factor."""
    row = unit.row
    assert row is not None
    ratio, made = lowering.paired.get(unit.out.index), lowering.shared.get(unit.out.index, {})
    if unit.sloped and unit.out.form == "R" and len(made) < len(factors_of(lowering, unit)):
        r = lowering.rectified(unit, r)
    found: list[Messages] = []
    for number, (factor, kind) in enumerate(factors_of(lowering, unit)):
        s = made[number] if number in made else shared(lowering, unit, r, factor, kind)
        if ratio is not None:  # two products each way serve: see Row.paired
            held = [W], [W_ABS]
            signed = by_sign_of(lowering, unit, s, ratio)
            terms = [(part, Term(X, W)) for part in unit.parts], [(part, absolute(part)) for part in unit.parts]
            found += [(s, terms[0], held[0] * row.holds_bias), (signed, terms[1], held[1] * row.holds_bias)]
            continue
        bias = row.shares[number].bias
        pairs = [(part, term) for part in unit.parts for term in part.terms[number]]
        found.append((s, pairs, [] if bias is None else [bias]))
    return found
