"""From operands of the plan to the records' own shapes; and why an entry with weights has no relevance of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..plan.program import Program
from ..plan.shapes import Shape

Floats = NDArray[np.float64]

WEIGHTED = (L.Linear, L.Conv, L.ConvTranspose, L.BatchNorm, L.Scale)
"""Records whose weights can be those of a neuron."""

OTHERS = {
    L.Embedding: "an Embedding is the network's input: its relevance is that of words",
    L.LayerNorm: "the scales of a norm are numbers of the sample, held constant",
    L.RMSNorm: "the scales of a norm are numbers of the sample, held constant",
    L.GroupNorm: "the scales of a norm are numbers of the sample, held constant",
    L.InstanceNorm: "the scales of a norm are numbers of the sample, held constant",
}


def positions_with_weights(layers: list[L.Layer]) -> frozenset[int]:
    return frozenset(k for k, record in enumerate(layers) if isinstance(record, WEIGHTED))


def left_out(layers: list[L.Layer], program: Program, found: set[int]) -> dict[int, str]:
    """Entries with weights of which no relevance was found, and why."""
    reasons = {}
    for position, record in enumerate(layers):
        if position in found or not isinstance(record, (*WEIGHTED, *OTHERS)):
            continue
        takers = program.network.taken.get(position)
        if takers:
            reasons[position] = f"folded into {', '.join(map(str, takers))}"
        elif type(record) in OTHERS:
            reasons[position] = OTHERS[type(record)]
        elif position in program.pruned or not program.network.at[position].wanted:
            reasons[position] = "plays no part in what is explained"
        else:
            reasons[position] = "no weights in a denominator: relevance passes"
    return reasons


def as_record(record: L.Layer, relevance: Floats, sample: Shape) -> Floats:
    """Relevance (outputs, inputs of a group, taps) in the shape of the record's weights; `sample`: of its output."""
    if isinstance(record, L.ConvTranspose):
        c_in, outputs, *kernel = record.weight.shape
        grouped = relevance.reshape(record.groups, outputs, c_in // record.groups, *kernel)
        return np.ascontiguousarray(grouped.swapaxes(1, 2)).reshape(record.weight.shape)
    if isinstance(record, L.Scale):
        return _broadcast_back(record.scale.shape, relevance.reshape(-1), sample)
    if isinstance(record, L.BatchNorm):
        return relevance.reshape(-1)
    assert isinstance(record, (L.Linear, L.Conv))
    return relevance.reshape(record.weight.shape)


def _broadcast_back(scale: Shape, relevance: Floats, sample: Shape) -> Floats:
    """Relevance per channel or per element of a sample, added up along the axes that a scale is repeated along."""
    column = (*scale, *(1,) * (len(sample) - 1)) if len(scale) == 1 else scale
    whole = sample if relevance.size == int(np.prod(sample)) else (-1, *(1,) * (len(sample) - 1))
    spread = relevance.reshape(whole)
    axes = tuple(a for a, size in enumerate(column) if size == 1)
    result: Floats = spread.sum(axis=axes, keepdims=True).reshape(scale)
    return result
