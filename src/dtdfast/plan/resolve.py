"""Which tensors carry relevance, in which form, and what remains of each neuron's rule there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .. import layers as L
from ..errors import LayerError, at
from ..rules import GRADIENT
from ..vocabulary import WEIGHT_MAPS
from .network import Network
from .signs import reduce_terms
from .units import Affine, Elementwise, Fixed, Gating, Neuron, Normalise, Probabilities, Tensor, Total, Unit, Words


def resolve(network: Network, layers: list[L.Layer], stop: int | None, *, gradient: bool) -> None:
    """Mark tensors as wanted, choose the form of relevance on each, and reduce every neuron's terms.

    Forms: relevance on a tensor is c (R = x ⊙ c) where every reader shares it in product form, else R itself.
    """
    leaves = network.input if stop is None else network.at[stop]
    below = {leaves.index}  # tensors computed from where relevance leaves, or from constants, which absorb it
    if not gradient:
        below.update(unit.out.index for unit in network.units if isinstance(unit, Fixed))
    for unit in network.units:
        carriers = unit.sources if gradient else unit.carriers
        if unit.out.index not in below and any(s.index in below for s in carriers):
            below.add(unit.out.index)
    network.output.wanted = True
    for unit in reversed(network.units):
        if not (unit.out.wanted and unit.out.index in below) or unit.out is leaves:
            continue
        _check(unit, layers, gradient)
        for source in unit.sources if gradient else unit.carriers:
            source.wanted = source.wanted or source.index in below
    for tensor in network.tensors:
        tensor.wanted = tensor.wanted and tensor.index in below
    if not leaves.wanted or not network.output.wanted:
        where = "the network's input" if stop is None else at(stop, layers[stop])
        raise LayerError(f"no relevance reaches {where}: nothing that is explained is computed from it")
    _forms(network, leaves, gradient)
    for unit in network.units:
        if isinstance(unit, Neuron) and unit.in_relevance and unit.out is not leaves:
            _reduce(unit, gradient)


def _check(unit: Unit, layers: list[L.Layer], gradient: bool) -> None:
    where = at(unit.position, layers[unit.position])
    if isinstance(unit, Probabilities):
        raise LayerError(
            f"{where}: a Softmax inside the network has no relevance rule; end the network before it, or explain with "
            "start="
        )
    if isinstance(unit, Gating) and unit.gates != 1 and not gradient:
        raise LayerError(
            f"{where}: {unit.gates} of its operands are made by a sigmoid, expected exactly one (the gate); "
            "relevance goes to the signal, and which one that is cannot be told"
        )
    if isinstance(unit, Gating) and not gradient and unit.sources[0].shape != unit.out.shape:
        raise LayerError(
            f"{where}: its signal (n, {unit.sources[0].shape}) is smaller than its gate; only the gate may be repeated"
        )
    if isinstance(unit, Normalise) and gradient:
        raise LayerError(
            f"{where}: the gradient through LRN is not implemented; relevance passes through it under every rule"
        )


def _forms(network: Network, leaves: Tensor, gradient: bool) -> None:
    network.output.form = "c" if gradient else "R"
    signed = {u.out.index for u in network.units if isinstance(u, Neuron) and u.row is not None and u.row.by_sign}
    known: dict[int, set[int]] = {}

    def carried(unit: Unit) -> set[int]:
        """Tensors to which it hands relevance, for as many readers as it has."""
        if id(unit) not in known:
            known[id(unit)] = {t.index for t in unit.carriers}
        return known[id(unit)]

    for tensor in reversed(network.tensors):
        if tensor is network.output or not tensor.wanted:
            continue
        readers = [u for u in tensor.readers if u.out.wanted and (gradient or tensor.index in carried(u))]
        # whose d has two signs
        product = bool(readers) and all(delivers(u) == "c" for u in readers) and tensor.index not in signed
        tensor.form = "c" if gradient or (product and not tensor.valueless) else "R"


def delivers(unit: Unit) -> str:
    """The form in which a unit hands relevance to its sources."""
    if isinstance(unit, Neuron):
        assert unit.row is not None
        return "c" if unit.row.product_form else "R"
    if isinstance(unit, (Affine, Normalise, Total, Words)):
        return "R"
    if isinstance(unit, Elementwise) and not isinstance(unit.activation, L.ReLU):
        return "R"
    return unit.out.form


def _reduce(unit: Neuron, gradient: bool) -> None:
    if gradient:
        unit.row = GRADIENT
    row = unit.row
    assert row is not None
    if unit.out.form == "c" and isinstance(unit.activation, L.ReLU) and not gradient:
        # R = x ⊙ c is 0 where y <= 0, so a share that holds there passes nothing
        shares = tuple(s for s in row.shares if s.select != "y<0")
        if len(shares) == 1 and shares[0].select == "y>0":
            shares = (replace(shares[0], select="all"),)
        unit.row = row = replace(row, shares=shares)
    for part in unit.parts:
        part.terms = reduce_terms(row, part)
        if gradient:
            part.box = None


def window_scale(window: np.ndarray | None, weight_map: str) -> np.ndarray | None:
    """How an average pool's 1/divisor stands in a rule's sum: wm(s·w) = s^power wm(w) for s > 0."""
    power = WEIGHT_MAPS[weight_map].power
    return None if window is None or power == 0 else window**power
