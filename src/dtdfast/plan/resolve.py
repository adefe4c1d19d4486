"""Which tensors carry relevance, in which form, and what remains of each neuron's rule there."""

from __future__ import annotations

from operator import attrgetter

from .. import layers as L
from ..errors import LayerError, RuleError, at
from .network import Network
from .tensors import Node, Tensor
from .units import Neuron

WANTED = attrgetter("wanted")


def resolve(network: Network, layers: list[L.Layer], stop: int | None, *, gradient: bool) -> None:
    """Mark tensors as wanted, choose the form of relevance on each, and reduce every neuron's terms.

    Forms: relevance on a tensor is c (R = x ⊙ c) where every reader shares it in product form, else R itself.
    """
    leaves = network.input if stop is None else network.at[stop]
    below = {leaves.index}  # tensors computed from where relevance leaves, or from constants, which absorb it
    if not gradient:
        below.update([unit.out.index for unit in network.units if unit.absorbs])
    carriers = [unit.carriers for unit in network.units]
    flows = [unit.sources for unit in network.units] if gradient else carriers
    for unit, sources in zip(network.units, flows, strict=True):
        for source in sources:
            if source.index in below:
                below.add(unit.out.index)
                break
    network.output.wanted = True
    for unit, sources in zip(reversed(network.units), reversed(flows), strict=True):
        if not (unit.out.wanted and unit.out.index in below) or unit.out is leaves:
            continue
        if refusal := unit.refusal(gradient=gradient):
            raise LayerError(f"{at(unit.position, layers[unit.position])}: {refusal}")
        for source in sources:
            if source.index in below:
                source.wanted = True
    for tensor in network.tensors:
        tensor.wanted = tensor.wanted and tensor.index in below
    for unit, sources in zip(network.units, flows, strict=True):
        unit.in_relevance = unit.out.wanted and any(map(WANTED, sources))
    if not leaves.wanted or not network.output.wanted:
        where = "the network's input" if stop is None else at(stop, layers[stop])
        raise LayerError(f"no relevance reaches {where}: nothing that is explained is computed from it")
    if not gradient:
        _refuse_signs(network, layers)
    _forms(network, gradient)
    for unit in network.units:
        if isinstance(unit, Neuron) and unit.in_relevance and unit.out is not leaves:
            unit.reduce(gradient=gradient)


def _refuse_signs(network: Network, layers: list[L.Layer]) -> None:
    """RuleError where a softmax's or a product's Taylor rule, which divides relevance by values, meets a rule that
    shares by the signs of terms, or one that gives relevance to values of 0 that such a unit made. Not in a layer that
    reads the input, by whose values nothing divides.
    """
    taylor = next((u for u in network.units if u.taylor and u.in_relevance), None)
    if taylor is None:
        return
    behind: set[int] = set()
    for unit in network.units:
        made = bool(unit.taylor) or any(s.index in behind for s in unit.sources)
        row = unit.row if isinstance(unit, Neuron) and unit.in_relevance else None
        if isinstance(unit, Neuron) and all(part.source.is_input for part in unit.parts):
            row = None
        if row is not None and (row.one_signed or (made and not row.product_form)):
            what = "leaves values without relevance" if row.one_signed else "gives relevance to values of 0"
            raise RuleError(
                f"{at(unit.position, layers[unit.position])}: {row.label} {what}, and "
                f'attention="taylor" (at {at(taylor.position, layers[taylor.position])}) divides by them; give '
                'attention="held", or a rule such as Zero, Epsilon or Gamma'
            )
        if made:
            behind.add(unit.out.index)


def _forms(network: Network, gradient: bool) -> None:
    network.output.form = "c" if gradient else "R"
    signed = {u.out.index for u in network.units if isinstance(u, Neuron) and u.row is not None and u.row.by_sign}
    known: dict[int, set[int]] = {}

    def carries(unit: Node, tensor: Tensor) -> bool:
        """Whether it hands relevance to this one of its sources; those of a unit with many are looked through once."""
        if (carriers := unit.carriers) is unit.sources:
            return True
        if id(unit) not in known:
            known[id(unit)] = {t.index for t in carriers}
        return tensor.index in known[id(unit)]

    for tensor in reversed(network.tensors):
        if tensor is network.output or not tensor.wanted:
            continue
        product = gradient
        if not gradient and tensor.index not in signed and not tensor.valueless:  # signed: d has two signs
            forms = [u.form for u in tensor.readers if u.out.wanted and carries(u, tensor)]
            product = bool(forms) and "R" not in forms
        tensor.form = "c" if product else "R"
